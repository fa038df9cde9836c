//! Records of several ciphertexts as columns: decoded once, computed on as points, encoded once.

use halo_crypto::batch::{self, BadRecord};
use halo_crypto::elgamal::{CIPHERTEXT_BYTES, Ciphertext, CompositeKey};
use halo_crypto::group::{Point, Scalar};

use super::super::record::Chunk;
use super::super::{Origin, ProtocolError};

/// Encodes twice the ciphertexts one after the other.
pub(crate) fn doubled(halves: &[Ciphertext]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(halves.len() * CIPHERTEXT_BYTES);
    batch::encode_doubled_ciphertexts(halves, &mut bytes);
    bytes
}

/// Encrypts twice the messages and encodes them one after the other.
pub(crate) fn encrypted(key: &CompositeKey, halves: &[Point], nonces: &[Scalar]) -> Vec<u8> {
    let mut bytes = vec![0; halves.len() * CIPHERTEXT_BYTES];
    batch::encrypt_doubled(key, halves, nonces, bytes.as_chunks_mut().0);
    bytes
}

/// Decodes records of `K` ciphertexts: canonical encodings only, and no identity as a first component.
///
/// # Errors
/// [`ProtocolError::BadRecord`] with the position in the body and its origin.
pub(crate) fn decode<const K: usize>(
    chunk: &Chunk<'_>,
    origin: &Origin,
) -> Result<[Vec<Ciphertext>; K], ProtocolError> {
    let mut columns = std::array::from_fn(|_| Vec::new());
    let mut first_bad: Option<BadRecord> = None;
    for (number, column) in columns.iter_mut().enumerate() {
        match batch::decode_ciphertexts(&encoded_column(chunk.bytes, K, number)) {
            Ok(decoded) => *column = decoded,
            // Of several bad ciphertexts the first in the body is named.
            Err(bad) if first_bad.is_none_or(|known| bad.index < known.index) => first_bad = Some(bad),
            Err(_) => {}
        }
    }
    match first_bad {
        None => Ok(columns),
        Some(bad) => Err(bad_record(chunk, 1, origin, bad)),
    }
}

/// One ciphertext of each record of `row`.
fn encoded_column(records: &[u8], row: usize, number: usize) -> Vec<u8> {
    let mut column = Vec::with_capacity(records.len() / row);
    for record in records.chunks_exact(row * CIPHERTEXT_BYTES) {
        column.extend_from_slice(&record[number * CIPHERTEXT_BYTES..(number + 1) * CIPHERTEXT_BYTES]);
    }
    column
}

fn bad_record(chunk: &Chunk<'_>, row: usize, origin: &Origin, bad: BadRecord) -> ProtocolError {
    ProtocolError::BadRecord {
        origin: origin.clone(),
        record: chunk.first + (bad.index / row) as u64,
        reason: bad.reason.to_string(),
    }
}

/// Decodes the first ciphertext of records of `row`.
pub(crate) fn decode_first(chunk: &Chunk<'_>, row: usize, origin: &Origin) -> Result<Vec<Ciphertext>, ProtocolError> {
    batch::decode_ciphertexts(&encoded_column(chunk.bytes, row, 0)).map_err(|bad| bad_record(chunk, 1, origin, bad))
}

/// Decodes records of `row` ciphertexts, and leaves them in the order of the body.
pub(crate) fn decode_rows(chunk: &Chunk<'_>, row: usize, origin: &Origin) -> Result<Vec<Ciphertext>, ProtocolError> {
    batch::decode_ciphertexts(chunk.bytes).map_err(|bad| bad_record(chunk, row, origin, bad))
}

/// Records of encoded columns of equal length.
pub(crate) fn records<const K: usize>(columns: [Vec<u8>; K]) -> Vec<u8> {
    let mut records = Vec::with_capacity(columns.iter().map(Vec::len).sum());
    for place in (0..columns[0].len()).step_by(CIPHERTEXT_BYTES) {
        for column in &columns {
            records.extend_from_slice(&column[place..place + CIPHERTEXT_BYTES]);
        }
    }
    records
}
