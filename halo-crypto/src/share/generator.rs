//! The generator of uniform numbers.

use std::fmt;

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use super::{BLOCK_BYTES, Modulus, ShareError, arithmetic};

/// One continuous stream of pseudorandom bytes, and the numbers drawn from it.
pub struct Generator {
    stream: Ctr128BE<Aes256>,
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").finish_non_exhaustive()
    }
}

/// How many are drawn at once while `missing` are missing and a fraction `rejected` is rejected.
pub(super) fn batch(missing: usize, rejected: f64) -> usize {
    let missing = missing as f64;
    (missing + 1.0 + rejected * missing / (1.0 - rejected)).floor() as usize
}

impl Generator {
    /// AES-256 in counter mode from a key of 32 bytes and a first counter block of 16.
    pub(super) fn new(key: &[u8], counter: &[u8]) -> Self {
        Self { stream: Ctr128BE::<Aes256>::new_from_slices(key, counter).expect("a key and a block") }
    }

    /// The next bytes.
    pub fn bytes(&mut self, out: &mut [u8]) {
        out.fill(0);
        self.stream.apply_keystream(out);
    }

    /// Fills `out` with uniform numbers below the modulus.
    pub fn uniform(&mut self, modulus: Modulus, out: &mut [u8]) {
        Uniform::new(self, modulus, out.len()).fill(out);
    }

    /// So many uniform numbers below the modulus, a part at a time.
    pub fn uniform_parts(&mut self, modulus: Modulus, count: usize) -> Uniform<'_> {
        Uniform::new(self, modulus, count)
    }

    /// Multiplies every element by the next uniform number from 1 to below the modulus, element by element modulo q.
    ///
    /// Zeros of one long draw are left out, and what is missing is drawn again, in batches as the reference does it.
    ///
    /// # Errors
    /// [`ShareError::Value`] when an element is not below the modulus; nothing is changed or drawn then.
    pub fn mask(&mut self, modulus: Modulus, elements: &mut [u8]) -> Result<(), ShareError> {
        arithmetic::check(modulus, elements)?;
        let rejected = 1.0 / f64::from(modulus.get());
        let mut block = Zeroizing::new(vec![0; BLOCK_BYTES]);
        let mut done = 0;
        while done < elements.len() {
            let count = batch(elements.len() - done, rejected);
            let mut numbers = self.uniform_parts(modulus, count);
            for first in (0..count).step_by(BLOCK_BYTES) {
                let drawn = &mut block[..BLOCK_BYTES.min(count - first)];
                numbers.fill(drawn);
                let mut kept = 0;
                for at in 0..drawn.len() {
                    drawn[kept] = drawn[at];
                    kept += usize::from(drawn[at] != 0);
                }
                let kept = kept.min(elements.len() - done);
                arithmetic::multiply_checked(modulus, &mut elements[done..done + kept], &drawn[..kept]);
                done += kept;
            }
        }
        Ok(())
    }
}

/// Uniform numbers below a modulus that are drawn as one vector and handed out in parts.
pub struct Uniform<'a> {
    generator: &'a mut Generator,
    modulus: Modulus,
    mask: u8,
    rejected: f64,
    /// Numbers that are still to be handed out.
    missing: usize,
    /// Candidates of the batch that are still to be drawn.
    batch: usize,
    block: Zeroizing<Vec<u8>>,
    /// The candidates of `block` that are left.
    unread: std::ops::Range<usize>,
}

impl fmt::Debug for Uniform<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uniform").field("missing", &self.missing).finish_non_exhaustive()
    }
}

impl<'a> Uniform<'a> {
    fn new(generator: &'a mut Generator, modulus: Modulus, count: usize) -> Self {
        let bits = modulus.bits();
        let candidates = f64::from(1_u16 << bits);
        let rejected = (candidates - f64::from(modulus.get())) / candidates;
        let block = Zeroizing::new(vec![0; BLOCK_BYTES.min(batch(count, rejected))]);
        let mask = ((1_u16 << bits) - 1) as u8;
        Self { generator, modulus, mask, rejected, missing: count, batch: 0, block, unread: 0..0 }
    }

    /// Fills `out` with the next numbers. When the last has been handed out, the generator stands behind the surplus of
    /// the last batch, which is drawn and not used.
    ///
    /// # Panics
    /// When `out` is longer than what is left of the vector.
    pub fn fill(&mut self, out: &mut [u8]) {
        assert!(out.len() <= self.missing, "{} numbers of {} that are left", out.len(), self.missing);
        let mut done = 0;
        while done < out.len() {
            if self.unread.is_empty() {
                self.refill(self.missing - done);
            }
            // So many can all be taken without looking whether there is room.
            let sure = self.unread.len().min(out.len() - done);
            let candidates = &self.block[self.unread.start..self.unread.start + sure];
            self.unread.start += sure;
            let q = self.modulus.get();
            if q == 256 {
                out[done..done + sure].copy_from_slice(candidates);
                done += sure;
                continue;
            }
            let room = &mut out[done..done + sure];
            let mut taken = 0;
            for candidate in candidates {
                let candidate = candidate & self.mask;
                room[taken] = candidate;
                taken += usize::from(u16::from(candidate) < q);
            }
            done += taken;
        }
        self.missing -= done;
        if self.missing == 0 {
            while self.batch > 0 {
                self.refill(0);
            }
            self.unread = 0..0;
        }
    }

    /// Draws the next candidates; a batch begins when the one before is used up.
    fn refill(&mut self, missing: usize) {
        if self.batch == 0 {
            self.batch = batch(missing, self.rejected);
        }
        let take = self.batch.min(self.block.len());
        self.generator.bytes(&mut self.block[..take]);
        self.batch -= take;
        self.unread = 0..take;
    }
}
