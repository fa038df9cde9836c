//! Results that a publisher computes alone, as the consumer reads them.

use halo_core::{
    pb::api::{
        self, DifferentialPrivacyParams, EncryptedMessage,
        measurement::Result as MeasurementResult,
        measurement_spec::{Duration, Impression, MeasurementType},
        protocol_config::NoiseMechanism as WireMechanism,
    },
    privacy::NoiseMechanism,
    wire::type_name,
};
use halo_edp_sdk::{
    Error,
    answer::{self, Source},
    direct::Ask,
    progress::Unobserved,
    requisition::{Asked, Justification, OpenedRequisition, Question},
};
use prost::Message;

use crate::{
    parties::{self, World, reach, reach_and_frequency},
    protocols::{Desk, handed_out_otherwise, opened, opened_by, opened_message},
    requisition::{Known, refused},
};

fn params(epsilon: f64, delta: f64) -> Option<DifferentialPrivacyParams> {
    Some(DifferentialPrivacyParams { epsilon, delta })
}

fn impressions(most: i32) -> MeasurementType {
    MeasurementType::Impression(Impression { privacy_params: params(1.0, 1e-6), maximum_frequency_per_user: most })
}

fn durations(seconds: i64) -> MeasurementType {
    MeasurementType::Duration(Duration {
        privacy_params: params(1.0, 1e-6),
        maximum_watch_duration_per_user: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..Default::default()
    })
}

/// The result that the consumer reads.
fn result(world: &World, desk: &Desk, opened: &OpenedRequisition) -> MeasurementResult {
    let (spooled, body) = desk.answer(world, opened).unwrap();
    assert_eq!(spooled.manifest.record_count, 1);
    let encrypted = EncryptedMessage::decode(body.as_slice()).unwrap();
    let bytes = opened_message(world, &encrypted, &world.result_keyset, type_name::MEASUREMENT_RESULT);
    MeasurementResult::decode(bytes.as_slice()).unwrap()
}

fn without_noise(known: &mut Known) {
    known.trust.allow_no_noise = true;
}

#[test]
fn direct_results_are_what_the_consumer_asked_for() {
    let desk = || Desk::new(&[("vid", &[1, 1, 1, 2, 3, 3]), ("seconds", &[10, 20, 30, 5, 0, 7])]);
    let found = |question| {
        let world = World::of(question, parties::direct(&[None]));
        let opened = opened_by(&world, without_noise).unwrap();
        assert_eq!(
            (opened.duchy.as_ref(), opened.binding.key_list_hash),
            (None, halo_core::session::key_list_hash(&[]))
        );
        result(&world, &desk(), &opened)
    };
    let found_reach = found(reach(1.0, 1e-6));
    let one = found_reach.reach.as_ref().unwrap();
    assert_eq!((one.value, one.noise_mechanism(), one.noise_standard_deviation), (3, WireMechanism::None, 0.0));
    assert!(found_reach.frequency.is_none());

    let both = found(reach_and_frequency(3));
    assert_eq!(both.reach.unwrap().value, 3);
    let third = 1.0 / 3.0;
    let shares = both.frequency.unwrap().relative_frequency_distribution;
    assert!(shares.iter().all(|(_, share)| (share - third).abs() < 1e-12) && shares.len() == 3, "{shares:?}");

    assert_eq!(found(impressions(2)).impression.unwrap().value, 5);
    let watched = found(durations(50)).watch_duration.unwrap();
    assert_eq!(watched.value, Some(prost_types::Duration { seconds: 62, nanos: 0 }));
}

#[test]
fn nobody_reached_has_no_frequencies() {
    let world = World::of(reach_and_frequency(3), parties::direct(&[None]));
    let opened = opened_by(&world, without_noise).unwrap();
    let nothing = result(&world, &Desk::new(&[("vid", &[])]), &opened);
    assert_eq!(nothing.reach.unwrap().value, 0);
    assert!(nothing.frequency.unwrap().relative_frequency_distribution.is_empty());
}

#[test]
fn the_first_noise_that_is_allowed_is_drawn() {
    let gaussian = Some(NoiseMechanism::DiscreteGaussian);
    let world = World::of(reach(1.0, 1e-6), parties::direct(&[None, gaussian, Some(NoiseMechanism::Geometric)]));
    let opened = opened(&world);
    let Asked::Direct(task) = &opened.asked else { panic!("{opened:?}") };
    assert_eq!(task.mechanism, gaussian);
    let vids: Vec<i64> = (0..1_000).collect();
    let noisy = result(&world, &Desk::new(&[("vid", &vids)]), &opened).reach.unwrap();
    assert_eq!(noisy.noise_mechanism(), WireMechanism::DiscreteGaussian);
    assert!(noisy.noise_standard_deviation > 1.0 && noisy.standard_error >= noisy.noise_standard_deviation);
    assert!((noisy.value - 1_000).abs() as f64 <= 8.0 * noisy.noise_standard_deviation);
    let quiet = opened_by(&world, without_noise).unwrap();
    assert!(matches!(&quiet.asked, Asked::Direct(task) if task.mechanism.is_none()));
}

#[test]
fn a_result_is_drawn_once() {
    let world = World::of(reach(1.0, 1e-6), parties::direct(&[Some(NoiseMechanism::DiscreteGaussian)]));
    let (desk, opened) = (Desk::new(&[("vid", &[1, 2, 3])]), opened(&world));
    let (first, body) = desk.answer(&world, &opened).unwrap();
    let kept = desk.spool.find(&opened.spool_name(), &opened.binding).unwrap().unwrap();
    assert_eq!((std::fs::read(&kept.body).unwrap(), kept), (body, first));
    desk.spool.close(&opened.spool_name()).unwrap();
    assert!(matches!(desk.answer(&world, &opened), Err(Error::AlreadyAnswered { .. })));
}

#[test]
fn durations_need_seconds() {
    let world = World::of(durations(60), parties::direct(&[None]));
    let opened = opened_by(&world, without_noise).unwrap();
    let desk = Desk::new(&[("vid", &[1, 1, 2])]);
    let error = desk.answer(&world, &opened).unwrap_err();
    assert!(matches!(error, Error::NoSecondsColumn { .. }) && error.to_string().contains("seconds_per_impression"));
    let events = desk.events();
    let work = answer::read(&opened, &Source { events: &events, seconds_per_impression: Some(40) }, &mut Unobserved);
    assert_eq!((work.as_ref().unwrap().impressions(), work.unwrap().counted()), (3, 2));
    let bad = Desk::new(&[("vid", &[1, 2]), ("seconds", &[1, -1])]);
    let error = bad.answer(&world, &opened).unwrap_err();
    assert!(
        matches!(error, Error::BadRow { row: 2, .. }) && error.to_string().contains("seconds is negative"),
        "{error}"
    );
}

#[test]
fn the_size_of_a_population_is_told_by_whom_it_is_known() {
    let world =
        World::of(MeasurementType::Population(Default::default()), parties::direct(&[Some(NoiseMechanism::Geometric)]));
    refused(opened_by(&world, |_| ()), Justification::Unfulfillable, "tells no size of a population");
    let known = |known: &mut Known| known.trust.population = Some("5..14".parse().unwrap());
    let opened = opened_by(&world, known).unwrap();
    assert!(matches!(&opened.asked, Asked::Direct(task) if matches!(task.question, Question::Population(_))));
    let told = result(&world, &Desk::new(&[("vid", &[])]), &opened).population.unwrap();
    assert_eq!((told.value, told.standard_error), (10, 0.0));

    let mut filtered = World::of(MeasurementType::Population(Default::default()), parties::direct(&[None]));
    let filter = Some(api::requisition_spec::EventFilter { expression: "SECRET".to_owned() });
    let population = api::requisition_spec::Population { filter, ..Default::default() };
    filtered.own_spec.requisition_type = Some(api::requisition_spec::RequisitionType::Population(population));
    let refusal = opened_by(&filtered, known).unwrap_err();
    assert!(refusal.message().contains("has a filter") && !refusal.message().contains("SECRET"), "{refusal}");
}

#[test]
fn people_of_several_publishers_are_not_counted_by_one() {
    let of_two = |question| {
        let mut world = World::of(question, parties::direct(&[Some(NoiseMechanism::DiscreteGaussian)]));
        assert!(opened_by(&world, |_| ()).is_ok());
        world.spec.nonce_hashes.push(halo_core::session::nonce_hash(7).to_vec());
        opened_by(&world, |_| ())
    };
    let invalid = Justification::SpecInvalid;
    refused(of_two(reach(1.0, 1e-6)), invalid, "REACH of 2 publishers (measurement_spec.nonce_hashes)");
    refused(of_two(reach_and_frequency(3)), invalid, "of 2 publishers (measurement_spec.nonce_hashes)");
    assert!(of_two(impressions(2)).is_ok(), "impressions of several publishers add up");
    assert!(of_two(durations(50)).is_ok());
}

#[test]
fn what_cannot_be_counted_alone_is_refused() {
    let unfulfillable = Justification::Unfulfillable;
    let gaussian = || parties::direct(&[Some(NoiseMechanism::DiscreteGaussian)]);
    assert!(opened_by(&World::of(impressions(256), gaussian()), |_| ()).is_ok());
    // One person could change the sum by so much that the noise would have no end.
    refused(opened_by(&World::of(impressions(i32::MAX), gaussian()), |_| ()), unfulfillable, "measurement_spec: ");
    refused(opened_by(&World::of(durations(1 << 32), gaussian()), |_| ()), unfulfillable, "4294967295 are counted");
    let world = World::of(reach(1.0, 0.0), gaussian());
    refused(opened_by(&world, |_| ()), unfulfillable, "measurement_spec: ");
    let world = World::of(reach(1.0, 1e-6), gaussian());
    let outcome = handed_out_otherwise(&world, |requisition| {
        requisition.duchies = World::new().requisition().duchies;
    });
    refused(outcome, Justification::SpecInvalid, "every publisher computes by itself");
    let mut world = World::of(reach(1.0, 1e-6), gaussian());
    world.own_spec.requisition_type = Some(api::requisition_spec::RequisitionType::Population(Default::default()));
    refused(opened_by(&world, |_| ()), Justification::SpecInvalid, "asks for something else than REACH");
    assert!(matches!(Ask::Reach { privacy: None }.check(), Ok(())));
}
