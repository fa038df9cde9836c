//! A step takes exactly the inputs that it waits for, and a state goes on only where it came from.

use crate::setup::{Keys, duchy, duchy_id, keys, parameters, requisition};
use halo_crypto::secret::Secret;
use halo_duchy::protocol::llv2::Duchy;
use halo_duchy::protocol::{Body, Description, MemoryWorkspace, Received, Slot, State, Step};

fn wait(step: Step) -> (State, Vec<(Description, Body)>, Vec<Slot>) {
    match step {
        Step::Wait { state, outbox, awaiting } => {
            (state, outbox.into_iter().map(|message| (message.description, message.body)).collect(), awaiting)
        }
        Step::Done { .. } => panic!("the step ended"),
    }
}

/// The aggregator before its setup step, and the two inputs that it waits for.
fn aggregator(keys: &Keys) -> (Duchy, State, Vec<Received>, Vec<Body>) {
    let parameters = parameters(1);
    let mut inbox = Vec::new();
    for position in 0..2 {
        let (_, outbox, _) = wait(duchy(keys, &parameters, position, 1).start(&[], &MemoryWorkspace).unwrap());
        let (description, body) = outbox.into_iter().next().unwrap();
        inbox.push(Received { slot: Slot { from: duchy_id(position, 3), description }, body });
    }
    let own = vec![requisition(keys, &[(1, 2, 3)], 9)];
    let aggregator = duchy(keys, &parameters, 2, 1);
    let (state, outbox, awaiting) = wait(aggregator.start(&own, &MemoryWorkspace).unwrap());
    assert!(outbox.is_empty());
    assert_eq!(awaiting.len(), 2);
    (aggregator, state, inbox, own)
}

#[test]
fn only_the_awaited_inputs_are_taken() {
    let keys = keys(3);
    let (aggregator, state, inbox, own) = aggregator(&keys);
    let advance = |inbox: &[Received]| aggregator.advance(&state, &own, inbox, &MemoryWorkspace);
    let with = |from: usize, description| {
        let body = Body::clone(&inbox[0].body);
        Received { slot: Slot { from: duchy_id(from, 3), description }, body }
    };
    let setup = Description::SetupPhaseInput;
    for bad in [
        vec![],
        vec![inbox[0].clone()],
        vec![inbox[0].clone(), inbox[0].clone()],
        vec![inbox[0].clone(), inbox[1].clone(), inbox[1].clone()],
        vec![inbox[0].clone(), with(2, setup)],
        vec![inbox[0].clone(), with(1, Description::ExecutionPhaseOneInput)],
    ] {
        assert!(advance(&bad).is_err());
    }
    // The order in which they came does not matter, and the same step twice sends the same bytes.
    let sent = |inbox: &[Received]| {
        let (state, outbox, _) = wait(advance(inbox).unwrap());
        (state.to_bytes(), outbox[0].1.sha256())
    };
    let swapped = [inbox[1].clone(), inbox[0].clone()];
    assert_eq!(sent(&inbox), sent(&swapped));
    assert_eq!(sent(&inbox), sent(&inbox));
}

#[test]
fn other_requisitions_than_at_the_start_are_refused() {
    let keys = keys(3);
    let (aggregator, state, inbox, _) = aggregator(&keys);
    let other = vec![requisition(&keys, &[(1, 2, 4)], 9)];
    assert!(aggregator.advance(&state, &other, &inbox, &MemoryWorkspace).is_err());
    assert!(aggregator.advance(&state, &[], &inbox, &MemoryWorkspace).is_err());
}

#[test]
fn a_state_of_somebody_else_is_refused() {
    let keys = keys(3);
    let (_, state, inbox, own) = aggregator(&keys);
    let refused = |duchy: &Duchy| assert!(duchy.advance(&state, &own, &inbox, &MemoryWorkspace).is_err());
    refused(&duchy(&keys, &parameters(1), 0, 1));
    refused(&duchy(&keys, &parameters(2), 2, 1));
    let other_computation = Duchy::new(
        parameters(1),
        "AAAAAAAAAHw".to_owned(),
        keys.ring.clone(),
        duchy_id(2, 3),
        keys.secrets[2].clone(),
        Secret::new([3; 32]),
    );
    refused(&other_computation.unwrap());
}

#[test]
fn an_altered_state_is_refused_or_harmless() {
    let keys = keys(3);
    let (aggregator, state, inbox, own) = aggregator(&keys);
    let bytes = state.to_bytes();
    assert_eq!(State::from_bytes(&bytes).unwrap().to_bytes(), bytes);
    assert!(State::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    assert!(State::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
    for position in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[position] ^= 0x41;
        // Whatever it is now, it does not panic, and it does not go on as if nothing had happened.
        if let Ok(altered) = State::from_bytes(&altered) {
            let step = aggregator.advance(&altered, &own, &inbox, &MemoryWorkspace);
            if let Ok(Step::Wait { outbox, .. }) = step {
                let (_, honest, _) = wait(aggregator.advance(&state, &own, &inbox, &MemoryWorkspace).unwrap());
                assert_ne!(outbox[0].body.sha256(), honest[0].1.sha256(), "byte {position}");
            }
        }
    }
}
