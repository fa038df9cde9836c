//! What the Kingdom knows of one measurement.
//!
//! Everything that somebody signed is kept as the bytes that arrived; nothing here is ever encoded anew.

use halo_core::{
    clock::Timestamp,
    measurement::{MeasurementState, ParticipantState, Protocol, RequisitionState},
    resource::{CertificateName, ComputationName, DuchyId, MeasurementName, RequisitionName},
    session,
};

/// A message of any type with the name of the type, as in `google.protobuf.Any`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// Type of the message, such as `type.googleapis.com/wfa.measurement.api.v2alpha.MeasurementSpec`.
    pub type_url: String,
    /// The serialized message, or its ciphertext.
    pub bytes: Vec<u8>,
}

/// A message and the signature over its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The message.
    pub message: Typed,
    /// Signature over `message.bytes`.
    pub signature: Vec<u8>,
    /// Algorithm of the signature, as a dotted object identifier.
    pub algorithm_oid: String,
}

/// A measurement with its requisitions and participants.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// Public name.
    pub name: MeasurementName,
    /// Name that the Duchies use; where none computes, nobody is told it.
    pub computation: ComputationName,
    /// The consumer's own label; not interpreted.
    pub reference_id: String,
    /// Certificate that verifies `spec`.
    pub consumer_certificate: CertificateName,
    /// The signed `MeasurementSpec`.
    pub spec: Signed,
    /// The serialized `ProtocolConfig`, frozen at creation.
    pub protocol_config: Vec<u8>,
    /// What `protocol_config` says of the protocol.
    pub protocol: Protocol,
    /// Where the measurement stands.
    pub state: MeasurementState,
    /// When it was created, Kingdom clock.
    pub create_time: Timestamp,
    /// When it last changed, Kingdom clock; never goes back.
    pub update_time: Timestamp,
    /// When it is cancelled unless it has ended, Kingdom clock.
    pub deadline: Timestamp,
    /// One for each publisher, in the order of the request.
    pub requisitions: Vec<Requisition>,
    /// The Duchies that compute, ascending by id; none where publishers do so themselves.
    pub participants: Vec<Participant>,
    /// Why it failed or was cancelled.
    pub failure: Option<Failure>,
    /// The Duchies' result, encrypted for the consumer.
    pub result: Option<ComputationResult>,
    /// Number of changes so far. A change is stored only if nobody else stored one in between.
    pub revision: u64,
}

impl Measurement {
    /// A Duchy's part.
    #[must_use]
    pub fn participant(&self, duchy: &DuchyId) -> Option<&Participant> {
        self.participants.iter().find(|participant| participant.duchy == *duchy)
    }

    /// A publisher's requisition.
    #[must_use]
    pub fn requisition(&self, name: &RequisitionName) -> Option<&Requisition> {
        self.requisitions.iter().find(|requisition| requisition.name == *name)
    }

    /// The ids of all participants, ascending.
    #[must_use]
    pub fn duchies(&self) -> Vec<DuchyId> {
        self.participants.iter().map(|participant| participant.duchy.clone()).collect()
    }

    /// The hash of the list of all Duchies' keys; `None` until every Duchy has given its key.
    #[must_use]
    pub fn key_list_hash(&self) -> Option<[u8; 32]> {
        let keys: Vec<(DuchyId, &[u8])> = self
            .participants
            .iter()
            .map(|participant| {
                let key = participant.parameters.as_ref()?;
                Some((participant.duchy.clone(), key.public_key.as_slice()))
            })
            .collect::<Option<_>>()?;
        Some(session::key_list_hash(&keys))
    }

    /// The Duchy that takes a requisition's data; `None` where no Duchy does.
    #[must_use]
    pub fn fulfilling_duchy(&self, requisition: &RequisitionName) -> Option<DuchyId> {
        session::fulfilling_duchy(requisition, &self.protocol.fulfilling_duchies(&self.duchies())).cloned()
    }

    /// The hash of the list of those keys under which a requisition's data is encrypted: in a share shuffle the key of
    /// the worker that does not take the data, in the other protocols those of all Duchies. `None` until they are given.
    #[must_use]
    pub fn upload_key_list_hash(&self, requisition: &RequisitionName) -> Option<[u8; 32]> {
        let Protocol::Hmss(hmss) = &self.protocol else {
            return self.key_list_hash();
        };
        let other = match self.fulfilling_duchy(requisition)? {
            duchy if duchy == hmss.first_worker => &hmss.second_worker,
            _ => &hmss.first_worker,
        };
        let key = self.participant(other)?.parameters.as_ref()?;
        Some(session::key_list_hash(&[(other.clone(), key.public_key.as_slice())]))
    }

    /// The identity of the session that publishers and Duchies bind proofs and uploads to.
    #[must_use]
    pub fn session_id(&self) -> [u8; 32] {
        session::session_id(&self.spec.message.bytes, &self.protocol_config, &self.duchies())
    }
}

/// A publisher's part in a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Requisition {
    /// Public name.
    pub name: RequisitionName,
    /// The publisher's certificate at creation.
    pub certificate: CertificateName,
    /// The publisher's `EncryptionPublicKey` to which `encrypted_spec` is encrypted.
    pub public_key: Typed,
    /// The encrypted `SignedMessage` of the `RequisitionSpec`.
    pub encrypted_spec: Typed,
    /// SHA-256 of the nonce inside the encrypted specification.
    pub nonce_hash: [u8; 32],
    /// Where it stands.
    pub state: RequisitionState,
    /// When it last changed, Kingdom clock.
    pub update_time: Timestamp,
    /// How it was fulfilled.
    pub fulfilment: Option<Fulfilment>,
    /// Why it was refused.
    pub refusal: Option<Refusal>,
}

/// What a publisher did for a measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fulfilment {
    /// The nonce that the publisher revealed; never 0.
    pub nonce: u64,
    /// What it delivered, and where.
    pub delivery: Delivery,
    /// Software and warnings that the publisher reported.
    pub context: Option<FulfillmentContext>,
}

/// What a publisher delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Data, to a Duchy.
    Upload(Upload),
    /// Its own result, to the Kingdom.
    Result(DirectResult),
}

/// What a Duchy announces when a publisher's data has arrived completely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// The Duchy that holds the data.
    pub duchy: DuchyId,
    /// Hash of the list of Duchy keys under which the publisher encrypted.
    pub key_list_hash: [u8; 32],
    /// SHA-256 of the uploaded records.
    pub body_sha256: [u8; 32],
    /// Number of uploaded records.
    pub record_count: u64,
}

/// A publisher's own result, encrypted for the consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResult {
    /// The publisher's certificate that verifies the signed result.
    pub certificate: CertificateName,
    /// Ciphertext of the serialized `SignedMessage` of the result.
    pub ciphertext: Vec<u8>,
}

impl Fulfilment {
    /// The upload, where there is one.
    #[must_use]
    pub const fn upload(&self) -> Option<&Upload> {
        match &self.delivery {
            Delivery::Upload(upload) => Some(upload),
            Delivery::Result(_) => None,
        }
    }

    /// The publisher's own result, where there is one.
    #[must_use]
    pub const fn result(&self) -> Option<&DirectResult> {
        match &self.delivery {
            Delivery::Result(result) => Some(result),
            Delivery::Upload(_) => None,
        }
    }
}

/// Software and warnings that a publisher reports with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FulfillmentContext {
    /// Build of the publisher's software.
    pub build_label: String,
    /// Warnings, in the publisher's words.
    pub warnings: Vec<String>,
}

/// Why a publisher refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of reason, as its number on the wire (1 to 5).
    pub justification: i32,
    /// The reason in words.
    pub message: String,
}

/// A Duchy's part in a measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Participant {
    /// The Duchy.
    pub duchy: DuchyId,
    /// Where it stands.
    pub state: ParticipantState,
    /// When it last changed, Kingdom clock.
    pub update_time: Timestamp,
    /// Its key for this measurement.
    pub parameters: Option<Parameters>,
    /// Why it failed.
    pub failure: Option<ParticipantFailure>,
}

/// A Duchy's signed key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Certificate that verifies the signature.
    pub certificate: CertificateName,
    /// The serialized key: in Liquid Legions protocols the `ElGamalPublicKey` with its proof of possession, in the
    /// others the `EncryptionPublicKey`. Empty for the aggregator of a share shuffle, to which nobody encrypts.
    pub public_key: Vec<u8>,
    /// Signature over `public_key`; may be empty where that is.
    pub signature: Vec<u8>,
    /// Algorithm of the signature, as a dotted object identifier.
    pub algorithm_oid: String,
    /// Evidence of what runs at a trustee; empty in other protocols.
    pub attestation: Vec<u8>,
}

/// A permanent error of one Duchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParticipantFailure {
    /// What happened, in the Duchy's words.
    pub message: String,
    /// Resource names of those who caused it, as far as they are known.
    pub culprits: Vec<String>,
}

/// Why a measurement failed or was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of reason.
    pub reason: FailureReason,
    /// The reason in words.
    pub message: String,
    /// Resource names of those who caused it or owed something, as far as they are known.
    pub culprits: Vec<String>,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    /// Cancelled by the consumer or by the deadline; the wire has no number for it.
    Cancelled,
    /// A certificate in use was revoked or put on hold.
    CertificateRevoked,
    /// A publisher refused.
    RequisitionRefused,
    /// A Duchy failed.
    ParticipantFailed,
}

impl FailureReason {
    /// The number on the wire, 0 where it has none.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Cancelled => 0,
            Self::CertificateRevoked => 1,
            Self::RequisitionRefused => 2,
            Self::ParticipantFailed => 3,
        }
    }

    /// Reads [`Self::code`].
    #[must_use]
    pub const fn from_code(code: i32) -> Option<Self> {
        match code {
            0 => Some(Self::Cancelled),
            1 => Some(Self::CertificateRevoked),
            2 => Some(Self::RequisitionRefused),
            3 => Some(Self::ParticipantFailed),
            _ => None,
        }
    }
}

/// The result as the aggregator handed it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComputationResult {
    /// The aggregator's certificate that verifies the signed result.
    pub certificate: CertificateName,
    /// The serialized `EncryptionPublicKey` to which the result is encrypted.
    pub public_key: Vec<u8>,
    /// Ciphertext of the serialized `SignedMessage` of the result.
    pub ciphertext: Vec<u8>,
}
