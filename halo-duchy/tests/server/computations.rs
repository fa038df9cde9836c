//! The Kingdom's door: what a Duchy does not take on the Kingdom's word. It gives such a measurement up and says why and
//! who is to blame; the next one is taken as if nothing had happened.

use halo_core::{
    measurement::LiquidLegionsNoise,
    pb::{
        api::DifferentialPrivacyParams,
        system::{Computation, requisition::State as RequisitionState},
    },
    privacy::{NoiseCalibration, PrivacyParams},
    session,
};
use tonic::Code;

use crate::{
    caller::assert_refused,
    kingdom::Call,
    measurement::{Measurement, Plan, registers},
    world::{CONSUMER, DUCHIES, ME, NONCES, PUBLISHERS, STRANGER, World, id},
};

/// A measurement is given up at once, before a key is drawn for it; a right one then goes its way.
async fn assert_not_begun(world: &World, computation: &Computation, words: &str, culprits: &[&str]) {
    world.kingdom.report(computation);
    world.assert_given_up(computation, words, culprits).await;
    let calls = world.kingdom.calls(computation);
    assert!(matches!(&calls[..], [Call::Failed(_)]), "no key is given: {calls:?}");
}

/// The world and what is wrong with each of the measurements in it: the change, the words, the culprits.
type Lie<'a> = (&'a dyn Fn(&World, &mut Computation), &'a str, &'a [&'a str]);

async fn assert_none_is_begun(lies: &[Lie<'_>]) {
    let world = World::start(false).await;
    for (number, (lie, words, culprits)) in (1..).zip(lies) {
        let mut computation = Plan::new(number).measurement(&world).computation;
        lie(&world, &mut computation);
        assert_not_begun(&world, &computation, words, culprits).await;
    }
    world.open(&Plan::new(1000)).await;
}

#[tokio::test]
async fn the_consumer_must_have_signed_and_be_trusted() {
    assert_none_is_begun(&[
        (
            &|_, c| c.measurement_spec_signature[20] ^= 1,
            "measurement_consumer: measurement_spec: signature does not verify",
            &[],
        ),
        (
            &|_, c| c.measurement_spec_signature.clear(),
            "measurement_consumer: measurement_spec: signature does not verify",
            &[],
        ),
        (
            &|world, c| c.measurement_spec_signature = world.party(STRANGER).key.sign(&c.measurement_spec),
            "measurement_consumer: measurement_spec: signature does not verify",
            &[],
        ),
        (
            // A frequency of 10 becomes one of 11 in what was signed.
            &|_, c| {
                let at = c.measurement_spec.windows(2).rposition(|pair| pair == [0x18, 10]).unwrap();
                c.measurement_spec[at + 1] = 11;
            },
            "measurement_consumer: measurement_spec: signature does not verify",
            &[],
        ),
        (
            &|_, c| c.measurement_spec_signature_algorithm_oid = "1.2.840.113549.1.1.11".to_owned(),
            "1.2.840.113549.1.1.11",
            &[],
        ),
        (
            &|_, c| c.measurement_consumer = STRANGER.to_owned(),
            "aggregator does not trust measurementConsumers/AAAAAAAAAAQ",
            &[],
        ),
        (
            &|_, c| c.measurement_consumer = "brand".to_owned(),
            "measurement_consumer: \"brand\" is not of the form",
            &["kingdom"],
        ),
        (
            // Signed by a stranger under the name of the consumer.
            &|world, c| {
                let stranger = world.party(STRANGER);
                c.measurement_consumer_certificate_der = stranger.certificate.der().to_vec();
                c.measurement_spec_signature = stranger.key.sign(&c.measurement_spec);
            },
            "which is none of the trusted roots",
            &[],
        ),
        (
            &|world, c| {
                let old = |params: &mut rcgen::CertificateParams| {
                    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
                    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
                };
                let (certificate, key) = world.party(CONSUMER).issue(old);
                let certificate = halo_crypto::consent::x509::Certificate::from_pem(certificate.as_bytes()).unwrap();
                let key = halo_crypto::consent::x509::SigningKey::from_pkcs8_pem(&key).unwrap();
                c.measurement_consumer_certificate_der = certificate.der().to_vec();
                c.measurement_spec_signature = key.sign(&c.measurement_spec);
            },
            "expired at 1609459200",
            &[],
        ),
        (&|_, c| c.measurement_consumer_certificate_der.clear(), "measurement_consumer: malformed certificate", &[]),
    ])
    .await;
}

#[tokio::test]
async fn the_kingdom_must_list_what_was_signed() {
    const NOT_SIGNED: &str = "requisitions: their nonce hashes are not those that the consumer signed";
    assert_none_is_begun(&[
        (&|_, c| c.requisitions[1].nonce_hash = session::nonce_hash(8).to_vec(), NOT_SIGNED, &["kingdom"]),
        (&|_, c| c.requisitions[1].nonce_hash = session::nonce_hash(NONCES[0]).to_vec(), NOT_SIGNED, &["kingdom"]),
        (&|_, c| drop(c.requisitions.pop()), NOT_SIGNED, &["kingdom"]),
        (&|_, c| c.requisitions[0].nonce_hash.truncate(31), "nonce_hash is no SHA-256", &["kingdom"]),
        (&|_, c| c.requisitions[0].requisition_spec_hash.clear(), "requisition_spec_hash is no SHA-256", &["kingdom"]),
        (
            &|_, c| c.requisitions[0].name = "computations/AAAAAAAAAAE/requisitions/AAAAAAAAAAE".to_owned(),
            "is none of computations/",
            &["kingdom"],
        ),
        (&|_, c| c.aggregator = "worker1".to_owned(), "aggregator: is another one in", &["kingdom"]),
        (&|_, c| c.mpc_protocol_config = None, "mpc_protocol_config: is missing", &["kingdom"]),
        (
            &|_, c| {
                let other = Plan::without_noise(1).config;
                c.mpc_protocol_config = halo_core::wire::mpc_protocol_config(&other);
            },
            "mpc_protocol_config: differs from serialized_protocol_config",
            &["kingdom"],
        ),
        (&|_, c| c.serialized_protocol_config.clear(), "protocol_config", &["kingdom"]),
        (&|_, c| c.measurement_spec.clear(), "measurement_spec", &["kingdom"]),
        (
            &|_, c| c.computation_participants.retain(|part| !part.name.ends_with("/aggregator")),
            "aggregator is none of the computation's Duchies",
            &["kingdom"],
        ),
        (
            &|_, c| c.computation_participants[2] = c.computation_participants[1].clone(),
            "participants/worker1 is listed twice",
            &["kingdom"],
        ),
        (
            &|world, c| {
                c.computation_participants[0].requisition_params = Some(world.key_share(ME, [0; 32]));
            },
            "has given a key whose secret is not in its state; was state_dir replaced?",
            &[],
        ),
    ])
    .await;
}

#[tokio::test]
async fn every_duchy_must_be_known() {
    let world = World::start(false).await;
    let mut plan = Plan::new(1);
    plan.duchies.push("duchies/worker4");
    let computation = plan.measurement(&world).computation;
    assert_not_begun(&world, &computation, "aggregator does not know duchy worker4; add it to peers", &[]).await;
    world.open(&Plan::new(2)).await;
}

#[tokio::test]
async fn the_aggregator_must_be_one_of_the_duchies_and_the_same_everywhere() {
    let world = World::start(false).await;
    let mut plan = Plan::new(1);
    plan.llv2().aggregator = "worker3".parse().unwrap();
    let computation = plan.measurement(&world).computation;
    let words = "aggregator worker3 is none of the computation's Duchies";
    assert_not_begun(&world, &computation, words, &["kingdom"]).await;
    let mut plan = Plan::new(2);
    plan.llv2().aggregator = "worker1".parse().unwrap();
    let mut computation = plan.measurement(&world).computation;
    computation.aggregator = "aggregator".to_owned();
    let words = "aggregator: is another one in serialized_protocol_config";
    assert_not_begun(&world, &computation, words, &["kingdom"]).await;
    world.open(&Plan::new(3)).await;
}

#[tokio::test]
async fn without_noise_only_where_that_is_allowed() {
    let plan = Plan::without_noise(1);
    let world = World::start(false).await;
    let computation = plan.measurement(&world).computation;
    let words = "the measurement goes without noise, which is not allowed here (allow_no_noise)";
    assert_not_begun(&world, &computation, words, &[]).await;
    world.open(&Plan::new(2)).await;
    let world = World::start(true).await;
    world.open(&plan).await;
}

#[tokio::test]
async fn no_less_noise_than_the_operator_asks_for() {
    let world = World::start(false).await;
    let params = |epsilon, delta| PrivacyParams::new(epsilon, delta).unwrap();
    let (little, careless) = (params(10.5, 1e-9), params(1.0, 0.002));
    type Change<'a> = (&'a dyn Fn(&mut LiquidLegionsNoise), &'a str);
    let changes: [Change<'_>; 5] = [
        (&|noise| noise.data_provider = little, "data_provider_noise: "),
        (&|noise| noise.blinded_histogram = careless, "blinded_histogram_noise: "),
        (&|noise| noise.for_publisher_noise = little, "noise_for_publisher_noise: "),
        (&|noise| noise.calibration = NoiseCalibration::Reference, "(allow_reference_calibration)"),
        (&|noise| noise.honest_contributors = 2, "the noise of 2 Duchies together is to suffice; here at most 1"),
    ];
    for (number, (change, words)) in (1..).zip(changes) {
        let mut plan = Plan::new(number);
        change(plan.llv2().noise.as_mut().unwrap());
        assert_not_begun(&world, &plan.measurement(&world).computation, words, &[]).await;
    }
    let mut plan = Plan::new(1000);
    let noise = plan.llv2().noise.as_mut().unwrap();
    noise.data_provider = params(10.0, 0.001);
    world.open(&plan).await;
}

#[tokio::test]
async fn no_less_noise_in_the_result_than_the_operator_asks_for() {
    use halo_core::pb::api::measurement_spec::{MeasurementType, ReachAndFrequency};
    fn asked(number: u64, change: impl Fn(&mut ReachAndFrequency)) -> Plan {
        let mut plan = Plan::new(number);
        let Some(MeasurementType::ReachAndFrequency(asked)) = &mut plan.spec.measurement_type else { panic!() };
        change(asked);
        plan
    }
    fn params(epsilon: f64, delta: f64) -> Option<DifferentialPrivacyParams> {
        Some(DifferentialPrivacyParams { epsilon, delta })
    }
    let world = World::start(false).await;
    for (plan, name) in [
        (asked(1, |asked| asked.reach_privacy_params = params(10.5, 1e-9)), "measurement_spec: reach: "),
        (asked(2, |asked| asked.frequency_privacy_params = params(10.5, 1e-9)), "measurement_spec: frequency: "),
        (asked(3, |asked| asked.frequency_privacy_params = params(1.0, 0.002)), "(maximum_result_epsilon, maximum_res"),
    ] {
        assert_not_begun(&world, &plan.measurement(&world).computation, name, &[]).await;
    }
    let most = asked(1000, |asked| {
        asked.reach_privacy_params = params(10.0, 0.001);
        asked.frequency_privacy_params = params(10.0, 0.001);
    });
    world.open(&most).await;
}

#[tokio::test]
async fn a_requisition_belongs_to_one_measurement() {
    let world = World::start(false).await;
    let mut first = world.open(&Plan::new(1)).await;
    let mut second = Plan::new(2).measurement(&world).computation;
    let taken = format!("{}/requisitions/{}", second.name, id(&first.requisitions[0]));
    second.requisitions[0].name = taken;
    let words = format!("requisitions: {} belongs to computation", first.requisitions[0]);
    assert_not_begun(&world, &second, &words, &["kingdom"]).await;
    world.fulfill(&mut first, |_| {}).await;
    world.assert_confirmed(&first).await;
}

/// What is wrong with a measurement when the Kingdom asks for its confirmation: the change, the words, the culprits.
type Trap<'a> = (&'a dyn Fn(&World, &mut Measurement), &'a str, &'a [&'a str]);

async fn assert_none_is_confirmed(traps: &[Trap<'_>]) {
    let world = World::start(false).await;
    for (number, (trap, words, culprits)) in (1..).zip(traps) {
        let mut measurement = world.open(&Plan::new(number)).await;
        world.fulfill(&mut measurement, |measurement| trap(&world, measurement)).await;
        world.assert_given_up(&measurement.computation, words, culprits).await;
    }
    let mut measurement = world.open(&Plan::new(1000)).await;
    world.fulfill(&mut measurement, |_| {}).await;
    world.assert_confirmed(&measurement).await;
}

#[tokio::test]
async fn a_duchy_whose_key_does_not_hold_is_named_and_the_kingdom_that_shows_it() {
    // The Kingdom may have put another key in the place of the one that it was given.
    let worker1: &[&str] = &[DUCHIES[1], "kingdom"];
    assert_none_is_confirmed(&[
        (
            // Proven for another session: signature and certificate are right.
            &|world, m| m.participant(DUCHIES[1]).requisition_params = Some(world.key_share(DUCHIES[1], [0; 32])),
            "duchy worker1: the proof of possession does not hold for this key, session, Duchy and certificate",
            worker1,
        ),
        (
            // Another Duchy's key and proof, signed by this one.
            &|world, m| {
                let stolen = m.key(DUCHIES[2]).el_gamal_public_key.clone();
                let key = m.key(DUCHIES[1]);
                key.el_gamal_public_key_signature = world.party(DUCHIES[1]).key.sign(&stolen);
                key.el_gamal_public_key = stolen;
            },
            "duchy worker1: the proof of possession does not hold for this key, session, Duchy and certificate",
            worker1,
        ),
        (
            &|_, m| m.key(DUCHIES[1]).el_gamal_public_key_signature[20] ^= 1,
            "duchy worker1: key: signature does not verify",
            worker1,
        ),
        (
            &|world, m| {
                let key = m.key(DUCHIES[1]);
                key.el_gamal_public_key_signature = world.party(DUCHIES[2]).key.sign(&key.el_gamal_public_key);
            },
            "duchy worker1: key: signature does not verify",
            worker1,
        ),
        (
            // Everything is worker2's, but for the name.
            &|_, m| {
                let other = m.participant(DUCHIES[2]).requisition_params.clone();
                m.participant(DUCHIES[1]).requisition_params = other;
            },
            "duchies/worker2/certificates/AAAAAAAAAAY is no certificate of it",
            worker1,
        ),
        (
            &|world, m| {
                let params = m.participant(DUCHIES[1]).requisition_params.as_mut().unwrap();
                params.duchy_certificate_der = world.party(DUCHIES[2]).certificate.der().to_vec();
            },
            "which is none of the trusted roots",
            worker1,
        ),
        (
            &|_, m| m.participant(DUCHIES[1]).requisition_params.as_mut().unwrap().duchy_certificate_der.clear(),
            "duchy worker1: malformed certificate",
            worker1,
        ),
        (
            &|_, m| m.participant(DUCHIES[1]).requisition_params.as_mut().unwrap().protocol = None,
            "duchy worker1: it gave no key for the protocol llv2",
            worker1,
        ),
        (
            &|_, m| m.participant(DUCHIES[1]).requisition_params = None,
            "duchy worker1: its key is missing",
            &["kingdom"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn the_kingdom_must_hand_out_this_duchys_own_key() {
    assert_none_is_confirmed(&[
        (
            &|world, m| {
                // Only who has this Duchy's signing key can make one: a copy of it, say, with another state.
                let session = m.session();
                m.participant(ME).requisition_params = Some(world.key_share(ME, session));
            },
            "duchy aggregator: the Kingdom lists another key than it gave",
            &["kingdom"],
        ),
        (
            &|world, m| {
                let params = m.participant(ME).requisition_params.as_mut().unwrap();
                params.duchy_certificate_der = world.party(DUCHIES[1]).certificate.der().to_vec();
            },
            "duchy aggregator: its certificate is not the one it uses",
            &["kingdom"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn every_publisher_must_have_taken_part_under_the_same_keys() {
    let both = |publisher: usize| [PUBLISHERS[publisher], "kingdom"];
    assert_none_is_confirmed(&[
        (
            &|_, m| m.computation.requisitions[1].key_list_hash[0] ^= 1,
            "was encrypted under other keys than those that this Duchy was shown",
            &both(1),
        ),
        (
            &|_, m| m.computation.requisitions[0].key_list_hash.clear(),
            "was encrypted under other keys than those that this Duchy was shown",
            &both(0),
        ),
        (
            // Keys that all hold, but that no publisher has seen.
            &|world, m| {
                let session = m.session();
                m.participant(DUCHIES[2]).requisition_params = Some(world.key_share(DUCHIES[2], session));
            },
            "was encrypted under other keys than those that this Duchy was shown",
            &both(0),
        ),
        (
            // The same, and the Kingdom says that the publishers saw them.
            &|world, m| {
                let session = m.session();
                m.participant(DUCHIES[2]).requisition_params = Some(world.key_share(DUCHIES[2], session));
                let hash = m.key_list_hash();
                m.computation.requisitions.iter_mut().for_each(|part| part.key_list_hash.clone_from(&hash));
            },
            "is not what was uploaded here",
            &["kingdom"],
        ),
        (&|_, m| m.computation.requisitions[1].nonce += 1, "its nonce is not the one that the consumer gave", &both(1)),
        (&|_, m| m.computation.requisitions[0].body_sha256[0] ^= 1, "is not what was uploaded here", &["kingdom"]),
        (
            &|_, m| m.computation.requisitions[1].set_state(RequisitionState::Unfulfilled),
            "is UNFULFILLED",
            &["kingdom"],
        ),
        (
            &|_, m| m.computation.requisitions[1].nonce_hash = session::nonce_hash(8).to_vec(),
            "requisitions: their nonce hashes are not those that the consumer signed",
            &["kingdom"],
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_publisher_that_encrypted_under_other_keys_is_found_out() {
    let world = World::start(false).await;
    let measurement = world.open(&Plan::new(1)).await;
    let mut upload = measurement.upload(registers(5, 1));
    upload.header.key_list_hash[0] ^= 1;
    let outcome = world.connect(PUBLISHERS[0]).await.upload(&upload).await;
    let words = "encrypted under other keys than those that this Duchy was shown";
    assert_refused(outcome, Code::FailedPrecondition, words);
    world.assert_given_up(&measurement.computation, words, &["kingdom", PUBLISHERS[0]]).await;
    assert_eq!(world.kept_bodies(), 0);
    let mut measurement = world.open(&Plan::new(2)).await;
    world.fulfill(&mut measurement, |_| {}).await;
    world.assert_confirmed(&measurement).await;
}
