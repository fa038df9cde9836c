//! One run, from the command line's options to the report.

use std::{fs, path::Path};

use halo_core::clock::Stopwatch;
use halo_duchy::protocol::{
    DirectoryWorkspace,
    llv2::{Outcome as EngineOutcome, Parameters},
    local::{self, Envelope, Interceptor},
};
use halo_edp_sdk::spool::Spool;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{
    input::{Options, Plan},
    parties::{self, Keys, Published},
};
use crate::{
    error::{Context, Error, Result},
    outcome::{Outcome, PrivacySpent, ResultFigures, Stage, Timings, TruthShares, Usage, interval},
    report,
    truth::Truth,
};

/// Runs everything, prints the result beside the exact answer, and writes the report.
///
/// # Errors
/// What was wrong with the options, the impressions or the machine, in words.
pub fn run(options: &Options) -> Result<()> {
    let outcome = measure(options)?;
    print_summary(&outcome);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&outcome).context(|| "cannot lay out the figures".into())?;
        fs::write(path, text).context(|| format!("cannot write {}", path.display()))?;
    }
    fs::write(&options.report, report::html(&outcome))
        .context(|| format!("cannot write {}", options.report.display()))?;
    println!("report: {}", options.report.display());
    Ok(())
}

/// Runs everything.
fn measure(options: &Options) -> Result<Outcome> {
    let plan = options.plan()?;
    let temporary;
    let directory: &Path = match &options.state_dir {
        Some(directory) => {
            fs::create_dir_all(directory).context(|| format!("cannot create {}", directory.display()))?;
            directory
        }
        None => {
            temporary = tempfile::tempdir().context(|| "cannot create a temporary directory".into())?;
            temporary.path()
        }
    };
    let publishers = options.publishers(directory)?;
    println!(
        "{} publishers, {} Duchies, all in this process; sketch of {} registers, decay rate {}",
        publishers.len(),
        plan.duchies,
        plan.sketch.size(),
        plan.sketch.decay_rate()
    );
    match plan.privacy {
        Some(privacy) => {
            println!("noise: ε = {}, δ = {:e} each for reach and frequency", privacy.epsilon, privacy.delta.get())
        }
        None => println!("WARNING: every noise is switched off; the result is not differentially private"),
    }
    let truth = Truth::count(&publishers, plan.maximum_frequency.get())?;

    let mut rng = system_rng()?;
    let clock = Stopwatch::start();
    let keys = Keys::draw(plan.duchies, &mut rng)?;
    let spool = Spool::open(&directory.join("spool")).context(|| "cannot spool".into())?;
    let mut timings = Timings::default();
    let mut bodies = Vec::with_capacity(publishers.len());
    for (name, events) in &publishers {
        let Published { body, records, sketch_s, encrypt_s } =
            parties::publish(name, events, &plan, &keys, &spool, &mut rng)?;
        println!(
            "[{:6.1} s] {name}: {records} registers, sketched in {sketch_s:.2} s, encrypted in {encrypt_s:.2} s",
            clock.seconds()
        );
        timings.sketch_s = timings.sketch_s.max(sketch_s);
        timings.encrypt_s = timings.encrypt_s.max(encrypt_s);
        bodies.push(body);
    }

    let parameters = parties::parameters(&plan, publishers.len());
    let parties = keys.parties(&parameters, &bodies, &mut rng)?;
    let workspace =
        DirectoryWorkspace::new(directory.join("work")).context(|| "cannot work in the state directory".into())?;
    let computation = Stopwatch::start();
    let mut watch = Watch { whole: clock, computation, stages: Vec::new(), since: (0.0, cpu_seconds()) };
    let engine = local::run(&parties, &workspace, &mut watch).context(|| "the computation failed".into())?;
    watch.close("aggregator", "opening");
    let result = figures(&engine, &parameters)?;
    timings.computation_s = watch.computation.seconds();
    timings.total_s = watch.whole.seconds();
    for (name, _) in &publishers {
        spool.remove(name).context(|| "cannot clean up".into())?;
    }
    Ok(Outcome {
        protocol: "llv2",
        measurement: "in one process".to_owned(),
        maximum_frequency: plan.maximum_frequency.get(),
        noise_off: plan.privacy.is_none(),
        privacy_spent: spent(&plan),
        publishers: truth.publishers.clone(),
        truth: TruthShares { reach: truth.reach, frequency: (1..).zip(truth.shares()).collect() },
        result,
        parties: vec![Usage { name: "all parties".to_owned(), cpu_s: cpu_seconds(), peak_rss_bytes: peak_rss() }],
        timings,
        stages: watch.stages,
    })
}

/// Reach and frequency each cost ε and δ.
fn spent(plan: &Plan) -> Option<PrivacySpent> {
    let privacy = plan.privacy?;
    let releases = if plan.maximum_frequency.counts_frequency() { 2.0 } else { 1.0 };
    Some(PrivacySpent { epsilon: releases * privacy.epsilon.get(), delta: releases * privacy.delta.get() })
}

/// The figures that follow from what the aggregator opened.
fn figures(engine: &EngineOutcome, parameters: &Parameters) -> Result<ResultFigures> {
    let estimate = engine.estimate(parameters).context(|| "there is no estimate".into())?;
    let bins = |values: &[f64]| (1..).zip(values.iter().copied()).collect();
    // Only without noise do the raw counts tell nothing more than the result.
    let usable = engine
        .usable_histogram
        .as_ref()
        .filter(|_| parameters.noise.is_none())
        .map(|histogram| histogram.iter().map(|count| count.unsigned_abs()).collect::<Vec<_>>());
    Ok(ResultFigures {
        reach: estimate.reach.round() as u64,
        reach_std_error: estimate.reach_standard_error,
        frequency: estimate.frequency.as_ref().map(|frequency| bins(&frequency.shares)),
        frequency_std_error: estimate.frequency.as_ref().map(|frequency| bins(&frequency.standard_errors)),
        registers_in: engine.registers_in,
        active_registers: engine.active_registers,
        usable_registers: usable.as_ref().map(|histogram| histogram.iter().sum()),
        usable_histogram: usable,
    })
}

/// Sees every message between the Duchies: whatever was computed since the last one was the sender's work.
struct Watch {
    whole: Stopwatch,
    computation: Stopwatch,
    stages: Vec<Stage>,
    /// Wall and CPU time when the last message passed.
    since: (f64, f64),
}

impl Watch {
    fn close(&mut self, party: &str, name: &str) -> &mut Stage {
        let (wall, cpu) = (self.computation.seconds(), cpu_seconds());
        let stage = Stage {
            party: party.to_owned(),
            name: name.to_owned(),
            start_s: self.since.0,
            end_s: wall,
            cpu_s: cpu - self.since.1,
            records_out: 0,
            bytes_out: 0,
            peak_rss_bytes: peak_rss(),
        };
        println!("[{:6.1} s] {party}: {name}", self.whole.seconds());
        self.since = (wall, cpu);
        let position = self.stages.len();
        self.stages.push(stage);
        &mut self.stages[position]
    }
}

impl Interceptor for Watch {
    fn message(&mut self, envelope: &mut Envelope) {
        let records = envelope.body.records();
        let bytes = records * envelope.body.record_bytes() as u64;
        let name = format!("{} to {}", envelope.description, envelope.to);
        let stage = self.close(envelope.from.as_str(), &name);
        stage.records_out = records;
        stage.bytes_out = bytes;
    }
}

fn print_summary(outcome: &Outcome) {
    let result = &outcome.result;
    let (low, high) = interval(result);
    println!();
    println!("reach      {:>12}   95 % confidence interval {low} to {high}", result.reach);
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
                let of = |map: Option<&std::collections::BTreeMap<u64, f64>>| {
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

/// A generator seeded by the operating system.
fn system_rng() -> Result<ChaCha20Rng> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Error::new(format!("the operating system gives no randomness: {error}")))?;
    Ok(ChaCha20Rng::from_seed(seed))
}

/// CPU time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Highest resident memory of this process so far, in bytes; 0 where the system does not tell.
fn peak_rss() -> u64 {
    procfs::process::Process::myself()
        .and_then(|process| process.status())
        .ok()
        .and_then(|status| status.vmhwm)
        .map_or(0, |kibibytes| kibibytes * 1024)
}
