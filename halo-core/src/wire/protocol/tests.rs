//! What is written is read back, and every rule is named.

use super::*;
use crate::wire::WireErrorKind;

fn noise() -> LiquidLegionsNoise {
    let params = |epsilon| PrivacyParams::new(epsilon, 1e-9).unwrap();
    LiquidLegionsNoise {
        mechanism: NoiseMechanism::Geometric,
        calibration: NoiseCalibration::Reference,
        honest_contributors: 2,
        data_provider: params(1.0),
        blinded_histogram: params(2.0),
        for_publisher_noise: params(3.0),
    }
}

fn config() -> ProtocolConfig {
    ProtocolConfig {
        kind: MeasurementKind::ReachAndFrequency,
        protocol: Protocol::Llv2(Llv2Config {
            decay_rate: 12.0,
            max_size: 100_000,
            sampling_indicator_size: 10_000_000,
            noise: Some(noise()),
            aggregator: "aggregator".parse().unwrap(),
        }),
    }
}

/// Different configurations of every protocol.
fn all() -> Vec<ProtocolConfig> {
    let id = |id: &str| -> DuchyId { id.parse().unwrap() };
    let population = Population::new(1, 989_818).unwrap();
    let gaussian = LiquidLegionsNoise {
        mechanism: NoiseMechanism::DiscreteGaussian,
        calibration: NoiseCalibration::Exact,
        ..noise()
    };
    let llv2 = |noise| {
        let Protocol::Llv2(llv2) = config().protocol else { panic!("it is Liquid Legions v2") };
        Protocol::Llv2(Llv2Config { noise, ..llv2 })
    };
    let rollv2 = |noise| {
        Protocol::Rollv2(Rollv2Config { decay_rate: 5.6, max_size: 1_000_000, noise, aggregator: id("aggregator") })
    };
    let hmss = |variant, noise| {
        Protocol::Hmss(HmssConfig {
            variant,
            noise,
            first_worker: id("worker1"),
            second_worker: id("worker2"),
            aggregator: id("aggregator"),
            population,
        })
    };
    let shares = HmssNoise {
        mechanism: NoiseMechanism::DiscreteGaussian,
        calibration: NoiseCalibration::Exact,
        honest_contributors: 1,
    };
    let trustee =
        |noise, thresholds| Protocol::Trustee(TrusteeConfig { duchy: id("aggregator"), noise, thresholds, population });
    let thresholds = TrusteeThresholds { min_impressions: 10, min_users: 500 };
    let compatible = HmssVariant::Compatible { ring_modulus: 127 };
    let mut all = vec![config()];
    let mut add = |kind, protocol| all.push(ProtocolConfig { kind, protocol });
    use MeasurementKind::{Duration, Impression, Population as People, Reach, ReachAndFrequency};
    add(ReachAndFrequency, llv2(Some(gaussian)));
    add(Reach, llv2(None));
    add(Reach, rollv2(Some(noise())));
    add(Reach, rollv2(None));
    add(Reach, hmss(compatible, Some(shares)));
    add(ReachAndFrequency, hmss(compatible, None));
    add(Reach, hmss(HmssVariant::Native, None));
    add(ReachAndFrequency, hmss(HmssVariant::Native, Some(shares)));
    add(Reach, trustee(TrusteeNoise::None, Some(thresholds)));
    add(ReachAndFrequency, trustee(TrusteeNoise::DiscreteGaussian, None));
    add(ReachAndFrequency, trustee(TrusteeNoise::Deterministic, Some(thresholds)));
    let direct = DirectConfig { noise: vec![Some(NoiseMechanism::DiscreteGaussian), None] };
    for kind in [Reach, ReachAndFrequency, Impression, Duration, People] {
        add(kind, Protocol::Direct(direct.clone()));
    }
    all
}

#[test]
fn what_is_written_is_read_back() {
    for config in all() {
        assert_eq!(parse_protocol_config(&protocol_config(&config).encode_to_vec()).unwrap(), config);
        match mpc_protocol_config(&config) {
            Some(mpc) => check_mpc_protocol_config(&config, Some(&mpc)).unwrap(),
            None => assert!(matches!(config.protocol, Protocol::Direct(_))),
        }
        assert!(check_mpc_protocol_config(&config, None).unwrap_err().to_string().contains("is missing"));
    }
}

#[test]
fn another_configuration_is_told_apart() {
    let all = all();
    for (i, config) in all.iter().enumerate() {
        for (j, other) in all.iter().enumerate() {
            let same = protocol_config(config).encode_to_vec() == protocol_config(other).encode_to_vec();
            assert_eq!(same, i == j, "{config:?} {other:?}");
        }
    }
    let mpc = mpc_protocol_config(&all[0]);
    for other in &all[1..] {
        let error = check_mpc_protocol_config(other, mpc.as_ref()).unwrap_err();
        assert!(error.to_string().contains("differs from serialized_protocol_config"), "{other:?}");
    }
}

fn changed(change: impl FnOnce(&mut LiquidLegionsV2)) -> Result<ProtocolConfig, WireError> {
    let mut config = protocol_config(&config());
    if let Some(WireProtocol::LiquidLegionsV2(llv2)) = &mut config.protocols[0].protocol {
        change(llv2);
    }
    parse_protocol_config(&config.encode_to_vec())
}

fn changed_hmss(change: impl FnOnce(&mut HonestMajorityShareShuffle)) -> Result<ProtocolConfig, WireError> {
    let config = all().into_iter().find(|config| matches!(config.protocol, Protocol::Hmss(_))).unwrap();
    let mut config = protocol_config(&config);
    if let Some(WireProtocol::HonestMajorityShareShuffle(hmss)) = &mut config.protocols[0].protocol {
        change(hmss);
    }
    parse_protocol_config(&config.encode_to_vec())
}

#[test]
fn what_an_older_sender_leaves_out_has_a_meaning() {
    let parsed = changed(|llv2| {
        llv2.honest_contributors = 0;
        llv2.set_noise_calibration(WireCalibration::Unspecified);
        llv2.set_noise_mechanism(WireMechanism::Unspecified);
    });
    let Protocol::Llv2(llv2) = parsed.unwrap().protocol else { panic!("it is Liquid Legions v2") };
    let noise = llv2.noise.unwrap();
    assert_eq!((noise.honest_contributors, noise.calibration), (1, NoiseCalibration::Exact));
    assert_eq!(noise.mechanism, NoiseMechanism::DiscreteGaussian);
    let parsed = changed_hmss(|hmss| hmss.set_variant(ShareShuffleVariant::Unspecified)).unwrap();
    assert_eq!(parsed.protocol.kind(), crate::measurement::ProtocolKind::Hmss);
}

#[test]
fn every_rule_of_a_protocol_configuration_is_named() {
    use WireErrorKind::{Malformed, Unsupported};
    for (outcome, kind, expected) in [
        (changed(|llv2| llv2.elliptic_curve_id = 415), Unsupported, "elliptic_curve_id: 415"),
        (changed(|llv2| llv2.sketch_params = None), Malformed, "sketch_params: is missing"),
        (changed(|llv2| llv2.sketch_params.as_mut().unwrap().max_size = -1), Malformed, "max_size: -1 is negative"),
        (changed(|llv2| llv2.data_provider_noise = None), Malformed, "data_provider_noise: is missing"),
        (changed(|llv2| llv2.data_provider_noise.as_mut().unwrap().delta = 0.0), Malformed, "delta must be greater"),
        (changed(|llv2| llv2.honest_contributors = -1), Malformed, "honest_contributors"),
        (changed(|llv2| llv2.aggregator.clear()), Malformed, "aggregator"),
        (
            changed(|llv2| llv2.set_noise_mechanism(WireMechanism::ContinuousGaussian)),
            Unsupported,
            "no noise of this protocol",
        ),
        (changed_hmss(|hmss| hmss.ring_modulus = -127), Malformed, "ring_modulus: -127 is negative"),
        (changed_hmss(|hmss| hmss.population_last_vid = 0), Malformed, "population_last_vid"),
        (changed_hmss(|hmss| hmss.first_worker.clear()), Malformed, "first_worker"),
        (parse_protocol_config(&[]), Malformed, "0 instead of one"),
    ] {
        let error = outcome.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind, kind, "{error}");
    }
}
