//! Keys, and what publishers encrypt with them.

use std::sync::Arc;

use halo_crypto::consent::tink::PrivateKeyset;
use halo_crypto::elgamal::{CompositeKey, KeyShare as Public, KeyShareSecret};
use halo_crypto::proof::{PossessionContext, VerifiedShare};
use halo_duchy::protocol::{DuchyId, llv2};
use halo_edp_sdk::encrypt::{self as publisher, Encryption, Layout};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::door;
use crate::error::Error;
use crate::noise::Noise;
use crate::params::{self, Seed};
use crate::simulate::observe;
use crate::sketch::LiquidLegions;

/// What a proof of possession is bound to, where a real computation has a session and a certificate.
fn context(duchy: &str) -> PossessionContext<'_> {
    PossessionContext { session: [0; 32], duchy, certificate_sha256: [0; 32] }
}

pub(super) fn duchy(id: &str) -> Result<DuchyId, Error> {
    Ok(DuchyId::new(id)?)
}

/// A Duchy's secret share of the key that publishers encrypt under.
///
/// Parameters
/// ----------
/// seed : int or bytes, optional
///     The same seed gives the same share; without it the share comes from the operating system's generator.
///
/// Examples
/// --------
/// >>> from halo_cmm import engine
/// >>> share = engine.KeyShare(seed=1)
/// >>> share.participant("worker1")
/// Participant('worker1')
#[pyclass(module = "halo_cmm.engine", frozen)]
pub(crate) struct KeyShare {
    pub(super) secret: KeyShareSecret,
    seed: Seed,
}

#[pymethods]
impl KeyShare {
    #[new]
    #[pyo3(signature = (*, seed = None))]
    fn new(seed: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let seed = Seed::new(seed)?;
        Ok(Self { secret: KeyShareSecret::generate(&mut seed.rng("key share")), seed })
    }

    /// What the other parties get of this share, under the Duchy's id: the public part and the proof that its secret is
    /// known.
    fn participant(&self, duchy: &str) -> PyResult<Participant> {
        let proof = self.secret.prove_possession(&context(duchy), &mut self.seed.rng("possession"));
        Participant::of(duchy, *self.secret.public().as_bytes(), proof.to_vec())
    }

    fn __repr__(&self) -> &'static str {
        "KeyShare(…)"
    }
}

/// A Duchy as the other parties know it: its id and its public key share, whose possession has been proven.
///
/// Parameters
/// ----------
/// duchy : str
///     Its id.
/// key, proof : bytes
///     The public share and the proof of possession.
///
/// Raises
/// ------
/// ProtocolError
///     The proof does not hold.
#[pyclass(module = "halo_cmm.engine", frozen)]
pub(crate) struct Participant {
    pub(super) inner: llv2::Participant,
    proof: Vec<u8>,
}

impl Participant {
    fn of(duchy: &str, key: [u8; 32], proof: Vec<u8>) -> PyResult<Self> {
        let id = self::duchy(duchy)?;
        let key = Public::from_bytes(key).verify_possession(&context(duchy), &proof).map_err(Error::from)?;
        Ok(Self { inner: llv2::Participant { id, key }, proof })
    }
}

#[pymethods]
impl Participant {
    #[new]
    fn new(duchy: &str, key: [u8; 32], proof: Vec<u8>) -> PyResult<Self> {
        Self::of(duchy, key, proof)
    }

    /// str : Its id.
    #[getter]
    fn duchy(&self) -> &str {
        self.inner.id.as_str()
    }

    /// bytes : Its public key share.
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.key.share().as_bytes())
    }

    /// bytes : The proof that it knows the secret.
    #[getter]
    fn proof<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.proof)
    }

    fn __repr__(&self) -> String {
        format!("Participant('{}')", self.inner.id)
    }
}

/// The ring in order, and the key that its shares make up.
pub(super) fn ring(participants: &[PyRef<'_, Participant>]) -> Vec<llv2::Participant> {
    participants.iter().map(|participant| participant.inner.clone()).collect()
}

fn composite(ring: &[PyRef<'_, Participant>]) -> Result<CompositeKey, Error> {
    let shares: Vec<VerifiedShare> = ring.iter().map(|participant| participant.inner.key).collect();
    CompositeKey::combine(&shares).map_err(|error| Error::Parameter(format!("the ring has no common key: {error}")))
}

/// Encrypts a sketch for a ring of Duchies: three ciphertexts a register, in random order.
///
/// Parameters
/// ----------
/// sketch : LiquidLegions
///     The publisher's sketch.
/// ring : list of Participant
///     All Duchies; whoever leaves one out makes ciphertexts that nobody can open.
/// max_frequency : int, default 10
///     Counts above are all encrypted alike.
/// noise : Noise, optional
///     How many noise registers hide the size of the sketch; without it the size shows.
/// seed : int or bytes, optional
///     The same seed gives the same bytes.
///
/// Returns
/// -------
/// bytes
///
/// Examples
/// --------
/// >>> from halo_cmm import LiquidLegions, engine
/// >>> ring = [engine.KeyShare().participant(duchy) for duchy in ("worker1", "aggregator")]
/// >>> len(engine.encrypt(LiquidLegions.from_vids([1, 2, 1]), ring)) == 2 * 3 * 64
/// True
#[pyfunction]
#[pyo3(signature = (sketch, ring, *, max_frequency = 10, noise = None, seed = None))]
pub(crate) fn encrypt<'py>(
    py: Python<'py>,
    sketch: &LiquidLegions,
    ring: Vec<PyRef<'py, Participant>>,
    max_frequency: i64,
    noise: Option<&Noise>,
    seed: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let layout = Layout::Full { maximum_frequency: params::frequency(max_frequency)? };
    encrypt_as(py, layout, sketch, &ring, noise, seed)
}

/// Encrypts a sketch, its records as the protocol has them.
fn encrypt_as<'py>(
    py: Python<'py>,
    layout: Layout,
    sketch: &LiquidLegions,
    ring: &[PyRef<'py, Participant>],
    noise: Option<&Noise>,
    seed: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let key = composite(ring)?;
    let (seed, noise, sketch) = (Seed::new(seed)?, noise.map(Noise::inner), &sketch.0);
    let bytes = door::run(py, |control| {
        let mut bytes = Vec::new();
        let encryption = Encryption { key: &key, layout, noise: noise.as_ref() };
        publisher::encrypt(sketch, &encryption, &mut bytes, &mut observe(control), &mut seed.rng("encrypt"))?;
        Ok(bytes)
    })?;
    Ok(PyBytes::new(py, &bytes))
}

/// Encrypts the indexes of a sketch for a ring of Duchies that compute reach only: one ciphertext a register.
///
/// The parameters are those of `encrypt`.
///
/// Examples
/// --------
/// >>> from halo_cmm import LiquidLegions, engine
/// >>> ring = [engine.KeyShare().participant(duchy) for duchy in ("worker1", "aggregator")]
/// >>> len(engine.encrypt_reach_only(LiquidLegions.from_vids([1, 2, 1]), ring)) == 2 * 64
/// True
#[pyfunction]
#[pyo3(signature = (sketch, ring, *, noise = None, seed = None))]
pub(crate) fn encrypt_reach_only<'py>(
    py: Python<'py>,
    sketch: &LiquidLegions,
    ring: Vec<PyRef<'py, Participant>>,
    noise: Option<&Noise>,
    seed: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    encrypt_as(py, Layout::IndexOnly, sketch, &ring, noise, seed)
}

/// A worker's key pair of hybrid encryption: publishers encrypt the seeds of shares to it.
///
/// Parameters
/// ----------
/// seed : int or bytes, optional
///     The same seed gives the same pair.
///
/// Examples
/// --------
/// >>> from halo_cmm import engine
/// >>> engine.HybridKey(seed=1).public == engine.HybridKey(seed=1).public
/// True
#[pyclass(module = "halo_cmm.engine", frozen)]
pub(crate) struct HybridKey(pub(super) Arc<PrivateKeyset>);

#[pymethods]
impl HybridKey {
    #[new]
    #[pyo3(signature = (*, seed = None))]
    fn new(seed: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let mut rng = Seed::new(seed)?.rng("hybrid key");
        Ok(Self(Arc::new(PrivateKeyset::generate_hpke(&mut rng))))
    }

    /// bytes : The public keyset, in Tink's form.
    #[getter]
    fn public<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.public().to_bytes())
    }

    fn __repr__(&self) -> &'static str {
        "HybridKey(…)"
    }
}
