//! The Kingdom's binary. `halo-kingdom serve --help` explains everything.

use std::process::ExitCode;

fn main() -> ExitCode {
    halo_kingdom::server::cli()
}
