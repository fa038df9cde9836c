//! The two forms in which a [`Point`] is kept, one for each backend.
//!
//! curve25519-dalek does not show its coordinates, so points of its own stay with the portable backend, and the vectorised
//! one keeps coordinates of ours. A process computes with one backend, so forms hardly ever meet: where they do, the point
//! is encoded by one side and decoded by the other (some 5 µs). That is how constants, and a process that changes its
//! backend, get along; between kernels of one backend nothing is ever converted.

use curve25519_dalek::ristretto::RistrettoPoint;
use zeroize::Zeroize;

#[cfg(target_arch = "x86_64")]
use super::coordinates::Coordinates;
use super::{EncodedPoint, Point};
#[cfg(target_arch = "x86_64")]
use crate::batch::Ifma;

/// A point of either backend.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    /// The portable backend's.
    Dalek(RistrettoPoint),
    /// The vectorised backend's, with the proof that it can compute here.
    #[cfg(target_arch = "x86_64")]
    Lanes(Coordinates, Ifma),
}

/// Two points in the same form.
enum Both {
    Dalek(RistrettoPoint, RistrettoPoint),
    #[cfg(target_arch = "x86_64")]
    Lanes(Coordinates, Coordinates, Ifma),
}

/// Where the forms differ, our coordinates win: dalek's points come from constants.
fn both(one: &Point, other: &Point) -> Both {
    match (&one.0, &other.0) {
        (Form::Dalek(one), Form::Dalek(other)) => Both::Dalek(*one, *other),
        #[cfg(target_arch = "x86_64")]
        (Form::Lanes(coordinates, ifma), _) => Both::Lanes(*coordinates, ifma.coordinates(other), *ifma),
        #[cfg(target_arch = "x86_64")]
        (_, Form::Lanes(coordinates, ifma)) => Both::Lanes(ifma.coordinates(one), *coordinates, *ifma),
    }
}

impl Point {
    /// The point as dalek's.
    pub(crate) fn dalek(&self) -> RistrettoPoint {
        match &self.0 {
            Form::Dalek(point) => *point,
            #[cfg(target_arch = "x86_64")]
            Form::Lanes(..) => {
                let encoded = self.encoded();
                let decoded = curve25519_dalek::ristretto::CompressedRistretto(*encoded.as_bytes()).decompress();
                decoded.unwrap_or_else(|| unreachable!("what a point is encoded to decodes: {encoded:?}"))
            }
        }
    }

    pub(super) fn encoded(&self) -> EncodedPoint {
        match &self.0 {
            Form::Dalek(point) => EncodedPoint(point.compress().to_bytes()),
            #[cfg(target_arch = "x86_64")]
            Form::Lanes(_, ifma) => ifma.encode_eight(std::iter::once(self))[0],
        }
    }

    pub(super) fn sum(&self, other: &Self) -> Self {
        Self(match both(self, other) {
            Both::Dalek(one, other) => Form::Dalek(one + other),
            #[cfg(target_arch = "x86_64")]
            Both::Lanes(one, other, ifma) => Form::Lanes(one.add(&other), ifma),
        })
    }

    pub(super) fn negative(&self) -> Self {
        Self(match &self.0 {
            Form::Dalek(point) => Form::Dalek(-point),
            #[cfg(target_arch = "x86_64")]
            Form::Lanes(coordinates, ifma) => Form::Lanes(coordinates.neg(), *ifma),
        })
    }

    pub(super) fn equals(&self, other: &Self) -> bool {
        match both(self, other) {
            Both::Dalek(one, other) => one == other,
            #[cfg(target_arch = "x86_64")]
            Both::Lanes(one, other, _) => one.equals(&other),
        }
    }
}

impl Zeroize for Form {
    fn zeroize(&mut self) {
        match self {
            Self::Dalek(point) => point.zeroize(),
            #[cfg(target_arch = "x86_64")]
            Self::Lanes(coordinates, _) => coordinates.zeroize(),
        }
    }
}
