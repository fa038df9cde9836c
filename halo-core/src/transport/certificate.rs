//! What this module reads in X.509 certificates.

use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The key identifier of the authority that a certificate names as its issuer: bytes of the AKID extension.
///
/// `None` if the bytes are no certificate or have no such extension.
#[must_use]
pub fn authority_key_id(certificate_der: &[u8]) -> Option<Vec<u8>> {
    extension(certificate_der, |extension| match extension {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    })
}

/// The identifier of a certificate's own key: bytes of the SKID extension.
///
/// `None` if the bytes are no certificate or have no such extension.
#[must_use]
pub fn subject_key_id(certificate_der: &[u8]) -> Option<Vec<u8>> {
    extension(certificate_der, |extension| match extension {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

/// The DER encoding of a certificate's public key with its algorithm.
pub(super) fn public_key(certificate_der: &[u8]) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(certificate_der).ok()?;
    Some(certificate.public_key().raw.to_vec())
}

fn extension(der: &[u8], read: impl Fn(&ParsedExtension<'_>) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    certificate.extensions().iter().find_map(|extension| read(extension.parsed_extension()))
}
