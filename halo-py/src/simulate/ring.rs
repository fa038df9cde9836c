//! The protocols over encrypted sketches.

use std::collections::HashMap;

use halo_core::clock::Stopwatch;
use halo_crypto::elgamal::{CompositeKey, KeyShareSecret};
use halo_crypto::proof::{PossessionContext, VerifiedShare};
use halo_crypto::secret::Secret;
use halo_duchy::protocol::local::{self, Engine, Party};
use halo_duchy::protocol::{Body, DuchyId, ProtocolError, llv2, rollv2};
use halo_edp_sdk::encrypt::{self, Encryption, Layout};
use halo_sketch::liquid_legions::Register;
use halo_sketch::noise::ShiftedNoise;

use super::{COMPUTATION, Job, Protocol, Room, body, observe};
use crate::door::Control;
use crate::error::Error;
use crate::outcome::Outcome;
use crate::trace::{self, Trace};

/// The Duchies with their keys.
struct Ring {
    secrets: Vec<KeyShareSecret>,
    participants: Vec<llv2::Participant>,
    key: CompositeKey,
}

impl Ring {
    fn new(job: &Job) -> Result<Self, Error> {
        let session = job.seed.of("session");
        let mut secrets = Vec::with_capacity(job.duchies);
        let mut participants = Vec::with_capacity(job.duchies);
        for position in 0..job.duchies {
            let id = duchy(position, job.duchies)?;
            let mut rng = job.seed.rng(&format!("key of {id}"));
            let secret = KeyShareSecret::generate(&mut rng);
            let context = PossessionContext { session, duchy: id.as_str(), certificate_sha256: [0; 32] };
            let proof = secret.prove_possession(&context, &mut rng);
            let key = secret.public().verify_possession(&context, &proof)?;
            participants.push(llv2::Participant { id, key });
            secrets.push(secret);
        }
        let shares: Vec<VerifiedShare> = participants.iter().map(|participant| participant.key).collect();
        Ok(Self { secrets, participants, key: CompositeKey::combine(&shares)? })
    }
}

pub(super) fn duchy(position: usize, duchies: usize) -> Result<DuchyId, Error> {
    let id = if position + 1 == duchies { "aggregator".to_owned() } else { format!("worker{}", position + 1) };
    Ok(DuchyId::new(id)?)
}

/// Encrypts the publishers' registers and runs the Duchies.
pub(super) fn run(
    job: &Job,
    publishers: &[(&str, Vec<Register>)],
    publisher_noise: Option<&ShiftedNoise>,
    trace: &mut Trace,
    control: &Control,
) -> Result<Outcome, Error> {
    let parameters = llv2::Parameters {
        sketch: job.sketch,
        maximum_frequency: job.maximum_frequency,
        sampling_width: job.sampling_width,
        noise: job.noise.as_ref().map(crate::params::Noise::of_ring).transpose()?,
        publishers: contributors(publishers),
    };
    parameters.check(job.duchies)?;
    let ring = Ring::new(job)?;
    let mut uploads: Vec<Vec<Body>> = vec![Vec::new(); job.duchies];
    for (position, (name, registers)) in publishers.iter().enumerate() {
        let stopwatch = Stopwatch::start();
        let upload = upload(job, &ring.key, registers, publisher_noise, position, control)?;
        trace.push("encrypt", name, trace::size(&upload), stopwatch.seconds());
        uploads[position % job.duchies].push(upload);
    }
    let outcome = match job.protocol {
        Protocol::Rollv2 => drive(job, &parameters, &ring, uploads, rollv2::Duchy::new, trace, control)?,
        _ => drive(job, &parameters, &ring, uploads, llv2::Duchy::new, trace, control)?,
    };
    Outcome::of_ring(&outcome, &parameters)
}

/// S: as many as there are publishers, and as many as have sent the same index, if a list repeats one.
fn contributors(publishers: &[(&str, Vec<Register>)]) -> u32 {
    let mut times: HashMap<u64, usize> = HashMap::new();
    for register in publishers.iter().flat_map(|(_, registers)| registers) {
        *times.entry(register.index).or_default() += 1;
    }
    let most = times.into_values().max().unwrap_or(1).max(publishers.len());
    u32::try_from(most).unwrap_or(u32::MAX)
}

fn upload(
    job: &Job,
    key: &CompositeKey,
    registers: &[Register],
    noise: Option<&ShiftedNoise>,
    position: usize,
    control: &Control,
) -> Result<Body, Error> {
    let mut rng = job.seed.rng(&format!("publisher {position}"));
    let mut bytes = Vec::new();
    let mut observer = observe(control);
    let layout = match job.protocol {
        Protocol::Rollv2 => Layout::IndexOnly,
        _ => Layout::Full { maximum_frequency: job.maximum_frequency },
    };
    let encryption = Encryption { key, layout, noise };
    encrypt::encrypt_registers(registers, &encryption, &mut bytes, &mut observer, &mut rng)?;
    body(bytes, layout.record_bytes())
}

/// How both protocols' Duchies are made.
type New<E> = fn(
    llv2::Parameters,
    String,
    Vec<llv2::Participant>,
    DuchyId,
    KeyShareSecret,
    Secret<[u8; 32]>,
) -> Result<E, ProtocolError>;

fn drive<E>(
    job: &Job,
    parameters: &llv2::Parameters,
    ring: &Ring,
    uploads: Vec<Vec<Body>>,
    new: New<E>,
    trace: &mut Trace,
    control: &Control,
) -> Result<llv2::Outcome, Error>
where
    E: Engine<Requisition = Body, Outcome = llv2::Outcome>,
{
    let mut parties = Vec::with_capacity(job.duchies);
    for ((participant, secret), requisitions) in ring.participants.iter().zip(&ring.secrets).zip(uploads) {
        let id = participant.id.clone();
        let seed = Secret::new(job.seed.of(&format!("seed of {id}")));
        let duchy =
            new(parameters.clone(), COMPUTATION.to_owned(), ring.participants.clone(), id, secret.clone(), seed)?;
        parties.push(Party { duchy, requisitions });
    }
    Ok(local::run(&parties, &Room(control), trace)?)
}
