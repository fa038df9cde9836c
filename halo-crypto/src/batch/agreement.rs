//! The vectorised backend against the portable one: the same bytes for all inputs.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use proptest::{collection::vec, prelude::*, sample::select};

use super::{FixedBase, Ifma, Kernels, Portable, Scalars};
use crate::{
    elgamal::{CIPHERTEXT_BYTES, Ciphertext, CompositeKey, KeyShareSecret},
    group::{
        EncodedPoint, Form, Point, Scalar,
        coordinates::{Coordinates, Field},
    },
    hash::Domain,
    proof::{PossessionContext, VerifiedShare},
};

/// The backend under test, or nothing to test.
fn ifma() -> Option<&'static Ifma> {
    let ifma = Ifma::detect();
    if ifma.is_none() {
        println!("SKIPPED: this CPU has no AVX-512 IFMA, the vectorised backend is not tested");
    }
    ifma
}

/// √−1 and p − √−1.
const ROOTS: [[u64; 5]; 2] = [
    [0x6_1b27_4a0e_a0b0, 0xd5a5_fc8f_189d, 0x7_ef5e_9cbd_0c60, 0x7_8595_a680_4c9e, 0x2_b832_4804_fc1d],
    [0x1_e4d8_b5f1_5f3d, 0x7_2a5a_0370_e762, 0x10a1_6342_f39f, 0x7a6a_597f_b361, 0x5_47cd_b7fb_03e2],
];

/// The curve's points of order 1, 2 and 4: added to a representative, they give another one of the same element.
fn torsion() -> Vec<Coordinates> {
    let zero = Field([0; 5]);
    let minus_one = Field([(1 << 51) - 20, (1 << 51) - 1, (1 << 51) - 1, (1 << 51) - 1, (1 << 51) - 1]);
    let identity = Coordinates::IDENTITY;
    let of_order_4 = ROOTS.map(|root| Coordinates { x: Field(root), y: zero, ..identity });
    vec![identity, Coordinates { y: minus_one, ..identity }, of_order_4[0], of_order_4[1]]
}

/// Scalars at the edges of the recodings: 0, 1, ℓ − 1, 2^252 − 1, digits that all carry, and any.
fn arb_scalar() -> impl Strategy<Value = Scalar> {
    let repeated = |byte: u8| {
        let mut bytes = [byte; 32];
        bytes[31] &= 0x0f;
        Scalar::from_canonical(bytes).unwrap()
    };
    let edges = vec![
        Scalar::from(0),
        Scalar::from(1),
        -Scalar::from(1),
        Scalar::from(u64::MAX),
        repeated(0xff),
        repeated(0x88),
        repeated(0x77),
        repeated(0x82),
        Scalar::from_wide(&[0xff; 64]),
    ];
    prop_oneof![1 => select(edges), 2 => any::<[[u8; 32]; 2]>().prop_map(|wide| {
        Scalar::from_wide(wide.as_flattened().try_into().unwrap())
    })]
}

/// The same element as the vectorised backend keeps it, by any of its representatives, and as the portable one does.
fn arb_point() -> impl Strategy<Value = [Point; 2]> {
    (arb_scalar(), 0_usize..4).prop_map(|(scalar, representative)| {
        let mut portable = [Point::generator()];
        Portable.multiply(Scalars::Shared(&scalar), &mut portable);
        let portable = Point(Form::Dalek(portable[0].dalek()));
        let lanes = Ifma::detect().map_or(portable, |ifma| {
            Point(Form::Lanes(ifma.coordinates(&portable).add(&torsion()[representative]), *ifma))
        });
        [lanes, portable]
    })
}

/// Ciphertexts for both.
fn arb_ciphertext() -> impl Strategy<Value = [Ciphertext; 2]> {
    (arb_point(), arb_point()).prop_map(|(u, e)| [0, 1].map(|side| Ciphertext { u: u[side], e: e[side] }))
}

/// Slices of any length for both, in step with scalars.
fn arb_slice<T: Clone + std::fmt::Debug>(
    item: impl Strategy<Value = [T; 2]>,
) -> impl Strategy<Value = ([Vec<T>; 2], Vec<Scalar>, Vec<Scalar>)> {
    vec((item, arb_scalar(), arb_scalar()), 0..20).prop_map(|all| {
        (
            [0, 1].map(|side| all.iter().map(|(item, ..)| item[side].clone()).collect()),
            all.iter().map(|(_, one, _)| *one).collect(),
            all.iter().map(|(.., two)| *two).collect(),
        )
    })
}

/// Encodes on the portable side.
fn bytes<'a>(points: impl IntoIterator<Item = &'a Point>) -> Vec<[u8; 32]> {
    points.into_iter().map(|point| point.dalek().compress().to_bytes()).collect()
}

/// Both components of all.
fn both(ciphertexts: &[Ciphertext]) -> Vec<[u8; 32]> {
    bytes(ciphertexts.iter().flat_map(|ciphertext| [&ciphertext.u, &ciphertext.e]))
}

fn key(secret: &Scalar) -> Option<CompositeKey> {
    let secret = KeyShareSecret::from_bytes(&crate::secret::Secret::new(secret.to_bytes())).ok()?;
    let context = PossessionContext { session: [1; 32], duchy: "worker1", certificate_sha256: [2; 32] };
    let mut rng = <rand_chacha::ChaCha20Rng as rand_core::SeedableRng>::seed_from_u64(1);
    let proof = secret.prove_possession(&context, &mut rng);
    let share: VerifiedShare = secret.public().verify_possession(&context, &proof).unwrap();
    Some(CompositeKey::combine(&[share]).unwrap())
}

#[test]
fn detection_agrees_with_what_the_kernel_says() {
    // Where the tests of this module are skipped, the CPU must really lack the instructions.
    let Some(has) = crate::cpu::has(&["avx512f", "avx512dq", "avx512ifma"]) else { return };
    assert_eq!(Ifma::detect().is_some(), has);
}

/// Every representative of some elements, as the vectorised backend keeps it and as the portable one does, times scalars at
/// which the formulas have exceptions: several batches of them, and the last eight not full.
#[test]
fn exceptional_products_agree() {
    let Some(ifma) = ifma() else { return };
    let portable = |scalar: Scalar| Point(Form::Dalek(Point::generator().dalek() * scalar.0));
    let mut scalars: Vec<Scalar> = (0..=8).map(Scalar::from).collect();
    scalars.extend((1..=8).map(|number| -Scalar::from(number)));
    scalars.extend([Scalar::from(2).invert(), -Scalar::from(2).invert(), Scalar::from_wide(&[0x5a; 64])]);
    let (mut lanes, mut expected, mut each) = (Vec::new(), Vec::new(), Vec::new());
    for base in [Scalar::from(0), Scalar::from(1), -Scalar::from(1), Scalar::from_wide(&[0xc3; 64])] {
        for representative in torsion() {
            for scalar in &scalars {
                let coordinates = ifma.coordinates(&portable(base)).add(&representative);
                lanes.push(Point(Form::Lanes(coordinates, *ifma)));
                expected.push(portable(base * *scalar));
                each.push(*scalar);
            }
        }
    }
    let bases = lanes.clone();
    ifma.multiply(Scalars::Each(&each), &mut lanes);
    assert!(bytes(&lanes) == bytes(&expected));
    for scalar in &scalars {
        let (mut lanes, mut portable) = (bases.clone(), bases.clone());
        ifma.multiply(Scalars::Shared(scalar), &mut lanes);
        Portable.multiply(Scalars::Shared(scalar), &mut portable);
        assert!(bytes(&lanes) == bytes(&portable));
    }

    // The same as ciphertexts: fused, opened and re-randomised in several batches.
    let pairs = bases.iter().zip(bases.iter().rev()).map(|(u, e)| Ciphertext { u: *u, e: *e });
    let ciphertexts: Vec<Ciphertext> = pairs.collect();
    let key = key(&Scalar::from(5)).unwrap();
    for scalar in &scalars[7..] {
        let (mut lanes, mut portable) = (ciphertexts.clone(), ciphertexts.clone());
        ifma.scale_and_add(Scalars::Shared(scalar), Scalars::Each(&each), &mut lanes);
        Portable.scale_and_add(Scalars::Shared(scalar), Scalars::Each(&each), &mut portable);
        assert!(both(&lanes) == both(&portable));
        let [mut opened, mut expected] = [0, 1].map(|_| vec![Point::generator(); ciphertexts.len()]);
        ifma.open(scalar, &lanes, &mut opened);
        Portable.open(scalar, &portable, &mut expected);
        assert!(bytes(&opened) == bytes(&expected));
        let [mut zeros, mut expected] = [false, true].map(|zero| vec![zero; ciphertexts.len()]);
        ifma.opens_to_identity(scalar, &ciphertexts, &mut zeros);
        Portable.opens_to_identity(scalar, &ciphertexts, &mut expected);
        assert!(zeros == expected);
    }
    let (mut lanes, mut portable) = (ciphertexts.clone(), ciphertexts);
    ifma.rerandomize(&key, &each, &mut lanes);
    Portable.rerandomize(&key, &each, &mut portable);
    assert!(both(&lanes) == both(&portable));
}

/// Eight messages of one length, on both sides of the lengths at which a block more is needed.
#[test]
fn expansions_agree_at_the_borders_of_blocks() {
    let Some(ifma) = ifma() else { return };
    for length in (0..=2).chain(60..=90).chain(190..=260) {
        let messages: Vec<Vec<u8>> = (0..8).map(|lane| vec![lane; length]).collect();
        let messages: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        for domain in [Domain::Index, Domain::Key, Domain::Constant, Domain::NoiseId] {
            let [mut lanes, mut portable] = [1, 2].map(|byte| [[byte; 64]; 8]);
            ifma.expand(domain, &messages, &mut lanes);
            Portable.expand(domain, &messages, &mut portable);
            assert!(lanes == portable, "{length} bytes");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn encodings_agree(all in vec(arb_point(), 0..20)) {
        let Some(ifma) = ifma() else { return Ok(()) };
        let [lanes, portable] = [0, 1].map(|side| all.iter().map(|point| point[side]).collect::<Vec<_>>());
        let mut encoded = vec![EncodedPoint::from_bytes([9; 32]); all.len()];
        ifma.encode(&lanes, &mut encoded);
        let encoded: Vec<_> = encoded.iter().map(|encoded| *encoded.as_bytes()).collect();
        prop_assert_eq!(encoded, bytes(&portable));
    }

    #[test]
    fn encodings_of_doubles_agree(all in vec(arb_point(), 0..40)) {
        let Some(ifma) = ifma() else { return Ok(()) };
        let [lanes, portable] = [0, 1].map(|side| all.iter().map(|point| point[side]).collect::<Vec<_>>());
        let doubles: Vec<_> = portable.iter().map(|point| *point + *point).collect();
        for (kernels, halves) in [(ifma as &dyn Kernels, &lanes), (&Portable, &portable)] {
            let mut encoded = vec![EncodedPoint::from_bytes([9; 32]); all.len()];
            kernels.encode_doubled(halves, &mut encoded);
            let encoded: Vec<_> = encoded.iter().map(|encoded| *encoded.as_bytes()).collect();
            prop_assert_eq!(encoded, bytes(&doubles));
        }
    }

    #[test]
    fn rows_of_products_agree(all in vec((arb_point(), vec(arb_scalar(), 9)), 0..20), row in 1_usize..10) {
        let Some(ifma) = ifma() else { return Ok(()) };
        let scalars: Vec<_> = all.iter().flat_map(|(_, scalars)| scalars[..row].iter().copied()).collect();
        let mut expected: Vec<_> = all.iter().flat_map(|(point, _)| std::iter::repeat_n(point[1], row)).collect();
        Portable.multiply(Scalars::Each(&scalars), &mut expected);
        for (kernels, side) in [(ifma as &dyn Kernels, 0), (&Portable, 1)] {
            let bases: Vec<_> = all.iter().map(|(point, _)| point[side]).collect();
            let mut products = vec![Point::generator(); scalars.len()];
            kernels.multiply_rows(row, &scalars, &bases, &mut products);
            prop_assert_eq!(bytes(&products), bytes(&expected));
        }
    }

    #[test]
    fn multiples_of_a_base_agree((points, scalars, _) in arb_slice(arb_point()), base in arb_point()) {
        let Some(ifma) = ifma() else { return Ok(()) };
        let mut expected = vec![base[1]; scalars.len()];
        Portable.multiply(Scalars::Each(&scalars), &mut expected);
        let [mut lanes, mut portable] = points;
        for (sum, point) in expected.iter_mut().zip(&portable) {
            *sum = *sum + *point;
        }
        ifma.add_multiples(&FixedBase::new(base[0]), &scalars, &mut lanes);
        Portable.add_multiples(&FixedBase::new(base[1]), &scalars, &mut portable);
        prop_assert_eq!(bytes(&lanes), bytes(&expected));
        prop_assert_eq!(bytes(&portable), bytes(&expected));
    }

    #[test]
    fn decodings_agree(all in vec(arb_encoded(), 0..40)) {
        let Some(ifma) = ifma() else { return Ok(()) };
        let decoded = [ifma as &dyn Kernels, &Portable].map(|kernels| {
            let mut points = vec![Some(Point::generator()); all.len()];
            kernels.decode(&all, &mut points);
            points
        });
        for (lanes, (portable, encoded)) in decoded[0].iter().zip(decoded[1].iter().zip(&all)) {
            prop_assert_eq!(lanes.is_some(), portable.is_some(), "{:?}", encoded);
            if let Some(point) = lanes {
                prop_assert_eq!(&point.encode(), encoded);
                prop_assert_eq!(Some(*point), *portable);
            }
        }
    }

    #[test]
    fn products_agree((points, scalars, _) in arb_slice(arb_point()), shared in arb_scalar()) {
        let Some(ifma) = ifma() else { return Ok(()) };
        for scalars in [Scalars::Each(&scalars), Scalars::Shared(&shared)] {
            let [mut lanes, mut portable] = points.clone();
            ifma.multiply(scalars, &mut lanes);
            Portable.multiply(scalars, &mut portable);
            prop_assert_eq!(bytes(&lanes), bytes(&portable));
        }
    }

    #[test]
    fn fused_products_agree(
        (ciphertexts, each_b, each_c) in arb_slice(arb_ciphertext()),
        b in arb_scalar(),
        c in arb_scalar(),
    ) {
        let Some(ifma) = ifma() else { return Ok(()) };
        let choices = [
            [Scalars::Shared(&b), Scalars::Shared(&c)],
            [Scalars::Each(&each_b), Scalars::Each(&each_c)],
            [Scalars::Each(&each_b), Scalars::Shared(&c)],
        ];
        for [b, c] in choices {
            let [mut lanes, mut portable] = ciphertexts.clone();
            ifma.scale_and_add(b, c, &mut lanes);
            Portable.scale_and_add(b, c, &mut portable);
            prop_assert_eq!(both(&lanes), both(&portable));
        }
    }

    #[test]
    fn fixed_bases_agree((ciphertexts, nonces, _) in arb_slice(arb_ciphertext()), secret in arb_scalar()) {
        let Some(ifma) = ifma() else { return Ok(()) };
        let Some(key) = key(&secret) else { return Ok(()) };
        let [mut lanes, mut portable] = ciphertexts;
        ifma.rerandomize(&key, &nonces, &mut lanes);
        Portable.rerandomize(&key, &nonces, &mut portable);
        prop_assert_eq!(both(&lanes), both(&portable));
    }

    #[test]
    fn encryptions_agree((halves, nonces, _) in arb_slice(arb_point()), secret in arb_scalar()) {
        let Some(ifma) = ifma() else { return Ok(()) };
        let Some(key) = key(&secret) else { return Ok(()) };
        let [mut lanes, mut portable] = [1, 2].map(|byte| vec![[byte; CIPHERTEXT_BYTES]; nonces.len()]);
        ifma.encrypt_doubled(&key, &halves[0], &nonces, &mut lanes);
        Portable.encrypt_doubled(&key, &halves[1], &nonces, &mut portable);
        prop_assert_eq!(&lanes, &portable);
        let expected = halves[1].iter().zip(&nonces).flat_map(|(half, nonce)| {
            let (u, e) = (Point::generator().dalek() * nonce.0, half.dalek() + key.element().dalek() * nonce.0);
            [(u + u).compress().to_bytes(), (e + e).compress().to_bytes()]
        });
        prop_assert_eq!(lanes.as_flattened(), expected.flatten().collect::<Vec<u8>>());
    }

    #[test]
    fn openings_agree((ciphertexts, shift, _) in arb_slice(arb_ciphertext()), x in arb_scalar()) {
        let Some(ifma) = ifma() else { return Ok(()) };
        let [mut lanes, mut portable] = ciphertexts;
        // Every other ciphertext hides the identity, by whatever representative.
        for index in (0..lanes.len()).step_by(2) {
            let mut e = [portable[index].u];
            Portable.multiply(Scalars::Shared(&x), &mut e);
            portable[index].e = e[0];
            let torsion = torsion()[index / 2 % 4];
            lanes[index].e = Point(Form::Lanes(ifma.coordinates(&e[0]).add(&torsion), *ifma));
        }
        let mut opened = [vec![Point::generator(); shift.len()], vec![Point::generator(); shift.len()]];
        ifma.open(&x, &lanes, &mut opened[0]);
        Portable.open(&x, &portable, &mut opened[1]);
        prop_assert_eq!(bytes(&opened[0]), bytes(&opened[1]));
        let mut identity = [vec![false; shift.len()], vec![true; shift.len()]];
        ifma.opens_to_identity(&x, &lanes, &mut identity[0]);
        Portable.opens_to_identity(&x, &portable, &mut identity[1]);
        prop_assert_eq!(&identity[0], &identity[1]);
        prop_assert!(identity[0].iter().step_by(2).all(|identity| *identity));
    }

    #[test]
    fn expansions_agree(messages in vec(vec(any::<u8>(), 0..200), 0..40), limit in select(vec![8_usize, 50, 200])) {
        let Some(ifma) = ifma() else { return Ok(()) };
        let messages: Vec<&[u8]> = messages.iter().map(|message| &message[..message.len().min(limit)]).collect();
        let [mut lanes, mut portable] = [vec![[1; 64]; messages.len()], vec![[2; 64]; messages.len()]];
        ifma.expand(Domain::Index, &messages, &mut lanes);
        Portable.expand(Domain::Index, &messages, &mut portable);
        prop_assert_eq!(lanes, portable);
    }

    #[test]
    fn maps_agree(uniform in vec(any::<[[u8; 32]; 2]>(), 0..20), edge in select(vec![0_u8, 0xff, 0x80])) {
        let Some(ifma) = ifma() else { return Ok(()) };
        let mut uniform: Vec<[u8; 64]> = uniform.iter().map(|halves| halves.as_flattened().try_into().unwrap()).collect();
        uniform.push([edge; 64]);
        let mut points = [vec![Point::generator(); uniform.len()], vec![Point::generator(); uniform.len()]];
        ifma.map_uniform(&uniform, &mut points[0]);
        Portable.map_uniform(&uniform, &mut points[1]);
        prop_assert_eq!(bytes(&points[0]), bytes(&points[1]));
    }

    #[test]
    fn single_operations_agree(one in arb_point(), two in arb_point(), scalar in arb_scalar()) {
        let Some(_) = ifma() else { return Ok(()) };
        // Forms may meet in any combination.
        let (portable_one, portable_two) = (one[1].dalek(), two[1].dalek());
        for a in one {
            for b in two {
                prop_assert_eq!((a + b).dalek().compress(), (portable_one + portable_two).compress());
                prop_assert_eq!((a - b).dalek().compress(), (portable_one - portable_two).compress());
                prop_assert_eq!(a == b, portable_one == portable_two);
                prop_assert_eq!(a - b == -(b - a), true);
            }
            prop_assert_eq!((-a).dalek().compress(), (-portable_one).compress());
            prop_assert_eq!((a * &scalar).dalek().compress(), (portable_one * scalar.0).compress());
            prop_assert_eq!(*a.encode().as_bytes(), portable_one.compress().to_bytes());
            prop_assert_eq!(a.encode().decode(), Ok(a));
            prop_assert_eq!(a.is_identity(), portable_one == Point::identity().dalek());
            prop_assert!((a - a).is_identity());
        }
    }
}

/// Encodings: canonical ones, those with one bit changed, the field's edges (p ± k, small, with the topmost bit), any bytes.
fn arb_encoded() -> impl Strategy<Value = EncodedPoint> {
    let canonical = arb_point().prop_map(|point| point[1].dalek().compress().to_bytes());
    let changed = (arb_point(), 0_usize..256).prop_map(|(point, bit)| {
        let mut bytes = point[1].dalek().compress().to_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    });
    let edge = (0_u8..40, any::<bool>(), any::<bool>()).prop_map(|(low, near_p, topmost)| {
        let mut bytes = if near_p { [0xff; 32] } else { [0; 32] };
        bytes[0] = if near_p { 0xed_u8.wrapping_add(low).wrapping_sub(20) } else { low };
        bytes[31] = (if near_p { 0x7f } else { 0 }) | if topmost { 0x80 } else { 0 };
        bytes
    });
    prop_oneof![2 => canonical, 1 => changed, 1 => edge, 2 => any::<[u8; 32]>()].prop_map(EncodedPoint::from_bytes)
}
