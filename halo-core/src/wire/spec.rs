//! Specifications, protocol configurations and keys.

use prost::Message;

use super::{WireError, type_name, unpack};
use crate::measurement::{Llv2Config, Llv2Noise, MeasurementSpec, MeasurementType, ProtocolConfig};
use crate::pb::api::measurement_spec::MeasurementType as WireType;
use crate::pb::api::protocol_config::protocol::Protocol;
use crate::pb::api::protocol_config::{
    LiquidLegionsV2, MeasurementType as PlannedType, NoiseCalibration as WireCalibration,
    NoiseMechanism as WireMechanism,
};
use crate::pb::{api, system};
use crate::privacy::{MaximumFrequency, NoiseCalibration, NoiseMechanism, PrivacyParams, VidSamplingInterval};

/// Number of the curve Ristretto255 in `elliptic_curve_id`.
pub const RISTRETTO255: i32 = 1087;

/// Encoding of Ristretto255's basepoint (RFC 9496, appendix A).
const GENERATOR: [u8; 32] = [
    0xe2, 0xf2, 0xae, 0x0a, 0x6a, 0xbc, 0x4e, 0x71, 0xa8, 0x84, 0xa9, 0x61, 0xc5, 0x00, 0x51, 0x5f, 0x58, 0xe3, 0x0b,
    0x6a, 0xa5, 0x82, 0xdd, 0x8d, 0xb6, 0xa6, 0x59, 0x45, 0xe0, 0x8d, 0x2d, 0x76,
];

/// A Duchy's share of a composite key, as it is signed. Whether it is a group element, and whether the proof holds, is
/// for whoever knows the group to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElGamalKey {
    /// The encoded element.
    pub element: [u8; 32],
    /// The proof that its secret is known.
    pub proof_of_possession: [u8; 64],
}

/// Reads a serialized `ElGamalPublicKey` on Ristretto255.
///
/// # Errors
/// If it is on another curve, has another generator, or a part has another length.
pub fn parse_el_gamal_public_key(bytes: &[u8]) -> Result<ElGamalKey, WireError> {
    let key = api::ElGamalPublicKey::decode(bytes).map_err(|error| WireError::new("el_gamal_public_key", error))?;
    if key.elliptic_curve_id != RISTRETTO255 {
        let reason = format!("{} is not {RISTRETTO255} (Ristretto255)", key.elliptic_curve_id);
        return Err(WireError::new("el_gamal_public_key.elliptic_curve_id", reason));
    }
    if key.generator != GENERATOR {
        return Err(WireError::new("el_gamal_public_key.generator", "is not Ristretto255's basepoint"));
    }
    let element = key.element.as_slice().try_into().map_err(|_| {
        WireError::new("el_gamal_public_key.element", format!("has {} bytes instead of 32", key.element.len()))
    })?;
    let proof_of_possession = key.proof_of_possession.as_slice().try_into().map_err(|_| {
        let found = key.proof_of_possession.len();
        WireError::new("el_gamal_public_key.proof_of_possession", format!("has {found} bytes instead of 64"))
    })?;
    Ok(ElGamalKey { element, proof_of_possession })
}

/// Writes an `ElGamalPublicKey` on Ristretto255.
#[must_use]
pub fn serialize_el_gamal_public_key(key: &ElGamalKey) -> Vec<u8> {
    api::ElGamalPublicKey {
        elliptic_curve_id: RISTRETTO255,
        generator: GENERATOR.to_vec(),
        element: key.element.to_vec(),
        proof_of_possession: key.proof_of_possession.to_vec(),
    }
    .encode_to_vec()
}

fn privacy(path: &str, params: Option<&api::DifferentialPrivacyParams>) -> Result<PrivacyParams, WireError> {
    let params = params.ok_or_else(|| WireError::new(path, "is missing"))?;
    PrivacyParams::new(params.epsilon, params.delta).map_err(|error| WireError::new(path, error))
}

/// Reads a serialized `MeasurementSpec`.
///
/// # Errors
/// If a field is missing or out of range; the error names it.
pub fn parse_measurement_spec(bytes: &[u8]) -> Result<MeasurementSpec, WireError> {
    let spec = api::MeasurementSpec::decode(bytes).map_err(|error| WireError::new("measurement_spec", error))?;
    let path = "measurement_spec.measurement_public_key";
    let key = unpack(path, spec.measurement_public_key.as_ref(), type_name::ENCRYPTION_PUBLIC_KEY)?;
    let path = "measurement_spec.vid_sampling_interval";
    let sampling = spec.vid_sampling_interval.as_ref().ok_or_else(|| WireError::new(path, "is missing"))?;
    let vid_sampling_interval =
        VidSamplingInterval::new(sampling.start, sampling.width).map_err(|error| WireError::new(path, error))?;
    let kind = match &spec.measurement_type {
        Some(WireType::Reach(asked)) => MeasurementType::Reach {
            reach: privacy("measurement_spec.reach.privacy_params", asked.privacy_params.as_ref())?,
        },
        Some(WireType::ReachAndFrequency(asked)) => {
            let path = |field: &str| format!("measurement_spec.reach_and_frequency.{field}");
            let frequency = u32::try_from(asked.maximum_frequency)
                .map_err(|error| WireError::new(path("maximum_frequency"), error))?;
            MeasurementType::ReachAndFrequency {
                reach: privacy(&path("reach_privacy_params"), asked.reach_privacy_params.as_ref())?,
                frequency: privacy(&path("frequency_privacy_params"), asked.frequency_privacy_params.as_ref())?,
                maximum_frequency: MaximumFrequency::new(frequency)
                    .map_err(|error| WireError::new(path("maximum_frequency"), error))?,
            }
        }
        Some(WireType::Impression(_)) => MeasurementType::Impression,
        Some(WireType::Duration(_)) => MeasurementType::Duration,
        Some(WireType::Population(_)) => MeasurementType::Population,
        None => return Err(WireError::new("measurement_spec.measurement_type", "is missing")),
    };
    let hash = |hash: &Vec<u8>| {
        hash.as_slice().try_into().map_err(|_| {
            WireError::new("measurement_spec.nonce_hashes", format!("one has {} bytes; a SHA-256 has 32", hash.len()))
        })
    };
    Ok(MeasurementSpec {
        kind,
        vid_sampling_interval,
        nonce_hashes: spec.nonce_hashes.iter().map(hash).collect::<Result<_, _>>()?,
        measurement_public_key: key.to_vec(),
    })
}

/// Reads a serialized `ProtocolConfig`, which must be for Liquid Legions v2 over Ristretto255.
///
/// # Errors
/// If it is for another protocol, or a field is missing or out of range; the error names it.
pub fn parse_protocol_config(bytes: &[u8]) -> Result<ProtocolConfig, WireError> {
    let config = api::ProtocolConfig::decode(bytes).map_err(|error| WireError::new("protocol_config", error))?;
    let [protocol] = config.protocols.as_slice() else {
        let reason = format!("there are {} instead of one", config.protocols.len());
        return Err(WireError::new("protocol_config.protocols", reason));
    };
    let Some(Protocol::LiquidLegionsV2(llv2)) = &protocol.protocol else {
        return Err(WireError::new("protocol_config.protocols", "is not Liquid Legions v2"));
    };
    let counts_frequency = match config.measurement_type() {
        PlannedType::Reach => false,
        PlannedType::ReachAndFrequency => true,
        other => {
            let reason = format!("{} is not computed by this protocol", other.as_str_name());
            return Err(WireError::new("protocol_config.measurement_type", reason));
        }
    };
    Ok(ProtocolConfig { counts_frequency, llv2: parse_llv2(llv2)? })
}

fn parse_llv2(llv2: &LiquidLegionsV2) -> Result<Llv2Config, WireError> {
    let path = |field: &str| format!("protocol_config.liquid_legions_v2.{field}");
    if llv2.elliptic_curve_id != RISTRETTO255 {
        let reason = format!("{} is not {RISTRETTO255} (Ristretto255)", llv2.elliptic_curve_id);
        return Err(WireError::new(path("elliptic_curve_id"), reason));
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
            return Err(WireError::new(path("noise_mechanism"), reason));
        }
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
            data_provider: privacy(&path("data_provider_noise"), llv2.data_provider_noise.as_ref())?,
            blinded_histogram: privacy(&path("blinded_histogram_noise"), llv2.blinded_histogram_noise.as_ref())?,
            for_publisher_noise: privacy(&path("noise_for_publisher_noise"), llv2.noise_for_publisher_noise.as_ref())?,
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

/// Checks that what the Duchies' API says of the protocol is what the serialized configuration says.
///
/// # Errors
/// If it is missing, or names another protocol, curve or sketch.
pub fn check_mpc_protocol_config(
    config: &ProtocolConfig,
    mpc: Option<&system::computation::MpcProtocolConfig>,
) -> Result<(), WireError> {
    use system::computation::mpc_protocol_config;
    let path = "mpc_protocol_config";
    let protocol = mpc.and_then(|mpc| mpc.protocol.as_ref()).ok_or_else(|| WireError::new(path, "is missing"))?;
    let mpc_protocol_config::Protocol::LiquidLegionsV2(llv2) = protocol else {
        return Err(WireError::new(path, "is not for Liquid Legions v2"));
    };
    let sketch = llv2.sketch_params.as_ref().ok_or_else(|| WireError::new(path, "has no sketch_params"))?;
    let mechanism = match config.llv2.noise.map(|noise| noise.mechanism) {
        None => mpc_protocol_config::NoiseMechanism::None,
        Some(NoiseMechanism::DiscreteGaussian) => mpc_protocol_config::NoiseMechanism::DiscreteGaussian,
        Some(NoiseMechanism::Geometric) => mpc_protocol_config::NoiseMechanism::Geometric,
    };
    let same = llv2.elliptic_curve_id == RISTRETTO255
        && sketch.decay_rate == config.llv2.decay_rate
        && u64::try_from(sketch.max_size) == Ok(config.llv2.max_size)
        && llv2.noise_mechanism() == mechanism;
    if same { Ok(()) } else { Err(WireError::new(path, "differs from serialized_protocol_config")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> api::ProtocolConfig {
        let params = |epsilon| Some(api::DifferentialPrivacyParams { epsilon, delta: 1e-9 });
        let llv2 = LiquidLegionsV2 {
            sketch_params: Some(api::LiquidLegionsSketchParams {
                decay_rate: 12.0,
                max_size: 100_000,
                sampling_indicator_size: 10_000_000,
            }),
            elliptic_curve_id: RISTRETTO255,
            noise_mechanism: WireMechanism::Geometric.into(),
            data_provider_noise: params(1.0),
            blinded_histogram_noise: params(2.0),
            noise_for_publisher_noise: params(3.0),
            aggregator: "aggregator".to_owned(),
            ..Default::default()
        };
        api::ProtocolConfig {
            measurement_type: PlannedType::ReachAndFrequency.into(),
            protocols: vec![api::protocol_config::Protocol { protocol: Some(Protocol::LiquidLegionsV2(llv2)) }],
            ..Default::default()
        }
    }

    fn changed(change: impl FnOnce(&mut LiquidLegionsV2)) -> Result<ProtocolConfig, WireError> {
        let mut config = config();
        if let Some(Protocol::LiquidLegionsV2(llv2)) = &mut config.protocols[0].protocol {
            change(llv2);
        }
        parse_protocol_config(&config.encode_to_vec())
    }

    #[test]
    fn every_rule_of_a_protocol_configuration_is_named() {
        let parsed = changed(|_| ()).unwrap();
        let noise = parsed.llv2.noise.unwrap();
        assert!(parsed.counts_frequency);
        assert_eq!((noise.honest_contributors, noise.calibration), (1, NoiseCalibration::Exact));
        assert_eq!(noise.blinded_histogram.epsilon.get(), 2.0);
        assert!(changed(|llv2| llv2.set_noise_mechanism(WireMechanism::None)).unwrap().llv2.noise.is_none());
        for (outcome, expected) in [
            (changed(|llv2| llv2.elliptic_curve_id = 415), "elliptic_curve_id: 415"),
            (changed(|llv2| llv2.sketch_params = None), "sketch_params: is missing"),
            (changed(|llv2| llv2.sketch_params.as_mut().unwrap().max_size = -1), "max_size: -1 is negative"),
            (changed(|llv2| llv2.data_provider_noise = None), "data_provider_noise: is missing"),
            (changed(|llv2| llv2.honest_contributors = -1), "honest_contributors"),
            (changed(|llv2| llv2.aggregator.clear()), "aggregator"),
            (changed(|llv2| llv2.set_noise_mechanism(WireMechanism::ContinuousGaussian)), "no noise of this protocol"),
        ] {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(parse_protocol_config(&[]).unwrap_err().to_string().contains("0 instead of one"));
    }

    #[test]
    fn keys_round_trip_and_other_curves_are_refused() {
        let key = ElGamalKey { element: [1; 32], proof_of_possession: [2; 64] };
        let bytes = serialize_el_gamal_public_key(&key);
        assert_eq!(parse_el_gamal_public_key(&bytes).unwrap(), key);
        let other = api::ElGamalPublicKey { elliptic_curve_id: 415, ..Default::default() }.encode_to_vec();
        assert!(parse_el_gamal_public_key(&other).unwrap_err().to_string().contains("415"));
    }
}
