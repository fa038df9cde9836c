//! Finding spooled bodies that nobody needs any more.
//!
//! A body is removed when its requisition is closed. What was closed while this process did not run is never told again:
//! the watch begins with what is open. So the Kingdom is asked, once, about everything that is still spooled.

use std::collections::BTreeSet;

use halo_core::{
    pb::api::{GetRequisitionRequest, requisition::State, requisitions_client::RequisitionsClient},
    resource::{DataProviderName, ExternalId, RequisitionName},
    transport::Client,
};
use tonic::{Code, Status};

use super::{
    answer::unary,
    watch::{backoff, describe, passes},
};

/// Those of the spooled bodies whose requisitions are closed or unknown, in as many attempts as it takes. A body stays
/// when the Kingdom does not say clearly what became of its requisition. Files with other names are nobody's business.
pub(super) async fn closed(
    kingdom: Client,
    publisher: DataProviderName,
    spooled: BTreeSet<String>,
) -> Vec<RequisitionName> {
    let mut closed = Vec::new();
    let ids = spooled.iter().filter_map(|name| name.parse::<ExternalId>().ok());
    for name in ids.map(|id| RequisitionName::new(publisher.data_provider, id)) {
        match state(&kingdom, &name).await {
            Ok(State::Unfulfilled | State::Unspecified) => {}
            Ok(_) => closed.push(name),
            Err(status) if status.code() == Code::NotFound => closed.push(name),
            Err(status) => {
                let status = describe(&status);
                tracing::warn!(requisition = %name, %status, "the spooled body stays: the Kingdom does not tell its state");
            }
        }
    }
    closed
}

/// What the Kingdom calls a requisition; asked again for as long as that can help.
async fn state(kingdom: &Client, name: &RequisitionName) -> Result<State, Status> {
    let mut delays = backoff();
    loop {
        let asked = async {
            let channel = kingdom.connect().await.map_err(|error| match error.is_transient() {
                true => Status::unavailable(error.to_string()),
                false => Status::failed_precondition(error.to_string()),
            })?;
            let request = GetRequisitionRequest { name: name.to_string() };
            unary(RequisitionsClient::new(channel).get_requisition(request)).await
        };
        match asked.await {
            Ok(requisition) => return Ok(requisition.state()),
            Err(status) if status.code() == Code::NotFound || !passes(&status) => return Err(status),
            Err(_) => tokio::time::sleep(delays.next().unwrap_or_default()).await,
        }
    }
}
