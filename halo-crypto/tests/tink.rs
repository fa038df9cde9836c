//! Keysets and ciphertexts that Tink's Python package made are read, and ours stay readable.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use halo_crypto::consent::{
    Error,
    tink::{PrivateKeyset, PublicKeyset},
};
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

/// The values of one JSON string field, in order; the file is a flat list of objects of strings.
fn field(name: &str) -> Vec<String> {
    let text = include_str!("vectors/tink_from_python.json");
    let key = format!("\"{name}\": \"");
    text.split(&key).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

fn bytes(name: &str) -> Vec<Vec<u8>> {
    field(name).iter().map(|digits| hex::decode(digits).unwrap()).collect()
}

#[test]
fn what_tink_encrypted_is_decrypted() {
    let (privates, publics) = (bytes("private_keyset"), bytes("public_keyset"));
    let (contexts, plaintexts, ciphertexts) = (bytes("context_info"), bytes("plaintext"), bytes("ciphertext"));
    assert!(privates.len() >= 10);
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    for (position, name) in field("name").iter().enumerate() {
        let keyset = PrivateKeyset::from_bytes(&privates[position]).unwrap();
        let decrypted = keyset.decrypt(&ciphertexts[position], &contexts[position]).unwrap();
        assert_eq!(decrypted.expose(), &plaintexts[position], "{name}");
        // Another context, or an altered last byte, is refused without a reason.
        assert_eq!(keyset.decrypt(&ciphertexts[position], b"another"), Err(Error::DecryptionFailed));
        let mut altered = ciphertexts[position].clone();
        *altered.last_mut().unwrap() ^= 1;
        assert_eq!(keyset.decrypt(&altered, &contexts[position]), Err(Error::DecryptionFailed));
        // Tink's public keyset encrypts to Tink's private one through our code.
        let public = PublicKeyset::from_bytes(&publics[position]).unwrap();
        let own = public.encrypt(&plaintexts[position], &contexts[position], &mut rng).unwrap();
        assert_eq!(keyset.decrypt(&own, &contexts[position]).unwrap().expose(), &plaintexts[position]);
    }
}

#[test]
fn keysets_survive_their_bytes() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    for keyset in [PrivateKeyset::generate_hpke(&mut rng), PrivateKeyset::generate_ecies(&mut rng)] {
        let again = PrivateKeyset::from_bytes(keyset.to_bytes().expose()).unwrap();
        let public = PublicKeyset::from_bytes(&keyset.public().to_bytes()).unwrap();
        let ciphertext = public.encrypt(b"plaintext", b"context", &mut rng).unwrap();
        assert_eq!(again.decrypt(&ciphertext, b"context").unwrap().expose(), b"plaintext");
        assert!(matches!(PrivateKeyset::from_bytes(&keyset.public().to_bytes()), Err(Error::MalformedKeyset { .. })));
        assert!(matches!(PublicKeyset::from_bytes(keyset.to_bytes().expose()), Err(Error::MalformedKeyset { .. })));
        let stranger = PrivateKeyset::generate_hpke(&mut rng);
        assert!(matches!(stranger.decrypt(&ciphertext, b"context"), Err(Error::UnknownKey { .. })));
        let printed = format!("{keyset:?} {public:?}");
        assert!(!printed.contains('['), "{printed}");
    }
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_panics(garbage in proptest::collection::vec(any::<u8>(), 0..300)) {
        let keyset = PrivateKeyset::generate_hpke(&mut ChaCha20Rng::seed_from_u64(3));
        prop_assert!(keyset.decrypt(&garbage, b"").is_err());
        let _ = PrivateKeyset::from_bytes(&garbage);
        let _ = PublicKeyset::from_bytes(&garbage);
    }

    #[test]
    fn an_altered_keyset_never_panics(position in 0_usize..180, value: u8) {
        let keyset = PrivateKeyset::generate_ecies(&mut ChaCha20Rng::seed_from_u64(4));
        let mut bytes = keyset.to_bytes().expose().clone();
        let position = position % bytes.len();
        bytes[position] = value;
        if let Ok(other) = PrivateKeyset::from_bytes(&bytes) {
            let _ = other.decrypt(&[1; 120], b"");
        }
    }
}
