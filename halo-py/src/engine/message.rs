//! Messages between Duchies, and what a step gives.

use std::io::Read;

use halo_duchy::protocol::{Body, Description, Message as Sent, Received, Slot, State, Step as Taken};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::error::Error;
use crate::outcome::Outcome;
use crate::simulate::body;

/// All kinds of messages.
fn description(name: &str) -> Result<Description, Error> {
    let mut known = (1..=u8::MAX).map_while(Description::from_number);
    known.find(|description| description.to_string() == name).ok_or_else(|| {
        let names: Vec<String> = (1..=u8::MAX).map_while(Description::from_number).map(|one| one.to_string()).collect();
        Error::Parameter(format!("there is no message {name:?}; messages are {}", names.join(", ")))
    })
}

/// A message from one Duchy to another.
///
/// Parameters
/// ----------
/// sender, to : str
///     Ids of the Duchies.
/// description : str
///     What it carries, such as "setup phase input".
/// body : bytes
///     Its records, one after the other.
/// record_bytes : int
///     Size of a record.
#[pyclass(module = "halo_cmm.engine", frozen, eq, get_all)]
#[derive(Clone, PartialEq)]
pub(crate) struct Message {
    /// str : Who sends it.
    sender: String,
    /// str : Who gets it.
    to: String,
    /// str : What it carries.
    description: String,
    /// int : Size of a record in bytes.
    record_bytes: usize,
    /// bytes : Its records.
    body: PyBytesBody,
}

/// The bytes of a body, which Python sees as `bytes`.
#[derive(Clone, PartialEq)]
pub(crate) struct PyBytesBody(Vec<u8>);

impl<'py> IntoPyObject<'py> for &PyBytesBody {
    type Target = PyBytes;
    type Output = Bound<'py, PyBytes>;
    type Error = std::convert::Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(PyBytes::new(py, &self.0))
    }
}

impl<'py> IntoPyObject<'py> for PyBytesBody {
    type Target = PyBytes;
    type Output = Bound<'py, PyBytes>;
    type Error = std::convert::Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        (&self).into_pyobject(py)
    }
}

impl Message {
    fn of(sender: &str, message: &Sent) -> Result<Self, Error> {
        let bytes = read(&message.body)?;
        Ok(Self {
            sender: sender.to_owned(),
            to: message.to.to_string(),
            description: message.description.to_string(),
            record_bytes: message.body.record_bytes(),
            body: PyBytesBody(bytes),
        })
    }

    pub(super) fn received(&self) -> Result<Received, Error> {
        let slot = Slot { from: super::keys::duchy(&self.sender)?, description: description(&self.description)? };
        let body = body(self.body.0.clone(), self.record_bytes)
            .map_err(|error| Error::Data(format!("{slot}: {}", PyErr::from(error))))?;
        Ok(Received { slot, body })
    }
}

pub(super) fn read(body: &Body) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let io = halo_duchy::protocol::ProtocolError::Io;
    body.open().map_err(io)?.read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

#[pymethods]
impl Message {
    #[new]
    fn new(sender: String, to: String, description: String, body: Vec<u8>, record_bytes: usize) -> PyResult<Self> {
        self::description(&description)?;
        Ok(Self { sender, to, description, record_bytes, body: PyBytesBody(body) })
    }

    /// int : Number of records.
    #[getter]
    fn records(&self) -> usize {
        self.body.0.len() / self.record_bytes.max(1)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, MessageParts<'py>)> {
        let message = slf.get();
        let body = PyBytes::new(slf.py(), &message.body.0);
        let Self { sender, to, description, record_bytes, .. } = message.clone();
        Ok((slf.get_type().into_any(), (sender, to, description, body, record_bytes)))
    }

    fn __repr__(&self) -> String {
        let Self { sender, to, description, record_bytes, .. } = self;
        format!("Message({description}: {sender} → {to}, {} records of {record_bytes} bytes)", self.records())
    }
}

/// Arguments of `Message`.
type MessageParts<'py> = (String, String, String, Bound<'py, PyBytes>, usize);

/// What a Duchy does after a step: send the outbox, then wait, or be done.
#[pyclass(module = "halo_cmm.engine", frozen)]
pub(crate) struct Step {
    state: Option<Vec<u8>>,
    outbox: Vec<Message>,
    awaiting: Vec<(String, String)>,
    output: Option<Py<PyDict>>,
}

impl Step {
    pub(super) fn new<O>(
        py: Python<'_>,
        duchy: &str,
        taken: Taken<O>,
        outcome: impl FnOnce(&O) -> Result<Outcome, Error>,
    ) -> PyResult<Self> {
        let messages = |outbox: &[Sent]| outbox.iter().map(|sent| Message::of(duchy, sent)).collect::<Result<_, _>>();
        match taken {
            Taken::Wait { state, outbox, awaiting } => Ok(Self {
                state: Some(state.to_bytes()),
                outbox: messages(&outbox)?,
                awaiting: awaiting.iter().map(|slot| (slot.from.to_string(), slot.description.to_string())).collect(),
                output: None,
            }),
            Taken::Done { output, outbox } => {
                let output =
                    output.map(|output| PyResult::Ok(outcome(&output)?.estimates_dict(py)?.unbind())).transpose()?;
                Ok(Self { state: None, outbox: messages(&outbox)?, awaiting: Vec::new(), output })
            }
        }
    }
}

pub(super) fn state(bytes: &[u8]) -> Result<State, Error> {
    Ok(State::from_bytes(bytes)?)
}

#[pymethods]
impl Step {
    /// bytes or None : What to keep and give back to `advance`; None when this Duchy's part is over. Holds no key.
    #[getter]
    fn state<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.state.as_ref().map(|state| PyBytes::new(py, state))
    }

    /// list of Message : What to deliver.
    #[getter]
    fn outbox(&self) -> Vec<Message> {
        self.outbox.clone()
    }

    /// list of tuple of (str, str) : Whose messages to wait for, and what they carry: all of them, and nothing else.
    #[getter]
    fn awaiting(&self) -> Vec<(String, String)> {
        self.awaiting.clone()
    }

    /// bool : Whether this Duchy's part is over.
    #[getter]
    const fn done(&self) -> bool {
        self.state.is_none()
    }

    /// dict or None : The result, at the Duchy that learns it: `reach`, `reach_standard_error`, `frequency`,
    /// `frequency_standard_errors`, and under `counted` the numbers that they are estimated from.
    #[getter]
    fn output<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyDict>> {
        self.output.as_ref().map(|output| output.bind(py).clone())
    }

    fn __repr__(&self) -> String {
        let what = if self.done() { "done" } else { "wait" };
        format!("Step({what}, {} messages to deliver, {} to wait for)", self.outbox.len(), self.awaiting.len())
    }
}
