//! The stages of work: each reads what is stored and says what is to be stored. Nothing is sent here.

use std::sync::Arc;
use std::{fmt, io};

use halo_core::pb::system;
use halo_crypto::consent::x509::ECDSA_WITH_SHA256;
use prost::Message as _;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::cost::{Meter, Traffic};
use super::{Trouble, result};
use crate::protocol::{Description, DirectoryWorkspace, Message, Received, RecordSink, Slot, State, Step, Workspace};
use crate::server::duchy::{Duchy, system_rng};
use crate::server::protocols::{Side, SignedKey, Sitting, Uploaded};
use crate::server::secrets::ComputationSecrets;
use crate::server::stage::Stage;
use crate::server::store::{BodyId, Lease, Outgoing, Record, StageCommit};
use crate::server::terms::{Keys, Terms};

/// What a stage leaves behind.
#[derive(Debug)]
pub(super) struct Worked {
    /// To be written in one transaction.
    pub(super) commit: StageCommit,
    /// SHA-256 of each output, in hexadecimal digits, a line each: the same at every attempt.
    pub(super) report: String,
}

/// Works on the stage of a computation. Output bodies are stored when this returns.
pub(super) async fn work(duchy: &Arc<Duchy>, lease: &Lease, record: &Record) -> Result<Worked, Trouble> {
    let meter = Meter::start(duchy);
    let terms = Arc::new(Terms::read(&record.received)?);
    let sealed = record.secrets.as_deref();
    let sealed = sealed.ok_or_else(|| Trouble::Transient("the computation's keys are destroyed".to_owned()))?;
    let secrets = duchy.keys.open(&record.id, sealed, duchy.now()).await?;
    let (mut after, traffic) = match record.stage {
        Stage::InitializationPhase => (publish_key(duchy, &terms, &secrets)?, Traffic::default()),
        Stage::ConfirmationPhase => confirm(duchy, lease, record, &terms, secrets)?,
        _ => step(duchy, lease, record, &terms, secrets).await?,
    };
    let report = after.report();
    let state = after.state.map(|state| duchy.keys.seal_state(&record.id, &state, &mut system_rng())).transpose()?;
    after.outbox.push(meter.log_entry(duchy, &terms, record, traffic));
    let commit = StageCommit {
        from: record.stage,
        next: after.next,
        engine_state: state,
        outbox: after.outbox,
        awaiting: after.awaiting.iter().map(numbered).collect(),
        consumed: after.consumed,
        failure: None,
    };
    Ok(Worked { commit, report })
}

/// What follows a stage.
struct After {
    next: Stage,
    /// The engine's state, in the clear.
    state: Option<Vec<u8>>,
    outbox: Vec<Outgoing>,
    awaiting: Vec<Slot>,
    consumed: Vec<(i32, crate::protocol::DuchyId)>,
}

impl After {
    fn new(next: Stage, outbox: Vec<Outgoing>) -> Self {
        Self { next, state: None, outbox, awaiting: Vec::new(), consumed: Vec::new() }
    }

    /// Digests of everything that leaves or stays, line by line.
    fn report(&self) -> String {
        let digest = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes).into() };
        let outputs = self.outbox.iter().map(|message| match message {
            Outgoing::Body { body, .. } => body.sha256,
            Outgoing::Parameters(bytes)
            | Outgoing::Confirmation(bytes)
            | Outgoing::Result(bytes)
            | Outgoing::Failure(bytes)
            | Outgoing::LogEntry(bytes) => digest(bytes),
        });
        let state = self.state.iter().map(|state| digest(state));
        outputs.chain(state).map(|digest| hex::encode(digest) + "\n").collect()
    }
}

fn numbered(slot: &Slot) -> (i32, crate::protocol::DuchyId) {
    (i32::from(slot.description.number()), slot.from.clone())
}

/// Signs the own key, for the session of this very computation.
fn publish_key(duchy: &Duchy, terms: &Terms, secrets: &ComputationSecrets) -> Result<After, Trouble> {
    let consent = &duchy.parties.consent;
    let key = terms.protocol.public_key(terms, consent, &duchy.parties.me, secrets);
    let signature = consent.key.sign(&key);
    let signed = SignedKey { key, signature, oid: ECDSA_WITH_SHA256.to_owned() };
    let request = system::SetParticipantRequisitionParamsRequest {
        name: duchy.part(&terms.name),
        requisition_params: Some(system::computation_participant::RequisitionParams {
            duchy_certificate: consent.name.to_string(),
            duchy_certificate_der: consent.certificate.der().to_vec(),
            protocol: Some(terms.protocol.publish(terms, &duchy.parties.me, signed)?),
        }),
        etag: String::new(),
    };
    Ok(After::new(Stage::WaitRequisitionsAndKeySet, vec![Outgoing::Parameters(request.encode_to_vec())]))
}

/// Checks that keys, nonces and uploads are what everybody agreed on. From then on the computation does not change.
fn confirm(
    duchy: &Arc<Duchy>,
    lease: &Lease,
    record: &Record,
    terms: &Arc<Terms>,
    secrets: ComputationSecrets,
) -> Result<(After, Traffic), Trouble> {
    let now = duchy.now();
    terms.check(&duchy.parties, &duchy.settings, now)?;
    let keys = terms.verified_keys(&duchy.parties, &secrets, now)?;
    terms.check_fulfilment(&record.requisitions, &duchy.parties, now)?;
    let request = system::ConfirmComputationParticipantRequest {
        name: duchy.part(&terms.name),
        etag: String::new(),
        key_list_hash: keys.hash().to_vec(),
    };
    let outbox = vec![Outgoing::Confirmation(request.encode_to_vec())];
    let traffic = Traffic { records_in: uploads(record).map(|body| body.records).sum(), ..Traffic::default() };
    let after = match terms.protocol.after_confirmation(record.role) {
        Some(next) => After::new(next, outbox),
        None => {
            // Computes nothing: notes which uploads it will join, and whom it waits for.
            let side = side(duchy, record, terms, keys, secrets)?;
            let workspace = workspace(duchy, lease, CancellationToken::new())?;
            let Step::Wait { state, awaiting, .. } = side.start(&workspace)? else {
                return Err(Trouble::Transient("the aggregator's engine ended before it began".to_owned()));
            };
            let next = waits(&awaiting)?;
            After { state: Some(state.to_bytes()), awaiting, ..After::new(next, outbox) }
        }
    };
    Ok((after, traffic))
}

/// The stage that waits for these messages.
fn waits(awaiting: &[Slot]) -> Result<Stage, Trouble> {
    let first = awaiting.first().ok_or_else(|| Trouble::Transient("the engine waits for nothing".to_owned()))?;
    Ok(Stage::waiting_for(first.description))
}

/// Uploads at this Duchy, sorted by the requisition's name.
fn uploads(record: &Record) -> impl Iterator<Item = &BodyId> {
    let here = record.requisitions.iter().filter(|requisition| requisition.here);
    here.filter_map(|requisition| requisition.upload.as_ref()).map(|upload| &upload.body)
}

/// This Duchy's side of the computation.
fn side(
    duchy: &Arc<Duchy>,
    record: &Record,
    terms: &Arc<Terms>,
    keys: Keys,
    secrets: ComputationSecrets,
) -> Result<Box<dyn Side>, Trouble> {
    let record_bytes = terms.protocol.upload_shape().record_bytes();
    let here = record.requisitions.iter().filter(|requisition| requisition.here);
    let uploads = here.filter_map(|requisition| {
        let upload = requisition.upload.as_ref()?;
        Some(Uploaded {
            requisition: requisition.name.clone(),
            body: duchy.blobs.body(&record.id, &upload.body, record_bytes),
            attachment: upload.attachment.clone(),
        })
    });
    let sitting = Sitting { duchy, terms, keys, secrets, uploads: uploads.collect() };
    Ok(terms.protocol.side(sitting)?)
}

/// Files of one attempt. Nothing is written any more once the attempt is given up.
struct AttemptWorkspace {
    files: DirectoryWorkspace,
    given_up: CancellationToken,
}

impl Workspace for AttemptWorkspace {
    fn create(&self, record_bytes: usize) -> io::Result<Box<dyn RecordSink>> {
        self.files.create(record_bytes)
    }

    fn is_cancelled(&self) -> bool {
        self.given_up.is_cancelled()
    }
}

/// An empty directory for the files of one attempt: the lease's own, because an attempt whose lease was lost may not have
/// noticed yet.
fn workspace(duchy: &Duchy, lease: &Lease, given_up: CancellationToken) -> Result<AttemptWorkspace, Trouble> {
    remove_workspace(duchy, &lease.computation)?;
    let directory = duchy.settings.work.join(&lease.computation).join(lease.fencing.to_string());
    let files = DirectoryWorkspace::new(&directory);
    let files = files.map_err(|error| Trouble::Transient(format!("{}: {error}", directory.display())))?;
    Ok(AttemptWorkspace { files, given_up })
}

/// Removes the files of all attempts at a computation.
pub(super) fn remove_workspace(duchy: &Duchy, computation: &str) -> Result<(), Trouble> {
    let all = duchy.settings.work.join(computation);
    match std::fs::remove_dir_all(&all) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Trouble::Transient(format!("{}: {error}", all.display())))
        }
        _ => Ok(()),
    }
}

/// Takes one step of the protocol.
async fn step(
    duchy: &Arc<Duchy>,
    lease: &Lease,
    record: &Record,
    terms: &Arc<Terms>,
    secrets: ComputationSecrets,
) -> Result<(After, Traffic), Trouble> {
    let sealed = record.engine_state.as_deref();
    let state = match sealed {
        Some(sealed) => Some(State::from_bytes(duchy.keys.open_state(&record.id, sealed)?.expose())?),
        None => None,
    };
    let inbox = inbox(duchy, record, terms)?;
    let records_in = match state {
        None => uploads(record).map(|body| body.records).sum(),
        Some(_) => record.inputs.iter().map(|input| input.body.records).sum(),
    };
    // The result is encrypted with randomness of this computation's seed.
    let for_result = duchy.keys.open(&record.id, record.secrets.as_deref().unwrap_or_default(), duchy.now()).await?;
    let side = side(duchy, record, terms, terms.confirmed_keys()?, secrets)?;
    let stopped = |error: &dyn fmt::Display| Trouble::Transient(error.to_string());
    let turn = Arc::clone(&duchy.compute).acquire_owned().await.map_err(|error| stopped(&error))?;
    let given_up = CancellationToken::new();
    // Dropped with this future when the lease is lost. The engine notices at its next chunk, and until then nobody else
    // has its turn.
    let _guard = given_up.clone().drop_guard();
    let workspace = workspace(duchy, lease, given_up)?;
    let compute = move || {
        let _turn = turn;
        match state {
            None => side.start(&workspace),
            Some(state) => side.advance(&state, &inbox, &workspace),
        }
    };
    let taken = tokio::task::spawn_blocking(compute).await.map_err(|error| stopped(&error))??;
    let consumed = record.inputs.iter().map(|input| (input.description, input.sender.clone())).collect();
    let (mut after, outbox) = match taken {
        Step::Wait { state, outbox, awaiting } => {
            let next = waits(&awaiting)?;
            (After { state: Some(state.to_bytes()), awaiting, ..After::new(next, Vec::new()) }, outbox)
        }
        Step::Done { output, outbox } => {
            let mut after = After::new(Stage::Complete, Vec::new());
            if let Some(found) = output {
                let request = result::request(duchy, terms, &for_result, &found)?;
                after.outbox.push(Outgoing::Result(request.encode_to_vec()));
            }
            (after, outbox)
        }
    };
    after.consumed = consumed;
    let mut traffic = Traffic { records_in, ..Traffic::default() };
    for message in outbox {
        let outgoing = keep(duchy, record, message).await?;
        if let Outgoing::Body { body, .. } = &outgoing {
            traffic.records_out += body.records;
            traffic.bytes_out += body.length;
        }
        after.outbox.push(outgoing);
    }
    Ok((after, traffic))
}

/// The bodies that are bound and not consumed.
fn inbox(duchy: &Duchy, record: &Record, terms: &Terms) -> Result<Vec<Received>, Trouble> {
    let received = record.inputs.iter().map(|input| {
        let description = u8::try_from(input.description).ok().and_then(Description::from_number);
        let description =
            description.ok_or_else(|| Trouble::Transient(format!("input {} is unknown", input.description)))?;
        let slot = Slot { from: input.sender.clone(), description };
        let record_bytes = terms.protocol.message_record_bytes(terms, &slot, &duchy.parties.me);
        Ok(Received { body: duchy.blobs.body(&record.id, &input.body, record_bytes), slot })
    });
    received.collect()
}

/// Stores an output body.
async fn keep(duchy: &Duchy, record: &Record, message: Message) -> Result<Outgoing, Trouble> {
    let Message { to, description, body } = message;
    let id =
        BodyId { sha256: body.sha256(), length: body.records() * body.record_bytes() as u64, records: body.records() };
    let reader = body.open().map_err(|error| Trouble::Transient(error.to_string()))?;
    duchy.blobs.put(&record.id, &id, reader).await?;
    Ok(Outgoing::Body { to, description: i32::from(description.number()), body: id })
}
