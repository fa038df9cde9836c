//! The vectorised backend: eight independent elements in the eight lanes of AVX-512 IFMA instructions.
//!
//! Lanes never talk to each other and the formulas are the scalar ones, so there is no shuffling; see `field` for the
//! representation and its bounds, `point` for the formulas, `montgomery` for one multiple of a point, `ladder` for sums of
//! two, `rows` for several multiples of one and `comb` for those of a fixed one, `coding` and `doubling` for encodings,
//! `sha512` for hashes.
//!
//! # How points get in and out
//! curve25519-dalek shows no coordinates, and its layout is not guaranteed. To go through its encodings would cost two
//! inverse square roots for every point and kernel (0.5 µs in the lanes and 4 µs outside). So where this backend
//! computes, a [`Point`] *is* four coordinates in radix 2^51 (`group::coordinates`), which a kernel loads and stores in some
//! 30 ns; single sums, negatives and comparisons are scalar code on the same coordinates, single multiplications and
//! encodings are kernels with seven lanes idle.
//!
//! # Constant time
//! Nothing branches on a scalar or a coordinate, or on what is computed from them, and no address depends on one. Loops have
//! fixed lengths; selections use masks, and read whole tables (`ladder`), permute inside of registers (`comb`) or choose one
//! of two (`montgomery`). Checked in the disassembly of a release build: the loop of `climb`, `multiple`, the additions of
//! ladder and comb, the formulas and the coding functions have no jump at all but counters of loops; in the kernels around
//! them, jumps and indexed addresses come from the digit's position and from the number of items; there is no gather and no
//! division. What is public decides freely: the number of items, and whether an encoding is accepted.
//!
//! # Cost
//! In vector instructions for eight lanes: a product is 51 multiply-adds, 5 multiplications and 28 others, a square 31, 5 and
//! 35. A CPU that starts one multiplication of any kind a cycle and two vector instructions in all (Zen 4) needs at least 56
//! and 36 cycles; a step of the Montgomery ladder (5 products, 4 squares, 11 for a small factor) 435, a doubling (4 products,
//! 3 squares) 332, an addition of a cached point (8 products, and 160 loads of the table) 448. One multiple of a point has
//! 253 steps, and a share of an inversion: some 112,000 cycles for eight points at least, and 122,000 as measured. A sum of two has
//! 252 doublings and 128 additions, and 9 products for each of the 14 additions of its tables: 148,000 at least.
//!
//! A store costs this CPU a multiplication's cycle, a load nothing, and it looks some 150 instructions ahead. So formulas
//! stand in an order in which results live in registers and nothing waits for the product right before it (`Fe::hold`).
//!
//! # Unsafe code
//! Three kinds in this tree: calls of functions that need the CPU features, for which [`Ifma`] is the ticket;
//! the loads and stores of whole arrays in `lanes`; and in `field` an empty piece of assembly that keeps an order.

mod coding;
mod comb;
mod doubling;
mod field;
mod kernels;
mod ladder;
mod lanes;
mod montgomery;
mod point;
mod recode;
mod rows;
mod sha512;

use zeroize::Zeroizing;

pub(crate) use self::comb::Comb;
use self::lanes::Eight;
use super::{FixedBase, Kernels, Portable, Scalars};
use crate::{
    elgamal::{CIPHERTEXT_BYTES, Ciphertext, CompositeKey},
    group::{ELEMENT_BYTES, EncodedPoint, Form, Point, Scalar, coordinates::Coordinates},
    hash::Domain,
};

/// Elements in a register.
const LANES: usize = 8;
/// Elements that share an inversion, or the tables of a comb in the first cache: 10 KiB of coordinates.
const BATCH: usize = 8 * LANES;

/// Proof that this CPU has the instructions: there is no other way to get one than [`Ifma::detect`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ifma(());

impl Ifma {
    /// Whether the CPU, and the operating system, support what this module is compiled for.
    pub(crate) fn detect() -> Option<&'static Self> {
        static DETECTED: Ifma = Ifma(());
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512ifma"))
        .then_some(&DETECTED)
    }

    /// The point as this backend keeps it.
    fn point(&self, coordinates: Coordinates) -> Point {
        Point(Form::Lanes(coordinates, *self))
    }

    /// The coordinates of a point of any backend.
    pub(crate) fn coordinates(&self, point: &Point) -> Coordinates {
        match &point.0 {
            Form::Lanes(coordinates, _) => *coordinates,
            Form::Dalek(point) => {
                self.decode_sixteen(&[EncodedPoint::from_bytes(point.compress().to_bytes())])[0].0.get(0)
            }
        }
    }

    /// At most eight points, with identities behind them.
    fn eight<'a>(&self, points: impl Iterator<Item = &'a Point>) -> Eight {
        let mut eight = Eight::identity();
        for (lane, point) in points.take(LANES).enumerate() {
            match &point.0 {
                Form::Lanes(coordinates, _) => eight.set(lane, coordinates),
                Form::Dalek(_) => eight.set(lane, &self.coordinates(point)),
            }
        }
        eight
    }

    /// The points of all lanes.
    fn points(&self, eight: &Eight) -> impl Iterator<Item = Point> {
        (0..LANES).map(|lane| self.point(eight.get(lane)))
    }

    /// The ciphertexts of these components.
    fn ciphertexts(&self, [u, e]: &[Eight; 2]) -> impl Iterator<Item = Ciphertext> {
        self.points(u).zip(self.points(e)).map(|(u, e)| Ciphertext { u, e })
    }

    /// The components of at most eight ciphertexts.
    fn components(&self, ciphertexts: &[Ciphertext]) -> [Eight; 2] {
        [
            self.eight(ciphertexts.iter().map(|ciphertext| &ciphertext.u)),
            self.eight(ciphertexts.iter().map(|ciphertext| &ciphertext.e)),
        ]
    }

    /// The components of ciphertexts, eight by eight.
    fn all_components(&self, ciphertexts: &[Ciphertext]) -> Vec<[Eight; 2]> {
        ciphertexts.chunks(LANES).map(|ciphertexts| self.components(ciphertexts)).collect()
    }

    fn decode_sixteen(&self, encoded: &[EncodedPoint]) -> [(Eight, u8); 2] {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { kernels::decode(encoded) }
    }

    /// The canonical encodings of at most sixteen points.
    pub(crate) fn encode_sixteen(&self, points: &[Point]) -> [[EncodedPoint; LANES]; 2] {
        let (first, second) = points.split_at(points.len().min(LANES));
        let points = [self.eight(first.iter()), self.eight(second.iter())];
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { kernels::encode(&points) }.map(|eight| eight.map(EncodedPoint::from_bytes))
    }

    fn comb(&self, base: &Point) -> Comb {
        let base = self.coordinates(base);
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { Comb::new(&base) }
    }
}

/// Puts results in their places; the lanes beyond are padding.
fn put<'a, T: 'a>(places: impl IntoIterator<Item = &'a mut T>, results: impl IntoIterator<Item = T>) {
    for (place, result) in places.into_iter().zip(results) {
        *place = result;
    }
}

impl Kernels for Ifma {
    fn identity(&self) -> Point {
        self.point(Coordinates::IDENTITY)
    }

    fn decode(&self, encoded: &[EncodedPoint], points: &mut [Option<Point>]) {
        for (encoded, points) in encoded.chunks(2 * LANES).zip(points.chunks_mut(2 * LANES)) {
            for ((decoded, failed), points) in self.decode_sixteen(encoded).into_iter().zip(points.chunks_mut(LANES)) {
                let decoded = self.points(&decoded).enumerate();
                put(points, decoded.map(|(lane, point)| (failed >> lane & 1 == 0).then_some(point)));
            }
        }
    }

    fn encode(&self, points: &[Point], encoded: &mut [EncodedPoint]) {
        for (points, encoded) in points.chunks(2 * LANES).zip(encoded.chunks_mut(2 * LANES)) {
            put(encoded, self.encode_sixteen(points).into_iter().flatten());
        }
    }

    fn encode_doubled(&self, halves: &[Point], encoded: &mut [EncodedPoint]) {
        let eights: Vec<Eight> = halves.chunks(LANES).map(|halves| self.eight(halves.iter())).collect();
        // SAFETY: `self` proves that the CPU has the features.
        let strings = unsafe { kernels::encode_doubled(&eights) };
        put(encoded, strings.into_iter().flatten().map(EncodedPoint::from_bytes));
    }

    fn add_multiples(&self, base: &FixedBase, scalars: &[Scalar], points: &mut [Point]) {
        let comb = base.comb(|base| self.comb(base));
        for (scalars, points) in scalars.chunks(BATCH).zip(points.chunks_mut(BATCH)) {
            let before: Vec<Eight> = points.chunks(LANES).map(|points| self.eight(points.iter())).collect();
            // SAFETY: `self` proves that the CPU has the features.
            let after = unsafe { kernels::add_multiples(comb, scalars, &before) };
            put(points, after.iter().flat_map(|eight| self.points(eight)));
        }
    }

    fn multiply_rows(&self, row: usize, scalars: &[Scalar], bases: &[Point], products: &mut [Point]) {
        let parts = scalars.chunks(LANES * row).zip(products.chunks_mut(LANES * row));
        for (bases, (scalars, products)) in bases.chunks(LANES).zip(parts) {
            let bases = self.eight(bases.iter());
            // SAFETY: `self` proves that the CPU has the features.
            let eights = unsafe { rows::multiply(scalars, row, &bases) };
            for (place, eight) in eights.iter().enumerate() {
                put(products.iter_mut().skip(place).step_by(row), self.points(eight));
            }
        }
    }

    fn encrypt_doubled(
        &self,
        key: &CompositeKey,
        halves: &[Point],
        nonces: &[Scalar],
        encoded: &mut [[u8; CIPHERTEXT_BYTES]],
    ) {
        let bases = [FixedBase::generator(), key.base()].map(|base| base.comb(|base| self.comb(base)));
        let halves = halves.chunks(LANES).map(|halves| self.eight(halves.iter()));
        let halves = Zeroizing::new(halves.collect::<Vec<_>>());
        // SAFETY: `self` proves that the CPU has the features.
        let strings = unsafe { kernels::encrypt_doubled(bases, nonces, &halves) };
        let (u, e) = strings.as_flattened().split_at(LANES * halves.len());
        for (place, (u, e)) in encoded.iter_mut().zip(u.iter().zip(e)) {
            place[..ELEMENT_BYTES].copy_from_slice(u);
            place[ELEMENT_BYTES..].copy_from_slice(e);
        }
    }

    fn rerandomize(&self, key: &CompositeKey, nonces: &[Scalar], ciphertexts: &mut [Ciphertext]) {
        let bases = [FixedBase::generator(), key.base()].map(|base| base.comb(|base| self.comb(base)));
        for (nonces, ciphertexts) in nonces.chunks(BATCH).zip(ciphertexts.chunks_mut(BATCH)) {
            let before = self.all_components(ciphertexts);
            // SAFETY: `self` proves that the CPU has the features.
            let after = unsafe { kernels::rerandomize(bases, nonces, &before) };
            put(ciphertexts, after.iter().flat_map(|eights| self.ciphertexts(eights)));
        }
    }

    fn multiply(&self, scalars: Scalars<'_>, points: &mut [Point]) {
        for (number, points) in points.chunks_mut(BATCH).enumerate() {
            let scalars = scalars.part(number * BATCH, points.len());
            let before: Vec<Eight> = points.chunks(LANES).map(|points| self.eight(points.iter())).collect();
            // SAFETY: `self` proves that the CPU has the features.
            let after = unsafe { kernels::multiply(scalars, &before) };
            put(points, after.iter().flat_map(|eight| self.points(eight)));
        }
    }

    fn scale_and_add(&self, b: Scalars<'_>, c: Scalars<'_>, ciphertexts: &mut [Ciphertext]) {
        for (number, ciphertexts) in ciphertexts.chunks_mut(BATCH).enumerate() {
            let [b, c] = [b, c].map(|scalars| scalars.part(number * BATCH, ciphertexts.len()));
            let before = self.all_components(ciphertexts);
            // SAFETY: `self` proves that the CPU has the features.
            let after = unsafe { kernels::scale_and_add(b, c, &before) };
            put(ciphertexts, after.iter().flat_map(|eights| self.ciphertexts(eights)));
        }
    }

    fn open(&self, x: &Scalar, ciphertexts: &[Ciphertext], opened: &mut [Point]) {
        for (ciphertexts, opened) in ciphertexts.chunks(BATCH).zip(opened.chunks_mut(BATCH)) {
            let before = self.all_components(ciphertexts);
            // SAFETY: `self` proves that the CPU has the features.
            let after = unsafe { kernels::open(x, &before) };
            put(opened, after.iter().flat_map(|eight| self.points(eight)));
        }
    }

    fn opens_to_identity(&self, x: &Scalar, ciphertexts: &[Ciphertext], identity: &mut [bool]) {
        for (ciphertexts, identity) in ciphertexts.chunks(BATCH).zip(identity.chunks_mut(BATCH)) {
            let before = self.all_components(ciphertexts);
            // SAFETY: `self` proves that the CPU has the features.
            let eights = unsafe { kernels::opens_to_identity(x, &before) };
            put(identity, eights.iter().flat_map(|lanes| (0..LANES).map(move |lane| lanes >> lane & 1 == 1)));
        }
    }

    fn expand(&self, domain: Domain, messages: &[&[u8]], uniform: &mut [[u8; 2 * ELEMENT_BYTES]]) {
        for (messages, uniform) in messages.chunks(LANES).zip(uniform.chunks_mut(LANES)) {
            // SAFETY: `self` proves that the CPU has the features.
            if unsafe { sha512::expand(domain.tag(), messages, uniform) }.is_none() {
                Portable.expand(domain, messages, uniform);
            }
        }
    }

    fn map_uniform(&self, uniform: &[[u8; 2 * ELEMENT_BYTES]], points: &mut [Point]) {
        for (uniform, points) in uniform.chunks(LANES).zip(points.chunks_mut(LANES)) {
            // SAFETY: `self` proves that the CPU has the features.
            let mapped = unsafe { kernels::from_uniform(uniform) };
            put(points, self.points(&mapped));
        }
    }
}
