//! Shares, envelopes and results handed in over mutual TLS, and what a publisher tells of itself.

use crate::client::{Scene, names};
use crate::parties::{self, PUBLISHER, REQUISITION, World};
use halo_core::{
    measurement::{HmssVariant, TrusteeNoise},
    pb::api::{fulfill_requisition_request::header::Protocol, requisition::State},
};
use halo_edp_sdk::client::{Event, Publisher};
use sha2::{Digest, Sha256};

/// Share shuffle over as many people as there are events of.
fn share_shuffle() -> World {
    let variant = HmssVariant::Compatible { ring_modulus: 127 };
    World::of(parties::reach_and_frequency(5), parties::share_shuffle(variant, "0..199999"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_that_breaks_goes_on_with_the_same_seed() {
    let scene = Scene::new(&share_shuffle()).await;
    scene.duchy.break_after(70_000);
    let events = scene.run_until(|event| matches!(event, Event::Fulfilled { .. })).await;
    let expected = ["opened", "counted", "encrypted", "failed", "opened", "uploaded", "fulfilled"];
    assert_eq!(names(&events), expected, "{events:?}");
    assert!(matches!(&events[1], Event::Counted { impressions: 3_000, people: 1_500, .. }), "{events:?}");
    assert!(matches!(&events[2], Event::Encrypted { records: 200_000, .. }), "{events:?}");
    let uploads = scene.duchy.uploads();
    let shares: Vec<_> = uploads
        .iter()
        .map(|upload| match &upload.header.protocol {
            Some(Protocol::HonestMajorityShareShuffle(shares)) => shares,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((shares.len(), shares[0]), (2, shares[1]), "a second share is never made");
    assert_eq!((shares[0].register_count, uploads[0].header.record_count), (200_000, 200_000));
    assert!(shares[0].data_provider_certificate.starts_with(&format!("{PUBLISHER}/certificates/")));
    assert!(shares[0].secret_seed.as_ref().unwrap().ciphertext.len() > 48);
    assert_eq!(Sha256::digest(scene.duchy.body()).as_slice(), uploads[1].header.body_sha256);
    assert_eq!(scene.spooled(), 0);

    // Should the Kingdom hand it out again, nothing is drawn again.
    scene.kingdom.close(State::Unfulfilled);
    let events = scene.run_until(|event| matches!(event, Event::Failed { .. })).await;
    assert!(
        matches!(&events[1], Event::Failed { retried: false, message, .. } if message.contains("answered before")),
        "{events:?}"
    );
    assert_eq!(scene.duchy.uploads().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_outside_of_the_population_leave_the_requisition_open() {
    let variant = HmssVariant::Native;
    let world = World::of(parties::reach_and_frequency(5), parties::share_shuffle(variant, "0..999"));
    let scene = Scene::new(&world).await;
    let events = scene.run_until(|event| matches!(event, Event::Failed { .. })).await;
    assert!(
        matches!(&events[1], Event::Failed { retried: false, message, .. } if message.contains("its VID is outside")),
        "{events:?}"
    );
    assert!(scene.kingdom.refusals().is_empty() && scene.duchy.uploads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_envelope_goes_to_the_trustee_where_that_is_allowed() {
    let trustee = parties::trustee(TrusteeNoise::DiscreteGaussian, None);
    let mut scene = Scene::new(&World::of(parties::reach_and_frequency(5), trustee)).await;
    // Its population is small: nobody is outside of it.
    scene.people = 20;
    scene.write_events("vid");
    scene.configure("protocols = [\"trustee\"]");
    let events = scene.run_until(|event| matches!(event, Event::Refused { .. })).await;
    assert!(matches!(&events[0], Event::Refused { message, .. } if message.contains("simulated")), "{events:?}");
    scene.configure("allow_simulated_attestation = true");
    let events = scene.run_until(|event| matches!(event, Event::Fulfilled { .. })).await;
    assert_eq!(names(&events), ["opened", "counted", "encrypted", "uploaded", "fulfilled"], "{events:?}");
    let uploads = scene.duchy.uploads();
    assert!(matches!(&uploads[0].header.protocol, Some(Protocol::TrusTee(_))), "{uploads:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_result_is_handed_in_once_and_unchanged() {
    let gaussian = Some(halo_core::privacy::NoiseMechanism::DiscreteGaussian);
    let scene = Scene::new(&World::of(parties::reach(1.0, 1e-6), parties::direct(&[gaussian]))).await;
    // The Kingdom takes the result, and its answer is lost.
    scene.kingdom.lose_results(1);
    let events = scene.run_until(|event| matches!(event, Event::Fulfilled { .. })).await;
    let expected = ["opened", "counted", "encrypted", "failed", "opened", "uploaded", "fulfilled"];
    assert_eq!(names(&events), expected, "{events:?}");
    let results = scene.kingdom.results();
    assert_eq!((results.len(), &results[0]), (2, &results[1]), "the noise is drawn once");
    assert_eq!((results[0].name.as_str(), results[0].nonce), (REQUISITION, parties::NONCE));
    assert!(results[0].certificate.starts_with(&format!("{PUBLISHER}/certificates/")));
    assert!(scene.duchy.uploads().is_empty() && scene.spooled() == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kingdom_is_told_what_this_publisher_can_do() {
    let scene = Scene::new(&World::new()).await;
    let told = async |scene: &Scene| {
        scene.run_while(|| scene.kingdom.capabilities().is_none()).await;
        let request = scene.kingdom.capabilities().unwrap();
        assert_eq!(request.name, PUBLISHER);
        scene.kingdom.forget_capabilities();
        request.capabilities.unwrap()
    };
    let all = told(&scene).await;
    assert!(all.honest_majority_share_shuffle_supported && all.honest_majority_share_shuffle_native_supported);
    assert!(!all.trus_tee_supported && !all.noise_mechanism_none_supported);
    scene.configure("protocols = [\"llv2\", \"hmss-native\"]\nallow_no_noise = true");
    let some = told(&scene).await;
    assert!(!some.honest_majority_share_shuffle_supported && some.honest_majority_share_shuffle_native_supported);
    assert!(some.noise_mechanism_none_supported && !some.noise_mechanism_deterministic_truncated_laplace_supported);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_key_belongs_to_its_certificate() {
    let world = World::new();
    let scene = Scene::new(&world).await;
    scene.write("consent.key", &world.consumer.pem.1);
    let error = Publisher::new(scene.config()).unwrap_err().to_string();
    assert!(error.contains("consent.pem") && error.contains("another certificate's"), "{error}");
}
