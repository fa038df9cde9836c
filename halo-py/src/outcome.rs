//! What a run gives, on its way to Python.

use halo_duchy::protocol::{hmss, llv2, trustee};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::error::Error;
use crate::trace::Row;

/// Reach and frequency with their standard errors.
#[derive(Clone, Debug)]
pub(crate) struct Estimates {
    pub(crate) reach: f64,
    pub(crate) reach_standard_error: f64,
    /// By frequency from 1 on; empty without frequencies or data.
    pub(crate) shares: Vec<f64>,
    pub(crate) share_standard_errors: Vec<f64>,
}

/// The answer in the clear.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exact {
    pub(crate) reach: f64,
    /// People, or usable registers, by frequency from 1 on; empty without frequencies.
    pub(crate) histogram: Vec<u64>,
    pub(crate) active_registers: Option<u64>,
}

/// What the protocol found, before estimation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) registers: Option<u64>,
    pub(crate) active_registers: Option<i64>,
    pub(crate) reached: Option<i64>,
    pub(crate) cells: Option<u64>,
    pub(crate) suppressed: Option<bool>,
    pub(crate) histogram: Option<Vec<i64>>,
    pub(crate) reach_noise: f64,
    pub(crate) frequency_noise: f64,
}

/// Everything.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) estimates: Estimates,
    pub(crate) exact: Exact,
    pub(crate) counted: Counted,
}

impl Outcome {
    pub(crate) fn of_ring(outcome: &llv2::Outcome, parameters: &llv2::Parameters) -> Result<Self, Error> {
        let found = outcome.estimate(parameters)?;
        let (shares, share_standard_errors) =
            found.frequency.map_or_else(Default::default, |found| (found.shares, found.standard_errors));
        let (reach, reach_standard_error) = (found.reach, found.reach_standard_error);
        Ok(Self {
            estimates: Estimates { reach, reach_standard_error, shares, share_standard_errors },
            exact: Exact::default(),
            counted: Counted {
                registers: Some(outcome.registers_in),
                active_registers: Some(outcome.active_registers),
                histogram: outcome.usable_histogram.clone(),
                reach_noise: outcome.reach_noise_sd,
                frequency_noise: outcome.frequency_noise_sd,
                ..Counted::default()
            },
        })
    }

    pub(crate) fn of_shuffle(outcome: &hmss::Outcome, parameters: &hmss::Parameters) -> Result<Self, Error> {
        let counted = Counted {
            reached: Some(outcome.reached),
            cells: Some(outcome.cells),
            histogram: outcome.histogram.clone(),
            reach_noise: outcome.reach_noise_sd,
            frequency_noise: outcome.frequency_noise_sd,
            ..Counted::default()
        };
        Ok(Self::of_vectors(outcome.estimate(parameters)?, counted))
    }

    pub(crate) fn of_trustee(outcome: &trustee::Outcome, parameters: &trustee::Parameters) -> Result<Self, Error> {
        let counted = Counted {
            reached: Some(outcome.reached),
            cells: Some(outcome.cells),
            suppressed: Some(outcome.suppressed),
            histogram: outcome.histogram.clone(),
            reach_noise: outcome.reach_noise_sd,
            frequency_noise: outcome.frequency_noise_sd,
            ..Counted::default()
        };
        Ok(Self::of_vectors(outcome.estimate(parameters)?, counted))
    }

    fn of_vectors(found: hmss::Estimates, counted: Counted) -> Self {
        let (shares, share_standard_errors) =
            found.frequency.map_or_else(Default::default, |found| (found.shares, found.standard_errors));
        let (reach, reach_standard_error) = (found.reach, found.reach_standard_error);
        let estimates = Estimates { reach, reach_standard_error, shares, share_standard_errors };
        Self { estimates, exact: Exact::default(), counted }
    }

    /// The counts and estimates alone, as a step of an engine gives them.
    pub(crate) fn estimates_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Estimates { reach, reach_standard_error, shares, share_standard_errors } = &self.estimates;
        let dict = PyDict::new(py);
        dict.set_item("reach", reach)?;
        dict.set_item("reach_standard_error", reach_standard_error)?;
        dict.set_item("frequency", by_frequency(py, shares)?)?;
        dict.set_item("frequency_standard_errors", by_frequency(py, share_standard_errors)?)?;
        let counted = PyDict::new(py);
        let found = &self.counted;
        for (name, number) in [("active_registers", found.active_registers), ("reached", found.reached)] {
            if let Some(number) = number {
                counted.set_item(name, number)?;
            }
        }
        for (name, number) in [("registers", found.registers), ("cells", found.cells)] {
            if let Some(number) = number {
                counted.set_item(name, number)?;
            }
        }
        if let Some(suppressed) = found.suppressed {
            counted.set_item("suppressed", suppressed)?;
        }
        if let Some(histogram) = &found.histogram {
            counted.set_item("histogram", by_frequency(py, histogram)?)?;
        }
        counted.set_item("reach_noise", found.reach_noise)?;
        counted.set_item("frequency_noise", found.frequency_noise)?;
        dict.set_item("counted", counted)?;
        Ok(dict)
    }

    pub(crate) fn to_dict<'py>(&self, py: Python<'py>, trace: &[Row]) -> PyResult<Bound<'py, PyDict>> {
        let dict = self.estimates_dict(py)?;
        dict.set_item("exact_reach", self.exact.reach)?;
        dict.set_item("exact_histogram", by_frequency(py, &self.exact.histogram)?)?;
        dict.set_item("exact_active_registers", self.exact.active_registers)?;
        let rows = trace
            .iter()
            .map(|row| (&row.stage, &row.party, row.records, row.bytes, row.seconds).into_pyobject(py))
            .collect::<PyResult<Vec<Bound<'py, PyTuple>>>>()?;
        dict.set_item("trace", PyList::new(py, rows)?)?;
        Ok(dict)
    }
}

/// A dictionary from frequencies, 1 and up, to these.
pub(crate) fn by_frequency<'py, T>(py: Python<'py>, values: &[T]) -> PyResult<Bound<'py, PyDict>>
where
    T: Copy + IntoPyObject<'py>,
{
    let dict = PyDict::new(py);
    for (frequency, value) in (1_u32..).zip(values) {
        dict.set_item(frequency, *value)?;
    }
    Ok(dict)
}
