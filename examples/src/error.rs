//! The examples' error: what failed, and the error below it.

use tonic::{Code, Status};

/// What went wrong, in words, with its cause.
#[derive(Debug, thiserror::Error)]
#[error("{what}{}", .cause.as_ref().map(|cause| format!(": {}", chain(cause.as_ref()))).unwrap_or_default())]
pub struct Error {
    what: String,
    #[source]
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error without a cause below it.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), cause: None }
    }

    /// Whether a server said that the same call will fail whenever it is made.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        let mut next = self.cause.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static));
        while let Some(cause) = next {
            if let Some(status) = cause.downcast_ref::<Status>() {
                return is_permanent(status);
            }
            next = cause.source();
        }
        false
    }
}

/// Whether the same call will fail whenever it is made.
#[must_use]
pub fn is_permanent(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated
    )
}

/// Text of another party for a terminal: what would steer it is escaped.
#[must_use]
pub fn printable(text: &str) -> String {
    // Also marks that turn the direction of writing, with which a text can pretend to be another.
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        match steers(c) {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
        shown
    })
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
    use tonic::Status;

    use super::{Context, Error, printable};

    #[test]
    fn permanent_refusals_are_told_from_outages() {
        let error = |status: Status| Err::<(), _>(status).context(|| "a call".into()).unwrap_err();
        assert!(error(Status::not_found("nothing")).is_permanent());
        assert!(!error(Status::unavailable("later")).is_permanent());
        let outer = Err::<(), _>(error(Status::permission_denied("no"))).context(|| "work".into()).unwrap_err();
        assert!(outer.is_permanent());
        assert!(!Error::new("something else").is_permanent());
    }

    #[test]
    fn foreign_text_steers_no_terminal() {
        assert_eq!(printable("naïve 漢\u{1b}[2J\r\n\u{202e}"), "naïve 漢\\u{1b}[2J\\r\\n\\u{202e}");
    }

    #[test]
    fn causes_are_shown_once() {
        let inner: Result<(), _> = Err(Error::new("the disk is full"));
        let outer = inner.context(|| "cannot write report.html".into()).unwrap_err();
        assert_eq!(outer.to_string(), "cannot write report.html: the disk is full");
    }
}
