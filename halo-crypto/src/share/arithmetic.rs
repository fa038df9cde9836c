//! Addition, subtraction and multiplication of vectors of bytes modulo q, without branches and table lookups: the time
//! does not depend on the elements, and the compiler makes vector instructions of the loops.

use super::{Modulus, ShareError, vectorised};

/// Elements that are looked at before an answer is given.
const CHECKED: usize = 4 << 10;

/// Whether all elements are below the modulus.
///
/// # Errors
/// [`ShareError::Value`] names the first that is not.
pub fn check(modulus: Modulus, elements: &[u8]) -> Result<(), ShareError> {
    let Ok(q) = u8::try_from(modulus.get()) else { return Ok(()) };
    for (chunk, first) in elements.chunks(CHECKED).zip((0..).step_by(CHECKED)) {
        let largest = vectorised(
            #[inline(always)]
            || chunk.iter().fold(0, |largest: u8, element| largest.max(*element)),
        );
        if largest >= q {
            let at = chunk.iter().position(|element| *element >= q).unwrap_or_default();
            return Err(ShareError::Value { index: first + at, value: chunk[at], modulus: u32::from(q) });
        }
    }
    Ok(())
}

fn check_pair(modulus: Modulus, sum: &[u8], other: &[u8]) -> Result<(), ShareError> {
    if sum.len() != other.len() {
        return Err(ShareError::Length { expected: sum.len(), found: other.len() });
    }
    check(modulus, sum)?;
    check(modulus, other)
}

/// Adds element by element.
///
/// # Errors
/// [`ShareError::Length`] and [`ShareError::Value`]; nothing is changed then.
pub fn add(modulus: Modulus, sum: &mut [u8], other: &[u8]) -> Result<(), ShareError> {
    check_pair(modulus, sum, other)?;
    add_checked(modulus, sum, other);
    Ok(())
}

/// Adds elements that are known to be below the modulus.
pub(super) fn add_checked(modulus: Modulus, sum: &mut [u8], other: &[u8]) {
    let pairs = sum.iter_mut().zip(other);
    vectorised(
        #[inline(always)]
        || match u8::try_from(modulus.get()) {
            Err(_) => pairs.for_each(|(sum, other)| *sum = sum.wrapping_add(*other)),
            // a + b − q where that is not negative, else q more.
            Ok(q) => pairs.for_each(|(sum, other)| {
                let complement = q - other;
                let back = if *sum < complement { q } else { 0 };
                *sum = sum.wrapping_sub(complement).wrapping_add(back);
            }),
        },
    );
}

/// Subtracts element by element.
///
/// # Errors
/// As [`add`].
pub fn subtract(modulus: Modulus, sum: &mut [u8], other: &[u8]) -> Result<(), ShareError> {
    check_pair(modulus, sum, other)?;
    vectorised(
        #[inline(always)]
        || sum.iter_mut().zip(other).for_each(|(sum, other)| *sum = difference(modulus, *sum, *other)),
    );
    Ok(())
}

/// Puts minuend − subtrahend in the subtrahend's place; all elements are below the modulus.
pub(super) fn subtract_from(modulus: Modulus, minuend: &[u8], subtrahend: &mut [u8]) {
    vectorised(
        #[inline(always)]
        || subtrahend.iter_mut().zip(minuend).for_each(|(b, a)| *b = difference(modulus, *a, *b)),
    );
}

/// a − b; modulo 256 the borrow goes by itself.
#[inline(always)]
fn difference(modulus: Modulus, a: u8, b: u8) -> u8 {
    let back = if a < b { modulus.get() as u8 } else { 0 };
    a.wrapping_sub(b).wrapping_add(back)
}

/// Multiplies elements that are below the modulus.
pub(super) fn multiply_checked(modulus: Modulus, product: &mut [u8], other: &[u8]) {
    let q = modulus.get();
    // Below 2^16, x / q is x · ⌈2^24 / q⌉ / 2^24 for every q up to 256 (tested for all pairs).
    let reciprocal = u64::from((1_u32 << 24).div_ceil(u32::from(q)));
    vectorised(
        #[inline(always)]
        || {
            product.iter_mut().zip(other).for_each(|(product, other)| {
                let x = u32::from(*product) * u32::from(*other);
                let quotient = ((u64::from(x) * reciprocal) >> 24) as u32;
                *product = (x - quotient * u32::from(q)) as u8;
            });
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_elements_of_every_modulus() {
        for q in 2..=256_u32 {
            let modulus = Modulus::new(q).unwrap();
            let all: Vec<u8> = (0..q).map(|element| element as u8).collect();
            for a in &all {
                let row = |f: &dyn Fn(u32, u32) -> u32| -> Vec<u8> {
                    all.iter().map(|b| (f(u32::from(*a), u32::from(*b)) % q) as u8).collect()
                };
                let mut found = vec![*a; all.len()];
                add(modulus, &mut found, &all).unwrap();
                assert_eq!(found, row(&|a, b| a + b), "{a} + … modulo {q}");
                found.fill(*a);
                subtract(modulus, &mut found, &all).unwrap();
                assert_eq!(found, row(&|a, b| a + q - b), "{a} − … modulo {q}");
                found.fill(*a);
                multiply_checked(modulus, &mut found, &all);
                assert_eq!(found, row(&|a, b| a * b), "{a} · … modulo {q}");
            }
        }
    }

    #[test]
    fn the_first_bad_element_is_named() {
        let modulus = Modulus::new(127).unwrap();
        let mut elements = vec![126; 3 * CHECKED];
        check(modulus, &elements).unwrap();
        elements[CHECKED + 5] = 200;
        elements[CHECKED + 9] = 127;
        let expected = ShareError::Value { index: CHECKED + 5, value: 200, modulus: 127 };
        assert_eq!(check(modulus, &elements), Err(expected));
        check(Modulus::new(256).unwrap(), &[255]).unwrap();
    }
}
