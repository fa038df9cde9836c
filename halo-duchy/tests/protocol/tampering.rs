//! One tampered message of every kind on every hop of Liquid Legions v2: refused, and blamed on those who could have
//! done it; never a panic.

use crate::setup::{keys, noise, parameters, parties};
use halo_core::privacy::PrivacyParams;
use halo_duchy::protocol::llv2::Parameters;
use halo_duchy::protocol::local::{self, Envelope, Interceptor};
use halo_duchy::protocol::{Description, MemoryWorkspace, ProtocolError};
use halo_sketch::noise::NoiseMechanism;

/// Changes the message at one place in the order of delivery.
struct Tamper {
    at: usize,
    seen: usize,
    how: fn(&mut Envelope),
    /// Sender of the message that was changed.
    sender: Option<String>,
}

impl Interceptor for Tamper {
    fn message(&mut self, mut envelope: Envelope) -> Vec<Envelope> {
        if self.seen == self.at {
            self.sender = Some(envelope.from.to_string());
            (self.how)(&mut envelope);
        }
        self.seen += 1;
        vec![envelope]
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

/// Delivers one message so many times.
struct Copies {
    at: usize,
    seen: usize,
    copies: usize,
}

impl Interceptor for Copies {
    fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
        let copies = if self.seen == self.at { self.copies } else { 1 };
        self.seen += 1;
        vec![envelope; copies]
    }
}

#[test]
fn a_repeated_message_is_refused_and_a_lost_one_is_missed() {
    let parties = parties(&keys(3), &parameters(1), &[vec![(1, 1, 1)]], 7);
    for at in 0..MESSAGES {
        let run = |copies| local::run(&parties, &MemoryWorkspace, &mut Copies { at, seen: 0, copies }).unwrap_err();
        let error = run(2);
        let refused = matches!(error, ProtocolError::DuplicateMessage(_) | ProtocolError::UnexpectedMessage { .. });
        assert!(refused, "message {at}: {error}");
        let error = run(0);
        assert!(matches!(error, ProtocolError::Stalled(_)), "message {at}: {error}");
    }
}

/// A record more or less, under a header that fits: what goes around the ring has an exact number, and the aggregator
/// knows it. What the aggregator itself sends it cannot hold against anybody else, so only workers are tampered with.
#[test]
fn a_record_more_or_less_is_noticed_at_the_end_of_the_ring() {
    let parties = parties(&keys(3), &parameters(2), &[vec![(1, 1, 1), (2, 2, 2)], vec![(1, 1, 2), (3, 3, 3)]], 7);
    let drop_one = |envelope: &mut Envelope| {
        let mut bytes = envelope.bytes().unwrap();
        bytes.truncate(bytes.len() - envelope.body.record_bytes());
        envelope.replace(bytes);
    };
    let add_one = |envelope: &mut Envelope| {
        let mut bytes = envelope.bytes().unwrap();
        bytes.extend_from_within(..envelope.body.record_bytes());
        envelope.replace(bytes);
    };
    // In each phase the aggregator sends the first message, and the workers the two after it.
    for at in [3, 4, 6, 7, 9, 10] {
        for how in [drop_one as fn(&mut Envelope), add_one] {
            let mut tamper = Tamper { at, seen: 0, how, sender: None };
            let error = local::run(&parties, &MemoryWorkspace, &mut tamper).unwrap_err();
            assert!(matches!(error, ProtocolError::WrongCount { .. }), "message {at}: {error}");
            let culprits: Vec<String> = error.culprits().iter().map(ToString::to_string).collect();
            assert!(culprits.contains(&tamper.sender.unwrap()), "message {at}: {error} blames {culprits:?}");
        }
    }
}

/// Who leaves out its noise is noticed by the next one, as far as the number goes.
#[test]
fn less_than_the_noise_of_those_who_sent_is_refused() {
    let tiny = PrivacyParams::new(40.0, (-80f64).exp()).unwrap();
    let noise = noise(NoiseMechanism::Geometric, tiny, [tiny, tiny]);
    let parameters = Parameters { noise: Some(noise), ..parameters(1) };
    let parties = parties(&keys(3), &parameters, &[vec![]], 7);
    let keep_one = |envelope: &mut Envelope| {
        let bytes = envelope.bytes().unwrap()[..envelope.body.record_bytes()].to_vec();
        envelope.replace(bytes);
    };
    // Setup of both workers; phases one and two on every hop.
    for at in 0..8 {
        let mut tamper = Tamper { at, seen: 0, how: keep_one, sender: None };
        let error = local::run(&parties, &MemoryWorkspace, &mut tamper).unwrap_err();
        assert!(matches!(error, ProtocolError::WrongCount { .. }), "message {at}: {error}");
        let culprits: Vec<String> = error.culprits().iter().map(ToString::to_string).collect();
        assert!(culprits.contains(&tamper.sender.unwrap()), "message {at}: {error} blames {culprits:?}");
    }
}
