//! One Duchy's place in the ring of one computation: what all ring protocols share.

use std::fmt;

use halo_crypto::elgamal::{CompositeKey, KeyShareSecret};
use halo_crypto::proof::VerifiedShare;
use halo_crypto::secret::Secret;

use super::record::CHUNK_RECORDS;
use super::stream::{Consumed, StepName, StepRandomness};
use super::{Body, Description, DuchyId, Message, ProtocolError, Received, Slot, State, Step};

/// A Duchy as its peers know it.
#[derive(Clone, Debug)]
pub struct Participant {
    /// Its id.
    pub id: DuchyId,
    /// Its key share, whose possession it has proven.
    pub key: VerifiedShare,
}

/// Which protocol computes, and in which version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Engine {
    /// Its number in stored states.
    pub(crate) protocol: u8,
    /// Its name, for errors.
    pub(crate) name: &'static str,
    /// Changes whenever the same input would give other bytes.
    pub(crate) version: u16,
}

/// Where a Duchy stands, with its keys and its seed.
pub(crate) struct Place {
    engine: Engine,
    computation: String,
    /// All Duchies in ring order, the aggregator last.
    pub(crate) ring: Vec<Participant>,
    pub(crate) position: usize,
    pub(crate) secret: KeyShareSecret,
    seed: Secret<[u8; 32]>,
    /// Digest of parameters and participants.
    context: [u8; 32],
    pub(crate) full_key: CompositeKey,
    /// Keys of those who have yet to peel after this Duchy; at the aggregator the full key.
    pub(crate) remaining_key: CompositeKey,
    /// Records that are held in memory at once.
    pub(crate) chunk_records: usize,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("computation", &self.computation).field("id", self.id()).finish_non_exhaustive()
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
        let chunk_records = CHUNK_RECORDS;
        Ok(Self { engine, computation, ring, position, secret, seed, context, full_key, remaining_key, chunk_records })
    }

    pub(crate) fn id(&self) -> &DuchyId {
        &self.ring[self.position].id
    }

    pub(crate) fn is_aggregator(&self) -> bool {
        self.position + 1 == self.ring.len()
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
        let state = State {
            protocol: self.engine.protocol,
            engine_version: self.engine.version,
            computation: self.computation.clone(),
            duchy: self.id().clone(),
            context: self.context,
            history,
            awaits,
            carried,
        };
        Step::Wait { state, outbox, awaiting: self.slots(awaits) }
    }

    /// Whether a state is of this place.
    pub(crate) fn check_state(&self, state: &State) -> Result<(), ProtocolError> {
        let refuse = |reason: String| Err(ProtocolError::ForeignState(reason));
        let Engine { protocol, name, version } = self.engine;
        if state.protocol != protocol {
            return refuse(format!("it is of protocol {}, not of {name} ({protocol})", state.protocol));
        }
        if state.engine_version != version {
            let other = state.engine_version;
            return refuse(format!(
                "engine version {other} wrote it and this is version {version}, which would draw other numbers"
            ));
        }
        if state.computation != self.computation {
            return refuse(format!("it is of computation {}, not of {}", state.computation, self.computation));
        }
        if &state.duchy != self.id() {
            return refuse(format!("it is of {}, not of {}", state.duchy, self.id()));
        }
        if state.context != self.context {
            return refuse("parameters or participants have changed since".to_owned());
        }
        Ok(())
    }

    /// The inbox, sorted by sender, when it fills exactly the awaited slots.
    pub(crate) fn check_inbox(&self, state: &State, inbox: &[Received]) -> Result<Vec<Received>, ProtocolError> {
        let slots = self.slots(state.awaits);
        let mut sorted = inbox.to_vec();
        sorted.sort_by(|a, b| a.slot.cmp(&b.slot));
        if let Some(received) = sorted.iter().find(|received| !slots.contains(&received.slot)) {
            let awaited = slots.iter().map(Slot::to_string).collect::<Vec<_>>().join(", ");
            return Err(ProtocolError::UnexpectedMessage { received: received.slot.clone(), awaited });
        }
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].slot == pair[1].slot) {
            return Err(ProtocolError::DuplicateMessage(pair[0].slot.clone()));
        }
        match slots.into_iter().find(|slot| sorted.iter().all(|received| &received.slot != slot)) {
            Some(missing) => Err(ProtocolError::MissingMessage(missing)),
            None => Ok(sorted),
        }
    }

    /// Digest of what the first step consumes.
    pub(crate) fn consumed_at_start(&self, history: &[u8; 32]) -> [u8; 32] {
        Consumed::new("start").bytes(&self.context).bytes(history).finish()
    }

    /// Digest of what a later step consumes; `inbox` is what [`Self::check_inbox`] gave.
    pub(crate) fn consumed(state: &State, inbox: &[Received]) -> [u8; 32] {
        inbox
            .iter()
            .fold(Consumed::new("advance").bytes(&state.to_bytes()), |consumed, received| {
                consumed
                    .bytes(received.slot.from.as_str().as_bytes())
                    .number(u64::from(received.slot.description.number()))
                    .number(received.body.records())
                    .bytes(&received.body.sha256())
            })
            .finish()
    }

    pub(crate) fn randomness(&self, step: Description, consumed: [u8; 32]) -> StepRandomness {
        let name = StepName {
            engine_version: self.engine.version,
            computation: &self.computation,
            duchy: self.id().as_str(),
            step: step.number(),
            consumed,
        };
        StepRandomness::derive(&self.seed, &name)
    }
}

/// The error of a message that has another number of records than the protocol prescribes.
pub(crate) fn wrong_count(received: &Received, expected: String, suspects: Vec<DuchyId>) -> ProtocolError {
    ProtocolError::WrongCount {
        description: received.slot.description,
        from: received.slot.from.clone(),
        received: received.body.records(),
        expected,
        suspects,
    }
}

/// Digest of the uploads that a computation begins with.
pub(crate) fn requisitions_digest(requisitions: &[Body]) -> [u8; 32] {
    requisitions
        .iter()
        .fold(Consumed::new("requisitions"), |consumed, body| consumed.number(body.records()).bytes(&body.sha256()))
        .finish()
}
