//! Trustee: one Duchy adds up the publishers' frequency vectors in the clear, inside a process that the publishers trust.
//!
//! All publishers number the people of one population alike; a cell of a publisher's vector is how often it has reached
//! that person. A publisher encrypts its vector under a data encryption key of its own, and that key under a
//! key-encryption key that it keeps ([`halo_crypto::envelope`]). The trustee's process shows evidence of what it is to the
//! publisher's key service, and gets the data encryption key only when that accepts it ([`halo_crypto::attestation`]).
//!
//! There is one party and no message. When all vectors are there, [`Duchy::start`] gives the result: element-wise sum,
//! capped; the counts; noise; thresholds.
//!
//! # What each party learns
//!
//! * The trustee's *process* sees every publisher's vector in the clear: who was reached by whom, how often.
//! * The trustee's *operator*, where the attestation is that of a hardware enclave that keeps its operator out: ciphertexts,
//!   their sizes (which follow from the population), and the result.
//! * Publishers learn nothing. The consumer learns the result, with its noise and thresholds.
//!
//! # What is assumed
//!
//! * Whoever decides about the attestation, decides right. [`SimulatedAttestation`](halo_crypto::attestation) is no
//!   hardware enclave: with it the operator sees everything that the process sees. It is refused unless
//!   [`Trust::allow_simulated`] is set, here and at the publisher's key service.
//! * The key service releases a key to the process that was attested and to nobody else (for example through a channel
//!   that ends in the enclave): that is the key service's matter, not visible here.
//! * The secret of sticky noise never leaves the process.
//!
//! # What an active cheater could still do
//!
//! A publisher can send any vector. A trustee that runs other code than was attested can report anything; nobody else can
//! check it.
//!
//! # Noise
//!
//! See [`Noise`]. All of it is central: one draw for each released number.
//!
//! # Memory
//!
//! A byte a cell; two where small contributions are dropped; and a segment of 1 MiB.

mod aggregate;
mod outcome;
mod parameters;

use std::fmt;
use std::sync::Arc;

use halo_crypto::attestation::{Attestation, KeyService};
use halo_crypto::envelope::{self, DataKey};
use halo_crypto::secret::Secret;

use super::record::for_each_chunk;
use super::seat::{Engine, Seat, check_inbox};
use super::stream::Consumed;
use super::{Body, Description, DuchyId, Origin, ProtocolError, Received, Slot, State, Step, Workspace};

pub use super::vector::{Estimates, Frequency};
pub use outcome::Outcome;
pub use parameters::{Budget, MAXIMUM_CELL, Noise, Parameters, Thresholds, Variant};

/// Changes whenever the same input would give other bytes. A state of another version is refused.
pub const ENGINE_VERSION: u16 = 2;
/// This protocol in stored states.
const PROTOCOL: u8 = 4;
/// Bytes of a ciphertext that are read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// What a publisher has sent.
#[derive(Clone, Debug)]
pub struct Requisition {
    /// Its name: one of [`Parameters::requisitions`], and with [`Variant::Native`] bound into the envelope.
    pub id: String,
    /// The encrypted vector, in records of one byte: [`envelope::Encryptor`]'s ciphertext of a byte a cell.
    pub vector: Body,
    /// The wrapped data encryption key: a serialized `tink.EncryptedKeyset`.
    pub wrapped_key: Vec<u8>,
    /// Id of the key-encryption key, for example its URI.
    pub kek: String,
}

/// What lets this process open data.
#[derive(Clone, Debug)]
pub struct Trust {
    /// Makes the evidence of what this process is.
    pub attestation: Arc<dyn Attestation>,
    /// The publishers' key services.
    pub keys: Arc<dyn KeyService>,
    /// Whether an attestation that proves nothing is good enough. Never where real data are processed.
    pub allow_simulated: bool,
    /// The trustee's secret for [`Noise::Sticky`], the same in all its computations; needed for nothing else.
    pub noise_key: Option<Secret<[u8; 32]>>,
}

/// The trustee's side of one computation; there is no other.
pub struct Duchy {
    parameters: Parameters,
    noise: Option<parameters::Calibrated>,
    seat: Seat,
    trust: Trust,
}

impl fmt::Debug for Duchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duchy").field("seat", &self.seat).finish_non_exhaustive()
    }
}

impl Duchy {
    /// The trustee's side of a computation. `seed` was drawn from the operating system's generator for this computation
    /// alone.
    ///
    /// # Errors
    /// [`ProtocolError::Parameters`] and [`ProtocolError::Noise`] when the parameters are out of range or the secret of
    /// sticky noise is missing; [`ProtocolError::NotAttested`] when the attestation is simulated and that is not allowed.
    pub fn new(
        parameters: Parameters,
        computation: String,
        me: DuchyId,
        seed: Secret<[u8; 32]>,
        trust: Trust,
    ) -> Result<Self, ProtocolError> {
        let noise = parameters.calibrate()?;
        if trust.attestation.is_simulated() && !trust.allow_simulated {
            return Err(ProtocolError::NotAttested {
                what: "anything".to_owned(),
                reason: "its attestation is simulated and proves nothing; set allow_simulated only where no real data \
                         are processed"
                    .to_owned(),
            });
        }
        if matches!(parameters.noise, Noise::Sticky(_)) && trust.noise_key.is_none() {
            return Err(ProtocolError::Noise("sticky noise needs the trustee's secret, and there is none".to_owned()));
        }
        let context = parameters.digest(Consumed::new("trustee context")).bytes(me.as_str().as_bytes()).finish();
        let engine = Engine { protocol: PROTOCOL, name: "trustee", version: ENGINE_VERSION };
        let seat = Seat { engine, computation, duchy: me, seed, context };
        Ok(Self { parameters, noise, seat, trust })
    }

    /// This Duchy.
    pub fn id(&self) -> &DuchyId {
        &self.seat.duchy
    }

    /// Begins with the requisitions that are there, in the order of their arrival: with all of them it gives the result,
    /// otherwise a state that awaits no message, but the rest of them.
    ///
    /// # Errors
    /// [`ProtocolError::BadVector`] names the requisition that is unknown, there twice, of another length, with a cell
    /// above [`MAXIMUM_CELL`], or whose ciphertext or key does not open; [`ProtocolError::NotAttested`] when a key service
    /// refuses; [`ProtocolError::Io`] when a vector cannot be read.
    pub fn start(
        &self,
        requisitions: &[Requisition],
        workspace: &dyn Workspace,
    ) -> Result<Step<Outcome>, ProtocolError> {
        match self.missing(requisitions)? {
            None => self.compute(requisitions, workspace),
            Some(_) => {
                let carried = vec![requisitions.len() as u64];
                Ok(self.seat.wait(Description::FrequencyVectors, Vec::new(), digest(requisitions), carried, Vec::new()))
            }
        }
    }

    /// Goes on when all requisitions are there: those of [`Self::start`] in the same order, then the others.
    ///
    /// # Errors
    /// As [`Self::start`]; and when the state is not of this computation, a message is handed in, or requisitions differ or
    /// are still missing.
    pub fn advance(
        &self,
        state: &State,
        requisitions: &[Requisition],
        inbox: &[Received],
        workspace: &dyn Workspace,
    ) -> Result<Step<Outcome>, ProtocolError> {
        let slots = self.awaiting(state)?;
        check_inbox(&slots, inbox)?;
        let (Description::FrequencyVectors, [before]) = (state.awaits, state.carried.as_slice()) else {
            return Err(ProtocolError::MalformedState("it is no trustee's".to_owned()));
        };
        let before = usize::try_from(*before).ok().and_then(|before| requisitions.get(..before));
        if before.is_none_or(|before| digest(before) != state.history) {
            return Err(ProtocolError::OtherRequisitions);
        }
        match self.missing(requisitions)? {
            None => self.compute(requisitions, workspace),
            Some(id) => Err(bad_vector(id, "it has not arrived")),
        }
    }

    /// The slots that a state awaits: none, because nobody sends anything to a trustee but publishers.
    ///
    /// # Errors
    /// When the state is not of this computation, Duchy, parameters and engine version.
    pub fn awaiting(&self, state: &State) -> Result<Vec<Slot>, ProtocolError> {
        self.seat.check_state(state)?;
        Ok(Vec::new())
    }

    /// Checks what can be checked of an upload without opening it: that it is one of the computation's, the length and
    /// digest of the ciphertext, and that the key is a wrapped one.
    ///
    /// # Errors
    /// [`ProtocolError::BadVector`] names the requisition; [`ProtocolError::Io`] when it cannot be read.
    pub fn check_requisition(&self, requisition: &Requisition) -> Result<(), ProtocolError> {
        let refuse = |reason: &dyn fmt::Display| bad_vector(&requisition.id, reason);
        if !self.parameters.requisitions.contains(&requisition.id) {
            return Err(refuse(&"it is none of the computation's"));
        }
        let (found, due) = (requisition.vector.records(), envelope::ciphertext_bytes(self.parameters.cells));
        if Some(found) != due {
            let (cells, due) = (self.parameters.cells, due.unwrap_or_default());
            return Err(refuse(&format!("its ciphertext has {found} bytes where {due} are due for {cells} cells")));
        }
        DataKey::check_wrapped(&requisition.wrapped_key).map_err(|error| refuse(&error))?;
        read_vector(requisition, |_| Ok(()))
    }

    /// A requisition that is not there yet, when all that are there are the computation's, each once.
    fn missing(&self, requisitions: &[Requisition]) -> Result<Option<&String>, ProtocolError> {
        let mut seen = std::collections::BTreeSet::new();
        for Requisition { id, .. } in requisitions {
            if !self.parameters.requisitions.contains(id) {
                return Err(bad_vector(id, "it is none of the computation's"));
            }
            if !seen.insert(id) {
                return Err(bad_vector(id, "it is there twice"));
            }
        }
        Ok(self.parameters.requisitions.iter().find(|id| !seen.contains(id)))
    }
}

fn digest(requisitions: &[Requisition]) -> [u8; 32] {
    requisitions
        .iter()
        .fold(Consumed::new("requisitions"), |consumed, one| {
            let consumed = consumed.bytes(one.id.as_bytes()).number(one.vector.records());
            consumed.bytes(&one.vector.sha256()).bytes(&one.wrapped_key).bytes(one.kek.as_bytes())
        })
        .finish()
}

fn bad_vector(requisition: &str, reason: impl fmt::Display) -> ProtocolError {
    ProtocolError::BadVector { requisition: requisition.to_owned(), reason: reason.to_string() }
}

/// Reads a ciphertext in chunks, checks it against its header, and names the requisition if it differs.
fn read_vector(
    requisition: &Requisition,
    mut each: impl FnMut(&[u8]) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    for_each_chunk(&requisition.vector, 1, &Origin::Own, CHUNK_BYTES, |chunk| each(chunk.bytes)).map_err(|error| {
        match error {
            ProtocolError::BadBody { reason, .. } => bad_vector(&requisition.id, reason),
            error => error,
        }
    })
}
