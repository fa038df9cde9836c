//! A simulated Kingdom that reports what a test tells it to, true or not, and writes down what it is told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use halo_core::{
    pb::system::{
        Computation, ComputationLogEntry, ComputationParticipant, ConfirmComputationParticipantRequest,
        CreateComputationLogEntryRequest, FailComputationParticipantRequest, FulfillRequisitionRequest,
        GetComputationParticipantRequest, GetComputationRequest, Requisition, SetComputationResultRequest,
        SetParticipantRequisitionParamsRequest, StreamActiveComputationsRequest, StreamActiveComputationsResponse,
        computation_log_entries_server::{ComputationLogEntries, ComputationLogEntriesServer},
        computation_participants_server::{ComputationParticipants, ComputationParticipantsServer},
        computations_server::{Computations, ComputationsServer},
        requisitions_server::{Requisitions, RequisitionsServer},
    },
    transport::{Identity, Roots, ServerTls, caller_key_id, health_service},
};
use tokio::{net::TcpListener, sync::watch};
use tonic::{Request, Response, Status, transport::Server};

/// How long a test waits for something that is due.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the Duchy told the Kingdom.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    /// Its key share.
    Parameters(SetParticipantRequisitionParamsRequest),
    /// That it holds an upload.
    Fulfilled(FulfillRequisitionRequest),
    /// That everything is as agreed.
    Confirmed(ConfirmComputationParticipantRequest),
    /// The result.
    Result(SetComputationResultRequest),
    /// That it gives up.
    Failed(FailComputationParticipantRequest),
}

impl Call {
    /// The resource that it is about: a computation, or one below it.
    fn name(&self) -> &str {
        match self {
            Self::Parameters(request) => &request.name,
            Self::Fulfilled(request) => &request.name,
            Self::Confirmed(request) => &request.name,
            Self::Result(request) => &request.name,
            Self::Failed(request) => &request.name,
        }
    }
}

/// The simulated Kingdom.
#[derive(Clone)]
pub(crate) struct ScriptedKingdom {
    reports: watch::Sender<Vec<Computation>>,
    calls: watch::Sender<Vec<Call>>,
    /// Duchies by the key of their authority. Whoever is not among them is told of every computation.
    duchies: Arc<BTreeMap<Vec<u8>, String>>,
}

impl ScriptedKingdom {
    /// Serves on a free port to the clients of `clients`, and tells each of `duchies` of its own computations. Also returns
    /// the endpoint.
    pub(crate) async fn start(
        identity: Identity,
        clients: &Roots,
        duchies: BTreeMap<Vec<u8>, String>,
    ) -> (Self, String) {
        let (reports, calls) = (watch::channel(Vec::new()).0, watch::channel(Vec::new()).0);
        let kingdom = Self { reports, calls, duchies: Arc::new(duchies) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("https://{}", listener.local_addr().unwrap());
        let server = Server::builder()
            .add_service(health_service())
            .add_service(ComputationsServer::new(kingdom.clone()))
            .add_service(ComputationParticipantsServer::new(kingdom.clone()))
            .add_service(ComputationLogEntriesServer::new(kingdom.clone()))
            .add_service(RequisitionsServer::new(kingdom.clone()));
        let tls = ServerTls::new(identity, clients).unwrap();
        tokio::spawn(server.serve_with_incoming(tls.incoming(listener)));
        (kingdom, endpoint)
    }

    /// Reports a computation to the Duchy.
    pub(crate) fn report(&self, computation: &Computation) {
        self.reports.send_modify(|reports| reports.push(computation.clone()));
    }

    /// What the Duchy has told of a computation so far.
    pub(crate) fn calls(&self, computation: &Computation) -> Vec<Call> {
        let calls = self.calls.borrow();
        calls.iter().filter(|call| is_of(call, computation)).cloned().collect()
    }

    /// Waits until the Duchy has told something of a computation that `find` is after.
    pub(crate) async fn awaited<T>(&self, computation: &Computation, find: impl Fn(&Call) -> Option<T>) -> T {
        let mut calls = self.calls.subscribe();
        let search = async {
            loop {
                let found = calls.borrow_and_update().iter().filter(|call| is_of(call, computation)).find_map(&find);
                if let Some(found) = found {
                    return found;
                }
                calls.changed().await.unwrap();
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, search).await;
        outcome.unwrap_or_else(|_| panic!("the Duchy told only {:?}", self.calls(computation)))
    }

    fn note(&self, call: Call) {
        self.calls.send_modify(|calls| calls.push(call));
    }
}

fn is_of(call: &Call, computation: &Computation) -> bool {
    call.name().strip_prefix(&computation.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// An answer in which the Duchy reads nothing.
fn noted<T: Default>() -> Result<Response<T>, Status> {
    Ok(Response::new(T::default()))
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not a part of the test"))
}

#[tonic::async_trait]
impl Computations for ScriptedKingdom {
    type StreamActiveComputationsStream = BoxStream<'static, Result<StreamActiveComputationsResponse, Status>>;

    async fn stream_active_computations(
        &self,
        request: Request<StreamActiveComputationsRequest>,
    ) -> Result<Response<Self::StreamActiveComputationsStream>, Status> {
        let caller = caller_key_id(&request).and_then(|key| self.duchies.get(&key).cloned());
        // The token is the number of reports that the Duchy has taken.
        let taken = request.into_inner().continuation_token.parse::<usize>().unwrap_or(0);
        let state = (self.reports.subscribe(), taken, caller);
        let stream = futures::stream::unfold(state, |(mut reports, taken, caller)| async move {
            let next = reports.wait_for(|reports| reports.len() > taken).await.ok()?[taken].clone();
            let takes_part = caller.as_ref().is_none_or(|caller| {
                next.computation_participants.iter().any(|part| part.name.ends_with(&format!("/{caller}")))
            });
            let response = StreamActiveComputationsResponse {
                computation: Some(next).filter(|_| takes_part),
                continuation_token: (taken + 1).to_string(),
            };
            Some((Ok(response), (reports, taken + 1, caller)))
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn get_computation(&self, _: Request<GetComputationRequest>) -> Result<Response<Computation>, Status> {
        unused()
    }

    async fn set_computation_result(
        &self,
        request: Request<SetComputationResultRequest>,
    ) -> Result<Response<Computation>, Status> {
        self.note(Call::Result(request.into_inner()));
        noted()
    }
}

#[tonic::async_trait]
impl ComputationParticipants for ScriptedKingdom {
    async fn get_computation_participant(
        &self,
        _: Request<GetComputationParticipantRequest>,
    ) -> Result<Response<ComputationParticipant>, Status> {
        unused()
    }

    async fn set_participant_requisition_params(
        &self,
        request: Request<SetParticipantRequisitionParamsRequest>,
    ) -> Result<Response<ComputationParticipant>, Status> {
        self.note(Call::Parameters(request.into_inner()));
        noted()
    }

    async fn fail_computation_participant(
        &self,
        request: Request<FailComputationParticipantRequest>,
    ) -> Result<Response<ComputationParticipant>, Status> {
        self.note(Call::Failed(request.into_inner()));
        noted()
    }

    async fn confirm_computation_participant(
        &self,
        request: Request<ConfirmComputationParticipantRequest>,
    ) -> Result<Response<ComputationParticipant>, Status> {
        self.note(Call::Confirmed(request.into_inner()));
        noted()
    }
}

#[tonic::async_trait]
impl Requisitions for ScriptedKingdom {
    async fn fulfill_requisition(
        &self,
        request: Request<FulfillRequisitionRequest>,
    ) -> Result<Response<Requisition>, Status> {
        self.note(Call::Fulfilled(request.into_inner()));
        noted()
    }
}

#[tonic::async_trait]
impl ComputationLogEntries for ScriptedKingdom {
    async fn create_computation_log_entry(
        &self,
        _: Request<CreateComputationLogEntryRequest>,
    ) -> Result<Response<ComputationLogEntry>, Status> {
        noted()
    }
}
