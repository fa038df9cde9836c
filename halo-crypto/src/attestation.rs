//! Whether a publisher lets a trustee's process open its data: evidence of what runs there, and who decides about it.
//!
//! A trustee's process makes [`Evidence`] for a [`Statement`] with its [`Attestation`]. The publisher's [`KeyService`] has
//! an [`AttestationVerifier`] decide, and releases the data encryption key only when it accepts.
//!
//! The only implementation here is [`SimulatedAttestation`]: it **protects nothing**, because it proves nothing about the
//! process that makes it. It exists so that the protocol can be run and tested without an enclave, and is refused
//! wherever it is not explicitly allowed. An operator with a real enclave implements [`Attestation`] in the trustee and
//! [`AttestationVerifier`] in the publishers' key service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::envelope::{self, DataKey};
use crate::seal::KeyEncryptionKey;

/// Format of simulated evidence.
pub const SIMULATED: &str = "halo-simulated-attestation-v1";

/// What evidence is evidence of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Id of the Duchy whose process asks.
    pub trustee: String,
    /// Id of the computation.
    pub computation: String,
    /// What else the process binds itself to: SHA-256 of the computation's parameters (before it opens data), or of its
    /// public key (before data are encrypted to it).
    pub binding: [u8; 32],
}

impl Statement {
    /// That the key is the process's own and that nobody else has its private half: what a publisher is shown before it
    /// encrypts. The session stands for the computation, whose id publishers do not know; `public_key` are the bytes that
    /// the trustee's Duchy signed.
    #[must_use]
    pub fn of_key(trustee: &str, session: &[u8; 32], public_key: &[u8]) -> Self {
        let (trustee, computation) = (trustee.to_owned(), hex::encode(session));
        Self { trustee, computation, binding: Sha256::digest(public_key).into() }
    }

    /// SHA-256 of all fields, each with its length in front: what evidence carries as its nonce.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new().chain_update(b"HALO-ATTESTATION-STATEMENT-V1");
        for field in [self.trustee.as_bytes(), self.computation.as_bytes(), &self.binding] {
            hasher.update((field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        hasher.finalize().into()
    }
}

/// What a process shows about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Which kind it is, so that a verifier can refuse what it does not know.
    pub format: String,
    /// The evidence itself, for example a token or a quote.
    pub bytes: Vec<u8>,
}

impl Evidence {
    /// The stored and transmitted form: length of the format (1 byte), format, bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let format = &self.format.as_bytes()[..self.format.len().min(255)];
        [&[format.len() as u8], format, &self.bytes].concat()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`Refused::Malformed`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Refused> {
        let (length, rest) = bytes.split_first().ok_or(Refused::Malformed)?;
        let (format, bytes) = rest.split_at_checked(usize::from(*length)).ok_or(Refused::Malformed)?;
        let format = std::str::from_utf8(format).map_err(|_| Refused::Malformed)?.to_owned();
        Ok(Self { format, bytes: bytes.to_vec() })
    }
}

/// The trustee's side: makes evidence.
pub trait Attestation: fmt::Debug + Send + Sync {
    /// Whether the evidence proves nothing.
    fn is_simulated(&self) -> bool;

    /// Evidence that this process makes the statement.
    ///
    /// # Errors
    /// In words, when the platform gives none.
    fn evidence(&self, statement: &Statement) -> Result<Evidence, String>;
}

/// The publisher's side: decides about evidence.
pub trait AttestationVerifier: fmt::Debug + Send + Sync {
    /// Accepts the evidence as that of a process that may open the publisher's data.
    ///
    /// # Errors
    /// [`Refused`].
    fn verify(&self, statement: &Statement, evidence: &Evidence) -> Result<(), Refused>;
}

/// Why a key is not released.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The evidence does not decode.
    #[error("the attestation evidence does not decode")]
    Malformed,
    /// The evidence is of a kind that the verifier does not know.
    #[error("attestation evidence of format {format:?} is not accepted here")]
    UnknownFormat {
        /// What it says it is.
        format: String,
    },
    /// Simulated evidence where it is not allowed.
    #[error(
        "simulated attestation proves nothing and is refused; set allow_simulated only where no real data are processed"
    )]
    Simulated,
    /// The evidence is of another statement.
    #[error("the attestation evidence is of another trustee, computation or key")]
    OtherStatement,
    /// The process is not one that may open the data.
    #[error("the attested process is not accepted: {0}")]
    NotAccepted(String),
    /// Nobody here keeps the key-encryption key.
    #[error("key-encryption key {kek:?} is not kept here")]
    UnknownKey {
        /// Its id.
        kek: String,
    },
    /// The key does not unwrap.
    #[error(transparent)]
    Envelope(#[from] envelope::Error),
    /// The service cannot be asked: try again.
    #[error("the key service is not available: {0}")]
    Unavailable(String),
}

/// Stands in for the attestation of a hardware enclave and **proves nothing**: everybody can make its evidence.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimulatedAttestation;

impl Attestation for SimulatedAttestation {
    fn is_simulated(&self) -> bool {
        true
    }

    fn evidence(&self, statement: &Statement) -> Result<Evidence, String> {
        Ok(Evidence { format: SIMULATED.to_owned(), bytes: statement.digest().to_vec() })
    }
}

/// Decides about [`SimulatedAttestation`]'s evidence: it is refused, unless explicitly allowed.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimulatedVerifier {
    /// Accept simulated evidence. Never where real data are processed.
    pub allow_simulated: bool,
}

impl AttestationVerifier for SimulatedVerifier {
    fn verify(&self, statement: &Statement, evidence: &Evidence) -> Result<(), Refused> {
        if evidence.format != SIMULATED {
            return Err(Refused::UnknownFormat { format: evidence.format.clone() });
        }
        if !self.allow_simulated {
            return Err(Refused::Simulated);
        }
        if evidence.bytes == statement.digest() { Ok(()) } else { Err(Refused::OtherStatement) }
    }
}

/// What a trustee's process asks of a publisher's key service.
#[derive(Clone, Copy, Debug)]
pub struct KeyRequest<'a> {
    /// The publisher's requisition.
    pub requisition: &'a str,
    /// Id of the key-encryption key.
    pub kek: &'a str,
    /// The wrapped data encryption key.
    pub wrapped_key: &'a [u8],
    /// What was bound when it was wrapped.
    pub associated_data: &'a [u8],
    /// What the process says.
    pub statement: &'a Statement,
    /// Its evidence.
    pub evidence: &'a Evidence,
}

/// Where data encryption keys are unwrapped: the publisher's, and only for processes that it accepts.
pub trait KeyService: fmt::Debug + Send + Sync {
    /// Unwraps the key, if the evidence is accepted.
    ///
    /// # Errors
    /// [`Refused`].
    fn release(&self, request: &KeyRequest<'_>) -> Result<DataKey, Refused>;
}

/// A key service in this process: it has the verifier decide first, and unwraps only then.
#[derive(Debug)]
pub struct AttestedKeyService {
    verifier: Arc<dyn AttestationVerifier>,
    keys: BTreeMap<String, Arc<dyn KeyEncryptionKey>>,
}

impl AttestedKeyService {
    /// Keeps these keys, and unwraps with them for whom the verifier accepts.
    #[must_use]
    pub fn new(verifier: Arc<dyn AttestationVerifier>, keys: Vec<Arc<dyn KeyEncryptionKey>>) -> Self {
        Self { verifier, keys: keys.into_iter().map(|key| (key.id().to_owned(), key)).collect() }
    }
}

impl KeyService for AttestedKeyService {
    fn release(&self, request: &KeyRequest<'_>) -> Result<DataKey, Refused> {
        self.verifier.verify(request.statement, request.evidence)?;
        let key = self.keys.get(request.kek).ok_or_else(|| Refused::UnknownKey { kek: request.kek.to_owned() })?;
        Ok(DataKey::unwrap(key.as_ref(), request.wrapped_key, request.associated_data)?)
    }
}
