//! Every formula for a variance or covariance against simulation, on five random sets of parameters each. Seeds are fixed,
//! so nothing flakes. Simulated and computed variances may differ by five standard errors of the simulated one, which of n
//! runs is √(2/n) of the variance (α = 6·10⁻⁷ for each comparison).
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[path = "variance/dice.rs"]
mod dice;

use dice::{Dice, ERRORS, Moments};
use halo_core::privacy::{Epsilon, PrivacyParams};
use halo_sketch::{
    estimate,
    liquid_legions::Params,
    variance::{
        self, FrequencyMeasurement, Interval,
        Methodology::{self, Deterministic, FrequencyVector, LiquidLegionsV2, Sketch},
        ReachMeasurement, ReachTerm, ScalarMeasurement, SketchShape,
    },
};

/// Sets of parameters for each formula.
const SETS: u64 = 5;
#[test]
fn noises() {
    let mut dice = Dice::new(1);
    for set in 0..SETS {
        let params = PrivacyParams::new(dice.between(0.1, 3.0), dice.between(1e-6, 0.3)).unwrap();
        let (epsilon, delta) = (params.epsilon.get(), params.delta.get());
        let bound = (epsilon.exp_m1() / (2.0 * delta)).ln_1p() / epsilon;
        let moments = Moments::collect(40_000, || {
            let mut laplace = || {
                let size = -(1.0 - dice.unit()).ln() / epsilon;
                if dice.chance(0.5) { size } else { -size }
            };
            let free = laplace();
            let cut = loop {
                let draw = laplace();
                if draw.abs() <= bound {
                    break draw;
                }
            };
            vec![free, cut]
        });
        // Laplace noise has a kurtosis of 6, so its sample variance a standard error of √(5/n): allow for it.
        let within = |found: f64, expected: f64| (found / expected - 1.0).abs() < ERRORS * (5.0 / 40_000.0_f64).sqrt();
        let laplace = variance::laplace(Epsilon::new(epsilon).unwrap());
        let truncated = variance::truncated_laplace(params).unwrap();
        assert!(within(moments.covariance(0, 0), laplace), "set {set}");
        assert!(within(moments.covariance(1, 1), truncated), "set {set}: {} {truncated}", moments.covariance(1, 1));
    }
}

#[test]
fn scalars() {
    let mut dice = Dice::new(2);
    for set in 0..SETS {
        let people = dice.between(200.0, 2_000.0) as usize;
        let per_person = dice.between(1.0, 50.0);
        let width = dice.width();
        let noise_variance = dice.between(0.0, 100.0);
        let measurement =
            ScalarMeasurement { value: people as f64 * per_person, per_person, sampling_width: width, noise_variance };
        let expected = measurement.variance().unwrap();
        // Everybody contributes the most, and everybody something below it: exact for the first, a bound for the second.
        let moments = Moments::collect(4_000, || {
            let sampled = dice.sampled(people, width);
            let noise = per_person * dice.normal(noise_variance);
            let mut less = noise;
            for person in 0..people {
                if dice.chance(width) {
                    less += per_person * (person % 4) as f64 / 3.0;
                }
            }
            vec![(per_person * sampled + noise) / width, less / width]
        });
        moments.check_variance(0, expected, &format!("set {set}"));
        let mixed: f64 = (0..people).map(|person| per_person * (person % 4) as f64 / 3.0).sum();
        let bound = ScalarMeasurement { value: mixed, ..measurement }.variance().unwrap();
        assert!(moments.covariance(1, 1) < bound * (1.0 + ERRORS * (2.0_f64 / 4_000.0).sqrt()), "set {set}");
        moments.check_mean(1, mixed, &format!("set {set}"));
    }
}

#[test]
fn populations() {
    let mut dice = Dice::new(3);
    for set in 0..SETS {
        let noise_variance = dice.between(1.0, 1e4);
        let people = dice.between(10.0, 1e6);
        let moments = Moments::collect(10_000, || vec![people + dice.normal(noise_variance)]);
        let expected = ScalarMeasurement::population(people, noise_variance).variance().unwrap();
        moments.check_variance(0, expected, &format!("set {set}"));
    }
}

/// A sample of fixed size from a population whose first people are in groups of the given sizes: how many of each group.
fn sample_of_fixed_size(population: usize, size: usize, groups: &[f64], dice: &mut Dice) -> Vec<f64> {
    let mut counts = vec![0.0; groups.len()];
    let mut wanted = size;
    let mut person = 0;
    for (count, group) in counts.iter_mut().zip(groups) {
        for _ in 0..*group as usize {
            // Selection sampling: each person with the probability that the rest of the sample needs.
            if dice.unit() * ((population - person) as f64) < wanted as f64 {
                *count += 1.0;
                wanted -= 1;
            }
            person += 1;
        }
    }
    counts
}

#[test]
fn reach_of_vectors() {
    let mut dice = Dice::new(4);
    for set in 0..SETS {
        let width = dice.width();
        let size = dice.between(300.0, 2_000.0) as usize;
        let population = (size as f64 / width).ceil();
        let reach = (population * dice.between(0.05, 0.95)).floor();
        let noise_variance = dice.between(0.0, 200.0);
        let measurement = ReachMeasurement {
            methodology: FrequencyVector { size: size as u64 },
            reach,
            interval: Interval { start: 0.0, width },
            noise_variance,
        };
        let moments = Moments::collect(4_000, || {
            let counted = sample_of_fixed_size(population as usize, size, &[reach], &mut dice)[0];
            vec![(counted + dice.normal(noise_variance)) / width]
        });
        moments.check_variance(0, variance::reach(&measurement).unwrap(), &format!("set {set}: {measurement:?}"));
    }
}

/// Inverts a count of active registers.
fn people(shape: SketchShape, active: f64) -> f64 {
    estimate::people(&Params::new(shape.decay_rate, shape.size, 1 << 20).unwrap(), active).unwrap()
}

#[test]
fn reach_of_sketches() {
    let mut dice = Dice::new(5);
    for set in 0..SETS {
        let shape = dice.shape();
        let reach = dice.between(500.0, 4_000.0).floor();
        let width = dice.width();
        let sampled = reach * width;
        let noise_variance = dice.between(0.0, variance::active_covariance(shape, sampled, sampled, sampled).unwrap());
        let measurement = ReachMeasurement {
            methodology: if set % 2 == 0 { Sketch(shape) } else { LiquidLegionsV2(shape) },
            reach,
            interval: Interval { start: 0.0, width },
            noise_variance,
        };
        let mut registers = vec![false; shape.size as usize];
        let moments = Moments::collect(3_000, || {
            registers.fill(false);
            for _ in 0..dice.sampled(reach as usize, width) as usize {
                registers[dice.register(shape)] = true;
            }
            let active = registers.iter().filter(|register| **register).count() as f64;
            vec![people(shape, active + dice.normal(noise_variance)) / width, active]
        });
        let expected = variance::reach(&measurement).unwrap();
        moments.check_variance(0, expected, &format!("set {set}: {measurement:?}"));
    }
}

#[test]
fn registers_of_two_sketches() {
    let mut dice = Dice::new(6);
    for set in 0..SETS {
        let shape = dice.shape();
        let (both, first, second) = (
            dice.between(100.0, 1_500.0).floor(),
            dice.between(0.0, 1_000.0).floor(),
            dice.between(0.0, 1_000.0).floor(),
        );
        let mut registers = vec![[false; 2]; shape.size as usize];
        let moments = Moments::collect(3_000, || {
            registers.fill([false; 2]);
            for (people, one, other) in [(both, true, true), (first, true, false), (second, false, true)] {
                for _ in 0..people as usize {
                    let register = &mut registers[dice.register(shape)];
                    *register = [register[0] || one, register[1] || other];
                }
            }
            let active = |side: usize| registers.iter().filter(|register| register[side]).count() as f64;
            vec![active(0), active(1)]
        });
        let (one, other) = (both + first, both + second);
        let what = format!("set {set}: {shape:?}, {both} of {one} and {other}");
        moments.check_mean(0, shape.size as f64 - variance::expected_empty(shape, one).unwrap(), &what);
        moments.check_variance(0, variance::active_covariance(shape, one, one, one).unwrap(), &what);
        moments.check_covariance(0, 1, variance::active_covariance(shape, one, other, both).unwrap(), &what);
        // The slope is the difference that one more person makes.
        let slope = variance::expected_empty(shape, one).unwrap() - variance::expected_empty(shape, one + 1.0).unwrap();
        assert!((slope / variance::active_slope(shape, one).unwrap() - 1.0).abs() < 1e-6, "{what}");
    }
}

/// Two publishers on the circle: how many people only one of them has, and how many both.
struct Pair {
    only: [f64; 2],
    both: f64,
    intervals: [Interval; 2],
}

impl Pair {
    fn random(dice: &mut Dice) -> Self {
        let only = [dice.between(200.0, 1_200.0).floor(), dice.between(200.0, 1_200.0).floor()];
        let interval = |dice: &mut Dice| Interval { start: dice.unit(), width: dice.between(0.3, 0.9) };
        Self { only, both: dice.between(300.0, 1_500.0).floor(), intervals: [interval(dice), interval(dice)] }
    }

    fn reach(&self, publisher: usize) -> f64 {
        self.only[publisher] + self.both
    }

    fn union(&self) -> f64 {
        self.only[0] + self.only[1] + self.both
    }

    fn measurement(&self, publisher: usize, methodology: Methodology) -> ReachMeasurement {
        ReachMeasurement {
            methodology,
            reach: self.reach(publisher),
            interval: self.intervals[publisher],
            noise_variance: 0.0,
        }
    }

    /// Calls `visit` for everybody, with whether the publishers see and sample them.
    fn visit(&self, dice: &mut Dice, mut visit: impl FnMut(&mut Dice, [bool; 2])) {
        for (people, has) in [(self.only[0], [true, false]), (self.only[1], [false, true]), (self.both, [true, true])] {
            for _ in 0..people as usize {
                let position = dice.unit();
                let inside = |interval: Interval| (position - interval.start).rem_euclid(1.0) < interval.width;
                let seen = [has[0] && inside(self.intervals[0]), has[1] && inside(self.intervals[1])];
                visit(dice, seen);
            }
        }
    }
}

#[test]
fn covariances_of_counts() {
    let mut dice = Dice::new(7);
    for set in 0..SETS {
        let pair = Pair::random(&mut dice);
        let [one, other] = pair.intervals;
        let moments = Moments::collect(4_000, || {
            let mut counts = [0.0; 2];
            pair.visit(&mut dice, |_, seen| {
                counts[0] += f64::from(u8::from(seen[0]));
                counts[1] += f64::from(u8::from(seen[1]));
            });
            vec![counts[0] / one.width, counts[1] / other.width]
        });
        let (first, second) = (pair.measurement(0, Deterministic), pair.measurement(1, Deterministic));
        let expected = variance::reach_covariance(&first, &second, pair.union()).unwrap();
        moments.check_covariance(0, 1, expected, &format!("set {set}"));
    }
}

#[test]
fn widths_of_unions() {
    let mut dice = Dice::new(8);
    for set in 0..SETS {
        let [one, other] = Pair::random(&mut dice).intervals;
        let moments = Moments::collect(20_000, || {
            let position = dice.unit();
            let inside = |interval: Interval| (position - interval.start).rem_euclid(1.0) < interval.width;
            vec![f64::from(u8::from(inside(one) || inside(other)))]
        });
        // A union that is the whole circle has no variance and is met exactly.
        moments.check_mean(0, one.union_width(other).unwrap(), &format!("set {set}"));
    }
}

#[test]
fn covariances_and_metrics_of_sketches() {
    let mut dice = Dice::new(9);
    for set in 0..SETS {
        let shape = dice.shape();
        let mut pair = Pair::random(&mut dice);
        if set % 2 == 0 {
            // What a metric of unions is computed from: one sample for all.
            pair.intervals[1] = pair.intervals[0];
        }
        let [one, other] = pair.intervals;
        let mut registers = vec![[false; 2]; shape.size as usize];
        let moments = Moments::collect(3_000, || {
            registers.fill([false; 2]);
            pair.visit(&mut dice, |dice, seen| {
                let register = &mut registers[dice.register(shape)];
                *register = [register[0] || seen[0], register[1] || seen[1]];
            });
            let count =
                |keep: fn(&[bool; 2]) -> bool| registers.iter().filter(|register| keep(register)).count() as f64;
            let first = people(shape, count(|register| register[0])) / one.width;
            let second = people(shape, count(|register| register[1])) / other.width;
            let union = people(shape, count(|register| register[0] || register[1])) / one.width;
            vec![first, second, union - first]
        });
        let methodology = LiquidLegionsV2(shape);
        let (first, second) = (pair.measurement(0, methodology), pair.measurement(1, methodology));
        let expected = variance::reach_covariance(&first, &second, pair.union()).unwrap();
        moments.check_covariance(0, 1, expected, &format!("set {set}: {shape:?}"));
        if one == other {
            let union = ReachMeasurement { reach: pair.union(), ..first };
            let term = |weight: f64, publishers: u64, measurement| ReachTerm { weight, publishers, measurement };
            let added = variance::reach_metric(&[term(1.0, 0b11, union), term(-1.0, 0b01, first)]).unwrap();
            moments.check_variance(2, added, &format!("set {set}: what one publisher adds"));
        }
    }
}

/// Shares, shares of k or more, counts, counts of k or more, from a histogram of noised entries and a reach.
fn released(histogram: &[f64], reach: f64) -> Vec<f64> {
    let total: f64 = histogram.iter().sum();
    let shares: Vec<f64> = histogram.iter().map(|entry| entry / total).collect();
    let k_plus: Vec<f64> = (0..shares.len()).map(|k| shares[k..].iter().sum()).collect();
    let counts: Vec<f64> = shares.iter().chain(&k_plus).map(|share| share * reach).collect();
    [shares, k_plus, counts].concat()
}

/// Compares all four lists.
fn check_frequencies(moments: &Moments, measurement: &FrequencyMeasurement<'_>, what: &str) {
    let expected = variance::frequency(measurement).unwrap();
    let lists = [expected.relative, expected.relative_k_plus, expected.count, expected.count_k_plus];
    for (series, value) in lists.concat().into_iter().enumerate() {
        moments.check_variance(series, value, &format!("{what}, series {series} of {measurement:?}"));
    }
}

/// Sizes of the groups of each frequency: whole people that add up to reach, and their shares.
fn groups(shares: &[f64], reach: f64) -> (Vec<f64>, Vec<f64>, f64) {
    let groups: Vec<f64> = shares.iter().map(|share| (share * reach).round()).collect();
    let reach: f64 = groups.iter().sum();
    let shares = groups.iter().map(|group| group / reach).collect();
    (groups, shares, reach)
}

#[test]
fn frequencies_of_counts() {
    let mut dice = Dice::new(10);
    for set in 0..SETS {
        let (groups, shares, reach) = groups(&dice.shares(), 3_000.0);
        let width = dice.width();
        let noise = [dice.between(0.0, 400.0), dice.between(1.0, 400.0)];
        let reach_measurement = ReachMeasurement {
            methodology: Deterministic,
            reach,
            interval: Interval { start: 0.0, width },
            noise_variance: noise[0],
        };
        let moments = Moments::collect(4_000, || {
            let exact: Vec<f64> = groups.iter().map(|group| dice.sampled(*group as usize, width)).collect();
            let reach = (exact.iter().sum::<f64>() + dice.normal(noise[0])) / width;
            let histogram: Vec<f64> = exact.iter().map(|count| count + dice.normal(noise[1])).collect();
            released(&histogram, reach)
        });
        let measurement = FrequencyMeasurement { reach: reach_measurement, shares: &shares, noise_variance: noise[1] };
        check_frequencies(&moments, &measurement, &format!("set {set}"));
    }
}

#[test]
fn frequencies_of_vectors() {
    let mut dice = Dice::new(11);
    for set in 0..SETS {
        let (groups, shares, reach) = groups(&dice.shares(), 2_500.0);
        let width = dice.width();
        let size = (dice.between(2_600.0, 6_000.0) * width).floor();
        let population = (size / width).ceil() as usize;
        let noise = [dice.between(0.0, 400.0), dice.between(0.0, 400.0)];
        let reach_measurement = ReachMeasurement {
            methodology: FrequencyVector { size: size as u64 },
            reach,
            interval: Interval { start: 0.0, width },
            noise_variance: noise[0],
        };
        let moments = Moments::collect(4_000, || {
            let exact = sample_of_fixed_size(population, size as usize, &groups, &mut dice);
            let total = exact.iter().sum::<f64>() + dice.normal(noise[0]);
            // The last entry is what the others leave over of reach.
            let mut histogram: Vec<f64> = exact.iter().map(|count| count + dice.normal(noise[1])).collect();
            let last = histogram.len() - 1;
            histogram[last] = total - histogram[..last].iter().sum::<f64>();
            released(&histogram, total / width)
        });
        let measurement = FrequencyMeasurement { reach: reach_measurement, shares: &shares, noise_variance: noise[1] };
        check_frequencies(&moments, &measurement, &format!("set {set}"));
    }
}

/// A register's people: how many, and the frequency of one of them, drawn at random.
type Register = (u32, usize);

fn sketch_frequencies(seed: u64, methodology: fn(SketchShape) -> Methodology, usable: fn(&Register) -> bool) {
    let mut dice = Dice::new(seed);
    for set in 0..SETS {
        let shape = SketchShape { decay_rate: dice.between(2.0, 8.0), size: dice.between(2_000.0, 4_000.0) as u64 };
        let reach = dice.between(1_500.0, 3_000.0);
        let (groups, shares, reach) = groups(&dice.shares(), reach);
        let width = dice.width();
        let noise = [dice.between(0.0, 100.0), dice.between(0.0, 60.0)];
        let reach_measurement = ReachMeasurement {
            methodology: methodology(shape),
            reach,
            interval: Interval { start: 0.0, width },
            noise_variance: noise[0],
        };
        let mut registers: Vec<Register> = vec![(0, 0); shape.size as usize];
        let moments = Moments::collect(3_000, || {
            registers.fill((0, 0));
            for (frequency, group) in groups.iter().enumerate() {
                for _ in 0..dice.sampled(*group as usize, width) as usize {
                    let register = &mut registers[dice.register(shape)];
                    register.0 += 1;
                    if register.0 == 1 || dice.chance(1.0 / f64::from(register.0)) {
                        register.1 = frequency;
                    }
                }
            }
            let active = registers.iter().filter(|register| register.0 > 0).count() as f64;
            let reach = people(shape, active + dice.normal(noise[0])) / width;
            let mut histogram: Vec<f64> = groups.iter().map(|_| dice.normal(noise[1])).collect();
            for register in registers.iter().filter(|register| usable(register)) {
                histogram[register.1] += 1.0;
            }
            released(&histogram, reach)
        });
        let measurement = FrequencyMeasurement { reach: reach_measurement, shares: &shares, noise_variance: noise[1] };
        check_frequencies(&moments, &measurement, &format!("set {set}"));
    }
}

#[test]
fn frequencies_of_a_publishers_sketch() {
    sketch_frequencies(12, Sketch, |register| register.0 > 0);
}

#[test]
fn frequencies_of_liquid_legions_v2() {
    sketch_frequencies(13, LiquidLegionsV2, |register| register.0 == 1);
}

/// The closed forms of `estimate`, whose errors go by what was found instead of what is true.
#[test]
fn estimates_from_registers() {
    let mut dice = Dice::new(14);
    for set in 0..SETS {
        let shape = SketchShape { decay_rate: dice.between(2.0, 10.0), size: dice.between(2_000.0, 4_000.0) as u64 };
        let params = Params::new(shape.decay_rate, shape.size, 1 << 20).unwrap();
        let reach = dice.between(1_500.0, 4_000.0);
        let (groups, shares, reach) = groups(&dice.shares(), reach);
        let width = dice.width();
        let noise = [dice.between(0.0, 20.0), dice.between(0.0, 8.0)];
        let mut registers: Vec<Register> = vec![(0, 0); shape.size as usize];
        let moments = Moments::collect(3_000, || {
            registers.fill((0, 0));
            let mut everybody = 0.0;
            for (frequency, group) in groups.iter().enumerate() {
                let sampled = dice.sampled(*group as usize, width);
                everybody += sampled;
                for _ in 0..sampled as usize {
                    let register = &mut registers[dice.register(shape)];
                    *register = (register.0 + 1, frequency);
                }
            }
            let active = registers.iter().filter(|register| register.0 > 0).count() as f64;
            let found = estimate::reach(&params, active + dice.normal(noise[0].powi(2)), width, noise[0]).unwrap();
            let mut histogram: Vec<f64> = groups.iter().map(|_| dice.normal(noise[1].powi(2))).collect();
            registers.iter().filter(|register| register.0 == 1).for_each(|register| histogram[register.1] += 1.0);
            let frequency = estimate::frequency(&histogram, noise[1], reach).unwrap();
            let usable = registers.iter().filter(|register| register.0 == 1).count() as f64;
            let errors = frequency.standard_errors.iter().map(|error| error * error);
            let mut series = vec![active - estimate::expected_active(&params, everybody), usable, found.value];
            series.extend(frequency.shares.iter().copied().chain(errors));
            series
        });
        let what = format!("set {set}: {shape:?}, {reach} people, width {width}, noise {noise:?}");
        let sampled = reach * width;
        // Around the expectation for as many as were sampled.
        moments.check_mean(0, 0.0, &what);
        moments.check_variance(0, estimate::active_variance(&params, sampled), &what);
        moments.check_mean(1, estimate::expected_usable(&params, sampled), &what);
        let active = estimate::expected_active(&params, sampled);
        let said = estimate::reach(&params, active, width, noise[0]).unwrap();
        moments.check_variance(2, said.standard_error.powi(2), &what);
        for k in 0..shares.len() {
            moments.check_variance(3 + k, moments.mean(3 + shares.len() + k), &format!("share {k}, {what}"));
        }
    }
}
