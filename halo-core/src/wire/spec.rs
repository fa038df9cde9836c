//! What a consumer asks for: of everybody, and of one publisher.

use prost::Message;

use super::{WireError, type_name, unpack};
use crate::measurement::{EventGroupEntry, MeasurementSpec, MeasurementType, RequisitionSpec, Wanted};
use crate::pb::api;
use crate::pb::api::measurement_spec::MeasurementType as WireType;
use crate::pb::api::requisition_spec::RequisitionType;
use crate::privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval};

pub(super) fn privacy(path: &str, params: Option<&api::DifferentialPrivacyParams>) -> Result<PrivacyParams, WireError> {
    let params = params.ok_or_else(|| WireError::new(path, "is missing"))?;
    PrivacyParams::new(params.epsilon, params.delta).map_err(|error| WireError::new(path, error))
}

fn at_least_one<T: TryFrom<i64>>(path: &str, value: i64) -> Result<T, WireError> {
    let number = if value >= 1 { T::try_from(value).ok() } else { None };
    number.ok_or_else(|| WireError::new(path, format!("{value} is not at least 1, or too large")))
}

/// Reads a serialized `MeasurementSpec`.
///
/// # Errors
/// If a field is missing or out of range; the error names it.
pub fn parse_measurement_spec(bytes: &[u8]) -> Result<MeasurementSpec, WireError> {
    let spec = api::MeasurementSpec::decode(bytes).map_err(|error| WireError::new("measurement_spec", error))?;
    let path = "measurement_spec.measurement_public_key";
    let key = unpack(path, spec.measurement_public_key.as_ref(), type_name::ENCRYPTION_PUBLIC_KEY)?;
    let path = "measurement_spec.vid_sampling_interval";
    let sampling = spec.vid_sampling_interval.as_ref().ok_or_else(|| WireError::new(path, "is missing"))?;
    let vid_sampling_interval =
        VidSamplingInterval::new(sampling.start, sampling.width).map_err(|error| WireError::new(path, error))?;
    let kind = match &spec.measurement_type {
        Some(WireType::Reach(asked)) => MeasurementType::Reach {
            reach: privacy("measurement_spec.reach.privacy_params", asked.privacy_params.as_ref())?,
        },
        Some(WireType::ReachAndFrequency(asked)) => {
            let path = |field: &str| format!("measurement_spec.reach_and_frequency.{field}");
            let frequency = u32::try_from(asked.maximum_frequency)
                .map_err(|error| WireError::new(path("maximum_frequency"), error))?;
            MeasurementType::ReachAndFrequency {
                reach: privacy(&path("reach_privacy_params"), asked.reach_privacy_params.as_ref())?,
                frequency: privacy(&path("frequency_privacy_params"), asked.frequency_privacy_params.as_ref())?,
                maximum_frequency: MaximumFrequency::new(frequency)
                    .map_err(|error| WireError::new(path("maximum_frequency"), error))?,
            }
        }
        Some(WireType::Impression(asked)) => {
            let path = "measurement_spec.impression.maximum_frequency_per_user";
            MeasurementType::Impression {
                impression: privacy("measurement_spec.impression.privacy_params", asked.privacy_params.as_ref())?,
                maximum_frequency_per_user: at_least_one(path, asked.maximum_frequency_per_user.into())?,
            }
        }
        Some(WireType::Duration(asked)) => {
            let path = "measurement_spec.duration.maximum_watch_duration_per_user";
            let most = asked.maximum_watch_duration_per_user.as_ref();
            let most = most.ok_or_else(|| WireError::new(path, "is missing"))?;
            if most.nanos != 0 {
                return Err(WireError::unsupported(path, "has a fraction; ask for whole seconds"));
            }
            MeasurementType::Duration {
                duration: privacy("measurement_spec.duration.privacy_params", asked.privacy_params.as_ref())?,
                maximum_seconds_per_user: at_least_one(path, most.seconds)?,
            }
        }
        Some(WireType::Population(_)) => MeasurementType::Population,
        None => return Err(WireError::new("measurement_spec.measurement_type", "is missing")),
    };
    let hash = |hash: &Vec<u8>| {
        hash.as_slice().try_into().map_err(|_| {
            WireError::new("measurement_spec.nonce_hashes", format!("one has {} bytes; a SHA-256 has 32", hash.len()))
        })
    };
    Ok(MeasurementSpec {
        kind,
        vid_sampling_interval,
        nonce_hashes: spec.nonce_hashes.iter().map(hash).collect::<Result<_, _>>()?,
        measurement_public_key: key.to_vec(),
    })
}

/// Reads a serialized `RequisitionSpec`.
///
/// # Errors
/// If a field is missing or is not what it must be; the error names it, and never contains the nonce.
pub fn parse_requisition_spec(bytes: &[u8]) -> Result<RequisitionSpec, WireError> {
    let spec = api::RequisitionSpec::decode(bytes).map_err(|error| WireError::new("requisition_spec", error))?;
    let path = "requisition_spec.measurement_public_key";
    let key = unpack(path, spec.measurement_public_key.as_ref(), type_name::ENCRYPTION_PUBLIC_KEY)?;
    if spec.nonce == 0 {
        return Err(WireError::new("requisition_spec.nonce", "is missing"));
    }
    let entry = |entry: &api::requisition_spec::EventGroupEntry| {
        let path = "requisition_spec.event_groups";
        let filter = entry.value.as_ref().and_then(|value| value.filter.as_ref());
        Ok(EventGroupEntry {
            event_group: entry.key.parse().map_err(|error: crate::Error| WireError::new(path, error))?,
            filter: filter.map(|filter| filter.expression.clone()).unwrap_or_default(),
        })
    };
    let wanted = match &spec.requisition_type {
        Some(RequisitionType::Events(events)) => {
            Wanted::Events(events.event_groups.iter().map(entry).collect::<Result<_, WireError>>()?)
        }
        Some(RequisitionType::Population(population)) => Wanted::Population {
            filter: population.filter.as_ref().map(|filter| filter.expression.clone()).unwrap_or_default(),
        },
        None => return Err(WireError::new("requisition_spec.requisition_type", "is missing")),
    };
    Ok(RequisitionSpec { measurement_public_key: key.to_vec(), nonce: spec.nonce, wanted })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::{WireErrorKind, pack};

    fn measurement_spec() -> api::MeasurementSpec {
        let params = |epsilon| Some(api::DifferentialPrivacyParams { epsilon, delta: 1e-9 });
        api::MeasurementSpec {
            measurement_public_key: Some(pack(type_name::ENCRYPTION_PUBLIC_KEY, vec![1, 2])),
            nonce_hashes: vec![vec![7; 32]],
            vid_sampling_interval: Some(api::measurement_spec::VidSamplingInterval { start: 0.25, width: 0.5 }),
            measurement_type: Some(WireType::ReachAndFrequency(api::measurement_spec::ReachAndFrequency {
                reach_privacy_params: params(1.0),
                frequency_privacy_params: params(2.0),
                maximum_frequency: 10,
            })),
            ..Default::default()
        }
    }

    fn changed(change: impl FnOnce(&mut api::MeasurementSpec)) -> Result<MeasurementSpec, WireError> {
        let mut spec = measurement_spec();
        change(&mut spec);
        parse_measurement_spec(&spec.encode_to_vec())
    }

    fn frequency(spec: &mut api::MeasurementSpec) -> &mut api::measurement_spec::ReachAndFrequency {
        match &mut spec.measurement_type {
            Some(WireType::ReachAndFrequency(asked)) => asked,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_field_of_a_measurement_spec_is_read() {
        let spec = changed(|_| ()).unwrap();
        assert_eq!(spec.measurement_public_key, [1, 2]);
        assert_eq!(spec.nonce_hashes, [[7; 32]]);
        assert_eq!((spec.vid_sampling_interval.start(), spec.vid_sampling_interval.width()), (0.25, 0.5));
        assert_eq!(spec.kind.maximum_frequency().get(), 10);
        let MeasurementType::ReachAndFrequency { reach, frequency, .. } = spec.kind else { panic!("{spec:?}") };
        assert_eq!((reach.epsilon.get(), frequency.epsilon.get()), (1.0, 2.0));
    }

    #[test]
    fn every_rule_of_a_measurement_spec_is_named() {
        for (outcome, expected) in [
            (changed(|spec| spec.measurement_public_key = None), "measurement_public_key: is missing"),
            (changed(|spec| spec.vid_sampling_interval = None), "vid_sampling_interval: is missing"),
            (changed(|spec| spec.vid_sampling_interval.as_mut().unwrap().width = 2.0), "width of the VID sampling"),
            (changed(|spec| spec.nonce_hashes[0].truncate(31)), "one has 31 bytes"),
            (changed(|spec| spec.measurement_type = None), "measurement_type: is missing"),
            (changed(|spec| frequency(spec).maximum_frequency = -1), "maximum_frequency"),
            (changed(|spec| frequency(spec).maximum_frequency = 256), "between 1 and 255"),
            (changed(|spec| frequency(spec).reach_privacy_params = None), "reach_privacy_params: is missing"),
            (changed(|spec| frequency(spec).frequency_privacy_params.as_mut().unwrap().epsilon = 0.0), "epsilon"),
        ] {
            let error = outcome.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    fn requisition_spec() -> api::RequisitionSpec {
        let entry = api::requisition_spec::EventGroupEntry {
            key: "dataProviders/AAAAAAAAAAE/eventGroups/AAAAAAAAAAI".to_owned(),
            value: Some(api::requisition_spec::event_group_entry::Value {
                filter: Some(api::requisition_spec::EventFilter { expression: "age > 17".to_owned() }),
                ..Default::default()
            }),
        };
        api::RequisitionSpec {
            measurement_public_key: Some(pack(type_name::ENCRYPTION_PUBLIC_KEY, vec![1])),
            nonce: 0x1234_5678_9abc,
            requisition_type: Some(RequisitionType::Events(api::requisition_spec::Events {
                event_groups: vec![entry],
            })),
            ..Default::default()
        }
    }

    #[test]
    fn a_requisition_spec_is_read_and_keeps_its_nonce_to_itself() {
        let spec = parse_requisition_spec(&requisition_spec().encode_to_vec()).unwrap();
        assert_eq!(spec.nonce, 0x1234_5678_9abc);
        let Wanted::Events(event_groups) = &spec.wanted else { panic!("{spec:?}") };
        assert_eq!(event_groups[0].filter, "age > 17");
        assert!(!format!("{spec:?}").contains(&0x1234_5678_9abc_u64.to_string()), "{spec:?}");
    }

    #[test]
    fn every_rule_of_a_requisition_spec_is_named() {
        let changed = |change: &dyn Fn(&mut api::RequisitionSpec)| {
            let mut spec = requisition_spec();
            change(&mut spec);
            parse_requisition_spec(&spec.encode_to_vec()).unwrap_err()
        };
        for (error, expected) in [
            (changed(&|spec| spec.nonce = 0), "nonce: is missing"),
            (changed(&|spec| spec.measurement_public_key = None), "measurement_public_key: is missing"),
            (changed(&|spec| spec.requisition_type = None), "requisition_type: is missing"),
            (
                changed(&|spec| match &mut spec.requisition_type {
                    Some(RequisitionType::Events(events)) => events.event_groups[0].key.push('/'),
                    other => panic!("{other:?}"),
                }),
                "event_groups",
            ),
        ] {
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.kind, WireErrorKind::Malformed, "{error}");
        }
    }

    #[test]
    fn a_population_is_asked_for_without_events() {
        let mut spec = requisition_spec();
        spec.requisition_type = Some(RequisitionType::Population(Default::default()));
        let spec = parse_requisition_spec(&spec.encode_to_vec()).unwrap();
        assert_eq!(spec.wanted, Wanted::Population { filter: String::new() });
    }

    #[test]
    fn impressions_and_durations_have_limits() {
        let params = Some(api::DifferentialPrivacyParams { epsilon: 1.0, delta: 1e-9 });
        let impression = |most| {
            changed(|spec| {
                spec.measurement_type = Some(WireType::Impression(api::measurement_spec::Impression {
                    privacy_params: params,
                    maximum_frequency_per_user: most,
                }));
            })
        };
        let kind = impression(60).unwrap().kind;
        assert!(matches!(kind, MeasurementType::Impression { maximum_frequency_per_user: 60, .. }), "{kind:?}");
        assert!(impression(0).unwrap_err().to_string().contains("not at least 1"));
        let duration = |most: Option<prost_types::Duration>| {
            changed(|spec| {
                spec.measurement_type = Some(WireType::Duration(api::measurement_spec::Duration {
                    privacy_params: params,
                    maximum_watch_duration_per_user: most,
                    ..Default::default()
                }));
            })
        };
        let kind = duration(Some(prost_types::Duration { seconds: 1800, nanos: 0 })).unwrap().kind;
        assert!(matches!(kind, MeasurementType::Duration { maximum_seconds_per_user: 1800, .. }), "{kind:?}");
        assert!(duration(None).unwrap_err().to_string().contains("is missing"));
        let half = duration(Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 })).unwrap_err();
        assert!(half.to_string().contains("whole seconds"), "{half}");
        assert!(duration(Some(prost_types::Duration { seconds: -1, nanos: 0 })).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_measurement_spec(&bytes);
            let _ = parse_requisition_spec(&bytes);
            let _ = crate::wire::parse_protocol_config(&bytes);
            let _ = crate::wire::parse_el_gamal_public_key(&bytes);
        }
    }
}
