//! One tampered message of every kind on every hop of Liquid Legions v2: refused, and blamed on those who could have
//! done it; never a panic.

use crate::setup::{keys, parameters, parties};
use halo_duchy::protocol::local::{self, Envelope, Interceptor};
use halo_duchy::protocol::{Description, MemoryWorkspace, ProtocolError};

/// Changes the message at one place in the order of delivery.
struct Tamper {
    at: usize,
    seen: usize,
    how: fn(&mut Envelope),
    /// Sender of the message that was changed.
    sender: Option<String>,
}

impl Interceptor for Tamper {
    fn message(&mut self, envelope: &mut Envelope) {
        if self.seen == self.at {
            self.sender = Some(envelope.from.to_string());
            (self.how)(envelope);
        }
        self.seen += 1;
    }
}

/// Messages of a run of three Duchies with frequencies: 2 in setup, 3 in each phase.
const MESSAGES: usize = 11;

fn check(how: fn(&mut Envelope), accept: fn(&ProtocolError) -> bool) {
    let parties = parties(&keys(3), &parameters(2), &[vec![(1, 1, 1), (2, 2, 2)], vec![(1, 1, 2), (3, 3, 3)]], 7);
    for at in 0..MESSAGES {
        let mut tamper = Tamper { at, seen: 0, how, sender: None };
        let error = local::run(&parties, &MemoryWorkspace, &mut tamper).unwrap_err();
        assert!(accept(&error), "message {at}: {error}");
        let sender = tamper.sender.unwrap();
        let culprits: Vec<String> = error.culprits().iter().map(ToString::to_string).collect();
        assert!(culprits.contains(&sender), "message {at} from {sender}: {error} blames {culprits:?}");
    }
}

fn edit(envelope: &mut Envelope, edit: fn(&mut Vec<u8>)) {
    let mut bytes = envelope.bytes().unwrap();
    edit(&mut bytes);
    envelope.replace(bytes);
}

fn bad_body(error: &ProtocolError) -> bool {
    matches!(error, ProtocolError::BadBody { .. })
}

fn bad_first_record(error: &ProtocolError) -> bool {
    matches!(error, ProtocolError::BadRecord { record: 0, .. })
}

#[test]
fn a_flipped_bit_breaks_the_digest() {
    let how = |envelope: &mut Envelope| {
        // In the last byte: the digest is what notices, if the encoding does not.
        let mut bytes = envelope.bytes().unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        envelope.corrupt(bytes);
    };
    check(how, |error| bad_body(error) || matches!(error, ProtocolError::BadRecord { .. }));
}

#[test]
fn truncated_bodies_are_refused() {
    check(
        |envelope| {
            let mut bytes = envelope.bytes().unwrap();
            bytes.pop();
            envelope.corrupt(bytes);
        },
        bad_body,
    );
}

#[test]
fn surplus_bytes_are_refused() {
    check(|envelope| edit(envelope, |bytes| bytes.push(0)), bad_body);
}

#[test]
fn what_is_no_group_element_is_refused() {
    check(|envelope| edit(envelope, |bytes| bytes[..32].fill(0xff)), bad_first_record);
}

#[test]
fn an_identity_as_first_component_is_refused() {
    check(|envelope| edit(envelope, |bytes| bytes[..32].fill(0)), bad_first_record);
}

#[test]
fn the_wrong_stage_is_refused() {
    let how = |envelope: &mut Envelope| {
        let number = envelope.description.number() % 4 + 1;
        envelope.description = Description::from_number(number).unwrap();
    };
    check(how, |error| matches!(error, ProtocolError::UnexpectedMessage { .. }));
}

#[test]
fn the_wrong_sender_is_refused() {
    let parties = parties(&keys(3), &parameters(1), &[vec![(1, 1, 1)]], 7);
    for at in 0..MESSAGES {
        let how = |envelope: &mut Envelope| envelope.from = envelope.to.clone();
        let error = local::run(&parties, &MemoryWorkspace, &mut Tamper { at, seen: 0, how, sender: None }).unwrap_err();
        assert!(matches!(error, ProtocolError::UnexpectedMessage { .. }), "message {at}: {error}");
        assert_eq!(error.culprits().len(), 1);
    }
}
