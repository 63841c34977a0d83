//! Certificates that the operator is given, on a real API server: by cert-manager, whose part a test plays here as
//! cert-manager and its CA injector would, and by a person who replaces a Secret.

use anyhow::{Context, Result, ensure};
use e2e::replica::asking::presented_until;
use e2e::replica::stage::{Replica, Stage};
use e2e::replica::until;
use e2e::scene::release;
use e2e::{Cluster, Tier};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use mailroute_operator::pki::anchors::Anchors;
use mailroute_operator::pki::{Lifetimes, trust};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::json;

/// The Secret that the chart names when nothing else is said.
const SECRET: &str = "mailroute-tls";

/// Names of the Service in the certificate, as the chart asks for them.
const NAMES: [&str; 2] = ["mailroute.mailroute-system.svc", "mailroute.mailroute-system.svc.cluster.local"];

#[tokio::test(flavor = "multi_thread")]
async fn cert_manager_issues_renews_and_keeps_the_bundle() -> Result<()> {
    let cluster = Cluster::start(Tier::ControlPlane).await?;
    cluster.apply("default", &definitions()).await?;
    let flags = ["--certificates", "cert-manager"];
    let values = ["--set", "certificates.source=CertManager"];
    let mut stage = Stage::on(cluster, &values, &flags, Lifetimes::default()).await?;
    let ours = Issuing::new(stage.client())?;
    ensure!(asked_for(&stage).await? == NAMES, "the chart asks for a certificate with other names");

    let replica = stage.start(None).await?.clone();
    ours.issue(2040).await?;
    ours.inject().await?;
    replica.readiness(200).await?;
    stage.announce().await?;

    // Renewals: new certificates of the same authority, while pods are made.
    let renewals = async {
        for year in 2041..2046 {
            ours.issue(year).await?;
            changed(&ours.client, &replica, year).await?;
        }
        Ok(())
    };
    stage.admit_until(renewals).await?;

    // The bundle is cert-manager's: a wrong one is not repaired, and readiness means it.
    let stranger = Issuing::new(stage.client())?;
    stranger.inject().await?;
    let missing = replica.readiness(503).await?;
    ensure!(missing.contains("does not chain to the caBundle"), "it says: {missing}");
    ensure!(live(&stage).await? == stranger.authority(), "the operator wrote a bundle that is not its own");
    ours.inject().await?;
    replica.readiness(200).await?;
    for result in ["published", "repaired", "failed"] {
        let line = format!("mailroute_ca_bundle_writes_total{{result=\"{result}\"}}");
        let writes = replica.metric(&line).await?.unwrap_or_default();
        ensure!(writes == 0.0, "{line} is {writes}");
    }
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_replaces_authority_and_certificate_at_once_and_no_admission_fails() -> Result<()> {
    let flags = ["--certificates", "secret"];
    let values = ["--set", "certificates.source=Secret"];
    let mut stage = Stage::set(&values, &flags, Lifetimes::default()).await?;
    let old = Issuing::new(stage.client())?;
    old.issue(2040).await?;
    stage.serve(None).await?;
    stage.serve(None).await?;
    ensure!(live(&stage).await? == old.authority(), "ca.crt of the Secret is not what is published");

    let new = Issuing::new(stage.client())?;
    let replicas = stage.replicas.clone();
    let replacement = async {
        new.issue(2041).await?;
        for replica in &replicas {
            changed(&new.client, replica, 2041).await?;
        }
        Ok(())
    };
    stage.admit_until(replacement).await?;
    let both = Anchors::from_pem(&(new.certificate.clone() + &old.certificate));
    ensure!(live(&stage).await? == both, "the old authority is not trusted beside the new one");

    // A Secret that cannot be used takes nothing away: a replica that meets it after the change serves what it served.
    let damaged = Patch::Merge(json!({"data": {"tls.key": "AAAA"}}));
    secrets(&stage.client()).patch(SECRET, &PatchParams::default(), &damaged).await?;
    new.issue(2042).await?;
    changed(&new.client, &replicas[0], 2042).await?;
    stage.admit().await?;
    stage.namespace.finish()
}

/// Waits until a replica serves a certificate that ends with this year, and says so.
async fn changed(client: &Client, replica: &Replica, year: i32) -> Result<()> {
    let end = jiff::civil::date(i16::try_from(year)?, 1, 1)
        .to_zoned(jiff::tz::TimeZone::UTC)?
        .timestamp()
        .as_second();
    until(async || {
        let metric = "mailroute_certificate_expiry_timestamp_seconds{certificate=\"leaf\"}";
        let presented = presented_until(client, replica.webhook).await?;
        ensure!(presented == end, "it presents a certificate until {presented}");
        let told = replica.metric(metric).await?;
        ensure!(told == Some(end as f64), "it tells of a certificate until {told:?}");
        Ok(())
    })
    .await
}

/// The names that the chart asks cert-manager for.
async fn asked_for(stage: &Stage) -> Result<Vec<String>> {
    let path = "jsonpath={.spec.dnsNames[*]}";
    let namespace = release::NAMESPACE;
    let names = stage
        .cluster
        .kubectl(&[
            "get",
            "certificates.cert-manager.io",
            release::NAME,
            "--namespace",
            namespace,
            "-o",
            path,
        ])
        .await?;
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

async fn live(stage: &Stage) -> Result<Anchors> {
    let configuration = stage.configurations().get(release::NAME).await?;
    Ok(Anchors::from_pem(&trust::live_pem(&configuration).context("the entry is there")?))
}

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), release::NAMESPACE)
}

/// cert-manager, or a person with openssl: an authority, and what is written with it.
struct Issuing {
    client: Client,
    key: KeyPair,
    params: CertificateParams,
    certificate: String,
}

impl Issuing {
    fn new(client: Client) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { client, key, params, certificate })
    }

    fn authority(&self) -> Anchors {
        Anchors::from_pem(&self.certificate)
    }

    /// Writes a new certificate, until that year, into the Secret: its type and three keys, all at once.
    async fn issue(&self, until: i32) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key))?;
        let written = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET},
            "type": "kubernetes.io/tls",
            "stringData": {
                "tls.crt": certificate.pem(),
                "tls.key": key.serialize_pem(),
                "ca.crt": self.certificate,
            },
        });
        let params = PatchParams::apply("cert-manager-certificates-issuing").force();
        secrets(&self.client).patch(SECRET, &params, &Patch::Apply(written)).await?;
        Ok(())
    }

    /// Writes the bundle as cert-manager's CA injector does.
    async fn inject(&self) -> Result<()> {
        let configurations: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let configuration = configurations.get(release::NAME).await?;
        let document = trust::apply_document(&configuration, &self.certificate);
        let params = PatchParams::apply("cert-manager-cainjector").force();
        configurations.patch(release::NAME, &params, &Patch::Apply(document)).await?;
        Ok(())
    }
}

/// As much of cert-manager's resources as a chart needs to be installed.
fn definitions() -> String {
    let [certificate, issuer] = ["Certificate", "Issuer"].map(|kind| {
        let singular = kind.to_lowercase();
        let names = json!({"kind": kind, "plural": format!("{singular}s"), "singular": singular});
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let version =
            json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{singular}s.cert-manager.io")},
            "spec": {"group": "cert-manager.io", "names": names, "scope": "Namespaced", "versions": [version]},
        })
    });
    format!("{certificate}\n---\n{issuer}\n")
}
