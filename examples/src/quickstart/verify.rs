//! A result of an earlier run, once more.

use std::path::Path;

use super::{
    figures::{figures, reach_line},
    run::block_on,
};
use crate::{
    cluster::Layout,
    consumer::{Consumer, Delivered},
    error::{Context, Error, Result},
};

/// Reproduces the result of an earlier run from the Kingdom's stored ciphertext, the consumer's key and the parties'
/// certificates alone.
///
/// # Errors
/// When there is no result, or a signature or the decryption fails.
pub fn verify(directory: &Path) -> Result<()> {
    let layout = Layout::open(directory)?;
    let consumer = Consumer::open(&layout)?;
    let kingdom = layout.file(&layout.kingdom, "state");
    let stored = block_on(async {
        let measurements = halo_kingdom::server::stored_measurements(&kingdom).await;
        let measurements = measurements.context(|| "the Kingdom's state cannot be read".into())?;
        let newest = measurements.first().ok_or_else(|| Error::new("the Kingdom has no measurement"))?;
        let stored = halo_kingdom::server::stored_result(&kingdom, &newest.name).await;
        stored.context(|| format!("{}, which is {}, has no result that can be read", newest.name, newest.state))
    })?;
    consumer.check_spec(
        &stored.measurement_spec,
        &stored.measurement_spec_signature_algorithm_oid,
        &stored.measurement_spec_signature,
    )?;
    let result = consumer.open_delivered(&Delivered {
        ciphertext: &stored.encrypted_result,
        certificate: &stored.certificate.to_string(),
        certificate_der: &stored.certificate_der,
        protocol_config: &stored.protocol_config,
        time_unix_s: stored.update_time.unix_seconds(),
    })?;
    let figures = figures(&result)?;
    println!("{}: the aggregator's signature holds, and the consumer's key opens the result", stored.measurement);
    println!("{}", reach_line(&figures));
    for (bin, share) in figures.frequency.iter().flatten() {
        println!("{bin:>9}  {:>9.2} %", share * 100.0);
    }
    Ok(())
}
