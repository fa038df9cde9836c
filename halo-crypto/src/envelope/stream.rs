//! Streaming AEAD `AES256_GCM_HKDF_1MB` as Tink writes it.
//!
//! ```text
//! ciphertext = header ‖ segment 0 ‖ segment 1 ‖ …         every 2^20 bytes of it end a segment; the last may be shorter
//! header     = 40 (1 byte) ‖ salt (32) ‖ nonce prefix (7)
//! key        = HKDF-SHA-256(ikm = data key, salt, info = associated data, 32 bytes)
//! segment i  = AES-256-GCM(key, nonce = nonce prefix ‖ i (4, big endian) ‖ 1 if last else 0, no associated data)
//! ```
//!
//! Position and end are in the nonce: a segment that was moved, left out or put at the end does not open.

use std::fmt;

use aes_gcm::aead::Aead;
use aes_gcm::{Aes256Gcm, KeyInit};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

use super::Error;
use super::key::{DataKey, KEY_BYTES};
use crate::secret::Secret;

/// Bytes of a ciphertext segment but the last; the first one's include the header.
pub const SEGMENT_BYTES: usize = 1 << 20;

const SALT_BYTES: usize = KEY_BYTES;
const PREFIX_BYTES: usize = 7;
const HEADER_BYTES: usize = 1 + SALT_BYTES + PREFIX_BYTES;
const TAG_BYTES: usize = 16;

/// Length of the ciphertext of so many bytes; `None` when it has too many segments.
#[must_use]
pub const fn ciphertext_bytes(plaintext_bytes: u64) -> Option<u64> {
    let whole = (SEGMENT_BYTES - TAG_BYTES) as u64;
    let Some(with_header) = plaintext_bytes.checked_add(HEADER_BYTES as u64) else { return None };
    let segments = with_header.div_ceil(whole);
    if segments > 1 << 32 { None } else { Some(with_header + segments * TAG_BYTES as u64) }
}

/// Key and nonces of one ciphertext.
struct Segments {
    cipher: Aes256Gcm,
    prefix: [u8; PREFIX_BYTES],
}

impl Segments {
    fn derive(key: &Secret<[u8; KEY_BYTES]>, salt: &[u8], prefix: [u8; PREFIX_BYTES], associated_data: &[u8]) -> Self {
        let mut derived = Zeroizing::new([0; KEY_BYTES]);
        Hkdf::<Sha256>::new(Some(salt), key.expose())
            .expand(associated_data, &mut *derived)
            .expect("32 bytes are within what HKDF-SHA-256 gives");
        Self { cipher: Aes256Gcm::new((&*derived).into()), prefix }
    }

    fn nonce(&self, segment: u64, last: bool) -> Result<[u8; 12], Error> {
        let segment = u32::try_from(segment).map_err(|_| Error::TooLong)?;
        let mut nonce = [0; 12];
        nonce[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        nonce[PREFIX_BYTES..11].copy_from_slice(&segment.to_be_bytes());
        nonce[11] = u8::from(last);
        Ok(nonce)
    }

    fn seal(&self, segment: u64, last: bool, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let nonce = self.nonce(segment, last)?;
        let sealed = self.cipher.encrypt(&nonce.into(), plaintext);
        out.extend_from_slice(&sealed.expect("a segment is shorter than the 64 GiB that AES-GCM can seal"));
        Ok(())
    }

    fn open(&self, segment: u64, last: bool, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let nonce = self.nonce(segment, last)?;
        let opened = self.cipher.decrypt(&nonce.into(), ciphertext);
        opened.map(Zeroizing::new).map_err(|_| Error::DoesNotOpen { segment })
    }
}

/// Encrypts one plaintext, handed in in pieces of any size.
pub struct Encryptor {
    segments: Segments,
    next: u64,
    /// The header until the first segment is written.
    header: Option<[u8; HEADER_BYTES]>,
    plaintext: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryptor").field("next_segment", &self.next).finish_non_exhaustive()
    }
}

impl Encryptor {
    /// Begins a ciphertext under the primary key, with a fresh salt and nonce prefix.
    pub fn new(key: &DataKey, associated_data: &[u8], rng: &mut impl CryptoRng) -> Self {
        let mut header = [HEADER_BYTES as u8; HEADER_BYTES];
        rng.fill_bytes(&mut header[1..]);
        let mut prefix = [0; PREFIX_BYTES];
        prefix.copy_from_slice(&header[1 + SALT_BYTES..]);
        let (_, primary) = &key.keys[0]; // reading a keyset has made sure that there is one
        let segments = Segments::derive(primary, &header[1..=SALT_BYTES], prefix, associated_data);
        let plaintext = Zeroizing::new(Vec::with_capacity(SEGMENT_BYTES));
        Self { segments, next: 0, header: Some(header), plaintext }
    }

    /// Takes more plaintext; appends what is ready to `out`.
    ///
    /// # Errors
    /// [`Error::TooLong`] beyond 2^32 segments.
    pub fn write(&mut self, mut plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        while !plaintext.is_empty() {
            // A full segment waits until it is known that it is not the last.
            if self.plaintext.len() == self.capacity() {
                self.seal(false, out)?;
            }
            let take = plaintext.len().min(self.capacity() - self.plaintext.len());
            let (now, later) = plaintext.split_at(take);
            self.plaintext.extend_from_slice(now);
            plaintext = later;
        }
        Ok(())
    }

    /// Ends the ciphertext; appends its last segment to `out`.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.seal(true, out)
    }

    fn capacity(&self) -> usize {
        SEGMENT_BYTES - TAG_BYTES - if self.next == 0 { HEADER_BYTES } else { 0 }
    }

    fn seal(&mut self, last: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        if let Some(header) = self.header.take() {
            out.extend_from_slice(&header);
        }
        self.segments.seal(self.next, last, &self.plaintext, out)?;
        self.plaintext.as_mut_slice().zeroize();
        self.plaintext.clear();
        self.next += 1;
        Ok(())
    }
}

/// Decrypts one ciphertext, handed in in pieces of any size.
///
/// Every byte that comes out was in the plaintext at its position; but that the plaintext ends where it ends is known
/// only when [`Self::finish`] has succeeded: nothing computed from it may leave before.
pub struct Decryptor<'a> {
    key: &'a DataKey,
    associated_data: Vec<u8>,
    segments: Option<Segments>,
    next: u64,
    ciphertext: Vec<u8>,
}

impl fmt::Debug for Decryptor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decryptor").field("key", self.key).field("next_segment", &self.next).finish_non_exhaustive()
    }
}

impl<'a> Decryptor<'a> {
    /// Awaits a ciphertext under one of the keys of `key`.
    #[must_use]
    pub fn new(key: &'a DataKey, associated_data: &[u8]) -> Self {
        let ciphertext = Vec::with_capacity(SEGMENT_BYTES);
        Self { key, associated_data: associated_data.to_vec(), segments: None, next: 0, ciphertext }
    }

    /// Takes more ciphertext; appends what opens to `out`, which the caller wipes.
    ///
    /// # Errors
    /// [`Error::Header`], [`Error::DoesNotOpen`] and [`Error::TooLong`].
    pub fn write(&mut self, mut ciphertext: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        while !ciphertext.is_empty() {
            // A full segment waits until it is known that it is not the last.
            if self.ciphertext.len() == SEGMENT_BYTES {
                self.open(false, out)?;
            }
            let take = ciphertext.len().min(SEGMENT_BYTES - self.ciphertext.len());
            let (now, later) = ciphertext.split_at(take);
            self.ciphertext.extend_from_slice(now);
            ciphertext = later;
        }
        Ok(())
    }

    /// Ends the ciphertext; appends what its last segment holds to `out`.
    ///
    /// # Errors
    /// As [`Self::write`], and [`Error::Truncated`].
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.open(true, out)
    }

    fn open(&mut self, last: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        let segment = self.next;
        let header_bytes = if segment == 0 { HEADER_BYTES } else { 0 };
        if self.ciphertext.len() < header_bytes + TAG_BYTES {
            return Err(Error::Truncated { segment, bytes: self.ciphertext.len() });
        }
        let (header, sealed) = self.ciphertext.split_at(header_bytes);
        let opened = match &self.segments {
            Some(segments) => segments.open(segment, last, sealed)?,
            None => {
                let (segments, opened) = self.first(header, sealed, last)?;
                self.segments = Some(segments);
                opened
            }
        };
        out.extend_from_slice(&opened);
        self.ciphertext.clear();
        self.next += 1;
        Ok(())
    }

    /// The first segment shows which key it is.
    fn first(&self, header: &[u8], sealed: &[u8], last: bool) -> Result<(Segments, Zeroizing<Vec<u8>>), Error> {
        if usize::from(header[0]) != HEADER_BYTES {
            return Err(Error::Header("its first byte is not 40"));
        }
        let (salt, prefix) = header[1..].split_at(SALT_BYTES);
        let prefix = prefix.try_into().map_err(|_| Error::Header("it is too short"))?;
        self.key
            .keys
            .iter()
            .find_map(|(_, key)| {
                let segments = Segments::derive(key, salt, prefix, &self.associated_data);
                let opened = segments.open(0, last, sealed).ok()?;
                Some((segments, opened))
            })
            .ok_or(Error::DoesNotOpen { segment: 0 })
    }
}
