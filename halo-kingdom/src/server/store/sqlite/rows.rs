//! Rows and records.

use std::{fmt::Display, str::FromStr};

use halo_core::{
    clock::Timestamp,
    measurement::{MeasurementState, ParticipantState, RequisitionState},
    pb::api::{data_provider::Capabilities as CapabilitiesMessage, requisition::FulfillmentContext as ContextMessage},
    resource::{ComputationName, EventGroupName, MeasurementConsumerName, MeasurementName, RequisitionName},
    wire::parse_protocol_config,
};
use prost::Message;
use sqlx::{Row, Sqlite, Transaction, sqlite::SqliteRow};

use crate::{
    lifecycle::{Note, ParticipantChange, RequisitionChange, Transition},
    planner::Capabilities,
    record::{
        ComputationResult, Delivery, DirectResult, Failure, FailureReason, FulfillmentContext, Fulfilment, Measurement,
        Parameters, Participant, ParticipantFailure, Refusal, Requisition, Signed, Typed, Upload,
    },
    server::{
        store::{
            CertificateRecord, EventGroupRecord, NewMeasurement, Party, Result, Revocation, StoreError, TimelineEntry,
        },
        wire,
    },
};

type Tx = Transaction<'static, Sqlite>;

fn corrupt(what: &'static str, detail: impl Display) -> StoreError {
    StoreError::Corrupt { what, detail: detail.to_string() }
}

/// A column that holds the text of an id or a name.
pub(super) fn parse<T: FromStr<Err: Display>>(row: &SqliteRow, column: &'static str) -> Result<T> {
    let text: &str = row.try_get(column)?;
    text.parse().map_err(|error| corrupt(column, error))
}

fn parse_optional<T: FromStr<Err: Display>>(row: &SqliteRow, column: &'static str) -> Result<Option<T>> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(|error| corrupt(column, error))).transpose()
}

fn time(row: &SqliteRow, column: &'static str) -> Result<Timestamp> {
    Ok(Timestamp::from_unix_nanos(row.try_get(column)?))
}

fn hash(row: &SqliteRow, column: &'static str) -> Result<[u8; 32]> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| corrupt(column, format!("{} bytes are no SHA-256", bytes.len())))
}

fn state<T>(row: &SqliteRow, from_number: impl FnOnce(i32) -> Option<T>) -> Result<T> {
    let number: i32 = row.try_get("state")?;
    from_number(number).ok_or_else(|| corrupt("state", format!("{number} is the number of no state")))
}

/// Names in one column, each on a line.
fn lines(row: &SqliteRow, column: &'static str) -> Result<Vec<String>> {
    let text: Option<&str> = row.try_get(column)?;
    Ok(text.unwrap_or_default().lines().map(str::to_owned).collect())
}

pub(super) const fn revocation_number(revocation: Revocation) -> i32 {
    match revocation {
        Revocation::Good => 0,
        Revocation::Hold => 1,
        Revocation::Revoked => 2,
    }
}

pub(super) fn party(row: &SqliteRow) -> Result<Party> {
    Ok(Party {
        name: parse(row, "name")?,
        display_name: row.try_get("display_name")?,
        root_der: row.try_get("root_der")?,
        root_key_id: row.try_get("root_key_id")?,
        certificate: parse(row, "certificate")?,
        public_key: row.try_get("public_key")?,
        configured: hash(row, "configured")?,
        capabilities: capabilities(row, "capabilities")?.unwrap_or_default(),
        configured_capabilities: capabilities(row, "configured_capabilities")?,
    })
}

/// Capabilities as they are stored.
pub(super) fn capabilities_bytes(capabilities: Capabilities) -> Vec<u8> {
    wire::capabilities_message(capabilities).encode_to_vec()
}

fn capabilities(row: &SqliteRow, column: &'static str) -> Result<Option<Capabilities>> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    let message = bytes.map(CapabilitiesMessage::decode).transpose().map_err(|error| corrupt(column, error))?;
    Ok(message.as_ref().map(wire::capabilities))
}

pub(super) fn certificate(row: &SqliteRow) -> Result<CertificateRecord> {
    let name: String = format!("{}/certificates/{}", row.try_get::<&str, _>("parent")?, row.try_get::<&str, _>("id")?);
    Ok(CertificateRecord {
        name: name.parse().map_err(|error| corrupt("certificate", error))?,
        der: row.try_get("der")?,
        subject_key_id: row.try_get("subject_key_id")?,
        not_before: row.try_get("not_before")?,
        not_after: row.try_get("not_after")?,
        revocation: match row.try_get("revocation")? {
            0 => Revocation::Good,
            1 => Revocation::Hold,
            2 => Revocation::Revoked,
            other => return Err(corrupt("revocation", format!("{other} is the number of no state"))),
        },
    })
}

pub(super) fn event_group(row: &SqliteRow) -> Result<EventGroupRecord> {
    Ok(EventGroupRecord {
        name: EventGroupName::new(parse(row, "data_provider")?, parse(row, "id")?),
        consumer: MeasurementConsumerName::new(parse(row, "consumer")?),
        body: row.try_get("body")?,
    })
}

pub(super) fn timeline_entry(row: &SqliteRow) -> Result<TimelineEntry> {
    Ok(TimelineEntry {
        time: time(row, "time")?,
        note: Note { actor: row.try_get("actor")?, message: row.try_get("message")? },
        stage_attempt: row.try_get("stage_attempt")?,
        transient: row.try_get("transient")?,
    })
}

/// The measurement of a row that may be there.
pub(super) async fn complete_one(tx: &mut Tx, row: Option<SqliteRow>) -> Result<Option<Measurement>> {
    match row {
        Some(row) => complete(tx, &row).await.map(Some),
        None => Ok(None),
    }
}

/// The measurement of a row, with its requisitions and participants.
pub(super) async fn complete(tx: &mut Tx, row: &SqliteRow) -> Result<Measurement> {
    let computation: &str = row.try_get("computation")?;
    let requisitions = sqlx::query("SELECT * FROM requisitions WHERE computation = ?1 ORDER BY position")
        .bind(computation)
        .fetch_all(&mut **tx)
        .await?;
    let participants = sqlx::query("SELECT * FROM participants WHERE computation = ?1 ORDER BY duchy")
        .bind(computation)
        .fetch_all(&mut **tx)
        .await?;
    let revision: i64 = row.try_get("revision")?;
    let protocol_config: Vec<u8> = row.try_get("protocol_config")?;
    let config = parse_protocol_config(&protocol_config).map_err(|error| corrupt("protocol_config", error))?;
    Ok(Measurement {
        name: MeasurementName::new(parse(row, "consumer")?, parse(row, "id")?),
        computation: ComputationName::new(parse(row, "computation")?),
        reference_id: row.try_get("reference_id")?,
        consumer_certificate: parse(row, "certificate")?,
        spec: Signed {
            message: Typed { type_url: row.try_get("spec_type_url")?, bytes: row.try_get("spec")? },
            signature: row.try_get("spec_signature")?,
            algorithm_oid: row.try_get("spec_signature_oid")?,
        },
        protocol_config,
        protocol: config.protocol,
        state: state(row, MeasurementState::from_number)?,
        create_time: time(row, "create_time")?,
        update_time: time(row, "update_time")?,
        deadline: time(row, "deadline")?,
        requisitions: requisitions.iter().map(requisition).collect::<Result<_>>()?,
        participants: participants.iter().map(participant).collect::<Result<_>>()?,
        failure: failure(row)?,
        result: match parse_optional(row, "result_certificate")? {
            Some(certificate) => Some(ComputationResult {
                certificate,
                public_key: row.try_get("result_public_key")?,
                ciphertext: row.try_get("result_ciphertext")?,
            }),
            None => None,
        },
        revision: revision.cast_unsigned(),
    })
}

fn failure(row: &SqliteRow) -> Result<Option<Failure>> {
    let Some(code) = row.try_get::<Option<i32>, _>("failure_reason")? else {
        return Ok(None);
    };
    Ok(Some(Failure {
        reason: FailureReason::from_code(code)
            .ok_or_else(|| corrupt("failure_reason", format!("{code} is the number of no reason")))?,
        message: row.try_get("failure_message")?,
        culprits: lines(row, "failure_culprits")?,
    }))
}

fn requisition(row: &SqliteRow) -> Result<Requisition> {
    let justification: Option<i32> = row.try_get("refusal_justification")?;
    Ok(Requisition {
        name: RequisitionName::new(parse(row, "data_provider")?, parse(row, "id")?),
        certificate: parse(row, "certificate")?,
        public_key: Typed { type_url: row.try_get("public_key_type_url")?, bytes: row.try_get("public_key")? },
        encrypted_spec: Typed { type_url: row.try_get("spec_type_url")?, bytes: row.try_get("spec_ciphertext")? },
        nonce_hash: hash(row, "nonce_hash")?,
        state: state(row, RequisitionState::from_number)?,
        update_time: time(row, "update_time")?,
        fulfilment: match delivery(row)? {
            Some(delivery) => Some(Fulfilment {
                nonce: row.try_get::<i64, _>("nonce")?.cast_unsigned(),
                delivery,
                context: context(row)?,
            }),
            None => None,
        },
        refusal: match justification {
            Some(justification) => Some(Refusal { justification, message: row.try_get("refusal_message")? }),
            None => None,
        },
    })
}

fn delivery(row: &SqliteRow) -> Result<Option<Delivery>> {
    if let Some(duchy) = parse_optional(row, "fulfilling_duchy")? {
        return Ok(Some(Delivery::Upload(Upload {
            duchy,
            key_list_hash: hash(row, "key_list_hash")?,
            body_sha256: hash(row, "body_sha256")?,
            record_count: row.try_get::<i64, _>("record_count")?.cast_unsigned(),
        })));
    }
    let Some(certificate) = parse_optional(row, "result_certificate")? else {
        return Ok(None);
    };
    let ciphertext = row.try_get("result_ciphertext")?;
    Ok(Some(Delivery::Result(DirectResult { certificate, ciphertext })))
}

fn context(row: &SqliteRow) -> Result<Option<FulfillmentContext>> {
    let bytes: Option<&[u8]> = row.try_get("context")?;
    let message = bytes.map(ContextMessage::decode).transpose().map_err(|error| corrupt("context", error))?;
    Ok(message.map(|message| FulfillmentContext { build_label: message.build_label, warnings: message.warnings }))
}

fn participant(row: &SqliteRow) -> Result<Participant> {
    let failure: Option<String> = row.try_get("failure_message")?;
    Ok(Participant {
        duchy: parse(row, "duchy")?,
        state: state(row, ParticipantState::from_number)?,
        update_time: time(row, "update_time")?,
        parameters: match parse_optional(row, "certificate")? {
            Some(certificate) => Some(Parameters {
                certificate,
                public_key: row.try_get("public_key")?,
                signature: row.try_get("public_key_signature")?,
                algorithm_oid: row.try_get("public_key_signature_oid")?,
                attestation: row.try_get::<Option<Vec<u8>>, _>("attestation")?.unwrap_or_default(),
            }),
            None => None,
        },
        failure: match failure {
            Some(message) => Some(ParticipantFailure { message, culprits: lines(row, "failure_culprits")? }),
            None => None,
        },
    })
}

pub(super) async fn insert_measurement(tx: &mut Tx, new: &NewMeasurement) -> std::result::Result<(), sqlx::Error> {
    let measurement = &new.measurement;
    sqlx::query(
        "INSERT INTO measurements (consumer, id, computation, request_id, reference_id, certificate, spec_type_url, spec,
             spec_signature, spec_signature_oid, protocol_config, state, create_time, update_time, deadline, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )
    .bind(measurement.name.measurement_consumer.to_string())
    .bind(measurement.name.measurement.to_string())
    .bind(measurement.computation.computation.to_string())
    .bind(&new.request_id)
    .bind(&measurement.reference_id)
    .bind(measurement.consumer_certificate.to_string())
    .bind(&measurement.spec.message.type_url)
    .bind(&measurement.spec.message.bytes)
    .bind(&measurement.spec.signature)
    .bind(&measurement.spec.algorithm_oid)
    .bind(&measurement.protocol_config)
    .bind(measurement.state.number())
    .bind(measurement.create_time.unix_nanos())
    .bind(measurement.update_time.unix_nanos())
    .bind(measurement.deadline.unix_nanos())
    .bind(measurement.revision.cast_signed())
    .execute(&mut **tx)
    .await?;
    insert_parts(tx, measurement).await
}

/// The requisitions and participants of a new measurement.
pub(super) async fn insert_parts(tx: &mut Tx, measurement: &Measurement) -> std::result::Result<(), sqlx::Error> {
    for (position, requisition) in (0_i64..).zip(&measurement.requisitions) {
        sqlx::query(
            "INSERT INTO requisitions (data_provider, id, computation, position, certificate, public_key_type_url,
                 public_key, spec_type_url, spec_ciphertext, nonce_hash, state, update_time)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )
        .bind(requisition.name.data_provider.to_string())
        .bind(requisition.name.requisition.to_string())
        .bind(measurement.computation.computation.to_string())
        .bind(position)
        .bind(requisition.certificate.to_string())
        .bind(&requisition.public_key.type_url)
        .bind(&requisition.public_key.bytes)
        .bind(&requisition.encrypted_spec.type_url)
        .bind(&requisition.encrypted_spec.bytes)
        .bind(requisition.nonce_hash.as_slice())
        .bind(requisition.state.number())
        .bind(requisition.update_time.unix_nanos())
        .execute(&mut **tx)
        .await?;
    }
    for participant in &measurement.participants {
        sqlx::query("INSERT INTO participants (computation, duchy, state, update_time) VALUES (?1, ?2, ?3, ?4)")
            .bind(measurement.computation.computation.to_string())
            .bind(participant.duchy.as_str())
            .bind(participant.state.number())
            .bind(participant.update_time.unix_nanos())
            .execute(&mut **tx)
            .await?;
    }
    Ok(())
}

/// Whether the measurement still had the revision of `before`.
pub(super) async fn update_measurement(
    tx: &mut Tx,
    before: &Measurement,
    transition: &Transition,
    now: Timestamp,
) -> Result<bool> {
    let failure = transition.failure.as_ref();
    let result = transition.result.as_ref();
    let done = sqlx::query(
        "UPDATE measurements SET state = COALESCE(?3, state), update_time = ?4, revision = revision + 1,
             failure_reason = COALESCE(?5, failure_reason), failure_message = COALESCE(?6, failure_message),
             failure_culprits = COALESCE(?7, failure_culprits),
             result_certificate = COALESCE(?8, result_certificate),
             result_public_key = COALESCE(?9, result_public_key),
             result_ciphertext = COALESCE(?10, result_ciphertext)
         WHERE computation = ?1 AND revision = ?2",
    )
    .bind(before.computation.computation.to_string())
    .bind(before.revision.cast_signed())
    .bind(transition.state.map(MeasurementState::number))
    .bind(now.unix_nanos())
    .bind(failure.map(|failure| failure.reason.code()))
    .bind(failure.map(|failure| failure.message.as_str()))
    .bind(failure.map(|failure| failure.culprits.join("\n")))
    .bind(result.map(|result| result.certificate.to_string()))
    .bind(result.map(|result| result.public_key.as_slice()))
    .bind(result.map(|result| result.ciphertext.as_slice()))
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn update_requisition(tx: &mut Tx, change: &RequisitionChange, now: Timestamp) -> Result<()> {
    let fulfilment = change.fulfilment.as_ref();
    let (upload, result) = (fulfilment.and_then(Fulfilment::upload), fulfilment.and_then(Fulfilment::result));
    let refusal = change.refusal.as_ref();
    let context = fulfilment.and_then(|fulfilment| fulfilment.context.as_ref()).map(|context| {
        let message = ContextMessage { build_label: context.build_label.clone(), warnings: context.warnings.clone() };
        message.encode_to_vec()
    });
    sqlx::query(
        "UPDATE requisitions SET state = ?3, update_time = ?4,
             fulfilling_duchy = COALESCE(?5, fulfilling_duchy), nonce = COALESCE(?6, nonce),
             key_list_hash = COALESCE(?7, key_list_hash), body_sha256 = COALESCE(?8, body_sha256),
             record_count = COALESCE(?9, record_count), context = COALESCE(?10, context),
             refusal_justification = COALESCE(?11, refusal_justification),
             refusal_message = COALESCE(?12, refusal_message),
             result_certificate = COALESCE(?13, result_certificate),
             result_ciphertext = COALESCE(?14, result_ciphertext)
         WHERE data_provider = ?1 AND id = ?2",
    )
    .bind(change.name.data_provider.to_string())
    .bind(change.name.requisition.to_string())
    .bind(change.state.number())
    .bind(now.unix_nanos())
    .bind(upload.map(|upload| upload.duchy.as_str()))
    .bind(fulfilment.map(|fulfilment| fulfilment.nonce.cast_signed()))
    .bind(upload.map(|upload| upload.key_list_hash.as_slice()))
    .bind(upload.map(|upload| upload.body_sha256.as_slice()))
    .bind(upload.map(|upload| upload.record_count.cast_signed()))
    .bind(context)
    .bind(refusal.map(|refusal| refusal.justification))
    .bind(refusal.map(|refusal| refusal.message.as_str()))
    .bind(result.map(|result| result.certificate.to_string()))
    .bind(result.map(|result| result.ciphertext.as_slice()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) async fn update_participant(
    tx: &mut Tx,
    computation: &ComputationName,
    change: &ParticipantChange,
    now: Timestamp,
) -> Result<()> {
    let parameters = change.parameters.as_ref();
    let failure = change.failure.as_ref();
    sqlx::query(
        "UPDATE participants SET state = ?3, update_time = ?4, certificate = COALESCE(?5, certificate),
             public_key = COALESCE(?6, public_key), public_key_signature = COALESCE(?7, public_key_signature),
             public_key_signature_oid = COALESCE(?8, public_key_signature_oid),
             failure_message = COALESCE(?9, failure_message), failure_culprits = COALESCE(?10, failure_culprits),
             attestation = COALESCE(?11, attestation)
         WHERE computation = ?1 AND duchy = ?2",
    )
    .bind(computation.computation.to_string())
    .bind(change.duchy.as_str())
    .bind(change.state.number())
    .bind(now.unix_nanos())
    .bind(parameters.map(|parameters| parameters.certificate.to_string()))
    .bind(parameters.map(|parameters| parameters.public_key.as_slice()))
    .bind(parameters.map(|parameters| parameters.signature.as_slice()))
    .bind(parameters.map(|parameters| parameters.algorithm_oid.as_str()))
    .bind(failure.map(|failure| failure.message.as_str()))
    .bind(failure.map(|failure| failure.culprits.join("\n")))
    .bind(parameters.map(|parameters| parameters.attestation.as_slice()))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

pub(super) async fn insert_timeline(
    tx: &mut Tx,
    computation: &ComputationName,
    entry: &TimelineEntry,
) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO timeline (computation, time, actor, message, stage_attempt, transient) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(computation.computation.to_string())
    .bind(entry.time.unix_nanos())
    .bind(&entry.note.actor)
    .bind(&entry.note.message)
    .bind(&entry.stage_attempt)
    .bind(entry.transient)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Moves the measurement to the end of the change log, and gives its position there. Positions are never used again.
pub(super) async fn log_change(tx: &mut Tx, computation: &ComputationName) -> Result<i64> {
    sqlx::query("DELETE FROM changes WHERE computation = ?1")
        .bind(computation.computation.to_string())
        .execute(&mut **tx)
        .await?;
    let done = sqlx::query("INSERT INTO changes (computation) VALUES (?1)")
        .bind(computation.computation.to_string())
        .execute(&mut **tx)
        .await?;
    Ok(done.last_insert_rowid())
}
