//! Envelopes: what Tink's Python package made opens, every alteration is noticed, and a key is released only to whom its
//! owner accepts.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::sync::Arc;

use halo_crypto::attestation::{
    Attestation, AttestedKeyService, Evidence, KeyRequest, KeyService, Refused, SimulatedAttestation,
    SimulatedVerifier, Statement,
};
use halo_crypto::consent::tink::PrivateKeyset;
use halo_crypto::envelope::{
    DataKey, Decryptor, Encryptor, Error, HybridKey, SEGMENT_BYTES, TinkAead, ciphertext_bytes, requisition_binding,
};
use halo_crypto::seal::{self, KeyEncryptionKey, LocalKey};
use halo_crypto::secret::Secret;
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

fn encrypt(key: &DataKey, associated_data: &[u8], plaintext: &[u8], piece: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encryptor = Encryptor::new(key, associated_data, &mut rng(9));
    plaintext.chunks(piece.max(1)).for_each(|piece| encryptor.write(piece, &mut out).unwrap());
    encryptor.finish(&mut out).unwrap();
    out
}

fn decrypt(key: &DataKey, associated_data: &[u8], ciphertext: &[u8], piece: usize) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let mut decryptor = Decryptor::new(key, associated_data);
    ciphertext.chunks(piece.max(1)).try_for_each(|piece| decryptor.write(piece, &mut out))?;
    decryptor.finish(&mut out)?;
    Ok(out)
}

/// The values of one JSON string field, in order; the file is a flat list of objects of strings.
fn field(name: &str) -> Vec<Vec<u8>> {
    let text = include_str!("vectors/envelope_from_python.json");
    let key = format!("\"{name}\": \"");
    text.split(&key).skip(1).map(|rest| hex::decode(rest.split('"').next().unwrap()).unwrap()).collect()
}

#[test]
fn what_tink_made_opens() {
    let [keks, wrapped, data, ciphertexts, plaintexts] =
        ["kek", "wrapped_key", "associated_data", "ciphertext", "plaintext"].map(field);
    assert_eq!(keks.len(), 3);
    for case in 0..keks.len() {
        let kek = TinkAead::from_keyset("kek".to_owned(), &Secret::new(keks[case].clone())).unwrap();
        DataKey::check_wrapped(&wrapped[case]).unwrap();
        let key = DataKey::unwrap(&kek, &wrapped[case], &data[case]).unwrap();
        assert_eq!(decrypt(&key, &data[case], &ciphertexts[case], 7).unwrap(), plaintexts[case]);
        assert_eq!(ciphertext_bytes(plaintexts[case].len() as u64), Some(ciphertexts[case].len() as u64));
        assert_eq!(kek.to_keyset().expose(), &keks[case], "our keysets are Tink's");
        // Bound to something else: neither the key nor the ciphertext opens.
        assert_eq!(
            DataKey::unwrap(&kek, &wrapped[case], b"another").unwrap_err(),
            Error::Wrap(seal::Error::DoesNotOpen)
        );
        assert_eq!(decrypt(&key, b"another", &ciphertexts[case], 7).unwrap_err(), Error::DoesNotOpen { segment: 0 });
    }
}

#[test]
fn segments_begin_and_end_where_they_must() {
    let key = DataKey::generate(&mut rng(1));
    let first = SEGMENT_BYTES - 56;
    for length in [0, 1, first - 1, first, first + 1, first + SEGMENT_BYTES - 16, first + SEGMENT_BYTES - 15] {
        let plaintext: Vec<u8> = (0..length).map(|position| (position % 251) as u8).collect();
        let ciphertext = encrypt(&key, b"x", &plaintext, 65_537);
        assert_eq!(ciphertext_bytes(length as u64), Some(ciphertext.len() as u64), "{length}");
        assert_eq!(ciphertext, encrypt(&key, b"x", &plaintext, length), "pieces do not show");
        assert!(decrypt(&key, b"x", &ciphertext, 400_000).unwrap() == plaintext, "{length}");
    }
    assert_eq!(ciphertext_bytes(u64::MAX), None);
    assert_eq!(ciphertext_bytes(1 << 53), None, "more segments than can be counted");
}

#[test]
fn moved_missing_and_altered_segments_are_noticed() {
    let key = DataKey::generate(&mut rng(2));
    let plaintext = vec![3; 3 * SEGMENT_BYTES];
    let good = encrypt(&key, b"", &plaintext, usize::MAX);
    let segments: Vec<&[u8]> = good.chunks(SEGMENT_BYTES).collect();
    assert_eq!(segments.len(), 4);
    let refused = |segments: &[&[u8]]| decrypt(&key, b"", &segments.concat(), 1 << 16).unwrap_err();
    let [a, b, c, d] = segments[..] else { panic!() };
    assert_eq!(refused(&[a, c, b, d]), Error::DoesNotOpen { segment: 1 }, "reordered");
    assert_eq!(refused(&[a, b, d]), Error::DoesNotOpen { segment: 2 }, "left out");
    assert_eq!(refused(&[a, b, c]), Error::DoesNotOpen { segment: 2 }, "ends after a whole segment");
    assert_eq!(refused(&[a, b, c, &d[..40]]), Error::DoesNotOpen { segment: 3 }, "ends inside a segment");
    assert_eq!(refused(&[a, b, c, &d[..9]]), Error::Truncated { segment: 3, bytes: 9 });
    assert_eq!(refused(&[a, b, c, d, d]), Error::DoesNotOpen { segment: 3 }, "goes on");
    assert_eq!(refused(&[&[0; 100]]), Error::Header("its first byte is not 40"));
    assert_eq!(refused(&[&a[..55]]), Error::Truncated { segment: 0, bytes: 55 });
    assert_eq!(refused(&[]), Error::Truncated { segment: 0, bytes: 0 });
    let stranger = DataKey::generate(&mut rng(3));
    assert_eq!(decrypt(&stranger, b"", &good, 1 << 16).unwrap_err(), Error::DoesNotOpen { segment: 0 });
}

#[test]
fn keys_are_wrapped_by_every_kind_of_key_encryption_key() {
    let mut rng = rng(4);
    let key = DataKey::generate(&mut rng);
    let ciphertext = encrypt(&key, b"", b"cells", 5);
    let recipient = PrivateKeyset::generate_hpke(&mut rng);
    let public = HybridKey::public("hybrid".to_owned(), recipient.public());
    let private: Arc<dyn KeyEncryptionKey> = Arc::new(HybridKey::private("hybrid".to_owned(), recipient));
    let aead: Arc<dyn KeyEncryptionKey> = Arc::new(TinkAead::generate("aead".to_owned(), &mut rng));
    let local: Arc<dyn KeyEncryptionKey> = Arc::new(LocalKey::from_bytes(Secret::new([5; 32])));
    let wrapped_for_private = key.wrap(&public, b"place", &mut rng).unwrap();
    for kek in [&private, &aead, &local] {
        let wrapped = key.wrap(kek.as_ref(), b"place", &mut rng).unwrap();
        let again = DataKey::unwrap(kek.as_ref(), &wrapped, b"place").unwrap();
        assert_eq!(decrypt(&again, b"", &ciphertext, 9).unwrap(), b"cells");
        assert!(DataKey::unwrap(kek.as_ref(), &wrapped, b"elsewhere").is_err());
        for stranger in [&private, &aead, &local] {
            assert!(Arc::ptr_eq(kek, stranger) || DataKey::unwrap(stranger.as_ref(), &wrapped, b"place").is_err());
        }
        assert!(!format!("{kek:?} {again:?}").contains('['), "nothing of a key is printed");
    }
    DataKey::unwrap(private.as_ref(), &wrapped_for_private, b"place").unwrap();
    let error = DataKey::unwrap(&public, &wrapped_for_private, b"place").unwrap_err();
    assert!(error.to_string().contains("public half"), "{error}");
}

#[test]
fn what_is_no_wrapped_key_is_refused() {
    let mut rng = rng(5);
    let kek = TinkAead::generate("aead".to_owned(), &mut rng);
    assert!(matches!(DataKey::check_wrapped(&[]), Err(Error::Keyset(_))));
    assert!(matches!(DataKey::check_wrapped(&[0xff; 9]), Err(Error::Keyset(_))));
    // A keyset of another template, properly wrapped.
    let other = PrivateKeyset::generate_hpke(&mut rng);
    let sealed = kek.seal(other.to_bytes().expose(), b"", &mut rng).unwrap();
    let mut wrapped = vec![0x12, 0x80 | (sealed.len() % 128) as u8, (sealed.len() / 128) as u8];
    wrapped.extend(&sealed);
    let error = DataKey::unwrap(&kek, &wrapped, b"").unwrap_err();
    assert!(matches!(error, Error::Keyset(_)), "{error}");
    // A key-encryption key is not a data encryption key, nor the other way round.
    assert!(DataKey::from_keyset(kek.to_keyset()).is_err());
    assert!(TinkAead::from_keyset(String::new(), other.to_bytes()).is_err());
}

fn statement() -> Statement {
    Statement { trustee: "aggregator".to_owned(), computation: "c".to_owned(), binding: [1; 32] }
}

#[test]
fn keys_are_released_to_accepted_evidence_only() {
    let mut rng = rng(6);
    let kek = Arc::new(TinkAead::generate("kms://1".to_owned(), &mut rng));
    let key = DataKey::generate(&mut rng);
    let bound = requisition_binding("requisitions/7");
    let wrapped = key.wrap(kek.as_ref(), &bound, &mut rng).unwrap();
    let service = |allow_simulated| {
        AttestedKeyService::new(Arc::new(SimulatedVerifier { allow_simulated }), vec![Arc::<TinkAead>::clone(&kek)])
    };
    let ask = |allow_simulated: bool, evidence: &Evidence, kek: &str| {
        let request = KeyRequest {
            requisition: "requisitions/7",
            kek,
            wrapped_key: &wrapped,
            associated_data: &bound,
            statement: &statement(),
            evidence,
        };
        service(allow_simulated).release(&request).map(drop)
    };
    assert!(SimulatedAttestation.is_simulated());
    let good = SimulatedAttestation.evidence(&statement()).unwrap();
    assert_eq!(Evidence::from_bytes(&good.to_bytes()), Ok(good.clone()));
    assert_eq!(ask(true, &good, "kms://1"), Ok(()));
    assert_eq!(ask(false, &good, "kms://1"), Err(Refused::Simulated), "the default");
    assert_eq!(ask(true, &good, "kms://2"), Err(Refused::UnknownKey { kek: "kms://2".to_owned() }));
    for other in [
        Statement { trustee: "worker1".to_owned(), ..statement() },
        Statement { computation: "d".to_owned(), ..statement() },
        Statement { binding: [2; 32], ..statement() },
    ] {
        let evidence = SimulatedAttestation.evidence(&other).unwrap();
        assert_eq!(ask(true, &evidence, "kms://1"), Err(Refused::OtherStatement));
    }
    let quote = Evidence { format: "tpm".to_owned(), bytes: vec![1] };
    assert_eq!(ask(true, &quote, "kms://1"), Err(Refused::UnknownFormat { format: "tpm".to_owned() }));
    for garbage in [&[][..], &[5, 1], &[2, 0xff, 0xff]] {
        assert_eq!(Evidence::from_bytes(garbage), Err(Refused::Malformed));
    }
}

proptest! {
    #[test]
    fn any_changed_bit_is_noticed(plaintext: Vec<u8>, at: prop::sample::Index, bit in 0u8..8, piece in 1_usize..99) {
        let key = DataKey::generate(&mut rng(7));
        let mut ciphertext = encrypt(&key, b"", &plaintext, piece);
        prop_assert_eq!(decrypt(&key, b"", &ciphertext, piece).unwrap(), plaintext);
        let at = at.index(ciphertext.len());
        ciphertext[at] ^= 1 << bit;
        prop_assert!(decrypt(&key, b"", &ciphertext, piece).is_err());
    }

    #[test]
    fn garbage_is_refused_and_never_panics(garbage in prop::collection::vec(any::<u8>(), 0..300)) {
        let key = DataKey::generate(&mut rng(8));
        prop_assert!(decrypt(&key, b"", &garbage, 64).is_err());
        let kek = TinkAead::generate("aead".to_owned(), &mut rng(8));
        prop_assert!(DataKey::unwrap(&kek, &garbage, b"").is_err());
        prop_assert!(DataKey::from_keyset(Secret::new(garbage)).is_err());
    }
}
