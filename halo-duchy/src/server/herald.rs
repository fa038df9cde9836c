//! Follows what the Kingdom reports, and tells it which uploads this Duchy holds.
//!
//! The Kingdom pushes every change of a computation of this Duchy. A report is applied in one transaction together with
//! the position in the stream, so that a restart goes on where the last transaction ended.

use std::sync::Arc;
use std::time::Duration;

use halo_core::clock::Timestamp;
use halo_core::pb::system;
use halo_core::pb::system::computation::State;
use halo_core::pb::system::computations_client::ComputationsClient;
use halo_core::pb::system::requisitions_client::RequisitionsClient;
use halo_core::resource::{ComputationName, ComputationRequisitionName, DataProviderName, RequisitionName};
use prost::Message;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::duchy::{Duchy, backoff, client, system_rng, unary};
use super::failpoint::{self, Moment};
use super::receive::store_status;
use super::secrets::KeyKind;
use super::stage::{Role, Stage};
use super::store::{NewComputation, Record, Report, Requisition, Upload};
use super::terms::{Refusal, Terms};

/// How often uploads that the Kingdom has not acknowledged are announced again.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(30);

/// Follows the Kingdom until the server stops.
pub(crate) async fn follow(duchy: Arc<Duchy>) {
    let mut delays = backoff();
    loop {
        let before = duchy.now();
        let outcome = tokio::select! {
            outcome = follow_once(&duchy) => outcome,
            () = duchy.shutdown.cancelled() => return,
        };
        duchy.parties.kingdom.forget().await;
        // A connection that held for a while was a good one.
        if duchy.now().since(before).as_secs() > 60 {
            delays = backoff();
        }
        let delay = delays.next().unwrap_or_default();
        match outcome {
            Ok(()) => tracing::info!("the Kingdom ended the stream; connecting again"),
            Err(status) => {
                tracing::warn!(code = ?status.code(), reason = status.message(), ?delay, "lost the Kingdom");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = duchy.shutdown.cancelled() => return,
        }
    }
}

async fn follow_once(duchy: &Duchy) -> Result<(), Status> {
    let channel = duchy.parties.kingdom.channel().await?;
    announce_all(duchy, &channel).await?;
    let token = duchy.store.continuation_token().await.map_err(|error| store_status(&error))?;
    let mut computations = client!(ComputationsClient, channel.clone());
    let request = system::StreamActiveComputationsRequest { continuation_token: token };
    let mut stream = match computations.stream_active_computations(request).await {
        Ok(response) => response.into_inner(),
        Err(status) if status.code() == Code::InvalidArgument => {
            tracing::warn!(
                reason = status.message(),
                "the Kingdom does not know the position in its stream; beginning again"
            );
            let reset = duchy.store.apply(None, "", duchy.now()).await;
            reset.map_err(|error| store_status(&error))?;
            return Err(status);
        }
        Err(status) => return Err(status),
    };
    tracing::info!(kingdom = duchy.parties.kingdom.endpoint(), "following the Kingdom");
    let mut again = tokio::time::interval_at(Instant::now() + ANNOUNCE_AGAIN, ANNOUNCE_AGAIN);
    loop {
        tokio::select! {
            message = stream.message() => match message? {
                Some(response) => take(duchy, response).await?,
                None => return Ok(()),
            },
            // A call may have failed after a publisher was told to come back, and the publisher may not come.
            _ = again.tick() => announce_all(duchy, &channel).await?,
        }
    }
}

/// Applies one report.
async fn take(duchy: &Duchy, response: system::StreamActiveComputationsResponse) -> Result<(), Status> {
    let token = response.continuation_token.as_str();
    let failed = |error: super::store::StoreError| store_status(&error);
    let Some(computation) = response.computation else {
        return duchy.store.apply(None, token, duchy.now()).await.map_err(failed);
    };
    let name: ComputationName = match computation.name.parse() {
        Ok(name) => name,
        Err(error) => {
            tracing::error!(%error, "the Kingdom reported a computation without a proper name");
            return duchy.store.apply(None, token, duchy.now()).await.map_err(failed);
        }
    };
    let known = duchy.store.load(&name.computation.to_string()).await.map_err(failed)?;
    let moves = known.as_ref().and_then(|record| moved_by(record, computation.state));
    if let Some(stage) = moves {
        // While requisitions are awaited, what is in the middle of a delivery is an upload.
        if matches!(stage, Stage::WaitToStart | Stage::WaitToCompute) {
            failpoint::pass(Moment::MidDelivery, stage, String::new);
        }
        failpoint::pass(Moment::BeforeCommit, stage, String::new);
    }
    let report = report(duchy, &name, &computation, known.as_ref(), duchy.now()).await?;
    tracing::info!(
        computation = %name.computation,
        state = computation.state().as_str_name(),
        refused = report.refusal.as_ref().map(|(_, reason)| reason.as_str()),
        "the Kingdom reports"
    );
    duchy.store.apply(Some(&report), token, duchy.now()).await.map_err(failed)?;
    if let Some(stage) = moves {
        failpoint::pass(Moment::AfterCommit, stage, String::new);
    }
    duchy.work.notify_one();
    Ok(())
}

/// The waiting stage that a report ends.
fn moved_by(record: &Record, kingdom_state: i32) -> Option<Stage> {
    (record.stage.settled(kingdom_state, false) != record.stage).then_some(record.stage)
}

/// What follows from a report.
async fn report(
    duchy: &Duchy,
    name: &ComputationName,
    computation: &system::Computation,
    known: Option<&Record>,
    now: Timestamp,
) -> Result<Report, Status> {
    let mut report = Report {
        computation: name.computation.to_string(),
        kingdom_state: computation.state,
        received: computation.encode_to_vec(),
        new: None,
        over: over(computation),
        refusal: None,
    };
    if report.over.is_some() || known.is_some() {
        return Ok(report);
    }
    let mut taken = None;
    for requisition in &computation.requisitions {
        let name = requisition_name(requisition);
        if let Some(other) = duchy.store.requisition(&name).await.map_err(|error| store_status(&error))? {
            taken = Some(format!("requisitions: {name} belongs to computation {} already", other.computation));
        }
    }
    let agreed = Terms::read(&report.received).and_then(|terms| {
        let me = &duchy.parties.me;
        terms.check(&duchy.parties, &duchy.settings, now)?;
        fresh(duchy, name, computation)?;
        if let Some(reason) = taken {
            return Err(Refusal { message: reason, culprits: vec!["kingdom".to_owned()] });
        }
        Ok((terms.role(me), terms.protocol.key_kind(me), terms.requisitions(me)?))
    });
    let (role, key, requisitions) = agreed.unwrap_or_else(|refusal| {
        let request = duchy.failure(name, Stage::InitializationPhase, &refusal);
        report.refusal = Some((request.encode_to_vec(), refusal.message));
        (Role::Worker, KeyKind::None, Vec::new())
    });
    let secrets = duchy.keys.generate(&report.computation, key, &mut system_rng());
    let secrets = secrets.map_err(|error| Status::unavailable(error.to_string()))?;
    report.new = Some(NewComputation { role, secrets, requisitions });
    Ok(report)
}

/// The name that a requisition of a report is stored under; empty when it has none.
fn requisition_name(requisition: &system::Requisition) -> String {
    let publisher = requisition.data_provider.parse::<DataProviderName>();
    let id = requisition.name.parse::<ComputationRequisitionName>();
    match (publisher, id) {
        (Ok(publisher), Ok(name)) => RequisitionName::new(publisher.data_provider, name.requisition).to_string(),
        _ => String::new(),
    }
}

/// A computation for which this Duchy has already given a key needs that key's secret, which is not here.
fn fresh(duchy: &Duchy, name: &ComputationName, computation: &system::Computation) -> Result<(), Refusal> {
    let own = duchy.part(name);
    let given =
        computation.computation_participants.iter().any(|part| part.name == own && part.requisition_params.is_some());
    if given {
        return Err(Refusal::new(format!(
            "{own} has given a key whose secret is not in its state; was state_dir replaced?"
        )));
    }
    Ok(())
}

/// Whether the computation has ended; the inner text says why it did not succeed.
fn over(computation: &system::Computation) -> Option<Option<String>> {
    match computation.state() {
        State::Succeeded => Some(None),
        State::Failed => {
            let failures = computation.computation_participants.iter().filter_map(|part| part.failure.as_ref());
            let reasons: Vec<&str> = failures.map(|failure| failure.error_message.as_str()).collect();
            Some(Some(if reasons.is_empty() { "the measurement failed".to_owned() } else { reasons.join("; ") }))
        }
        State::Cancelled => Some(Some("the measurement was cancelled".to_owned())),
        State::Unspecified
        | State::PendingRequisitionParams
        | State::PendingRequisitionFulfillment
        | State::PendingParticipantConfirmation
        | State::PendingComputation => None,
    }
}

/// Tells the Kingdom of uploads that it has not acknowledged.
async fn announce_all(duchy: &Duchy, channel: &Channel) -> Result<(), Status> {
    let waiting = duchy.store.unannounced().await.map_err(|error| store_status(&error))?;
    for requisition in waiting {
        let Some(upload) = &requisition.upload else { continue };
        match announce(duchy, channel.clone(), &requisition, upload, None).await {
            Ok(()) => {}
            // The Kingdom has its reasons; the measurement is most likely over, which the stream will tell.
            Err(status) if is_final(&status) => {
                tracing::warn!(
                    requisition = requisition.name,
                    reason = status.message(),
                    "the Kingdom does not take it"
                );
            }
            Err(status) => return Err(status),
        }
    }
    Ok(())
}

fn is_final(status: &Status) -> bool {
    matches!(status.code(), Code::FailedPrecondition | Code::InvalidArgument | Code::NotFound | Code::PermissionDenied)
}

/// Tells the Kingdom that an upload is complete, and remembers that it knows.
pub(crate) async fn announce(
    duchy: &Duchy,
    channel: Channel,
    requisition: &Requisition,
    upload: &Upload,
    context: Option<system::requisition::FulfillmentContext>,
) -> Result<(), Status> {
    let broken = |error: halo_core::Error| Status::internal(error.to_string());
    let name: RequisitionName = requisition.name.parse().map_err(broken)?;
    let computation = requisition.computation.parse().map_err(broken)?;
    let request = system::FulfillRequisitionRequest {
        name: ComputationRequisitionName::new(computation, name.requisition).to_string(),
        nonce: upload.nonce,
        fulfillment_context: context,
        etag: String::new(),
        key_list_hash: upload.key_list_hash.to_vec(),
        body_sha256: upload.body.sha256.to_vec(),
        record_count: upload.body.records.cast_signed(),
    };
    unary(client!(RequisitionsClient, channel).fulfill_requisition(request)).await?;
    duchy.store.announced(&requisition.name).await.map_err(|error| store_status(&error))
}
