//! Who is reached by whom in the evaluation scenarios (science 7.2): a function of the VID alone, so that the exact
//! answer is known.

use std::ops::Range;

use halo_sketch::liquid_legions::Params;
use rayon::prelude::*;

/// People that one thread looks at in a row.
const BLOCK: usize = 1 << 18;

/// The finalizer of SplitMix64 behind its increment.
pub(crate) const fn splitmix64(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A uniform number in [0, 1).
pub(crate) fn uniform(x: u64) -> f64 {
    splitmix64(x) as f64 * 2.0_f64.powi(-64)
}

/// The VID that stands for a person under one salt. Other VIDs have other hashes, so that each salt is a fresh draw of
/// the registers of the same people; salt 0 leaves VIDs as they are.
pub(crate) const fn salted(vid: u64, salt: u64) -> u64 {
    vid + (salt << 33)
}

/// A set of publishers whose audiences are known exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// S1: ten publishers that reach 5 %, 10 %, … of 20 million people, independently.
    Independent,
    /// S2: ten publishers that reach people by their activity, of which there are four classes.
    Bow,
    /// S3: twenty publishers, each with half of the audience of the one before.
    Sequential,
    /// S4: twenty publishers with the same audience.
    Same,
    /// S5: ten publishers that share nobody.
    Disjoint,
}

impl Scenario {
    /// All of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 5] = [Self::Independent, Self::Bow, Self::Sequential, Self::Same, Self::Disjoint];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Independent => "S1",
            Self::Bow => "S2",
            Self::Sequential => "S3",
            Self::Same => "S4",
            Self::Disjoint => "S5",
        }
    }

    /// People reached by anybody.
    pub(crate) const fn union(self) -> u64 {
        match self {
            Self::Independent => 19_345_745,
            Self::Bow => 7_354_157,
            Self::Sequential => 1_050_000,
            Self::Same => 1_000_000,
            Self::Disjoint => 100_000_000,
        }
    }

    /// People of each publisher. In S3 to S5 all have as many.
    pub(crate) const fn sizes(self) -> [u64; 10] {
        match self {
            Self::Independent => [
                1_001_672, 2_002_043, 3_001_508, 4_001_354, 5_000_818, 6_001_296, 7_000_723, 8_000_494, 9_000_011,
                10_000_092,
            ],
            Self::Bow => {
                [201_415, 401_775, 602_896, 802_021, 1_003_886, 1_203_090, 1_404_696, 1_602_166, 1_803_670, 2_004_203]
            }
            Self::Sequential => [100_000; 10],
            Self::Same => [1_000_000; 10],
            Self::Disjoint => [10_000_000; 10],
        }
    }

    /// Everybody who may be reached.
    pub(crate) const fn universe(self) -> Range<u64> {
        match self {
            Self::Independent | Self::Bow => 0..20_000_000,
            Self::Sequential | Self::Same | Self::Disjoint => 0..self.union(),
        }
    }

    /// The publishers that reach a person, one bit for each.
    pub(crate) fn reached_by(self, vid: u64) -> u32 {
        let those = |reach: &dyn Fn(u64) -> bool, publishers: Range<u64>| {
            publishers.rev().fold(0, |bits, publisher| bits << 1 | u32::from(reach(publisher)))
        };
        match self {
            Self::Independent => {
                those(&|j| splitmix64(vid ^ (0x9e37 + j)) < (0.05 * j as f64 * 2.0_f64.powi(64)) as u64, 1..11)
            }
            Self::Bow => {
                let mut class = uniform(vid ^ 0xac7);
                // Share of the people, activity in ten thousandths.
                let classes = [(0.164, 650), (0.388, 4_274), (0.312, 12_750), (0.136, 31_400)];
                let mut activity = classes[3].1;
                for (share, x) in classes {
                    if class < share {
                        activity = x;
                        break;
                    }
                    class -= share;
                }
                let activity = f64::from(activity) / 1e4;
                those(&|j| uniform(vid ^ (0xb0b0 + j)) < (0.01 * j as f64 * activity).min(1.0), 1..11)
            }
            Self::Sequential => those(&|k| (50_000 * k..50_000 * k + 100_000).contains(&vid), 0..20),
            Self::Same => (1 << 20) - 1,
            Self::Disjoint => 1 << (vid / 10_000_000),
        }
    }

    /// Those who are reached.
    pub(crate) fn audience(self) -> Audience {
        match self {
            Self::Independent | Self::Bow => {
                let everybody = self.universe().into_par_iter();
                Audience::Listed(everybody.filter(|vid| self.reached_by(*vid) != 0).map(|vid| vid as u32).collect())
            }
            Self::Sequential | Self::Same | Self::Disjoint => Audience::First(self.union()),
        }
    }
}

/// Distinct people.
pub(crate) enum Audience {
    /// VIDs 0 to n − 1.
    First(u64),
    /// These VIDs.
    Listed(Vec<u32>),
}

impl Audience {
    /// How many they are.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::First(people) => *people,
            Self::Listed(vids) => vids.len() as u64,
        }
    }

    fn vid(&self, position: usize) -> u64 {
        match self {
            Self::First(_) => position as u64,
            Self::Listed(vids) => u64::from(vids[position]),
        }
    }

    /// How many registers they activate under a salt: of one publisher's sketch, or of any number of publishers' sketches
    /// joined, which is the same. A bit for each register takes the place of the sketch.
    pub(crate) fn active(&self, params: &Params, salt: u64) -> u64 {
        let words = params.size().div_ceil(64) as usize;
        let empty = || vec![0_u64; words];
        let hit = (0..self.size() as usize)
            .into_par_iter()
            .with_min_len(BLOCK)
            .fold(empty, |mut bits, position| {
                let register = params.index(salted(self.vid(position), salt));
                bits[(register / 64) as usize] |= 1 << (register % 64);
                bits
            })
            .reduce(empty, |mut one, other| {
                one.iter_mut().zip(other).for_each(|(bits, more)| *bits |= more);
                one
            });
        hit.iter().map(|bits| u64::from(bits.count_ones())).sum()
    }
}
