//! What stands in for the vector instructions on other processors: there are none, so nobody ever has the ticket.

use super::{KEY_BYTES, generator::Wanted};

/// As there is none, no method is ever called.
#[derive(Clone, Copy, Debug)]
pub(super) enum Vector {}

impl Vector {
    pub(super) fn detect() -> Option<Self> {
        None
    }

    pub(super) fn run<T>(self, _work: impl FnOnce() -> T) -> T {
        match self {}
    }

    pub(super) fn accept(self, _candidates: &[u8], _wanted: Wanted, _accepted: &mut [u8]) -> (usize, usize) {
        match self {}
    }
}

pub(super) struct Stream(Vector);

impl Stream {
    pub(super) fn new(vector: Vector, _key: &[u8; KEY_BYTES], _counter: u128) -> Self {
        match vector {}
    }

    pub(super) fn vector(&self) -> Option<Vector> {
        Some(self.0)
    }

    pub(super) fn bytes(&mut self, _out: &mut [u8]) {
        match self.0 {}
    }
}
