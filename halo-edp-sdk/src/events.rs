//! Impressions from Parquet: one row an impression, the person in an integer column `vid`.
//!
//! Other columns are not read. The file is streamed in batches of 64 Ki rows, so memory does not depend on its size.

use std::{fs::File, path::Path};

use arrow_array::{Array, ArrayRef, RecordBatchReader, cast::AsArray, types};
use arrow_schema::DataType;
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};

use crate::Error;

/// Rows of a batch.
const BATCH_ROWS: usize = 65_536;

/// Name of the column.
const COLUMN: &str = "vid";

/// Reads every row's VID, in order, and hands them over in batches. Returns the number of rows.
///
/// # Errors
/// [`Error::File`], [`Error::NotParquet`], [`Error::NoVidColumn`], [`Error::VidType`], and [`Error::BadVid`] for a null
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
    let not_parquet = |reason: String| Error::NotParquet { path: path.to_path_buf(), reason };
    let file = File::open(path).map_err(Error::file("cannot open", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| not_parquet(error.to_string()))?;
    let schema = builder.schema();
    if schema.column_with_name(COLUMN).is_none() {
        let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let columns = if columns.is_empty() { "none at all".to_owned() } else { columns.join(", ") };
        return Err(Error::NoVidColumn { path: path.to_path_buf(), columns });
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), [COLUMN]);
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|error| not_parquet(error.to_string()))?;
    let found = reader.schema().field(0).data_type().clone();
    if !matches!(found, DataType::Int32 | DataType::Int64 | DataType::UInt32 | DataType::UInt64) {
        return Err(Error::VidType { path: path.to_path_buf(), found: found.to_string() });
    }
    let mut rows = 0;
    let mut vids = Vec::with_capacity(BATCH_ROWS);
    for batch in reader {
        let batch = batch.map_err(|error| not_parquet(error.to_string()))?;
        let column = batch.column(0);
        vids.clear();
        convert(column, &mut vids).map_err(|(position, problem)| Error::BadVid {
            path: path.to_path_buf(),
            row: rows + position as u64 + 1,
            problem,
        })?;
        rows += vids.len() as u64;
        consume(&vids)?;
    }
    Ok(rows)
}

/// Appends a column's values; the first row that is no VID, and why.
fn convert(column: &ArrayRef, vids: &mut Vec<u64>) -> Result<(), (usize, String)> {
    if column.null_count() > 0 {
        let position = (0..column.len()).find(|row| column.is_null(*row)).unwrap_or_default();
        return Err((position, "it has no VID (null)".to_owned()));
    }
    fn signed(values: impl Iterator<Item = i64>, vids: &mut Vec<u64>) -> Result<(), (usize, String)> {
        for (position, value) in values.enumerate() {
            let vid = u64::try_from(value).map_err(|_| (position, format!("its VID is negative ({value})")))?;
            vids.push(vid);
        }
        Ok(())
    }
    match column.data_type() {
        DataType::Int32 => {
            signed(column.as_primitive::<types::Int32Type>().values().iter().map(|value| i64::from(*value)), vids)
        }
        DataType::UInt32 => {
            vids.extend(column.as_primitive::<types::UInt32Type>().values().iter().map(|value| u64::from(*value)));
            Ok(())
        }
        DataType::UInt64 => {
            vids.extend_from_slice(column.as_primitive::<types::UInt64Type>().values());
            Ok(())
        }
        _ => signed(column.as_primitive::<types::Int64Type>().values().iter().copied(), vids),
    }
}
