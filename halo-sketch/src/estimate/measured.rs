//! Results of counts, of whatever methodology, with their standard errors.

use super::{Estimate, project, total};
use crate::{
    Error,
    variance::{self, FrequencyMeasurement, FrequencyVariances, Methodology, ReachMeasurement, ScalarMeasurement},
};

/// A sum that one publisher counted among its sampled people (reach, impressions or seconds), for everybody.
///
/// `counted` is that sum, noised or not; below 0 it counts as 0. `measurement` says how it was made; its `value` is not
/// looked at.
///
/// ```
/// use halo_core::privacy::MaximumFrequency;
/// use halo_sketch::{estimate, variance::ScalarMeasurement};
///
/// // 4,711 impressions of at most 10 a person among a tenth of the people, without noise.
/// let how = ScalarMeasurement::impressions(0.0, MaximumFrequency::new(10)?, 0.1, 0.0);
/// let impressions = estimate::scalar(4_711.0, &how)?;
/// assert_eq!(impressions.value.round(), 47_110.0);
/// assert_eq!(impressions.standard_error.round(), 2_059.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::OutOfRange`] names the number that does not fit.
pub fn scalar(counted: f64, measurement: &ScalarMeasurement) -> Result<Estimate, Error> {
    let value = counted_people(counted)? / measurement.sampling_width;
    let variance = ScalarMeasurement { value, ..*measurement }.variance()?;
    Ok(Estimate { value, standard_error: variance.sqrt() })
}

/// Reach from the cells of a frequency vector that are not 0: the honest-majority share shuffle's, and the trustee's.
///
/// `counted` may be noised; it is taken between 0 and `size`, the number of cells. The people of the population are
/// sampled without replacement, which makes the error smaller than that of [`scalar`] (protocols 5.4, science 1.4).
///
/// # Errors
/// [`Error::OutOfRange`] names the number that does not fit.
pub fn vector_reach(
    counted: f64,
    size: u64,
    interval: variance::Interval,
    noise_variance: f64,
) -> Result<Estimate, Error> {
    let value = counted_people(counted)?.min(size as f64) / interval.check()?.width;
    let measurement =
        ReachMeasurement { methodology: Methodology::FrequencyVector { size }, reach: value, interval, noise_variance };
    Ok(Estimate { value, standard_error: variance::reach(&measurement)?.sqrt() })
}

/// How often people were reached. Every list has one entry for each frequency from 1 to F; the last of `shares` and
/// `people` is F times or more.
#[derive(Clone, Debug, PartialEq)]
pub struct FrequencyDistribution {
    /// Share of the people reached with this frequency. None is below 0; they sum to 1.
    pub shares: Vec<Estimate>,
    /// Share of the people reached with this frequency or more. The first is 1.
    pub k_plus_shares: Vec<Estimate>,
    /// People with this frequency.
    pub people: Vec<Estimate>,
    /// People with this frequency or more: k+ reach. The first is reach itself.
    pub k_plus_reach: Vec<Estimate>,
}

/// Frequencies of any methodology.
///
/// `histogram` counts people, cells or usable registers by frequency, the last entry those of F or more; it may be noised
/// and below 0, and is projected onto what can be (no entry below 0, the same total). `noise_variance` is that of the
/// noise in each entry, `reach` the reach that was measured along with it.
///
/// ```
/// use halo_sketch::{
///     estimate,
///     variance::{Interval, Methodology, ReachMeasurement},
/// };
///
/// let methodology = Methodology::FrequencyVector { size: 1_000 };
/// let reach = ReachMeasurement { methodology, reach: 100.0, interval: Interval::FULL, noise_variance: 25.0 };
/// let found = estimate::distribution(&[70.0, 35.0, -5.0], &reach, 25.0)?.expect("somebody was reached");
/// assert_eq!(found.shares.iter().map(|share| share.value).collect::<Vec<_>>(), [0.675, 0.325, 0.0]);
/// assert_eq!(found.k_plus_reach[1].value, 32.5);
/// # Ok::<(), halo_sketch::Error>(())
/// ```
///
/// `None` when the total of the histogram or the reach is not above 0: there is no data.
///
/// # Errors
/// As [`variance::frequency`]; [`Error::OutOfRange`] when an entry of the histogram is not a number up to 10^100.
pub fn distribution(
    histogram: &[f64],
    reach: &ReachMeasurement,
    noise_variance: f64,
) -> Result<Option<FrequencyDistribution>, Error> {
    if let Some(entry) = histogram.iter().find(|entry| !(-1e100..=1e100).contains(*entry)) {
        return Err(Error::out_of_range("frequency histogram", entry, "of numbers from -10^100 to 10^100"));
    }
    let Some(total) = total(histogram).filter(|_| reach.reach > 0.0) else { return Ok(None) };
    let shares: Vec<f64> = project(histogram, total).into_iter().map(|count| (count / total).min(1.0)).collect();
    let FrequencyVariances { relative, relative_k_plus, count, count_k_plus } =
        variance::frequency(&FrequencyMeasurement { reach: *reach, shares: &shares, noise_variance })?;
    let mut k_plus: Vec<f64> = (0..shares.len()).map(|k| shares[k..].iter().sum::<f64>().min(1.0)).collect();
    k_plus[0] = 1.0;
    let estimates = |shares: &[f64], of: f64, variances: Vec<f64>| {
        let each = shares.iter().zip(variances);
        each.map(|(share, variance)| Estimate { value: share * of, standard_error: variance.sqrt() }).collect()
    };
    Ok(Some(FrequencyDistribution {
        k_plus_shares: estimates(&k_plus, 1.0, relative_k_plus),
        k_plus_reach: estimates(&k_plus, reach.reach, count_k_plus),
        people: estimates(&shares, reach.reach, count),
        shares: estimates(&shares, 1.0, relative),
    }))
}

/// A count of people, of which noise may have taken more than there were.
fn counted_people(counted: f64) -> Result<f64, Error> {
    if counted.is_nan() { Err(Error::out_of_range("count", counted, "a number")) } else { Ok(counted.max(0.0)) }
}
