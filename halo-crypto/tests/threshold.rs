//! Threshold ElGamal as the protocols use it.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use halo_crypto::{
    Error,
    batch::{self, BadCiphertext, BadRecord},
    elgamal::{Ciphertext, CompositeKey, KeyShare, KeyShareSecret},
    group::{Point, Scalar},
    hash::{Domain, hash_to_group},
    proof::{PossessionContext, VerifiedShare},
    secret::Secret,
};
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const CONTEXT: PossessionContext<'_> =
    PossessionContext { session: [1; 32], duchy: "worker1", certificate_sha256: [2; 32] };

fn verified(secret: &KeyShareSecret, rng: &mut ChaCha20Rng) -> VerifiedShare {
    let proof = secret.prove_possession(&CONTEXT, rng);
    secret.public().verify_possession(&CONTEXT, &proof).unwrap()
}

fn keys(count: usize, rng: &mut ChaCha20Rng) -> (Vec<KeyShareSecret>, CompositeKey) {
    let secrets: Vec<_> = (0..count).map(|_| KeyShareSecret::generate(rng)).collect();
    let shares: Vec<_> = secrets.iter().map(|secret| verified(secret, rng)).collect();
    let key = CompositeKey::combine(&shares).unwrap();
    (secrets, key)
}

fn scalars(count: usize, rng: &mut ChaCha20Rng) -> Vec<Scalar> {
    (0..count).map(|_| Scalar::random(rng)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn everybody_together_decrypts(seed: u64, parties in 1_usize..5, count in 0_usize..150) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (secrets, key) = keys(parties, &mut rng);
        let messages: Vec<Point> =
            (0..count).map(|number| hash_to_group(Domain::Index, number.to_string().as_bytes())).collect();
        let mut ciphertexts = batch::encrypt(&key, &messages, &scalars(count, &mut rng));
        batch::rerandomize(&key, &mut ciphertexts, &scalars(count, &mut rng));
        let (last, first) = secrets.split_last().unwrap();
        for secret in first {
            batch::peel(secret, &mut ciphertexts);
        }
        prop_assert_eq!(batch::open(last, &ciphertexts), messages);
    }

    #[test]
    fn blinding_keeps_equality_and_nothing_else(seed: u64) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (secrets, key) = keys(3, &mut rng);
        let (one, two) = (hash_to_group(Domain::Index, b"1"), hash_to_group(Domain::Index, b"2"));
        let mut ciphertexts = batch::encrypt(&key, &[one, one, two], &scalars(3, &mut rng));
        let exponents: Vec<_> = (0..2).map(|_| Secret::new(Scalar::random(&mut rng))).collect();
        for (secret, exponent) in secrets[..2].iter().zip(&exponents) {
            batch::peel_and_blind(secret, exponent, &mut ciphertexts);
        }
        let opened = batch::open(&secrets[2], &ciphertexts);
        let product = *exponents[0].expose() * *exponents[1].expose();
        prop_assert_eq!(opened[0], one * &product);
        prop_assert_eq!(opened[0], opened[1]);
        prop_assert_ne!(opened[0], opened[2]);
        prop_assert_ne!(opened[0], one);
    }

    #[test]
    fn scaling_keeps_zero_and_hides_the_rest(seed: u64) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (secrets, key) = keys(2, &mut rng);
        let message = hash_to_group(Domain::Key, b"1");
        let mut ciphertexts = batch::encrypt(&key, &[Point::identity(), message], &scalars(2, &mut rng));
        batch::scale(&scalars(2, &mut rng), &mut ciphertexts);
        batch::peel_and_scale(&secrets[0], &scalars(2, &mut rng), &mut ciphertexts);
        prop_assert_eq!(batch::opens_to_identity(&secrets[1], &ciphertexts), vec![true, false]);
        prop_assert_ne!(batch::open(&secrets[1], &ciphertexts)[1], message);
    }

    #[test]
    fn ciphertexts_add_up(seed: u64, a in 0_u64..1000, b in 0_u64..1000) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (secrets, key) = keys(1, &mut rng);
        let unit = hash_to_group(Domain::Constant, b"unit");
        let messages = [unit * &Scalar::from(a), unit * &Scalar::from(b)];
        let both = batch::encrypt(&key, &messages, &scalars(2, &mut rng));
        let opened = batch::open(&secrets[0], &[both[0] + both[1], both[0] - both[1]]);
        prop_assert_eq!(opened[0], unit * &Scalar::from(a + b));
        prop_assert_eq!(opened[1], unit * &(Scalar::from(a) - Scalar::from(b)));
    }

    #[test]
    fn encodings_survive(seed: u64, count in 0_usize..100) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (_, key) = keys(1, &mut rng);
        let ciphertexts = batch::encrypt_zero(&key, &scalars(count, &mut rng));
        let mut bytes = Vec::new();
        batch::encode_ciphertexts(&ciphertexts, &mut bytes);
        prop_assert_eq!(bytes.len(), count * 64);
        prop_assert_eq!(batch::decode_ciphertexts(&bytes).unwrap(), ciphertexts);
    }

    #[test]
    fn bytes_at_random_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = batch::decode_ciphertexts(&bytes);
    }
}

#[test]
fn bad_records_are_named() {
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let (_, key) = keys(1, &mut rng);
    let mut bytes = Vec::new();
    batch::encode_ciphertexts(&batch::encrypt_zero(&key, &scalars(5, &mut rng)), &mut bytes);
    let refused = |bytes: &[u8]| batch::decode_ciphertexts(bytes).unwrap_err();

    assert_eq!(refused(&bytes[..100]), BadRecord { index: 1, reason: BadCiphertext::Truncated });
    let mut no_element = bytes.clone();
    no_element[3 * 64 + 40] ^= 0xff;
    no_element[3 * 64 + 63] |= 0x80;
    assert_eq!(refused(&no_element), BadRecord { index: 3, reason: BadCiphertext::NotAGroupElement });
    let mut identity = bytes.clone();
    identity[2 * 64..2 * 64 + 32].fill(0);
    assert_eq!(refused(&identity), BadRecord { index: 2, reason: BadCiphertext::Identity });
    // As second component the identity is a legal value.
    bytes[32..64].fill(0);
    assert_eq!(batch::decode_ciphertexts(&bytes).unwrap()[0].e, Point::identity());
}

#[test]
fn a_proof_holds_in_its_own_context_only() {
    let mut rng = ChaCha20Rng::seed_from_u64(6);
    let secret = KeyShareSecret::generate(&mut rng);
    let proof = secret.prove_possession(&CONTEXT, &mut rng);
    let share = secret.public();
    assert!(share.verify_possession(&CONTEXT, &proof).is_ok());
    for context in [
        PossessionContext { session: [9; 32], ..CONTEXT },
        PossessionContext { duchy: "worker2", ..CONTEXT },
        PossessionContext { certificate_sha256: [9; 32], ..CONTEXT },
    ] {
        assert_eq!(share.verify_possession(&context, &proof), Err(Error::ProofOfPossession));
    }
    let other = KeyShareSecret::generate(&mut rng).public();
    assert_eq!(other.verify_possession(&CONTEXT, &proof), Err(Error::ProofOfPossession));
    for bit in 0..512 {
        let mut altered = proof;
        altered[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(share.verify_possession(&CONTEXT, &altered), Err(Error::ProofOfPossession), "bit {bit}");
    }
    assert_eq!(share.verify_possession(&CONTEXT, &proof[..63]), Err(Error::ProofOfPossession));
    assert_eq!(KeyShare::from_bytes([0; 32]).verify_possession(&CONTEXT, &proof), Err(Error::Identity));
    assert_eq!(KeyShare::from_bytes([1; 32]).verify_possession(&CONTEXT, &proof), Err(Error::NotAGroupElement));
}

#[test]
fn proofs_stay_what_they_are() {
    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let secret = KeyShareSecret::generate(&mut rng);
    let proof = secret.prove_possession(&CONTEXT, &mut rng);
    let now = format!("{}\n{}\n", hex::encode(secret.public().as_bytes()), hex::encode(proof));
    assert_eq!(now, include_str!("vectors/possession_proof.txt"));
}

#[test]
fn composite_keys_of_odd_lists_are_refused() {
    let mut rng = ChaCha20Rng::seed_from_u64(8);
    let secret = KeyShareSecret::generate(&mut rng);
    let share = verified(&secret, &mut rng);
    assert_eq!(CompositeKey::combine(&[]).unwrap_err(), Error::NoShares);
    assert_eq!(CompositeKey::combine(&[share, share]).unwrap_err(), Error::DuplicateShare);
    // The negated share, with a proof: together they would cancel.
    let mut negated = (Scalar::from(0) - Scalar::from_canonical(*secret.to_bytes().expose()).unwrap()).to_bytes();
    let negated = KeyShareSecret::from_bytes(&Secret::new(std::mem::take(&mut negated))).unwrap();
    assert_eq!(CompositeKey::combine(&[share, verified(&negated, &mut rng)]).unwrap_err(), Error::Identity);
    assert!(KeyShareSecret::from_bytes(&Secret::new([0; 32])).is_err());
    assert!(KeyShareSecret::from_bytes(&Secret::new([0xff; 32])).is_err());
}

#[test]
fn secrets_do_not_print() {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let secret = KeyShareSecret::generate(&mut rng);
    let digits = hex::encode(secret.to_bytes().expose());
    let printed = format!("{secret:?} {:?}", secret.to_bytes());
    assert!(!printed.contains(&digits));
    let again = KeyShareSecret::from_bytes(&secret.to_bytes()).unwrap();
    assert_eq!(again.public(), secret.public());
}

#[test]
fn multiples_count_up() {
    let unit = hash_to_group(Domain::Constant, b"unit");
    let multiples = batch::multiples(&unit, 5);
    for (number, multiple) in (1_u64..).zip(&multiples) {
        assert_eq!(*multiple, unit * &Scalar::from(number));
    }
    assert!(batch::multiples(&unit, 0).is_empty());
    let difference = Ciphertext { u: unit, e: multiples[1] - multiples[0] };
    assert_eq!(difference.e, unit);
}
