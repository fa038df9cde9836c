//! Telling the Kingdom what this publisher can do, so that it chooses no protocol that would be refused.

use halo_core::{
    measurement::ProtocolKind,
    pb::api::{
        ReplaceDataProviderCapabilitiesRequest, data_provider::Capabilities, data_providers_client::DataProvidersClient,
    },
    transport::Client,
};
use tonic::Status;

use super::{
    Shared,
    answer::unary,
    watch::{backoff, describe, passes},
};

/// What the configuration is enough for.
pub(super) fn request(shared: &Shared) -> ReplaceDataProviderCapabilitiesRequest {
    let answers = |protocol| shared.trust.protocols.contains(&protocol);
    ReplaceDataProviderCapabilitiesRequest {
        name: shared.config.data_provider.to_string(),
        capabilities: Some(Capabilities {
            honest_majority_share_shuffle_supported: answers(ProtocolKind::Hmss),
            honest_majority_share_shuffle_native_supported: answers(ProtocolKind::HmssNative),
            trus_tee_supported: answers(ProtocolKind::Trustee),
            noise_mechanism_none_supported: shared.trust.allow_no_noise,
            noise_mechanism_deterministic_truncated_laplace_supported: shared.trust.allow_deterministic_noise,
        }),
    }
}

/// Tells it, in as many attempts as it takes. A Kingdom that does not want to know goes on with what its own configuration
/// says of this publisher, and so does the publisher.
pub(super) async fn announce(kingdom: Client, request: ReplaceDataProviderCapabilitiesRequest) {
    let mut delays = backoff();
    loop {
        let told = async {
            let channel = kingdom.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
            unary(DataProvidersClient::new(channel).replace_data_provider_capabilities(request.clone())).await
        };
        match told.await {
            Ok(_) => return tracing::info!("the Kingdom knows what this publisher can do"),
            Err(status) if passes(&status) => tokio::time::sleep(delays.next().unwrap_or_default()).await,
            Err(status) => {
                let status = describe(&status);
                return tracing::warn!(%status, "the Kingdom does not take what this publisher can do");
            }
        }
    }
}
