//! Records of destruction: what, when, signed.

use halo_core::clock::Timestamp;
use halo_core::resource::DuchyId;
use halo_crypto::consent;
use halo_crypto::consent::x509::{Certificate, ECDSA_WITH_SHA256, SigningKey};
use thiserror::Error;

use super::KeyEntry;

/// First line of every record; signatures over it are good for nothing else.
const FIRST_LINE: &str = "halo destruction record v1";

/// Says that nothing is left of the secrets of a computation at one Duchy.
///
/// Its text has one field a line, in this order: the first line, `duchy`, `certificate`, `computation`, `generated` and
/// `destroyed` (nanoseconds since 1970), and a line `key` for each key with its id, kind and the SHA-256 of its public half
/// (`-` where there is none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestructionRecord {
    /// Whose they were.
    pub duchy: DuchyId,
    /// Resource name of the certificate whose key signs.
    pub certificate: String,
    /// The computation's external id.
    pub computation: String,
    /// When they were drawn.
    pub generated: Timestamp,
    /// When it was certain that nothing is left of them.
    pub destroyed: Timestamp,
    /// What they were.
    pub keys: Vec<KeyEntry>,
}

/// A record as it is kept and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord {
    /// The record's text.
    pub text: String,
    /// ECDSA P-256 with SHA-256 over the text's bytes, in DER.
    pub signature: Vec<u8>,
}

/// Why a record is not believed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The text is no record.
    #[error("the text is no destruction record: {0}")]
    Malformed(String),
    /// The signature is not good.
    #[error("the destruction record is not signed by this certificate's key: {0}")]
    Signature(#[from] consent::Error),
}

impl DestructionRecord {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nduchy: {}\ncertificate: {}\ncomputation: {}\ngenerated: {}\ndestroyed: {}\n",
            self.duchy,
            self.certificate,
            self.computation,
            self.generated.unix_nanos(),
            self.destroyed.unix_nanos()
        );
        for KeyEntry { id, kind, public_sha256 } in &self.keys {
            let digest = public_sha256.map_or_else(|| "-".to_owned(), hex::encode);
            text += &format!("key: {id} {kind} {digest}\n");
        }
        text
    }

    /// Signs the record.
    #[must_use]
    pub fn sign(&self, key: &SigningKey) -> SignedRecord {
        let text = self.text();
        let signature = key.sign(text.as_bytes());
        SignedRecord { text, signature }
    }

    /// Reads a text.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (FIRST_LINE, mut field) = (lines.next()?, |name: &str| lines.next()?.strip_prefix(name)) else {
            return None;
        };
        let duchy = DuchyId::new(field("duchy: ")?).ok()?;
        let certificate = field("certificate: ")?.to_owned();
        let computation = field("computation: ")?.to_owned();
        let generated = Timestamp::from_unix_nanos(field("generated: ")?.parse().ok()?);
        let destroyed = Timestamp::from_unix_nanos(field("destroyed: ")?.parse().ok()?);
        let keys = lines.map(|line| {
            let mut parts = line.strip_prefix("key: ")?.split(' ');
            let (id, kind, digest) = (parts.next()?.to_owned(), parts.next()?.to_owned(), parts.next()?);
            let public_sha256 = match digest {
                "-" => None,
                digits => Some(hex::decode(digits).ok()?.try_into().ok()?),
            };
            parts.next().is_none().then_some(KeyEntry { id, kind, public_sha256 })
        });
        let keys = keys.collect::<Option<Vec<_>>>()?;
        Some(Self { duchy, certificate, computation, generated, destroyed, keys })
    }
}

impl SignedRecord {
    /// Checks the signature, and reads what was signed. Whether the certificate is the Duchy's is the caller's to check.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn verify(&self, certificate: &Certificate) -> Result<DestructionRecord, RecordError> {
        certificate.verify_signature(self.text.as_bytes(), ECDSA_WITH_SHA256, &self.signature)?;
        let malformed = || RecordError::Malformed("a line is missing, or not in its place".to_owned());
        let record = DestructionRecord::parse(&self.text).ok_or_else(malformed)?;
        if record.text() == self.text { Ok(record) } else { Err(malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> DestructionRecord {
        DestructionRecord {
            duchy: DuchyId::new("worker1").unwrap(),
            certificate: "duchies/worker1/certificates/AAAAAAAAAHs".to_owned(),
            computation: "AAAAAAAAAHs".to_owned(),
            generated: Timestamp::from_unix_nanos(1),
            destroyed: Timestamp::from_unix_nanos(2_000_000_000),
            keys: vec![KeyEntry::seed(), KeyEntry::of("elgamal", &[1; 32])],
        }
    }

    #[test]
    fn golden_text() {
        let text = include_str!("../../../tests/golden/destruction-v1.txt");
        assert_eq!(record().text(), text);
        assert_eq!(DestructionRecord::parse(text), Some(record()));
    }

    #[test]
    fn other_texts_are_no_records() {
        let text = record().text();
        for bad in [
            text.replace("v1", "v2"),
            text.replace("duchy: worker1\n", ""),
            text.replace("seed seed -", "seed seed - -"),
            text.replace("seed seed -", "seed seed 00"),
            text.replace("generated: 1", "generated: one"),
            text.trim_end().to_owned(),
            format!("{text}\n"),
            String::new(),
        ] {
            assert_eq!(DestructionRecord::parse(&bad), None, "{bad}");
        }
    }
}
