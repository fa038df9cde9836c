//! What a decision changes.

use halo_core::{
    clock::Timestamp,
    measurement::{MeasurementState, ParticipantState, RequisitionState},
    resource::{DuchyId, RequisitionName},
};

use crate::record::{ComputationResult, Failure, Fulfilment, Measurement, Parameters, ParticipantFailure, Refusal};

/// What is to be stored, all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transition {
    /// New state of the measurement.
    pub state: Option<MeasurementState>,
    /// Changed requisitions.
    pub requisitions: Vec<RequisitionChange>,
    /// Changed participants.
    pub participants: Vec<ParticipantChange>,
    /// Why the measurement failed or was cancelled.
    pub failure: Option<Failure>,
    /// The result.
    pub result: Option<ComputationResult>,
    /// What to write to the timeline, oldest first.
    pub timeline: Vec<Note>,
    /// The Duchy that confirmed another list of keys, or brought data under one: the measurement fails for it, and the
    /// caller is told so.
    pub other_keys: Option<DuchyId>,
}

/// A requisition's change.
#[derive(Clone, Debug, PartialEq)]
pub struct RequisitionChange {
    /// Which one.
    pub name: RequisitionName,
    /// New state.
    pub state: RequisitionState,
    /// How it was fulfilled, when it was.
    pub fulfilment: Option<Fulfilment>,
    /// Why it was refused, when it was.
    pub refusal: Option<Refusal>,
}

/// A participant's change.
#[derive(Clone, Debug, PartialEq)]
pub struct ParticipantChange {
    /// Which one.
    pub duchy: DuchyId,
    /// New state.
    pub state: ParticipantState,
    /// Its key share, when it was given.
    pub parameters: Option<Parameters>,
    /// Why it failed, when it did.
    pub failure: Option<ParticipantFailure>,
}

/// A line of the timeline: who did what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Resource name, or `kingdom`.
    pub actor: String,
    /// What happened, in words; never a secret.
    pub message: String,
}

impl Note {
    /// A line.
    pub fn new(actor: impl ToString, message: impl Into<String>) -> Self {
        Self { actor: actor.to_string(), message: message.into() }
    }
}

/// Applies a transition to the measurement that it was decided for, as every store does.
pub fn apply(measurement: &mut Measurement, transition: &Transition, now: Timestamp) {
    let now = now.max(measurement.update_time);
    measurement.update_time = now;
    measurement.revision += 1;
    if let Some(state) = transition.state {
        measurement.state = state;
    }
    for change in &transition.requisitions {
        if let Some(requisition) =
            measurement.requisitions.iter_mut().find(|requisition| requisition.name == change.name)
        {
            requisition.state = change.state;
            requisition.update_time = now;
            requisition.fulfilment = change.fulfilment.clone().or(requisition.fulfilment.take());
            requisition.refusal = change.refusal.clone().or(requisition.refusal.take());
        }
    }
    for change in &transition.participants {
        if let Some(participant) = measurement.participants.iter_mut().find(|part| part.duchy == change.duchy) {
            participant.state = change.state;
            participant.update_time = now;
            participant.parameters = change.parameters.clone().or(participant.parameters.take());
            participant.failure = change.failure.clone().or(participant.failure.take());
        }
    }
    if let Some(failure) = &transition.failure {
        measurement.failure = Some(failure.clone());
    }
    if let Some(result) = &transition.result {
        measurement.result = Some(result.clone());
    }
}
