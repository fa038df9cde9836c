//! Kernels over slices: what the protocols spend their time in.
//!
//! Every kernel takes slices and spreads them over all cores; its result depends on nothing but its arguments. Single
//! items are slices of one. Who computes is decided here and nowhere else: [`Backend::current`].
//!
//! Scalars that a caller passes are secret: all kernels take constant time in them, and the caller wipes its slices
//! when it no longer needs them.
//!
//! # Panics
//! Kernels panic when slices that belong together differ in length: a bug of the caller, never caused by data. They panic,
//! too, when the backend that the environment asks for cannot be had; a program asks [`Backend::current`] first.

#[cfg(all(test, target_arch = "x86_64"))]
mod agreement;
mod backend;
mod fixed;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions; what makes each block sound is said there")]
mod ifma;
mod portable;

use rayon::prelude::*;
use zeroize::Zeroizing;

pub(crate) use self::backend::kernels;
#[cfg(target_arch = "x86_64")]
pub(crate) use self::ifma::{Comb, Ifma};
use self::portable::Portable;
pub use self::{
    backend::{BACKEND_VARIABLE, Backend, BackendError},
    fixed::FixedBase,
};
use crate::{
    elgamal::{CIPHERTEXT_BYTES, Ciphertext, CompositeKey, KeyShareSecret},
    group::{ELEMENT_BYTES, EncodedPoint, Point, Scalar},
    hash::Domain,
    secret::Secret,
};

/// Items that one task takes: small enough to spread, large enough that the task costs nothing, and full vectors.
const TASK: usize = 64;

/// Items that one task encrypts: twice as many, for they share an inversion.
const ENCRYPTION_TASK: usize = 2 * TASK;

/// What a backend computes, on one core. Slices that belong together are equally long, and of any length.
pub(crate) trait Kernels: Sync {
    /// The neutral element in the form that this backend computes with.
    fn identity(&self) -> Point;
    /// Decodes; none for what is no canonical encoding.
    fn decode(&self, encoded: &[EncodedPoint], points: &mut [Option<Point>]);
    /// Canonical encodings.
    fn encode(&self, points: &[Point], encoded: &mut [EncodedPoint]);
    /// Canonical encodings of twice the points.
    fn encode_doubled(&self, halves: &[Point], encoded: &mut [EncodedPoint]);
    /// Adds scalars times the base.
    fn add_multiples(&self, base: &FixedBase, scalars: &[Scalar], points: &mut [Point]);
    /// Of each base `row` multiples, at least one, by scalars of their own, base by base.
    fn multiply_rows(&self, row: usize, scalars: &[Scalar], bases: &[Point], products: &mut [Point]);
    /// Encodings of 2r·G ‖ 2(M + r·Y).
    fn encrypt_doubled(
        &self,
        key: &CompositeKey,
        halves: &[Point],
        nonces: &[Scalar],
        encoded: &mut [[u8; CIPHERTEXT_BYTES]],
    );
    /// (u + r·G, e + r·Y).
    fn rerandomize(&self, key: &CompositeKey, nonces: &[Scalar], ciphertexts: &mut [Ciphertext]);
    /// Scalars times points.
    fn multiply(&self, scalars: Scalars<'_>, points: &mut [Point]);
    /// (b·u, b·e + c·u).
    fn scale_and_add(&self, b: Scalars<'_>, c: Scalars<'_>, ciphertexts: &mut [Ciphertext]);
    /// e − x·u.
    fn open(&self, x: &Scalar, ciphertexts: &[Ciphertext], opened: &mut [Point]);
    /// Whether e = x·u.
    fn opens_to_identity(&self, x: &Scalar, ciphertexts: &[Ciphertext], identity: &mut [bool]);
    /// What messages expand to: uniform bytes for the map.
    fn expand(&self, domain: Domain, messages: &[&[u8]], uniform: &mut [[u8; 64]]);
    /// The one-way map of RFC 9496, 4.3.4.
    fn map_uniform(&self, uniform: &[[u8; 64]], points: &mut [Point]);
}

/// Scalars for a slice of items.
#[derive(Clone, Copy)]
pub(crate) enum Scalars<'a> {
    /// The same one for all.
    Shared(&'a Scalar),
    /// One for each.
    Each(&'a [Scalar]),
}

impl<'a> Scalars<'a> {
    /// Those of `count` items from the one at `from` on.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn part(self, from: usize, count: usize) -> Self {
        match self {
            Self::Shared(_) => self,
            Self::Each(scalars) => Self::Each(&scalars[from..from + count]),
        }
    }

    /// That of one item.
    pub(crate) fn at(self, index: usize) -> &'a Scalar {
        match self {
            Self::Shared(scalar) => scalar,
            Self::Each(scalars) => &scalars[index],
        }
    }
}

/// A record that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ciphertext {index}: {reason}")]
pub struct BadRecord {
    /// Position of the first bad ciphertext; of the last, unfinished one when the bytes end inside it.
    pub index: usize,
    /// What is wrong with it.
    pub reason: BadCiphertext,
}

/// Why a ciphertext is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadCiphertext {
    /// The bytes end inside a ciphertext.
    #[error("the bytes end inside it")]
    Truncated,
    /// A component is no canonical encoding.
    #[error("a component is not the canonical encoding of a group element")]
    NotAGroupElement,
    /// The first component is the identity: nothing would be hidden.
    #[error("its first component is the identity")]
    Identity,
}

/// Decodes ciphertexts, u ‖ e each. Only canonical encodings are accepted, and no identity as first component.
///
/// # Errors
/// The first bad ciphertext.
pub fn decode_ciphertexts(bytes: &[u8]) -> Result<Vec<Ciphertext>, BadRecord> {
    let (encoded, rest) = bytes.as_chunks::<CIPHERTEXT_BYTES>();
    if !rest.is_empty() {
        return Err(BadRecord { index: encoded.len(), reason: BadCiphertext::Truncated });
    }
    let nothing = Ciphertext { u: Point::identity(), e: Point::identity() };
    let mut decoded = vec![nothing; encoded.len()];
    let bad = decoded
        .par_chunks_mut(TASK)
        .zip(encoded.par_chunks(TASK))
        .enumerate()
        .filter_map(|(task, (places, encoded))| {
            let components = encoded.as_flattened().as_chunks::<ELEMENT_BYTES>().0;
            let components: Vec<EncodedPoint> = components.iter().copied().map(EncodedPoint::from_bytes).collect();
            let mut points = vec![None; components.len()];
            kernels().decode(&components, &mut points);
            let pairs = points.as_chunks::<2>().0.iter().zip(components.as_chunks::<2>().0);
            for (position, (place, (points, encoded))) in places.iter_mut().zip(pairs).enumerate() {
                let reason = match *points {
                    // Of all canonical encodings, only the identity's is all zeros.
                    [Some(_), Some(_)] if *encoded[0].as_bytes() == [0; ELEMENT_BYTES] => BadCiphertext::Identity,
                    [Some(u), Some(e)] => {
                        *place = Ciphertext { u, e };
                        continue;
                    }
                    _ => BadCiphertext::NotAGroupElement,
                };
                return Some(BadRecord { index: task * TASK + position, reason });
            }
            None
        })
        .min_by_key(|bad| bad.index);
    bad.map_or(Ok(decoded), Err)
}

/// Appends the encodings of ciphertexts, u ‖ e each.
pub fn encode_ciphertexts(ciphertexts: &[Ciphertext], out: &mut Vec<u8>) {
    encode_with(ciphertexts, out, |points, encoded| kernels().encode(points, encoded));
}

fn encode_with(ciphertexts: &[Ciphertext], out: &mut Vec<u8>, encode: impl Fn(&[Point], &mut [EncodedPoint]) + Sync) {
    let from = out.len();
    out.resize(from + ciphertexts.len() * CIPHERTEXT_BYTES, 0);
    out[from..].par_chunks_mut(TASK * CIPHERTEXT_BYTES).zip(ciphertexts.par_chunks(TASK)).for_each(
        |(bytes, ciphertexts)| {
            let points: Vec<Point> = ciphertexts.iter().flat_map(|ciphertext| [ciphertext.u, ciphertext.e]).collect();
            let mut encoded = vec![EncodedPoint::from_bytes([0; ELEMENT_BYTES]); points.len()];
            encode(&points, &mut encoded);
            for (bytes, encoded) in bytes.chunks_exact_mut(ELEMENT_BYTES).zip(encoded) {
                bytes.copy_from_slice(encoded.as_bytes());
            }
        },
    );
}

/// Appends the encodings of *twice* the ciphertexts: a third of the work. Whoever has multiplied by uniform scalars need not
/// mind the factor; where it matters, what goes in is halved beforehand.
pub fn encode_doubled_ciphertexts(halves: &[Ciphertext], out: &mut Vec<u8>) {
    encode_with(halves, out, |points, encoded| kernels().encode_doubled(points, encoded));
}

/// Canonical encodings.
#[must_use]
pub fn encode_points(points: &[Point]) -> Vec<EncodedPoint> {
    encode_points_with(points, |points, encoded| kernels().encode(points, encoded))
}

/// Canonical encodings of *twice* the points: a fifth of the work.
#[must_use]
pub fn encode_doubled_points(halves: &[Point]) -> Vec<EncodedPoint> {
    encode_points_with(halves, |points, encoded| kernels().encode_doubled(points, encoded))
}

fn encode_points_with(points: &[Point], encode: impl Fn(&[Point], &mut [EncodedPoint]) + Sync) -> Vec<EncodedPoint> {
    let mut encoded = vec![EncodedPoint::from_bytes([0; ELEMENT_BYTES]); points.len()];
    encoded.par_chunks_mut(TASK).zip(points.par_chunks(TASK)).for_each(|(encoded, points)| encode(points, encoded));
    encoded
}

/// Encrypts: (r·G, M + r·Y).
#[must_use]
pub fn encrypt(key: &CompositeKey, messages: &[Point], nonces: &[Scalar]) -> Vec<Ciphertext> {
    assert_eq!(messages.len(), nonces.len(), "one nonce for each message");
    let identity = Point::identity();
    let mut ciphertexts: Vec<_> = messages.iter().map(|message| Ciphertext { u: identity, e: *message }).collect();
    rerandomize(key, &mut ciphertexts, nonces);
    ciphertexts
}

/// Encrypts *twice* the messages, and encodes: u = 2r·G, then e = 2(M + r·Y). That costs less than [`encrypt`] and
/// [`encode_ciphertexts`] do, as encodings of doubles cost a fifth of others; and twice a uniform nonce is uniform.
pub fn encrypt_doubled(
    key: &CompositeKey,
    halves: &[Point],
    nonces: &[Scalar],
    encoded: &mut [[u8; CIPHERTEXT_BYTES]],
) {
    assert_eq!(halves.len(), nonces.len(), "one nonce for each message");
    assert_eq!(halves.len(), encoded.len(), "one place for each message");
    let tasks = halves.par_chunks(ENCRYPTION_TASK).zip(nonces.par_chunks(ENCRYPTION_TASK));
    encoded
        .par_chunks_mut(ENCRYPTION_TASK)
        .zip(tasks)
        .for_each(|(encoded, (halves, nonces))| kernels().encrypt_doubled(key, halves, nonces, encoded));
}

/// Encrypts the identity: (r·G, r·Y).
#[must_use]
pub fn encrypt_zero(key: &CompositeKey, nonces: &[Scalar]) -> Vec<Ciphertext> {
    let mut ciphertexts = vec![Ciphertext { u: Point::identity(), e: Point::identity() }; nonces.len()];
    rerandomize(key, &mut ciphertexts, nonces);
    ciphertexts
}

/// Adds fresh encryptions of the identity: nobody can tell which ciphertext came from which.
pub fn rerandomize(key: &CompositeKey, ciphertexts: &mut [Ciphertext], nonces: &[Scalar]) {
    assert_eq!(ciphertexts.len(), nonces.len(), "one nonce for each ciphertext");
    ciphertexts
        .par_chunks_mut(TASK)
        .zip(nonces.par_chunks(TASK))
        .for_each(|(ciphertexts, nonces)| kernels().rerandomize(key, nonces, ciphertexts));
}

/// Peels one layer: (u, e − x·u).
pub fn peel(secret: &KeyShareSecret, ciphertexts: &mut [Ciphertext]) {
    ciphertexts.par_chunks_mut(TASK).for_each(|ciphertexts| {
        let mut opened = vec![Point::identity(); ciphertexts.len()];
        kernels().open(secret.x.expose(), ciphertexts, &mut opened);
        for (ciphertext, e) in ciphertexts.iter_mut().zip(opened) {
            ciphertext.e = e;
        }
    });
}

/// Peels one layer and multiplies by one exponent for all: (b·u, b·(e − x·u)). Equal messages stay equal.
pub fn peel_and_blind(secret: &KeyShareSecret, exponent: &Secret<Scalar>, ciphertexts: &mut [Ciphertext]) {
    let minus_both = Secret::new(-(*exponent.expose() * *secret.x.expose()));
    let (b, c) = (Scalars::Shared(exponent.expose()), Scalars::Shared(minus_both.expose()));
    ciphertexts.par_chunks_mut(TASK).for_each(|ciphertexts| kernels().scale_and_add(b, c, ciphertexts));
}

/// Peels one layer and multiplies each ciphertext by a scalar of its own: (s·u, s·(e − x·u)). An encryption of the
/// identity becomes a fresh one; any other message becomes a random multiple of itself.
pub fn peel_and_scale(secret: &KeyShareSecret, scalars: &[Scalar], ciphertexts: &mut [Ciphertext]) {
    assert_eq!(ciphertexts.len(), scalars.len(), "one scalar for each ciphertext");
    ciphertexts.par_chunks_mut(TASK).zip(scalars.par_chunks(TASK)).for_each(|(ciphertexts, scalars)| {
        let minus_both: Vec<Scalar> = scalars.iter().map(|scalar| -(*scalar * *secret.x.expose())).collect();
        let minus_both = Secret::new(minus_both);
        kernels().scale_and_add(Scalars::Each(scalars), Scalars::Each(minus_both.expose()), ciphertexts);
    });
}

/// Multiplies: (s·u, s·e).
pub fn scale(scalars: &[Scalar], ciphertexts: &mut [Ciphertext]) {
    assert_eq!(ciphertexts.len(), scalars.len(), "one scalar for each ciphertext");
    ciphertexts.par_chunks_mut(TASK).zip(scalars.par_chunks(TASK)).for_each(|(ciphertexts, scalars)| {
        let mut u: Vec<Point> = ciphertexts.iter().map(|ciphertext| ciphertext.u).collect();
        let mut e: Vec<Point> = ciphertexts.iter().map(|ciphertext| ciphertext.e).collect();
        kernels().multiply(Scalars::Each(scalars), &mut u);
        kernels().multiply(Scalars::Each(scalars), &mut e);
        for (ciphertext, (u, e)) in ciphertexts.iter_mut().zip(u.into_iter().zip(e)) {
            *ciphertext = Ciphertext { u, e };
        }
    });
}

/// Multiplies each ciphertext by a row of scalars of its own, all equally long, one row after the other. Two
/// multiples of one ciphertext cost four fifths of those of two, nine not quite half.
#[must_use]
pub fn scale_rows(scalars: &[Scalar], ciphertexts: &[Ciphertext]) -> Vec<Ciphertext> {
    let row = scalars.len().checked_div(ciphertexts.len()).unwrap_or(0);
    assert_eq!(scalars.len(), row * ciphertexts.len(), "as many scalars for each ciphertext");
    if row < 2 {
        // Tables pay from two multiples on.
        let mut scaled = ciphertexts[..scalars.len()].to_vec();
        scale(scalars, &mut scaled);
        return scaled;
    }
    let mut scaled = vec![Ciphertext { u: Point::identity(), e: Point::identity() }; scalars.len()];
    let task = TASK.div_ceil(row).next_multiple_of(8);
    let parts = scaled.par_chunks_mut(task * row).zip(scalars.par_chunks(task * row));
    parts.zip(ciphertexts.par_chunks(task)).for_each(|((scaled, scalars), ciphertexts)| {
        let mut u = vec![Point::identity(); scalars.len()];
        let mut e = u.clone();
        let bases: Vec<Point> = ciphertexts.iter().map(|ciphertext| ciphertext.u).collect();
        kernels().multiply_rows(row, scalars, &bases, &mut u);
        let bases: Vec<Point> = ciphertexts.iter().map(|ciphertext| ciphertext.e).collect();
        kernels().multiply_rows(row, scalars, &bases, &mut e);
        for (place, (u, e)) in scaled.iter_mut().zip(u.into_iter().zip(e)) {
            *place = Ciphertext { u, e };
        }
    });
    scaled
}

/// Adds messages that are multiples of one element: (u, e + s·M).
pub fn add_multiples(base: &FixedBase, scalars: &[Scalar], ciphertexts: &mut [Ciphertext]) {
    assert_eq!(ciphertexts.len(), scalars.len(), "one scalar for each ciphertext");
    ciphertexts.par_chunks_mut(TASK).zip(scalars.par_chunks(TASK)).for_each(|(ciphertexts, scalars)| {
        let mut e: Vec<Point> = ciphertexts.iter().map(|ciphertext| ciphertext.e).collect();
        kernels().add_multiples(base, scalars, &mut e);
        for (ciphertext, e) in ciphertexts.iter_mut().zip(e) {
            ciphertext.e = e;
        }
    });
}

/// Opens the last layer: e − x·u.
#[must_use]
pub fn open(secret: &KeyShareSecret, ciphertexts: &[Ciphertext]) -> Vec<Point> {
    let mut opened = vec![Point::identity(); ciphertexts.len()];
    opened
        .par_chunks_mut(TASK)
        .zip(ciphertexts.par_chunks(TASK))
        .for_each(|(opened, ciphertexts)| kernels().open(secret.x.expose(), ciphertexts, opened));
    opened
}

/// Whether the last layer hides the identity: e = x·u, compared as Ristretto cosets.
#[must_use]
pub fn opens_to_identity(secret: &KeyShareSecret, ciphertexts: &[Ciphertext]) -> Vec<bool> {
    let mut identity = vec![false; ciphertexts.len()];
    identity
        .par_chunks_mut(TASK)
        .zip(ciphertexts.par_chunks(TASK))
        .for_each(|(identity, ciphertexts)| kernels().opens_to_identity(secret.x.expose(), ciphertexts, identity));
    identity
}

/// The element that each message stands for: twice those of [`hash_to_halves`].
#[must_use]
pub fn hash_to_group<M: AsRef<[u8]> + Sync>(domain: Domain, messages: &[M]) -> Vec<Point> {
    let mut points = hash_to_halves(domain, messages);
    points.par_iter_mut().with_min_len(TASK).for_each(|point| *point = *point + *point);
    points
}

/// What gives the element that a message stands for when it is added to itself, for each message: see
/// [`hash`](crate::hash).
#[must_use]
pub fn hash_to_halves<M: AsRef<[u8]> + Sync>(domain: Domain, messages: &[M]) -> Vec<Point> {
    let mut points = vec![Point::identity(); messages.len()];
    points.par_chunks_mut(TASK).zip(messages.par_chunks(TASK)).for_each(|(points, messages)| {
        let messages: Vec<&[u8]> = messages.iter().map(AsRef::as_ref).collect();
        let mut uniform = Zeroizing::new(vec![[0; 64]; messages.len()]);
        kernels().expand(domain, &messages, &mut uniform);
        kernels().map_uniform(&uniform, points);
    });
    points
}

/// 1 to `count` times an element.
#[must_use]
pub fn multiples(base: &Point, count: usize) -> Vec<Point> {
    std::iter::successors(Some(*base), |last| Some(*last + *base)).take(count).collect()
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;
    use crate::{
        hash::{self, constant},
        proof::PossessionContext,
    };

    fn key(rng: &mut ChaCha20Rng) -> CompositeKey {
        let secret = KeyShareSecret::generate(rng);
        let context = PossessionContext { session: [1; 32], duchy: "worker1", certificate_sha256: [2; 32] };
        let proof = secret.prove_possession(&context, rng);
        CompositeKey::combine(&[secret.public().verify_possession(&context, &proof).unwrap()]).unwrap()
    }

    /// Messages 0 to `count` − 1 times an element, and nonces.
    fn some(count: usize, rng: &mut ChaCha20Rng) -> (Vec<Point>, Vec<Scalar>) {
        let points = (0..count).map(|number| constant("unit") * &Scalar::from(number as u64)).collect();
        (points, (0..count).map(|_| Scalar::random(rng)).collect())
    }

    #[test]
    fn encrypting_to_bytes_is_encrypting_and_encoding() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let key = key(&mut rng);
        for count in [0, 1, ENCRYPTION_TASK, ENCRYPTION_TASK + 9] {
            let (halves, nonces) = some(count, &mut rng);
            let points: Vec<Point> = halves.iter().map(|half| *half + *half).collect();
            let doubles: Vec<Scalar> = nonces.iter().map(|nonce| *nonce + *nonce).collect();
            let mut expected = Vec::new();
            encode_ciphertexts(&encrypt(&key, &points, &doubles), &mut expected);
            let mut found = vec![[7; CIPHERTEXT_BYTES]; count];
            encrypt_doubled(&key, &halves, &nonces, &mut found);
            assert_eq!(found.as_flattened(), expected);
        }
    }

    #[test]
    fn elements_are_twice_their_halves() {
        let messages: Vec<String> = (0..TASK + 9).map(|number| number.to_string()).collect();
        let halves = hash_to_halves(Domain::Key, &messages);
        let elements = hash_to_group(Domain::Key, &messages);
        for (message, (half, element)) in messages.iter().zip(halves.iter().zip(&elements)) {
            assert_eq!(*half + *half, *element);
            assert_eq!(hash::hash_to_half(Domain::Key, message.as_bytes()), *half);
            assert_eq!(hash::hash_to_group(Domain::Key, message.as_bytes()), *element);
        }
    }

    #[test]
    fn rows_and_doubles_are_what_single_products_are() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let base = FixedBase::new(constant("unit"));
        for (count, row) in [(0, 3), (1, 1), (9, 0), (70, 2), (11, 9), (9, 70)] {
            let (points, _) = some(count, &mut rng);
            let scalars: Vec<Scalar> = (0..count * row).map(|_| Scalar::random(&mut rng)).collect();
            let ciphertexts: Vec<Ciphertext> =
                points.iter().map(|point| Ciphertext { u: *point, e: *point + constant("unit") }).collect();
            let mut expected: Vec<Ciphertext> =
                ciphertexts.iter().flat_map(|ciphertext| std::iter::repeat_n(*ciphertext, row)).collect();
            scale(&scalars, &mut expected);
            let mut found = scale_rows(&scalars, &ciphertexts);
            assert_eq!(found, expected);

            add_multiples(&base, &scalars, &mut found);
            for (ciphertext, scalar) in expected.iter_mut().zip(&scalars) {
                ciphertext.e = ciphertext.e + constant("unit") * scalar;
            }
            assert_eq!(found, expected);

            let doubles: Vec<Ciphertext> = found.iter().map(|half| *half + *half).collect();
            let mut bytes = [Vec::new(), Vec::new()];
            encode_ciphertexts(&doubles, &mut bytes[0]);
            encode_doubled_ciphertexts(&found, &mut bytes[1]);
            assert_eq!(bytes[0], bytes[1]);
            let halves: Vec<Point> = found.iter().map(|half| half.e).collect();
            assert_eq!(encode_doubled_points(&halves), encode_points(&doubles.iter().map(|d| d.e).collect::<Vec<_>>()));
        }
    }
}
