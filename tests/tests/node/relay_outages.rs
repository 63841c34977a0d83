//! Trouble while mail flows: nothing that got 250 is lost, nothing is sent twice, and no pod has to be restarted.

use anyhow::{Result, ensure};
use e2e::replica::until;
use e2e::scene::{Scene, workload};
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;

/// Sends a numbered message every half second until `/tmp`-less loop number `count` is reached, printing the reply.
fn paced_sender(count: u32) -> String {
    format!(
        r#"python3 - <<'END'
import smtplib, time
sent = 0
for n in range({count}):
    m = f"From: noreply@contoso.com\r\nTo: ada@contoso.com\r\nSubject: {{n}}\r\nMessage-ID: <{{n}}@run.contoso.com>\r\n\r\nmail\r\n"
    while True:
        try:
            with smtplib.SMTP("localhost", 25, timeout=120) as s:
                s.sendmail("noreply@contoso.com", ["ada@contoso.com"], m)
            break
        except smtplib.SMTPResponseException as e:
            print("again", n, e.smtp_code, e.smtp_error.decode(), flush=True)
            if e.smtp_code >= 500: raise
        except smtplib.SMTPRecipientsRefused as e:
            print("again", n, e, flush=True)
        time.sleep(1)
    print("accepted", n, flush=True)
    time.sleep(0.5)
END
exec sleep infinity"#
    )
}

/// The numbers in the subjects of what arrived, in order of arrival.
async fn arrived(scene: &Scene) -> Result<Vec<u32>> {
    let messages = scene.microsoft.messages().await?;
    Ok(messages.iter().filter_map(|m| m.header("Subject").and_then(|s| s.parse().ok())).collect())
}

/// How often any container of a pod was started again.
fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.iter();
    let all = status.flat_map(|s| [&s.init_container_statuses, &s.container_statuses]).flatten().flatten();
    all.map(|container| container.restart_count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_expire_during_a_run_are_refreshed_and_no_message_is_lost() -> Result<()> {
    let scene = Scene::start("expiry").await?;
    // Shorter than the run, several times over; and every message needs a new connection, and so a log-in.
    scene.microsoft.token_lifetime(Duration::from_secs(6)).await?;
    scene.microsoft.hang_up_after_each_message().await?;
    scene.route(&workload::delivering("notifications", scene.namespace.name())).await?;
    scene
        .apply::<Pod>(&workload::pod("shop", "notifications", &workload::pod_spec(&paced_sender(30))))
        .await?;
    scene.microsoft.wait_for_messages(30).await?;
    let numbers = arrived(&scene).await?;
    ensure!(numbers == (0..30).collect::<Vec<_>>(), "arrived: {numbers:?}");
    ensure!(scene.microsoft.tokens_issued().await? >= 3, "the token was refreshed");
    let violations = scene.microsoft.violations().await?;
    ensure!(violations.is_empty(), "Exchange would refuse: {violations:?}");
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_microsoft_is_down_clients_get_451_and_mail_flows_again_without_a_restart() -> Result<()> {
    let scene = Scene::start("down").await?;
    scene.route(&workload::delivering("notifications", scene.namespace.name())).await?;
    scene.microsoft.go_down().await?;
    scene
        .apply::<Pod>(&workload::pod("shop", "notifications", &workload::pod_spec(&paced_sender(3))))
        .await?;
    scene.log_shows("shop", "app", "again 0 451").await?;
    scene.route_condition("notifications", "UpstreamReachable", "False").await?;
    scene.route_condition("notifications", "Ready", "False").await?;

    scene.microsoft.come_back().await?;
    scene.microsoft.wait_for_messages(3).await?;
    ensure!(arrived(&scene).await? == [0, 1, 2], "each message arrived once");
    scene.route_condition("notifications", "Ready", "True").await?;

    let pod = scene.pod_ready("shop").await?;
    ensure!(restarts(&pod) == 0, "{} restarts", restarts(&pod));
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_microsoft_says_nothing_at_all_the_kubelet_finds_the_sidecar_alive() -> Result<()> {
    let scene = Scene::start("silent").await?;
    scene.route(&workload::route("notifications", scene.namespace.name())).await?;
    scene.microsoft.fall_silent().await?;
    let script = format!("{}\n{}", workload::send_numbers(0..2, "ada@contoso.com"), workload::WAIT);
    scene.apply::<Pod>(&workload::pod("shop", "notifications", &workload::pod_spec(&script))).await?;
    scene.log_shows("shop", "app", "queued as").await?;
    let before = scene.liveness_probes("shop").await?;
    let probed = async || {
        let probes = scene.liveness_probes("shop").await?;
        ensure!(probes.passed >= before.passed + 2, "{probes:?} after {before:?}");
        Ok(probes)
    };
    until(async || probed().await.map(drop)).await?;
    let probes = probed().await?;
    ensure!(probes.failed == 0, "{probes:?}");
    let log = scene.log("shop", "mailroute").await?;
    ensure!(!log.contains("did not accept the report"), "the operator was asked too often: {log}");

    let pod = scene.pod_ready("shop").await?;
    ensure!(restarts(&pod) == 0, "{} restarts", restarts(&pod));
    scene.microsoft.come_back().await?;
    scene.microsoft.wait_for_numbers(0..2).await?;
    scene.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_at_the_port_neither_crashes_the_sidecar_nor_stops_the_mail() -> Result<()> {
    let scene = Scene::start("garbage").await?;
    scene.route(&workload::delivering("notifications", scene.namespace.name())).await?;
    let throw = r#"python3 - <<'END'
import os, socket
held = []
for n in range(200):
    s = socket.create_connection(("localhost", 25), timeout=30)
    kind = n % 4
    try:
        if kind == 0: s.sendall(os.urandom(4096))
        elif kind == 1: s.sendall(b"X" * 100000)
        elif kind == 2: s.sendall(b"EHLO x\r\nMAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<ada@contoso.com>\r\nDATA\r\nhalf a mess")
        else: held.append(s); continue
        s.close()
    except OSError: pass
print("threw", n + 1)
END
"#;
    let script = format!("{throw}\n{}", workload::send_with_smtplib("after the garbage"));
    let job = workload::job("send", "notifications", &workload::pod_spec(&script));
    scene.apply::<k8s_openapi::api::batch::v1::Job>(&job).await?;
    scene.job_completes("send").await?;
    let messages = scene.microsoft.messages().await?;
    ensure!(
        messages.len() == 1 && messages[0].header("Subject") == Some("after the garbage"),
        "{}",
        messages.len()
    );
    let pod = scene.pod_labelled("batch.kubernetes.io/job-name=send").await?;
    ensure!(restarts(&pod) == 0, "{} restarts", restarts(&pod));
    scene.finish()
}
