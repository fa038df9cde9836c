//! One run, from the command line's options to the report.

use std::{
    fs,
    path::{Path, PathBuf},
};

use halo_core::measurement::{MeasurementKind, MeasurementType, ProtocolKind};

use super::{
    figures::print_summary,
    input::Options,
    measure::{block_on, measure},
    plan::Plan,
};
use crate::{
    error::{Context, Result},
    kind,
    outcome::Outcome,
    report, shell,
    truth::{Limits, Truth},
};

/// Runs everything, prints the result beside the exact answer, and writes the report. `program` is this program, which
/// runs again as every party.
///
/// # Errors
/// What was wrong with the options, the impressions or the machine, in words.
pub fn run(program: &Path, options: &Options) -> Result<()> {
    let (outcome, directory) = outcome(program, options)?;
    print_summary(&outcome);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&outcome).context(|| "cannot lay out the figures".into())?;
        fs::write(path, text).context(|| format!("cannot write {}", path.display()))?;
    }
    fs::write(&options.report, report::html(&outcome))
        .context(|| format!("cannot write {}", options.report.display()))?;
    println!("report: {}", options.report.display());
    println!("to verify: {} verify --state-dir {}", shell::quoted(program), shell::quoted(&directory));
    Ok(())
}

/// Measures, and tells what was found out and in which directory everything was.
pub(super) fn outcome(program: &Path, options: &Options) -> Result<(Outcome, PathBuf)> {
    let source = options.source()?;
    let plan = options.plan(source.publishers())?;
    let directory = state_directory(options)?;
    let publishers = source.files(&directory, options.seed)?;
    announce(&plan, &directory);
    let truth = Truth::count(&publishers, limits(options, &plan))?;
    plan.check_population(&publishers)?;
    let plan = plan.with_data(truth.vids.as_ref())?;
    for reason in &plan.left_out {
        println!("{reason}");
    }
    let outcome = block_on(measure(program, &plan, &directory, publishers, &truth))?;
    Ok((outcome, directory))
}

/// How much of one person counts in this measurement.
fn limits(options: &Options, plan: &Plan) -> Limits {
    Limits {
        classes: plan.maximum_frequency().get(),
        impressions: options.maximum_frequency,
        seconds: matches!(plan.asked, MeasurementType::Duration { .. }).then_some(options.maximum_seconds),
    }
}

/// Says what is about to be done.
fn announce(plan: &Plan, directory: &Path) {
    println!(
        "measures {} of {} publishers; {} Duchies and a Kingdom, each a process of its own",
        kind::name(plan.kind()),
        plan.publishers,
        plan.duchies
    );
    if plan.offered.iter().any(|protocol| matches!(protocol, ProtocolKind::Llv2 | ProtocolKind::Rollv2)) {
        println!("sketches have {} registers, decay rate {}", plan.sketch.size(), plan.sketch.decay_rate());
    }
    match plan.privacy {
        Some(_) if plan.kind() == MeasurementKind::Population => {}
        Some(privacy) => {
            println!("noise: ε = {}, δ = {:e} of each released value", privacy.epsilon, privacy.delta.get());
        }
        None => println!("WARNING: every noise is switched off; the result is not differentially private"),
    }
    if plan.protocol == Some(ProtocolKind::Trustee) {
        println!(
            "WARNING: the trustee's attestation is simulated; whoever runs its machine can read the publishers' data"
        );
    }
    println!("state directory: {}", directory.display());
}

/// The given directory, or a new temporary one that is kept: it is what `verify` looks into.
fn state_directory(options: &Options) -> Result<PathBuf> {
    match &options.state_dir {
        Some(directory) => {
            fs::create_dir_all(directory).context(|| format!("cannot create {}", directory.display()))?;
            Ok(directory.clone())
        }
        None => {
            let directory = tempfile::Builder::new().prefix("halo-quickstart-").tempdir();
            Ok(directory.context(|| "cannot create a temporary directory".into())?.keep())
        }
    }
}
