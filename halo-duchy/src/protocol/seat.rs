//! One Duchy's seat in one computation: what all protocols share.

use std::fmt;

use halo_crypto::secret::Secret;

use super::stream::{Consumed, StepName, StepRandomness};
use super::{Description, DuchyId, Message, ProtocolError, Received, Slot, State, Step};

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

/// Who computes what, and from which seed.
pub(crate) struct Seat {
    pub(crate) engine: Engine,
    pub(crate) computation: String,
    pub(crate) duchy: DuchyId,
    pub(crate) seed: Secret<[u8; 32]>,
    /// Digest of parameters and participants.
    pub(crate) context: [u8; 32],
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("protocol", &self.engine.name)
            .field("computation", &self.computation)
            .field("duchy", &self.duchy)
            .finish_non_exhaustive()
    }
}

impl Seat {
    pub(crate) fn wait<O>(
        &self,
        awaits: Description,
        awaiting: Vec<Slot>,
        history: [u8; 32],
        carried: Vec<u64>,
        outbox: Vec<Message>,
    ) -> Step<O> {
        let state = State {
            protocol: self.engine.protocol,
            engine_version: self.engine.version,
            computation: self.computation.clone(),
            duchy: self.duchy.clone(),
            context: self.context,
            history,
            awaits,
            carried,
        };
        Step::Wait { state, outbox, awaiting }
    }

    /// Whether a state is of this seat.
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
        if state.duchy != self.duchy {
            return refuse(format!("it is of {}, not of {}", state.duchy, self.duchy));
        }
        if state.context != self.context {
            return refuse("parameters or participants have changed since".to_owned());
        }
        Ok(())
    }

    /// Digest of what the first step consumes.
    pub(crate) fn consumed_at_start(&self, history: &[u8; 32]) -> [u8; 32] {
        Consumed::new("start").bytes(&self.context).bytes(history).finish()
    }

    /// The randomness of a step that consumes what the digest says.
    pub(crate) fn randomness(&self, step: Description, consumed: [u8; 32]) -> StepRandomness {
        let name = StepName {
            engine_version: self.engine.version,
            computation: &self.computation,
            duchy: self.duchy.as_str(),
            step: step.number(),
            consumed,
        };
        StepRandomness::derive(&self.seed, &name)
    }
}

/// Digest of what a later step consumes; `inbox` is what [`check_inbox`] gave.
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

/// The inbox, sorted by sender, when it fills exactly the slots.
pub(crate) fn check_inbox(slots: &[Slot], inbox: &[Received]) -> Result<Vec<Received>, ProtocolError> {
    let mut sorted = inbox.to_vec();
    sorted.sort_by(|a, b| a.slot.cmp(&b.slot));
    if let Some(received) = sorted.iter().find(|received| !slots.contains(&received.slot)) {
        let awaited = slots.iter().map(Slot::to_string).collect::<Vec<_>>().join(", ");
        return Err(ProtocolError::UnexpectedMessage { received: received.slot.clone(), awaited });
    }
    if let Some(pair) = sorted.windows(2).find(|pair| pair[0].slot == pair[1].slot) {
        return Err(ProtocolError::DuplicateMessage(pair[0].slot.clone()));
    }
    match slots.iter().find(|slot| sorted.iter().all(|received| received.slot != **slot)) {
        Some(missing) => Err(ProtocolError::MissingMessage(missing.clone())),
        None => Ok(sorted),
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
