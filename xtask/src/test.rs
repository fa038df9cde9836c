//! Every test of the workspace, counted.

use std::{
    fs,
    io::{self, BufRead, BufReader, ErrorKind},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::run::{self, Failure};

/// Beginnings of the reasons for which a test may be skipped. A test says `SKIPPED: <reason>` on a line of its own.
pub(crate) const KNOWN_SKIPS: &[&str] = &[
    // The real impressions live beside the repository and are not part of it.
    "../shared/data/msnbc is missing",
    // The vectorised backend is compared with the portable one where it can run.
    "this CPU has no AVX-512 IFMA",
    "this CPU has no AVX-512 with VAES",
    "this CPU has no SHA instructions",
];

/// What the Python tests import. grpcio refuses stubs that a later grpcio-tools made: they go together.
const PYTHON_PACKAGES: &[&str] = &[
    "pytest==9.*",
    "tink==1.16.1",
    "grpcio==1.85.1",
    "grpcio-tools==1.85.1",
    "googleapis-common-protos==1.76.0",
    "cryptography==50.0.2",
    // What the package halo-cmm needs, reads, plots with and is tested by.
    "numpy==2.4.6",
    "pyarrow==26.0.1",
    "pandas==3.1.1",
    "polars==2.1.0",
    "matplotlib==3.11.2",
    "hypothesis==6.170.15",
    "mypy==2.4.1",
    "nbclient==0.11.0",
    "nbformat==5.11.1",
    "ipykernel==7.4.0",
    // What samplers, accountants and fingerprints are held against.
    "dp-accounting==0.6.0",
    "opendp==0.16.0",
    "pyfarmhash==0.5.1",
];

/// What is tested once more with the portable backend forced, where the fastest one was another: by target, and all whose
/// name contains one of the words. Golden messages, whole computations, threshold encryption.
const PORTABLE_TESTS: &[(&str, &[&str])] =
    &[("threshold", &[]), ("protocol", &["golden", "a_replay", "any_number", "without_noise"])];

/// Where they are.
const PYTHON_TESTS: &[&str] =
    &["halo-crypto/tests/python", "halo-sketch/tests/python", "examples/tests/python", "halo-py/tests"];

/// What a test run printed, added up.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    skips: Vec<String>,
}

impl Tally {
    /// Reads one line of `cargo test` or `pytest`.
    fn read(&mut self, line: &str) {
        let line = line.trim();
        if let Some(reason) = line.strip_prefix("SKIPPED: ") {
            self.skips.push(reason.to_owned());
        } else if let Some(counts) = line.strip_prefix("test result:") {
            self.passed += count_before(counts, "passed");
            self.failed += count_before(counts, "failed");
            self.ignored += count_before(counts, "ignored");
        } else if line.starts_with('=') && line.ends_with('=') && line.contains(" in ") {
            self.passed += count_before(line, "passed");
            self.failed += count_before(line, "failed") + count_before(line, "error") + count_before(line, "errors");
            self.ignored += count_before(line, "skipped");
        }
    }
}

/// The number that stands before `word` in a line of counts, 0 where there is none.
fn count_before(line: &str, word: &str) -> u64 {
    let words: Vec<&str> = line.split([' ', ';', ',', '=']).filter(|part| !part.is_empty()).collect();
    words.windows(2).find(|pair| pair[1] == word).and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

/// Runs the Rust tests (documentation examples included) and then the Python ones.
pub(crate) fn all() -> Result<(), Failure> {
    let mut tally = Tally::default();
    // The documentation examples run with the tests; output is shown so that a skipped test can say why.
    let rust = run::cargo(&["test", "--workspace", "--all-features", "--no-fail-fast", "--", "--show-output"]);
    let mut rust_passed = watch("Rust tests", rust, &mut tally)?;
    for (target, tests) in PORTABLE_TESTS {
        let mut rust = run::cargo(&["test", "--workspace", "--all-features", "--test", target, "--", "--show-output"]);
        rust.args(*tests).env("HALO_CURVE_BACKEND", "portable");
        let before = tally.passed;
        rust_passed &= watch("Rust tests, portable backend", rust, &mut tally)?;
        if tally.passed == before {
            return Err(Failure(format!("no test of {target} ran with the portable backend")));
        }
    }
    let python_passed = watch("Python tests", python()?, &mut tally)?;

    let unknown: Vec<&String> =
        tally.skips.iter().filter(|reason| !KNOWN_SKIPS.iter().any(|known| reason.starts_with(known))).collect();
    for reason in &tally.skips {
        println!("skipped: {reason}");
    }
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skips.len() as u64 + tally.ignored);
    if !rust_passed || !python_passed || tally.failed > 0 {
        return Err(Failure("tests failed; the failures are named above".into()));
    }
    if tally.ignored > 0 {
        return Err(Failure(format!("{} tests are marked to be ignored; none may be", tally.ignored)));
    }
    if let Some(reason) = unknown.first() {
        return Err(Failure(format!("a test was skipped for a reason that is not on the list: {reason}")));
    }
    if tally.passed == 0 {
        return Err(Failure("no test ran".into()));
    }
    Ok(())
}

/// Runs a command, lets its output through and adds it up. Tells whether it succeeded.
fn watch(name: &str, mut command: Command, tally: &mut Tally) -> Result<bool, Failure> {
    eprintln!("xtask: {name}: {command:?}");
    let io = |error: io::Error| Failure(format!("{name} could not run: {error}"));
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(io)?;
    let output = child.stdout.take().ok_or_else(|| Failure(format!("{name} has no output")))?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.map_err(io)?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    Ok(child.wait().map_err(io)?.success())
}

/// `pytest` in a virtual environment that holds exactly [`PYTHON_PACKAGES`], with the package halo-cmm. The tests find what the Rust tests built
/// through the environment: `HALO_TARGET_DIR` is the directory of the programs, `HALO_KINGDOM` the Kingdom's,
/// `HALO_FACT_PROTOS` the directory of the .proto files made from the fact tables.
fn python() -> Result<Command, Failure> {
    let environment = run::target().join("python");
    let interpreter = environment.join("bin/python");
    if !interpreter.exists() {
        let mut create = Command::new("python3");
        create.args(["-m", "venv"]).arg(&environment);
        run::step("Python environment", create)?;
    }
    let mut install = Command::new(&interpreter);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PYTHON_PACKAGES);
    run::step("Python packages", install)?;
    run::step(
        "programs for the Python tests",
        run::cargo(&["build", "--workspace", "--all-features", "--lib", "--bins", "--examples"]),
    )?;

    let programs = run::target().join("debug");
    let package = python_package(&programs)?;
    let protos = run::target().join("fact_protos");
    match fs::remove_dir_all(&protos) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Failure(format!("{} could not be emptied: {error}", protos.display())));
        }
        _ => {}
    }
    let mut write = Command::new(programs.join("examples/fact_protos"));
    write.arg(&protos);
    run::step("protos of the fact tables", write)?;

    let mut pytest = Command::new(interpreter);
    pytest
        .args(["-m", "pytest", "-p", "no:cacheprovider", "-ra"])
        .args(PYTHON_TESTS)
        .env("HALO_KINGDOM", programs.join("halo-kingdom"))
        .env("HALO_FACT_PROTOS", protos)
        .env("HALO_TARGET_DIR", programs)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", package)
        .current_dir(run::root());
    Ok(pytest)
}

/// The directory in which Python finds the package halo-cmm: its Python half and the extension that the workspace's build
/// has made, as a wheel would hold them, without building everything once more for one.
fn python_package(programs: &Path) -> Result<PathBuf, Failure> {
    let directory = run::target().join("python-package");
    let package = directory.join("halo_cmm");
    let io = |error: io::Error| Failure(format!("{} could not be made: {error}", package.display()));
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(io(error)),
        _ => fs::create_dir_all(&package).map_err(io)?,
    }
    for entry in fs::read_dir(run::root().join("halo-py/python/halo_cmm")).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        // Not an extension that a development install has left there.
        if path.is_file() && path.extension().is_none_or(|extension| extension != "so") {
            fs::copy(&path, package.join(entry.file_name())).map_err(io)?;
        }
    }
    fs::copy(programs.join("lib_halo.so"), package.join("_halo.abi3.so")).map_err(io)?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::{Tally, count_before};

    #[test]
    fn counts_are_read_from_both_runners() {
        let mut tally = Tally::default();
        tally.read("test result: ok. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s");
        tally.read("=================== 3 passed, 1 skipped in 0.12s ===================");
        tally.read("SKIPPED: ../shared/data/msnbc is missing");
        assert_eq!((tally.passed, tally.failed, tally.ignored, tally.skips.len()), (15, 1, 3, 1));
        assert_eq!(count_before("nothing here", "passed"), 0);
    }
}
