//! The examples' error: what failed, and the error below it.

/// What went wrong, in words, with its cause.
#[derive(Debug, thiserror::Error)]
#[error("{what}{}", .cause.as_ref().map(|cause| format!(": {}", chain(cause.as_ref()))).unwrap_or_default())]
pub struct Error {
    what: String,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without a cause below it.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), cause: None }
    }
}

/// Adds what was being done to an error.
pub trait Context<T> {
    /// Replaces the error by one that says `what` and keeps the old one as its cause.
    ///
    /// # Errors
    /// The error that was there, with its context.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error { what: what(), cause: Some(error.into()) })
    }
}

/// An error and what caused it, in one line. A cause whose text its parent already shows is not repeated.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Context, Error};

    #[test]
    fn causes_are_shown_once() {
        let inner: Result<(), _> = Err(Error::new("the disk is full"));
        let outer = inner.context(|| "cannot write report.html".into()).unwrap_err();
        assert_eq!(outer.to_string(), "cannot write report.html: the disk is full");
    }
}
