//! What a run found out: the object of `--json`, and the source of the printed summary and of the report.

use std::collections::BTreeMap;

use halo_core::measurement::MeasurementKind;
use serde::{Serialize, Serializer};

use crate::kind;
use crate::truth::{PublisherTruth, Reached};

/// Half the width of a 95 % confidence interval, in standard errors.
pub const Z95: f64 = 1.959_964;

/// Everything that a run found out. Frequencies are shares of the reach; the last one is "this or more".
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The protocol that computed the result, by its name.
    pub protocol: &'static str,
    /// Why the Kingdom took it, and why no other: its planner's words.
    pub planner: Vec<String>,
    /// What was measured: `reach`, `reach-and-frequency`, `impression`, `duration` or `population`.
    #[serde(serialize_with = "name_of_kind")]
    pub measurement_type: MeasurementKind,
    /// Resource names of the measurements: one, or one a publisher.
    pub measurements: Vec<String>,
    /// Maximum frequency F; 1 where frequencies were not measured.
    pub maximum_frequency: u32,
    /// The people that frequency vectors are over, `FIRST..LAST`; it is public. Absent where there were no vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub population: Option<String>,
    /// Every noise was switched off.
    pub noise_off: bool,
    /// ε and δ that the released values cost in total, by basic composition; absent without noise.
    pub privacy_spent: Option<PrivacySpent>,
    /// Each publisher's impressions, and its reach in the clear.
    pub publishers: Vec<PublisherTruth>,
    /// What was found about all publishers together; absent where each counted on its own.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub joint: Option<Found>,
    /// What each publisher found on its own; empty where all were measured together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub results: Vec<PublisherFound>,
    /// CPU and memory of each party's process, from the operating system.
    pub parties: Vec<Usage>,
    /// What each publisher sent.
    pub uploads: Vec<Upload>,
    /// Wall times.
    pub timings: Timings,
    /// The stages of the computation.
    pub stages: Vec<Stage>,
}

/// A decrypted, verified result beside the exact answer.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// The exact answer, computed in the clear for comparison.
    pub truth: Exact,
    /// The decrypted, verified result.
    pub result: Figures,
}

/// What one publisher found on its own.
#[derive(Clone, Debug, Serialize)]
pub struct PublisherFound {
    /// The publisher's name.
    pub publisher: String,
    /// Its result and the exact answer.
    #[serde(flatten)]
    pub found: Found,
}

/// What the operating system says of a process.
#[derive(Clone, Debug, Serialize)]
pub struct Usage {
    /// Whose process it is.
    pub name: String,
    /// CPU time, user and system, in seconds.
    pub cpu_s: f64,
    /// Highest resident memory so far, in bytes.
    pub peak_rss_bytes: u64,
}

/// What a publisher sent to a Duchy.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Upload {
    /// The publisher's name.
    pub publisher: String,
    /// Registers of a sketch, noise included, or cells of a vector.
    pub records: u64,
    /// Bytes of the body.
    pub bytes: u64,
}

/// ε and δ of everything that was released.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PrivacySpent {
    /// Sum of the ε.
    pub epsilon: f64,
    /// Sum of the δ.
    pub delta: f64,
}

/// The exact answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Exact {
    /// Of a measurement of reach.
    Reach {
        /// Distinct people.
        reach: u64,
        /// Share of the reached people by frequency.
        frequency: BTreeMap<u64, f64>,
        /// The reached people by frequency, the last entry for "this or more".
        histogram: Vec<u64>,
    },
    /// Of any other.
    Sum {
        /// Impressions, seconds or people, as was asked.
        value: u64,
    },
}

/// The figures of a decrypted result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Figures {
    /// Of a measurement of reach.
    Reach(ReachFigures),
    /// Of any other.
    Sum(SumFigures),
}

/// How many people were reached, and how often.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ReachFigures {
    /// Estimated distinct people.
    pub reach: u64,
    /// Standard error of `reach`, in people.
    pub reach_std_error: f64,
    /// Share of the reached people by frequency; absent when none was measured or nobody was reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency: Option<BTreeMap<u64, f64>>,
    /// Standard errors of the shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_std_error: Option<BTreeMap<u64, f64>>,
    /// Registers that the publishers sent, their noise registers included; only of sketches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registers_in: Option<u64>,
    /// Distinct active registers after subtraction of the expected noise; only of sketches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_registers: Option<i64>,
    /// Registers whose count could be used; only of sketches whose frequencies no noise hides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usable_registers: Option<u64>,
    /// Usable registers by count, the last entry for "this or more"; only of sketches whose frequencies no noise hides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usable_histogram: Option<Vec<u64>>,
    /// Cells of each publisher's frequency vector, one a sampled person; only of vectors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vector_size: Option<u64>,
    /// Sampled people by frequency, the last entry for "this or more"; only of vectors, where no noise hides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Vec<u64>>,
}

/// A number of impressions, seconds or people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct SumFigures {
    /// The number.
    pub value: u64,
    /// Its standard error.
    pub std_error: f64,
}

/// Wall times in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Timings {
    /// Impressions to sketch or vector, slowest publisher.
    pub sketch_s: f64,
    /// Sketch or vector to encrypted body, slowest publisher.
    pub encrypt_s: f64,
    /// From the last encrypted body to the result.
    pub computation_s: f64,
    /// From the first key to the result.
    pub total_s: f64,
}

/// One completed stage of one Duchy.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// The Duchy.
    pub party: String,
    /// The stage's name in the system's API, such as `SETUP_PHASE`.
    pub name: String,
    /// When it began, in seconds from the start of the computation.
    pub start_s: f64,
    /// When it ended, in seconds from the start of the computation.
    pub end_s: f64,
    /// CPU time that the process spent meanwhile, in seconds.
    pub cpu_s: f64,
    /// Records that it read.
    pub records_in: u64,
    /// Records that it sent to other Duchies.
    pub records_out: u64,
    /// Bytes that it sent to other Duchies.
    pub bytes_out: u64,
}

fn name_of_kind<S: Serializer>(measured: &MeasurementKind, serializer: S) -> Result<S::Ok, S::Error> {
    kind::name(*measured).serialize(serializer)
}

impl Outcome {
    /// Every result: of all publishers together, or of each by its name.
    pub fn found(&self) -> impl Iterator<Item = (Option<&str>, &Found)> {
        let joint = self.joint.iter().map(|found| (None, found));
        joint.chain(self.results.iter().map(|result| (Some(result.publisher.as_str()), &result.found)))
    }

    /// What the release cost, in words.
    #[must_use]
    pub fn privacy_statement(&self) -> String {
        match self.privacy_spent {
            Some(spent) => format!("Spent in total: ε = {}, δ = {:e} (basic composition).", spent.epsilon, spent.delta),
            None => "No noise was added: the result is not differentially private.".into(),
        }
    }
}

impl Exact {
    /// Of people who were reached.
    #[must_use]
    pub fn reached(reached: &Reached) -> Self {
        Self::Reach {
            reach: reached.reach,
            frequency: (1..).zip(reached.shares()).collect(),
            histogram: reached.histogram.clone(),
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn value(&self) -> u64 {
        match self {
            Self::Reach { reach, .. } => *reach,
            Self::Sum { value } => *value,
        }
    }

    /// Share of the reached people by frequency; empty where frequencies have no meaning.
    #[must_use]
    pub fn frequency(&self) -> BTreeMap<u64, f64> {
        match self {
            Self::Reach { frequency, .. } => frequency.clone(),
            Self::Sum { .. } => BTreeMap::new(),
        }
    }
}

impl Figures {
    /// The number itself.
    #[must_use]
    pub const fn value(&self) -> u64 {
        match self {
            Self::Reach(reach) => reach.reach,
            Self::Sum(sum) => sum.value,
        }
    }

    /// Its standard error.
    #[must_use]
    pub const fn standard_error(&self) -> f64 {
        match self {
            Self::Reach(reach) => reach.reach_std_error,
            Self::Sum(sum) => sum.std_error,
        }
    }

    /// The figures of reach and frequency, where these were measured.
    #[must_use]
    pub const fn reach(&self) -> Option<&ReachFigures> {
        match self {
            Self::Reach(reach) => Some(reach),
            Self::Sum(_) => None,
        }
    }

    /// The 95 % confidence interval; never below zero.
    #[must_use]
    pub fn interval(&self) -> (u64, u64) {
        let half = Z95 * self.standard_error();
        let value = self.value() as f64;
        ((value - half).max(0.0).round() as u64, (value + half).round() as u64)
    }
}

impl Found {
    /// Signed error against the exact answer, in percent of it; 0 when that is nothing.
    #[must_use]
    pub fn error_percent(&self) -> f64 {
        if self.truth.value() == 0 {
            return 0.0;
        }
        (self.result.value() as f64 / self.truth.value() as f64 - 1.0) * 100.0
    }

    /// Half the sum of absolute differences between measured and exact shares.
    #[must_use]
    pub fn shuffle_distance(&self) -> Option<f64> {
        let shares = self.result.reach()?.frequency.as_ref()?;
        let exact = self.truth.frequency();
        let bins: std::collections::BTreeSet<_> = shares.keys().chain(exact.keys()).collect();
        let share = |map: &BTreeMap<u64, f64>, bin| map.get(bin).copied().unwrap_or(0.0);
        let sum: f64 = bins.into_iter().map(|bin| (share(shares, bin) - share(&exact, bin)).abs()).sum();
        Some(sum / 2.0)
    }
}
