//! What a publisher checks before it answers: one honest requisition, and one test for each thing that can be wrong.

use std::{collections::BTreeMap, sync::Arc};

use crate::parties::{
    self, Authority, CONSUMER, DUCHIES, NONCE, PUBLISHER, REQUISITION, World, duchies, duchy_certificate, event_group,
};
use halo_core::{
    clock::{Clock, SystemClock},
    measurement::ProtocolKind,
    pb::api,
    privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval},
    session,
    wire::{self, type_name},
};
use halo_crypto::{
    attestation::SimulatedVerifier,
    consent::{tink::PrivateKeyset, x509::TrustRoots},
};
use halo_edp_sdk::{
    encrypt::{self, Layout, REGISTER_BYTES},
    progress::Unobserved,
    requisition::{self, Asked, Certificates, Justification, OpenedRequisition, Recipient, Refusal, SketchTask, Trust},
    sign::Signer,
    sketch,
};
use prost::Message;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

fn roots(authority: &Authority) -> TrustRoots {
    TrustRoots::from_der(vec![authority.der().to_vec()]).unwrap()
}

/// What a publisher knows: whom it trusts, and the certificates that it fetched.
pub(crate) struct Known {
    pub(crate) trust: Trust,
    pub(crate) certificates: Certificates,
    publisher: &'static str,
    pub(crate) signer: Option<Signer>,
    now_unix_s: i64,
}

impl Known {
    pub(crate) fn of(world: &World) -> Self {
        let duchies = world.duchies.iter();
        Self {
            trust: Trust {
                consumers: BTreeMap::from([(CONSUMER.parse().unwrap(), roots(&world.consumer.authority))]),
                duchies: duchies.clone().map(|(id, party)| (id.parse().unwrap(), roots(&party.authority))).collect(),
                protocols: ProtocolKind::ALL.into(),
                minimum_duchies: 3,
                allow_no_noise: false,
                allow_deterministic_noise: false,
                maximum_noise: Trust::default_maximum_noise(),
                attestation: Arc::new(SimulatedVerifier { allow_simulated: true }),
                maximum_result: None,
                population: None,
                maximum_population: Trust::DEFAULT_MAXIMUM_POPULATION,
            },
            certificates: Certificates {
                consumer: world.consumer.certificate.der().to_vec(),
                publisher: world.publisher.certificate.der().to_vec(),
                duchies: duchies
                    .map(|(id, party)| (duchy_certificate(id).parse().unwrap(), party.certificate.der().to_vec()))
                    .collect(),
            },
            publisher: PUBLISHER,
            signer: Some(world.publisher.signer()),
            now_unix_s: SystemClock.now().unix_seconds(),
        }
    }

    pub(crate) fn open(&self, world: &World, requisition: &api::Requisition) -> Result<OpenedRequisition, Refusal> {
        let name = self.publisher.parse().unwrap();
        let recipient = Recipient { name: &name, keyset: &world.keyset, signer: self.signer.as_ref() };
        requisition::open(requisition, &self.trust, &self.certificates, recipient, self.now_unix_s)
    }
}

/// The sketch that is asked for.
#[track_caller]
fn sketch_task(opened: &OpenedRequisition) -> &SketchTask {
    match &opened.asked {
        Asked::Sketch(task) => task,
        other => panic!("{other:?}"),
    }
}

/// Refused for this kind of reason, with these words in the message.
#[track_caller]
pub(crate) fn refused(outcome: Result<OpenedRequisition, Refusal>, justification: Justification, words: &str) {
    let refusal = outcome.unwrap_err();
    assert_eq!(refusal.justification(), justification, "{refusal}");
    assert!(refusal.message().contains(words), "{refusal}");
}

/// What becomes of the requisition when the parties sign something else.
fn signed_otherwise(alter: impl FnOnce(&mut World)) -> Result<OpenedRequisition, Refusal> {
    let mut world = World::new();
    alter(&mut world);
    Known::of(&world).open(&world, &world.requisition())
}

/// What becomes of the requisition when the Kingdom alters it.
fn handed_out_otherwise(alter: impl FnOnce(&mut api::Requisition)) -> Result<OpenedRequisition, Refusal> {
    let world = World::new();
    let mut requisition = world.requisition();
    alter(&mut requisition);
    Known::of(&world).open(&world, &requisition)
}

/// What becomes of the requisition when the publisher knows something else.
fn known_otherwise(alter: impl FnOnce(&mut Known)) -> Result<OpenedRequisition, Refusal> {
    let world = World::new();
    let mut known = Known::of(&world);
    alter(&mut known);
    known.open(&world, &world.requisition())
}

fn key_of(requisition: &mut api::Requisition, duchy: usize) -> &mut api::SignedMessage {
    use api::requisition::duchy_entry::value::Protocol;
    match requisition.duchies[duchy].value.as_mut().unwrap().protocol.as_mut().unwrap() {
        Protocol::LiquidLegionsV2(protocol) => protocol.el_gamal_public_key.as_mut().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_honest_requisition_is_opened_and_can_be_answered() {
    let world = World::new();
    let requisition = world.requisition();
    let opened = Known::of(&world).open(&world, &requisition).unwrap();
    assert_eq!(opened.name.to_string(), REQUISITION);
    assert_eq!(*opened.nonce.expose(), NONCE);
    assert!(!format!("{opened:?}").contains(&NONCE.to_string()));
    let task = sketch_task(&opened);
    assert_eq!(task.layout, Layout::Full { maximum_frequency: MaximumFrequency::new(5).unwrap() });
    assert_eq!(task.interval, VidSamplingInterval::FULL);
    assert_eq!((task.params.size(), task.params.sampling_indicator_size()), (100_000, 10_000_000));

    let ids = duchies();
    let spec = &requisition.measurement_spec.as_ref().unwrap().message.as_ref().unwrap().value;
    assert_eq!(opened.binding.session, session::session_id(spec, &requisition.serialized_protocol_config, &ids));
    let ciphertext = &requisition.encrypted_requisition_spec.as_ref().unwrap().ciphertext;
    assert_eq!(opened.binding.fingerprint, session::requisition_fingerprint(spec, ciphertext));
    assert_eq!(opened.duchy.as_ref(), session::fulfilling_duchy(&opened.name, &ids));
    let mut copy = requisition.clone();
    let keys: Vec<_> = (0..3).map(|i| (ids[i].clone(), key_of(&mut copy, i).message.clone().unwrap().value)).collect();
    let keys: Vec<_> = keys.iter().map(|(id, key)| (id.clone(), key.as_slice())).collect();
    assert_eq!(opened.binding.key_list_hash, session::key_list_hash(&keys));

    let sketched = sketch::sketch_vids(&[1, 2, 3], task.params, task.interval);
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let mut body = Vec::new();
    let records = encrypt::encrypt(&sketched.sketch, &task.encryption(), &mut body, &mut Unobserved, &mut rng).unwrap();
    assert!(records >= 3 && body.len() as u64 == records * REGISTER_BYTES as u64);
}

#[test]
fn the_order_and_form_of_the_duchies_do_not_matter() {
    let world = World::new();
    let known = Known::of(&world);
    let mut requisition = world.requisition();
    let first = known.open(&world, &requisition).unwrap();
    requisition.duchies.reverse();
    requisition.duchies[0].key = DUCHIES[2].to_owned();
    let second = known.open(&world, &requisition).unwrap();
    assert_eq!(sketch_task(&first).key, sketch_task(&second).key);
    assert_eq!((first.binding, first.duchy), (second.binding, second.duchy));
}

#[test]
fn reach_alone_has_a_maximum_frequency_of_1() {
    let opened = signed_otherwise(|world| {
        let reach = api::measurement_spec::Reach {
            privacy_params: Some(api::DifferentialPrivacyParams { epsilon: 1.0, delta: 1e-6 }),
        };
        world.spec.measurement_type = Some(api::measurement_spec::MeasurementType::Reach(reach));
        world.config.set_measurement_type(api::protocol_config::MeasurementType::Reach);
    });
    let layout = sketch_task(&opened.unwrap()).layout;
    assert_eq!(layout, Layout::Full { maximum_frequency: MaximumFrequency::REACH_ONLY });
}

#[test]
fn another_publishers_requisition_is_refused() {
    let outcome = known_otherwise(|known| known.publisher = "dataProviders/AAAAAAAAAAk");
    refused(outcome, Justification::SpecInvalid, "for another publisher");
}

#[test]
fn the_consumer_must_be_trusted() {
    let invalid = Justification::ConsentSignalInvalid;
    refused(known_otherwise(|known| known.trust.consumers.clear()), invalid, "does not trust measurementConsumers/");
    let stranger = parties::authority("stranger");
    let outcome = known_otherwise(|known| {
        known.trust.consumers.values_mut().for_each(|trusted| *trusted = roots(&stranger));
    });
    refused(outcome, invalid, "none of the trusted roots");
    let outcome = handed_out_otherwise(|requisition| {
        requisition.measurement_consumer_certificate =
            "measurementConsumers/AAAAAAAAAAk/certificates/AAAAAAAAAAU".into();
    });
    refused(outcome, invalid, "is no certificate of measurementConsumers/AAAAAAAAAAI");
    let outcome = handed_out_otherwise(|requisition| {
        requisition.measurement = "measurementConsumers/AAAAAAAAAAk/measurements/AAAAAAAAAAQ".into();
    });
    refused(outcome, invalid, "is no certificate of measurementConsumers/AAAAAAAAAAk");
    refused(known_otherwise(|known| known.now_unix_s = 1 << 40), invalid, "expired");
}

#[test]
fn an_altered_measurement_spec_is_refused() {
    let outcome = handed_out_otherwise(|requisition| {
        let message = requisition.measurement_spec.as_mut().unwrap().message.as_mut().unwrap();
        let mut spec = api::MeasurementSpec::decode(message.value.as_slice()).unwrap();
        spec.vid_sampling_interval.as_mut().unwrap().width = 0.5;
        message.value = spec.encode_to_vec();
    });
    refused(outcome, Justification::ConsentSignalInvalid, "measurement_spec: signature does not verify");
    let outcome = handed_out_otherwise(|requisition| requisition.measurement_spec = None);
    refused(outcome, Justification::ConsentSignalInvalid, "measurement_spec: is missing");
}

#[test]
fn a_requisition_spec_must_decrypt_and_be_signed_by_the_consumer() {
    let invalid = Justification::ConsentSignalInvalid;
    let outcome = handed_out_otherwise(|requisition| {
        *requisition.encrypted_requisition_spec.as_mut().unwrap().ciphertext.last_mut().unwrap() ^= 1;
    });
    refused(outcome, invalid, "does not decrypt");

    let mut world = World::new();
    let known = Known::of(&world);
    let requisition = world.requisition();
    world.keyset = PrivateKeyset::generate_hpke(&mut ChaCha20Rng::seed_from_u64(9));
    refused(known.open(&world, &requisition), invalid, "encrypted_requisition_spec");

    // The Kingdom knows the publisher's public key too; what it lacks is the consumer's signature.
    let world = World::new();
    let mut requisition = world.requisition();
    let mut forged = requisition.measurement_spec.clone().unwrap();
    forged.message = Some(wire::pack(type_name::REQUISITION_SPEC, world.own_spec.encode_to_vec()));
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    requisition.encrypted_requisition_spec.as_mut().unwrap().ciphertext =
        world.keyset.public().encrypt(&forged.encode_to_vec(), b"", &mut rng).unwrap();
    refused(Known::of(&world).open(&world, &requisition), invalid, "that the consumer's signature verifies");
}

#[test]
fn both_specs_must_name_the_same_key_and_the_nonce() {
    let outcome = signed_otherwise(|world| {
        world.own_spec.measurement_public_key.as_mut().unwrap().value.push(0);
    });
    assert!(outcome.is_err());
    let outcome = signed_otherwise(|world| {
        let mut key = api::EncryptionPublicKey {
            data: PrivateKeyset::generate_hpke(&mut ChaCha20Rng::seed_from_u64(9)).public().to_bytes(),
            ..Default::default()
        };
        key.set_format(api::encryption_public_key::Format::TinkKeyset);
        world.own_spec.measurement_public_key.as_mut().unwrap().value = key.encode_to_vec();
    });
    refused(outcome, Justification::ConsentSignalInvalid, "different measurement public keys");
    let outcome = signed_otherwise(|world| world.own_spec.nonce += 1);
    refused(outcome, Justification::ConsentSignalInvalid, "nonce");
}

#[test]
fn events_that_cannot_be_selected_are_refused() {
    let outcome = asked_for(vec![event_group(""), event_group("person.age > 17")]);
    refused(outcome, Justification::Unfulfillable, "event_groups: entry 2 has a filter");
    let mut entry = event_group("");
    entry.key = "dataProviders/AAAAAAAAAAk/eventGroups/AAAAAAAAAAc".to_owned();
    refused(asked_for(vec![entry]), Justification::SpecInvalid, "event_groups: entry 1 is not of this publisher");
}

/// What becomes of the requisition when the consumer asks for these events.
fn asked_for(event_groups: Vec<api::requisition_spec::EventGroupEntry>) -> Result<OpenedRequisition, Refusal> {
    use api::requisition_spec::{Events, RequisitionType};
    signed_otherwise(|world| world.own_spec.requisition_type = Some(RequisitionType::Events(Events { event_groups })))
}

#[test]
fn a_refusal_quotes_nothing_that_was_encrypted() {
    let secret = "SECRET";
    let mut entries = vec![event_group("")];
    entries[0].key = format!("dataProviders/{secret}/eventGroups/{secret}");
    let outcomes = [
        asked_for(vec![event_group(secret)]),
        asked_for(entries),
        signed_otherwise(|world| world.own_spec.measurement_public_key.as_mut().unwrap().type_url = secret.to_owned()),
        encrypted_otherwise(|signed| signed.signature_algorithm_oid = secret.to_owned()),
        encrypted_otherwise(|signed| {
            signed.message.as_mut().unwrap().type_url = format!("type.googleapis.com/{secret}")
        }),
    ];
    for outcome in outcomes {
        let refusal = outcome.unwrap_err();
        assert!(refusal.message().contains("requisition_spec"), "{refusal}");
        assert!(!format!("{refusal:?}").contains(secret), "{refusal:?}");
    }
}

/// What becomes of the requisition when the publisher decrypts something else.
fn encrypted_otherwise(alter: impl FnOnce(&mut api::SignedMessage)) -> Result<OpenedRequisition, Refusal> {
    let world = World::new();
    let mut requisition = world.requisition();
    let ciphertext = &mut requisition.encrypted_requisition_spec.as_mut().unwrap().ciphertext;
    let plaintext = world.keyset.decrypt(ciphertext, b"").unwrap();
    let mut signed = api::SignedMessage::decode(plaintext.expose().as_slice()).unwrap();
    alter(&mut signed);
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    *ciphertext = world.keyset.public().encrypt(&signed.encode_to_vec(), b"", &mut rng).unwrap();
    Known::of(&world).open(&world, &requisition)
}

#[test]
fn what_a_sketch_cannot_count_is_refused() {
    let outcome = signed_otherwise(|world| {
        let impression = api::measurement_spec::Impression {
            privacy_params: Some(api::DifferentialPrivacyParams { epsilon: 1.0, delta: 1e-6 }),
            maximum_frequency_per_user: 3,
        };
        world.spec.measurement_type = Some(api::measurement_spec::MeasurementType::Impression(impression));
    });
    assert!(outcome.is_err());
    let outcome = signed_otherwise(|world| {
        *world.spec.vid_sampling_interval.as_mut().unwrap() =
            api::measurement_spec::VidSamplingInterval { start: 0.75, width: 0.5 };
    });
    refused(outcome, Justification::SpecInvalid, "at most 1");
}

#[test]
fn the_protocol_configuration_is_the_frozen_one() {
    let outcome = handed_out_otherwise(|requisition| {
        requisition.protocol_config.as_mut().unwrap().protocols.clear();
    });
    refused(outcome, Justification::SpecInvalid, "serialized_protocol_config");
    // A configuration that the Duchies did not bind their proofs to is another session.
    let world = World::new();
    let mut requisition = world.requisition();
    let mut other = World::new();
    other.llv2().data_provider_noise.as_mut().unwrap().epsilon = 0.5;
    requisition.serialized_protocol_config = other.config.encode_to_vec();
    requisition.protocol_config = Some(other.config);
    refused(
        Known::of(&world).open(&world, &requisition),
        Justification::ConsentSignalInvalid,
        "duchy aggregator: the proof of possession does not hold",
    );
}

#[test]
fn noise_is_left_out_only_where_the_publisher_allows_it() {
    let mut world = World::new();
    world.llv2().set_noise_mechanism(api::protocol_config::NoiseMechanism::None);
    let mut known = Known::of(&world);
    let requisition = world.requisition();
    refused(known.open(&world, &requisition), Justification::Declined, "allow_no_noise");
    known.trust.allow_no_noise = true;
    assert!(sketch_task(&known.open(&world, &requisition).unwrap()).noise.is_none());

    let world = World::new();
    let opened = Known::of(&world).open(&world, &world.requisition());
    assert!(sketch_task(&opened.unwrap()).noise.is_some());
}

#[test]
fn too_little_noise_is_declined() {
    let asked = |epsilon, delta| {
        signed_otherwise(|world| {
            let noise = api::DifferentialPrivacyParams { epsilon, delta };
            *world.llv2().data_provider_noise.as_mut().unwrap() = noise;
        })
    };
    assert!(asked(1.0, 1e-5).is_ok());
    refused(asked(1.1, 1e-5), Justification::Declined, "epsilon 1.1; this publisher allows 1 (maximum_epsilon)");
    refused(asked(1.0, 1.0), Justification::Declined, "delta 1; this publisher allows 0.00001 (maximum_delta)");
    let world = World::new();
    let mut known = Known::of(&world);
    known.trust.maximum_noise = PrivacyParams::new(0.5, 1e-6).unwrap();
    refused(known.open(&world, &world.requisition()), Justification::Declined, "maximum_epsilon");
}

#[test]
fn noise_that_needs_too_many_registers_cannot_be_fulfilled() {
    let outcome = signed_otherwise(|world| {
        *world.llv2().data_provider_noise.as_mut().unwrap() =
            api::DifferentialPrivacyParams { epsilon: 1e-9, delta: 1e-12 };
    });
    refused(outcome, Justification::Unfulfillable, "noise registers");
}

#[test]
fn every_duchy_must_be_trusted_and_listed_once() {
    let invalid = Justification::ConsentSignalInvalid;
    let outcome = known_otherwise(|known| drop(known.trust.duchies.remove(&"worker2".parse().unwrap())));
    refused(outcome, invalid, "the Kingdom lists duchy worker2, which this publisher does not trust");
    let outcome = handed_out_otherwise(|requisition| requisition.duchies[2] = requisition.duchies[1].clone());
    refused(outcome, Justification::SpecInvalid, "worker1 is listed twice");
}

#[test]
fn too_few_duchies_are_declined() {
    let mut world = World::new();
    let known = Known::of(&world);
    world.duchies.remove("worker2");
    refused(known.open(&world, &world.requisition()), Justification::Declined, "2 Duchies");
}

#[test]
fn the_aggregator_must_take_part() {
    let outcome = signed_otherwise(|world| world.llv2().aggregator = "worker3".to_owned());
    refused(outcome, Justification::SpecInvalid, "aggregator worker3");
}

#[test]
fn a_duchys_certificate_must_be_its_own() {
    let invalid = Justification::ConsentSignalInvalid;
    let outcome = known_otherwise(|known| known.certificates.duchies.clear());
    refused(outcome, invalid, "not at hand");
    let outcome = handed_out_otherwise(|requisition| {
        requisition.duchies[1].value.as_mut().unwrap().duchy_certificate = duchy_certificate("worker2");
    });
    refused(
        outcome,
        invalid,
        "duchy worker1: duchies/worker2/certificates/AAAAAAAAAAY is no certificate of this Duchy",
    );
    // The certificate of another Duchy, under the name of this one.
    let outcome = known_otherwise(|known| {
        let other = known.certificates.duchies[&duchy_certificate("worker2").parse().unwrap()].clone();
        known.certificates.duchies.insert(duchy_certificate("worker1").parse().unwrap(), other);
    });
    refused(outcome, invalid, "none of the trusted roots");
}

#[test]
fn a_duchys_key_must_be_signed_and_proven() {
    let invalid = Justification::ConsentSignalInvalid;
    let outcome = handed_out_otherwise(|requisition| {
        let other = key_of(requisition, 2).message.clone();
        key_of(requisition, 1).message = other;
    });
    refused(outcome, invalid, "duchy worker1: key: signature does not verify");
    let outcome = signed_otherwise(|world| world.other_session = Some([7; 32]));
    refused(outcome, invalid, "proof of possession");
    refused(signed_otherwise(|world| world.curve = 415), invalid, "elliptic_curve_id: 415");
}

#[test]
fn both_messages_must_speak_of_the_same_kind_of_measurement() {
    let outcome = signed_otherwise(|world| {
        world.config.set_measurement_type(api::protocol_config::MeasurementType::Reach);
    });
    refused(outcome, Justification::SpecInvalid, "the kind that was asked for in the measurement spec, but is REACH");
}

#[test]
fn a_protocol_that_is_not_spoken_is_refused() {
    let outcome = signed_otherwise(|world| world.llv2().elliptic_curve_id = 415);
    refused(outcome, Justification::Unfulfillable, "elliptic_curve_id: 415");
    let outcome = signed_otherwise(|world| world.config.protocols.clear());
    refused(outcome, Justification::SpecInvalid, "there are 0 instead of one");
    let outcome = signed_otherwise(|world| world.llv2().data_provider_noise = None);
    refused(outcome, Justification::SpecInvalid, "data_provider_noise: is missing");
    let outcome = signed_otherwise(|world| world.llv2().sketch_params.as_mut().unwrap().max_size = -1);
    refused(outcome, Justification::SpecInvalid, "-1 is negative");
}
