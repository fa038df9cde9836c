//! Answering one requisition, in as many attempts as it takes.

use std::{future::Future, sync::Arc, time::Duration};

use chacha20::ChaCha20Rng;
use getrandom::SysRng;
use halo_core::{
    clock::Stopwatch,
    pb::api::{
        self, GetCertificateRequest, RefuseRequisitionRequest, certificate::RevocationState,
        certificates_client::CertificatesClient, protocol_config::protocol::Protocol,
        requisition::Refusal as WireRefusal, requisitions_client::RequisitionsClient,
    },
    resource::{CertificateName, RequisitionName},
    transport::TransportError,
};
use rand_core::{SeedableRng, TryRng};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status, transport::Channel};
use zeroize::Zeroize;

use super::{
    Event, Shared,
    submit::{Upload, hand_in, submit},
    watch::{backoff, describe, passes},
};
use crate::{
    Error,
    answer::{self, Source},
    progress::Progress,
    requisition::{self, Asked, Certificates, Justification, OpenedRequisition, Refusal},
    spool::Spooled,
};

/// How long a call with one answer may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a Duchy may take to answer an upload that the Kingdom counts as fulfilled.
const GRACE: Duration = Duration::from_secs(5);

/// So many refused connections in a row are reported as final. A server that goes down in the middle of a handshake
/// looks like one that refuses the certificate, so the first ones may pass by themselves.
const REFUSED_CONNECTIONS: u32 = 4;

/// How long to wait for somebody to exchange a certificate.
const CREDENTIALS_DELAY: Duration = Duration::from_secs(15 * 60);

/// Why an attempt did not fulfil the requisition.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was told to stop.
    Stopped,
    /// The publisher does not agree.
    Refused(Refusal),
    /// Another attempt may succeed.
    Later(String),
    /// Another attempt may succeed, but where it fails alike somebody has to exchange a certificate first.
    Credentials(String),
    /// Another attempt would fail alike.
    Stays(String),
}

impl Failure {
    /// Sorts why there is no connection.
    pub(super) fn connection(error: &TransportError) -> Self {
        let message = error.to_string();
        if error.is_transient() { Self::Later(message) } else { Self::Credentials(message) }
    }

    /// Sorts the outcome of a call to `whom`.
    pub(super) fn call(whom: &str, status: &Status) -> Self {
        let message = format!("{whom}: {}", describe(status));
        if passes(status) { Self::Later(message) } else { Self::Stays(message) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Interrupted => Self::Stopped,
            Error::AnsweredUnderAnotherName => {
                Self::Refused(Refusal::new(Justification::ConsentSignalInvalid, error.to_string()))
            }
            other => Self::Stays(other.to_string()),
        }
    }
}

/// Awaits a call with one answer, for a limited time.
pub(super) async fn unary<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
        .map(Response::into_inner)
}

/// The work on one requisition.
pub(super) struct Answer {
    pub(super) shared: Arc<Shared>,
    pub(super) requisition: api::Requisition,
    pub(super) name: RequisitionName,
    pub(super) reporter: mpsc::UnboundedSender<Event>,
    /// Ends the work.
    pub(super) stop: CancellationToken,
    /// Cancelled when the Kingdom says that the requisition is fulfilled.
    pub(super) fulfilled: CancellationToken,
}

impl Answer {
    fn report(&self, event: Event) {
        // The receiver outlives all answers; without one, nobody listens.
        let _ = self.reporter.send(event);
    }

    fn failed(&self, message: String, retried: bool) {
        self.report(Event::Failed { requisition: self.name.to_string(), message, retried });
    }

    /// Attempts until the requisition is fulfilled, refused, closed, or cannot be answered.
    pub(super) async fn run(self) {
        let mut delays = backoff();
        let mut refused_connections = 0;
        loop {
            let outcome = match self.attempt().await {
                Err(Failure::Refused(refusal)) => self.refuse(refusal).await,
                other => other,
            };
            let mut delay = delays.next().unwrap_or_default();
            match outcome {
                Ok(()) | Err(Failure::Stopped) => return,
                // What the Kingdom counts as fulfilled needs no other attempt, whatever became of this one.
                Err(_) if self.fulfilled.is_cancelled() => return self.finish(),
                Err(Failure::Stays(message)) => return self.failed(message, false),
                Err(Failure::Refused(refusal)) => return self.failed(refusal.to_string(), false),
                Err(Failure::Later(message)) => {
                    refused_connections = 0;
                    self.failed(message, true);
                }
                Err(Failure::Credentials(message)) => {
                    refused_connections += 1;
                    if refused_connections < REFUSED_CONNECTIONS {
                        self.failed(message, true);
                    } else {
                        let minutes = CREDENTIALS_DELAY.as_secs() / 60;
                        self.failed(format!("{message}; the next attempt is in {minutes} minutes"), false);
                        delay = CREDENTIALS_DELAY;
                    }
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.fulfilled.cancelled() => return self.finish(),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    fn finish(&self) {
        self.shared.discard(&self.name);
        self.report(Event::Fulfilled { requisition: self.name.to_string() });
    }

    async fn or_stop<T>(&self, work: impl Future<Output = T>) -> Result<T, Failure> {
        self.stop.run_until_cancelled(work).await.ok_or(Failure::Stopped)
    }

    /// Returns so long after the Kingdom said that the requisition is fulfilled.
    async fn fulfilled_for(&self, time: Duration) {
        self.fulfilled.cancelled().await;
        tokio::time::sleep(time).await;
    }

    async fn attempt(&self) -> Result<(), Failure> {
        let shared = &self.shared;
        let certificates = self.or_stop(self.certificates()).await??;
        let opened = requisition::open(
            &self.requisition,
            &shared.trust,
            &certificates,
            shared.recipient(),
            shared.clock.now().unix_seconds(),
        )
        .map_err(Failure::Refused)?;
        self.report(Event::Opened { requisition: self.name.to_string() });
        let opened = Arc::new(opened);
        let spooled = self.spool(&opened).await?;
        let handing_in = async {
            let Some(duchy) = &opened.duchy else { return hand_in(&shared.kingdom, &opened, &spooled).await };
            let client = shared
                .duchies
                .get(duchy)
                .ok_or_else(|| Failure::Stays(format!("duchy {duchy} has no endpoint in the configuration")))?;
            let patience = Duration::from_secs(shared.config.upload_patience_seconds);
            submit(client, duchy, &opened, self.requisition.protocol_config.as_ref(), &spooled, patience).await
        };
        tokio::select! {
            upload = self.or_stop(handing_in) => {
                let Upload { bytes, seconds } = upload??;
                self.report(Event::Uploaded { requisition: self.name.to_string(), bytes, seconds });
            }
            () = self.fulfilled_for(GRACE) => tracing::info!(requisition = %self.name, "fulfilled; not waiting for the Duchy"),
        }
        self.finish();
        Ok(())
    }

    /// The certificates that the requisition names.
    async fn certificates(&self) -> Result<Certificates, Failure> {
        let shared = &self.shared;
        let channel = shared.kingdom.connect().await.map_err(|error| Failure::connection(&error))?;
        let mut certificates = Certificates {
            consumer: self.certificate(&channel, &self.requisition.measurement_consumer_certificate).await?,
            ..Certificates::default()
        };
        let config = self.requisition.protocol_config.iter();
        let signs = config.flat_map(|config| &config.protocols).any(|protocol| {
            matches!(protocol.protocol, Some(Protocol::HonestMajorityShareShuffle(_) | Protocol::Direct(_)))
        });
        let own = &self.requisition.data_provider_certificate;
        if signs && shared.signer.is_some() && own.parse::<CertificateName>().is_ok() {
            certificates.publisher = self.certificate(&channel, own).await?;
        }
        for entry in &self.requisition.duchies {
            let Some(value) = &entry.value else { continue };
            // A name that is none is for `open` to refuse.
            if let Ok(name) = value.duchy_certificate.parse::<CertificateName>() {
                let der = self.certificate(&channel, &value.duchy_certificate).await?;
                certificates.duchies.insert(name, der);
            }
        }
        Ok(certificates)
    }

    async fn certificate(&self, channel: &Channel, name: &str) -> Result<Vec<u8>, Failure> {
        let request = GetCertificateRequest { name: name.to_owned() };
        let certificate = unary(CertificatesClient::new(channel.clone()).get_certificate(request))
            .await
            .map_err(|status| Failure::call(&format!("certificate {name:?} at the Kingdom"), &status))?;
        match certificate.revocation_state() {
            RevocationState::Unspecified => Ok(certificate.x509_der),
            state => Err(Failure::Refused(Refusal::new(
                Justification::ConsentSignalInvalid,
                format!("certificate {name} is not in force: {}", state.as_str_name()),
            ))),
        }
    }

    /// The body: from the spool, or made now. It is made on a thread of its own, which stops when this task is stopped.
    async fn spool(&self, opened: &Arc<OpenedRequisition>) -> Result<Spooled, Failure> {
        let permit = self.or_stop(self.shared.computing.acquire()).await?;
        let (shared, opened) = (Arc::clone(&self.shared), Arc::clone(opened));
        let (reporter, stop) = (self.reporter.clone(), self.stop.clone());
        let spooled = tokio::task::spawn_blocking(move || prepare(&shared, &opened, &reporter, &stop)).await;
        drop(permit);
        Ok(spooled.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?)
    }

    /// Tells the Kingdom that the publisher does not agree.
    async fn refuse(&self, refusal: Refusal) -> Result<(), Failure> {
        let refusing = async {
            let channel = self.shared.kingdom.connect().await.map_err(|error| Failure::connection(&error))?;
            let mut wire = WireRefusal { message: refusal.message().to_owned(), ..WireRefusal::default() };
            wire.set_justification(refusal.justification().into());
            let request =
                RefuseRequisitionRequest { name: self.name.to_string(), refusal: Some(wire), etag: String::new() };
            unary(RequisitionsClient::new(channel).refuse_requisition(request)).await.map_err(|status| {
                let message = format!("{refusal}; the Kingdom did not take the refusal");
                match status.code() {
                    // Closed in the meantime: there is nothing left to refuse.
                    Code::FailedPrecondition | Code::NotFound => Failure::Stays(format!("{message}: {status}")),
                    _ => Failure::call(&message, &status),
                }
            })
        };
        self.or_stop(refusing).await??;
        self.report(Event::Refused { requisition: self.name.to_string(), message: refusal.to_string() });
        Ok(())
    }
}

/// Finds the answer in the spool, or makes it.
fn prepare(
    shared: &Shared,
    opened: &OpenedRequisition,
    reporter: &mpsc::UnboundedSender<Event>,
    stop: &CancellationToken,
) -> Result<Spooled, Error> {
    let name = opened.spool_name();
    if let Some(spooled) = shared.spool.find(&name, &opened.binding)? {
        return Ok(spooled);
    }
    let report = |event| {
        let _ = reporter.send(event);
    };
    let mut observer = |_: Progress| match stop.is_cancelled() {
        true => std::ops::ControlFlow::Break(()),
        false => std::ops::ControlFlow::Continue(()),
    };
    let watch = Stopwatch::start();
    let source = Source { events: &shared.config.events, seconds_per_impression: shared.config.seconds_per_impression };
    let work = answer::read(opened, &source, &mut observer)?;
    let (requisition, impressions, seconds) = (opened.name.to_string(), work.impressions(), watch.seconds());
    report(match opened.asked {
        Asked::Sketch(_) => Event::Sketched { requisition, impressions, registers: work.counted(), seconds },
        _ => Event::Counted { requisition, impressions, people: work.counted(), seconds },
    });
    let watch = Stopwatch::start();
    let spooled = work.spool(shared.signer.as_ref(), &shared.spool, &mut observer, &mut generator())?;
    report(Event::Encrypted {
        requisition: opened.name.to_string(),
        records: spooled.manifest.record_count,
        seconds: watch.seconds(),
    });
    Ok(spooled)
}

/// A generator that the operating system seeded. Whoever knew the seed could decrypt: seed and state are wiped.
fn generator() -> ChaCha20Rng {
    let mut seed = [0; 32];
    SysRng.try_fill_bytes(&mut seed).expect("the operating system has random numbers");
    let generator = ChaCha20Rng::from_seed(seed);
    seed.zeroize();
    generator
}

#[cfg(test)]
mod tests {
    use rand_core::Rng;

    use super::*;

    #[test]
    fn generators_are_wiped_and_differ() {
        fn wiped<T: zeroize::ZeroizeOnDrop>(generator: T) -> T {
            generator
        }
        let (mut one, mut two) = (wiped(generator()), wiped(generator()));
        assert_ne!(one.next_u64(), two.next_u64());
    }
}
