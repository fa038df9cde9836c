//! The vector instructions against the portable code: the same bytes for all inputs, on any number of threads.

use std::cell::Cell;

use proptest::{collection::vec, prelude::*};

use super::*;

thread_local! {
    static PORTABLE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread has to do without vector instructions.
pub(super) fn is_portable() -> bool {
    PORTABLE.get()
}

/// What `work` gives, portably and with vector instructions, on so many threads each.
fn both<T: Send>(threads: [usize; 2], work: impl Fn() -> T + Sync) -> [T; 2] {
    if Vector::detect().is_none() {
        println!("SKIPPED: this CPU has no AVX-512 with VAES, the vector instructions of shares are not tested");
    }
    [(true, threads[0]), (false, threads[1])].map(|(portable, threads)| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).start_handler(move |_| PORTABLE.set(portable));
        pool.build().unwrap().install(|| {
            assert!(!portable || vector().is_none());
            work()
        })
    })
}

#[test]
fn detection_agrees_with_what_the_kernel_says() {
    // Where the tests of this module are skipped, the CPU must really lack the instructions.
    let features = ["aes", "vaes", "avx512f", "avx512bw", "avx512dq", "avx512_vbmi2"];
    let Some(has) = crate::cpu::has(&features) else { return };
    assert_eq!(Vector::detect().is_some(), has);
}

/// Seeds with any counter, half of them near the carries into the high half and beyond it.
fn arb_seed() -> impl Strategy<Value = Seed> {
    let counter = prop_oneof![
        any::<u128>(),
        (0..64_u128).prop_map(|less| u128::MAX - less),
        (any::<u64>(), 0..64_u128).prop_map(|(high, less)| (u128::from(high) << 64 | u128::from(u64::MAX)) - less),
    ];
    (any::<[u8; KEY_BYTES]>(), counter).prop_map(|(key, counter)| {
        let mut bytes = [0; SEED_BYTES];
        bytes[..KEY_BYTES].copy_from_slice(&key);
        bytes[KEY_BYTES..].copy_from_slice(&counter.to_be_bytes());
        Seed::new(Secret::new(bytes))
    })
}

proptest! {
    #[test]
    fn streams(seed in arb_seed(), draws in vec(0_usize..1300, 0..6)) {
        let [portable, fast] = both([1, 1], || {
            let mut generator = seed.generator();
            let mut drawn = vec![0xee; draws.iter().sum()];
            let mut rest = drawn.as_mut_slice();
            for draw in &draws {
                generator.bytes(rest.split_off_mut(..*draw).unwrap());
            }
            drawn
        });
        prop_assert_eq!(portable, fast);
    }

    #[test]
    fn numbers_sums_and_masks(seed in arb_seed(), q in 2_u32..=256, count in 0_usize..20_000, part in 1_usize..9000) {
        let modulus = Modulus::new(q).unwrap();
        let [portable, fast] = both([1, 1], || {
            let mut generator = seed.generator();
            let (mut one, mut two) = (vec![0; count], vec![1; count]);
            generator.uniform(modulus, &mut one);
            let mut numbers = generator.uniform_parts(modulus, count);
            one.chunks_mut(part).for_each(|sums| numbers.add(sums).unwrap());
            subtract(modulus, &mut two, &one).unwrap();
            add(modulus, &mut one, &two).unwrap();
            generator.mask(modulus, &mut two).unwrap();
            [one, two, second_share(modulus, &seed, &vec![1; count]).unwrap()]
        });
        prop_assert!(portable[0].iter().all(|sum| *sum == 1));
        prop_assert!(portable == fast);
    }

    #[test]
    fn orders(seed in arb_seed(), length in 0_usize..12_000, part in 1_usize..9000) {
        let [portable, fast] = both([1, 1], || {
            let mut one: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let two = tests::bucket_shuffle(&seed, &one, part);
            shuffle(&seed, &mut one);
            [one, two]
        });
        prop_assert!(portable == fast);
    }
}

#[test]
fn orders_of_many_buckets_on_any_number_of_threads() {
    let seed = Seed::new(Secret::new([255; SEED_BYTES]));
    for length in [(1 << 16) + 1, 200_003] {
        let [portable, fast] = both([1, 3], || {
            let elements: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            tests::bucket_shuffle(&seed, &elements, 777)
        });
        assert!(portable == fast, "{length}");
    }
}

#[test]
fn sums_are_refused_before_a_number_is_drawn() {
    let (modulus, seed) = (Modulus::new(127).unwrap(), Seed::new(Secret::new([1; SEED_BYTES])));
    let mut generator = seed.generator();
    let mut numbers = generator.uniform_parts(modulus, 3);
    let mut sums = [0, 127, 0];
    assert_eq!(numbers.add(&mut sums), Err(ShareError::Value { index: 1, value: 127, modulus: 127 }));
    assert_eq!(sums, [0, 127, 0]);
    let (mut after, mut due) = ([0; 3], [0; 3]);
    numbers.fill(&mut after);
    seed.generator().uniform(modulus, &mut due);
    assert_eq!(after, due);
}
