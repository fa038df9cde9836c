//! The lifecycle, step by step and by chance.

use std::time::Duration;

use halo_core::resource::{
    CertificateName, ComputationName, DataProviderName, ExternalId, MeasurementConsumerName, MeasurementName,
};
use proptest::prelude::*;

use super::*;
use crate::record::{Signed, Typed};

const START: Timestamp = Timestamp::from_unix_nanos(1_000_000_000);
const NONCES: [u64; 2] = [7, 8];

fn id(number: u64) -> ExternalId {
    ExternalId::new(number).unwrap()
}

fn duchy(name: &str) -> DuchyId {
    DuchyId::new(name).unwrap()
}

fn duchies() -> Vec<DuchyId> {
    ["aggregator", "worker1", "worker2"].map(duchy).to_vec()
}

fn certificate(name: &str) -> CertificateName {
    CertificateName::new(DuchyName::new(duchy(name)), id(100))
}

fn requisition(index: usize) -> RequisitionName {
    RequisitionName::new(id(10 + index as u64), id(20 + index as u64))
}

fn measurement() -> Measurement {
    let typed = |bytes: &[u8]| Typed { type_url: "t".into(), bytes: bytes.to_vec() };
    Measurement {
        name: MeasurementName::new(id(1), id(2)),
        computation: ComputationName::new(id(3)),
        reference_id: "reference".into(),
        consumer_certificate: CertificateName::new(MeasurementConsumerName::new(id(1)), id(4)),
        spec: Signed { message: typed(b"spec"), signature: vec![1], algorithm_oid: String::new() },
        protocol_config: b"config".to_vec(),
        aggregator: duchy("aggregator"),
        state: MeasurementState::PendingRequisitionParams,
        create_time: START,
        update_time: START,
        deadline: START + Duration::from_secs(100),
        requisitions: (0..2)
            .map(|index| Requisition {
                name: requisition(index),
                certificate: CertificateName::new(DataProviderName::new(id(10 + index as u64)), id(5)),
                public_key: typed(b"key"),
                encrypted_spec: typed(b"ciphertext"),
                nonce_hash: session::nonce_hash(NONCES[index]),
                state: RequisitionState::PendingParams,
                update_time: START,
                fulfilment: None,
                refusal: None,
            })
            .collect(),
        participants: duchies()
            .into_iter()
            .map(|duchy| Participant {
                duchy,
                state: ParticipantState::Created,
                update_time: START,
                parameters: None,
                failure: None,
            })
            .collect(),
        failure: None,
        result: None,
        revision: 0,
    }
}

fn parameters_set(name: &str) -> Event {
    let parameters = Parameters {
        certificate: certificate(name),
        public_key: name.as_bytes().to_vec(),
        signature: vec![2],
        algorithm_oid: String::new(),
    };
    Event::ParametersSet { duchy: duchy(name), parameters }
}

fn fulfilled(measurement: &Measurement, index: usize) -> Event {
    let name = requisition(index);
    let duchy = session::fulfilling_duchy(&name, &duchies()).unwrap().clone();
    let fulfilment = Fulfilment {
        duchy,
        nonce: NONCES[index],
        key_list_hash: measurement.key_list_hash().unwrap_or_default(),
        body_sha256: [9; 32],
        record_count: 5,
        context: None,
    };
    Event::Fulfilled { requisition: name, fulfilment }
}

fn confirmed(measurement: &Measurement, name: &str) -> Event {
    Event::Confirmed { duchy: duchy(name), key_list_hash: measurement.key_list_hash().unwrap_or_default() }
}

fn completed(name: &str) -> Event {
    let result = ComputationResult { certificate: certificate(name), public_key: vec![3], ciphertext: vec![4] };
    Event::Completed { duchy: duchy(name), result }
}

fn take(measurement: &mut Measurement, event: &Event) -> Transition {
    let transition = decide(measurement, event, START).unwrap().unwrap();
    apply(measurement, &transition, START);
    transition
}

fn with_keys() -> Measurement {
    let mut measurement = measurement();
    for name in ["worker2", "aggregator", "worker1"] {
        take(&mut measurement, &parameters_set(name));
    }
    measurement
}

fn fulfilled_measurement() -> Measurement {
    let mut measurement = with_keys();
    for index in 0..2 {
        let event = fulfilled(&measurement, index);
        take(&mut measurement, &event);
    }
    measurement
}

fn computing() -> Measurement {
    let mut measurement = fulfilled_measurement();
    for name in ["aggregator", "worker1", "worker2"] {
        let event = confirmed(&measurement, name);
        take(&mut measurement, &event);
    }
    measurement
}

#[test]
fn the_way_to_a_result() {
    let mut measurement = measurement();
    take(&mut measurement, &parameters_set("worker1"));
    take(&mut measurement, &parameters_set("worker2"));
    assert_eq!(measurement.state, MeasurementState::PendingRequisitionParams);
    assert_eq!(measurement.requisitions[0].state, RequisitionState::PendingParams);
    take(&mut measurement, &parameters_set("aggregator"));
    assert_eq!(measurement.state, MeasurementState::PendingRequisitionFulfillment);
    assert!(measurement.requisitions.iter().all(|part| part.state == RequisitionState::Unfulfilled));

    let measurement = fulfilled_measurement();
    assert_eq!(measurement.state, MeasurementState::PendingParticipantConfirmation);
    let mut measurement = computing();
    assert_eq!(measurement.state, MeasurementState::PendingComputation);
    take(&mut measurement, &completed("aggregator"));
    assert_eq!(measurement.state, MeasurementState::Succeeded);
    assert_eq!(measurement.revision, 9);
}

#[test]
fn repetitions_change_nothing_and_other_contents_are_refused() {
    let measurement = with_keys();
    assert!(decide(&measurement, &parameters_set("worker1"), START).unwrap().is_none());
    let Event::ParametersSet { duchy, mut parameters } = parameters_set("worker1") else { unreachable!() };
    parameters.public_key.push(0);
    let other = Event::ParametersSet { duchy, parameters };
    assert!(matches!(decide(&measurement, &other, START), Err(Error::AlreadyDifferent { .. })));

    let mut measurement = with_keys();
    let event = fulfilled(&measurement, 0);
    take(&mut measurement, &event);
    assert!(decide(&measurement, &event, START).unwrap().is_none());
    let Event::Fulfilled { requisition, mut fulfilment } = event else { unreachable!() };
    fulfilment.body_sha256 = [8; 32];
    let other = Event::Fulfilled { requisition, fulfilment };
    assert!(matches!(decide(&measurement, &other, START), Err(Error::AlreadyDifferent { .. })));

    let mut measurement = computing();
    take(&mut measurement, &completed("aggregator"));
    assert!(decide(&measurement, &completed("aggregator"), START).unwrap().is_none());
    let Event::Completed { duchy, mut result } = completed("aggregator") else { unreachable!() };
    result.ciphertext.push(0);
    let other = Event::Completed { duchy, result };
    assert!(matches!(decide(&measurement, &other, START), Err(Error::AlreadyDifferent { .. })));
}

#[test]
fn a_result_is_taken_from_the_aggregator_and_while_computing_only() {
    let mut measurement = computing();
    assert!(matches!(decide(&measurement, &completed("worker1"), START), Err(Error::NotAggregator { .. })));
    let Event::Completed { duchy, mut result } = completed("aggregator") else { unreachable!() };
    result.certificate = certificate("worker1");
    let borrowed = decide(&measurement, &Event::Completed { duchy, result }, START);
    assert!(matches!(borrowed, Err(Error::Certificate { .. })), "{borrowed:?}");
    take(&mut measurement, &Event::Cancelled);
    let late = decide(&measurement, &completed("aggregator"), START);
    assert!(matches!(late, Err(Error::MeasurementState { state: MeasurementState::Cancelled, .. })), "{late:?}");
    let early = decide(&fulfilled_measurement(), &completed("aggregator"), START);
    assert!(matches!(early, Err(Error::MeasurementState { .. })), "{early:?}");
}

#[test]
fn a_fulfilment_needs_the_nonce_and_the_duchy() {
    let measurement = with_keys();
    let Event::Fulfilled { requisition, fulfilment } = fulfilled(&measurement, 0) else { unreachable!() };
    let attempt = |fulfilment: Fulfilment| {
        decide(&measurement, &Event::Fulfilled { requisition: requisition.clone(), fulfilment }, START).unwrap_err()
    };
    assert!(matches!(attempt(Fulfilment { nonce: 9, ..fulfilment.clone() }), Error::Nonce { .. }));
    let other = duchies().into_iter().find(|duchy| *duchy != fulfilment.duchy).unwrap();
    assert!(matches!(attempt(Fulfilment { duchy: other, ..fulfilment.clone() }), Error::WrongDuchy { .. }));
    let stranger = Fulfilment { duchy: duchy("stranger"), ..fulfilment };
    assert!(matches!(attempt(stranger), Error::NotParticipant { .. }));
}

#[test]
fn another_list_of_keys_ends_the_measurement_and_names_the_duchy() {
    let mut measurement = fulfilled_measurement();
    let event = Event::Confirmed { duchy: duchy("worker2"), key_list_hash: [0; 32] };
    let transition = take(&mut measurement, &event);
    assert_eq!(transition.other_keys, Some(duchy("worker2")));
    assert_eq!(measurement.state, MeasurementState::Failed);
    assert_eq!(measurement.failure.unwrap().culprits, ["duchies/worker2"]);
}

#[test]
fn data_under_another_list_of_keys_ends_the_measurement_and_names_publisher_and_duchy() {
    let mut measurement = with_keys();
    let Event::Fulfilled { requisition: name, mut fulfilment } = fulfilled(&measurement, 0) else { unreachable!() };
    fulfilment.key_list_hash = [0; 32];
    let by = fulfilment.duchy.clone();
    let guessed =
        Event::Fulfilled { requisition: name.clone(), fulfilment: Fulfilment { nonce: 9, ..fulfilment.clone() } };
    assert!(matches!(decide(&measurement, &guessed, START), Err(Error::Nonce { .. })), "the nonce comes first");
    let transition = take(&mut measurement, &Event::Fulfilled { requisition: name.clone(), fulfilment });
    assert_eq!(transition.other_keys, Some(by.clone()));
    assert_eq!(measurement.state, MeasurementState::Failed);
    assert_eq!(measurement.failure.unwrap().culprits, [name.parent().to_string(), format!("duchies/{by}")]);
    assert!(measurement.requisitions.iter().all(|part| part.state == RequisitionState::Withdrawn));
}

#[test]
fn a_refusal_ends_the_measurement_and_withdraws_the_others() {
    let mut measurement = with_keys();
    let refusal = Refusal { justification: 5, message: "no".into() };
    let event = Event::Refused { requisition: requisition(1), refusal };
    take(&mut measurement, &event);
    assert_eq!(measurement.state, MeasurementState::Failed);
    assert_eq!(measurement.requisitions[0].state, RequisitionState::Withdrawn);
    assert_eq!(measurement.requisitions[1].state, RequisitionState::Refused);
    assert!(decide(&measurement, &event, START).unwrap().is_none());
}

/// The deadline, when the aggregator has finished one stage more than the others.
fn deadline_passed() -> Event {
    Event::DeadlinePassed {
        finished: BTreeMap::from([(duchy("aggregator"), 3), (duchy("worker1"), 2), (duchy("worker2"), 2)]),
    }
}

#[test]
fn without_any_report_every_duchy_may_have_held_the_computation_up() {
    let late = START + Duration::from_secs(100);
    let event = Event::DeadlinePassed { finished: BTreeMap::from([(duchy("worker1"), 1)]) };
    let failure = decide(&computing(), &event, late).unwrap().unwrap().failure.unwrap();
    assert_eq!(failure.culprits, ["duchies/aggregator", "duchies/worker2"]);
    assert!(failure.message.contains("the computation did not end"), "{}", failure.message);
    let event = Event::DeadlinePassed { finished: BTreeMap::new() };
    assert_eq!(decide(&computing(), &event, late).unwrap().unwrap().failure.unwrap().culprits.len(), 3);
}

#[test]
fn the_deadline_names_who_owes_what() {
    let late = START + Duration::from_secs(100);
    for (mut measurement, owing) in [
        (measurement(), vec!["duchies/aggregator", "duchies/worker1", "duchies/worker2"]),
        (fulfilled_measurement(), vec!["duchies/aggregator", "duchies/worker1", "duchies/worker2"]),
        (computing(), vec!["duchies/worker1", "duchies/worker2"]),
    ] {
        assert!(decide(&measurement, &deadline_passed(), START).unwrap().is_none());
        let transition = decide(&measurement, &deadline_passed(), late).unwrap().unwrap();
        apply(&mut measurement, &transition, late);
        assert_eq!(measurement.state, MeasurementState::Cancelled);
        assert_eq!(measurement.failure.unwrap().culprits, owing);
    }
    let mut waiting = with_keys();
    let event = fulfilled(&waiting, 1);
    take(&mut waiting, &event);
    let event = fulfilled(&waiting, 0);
    assert!(matches!(decide(&waiting, &event, late), Err(Error::DeadlinePassed { .. })));
    let transition = decide(&waiting, &deadline_passed(), late).unwrap().unwrap();
    assert_eq!(transition.failure.unwrap().culprits, [requisition(0).parent().to_string()]);
    assert_eq!(transition.requisitions.len(), 1, "what is fulfilled is not withdrawn");
}

#[test]
fn a_revoked_certificate_ends_only_what_relies_on_it() {
    let measurement = with_keys();
    let used = Event::CertificateRevoked { certificate: certificate("worker1") };
    assert_eq!(decide(&measurement, &used, START).unwrap().unwrap().state, Some(MeasurementState::Failed));
    let unused =
        Event::CertificateRevoked { certificate: CertificateName::new(DuchyName::new(duchy("worker1")), id(9)) };
    assert!(decide(&measurement, &unused, START).unwrap().is_none());
}

proptest! {
    /// Whatever happens, in whatever order: states only go forward, a measurement that has ended stays as it is,
    /// what was given once is never replaced, and a result is there exactly when the measurement succeeded.
    #[test]
    fn any_order_of_events_keeps_the_rules(choices in prop::collection::vec((0..16usize, any::<bool>()), 0..60)) {
        let names = ["aggregator", "worker1", "worker2"];
        let mut measurement = measurement();
        for (choice, late) in choices {
            let now = if late && choice == 12 { START + Duration::from_secs(200) } else { START };
            let event = match choice {
                0..=2 => parameters_set(names[choice]),
                3 | 4 => fulfilled(&measurement, choice - 3),
                5..=7 => confirmed(&measurement, names[choice - 5]),
                8 | 9 => completed(names[choice - 8]),
                10 if late => Event::Cancelled,
                11 if late => Event::ParticipantFailed {
                    duchy: duchy("worker1"),
                    failure: ParticipantFailure { message: "disk".into(), culprits: Vec::new() },
                },
                12 => deadline_passed(),
                _ => parameters_set(names[choice % 3]),
            };
            let before = measurement.clone();
            if let Ok(Some(transition)) = decide(&measurement, &event, now) {
                prop_assert!(!before.state.is_terminal());
                apply(&mut measurement, &transition, now);
                prop_assert!(measurement.state >= before.state);
                prop_assert!(!transition.timeline.is_empty());
                prop_assert!(decide(&measurement, &event, now).map_or(true, |again| again.is_none()), "not idempotent");
                for (new, old) in measurement.requisitions.iter().zip(&before.requisitions) {
                    prop_assert!(new.state >= old.state);
                    prop_assert!(old.fulfilment.is_none() || new.fulfilment == old.fulfilment);
                }
                for (new, old) in measurement.participants.iter().zip(&before.participants) {
                    prop_assert!(old.parameters.is_none() || new.parameters == old.parameters);
                }
            }
            prop_assert_eq!(measurement.result.is_some(), measurement.state == MeasurementState::Succeeded);
            prop_assert_eq!(
                measurement.failure.is_some(),
                matches!(measurement.state, MeasurementState::Failed | MeasurementState::Cancelled)
            );
        }
    }
}
