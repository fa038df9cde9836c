//! `halo-duchy`: a Duchy as a process.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    halo_duchy::server::cli()
}
