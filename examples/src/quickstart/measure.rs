//! The parties at work, from their start to the opened results.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use chacha20::ChaCha20Rng;
use halo_core::{
    clock::{Clock, Stopwatch, SystemClock},
    measurement::ProtocolKind,
    pb::{
        api,
        halo::{TimelineEntry, WatchMeasurementResponse},
    },
    resource::MeasurementName,
    wire,
};
use prost::Message;
use rand_core::SeedableRng;
use serde_json::Value;
use tokio::{sync::mpsc::UnboundedReceiver, time::sleep};
use tonic::{Streaming, transport::Channel};
use zeroize::Zeroize;

use super::{
    figures::{exact, exact_of, figures, spent, stages},
    plan::Plan,
    results::check_signers,
};
use crate::{
    cluster::{self, Cluster, Layout, NoiseSettings, PartyEvent, layout::party_name},
    consumer::{Ask, Consumer, Delivered, Signer},
    error::{Context, Error, Result, is_permanent, printable},
    outcome::{Found, Outcome, PublisherFound, Stage, Timings, Upload},
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

pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context(|| "cannot run".into())?.block_on(work)
}

/// Starts every party, measures, and stops them. `program` is this program, which runs again as every party.
pub(super) async fn measure(
    program: &Path,
    plan: &Plan,
    directory: &Path,
    publishers: Vec<(String, PathBuf)>,
    truth: &Truth,
) -> Result<Outcome> {
    let whole = Stopwatch::start();
    let mut rng = system_rng()?;
    let layout = Layout::create(directory, cluster_plan(plan, publishers), &mut rng)?;
    let (cluster, events) = Cluster::new(program.to_owned(), layout);
    let uploads =
        truth.publishers.iter().map(|publisher| Upload { publisher: publisher.name.clone(), ..Upload::default() });
    let mut run = Run {
        cluster,
        events,
        whole,
        timings: Timings::default(),
        uploads: uploads.collect(),
        encrypted_at: None,
        shown: 0,
    };
    let (consumer, channel) = run.start().await?;
    let created = run.create(&consumer, &channel, plan, &mut rng).await?;
    let protocol = created.protocol;
    let mut opened = Vec::new();
    let mut reasons = Vec::new();
    for measurement in &created.measurements {
        run.shown = 0;
        let done = run.follow(&consumer, &channel, &measurement.name).await?;
        opened.extend(open(&consumer, &channel, &done).await?);
        run.timings.total_s = run.whole.seconds();
        let timeline = run.rest(&consumer, &channel, &measurement.name, last_stages(protocol, plan)).await;
        if reasons.is_empty() {
            reasons = planner_reasons(&timeline);
        }
    }
    run.timings.computation_s = run.encrypted_at.map_or(0.0, |encrypted| (run.timings.total_s - encrypted).max(0.0));
    let publishers = run.cluster.layout().publishers.clone();
    let asked: Vec<&str> = publishers.iter().map(|publisher| publisher.id.as_str()).collect();
    check_signers(opened.iter().map(|(signer, _)| signer), &asked)?;
    let mut outcome = Outcome {
        protocol: protocol.name(),
        planner: reasons,
        measurement_type: plan.kind(),
        measurements: created.measurements.iter().map(|measurement| measurement.name.clone()).collect(),
        maximum_frequency: plan.maximum_frequency().get(),
        population: plan.population.filter(|_| protocol.uses_vectors()).map(|population| population.to_string()),
        noise_off: plan.privacy.is_none(),
        privacy_spent: spent(plan, opened.len()),
        publishers: truth.publishers.clone(),
        joint: None,
        results: Vec::new(),
        parties: run.cluster.usage(),
        uploads: run.uploads.clone(),
        timings: run.timings,
        stages: Vec::new(),
    };
    for (signer, result) in &opened {
        let result = figures(plan.kind(), result)?;
        match signer {
            Signer::Duchy(_) => outcome.joint = Some(Found { truth: exact(truth), result }),
            Signer::Publisher(id) => {
                let place = asked.iter().position(|asked| asked == id).unwrap_or_default();
                let publisher = &truth.publishers[place];
                let found = Found { truth: exact_of(plan, publisher), result };
                outcome.results.push(PublisherFound { publisher: publisher.name.clone(), found });
            }
        }
    }
    let order = |found: &PublisherFound| truth.publishers.iter().position(|one| one.name == found.publisher);
    outcome.results.sort_by_key(order);
    outcome.stages = run.stages(&created).await?;
    run.cluster.stop_all().await?;
    Ok(outcome)
}

/// What is set up for the parties.
fn cluster_plan(plan: &Plan, publishers: Vec<(String, PathBuf)>) -> cluster::Plan {
    let noise =
        NoiseSettings { epsilon: plan.ask.epsilon.get(), delta: plan.ask.delta.get(), off: plan.privacy.is_none() };
    cluster::Plan {
        duchies: plan.duchies,
        publishers,
        protocols: plan.offered.clone(),
        population: plan.population,
        decay_rate: plan.sketch.decay_rate(),
        registers: plan.sketch.size(),
        noise,
    }
}

/// Verifies and decrypts every result of a measurement.
async fn open(
    consumer: &Consumer,
    channel: &Channel,
    measurement: &api::Measurement,
) -> Result<Vec<(Signer, api::measurement::Result)>> {
    let config = measurement.protocol_config.as_ref().map(Message::encode_to_vec).unwrap_or_default();
    let mut opened = Vec::new();
    for output in &measurement.results {
        let encrypted = output.encrypted_result.as_ref().ok_or_else(|| Error::new("the measurement has no result"))?;
        let der = patiently(|| consumer.certificate(channel.clone(), &output.certificate)).await?;
        opened.push(consumer.open_delivered(&Delivered {
            ciphertext: &encrypted.ciphertext,
            certificate: &output.certificate,
            certificate_der: &der,
            protocol_config: &config,
            time_unix_s: SystemClock.now().unix_seconds(),
        })?);
    }
    Ok(opened)
}

/// The last stages in which Duchies compute, and how many Duchies report one of them.
fn last_stages(protocol: ProtocolKind, plan: &Plan) -> (&'static [&'static str], usize) {
    match protocol {
        ProtocolKind::Llv2 if plan.maximum_frequency().counts_frequency() => (&["EXECUTION_PHASE_THREE"], plan.duchies),
        ProtocolKind::Llv2 => (&["EXECUTION_PHASE_TWO"], plan.duchies),
        ProtocolKind::Rollv2 => (&["EXECUTION_PHASE"], plan.duchies),
        ProtocolKind::Hmss | ProtocolKind::HmssNative => (&["SHUFFLE_PHASE", "AGGREGATION_PHASE"], plan.duchies),
        ProtocolKind::Trustee => (&["COMPUTATION_PHASE"], 1),
        ProtocolKind::Direct => (&[], 0),
    }
}

/// What the Kingdom's planner said of the protocols: first why it took one, then why it did not take each of the others.
fn planner_reasons(timeline: &[TimelineEntry]) -> Vec<String> {
    let planned = timeline.iter().find_map(|entry| entry.message.strip_prefix("planned "));
    let reasons = planned.into_iter().flat_map(|reasons| reasons.split("; not "));
    reasons
        .enumerate()
        .map(|(place, reason)| if place == 0 { printable(reason) } else { format!("not {}", printable(reason)) })
        .collect()
}

/// What was asked of the Kingdom.
struct Created {
    measurements: Vec<api::Measurement>,
    protocol: ProtocolKind,
}

/// A run under way.
struct Run {
    cluster: Cluster,
    events: UnboundedReceiver<PartyEvent>,
    whole: Stopwatch,
    timings: Timings,
    /// What each publisher sent.
    uploads: Vec<Upload>,
    /// When the last publisher had encrypted what it sends, in seconds of the run; absent when none did.
    encrypted_at: Option<f64>,
    /// Lines of the present measurement's timeline that were printed.
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

    /// Asks for one measurement, or for one of each publisher.
    async fn create(
        &self,
        consumer: &Consumer,
        channel: &Channel,
        plan: &Plan,
        rng: &mut ChaCha20Rng,
    ) -> Result<Created> {
        let one = Ask { kind: plan.asked, interval: plan.interval, publishers: Vec::new() };
        let of = |id: &str| Ask { publishers: vec![id.to_owned()], ..one.clone() };
        let asks = match plan.one_each() {
            true => self.cluster.layout().publishers.iter().map(|publisher| of(&publisher.id)).collect(),
            false => vec![one],
        };
        let mut measurements = Vec::with_capacity(asks.len());
        for ask in &asks {
            let created = consumer.create(channel.clone(), ask, rng).await?;
            println!("[{:6.1} s] consumer: created {}", self.whole.seconds(), created.name);
            measurements.push(created);
        }
        let config = measurements.first().and_then(|measurement| measurement.protocol_config.as_ref());
        let config = config.ok_or_else(|| Error::new("the measurement has no protocol"))?.encode_to_vec();
        let config = wire::parse_protocol_config(&config).context(|| "the measurement's protocol".into())?;
        let protocol = config.protocol.kind();
        println!("[{:6.1} s] protocol: {protocol}", self.whole.seconds());
        if let Some(population) = config.protocol.population() {
            println!(
                "[{:6.1} s] the vectors are over the VIDs {population}, {} people; this range is public",
                self.whole.seconds(),
                population.size()
            );
        }
        Ok(Created { measurements, protocol })
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
                Some(event) = self.events.recv() => {
                    self.note(event)?;
                    continue;
                }
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
        (last, lines): (&[&str], usize),
    ) -> Vec<TimelineEntry> {
        let mut timeline = Vec::new();
        let started = Stopwatch::start();
        while started.elapsed() < REST_TIME {
            if let Ok(entries) = consumer.timeline(channel.clone(), name).await {
                timeline = entries;
            }
            let stages = timeline.iter().filter_map(|entry| entry.stage_attempt.as_ref());
            if !timeline.is_empty() && stages.filter(|stage| last.contains(&stage.stage_name.as_str())).count() >= lines
            {
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
            self.note(event)?;
        }
        Ok(())
    }

    fn note(&mut self, event: PartyEvent) -> Result<()> {
        match event {
            PartyEvent::Ended { name, message, gave_up: true } => {
                return Err(Error::new(format!("{message}\n{}", self.cluster.log_tail(&name))));
            }
            PartyEvent::Ended { message, .. } => println!("[{:6.1} s] {message}", self.whole.seconds()),
            PartyEvent::Line { name, line } => self.publisher_line(&name, &line)?,
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
            "counted" => {
                self.timings.sketch_s = self.timings.sketch_s.max(seconds);
                format!("counted {} impressions in {seconds:.2} s", event["impressions"])
            }
            "encrypted" => {
                self.timings.encrypt_s = self.timings.encrypt_s.max(seconds);
                self.encrypted_at = Some(self.whole.seconds());
                let records = event["records"].as_u64().unwrap_or_default();
                self.upload(name, |upload| upload.records = records);
                format!("encrypted {records} records in {seconds:.2} s")
            }
            "uploaded" => {
                let bytes = event["bytes"].as_u64().unwrap_or_default();
                self.upload(name, |upload| upload.bytes += bytes);
                format!("uploaded {bytes} bytes in {seconds:.2} s")
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

    /// Notes what a publisher sent.
    fn upload(&mut self, party: &str, note: impl FnOnce(&mut Upload)) {
        let parties = &self.cluster.layout().publishers;
        if let Some(place) = parties.iter().position(|publisher| party_name(publisher) == party) {
            note(&mut self.uploads[place]);
        }
    }

    /// The stages that the Duchies reported, as the Kingdom's operator reads them: numbers of records, which follow from
    /// the publishers' data, are not for a consumer.
    async fn stages(&self, created: &Created) -> Result<Vec<Stage>> {
        let layout = self.cluster.layout();
        let state = layout.file(&layout.kingdom, "state");
        let mut found = Vec::new();
        for measurement in &created.measurements {
            let begin = measurement.create_time.as_ref().ok_or_else(|| Error::new("the measurement has no time"))?;
            let begin = wire::timestamp("create_time", begin).context(|| "the measurement".into())?;
            let name: MeasurementName = measurement.name.parse().context(|| "the measurement".into())?;
            let attempts = halo_kingdom::server::stored_stage_attempts(&state, &name).await;
            found.extend(stages(begin, &attempts.context(|| "the Kingdom's state cannot be read".into())?)?);
        }
        Ok(found)
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
