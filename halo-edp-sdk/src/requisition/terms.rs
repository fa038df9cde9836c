//! What is asked for, and how it is computed: the specifications and the protocol configuration, rule by rule.

use halo_core::{
    pb::api::{
        DifferentialPrivacyParams, MeasurementSpec, ProtocolConfig, RequisitionSpec,
        measurement_spec::MeasurementType,
        protocol_config::{self, LiquidLegionsV2, NoiseCalibration, NoiseMechanism, protocol::Protocol},
        requisition_spec::RequisitionType,
    },
    privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval},
    resource::{DataProviderName, DuchyId, EventGroupName},
    session,
};
use halo_sketch::{
    liquid_legions::Params,
    noise::{Calibration, Mechanism, NoiseSpec, ShiftedNoise},
};

use super::{Justification, Refusal};

/// Number of the curve Ristretto255 in `elliptic_curve_id`.
pub(super) const RISTRETTO255: i32 = 1087;

/// What both sides agree on.
pub(super) struct Terms {
    pub(super) params: Params,
    pub(super) interval: VidSamplingInterval,
    pub(super) maximum_frequency: MaximumFrequency,
    pub(super) noise: Option<ShiftedNoise>,
    pub(super) aggregator: DuchyId,
}

/// The two specifications belong together, and the events are this publisher's. Returns the nonce.
pub(super) fn check_agreement(
    spec: &MeasurementSpec,
    own: &RequisitionSpec,
    publisher: &DataProviderName,
) -> Result<u64, Refusal> {
    if spec.measurement_public_key.is_none() || spec.measurement_public_key != own.measurement_public_key {
        return Err(Refusal::new(
            Justification::ConsentSignalInvalid,
            "measurement spec and requisition spec name different measurement public keys".to_owned(),
        ));
    }
    if own.nonce == 0 {
        return Err(Refusal::spec("requisition spec: nonce")("is missing"));
    }
    let nonce_hash = session::nonce_hash(own.nonce);
    if !spec.nonce_hashes.iter().any(|hash| *hash == nonce_hash) {
        return Err(Refusal::new(
            Justification::ConsentSignalInvalid,
            "the nonce of the requisition spec is none of those that the measurement spec lists".to_owned(),
        ));
    }
    let Some(RequisitionType::Events(events)) = &own.requisition_type else {
        return Err(Refusal::spec("requisition spec")("does not ask for events"));
    };
    for entry in &events.event_groups {
        let path = "requisition spec: event_groups";
        let group: EventGroupName = entry.key.parse().map_err(Refusal::spec(path))?;
        if group.data_provider != publisher.data_provider {
            return Err(Refusal::spec(path)(format!("{group} is none of {publisher}")));
        }
        let filter = entry.value.as_ref().and_then(|value| value.filter.as_ref());
        if let Some(filter) = filter.filter(|filter| !filter.expression.is_empty()) {
            return Err(Refusal::new(
                Justification::Unfulfillable,
                format!("{path}: filters are not evaluated by this publisher: {:?}", filter.expression),
            ));
        }
    }
    Ok(own.nonce)
}

/// Sketch, sampling and noise, as far as they concern a publisher.
pub(super) fn agree(spec: &MeasurementSpec, config: &ProtocolConfig, allow_no_noise: bool) -> Result<Terms, Refusal> {
    let llv2 = llv2(config)?;
    let sampling = spec
        .vid_sampling_interval
        .as_ref()
        .ok_or_else(|| Refusal::spec("measurement_spec: vid_sampling_interval")("is missing"))?;
    let interval = VidSamplingInterval::new(sampling.start, sampling.width)
        .and_then(VidSamplingInterval::without_wrapping)
        .map_err(Refusal::spec("measurement_spec"))?;
    Ok(Terms {
        params: sketch_params(llv2)?,
        interval,
        maximum_frequency: maximum_frequency(spec, config)?,
        noise: noise(llv2, allow_no_noise)?,
        aggregator: llv2.aggregator.parse().map_err(Refusal::spec("protocol_config: aggregator"))?,
    })
}

/// The parameters of Liquid Legions v2, which must be the one protocol.
fn llv2(config: &ProtocolConfig) -> Result<&LiquidLegionsV2, Refusal> {
    let [protocol] = config.protocols.as_slice() else {
        let found = config.protocols.len();
        return Err(Refusal::spec("protocol_config")(format!("has {found} protocols instead of one")));
    };
    let Some(Protocol::LiquidLegionsV2(llv2)) = &protocol.protocol else {
        return Err(Refusal::new(
            Justification::Unfulfillable,
            "protocol_config: this publisher speaks Liquid Legions v2 only".to_owned(),
        ));
    };
    if llv2.elliptic_curve_id != RISTRETTO255 {
        return Err(Refusal::new(
            Justification::Unfulfillable,
            format!("protocol_config: elliptic curve {} is not {RISTRETTO255} (Ristretto255)", llv2.elliptic_curve_id),
        ));
    }
    Ok(llv2)
}

fn sketch_params(llv2: &LiquidLegionsV2) -> Result<Params, Refusal> {
    let refuse = Refusal::spec("protocol_config: sketch_params");
    let params = llv2.sketch_params.as_ref().ok_or_else(|| refuse("is missing".to_owned()))?;
    let number = |value: i64| u64::try_from(value).map_err(|_| refuse(format!("{value} is negative")));
    let (size, keys) = (number(params.max_size)?, number(params.sampling_indicator_size)?);
    Params::new(params.decay_rate, size, keys).map_err(|error| refuse(error.to_string()))
}

/// F, which the kind of measurement determines; both messages must speak of the same kind.
fn maximum_frequency(spec: &MeasurementSpec, config: &ProtocolConfig) -> Result<MaximumFrequency, Refusal> {
    let refuse = Refusal::spec("measurement_spec");
    let (kind, frequency) = match &spec.measurement_type {
        Some(MeasurementType::Reach(_)) => (protocol_config::MeasurementType::Reach, MaximumFrequency::REACH_ONLY),
        Some(MeasurementType::ReachAndFrequency(asked)) => {
            let frequency = u32::try_from(asked.maximum_frequency)
                .map_err(|_| refuse(format!("maximum_frequency {} is negative", asked.maximum_frequency)))?;
            let frequency = MaximumFrequency::new(frequency).map_err(|error| refuse(error.to_string()))?;
            (protocol_config::MeasurementType::ReachAndFrequency, frequency)
        }
        _ => return Err(refuse("asks neither for reach nor for reach and frequency".to_owned())),
    };
    if config.measurement_type() != kind {
        let found = config.measurement_type().as_str_name();
        return Err(refuse(format!("asks for {}, protocol_config is for {found}", kind.as_str_name())));
    }
    Ok(frequency)
}

/// The noise that hides the sketch's size; `None` where there is none at all, if that is allowed.
fn noise(llv2: &LiquidLegionsV2, allow_no_noise: bool) -> Result<Option<ShiftedNoise>, Refusal> {
    let mechanism = match llv2.noise_mechanism() {
        NoiseMechanism::DiscreteGaussian | NoiseMechanism::Unspecified => Mechanism::DiscreteGaussian,
        NoiseMechanism::Geometric => Mechanism::Geometric,
        NoiseMechanism::None if allow_no_noise => return Ok(None),
        NoiseMechanism::None => {
            return Err(Refusal::new(
                Justification::Declined,
                "the measurement goes without noise, which this publisher does not allow (allow_no_noise)".to_owned(),
            ));
        }
        other => {
            return Err(Refusal::new(
                Justification::Unfulfillable,
                format!("protocol_config: {} is no noise of this protocol", other.as_str_name()),
            ));
        }
    };
    let calibration = match llv2.noise_calibration() {
        NoiseCalibration::Exact | NoiseCalibration::Unspecified => Calibration::Exact,
        NoiseCalibration::Reference => Calibration::Reference,
    };
    let params = privacy_params("protocol_config: data_provider_noise", llv2.data_provider_noise.as_ref())?;
    let noise = NoiseSpec::publisher(mechanism, calibration, params).calibrate().map_err(|error| {
        Refusal::new(Justification::Unfulfillable, format!("protocol_config: data_provider_noise: {error}"))
    })?;
    Ok(Some(noise))
}

fn privacy_params(path: &str, params: Option<&DifferentialPrivacyParams>) -> Result<PrivacyParams, Refusal> {
    let params = params.ok_or_else(|| Refusal::spec(path)("is missing"))?;
    PrivacyParams::new(params.epsilon, params.delta)
        .and_then(PrivacyParams::for_protocol_noise)
        .map_err(Refusal::spec(path))
}
