//! The kinds of measurements, as a person names them.

use halo_core::measurement::MeasurementKind;

use crate::error::{Error, Result};

/// Names on the command line and in the figures.
const NAMES: [(&str, MeasurementKind); 5] = [
    ("reach", MeasurementKind::Reach),
    ("reach-and-frequency", MeasurementKind::ReachAndFrequency),
    ("impression", MeasurementKind::Impression),
    ("duration", MeasurementKind::Duration),
    ("population", MeasurementKind::Population),
];

/// The name of a kind of measurement.
#[must_use]
pub fn name(kind: MeasurementKind) -> &'static str {
    NAMES.iter().find(|(_, other)| *other == kind).map_or("", |(name, _)| name)
}

/// The kind of measurement with this name.
///
/// # Errors
/// When there is none; the error lists the names.
pub fn parse(name: &str) -> Result<MeasurementKind> {
    let found = NAMES.iter().find(|(known, _)| *known == name);
    let names = || NAMES.map(|(known, _)| known).join(", ");
    found.map(|(_, kind)| *kind).ok_or_else(|| Error::new(format!("it is none of {}", names())))
}

/// Whether people are counted who were reached.
#[must_use]
pub const fn is_reach(kind: MeasurementKind) -> bool {
    matches!(kind, MeasurementKind::Reach | MeasurementKind::ReachAndFrequency)
}

/// What the number of such a measurement is called.
#[must_use]
pub const fn value_name(kind: MeasurementKind) -> &'static str {
    match kind {
        MeasurementKind::Reach | MeasurementKind::ReachAndFrequency => "reach",
        MeasurementKind::Impression => "impressions",
        MeasurementKind::Duration => "seconds",
        MeasurementKind::Population => "population",
    }
}

/// What such a measurement counts.
#[must_use]
pub const fn unit(kind: MeasurementKind) -> &'static str {
    match kind {
        MeasurementKind::Reach | MeasurementKind::ReachAndFrequency | MeasurementKind::Population => "people",
        MeasurementKind::Impression => "impressions",
        MeasurementKind::Duration => "seconds",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for (known, kind) in NAMES {
            assert_eq!((parse(known).unwrap(), name(kind)), (kind, known));
        }
        assert!(parse("REACH").unwrap_err().to_string().contains("reach-and-frequency"));
    }
}
