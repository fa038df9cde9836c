//! Elements of which many multiples are asked for.

use std::{
    fmt,
    sync::{Arc, LazyLock, OnceLock},
};

use curve25519_dalek::ristretto::RistrettoBasepointTable;

#[cfg(target_arch = "x86_64")]
use super::Comb;
use crate::group::Point;

/// An element with a table of its multiples (30 KiB, or 278 KiB where the vectorised backend computes), which is made when
/// it is asked for first, and shared by clones.
#[derive(Clone)]
pub struct FixedBase {
    element: Point,
    tables: Arc<Tables>,
}

/// The multiples, for each backend that has been asked.
#[derive(Default)]
struct Tables {
    dalek: OnceLock<RistrettoBasepointTable>,
    #[cfg(target_arch = "x86_64")]
    comb: OnceLock<Comb>,
}

impl FixedBase {
    /// Takes an element; its table is made later.
    #[must_use]
    pub fn new(element: Point) -> Self {
        Self { element, tables: Arc::default() }
    }

    /// The group's generator.
    pub(crate) fn generator() -> &'static Self {
        static GENERATOR: LazyLock<FixedBase> = LazyLock::new(|| FixedBase::new(Point::generator()));
        &GENERATOR
    }

    /// The element itself.
    #[must_use]
    pub const fn element(&self) -> Point {
        self.element
    }

    /// The portable backend's table.
    pub(crate) fn dalek_table(&self) -> &RistrettoBasepointTable {
        self.tables.dalek.get_or_init(|| RistrettoBasepointTable::create(&self.element.dalek()))
    }

    /// The vectorised backend's table; `make` makes it, once.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn comb(&self, make: impl FnOnce(&Point) -> Comb) -> &Comb {
        self.tables.comb.get_or_init(|| make(&self.element))
    }
}

impl fmt::Debug for FixedBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedBase").finish_non_exhaustive()
    }
}
