//! The program, its files and its words.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

/// Writes a publisher's file with these columns.
pub(crate) fn write_columns<V: Clone>(directory: &Path, name: &str, columns: &[(&str, Vec<V>)])
where
    Int64Array: From<Vec<V>>,
{
    let fields: Vec<Field> = columns.iter().map(|(name, _)| Field::new(*name, DataType::Int64, true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays = columns.iter().map(|(_, values)| Arc::new(Int64Array::from(values.clone())) as ArrayRef).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
    let file = File::create(directory.join(format!("{name}.parquet"))).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Writes a publisher's file with one column.
pub(crate) fn write<V: Clone>(directory: &Path, name: &str, column: &str, values: Vec<V>)
where
    Int64Array: From<Vec<V>>,
{
    write_columns(directory, name, &[(column, values)]);
}

pub(crate) fn command(events: &Path, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    command.arg("--events").arg(events);
    command.arg("--json").arg(out.join("out.json")).arg("--report").arg(out.join("report.html"));
    command
}

pub(crate) fn quickstart(events: &Path, out: &Path, arguments: &[&str]) -> Output {
    let mut command = command(events, out);
    if !arguments.iter().any(|argument| argument.starts_with("--registers")) {
        command.args(["--registers", "5000"]);
    }
    command.args(arguments).output().unwrap()
}

pub(crate) fn verify(state: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quickstart")).arg("verify").arg("--state-dir").arg(state).output().unwrap()
}

/// The first printed line that begins so.
pub(crate) fn line<'a>(printed: &'a str, beginning: &str) -> &'a str {
    printed.lines().find(|line| line.starts_with(beginning)).unwrap_or_else(|| panic!("{printed}"))
}

/// Keys of an object with what kind of value each has, one `path: kind` a line. Entries of arrays look like the first,
/// and keys that are numbers count as one.
pub(crate) fn shape(path: &str, value: &Value, lines: &mut Vec<String>) {
    let kind = match value {
        Value::Object(members) => {
            for (key, member) in members {
                let key = if key.parse::<u64>().is_ok() { "N" } else { key };
                shape(&format!("{path}.{key}"), member, lines);
            }
            return;
        }
        Value::Array(members) => return shape(&format!("{path}[]"), members.first().unwrap_or(&Value::Null), lines),
        Value::String(_) => "text",
        Value::Number(number) if number.is_u64() => "count",
        Value::Number(_) => "number",
        Value::Bool(_) => "flag",
        Value::Null => "nothing",
    };
    lines.push(format!("{path}: {kind}"));
}

pub(crate) fn figures(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("out.json")).unwrap()).unwrap()
}

/// The real publishers' directory; says that the test is skipped when it is missing.
pub(crate) fn msnbc() -> Option<PathBuf> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/msnbc");
    if data.exists() {
        return Some(data);
    }
    println!("SKIPPED: ../shared/data/msnbc is missing");
    None
}

/// Runs to the end and returns the figures with what was printed.
pub(crate) fn measured(events: &Path, out: &Path, arguments: &[&str]) -> (Value, String) {
    let output = quickstart(events, out, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    (figures(out), String::from_utf8(output.stdout).unwrap())
}

/// Checks that a result is no further from the truth than five of the standard errors that it reports: the number, and
/// the share of each frequency.
pub(crate) fn assert_near(found: &Value) {
    let (result, truth) = (&found["result"], &found["truth"]);
    let near = |what: &str, value: &Value, error: &Value, exact: &Value| {
        let (value, error) = (value.as_f64().unwrap(), error.as_f64().unwrap());
        let exact = exact.as_f64().unwrap_or(0.0);
        assert!((value - exact).abs() <= 5.0 * error, "{what}: {value} ± {error}, exactly {exact}");
    };
    if result["value"].is_number() {
        return near("value", &result["value"], &result["std_error"], &truth["value"]);
    }
    near("reach", &result["reach"], &result["reach_std_error"], &truth["reach"]);
    for (bin, share) in result["frequency"].as_object().into_iter().flatten() {
        near(bin, share, &result["frequency_std_error"][bin], &truth["frequency"][bin]);
    }
}
