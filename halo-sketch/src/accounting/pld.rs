//! Privacy loss distributions, composed by fast Fourier transforms.
//!
//! The privacy loss of an outcome y is l(y) = ln(P\[y\]/Q\[y\]) for the laws P and Q of a result on two neighbouring data
//! sets. Its distribution under P says everything about the pair, δ(ε) = E\[max(0, 1 − e^(ε − l))\], and the loss of two
//! independent releases is the sum of their losses.
//!
//! ```
//! use halo_core::privacy::{Delta, Epsilon};
//! use halo_sketch::accounting::pld::PrivacyLoss;
//!
//! // A count with two-sided geometric noise of ε = 0.1, a hundred times.
//! let once = PrivacyLoss::discrete_laplace(Epsilon::new(0.1)?, 1, 1e-4)?;
//! let hundred = once.repeated(100)?;
//! assert!(hundred.epsilon(Delta::new(1e-6)?) < 4.78); // against 10 by adding ε
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantee
//! Losses are put on a grid so that δ only grows, at every ε: an interval's mass is split over its two ends such that its
//! probability is kept under both P and Q, which replaces δ as a function of e^ε by its chords (Doroshenko, Ghazi,
//! Kamath, Kumar and Manurangsi, 2022, "connect the dots"); what lies above the grid counts as lost (δ), what lies below
//! it is moved up. Composition keeps that order. The distribution of the pair (P, Q) covers one direction; the
//! mechanisms made here lose the same in both. Rounding of double precision is not covered: it adds an absolute error
//! that stays below 10^-11 in δ.

use halo_core::privacy::{Delta, Epsilon};
use rustfft::{FftPlanner, num_complex::Complex};

use super::{Gdp, bracket, gaussian::erfc};
use crate::Error;

/// Standard deviations beyond which a normal tail is below 10^-21.
const REACH: f64 = 9.6;

/// Cells of a distribution that are accepted, so that memory stays below 200 MB and a composition takes a second.
const MAX_CELLS: f64 = 4_194_304.0;

/// The distribution of the privacy loss of one mechanism, or of several together, on a grid of losses.
#[derive(Clone, Debug, PartialEq)]
pub struct PrivacyLoss {
    /// Distance of two losses on the grid.
    interval: f64,
    /// The first loss, in intervals.
    lowest: i64,
    /// Probability of each loss from the lowest upwards.
    masses: Vec<f64>,
    /// Probability of an outcome that only one of the data sets can have.
    infinite: f64,
}

impl PrivacyLoss {
    /// Continuous Gaussian noise. `interval` is the width of the grid, in units of ε; 10^-4 is a good one.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when `interval` is not from 10^-9 to 1, or too narrow for so wide a distribution.
    pub fn gaussian(cost: Gdp, interval: f64) -> Result<Self, Error> {
        let mu = cost.mu();
        let mean = 0.5 * mu * mu;
        let mut grid = Grid::new(interval, mean - REACH * mu, mean + REACH * mu)?;
        if mu == 0.0 {
            grid.add(0.0, 1.0);
            return Ok(grid.finish());
        }
        // Under P losses are normal with mean μ²/2, under Q with mean −μ²/2; the standard deviation is μ in both.
        let between = |low: f64, high: f64, mean: f64| normal_between((low - mean) / mu, (high - mean) / mu);
        let edge = |cell: usize| (grid.lowest + cell as i64) as f64 * interval;
        let growth = interval.exp_m1();
        let last = grid.masses.len() - 1;
        for cell in 0..last {
            let (low, high) = (edge(cell), edge(cell + 1));
            let (mass, other) = (between(low, high, mean), between(low, high, -mean));
            let down = ((other * high.exp() - mass) / growth).clamp(0.0, mass);
            grid.masses[cell] += if down.is_finite() { down } else { 0.0 };
            grid.masses[cell + 1] += if down.is_finite() { mass - down } else { mass };
        }
        grid.masses[0] += between(f64::NEG_INFINITY, edge(0), mean);
        grid.infinite = between(edge(last), f64::INFINITY, mean);
        Ok(grid.finish())
    }

    /// Discrete Gaussian noise of variance parameter `variance` on one integer that moves by `change`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when `variance` is not above 0, `change` is 0, or as [`PrivacyLoss::gaussian`].
    pub fn discrete_gaussian(variance: f64, change: u32, interval: f64) -> Result<Self, Error> {
        if !(variance > 0.0 && variance <= 1e12) {
            return Err(Error::out_of_range("noise variance", variance, "above 0 and at most 10^12"));
        }
        let change = f64::from(Self::check_change(change)?);
        let reach = (REACH * variance.sqrt()).ceil() + 1.0;
        let loss = |y: f64| (2.0 * y + change) * change / (2.0 * variance);
        let mut grid = Grid::new(interval, loss(-reach), loss(reach))?;
        let weight = |y: f64| (-y * y / (2.0 * variance)).exp();
        let integers = || (-(reach as i64)..=reach as i64).map(|y| y as f64);
        let total: f64 = integers().map(weight).sum();
        for y in integers() {
            grid.add(loss(y), weight(y) / total);
        }
        Ok(grid.finish())
    }

    /// Two-sided geometric noise of ratio e^(−`rate`) on one integer that moves by `change`.
    ///
    /// # Errors
    /// As [`PrivacyLoss::discrete_gaussian`].
    pub fn discrete_laplace(rate: Epsilon, change: u32, interval: f64) -> Result<Self, Error> {
        let change = Self::check_change(change)?;
        let rate = rate.get();
        let most = rate * f64::from(change);
        let mut grid = Grid::new(interval, -most, most)?;
        // P[y ≥ 0], and P[y] = (1 − e^−rate)/(1 + e^−rate)·e^(−rate·|y|).
        let upper = 1.0 / (1.0 + (-rate).exp());
        grid.add(most, upper);
        for y in 1..change {
            let y = f64::from(y);
            grid.add(most - 2.0 * rate * y, -(-rate).exp_m1() * upper * (-rate * y).exp());
        }
        grid.add(-most, upper * (-most).exp());
        Ok(grid.finish())
    }

    /// Any mechanism with finitely many outcomes: their probabilities on one data set (`one`) and on its neighbour
    /// (`other`). It covers this direction; a mechanism that loses differently in the other needs both, and the larger δ.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when the lists differ in length, hold something else than probabilities that sum to 1 (up to
    /// 10^-9; what is missing in `one` counts as lost), or as [`PrivacyLoss::gaussian`].
    pub fn of_outcomes(one: &[f64], other: &[f64], interval: f64) -> Result<Self, Error> {
        if one.len() != other.len() {
            return Err(Error::out_of_range("probabilities", other.len(), "as many on both sides"));
        }
        for side in [one, other] {
            let sum: f64 = side.iter().sum();
            if side.iter().any(|p| !(0.0..=1.0).contains(p)) || (sum - 1.0).abs() > 1e-9 {
                return Err(Error::out_of_range("probabilities", sum, "numbers from 0 to 1 that sum to 1"));
            }
        }
        let losses =
            || one.iter().zip(other).filter(|(p, q)| **p > 0.0 && **q > 0.0).map(|(p, q)| (p.ln() - q.ln(), *p));
        let (low, high) = losses().fold((0.0_f64, 0.0_f64), |(low, high), (l, _)| (low.min(l), high.max(l)));
        let mut grid = Grid::new(interval, low, high)?;
        for (loss, probability) in losses() {
            grid.add(loss, probability);
        }
        grid.infinite = (1.0 - losses().map(|(_, p)| p).sum::<f64>()).max(0.0);
        Ok(grid.finish())
    }

    /// The loss of both mechanisms together.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when the grids have different intervals, or the result would have too many cells.
    pub fn and(&self, other: &Self) -> Result<Self, Error> {
        if self.interval != other.interval {
            return Err(Error::out_of_range(
                "interval",
                other.interval,
                "the same for all distributions of a composition",
            ));
        }
        let cells = self.masses.len() + other.masses.len() - 1;
        check_cells(cells as f64, self.interval)?;
        let norm = |masses: &[f64]| masses.iter().map(|p| p * p).sum::<f64>().sqrt();
        let composed = Grid {
            interval: self.interval,
            lowest: self.lowest + other.lowest,
            masses: convolve(&self.masses, &other.masses),
            infinite: 1.0 - (1.0 - self.infinite) * (1.0 - other.infinite),
        };
        // Below this a mass is the rounding of the transforms rather than a probability.
        let floor = 4.0 * f64::EPSILON * norm(&self.masses) * norm(&other.masses);
        Ok(composed.trimmed(floor))
    }

    /// The loss of the same mechanism `count` times; nothing is lost by 0 times.
    ///
    /// # Errors
    /// As [`PrivacyLoss::and`].
    pub fn repeated(&self, count: u32) -> Result<Self, Error> {
        let mut result = Self { interval: self.interval, lowest: 0, masses: vec![1.0], infinite: 0.0 };
        for bit in (0..u32::BITS - count.leading_zeros()).rev() {
            result = result.and(&result)?;
            if count >> bit & 1 == 1 {
                result = result.and(self)?;
            }
        }
        Ok(result)
    }

    /// δ(ε), from 0 to 1.
    #[must_use]
    pub fn delta(&self, epsilon: Epsilon) -> f64 {
        self.delta_at(epsilon.get())
    }

    /// The smallest ε at which the mechanism is (ε, δ)-private; infinity when more than δ is lost at every ε.
    #[must_use]
    pub fn epsilon(&self, delta: Delta) -> f64 {
        let delta = delta.get();
        if self.infinite > delta {
            return f64::INFINITY;
        }
        if self.delta_at(0.0) <= delta {
            return 0.0;
        }
        bracket(1.0, |epsilon| self.delta_at(epsilon) <= delta).1
    }

    fn delta_at(&self, epsilon: f64) -> f64 {
        let above = ((epsilon / self.interval).floor() + 1.0 - self.lowest as f64).max(0.0);
        let losses = self.masses.iter().enumerate().skip(above as usize);
        let lost: f64 = losses
            .map(|(cell, mass)| {
                mass * -(epsilon - (self.lowest + cell as i64) as f64 * self.interval).min(0.0).exp_m1()
            })
            .sum();
        (self.infinite + lost).clamp(0.0, 1.0)
    }

    fn check_change(change: u32) -> Result<u32, Error> {
        if (1..=1_000_000).contains(&change) {
            Ok(change)
        } else {
            Err(Error::out_of_range("change", change, "from 1 to 1,000,000"))
        }
    }
}

/// A distribution while it is being filled.
struct Grid {
    interval: f64,
    lowest: i64,
    masses: Vec<f64>,
    infinite: f64,
}

impl Grid {
    /// An empty grid that covers losses from `low` to `high`.
    fn new(interval: f64, low: f64, high: f64) -> Result<Self, Error> {
        if !(1e-9..=1.0).contains(&interval) {
            return Err(Error::out_of_range("interval", interval, "from 10^-9 to 1"));
        }
        let (lowest, highest) = ((low / interval).floor() - 1.0, (high / interval).ceil() + 1.0);
        let cells = highest - lowest + 1.0;
        check_cells(cells, interval)?;
        Ok(Self { interval, lowest: lowest as i64, masses: vec![0.0; cells as usize], infinite: 0.0 })
    }

    /// Adds the probability of one loss: split over its two neighbours so that both laws keep their mass.
    fn add(&mut self, loss: f64, probability: f64) {
        let below = (loss / self.interval).floor();
        let gap = ((below + 1.0) * self.interval - loss).clamp(0.0, self.interval);
        let down = probability * gap.exp_m1() / self.interval.exp_m1();
        let cell = (below as i64 - self.lowest) as usize;
        self.masses[cell] += down;
        self.masses[cell + 1] += probability - down;
    }

    fn finish(self) -> PrivacyLoss {
        self.trimmed(0.0)
    }

    /// Cuts off cells at both ends that hold no more than `floor`: below they move up, above they count as lost.
    fn trimmed(mut self, floor: f64) -> PrivacyLoss {
        let kept = |mass: &f64| *mass > floor;
        let first = self.masses.iter().position(kept).unwrap_or(0);
        let last = self.masses.iter().rposition(kept).unwrap_or(self.masses.len() - 1);
        self.infinite += self.masses.drain(last + 1..).sum::<f64>();
        let below: f64 = self.masses.drain(..first).sum();
        self.masses[0] += below;
        PrivacyLoss {
            interval: self.interval,
            lowest: self.lowest + first as i64,
            masses: self.masses,
            infinite: self.infinite.min(1.0),
        }
    }
}

fn check_cells(cells: f64, interval: f64) -> Result<(), Error> {
    if cells <= MAX_CELLS {
        Ok(())
    } else {
        Err(Error::out_of_range("interval", interval, "wide enough that the losses fill at most 4,194,304 cells"))
    }
}

/// All sums of one loss of each list. Both are transformed at once as real and imaginary part: the imaginary part of
/// the square is twice their product.
fn convolve(one: &[f64], other: &[f64]) -> Vec<f64> {
    let cells = one.len() + other.len() - 1;
    let size = cells.next_power_of_two();
    let at = |masses: &[f64], cell: usize| masses.get(cell).copied().unwrap_or(0.0);
    let mut buffer: Vec<Complex<f64>> = (0..size).map(|cell| Complex::new(at(one, cell), at(other, cell))).collect();
    let mut planner = FftPlanner::new();
    planner.plan_fft_forward(size).process(&mut buffer);
    for value in &mut buffer {
        *value *= *value;
    }
    planner.plan_fft_inverse(size).process(&mut buffer);
    let scale = 0.5 / size as f64;
    buffer.iter().take(cells).map(|value| (value.im * scale).max(0.0)).collect()
}

/// P\[low < Z ≤ high\] for a standard normal Z, from the nearer tail.
fn normal_between(low: f64, high: f64) -> f64 {
    let upper = |x: f64| 0.5 * erfc(x / std::f64::consts::SQRT_2);
    let mass = if low > 0.0 { upper(low) - upper(high) } else { upper(-high) - upper(-low) };
    mass.max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_agree_with_the_sum_over_all_pairs() {
        let one: Vec<f64> = (0..37).map(|i| f64::from(i % 7) / 111.0).collect();
        let other: Vec<f64> = (0..20).map(|i| f64::from(i % 5) / 40.0).collect();
        let fast = convolve(&one, &other);
        assert_eq!(fast.len(), 56);
        for (cell, mass) in fast.iter().enumerate() {
            let slow: f64 =
                (0..one.len()).filter(|i| *i <= cell).map(|i| one[i] * other.get(cell - i).unwrap_or(&0.0)).sum();
            assert!((mass - slow).abs() < 1e-15, "{cell}: {mass} against {slow}");
        }
    }
}
