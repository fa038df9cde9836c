//! The parties: Duchies with their keys, publishers with their bodies.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use halo_core::{clock::Stopwatch, privacy::VidSamplingInterval, resource::DuchyId};
use halo_crypto::{
    elgamal::{CompositeKey, KeyShareSecret},
    proof::{PossessionContext, VerifiedShare},
    secret::Secret,
};
use halo_duchy::protocol::{
    Body, RecordSource,
    llv2::{Duchy, NoiseParameters, Parameters, Participant},
    local::Party,
};
use halo_edp_sdk::{
    encrypt::{Encryption, REGISTER_BYTES},
    progress::Unobserved,
    sketch,
    spool::{Binding, Spool, Spooled},
};
use halo_sketch::noise::{Calibration, Mechanism, NoiseSpec};
use rand_core::CryptoRng;

use super::input::Plan;
use crate::error::{Context, Result};

/// Duchies whose noise alone protects everybody: the same assumption under which the inputs stay secret.
const HONEST_CONTRIBUTORS: u32 = 1;

/// Name of the one computation.
const COMPUTATION: &str = "quickstart";

/// The Duchies' keys, in ring order.
pub(super) struct Keys {
    secrets: Vec<KeyShareSecret>,
    ring: Vec<Participant>,
    session: [u8; 32],
    /// The joint key.
    pub(super) joint: CompositeKey,
}

impl Keys {
    /// Every Duchy draws its share and proves that it knows it; the shares are verified and added up.
    pub(super) fn draw(duchies: usize, rng: &mut impl CryptoRng) -> Result<Self> {
        let mut session = [0; 32];
        rng.fill_bytes(&mut session);
        let mut secrets = Vec::with_capacity(duchies);
        let mut ring = Vec::with_capacity(duchies);
        for number in 1..=duchies {
            let name = if number == duchies { "aggregator".to_owned() } else { format!("worker{number}") };
            let id = DuchyId::new(name).context(|| "a Duchy has no usable name".into())?;
            let secret = KeyShareSecret::generate(rng);
            // No certificates where all parties are one process.
            let context = PossessionContext { session, duchy: id.as_str(), certificate_sha256: [0; 32] };
            let proof = secret.prove_possession(&context, rng);
            let key = secret
                .public()
                .verify_possession(&context, &proof)
                .context(|| format!("the key share of {id} is refused"))?;
            secrets.push(secret);
            ring.push(Participant { id, key });
        }
        let shares: Vec<VerifiedShare> = ring.iter().map(|participant| participant.key).collect();
        let joint = CompositeKey::combine(&shares).context(|| "the Duchies' shares make no key".into())?;
        Ok(Self { secrets, ring, session, joint })
    }

    /// Every Duchy's side of the protocol, with the bodies that were sent to it.
    pub(super) fn parties(
        &self,
        parameters: &Parameters,
        bodies: &[Body],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Party>> {
        let duchies = self.ring.len();
        self.ring
            .iter()
            .zip(&self.secrets)
            .enumerate()
            .map(|(position, (participant, secret))| {
                let mut seed = [0; 32];
                rng.fill_bytes(&mut seed);
                let duchy = Duchy::new(
                    parameters.clone(),
                    COMPUTATION.to_owned(),
                    self.ring.clone(),
                    participant.id.clone(),
                    secret.clone(),
                    Secret::new(seed),
                )
                .context(|| format!("{} cannot take part", participant.id))?;
                let requisitions = bodies.iter().skip(position).step_by(duchies).map(Arc::clone).collect();
                Ok(Party { duchy, requisitions })
            })
            .collect()
    }
}

/// The protocol's parameters for a plan.
pub(super) fn parameters(plan: &Plan, publishers: usize) -> Parameters {
    Parameters {
        sketch: plan.sketch,
        maximum_frequency: plan.maximum_frequency,
        sampling_width: 1.0,
        noise: plan.privacy.map(|privacy| NoiseParameters {
            mechanism: Mechanism::DiscreteGaussian,
            calibration: Calibration::Exact,
            honest_contributors: HONEST_CONTRIBUTORS,
            reach: privacy,
            frequency: plan.maximum_frequency.counts_frequency().then_some(privacy),
            blinded_histogram: privacy,
            noise_for_publisher_noise: privacy,
        }),
        publishers: publishers as u32,
    }
}

/// What a publisher sends, and how long it took.
pub(super) struct Published {
    pub(super) body: Body,
    pub(super) records: u64,
    pub(super) sketch_s: f64,
    pub(super) encrypt_s: f64,
}

/// One publisher's work, as it is done in its own process: sketch, noise, encryption, spool.
pub(super) fn publish(
    name: &str,
    events: &Path,
    plan: &Plan,
    keys: &Keys,
    spool: &Spool,
    rng: &mut impl CryptoRng,
) -> Result<Published> {
    let what = || format!("publisher {name} cannot answer");
    let clock = Stopwatch::start();
    let sketched =
        sketch::sketch_file(events, plan.sketch, VidSamplingInterval::FULL, &mut Unobserved).context(what)?;
    let sketch_s = clock.seconds();
    let clock = Stopwatch::start();
    let noise = plan
        .privacy
        .map(|privacy| NoiseSpec::publisher(Mechanism::DiscreteGaussian, Calibration::Exact, privacy).calibrate())
        .transpose()
        .context(what)?;
    let encryption = Encryption { key: &keys.joint, maximum_frequency: plan.maximum_frequency, noise: noise.as_ref() };
    // One measurement, one specification, one list of keys: the session says it all.
    let binding = Binding { session: keys.session, fingerprint: keys.session, key_list_hash: keys.session };
    let spooled = spool.create(name, &binding, &sketched.sketch, &encryption, &mut Unobserved, rng).context(what)?;
    let records = spooled.manifest.record_count;
    Ok(Published { body: Arc::new(SpooledBody(spooled)), records, sketch_s, encrypt_s: clock.seconds() })
}

/// A spooled body as the engine reads it.
#[derive(Debug)]
struct SpooledBody(Spooled);

impl RecordSource for SpooledBody {
    fn records(&self) -> u64 {
        self.0.manifest.record_count
    }

    fn record_bytes(&self) -> usize {
        REGISTER_BYTES
    }

    fn sha256(&self) -> [u8; 32] {
        self.0.manifest.body_sha256
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(&self.0.body)?))
    }
}
