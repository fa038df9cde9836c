//! The classes `Population` and `FrequencyVector`.

use std::sync::Arc;

use halo_sketch::estimate;
use halo_sketch::frequency_vector::{FrequencyVector as Inner, VidIndexMap};
use halo_sketch::variance::{self, FrequencyMeasurement, Interval, Methodology, ReachMeasurement};
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use crate::columns::Vids;
use crate::door;
use crate::error::Error;
use crate::estimators::{self, Estimate, FrequencyEstimate};
use crate::params;

/// VIDs between two looks at the caller's wish to stop.
const BLOCK: usize = 1 << 18;

/// All VIDs from the first to the last.
pub(crate) fn range(first: u64, last: u64) -> Result<VidIndexMap, Error> {
    if last.saturating_sub(first) >= 1 << 31 {
        return Err(Error::Data(format!(
            "the population from VID {first} to VID {last} is larger than there are VIDs (below 2**31 - 1); give a \
             population of the VIDs that exist"
        )));
    }
    Ok(VidIndexMap::new(first..=last)?)
}

/// The people that publishers number alike: a frequency vector has a cell for each.
///
/// Parameters
/// ----------
/// vids : tuple of (int, int), range, array or table
///     The first and the last VID, or all VIDs, each once. They are below 2**31 - 1.
/// vid : str, default "vid"
///     The column of a table.
///
/// Raises
/// ------
/// DataError
///     It is empty, a VID is too large, or one is there twice.
///
/// Examples
/// --------
/// >>> from halo_cmm import Population
/// >>> people = Population((1, 20))
/// >>> len(people), people.index(15), people.index(4), people.index(99)
/// (20, 0, 1, None)
#[pyclass(module = "halo_cmm", frozen)]
#[derive(Clone)]
pub(crate) struct Population(Arc<VidIndexMap>);

impl Population {
    pub(crate) fn map(&self) -> &VidIndexMap {
        &self.0
    }

    /// A population, or what one is made of.
    pub(crate) fn of(people: &Bound<'_, PyAny>) -> PyResult<Self> {
        match people.cast::<Self>() {
            Ok(population) => Ok(population.get().clone()),
            Err(_) => Self::new(people, "vid"),
        }
    }
}

#[pymethods]
impl Population {
    #[new]
    #[pyo3(signature = (vids, vid = "vid"))]
    fn new(vids: &Bound<'_, PyAny>, vid: &str) -> PyResult<Self> {
        let py = vids.py();
        let pair = vids.cast::<pyo3::types::PyTuple>().ok().and_then(|pair| pair.extract::<(u64, u64)>().ok());
        let map = if let Some((first, last)) = pair {
            door::run(py, |_| range(first, last))?
        } else {
            let column = Vids::new(vids, vid)?;
            let slices = column.slices();
            door::run(py, |_| Ok(VidIndexMap::new(slices.iter().copied().flatten().copied())?))?
        };
        Ok(Self(Arc::new(map)))
    }

    /// The place of a VID, from 0; None for one outside of the population.
    fn index(&self, vid: u64) -> Option<usize> {
        self.0.index(vid)
    }

    fn __len__(&self) -> usize {
        self.0.size()
    }

    fn __contains__(&self, vid: u64) -> bool {
        self.0.index(vid).is_some()
    }

    fn __repr__(&self) -> String {
        format!("Population(size={})", self.0.size())
    }
}

/// How often each sampled person of a population was reached, at most `max_frequency` times.
///
/// Parameters
/// ----------
/// population : Population or what one is made of
///     The people, the same for all publishers.
/// max_frequency : int, default 10
///     Higher counts are this (1 to 255).
/// sampling_start, sampling_width : float
///     The part of the population that is counted.
///
/// Examples
/// --------
/// >>> from halo_cmm import FrequencyVector
/// >>> vector = FrequencyVector.from_vids([4, 4, 4, 4, 9], (1, 20), max_frequency=3)
/// >>> vector
/// FrequencyVector(population=20, max_frequency=3, cells=20, reached=2)
/// >>> vector.cells[:3]
/// array([0, 3, 1], dtype=uint8)
/// >>> vector.reach()
/// Estimate(value=2.0, standard_error=0.0)
/// >>> vector.frequency().shares
/// {1: 0.5, 2: 0.0, 3: 0.5}
#[pyclass(module = "halo_cmm", name = "FrequencyVector", eq)]
#[derive(Clone, PartialEq)]
pub(crate) struct FrequencyVector(pub(crate) Inner);

impl FrequencyVector {
    fn measured(&self) -> ReachMeasurement {
        let interval = self.0.interval();
        let width = interval.width_decimal();
        ReachMeasurement {
            methodology: Methodology::FrequencyVector { size: self.0.cells().len() as u64 },
            reach: self.0.reach() as f64 / width,
            interval: Interval { start: f64::from(interval.start()), width },
            noise_variance: 0.0,
        }
    }
}

#[pymethods]
impl FrequencyVector {
    #[new]
    #[pyo3(signature = (population, max_frequency = 10, *, sampling_start = 0.0, sampling_width = 1.0))]
    fn new(
        population: &Bound<'_, PyAny>,
        max_frequency: i64,
        sampling_start: f64,
        sampling_width: f64,
    ) -> PyResult<Self> {
        let interval = params::interval(sampling_start, sampling_width)?;
        let frequency = params::frequency(max_frequency)?;
        let population = Population::of(population)?;
        Ok(Self(Inner::new(population.map(), interval, frequency).map_err(Error::from)?))
    }

    /// The vector of a column of VIDs, one for each impression.
    ///
    /// Parameters
    /// ----------
    /// vids : array, table or path
    ///     As for `LiquidLegions.from_vids`.
    /// population : Population or what one is made of
    ///     The people, the same for all publishers.
    /// max_frequency : int, default 10
    ///     Higher counts are this.
    /// vid : str, default "vid"
    ///     The column of a table.
    /// sampling_start, sampling_width : float
    ///     The part of the population that is counted.
    ///
    /// Raises
    /// ------
    /// DataError
    ///     Somebody is not of the population; the message names the VID.
    #[classmethod]
    #[pyo3(signature = (vids, population, max_frequency = 10, vid = "vid", *, sampling_start = 0.0, sampling_width = 1.0))]
    fn from_vids(
        _class: &Bound<'_, PyType>,
        vids: &Bound<'_, PyAny>,
        population: &Bound<'_, PyAny>,
        max_frequency: i64,
        vid: &str,
        sampling_start: f64,
        sampling_width: f64,
    ) -> PyResult<Self> {
        let population = Population::of(population)?;
        let population = Bound::new(vids.py(), population)?;
        let mut vector = Self::new(population.as_any(), max_frequency, sampling_start, sampling_width)?;
        vector.update(vids, population.as_any(), vid)?;
        Ok(vector)
    }

    /// Counts a column of VIDs; the parameters are those of `from_vids`.
    #[pyo3(signature = (vids, population, vid = "vid"))]
    fn update(&mut self, vids: &Bound<'_, PyAny>, population: &Bound<'_, PyAny>, vid: &str) -> PyResult<()> {
        let population = Population::of(population)?;
        let column = Vids::new(vids, vid)?;
        let slices = column.slices();
        let mut counted = self.0.clone();
        let counted = door::run(vids.py(), move |control| {
            for part in slices.iter().flat_map(|part| part.chunks(BLOCK)) {
                counted.add_all(population.map(), part)?;
                if control.is_cancelled() {
                    return Err(halo_edp_sdk::Error::Interrupted.into());
                }
            }
            Ok(counted)
        })?;
        self.0 = counted;
        Ok(())
    }

    /// Adds another vector of the same population, and returns this one. Sums above `max_frequency` are that.
    ///
    /// Raises
    /// ------
    /// IncompatibleError
    ///     Population size, interval or maximum frequency differ; nothing is changed then.
    ///
    /// Examples
    /// --------
    /// >>> from halo_cmm import FrequencyVector
    /// >>> one = FrequencyVector.from_vids([4, 4], (1, 20), max_frequency=3)
    /// >>> other = FrequencyVector.from_vids([4, 4, 9], (1, 20), max_frequency=3)
    /// >>> one.merge(other).histogram
    /// {1: 1, 2: 0, 3: 1}
    fn merge<'py>(mut slf: PyRefMut<'py, Self>, other: &Bound<'py, Self>) -> PyResult<PyRefMut<'py, Self>> {
        // With itself: the counts double.
        let copy = match other.try_borrow() {
            Ok(other) => other.0.clone(),
            Err(_) => slf.0.clone(),
        };
        slf.0.merge(&copy).map_err(Error::from)?;
        Ok(slf)
    }

    /// How many people were reached, sampled or not; the error is that of the sampling.
    ///
    /// Returns
    /// -------
    /// Estimate
    fn reach<'py>(&self, py: Python<'py>) -> PyResult<Estimate<'py>> {
        let measured = self.measured();
        let variance = variance::reach(&measured).map_err(Error::from)?;
        estimators::estimate(py, measured.reach, variance.sqrt())
    }

    /// The shares of people reached 1, 2, … times, the last of those reached `max_frequency` times or more.
    ///
    /// Returns
    /// -------
    /// FrequencyEstimate
    ///     Without shares when nobody was reached.
    fn frequency<'py>(&self, py: Python<'py>) -> PyResult<FrequencyEstimate<'py>> {
        let reach = self.measured();
        let bins: Vec<f64> = self.0.histogram().iter().map(|count| *count as f64).collect();
        let Some(mut found) = estimate::frequency(&bins, 0.0, reach.reach) else {
            return estimators::frequency_estimate(py, None);
        };
        let measurement = FrequencyMeasurement { reach, shares: &found.shares, noise_variance: 0.0 };
        let variances = variance::frequency(&measurement).map_err(Error::from)?;
        found.standard_errors = variances.relative.into_iter().map(f64::sqrt).collect();
        estimators::frequency_estimate(py, Some(found))
    }

    /// numpy.ndarray : The cells, one for each sampled person in the order of the population (a copy, uint8).
    #[getter]
    fn cells<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<u8>> {
        PyArray1::from_slice(py, self.0.cells())
    }

    /// dict of int to int : How many sampled people were reached so often.
    #[getter]
    fn histogram<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyDict>> {
        crate::outcome::by_frequency(py, &self.0.histogram())
    }

    /// int : The highest frequency that is told apart.
    #[getter]
    fn max_frequency(&self) -> u32 {
        self.0.maximum_frequency().get()
    }

    /// int : How many people the population has, sampled or not.
    #[getter]
    fn population(&self) -> usize {
        self.0.population()
    }

    /// float : The part of the population that is counted.
    #[getter]
    fn sampling_width(&self) -> f64 {
        self.0.interval().width_decimal()
    }

    /// The stored form; `from_bytes` reads it.
    ///
    /// Examples
    /// --------
    /// >>> from halo_cmm import FrequencyVector
    /// >>> vector = FrequencyVector.from_vids([4, 4, 9], (1, 20))
    /// >>> FrequencyVector.from_bytes(vector.to_bytes()) == vector
    /// True
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    /// Reads what `to_bytes` has written.
    ///
    /// Raises
    /// ------
    /// FormatError
    ///     The bytes are no vector.
    #[classmethod]
    fn from_bytes(_class: &Bound<'_, PyType>, data: &[u8]) -> PyResult<Self> {
        Ok(Self(Inner::from_bytes(data).map_err(Error::from)?))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let bytes = slf.borrow().to_bytes(slf.py());
        Ok((slf.get_type().getattr("from_bytes")?, (bytes,)))
    }

    fn __len__(&self) -> usize {
        self.0.cells().len()
    }

    fn __copy__(&self) -> Self {
        self.clone()
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> Self {
        self.clone()
    }

    fn __repr__(&self) -> String {
        let (population, frequency) = (self.0.population(), self.0.maximum_frequency());
        let (cells, reached) = (self.0.cells().len(), self.0.reach());
        format!("FrequencyVector(population={population}, max_frequency={frequency}, cells={cells}, reached={reached})")
    }

    fn _repr_html_(&self) -> String {
        format!(
            "<table><caption>FrequencyVector</caption>\
             <tr><th>population</th><td>{}</td></tr>\
             <tr><th>sampled</th><td>{}</td></tr>\
             <tr><th>maximum frequency</th><td>{}</td></tr>\
             <tr><th>reached</th><td>{}</td></tr></table>",
            self.0.population(),
            self.0.cells().len(),
            self.0.maximum_frequency(),
            self.0.reach()
        )
    }
}
