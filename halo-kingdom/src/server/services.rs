//! The gRPC services. Each method authenticates its caller, reads the request, and leaves the decision to
//! [`crate::lifecycle`].

pub(crate) mod certificates;
pub(crate) mod computations;
pub(crate) mod event_groups;
pub(crate) mod measurements;
mod params;
pub(crate) mod participants;
pub(crate) mod parties;
pub(crate) mod requisitions;
pub(crate) mod watch;

use std::str::FromStr;

use halo_core::{
    pb::api,
    resource::{CertificateParent, DataProviderName, MeasurementConsumerName},
};
use prost::Message;
use tonic::{Response, Status};

use super::{limits::MAX_CONTEXT, refusal::Refusal};
use crate::record::FulfillmentContext;

/// Turns the outcome of a method into what tonic wants.
fn answer<T>(outcome: Result<T, Refusal>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(Status::from)
}

/// The refusal of a method that is not served.
fn unimplemented<T>(method: &'static str) -> Result<Response<T>, Status> {
    Err(Refusal::Unimplemented(method).into())
}

/// Reads a resource name.
fn name<T: FromStr<Err = halo_core::Error>>(field: &'static str, text: &str) -> Result<T, Refusal> {
    if text.is_empty() {
        return Err(Refusal::Required(field));
    }
    text.parse().map_err(|error| Refusal::invalid(field, error))
}

/// Refuses every caller but this consumer.
fn only_consumer(
    caller: &CertificateParent,
    owner: &MeasurementConsumerName,
    permission: &'static str,
    resource: &str,
) -> Result<(), Refusal> {
    match caller {
        CertificateParent::MeasurementConsumer(caller) if caller == owner => Ok(()),
        _ => Err(Refusal::denied(permission, resource)),
    }
}

/// Refuses every caller but this publisher.
fn only_publisher(
    caller: &CertificateParent,
    owner: &DataProviderName,
    permission: &'static str,
    resource: &str,
) -> Result<(), Refusal> {
    match caller {
        CertificateParent::DataProvider(caller) if caller == owner => Ok(()),
        _ => Err(Refusal::denied(permission, resource)),
    }
}

/// Reads a SHA-256.
fn hash(field: &'static str, bytes: &[u8]) -> Result<[u8; 32], Refusal> {
    if bytes.is_empty() {
        return Err(Refusal::Required(field));
    }
    bytes.try_into().map_err(|_| Refusal::invalid(field, format!("it has {} bytes; a SHA-256 has 32", bytes.len())))
}

/// What a publisher reports of its software and warnings. Many publishers' reports travel in one message, and data is
/// not lost for a report that is too long: such a report is not kept.
fn fulfillment_context(reported: Option<(&String, &Vec<String>)>) -> Option<FulfillmentContext> {
    let (build_label, warnings) = reported?;
    let context = api::requisition::FulfillmentContext { build_label: build_label.clone(), warnings: warnings.clone() };
    (context.encoded_len() <= MAX_CONTEXT)
        .then_some(FulfillmentContext { build_label: context.build_label, warnings: context.warnings })
}

/// Texts that are kept for people: not longer than anybody reads.
fn readable(field: &'static str, text: &str, longest: usize) -> Result<(), Refusal> {
    if text.len() <= longest {
        return Ok(());
    }
    Err(Refusal::invalid(field, format!("it has {} bytes; at most {longest} are kept", text.len())))
}
