//! X.509 certificates and the signatures made with their keys.
//!
//! A party of a measurement has a consent certificate, issued by its own organisation's root. Others
//! hold that root as trusted, and accept what the certificate's key has signed: [`TrustRoots::verify`]
//! tells whether the certificate may be believed at a given time, [`Certificate::verify_signature`]
//! whether its key signed the bytes. Both must hold, and revocation is the Kingdom's to tell.
//!
//! Certificates are public, so nothing in here but [`SigningKey`] is secret.

use std::fmt;

use p256::ecdsa::signature::{Signer, Verifier};
use p256::pkcs8::DecodePrivateKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER, Oid,
};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

use super::Error;

/// Object identifier of ECDSA with SHA-256, the one signature algorithm spoken here (RFC 5758, 3.2).
pub const ECDSA_WITH_SHA256: &str = "1.2.840.10045.4.3.2";

/// Names of signature algorithms that other systems use, so that a refusal can say what was met.
const OTHER_SIGNATURE_ALGORITHMS: [(&str, &str); 5] = [
    ("1.2.840.10045.4.3.3", "ECDSA with SHA-384"),
    ("1.2.840.10045.4.3.4", "ECDSA with SHA-512"),
    ("1.2.840.113549.1.1.11", "RSA with SHA-256"),
    ("1.2.840.113549.1.1.12", "RSA with SHA-384"),
    ("1.2.840.113549.1.1.13", "RSA with SHA-512"),
];

/// The key that a certificate speaks for.
#[derive(Clone)]
enum PublicKey {
    P256(Box<p256::ecdsa::VerifyingKey>),
    /// Any other key, by the object identifier of its kind. A root may have one.
    Other(String),
}

/// A parsed X.509 certificate. Parsed is not trusted: see [`TrustRoots::verify`].
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    subject: String,
    subject_key_id: Vec<u8>,
    authority_key_id: Option<Vec<u8>>,
    not_before_unix_s: i64,
    not_after_unix_s: i64,
    is_authority: bool,
    may_sign: bool,
    public_key: PublicKey,
}

impl Certificate {
    /// Reads a certificate from its DER bytes.
    ///
    /// # Errors
    /// [`Error::MalformedCertificate`] when the bytes are no X.509 certificate, have bytes left over,
    /// have no subject key identifier, or carry an extension twice.
    pub fn from_der(der: &[u8]) -> Result<Self, Error> {
        let malformed = |reason: String| Error::MalformedCertificate { reason };
        let (rest, parsed) = X509Certificate::from_der(der)
            .map_err(|error| malformed(format!("no DER of an X.509 certificate ({error})")))?;
        if !rest.is_empty() {
            return Err(malformed(format!("{} bytes follow the certificate", rest.len())));
        }
        let extension = |oid: &Oid<'_>| {
            parsed
                .get_extension_unique(oid)
                .map_err(|_| malformed(format!("extension {oid} is there more than once")))
                .map(|extension| extension.map(|found| found.parsed_extension()))
        };
        let subject_key_id = match extension(&OID_X509_EXT_SUBJECT_KEY_IDENTIFIER)? {
            Some(ParsedExtension::SubjectKeyIdentifier(id)) if !id.0.is_empty() => id.0.to_vec(),
            _ => return Err(malformed("it has no subject key identifier".to_owned())),
        };
        let authority_key_id = match extension(&OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER)? {
            Some(ParsedExtension::AuthorityKeyIdentifier(id)) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
            _ => None,
        };
        let basic = parsed.basic_constraints().map_err(|_| malformed("bad basic constraints".to_owned()))?;
        let usage = parsed.key_usage().map_err(|_| malformed("bad key usage".to_owned()))?;
        Ok(Self {
            der: der.to_vec(),
            subject: parsed.subject().to_string(),
            subject_key_id,
            authority_key_id,
            not_before_unix_s: parsed.validity().not_before.timestamp(),
            not_after_unix_s: parsed.validity().not_after.timestamp(),
            is_authority: basic.is_some_and(|basic| basic.value.ca),
            may_sign: usage.is_none_or(|usage| usage.value.digital_signature()),
            public_key: read_public_key(&parsed)?,
        })
    }

    /// Reads the first certificate of a PEM file's bytes.
    ///
    /// # Errors
    /// [`Error::MalformedCertificate`] when there is none, or as [`Certificate::from_der`] says.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        Self::from_der(&certificate_from_pem(pem)?)
    }

    /// The certificate's DER bytes as they were read.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The subject's distinguished name, for messages to people.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The subject key identifier, never empty.
    pub fn subject_key_id(&self) -> &[u8] {
        &self.subject_key_id
    }

    /// The authority key identifier: the subject key identifier of the issuer.
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.authority_key_id.as_deref()
    }

    /// First second of validity, in Unix seconds.
    pub fn not_before_unix_s(&self) -> i64 {
        self.not_before_unix_s
    }

    /// Last second of validity, in Unix seconds.
    pub fn not_after_unix_s(&self) -> i64 {
        self.not_after_unix_s
    }

    /// SHA-256 of the DER bytes.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }

    /// Checks that the certificate's key signed `message`.
    ///
    /// `algorithm_oid` is the object identifier that came with the signature in dotted decimal form. When it is empty, the
    /// algorithm follows from the certificate: a P-256 key signs with SHA-256.
    ///
    /// This says nothing about whether the certificate is to be believed; see [`TrustRoots::verify`].
    ///
    /// # Errors
    /// [`Error::UnsupportedSignatureAlgorithm`] for every algorithm and key but ECDSA P-256 with
    /// SHA-256; [`Error::BadSignature`] when the signature is no DER or does not verify.
    pub fn verify_signature(&self, message: &[u8], algorithm_oid: &str, signature: &[u8]) -> Result<(), Error> {
        if !algorithm_oid.is_empty() && algorithm_oid != ECDSA_WITH_SHA256 {
            let name = OTHER_SIGNATURE_ALGORITHMS.iter().find(|(oid, _)| *oid == algorithm_oid);
            return Err(Error::UnsupportedSignatureAlgorithm {
                algorithm: match name {
                    Some((oid, name)) => format!("{name} ({oid})"),
                    None => format!("{algorithm_oid:?}"),
                },
            });
        }
        let key = match &self.public_key {
            PublicKey::P256(key) => key,
            PublicKey::Other(kind) => {
                return Err(Error::UnsupportedSignatureAlgorithm {
                    algorithm: format!("of a certificate whose key is of kind {kind}"),
                });
            }
        };
        let bad = || Error::BadSignature { subject: self.subject.clone() };
        let signature = p256::ecdsa::DerSignature::try_from(signature).map_err(|_| bad())?;
        key.verify(message, &signature).map_err(|_| bad())
    }

    fn check_validity(&self, now_unix_s: i64) -> Result<(), Error> {
        if now_unix_s < self.not_before_unix_s {
            return Err(Error::NotYetValid {
                subject: self.subject.clone(),
                not_before_unix_s: self.not_before_unix_s,
                now_unix_s,
            });
        }
        if now_unix_s > self.not_after_unix_s {
            return Err(Error::Expired {
                subject: self.subject.clone(),
                not_after_unix_s: self.not_after_unix_s,
                now_unix_s,
            });
        }
        Ok(())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject)
            .field("subject_key_id", &hex::encode(&self.subject_key_id))
            .finish_non_exhaustive()
    }
}

fn certificate_from_pem(pem: &[u8]) -> Result<Vec<u8>, Error> {
    let der = CertificateDer::from_pem_slice(pem)
        .map_err(|error| Error::MalformedCertificate { reason: format!("no certificate in the PEM text ({error})") })?;
    Ok(der.to_vec())
}

/// Reads the key, and keeps the kind of one that is not on P-256.
fn read_public_key(certificate: &X509Certificate<'_>) -> Result<PublicKey, Error> {
    let info = certificate.public_key();
    let algorithm = &info.algorithm;
    if algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Ok(PublicKey::Other(algorithm.algorithm.to_id_string()));
    }
    let curve = algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    match curve {
        Some(curve) if curve == OID_EC_P256 => {
            p256::ecdsa::VerifyingKey::from_sec1_bytes(&info.subject_public_key.data)
                .map(|key| PublicKey::P256(Box::new(key)))
                .map_err(|_| Error::MalformedCertificate { reason: "its public key is no point of P-256".to_owned() })
        }
        Some(curve) => Ok(PublicKey::Other(format!("elliptic curve {}", curve.to_id_string()))),
        None => Ok(PublicKey::Other("elliptic curve without a name".to_owned())),
    }
}

/// The root certificates that a party trusts for one purpose, such as one publisher's.
#[derive(Debug, Clone)]
pub struct TrustRoots {
    roots: Vec<Certificate>,
}

/// Purposes (extended key usage) are for TLS; a consent certificate may have any or none.
struct AnyPurpose;

impl webpki::ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, mut purposes: webpki::KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        // Reading them all still refuses an extension that is malformed.
        purposes.try_for_each(|purpose| purpose.map(drop))
    }
}

impl TrustRoots {
    /// Takes root certificates in DER. An empty list is allowed, and trusts nobody.
    ///
    /// # Errors
    /// [`Error::MalformedCertificate`] as [`Certificate::from_der`] says, and
    /// [`Error::UnfitCertificate`] for a certificate that is not a certificate authority's.
    pub fn from_der(roots: Vec<Vec<u8>>) -> Result<Self, Error> {
        let roots = roots.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>()?;
        Self::new(roots)
    }

    /// Takes every certificate of a PEM file's bytes; there must be at least one.
    ///
    /// # Errors
    /// [`Error::MalformedCertificate`] when there is none or one cannot be read, and
    /// [`Error::UnfitCertificate`] for a certificate that is not a certificate authority's.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let ders = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Error::MalformedCertificate { reason: format!("bad PEM text ({error})") })?;
        if ders.is_empty() {
            return Err(Error::MalformedCertificate { reason: "no certificate in the PEM text".to_owned() });
        }
        Self::from_der(ders.iter().map(|der| der.to_vec()).collect())
    }

    fn new(roots: Vec<Certificate>) -> Result<Self, Error> {
        match roots.iter().find(|root| !root.is_authority) {
            Some(root) => Err(Error::UnfitCertificate {
                subject: root.subject.clone(),
                reason: "a trusted root must be a certificate authority",
            }),
            None => Ok(Self { roots }),
        }
    }

    /// The trusted certificates.
    pub fn roots(&self) -> &[Certificate] {
        &self.roots
    }

    /// Checks that one of the roots issued `certificate`, that both are valid at `now_unix_s` (Unix
    /// seconds), and that the certificate is one that signs messages.
    ///
    /// The root is chosen by the certificate's authority key identifier, and issues directly: a
    /// chain has no intermediate. Extended key usage does not matter; a key usage, if there is one,
    /// must name digital signatures.
    ///
    /// # Errors
    /// [`Error::UnfitCertificate`] for an authority's certificate presented as a party's, or one
    /// that may not sign; [`Error::NotYetValid`] and [`Error::Expired`], of the certificate or of its
    /// root; [`Error::UnknownAuthority`] when no root has the issuer's key identifier;
    /// [`Error::UntrustedChain`] when that root did not issue it.
    pub fn verify(&self, certificate: &Certificate, now_unix_s: i64) -> Result<(), Error> {
        let unfit = |reason| Error::UnfitCertificate { subject: certificate.subject.clone(), reason };
        if certificate.is_authority {
            return Err(unfit("it is a certificate authority's, not a party's"));
        }
        if !certificate.may_sign {
            return Err(unfit("its key usage does not allow digital signatures"));
        }
        certificate.check_validity(now_unix_s)?;
        let issuers = || self.roots.iter().filter(|root| certificate.authority_key_id() == Some(root.subject_key_id()));
        let Some(first) = issuers().next() else {
            return Err(Error::UnknownAuthority {
                subject: certificate.subject.clone(),
                authority_key_id: certificate.authority_key_id().map_or_else(|| "(absent)".to_owned(), hex::encode),
            });
        };
        // A renewed root keeps its key: more than one may fit, and one that holds is enough.
        let mut outcome = verify_issued(certificate, first, now_unix_s);
        for issuer in issuers().skip(1) {
            outcome = outcome.or_else(|_| verify_issued(certificate, issuer, now_unix_s));
        }
        outcome
    }
}

fn verify_issued(certificate: &Certificate, root: &Certificate, now_unix_s: i64) -> Result<(), Error> {
    root.check_validity(now_unix_s)?;
    let untrusted = |error: webpki::Error| Error::UntrustedChain {
        subject: certificate.subject.clone(),
        reason: error.to_string(),
    };
    let root_der = CertificateDer::from(root.der.as_slice());
    let anchors = [webpki::anchor_from_trusted_cert(&root_der).map_err(untrusted)?];
    let der = CertificateDer::from(certificate.der.as_slice());
    // check_validity() has seen to it that the time is not before the epoch of a valid certificate.
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_unix_s.max(0).unsigned_abs()));
    webpki::EndEntityCert::try_from(&der)
        .map_err(untrusted)?
        .verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &[], now, AnyPurpose, None, None)
        .map(drop)
        .map_err(untrusted)
}

/// A party's private consent key on P-256. Wiped on drop; `Debug` shows nothing of it.
pub struct SigningKey(p256::ecdsa::SigningKey);

impl SigningKey {
    /// Reads a PKCS#8 private key from PEM text (`BEGIN PRIVATE KEY`).
    ///
    /// # Errors
    /// [`Error::MalformedPrivateKey`] for anything but PKCS#8 with a P-256 key.
    pub fn from_pkcs8_pem(pem: &str) -> Result<Self, Error> {
        p256::ecdsa::SigningKey::from_pkcs8_pem(pem).map(Self).map_err(|_| Error::MalformedPrivateKey)
    }

    /// Reads a PKCS#8 private key from DER bytes.
    ///
    /// # Errors
    /// [`Error::MalformedPrivateKey`] for anything but PKCS#8 with a P-256 key.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, Error> {
        p256::ecdsa::SigningKey::from_pkcs8_der(der).map(Self).map_err(|_| Error::MalformedPrivateKey)
    }

    /// Signs `message` by ECDSA P-256 with SHA-256 ([`ECDSA_WITH_SHA256`]); the signature is DER.
    ///
    /// The signature is deterministic (RFC 6979): the same key and message give the same bytes, and
    /// no failing random generator can give the key away.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: p256::ecdsa::DerSignature = self.0.sign(message);
        signature.as_bytes().to_vec()
    }

    /// Whether `certificate` speaks for this key.
    pub fn belongs_to(&self, certificate: &Certificate) -> bool {
        match &certificate.public_key {
            PublicKey::P256(key) => key.as_ref() == self.0.verifying_key(),
            PublicKey::Other(_) => false,
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(secret)")
    }
}
