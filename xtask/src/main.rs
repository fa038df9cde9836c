//! Checks of the whole workspace.
//!
//! - `cargo xtask test` runs every test of the workspace, the Python ones included, and says how many ran and how many
//!   were skipped and why. A skip that is not on [`test::KNOWN_SKIPS`] fails the run.
//! - `cargo xtask ci` adds format, lints with warnings denied, documentation and purity.
//!
//! Both need nothing but the Rust toolchain, a C++ compiler and Python 3.11: what the Python tests import is installed into
//! a virtual environment below `target/`.
#![forbid(unsafe_code)]

mod purity;
mod run;
mod test;

use std::process::ExitCode;

use run::Failure;

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let outcome = match argument.as_deref() {
        Some("test") => test::all(),
        Some("ci") => ci(),
        _ => {
            eprintln!("usage: cargo xtask test | ci");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Cheap checks first, so that a slip of the pen shows before the long build.
fn ci() -> Result<(), Failure> {
    run::step("format", run::cargo(&["fmt", "--all", "--check"]))?;
    purity::check()?;
    run::step(
        "lints",
        run::cargo(&["clippy", "--workspace", "--all-features", "--all-targets", "--", "-D", "warnings"]),
    )?;
    let mut documentation = run::cargo(&["doc", "--workspace", "--no-deps", "--all-features"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    run::step("documentation", documentation)?;
    test::all()
}
