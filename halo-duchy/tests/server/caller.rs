//! Connections of publishers and Duchies to the Duchy under test.

use std::time::Duration;

use futures::stream;
use halo_core::pb::{
    api::{
        FulfillRequisitionRequest, FulfillRequisitionResponse, fulfill_requisition_request as upload,
        requisition_fulfillment_client::RequisitionFulfillmentClient,
    },
    halo::{GetTransferRequest, Transfer, transfers_client::TransfersClient},
    system::{
        self, AdvanceComputationRequest, AdvanceComputationResponse, advance_computation_request as delivery,
        computation_control_client::ComputationControlClient,
    },
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    kingdom::PATIENCE,
    measurement::{Delivery, Upload},
};

/// A connection to the Duchy under test.
pub(crate) struct Caller(pub(crate) Channel);

impl Caller {
    /// Uploads in small chunks, from the offset in the header on.
    pub(crate) async fn upload(&self, upload: &Upload) -> Result<FulfillRequisitionResponse, Status> {
        let offset = usize::try_from(upload.header.offset).unwrap();
        let payloads = [upload::Payload::Header(upload.header.clone())].into_iter().chain(
            upload.body[offset..]
                .chunks(100)
                .map(|chunk| upload::Payload::BodyChunk(upload::BodyChunk { data: chunk.to_vec().into() })),
        );
        self.upload_messages(payloads.collect()).await
    }

    /// Uploads messages of any kind and order. Comes back, as publishers do, as long as the Duchy has not heard of all
    /// keys from the Kingdom.
    pub(crate) async fn upload_messages(
        &self,
        payloads: Vec<upload::Payload>,
    ) -> Result<FulfillRequisitionResponse, Status> {
        let messages = payloads.into_iter().map(|payload| FulfillRequisitionRequest { payload: Some(payload) });
        let messages: Vec<_> = messages.collect();
        let mut client = RequisitionFulfillmentClient::new(self.0.clone());
        let attempts = async {
            loop {
                match client.fulfill_requisition(stream::iter(messages.clone())).await {
                    Err(status) if status.message().contains("has not been told of all keys yet") => {
                        assert_eq!(status.code(), Code::Unavailable);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    outcome => return outcome.map(tonic::Response::into_inner),
                }
            }
        };
        tokio::time::timeout(PATIENCE, attempts).await.unwrap()
    }

    /// Delivers in small chunks, from the offset in the header on.
    pub(crate) async fn deliver(&self, delivery: &Delivery) -> Result<AdvanceComputationResponse, Status> {
        let offset = usize::try_from(delivery.header.offset).unwrap();
        let payloads = [delivery::Payload::Header(delivery.header.clone())].into_iter().chain(
            delivery.body[offset..]
                .chunks(100)
                .map(|chunk| delivery::Payload::BodyChunk(delivery::BodyChunk { partial_data: chunk.to_vec().into() })),
        );
        let messages: Vec<_> = payloads.map(|payload| AdvanceComputationRequest { payload: Some(payload) }).collect();
        let mut client = ComputationControlClient::new(self.0.clone());
        client.advance_computation(stream::iter(messages)).await.map(tonic::Response::into_inner)
    }

    /// How much of a body the Duchy holds.
    pub(crate) async fn transferred(&self, query: GetTransferRequest) -> Result<Transfer, Status> {
        TransfersClient::new(self.0.clone()).get_transfer(query).await.map(tonic::Response::into_inner)
    }

    /// Where the Duchy stands in a computation.
    pub(crate) async fn stage(&self, name: String) -> Result<system::ComputationStage, Status> {
        let request = system::GetComputationStageRequest { name };
        ComputationControlClient::new(self.0.clone())
            .get_computation_stage(request)
            .await
            .map(tonic::Response::into_inner)
    }
}

/// Asserts that a call was refused with this code and a text that contains `words`.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(outcome: Result<T, Status>, code: Code, words: &str) {
    let status = outcome.expect_err(words);
    assert_eq!(status.code(), code, "{}", status.message());
    assert!(status.message().contains(words), "{words:?} is not in {:?}", status.message());
}
