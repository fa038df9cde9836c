//! Time for an element of each kernel, on each backend that this CPU supports, and of curve25519-dalek's own single
//! operations. On one thread: `RAYON_NUM_THREADS=1 cargo bench -p halo-crypto --bench batch`.

use std::hint::black_box;

use criterion::{
    BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use curve25519_dalek::{
    RistrettoPoint, Scalar as DalekScalar, ristretto::RistrettoBasepointTable, traits::MultiscalarMul,
};
use halo_crypto::{
    batch::{self, Backend},
    elgamal::{Ciphertext, CompositeKey, KeyShareSecret},
    group::{Point, Scalar},
    hash::Domain,
    proof::PossessionContext,
    secret::Secret,
};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

/// Elements in a slice.
const COUNT: usize = 512;

fn scalars(rng: &mut ChaCha20Rng) -> Vec<Scalar> {
    (0..COUNT).map(|_| Scalar::random(rng)).collect()
}

/// One kernel that changes ciphertexts in place.
fn in_place(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    ciphertexts: &[Ciphertext],
    kernel: impl Fn(&mut [Ciphertext]),
) {
    group.bench_function(name, |bencher| {
        bencher.iter_batched_ref(|| ciphertexts.to_vec(), |ciphertexts| kernel(ciphertexts), BatchSize::LargeInput);
    });
}

fn kernels(criterion: &mut Criterion) {
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_supported()) {
        backend.select().expect("a benchmark's own input");
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let secret = KeyShareSecret::generate(&mut rng);
        let context = PossessionContext { session: [1; 32], duchy: "worker1", certificate_sha256: [2; 32] };
        let proof = secret.prove_possession(&context, &mut rng);
        let key = CompositeKey::combine(&[secret
            .public()
            .verify_possession(&context, &proof)
            .expect("a benchmark's own input")])
        .expect("a benchmark's own input");
        let ids: Vec<String> = (0..COUNT).map(|id| id.to_string()).collect();
        let messages = batch::hash_to_group(Domain::Index, &ids);
        let (nonces, exponent) = (scalars(&mut rng), Secret::new(Scalar::random(&mut rng)));
        let ciphertexts = batch::encrypt(&key, &messages, &nonces);
        let mut encoded = Vec::new();
        batch::encode_ciphertexts(&ciphertexts, &mut encoded);
        let points: Vec<Point> = ciphertexts.iter().map(|ciphertext| ciphertext.e).collect();

        let mut group = criterion.benchmark_group(backend.to_string());
        group.throughput(Throughput::Elements(COUNT as u64));
        group.bench_function("open (one variable base)", |bencher| {
            bencher.iter(|| batch::open(&secret, black_box(&ciphertexts)));
        });
        group.bench_function("opens to identity", |bencher| {
            bencher.iter(|| batch::opens_to_identity(&secret, black_box(&ciphertexts)));
        });
        in_place(&mut group, "scale (two variable bases, own scalars)", &ciphertexts, |ciphertexts| {
            batch::scale(&nonces, ciphertexts);
        });
        in_place(&mut group, "peel and blind", &ciphertexts, |ciphertexts| {
            batch::peel_and_blind(&secret, &exponent, ciphertexts);
        });
        in_place(&mut group, "peel and scale (own scalars)", &ciphertexts, |ciphertexts| {
            batch::peel_and_scale(&secret, &nonces, ciphertexts);
        });
        group.bench_function("peel and blind, bytes to bytes", |bencher| {
            bencher.iter(|| {
                let mut ciphertexts = batch::decode_ciphertexts(black_box(&encoded)).expect("a benchmark's own input");
                batch::peel_and_blind(&secret, &exponent, &mut ciphertexts);
                let mut bytes = Vec::new();
                batch::encode_ciphertexts(&ciphertexts, &mut bytes);
                bytes
            });
        });
        group.bench_function("encrypt (two fixed bases)", |bencher| {
            bencher.iter(|| batch::encrypt(&key, black_box(&messages), &nonces));
        });
        group.bench_function("encrypt zero (two fixed bases)", |bencher| {
            bencher.iter(|| batch::encrypt_zero(&key, black_box(&nonces)));
        });
        in_place(&mut group, "rerandomize (two fixed bases)", &ciphertexts, |ciphertexts| {
            batch::rerandomize(&key, ciphertexts, &nonces);
        });
        group.bench_function("decode ciphertexts (two points)", |bencher| {
            bencher.iter(|| batch::decode_ciphertexts(black_box(&encoded)));
        });
        group.bench_function("encode points", |bencher| bencher.iter(|| batch::encode_points(black_box(&points))));
        group.bench_function("hash to group", |bencher| {
            bencher.iter(|| batch::hash_to_halves(Domain::Index, black_box(&ids)));
        });
        group.bench_function("multiples (single additions)", |bencher| {
            bencher.iter(|| batch::multiples(black_box(&points[0]), COUNT));
        });
        group.finish();
    }
}

fn single_operations(criterion: &mut Criterion) {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let (p, q) = (RistrettoPoint::random(&mut rng), RistrettoPoint::random(&mut rng));
    let (a, b) = (DalekScalar::random(&mut rng), DalekScalar::random(&mut rng));
    let (table, encoded) = (RistrettoBasepointTable::create(&p), p.compress());
    let mut group = criterion.benchmark_group("dalek");
    group.bench_function("variable base", |bencher| bencher.iter(|| black_box(p) * black_box(a)));
    group.bench_function("fixed base", |bencher| bencher.iter(|| &table * black_box(&a)));
    group.bench_function("two terms", |bencher| {
        bencher.iter(|| RistrettoPoint::multiscalar_mul(black_box([a, b]), black_box([p, q])));
    });
    group.bench_function("addition", |bencher| bencher.iter(|| black_box(p) + black_box(q)));
    group.bench_function("compress", |bencher| bencher.iter(|| black_box(p).compress()));
    group.bench_function("decompress", |bencher| bencher.iter(|| black_box(encoded).decompress()));
    group.bench_function("from uniform bytes", |bencher| {
        bencher.iter(|| RistrettoPoint::from_uniform_bytes(black_box(&[7; 64])));
    });
    group.finish();
}

criterion_group!(benches, kernels, single_operations);
criterion_main!(benches);
