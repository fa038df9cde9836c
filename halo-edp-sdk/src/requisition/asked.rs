//! What a publisher is asked for, and how it is to be protected.

use halo_core::{
    measurement::Population,
    privacy::{NoiseMechanism, VidSamplingInterval},
    resource::{CertificateName, DuchyName},
};
use halo_crypto::{consent::tink::PublicKeyset, elgamal::CompositeKey};
use halo_sketch::{liquid_legions::Params, noise::ShiftedNoise};

use crate::{
    direct::Ask,
    encrypt::{Encryption, Layout},
    share::Sharing,
    vector::VectorTerms,
};

/// What a publisher is asked for, with all that is needed to make it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Asked {
    /// A sketch under the joint key of the Duchies: Liquid Legions v2 and its reach-only form.
    Sketch(SketchTask),
    /// A frequency vector in two shares: the honest-majority share shuffle.
    Shares(ShareTask),
    /// A frequency vector in an envelope: one Duchy's trusted execution environment.
    Sealed(SealTask),
    /// A result that the publisher computes alone.
    Direct(DirectTask),
}

/// A sketch, and how it is encrypted.
#[derive(Clone, Debug)]
pub struct SketchTask {
    /// Shape of the sketch.
    pub params: Params,
    /// Which people are sampled.
    pub interval: VidSamplingInterval,
    /// What is encrypted of a register.
    pub layout: Layout,
    /// The noise that hides the sketch's size; `None` where the whole measurement goes without noise.
    pub noise: Option<ShiftedNoise>,
    /// The joint key of the Duchies.
    pub key: CompositeKey,
}

impl SketchTask {
    /// How the sketch is to be encrypted.
    #[must_use]
    pub const fn encryption(&self) -> Encryption<'_> {
        Encryption { key: &self.key, layout: self.layout, noise: self.noise.as_ref() }
    }
}

/// A frequency vector, and how it is shared.
#[derive(Clone, Debug)]
pub struct ShareTask {
    /// What the vector is over.
    pub vector: VectorTerms,
    /// How it is cut.
    pub sharing: Sharing,
    /// The key of the worker that takes the seed: the one that does not take the upload.
    pub worker_key: PublicKeyset,
    /// The certificate that the seed is signed with.
    pub certificate: CertificateName,
}

/// A frequency vector, and who opens it.
#[derive(Clone, Debug)]
pub struct SealTask {
    /// What the vector is over.
    pub vector: VectorTerms,
    /// The Duchy whose process opens it.
    pub trustee: DuchyName,
    /// The key of that process; the evidence that it is its own
    /// ([`Statement::of_key`](halo_crypto::attestation::Statement::of_key)) was accepted.
    pub key: PublicKeyset,
}

/// A result that the publisher computes alone.
#[derive(Clone, Debug)]
pub struct DirectTask {
    /// What is counted, and with which noise.
    pub question: Question,
    /// Which people are sampled.
    pub interval: VidSamplingInterval,
    /// The distribution of the noise; `None` where there is none.
    pub mechanism: Option<NoiseMechanism>,
    /// The consumer's key, which the result is encrypted to.
    pub result_key: PublicKeyset,
    /// The certificate that the result is signed with.
    pub certificate: CertificateName,
}

/// What a direct measurement counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Question {
    /// Something about the people that were reached.
    Audience(Ask),
    /// How large the population is. It is public, and told without noise; nobody is sampled.
    Population(Population),
}
