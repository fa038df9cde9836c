//! Privacy parameters and the other numbers that a consumer asks for.
//!
//! Every type checks its range when it is made, so that nothing behind it has to.

use std::fmt;

use crate::Error;

/// ε of a differential privacy guarantee: finite and greater than 0.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Epsilon(f64);

impl Epsilon {
    /// Checks the range.
    ///
    /// # Errors
    /// If `value` is not finite or not greater than 0.
    pub fn new(value: f64) -> Result<Self, Error> {
        if value.is_finite() && value > 0.0 {
            Ok(Self(value))
        } else {
            Err(Error::value("epsilon", value, "a finite number greater than 0"))
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Epsilon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// δ of a differential privacy guarantee, from 0 to 1. With 1 nothing is promised; configurations of the reference give
/// it to noises inside the protocol.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Delta(f64);

impl Delta {
    /// Checks the range.
    ///
    /// # Errors
    /// If `value` is below 0, above 1, or not a number.
    pub fn new(value: f64) -> Result<Self, Error> {
        if (0.0..=1.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(Error::value("delta", value, "at least 0 and at most 1"))
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Delta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An (ε, δ) pair: what one noise mechanism may spend.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct PrivacyParams {
    /// ε.
    pub epsilon: Epsilon,
    /// δ.
    pub delta: Delta,
}

impl PrivacyParams {
    /// Checks both ranges.
    ///
    /// # Errors
    /// As [`Epsilon::new`] and [`Delta::new`].
    pub fn new(epsilon: f64, delta: f64) -> Result<Self, Error> {
        Ok(Self { epsilon: Epsilon::new(epsilon)?, delta: Delta::new(delta)? })
    }

    /// The same parameters, if δ is greater than 0, which every noise that is drawn inside a protocol needs: its range
    /// is cut on both sides, and the probability of what is cut off is a part of δ.
    ///
    /// # Errors
    /// If δ is 0.
    pub fn for_protocol_noise(self) -> Result<Self, Error> {
        if self.delta.get() > 0.0 {
            Ok(self)
        } else {
            Err(Error::value(
                "delta",
                self.delta,
                "greater than 0, because the noise of the protocol has a bounded range",
            ))
        }
    }
}

impl fmt::Display for PrivacyParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(ε = {}, δ = {})", self.epsilon, self.delta)
    }
}

/// The distribution of the noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseMechanism {
    /// Discrete Gaussian.
    DiscreteGaussian,
    /// Two-sided geometric (discrete Laplace), each contributor adding a Pólya share.
    Geometric,
}

/// How the amount of noise follows from ε and δ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseCalibration {
    /// As little as the guarantee of the mechanism needs.
    Exact,
    /// As the reference system: classical Gaussian formula, sensitivities for geometric noise only, every contributor
    /// honest.
    Reference,
}

/// The part of the people that a measurement looks at: those whose VID hashes into `[start, start + width)`.
///
/// The numbers are float32, because both sides of the sampling decision must round alike.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct VidSamplingInterval {
    start: f32,
    width: f32,
}

impl VidSamplingInterval {
    /// Everybody.
    pub const FULL: Self = Self { start: 0.0, width: 1.0 };

    /// Checks that `start` is in [0, 1) and `width` in (0, 1]. The interval may go round the end of the circle.
    ///
    /// # Errors
    /// If one of them is out of its range.
    pub fn new(start: f32, width: f32) -> Result<Self, Error> {
        if !(0.0..1.0).contains(&start) {
            return Err(Error::value("start of the VID sampling interval", start, "at least 0 and below 1"));
        }
        if !(width > 0.0 && width <= 1.0) {
            return Err(Error::value("width of the VID sampling interval", width, "greater than 0 and at most 1"));
        }
        // −0 is 0, also in what is shown and hashed.
        Ok(Self { start: start + 0.0, width })
    }

    /// The same interval, if it ends at 1 or before, which sketches need.
    ///
    /// # Errors
    /// If it goes round the end of the circle.
    pub fn without_wrapping(self) -> Result<Self, Error> {
        if self.wraps() {
            let shown = format!("{} + {}", self.start, self.width);
            return Err(Error::value(
                "start + width of the VID sampling interval",
                shown,
                "at most 1 for this protocol",
            ));
        }
        Ok(self)
    }

    /// Where it begins, in [0, 1).
    #[must_use]
    pub const fn start(self) -> f32 {
        self.start
    }

    /// How wide it is, in (0, 1].
    #[must_use]
    pub const fn width(self) -> f32 {
        self.width
    }

    /// The width that estimates divide by: the shortest decimal that reads back as the same float32.
    ///
    /// A consumer who asks for a tenth writes 0.1, and the float32 nearest to it is 0.100000001490116…; dividing by
    /// that number would be an error that grows with the audience.
    #[must_use]
    pub fn width_decimal(self) -> f64 {
        self.width.to_string().parse().expect("the decimal form of a float32 is a number")
    }

    /// Whether it goes on at 0 after 1. The sum is a float32, as at every other party.
    #[must_use]
    pub fn wraps(self) -> bool {
        self.start + self.width > 1.0
    }
}

/// F, the highest frequency that is told apart: "F times or more" is the last class. 1 means reach only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MaximumFrequency(u32);

impl MaximumFrequency {
    /// Reach only.
    pub const REACH_ONLY: Self = Self(1);
    /// The highest that is accepted: what one byte of a frequency vector holds. The work of a computation grows in
    /// proportion to F, so no bound at all would let one measurement occupy the Duchies.
    pub const MAX: Self = Self(255);

    /// Checks the range.
    ///
    /// # Errors
    /// If `value` is 0 or above [`Self::MAX`].
    pub fn new(value: u32) -> Result<Self, Error> {
        if (1..=Self::MAX.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(Error::value("maximum frequency", value, "between 1 and 255"))
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Whether frequencies are measured at all.
    #[must_use]
    pub const fn counts_frequency(self) -> bool {
        self.0 > 1
    }
}

impl fmt::Display for MaximumFrequency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epsilon_and_delta_refuse_what_is_out_of_range() {
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Epsilon::new(bad).is_err(), "{bad}");
        }
        for bad in [-1e-300, 1.000_001, 2.0, f64::NAN, f64::INFINITY] {
            assert!(Delta::new(bad).is_err(), "{bad}");
        }
        assert_eq!(Epsilon::new(1e-9).unwrap().get(), 1e-9);
        assert_eq!(Delta::new(0.0).unwrap().get(), 0.0);
        assert_eq!(
            Epsilon::new(-1.0).unwrap_err().to_string(),
            "epsilon must be a finite number greater than 0, but is -1"
        );
    }

    #[test]
    fn noise_inside_a_protocol_needs_a_delta() {
        assert!(PrivacyParams::new(1.0, 0.0).unwrap().for_protocol_noise().is_err());
        assert!(PrivacyParams::new(1.0, 1e-12).unwrap().for_protocol_noise().is_ok());
    }

    #[test]
    fn sampling_intervals_keep_their_rules() {
        for (start, width) in [(-0.1, 0.5), (1.0, 0.5), (f32::NAN, 0.5), (0.0, 0.0), (0.0, 1.1), (0.0, f32::NAN)] {
            assert!(VidSamplingInterval::new(start, width).is_err(), "{start} {width}");
        }
        assert!(VidSamplingInterval::new(0.5, 0.6).unwrap().without_wrapping().is_err());
        // In float64 this sum is a little above 1; in float32, which binds, it is 1.
        assert!(VidSamplingInterval::new(0.8, 0.2).unwrap().without_wrapping().is_ok());
        assert!(VidSamplingInterval::new(-0.0, 1.0).unwrap().start().is_sign_positive());
    }

    #[test]
    fn the_width_is_the_decimal_that_was_meant() {
        for width in ["0.1", "0.3", "0.01", "1", "0.00001"] {
            let interval = VidSamplingInterval::new(0.0, width.parse().unwrap()).unwrap();
            assert_eq!(interval.width_decimal(), width.parse::<f64>().unwrap());
        }
    }

    #[test]
    fn maximum_frequency_has_two_ends() {
        assert!(MaximumFrequency::new(0).is_err());
        assert!(MaximumFrequency::new(256).is_err());
        assert!(!MaximumFrequency::new(1).unwrap().counts_frequency());
        assert!(MaximumFrequency::new(255).unwrap().counts_frequency());
    }
}
