//! Ristretto255: scalars, elements, and their form on the wire.
//!
//! [`Point`] is for computing, [`EncodedPoint`] is for sending. Decoding is the only way from the second to the first,
//! and it accepts canonical encodings only, so a `Point` is always a group element. Only this module, `batch` and `elgamal`
//! name the curve library. Single operations are slices of one in [`batch`](crate::batch)'s backend, sums aside.

#[cfg(target_arch = "x86_64")]
pub(crate) mod coordinates;
mod form;

use std::{
    fmt,
    iter::Sum,
    ops::{Add, Mul, Neg, Sub},
};

use curve25519_dalek::{constants::RISTRETTO_BASEPOINT_POINT, scalar::Scalar as DalekScalar};
use rand_core::CryptoRng;
use zeroize::Zeroize;

pub(crate) use self::form::Form;
use crate::{
    Error,
    batch::{Scalars, kernels},
};

/// Bytes of an encoded element, and of a scalar.
pub const ELEMENT_BYTES: usize = 32;

/// An integer modulo the group order ℓ = 2^252 + 27742317777372353535851937790883648493.
///
/// It never prints its value, as it may be secret; a secret that lives longer than a call sits in
/// [`Secret`](crate::secret::Secret).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scalar(pub(crate) DalekScalar);

impl Scalar {
    /// Uniform.
    pub fn random(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut wide = [0; 64];
        rng.fill_bytes(&mut wide);
        let scalar = Self::from_wide(&wide);
        wide.zeroize();
        scalar
    }

    /// A nonce for one encryption: 32 random bytes, reduced, at a third of the cost of [`Scalar::random`].
    ///
    /// As good as uniform: 2^252 is so close below ℓ that no scalar is more than 1 + 2^-127 times as likely as it should be,
    /// so whatever breaks n encryptions succeeds at most (1 + 2^-127)^n times as often as it would against uniform nonces.
    pub fn nonce(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut bytes = [0; ELEMENT_BYTES];
        rng.fill_bytes(&mut bytes);
        let scalar = Self(DalekScalar::from_bytes_mod_order(bytes));
        bytes.zeroize();
        scalar
    }

    /// 64 uniform bytes, little endian, reduced: uniform up to 2^-250.
    #[must_use]
    pub fn from_wide(bytes: &[u8; 64]) -> Self {
        Self(DalekScalar::from_bytes_mod_order_wide(bytes))
    }

    /// Reads a canonical encoding.
    ///
    /// # Errors
    /// [`Error::NotAScalar`] when the integer is not below the group order.
    pub fn from_canonical(bytes: [u8; ELEMENT_BYTES]) -> Result<Self, Error> {
        Option::from(DalekScalar::from_canonical_bytes(bytes)).map(Self).ok_or(Error::NotAScalar)
    }

    /// Little endian, canonical.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; ELEMENT_BYTES] {
        self.0.to_bytes()
    }

    /// The inverse; 0 for 0.
    #[must_use]
    pub fn invert(&self) -> Self {
        Self(self.0.invert())
    }
}

impl From<u64> for Scalar {
    fn from(value: u64) -> Self {
        Self(DalekScalar::from(value))
    }
}

impl fmt::Debug for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scalar(…)")
    }
}

impl Zeroize for Scalar {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl Neg for Scalar {
    type Output = Self;

    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl Add for Scalar {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sub for Scalar {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl Mul for Scalar {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }
}

/// A group element, for computing. All its operations take constant time. It never prints itself, as it may be an opened
/// plaintext; its encoding does.
#[derive(Clone, Copy)]
pub struct Point(pub(crate) Form);

impl PartialEq for Point {
    fn eq(&self, other: &Self) -> bool {
        self.equals(other)
    }
}

impl Eq for Point {}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Point(…)")
    }
}

impl Point {
    /// The neutral element.
    #[must_use]
    pub fn identity() -> Self {
        kernels().identity()
    }

    /// The standard generator of Ristretto255.
    #[must_use]
    pub const fn generator() -> Self {
        Self(Form::Dalek(RISTRETTO_BASEPOINT_POINT))
    }

    /// Whether this is the neutral element.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        *self == Self::identity()
    }

    /// The canonical encoding.
    #[must_use]
    pub fn encode(&self) -> EncodedPoint {
        self.encoded()
    }
}

impl Add for Point {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.sum(&other)
    }
}

impl Sub for Point {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.sum(&other.negative())
    }
}

impl Neg for Point {
    type Output = Self;

    fn neg(self) -> Self {
        self.negative()
    }
}

impl Mul<&Scalar> for Point {
    type Output = Self;

    fn mul(self, scalar: &Scalar) -> Self {
        let mut product = [self];
        kernels().multiply(Scalars::Shared(scalar), &mut product);
        product[0]
    }
}

impl Sum for Point {
    fn sum<I: Iterator<Item = Self>>(points: I) -> Self {
        points.fold(Self::identity(), Add::add)
    }
}

impl Zeroize for Point {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

/// A group element as it is sent: 32 bytes that may or may not decode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EncodedPoint([u8; ELEMENT_BYTES]);

impl EncodedPoint {
    /// Takes bytes as they came. Nothing is checked before [`EncodedPoint::decode`].
    #[must_use]
    pub const fn from_bytes(bytes: [u8; ELEMENT_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; ELEMENT_BYTES] {
        &self.0
    }

    /// The element. Variable time in nothing but acceptance, and encodings are public.
    ///
    /// # Errors
    /// [`Error::NotAGroupElement`] for anything but a canonical encoding.
    pub fn decode(&self) -> Result<Point, Error> {
        let mut decoded = [None];
        kernels().decode(&[*self], &mut decoded);
        decoded[0].ok_or(Error::NotAGroupElement)
    }
}

impl fmt::Debug for EncodedPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_does_not_print() {
        assert_eq!(format!("{:?}", Scalar::from(77)), "Scalar(…)");
        assert_eq!(format!("{:?}", Point::generator()), "Point(…)");
    }

    #[test]
    fn only_canonical_encodings_decode() {
        assert_eq!(Point::identity().encode().as_bytes(), &[0; 32]);
        assert_eq!(EncodedPoint::from_bytes([0; 32]).decode().unwrap(), Point::identity());
        // Negative field element, field element not below p, and one that is no element's encoding.
        let mut negative = [0; 32];
        negative[0] = 1;
        let mut too_large = [0xff; 32];
        too_large[31] = 0x7f;
        let mut no_element = [0; 32];
        no_element[..4].copy_from_slice(&[0x26, 0x94, 0x8d, 0x35]);
        for bytes in [negative, too_large, no_element, [0xff; 32]] {
            assert_eq!(EncodedPoint::from_bytes(bytes).decode(), Err(Error::NotAGroupElement));
        }
    }

    #[test]
    fn scalars_not_below_the_order_are_refused() {
        assert_eq!(Scalar::from_canonical([0xff; 32]), Err(Error::NotAScalar));
        assert_eq!(Scalar::from_canonical(Scalar::from(5).to_bytes()), Ok(Scalar::from(5)));
        assert_eq!(Scalar::from(5) * Scalar::from(5).invert(), Scalar::from(1));
    }

    #[test]
    fn generator_is_the_standard_one() {
        // RFC 9496, A.1, first multiple.
        assert_eq!(
            format!("{:?}", Point::generator().encode()),
            "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"
        );
    }
}
