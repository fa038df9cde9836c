//! The protocols beside Liquid Legions v2, each from its creation to its result, and what is refused on the way.

use halo_core::{
    pb::{
        api::{self, measurement::State, measurement_spec::MeasurementType, requisition::duchy_entry::value::Protocol},
        system::{self, computation::State as ComputationState, computation_participant::requisition_params},
    },
    wire::{self, type_name},
};
use tonic::Code;

use crate::{
    scene::Scene,
    world::{CONSUMER, DUCHIES, PUBLISHERS, World, assert_refused, liquid_legions, reason},
};

const WORKERS: &str = "first_worker = \"worker1\"\nsecond_worker = \"worker2\"\naggregator = \"aggregator\"\n";
const POPULATION: &str = "[population]\nfirst = 1\nlast = 1000\n";

/// A world whose Kingdom plans these protocols beside Liquid Legions v2, with publishers that can do everything.
fn world(sections: &str) -> World {
    let mut world = World::new();
    world.protocols.push_str(sections);
    world.publisher_keys = "capabilities = [\"hmss\", \"hmss-native\", \"trustee\"]\n".into();
    world
}

fn hmss() -> World {
    world(&format!("[hmss]\n{WORKERS}{POPULATION}"))
}

fn native() -> World {
    world(&format!("[hmss]\n{WORKERS}[hmss_native]\n{WORKERS}{POPULATION}"))
}

fn trustee() -> World {
    world(&format!("[hmss]\n{WORKERS}[trustee]\nduchy = \"worker1\"\n{POPULATION}"))
}

fn rollv2() -> World {
    world(&liquid_legions("rollv2"))
}

/// The specification of a measurement of reach.
fn reach(world: &World) -> api::MeasurementSpec {
    let privacy_params = Some(api::DifferentialPrivacyParams { epsilon: 1.0, delta: 1e-9 });
    let asked = api::measurement_spec::Reach { privacy_params };
    api::MeasurementSpec { measurement_type: Some(MeasurementType::Reach(asked)), ..world.spec() }
}

async fn requisition(scene: &Scene, publisher: usize) -> api::Requisition {
    let name = PUBLISHERS[publisher];
    let list = api::ListRequisitionsRequest { parent: name.into(), ..Default::default() };
    let listed = scene.caller(name).requisitions().list_requisitions(list).await.unwrap().into_inner();
    listed.requisitions.into_iter().next().unwrap()
}

/// From the keys to the result, which is taken from `aggregator` only.
async fn finish(scene: &Scene, aggregator: &str) {
    scene.fulfill_all().await;
    assert_eq!(scene.state().await, ComputationState::PendingParticipantConfirmation);
    scene.confirm_all().await;
    assert_eq!(scene.state().await, ComputationState::PendingComputation);
    for other in DUCHIES.into_iter().filter(|duchy| *duchy != aggregator) {
        let outcome = scene.caller(other).computations().set_computation_result(scene.result(other)).await;
        assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    let result = scene.result(aggregator);
    scene.caller(aggregator).computations().set_computation_result(result).await.unwrap();
    let done = scene.consumer().get(&scene.measurement.name).await;
    assert_eq!((done.state(), done.results.len()), (State::Succeeded, 1));
    assert_eq!(done.results[0].certificate, scene.world.party(aggregator).certificate_name());
}

#[tokio::test]
async fn reach_alone_is_computed_without_counts() {
    let world = rollv2();
    let spec = reach(&world);
    let scene = Scene::of(world, &spec).await;
    assert_eq!(scene.protocol.kind().name(), "rollv2");
    let config = wire::parse_protocol_config(&scene.computation.serialized_protocol_config).unwrap();
    wire::check_mpc_protocol_config(&config, scene.computation.mpc_protocol_config.as_ref()).unwrap();
    // A share in the message of the other protocol is none of this one.
    let share = scene.world.key_share(DUCHIES[0], &scene.computation).signed(scene.world.party(DUCHIES[0]));
    let outcome = scene.caller(DUCHIES[0]).participants().set_participant_requisition_params(share).await;
    let status = assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    assert!(status.message().contains("it is not that of rollv2"), "{}", status.message());
    scene.set_keys().await;
    let delivered = requisition(&scene, 0).await;
    assert_eq!(delivered.duchies.len(), 3);
    for entry in &delivered.duchies {
        let protocol = entry.value.as_ref().unwrap().protocol.as_ref().unwrap();
        assert!(matches!(protocol, Protocol::ReachOnlyLiquidLegionsV2(one) if one.el_gamal_public_key.is_some()));
    }
    finish(&scene, DUCHIES[0]).await;
}

/// What a publisher sees of a share shuffle.
async fn assert_workers(scene: &Scene) {
    for publisher in 0..PUBLISHERS.len() {
        let delivered = requisition(scene, publisher).await;
        let (taker, _) = scene.fulfilment(publisher).await;
        let names: Vec<&str> = delivered.duchies.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(names, &DUCHIES[1..], "the aggregator is nothing to a publisher");
        for entry in &delivered.duchies {
            let value = entry.value.as_ref().unwrap();
            assert_eq!(value.duchy_certificate, scene.world.party(&entry.key).certificate_name());
            let Some(Protocol::HonestMajorityShareShuffle(worker)) = &value.protocol else {
                panic!("{value:?}");
            };
            assert_eq!(worker.public_key.is_none(), entry.key == taker, "only the other worker's key is needed");
            if let Some(signed) = &worker.public_key {
                let party = scene.world.party(&entry.key);
                let key = wire::signed_bytes("key", Some(signed), type_name::ENCRYPTION_PUBLIC_KEY).unwrap();
                assert_eq!(key, party.session_key(&scene.computation));
                party.certificate.verify_signature(key, &signed.signature_algorithm_oid, &signed.signature).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_share_shuffle_has_two_workers_and_an_aggregator() {
    let world = hmss();
    let spec = world.spec();
    let scene = Scene::of(world, &spec).await;
    assert_eq!(scene.protocol.kind().name(), "hmss");
    assert_eq!(scene.computation.aggregator, "aggregator");
    let config = wire::parse_protocol_config(&scene.computation.serialized_protocol_config).unwrap();
    wire::check_mpc_protocol_config(&config, scene.computation.mpc_protocol_config.as_ref()).unwrap();
    for requisition in &scene.computation.requisitions {
        let publisher = scene.world.party(&requisition.data_provider);
        assert_eq!(requisition.data_provider_certificate, publisher.certificate_name());
        assert_eq!(requisition.data_provider_certificate_der, publisher.certificate.der());
    }
    let timeline = scene.consumer().timeline(&scene.measurement.name).await;
    let planned = timeline.iter().find(|(_, line)| line.starts_with("planned hmss: all 2 publishers")).unwrap();
    assert!(planned.1.contains("not llv2: hmss comes before it"), "{planned:?}");
    scene.set_keys().await;
    assert_workers(&scene).await;
    finish(&scene, DUCHIES[0]).await;
}

#[tokio::test]
async fn the_native_variant_comes_first() {
    let world = native();
    let spec = reach(&world);
    let scene = Scene::of(world, &spec).await;
    assert_eq!(scene.protocol.kind().name(), "hmss-native");
    scene.set_keys().await;
    assert_workers(&scene).await;
    finish(&scene, DUCHIES[0]).await;
}

#[tokio::test]
async fn a_trustee_computes_alone() {
    let world = trustee();
    let spec = world.spec();
    let scene = Scene::of(world, &spec).await;
    assert_eq!(scene.protocol.kind().name(), "trustee");
    assert_eq!((scene.duchies(), scene.computation.aggregator.as_str()), (vec![DUCHIES[1].to_owned()], "worker1"));
    let other = system::GetComputationRequest { name: scene.computation.name.clone() };
    let outcome = scene.caller(DUCHIES[0]).computations().get_computation(other).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    scene.set_keys().await;
    let delivered = requisition(&scene, 0).await;
    assert_eq!(delivered.duchies.len(), 1);
    let entry = &delivered.duchies[0];
    let Some(Protocol::TrusTee(trusted)) = &entry.value.as_ref().unwrap().protocol else {
        panic!("{entry:?}");
    };
    assert_eq!((entry.key.as_str(), trusted.attestation.as_slice()), (DUCHIES[1], b"evidence".as_slice()));
    let key = wire::signed_bytes("key", trusted.public_key.as_ref(), type_name::ENCRYPTION_PUBLIC_KEY).unwrap();
    assert_eq!(key, scene.world.party(DUCHIES[1]).session_key(&scene.computation));
    finish(&scene, DUCHIES[1]).await;
}

type Params = requisition_params::HonestMajorityShareShuffle;

#[tokio::test]
async fn keys_of_workers_are_verified_at_the_door() {
    let world = hmss();
    let spec = world.spec();
    let scene = Scene::of(world, &spec).await;
    let set = |duchy: &str, request: system::SetParticipantRequisitionParamsRequest| {
        let mut client = scene.caller(duchy).participants();
        async move { client.set_participant_requisition_params(request).await }
    };
    let changed = |duchy: &str, change: &dyn Fn(&mut Params)| {
        let mut request = scene.world.params(duchy, &scene.computation, &scene.protocol);
        match &mut request.requisition_params.as_mut().unwrap().protocol {
            Some(requisition_params::Protocol::HonestMajorityShareShuffle(params)) => change(params),
            other => panic!("{other:?}"),
        }
        request
    };
    let party = scene.world.party(DUCHIES[1]);
    let signed = |bytes: Vec<u8>| {
        let signature = party.key.sign(&bytes);
        move |params: &mut Params| {
            params.tink_public_key.clone_from(&bytes);
            params.tink_public_key_signature.clone_from(&signature);
        }
    };
    let mut crunchy = party.session_key(&scene.computation);
    crunchy.truncate(crunchy.len() / 2);
    let mut elsewhere = scene.computation.clone();
    elsewhere.measurement_spec.push(0);
    for (what, request) in [
        ("another signature", changed(DUCHIES[1], &|params| params.tink_public_key_signature[10] ^= 1)),
        ("no signature", changed(DUCHIES[1], &|params| params.tink_public_key_signature.clear())),
        ("another key", changed(DUCHIES[1], &|params| params.tink_public_key.push(0))),
        ("no key", changed(DUCHIES[1], &signed(Vec::new()))),
        ("half a key", changed(DUCHIES[1], &signed(crunchy.clone()))),
        ("a key for no session", changed(DUCHIES[1], &signed(party.public_key()))),
        ("a key of another session", changed(DUCHIES[1], &signed(party.session_key(&elsewhere)))),
        ("no keyset", changed(DUCHIES[1], &signed(b"no key".to_vec()))),
        ("a key that is too large", changed(DUCHIES[1], &signed(vec![0; 4097]))),
    ] {
        let status = set(DUCHIES[1], request).await.expect_err(what);
        assert_eq!(
            (status.code(), reason(&status).0.as_str()),
            (Code::InvalidArgument, "INVALID_FIELD_VALUE"),
            "{what}"
        );
    }
    // A key for the aggregator would be used by nobody.
    let key = party.public_key();
    let outcome = set(DUCHIES[0], changed(DUCHIES[0], &|params| params.tink_public_key.clone_from(&key))).await;
    let status = assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    assert!(status.message().contains("must be empty") && reason(&status).1 == DUCHIES[0], "{}", status.message());
    // And it signs that it has none.
    let outcome = set(DUCHIES[0], changed(DUCHIES[0], &|params| params.tink_public_key_signature[10] ^= 1)).await;
    let status = assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    assert_eq!(reason(&status).1, DUCHIES[0], "{}", status.message());
    let share = scene.world.key_share(DUCHIES[1], &scene.computation).signed(party);
    assert_refused(set(DUCHIES[1], share).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let stolen = changed(DUCHIES[1], &|_| ());
    assert_refused(set(DUCHIES[2], stolen.clone()).await, Code::PermissionDenied, "PERMISSION_DENIED");
    assert_eq!(scene.state().await, ComputationState::PendingRequisitionParams, "and nothing is lost");
    let first = set(DUCHIES[1], stolen.clone()).await.unwrap().into_inner();
    assert_eq!(set(DUCHIES[1], stolen).await.unwrap().into_inner(), first, "a repetition changes nothing");
}

#[tokio::test]
async fn evidence_of_a_trustee_has_bounds() {
    let world = trustee();
    let spec = world.spec();
    let scene = Scene::of(world, &spec).await;
    let with = |evidence: Vec<u8>| {
        let mut request = scene.world.params(DUCHIES[1], &scene.computation, &scene.protocol);
        match &mut request.requisition_params.as_mut().unwrap().protocol {
            Some(requisition_params::Protocol::TrusTee(params)) => params.attestation = evidence,
            other => panic!("{other:?}"),
        }
        let mut client = scene.caller(DUCHIES[1]).participants();
        async move { client.set_participant_requisition_params(request).await }
    };
    assert_refused(with(Vec::new()).await, Code::InvalidArgument, "REQUIRED_FIELD_NOT_SET");
    assert_refused(with(vec![0; (64 << 10) + 1]).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    with(vec![0; 64 << 10]).await.unwrap();
}

#[tokio::test]
async fn shares_arrive_at_the_right_worker_under_the_right_key() {
    let world = hmss();
    let spec = world.spec();
    let scene = Scene::of(world, &spec).await;
    let (taker, early) = {
        scene.set_keys().await;
        scene.fulfilment(0).await
    };
    let fulfill = |duchy: &str, request: system::FulfillRequisitionRequest| {
        let mut client = scene.caller(duchy).system_requisitions();
        async move { client.fulfill_requisition(request).await }
    };
    for other in DUCHIES.into_iter().filter(|duchy| *duchy != taker) {
        assert_refused(fulfill(other, early.clone()).await, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    let guessed = system::FulfillRequisitionRequest { nonce: early.nonce + 1, ..early.clone() };
    assert_refused(fulfill(&taker, guessed).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    // A publisher cannot hand in a result of its own.
    let party = scene.world.party(PUBLISHERS[0]);
    let direct = api::FulfillDirectRequisitionRequest {
        name: requisition(&scene, 0).await.name,
        encrypted_result: Some(api::EncryptedMessage {
            ciphertext: vec![1],
            type_url: wire::pack(type_name::SIGNED_MESSAGE, vec![]).type_url,
        }),
        nonce: early.nonce,
        certificate: party.certificate_name(),
        ..Default::default()
    };
    let outcome = scene.caller(PUBLISHERS[0]).requisitions().fulfill_direct_requisition(direct).await;
    let status = assert_refused(outcome, Code::FailedPrecondition, "REQUISITION_STATE_ILLEGAL");
    assert!(status.message().contains("is fulfilled at a Duchy"), "{}", status.message());

    let fulfilled = fulfill(&taker, early).await.unwrap().into_inner();
    assert_eq!(fulfilled.data_provider_certificate_der, party.certificate.der());
    let (taker, mut request) = scene.fulfilment(1).await;
    // The hash over all keys is for confirmations.
    request.key_list_hash = scene.key_list_hash().await.to_vec();
    let status = assert_refused(fulfill(&taker, request).await, Code::FailedPrecondition, "INVALID_FIELD_VALUE");
    assert_eq!(reason(&status).1, taker);
    assert_eq!(scene.consumer().get(&scene.measurement.name).await.state(), State::Failed);
}

#[tokio::test]
async fn publishers_say_what_they_can_do() {
    let mut world = hmss();
    world.publisher_keys.clear();
    let running = world.start().await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    let kind = |measurement: &api::Measurement| {
        use api::protocol_config::protocol::Protocol as Wire;
        match measurement.protocol_config.as_ref().unwrap().protocols[0].protocol.as_ref().unwrap() {
            Wire::LiquidLegionsV2(_) => "llv2",
            Wire::HonestMajorityShareShuffle(_) => "hmss",
            other => panic!("{other:?}"),
        }
    };
    let create = || async {
        let request = world.request(&world.spec());
        consumer.measurements().create_measurement(request).await.unwrap().into_inner()
    };
    let first = create().await;
    assert_eq!(kind(&first), "llv2");
    let timeline = consumer.timeline(&first.name).await;
    let lacking = format!("not hmss: {}, {} do not say", PUBLISHERS[0], PUBLISHERS[1]);
    assert!(timeline.iter().any(|(_, line)| line.contains(&lacking)), "{timeline:?}");

    let can = api::data_provider::Capabilities {
        honest_majority_share_shuffle_supported: true,
        noise_mechanism_none_supported: true,
        ..Default::default()
    };
    let request =
        |name: &str| api::ReplaceDataProviderCapabilitiesRequest { name: name.into(), capabilities: Some(can) };
    for publisher in PUBLISHERS {
        let caller = world.connect(&running.endpoint, publisher).await;
        let other = PUBLISHERS.into_iter().find(|other| *other != publisher).unwrap();
        let outcome = caller.data_providers().replace_data_provider_capabilities(request(other)).await;
        assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
        let empty = api::ReplaceDataProviderCapabilitiesRequest { capabilities: None, ..request(publisher) };
        let outcome = caller.data_providers().replace_data_provider_capabilities(empty).await;
        assert_refused(outcome, Code::InvalidArgument, "REQUIRED_FIELD_NOT_SET");
        let replaced = caller.data_providers().replace_data_provider_capabilities(request(publisher)).await.unwrap();
        assert_eq!(replaced.into_inner().capabilities, Some(can));
    }
    let outcome = consumer.data_providers().replace_data_provider_capabilities(request(PUBLISHERS[0])).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    assert_eq!(kind(&create().await), "hmss");
    drop(consumer);
    running.stop().await;

    // What a publisher has said outlives a restart, until the configuration says something else.
    for (keys, expected) in [
        ("", Some(can)),
        (
            "capabilities = [\"trustee\"]\n",
            Some(api::data_provider::Capabilities { trus_tee_supported: true, ..Default::default() }),
        ),
    ] {
        world.publisher_keys = keys.into();
        let running = world.start().await;
        let consumer = world.connect(&running.endpoint, CONSUMER).await;
        let get = api::GetDataProviderRequest { name: PUBLISHERS[0].into() };
        let found = consumer.data_providers().get_data_provider(get).await.unwrap().into_inner();
        assert_eq!(found.capabilities, expected);
        drop(consumer);
        running.stop().await;
    }
}

#[tokio::test]
async fn what_no_protocol_computes_is_refused_with_every_reason() {
    let world = hmss();
    let running = world.start().await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    let mut spec = world.spec();
    if let Some(MeasurementType::ReachAndFrequency(asked)) = &mut spec.measurement_type {
        asked.maximum_frequency = 63;
    }
    spec.vid_sampling_interval = Some(api::measurement_spec::VidSamplingInterval { start: 0.7, width: 0.5 });
    let outcome = consumer.measurements().create_measurement(world.request(&spec)).await;
    let status = assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    for said in [
        "not direct: people who were reached by several of the 2 publishers",
        "not trustee: the Kingdom's configuration has no section [trustee]",
        "not hmss: with maximum frequency 63 and 2 publishers a cell adds up to 126",
        "not rollv2: ",
        "not llv2: measurement_spec.vid_sampling_interval",
    ] {
        assert!(status.message().contains(said), "{said}: {}", status.message());
    }
    drop(consumer);
    running.stop().await;
}

#[tokio::test]
async fn unusable_settings_are_named_at_start() {
    for (sections, named) in [
        (format!("[hmss]\n{}{POPULATION}", WORKERS.replace("worker2", "worker1")), "hmss.second_worker"),
        (format!("[hmss]\n{}{POPULATION}", WORKERS.replace("worker2", "nobody")), "hmss.second_worker"),
        (format!("[hmss]\nring_modulus = 300\n{WORKERS}{POPULATION}"), "hmss.ring_modulus"),
        (format!("[trustee]\nduchy = \"nobody\"\n{POPULATION}"), "trustee.duchy"),
        ("[direct]\nnoise_mechanisms = []\n".to_owned(), "direct.noise_mechanisms"),
    ] {
        let refused = world(&sections).start().await.end().await.unwrap_err().to_string();
        assert!(refused.contains(named), "{named}: {refused}");
    }
}
