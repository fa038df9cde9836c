//! What a result and a timeline say, as figures and as text for people.

use std::collections::BTreeMap;

use halo_core::{
    pb::{api, halo::TimelineEntry},
    wire,
};

use super::input::Plan;
use crate::{
    error::{Context, Error, Result, printable},
    outcome::{Outcome, PrivacySpent, ResultFigures, Stage, interval},
};

/// The stages that the Duchies reported, with what each cost.
pub(super) fn stages(measurement: &api::Measurement, timeline: &[TimelineEntry]) -> Result<Vec<Stage>> {
    let time = |time: Option<&prost_types::Timestamp>| {
        let time = time.ok_or_else(|| Error::new("a time is missing"))?;
        wire::timestamp("time", time).context(|| "the timeline".into())
    };
    let begin = time(measurement.create_time.as_ref())?;
    let reported = timeline.iter().filter_map(|entry| Some((entry, entry.stage_attempt.as_ref()?)));
    reported
        .map(|(entry, attempt)| {
            let start_s = time(attempt.stage_start_time.as_ref())?.since(begin).as_secs_f64();
            Ok(Stage {
                party: printable(entry.actor.rsplit('/').next().unwrap_or_default()),
                name: printable(&attempt.stage_name),
                start_s,
                end_s: start_s + attempt.wall_seconds,
                cpu_s: attempt.cpu_seconds,
            })
        })
        .collect()
}

/// Reach and frequency each cost ε and δ.
pub(super) fn spent(plan: &Plan) -> Option<PrivacySpent> {
    let privacy = plan.privacy?;
    let releases = if plan.maximum_frequency.counts_frequency() { 2.0 } else { 1.0 };
    Some(PrivacySpent { epsilon: releases * privacy.epsilon.get(), delta: releases * privacy.delta.get() })
}

/// The figures of a decrypted result.
pub(super) fn figures(result: &api::measurement::Result) -> Result<ResultFigures> {
    let reach = result.reach.as_ref().ok_or_else(|| Error::new("the result has no reach"))?;
    let bins = |map: &BTreeMap<i64, f64>| map.iter().map(|(bin, share)| (bin.unsigned_abs(), *share)).collect();
    let frequency = result.frequency.as_ref();
    let known = frequency.filter(|frequency| !frequency.relative_frequency_distribution.is_empty());
    let usable = frequency.filter(|frequency| !frequency.usable_histogram.is_empty());
    Ok(ResultFigures {
        reach: reach.value.unsigned_abs(),
        reach_std_error: reach.standard_error,
        frequency: known.map(|frequency| bins(&frequency.relative_frequency_distribution)),
        frequency_std_error: known.map(|frequency| bins(&frequency.standard_errors)),
        registers_in: reach.registers_in.unsigned_abs(),
        active_registers: reach.active_registers,
        usable_registers: usable.map(|frequency| frequency.usable_registers.unsigned_abs()),
        usable_histogram: usable
            .map(|frequency| frequency.usable_histogram.iter().map(|count| count.unsigned_abs()).collect()),
    })
}

/// The reach with its interval, for people.
pub(super) fn reach_line(result: &ResultFigures) -> String {
    let (low, high) = interval(result);
    format!("reach      {:>12}   95 % confidence interval {low} to {high}", result.reach)
}

/// Prints the result beside the exact answer.
pub(super) fn print_summary(outcome: &Outcome) {
    let result = &outcome.result;
    println!();
    println!("{}", reach_line(result));
    println!(
        "in the clear {:>10}   (exact, for comparison only; error {:+.2} %)",
        outcome.truth.reach,
        outcome.reach_error_percent()
    );
    match &result.frequency {
        None if outcome.maximum_frequency == 1 => {}
        None => println!("frequency: no data"),
        Some(shares) => {
            println!("frequency    measured    ± 95 %   in the clear");
            for bin in 1..=u64::from(outcome.maximum_frequency) {
                let of = |map: Option<&BTreeMap<u64, f64>>| {
                    map.and_then(|map| map.get(&bin)).copied().unwrap_or(0.0) * 100.0
                };
                let plus = if bin == u64::from(outcome.maximum_frequency) { "+" } else { " " };
                println!(
                    "{bin:>9}{plus} {:>9.2} % {:>7.2} % {:>12.2} %",
                    of(Some(shares)),
                    1.96 * of(result.frequency_std_error.as_ref()),
                    of(Some(&outcome.truth.frequency))
                );
            }
            if let Some(distance) = outcome.shuffle_distance() {
                println!("shuffle distance to the exact frequencies: {distance:.4}");
            }
        }
    }
    println!(
        "registers: {} in, {} active{}",
        result.registers_in,
        result.active_registers,
        result.usable_registers.map(|usable| format!(", {usable} usable")).unwrap_or_default()
    );
    println!("{}", outcome.privacy_statement());
    let timings = &outcome.timings;
    println!(
        "sketch {:.2} s, encrypt {:.2} s (slowest publisher), computation {:.2} s, total {:.2} s",
        timings.sketch_s, timings.encrypt_s, timings.computation_s, timings.total_s
    );
}
