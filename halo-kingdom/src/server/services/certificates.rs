//! `wfa.measurement.api.v2alpha.Certificates`.

use std::sync::Arc;

use halo_core::{
    clock::Timestamp,
    pb::api::{self, certificate::RevocationState, certificates_server},
    resource::{CertificateName, CertificateParent},
};
use halo_crypto::consent::x509;
use tonic::{Request, Response, Status};

use super::{answer, name};
use crate::server::{
    consent::issued_by,
    kingdom::Kingdom,
    limits::{MAX_CERTIFICATE, bounded},
    page::{CHUNK, Page},
    refusal::Refusal,
    store::{CertificateRecord, Cursor, Revocation, StoreError},
};

#[derive(Debug)]
pub(crate) struct Certificates(pub(crate) Arc<Kingdom>);

#[tonic::async_trait]
impl certificates_server::Certificates for Certificates {
    async fn get_certificate(
        &self,
        request: Request<api::GetCertificateRequest>,
    ) -> Result<Response<api::Certificate>, Status> {
        answer(self.get(&request).await)
    }

    async fn create_certificate(
        &self,
        request: Request<api::CreateCertificateRequest>,
    ) -> Result<Response<api::Certificate>, Status> {
        answer(self.create(&request).await)
    }

    async fn list_certificates(
        &self,
        request: Request<api::ListCertificatesRequest>,
    ) -> Result<Response<api::ListCertificatesResponse>, Status> {
        answer(self.list(&request).await)
    }

    async fn revoke_certificate(
        &self,
        request: Request<api::RevokeCertificateRequest>,
    ) -> Result<Response<api::Certificate>, Status> {
        answer(self.revoke(&request).await)
    }

    async fn release_certificate_hold(
        &self,
        request: Request<api::ReleaseCertificateHoldRequest>,
    ) -> Result<Response<api::Certificate>, Status> {
        answer(self.release(&request).await)
    }
}

/// Whether a party may read another party's certificates.
fn may_read(caller: &CertificateParent, owner: &CertificateParent) -> bool {
    use CertificateParent as Party;
    match owner {
        _ if caller == owner => true,
        Party::Duchy(_) | Party::ModelProvider(_) => true,
        Party::DataProvider(_) => {
            matches!(caller, Party::MeasurementConsumer(_) | Party::ModelProvider(_) | Party::Duchy(_))
        }
        Party::MeasurementConsumer(_) => matches!(caller, Party::DataProvider(_)),
    }
}

fn message(record: &CertificateRecord) -> api::Certificate {
    let revocation = match record.revocation {
        Revocation::Good => RevocationState::Unspecified,
        Revocation::Hold => RevocationState::Hold,
        Revocation::Revoked => RevocationState::Revoked,
    };
    api::Certificate {
        name: record.name.to_string(),
        x509_der: record.der.clone(),
        revocation_state: revocation.into(),
        subject_key_identifier: record.subject_key_id.clone(),
    }
}

fn cursor(record: &CertificateRecord) -> Cursor {
    // The list is ordered by the start of validity, which is a whole number of seconds.
    Cursor { time: Timestamp::from_unix(record.not_before, 0).unwrap_or_default(), id: record.name.certificate }
}

impl Certificates {
    async fn record(&self, name: &CertificateName) -> Result<CertificateRecord, Refusal> {
        self.0
            .store
            .certificate(name)
            .await?
            .ok_or_else(|| Refusal::NotFound { reason: "CERTIFICATE_NOT_FOUND", resource: name.to_string() })
    }

    async fn get(&self, request: &Request<api::GetCertificateRequest>) -> Result<api::Certificate, Refusal> {
        let caller = self.0.caller(request)?;
        let text = &request.get_ref().name;
        let name: CertificateName = name("name", text)?;
        let refuse = || Refusal::denied("certificates.get", text);
        if !may_read(&caller, &name.parent) {
            return Err(refuse());
        }
        // Whether another party has such a certificate is not told.
        let found = self.0.store.certificate(&name).await?;
        match found {
            Some(record) => Ok(message(&record)),
            None if caller == name.parent => self.record(&name).await.map(|record| message(&record)),
            None => Err(refuse()),
        }
    }

    async fn create(&self, request: &Request<api::CreateCertificateRequest>) -> Result<api::Certificate, Refusal> {
        let caller = self.0.caller(request)?;
        let asked = request.get_ref();
        let parent: CertificateParent = name("parent", &asked.parent)?;
        let refuse = || Refusal::denied("certificates.create", &asked.parent);
        if caller != parent {
            return Err(refuse());
        }
        let party = self.0.store.party(&parent).await?.ok_or_else(refuse)?;
        let der = asked.certificate.as_ref().map(|certificate| certificate.x509_der.as_slice()).unwrap_or_default();
        if der.is_empty() {
            return Err(Refusal::Required("certificate.x509_der"));
        }
        let field = "certificate.x509_der";
        bounded(field, der.len(), MAX_CERTIFICATE)?;
        let parsed = x509::Certificate::from_der(der).map_err(|error| Refusal::invalid(field, error))?;
        // One that becomes valid later can be brought in time, so it is checked as of then.
        let from =
            Timestamp::from_unix(parsed.not_before_unix_s(), 0).map_err(|error| Refusal::invalid(field, error))?;
        issued_by(&party, &parsed, self.0.now().max(from)).map_err(|error| Refusal::invalid(field, error))?;
        let record = CertificateRecord {
            name: CertificateName::new(parent, self.0.new_id()),
            der: der.to_vec(),
            subject_key_id: parsed.subject_key_id().to_vec(),
            not_before: parsed.not_before_unix_s(),
            not_after: parsed.not_after_unix_s(),
            revocation: Revocation::Good,
        };
        match self.0.store.create_certificate(&record).await {
            Ok(()) => Ok(message(&record)),
            Err(StoreError::AlreadyExists(_)) => Err(Refusal::Exists {
                reason: "CERT_SUBJECT_KEY_ID_ALREADY_EXISTS",
                detail: "a certificate with this subject key identifier exists already".into(),
            }),
            Err(error) => Err(error.into()),
        }
    }

    async fn list(
        &self,
        request: &Request<api::ListCertificatesRequest>,
    ) -> Result<api::ListCertificatesResponse, Refusal> {
        let caller = self.0.caller(request)?;
        let asked = request.get_ref();
        let parent: CertificateParent = name("parent", &asked.parent)?;
        if caller != parent {
            return Err(Refusal::denied("certificates.list", &asked.parent));
        }
        let size = (asked.page_size, 50, 1000);
        let page = Page::new(&asked.parent, asked.filter.as_ref(), size, &asked.page_token)?;
        let wanted = asked.filter.as_ref().map(|filter| filter.subject_key_identifiers.as_slice()).unwrap_or_default();
        let mut filling = page.empty();
        let mut after = page.after.map(|cursor| (cursor.time.unix_seconds(), cursor.id));
        'page: loop {
            let rows = self.0.store.certificates(&parent, after, CHUNK).await?;
            let Some(last) = rows.last() else { break };
            after = Some((last.not_before, last.name.certificate));
            for row in rows.iter().filter(|row| wanted.is_empty() || wanted.contains(&row.subject_key_id)) {
                if !filling.add(message(row), cursor(row)) {
                    break 'page;
                }
            }
        }
        let (certificates, next_page_token) = filling.finish();
        Ok(api::ListCertificatesResponse { certificates, next_page_token })
    }

    /// Moves the revocation from one of `from` to `to`; it may be there already.
    async fn change(&self, name: &CertificateName, from: &[Revocation], to: Revocation) -> Result<(), Refusal> {
        loop {
            let present = self.record(name).await?.revocation;
            if present == to {
                return Ok(());
            }
            if !from.contains(&present) {
                return Err(Refusal::Precondition {
                    reason: "CERTIFICATE_REVOCATION_STATE_ILLEGAL",
                    resource: name.to_string(),
                    detail: format!("{name} is {present:?} and cannot become {to:?}"),
                });
            }
            if self.0.store.set_revocation(name, present, to).await? {
                tracing::warn!(certificate = %name, from = ?present, to = ?to, "the revocation of a certificate changed");
                return Ok(());
            }
        }
    }

    async fn revoke(&self, request: &Request<api::RevokeCertificateRequest>) -> Result<api::Certificate, Refusal> {
        let caller = self.0.caller(request)?;
        let asked = request.get_ref();
        let name: CertificateName = name("name", &asked.name)?;
        if caller != name.parent {
            return Err(Refusal::denied("certificates.revoke", &asked.name));
        }
        match asked.revocation_state() {
            RevocationState::Hold => self.change(&name, &[Revocation::Good], Revocation::Hold).await?,
            RevocationState::Revoked => {
                self.change(&name, &[Revocation::Good, Revocation::Hold], Revocation::Revoked).await?;
            }
            RevocationState::Unspecified => {
                return Err(Refusal::invalid("revocation_state", "it must be HOLD or REVOKED"));
            }
        }
        self.0.fail_for(&name).await?;
        self.record(&name).await.map(|record| message(&record))
    }

    async fn release(
        &self,
        request: &Request<api::ReleaseCertificateHoldRequest>,
    ) -> Result<api::Certificate, Refusal> {
        let caller = self.0.caller(request)?;
        let asked = request.get_ref();
        let name: CertificateName = name("name", &asked.name)?;
        if caller != name.parent {
            return Err(Refusal::denied("certificates.releaseHold", &asked.name));
        }
        self.change(&name, &[Revocation::Hold], Revocation::Good).await?;
        self.record(&name).await.map(|record| message(&record))
    }
}
