//! The lifecycle, step by step and by chance.

use std::time::Duration;

use halo_core::{
    measurement::{DirectConfig, HmssConfig, HmssVariant, Llv2Config, Population, ProtocolKind},
    resource::{
        CertificateName, CertificateParent, ComputationName, DataProviderName, ExternalId, MeasurementConsumerName,
        MeasurementName,
    },
};
use proptest::prelude::*;

use super::*;
use crate::record::{DirectResult, Signed, Typed, Upload};

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
        protocol: llv2(),
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

fn llv2() -> Protocol {
    Protocol::Llv2(Llv2Config {
        aggregator: duchy("aggregator"),
        decay_rate: 12.0,
        max_size: 1000,
        sampling_indicator_size: 1000,
        noise: None,
    })
}

fn parameters_set(name: &str) -> Event {
    let parameters = Parameters {
        certificate: certificate(name),
        public_key: name.as_bytes().to_vec(),
        signature: vec![2],
        algorithm_oid: String::new(),
        attestation: Vec::new(),
    };
    Event::ParametersSet { duchy: duchy(name), parameters }
}

fn fulfilled(measurement: &Measurement, index: usize) -> Event {
    let name = requisition(index);
    let upload = Upload {
        duchy: measurement.fulfilling_duchy(&name).unwrap(),
        key_list_hash: measurement.upload_key_list_hash(&name).unwrap_or_default(),
        body_sha256: [9; 32],
        record_count: 5,
    };
    let fulfilment = Fulfilment { nonce: NONCES[index], delivery: Delivery::Upload(upload), context: None };
    Event::Fulfilled { requisition: name, fulfilment }
}

/// The same event with another upload.
fn with_upload(event: &Event, change: impl FnOnce(&mut Upload)) -> Event {
    match event.clone() {
        Event::Fulfilled {
            requisition,
            fulfilment: Fulfilment { nonce, delivery: Delivery::Upload(mut upload), context },
        } => {
            change(&mut upload);
            Event::Fulfilled {
                requisition,
                fulfilment: Fulfilment { nonce, delivery: Delivery::Upload(upload), context },
            }
        }
        other => panic!("{other:?}"),
    }
}

/// The same event with another nonce.
fn with_nonce(event: &Event, nonce: u64) -> Event {
    match event.clone() {
        Event::Fulfilled { requisition, fulfilment } => {
            Event::Fulfilled { requisition, fulfilment: Fulfilment { nonce, ..fulfilment } }
        }
        other => panic!("{other:?}"),
    }
}

/// The Duchy that holds the data of a fulfilment.
fn holder(event: &Event) -> DuchyId {
    match event {
        Event::Fulfilled { fulfilment, .. } => fulfilment.upload().unwrap().duchy.clone(),
        other => panic!("{other:?}"),
    }
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
    let other = with_upload(&event, |upload| upload.body_sha256 = [8; 32]);
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
    let event = fulfilled(&measurement, 0);
    let attempt = |event: Event| decide(&measurement, &event, START).unwrap_err();
    assert!(matches!(attempt(with_nonce(&event, 9)), Error::Nonce { .. }));
    let other = duchies().into_iter().find(|duchy| *duchy != holder(&event)).unwrap();
    assert!(matches!(attempt(with_upload(&event, |upload| upload.duchy = other)), Error::WrongDuchy { .. }));
    let stranger = with_upload(&event, |upload| upload.duchy = duchy("stranger"));
    assert!(matches!(attempt(stranger), Error::NotParticipant { .. }));
    let own = own_result(0, requisition(0).parent().into());
    assert!(matches!(attempt(own), Error::NotDirect { protocol: ProtocolKind::Llv2, .. }));
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
    let name = requisition(0);
    let event = with_upload(&fulfilled(&measurement, 0), |upload| upload.key_list_hash = [0; 32]);
    let by = holder(&event);
    let guessed = with_nonce(&event, 9);
    assert!(matches!(decide(&measurement, &guessed, START), Err(Error::Nonce { .. })), "the nonce comes first");
    let transition = take(&mut measurement, &event);
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

/// A measurement that every publisher computes by itself.
fn direct() -> Measurement {
    let mut measurement = measurement();
    measurement.protocol = Protocol::Direct(DirectConfig { noise: vec![None] });
    measurement.state = MeasurementState::PendingRequisitionFulfillment;
    measurement.participants.clear();
    measurement.requisitions.iter_mut().for_each(|part| part.state = RequisitionState::Unfulfilled);
    measurement
}

/// A publisher's own result, with a certificate of this party.
fn own_result(index: usize, owner: CertificateParent) -> Event {
    let result = DirectResult { certificate: CertificateName::new(owner, id(30)), ciphertext: vec![index as u8] };
    let fulfilment = Fulfilment { nonce: NONCES[index], delivery: Delivery::Result(result), context: None };
    Event::Fulfilled { requisition: requisition(index), fulfilment }
}

fn own(index: usize) -> Event {
    own_result(index, requisition(index).parent().into())
}

#[test]
fn publishers_results_end_a_direct_measurement() {
    let mut measurement = direct();
    let borrowed = own_result(0, requisition(1).parent().into());
    assert!(matches!(decide(&measurement, &borrowed, START), Err(Error::Certificate { .. })));
    assert!(matches!(decide(&measurement, &with_nonce(&own(0), NONCES[1]), START), Err(Error::Nonce { .. })));
    let upload = Upload { duchy: duchy("worker1"), key_list_hash: [0; 32], body_sha256: [0; 32], record_count: 1 };
    let fulfilment = Fulfilment { nonce: NONCES[0], delivery: Delivery::Upload(upload), context: None };
    let uploaded = Event::Fulfilled { requisition: requisition(0), fulfilment };
    assert!(matches!(decide(&measurement, &uploaded, START), Err(Error::NotParticipant { .. })));
    take(&mut measurement, &own(0));
    assert!(decide(&measurement, &own(0), START).unwrap().is_none(), "a repetition changes nothing");
    let mut other = own(0);
    if let Event::Fulfilled { fulfilment: Fulfilment { delivery: Delivery::Result(result), .. }, .. } = &mut other {
        result.ciphertext.push(0);
    }
    assert!(matches!(decide(&measurement, &other, START), Err(Error::AlreadyDifferent { .. })));
    assert_eq!(measurement.state, MeasurementState::PendingRequisitionFulfillment);
    take(&mut measurement, &own(1));
    assert_eq!(measurement.state, MeasurementState::Succeeded);
    assert!(decide(&measurement, &own(1), START).unwrap().is_none());
}

#[test]
fn a_direct_measurement_ends_as_others_do() {
    let late = START + Duration::from_secs(100);
    let mut waiting = direct();
    take(&mut waiting, &own(1));
    assert!(matches!(decide(&waiting, &own(0), late), Err(Error::DeadlinePassed { .. })));
    let owed = decide(&waiting, &deadline_passed(), late).unwrap().unwrap();
    assert_eq!(owed.failure.unwrap().culprits, [requisition(0).parent().to_string()]);
    let refusal = Refusal { justification: 5, message: "no".into() };
    let refused = Event::Refused { requisition: requisition(0), refusal };
    assert_eq!(decide(&waiting, &refused, START).unwrap().unwrap().state, Some(MeasurementState::Failed));
    let mut cancelled = direct();
    take(&mut cancelled, &Event::Cancelled);
    assert!(matches!(decide(&cancelled, &own(0), START), Err(Error::RequisitionState { .. })));
    // The certificate of a result that is there, of a requisition that is open, and of nothing.
    let revoked = |publisher: usize, number| {
        let certificate = CertificateName::new(requisition(publisher).parent(), id(number));
        decide(&waiting, &Event::CertificateRevoked { certificate }, START).unwrap()
    };
    assert!(revoked(1, 30).is_some() && revoked(0, 5).is_some());
    assert!(revoked(1, 5).is_none() && revoked(0, 30).is_none());
}

/// A share shuffle with all keys; the aggregator's is empty.
fn shuffled() -> Measurement {
    let mut measurement = measurement();
    measurement.protocol = Protocol::Hmss(HmssConfig {
        variant: HmssVariant::Native,
        noise: None,
        first_worker: duchy("worker1"),
        second_worker: duchy("worker2"),
        aggregator: duchy("aggregator"),
        population: Population::new(1, 9).unwrap(),
    });
    for name in ["worker1", "aggregator", "worker2"] {
        let mut event = parameters_set(name);
        if let Event::ParametersSet { duchy, parameters } = &mut event
            && duchy.as_str() == "aggregator"
        {
            parameters.public_key.clear();
        }
        take(&mut measurement, &event);
    }
    measurement
}

#[test]
fn a_share_goes_to_one_worker_under_the_key_of_the_other() {
    let mut measurement = shuffled();
    for index in 0..2 {
        let event = fulfilled(&measurement, index);
        let (taker, other) =
            if holder(&event).as_str() == "worker1" { ("worker1", "worker2") } else { ("worker2", "worker1") };
        assert_eq!(holder(&event), duchy(taker), "never the aggregator");
        let expected = session::key_list_hash(&[(duchy(other), other.as_bytes())]);
        assert_eq!(measurement.upload_key_list_hash(&requisition(index)), Some(expected));
        let misplaced = with_upload(&event, |upload| upload.duchy = duchy("aggregator"));
        assert!(matches!(decide(&measurement, &misplaced, START), Err(Error::WrongDuchy { .. })));
        let all = measurement.key_list_hash().unwrap();
        let under_all = with_upload(&event, |upload| upload.key_list_hash = all);
        let transition = decide(&measurement, &under_all, START).unwrap().unwrap();
        assert_eq!(transition.other_keys, Some(duchy(taker)));
        take(&mut measurement, &event);
    }
    // The seeds are signed with the publishers' certificates, and verified while the workers compute.
    let used = Event::CertificateRevoked { certificate: CertificateName::new(requisition(0).parent(), id(5)) };
    assert_eq!(decide(&measurement, &used, START).unwrap().unwrap().state, Some(MeasurementState::Failed));
    for name in ["aggregator", "worker1", "worker2"] {
        let event = confirmed(&measurement, name);
        take(&mut measurement, &event);
    }
    assert!(matches!(decide(&measurement, &completed("worker1"), START), Err(Error::NotAggregator { .. })));
    take(&mut measurement, &completed("aggregator"));
    assert_eq!(measurement.state, MeasurementState::Succeeded);
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
