//! A publisher's process against simulated servers, over mutual TLS on loopback.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::parties::{
    self, Authority, CONSUMER, PUBLISHER, REQUISITION, World, authority, duchy_certificate, event_group, issue,
};
use crate::servers::{SimulatedDuchy, SimulatedKingdom, serve};
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use halo_core::{
    clock::{Clock, SystemClock, Timestamp},
    pb::api::requisition::{State, refusal::Justification},
    transport::TransportError,
};
use halo_edp_sdk::client::{ClientError, Config, Event, Publisher};
use parquet::arrow::ArrowWriter;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

/// How long anything in here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A publisher's directory, and the servers that it talks to.
pub(crate) struct Scene {
    directory: tempfile::TempDir,
    pub(crate) kingdom: SimulatedKingdom,
    pub(crate) duchy: SimulatedDuchy,
    /// How many people the events are of.
    pub(crate) people: i64,
}

impl Scene {
    /// Servers for the world as it stands.
    pub(crate) async fn new(world: &World) -> Self {
        let own = authority("publisher");
        Self::of(world, &own, &own).await
    }

    /// The same, with Duchies that know the clients of another authority only.
    async fn with_clients(world: &World, others: &Authority) -> Self {
        Self::of(world, &authority("publisher"), others).await
    }

    async fn of(world: &World, own: &Authority, clients_of_duchies: &Authority) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| std::fs::write(directory.path().join(name), bytes).unwrap();
        let (certificate, key) = issue(own);
        write("tls.pem", certificate.as_bytes());
        write("tls.key", key.as_bytes());
        write("encryption.keyset", world.keyset.to_bytes().expose());
        write("consent.pem", world.publisher.pem.0.as_bytes());
        write("consent.key", world.publisher.pem.1.as_bytes());
        write("consumer.pem", world.consumer.authority.pem().as_bytes());

        let requisition = world.requisition();
        let mut certificates =
            vec![(requisition.measurement_consumer_certificate.clone(), world.consumer.certificate.der().to_vec())];
        certificates.push((requisition.data_provider_certificate.clone(), world.publisher.certificate.der().to_vec()));
        for (id, party) in &world.duchies {
            certificates.push((duchy_certificate(id), party.certificate.der().to_vec()));
        }
        let kingdom = SimulatedKingdom::new(requisition, certificates);
        let duchy = SimulatedDuchy::default();
        let kingdom_authority = authority("kingdom");
        let kingdom_port = serve(&kingdom_authority, own, Some(kingdom.clone()), None).await;
        write("kingdom.pem", kingdom_authority.pem().as_bytes());
        let mut text = format!(
            r#"
            data_provider = "{PUBLISHER}"
            events = "events.parquet"
            spool_dir = "spool"
            tls = {{ certificate = "tls.pem", private_key = "tls.key" }}
            kingdom = {{ endpoint = "https://localhost:{kingdom_port}", root_certificate = "kingdom.pem" }}
            encryption_private_keyset = "encryption.keyset"
            consent = {{ certificate = "consent.pem", private_key = "consent.key" }}
            [[measurement_consumers]]
            id = "{}"
            root_certificate = "consumer.pem"
            "#,
            CONSUMER.rsplit_once('/').unwrap().1
        );
        for (id, party) in &world.duchies {
            let port = serve(&party.authority, clients_of_duchies, None, Some(duchy.clone())).await;
            write(&format!("{id}.pem"), party.authority.pem().as_bytes());
            text.push_str(&format!(
                "[[duchies]]\nid = \"{id}\"\nendpoint = \"https://localhost:{port}\"\nroot_certificate = \"{id}.pem\"\n"
            ));
        }
        write("publisher.toml", text.as_bytes());
        let scene = Self { directory, kingdom, duchy, people: 1_500 };
        scene.write_events("vid");
        scene
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    /// Adds a line to the configuration.
    pub(crate) fn configure(&self, line: &str) {
        let text = std::fs::read_to_string(self.path("publisher.toml")).unwrap();
        std::fs::write(self.path("publisher.toml"), format!("{line}\n{text}")).unwrap();
    }

    /// 3000 impressions.
    pub(crate) fn write_events(&self, column: &str) {
        let vids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..3_000).map(|row| row % self.people)));
        let batch = RecordBatch::try_from_iter([(column, vids)]).unwrap();
        let file = std::fs::File::create(self.path("events.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    /// Exchanges a file.
    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn config(&self) -> Config {
        Config::from_file(&self.path("publisher.toml")).unwrap()
    }

    /// Runs a publisher until it has reported what `last` waits for, and returns everything it reported.
    pub(crate) async fn run_until(&self, last: impl Fn(&Event) -> bool) -> Vec<Event> {
        let publisher = Publisher::new(self.config()).unwrap();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let mut events = Vec::new();
        let running = publisher.run(shutdown, |event| {
            if last(&event) {
                stop.cancel();
            }
            events.push(event);
        });
        tokio::time::timeout(PATIENCE, running).await.expect("it takes too long").unwrap();
        events
    }

    /// Runs a publisher until this holds no more.
    pub(crate) async fn run_while(&self, holds: impl Fn() -> bool) {
        let publisher = Publisher::new(self.config()).unwrap();
        let shutdown = CancellationToken::new();
        let running = publisher.run(shutdown.clone(), |_| {});
        let stopping = async {
            while holds() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            shutdown.cancel();
        };
        let (outcome, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(running, stopping) }).await.unwrap();
        outcome.unwrap();
    }

    pub(crate) fn spooled(&self) -> usize {
        let files = std::fs::read_dir(self.path("spool")).unwrap().map(|entry| entry.unwrap().file_name());
        let kept = |name: &str| name == "lock" || name.ends_with(".answered") || name.ends_with(".claim");
        files.filter(|file| !kept(&file.to_string_lossy())).count()
    }
}

/// The names of events, as they stand in JSON.
pub(crate) fn names(events: &[Event]) -> Vec<&'static str> {
    let name = |event: &Event| match event {
        Event::Opened { .. } => "opened",
        Event::Sketched { .. } => "sketched",
        Event::Counted { .. } => "counted",
        Event::Encrypted { .. } => "encrypted",
        Event::Uploaded { .. } => "uploaded",
        Event::Fulfilled { .. } => "fulfilled",
        Event::Refused { .. } => "refused",
        Event::Failed { .. } => "failed",
        _ => "other",
    };
    events.iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_goes_on_where_it_stopped() {
    let scene = Scene::new(&World::new()).await;
    scene.duchy.break_after(100_000);
    let events = scene.run_until(|event| matches!(event, Event::Fulfilled { .. })).await;
    assert_eq!(
        names(&events),
        ["opened", "sketched", "encrypted", "failed", "opened", "uploaded", "fulfilled"],
        "{events:?}"
    );
    assert!(matches!(&events[1], Event::Sketched { impressions: 3_000, registers: 1_400..=1_500, .. }), "{events:?}");
    let Event::Encrypted { records, .. } = events[2] else { panic!("{events:?}") };
    assert!(
        matches!(&events[3], Event::Failed { retried: true, message, .. } if message.contains("broke")),
        "{events:?}"
    );
    assert!(matches!(&events[6], Event::Fulfilled { requisition } if requisition == REQUISITION));

    let uploads = scene.duchy.uploads();
    assert_eq!(uploads.len(), 2);
    let (first, second) = (&uploads[0].header, &uploads[1].header);
    assert_eq!(first.offset, 0);
    assert!(second.offset >= 100_000 && second.offset < second.body_length, "{second:?}");
    assert_eq!(second.offset, uploads[0].received as i64);
    assert_eq!((&first.body_sha256, first.nonce), (&second.body_sha256, parties::NONCE));
    assert_eq!((second.record_count, second.body_length), (records as i64, records as i64 * 192));
    assert_eq!((first.key_list_hash.len(), first.requisition_fingerprint.len()), (32, 32));
    let body = scene.duchy.body();
    assert_eq!(Sha256::digest(&body).as_slice(), second.body_sha256);
    assert_eq!(scene.spooled(), 0, "a body that is submitted is removed");

    let Event::Uploaded { bytes, .. } = events[5] else { panic!("{events:?}") };
    assert_eq!(bytes as i64, second.body_length - second.offset);
    assert!(scene.duchy.largest_chunk() <= 64 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_publisher_sends_the_same_body() {
    let scene = Scene::new(&World::new()).await;
    scene.duchy.break_after(70_000);
    scene.run_until(|event| matches!(event, Event::Failed { retried: true, .. })).await;
    assert!(scene.spooled() > 0, "what is not submitted stays");
    // Not even the impressions are needed any more.
    std::fs::remove_file(scene.path("events.parquet")).unwrap();
    let events = scene.run_until(|event| matches!(event, Event::Fulfilled { .. })).await;
    assert_eq!(names(&events), ["opened", "uploaded", "fulfilled"], "{events:?}");
    let uploads = scene.duchy.uploads();
    assert_eq!(uploads[0].header.body_sha256, uploads[1].header.body_sha256);
    assert_eq!(Sha256::digest(scene.duchy.body()).as_slice(), uploads[1].header.body_sha256);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kingdom_that_knows_before_the_duchy_answers_interrupts_nothing() {
    let scene = Scene::new(&World::new()).await;
    scene.duchy.announce_to(&scene.kingdom);
    let events = scene.run_until(|event| matches!(event, Event::Fulfilled { .. })).await;
    assert_eq!(names(&events), ["opened", "sketched", "encrypted", "uploaded", "fulfilled"], "{events:?}");
    assert_eq!((scene.duchy.uploads().len(), scene.spooled()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requisition_that_is_fulfilled_meanwhile_needs_no_other_attempt() {
    let scene = Scene::new(&World::new()).await;
    scene.duchy.refuse_uploads(tonic::Code::Unavailable);
    let kingdom = scene.kingdom.clone();
    let events = scene
        .run_until(|event| {
            if matches!(event, Event::Failed { .. }) {
                kingdom.close(State::Fulfilled);
            }
            matches!(event, Event::Fulfilled { .. })
        })
        .await;
    assert_eq!(events.last(), Some(&Event::Fulfilled { requisition: REQUISITION.to_owned() }), "{events:?}");
    assert_eq!(scene.spooled(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_goes_on_with_its_token() {
    let scene = Scene::new(&World::new()).await;
    scene.kingdom.end_first_watch();
    // The requisition comes over the first watch and is closed by the Kingdom over the second.
    scene.duchy.refuse_uploads(tonic::Code::Unavailable);
    let closed = std::cell::Cell::new(false);
    scene
        .run_while(|| {
            if !closed.get() && !scene.duchy.uploads().is_empty() && scene.kingdom.tokens().len() >= 2 {
                scene.kingdom.close(State::Withdrawn);
                closed.set(true);
            }
            !closed.get() || scene.spooled() > 0
        })
        .await;
    assert_eq!(scene.kingdom.tokens()[..2], ["", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requisition_that_does_not_hold_is_refused_at_the_kingdom() {
    let mut world = World::new();
    world.llv2().set_noise_mechanism(halo_core::pb::api::protocol_config::NoiseMechanism::None);
    let scene = Scene::new(&world).await;
    let events = scene.run_until(|event| matches!(event, Event::Refused { .. })).await;
    assert_eq!(names(&events), ["refused"]);
    let refusals = scene.kingdom.refusals();
    assert_eq!((refusals.len(), refusals[0].name.as_str()), (1, REQUISITION));
    let refusal = refusals[0].refusal.as_ref().unwrap();
    assert_eq!(refusal.justification(), Justification::Declined);
    assert!(refusal.message.contains("allow_no_noise"), "{refusal:?}");

    // A filter cannot be evaluated, and the consumer learns it.
    let mut world = World::new();
    let events = halo_core::pb::api::requisition_spec::Events { event_groups: vec![event_group("a == 1")] };
    world.own_spec.requisition_type = Some(halo_core::pb::api::requisition_spec::RequisitionType::Events(events));
    let scene = Scene::new(&world).await;
    scene.run_until(|event| matches!(event, Event::Refused { .. })).await;
    assert_eq!(scene.kingdom.refusals()[0].refusal.as_ref().unwrap().justification(), Justification::Unfulfillable);

    // Proofs for another session are somebody's replay.
    let mut world = World::new();
    world.other_session = Some([1; 32]);
    let scene = Scene::new(&world).await;
    scene.run_until(|event| matches!(event, Event::Refused { .. })).await;
    let refusals = scene.kingdom.refusals();
    assert_eq!(refusals[0].refusal.as_ref().unwrap().justification(), Justification::ConsentSignalInvalid);
    assert!(scene.duchy.uploads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_counts_no_more() {
    let scene = Scene::new(&World::new()).await;
    scene.kingdom.revoke(duchy_certificate("worker1"));
    let events = scene.run_until(|event| matches!(event, Event::Refused { .. })).await;
    assert_eq!(names(&events), ["refused"]);
    let refusals = scene.kingdom.refusals();
    let refusal = refusals[0].refusal.as_ref().unwrap();
    assert_eq!(refusal.justification(), Justification::ConsentSignalInvalid);
    assert!(refusal.message.contains("duchies/worker1/certificates/") && refusal.message.contains("REVOKED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_events_are_reported_and_leave_the_requisition_open() {
    let scene = Scene::new(&World::new()).await;
    scene.write_events("user");
    let events = scene.run_until(|event| matches!(event, Event::Failed { .. })).await;
    assert!(
        matches!(&events[1], Event::Failed { retried: false, message, .. } if message.contains("no column `vid`")),
        "{events:?}"
    );
    assert!(scene.kingdom.refusals().is_empty() && scene.duchy.uploads().is_empty());
    // Once they are repaired and the publisher is started again, it answers.
    scene.write_events("vid");
    let events = scene.run_until(|event| matches!(event, Event::Fulfilled { .. })).await;
    assert_eq!(names(&events), ["opened", "sketched", "encrypted", "uploaded", "fulfilled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_closed_requisitions_are_swept_after_a_restart() {
    let scene = Scene::new(&World::new()).await;
    let spool = scene.path("spool");
    std::fs::create_dir(&spool).unwrap();
    // Of a requisition that nobody knows any more, of one that is open, and a stranger's file.
    let open = REQUISITION.rsplit_once('/').unwrap().1;
    for file in ["AAAAAAAAAA8.body".to_owned(), "AAAAAAAAAA8.manifest".into(), format!("{open}.x"), "notes".into()] {
        std::fs::write(spool.join(file), b"").unwrap();
    }
    std::fs::write(spool.join(format!("{open}.partial")), b"").unwrap();
    scene.duchy.refuse_uploads(tonic::Code::Unavailable);
    let gone = || !spool.join("AAAAAAAAAA8.body").exists() && !spool.join("AAAAAAAAAA8.manifest").exists();
    let kept = |scene: &Scene| scene.path("spool").join(format!("{open}.body")).exists();
    scene.run_while(|| !gone() || scene.duchy.uploads().is_empty()).await;
    assert!(kept(&scene), "the body of an open requisition stays");
    assert!(spool.join("notes").exists() && spool.join(format!("{open}.x")).exists());

    // Closed while the publisher did not run: the watch would never tell it.
    scene.kingdom.withdraw_unheard();
    scene.run_while(|| kept(&scene)).await;
    assert_eq!(scene.spooled(), 2, "nothing but what is not the publisher's");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requisition_is_forgotten_once_the_kingdom_has_closed_it() {
    let scene = Scene::new(&World::new()).await;
    let (publisher, shutdown) = (Publisher::new(scene.config()).unwrap(), CancellationToken::new());
    let opened = AtomicUsize::new(0);
    let answered = CancellationToken::new();
    let running = publisher.run(shutdown.clone(), |event| match event {
        Event::Opened { .. } => {
            opened.fetch_add(1, Ordering::Relaxed);
        }
        Event::Fulfilled { .. } => answered.cancel(),
        _ => {}
    });
    let telling = async {
        answered.cancelled().await;
        // A late update that calls it open starts nothing.
        scene.kingdom.close(State::Unfulfilled);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(opened.load(Ordering::Relaxed), 1);
        // After it was closed nothing of it is remembered.
        scene.kingdom.close(State::Fulfilled);
        tokio::time::sleep(Duration::from_millis(500)).await;
        scene.kingdom.close(State::Unfulfilled);
        while opened.load(Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        shutdown.cancel();
    };
    let (outcome, ()) = tokio::time::timeout(PATIENCE, async { tokio::join!(running, telling) }).await.unwrap();
    outcome.unwrap();
}

/// A clock that panics when it is read for the first time.
#[derive(Debug, Default)]
struct BrokenOnce(AtomicBool);

impl Clock for BrokenOnce {
    fn now(&self) -> Timestamp {
        assert!(self.0.swap(true, Ordering::Relaxed), "the clock is broken");
        SystemClock.now()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_refused_under_another_name() {
    let scene = Scene::new(&World::new()).await;
    scene.run_until(|event| matches!(event, Event::Fulfilled { .. })).await;
    scene.kingdom.ask_again("AAAAAAAAAA8");
    scene.kingdom.close(State::Unfulfilled);
    let events = scene.run_until(|event| matches!(event, Event::Refused { .. } | Event::Fulfilled { .. })).await;
    assert_eq!(names(&events), ["opened", "refused"], "{events:?}");
    let refusals = scene.kingdom.refusals();
    let refusal = refusals[0].refusal.as_ref().unwrap();
    assert_eq!(refusal.justification(), Justification::ConsentSignalInvalid);
    assert!(refusal.message.contains("this request was answered before under another name"), "{refusal:?}");
    assert_eq!((scene.duchy.uploads().len(), scene.spooled()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_defect_in_one_answer_leaves_the_publisher_running() {
    let scene = Scene::new(&World::new()).await;
    let publisher = Publisher::with_clock(scene.config(), Arc::new(BrokenOnce::default())).unwrap();
    let shutdown = CancellationToken::new();
    let (stop, kingdom) = (shutdown.clone(), scene.kingdom.clone());
    let mut events = Vec::new();
    let running = publisher.run(shutdown, |event| {
        match &event {
            // Closed and, under another name, asked for again.
            Event::Failed { .. } => kingdom.ask_again("AAAAAAAAAA8"),
            Event::Fulfilled { .. } | Event::Refused { .. } => stop.cancel(),
            _ => {}
        }
        events.push(event);
    });
    tokio::time::timeout(PATIENCE, running).await.expect("it takes too long").unwrap();
    assert!(
        matches!(&events[0], Event::Failed { retried: false, message, requisition }
            if message.contains("defect") && message.contains("the clock is broken") && requisition == REQUISITION),
        "{events:?}"
    );
    assert_eq!(names(&events), ["failed", "opened", "sketched", "encrypted", "uploaded", "fulfilled"], "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_whose_certificate_is_refused_says_so() {
    let scene = Scene::new(&World::new()).await;
    let (certificate, key) = issue(&authority("stranger"));
    std::fs::write(scene.path("tls.pem"), certificate).unwrap();
    std::fs::write(scene.path("tls.key"), key).unwrap();
    let publisher = Publisher::new(scene.config()).unwrap();
    let running = publisher.run(CancellationToken::new(), |_| {});
    let error = tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap_err();
    assert!(matches!(&error, ClientError::Transport(TransportError::CertificateRefused { .. })), "{error:?}");
    assert!(error.to_string().contains("refused this client certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_stands_still_is_broken_off_and_goes_on() {
    let scene = Scene::new(&World::new()).await;
    scene.configure("upload_patience_seconds = 1");
    scene.duchy.stall_once();
    let events = scene.run_until(|event| matches!(event, Event::Fulfilled { .. })).await;
    assert_eq!(names(&events)[3..], ["failed", "opened", "uploaded", "fulfilled"], "{events:?}");
    assert!(
        matches!(&events[3], Event::Failed { retried: true, message, .. } if message.contains("says nothing for 1 s")),
        "{events:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duchy_that_stays_silent_holds_up_nothing_that_is_fulfilled() {
    let scene = Scene::new(&World::new()).await;
    scene.duchy.stall_once();
    let closing = async {
        while scene.duchy.uploads().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        scene.kingdom.close(State::Fulfilled);
    };
    let running = scene.run_until(|event| matches!(event, Event::Fulfilled { .. }));
    let (events, ()) = tokio::join!(running, closing);
    assert_eq!(names(&events), ["opened", "sketched", "encrypted", "fulfilled"], "{events:?}");
    assert_eq!(scene.spooled(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duchy_that_refuses_the_certificate_is_not_tried_for_ever() {
    let scene = Scene::with_clients(&World::new(), &authority("others")).await;
    let events = scene.run_until(|event| matches!(event, Event::Failed { retried: false, .. })).await;
    let failures: Vec<_> = events.iter().filter(|event| matches!(event, Event::Failed { .. })).collect();
    assert_eq!(failures.len(), 4, "{events:?}");
    let Some(Event::Failed { message, .. }) = events.last() else { panic!("{events:?}") };
    assert!(message.contains("refused this client certificate") && message.contains("15 minutes"), "{message}");
    assert!(scene.kingdom.refusals().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_duchy_that_keeps_another_body_ends_the_attempts() {
    let scene = Scene::new(&World::new()).await;
    scene.duchy.refuse_uploads(tonic::Code::FailedPrecondition);
    let events = scene.run_until(|event| matches!(event, Event::Failed { .. })).await;
    assert!(matches!(events.last(), Some(Event::Failed { retried: false, .. })), "{events:?}");
}

#[tokio::test]
async fn credentials_that_cannot_be_used_are_named() {
    let scene = Scene::new(&World::new()).await;
    let refused = |scene: &Scene| Publisher::new(scene.config()).unwrap_err().to_string();
    let (_, other_key) = issue(&authority("other"));
    let own_key = std::fs::read(scene.path("tls.key")).unwrap();
    std::fs::write(scene.path("tls.key"), other_key).unwrap();
    let message = refused(&scene);
    assert!(message.contains("private key"), "{message}");
    std::fs::write(scene.path("tls.key"), own_key).unwrap();
    std::fs::write(scene.path("encryption.keyset"), b"nothing").unwrap();
    assert!(refused(&scene).contains("encryption.keyset"));
    assert!(Config::from_file(Path::new("/nowhere")).is_err());
}
