//! The setup phase, at workers and at the aggregator.

use halo_crypto::elgamal::CIPHERTEXT_BYTES;
use halo_crypto::group::Point;

use super::super::record::{PART_RECORDS, for_each_chunk};
use super::super::seat::wrong_count;
use super::super::shuffle::Shuffle;
use super::super::stream::{Purpose, StepRandomness, Stream};
use super::super::{Body, Description, Message, Origin, ProtocolError, Received, Step, Workspace};
use super::columns;
use super::noise::{self, random_points};
use super::{Duchy, REGISTER_BYTES};

impl Duchy {
    /// Liquid Legions v2, setup phase, worker: own requisitions and own noise, shuffled, for the aggregator.
    pub(super) fn worker_setup(
        &self,
        requisitions: &[Body],
        randomness: &StepRandomness,
        history: [u8; 32],
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        let body = self.setup(requisitions, &[], randomness, workspace)?;
        let message = Message { to: self.place.aggregator().clone(), description: Description::SetupPhaseInput, body };
        Ok(self.place.wait(Description::ExecutionPhaseOneInput, history, Vec::new(), vec![message]))
    }

    /// Liquid Legions v2, setup phase, aggregator: own requisitions, what the workers sent and own noise, shuffled, for
    /// the first worker.
    pub(super) fn aggregator_setup(
        &self,
        requisitions: &[Body],
        inbox: &[Received],
        randomness: &StepRandomness,
        history: [u8; 32],
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        for received in inbox {
            let records = received.body.records();
            let due = self.noise_registers();
            if records < due {
                let expected = format!("at least {due} noise registers");
                return Err(wrong_count(received, expected, vec![received.slot.from.clone()]));
            }
        }
        let body = self.setup(requisitions, inbox, randomness, workspace)?;
        let registers = body.records();
        let description = Description::ExecutionPhaseOneInput;
        let message = Message { to: self.place.ring[0].id.clone(), description, body };
        Ok(self.place.wait(description, history, vec![registers], vec![message]))
    }

    fn setup(
        &self,
        requisitions: &[Body],
        inbox: &[Received],
        randomness: &StepRandomness,
        workspace: &dyn Workspace,
    ) -> Result<Body, ProtocolError> {
        let records = requisitions
            .iter()
            .chain(inbox.iter().map(|received| &received.body))
            .try_fold(self.noise_registers(), |sum, body| sum.checked_add(body.records()))
            .filter(|sum| i64::try_from(*sum).is_ok())
            .ok_or_else(|| ProtocolError::Inconsistent("more registers than can be counted".to_owned()))?;
        let mut output = Shuffle::new(randomness, workspace, REGISTER_BYTES, records)?;
        let mut first = 0;
        for (position, body) in requisitions.iter().enumerate() {
            self.add_requisition(body, position, first, randomness, &mut output)?;
            first += body.records();
        }
        for received in inbox {
            let origin = Origin::Duchy(received.slot.from.clone());
            for_each_chunk(&received.body, REGISTER_BYTES, &origin, self.place.chunk_records, |chunk| {
                // Decoded only to be checked: a bad record must be blamed on its sender, not on the aggregator later.
                chunk
                    .map_parts(REGISTER_BYTES, PART_RECORDS, |part| columns::decode_rows(part, 3, &origin).map(drop))?;
                output.push(chunk.bytes)
            })?;
        }
        if let Some(noise) = &self.noise {
            noise::add_registers(self, noise, randomness, &mut output)?;
        }
        output.finish()
    }

    /// The registers of one requisition, which were checked when they were uploaded. Without frequencies, keys and
    /// counts are replaced: the destroyed register's key and a random count, both freshly encrypted, so that nobody
    /// can learn from them; the index stays.
    fn add_requisition(
        &self,
        body: &Body,
        position: usize,
        first: u64,
        randomness: &StepRandomness,
        output: &mut Shuffle<'_>,
    ) -> Result<(), ProtocolError> {
        let reach_only = !self.parameters.maximum_frequency.counts_frequency();
        let points = randomness.stream(Purpose::ReplacedCount);
        let nonces = [Purpose::RerandomizeKey, Purpose::RerandomizeCount].map(|purpose| randomness.stream(purpose));
        for_each_chunk(body, REGISTER_BYTES, &Origin::Requisition(position), self.place.chunk_records, |chunk| {
            if !reach_only {
                return output.push(chunk.bytes);
            }
            let count = chunk.bytes.len() / REGISTER_BYTES;
            let from = first + chunk.first;
            let keys = vec![self.constants.half_destroyed_key; count];
            let counts = random_points(&points, from, count);
            let encrypt = |halves: &[Point], nonces: &Stream| {
                columns::encrypted(&self.place.full_key, halves, nonces.scalars(from, count).expose())
            };
            let replaced = columns::records([encrypt(&keys, &nonces[0]), encrypt(&counts, &nonces[1])]);
            let mut records = Vec::with_capacity(chunk.bytes.len());
            for (old, new) in chunk.bytes.chunks_exact(REGISTER_BYTES).zip(replaced.chunks_exact(2 * CIPHERTEXT_BYTES))
            {
                records.extend_from_slice(&old[..CIPHERTEXT_BYTES]);
                records.extend_from_slice(new);
            }
            output.push(&records)
        })
    }

    /// T, or 0 without noise.
    pub(super) fn noise_registers(&self) -> u64 {
        self.noise.as_ref().map_or(0, |noise| noise.registers)
    }

    /// Noise tuples of every Duchy, or 0.
    pub(super) fn noise_tuples(&self) -> u64 {
        self.noise.as_ref().map_or(0, |noise| noise.tuples)
    }
}
