//! What can be wrong with a name or a value.

use thiserror::Error;

/// A name or a value that breaks one of the rules of this crate.
///
/// States refuse events with [`crate::measurement::IllegalEvent`]; the conversions from the wire wrap this type and add
/// the path of the field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A resource name or an id does not have the form that its place asks for.
    #[error("{value} is not of the form {expected}: {reason}")]
    Name {
        /// The pattern, such as `dataProviders/{data_provider}`.
        expected: &'static str,
        /// The text that was given, quoted and cut to a readable length.
        value: String,
        /// Which part does not fit.
        reason: String,
    },
    /// A number lies outside its range, or a text or list has a wrong size.
    #[error("{what} must be {expected}, but is {value}")]
    Value {
        /// What the value means, such as `epsilon`.
        what: &'static str,
        /// The value that was given.
        value: String,
        /// The range or form that is allowed.
        expected: &'static str,
    },
}

impl Error {
    pub(crate) fn name(expected: &'static str, value: &str, reason: impl Into<String>) -> Self {
        Self::Name { expected, value: quote(value), reason: reason.into() }
    }

    pub(crate) fn value(what: &'static str, value: impl ToString, expected: &'static str) -> Self {
        Self::Value { what, value: value.to_string(), expected }
    }
}

/// Quotes foreign text for a message: escaped, and cut where it is longer than any proper name.
pub(crate) fn quote(text: &str) -> String {
    const LONGEST: usize = 160;
    let shown: String = text.chars().take(LONGEST).collect();
    let cut = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{cut}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_escaped_and_cut() {
        assert_eq!(quote("a\nb"), r#""a\nb""#);
        let long = quote(&"x".repeat(1000));
        assert!(long.ends_with('…') && long.chars().count() < 170, "{long}");
    }
}
