use proptest::prelude::*;

use super::*;
use crate::{
    batch::ifma::{
        Ifma, LANES,
        lanes::{load, store},
    },
    group::coordinates::Field,
};

/// The largest limb that a carry leaves.
const CARRIED: u64 = (1 << 51) + (1 << 18) - 1;

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn into_lanes(elements: &[[u64; 5]; LANES]) -> Fe {
    let mut limbs = Fe::zero();
    for k in 0..5 {
        limbs.0[k] = load(&elements.map(|element| element[k]));
    }
    limbs
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn out_of_lanes(limbs: Fe) -> [Field; LANES] {
    let registers = [0, 1, 2, 3, 4].map(|k| store(limbs.0[k]));
    std::array::from_fn(|lane| Field(std::array::from_fn(|k| registers[k][lane])))
}

/// What the formulas do to two elements, and the limbs' bound of each result.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn vectorised(a: &[[u64; 5]; LANES], b: &[[u64; 5]; LANES]) -> Vec<([Field; LANES], u64)> {
    let (a, b) = (into_lanes(a), into_lanes(b));
    let (aa, bb, ab) = (a.squared(), b.squared(), a.times(b));
    vec![
        (out_of_lanes(a.mul(b)), CARRIED),
        (out_of_lanes(a.square()), CARRIED),
        (out_of_lanes(a.plus(b)), CARRIED),
        (out_of_lanes(a.minus(b)), CARRIED),
        (out_of_lanes(a.minus_where(0xff)), (1 << 52) - 2),
        (out_of_lanes(a.mul(b.minus_where(0xff))), CARRIED),
        (out_of_lanes(bb.doubled().plus(aa).minus(ab).carry()), CARRIED),
        (out_of_lanes(ab.minus(aa).carry()), CARRIED),
        (out_of_lanes(a.biased_times(b).less(aa).carry()), CARRIED),
        (out_of_lanes(a.biased_squared().doubled().less(a.biased_times(b)).carry()), CARRIED),
        (out_of_lanes(a.small_multiple((1 << 20) - 1).carry()), CARRIED),
        (out_of_lanes(a.canonical()), LIMB),
        (out_of_lanes(from_words(to_words(a))), LIMB),
    ]
}

/// The same with the scalar arithmetic.
fn scalar(a: &Field, b: &Field) -> Vec<Field> {
    let zero = Field([0; 5]);
    let (aa, bb, ab) = (a.mul(a), b.mul(b), a.mul(b));
    vec![
        ab,
        aa,
        a.add(b),
        a.sub(b),
        zero.sub(a),
        zero.sub(&ab),
        bb.add(&bb).add(&aa).sub(&ab),
        ab.sub(&aa),
        ab.sub(&aa),
        aa.add(&aa).sub(&ab),
        a.mul(&Field([(1 << 20) - 1, 0, 0, 0, 0])),
        *a,
        *a,
    ]
}

fn arb_limb() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..=CARRIED,
        1 => Just(0),
        1 => Just(CARRIED),
        1 => Just(LIMB),
        1 => LIMB - 40..=LIMB + 40,
    ]
}

fn arb_elements() -> impl Strategy<Value = [[u64; 5]; LANES]> {
    prop::array::uniform8(prop::array::uniform5(arb_limb()))
}

fn check(a: &[[u64; 5]; LANES], b: &[[u64; 5]; LANES]) {
    if Ifma::detect().is_none() {
        println!("SKIPPED: this CPU has no AVX-512 IFMA, the vectorised backend is not tested");
        return;
    }
    // SAFETY: the CPU has the features.
    let results = unsafe { vectorised(a, b) };
    for lane in 0..LANES {
        for (number, expected) in scalar(&Field(a[lane]), &Field(b[lane])).iter().enumerate() {
            let (lanes, bound) = &results[number];
            assert!(lanes[lane].0.iter().all(|limb| limb <= bound), "result {number} of {a:x?} and {b:x?}");
            assert!(lanes[lane].sub(expected).is_zero(), "result {number} of {a:x?} and {b:x?}");
        }
    }
}

#[test]
fn the_largest_limbs_do_not_overflow() {
    check(&[[CARRIED; 5]; LANES], &[[CARRIED; 5]; LANES]);
    check(&[[CARRIED; 5]; LANES], &[[0; 5]; LANES]);
    check(&[[0; 5]; LANES], &[[CARRIED; 5]; LANES]);
}

#[test]
fn representatives_of_zero_are_zero() {
    let p = [LIMB - 18, LIMB, LIMB, LIMB, LIMB];
    let twice_p = [LIMB - 37, LIMB, LIMB, LIMB, LIMB + (LIMB + 1)].map(|limb: u64| limb.min(CARRIED));
    check(&[p; LANES], &[twice_p; LANES]);
    assert!(Field(p).is_zero() && Field([0; 5]).is_zero() && !Field([1, 0, 0, 0, 0]).is_zero());
}

proptest! {
    #[test]
    fn lanes_compute_what_the_scalar_code_computes(a in arb_elements(), b in arb_elements()) {
        check(&a, &b);
    }
}
