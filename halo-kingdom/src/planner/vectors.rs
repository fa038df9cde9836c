//! What the protocols over frequency vectors need.

use halo_core::{
    measurement::{HmssConfig, HmssVariant, MeasurementSpec, Population, TrusteeConfig, TrusteeNoise},
    privacy::{NoiseMechanism, VidSamplingInterval},
    resource::DuchyId,
};
use halo_sketch::noise::{Sensitivity, ShiftedNoise, deterministic::StickyNoise};

use super::{NoiseMakers, Publisher, all_can, known_duchy, noises_of_people, refuse_setting};
use crate::Error;

/// Both workers of a share shuffle add noise.
const WORKERS: usize = 2;
/// Least ε of a share shuffle (protocols 3.1).
const LEAST_EPSILON: f64 = 1e-6;
/// Noise cells that one worker makes at most, as the engine has it.
const MAX_NOISE_CELLS: u64 = 1 << 30;
/// The largest modulus: what an element of one byte can be, and one more.
const MAX_MODULUS: u32 = 256;
/// q of the native variant for reach alone: the largest prime in one byte.
const NATIVE_REACH_MODULUS: u32 = 251;
/// The highest frequency that a trustee's publishers may send (protocols 4.1).
const MAX_TRUSTEE_FREQUENCY: u32 = 127;
/// So many impressions of one person count towards a trustee's threshold where only reach is asked for.
const TRUSTEE_REACH_IMPRESSIONS: u32 = 126;

/// Checks the settings of a share shuffle against the Kingdom's Duchies.
pub(super) fn check_hmss_settings(section: &str, hmss: &HmssConfig, duchies: &[DuchyId]) -> Result<(), Error> {
    let roles = [
        ("first_worker", &hmss.first_worker),
        ("second_worker", &hmss.second_worker),
        ("aggregator", &hmss.aggregator),
    ];
    for (index, (role, duchy)) in roles.iter().enumerate() {
        known_duchy(format!("{section}.{role}"), duchy, duchies)?;
        if let Some((other, _)) = roles.iter().take(index).find(|(_, other)| other == duchy) {
            let detail = format!("Duchy {duchy} is the {other} already; each of the three must be another Duchy");
            return Err(refuse_setting(format!("{section}.{role}"), detail));
        }
    }
    if let HmssVariant::Compatible { ring_modulus } = hmss.variant
        && !(4..=MAX_MODULUS).contains(&ring_modulus)
    {
        let detail = format!("it is {ring_modulus}; it must be from 4, for two publishers, to {MAX_MODULUS}");
        return Err(refuse_setting(format!("{section}.ring_modulus"), detail));
    }
    if let Some(noise) = &hmss.noise
        && !(1..=WORKERS).contains(&(noise.honest_contributors as usize))
    {
        let detail = format!("it is {}; there are two workers, so it must be 1 or 2", noise.honest_contributors);
        return Err(refuse_setting(format!("{section}.honest_contributors"), detail));
    }
    Ok(())
}

/// Whether a share shuffle can compute this for so many publishers.
pub(super) fn check_hmss(hmss: &HmssConfig, spec: &MeasurementSpec, publishers: usize) -> Result<(), String> {
    check_sampled(hmss.population, spec.vid_sampling_interval, 2)?;
    let frequency = spec.kind.maximum_frequency();
    let combined = u64::from(frequency.get()) * publishers as u64;
    let modulus = match hmss.variant {
        HmssVariant::Compatible { ring_modulus } => ring_modulus,
        HmssVariant::Native if frequency.counts_frequency() => MAX_MODULUS,
        HmssVariant::Native => NATIVE_REACH_MODULUS,
    };
    if u64::from(modulus) <= combined + 1 {
        return Err(format!(
            "with maximum frequency {frequency} and {publishers} publishers a cell adds up to {combined}, and the \
             modulus {modulus} leaves room for {} only; lower the maximum frequency, or ask fewer publishers",
            modulus.saturating_sub(2)
        ));
    }
    if !frequency.counts_frequency() && !is_prime(modulus) {
        return Err(format!("for reach alone the modulus must be a prime, and {modulus} is none"));
    }
    let Some(noise) = &hmss.noise else { return Ok(()) };
    let makers = NoiseMakers {
        mechanism: noise.mechanism,
        calibration: noise.calibration,
        contributors: WORKERS,
        honest_contributors: noise.honest_contributors,
    };
    let asked = makers.calibrate_people(spec, LEAST_EPSILON)?;
    let shift = |index: usize| asked.get(index).map_or(0, ShiftedNoise::shift);
    let cells = 2 * shift(0) + 2 * shift(1) * combined;
    if cells > MAX_NOISE_CELLS {
        return Err(format!(
            "every worker would make {cells} noise cells, and {MAX_NOISE_CELLS} are possible; raise epsilon"
        ));
    }
    Ok(())
}

/// Whether a trustee can compute this for these publishers.
pub(super) fn check_trustee(
    trustee: &TrusteeConfig,
    spec: &MeasurementSpec,
    publishers: &[Publisher],
) -> Result<(), String> {
    all_can(publishers, "can take part in it", |can| can.trustee)?;
    if trustee.noise == TrusteeNoise::Deterministic {
        all_can(publishers, "accepts deterministic noise", |can| can.deterministic_noise)?;
    }
    check_sampled(trustee.population, spec.vid_sampling_interval, 1)?;
    let frequency = spec.kind.maximum_frequency().get();
    if frequency > MAX_TRUSTEE_FREQUENCY {
        return Err(format!(
            "measurement_spec.reach_and_frequency.maximum_frequency: {frequency} is more than {MAX_TRUSTEE_FREQUENCY}"
        ));
    }
    if trustee.noise == TrusteeNoise::None {
        return Ok(());
    }
    let mut noises = noises_of_people(spec);
    let asks_impressions = trustee.thresholds.is_some_and(|thresholds| thresholds.min_impressions > 0);
    if let (Some((field, reach, _)), true) = (noises.first().copied(), asks_impressions) {
        // The number of impressions is compared with the threshold under noise of its own.
        let most = if spec.kind.kind().counts_frequency() { frequency } else { TRUSTEE_REACH_IMPRESSIONS };
        noises.push((field, reach, Sensitivity::scalar(most)));
    }
    let gaussian = NoiseMakers::one(NoiseMechanism::DiscreteGaussian);
    noises.into_iter().try_for_each(|(field, params, sensitivity)| {
        if params.epsilon.get() < LEAST_EPSILON {
            return Err(format!("{field}: epsilon is {}; at least {LEAST_EPSILON} is possible", params.epsilon));
        }
        let outcome = if trustee.noise == TrusteeNoise::Deterministic {
            StickyNoise::new(params, sensitivity).map(drop).map_err(|error| error.to_string())
        } else {
            gaussian.calibrate(params, sensitivity).map(drop)
        };
        outcome.map_err(|detail| format!("{field}: {detail}"))
    })
}

/// Refuses when fewer people than `least` are sampled.
fn check_sampled(population: Population, interval: VidSamplingInterval, least: u64) -> Result<(), String> {
    let sampled = sampled(population, interval);
    if sampled >= least {
        return Ok(());
    }
    Err(format!(
        "measurement_spec.vid_sampling_interval: of the population {population} {sampled} people are sampled, and there \
         must be at least {least}; ask for a wider interval"
    ))
}

/// Number of people of whom publishers make vectors (protocols 3.2), with borders in float32 as at every publisher.
fn sampled(population: Population, interval: VidSamplingInterval) -> u64 {
    let size = population.size();
    let border = |share: f32| (size as f32 * share) as u64;
    let (start, end) = (border(interval.start()), border(interval.start() + interval.width()));
    end.min(size).saturating_sub(start) + end.saturating_sub(size)
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..number).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}
