//! The same parameters as the Duchies' API has them.

use super::ring_modulus;
use crate::measurement::{
    HmssConfig, LiquidLegionsNoise, MeasurementKind, Protocol, ProtocolConfig, TrusteeConfig, TrusteeNoise,
};
use crate::pb::system;
use crate::pb::system::computation::{MpcProtocolConfig, mpc_protocol_config as mpc};
use crate::privacy::{NoiseCalibration, NoiseMechanism, PrivacyParams};
use crate::wire::WireError;
use crate::wire::key::RISTRETTO255;

/// The parameters as the Duchies' API has them; `None` where no Duchy computes.
#[must_use]
pub fn mpc_protocol_config(config: &ProtocolConfig) -> Option<MpcProtocolConfig> {
    let protocol = match &config.protocol {
        Protocol::Llv2(llv2) => {
            mpc::Protocol::LiquidLegionsV2(liquid_legions(llv2.decay_rate, llv2.max_size, llv2.noise.as_ref()))
        }
        Protocol::Rollv2(rollv2) => mpc::Protocol::ReachOnlyLiquidLegionsV2(liquid_legions(
            rollv2.decay_rate,
            rollv2.max_size,
            rollv2.noise.as_ref(),
        )),
        Protocol::Hmss(hmss) => mpc::Protocol::HonestMajorityShareShuffle(share_shuffle(hmss, config.kind)),
        Protocol::Trustee(trustee) => mpc::Protocol::TrusTee(trusted(trustee)),
        Protocol::Direct(_) => return None,
    };
    Some(MpcProtocolConfig { protocol: Some(protocol) })
}

fn mechanism(mechanism: Option<NoiseMechanism>) -> mpc::NoiseMechanism {
    match mechanism {
        Some(NoiseMechanism::DiscreteGaussian) => mpc::NoiseMechanism::DiscreteGaussian,
        Some(NoiseMechanism::Geometric) => mpc::NoiseMechanism::Geometric,
        None => mpc::NoiseMechanism::None,
    }
}

fn liquid_legions(decay_rate: f64, max_size: u64, noise: Option<&LiquidLegionsNoise>) -> mpc::LiquidLegionsV2 {
    let params = |params: PrivacyParams| {
        Some(system::DifferentialPrivacyParams { epsilon: params.epsilon.get(), delta: params.delta.get() })
    };
    let mut message = mpc::LiquidLegionsV2 {
        sketch_params: Some(mpc::liquid_legions_v2::LiquidLegionsSketchParams {
            decay_rate,
            max_size: max_size.cast_signed(),
        }),
        elliptic_curve_id: RISTRETTO255,
        noise_mechanism: mechanism(noise.map(|noise| noise.mechanism)).into(),
        ..Default::default()
    };
    if let Some(noise) = noise {
        message.set_noise_calibration(match noise.calibration {
            NoiseCalibration::Exact => mpc::NoiseCalibration::Exact,
            NoiseCalibration::Reference => mpc::NoiseCalibration::Reference,
        });
        message.honest_contributors = noise.honest_contributors.cast_signed();
        message.mpc_noise = Some(mpc::liquid_legions_v2::MpcNoise {
            blinded_histogram_noise: params(noise.blinded_histogram),
            publisher_noise: params(noise.for_publisher_noise),
        });
    }
    message
}

fn share_shuffle(config: &HmssConfig, kind: MeasurementKind) -> mpc::HonestMajorityShareShuffle {
    let modulus = ring_modulus(config.variant, kind).cast_signed();
    let mut message = mpc::HonestMajorityShareShuffle {
        noise_mechanism: mechanism(config.noise.map(|noise| noise.mechanism)).into(),
        ..Default::default()
    };
    if kind.counts_frequency() {
        message.reach_and_frequency_ring_modulus = modulus;
    } else {
        message.reach_ring_modulus = modulus;
    }
    message
}

fn trusted(config: &TrusteeConfig) -> mpc::TrusTee {
    let noise = match config.noise {
        TrusteeNoise::None => mpc::NoiseMechanism::None,
        TrusteeNoise::DiscreteGaussian => mpc::NoiseMechanism::DiscreteGaussian,
        TrusteeNoise::Deterministic => mpc::NoiseMechanism::DeterministicTruncatedLaplace,
    };
    mpc::TrusTee {
        noise_mechanism: noise.into(),
        result_minimum_thresholds: config.thresholds.map(|thresholds| mpc::trus_tee::ResultMinimumThresholds {
            min_impressions: thresholds.min_impressions.cast_signed(),
            min_users: thresholds.min_users.cast_signed(),
        }),
    }
}

/// Checks that what the Duchies' API says of the protocol is what the serialized configuration says.
///
/// # Errors
/// If it is missing, or differs from [`mpc_protocol_config`] in anything.
pub fn check_mpc_protocol_config(config: &ProtocolConfig, found: Option<&MpcProtocolConfig>) -> Result<(), WireError> {
    let path = "mpc_protocol_config";
    let found = found.ok_or_else(|| WireError::new(path, "is missing"))?;
    if Some(found) == mpc_protocol_config(config).as_ref() {
        Ok(())
    } else {
        Err(WireError::new(path, "differs from serialized_protocol_config"))
    }
}
