//! The main job of Halo end to end.
#![forbid(unsafe_code)]

pub mod error;
pub mod outcome;
pub mod population;
pub mod quickstart;
pub mod report;
pub mod truth;
