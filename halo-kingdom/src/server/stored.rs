//! Reads what a Kingdom has stored, without the Kingdom.

use std::path::Path;

use halo_core::{
    clock::Timestamp,
    measurement::MeasurementState,
    resource::{CertificateName, MeasurementName},
};

mod stages;

pub use stages::stored_stage_attempts;

use super::{
    DATABASE, Error,
    store::{Store, sqlite::SqliteStore},
};

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
    /// The aggregator's certificate that verifies the signed result.
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
/// [`Error::Store`] if there is no database, or it cannot be read; [`Error::NotStored`] if there is no such measurement,
/// or it has no result.
pub async fn stored_result(state_dir: &Path, measurement: &MeasurementName) -> Result<StoredResult, Error> {
    let store = SqliteStore::open_read_only(&state_dir.join(DATABASE)).await?;
    let found = store
        .measurement(measurement)
        .await?
        .ok_or_else(|| Error::NotStored(format!("{measurement} is not in {}", state_dir.display())))?;
    let result =
        found.result.ok_or_else(|| Error::NotStored(format!("{measurement} is {} and has no result", found.state)))?;
    let missing = |name: &CertificateName| Error::NotStored(format!("{name} is not in {}", state_dir.display()));
    let certificate = store.certificate(&result.certificate).await?.ok_or_else(|| missing(&result.certificate))?;
    let consumer =
        store.certificate(&found.consumer_certificate).await?.ok_or_else(|| missing(&found.consumer_certificate))?;
    store.close().await;
    Ok(StoredResult {
        measurement: found.name,
        update_time: found.update_time,
        encrypted_result: result.ciphertext,
        certificate: result.certificate,
        certificate_der: certificate.der,
        measurement_spec: found.spec.message.bytes,
        measurement_spec_signature: found.spec.signature,
        measurement_spec_signature_algorithm_oid: found.spec.algorithm_oid,
        measurement_consumer_certificate: found.consumer_certificate,
        measurement_consumer_certificate_der: consumer.der,
        protocol_config: found.protocol_config,
    })
}

/// stub
pub async fn stored_results(state_dir: &Path, measurement: &MeasurementName) -> Result<Vec<StoredResult>, Error> {
    Ok(vec![stored_result(state_dir, measurement).await?])
}
