//! Execution phase three: counts are compared with 1, 2, …, F − 1 by zero tests that nobody who opens them has blinded.

use halo_crypto::batch::{self, FixedBase};
use halo_crypto::elgamal::{CIPHERTEXT_BYTES, Ciphertext};
use halo_crypto::group::Scalar;
use zeroize::Zeroizing;

use super::super::record::{PART_RECORDS, for_each_chunk};
use super::super::seat::wrong_count;
use super::super::shuffle::Shuffle;
use super::super::stream::{Purpose, StepRandomness};
use super::super::{Body, Description, Message, Origin, ProtocolError, Received, Step, Workspace};
use super::doubling::Phase;
use super::outcome::Counts;
use super::{Duchy, columns};

/// Rows that are computed on together; a multiple of eight, so that all lanes are full.
const PART_ROWS: usize = 96;
/// Counts that are computed on together, before they are rows: as many ciphertexts as there are in a part of registers.
const PART_COUNTS: usize = 3 * PART_RECORDS;

impl Duchy {
    /// Ciphertexts in a row: zero tests against 1..F−1.
    fn row(&self) -> usize {
        self.parameters.frequency() - 1
    }

    /// Rows that are in memory at once: as many ciphertexts as a chunk of registers has.
    fn chunk_rows(&self) -> usize {
        (3 * self.place.chunk_records / self.row()).max(1)
    }

    /// Liquid Legions v2, phase three, worker: everybody peels a layer off the counts; the last worker makes the rows,
    /// which nobody but the aggregator sees then.
    pub(super) fn worker_phase_three(
        &self,
        forwarded: u64,
        received: &Received,
        randomness: &StepRandomness,
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        // There cannot be more usable tuples than went around in phase two: what this worker passed on and the noise
        // of the workers after it.
        let after = (self.place.ring.len() - 2 - self.place.position) as u64;
        let most = self.noise_tuples().saturating_mul(after).saturating_add(forwarded);
        if received.body.records() > most {
            let expected = format!("at most {most}, as many tuples as there are,");
            return Err(wrong_count(received, expected, self.place.upstream()));
        }
        let body = if self.place.is_last_worker() {
            self.make_rows(received, randomness, workspace)?
        } else {
            self.peel_counts(received, randomness, workspace)?
        };
        let message =
            Message { to: self.place.next().clone(), description: Description::ExecutionPhaseThreeInput, body };
        Ok(Step::Done { output: None, outbox: vec![message] })
    }

    /// Liquid Legions v2, phase three, every worker but the last: peel the own layer off every count, re-randomise it
    /// under the keys that are still to be peeled, shuffle.
    fn peel_counts(
        &self,
        received: &Received,
        randomness: &StepRandomness,
        workspace: &dyn Workspace,
    ) -> Result<Body, ProtocolError> {
        let origin = Origin::Duchy(received.slot.from.clone());
        let nonces = randomness.stream(Purpose::RerandomizeCount);
        let mut output = Shuffle::new(randomness, workspace, CIPHERTEXT_BYTES, received.body.records())?;
        for_each_chunk(&received.body, CIPHERTEXT_BYTES, &origin, self.place.chunk_records, |chunk| {
            let parts = chunk.map_parts(CIPHERTEXT_BYTES, PART_COUNTS, |part| {
                let mut counts = columns::decode_rows(part, 1, &origin)?;
                batch::peel(&self.place.secret, &mut counts);
                let nonces = nonces.scalars(part.first, counts.len());
                batch::rerandomize(&self.place.remaining_key, &mut counts, nonces.expose());
                Ok(columns::doubled(&counts))
            })?;
            output.push_all(&parts)
        })?;
        output.finish()
    }

    /// Liquid Legions v2, phase three, last worker: peel the own layer off every count C; of each make a row, for
    /// j = 1..F−1 the element r·(C − j·U), every element with a fresh secret r; shuffle the rows (not the elements inside
    /// them, whose place is their meaning). Counts come 2^k-fold, and so does U.
    ///
    /// j·U is subtracted in the clear and not as an encryption: all elements of a row then have multiples r_j·u of
    /// the same u in front, which is safe. The aggregator, which alone sees the elements, does not know the discrete
    /// logarithm ρ of u: it contains the last worker's own randomness of phase two, in which that worker re-randomised
    /// or encrypted every count, and the re-randomisation of each worker before it in this phase. So
    /// (r·ρ·G, r·(c − j)·U) is a Diffie–Hellman pair over the bases ρ·G and U: unless c = j it is indistinguishable from
    /// two independent uniform points.
    fn make_rows(
        &self,
        received: &Received,
        randomness: &StepRandomness,
        workspace: &dyn Workspace,
    ) -> Result<Body, ProtocolError> {
        let row = self.row();
        let origin = Origin::Duchy(received.slot.from.clone());
        let scales = randomness.stream(Purpose::ScaleRow);
        let unit = FixedBase::new(self.constants.unit * &self.factor(Phase::Three));
        let mut output = Shuffle::new(randomness, workspace, row * CIPHERTEXT_BYTES, received.body.records())?;
        for_each_chunk(&received.body, CIPHERTEXT_BYTES, &origin, self.chunk_rows(), |chunk| {
            let parts = chunk.map_parts(CIPHERTEXT_BYTES, PART_ROWS, |part| {
                // r·(C − j·U) = r·C − (r·j)·U: all elements of a row are multiples of the same peeled C, and of U.
                let mut counts = columns::decode_rows(part, 1, &origin)?;
                batch::peel(&self.place.secret, &mut counts);
                let scales = scales.scalars(part.first * row as u64, counts.len() * row);
                let mut elements = batch::scale_rows(scales.expose(), &counts);
                let messages = scales.expose().iter().zip((1..=row as u64).cycle());
                let messages = messages.map(|(scale, j)| -(*scale * Scalar::from(j)));
                let messages = Zeroizing::new(messages.collect::<Vec<_>>());
                batch::add_multiples(&unit, &messages, &mut elements);
                Ok(columns::doubled(&elements))
            })?;
            output.push_all(&parts)
        })?;
        output.finish()
    }

    /// Liquid Legions v2, phase three, aggregator: peel the last layer of every row. The first element that opens to
    /// the identity tells the frequency; a row without one is F or more.
    pub(super) fn aggregator_phase_three(
        &self,
        counts: &Counts,
        rows: u64,
        received: &Received,
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        if received.body.records() != rows {
            return Err(wrong_count(received, format!("exactly {rows}, as were sent around,"), self.place.upstream()));
        }
        let row_bytes = self.row() * CIPHERTEXT_BYTES;
        let origin = Origin::Duchy(received.slot.from.clone());
        let mut histogram = vec![0u64; self.row() + 1];
        for_each_chunk(&received.body, row_bytes, &origin, self.chunk_rows(), |chunk| {
            if workspace.is_cancelled() {
                return Err(ProtocolError::Cancelled);
            }
            let parts = chunk.map_parts(row_bytes, 4 * PART_ROWS, |part| {
                let elements = columns::decode_rows(part, self.row(), &origin)?;
                let mut histogram = vec![0u64; self.row() + 1];
                // Place by place, and only those rows that have not told their frequency yet. How long that takes tells no more
                // than the histogram does.
                let mut silent: Vec<&[Ciphertext]> = elements.chunks_exact(self.row()).collect();
                for (place, bin) in histogram[..self.row()].iter_mut().enumerate() {
                    let tests: Vec<Ciphertext> = silent.iter().map(|row| row[place]).collect();
                    let mut zeros = batch::opens_to_identity(&self.place.secret, &tests).into_iter();
                    silent.retain(|_| zeros.next() == Some(false));
                    *bin += (tests.len() - silent.len()) as u64;
                }
                histogram[self.row()] += silent.len() as u64;
                Ok(histogram)
            })?;
            for part in parts {
                histogram.iter_mut().zip(part).for_each(|(bin, count)| *bin += count);
            }
            Ok(())
        })?;
        Ok(Step::Done { output: Some(self.outcome(counts, Some(&histogram))?), outbox: Vec::new() })
    }
}
