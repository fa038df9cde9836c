//! The kernels of the share shuffle, nanoseconds an element: `cargo bench -p halo-crypto --bench share`.
//!
//! One thread: set `RAYON_NUM_THREADS=1` for the native shuffle, which uses all cores otherwise.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use halo_crypto::secret::Secret;
use halo_crypto::share::{self, BucketShuffle, Modulus, Seed};

/// Elements that an engine hands in at a time.
const PART: usize = 64 << 10;
const SIZES: [usize; 2] = [1_000_000, 10_000_000];

fn kernels(criterion: &mut Criterion) {
    let seed = Seed::new(Secret::new([7; 48]));
    let mut group = criterion.benchmark_group("share");
    group.sample_size(10);
    for size in SIZES {
        group.throughput(Throughput::Elements(size as u64));
        for q in [127, 251, 256] {
            let modulus = Modulus::new(q).unwrap();
            let mut sum = vec![0; size];
            group.bench_function(BenchmarkId::new(format!("expand-and-add modulo {q}"), size), |bencher| {
                bencher.iter(|| {
                    let mut generator = seed.generator();
                    let mut numbers = generator.uniform_parts(modulus, size);
                    sum.chunks_mut(PART).try_for_each(|part| numbers.add(part)).unwrap();
                });
            });
        }
        let modulus = Modulus::new(127).unwrap();
        let mut product = vec![6; size];
        group.bench_function(BenchmarkId::new("mask modulo 127", size), |bencher| {
            bencher.iter(|| seed.generator().mask(modulus, &mut product).unwrap());
        });
        let mut elements: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        group.bench_function(BenchmarkId::new("shuffle", size), |bencher| {
            bencher.iter(|| share::shuffle(&seed, &mut elements));
        });
        group.bench_function(BenchmarkId::new("bucket shuffle", size), |bencher| {
            bencher.iter(|| {
                let mut shuffle = BucketShuffle::new(&seed, size);
                elements.chunks(PART).for_each(|part| shuffle.push(part));
                shuffle.finish()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, kernels);
criterion_main!(benches);
