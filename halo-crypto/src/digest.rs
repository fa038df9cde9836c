//! SHA-256 of two messages side by side.
//!
//! A round of SHA-256 waits for the one before, so that one message leaves most of a CPU idle; two that are read together
//! cost hardly more than one where the CPU has instructions for it.
//!
//! ```
//! use halo_crypto::digest::Sha256Pair;
//!
//! let mut pair = Sha256Pair::new();
//! pair.update([b"ab", b"xy"]);
//! pair.update([b"c", b"z"]);
//! let [abc, _] = pair.finish();
//! assert!(hex::encode(abc).starts_with("ba7816bf"));
//! ```

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions; what makes each block sound is said there")]
mod pair;

use std::fmt;

use sha2::{Digest, Sha256};

/// Hashes two messages of one length.
pub struct Sha256Pair(Kind);

enum Kind {
    OneByOne([Sha256; 2]),
    #[cfg(target_arch = "x86_64")]
    SideBySide(pair::Pair),
}

impl Sha256Pair {
    /// Two empty messages.
    #[must_use]
    pub fn new() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(pair) = pair::Pair::new() {
            return Self(Kind::SideBySide(pair));
        }
        Self(Kind::OneByOne([Sha256::new(), Sha256::new()]))
    }

    /// Appends to both.
    ///
    /// # Panics
    /// When the parts differ in length.
    pub fn update(&mut self, parts: [&[u8]; 2]) {
        assert_eq!(parts[0].len(), parts[1].len(), "two messages of one length grow alike");
        match &mut self.0 {
            Kind::OneByOne(hashers) => hashers.iter_mut().zip(parts).for_each(|(hasher, part)| hasher.update(part)),
            #[cfg(target_arch = "x86_64")]
            Kind::SideBySide(pair) => pair.update(parts),
        }
    }

    /// Their digests.
    #[must_use]
    pub fn finish(self) -> [[u8; 32]; 2] {
        match self.0 {
            Kind::OneByOne(hashers) => hashers.map(|hasher| hasher.finalize().into()),
            #[cfg(target_arch = "x86_64")]
            Kind::SideBySide(pair) => pair.finish(),
        }
    }
}

impl Default for Sha256Pair {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sha256Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sha256Pair").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn detection_agrees_with_what_the_kernel_says() {
        // Where two messages are not hashed side by side, the CPU must really lack the instructions.
        let Some(has) = crate::cpu::has(&["sha_ni", "sse4_1", "ssse3"]) else { return };
        let one_by_one = matches!(Sha256Pair::new().0, Kind::OneByOne(_));
        assert_eq!(one_by_one, !has);
        if one_by_one {
            println!("SKIPPED: this CPU has no SHA instructions, two messages side by side are not tested");
        }
    }

    fn assert_digests(mut pair: Sha256Pair, first: &[u8], part: usize) {
        let second: Vec<u8> = first.iter().map(|byte| !byte).collect();
        first.chunks(part).zip(second.chunks(part)).for_each(|(one, two)| pair.update([one, two]));
        assert_eq!(pair.finish(), [first, &second].map(|message| <[u8; 32]>::from(Sha256::digest(message))));
    }

    #[test]
    fn every_length_around_a_block() {
        for length in 0..200 {
            let message: Vec<u8> = (0..length).collect();
            for part in [1, 7, 64, 100, 200] {
                assert_digests(Sha256Pair::new(), &message, part);
                assert_digests(Sha256Pair(Kind::OneByOne([Sha256::new(), Sha256::new()])), &message, part);
            }
        }
    }

    proptest! {
        #[test]
        fn any_message(message in prop::collection::vec(any::<u8>(), 0..2000), part in 1_usize..500) {
            assert_digests(Sha256Pair::new(), &message, part);
        }
    }

    #[test]
    #[should_panic(expected = "grow alike")]
    fn messages_of_two_lengths_are_refused() {
        Sha256Pair::new().update([b"a", b""]);
    }
}
