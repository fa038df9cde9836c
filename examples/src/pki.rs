//! Freshly made organisations for examples and tests: a certificate authority each, and what it issued.
//!
//! Every key is an ECDSA P-256 key. Files in an organisation's directory:
//!
//! | file | holds |
//! |---|---|
//! | `root.pem` | the authority's certificate: the only file that others need |
//! | `tls.pem`, `tls.key` | certificate and key for TLS, as server and client |
//! | `consent.pem`, `consent.key` | certificate and key for consent signaling |
//! | `encryption.keyset`, `encryption_public_key.bin` | a private Tink keyset, and its public half signed by the consent key (publishers and consumers) |

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

use halo_core::{
    clock::{Clock, SystemClock},
    pb::api,
    wire::type_name,
};
use halo_crypto::{
    consent::{tink::PrivateKeyset, x509},
    secret::Secret,
};
use prost::Message;
use rand_core::CryptoRng;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::error::{Context, Result};

/// How long a certificate is valid after it was made. It is valid from one day before, for clocks that run late.
const VALIDITY: Duration = Duration::from_secs(30 * 86_400);

/// One day.
const DAY: Duration = Duration::from_secs(86_400);

/// Makes organisations.
#[derive(Debug)]
pub struct Organisation;

impl Organisation {
    /// A certificate authority with a TLS and a consent-signaling certificate, for a server.
    ///
    /// # Errors
    /// When a file exists already or cannot be written.
    pub fn create_server(directory: &Path, name: &str) -> Result<()> {
        let what = || format!("cannot make certificates for {name}");
        fs::create_dir_all(directory).context(|| format!("cannot create {}", directory.display()))?;
        let root_key = KeyPair::generate().context(what)?;
        let mut root = parameters(&format!("{name} root"), &[])?;
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root_certificate = root.self_signed(&root_key).context(what)?;
        write(&directory.join("root.pem"), root_certificate.pem().as_bytes(), 0o644)?;
        let issuer = Issuer::from_params(&root, &root_key);

        let mut tls = parameters(name, &["localhost", "127.0.0.1"])?;
        tls.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let consent = parameters(name, &[])?;
        for (file, parameters) in [("tls", tls), ("consent", consent)] {
            let key = KeyPair::generate().context(what)?;
            let certificate = parameters.signed_by(&key, &issuer).context(what)?;
            write(&directory.join(format!("{file}.pem")), certificate.pem().as_bytes(), 0o644)?;
            let key = Secret::new(key.serialize_pem());
            write(&directory.join(format!("{file}.key")), key.expose().as_bytes(), 0o600)?;
        }
        Ok(())
    }

    /// The same, and an encryption key that the consent key vouches for.
    ///
    /// # Errors
    /// When a file exists already or cannot be written.
    pub fn create_with_encryption(directory: &Path, name: &str, rng: &mut impl CryptoRng) -> Result<()> {
        Self::create_server(directory, name)?;
        let what = || format!("cannot make an encryption key for {name}");
        let keyset = PrivateKeyset::generate_hpke(rng);
        write(&directory.join("encryption.keyset"), keyset.to_bytes().expose(), 0o600)?;
        let key = api::EncryptionPublicKey {
            format: api::encryption_public_key::Format::TinkKeyset.into(),
            data: keyset.public().to_bytes(),
            ..Default::default()
        };
        let consent_key = Secret::new(fs::read_to_string(directory.join("consent.key")).context(what)?);
        let signer = x509::SigningKey::from_pkcs8_pem(consent_key.expose()).context(what)?;
        let signed = crate::consumer::sign(&signer, type_name::ENCRYPTION_PUBLIC_KEY, key.encode_to_vec());
        write(&directory.join("encryption_public_key.bin"), &signed.encode_to_vec(), 0o644)
    }
}

/// A leaf's parameters, before its use is set.
fn parameters(name: &str, addresses: &[&str]) -> Result<CertificateParams> {
    let addresses: Vec<String> = addresses.iter().map(|&address| address.to_owned()).collect();
    let mut parameters =
        CertificateParams::new(addresses).context(|| format!("cannot make a certificate for {name}"))?;
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(SystemClock.now().unix_seconds().unsigned_abs());
    parameters.not_before = now - DAY;
    parameters.not_after = now + VALIDITY;
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.use_authority_key_identifier_extension = true;
    // Also writes the subject key identifier.
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(parameters)
}

/// Writes a new file with the given permissions.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .context(|| format!("cannot write {}", path.display()))
}
