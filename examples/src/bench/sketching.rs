//! Impressions from a Parquet file to a sketch.

use std::{fs::File, path::Path, sync::Arc};

use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use halo_core::privacy::VidSamplingInterval;
use halo_edp_sdk::{progress::Unobserved, sketch::sketch_file};
use halo_sketch::liquid_legions::{LiquidLegions, Params, Register, RegisterKey};
use parquet::arrow::ArrowWriter;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use super::{Measured, Options, Stage, meter::Meter, wrong};
use crate::error::{Context, Result};

/// Impressions that are written at a time.
const PART: u64 = 1 << 20;
/// People whom a publisher of this many impressions reaches: about one in ten impressions is of somebody new.
const IMPRESSIONS_A_PERSON: u64 = 10;

fn vids(options: &Options) -> impl Iterator<Item = Vec<i64>> {
    let people = (options.registers / IMPRESSIONS_A_PERSON).max(1);
    let registers = options.registers;
    let mut rng = ChaCha20Rng::seed_from_u64(11);
    (0..registers).step_by(PART as usize).map(move |first| {
        let length = PART.min(registers - first);
        (0..length).map(|_| (rng.next_u64() % people) as i64).collect()
    })
}

/// The sketch by its definition: every VID is hashed alone.
fn one_by_one(vids: &[i64], params: Params) -> Result<LiquidLegions> {
    let register = |vid: &i64| {
        let vid = vid.cast_unsigned();
        Register { index: params.index(vid), key: RegisterKey::Unique(params.key(vid)), count: 1 }
    };
    LiquidLegions::from_registers(params, vids.iter().map(register)).context(|| "the sketch".into())
}

pub(super) fn run(options: &Options, directory: &Path) -> Result<Box<dyn Fn() -> Result<Measured>>> {
    let path = directory.join("impressions.parquet");
    let what = || format!("cannot write {}", path.display());
    let schema = Arc::new(Schema::new(vec![Field::new("vid", DataType::Int64, false)]));
    let file = File::create(&path).context(what)?;
    let mut writer = ArrowWriter::try_new(file, Arc::clone(&schema), None).context(what)?;
    let params = Params::new(12.0, 100_000, 10_000_000).context(|| "the sketch".into())?;
    let mut expected = LiquidLegions::new(params);
    for vids in vids(options) {
        expected.merge(&one_by_one(&vids, params)?).context(|| "the sketch".into())?;
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(vids))]).context(what)?;
        writer.write(&batch).context(what)?;
    }
    writer.close().context(what)?;
    let impressions = options.registers;
    Ok(Box::new(move || {
        let meter = Meter::start();
        let found =
            sketch_file(&path, params, VidSamplingInterval::FULL, &mut Unobserved).context(|| "the sketch".into())?;
        let cost = meter.cost();
        if found.sketch != expected || found.impressions != impressions {
            return Err(wrong("the sketch", &found.sketch, &expected));
        }
        let stage = Stage {
            party: "publisher".to_owned(),
            stage: "Parquet to sketch".to_owned(),
            records: impressions,
            bytes_sent: 0,
            wall_s: cost.wall_s,
            cpu_s: cost.cpu_s,
        };
        Ok(Measured { stages: vec![stage], wall_s: cost.wall_s, cpu_s: cost.cpu_s, per: impressions })
    }))
}
