//! Every rule of the planner, and the order in which the protocols come.

use halo_core::{
    measurement::{HmssNoise, HmssVariant, LiquidLegionsNoise, Population, TrusteeThresholds},
    privacy::{MaximumFrequency, VidSamplingInterval},
    resource::ExternalId,
};

use super::*;

fn id(text: &str) -> DuchyId {
    DuchyId::new(text).unwrap()
}

fn params(epsilon: f64, delta: f64) -> PrivacyParams {
    PrivacyParams::new(epsilon, delta).unwrap()
}

fn noise() -> LiquidLegionsNoise {
    LiquidLegionsNoise {
        mechanism: NoiseMechanism::DiscreteGaussian,
        calibration: NoiseCalibration::Exact,
        honest_contributors: 1,
        data_provider: params(1.0, 1e-9),
        blinded_histogram: params(1.0, 1e-9),
        for_publisher_noise: params(1.0, 1e-9),
    }
}

fn llv2() -> Llv2Settings {
    let protocol = Llv2Config {
        aggregator: id("aggregator"),
        decay_rate: 12.0,
        max_size: 100_000,
        sampling_indicator_size: 10_000_000,
        noise: Some(noise()),
    };
    Llv2Settings { protocol, minimum_duchies: 3 }
}

fn rollv2() -> Rollv2Settings {
    let protocol =
        Rollv2Config { aggregator: id("aggregator"), decay_rate: 12.0, max_size: 100_000, noise: Some(noise()) };
    Rollv2Settings { protocol, minimum_duchies: 3 }
}

fn hmss(variant: HmssVariant) -> HmssConfig {
    HmssConfig {
        variant,
        noise: Some(HmssNoise {
            mechanism: NoiseMechanism::DiscreteGaussian,
            calibration: NoiseCalibration::Exact,
            honest_contributors: 1,
        }),
        first_worker: id("worker1"),
        second_worker: id("worker2"),
        aggregator: id("aggregator"),
        population: Population::new(1, 1_000_000).unwrap(),
    }
}

const COMPATIBLE: HmssVariant = HmssVariant::Compatible { ring_modulus: 127 };

fn trustee() -> TrusteeConfig {
    TrusteeConfig {
        duchy: id("worker2"),
        noise: TrusteeNoise::DiscreteGaussian,
        thresholds: Some(TrusteeThresholds { min_users: 10, min_impressions: 100 }),
        population: Population::new(1, 1_000_000).unwrap(),
    }
}

/// Settings of these protocols.
fn settings(kinds: &[ProtocolKind]) -> Settings {
    let has = |kind| kinds.contains(&kind);
    Settings {
        llv2: has(ProtocolKind::Llv2).then(llv2),
        rollv2: has(ProtocolKind::Rollv2).then(rollv2),
        hmss: has(ProtocolKind::Hmss).then(|| hmss(COMPATIBLE)),
        hmss_native: has(ProtocolKind::HmssNative).then(|| hmss(HmssVariant::Native)),
        trustee: has(ProtocolKind::Trustee).then(trustee),
        direct: DirectConfig { noise: vec![Some(NoiseMechanism::DiscreteGaussian), Some(NoiseMechanism::Geometric)] },
    }
}

fn four() -> [DuchyId; 4] {
    [id("worker3"), id("worker2"), id("worker1"), id("aggregator")]
}

fn planner(kinds: &[ProtocolKind]) -> Planner {
    Planner::new(settings(kinds), four()).unwrap()
}

fn changed(kinds: &[ProtocolKind], change: impl FnOnce(&mut Settings)) -> Result<Planner, Error> {
    let mut settings = settings(kinds);
    change(&mut settings);
    Planner::new(settings, four())
}

fn asked(kind: MeasurementType) -> MeasurementSpec {
    MeasurementSpec {
        kind,
        vid_sampling_interval: VidSamplingInterval::FULL,
        nonce_hashes: Vec::new(),
        measurement_public_key: Vec::new(),
    }
}

fn reach(epsilon: f64, delta: f64) -> MeasurementSpec {
    asked(MeasurementType::Reach { reach: params(epsilon, delta) })
}

fn frequency(maximum: u32) -> MeasurementSpec {
    with_frequency(maximum, params(1.0, 1e-9))
}

fn with_frequency(maximum: u32, frequency: PrivacyParams) -> MeasurementSpec {
    let maximum_frequency = MaximumFrequency::new(maximum).unwrap();
    asked(MeasurementType::ReachAndFrequency { reach: params(1.0, 1e-9), frequency, maximum_frequency })
}

fn impression(most: u32, delta: f64) -> MeasurementSpec {
    asked(MeasurementType::Impression { impression: params(1.0, delta), maximum_frequency_per_user: most })
}

fn duration(seconds: u64) -> MeasurementSpec {
    asked(MeasurementType::Duration { duration: params(1.0, 1e-9), maximum_seconds_per_user: seconds })
}

fn sampled(spec: MeasurementSpec, start: f32, width: f32) -> MeasurementSpec {
    MeasurementSpec { vid_sampling_interval: VidSamplingInterval::new(start, width).unwrap(), ..spec }
}

const EVERYTHING: Capabilities =
    Capabilities { hmss: true, hmss_native: true, trustee: true, no_noise: true, deterministic_noise: true };

fn publishers(count: usize, capabilities: Capabilities) -> Vec<Publisher> {
    let name = |number: usize| DataProviderName::new(ExternalId::new(number as u64 + 1).unwrap());
    (0..count).map(|number| Publisher { name: name(number), capabilities }).collect()
}

/// The protocol that is taken for publishers that can do everything.
fn taken(planner: &Planner, spec: &MeasurementSpec, count: usize) -> Plan {
    planner.plan(spec, &publishers(count, EVERYTHING)).unwrap()
}

/// Why a protocol is not taken when nothing else could be.
#[track_caller]
fn refusal(planner: &Planner, kind: ProtocolKind, spec: &MeasurementSpec, count: usize) -> String {
    match planner.plan(spec, &publishers(count, EVERYTHING)) {
        Err(Error::NoProtocol { reasons }) => {
            assert_eq!(reasons.len(), ProtocolKind::ALL.len(), "each protocol has its reason: {reasons:?}");
            reasons.into_iter().find(|reason| reason.protocol == kind).unwrap().why
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn assert_refused(planner: &Planner, kind: ProtocolKind, spec: &MeasurementSpec, count: usize, named: &str) {
    let why = refusal(planner, kind, spec, count);
    assert!(why.contains(named), "{named}: {why}");
}

#[test]
fn protocols_come_in_their_order() {
    use ProtocolKind::{Direct, Hmss, HmssNative, Llv2, Rollv2, Trustee};
    let all = ProtocolKind::ALL;
    let none = Capabilities::default();
    let rf = frequency(10);
    let table: &[(&[ProtocolKind], &MeasurementSpec, usize, Capabilities, ProtocolKind)] = &[
        // What is asked decides first, then the number of publishers.
        (&all, &impression(60, 1e-9), 3, EVERYTHING, Direct),
        (&all, &duration(3600), 3, EVERYTHING, Direct),
        (&all, &asked(MeasurementType::Population), 3, EVERYTHING, Direct),
        (&all, &reach(1.0, 1e-9), 1, EVERYTHING, Direct),
        (&all, &rf, 1, EVERYTHING, Direct),
        // Then the order.
        (&all, &rf, 2, EVERYTHING, Trustee),
        (&[HmssNative, Hmss, Rollv2, Llv2], &rf, 2, EVERYTHING, HmssNative),
        (&[Hmss, Rollv2, Llv2], &rf, 2, EVERYTHING, Hmss),
        (&[Rollv2, Llv2], &rf, 2, EVERYTHING, Llv2),
        (&[Rollv2, Llv2], &reach(1.0, 1e-9), 2, EVERYTHING, Rollv2),
        (&[Llv2], &reach(1.0, 1e-9), 2, EVERYTHING, Llv2),
        // What publishers can do.
        (&all, &rf, 2, none, Llv2),
        (&all, &reach(1.0, 1e-9), 2, none, Rollv2),
        (&all, &rf, 2, Capabilities { hmss: true, ..none }, Hmss),
        (&all, &rf, 2, Capabilities { hmss: true, hmss_native: true, ..none }, HmssNative),
        (&all, &rf, 2, Capabilities { trustee: true, ..none }, Trustee),
        // What is feasible.
        (&all, &frequency(200), 2, EVERYTHING, Llv2),
        (&all, &frequency(127), 2, EVERYTHING, Trustee),
        (&[HmssNative, Hmss, Llv2], &frequency(127), 2, EVERYTHING, HmssNative),
        (&[HmssNative, Hmss, Llv2], &frequency(128), 2, EVERYTHING, Llv2),
        (&[Hmss, Llv2], &frequency(62), 2, EVERYTHING, Hmss),
        (&[Hmss, Llv2], &frequency(63), 2, EVERYTHING, Llv2),
        (&[Hmss, Llv2], &sampled(frequency(10), 0.7, 0.5), 2, EVERYTHING, Hmss),
        (&[Rollv2, Llv2], &reach(1e-4, 1e-9), 2, EVERYTHING, Rollv2),
    ];
    for (row, (configured, spec, count, capabilities, expected)) in table.iter().enumerate() {
        let plan = planner(configured).plan(spec, &publishers(*count, *capabilities)).unwrap();
        let reasons = plan.explanation();
        assert_eq!(plan.config.protocol.kind(), *expected, "row {row}: {reasons}");
        assert_eq!(plan.config.kind, spec.kind.kind());
        plan.config.check_fits(spec).unwrap();
        assert_eq!(plan.reasons.iter().map(|reason| reason.protocol).collect::<Vec<_>>(), PRECEDENCE);
        let chosen: Vec<_> = plan.reasons.iter().filter(|one| one.taken).map(|one| one.protocol).collect();
        assert_eq!(chosen, [*expected]);
        assert!(plan.reasons.iter().all(|reason| !reason.why.is_empty()));
        assert!(reasons.starts_with(&format!("{expected}: ")), "{reasons}");
    }
}

#[test]
fn one_publisher_that_cannot_is_named() {
    let mut two = publishers(5, EVERYTHING);
    two[1].capabilities.hmss = false;
    let plan = planner(&[ProtocolKind::Hmss, ProtocolKind::Llv2]).plan(&frequency(10), &two).unwrap();
    assert_eq!(plan.config.protocol.kind(), ProtocolKind::Llv2);
    let reasons = plan.explanation();
    assert!(reasons.contains(&format!("not hmss: {} does not say", two[1].name)), "{reasons}");
    assert!(reasons.contains("not trustee: the Kingdom's configuration has no section [trustee]"), "{reasons}");
    two.iter_mut().for_each(|publisher| publisher.capabilities.hmss = false);
    let plan = planner(&[ProtocolKind::Hmss, ProtocolKind::Llv2]).plan(&frequency(10), &two).unwrap();
    assert!(plan.explanation().contains("and 2 more do not say"), "{}", plan.explanation());
}

#[test]
fn each_protocol_has_its_duchies() {
    for (kind, expected) in [
        (ProtocolKind::Llv2, &["aggregator", "worker1", "worker2", "worker3"][..]),
        (ProtocolKind::Rollv2, &["aggregator", "worker1", "worker2", "worker3"]),
        (ProtocolKind::Hmss, &["aggregator", "worker1", "worker2"]),
        (ProtocolKind::HmssNative, &["aggregator", "worker1", "worker2"]),
        (ProtocolKind::Trustee, &["worker2"]),
        (ProtocolKind::Direct, &[]),
    ] {
        let count = if kind == ProtocolKind::Direct { 1 } else { 2 };
        let plan = taken(&planner(&[kind]), &reach(1.0, 1e-9), count);
        assert_eq!(plan.config.protocol.kind(), kind);
        assert_eq!(plan.participants.iter().map(DuchyId::as_str).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn nothing_left_lists_every_protocol() {
    let error = planner(&[ProtocolKind::Rollv2]).plan(&frequency(10), &publishers(2, EVERYTHING)).unwrap_err();
    let text = error.to_string();
    for kind in ProtocolKind::ALL {
        assert!(text.contains(&format!("not {kind}: ")), "{kind}: {text}");
    }
    assert!(text.contains("it computes reach alone, and REACH_AND_FREQUENCY is asked for"), "{text}");
}

#[test]
fn no_number_of_publishers_and_no_frequency_that_nothing_computes() {
    let planner = planner(&ProtocolKind::ALL);
    for count in [0, MAX_PUBLISHERS + 1] {
        let refused = planner.plan(&reach(1.0, 1e-9), &publishers(count, EVERYTHING));
        assert!(matches!(refused, Err(Error::Infeasible { field: "data_providers", .. })), "{refused:?}");
    }
    let refused = planner.plan(&frequency(1), &publishers(2, EVERYTHING)).unwrap_err().to_string();
    assert!(refused.contains("ask for reach instead"), "{refused}");
}

#[test]
fn liquid_legions_has_its_bounds() {
    for kind in [ProtocolKind::Llv2, ProtocolKind::Rollv2] {
        let one = planner(&[kind]);
        for (spec, count, named) in [
            (reach(1.0, 0.0), 2, "measurement_spec.reach.privacy_params"),
            (reach(0.9e-5, 1e-9), 2, "at least 0.00001 is possible"),
            (sampled(reach(1.0, 1e-9), 0.7, 0.5), 2, "measurement_spec.vid_sampling_interval"),
        ] {
            assert_refused(&one, kind, &spec, count, named);
        }
        // S·(S + 1) registers of blinded histogram noise for each of its shift.
        let strong = LiquidLegionsNoise { blinded_histogram: params(0.1, 1e-9), ..noise() };
        let strong = changed(&[kind], |settings| {
            settings.llv2.iter_mut().for_each(|llv2| llv2.protocol.noise = Some(strong));
            settings.rollv2.iter_mut().for_each(|rollv2| rollv2.protocol.noise = Some(strong));
        });
        assert_refused(&strong.unwrap(), kind, &reach(1.0, 1e-9), 1000, "noise registers");
        assert_eq!(taken(&one, &reach(1.1e-5, 0.5), 2).config.protocol.kind(), kind);
    }
    let one = planner(&[ProtocolKind::Llv2]);
    let field = "measurement_spec.reach_and_frequency.frequency_privacy_params";
    assert_refused(&one, ProtocolKind::Llv2, &with_frequency(10, params(1.0, 0.0)), 2, field);
    // A thousandth of an epsilon at 256 classes is more tuples than a Duchy makes.
    let heavy = with_frequency(255, params(1e-4, 1e-9));
    assert_refused(&one, ProtocolKind::Llv2, &heavy, 2, "noise tuples");
}

#[test]
fn the_noise_of_so_many_publishers_must_be_possible() {
    // Geometric noise has a least rate: what hides one publisher's noise does not hide that of a thousand.
    let weak =
        LiquidLegionsNoise { mechanism: NoiseMechanism::Geometric, for_publisher_noise: params(5e-6, 1e-9), ..noise() };
    let planner =
        changed(&[ProtocolKind::Llv2], |settings| settings.llv2.as_mut().unwrap().protocol.noise = Some(weak)).unwrap();
    let named = "llv2.noise_for_publisher_noise is not possible for 900 publishers";
    assert_refused(&planner, ProtocolKind::Llv2, &reach(1.0, 1e-9), 900, named);
}

#[test]
fn share_shuffles_have_their_bounds() {
    let compatible = planner(&[ProtocolKind::Hmss]);
    let native = planner(&[ProtocolKind::HmssNative]);
    // The largest that fits, and one more: q > F·S + 1.
    for (planner, spec, fits) in [
        (&compatible, frequency(5), 25),
        (&compatible, reach(1.0, 1e-9), 125),
        (&native, frequency(2), 127),
        (&native, reach(1.0, 1e-9), 249),
    ] {
        let kind = taken(planner, &spec, fits).config.protocol.kind();
        let why = refusal(planner, kind, &spec, fits + 1);
        assert!(why.contains("lower the maximum frequency, or ask fewer publishers"), "{why}");
    }
    for (planner, kind) in [(&compatible, ProtocolKind::Hmss), (&native, ProtocolKind::HmssNative)] {
        assert_refused(planner, kind, &reach(1.0, 0.0), 2, "measurement_spec.reach.privacy_params");
        assert_refused(planner, kind, &reach(0.9e-6, 1e-9), 2, "at least 0.000001 is possible");
        assert_refused(planner, kind, &sampled(reach(1.0, 1e-9), 0.5, 1e-7), 2, "ask for a wider interval");
        assert_eq!(taken(planner, &sampled(reach(1.0, 1e-9), 0.9, 0.5), 2).config.protocol.kind(), kind);
    }
    let heavy = with_frequency(120, params(5e-6, 1e-9));
    assert_refused(&native, ProtocolKind::HmssNative, &heavy, 2, "noise cells");
    // 128 is no prime: frequencies can be computed, reach alone cannot.
    let even = changed(&[ProtocolKind::Hmss], |settings| {
        settings.hmss.as_mut().unwrap().variant = HmssVariant::Compatible { ring_modulus: 128 };
    })
    .unwrap();
    assert_eq!(taken(&even, &frequency(10), 2).config.protocol.kind(), ProtocolKind::Hmss);
    assert_refused(&even, ProtocolKind::Hmss, &reach(1.0, 1e-9), 2, "must be a prime, and 128 is none");
}

#[test]
fn a_trustee_has_its_bounds() {
    let one = planner(&[ProtocolKind::Trustee]);
    assert_refused(&one, ProtocolKind::Trustee, &frequency(128), 2, "128 is more than 127");
    assert_refused(&one, ProtocolKind::Trustee, &reach(1.0, 0.0), 2, "measurement_spec.reach.privacy_params");
    assert_refused(&one, ProtocolKind::Trustee, &sampled(reach(1.0, 1e-9), 0.5, 1e-7), 2, "0 people are sampled");
    assert_refused(&one, ProtocolKind::Trustee, &sampled(reach(1.0, 1e-9), 0.5, 1.5e-6), 2, "1 people are sampled");
    let with = |noise| {
        let planner =
            changed(&[ProtocolKind::Trustee], |settings| settings.trustee.as_mut().unwrap().noise = noise).unwrap();
        move |spec: &MeasurementSpec, capabilities| planner.plan(spec, &publishers(2, capabilities))
    };
    let trustee = Capabilities { trustee: true, ..Capabilities::default() };
    let quiet = Capabilities { no_noise: true, ..trustee };
    assert!(with(TrusteeNoise::None)(&reach(1e-9, 0.0), quiet).is_ok(), "without noise nothing is calibrated");
    let deterministic = with(TrusteeNoise::Deterministic);
    let refused = deterministic(&reach(1.0, 1e-9), trustee).unwrap_err().to_string();
    assert!(refused.contains("accepts deterministic noise"), "{refused}");
    let both = Capabilities { deterministic_noise: true, ..trustee };
    assert!(deterministic(&reach(1.0, 1e-9), both).is_ok());
    let refused = deterministic(&reach(1.0, 0.0), both).unwrap_err().to_string();
    assert!(refused.contains("not trustee: measurement_spec.reach.privacy_params"), "{refused}");
    // One person has up to 126 impressions, so that the noise which hides them is that much larger.
    let little = reach(1e-5, 1e-9);
    assert_refused(&one, ProtocolKind::Trustee, &little, 2, "measurement_spec.reach.privacy_params");
    let open = changed(&[ProtocolKind::Trustee], |settings| settings.trustee.as_mut().unwrap().thresholds = None);
    assert_eq!(taken(&open.unwrap(), &little, 2).config.protocol.kind(), ProtocolKind::Trustee);
}

#[test]
fn direct_measurements_have_their_bounds() {
    let one = planner(&[]);
    for (spec, named) in [
        (impression(100_000, 1e-9), "measurement_spec.impression.privacy_params"),
        (impression(2, 0.0), "measurement_spec.impression.privacy_params"),
        (duration(1 << 33), "seconds are more than"),
        (duration(100_000), "measurement_spec.duration.privacy_params"),
    ] {
        assert_refused(&one, ProtocolKind::Direct, &spec, 2, named);
    }
    assert_refused(&one, ProtocolKind::Direct, &reach(1.0, 0.0), 1, "measurement_spec.reach.privacy_params");
    // Noises that are not possible are not offered; without noise everything is.
    let choice = |noise: &[Option<NoiseMechanism>], spec: &MeasurementSpec| {
        let planner = changed(&[], |settings| settings.direct.noise = noise.to_vec()).unwrap();
        match taken(&planner, spec, 1).config.protocol {
            Protocol::Direct(direct) => direct.noise,
            other => panic!("{other:?}"),
        }
    };
    let all = [Some(NoiseMechanism::Geometric), Some(NoiseMechanism::DiscreteGaussian), None];
    assert_eq!(choice(&all, &reach(1.0, 1e-9)), all);
    assert_eq!(choice(&all, &reach(1.0, 0.0)), [None]);
    assert_eq!(choice(&all, &asked(MeasurementType::Population)), all);
}

#[test]
fn people_of_several_publishers_are_not_counted_one_by_one() {
    assert_refused(&planner(&[]), ProtocolKind::Direct, &reach(1.0, 1e-9), 2, "must be counted once");
}

#[test]
fn without_noise_nothing_is_calibrated() {
    let all = ProtocolKind::ALL;
    let planner = |kind: ProtocolKind| {
        changed(&[kind], |settings| {
            settings.llv2.iter_mut().for_each(|llv2| llv2.protocol.noise = None);
            settings.rollv2.iter_mut().for_each(|rollv2| rollv2.protocol.noise = None);
            settings.hmss.iter_mut().for_each(|hmss| hmss.noise = None);
            settings.hmss_native.iter_mut().for_each(|hmss| hmss.noise = None);
            settings.trustee.iter_mut().for_each(|trustee| trustee.noise = TrusteeNoise::None);
            settings.direct.noise = vec![None];
            assert!(settings.without_noise().any(|without| without == kind));
        })
        .unwrap()
    };
    for kind in all {
        let count = if kind == ProtocolKind::Direct { 1 } else { 2 };
        assert_eq!(taken(&planner(kind), &reach(1e-12, 0.0), count).config.protocol.kind(), kind);
        // Every publisher must accept that.
        let mut asked = publishers(count, EVERYTHING);
        asked[count - 1].capabilities.no_noise = false;
        let refused = planner(kind).plan(&reach(1.0, 1e-9), &asked).unwrap_err().to_string();
        let name = &asked[count - 1].name;
        let words =
            format!("not {kind}: {name} does not say to the Kingdom that it accepts measurements without noise");
        assert!(refused.contains(&words), "{refused}");
    }
    assert_eq!(settings(&all).without_noise().count(), 0);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    type Change = fn(&mut Settings);
    let llv2: &[(&str, Change)] = &[
        ("aggregator", |all| all.llv2.as_mut().unwrap().protocol.aggregator = id("nobody")),
        ("minimum_duchies", |all| all.llv2.as_mut().unwrap().minimum_duchies = 1),
        ("minimum_duchies", |all| all.llv2.as_mut().unwrap().minimum_duchies = 5),
        ("", |all| all.llv2.as_mut().unwrap().protocol.decay_rate = 0.5),
        ("", |all| all.llv2.as_mut().unwrap().protocol.max_size = 0),
        ("", |all| all.llv2.as_mut().unwrap().protocol.max_size = 1 << 63),
        ("sampling_indicator_size", |all| all.llv2.as_mut().unwrap().protocol.sampling_indicator_size = 1 << 63),
        ("honest_contributors", |all| {
            all.llv2.as_mut().unwrap().protocol.noise.as_mut().unwrap().honest_contributors = 0
        }),
        ("honest_contributors", |all| {
            all.llv2.as_mut().unwrap().protocol.noise.as_mut().unwrap().honest_contributors = 5
        }),
        ("data_provider_noise", |all| {
            all.llv2.as_mut().unwrap().protocol.noise.as_mut().unwrap().data_provider = params(1e-9, 1e-9);
        }),
        ("blinded_histogram_noise", |all| {
            all.llv2.as_mut().unwrap().protocol.noise.as_mut().unwrap().blinded_histogram = params(1e-9, 1e-9);
        }),
        ("noise_for_publisher_noise", |all| {
            all.llv2.as_mut().unwrap().protocol.noise.as_mut().unwrap().for_publisher_noise = params(1e-9, 1e-9);
        }),
    ];
    let rollv2: &[(&str, Change)] = &[
        ("aggregator", |all| all.rollv2.as_mut().unwrap().protocol.aggregator = id("nobody")),
        ("minimum_duchies", |all| all.rollv2.as_mut().unwrap().minimum_duchies = 1),
        ("", |all| all.rollv2.as_mut().unwrap().protocol.decay_rate = 37.0),
    ];
    let hmss: &[(&str, Change)] = &[
        ("first_worker", |all| all.hmss.as_mut().unwrap().first_worker = id("nobody")),
        ("second_worker", |all| all.hmss.as_mut().unwrap().second_worker = id("worker1")),
        ("aggregator", |all| all.hmss.as_mut().unwrap().aggregator = id("worker2")),
        ("ring_modulus", |all| all.hmss.as_mut().unwrap().variant = HmssVariant::Compatible { ring_modulus: 3 }),
        ("ring_modulus", |all| all.hmss.as_mut().unwrap().variant = HmssVariant::Compatible { ring_modulus: 257 }),
        ("honest_contributors", |all| all.hmss.as_mut().unwrap().noise.as_mut().unwrap().honest_contributors = 0),
        ("honest_contributors", |all| all.hmss.as_mut().unwrap().noise.as_mut().unwrap().honest_contributors = 3),
    ];
    let native: &[(&str, Change)] =
        &[("aggregator", |all| all.hmss_native.as_mut().unwrap().aggregator = id("worker2"))];
    let trustee: &[(&str, Change)] = &[("duchy", |all| all.trustee.as_mut().unwrap().duchy = id("nobody"))];
    let direct: &[(&str, Change)] = &[("noise_mechanisms", |all| all.direct.noise.clear())];
    for (section, changes) in [
        ("llv2", llv2),
        ("rollv2", rollv2),
        ("hmss", hmss),
        ("hmss_native", native),
        ("trustee", trustee),
        ("direct", direct),
    ] {
        for (key, change) in changes {
            let expected = if key.is_empty() { section.to_owned() } else { format!("{section}.{key}") };
            match changed(&ProtocolKind::ALL, change) {
                Err(Error::Settings { field, detail }) => assert_eq!(field, expected, "{detail}"),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
    let lonely = Planner::new(settings(&[ProtocolKind::Llv2]), [id("aggregator")]);
    assert!(matches!(lonely, Err(Error::Settings { .. })), "{lonely:?}");
}
