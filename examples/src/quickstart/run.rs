//! One run, from the command line's options to the report.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use halo_core::{
    clock::Stopwatch,
    pb::{api, halo::TimelineEntry},
    wire,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::Value;
use tokio::{sync::mpsc::UnboundedReceiver, time::sleep};
use tonic::transport::Channel;

use super::input::{Options, Plan};
use crate::{
    cluster::{self, Cluster, Layout, NoiseSettings, PartyEvent},
    consumer::{Ask, Consumer},
    error::{Context, Error, Result},
    outcome::{Outcome, PrivacySpent, ResultFigures, Stage, Timings, TruthShares, interval},
    report,
    truth::Truth,
};

/// How long the Kingdom may take to answer its first call.
const START_TIME: Duration = Duration::from_secs(30);
/// How often the parties' processes are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Runs everything, prints the result beside the exact answer, and writes the report. `program` is this program, which
/// runs again as every party.
///
/// # Errors
/// What was wrong with the options, the impressions or the machine, in words.
pub fn run(program: &Path, options: &Options) -> Result<()> {
    let plan = options.plan()?;
    let directory = state_directory(options)?;
    let publishers = options.publishers(&directory)?;
    println!(
        "{} publishers, {} Duchies and a Kingdom, each a process of its own; sketch of {} registers, decay rate {}",
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
    println!("state directory: {}", directory.display());
    let truth = Truth::count(&publishers, plan.maximum_frequency.get())?;
    let outcome = block_on(measure(program, &plan, &directory, publishers, &truth))?;
    print_summary(&outcome);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&outcome).context(|| "cannot lay out the figures".into())?;
        fs::write(path, text).context(|| format!("cannot write {}", path.display()))?;
    }
    fs::write(&options.report, report::html(&outcome))
        .context(|| format!("cannot write {}", options.report.display()))?;
    println!("report: {}", options.report.display());
    println!("to verify: {} verify --state-dir {}", program.display(), directory.display());
    Ok(())
}

/// Reproduces the result of an earlier run from the Kingdom's stored ciphertext, the consumer's key and the parties'
/// certificates alone.
///
/// # Errors
/// When there is no result, or a signature or the decryption fails.
pub fn verify(directory: &Path) -> Result<()> {
    let layout = Layout::open(directory)?;
    let consumer = Consumer::open(&layout)?;
    let kingdom = layout.file(&layout.kingdom, "state");
    let stored = block_on(async {
        let measurements = halo_kingdom::server::stored_measurements(&kingdom).await;
        let measurements = measurements.context(|| "the Kingdom's state cannot be read".into())?;
        let newest = measurements.first().ok_or_else(|| Error::new("the Kingdom has no measurement"))?;
        let stored = halo_kingdom::server::stored_result(&kingdom, &newest.name).await;
        stored.context(|| format!("{}, which is {}, has no result that can be read", newest.name, newest.state))
    })?;
    consumer.check_spec(
        &stored.measurement_spec,
        &stored.measurement_spec_signature_algorithm_oid,
        &stored.measurement_spec_signature,
    )?;
    let certificate = stored.certificate.to_string();
    let result = consumer.open_result(&stored.encrypted_result, &certificate, &stored.certificate_der)?;
    let figures = figures(&result)?;
    println!("{}: the aggregator's signature holds, and the consumer's key opens the result", stored.measurement);
    println!("{}", reach_line(&figures));
    for (bin, share) in figures.frequency.iter().flatten() {
        println!("{bin:>9}  {:>9.2} %", share * 100.0);
    }
    Ok(())
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context(|| "cannot run".into())?.block_on(work)
}

/// The given directory, or a new temporary one that is kept: it is what `verify` looks into.
fn state_directory(options: &Options) -> Result<PathBuf> {
    match &options.state_dir {
        Some(directory) => {
            fs::create_dir_all(directory).context(|| format!("cannot create {}", directory.display()))?;
            Ok(directory.clone())
        }
        None => {
            let directory = tempfile::Builder::new().prefix("halo-quickstart-").tempdir();
            Ok(directory.context(|| "cannot create a temporary directory".into())?.keep())
        }
    }
}

/// Starts every party, measures, and stops them.
async fn measure(
    program: &Path,
    plan: &Plan,
    directory: &Path,
    publishers: Vec<(String, PathBuf)>,
    truth: &Truth,
) -> Result<Outcome> {
    let whole = Stopwatch::start();
    let mut rng = system_rng()?;
    let noise =
        NoiseSettings { epsilon: plan.ask.epsilon.get(), delta: plan.ask.delta.get(), off: plan.privacy.is_none() };
    let layout = Layout::create(
        directory,
        cluster::Plan {
            duchies: plan.duchies,
            publishers,
            decay_rate: plan.sketch.decay_rate(),
            registers: plan.sketch.size(),
            noise,
        },
        &mut rng,
    )?;
    let consumer = Consumer::open(&layout)?;
    let (cluster, events) = Cluster::new(program.to_owned(), layout);
    let mut run = Run { cluster, events, whole, timings: Timings::default(), encrypted_at: 0.0, shown: 0 };
    run.cluster.start_all()?;
    let channel = run.kingdom(&consumer).await?;
    let ask = Ask { maximum_frequency: plan.maximum_frequency, privacy: plan.ask };
    let created = consumer.create(channel.clone(), &ask, &mut rng).await?;
    println!("[{:6.1} s] consumer: created {}", run.whole.seconds(), created.name);
    let measurement = run.follow(&consumer, &channel, &created.name).await?;
    run.timings.total_s = run.whole.seconds();
    run.timings.computation_s = run.timings.total_s - run.encrypted_at;
    let output = measurement.results.first().ok_or_else(|| Error::new("the measurement has no result"))?;
    let encrypted = output.encrypted_result.as_ref().ok_or_else(|| Error::new("the measurement has no result"))?;
    let der = consumer.certificate(channel.clone(), &output.certificate).await?;
    let result = consumer.open_result(&encrypted.ciphertext, &output.certificate, &der)?;
    run.rest(&consumer, &channel, &created.name).await?;
    let timeline = consumer.timeline(channel, &created.name).await?;
    let parties = run.cluster.usage();
    run.cluster.stop_all().await?;
    Ok(Outcome {
        protocol: "llv2",
        measurement: created.name.clone(),
        maximum_frequency: plan.maximum_frequency.get(),
        noise_off: plan.privacy.is_none(),
        privacy_spent: spent(plan),
        publishers: truth.publishers.clone(),
        truth: TruthShares { reach: truth.reach, frequency: (1..).zip(truth.shares()).collect() },
        result: figures(&result)?,
        parties,
        timings: run.timings,
        stages: stages(&created, &timeline)?,
    })
}

/// A run under way.
struct Run {
    cluster: Cluster,
    events: UnboundedReceiver<PartyEvent>,
    whole: Stopwatch,
    timings: Timings,
    /// When the last publisher had encrypted its sketch, in seconds of the run.
    encrypted_at: f64,
    /// Lines of the timeline that were printed.
    shown: usize,
}

impl Run {
    /// Waits until the Kingdom answers.
    async fn kingdom(&mut self, consumer: &Consumer) -> Result<Channel> {
        let started = Stopwatch::start();
        loop {
            match consumer.connect().await {
                Ok(channel) => return Ok(channel),
                Err(error) if started.elapsed() > START_TIME => return Err(error),
                Err(_) => {}
            }
            if let Some(name) = self.cluster.reap().first() {
                return Err(Error::new(format!("{name} ended before it served\n{}", self.cluster.log_tail(name))));
            }
            sleep(LOOK).await;
        }
    }

    /// Shows what happens until the measurement has a result. A party that goes is named, and waited for.
    async fn follow(&mut self, consumer: &Consumer, channel: &Channel, name: &str) -> Result<api::Measurement> {
        use api::measurement::State;
        loop {
            let mut changes = match consumer.watch(channel.clone(), name).await {
                Ok(changes) => changes,
                // The Kingdom may be the party that has to be started again.
                Err(error) => {
                    println!("waiting for the Kingdom: {error}");
                    self.look()?;
                    sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            loop {
                let change = tokio::select! {
                    change = changes.message() => change,
                    () = sleep(LOOK) => {
                        self.look()?;
                        self.show(consumer, channel, name).await;
                        continue;
                    }
                };
                let Ok(Some(change)) = change else { break };
                let Some(measurement) = change.measurement else { continue };
                match measurement.state() {
                    State::Succeeded => {
                        self.show(consumer, channel, name).await;
                        return Ok(measurement);
                    }
                    State::Failed | State::Cancelled => {
                        self.show(consumer, channel, name).await;
                        let reason = measurement.failure.as_ref().map_or("", |failure| failure.message.as_str());
                        return Err(Error::new(format!(
                            "the measurement {}: {reason}",
                            measurement.state().as_str_name()
                        )));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Waits a moment for the Duchies' last lines on the timeline.
    async fn rest(&mut self, consumer: &Consumer, channel: &Channel, name: &str) -> Result<()> {
        for _ in 0..20 {
            let timeline = consumer.timeline(channel.clone(), name).await?;
            let last =
                timeline.iter().filter_map(|entry| entry.stage_attempt.as_ref()).filter(|stage| stage.stage == 12);
            if last.count() >= self.cluster.layout().duchies.len() {
                break;
            }
            sleep(LOOK / 2).await;
        }
        self.look()
    }

    /// Takes note of what the parties' processes print, and of those that ended. A party that was killed or stopped is
    /// waited for; one that gave up would give up again.
    fn look(&mut self) -> Result<()> {
        self.cluster.reap();
        while let Ok(event) = self.events.try_recv() {
            match event {
                PartyEvent::Ended { name, message, gave_up: true } => {
                    return Err(Error::new(format!("{message}\n{}", self.cluster.log_tail(&name))));
                }
                PartyEvent::Ended { message, .. } => println!("[{:6.1} s] {message}", self.whole.seconds()),
                PartyEvent::Line { name, line } => self.publisher_line(&name, &line),
            }
        }
        Ok(())
    }

    fn publisher_line(&mut self, name: &str, line: &str) {
        let Ok(event) = serde_json::from_str::<Value>(line) else { return };
        let seconds = event["seconds"].as_f64().unwrap_or(0.0);
        let said = match event["event"].as_str().unwrap_or_default() {
            "sketched" => {
                self.timings.sketch_s = self.timings.sketch_s.max(seconds);
                format!("sketched {} impressions in {seconds:.2} s", event["impressions"])
            }
            "encrypted" => {
                self.timings.encrypt_s = self.timings.encrypt_s.max(seconds);
                self.encrypted_at = self.whole.seconds();
                format!("encrypted {} registers in {seconds:.2} s", event["records"])
            }
            "refused" | "failed" => event["message"].as_str().unwrap_or_default().to_owned(),
            _ => return,
        };
        println!("[{:6.1} s] {name}: {said}", self.whole.seconds());
    }

    /// Prints what is new on the timeline.
    async fn show(&mut self, consumer: &Consumer, channel: &Channel, name: &str) {
        // Progress is a courtesy; a Kingdom that cannot be asked now is asked again.
        let Ok(timeline) = consumer.timeline(channel.clone(), name).await else { return };
        for entry in timeline.iter().skip(self.shown) {
            let actor = entry.actor.rsplit('/').next().unwrap_or_default();
            println!("[{:6.1} s] {actor}: {}", self.whole.seconds(), entry.message);
        }
        self.shown = self.shown.max(timeline.len());
    }
}

/// The stages that the Duchies reported, with what each cost.
fn stages(measurement: &api::Measurement, timeline: &[TimelineEntry]) -> Result<Vec<Stage>> {
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
                party: entry.actor.rsplit('/').next().unwrap_or_default().to_owned(),
                name: attempt.stage_name.clone(),
                start_s,
                end_s: start_s + attempt.wall_seconds,
                cpu_s: attempt.cpu_seconds,
                records_out: attempt.records_out.unsigned_abs(),
                bytes_out: attempt.bytes_out.unsigned_abs(),
                peak_rss_bytes: attempt.peak_resident_bytes.unsigned_abs(),
            })
        })
        .collect()
}

/// Reach and frequency each cost ε and δ.
fn spent(plan: &Plan) -> Option<PrivacySpent> {
    let privacy = plan.privacy?;
    let releases = if plan.maximum_frequency.counts_frequency() { 2.0 } else { 1.0 };
    Some(PrivacySpent { epsilon: releases * privacy.epsilon.get(), delta: releases * privacy.delta.get() })
}

/// The figures of a decrypted result.
fn figures(result: &api::measurement::Result) -> Result<ResultFigures> {
    let reach = result.reach.as_ref().ok_or_else(|| Error::new("the result has no reach"))?;
    let bins = |map: &std::collections::BTreeMap<i64, f64>| {
        map.iter().map(|(bin, share)| (bin.unsigned_abs(), *share)).collect()
    };
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

fn reach_line(result: &ResultFigures) -> String {
    let (low, high) = interval(result);
    format!("reach      {:>12}   95 % confidence interval {low} to {high}", result.reach)
}

fn print_summary(outcome: &Outcome) {
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
