//! The honest-majority share shuffle.

use halo_crypto::consent::tink::PublicKeyset;
use halo_crypto::secret::Secret;
use halo_crypto::share::Modulus;
use halo_duchy::protocol::hmss::{Duchy, Parameters, Requisition, Roles, Variant};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::keys::{self, HybridKey};
use super::message::{self, Message, Step};
use crate::door;
use crate::error::Error;
use crate::outcome::Outcome;
use crate::params::{self, Noise, Seed};
use crate::shares;
use crate::simulate::{Room, body};
use crate::vector::FrequencyVector;

/// What a publisher sends to one worker of a share shuffle.
///
/// Parameters
/// ----------
/// requisition : str
///     The requisition's id.
/// share : bytes
///     The share that is no seed: a byte a cell.
/// encrypted_seed : bytes
///     The seed of the other share, which only the other worker can open.
#[pyclass(module = "halo_cmm.engine", frozen)]
#[derive(Clone)]
pub(crate) struct Upload {
    requisition: String,
    share: Vec<u8>,
    encrypted_seed: Vec<u8>,
}

impl Upload {
    fn inner(&self) -> Result<Requisition, Error> {
        Ok(Requisition {
            id: self.requisition.clone(),
            share: body(self.share.clone(), 1)?,
            encrypted_seed: self.encrypted_seed.clone(),
        })
    }
}

#[pymethods]
impl Upload {
    #[new]
    const fn new(requisition: String, share: Vec<u8>, encrypted_seed: Vec<u8>) -> Self {
        Self { requisition, share, encrypted_seed }
    }

    /// str : The requisition's id.
    #[getter]
    fn requisition(&self) -> &str {
        &self.requisition
    }

    /// bytes : The share that is no seed.
    #[getter]
    fn share<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.share)
    }

    /// bytes : The seed of the other share, encrypted.
    #[getter]
    fn encrypted_seed<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.encrypted_seed)
    }

    fn __repr__(&self) -> String {
        format!("Upload('{}', {} cells)", self.requisition, self.share.len())
    }
}

/// Cuts a frequency vector into two shares, each of which alone is uniform and says nothing.
///
/// Parameters
/// ----------
/// vector : FrequencyVector
///     The publisher's vector.
/// requisition : str
///     The requisition's id.
/// to : bytes
///     The public key of the worker that does not get the upload: it alone can open the seed.
/// modulus : int, default 127
///     Shares add up to the vector modulo this (2 to 256), the same for all publishers.
/// seed : int or bytes, optional
///     The same seed gives the same bytes.
///
/// Returns
/// -------
/// Upload
///     For one worker.
///
/// Examples
/// --------
/// >>> from halo_cmm import FrequencyVector, engine
/// >>> vector = FrequencyVector.from_vids([4, 4, 9], (1, 20))
/// >>> engine.share(vector, "requisition1", engine.HybridKey().public)
/// Upload('requisition1', 20 cells)
#[pyfunction]
#[pyo3(signature = (vector, requisition, to, *, modulus = 127, seed = None))]
pub(crate) fn share(
    py: Python<'_>,
    vector: &FrequencyVector,
    requisition: String,
    to: &[u8],
    modulus: u32,
    seed: Option<&Bound<'_, PyAny>>,
) -> PyResult<Upload> {
    let to = PublicKeyset::from_bytes(to).map_err(|error| Error::Parameter(format!("to is no public key: {error}")))?;
    let modulus = Modulus::new(modulus).map_err(Error::from)?;
    let seed = Seed::new(seed)?;
    // The rest of the share's bytes follow from the seed: they are copied once, into the upload.
    let vector = &vector.0;
    let (sent, share) = door::run(py, |_| {
        let sent = shares::requisition(requisition, vector.cells(), modulus, &to, &mut seed.rng("share"))?;
        let share = message::read(&sent.share)?;
        Ok((sent, share))
    })?;
    Ok(Upload { requisition: sent.id, share, encrypted_seed: sent.encrypted_seed })
}

/// One Duchy's side of the honest-majority share shuffle.
///
/// Parameters
/// ----------
/// duchy : str
///     This Duchy's id, one of `roles`.
/// roles : tuple of (str, str, str)
///     Ids of the first worker, the second worker and the aggregator.
/// key : HybridKey or None
///     This worker's key for seeds; the aggregator needs none.
/// requisitions : list of str
///     Ids of all publishers' requisitions, each once.
/// cells : int
///     Length of the vectors.
/// max_frequency : int, default 10
///     The highest frequency that is told apart; with 1 only reach is computed.
/// sampling_width : float, default 1.0
///     The share of the population that has a cell.
/// noise : dict, optional
///     As for `simulate`; without it no noise is added.
/// modulus : int or None, default 127
///     Shares add up modulo this; None for the native variant (256, and 251 for reach only).
/// computation : str, default "computation"
///     The computation's name, the same at all Duchies.
/// seed : int or bytes, optional
///     Everything random at this Duchy derives from it.
///
/// Examples
/// --------
/// >>> from halo_cmm import FrequencyVector, engine
/// >>> roles = ("worker1", "worker2", "aggregator")
/// >>> keys = {duchy: engine.HybridKey() for duchy in roles}
/// >>> duchies = {
/// ...     duchy: engine.ShareShuffle(duchy, roles, keys[duchy], requisitions=["r1"], cells=20) for duchy in roles
/// ... }
/// >>> vector = FrequencyVector.from_vids([4, 4, 9], (1, 20))
/// >>> uploads = {"worker1": [engine.share(vector, "r1", keys["worker2"].public)]}
/// >>> steps = {duchy: duchies[duchy].start(uploads.get(duchy, [])) for duchy in roles}
/// >>> for stage in ("shuffle", "aggregation"):
/// ...     sent = [message for step in steps.values() for message in step.outbox]
/// ...     for duchy, step in steps.items():
/// ...         inbox = [message for message in sent if message.to == duchy]
/// ...         if inbox:
/// ...             steps[duchy] = duchies[duchy].advance(step.state, inbox, uploads.get(duchy, []))
/// >>> steps["aggregator"].output["counted"]["reached"]
/// 2
#[pyclass(module = "halo_cmm.engine", frozen)]
pub(crate) struct ShareShuffle {
    engine: Duchy,
    parameters: Parameters,
}

#[pymethods]
impl ShareShuffle {
    #[new]
    #[pyo3(signature = (
        duchy, roles, key = None, *, requisitions, cells, max_frequency = 10, sampling_width = 1.0, noise = None,
        modulus = 127, computation = "computation", seed = None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    fn new(
        duchy: &str,
        roles: (String, String, String),
        key: Option<&HybridKey>,
        requisitions: Vec<String>,
        cells: u64,
        max_frequency: i64,
        sampling_width: f64,
        noise: Option<&Bound<'_, PyDict>>,
        modulus: Option<u32>,
        computation: &str,
        seed: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let parameters = Parameters {
            variant: modulus.map_or(Variant::Native, |modulus| Variant::Compatible { modulus }),
            cells,
            maximum_frequency: params::frequency(max_frequency)?,
            sampling_width: params::interval(0.0, sampling_width)?.width(),
            requisitions,
            noise: Noise::new(noise)?.as_ref().map(Noise::of_shuffle).transpose()?,
        };
        let roles = Roles {
            first_worker: keys::duchy(&roles.0)?,
            second_worker: keys::duchy(&roles.1)?,
            aggregator: keys::duchy(&roles.2)?,
        };
        let open = match key {
            Some(key) => shares::opener(std::sync::Arc::clone(&key.0)),
            None => {
                std::sync::Arc::new(|_: &str, _: &[u8]| Err("this Duchy has no key for seeds; give key=".to_owned()))
            }
        };
        let seed = Secret::new(Seed::new(seed)?.bytes());
        let me = keys::duchy(duchy)?;
        let engine =
            Duchy::new(parameters.clone(), computation.to_owned(), roles, me, seed, open).map_err(Error::from)?;
        Ok(Self { engine, parameters })
    }

    /// Begins with the uploads of this worker's publishers; the aggregator has none.
    #[pyo3(signature = (uploads = None))]
    fn start(&self, py: Python<'_>, uploads: Option<Vec<PyRef<'_, Upload>>>) -> PyResult<Step> {
        let uploads = uploads.iter().flatten().map(|upload| upload.inner()).collect::<Result<Vec<_>, _>>()?;
        let step = door::run(py, |control| {
            uploads.iter().try_for_each(|upload| self.engine.check_requisition(upload))?;
            Ok(self.engine.start(&uploads, &Room(control))?)
        })?;
        Step::new(py, self.engine.id().as_str(), step, |outcome| Outcome::of_shuffle(outcome, &self.parameters))
    }

    /// Goes on with the state of the last step, the messages that it awaits, and the uploads of the start.
    #[pyo3(signature = (state, inbox, uploads = None))]
    fn advance(
        &self,
        py: Python<'_>,
        state: &[u8],
        inbox: Vec<PyRef<'_, Message>>,
        uploads: Option<Vec<PyRef<'_, Upload>>>,
    ) -> PyResult<Step> {
        let uploads = uploads.iter().flatten().map(|upload| upload.inner()).collect::<Result<Vec<_>, _>>()?;
        let state = message::state(state)?;
        let inbox = inbox.iter().map(|message| message.received()).collect::<Result<Vec<_>, _>>()?;
        let step = door::run(py, |control| Ok(self.engine.advance(&state, &uploads, &inbox, &Room(control))?))?;
        Step::new(py, self.engine.id().as_str(), step, |outcome| Outcome::of_shuffle(outcome, &self.parameters))
    }

    fn __repr__(&self) -> String {
        format!("ShareShuffle('{}')", self.engine.id())
    }
}
