//! Words for a shell.

use std::path::Path;

/// A path as a shell reads it.
#[must_use]
pub fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("/srv/halo-1/a.toml")), "/srv/halo-1/a.toml");
        assert_eq!(quoted(Path::new("/my files/it's $5")), "'/my files/it'\\''s $5'");
    }
}
