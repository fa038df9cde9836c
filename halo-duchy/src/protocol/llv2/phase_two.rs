//! Execution phase two: flags are peeled and scaled around the ring; the aggregator tests them and counts reach.

use halo_crypto::batch;
use halo_crypto::elgamal::{CIPHERTEXT_BYTES, Ciphertext};
use zeroize::Zeroizing;

use super::super::record::{PART_RECORDS, for_each_chunk};
use super::super::seat::wrong_count;
use super::super::shuffle::Shuffle;
use super::super::stream::{Purpose, StepRandomness};
use super::super::{Description, Message, Origin, ProtocolError, Received, Step, Workspace};
use super::columns;
use super::doubling::Phase;
use super::outcome::Counts;
use super::{Duchy, TUPLE_BYTES, noise};

impl Duchy {
    /// Liquid Legions v2, phase two, worker: peel the own layer off every flag and multiply the rest by a fresh secret
    /// scalar, which keeps zero at zero and makes everything else uniform whatever the aggregator chose;
    /// re-randomise the count under the full key; add frequency noise; shuffle.
    pub(super) fn worker_phase_two(
        &self,
        received: &Received,
        randomness: &StepRandomness,
        history: [u8; 32],
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        let records = received.body.records();
        // The aggregator and every worker before this one have added their noise.
        let due = self.noise_tuples().saturating_mul(self.place.position as u64 + 1);
        if records < due {
            let expected = format!("at least {due} noise tuples");
            return Err(wrong_count(received, expected, self.place.upstream()));
        }
        let origin = Origin::Duchy(received.slot.from.clone());
        let scales = [Purpose::ScaleFlagA, Purpose::ScaleFlagB, Purpose::ScaleFlagC].map(|p| randomness.stream(p));
        let count_nonces = randomness.stream(Purpose::RerandomizeCount);
        let mut output = Shuffle::new(randomness, workspace, TUPLE_BYTES, records.saturating_add(self.noise_tuples()))?;
        for_each_chunk(&received.body, TUPLE_BYTES, &origin, self.place.chunk_records, |chunk| {
            let parts = chunk.map_parts(TUPLE_BYTES, PART_RECORDS, |part| {
                let mut tuples = columns::decode::<4>(part, &origin)?;
                let (flags, count) = tuples.split_at_mut(3);
                for (flag, scale) in flags.iter_mut().zip(&scales) {
                    batch::peel_and_scale(&self.place.secret, scale.scalars(part.first, flag.len()).expose(), flag);
                }
                let nonces = count_nonces.scalars(part.first, count[0].len());
                batch::rerandomize(&self.place.full_key, &mut count[0], nonces.expose());
                Ok(columns::records(tuples.map(|column| columns::doubled(&column))))
            })?;
            output.push_all(&parts)
        })?;
        if let Some(noise) = &self.noise {
            noise::add_tuples(self, noise, Phase::Two, randomness, &mut output)?;
        }
        let body = output.finish()?;
        let forwarded = body.records();
        let message = Message { to: self.place.next().clone(), description: Description::ExecutionPhaseTwoInput, body };
        if self.parameters.maximum_frequency.counts_frequency() {
            Ok(self.place.wait(Description::ExecutionPhaseThreeInput, history, vec![forwarded], vec![message]))
        } else {
            Ok(Step::Done { output: None, outbox: vec![message] })
        }
    }

    /// Liquid Legions v2, phase two, aggregator: open the three flags of every tuple and test them for zero; count the
    /// active registers; when frequencies are measured, send the counts of the usable tuples to the first worker.
    pub(super) fn aggregator_phase_two(
        &self,
        registers: u64,
        tuples: u64,
        received: &Received,
        randomness: &StepRandomness,
        history: [u8; 32],
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        let records = received.body.records();
        let workers = self.place.ring.len() as u64 - 1;
        let due = self.noise_tuples().saturating_mul(workers).saturating_add(tuples);
        if records != due {
            let expected = format!("exactly {due}, what was sent around and the workers' noise,");
            return Err(wrong_count(received, expected, self.place.upstream()));
        }
        let origin = Origin::Duchy(received.slot.from.clone());
        let with_frequency = self.parameters.maximum_frequency.counts_frequency();
        let count_nonces = randomness.stream(Purpose::RerandomizeCount);
        // Flags are tested only as far as they decide, so the time tells how many tuples are noise, destroyed and usable. The
        // destroyed ones, alone neither sent on nor reported, are among noise of their own.
        let mut noise_tuples = 0u64;
        let mut output = Shuffle::new(randomness, workspace, CIPHERTEXT_BYTES, records)?;
        for_each_chunk(&received.body, TUPLE_BYTES, &origin, self.place.chunk_records, |chunk| {
            if workspace.is_cancelled() {
                return Err(ProtocolError::Cancelled);
            }
            let parts = chunk.map_parts(TUPLE_BYTES, 2 * PART_RECORDS, |part| {
                let [a, b, c, counts] = columns::decode::<4>(part, &origin)?;
                let all: Vec<usize> = (0..c.len()).collect();
                let (noise, candidates) = self.split_by_zero(&c, all);
                if !with_frequency {
                    return Ok((noise.len(), Vec::new()));
                }
                // Usable: the same key everywhere, neither the destroyed register's nor that of noise.
                let (candidates, _) = self.split_by_zero(&a, candidates);
                let (_, positions) = self.split_by_zero(&b, candidates);
                let mut counts: Vec<Ciphertext> = positions.iter().map(|position| counts[*position]).collect();
                // Re-randomised and shuffled, so that the workers, who have seen these ciphertexts before, do not learn
                // which of their tuples were usable.
                let nonces = positions.iter().map(|i| count_nonces.scalar(part.first + *i as u64));
                let nonces = Zeroizing::new(nonces.collect::<Vec<_>>());
                batch::rerandomize(&self.place.full_key, &mut counts, &nonces);
                Ok((noise.len(), columns::doubled(&counts)))
            })?;
            let (noise, counts): (Vec<usize>, Vec<Vec<u8>>) = parts.into_iter().unzip();
            noise_tuples += noise.iter().sum::<usize>() as u64;
            output.push_all(&counts)
        })?;
        let counts = Counts { registers, tuples: records, noise_tuples };
        if !with_frequency {
            return Ok(Step::Done { output: Some(self.outcome(&counts, None)?), outbox: Vec::new() });
        }
        // Fails now rather than after phase three when the counts contradict each other.
        self.outcome(&counts, None)?;
        let body = output.finish()?;
        let carried = vec![registers, records, noise_tuples, body.records()];
        let description = Description::ExecutionPhaseThreeInput;
        let message = Message { to: self.place.ring[0].id.clone(), description, body };
        Ok(self.place.wait(description, history, carried, vec![message]))
    }

    /// Those of the positions at which the flag opens to the identity, and the others.
    fn split_by_zero(&self, flags: &[Ciphertext], positions: Vec<usize>) -> (Vec<usize>, Vec<usize>) {
        let asked: Vec<Ciphertext> = positions.iter().map(|position| flags[*position]).collect();
        let zeros = batch::opens_to_identity(&self.place.secret, &asked);
        let mut zeros = zeros.into_iter();
        positions.into_iter().partition(|_| zeros.next() == Some(true))
    }
}
