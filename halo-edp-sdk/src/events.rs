//! Impressions from Parquet: one row an impression, the person in an integer column `vid`, and for durations how long it
//! was watched, in whole seconds, in an integer column `seconds`.
//!
//! Other columns are not read. The file is streamed in batches of 256 Ki rows, so memory does not depend on its size; while
//! one batch is worked on, the next one is read.

use std::{fs::File, ops::BitOr, path::Path};

use arrow_array::{Array, ArrayRef, RecordBatchReader, cast::AsArray, types};
use arrow_schema::DataType;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use crate::Error;

/// Rows of a batch: 2 MiB of VIDs, which keep several cores busy for milliseconds.
const BATCH_ROWS: usize = 1 << 18;

/// Name of the column of people.
const VID: &str = "vid";

/// Name of the column of watch times.
const SECONDS: &str = "seconds";

/// Reads every row's VID, in order, and hands them over in batches. Returns the number of rows.
///
/// # Errors
/// [`Error::File`], [`Error::NotParquet`], [`Error::NoVidColumn`], [`Error::ColumnType`], and [`Error::BadRow`] for a null
/// or a negative number. A batch with a bad row is not handed over.
pub fn read_vids(path: &Path, mut consume: impl FnMut(&[u64])) -> Result<u64, Error> {
    try_read_vids(path, |vids| {
        consume(vids);
        Ok(())
    })
}

/// As [`read_vids`], with a consumer that can fail.
///
/// # Errors
/// As [`read_vids`], and what the consumer returns.
pub fn try_read_vids(path: &Path, mut consume: impl FnMut(&[u64]) -> Result<(), Error>) -> Result<u64, Error> {
    let mut widened = Vec::new();
    read_columns(path, &[VID], |columns, row| consume(columns[0].values(path, row, &mut widened)?))
}

/// Reads every row's VID and watch time, in order, and hands both over in batches of the same length.
///
/// # Errors
/// As [`try_read_vids`]; [`Error::NoSecondsColumn`].
pub fn try_read_watched(
    path: &Path,
    mut consume: impl FnMut(&[u64], &[u64]) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut widened = [Vec::new(), Vec::new()];
    read_columns(path, &[VID, SECONDS], |columns, row| {
        let [vids, seconds] = &mut widened;
        consume(columns[0].values(path, row, vids)?, columns[1].values(path, row, seconds)?)
    })
}

/// A column of one batch.
struct Column<'a> {
    name: &'static str,
    values: &'a ArrayRef,
}

impl Column<'_> {
    /// The values of a batch that begins after `row` rows; those of 32 bits are widened into `widened`.
    fn values<'a>(&'a self, path: &Path, row: u64, widened: &'a mut Vec<u64>) -> Result<&'a [u64], Error> {
        unsigned(self.name, self.values, widened).map_err(|(position, problem)| Error::BadRow {
            path: path.to_path_buf(),
            row: row + position as u64 + 1,
            problem,
        })
    }
}

/// Streams columns of integers, in the order of `names`, with the number of rows before each batch.
fn read_columns(
    path: &Path,
    names: &[&'static str],
    mut consume: impl FnMut(&[Column<'_>], u64) -> Result<(), Error>,
) -> Result<u64, Error> {
    let not_parquet = |reason: String| Error::NotParquet { path: path.to_path_buf(), reason };
    let file = File::open(path).map_err(Error::file("cannot open", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| not_parquet(error.to_string()))?;
    let schema = builder.schema();
    if schema.column_with_name(VID).is_none() {
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let columns = if columns.is_empty() { "none at all".to_owned() } else { columns.join(", ") };
        return Err(Error::NoVidColumn { path: path.to_path_buf(), columns });
    }
    if names.iter().any(|name| schema.column_with_name(name).is_none()) {
        return Err(Error::NoSecondsColumn { path: path.to_path_buf() });
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    let mut reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| not_parquet(error.to_string()))?;
    let schema = reader.schema();
    let mut places = Vec::with_capacity(names.len());
    for name in names {
        let found = schema.column_with_name(name);
        let (place, field) = found.ok_or_else(|| not_parquet(format!("column {name} is gone")))?;
        if !matches!(field.data_type(), DataType::Int32 | DataType::Int64 | DataType::UInt32 | DataType::UInt64) {
            let found = field.data_type().to_string();
            return Err(Error::ColumnType { path: path.to_path_buf(), column: name, found });
        }
        places.push((*name, place));
    }
    let mut rows = 0;
    let mut next = reader.next();
    while let Some(batch) = next.take() {
        let batch = batch.map_err(|error| not_parquet(error.to_string()))?;
        let columns: Vec<Column<'_>> =
            places.iter().map(|(name, place)| Column { name, values: batch.column(*place) }).collect();
        rayon::in_place_scope(|scope| {
            scope.spawn(|_| next = reader.next());
            consume(&columns, rows)
        })?;
        rows += batch.num_rows() as u64;
    }
    Ok(rows)
}

/// A column's values without a sign; the first row that has none, and why.
fn unsigned<'a>(name: &str, column: &'a ArrayRef, widened: &'a mut Vec<u64>) -> Result<&'a [u64], (usize, String)> {
    if column.null_count() > 0 {
        let position = (0..column.len()).find(|row| column.is_null(*row)).unwrap_or_default();
        return Err((position, format!("its {name} is missing (null)")));
    }
    let negative = |position, value| Err((position, format!("its {name} is negative ({value})")));
    widened.clear();
    match column.data_type() {
        DataType::Int32 => {
            let values = column.as_primitive::<types::Int32Type>().values();
            if let Some(position) = first_negative(values) {
                return negative(position, i64::from(values[position]));
            }
            widened.extend(values.iter().map(|value| u64::from(value.unsigned_abs())));
            Ok(widened)
        }
        DataType::UInt32 => {
            widened.extend(column.as_primitive::<types::UInt32Type>().values().iter().map(|value| u64::from(*value)));
            Ok(widened)
        }
        DataType::UInt64 => Ok(column.as_primitive::<types::UInt64Type>().values()),
        _ => {
            let values = column.as_primitive::<types::Int64Type>().values();
            match first_negative(values) {
                Some(position) => negative(position, values[position]),
                None => Ok(values.inner().typed_data()),
            }
        }
    }
}

/// The first negative number. That there is none, as usual, is seen without a branch for each.
fn first_negative<T: Copy + Default + Ord + BitOr<Output = T>>(values: &[T]) -> Option<usize> {
    let zero = T::default();
    let union = values.iter().fold(zero, |union, value| union | *value);
    (union < zero).then(|| values.iter().position(|value| *value < zero))?
}
