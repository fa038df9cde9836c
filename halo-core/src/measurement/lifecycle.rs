//! The three state machines.

use thiserror::Error;

/// An event that cannot happen in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a {subject} that is {state} cannot take the event {event}")]
pub struct IllegalEvent {
    /// What has the state: `measurement`, `requisition` or `participant`.
    pub subject: &'static str,
    /// The state it is in.
    pub state: &'static str,
    /// The event that it refused.
    pub event: &'static str,
}

/// Defines an enum whose variants have a stored number and a name.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $number:literal $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $number,)+
        }

        impl $name {
            /// Every state, in the order of the numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name, as on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The number that is stored.
            #[must_use]
            pub const fn number(self) -> i32 {
                self as i32
            }

            /// The state of a stored number; `None` if there is none.
            #[must_use]
            pub const fn from_number(number: i32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

/// Defines an enum of events with their names.
macro_rules! events {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every event.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                }
            }
        }
    };
}

states! {
    /// Where a measurement stands at the Kingdom.
    MeasurementState {
        /// Duchies have still to publish their keys.
        PendingRequisitionParams = 1 "PENDING_REQUISITION_PARAMS",
        /// Publishers have still to deliver.
        PendingRequisitionFulfillment = 2 "PENDING_REQUISITION_FULFILLMENT",
        /// Duchies have still to confirm what they received.
        PendingParticipantConfirmation = 3 "PENDING_PARTICIPANT_CONFIRMATION",
        /// The Duchies compute.
        PendingComputation = 4 "PENDING_COMPUTATION",
        /// There is a result. Terminal.
        Succeeded = 5 "SUCCEEDED",
        /// There will be no result. Terminal.
        Failed = 6 "FAILED",
        /// The consumer withdrew it, or its deadline passed. Terminal.
        Cancelled = 7 "CANCELLED",
    }
}

events! {
    /// What happens to a measurement.
    MeasurementEvent {
        /// The last Duchy published its key.
        AllParamsSet,
        /// The last publisher delivered, and the Duchies have still to confirm.
        AllFulfilledToConfirm,
        /// The last publisher delivered, in a protocol without confirmation.
        AllFulfilledToCompute,
        /// The last publisher delivered its own result, in a protocol without Duchies.
        AllFulfilledDirectly,
        /// The last Duchy confirmed.
        AllConfirmed,
        /// The aggregator delivered the result.
        ResultSet,
        /// A publisher refused.
        RequisitionRefused,
        /// A Duchy failed for good.
        ParticipantFailed,
        /// A certificate that the measurement uses was revoked.
        CertificateRevoked,
        /// The consumer cancelled.
        Cancel,
        /// The deadline passed.
        DeadlineExpired,
    }
}

states! {
    /// Where a measurement stands as its consumer sees it.
    PublicMeasurementState {
        /// Publishers have still to deliver.
        AwaitingRequisitionFulfillment = 1 "AWAITING_REQUISITION_FULFILLMENT",
        /// The Duchies work.
        Computing = 2 "COMPUTING",
        /// There is a result.
        Succeeded = 3 "SUCCEEDED",
        /// There will be no result.
        Failed = 4 "FAILED",
        /// Withdrawn, or too late.
        Cancelled = 5 "CANCELLED",
    }
}

impl MeasurementState {
    /// The next state.
    ///
    /// # Errors
    /// [`IllegalEvent`] if the event cannot happen in this state.
    pub const fn on(self, event: MeasurementEvent) -> Result<Self, IllegalEvent> {
        use MeasurementEvent as E;
        Ok(match (self, event) {
            (Self::PendingRequisitionParams, E::AllParamsSet) => Self::PendingRequisitionFulfillment,
            (Self::PendingRequisitionFulfillment, E::AllFulfilledToConfirm) => Self::PendingParticipantConfirmation,
            (Self::PendingRequisitionFulfillment, E::AllFulfilledToCompute)
            | (Self::PendingParticipantConfirmation, E::AllConfirmed) => Self::PendingComputation,
            (Self::PendingRequisitionFulfillment, E::AllFulfilledDirectly)
            | (Self::PendingComputation, E::ResultSet) => Self::Succeeded,
            (Self::PendingRequisitionFulfillment, E::RequisitionRefused) => Self::Failed,
            (state, E::ParticipantFailed | E::CertificateRevoked) if !state.is_terminal() => Self::Failed,
            (state, E::Cancel | E::DeadlineExpired) if !state.is_terminal() => Self::Cancelled,
            _ => return Err(IllegalEvent { subject: "measurement", state: self.name(), event: event.name() }),
        })
    }

    /// Whether nothing can happen any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// What the consumer sees.
    #[must_use]
    pub const fn public(self) -> PublicMeasurementState {
        match self {
            Self::PendingRequisitionParams | Self::PendingRequisitionFulfillment => {
                PublicMeasurementState::AwaitingRequisitionFulfillment
            }
            Self::PendingParticipantConfirmation | Self::PendingComputation => PublicMeasurementState::Computing,
            Self::Succeeded => PublicMeasurementState::Succeeded,
            Self::Failed => PublicMeasurementState::Failed,
            Self::Cancelled => PublicMeasurementState::Cancelled,
        }
    }
}

states! {
    /// Where a requisition stands.
    RequisitionState {
        /// The Duchies' keys are not there yet; the publisher does not see it.
        PendingParams = 1 "PENDING_PARAMS",
        /// The publisher has to deliver.
        Unfulfilled = 2 "UNFULFILLED",
        /// Delivered. Terminal.
        Fulfilled = 3 "FULFILLED",
        /// The publisher refused. Terminal.
        Refused = 4 "REFUSED",
        /// The measurement ended before. Terminal.
        Withdrawn = 5 "WITHDRAWN",
    }
}

events! {
    /// What happens to a requisition.
    RequisitionEvent {
        /// The last Duchy published its key.
        ParamsSet,
        /// The publisher's data is at a Duchy, or its result at the Kingdom.
        Fulfill,
        /// The publisher refused.
        Refuse,
        /// The measurement ended otherwise.
        Withdraw,
    }
}

impl RequisitionState {
    /// The next state.
    ///
    /// # Errors
    /// [`IllegalEvent`] if the event cannot happen in this state.
    pub const fn on(self, event: RequisitionEvent) -> Result<Self, IllegalEvent> {
        use RequisitionEvent as E;
        Ok(match (self, event) {
            (Self::PendingParams, E::ParamsSet) => Self::Unfulfilled,
            (Self::Unfulfilled, E::Fulfill) => Self::Fulfilled,
            (Self::Unfulfilled, E::Refuse) => Self::Refused,
            (Self::PendingParams | Self::Unfulfilled, E::Withdraw) => Self::Withdrawn,
            _ => return Err(IllegalEvent { subject: "requisition", state: self.name(), event: event.name() }),
        })
    }

    /// Whether nothing can happen any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Fulfilled | Self::Refused | Self::Withdrawn)
    }
}

states! {
    /// Where one Duchy stands in a computation.
    ParticipantState {
        /// It has not published its key.
        Created = 1 "CREATED",
        /// Its key is there; it has still to confirm.
        RequisitionParamsSet = 2 "REQUISITION_PARAMS_SET",
        /// It is ready to compute.
        Ready = 3 "READY",
        /// It failed for good. Terminal.
        Failed = 4 "FAILED",
    }
}

events! {
    /// What happens to a participant.
    ParticipantEvent {
        /// It published its key and will have to confirm.
        SetParamsToConfirm,
        /// It published its key, in a protocol without confirmation.
        SetParams,
        /// It confirmed.
        Confirm,
        /// It failed for good.
        Fail,
    }
}

impl ParticipantState {
    /// The next state.
    ///
    /// # Errors
    /// [`IllegalEvent`] if the event cannot happen in this state.
    pub const fn on(self, event: ParticipantEvent) -> Result<Self, IllegalEvent> {
        use ParticipantEvent as E;
        Ok(match (self, event) {
            (Self::Created, E::SetParamsToConfirm) => Self::RequisitionParamsSet,
            (Self::Created, E::SetParams) | (Self::RequisitionParamsSet, E::Confirm) => Self::Ready,
            (Self::Created | Self::RequisitionParamsSet | Self::Ready, E::Fail) => Self::Failed,
            _ => return Err(IllegalEvent { subject: "participant", state: self.name(), event: event.name() }),
        })
    }

    /// Whether nothing can happen any more.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;

    #[test]
    fn the_way_to_a_result() {
        use MeasurementEvent as E;
        let mut state = MeasurementState::PendingRequisitionParams;
        for (event, public) in [
            (E::AllParamsSet, PublicMeasurementState::AwaitingRequisitionFulfillment),
            (E::AllFulfilledToConfirm, PublicMeasurementState::Computing),
            (E::AllConfirmed, PublicMeasurementState::Computing),
            (E::ResultSet, PublicMeasurementState::Succeeded),
        ] {
            state = state.on(event).unwrap();
            assert_eq!(state.public(), public);
        }
    }

    #[test]
    fn a_result_is_taken_only_while_computing() {
        for &state in MeasurementState::ALL {
            assert_eq!(state.on(MeasurementEvent::ResultSet).is_ok(), state == MeasurementState::PendingComputation);
        }
    }

    #[test]
    fn a_deadline_cancels_whatever_has_not_ended() {
        for &state in MeasurementState::ALL {
            let next = state.on(MeasurementEvent::DeadlineExpired);
            assert_eq!(next.ok(), (!state.is_terminal()).then_some(MeasurementState::Cancelled));
        }
    }

    #[test]
    fn an_illegal_event_names_both_ends() {
        let error = MeasurementState::Cancelled.on(MeasurementEvent::ResultSet).unwrap_err();
        assert_eq!(error.to_string(), "a measurement that is CANCELLED cannot take the event ResultSet");
    }

    proptest! {
        #[test]
        fn terminal_states_absorb(events in prop::collection::vec(select(MeasurementEvent::ALL), 0..20)) {
            let mut state = MeasurementState::PendingRequisitionParams;
            for event in events {
                match state.on(event) {
                    Ok(next) => {
                        prop_assert!(!state.is_terminal());
                        prop_assert!(next > state, "no way leads back");
                        state = next;
                    }
                    Err(error) => prop_assert_eq!((error.state, error.event), (state.name(), event.name())),
                }
            }
        }

        #[test]
        fn requisitions_end_once(state in select(RequisitionState::ALL), event in select(RequisitionEvent::ALL)) {
            match state.on(event) {
                Ok(next) => prop_assert!(!state.is_terminal() && next > state),
                Err(error) => prop_assert_eq!((error.state, error.event), (state.name(), event.name())),
            }
        }

        #[test]
        fn participants_fail_once(state in select(ParticipantState::ALL), event in select(ParticipantEvent::ALL)) {
            match state.on(event) {
                Ok(next) => prop_assert!(!state.is_terminal() && next > state),
                Err(error) => prop_assert_eq!((error.state, error.event), (state.name(), event.name())),
            }
        }

        #[test]
        fn numbers_round_trip(number in -2..12) {
            for state in [MeasurementState::from_number(number).map(MeasurementState::number),
                RequisitionState::from_number(number).map(RequisitionState::number),
                ParticipantState::from_number(number).map(ParticipantState::number)].into_iter().flatten() {
                prop_assert_eq!(state, number);
            }
        }
    }
}
