//! Real SMTP programs in the application's place, in every kind of pod: each message arrives once and byte for byte.

use anyhow::{Result, ensure};
use e2e::scene::{Scene, workload};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::json;

/// A message with the awkward parts: lines that start with dots, UTF-8, an empty line at the end, a folded header.
const MESSAGE: &str = "From: Shop <noreply@contoso.com>\n\
    To: Ada <ada@contoso.com>\n\
    Subject: Order 4711\n\
    Message-ID: <4711.{client}@shop.contoso.com>\n\
    Date: Sun, 22 Nov 2026 09:00:00 +0000\n\
    X-Folded: first\n\
    \tsecond\n\
    MIME-Version: 1.0\n\
    Content-Type: text/plain; charset=utf-8\n\
    Content-Transfer-Encoding: 8bit\n\
    \n\
    .\n\
    ..\n\
    .leading dot\n\
    Grüße aus Köln\n\
    \n\
    -- \n\
    last line\n";

/// Sets the scene with a route and the message in a ConfigMap that pods mount at `/mail`.
async fn scene_with_mail(client: &str) -> Result<(Scene, String)> {
    let scene = Scene::start(client).await?;
    scene.route(&workload::route("notifications", scene.namespace.name())).await?;
    let message = MESSAGE.replace("{client}", client);
    let mail = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mail"}, "data": {"message.eml": message},
    });
    scene.apply::<ConfigMap>(&mail).await?;
    Ok((scene, message.replace('\n', "\r\n")))
}

/// Waits for the message, and checks that it is the only one and came through unchanged below one `Received` field.
async fn arrives_once_unchanged(scene: &Scene, sent: &str) -> Result<()> {
    scene.microsoft.wait_for_messages(1).await?;
    let messages = scene.microsoft.messages().await?;
    ensure!(messages.len() == 1, "{} messages arrived", messages.len());
    let message = &messages[0];
    ensure!(message.mail_from == "noreply@contoso.com", "MAIL FROM {}", message.mail_from);
    ensure!(message.recipient_addresses() == ["ada@contoso.com"], "RCPT TO {:?}", message.recipients);
    ensure!(message.mailbox == "noreply@contoso.com", "mailbox {}", message.mailbox);
    let data = std::str::from_utf8(&message.data)?;
    let (trace, rest) = split_trace(data)?;
    ensure!(trace.contains("by ") && trace.ends_with("\r\n"), "trace header: {trace:?}");
    ensure!(rest == sent, "sent {sent:?}\narrived {rest:?}");
    let subject = format!("system:serviceaccount:{}:default", scene.namespace.name());
    ensure!(message.token.assertion_subject == subject, "token of {}", message.token.assertion_subject);
    let violations = scene.microsoft.violations().await?;
    ensure!(violations.is_empty(), "Exchange would refuse: {violations:?}");
    Ok(())
}

/// Splits the first header field, which must be `Received`, from the rest.
fn split_trace(data: &str) -> Result<(&str, &str)> {
    ensure!(data.starts_with("Received: "), "no trace header on {data:?}");
    let mut end = data.find("\r\n").map_or(data.len(), |at| at + 2);
    while data[end..].starts_with([' ', '\t']) {
        end += data[end..].find("\r\n").map_or(data.len() - end, |at| at + 2);
    }
    Ok(data.split_at(end))
}

#[tokio::test(flavor = "multi_thread")]
async fn python_smtplib_in_a_deployment_is_relayed_unchanged() -> Result<()> {
    let (scene, sent) = scene_with_mail("smtplib").await?;
    let script = r#"python3 -c '
import smtplib
with smtplib.SMTP("localhost", 25, timeout=120) as s:
    message = open("/mail/message.eml", "rb").read().replace(b"\n", b"\r\n")
    s.sendmail("noreply@contoso.com", ["ada@contoso.com"], message)
'
exec sleep infinity"#;
    let manifest = workload::deployment("shop", "notifications", &workload::pod_spec(script));
    scene.apply::<Deployment>(&manifest).await?;
    arrives_once_unchanged(&scene, &sent).await?;
    scene.route_condition("notifications", "Authenticated", "True").await?;
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn msmtp_in_a_bare_pod_is_relayed_unchanged() -> Result<()> {
    let (scene, sent) = scene_with_mail("msmtp").await?;
    let script =
        "msmtp --host=localhost --port=25 --from=noreply@contoso.com ada@contoso.com < /mail/message.eml";
    let pod = workload::pod("shop", "notifications", &workload::pod_spec(script));
    scene.apply::<Pod>(&pod).await?;
    arrives_once_unchanged(&scene, &sent).await?;
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn swaks_in_a_job_is_relayed_unchanged_and_the_job_completes() -> Result<()> {
    let (scene, sent) = scene_with_mail("swaks").await?;
    let script = "swaks --server localhost --from noreply@contoso.com --to ada@contoso.com \
        --suppress-data --no-data-fixup --data @/tmp/crlf.eml";
    let script = format!(
        "sed 's/$/\\r/; s/^\\./../' /mail/message.eml > /tmp/crlf.eml; printf '.\\r\\n' >> /tmp/crlf.eml; {script}"
    );
    let job = workload::job("send", "notifications", &with_tmp(workload::pod_spec(&script)));
    scene.apply::<Job>(&job).await?;
    arrives_once_unchanged(&scene, &sent).await?;
    scene.job_completes("send").await?;
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_in_a_user_init_container_can_send() -> Result<()> {
    let (scene, sent) = scene_with_mail("curl").await?;
    let script = "curl --silent --show-error --crlf --url smtp://localhost:25 --mail-from noreply@contoso.com \
        --mail-rcpt ada@contoso.com --upload-file /mail/message.eml";
    let mut spec = workload::pod_spec("echo main container runs after the init container");
    spec["initContainers"] = json!([workload::container("announce", script)]);
    let job = workload::job("send", "notifications", &spec);
    scene.apply::<Job>(&job).await?;
    arrives_once_unchanged(&scene, &sent).await?;
    scene.job_completes("send").await?;
    scene.finish()
}

/// Adds a writable `/tmp`, as the client needs a scratch file.
fn with_tmp(mut spec: serde_json::Value) -> serde_json::Value {
    spec["volumes"].as_array_mut().expect("volumes").push(json!({"name": "tmp", "emptyDir": {}}));
    let mounts = spec["containers"][0]["volumeMounts"].as_array_mut().expect("mounts");
    mounts.push(json!({"name": "tmp", "mountPath": "/tmp"}));
    spec
}
