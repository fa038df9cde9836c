//! Whom a publisher trusts, and what it asks of a measurement.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use halo_core::{
    measurement::{Population, ProtocolKind},
    privacy::PrivacyParams,
    resource::{DuchyId, MeasurementConsumerName},
};
use halo_crypto::{attestation::AttestationVerifier, consent::x509::TrustRoots};

/// Whom a publisher trusts, and what it asks of a measurement.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The consumers that may ask, each with the roots that issue its certificates.
    pub consumers: BTreeMap<MeasurementConsumerName, TrustRoots>,
    /// The Duchies that may take part, each with the roots that issue its certificates.
    pub duchies: BTreeMap<DuchyId, TrustRoots>,
    /// The protocols that are answered; others are declined.
    pub protocols: BTreeSet<ProtocolKind>,
    /// How many Duchies must take part where several compute together, at least 1: with fewer the requisition is
    /// declined. A trustee computes alone, and its attestation decides.
    pub minimum_duchies: usize,
    /// Whether measurements without any noise are answered.
    pub allow_no_noise: bool,
    /// Whether noise that follows from the data and a secret of the trustee is enough. Its ε and δ are the consumer's too.
    pub allow_deterministic_noise: bool,
    /// The least noise that may hide the size of this publisher's sketch: the noise of a measurement may cost at most
    /// this ε and this δ, or the requisition is declined.
    pub maximum_noise: PrivacyParams,
    /// Decides whether what runs at a trustee may open this publisher's vectors.
    pub attestation: Arc<dyn AttestationVerifier>,
    /// What the noise of each published number may cost at most; `None` leaves it to the consumer.
    pub maximum_result: Option<PrivacyParams>,
    /// The population that frequency vectors are over, and whose size may be told; it is public. Measurements over
    /// another one are declined. `None` takes any of at most `maximum_population` people, and tells no size.
    pub population: Option<Population>,
    /// The largest population that is numbered: 24 bytes of memory a person.
    pub maximum_population: u64,
}

impl Trust {
    /// The default of [`Trust::maximum_population`].
    pub const DEFAULT_MAXIMUM_POPULATION: u64 = 100_000_000;

    /// The default of [`Trust::maximum_noise`]: ε = 1 and δ = 0.00001. With it, whoever sees the size of the upload
    /// learns little about any one person: the odds that somebody was reached change by a factor of e at most.
    ///
    /// # Guarantee
    /// (ε, δ)-differential privacy of the number of registers for one person more or less (Dwork and Roth, *The
    /// Algorithmic Foundations of Differential Privacy*, 2014, definition 2.4).
    #[must_use]
    pub fn default_maximum_noise() -> PrivacyParams {
        PrivacyParams::new(1.0, 1e-5).expect("both are in their ranges")
    }
}
