//! The one door through which long work leaves the interpreter: the GIL is released, Ctrl-C is honoured.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use pyo3::prelude::*;

use crate::error::Error;

/// How often signals are looked at.
const POLL: Duration = Duration::from_millis(50);

/// Whether the caller has given the work up.
#[derive(Debug, Default)]
pub(crate) struct Control(AtomicBool);

impl Control {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Does the work on a thread of its own, while this one waits for it or for a signal. When a signal's handler raises,
/// the work is told to stop, and the exception is raised as soon as it has.
pub(crate) fn run<T: Send>(py: Python<'_>, work: impl FnOnce(&Control) -> Result<T, Error> + Send) -> PyResult<T> {
    let control = Control::default();
    let mut interrupt = None;
    let outcome = py.detach(|| {
        std::thread::scope(|scope| {
            let (sender, receiver) = channel();
            let control = &control;
            let worker = scope.spawn(move || {
                let outcome = work(control);
                // Nobody listens any more only when the waiting side has panicked.
                let _ = sender.send(());
                outcome
            });
            while receiver.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                if interrupt.is_none()
                    && let Err(raised) = Python::attach(|py| py.check_signals())
                {
                    interrupt = Some(raised);
                    control.0.store(true, Ordering::Relaxed);
                }
            }
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    });
    match interrupt {
        Some(raised) => Err(raised),
        None => Ok(outcome?),
    }
}
