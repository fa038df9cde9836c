//! Records of several ciphertexts as columns: decoded once, computed on as points, encoded once.

use halo_crypto::batch;
use halo_crypto::elgamal::{CIPHERTEXT_BYTES, Ciphertext};

use super::super::record::Chunk;
use super::super::{Origin, ProtocolError};

/// Decodes records of `K` ciphertexts: canonical encodings only, and no identity as a first component.
///
/// # Errors
/// [`ProtocolError::BadRecord`] with the position in the body and its origin.
pub(crate) fn decode<const K: usize>(
    chunk: &Chunk<'_>,
    origin: &Origin,
) -> Result<[Vec<Ciphertext>; K], ProtocolError> {
    let all = decode_rows(chunk, K, origin)?;
    let mut columns = std::array::from_fn(|_| Vec::with_capacity(all.len() / K));
    for record in all.chunks_exact(K) {
        for (column, ciphertext) in columns.iter_mut().zip(record) {
            column.push(*ciphertext);
        }
    }
    Ok(columns)
}

/// Decodes records of `row` ciphertexts, and leaves them in the order of the body.
pub(crate) fn decode_rows(chunk: &Chunk<'_>, row: usize, origin: &Origin) -> Result<Vec<Ciphertext>, ProtocolError> {
    batch::decode_ciphertexts(chunk.bytes).map_err(|bad| ProtocolError::BadRecord {
        origin: origin.clone(),
        record: chunk.first + (bad.index / row) as u64,
        reason: bad.reason.to_string(),
    })
}

/// Encodes columns of equal length as records.
pub(crate) fn encode<const K: usize>(columns: &[Vec<Ciphertext>; K]) -> Vec<u8> {
    let length = columns[0].len();
    let mut all = Vec::with_capacity(length * K);
    for record in 0..length {
        all.extend(columns.iter().map(|column| column[record]));
    }
    encode_rows(&all)
}

/// Encodes ciphertexts one after the other.
pub(crate) fn encode_rows(ciphertexts: &[Ciphertext]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ciphertexts.len() * CIPHERTEXT_BYTES);
    batch::encode_ciphertexts(ciphertexts, &mut bytes);
    bytes
}
