//! One eviction, by the Eviction API, which asks the PodDisruptionBudgets.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use kube::api::{ObjectMeta, PostParams};
use kube::core::Status;
use kube::{Api, Client};
use tokio::time::timeout;

use crate::api_error::ApiError;

/// Longest wait for the answer. A client that repeats refused requests by itself does not answer sooner.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionOutcome {
    /// The pod is asked to end.
    Evicted,
    /// A PodDisruptionBudget does not allow it, or the API server is busy.
    NotNow,
    /// The pod is gone, or another one has its name.
    Gone,
}

impl EvictionOutcome {
    /// A closed set, for the metric.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::NotNow => "not_now",
            Self::Gone => "gone",
        }
    }
}

/// Evicts the pod of that name if it is the one of that uid.
///
/// # Errors
/// Any other answer of the API server.
pub async fn evict(
    client: Client,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<EvictionOutcome, ApiError> {
    let eviction = Eviction {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        delete_options: Some(DeleteOptions {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), ..Default::default() }),
            ..Default::default()
        }),
    };
    let (pods, params) = (Api::<Pod>::namespaced(client, namespace), PostParams::default());
    let asked = pods.create_subresource::<_, Status>("eviction", name, &params, &eviction);
    match timeout(PATIENCE, asked).await {
        Ok(Ok(_)) => Ok(EvictionOutcome::Evicted),
        Ok(Err(kube::Error::Api(status))) => match status.code {
            429 => Ok(EvictionOutcome::NotNow),
            404 | 409 => Ok(EvictionOutcome::Gone),
            _ => Err(kube::Error::Api(status).into()),
        },
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Ok(EvictionOutcome::NotNow),
    }
}
