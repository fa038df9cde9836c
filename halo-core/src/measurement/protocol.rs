//! How a measurement is computed: the protocols with their parameters.

use std::{fmt, str::FromStr};

use super::{MeasurementKind, MeasurementSpec};
use crate::Error;
use crate::privacy::{NoiseCalibration, NoiseMechanism, PrivacyParams};
use crate::resource::DuchyId;

/// The protocol that the Kingdom chose, with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtocolConfig {
    /// What is counted.
    pub kind: MeasurementKind,
    /// How.
    pub protocol: Protocol,
}

/// A protocol with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Protocol {
    /// Liquid Legions v2.
    Llv2(Llv2Config),
    /// Reach-only Liquid Legions v2.
    Rollv2(Rollv2Config),
    /// Honest-majority share shuffle.
    Hmss(HmssConfig),
    /// One Duchy's trusted execution environment.
    Trustee(TrusteeConfig),
    /// Every publisher by itself.
    Direct(DirectConfig),
}

/// The protocols by name, as a person chooses among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolKind {
    /// Liquid Legions v2.
    Llv2,
    /// Reach-only Liquid Legions v2.
    Rollv2,
    /// Honest-majority share shuffle as the reference has it.
    Hmss,
    /// Honest-majority share shuffle with one-byte cells and a shuffle in buckets.
    HmssNative,
    /// One Duchy's trusted execution environment.
    Trustee,
    /// Every publisher by itself.
    Direct,
}

impl ProtocolKind {
    /// All, in the order of the declaration.
    pub const ALL: [Self; 6] = [Self::Llv2, Self::Rollv2, Self::Hmss, Self::HmssNative, Self::Trustee, Self::Direct];

    /// The name: `llv2`, `rollv2`, `hmss`, `hmss-native`, `trustee` or `direct`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llv2 => "llv2",
            Self::Rollv2 => "rollv2",
            Self::Hmss => "hmss",
            Self::HmssNative => "hmss-native",
            Self::Trustee => "trustee",
            Self::Direct => "direct",
        }
    }

    /// Whether publishers make frequency vectors over a population that all of them number alike.
    #[must_use]
    pub const fn uses_vectors(self) -> bool {
        matches!(self, Self::Hmss | Self::HmssNative | Self::Trustee)
    }
}

impl fmt::Display for ProtocolKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ProtocolKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| Error::value("protocol", text, "llv2, rollv2, hmss, hmss-native, trustee or direct"))
    }
}

/// The three noises inside Liquid Legions protocols, and how all noise is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LiquidLegionsNoise {
    /// Distribution.
    pub mechanism: NoiseMechanism,
    /// How its width follows from ε and δ.
    pub calibration: NoiseCalibration,
    /// So many Duchies' noise alone gives the promised privacy, at least 1.
    pub honest_contributors: u32,
    /// What every publisher adds, so that its sketch's size is hidden.
    pub data_provider: PrivacyParams,
    /// What the Duchies add, so that it is hidden how many publishers share a register.
    pub blinded_histogram: PrivacyParams,
    /// What the Duchies add, so that the publishers' noise is hidden.
    pub for_publisher_noise: PrivacyParams,
}

/// Parameters of Liquid Legions v2 over Ristretto255.
#[derive(Clone, Debug, PartialEq)]
pub struct Llv2Config {
    /// Decay rate a of the sketch.
    pub decay_rate: f64,
    /// Number of registers m of the sketch.
    pub max_size: u64,
    /// Number of different register keys.
    pub sampling_indicator_size: u64,
    /// Noise; `None` switches off every noise of every party.
    pub noise: Option<LiquidLegionsNoise>,
    /// The Duchy that joins and hands in the result.
    pub aggregator: DuchyId,
}

/// Parameters of reach-only Liquid Legions v2 over Ristretto255.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollv2Config {
    /// Decay rate a of the sketch.
    pub decay_rate: f64,
    /// Number of registers m of the sketch.
    pub max_size: u64,
    /// Noise; `None` switches off every noise of every party.
    pub noise: Option<LiquidLegionsNoise>,
    /// The Duchy that joins and hands in the result.
    pub aggregator: DuchyId,
}

/// The VIDs from `first` to `last`, both among them: whom frequency vectors are over. It is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Population {
    first: u64,
    last: u64,
}

impl Population {
    /// VIDs are below this (protocols 3.2).
    pub const VID_END: u64 = (1 << 31) - 1;

    /// Checks that `first` is not above `last`, and `last` below 2³¹ − 1.
    ///
    /// # Errors
    /// If it is not so.
    pub fn new(first: u64, last: u64) -> Result<Self, Error> {
        if first <= last && last < Self::VID_END {
            return Ok(Self { first, last });
        }
        let shown = format!("{first}..{last}");
        Err(Error::value("population", shown, "FIRST..LAST, with FIRST not above LAST and LAST below 2147483647"))
    }

    /// The lowest VID.
    #[must_use]
    pub const fn first(self) -> u64 {
        self.first
    }

    /// The highest VID.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.last
    }

    /// Number of people, at least 1.
    #[must_use]
    pub const fn size(self) -> u64 {
        self.last - self.first + 1
    }

    /// Every VID, ascending.
    pub fn vids(self) -> impl Iterator<Item = u64> {
        self.first..=self.last
    }
}

/// `FIRST..LAST`.
impl fmt::Display for Population {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.first, self.last)
    }
}

impl FromStr for Population {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refuse = || Error::value("population", text, "FIRST..LAST, two whole numbers");
        let (first, last) = text.split_once("..").ok_or_else(refuse)?;
        Self::new(first.parse().map_err(|_| refuse())?, last.parse().map_err(|_| refuse())?)
    }
}

/// Parameters of the honest-majority share shuffle.
#[derive(Clone, Debug, PartialEq)]
pub struct HmssConfig {
    /// Arithmetic and shuffle.
    pub variant: HmssVariant,
    /// The noise of both workers; `None` switches it off.
    pub noise: Option<HmssNoise>,
    /// The worker that speaks first.
    pub first_worker: DuchyId,
    /// The other worker.
    pub second_worker: DuchyId,
    /// The Duchy that adds up both workers' vectors and hands in the result.
    pub aggregator: DuchyId,
    /// Whom the vectors are over.
    pub population: Population,
}

/// Arithmetic and shuffle of a share shuffle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HmssVariant {
    /// The reference's generator, vector layout and shuffle.
    Compatible {
        /// q.
        ring_modulus: u32,
    },
    /// One-byte cells: q = 256 for frequencies, 251 for reach alone; the shuffle in buckets.
    Native,
}

/// How the workers of a share shuffle make noise. Its ε and δ are the consumer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HmssNoise {
    /// Distribution.
    pub mechanism: NoiseMechanism,
    /// How its width follows from ε and δ.
    pub calibration: NoiseCalibration,
    /// So many workers' noise alone gives the promised privacy, 1 or 2.
    pub honest_contributors: u32,
}

/// Parameters of the measurement in a trusted execution environment.
#[derive(Clone, Debug, PartialEq)]
pub struct TrusteeConfig {
    /// The Duchy that computes.
    pub duchy: DuchyId,
    /// Its noise.
    pub noise: TrusteeNoise,
    /// Smaller results are released as 0.
    pub thresholds: Option<TrusteeThresholds>,
    /// Whom the vectors are over.
    pub population: Population,
}

/// The noise of a trustee. Its ε and δ are the consumer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrusteeNoise {
    /// None.
    None,
    /// Drawn anew in every computation.
    DiscreteGaussian,
    /// Follows from the data and a secret of the trustee: the same data get the same noise, so that asking again does
    /// not average it away.
    Deterministic,
}

/// Results below these are released as 0; the names are the contract's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrusteeThresholds {
    /// Least number of impressions.
    pub min_impressions: u32,
    /// Least number of people.
    pub min_users: u32,
}

/// What publishers may do on their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectConfig {
    /// The noises that a publisher may choose from, `None` for none at all; not empty.
    pub noise: Vec<Option<NoiseMechanism>>,
}

impl Protocol {
    /// Its name.
    #[must_use]
    pub const fn kind(&self) -> ProtocolKind {
        match self {
            Self::Llv2(_) => ProtocolKind::Llv2,
            Self::Rollv2(_) => ProtocolKind::Rollv2,
            Self::Hmss(HmssConfig { variant: HmssVariant::Compatible { .. }, .. }) => ProtocolKind::Hmss,
            Self::Hmss(HmssConfig { variant: HmssVariant::Native, .. }) => ProtocolKind::HmssNative,
            Self::Trustee(_) => ProtocolKind::Trustee,
            Self::Direct(_) => ProtocolKind::Direct,
        }
    }

    /// The Duchy that hands in the result; none where every publisher does so itself.
    #[must_use]
    pub const fn aggregator(&self) -> Option<&DuchyId> {
        match self {
            Self::Llv2(llv2) => Some(&llv2.aggregator),
            Self::Rollv2(rollv2) => Some(&rollv2.aggregator),
            Self::Hmss(hmss) => Some(&hmss.aggregator),
            Self::Trustee(trustee) => Some(&trustee.duchy),
            Self::Direct(_) => None,
        }
    }

    /// Whom frequency vectors are over, where there are any.
    #[must_use]
    pub const fn population(&self) -> Option<Population> {
        match self {
            Self::Hmss(hmss) => Some(hmss.population),
            Self::Trustee(trustee) => Some(trustee.population),
            Self::Llv2(_) | Self::Rollv2(_) | Self::Direct(_) => None,
        }
    }

    /// The Duchies that may receive uploads, of those that take part (`all`, ascending by id).
    ///
    /// Each requisition goes to one of them, chosen by [`crate::session::fulfilling_duchy`].
    #[must_use]
    pub fn fulfilling_duchies(&self, all: &[DuchyId]) -> Vec<DuchyId> {
        match self {
            Self::Llv2(_) | Self::Rollv2(_) => all.to_vec(),
            Self::Hmss(hmss) => {
                let mut workers = vec![hmss.first_worker.clone(), hmss.second_worker.clone()];
                workers.sort_unstable();
                workers
            }
            Self::Trustee(trustee) => vec![trustee.duchy.clone()],
            Self::Direct(_) => Vec::new(),
        }
    }
}

impl ProtocolConfig {
    /// Checks that the configuration is for what the consumer asked for, and that the protocol computes that.
    ///
    /// # Errors
    /// If the two speak of different kinds of measurement, or the protocol does not compute this kind.
    pub fn check_fits(&self, spec: &MeasurementSpec) -> Result<(), Error> {
        let asked = spec.kind.kind();
        if self.kind != asked {
            let expected = "the kind that was asked for in the measurement spec";
            return Err(Error::value("measurement_type of the protocol configuration", self.kind, expected));
        }
        let (possible, expected) = match &self.protocol {
            Protocol::Llv2(_) | Protocol::Hmss(_) | Protocol::Trustee(_) => (
                matches!(asked, MeasurementKind::Reach | MeasurementKind::ReachAndFrequency),
                "REACH or REACH_AND_FREQUENCY for this protocol",
            ),
            Protocol::Rollv2(_) => (matches!(asked, MeasurementKind::Reach), "REACH for this protocol"),
            Protocol::Direct(_) => (true, "any"),
        };
        if possible { Ok(()) } else { Err(Error::value("measurement_type", asked, expected)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_protocols_are_read_back() {
        for kind in ProtocolKind::ALL {
            assert_eq!(kind.to_string().parse::<ProtocolKind>().unwrap(), kind);
        }
        assert!("LLV2".parse::<ProtocolKind>().unwrap_err().to_string().contains("hmss-native"));
    }

    #[test]
    fn a_population_is_a_range_of_vids() {
        let population: Population = "3..7".parse().unwrap();
        assert_eq!((population.size(), population.to_string()), (5, "3..7".to_owned()));
        assert!(population.vids().eq([3, 4, 5, 6, 7]));
        for bad in ["7..3", "1..2147483647", "1", "a..b", "-1..3", "1...3"] {
            assert!(bad.parse::<Population>().is_err(), "{bad}");
        }
        assert_eq!(Population::new(0, 0).unwrap().size(), 1);
    }
}
