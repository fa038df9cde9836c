//! Ids and resource names.
//!
//! A name is a path of collections and ids, such as `dataProviders/{data_provider}/requisitions/{requisition}`. Each
//! kind of name is a type whose parts are checked when it is read; [`std::fmt::Display`] writes it again.

mod id;
mod name;
mod parent;

pub use id::{DuchyId, ExternalId};
pub use name::{
    ComputationLogEntryName, ComputationName, ComputationParticipantName, ComputationRequisitionName,
    ComputationStageName, DataProviderName, DuchyName, EventGroupName, MeasurementConsumerEventGroupName,
    MeasurementConsumerName, MeasurementName, MeasurementRequisitionName, ModelProviderName, RequisitionName,
};
pub use parent::{CertificateName, CertificateParent, PublicKeyName, PublicKeyParent};
