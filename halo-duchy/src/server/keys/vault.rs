//! Sealing and opening, each bound to its place.

use halo_core::resource::DuchyId;
use halo_crypto::seal::{KeyEncryptionKey as _, Keyring};
use halo_crypto::secret::Secret;
use rand_core::CryptoRng;

use super::super::secrets::{ComputationSecrets, SecretError};

/// What is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Key and seed of a computation.
    Secrets,
    /// The engine's state.
    EngineState,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::EngineState => "engine state",
        }
    }

    fn refuse(self, computation: &str, reason: String) -> SecretError {
        SecretError::Sealed { what: self.name(), computation: computation.to_owned(), reason }
    }
}

/// Seals for one Duchy; nothing opens at another Duchy, for another computation or as another kind.
#[derive(Debug)]
pub(super) struct Vault {
    keys: Keyring,
    duchy: DuchyId,
}

impl Vault {
    pub(super) const fn new(keys: Keyring, duchy: DuchyId) -> Self {
        Self { keys, duchy }
    }

    pub(super) const fn keys(&self) -> &Keyring {
        &self.keys
    }

    pub(super) const fn duchy(&self) -> &DuchyId {
        &self.duchy
    }

    fn place(&self, what: What, computation: &str) -> Vec<u8> {
        format!("halo-duchy/{}/{computation}/{}", self.duchy, what.name()).into_bytes()
    }

    pub(super) fn seal(
        &self,
        what: What,
        computation: &str,
        plain: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, SecretError> {
        self.keys.seal(plain, &self.place(what, computation), rng).map_err(|source| SecretError::Seal {
            what: what.name(),
            computation: computation.to_owned(),
            source,
        })
    }

    pub(super) fn open(&self, what: What, computation: &str, sealed: &[u8]) -> Result<Secret<Vec<u8>>, SecretError> {
        self.keys
            .open(sealed, &self.place(what, computation))
            .map_err(|error| what.refuse(computation, error.to_string()))
    }

    pub(super) fn read_secrets(&self, computation: &str, plain: &[u8]) -> Result<ComputationSecrets, SecretError> {
        ComputationSecrets::from_bytes(plain).map_err(|reason| What::Secrets.refuse(computation, reason))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use halo_crypto::seal::LocalKey;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

    use super::*;

    fn vault(key: u8, duchy: &str) -> Vault {
        let key = Arc::new(LocalKey::from_bytes(Secret::new([key; 32])));
        Vault::new(Keyring::new(key, Vec::new()), DuchyId::new(duchy).unwrap())
    }

    #[test]
    fn secrets_open_only_where_they_belong() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let sealed = vault(1, "worker1").seal(What::Secrets, "c", b"secret", &mut rng).unwrap();
        assert_eq!(vault(1, "worker1").open(What::Secrets, "c", &sealed).unwrap().expose(), b"secret");
        assert!(vault(2, "worker1").open(What::Secrets, "c", &sealed).is_err());
        assert!(vault(1, "worker2").open(What::Secrets, "c", &sealed).is_err());
        let error = vault(1, "worker1").open(What::Secrets, "d", &sealed).unwrap_err().to_string();
        assert!(error.contains("secrets of computation d does not open"), "{error}");
        assert!(vault(1, "worker1").open(What::EngineState, "c", &sealed).is_err(), "one kind is not another");
    }
}
