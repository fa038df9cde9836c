//! The class `LiquidLegions`.

use halo_edp_sdk::sketch::Sketcher;
use halo_sketch::estimate;
use halo_sketch::liquid_legions::{LiquidLegions as Inner, Register, RegisterKey};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};

use crate::columns::Vids;
use crate::door;
use crate::error::Error;
use crate::error::class::DataError;
use crate::estimators::{self, Estimate, FrequencyEstimate};
use crate::params::{self, SAMPLING_INDICATOR_SIZE, Sketch};

/// VIDs between two looks at the caller's wish to stop.
const BLOCK: usize = 1 << 18;

/// A Liquid Legions sketch: registers of exponentially falling probability, each with a key and a count.
///
/// The number of active registers estimates reach; the counts of registers that only one person fell into are a sample
/// of frequencies. Sketches of the same shape merge into the sketch of all their data.
///
/// Parameters
/// ----------
/// sketch : tuple of (float, int), default (12.0, 100_000)
///     Decay rate (above 1, at most 36) and number of registers (1 to 2**32).
/// sampling_indicator_size : int, default 10_000_000
///     The number of different keys.
///
/// Examples
/// --------
/// >>> import numpy as np
/// >>> from halo_cmm import LiquidLegions
/// >>> sketch = LiquidLegions.from_vids(np.arange(50_000))
/// >>> sketch
/// LiquidLegions(sketch=(12.0, 100000), active=19804)
/// >>> reach = sketch.reach()
/// >>> abs(reach.value - 50_000) < 4 * reach.standard_error
/// True
/// >>> sketch.merge(LiquidLegions.from_vids([7, 7, 123_456])).active
/// 19805
#[pyclass(module = "halo_cmm", name = "LiquidLegions", eq)]
#[derive(Clone, PartialEq)]
pub(crate) struct LiquidLegions(pub(crate) Inner);

#[pymethods]
impl LiquidLegions {
    #[new]
    #[pyo3(signature = (sketch = (12.0, 100_000), *, sampling_indicator_size = 10_000_000))]
    fn new(sketch: Sketch, sampling_indicator_size: i64) -> PyResult<Self> {
        Ok(Self(Inner::new(params::sketch(sketch, sampling_indicator_size)?)))
    }

    /// The sketch of a column of VIDs, one for each impression.
    ///
    /// Parameters
    /// ----------
    /// vids : array, table or path
    ///     A numpy array, an Arrow array or table (pyarrow, polars, and others with the PyCapsule protocol), a pandas
    ///     series or frame, a list, a mapping of columns, or the path of a Parquet file. 64-bit integers are not copied.
    /// vid : str, default "vid"
    ///     The column of a table.
    /// sketch : tuple of (float, int), default (12.0, 100_000)
    ///     Decay rate and number of registers.
    /// sampling_start, sampling_width : float
    ///     Only people whose place on the unit circle lies in this interval are counted.
    ///
    /// Returns
    /// -------
    /// LiquidLegions
    ///
    /// Raises
    /// ------
    /// DataError
    ///     A VID is null or negative; the message names the row.
    /// ColumnTypeError
    ///     The column is not one of integers.
    /// MissingColumnError
    ///     The table has no such column.
    ///
    /// Examples
    /// --------
    /// >>> from halo_cmm import LiquidLegions
    /// >>> LiquidLegions.from_vids({"vid": [1, 2, 1], "page": ["a", "b", "c"]}).registers()
    /// [(2027, 1311850, 2), (6116, 1528384, 1)]
    #[classmethod]
    #[pyo3(signature = (vids, vid = "vid", *, sketch = (12.0, 100_000), sampling_start = 0.0, sampling_width = 1.0))]
    fn from_vids(
        _class: &Bound<'_, PyType>,
        vids: &Bound<'_, PyAny>,
        vid: &str,
        sketch: Sketch,
        sampling_start: f64,
        sampling_width: f64,
    ) -> PyResult<Self> {
        let params = params::sketch(sketch, SAMPLING_INDICATOR_SIZE as i64)?;
        let interval = params::interval(sampling_start, sampling_width)?;
        let interval = interval.without_wrapping().map_err(Error::from)?;
        let column = Vids::new(vids, vid)?;
        let slices = column.slices();
        let sketch = door::run(vids.py(), |control| {
            let mut sketcher = Sketcher::new(params, interval);
            for part in slices.iter().flat_map(|part| part.chunks(BLOCK)) {
                sketcher.add(part);
                if control.is_cancelled() {
                    return Err(halo_edp_sdk::Error::Interrupted.into());
                }
            }
            Ok(sketcher.finish().sketch)
        })?;
        Ok(Self(sketch))
    }

    /// A sketch of registers that are given one by one.
    ///
    /// Parameters
    /// ----------
    /// registers : list of tuple
    ///     Index, key and count of each; a key of None is a register that two people have destroyed. Registers with the
    ///     same index are joined.
    /// sketch : tuple of (float, int), default (12.0, 100_000)
    ///     Decay rate and number of registers.
    ///
    /// Examples
    /// --------
    /// >>> from halo_cmm import LiquidLegions
    /// >>> LiquidLegions.from_registers([(1, 111, 2), (1, 111, 3), (2, None, 4)]).registers()
    /// [(1, 111, 5), (2, None, 4)]
    #[classmethod]
    #[pyo3(signature = (registers, *, sketch = (12.0, 100_000)))]
    fn from_registers(
        _class: &Bound<'_, PyType>,
        registers: Vec<crate::simulate::Triple>,
        sketch: Sketch,
    ) -> PyResult<Self> {
        let params = params::sketch(sketch, SAMPLING_INDICATOR_SIZE as i64)?;
        let registers: Result<Vec<Register>, String> =
            registers.iter().map(|triple| crate::simulate::register(&params, triple)).collect();
        let registers = registers.map_err(DataError::new_err)?;
        Ok(Self(Inner::from_registers(params, registers).map_err(Error::from)?))
    }

    /// Adds a column of VIDs; the parameters are those of `from_vids`.
    ///
    /// Examples
    /// --------
    /// >>> from halo_cmm import LiquidLegions
    /// >>> sketch = LiquidLegions()
    /// >>> sketch.update([1, 2, 1])
    /// >>> sketch.active
    /// 2
    #[pyo3(signature = (vids, vid = "vid"))]
    fn update(&mut self, vids: &Bound<'_, PyAny>, vid: &str) -> PyResult<()> {
        let column = Vids::new(vids, vid)?;
        let slices = column.slices();
        let inner = &mut self.0;
        door::run(vids.py(), |control| {
            for part in slices.iter().flat_map(|part| part.chunks(BLOCK)) {
                inner.insert_slice(part);
                if control.is_cancelled() {
                    return Err(halo_edp_sdk::Error::Interrupted.into());
                }
            }
            Ok(())
        })
    }

    /// Adds everything that another sketch has seen, and returns this sketch.
    ///
    /// Raises
    /// ------
    /// IncompatibleError
    ///     The sketches have different shapes; nothing is changed then.
    ///
    /// Examples
    /// --------
    /// >>> from halo_cmm import LiquidLegions
    /// >>> one, other = LiquidLegions.from_vids([1, 2]), LiquidLegions.from_vids([2, 3])
    /// >>> one.merge(other) == LiquidLegions.from_vids([1, 2, 2, 3])
    /// True
    fn merge<'py>(mut slf: PyRefMut<'py, Self>, other: &Bound<'py, Self>) -> PyResult<PyRefMut<'py, Self>> {
        // With itself: the counts double.
        let copy = match other.try_borrow() {
            Ok(other) => other.0.clone(),
            Err(_) => slf.0.clone(),
        };
        slf.0.merge(&copy).map_err(Error::from)?;
        Ok(slf)
    }

    /// The estimate of how many people are behind the active registers.
    ///
    /// Parameters
    /// ----------
    /// sampling_width : float, default 1.0
    ///     The share of people that the sketch has sampled.
    /// noise : float, default 0.0
    ///     Standard deviation of noise in the number of active registers.
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
    /// >>> from halo_cmm import LiquidLegions
    /// >>> LiquidLegions.from_vids(range(1000)).reach()
    /// Estimate(value=991.7, standard_error=5.5)
    #[pyo3(signature = (sampling_width = 1.0, *, noise = 0.0))]
    fn reach<'py>(&self, py: Python<'py>, sampling_width: f64, noise: f64) -> PyResult<Estimate<'py>> {
        let active = self.0.active() as f64;
        let found = estimate::reach(self.0.params(), active, sampling_width, noise).map_err(Error::from)?;
        estimators::estimate(py, found.value, found.standard_error)
    }

    /// The shares of people reached 1, 2, … times, from the registers that only one person fell into.
    ///
    /// Parameters
    /// ----------
    /// max_frequency : int, default 10
    ///     The last share is of those reached so often or more.
    /// sampling_width : float, default 1.0
    ///     The share of people that the sketch has sampled.
    ///
    /// Returns
    /// -------
    /// FrequencyEstimate
    ///     Without shares when there is no data.
    ///
    /// Examples
    /// --------
    /// >>> from halo_cmm import LiquidLegions
    /// >>> found = LiquidLegions.from_vids([1, 2, 2, 3, 3, 3, 4]).frequency(max_frequency=3)
    /// >>> found.shares
    /// {1: 0.5, 2: 0.25, 3: 0.25}
    #[pyo3(signature = (max_frequency = 10, sampling_width = 1.0))]
    fn frequency<'py>(
        &self,
        py: Python<'py>,
        max_frequency: i64,
        sampling_width: f64,
    ) -> PyResult<FrequencyEstimate<'py>> {
        let mut histogram = vec![0.0; params::frequency(max_frequency)?.get() as usize];
        for register in self.0.registers().filter(|register| register.key != RegisterKey::Destroyed) {
            let last = histogram.len() as u64;
            histogram[(register.count.min(last) - 1) as usize] += 1.0;
        }
        let active = self.0.active() as f64;
        let reach = estimate::reach(self.0.params(), active, sampling_width, 0.0).map_err(Error::from)?;
        estimators::frequency_estimate(py, estimate::frequency(&histogram, 0.0, reach.value))
    }

    /// The active registers, ascending by index, as tuples of index, key (None where destroyed) and count.
    fn registers(&self) -> Vec<(u64, Option<u64>, u64)> {
        let key = |key| match key {
            RegisterKey::Unique(key) => Some(key),
            RegisterKey::Destroyed => None,
        };
        self.0.registers().map(|register| (register.index, key(register.key), register.count)).collect()
    }

    /// int : The number of active registers.
    #[getter]
    fn active(&self) -> usize {
        self.0.active()
    }

    /// tuple of (float, int) : Decay rate and number of registers.
    #[getter]
    fn sketch(&self) -> (f64, u64) {
        (self.0.params().decay_rate(), self.0.params().size())
    }

    /// int : The number of different keys.
    #[getter]
    fn sampling_indicator_size(&self) -> u64 {
        self.0.params().sampling_indicator_size()
    }

    /// The stored form; `from_bytes` reads it.
    ///
    /// Examples
    /// --------
    /// >>> from halo_cmm import LiquidLegions
    /// >>> sketch = LiquidLegions.from_vids([1, 2, 1])
    /// >>> LiquidLegions.from_bytes(sketch.to_bytes()) == sketch
    /// True
    fn to_bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.to_bytes())
    }

    /// Reads what `to_bytes` has written.
    ///
    /// Raises
    /// ------
    /// FormatError
    ///     The bytes are no sketch.
    #[classmethod]
    fn from_bytes(_class: &Bound<'_, PyType>, data: &[u8]) -> PyResult<Self> {
        Ok(Self(Inner::from_bytes(data).map_err(Error::from)?))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let bytes = slf.borrow().to_bytes(slf.py());
        Ok((slf.get_type().getattr("from_bytes")?, (bytes,)))
    }

    fn __len__(&self) -> usize {
        self.0.active()
    }

    fn __bool__(&self) -> bool {
        self.0.active() > 0
    }

    fn __copy__(&self) -> Self {
        self.clone()
    }

    fn __deepcopy__(&self, _memo: &Bound<'_, PyAny>) -> Self {
        self.clone()
    }

    fn __repr__(&self) -> String {
        let params = self.0.params();
        let (decay_rate, size) = (params.decay_rate(), params.size());
        format!("LiquidLegions(sketch=({decay_rate:?}, {size}), active={})", self.0.active())
    }

    fn _repr_html_(&self) -> String {
        let params = self.0.params();
        let (decay_rate, size) = (params.decay_rate(), params.size());
        let reach = match estimate::reach(params, self.0.active() as f64, 1.0, 0.0) {
            Ok(reach) => format!("{:.0} ± {:.0}", reach.value, reach.standard_error),
            Err(_) => "saturated".to_owned(),
        };
        format!(
            "<table><caption>LiquidLegions</caption>\
             <tr><th>decay rate</th><td>{decay_rate}</td></tr>\
             <tr><th>registers</th><td>{size}</td></tr>\
             <tr><th>active</th><td>{}</td></tr>\
             <tr><th>people</th><td>{reach}</td></tr></table>",
            self.0.active()
        )
    }
}
