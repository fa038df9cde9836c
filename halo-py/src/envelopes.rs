//! A publisher's vector as it is sent to a trustee, and the publishers' key services.

use std::collections::BTreeMap;
use std::sync::Arc;

use halo_crypto::attestation::{AttestedKeyService, KeyRequest, KeyService, Refused, SimulatedVerifier};
use halo_crypto::envelope::{DataKey, Encryptor, TinkAead, requisition_binding};
use halo_crypto::seal::KeyEncryptionKey;
use halo_duchy::protocol::trustee::Requisition;
use rand_core::CryptoRng;

use crate::door::Control;
use crate::error::Error;
use crate::simulate::body;

/// Cells between two looks at the caller's wish to stop.
const BLOCK: usize = 1 << 20;

/// Encrypts a vector under a key of its own, and that key under the publisher's, both bound to the requisition's id.
pub(crate) fn requisition(
    id: String,
    cells: &[u8],
    kek: &TinkAead,
    control: &Control,
    rng: &mut impl CryptoRng,
) -> Result<Requisition, Error> {
    let binding = requisition_binding(&id);
    let key = DataKey::generate(rng);
    let wrapped_key = key.wrap(kek, &binding, rng)?;
    let mut ciphertext = Vec::new();
    let mut encryptor = Encryptor::new(&key, &binding, rng);
    for block in cells.chunks(BLOCK) {
        if control.is_cancelled() {
            return Err(halo_edp_sdk::Error::Interrupted.into());
        }
        encryptor.write(block, &mut ciphertext)?;
    }
    encryptor.finish(&mut ciphertext)?;
    Ok(Requisition { id, vector: body(ciphertext, 1)?, wrapped_key, kek: kek.id().to_owned() })
}

/// The key services of all publishers: each decides alone about the evidence that it is shown.
#[derive(Debug, Default)]
pub(crate) struct KeyServices(BTreeMap<String, AttestedKeyService>);

impl KeyServices {
    /// Adds a publisher's key, and whether that publisher accepts an attestation that proves nothing.
    pub(crate) fn add(&mut self, kek: Arc<TinkAead>, allow_simulated: bool) -> Result<(), Error> {
        let id = kek.id().to_owned();
        let verifier = Arc::new(SimulatedVerifier { allow_simulated });
        match self.0.insert(id.clone(), AttestedKeyService::new(verifier, vec![kek])) {
            None => Ok(()),
            Some(_) => Err(Error::Parameter(format!("two keys are called {id:?}; give each a name of its own"))),
        }
    }
}

impl KeyService for KeyServices {
    fn release(&self, request: &KeyRequest<'_>) -> Result<DataKey, Refused> {
        let unknown = || Refused::UnknownKey { kek: request.kek.to_owned() };
        self.0.get(request.kek).ok_or_else(unknown)?.release(request)
    }
}
