//! What both Liquid Legions protocols have in common: ElGamal key shares, proven in the session, and the noise inside.

use halo_core::measurement::{LiquidLegionsNoise, MeasurementSpec, MeasurementType};
use halo_core::pb::api::measurement::result::{Reach, reach};
use halo_core::pb::system::computation_participant::requisition_params;
use halo_core::resource::DuchyId;
use halo_core::session;
use halo_core::wire::{self, ElGamalKey};
use halo_crypto::consent::x509::Certificate;
use halo_crypto::elgamal::{KeyShare, KeyShareSecret};
use halo_crypto::proof::{PossessionContext, VerifiedShare};
use halo_sketch::liquid_legions;

use super::{SignedKey, Unseated, check_floor, wire_mechanism};
use crate::protocol::llv2::{NoiseParameters, Outcome, Parameters, Participant, ReachAndFrequency};
use crate::server::config::NoiseFloor;
use crate::server::parties::Consent;
use crate::server::secrets::{ComputationKey, ComputationSecrets};
use crate::server::terms::{Keys, Refusal, Terms};

/// The noise inside the protocol protects what this Duchy's publishers have sent. The Kingdom alone chooses it, so it must
/// not fall below what this Duchy's operator asks for.
pub(super) fn check_noise(
    noise: Option<&LiquidLegionsNoise>,
    spec: &MeasurementSpec,
    floor: &NoiseFloor,
) -> Result<(), Refusal> {
    for (name, params) in noise.into_iter().flat_map(|noise| {
        [
            ("data_provider_noise", noise.data_provider),
            ("blinded_histogram_noise", noise.blinded_histogram),
            ("noise_for_publisher_noise", noise.for_publisher_noise),
        ]
    }) {
        let (epsilon, delta) = (params.epsilon.get(), params.delta.get());
        if epsilon > floor.maximum_internal_epsilon || delta > floor.maximum_internal_delta {
            return Err(Refusal::new(format!(
                "{name}: {params} is less noise than ({}, {}), which is asked for here (maximum_internal_epsilon, \
                 maximum_internal_delta)",
                floor.maximum_internal_epsilon, floor.maximum_internal_delta
            )));
        }
    }
    check_floor(noise.map(|noise| (noise.calibration, noise.honest_contributors)), spec, floor)
}

/// The engine's parameters. A protocol without keys says that there is one.
pub(super) fn parameters(
    terms: &Terms,
    (decay_rate, size, keys): (f64, u64, u64),
    noise: Option<&LiquidLegionsNoise>,
) -> Result<Parameters, Refusal> {
    let interval = terms
        .spec
        .vid_sampling_interval
        .without_wrapping()
        .map_err(|error| Refusal::kingdom(format!("measurement_spec: {error}")))?;
    let sketch = liquid_legions::Params::new(decay_rate, size, keys)
        .map_err(|error| Refusal::kingdom(format!("protocol_config: sketch_params: {error}")))?;
    let (reach, frequency) = match &terms.spec.kind {
        MeasurementType::Reach { reach } => (*reach, None),
        MeasurementType::ReachAndFrequency { reach, frequency, .. } => (*reach, Some(*frequency)),
        _ => return Err(Refusal::kingdom("measurement_spec: asks neither for reach nor for frequency")),
    };
    let noise = noise.map(|noise| NoiseParameters {
        mechanism: noise.mechanism,
        calibration: noise.calibration,
        honest_contributors: noise.honest_contributors,
        reach,
        frequency,
        blinded_histogram: noise.blinded_histogram,
        noise_for_publisher_noise: noise.for_publisher_noise,
    });
    Ok(Parameters {
        sketch,
        maximum_frequency: terms.spec.kind.maximum_frequency(),
        sampling_width: interval.width(),
        noise,
        publishers: u32::try_from(terms.publishers())
            .map_err(|_| Refusal::kingdom("requisitions: there are too many"))?,
    })
}

fn context<'a>(terms: &'a Terms, duchy: &'a DuchyId, certificate: &Certificate) -> PossessionContext<'a> {
    PossessionContext { session: terms.session, duchy: duchy.as_str(), certificate_sha256: certificate.sha256() }
}

/// The own key share, with the proof that its secret is known, for the session of this very computation.
pub(super) fn public_key(terms: &Terms, consent: &Consent, me: &DuchyId, secrets: &ComputationSecrets) -> Vec<u8> {
    let ComputationKey::ElGamal(share) = &secrets.key else { return Vec::new() };
    let context = context(terms, me, &consent.certificate);
    let input = [context.session, context.certificate_sha256].concat();
    let proof = share.prove_possession(&context, &mut secrets.randomness("proof of possession", &input));
    wire::serialize_el_gamal_public_key(&ElGamalKey { element: *share.public().as_bytes(), proof_of_possession: proof })
}

/// A Duchy's key share, if it has proven that it knows the secret, in this session and under this certificate.
pub(super) fn verified(
    terms: &Terms,
    duchy: &DuchyId,
    certificate: &Certificate,
    key: &[u8],
) -> Result<VerifiedShare, String> {
    let key = wire::parse_el_gamal_public_key(key).map_err(|error| error.to_string())?;
    KeyShare::from_bytes(key.element)
        .verify_possession(&context(terms, duchy, certificate), &key.proof_of_possession)
        .map_err(|error| error.to_string())
}

/// All Duchies in ring order, the aggregator last.
pub(super) fn ring(terms: &Terms, keys: &Keys) -> Result<Vec<Participant>, Refusal> {
    let order = session::ring_order(&terms.name.computation.to_string(), &keys.list(), &terms.aggregator);
    let place = |id: DuchyId| {
        let key = keys.of(&id).ok_or_else(|| Refusal::kingdom(format!("duchy {id}: its key is missing")))?;
        let share = verified(terms, &id, &key.certificate, &key.key);
        let share = share.map_err(|reason| Refusal::shown(&id, format!("duchy {id}: {reason}")))?;
        Ok(Participant { id, key: share })
    };
    order.into_iter().map(place).collect()
}

/// The secret half of the own key share, and the seed.
pub(super) fn secret(
    secrets: ComputationSecrets,
) -> Result<(KeyShareSecret, halo_crypto::secret::Secret<[u8; 32]>), Unseated> {
    match secrets.key {
        ComputationKey::ElGamal(share) => Ok((share, secrets.seed)),
        ComputationKey::None | ComputationKey::Hpke(_) => Err(Unseated::WrongKey),
    }
}

/// The signed key share on the wire, which is the same message for both protocols.
pub(super) fn publish(key: SignedKey) -> requisition_params::LiquidLegionsV2 {
    requisition_params::LiquidLegionsV2 {
        el_gamal_public_key: key.key,
        el_gamal_public_key_signature: key.signature,
        el_gamal_public_key_signature_algorithm_oid: key.oid,
    }
}

/// The signed key share of a message.
pub(super) fn published(params: &requisition_params::LiquidLegionsV2) -> SignedKey {
    SignedKey {
        key: params.el_gamal_public_key.clone(),
        signature: params.el_gamal_public_key_signature.clone(),
        oid: params.el_gamal_public_key_signature_algorithm_oid.clone(),
    }
}

/// The reach that the consumer reads.
pub(super) fn reach(
    outcome: &Outcome,
    estimate: &ReachAndFrequency,
    noise: Option<&LiquidLegionsNoise>,
    methodology: reach::Methodology,
) -> Reach {
    Reach {
        value: estimate.reach.round() as i64,
        noise_mechanism: wire_mechanism(noise.map(|noise| noise.mechanism)).into(),
        methodology: Some(methodology),
        standard_error: estimate.reach_standard_error,
        noise_standard_deviation: estimate.reach_noise_sd,
        registers_in: outcome.registers_in.cast_signed(),
        active_registers: outcome.active_registers,
        frequency_vector_size: 0,
        suppressed: false,
    }
}
