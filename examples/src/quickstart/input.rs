//! What a run is asked to do, and what it reads.

use std::{
    fs,
    path::{Path, PathBuf},
};

use halo_core::{
    measurement::{MeasurementKind, Population, ProtocolKind},
    privacy::VidSamplingInterval,
};

use crate::{
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
    /// The only protocol that is offered to the Kingdom; without it, all that can compute the measurement.
    pub protocol: Option<ProtocolKind>,
    /// What is counted.
    pub measurement: MeasurementKind,
    /// Whom frequency vectors are over; without it, the range of VIDs in the data.
    pub population: Option<Population>,
    /// F; of impressions, how many of one person count.
    pub maximum_frequency: u32,
    /// Of durations, how many seconds of one person count.
    pub maximum_seconds: u32,
    /// Whom the measurement counts.
    pub sampling: Sampling,
    /// Decay rate of the sketch.
    pub decay_rate: f64,
    /// Size of the sketch.
    pub registers: u64,
    /// ε of each released value.
    pub epsilon: f64,
    /// δ of each released value.
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

/// The part of the people that is looked at; not checked yet.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Where it begins on the circle, in [0, 1).
    pub start: f32,
    /// How wide it is, in (0, 1].
    pub width: f32,
}

impl Sampling {
    /// The checked form.
    pub(super) fn interval(self) -> Result<VidSamplingInterval> {
        VidSamplingInterval::new(self.start, self.width)
            .context(|| "--sampling-start and --sampling-width cannot be used".into())
    }
}

/// Where the publishers' impressions are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In files of the user, by publisher.
    Files(Vec<(String, PathBuf)>),
    /// Nowhere yet: some of the publishers of the synthetic population.
    Synthetic(Vec<String>),
}

impl Source {
    /// Number of publishers.
    pub(super) fn publishers(&self) -> usize {
        match self {
            Self::Files(files) => files.len(),
            Self::Synthetic(names) => names.len(),
        }
    }

    /// The publishers' names and files. A synthetic population is written below `directory`.
    pub(super) fn files(self, directory: &Path, seed: u64) -> Result<Vec<(String, PathBuf)>> {
        let names = match self {
            Self::Files(files) => return Ok(files),
            Self::Synthetic(names) => names,
        };
        let events = directory.join("events");
        fs::create_dir_all(&events).context(|| format!("cannot create {}", events.display()))?;
        population::write(&events, seed)?;
        Ok(names.into_iter().map(|name| (name.clone(), events.join(format!("{name}.parquet")))).collect())
    }
}

impl Options {
    /// Finds the publishers. Nothing is read or written but names.
    pub(super) fn source(&self) -> Result<Source> {
        let Some(events) = &self.events else {
            let names: Vec<String> = population::names().map(str::to_owned).collect();
            return Ok(Source::Synthetic(self.chosen(&names, "the synthetic population")?));
        };
        let names = parquet_names(events)?;
        let place = events.display().to_string();
        if names.is_empty() && self.publishers.is_empty() {
            return Err(Error::new(format!("{place} holds no file that ends in .parquet")));
        }
        let chosen = self.chosen(&names, &place)?;
        Ok(Source::Files(
            chosen.into_iter().map(|name| (name.clone(), events.join(format!("{name}.parquet")))).collect(),
        ))
    }

    /// The publishers of the command line, all of which must be there; without any, all that are there.
    fn chosen(&self, names: &[String], place: &str) -> Result<Vec<String>> {
        if self.publishers.is_empty() {
            return Ok(names.to_vec());
        }
        for (position, name) in self.publishers.iter().enumerate() {
            if !names.contains(name) {
                let there = names.join(", ");
                return Err(Error::new(format!("there is no publisher {name} in {place}; there are {there}")));
            }
            if self.publishers[..position].contains(name) {
                return Err(Error::new(format!("publisher {name} is named twice")));
            }
        }
        Ok(self.publishers.clone())
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
pub(super) mod tests {
    use super::*;

    /// The command line without arguments.
    pub(in crate::quickstart) fn options() -> Options {
        Options {
            events: None,
            publishers: Vec::new(),
            protocol: None,
            measurement: MeasurementKind::ReachAndFrequency,
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
            state_dir: None,
            json: None,
            report: "report.html".into(),
        }
    }

    #[test]
    fn publishers_that_are_not_there_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let files = |options: &Options| options.source().unwrap().files(directory.path(), 1).unwrap();
        let empty = Options { events: Some(directory.path().to_path_buf()), ..options() };
        assert!(empty.source().unwrap_err().to_string().contains("no file"));
        for name in ["b", "a"] {
            fs::write(directory.path().join(format!("{name}.parquet")), b"").unwrap();
        }
        assert_eq!(files(&empty).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let unknown = Options { publishers: vec!["a".into(), "c".into()], ..empty.clone() };
        assert!(unknown.source().unwrap_err().to_string().contains("publisher c"));
        let twice = Options { publishers: vec!["a".into(), "a".into()], ..empty };
        assert!(twice.source().unwrap_err().to_string().contains("twice"));
        let synthetic = Options { publishers: vec!["east".into()], ..options() };
        assert_eq!(synthetic.source().unwrap().publishers(), 1);
        assert_eq!(options().source().unwrap().publishers(), 3);
    }
}
