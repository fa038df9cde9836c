//! Keys from their generation to their destruction, over the real database.
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use halo_core::clock::Timestamp;
use halo_core::resource::DuchyId;
use halo_crypto::consent::x509::{Certificate, SigningKey};
use halo_crypto::seal::{KeyEncryptionKey, Keyring, LocalKey};
use halo_crypto::secret::Secret;
use halo_duchy::server::keys::{AuditEvent, KeyError, KeyManager, KeyStore, conformance};
use halo_duchy::server::secrets::{ComputationKey, KeyKind};
use halo_duchy::server::stage::{Role, Stage};
use halo_duchy::server::store::{Claim, Lease, NewComputation, Report, SqliteStore, StageCommit, Store};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const CERTIFICATE: &str = "duchies/worker1/certificates/AAAAAAAAAHs";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_nanos(seconds * 1_000_000_000)
}

fn duchy(id: &str) -> DuchyId {
    DuchyId::new(id).unwrap()
}

fn keyring(bytes: &[u8]) -> Keyring {
    let mut keys =
        bytes.iter().map(|byte| Arc::new(LocalKey::from_bytes(Secret::new([*byte; 32]))) as Arc<dyn KeyEncryptionKey>);
    Keyring::new(keys.next().unwrap(), keys.collect())
}

async fn open(directory: &Path) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(&directory.join("duchy.sqlite")).await.unwrap())
}

async fn start(store: &Arc<SqliteStore>, keys: &[u8], seconds: i64) -> Result<KeyManager, KeyError> {
    let mut rng = ChaCha20Rng::seed_from_u64(seconds as u64);
    KeyManager::start(keyring(keys), duchy("worker1"), Arc::<SqliteStore>::clone(store), at(seconds), &mut rng).await
}

/// A computation with new keys, whose first stage has left a state of the engine.
async fn begin(store: &SqliteStore, keys: &KeyManager, computation: &str, kind: KeyKind, seconds: i64) {
    let mut rng = ChaCha20Rng::seed_from_u64(1000 + seconds as u64);
    let secrets = keys.generate(computation, kind, &mut rng).unwrap();
    let new = NewComputation { role: Role::Worker, secrets, requisitions: Vec::new() };
    apply(store, computation, Some(new), None, seconds).await;
    let lease = lease(store, computation, seconds).await;
    let state = keys.seal_state(computation, b"the engine's state", &mut rng).unwrap();
    let commit = StageCommit {
        from: Stage::InitializationPhase,
        next: Stage::WaitRequisitionsAndKeySet,
        engine_state: Some(state),
        outbox: Vec::new(),
        awaiting: Vec::new(),
        consumed: Vec::new(),
        failure: None,
    };
    store.commit(&lease, &commit, at(seconds)).await.unwrap();
    store.release(&lease, halo_duchy::server::store::Release::Done).await.unwrap();
}

async fn apply(
    store: &SqliteStore,
    computation: &str,
    new: Option<NewComputation>,
    over: Option<Option<String>>,
    seconds: i64,
) {
    let computation = computation.to_owned();
    let report = Report { computation, kingdom_state: 1, received: Vec::new(), new, over, refusal: None };
    store.apply(Some(&report), "token", at(seconds)).await.unwrap();
}

async fn lease(store: &SqliteStore, computation: &str, seconds: i64) -> Lease {
    match store.claim("mill", at(seconds), at(seconds + 60)).await.unwrap() {
        Claim::Leased(lease) if lease.computation == computation => lease,
        other => panic!("{other:?}"),
    }
}

/// The Kingdom says that it is over, and everything is delivered: the mill drops the keys.
async fn finish(store: &SqliteStore, computation: &str, seconds: i64) {
    apply(store, computation, None, Some(None), seconds).await;
    let lease = lease(store, computation, seconds).await;
    assert!(store.finish(&lease, at(seconds)).await.unwrap());
}

fn consent() -> (SigningKey, Certificate) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.use_authority_key_identifier_extension = true;
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters.self_signed(&key).unwrap();
    let signer = SigningKey::from_pkcs8_pem(&key.serialize_pem()).unwrap();
    (signer, Certificate::from_der(certificate.der()).unwrap())
}

/// Whether any 12 bytes in a row of `bytes` are in one of the database's files.
fn is_found(directory: &Path, bytes: &[u8]) -> bool {
    let files: Vec<Vec<u8>> =
        fs::read_dir(directory).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!files.is_empty());
    bytes.windows(12).any(|part| files.iter().any(|file| file.windows(12).any(|there| there == part)))
}

#[tokio::test]
async fn sqlite_passes_the_suite() {
    let directory = tempfile::tempdir().unwrap();
    conformance(open(directory.path()).await.as_ref()).await;
}

#[tokio::test]
async fn keys_are_used_destroyed_and_nothing_is_left_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let keys = start(&store, &[1], 1).await.unwrap();
    let (signer, certificate) = consent();
    for (computation, kind) in [("elgamal", KeyKind::ElGamal), ("hpke", KeyKind::Hpke), ("none", KeyKind::None)] {
        begin(&store, &keys, computation, kind, 2).await;
    }
    let record = store.load("elgamal").await.unwrap().unwrap();
    let sealed = record.secrets.unwrap();
    let opened = keys.open("elgamal", &sealed, at(3)).await.unwrap();
    let ComputationKey::ElGamal(share) = &opened.key else { panic!() };
    assert!(keys.open("hpke", &sealed, at(3)).await.is_err(), "in another's place it does not open");
    // Nothing is destroyed while it is in use.
    assert_eq!(keys.settle(&signer, CERTIFICATE, at(4)).await.unwrap(), 0);
    let state = record.engine_state.unwrap();
    // What identifies the sealed bytes: without the header, which names the key-encryption key.
    let (body, state_body) = (&sealed[sealed.len() - 60..], &state[state.len() - 40..]);
    assert!(is_found(directory.path(), body) && is_found(directory.path(), state_body));

    finish(&store, "elgamal", 5).await;
    assert_eq!(keys.settle(&signer, CERTIFICATE, at(6)).await.unwrap(), 1);
    assert!(!is_found(directory.path(), body), "the sealed key is still in the files");
    assert!(!is_found(directory.path(), state_body), "the sealed state is still in the files");
    assert!(!is_found(directory.path(), share.to_bytes().expose()), "the key was never in the clear there");
    assert_eq!(keys.settle(&signer, CERTIFICATE, at(7)).await.unwrap(), 0, "once");

    // The record says what and when, and is signed.
    let signed = store.destruction("elgamal").await.unwrap().unwrap();
    let record = signed.verify(&certificate).unwrap();
    assert_eq!((record.computation.as_str(), record.certificate.as_str()), ("elgamal", CERTIFICATE));
    assert_eq!((record.duchy, record.generated, record.destroyed), (duchy("worker1"), at(2), at(6)));
    assert_eq!(record.keys, opened.entries());
    let mut altered = signed.clone();
    altered.text = altered.text.replace("worker1", "worker2");
    assert!(altered.verify(&certificate).is_err());
    assert!(signed.verify(&consent().1).is_err(), "another's certificate");

    // Every step left a line; the others are untouched, and are abandoned in the end.
    let events =
        |lines: Vec<halo_duchy::server::keys::AuditLine>| lines.iter().map(|line| line.event).collect::<Vec<_>>();
    let trail = events(store.audit_trail("elgamal").await.unwrap());
    assert_eq!(trail, [AuditEvent::Generated, AuditEvent::Opened, AuditEvent::Destroyed]);
    assert_eq!(events(store.audit_trail("hpke").await.unwrap()), [AuditEvent::Generated]);
    for computation in ["hpke", "none"] {
        store.abandon(computation, "its deadline has passed", at(8)).await.unwrap();
    }
    assert_eq!(keys.settle(&signer, CERTIFICATE, at(9)).await.unwrap(), 2);
    let seed = store.destruction("none").await.unwrap().unwrap().verify(&certificate).unwrap();
    assert_eq!(seed.keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), ["seed"]);
}

#[tokio::test]
async fn a_process_that_dies_between_destruction_and_record_leaves_it_to_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let (signer, certificate) = consent();
    {
        let store = open(directory.path()).await;
        let keys = start(&store, &[1], 1).await.unwrap();
        begin(&store, &keys, "c", KeyKind::Hpke, 2).await;
        finish(&store, "c", 3).await;
        // The computation is forgotten before anybody could sign.
        assert_eq!(store.forget(at(100)).await.unwrap(), 1);
    }
    let store = open(directory.path()).await;
    let keys = start(&store, &[1], 200).await.unwrap();
    assert_eq!(keys.settle(&signer, CERTIFICATE, at(201)).await.unwrap(), 1);
    assert_eq!(store.destruction("c").await.unwrap().unwrap().verify(&certificate).unwrap().keys.len(), 2);
}

#[tokio::test]
async fn while_somebody_reads_nothing_is_signed() {
    let directory = tempfile::tempdir().unwrap();
    let (signer, _) = consent();
    let store = open(directory.path()).await;
    let keys = start(&store, &[1], 1).await.unwrap();
    begin(&store, &keys, "c", KeyKind::ElGamal, 2).await;
    // A reader that still sees the sealed key keeps it in the log.
    let file = directory.path().join("duchy.sqlite");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let reader = sqlx::sqlite::SqlitePool::connect_with(options).await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    let _: Vec<u8> = sqlx::query_scalar("SELECT secrets FROM computations").fetch_one(&mut *reading).await.unwrap();
    finish(&store, "c", 3).await;
    let erased = tokio::time::timeout(std::time::Duration::from_secs(60), keys.settle(&signer, CERTIFICATE, at(4)));
    assert_eq!(erased.await.unwrap().unwrap(), 0);
    assert_eq!(store.destruction("c").await.unwrap(), None);
    reading.rollback().await.unwrap();
    reader.close().await;
    assert_eq!(keys.settle(&signer, CERTIFICATE, at(5)).await.unwrap(), 1);
}

#[tokio::test]
async fn rotation_seals_everything_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    let keys = start(&store, &[1], 1).await.unwrap();
    begin(&store, &keys, "c", KeyKind::ElGamal, 2).await;
    let before = store.load("c").await.unwrap().unwrap();
    let entries = keys.open("c", before.secrets.as_ref().unwrap(), at(3)).await.unwrap().entries();

    // The new key in front of the old one.
    let keys = start(&store, &[2, 1], 4).await.unwrap();
    let after = store.load("c").await.unwrap().unwrap();
    assert_ne!((&before.secrets, &before.engine_state), (&after.secrets, &after.engine_state));
    assert_eq!(keys.open("c", after.secrets.as_ref().unwrap(), at(5)).await.unwrap().entries(), entries);
    assert_eq!(keys.open_state("c", after.engine_state.as_ref().unwrap()).unwrap().expose(), b"the engine's state");
    let events = |lines: &[halo_duchy::server::keys::AuditLine]| {
        lines.iter().filter(|line| line.event == AuditEvent::Rotated).map(|line| line.kek.clone()).collect::<Vec<_>>()
    };
    let new = keyring(&[2]).id().to_owned();
    assert_eq!(events(&store.audit_trail("c").await.unwrap()), [new.clone(), new], "key and state");

    // Now the old one may go; a second start has nothing to do.
    start(&store, &[2], 6).await.unwrap();
    assert_eq!(store.load("c").await.unwrap().unwrap().secrets, after.secrets);
    // Without the key nothing starts, and nothing is lost.
    let error = start(&store, &[3], 8).await.unwrap_err().to_string();
    assert!(error.contains("not among the keys that were given"), "{error}");
    start(&store, &[3, 2], 9).await.unwrap();
}

#[tokio::test]
async fn the_database_of_another_duchy_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await;
    start(&store, &[1], 1).await.unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let other = KeyManager::start(keyring(&[1]), duchy("worker2"), store, at(2), &mut rng).await.unwrap_err();
    assert!(matches!(&other, KeyError::OtherDuchy { owner, .. } if owner == "worker1"), "{other}");
}
