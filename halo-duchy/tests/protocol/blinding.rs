//! Zero tests are blinded by those who do not see them opened: what the aggregator opens does not depend on the scalars
//! that it chose itself.

use std::collections::BTreeSet;

use crate::setup::{Register, duchy_id, keys, nonces, parameters, parties};
use halo_crypto::batch;
use halo_crypto::elgamal::{Ciphertext, KeyShareSecret};
use halo_crypto::group::{Point, Scalar};
use halo_crypto::hash;
use halo_duchy::protocol::local::{self, Envelope, Interceptor};
use halo_duchy::protocol::{Description, MemoryWorkspace};

/// Multiplies one flag of every tuple that leaves the aggregator by a scalar, and opens what comes back to it.
struct Cheater {
    secret: KeyShareSecret,
    flag: usize,
    factor: u64,
    opened: Vec<Point>,
}

impl Interceptor for Cheater {
    fn message(&mut self, mut envelope: Envelope) -> Vec<Envelope> {
        let aggregator = duchy_id(2, 3);
        if envelope.description != Description::ExecutionPhaseTwoInput {
            return vec![envelope];
        }
        let mut tuples = batch::decode_ciphertexts(&envelope.bytes().unwrap()).unwrap();
        if envelope.from == aggregator {
            let factor = [Scalar::from(self.factor)];
            tuples.chunks_exact_mut(4).for_each(|tuple| batch::scale(&factor, &mut tuple[self.flag..=self.flag]));
            let mut bytes = Vec::new();
            batch::encode_ciphertexts(&tuples, &mut bytes);
            envelope.replace(bytes);
        }
        if envelope.to == aggregator {
            let flags: Vec<_> = tuples.chunks_exact(4).map(|tuple| tuple[self.flag]).collect();
            self.opened = batch::open(&self.secret, &flags);
        }
        vec![envelope]
    }
}

/// The aggregator's own bytes are the same in both runs but for the factor. Without the workers' scalars the second
/// opening would be exactly seven times the first.
#[test]
fn openings_do_not_show_the_aggregators_factor() {
    let keys = keys(3);
    // Two people in one register: none of its flags opens to the identity.
    let sketches = [vec![(1, 111, 2)], vec![(1, 222, 2)]];
    for flag in 0..3 {
        let open = |factor| {
            let parties = parties(&keys, &parameters(2), &sketches, 5);
            let mut cheater = Cheater { secret: keys.secrets[2].clone(), flag, factor, opened: Vec::new() };
            local::run(&parties, &MemoryWorkspace, &mut cheater).unwrap();
            assert_eq!(cheater.opened.len(), 1);
            cheater.opened[0]
        };
        let (once, seven) = (open(1), open(7));
        assert!(!once.is_identity() && !seven.is_identity());
        assert_ne!(seven, once * &Scalar::from(7), "flag {flag}");
        assert_ne!(seven, once, "flag {flag}");
    }
}

/// Keeps what is sent in phase three, and opens what comes back to the aggregator.
struct PhaseThree {
    secret: KeyShareSecret,
    /// Bytes of a record, and the ciphertexts, hop by hop.
    hops: Vec<(usize, Vec<Ciphertext>)>,
    opened: Vec<Point>,
}

impl Interceptor for PhaseThree {
    fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
        if envelope.description == Description::ExecutionPhaseThreeInput {
            let ciphertexts = batch::decode_ciphertexts(&envelope.bytes().unwrap()).unwrap();
            if envelope.to.as_str() == "aggregator" {
                self.opened = batch::open(&self.secret, &ciphertexts);
            }
            self.hops.push((envelope.body.record_bytes(), ciphertexts));
        }
        vec![envelope]
    }
}

fn phase_three(duchies: usize, sketch: Vec<Register>) -> PhaseThree {
    let keys = keys(duchies);
    let secret = keys.secrets[duchies - 1].clone();
    let mut phase_three = PhaseThree { secret, hops: Vec::new(), opened: Vec::new() };
    local::run(&parties(&keys, &parameters(1), &[sketch], 5), &MemoryWorkspace, &mut phase_three).unwrap();
    phase_three
}

/// A count of 4 is 4·U. Without the last worker's exponents the aggregator would open (4 − j)·U, and find 4 in a table
/// of small multiples.
#[test]
fn openings_of_counts_show_equality_and_nothing_else() {
    let multiples = batch::multiples(&hash::constant("unit"), 1_000);
    for duchies in 2..=4 {
        let opened = phase_three(duchies, vec![(1, 111, 4)]).opened;
        let identities: Vec<bool> = opened.iter().map(Point::is_identity).collect();
        assert_eq!(identities, [false, false, false, true, false, false, false, false, false]);
        for opened in opened.iter().filter(|opened| !opened.is_identity()) {
            assert!(!multiples.iter().any(|multiple| multiple == opened || *multiple == -*opened));
        }
    }
}

/// Rows are made by the last worker. What goes to a worker is one ciphertext a count, another one on every hop.
#[test]
fn workers_receive_counts_that_are_fresh_on_every_hop() {
    for duchies in 2..=5 {
        let hops = phase_three(duchies, vec![(1, 111, 4), (2, 5, 11), (3, 7, 1)]).hops;
        let sizes: Vec<usize> = hops.iter().map(|(size, ciphertexts)| size * ciphertexts.len()).collect();
        let mut due = vec![64 * 3; duchies - 1];
        due.push(9 * 64 * 3 * 9);
        assert_eq!(sizes, due, "{duchies} Duchies");
        let firsts: Vec<Point> = hops.iter().flat_map(|(_, sent)| sent).map(|ciphertext| ciphertext.u).collect();
        let different: BTreeSet<[u8; 32]> = firsts.iter().map(|point| *point.encode().as_bytes()).collect();
        assert_eq!(different.len(), firsts.len(), "{duchies} Duchies");
    }
}

/// Keeps the first components of the indexes that reach the aggregator in phase one.
#[derive(Default)]
struct Indexes(Vec<Point>);

impl Interceptor for Indexes {
    fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
        if envelope.description == Description::ExecutionPhaseOneInput && envelope.to == duchy_id(2, 3) {
            let registers = batch::decode_ciphertexts(&envelope.bytes().unwrap()).unwrap();
            self.0 = registers.chunks_exact(3).map(|register| register[0].u).collect();
        }
        vec![envelope]
    }
}

/// A publisher that tells the aggregator two of its encryption nonces r and s: with indexes that are only blinded, some
/// pair of first components (B·r·G, B·s·G) would satisfy s·(B·r·G) = r·(B·s·G), and give B·G away.
#[test]
fn known_nonces_do_not_find_registers_again() {
    let keys = keys(3);
    let sketch: Vec<Register> = (0..8).map(|i| (i, 1, 1)).collect();
    let nonces = nonces(sketch.len(), 100);
    let mut indexes = Indexes::default();
    local::run(&parties(&keys, &parameters(1), &[sketch], 5), &MemoryWorkspace, &mut indexes).unwrap();
    assert_eq!(indexes.0.len(), 8);
    let (first, second) = (nonces[0], nonces[3]);
    for one in &indexes.0 {
        for other in &indexes.0 {
            assert_ne!(*one * &second, *other * &first);
        }
    }
}
