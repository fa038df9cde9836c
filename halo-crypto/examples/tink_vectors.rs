//! Writes hybrid encryption vectors as JSON to standard output, for other implementations of Tink to check: keysets that
//! this library made, and ciphertexts under them.
//!
//! ```sh
//! cargo run -p halo-crypto --example tink_vectors > vectors.json
//! ```

use halo_crypto::consent::{
    Error,
    tink::{ECIES_TEMPLATE, HPKE_TEMPLATE, PrivateKeyset},
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

fn main() -> Result<(), Error> {
    // The keys are published: a fixed seed does them no harm.
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let cases: [(&[u8], &[u8]); 4] =
        [(b"", b""), (b"a requisition specification", b""), (b"a random seed", b"computation 7"), (&[7; 5_000], b"x")];
    let mut vectors = Vec::new();
    for template in [HPKE_TEMPLATE, ECIES_TEMPLATE] {
        let keyset = match template {
            HPKE_TEMPLATE => PrivateKeyset::generate_hpke(&mut rng),
            _ => PrivateKeyset::generate_ecies(&mut rng),
        };
        for (number, (plaintext, context)) in cases.iter().enumerate() {
            let ciphertext = keyset.public().encrypt(plaintext, context, &mut rng)?;
            vectors.push(format!(
                "{{\"name\": \"{template} {number}\", \"template\": \"{template}\", \"private_keyset\": \"{}\", \
                 \"public_keyset\": \"{}\", \"context_info\": \"{}\", \"plaintext\": \"{}\", \"ciphertext\": \"{}\"}}",
                hex::encode(keyset.to_bytes().expose()),
                hex::encode(keyset.public().to_bytes()),
                hex::encode(context),
                hex::encode(plaintext),
                hex::encode(ciphertext)
            ));
        }
    }
    println!("{{\"vectors\": [\n{}\n]}}", vectors.join(",\n"));
    Ok(())
}
