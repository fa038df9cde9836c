//! The trustee.

use std::sync::Arc;

use halo_crypto::attestation::SimulatedAttestation;
use halo_crypto::envelope::TinkAead;
use halo_crypto::seal::KeyEncryptionKey;
use halo_crypto::secret::Secret;
use halo_duchy::protocol::trustee::{Duchy, MAXIMUM_CELL, Parameters, Requisition, Thresholds, Trust, Variant};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::keys;
use super::message::{self, Message, Step};
use crate::door;
use crate::envelopes::{self, KeyServices};
use crate::error::Error;
use crate::outcome::Outcome;
use crate::params::{self, Noise, Seed};
use crate::simulate::{Room, body};
use crate::vector::FrequencyVector;

/// A publisher's key, under which it encrypts the keys of its vectors, with the service that decides which process may
/// have them opened.
///
/// Parameters
/// ----------
/// name : str
///     What the key is called, for example its URI; each publisher's is another.
/// allow_simulated_attestation : bool, default False
///     Whether a process may open vectors whose attestation proves nothing. Never where the data are real and the
///     trustee is somebody else's.
/// seed : int or bytes, optional
///     The same seed gives the same key; without it the key comes from the operating system's generator.
///
/// Examples
/// --------
/// >>> from halo_cmm import engine
/// >>> engine.EnvelopeKey("publisher1")
/// EnvelopeKey('publisher1')
#[pyclass(module = "halo_cmm.engine", frozen)]
pub(crate) struct EnvelopeKey {
    key: Arc<TinkAead>,
    allow_simulated: bool,
}

#[pymethods]
impl EnvelopeKey {
    #[new]
    #[pyo3(signature = (name, *, allow_simulated_attestation = false, seed = None))]
    fn new(name: String, allow_simulated_attestation: bool, seed: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let key = Arc::new(TinkAead::generate(name, &mut Seed::new(seed)?.rng("envelope key")));
        Ok(Self { key, allow_simulated: allow_simulated_attestation })
    }

    /// str : What it is called.
    #[getter]
    fn name(&self) -> &str {
        self.key.id()
    }

    fn __repr__(&self) -> String {
        format!("EnvelopeKey('{}')", self.key.id())
    }
}

/// What a publisher sends to a trustee.
///
/// Parameters
/// ----------
/// requisition : str
///     The requisition's id.
/// ciphertext : bytes
///     The encrypted vector.
/// wrapped_key : bytes
///     The vector's key, encrypted under the publisher's.
/// key : str
///     What the publisher's key is called.
#[pyclass(module = "halo_cmm.engine", frozen)]
#[derive(Clone)]
pub(crate) struct SealedVector {
    requisition: String,
    ciphertext: Vec<u8>,
    wrapped_key: Vec<u8>,
    key: String,
}

impl SealedVector {
    fn inner(&self) -> Result<Requisition, Error> {
        Ok(Requisition {
            id: self.requisition.clone(),
            vector: body(self.ciphertext.clone(), 1)?,
            wrapped_key: self.wrapped_key.clone(),
            kek: self.key.clone(),
        })
    }
}

#[pymethods]
impl SealedVector {
    #[new]
    const fn new(requisition: String, ciphertext: Vec<u8>, wrapped_key: Vec<u8>, key: String) -> Self {
        Self { requisition, ciphertext, wrapped_key, key }
    }

    /// str : The requisition's id.
    #[getter]
    fn requisition(&self) -> &str {
        &self.requisition
    }

    /// bytes : The encrypted vector.
    #[getter]
    fn ciphertext<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.ciphertext)
    }

    /// bytes : The vector's key, encrypted under the publisher's.
    #[getter]
    fn wrapped_key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.wrapped_key)
    }

    /// str : What the publisher's key is called.
    #[getter]
    fn key(&self) -> &str {
        &self.key
    }

    fn __repr__(&self) -> String {
        format!("SealedVector('{}', {} bytes)", self.requisition, self.ciphertext.len())
    }
}

/// Encrypts a frequency vector for a trustee: under a key of its own, which is encrypted under the publisher's.
///
/// Parameters
/// ----------
/// vector : FrequencyVector
///     The publisher's vector.
/// requisition : str
///     The requisition's id; the ciphertext opens under no other.
/// key : EnvelopeKey
///     The publisher's key.
/// seed : int or bytes, optional
///     The same seed gives the same bytes.
///
/// Returns
/// -------
/// SealedVector
///     For the trustee.
///
/// Raises
/// ------
/// DataError
///     A cell is above 127, the most that a trustee reads.
///
/// Examples
/// --------
/// >>> from halo_cmm import FrequencyVector, engine
/// >>> vector = FrequencyVector.from_vids([4, 4, 9], (1, 20))
/// >>> engine.seal(vector, "requisition1", engine.EnvelopeKey("publisher1")).key
/// 'publisher1'
#[pyfunction]
#[pyo3(signature = (vector, requisition, key, *, seed = None))]
pub(crate) fn seal(
    py: Python<'_>,
    vector: &FrequencyVector,
    requisition: String,
    key: &EnvelopeKey,
    seed: Option<&Bound<'_, PyAny>>,
) -> PyResult<SealedVector> {
    let cells = vector.0.cells();
    if let Some(cell) = cells.iter().find(|cell| **cell > MAXIMUM_CELL) {
        let advice = format!("a cell is {cell}, above the {MAXIMUM_CELL} that a trustee reads; lower max_frequency");
        return Err(Error::Data(advice).into());
    }
    let seed = Seed::new(seed)?;
    door::run(py, |control| {
        let sent = envelopes::requisition(requisition, cells, &key.key, control, &mut seed.rng("seal"))?;
        let ciphertext = message::read(&sent.vector)?;
        Ok(SealedVector { requisition: sent.id, ciphertext, wrapped_key: sent.wrapped_key, key: sent.kek })
    })
}

/// The trustee's side of its protocol; there is no other Duchy.
///
/// The only attestation here is a simulated one: it is that of no hardware enclave, and proves nothing. Whoever runs the
/// process can see all vectors. So it has to be allowed, here and by each publisher's `EnvelopeKey`.
///
/// Parameters
/// ----------
/// duchy : str
///     The trustee's id.
/// keys : list of EnvelopeKey
///     The publishers' key services.
/// requisitions : list of str
///     Ids of all publishers' requisitions, each once.
/// cells : int
///     Length of the vectors.
/// max_frequency : int, default 10
///     The highest frequency that is told apart (at most 127); with 1 only reach is computed.
/// sampling_width : float, default 1.0
///     The share of the population that has a cell.
/// noise : dict, optional
///     As for `simulate` with the trustee; without it no noise is added.
/// thresholds : tuple of (int, int), optional
///     Results of fewer people, or of fewer impressions, are released as 0.
/// noise_key : bytes, optional
///     The trustee's secret of 32 bytes, the same in all its computations: sticky noise needs it.
/// allow_simulated_attestation : bool, default False
///     Whether to go on without an enclave. Never where the data are real and the trustee is somebody else's.
/// computation : str, default "computation"
///     The computation's name.
/// seed : int or bytes, optional
///     Everything random at the trustee derives from it.
///
/// Raises
/// ------
/// AttestationError
///     Simulated attestation is not allowed; in `start` and `advance`, when a publisher does not allow it.
/// ParameterError
///     A number does not fit.
///
/// Examples
/// --------
/// >>> from halo_cmm import FrequencyVector, engine
/// >>> keys = [engine.EnvelopeKey(name, allow_simulated_attestation=True) for name in ("publisher1", "publisher2")]
/// >>> trustee = engine.Trustee(
/// ...     "trustee", keys, requisitions=["r1", "r2"], cells=20, max_frequency=3, allow_simulated_attestation=True
/// ... )
/// >>> one = engine.seal(FrequencyVector.from_vids([4, 4, 9], (1, 20)), "r1", keys[0])
/// >>> step = trustee.start([one])
/// >>> step
/// Step(wait, 0 messages to deliver, 0 to wait for)
/// >>> other = engine.seal(FrequencyVector.from_vids([4, 7], (1, 20)), "r2", keys[1])
/// >>> trustee.advance(step.state, [], [one, other]).output["counted"]["histogram"]
/// {1: 2, 2: 0, 3: 1}
#[pyclass(module = "halo_cmm.engine", frozen)]
pub(crate) struct Trustee {
    engine: Duchy,
    parameters: Parameters,
}

#[pymethods]
impl Trustee {
    #[new]
    #[pyo3(signature = (
        duchy, keys, *, requisitions, cells, max_frequency = 10, sampling_width = 1.0, noise = None, thresholds = None,
        noise_key = None, allow_simulated_attestation = false, computation = "computation", seed = None,
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments in Python")]
    fn new(
        duchy: &str,
        keys: Vec<PyRef<'_, EnvelopeKey>>,
        requisitions: Vec<String>,
        cells: u64,
        max_frequency: i64,
        sampling_width: f64,
        noise: Option<&Bound<'_, PyDict>>,
        thresholds: Option<(u64, u64)>,
        noise_key: Option<&[u8]>,
        allow_simulated_attestation: bool,
        computation: &str,
        seed: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let parameters = Parameters {
            variant: Variant::Native,
            cells,
            maximum_frequency: params::frequency(max_frequency)?,
            sampling_width: params::interval(0.0, sampling_width)?.width(),
            requisitions,
            thresholds: thresholds.map(|(users, impressions)| Thresholds::new(users, impressions)),
            noise: Noise::of_trustee(Noise::new(noise)?.as_ref())?,
        };
        let mut services = KeyServices::default();
        keys.iter().try_for_each(|key| services.add(Arc::clone(&key.key), key.allow_simulated))?;
        let trust = Trust {
            attestation: Arc::new(SimulatedAttestation),
            keys: Arc::new(services),
            allow_simulated: allow_simulated_attestation,
            noise_key: noise_key.map(|key| params::bytes32("noise_key", key)).transpose()?.map(Secret::new),
        };
        let me = keys::duchy(duchy)?;
        let seed = Secret::new(Seed::new(seed)?.bytes());
        let engine = Duchy::new(parameters.clone(), computation.to_owned(), me, seed, trust).map_err(Error::from)?;
        Ok(Self { engine, parameters })
    }

    /// Begins with the uploads that are there: all of them give the result, fewer a state.
    #[pyo3(signature = (uploads = None))]
    fn start(&self, py: Python<'_>, uploads: Option<Vec<PyRef<'_, SealedVector>>>) -> PyResult<Step> {
        let uploads = uploads.iter().flatten().map(|upload| upload.inner()).collect::<Result<Vec<_>, _>>()?;
        let step = door::run(py, |control| {
            uploads.iter().try_for_each(|upload| self.engine.check_requisition(upload))?;
            Ok(self.engine.start(&uploads, &Room(control))?)
        })?;
        Step::new(py, self.engine.id().as_str(), step, |outcome| Outcome::of_trustee(outcome, &self.parameters))
    }

    /// Goes on with the state of the start, an empty inbox, and all uploads: those of the start first, in their order.
    #[pyo3(signature = (state, inbox, uploads = None))]
    fn advance(
        &self,
        py: Python<'_>,
        state: &[u8],
        inbox: Vec<PyRef<'_, Message>>,
        uploads: Option<Vec<PyRef<'_, SealedVector>>>,
    ) -> PyResult<Step> {
        let uploads = uploads.iter().flatten().map(|upload| upload.inner()).collect::<Result<Vec<_>, _>>()?;
        let state = message::state(state)?;
        let inbox = inbox.iter().map(|message| message.received()).collect::<Result<Vec<_>, _>>()?;
        let step = door::run(py, |control| {
            uploads.iter().try_for_each(|upload| self.engine.check_requisition(upload))?;
            Ok(self.engine.advance(&state, &uploads, &inbox, &Room(control))?)
        })?;
        Step::new(py, self.engine.id().as_str(), step, |outcome| Outcome::of_trustee(outcome, &self.parameters))
    }

    fn __repr__(&self) -> String {
        format!("Trustee('{}')", self.engine.id())
    }
}
