//! The two kinds of ids.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand_core::Rng;

use crate::Error;

/// An id that the Kingdom gave: a random positive number below 2^63.
///
/// Its text is the base64url form, without padding, of the eight big-endian bytes: always 11 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalId(u64);

impl ExternalId {
    const FORM: &'static str = "an id of 11 base64url characters";

    /// Checks the range.
    ///
    /// # Errors
    /// If `value` is 0 or 2^63 or more.
    pub fn new(value: u64) -> Result<Self, Error> {
        if value != 0 && i64::try_from(value).is_ok() {
            Ok(Self(value))
        } else {
            Err(Error::value("id", value, "between 1 and 2^63 - 1"))
        }
    }

    /// Draws an id.
    pub fn random(rng: &mut impl Rng) -> Self {
        loop {
            let value = rng.next_u64() >> 1;
            if value != 0 {
                return Self(value);
            }
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number as databases keep it.
    #[must_use]
    pub const fn as_i64(self) -> i64 {
        self.0 as i64
    }
}

impl fmt::Display for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.to_be_bytes()))
    }
}

impl fmt::Debug for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExternalId({self})")
    }
}

impl FromStr for ExternalId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| Error::name(Self::FORM, text, error.to_string()))?;
        let bytes = <[u8; 8]>::try_from(bytes)
            .map_err(|bytes| Error::name(Self::FORM, text, format!("it stands for {} bytes, not 8", bytes.len())))?;
        Self::new(u64::from_be_bytes(bytes))
            .map_err(|_| Error::name(Self::FORM, text, "its number is 0 or has the sign bit"))
    }
}

/// The id of a Duchy, chosen by its operator: 1 to 63 of `a`–`z`, `0`–`9` and `-`, the first a letter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DuchyId(String);

impl DuchyId {
    const FORM: &'static str = "a Duchy id: 1 to 63 of a-z, 0-9 and -, the first a letter";

    /// Checks the form.
    ///
    /// # Errors
    /// If it is empty, too long, does not start with a letter, or has another character.
    pub fn new(id: impl Into<String>) -> Result<Self, Error> {
        let id = id.into();
        let refuse = |reason: &str| Err(Error::name(Self::FORM, &id, reason));
        match id.bytes().next() {
            None => return refuse("it is empty"),
            Some(first) if !first.is_ascii_lowercase() => return refuse("it does not start with a letter a-z"),
            Some(_) => {}
        }
        if id.len() > 63 {
            return refuse("it is longer than 63 characters");
        }
        if !id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            return refuse("it has a character that is not allowed");
        }
        Ok(Self(id))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for DuchyId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DuchyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DuchyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DuchyId({})", self.0)
    }
}

impl FromStr for DuchyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::new(text)
    }
}

super::name::text_in_serde!(ExternalId, DuchyId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_ids() {
        for (number, text) in
            [(1, "AAAAAAAAAAE"), (0x0123_4567_89ab_cdef, "ASNFZ4mrze8"), (0x7fff_ffff_ffff_ffff, "f_________8")]
        {
            assert_eq!(ExternalId::new(number).unwrap().to_string(), text);
            assert_eq!(text.parse::<ExternalId>().unwrap().get(), number);
        }
    }

    #[test]
    fn texts_that_are_no_ids() {
        for text in [
            "",
            "AAAAAAAAAAA",
            "gAAAAAAAAAE",
            "AAAAAAAAAAE=",
            "AAAAAAAAAAF",
            "AAAAAAAAAE",
            "AAAAAAAAAAAE",
            "AAAAAAAAAA/",
        ] {
            assert!(text.parse::<ExternalId>().is_err(), "{text}");
        }
    }

    #[test]
    fn duchy_ids() {
        for good in ["a", "worker1", "aggregator", "a-b", &"x".repeat(63)] {
            assert_eq!(good.parse::<DuchyId>().unwrap().as_str(), good);
        }
        for bad in ["", "1worker", "-a", "Worker", "a_b", "a/b", "ä", "a\n", &"x".repeat(64)] {
            assert!(DuchyId::new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn ids_round_trip(number in 1..=i64::MAX as u64) {
            let id = ExternalId::new(number).unwrap();
            let text = id.to_string();
            prop_assert_eq!(text.len(), 11);
            prop_assert_eq!(text.parse::<ExternalId>().unwrap(), id);
        }

        #[test]
        fn no_text_has_two_forms(text in "[A-Za-z0-9_-]{11}") {
            if let Ok(id) = text.parse::<ExternalId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
