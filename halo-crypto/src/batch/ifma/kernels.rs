//! What [`Kernels`](crate::batch::Kernels) does, for at most eight items; for sixteen where two chains interleave, and for
//! several eights where they share an inversion.

use super::{
    LANES, coding,
    comb::{self, Comb},
    doubling,
    ladder::{self, Digits, Table},
    lanes::{Eight, Words, gather, scatter},
    montgomery::{self, Steps, one_of},
    point::{Completed, Extended},
};
use crate::{
    batch::Scalars,
    group::{ELEMENT_BYTES, EncodedPoint, Scalar},
};

/// The points of at most sixteen encodings, and masks of those that are none.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn decode(encoded: &[EncodedPoint]) -> [(Eight, u8); 2] {
    let (first, second) = encoded.split_at(encoded.len().min(LANES));
    let words = [first, second].map(|encoded| Words::new(encoded.iter().map(EncodedPoint::as_bytes)));
    let [first, second] = coding::decode(&words);
    [(scatter(&first.0), first.1), (scatter(&second.0), second.1)]
}

/// Canonical encodings.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn encode([first, second]: &[Eight; 2]) -> [[[u8; ELEMENT_BYTES]; LANES]; 2] {
    let [first, second] = coding::encode(&[gather(first), gather(second)]);
    [first.to_bytes(), second.to_bytes()]
}

/// Canonical encodings of twice the points.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn encode_doubled(halves: &[Eight]) -> Vec<[[u8; ELEMENT_BYTES]; LANES]> {
    let mut points = Vec::with_capacity(halves.len());
    for half in halves {
        points.push(gather(half));
    }
    doubling::encode_doubled(&points)
}

/// The encodings of all 2r·G, then of all 2(M + r·Y). From nonces to bytes no point leaves the lanes.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn encrypt_doubled(
    [g, y]: [&Comb; 2],
    nonces: &[Scalar],
    halves: &[Eight],
) -> Vec<[[u8; ELEMENT_BYTES]; LANES]> {
    let digits = comb_digits(nonces);
    let u = g.add_multiples(&digits, vec![Completed::identity(); halves.len()]);
    let e = y.add_multiples(&digits, completed(halves.iter()));
    let mut points = Vec::with_capacity(u.len() + e.len());
    for sum in u.iter().chain(&e) {
        points.push(sum.extended());
    }
    doubling::encode_doubled(&points)
}

/// (u + r·G, e + r·Y).
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn rerandomize([g, y]: [&Comb; 2], nonces: &[Scalar], ciphertexts: &[[Eight; 2]]) -> Vec<[Eight; 2]> {
    let digits = comb_digits(nonces);
    let u = g.add_multiples(&digits, completed(ciphertexts.iter().map(|[u, _]| u)));
    let e = y.add_multiples(&digits, completed(ciphertexts.iter().map(|[_, e]| e)));
    u.iter().zip(&e).map(|(u, e)| [scatter(&u.extended()), scatter(&e.extended())]).collect()
}

/// The points and scalars times the base of the comb.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn add_multiples(comb: &Comb, scalars: &[Scalar], points: &[Eight]) -> Vec<Eight> {
    let sums = comb.add_multiples(&comb_digits(scalars), completed(points.iter()));
    sums.iter().map(|sum| scatter(&sum.extended())).collect()
}

/// Scalars times points.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn multiply(scalars: Scalars<'_>, points: &[Eight]) -> Vec<Eight> {
    let points = gather_all(points.iter());
    montgomery::multiply(&steps(scalars), &points).iter().map(|product| scatter(product)).collect()
}

/// (b·u, b·e + c·u), the second on one doubling chain.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn scale_and_add(b: Scalars<'_>, c: Scalars<'_>, ciphertexts: &[[Eight; 2]]) -> Vec<[Eight; 2]> {
    let u = gather_all(ciphertexts.iter().map(|[u, _]| u));
    let scaled = montgomery::multiply(&steps(b), &u);
    let (b, c) = (digits(b), digits(c));
    let mut results = Vec::with_capacity(u.len());
    for (number, ([_, e], (u, scaled))) in ciphertexts.iter().zip(u.iter().zip(&scaled)).enumerate() {
        let (u, e) = (Table::new(u), Table::new(&gather(e)));
        let sum = ladder::sum_of([(one_of(&b, number), &e), (one_of(&c, number), &u)]);
        results.push([scatter(scaled), scatter(&sum)]);
    }
    results
}

/// e − x·u.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn open(x: &Scalar, ciphertexts: &[[Eight; 2]]) -> Vec<Eight> {
    let products = times(x, ciphertexts);
    ciphertexts.iter().zip(&products).map(|([_, e], product)| scatter(&gather(e).sub(product))).collect()
}

/// Where e = x·u, as elements of Ristretto255.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn opens_to_identity(x: &Scalar, ciphertexts: &[[Eight; 2]]) -> Vec<u8> {
    let products = times(x, ciphertexts);
    ciphertexts.iter().zip(&products).map(|([_, e], product)| gather(e).equals(product)).collect()
}

/// The one-way map of RFC 9496.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn from_uniform(uniform: &[[u8; 2 * ELEMENT_BYTES]]) -> Eight {
    let half = |number: usize| uniform.iter().map(move |bytes| &bytes.as_chunks().0[number]);
    scatter(&coding::from_uniform(&[Words::new(half(0)), Words::new(half(1))]))
}

/// x·u of all.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn times(x: &Scalar, ciphertexts: &[[Eight; 2]]) -> Vec<Extended> {
    montgomery::multiply(&steps(Scalars::Shared(x)), &gather_all(ciphertexts.iter().map(|[u, _]| u)))
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn gather_all<'a>(points: impl ExactSizeIterator<Item = &'a Eight>) -> Vec<Extended> {
    let mut gathered = Vec::with_capacity(points.len());
    for point in points {
        gathered.push(gather(point));
    }
    gathered
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn completed<'a>(points: impl ExactSizeIterator<Item = &'a Eight>) -> Vec<Completed> {
    let mut completed = Vec::with_capacity(points.len());
    for point in points {
        completed.push(gather(point).completed());
    }
    completed
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn comb_digits(scalars: &[Scalar]) -> Vec<comb::Digits> {
    comb::Digits::of(scalars.chunks(LANES))
}

/// Of one scalar for all, or of each eight.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn steps(scalars: Scalars<'_>) -> Vec<Steps> {
    match scalars {
        Scalars::Shared(scalar) => Steps::of_one(scalar),
        Scalars::Each(scalars) => Steps::of(scalars.chunks(LANES)),
    }
}

/// Of one scalar for all, or of each eight.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn digits(scalars: Scalars<'_>) -> Vec<Digits> {
    match scalars {
        Scalars::Shared(scalar) => Digits::of_one(scalar),
        Scalars::Each(scalars) => Digits::of(scalars.chunks(LANES)),
    }
}
