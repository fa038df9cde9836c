//! Why a call is refused, and the one place where that becomes a gRPC status.

use std::collections::HashMap;

use halo_core::{
    resource::{CertificateName, CertificateParent},
    wire::WireError,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::store::StoreError;
use crate::Error;

/// Domain of the machine-readable reasons.
pub const ERROR_DOMAIN: &str = "halo.wfanet.org";

/// Why a call is refused. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The caller's certificate belongs to no party.
    #[error("the client certificate belongs to no party of this Kingdom")]
    UnknownCaller,
    /// The caller may not do this, or the resource does not exist: which of them is not told.
    #[error("Permission {permission} denied on resource {resource} (or it might not exist)")]
    Denied { permission: &'static str, resource: String },
    /// The caller's own resource does not exist.
    #[error("{resource} does not exist")]
    NotFound { reason: &'static str, resource: String },
    /// Something that the request refers to does not exist, or cannot be used.
    #[error("{detail}")]
    Precondition { reason: &'static str, resource: String, detail: String },
    /// A field is missing.
    #[error("{0} is required")]
    Required(&'static str),
    /// A field breaks a rule.
    #[error("{field}: {detail}")]
    Invalid { field: String, detail: String },
    /// The resource has changed since the caller read it.
    #[error("{resource} has changed since the etag was given")]
    Etag { reason: &'static str, resource: String },
    /// There is such a resource already.
    #[error("{detail}")]
    Exists { reason: &'static str, detail: String },
    /// The caller holds too much open.
    #[error("{caller} has {most} streams open, and more are not served; end some, or wait")]
    TooManyStreams { caller: CertificateParent, most: usize },
    /// This Kingdom does not do this yet.
    #[error("{0} is not served by this Kingdom")]
    Unimplemented(&'static str),
    /// The rules of planning and the lifecycle.
    #[error(transparent)]
    Rule(#[from] Error),
    /// The storage.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refusal {
    pub(crate) fn denied(permission: &'static str, resource: impl ToString) -> Self {
        Self::Denied { permission, resource: resource.to_string() }
    }

    pub(crate) fn invalid(field: impl Into<String>, detail: impl ToString) -> Self {
        Self::Invalid { field: field.into(), detail: detail.to_string() }
    }

    pub(crate) fn certificate(certificate: &CertificateName, detail: impl ToString) -> Self {
        Error::Certificate { certificate: certificate.clone(), detail: detail.to_string() }.into()
    }

    /// Status code, reason, and the resource or field that it is about.
    fn classify(&self) -> (Code, &'static str, Option<(&'static str, String)>) {
        let resource = |name: &dyn ToString| Some(("resource", name.to_string()));
        match self {
            Self::UnknownCaller => (Code::Unauthenticated, "PERMISSION_DENIED", None),
            Self::Denied { resource: name, .. } => (Code::PermissionDenied, "PERMISSION_DENIED", resource(name)),
            Self::NotFound { reason, resource: name } => (Code::NotFound, reason, resource(name)),
            Self::Precondition { reason, resource: name, .. } => (Code::FailedPrecondition, reason, resource(name)),
            Self::Required(field) => {
                (Code::InvalidArgument, "REQUIRED_FIELD_NOT_SET", Some(("field_name", (*field).to_owned())))
            }
            Self::Invalid { field, .. } => {
                (Code::InvalidArgument, "INVALID_FIELD_VALUE", Some(("field_name", field.clone())))
            }
            Self::Etag { reason, resource: name } => (Code::Aborted, reason, resource(name)),
            Self::Exists { reason, .. } => (Code::AlreadyExists, reason, None),
            Self::TooManyStreams { caller, .. } => (Code::ResourceExhausted, "UNKNOWN_ERROR", resource(caller)),
            Self::Unimplemented(_) => (Code::Unimplemented, "UNKNOWN_ERROR", None),
            Self::Rule(error) => classify_rule(error),
            Self::Store(error) => classify_store(error),
        }
    }
}

fn classify_rule(error: &Error) -> (Code, &'static str, Option<(&'static str, String)>) {
    let resource = |name: &dyn ToString| Some(("resource", name.to_string()));
    match error {
        Error::Settings { .. } => (Code::Internal, "UNKNOWN_ERROR", None),
        Error::NoProtocol { .. } => {
            (Code::InvalidArgument, "INVALID_FIELD_VALUE", Some(("field_name", "measurement_spec".into())))
        }
        Error::Infeasible { field, .. } => {
            (Code::InvalidArgument, "INVALID_FIELD_VALUE", Some(("field_name", (*field).to_owned())))
        }
        Error::MeasurementState { measurement, .. } | Error::DeadlinePassed { measurement, .. } => {
            (Code::FailedPrecondition, "MEASUREMENT_STATE_ILLEGAL", resource(measurement))
        }
        Error::RequisitionState { requisition, .. } => {
            (Code::FailedPrecondition, "REQUISITION_STATE_ILLEGAL", resource(requisition))
        }
        Error::ParticipantState { duchy, .. } => {
            (Code::FailedPrecondition, "COMPUTATION_PARTICIPANT_STATE_ILLEGAL", resource(duchy))
        }
        Error::AlreadyDifferent { what } => (Code::FailedPrecondition, "INVALID_FIELD_VALUE", resource(what)),
        Error::NotParticipant { duchy } | Error::NotAggregator { duchy } => {
            (Code::PermissionDenied, "PERMISSION_DENIED", resource(duchy))
        }
        Error::NoSuchRequisition { requisition } => (Code::NotFound, "REQUISITION_NOT_FOUND", resource(requisition)),
        Error::NotDirect { requisition, .. } => {
            (Code::FailedPrecondition, "REQUISITION_STATE_ILLEGAL", resource(requisition))
        }
        Error::WrongDuchy { requisition, .. } => (Code::PermissionDenied, "PERMISSION_DENIED", resource(requisition)),
        Error::Nonce { .. } => (Code::InvalidArgument, "INVALID_FIELD_VALUE", Some(("field_name", "nonce".into()))),
        Error::KeyList { .. } => {
            (Code::FailedPrecondition, "INVALID_FIELD_VALUE", Some(("field_name", "key_list_hash".into())))
        }
        Error::Key { .. } => {
            (Code::InvalidArgument, "INVALID_FIELD_VALUE", Some(("field_name", "requisition_params".into())))
        }
        Error::Certificate { certificate, .. } => {
            (Code::FailedPrecondition, "CERTIFICATE_IS_INVALID", resource(certificate))
        }
    }
}

fn classify_store(error: &StoreError) -> (Code, &'static str, Option<(&'static str, String)>) {
    match error {
        StoreError::CertificateUnusable(name) => {
            (Code::FailedPrecondition, "CERTIFICATE_IS_INVALID", Some(("resource", name.to_string())))
        }
        StoreError::Full { computation, .. } => {
            (Code::FailedPrecondition, "UNKNOWN_ERROR", Some(("resource", computation.to_string())))
        }
        StoreError::Conflict(_) => (Code::Aborted, "UNKNOWN_ERROR", None),
        StoreError::AlreadyExists(_) => (Code::AlreadyExists, "UNKNOWN_ERROR", None),
        StoreError::Missing(_) => (Code::FailedPrecondition, "UNKNOWN_ERROR", None),
        StoreError::Corrupt { .. } | StoreError::Database(_) | StoreError::Migration(_) => {
            (Code::Internal, "UNKNOWN_ERROR", None)
        }
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Self {
        Self::Invalid { field: error.path, detail: error.reason }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let (code, reason, about) = refusal.classify();
        let mut metadata: HashMap<String, String> =
            about.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        if let Refusal::Rule(error) = &refusal {
            let culprits: Vec<String> = error.culprits().iter().map(|duchy| format!("duchies/{duchy}")).collect();
            if !culprits.is_empty() {
                metadata.insert("culprits".into(), culprits.join(", "));
            }
        }
        let message = if code == Code::Internal {
            // What went wrong inside is for the operator, not for the caller.
            tracing::error!(error = %refusal, "a call failed");
            "the Kingdom could not do this; its log says why".to_owned()
        } else {
            refusal.to_string()
        };
        Self::with_error_details(code, message, ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata))
    }
}
