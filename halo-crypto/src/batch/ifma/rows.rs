//! Several multiples of one base: the doublings and the tables are made once.
//!
//! The digits of a scalar in radix 16 fall into blocks of eight. Each block has a table of its own, of multiples of
//! 16^(8·block) times the base, so that one chain of 28 doublings serves all blocks. A table costs as much as a whole
//! multiplication; each scalar after that, a third of one. Digits, tables and additions are those of `ladder`, and so is
//! what makes the time constant.

use zeroize::Zeroizing;

use super::{
    ladder::{Digits, Table, add_chosen},
    lanes::{Eight, gather, scatter},
    point::{Completed, Extended},
};
use crate::group::Scalar;

/// Tables of a base.
const BLOCKS: usize = 8;
/// Digits of a scalar that share a table.
const STEPS: usize = 8;

/// At most eight bases times `row` scalars each, which stand base by base. Place by place in the rows.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn multiply(scalars: &[Scalar], row: usize, bases: &Eight) -> Vec<Eight> {
    let mut columns = Zeroizing::new(Vec::with_capacity(scalars.len()));
    for place in 0..row {
        columns.extend(scalars.iter().skip(place).step_by(row).copied());
    }
    let digits = Digits::of(columns.chunks(scalars.len() / row));
    let mut sums = vec![Completed::identity(); row];
    let tables = tables(&gather(bases));
    for step in (0..STEPS).rev() {
        if step != STEPS - 1 {
            for sum in &mut sums {
                sum.double(4);
            }
        }
        for (block, table) in tables.iter().enumerate() {
            for (sum, digits) in sums.iter_mut().zip(&digits) {
                add_chosen(sum, table, digits.at(block * STEPS + step));
            }
        }
    }
    let mut products = Vec::with_capacity(row);
    for sum in &sums {
        products.push(scatter(&sum.extended()));
    }
    products
}

/// The tables of 16^(8·block) times the base, block by block: 80 KiB, of which 10 KiB are in use at a time.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn tables(base: &Extended) -> Vec<Table> {
    let mut tables = Vec::with_capacity(BLOCKS);
    let mut power = *base;
    for block in 0..BLOCKS {
        if block > 0 {
            let mut completed = power.completed();
            completed.double(4 * STEPS as u32);
            power = completed.extended();
        }
        tables.push(Table::new(&power));
    }
    tables
}
