//! A pod to work in: one of the route's, or one that is made for this and removed afterwards.
//!
//! A pod that is made runs nothing but the sidecar, which the webhook adds, beside a container that waits. It ends by itself
//! when nobody removes it.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use mailroute_operator_core::crd::ROUTE_LABEL;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Cluster;
use super::pods::RoutePod;
use crate::args;
use crate::error::{Error, Right};
use crate::terminal::{Terminal, clean};

/// A pod to work in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visited {
    /// The pod.
    pub pod: RoutePod,
    /// Whether it was made for this.
    pub is_made: bool,
}

/// Which kinds of pods will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any that runs the program.
    Any,
    /// One in which something listens on localhost.
    Sidecar,
}

impl Cluster {
    /// A pod of the route as asked for; one that is made where there is none. The caller gives it back to [`Cluster::leave`].
    ///
    /// # Errors
    /// When there is none, and none can be made.
    pub async fn visit(
        &self,
        route: &str,
        options: &args::Visit,
        kind: Kind,
        terminal: &mut Terminal<'_>,
    ) -> Result<Visited, Error> {
        let pods = self.route_pods(Some(self.namespace()), Some(route)).await?;
        if let Some(name) = &options.pod {
            let pod = pods.into_iter().find(|pod| pod.name == *name);
            let pod = pod
                .ok_or_else(|| Error::Missing(format!("pod {name} with the sidecar of MailRoute {route}")))?;
            return Ok(Visited { pod, is_made: false });
        }
        if !options.new_pod
            && let Some(pod) = choose(pods, kind)
        {
            return Ok(Visited { pod, is_made: false });
        }
        self.route(route).await?;
        terminal.note(&format!(
            "making a pod for this in namespace {}; it is removed afterwards",
            clean(self.namespace())
        ));
        let pod = self.made(route, options).await?;
        Ok(Visited { pod, is_made: true })
    }

    /// Removes a pod that was made.
    pub async fn leave(&self, visited: &Visited, terminal: &mut Terminal<'_>) {
        if visited.is_made {
            self.remove(&visited.pod.name, terminal).await;
        }
    }

    async fn remove(&self, name: &str, terminal: &mut Terminal<'_>) {
        let pods: Api<Pod> = Api::namespaced(self.client(), self.namespace());
        if let Err(error) = pods.delete(name, &DeleteParams::default()).await {
            let error = Error::of(&error, Right::new("delete", "pods", Some(self.namespace())));
            terminal.note(&format!("pod {name} could not be removed: {error}"));
        }
    }

    async fn made(&self, route: &str, options: &args::Visit) -> Result<RoutePod, Error> {
        let pods: Api<Pod> = Api::namespaced(self.client(), self.namespace());
        let pod = serde_json::from_value(manifest(route, options))
            .map_err(|error| Error::Refused(error.to_string()))?;
        let right = || Right::new("create", "pods", Some(self.namespace()));
        let made =
            pods.create(&PostParams::default(), &pod).await.map_err(|error| refusal(&error, right()))?;
        let name = made.metadata.name.unwrap_or_default();
        match timeout(Duration::from_secs(options.timeout), self.comes_up(&pods, &name)).await {
            Ok(Ok(pod)) => Ok(pod),
            failed => {
                let why = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => format!(
                        "pod {name} did not start within {} seconds: {}",
                        options.timeout,
                        self.waits_for(&name).await
                    ),
                };
                let _ = pods.delete(&name, &DeleteParams::default()).await;
                Err(Error::Refused(why))
            }
        }
    }

    /// Waits until the sidecar of the pod takes mail.
    async fn comes_up(&self, pods: &Api<Pod>, name: &str) -> Result<RoutePod, Error> {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut seen = std::pin::pin!(watcher(pods.clone(), config).applied_objects());
        while let Some(event) = seen.next().await {
            let pod = match event {
                Ok(pod) => pod,
                Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) => {
                    return Err(Error::of(&error, Right::new("watch", "pods", Some(self.namespace()))));
                }
                // The watch begins anew.
                Err(_) => continue,
            };
            if let Some(pod) = RoutePod::of(&pod).filter(|pod| pod.ready) {
                return Ok(pod);
            }
            let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
            if phase == "Failed" || phase == "Succeeded" {
                return Err(Error::Refused(format!("pod {name} ended before its sidecar took mail")));
            }
        }
        Err(Error::Refused(format!("pod {name} cannot be watched")))
    }

    /// Why a container of the pod does not run.
    async fn waits_for(&self, name: &str) -> String {
        let pods: Api<Pod> = Api::namespaced(self.client(), self.namespace());
        let status = pods.get(name).await.ok().and_then(|pod| pod.status).unwrap_or_default();
        let statuses = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        let waiting =
            statuses.filter_map(|status| Some((&status.name, status.state.as_ref()?.waiting.as_ref()?)));
        let said = waiting.filter_map(|(name, waiting)| {
            let message = waiting.message.as_deref().unwrap_or_default();
            Some(format!("{name}: {} {message}", waiting.reason.as_deref()?))
        });
        let conditions = status.conditions.iter().flatten().filter(|it| it.status != "True");
        let said = said.chain(conditions.filter_map(|it| it.message.clone()));
        clean(&said.take(3).collect::<Vec<_>>().join("; ")).into_owned()
    }
}

/// Why a pod was not made: the right is missing, or it was not admitted, which API servers answer with the same code.
pub fn refusal(error: &kube::Error, right: Right) -> Error {
    let is_admission = |answer: &str| !answer.contains(" cannot create resource ");
    match Error::of(error, right) {
        Error::Denied { answer: why, .. } | Error::Api { why, .. } if is_admission(&why) => {
            Error::Refused(why)
        }
        other => other,
    }
}

/// The first that takes mail and goes on to; else one that runs.
fn choose(pods: Vec<RoutePod>, kind: Kind) -> Option<RoutePod> {
    let mut fit: Vec<_> =
        pods.into_iter().filter(|pod| pod.runs && (kind == Kind::Any || !pod.gateway)).collect();
    // A gateway last: it has other people's mail to carry.
    fit.sort_by_key(|pod| (pod.ending, !pod.ready, pod.gateway));
    fit.into_iter().next()
}

/// A pod that waits, and meets Pod Security `restricted`.
pub fn manifest(route: &str, options: &args::Visit) -> Value {
    let route = route.to_owned();
    json!({
        "metadata": {
            "generateName": "mailroute-check-",
            "labels": {ROUTE_LABEL: route, "app.kubernetes.io/managed-by": "kubectl-mailroute"},
        },
        "spec": {
            // It ends by itself when whoever made it is gone.
            "activeDeadlineSeconds": options.timeout + 300,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "serviceAccountName": options.service_account,
            "securityContext": {
                // The image says which user: some platforms assign one.
                "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "wait",
                "image": options.image,
                "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "16Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use mailroute_operator_core::samples;

    use super::*;

    fn pod(name: &str) -> RoutePod {
        RoutePod::of(&samples::pod(name, "image")).unwrap()
    }

    #[test]
    fn a_pod_that_takes_mail_is_chosen_before_others() {
        let running =
            |name: &str| RoutePod { runs: true, ready: true, ending: false, gateway: false, ..pod(name) };
        let pods = || {
            vec![
                RoutePod { ending: true, ..running("ending") },
                RoutePod { gateway: true, ..running("gateway") },
                RoutePod { ready: false, ..running("starting") },
                running("good"),
                RoutePod { runs: false, ..running("new") },
            ]
        };
        assert_eq!(choose(pods(), Kind::Any).unwrap().name, "good");
        let only = |name: &str| pods().into_iter().filter(|pod| pod.name == name).collect::<Vec<_>>();
        assert_eq!(choose(only("gateway"), Kind::Any).unwrap().name, "gateway");
        assert_eq!(choose(only("gateway"), Kind::Sidecar), None);
        assert_eq!(choose(only("new"), Kind::Any), None);
    }

    #[test]
    fn a_pod_that_is_made_is_a_pod_with_the_label() {
        let options = args::Visit {
            image: "pause".into(),
            timeout: 60,
            service_account: "default".into(),
            ..Default::default()
        };
        let pod: Pod = serde_json::from_value(manifest("notifications", &options)).unwrap();
        assert_eq!(pod.metadata.labels.unwrap()[ROUTE_LABEL], "notifications");
        assert_eq!(pod.spec.unwrap().active_deadline_seconds, Some(360));
    }
}
