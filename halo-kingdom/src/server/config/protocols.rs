//! The sections of the protocols.

use halo_core::{
    measurement::{
        DirectConfig, HmssConfig, HmssNoise, HmssVariant, LiquidLegionsNoise, Llv2Config, Population, Rollv2Config,
        TrusteeConfig, TrusteeNoise, TrusteeThresholds,
    },
    privacy::{NoiseCalibration, NoiseMechanism, PrivacyParams},
    resource::DuchyId,
};
use serde::Deserialize;

use crate::planner::{Llv2Settings, Rollv2Settings, Settings};

/// All sections; those that are there are planned.
pub(super) struct Sections {
    pub(super) llv2: Option<LiquidLegions>,
    pub(super) rollv2: Option<LiquidLegions>,
    pub(super) hmss: Option<ShareShuffle>,
    pub(super) hmss_native: Option<ShareShuffle>,
    pub(super) trustee: Option<Trustee>,
    pub(super) direct: Option<Direct>,
    pub(super) population: Option<VidRange>,
}

/// `[llv2]` and `[rollv2]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LiquidLegions {
    aggregator: String,
    #[serde(default = "two")]
    minimum_duchies: usize,
    #[serde(default = "twelve")]
    decay_rate: f64,
    #[serde(default = "hundred_thousand")]
    max_size: u64,
    sampling_indicator_size: Option<u64>,
    #[serde(default)]
    noise_mechanism: Mechanism,
    #[serde(default)]
    noise_calibration: Calibration,
    #[serde(default = "one")]
    honest_contributors: u32,
    data_provider_noise: Option<Privacy>,
    blinded_histogram_noise: Option<Privacy>,
    noise_for_publisher_noise: Option<Privacy>,
}

/// `[hmss]` and `[hmss_native]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShareShuffle {
    first_worker: String,
    second_worker: String,
    aggregator: String,
    ring_modulus: Option<u32>,
    #[serde(default)]
    noise_mechanism: Mechanism,
    #[serde(default)]
    noise_calibration: Calibration,
    #[serde(default = "one")]
    honest_contributors: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trustee {
    duchy: String,
    #[serde(default)]
    noise_mechanism: CentralMechanism,
    thresholds: Option<Thresholds>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Thresholds {
    min_users: u32,
    min_impressions: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Direct {
    noise_mechanisms: Vec<Mechanism>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VidRange {
    first: u64,
    last: u64,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Mechanism {
    #[default]
    DiscreteGaussian,
    Geometric,
    None,
}

/// What one Duchy can add alone.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum CentralMechanism {
    #[default]
    DiscreteGaussian,
    Deterministic,
    None,
}

#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Calibration {
    #[default]
    Exact,
    Reference,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Privacy {
    epsilon: f64,
    delta: f64,
}

/// q of `[hmss]` where it says nothing.
const RING_MODULUS: u32 = 127;
/// Number of register keys of `[llv2]` where it says nothing.
const SAMPLING_INDICATOR_SIZE: u64 = 10_000_000;

const fn two() -> usize {
    2
}

const fn one() -> u32 {
    1
}

const fn twelve() -> f64 {
    12.0
}

const fn hundred_thousand() -> u64 {
    100_000
}

impl Mechanism {
    const fn get(self) -> Option<NoiseMechanism> {
        match self {
            Self::DiscreteGaussian => Some(NoiseMechanism::DiscreteGaussian),
            Self::Geometric => Some(NoiseMechanism::Geometric),
            Self::None => None,
        }
    }
}

impl Calibration {
    const fn get(self) -> NoiseCalibration {
        match self {
            Self::Exact => NoiseCalibration::Exact,
            Self::Reference => NoiseCalibration::Reference,
        }
    }
}

impl Sections {
    /// The settings of the planner.
    pub(super) fn settings(self) -> Result<Settings, String> {
        let none = self.llv2.is_none()
            && self.rollv2.is_none()
            && self.hmss.is_none()
            && self.hmss_native.is_none()
            && self.trustee.is_none()
            && self.direct.is_none();
        if none {
            return Err("no protocol is configured; at least one of the sections [llv2], [rollv2], [hmss], \
                        [hmss_native], [trustee] and [direct] must be there"
                .into());
        }
        let range = self.population.as_ref().map(|range| Population::new(range.first, range.last));
        let range = range.transpose().map_err(|error| format!("population: {error}"))?;
        let population = |section: &str| {
            range.ok_or_else(|| format!("population: it is required for [{section}]; state the first and the last VID"))
        };
        let hmss = self.hmss.map(|hmss| {
            let ring_modulus = hmss.ring_modulus.unwrap_or(RING_MODULUS);
            hmss.settings("hmss", HmssVariant::Compatible { ring_modulus }, population("hmss")?)
        });
        let hmss_native = self.hmss_native.map(|hmss| {
            if hmss.ring_modulus.is_some() {
                return Err("hmss_native.ring_modulus: this variant has no choice; leave it out".into());
            }
            hmss.settings("hmss_native", HmssVariant::Native, population("hmss_native")?)
        });
        Ok(Settings {
            llv2: self.llv2.map(|llv2| llv2.llv2()).transpose()?,
            rollv2: self.rollv2.map(|rollv2| rollv2.rollv2()).transpose()?,
            hmss: hmss.transpose()?,
            hmss_native: hmss_native.transpose()?,
            trustee: self.trustee.map(|trustee| trustee.settings(population("trustee")?)).transpose()?,
            direct: self.direct.unwrap_or_default().settings(),
        })
    }
}

impl LiquidLegions {
    fn llv2(&self) -> Result<Llv2Settings, String> {
        let protocol = Llv2Config {
            aggregator: duchy("llv2", "aggregator", &self.aggregator)?,
            decay_rate: self.decay_rate,
            max_size: self.max_size,
            sampling_indicator_size: self.sampling_indicator_size.unwrap_or(SAMPLING_INDICATOR_SIZE),
            noise: self.noise("llv2")?,
        };
        Ok(Llv2Settings { protocol, minimum_duchies: self.minimum_duchies })
    }

    fn rollv2(&self) -> Result<Rollv2Settings, String> {
        if self.sampling_indicator_size.is_some() {
            return Err("rollv2.sampling_indicator_size: its registers have no keys; leave it out".into());
        }
        let protocol = Rollv2Config {
            aggregator: duchy("rollv2", "aggregator", &self.aggregator)?,
            decay_rate: self.decay_rate,
            max_size: self.max_size,
            noise: self.noise("rollv2")?,
        };
        Ok(Rollv2Settings { protocol, minimum_duchies: self.minimum_duchies })
    }

    fn noise(&self, section: &str) -> Result<Option<LiquidLegionsNoise>, String> {
        let Some(mechanism) = self.noise_mechanism.get() else { return Ok(None) };
        let privacy = |key: &str, given: Option<Privacy>| {
            let given =
                given.ok_or_else(|| format!("{section}.{key}: it is required unless noise_mechanism is \"none\""))?;
            let params = PrivacyParams::new(given.epsilon, given.delta).and_then(PrivacyParams::for_protocol_noise);
            params.map_err(|error| format!("{section}.{key}: {error}"))
        };
        Ok(Some(LiquidLegionsNoise {
            mechanism,
            calibration: self.noise_calibration.get(),
            honest_contributors: self.honest_contributors,
            data_provider: privacy("data_provider_noise", self.data_provider_noise)?,
            blinded_histogram: privacy("blinded_histogram_noise", self.blinded_histogram_noise)?,
            for_publisher_noise: privacy("noise_for_publisher_noise", self.noise_for_publisher_noise)?,
        }))
    }
}

impl ShareShuffle {
    fn settings(&self, section: &str, variant: HmssVariant, population: Population) -> Result<HmssConfig, String> {
        let noise = self.noise_mechanism.get().map(|mechanism| HmssNoise {
            mechanism,
            calibration: self.noise_calibration.get(),
            honest_contributors: self.honest_contributors,
        });
        Ok(HmssConfig {
            variant,
            noise,
            first_worker: duchy(section, "first_worker", &self.first_worker)?,
            second_worker: duchy(section, "second_worker", &self.second_worker)?,
            aggregator: duchy(section, "aggregator", &self.aggregator)?,
            population,
        })
    }
}

impl Trustee {
    fn settings(&self, population: Population) -> Result<TrusteeConfig, String> {
        let least = |key: &str, value: u32| {
            // Wider than this, the number would be negative in the messages.
            let fits = i32::try_from(value).is_ok();
            if fits { Ok(value) } else { Err(format!("trustee.thresholds.{key}: {value} is more than {}", i32::MAX)) }
        };
        let thresholds = self.thresholds.as_ref().map(|thresholds| {
            Ok::<_, String>(TrusteeThresholds {
                min_users: least("min_users", thresholds.min_users)?,
                min_impressions: least("min_impressions", thresholds.min_impressions)?,
            })
        });
        Ok(TrusteeConfig {
            duchy: duchy("trustee", "duchy", &self.duchy)?,
            noise: match self.noise_mechanism {
                CentralMechanism::DiscreteGaussian => TrusteeNoise::DiscreteGaussian,
                CentralMechanism::Deterministic => TrusteeNoise::Deterministic,
                CentralMechanism::None => TrusteeNoise::None,
            },
            thresholds: thresholds.transpose()?,
            population,
        })
    }
}

impl Default for Direct {
    fn default() -> Self {
        Self { noise_mechanisms: vec![Mechanism::DiscreteGaussian, Mechanism::Geometric] }
    }
}

impl Direct {
    fn settings(&self) -> DirectConfig {
        DirectConfig { noise: self.noise_mechanisms.iter().map(|mechanism| mechanism.get()).collect() }
    }
}

fn duchy(section: &str, key: &str, id: &str) -> Result<DuchyId, String> {
    id.parse().map_err(|error| format!("{section}.{key}: {error}"))
}
