//! Opening the vectors, adding them up, counting.

use halo_crypto::attestation::{Evidence, KeyRequest, Refused, Statement};
use halo_crypto::envelope::{self, DataKey, Decryptor};
use halo_sketch::noise::deterministic::reference::Fingerprint;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use super::super::{Description, ProtocolError, Step, Workspace};
use super::outcome::Counts;
use super::parameters::Draws;
use super::{Duchy, MAXIMUM_CELL, Noise, Outcome, Requisition, Variant, bad_vector, digest, read_vector};

/// What comes before the aggregated vector in the fingerprint of sticky noise.
const FINGERPRINT_LABEL: &[u8] = b"HALO-TRUSTEE-FINGERPRINT-V1";

impl Duchy {
    /// Opens all vectors and gives the result.
    pub(super) fn compute(
        &self,
        requisitions: &[Requisition],
        workspace: &dyn Workspace,
    ) -> Result<Step<Outcome>, ProtocolError> {
        // The order of arrival does not enter: neither into the noise nor into the result.
        let mut sorted = requisitions.to_vec();
        sorted.sort_by(|one, other| one.id.cmp(&other.id));
        let statement = Statement {
            trustee: self.seat.duchy.to_string(),
            computation: self.seat.computation.clone(),
            binding: self.seat.context,
        };
        let evidence = self.trust.attestation.evidence(&statement).map_err(|reason| ProtocolError::NotAttested {
            what: "anything".to_owned(),
            reason: format!("its platform gives no evidence: {reason}"),
        })?;
        let length = self.parameters.cells as usize; // checked to fit when the parameters were
        let mut sums = Zeroizing::new(vec![0_u8; length]);
        let mut contributions = 0_u32;
        let least = self.parameters.least_contribution();
        let mut buffer = Zeroizing::new(vec![0_u8; if least.is_some() { length } else { 0 }]);
        for requisition in &sorted {
            if workspace.is_cancelled() {
                return Err(ProtocolError::Cancelled);
            }
            let key = self.release(requisition, &statement, &evidence)?;
            let cap = self.parameters.cap();
            if let Some(least) = least {
                self.open(requisition, &key, |first, cells| {
                    buffer[first..first + cells.len()].copy_from_slice(cells);
                })?;
                let reached = buffer.iter().filter(|cell| **cell > 0).count();
                if (reached as f64) / self.parameters.width()? < least as f64 {
                    continue;
                }
                add_capped(&mut sums, &buffer, cap);
            } else {
                self.open(requisition, &key, |first, cells| {
                    add_capped(&mut sums[first..first + cells.len()], cells, cap);
                })?;
            }
            contributions += 1;
        }
        let counts = Counts::of(&sums);
        let consumed = self.seat.consumed_at_start(&digest(&sorted));
        let draws = Draws {
            randomness: &self.seat.randomness(Description::FrequencyVectors, consumed),
            key: self.trust.noise_key.as_ref(),
            fingerprint: self.fingerprint(contributions, &sums),
        };
        let outcome = Outcome::release(&counts, &self.parameters, self.noise.as_ref(), &draws)?;
        Ok(Step::Done { output: Some(outcome), outbox: Vec::new() })
    }

    /// What deterministic noise follows from.
    fn fingerprint(&self, contributions: u32, sums: &[u8]) -> [u8; 32] {
        match self.parameters.noise {
            Noise::None | Noise::DiscreteGaussian(_) => [0; 32],
            Noise::Reference => {
                let mut fingerprint = Fingerprint::new(contributions);
                fingerprint.update(sums);
                fingerprint.finish()
            }
            Noise::Sticky(_) => Sha256::new()
                .chain_update(FINGERPRINT_LABEL)
                .chain_update(contributions.to_be_bytes())
                .chain_update([self.parameters.cap()])
                .chain_update((sums.len() as u64).to_be_bytes())
                .chain_update(sums)
                .finalize()
                .into(),
        }
    }

    /// What the envelope of a requisition is bound to.
    fn associated_data(&self, requisition: &Requisition) -> Vec<u8> {
        match self.parameters.variant {
            Variant::Compatible => Vec::new(),
            Variant::Native => envelope::requisition_binding(&requisition.id),
        }
    }

    /// Asks the publisher's key service for the data encryption key.
    fn release(
        &self,
        requisition: &Requisition,
        statement: &Statement,
        evidence: &Evidence,
    ) -> Result<DataKey, ProtocolError> {
        let request = KeyRequest {
            requisition: &requisition.id,
            kek: &requisition.kek,
            wrapped_key: &requisition.wrapped_key,
            associated_data: &self.associated_data(requisition),
            statement,
            evidence,
        };
        self.trust.keys.release(&request).map_err(|refused| match refused {
            Refused::Envelope(error) => bad_vector(&requisition.id, error),
            Refused::UnknownKey { .. } => bad_vector(&requisition.id, refused),
            Refused::Unavailable(reason) => ProtocolError::Io(std::io::Error::other(reason)),
            refused => ProtocolError::NotAttested {
                what: format!("the vector of {}", requisition.id),
                reason: refused.to_string(),
            },
        })
    }

    /// Decrypts one vector, and gives it out piece by piece with the position of the first cell.
    fn open(
        &self,
        requisition: &Requisition,
        key: &DataKey,
        mut each: impl FnMut(usize, &[u8]),
    ) -> Result<(), ProtocolError> {
        let refuse = |error: envelope::Error| bad_vector(&requisition.id, error);
        let length = self.parameters.cells as usize;
        let mut decryptor = Decryptor::new(key, &self.associated_data(requisition));
        let mut plaintext = Zeroizing::new(Vec::with_capacity(envelope::SEGMENT_BYTES));
        let mut first = 0;
        let mut take = |plaintext: &mut Vec<u8>| {
            if plaintext.len() > length - first {
                return Err(bad_vector(&requisition.id, format!("it has more than {length} cells")));
            }
            if plaintext.iter().any(|cell| *cell > MAXIMUM_CELL) {
                // Which one, and what it holds, is nobody's but the publisher's: others read the reason.
                let reason = format!("a cell is above the protocol's cap of {MAXIMUM_CELL}");
                return Err(bad_vector(&requisition.id, reason));
            }
            each(first, plaintext);
            first += plaintext.len();
            plaintext.as_mut_slice().zeroize();
            plaintext.clear();
            Ok(())
        };
        read_vector(requisition, |ciphertext| {
            decryptor.write(ciphertext, &mut plaintext).map_err(refuse)?;
            take(&mut plaintext)
        })?;
        decryptor.finish(&mut plaintext).map_err(refuse)?;
        take(&mut plaintext)?;
        if first == length {
            Ok(())
        } else {
            Err(bad_vector(&requisition.id, format!("it has {first} cells where {length} are due")))
        }
    }
}

/// Adds cell by cell; no sum is above `cap`.
fn add_capped(sums: &mut [u8], cells: &[u8], cap: u8) {
    for (sum, cell) in sums.iter_mut().zip(cells) {
        *sum = sum.saturating_add(*cell).min(cap);
    }
}
