//! Reads what a Kingdom has stored, without the Kingdom.

use std::path::Path;

use halo_core::{
    clock::Timestamp,
    measurement::MeasurementState,
    resource::{CertificateName, CertificateParent, DataProviderName, MeasurementName},
};

use crate::record::Fulfilment;

use super::{
    DATABASE, Error,
    store::{Store, sqlite::SqliteStore},
};

mod stages;

pub use stages::stored_stage_attempts;

/// A result, as the consumer gets it, with what is needed to verify it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResult {
    /// The measurement.
    pub measurement: MeasurementName,
    /// When the result was stored, Kingdom clock.
    pub update_time: Timestamp,
    /// Ciphertext of the serialized `SignedMessage` of the `Measurement.Result`, encrypted to the key in
    /// `measurement_spec`.
    pub encrypted_result: Vec<u8>,
    /// The publisher whose own result it is; `None` for a result of the Duchies.
    pub data_provider: Option<DataProviderName>,
    /// The certificate that verifies the signed result: the aggregator's, or the publisher's.
    pub certificate: CertificateName,
    /// The same certificate in DER.
    pub certificate_der: Vec<u8>,
    /// The serialized `MeasurementSpec` that the consumer signed.
    pub measurement_spec: Vec<u8>,
    /// The consumer's signature over `measurement_spec`.
    pub measurement_spec_signature: Vec<u8>,
    /// Algorithm of the signature, as a dotted object identifier.
    pub measurement_spec_signature_algorithm_oid: String,
    /// The consumer's certificate that verifies the signature.
    pub measurement_consumer_certificate: CertificateName,
    /// The same certificate in DER.
    pub measurement_consumer_certificate_der: Vec<u8>,
    /// The serialized `ProtocolConfig` under which it was computed.
    pub protocol_config: Vec<u8>,
}

/// A measurement in a state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMeasurement {
    /// The measurement.
    pub name: MeasurementName,
    /// Where it stands.
    pub state: MeasurementState,
    /// When it was created, Kingdom clock.
    pub create_time: Timestamp,
}

/// The measurements in the state directory of a Kingdom, newest first. The Kingdom may be running or not.
///
/// # Errors
/// [`Error::Store`] if there is no database, or it cannot be read.
pub async fn stored_measurements(state_dir: &Path) -> Result<Vec<StoredMeasurement>, Error> {
    let store = SqliteStore::open_read_only(&state_dir.join(DATABASE)).await?;
    let mut measurements = Vec::new();
    for name in store.all_measurements().await? {
        if let Some(found) = store.measurement(&name).await? {
            measurements.push(StoredMeasurement { name, state: found.state, create_time: found.create_time });
        }
    }
    store.close().await;
    Ok(measurements)
}

/// The result of a measurement from the state directory of a Kingdom, which may be running or not.
///
/// # Errors
/// As [`stored_results`], and [`Error::NotStored`] if several publishers have each handed in a result of their own.
pub async fn stored_result(state_dir: &Path, measurement: &MeasurementName) -> Result<StoredResult, Error> {
    let mut results = stored_results(state_dir, measurement).await?;
    match (results.pop(), results.len()) {
        (Some(result), 0) => Ok(result),
        (_, others) => Err(Error::NotStored(format!("{measurement} has {} results, one a publisher", others + 1))),
    }
}

/// The results of a measurement from the state directory of a Kingdom, which may be running or not: one of the Duchies,
/// or one of each publisher, in the order in which the consumer named them.
///
/// # Errors
/// [`Error::Store`] if there is no database, or it cannot be read; [`Error::NotStored`] if there is no such measurement,
/// or it has no result.
pub async fn stored_results(state_dir: &Path, measurement: &MeasurementName) -> Result<Vec<StoredResult>, Error> {
    let store = SqliteStore::open_read_only(&state_dir.join(DATABASE)).await?;
    let found = store
        .measurement(measurement)
        .await?
        .ok_or_else(|| Error::NotStored(format!("{measurement} is not in {}", state_dir.display())))?;
    let computed = found.result.iter().map(|result| (&result.certificate, &result.ciphertext));
    let succeeded = found.state == MeasurementState::Succeeded;
    let own = found.requisitions.iter().filter(|_| succeeded).filter_map(|requisition| {
        let result = requisition.fulfilment.as_ref().and_then(Fulfilment::result)?;
        Some((&result.certificate, &result.ciphertext))
    });
    let outputs: Vec<_> = computed.chain(own).collect();
    if outputs.is_empty() {
        return Err(Error::NotStored(format!("{measurement} is {} and has no result", found.state)));
    }
    let der = async |name: &CertificateName| -> Result<Vec<u8>, Error> {
        let record = store.certificate(name).await?;
        record
            .map(|record| record.der)
            .ok_or_else(|| Error::NotStored(format!("{name} is not in {}", state_dir.display())))
    };
    let consumer_der = der(&found.consumer_certificate).await?;
    let mut results = Vec::with_capacity(outputs.len());
    for (certificate, ciphertext) in outputs {
        results.push(StoredResult {
            measurement: found.name.clone(),
            update_time: found.update_time,
            encrypted_result: ciphertext.clone(),
            data_provider: match &certificate.parent {
                CertificateParent::DataProvider(name) => Some(name.clone()),
                _ => None,
            },
            certificate: certificate.clone(),
            certificate_der: der(certificate).await?,
            measurement_spec: found.spec.message.bytes.clone(),
            measurement_spec_signature: found.spec.signature.clone(),
            measurement_spec_signature_algorithm_oid: found.spec.algorithm_oid.clone(),
            measurement_consumer_certificate: found.consumer_certificate.clone(),
            measurement_consumer_certificate_der: consumer_der.clone(),
            protocol_config: found.protocol_config.clone(),
        });
    }
    store.close().await;
    Ok(results)
}
