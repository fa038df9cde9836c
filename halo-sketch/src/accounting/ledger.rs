//! Integers for ledgers.

use std::fmt;

use crate::Error;

/// A non-negative amount in units of 2^-60: what ledgers store and add, so that no order of additions, no number of
/// them and no refund changes a balance by a rounding.
///
/// Numbers become units by [`Units::round_up`] where they are charged and by [`Units::round_down`] where they are a
/// limit. One unit is 8.7·10^-19; the largest amount is 2^64.
///
/// ```
/// use halo_sketch::accounting::Units;
///
/// let charge = Units::round_up(0.1)?;
/// let mut balance = Units::ZERO;
/// for _ in 0..10 {
///     balance = balance.plus(charge)?;
/// }
/// assert!(balance >= Units::round_up(1.0)?); // ten doubles of 0.1 add up to less
/// assert_eq!(balance.minus(charge)?, Units::from_raw(charge.raw() * 9)?);
/// # Ok::<(), halo_sketch::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Units(u128);

impl Units {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Units that make up one.
    pub const PER_ONE: u128 = 1 << 60;
    /// The largest amount: 2^64.
    pub const MAX: Self = Self(1 << 124);

    /// The smallest amount that is at least `value`: for charges.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when `value` is below 0, above 2^64 or not a number.
    pub fn round_up(value: f64) -> Result<Self, Error> {
        Self::scaled(value, f64::ceil)
    }

    /// The largest amount that is at most `value`: for limits.
    ///
    /// # Errors
    /// As [`Units::round_up`].
    pub fn round_down(value: f64) -> Result<Self, Error> {
        Self::scaled(value, f64::floor)
    }

    fn scaled(value: f64, round: fn(f64) -> f64) -> Result<Self, Error> {
        // Scaling by a power of two is exact.
        let units = round(value * Self::PER_ONE as f64);
        if units >= 0.0 && units <= Self::MAX.0 as f64 && value >= 0.0 {
            Ok(Self(units as u128))
        } else {
            Err(Error::out_of_range("privacy charge", value, "at least 0 and at most 2^64"))
        }
    }

    /// Takes an amount in units.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] above [`Units::MAX`].
    pub fn from_raw(raw: u128) -> Result<Self, Error> {
        if raw <= Self::MAX.0 {
            Ok(Self(raw))
        } else {
            Err(Error::out_of_range("privacy balance", raw, "at most 2^124 units"))
        }
    }

    /// The number of units.
    #[must_use]
    pub const fn raw(self) -> u128 {
        self.0
    }

    /// The sum, exactly.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when it is above [`Units::MAX`].
    pub fn plus(self, other: Self) -> Result<Self, Error> {
        Self::from_raw(self.0.saturating_add(other.0))
    }

    /// The difference, exactly: a refund.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] when more is taken back than is there.
    pub fn minus(self, other: Self) -> Result<Self, Error> {
        self.0
            .checked_sub(other.0)
            .map(Self)
            .ok_or_else(|| Error::out_of_range("privacy refund", other, "at most the balance that it is taken from"))
    }

    /// The smallest double that is at least this amount.
    #[must_use]
    pub fn to_f64_up(self) -> f64 {
        let nearest = self.0 as f64;
        let above = if (nearest as u128) < self.0 { nearest.next_up() } else { nearest };
        above / Self::PER_ONE as f64
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_f64_up().fmt(f)
    }
}

/// What a ledger books: the two numbers of an [`Acdp`](super::Acdp) cost in [`Units`]. A cost without a cut has a θ of
/// 0; μ of Gaussian differential privacy is booked as ρ = μ²/2, since only that adds up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LedgerCharge {
    /// ρ: what the noise costs.
    pub rho: Units,
    /// θ: what the cut of the noise costs.
    pub theta: Units,
}

impl LedgerCharge {
    /// Both together, exactly.
    ///
    /// # Errors
    /// As [`Units::plus`].
    pub fn plus(self, other: Self) -> Result<Self, Error> {
        Ok(Self { rho: self.rho.plus(other.rho)?, theta: self.theta.plus(other.theta)? })
    }

    /// This without `other`, exactly.
    ///
    /// # Errors
    /// As [`Units::minus`].
    pub fn minus(self, other: Self) -> Result<Self, Error> {
        Ok(Self { rho: self.rho.minus(other.rho)?, theta: self.theta.minus(other.theta)? })
    }
}
