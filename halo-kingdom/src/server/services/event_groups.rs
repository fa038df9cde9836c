//! `wfa.measurement.api.v2alpha.EventGroups`, as far as measurements need them: create, get and list.

use std::sync::Arc;

use halo_core::{
    clock::Timestamp,
    pb::api::{self, event_group, event_groups_server},
    resource::{
        CertificateParent, DataProviderName, EventGroupName, ExternalId, MeasurementConsumerEventGroupName,
        MeasurementConsumerName,
    },
};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{answer, name, only_consumer, only_publisher, readable, unimplemented};
use crate::server::{
    kingdom::Kingdom,
    limits::{MAX_EVENT_GROUP, bounded},
    page::{CHUNK, Page},
    refusal::Refusal,
    store::{Cursor, EventGroupRecord, StoreError},
};

#[derive(Debug)]
pub(crate) struct EventGroups(pub(crate) Arc<Kingdom>);

#[tonic::async_trait]
impl event_groups_server::EventGroups for EventGroups {
    async fn get_event_group(
        &self,
        request: Request<api::GetEventGroupRequest>,
    ) -> Result<Response<api::EventGroup>, Status> {
        answer(self.get(&request).await)
    }

    async fn create_event_group(
        &self,
        request: Request<api::CreateEventGroupRequest>,
    ) -> Result<Response<api::EventGroup>, Status> {
        answer(self.create(&request).await)
    }

    async fn list_event_groups(
        &self,
        request: Request<api::ListEventGroupsRequest>,
    ) -> Result<Response<api::ListEventGroupsResponse>, Status> {
        answer(self.list(&request).await)
    }

    async fn batch_create_event_groups(
        &self,
        _: Request<api::BatchCreateEventGroupsRequest>,
    ) -> Result<Response<api::BatchCreateEventGroupsResponse>, Status> {
        unimplemented("BatchCreateEventGroups")
    }

    async fn update_event_group(
        &self,
        _: Request<api::UpdateEventGroupRequest>,
    ) -> Result<Response<api::EventGroup>, Status> {
        unimplemented("UpdateEventGroup")
    }

    async fn batch_update_event_groups(
        &self,
        _: Request<api::BatchUpdateEventGroupsRequest>,
    ) -> Result<Response<api::BatchUpdateEventGroupsResponse>, Status> {
        unimplemented("BatchUpdateEventGroups")
    }

    async fn delete_event_group(
        &self,
        _: Request<api::DeleteEventGroupRequest>,
    ) -> Result<Response<api::EventGroup>, Status> {
        unimplemented("DeleteEventGroup")
    }
}

fn message(record: &EventGroupRecord) -> Result<api::EventGroup, StoreError> {
    api::EventGroup::decode(record.body.as_slice())
        .map_err(|error| StoreError::Corrupt { what: "event group", detail: error.to_string() })
}

/// Event groups are ordered by publisher and id; the place of the time in the cursor holds the publisher.
fn cursor(record: &EventGroupRecord) -> Cursor {
    Cursor { time: Timestamp::from_unix_nanos(record.name.data_provider.as_i64()), id: record.name.event_group }
}

impl EventGroups {
    async fn get(&self, request: &Request<api::GetEventGroupRequest>) -> Result<api::EventGroup, Refusal> {
        const PERMISSION: &str = "eventGroups.get";
        let caller = self.0.caller(request)?;
        let text = &request.get_ref().name;
        let refuse = || Refusal::denied(PERMISSION, text);
        let record = if text.starts_with("measurementConsumers/") {
            let asked: MeasurementConsumerEventGroupName = name("name", text)?;
            let consumer = MeasurementConsumerName::new(asked.measurement_consumer);
            only_consumer(&caller, &consumer, PERMISSION, text)?;
            // The name does not tell the publisher, so the consumer's groups are looked through.
            let mut after = None;
            loop {
                let found = self.0.store.event_groups(None, Some(&consumer), after.as_ref(), 500).await?;
                let Some(last) = found.last() else { return Err(refuse()) };
                after = Some(last.name.clone());
                if let Some(group) = found.into_iter().find(|group| group.name.event_group == asked.event_group) {
                    break group;
                }
            }
        } else {
            let name: EventGroupName = name("name", text)?;
            let record = self.0.store.event_group(&name).await?.ok_or_else(refuse)?;
            let own = match &caller {
                CertificateParent::DataProvider(caller) => caller.data_provider == name.data_provider,
                CertificateParent::MeasurementConsumer(caller) => *caller == record.consumer,
                _ => false,
            };
            if !own {
                return Err(refuse());
            }
            record
        };
        Ok(message(&record)?)
    }

    async fn create(&self, request: &Request<api::CreateEventGroupRequest>) -> Result<api::EventGroup, Refusal> {
        let caller = self.0.caller(request)?;
        let asked = request.get_ref();
        let parent: DataProviderName = name("parent", &asked.parent)?;
        only_publisher(&caller, &parent, "eventGroups.create", &asked.parent)?;
        readable("request_id", &asked.request_id, 36)?;
        let group = asked.event_group.as_ref().ok_or(Refusal::Required("event_group"))?;
        bounded("event_group", group.encoded_len(), MAX_EVENT_GROUP)?;
        let consumer: MeasurementConsumerName = name("event_group.measurement_consumer", &group.measurement_consumer)?;
        if self.0.party(&CertificateParent::from(consumer.clone())).await?.is_none() {
            return Err(Refusal::Precondition {
                reason: "MEASUREMENT_CONSUMER_NOT_FOUND",
                resource: consumer.to_string(),
                detail: format!("event_group.measurement_consumer: {consumer} does not exist"),
            });
        }
        let name = EventGroupName::new(parent.data_provider, self.0.new_id());
        let stored = api::EventGroup {
            name: name.to_string(),
            state: event_group::State::Active.into(),
            aggregated_activities: Vec::new(),
            ..group.clone()
        };
        let record = EventGroupRecord { name, consumer, body: stored.encode_to_vec() };
        let request_id = (!asked.request_id.is_empty()).then_some(asked.request_id.as_str());
        Ok(message(&self.0.store.create_event_group(&record, request_id).await?)?)
    }

    async fn list(
        &self,
        request: &Request<api::ListEventGroupsRequest>,
    ) -> Result<api::ListEventGroupsResponse, Refusal> {
        const PERMISSION: &str = "eventGroups.list";
        let caller = self.0.caller(request)?;
        let asked = request.get_ref();
        let filter = asked.filter.clone().unwrap_or_default();
        let wanted = api::list_event_groups_request::Filter {
            measurement_consumer_in: filter.measurement_consumer_in.clone(),
            data_provider_in: filter.data_provider_in.clone(),
            ..Default::default()
        };
        if filter != wanted || asked.order_by.is_some() {
            return Err(Refusal::Unimplemented("ListEventGroups with another filter than by party, or with order_by,"));
        }
        let page = Page::new(&asked.parent, asked.filter.as_ref(), (asked.page_size, 10, 500), &asked.page_token)?;
        let (publisher, consumer) = if asked.parent.starts_with("measurementConsumers/") {
            let consumer: MeasurementConsumerName = name("parent", &asked.parent)?;
            only_consumer(&caller, &consumer, PERMISSION, &asked.parent)?;
            (None, Some(consumer))
        } else {
            let publisher: DataProviderName = name("parent", &asked.parent)?;
            only_publisher(&caller, &publisher, PERMISSION, &asked.parent)?;
            (Some(publisher), None)
        };
        let among = |list: &[String], name: String| list.is_empty() || list.contains(&name);
        let mut filling = page.empty();
        let mut after = page.after.and_then(|cursor| {
            let publisher = ExternalId::new(cursor.time.unix_nanos().cast_unsigned()).ok()?;
            Some(EventGroupName::new(publisher, cursor.id))
        });
        let wanted = |row: &&EventGroupRecord| {
            among(&filter.measurement_consumer_in, row.consumer.to_string())
                && among(&filter.data_provider_in, DataProviderName::new(row.name.data_provider).to_string())
        };
        'page: loop {
            let rows = self.0.store.event_groups(publisher.as_ref(), consumer.as_ref(), after.as_ref(), CHUNK).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.name.clone());
            for row in rows.iter().filter(wanted) {
                if !filling.add(message(row)?, cursor(row)) {
                    break 'page;
                }
            }
        }
        let (event_groups, next_page_token) = filling.finish();
        Ok(api::ListEventGroupsResponse { event_groups, next_page_token })
    }
}
