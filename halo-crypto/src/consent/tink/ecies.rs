//! ECIES as Tink does it: P-256, HKDF-SHA-256 over (ephemeral point ‖ shared x coordinate), AES-128-GCM.
//!
//! Body: ephemeral point, uncompressed (65 bytes) ‖ IV (12) ‖ ciphertext ‖ tag (16).

use aes_gcm::{
    Aes128Gcm, KeyInit,
    aead::{Aead, Nonce},
};
use hkdf::Hkdf;
use p256::{PublicKey, SecretKey, elliptic_curve::sec1::ToSec1Point};
use prost::Message;
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroize;

use super::{
    super::Error,
    ECIES_TEMPLATE, malformed,
    message::{
        AES_GCM, AesGcmKeyFormat, EciesAeadDemParams, EciesAeadHkdfParams, EciesAeadHkdfPublicKey, EciesHkdfKemParams,
        KeyTemplate, TINK,
    },
};
use crate::secret::Secret;

/// `EllipticCurveType.NIST_P256`.
const NIST_P256: i32 = 2;
/// `HashType.SHA256`.
const SHA256: i32 = 3;
/// `EcPointFormat.UNCOMPRESSED`.
const UNCOMPRESSED: i32 = 1;
/// Bytes of an AES-128 key.
const KEY_BYTES: usize = 16;
/// Bytes of an uncompressed point.
const POINT_BYTES: usize = 65;
/// Bytes of an AES-GCM nonce.
const IV_BYTES: usize = 12;
/// Bytes of a coordinate.
const COORDINATE_BYTES: usize = 32;

/// Draws a private key.
pub(super) fn generate(rng: &mut impl CryptoRng) -> SecretKey {
    loop {
        let mut bytes = [0; COORDINATE_BYTES];
        rng.fill_bytes(&mut bytes);
        // Out of range with probability 2^-32.
        let key = SecretKey::from_slice(&bytes);
        bytes.zeroize();
        if let Ok(key) = key {
            return key;
        }
    }
}

/// The public half as a message.
pub(super) fn public_message(public: &PublicKey) -> EciesAeadHkdfPublicKey {
    let point = point_bytes(public);
    let (x, y) = point[1..].split_at(COORDINATE_BYTES);
    let format = AesGcmKeyFormat { key_size: KEY_BYTES as u32, version: 0 };
    let dem = KeyTemplate { type_url: AES_GCM.to_owned(), value: format.encode_to_vec(), output_prefix_type: TINK };
    EciesAeadHkdfPublicKey {
        version: 0,
        params: Some(EciesAeadHkdfParams {
            kem_params: Some(EciesHkdfKemParams {
                curve_type: NIST_P256,
                hkdf_hash_type: SHA256,
                hkdf_salt: Vec::new(),
            }),
            dem_params: Some(EciesAeadDemParams { aead_dem: Some(dem) }),
            ec_point_format: UNCOMPRESSED,
        }),
        x: x.to_vec(),
        y: y.to_vec(),
    }
}

/// Reads a private scalar, big endian, with or without leading zeros.
pub(super) fn read_private(bytes: &[u8]) -> Result<SecretKey, Error> {
    let mut padded = pad(bytes).ok_or(malformed("a private ECIES key is out of range"))?;
    let key = SecretKey::from_slice(&padded);
    padded.zeroize();
    key.map_err(|_| malformed("a private ECIES key is out of range"))
}

/// Reads a public key, and refuses other parameters by name.
pub(super) fn read_public(key: &EciesAeadHkdfPublicKey, id: u32) -> Result<PublicKey, Error> {
    let params = key.params.as_ref().ok_or(malformed("an ECIES key lacks its parameters"))?;
    let kem = params.kem_params.as_ref().ok_or(malformed("an ECIES key lacks its parameters"))?;
    let dem = params
        .dem_params
        .as_ref()
        .and_then(|dem| dem.aead_dem.as_ref())
        .ok_or(malformed("an ECIES key lacks its parameters"))?;
    let unsupported = |what: String| Error::UnsupportedKey { key_id: id, template: format!("ECIES {what}") };
    if kem.curve_type != NIST_P256 || kem.hkdf_hash_type != SHA256 || !kem.hkdf_salt.is_empty() {
        return Err(unsupported(format!("with curve {}, hash {} or a salt", kem.curve_type, kem.hkdf_hash_type)));
    }
    let format = AesGcmKeyFormat::decode(dem.value.as_slice()).unwrap_or_default();
    if dem.type_url != AES_GCM || format.key_size != KEY_BYTES as u32 {
        return Err(unsupported(format!("with {} instead of AES-128-GCM", dem.type_url)));
    }
    if params.ec_point_format != UNCOMPRESSED {
        return Err(unsupported(format!("with point format {}, unlike {ECIES_TEMPLATE}", params.ec_point_format)));
    }
    if key.version != 0 {
        return Err(malformed("an ECIES key has an unknown version"));
    }
    let coordinate = |bytes: &[u8]| pad(bytes).ok_or(malformed("a coordinate of an ECIES key is too long"));
    let mut point = vec![4];
    point.extend(coordinate(&key.x)?);
    point.extend(coordinate(&key.y)?);
    PublicKey::from_sec1_bytes(&point).map_err(|_| malformed("a public ECIES key is not a point of P-256"))
}

/// Encrypts to a public key; everything but the prefix.
pub(super) fn encrypt(public: &PublicKey, plaintext: &[u8], context_info: &[u8], rng: &mut impl CryptoRng) -> Vec<u8> {
    let ephemeral = generate(rng);
    let point = point_bytes(&ephemeral.public_key());
    let cipher = cipher(&ephemeral, public, &point, context_info);
    let mut iv = [0; IV_BYTES];
    rng.fill_bytes(&mut iv);
    let body = cipher
        .encrypt(&Nonce::<Aes128Gcm>::from(iv), plaintext)
        .expect("AES-GCM encrypts everything that fits into memory");
    let mut out = point.to_vec();
    out.extend(iv);
    out.extend(body);
    out
}

/// Decrypts; everything but the prefix.
pub(super) fn decrypt(private: &SecretKey, body: &[u8], context_info: &[u8]) -> Result<Secret<Vec<u8>>, Error> {
    let short = Error::MalformedCiphertext { reason: "it ends inside the ephemeral key or the nonce" };
    let (point, rest) = body.split_first_chunk::<POINT_BYTES>().ok_or(short.clone())?;
    let (iv, ciphertext) = rest.split_first_chunk::<IV_BYTES>().ok_or(short)?;
    // Only the uncompressed form has this length; a point that is not on the curve is refused.
    let ephemeral = PublicKey::from_sec1_bytes(point).map_err(|_| Error::DecryptionFailed)?;
    cipher(private, &ephemeral, point, context_info)
        .decrypt(&Nonce::<Aes128Gcm>::from(*iv), ciphertext)
        .map(Secret::new)
        .map_err(|_| Error::DecryptionFailed)
}

/// The symmetric cipher that two halves agree on.
fn cipher(private: &SecretKey, public: &PublicKey, ephemeral: &[u8; POINT_BYTES], context_info: &[u8]) -> Aes128Gcm {
    let shared = p256::ecdh::diffie_hellman(private.to_nonzero_scalar(), public.as_affine());
    let mut input = ephemeral.to_vec();
    input.extend_from_slice(shared.raw_secret_bytes());
    let mut key = [0; KEY_BYTES];
    Hkdf::<Sha256>::new(None, &input)
        .expand(context_info, &mut key)
        .expect("16 bytes are within what HKDF-SHA-256 gives");
    input.zeroize();
    let cipher = Aes128Gcm::new(&key.into());
    key.zeroize();
    cipher
}

fn point_bytes(public: &PublicKey) -> [u8; POINT_BYTES] {
    let mut bytes = [0; POINT_BYTES];
    bytes.copy_from_slice(public.to_sec1_point(false).as_bytes());
    bytes
}

/// A big-endian integer as exactly 32 bytes, when it fits.
fn pad(bytes: &[u8]) -> Option<[u8; COORDINATE_BYTES]> {
    let leading = bytes.iter().take_while(|byte| **byte == 0).count();
    let digits = &bytes[leading..];
    let mut padded = [0; COORDINATE_BYTES];
    let from = COORDINATE_BYTES.checked_sub(digits.len())?;
    padded[from..].copy_from_slice(digits);
    Some(padded)
}
