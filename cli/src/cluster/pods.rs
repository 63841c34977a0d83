//! The pods of a route that have the sidecar, or are its gateway.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use mailroute_operator_core::crd::ROUTE_LABEL;
use mailroute_operator_core::inject::names::CONTAINER;
use mailroute_operator_core::pods;
use mailroute_route::identity::Role;
use serde::Serialize;

use super::{Cluster, pages};
use crate::error::{Error, Right};
use crate::terminal::clean;

/// A pod of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutePod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The route on its label.
    pub route: String,
    /// Whether it is a gateway.
    pub gateway: bool,
    /// Whether its sidecar, or the gateway, takes mail.
    pub ready: bool,
    /// Whether it was asked to end.
    pub ending: bool,
    /// How often the container was started again.
    pub restarts: i32,
    /// Image of the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The port of its SMTP, where it is not the route's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether the container runs, so that a command can be run in it.
    pub runs: bool,
}

impl RoutePod {
    /// What `pod` says; none for a pod without the sidecar, or that has ended.
    pub fn of(pod: &Pod) -> Option<Self> {
        let sidecar = pods::sidecar(pod)?;
        let status = pod.status.as_ref();
        let statuses = status.into_iter().flat_map(|status| {
            status.init_container_statuses.iter().chain(&status.container_statuses).flatten()
        });
        let ours = statuses.into_iter().find(|status| status.name == CONTAINER);
        Some(Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: sidecar.name,
            route: pod.labels().get(ROUTE_LABEL).cloned().unwrap_or_default(),
            gateway: sidecar.role == Role::Gateway,
            ready: sidecar.ready,
            ending: sidecar.is_ending,
            restarts: ours.map_or(0, |status| status.restart_count),
            image: sidecar.image,
            created: sidecar.created,
            port: container(pod).and_then(port),
            runs: ours
                .is_some_and(|status| status.state.as_ref().is_some_and(|state| state.running.is_some())),
        })
    }

    /// The role in words.
    pub const fn role(&self) -> &'static str {
        if self.gateway { "gateway" } else { "sidecar" }
    }
}

fn container(pod: &Pod) -> Option<&Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .find(|container| container.name == CONTAINER)
}

fn port(container: &Container) -> Option<u16> {
    let arguments = container.args.as_deref().unwrap_or_default();
    arguments.iter().find_map(|argument| argument.strip_prefix("--port=")).and_then(|port| port.parse().ok())
}

impl Cluster {
    /// The pods of a route, or of all routes, in a namespace or in all of them, by name.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn route_pods(
        &self,
        namespace: Option<&str>,
        route: Option<&str>,
    ) -> Result<Vec<RoutePod>, Error> {
        let api: Api<Pod> = match namespace {
            Some(namespace) => Api::namespaced(self.client(), namespace),
            None => Api::all(self.client()),
        };
        let selector = route.map_or_else(|| ROUTE_LABEL.to_owned(), |route| format!("{ROUTE_LABEL}={route}"));
        let found = pages(&api, ListParams::default().labels(&selector)).await;
        let found = found.map_err(|error| Error::of(&error, Right::new("list", "pods", namespace)))?;
        let mut pods: Vec<_> = found.iter().filter_map(RoutePod::of).collect();
        pods.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(pods)
    }

    /// The pods of a route of the namespace in which commands can be run.
    ///
    /// # Errors
    /// The API server's refusal; when there is no such route, or it has no such pod.
    pub async fn running_pods(&self, route: &str) -> Result<Vec<RoutePod>, Error> {
        let mut pods = self.route_pods(Some(self.namespace()), Some(route)).await?;
        pods.retain(|pod| pod.runs);
        if pods.is_empty() {
            self.route(route).await?;
            let (route, namespace) = (clean(route), clean(self.namespace()));
            let text = format!("MailRoute {route} in namespace {namespace} has no running pod");
            return Err(Error::Refused(text));
        }
        Ok(pods)
    }
}

#[cfg(test)]
mod tests {
    use mailroute_operator_core::samples;

    use super::*;

    #[test]
    fn a_pod_is_read_with_its_role_and_port() {
        let mut pod = samples::pod("web-1", "mailroute.dev/sidecar:0.1.0");
        let read = RoutePod::of(&pod).unwrap();
        assert_eq!((read.name.as_str(), read.role(), read.port), ("web-1", "sidecar", None));
        let container = &mut pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap()[1];
        container.args = Some(vec!["run".into(), "--port=2525".into()]);
        assert_eq!(RoutePod::of(&pod).unwrap().port, Some(2525));
        assert!(RoutePod::of(&samples::gateway_pod("g-0", "image")).unwrap().gateway);
    }
}
