//! From counted registers to people: closed forms of Liquid Legions, their inverse, and standard errors.
//!
//! With a the decay rate, m the number of registers and n people, let w₀ = a·n/(m·(1 − e^−a)) and w₁ = w₀·e^−a, which
//! are n times the probabilities of the first and the last register. In the entire function
//! Ein(z) = ∫₀^z (1 − e^−w)/w dw:
//!
//! - expected active registers: E\[A\] = (m/a)·(Ein(w₀) − Ein(w₁)), with slope g = dE\[A\]/dn = (m/(a·n))·(e^−w₁ − e^−w₀);
//! - their variance: (m/a)·(Ein(2w₀) − Ein(w₀) − Ein(2w₁) + Ein(w₁)) − n·g²;
//! - expected registers with exactly one person: n·g.
//!
//! They replace sums over registers (continuum limit); the difference is below 0.2 registers from 10,000 people on.
//!
//! ```
//! use halo_sketch::{estimate, liquid_legions::Params};
//!
//! let params = Params::new(12.0, 100_000, 10_000_000)?;
//! let reach = estimate::reach(&params, 40_254.0, 1.0, 0.0)?;
//! assert_eq!(reach.value.round(), 586_372.0);
//! let (low, high) = reach.interval95();
//! assert!(low < 585_389.0 && 585_389.0 < high);
//! # Ok::<(), halo_sketch::Error>(())
//! ```
//!
//! Results of every other [methodology](crate::variance::Methodology) are made here too: [`scalar`] and
//! [`vector_reach`] from counts, [`distribution`] for frequencies and reach at k or more impressions. Whatever is put in,
//! nothing that comes out is NaN, and no error is below 0; errors are finite but for [`frequency`] with unknown noise.

mod measured;
mod special;

use crate::{Error, accounting, liquid_legions::Params, variance::SketchShape};
pub use measured::{FrequencyDistribution, distribution, scalar, vector_reach};
use special::ein;

/// Half the width of a 95 % confidence interval in standard errors.
const Z95: f64 = 1.959_963_984_540_054;

/// More people than any sketch tells from fewer.
const MOST_PEOPLE: f64 = 1e300;

/// A number with its standard error, both in the same unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The estimate; not rounded.
    pub value: f64,
    /// Its standard error, at least 0.
    pub standard_error: f64,
}

impl Estimate {
    /// The 95 % confidence interval, not below 0.
    #[must_use]
    pub fn interval95(&self) -> (f64, f64) {
        self.within(Z95)
    }

    /// The central confidence interval of another level, such as 0.8, by the normal law; not below 0.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when `level` is not above 0 and below 1.
    pub fn interval(&self, level: f64) -> Result<(f64, f64), Error> {
        if level > 0.0 && level < 1.0 {
            Ok(self.within(accounting::normal_quantile(level)))
        } else {
            Err(Error::out_of_range("confidence level", level, "above 0 and below 1"))
        }
    }

    fn within(&self, errors: f64) -> (f64, f64) {
        let half = errors * self.standard_error;
        ((self.value - half).max(0.0), self.value + half)
    }
}

/// Shares of people by frequency.
#[derive(Clone, Debug, PartialEq)]
pub struct FrequencyEstimate {
    /// Share of those reached 1, 2, …, F − 1 times, and F times or more. None is below 0; they sum to 1.
    pub shares: Vec<f64>,
    /// Standard error of each share.
    pub standard_errors: Vec<f64>,
}

/// The two ends of a sketch for n people.
#[derive(Clone, Copy)]
struct Ends {
    /// m/a.
    scale: f64,
    people: f64,
    first: f64,
    last: f64,
}

impl Ends {
    /// What is no number of people is taken for the nearest that is.
    fn new(params: &Params, people: f64) -> Self {
        let people = if people > 0.0 { people.min(MOST_PEOPLE) } else { 0.0 };
        let (a, m) = (params.decay_rate(), params.size() as f64);
        let first = a * people / m / -(-a).exp_m1();
        Self { scale: m / a, people, first, last: first * (-a).exp() }
    }

    fn active(&self) -> f64 {
        self.scale * (ein(self.first) - ein(self.last))
    }

    /// n·g.
    fn single(&self) -> f64 {
        // e^−w₁ − e^−w₀ without cancellation for small n.
        self.scale * (-self.last).exp() * -(self.last - self.first).exp_m1()
    }

    fn variance(&self) -> f64 {
        let slope = self.slope();
        let spread = ein(2.0 * self.first) - ein(self.first) - ein(2.0 * self.last) + ein(self.last);
        (self.scale * spread - self.people * slope * slope).max(0.0)
    }

    fn slope(&self) -> f64 {
        if self.people == 0.0 { 1.0 } else { self.single() / self.people }
    }
}

/// Expected number of active registers for `people` distinct people, at least 0.
#[must_use]
pub fn expected_active(params: &Params, people: f64) -> f64 {
    Ends::new(params, people).active()
}

/// Variance of the number of active registers for `people` distinct people.
#[must_use]
pub fn active_variance(params: &Params, people: f64) -> f64 {
    Ends::new(params, people).variance()
}

/// Expected number of registers with exactly one of `people` distinct people: those whose frequency can be used.
#[must_use]
pub fn expected_usable(params: &Params, people: f64) -> f64 {
    Ends::new(params, people).single()
}

/// Inverts [`expected_active`]: how many people make so many registers active. 0 for 0 or less.
///
/// # Errors
/// [`Error::Saturated`] when all registers are active; [`Error::OutOfRange`] when `active` is not a number.
pub fn people(params: &Params, active: f64) -> Result<f64, Error> {
    if active.is_nan() {
        return Err(Error::out_of_range("active registers", active, "a number"));
    }
    let (a, m) = (params.decay_rate(), params.size() as f64);
    if active <= 0.0 {
        return Ok(0.0);
    }
    let saturated = || Error::Saturated {
        active,
        size: params.size(),
        decay_rate: a,
        capacity: 0.5 * SketchShape::from(params).saturation(),
    };
    if active >= m {
        return Err(saturated());
    }
    // Newton in ln n, kept inside a bracket: f(ln n) = E[A] − active grows with slope n·g.
    let mut low = active.ln();
    let mut high = low + 1.0;
    while expected_active(params, high.exp()) < active {
        low = high;
        high += 1.0;
        if high > 700.0 {
            return Err(saturated());
        }
    }
    const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;
    let mut x = (active.max(m / a * (a * active / m - EULER_GAMMA).exp())).ln().clamp(low, high);
    for _ in 0..100 {
        let ends = Ends::new(params, x.exp());
        let excess = ends.active() - active;
        if excess > 0.0 {
            high = x
        } else {
            low = x
        }
        let step = excess / ends.single();
        let mut next = x - step;
        if !(low..=high).contains(&next) {
            next = 0.5 * (low + high);
        }
        if (next - x).abs() <= 1e-15 * x.abs().max(1.0) {
            x = next;
            break;
        }
        x = next;
    }
    Ok(x.exp())
}

/// Reach from active registers.
///
/// `active` registers may be noised; what is below 0 counts as 0. `sampling_width` is the share of people that the
/// sketch sampled, above 0 and at most 1; `noise` the standard deviation of the noise in `active`.
/// Var = (V_A(y) + σ²)/(s·g(y))² + n·(1/s − 1) with y = s·n sampled people.
///
/// # Errors
/// [`Error::Saturated`] when all registers are active; [`Error::OutOfRange`] for a width or a noise that cannot be.
pub fn reach(params: &Params, active: f64, sampling_width: f64, noise: f64) -> Result<Estimate, Error> {
    if !(sampling_width > 0.0 && sampling_width <= 1.0) {
        return Err(Error::out_of_range("sampling width", sampling_width, "above 0 and at most 1"));
    }
    if !(0.0..=1e100).contains(&noise) {
        return Err(Error::out_of_range("deviation of the noise", noise, "from 0 to 10^100"));
    }
    let sampled = people(params, active)?;
    let ends = Ends::new(params, sampled);
    let value = sampled / sampling_width;
    let slope = sampling_width * ends.slope();
    let counting = (ends.variance() + noise * noise) / slope / slope;
    let variance = counting + value * (1.0 / sampling_width - 1.0);
    if value.is_finite() && variance.is_finite() {
        Ok(Estimate { value, standard_error: variance.sqrt() })
    } else {
        Err(Error::out_of_range("sampling width", sampling_width, "wide enough that the standard error is a number"))
    }
}

/// Shares by frequency from usable registers.
///
/// `histogram` counts usable registers by frequency, the last entry those of F or more; it may be noised and below 0.
/// `noise` is the standard deviation of the noise in each entry, `reach` the estimated people, sampled or not. The
/// histogram is projected onto what can be (no entry below 0, the same total). Where entries are 0 in truth, that leaves them
/// less than half of what they would keep of the noise if negative entries were set to 0 (science 1.6).
/// Var\[r\] = r(1 − r)/U·(1 − U/n) + σ²/U²·(1 − 2r + F·r²), with U the total and n the reach: the U are a sample of all
/// who were reached (protocols 5.5; science 1.6 has s·n, which holds for the frequencies among the sampled people only).
/// A reach that is unknown (no number) leaves the correction for U/n out; a noise that is unknown makes the errors infinite.
///
/// `None` when the total is not above 0: there is no data.
#[must_use]
pub fn frequency(histogram: &[f64], noise: f64, reach: f64) -> Option<FrequencyEstimate> {
    let total = total(histogram)?;
    let shares: Vec<f64> = project(histogram, total).into_iter().map(|count| count / total).collect();
    let unseen = 1.0 - total / reach;
    let finite = if unseen.is_nan() { 1.0 } else { unseen.clamp(0.0, 1.0) };
    let noise = if noise.is_nan() { f64::INFINITY } else { noise };
    let bins = histogram.len() as f64;
    let standard_errors = shares
        .iter()
        .map(|share| {
            let sampling = share * (1.0 - share) / total * finite;
            let spread = 1.0 - 2.0 * share + bins * share * share;
            let noised = if spread > 0.0 { (noise / total).powi(2) * spread } else { 0.0 };
            (sampling.max(0.0) + noised).sqrt()
        })
        .collect();
    Some(FrequencyEstimate { shares, standard_errors })
}

/// The sum of a histogram; `None` when it is not above 0.
fn total(histogram: &[f64]) -> Option<f64> {
    Some(histogram.iter().sum()).filter(|total: &f64| total.is_finite() && *total > 0.0)
}

/// The nearest point of {x ≥ 0, Σ x = total}: subtract what is left over from the entries that stay positive. It counts
/// from the largest entry down, so that large entries of both signs do not swallow a small total.
fn project(values: &[f64], total: f64) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|one, other| other.total_cmp(one));
    let largest = sorted.first().copied().unwrap_or(0.0);
    let mut sum = 0.0;
    let mut excess = -total;
    for (position, value) in sorted.iter().enumerate() {
        let below = value - largest;
        sum += below;
        let entries = (position + 1) as f64;
        let candidate = sum / entries - total / entries;
        if below <= candidate {
            break;
        }
        excess = candidate;
    }
    values.iter().map(|value| (value - largest - excess).max(0.0)).collect()
}
