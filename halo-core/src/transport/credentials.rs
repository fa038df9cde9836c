//! Certificates and keys, from files or memory.

use std::fmt;
use std::fs;
use std::path::Path;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::TransportError;

/// What a party shows of itself: its certificate, followed by intermediate ones where there are any, and the key of it.
pub struct Identity {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// Reads PEM files: the certificate chain, leaf first, and the private key (PKCS #8, SEC 1 or PKCS #1).
    ///
    /// # Errors
    /// [`TransportError::Credentials`] if a file cannot be read or holds something else.
    pub fn from_pem_files(certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TransportError> {
        let chain =
            certificates(&shown("certificate", certificate.as_ref()), &read("certificate", certificate.as_ref())?)?;
        let key = private_key(&shown("private key", key.as_ref()), &read("private key", key.as_ref())?)?;
        Ok(Self { chain, key })
    }

    /// The same from texts.
    ///
    /// # Errors
    /// [`TransportError::Credentials`] if one of them is not what it should be.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TransportError> {
        Ok(Self { chain: certificates("certificate", certificate)?, key: private_key("private key", key)? })
    }

    /// The DER encoding of the party's own certificate.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], AsRef::as_ref)
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// The authorities that are trusted.
#[derive(Clone)]
pub struct Roots {
    pub(super) certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    /// Reads every certificate of some PEM files.
    ///
    /// # Errors
    /// [`TransportError::Credentials`] if a file cannot be read, or has no certificate in it.
    pub fn from_pem_files<P: AsRef<Path>>(files: &[P]) -> Result<Self, TransportError> {
        let mut all = Vec::new();
        for file in files {
            let what = "root certificate";
            all.append(&mut certificates(&shown(what, file.as_ref()), &read(what, file.as_ref())?)?);
        }
        Ok(Self { certificates: all })
    }

    /// Reads every certificate of a PEM text.
    ///
    /// # Errors
    /// [`TransportError::Credentials`] if there is none.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TransportError> {
        Ok(Self { certificates: certificates("root certificate", pem)? })
    }

    /// Takes DER encodings.
    #[must_use]
    pub fn from_der(certificates: Vec<Vec<u8>>) -> Self {
        Self { certificates: certificates.into_iter().map(CertificateDer::from).collect() }
    }

    /// The DER encodings.
    pub fn certificates(&self) -> impl Iterator<Item = &[u8]> {
        self.certificates.iter().map(AsRef::as_ref)
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Roots").field("certificates", &self.certificates.len()).finish()
    }
}

fn shown(what: &str, file: &Path) -> String {
    format!("{what} {}", file.display())
}

fn read(what: &str, file: &Path) -> Result<Vec<u8>, TransportError> {
    fs::read(file).map_err(|error| TransportError::Credentials { what: shown(what, file), detail: error.to_string() })
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let refuse = |detail: String| TransportError::Credentials { what: what.to_string(), detail };
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| refuse(error.to_string()))?;
    if found.is_empty() {
        return Err(refuse("there is no certificate in PEM form in it".into()));
    }
    Ok(found)
}

fn private_key(what: &str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TransportError> {
    // The parser's errors speak of positions and forms, never of the key.
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| TransportError::Credentials { what: what.to_string(), detail: error.to_string() })
}
