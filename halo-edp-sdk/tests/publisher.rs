//! Impressions to encrypted bodies.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{collections::BTreeMap, fs::File, ops::ControlFlow, path::Path, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow_schema::{Field, Schema};
use halo_core::{
    measurement::Population,
    privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval},
};
use halo_crypto::{
    batch,
    elgamal::{CompositeKey, KeyShareSecret},
    group::{EncodedPoint, Point, Scalar},
    hash::{self, Domain},
    proof::PossessionContext,
    share::Modulus,
};
use halo_edp_sdk::{
    BodyError, Error,
    encrypt::{self, Encryption, Layout, REGISTER_BYTES},
    events,
    progress::{Observer, Progress, Stage, Unobserved},
    share::{self, Encoding, Sharing},
    sketch,
    spool::{Binding, Manifest, Spool, Spooled},
    vector::{self, VectorTerms},
};
use halo_sketch::{
    liquid_legions::{LiquidLegions, Params, Register, RegisterKey},
    noise::{NoiseCalibration, NoiseMechanism, NoiseSpec, ShiftedNoise},
    sampler::VidSampler,
};
use parquet::arrow::ArrowWriter;
use proptest::prelude::*;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

const BINDING: Binding = Binding { session: [1; 32], fingerprint: [2; 32], key_list_hash: [3; 32] };

fn params() -> Params {
    Params::new(12.0, 100_000, 10_000_000).unwrap()
}

fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let fields: Vec<Field> =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, column)| column).collect());
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema, None).unwrap();
    writer.write(&batch.unwrap()).unwrap();
    writer.close().unwrap();
}

fn read(path: &Path) -> Result<Vec<u64>, Error> {
    let mut all = Vec::new();
    let rows = events::read_vids(path, |vids| all.extend_from_slice(vids))?;
    assert_eq!(rows, all.len() as u64);
    Ok(all)
}

#[test]
fn every_integer_type_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.parquet");
    let columns: [ArrayRef; 4] = [
        Arc::new(Int64Array::from(vec![1, 2, 3])),
        Arc::new(UInt64Array::from(vec![1, 2, 3])),
        Arc::new(Int32Array::from(vec![1, 2, 3])),
        Arc::new(UInt32Array::from(vec![1, 2, 3])),
    ];
    for column in columns {
        let other: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "z"]));
        write(&path, vec![("page", other), ("vid", column)]);
        assert_eq!(read(&path).unwrap(), [1, 2, 3]);
    }
    write(&path, vec![("vid", Arc::new(Int64Array::from(Vec::<i64>::new())))]);
    assert!(read(&path).unwrap().is_empty());
}

#[test]
fn bad_files_say_what_is_wrong_and_where() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.parquet");
    let message = |path: &Path| read(path).unwrap_err().to_string();

    write(&path, vec![("user", Arc::new(Int64Array::from(vec![1]))), ("page", Arc::new(Int64Array::from(vec![1])))]);
    assert!(matches!(read(&path), Err(Error::NoVidColumn { .. })));
    assert!(message(&path).contains("user, page"), "{}", message(&path));

    write(&path, vec![("vid", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])))]);
    assert!(matches!(read(&path), Err(Error::BadRow { row: 2, .. })), "{}", message(&path));

    let mut many = vec![5; 270_000];
    many[269_998] = -4;
    write(&path, vec![("vid", Arc::new(Int64Array::from(many)))]);
    assert!(matches!(read(&path), Err(Error::BadRow { row: 269_999, .. })));
    assert!(message(&path).contains("-4"));

    write(&path, vec![("vid", Arc::new(Int32Array::from(vec![3, 0, i32::MIN])))]);
    assert!(matches!(read(&path), Err(Error::BadRow { row: 3, .. })));
    assert!(message(&path).contains("-2147483648"));

    write(&path, vec![("vid", Arc::new(Float64Array::from(vec![1.0])))]);
    assert!(matches!(read(&path), Err(Error::ColumnType { .. })));

    std::fs::write(&path, b"no Parquet at all").unwrap();
    assert!(matches!(read(&path), Err(Error::NotParquet { .. })));
    let missing = directory.path().join("missing.parquet");
    assert!(matches!(read(&missing), Err(Error::File { .. })));
    assert!(message(&missing).contains("missing.parquet"));
}

/// Three Duchies' secrets and their joint key.
fn keys(rng: &mut ChaCha20Rng) -> (Vec<KeyShareSecret>, CompositeKey) {
    let secrets: Vec<_> = (0..3).map(|_| KeyShareSecret::generate(rng)).collect();
    let context = PossessionContext { session: [0; 32], duchy: "d", certificate_sha256: [0; 32] };
    let shares: Vec<_> = secrets
        .iter()
        .map(|secret| {
            let proof = secret.prove_possession(&context, rng);
            secret.public().verify_possession(&context, &proof).unwrap()
        })
        .collect();
    (secrets, CompositeKey::combine(&shares).unwrap())
}

fn frequency() -> MaximumFrequency {
    MaximumFrequency::new(10).unwrap()
}

fn full() -> Layout {
    Layout::Full { maximum_frequency: frequency() }
}

/// Spools a sketch.
fn create(
    spool: &Spool,
    sketch: &LiquidLegions,
    encryption: &Encryption<'_>,
    observer: &mut dyn Observer,
    rng: &mut ChaCha20Rng,
) -> Result<Spooled, Error> {
    spool.create(
        "r",
        &BINDING,
        |out| encrypt::encrypt(sketch, encryption, out, observer, rng).map(|records| (records, ())),
        |(), sha256| Ok(sha256.to_vec()),
    )
}

fn noise() -> ShiftedNoise {
    let params = PrivacyParams::new(1.0, 1e-6).unwrap();
    NoiseSpec::publisher(NoiseMechanism::DiscreteGaussian, NoiseCalibration::Exact, params).calibrate().unwrap()
}

/// Opens a body under all keys: index, key and count of each record.
fn open(body: &[u8], secrets: &[KeyShareSecret]) -> Vec<[EncodedPoint; 3]> {
    let mut ciphertexts = batch::decode_ciphertexts(body).unwrap();
    let (last, first) = secrets.split_last().unwrap();
    for secret in first {
        batch::peel(secret, &mut ciphertexts);
    }
    let opened = batch::encode_points(&batch::open(last, &ciphertexts));
    opened.chunks_exact(3).map(|record| [record[0], record[1], record[2]]).collect()
}

fn hashed(domain: Domain, text: &str) -> EncodedPoint {
    hash::hash_to_group(domain, text.as_bytes()).encode()
}

/// An index that is handed in twice goes out twice: the Duchies join them.
#[test]
fn registers_are_encrypted_as_they_are_given() {
    let mut rng = ChaCha20Rng::seed_from_u64(12);
    let (secrets, key) = keys(&mut rng);
    let register = Register { index: 7, key: RegisterKey::Unique(4), count: 2 };
    let encryption = Encryption { key: &key, layout: full(), noise: None };
    let mut body = Vec::new();
    encrypt::encrypt_registers(&[register; 2], &encryption, &mut body, &mut Unobserved, &mut rng).unwrap();
    let opened = open(&body, &secrets);
    assert_eq!((opened.len(), opened[0]), (2, opened[1]));
    assert_eq!(opened[0][1], hashed(Domain::Key, "5"));
}

#[test]
fn a_body_opens_to_the_registers_and_noise() {
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let (secrets, key) = keys(&mut rng);
    // Person 1 once, person 2 thirty times, and two people that share a register.
    let mut sketch = LiquidLegions::new(params());
    sketch.insert_all([1].into_iter().chain(std::iter::repeat_n(2, 30)));
    let index = params().index(1);
    let collision = (3..).find(|vid| params().index(*vid) == params().index(100) && *vid != 100).unwrap();
    sketch.insert_all([100, collision]);
    assert_ne!(index, params().index(100));

    let noise = noise();
    let encryption = Encryption { key: &key, layout: full(), noise: Some(&noise) };
    let mut body = Vec::new();
    let records = encrypt::encrypt(&sketch, &encryption, &mut body, &mut Unobserved, &mut rng).unwrap();
    assert_eq!(body.len(), records as usize * REGISTER_BYTES);
    let opened = open(&body, &secrets);

    let unit = hash::constant("unit");
    let times = |count: u64| (unit * &Scalar::from(count)).encode();
    let destroyed = hash::constant("destroyed_register_key").encode();
    let of = |vid: u64| hashed(Domain::Index, &params().index(vid).to_string());
    let key_of = |vid: u64| hashed(Domain::Key, &(params().key(vid) + 1).to_string());
    assert!(opened.contains(&[of(1), key_of(1), times(1)]));
    assert!(opened.contains(&[of(2), key_of(2), times(11)]), "counts above F are F + 1");
    assert!(opened.contains(&[of(100), destroyed, destroyed]));
    let noise_index = hashed(Domain::NoiseId, "publisher_noise_register_id");
    let noise_key = hash::constant("blinded_histogram_noise_register_key").encode();
    let noisy: Vec<_> = opened.iter().filter(|record| record[0] == noise_index).collect();
    assert_eq!(noisy.len() as u64, records - 3);
    assert!(noisy.iter().all(|record| record[1] == noise_key));
    assert!(!opened.iter().flatten().any(|point| *point == Point::identity().encode()));
}

#[test]
fn an_empty_sketch_is_a_body_of_noise_or_nothing() {
    let mut rng = ChaCha20Rng::seed_from_u64(2);
    let (_, key) = keys(&mut rng);
    let sketch = LiquidLegions::new(params());
    let noise = noise();
    for (noise, expected) in [(None, Some(0)), (Some(&noise), None)] {
        let encryption = Encryption { key: &key, layout: full(), noise };
        let mut body = Vec::new();
        let records = encrypt::encrypt(&sketch, &encryption, &mut body, &mut Unobserved, &mut rng).unwrap();
        assert_eq!(body.len(), records as usize * REGISTER_BYTES);
        assert!(expected.is_none_or(|expected| records == expected));
        assert!(noise.is_none_or(|noise| records <= 2 * noise.shift()));
    }
}

#[test]
fn a_spooled_body_stays_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(3);
    let (_, key) = keys(&mut rng);
    let spool = Spool::open(&directory.path().join("spool")).unwrap();
    assert_eq!(spool.find("r", &BINDING).unwrap(), None);
    let sketched = sketch::sketch_vids(&[1, 2, 3, 4], params(), VidSamplingInterval::FULL);
    let encryption = Encryption { key: &key, layout: full(), noise: None };
    let spooled = create(&spool, &sketched.sketch, &encryption, &mut Unobserved, &mut rng).unwrap();
    assert_eq!((spooled.manifest.record_count, spooled.manifest.body_length), (4, 4 * 192));
    assert_eq!(spooled.manifest.attachment, spooled.manifest.body_sha256);
    assert_eq!(spool.find("r", &BINDING).unwrap().as_ref(), Some(&spooled));

    // For another session or other keys it is of no use.
    let other = Binding { key_list_hash: [9; 32], ..BINDING };
    assert!(matches!(spool.find("r", &other), Err(Error::Spool { .. })));
    // One altered byte, or a missing one, is noticed.
    let good = std::fs::read(&spooled.body).unwrap();
    let mut altered = good.clone();
    altered[100] ^= 1;
    for bad in [&altered[..], &good[..good.len() - 1]] {
        std::fs::write(&spooled.body, bad).unwrap();
        assert!(matches!(spool.find("r", &BINDING), Err(Error::Spool { .. })));
    }
    std::fs::write(&spooled.body, &good).unwrap();
    assert!(spool.find("r", &BINDING).unwrap().is_some());
    // Closed, it is gone, and nothing is made for it again.
    spool.close("r").unwrap();
    spool.close("r").unwrap();
    assert!(!spooled.body.exists() && spool.names().unwrap().is_empty());
    assert!(matches!(spool.find("r", &BINDING), Err(Error::AlreadyAnswered { .. })));
    let again = create(&spool, &sketched.sketch, &encryption, &mut Unobserved, &mut rng);
    assert!(again.unwrap_err().to_string().contains("answered before"));
    // What was never complete leaves no trace.
    std::fs::write(directory.path().join("spool/s.partial"), "").unwrap();
    spool.close("s").unwrap();
    let another = Binding { fingerprint: [8; 32], ..BINDING };
    assert_eq!(spool.find("s", &another).unwrap(), None);
}

#[test]
fn a_request_is_answered_under_one_name_only() {
    let directory = tempfile::tempdir().unwrap();
    let draw = |spool: &Spool, name: &str, binding: &Binding| {
        spool.create(
            name,
            binding,
            |out| out.write_all(b"noise").map(|()| (1, ())).map_err(BodyError::Write),
            |(), _| Ok(Vec::new()),
        )
    };
    let spool = Spool::open(directory.path()).unwrap();
    // An attempt that failed has claimed the request already, and the next one under its name goes on.
    let failed = spool.create(
        "r",
        &BINDING,
        |_| Err::<(u64, ()), _>(BodyError::Stopped(Error::Interrupted)),
        |(), _| Ok(Vec::new()),
    );
    assert!(matches!(failed, Err(Error::Interrupted)));
    assert!(matches!(draw(&spool, "s", &BINDING), Err(Error::AnsweredUnderAnotherName)));
    assert_eq!(spool.find("r", &BINDING).unwrap(), None);
    let first = draw(&spool, "r", &BINDING).unwrap();
    // In another session, by another protocol: it is the same request.
    let again = Binding { session: [7; 32], key_list_hash: [7; 32], ..BINDING };
    for closed in [false, true] {
        if closed {
            spool.close("r").unwrap();
        } else {
            assert_eq!(spool.find("r", &BINDING).unwrap().as_ref(), Some(&first));
        }
        assert!(matches!(spool.find("s", &again), Err(Error::AnsweredUnderAnotherName)));
        assert!(matches!(draw(&spool, "s", &again), Err(Error::AnsweredUnderAnotherName)));
    }
    drop(spool);
    let spool = Spool::open(directory.path()).unwrap();
    assert!(matches!(draw(&spool, "s", &BINDING), Err(Error::AnsweredUnderAnotherName)), "a restart forgets nothing");
    assert!(draw(&spool, "s", &Binding { fingerprint: [8; 32], ..BINDING }).is_ok());
}

#[test]
fn a_spool_belongs_to_one_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path()).unwrap();
    let message = Spool::open(directory.path()).unwrap_err().to_string();
    assert!(message.contains("used by another") && message.contains("spool_dir"), "{message}");
    for file in ["a.body", "a.manifest", "b.partial", "c.manifest.partial", "d.txt", "e"] {
        std::fs::write(directory.path().join(file), "").unwrap();
    }
    assert_eq!(spool.names().unwrap().into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    spool.close("a").unwrap();
    assert_eq!(spool.names().unwrap().into_iter().collect::<Vec<_>>(), ["b", "c"]);
    drop(spool);
    assert!(Spool::open(directory.path()).is_ok(), "a spool that nobody uses is free");
}

#[test]
fn work_can_be_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let (_, key) = keys(&mut rng);
    let spool = Spool::open(directory.path()).unwrap();
    let vids: Vec<u64> = (0..1_000).collect();
    let sketched = sketch::sketch_vids(&vids, params(), VidSamplingInterval::FULL);
    let encryption = Encryption { key: &key, layout: full(), noise: None };
    let mut stop = |progress: Progress| {
        assert_eq!(progress.stage, Stage::Encrypting);
        if progress.done > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let outcome = create(&spool, &sketched.sketch, &encryption, &mut stop, &mut rng);
    assert!(matches!(outcome, Err(Error::Interrupted)));
    assert!(spool.names().unwrap().is_empty(), "nothing is left behind");

    let path = directory.path().join("a.parquet");
    write(&path, vec![("vid", Arc::new(Int64Array::from(vec![1, 2])))]);
    let mut stop = |_: Progress| ControlFlow::Break(());
    let outcome = sketch::sketch_file(&path, params(), VidSamplingInterval::FULL, &mut stop);
    assert!(matches!(outcome, Err(Error::Interrupted)));
}

/// Several batches and slices, sampled or not, on any number of threads: the same sketch as that of every VID alone.
#[test]
fn a_file_is_its_vids_one_by_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.parquet");
    let vids: Vec<u64> = (0..600_000_u64).map(|i| i * i % 70_001).collect();
    write(&path, vec![("vid", Arc::new(UInt64Array::from(vids.clone())))]);
    assert_eq!(read(&path).unwrap(), vids);
    for interval in [VidSamplingInterval::FULL, VidSamplingInterval::new(0.9, 0.35).unwrap()] {
        let sampler = VidSampler::new(interval);
        let takes_part = |vid: &&u64| interval == VidSamplingInterval::FULL || sampler.contains(**vid);
        let mut expected = LiquidLegions::new(params());
        vids.iter().filter(takes_part).for_each(|vid| expected.insert(*vid));
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let found = pool.install(|| sketch::sketch_file(&path, params(), interval, &mut Unobserved)).unwrap();
            assert!(found.sketch == expected, "{interval:?} on {threads} threads");
            assert_eq!(found.impressions, 600_000);
        }
    }
}

#[test]
fn sampling_takes_a_share_of_the_people() {
    let vids: Vec<u64> = (0..20_000).collect();
    let interval = VidSamplingInterval::new(0.25, 0.5).unwrap();
    let sampled = sketch::sketch_vids(&vids, Params::new(2.0, 1_000_000, 10_000_000).unwrap(), interval);
    assert_eq!(sampled.impressions, 20_000);
    let share = sampled.sketch.registers().map(|register| register.count).sum::<u64>() as f64 / 20_000.0;
    assert!((share - 0.5).abs() < 0.02, "{share}");
}

#[test]
fn real_publishers_make_the_known_number_of_registers() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/msnbc");
    if !data.exists() {
        println!("SKIPPED: ../shared/data/msnbc is missing");
        return;
    }
    let mut registers = 0;
    for (name, impressions) in [
        ("news", 452_387),
        ("tech", 207_479),
        ("local", 386_217),
        ("weather", 439_398),
        ("business", 264_899),
        ("sports", 395_880),
    ] {
        let path = data.join(format!("{name}.parquet"));
        let sketched = sketch::sketch_file(&path, params(), VidSamplingInterval::FULL, &mut Unobserved).unwrap();
        assert_eq!(sketched.impressions, impressions, "{name}");
        registers += sketched.sketch.active();
    }
    assert_eq!(registers, 162_993);
}

/// The vectors of six real publishers, put together again from shares, add up to the known reach and frequencies.
#[test]
fn real_publishers_have_the_known_reach_and_frequencies() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/msnbc");
    if !data.exists() {
        println!("SKIPPED: ../shared/data/msnbc is missing");
        return;
    }
    let files =
        ["news", "tech", "local", "weather", "business", "sports"].map(|name| data.join(format!("{name}.parquet")));
    let (mut first, mut last) = (u64::MAX, 0);
    for file in &files {
        let range = |vids: &[u64]| vids.iter().for_each(|vid| (first, last) = (first.min(*vid), last.max(*vid)));
        events::read_vids(file, range).unwrap();
    }
    let population = Population::new(first, last).unwrap();
    let terms = VectorTerms { population, interval: VidSamplingInterval::FULL, maximum_frequency: frequency() };
    let sharing = Sharing { modulus: Modulus::new(256).unwrap(), encoding: Encoding::Bytes };
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let mut sums = vec![0; population.size() as usize];
    for file in &files {
        let counted = vector::count_file(file, &terms, &mut Unobserved).unwrap();
        let mut body = Vec::new();
        let cells = counted.vector.cells().to_vec();
        let seed = share::share(cells, &sharing, &mut body, &mut Unobserved, &mut rng).unwrap();
        let mut other = vec![0; sums.len()];
        seed.generator().uniform(sharing.modulus, &mut other);
        for share in [&body, &other] {
            halo_crypto::share::add(sharing.modulus, &mut sums, share).unwrap();
        }
    }
    let mut histogram = [0; 11];
    sums.iter().for_each(|sum| histogram[usize::from(*sum).min(10)] += 1);
    assert_eq!(histogram[1..].iter().sum::<u64>(), 585_389);
    assert_eq!(histogram[1..], [245_821, 103_485, 60_280, 39_614, 30_301, 23_105, 16_288, 12_752, 9_661, 44_082]);
}

/// A binding of random hashes.
fn arb_binding() -> impl Strategy<Value = Binding> {
    any::<[[u8; 32]; 3]>().prop_map(|[session, fingerprint, key_list_hash]| Binding {
        session,
        fingerprint,
        key_list_hash,
    })
}

/// A column of VIDs in each of the four types, with the VIDs.
fn arb_column() -> impl Strategy<Value = (ArrayRef, Vec<u64>)> {
    let column = |vids: &[u64], kind| -> ArrayRef {
        match kind {
            0 => Arc::new(Int32Array::from_iter_values(vids.iter().map(|vid| *vid as i32))),
            1 => Arc::new(UInt32Array::from_iter_values(vids.iter().map(|vid| *vid as u32))),
            2 => Arc::new(Int64Array::from_iter_values(vids.iter().map(|vid| *vid as i64))),
            _ => Arc::new(UInt64Array::from_iter_values(vids.iter().copied())),
        }
    };
    let largest = |kind| [i32::MAX as u64, u64::from(u32::MAX), i64::MAX as u64, u64::MAX][kind];
    // Many from a small range, so that people come more than once.
    (0_usize..4)
        .prop_flat_map(move |kind| {
            let vid = prop_oneof![0_u64..50, 0..=largest(kind)];
            (Just(kind), prop::collection::vec(vid, 0..300))
        })
        .prop_map(move |(kind, vids)| (column(&vids, kind), vids))
}

proptest! {
    #[test]
    fn any_bytes_are_a_manifest_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Manifest::from_bytes(&bytes).is_err(), "its last 32 bytes are a hash of the others");
    }

    #[test]
    fn manifests_round_trip_and_nothing_else_is_read(
        (record_count, body_length, body_sha256) in any::<(u64, u64, [u8; 32])>(),
        attachment in prop::collection::vec(any::<u8>(), 0..300),
        binding in arb_binding(),
        position in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let manifest = Manifest { record_count, body_length, body_sha256, binding, attachment };
        let mut bytes = manifest.to_bytes();
        prop_assert_eq!(Manifest::from_bytes(&bytes), Ok(manifest));
        let position = position.index(bytes.len());
        prop_assert!(Manifest::from_bytes(&bytes[..position]).is_err());
        bytes[position] ^= flip;
        prop_assert!(Manifest::from_bytes(&bytes).is_err());
    }

    #[test]
    fn columns_of_any_type_are_read_and_counted_as_they_are((column, vids) in arb_column()) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.parquet");
        write(&path, vec![("vid", column)]);
        prop_assert_eq!(&read(&path).unwrap(), &vids);
        let sketched = sketch::sketch_file(&path, params(), VidSamplingInterval::FULL, &mut Unobserved).unwrap();
        prop_assert_eq!(sketched.impressions, vids.len() as u64);
        // Counted by hand: registers of more than one person have no count of their own.
        let mut people: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
        for vid in &vids {
            *people.entry(params().index(*vid)).or_default().entry(params().key(*vid)).or_default() += 1;
        }
        prop_assert_eq!(sketched.sketch.active(), people.len());
        for register in sketched.sketch.registers() {
            let keys = &people[&register.index];
            match register.key {
                RegisterKey::Unique(key) => prop_assert_eq!((keys.len(), keys[&key]), (1, register.count)),
                RegisterKey::Destroyed => prop_assert!(keys.len() > 1),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn bodies_open_to_what_was_sketched(
        vids in prop::collection::vec(0_u64..40, 0..60),
        maximum in 1_u32..6,
        noisy in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let (secrets, key) = keys(&mut rng);
        let sketched = sketch::sketch_vids(&vids, params(), VidSamplingInterval::FULL);
        let noise = noise();
        let maximum_frequency = MaximumFrequency::new(maximum).unwrap();
        let encryption = Encryption { key: &key, layout: Layout::Full { maximum_frequency }, noise: noisy.then_some(&noise) };
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(directory.path()).unwrap();
        let spooled =
            create(&spool, &sketched.sketch, &encryption, &mut Unobserved, &mut rng).unwrap();
        let body = std::fs::read(&spooled.body).unwrap();
        prop_assert_eq!(body.len() as u64, spooled.manifest.record_count * REGISTER_BYTES as u64);

        let noise_index = hashed(Domain::NoiseId, "publisher_noise_register_id");
        let destroyed = hash::constant("destroyed_register_key").encode();
        let unit = hash::constant("unit");
        let mut opened: Vec<_> =
            open(&body, &secrets).into_iter().filter(|record| record[0] != noise_index).collect();
        prop_assert!(noisy || opened.len() as u64 == spooled.manifest.record_count);
        let mut expected: Vec<_> = sketched
            .sketch
            .registers()
            .map(|register| {
                let index = hashed(Domain::Index, &register.index.to_string());
                match register.key {
                    RegisterKey::Unique(key) => {
                        let count = register.count.min(u64::from(maximum) + 1);
                        let count = (unit * &Scalar::from(count)).encode();
                        [index, hashed(Domain::Key, &(key + 1).to_string()), count]
                    }
                    RegisterKey::Destroyed => [index, destroyed, destroyed],
                }
            })
            .collect();
        let bytes = |record: &[EncodedPoint; 3]| record.map(|point| *point.as_bytes());
        opened.sort_by_key(bytes);
        expected.sort_by_key(bytes);
        prop_assert_eq!(opened, expected);
    }
}
