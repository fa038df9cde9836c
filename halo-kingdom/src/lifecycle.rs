//! What becomes of a measurement when something happens.
//!
//! [`decide`] is a pure function: it reads the stored measurement and an [`Event`], and answers with the [`Transition`]
//! to store, with nothing to do (a repetition of what is already so), or with the reason of a refusal. The server
//! authenticates the caller and verifies signatures before it asks; everything else that makes an event acceptable is
//! decided here.
//!
//! The states and their events:
//!
//! ```text
//! PENDING_REQUISITION_PARAMS ──last key share──► PENDING_REQUISITION_FULFILLMENT ──last requisition──►
//! PENDING_PARTICIPANT_CONFIRMATION ──last confirmation──► PENDING_COMPUTATION ──result──► SUCCEEDED
//! in direct measurements: PENDING_REQUISITION_FULFILLMENT ──last requisition──► SUCCEEDED
//! any pending state ──refusal, failed Duchy, revoked certificate──► FAILED
//! any pending state ──consumer, deadline──► CANCELLED
//! ```

mod transition;

use std::collections::BTreeMap;

use halo_core::{
    clock::Timestamp,
    measurement::{
        MeasurementEvent, MeasurementState, ParticipantEvent, ParticipantState, Protocol, RequisitionEvent,
        RequisitionState,
    },
    resource::{CertificateName, DuchyId, DuchyName, RequisitionName},
    session,
};

use crate::{
    Error,
    record::{
        ComputationResult, Delivery, Failure, FailureReason, Fulfilment, Measurement, Parameters, Participant,
        ParticipantFailure, Refusal, Requisition,
    },
};

pub use transition::{Note, ParticipantChange, RequisitionChange, Transition, apply};

/// Something that happens to a measurement.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A Duchy gives its key; signature, certificate and whatever proves the key have been verified.
    ParametersSet {
        /// The Duchy.
        duchy: DuchyId,
        /// Its signed key.
        parameters: Parameters,
    },
    /// A Duchy announces that a publisher's data has arrived, or a publisher hands in its own result, whose certificate
    /// has been verified.
    Fulfilled {
        /// The requisition.
        requisition: RequisitionName,
        /// What has arrived, and where.
        fulfilment: Fulfilment,
    },
    /// A publisher refuses.
    Refused {
        /// The requisition.
        requisition: RequisitionName,
        /// Why.
        refusal: Refusal,
    },
    /// A Duchy has checked nonces, keys and its part of the data.
    Confirmed {
        /// The Duchy.
        duchy: DuchyId,
        /// Hash of the list of keys that the Duchy received.
        key_list_hash: [u8; 32],
    },
    /// A Duchy cannot go on.
    ParticipantFailed {
        /// The Duchy.
        duchy: DuchyId,
        /// Why, and who caused it.
        failure: ParticipantFailure,
    },
    /// The aggregator hands in the result; its certificate has been verified.
    Completed {
        /// The Duchy that hands it in.
        duchy: DuchyId,
        /// The encrypted result.
        result: ComputationResult,
    },
    /// The consumer does not want it any more.
    Cancelled,
    /// The deadline has come.
    DeadlinePassed {
        /// How many different stages each Duchy has reported as finished; one that is missing has reported none.
        finished: BTreeMap<DuchyId, usize>,
    },
    /// A certificate was revoked or put on hold.
    CertificateRevoked {
        /// The certificate.
        certificate: CertificateName,
    },
}

impl Event {
    /// The event as the end of a sentence that says that it is not possible.
    const fn action(&self) -> &'static str {
        match self {
            Self::ParametersSet { .. } => "giving a key",
            Self::Fulfilled { .. } => "fulfilling a requisition",
            Self::Refused { .. } => "refusing a requisition",
            Self::Confirmed { .. } => "confirming",
            Self::ParticipantFailed { .. } => "failing",
            Self::Completed { .. } => "setting the result",
            Self::Cancelled | Self::DeadlinePassed { .. } => "cancelling",
            Self::CertificateRevoked { .. } => "failing for a revoked certificate",
        }
    }
}

/// Decides what `event` does to `measurement` at the moment `now`; `Ok(None)` if it is already so.
///
/// # Errors
/// If the event is not acceptable. Nothing changes then.
pub fn decide(measurement: &Measurement, event: &Event, now: Timestamp) -> Result<Option<Transition>, Error> {
    let step = Step { measurement, action: event.action() };
    match event {
        Event::ParametersSet { duchy, parameters } => step.parameters_set(duchy, parameters, now),
        Event::Fulfilled { requisition, fulfilment } => step.fulfilled(requisition, fulfilment, now),
        Event::Refused { requisition, refusal } => step.refused(requisition, refusal, now),
        Event::Confirmed { duchy, key_list_hash } => step.confirmed(duchy, key_list_hash, now),
        Event::ParticipantFailed { duchy, failure } => step.participant_failed(duchy, failure),
        Event::Completed { duchy, result } => step.completed(duchy, result, now),
        Event::Cancelled => step.cancelled(),
        Event::DeadlinePassed { finished } => step.deadline_passed(finished, now),
        Event::CertificateRevoked { certificate } => step.certificate_revoked(certificate),
    }
}

/// One decision: the measurement, and what is attempted.
struct Step<'a> {
    measurement: &'a Measurement,
    action: &'static str,
}

impl Step<'_> {
    fn parameters_set(
        &self,
        duchy: &DuchyId,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Option<Transition>, Error> {
        let participant = self.participant(duchy)?;
        if let Some(given) = &participant.parameters {
            // A key is for good: a second one would let a Duchy choose its share after it has seen the others'.
            return if given == parameters { Ok(None) } else { Err(different(format!("the key of Duchy {duchy}"))) };
        }
        self.expect(MeasurementState::PendingRequisitionParams)?;
        self.in_time(now)?;
        let mut transition = Transition {
            participants: vec![ParticipantChange {
                duchy: duchy.clone(),
                state: self.on_participant(participant, ParticipantEvent::SetParamsToConfirm)?,
                parameters: Some(parameters.clone()),
                failure: None,
            }],
            timeline: vec![Note::new(DuchyName::new(duchy.clone()), "gave its key")],
            ..Transition::default()
        };
        let last = self.measurement.participants.iter().all(|part| part.duchy == *duchy || part.parameters.is_some());
        if last {
            transition.state = Some(self.on_measurement(MeasurementEvent::AllParamsSet)?);
            for requisition in &self.measurement.requisitions {
                let state = self.on_requisition(requisition, RequisitionEvent::ParamsSet)?;
                transition.requisitions.push(change(requisition, state));
            }
            transition.timeline.push(Note::new("kingdom", "delivered the requisitions to the publishers"));
        }
        Ok(Some(transition))
    }

    fn fulfilled(
        &self,
        name: &RequisitionName,
        fulfilment: &Fulfilment,
        now: Timestamp,
    ) -> Result<Option<Transition>, Error> {
        let requisition = self.requisition(name)?;
        match &fulfilment.delivery {
            Delivery::Upload(upload) => self.check_place(name, &upload.duchy)?,
            Delivery::Result(result) => self.check_direct(name, &result.certificate)?,
        }
        if session::nonce_hash(fulfilment.nonce) != requisition.nonce_hash {
            return Err(Error::Nonce { requisition: name.clone() });
        }
        if let Some(given) = &requisition.fulfilment {
            let same = Fulfilment { context: given.context.clone(), ..fulfilment.clone() } == *given;
            return if same { Ok(None) } else { Err(different(format!("the fulfilment of {name}"))) };
        }
        let state = self.on_requisition(requisition, RequisitionEvent::Fulfill)?;
        self.expect(MeasurementState::PendingRequisitionFulfillment)?;
        self.in_time(now)?;
        if let Delivery::Upload(upload) = &fulfilment.delivery
            && self.measurement.upload_key_list_hash(name) != Some(upload.key_list_hash)
        {
            let duchy = &upload.duchy;
            // The publisher knew the nonce, so this is its word, unless the Duchy altered it.
            let publisher = name.parent();
            let message = format!(
                "{publisher} encrypted, as Duchy {duchy} says, under another list of keys than the one that the Duchies \
                 gave to the Kingdom"
            );
            let culprits = vec![publisher.to_string(), DuchyName::new(duchy.clone()).to_string()];
            let failure = ParticipantFailure { message, culprits };
            let mut transition = self.fail_participant(self.participant(duchy)?, &failure)?;
            transition.other_keys = Some(duchy.clone());
            return Ok(Some(transition));
        }
        let mut transition = Transition {
            requisitions: vec![RequisitionChange {
                fulfilment: Some(fulfilment.clone()),
                ..change(requisition, state)
            }],
            timeline: vec![match &fulfilment.delivery {
                Delivery::Upload(upload) => {
                    Note::new(DuchyName::new(upload.duchy.clone()), format!("holds the data of {name}"))
                }
                Delivery::Result(_) => Note::new(name.parent(), format!("handed in its encrypted result for {name}")),
            }],
            ..Transition::default()
        };
        let last = self.measurement.requisitions.iter().all(|other| other.name == *name || other.fulfilment.is_some());
        if last {
            let (event, told) = match self.measurement.protocol {
                Protocol::Direct(_) => (MeasurementEvent::AllFulfilledDirectly, "every publisher's result is there"),
                _ => (
                    MeasurementEvent::AllFulfilledToConfirm,
                    "every requisition is fulfilled; asked the Duchies to confirm",
                ),
            };
            transition.state = Some(self.on_measurement(event)?);
            transition.timeline.push(Note::new("kingdom", told));
        }
        Ok(Some(transition))
    }

    /// Whether a requisition's data belongs at this Duchy.
    fn check_place(&self, name: &RequisitionName, duchy: &DuchyId) -> Result<(), Error> {
        self.participant(duchy)?;
        match self.measurement.fulfilling_duchy(name) {
            Some(chosen) if chosen != *duchy => {
                Err(Error::WrongDuchy { requisition: name.clone(), duchy: duchy.clone(), chosen })
            }
            _ => Ok(()),
        }
    }

    /// Whether a publisher's own result, signed with this certificate, is what a requisition asks for.
    fn check_direct(&self, name: &RequisitionName, certificate: &CertificateName) -> Result<(), Error> {
        if !matches!(self.measurement.protocol, Protocol::Direct(_)) {
            let protocol = self.measurement.protocol.kind();
            return Err(Error::NotDirect { requisition: name.clone(), protocol });
        }
        if certificate.parent == name.parent().into() {
            return Ok(());
        }
        let detail = format!("it is no certificate of {}", name.parent());
        Err(Error::Certificate { certificate: certificate.clone(), detail })
    }

    fn refused(&self, name: &RequisitionName, refusal: &Refusal, now: Timestamp) -> Result<Option<Transition>, Error> {
        let requisition = self.requisition(name)?;
        if requisition.refusal.as_ref() == Some(refusal) {
            return Ok(None);
        }
        let state = self.on_requisition(requisition, RequisitionEvent::Refuse)?;
        self.expect(MeasurementState::PendingRequisitionFulfillment)?;
        self.in_time(now)?;
        let publisher = format!("dataProviders/{}", name.data_provider);
        let failure = Failure {
            reason: FailureReason::RequisitionRefused,
            message: format!("{name} was refused: {}", refusal.message),
            culprits: vec![publisher.clone()],
        };
        let note = Note::new(&publisher, format!("refused {name}: {}", refusal.message));
        let mut transition = self.end(MeasurementEvent::RequisitionRefused, failure, note)?;
        transition.requisitions.retain(|other| other.name != *name);
        transition
            .requisitions
            .push(RequisitionChange { refusal: Some(refusal.clone()), ..change(requisition, state) });
        Ok(Some(transition))
    }

    fn confirmed(
        &self,
        duchy: &DuchyId,
        key_list_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Transition>, Error> {
        let participant = self.participant(duchy)?;
        let same_keys = self.measurement.key_list_hash() == Some(*key_list_hash);
        if participant.state == ParticipantState::Ready && same_keys {
            return Ok(None);
        }
        let state = self.on_participant(participant, ParticipantEvent::Confirm)?;
        self.expect(MeasurementState::PendingParticipantConfirmation)?;
        self.in_time(now)?;
        if !same_keys {
            let failure = ParticipantFailure {
                message: "it confirmed another list of keys than the one that the Duchies gave to the Kingdom".into(),
                culprits: vec![DuchyName::new(duchy.clone()).to_string()],
            };
            let mut transition = self.fail_participant(participant, &failure)?;
            transition.other_keys = Some(duchy.clone());
            return Ok(Some(transition));
        }
        let mut transition = Transition {
            participants: vec![ParticipantChange { duchy: duchy.clone(), state, parameters: None, failure: None }],
            timeline: vec![Note::new(DuchyName::new(duchy.clone()), "confirmed nonces, keys and data")],
            ..Transition::default()
        };
        let ready = |part: &Participant| part.duchy == *duchy || part.state == ParticipantState::Ready;
        if self.measurement.participants.iter().all(ready) {
            transition.state = Some(self.on_measurement(MeasurementEvent::AllConfirmed)?);
            transition.timeline.push(Note::new("kingdom", "every Duchy has confirmed; started the computation"));
        }
        Ok(Some(transition))
    }

    fn participant_failed(&self, duchy: &DuchyId, failure: &ParticipantFailure) -> Result<Option<Transition>, Error> {
        let participant = self.participant(duchy)?;
        if participant.failure.as_ref() == Some(failure) {
            return Ok(None);
        }
        self.fail_participant(participant, failure).map(Some)
    }

    fn fail_participant(&self, participant: &Participant, failure: &ParticipantFailure) -> Result<Transition, Error> {
        let name = DuchyName::new(participant.duchy.clone());
        // The measurement is asked first: where it has ended, that is what the caller has to know.
        let ended = Failure {
            reason: FailureReason::ParticipantFailed,
            message: format!("Duchy {} failed: {}", participant.duchy, failure.message),
            culprits: failure.culprits.clone(),
        };
        let named = if failure.culprits.is_empty() {
            String::new()
        } else {
            format!(" (caused by {})", failure.culprits.join(", "))
        };
        let note = Note::new(&name, format!("failed: {}{named}", failure.message));
        let mut transition = self.end(MeasurementEvent::ParticipantFailed, ended, note)?;
        transition.participants.push(ParticipantChange {
            duchy: participant.duchy.clone(),
            state: self.on_participant(participant, ParticipantEvent::Fail)?,
            parameters: None,
            failure: Some(failure.clone()),
        });
        Ok(transition)
    }

    fn completed(
        &self,
        duchy: &DuchyId,
        result: &ComputationResult,
        now: Timestamp,
    ) -> Result<Option<Transition>, Error> {
        self.participant(duchy)?;
        if self.measurement.protocol.aggregator() != Some(duchy) {
            return Err(Error::NotAggregator { duchy: duchy.clone() });
        }
        if let Some(given) = &self.measurement.result {
            return if given == result { Ok(None) } else { Err(different("the result".into())) };
        }
        self.expect(MeasurementState::PendingComputation)?;
        self.in_time(now)?;
        if result.certificate.parent != DuchyName::new(duchy.clone()).into() {
            let detail = format!("it is no certificate of Duchy {duchy}");
            return Err(Error::Certificate { certificate: result.certificate.clone(), detail });
        }
        Ok(Some(Transition {
            state: Some(self.on_measurement(MeasurementEvent::ResultSet)?),
            result: Some(result.clone()),
            timeline: vec![Note::new(DuchyName::new(duchy.clone()), "handed in the encrypted result")],
            ..Transition::default()
        }))
    }

    fn cancelled(&self) -> Result<Option<Transition>, Error> {
        if self.measurement.state == MeasurementState::Cancelled {
            return Ok(None);
        }
        let consumer = format!("measurementConsumers/{}", self.measurement.name.measurement_consumer);
        let failure = Failure {
            reason: FailureReason::Cancelled,
            message: "cancelled by the measurement consumer".into(),
            culprits: Vec::new(),
        };
        self.end(MeasurementEvent::Cancel, failure, Note::new(consumer, "cancelled the measurement")).map(Some)
    }

    fn deadline_passed(
        &self,
        finished: &BTreeMap<DuchyId, usize>,
        now: Timestamp,
    ) -> Result<Option<Transition>, Error> {
        if self.measurement.state.is_terminal() || now < self.measurement.deadline {
            return Ok(None);
        }
        let (owed, owing) = self.debts(finished);
        let message = format!("the deadline of {} has passed; {owed}", self.measurement.deadline);
        let failure = Failure { reason: FailureReason::Cancelled, message: message.clone(), culprits: owing };
        self.end(MeasurementEvent::DeadlineExpired, failure, Note::new("kingdom", message)).map(Some)
    }

    /// Who owes what in the present state, in words and as resource names.
    ///
    /// While they compute, all Duchies go through the same stages, and none can finish one before it has what the others
    /// owe it for this stage. So whoever holds the computation up is among those who have finished the fewest; so may be
    /// some that wait for it.
    fn debts(&self, finished: &BTreeMap<DuchyId, usize>) -> (String, Vec<String>) {
        let duchies = |owes: &dyn Fn(&Participant) -> bool| -> Vec<String> {
            let owing = self.measurement.participants.iter().filter(|participant| owes(participant));
            owing.map(|participant| DuchyName::new(participant.duchy.clone()).to_string()).collect()
        };
        let (what, owing) = match self.measurement.state {
            MeasurementState::PendingRequisitionParams => {
                ("keys are missing", duchies(&|participant| participant.parameters.is_none()))
            }
            MeasurementState::PendingRequisitionFulfillment => {
                let open = self.measurement.requisitions.iter().filter(|requisition| requisition.fulfilment.is_none());
                ("data is missing", open.map(|open| format!("dataProviders/{}", open.name.data_provider)).collect())
            }
            MeasurementState::PendingParticipantConfirmation => {
                ("confirmations are missing", duchies(&|participant| participant.state != ParticipantState::Ready))
            }
            _ => {
                let stages = |participant: &Participant| finished.get(&participant.duchy).copied().unwrap_or_default();
                let fewest = self.measurement.participants.iter().map(stages).min().unwrap_or_default();
                let owing = duchies(&|participant| stages(participant) == fewest);
                let owed =
                    format!("the computation did not end; the fewest stages were finished by {}", owing.join(", "));
                return (owed, owing);
            }
        };
        (format!("{what} from {}", owing.join(", ")), owing)
    }

    fn certificate_revoked(&self, certificate: &CertificateName) -> Result<Option<Transition>, Error> {
        let measurement = self.measurement;
        // With its certificate a publisher signs its answer, and in a share shuffle what only one worker may read, which
        // that worker verifies later.
        let needed = |requisition: &Requisition| {
            matches!(requisition.state, RequisitionState::PendingParams | RequisitionState::Unfulfilled)
                || matches!(measurement.protocol, Protocol::Hmss(_))
        };
        let signed = |requisition: &Requisition| {
            let result = requisition.fulfilment.as_ref().and_then(Fulfilment::result);
            result.is_some_and(|result| result.certificate == *certificate)
        };
        let used = measurement.consumer_certificate == *certificate
            || measurement
                .requisitions
                .iter()
                .any(|part| (needed(part) && part.certificate == *certificate) || signed(part))
            || measurement
                .participants
                .iter()
                .any(|part| part.parameters.as_ref().is_some_and(|given| given.certificate == *certificate));
        if !used || measurement.state.is_terminal() {
            return Ok(None);
        }
        let message = format!("{certificate}, which this measurement relies on, was revoked or put on hold");
        let failure =
            Failure { reason: FailureReason::CertificateRevoked, message: message.clone(), culprits: Vec::new() };
        self.end(MeasurementEvent::CertificateRevoked, failure, Note::new("kingdom", message)).map(Some)
    }

    /// Ends the measurement without a result and withdraws the open requisitions.
    fn end(&self, event: MeasurementEvent, failure: Failure, note: Note) -> Result<Transition, Error> {
        let state = self.on_measurement(event)?;
        let requisitions = self
            .measurement
            .requisitions
            .iter()
            .filter_map(|requisition| {
                let withdrawn = requisition.state.on(RequisitionEvent::Withdraw).ok()?;
                Some(change(requisition, withdrawn))
            })
            .collect();
        Ok(Transition {
            state: Some(state),
            requisitions,
            failure: Some(failure),
            timeline: vec![note],
            ..Transition::default()
        })
    }

    fn participant(&self, duchy: &DuchyId) -> Result<&Participant, Error> {
        self.measurement.participant(duchy).ok_or_else(|| Error::NotParticipant { duchy: duchy.clone() })
    }

    fn requisition(&self, name: &RequisitionName) -> Result<&Requisition, Error> {
        self.measurement.requisition(name).ok_or_else(|| Error::NoSuchRequisition { requisition: name.clone() })
    }

    fn expect(&self, state: MeasurementState) -> Result<(), Error> {
        if self.measurement.state == state { Ok(()) } else { Err(self.illegal()) }
    }

    fn in_time(&self, now: Timestamp) -> Result<(), Error> {
        if now < self.measurement.deadline {
            return Ok(());
        }
        Err(Error::DeadlinePassed { measurement: self.measurement.name.clone(), action: self.action })
    }

    fn illegal(&self) -> Error {
        Error::MeasurementState {
            measurement: self.measurement.name.clone(),
            state: self.measurement.state,
            action: self.action,
        }
    }

    fn on_measurement(&self, event: MeasurementEvent) -> Result<MeasurementState, Error> {
        self.measurement.state.on(event).map_err(|_| self.illegal())
    }

    fn on_requisition(&self, requisition: &Requisition, event: RequisitionEvent) -> Result<RequisitionState, Error> {
        requisition.state.on(event).map_err(|_| Error::RequisitionState {
            requisition: requisition.name.clone(),
            state: requisition.state,
            action: self.action,
        })
    }

    fn on_participant(&self, participant: &Participant, event: ParticipantEvent) -> Result<ParticipantState, Error> {
        participant.state.on(event).map_err(|_| Error::ParticipantState {
            duchy: participant.duchy.clone(),
            state: participant.state,
            action: self.action,
        })
    }
}

fn change(requisition: &Requisition, state: RequisitionState) -> RequisitionChange {
    RequisitionChange { name: requisition.name.clone(), state, fulfilment: None, refusal: None }
}

fn different(what: String) -> Error {
    Error::AlreadyDifferent { what }
}

#[cfg(test)]
mod tests;
