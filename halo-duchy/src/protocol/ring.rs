//! One Duchy's place in the ring of one computation: what all ring protocols share.

use std::fmt;

use halo_crypto::elgamal::{CompositeKey, KeyShareSecret};
use halo_crypto::proof::VerifiedShare;
use halo_crypto::secret::Secret;

use super::record::CHUNK_RECORDS;
use super::seat::{Engine, Seat, check_inbox};
use super::stream::Consumed;
use super::{Body, Description, DuchyId, Message, ProtocolError, Received, Slot, State, Step};

/// A Duchy as its peers know it.
#[derive(Clone, Debug)]
pub struct Participant {
    /// Its id.
    pub id: DuchyId,
    /// Its key share, whose possession it has proven.
    pub key: VerifiedShare,
}

/// Where a Duchy stands, with its keys and its seed.
pub(crate) struct Place {
    pub(crate) seat: Seat,
    /// All Duchies in ring order, the aggregator last.
    pub(crate) ring: Vec<Participant>,
    pub(crate) position: usize,
    pub(crate) secret: KeyShareSecret,
    pub(crate) full_key: CompositeKey,
    /// Keys of those who have yet to peel after this Duchy; at the aggregator the full key.
    pub(crate) remaining_key: CompositeKey,
    /// Records that are held in memory at once.
    pub(crate) chunk_records: usize,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.seat.fmt(f)
    }
}

impl Place {
    /// Takes a place. `parameters` is what has been hashed of the protocol's parameters; everything else is as the
    /// engines' constructors say.
    pub(crate) fn new(
        engine: Engine,
        parameters: Consumed,
        computation: String,
        ring: Vec<Participant>,
        me: DuchyId,
        secret: KeyShareSecret,
        seed: Secret<[u8; 32]>,
    ) -> Result<Self, ProtocolError> {
        let refuse = |reason: String| Err(ProtocolError::Ring(reason));
        if ring.len() < 2 {
            return refuse(format!("{} Duchies; at least 2 are needed", ring.len()));
        }
        if let Some((at, twice)) = ring.iter().enumerate().find(|(at, one)| ring[..*at].iter().any(|o| o.id == one.id))
        {
            return refuse(format!("{} is named twice, the second time at position {at}", twice.id));
        }
        let Some(position) = ring.iter().position(|participant| participant.id == me) else {
            return refuse(format!("{me} is not in it"));
        };
        if ring[position].key.share() != secret.public() {
            return refuse(format!("the key share of {me} is not the one of its secret key"));
        }
        let combine = |participants: &[Participant]| {
            let shares: Vec<VerifiedShare> = participants.iter().map(|participant| participant.key).collect();
            CompositeKey::combine(&shares).map_err(|error| ProtocolError::Ring(error.to_string()))
        };
        let full_key = combine(&ring)?;
        let is_aggregator = position + 1 == ring.len();
        let remaining_key = combine(if is_aggregator { &ring } else { &ring[position + 1..] })?;
        let context = ring
            .iter()
            .fold(parameters, |consumed, participant| {
                consumed.bytes(participant.id.as_str().as_bytes()).bytes(participant.key.share().as_bytes())
            })
            .finish();
        let seat = Seat { engine, computation, duchy: me, seed, context };
        Ok(Self { seat, ring, position, secret, full_key, remaining_key, chunk_records: CHUNK_RECORDS })
    }

    pub(crate) fn id(&self) -> &DuchyId {
        &self.ring[self.position].id
    }

    pub(crate) fn is_aggregator(&self) -> bool {
        self.position + 1 == self.ring.len()
    }

    /// Whether this Duchy is the worker before the aggregator.
    pub(crate) fn is_last_worker(&self) -> bool {
        self.position + 2 == self.ring.len()
    }

    pub(crate) fn aggregator(&self) -> &DuchyId {
        &self.ring[self.ring.len() - 1].id
    }

    pub(crate) fn next(&self) -> &DuchyId {
        &self.ring[(self.position + 1) % self.ring.len()].id
    }

    /// Everybody who has handled what comes around the ring before it reaches this Duchy.
    pub(crate) fn upstream(&self) -> Vec<DuchyId> {
        let before = self.ring[..self.position].iter().map(|participant| participant.id.clone());
        if self.is_aggregator() { before.collect() } else { before.chain([self.aggregator().clone()]).collect() }
    }

    /// Who owes what of a description.
    pub(crate) fn slots(&self, description: Description) -> Vec<Slot> {
        let workers = &self.ring[..self.ring.len() - 1];
        let slot = |participant: &Participant| Slot { from: participant.id.clone(), description };
        if description == Description::SetupPhaseInput {
            workers.iter().map(slot).collect()
        } else {
            // Around the ring: from the one before, and the aggregator is before the first worker.
            vec![slot(&self.ring[(self.position + self.ring.len() - 1) % self.ring.len()])]
        }
    }

    pub(crate) fn wait(&self, awaits: Description, history: [u8; 32], carried: Vec<u64>, outbox: Vec<Message>) -> Step {
        self.seat.wait(awaits, self.slots(awaits), history, carried, outbox)
    }

    /// The inbox, sorted by sender, when it fills exactly the slots that the state awaits.
    pub(crate) fn check_inbox(&self, state: &State, inbox: &[Received]) -> Result<Vec<Received>, ProtocolError> {
        check_inbox(&self.slots(state.awaits), inbox)
    }
}

/// Digest of the uploads that a computation begins with.
pub(crate) fn requisitions_digest(requisitions: &[Body]) -> [u8; 32] {
    requisitions
        .iter()
        .fold(Consumed::new("requisitions"), |consumed, body| consumed.number(body.records()).bytes(&body.sha256()))
        .finish()
}
