//! Keys of computations: the one way to make, seal, open, rotate and destroy them.
//!
//! | moment | what happens |
//! |---|---|
//! | generation | a computation's seed and key are drawn ([`KeyManager::generate`]), sealed, and stored with the computation |
//! | opening | a step opens them in memory ([`KeyManager::open`]); they are wiped when it ends |
//! | rotation | at the start, whatever is sealed under a former key-encryption key is sealed anew ([`KeyManager::start`]) |
//! | destruction | with the last message acknowledged the store drops the sealed bytes; [`KeyManager::settle`] makes sure that they are gone from the database's files, and signs that |
//!
//! Each leaves a row of the audit trail, and an event with the target `halo::audit`. None of them shows a secret: keys are
//! named by their kind and the digest of their public half ([`KeyEntry`]).
//!
//! # What is sealed, and under what
//!
//! The key-encryption key is whatever implements [`halo_crypto::seal::KeyEncryptionKey`]: by default keys from a file or
//! the environment, which hold one key a line. The first one seals, all open; to rotate, write a new first line and
//! restart: the former line may go when the log says that nothing is sealed under it any more. What is sealed is bound to
//! its Duchy, computation and kind, and does not open in another's place.
//!
//! # One Duchy, one process, one database
//!
//! A database remembers whose it is, and another Duchy's process refuses it; a state directory is one process's own. So no
//! process holds shares of two Duchies, unless an operator runs both with the same files on purpose.
//!
//! # What destruction means
//!
//! The sealed bytes are overwritten in the database (`secure_delete`) and its write-ahead log is emptied into it and cut,
//! before the record is signed. The record does not speak of what lies below the file system (copies that a disk or a
//! snapshot keeps), of backups, or of the process's memory beyond wiping. Whoever rotates and forgets the key-encryption key
//! makes such copies worthless as well.

mod conformance;
mod record;
mod vault;

use std::sync::Arc;

use async_trait::async_trait;
use halo_core::clock::Timestamp;
use halo_core::resource::DuchyId;
use halo_crypto::consent::x509::SigningKey;
use halo_crypto::seal::{KeyEncryptionKey as _, Keyring};
use halo_crypto::secret::Secret;
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use thiserror::Error;

pub use conformance::conformance;
pub use record::{DestructionRecord, RecordError, SignedRecord};

use super::secrets::{ComputationSecrets, KeyKind, SecretError};
use super::store::StoreError;
use vault::{Vault, What};

/// Why the key manager did not do what it was asked for.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A secret cannot be sealed or opened.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database is another Duchy's.
    #[error("the database holds the keys of {owner}, and this is {me}: give each Duchy a state_dir of its own")]
    OtherDuchy {
        /// Whose it is.
        owner: String,
        /// Who opened it.
        me: DuchyId,
    },
}

/// What may be known of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    /// Kind, and for a key with a public half the first 16 hexadecimal digits of that digest: `elgamal:5f…`, `seed`.
    pub id: String,
    /// `seed`, `elgamal` or `hpke`.
    pub kind: String,
    /// SHA-256 of the public half, as it is sent to others.
    pub public_sha256: Option<[u8; 32]>,
}

impl KeyEntry {
    /// A seed.
    pub(super) fn seed() -> Self {
        Self { id: "seed".to_owned(), kind: "seed".to_owned(), public_sha256: None }
    }

    /// A key with this public half.
    pub(super) fn of(kind: &str, public: &[u8]) -> Self {
        let sha256: [u8; 32] = Sha256::digest(public).into();
        let id = format!("{kind}:{}", hex::encode(&sha256[..8]));
        Self { id, kind: kind.to_owned(), public_sha256: Some(sha256) }
    }
}

/// New secrets of a computation, sealed, and what may be known of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedKeys {
    /// The sealed secrets.
    pub sealed: Vec<u8>,
    /// What they are.
    pub entries: Vec<KeyEntry>,
    /// Id of the key-encryption key.
    pub kek: String,
}

/// What was done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditEvent {
    /// They were drawn and sealed.
    Generated,
    /// They were opened in memory.
    Opened,
    /// They were sealed anew under another key-encryption key.
    Rotated,
    /// They are gone.
    Destroyed,
}

impl AuditEvent {
    /// The name in storage and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Opened => "opened",
            Self::Rotated => "rotated",
            Self::Destroyed => "destroyed",
        }
    }

    /// The event with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Generated, Self::Opened, Self::Rotated, Self::Destroyed].into_iter().find(|event| event.name() == name)
    }
}

/// A line of the audit trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// When.
    pub at: Timestamp,
    /// What was done.
    pub event: AuditEvent,
    /// The computation's external id.
    pub computation: String,
    /// Ids of the keys, separated by spaces.
    pub keys: String,
    /// Id of the key-encryption key.
    pub kek: String,
}

impl AuditLine {
    /// Writes the line to the log.
    fn log(&self) {
        let Self { at: _, event, computation, keys, kek } = self;
        tracing::info!(target: "halo::audit", event = event.name(), computation, keys, kek, "keys {}", event.name());
    }
}

/// Something sealed at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRow {
    /// The computation's external id.
    pub computation: String,
    /// Which column it is in.
    pub place: SealedPlace,
    /// The sealed bytes.
    pub sealed: Vec<u8>,
}

/// Where something sealed is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedPlace {
    /// Secrets of a computation.
    Secrets,
    /// State of a computation's engine.
    EngineState,
}

/// Keys of a computation that are dropped, but not yet recorded as destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedKeys {
    /// The computation's external id.
    pub computation: String,
    /// What they were.
    pub entries: Vec<KeyEntry>,
    /// When they were drawn.
    pub generated: Timestamp,
}

/// What a store remembers of keys. Every method is one transaction that is durable when it returns.
///
/// The sealed secrets of a computation are stored and dropped with the computation, by [`super::store::Store`]; a store
/// writes [`SealedKeys::entries`] and the audit line of their generation in that same transaction.
#[async_trait]
pub trait KeyStore: std::fmt::Debug + Send + Sync {
    /// Says whose database this is; an empty one becomes `duchy`'s.
    async fn owner(&self, duchy: &DuchyId) -> Result<String, StoreError>;

    /// Appends to the audit trail.
    async fn audit(&self, lines: &[AuditLine]) -> Result<(), StoreError>;

    /// The audit trail of a computation, in order.
    async fn audit_trail(&self, computation: &str) -> Result<Vec<AuditLine>, StoreError>;

    /// Remembers keys that are not remembered yet: of computations from before there was a list.
    async fn adopt(&self, computation: &str, entries: &[KeyEntry], now: Timestamp) -> Result<(), StoreError>;

    /// Everything that is sealed.
    async fn sealed(&self) -> Result<Vec<SealedRow>, StoreError>;

    /// Puts `new` in the place of what a row held, unless that has changed since, and appends to the audit trail. Says
    /// whether it did.
    async fn reseal(&self, row: &SealedRow, new: &[u8], line: &AuditLine) -> Result<bool, StoreError>;

    /// Keys that were drawn, whose sealed form is dropped, and whose destruction is not recorded.
    async fn dropped(&self) -> Result<Vec<DroppedKeys>, StoreError>;

    /// Makes sure that nothing that was dropped is left in the database's files. `false` when somebody is reading just now:
    /// try again later.
    async fn erase(&self) -> Result<bool, StoreError>;

    /// Keeps the record of a destruction, for good, and appends to the audit trail.
    async fn record_destruction(
        &self,
        computation: &str,
        record: &SignedRecord,
        line: &AuditLine,
    ) -> Result<(), StoreError>;

    /// The record of a destruction.
    async fn destruction(&self, computation: &str) -> Result<Option<SignedRecord>, StoreError>;
}

/// Makes, seals, opens, rotates and destroys the keys of one Duchy.
#[derive(Debug)]
pub struct KeyManager {
    vault: Vault,
    store: Arc<dyn KeyStore>,
}

impl KeyManager {
    /// Takes the database's keys over: refuses another Duchy's, and seals anew whatever is not sealed under the newest
    /// key-encryption key. To be called before anything else works on the store.
    ///
    /// # Errors
    /// [`KeyError`]; also when something that is stored does not open, because a key-encryption key is missing.
    pub async fn start(
        keys: Keyring,
        duchy: DuchyId,
        store: Arc<dyn KeyStore>,
        now: Timestamp,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<Self, KeyError> {
        let owner = store.owner(&duchy).await?;
        if owner != duchy.as_str() {
            return Err(KeyError::OtherDuchy { owner, me: duchy });
        }
        let manager = Self { vault: Vault::new(keys, duchy), store };
        manager.rotate(now, rng).await?;
        Ok(manager)
    }

    /// Seals anew whatever is not sealed under the newest key-encryption key.
    async fn rotate(&self, now: Timestamp, rng: &mut (impl CryptoRng + Send)) -> Result<(), KeyError> {
        let mut rotated = 0;
        for row in self.store.sealed().await? {
            if self.vault.keys().is_current(&row.sealed) {
                continue;
            }
            let what = match row.place {
                SealedPlace::Secrets => What::Secrets,
                SealedPlace::EngineState => What::EngineState,
            };
            let plain = self.vault.open(what, &row.computation, &row.sealed)?;
            let keys = match row.place {
                SealedPlace::Secrets => {
                    let secrets = self.vault.read_secrets(&row.computation, plain.expose())?;
                    self.store.adopt(&row.computation, &secrets.entries(), now).await?;
                    ids(&secrets.entries())
                }
                SealedPlace::EngineState => "state".to_owned(),
            };
            let new = self.vault.seal(what, &row.computation, plain.expose(), rng)?;
            let line = self.line(AuditEvent::Rotated, &row.computation, keys, now);
            if self.store.reseal(&row, &new, &line).await? {
                line.log();
                rotated += 1;
            }
        }
        if rotated > 0 {
            // What was sealed under a former key is not to be left behind; if somebody reads just now, `settle` will do it.
            self.store.erase().await?;
            let kek = self.vault.keys().id();
            tracing::info!(rotated, kek, "all secrets are sealed under this key; former ones may be removed");
        }
        Ok(())
    }

    /// Draws and seals the secrets of a computation. They exist for others only when the store has taken them.
    ///
    /// # Errors
    /// [`SecretError::Seal`] when a key management service cannot be asked or refuses.
    pub fn generate(
        &self,
        computation: &str,
        kind: KeyKind,
        rng: &mut impl CryptoRng,
    ) -> Result<SealedKeys, SecretError> {
        let secrets = ComputationSecrets::draw(kind, rng);
        let sealed = self.vault.seal(What::Secrets, computation, &secrets.to_bytes(), rng)?;
        let (entries, kek) = (secrets.entries(), self.vault.keys().id().to_owned());
        let keys = ids(&entries);
        tracing::info!(target: "halo::audit", event = "generated", computation, keys, kek, "keys generated");
        Ok(SealedKeys { sealed, entries, kek })
    }

    /// Opens the secrets of a computation.
    ///
    /// # Errors
    /// If they were sealed under a key that is not here, for another Duchy or computation, or were altered; if the store
    /// fails.
    pub async fn open(&self, computation: &str, sealed: &[u8], now: Timestamp) -> Result<ComputationSecrets, KeyError> {
        let plain = self.vault.open(What::Secrets, computation, sealed)?;
        let secrets = self.vault.read_secrets(computation, plain.expose())?;
        let line = self.line(AuditEvent::Opened, computation, ids(&secrets.entries()), now);
        line.log();
        self.store.audit(&[line]).await?;
        Ok(secrets)
    }

    /// Seals the engine's state, which holds counts that are nobody else's business.
    ///
    /// # Errors
    /// [`SecretError::Seal`].
    pub fn seal_state(
        &self,
        computation: &str,
        state: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, SecretError> {
        self.vault.seal(What::EngineState, computation, state, rng)
    }

    /// Opens the engine's state.
    ///
    /// # Errors
    /// [`SecretError::Sealed`].
    pub fn open_state(&self, computation: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, SecretError> {
        self.vault.open(What::EngineState, computation, sealed)
    }

    /// Makes sure that nothing is left of keys that the store has dropped, and signs and keeps a record for each
    /// computation. Says how many. To be called when a computation has ended, and now and then: what was interrupted, or
    /// waits for a reader, is done the next time.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn settle(&self, signer: &SigningKey, certificate: &str, now: Timestamp) -> Result<usize, StoreError> {
        let dropped = self.store.dropped().await?;
        if dropped.is_empty() || !self.store.erase().await? {
            return Ok(0);
        }
        for DroppedKeys { computation, entries, generated } in &dropped {
            let record = DestructionRecord {
                duchy: self.vault.duchy().clone(),
                certificate: certificate.to_owned(),
                computation: computation.clone(),
                generated: *generated,
                destroyed: now,
                keys: entries.clone(),
            };
            let line = self.line(AuditEvent::Destroyed, computation, ids(entries), now);
            self.store.record_destruction(computation, &record.sign(signer), &line).await?;
            line.log();
        }
        Ok(dropped.len())
    }

    fn line(&self, event: AuditEvent, computation: &str, keys: String, at: Timestamp) -> AuditLine {
        AuditLine { at, event, computation: computation.to_owned(), keys, kek: self.vault.keys().id().to_owned() }
    }
}

/// The ids, separated by spaces.
pub(super) fn ids(entries: &[KeyEntry]) -> String {
    entries.iter().map(|entry| entry.id.as_str()).collect::<Vec<_>>().join(" ")
}
