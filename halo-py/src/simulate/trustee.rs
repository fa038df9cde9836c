//! The trustee, over encrypted frequency vectors.

use std::sync::Arc;

use halo_core::clock::Stopwatch;
use halo_crypto::attestation::SimulatedAttestation;
use halo_crypto::envelope::TinkAead;
use halo_crypto::secret::Secret;
use halo_duchy::protocol::local::{self, Party};
use halo_duchy::protocol::trustee::{Duchy, Parameters, Trust, Variant};

use super::{COMPUTATION, Job, Room, ring};
use crate::door::Control;
use crate::envelopes::{self, KeyServices};
use crate::error::Error;
use crate::outcome::Outcome;
use crate::params;
use crate::trace::{self, Trace};

/// Encrypts the publishers' vectors, each under a key of its own, and runs the trustee.
pub(super) fn run(
    job: &Job,
    publishers: &[(&str, Vec<u8>)],
    trace: &mut Trace,
    control: &Control,
) -> Result<Outcome, Error> {
    let parameters = Parameters {
        variant: Variant::Native,
        cells: publishers.first().map_or(0, |(_, cells)| cells.len() as u64),
        maximum_frequency: job.maximum_frequency,
        sampling_width: job.sampling_width,
        requisitions: (1..=publishers.len()).map(|number| format!("requisition{number}")).collect(),
        thresholds: job.thresholds,
        noise: params::Noise::of_trustee(job.noise.as_ref())?,
    };
    parameters.check()?;
    let mut requisitions = Vec::with_capacity(publishers.len());
    let mut keys = KeyServices::default();
    for (position, (name, cells)) in publishers.iter().enumerate() {
        let stopwatch = Stopwatch::start();
        let mut rng = job.seed.rng(&format!("publisher {position}"));
        let id = parameters.requisitions[position].clone();
        let kek = Arc::new(TinkAead::generate(format!("simulation://{id}"), &mut rng));
        let sent = envelopes::requisition(id, cells, &kek, control, &mut rng)?;
        let (records, bytes) = trace::size(&sent.vector);
        trace.push("encrypt", name, (records, bytes + sent.wrapped_key.len() as u64), stopwatch.seconds());
        requisitions.push(sent);
        keys.add(kek, true)?;
    }
    let trust = Trust {
        attestation: Arc::new(SimulatedAttestation),
        keys: Arc::new(keys),
        // Everything is in this process anyway.
        allow_simulated: true,
        noise_key: Some(Secret::new(job.seed.of("sticky noise"))),
    };
    let me = ring::duchy(0, 1)?;
    let seed = Secret::new(job.seed.of("seed of the trustee"));
    let duchy = Duchy::new(parameters.clone(), COMPUTATION.to_owned(), me, seed, trust)?;
    let found = local::run(&[Party { duchy, requisitions }], &Room(control), trace)?;
    Outcome::of_trustee(&found, &parameters)
}
