//! Parameters as Python gives them.

use halo_core::privacy::{MaximumFrequency, NoiseCalibration, NoiseMechanism, PrivacyParams, VidSamplingInterval};
use halo_duchy::protocol::{hmss, llv2, trustee};
use halo_sketch::liquid_legions::Params;
use halo_sketch::noise::{NoiseSpec, ShiftedNoise};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Decay rate and number of registers.
pub(crate) type Sketch = (f64, i64);

/// The usual number of different keys.
pub(crate) const SAMPLING_INDICATOR_SIZE: u64 = 10_000_000;

fn whole(name: &str, value: i64) -> Result<u64, Error> {
    u64::try_from(value).map_err(|_| Error::Parameter(format!("{name} is {value}; it must not be negative")))
}

pub(crate) fn sketch((decay_rate, size): Sketch, sampling_indicator_size: i64) -> Result<Params, Error> {
    let sampling_indicator_size = whole("sampling_indicator_size", sampling_indicator_size)?;
    Ok(Params::new(decay_rate, whole("sketch size", size)?, sampling_indicator_size)?)
}

pub(crate) fn frequency(value: i64) -> Result<MaximumFrequency, Error> {
    let range = || Error::Parameter(format!("max_frequency is {value}; it must be from 1 to 255"));
    MaximumFrequency::new(u32::try_from(value).map_err(|_| range())?).map_err(|_| range())
}

pub(crate) fn interval(start: f64, width: f64) -> Result<VidSamplingInterval, Error> {
    Ok(VidSamplingInterval::new(start as f32, width as f32)?)
}

pub(crate) fn privacy((epsilon, delta): (f64, f64)) -> Result<PrivacyParams, Error> {
    Ok(PrivacyParams::new(epsilon, delta)?)
}

pub(crate) fn mechanism(name: &str) -> Result<NoiseMechanism, Error> {
    match name {
        "discrete_gaussian" => Ok(NoiseMechanism::DiscreteGaussian),
        "geometric" => Ok(NoiseMechanism::Geometric),
        _ => Err(Error::Parameter(format!("mechanism is {name:?}; it must be 'discrete_gaussian' or 'geometric'"))),
    }
}

pub(crate) fn calibration(name: &str) -> Result<NoiseCalibration, Error> {
    match name {
        "exact" => Ok(NoiseCalibration::Exact),
        "reference" => Ok(NoiseCalibration::Reference),
        _ => Err(Error::Parameter(format!("calibration is {name:?}; it must be 'exact' or 'reference'"))),
    }
}

/// The distribution of a simulation's noise.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mechanism {
    /// Fresh draws, which Duchies can share.
    Fresh(NoiseMechanism),
    /// The trustee's, keyed by a secret.
    Sticky,
    /// The trustee's, as the reference has it: its ε and δ are fixed.
    Reference,
}

impl Mechanism {
    fn new(name: &str) -> Result<Self, Error> {
        match name {
            "sticky" => Ok(Self::Sticky),
            "deterministic_truncated_laplace" => Ok(Self::Reference),
            _ => mechanism(name).map(Self::Fresh).map_err(|_| {
                Error::Parameter(format!(
                    "noise['mechanism'] is {name:?}; it must be 'discrete_gaussian' or 'geometric', and of the trustee \
                     'discrete_gaussian', 'sticky' or 'deterministic_truncated_laplace'"
                ))
            }),
        }
    }
}

/// The `noise` of a simulation: `None`, or a dictionary whose entries are ε and δ by statistic, and how noise is made.
#[derive(Clone, Debug)]
pub(crate) struct Noise {
    reach: PrivacyParams,
    frequency: Option<PrivacyParams>,
    impressions: Option<PrivacyParams>,
    blinded_histogram: PrivacyParams,
    publisher_noise: PrivacyParams,
    publisher: PrivacyParams,
    mechanism: Mechanism,
    calibration: NoiseCalibration,
    /// As it was given; otherwise one is enough.
    honest_contributors: Option<u32>,
}

/// Entries of the dictionary.
const NOISE_KEYS: [&str; 9] = [
    "reach",
    "frequency",
    "impressions",
    "blinded_histogram",
    "noise_for_publisher_noise",
    "publisher",
    "mechanism",
    "calibration",
    "honest_contributors",
];

impl Noise {
    pub(crate) fn new(noise: Option<&Bound<'_, PyDict>>) -> PyResult<Option<Self>> {
        let Some(noise) = noise else { return Ok(None) };
        for key in noise.keys() {
            let key = key.to_string();
            if !NOISE_KEYS.contains(&key.as_str()) {
                let keys = NOISE_KEYS.join(", ");
                return Err(Error::Parameter(format!("noise has an entry {key:?}; its entries can be {keys}")).into());
            }
        }
        let item = |key: &str| PyResult::Ok(noise.get_item(key)?.filter(|value| !value.is_none()));
        let pair = |key: &str| -> PyResult<Option<PrivacyParams>> {
            let Some(value) = item(key)? else { return Ok(None) };
            let pair = value.extract::<(f64, f64)>().map_err(|_| {
                Error::Parameter(format!("noise[{key:?}] is {value}; it must be a pair (epsilon, delta)"))
            })?;
            Ok(Some(privacy(pair)?))
        };
        let text = |key: &str, usual: &str| -> PyResult<String> {
            item(key)?.map_or_else(|| Ok(usual.to_owned()), |value| Ok(value.to_string()))
        };
        let mechanism = Mechanism::new(&text("mechanism", "discrete_gaussian")?)?;
        let reach = match (pair("reach")?, mechanism) {
            (Some(reach), _) => reach,
            // Compiled into the reference.
            (None, Mechanism::Reference) => privacy((1.0, 1e-3))?,
            (None, _) => {
                let advice =
                    "noise has no entry 'reach'; give {'reach': (epsilon, delta), …}, or noise=None for no noise";
                return Err(Error::Parameter(advice.to_owned()).into());
            }
        };
        let honest_contributors = match item("honest_contributors")? {
            None => None,
            Some(value) => Some(value.extract::<u32>().map_err(|_| {
                Error::Parameter(format!(
                    "noise['honest_contributors'] is {value}; it must be a whole number from 1 on"
                ))
            })?),
        };
        Ok(Some(Self {
            reach,
            frequency: pair("frequency")?,
            impressions: pair("impressions")?,
            blinded_histogram: pair("blinded_histogram")?.unwrap_or(reach),
            publisher_noise: pair("noise_for_publisher_noise")?.unwrap_or(reach),
            publisher: pair("publisher")?.unwrap_or(reach),
            mechanism,
            calibration: calibration(&text("calibration", "exact")?)?,
            honest_contributors,
        }))
    }

    /// The mechanism that several Duchies add up.
    fn shared(&self) -> Result<NoiseMechanism, Error> {
        match self.mechanism {
            Mechanism::Fresh(mechanism) => Ok(mechanism),
            Mechanism::Sticky | Mechanism::Reference => Err(Error::Parameter(
                "noise['mechanism'] is deterministic, which only the trustee's noise can be; use 'discrete_gaussian' or \
                 'geometric'"
                    .to_owned(),
            )),
        }
    }

    /// What every Duchy of a ring adds.
    pub(crate) fn of_ring(&self) -> Result<llv2::NoiseParameters, Error> {
        Ok(llv2::NoiseParameters {
            mechanism: self.shared()?,
            calibration: self.calibration,
            honest_contributors: self.honest_contributors.unwrap_or(1),
            reach: self.reach,
            frequency: self.frequency,
            blinded_histogram: self.blinded_histogram,
            noise_for_publisher_noise: self.publisher_noise,
        })
    }

    /// What both workers of a share shuffle add.
    pub(crate) fn of_shuffle(&self) -> Result<hmss::NoiseParameters, Error> {
        Ok(hmss::NoiseParameters {
            mechanism: self.shared()?,
            calibration: self.calibration,
            honest_contributors: self.honest_contributors.unwrap_or(1),
            reach: self.reach,
            frequency: self.frequency,
        })
    }

    /// What the trustee adds.
    pub(crate) fn of_trustee(noise: Option<&Self>) -> Result<trustee::Noise, Error> {
        let Some(noise) = noise else { return Ok(trustee::Noise::None) };
        let alone = |entry: &str| {
            let advice = "the trustee adds its noise alone, always with the exact calibration; leave the entry out";
            Error::Parameter(format!("noise has an entry '{entry}', but {advice}"))
        };
        if noise.honest_contributors.is_some() {
            return Err(alone("honest_contributors"));
        }
        if noise.calibration != NoiseCalibration::Exact {
            return Err(alone("calibration"));
        }
        let budget = trustee::Budget { reach: noise.reach, frequency: noise.frequency, impressions: noise.impressions };
        match noise.mechanism {
            Mechanism::Fresh(NoiseMechanism::DiscreteGaussian) => Ok(trustee::Noise::DiscreteGaussian(budget)),
            Mechanism::Sticky => Ok(trustee::Noise::Sticky(budget)),
            Mechanism::Reference => Ok(trustee::Noise::Reference),
            Mechanism::Fresh(NoiseMechanism::Geometric) => Err(Error::Parameter(
                "noise['mechanism'] is 'geometric', which the trustee does not have; use 'discrete_gaussian', 'sticky' or \
                 'deterministic_truncated_laplace'"
                    .to_owned(),
            )),
        }
    }

    /// What a publisher adds to hide the size of its sketch.
    pub(crate) fn of_publisher(&self) -> Result<ShiftedNoise, Error> {
        Ok(NoiseSpec::publisher(self.shared()?, self.calibration, self.publisher).calibrate()?)
    }
}

/// Exactly 32 bytes.
pub(crate) fn bytes32(name: &str, bytes: &[u8]) -> Result<[u8; 32], Error> {
    let length = bytes.len();
    bytes.try_into().map_err(|_| Error::Parameter(format!("{name} has {length} bytes; it must have 32")))
}

/// 32 bytes from which everything random is derived.
#[derive(Clone)]
pub(crate) struct Seed([u8; 32]);

impl Seed {
    /// From the operating system for `None`, from a whole number, or from 32 bytes.
    pub(crate) fn new(seed: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let Some(seed) = seed else {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
            return Ok(Self(bytes));
        };
        if let Ok(bytes) = seed.cast::<PyBytes>() {
            let bytes = bytes.as_bytes();
            return bytes.try_into().map(Self).map_err(|_| {
                Error::Parameter(format!("seed has {} bytes; it must have 32, or be a whole number", bytes.len()))
                    .into()
            });
        }
        let number: u64 = seed.extract().map_err(|_| {
            Error::Parameter(format!("seed is {seed}; it must be None, a number from 0 to 2**64 - 1, or 32 bytes"))
        })?;
        Ok(Self(Sha256::digest([&b"halo_cmm seed"[..], &number.to_be_bytes()].concat()).into()))
    }

    /// Another seed, for one purpose.
    pub(crate) fn of(&self, purpose: &str) -> [u8; 32] {
        Sha256::digest([&self.0[..], purpose.as_bytes()].concat()).into()
    }

    /// A generator, for one purpose.
    pub(crate) fn rng(&self, purpose: &str) -> ChaCha20Rng {
        ChaCha20Rng::from_seed(self.of(purpose))
    }

    pub(crate) const fn bytes(&self) -> [u8; 32] {
        self.0
    }
}
