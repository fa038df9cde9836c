//! The protocols side by side: what each costs, from the traces of runs on the synthetic population.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use halo_core::measurement::{MeasurementKind, ProtocolKind};
use procfs::{CpuInfo, Current};

use super::{
    input::{Options, Sampling},
    run::outcome,
};
use crate::{
    error::{Context, Error, Result},
    kind,
    outcome::Outcome,
    report::group,
};

/// The lines of a Markdown file between which the table lies.
const MARKS: (&str, &str) = ("<!-- protocols -->", "<!-- /protocols -->");

/// The command that fills the table.
const COMMAND: &str = "cargo run --release -- compare --write README.md";

/// What is true of a protocol wherever it runs: what each party learns, and the trust that it needs.
const fn words(protocol: ProtocolKind) -> (&'static str, &'static str) {
    const ONE_HONEST: &str = "one honest Duchy keeps everything sealed; `honest_contributors` Duchies add their noise";
    const SHUFFLE: &str = "workers: one uniform share of every cell; aggregator: how many cells have which value, among the \
                           noise of both workers and in a secret order";
    const MAJORITY: &str = "no two of the three Duchies collude; `honest_contributors` workers add their noise";
    match protocol {
        ProtocolKind::Llv2 => (
            "workers: how many encrypted registers there are, noise included; aggregator: how many share an index, how many \
             are active, the histogram of counts, all noised",
            ONE_HONEST,
        ),
        ProtocolKind::Rollv2 => (
            "workers: how many encrypted registers there are, noise included; aggregator: how many share an index, noised",
            ONE_HONEST,
        ),
        ProtocolKind::Hmss | ProtocolKind::HmssNative => (SHUFFLE, MAJORITY),
        ProtocolKind::Trustee => (
            "the trustee's process: every publisher's vector; its operator: nothing, as far as the hardware keeps its word",
            "the maker of the trusted hardware and the attested program; here the attestation is simulated, and the operator \
             has to be trusted",
        ),
        ProtocolKind::Direct => (
            "nobody but the publisher; the consumer: every publisher's noised numbers, and nothing of what they have in \
             common",
            "every publisher counts and adds noise as it says",
        ),
    }
}

/// What one run cost.
#[derive(Clone, Debug, PartialEq)]
struct Cost {
    protocol: ProtocolKind,
    measured: MeasurementKind,
    /// Stages in which Duchies sent one another something.
    rounds: usize,
    /// Registers or cells that the publishers sent.
    registers: u64,
    uploaded_bytes: u64,
    duchy_bytes: u64,
    /// CPU time of the Duchies' stages.
    duchy_cpu_s: f64,
    /// CPU time of all processes.
    all_cpu_s: f64,
    /// Wall time from the first key to the result.
    total_s: f64,
}

impl Cost {
    fn of(protocol: ProtocolKind, outcome: &Outcome) -> Self {
        let sending = outcome.stages.iter().filter(|stage| stage.bytes_out > 0);
        let records = outcome.uploads.iter().map(|upload| upload.records).sum();
        let cells = outcome.joint.as_ref().and_then(|found| found.result.reach()?.vector_size);
        Self {
            protocol,
            measured: outcome.measurement_type,
            rounds: sending.map(|stage| stage.name.as_str()).collect::<BTreeSet<_>>().len(),
            registers: match protocol {
                // What publishers send is a finished number.
                ProtocolKind::Direct => 0,
                _ => cells.map_or(records, |cells| cells * outcome.uploads.len() as u64),
            },
            uploaded_bytes: outcome.uploads.iter().map(|upload| upload.bytes).sum(),
            duchy_bytes: outcome.stages.iter().map(|stage| stage.bytes_out).sum(),
            duchy_cpu_s: outcome.stages.iter().map(|stage| stage.cpu_s).sum(),
            all_cpu_s: outcome.parties.iter().map(|party| party.cpu_s).sum(),
            total_s: outcome.timings.total_s,
        }
    }

    fn row(&self) -> String {
        let (learns, trust) = words(self.protocol);
        // Without registers there is nothing to divide by.
        let each = |value: f64, digits: usize| match self.registers {
            0 => "–".to_owned(),
            registers => format!("{:.digits$}", value / registers as f64),
        };
        let registers = if self.registers == 0 { "–".to_owned() } else { group(self.registers) };
        format!(
            "| `{}` ({}) | {learns} | {trust} | {} | {registers} | {} + {} | {} µs | {:.1} s | {:.1} s |",
            self.protocol,
            kind::name(self.measured),
            self.rounds,
            each(self.uploaded_bytes as f64, 1),
            each(self.duchy_bytes as f64, 1),
            each(self.duchy_cpu_s * 1e6, 2),
            self.all_cpu_s,
            self.total_s
        )
    }
}

/// Runs every protocol on the synthetic population and prints the table; with `write` it also goes into that file.
/// `program` is this program, which runs again as every party.
///
/// # Errors
/// When a run fails, or the file has no place for the table.
pub fn compare(program: &Path, write: Option<&Path>) -> Result<()> {
    let file = write.map(|path| {
        let text = fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
        // Known before the work whether there is a place.
        replaced(&text, "").context(|| path.display().to_string())?;
        Ok((path, text))
    });
    let file = file.transpose()?;
    let mut costs = Vec::new();
    for protocol in ProtocolKind::ALL {
        let directory = tempfile::tempdir().context(|| "cannot create a temporary directory".into())?;
        println!("== {protocol}");
        let options = options(protocol, directory.path().to_path_buf());
        costs.push(Cost::of(protocol, &outcome(program, &options)?.0));
    }
    let table = table(&costs, &machine());
    println!("\n{table}");
    if let Some((path, text)) = file {
        fs::write(path, replaced(&text, &table)?).context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The options of one run: what `cargo run --release` does, with another protocol.
fn options(protocol: ProtocolKind, directory: PathBuf) -> Options {
    let measurement = match protocol {
        ProtocolKind::Rollv2 => MeasurementKind::Reach,
        _ => MeasurementKind::ReachAndFrequency,
    };
    Options {
        events: None,
        publishers: Vec::new(),
        protocol: Some(protocol),
        measurement,
        population: None,
        maximum_frequency: 10,
        maximum_seconds: 3_600,
        sampling: Sampling { start: 0.0, width: 1.0 },
        decay_rate: 12.0,
        registers: 100_000,
        epsilon: 1.0,
        delta: 1e-9,
        no_noise: false,
        duchies: 3,
        seed: 1,
        state_dir: Some(directory),
        json: None,
        report: PathBuf::new(),
    }
}

/// The processors and the build, in words.
fn machine() -> String {
    let cpus = CpuInfo::current().ok();
    let model = cpus.as_ref().and_then(|cpus| cpus.model_name(0)).unwrap_or("processors of an unknown kind");
    let cores = cpus.as_ref().map_or(1, CpuInfo::num_cores);
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    format!("{cores} logical processors, {model}; {build}")
}

fn table(costs: &[Cost], machine: &str) -> String {
    let mut text = String::from(
        "| protocol | each party learns | the trust it needs | rounds | registers | bytes a register: upload + between \
         Duchies | CPU of the Duchies a register | CPU of all processes | wall |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for cost in costs {
        let _ = writeln!(text, "{}", cost.row());
    }
    let frequencies = kind::name(MeasurementKind::ReachAndFrequency);
    let _ = write!(
        text,
        "\nThe figures are of one run each on the synthetic population ({frequencies} where the protocol has it, F = 10, \
         ε = 1, δ = 1e-9, three publishers, three Duchies), filled in by `{COMMAND}` on {machine}. A register is one of a \
         sketch, noise included, or one cell of a vector. Rounds are the stages in which Duchies send one another \
         something. CPU of the Duchies is that of their stages as the timeline has it."
    );
    text
}

/// The text with a table between the marks.
fn replaced(text: &str, table: &str) -> Result<String> {
    let (open, close) = MARKS;
    let missing = || Error::new(format!("there is no place for the table: a line {open} and after it a line {close}"));
    let (before, rest) = text.split_once(open).ok_or_else(missing)?;
    let (_, after) = rest.split_once(close).ok_or_else(missing)?;
    Ok(format!("{before}{open}\n{table}\n{close}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_goes_between_its_marks_again_and_again() {
        let text = "before\n<!-- protocols -->\nold\n<!-- /protocols -->\nafter\n";
        let once = replaced(text, "| a |").unwrap();
        assert_eq!(once, "before\n<!-- protocols -->\n| a |\n<!-- /protocols -->\nafter\n");
        assert_eq!(replaced(&once, "| a |").unwrap(), once);
        for bad in ["nothing", "<!-- /protocols --> <!-- protocols -->"] {
            assert!(replaced(bad, "").unwrap_err().to_string().contains("<!-- protocols -->"));
        }
    }

    #[test]
    fn figures_are_divided_by_the_registers() {
        let cost = Cost {
            protocol: ProtocolKind::HmssNative,
            measured: MeasurementKind::Reach,
            rounds: 2,
            registers: 4_000,
            uploaded_bytes: 4_000,
            duchy_bytes: 10_000,
            duchy_cpu_s: 0.002,
            all_cpu_s: 1.26,
            total_s: 3.0,
        };
        let row = cost.row();
        assert!(row.contains("| 2 | 4,000 | 1.0 + 2.5 | 0.50 µs | 1.3 s | 3.0 s |"), "{row}");
        let direct = Cost { protocol: ProtocolKind::Direct, registers: 0, ..cost };
        assert!(direct.row().contains("| – | – + – | – µs |"), "{}", direct.row());
        let table = table(&[direct], "two processors");
        assert!(table.contains("on two processors") && table.contains(COMMAND));
        let columns: BTreeSet<_> =
            table.lines().filter(|line| line.starts_with('|')).map(|line| line.matches('|').count()).collect();
        assert_eq!(columns.len(), 1, "{table}");
    }
}
