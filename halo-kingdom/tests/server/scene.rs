//! A Kingdom with one measurement, and what its parties do on the way to a result.

use std::{collections::BTreeMap, sync::Arc};

use halo_core::{
    clock::{Clock, ManualClock, SystemClock},
    measurement::Protocol,
    pb::{api, system},
    resource::{DuchyId, RequisitionName},
    session,
    wire::{self, type_name},
};
use prost::Message;

use crate::world::{CONSUMER, Caller, DUCHIES, NONCES, PUBLISHERS, Running, World, rng};

/// A Kingdom with a measurement, and everybody's connection.
pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) running: Running,
    /// The Kingdom's clock, which stands still unless a test moves it.
    pub(crate) clock: ManualClock,
    pub(crate) callers: BTreeMap<String, Caller>,
    pub(crate) measurement: api::Measurement,
    pub(crate) computation: system::Computation,
    pub(crate) protocol: Protocol,
}

impl Scene {
    /// With Liquid Legions v2.
    pub(crate) async fn new() -> Self {
        let world = World::new();
        let spec = world.spec();
        Self::of(world, &spec).await
    }

    /// With what the world's Kingdom plans for this specification.
    pub(crate) async fn of(world: World, spec: &api::MeasurementSpec) -> Self {
        let clock = ManualClock::new(SystemClock.now());
        let running = world.start_by(Arc::new(clock.clone())).await;
        let mut callers = BTreeMap::new();
        for name in world.parties.keys() {
            callers.insert(name.clone(), world.connect(&running.endpoint, name).await);
        }
        let request = world.request(spec);
        let measurement = callers[CONSUMER].measurements().create_measurement(request).await.unwrap().into_inner();
        let mut stream = callers[DUCHIES[1]]
            .computations()
            .stream_active_computations(system::StreamActiveComputationsRequest::default())
            .await
            .unwrap()
            .into_inner();
        let computation = stream.message().await.unwrap().unwrap().computation.unwrap();
        let protocol = wire::parse_protocol_config(&computation.serialized_protocol_config).unwrap().protocol;
        Self { world, running, clock, callers, measurement, computation, protocol }
    }

    pub(crate) fn caller(&self, name: &str) -> &Caller {
        &self.callers[name]
    }

    pub(crate) fn consumer(&self) -> &Caller {
        self.caller(CONSUMER)
    }

    /// The computation as it is now.
    pub(crate) async fn refreshed(&self) -> system::Computation {
        let request = system::GetComputationRequest { name: self.computation.name.clone() };
        self.caller(DUCHIES[1]).computations().get_computation(request).await.unwrap().into_inner()
    }

    pub(crate) async fn state(&self) -> system::computation::State {
        self.refreshed().await.state()
    }

    pub(crate) fn participant(&self, duchy: &str) -> String {
        format!("{}/participants/{}", self.computation.name, &duchy[8..])
    }

    /// Every Duchy gives its key.
    pub(crate) async fn set_keys(&self) {
        for duchy in self.duchies() {
            let request = self.world.params(&duchy, &self.computation, &self.protocol);
            self.caller(&duchy).participants().set_participant_requisition_params(request).await.unwrap();
        }
    }

    /// The Duchies that compute.
    pub(crate) fn duchies(&self) -> Vec<String> {
        let name = |part: &system::ComputationParticipant| format!("duchies/{}", part.name.rsplit_once('/').unwrap().1);
        self.computation.computation_participants.iter().map(name).collect()
    }

    /// The Duchies' keys as the Kingdom hands them out.
    async fn keys(&self) -> Vec<(DuchyId, Vec<u8>)> {
        use system::computation_participant::requisition_params::Protocol as Params;
        let computation = self.refreshed().await;
        let key = |part: &system::ComputationParticipant| {
            let key = match part.requisition_params.as_ref().unwrap().protocol.as_ref().unwrap() {
                Params::LiquidLegionsV2(given) | Params::ReachOnlyLiquidLegionsV2(given) => &given.el_gamal_public_key,
                Params::HonestMajorityShareShuffle(given) => &given.tink_public_key,
                Params::TrusTee(given) => &given.tink_public_key,
            };
            (part.name.rsplit_once('/').unwrap().1.parse().unwrap(), key.clone())
        };
        computation.computation_participants.iter().map(key).collect()
    }

    /// The hash of the Duchies' keys as the Kingdom hands them out.
    pub(crate) async fn key_list_hash(&self) -> [u8; 32] {
        let keys = self.keys().await;
        let keys: Vec<(DuchyId, &[u8])> = keys.iter().map(|(duchy, key)| (duchy.clone(), key.as_slice())).collect();
        session::key_list_hash(&keys)
    }

    /// What the right Duchy says when a publisher's data has arrived, and the Duchy.
    pub(crate) async fn fulfilment(&self, publisher: usize) -> (String, system::FulfillRequisitionRequest) {
        let found = self
            .computation
            .requisitions
            .iter()
            .find(|requisition| requisition.data_provider == PUBLISHERS[publisher])
            .unwrap();
        let id = found.name.rsplit_once('/').unwrap().1;
        let name: RequisitionName = format!("{}/requisitions/{id}", PUBLISHERS[publisher]).parse().unwrap();
        let ids: Vec<DuchyId> = self.duchies().iter().map(|name| name[8..].parse().unwrap()).collect();
        let ids = self.protocol.fulfilling_duchies(&ids);
        let chosen = session::fulfilling_duchy(&name, &ids).unwrap();
        let key_list_hash = if matches!(self.protocol, Protocol::Hmss(_)) {
            let other = ids.iter().find(|id| *id != chosen).unwrap();
            let keys = self.keys().await;
            let (_, key) = keys.iter().find(|(duchy, _)| duchy == other).unwrap();
            session::key_list_hash(&[(other.clone(), key.as_slice())])
        } else {
            self.key_list_hash().await
        };
        let duchy = format!("duchies/{chosen}");
        let request = system::FulfillRequisitionRequest {
            name: found.name.clone(),
            nonce: NONCES[publisher],
            key_list_hash: key_list_hash.to_vec(),
            body_sha256: vec![publisher as u8; 32],
            record_count: 100,
            ..Default::default()
        };
        (duchy, request)
    }

    pub(crate) async fn fulfill_all(&self) {
        for publisher in 0..PUBLISHERS.len() {
            let (duchy, request) = self.fulfilment(publisher).await;
            self.caller(&duchy).system_requisitions().fulfill_requisition(request).await.unwrap();
        }
    }

    pub(crate) async fn confirm_all(&self) {
        let key_list_hash = self.key_list_hash().await.to_vec();
        for duchy in self.duchies() {
            let request = system::ConfirmComputationParticipantRequest {
                name: self.participant(&duchy),
                key_list_hash: key_list_hash.clone(),
                ..Default::default()
            };
            self.caller(&duchy).participants().confirm_computation_participant(request).await.unwrap();
        }
    }

    /// The result as a Duchy signs and encrypts it.
    pub(crate) fn result(&self, duchy: &str) -> system::SetComputationResultRequest {
        let result = api::measurement::Result {
            reach: Some(api::measurement::result::Reach { value: 42, ..Default::default() }),
            ..Default::default()
        };
        let party = self.world.party(duchy);
        let signed = party.sign(type_name::MEASUREMENT_RESULT, result.encode_to_vec()).encode_to_vec();
        let consumer = self.world.consumer();
        system::SetComputationResultRequest {
            name: self.computation.name.clone(),
            aggregator_certificate: party.certificate_name(),
            result_public_key: consumer.public_key(),
            encrypted_result: consumer.keyset.public().encrypt(&signed, b"", &mut rng()).unwrap(),
            public_api_version: "v2alpha".into(),
        }
    }

    /// Everything up to the computation.
    pub(crate) async fn compute(&self) {
        self.set_keys().await;
        self.fulfill_all().await;
        self.confirm_all().await;
    }
}
