//! The thirteen stages of a Liquid Legions v2 computation at one Duchy.

use std::fmt;

/// What a Duchy does or waits for. The numbers are those of `LiquidLegionsV2Stage.Stage`; they are stored and sent.
///
/// A worker never enters [`Stage::WaitSetupPhaseInputs`], the aggregator never [`Stage::WaitToStart`], and with a maximum
/// frequency of 1 nobody enters the stages of phase three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Proves the key share and sends it to the Kingdom.
    InitializationPhase = 1,
    /// Waits for the publishers' uploads and the other Duchies' keys.
    WaitRequisitionsAndKeySet = 2,
    /// Verifies keys, nonces and uploads, and confirms at the Kingdom.
    ConfirmationPhase = 3,
    /// A worker waits until all Duchies have confirmed.
    WaitToStart = 4,
    /// The aggregator waits for every worker's registers.
    WaitSetupPhaseInputs = 5,
    /// Adds noise to the own publishers' registers; the aggregator joins all of them.
    SetupPhase = 6,
    /// Waits for the first round's input.
    WaitExecutionPhaseOneInputs = 7,
    /// Blinds indices; the aggregator joins registers of one index.
    ExecutionPhaseOne = 8,
    /// Waits for the second round's input.
    WaitExecutionPhaseTwoInputs = 9,
    /// Peels the flags; the aggregator counts the active registers.
    ExecutionPhaseTwo = 10,
    /// Waits for the third round's input.
    WaitExecutionPhaseThreeInputs = 11,
    /// Peels the count matrix; the aggregator opens the histogram.
    ExecutionPhaseThree = 12,
    /// Nothing is left to compute.
    Complete = 13,
}

impl Stage {
    /// All stages in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::InitializationPhase,
        Self::WaitRequisitionsAndKeySet,
        Self::ConfirmationPhase,
        Self::WaitToStart,
        Self::WaitSetupPhaseInputs,
        Self::SetupPhase,
        Self::WaitExecutionPhaseOneInputs,
        Self::ExecutionPhaseOne,
        Self::WaitExecutionPhaseTwoInputs,
        Self::ExecutionPhaseTwo,
        Self::WaitExecutionPhaseThreeInputs,
        Self::ExecutionPhaseThree,
        Self::Complete,
    ];

    /// The number that is stored and sent, 1 to 13.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The stage of a number; `None` outside 1 to 13.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        usize::try_from(number).ok()?.checked_sub(1).and_then(|index| Self::ALL.get(index)).copied()
    }

    /// The name in the wire contract, such as `SETUP_PHASE`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InitializationPhase => "INITIALIZATION_PHASE",
            Self::WaitRequisitionsAndKeySet => "WAIT_REQUISITIONS_AND_KEY_SET",
            Self::ConfirmationPhase => "CONFIRMATION_PHASE",
            Self::WaitToStart => "WAIT_TO_START",
            Self::WaitSetupPhaseInputs => "WAIT_SETUP_PHASE_INPUTS",
            Self::SetupPhase => "SETUP_PHASE",
            Self::WaitExecutionPhaseOneInputs => "WAIT_EXECUTION_PHASE_ONE_INPUTS",
            Self::ExecutionPhaseOne => "EXECUTION_PHASE_ONE",
            Self::WaitExecutionPhaseTwoInputs => "WAIT_EXECUTION_PHASE_TWO_INPUTS",
            Self::ExecutionPhaseTwo => "EXECUTION_PHASE_TWO",
            Self::WaitExecutionPhaseThreeInputs => "WAIT_EXECUTION_PHASE_THREE_INPUTS",
            Self::ExecutionPhaseThree => "EXECUTION_PHASE_THREE",
            Self::Complete => "COMPLETE",
        }
    }

    /// Whether the mill has something to compute here.
    #[must_use]
    pub const fn is_work(self) -> bool {
        matches!(
            self,
            Self::InitializationPhase
                | Self::ConfirmationPhase
                | Self::SetupPhase
                | Self::ExecutionPhaseOne
                | Self::ExecutionPhaseTwo
                | Self::ExecutionPhaseThree
        )
    }

    /// The work that begins when every body awaited here is bound; `None` where no body is awaited.
    #[must_use]
    pub const fn work_on_inputs(self) -> Option<Self> {
        match self {
            Self::WaitSetupPhaseInputs => Some(Self::SetupPhase),
            Self::WaitExecutionPhaseOneInputs => Some(Self::ExecutionPhaseOne),
            Self::WaitExecutionPhaseTwoInputs => Some(Self::ExecutionPhaseTwo),
            Self::WaitExecutionPhaseThreeInputs => Some(Self::ExecutionPhaseThree),
            _ => None,
        }
    }

    /// The stage that waits for inputs of a description (the number of `LiquidLegionsV2.Description`, 1 to 4).
    #[must_use]
    pub const fn waiting_for(description: i32) -> Option<Self> {
        match description {
            1 => Some(Self::WaitSetupPhaseInputs),
            2 => Some(Self::WaitExecutionPhaseOneInputs),
            3 => Some(Self::WaitExecutionPhaseTwoInputs),
            4 => Some(Self::WaitExecutionPhaseThreeInputs),
            _ => None,
        }
    }

    /// Where a computation stands once what the Kingdom reported and what arrived is taken into account: a stage that
    /// waits moves on when its condition holds. `kingdom_state` has the numbers of `Computation.State`.
    #[must_use]
    pub fn settled(self, kingdom_state: i32, all_inputs_bound: bool) -> Self {
        const PENDING_PARTICIPANT_CONFIRMATION: i32 = 3;
        const PENDING_COMPUTATION: i32 = 4;
        match (self, kingdom_state) {
            (Self::WaitRequisitionsAndKeySet, PENDING_PARTICIPANT_CONFIRMATION | PENDING_COMPUTATION) => {
                Self::ConfirmationPhase
            }
            (Self::WaitToStart, PENDING_COMPUTATION) => Self::SetupPhase,
            _ if all_inputs_bound => self.work_on_inputs().unwrap_or(self),
            _ => self,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What this Duchy is in one computation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Joins, counts and reports the result.
    Aggregator,
    /// Adds noise, blinds and shuffles.
    Worker,
}

impl Role {
    /// Whether a computation with this role ever enters `stage` (maximum frequency 2 or more).
    #[must_use]
    pub const fn enters(self, stage: Stage) -> bool {
        match self {
            Self::Aggregator => !matches!(stage, Stage::WaitToStart),
            Self::Worker => !matches!(stage, Stage::WaitSetupPhaseInputs),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use halo_core::pb::system::liquid_legions_v2_stage::Stage as Wire;

    #[test]
    fn numbers_and_names_are_those_of_the_wire_contract() {
        for stage in Stage::ALL {
            assert_eq!(Stage::from_number(stage.number().into()), Some(stage));
            assert_eq!(Wire::try_from(stage.number()).unwrap().as_str_name(), stage.name());
        }
        assert_eq!(Stage::from_number(0), None);
        assert_eq!(Stage::from_number(14), None);
    }

    #[test]
    fn waiting_stages_move_on_only_when_their_condition_holds() {
        assert_eq!(Stage::WaitRequisitionsAndKeySet.settled(2, true), Stage::WaitRequisitionsAndKeySet);
        assert_eq!(Stage::WaitRequisitionsAndKeySet.settled(4, false), Stage::ConfirmationPhase);
        assert_eq!(Stage::WaitToStart.settled(3, true), Stage::WaitToStart);
        assert_eq!(Stage::WaitToStart.settled(4, false), Stage::SetupPhase);
        assert_eq!(Stage::WaitSetupPhaseInputs.settled(4, false), Stage::WaitSetupPhaseInputs);
        assert_eq!(Stage::WaitSetupPhaseInputs.settled(4, true), Stage::SetupPhase);
        assert_eq!(Stage::Complete.settled(4, true), Stage::Complete);
    }
}
