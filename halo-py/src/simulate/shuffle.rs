//! The protocols over secret shares of frequency vectors.

use std::sync::Arc;

use halo_core::clock::Stopwatch;
use halo_crypto::consent::tink::PrivateKeyset;
use halo_crypto::secret::Secret;
use halo_duchy::protocol::hmss::{Duchy, Parameters, Requisition, Roles, Variant};
use halo_duchy::protocol::local::{self, Party};

use super::{COMPUTATION, Job, Protocol, Room, ring};
use crate::door::Control;
use crate::error::Error;
use crate::outcome::Outcome;
use crate::shares::{self, default_modulus};
use crate::trace::{self, Trace};

/// Shares the publishers' vectors and runs the three Duchies.
pub(super) fn run(
    job: &Job,
    publishers: &[(&str, Vec<u8>)],
    trace: &mut Trace,
    control: &Control,
) -> Result<Outcome, Error> {
    let variant = match job.protocol {
        Protocol::HmssNative => Variant::Native,
        _ => Variant::Compatible { modulus: default_modulus(job.maximum_frequency, publishers.len())? },
    };
    let parameters = Parameters {
        variant,
        cells: publishers.first().map_or(0, |(_, cells)| cells.len() as u64),
        maximum_frequency: job.maximum_frequency,
        sampling_width: job.sampling_width,
        requisitions: (1..=publishers.len()).map(|number| format!("requisition{number}")).collect(),
        noise: job.noise.as_ref().map(crate::params::Noise::of_shuffle).transpose()?,
    };
    parameters.check()?;
    let ids = [ring::duchy(0, 3)?, ring::duchy(1, 3)?, ring::duchy(2, 3)?];
    let roles = Roles { first_worker: ids[0].clone(), second_worker: ids[1].clone(), aggregator: ids[2].clone() };
    let keysets =
        ids.each_ref().map(|id| Arc::new(PrivateKeyset::generate_hpke(&mut job.seed.rng(&format!("keyset of {id}")))));

    let modulus = parameters.modulus()?;
    let mut at: [Vec<Requisition>; 3] = Default::default();
    for (position, (name, cells)) in publishers.iter().enumerate() {
        let stopwatch = Stopwatch::start();
        let id = parameters.requisitions[position].clone();
        let mut rng = job.seed.rng(&format!("publisher {position}"));
        // The share goes to one worker, with the seed that only the other worker can open.
        let (to, other) = (position % 2, 1 - position % 2);
        let requisition = shares::requisition(id, cells, modulus, &keysets[other].public(), &mut rng)?;
        let (records, bytes) = trace::size(&requisition.share);
        let bytes = bytes + requisition.encrypted_seed.len() as u64;
        trace.push("share", name, (records, bytes), stopwatch.seconds());
        at[to].push(requisition);
    }

    let mut parties = Vec::with_capacity(3);
    for ((id, keyset), requisitions) in ids.into_iter().zip(keysets).zip(at) {
        let seed = Secret::new(job.seed.of(&format!("seed of {id}")));
        let open = shares::opener(keyset);
        let duchy = Duchy::new(parameters.clone(), COMPUTATION.to_owned(), roles.clone(), id, seed, open)?;
        parties.push(Party { duchy, requisitions });
    }
    Outcome::of_shuffle(&local::run(&parties, &Room(control), trace)?, &parameters)
}
