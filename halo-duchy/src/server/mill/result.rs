//! The result, as the consumer will read it: signed by the aggregator and encrypted to the consumer's key.

use halo_core::pb::api::measurement::Result as MeasurementResult;
use halo_core::pb::api::{EncryptionPublicKey, SignedMessage, encryption_public_key};
use halo_core::pb::system::SetComputationResultRequest;
use halo_core::wire::{self, type_name};
use halo_crypto::consent::tink::PublicKeyset;
use halo_crypto::consent::x509::ECDSA_WITH_SHA256;
use prost::Message;
use sha2::{Digest, Sha256};

use super::Trouble;
use crate::server::duchy::Duchy;
use crate::server::secrets::ComputationSecrets;
use crate::server::terms::{Refusal, Terms};

/// What hands the result in. The same result gives the same bytes.
pub(super) fn request(
    duchy: &Duchy,
    terms: &Terms,
    secrets: &ComputationSecrets,
    result: &MeasurementResult,
) -> Result<SetComputationResultRequest, Trouble> {
    let consent = &duchy.parties.consent;
    let result = result.encode_to_vec();
    let signed = SignedMessage {
        signature: consent.key.sign(&result),
        signature_algorithm_oid: ECDSA_WITH_SHA256.to_owned(),
        message: Some(wire::pack(type_name::MEASUREMENT_RESULT, result)),
        ..Default::default()
    }
    .encode_to_vec();
    let refuse = |reason: String| Refusal::new(format!("measurement_public_key: {reason}"));
    let public_key = &terms.spec.measurement_public_key;
    let key = EncryptionPublicKey::decode(public_key.as_slice()).map_err(|error| refuse(error.to_string()))?;
    if key.format() != encryption_public_key::Format::TinkKeyset {
        return Err(refuse("its format is not TINK_KEYSET".to_owned()).into());
    }
    let keyset = PublicKeyset::from_bytes(&key.data).map_err(|error| refuse(error.to_string()))?;
    let mut rng = secrets.randomness("result encryption", &Sha256::digest(&signed));
    let ciphertext = keyset.encrypt(&signed, b"", &mut rng).map_err(|error| refuse(error.to_string()))?;
    Ok(SetComputationResultRequest {
        name: terms.name.to_string(),
        aggregator_certificate: consent.name.to_string(),
        result_public_key: public_key.clone(),
        encrypted_result: ciphertext,
        public_api_version: "v2alpha".to_owned(),
    })
}
