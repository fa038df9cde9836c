//! Rust errors as the exceptions of `halo_cmm.errors`: the one place where they meet.

use halo_duchy::protocol::ProtocolError as EngineError;
use halo_edp_sdk::BodyError;
use pyo3::PyErr;
use pyo3::exceptions::PyKeyboardInterrupt;

/// The Python classes.
pub(crate) mod class {
    use pyo3::import_exception;

    import_exception!(halo_cmm.errors, AttestationError);
    import_exception!(halo_cmm.errors, ColumnTypeError);
    import_exception!(halo_cmm.errors, DataError);
    import_exception!(halo_cmm.errors, FormatError);
    import_exception!(halo_cmm.errors, IncompatibleError);
    import_exception!(halo_cmm.errors, MissingColumnError);
    import_exception!(halo_cmm.errors, NoiseError);
    import_exception!(halo_cmm.errors, ParameterError);
    import_exception!(halo_cmm.errors, ProtocolError);
    import_exception!(halo_cmm.errors, SaturatedError);
}

/// What the crates below can say.
#[derive(Debug)]
pub(crate) enum Error {
    Core(halo_core::Error),
    Crypto(halo_crypto::Error),
    Envelope(halo_crypto::envelope::Error),
    Sketch(halo_sketch::Error),
    Publisher(halo_edp_sdk::Error),
    Share(halo_crypto::share::ShareError),
    Engine(EngineError),
    /// A parameter is outside of its range.
    Parameter(String),
    /// The data cannot be counted.
    Data(String),
}

macro_rules! from {
    ($($source:ty => $variant:ident),* $(,)?) => {
        $(impl From<$source> for Error {
            fn from(error: $source) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from! {
    halo_core::Error => Core,
    halo_crypto::Error => Crypto,
    halo_crypto::envelope::Error => Envelope,
    halo_sketch::Error => Sketch,
    halo_edp_sdk::Error => Publisher,
    halo_crypto::share::ShareError => Share,
    EngineError => Engine,
}

impl From<BodyError> for Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Write(error) => Self::Engine(EngineError::Io(error)),
            BodyError::Stopped(error) => Self::Publisher(error),
        }
    }
}

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(error) => class::ParameterError::new_err(error.to_string()),
            Error::Crypto(error) => class::ProtocolError::new_err(error.to_string()),
            Error::Envelope(error) => class::ProtocolError::new_err(error.to_string()),
            Error::Sketch(error) => sketch(&error),
            Error::Publisher(error) => publisher(error),
            Error::Share(error) => class::ParameterError::new_err(error.to_string()),
            Error::Engine(error) => engine(error),
            Error::Parameter(message) => class::ParameterError::new_err(message),
            Error::Data(message) => class::DataError::new_err(message),
        }
    }
}

fn sketch(error: &halo_sketch::Error) -> PyErr {
    use halo_sketch::Error as E;
    let message = error.to_string();
    match error {
        E::OutOfRange { name: "VID" | "population", .. } => class::DataError::new_err(message),
        E::Incompatible { .. } => class::IncompatibleError::new_err(message),
        E::Corrupt { .. } => class::FormatError::new_err(message),
        E::Saturated { .. } => class::SaturatedError::new_err(message),
        E::TooMuchNoise { .. } => class::NoiseError::new_err(message),
        _ => class::ParameterError::new_err(message),
    }
}

fn publisher(error: halo_edp_sdk::Error) -> PyErr {
    use halo_edp_sdk::Error as E;
    let message = error.to_string();
    match error {
        E::Sketch(error) => sketch(&error),
        // The kind of error decides the class, as with `open`.
        E::File { source, .. } => std::io::Error::new(source.kind(), message).into(),
        E::NotParquet { .. } => class::FormatError::new_err(message),
        E::NoVidColumn { .. } => class::MissingColumnError::new_err(message),
        E::ColumnType { .. } => class::ColumnTypeError::new_err(message),
        E::Share(_) => class::ParameterError::new_err(message),
        E::Interrupted => PyKeyboardInterrupt::new_err(message),
        _ => class::DataError::new_err(message),
    }
}

fn engine(error: EngineError) -> PyErr {
    use EngineError as E;
    let message = error.to_string();
    match error {
        E::Parameters(_) | E::Ring(_) => class::ParameterError::new_err(message),
        E::Noise(_) => class::NoiseError::new_err(message),
        E::Saturated { .. } => class::SaturatedError::new_err(message),
        E::MalformedState(_) => class::FormatError::new_err(message),
        E::Cancelled => PyKeyboardInterrupt::new_err(message),
        E::Io(error) => error.into(),
        // The setting as the argument is called in Python.
        E::NotAttested { .. } => {
            let message = message.replace("set allow_simulated ", "give allow_simulated_attestation=True ");
            class::AttestationError::new_err(message)
        }
        error => {
            let culprits: Vec<String> = error.culprits().iter().map(ToString::to_string).collect();
            class::ProtocolError::new_err((message, culprits))
        }
    }
}
