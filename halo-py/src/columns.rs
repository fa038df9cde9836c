//! VIDs as Python has them: numpy arrays, Arrow arrays and tables by the PyCapsule protocol, pandas, lists, and Parquet
//! files. Columns of 64-bit integers are not copied.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, types};
use arrow_schema::DataType;
use halo_edp_sdk::events;
use numpy::{PyArray1, PyArrayDescr, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray1, PyUntypedArray};
use numpy::{PyUntypedArrayMethods, dtype};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString};
use pyo3_arrow::input::AnyArray;

use crate::error::Error;
use crate::error::class::{ColumnTypeError, DataError, MissingColumnError};

/// The types that can be read, for messages.
const EXPECTED: &str = "a one-dimensional column of integers (numpy, pyarrow, pandas, polars, a list), a table with a \
                        column of them, or the path of a Parquet file with a column `vid`";

/// One VID for each impression, in parts.
pub(crate) struct Vids<'py>(Vec<Part<'py>>);

enum Part<'py> {
    Numpy(PyReadonlyArray1<'py, u64>),
    /// Of 64-bit integers, signed or not, without nulls and negative numbers.
    Arrow(ArrayRef),
    Owned(Vec<u64>),
}

impl<'py> Vids<'py> {
    /// Takes what a user has given; `column` is the name of the column in tables.
    pub(crate) fn new(data: &Bound<'py, PyAny>, column: &str) -> PyResult<Self> {
        if let Some(path) = path(data)? {
            return from_file(data.py(), path, column);
        }
        if let Ok(array) = data.cast::<PyUntypedArray>() {
            if data.hasattr("mask")? {
                let advice = "VIDs cannot be read from a masked array; give array.compressed(), without what is masked";
                return Err(ColumnTypeError::new_err(advice));
            }
            return from_numpy(array);
        }
        if is_pandas(data)? {
            return from_pandas(data, column);
        }
        if data.hasattr("__arrow_c_stream__")? || data.hasattr("__arrow_c_array__")? {
            return from_arrow(data, column);
        }
        if let Ok(mapping) = data.cast::<PyMapping>() {
            let names = || mapping.keys().map(|keys| keys.iter().map(|key| key.to_string()).collect::<Vec<_>>());
            let Ok(found) = mapping.get_item(column) else { return Err(missing_column(column, &names()?)) };
            return Self::new(&found, column);
        }
        let numpy = data.py().import("numpy")?;
        let array = numpy.call_method1("asarray", (data,))?;
        if array.len().unwrap_or(1) == 0 {
            return Ok(Self(Vec::new()));
        }
        from_numpy(array.cast()?)
    }

    pub(crate) fn slices(&self) -> Vec<&[u64]> {
        self.0
            .iter()
            .map(|part| match part {
                Part::Numpy(array) => array.as_slice().unwrap_or_default(),
                Part::Arrow(array) => unsigned(array),
                Part::Owned(vids) => vids,
            })
            .collect()
    }
}

/// The path, when it is one.
fn path(data: &Bound<'_, PyAny>) -> PyResult<Option<PathBuf>> {
    if data.is_instance_of::<PyString>() || data.hasattr("__fspath__")? { data.extract().map(Some) } else { Ok(None) }
}

fn from_file<'py>(py: Python<'py>, path: PathBuf, column: &str) -> PyResult<Vids<'py>> {
    if column != "vid" {
        let advice = "of a Parquet file only the column `vid` is read; load the table yourself to take another one";
        return Err(ColumnTypeError::new_err(advice));
    }
    let vids = crate::door::run(py, move |control| {
        let mut all = Vec::new();
        events::try_read_vids(&path, |vids| {
            all.extend_from_slice(vids);
            if control.is_cancelled() { Err(halo_edp_sdk::Error::Interrupted) } else { Ok(()) }
        })?;
        Ok(all)
    })?;
    Ok(Vids(vec![Part::Owned(vids)]))
}

fn from_numpy<'py>(array: &Bound<'py, PyUntypedArray>) -> PyResult<Vids<'py>> {
    let py = array.py();
    let found = array.dtype();
    if array.ndim() != 1 || !matches!(found.kind(), b'i' | b'u') {
        let shape = array.shape().to_vec();
        return Err(ColumnTypeError::new_err(format!(
            "VIDs cannot be read from an array of {found} of shape {shape:?}; give {EXPECTED}"
        )));
    }
    let signed = found.kind() == b'i';
    // One layout: 64 bits, native order, without gaps. Nothing is copied that has it.
    let wide = if signed { dtype::<i64>(py) } else { dtype::<u64>(py) };
    let contiguous = py.import("numpy")?.call_method1("ascontiguousarray", (array, wide))?;
    let unsigned = contiguous.call_method1("view", ("uint64",))?;
    let vids = unsigned.cast::<PyArray1<u64>>()?.readonly();
    if signed && let Some(row) = vids.as_slice()?.iter().position(|vid| *vid > i64::MAX as u64) {
        return Err(negative(row, vids.as_slice()?[row].cast_signed()));
    }
    Ok(Vids(vec![Part::Numpy(vids)]))
}

fn is_pandas(data: &Bound<'_, PyAny>) -> PyResult<bool> {
    let module: String = data.get_type().getattr("__module__")?.extract()?;
    Ok(module == "pandas" || module.starts_with("pandas."))
}

/// A data frame's column, or a series. Series over numpy arrays give the array; others speak Arrow.
fn from_pandas<'py>(data: &Bound<'py, PyAny>, column: &str) -> PyResult<Vids<'py>> {
    let series = if data.hasattr("columns")? {
        data.get_item(column).map_err(|error| {
            if error.is_instance_of::<PyKeyError>(data.py()) {
                let names = data.getattr("columns").and_then(|names| {
                    names.try_iter()?.map(|name| Ok(name?.to_string())).collect::<PyResult<Vec<_>>>()
                });
                missing_column(column, &names.unwrap_or_default())
            } else {
                error
            }
        })?
    } else {
        data.clone()
    };
    if series.getattr("dtype")?.cast::<PyArrayDescr>().is_ok() {
        return from_numpy(series.call_method0("to_numpy")?.cast()?);
    }
    if series.hasattr("__arrow_c_stream__")? {
        return from_arrow(&series, column);
    }
    Vids::new(&series.call_method0("to_numpy")?, column)
}

fn from_arrow<'py>(data: &Bound<'py, PyAny>, column: &str) -> PyResult<Vids<'py>> {
    let (chunks, _) = data.extract::<AnyArray>()?.into_chunked_array()?.into_inner();
    let mut parts = Vec::with_capacity(chunks.len());
    let mut rows = 0;
    for chunk in chunks {
        let chunk = column_of(chunk, column)?;
        let length = chunk.len();
        if chunk.null_count() > 0 {
            let row = rows + (0..length).find(|row| chunk.is_null(*row)).unwrap_or_default();
            return Err(DataError::new_err(format!("row {row} (the first is 0) has no VID; drop nulls first")));
        }
        parts.push(part_of(chunk, rows)?);
        rows += length;
    }
    Ok(Vids(parts))
}

/// The column of a table; an array itself.
fn column_of(chunk: ArrayRef, column: &str) -> PyResult<ArrayRef> {
    let Some(table) = chunk.as_struct_opt() else { return Ok(chunk) };
    if let Some(found) = table.column_by_name(column) {
        return Ok(Arc::clone(found));
    }
    let names: Vec<String> = table.column_names().into_iter().map(str::to_owned).collect();
    match table.columns() {
        // A relation of one column has nothing else to be meant.
        [only] if only.data_type().is_integer() => Ok(Arc::clone(only)),
        _ => Err(missing_column(column, &names)),
    }
}

fn part_of<'py>(array: ArrayRef, rows: usize) -> PyResult<Part<'py>> {
    fn widened<T>(values: &[T], rows: usize) -> PyResult<Part<'static>>
    where
        T: Copy + Into<i64>,
    {
        let one = |(row, value): (usize, &T)| {
            let value: i64 = (*value).into();
            u64::try_from(value).map_err(|_| negative(rows + row, value))
        };
        values.iter().enumerate().map(one).collect::<PyResult<_>>().map(Part::Owned)
    }
    match array.data_type() {
        DataType::UInt64 => Ok(Part::Arrow(array)),
        DataType::Int64 => {
            let values = array.as_primitive::<types::Int64Type>().values();
            match values.iter().position(|vid| *vid < 0) {
                Some(row) => Err(negative(rows + row, values[row])),
                None => Ok(Part::Arrow(array)),
            }
        }
        DataType::Int8 => widened(array.as_primitive::<types::Int8Type>().values(), rows),
        DataType::Int16 => widened(array.as_primitive::<types::Int16Type>().values(), rows),
        DataType::Int32 => widened(array.as_primitive::<types::Int32Type>().values(), rows),
        DataType::UInt8 => widened(array.as_primitive::<types::UInt8Type>().values(), rows),
        DataType::UInt16 => widened(array.as_primitive::<types::UInt16Type>().values(), rows),
        DataType::UInt32 => widened(array.as_primitive::<types::UInt32Type>().values(), rows),
        found => Err(ColumnTypeError::new_err(format!("VIDs cannot be read from {found}; give {EXPECTED}"))),
    }
}

/// The numbers of a part of 64-bit integers. Those that are not negative have the same bits with and without a sign.
fn unsigned(array: &ArrayRef) -> &[u64] {
    match array.as_primitive_opt::<types::UInt64Type>() {
        Some(array) => array.values(),
        None => array.as_primitive::<types::Int64Type>().values().inner().typed_data(),
    }
}

fn negative(row: usize, value: i64) -> PyErr {
    DataError::new_err(format!("row {row} (the first is 0) has the negative VID {value}; VIDs are 0 or more"))
}

fn missing_column(column: &str, names: &[String]) -> PyErr {
    let names = if names.is_empty() { "none at all".to_owned() } else { names.join(", ") };
    MissingColumnError::new_err(format!("there is no column `{column}`; the columns are {names}; name one as vid="))
}

/// The VIDs of a publisher, for messages that say whose they are.
pub(crate) fn named(error: Error, publisher: &str) -> Error {
    match error {
        Error::Data(message) => Error::Data(format!("publisher {publisher}: {message}")),
        Error::Sketch(error @ halo_sketch::Error::OutOfRange { name: "VID", .. }) => {
            Error::Data(format!("publisher {publisher}: {error}"))
        }
        error => error,
    }
}
