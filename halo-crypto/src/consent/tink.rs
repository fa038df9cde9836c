//! Hybrid encryption in the wire form of Google's Tink: keysets as serialized `tink.Keyset` messages, ciphertexts with
//! the prefix `0x01 ‖ key id` (big endian).
//!
//! Two kinds of key are spoken, [`HPKE_TEMPLATE`] and [`ECIES_TEMPLATE`]; others are refused by name. A keyset may hold
//! several keys: the primary one encrypts, the one that a ciphertext names decrypts.

mod ecies;
pub(crate) mod message;

use std::fmt;

use hpke::{Deserializable, Kem as _, OpModeR, OpModeS, Serializable};
use prost::Message;
use rand_core::CryptoRng;
use zeroize::Zeroize;

use super::Error;
use crate::secret::Secret;
use message::{EciesAeadHkdfPrivateKey, EciesAeadHkdfPublicKey, HpkePrivateKey, HpkePublicKey, Keyset};

/// HPKE base mode with X25519, HKDF-SHA-256 and AES-256-GCM (RFC 9180).
pub const HPKE_TEMPLATE: &str = "DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM";

/// ECIES on P-256 with HKDF-SHA-256 and AES-128-GCM, points uncompressed.
pub const ECIES_TEMPLATE: &str = "ECIES_P256_HKDF_HMAC_SHA256_AES128_GCM";

/// Longest context information that encryption binds.
pub const MAX_CONTEXT_BYTES: usize = 65_536;

/// Version byte that begins every ciphertext with output prefix TINK.
const PREFIX_VERSION: u8 = 1;

/// Version byte and key id.
const PREFIX_BYTES: usize = 5;

/// Bytes of an encapsulated X25519 key.
const HPKE_ENCAPSULATED_BYTES: usize = 32;

type Kem = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type Aead = hpke::aead::AesGcm256;

/// One key, ready to be used.
enum PrivateKey {
    Hpke(<Kem as hpke::Kem>::PrivateKey),
    Ecies(p256::SecretKey),
}

/// One public key, ready to be used.
#[derive(Clone)]
enum PublicKey {
    Hpke(<Kem as hpke::Kem>::PublicKey),
    Ecies(p256::PublicKey),
}

/// A private keyset. Its keys are wiped when it is dropped, and it prints ids only.
pub struct PrivateKeyset {
    /// The serialized keyset.
    bytes: Secret<Vec<u8>>,
    keys: Vec<(u32, PrivateKey)>,
    public: PublicKeyset,
}

impl PrivateKeyset {
    /// Draws a keyset with one [`HPKE_TEMPLATE`] key.
    pub fn generate_hpke(rng: &mut impl CryptoRng) -> Self {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let (private, public) = Kem::derive_keypair(&seed);
        seed.zeroize();
        let public_key = message::hpke_public_key(public.to_bytes().to_vec());
        let key = HpkePrivateKey { version: 0, public_key: Some(public_key), private_key: private.to_bytes().to_vec() };
        Self::of_one_key(message::HPKE_PRIVATE, key.into_wiped_bytes(), rng)
    }

    /// Draws a keyset with one [`ECIES_TEMPLATE`] key.
    pub fn generate_ecies(rng: &mut impl CryptoRng) -> Self {
        let private = ecies::generate(rng);
        let key = EciesAeadHkdfPrivateKey {
            version: 0,
            public_key: Some(ecies::public_message(&private.public_key())),
            key_value: private.to_bytes().to_vec(),
        };
        Self::of_one_key(message::ECIES_PRIVATE, key.into_wiped_bytes(), rng)
    }

    /// Wraps one serialized key in a keyset.
    fn of_one_key(type_url: &str, value: Vec<u8>, rng: &mut impl CryptoRng) -> Self {
        let id = loop {
            let mut id = [0; 4];
            rng.fill_bytes(&mut id);
            let id = u32::from_be_bytes(id);
            if id != 0 {
                break id;
            }
        };
        let mut keyset = Keyset::of_one(id, type_url, value, message::PRIVATE);
        let bytes = keyset.encode_to_vec();
        keyset.wipe();
        Self::from_bytes(&bytes).expect("a keyset that was just made can be read")
    }

    /// Reads a cleartext serialized `tink.Keyset`.
    ///
    /// # Errors
    /// [`Error::MalformedKeyset`], or [`Error::UnsupportedKey`] for a key of another template or output prefix.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut keyset = Keyset::read(bytes)?;
        let mut keys = Vec::new();
        let mut public = Vec::new();
        let mut outcome = Ok(());
        for key in keyset.enabled() {
            match read_private(key.type_url, key.value, key.id) {
                Ok((private_key, public_key, public_value)) => {
                    keys.push((key.id, private_key));
                    public.push((key.id, public_key, public_value));
                }
                Err(error) => outcome = Err(error),
            }
        }
        let primary = keyset.primary_key_id;
        keyset.wipe();
        outcome?;
        Ok(Self { bytes: Secret::new(bytes.to_vec()), keys, public: PublicKeyset::of(primary, public)? })
    }

    /// The serialized keyset, in the clear: for sealed storage.
    #[must_use]
    pub const fn to_bytes(&self) -> &Secret<Vec<u8>> {
        &self.bytes
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKeyset {
        self.public.clone()
    }

    /// Decrypts with the key that the ciphertext names.
    ///
    /// # Errors
    /// [`Error::MalformedCiphertext`], [`Error::UnknownKey`], [`Error::ContextTooLong`] or, without telling why,
    /// [`Error::DecryptionFailed`].
    pub fn decrypt(&self, ciphertext: &[u8], context_info: &[u8]) -> Result<Secret<Vec<u8>>, Error> {
        check_context(context_info)?;
        let Some((prefix, body)) = ciphertext.split_first_chunk::<PREFIX_BYTES>() else {
            return Err(Error::MalformedCiphertext { reason: "it is shorter than its prefix" });
        };
        let [PREFIX_VERSION, id @ ..] = *prefix else {
            return Err(Error::MalformedCiphertext { reason: "it does not begin with Tink's version byte 1" });
        };
        let id = u32::from_be_bytes(id);
        let (_, key) = self.keys.iter().find(|(other, _)| *other == id).ok_or(Error::UnknownKey { key_id: id })?;
        match key {
            PrivateKey::Hpke(private) => {
                let Some((encapsulated, body)) = body.split_first_chunk::<HPKE_ENCAPSULATED_BYTES>() else {
                    return Err(Error::MalformedCiphertext { reason: "it ends inside the encapsulated key" });
                };
                let encapsulated =
                    <Kem as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| Error::DecryptionFailed)?;
                hpke::single_shot_open::<Aead, Kdf, Kem>(
                    &OpModeR::Base,
                    private,
                    &encapsulated,
                    context_info,
                    body,
                    b"",
                )
                .map(Secret::new)
                .map_err(|_| Error::DecryptionFailed)
            }
            PrivateKey::Ecies(private) => ecies::decrypt(private, body, context_info),
        }
    }
}

impl fmt::Debug for PrivateKeyset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKeyset")
            .field("primary_key_id", &self.public.primary)
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// A public keyset.
#[derive(Clone)]
pub struct PublicKeyset {
    bytes: Vec<u8>,
    primary: u32,
    key: PublicKey,
}

impl PublicKeyset {
    /// Reads a serialized `tink.Keyset` of public keys.
    ///
    /// # Errors
    /// [`Error::MalformedKeyset`], or [`Error::UnsupportedKey`] for a key of another template or output prefix.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let keyset = Keyset::read(bytes)?;
        let mut primary = None;
        for key in keyset.enabled() {
            let public = read_public(key.type_url, key.value, key.id)?;
            if key.id == keyset.primary_key_id {
                primary = Some(public);
            }
        }
        let key = primary.ok_or(Error::MalformedKeyset { reason: "its primary key is missing or disabled" })?;
        Ok(Self { bytes: bytes.to_vec(), primary: keyset.primary_key_id, key })
    }

    fn of(primary: u32, keys: Vec<(u32, PublicKey, SerializedKey)>) -> Result<Self, Error> {
        let key = keys
            .iter()
            .find(|(id, ..)| *id == primary)
            .map(|(_, key, _)| key.clone())
            .ok_or(Error::MalformedKeyset { reason: "its primary key is missing or disabled" })?;
        let mut keyset = Keyset { primary_key_id: primary, key: Vec::new() };
        for (id, _, (type_url, value)) in keys {
            keyset.key.extend(Keyset::of_one(id, type_url, value, message::PUBLIC).key);
        }
        Ok(Self { bytes: keyset.encode_to_vec(), primary, key })
    }

    /// The serialized keyset.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// Encrypts with the primary key. `context_info` is bound and must be given again to decrypt; it is not sent.
    ///
    /// # Errors
    /// [`Error::ContextTooLong`].
    pub fn encrypt(&self, plaintext: &[u8], context_info: &[u8], rng: &mut impl CryptoRng) -> Result<Vec<u8>, Error> {
        check_context(context_info)?;
        let mut out = vec![PREFIX_VERSION];
        out.extend(self.primary.to_be_bytes());
        match &self.key {
            PublicKey::Hpke(public) => {
                let (encapsulated, body) = hpke::single_shot_seal_with_rng::<Aead, Kdf, Kem>(
                    &OpModeS::Base,
                    public,
                    context_info,
                    plaintext,
                    b"",
                    rng,
                )
                .map_err(|_| Error::MalformedKeyset { reason: "its HPKE key cannot encrypt" })?;
                out.extend(encapsulated.to_bytes());
                out.extend(body);
            }
            PublicKey::Ecies(public) => out.extend(ecies::encrypt(public, plaintext, context_info, rng)),
        }
        Ok(out)
    }
}

impl fmt::Debug for PublicKeyset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublicKeyset").field("primary_key_id", &self.primary).finish_non_exhaustive()
    }
}

fn check_context(context_info: &[u8]) -> Result<(), Error> {
    if context_info.len() > MAX_CONTEXT_BYTES {
        return Err(Error::ContextTooLong { bytes: context_info.len() });
    }
    Ok(())
}

/// A key's type URL and its serialized message.
type SerializedKey = (&'static str, Vec<u8>);

/// A private key, its public half, and the serialized public half.
type ReadPrivate = (PrivateKey, PublicKey, SerializedKey);

fn read_private(type_url: &str, value: &[u8], id: u32) -> Result<ReadPrivate, Error> {
    match type_url {
        message::HPKE_PRIVATE => {
            let mut key =
                HpkePrivateKey::decode(value).map_err(|_| malformed("a private HPKE key cannot be parsed"))?;
            let public_key = key.public_key.take().ok_or(malformed("a private HPKE key lacks its public half"))?;
            let private = <Kem as hpke::Kem>::PrivateKey::from_bytes(&key.private_key);
            key.private_key.zeroize();
            let private = private.map_err(|_| malformed("a private HPKE key has the wrong length"))?;
            let public = read_hpke_public(&public_key, id)?;
            if Kem::sk_to_pk(&private) != public {
                return Err(malformed("the halves of an HPKE key do not belong together"));
            }
            Ok((PrivateKey::Hpke(private), PublicKey::Hpke(public), (message::HPKE_PUBLIC, public_key.encode_to_vec())))
        }
        message::ECIES_PRIVATE => {
            let mut key = EciesAeadHkdfPrivateKey::decode(value)
                .map_err(|_| malformed("a private ECIES key cannot be parsed"))?;
            let public_key = key.public_key.take().ok_or(malformed("a private ECIES key lacks its public half"))?;
            let private = ecies::read_private(&key.key_value);
            key.key_value.zeroize();
            let private = private?;
            let public = ecies::read_public(&public_key, id)?;
            if private.public_key() != public {
                return Err(malformed("the halves of an ECIES key do not belong together"));
            }
            Ok((
                PrivateKey::Ecies(private),
                PublicKey::Ecies(public),
                (message::ECIES_PUBLIC, public_key.encode_to_vec()),
            ))
        }
        message::HPKE_PUBLIC | message::ECIES_PUBLIC => {
            Err(malformed("it holds public keys where private ones belong"))
        }
        other => Err(Error::UnsupportedKey { key_id: id, template: other.to_owned() }),
    }
}

fn read_public(type_url: &str, value: &[u8], id: u32) -> Result<PublicKey, Error> {
    match type_url {
        message::HPKE_PUBLIC => {
            let key = HpkePublicKey::decode(value).map_err(|_| malformed("a public HPKE key cannot be parsed"))?;
            Ok(PublicKey::Hpke(read_hpke_public(&key, id)?))
        }
        message::ECIES_PUBLIC => {
            let key =
                EciesAeadHkdfPublicKey::decode(value).map_err(|_| malformed("a public ECIES key cannot be parsed"))?;
            Ok(PublicKey::Ecies(ecies::read_public(&key, id)?))
        }
        message::HPKE_PRIVATE | message::ECIES_PRIVATE => {
            Err(malformed("it holds private keys where public ones belong: somebody published a secret"))
        }
        other => Err(Error::UnsupportedKey { key_id: id, template: other.to_owned() }),
    }
}

fn read_hpke_public(key: &HpkePublicKey, id: u32) -> Result<<Kem as hpke::Kem>::PublicKey, Error> {
    let params = key.params.ok_or(malformed("an HPKE key lacks its parameters"))?;
    if params != message::HPKE_PARAMS {
        let template = format!("HPKE with kem {}, kdf {}, aead {}", params.kem, params.kdf, params.aead);
        return Err(Error::UnsupportedKey { key_id: id, template });
    }
    if key.version != 0 {
        return Err(malformed("an HPKE key has an unknown version"));
    }
    <Kem as hpke::Kem>::PublicKey::from_bytes(&key.public_key)
        .map_err(|_| malformed("a public HPKE key has the wrong length"))
}

const fn malformed(reason: &'static str) -> Error {
    Error::MalformedKeyset { reason }
}
