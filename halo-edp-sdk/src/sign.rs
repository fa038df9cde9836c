//! What a publisher signs with.

use halo_core::{
    pb::api::{EncryptedMessage, SignedMessage},
    wire::{self, type_name},
};
use halo_crypto::consent::{
    self,
    tink::PublicKeyset,
    x509::{Certificate, ECDSA_WITH_SHA256, SigningKey},
};
use prost::Message;
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::Error;

/// A publisher's consent certificate and its key.
#[derive(Debug)]
pub struct Signer {
    certificate: Certificate,
    key: SigningKey,
}

impl Signer {
    /// Puts both together.
    ///
    /// # Errors
    /// [`Error::Consent`] when the key is not the certificate's.
    pub fn new(certificate: Certificate, key: SigningKey) -> Result<Self, Error> {
        if key.belongs_to(&certificate) {
            return Ok(Self { certificate, key });
        }
        let subject = certificate.subject().to_owned();
        Err(consent::Error::UnfitCertificate { subject, reason: "the private key beside it is another certificate's" }
            .into())
    }

    /// The certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Signs the serialized message `name`, and encrypts it with its signature. `bytes` are wiped.
    ///
    /// # Errors
    /// [`Error::Consent`] when the key cannot encrypt.
    pub fn sign_and_encrypt(
        &self,
        name: &str,
        bytes: Vec<u8>,
        to: &PublicKeyset,
        rng: &mut impl CryptoRng,
    ) -> Result<EncryptedMessage, Error> {
        let mut signed = SignedMessage {
            signature: self.key.sign(&bytes),
            signature_algorithm_oid: ECDSA_WITH_SHA256.to_owned(),
            message: Some(wire::pack(name, bytes)),
            ..SignedMessage::default()
        };
        let plaintext = Zeroizing::new(signed.encode_to_vec());
        if let Some(message) = &mut signed.message {
            message.value.zeroize();
        }
        Ok(EncryptedMessage {
            ciphertext: to.encrypt(&plaintext, b"", rng)?,
            type_url: wire::pack(type_name::SIGNED_MESSAGE, Vec::new()).type_url,
        })
    }
}
