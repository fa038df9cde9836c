//! From a frequency vector to the two shares of a share shuffle.
//!
//! The vector x is cut modulo q into a seed, which a generator expands to the first share, and the second share x − first
//! ([`halo_crypto::share`]). The second share is the body of the upload, for one worker. The seed goes to the other: signed
//! together with the requisition's name and the body's digest, and encrypted to that worker, it travels in the header.
//! Each worker alone sees uniform numbers.
//!
//! ```
//! use halo_crypto::share::Modulus;
//! use halo_edp_sdk::{progress::Unobserved, share::{self, Encoding, Sharing}};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # let mut rng = ChaCha20Rng::seed_from_u64(1); // an example; a publisher takes the operating system's generator
//! let sharing = Sharing { modulus: Modulus::new(127)?, encoding: Encoding::Bytes };
//! let mut body = Vec::new();
//! let seed = share::share(vec![0, 3, 1], &sharing, &mut body, &mut Unobserved, &mut rng)?;
//!
//! // Both workers together, which the protocol assumes never to happen, can add the shares up.
//! let mut first = vec![0; 3];
//! seed.generator().uniform(sharing.modulus, &mut first);
//! halo_crypto::share::add(sharing.modulus, &mut body, &first)?;
//! assert_eq!(body, [0, 3, 1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::Write;

use halo_core::{
    pb::api::{EncryptedMessage, RandomSeed},
    resource::RequisitionName,
    wire::type_name,
};
use halo_crypto::{
    consent::tink::PublicKeyset,
    secret::Secret,
    share::{self, Modulus, SEED_BYTES, Seed},
};
use prost::Message;
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    BodyError, Error,
    progress::{Observer, Stage, report},
    sign::Signer,
};

/// Cells that are cut at a time.
const BATCH: usize = 1 << 20;

/// Field 1 of a protobuf message, length-delimited.
const PACKED_FIELD_1: u8 = 0x0a;

/// How a share is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A protobuf message `FrequencyVector { repeated uint32 data = 1; }`, packed: as the reference's publishers write it.
    Protobuf,
    /// A byte a cell: the native variant.
    Bytes,
}

/// How a vector is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharing {
    /// q.
    pub modulus: Modulus,
    /// How the share is written.
    pub encoding: Encoding,
}

/// Cuts a vector and writes the share that is no seed. Returns the seed of the other one.
///
/// Memory: the vector is overwritten by its share; beside it a MiB or two.
///
/// `rng` must be a cryptographic generator that was seeded by the operating system: whoever knows its seed can undo the
/// cut.
///
/// # Errors
/// [`Error::Share`] when a cell is not below the modulus; [`BodyError`] when the observer asks to stop, or the share
/// cannot be written.
pub fn share(
    cells: Vec<u8>,
    sharing: &Sharing,
    out: &mut (impl Write + ?Sized),
    observer: &mut dyn Observer,
    rng: &mut impl CryptoRng,
) -> Result<Seed, BodyError> {
    let mut bytes = Zeroizing::new([0; SEED_BYTES]);
    rng.fill_bytes(&mut *bytes);
    let seed = Seed::new(Secret::new(*bytes));
    // The cells are the plaintext: they are wiped however this ends.
    let mut cells = Zeroizing::new(cells);
    let total = cells.len() as u64;
    let mut generator = seed.generator();
    let mut numbers = generator.uniform_parts(sharing.modulus, cells.len());
    let mut first = Zeroizing::new(vec![0; BATCH.min(cells.len())]);
    for (part, done) in cells.chunks_mut(BATCH).zip((0..).step_by(BATCH)) {
        report(observer, Stage::Sharing, done, Some(total)).map_err(BodyError::Stopped)?;
        let first = &mut first[..part.len()];
        numbers.fill(first);
        share::subtract(sharing.modulus, part, first).map_err(|error| BodyError::Stopped(error.into()))?;
    }
    write(&cells, sharing.encoding, out).map_err(BodyError::Write)?;
    report(observer, Stage::Sharing, total, Some(total)).map_err(BodyError::Stopped)?;
    Ok(seed)
}

fn write(share: &[u8], encoding: Encoding, out: &mut (impl Write + ?Sized)) -> std::io::Result<()> {
    if encoding == Encoding::Bytes {
        return out.write_all(share);
    }
    if share.is_empty() {
        return Ok(());
    }
    // A number below 128 is one byte, another two.
    let length = share.len() as u64 + share.iter().filter(|cell| **cell >= 0x80).count() as u64;
    let mut bytes = vec![PACKED_FIELD_1];
    prost::encoding::encode_varint(length, &mut bytes);
    out.write_all(&bytes)?;
    for part in share.chunks(BATCH) {
        bytes.clear();
        part.iter().for_each(|cell| prost::encoding::encode_varint(u64::from(*cell), &mut bytes));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Signs the seed with what it belongs to, and encrypts it to the worker that expands it.
///
/// # Errors
/// [`Error::Consent`] when the worker's key cannot encrypt.
pub fn seal_seed(
    seed: &Seed,
    requisition: &RequisitionName,
    share_sha256: &[u8; 32],
    worker: &PublicKeyset,
    signer: &Signer,
    rng: &mut impl CryptoRng,
) -> Result<EncryptedMessage, Error> {
    let mut message = RandomSeed {
        data: seed.expose().to_vec(),
        requisition: requisition.to_string(),
        share_sha256: share_sha256.to_vec(),
    };
    let sealed = signer.sign_and_encrypt(type_name::RANDOM_SEED, message.encode_to_vec(), worker, rng);
    message.data.zeroize();
    sealed
}
