//! Envelopes for a trustee, opened again, and what a trustee has to show for them.

use std::sync::Arc;

use halo_core::{
    measurement::{TrusteeNoise, TrusteeThresholds},
    pb::api::{
        self,
        fulfill_requisition_request::header::{TrusTee, trus_tee},
        requisition::duchy_entry::value::Protocol as EntryProtocol,
    },
    privacy::PrivacyParams,
};
use halo_crypto::{
    attestation::SimulatedVerifier,
    consent::tink::PrivateKeyset,
    envelope::{self, DataKey, Decryptor, HybridKey},
};
use halo_edp_sdk::requisition::{Asked, Justification};
use prost::Message;

use crate::{
    parties::{TRUSTEE, World, reach, reach_and_frequency, trustee},
    protocols::{Desk, handed_out_otherwise, opened, opened_by, plain},
    requisition::refused,
};

#[test]
fn only_the_trustee_opens_the_vector() {
    let thresholds = Some(TrusteeThresholds { min_impressions: 10, min_users: 10 });
    let gaussian = TrusteeNoise::DiscreteGaussian;
    for (question, thresholds, cap) in [
        (reach_and_frequency(3), None, 3),
        (reach(1.0, 1e-6), None, 1),
        // Impressions count where results of few of them are not released.
        (reach(1.0, 1e-6), thresholds, 126),
    ] {
        let world = World::of(question, trustee(gaussian, thresholds));
        let opened = opened(&world);
        assert_eq!(opened.duchy.as_ref().map(|duchy| duchy.as_str()), Some(TRUSTEE));
        let Asked::Sealed(task) = &opened.asked else { panic!("{opened:?}") };
        assert_eq!(task.vector.maximum_frequency.get(), u32::from(cap));
        let vids = [3, 3, 3, 3, 8, 19, 19, 0];
        let (spooled, body) = Desk::new(&[("vid", &vids)]).answer(&world, &opened).unwrap();
        assert_eq!(spooled.manifest.record_count, body.len() as u64);
        assert_eq!(envelope::ciphertext_bytes(20), Some(body.len() as u64));

        let header = TrusTee::decode(spooled.manifest.attachment.as_slice()).unwrap();
        assert_eq!(header.data_format(), trus_tee::DataFormat::EncryptedFrequencyVector);
        let encryption = header.envelope_encryption.unwrap();
        assert_eq!(encryption.kms_kek_uri, format!("duchies/{TRUSTEE}"));
        let wrapped = encryption.encrypted_dek.unwrap();
        assert_eq!(wrapped.format(), api::encryption_key::Format::TinkEncryptedKeyset);
        let private = PrivateKeyset::from_bytes(world.trustee_keyset.to_bytes().expose()).unwrap();
        let kek = HybridKey::private(encryption.kms_kek_uri, private);
        let binding = envelope::requisition_binding(&opened.name.to_string());
        let key = DataKey::unwrap(&kek, &wrapped.data, &binding).unwrap();
        let mut cells = Vec::new();
        let mut decryptor = Decryptor::new(&key, &binding);
        decryptor.write(&body, &mut cells).unwrap();
        decryptor.finish(&mut cells).unwrap();
        assert_eq!(cells, plain(&vids, task.vector.population, cap));
        // For another requisition nothing opens.
        assert!(DataKey::unwrap(&kek, &wrapped.data, &envelope::requisition_binding("another")).is_err());
    }
}

#[test]
fn a_trustee_is_believed_as_far_as_its_attestation_goes() {
    let world = World::of(reach_and_frequency(3), trustee(TrusteeNoise::DiscreteGaussian, None));
    let outcome = opened_by(&world, |known| known.trust.attestation = Arc::new(SimulatedVerifier::default()));
    refused(outcome, Justification::Declined, "duchy aggregator: attestation: simulated attestation proves nothing");
    let entry = |requisition: &mut api::Requisition, alter: &dyn Fn(&mut api::requisition::duchy_entry::TrusTee)| {
        match requisition.duchies[0].value.as_mut().unwrap().protocol.as_mut().unwrap() {
            EntryProtocol::TrusTee(protocol) => alter(protocol),
            other => panic!("{other:?}"),
        }
    };
    let invalid = Justification::ConsentSignalInvalid;
    let outcome = handed_out_otherwise(&world, |requisition| entry(requisition, &|entry| entry.attestation.clear()));
    refused(outcome, invalid, "does not decode");
    let outcome = handed_out_otherwise(&world, |requisition| {
        entry(requisition, &|entry| *entry.attestation.last_mut().unwrap() ^= 1);
    });
    refused(outcome, invalid, "of another trustee, computation or key");
    let outcome = handed_out_otherwise(&world, |requisition| {
        entry(requisition, &|entry| entry.attestation = b"\x05quote and bytes".to_vec());
    });
    refused(outcome, Justification::Declined, "is not accepted here");
    let mut replayed = World::of(reach_and_frequency(3), trustee(TrusteeNoise::DiscreteGaussian, None));
    replayed.other_session = Some([7; 32]);
    refused(opened_by(&replayed, |_| ()), invalid, "of another trustee, computation or key");
    // The evidence is of the key that is signed.
    let outcome = handed_out_otherwise(&world, |requisition| {
        entry(requisition, &|entry| entry.public_key.as_mut().unwrap().signature.clear());
    });
    refused(outcome, invalid, "signature: is missing");
}

#[test]
fn a_trustee_is_one_duchy_with_limits() {
    let gaussian = || trustee(TrusteeNoise::DiscreteGaussian, None);
    let (world, invalid) = (World::of(reach_and_frequency(3), gaussian()), Justification::SpecInvalid);
    let outcome = handed_out_otherwise(&world, |requisition| requisition.duchies.clear());
    refused(outcome, invalid, "must be the trustee aggregator alone");
    let outcome = handed_out_otherwise(&world, |requisition| requisition.duchies[0].key = "duchies/worker1".to_owned());
    refused(outcome, invalid, "must be the trustee aggregator, but are worker1");
    let outcome = handed_out_otherwise(&world, |requisition| {
        requisition.duchies[0].value.as_mut().unwrap().protocol = None;
    });
    refused(outcome, invalid, "has no entry for a trustee");
    refused(opened_by(&World::of(reach_and_frequency(128), gaussian()), |_| ()), invalid, "128 is above 127");
    let declined = Justification::Declined;
    let outcome = opened_by(&world, |known| known.trust.population = Some("1..20".parse().unwrap()));
    refused(outcome, declined, "over the population 0..19; this publisher's is 1..20");
    let quiet = World::of(reach(1.0, 1e-6), trustee(TrusteeNoise::None, None));
    refused(opened_by(&quiet, |_| ()), declined, "allow_no_noise");
    let sticky = World::of(reach(1.0, 1e-6), trustee(TrusteeNoise::Deterministic, None));
    refused(opened_by(&sticky, |_| ()), declined, "allow_deterministic_noise");
    assert!(opened_by(&sticky, |known| known.trust.allow_deterministic_noise = true).is_ok());
    // Its ε is the consumer's too, and no less bounded.
    let outcome = opened_by(&sticky, |known| {
        known.trust.allow_deterministic_noise = true;
        known.trust.maximum_result = Some(PrivacyParams::new(0.5, 1.0).unwrap());
    });
    refused(outcome, declined, "maximum_result_epsilon");
}
