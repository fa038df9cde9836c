//! What is measured, and how it is computed.

use std::fmt;

use crate::Error;
use crate::privacy::{MaximumFrequency, NoiseCalibration, NoiseMechanism, PrivacyParams, VidSamplingInterval};
use crate::resource::{DuchyId, EventGroupName};

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
    Impression,
    /// How long was watched.
    Duration,
    /// How large the population is.
    Population,
}

impl MeasurementType {
    /// F; 1 where frequencies are not asked for.
    #[must_use]
    pub const fn maximum_frequency(&self) -> MaximumFrequency {
        match self {
            Self::ReachAndFrequency { maximum_frequency, .. } => *maximum_frequency,
            Self::Reach { .. } | Self::Impression | Self::Duration | Self::Population => MaximumFrequency::REACH_ONLY,
        }
    }
}

/// The name of the kind, as it is spelled in the contract.
impl fmt::Display for MeasurementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reach { .. } => "REACH",
            Self::ReachAndFrequency { .. } => "REACH_AND_FREQUENCY",
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
    /// Whose events count.
    pub event_groups: Vec<EventGroupEntry>,
}

impl fmt::Debug for RequisitionSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequisitionSpec").field("event_groups", &self.event_groups).finish_non_exhaustive()
    }
}

/// Events of one event group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventGroupEntry {
    /// The event group.
    pub event_group: EventGroupName,
    /// A condition in the Common Expression Language; every event counts when it is empty.
    pub filter: String,
}

/// The three noises inside Liquid Legions v2, and how all noise is made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llv2Noise {
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
    pub noise: Option<Llv2Noise>,
    /// The Duchy that joins and hands in the result.
    pub aggregator: DuchyId,
}

/// The protocol that the Kingdom chose, with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtocolConfig {
    /// Whether frequencies are computed, or reach alone.
    pub counts_frequency: bool,
    /// The protocol's parameters.
    pub llv2: Llv2Config,
}

impl ProtocolConfig {
    /// Checks that the configuration is for what the consumer asked for.
    ///
    /// # Errors
    /// If one speaks of reach and the other of reach and frequency, or the consumer asked for something else.
    pub fn check_fits(&self, spec: &MeasurementSpec) -> Result<(), Error> {
        let planned = if self.counts_frequency { "REACH_AND_FREQUENCY" } else { "REACH" };
        let asked = match spec.kind {
            MeasurementType::Reach { .. } => false,
            MeasurementType::ReachAndFrequency { .. } => true,
            MeasurementType::Impression | MeasurementType::Duration | MeasurementType::Population => {
                return Err(Error::value("measurement_type", spec.kind, "REACH or REACH_AND_FREQUENCY"));
            }
        };
        if asked == self.counts_frequency {
            return Ok(());
        }
        let expected = if asked { "REACH_AND_FREQUENCY, as was asked for" } else { "REACH, as was asked for" };
        Err(Error::value("measurement_type of the protocol configuration", planned, expected))
    }
}
