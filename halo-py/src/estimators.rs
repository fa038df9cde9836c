//! The functions of `halo_cmm.estimators`.

use halo_core::privacy::MaximumFrequency;
use halo_sketch::estimate::{self, FrequencyEstimate as Found};
use halo_sketch::variance::{
    self, FrequencyMeasurement, Interval, Methodology as Inner, ReachMeasurement, ScalarMeasurement, SketchShape,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

use crate::error::Error;
use crate::outcome::by_frequency;
use crate::params::{self, SAMPLING_INDICATOR_SIZE, Sketch};

/// An object of the Python class of this name.
pub(crate) type Estimate<'py> = Bound<'py, PyAny>;
/// An object of the Python class of this name.
pub(crate) type FrequencyEstimate<'py> = Bound<'py, PyAny>;

/// A number with its error, as Python's class.
pub(crate) fn estimate(py: Python<'_>, value: f64, standard_error: f64) -> PyResult<Estimate<'_>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "halo_cmm.estimators", "Estimate")?.call1((value, standard_error))
}

/// Shares with their errors, as Python's class; without entries where there is no data.
pub(crate) fn frequency_estimate(py: Python<'_>, found: Option<Found>) -> PyResult<FrequencyEstimate<'_>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let found = found.unwrap_or(Found { shares: Vec::new(), standard_errors: Vec::new() });
    let (shares, errors) = (by_frequency(py, &found.shares)?, by_frequency(py, &found.standard_errors)?);
    CLASS.import(py, "halo_cmm.estimators", "FrequencyEstimate")?.call1((shares, errors))
}

fn shape(sketch: Sketch) -> Result<halo_sketch::liquid_legions::Params, Error> {
    params::sketch(sketch, SAMPLING_INDICATOR_SIZE as i64)
}

/// Expected number of active registers when so many distinct people are in a sketch.
///
/// Examples
/// --------
/// >>> from halo_cmm import estimators
/// >>> round(estimators.expected_active(1_000_000, sketch=(12.0, 100_000)), 3)
/// 44699.803
#[pyfunction]
#[pyo3(signature = (people, *, sketch = (12.0, 100_000)))]
pub(crate) fn expected_active(people: f64, sketch: Sketch) -> PyResult<f64> {
    Ok(estimate::expected_active(&shape(sketch)?, amount("people", people)?))
}

/// Variance of the number of active registers when so many distinct people are in a sketch.
///
/// Examples
/// --------
/// >>> from halo_cmm import estimators
/// >>> round(estimators.active_variance(1_000_000, sketch=(12.0, 100_000)) ** 0.5, 2)
/// 75.5
#[pyfunction]
#[pyo3(signature = (people, *, sketch = (12.0, 100_000)))]
pub(crate) fn active_variance(people: f64, sketch: Sketch) -> PyResult<f64> {
    Ok(estimate::active_variance(&shape(sketch)?, amount("people", people)?))
}

/// Expected number of registers with exactly one of so many distinct people: those whose frequency can be used.
///
/// Examples
/// --------
/// >>> from halo_cmm import estimators
/// >>> round(estimators.expected_usable(1_000_000, sketch=(12.0, 100_000)), 1)
/// 8327.2
#[pyfunction]
#[pyo3(signature = (people, *, sketch = (12.0, 100_000)))]
pub(crate) fn expected_usable(people: f64, sketch: Sketch) -> PyResult<f64> {
    Ok(estimate::expected_usable(&shape(sketch)?, amount("people", people)?))
}

fn amount(name: &str, value: f64) -> Result<f64, Error> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(Error::Parameter(format!("{name} is {value}; it must be a number that is at least 0")))
    }
}

/// The estimate of reach from the number of active registers.
///
/// Parameters
/// ----------
/// active : float
///     Active registers; may be noised, and what is below 0 counts as 0.
/// sketch : tuple of (float, int), default (12.0, 100_000)
///     Decay rate and number of registers.
/// sampling_width : float, default 1.0
///     The share of people that was sampled.
/// noise : float, default 0.0
///     Standard deviation of the noise in `active`.
///
/// Returns
/// -------
/// Estimate
///
/// Raises
/// ------
/// SaturatedError
///     All registers are active.
///
/// Examples
/// --------
/// >>> from halo_cmm import estimators
/// >>> estimators.reach(40_254, sketch=(12.0, 100_000))
/// Estimate(value=586371.8, standard_error=5293.4)
/// >>> estimators.reach(0).value
/// 0.0
#[pyfunction]
#[pyo3(signature = (active, *, sketch = (12.0, 100_000), sampling_width = 1.0, noise = 0.0))]
pub(crate) fn reach(
    py: Python<'_>,
    active: f64,
    sketch: Sketch,
    sampling_width: f64,
    noise: f64,
) -> PyResult<Estimate<'_>> {
    let noise = amount("noise", noise)?;
    let found = estimate::reach(&shape(sketch)?, active, sampling_width, noise).map_err(Error::from)?;
    estimate(py, found.value, found.standard_error)
}

/// Shares by frequency from the counts of usable registers, or of sampled people.
///
/// A noised histogram is projected onto what can be (no share below 0, sum 1), which is unbiased where cutting negative
/// numbers off is not.
///
/// Parameters
/// ----------
/// histogram : list of float
///     Counts by frequency 1, 2, …, the last "or more"; may be noised and below 0.
/// reach : float
///     The estimated people, sampled or not.
/// noise : float, default 0.0
///     Standard deviation of the noise in each count.
///
/// Returns
/// -------
/// FrequencyEstimate
///     Without shares when the counts are not above 0 together.
///
/// Examples
/// --------
/// >>> from halo_cmm import estimators
/// >>> estimators.frequency([60, 30, -6], reach=1000, noise=3).shares
/// {1: 0.67..., 2: 0.32..., 3: 0.0}
#[pyfunction]
#[pyo3(signature = (histogram, *, reach, noise = 0.0))]
pub(crate) fn frequency(
    py: Python<'_>,
    histogram: Vec<f64>,
    reach: f64,
    noise: f64,
) -> PyResult<FrequencyEstimate<'_>> {
    let (reach, noise) = (amount("reach", reach)?, amount("noise", noise)?);
    if histogram.is_empty() || histogram.iter().any(|count| !count.is_finite()) {
        let advice = "histogram must have at least one count, and all must be finite numbers";
        return Err(Error::Parameter(advice.to_owned()).into());
    }
    if reach == 0.0 {
        return frequency_estimate(py, None);
    }
    frequency_estimate(py, estimate::frequency(&histogram, noise, reach))
}

/// How a result came about; variances depend on it.
///
/// Examples
/// --------
/// >>> from halo_cmm.estimators import Methodology
/// >>> Methodology.liquid_legions_v2((12.0, 100_000))
/// Methodology.liquid_legions_v2((12.0, 100000))
/// >>> Methodology.frequency_vector(989_818)
/// Methodology.frequency_vector(989818)
#[pyclass(module = "halo_cmm.estimators", frozen, eq)]
#[derive(Clone, PartialEq)]
pub(crate) struct Methodology(Inner);

#[pymethods]
impl Methodology {
    /// One publisher counted its sampled people exactly.
    #[staticmethod]
    const fn deterministic() -> Self {
        Self(Inner::Deterministic)
    }

    /// One publisher's sketch, which knows the people behind every register.
    #[staticmethod]
    #[pyo3(signature = (sketch = (12.0, 100_000)))]
    fn sketch(sketch: Sketch) -> PyResult<Self> {
        Ok(Self(Inner::Sketch(SketchShape::from(&shape(sketch)?))))
    }

    /// The Liquid Legions v2 protocol, or its variant for reach only, over the sketches of several publishers.
    #[staticmethod]
    #[pyo3(signature = (sketch = (12.0, 100_000)))]
    fn liquid_legions_v2(sketch: Sketch) -> PyResult<Self> {
        Ok(Self(Inner::LiquidLegionsV2(SketchShape::from(&shape(sketch)?))))
    }

    /// One cell for every sampled person of a population: the share shuffle, and the trustee's reach. The trustee's shares
    /// by frequency have the variances of `deterministic`, since every count has noise of its own.
    #[staticmethod]
    fn frequency_vector(size: u64) -> Self {
        Self(Inner::FrequencyVector { size })
    }

    fn __repr__(&self) -> String {
        match self.0 {
            Inner::Deterministic => "Methodology.deterministic()".to_owned(),
            Inner::Sketch(SketchShape { decay_rate, size }) => format!("Methodology.sketch(({decay_rate:?}, {size}))"),
            Inner::LiquidLegionsV2(SketchShape { decay_rate, size }) => {
                format!("Methodology.liquid_legions_v2(({decay_rate:?}, {size}))")
            }
            Inner::FrequencyVector { size } => format!("Methodology.frequency_vector({size})"),
        }
    }
}

/// A measured number of people: what variances are computed from.
///
/// Parameters
/// ----------
/// methodology : Methodology
///     How it came about.
/// reach : float
///     The people reached, sampled or not.
/// sampling_start, sampling_width : float
///     The part of the unit circle that was sampled.
/// noise_variance : float, default 0.0
///     Variance of the noise in what was counted: sampled people, or active registers of a sketch.
///
/// Examples
/// --------
/// >>> from halo_cmm.estimators import Methodology, ReachMeasurement, reach_variance
/// >>> measured = ReachMeasurement(Methodology.liquid_legions_v2(), 1e6, sampling_width=0.1)
/// >>> round(reach_variance(measured) ** 0.5)
/// 9066
#[pyclass(module = "halo_cmm.estimators", name = "ReachMeasurement", frozen)]
#[derive(Clone)]
pub(crate) struct PyReachMeasurement(ReachMeasurement);

#[pymethods]
impl PyReachMeasurement {
    #[new]
    #[pyo3(signature = (methodology, reach, *, sampling_start = 0.0, sampling_width = 1.0, noise_variance = 0.0))]
    fn new(
        methodology: &Methodology,
        reach: f64,
        sampling_start: f64,
        sampling_width: f64,
        noise_variance: f64,
    ) -> Self {
        let interval = Interval { start: sampling_start, width: sampling_width };
        Self(ReachMeasurement { methodology: methodology.0, reach, interval, noise_variance })
    }

    /// float : The people reached.
    #[getter]
    const fn reach(&self) -> f64 {
        self.0.reach
    }

    fn __repr__(&self) -> String {
        let ReachMeasurement { methodology, reach, interval, noise_variance } = self.0;
        format!(
            "ReachMeasurement({}, {reach:?}, sampling_start={:?}, sampling_width={:?}, noise_variance={noise_variance:?})",
            Methodology(methodology).__repr__(),
            interval.start,
            interval.width
        )
    }
}

/// Variance of a measured reach: sketch, sampling and noise together.
///
/// Raises
/// ------
/// ParameterError
///     A number does not fit; the message names it.
/// SaturatedError
///     A sketch is so full that its number of active registers says nothing.
///
/// Examples
/// --------
/// >>> from halo_cmm.estimators import Methodology, ReachMeasurement, reach_variance
/// >>> reach_variance(ReachMeasurement(Methodology.deterministic(), 1000, sampling_width=0.5, noise_variance=25))
/// 1100.0
#[pyfunction]
pub(crate) fn reach_variance(measurement: &PyReachMeasurement) -> PyResult<f64> {
    Ok(variance::reach(&measurement.0).map_err(Error::from)?)
}

/// Covariance of two measured reaches, of publishers whose union reaches `union_reach` people.
///
/// Examples
/// --------
/// >>> from halo_cmm.estimators import Methodology, ReachMeasurement, reach_covariance
/// >>> one = ReachMeasurement(Methodology.deterministic(), 1000, sampling_width=0.5)
/// >>> reach_covariance(one, one, union_reach=1500)
/// 500.0
#[pyfunction]
#[pyo3(signature = (one, other, *, union_reach))]
pub(crate) fn reach_covariance(
    one: &PyReachMeasurement,
    other: &PyReachMeasurement,
    union_reach: f64,
) -> PyResult<f64> {
    Ok(variance::reach_covariance(&one.0, &other.0, union_reach).map_err(Error::from)?)
}

/// Variances of a measured frequency distribution.
///
/// Parameters
/// ----------
/// measurement : ReachMeasurement
///     The reach that belongs to it.
/// shares : list of float
///     Shares of people by frequency 1, 2, …, the last "or more".
/// noise_variance : float, default 0.0
///     Variance of the noise in each count of the histogram.
///
/// Returns
/// -------
/// dict of str to dict of int to float
///     Under `relative` and `count` the variances of shares and of numbers of people with a frequency, under
///     `relative_k_plus` and `count_k_plus` of those with a frequency or more.
///
/// Examples
/// --------
/// >>> from halo_cmm.estimators import Methodology, ReachMeasurement, frequency_variances
/// >>> measured = ReachMeasurement(Methodology.liquid_legions_v2(), 1e6)
/// >>> found = frequency_variances(measured, [0.5, 0.3, 0.2])
/// >>> round(found["relative"][1] ** 0.5, 4), found["relative_k_plus"][1]
/// (0.0055, 0.0)
#[pyfunction]
#[pyo3(signature = (measurement, shares, *, noise_variance = 0.0))]
pub(crate) fn frequency_variances<'py>(
    py: Python<'py>,
    measurement: &PyReachMeasurement,
    shares: Vec<f64>,
    noise_variance: f64,
) -> PyResult<Bound<'py, PyDict>> {
    let measurement = FrequencyMeasurement { reach: measurement.0, shares: &shares, noise_variance };
    let found = variance::frequency(&measurement).map_err(Error::from)?;
    let dict = PyDict::new(py);
    dict.set_item("relative", by_frequency(py, &found.relative)?)?;
    dict.set_item("relative_k_plus", by_frequency(py, &found.relative_k_plus)?)?;
    dict.set_item("count", by_frequency(py, &found.count)?)?;
    dict.set_item("count_k_plus", by_frequency(py, &found.count_k_plus)?)?;
    Ok(dict)
}

fn scalar(measurement: ScalarMeasurement) -> PyResult<f64> {
    Ok(measurement.variance().map_err(Error::from)?)
}

/// Variance of a number of impressions that one publisher measured, each person adding up to `max_frequency`.
///
/// Examples
/// --------
/// >>> from halo_cmm import estimators
/// >>> estimators.impression_variance(3_000_000, max_frequency=10, sampling_width=0.5, noise_variance=25)
/// 30010000.0
#[pyfunction]
#[pyo3(signature = (impressions, *, max_frequency = 10, sampling_width = 1.0, noise_variance = 0.0))]
pub(crate) fn impression_variance(
    impressions: f64,
    max_frequency: i64,
    sampling_width: f64,
    noise_variance: f64,
) -> PyResult<f64> {
    let most: MaximumFrequency = params::frequency(max_frequency)?;
    scalar(ScalarMeasurement::impressions(impressions, most, sampling_width, noise_variance))
}

/// Variance of a watch duration that one publisher measured, each person adding up to `maximum`, in the same unit.
///
/// Examples
/// --------
/// >>> from halo_cmm import estimators
/// >>> estimators.duration_variance(500_000.0, maximum=60.0, noise_variance=25)
/// 90000.0
#[pyfunction]
#[pyo3(signature = (duration, *, maximum, sampling_width = 1.0, noise_variance = 0.0))]
pub(crate) fn duration_variance(
    duration: f64,
    maximum: f64,
    sampling_width: f64,
    noise_variance: f64,
) -> PyResult<f64> {
    scalar(ScalarMeasurement::watch_duration(duration, maximum, sampling_width, noise_variance))
}

/// Variance of the size of a population, of which nobody is left out: that of the noise.
///
/// Examples
/// --------
/// >>> from halo_cmm import estimators
/// >>> estimators.population_variance(1000, noise_variance=9)
/// 9.0
#[pyfunction]
#[pyo3(signature = (people, *, noise_variance = 0.0))]
pub(crate) fn population_variance(people: f64, noise_variance: f64) -> PyResult<f64> {
    scalar(ScalarMeasurement::population(people, noise_variance))
}

/// Variance of a sum of results, each multiplied with a weight.
///
/// Parameters
/// ----------
/// weights, variances : list of float
///     One of each for every result.
/// covariances : list of list of float, optional
///     Row i, column j holds the covariance of results i and j; only the part above the diagonal is looked at. Without
///     it the results are independent.
///
/// Examples
/// --------
/// >>> from halo_cmm import estimators
/// >>> estimators.combination_variance([1, -1], [4.0, 9.0], [[0, 3.0], [0, 0]])
/// 7.0
#[pyfunction]
#[pyo3(signature = (weights, variances, covariances = None))]
pub(crate) fn combination_variance(
    weights: Vec<f64>,
    variances: Vec<f64>,
    covariances: Option<Vec<Vec<f64>>>,
) -> PyResult<f64> {
    if let Some(rows) = &covariances
        && (rows.len() != weights.len() || rows.iter().any(|row| row.len() != weights.len()))
    {
        let size = weights.len();
        return Err(
            Error::Parameter(format!("covariances must be a matrix of {size} by {size}, as the weights")).into()
        );
    }
    let covariance = |i: usize, j: usize| Ok(covariances.as_ref().map_or(0.0, |rows| rows[i][j]));
    Ok(variance::linear_combination(&weights, &variances, covariance).map_err(Error::from)?)
}
