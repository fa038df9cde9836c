//! The protocol that the Kingdom chose: read, written, and as the Duchies' API has it.

use prost::Message;

use super::key::RISTRETTO255;
use super::{WireError, spec};
use crate::measurement::{Llv2Config, Llv2Noise, ProtocolConfig};
use crate::pb::api::protocol_config::protocol::Protocol;
use crate::pb::api::protocol_config::{
    LiquidLegionsV2, MeasurementType, NoiseCalibration as WireCalibration, NoiseMechanism as WireMechanism,
};
use crate::pb::system::computation::{MpcProtocolConfig, mpc_protocol_config as mpc};
use crate::pb::{api, system};
use crate::privacy::{NoiseCalibration, NoiseMechanism, PrivacyParams};

/// Reads a serialized `ProtocolConfig`, which must be for Liquid Legions v2 over Ristretto255.
///
/// # Errors
/// If it is for another protocol, or a field is missing or out of range; the error names it. A protocol, curve or noise
/// that is not spoken here is [`super::WireErrorKind::Unsupported`].
pub fn parse_protocol_config(bytes: &[u8]) -> Result<ProtocolConfig, WireError> {
    let config = api::ProtocolConfig::decode(bytes).map_err(|error| WireError::new("protocol_config", error))?;
    let [protocol] = config.protocols.as_slice() else {
        let reason = format!("there are {} instead of one", config.protocols.len());
        return Err(WireError::new("protocol_config.protocols", reason));
    };
    let Some(Protocol::LiquidLegionsV2(llv2)) = &protocol.protocol else {
        return Err(WireError::unsupported("protocol_config.protocols", "is not Liquid Legions v2"));
    };
    let counts_frequency = match config.measurement_type() {
        MeasurementType::Reach => false,
        MeasurementType::ReachAndFrequency => true,
        other => {
            let reason = format!("{} is not computed by this protocol", other.as_str_name());
            return Err(WireError::unsupported("protocol_config.measurement_type", reason));
        }
    };
    Ok(ProtocolConfig { counts_frequency, llv2: parse_llv2(llv2)? })
}

fn parse_llv2(llv2: &LiquidLegionsV2) -> Result<Llv2Config, WireError> {
    let path = |field: &str| format!("protocol_config.liquid_legions_v2.{field}");
    if llv2.elliptic_curve_id != RISTRETTO255 {
        let reason = format!("{} is not {RISTRETTO255} (Ristretto255)", llv2.elliptic_curve_id);
        return Err(WireError::unsupported(path("elliptic_curve_id"), reason));
    }
    let sketch = llv2.sketch_params.as_ref().ok_or_else(|| WireError::new(path("sketch_params"), "is missing"))?;
    let number = |field: &str, value: i64| {
        u64::try_from(value).map_err(|_| WireError::new(path(field), format!("{value} is negative")))
    };
    let mechanism = match llv2.noise_mechanism() {
        WireMechanism::DiscreteGaussian | WireMechanism::Unspecified => Some(NoiseMechanism::DiscreteGaussian),
        WireMechanism::Geometric => Some(NoiseMechanism::Geometric),
        WireMechanism::None => None,
        other => {
            let reason = format!("{} is no noise of this protocol", other.as_str_name());
            return Err(WireError::unsupported(path("noise_mechanism"), reason));
        }
    };
    let privacy = |field: &str, params: Option<&api::DifferentialPrivacyParams>| {
        let params = spec::privacy(&path(field), params)?;
        params.for_protocol_noise().map_err(|error| WireError::new(path(field), error))
    };
    let noise = mechanism.map(|mechanism| {
        // 0 is what a sender that does not know the field means by leaving it out.
        let honest = u32::try_from(llv2.honest_contributors);
        let honest = honest.map_err(|error| WireError::new(path("honest_contributors"), error))?;
        Ok(Llv2Noise {
            mechanism,
            calibration: match llv2.noise_calibration() {
                WireCalibration::Exact | WireCalibration::Unspecified => NoiseCalibration::Exact,
                WireCalibration::Reference => NoiseCalibration::Reference,
            },
            honest_contributors: honest.max(1),
            data_provider: privacy("data_provider_noise", llv2.data_provider_noise.as_ref())?,
            blinded_histogram: privacy("blinded_histogram_noise", llv2.blinded_histogram_noise.as_ref())?,
            for_publisher_noise: privacy("noise_for_publisher_noise", llv2.noise_for_publisher_noise.as_ref())?,
        })
    });
    Ok(Llv2Config {
        decay_rate: sketch.decay_rate,
        max_size: number("sketch_params.max_size", sketch.max_size)?,
        sampling_indicator_size: number("sketch_params.sampling_indicator_size", sketch.sampling_indicator_size)?,
        noise: noise.transpose()?,
        aggregator: llv2.aggregator.parse().map_err(|error: crate::Error| WireError::new(path("aggregator"), error))?,
    })
}

/// Writes a `ProtocolConfig`. Whoever plans a measurement serializes it once; the bytes are what counts from then on.
#[must_use]
pub fn protocol_config(config: &ProtocolConfig) -> api::ProtocolConfig {
    let params = |params: PrivacyParams| {
        Some(api::DifferentialPrivacyParams { epsilon: params.epsilon.get(), delta: params.delta.get() })
    };
    let mut llv2 = LiquidLegionsV2 {
        sketch_params: Some(api::LiquidLegionsSketchParams {
            decay_rate: config.llv2.decay_rate,
            max_size: config.llv2.max_size.cast_signed(),
            sampling_indicator_size: config.llv2.sampling_indicator_size.cast_signed(),
        }),
        elliptic_curve_id: RISTRETTO255,
        noise_mechanism: WireMechanism::None.into(),
        aggregator: config.llv2.aggregator.to_string(),
        ..Default::default()
    };
    if let Some(noise) = &config.llv2.noise {
        llv2.set_noise_mechanism(match noise.mechanism {
            NoiseMechanism::DiscreteGaussian => WireMechanism::DiscreteGaussian,
            NoiseMechanism::Geometric => WireMechanism::Geometric,
        });
        llv2.set_noise_calibration(match noise.calibration {
            NoiseCalibration::Exact => WireCalibration::Exact,
            NoiseCalibration::Reference => WireCalibration::Reference,
        });
        llv2.honest_contributors = noise.honest_contributors.cast_signed();
        llv2.data_provider_noise = params(noise.data_provider);
        llv2.blinded_histogram_noise = params(noise.blinded_histogram);
        llv2.noise_for_publisher_noise = params(noise.for_publisher_noise);
    }
    let kind = if config.counts_frequency { MeasurementType::ReachAndFrequency } else { MeasurementType::Reach };
    api::ProtocolConfig {
        measurement_type: kind.into(),
        protocols: vec![api::protocol_config::Protocol { protocol: Some(Protocol::LiquidLegionsV2(llv2)) }],
        ..Default::default()
    }
}

/// The same parameters as the Duchies' API has them.
#[must_use]
pub fn mpc_protocol_config(config: &ProtocolConfig) -> MpcProtocolConfig {
    let params = |params: PrivacyParams| {
        Some(system::DifferentialPrivacyParams { epsilon: params.epsilon.get(), delta: params.delta.get() })
    };
    let mut llv2 = mpc::LiquidLegionsV2 {
        sketch_params: Some(mpc::liquid_legions_v2::LiquidLegionsSketchParams {
            decay_rate: config.llv2.decay_rate,
            max_size: config.llv2.max_size.cast_signed(),
        }),
        elliptic_curve_id: RISTRETTO255,
        noise_mechanism: mpc::NoiseMechanism::None.into(),
        ..Default::default()
    };
    if let Some(noise) = &config.llv2.noise {
        llv2.set_noise_mechanism(match noise.mechanism {
            NoiseMechanism::DiscreteGaussian => mpc::NoiseMechanism::DiscreteGaussian,
            NoiseMechanism::Geometric => mpc::NoiseMechanism::Geometric,
        });
        llv2.set_noise_calibration(match noise.calibration {
            NoiseCalibration::Exact => mpc::NoiseCalibration::Exact,
            NoiseCalibration::Reference => mpc::NoiseCalibration::Reference,
        });
        llv2.honest_contributors = noise.honest_contributors.cast_signed();
        llv2.mpc_noise = Some(mpc::liquid_legions_v2::MpcNoise {
            blinded_histogram_noise: params(noise.blinded_histogram),
            publisher_noise: params(noise.for_publisher_noise),
        });
    }
    MpcProtocolConfig { protocol: Some(mpc::Protocol::LiquidLegionsV2(llv2)) }
}

/// Checks that what the Duchies' API says of the protocol is what the serialized configuration says.
///
/// # Errors
/// If it is missing, or differs from [`mpc_protocol_config`] in anything.
pub fn check_mpc_protocol_config(config: &ProtocolConfig, found: Option<&MpcProtocolConfig>) -> Result<(), WireError> {
    let path = "mpc_protocol_config";
    let found = found.ok_or_else(|| WireError::new(path, "is missing"))?;
    if *found == mpc_protocol_config(config) {
        Ok(())
    } else {
        Err(WireError::new(path, "differs from serialized_protocol_config"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::WireErrorKind;

    fn config() -> ProtocolConfig {
        let params = |epsilon| PrivacyParams::new(epsilon, 1e-9).unwrap();
        ProtocolConfig {
            counts_frequency: true,
            llv2: Llv2Config {
                decay_rate: 12.0,
                max_size: 100_000,
                sampling_indicator_size: 10_000_000,
                noise: Some(Llv2Noise {
                    mechanism: NoiseMechanism::Geometric,
                    calibration: NoiseCalibration::Reference,
                    honest_contributors: 2,
                    data_provider: params(1.0),
                    blinded_histogram: params(2.0),
                    for_publisher_noise: params(3.0),
                }),
                aggregator: "aggregator".parse().unwrap(),
            },
        }
    }

    fn changed(change: impl FnOnce(&mut LiquidLegionsV2)) -> Result<ProtocolConfig, WireError> {
        let mut config = protocol_config(&config());
        if let Some(Protocol::LiquidLegionsV2(llv2)) = &mut config.protocols[0].protocol {
            change(llv2);
        }
        parse_protocol_config(&config.encode_to_vec())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let gaussian = |noise: Llv2Noise| Llv2Noise {
            mechanism: NoiseMechanism::DiscreteGaussian,
            calibration: NoiseCalibration::Exact,
            ..noise
        };
        let mut configs = vec![config(), config(), config()];
        configs[1].llv2.noise = configs[1].llv2.noise.map(gaussian);
        configs[2].llv2.noise = None;
        configs[2].counts_frequency = false;
        for config in &configs {
            let written = protocol_config(config).encode_to_vec();
            assert_eq!(parse_protocol_config(&written).unwrap(), *config);
            for other in &configs {
                let same = check_mpc_protocol_config(other, Some(&mpc_protocol_config(config))).is_ok();
                assert_eq!(same, other == config);
            }
        }
        assert!(check_mpc_protocol_config(&config(), None).unwrap_err().to_string().contains("is missing"));
    }

    #[test]
    fn what_an_older_sender_leaves_out_has_a_meaning() {
        let parsed = changed(|llv2| {
            llv2.honest_contributors = 0;
            llv2.set_noise_calibration(WireCalibration::Unspecified);
            llv2.set_noise_mechanism(WireMechanism::Unspecified);
        });
        let noise = parsed.unwrap().llv2.noise.unwrap();
        assert_eq!((noise.honest_contributors, noise.calibration), (1, NoiseCalibration::Exact));
        assert_eq!(noise.mechanism, NoiseMechanism::DiscreteGaussian);
    }

    #[test]
    fn every_rule_of_a_protocol_configuration_is_named() {
        use WireErrorKind::{Malformed, Unsupported};
        for (outcome, kind, expected) in [
            (changed(|llv2| llv2.elliptic_curve_id = 415), Unsupported, "elliptic_curve_id: 415"),
            (changed(|llv2| llv2.sketch_params = None), Malformed, "sketch_params: is missing"),
            (changed(|llv2| llv2.sketch_params.as_mut().unwrap().max_size = -1), Malformed, "max_size: -1 is negative"),
            (changed(|llv2| llv2.data_provider_noise = None), Malformed, "data_provider_noise: is missing"),
            (
                changed(|llv2| llv2.data_provider_noise.as_mut().unwrap().delta = 0.0),
                Malformed,
                "delta must be greater",
            ),
            (changed(|llv2| llv2.honest_contributors = -1), Malformed, "honest_contributors"),
            (changed(|llv2| llv2.aggregator.clear()), Malformed, "aggregator"),
            (
                changed(|llv2| llv2.set_noise_mechanism(WireMechanism::ContinuousGaussian)),
                Unsupported,
                "no noise of this protocol",
            ),
            (parse_protocol_config(&[]), Malformed, "0 instead of one"),
        ] {
            let error = outcome.unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.kind, kind, "{error}");
        }
    }
}
