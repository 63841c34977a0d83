//! The main job, shown and checked: chart, route, injected pod, one message, status, metrics.
//!
//! Runs on a cluster of its own, or on the one that `MAILROUTE_KUBECONFIG` names. It owns the order of the steps and
//! what a person reads; clusters, charts and the simulator come from the harness.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod show;
mod steps;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams, Patch, PatchParams};
use mailroute_operator_core::crd::MailRoute;
use serde_json::json;

use crate::cluster::KUBECONFIG_VARIABLE;
use crate::scene::{PATIENCE, condition_of, microsoft::Microsoft, release};
use crate::supervisor::record;
use crate::wait::is_complete;
use crate::{Cluster, Family, Tier, wait_for, wait_gone};
use steps::Steps;

/// Name of the cluster that `--keep` leaves up.
const CLUSTER: &str = "demo";

/// Namespace of the demo's application.
const NAMESPACE: &str = "shop";

/// Namespace of the simulator.
const MICROSOFT: &str = "m365";

/// Name of the route in the example.
const ROUTE: &str = "notifications";

/// Name of the Job in the example.
const JOB: &str = "send-notification";

/// Runs the demo. A cluster that is to be kept stays up also when a step fails, for a person to look at; when this future
/// is dropped half-way, it goes like any other.
///
/// # Errors
/// When any step fails, or what arrived is not what was sent.
pub async fn run(keep: bool) -> Result<()> {
    let mut steps = Steps::new(6);
    steps.begin("Kubernetes, one node");
    let cluster = start(keep).await?;
    let outcome = thread(&cluster, &mut steps).await;
    if keep && cluster.is_own() {
        cluster.keep()?;
        tell_how_to_look(&cluster);
    }
    drop(cluster);
    let accepted = outcome?;
    println!("demo: 1 message sent to localhost:25, {accepted} accepted by Microsoft 365 (simulated)");
    Ok(())
}

/// From the chart to the message: what is done, then what came of it. Returns how many messages arrived.
async fn thread(cluster: &Cluster, steps: &mut Steps) -> Result<usize> {
    steps.begin("operator, by Helm");
    tell_about_images(cluster);
    release::ensure_installed(cluster).await?;
    steps.begin("Microsoft 365 simulator");
    let microsoft = Microsoft::deploy(cluster, MICROSOFT).await?;
    microsoft.forget().await?;
    prepare_namespace(cluster, &microsoft).await?;
    steps.begin("kubectl apply -f docs/examples/notifications.yaml");
    apply_example(cluster).await?;
    steps.begin("sidecar logs in");
    let route = usable_route(cluster).await?;
    let listed = cluster.kubectl(&["-n", NAMESPACE, "get", "mailroute"]).await?;
    steps.begin("message arrives, Job completes");
    microsoft.wait_for_messages(1).await?;
    let pod = completed_job(cluster).await?;
    steps.end();

    show::route(&listed, &route);
    show::pod(&pod);
    let messages = microsoft.messages().await?;
    show::messages(&messages);
    show::application_log(&log(cluster, &pod, "app").await?);
    show::sidecar_log(&log(cluster, &pod, "mailroute").await?);
    show::job(&cluster.kubectl(&["-n", NAMESPACE, "get", "job", JOB]).await?);
    check(&messages, &microsoft.violations().await?)?;
    Ok(messages.len())
}

/// The cluster that `MAILROUTE_KUBECONFIG` names, or a new one; one to keep has the name that `make demo-down` knows.
async fn start(keep: bool) -> Result<Cluster> {
    match std::env::var_os(KUBECONFIG_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) => {
            println!("      using the cluster of {}, starting none", path.display());
            Cluster::from_kubeconfig(path.as_ref()).await
        }
        None if keep => {
            if let Some(up) = record::list()?
                .into_iter()
                .find(|record| record.name == CLUSTER && record::is_alive(record).unwrap_or(false))
            {
                let kubeconfig = up.kubeconfig();
                bail!(
                    "the cluster of an earlier `make demo KEEP=1` is up: use it (export KUBECONFIG={kubeconfig}), run the \
                     demo on it again (MAILROUTE_KUBECONFIG={kubeconfig} make demo), or remove it (make demo-down)",
                    kubeconfig = kubeconfig.display()
                );
            }
            Cluster::start_named(Tier::Node, Family::default(), CLUSTER).await
        }
        None => {
            Cluster::start_named(Tier::Node, Family::default(), &format!("{CLUSTER}-{}", std::process::id()))
                .await
        }
    }
}

/// Nobody but its owner can put images on a cluster that the harness did not start.
fn tell_about_images(cluster: &Cluster) {
    if !cluster.takes_images() {
        println!("      its nodes must have the images of {}/*.tar already", release::images().display());
    }
}

fn tell_how_to_look(cluster: &Cluster) {
    println!("\nThe cluster stays up:  export KUBECONFIG={}", cluster.kubeconfig().display());
    println!("kubectl and helm:      export PATH=\"{}:$PATH\"", cluster.programs().display());
    println!("To begin with:         kubectl -n {NAMESPACE} describe mailroute {ROUTE}");
    println!(
        "Mail that arrived:     kubectl -n {MICROSOFT} port-forward service/control 8080, then http://localhost:8080/"
    );
    println!("Remove it with:        make demo-down\n");
}

/// The application's namespace, fresh, which enforces Pod Security `restricted` and trusts the simulator's CA.
async fn prepare_namespace(cluster: &Cluster, microsoft: &Microsoft) -> Result<()> {
    let params = PatchParams::apply("demo").force();
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels},
    });
    namespaces.patch(NAMESPACE, &params, &Patch::Apply(&namespace)).await?;
    microsoft.publish_ca(NAMESPACE).await?;
    microsoft.trust_service_account(NAMESPACE, "default").await
}

/// Applies the example as a person would; a Job of an earlier run is removed first, as a Job cannot run twice.
async fn apply_example(cluster: &Cluster) -> Result<()> {
    let jobs: Api<Job> = Api::namespaced(cluster.client(), NAMESPACE);
    if jobs.get_opt(JOB).await?.is_some() {
        jobs.delete(JOB, &DeleteParams::foreground()).await?;
        wait_gone(jobs, JOB, PATIENCE).await?;
    }
    let example = release::repository().join("docs/examples/notifications.yaml");
    cluster.kubectl(&["-n", NAMESPACE, "apply", "-f", &example.display().to_string()]).await?;
    Ok(())
}

/// Waits until the pod has shown that mail can flow.
async fn usable_route(cluster: &Cluster) -> Result<MailRoute> {
    let routes: Api<MailRoute> = Api::namespaced(cluster.client(), NAMESPACE);
    let usable = |route: &MailRoute| {
        condition_of(route, "Authenticated").is_some_and(|c| c.status == "True")
            && route.readiness() == "True"
    };
    wait_for(routes, ROUTE, usable, PATIENCE).await.context("the sidecar does not log in")
}

async fn completed_job(cluster: &Cluster) -> Result<Pod> {
    let jobs: Api<Job> = Api::namespaced(cluster.client(), NAMESPACE);
    wait_for(jobs, JOB, is_complete, PATIENCE).await.context("the Job does not complete")?;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let selector = format!("batch.kubernetes.io/job-name={JOB}");
    let found = pods.list(&ListParams::default().labels(&selector)).await?;
    found.items.into_iter().next().context("the Job has no pod")
}

async fn log(cluster: &Cluster, pod: &Pod, container: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(cluster.client(), NAMESPACE);
    let name = pod.metadata.name.as_deref().context("a stored pod has a name")?;
    Ok(pods.logs(name, &LogParams { container: Some(container.into()), ..LogParams::default() }).await?)
}

/// What the last line claims.
fn check(messages: &[mailroute_m365::mailbox::Message], violations: &[String]) -> Result<()> {
    ensure!(messages.len() == 1, "{} messages arrived instead of 1", messages.len());
    ensure!(messages[0].mailbox == "noreply@contoso.com", "the mailbox is {}", messages[0].mailbox);
    let subject = format!("system:serviceaccount:{NAMESPACE}:default");
    ensure!(
        messages[0].token.assertion_subject == subject,
        "the token is of {}",
        messages[0].token.assertion_subject
    );
    ensure!(violations.is_empty(), "Exchange would have refused: {violations:?}");
    Ok(())
}
