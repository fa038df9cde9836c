//! How far long work is, and how to stop it.

use std::ops::ControlFlow;

use crate::Error;

/// A stage of a publisher's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading impressions and sketching them; counted in impressions.
    Sketching,
    /// Reading impressions and counting them by person; counted in impressions.
    Counting,
    /// Cutting a vector into shares, or encrypting it; counted in cells.
    Sharing,
    /// Encrypting registers; counted in registers, noise included.
    Encrypting,
}

/// How far a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Items that are done.
    pub done: u64,
    /// Items in all, where it is known beforehand.
    pub total: Option<u64>,
}

/// Is told how far the work is, a few times a second; `ControlFlow::Break` stops the work.
pub trait Observer {
    /// Takes note.
    fn progress(&mut self, progress: Progress) -> ControlFlow<()>;
}

impl<F: FnMut(Progress) -> ControlFlow<()>> Observer for F {
    fn progress(&mut self, progress: Progress) -> ControlFlow<()> {
        self(progress)
    }
}

/// An observer that looks at nothing and never stops the work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn progress(&mut self, _: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Reports, and turns a wish to stop into an error.
pub(crate) fn report(observer: &mut dyn Observer, stage: Stage, done: u64, total: Option<u64>) -> Result<(), Error> {
    match observer.progress(Progress { stage, done, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Interrupted),
    }
}
