//! The crowd: routes over some namespaces, and pods that use them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::replica::stage::{Stage, labelled_pod};
use e2e::scene::workload;
use e2e::wait_for;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{self as core, Pod};
use kube::api::PostParams;
use kube::{Api, Client};
use mailroute_operator_core::crd::MailRoute;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::PATIENCE;

/// Namespaces that the crowd is spread over.
const NAMESPACES: usize = 20;

/// Routes or pods that are made at a time.
const AT_ONCE: usize = 16;

/// Routes and where they are.
pub struct Crowd {
    client: Client,
    namespaces: Vec<String>,
    routes: usize,
}

/// Pods that were made.
pub struct Made {
    /// From the question to the stored pod.
    pub took: Vec<Duration>,
    /// Pods a second.
    pub rate: f64,
}

impl Crowd {
    /// Makes the routes, each with an annotation of so many KiB.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub async fn with_routes(stage: &Stage, routes: usize, annotation: usize) -> Result<Self> {
        let client = stage.client();
        let namespaces = (0..NAMESPACES).map(|number| namespace(client.clone(), format!("crowd-{number}")));
        let namespaces: Vec<_> = stream::iter(namespaces).buffered(4).try_collect().await?;
        let crowd = Self { client, namespaces, routes };
        stream::iter((0..routes).map(|number| crowd.make_route(number, annotation)))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(crowd)
    }

    async fn make_route(&self, number: usize, annotation: usize) -> Result<()> {
        let namespace = self.namespace(number);
        let mut route = workload::route(&name(number), namespace);
        // Full of what routes have, so that memory is that of real ones.
        let allow: Vec<_> = (0..20).map(|n| json!(format!("sender-{n}@contoso.com"))).collect();
        route["spec"]["senders"] = json!({"allow": allow});
        if annotation > 0 {
            route["metadata"]["annotations"] = json!({"example.com/filled": "x".repeat(annotation * 1024)});
        }
        let api = Api::<MailRoute>::namespaced(self.client.clone(), namespace);
        api.create(&PostParams::default(), &serde_json::from_value(route)?).await?;
        Ok(())
    }

    /// Where a route of this number is.
    pub fn namespace(&self, number: usize) -> &str {
        &self.namespaces[number % NAMESPACES]
    }

    /// A pod for the route of this number, as large as pods usually are.
    pub fn pod(&self, number: usize) -> Value {
        let mut pod = labelled_pod();
        pod["metadata"]["labels"]["mailroute.dev/route"] = json!(name(number % self.routes));
        let environment: Vec<_> = (0..20)
            .map(|n| json!({"name": format!("SETTING_{n}"), "value": "a value of some length"}))
            .collect();
        pod["spec"]["containers"][0]["env"] = json!(environment);
        pod
    }

    /// Makes pods at this rate, through the API server and so through the webhook; slower where the API server is.
    ///
    /// # Errors
    /// When a pod is refused, or comes out without its sidecar.
    pub async fn make_pods(&self, count: usize, rate: u32) -> Result<Made> {
        let began = Instant::now();
        let mut moments = interval(Duration::from_secs(1) / rate);
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let (mut making, mut took) = (JoinSet::new(), Vec::with_capacity(count));
        for number in 0..count {
            moments.tick().await;
            let place = Arc::clone(&places).acquire_owned().await?;
            let api = Api::<Pod>::namespaced(self.client.clone(), self.namespace(number % self.routes));
            let pod: Arc<Pod> = Arc::new(serde_json::from_value(self.pod(number))?);
            making.spawn(async move {
                let began = Instant::now();
                let made = api.create(&PostParams::default(), &pod).await?;
                let containers = made.spec.as_ref().and_then(|spec| spec.init_containers.as_ref());
                ensure!(
                    containers.is_some_and(|all| all.iter().any(|it| it.name == "mailroute")),
                    "no sidecar"
                );
                drop(place);
                Ok(began.elapsed())
            });
            while let Some(made) = making.try_join_next() {
                took.push(made??);
            }
        }
        while let Some(made) = making.join_next().await {
            took.push(made?.context("a pod was not made")?);
        }
        Ok(Made { rate: count as f64 / began.elapsed().as_secs_f64(), took })
    }
}

/// A namespace in which pods can be made. It goes with the cluster.
async fn namespace(client: Client, name: String) -> Result<String> {
    let wanted = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    Api::<core::Namespace>::all(client.clone()).create(&PostParams::default(), &wanted).await?;
    wait_for(Api::<core::ServiceAccount>::namespaced(client, &name), "default", |_| true, PATIENCE).await?;
    Ok(name)
}

fn name(number: usize) -> String {
    format!("route-{number}")
}
