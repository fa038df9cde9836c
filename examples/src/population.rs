//! A synthetic population: three publishers with overlapping audiences, the same for the same seed.

use std::{fs::File, path::Path, sync::Arc};

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::error::{Context, Result};

/// People in the population; about two thirds of them see at least one impression.
const PEOPLE: i64 = 152_000;

/// Publishers and the mean number of impressions that they show to a person of average activity.
const PUBLISHERS: [(&str, f64); 3] = [("north", 0.9), ("east", 0.75), ("south", 0.5)];

/// Names of the publishers of the synthetic population, in order.
pub fn names() -> impl Iterator<Item = &'static str> {
    PUBLISHERS.iter().map(|(name, _)| *name)
}

/// The longest that an impression is watched, in seconds.
const LONGEST: u64 = 60;

/// Writes one Parquet file a publisher into `directory` (columns `vid` and `seconds`, one row an impression) and returns
/// the publishers' names in order.
///
/// A person's activity is exponential with mean 1 and multiplies every publisher's mean: audiences overlap as they do
/// when busy people are seen everywhere. The number of impressions is Poisson; how long each is watched is uniform up to
/// a minute.
///
/// # Errors
/// When a file cannot be written.
pub fn write(directory: &Path, seed: u64) -> Result<Vec<String>> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut impressions: [Vec<i64>; 3] = Default::default();
    for person in 1..=PEOPLE {
        let activity = -(1.0 - uniform(&mut rng)).ln();
        for (vids, (_, mean)) in impressions.iter_mut().zip(PUBLISHERS) {
            vids.extend(std::iter::repeat_n(person, poisson(mean * activity, &mut rng)));
        }
    }
    for (vids, (name, _)) in impressions.into_iter().zip(PUBLISHERS) {
        let seconds = vids.iter().map(|_| (rng.next_u64() % (LONGEST + 1)).cast_signed()).collect();
        write_columns(&directory.join(format!("{name}.parquet")), vids, seconds)?;
    }
    Ok(PUBLISHERS.iter().map(|(name, _)| (*name).to_owned()).collect())
}

fn write_columns(path: &Path, vids: Vec<i64>, seconds: Vec<i64>) -> Result<()> {
    let column = |name| Field::new(name, DataType::Int64, false);
    let schema = Arc::new(Schema::new(vec![column("vid"), column("seconds")]));
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vids)), Arc::new(Int64Array::from(seconds))];
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), columns).context(|| format!("cannot lay out {}", path.display()))?;
    let file = File::create(path).context(|| format!("cannot create {}", path.display()))?;
    let mut writer = ArrowWriter::try_new(file, schema, None).context(|| format!("cannot write {}", path.display()))?;
    writer.write(&batch).context(|| format!("cannot write {}", path.display()))?;
    writer.close().context(|| format!("cannot write {}", path.display()))?;
    Ok(())
}

/// Uniform in [0, 1) with 53 bits.
fn uniform(rng: &mut ChaCha20Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Poisson by multiplying uniforms (Knuth); means here are below about 20.
fn poisson(mean: f64, rng: &mut ChaCha20Rng) -> usize {
    let limit = (-mean).exp();
    let mut product = uniform(rng);
    let mut count = 0;
    while product > limit {
        product *= uniform(rng);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::truth::{Limits, Truth};

    #[test]
    fn the_default_population_is_large_enough_and_repeats() {
        let one = tempfile::tempdir().unwrap();
        let two = tempfile::tempdir().unwrap();
        let names = write(one.path(), 1).unwrap();
        write(two.path(), 1).unwrap();
        for name in &names {
            let file = format!("{name}.parquet");
            assert_eq!(std::fs::read(one.path().join(&file)).unwrap(), std::fs::read(two.path().join(&file)).unwrap());
        }
        let files: Vec<_> =
            names.iter().map(|name| (name.clone(), one.path().join(format!("{name}.parquet")))).collect();
        let truth = Truth::count(&files, Limits { classes: 10, impressions: 10, seconds: Some(600) }).unwrap();
        assert!(truth.reached.reach >= 100_000, "{}", truth.reached.reach);
        assert!(truth.publishers.iter().all(|publisher| publisher.counted_seconds > publisher.impressions));
        assert!(truth.publishers.iter().map(|publisher| publisher.impressions).sum::<u64>() >= 300_000);
    }
}
