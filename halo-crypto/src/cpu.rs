//! What the kernel says of the CPU: where tests of vector instructions are skipped, it must really lack them.

/// Whether the CPU has all of these features, by their names in `/proc/cpuinfo`; none where there is no such file.
pub(crate) fn has(features: &[&str]) -> Option<bool> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let flags: Vec<&str> =
        cpu.lines().find(|line| line.starts_with("flags")).unwrap_or("").split_whitespace().collect();
    Some(features.iter().all(|feature| flags.contains(feature)))
}
