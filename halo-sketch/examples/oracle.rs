//! Answers questions about this crate's numbers, one line each, for comparison with other libraries (the Python tests in
//! `tests/python`). A question is a word and its arguments:
//!
//!     farmhash HEX                                         → fingerprint in hexadecimal
//!     gaussian SIGMA² DRAWS SEED                           → VALUE:COUNT ... of a discrete Gaussian
//!     laplace RATE DRAWS SEED                              → the same of a discrete Laplace
//!     polya RATE SHARES DRAWS SEED                         → the same of one Pólya share
//!     sigma EPSILON DELTA                                  → σ of continuous Gaussian noise
//!     calibrate MECHANISM EPSILON DELTA CELLS N HONEST     → μ and the deviation of the noise of all
//!     gdp MU EPSILON DELTA                                 → δ(ε) and ε(δ) of Gaussian differential privacy
//!     zcdp RHO EPSILON DELTA                               → the same of zero-concentrated differential privacy
//!     pld EPSILON DELTA [MECHANISM PARAMETER CHANGE COUNT]...  → the same of a composition of privacy loss distributions
//!
//! Mechanisms: `gaussian` (parameter σ) and `laplace` (parameter ε for one unit).

use std::{
    collections::BTreeMap,
    error::Error,
    io::{self, BufRead},
};

use halo_core::privacy::{Delta, Epsilon, PrivacyParams};
use halo_sketch::{
    accounting::{self, Gdp, Zcdp, pld::PrivacyLoss},
    fingerprint::farm_fingerprint64,
    noise::{
        NoiseCalibration, NoiseMechanism, NoiseSpec, Sensitivity,
        sampler::{Rational, discrete_gaussian_within, discrete_laplace_within, polya_within},
    },
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

/// Cut so far out that it does not matter.
const BOUND: u64 = 1_000_000;
/// Distance of two losses.
const INTERVAL: f64 = 1e-4;

type Answer = Result<String, Box<dyn Error>>;

fn main() -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lock().lines() {
        println!("{}", answer(&line?)?);
    }
    Ok(())
}

fn answer(line: &str) -> Answer {
    let words: Vec<&str> = line.split_whitespace().collect();
    let number = |at: usize| -> Result<f64, Box<dyn Error>> { Ok(words.get(at).ok_or("too few arguments")?.parse()?) };
    let integer = |at: usize| -> Result<u32, Box<dyn Error>> { Ok(words.get(at).ok_or("too few arguments")?.parse()?) };
    let both = |epsilon: usize, delta: usize| -> Result<_, Box<dyn Error>> {
        Ok((Epsilon::new(number(epsilon)?)?, Delta::new(number(delta)?)?))
    };
    match *words.first().ok_or("an empty line")? {
        "farmhash" => {
            let digits = words.get(1).copied().unwrap_or("");
            let bytes: Result<Vec<u8>, _> =
                (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16)).collect();
            Ok(format!("{:016x}", farm_fingerprint64(&bytes?)))
        }
        "gaussian" => {
            let sigma_squared = Rational::at_least(number(1)?);
            Ok(histogram(integer(2)?, integer(3)?, |rng| discrete_gaussian_within(sigma_squared, BOUND, rng)))
        }
        "laplace" => {
            let exponent = Rational::at_most(number(1)?);
            Ok(histogram(integer(2)?, integer(3)?, |rng| discrete_laplace_within(exponent, BOUND, rng)))
        }
        "polya" => {
            let (exponent, shares) = (Rational::at_most(number(1)?), integer(2)?);
            Ok(histogram(integer(3)?, integer(4)?, |rng| polya_within(exponent, shares, BOUND, rng) as i64))
        }
        "sigma" => {
            let params = PrivacyParams::new(number(1)?, number(2)?)?;
            Ok(format!("{:e}", accounting::gaussian_sigma(params, Sensitivity::scalar(1))))
        }
        "calibrate" => {
            let noise = NoiseSpec {
                mechanism: match words.get(1) {
                    Some(&"gaussian") => NoiseMechanism::DiscreteGaussian,
                    _ => NoiseMechanism::Geometric,
                },
                calibration: NoiseCalibration::Exact,
                params: PrivacyParams::new(number(2)?, number(3)?)?,
                sensitivity: if integer(4)? == 2 { Sensitivity::histogram() } else { Sensitivity::scalar(1) },
                contributors: integer(5)?,
                honest_contributors: integer(6)?,
            };
            let noise = noise.calibrate()?;
            Ok(format!("{} {:e}", noise.shift(), noise.total_standard_deviation()))
        }
        "gdp" => {
            let (cost, (epsilon, delta)) = (Gdp::new(number(1)?)?, both(2, 3)?);
            Ok(format!("{:e} {:e}", cost.delta(epsilon), cost.epsilon(delta)))
        }
        "zcdp" => {
            let (cost, (epsilon, delta)) = (Zcdp::new(number(1)?)?, both(2, 3)?);
            Ok(format!("{:e} {:e}", cost.delta(epsilon), cost.epsilon(delta)))
        }
        "pld" => {
            let (epsilon, delta) = both(1, 2)?;
            let mut total: Option<PrivacyLoss> = None;
            for at in (3..words.len()).step_by(4) {
                let (parameter, change, count) = (number(at + 1)?, integer(at + 2)?, integer(at + 3)?);
                let once = if words[at] == "gaussian" {
                    PrivacyLoss::discrete_gaussian(parameter * parameter, change, INTERVAL)?
                } else {
                    PrivacyLoss::discrete_laplace(Epsilon::new(parameter)?, change, INTERVAL)?
                };
                let several = once.repeated(count)?;
                total = Some(match total {
                    None => several,
                    Some(total) => total.and(&several)?,
                });
            }
            let total = total.ok_or("no mechanism")?;
            Ok(format!("{:e} {:e}", total.delta(epsilon), total.epsilon(delta)))
        }
        other => Err(format!("{other} is no question").into()),
    }
}

/// How often each value was drawn.
fn histogram(draws: u32, seed: u32, mut draw: impl FnMut(&mut ChaCha20Rng) -> i64) -> String {
    let mut rng = ChaCha20Rng::seed_from_u64(u64::from(seed));
    let mut counts = BTreeMap::new();
    (0..draws).for_each(|_| *counts.entry(draw(&mut rng)).or_insert(0_u32) += 1);
    let entries: Vec<String> = counts.iter().map(|(value, count)| format!("{value}:{count}")).collect();
    entries.join(" ")
}
