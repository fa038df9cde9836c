//! Which people a sketch measurement looks at.

use halo_core::privacy::VidSamplingInterval;

use crate::fingerprint::farm_fingerprint64;

/// Added to every VID before it is hashed, so that sampling and sketching see independent hashes.
const SALT: u64 = 1_414_214;
/// A position on the sampling circle has 23 bits: what a float32 holds exactly.
const POSITION_MASK: u64 = (1 << 23) - 1;

/// The sampling decision of the sketch protocols: a VID takes part if its position on the unit circle lies in the
/// measurement's interval.
///
/// Every publisher decides alike for the same VID, so the sample is one sample of people. All arithmetic is float32, as
/// at the reference's publishers; the last of the 2^23 positions is 1.0 itself, which an interval that starts at 0 and
/// ends at 1 leaves out (one VID in 8.4 million).
///
/// ```
/// use halo_core::privacy::VidSamplingInterval;
/// use halo_sketch::sampler::VidSampler;
///
/// let tenth = VidSampler::new(VidSamplingInterval::new(0.01, 0.1)?);
/// assert!(tenth.contains(3));
/// assert!(!tenth.contains(1));
/// # Ok::<(), halo_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VidSampler {
    interval: VidSamplingInterval,
}

impl VidSampler {
    /// A sampler for one interval; an interval that passes 1 goes on at 0.
    #[must_use]
    pub const fn new(interval: VidSamplingInterval) -> Self {
        Self { interval }
    }

    /// The position of a VID on the unit circle, in [0, 1].
    #[must_use]
    pub fn position(vid: u64) -> f32 {
        let fingerprint = farm_fingerprint64(&vid.wrapping_add(SALT).to_le_bytes());
        (fingerprint & POSITION_MASK) as f32 / POSITION_MASK as f32
    }

    /// Whether `vid` takes part.
    #[must_use]
    #[inline]
    pub fn contains(&self, vid: u64) -> bool {
        let (start, position) = (self.interval.start(), Self::position(vid));
        let end = start + self.interval.width();
        // The second half of the circle's cut: only an interval beyond 1 has a part that begins again at 0. Nothing here
        // branches, as nobody can foretell what a hash decides.
        ((start <= position) & (position < end)) | (position < end - 1.0)
    }

    /// Appends those of `vids` that take part, in order.
    pub fn sample(&self, vids: &[u64], sampled: &mut Vec<u64>) {
        let mut end = sampled.len();
        sampled.resize(end + vids.len(), 0);
        for vid in vids {
            sampled[end] = *vid;
            end += usize::from(self.contains(*vid));
        }
        sampled.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(vid: u64, start: f32, width: f32) -> bool {
        VidSampler::new(VidSamplingInterval::new(start, width).unwrap()).contains(vid)
    }

    #[test]
    fn published_positions() {
        for (vid, position) in [(1, 0.6846), (2, 0.8693), (3, 0.0648)] {
            assert!((VidSampler::position(vid) - position).abs() < 0.001, "vid {vid}");
        }
    }

    #[test]
    fn published_memberships() {
        assert!(contains(3, 0.01, 0.1));
        assert!(!contains(3, 0.01, 0.01));
        assert!(!contains(3, 0.10, 0.1));
        assert!(!contains(3, 0.8, 0.25));
        assert!(contains(3, 0.8, 0.3));
    }

    /// n = 1000 VIDs into 10 intervals; the χ² limit 16.92 is the 5 % point of 9 degrees of freedom, no random draw.
    #[test]
    fn positions_are_uniform() {
        let mut cells = [0f64; 10];
        for vid in 1..=1000 {
            let inside: Vec<usize> = (0..10).filter(|i| contains(vid, *i as f32 / 10.0, 0.1)).collect();
            assert!(!inside.is_empty());
            cells[inside[0]] += 1.0;
        }
        let chi_squared: f64 = cells.iter().map(|n| (n - 100.0).powi(2) / 100.0).sum();
        assert!(chi_squared < 16.92, "{chi_squared}");
    }

    #[test]
    fn a_sample_is_of_those_who_are_contained() {
        let vids: Vec<u64> = (0..5000).map(|i| i * i).collect();
        for (start, width) in [(0.0, 1.0), (0.2, 0.3), (0.9, 0.4), (0.5, 1.0e-6)] {
            let sampler = VidSampler::new(VidSamplingInterval::new(start, width).unwrap());
            let mut sampled = vec![7];
            sampler.sample(&vids, &mut sampled);
            let expected = vids.iter().copied().filter(|vid| sampler.contains(*vid));
            assert!(sampled.iter().copied().eq([7].into_iter().chain(expected)), "{start} {width}");
        }
    }

    #[test]
    fn a_full_circle_contains_everyone() {
        for vid in 0..2000 {
            assert!(contains(vid, 0.0, 1.0));
            assert!(contains(vid, 0.3, 1.0));
        }
    }
}
