//! The stages that a computation passes at one Duchy, of all protocols.

use std::fmt;

use crate::protocol::Description;

macro_rules! stages {
    ($($(#[$doc:meta])* $stage:ident = $number:literal, $name:literal;)+) => {
        /// What a Duchy does or waits for. The numbers are those that are stored; up to 13 they are those of
        /// `LiquidLegionsV2Stage.Stage`. What is sent are the numbers of each protocol.
        ///
        /// Each protocol passes some of them, and each role not all of these: see
        /// [`super::failpoint::failpoint_names`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Stage {
            $($(#[$doc])* $stage = $number,)+
        }

        impl Stage {
            /// All stages in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$stage,)+];

            /// The name in the timeline and in fail-points, such as `SETUP_PHASE`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$stage => $name,)+
                }
            }
        }
    };
}

stages! {
    /// Makes the public key and sends it to the Kingdom.
    InitializationPhase = 1, "INITIALIZATION_PHASE";
    /// Waits for the publishers' uploads and the other Duchies' keys.
    WaitRequisitionsAndKeySet = 2, "WAIT_REQUISITIONS_AND_KEY_SET";
    /// Verifies keys, nonces and uploads, and confirms at the Kingdom.
    ConfirmationPhase = 3, "CONFIRMATION_PHASE";
    /// A Duchy that begins waits until all Duchies have confirmed.
    WaitToStart = 4, "WAIT_TO_START";
    /// The aggregator of a ring waits for every worker's registers.
    WaitSetupPhaseInputs = 5, "WAIT_SETUP_PHASE_INPUTS";
    /// Ring: adds noise to the own publishers' registers; the aggregator joins all of them. Share shuffle: sends the own
    /// seed, and the publishers' seeds that are for the other worker.
    SetupPhase = 6, "SETUP_PHASE";
    /// Waits for the first round's input.
    WaitExecutionPhaseOneInputs = 7, "WAIT_EXECUTION_PHASE_ONE_INPUTS";
    /// Blinds indices; the aggregator joins registers of one index.
    ExecutionPhaseOne = 8, "EXECUTION_PHASE_ONE";
    /// Waits for the second round's input.
    WaitExecutionPhaseTwoInputs = 9, "WAIT_EXECUTION_PHASE_TWO_INPUTS";
    /// Peels the flags; the aggregator counts the active registers.
    ExecutionPhaseTwo = 10, "EXECUTION_PHASE_TWO";
    /// Waits for the third round's input.
    WaitExecutionPhaseThreeInputs = 11, "WAIT_EXECUTION_PHASE_THREE_INPUTS";
    /// Peels the count matrix; the aggregator opens the histogram.
    ExecutionPhaseThree = 12, "EXECUTION_PHASE_THREE";
    /// Nothing is left to compute.
    Complete = 13, "COMPLETE";
    /// Reach only: waits for the only round's input.
    WaitExecutionPhaseInputs = 14, "WAIT_EXECUTION_PHASE_INPUTS";
    /// Reach only: blinds indices; the aggregator counts the different ones.
    ExecutionPhase = 15, "EXECUTION_PHASE";
    /// Share shuffle: a worker waits for the other one's seed.
    WaitShufflePhaseInputs = 16, "WAIT_SHUFFLE_PHASE_INPUTS";
    /// Share shuffle: adds shares up, hides them among noise, puts all into the secret order.
    ShufflePhase = 17, "SHUFFLE_PHASE";
    /// Share shuffle: the aggregator waits for both workers' vectors.
    WaitAggregationPhaseInputs = 18, "WAIT_AGGREGATION_PHASE_INPUTS";
    /// Share shuffle: adds both vectors up and counts.
    AggregationPhase = 19, "AGGREGATION_PHASE";
    /// Trustee: waits until its own confirmation has been taken.
    WaitToCompute = 20, "WAIT_TO_COMPUTE";
    /// Trustee: opens all vectors and gives the result.
    ComputationPhase = 21, "COMPUTATION_PHASE";
}

impl Stage {
    /// The number that is stored, from 1 on.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The stage of a number; `None` where there is none.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        usize::try_from(number).ok()?.checked_sub(1).and_then(|index| Self::ALL.get(index)).copied()
    }

    /// Whether the mill has something to compute here.
    #[must_use]
    pub fn is_work(self) -> bool {
        matches!(self, Self::InitializationPhase | Self::ConfirmationPhase | Self::SetupPhase | Self::ComputationPhase)
            || Self::ALL.iter().any(|waiting| waiting.work_on_inputs() == Some(self))
    }

    /// The work that begins when every body awaited here is bound; `None` where no body is awaited.
    #[must_use]
    pub const fn work_on_inputs(self) -> Option<Self> {
        match self {
            Self::WaitSetupPhaseInputs => Some(Self::SetupPhase),
            Self::WaitExecutionPhaseOneInputs => Some(Self::ExecutionPhaseOne),
            Self::WaitExecutionPhaseTwoInputs => Some(Self::ExecutionPhaseTwo),
            Self::WaitExecutionPhaseThreeInputs => Some(Self::ExecutionPhaseThree),
            Self::WaitExecutionPhaseInputs => Some(Self::ExecutionPhase),
            Self::WaitShufflePhaseInputs => Some(Self::ShufflePhase),
            Self::WaitAggregationPhaseInputs => Some(Self::AggregationPhase),
            _ => None,
        }
    }

    /// The stage that waits for messages of a kind.
    #[must_use]
    pub const fn waiting_for(description: Description) -> Self {
        match description {
            Description::SetupPhaseInput => Self::WaitSetupPhaseInputs,
            Description::ExecutionPhaseOneInput => Self::WaitExecutionPhaseOneInputs,
            Description::ExecutionPhaseTwoInput => Self::WaitExecutionPhaseTwoInputs,
            Description::ExecutionPhaseThreeInput => Self::WaitExecutionPhaseThreeInputs,
            Description::ReachOnlyExecutionInput => Self::WaitExecutionPhaseInputs,
            Description::ShuffleInput => Self::WaitShufflePhaseInputs,
            Description::AggregationInput => Self::WaitAggregationPhaseInputs,
            // Nobody sends them but publishers, whose uploads are in before it starts.
            Description::FrequencyVectors => Self::WaitToCompute,
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
            (Self::WaitToCompute, PENDING_COMPUTATION) => Self::ComputationPhase,
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
    /// Reports the result.
    Aggregator,
    /// Does its part for it.
    Worker,
}

#[cfg(test)]
mod tests {
    use super::*;
    use halo_core::pb::system::liquid_legions_v2_stage::Stage as Wire;

    #[test]
    fn stored_numbers_do_not_change() {
        for (number, stage) in (1..).zip(Stage::ALL) {
            assert_eq!((stage.number(), Stage::from_number(number.into())), (number, Some(*stage)));
            if *stage <= Stage::Complete {
                assert_eq!(Wire::try_from(number).unwrap().as_str_name(), stage.name());
            }
        }
        assert_eq!((Stage::from_number(0), Stage::from_number(22)), (None, None));
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
