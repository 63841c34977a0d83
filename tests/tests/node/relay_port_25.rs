//! The two methods without a log-in: SMTP relay by a certificate of a Secret, and Direct Send.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::scene::{Scene, condition_of, sidecar, workload};
use k8s_openapi::api::core::v1::{Pod, Secret};
use mailroute_m365::Message;
use mailroute_m365::dns::zone::Kind;
use mailroute_m365::relay::attribution::By;
use serde_json::json;

/// Name of the Secret with the certificate.
const SECRET: &str = "relay-tls";

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn send(scene: &Scene, number: u32, recipient: &str) -> Result<String> {
    scene.run("shop", &workload::send_numbers(number..number + 1, recipient)).await
}

/// How long the certificate that a message came with is in force from its arrival.
fn left(message: &Message) -> Result<Duration> {
    let certificate = message.connection.certificate.as_ref().context("no certificate was presented")?;
    let seconds = certificate.expires_at - message.received_at.as_second();
    Ok(Duration::from_secs(u64::try_from(seconds)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn relay_by_certificate_warns_of_its_end_outlives_a_broken_secret_and_takes_up_the_renewed_one()
-> Result<()> {
    let scene = Scene::start("relay").await?;
    scene.microsoft.hang_up_after_each_message().await?;
    let ending = scene.microsoft.relay_certificate(SECRET, "mail.contoso.com", 5 * DAY).await?;
    scene.apply::<Secret>(&ending).await?;
    scene.route(&workload::relaying("notifications", scene.namespace.name(), SECRET)).await?;
    scene.waiting_pod("shop").await?;
    send(&scene, 0, "somebody@fabrikam.example").await?;
    scene.microsoft.wait_for_numbers(0..1).await?;
    let route = scene.route_reason("notifications", "CertificateValid", "CertificateExpiring").await?;
    let told = condition_of(&route, "CertificateValid").context("CertificateValid")?;
    ensure!(told.status == "True" && told.message.contains(SECRET), "{told:?}");
    let event = scene.route_event("notifications", "CertificateExpiring").await?;
    ensure!(event.contains(SECRET), "the Event says: {event}");

    // A Secret that cannot be used is told of, and changes nothing else.
    let mut broken = ending.clone();
    broken["stringData"]["tls.crt"] =
        json!("-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n");
    scene.apply::<Secret>(&broken).await?;
    let route = scene.route_reason("notifications", "CertificateValid", "CertificateInvalid").await?;
    let told = condition_of(&route, "CertificateValid").context("CertificateValid")?;
    ensure!(told.message.contains(SECRET), "{told:?}");
    send(&scene, 1, "somebody@fabrikam.example").await?;
    scene.microsoft.wait_for_numbers(0..2).await?;

    let renewed = scene.microsoft.relay_certificate(SECRET, "mail.contoso.com", 90 * DAY).await?;
    scene.apply::<Secret>(&renewed).await?;
    scene.route_reason("notifications", "CertificateValid", "CertificateValid").await?;
    send(&scene, 2, "somebody@fabrikam.example").await?;
    let messages = scene.microsoft.wait_for_numbers(0..3).await?;
    for message in &messages {
        let by = message.attribution.as_ref().context("whose mail it is")?;
        ensure!(by.by == By::Certificate, "attributed by {by:?}");
    }
    let (before, after) = (left(&messages[1])?, left(&messages[2])?);
    ensure!(before < 5 * DAY && after > 80 * DAY, "certificates with {before:?} and {after:?} left");
    let violations = scene.microsoft.violations().await?;
    ensure!(violations.is_empty(), "Exchange would refuse: {violations:?}");
    let pod = scene.pod_ready("shop").await?;
    ensure!(sidecar::restarts(&pod) == 0, "{} restarts", sidecar::restarts(&pod));
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_send_takes_mail_for_insiders_and_refuses_outsiders_at_rcpt() -> Result<()> {
    let scene = Scene::start("direct").await?;
    scene.route(&workload::direct("notifications", scene.namespace.name())).await?;
    scene.waiting_pod("shop").await?;
    let told = send(&scene, 0, "alice@contoso.com").await?;
    ensure!(told.contains("accepted 0"), "the application was told: {told}");
    scene.microsoft.wait_for_numbers(0..1).await?;

    let refused = scene.run("shop", TRY_OUTSIDER).await?;
    ensure!(refused.contains("RCPT 550") && refused.contains("SmtpRelay"), "told: {refused}");
    let messages = scene.microsoft.messages().await?;
    ensure!(messages.len() == 1, "{} messages", messages.len());
    let by = messages[0].attribution.as_ref().context("whose mail it is")?;
    ensure!(by.by == By::Recipient && messages[0].connection.tls_version.is_some(), "{by:?}");
    scene.route_condition("notifications", "UpstreamReachable", "True").await?;
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smart_host_is_found_by_the_mx_record_that_the_pods_name_server_has() -> Result<()> {
    let scene = Scene::start("mx").await?;
    let names = scene.microsoft.publish_names().await?;
    let mut route = workload::direct("notifications", scene.namespace.name());
    // No host; what is found has to prove its name.
    route["spec"]["endpoint"].as_object_mut().context("endpoint")?.remove("host");
    route["spec"]["endpoint"]["tls"] = json!("Required");
    scene.route(&route).await?;
    let mut spec = workload::pod_spec(workload::WAIT);
    spec.as_object_mut().context("spec")?.extend(names.as_object().cloned().context("names")?);
    scene.apply::<Pod>(&workload::pod("shop", "notifications", &spec)).await?;
    scene.pod_ready("shop").await?;

    send(&scene, 0, "alice@contoso.com").await?;
    let messages = scene.microsoft.wait_for_numbers(0..1).await?;
    let sni = messages[0].connection.sni.as_deref();
    ensure!(sni == Some("contoso-com.mail.protection.outlook.com"), "the name that was asked for: {sni:?}");
    let lookups = scene.microsoft.lookups().await?;
    let asked = lookups.iter().any(|asked| asked.kind == Kind::Mx && asked.name == "contoso.com");
    ensure!(asked, "the name server was asked {lookups:?}");
    let route = scene.route_condition("notifications", "UpstreamReachable", "True").await?;
    let endpoint = route.status.and_then(|status| status.endpoint);
    ensure!(endpoint.as_deref() == Some("MX of contoso.com:25"), "the status shows {endpoint:?}");
    ensure!(scene.microsoft.violations().await?.is_empty(), "Exchange would refuse something");
    scene.finish()
}

/// Shows the answer to RCPT for somebody outside the tenant.
const TRY_OUTSIDER: &str = r#"python3 - <<'END'
import smtplib
with smtplib.SMTP("localhost", 25, timeout=60) as s:
    s.ehlo()
    s.mail("noreply@contoso.com")
    code, text = s.rcpt("somebody@fabrikam.example")
    print("RCPT", code, text.decode())
END"#;
