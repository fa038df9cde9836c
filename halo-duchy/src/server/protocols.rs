//! The protocols that a Duchy serves. Nothing outside of this module knows one by name: [`Protocol`] is what everything
//! else asks, and adding a protocol is a file here and a line in [`served`].
//!
//! | file | protocol |
//! |---|---|
//! | `llv2` | Liquid Legions v2 |
//! | `rollv2` | reach-only Liquid Legions v2 |
//! | `hmss` | honest-majority share shuffle, as the reference has it and native |
//! | `trustee` | one Duchy's trusted process |
//!
//! `liquid_legions` holds what both Liquid Legions protocols have in common, `vector` and `encryption_key` what those over
//! frequency vectors have.

mod encryption_key;
mod hmss;
mod liquid_legions;
mod llv2;
mod rollv2;
mod trustee;
mod vector;

use std::fmt;
use std::sync::Arc;

use halo_core::clock::Timestamp;
use halo_core::measurement::{self, MeasurementSpec, MeasurementType, ProtocolConfig, ProtocolKind};
use halo_core::pb::api::fulfill_requisition_request::Header;
use halo_core::pb::api::measurement::Result as MeasurementResult;
use halo_core::pb::api::protocol_config::NoiseMechanism as WireMechanism;
use halo_core::pb::system;
use halo_core::pb::system::advance_computation_request::header;
use halo_core::pb::system::computation_participant::requisition_params;
use halo_core::pb::system::computation_stage;
use halo_core::privacy::{NoiseCalibration, NoiseMechanism, PrivacyParams};
use halo_core::resource::{DuchyId, RequisitionName};
use halo_crypto::consent::x509::Certificate;

use super::config::NoiseFloor;
use super::duchy::{Duchy, Settings};
use super::parties::{Consent, Parties};
use super::secrets::{ComputationSecrets, KeyKind};
use super::stage::{Role, Stage};
use super::terms::{Keys, Refusal, Terms};
use crate::protocol::local::Engine;
use crate::protocol::{Body, Description, ProtocolError, Received, Slot, State, Step, Workspace};

/// One protocol, with the parameters of one computation.
pub(crate) trait Protocol: fmt::Debug + Send + Sync {
    /// Its name.
    fn kind(&self) -> ProtocolKind;

    /// The Duchies that take part, where the configuration says which; `None`: all that the Kingdom lists.
    fn duchies(&self) -> Option<Vec<DuchyId>> {
        None
    }

    /// Checks that the parameters are in range, and that no noise is less than the operator asks for.
    fn check(&self, terms: &Terms, parties: &Parties, settings: &Settings) -> Result<(), Refusal>;

    /// Where a Duchy waits after it has confirmed, until all have; `None`: for messages, as soon as it has.
    fn after_confirmation(&self, role: Role) -> Option<Stage> {
        match role {
            Role::Worker => Some(Stage::WaitToStart),
            Role::Aggregator => None,
        }
    }

    /// What kind of key a Duchy draws.
    fn key_kind(&self, duchy: &DuchyId) -> KeyKind;

    /// The public key of this Duchy, as it is signed: the same bytes each time.
    fn public_key(&self, terms: &Terms, consent: &Consent, me: &DuchyId, secrets: &ComputationSecrets) -> Vec<u8>;

    /// Puts a signed key into the message that a Duchy publishes.
    fn publish(&self, terms: &Terms, me: &DuchyId, key: SignedKey) -> Result<requisition_params::Protocol, Refusal>;

    /// The signed key that a Duchy has published; `None` when it is of another protocol.
    fn published(&self, params: &requisition_params::Protocol) -> Option<SignedKey>;

    /// Checks what a Duchy has published, apart from its signature. The error says what is wrong with it.
    fn check_key(&self, terms: &Terms, duchy: &DuchyId, certificate: &Certificate, key: &[u8]) -> Result<(), String>;

    /// Whether a publisher whose requisition is fulfilled at one Duchy encrypts to the key of another.
    fn encrypts_to(&self, fulfilling: &DuchyId, duchy: &DuchyId) -> bool {
        let _ = (fulfilling, duchy);
        true
    }

    /// How the bodies of uploads are made up.
    fn upload_shape(&self) -> Shape;

    /// Checks the header of an upload, and gives what has to be kept of it beside the body.
    fn read_upload(&self, terms: &Terms, header: &Header) -> Result<Vec<u8>, String>;

    /// Checks the body of an upload to its last record.
    fn check_upload(&self, terms: &Terms, requisition: &str, body: &Body) -> Result<(), ProtocolError>;

    /// Checks what the Kingdom says of a requisition that is fulfilled, wherever it is; the general rules have been
    /// checked. The publisher is to blame.
    fn check_fulfilled(
        &self,
        terms: &Terms,
        parties: &Parties,
        name: &RequisitionName,
        requisition: &system::Requisition,
        now: Timestamp,
    ) -> Result<(), String> {
        let _ = (terms, parties, name, requisition, now);
        Ok(())
    }

    /// The number of a message in the protocol's enum on the wire; `None` where a Duchy sends no such message.
    fn message_number(&self, description: Description, from: &DuchyId) -> Option<i32>;

    /// What the header of a message says of its number; `None` where there are no messages.
    fn message_header(&self, number: i32) -> Option<header::Protocol>;

    /// The number that the header of a message says; `None` when it is of another protocol.
    fn header_number(&self, header: &header::Protocol) -> Option<i32>;

    /// Bytes of a record of a message that this Duchy, `me`, receives.
    fn message_record_bytes(&self, terms: &Terms, slot: &Slot, me: &DuchyId) -> usize;

    /// Bytes of the longest message that is accepted where that is not for the operator to say.
    fn message_limit(&self, _slot: &Slot) -> Option<u64> {
        None
    }

    /// Checks a message that this Duchy, `me`, receives to its last record, before it is bound to its slot.
    fn check_message(&self, terms: &Terms, slot: &Slot, me: &DuchyId, body: &Body) -> Result<(), ProtocolError>;

    /// The number of a stage in the protocol's enum on the wire, as the Duchy that stands there has it.
    fn stage_number(&self, stage: Stage, me: &DuchyId) -> i32;

    /// A stage by its number, on the wire; `None` where there is no message for the protocol's stages.
    fn wire_stage(&self, number: i32) -> Option<computation_stage::Stage>;

    /// This Duchy's side of the computation.
    fn side(&self, sitting: Sitting<'_>) -> Result<Box<dyn Side>, Unseated>;
}

/// The protocol of a configuration.
///
/// # Errors
/// When this Duchy does not serve it.
pub(crate) fn served(config: &ProtocolConfig) -> Result<Arc<dyn Protocol>, Refusal> {
    match &config.protocol {
        measurement::Protocol::Llv2(llv2) => Ok(Arc::new(llv2::Llv2(llv2.clone()))),
        measurement::Protocol::Rollv2(rollv2) => Ok(Arc::new(rollv2::Rollv2(rollv2.clone()))),
        measurement::Protocol::Hmss(hmss) => Ok(Arc::new(hmss::Hmss(hmss.clone()))),
        measurement::Protocol::Trustee(trustee) => Ok(Arc::new(trustee::Trustee(trustee.clone()))),
        other @ measurement::Protocol::Direct(_) => {
            Err(Refusal::new(format!("this Duchy does not serve the protocol {}", other.kind())))
        }
    }
}

/// The stages that a computation passes in one role, with a maximum frequency of 2 or more where frequencies are possible;
/// none for a protocol that is not served.
pub(crate) fn stages(kind: ProtocolKind, role: Role) -> Vec<Stage> {
    let between: &[Stage] = match kind {
        ProtocolKind::Llv2 => llv2::STAGES,
        ProtocolKind::Rollv2 => rollv2::STAGES,
        ProtocolKind::Hmss | ProtocolKind::HmssNative => hmss::stages(role),
        ProtocolKind::Trustee => trustee::STAGES,
        ProtocolKind::Direct => return Vec::new(),
    };
    let begin = [Stage::InitializationPhase, Stage::WaitRequisitionsAndKeySet, Stage::ConfirmationPhase];
    let not_passed = match role {
        Role::Aggregator => Stage::WaitToStart,
        Role::Worker => Stage::WaitSetupPhaseInputs,
    };
    let between = between.iter().copied().filter(|stage| *stage != not_passed);
    begin.into_iter().chain(between).chain([Stage::Complete]).collect()
}

/// A public key with its Duchy's signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedKey {
    /// As it was signed; empty where a Duchy has none.
    pub(crate) key: Vec<u8>,
    /// The signature.
    pub(crate) signature: Vec<u8>,
    /// Object identifier of the signature's algorithm.
    pub(crate) oid: String,
}

/// How a body is made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Records of so many bytes each.
    Records(u64),
    /// Records of different lengths, none of them longer than so many bytes, and so many bytes beside them.
    Encoded {
        /// Bytes of a record at most.
        record: u64,
        /// Bytes beside the records at most.
        beside: u64,
    },
}

impl Shape {
    /// Checks that so many records can be so many bytes.
    ///
    /// # Errors
    /// In words.
    pub fn check(self, records: u64, length: u64) -> Result<(), String> {
        match self {
            Self::Records(bytes) if records.checked_mul(bytes) == Some(length) => Ok(()),
            Self::Records(bytes) => Err(format!("{records} records of {bytes} bytes are not {length} bytes")),
            Self::Encoded { record, beside } => {
                let most = records.saturating_mul(record).saturating_add(beside);
                if length <= most {
                    Ok(())
                } else {
                    Err(format!("{records} records have at most {most} bytes, not {length}"))
                }
            }
        }
    }

    /// Bytes of a record where all are alike; 1 where the bytes have to be decoded.
    pub(crate) const fn record_bytes(self) -> usize {
        match self {
            Self::Records(bytes) => bytes as usize,
            Self::Encoded { .. } => 1,
        }
    }
}

/// An upload at this Duchy.
#[derive(Clone, Debug)]
pub(crate) struct Uploaded {
    /// `dataProviders/{data_provider}/requisitions/{requisition}`.
    pub(crate) requisition: String,
    /// What was uploaded.
    pub(crate) body: Body,
    /// What [`Protocol::read_upload`] has kept.
    pub(crate) attachment: Vec<u8>,
}

/// Everything that a Duchy's side of a computation is made of.
pub(crate) struct Sitting<'a> {
    pub(crate) duchy: &'a Arc<Duchy>,
    pub(crate) terms: &'a Arc<Terms>,
    pub(crate) keys: Keys,
    pub(crate) secrets: ComputationSecrets,
    /// Sorted by the requisition's name.
    pub(crate) uploads: Vec<Uploaded>,
}

/// Why there is no side to compute with.
#[derive(Debug)]
pub(crate) enum Unseated {
    /// The terms are no good.
    Refused(Refusal),
    /// The engine refuses.
    Protocol(ProtocolError),
    /// The stored key is of another kind than the protocol's.
    WrongKey,
}

impl From<Refusal> for Unseated {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ProtocolError> for Unseated {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

/// An engine with its uploads, which gives what the consumer reads. The methods are those of [`Engine`].
pub(crate) trait Side: Send {
    fn start(&self, workspace: &dyn Workspace) -> Result<Step<MeasurementResult>, ProtocolError>;
    fn advance(
        &self,
        state: &State,
        inbox: &[Received],
        workspace: &dyn Workspace,
    ) -> Result<Step<MeasurementResult>, ProtocolError>;
}

/// Makes an engine's requisitions of the uploads; what it writes for them is in the workspace.
type Prepare<R> = Box<dyn Fn(&dyn Workspace) -> Result<Vec<R>, ProtocolError> + Send>;
/// Makes the consumer's result of what an engine has found.
type Conclude<O> = Box<dyn Fn(&O) -> Result<MeasurementResult, ProtocolError> + Send>;

/// Any engine as a [`Side`].
struct Seated<E: Engine> {
    engine: E,
    prepare: Prepare<E::Requisition>,
    conclude: Conclude<E::Outcome>,
}

impl<E: Engine> Seated<E> {
    fn concluded(&self, step: Step<E::Outcome>) -> Result<Step<MeasurementResult>, ProtocolError> {
        Ok(match step {
            Step::Wait { state, outbox, awaiting } => Step::Wait { state, outbox, awaiting },
            Step::Done { output, outbox } => {
                Step::Done { output: output.as_ref().map(&self.conclude).transpose()?, outbox }
            }
        })
    }
}

impl<E: Engine + Send> Side for Seated<E> {
    fn start(&self, workspace: &dyn Workspace) -> Result<Step<MeasurementResult>, ProtocolError> {
        self.concluded(self.engine.start(&(self.prepare)(workspace)?, workspace)?)
    }

    fn advance(
        &self,
        state: &State,
        inbox: &[Received],
        workspace: &dyn Workspace,
    ) -> Result<Step<MeasurementResult>, ProtocolError> {
        self.concluded(self.engine.advance(state, &(self.prepare)(workspace)?, inbox, workspace)?)
    }
}

/// Checks what the consumer has signed where there is noise: ε and δ of everything that it asks for.
fn check_result_noise(spec: &MeasurementSpec, floor: &NoiseFloor) -> Result<(), Refusal> {
    let asked: &[(&str, PrivacyParams)] = match spec.kind {
        MeasurementType::Reach { reach } => &[("reach", reach)],
        MeasurementType::ReachAndFrequency { reach, frequency, .. } => &[("reach", reach), ("frequency", frequency)],
        MeasurementType::Impression { impression, .. } => &[("impression", impression)],
        MeasurementType::Duration { duration, .. } => &[("duration", duration)],
        MeasurementType::Population => &[],
    };
    for (name, params) in asked {
        if params.epsilon.get() > floor.maximum_result_epsilon || params.delta.get() > floor.maximum_result_delta {
            return Err(Refusal::new(format!(
                "measurement_spec: {name}: the consumer asks for {params}, which is less noise than ({}, {}), the least \
                 that a result has here (maximum_result_epsilon, maximum_result_delta)",
                floor.maximum_result_epsilon, floor.maximum_result_delta
            )));
        }
    }
    Ok(())
}

/// Checks what every protocol's noise has in common: calibration and honest contributors, `None` without noise, and what
/// the consumer has signed.
fn check_floor(
    noise: Option<(NoiseCalibration, u32)>,
    spec: &MeasurementSpec,
    floor: &NoiseFloor,
) -> Result<(), Refusal> {
    let Some((calibration, honest_contributors)) = noise else {
        return if floor.allow_no_noise {
            Ok(())
        } else {
            Err(Refusal::new("the measurement goes without noise, which is not allowed here (allow_no_noise)"))
        };
    };
    if calibration == NoiseCalibration::Reference && !floor.allow_reference_calibration {
        return Err(Refusal::new(
            "the noise is calibrated as the reference does, which proves less and is not allowed here \
             (allow_reference_calibration)",
        ));
    }
    if honest_contributors > floor.maximum_honest_contributors {
        return Err(Refusal::new(format!(
            "the noise of {honest_contributors} Duchies together is to suffice; here at most {} are relied on \
             (maximum_honest_contributors)",
            floor.maximum_honest_contributors
        )));
    }
    check_result_noise(spec, floor)
}

fn wire_mechanism(mechanism: Option<NoiseMechanism>) -> WireMechanism {
    match mechanism {
        None => WireMechanism::None,
        Some(NoiseMechanism::DiscreteGaussian) => WireMechanism::DiscreteGaussian,
        Some(NoiseMechanism::Geometric) => WireMechanism::Geometric,
    }
}
