//! The protocol that the Kingdom chose: read, written, and as the Duchies' API has it.

mod mpc;
#[cfg(test)]
mod tests;

use prost::Message;

pub use mpc::{check_mpc_protocol_config, mpc_protocol_config};

use super::key::RISTRETTO255;
use super::{WireError, spec};
use crate::measurement::{
    DirectConfig, HmssConfig, HmssNoise, HmssVariant, LiquidLegionsNoise, Llv2Config, MeasurementKind, Population,
    Protocol, ProtocolConfig, Rollv2Config, TrusteeConfig, TrusteeNoise, TrusteeThresholds,
};
use crate::pb::api;
use crate::pb::api::protocol_config::protocol::Protocol as WireProtocol;
use crate::pb::api::protocol_config::{
    Direct, HonestMajorityShareShuffle, LiquidLegionsV2, MeasurementType, NoiseCalibration as WireCalibration,
    NoiseMechanism as WireMechanism, ReachOnlyLiquidLegionsV2, ShareShuffleVariant, TrusTee, direct, trus_tee,
};
use crate::privacy::{NoiseCalibration, NoiseMechanism, PrivacyParams};
use crate::resource::DuchyId;

/// Reads a serialized `ProtocolConfig`.
///
/// # Errors
/// If a field is missing or out of range; the error names it. A curve or noise that is not spoken here is
/// [`super::WireErrorKind::Unsupported`].
pub fn parse_protocol_config(bytes: &[u8]) -> Result<ProtocolConfig, WireError> {
    let config = api::ProtocolConfig::decode(bytes).map_err(|error| WireError::new("protocol_config", error))?;
    let [protocol] = config.protocols.as_slice() else {
        let reason = format!("there are {} instead of one", config.protocols.len());
        return Err(WireError::new("protocol_config.protocols", reason));
    };
    let kind = match config.measurement_type() {
        MeasurementType::Reach => MeasurementKind::Reach,
        MeasurementType::ReachAndFrequency => MeasurementKind::ReachAndFrequency,
        MeasurementType::Impression => MeasurementKind::Impression,
        MeasurementType::Duration => MeasurementKind::Duration,
        MeasurementType::Population => MeasurementKind::Population,
        MeasurementType::Unspecified => return Err(WireError::new("protocol_config.measurement_type", "is missing")),
    };
    let protocol = match &protocol.protocol {
        Some(WireProtocol::LiquidLegionsV2(llv2)) => Protocol::Llv2(parse_llv2(llv2)?),
        Some(WireProtocol::ReachOnlyLiquidLegionsV2(rollv2)) => Protocol::Rollv2(parse_rollv2(rollv2)?),
        Some(WireProtocol::HonestMajorityShareShuffle(hmss)) => Protocol::Hmss(parse_hmss(hmss)?),
        Some(WireProtocol::TrusTee(trustee)) => Protocol::Trustee(parse_trustee(trustee)?),
        Some(WireProtocol::Direct(direct)) => Protocol::Direct(parse_direct(direct)?),
        None => {
            return Err(WireError::unsupported("protocol_config.protocols", "is a protocol that is not known here"));
        }
    };
    Ok(ProtocolConfig { kind, protocol })
}

/// The path of a field of one protocol's message.
struct Path(&'static str);

impl Path {
    fn of(&self, field: &str) -> String {
        format!("protocol_config.{}.{field}", self.0)
    }

    fn ristretto(&self, curve: i32) -> Result<(), WireError> {
        if curve == RISTRETTO255 {
            return Ok(());
        }
        let reason = format!("{curve} is not {RISTRETTO255} (Ristretto255)");
        Err(WireError::unsupported(self.of("elliptic_curve_id"), reason))
    }

    fn number<T: TryFrom<i64>>(&self, field: &str, value: i64) -> Result<T, WireError> {
        T::try_from(value).map_err(|_| {
            let what = if value < 0 { "is negative" } else { "is too large" };
            WireError::new(self.of(field), format!("{value} {what}"))
        })
    }

    fn privacy(
        &self,
        field: &str,
        params: Option<&api::DifferentialPrivacyParams>,
    ) -> Result<PrivacyParams, WireError> {
        let params = spec::privacy(&self.of(field), params)?;
        params.for_protocol_noise().map_err(|error| WireError::new(self.of(field), error))
    }

    fn duchy(&self, field: &str, id: &str) -> Result<DuchyId, WireError> {
        id.parse().map_err(|error: crate::Error| WireError::new(self.of(field), error))
    }

    /// What Duchies together draw; `None` for no noise.
    fn mechanism(&self, mechanism: WireMechanism) -> Result<Option<NoiseMechanism>, WireError> {
        match mechanism {
            WireMechanism::DiscreteGaussian | WireMechanism::Unspecified => Ok(Some(NoiseMechanism::DiscreteGaussian)),
            WireMechanism::Geometric => Ok(Some(NoiseMechanism::Geometric)),
            WireMechanism::None => Ok(None),
            other => {
                let reason = format!("{} is no noise of this protocol", other.as_str_name());
                Err(WireError::unsupported(self.of("noise_mechanism"), reason))
            }
        }
    }

    /// 0 is what a sender that does not know the field means by leaving it out.
    fn honest(&self, contributors: i32) -> Result<u32, WireError> {
        self.number("honest_contributors", contributors.into()).map(|honest: u32| honest.max(1))
    }

    fn population(&self, first: i64, last: i64) -> Result<Population, WireError> {
        let first = self.number("population_first_vid", first)?;
        let last = self.number("population_last_vid", last)?;
        Population::new(first, last).map_err(|error| WireError::new(self.of("population_last_vid"), error))
    }
}

fn calibration(calibration: WireCalibration) -> NoiseCalibration {
    match calibration {
        WireCalibration::Exact | WireCalibration::Unspecified => NoiseCalibration::Exact,
        WireCalibration::Reference => NoiseCalibration::Reference,
    }
}

fn parse_llv2(llv2: &LiquidLegionsV2) -> Result<Llv2Config, WireError> {
    let path = Path("liquid_legions_v2");
    path.ristretto(llv2.elliptic_curve_id)?;
    let sketch = llv2.sketch_params.as_ref().ok_or_else(|| WireError::new(path.of("sketch_params"), "is missing"))?;
    let noise = path.mechanism(llv2.noise_mechanism())?.map(|mechanism| {
        Ok(LiquidLegionsNoise {
            mechanism,
            calibration: calibration(llv2.noise_calibration()),
            honest_contributors: path.honest(llv2.honest_contributors)?,
            data_provider: path.privacy("data_provider_noise", llv2.data_provider_noise.as_ref())?,
            blinded_histogram: path.privacy("blinded_histogram_noise", llv2.blinded_histogram_noise.as_ref())?,
            for_publisher_noise: path.privacy("noise_for_publisher_noise", llv2.noise_for_publisher_noise.as_ref())?,
        })
    });
    Ok(Llv2Config {
        decay_rate: sketch.decay_rate,
        max_size: path.number("sketch_params.max_size", sketch.max_size)?,
        sampling_indicator_size: path
            .number("sketch_params.sampling_indicator_size", sketch.sampling_indicator_size)?,
        noise: noise.transpose()?,
        aggregator: path.duchy("aggregator", &llv2.aggregator)?,
    })
}

fn parse_rollv2(rollv2: &ReachOnlyLiquidLegionsV2) -> Result<Rollv2Config, WireError> {
    let path = Path("reach_only_liquid_legions_v2");
    path.ristretto(rollv2.elliptic_curve_id)?;
    let sketch = rollv2.sketch_params.as_ref().ok_or_else(|| WireError::new(path.of("sketch_params"), "is missing"))?;
    let noise = path.mechanism(rollv2.noise_mechanism())?.map(|mechanism| {
        Ok(LiquidLegionsNoise {
            mechanism,
            calibration: calibration(rollv2.noise_calibration()),
            honest_contributors: path.honest(rollv2.honest_contributors)?,
            data_provider: path.privacy("data_provider_noise", rollv2.data_provider_noise.as_ref())?,
            blinded_histogram: path.privacy("blinded_histogram_noise", rollv2.blinded_histogram_noise.as_ref())?,
            for_publisher_noise: path
                .privacy("noise_for_publisher_noise", rollv2.noise_for_publisher_noise.as_ref())?,
        })
    });
    Ok(Rollv2Config {
        decay_rate: sketch.decay_rate,
        max_size: path.number("sketch_params.max_size", sketch.max_size)?,
        noise: noise.transpose()?,
        aggregator: path.duchy("aggregator", &rollv2.aggregator)?,
    })
}

fn parse_hmss(hmss: &HonestMajorityShareShuffle) -> Result<HmssConfig, WireError> {
    let path = Path("honest_majority_share_shuffle");
    let noise = path.mechanism(hmss.noise_mechanism())?.map(|mechanism| {
        Ok(HmssNoise {
            mechanism,
            calibration: calibration(hmss.noise_calibration()),
            honest_contributors: path.honest(hmss.honest_contributors)?,
        })
    });
    let variant = match hmss.variant() {
        ShareShuffleVariant::Unspecified | ShareShuffleVariant::Compatible => {
            HmssVariant::Compatible { ring_modulus: path.number("ring_modulus", hmss.ring_modulus.into())? }
        }
        ShareShuffleVariant::Native => HmssVariant::Native,
    };
    Ok(HmssConfig {
        variant,
        noise: noise.transpose()?,
        first_worker: path.duchy("first_worker", &hmss.first_worker)?,
        second_worker: path.duchy("second_worker", &hmss.second_worker)?,
        aggregator: path.duchy("aggregator", &hmss.aggregator)?,
        population: path.population(hmss.population_first_vid, hmss.population_last_vid)?,
    })
}

fn parse_trustee(trustee: &TrusTee) -> Result<TrusteeConfig, WireError> {
    let path = Path("trus_tee");
    let noise = match trustee.noise_mechanism() {
        WireMechanism::None => TrusteeNoise::None,
        WireMechanism::DiscreteGaussian | WireMechanism::Unspecified => TrusteeNoise::DiscreteGaussian,
        WireMechanism::DeterministicTruncatedLaplace => TrusteeNoise::Deterministic,
        other => {
            let reason = format!("{} is no noise of this protocol", other.as_str_name());
            return Err(WireError::unsupported(path.of("noise_mechanism"), reason));
        }
    };
    let least = |field: &str, value: i32| path.number(&format!("result_minimum_thresholds.{field}"), value.into());
    let thresholds = trustee.result_minimum_thresholds.as_ref().map(|thresholds| {
        Ok(TrusteeThresholds {
            min_impressions: least("min_impressions", thresholds.min_impressions)?,
            min_users: least("min_users", thresholds.min_users)?,
        })
    });
    Ok(TrusteeConfig {
        duchy: path.duchy("duchy", &trustee.duchy)?,
        noise,
        thresholds: thresholds.transpose()?,
        population: path.population(trustee.population_first_vid, trustee.population_last_vid)?,
    })
}

/// Noises that are not known here are left out: others may choose them.
fn parse_direct(direct: &Direct) -> Result<DirectConfig, WireError> {
    let known = direct.noise_mechanisms().filter_map(|mechanism| match mechanism {
        WireMechanism::DiscreteGaussian => Some(Some(NoiseMechanism::DiscreteGaussian)),
        WireMechanism::Geometric => Some(Some(NoiseMechanism::Geometric)),
        WireMechanism::None => Some(None),
        _ => None,
    });
    let noise: Vec<_> = known.collect();
    if noise.is_empty() {
        return Err(WireError::unsupported("protocol_config.direct.noise_mechanisms", "none of them is spoken here"));
    }
    Ok(DirectConfig { noise })
}

fn params(params: PrivacyParams) -> Option<api::DifferentialPrivacyParams> {
    Some(api::DifferentialPrivacyParams { epsilon: params.epsilon.get(), delta: params.delta.get() })
}

fn wire_mechanism(mechanism: Option<NoiseMechanism>) -> WireMechanism {
    match mechanism {
        Some(NoiseMechanism::DiscreteGaussian) => WireMechanism::DiscreteGaussian,
        Some(NoiseMechanism::Geometric) => WireMechanism::Geometric,
        None => WireMechanism::None,
    }
}

fn wire_calibration(calibration: NoiseCalibration) -> WireCalibration {
    match calibration {
        NoiseCalibration::Exact => WireCalibration::Exact,
        NoiseCalibration::Reference => WireCalibration::Reference,
    }
}

/// Writes a `ProtocolConfig`. Whoever plans a measurement serializes it once; the bytes are what counts from then on.
#[must_use]
pub fn protocol_config(config: &ProtocolConfig) -> api::ProtocolConfig {
    let kind = match config.kind {
        MeasurementKind::Reach => MeasurementType::Reach,
        MeasurementKind::ReachAndFrequency => MeasurementType::ReachAndFrequency,
        MeasurementKind::Impression => MeasurementType::Impression,
        MeasurementKind::Duration => MeasurementType::Duration,
        MeasurementKind::Population => MeasurementType::Population,
    };
    let protocol = match &config.protocol {
        Protocol::Llv2(llv2) => WireProtocol::LiquidLegionsV2(write_llv2(llv2)),
        Protocol::Rollv2(rollv2) => WireProtocol::ReachOnlyLiquidLegionsV2(write_rollv2(rollv2)),
        Protocol::Hmss(hmss) => WireProtocol::HonestMajorityShareShuffle(write_hmss(hmss, config.kind)),
        Protocol::Trustee(trustee) => WireProtocol::TrusTee(write_trustee(trustee)),
        Protocol::Direct(direct) => WireProtocol::Direct(write_direct(direct, config.kind)),
    };
    api::ProtocolConfig {
        measurement_type: kind.into(),
        protocols: vec![api::protocol_config::Protocol { protocol: Some(protocol) }],
        ..Default::default()
    }
}

fn write_llv2(config: &Llv2Config) -> LiquidLegionsV2 {
    let mut llv2 = LiquidLegionsV2 {
        sketch_params: Some(api::LiquidLegionsSketchParams {
            decay_rate: config.decay_rate,
            max_size: config.max_size.cast_signed(),
            sampling_indicator_size: config.sampling_indicator_size.cast_signed(),
        }),
        elliptic_curve_id: RISTRETTO255,
        noise_mechanism: wire_mechanism(config.noise.map(|noise| noise.mechanism)).into(),
        aggregator: config.aggregator.to_string(),
        ..Default::default()
    };
    if let Some(noise) = &config.noise {
        llv2.set_noise_calibration(wire_calibration(noise.calibration));
        llv2.honest_contributors = noise.honest_contributors.cast_signed();
        llv2.data_provider_noise = params(noise.data_provider);
        llv2.blinded_histogram_noise = params(noise.blinded_histogram);
        llv2.noise_for_publisher_noise = params(noise.for_publisher_noise);
    }
    llv2
}

fn write_rollv2(config: &Rollv2Config) -> ReachOnlyLiquidLegionsV2 {
    let mut rollv2 = ReachOnlyLiquidLegionsV2 {
        sketch_params: Some(api::ReachOnlyLiquidLegionsSketchParams {
            decay_rate: config.decay_rate,
            max_size: config.max_size.cast_signed(),
        }),
        elliptic_curve_id: RISTRETTO255,
        noise_mechanism: wire_mechanism(config.noise.map(|noise| noise.mechanism)).into(),
        aggregator: config.aggregator.to_string(),
        ..Default::default()
    };
    if let Some(noise) = &config.noise {
        rollv2.set_noise_calibration(wire_calibration(noise.calibration));
        rollv2.honest_contributors = noise.honest_contributors.cast_signed();
        rollv2.data_provider_noise = params(noise.data_provider);
        rollv2.blinded_histogram_noise = params(noise.blinded_histogram);
        rollv2.noise_for_publisher_noise = params(noise.for_publisher_noise);
    }
    rollv2
}

/// q as a publisher of this measurement needs it.
const fn ring_modulus(variant: HmssVariant, kind: MeasurementKind) -> u32 {
    match variant {
        HmssVariant::Compatible { ring_modulus } => ring_modulus,
        HmssVariant::Native if kind.counts_frequency() => 256,
        HmssVariant::Native => 251,
    }
}

fn write_hmss(config: &HmssConfig, kind: MeasurementKind) -> HonestMajorityShareShuffle {
    let mut hmss = HonestMajorityShareShuffle {
        noise_mechanism: wire_mechanism(config.noise.map(|noise| noise.mechanism)).into(),
        ring_modulus: ring_modulus(config.variant, kind).cast_signed(),
        first_worker: config.first_worker.to_string(),
        second_worker: config.second_worker.to_string(),
        aggregator: config.aggregator.to_string(),
        population_first_vid: config.population.first().cast_signed(),
        population_last_vid: config.population.last().cast_signed(),
        ..Default::default()
    };
    hmss.set_variant(match config.variant {
        HmssVariant::Compatible { .. } => ShareShuffleVariant::Compatible,
        HmssVariant::Native => ShareShuffleVariant::Native,
    });
    if let Some(noise) = &config.noise {
        hmss.set_noise_calibration(wire_calibration(noise.calibration));
        hmss.honest_contributors = noise.honest_contributors.cast_signed();
    }
    hmss
}

fn write_trustee(config: &TrusteeConfig) -> TrusTee {
    let mut trustee = TrusTee {
        result_minimum_thresholds: config.thresholds.map(|thresholds| trus_tee::ResultMinimumThresholds {
            min_impressions: thresholds.min_impressions.cast_signed(),
            min_users: thresholds.min_users.cast_signed(),
        }),
        duchy: config.duchy.to_string(),
        population_first_vid: config.population.first().cast_signed(),
        population_last_vid: config.population.last().cast_signed(),
        ..Default::default()
    };
    trustee.set_noise_mechanism(match config.noise {
        TrusteeNoise::None => WireMechanism::None,
        TrusteeNoise::DiscreteGaussian => WireMechanism::DiscreteGaussian,
        TrusteeNoise::Deterministic => WireMechanism::DeterministicTruncatedLaplace,
    });
    trustee
}

fn write_direct(config: &DirectConfig, kind: MeasurementKind) -> Direct {
    let mut written = Direct {
        noise_mechanisms: config.noise.iter().map(|noise| wire_mechanism(*noise).into()).collect(),
        ..Default::default()
    };
    match kind {
        MeasurementKind::Reach | MeasurementKind::ReachAndFrequency => {
            written.deterministic_count_distinct = Some(direct::DeterministicCountDistinct {});
            written.deterministic_distribution =
                kind.counts_frequency().then_some(direct::DeterministicDistribution {});
        }
        MeasurementKind::Impression | MeasurementKind::Population => {
            written.deterministic_count = Some(direct::DeterministicCount {});
        }
        MeasurementKind::Duration => written.deterministic_sum = Some(direct::DeterministicSum {}),
    }
    written
}
