//! Named points at which a test build kills its own process.
//!
//! A point is `MOMENT.STAGE` with one of the moments `before-commit`, `mid-delivery`, `after-commit` and the name of a
//! stage. In a build with the feature `failpoints`, when the directory in the environment variable `HALO_FAILPOINTS` has a
//! file `POINT.armed`, the process writes what the point reports into it and its id into `POINT.process`, renames the first
//! to `POINT.fired`, syncs it and kills itself with SIGKILL. In every other build nothing is looked at.
//!
//! Where the points lie:
//!
//! | stage | before-commit | mid-delivery | after-commit |
//! |---|---|---|---|
//! | of work | before the transaction that ends it | within the delivery of what it made, before the acknowledgement | after the transaction |
//! | waiting for bodies | before a received body is bound | in the middle of receiving it | after it is bound, before the reply |
//! | `WAIT_REQUISITIONS_AND_KEY_SET` | before the Kingdom's report is applied | in the middle of a publisher's upload | after it is applied |
//! | `WAIT_TO_START`, `WAIT_TO_COMPUTE` | before the Kingdom's report is applied | after the report is read | after it is applied |
//! | `COMPLETE` | before the keys are destroyed | while blobs are removed | after the keys are destroyed |
//!
//! When a point before a commit is passed again, it appends its report to `POINT.passed`.
//!
//! What a point before a commit reports is one hexadecimal SHA-256 a line: of the outputs that the commit would store.

use halo_core::measurement::ProtocolKind;

use super::protocols;
use super::stage::{Role, Stage};

/// When within a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// Before the transaction.
    BeforeCommit,
    /// While something is sent or received.
    MidDelivery,
    /// After the transaction.
    AfterCommit,
}

impl Moment {
    /// All moments, in the order in which they pass.
    pub const ALL: [Self; 3] = [Self::BeforeCommit, Self::AfterCommit, Self::MidDelivery];

    /// The first part of a point's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeCommit => "before-commit",
            Self::MidDelivery => "mid-delivery",
            Self::AfterCommit => "after-commit",
        }
    }
}

/// The name of a point, such as `before-commit.SETUP_PHASE`.
#[must_use]
pub fn point_name(moment: Moment, stage: Stage) -> String {
    format!("{}.{stage}", moment.name())
}

/// Every point that a computation passes in this role, with a maximum frequency of 2 or more where the protocol has
/// frequencies: three for each stage. None for a protocol that is not served. A Duchy that takes no publisher's upload does
/// not pass `mid-delivery.WAIT_REQUISITIONS_AND_KEY_SET`.
#[must_use]
pub fn failpoint_names(protocol: ProtocolKind, role: Role) -> Vec<String> {
    let stages = protocols::stages(protocol, role).into_iter();
    stages.flat_map(|stage| Moment::ALL.map(|moment| point_name(moment, stage))).collect()
}

/// Passes a point. `report` is called only when the point is armed.
#[cfg(not(feature = "failpoints"))]
pub fn pass(_moment: Moment, _stage: Stage, _report: impl FnOnce() -> String) {}

/// Passes a point. `report` is called only when the point is armed.
#[cfg(feature = "failpoints")]
pub fn pass(moment: Moment, stage: Stage, report: impl FnOnce() -> String) {
    let Some(directory) = std::env::var_os("HALO_FAILPOINTS").map(std::path::PathBuf::from) else { return };
    let name = point_name(moment, stage);
    let armed = directory.join(format!("{name}.armed"));
    if !armed.exists() {
        // What another attempt makes is compared with what the one that was killed had made.
        if moment == Moment::BeforeCommit
            && let Err(error) = append(&directory.join(format!("{name}.passed")), &report())
        {
            tracing::error!(point = name, %error, "the fail-point could not report");
        }
        return;
    }
    let fired = directory.join(format!("{name}.fired"));
    let write = || -> std::io::Result<()> {
        // Two tasks may pass two points at the same time: both fire, and one process dies.
        std::fs::write(directory.join(format!("{name}.process")), std::process::id().to_string())?;
        std::fs::write(&armed, report())?;
        std::fs::File::open(&armed)?.sync_all()?;
        std::fs::rename(&armed, &fired)?;
        std::fs::File::open(&directory)?.sync_all()
    };
    if let Err(error) = write() {
        tracing::error!(point = name, %error, "the fail-point could not report");
    }
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // Nothing is done any more until the signal has come.
    loop {
        std::thread::park();
    }
}

#[cfg(feature = "failpoints")]
fn append(file: &std::path::Path, report: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(file)?;
    writeln!(file, "{report}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_has_three_points_in_each_stage_that_it_passes() {
        use ProtocolKind::{Direct, Hmss, HmssNative, Llv2, Rollv2, Trustee};
        for (protocol, role, stages, there, not_there) in [
            (Llv2, Role::Aggregator, 12, "EXECUTION_PHASE_THREE", "WAIT_TO_START"),
            (Llv2, Role::Worker, 12, "WAIT_EXECUTION_PHASE_ONE_INPUTS", "WAIT_SETUP_PHASE_INPUTS"),
            (Rollv2, Role::Aggregator, 8, "WAIT_SETUP_PHASE_INPUTS", "EXECUTION_PHASE_ONE"),
            (Rollv2, Role::Worker, 8, "EXECUTION_PHASE", "WAIT_SETUP_PHASE_INPUTS"),
            (Hmss, Role::Aggregator, 6, "AGGREGATION_PHASE", "SETUP_PHASE"),
            (HmssNative, Role::Worker, 8, "SHUFFLE_PHASE", "WAIT_AGGREGATION_PHASE_INPUTS"),
            (Trustee, Role::Aggregator, 6, "COMPUTATION_PHASE", "WAIT_TO_START"),
        ] {
            let names = failpoint_names(protocol, role);
            assert_eq!(names.len(), 3 * stages, "{protocol} {role:?}");
            assert!(names.contains(&format!("before-commit.{there}")));
            assert!(!names.contains(&format!("before-commit.{not_there}")));
        }
        assert!(failpoint_names(Direct, Role::Worker).is_empty());
    }
}
