//! Secrets that neither print themselves nor stay in memory.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroize;

/// A value that is wiped when dropped, prints as `Secret(…)` and compares in constant time.
///
/// What wiping does not cover: copies that the compiler or the operating system made (registers, swap, core files).
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes the value in. The caller wipes copies of its own.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Shows the value to code that computes on it.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize + Clone> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Zeroize + AsRef<[u8]>> ConstantTimeEq for Secret<T> {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.as_ref().ct_eq(other.0.as_ref())
    }
}

impl<T: Zeroize + AsRef<[u8]>> PartialEq for Secret<T> {
    fn eq(&self, other: &Self) -> bool {
        self.ct_eq(other).into()
    }
}

impl<T: Zeroize + AsRef<[u8]>> Eq for Secret<T> {}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn nothing_is_printed() {
        let secret = Secret::new(vec![0x5a_u8; 8]);
        for text in [format!("{secret:?}"), format!("{secret:#?}")] {
            assert!(!text.contains("5a") && !text.contains("90"), "{text}");
        }
        assert_eq!(secret, secret.clone());
        assert_ne!(secret, Secret::new(vec![0x5b_u8; 8]));
    }
}
