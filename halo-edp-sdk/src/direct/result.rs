//! A direct measurement's result as the consumer reads it.

use std::collections::BTreeMap;

use halo_core::{
    pb::api::{
        DeterministicCount, DeterministicCountDistinct, DeterministicDistribution, DeterministicSum,
        measurement::{
            Result as MeasurementResult,
            result::{
                Frequency, Impression, Population, Reach, WatchDuration, frequency, impression, population, reach,
                watch_duration,
            },
        },
        protocol_config::NoiseMechanism as Wire,
    },
    privacy::NoiseMechanism,
};

use super::{Ask, Found, Value};

/// What was found, in the words of the contract. `mechanism` is the distribution of its noise, `None` without.
///
/// Numbers are rounded to whole ones. Where frequencies were asked for and nobody was reached there are no shares.
#[must_use]
pub fn result(ask: &Ask, mechanism: Option<NoiseMechanism>, found: &Found) -> MeasurementResult {
    let noise_mechanism = match mechanism {
        None => Wire::None,
        Some(NoiseMechanism::DiscreteGaussian) => Wire::DiscreteGaussian,
        Some(NoiseMechanism::Geometric) => Wire::Geometric,
    }
    .into();
    let Value { standard_error, noise_standard_deviation, .. } = found.value;
    let value = found.value.value.round() as i64;
    match ask {
        Ask::Reach { .. } | Ask::ReachAndFrequency { .. } => MeasurementResult {
            reach: Some(Reach {
                value,
                noise_mechanism,
                methodology: Some(reach::Methodology::DeterministicCountDistinct(DeterministicCountDistinct {})),
                standard_error,
                noise_standard_deviation,
                ..Default::default()
            }),
            frequency: matches!(ask, Ask::ReachAndFrequency { .. }).then(|| frequencies(found, noise_mechanism)),
            ..Default::default()
        },
        Ask::Impression { .. } => MeasurementResult {
            impression: Some(Impression {
                value,
                noise_mechanism,
                methodology: Some(impression::Methodology::DeterministicCount(DeterministicCount::default())),
                standard_error,
                noise_standard_deviation,
            }),
            ..Default::default()
        },
        Ask::Duration { .. } => MeasurementResult {
            watch_duration: Some(WatchDuration {
                value: Some(prost_types::Duration { seconds: value, nanos: 0 }),
                noise_mechanism,
                methodology: Some(watch_duration::Methodology::DeterministicSum(DeterministicSum {})),
                standard_error,
                noise_standard_deviation,
            }),
            ..Default::default()
        },
    }
}

fn frequencies(found: &Found, noise_mechanism: i32) -> Frequency {
    let bins = |shares: &[f64]| -> BTreeMap<i64, f64> { (1..).zip(shares.iter().copied()).collect() };
    let told = found.frequencies.as_ref();
    Frequency {
        relative_frequency_distribution: told.map(|told| bins(&told.shares)).unwrap_or_default(),
        noise_mechanism,
        methodology: Some(frequency::Methodology::DeterministicDistribution(DeterministicDistribution {})),
        standard_errors: told.map(|told| bins(&told.standard_errors)).unwrap_or_default(),
        noise_standard_deviation: told.map_or(0.0, |told| told.noise_standard_deviation),
        ..Default::default()
    }
}

/// The size of a population, which is told without noise.
#[must_use]
pub fn population_result(people: u64) -> MeasurementResult {
    MeasurementResult {
        population: Some(Population {
            value: people.cast_signed(),
            methodology: Some(population::Methodology::DeterministicCount(DeterministicCount::default())),
            standard_error: 0.0,
            noise_standard_deviation: 0.0,
        }),
        ..Default::default()
    }
}
