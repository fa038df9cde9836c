//! Against the reference's values and against definitions written plainly.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::generator::batch;
use super::*;

const STEP_BYTES: usize = 16;

fn modulus(value: u32) -> Modulus {
    Modulus::new(value).unwrap()
}

fn seed(key: u8, counter: u8) -> Seed {
    let mut bytes = [key; SEED_BYTES];
    bytes[KEY_BYTES..].fill(counter);
    Seed::new(Secret::new(bytes))
}

fn drawn(seed: &Seed, value: u32, count: usize) -> Vec<u8> {
    let mut out = vec![0; count];
    seed.generator().uniform(modulus(value), &mut out);
    out
}

/// NIST SP 800-38A, F.5.5.
#[test]
fn the_stream_is_aes_256_in_counter_mode() {
    let key = hex::decode("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4").unwrap();
    let counter = hex::decode("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff").unwrap();
    let mut stream = [0; 64];
    Seed::from_slice(&[key, counter].concat()).unwrap().generator().bytes(&mut stream);
    assert_eq!(
        hex::encode(stream),
        "0bdf7df1591716335e9a8b15c860c5025a6e699d536119065433863c8f657b94\
         1bc12c9c01610d5d0d8bd6a3378eca622956e1c8693536b1bee99c73a31576b6"
    );
}

#[test]
fn numbers_are_those_of_the_reference() {
    let expected = [74, 116, 71, 11, 111, 59, 113, 61, 10, 79, 26, 95, 66, 9, 52, 108];
    let (a, c) = (seed(b'a', b'b'), seed(b'c', b'c'));
    assert_eq!(drawn(&a, 127, 16), expected);
    assert_eq!(drawn(&a, 128, 16), expected);
    let hundred = drawn(&a, 127, 100);
    assert_eq!(hundred[96..], [118, 115, 90, 108]);
    assert_eq!(hundred.iter().map(|number| u32::from(*number)).sum::<u32>(), 6414);
    let mut nonzero = [1; 16];
    a.generator().mask(modulus(127), &mut nonzero).unwrap();
    assert_eq!(nonzero, expected);
    assert_eq!(drawn(&c, 127, 16), [45, 122, 69, 92, 53, 12, 114, 11, 74, 64, 111, 110, 125, 83, 117, 98]);
}

#[test]
fn shuffles_are_those_of_the_reference() {
    let first = seed(b'a', b'b');
    let mut ten: Vec<u8> = (0..10).collect();
    shuffle(&first, &mut ten);
    assert_eq!(ten, [4, 9, 2, 8, 7, 5, 3, 6, 1, 0]);
    let mut hundred: Vec<u8> = (0..100).collect();
    shuffle(&first, &mut hundred);
    assert_eq!(hundred[..20], [34, 18, 12, 90, 73, 85, 26, 68, 83, 72, 74, 0, 60, 19, 3, 62, 10, 64, 53, 44]);
    assert_eq!(hundred[95..], [76, 30, 82, 66, 6]);
    assert_eq!(
        hex::encode(Sha256::digest(&hundred)),
        "bdcefc5f7503b9e17cbdcbf19f2a3b657ef3fd711e1717d831f5d6397d8887ea"
    );

    let mut bytes = [0; SEED_BYTES];
    seed(b'a', b'a').generator().bytes(&mut bytes);
    assert_eq!(
        hex::encode(bytes),
        "2ccd45896fc3525e03c7cb97b66895ffb1f36b1ab4cace56380681158ff28e4714fe2072df6f73e1adc4583aab9e03f2"
    );
    let mut ten: Vec<u8> = (0..10).collect();
    shuffle(&Seed::new(Secret::new(bytes)), &mut ten);
    assert_eq!(ten, [7, 1, 6, 5, 8, 3, 4, 2, 0, 9]);
}

/// The definition in one loop, with all randomness at once, for lengths around the block size.
#[test]
fn a_shuffle_does_not_depend_on_how_its_randomness_is_drawn() {
    let seed = seed(1, 2);
    for length in [0, 1, 2, 511, 512, 513, 514, 1025, 5000] {
        let elements: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let mut random = vec![0; STEP_BYTES * length];
        seed.generator().bytes(&mut random);
        let mut expected = elements.clone();
        for i in 0..length.saturating_sub(1) {
            let bytes = random[STEP_BYTES * i..STEP_BYTES * (i + 1)].try_into().unwrap();
            expected.swap(i, i + (u128::from_le_bytes(bytes) % (length - i) as u128) as usize);
        }
        let mut found = elements;
        shuffle(&seed, &mut found);
        assert_eq!(found, expected, "{length}");
    }
}

/// The definition with every batch in memory at once.
#[test]
fn numbers_do_not_depend_on_how_batches_are_drawn() {
    for value in [2, 3, 100, 127, 128, 129, 200, 251, 256] {
        let modulus = modulus(value);
        let seed = seed(3, 4);
        for count in [0, 1, 10, 40_000] {
            let mut generator = seed.generator();
            let bits = (2..=8).find(|bits| 1 << bits >= value && value > 2).unwrap_or(1);
            let rejected = f64::from((1 << bits) - value) / f64::from(1 << bits);
            let mut expected = Vec::new();
            while expected.len() < count {
                let mut bytes = vec![0; batch(count - expected.len(), rejected)];
                generator.bytes(&mut bytes);
                let accepted = bytes.iter().map(|byte| byte & ((1_u32 << bits) - 1) as u8);
                expected.extend(accepted.filter(|byte| u32::from(*byte) < value));
                expected.truncate(count);
            }
            let mut stream = seed.generator();
            let mut found = vec![0; count];
            stream.uniform(modulus, &mut found);
            assert_eq!(found, expected, "{count} below {value}");
            let mut parts = seed.generator();
            let mut numbers = parts.uniform_parts(modulus, count);
            let mut found_in_parts = vec![0; count];
            found_in_parts.chunks_mut(777).for_each(|part| numbers.fill(part));
            assert_eq!(found_in_parts, expected, "{count} below {value} in parts");
            let mut three = [0; 8];
            parts.bytes(&mut three);
            // All streams stand at the same place.
            let (mut one, mut two) = ([0; 8], [0; 8]);
            generator.bytes(&mut one);
            stream.bytes(&mut two);
            assert_eq!((one, one), (two, three), "{count} below {value}");
        }
    }
}

/// The definition with every batch in memory at once.
#[test]
fn masks_do_not_depend_on_how_batches_are_drawn() {
    for value in [3, 127, 251] {
        let (modulus, seed) = (modulus(value), seed(5, 6));
        for count in [0, 1, 100, 70_000] {
            let (mut expected, mut generator) = (Vec::new(), seed.generator());
            while expected.len() < count {
                let mut numbers = vec![0; batch(count - expected.len(), 1.0 / f64::from(value))];
                generator.uniform(modulus, &mut numbers);
                expected.extend(numbers.iter().filter(|number| **number != 0));
                expected.truncate(count);
            }
            let (mut found, mut other) = (vec![1; count], seed.generator());
            other.mask(modulus, &mut found).unwrap();
            assert!(found == expected, "{count} below {value}");
            let (mut one, mut two) = ([0; 8], [0; 8]);
            generator.bytes(&mut one);
            other.bytes(&mut two);
            assert_eq!(one, two, "{count} below {value}");
        }
    }
    let refused = seed(1, 1).generator().mask(modulus(127), &mut [127]);
    assert_eq!(refused, Err(ShareError::Value { index: 0, value: 127, modulus: 127 }));
}

/// The native shuffle of elements that come in parts of this length.
pub(super) fn bucket_shuffle(seed: &Seed, elements: &[u8], part: usize) -> Vec<u8> {
    let mut shuffle = BucketShuffle::new(seed, elements.len());
    elements.chunks(part).for_each(|part| shuffle.push(part));
    shuffle.finish().to_vec()
}

#[test]
#[should_panic(expected = "where 1 are missing")]
fn a_shuffle_takes_no_more_elements_than_announced() {
    BucketShuffle::new(&seed(1, 1), 1).push(&[1, 2]);
}

#[test]
#[should_panic(expected = "elements are missing")]
fn a_shuffle_does_not_end_early() {
    drop(BucketShuffle::new(&seed(1, 1), 1).finish());
}

/// The definition without blocks or threads.
#[test]
fn the_native_shuffle_is_what_is_written_of_it() {
    let seed = seed(9, 200);
    let bytes = |number: u64, count: usize| {
        let mut bytes = vec![0; count];
        seed.stream(number).bytes(&mut bytes);
        bytes
    };
    for length in [0, 1, 2, 1000, 65_536, 65_537, 200_000] {
        let elements: Vec<u8> = (0..length).map(|i| (i * i % 251) as u8).collect();
        let choices = if length > 65_536 { bytes(0, length) } else { vec![0; length] };
        let mut expected = Vec::new();
        for bucket in 0..=255 {
            let mut part: Vec<u8> =
                elements.iter().zip(&choices).filter(|(_, choice)| **choice == bucket).map(|(e, _)| *e).collect();
            let stream = bytes(u64::from(bucket) + 1, 8 * part.len() + 64);
            let mut words = stream.as_chunks().0.iter().map(|word| u64::from(u32::from_le_bytes(*word)));
            for i in (1..part.len()).rev() {
                let bound = i as u64 + 1;
                let product = loop {
                    let product = words.next().unwrap() * bound;
                    if product % (1 << 32) >= (1_u64 << 32) % bound {
                        break product;
                    }
                };
                part.swap(i, (product >> 32) as usize);
            }
            expected.extend(part);
        }
        for part in [1_usize << 20, 777] {
            assert!(bucket_shuffle(&seed, &elements, part) == expected, "{length}");
        }
    }
    let hundred: Vec<u8> = (0..100).collect();
    let hundred = bucket_shuffle(&seed, &hundred, 100);
    assert_eq!(hex::encode(Sha256::digest(&hundred)), include_str!("../../tests/golden/bucket-shuffle-100.hex").trim());
    let many: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    let many = bucket_shuffle(&seed, &many, 100);
    assert_eq!(hex::encode(Sha256::digest(&many)), include_str!("../../tests/golden/bucket-shuffle-100000.hex").trim());
}

#[test]
fn arithmetic_is_modulo_q() {
    let eight = modulus(8);
    let mut difference = [1, 2, 3, 4, 5, 6, 7];
    subtract(eight, &mut difference, &[7, 6, 5, 4, 3, 2, 1]).unwrap();
    assert_eq!(difference, [2, 4, 6, 0, 2, 4, 6]);
    let mut sum = [1, 2, 3, 4, 5, 6, 7];
    add(eight, &mut sum, &[7, 1, 2, 4, 5, 3, 6]).unwrap();
    assert_eq!(sum, [0, 3, 5, 0, 2, 1, 5]);
    assert_eq!(add(eight, &mut sum, &[0]), Err(ShareError::Length { expected: 7, found: 1 }));
    let bad = [0, 0, 8, 0, 0, 0, 0];
    assert_eq!(add(eight, &mut sum, &bad), Err(ShareError::Value { index: 2, value: 8, modulus: 8 }));
    assert_eq!(sum, [0, 3, 5, 0, 2, 1, 5]);
    assert!(second_share(eight, &seed(1, 1), &[8]).is_err());
    let mut wrapped = [200, 255];
    add(modulus(256), &mut wrapped, &[100, 1]).unwrap();
    assert_eq!(wrapped, [44, 0]);
}

#[test]
fn ranges_are_checked() {
    for value in [0, 1, 257, u32::MAX] {
        assert_eq!(Modulus::new(value), Err(ShareError::Modulus(value)));
    }
    assert_eq!(Seed::from_slice(&[0; 47]).unwrap_err(), ShareError::Seed(47));
    let primes: Vec<u32> = (2..=256).filter(|value| modulus(*value).is_prime()).collect();
    assert_eq!((primes.len(), primes[..5].to_vec(), primes[53]), (54, vec![2, 3, 5, 7, 11], 251));
}

proptest! {
    #[test]
    fn shares_add_up(
        value in 2u32..=256, numbers in prop::collection::vec(any::<u8>(), 0..300), seed in any::<[u8; 32]>(),
    ) {
        let modulus = modulus(value);
        let values: Vec<u8> = numbers.iter().map(|number| (u32::from(*number) % value) as u8).collect();
        let mut bytes = [0; SEED_BYTES];
        bytes[..32].copy_from_slice(&seed);
        let seed = Seed::new(Secret::new(bytes));
        let mut sum = second_share(modulus, &seed, &values).unwrap();
        add(modulus, &mut sum, &drawn(&seed, value, values.len())).unwrap();
        prop_assert_eq!(sum, values);
    }

    #[test]
    fn masks_keep_zero_and_nothing_else(value in prop::sample::select(vec![3u32, 127, 251]), x in any::<u8>()) {
        let modulus = modulus(value);
        let x = (u32::from(x) % value) as u8;
        let mut masked = [x; 50];
        seed(x, 1).generator().mask(modulus, &mut masked).unwrap();
        prop_assert!(masked.iter().all(|element| (*element == 0) == (x == 0)));
    }
}
