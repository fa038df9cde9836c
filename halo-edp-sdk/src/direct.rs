//! Direct measurements: one publisher counts its own people and adds noise before anything leaves; no Duchy takes part.
//!
//! ```
//! use halo_core::privacy::VidSamplingInterval;
//! use halo_edp_sdk::direct::{Ask, Audience};
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//!
//! let mut audience = Audience::new(VidSamplingInterval::FULL);
//! for (vid, seconds) in [(1, 30), (1, 15), (2, 60)] {
//!     audience.add(vid, 1, seconds);
//! }
//! let mut rng = ChaCha20Rng::seed_from_u64(1); // an example; a publisher takes the operating system's generator
//! let twice_at_most = Ask::Impression { maximum_per_person: 2, privacy: None };
//! assert_eq!(audience.measure(&twice_at_most, &mut rng)?.value.value, 3.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod result;

use std::{collections::HashMap, path::Path};

use halo_core::privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval};
use halo_sketch::{
    estimate,
    noise::{NoiseCalibration, NoiseMechanism, NoiseSpec, Sensitivity, ShiftedNoise},
    sampler::VidSampler,
    variance::{self, FrequencyMeasurement, Interval, Methodology, ReachMeasurement, ScalarMeasurement},
};
use rand_core::CryptoRng;

use crate::{
    Error, events,
    progress::{Observer, Stage, report},
};

pub use result::{population_result, result};

/// The noise of one statistic: one contributor, the publisher.
///
/// # Guarantee
/// What is released is (ε, δ)-differentially private for one person's presence: the exact discrete distribution around
/// the true number, cut to a range whose probability δ pays for, with a sensitivity of what one person can change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Privacy {
    /// The distribution.
    pub mechanism: NoiseMechanism,
    /// ε, and δ above 0.
    pub params: PrivacyParams,
}

/// What is counted. `None` in the place of a [`Privacy`] leaves the noise out, and the result is not private.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ask {
    /// How many people were reached.
    Reach {
        /// Of the number.
        privacy: Option<Privacy>,
    },
    /// How many people were reached, and how often.
    ReachAndFrequency {
        /// Of the number of people.
        reach: Option<Privacy>,
        /// Of the histogram.
        frequency: Option<Privacy>,
        /// F: "F times or more" is the last class.
        maximum_frequency: MaximumFrequency,
    },
    /// How many impressions there were.
    Impression {
        /// Of the number.
        privacy: Option<Privacy>,
        /// More impressions of one person do not count; at least 1.
        maximum_per_person: u32,
    },
    /// How many seconds were watched.
    Duration {
        /// Of the number.
        privacy: Option<Privacy>,
        /// More seconds of one person do not count; at least 1.
        maximum_seconds_per_person: u32,
    },
}

impl Ask {
    /// Whether the noise can be made.
    ///
    /// # Errors
    /// [`Error::Sketch`] when ε and δ ask for noise that nobody can draw.
    pub fn check(&self) -> Result<(), Error> {
        let (scalar, histogram) = match *self {
            Self::Reach { privacy } => (privacy.map(|privacy| (privacy, 1)), None),
            Self::ReachAndFrequency { reach, frequency, .. } => (reach.map(|privacy| (privacy, 1)), frequency),
            Self::Impression { privacy, maximum_per_person: most } => (privacy.map(|privacy| (privacy, most)), None),
            Self::Duration { privacy, maximum_seconds_per_person: most } => {
                (privacy.map(|privacy| (privacy, most)), None)
            }
        };
        scalar.map(|(privacy, most)| calibrated(privacy, Sensitivity::scalar(most))).transpose()?;
        histogram.map(|privacy| calibrated(privacy, Sensitivity::histogram())).transpose()?;
        Ok(())
    }
}

/// A number with its error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Value {
    /// The estimate for everybody, sampled or not; at least 0, not rounded.
    pub value: f64,
    /// Standard error of `value`: sampling and noise together.
    pub standard_error: f64,
    /// Standard deviation of the noise in what was counted among the sampled people; 0 without noise.
    pub noise_standard_deviation: f64,
}

/// How often people were reached.
#[derive(Clone, Debug, PartialEq)]
pub struct Frequencies {
    /// Shares of the people reached 1, 2, …, F − 1 times, and F times or more; none is below 0, and they sum to 1.
    pub shares: Vec<f64>,
    /// Standard error of each.
    pub standard_errors: Vec<f64>,
    /// Standard deviation of the noise in each entry of the histogram; 0 without noise.
    pub noise_standard_deviation: f64,
}

/// What a direct measurement found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// People, impressions or seconds, as was asked.
    pub value: Value,
    /// Where frequencies were asked for and somebody was reached.
    pub frequencies: Option<Frequencies>,
}

/// The sampled people of one publisher, with what each has seen. It takes about 50 bytes a person.
#[derive(Clone, Debug)]
pub struct Audience {
    sampler: VidSampler,
    interval: VidSamplingInterval,
    people: HashMap<u64, Seen>,
    impressions: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    impressions: u64,
    seconds: u64,
}

impl Audience {
    /// Nobody yet.
    #[must_use]
    pub fn new(interval: VidSamplingInterval) -> Self {
        Self { sampler: VidSampler::new(interval), interval, people: HashMap::new(), impressions: 0 }
    }

    /// The audience of a Parquet file (see [`events`]), one impression a row, without watch durations.
    ///
    /// # Errors
    /// As [`events::read_vids`]; [`Error::Interrupted`] when the observer asks to stop.
    pub fn from_file(path: &Path, interval: VidSamplingInterval, observer: &mut dyn Observer) -> Result<Self, Error> {
        let mut audience = Self::new(interval);
        events::try_read_vids(path, |vids| {
            vids.iter().for_each(|vid| audience.add(*vid, 1, 0));
            report(observer, Stage::Counting, audience.impressions, None)
        })?;
        Ok(audience)
    }

    /// The same with watch times, from the file's column `seconds`; where there is none, every impression counts for so
    /// many `seconds`.
    ///
    /// # Errors
    /// As [`Self::from_file`]; [`Error::NoSecondsColumn`] when neither is there.
    pub fn from_watched_file(
        path: &Path,
        seconds: Option<u32>,
        interval: VidSamplingInterval,
        observer: &mut dyn Observer,
    ) -> Result<Self, Error> {
        let mut audience = Self::new(interval);
        let read = events::try_read_watched(path, |vids, seconds| {
            vids.iter().zip(seconds).for_each(|(vid, seconds)| audience.add(*vid, 1, *seconds));
            report(observer, Stage::Counting, audience.impressions, None)
        });
        match (read, seconds) {
            (Err(Error::NoSecondsColumn { .. }), Some(seconds)) => {
                let mut audience = Self::new(interval);
                events::try_read_vids(path, |vids| {
                    vids.iter().for_each(|vid| audience.add(*vid, 1, u64::from(seconds)));
                    report(observer, Stage::Counting, audience.impressions, None)
                })?;
                Ok(audience)
            }
            (read, _) => read.map(|_| audience),
        }
    }

    /// Counts so many impressions of a person, watched for so many seconds together.
    pub fn add(&mut self, vid: u64, impressions: u64, seconds: u64) {
        self.impressions = self.impressions.saturating_add(impressions);
        if self.sampler.contains(vid) {
            let seen = self.people.entry(vid).or_default();
            seen.impressions = seen.impressions.saturating_add(impressions);
            seen.seconds = seen.seconds.saturating_add(seconds);
        }
    }

    /// Impressions that were counted, sampled or not.
    #[must_use]
    pub const fn impressions(&self) -> u64 {
        self.impressions
    }

    /// Sampled people with an impression.
    #[must_use]
    pub fn reach(&self) -> u64 {
        self.reached().count() as u64
    }

    fn reached(&self) -> impl Iterator<Item = &Seen> {
        self.people.values().filter(|seen| seen.impressions > 0)
    }

    /// Counts what is asked for and adds the noise.
    ///
    /// # Errors
    /// [`Error::Sketch`] when noise parameters cannot be met or a limit is out of range.
    pub fn measure(&self, ask: &Ask, rng: &mut impl CryptoRng) -> Result<Found, Error> {
        let width = self.interval.width_decimal();
        match *ask {
            Ask::Reach { privacy } => {
                let value = scalar(self.reach(), 1, privacy, width, rng)?;
                Ok(Found { value, frequencies: None })
            }
            Ask::ReachAndFrequency { reach, frequency, maximum_frequency } => {
                let value = scalar(self.reach(), 1, reach, width, rng)?;
                let noise = frequency.map(|privacy| calibrated(privacy, Sensitivity::histogram())).transpose()?;
                let classes = u64::from(maximum_frequency.get());
                let mut counts = vec![0_u64; classes as usize];
                self.reached().for_each(|seen| counts[(seen.impressions.min(classes) - 1) as usize] += 1);
                let noised: Vec<f64> = counts.iter().map(|count| noised(*count, noise.as_ref(), rng)).collect();
                Ok(Found { frequencies: self.frequencies(&noised, noise.as_ref(), &value)?, value })
            }
            Ask::Impression { privacy, maximum_per_person } => {
                let most = u64::from(maximum_per_person);
                let sum = self.reached().map(|seen| seen.impressions.min(most)).fold(0, u64::saturating_add);
                Ok(Found { value: scalar(sum, maximum_per_person, privacy, width, rng)?, frequencies: None })
            }
            Ask::Duration { privacy, maximum_seconds_per_person: most } => {
                let sum =
                    self.people.values().map(|seen| seen.seconds.min(u64::from(most))).fold(0, u64::saturating_add);
                Ok(Found { value: scalar(sum, most, privacy, width, rng)?, frequencies: None })
            }
        }
    }

    fn frequencies(
        &self,
        histogram: &[f64],
        noise: Option<&ShiftedNoise>,
        reach: &Value,
    ) -> Result<Option<Frequencies>, Error> {
        let deviation = noise.map_or(0.0, ShiftedNoise::total_standard_deviation);
        let width = self.interval.width_decimal();
        if reach.value <= 0.0 {
            return Ok(None);
        }
        let Some(found) = estimate::frequency(histogram, deviation, reach.value) else { return Ok(None) };
        let interval = Interval { start: f64::from(self.interval.start()), width };
        let variances = variance::frequency(&FrequencyMeasurement {
            reach: ReachMeasurement {
                methodology: Methodology::Deterministic,
                reach: reach.value,
                interval,
                noise_variance: reach.noise_standard_deviation.powi(2),
            },
            shares: &found.shares,
            noise_variance: deviation.powi(2),
        })?;
        Ok(Some(Frequencies {
            standard_errors: variances.relative.into_iter().map(f64::sqrt).collect(),
            shares: found.shares,
            noise_standard_deviation: deviation,
        }))
    }
}

/// The size of a population of this many people, of whom nobody is left out.
///
/// # Errors
/// [`Error::Sketch`] when noise parameters cannot be met.
pub fn population(people: u64, privacy: Option<Privacy>, rng: &mut impl CryptoRng) -> Result<Value, Error> {
    scalar(people, 1, privacy, 1.0, rng)
}

/// A sum over the sampled people, of which each adds at most `per_person`, noised and scaled to everybody.
fn scalar(
    sum: u64,
    per_person: u32,
    privacy: Option<Privacy>,
    width: f64,
    rng: &mut impl CryptoRng,
) -> Result<Value, Error> {
    let noise = privacy.map(|privacy| calibrated(privacy, Sensitivity::scalar(per_person))).transpose()?;
    let deviation = noise.as_ref().map_or(0.0, ShiftedNoise::total_standard_deviation);
    let value = noised(sum, noise.as_ref(), rng).max(0.0) / width;
    let most = f64::from(per_person.max(1));
    let measurement = ScalarMeasurement {
        value,
        per_person: most,
        sampling_width: width,
        noise_variance: (deviation / most).powi(2),
    };
    Ok(Value { value, standard_error: measurement.variance()?.sqrt(), noise_standard_deviation: deviation })
}

fn calibrated(privacy: Privacy, sensitivity: Sensitivity) -> Result<ShiftedNoise, Error> {
    let spec =
        NoiseSpec { sensitivity, ..NoiseSpec::publisher(privacy.mechanism, NoiseCalibration::Exact, privacy.params) };
    Ok(spec.calibrate()?)
}

/// The number with noise of mean 0.
fn noised(number: u64, noise: Option<&ShiftedNoise>, rng: &mut impl CryptoRng) -> f64 {
    let drawn = noise.map_or(0, |noise| noise.sample(rng).cast_signed() - noise.shift().cast_signed());
    // Both are below 2^53 but for sums that no audience has.
    number as f64 + drawn as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    fn rng(seed: u64) -> ChaCha20Rng {
        ChaCha20Rng::seed_from_u64(seed)
    }

    fn limit(value: u32) -> MaximumFrequency {
        MaximumFrequency::new(value).unwrap()
    }

    fn audience(seen: &[(u64, u64, u64)]) -> Audience {
        let mut audience = Audience::new(VidSamplingInterval::FULL);
        seen.iter().for_each(|(vid, impressions, seconds)| audience.add(*vid, *impressions, *seconds));
        audience
    }

    fn measured(audience: &Audience, ask: &Ask) -> Found {
        audience.measure(ask, &mut rng(1)).unwrap()
    }

    #[test]
    fn limits_hold_for_each_person() {
        let audience = audience(&[(1, 3, 100), (1, 4, 900), (2, 1, 5), (3, 0, 7)]);
        let impressions = |most| Ask::Impression { privacy: None, maximum_per_person: most };
        assert_eq!(measured(&audience, &impressions(255)).value.value, 8.0);
        assert_eq!(measured(&audience, &impressions(5)).value.value, 6.0);
        let seconds = |most| Ask::Duration { privacy: None, maximum_seconds_per_person: most };
        assert_eq!(measured(&audience, &seconds(10_000)).value.value, 1012.0);
        assert_eq!(measured(&audience, &seconds(600)).value.value, 612.0);
        assert_eq!(measured(&audience, &Ask::Reach { privacy: None }).value.value, 2.0);
        let found =
            measured(&audience, &Ask::ReachAndFrequency { reach: None, frequency: None, maximum_frequency: limit(3) });
        assert_eq!(found.frequencies.unwrap().shares, [0.5, 0.0, 0.5]);
        assert_eq!(population(9, None, &mut rng(1)).unwrap().value, 9.0);
    }

    #[test]
    fn nobody_reached_is_no_data() {
        let nobody = audience(&[]);
        let ask = Ask::ReachAndFrequency { reach: None, frequency: None, maximum_frequency: limit(3) };
        let found = measured(&nobody, &ask);
        assert_eq!((found.value.value, found.value.standard_error), (0.0, 0.0));
        assert!(found.frequencies.is_none());
    }

    fn privacy(mechanism: NoiseMechanism) -> Option<Privacy> {
        Some(Privacy { mechanism, params: PrivacyParams::new(1.0, 1e-6).unwrap() })
    }

    /// Mean and deviation over 400 seeds: five standard errors of each.
    #[test]
    fn noise_has_mean_zero_and_the_deviation_that_is_told() {
        let audience = audience(&(0..5_000).map(|vid| (vid, 1 + vid % 4, 10 * (vid % 3))).collect::<Vec<_>>());
        for mechanism in [NoiseMechanism::DiscreteGaussian, NoiseMechanism::Geometric] {
            let privacy = privacy(mechanism);
            for (ask, truth) in [
                (Ask::Reach { privacy }, 5_000.0),
                (Ask::Impression { privacy, maximum_per_person: 3 }, 11_250.0),
                (Ask::Duration { privacy, maximum_seconds_per_person: 15 }, 41_660.0),
            ] {
                let found: Vec<Value> =
                    (0..400).map(|seed| audience.measure(&ask, &mut rng(seed)).unwrap().value).collect();
                let deviation = found[0].noise_standard_deviation;
                let mean = found.iter().map(|value| value.value).sum::<f64>() / 400.0;
                let variance = found.iter().map(|value| (value.value - mean).powi(2)).sum::<f64>() / 399.0;
                assert!((mean - truth).abs() < 5.0 * deviation / 20.0, "{ask:?}: {mean}");
                assert!((variance.sqrt() / deviation - 1.0).abs() < 5.0 / 800_f64.sqrt() * 1.6, "{ask:?}: {variance}");
                assert!((found[0].standard_error - deviation).abs() < 1e-9);
            }
        }
    }

    /// One person can change the number of seconds by all that is allowed: so much larger is the noise.
    #[test]
    fn noise_grows_with_what_one_person_may_add() {
        let audience = audience(&[(1, 1, 100)]);
        let privacy = privacy(NoiseMechanism::DiscreteGaussian);
        let deviation = |most| {
            let ask = Ask::Duration { privacy, maximum_seconds_per_person: most };
            measured(&audience, &ask).value.noise_standard_deviation
        };
        assert!((deviation(600) / deviation(1) / 600.0 - 1.0).abs() < 0.01);
    }

    #[test]
    fn what_cannot_be_met_is_refused() {
        let audience = audience(&[(1, 1, 1)]);
        let privacy = |epsilon, delta| {
            let params = PrivacyParams::new(epsilon, delta).unwrap();
            Some(Privacy { mechanism: NoiseMechanism::DiscreteGaussian, params })
        };
        for ask in [
            Ask::Reach { privacy: privacy(1.0, 0.0) },
            Ask::Reach { privacy: privacy(1e-9, 1e-6) },
            Ask::Duration { privacy: privacy(1.0, 1e-6), maximum_seconds_per_person: 0 },
        ] {
            assert!(audience.measure(&ask, &mut rng(1)).is_err(), "{ask:?}");
        }
    }

    #[test]
    fn a_sample_stands_for_everybody() {
        let everybody: Vec<(u64, u64, u64)> = (0..40_000).map(|vid| (vid, 1 + vid % 2, 0)).collect();
        let mut sampled = Audience::new(VidSamplingInterval::new(0.2, 0.25).unwrap());
        everybody.iter().for_each(|(vid, impressions, _)| sampled.add(*vid, *impressions, 0));
        let ask = Ask::ReachAndFrequency { reach: None, frequency: None, maximum_frequency: limit(2) };
        let found = measured(&sampled, &ask);
        // √(40,000·0.75/0.25) = 346.
        assert!((found.value.standard_error - 346.4).abs() < 5.0, "{:?}", found.value);
        assert!((found.value.value - 40_000.0).abs() < 5.0 * found.value.standard_error);
        let frequencies = found.frequencies.unwrap();
        assert!((frequencies.shares[0] - 0.5).abs() < 5.0 * frequencies.standard_errors[0]);
        assert!(frequencies.standard_errors[0] > 0.0);
    }

    proptest! {
        #[test]
        fn without_noise_it_is_a_plain_count(
            seen in prop::collection::vec((0u64..50, 0u64..5, 0u64..100), 0..200), most in 1u32..8,
        ) {
            let audience = audience(&seen);
            let mut plain = std::collections::BTreeMap::<u64, (u64, u64)>::new();
            for (vid, impressions, seconds) in &seen {
                let one = plain.entry(*vid).or_default();
                one.0 += impressions;
                one.1 += seconds;
            }
            let reached: Vec<u64> = plain.values().map(|one| one.0).filter(|impressions| *impressions > 0).collect();
            let found = measured(
                &audience,
                &Ask::ReachAndFrequency { reach: None, frequency: None, maximum_frequency: limit(most) },
            );
            prop_assert_eq!(found.value.value, reached.len() as f64);
            if let Some(frequencies) = found.frequencies {
                for (class, share) in (1..).zip(frequencies.shares) {
                    let count = reached.iter().filter(|times| (**times).min(u64::from(most)) == class).count();
                    prop_assert!((share - count as f64 / reached.len() as f64).abs() < 1e-12);
                }
            }
            let ask = Ask::Duration { privacy: None, maximum_seconds_per_person: most };
            let expected: u64 = plain.values().map(|one| one.1.min(u64::from(most))).sum();
            prop_assert_eq!(measured(&audience, &ask).value.value, expected as f64);
        }
    }
}
