//! The result, as the consumer will read it: signed by the aggregator and encrypted to the consumer's key.

use std::collections::BTreeMap;

use halo_core::measurement::MeasurementType;
use halo_core::pb::api::measurement::Result as MeasurementResult;
use halo_core::pb::api::measurement::result::{Frequency, Reach, frequency, reach};
use halo_core::pb::api::protocol_config::NoiseMechanism as WireMechanism;
use halo_core::pb::api::{EncryptionPublicKey, LiquidLegionsV2Methodology, SignedMessage, encryption_public_key};
use halo_core::pb::system::SetComputationResultRequest;
use halo_core::privacy::NoiseMechanism;
use halo_core::wire::{self, type_name};
use halo_crypto::consent::tink::PublicKeyset;
use halo_crypto::consent::x509::ECDSA_WITH_SHA256;
use prost::Message;
use sha2::{Digest, Sha256};

use super::Trouble;
use crate::protocol::llv2::Outcome;
use crate::server::duchy::Duchy;
use crate::server::secrets::ComputationSecrets;
use crate::server::terms::{Refusal, Terms};

/// What hands the result in. The same outcome gives the same bytes.
pub(super) fn request(
    duchy: &Duchy,
    terms: &Terms,
    secrets: &ComputationSecrets,
    outcome: &Outcome,
) -> Result<SetComputationResultRequest, Trouble> {
    let consent = &duchy.parties.consent;
    let result = result(terms, outcome)?.encode_to_vec();
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

/// Estimates, their standard errors and the noise in them. What no noise hides stays out where there is noise.
fn result(terms: &Terms, outcome: &Outcome) -> Result<MeasurementResult, Trouble> {
    let estimate = outcome.estimate(&terms.parameters()?)?;
    let noise = terms.llv2.noise.as_ref();
    let mechanism = match noise.map(|noise| noise.mechanism) {
        None => WireMechanism::None,
        Some(NoiseMechanism::DiscreteGaussian) => WireMechanism::DiscreteGaussian,
        Some(NoiseMechanism::Geometric) => WireMechanism::Geometric,
    };
    let reach = Reach {
        value: estimate.reach.round() as i64,
        noise_mechanism: mechanism.into(),
        methodology: Some(reach::Methodology::LiquidLegionsV2(LiquidLegionsV2Methodology {})),
        standard_error: estimate.reach_standard_error,
        noise_standard_deviation: estimate.reach_noise_sd,
        registers_in: outcome.registers_in.cast_signed(),
        active_registers: outcome.active_registers,
        frequency_vector_size: 0,
    };
    let bins = |shares: &[f64]| -> BTreeMap<i64, f64> { (1..).zip(shares.iter().copied()).collect() };
    let counts = matches!(terms.spec.kind, MeasurementType::ReachAndFrequency { .. });
    let frequency = counts.then(|| {
        let (shares, errors) = estimate
            .frequency
            .as_ref()
            .map(|found| (bins(&found.shares), bins(&found.standard_errors)))
            .unwrap_or_default();
        let usable = outcome.usable_histogram.as_ref().filter(|_| noise.is_none());
        Frequency {
            relative_frequency_distribution: shares,
            noise_mechanism: mechanism.into(),
            methodology: Some(frequency::Methodology::LiquidLegionsV2(LiquidLegionsV2Methodology {})),
            standard_errors: errors,
            noise_standard_deviation: outcome.frequency_noise_sd,
            usable_registers: usable.map_or(0, |bins| bins.iter().sum()),
            usable_histogram: usable.cloned().unwrap_or_default(),
            histogram: Vec::new(),
        }
    });
    Ok(MeasurementResult { reach: Some(reach), frequency, ..Default::default() })
}
