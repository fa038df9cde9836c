//! From a frequency vector to an envelope that only a trustee's attested process can open.
//!
//! The vector is encrypted under a data key of its own, and that key to the trustee's key, whose attestation was checked
//! when the requisition was opened ([`halo_crypto::envelope`]). Both ciphertexts are bound to the requisition: in another's
//! place they do not open.

use std::io::Write;

use halo_core::{
    pb::api::{
        EncryptionKey, encryption_key,
        fulfill_requisition_request::header::{TrusTee, trus_tee},
    },
    resource::{DuchyName, RequisitionName},
};
use halo_crypto::{
    consent::tink::PublicKeyset,
    envelope::{self, DataKey, Encryptor, HybridKey},
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    BodyError, Error,
    progress::{Observer, Stage, report},
};

/// Cells that are encrypted at a time.
const BATCH: usize = 1 << 20;

/// Who opens an envelope, and what it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Sealing<'a> {
    /// The Duchy.
    pub trustee: &'a DuchyName,
    /// Its attested key.
    pub key: &'a PublicKeyset,
    /// What the envelope is bound to.
    pub requisition: &'a RequisitionName,
}

/// Encrypts a vector, a byte a cell, and writes the ciphertext. Returns its length in bytes, and the header that says who
/// can open it.
///
/// Memory beside the vector: about 3 MiB.
///
/// `rng` must be a cryptographic generator that was seeded by the operating system: whoever knows its seed can decrypt.
///
/// # Errors
/// [`Error::Envelope`] when the trustee's key cannot encrypt; [`BodyError`] when the observer asks to stop, or the
/// ciphertext cannot be written.
pub fn seal(
    cells: Vec<u8>,
    sealing: &Sealing<'_>,
    out: &mut (impl Write + ?Sized),
    observer: &mut dyn Observer,
    rng: &mut impl CryptoRng,
) -> Result<(u64, TrusTee), BodyError> {
    // The cells are the plaintext: they are wiped however this ends.
    let cells = Zeroizing::new(cells);
    let unsealed = |error: envelope::Error| BodyError::Stopped(Error::Envelope(error));
    let binding = envelope::requisition_binding(&sealing.requisition.to_string());
    let uri = sealing.trustee.to_string();
    let key = DataKey::generate(rng);
    let wrapped = key.wrap(&HybridKey::public(uri.clone(), sealing.key.clone()), &binding, rng).map_err(unsealed)?;

    let total = cells.len() as u64;
    let mut encryptor = Encryptor::new(&key, &binding, rng);
    let (mut bytes, mut ciphertext) = (0, Vec::with_capacity(2 * BATCH));
    for (part, done) in cells.chunks(BATCH).zip((0..).step_by(BATCH)) {
        report(observer, Stage::Sharing, done, Some(total)).map_err(BodyError::Stopped)?;
        encryptor.write(part, &mut ciphertext).map_err(unsealed)?;
        out.write_all(&ciphertext).map_err(BodyError::Write)?;
        bytes += ciphertext.len() as u64;
        ciphertext.clear();
    }
    encryptor.finish(&mut ciphertext).map_err(unsealed)?;
    out.write_all(&ciphertext).map_err(BodyError::Write)?;
    bytes += ciphertext.len() as u64;
    report(observer, Stage::Sharing, total, Some(total)).map_err(BodyError::Stopped)?;

    let mut encrypted_dek = EncryptionKey { data: wrapped, ..EncryptionKey::default() };
    encrypted_dek.set_format(encryption_key::Format::TinkEncryptedKeyset);
    let mut header = TrusTee {
        envelope_encryption: Some(trus_tee::EnvelopeEncryption {
            encrypted_dek: Some(encrypted_dek),
            kms_kek_uri: uri,
            ..Default::default()
        }),
        ..TrusTee::default()
    };
    header.set_data_format(trus_tee::DataFormat::EncryptedFrequencyVector);
    Ok((bytes, header))
}
