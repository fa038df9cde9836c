//! Who computes.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU8, Ordering},
};

#[cfg(target_arch = "x86_64")]
use super::Ifma;
use super::{Kernels, Portable};

/// The environment variable that chooses the backend: `auto` (the fastest that this CPU supports; the default),
/// `portable` or `ifma`. Under `portable`, [shares](crate::share) do without vector instructions too.
pub const BACKEND_VARIABLE: &str = "HALO_CURVE_BACKEND";

/// The code that computes in the group. All backends give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// curve25519-dalek, one element at a time, on any CPU.
    Portable,
    /// Eight elements at a time, on CPUs with AVX-512 IFMA.
    Ifma,
}

/// A backend that cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// There is none of this name.
    #[error(
        "no curve backend is called {0:?}: say auto, portable or ifma (in {BACKEND_VARIABLE}, where it came from there)"
    )]
    Unknown(String),
    /// The CPU lacks its instructions.
    #[error(
        "this CPU lacks the instructions (AVX-512 IFMA) of the curve backend {0}: say auto or portable (in {BACKEND_VARIABLE}, where it came from there)"
    )]
    Unsupported(Backend),
}

/// The backend in use: 0 as long as nobody asked.
static CURRENT: AtomicU8 = AtomicU8::new(0);

impl Backend {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Portable, Self::Ifma];

    /// The fastest that this CPU supports.
    #[must_use]
    pub fn fastest() -> Self {
        if Self::Ifma.is_supported() { Self::Ifma } else { Self::Portable }
    }

    /// Whether this CPU has its instructions.
    #[must_use]
    pub fn is_supported(self) -> bool {
        self.kernels().is_some()
    }

    /// The backend in use: the one that was [selected](Self::select), else what [`BACKEND_VARIABLE`] says, which is read
    /// once. A program asks for it when it starts, as the first computation panics where this is an error.
    ///
    /// # Errors
    /// [`BackendError`] when the variable's value is unknown, or the CPU does not support it.
    pub fn current() -> Result<Self, BackendError> {
        match CURRENT.load(Ordering::Relaxed) {
            0 => {
                let backend = match std::env::var_os(BACKEND_VARIABLE) {
                    None => Self::fastest(),
                    Some(name) => name.to_string_lossy().parse()?,
                };
                backend.select()?;
                Ok(backend)
            }
            1 => Ok(Self::Portable),
            _ => Ok(Self::Ifma),
        }
    }

    /// Computes with this backend from now on, in the whole process. Elements that another backend made stay valid; the
    /// first use of each costs a conversion. For benchmarks and tests: a program leaves the choice to its environment.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] when the CPU lacks its instructions.
    pub fn select(self) -> Result<(), BackendError> {
        if !self.is_supported() {
            return Err(BackendError::Unsupported(self));
        }
        CURRENT.store(if self == Self::Portable { 1 } else { 2 }, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn kernels(self) -> Option<&'static dyn Kernels> {
        match self {
            Self::Portable => Some(&Portable),
            #[cfg(target_arch = "x86_64")]
            Self::Ifma => Ifma::detect().map(|ifma| -> &'static dyn Kernels { ifma }),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Ifma => None,
        }
    }
}

impl FromStr for Backend {
    type Err = BackendError;

    /// `auto`, `portable` or `ifma`; whether the CPU supports it is not asked.
    fn from_str(name: &str) -> Result<Self, BackendError> {
        match name {
            "auto" => Ok(Self::fastest()),
            "portable" => Ok(Self::Portable),
            "ifma" => Ok(Self::Ifma),
            _ => Err(BackendError::Unknown(name.to_owned())),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Ifma => "ifma",
        })
    }
}

/// The kernels of the backend in use.
///
/// # Panics
/// Where [`Backend::current`] is an error.
pub(crate) fn kernels() -> &'static dyn Kernels {
    let backend = Backend::current();
    match backend.as_ref().ok().and_then(|backend| backend.kernels()) {
        Some(kernels) => kernels,
        None => {
            panic!("no backend for the curve: {}", backend.err().map_or_else(String::new, |error| error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Point;

    #[test]
    fn names_are_read_back_and_others_refused() {
        for backend in Backend::ALL {
            assert_eq!(backend.to_string().parse(), Ok(backend));
        }
        assert_eq!("auto".parse(), Ok(Backend::fastest()));
        let error = "avx".parse::<Backend>().unwrap_err();
        assert_eq!(error, BackendError::Unknown("avx".to_owned()));
        assert!(error.to_string().contains("auto, portable or ifma"), "{error}");
        assert!(BackendError::Unsupported(Backend::Ifma).to_string().contains("say auto or portable"));
    }

    #[test]
    fn elements_survive_a_change_of_backend() {
        let all: Vec<Backend> = Backend::ALL.into_iter().filter(|backend| backend.is_supported()).collect();
        let before = Backend::current().unwrap();
        let mut points = Vec::new();
        for backend in all.iter().chain(&all) {
            backend.select().unwrap();
            points.push(Point::identity() + Point::generator());
            assert!(points.iter().all(|point| *point == Point::generator()));
            assert!(points.iter().all(|point| point.encode() == Point::generator().encode()));
            assert!(points.iter().all(|point| (*point - Point::generator()).is_identity()));
        }
        before.select().unwrap();
    }

    #[test]
    fn a_backend_that_the_cpu_lacks_cannot_be_selected() {
        for backend in Backend::ALL.into_iter().filter(|backend| !backend.is_supported()) {
            assert_eq!(backend.select(), Err(BackendError::Unsupported(backend)));
        }
    }
}
