//! What the protocol tests share: keys, sketches and parameters.

use std::sync::Arc;

use halo_core::privacy::{MaximumFrequency, PrivacyParams};
use halo_crypto::batch;
use halo_crypto::elgamal::{CompositeKey, KeyShareSecret};
use halo_crypto::group::{Point, Scalar};
use halo_crypto::hash::{self, Domain};
use halo_crypto::proof::{PossessionContext, VerifiedShare};
use halo_crypto::secret::Secret;
use halo_duchy::protocol::llv2::{Duchy, NoiseParameters, Parameters, Participant};
use halo_duchy::protocol::local::Party;
use halo_duchy::protocol::{Body, DuchyId, MemoryBody};
use halo_sketch::liquid_legions::Params;
use halo_sketch::noise::{NoiseCalibration, NoiseMechanism};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

pub(crate) const COMPUTATION: &str = "AAAAAAAAAHs";

/// A register in the clear: index, key (−1: destroyed by its publisher) and count.
pub(crate) type Register = (u64, i64, u64);

/// The Duchies of a test and their keys.
pub(crate) struct Keys {
    pub(crate) secrets: Vec<KeyShareSecret>,
    pub(crate) ring: Vec<Participant>,
    pub(crate) key: CompositeKey,
}

pub(crate) fn duchy_id(position: usize, duchies: usize) -> DuchyId {
    let id = if position + 1 == duchies { "aggregator".to_owned() } else { format!("worker{}", position + 1) };
    id.parse().unwrap()
}

pub(crate) fn keys(duchies: usize) -> Keys {
    let mut rng = ChaCha20Rng::from_seed([11; 32]);
    let secrets: Vec<KeyShareSecret> = (0..duchies).map(|_| KeyShareSecret::generate(&mut rng)).collect();
    let ring: Vec<Participant> = secrets
        .iter()
        .enumerate()
        .map(|(position, secret)| {
            let id = duchy_id(position, duchies);
            let context = PossessionContext { session: [1; 32], duchy: id.as_str(), certificate_sha256: [2; 32] };
            let proof = secret.prove_possession(&context, &mut rng);
            let key = secret.public().verify_possession(&context, &proof).unwrap();
            Participant { id, key }
        })
        .collect();
    let shares: Vec<VerifiedShare> = ring.iter().map(|participant| participant.key).collect();
    let key = CompositeKey::combine(&shares).unwrap();
    Keys { secrets, ring, key }
}

/// What the publisher of this seed encrypts its registers with: one for each ciphertext.
pub(crate) fn nonces(registers: usize, seed: u8) -> Vec<Scalar> {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    (0..3 * registers).map(|_| Scalar::random(&mut rng)).collect()
}

/// Encrypts a sketch as a publisher does.
pub(crate) fn requisition(keys: &Keys, registers: &[Register], seed: u8) -> Body {
    let unit = hash::constant("unit");
    let points: Vec<Point> = registers
        .iter()
        .flat_map(|(index, key, count)| {
            let index = hash::hash_to_group(Domain::Index, index.to_string().as_bytes());
            let destroyed = hash::constant("destroyed_register_key");
            if *key < 0 {
                return [index, destroyed, destroyed];
            }
            let key = hash::hash_to_group(Domain::Key, (key + 1).to_string().as_bytes());
            [index, key, unit * &Scalar::from(*count)]
        })
        .collect();
    let nonces = nonces(registers.len(), seed);
    let mut bytes = Vec::new();
    batch::encode_ciphertexts(&batch::encrypt(&keys.key, &points, &nonces), &mut bytes);
    Arc::new(MemoryBody::new(bytes, 192).unwrap())
}

/// The parameters of the protocol's own end-to-end cases: a = 12, m = 100 000, w = 0.5, F = 10, no noise.
pub(crate) fn parameters(publishers: u32) -> Parameters {
    Parameters {
        sketch: Params::new(12.0, 100_000, 10_000_000).unwrap(),
        maximum_frequency: MaximumFrequency::new(10).unwrap(),
        sampling_width: 0.5,
        noise: None,
        publishers,
    }
}

/// Noise with the reference's calibration, each kind with its own ε and δ.
pub(crate) fn noise(mechanism: NoiseMechanism, reach: PrivacyParams, internal: [PrivacyParams; 2]) -> NoiseParameters {
    NoiseParameters {
        mechanism,
        calibration: NoiseCalibration::Reference,
        honest_contributors: 1,
        reach,
        frequency: Some(PrivacyParams::new(40.0, (-80f64).exp()).unwrap()),
        blinded_histogram: internal[0],
        noise_for_publisher_noise: internal[1],
    }
}

/// One Duchy of a test.
pub(crate) fn duchy(keys: &Keys, parameters: &Parameters, position: usize, seed: u8) -> Duchy {
    duchy_of(keys, parameters, position, [seed.wrapping_add(position as u8); 32])
}

fn duchy_of(keys: &Keys, parameters: &Parameters, position: usize, seed: [u8; 32]) -> Duchy {
    Duchy::new(
        parameters.clone(),
        COMPUTATION.to_owned(),
        keys.ring.clone(),
        keys.ring[position].id.clone(),
        keys.secrets[position].clone(),
        Secret::new(seed),
    )
    .unwrap()
}

/// All parties; the sketches are spread over the Duchies in turn.
pub(crate) fn parties(keys: &Keys, parameters: &Parameters, sketches: &[Vec<Register>], seed: u8) -> Vec<Party<Duchy>> {
    parties_of(keys, sketches, |position| duchy(keys, parameters, position, seed))
}

/// All parties of one of many runs, of which no two share a seed.
pub(crate) fn parties_of_run(
    keys: &Keys,
    parameters: &Parameters,
    sketches: &[Vec<Register>],
    run: u32,
) -> Vec<Party<Duchy>> {
    parties_of(keys, sketches, |position| {
        let mut seed = [position as u8; 32];
        seed[..4].copy_from_slice(&run.to_le_bytes());
        duchy_of(keys, parameters, position, seed)
    })
}

fn parties_of(keys: &Keys, sketches: &[Vec<Register>], duchy: impl Fn(usize) -> Duchy) -> Vec<Party<Duchy>> {
    let duchies = keys.ring.len();
    (0..duchies)
        .map(|position| Party {
            duchy: duchy(position),
            requisitions: sketches
                .iter()
                .enumerate()
                .filter(|(publisher, _)| publisher % duchies == position)
                .map(|(publisher, registers)| requisition(keys, registers, 100 + publisher as u8))
                .collect(),
        })
        .collect()
}
