//! Keys.

use prost::Message;

use super::WireError;
use crate::pb::api;

/// Number of the curve Ristretto255 in `elliptic_curve_id`.
pub const RISTRETTO255: i32 = 1087;

/// Encoding of Ristretto255's basepoint (RFC 9496, appendix A).
const GENERATOR: [u8; 32] = [
    0xe2, 0xf2, 0xae, 0x0a, 0x6a, 0xbc, 0x4e, 0x71, 0xa8, 0x84, 0xa9, 0x61, 0xc5, 0x00, 0x51, 0x5f, 0x58, 0xe3, 0x0b,
    0x6a, 0xa5, 0x82, 0xdd, 0x8d, 0xb6, 0xa6, 0x59, 0x45, 0xe0, 0x8d, 0x2d, 0x76,
];

/// A Duchy's share of a composite key, as it is signed. Whether it is a group element, and whether the proof holds, is
/// for whoever knows the group to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElGamalKey {
    /// The encoded element.
    pub element: [u8; 32],
    /// The proof that its secret is known.
    pub proof_of_possession: [u8; 64],
}

/// Reads a serialized `ElGamalPublicKey` on Ristretto255.
///
/// # Errors
/// If it is on another curve, has another generator, or a part has another length.
pub fn parse_el_gamal_public_key(bytes: &[u8]) -> Result<ElGamalKey, WireError> {
    let key = api::ElGamalPublicKey::decode(bytes).map_err(|error| WireError::new("el_gamal_public_key", error))?;
    if key.elliptic_curve_id != RISTRETTO255 {
        let reason = format!("{} is not {RISTRETTO255} (Ristretto255)", key.elliptic_curve_id);
        return Err(WireError::new("el_gamal_public_key.elliptic_curve_id", reason));
    }
    if key.generator != GENERATOR {
        return Err(WireError::new("el_gamal_public_key.generator", "is not Ristretto255's basepoint"));
    }
    let element = key.element.as_slice().try_into().map_err(|_| {
        WireError::new("el_gamal_public_key.element", format!("has {} bytes instead of 32", key.element.len()))
    })?;
    let proof_of_possession = key.proof_of_possession.as_slice().try_into().map_err(|_| {
        let found = key.proof_of_possession.len();
        WireError::new("el_gamal_public_key.proof_of_possession", format!("has {found} bytes instead of 64"))
    })?;
    Ok(ElGamalKey { element, proof_of_possession })
}

/// Writes an `ElGamalPublicKey` on Ristretto255.
#[must_use]
pub fn serialize_el_gamal_public_key(key: &ElGamalKey) -> Vec<u8> {
    api::ElGamalPublicKey {
        elliptic_curve_id: RISTRETTO255,
        generator: GENERATOR.to_vec(),
        element: key.element.to_vec(),
        proof_of_possession: key.proof_of_possession.to_vec(),
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_other_curves_are_refused() {
        let key = ElGamalKey { element: [1; 32], proof_of_possession: [2; 64] };
        let bytes = serialize_el_gamal_public_key(&key);
        assert_eq!(parse_el_gamal_public_key(&bytes).unwrap(), key);
        let other = api::ElGamalPublicKey { elliptic_curve_id: 415, ..Default::default() }.encode_to_vec();
        assert!(parse_el_gamal_public_key(&other).unwrap_err().to_string().contains("415"));
    }
}
