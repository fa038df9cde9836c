//! The functions of `halo_cmm.noise`.

use halo_crypto::secret::Secret;
use halo_sketch::noise::deterministic::{Statistic, StickyNoise};
use halo_sketch::noise::sampler::{self, Rational};
use halo_sketch::noise::{NoiseSpec, Sensitivity, ShiftedNoise};
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::door;
use crate::error::Error;
use crate::params::{self, Seed};

/// What one person changes: a number, or "histogram".
pub(crate) fn sensitivity(value: &Bound<'_, PyAny>) -> PyResult<Sensitivity> {
    if let Ok(name) = value.cast::<PyString>()
        && name == "histogram"
    {
        return Ok(Sensitivity::histogram());
    }
    match value.extract::<u32>() {
        Ok(change @ 1..) => Ok(Sensitivity::scalar(change)),
        _ => Err(Error::Parameter(format!(
            "sensitivity is {value}; it must be a whole number from 1 on, or 'histogram' for a person who moves between \
             two cells"
        ))
        .into()),
    }
}

/// Fills an array with draws.
fn draws<'py>(
    py: Python<'py>,
    size: usize,
    seed: Option<&Bound<'py, PyAny>>,
    mut draw: impl FnMut(&mut rand_chacha::ChaCha20Rng) -> i64 + Send,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let seed = Seed::new(seed)?;
    let drawn = door::run(py, move |control| {
        let mut rng = seed.rng("noise");
        let mut drawn = Vec::new();
        drawn
            .try_reserve_exact(size)
            .map_err(|_| Error::Parameter(format!("size is {size}, more than memory holds")))?;
        while drawn.len() < size {
            drawn.push(draw(&mut rng));
            if control.is_cancelled() {
                return Err(halo_edp_sdk::Error::Interrupted.into());
            }
        }
        Ok(drawn)
    })?;
    Ok(PyArray1::from_vec(py, drawn))
}

/// Noise that is calibrated to (ε, δ) and ready to be drawn: integers, exactly distributed on a bounded range.
///
/// Made by `calibrate`.
///
/// Examples
/// --------
/// >>> from halo_cmm import noise
/// >>> gaussian = noise.calibrate(1.0, 1e-6)
/// >>> gaussian.shift, round(gaussian.standard_deviation, 3)
/// (23, 4.376)
/// >>> gaussian.sample(5, seed=1).shape
/// (5,)
#[pyclass(module = "halo_cmm.noise", frozen)]
pub(crate) struct Noise(ShiftedNoise);

impl Noise {
    pub(crate) const fn inner(&self) -> ShiftedNoise {
        self.0
    }
}

#[pymethods]
impl Noise {
    /// int : Each contributor's noise lies between -shift and shift.
    #[getter]
    fn shift(&self) -> u64 {
        self.0.shift()
    }

    /// int : Everybody who adds noise.
    #[getter]
    fn contributors(&self) -> u32 {
        self.0.contributors()
    }

    /// float : Standard deviation of the sum over all contributors.
    #[getter]
    fn standard_deviation(&self) -> f64 {
        self.0.total_standard_deviation()
    }

    /// Draws the noise of one contributor, so many times, with mean 0.
    ///
    /// Parameters
    /// ----------
    /// size : int, default 1
    ///     Number of draws.
    /// seed : int or bytes, optional
    ///     The same seed gives the same draws; without it they come from the operating system's generator.
    ///
    /// Returns
    /// -------
    /// numpy.ndarray of int64
    #[pyo3(signature = (size = 1, *, seed = None))]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        size: usize,
        seed: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let noise = self.0;
        draws(py, size, seed, move |rng| noise.sample(rng).cast_signed() - noise.shift().cast_signed())
    }

    fn __repr__(&self) -> String {
        let (shift, contributors) = (self.0.shift(), self.0.contributors());
        format!("Noise(shift={shift}, contributors={contributors}, standard_deviation={:?})", self.standard_deviation())
    }
}

/// Works out how much noise keeps (ε, δ).
///
/// Parameters
/// ----------
/// epsilon, delta : float
///     The promise; δ is above 0, since the noise has a bounded range.
/// sensitivity : int or "histogram", default 1
///     By how much one person changes the number; "histogram" for a person who moves between two cells.
/// contributors : int, default 1
///     How many parties add noise.
/// honest_contributors : int, optional
///     So many parties' noise alone keeps the promise; by default all.
/// mechanism : {"discrete_gaussian", "geometric"}
///     The distribution of the sum.
/// calibration : {"exact", "reference"}
///     As little as the guarantee needs, or what the reference system computes.
///
/// Returns
/// -------
/// Noise
///
/// Raises
/// ------
/// ParameterError
///     A number does not fit.
/// NoiseError
///     ε and δ ask for more noise than a computation carries.
///
/// Examples
/// --------
/// >>> from halo_cmm import noise
/// >>> noise.calibrate(1.0, 1e-9, contributors=3, honest_contributors=1).contributors
/// 3
#[pyfunction]
#[pyo3(signature = (
    epsilon, delta, *, sensitivity = None, contributors = 1, honest_contributors = None, mechanism = "discrete_gaussian",
    calibration = "exact",
))]
pub(crate) fn calibrate(
    epsilon: f64,
    delta: f64,
    sensitivity: Option<&Bound<'_, PyAny>>,
    contributors: u32,
    honest_contributors: Option<u32>,
    mechanism: &str,
    calibration: &str,
) -> PyResult<Noise> {
    let sensitivity = sensitivity.map_or(Ok(Sensitivity::scalar(1)), self::sensitivity)?;
    let spec = NoiseSpec {
        mechanism: params::mechanism(mechanism)?,
        calibration: params::calibration(calibration)?,
        params: params::privacy((epsilon, delta))?,
        sensitivity,
        contributors,
        honest_contributors: honest_contributors.unwrap_or(contributors),
    };
    Ok(Noise(spec.calibrate().map_err(Error::from)?))
}

/// Checks a parameter of a sampler. In the ranges that samplers have here one draw takes seconds at most, also where a
/// narrow bound makes it draw again and again: between two draws a wish to stop is heard.
fn within(name: &str, value: f64, least: f64, most: f64) -> Result<f64, Error> {
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(Error::Parameter(format!("{name} is {value}; it must be from {least:e} to {most:e}")))
    }
}

/// Draws from the discrete Gaussian: P[x] ∝ exp(−x²/2σ²) on the integers, exactly.
///
/// Parameters
/// ----------
/// variance : float
///     σ², from 1e-9 to 1e12, taken as the next rational number above it.
/// size : int, default 1
///     Number of draws.
/// bound : int, optional
///     Draws beyond ±bound are drawn again.
/// seed : int or bytes, optional
///     The same seed gives the same draws.
///
/// Returns
/// -------
/// numpy.ndarray of int64
///
/// Examples
/// --------
/// >>> from halo_cmm import noise
/// >>> draws = noise.discrete_gaussian(25.0, 20_000, seed=1)
/// >>> bool(abs(draws.std() - 5) < 0.15)
/// True
#[pyfunction]
#[pyo3(signature = (variance, size = 1, *, bound = None, seed = None))]
pub(crate) fn discrete_gaussian<'py>(
    py: Python<'py>,
    variance: f64,
    size: usize,
    bound: Option<u64>,
    seed: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let variance = Rational::at_least(within("variance", variance, 1e-9, 1e12)?);
    // A draw beyond 2^62 does not happen.
    let bound = bound.unwrap_or(1 << 62);
    draws(py, size, seed, move |rng| sampler::discrete_gaussian_within(variance, bound, rng))
}

/// Draws from the two-sided geometric distribution, or one contributor's share of it: P[x] ∝ exp(−rate·|x|), exactly.
///
/// Parameters
/// ----------
/// rate : float
///     ε/Δ, from 1e-6 to 1e15, taken as the next rational number below it.
/// size : int, default 1
///     Number of draws.
/// contributors : int, default 1
///     The sum of so many independent draws is the distribution.
/// bound : int, optional
///     Each draw is the difference of two Pólya draws of at most this.
/// seed : int or bytes, optional
///     The same seed gives the same draws.
///
/// Returns
/// -------
/// numpy.ndarray of int64
///
/// Examples
/// --------
/// >>> from halo_cmm import noise
/// >>> shares = [noise.geometric(1.0, 20_000, contributors=3, seed=party) for party in range(3)]
/// >>> bool(abs(sum(shares).var() - 1.841) < 0.15)
/// True
#[pyfunction]
#[pyo3(signature = (rate, size = 1, *, contributors = 1, bound = None, seed = None))]
pub(crate) fn geometric<'py>(
    py: Python<'py>,
    rate: f64,
    size: usize,
    contributors: u32,
    bound: Option<u64>,
    seed: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyArray1<i64>>> {
    let exponent = Rational::at_most(within("rate", rate, 1e-6, 1e15)?);
    if contributors == 0 {
        return Err(Error::Parameter("contributors is 0; it must be at least 1".to_owned()).into());
    }
    let bound = bound.unwrap_or(1 << 62);
    draws(py, size, seed, move |rng| {
        let one = sampler::polya_within(exponent, contributors, bound, rng);
        let other = sampler::polya_within(exponent, contributors, bound, rng);
        one.cast_signed() - other.cast_signed()
    })
}

/// Which number a draw is for: "reach", "impressions", or a frequency from 1 on.
fn statistic(value: &Bound<'_, PyAny>) -> PyResult<Statistic> {
    if let Ok(name) = value.cast::<PyString>() {
        if name == "reach" {
            return Ok(Statistic::Reach);
        }
        if name == "impressions" {
            return Ok(Statistic::Impressions);
        }
    }
    match value.extract::<u32>() {
        // Frequencies are labelled by signed numbers of 32 bits.
        Ok(frequency @ 1..=0x7FFF_FFFF) => Ok(Statistic::Frequency(frequency)),
        _ => Err(Error::Parameter(format!(
            "statistic is {value}; it must be 'reach', 'impressions', or a frequency from 1 to 2147483647"
        ))
        .into()),
    }
}

/// Noise that the same data always get: asking again does not average it away.
///
/// A draw is a function of a secret key, of the data's fingerprint and of what is released of them: discrete Laplace
/// noise on a bounded range, drawn exactly. As long as the key is secret, releasing one statistic is (ε, δ)-differentially
/// private, and releasing it again for the same data gives away nothing more. Nor do slightly other parameters make another
/// draw: ε is rounded down to a power of √2, and the range is that of δ = 1e-15. All releases of one statistic of the same
/// data with any ε up to ε₀ are together private with (2 + √2) ε₀.
///
/// Parameters
/// ----------
/// epsilon, delta : float
///     The promise; δ is at least 1e-15, since the noise has a bounded range.
/// sensitivity : int or "histogram", default 1
///     By how much one person changes the number; "histogram" for a person who moves between two cells.
///
/// Raises
/// ------
/// ParameterError
///     A number does not fit.
/// NoiseError
///     ε and δ ask for more noise than a computation carries.
///
/// Examples
/// --------
/// >>> from hashlib import sha256
/// >>> from halo_cmm import noise
/// >>> sticky = noise.StickyNoise(1.0, 1e-3)
/// >>> sticky.bound, round(sticky.standard_deviation, 3)
/// (34, 1.357)
/// >>> key, fingerprint = bytes(32), sha256(b"the data, and all else that is released of them").digest()
/// >>> sticky.draw(key, fingerprint, "reach") == sticky.draw(key, fingerprint, "reach")
/// True
#[pyclass(module = "halo_cmm.noise", name = "StickyNoise", frozen)]
pub(crate) struct PyStickyNoise(StickyNoise);

#[pymethods]
impl PyStickyNoise {
    #[new]
    #[pyo3(signature = (epsilon, delta, *, sensitivity = None))]
    fn new(epsilon: f64, delta: f64, sensitivity: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let sensitivity = sensitivity.map_or(Ok(Sensitivity::scalar(1)), self::sensitivity)?;
        Ok(Self(StickyNoise::new(params::privacy((epsilon, delta))?, sensitivity).map_err(Error::from)?))
    }

    /// int : The noise lies between -bound and bound.
    #[getter]
    fn bound(&self) -> u64 {
        self.0.bound()
    }

    /// float : Standard deviation, of ε as it was rounded.
    #[getter]
    fn standard_deviation(&self) -> f64 {
        self.0.standard_deviation()
    }

    /// The noise of one statistic of these data.
    ///
    /// Parameters
    /// ----------
    /// key : bytes
    ///     The secret, 32 bytes.
    /// fingerprint : bytes
    ///     32 bytes that identify the data and everything that a release of them says beside the statistic.
    /// statistic : {"reach", "impressions"} or int
    ///     What is released; a number is the frequency of which people are counted, from 1 on.
    ///
    /// Returns
    /// -------
    /// int
    fn draw(&self, key: &[u8], fingerprint: &[u8], statistic: &Bound<'_, PyAny>) -> PyResult<i64> {
        let key = Secret::new(params::bytes32("key", key)?);
        let fingerprint = params::bytes32("fingerprint", fingerprint)?;
        Ok(self.0.draw(key.expose(), &fingerprint, self::statistic(statistic)?))
    }

    fn __repr__(&self) -> String {
        format!("StickyNoise(bound={}, standard_deviation={:?})", self.0.bound(), self.0.standard_deviation())
    }
}
