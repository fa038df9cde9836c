//! A Kingdom and a Duchy that do as the tests tell them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt, stream::BoxStream};
use halo_core::{
    pb::{
        api::{
            self, Certificate, FulfillDirectRequisitionRequest, FulfillRequisitionRequest, FulfillRequisitionResponse,
            RefuseRequisitionRequest, ReplaceDataProviderCapabilitiesRequest,
            certificate::RevocationState,
            certificates_server::{Certificates, CertificatesServer},
            data_providers_server::{DataProviders, DataProvidersServer},
            fulfill_requisition_request::{Header, Payload},
            requisition::State,
            requisition_fulfillment_server::{RequisitionFulfillment, RequisitionFulfillmentServer},
            requisitions_server::{Requisitions, RequisitionsServer},
        },
        halo::{
            GetTransferRequest, ListTimelineEntriesRequest, ListTimelineEntriesResponse, Transfer,
            WatchMeasurementRequest, WatchMeasurementResponse, WatchRequisitionsRequest, WatchRequisitionsResponse,
            transfers_server::{Transfers, TransfersServer},
            watch_server::{Watch, WatchServer},
        },
    },
    transport::{Identity, Roots, ServerTls, health_service},
};
use tokio::{net::TcpListener, sync::watch};
use tonic::{Code, Request, Response, Status, Streaming, service::Routes, transport::Server};

use crate::parties::{Authority, issue};

/// Serves on a free port of the local host, as a party of `authority`, to the clients of `clients`. Returns the port.
pub(crate) async fn serve(
    authority: &Authority,
    clients: &Authority,
    kingdom: Option<SimulatedKingdom>,
    duchy: Option<SimulatedDuchy>,
) -> u16 {
    let (certificate, key) = issue(authority);
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    let tls = ServerTls::new(identity, &Roots::from_der(vec![clients.der().to_vec()])).unwrap();
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut routes = Routes::new(health_service());
    if let Some(kingdom) = kingdom {
        routes = routes
            .add_service(WatchServer::new(kingdom.clone()))
            .add_service(CertificatesServer::new(kingdom.clone()))
            .add_service(DataProvidersServer::new(kingdom.clone()))
            .add_service(RequisitionsServer::new(kingdom));
    }
    if let Some(duchy) = duchy {
        routes = routes
            .add_service(TransfersServer::new(duchy.clone()))
            .add_service(RequisitionFulfillmentServer::new(duchy));
    }
    tokio::spawn(Server::builder().add_routes(routes).serve_with_incoming(tls.incoming(listener)));
    port
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not a part of the test"))
}

/// A Kingdom with one requisition.
#[derive(Clone)]
pub(crate) struct SimulatedKingdom {
    certificates: Arc<Vec<(String, Vec<u8>)>>,
    requisition: watch::Sender<api::Requisition>,
    log: Arc<Mutex<KingdomLog>>,
}

#[derive(Default)]
struct KingdomLog {
    revoked: Option<String>,
    end_first_watch: bool,
    silent: bool,
    tokens: Vec<String>,
    refusals: Vec<RefuseRequisitionRequest>,
    capabilities: Option<ReplaceDataProviderCapabilitiesRequest>,
    results: Vec<FulfillDirectRequisitionRequest>,
    lost_results: usize,
}

impl SimulatedKingdom {
    pub(crate) fn new(requisition: api::Requisition, certificates: Vec<(String, Vec<u8>)>) -> Self {
        let (requisition, _) = watch::channel(requisition);
        Self { certificates: Arc::new(certificates), requisition, log: Arc::default() }
    }

    /// Ends the first watch after its first response.
    pub(crate) fn end_first_watch(&self) {
        self.log.lock().unwrap().end_first_watch = true;
    }

    /// Revokes a certificate.
    pub(crate) fn revoke(&self, certificate: String) {
        self.log.lock().unwrap().revoked = Some(certificate);
    }

    /// Calls the requisition closed, or open, for all who watch it.
    pub(crate) fn close(&self, state: State) {
        self.requisition.send_modify(|requisition| requisition.set_state(state));
    }

    /// Withdraws the requisition, so that a publisher learns of it only when it asks for it by name.
    pub(crate) fn withdraw_unheard(&self) {
        self.close(State::Withdrawn);
        self.log.lock().unwrap().silent = true;
    }

    /// Hands out the same requisition under another id.
    pub(crate) fn ask_again(&self, id: &str) {
        self.requisition.send_modify(|requisition| {
            let publisher = requisition.name.rsplit_once('/').unwrap().0.to_owned();
            requisition.name = format!("{publisher}/{id}");
        });
    }

    /// The continuation tokens of all watches so far.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.log.lock().unwrap().tokens.clone()
    }

    /// What the publisher says it can do, when it has said it.
    pub(crate) fn capabilities(&self) -> Option<ReplaceDataProviderCapabilitiesRequest> {
        self.log.lock().unwrap().capabilities.clone()
    }

    /// Has not been told.
    pub(crate) fn forget_capabilities(&self) {
        self.log.lock().unwrap().capabilities = None;
    }

    /// Takes so many results without an answer.
    pub(crate) fn lose_results(&self, results: usize) {
        self.log.lock().unwrap().lost_results = results;
    }

    /// The results that were handed in, in this order.
    pub(crate) fn results(&self) -> Vec<FulfillDirectRequisitionRequest> {
        self.log.lock().unwrap().results.clone()
    }

    pub(crate) fn refusals(&self) -> Vec<RefuseRequisitionRequest> {
        self.log.lock().unwrap().refusals.clone()
    }
}

#[tonic::async_trait]
impl Watch for SimulatedKingdom {
    type WatchRequisitionsStream = BoxStream<'static, Result<WatchRequisitionsResponse, Status>>;
    type WatchMeasurementStream = BoxStream<'static, Result<WatchMeasurementResponse, Status>>;

    async fn watch_requisitions(
        &self,
        request: Request<WatchRequisitionsRequest>,
    ) -> Result<Response<Self::WatchRequisitionsStream>, Status> {
        let token = request.into_inner().continuation_token;
        let mut log = self.log.lock().unwrap();
        log.tokens.push(token.clone());
        let end = log.end_first_watch && log.tokens.len() == 1;
        let mut receiver = self.requisition.subscribe();
        if token.is_empty() && !log.silent {
            receiver.mark_changed();
        }
        let responses = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.changed().await.ok()?;
            let requisition = Some(receiver.borrow_and_update().clone());
            Some((Ok(WatchRequisitionsResponse { requisition, continuation_token: "1".to_owned() }), receiver))
        });
        Ok(Response::new(if end { responses.take(1).boxed() } else { responses.boxed() }))
    }

    async fn watch_measurement(
        &self,
        _: Request<WatchMeasurementRequest>,
    ) -> Result<Response<Self::WatchMeasurementStream>, Status> {
        unused()
    }

    async fn list_timeline_entries(
        &self,
        _: Request<ListTimelineEntriesRequest>,
    ) -> Result<Response<ListTimelineEntriesResponse>, Status> {
        unused()
    }
}

#[tonic::async_trait]
impl Certificates for SimulatedKingdom {
    async fn get_certificate(
        &self,
        request: Request<api::GetCertificateRequest>,
    ) -> Result<Response<Certificate>, Status> {
        let name = request.into_inner().name;
        let found = self.certificates.iter().find(|(other, _)| *other == name);
        let (_, der) = found.ok_or_else(|| Status::not_found(name.clone()))?;
        let mut certificate = Certificate { name, x509_der: der.clone(), ..Default::default() };
        if self.log.lock().unwrap().revoked.as_ref() == Some(&certificate.name) {
            certificate.set_revocation_state(RevocationState::Revoked);
        }
        Ok(Response::new(certificate))
    }

    async fn create_certificate(
        &self,
        _: Request<api::CreateCertificateRequest>,
    ) -> Result<Response<Certificate>, Status> {
        unused()
    }

    async fn list_certificates(
        &self,
        _: Request<api::ListCertificatesRequest>,
    ) -> Result<Response<api::ListCertificatesResponse>, Status> {
        unused()
    }

    async fn revoke_certificate(
        &self,
        _: Request<api::RevokeCertificateRequest>,
    ) -> Result<Response<Certificate>, Status> {
        unused()
    }

    async fn release_certificate_hold(
        &self,
        _: Request<api::ReleaseCertificateHoldRequest>,
    ) -> Result<Response<Certificate>, Status> {
        unused()
    }
}

#[tonic::async_trait]
impl DataProviders for SimulatedKingdom {
    async fn replace_data_provider_capabilities(
        &self,
        request: Request<ReplaceDataProviderCapabilitiesRequest>,
    ) -> Result<Response<api::DataProvider>, Status> {
        self.log.lock().unwrap().capabilities = Some(request.into_inner());
        Ok(Response::new(api::DataProvider::default()))
    }

    async fn get_data_provider(
        &self,
        _: Request<api::GetDataProviderRequest>,
    ) -> Result<Response<api::DataProvider>, Status> {
        unused()
    }

    async fn replace_data_provider_required_duchies(
        &self,
        _: Request<api::ReplaceDataProviderRequiredDuchiesRequest>,
    ) -> Result<Response<api::DataProvider>, Status> {
        unused()
    }

    async fn replace_data_availability_intervals(
        &self,
        _: Request<api::ReplaceDataAvailabilityIntervalsRequest>,
    ) -> Result<Response<api::DataProvider>, Status> {
        unused()
    }

    async fn replace_data_availability_interval(
        &self,
        _: Request<api::ReplaceDataAvailabilityIntervalRequest>,
    ) -> Result<Response<api::DataProvider>, Status> {
        unused()
    }
}

#[tonic::async_trait]
impl Requisitions for SimulatedKingdom {
    async fn refuse_requisition(
        &self,
        request: Request<RefuseRequisitionRequest>,
    ) -> Result<Response<api::Requisition>, Status> {
        self.log.lock().unwrap().refusals.push(request.into_inner());
        let mut requisition = self.requisition.borrow().clone();
        requisition.set_state(State::Refused);
        Ok(Response::new(requisition))
    }

    async fn list_requisitions(
        &self,
        _: Request<api::ListRequisitionsRequest>,
    ) -> Result<Response<api::ListRequisitionsResponse>, Status> {
        unused()
    }

    async fn fulfill_direct_requisition(
        &self,
        request: Request<FulfillDirectRequisitionRequest>,
    ) -> Result<Response<api::FulfillDirectRequisitionResponse>, Status> {
        let mut log = self.log.lock().unwrap();
        log.results.push(request.into_inner());
        if log.lost_results > 0 {
            log.lost_results -= 1;
            return Err(Status::unavailable("the answer is lost"));
        }
        let mut response = api::FulfillDirectRequisitionResponse::default();
        response.set_state(State::Fulfilled);
        Ok(Response::new(response))
    }

    async fn get_requisition(
        &self,
        request: Request<api::GetRequisitionRequest>,
    ) -> Result<Response<api::Requisition>, Status> {
        let name = request.into_inner().name;
        let requisition = self.requisition.borrow().clone();
        if requisition.name == name { Ok(Response::new(requisition)) } else { Err(Status::not_found(name)) }
    }
}

/// One stream of an upload.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) header: Header,
    /// Bytes of the body that were stored when it ended.
    pub(crate) received: usize,
}

/// A Duchy that takes one body.
#[derive(Clone, Default)]
pub(crate) struct SimulatedDuchy(Arc<Mutex<DuchyLog>>);

#[derive(Default)]
struct DuchyLog {
    break_after: Option<usize>,
    refuse: Option<Code>,
    stall: bool,
    kingdom: Option<SimulatedKingdom>,
    body: Vec<u8>,
    uploads: Vec<Upload>,
    largest_chunk: usize,
}

impl SimulatedDuchy {
    /// Breaks one upload when so many bytes have arrived.
    pub(crate) fn break_after(&self, bytes: usize) {
        self.0.lock().unwrap().break_after = Some(bytes);
    }

    /// Refuses every upload.
    pub(crate) fn refuse_uploads(&self, code: Code) {
        self.0.lock().unwrap().refuse = Some(code);
    }

    /// Leaves one upload without an answer.
    pub(crate) fn stall_once(&self) {
        self.0.lock().unwrap().stall = true;
    }

    /// Tells the Kingdom about a body well before it answers the publisher.
    pub(crate) fn announce_to(&self, kingdom: &SimulatedKingdom) {
        self.0.lock().unwrap().kingdom = Some(kingdom.clone());
    }

    pub(crate) fn uploads(&self) -> Vec<Upload> {
        self.0.lock().unwrap().uploads.clone()
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        self.0.lock().unwrap().body.clone()
    }

    pub(crate) fn largest_chunk(&self) -> usize {
        self.0.lock().unwrap().largest_chunk
    }

    /// Takes a message; `true` when the upload is to break now.
    fn take(&self, message: FulfillRequisitionRequest) -> Result<bool, Status> {
        let mut log = self.0.lock().unwrap();
        match message.payload {
            Some(Payload::Header(header)) => {
                let stored = log.body.len();
                if header.offset != stored as i64 {
                    return Err(Status::out_of_range(format!("{stored} bytes are stored")));
                }
                log.uploads.push(Upload { header, received: stored });
                match log.refuse {
                    Some(code) => Err(Status::new(code, "refused by the test")),
                    None => Ok(false),
                }
            }
            Some(Payload::BodyChunk(chunk)) => {
                log.body.extend_from_slice(&chunk.data);
                log.largest_chunk = log.largest_chunk.max(chunk.data.len());
                let stored = log.body.len();
                log.uploads.last_mut().unwrap().received = stored;
                Ok(log.break_after.take_if(|limit| stored >= *limit).is_some())
            }
            None => Err(Status::invalid_argument("an empty message")),
        }
    }
}

#[tonic::async_trait]
impl Transfers for SimulatedDuchy {
    async fn get_transfer(&self, _: Request<GetTransferRequest>) -> Result<Response<Transfer>, Status> {
        Ok(Response::new(Transfer { received_length: self.body().len() as i64, complete: false }))
    }
}

#[tonic::async_trait]
impl RequisitionFulfillment for SimulatedDuchy {
    async fn fulfill_requisition(
        &self,
        request: Request<Streaming<FulfillRequisitionRequest>>,
    ) -> Result<Response<FulfillRequisitionResponse>, Status> {
        let mut messages = request.into_inner();
        while let Some(message) = messages.message().await? {
            if self.take(message)? {
                return Err(Status::unavailable("the upload broke"));
            }
        }
        let stall = std::mem::take(&mut self.0.lock().unwrap().stall);
        if stall {
            futures::future::pending::<()>().await;
        }
        let kingdom = self.0.lock().unwrap().kingdom.clone();
        if let Some(kingdom) = kingdom {
            kingdom.close(State::Fulfilled);
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        let mut response =
            FulfillRequisitionResponse { received_length: self.body().len() as i64, ..Default::default() };
        response.set_state(State::Fulfilled);
        Ok(Response::new(response))
    }
}
