//! What is measured.

use std::fmt;

use crate::privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval};
use crate::resource::EventGroupName;

/// What a consumer asks for, as far as every party must agree on it.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasurementSpec {
    /// What is counted, with the noise that it pays for.
    pub kind: MeasurementType,
    /// Whom it is counted among.
    pub vid_sampling_interval: VidSamplingInterval,
    /// SHA-256 of every publisher's nonce.
    pub nonce_hashes: Vec<[u8; 32]>,
    /// Serialized `EncryptionPublicKey` that the result is encrypted to.
    pub measurement_public_key: Vec<u8>,
}

/// What a measurement counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MeasurementType {
    /// How many people were reached.
    Reach {
        /// Noise of the reach.
        reach: PrivacyParams,
    },
    /// How many people were reached, and how often.
    ReachAndFrequency {
        /// Noise of the reach.
        reach: PrivacyParams,
        /// Noise of the frequency histogram.
        frequency: PrivacyParams,
        /// The highest frequency that is told apart.
        maximum_frequency: MaximumFrequency,
    },
    /// How many impressions there were.
    Impression {
        /// Noise of the number.
        impression: PrivacyParams,
        /// More impressions of one person do not count, at least 1.
        maximum_frequency_per_user: u32,
    },
    /// How long was watched.
    Duration {
        /// Noise of the sum.
        duration: PrivacyParams,
        /// More seconds of one person do not count, at least 1.
        maximum_seconds_per_user: u64,
    },
    /// How large the population is.
    Population,
}

impl MeasurementType {
    /// F; 1 where frequencies are not asked for.
    #[must_use]
    pub const fn maximum_frequency(&self) -> MaximumFrequency {
        match self {
            Self::ReachAndFrequency { maximum_frequency, .. } => *maximum_frequency,
            _ => MaximumFrequency::REACH_ONLY,
        }
    }

    /// What is counted, without the parameters.
    #[must_use]
    pub const fn kind(&self) -> MeasurementKind {
        match self {
            Self::Reach { .. } => MeasurementKind::Reach,
            Self::ReachAndFrequency { .. } => MeasurementKind::ReachAndFrequency,
            Self::Impression { .. } => MeasurementKind::Impression,
            Self::Duration { .. } => MeasurementKind::Duration,
            Self::Population => MeasurementKind::Population,
        }
    }
}

impl fmt::Display for MeasurementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind().fmt(f)
    }
}

/// What a measurement counts, without parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasurementKind {
    /// People reached.
    Reach,
    /// People reached, and how often.
    ReachAndFrequency,
    /// Impressions.
    Impression,
    /// Seconds watched.
    Duration,
    /// People there are.
    Population,
}

impl MeasurementKind {
    /// Whether a histogram of frequencies is asked for.
    #[must_use]
    pub const fn counts_frequency(self) -> bool {
        matches!(self, Self::ReachAndFrequency)
    }
}

/// The name as it is spelled in the contract.
impl fmt::Display for MeasurementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reach => "REACH",
            Self::ReachAndFrequency => "REACH_AND_FREQUENCY",
            Self::Impression => "IMPRESSION",
            Self::Duration => "DURATION",
            Self::Population => "POPULATION",
        })
    }
}

/// What one publisher is asked for.
#[derive(Clone, PartialEq, Eq)]
pub struct RequisitionSpec {
    /// Serialized `EncryptionPublicKey` that results are encrypted to.
    pub measurement_public_key: Vec<u8>,
    /// The publisher's secret number, not 0. It shows that the publisher took part, and is not printed.
    pub nonce: u64,
    /// What is wanted of the publisher.
    pub wanted: Wanted,
}

impl fmt::Debug for RequisitionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequisitionSpec").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

/// What is wanted of a publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The events of these groups.
    Events(Vec<EventGroupEntry>),
    /// The size of the population.
    Population {
        /// A condition in the Common Expression Language; everybody counts when it is empty.
        filter: String,
    },
}

/// Events of one event group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventGroupEntry {
    /// The event group.
    pub event_group: EventGroupName,
    /// A condition in the Common Expression Language; every event counts when it is empty.
    pub filter: String,
}
