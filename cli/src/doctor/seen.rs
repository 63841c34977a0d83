//! What is looked at of an installation. Plain data: each part is there, or why it could not be looked at.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::ResourceExt;

use crate::cluster::pods::RoutePod;
use crate::status::view::RouteView;

/// A part that was looked at, or why it could not be.
pub type Look<T> = Result<T, String>;

/// Label of the chart's version.
const VERSION: &str = "app.kubernetes.io/version";

/// Variable with the image of sidecars.
const SIDECAR_IMAGE: &str = "MAILROUTE_SIDECAR_IMAGE";

/// An installation.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What the API server says of itself.
    pub api_server: Look<Info>,
    /// The definitions.
    pub definitions: Look<Vec<CustomResourceDefinition>>,
    /// The operator's Deployments.
    pub operators: Look<Vec<Operator>>,
    /// The Lease of the first operator.
    pub lease: Look<Option<Lease>>,
    /// Its webhook configuration.
    pub configuration: Look<Option<MutatingWebhookConfiguration>>,
    /// Names of the admission policies, and of the bindings, that the chart installs for it.
    pub policies: Look<Vec<String>>,
    /// Routes.
    pub routes: Look<Vec<RouteView>>,
    /// Pods of routes.
    pub pods: Look<Vec<RoutePod>>,
    /// What became of a labelled pod that was only tried; none where no route was there to try it with.
    pub trial: Look<Option<Trial>>,
    /// When it was looked at.
    pub now: Timestamp,
}

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Its namespace.
    pub namespace: String,
    /// Its name, which is that of all that the chart installs.
    pub name: String,
    /// The chart's version of it.
    pub version: Option<String>,
    /// Its image.
    pub image: String,
    /// The image of its sidecars.
    pub sidecar_image: Option<String>,
    /// Replicas that are wanted, and that are ready.
    pub replicas: (i32, i32),
    /// Whether a new version of it is still being rolled out.
    pub is_rolling: bool,
}

impl Operator {
    /// What a Deployment says; none where it is no operator.
    pub fn of(deployment: &Deployment) -> Option<Self> {
        let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
        let container: &Container = pod.containers.iter().find(|container| container.name == "operator")?;
        let variable = container.env.iter().flatten().find(|variable| variable.name == SIDECAR_IMAGE);
        let status = deployment.status.clone().unwrap_or_default();
        let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        Some(Self {
            namespace: deployment.namespace().unwrap_or_default(),
            name: deployment.name_any(),
            version: deployment.labels().get(VERSION).cloned(),
            image: container.image.clone().unwrap_or_default(),
            sidecar_image: variable.and_then(|variable| variable.value.clone()),
            replicas: (wanted, status.ready_replicas.unwrap_or_default()),
            is_rolling: status.updated_replicas.unwrap_or_default() < wanted
                || status.observed_generation < deployment.metadata.generation,
        })
    }
}

/// A pod that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The route on its label, with its namespace.
    pub route: String,
    /// The image of the sidecar that it would get; or why it would get none.
    pub outcome: Result<String, String>,
}
