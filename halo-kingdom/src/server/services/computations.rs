//! `wfa.measurement.system.v1alpha.Computations`: what the Duchies see of measurements, and where the result comes in.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::Stream;
use halo_core::{
    measurement::Protocol,
    pb::system::{self, computations_server},
    resource::{CertificateName, CertificateParent, ComputationName, DuchyId, DuchyName},
    wire as core_wire,
};
use tonic::{Request, Response, Status};

use super::{answer, name, watch::Feed};
use crate::{
    lifecycle::Event,
    record::{ComputationResult, Measurement},
    server::{
        consent::usable_certificate,
        kingdom::Kingdom,
        limits::{MAX_RESULT, bounded},
        refusal::Refusal,
        store::Audience,
        wire,
    },
};

#[derive(Debug)]
pub(crate) struct Computations(pub(crate) Arc<Kingdom>);

#[tonic::async_trait]
impl computations_server::Computations for Computations {
    type StreamActiveComputationsStream =
        Pin<Box<dyn Stream<Item = Result<system::StreamActiveComputationsResponse, Status>> + Send>>;

    async fn get_computation(
        &self,
        request: Request<system::GetComputationRequest>,
    ) -> Result<Response<system::Computation>, Status> {
        answer(self.get(&request).await)
    }

    async fn stream_active_computations(
        &self,
        request: Request<system::StreamActiveComputationsRequest>,
    ) -> Result<Response<Self::StreamActiveComputationsStream>, Status> {
        answer(self.stream(&request))
    }

    async fn set_computation_result(
        &self,
        request: Request<system::SetComputationResultRequest>,
    ) -> Result<Response<system::Computation>, Status> {
        answer(self.set_result(&request).await)
    }
}

/// The measurement of a computation in which the Duchy takes part; whether others exist is not told.
pub(crate) async fn shared_computation(
    kingdom: &Kingdom,
    duchy: &DuchyId,
    computation: &ComputationName,
    permission: &'static str,
) -> Result<Measurement, Refusal> {
    let measurement = kingdom.store.computation(computation).await?;
    measurement
        .filter(|measurement| measurement.participant(duchy).is_some())
        .ok_or_else(|| Refusal::denied(permission, computation))
}

/// The DER of certificates, each read once.
async fn certificate_ders(
    kingdom: &Kingdom,
    names: impl Iterator<Item = &CertificateName>,
) -> Result<BTreeMap<CertificateName, Vec<u8>>, Refusal> {
    let mut ders = BTreeMap::new();
    for name in names {
        if !ders.contains_key(name) {
            let record = kingdom.store.certificate(name).await?;
            ders.insert(name.clone(), record.map(|record| record.der).unwrap_or_default());
        }
    }
    Ok(ders)
}

/// The computation as the Duchies see it.
pub(crate) async fn view(kingdom: &Kingdom, measurement: &Measurement) -> Result<system::Computation, Refusal> {
    let keys = measurement.participants.iter().filter_map(|part| part.parameters.as_ref()).map(|key| &key.certificate);
    let publishers = measurement.requisitions.iter().filter(|_| verifies_publishers(measurement));
    let publishers = publishers.map(|requisition| &requisition.certificate);
    let ders = certificate_ders(kingdom, keys.chain(publishers).chain([&measurement.consumer_certificate])).await?;
    let der = |name: &CertificateName| ders.get(name).cloned().unwrap_or_default();
    let participants = measurement
        .participants
        .iter()
        .map(|part| {
            let certificate = part.parameters.as_ref().map(|key| der(&key.certificate)).unwrap_or_default();
            wire::participant(measurement, part, certificate)
        })
        .collect();
    let requisitions = measurement
        .requisitions
        .iter()
        .map(|part| wire::computation_requisition(measurement, part, der(&part.certificate)))
        .collect();
    Ok(wire::computation(measurement, participants, requisitions, der(&measurement.consumer_certificate))?)
}

/// Whether Duchies verify what publishers sign: in a share shuffle each worker opens signed seeds.
pub(crate) const fn verifies_publishers(measurement: &Measurement) -> bool {
    matches!(measurement.protocol, Protocol::Hmss(_))
}

/// Reads a continuation token: the position in the change log, as eight bytes.
pub(crate) fn position(token: &str, latest: u64) -> Result<u64, Refusal> {
    if token.is_empty() {
        return Ok(0);
    }
    let refuse = || Refusal::invalid("continuation_token", "it is none of this Kingdom's; begin with an empty one");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refuse())?;
    let position = u64::from_be_bytes(bytes.try_into().map_err(|_| refuse())?);
    // A position that has not been reached was given before the state was replaced by an older one.
    if position <= latest { Ok(position) } else { Err(refuse()) }
}

/// Writes a continuation token.
pub(crate) fn token(position: u64) -> String {
    URL_SAFE_NO_PAD.encode(position.to_be_bytes())
}

impl Computations {
    async fn get(&self, request: &Request<system::GetComputationRequest>) -> Result<system::Computation, Refusal> {
        const PERMISSION: &str = "computations.get";
        let text = &request.get_ref().name;
        let duchy = self.0.calling_duchy(request, PERMISSION, text)?;
        let measurement = shared_computation(&self.0, &duchy, &name("name", text)?, PERMISSION).await?;
        view(&self.0, &measurement).await
    }

    fn stream(
        &self,
        request: &Request<system::StreamActiveComputationsRequest>,
    ) -> Result<<Self as computations_server::Computations>::StreamActiveComputationsStream, Refusal> {
        let duchy = self.0.calling_duchy(request, "computations.stream", "computations/-")?;
        let latest = *self.0.store.latest_change().borrow();
        let from = position(&request.get_ref().continuation_token, latest)?;
        let permit = self.0.stream_permit(&DuchyName::new(duchy.clone()).into())?;
        let feed = Feed::new(Arc::clone(&self.0), permit, Audience::Duchy(duchy), from);
        Ok(feed.stream(|kingdom, sequence, measurement| async move {
            let computation = Some(view(&kingdom, &measurement).await?);
            Ok(vec![system::StreamActiveComputationsResponse { computation, continuation_token: token(sequence) }])
        }))
    }

    async fn set_result(
        &self,
        request: &Request<system::SetComputationResultRequest>,
    ) -> Result<system::Computation, Refusal> {
        const PERMISSION: &str = "computations.setResult";
        let asked = request.get_ref();
        let duchy = self.0.calling_duchy(request, PERMISSION, &asked.name)?;
        let computation: ComputationName = name("name", &asked.name)?;
        let measurement = shared_computation(&self.0, &duchy, &computation, PERMISSION).await?;
        if asked.encrypted_result.is_empty() {
            return Err(Refusal::Required("encrypted_result"));
        }
        bounded("encrypted_result", asked.encrypted_result.len(), MAX_RESULT)?;
        let spec = core_wire::parse_measurement_spec(&measurement.spec.message.bytes)?;
        if !asked.result_public_key.is_empty() && asked.result_public_key != spec.measurement_public_key {
            return Err(Refusal::invalid(
                "result_public_key",
                "it is not the key that the consumer gave for the result",
            ));
        }
        let field = "aggregator_certificate";
        let owner = CertificateParent::from(DuchyName::new(duchy.clone()));
        // Once a measurement has ended, the answer depends on what is stored alone, and what the certificate is worth
        // today does not matter. Before that it may begin to compute at any moment, so the certificate is verified.
        let (certificate, needs) = if measurement.state.is_terminal() {
            (name(field, &asked.aggregator_certificate)?, Vec::new())
        } else {
            let store = self.0.store.as_ref();
            let usable = usable_certificate(store, field, &asked.aggregator_certificate, &owner, self.0.now()).await?;
            (usable.0.clone(), vec![usable.0])
        };
        let result = ComputationResult {
            certificate,
            public_key: asked.result_public_key.clone(),
            ciphertext: asked.encrypted_result.clone(),
        };
        let measurement = self.0.act(&computation, &Event::Completed { duchy, result }, &needs, |_| Ok(())).await?;
        view(&self.0, &measurement).await
    }
}
