//! The checks. Every draw is a function of the salt, so a run repeats itself exactly.

use halo_core::privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval};
use halo_sketch::{
    estimate,
    frequency_vector::{FrequencyVector, VidIndexMap},
    liquid_legions::{ClearUnion, LiquidLegions, Params, clear_union},
    noise::{
        NoiseCalibration, NoiseMechanism, NoiseSpec, Sensitivity,
        sampler::{Rational, discrete_gaussian_within},
    },
    sampler::VidSampler,
    variance::{self, Interval, Methodology, ReachMeasurement},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use rayon::prelude::*;

use super::people::{Audience, Scenario, salted, splitmix64};

/// How much is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Repetitions of each scenario.
    pub(crate) salts: u64,
    /// Repetitions of S4, for the mean error.
    pub(crate) same: u64,
    /// Repetitions of noised reach, frequencies and frequency vectors.
    pub(crate) many: u64,
    /// Repetitions of S5, whose hundred million people take longest.
    pub(crate) largest: u64,
    /// Scenarios.
    pub(crate) scenarios: &'static [Scenario],
    /// Draws of the discrete Gaussian.
    pub(crate) draws: u32,
}

impl Effort {
    /// What the table of science 7.2 asks for; about four minutes of one core in a release build.
    pub(crate) const FULL: Self =
        Self { salts: 20, same: 100, many: 100, largest: 20, scenarios: &Scenario::ALL, draws: 1_000_000 };
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub(crate) name: String,
    /// What theory says.
    pub(crate) expected: String,
    pub(crate) found: String,
    pub(crate) fails_if: String,
    pub(crate) passed: bool,
}

type Group = fn(&Effort) -> Vec<Check>;

/// Runs the groups of checks whose name contains `only`, and reports each as soon as it is known.
pub(crate) fn run(effort: &Effort, only: &str, report: &mut impl FnMut(&Check)) {
    let suite: [(&str, Group); 10] = [
        ("truth", truth),
        ("reach", reach),
        ("noised reach", noised_reach),
        ("intervals", intervals),
        ("publishers", publishers),
        ("frequency", frequency),
        ("usable registers", usable),
        ("frequency vectors", vectors),
        ("discrete Gaussian", discrete_gaussian),
        ("noise totals", noise_totals),
    ];
    for (_, checks) in suite.iter().filter(|(name, _)| name.contains(only)) {
        checks(effort).iter().for_each(&mut *report);
    }
}

/// The sketch that covers a billion people at 1 %.
fn usual() -> Params {
    Params::new(12.0, 100_000, 10_000_000).expect("the parameters are in range")
}

fn generator(salt: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(salt)
}

/// Numbers of a series of runs.
struct Runs(Vec<f64>);

impl Runs {
    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// Sample standard deviation.
    fn deviation(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.0.iter().map(|value| (value - mean).powi(2)).sum();
        (squares / (self.0.len() - 1) as f64).sqrt()
    }

    /// The value that a share of the runs does not exceed in absolute terms; the largest for a share of 1.
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted: Vec<f64> = self.0.iter().map(|value| value.abs()).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[((share * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len()) - 1]
    }
}

fn percent(value: f64) -> String {
    format!("{:.3} %", 100.0 * value)
}

/// A check that fails above a limit.
fn at_most(name: String, expected: String, found: f64, limit: f64) -> Check {
    let fails_if = format!("> {}", percent(limit));
    Check { name, expected, found: percent(found), fails_if, passed: found <= limit }
}

/// The scenarios have the people that they should have.
fn truth(effort: &Effort) -> Vec<Check> {
    let check = |scenario: &Scenario| {
        let publishers = if matches!(scenario, Scenario::Sequential | Scenario::Same) { 20 } else { 10 };
        let none = || ([0_u64; 20], 0_u64);
        let (sizes, union) = scenario
            .universe()
            .into_par_iter()
            .fold(none, |(mut sizes, union), vid| {
                let by = scenario.reached_by(vid);
                sizes.iter_mut().enumerate().for_each(|(publisher, size)| *size += u64::from(by >> publisher & 1));
                (sizes, union + u64::from(by != 0))
            })
            .reduce(none, |(mut sizes, union), (more, others)| {
                sizes.iter_mut().zip(more).for_each(|(size, more)| *size += more);
                (sizes, union + others)
            });
        let known = scenario.sizes();
        let expected_sizes = (0..20).map(|at| if at < publishers { known[at % 10] } else { 0 });
        Check {
            name: format!("{} people of {publishers} publishers", scenario.name()),
            expected: scenario.union().to_string(),
            found: union.to_string(),
            fails_if: "any size differs".into(),
            passed: union == scenario.union() && sizes.into_iter().eq(expected_sizes),
        }
    };
    effort.scenarios.iter().map(check).collect()
}

/// Relative errors of reach, one for each salt from 1 on.
fn reach_errors(params: &Params, audience: &Audience, salts: u64) -> Runs {
    let people = audience.size() as f64;
    let error = |salt| {
        let active = audience.active(params, salt) as f64;
        estimate::reach(params, active, 1.0, 0.0).expect("the sketch is far from full").value / people - 1.0
    };
    Runs((1..=salts).map(error).collect())
}

/// Reach without noise: no run is far off, nine of ten are near, and there is no bias.
fn reach(effort: &Effort) -> Vec<Check> {
    let mut checks = Vec::new();
    let params = usual();
    for scenario in effort.scenarios {
        let audience = scenario.audience();
        let name = scenario.name();
        let people = audience.size() as f64;
        let salts = match scenario {
            Scenario::Disjoint => effort.largest,
            Scenario::Same => effort.same.max(effort.salts),
            _ => effort.salts,
        };
        let errors = reach_errors(&params, &audience, salts);
        let active = estimate::expected_active(&params, people);
        let estimated = estimate::reach(&params, active, 1.0, 0.0).expect("the sketch is far from full");
        let expected = estimated.standard_error / people;
        let runs = |what: &str| format!("{name} reach, {what} of {salts} runs");
        checks.push(at_most(runs("worst"), format!("SE {}", percent(expected)), errors.quantile(1.0), 0.045));
        if salts >= 20 {
            checks.push(at_most(runs("p90"), percent(1.645 * expected), errors.quantile(0.9), 0.022));
        }
        if salts >= 100 {
            let spread = expected / (salts as f64).sqrt();
            let bias = errors.mean();
            let check = at_most(runs("mean signed error"), format!("0 ± {}", percent(spread)), bias.abs(), 0.003);
            checks.push(Check { found: percent(bias), ..check });
        }
        if *scenario == Scenario::Independent {
            let wide = Params::new(5.6, 1_000_000, 10_000_000).expect("the parameters are in range");
            let found = reach_errors(&wide, &audience, salts).quantile(0.9);
            checks.push(at_most(
                format!("S1 reach, a 5.6, m 10^6, p90 of {salts} runs"),
                "0.362 %".into(),
                found,
                0.0055,
            ));
        }
    }
    checks
}

/// S4 with noise of standard deviation 50 on the count of registers.
fn noised_reach(effort: &Effort) -> Vec<Check> {
    let (params, audience) = (usual(), Scenario::Same.audience());
    let variance = Rational::at_least(2500.0);
    let people = audience.size() as f64;
    let error = |salt| {
        let noise = discrete_gaussian_within(variance, 1_000, &mut generator(salt));
        let active = audience.active(&params, salt) as f64 + noise as f64;
        let reach = estimate::reach(&params, active, 1.0, 50.0).expect("the sketch is far from full");
        (reach.value / people - 1.0, reach.standard_error / people)
    };
    let salts = effort.many.max(effort.salts);
    let (errors, said): (Vec<f64>, Vec<f64>) = (1..=salts).map(error).unzip();
    let expected = format!("SE {}, said {}", percent(0.01087), percent(Runs(said).mean()));
    vec![at_most(format!("S4 reach, sigma 50, p90 of {salts} runs"), expected, Runs(errors).quantile(0.9), 0.026)]
}

/// Confidence intervals of sampled and noised sketches hold the truth as often as they say (protocols 8.10, and four
/// standard errors of a share of 95 %).
fn intervals(_: &Effort) -> Vec<Check> {
    let mut checks = Vec::new();
    for (people, width, calibration, (epsilon, delta), runs, least) in [
        (100_000, 0.5, NoiseCalibration::Exact, (0.1, 1e-9), 400_u64, 0.906),
        (1_000_000, 1.0, NoiseCalibration::Reference, (0.0033, 1e-5), 30, 0.8),
    ] {
        let params = usual();
        let interval = VidSamplingInterval::new(0.0, width).expect("the interval is in range");
        let sampler = VidSampler::new(interval);
        let noise = NoiseSpec {
            mechanism: NoiseMechanism::DiscreteGaussian,
            calibration,
            params: PrivacyParams::new(epsilon, delta).expect("the promise is in range"),
            sensitivity: Sensitivity::scalar(1),
            contributors: 3,
            honest_contributors: 3,
        };
        let noise = noise.calibrate().expect("the promise can be kept");
        let found = |salt: u64| {
            let sampled = (0..people).map(|vid| salted(vid, salt)).filter(|vid| sampler.contains(*vid));
            let mut hit = vec![false; params.size() as usize];
            sampled.for_each(|vid| hit[params.index(vid) as usize] = true);
            let mut rng = generator(salt);
            let noised: u64 = (0..3).map(|_| noise.sample(&mut rng)).sum();
            let active = hit.iter().filter(|hit| **hit).count() as f64 + noised as f64 - 3.0 * noise.shift() as f64;
            let sd = noise.total_standard_deviation();
            estimate::reach(&params, active, interval.width_decimal(), sd).expect("the sketch is far from full")
        };
        let estimates: Vec<_> = (1..=runs).into_par_iter().map(found).collect();
        let truth = people as f64;
        let inside =
            estimates.iter().map(|found| found.interval95()).filter(|(low, high)| (*low..=*high).contains(&truth));
        let share = inside.count() as f64 / runs as f64;
        let name = format!("{people} people, width {width}, ({epsilon}, {delta:e})");
        checks.push(Check {
            name: format!("{name}, 95 % intervals"),
            expected: "95 %".into(),
            found: percent(share),
            fails_if: format!("< {}", percent(least)),
            passed: share >= least,
        });
        let said = estimates.iter().map(|found| found.standard_error).sum::<f64>() / runs as f64;
        let ratio = Runs(estimates.iter().map(|found| found.value).collect()).deviation() / said;
        checks.push(Check {
            name: format!("{name}, sd to SE"),
            expected: "1".into(),
            found: format!("{ratio:.3}"),
            fails_if: "outside of 0.67 to 1.35".into(),
            passed: (0.67..=1.35).contains(&ratio),
        });
    }
    checks
}

/// The union does not depend on how many publishers hold it.
fn publishers(_: &Effort) -> Vec<Check> {
    let params = usual();
    let cap = MaximumFrequency::new(10).expect("10 is in range");
    let joined = |sketches: &[LiquidLegions]| clear_union(sketches, cap).expect("the shapes are alike").active;
    let sketch = |people: std::ops::Range<u64>, salt| {
        let mut sketch = LiquidLegions::new(params);
        sketch.insert_all(people.map(|vid| salted(vid, salt)));
        sketch
    };
    let check = |scenario: Scenario, audiences: &[std::ops::Range<u64>], salts: u64| {
        let union = scenario.audience();
        let differs = |salt: &u64| {
            let sketches: Vec<LiquidLegions> =
                audiences.par_iter().map(|audience| sketch(audience.clone(), *salt)).collect();
            joined(&sketches) != union.active(&params, *salt)
        };
        let differing = (1..=salts).filter(differs).count();
        Check {
            name: format!("{} registers of 1 and of {} publishers", scenario.name(), audiences.len()),
            expected: format!("0 of {salts} differ"),
            found: format!("{differing} of {salts} differ"),
            fails_if: "any differs".into(),
            passed: differing == 0,
        }
    };
    let same: Vec<_> = (0..20).map(|_| 0..Scenario::Same.union()).collect();
    let halves: Vec<_> = (0..20).map(|k| 50_000 * k..50_000 * k + 100_000).collect();
    vec![check(Scenario::Same, &same, 1), check(Scenario::Sequential, &halves, 3)]
}

/// How often a person is reached: 1 + Poisson(λ) where λ is exponential with mean 1, which is a geometric law, so that the
/// zeros at the end of a hash are a draw.
fn times_reached(vid: u64, salt: u64) -> u32 {
    1 + splitmix64(salted(vid, salt) ^ 0xf4e9).trailing_zeros()
}

/// What a sketch of so many people, reached that often, opens to; and the true shares by frequency, capped at 10.
fn opened(params: &Params, people: u64, salt: u64) -> (ClearUnion, Vec<f64>) {
    let mut sketch = LiquidLegions::new(*params);
    let mut shares = vec![0.0; 10];
    let impressions = (0..people).flat_map(|vid| {
        let times = times_reached(vid, salt);
        shares[times.min(10) as usize - 1] += 1.0 / people as f64;
        (0..times).map(move |_| salted(vid, salt))
    });
    sketch.insert_all(impressions);
    let union = clear_union(&[sketch], MaximumFrequency::new(10).expect("10 is in range"));
    (union.expect("one sketch is like itself"), shares)
}

/// Half the sum of differences of two distributions.
fn shuffle_distance(one: &[f64], other: &[f64]) -> f64 {
    0.5 * one.iter().zip(other).map(|(a, b)| (a - b).abs()).sum::<f64>()
}

/// Frequency distributions, without noise.
fn frequency(effort: &Effort) -> Vec<Check> {
    let mut checks = Vec::new();
    for (params, people, mean, p90, limit) in [
        (usual(), 100_000, 0.0086, Some(0.0120), 0.013),
        (Params::new(12.0, 10_000, 10_000_000).expect("the parameters are in range"), 300_000, 0.0282, None, 0.042),
    ] {
        let distance = |salt: u64| {
            let (union, truth) = opened(&params, people, salt);
            let bins: Vec<f64> = union.histogram.iter().map(|count| *count as f64).collect();
            let found = estimate::frequency(&bins, 0.0, people as f64).expect("somebody was reached");
            let said: f64 = found.standard_errors.iter().sum();
            (shuffle_distance(&found.shares, &truth), 0.5 * (2.0 / std::f64::consts::PI).sqrt() * said)
        };
        let (distances, said): (Vec<f64>, Vec<f64>) = (1..=effort.many).into_par_iter().map(distance).unzip();
        let (distances, said) = (Runs(distances), Runs(said).mean());
        let name = |what: &str| format!("m {}, {people} people, {what} of {}", params.size(), effort.many);
        let expected = format!("{}, said {}", percent(mean), percent(said));
        checks.push(at_most(name("mean distance"), expected, distances.mean(), limit));
        if let Some(p90) = p90 {
            checks.push(at_most(name("p90 distance"), percent(p90), distances.quantile(0.9), 0.018));
        }
    }
    checks
}

/// Registers whose frequency can be used, at a million people.
fn usable(effort: &Effort) -> Vec<Check> {
    let params = usual();
    let everybody = Scenario::Same.audience().size();
    let counted = |salt| {
        let mut sketch = LiquidLegions::new(params);
        sketch.insert_all((0..everybody).map(|vid| salted(vid, salt)));
        let union = clear_union(&[sketch], MaximumFrequency::new(1).expect("1 is in range"));
        union.expect("one sketch is like itself").usable as f64
    };
    let registers = Runs((1..=effort.salts).into_par_iter().map(counted).collect());
    let expected = estimate::expected_usable(&params, everybody as f64);
    let worst = registers.0.iter().map(|count| (count - expected).abs()).fold(0.0, f64::max);
    vec![Check {
        name: format!("usable registers of 10^6 people, {} runs", effort.salts),
        expected: format!("{expected:.0} ± 79"),
        found: format!("{:.0} ± {:.0}", registers.mean(), registers.deviation()),
        fails_if: "any beyond 5 sd".into(),
        passed: worst <= 5.0 * 79.018,
    }]
}

/// Frequency vectors: exact as a whole, and as good as theory says when a tenth is sampled.
fn vectors(effort: &Effort) -> Vec<Check> {
    let vector = |population: &VidIndexMap, interval, vids: &mut dyn Iterator<Item = u64>| {
        let cap = MaximumFrequency::new(1).expect("1 is in range");
        let mut vector = FrequencyVector::new(population, interval, cap).expect("somebody is sampled");
        vids.for_each(|vid| vector.add(population, vid, 1).expect("the VID is of the population"));
        vector
    };
    let scenario = Scenario::Sequential;
    let population = VidIndexMap::new(scenario.universe().start..scenario.universe().end + 50_000);
    let population = population.expect("the VIDs are in range");
    let mut sums = vec![0_u8; population.size()];
    for k in 0..20 {
        let reached = vector(&population, VidSamplingInterval::FULL, &mut (50_000 * k..50_000 * k + 100_000));
        sums.iter_mut().zip(reached.cells()).for_each(|(sum, cell)| *sum += cell);
    }
    let count = |publishers| sums.iter().filter(|sum| **sum == publishers).count();
    let mut checks = vec![Check {
        name: "S3 vectors of 20 publishers, whole".into(),
        expected: "100000, 950000".into(),
        found: format!("{}, {}", count(1), count(2)),
        fails_if: "any difference".into(),
        passed: (count(0), count(1), count(2)) == (50_000, 100_000, 950_000),
    }];

    // A tenth of ten million people, of whom about a million are reached.
    let population = VidIndexMap::new(0..10_000_000).expect("the VIDs are in range");
    let tenth = VidSamplingInterval::new(0.3, 0.1).expect("the interval is in range");
    let error = |salt: u64| {
        let reached = |vid: &u64| splitmix64(salted(*vid, salt)) < u64::MAX / 10;
        let people = (0..10_000_000).filter(reached).count() as f64;
        let found = vector(&population, tenth, &mut (0..10_000_000).filter(reached)).reach() as f64;
        found / tenth.width_decimal() / people - 1.0
    };
    let errors = Runs((1..=effort.many).into_par_iter().map(error).collect());
    let reach = ReachMeasurement {
        methodology: Methodology::FrequencyVector { size: 1_000_000 },
        reach: 1e6,
        interval: Interval { start: 0.3, width: 0.1 },
        noise_variance: 0.0,
    };
    let expected = variance::reach(&reach).expect("the measurement is in range").sqrt() / 1e6;
    let name = format!("vector, a tenth of 10^7, p90 of {} runs", effort.many);
    let check = at_most(name, format!("SE {}", percent(expected)), errors.quantile(0.9), 0.0055);
    checks.push(Check { found: format!("{}, SE {}", check.found, percent(errors.deviation())), ..check });

    // Two workers' noise on the number of cells, divided by the width.
    let noise = NoiseSpec {
        mechanism: NoiseMechanism::DiscreteGaussian,
        calibration: NoiseCalibration::Exact,
        params: PrivacyParams::new(0.1, 1e-9).expect("the promise is in range"),
        sensitivity: Sensitivity::scalar(1),
        contributors: 2,
        honest_contributors: 1,
    };
    let noise = noise.calibrate().expect("the promise can be kept");
    let mut rng = generator(70);
    let noised = |_| {
        let sum = noise.sample(&mut rng) + noise.sample(&mut rng);
        (sum as f64 - 2.0 * noise.shift() as f64) / tenth.width_decimal()
    };
    let found = Runs((0..200).map(noised).collect()).deviation();
    let expected = noise.total_standard_deviation() / tenth.width_decimal();
    checks.push(Check {
        name: "vector reach noise (0.1, 10^-9), 200 runs".into(),
        expected: format!("sd {expected:.1}"),
        found: format!("sd {found:.1}"),
        fails_if: "beyond 20 %".into(),
        passed: (found / expected - 1.0).abs() <= 0.2,
    });
    checks
}

/// The discrete Gaussian against its exact probabilities, by Pearson's statistic.
fn discrete_gaussian(effort: &Effort) -> Vec<Check> {
    // Seed 80 + i, α = 10⁻⁴.
    let variances = [(0.25, 2), (1.0, 4), (4.0, 8), (9.0, 13), (100.0, 45)];
    let check = |(at, (variance, reach)): (usize, &(f64, i64))| {
        let mut rng = generator(80 + at as u64);
        let sigma_squared = Rational::at_least(*variance);
        let mut counts = vec![0_u64; 2 * *reach as usize + 2];
        let rest = counts.len() - 1;
        for _ in 0..effort.draws {
            let draw = discrete_gaussian_within(sigma_squared, 10_000, &mut rng);
            counts[if draw.abs() <= *reach { (draw + reach) as usize } else { rest }] += 1;
        }
        let weight = |y: i64| (-((y * y) as f64) / (2.0 * variance)).exp();
        let total: f64 = (-2_000..=2_000).map(weight).sum();
        let mut probabilities: Vec<f64> = (-reach..=*reach).map(|y| weight(y) / total).collect();
        probabilities.push(1.0 - probabilities.iter().sum::<f64>());
        let n = f64::from(effort.draws);
        let term = |(count, p): (&u64, &f64)| (*count as f64 - n * p).powi(2) / (n * p);
        let statistic: f64 = counts.iter().zip(&probabilities).map(term).sum();
        // The 99.99 % quantile by Wilson and Hilferty's approximation.
        let degrees = (counts.len() - 1) as f64;
        let limit = degrees * (1.0 - 2.0 / (9.0 * degrees) + 3.719 * (2.0 / (9.0 * degrees)).sqrt()).powi(3);
        Check {
            name: format!("variance {variance}, chi-square of {} draws", effort.draws),
            expected: format!("{degrees} ± {:.0}", (2.0 * degrees).sqrt()),
            found: format!("{statistic:.1}"),
            fails_if: format!("> {limit:.1}"),
            passed: statistic <= limit,
        }
    };
    variances.iter().enumerate().map(check).collect()
}

/// The noise of all Duchies together, less its known baseline: mean 0 and the calibrated deviation.
fn noise_totals(_: &Effort) -> Vec<Check> {
    const RUNS: u32 = 500;
    let mut checks = Vec::new();
    for (seed, mechanism, calibration, duchies, honest) in [
        (90, NoiseMechanism::DiscreteGaussian, NoiseCalibration::Exact, 3, 3),
        (91, NoiseMechanism::DiscreteGaussian, NoiseCalibration::Exact, 3, 1),
        (92, NoiseMechanism::DiscreteGaussian, NoiseCalibration::Reference, 3, 3),
        (93, NoiseMechanism::Geometric, NoiseCalibration::Exact, 3, 1),
        (94, NoiseMechanism::Geometric, NoiseCalibration::Reference, 3, 3),
    ] {
        let noise = NoiseSpec {
            mechanism,
            calibration,
            params: PrivacyParams::new(0.1, 1e-9).expect("the promise is in range"),
            sensitivity: Sensitivity::scalar(1),
            contributors: duchies,
            honest_contributors: honest,
        };
        let noise = noise.calibrate().expect("the promise can be kept");
        let mut rng = generator(seed);
        let total = |_| {
            let sum: u64 = (0..duchies).map(|_| noise.sample(&mut rng)).sum();
            sum as f64 - f64::from(duchies) * noise.shift() as f64
        };
        let totals = Runs((0..RUNS).map(total).collect());
        let expected = noise.total_standard_deviation();
        let (mean, found) = (totals.mean(), totals.deviation());
        checks.push(Check {
            name: format!("{mechanism:?} {calibration:?}, {honest} of {duchies} honest"),
            expected: format!("0 ± {expected:.1}"),
            found: format!("{mean:.1} ± {found:.1}"),
            fails_if: "mean beyond 4 SE, sd beyond 10 %".into(),
            passed: mean.abs() <= 4.0 * expected / f64::from(RUNS).sqrt() && (found / expected - 1.0).abs() <= 0.1,
        });
    }
    checks
}
