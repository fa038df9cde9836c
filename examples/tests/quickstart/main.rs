//! The main job as a user runs it: the program, its files, its words.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod direct;
mod failures;
mod llv2;
mod protocols;
mod stored;
mod support;
