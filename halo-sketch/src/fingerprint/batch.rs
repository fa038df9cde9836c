//! Fingerprints of many VIDs at once.
//!
//! The texts of a few dozen VIDs are spelled out first and hashed afterwards: the processor works on several hashes at a
//! time, and none of them waits for bytes that were written just before.

use super::{Distribution, farm_fingerprint64};

/// VIDs whose texts are spelled out together: 2 KiB of them.
pub(crate) const GROUP: usize = 32;

const PREFIX: &[u8; 21] = b"AnySketchFingerprint:";
/// Bytes of a text: the prefix, 20 digits and the longer suffix are 59.
const TEXT_BYTES: usize = 64;
/// What a word of eight digits is below.
const WORD: u64 = 100_000_000;

/// The texts of a group of VIDs, and what they hash to.
pub(crate) struct Fingerprints {
    texts: [[u8; TEXT_BYTES]; GROUP],
    /// Where the digits of each end.
    ends: [usize; GROUP],
}

impl Fingerprints {
    pub(crate) fn new() -> Self {
        let mut text = [0; TEXT_BYTES];
        text[..PREFIX.len()].copy_from_slice(PREFIX);
        Self { texts: [text; GROUP], ends: [PREFIX.len(); GROUP] }
    }

    /// The fingerprints of up to [`GROUP`] VIDs for the index and for the sampling indicator, as
    /// [`super::vid_fingerprint`] gives them one by one.
    pub(crate) fn of(&mut self, vids: &[u64], indexes: &mut [u64; GROUP], indicators: &mut [u64; GROUP]) {
        for ((text, end), vid) in self.texts.iter_mut().zip(&mut self.ends).zip(vids) {
            *end = spell(*vid, text);
        }
        self.hash(vids.len(), b":Index", Distribution::Index, indexes);
        self.hash(vids.len(), b":SamplingIndicator", Distribution::SamplingIndicator, indicators);
    }

    fn hash<const N: usize>(
        &mut self,
        length: usize,
        suffix: &[u8; N],
        distribution: Distribution,
        fingerprints: &mut [u64; GROUP],
    ) {
        debug_assert_eq!(&suffix[1..], distribution.name().as_bytes());
        let mut texts = self.texts[..length].iter_mut().zip(&self.ends);
        texts.by_ref().for_each(|(text, end)| text[*end..*end + N].copy_from_slice(suffix));
        for ((text, end), fingerprint) in self.texts[..length].iter().zip(&self.ends).zip(fingerprints) {
            *fingerprint = farm_fingerprint64(&text[..*end + N]);
        }
    }
}

/// Writes a VID in decimal behind the prefix; what comes behind the end that is returned is rubbish.
fn spell(vid: u64, text: &mut [u8; TEXT_BYTES]) -> usize {
    /// Eight times the character 0.
    const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);
    if vid < WORD {
        let digits = eight_digits(vid);
        // One digit stays of the number 0.
        let zeros = (digits.trailing_zeros() / 8).min(7);
        text[PREFIX.len()..PREFIX.len() + 8].copy_from_slice(&((digits | ZEROS) >> (8 * zeros)).to_le_bytes());
        return PREFIX.len() + 8 - zeros as usize;
    }
    let end = spell(vid / WORD, text);
    text[end..end + 8].copy_from_slice(&(eight_digits(vid % WORD) | ZEROS).to_le_bytes());
    end + 8
}

/// The digits of a number below 10^8, one a byte, the first one in the lowest.
///
/// The halves of the number, then the quarters, then the digits are divided side by side in one word. 10486/2^20 is
/// 1/100 for all numbers below 10^4, and 103/2^10 is 1/10 for all below 100.
fn eight_digits(number: u64) -> u64 {
    const HUNDREDS: u64 = 0x0000_007f_0000_007f;
    const TENS: u64 = 0x000f_000f_000f_000f;
    let fours = (number / 10_000) | ((number % 10_000) << 32);
    let high = ((fours * 10_486) >> 20) & HUNDREDS;
    let twos = high | ((fours - 100 * high) << 16);
    let high = ((twos * 103) >> 10) & TENS;
    high | ((twos - 10 * high) << 8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::vid_fingerprint;
    use super::*;

    fn check(vids: &[u64]) {
        let mut fingerprints = Fingerprints::new();
        for group in vids.chunks(GROUP) {
            let (mut indexes, mut indicators) = ([0; GROUP], [0; GROUP]);
            fingerprints.of(group, &mut indexes, &mut indicators);
            for ((vid, index), indicator) in group.iter().zip(indexes).zip(indicators) {
                assert_eq!(index, vid_fingerprint(*vid, Distribution::Index), "VID {vid}");
                assert_eq!(indicator, vid_fingerprint(*vid, Distribution::SamplingIndicator), "VID {vid}");
            }
        }
    }

    /// Every number of four digits in both halves of a word: all that the side by side divisions can meet.
    #[test]
    fn eight_digits_are_those_of_format() {
        for number in (0..10_000).flat_map(|four| [four, four * 10_000, four * 10_001, four * 10_000 + 9_999]) {
            let digits: Vec<u8> = format!("{number:08}").bytes().map(|digit| digit - b'0').collect();
            assert_eq!(eight_digits(number).to_le_bytes(), digits[..], "{number}");
        }
    }

    #[test]
    fn groups_are_as_one_by_one_around_every_power_of_ten() {
        let powers = (0..20).map(|exponent| 10_u64.pow(exponent));
        let around = powers.flat_map(|power| (0..40).map(move |distance| (power - 1).saturating_add(distance)));
        let vids: Vec<u64> = around.chain([u64::MAX, u64::MAX - 1, 1 << 63, i64::MAX as u64]).collect();
        check(&vids);
        check(&[]);
        check(&[u64::MAX]);
    }

    proptest! {
        #[test]
        fn groups_are_as_one_by_one(vids in prop::collection::vec((any::<u64>(), 0u32..64), 0..200)) {
            // Long ones and short ones, so that every text is written over a longer one at times.
            check(&vids.iter().map(|(vid, shift)| vid >> shift).collect::<Vec<_>>());
        }
    }
}
