//! How the cost of Liquid Legions v2 grows with the number of registers.

use serde::Serialize;

use super::{Options, Report, Workload, measure, write_json};
use crate::error::Result;

/// Steps from a hundredth of `--registers` to all of them, three a decade.
const STEPS: [f64; 7] = [0.01, 0.021_544_3, 0.046_415_9, 0.1, 0.215_443, 0.464_159, 1.0];

/// What `bench scaling --json` writes.
#[derive(Debug, Serialize)]
struct Scaling {
    workload: &'static str,
    runs: Vec<Report>,
    /// Slope of the logarithm of processor time over the logarithm of the number of registers, by least squares.
    slope: f64,
}

pub(super) fn run(options: &Options) -> Result<()> {
    let mut runs = Vec::new();
    println!("{:>12} {:>12} {:>16} {:>16}", "registers", "CPU s", "µs a register", "memory MB");
    for step in STEPS {
        let registers = ((options.registers as f64 * step).round() as u64).max(1);
        let report = measure(&Options { workload: Workload::Llv2, registers, noise: None, ..options.clone() })?;
        println!(
            "{registers:>12} {:>12.3} {:>16.2} {:>16.1}",
            report.cpu_s,
            report.cpu_us_per_input_register,
            report.added_rss_bytes as f64 / 1e6
        );
        runs.push(report);
    }
    let points: Vec<(f64, f64)> =
        runs.iter().map(|report| ((report.parameters.registers as f64).ln(), report.cpu_s.ln())).collect();
    let slope = slope(&points);
    println!("slope of log CPU over log registers: {slope:.3}");
    write_json(options, &Scaling { workload: "scaling", runs, slope })
}

/// The slope of the line through the points, by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0 / count, y + point.1 / count));
    let (covariance, variance) = points.iter().fold((0.0, 0.0), |(covariance, variance), point| {
        (covariance + (point.0 - x) * (point.1 - y), variance + (point.0 - x).powi(2))
    });
    covariance / variance
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn a_line_has_its_slope() {
        let points: Vec<(f64, f64)> = (1..10).map(|x| (f64::from(x), 3.0 - 1.5 * f64::from(x))).collect();
        assert!((slope(&points) + 1.5).abs() < 1e-12);
    }
}
