//! What a run is asked to do, and what it reads.

use std::{
    fs,
    path::{Path, PathBuf},
};

use halo_core::privacy::{MaximumFrequency, PrivacyParams};
use halo_sketch::liquid_legions::Params;

use crate::{
    cluster::layout::SAMPLING_INDICATOR_SIZE,
    error::{Context, Error, Result},
    population,
};

/// The command line of quickstart.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory with one Parquet file a publisher; without it a synthetic population is made.
    pub events: Option<PathBuf>,
    /// Publishers by name; all of them when empty.
    pub publishers: Vec<String>,
    /// F.
    pub maximum_frequency: u32,
    /// Decay rate of the sketch.
    pub decay_rate: f64,
    /// Size of the sketch.
    pub registers: u64,
    /// ε of reach, and again of frequency.
    pub epsilon: f64,
    /// δ of reach, and again of frequency.
    pub delta: f64,
    /// Switches every noise off.
    pub no_noise: bool,
    /// Number of Duchies, at least 2.
    pub duchies: usize,
    /// Seed of the synthetic population.
    pub seed: u64,
    /// Where every party keeps its state; a temporary directory when absent.
    pub state_dir: Option<PathBuf>,
    /// Where the figures go.
    pub json: Option<PathBuf>,
    /// Where the report goes.
    pub report: PathBuf,
}

/// Options that were checked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) sketch: Params,
    pub(super) maximum_frequency: MaximumFrequency,
    /// ε and δ that the consumer asks for.
    pub(super) ask: PrivacyParams,
    /// The same, of each noise; `None` without noise.
    pub(super) privacy: Option<PrivacyParams>,
    pub(super) duchies: usize,
}

impl Options {
    /// Checks what can be checked before any work.
    pub(super) fn plan(&self) -> Result<Plan> {
        if !(2..=20).contains(&self.duchies) {
            return Err(Error::new(format!("--duchies is {}; it must be from 2 to 20", self.duchies)));
        }
        let privacy = PrivacyParams::new(self.epsilon, self.delta)
            .and_then(PrivacyParams::for_protocol_noise)
            .context(|| "--epsilon and --delta cannot be used".into())?;
        Ok(Plan {
            sketch: Params::new(self.decay_rate, self.registers, SAMPLING_INDICATOR_SIZE)
                .context(|| "--decay-rate and --registers cannot be used".into())?,
            maximum_frequency: MaximumFrequency::new(self.maximum_frequency)
                .context(|| "--max-frequency cannot be used".into())?,
            ask: privacy,
            privacy: (!self.no_noise).then_some(privacy),
            duchies: self.duchies,
        })
    }

    /// The publishers' names and files. Without `--events` the synthetic population is written below `directory`.
    pub(super) fn publishers(&self, directory: &Path) -> Result<Vec<(String, PathBuf)>> {
        let (events, names) = match &self.events {
            Some(events) => (events.clone(), parquet_names(events)?),
            None => {
                let events = directory.join("events");
                fs::create_dir_all(&events).context(|| format!("cannot create {}", events.display()))?;
                let names = population::write(&events, self.seed)?;
                (events, names)
            }
        };
        let chosen = if self.publishers.is_empty() { &names } else { &self.publishers };
        if chosen.is_empty() {
            return Err(Error::new(format!("{} holds no file that ends in .parquet", events.display())));
        }
        for (position, name) in chosen.iter().enumerate() {
            if !names.contains(name) {
                return Err(Error::new(format!(
                    "there is no publisher {name} in {}; there are {}",
                    events.display(),
                    names.join(", ")
                )));
            }
            if chosen[..position].contains(name) {
                return Err(Error::new(format!("publisher {name} is named twice")));
            }
        }
        Ok(chosen.iter().map(|name| (name.clone(), events.join(format!("{name}.parquet")))).collect())
    }
}

/// Names of the Parquet files of a directory, in order.
fn parquet_names(directory: &Path) -> Result<Vec<String>> {
    let what = || format!("cannot read the directory {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).context(what)? {
        let path = entry.context(what)?.path();
        if path.extension().is_some_and(|extension| extension == "parquet") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            events: None,
            publishers: Vec::new(),
            maximum_frequency: 10,
            decay_rate: 12.0,
            registers: 100_000,
            epsilon: 1.0,
            delta: 1e-9,
            no_noise: false,
            duchies: 3,
            seed: 1,
            state_dir: None,
            json: None,
            report: "report.html".into(),
        }
    }

    #[test]
    fn options_out_of_range_are_named() {
        assert!(options().plan().is_ok());
        for (bad, word) in [
            (Options { duchies: 1, ..options() }, "--duchies"),
            (Options { maximum_frequency: 0, ..options() }, "--max-frequency"),
            (Options { decay_rate: 0.5, ..options() }, "--decay-rate"),
            (Options { registers: 0, ..options() }, "--registers"),
            (Options { epsilon: -1.0, ..options() }, "--epsilon"),
            (Options { delta: 0.0, ..options() }, "--delta"),
        ] {
            let message = bad.plan().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn publishers_that_are_not_there_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let empty = Options { events: Some(directory.path().to_path_buf()), ..options() };
        assert!(empty.publishers(directory.path()).unwrap_err().to_string().contains("no file"));
        for name in ["b", "a"] {
            fs::write(directory.path().join(format!("{name}.parquet")), b"").unwrap();
        }
        let all = empty.publishers(directory.path()).unwrap();
        assert_eq!(all.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let unknown = Options { publishers: vec!["a".into(), "c".into()], ..empty.clone() };
        assert!(unknown.publishers(directory.path()).unwrap_err().to_string().contains("publisher c"));
        let twice = Options { publishers: vec!["a".into(), "a".into()], ..empty };
        assert!(twice.publishers(directory.path()).unwrap_err().to_string().contains("twice"));
    }
}
