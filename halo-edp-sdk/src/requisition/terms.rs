//! What is asked for, and how it is computed, as far as it concerns a publisher.

use halo_core::{
    measurement::{Llv2Config, MeasurementSpec, Protocol, ProtocolConfig, RequisitionSpec, Wanted},
    privacy::{MaximumFrequency, VidSamplingInterval},
    resource::{DataProviderName, DuchyId},
    session,
};
use halo_sketch::{
    liquid_legions::Params,
    noise::{NoiseSpec, ShiftedNoise},
};

use super::{Justification, Refusal, Trust};

/// What both sides agree on.
pub(super) struct Terms {
    pub(super) params: Params,
    pub(super) interval: VidSamplingInterval,
    pub(super) maximum_frequency: MaximumFrequency,
    pub(super) noise: Option<ShiftedNoise>,
    pub(super) aggregator: DuchyId,
}

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
    let Wanted::Events(event_groups) = &own.wanted else {
        return Err(Refusal::new(
            Justification::Unfulfillable,
            "requisition_spec: asks for the size of a population, which this publisher does not tell".to_owned(),
        ));
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
            return Err(Refusal::new(
                Justification::Unfulfillable,
                format!("{path} has a filter, which this publisher does not evaluate (the first is entry 1)"),
            ));
        }
    }
    Ok(())
}

/// Sketch, sampling and noise.
pub(super) fn agree(spec: &MeasurementSpec, config: &ProtocolConfig, trust: &Trust) -> Result<Terms, Refusal> {
    config.check_fits(spec).map_err(Refusal::spec("protocol_config"))?;
    let Protocol::Llv2(llv2) = &config.protocol else {
        return Err(Refusal::new(
            Justification::Unfulfillable,
            format!("protocol_config: protocol {} is not spoken by this publisher", config.protocol.kind()),
        ));
    };
    let params = Params::new(llv2.decay_rate, llv2.max_size, llv2.sampling_indicator_size);
    Ok(Terms {
        params: params.map_err(Refusal::spec("protocol_config: sketch_params"))?,
        interval: spec.vid_sampling_interval.without_wrapping().map_err(Refusal::spec("measurement_spec"))?,
        maximum_frequency: spec.kind.maximum_frequency(),
        noise: noise(llv2, trust)?,
        aggregator: llv2.aggregator.clone(),
    })
}

/// The noise that hides the sketch's size; `None` where there is none at all, if that is allowed.
fn noise(llv2: &Llv2Config, trust: &Trust) -> Result<Option<ShiftedNoise>, Refusal> {
    let Some(noise) = &llv2.noise else {
        if trust.allow_no_noise {
            return Ok(None);
        }
        return Err(Refusal::new(
            Justification::Declined,
            "the measurement goes without noise, which this publisher does not allow (allow_no_noise)".to_owned(),
        ));
    };
    let (asked, most) = (noise.data_provider, trust.maximum_noise);
    for (name, asked, most) in
        [("epsilon", asked.epsilon.get(), most.epsilon.get()), ("delta", asked.delta.get(), most.delta.get())]
    {
        if asked > most {
            return Err(Refusal::new(
                Justification::Declined,
                format!("data_provider_noise has {name} {asked}; this publisher allows {most} (maximum_{name})"),
            ));
        }
    }
    let calibrated = NoiseSpec::publisher(noise.mechanism, noise.calibration, noise.data_provider).calibrate();
    let refuse = |error| format!("protocol_config: data_provider_noise: {error}");
    calibrated.map(Some).map_err(|error| Refusal::new(Justification::Unfulfillable, refuse(error)))
}
