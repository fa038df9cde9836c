//! Direct measurements: every publisher counts and adds noise by itself.

use halo_core::{
    measurement::{DirectConfig, MeasurementKind, MeasurementSpec, MeasurementType},
    privacy::PrivacyParams,
};
use halo_sketch::noise::Sensitivity;

use super::{NoiseMakers, noises_of_people};

/// Why a measurement is one for the publishers themselves, or why not.
pub(super) fn applies(asked: MeasurementKind, publishers: usize) -> Result<String, String> {
    match asked {
        MeasurementKind::Impression | MeasurementKind::Duration | MeasurementKind::Population => {
            Ok(format!("of {asked}, each publisher's own result is wanted"))
        }
        MeasurementKind::Reach | MeasurementKind::ReachAndFrequency if publishers == 1 => {
            Ok("there is one publisher, which can count by itself".into())
        }
        MeasurementKind::Reach | MeasurementKind::ReachAndFrequency => {
            Err(format!("people who were reached by several of the {publishers} publishers must be counted once"))
        }
    }
}

/// The configuration, with those noises only that a publisher can make as the specification asks.
pub(super) fn feasible(config: &DirectConfig, spec: &MeasurementSpec) -> Result<DirectConfig, String> {
    let noises = match spec.kind {
        MeasurementType::Impression { impression, maximum_frequency_per_user } => {
            let sensitivity = Sensitivity::scalar(maximum_frequency_per_user);
            vec![("measurement_spec.impression.privacy_params", impression, sensitivity)]
        }
        MeasurementType::Duration { duration, maximum_seconds_per_user } => {
            let field = "measurement_spec.duration.maximum_watch_duration_per_user";
            let seconds = u32::try_from(maximum_seconds_per_user)
                .map_err(|_| format!("{field}: {maximum_seconds_per_user} seconds are more than {}", u32::MAX))?;
            vec![("measurement_spec.duration.privacy_params", duration, Sensitivity::scalar(seconds))]
        }
        MeasurementType::Reach { .. } | MeasurementType::ReachAndFrequency { .. } | MeasurementType::Population => {
            noises_of_people(spec)
        }
    };
    let mut possible = Vec::with_capacity(config.noise.len());
    let mut refusal = String::new();
    for noise in &config.noise {
        let outcome = match noise {
            None => Ok(()),
            Some(mechanism) => calibrate_all(NoiseMakers::one(*mechanism), &noises),
        };
        match outcome {
            Ok(()) => possible.push(*noise),
            Err(detail) => refusal = detail,
        }
    }
    if possible.is_empty() { Err(refusal) } else { Ok(DirectConfig { noise: possible }) }
}

fn calibrate_all(maker: NoiseMakers, noises: &[(&str, PrivacyParams, Sensitivity)]) -> Result<(), String> {
    noises.iter().try_for_each(|(field, params, sensitivity)| {
        maker.calibrate(*params, *sensitivity).map(drop).map_err(|detail| format!("{field}: {detail}"))
    })
}
