//! What every party has done, how much it has sent, and how long it took.

use halo_core::clock::Stopwatch;
use halo_duchy::protocol::local::{Act, Envelope, Interceptor};
use halo_duchy::protocol::{Body, DuchyId};

/// One step of one party.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) stage: String,
    pub(crate) party: String,
    /// Records and bytes that it sent.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// All steps so far, in order.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    rows: Vec<Row>,
    working: Option<(Stopwatch, String)>,
}

/// Records and bytes of a body.
pub(crate) fn size(body: &Body) -> (u64, u64) {
    (body.records(), body.records() * body.record_bytes() as u64)
}

impl Trace {
    /// Writes a step down.
    pub(crate) fn push(&mut self, stage: &str, party: &str, sent: (u64, u64), seconds: f64) {
        let (records, bytes) = sent;
        self.rows.push(Row { stage: stage.to_owned(), party: party.to_owned(), records, bytes, seconds });
    }

    pub(crate) fn rows(self) -> Vec<Row> {
        self.rows
    }
}

impl Interceptor for Trace {
    fn begins(&mut self, _: &DuchyId, act: Act) {
        let stage = match act {
            Act::Check => "check".to_owned(),
            Act::Start => "start".to_owned(),
            // The stage in which a message is consumed has the name of the message.
            Act::Advance(description) => description.to_string().replace(" input", ""),
        };
        self.working = Some((Stopwatch::start(), stage));
    }

    fn ends(&mut self, duchy: &DuchyId) {
        if let Some((stopwatch, stage)) = self.working.take() {
            self.push(&stage, duchy.as_str(), (0, 0), stopwatch.seconds());
        }
    }

    /// Messages leave when the step that made them has ended: they are the last row's.
    fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
        if let Some(row) = self.rows.last_mut() {
            let (records, bytes) = size(&envelope.body);
            row.records += records;
            row.bytes += bytes;
        }
        vec![envelope]
    }
}
