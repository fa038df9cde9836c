//! What a result and a timeline say, as figures and as text for people.

use std::collections::{BTreeMap, BTreeSet};

use halo_core::{
    clock::Timestamp,
    measurement::MeasurementKind,
    pb::{
        api::measurement::{self, result},
        system::StageAttempt,
    },
    wire,
};

use super::plan::Plan;
use crate::{
    error::{Context, Error, Result, printable},
    kind,
    outcome::{Exact, Figures, Found, Outcome, PrivacySpent, ReachFigures, Stage, SumFigures, Z95},
    truth::{PublisherTruth, Truth},
};

/// The stages that the Duchies reported, with what each cost, in seconds from `begin`.
pub(super) fn stages(begin: Timestamp, attempts: &[(String, StageAttempt)]) -> Result<Vec<Stage>> {
    let mut seen = BTreeSet::new();
    attempts
        .iter()
        // A line is there again when the Duchy did not hear that it had arrived.
        .filter(|(actor, attempt)| seen.insert((actor, &attempt.stage_name, attempt.attempt_number)))
        .map(|(actor, attempt)| {
            let start = attempt.stage_start_time.as_ref();
            let start = start.ok_or_else(|| Error::new("the timeline: a time is missing"))?;
            let start = wire::timestamp("time", start).context(|| "the timeline".into())?;
            let start_s = start.since(begin).as_secs_f64();
            Ok(Stage {
                party: printable(actor.rsplit('/').next().unwrap_or_default()),
                name: printable(&attempt.stage_name),
                start_s,
                end_s: start_s + attempt.wall_seconds,
                cpu_s: attempt.cpu_seconds,
                records_in: attempt.records_in.unsigned_abs(),
                records_out: attempt.records_out.unsigned_abs(),
                bytes_out: attempt.bytes_out.unsigned_abs(),
            })
        })
        .collect()
}

/// What everything that is released costs. Where every publisher counts on its own, somebody may be among the people of
/// all of them; and reach and frequency each cost ε and δ.
pub(super) fn spent(plan: &Plan, results: usize) -> Option<PrivacySpent> {
    let privacy = plan.privacy?;
    let each = match plan.kind() {
        MeasurementKind::ReachAndFrequency => 2.0,
        MeasurementKind::Reach | MeasurementKind::Impression | MeasurementKind::Duration => 1.0,
        // The number of people that there are is public.
        MeasurementKind::Population => return None,
    };
    let releases = each * results as f64;
    Some(PrivacySpent { epsilon: releases * privacy.epsilon.get(), delta: releases * privacy.delta.get() })
}

/// The figures of a decrypted result.
pub(super) fn figures(kind: MeasurementKind, result: &measurement::Result) -> Result<Figures> {
    let missing = || Error::new(format!("the result has nothing of what was asked for, {kind}"));
    let sum = |value: i64, std_error: f64| Figures::Sum(SumFigures { value: value.unsigned_abs(), std_error });
    match kind {
        MeasurementKind::Reach | MeasurementKind::ReachAndFrequency => {
            let reach = result.reach.as_ref().ok_or_else(missing)?;
            Ok(Figures::Reach(reach_figures(reach, result.frequency.as_ref())))
        }
        MeasurementKind::Impression => {
            let found = result.impression.as_ref().ok_or_else(missing)?;
            Ok(sum(found.value, found.standard_error))
        }
        MeasurementKind::Duration => {
            let found = result.watch_duration.as_ref().ok_or_else(missing)?;
            let seconds = found.value.as_ref().map_or(0, |time| time.seconds);
            Ok(sum(seconds, found.standard_error))
        }
        MeasurementKind::Population => {
            let found = result.population.as_ref().ok_or_else(missing)?;
            Ok(sum(found.value, found.standard_error))
        }
    }
}

fn reach_figures(reach: &result::Reach, frequency: Option<&result::Frequency>) -> ReachFigures {
    let bins = |map: &BTreeMap<i64, f64>| map.iter().map(|(bin, share)| (bin.unsigned_abs(), *share)).collect();
    let counts = |counts: &[i64]| counts.iter().map(|count| count.unsigned_abs()).collect();
    let known = frequency.filter(|frequency| !frequency.relative_frequency_distribution.is_empty());
    let usable = frequency.filter(|frequency| !frequency.usable_histogram.is_empty());
    let exact = frequency.filter(|frequency| !frequency.histogram.is_empty());
    // A sketch without a register is one of nobody; a vector has a cell for everybody, and a publisher's own count none.
    let vector_size = Some(reach.frequency_vector_size.unsigned_abs()).filter(|size| *size > 0);
    let sketched = matches!(
        reach.methodology,
        Some(result::reach::Methodology::LiquidLegionsV2(_) | result::reach::Methodology::ReachOnlyLiquidLegionsV2(_))
    );
    ReachFigures {
        reach: reach.value.unsigned_abs(),
        reach_std_error: reach.standard_error,
        frequency: known.map(|frequency| bins(&frequency.relative_frequency_distribution)),
        frequency_std_error: known.map(|frequency| bins(&frequency.standard_errors)),
        registers_in: sketched.then_some(reach.registers_in.unsigned_abs()),
        active_registers: sketched.then_some(reach.active_registers),
        usable_registers: usable.map(|frequency| frequency.usable_registers.unsigned_abs()),
        usable_histogram: usable.map(|frequency| counts(&frequency.usable_histogram)),
        vector_size,
        histogram: exact.map(|frequency| counts(&frequency.histogram)),
    }
}

/// The exact answer about all publishers together.
pub(super) fn exact(truth: &Truth) -> Exact {
    Exact::reached(&truth.reached)
}

/// The exact answer about one publisher.
pub(super) fn exact_of(plan: &Plan, publisher: &PublisherTruth) -> Exact {
    match plan.kind() {
        MeasurementKind::Reach | MeasurementKind::ReachAndFrequency => Exact::reached(&publisher.reached),
        MeasurementKind::Impression => Exact::Sum { value: publisher.counted_impressions },
        MeasurementKind::Duration => Exact::Sum { value: publisher.counted_seconds },
        MeasurementKind::Population => Exact::Sum { value: plan.population.map_or(0, |population| population.size()) },
    }
}

/// The number with its interval, for people.
pub(super) fn value_line(name: &str, figures: &Figures) -> String {
    let (low, high) = figures.interval();
    format!("{name:<10} {:>12}   95 % confidence interval {low} to {high}", figures.value())
}

/// Prints the results beside the exact answers.
pub(super) fn print_summary(outcome: &Outcome) {
    for (publisher, found) in outcome.found() {
        println!();
        if let Some(publisher) = publisher {
            println!("{publisher}, counted by itself:");
        }
        print_found(outcome, found);
    }
    println!("{}", outcome.privacy_statement());
    let timings = &outcome.timings;
    println!(
        "read {:.2} s, encrypt {:.2} s (slowest publisher), computation {:.2} s, total {:.2} s",
        timings.sketch_s, timings.encrypt_s, timings.computation_s, timings.total_s
    );
}

fn print_found(outcome: &Outcome, found: &Found) {
    println!("{}", value_line(kind::value_name(outcome.measurement_type), &found.result));
    println!(
        "in the clear {:>10}   (exact, for comparison only; error {:+.2} %)",
        found.truth.value(),
        found.error_percent()
    );
    let Figures::Reach(figures) = &found.result else { return };
    match &figures.frequency {
        None if outcome.maximum_frequency == 1 => {}
        None => println!("frequency: no data"),
        Some(shares) => print_frequency(outcome.maximum_frequency, figures, shares, found),
    }
    if let (Some(registers), Some(active)) = (figures.registers_in, figures.active_registers) {
        let usable = figures.usable_registers.map(|usable| format!(", {usable} usable")).unwrap_or_default();
        println!("registers: {registers} in, {active} active{usable}");
    }
    if let Some(size) = figures.vector_size {
        println!("frequency vectors of {size} cells");
    }
}

fn print_frequency(maximum: u32, figures: &ReachFigures, shares: &BTreeMap<u64, f64>, found: &Found) {
    println!("frequency    measured    ± 95 %   in the clear");
    let exact = found.truth.frequency();
    for bin in 1..=u64::from(maximum) {
        let of = |map: Option<&BTreeMap<u64, f64>>| map.and_then(|map| map.get(&bin)).copied().unwrap_or(0.0) * 100.0;
        let plus = if bin == u64::from(maximum) { "+" } else { " " };
        println!(
            "{bin:>9}{plus} {:>9.2} % {:>7.2} % {:>12.2} %",
            of(Some(shares)),
            Z95 * of(figures.frequency_std_error.as_ref()),
            of(Some(&exact))
        );
    }
    if let Some(distance) = found.shuffle_distance() {
        println!("shuffle distance to the exact frequencies: {distance:.4}");
    }
}
