//! The accuracy suite with fewer repetitions: S3 to S5 of the evaluation scenarios (science 7.2). All of it, with the
//! table, is `cargo run --release -p halo-sketch --example accuracy`.

#[path = "../examples/accuracy/people.rs"]
mod people;
#[path = "../examples/accuracy/suite.rs"]
mod suite;

use people::Scenario;
use suite::{Check, Effort};

/// Twenty salts, a hundred for the mean error; S5 takes three, since it has a hundred million people.
const QUICK: Effort = Effort {
    salts: 20,
    same: 100,
    many: 20,
    largest: 3,
    scenarios: &[Scenario::Sequential, Scenario::Same, Scenario::Disjoint],
    ..Effort::FULL
};

fn passes(group: &str) {
    let mut failures = Vec::new();
    let mut checks = 0;
    suite::run(&QUICK, group, &mut |check: &Check| {
        println!("{}: expected {}, found {}, fails if {}", check.name, check.expected, check.found, check.fails_if);
        checks += 1;
        if !check.passed {
            failures.push(check.clone());
        }
    });
    assert!(checks > 0, "no group is called {group}");
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn scenarios_have_their_people() {
    passes("truth");
}

#[test]
fn reach_is_within_its_limits_with_and_without_noise() {
    passes("reach");
}

#[test]
fn intervals_hold_the_truth_as_often_as_they_say() {
    passes("intervals");
}

#[test]
fn the_number_of_publishers_does_not_matter() {
    passes("publishers");
}

#[test]
fn frequencies_are_within_their_limits() {
    passes("frequency");
}

#[test]
fn usable_registers_are_as_many_as_expected() {
    passes("usable");
}

#[test]
fn noise_has_its_distribution() {
    passes("Gaussian");
}

#[test]
fn totals_of_noise_are_as_calibrated() {
    passes("totals");
}
