//! What a run found out: the object of `--json`, and the source of the printed summary and of the report.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::truth::PublisherTruth;

/// Half the width of a 95 % confidence interval, in standard errors.
const Z95: f64 = 1.959_964;

/// Everything that a run found out. Frequencies are shares of the reach; the last one is "this or more".
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The protocol that computed the result.
    pub protocol: &'static str,
    /// Which measurement it was, or that it had none of its own.
    pub measurement: String,
    /// Maximum frequency F.
    pub maximum_frequency: u32,
    /// Every noise was switched off.
    pub noise_off: bool,
    /// ε and δ that the released values cost in total, by basic composition; absent without noise.
    pub privacy_spent: Option<PrivacySpent>,
    /// Each publisher's impressions, and its reach in the clear.
    pub publishers: Vec<PublisherTruth>,
    /// The exact answer, computed in the clear for comparison.
    pub truth: TruthShares,
    /// The decrypted, verified result.
    pub result: ResultFigures,
    /// CPU and memory of each party's process, from the operating system.
    pub parties: Vec<Usage>,
    /// Wall times.
    pub timings: Timings,
    /// The stages of the computation.
    pub stages: Vec<Stage>,
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

/// ε and δ of everything that was released.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct PrivacySpent {
    /// Sum of the ε.
    pub epsilon: f64,
    /// Sum of the δ.
    pub delta: f64,
}

/// The exact answer.
#[derive(Clone, Debug, Serialize)]
pub struct TruthShares {
    /// Distinct people.
    pub reach: u64,
    /// Share of the reached people by frequency.
    pub frequency: BTreeMap<u64, f64>,
}

/// The figures of the decrypted result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResultFigures {
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
    /// Registers that the publishers sent, their noise registers included.
    pub registers_in: u64,
    /// Distinct active registers after subtraction of the expected noise.
    pub active_registers: i64,
    /// Registers whose count could be used; only where no noise hides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usable_registers: Option<u64>,
    /// Usable registers by count, the last entry for "this or more"; only where no noise hides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usable_histogram: Option<Vec<u64>>,
}

/// Wall times in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Timings {
    /// Impressions to sketch, slowest publisher.
    pub sketch_s: f64,
    /// Sketch to encrypted body, slowest publisher.
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
}

impl Outcome {
    /// The 95 % confidence interval of the reach, in people.
    #[must_use]
    pub fn reach_interval(&self) -> (u64, u64) {
        interval(&self.result)
    }

    /// Signed error of the reach against the exact answer, in percent of it; 0 when nobody was reached at all.
    #[must_use]
    pub fn reach_error_percent(&self) -> f64 {
        if self.truth.reach == 0 {
            return 0.0;
        }
        (self.result.reach as f64 / self.truth.reach as f64 - 1.0) * 100.0
    }

    /// What the release cost, in words.
    #[must_use]
    pub fn privacy_statement(&self) -> String {
        match self.privacy_spent {
            Some(spent) => format!("Spent in total: ε = {}, δ = {:e} (basic composition).", spent.epsilon, spent.delta),
            None => "No noise was added: the result is not differentially private.".into(),
        }
    }

    /// Half the sum of absolute differences between measured and exact shares.
    #[must_use]
    pub fn shuffle_distance(&self) -> Option<f64> {
        let shares = self.result.frequency.as_ref()?;
        let sum: f64 = (1..=u64::from(self.maximum_frequency))
            .map(|bin| {
                let share = |map: &BTreeMap<u64, f64>| map.get(&bin).copied().unwrap_or(0.0);
                (share(shares) - share(&self.truth.frequency)).abs()
            })
            .sum();
        Some(sum / 2.0)
    }
}

/// The 95 % confidence interval of a result's reach, in people; never below zero.
#[must_use]
pub fn interval(result: &ResultFigures) -> (u64, u64) {
    let half = Z95 * result.reach_std_error;
    let reach = result.reach as f64;
    ((reach - half).max(0.0).round() as u64, (reach + half).round() as u64)
}
