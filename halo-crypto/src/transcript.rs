//! The labels of the proofs' transcripts, and the bridge between merlin and this workspace's random generators.

use merlin::Transcript;
use rand_core::CryptoRng;
use zeroize::Zeroize;

use crate::{group::Scalar, proof::PossessionContext};

/// Version of the proof of possession, and of what is computed under the keys: how strings become elements (`hash`), and by
/// which factors keys and counts grow between Duchies. It is part of the transcript, so publishers and Duchies of another version
/// refuse the key shares before anything is computed. 2: elements are twice their hashes, and messages double on every hop.
const POSSESSION_VERSION: u64 = 2;

/// `elliptic_curve_id` of Ristretto255 on the wire.
const CURVE: u64 = 1087;

/// Binds everything public that a proof of possession is about.
pub(crate) fn possession(context: &PossessionContext<'_>, share: &[u8; 32]) -> Transcript {
    let mut transcript = Transcript::new(b"HALO key share possession");
    transcript.append_u64(b"version", POSSESSION_VERSION);
    transcript.append_u64(b"curve", CURVE);
    transcript.append_message(b"session", &context.session);
    transcript.append_message(b"duchy", context.duchy.as_bytes());
    transcript.append_message(b"certificate", &context.certificate_sha256);
    transcript.append_message(b"key", share);
    transcript
}

/// Binds the prover's commitment and draws the challenge.
pub(crate) fn challenge(transcript: &mut Transcript, commitment: &[u8; 32]) -> Scalar {
    transcript.append_message(b"commitment", commitment);
    let mut wide = [0; 64];
    transcript.challenge_bytes(b"challenge", &mut wide);
    Scalar::from_wide(&wide)
}

/// A nonce that depends on the transcript, the witness and fresh randomness: it stays secret while any of the last two
/// is, and never repeats for another statement.
pub(crate) fn nonce(transcript: &Transcript, witness: &[u8; 32], rng: &mut impl CryptoRng) -> Scalar {
    let mut entropy = [0; 32];
    rng.fill_bytes(&mut entropy);
    let mut generator = transcript
        .build_rng()
        .rekey_with_witness_bytes(b"witness", witness)
        .finalize(&mut Entropy { bytes: &mut entropy });
    let mut wide = [0; 64];
    rand_core_06::RngCore::fill_bytes(&mut generator, &mut wide);
    let nonce = Scalar::from_wide(&wide);
    wide.zeroize();
    nonce
}

/// The 32 bytes that merlin asks its outer generator for, drawn beforehand from a generator of the newer interface.
/// They are wiped as they are handed out, and a second request, which merlin does not make, would get zeros.
struct Entropy<'a> {
    bytes: &'a mut [u8; 32],
}

impl rand_core_06::RngCore for Entropy<'_> {
    fn next_u32(&mut self) -> u32 {
        rand_core_06::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core_06::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, destination: &mut [u8]) {
        for (to, from) in destination.iter_mut().zip(self.bytes.iter_mut()) {
            *to = *from;
            from.zeroize();
        }
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), rand_core_06::Error> {
        self.fill_bytes(destination);
        Ok(())
    }
}

impl rand_core_06::CryptoRng for Entropy<'_> {}
