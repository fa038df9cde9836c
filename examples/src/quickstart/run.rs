//! One run, from the command line's options to the report.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use chacha20::ChaCha20Rng;
use halo_core::{
    clock::{Clock, Stopwatch, SystemClock},
    pb::{
        api,
        halo::{TimelineEntry, WatchMeasurementResponse},
    },
};
use halo_duchy::server::stage::Stage as DuchyStage;
use prost::Message;
use rand_core::SeedableRng;
use serde_json::Value;
use tokio::{sync::mpsc::UnboundedReceiver, time::sleep};
use tonic::{Streaming, transport::Channel};
use zeroize::Zeroize;

use super::{
    figures::{figures, print_summary, spent, stages},
    input::{Options, Plan},
};
use crate::{
    cluster::{self, Cluster, Layout, NoiseSettings, PartyEvent},
    consumer::{Ask, Consumer, Delivered},
    error::{Context, Error, Result, is_permanent, printable},
    outcome::{Outcome, Timings, TruthShares},
    report, shell,
    truth::Truth,
};

/// How long the Kingdom may take to answer its first call.
const START_TIME: Duration = Duration::from_secs(30);
/// So often the parties are started on other ports.
const START_ATTEMPTS: u32 = 3;
/// How long the Duchies' last lines are waited for.
const REST_TIME: Duration = Duration::from_millis(2_500);
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
    println!("to verify: {} verify --state-dir {}", shell::quoted(program), shell::quoted(&directory));
    Ok(())
}

pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
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
    let (cluster, events) = Cluster::new(program.to_owned(), layout);
    let mut run = Run { cluster, events, whole, timings: Timings::default(), encrypted_at: 0.0, shown: 0 };
    let (consumer, channel) = run.start().await?;
    let ask = Ask { maximum_frequency: plan.maximum_frequency, privacy: plan.ask };
    let created = consumer.create(channel.clone(), &ask, &mut rng).await?;
    println!("[{:6.1} s] consumer: created {}", run.whole.seconds(), created.name);
    let measurement = run.follow(&consumer, &channel, &created.name).await?;
    run.timings.total_s = run.whole.seconds();
    run.timings.computation_s = run.timings.total_s - run.encrypted_at;
    let output = measurement.results.first().ok_or_else(|| Error::new("the measurement has no result"))?;
    let encrypted = output.encrypted_result.as_ref().ok_or_else(|| Error::new("the measurement has no result"))?;
    let config = measurement.protocol_config.as_ref().map(Message::encode_to_vec).unwrap_or_default();
    let der = patiently(|| consumer.certificate(channel.clone(), &output.certificate)).await?;
    let result = consumer.open_delivered(&Delivered {
        ciphertext: &encrypted.ciphertext,
        certificate: &output.certificate,
        certificate_der: &der,
        protocol_config: &config,
        time_unix_s: SystemClock.now().unix_seconds(),
    })?;
    let timeline = run.rest(&consumer, &channel, &created.name, last_stage(plan)).await;
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

/// The stage in which a Duchy computes for the last time.
fn last_stage(plan: &Plan) -> DuchyStage {
    match plan.maximum_frequency.counts_frequency() {
        true => DuchyStage::ExecutionPhaseThree,
        false => DuchyStage::ExecutionPhaseTwo,
    }
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
    /// Starts every party and waits until the servers answer. Ports that somebody else took in the meantime are given up
    /// for others.
    async fn start(&mut self) -> Result<(Consumer, Channel)> {
        for _ in 0..START_ATTEMPTS {
            self.cluster.start_all()?;
            let consumer = Consumer::open(self.cluster.layout())?;
            match self.servers(&consumer).await? {
                Some(channel) => return Ok((consumer, channel)),
                None => {
                    println!("[{:6.1} s] another program took a port; trying others", self.whole.seconds());
                    self.cluster.stop_all().await?;
                    self.cluster.move_ports()?;
                    while self.events.try_recv().is_ok() {}
                }
            }
        }
        Err(Error::new("the ports of 127.0.0.1 that were free are taken by other programs again and again"))
    }

    /// Waits until the Kingdom answers and the Duchies listen; `None` when somebody else has the port of one of them.
    async fn servers(&mut self, consumer: &Consumer) -> Result<Option<Channel>> {
        let started = Stopwatch::start();
        loop {
            let connected = consumer.connect().await;
            let listening =
                self.cluster.layout().duchies.iter().all(|duchy| TcpStream::connect(&duchy.address).is_ok());
            if let Some(name) = self.cluster.reap().first() {
                if self.cluster.port_taken(name) {
                    return Ok(None);
                }
                return Err(Error::new(format!("{name} ended before it served\n{}", self.cluster.log_tail(name))));
            }
            match connected {
                Ok(channel) if listening => return Ok(Some(channel)),
                Err(error) if started.elapsed() > START_TIME => return Err(error),
                Ok(_) if started.elapsed() > START_TIME => return Err(Error::new("not every Duchy serves")),
                _ => sleep(LOOK).await,
            }
        }
    }

    /// Shows what happens until the measurement has a result. A party that goes is named, and waited for; what the
    /// Kingdom refuses for good ends the run.
    async fn follow(&mut self, consumer: &Consumer, channel: &Channel, name: &str) -> Result<api::Measurement> {
        loop {
            match consumer.watch(channel.clone(), name).await {
                Ok(changes) => {
                    if let Some(measurement) = self.changes(changes, consumer, channel, name).await? {
                        return Ok(measurement);
                    }
                }
                Err(error) if error.is_permanent() => return Err(error),
                // The Kingdom may be the party that has to be started again.
                Err(error) => println!("[{:6.1} s] waiting for the Kingdom: {error}", self.whole.seconds()),
            }
            self.look()?;
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Shows what happens over one connection; `None` when it broke.
    async fn changes(
        &mut self,
        mut changes: Streaming<WatchMeasurementResponse>,
        consumer: &Consumer,
        channel: &Channel,
        name: &str,
    ) -> Result<Option<api::Measurement>> {
        use api::measurement::State;
        loop {
            let change = tokio::select! {
                change = changes.message() => change,
                () = sleep(LOOK) => {
                    self.look()?;
                    self.show(consumer, channel, name).await;
                    continue;
                }
            };
            let measurement = match change {
                Ok(Some(change)) => change.measurement.unwrap_or_default(),
                Err(status) if is_permanent(&status) => {
                    return Err(status).context(|| "the measurement cannot be followed".into());
                }
                Ok(None) | Err(_) => return Ok(None),
            };
            match measurement.state() {
                State::Succeeded => {
                    self.show(consumer, channel, name).await;
                    return Ok(Some(measurement));
                }
                state @ (State::Failed | State::Cancelled) => {
                    self.show(consumer, channel, name).await;
                    let reason = measurement.failure.as_ref().map_or("", |failure| failure.message.as_str());
                    return Err(Error::new(format!("the measurement {}: {}", state.as_str_name(), printable(reason))));
                }
                _ => {}
            }
        }
    }

    /// The timeline, once the Duchies' last lines are on it or a moment has passed. The result is there already: nothing
    /// that happens now spoils it.
    async fn rest(
        &mut self,
        consumer: &Consumer,
        channel: &Channel,
        name: &str,
        last: DuchyStage,
    ) -> Vec<TimelineEntry> {
        let mut timeline = Vec::new();
        let started = Stopwatch::start();
        while started.elapsed() < REST_TIME {
            if let Ok(entries) = consumer.timeline(channel.clone(), name).await {
                timeline = entries;
            }
            let stages = timeline.iter().filter_map(|entry| entry.stage_attempt.as_ref());
            if stages.filter(|stage| stage.stage == last.number()).count() >= self.cluster.layout().duchies.len() {
                break;
            }
            sleep(LOOK / 2).await;
        }
        if let Err(error) = self.look() {
            println!("[{:6.1} s] after the result: {error}", self.whole.seconds());
        }
        timeline
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
                PartyEvent::Line { name, line } => self.publisher_line(&name, &line)?,
            }
        }
        Ok(())
    }

    fn publisher_line(&mut self, name: &str, line: &str) -> Result<()> {
        let Ok(event) = serde_json::from_str::<Value>(line) else { return Ok(()) };
        let seconds = event["seconds"].as_f64().unwrap_or(0.0);
        let message = || printable(event["message"].as_str().unwrap_or_default());
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
            // Nobody is here to repair it while the run goes on.
            "failed" if event["retried"] == false => {
                return Err(Error::new(format!("{name} cannot answer: {}", message())));
            }
            "refused" | "failed" => message(),
            _ => return Ok(()),
        };
        println!("[{:6.1} s] {name}: {said}", self.whole.seconds());
        Ok(())
    }

    /// Prints what is new on the timeline.
    async fn show(&mut self, consumer: &Consumer, channel: &Channel, name: &str) {
        // Progress is a courtesy; a Kingdom that cannot be asked now is asked again.
        let Ok(timeline) = consumer.timeline(channel.clone(), name).await else { return };
        for entry in timeline.iter().skip(self.shown) {
            let actor = entry.actor.rsplit('/').next().unwrap_or_default();
            println!("[{:6.1} s] {}: {}", self.whole.seconds(), printable(actor), printable(&entry.message));
        }
        self.shown = self.shown.max(timeline.len());
    }
}

/// Makes a call again until it succeeds, is refused for good, or takes too long.
async fn patiently<T, F: Future<Output = Result<T>>>(call: impl Fn() -> F) -> Result<T> {
    let started = Stopwatch::start();
    loop {
        match call().await {
            Err(error) if !error.is_permanent() && started.elapsed() < START_TIME => sleep(LOOK).await,
            outcome => return outcome,
        }
    }
}

/// A generator seeded by the operating system: every key of the run comes from it, so its state is wiped.
fn system_rng() -> Result<ChaCha20Rng> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)
        .map_err(|error| Error::new(format!("the operating system gives no randomness: {error}")))?;
    let generator = ChaCha20Rng::from_seed(seed);
    seed.zeroize();
    Ok(generator)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tonic::Status;

    use super::*;

    #[test]
    fn an_outage_passes_and_a_refusal_stays() {
        let calls = Cell::new(0);
        let call = |status: Option<Status>| {
            calls.set(calls.get() + 1);
            async move { status.map_or(Ok(7), |status| Err(status).context(|| "a call".into())) }
        };
        let outage = || call((calls.get() < 2).then(|| Status::unavailable("the Kingdom starts")));
        assert_eq!(block_on(patiently(outage)).unwrap(), 7);
        assert_eq!(calls.replace(0), 3);
        let refused = block_on(patiently(|| call(Some(Status::permission_denied("no"))))).unwrap_err().to_string();
        assert!(refused.starts_with("a call"), "{refused}");
        assert_eq!(calls.get(), 1);
    }
}
