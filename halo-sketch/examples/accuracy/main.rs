//! The accuracy suite: what is estimated in the evaluation scenarios (science 7.2) against the exact answers, as a table.
//!
//!     cargo run --release -p halo-sketch --example accuracy -- [--salts N] [--only TEXT]
//!
//! Each salt, of which at least 20 are taken (the default), is a repetition with fresh hashes of the same people. `--only`
//! keeps the groups of checks whose name contains the text (truth, reach, noised reach, intervals, publishers, frequency, usable
//! registers, frequency vectors, discrete Gaussian, noise totals). It ends with exit code 1 when a check fails.

mod people;
mod suite;

use std::process::ExitCode;

use suite::{Check, Effort};

fn main() -> ExitCode {
    let mut effort = Effort::FULL;
    let mut only = String::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next();
        match (argument.as_str(), value) {
            ("--salts", Some(value)) => match value.parse() {
                Ok(salts) if salts >= effort.salts => {
                    effort = Effort {
                        salts,
                        same: salts.max(effort.same),
                        many: salts.max(effort.many),
                        largest: salts,
                        ..effort
                    };
                }
                _ => return refuse(&format!("--salts is {value}; it must be a number from {} on", effort.salts)),
            },
            ("--only", Some(value)) => only = value,
            _ => return refuse(&format!("{argument}: only --salts N and --only TEXT are understood")),
        }
    }
    println!("{:<56} {:>24} {:>24}   fails if", "check", "expected", "found");
    let mut failed = 0;
    let mut report = |check: &Check| {
        let Check { name, expected, found, fails_if, passed } = check;
        println!("{name:<56} {expected:>24} {found:>24}   {fails_if}{}", if *passed { "" } else { "   FAILED" });
        failed += u32::from(!passed);
    };
    suite::run(&effort, &only, &mut report);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        eprintln!("{failed} checks failed");
        ExitCode::FAILURE
    }
}

fn refuse(reason: &str) -> ExitCode {
    eprintln!("accuracy: {reason}");
    ExitCode::from(2)
}
