//! All parties of a measurement in this process: real engines, real ciphertexts and shares.

mod clear;
mod ring;
mod shuffle;
mod trustee;

use std::io;
use std::ops::RangeInclusive;

use halo_core::privacy::MaximumFrequency;
use halo_duchy::protocol::trustee::Thresholds;
use halo_duchy::protocol::{Body, MemoryWorkspace, RecordSink, Workspace};
use halo_edp_sdk::progress::Progress;
use halo_edp_sdk::sketch as publisher;
use halo_sketch::frequency_vector::VidIndexMap;
use halo_sketch::liquid_legions::{Params, Register, RegisterKey};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::columns::{Vids, named};
use crate::door::{self, Control};
use crate::error::Error;
use crate::outcome::{Exact, Outcome};
use crate::params::{self, Noise, SAMPLING_INDICATOR_SIZE, Seed};
use crate::trace::Trace;
use crate::vector::Population;

/// Name of all computations of simulations.
const COMPUTATION: &str = "simulation";

/// What a simulation is asked for.
pub(crate) struct Job {
    protocol: Protocol,
    sketch: Params,
    maximum_frequency: MaximumFrequency,
    sampling_width: f32,
    noise: Option<Noise>,
    duchies: usize,
    seed: Seed,
    thresholds: Option<Thresholds>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Llv2,
    Rollv2,
    Hmss,
    HmssNative,
    Trustee,
}

impl Protocol {
    /// How many Duchies it can have.
    const fn duchies(self) -> RangeInclusive<i64> {
        match self {
            Self::Llv2 | Self::Rollv2 => 2..=20,
            Self::Hmss | Self::HmssNative => 3..=3,
            // There is one, whatever is asked for.
            Self::Trustee => i64::MIN..=i64::MAX,
        }
    }
}

/// The arguments that all simulations have in common.
#[derive(FromPyObject)]
pub(crate) struct Arguments<'py> {
    protocol: String,
    sketch: params::Sketch,
    max_frequency: i64,
    sampling_width: f64,
    noise: Option<Bound<'py, PyDict>>,
    duchies: i64,
    seed: Option<Bound<'py, PyAny>>,
    thresholds: Option<(u64, u64)>,
}

impl Job {
    /// `sampling_indicator_size` bounds the keys of registers; `allowed` are the protocols that take this input.
    fn new(arguments: &Arguments<'_>, sampling_indicator_size: u64, allowed: &[&str]) -> PyResult<Self> {
        let name = arguments.protocol.as_str();
        let protocol = match name {
            _ if !allowed.contains(&name) => None,
            "llv2" => Some(Protocol::Llv2),
            "rollv2" => Some(Protocol::Rollv2),
            "hmss" => Some(Protocol::Hmss),
            "hmss-native" => Some(Protocol::HmssNative),
            "trustee" => Some(Protocol::Trustee),
            _ => None,
        };
        let Some(protocol) = protocol else {
            let allowed = allowed.join(", ");
            return Err(Error::Parameter(format!("protocol is {name:?}; it must be one of {allowed}")).into());
        };
        let (duchies, possible) = (arguments.duchies, protocol.duchies());
        if !possible.contains(&duchies) {
            let (least, most) = (possible.start(), possible.end());
            return Err(Error::Parameter(format!("duchies is {duchies}; {name} takes {least} to {most}")).into());
        }
        if arguments.thresholds.is_some() && protocol != Protocol::Trustee {
            let advice = format!("thresholds are the trustee's; {name} has none, leave them out");
            return Err(Error::Parameter(advice).into());
        }
        let asked = params::frequency(arguments.max_frequency)?;
        let maximum_frequency = if protocol == Protocol::Rollv2 { MaximumFrequency::REACH_ONLY } else { asked };
        Ok(Self {
            protocol,
            sketch: params::sketch(arguments.sketch, sampling_indicator_size.cast_signed())?,
            maximum_frequency,
            sampling_width: params::interval(0.0, arguments.sampling_width)?.width(),
            noise: Noise::new(arguments.noise.as_ref())?,
            duchies: usize::try_from(duchies).unwrap_or_default(),
            seed: Seed::new(arguments.seed.as_ref())?,
            thresholds: arguments.thresholds.map(|(users, impressions)| Thresholds::new(users, impressions)),
        })
    }

    /// The most that a cell of a publisher's vector holds: the maximum frequency, and for reach with thresholds so many
    /// impressions as the trustee counts for one person.
    fn most_in_cell(&self) -> Result<MaximumFrequency, Error> {
        match self.thresholds {
            Some(thresholds) if !self.maximum_frequency.counts_frequency() => {
                Ok(MaximumFrequency::new(u32::from(thresholds.impressions_per_person))?)
            }
            _ => Ok(self.maximum_frequency),
        }
    }

    fn interval(&self) -> Result<halo_core::privacy::VidSamplingInterval, Error> {
        params::interval(0.0, f64::from(self.sampling_width))
    }
}

/// Bodies in memory, until the caller gives up.
pub(crate) struct Room<'a>(pub(crate) &'a Control);

impl Workspace for Room<'_> {
    fn create(&self, record_bytes: usize) -> io::Result<Box<dyn RecordSink>> {
        MemoryWorkspace.create(record_bytes)
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Stops a publisher's work when the caller has given up.
pub(crate) fn observe(control: &Control) -> impl FnMut(Progress) -> std::ops::ControlFlow<()> + '_ {
    |_| if control.is_cancelled() { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
}

pub(crate) fn body(bytes: Vec<u8>, record_bytes: usize) -> Result<Body, Error> {
    let body = halo_duchy::protocol::MemoryBody::new(bytes, record_bytes);
    Ok(std::sync::Arc::new(body.map_err(halo_duchy::protocol::ProtocolError::Io)?))
}

/// Runs a measurement over publishers' VIDs.
///
/// `publishers` are pairs of a name and what holds the VIDs.
#[pyfunction]
pub(crate) fn simulate<'py>(
    py: Python<'py>,
    publishers: Vec<(String, Bound<'py, PyAny>)>,
    vid: &str,
    population: Option<Bound<'py, PyAny>>,
    arguments: Arguments<'py>,
) -> PyResult<Bound<'py, PyDict>> {
    let job = Job::new(&arguments, SAMPLING_INDICATOR_SIZE, &["llv2", "rollv2", "hmss", "hmss-native", "trustee"])?;
    let population = population.map(|population| Population::of(&population)).transpose()?;
    let mut columns = Vec::with_capacity(publishers.len());
    for (name, data) in &publishers {
        let vids = Vids::new(data, vid).map_err(|error| at_publisher(py, error, name))?;
        columns.push((name.as_str(), vids));
    }
    if columns.is_empty() {
        return Err(Error::Parameter("there are no publishers; give at least one".to_owned()).into());
    }
    let vids: Vec<(&str, Vec<&[u64]>)> = columns.iter().map(|(name, vids)| (*name, vids.slices())).collect();
    let population = population.as_ref().map(Population::map);
    let mut trace = Trace::default();
    let outcome = door::run(py, |control| of_vids(&job, &vids, population, &mut trace, control))?;
    outcome.to_dict(py, &trace.rows())
}

/// Says whose column it is, in an exception of the same class.
fn at_publisher(py: Python<'_>, error: PyErr, name: &str) -> PyErr {
    let message = format!("publisher {name}: {}", error.value(py));
    match error.get_type(py).call1((message,)) {
        Ok(named) => PyErr::from_value(named),
        Err(_) => error,
    }
}

fn of_vids(
    job: &Job,
    publishers: &[(&str, Vec<&[u64]>)],
    population: Option<&VidIndexMap>,
    trace: &mut Trace,
    control: &Control,
) -> Result<Outcome, Error> {
    let exact = clear::people(publishers, job.maximum_frequency);
    let mut outcome = match job.protocol {
        Protocol::Llv2 | Protocol::Rollv2 => {
            let mut sketches = Vec::with_capacity(publishers.len());
            for (name, vids) in publishers {
                let stopwatch = halo_core::clock::Stopwatch::start();
                let mut sketcher = publisher::Sketcher::new(job.sketch, job.interval()?);
                for part in vids.iter().flat_map(|part| part.chunks(1 << 18)) {
                    sketcher.add(part);
                    if control.is_cancelled() {
                        return Err(halo_edp_sdk::Error::Interrupted.into());
                    }
                }
                let sketch = sketcher.finish().sketch;
                trace.push("sketch", name, (0, 0), stopwatch.seconds());
                sketches.push((*name, sketch.registers().collect::<Vec<_>>()));
            }
            let publisher_noise = job.noise.as_ref().map(Noise::of_publisher).transpose()?;
            ring::run(job, &sketches, publisher_noise.as_ref(), trace, control)?
        }
        Protocol::Hmss | Protocol::HmssNative | Protocol::Trustee => {
            let range;
            let population = match population {
                Some(population) => population,
                None => {
                    range = everybody(publishers)?;
                    &range
                }
            };
            let mut vectors = Vec::with_capacity(publishers.len());
            for (name, vids) in publishers {
                let stopwatch = halo_core::clock::Stopwatch::start();
                let mut vector = halo_sketch::frequency_vector::FrequencyVector::new(
                    population,
                    job.interval()?,
                    job.most_in_cell()?,
                )?;
                for part in vids.iter().flat_map(|part| part.chunks(1 << 18)) {
                    vector.add_all(population, part).map_err(|error| named(error.into(), name))?;
                    if control.is_cancelled() {
                        return Err(halo_edp_sdk::Error::Interrupted.into());
                    }
                }
                trace.push("count", name, (0, 0), stopwatch.seconds());
                vectors.push((*name, vector.cells().to_vec()));
            }
            run_vectors(job, &vectors, trace, control)?
        }
    };
    outcome.exact = exact;
    Ok(outcome)
}

fn run_vectors(job: &Job, vectors: &[(&str, Vec<u8>)], trace: &mut Trace, control: &Control) -> Result<Outcome, Error> {
    match job.protocol {
        Protocol::Trustee => trustee::run(job, vectors, trace, control),
        _ => shuffle::run(job, vectors, trace, control),
    }
}

/// The most people whom a population is made of that nobody has stated: numbering them takes 24 bytes for each.
const MOST_PEOPLE: u64 = 10_000_000;

/// The range of VIDs in the data.
fn everybody(publishers: &[(&str, Vec<&[u64]>)]) -> Result<VidIndexMap, Error> {
    let all = || publishers.iter().flat_map(|(_, vids)| vids.iter().copied().flatten().copied());
    let (Some(first), Some(last)) = (all().min(), all().max()) else {
        let advice = "no publisher has any VID, so the population is not known; give population=(first, last)";
        return Err(Error::Data(advice.to_owned()));
    };
    let people = (last - first).saturating_add(1);
    if (MOST_PEOPLE + 1..=1 << 31).contains(&people) {
        return Err(Error::Data(format!(
            "the VIDs in the data range over {people} people, more than {MOST_PEOPLE}; give population=(first, last) \
             when so many are meant, or an array of the VIDs that exist"
        )));
    }
    crate::vector::range(first, last)
}

/// A register as Python gives it.
pub(crate) type Triple = (i64, Option<i64>, i64);

/// Runs a ring protocol over registers that are given one by one.
#[pyfunction]
pub(crate) fn simulate_registers<'py>(
    py: Python<'py>,
    publishers: Vec<Vec<Triple>>,
    arguments: Arguments<'py>,
) -> PyResult<Bound<'py, PyDict>> {
    // Keys are hashed as they are: no protocol has a bound of its own.
    let job = Job::new(&arguments, 1 << 62, &["llv2", "rollv2"])?;
    if publishers.is_empty() {
        return Err(Error::Parameter("there are no publishers; give at least one list".to_owned()).into());
    }
    let mut sketches = Vec::with_capacity(publishers.len());
    for (position, triples) in publishers.iter().enumerate() {
        let registers = triples.iter().map(|triple| register(&job.sketch, triple));
        let registers = registers.collect::<Result<Vec<_>, String>>();
        let registers = registers.map_err(|reason| Error::Data(format!("publisher {position}: {reason}")))?;
        sketches.push((format!("publisher{}", position + 1), registers));
    }
    let sketches: Vec<(&str, Vec<Register>)> =
        sketches.iter().map(|(name, registers)| (name.as_str(), registers.clone())).collect();
    let mut trace = Trace::default();
    let outcome = door::run(py, |control| {
        let mut outcome = ring::run(&job, &sketches, None, &mut trace, control)?;
        outcome.exact = clear::registers(&job, &sketches)?;
        Ok(outcome)
    })?;
    outcome.to_dict(py, &trace.rows())
}

pub(crate) fn register(sketch: &Params, triple: &Triple) -> Result<Register, String> {
    let (index, key, count) = *triple;
    let bad =
        |what: &str, value: i64, advice: &str| format!("{what} {value} of register {triple:?} is not usable; {advice}");
    let below = format!("it must be from 0 to {}", sketch.size() - 1);
    let position = u64::try_from(index).ok().filter(|index| *index < sketch.size());
    let key = match key {
        None => RegisterKey::Destroyed,
        Some(key) => match u64::try_from(key) {
            Ok(key) => RegisterKey::Unique(key),
            Err(_) => return Err(bad("key", key, "it must be 0 or more, or None for a destroyed register")),
        },
    };
    match (position, u64::try_from(count)) {
        (Some(index), Ok(count @ 1..)) => Ok(Register { index, key, count }),
        (None, _) => Err(bad("index", index, &below)),
        _ => Err(bad("count", count, "it must be at least 1")),
    }
}

/// Runs a vector protocol over counts that are given one by one.
#[pyfunction]
pub(crate) fn simulate_vectors<'py>(
    py: Python<'py>,
    publishers: Vec<Vec<i64>>,
    arguments: Arguments<'py>,
) -> PyResult<Bound<'py, PyDict>> {
    let job = Job::new(&arguments, SAMPLING_INDICATOR_SIZE, &["hmss", "hmss-native", "trustee"])?;
    let Some(first) = publishers.first() else {
        return Err(Error::Parameter("there are no publishers; give at least one vector".to_owned()).into());
    };
    let cap = i64::from(job.most_in_cell()?.get());
    let mut vectors = Vec::with_capacity(publishers.len());
    for (position, counts) in publishers.iter().enumerate() {
        if counts.len() != first.len() {
            return Err(Error::Data(format!(
                "publisher {position} has {} cells and publisher 0 has {}; all vectors number the same people",
                counts.len(),
                first.len()
            ))
            .into());
        }
        if let Some(cell) = counts.iter().position(|count| *count < 0) {
            let count = counts[cell];
            return Err(
                Error::Data(format!("publisher {position}: cell {cell} is {count}; counts are 0 or more")).into()
            );
        }
        let cells: Vec<u8> = counts.iter().map(|count| (*count).min(cap) as u8).collect();
        vectors.push((format!("publisher{}", position + 1), cells));
    }
    let vectors: Vec<(&str, Vec<u8>)> = vectors.iter().map(|(name, cells)| (name.as_str(), cells.clone())).collect();
    let mut trace = Trace::default();
    let outcome = door::run(py, |control| {
        let mut outcome = run_vectors(&job, &vectors, &mut trace, control)?;
        outcome.exact = clear::vectors(&job, &vectors);
        Ok(outcome)
    })?;
    outcome.to_dict(py, &trace.rows())
}

impl Exact {
    /// Shares of a histogram.
    pub(crate) fn of(reach: f64, histogram: Vec<u64>) -> Self {
        Self { reach, histogram, active_registers: None }
    }
}
