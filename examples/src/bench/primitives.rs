//! Every kernel of the curve on every backend, and curve25519-dalek's own operations beside them.

use std::hint::black_box;

use curve25519_dalek::{
    RistrettoPoint, Scalar as DalekScalar, ristretto::RistrettoBasepointTable, traits::MultiscalarMul,
};
use halo_crypto::{
    batch::{self, Backend},
    elgamal::{CIPHERTEXT_BYTES, Ciphertext, CompositeKey, KeyShareSecret},
    group::{Point, Scalar},
    hash::Domain,
    proof::PossessionContext,
    secret::Secret,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde::Serialize;

use super::{Options, meter::Meter, write_json};
use crate::error::{Context, Error, Result};

/// Elements that a kernel is given at once.
const COUNT: usize = 512;
/// A timing takes at least so long, and is taken so often.
const TIMING_S: f64 = 0.05;
const TIMINGS: usize = 9;

/// One kernel.
#[derive(Debug, Serialize)]
struct Figure {
    backend: String,
    operation: &'static str,
    /// Microseconds of processor time an element: the median, and the lowest and highest.
    us: f64,
    spread_us: (f64, f64),
}

#[derive(Debug, Serialize)]
struct Primitives {
    workload: &'static str,
    threads: usize,
    figures: Vec<Figure>,
}

fn time(backend: &str, operation: &'static str, elements: usize, work: &mut dyn FnMut()) -> Figure {
    let mut repetitions = 1_u32;
    let mut once = || {
        loop {
            let meter = Meter::start();
            for _ in 0..repetitions {
                work();
            }
            let cost = meter.cost();
            if cost.wall_s >= TIMING_S {
                return cost.cpu_s * 1e6 / f64::from(repetitions) / elements as f64;
            }
            repetitions = repetitions.saturating_mul(2);
        }
    };
    let mut us: Vec<f64> = (0..TIMINGS).map(|_| once()).collect();
    us.sort_by(f64::total_cmp);
    let figure =
        Figure { backend: backend.to_owned(), operation, us: us[TIMINGS / 2], spread_us: (us[0], us[TIMINGS - 1]) };
    println!(
        "{:<10} {:<44} {:>9.3} µs   {:.3} to {:.3}",
        figure.backend, figure.operation, figure.us, figure.spread_us.0, figure.spread_us.1
    );
    figure
}

/// What the kernels work on.
struct Input {
    secret: KeyShareSecret,
    key: CompositeKey,
    ids: Vec<String>,
    messages: Vec<Point>,
    nonces: Vec<Scalar>,
    exponent: Secret<Scalar>,
}

fn input() -> Result<Input> {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let secret = KeyShareSecret::generate(&mut rng);
    let context = PossessionContext { session: [1; 32], duchy: "worker1", certificate_sha256: [2; 32] };
    let proof = secret.prove_possession(&context, &mut rng);
    let share = secret.public().verify_possession(&context, &proof).context(|| "a key".into())?;
    let ids: Vec<String> = (0..COUNT).map(|id| id.to_string()).collect();
    Ok(Input {
        key: CompositeKey::combine(&[share]).context(|| "a key".into())?,
        secret,
        messages: batch::hash_to_group(Domain::Index, &ids),
        ids,
        nonces: (0..COUNT).map(|_| Scalar::random(&mut rng)).collect(),
        exponent: Secret::new(Scalar::random(&mut rng)),
    })
}

pub(super) fn run(options: &Options) -> Result<()> {
    let backends = match options.backend {
        Some(backend) => vec![backend],
        None => Backend::ALL.into_iter().filter(|backend| backend.is_supported()).collect(),
    };
    let input = input()?;
    let mut figures = Vec::new();
    for backend in backends {
        backend.select().context(|| "--backend".into())?;
        kernels(&backend.to_string(), &input, &mut figures)?;
    }
    dalek(&mut figures);
    let report = Primitives { workload: "primitives", threads: options.threads, figures };
    write_json(options, &report)
}

fn kernels(backend: &str, input: &Input, figures: &mut Vec<Figure>) -> Result<()> {
    let Input { secret, key, ids, messages, nonces, exponent } = input;
    let ciphertexts = batch::encrypt(key, messages, nonces);
    let mut encoded = Vec::new();
    batch::encode_ciphertexts(&ciphertexts, &mut encoded);
    let points: Vec<Point> = ciphertexts.iter().map(|ciphertext| ciphertext.e).collect();
    batch::decode_ciphertexts(&encoded).map_err(|error| Error::new(format!("the ciphertexts: {error:?}")))?;
    let in_place = |kernel: &dyn Fn(&mut [Ciphertext])| {
        let mut changed = ciphertexts.clone();
        kernel(&mut changed);
        changed
    };
    let mut add = |operation, work: &mut dyn FnMut()| figures.push(time(backend, operation, COUNT, work));
    add("variable base, one scalar for all", &mut || {
        black_box(batch::open(secret, &ciphertexts));
    });
    add("two variable bases, own scalars", &mut || {
        black_box(in_place(&|c| batch::scale(nonces, c)));
    });
    add("blind and decrypt, points to points", &mut || {
        black_box(in_place(&|c| batch::peel_and_blind(secret, exponent, c)));
    });
    add("blind and decrypt, bytes to bytes", &mut || {
        let mut decoded = batch::decode_ciphertexts(&encoded).unwrap_or_default();
        batch::peel_and_blind(secret, exponent, &mut decoded);
        let mut bytes = Vec::with_capacity(encoded.len());
        batch::encode_doubled_ciphertexts(&decoded, &mut bytes);
        black_box(bytes);
    });
    add("encrypt zero (two fixed bases)", &mut || {
        black_box(batch::encrypt_zero(key, nonces));
    });
    add("encrypt (two fixed bases)", &mut || {
        black_box(batch::encrypt(key, messages, nonces));
    });
    add("encrypt, points to bytes", &mut || {
        let mut bytes = vec![[0; CIPHERTEXT_BYTES]; messages.len()];
        batch::encrypt_doubled(key, messages, nonces, &mut bytes);
        black_box(bytes);
    });
    add("re-randomise (two fixed bases)", &mut || {
        black_box(in_place(&|c| batch::rerandomize(key, c, nonces)));
    });
    add("decode a ciphertext (two points)", &mut || {
        black_box(batch::decode_ciphertexts(&encoded).is_ok());
    });
    add("encode a point", &mut || {
        black_box(batch::encode_points(&points));
    });
    add("encode twice a ciphertext (two points)", &mut || {
        let mut bytes = Vec::with_capacity(encoded.len());
        batch::encode_doubled_ciphertexts(&ciphertexts, &mut bytes);
        black_box(bytes);
    });
    add("hash to the group", &mut || {
        black_box(batch::hash_to_halves(Domain::Index, ids));
    });
    Ok(())
}

fn dalek(figures: &mut Vec<Figure>) {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let (p, q) = (RistrettoPoint::random(&mut rng), RistrettoPoint::random(&mut rng));
    let (a, b) = (DalekScalar::random(&mut rng), DalekScalar::random(&mut rng));
    let (table, encoded) = (RistrettoBasepointTable::create(&p), p.compress());
    let mut add = |operation, work: &mut dyn FnMut()| figures.push(time("dalek", operation, 1, work));
    add("variable base", &mut || {
        black_box(black_box(p) * black_box(a));
    });
    add("fixed base", &mut || {
        black_box(&table * black_box(&a));
    });
    add("two terms", &mut || {
        black_box(RistrettoPoint::multiscalar_mul(black_box([a, b]), black_box([p, q])));
    });
    add("compress", &mut || {
        black_box(black_box(p).compress());
    });
    add("decompress", &mut || {
        black_box(black_box(encoded).decompress());
    });
    add("from uniform bytes", &mut || {
        black_box(RistrettoPoint::from_uniform_bytes(black_box(&[7; 64])));
    });
}
