//! `kubectl mailroute` against a real API server: what it shows, what it says when a right is missing, and whether the
//! installation is found to be well.

use anyhow::{Context, Result, ensure};
use e2e::plugin::{Ran, plugin};
use e2e::replica::stage::Stage;
use e2e::replica::until;
use e2e::scene::PATIENCE;
use e2e::wait_for;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use mailroute_operator::pki::Lifetimes;
use serde_json::{Value, json};

/// A cluster without names to look up.
const FLAGS: [&str; 2] = ["--dns-preflight", "false"];

async fn stage() -> Result<Stage> {
    let mut stage = Stage::set(&[], &FLAGS, Lifetimes::default()).await?;
    stage.serve(None).await?;
    Ok(stage)
}

async fn run(stage: &Stage, words: &[&str]) -> Ran {
    plugin(stage.cluster.kubeconfig(), stage.namespace.name(), words).await
}

/// A kubeconfig with a token of an account that nobody has given anything.
async fn of_anybody(stage: &Stage) -> Result<tempfile::NamedTempFile> {
    let accounts: Api<ServiceAccount> = Api::namespaced(stage.client(), stage.namespace.name());
    wait_for(accounts.clone(), "default", |_| true, PATIENCE).await?;
    let request = TokenRequest { spec: TokenRequestSpec::default(), ..TokenRequest::default() };
    let token = accounts.create_token_request("default", &PostParams::default(), &request).await?;
    let token = token.status.context("a token")?.token;
    let mut file = serde_json::to_value(Kubeconfig::read_from(stage.cluster.kubeconfig())?)?;
    for user in file["users"].as_array_mut().into_iter().flatten() {
        user["user"] = json!({"token": token});
    }
    let written = tempfile::NamedTempFile::new()?;
    std::fs::write(written.path(), file.to_string())?;
    Ok(written)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_shows_routes_and_names_the_right_that_is_missing() -> Result<()> {
    let stage = stage().await?;
    until(async || {
        let shown = run(&stage, &["status"]).await;
        ensure!(shown.code == 0 && shown.out.contains("NoPods"), "{shown:#?}");
        Ok(())
    })
    .await?;
    let json = run(&stage, &["status", "notifications", "-o", "json"]).await.json(0)?;
    ensure!(json["name"] == "notifications" && json["budget"]["recipientsPerDay"] == 10_000, "{json:#}");
    ensure!(json["conditions"].as_array().is_some_and(|all| !all.is_empty()), "{json:#}");
    let missing = run(&stage, &["status", "invoices"]).await;
    ensure!(missing.code == 2 && missing.err.contains("there is no MailRoute invoices"), "{missing:#?}");
    let untold = run(&stage, &["trace", "<1@contoso.com>", "--route", "invoices"]).await;
    ensure!(untold.code == 2 && untold.err.contains("there is no MailRoute invoices"), "{untold:#?}");
    let none = run(&stage, &["queue", "list", "notifications"]).await;
    ensure!(none.code == 2 && none.err.contains("has no running pod"), "{none:#?}");

    let (anybody, namespace) = (of_anybody(&stage).await?, stage.namespace.name());
    let denied = plugin(anybody.path(), namespace, &["status"]).await;
    let right = format!("kubectl auth can-i list mailroutes.mailroute.dev --namespace {namespace}");
    ensure!(denied.code == 2 && denied.err.contains(&right), "{denied:#?}");
    let denied = plugin(anybody.path(), namespace, &["queue", "list", "notifications"]).await;
    ensure!(
        denied.err.contains(&format!("kubectl auth can-i list pods --namespace {namespace}")),
        "{denied:#?}"
    );
    let unseen = plugin(anybody.path(), namespace, &["doctor", "-o", "json"]).await.json(2)?;
    ensure!(state(&unseen, "operator") == ["NotSeen"], "{unseen:#}");
    stage.namespace.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_plugin_examines_the_installation_and_finds_what_is_missing() -> Result<()> {
    let stage = stage().await?;
    // On this tier no Deployment runs: the replica is a part of the test.
    until(async || {
        let json = run(&stage, &["doctor", "-o", "json"]).await.json(1)?;
        for part in
            ["kubernetes", "definitions", "leader", "webhook", "certificate", "policy", "injection", "routes"]
        {
            ensure!(state(&json, part).iter().all(|state| state == "Ok"), "{part}: {json:#}");
            ensure!(!state(&json, part).is_empty(), "{part}: {json:#}");
        }
        ensure!(state(&json, "operator") == ["Problem"], "{json:#}");
        Ok(())
    })
    .await?;
    let webhook = ["delete", "mutatingwebhookconfiguration", "mailroute"];
    stage.cluster.kubectl(&webhook).await?;
    let shown = run(&stage, &["doctor"]).await;
    ensure!(shown.code == 1 && shown.out.contains("WebhookEntryMissing"), "{shown:#?}");
    until(async || {
        // The policy refuses what the webhook did not see, as soon as API servers have forgotten the webhook.
        let json = run(&stage, &["doctor", "-o", "json"]).await.json(1)?;
        ensure!(state(&json, "injection") == ["Problem"], "{json:#}");
        Ok(())
    })
    .await?;
    stage.namespace.finish()
}

/// The states of a part.
fn state(json: &Value, part: &str) -> Vec<String> {
    let findings = json["findings"].as_array().into_iter().flatten();
    let of = findings.filter(|it| it["part"] == part).filter_map(|it| it["state"].as_str());
    of.map(str::to_owned).collect()
}
