//! The results of an earlier run, once more.

use std::path::Path;

use halo_core::{pb::api, wire};
use halo_kingdom::server::StoredResult;

use super::{
    figures::{figures, value_line},
    measure::block_on,
    results::check_signers,
};
use crate::{
    cluster::{Layout, layout::display_name},
    consumer::{Consumer, Delivered, Signer},
    error::{Context, Error, Result},
    kind,
};

/// Reproduces the results of an earlier run from the Kingdom's stored ciphertexts, the consumer's key and the parties'
/// certificates alone.
///
/// # Errors
/// When a result is missing, or a signature or the decryption fails.
pub fn verify(directory: &Path) -> Result<()> {
    let layout = Layout::open(directory)?;
    let consumer = Consumer::open(&layout)?;
    let kingdom = layout.file(&layout.kingdom, "state");
    let stored = block_on(async {
        let measurements = halo_kingdom::server::stored_measurements(&kingdom).await;
        let mut measurements = measurements.context(|| "the Kingdom's state cannot be read".into())?;
        measurements.sort_by_key(|measurement| measurement.create_time);
        let mut stored = Vec::new();
        for measurement in measurements {
            let results = halo_kingdom::server::stored_results(&kingdom, &measurement.name).await;
            stored.extend(results.context(|| {
                format!("{}, which is {}, has no result that can be read", measurement.name, measurement.state)
            })?);
        }
        Ok(stored)
    })?;
    if stored.is_empty() {
        return Err(Error::new("the Kingdom has no measurement"));
    }
    let asked: Vec<&str> = layout.publishers.iter().map(|publisher| publisher.id.as_str()).collect();
    let opened = stored.iter().map(|result| Ok((result, open(&consumer, result)?)));
    let mut opened = opened.collect::<Result<Vec<_>>>()?;
    check_signers(opened.iter().map(|(_, (signer, _))| signer), &asked)?;
    opened.sort_by_key(|(_, (signer, _))| match signer {
        Signer::Duchy(_) => None,
        Signer::Publisher(id) => asked.iter().position(|asked| asked == id),
    });
    opened.iter().try_for_each(|(result, (signer, opened))| show(&layout, result, signer, opened))
}

fn open(consumer: &Consumer, stored: &StoredResult) -> Result<(Signer, api::measurement::Result)> {
    consumer.check_spec(
        &stored.measurement_spec,
        &stored.measurement_spec_signature_algorithm_oid,
        &stored.measurement_spec_signature,
    )?;
    consumer.open_delivered(&Delivered {
        ciphertext: &stored.encrypted_result,
        certificate: &stored.certificate.to_string(),
        certificate_der: &stored.certificate_der,
        protocol_config: &stored.protocol_config,
        time_unix_s: stored.update_time.unix_seconds(),
    })
}

fn show(layout: &Layout, stored: &StoredResult, signer: &Signer, result: &api::measurement::Result) -> Result<()> {
    let spec = wire::parse_measurement_spec(&stored.measurement_spec);
    let kind = spec.context(|| "the stored specification".into())?.kind.kind();
    let figures = figures(kind, result)?;
    let whose = match signer {
        Signer::Duchy(_) => "the aggregator".to_owned(),
        Signer::Publisher(id) => {
            let publisher = layout.publishers.iter().find(|publisher| publisher.id == *id);
            format!("publisher {}", publisher.map(display_name).unwrap_or_default())
        }
    };
    println!("{}: {whose}'s signature holds, and the consumer's key opens the result", stored.measurement);
    println!("{}", value_line(kind::value_name(kind), &figures));
    let shares = figures.reach().and_then(|reach| reach.frequency.as_ref());
    for (bin, share) in shares.into_iter().flatten() {
        println!("{bin:>9}  {:>9.2} %", share * 100.0);
    }
    Ok(())
}
