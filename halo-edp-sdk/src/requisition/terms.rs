//! What is asked for, and how it is computed, as far as it concerns a publisher.

use halo_core::{
    measurement::{
        DirectConfig, HmssConfig, HmssVariant, LiquidLegionsNoise, MeasurementKind, MeasurementSpec, MeasurementType,
        Population, Protocol, ProtocolConfig, RequisitionSpec, TrusteeConfig, TrusteeNoise, Wanted,
    },
    privacy::{MaximumFrequency, NoiseMechanism, PrivacyParams},
    resource::DataProviderName,
    session,
};
use halo_crypto::share::Modulus;
use halo_sketch::noise::{NoiseSpec, ShiftedNoise};

use super::{Justification, Question, Refusal, Trust};
use crate::{
    direct::{Ask, Privacy},
    share::{Encoding, Sharing},
    vector::VectorTerms,
};

/// The two specifications belong together, and the events are this publisher's.
pub(super) fn check_agreement(
    spec: &MeasurementSpec,
    own: &RequisitionSpec,
    publisher: &DataProviderName,
) -> Result<(), Refusal> {
    if spec.measurement_public_key != own.measurement_public_key {
        return Err(Refusal::new(
            Justification::ConsentSignalInvalid,
            "measurement spec and requisition spec name different measurement public keys".to_owned(),
        ));
    }
    if !spec.nonce_hashes.contains(&session::nonce_hash(own.nonce)) {
        return Err(Refusal::new(
            Justification::ConsentSignalInvalid,
            "the nonce of the requisition spec is none of those that the measurement spec lists".to_owned(),
        ));
    }
    // The Kingdom and everybody who reads its timeline see a refusal: it tells which entry, and never what stands in it.
    let unfulfillable = |message: String| Err(Refusal::new(Justification::Unfulfillable, message));
    let event_groups = match (&own.wanted, spec.kind.kind()) {
        (Wanted::Population { filter }, MeasurementKind::Population) if filter.is_empty() => return Ok(()),
        (Wanted::Population { .. }, MeasurementKind::Population) => {
            return unfulfillable(
                "requisition_spec.population has a filter, which this publisher does not evaluate".to_owned(),
            );
        }
        (Wanted::Events(event_groups), kind) if kind != MeasurementKind::Population => event_groups,
        (_, kind) => {
            let message = format!("requisition_spec: asks for something else than {kind}, which is measured");
            return Err(Refusal::new(Justification::SpecInvalid, message));
        }
    };
    for (entry, number) in event_groups.iter().zip(1..) {
        let path = format!("requisition_spec.event_groups: entry {number}");
        if entry.event_group.data_provider != publisher.data_provider {
            return Err(Refusal::new(
                Justification::SpecInvalid,
                format!("{path} is not of this publisher (the first is entry 1)"),
            ));
        }
        if !entry.filter.is_empty() {
            return unfulfillable(format!(
                "{path} has a filter, which this publisher does not evaluate (the first is entry 1)"
            ));
        }
    }
    Ok(())
}

/// The protocol computes what was asked for, it is one that is answered, and its noise is enough for this publisher.
pub(super) fn check_limits(spec: &MeasurementSpec, config: &ProtocolConfig, trust: &Trust) -> Result<(), Refusal> {
    config.check_fits(spec).map_err(Refusal::spec("protocol_config"))?;
    let kind = config.protocol.kind();
    if !trust.protocols.contains(&kind) {
        return declined(format!("protocol {kind} is none of those that this publisher answers (protocols)"));
    }
    let noisy = match &config.protocol {
        Protocol::Llv2(llv2) => llv2.noise.is_some(),
        Protocol::Rollv2(rollv2) => rollv2.noise.is_some(),
        Protocol::Hmss(hmss) => hmss.noise.is_some(),
        Protocol::Trustee(trustee) => match trustee.noise {
            TrusteeNoise::None => false,
            TrusteeNoise::DiscreteGaussian => true,
            TrusteeNoise::Deterministic if trust.allow_deterministic_noise => true,
            TrusteeNoise::Deterministic => {
                return declined(
                    "the noise follows from the data, which this publisher does not allow (allow_deterministic_noise)"
                        .to_owned(),
                );
            }
        },
        // The size of a population is public.
        Protocol::Direct(_) if spec.kind.kind() == MeasurementKind::Population => return Ok(()),
        Protocol::Direct(direct) => {
            counted_once(spec)?;
            direct_mechanism(direct, trust)?.is_some()
        }
    };
    if !noisy {
        return no_noise(trust);
    }
    let Some(most) = trust.maximum_result else { return Ok(()) };
    for (path, asked) in results(&spec.kind) {
        within(path, asked, most, "maximum_result")?;
    }
    Ok(())
}

/// Who asks several publishers how many people they reached together gets no publisher's own number: the Kingdom chooses
/// the protocol, the consumer signs how many publishers there are.
fn counted_once(spec: &MeasurementSpec) -> Result<(), Refusal> {
    let (kind, publishers) = (spec.kind.kind(), spec.nonce_hashes.len());
    if publishers > 1 && matches!(kind, MeasurementKind::Reach | MeasurementKind::ReachAndFrequency) {
        return Err(Refusal::spec("protocol_config: direct")(format!(
            "{kind} of {publishers} publishers (measurement_spec.nonce_hashes) counts everybody once, which no publisher \
             can do alone"
        )));
    }
    Ok(())
}

fn declined<T>(message: String) -> Result<T, Refusal> {
    Err(Refusal::new(Justification::Declined, message))
}

fn no_noise(trust: &Trust) -> Result<(), Refusal> {
    if trust.allow_no_noise {
        return Ok(());
    }
    declined("the measurement goes without noise, which this publisher does not allow (allow_no_noise)".to_owned())
}

/// ε and δ of everything that is published.
fn results(kind: &MeasurementType) -> Vec<(&'static str, PrivacyParams)> {
    match kind {
        MeasurementType::Reach { reach } => vec![("reach", *reach)],
        MeasurementType::ReachAndFrequency { reach, frequency, .. } => {
            vec![("reach", *reach), ("frequency", *frequency)]
        }
        MeasurementType::Impression { impression, .. } => vec![("impression", *impression)],
        MeasurementType::Duration { duration, .. } => vec![("duration", *duration)],
        MeasurementType::Population => Vec::new(),
    }
}

/// Noise that costs more than is allowed hides less than is wanted.
fn within(path: &str, asked: PrivacyParams, most: PrivacyParams, key: &str) -> Result<(), Refusal> {
    for (name, asked, most) in
        [("epsilon", asked.epsilon.get(), most.epsilon.get()), ("delta", asked.delta.get(), most.delta.get())]
    {
        if asked > most {
            return declined(format!("{path} has {name} {asked}; this publisher allows {most} ({key}_{name})"));
        }
    }
    Ok(())
}

/// The noise that hides a sketch's size; `None` where there is none at all.
pub(super) fn sketch_noise(noise: Option<&LiquidLegionsNoise>, trust: &Trust) -> Result<Option<ShiftedNoise>, Refusal> {
    let Some(noise) = noise else { return Ok(None) };
    within("data_provider_noise", noise.data_provider, trust.maximum_noise, "maximum")?;
    let calibrated = NoiseSpec::publisher(noise.mechanism, noise.calibration, noise.data_provider).calibrate();
    let refuse = |error| format!("protocol_config: data_provider_noise: {error}");
    calibrated.map(Some).map_err(|error| Refusal::new(Justification::Unfulfillable, refuse(error)))
}

/// The largest number of a cell that a trustee reads: the reference reads signed bytes.
const TRUSTEE_MAXIMUM_CELL: u32 = 127;

/// Where a trustee releases no result of few impressions, cells of a measurement of reach count impressions, up to this
/// many (protocols 4.1).
const TRUSTEE_REACH_IMPRESSIONS: u32 = 126;

/// What a trustee's vectors are over.
pub(super) fn trustee_vector(
    spec: &MeasurementSpec,
    trustee: &TrusteeConfig,
    trust: &Trust,
) -> Result<VectorTerms, Refusal> {
    let mut terms = vector(spec, trustee.population, trust)?;
    if trustee.thresholds.is_some() && !spec.kind.kind().counts_frequency() {
        terms.maximum_frequency =
            MaximumFrequency::new(TRUSTEE_REACH_IMPRESSIONS).map_err(Refusal::spec("trus_tee"))?;
    }
    if terms.maximum_frequency.get() > TRUSTEE_MAXIMUM_CELL {
        return Err(Refusal::spec("measurement_spec: maximum_frequency")(format!(
            "{} is above {TRUSTEE_MAXIMUM_CELL}, the most that a trustee reads",
            terms.maximum_frequency
        )));
    }
    Ok(terms)
}

/// What vectors are over, if it is the population of this publisher.
pub(super) fn vector(spec: &MeasurementSpec, population: Population, trust: &Trust) -> Result<VectorTerms, Refusal> {
    match trust.population {
        Some(own) if own != population => {
            declined(format!("vectors are over the population {population}; this publisher's is {own} (population)"))
        }
        None if population.size() > trust.maximum_population => declined(format!(
            "the population {population} has {} people; this publisher numbers at most {} (maximum_population)",
            population.size(),
            trust.maximum_population
        )),
        _ => Ok(VectorTerms {
            population,
            interval: spec.vid_sampling_interval,
            maximum_frequency: spec.kind.maximum_frequency(),
        }),
    }
}

/// How a vector is cut, if the sum of all publishers' vectors fits.
pub(super) fn sharing(spec: &MeasurementSpec, hmss: &HmssConfig) -> Result<Sharing, Refusal> {
    let path = "protocol_config: ring_modulus";
    let counts_frequency = spec.kind.kind().counts_frequency();
    let (modulus, encoding) = match hmss.variant {
        HmssVariant::Compatible { ring_modulus } => (ring_modulus, Encoding::Protobuf),
        HmssVariant::Native if counts_frequency => (256, Encoding::Bytes),
        HmssVariant::Native => (251, Encoding::Bytes),
    };
    let modulus = Modulus::new(modulus).map_err(Refusal::spec(path))?;
    let (frequency, publishers) = (spec.kind.maximum_frequency(), spec.nonce_hashes.len() as u64);
    let combined = u64::from(frequency.get()) * publishers;
    if u64::from(modulus.get()) <= combined + 1 {
        return Err(Refusal::spec(path)(format!(
            "{modulus} is too small: with maximum frequency {frequency} and {publishers} publishers a cell adds up to \
             {combined}, and the modulus must be above {}",
            combined + 1
        )));
    }
    if !counts_frequency && !modulus.is_prime() {
        return Err(Refusal::spec(path)(format!("{modulus} is no prime, which reach alone needs")));
    }
    Ok(Sharing { modulus, encoding })
}

/// The first noise of the list that this publisher allows.
fn direct_mechanism(direct: &DirectConfig, trust: &Trust) -> Result<Option<NoiseMechanism>, Refusal> {
    match direct.noise.iter().find(|noise| noise.is_some() || trust.allow_no_noise) {
        Some(noise) => Ok(*noise),
        None => no_noise(trust).map(|()| None),
    }
}

/// What a direct measurement counts, with the noise that is drawn.
pub(super) fn question(
    spec: &MeasurementSpec,
    direct: &DirectConfig,
    trust: &Trust,
) -> Result<(Question, Option<NoiseMechanism>), Refusal> {
    let unfulfillable = |message: String| Refusal::new(Justification::Unfulfillable, message);
    let mechanism = match spec.kind {
        MeasurementType::Population => None,
        _ => direct_mechanism(direct, trust)?,
    };
    let privacy = |params| mechanism.map(|mechanism| Privacy { mechanism, params });
    let ask = match spec.kind {
        MeasurementType::Reach { reach } => Ask::Reach { privacy: privacy(reach) },
        MeasurementType::ReachAndFrequency { reach, frequency, maximum_frequency } => {
            Ask::ReachAndFrequency { reach: privacy(reach), frequency: privacy(frequency), maximum_frequency }
        }
        MeasurementType::Impression { impression, maximum_frequency_per_user } => {
            Ask::Impression { privacy: privacy(impression), maximum_per_person: maximum_frequency_per_user }
        }
        MeasurementType::Duration { duration, maximum_seconds_per_user } => Ask::Duration {
            privacy: privacy(duration),
            maximum_seconds_per_person: u32::try_from(maximum_seconds_per_user).map_err(|_| {
                unfulfillable(format!(
                    "measurement_spec.duration: counts {maximum_seconds_per_user} seconds of a person; at most {} are \
                     counted here",
                    u32::MAX
                ))
            })?,
        },
        MeasurementType::Population => {
            let untold = || unfulfillable("this publisher tells no size of a population (population)".to_owned());
            return Ok((Question::Population(trust.population.ok_or_else(untold)?), None));
        }
    };
    ask.check().map_err(|error| unfulfillable(format!("measurement_spec: {error}")))?;
    Ok((Question::Audience(ask), mechanism))
}
