//! What goes over the wire in a run, written down.

use halo_duchy::protocol::local::{Envelope, Interceptor};
use halo_duchy::protocol::{Description, ProtocolError, State};

/// Records every message: its way, what it is, its records, its digest.
#[derive(Default)]
pub(crate) struct Tape {
    pub(crate) messages: Vec<(String, Description, u64, [u8; 32])>,
    /// Sends every state through its stored form.
    pub(crate) resume: bool,
}

impl Interceptor for Tape {
    fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
        let way = format!("{} → {}", envelope.from, envelope.to);
        self.messages.push((way, envelope.description, envelope.body.records(), envelope.body.sha256()));
        vec![envelope]
    }

    fn state(&mut self, state: State) -> Result<State, ProtocolError> {
        if self.resume { State::from_bytes(&state.to_bytes()) } else { Ok(state) }
    }
}
