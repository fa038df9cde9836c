//! Makes the parties of the configuration known to the store, at every start anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use halo_core::{clock::Timestamp, pb::api};
use halo_crypto::consent::{
    self,
    x509::{Certificate, TrustRoots},
};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{
    Error,
    config::{Config, PartyConfig},
    consent::{issued_by, verified_public_key},
    limits::{MAX_CERTIFICATE, MAX_PUBLIC_KEY, bounded},
    store::{CertificateRecord, Party, Revocation, Store},
};

/// Stores every party that is new or whose entry in the configuration has changed, and gives them all back.
///
/// Where the configuration says the same of root, certificate and key as before, those that the party has chosen
/// through the API since are kept; and so are its capabilities.
pub(crate) async fn bootstrap(store: &dyn Store, config: &Config, now: Timestamp) -> Result<Vec<Party>, Error> {
    let mut parties = Vec::with_capacity(config.parties.len());
    for entry in &config.parties {
        parties.push(one(store, entry, now).await?);
    }
    Ok(parties)
}

async fn one(store: &dyn Store, entry: &PartyConfig, now: Timestamp) -> Result<Party, Error> {
    let refuse = |file: &Path, detail: String| Error::Party {
        party: entry.name.to_string(),
        detail: format!("{}: {detail}", file.display()),
    };
    let root_file = &entry.root_certificate;
    let roots = TrustRoots::from_pem(&read(root_file)?).map_err(|error| refuse(root_file, error.to_string()))?;
    let [root] = roots.roots() else {
        return Err(refuse(root_file, format!("there are {} certificates in it, not one", roots.roots().len())));
    };
    let file = &entry.consent_certificate_file;
    let certificate = Certificate::from_pem(&read(file)?).map_err(|error| refuse(file, error.to_string()))?;
    let public_key = entry.encryption_public_key.as_ref().map(read).transpose()?;

    bounded("consent_certificate", certificate.der().len(), MAX_CERTIFICATE)
        .map_err(|error| refuse(file, error.to_string()))?;
    if let (Some(bytes), Some(file)) = (&public_key, &entry.encryption_public_key) {
        bounded("encryption_public_key", bytes.len(), MAX_PUBLIC_KEY)
            .map_err(|error| refuse(file, error.to_string()))?;
    }

    let mut configured = Sha256::new();
    let name = entry.consent_certificate.to_string();
    let parts = [root.der(), certificate.der(), name.as_bytes(), public_key.as_deref().unwrap_or_default()];
    for part in parts {
        configured.update((part.len() as u64).to_be_bytes());
        configured.update(part);
    }
    let party = Party {
        name: entry.name.clone(),
        display_name: entry.display_name.clone(),
        root_der: root.der().to_vec(),
        root_key_id: root.subject_key_id().to_vec(),
        certificate: entry.consent_certificate.clone(),
        public_key: public_key.clone(),
        configured: configured.finalize().into(),
        capabilities: entry.capabilities.unwrap_or_default(),
        configured_capabilities: entry.capabilities,
    };
    match issued_by(&party, &certificate, now) {
        Ok(()) => {}
        // Its owner can bring a new one; until then only what relies on this one is refused.
        Err(error @ (consent::Error::Expired { .. } | consent::Error::NotYetValid { .. })) => {
            tracing::warn!(party = %party.name, %error, "a consent certificate cannot be used now");
        }
        Err(error) => return Err(refuse(file, error.to_string())),
    }
    if let (Some(bytes), Some(file)) = (&public_key, &entry.encryption_public_key) {
        let signed = api::SignedMessage::decode(bytes.as_slice()).map_err(|error| refuse(file, error.to_string()))?;
        verified_public_key("encryption_public_key", &signed, &certificate)
            .map_err(|error| refuse(file, error.to_string()))?;
    }
    let mut stored = store.party(&party.name).await?;
    if let (Some(stored), Some(said)) = (&mut stored, entry.capabilities)
        && stored.configured_capabilities != entry.capabilities
    {
        store.set_capabilities(&party.name, said, true).await?;
        (stored.capabilities, stored.configured_capabilities) = (said, Some(said));
        tracing::info!(party = %party.name, capabilities = ?said, "capabilities were set from the configuration");
    }
    let kept = stored.as_ref().map(|stored| (stored.capabilities, stored.configured_capabilities));
    if let Some(stored) = stored.filter(|stored| stored.configured == party.configured) {
        if stored.display_name == party.display_name {
            return Ok(stored);
        }
        // Certificate and key stay what the party may have made of them since.
        let renamed = Party { display_name: party.display_name, ..stored };
        store.put_party(&renamed).await?;
        tracing::info!(party = %renamed.name, name = renamed.display_name, "a party was renamed by the configuration");
        return Ok(renamed);
    }
    let record = CertificateRecord {
        name: party.certificate.clone(),
        der: certificate.der().to_vec(),
        subject_key_id: certificate.subject_key_id().to_vec(),
        not_before: certificate.not_before_unix_s(),
        not_after: certificate.not_after_unix_s(),
        revocation: Revocation::Good,
    };
    let known = store.certificate(&record.name).await?;
    if known.as_ref().is_some_and(|known| known.der != record.der) {
        return Err(refuse(file, format!("{} is another certificate already; give the new one a new id", record.name)));
    }
    // The party comes first, because a certificate belongs to one. It counts as configured when both are there.
    store.put_party(&Party { configured: [0; 32], ..party.clone() }).await?;
    if known.is_none() {
        store.create_certificate(&record).await?;
    }
    store.put_party(&party).await?;
    tracing::info!(party = %party.name, name = party.display_name, "a party was set up from the configuration");
    let (capabilities, configured_capabilities) = kept.unwrap_or((party.capabilities, party.configured_capabilities));
    Ok(Party { capabilities, configured_capabilities, ..party })
}

fn read(file: &PathBuf) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|source| Error::Read { file: file.clone(), source })
}
