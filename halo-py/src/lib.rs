//! The Rust half of the Python package `halo_cmm`: thin classes and functions over the engines, sketches and estimators.
//!
//! What is computed here leaves the interpreter through one door, which releases the GIL and honours Ctrl-C; errors become
//! the exceptions of `halo_cmm.errors` in one place.
#![forbid(unsafe_code)]

mod accounting;
mod columns;
mod door;
mod engine;
mod envelopes;
mod error;
mod estimators;
mod noise;
mod outcome;
mod params;
mod shares;
mod simulate;
mod sketch;
mod trace;
mod vector;

use pyo3::prelude::*;

/// The compiled half of `halo_cmm`; its modules export what is public.
#[pymodule]
mod _halo {
    #[pymodule_export]
    use crate::accounting::{Acdp, Gdp, PrivacyLoss, Zcdp, gaussian_sigma};
    #[pymodule_export]
    use crate::engine::{
        EnvelopeKey, HybridKey, KeyShare, LiquidLegionsV2, Message, Participant, ReachOnlyLiquidLegionsV2,
        SealedVector, ShareShuffle, Step, Trustee, Upload, encrypt, encrypt_reach_only, seal, share,
    };
    #[pymodule_export]
    use crate::estimators::{
        Methodology, PyReachMeasurement, active_variance, combination_variance, duration_variance, expected_active,
        expected_usable, frequency, frequency_variances, impression_variance, population_variance, reach,
        reach_covariance, reach_variance,
    };
    #[pymodule_export]
    use crate::noise::{Noise, PyStickyNoise, calibrate, discrete_gaussian, geometric};
    #[pymodule_export]
    use crate::simulate::{simulate, simulate_registers, simulate_vectors};
    #[pymodule_export]
    use crate::sketch::LiquidLegions;
    #[pymodule_export]
    use crate::vector::{FrequencyVector, Population};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name that Python gives it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
