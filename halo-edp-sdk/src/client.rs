//! The publisher as a process: watches its requisitions at the Kingdom and answers each, until it is stopped.
//!
//! A requisition is opened, its events are counted, the answer is made into the spool, and handed in to the Duchy whose
//! turn it is, or to the Kingdom. When the process begins it tells the Kingdom what it can do. What is
//! interrupted goes on where it stopped, also after a restart of either side: errors of the network are retried for as
//! long as the requisition is open. What the publisher does not agree to is refused. What is wrong with its own data or
//! files is reported and leaves the requisition open, so that it can be answered once that is repaired and the process
//! started again.
//!
//! ```no_run
//! use halo_edp_sdk::client::{Config, Publisher};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example() -> Result<(), halo_edp_sdk::client::ClientError> {
//! let publisher = Publisher::new(Config::from_file("publisher.toml".as_ref())?)?;
//! let shutdown = CancellationToken::new(); // cancelled elsewhere, such as on SIGTERM
//! publisher.run(shutdown, |event| println!("{event:?}")).await
//! # }
//! ```

mod answer;
mod capabilities;
mod config;
mod submit;
mod sweep;
mod watch;

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    fs,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::FutureExt;
use halo_core::{
    clock::{Clock, SystemClock},
    pb::api::{self, requisition::State},
    resource::{DuchyId, RequisitionName},
    transport::{Client, Identity, Roots, TransportError},
};
use halo_crypto::{
    attestation::AttestationVerifier,
    batch::{Backend, BackendError},
    consent::{
        tink::PrivateKeyset,
        x509::{Certificate, SigningKey},
    },
    secret::Secret,
};
use serde::Serialize;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    requisition::{Recipient, Trust},
    sign::Signer,
    spool::Spool,
};
pub use config::{Config, ConsentConfig, ConsumerConfig, DuchyConfig, EndpointConfig, TlsConfig};

/// Updates of requisitions that may wait to be looked at.
const WAITING_UPDATES: usize = 64;

/// Why a publisher cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The configuration cannot be read or used: correct it.
    #[error("the publisher's configuration cannot be used: {problem}")]
    Config {
        /// Which file or key, and what is wrong with it.
        problem: String,
    },
    /// A certificate, key or keyset cannot be used: replace the file.
    #[error("{} cannot be used: {problem}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no connection with the Kingdom, and trying again does not help; or credentials for TLS cannot be used.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The Kingdom does not let this publisher watch its requisitions.
    #[error("the Kingdom refuses to hand out the requisitions of {publisher}: {detail}")]
    Refused {
        /// The publisher.
        publisher: String,
        /// What the Kingdom said.
        detail: String,
    },
    /// The curve's backend that the environment asks for cannot be had.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The spool directory cannot be used.
    #[error(transparent)]
    Spool(#[from] crate::Error),
}

/// What a publisher reports while it works. `requisition` is a resource name.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// Every signature of a requisition holds, and its events are about to be read.
    Opened {
        /// The requisition.
        requisition: String,
    },
    /// The impressions are sketched.
    Sketched {
        /// The requisition.
        requisition: String,
        /// Impressions that were read.
        impressions: u64,
        /// Registers of the sketch that are not empty.
        registers: u64,
        /// Time it took.
        seconds: f64,
    },
    /// The impressions are counted by person: a frequency vector, or a publisher's own result.
    Counted {
        /// The requisition.
        requisition: String,
        /// Impressions that were read.
        impressions: u64,
        /// Sampled people that were reached.
        people: u64,
        /// Time it took.
        seconds: f64,
    },
    /// The answer is encrypted, or cut into shares, and spooled.
    Encrypted {
        /// The requisition.
        requisition: String,
        /// Encrypted registers, noise included; cells of a share; bytes of an envelope; 1 for a result.
        records: u64,
        /// Time it took.
        seconds: f64,
    },
    /// The Duchy has the whole body, or the Kingdom the result.
    Uploaded {
        /// The requisition.
        requisition: String,
        /// Bytes that the last stream carried: less than the body where an earlier one was interrupted.
        bytes: u64,
        /// Time the last stream took.
        seconds: f64,
    },
    /// The requisition is answered.
    Fulfilled {
        /// The requisition.
        requisition: String,
    },
    /// The requisition is refused, and the Kingdom knows.
    Refused {
        /// The requisition.
        requisition: String,
        /// Why.
        message: String,
    },
    /// An attempt failed.
    Failed {
        /// The requisition.
        requisition: String,
        /// Why.
        message: String,
        /// Whether another attempt follows soon by itself. Otherwise somebody has to repair something first: a
        /// certificate, which is tried again after a quarter of an hour, or anything else, which is tried again when
        /// the process is started again.
        retried: bool,
    },
}

/// A publisher, ready to [`run`](Publisher::run).
#[derive(Clone, Debug)]
pub struct Publisher {
    shared: Arc<Shared>,
}

/// What all requisitions share.
#[derive(Debug)]
struct Shared {
    config: Config,
    trust: Trust,
    keyset: PrivateKeyset,
    signer: Option<Signer>,
    kingdom: Client,
    duchies: BTreeMap<DuchyId, Client>,
    spool: Spool,
    clock: Arc<dyn Clock>,
    /// One answer is made at a time: each uses all cores, and memory for a sketch or vector of its own.
    computing: Semaphore,
}

impl Publisher {
    /// Reads all files that the configuration names, and creates the spool directory. Connects to nobody yet.
    ///
    /// # Errors
    /// [`ClientError`] names the key or the file that cannot be used.
    pub fn new(config: Config) -> Result<Self, ClientError> {
        Self::with_clock(config, Arc::new(SystemClock))
    }

    /// As [`Publisher::new`], where `attestation` decides which trustees may open this publisher's vectors: that of an
    /// operator with hardware enclaves. `protocols` must name `trustee`.
    ///
    /// # Errors
    /// As [`Publisher::new`].
    pub fn with_attestation(config: Config, attestation: Arc<dyn AttestationVerifier>) -> Result<Self, ClientError> {
        Self::with(config, Arc::new(SystemClock), Some(attestation))
    }

    /// As [`Publisher::new`], with another clock for the validity of certificates.
    ///
    /// # Errors
    /// As [`Publisher::new`].
    pub fn with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Self, ClientError> {
        Self::with(config, clock, None)
    }

    fn with(
        config: Config,
        clock: Arc<dyn Clock>,
        attestation: Option<Arc<dyn AttestationVerifier>>,
    ) -> Result<Self, ClientError> {
        config.check().map_err(|problem| ClientError::Config { problem })?;
        Backend::current()?;
        let identity = read_identity(&config.tls)?;
        let client = |endpoint: &str, root: &Path| -> Result<Client, ClientError> {
            Ok(Client::new(endpoint, &Roots::from_pem_files(&[root])?, &identity)?)
        };
        let kingdom = client(&config.kingdom.endpoint, &config.kingdom.root_certificate)?;
        let mut duchies = BTreeMap::new();
        for duchy in &config.duchies {
            duchies.insert(duchy.id.clone(), client(&duchy.endpoint, &duchy.root_certificate)?);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                trust: config.trust(attestation)?,
                keyset: read_keyset(&config.encryption_private_keyset)?,
                signer: config.consent.as_ref().map(read_signer).transpose()?,
                spool: Spool::open(&config.spool_dir)?,
                kingdom,
                duchies,
                clock,
                computing: Semaphore::new(1),
                config,
            }),
        })
    }

    /// Answers requisitions until `shutdown` is cancelled, and tells `events` about it. Several requisitions are answered
    /// at the same time; one answer is made at a time.
    ///
    /// # Errors
    /// [`ClientError::Transport`] when the very first connection with the Kingdom fails in a way that time does not heal,
    /// such as a certificate that it refuses; [`ClientError::Refused`]; [`ClientError::Spool`] when the spool directory
    /// cannot be read.
    pub async fn run(&self, shutdown: CancellationToken, mut events: impl FnMut(Event)) -> Result<(), ClientError> {
        let (reporter, mut reports) = mpsc::unbounded_channel();
        let (updater, mut updates) = mpsc::channel(WAITING_UPDATES);
        let publisher = self.shared.config.data_provider.to_string();
        let mut watching = JoinSet::new();
        watching.spawn(watch::watch(self.shared.kingdom.clone(), publisher, updater));
        let spooled = self.shared.spool.names()?;
        let mut sweeping = JoinSet::new();
        sweeping.spawn(sweep::closed(self.shared.kingdom.clone(), self.shared.config.data_provider.clone(), spooled));
        let mut announcing = JoinSet::new();
        announcing.spawn(capabilities::announce(self.shared.kingdom.clone(), capabilities::request(&self.shared)));
        let mut desk = Desk {
            shared: Arc::clone(&self.shared),
            reporter,
            stop: shutdown.child_token(),
            taken: HashMap::new(),
            answers: JoinSet::new(),
        };
        let outcome = loop {
            tokio::select! {
                () = shutdown.cancelled() => break Ok(()),
                Some(event) = reports.recv() => events(event),
                Some(update) = updates.recv() => desk.take(update),
                Some(answered) = desk.answers.join_next() => desk.settle(unwind(answered)),
                Some(announced) = announcing.join_next() => unwind(announced),
                Some(closed) = sweeping.join_next() => desk.sweep(unwind(closed)),
                Some(ended) = watching.join_next() => break unwind(ended),
            }
        };
        desk.stop.cancel();
        while desk.answers.join_next().await.is_some() {}
        drop(desk);
        while let Some(event) = reports.recv().await {
            events(event);
        }
        outcome
    }
}

/// What a task returned; its panic goes on here.
fn unwind<T>(joined: Result<T, tokio::task::JoinError>) -> T {
    joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The requisitions that are at hand.
struct Desk {
    shared: Arc<Shared>,
    reporter: mpsc::UnboundedSender<Event>,
    stop: CancellationToken,
    taken: HashMap<RequisitionName, Taken>,
    answers: JoinSet<RequisitionName>,
}

/// Where the work on a requisition stands. One that is closed and not worked on is forgotten.
enum Taken {
    /// It is being answered.
    Running {
        /// Ends the work.
        stop: CancellationToken,
        /// Cancelled when the Kingdom says that the requisition is fulfilled, perhaps before the Duchy does.
        fulfilled: CancellationToken,
    },
    /// The Kingdom has closed it, and the work on it is coming to its end.
    Closing,
    /// It is answered, refused, or given up for this run, and the Kingdom has not closed it yet. A late update that
    /// still calls it open starts nothing.
    Settled,
}

impl Desk {
    /// Looks at what the Kingdom says about a requisition.
    fn take(&mut self, requisition: api::Requisition) {
        let name: RequisitionName = match requisition.name.parse() {
            Ok(name) => name,
            Err(error) => return tracing::error!(%error, "the Kingdom sent a requisition without a proper name"),
        };
        match (requisition.state(), self.taken.get(&name)) {
            (State::Unfulfilled, None) => self.start(requisition, name),
            (State::Unfulfilled, Some(_)) | (_, Some(Taken::Closing)) => {}
            (State::Fulfilled, Some(Taken::Running { fulfilled, .. })) => fulfilled.cancel(),
            (state, Some(Taken::Running { stop, .. })) => {
                tracing::info!(requisition = %name, ?state, "closed by the Kingdom");
                stop.cancel();
                self.taken.insert(name, Taken::Closing);
            }
            (_, Some(Taken::Settled) | None) => {
                self.taken.remove(&name);
                self.shared.discard(&name);
            }
        }
    }

    /// Removes bodies whose requisitions were closed before this process began.
    fn sweep(&self, closed: Vec<RequisitionName>) {
        // What is being worked on is removed when that ends.
        for name in closed.iter().filter(|name| !self.taken.contains_key(name)) {
            tracing::info!(requisition = %name, "was closed in the meantime; its body is removed");
            self.shared.discard(name);
        }
    }

    fn start(&mut self, requisition: api::Requisition, name: RequisitionName) {
        let (stop, fulfilled) = (self.stop.child_token(), CancellationToken::new());
        let answer = answer::Answer {
            shared: Arc::clone(&self.shared),
            requisition,
            name: name.clone(),
            reporter: self.reporter.clone(),
            stop: stop.clone(),
            fulfilled: fulfilled.clone(),
        };
        let (done, reporter) = (name.clone(), self.reporter.clone());
        self.answers.spawn(async move {
            // A defect that one requisition meets must not keep the others from being answered.
            if let Err(panic) = AssertUnwindSafe(answer.run()).catch_unwind().await {
                let message = format!("a defect of this program ended the work on it: {}", panic_text(panic.as_ref()));
                // The receiver outlives all answers.
                let _ = reporter.send(Event::Failed { requisition: done.to_string(), message, retried: false });
            }
            done
        });
        self.taken.insert(name, Taken::Running { stop, fulfilled });
    }

    /// Takes note that the work on a requisition has ended.
    fn settle(&mut self, name: RequisitionName) {
        match self.taken.get(&name) {
            Some(Taken::Closing) => {
                self.shared.discard(&name);
                self.taken.remove(&name);
            }
            Some(Taken::Running { fulfilled, .. }) if fulfilled.is_cancelled() => {
                self.taken.remove(&name);
            }
            _ => {
                self.taken.insert(name, Taken::Settled);
            }
        }
    }
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it did not say why")
}

impl Shared {
    fn recipient(&self) -> Recipient<'_> {
        Recipient { name: &self.config.data_provider, keyset: &self.keyset, signer: self.signer.as_ref() }
    }

    /// Removes the body of a requisition that needs it no more. A body that stays is encrypted and harmless.
    fn discard(&self, name: &RequisitionName) {
        if let Err(error) = self.spool.close(&name.requisition.to_string()) {
            tracing::warn!(requisition = %name, %error, "the spooled body stays");
        }
    }
}

/// Reads what the publisher connects with. The text of the key is wiped.
fn read_identity(tls: &TlsConfig) -> Result<Identity, ClientError> {
    let certificate = read_credentials(&tls.certificate)?;
    let key = read_credentials(&tls.private_key)?;
    Identity::from_pem(certificate.expose(), key.expose()).map_err(|error| ClientError::Credentials {
        path: tls.certificate.clone(),
        problem: format!("with the private key {}: {error}", tls.private_key.display()),
    })
}

/// Reads the keyset that requisition specs are encrypted to.
fn read_keyset(path: &Path) -> Result<PrivateKeyset, ClientError> {
    PrivateKeyset::from_bytes(read_credentials(path)?.expose())
        .map_err(|error| ClientError::Credentials { path: path.to_owned(), problem: error.to_string() })
}

/// Reads what answers are signed with. The text of the key is wiped.
fn read_signer(consent: &ConsentConfig) -> Result<Signer, ClientError> {
    let refuse = |path: &Path, problem: String| ClientError::Credentials { path: path.to_owned(), problem };
    let (certificate, key) = (&consent.certificate, &consent.private_key);
    let read = Certificate::from_pem(read_credentials(certificate)?.expose())
        .map_err(|error| refuse(certificate, error.to_string()))?;
    let text = read_credentials(key)?;
    let text = std::str::from_utf8(text.expose()).map_err(|error| refuse(key, error.to_string()))?;
    let signing = SigningKey::from_pkcs8_pem(text).map_err(|error| refuse(key, error.to_string()))?;
    Signer::new(read, signing).map_err(|error| refuse(certificate, error.to_string()))
}

fn read_credentials(path: &Path) -> Result<Secret<Vec<u8>>, ClientError> {
    fs::read(path)
        .map(Secret::new)
        .map_err(|error| ClientError::Credentials { path: path.to_owned(), problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_one_json_object_each() {
        let requisition = "dataProviders/AAAAAAAAAAE/requisitions/AAAAAAAAAAM".to_owned();
        let json = |event: &Event| serde_json::to_value(event).unwrap();
        assert_eq!(
            json(&Event::Sketched { requisition: requisition.clone(), impressions: 3, registers: 2, seconds: 0.5 }),
            serde_json::json!({
                "event": "sketched", "requisition": requisition, "impressions": 3, "registers": 2, "seconds": 0.5
            })
        );
        assert_eq!(
            json(&Event::Failed { requisition: requisition.clone(), message: "why".to_owned(), retried: true }),
            serde_json::json!({ "event": "failed", "requisition": requisition, "message": "why", "retried": true })
        );
    }
}
