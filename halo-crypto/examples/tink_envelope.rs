//! Envelopes in files, for another implementation of Tink to open, or to be opened here.
//!
//! ```sh
//! cargo run -p halo-crypto --example tink_envelope -- write DIRECTORY   # makes one directory for each case
//! cargo run -p halo-crypto --example tink_envelope -- check DIRECTORY   # opens them and compares
//! ```
//!
//! A case has `kek` (a cleartext keyset), `wrapped_key`, `associated_data`, `ciphertext` and `plaintext`.

use std::error::Error;
use std::fs;
use std::path::Path;

use halo_crypto::envelope::{DataKey, Decryptor, Encryptor, SEGMENT_BYTES, TinkAead};
use halo_crypto::secret::Secret;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

/// What fits into the first segment: its bytes without the header of 40 and the tag of 16.
const FIRST: usize = SEGMENT_BYTES - 40 - 16;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", directory] => write(Path::new(directory)),
        ["check", directory] => check(Path::new(directory)),
        _ => Err("usage: tink_envelope write|check DIRECTORY".into()),
    }
}

fn write(directory: &Path) -> Result<(), Box<dyn Error>> {
    // The keys are published: a fixed seed does them no harm.
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let lengths = [0, 1, 1000, FIRST - 1, FIRST, FIRST + 1, FIRST + SEGMENT_BYTES - 16, 3 * SEGMENT_BYTES + 5];
    for (number, length) in lengths.into_iter().enumerate() {
        let case = directory.join(format!("rust-{length}"));
        fs::create_dir_all(&case)?;
        let associated_data: &[u8] = if number % 2 == 0 { b"" } else { b"halo trustee requisition v1\0requisitions/7" };
        let kek = TinkAead::generate("example-kms://1".to_owned(), &mut rng);
        let key = DataKey::generate(&mut rng);
        let plaintext: Vec<u8> = (0..length).map(|position| (position % 127) as u8).collect();
        let mut ciphertext = Vec::new();
        let mut encryptor = Encryptor::new(&key, associated_data, &mut rng);
        for piece in plaintext.chunks(100_003) {
            encryptor.write(piece, &mut ciphertext)?;
        }
        encryptor.finish(&mut ciphertext)?;
        fs::write(case.join("kek"), kek.to_keyset().expose())?;
        fs::write(case.join("wrapped_key"), key.wrap(&kek, associated_data, &mut rng)?)?;
        fs::write(case.join("associated_data"), associated_data)?;
        fs::write(case.join("ciphertext"), &ciphertext)?;
        fs::write(case.join("plaintext"), &plaintext)?;
    }
    Ok(())
}

fn check(directory: &Path) -> Result<(), Box<dyn Error>> {
    let mut cases = 0;
    for case in fs::read_dir(directory)? {
        let case = case?.path();
        let file = |name: &str| fs::read(case.join(name));
        let kek = TinkAead::from_keyset("example-kms://1".to_owned(), &Secret::new(file("kek")?))?;
        let associated_data = file("associated_data")?;
        let key = DataKey::unwrap(&kek, &file("wrapped_key")?, &associated_data)?;
        let mut decryptor = Decryptor::new(&key, &associated_data);
        let mut plaintext = Vec::new();
        for piece in file("ciphertext")?.chunks(100_003) {
            decryptor.write(piece, &mut plaintext)?;
        }
        decryptor.finish(&mut plaintext)?;
        if plaintext != file("plaintext")? {
            return Err(format!("{} does not open to its plaintext", case.display()).into());
        }
        cases += 1;
    }
    println!("{cases} cases");
    Ok(())
}
