//! Zero tests are blinded by those who do not see them opened: what the aggregator opens does not depend on the scalars
//! that it chose itself.

#[path = "common/mod.rs"]
mod common;

use common::{duchy_id, keys, parameters, parties};
use halo_crypto::batch;
use halo_crypto::elgamal::KeyShareSecret;
use halo_crypto::group::{Point, Scalar};
use halo_duchy::protocol::local::{self, Envelope, Interceptor};
use halo_duchy::protocol::{Description, MemoryWorkspace};

/// Multiplies the first flag of every tuple that leaves the aggregator by a scalar, and opens what comes back to it.
struct Cheater {
    secret: KeyShareSecret,
    factor: u64,
    opened: Vec<Point>,
}

impl Interceptor for Cheater {
    fn message(&mut self, envelope: &mut Envelope) {
        let aggregator = duchy_id(2, 3);
        if envelope.description != Description::ExecutionPhaseTwoInput {
            return;
        }
        let mut tuples = batch::decode_ciphertexts(&envelope.bytes().unwrap()).unwrap();
        if envelope.from == aggregator {
            let factor = [Scalar::from(self.factor)];
            tuples.chunks_exact_mut(4).for_each(|tuple| batch::scale(&factor, &mut tuple[1..2]));
            let mut bytes = Vec::new();
            batch::encode_ciphertexts(&tuples, &mut bytes);
            envelope.replace(bytes);
        }
        if envelope.to == aggregator {
            let flags: Vec<_> = tuples.chunks_exact(4).map(|tuple| tuple[1]).collect();
            self.opened = batch::open(&self.secret, &flags);
        }
    }
}

/// The aggregator's own bytes are the same in both runs but for the factor. Without the workers' scalars the second
/// opening would be exactly seven times the first.
#[test]
fn openings_do_not_show_the_aggregators_factor() {
    let keys = keys(3);
    let open = |factor| {
        let parties = parties(&keys, &parameters(1), &[vec![(1, 111, 2)]], 5);
        let mut cheater = Cheater { secret: keys.secrets[2].clone(), factor, opened: Vec::new() };
        local::run(&parties, &MemoryWorkspace, &mut cheater).unwrap();
        assert_eq!(cheater.opened.len(), 1);
        cheater.opened[0]
    };
    let (once, seven) = (open(1), open(7));
    assert!(!once.is_identity() && !seven.is_identity());
    assert_ne!(seven, once * &Scalar::from(7));
    assert_ne!(seven, once);
}
