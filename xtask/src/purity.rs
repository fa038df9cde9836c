//! The library crates are pure by default: no runtime, no network, no database in their default builds.

use crate::run::{self, Failure};

/// Crates whose default build must be pure.
const PURE: &[&str] = &["halo-core", "halo-crypto", "halo-sketch", "halo-edp-sdk", "halo-duchy", "halo-kingdom"];

/// Packages that a pure build must not contain.
const IMPURE: &[&str] = &["tokio", "tonic", "hyper", "sqlx", "object_store", "reqwest"];

/// Asks `cargo tree` what each default build contains; and the whole workspace for a second TLS provider.
pub(crate) fn check() -> Result<(), Failure> {
    for package in PURE {
        let found: Vec<String> = tree(&["--package", package, "--edges", "normal,build"])?
            .into_iter()
            .filter(|name| IMPURE.contains(&name.as_str()))
            .collect();
        if !found.is_empty() {
            return Err(Failure(format!(
                "the default build of {package} is not pure, it contains {}",
                found.join(", ")
            )));
        }
    }
    let second_provider = ["aws-lc-rs", "openssl-sys", "native-tls"];
    let all = tree(&["--workspace", "--all-features"])?;
    if let Some(name) = all.iter().find(|name| second_provider.contains(&name.as_str())) {
        return Err(Failure(format!("the workspace contains {name}; ring is to be the only TLS provider")));
    }
    eprintln!("xtask: purity: {} crates are pure by default, ring is the only TLS provider", PURE.len());
    Ok(())
}

/// Names of the packages that `cargo tree` lists.
fn tree(arguments: &[&str]) -> Result<Vec<String>, Failure> {
    let output = run::cargo(&["tree", "--prefix", "none", "--format", "{p}"])
        .args(arguments)
        .output()
        .map_err(|error| Failure(format!("cargo tree could not start: {error}")))?;
    if !output.status.success() {
        return Err(Failure(format!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr))));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}
