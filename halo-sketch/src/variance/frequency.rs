//! Frequencies: shares of the people reached, and numbers of people.

use super::{Methodology, ReachMeasurement, SketchShape, check_amount, reach, reach::Population, registers};
use crate::Error;

/// Half the width of a 95 % confidence interval in standard errors, as the reference rounds it.
const Z95: f64 = 1.96;

/// Variance of a share of which nothing is known: uniform on [0, 1].
const UNKNOWN_SHARE: f64 = 1.0 / 12.0;

/// A measured frequency distribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrequencyMeasurement<'a> {
    /// The reach that belongs to it.
    pub reach: ReachMeasurement,
    /// Share of those reached 1, 2, …, F − 1 times, and F times or more, each from 0 to 1; they sum to 1 at most.
    pub shares: &'a [f64],
    /// Variance of the noise in each count of the histogram.
    pub noise_variance: f64,
}

/// Variances of a frequency distribution; every list has one entry for each frequency from 1 to F.
#[derive(Clone, Debug, PartialEq)]
pub struct FrequencyVariances {
    /// Of the share of people with this frequency (the last: or more).
    pub relative: Vec<f64>,
    /// Of the share of people with this frequency or more. The first is 0: everybody reached has it.
    pub relative_k_plus: Vec<f64>,
    /// Of the number of people with this frequency.
    pub count: Vec<f64>,
    /// Of the number of people with this frequency or more. The first is reach itself, but for the approximations.
    pub count_k_plus: Vec<f64>,
}

/// One share, with what its variance depends on.
#[derive(Clone, Copy)]
struct Share {
    value: f64,
    /// Histogram entries that were added up for it.
    entries: f64,
    /// Whether it was found as what the others leave over of reach.
    remainder: bool,
}

/// Variances of a measured frequency distribution.
///
/// With ρ a share, V the noise of one entry and k of the F entries added up for it (1 for a frequency, F − k + 1 for "k or
/// more"), the shares of
/// - deterministic counts have ρ(1 − ρ)(1 − w)/(R·w) + V/(R·w)²·((1 − 2ρ)·k + ρ²·F);
/// - sketches, with X registers whose frequency can be used, ρ(1 − ρ)/R·(X·(R − X) − Var\[X\])/X² +
///   V/X²·((1 − 2ρ)·k + ρ²·F), which is the reference's expression with its terms in Var\[X\] cancelled;
/// - frequency vectors, whose entry F is what the others leave over of reach, the first-order variance of the ratio.
///
/// Numbers of people are products of share and reach, taken as independent, Var\[ρ\]·Var\[R\] + Var\[ρ\]·R² + Var\[R\]·ρ²;
/// those of frequency vectors are counted.
///
/// Where reach does not differ from 0 by 1.96 standard errors, or less than one register can be used, nothing is known of
/// a share: its variance is 1/12. (Protocols 5.5, science 1.6.)
///
/// # Errors
/// [`Error::OutOfRange`] names the number that does not fit; [`Error::Saturated`] as [`reach`](super::reach()).
pub fn frequency(measurement: &FrequencyMeasurement<'_>) -> Result<FrequencyVariances, Error> {
    let FrequencyMeasurement { reach: measured, shares, noise_variance } = *measurement;
    let reach_variance = reach(&measured)?;
    check_amount("noise variance", noise_variance)?;
    let total: f64 = shares.iter().sum();
    if shares.is_empty() || shares.iter().any(|share| !(0.0..=1.0).contains(share)) || total > 1.0 + 1e-6 {
        return Err(Error::out_of_range(
            "frequency shares",
            total,
            "one or more, each from 0 to 1, that sum to at most 1",
        ));
    }
    let people = measured.reach;
    let spread = Spread {
        people,
        reach_variance,
        entries: shares.len() as f64,
        noise: noise_variance,
        known: people - Z95 * reach_variance.sqrt() > 0.0,
    };
    let width = measured.interval.width;
    let model = match measured.methodology {
        Methodology::Deterministic => Model::Counted { sampled: people * width, unseen: 1.0 - width },
        Methodology::Sketch(shape) => Model::usable(all_registers(shape, people * width)?, people),
        Methodology::LiquidLegionsV2(shape) => Model::usable(single_registers(shape, people * width, width), people),
        Methodology::FrequencyVector { size } => {
            Model::Vector { population: Population::new(size, width)?, reach_noise: measured.noise_variance, width }
        }
    };
    let frequencies = shares.len();
    let single = |k: usize| Share { value: shares[k], entries: 1.0, remainder: k + 1 == frequencies };
    let k_plus = |k: usize| Share {
        value: shares[k..].iter().sum::<f64>().min(1.0),
        entries: (frequencies - k) as f64,
        remainder: true,
    };
    let (relative, count) = (0..frequencies).map(|k| spread.variances(model, single(k))).unzip();
    let (relative_k_plus, count_k_plus) = (0..frequencies).map(|k| spread.variances(model, k_plus(k))).unzip();
    let result = FrequencyVariances { relative, relative_k_plus, count, count_k_plus };
    let lists = [&result.relative, &result.relative_k_plus, &result.count, &result.count_k_plus];
    if lists.into_iter().flatten().all(|variance| variance.is_finite()) {
        Ok(result)
    } else {
        Err(Error::out_of_range("noise variance", noise_variance, "small enough that variances are numbers"))
    }
}

/// Where the histogram comes from.
#[derive(Clone, Copy)]
enum Model {
    /// All sampled people; a share of 1 − w was not seen.
    Counted { sampled: f64, unseen: f64 },
    /// A sample of registers: their expected number, and ρ(1 − ρ) times this is the variance of a share without noise.
    Registers { usable: f64, sampling: f64 },
    /// Cells of a vector.
    Vector { population: Population, reach_noise: f64, width: f64 },
}

impl Model {
    /// Of R people X registers are a sample without replacement: E\[Var\[X_k | X\]\] = ρ(1 − ρ)·E\[X·(R − X)\]/R.
    fn usable((usable, variance): (f64, f64), people: f64) -> Self {
        let sampling = (usable * (people - usable) - variance) / people / (usable * usable);
        Self::Registers { usable, sampling: sampling.max(0.0) }
    }
}

/// What all shares of a measurement have in common.
struct Spread {
    people: f64,
    reach_variance: f64,
    entries: f64,
    noise: f64,
    known: bool,
}

impl Spread {
    /// Variance of a share and of the number of people.
    fn variances(&self, model: Model, share: Share) -> (f64, f64) {
        let Share { value: rho, entries, remainder } = share;
        let everybody = entries == self.entries;
        // The noise of a ratio of `entries` counts to all F of them, in units of one count's variance.
        let noised = ((1.0 - 2.0 * rho) * entries + rho * rho * self.entries).max(0.0) * self.noise;
        let (known, relative) = match model {
            Model::Counted { sampled, unseen } => {
                (sampled > 0.0, rho * (1.0 - rho) * unseen / sampled + noised / sampled / sampled)
            }
            Model::Registers { usable, sampling } => {
                (usable >= 1.0, rho * (1.0 - rho) * sampling + noised / usable / usable)
            }
            Model::Vector { population, reach_noise, width } => {
                let part = rho * self.people;
                // What is left over of reach carries its noise and that of the entries before it.
                let noise = if remainder { reach_noise + (self.entries - entries) * self.noise } else { self.noise };
                let count = (population.sampling(part, part) + noise) / width / width;
                let shared = if remainder { reach_noise } else { 0.0 };
                let covariance = (population.sampling(self.people, part) + shared) / width / width;
                let ratio = rho * rho * self.reach_variance + count - 2.0 * rho * covariance;
                return (self.share(everybody, true, ratio / self.people / self.people), count);
            }
        };
        let relative = self.share(everybody, known, relative);
        let count =
            relative * self.reach_variance + relative * self.people * self.people + self.reach_variance * rho * rho;
        (relative, count)
    }

    /// The variance of a share, or that of ignorance.
    fn share(&self, everybody: bool, known: bool, variance: f64) -> f64 {
        if everybody {
            0.0
        } else if self.known && known {
            variance.max(0.0)
        } else {
            UNKNOWN_SHARE
        }
    }
}

/// Expectation and variance of the number of active registers: all are usable where the people behind them are known.
fn all_registers(shape: SketchShape, sampled: f64) -> Result<(f64, f64), Error> {
    let variance = registers::active_covariance(shape, sampled, sampled, sampled)?;
    Ok((shape.size as f64 - registers::expected_empty(shape, sampled)?, variance.max(0.0)))
}

/// Expectation and variance of the number of registers with exactly one person, of a sketch that a share `width` of the
/// people was sampled into (protocols 5.5, which takes it to be 0 for less than two people and certain for less than three).
fn single_registers(shape: SketchShape, sampled: f64, width: f64) -> (f64, f64) {
    let y = sampled;
    if y < 2.0 {
        return (0.0, 0.0);
    }
    let single = y * shape.moment(1, y - 1.0);
    if y < 3.0 {
        return (single, 0.0);
    }
    let pairs = y * (y - 1.0) * (shape.moment(1, y - 2.0).powi(2) - shape.moment(2, 2.0 * y - 4.0));
    let collided = y * y * y * shape.moment(2, y - 2.0).powi(2);
    let sampling = y * (1.0 - width) * (shape.moment(1, y - 1.0) - y * shape.moment(2, y - 1.0)).powi(2);
    let variance = single + pairs - collided - single * single + sampling;
    (single, variance.max(0.0))
}
