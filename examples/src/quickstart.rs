//! The main job: from publishers' impressions to reach and frequency.
//!
//! Every party's real code runs, sketching, encryption and all three Duchies' protocol engines, over the real codecs;
//! but all of it in this one process, one party after the other. It shows what is computed, not the separation of
//! powers.

mod input;
mod parties;
mod run;

pub use input::Options;
pub use run::run;
