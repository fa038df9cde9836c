//! The protocols over encrypted sketches.

use halo_crypto::secret::Secret;
use halo_duchy::protocol::local::Engine;
use halo_duchy::protocol::{Body, llv2, rollv2};
use halo_edp_sdk::encrypt::{INDEX_BYTES, REGISTER_BYTES};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::keys::{self, KeyShare, Participant};
use super::message::{self, Message, Step};
use crate::door;
use crate::error::Error;
use crate::params::{self, Noise, SAMPLING_INDICATOR_SIZE, Seed, Sketch};
use crate::simulate::{Room, body};

/// What both protocols agree on.
fn parameters(
    publishers: u32,
    sketch: Sketch,
    max_frequency: i64,
    sampling_width: f64,
    noise: Option<&Bound<'_, PyDict>>,
) -> PyResult<llv2::Parameters> {
    Ok(llv2::Parameters {
        sketch: params::sketch(sketch, SAMPLING_INDICATOR_SIZE as i64)?,
        maximum_frequency: params::frequency(max_frequency)?,
        sampling_width: params::interval(0.0, sampling_width)?.width(),
        noise: Noise::new(noise)?.as_ref().map(Noise::of_ring).transpose()?,
        publishers,
    })
}

fn bodies(uploads: Option<Vec<Vec<u8>>>, record_bytes: usize) -> Result<Vec<Body>, Error> {
    let one = |(position, bytes): (usize, Vec<u8>)| {
        let length = bytes.len();
        body(bytes, record_bytes).map_err(|_| {
            Error::Data(format!(
                "upload {position} has {length} bytes, not a whole number of records of {record_bytes}"
            ))
        })
    };
    uploads.unwrap_or_default().into_iter().enumerate().map(one).collect()
}

fn start<E>(py: Python<'_>, engine: &E, parameters: &llv2::Parameters, uploads: &[Body]) -> PyResult<Step>
where
    E: Engine<Requisition = Body, Outcome = llv2::Outcome> + Sync,
{
    let step = door::run(py, |control| {
        uploads.iter().try_for_each(|upload| engine.check_requisition(upload))?;
        Ok(engine.start(uploads, &Room(control))?)
    })?;
    Step::new(py, engine.id().as_str(), step, |outcome| crate::outcome::Outcome::of_ring(outcome, parameters))
}

fn advance<E>(
    py: Python<'_>,
    engine: &E,
    parameters: &llv2::Parameters,
    state: &[u8],
    inbox: &[PyRef<'_, Message>],
    uploads: &[Body],
) -> PyResult<Step>
where
    E: Engine<Requisition = Body, Outcome = llv2::Outcome> + Sync,
{
    let state = message::state(state)?;
    let inbox = inbox.iter().map(|message| message.received()).collect::<Result<Vec<_>, _>>()?;
    let step = door::run(py, |control| Ok(engine.advance(&state, uploads, &inbox, &Room(control))?))?;
    Step::new(py, engine.id().as_str(), step, |outcome| crate::outcome::Outcome::of_ring(outcome, parameters))
}

/// One Duchy's side of Liquid Legions v2.
///
/// Parameters
/// ----------
/// duchy : str
///     This Duchy's id.
/// ring : list of Participant
///     All Duchies in order, the aggregator last.
/// key : KeyShare
///     This Duchy's secret share.
/// publishers : int
///     How many publishers there are at all Duchies together.
/// sketch : tuple of (float, int), default (12.0, 100_000)
///     Decay rate and number of registers of their sketches.
/// max_frequency : int, default 10
///     The highest frequency that is told apart; with 1 only reach is computed.
/// sampling_width : float, default 1.0
///     The share of people that the sketches have sampled.
/// noise : dict, optional
///     As for `simulate`; without it no noise is added.
/// computation : str, default "computation"
///     The computation's name, the same at all Duchies.
/// seed : int or bytes, optional
///     Everything random at this Duchy derives from it; without it the operating system's generator gives one.
///
/// Examples
/// --------
/// Two Duchies and one publisher, every message carried by hand:
///
/// >>> from halo_cmm import LiquidLegions, engine
/// >>> shares = {duchy: engine.KeyShare() for duchy in ("worker1", "aggregator")}
/// >>> ring = [share.participant(duchy) for duchy, share in shares.items()]
/// >>> worker, aggregator = (
/// ...     engine.LiquidLegionsV2(duchy, ring, share, publishers=1) for duchy, share in shares.items()
/// ... )
/// >>> upload = engine.encrypt(LiquidLegions.from_vids([1, 2, 2]), ring)
/// >>> at_worker, at_aggregator = worker.start([upload]), aggregator.start([])
/// >>> at_worker.outbox
/// [Message(setup phase input: worker1 → aggregator, 2 records of 192 bytes)]
/// >>> while not at_aggregator.done:
/// ...     at_aggregator = aggregator.advance(at_aggregator.state, at_worker.outbox)
/// ...     if not at_worker.done:
/// ...         at_worker = worker.advance(at_worker.state, at_aggregator.outbox)
/// >>> at_aggregator.output["frequency"][2]
/// 0.5
#[pyclass(module = "halo_cmm.engine", frozen)]
pub(crate) struct LiquidLegionsV2 {
    engine: llv2::Duchy,
    parameters: llv2::Parameters,
}

#[pymethods]
impl LiquidLegionsV2 {
    #[new]
    #[pyo3(signature = (
        duchy, ring, key, *, publishers, sketch = (12.0, 100_000), max_frequency = 10, sampling_width = 1.0, noise = None,
        computation = "computation", seed = None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    fn new(
        duchy: &str,
        ring: Vec<PyRef<'_, Participant>>,
        key: &KeyShare,
        publishers: u32,
        sketch: Sketch,
        max_frequency: i64,
        sampling_width: f64,
        noise: Option<&Bound<'_, PyDict>>,
        computation: &str,
        seed: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let parameters = parameters(publishers, sketch, max_frequency, sampling_width, noise)?;
        let seed = Secret::new(Seed::new(seed)?.bytes());
        let (ring, me) = (keys::ring(&ring), keys::duchy(duchy)?);
        let engine = llv2::Duchy::new(parameters.clone(), computation.to_owned(), ring, me, key.secret.clone(), seed)
            .map_err(Error::from)?;
        Ok(Self { engine, parameters })
    }

    /// Begins with the uploads of this Duchy's publishers.
    #[pyo3(signature = (uploads = None))]
    fn start(&self, py: Python<'_>, uploads: Option<Vec<Vec<u8>>>) -> PyResult<Step> {
        start(py, &self.engine, &self.parameters, &bodies(uploads, REGISTER_BYTES)?)
    }

    /// Goes on with the state of the last step and the messages that it awaits. The aggregator reads its uploads, the
    /// same as at the start, in its first step.
    #[pyo3(signature = (state, inbox, uploads = None))]
    fn advance(
        &self,
        py: Python<'_>,
        state: &[u8],
        inbox: Vec<PyRef<'_, Message>>,
        uploads: Option<Vec<Vec<u8>>>,
    ) -> PyResult<Step> {
        advance(py, &self.engine, &self.parameters, state, &inbox, &bodies(uploads, REGISTER_BYTES)?)
    }

    fn __repr__(&self) -> String {
        format!("LiquidLegionsV2('{}')", self.engine.id())
    }
}

/// One Duchy's side of reach-only Liquid Legions v2.
///
/// The parameters are those of `LiquidLegionsV2`, without frequencies. Uploads come from `encrypt_reach_only`.
#[pyclass(module = "halo_cmm.engine", frozen)]
pub(crate) struct ReachOnlyLiquidLegionsV2 {
    engine: rollv2::Duchy,
    parameters: llv2::Parameters,
}

#[pymethods]
impl ReachOnlyLiquidLegionsV2 {
    #[new]
    #[pyo3(signature = (
        duchy, ring, key, *, publishers, sketch = (12.0, 100_000), sampling_width = 1.0, noise = None,
        computation = "computation", seed = None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    fn new(
        duchy: &str,
        ring: Vec<PyRef<'_, Participant>>,
        key: &KeyShare,
        publishers: u32,
        sketch: Sketch,
        sampling_width: f64,
        noise: Option<&Bound<'_, PyDict>>,
        computation: &str,
        seed: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let parameters = parameters(publishers, sketch, 1, sampling_width, noise)?;
        let seed = Secret::new(Seed::new(seed)?.bytes());
        let (ring, me) = (keys::ring(&ring), keys::duchy(duchy)?);
        let engine = rollv2::Duchy::new(parameters.clone(), computation.to_owned(), ring, me, key.secret.clone(), seed)
            .map_err(Error::from)?;
        Ok(Self { engine, parameters })
    }

    /// Begins with the uploads of this Duchy's publishers.
    #[pyo3(signature = (uploads = None))]
    fn start(&self, py: Python<'_>, uploads: Option<Vec<Vec<u8>>>) -> PyResult<Step> {
        start(py, &self.engine, &self.parameters, &bodies(uploads, INDEX_BYTES)?)
    }

    /// Goes on, as `LiquidLegionsV2.advance` does.
    #[pyo3(signature = (state, inbox, uploads = None))]
    fn advance(
        &self,
        py: Python<'_>,
        state: &[u8],
        inbox: Vec<PyRef<'_, Message>>,
        uploads: Option<Vec<Vec<u8>>>,
    ) -> PyResult<Step> {
        advance(py, &self.engine, &self.parameters, state, &inbox, &bodies(uploads, INDEX_BYTES)?)
    }

    fn __repr__(&self) -> String {
        format!("ReachOnlyLiquidLegionsV2('{}')", self.engine.id())
    }
}
