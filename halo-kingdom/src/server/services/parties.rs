//! `DataProviders`, `MeasurementConsumers` and `PublicKeys` of `wfa.measurement.api.v2alpha`.

use std::sync::Arc;

use halo_core::{
    pb::api::{self, data_providers_server, measurement_consumers_server, public_keys_server},
    resource::{CertificateParent, DataProviderName, MeasurementConsumerName, PublicKeyName, PublicKeyParent},
};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{answer, name, only_publisher, unimplemented};
use crate::server::{
    consent::{usable_certificate, verified_public_key},
    kingdom::Kingdom,
    limits::{MAX_PUBLIC_KEY, bounded},
    refusal::Refusal,
    store::{Party, StoreError},
    wire,
};

/// A party with what others need to encrypt to it and to verify its signatures.
struct Described {
    party: Party,
    certificate_der: Vec<u8>,
    public_key: Option<api::SignedMessage>,
}

async fn describe(
    kingdom: &Kingdom,
    name: &CertificateParent,
    refuse: impl FnOnce() -> Refusal,
) -> Result<Described, Refusal> {
    let party = kingdom.party(name).await?.ok_or_else(refuse)?;
    let certificate = kingdom.store.certificate(&party.certificate).await?;
    let public_key = party.public_key.as_deref().map(api::SignedMessage::decode).transpose();
    Ok(Described {
        certificate_der: certificate.map(|record| record.der).unwrap_or_default(),
        public_key: public_key
            .map_err(|error| StoreError::Corrupt { what: "public_key", detail: error.to_string() })?,
        party,
    })
}

#[derive(Debug)]
pub(crate) struct DataProviders(pub(crate) Arc<Kingdom>);

impl DataProviders {
    async fn get(&self, request: &Request<api::GetDataProviderRequest>) -> Result<api::DataProvider, Refusal> {
        let caller = self.0.caller(request)?;
        let text = &request.get_ref().name;
        let name = CertificateParent::from(name::<DataProviderName>("name", text)?);
        let refuse = || Refusal::denied("dataProviders.get", text);
        let others = matches!(caller, CertificateParent::MeasurementConsumer(_) | CertificateParent::ModelProvider(_));
        if caller != name && !others {
            return Err(refuse());
        }
        self.describe(&name, refuse).await
    }

    async fn describe(
        &self,
        name: &CertificateParent,
        refuse: impl FnOnce() -> Refusal,
    ) -> Result<api::DataProvider, Refusal> {
        let found = describe(&self.0, name, refuse).await?;
        Ok(api::DataProvider {
            name: found.party.name.to_string(),
            certificate_der: found.certificate_der,
            certificate: found.party.certificate.to_string(),
            public_key: found.public_key,
            display_name: found.party.display_name,
            capabilities: Some(wire::capabilities_message(found.party.capabilities)),
            ..Default::default()
        })
    }

    async fn replace_capabilities(
        &self,
        request: &Request<api::ReplaceDataProviderCapabilitiesRequest>,
    ) -> Result<api::DataProvider, Refusal> {
        const PERMISSION: &str = "dataProviders.replaceCapabilities";
        let caller = self.0.caller(request)?;
        let asked = request.get_ref();
        let name: DataProviderName = name("name", &asked.name)?;
        only_publisher(&caller, &name, PERMISSION, &asked.name)?;
        let capabilities = asked.capabilities.as_ref().ok_or(Refusal::Required("capabilities"))?;
        let capabilities = wire::capabilities(capabilities);
        let party = CertificateParent::from(name);
        self.0.store.set_capabilities(&party, capabilities, false).await?;
        tracing::info!(%party, ?capabilities, "a publisher said what its software can do");
        self.describe(&party, || Refusal::denied(PERMISSION, &asked.name)).await
    }
}

#[tonic::async_trait]
impl data_providers_server::DataProviders for DataProviders {
    async fn get_data_provider(
        &self,
        request: Request<api::GetDataProviderRequest>,
    ) -> Result<Response<api::DataProvider>, Status> {
        answer(self.get(&request).await)
    }

    async fn replace_data_provider_required_duchies(
        &self,
        _: Request<api::ReplaceDataProviderRequiredDuchiesRequest>,
    ) -> Result<Response<api::DataProvider>, Status> {
        unimplemented("ReplaceDataProviderRequiredDuchies")
    }

    async fn replace_data_availability_intervals(
        &self,
        _: Request<api::ReplaceDataAvailabilityIntervalsRequest>,
    ) -> Result<Response<api::DataProvider>, Status> {
        unimplemented("ReplaceDataAvailabilityIntervals")
    }

    async fn replace_data_availability_interval(
        &self,
        _: Request<api::ReplaceDataAvailabilityIntervalRequest>,
    ) -> Result<Response<api::DataProvider>, Status> {
        unimplemented("ReplaceDataAvailabilityInterval")
    }

    async fn replace_data_provider_capabilities(
        &self,
        request: Request<api::ReplaceDataProviderCapabilitiesRequest>,
    ) -> Result<Response<api::DataProvider>, Status> {
        answer(self.replace_capabilities(&request).await)
    }
}

#[derive(Debug)]
pub(crate) struct MeasurementConsumers(pub(crate) Arc<Kingdom>);

impl MeasurementConsumers {
    async fn get(
        &self,
        request: &Request<api::GetMeasurementConsumerRequest>,
    ) -> Result<api::MeasurementConsumer, Refusal> {
        let caller = self.0.caller(request)?;
        let text = &request.get_ref().name;
        let name = CertificateParent::from(name::<MeasurementConsumerName>("name", text)?);
        let refuse = || Refusal::denied("measurementConsumers.get", text);
        if caller != name && !matches!(caller, CertificateParent::DataProvider(_)) {
            return Err(refuse());
        }
        let found = describe(&self.0, &name, refuse).await?;
        Ok(api::MeasurementConsumer {
            name: found.party.name.to_string(),
            certificate_der: found.certificate_der,
            certificate: found.party.certificate.to_string(),
            public_key: found.public_key,
            display_name: found.party.display_name,
            ..Default::default()
        })
    }
}

#[tonic::async_trait]
impl measurement_consumers_server::MeasurementConsumers for MeasurementConsumers {
    async fn get_measurement_consumer(
        &self,
        request: Request<api::GetMeasurementConsumerRequest>,
    ) -> Result<Response<api::MeasurementConsumer>, Status> {
        answer(self.get(&request).await)
    }

    async fn create_measurement_consumer(
        &self,
        _: Request<api::CreateMeasurementConsumerRequest>,
    ) -> Result<Response<api::MeasurementConsumer>, Status> {
        unimplemented("CreateMeasurementConsumer")
    }

    async fn add_measurement_consumer_owner(
        &self,
        _: Request<api::AddMeasurementConsumerOwnerRequest>,
    ) -> Result<Response<api::MeasurementConsumer>, Status> {
        unimplemented("AddMeasurementConsumerOwner")
    }

    async fn remove_measurement_consumer_owner(
        &self,
        _: Request<api::RemoveMeasurementConsumerOwnerRequest>,
    ) -> Result<Response<api::MeasurementConsumer>, Status> {
        unimplemented("RemoveMeasurementConsumerOwner")
    }
}

#[derive(Debug)]
pub(crate) struct PublicKeys(pub(crate) Arc<Kingdom>);

impl PublicKeys {
    async fn update(&self, request: &Request<api::UpdatePublicKeyRequest>) -> Result<api::PublicKey, Refusal> {
        let caller = self.0.caller(request)?;
        let key = request.get_ref().public_key.as_ref().ok_or(Refusal::Required("public_key"))?;
        let name: PublicKeyName = name("public_key.name", &key.name)?;
        let owner = match name.parent {
            PublicKeyParent::DataProvider(name) => CertificateParent::from(name),
            PublicKeyParent::MeasurementConsumer(name) => CertificateParent::from(name),
        };
        let refuse = || Refusal::denied("publicKeys.update", &key.name);
        if caller != owner {
            return Err(refuse());
        }
        let party = self.0.store.party(&owner).await?.ok_or_else(refuse)?;
        let field = "public_key.certificate";
        let (certificate_name, certificate) =
            usable_certificate(self.0.store.as_ref(), field, &key.certificate, &owner, self.0.now()).await?;
        let signed = key.public_key.as_ref().ok_or(Refusal::Required("public_key.public_key"))?;
        bounded("public_key.public_key", signed.encoded_len(), MAX_PUBLIC_KEY)?;
        verified_public_key("public_key.public_key", signed, &certificate)?;
        let public_key = Some(signed.encode_to_vec());
        self.0.store.put_party(&Party { certificate: certificate_name, public_key, ..party }).await?;
        Ok(key.clone())
    }
}

#[tonic::async_trait]
impl public_keys_server::PublicKeys for PublicKeys {
    async fn update_public_key(
        &self,
        request: Request<api::UpdatePublicKeyRequest>,
    ) -> Result<Response<api::PublicKey>, Status> {
        answer(self.update(&request).await)
    }
}
