//! The generator of uniform numbers.

use std::fmt;

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use zeroize::Zeroizing;

use super::{
    BLOCK_BYTES, KEY_BYTES, Modulus, ShareError, arithmetic,
    vector::{self, Vector},
};

/// One continuous stream of pseudorandom bytes, and the numbers drawn from it.
pub struct Generator {
    stream: Stream,
}

/// AES-256 in counter mode. Both kinds give the same bytes.
enum Stream {
    Portable(Box<Ctr128BE<Aes256>>),
    Vector(Box<vector::Stream>),
}

/// Which bytes of a stream are numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// The bits of a byte that count.
    pub(super) mask: u8,
    /// The smallest number.
    pub(super) first: u8,
    /// How many numbers there are.
    pub(super) count: u8,
}

impl Wanted {
    /// Writes the candidates that are wanted to the front of `accepted`, one after the other, and answers how many they
    /// are. What is behind them in `accepted`, which is as long as `candidates`, may change too.
    fn accept(self, vector: Option<Vector>, candidates: &[u8], accepted: &mut [u8]) -> usize {
        let (seen, mut taken) = vector.map_or((0, 0), |vector| vector.accept(candidates, self, accepted));
        for candidate in &candidates[seen..] {
            let candidate = candidate & self.mask;
            accepted[taken] = candidate;
            taken += usize::from(candidate.wrapping_sub(self.first) < self.count);
        }
        taken
    }
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
    /// AES-256 in counter mode from a first counter block on.
    pub(super) fn new(vector: Option<Vector>, key: &[u8; KEY_BYTES], counter: u128) -> Self {
        let stream = match vector {
            Some(vector) => Stream::Vector(Box::new(vector::Stream::new(vector, key, counter))),
            None => Stream::Portable(Box::new(Ctr128BE::<Aes256>::new(key.into(), &counter.to_be_bytes().into()))),
        };
        Self { stream }
    }

    /// The next bytes.
    pub fn bytes(&mut self, out: &mut [u8]) {
        match &mut self.stream {
            Stream::Portable(stream) => {
                out.fill(0);
                stream.apply_keystream(out);
            }
            Stream::Vector(stream) => stream.bytes(out),
        }
    }

    fn vector(&self) -> Option<Vector> {
        match &self.stream {
            Stream::Portable(_) => None,
            Stream::Vector(stream) => stream.vector(),
        }
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
        let not_zero = Wanted { mask: u8::MAX, first: 1, count: u8::MAX };
        let vector = self.vector();
        let (mut block, mut factors) = (Zeroizing::new(vec![0; BLOCK_BYTES]), Zeroizing::new(vec![0; BLOCK_BYTES]));
        let mut done = 0;
        while done < elements.len() {
            let count = batch(elements.len() - done, rejected);
            let mut numbers = self.uniform_parts(modulus, count);
            for first in (0..count).step_by(BLOCK_BYTES) {
                let drawn = &mut block[..BLOCK_BYTES.min(count - first)];
                numbers.fill(drawn);
                let kept = not_zero.accept(vector, drawn, &mut factors).min(elements.len() - done);
                arithmetic::multiply_checked(modulus, &mut elements[done..done + kept], &factors[..kept]);
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
    /// None when every byte is a number.
    wanted: Option<Wanted>,
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
        let wanted =
            u8::try_from(modulus.get()).ok().map(|q| Wanted { mask: ((1_u16 << bits) - 1) as u8, first: 0, count: q });
        Self { generator, modulus, wanted, rejected, missing: count, batch: 0, block, unread: 0..0 }
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
            let room = &mut out[done..done + sure];
            done += match self.wanted {
                Some(wanted) => wanted.accept(self.generator.vector(), candidates, room),
                None => {
                    room.copy_from_slice(candidates);
                    sure
                }
            };
        }
        self.missing -= done;
        if self.missing == 0 {
            while self.batch > 0 {
                self.refill(0);
            }
            self.unread = 0..0;
        }
    }

    /// Adds the next numbers to `sums`, element by element modulo q.
    ///
    /// # Errors
    /// [`ShareError::Value`] when an element is not below the modulus; nothing is changed or drawn then.
    ///
    /// # Panics
    /// When `sums` is longer than what is left of the vector.
    pub fn add(&mut self, sums: &mut [u8]) -> Result<(), ShareError> {
        arithmetic::check(self.modulus, sums)?;
        let mut numbers = Zeroizing::new(vec![0; BLOCK_BYTES.min(sums.len())]);
        for part in sums.chunks_mut(BLOCK_BYTES) {
            let numbers = &mut numbers[..part.len()];
            self.fill(numbers);
            arithmetic::add_checked(self.modulus, part, numbers);
        }
        Ok(())
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
