//! A working route: what arrives, once, unchanged, and what it costs.

use mailroute_m365::{SmtpAction, Stage};
use mailroute_route::condition::Reason;

use crate::client::message;
use crate::scene::{PATIENCE, Scene, http_get, metric};

#[tokio::test]
async fn a_message_arrives_once_and_unchanged_behind_a_trace_line() {
    let scene = Scene::start().await;
    let text = message("one");
    let reply = scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &text).await;
    assert_eq!(reply.code, 250, "{reply}");
    assert!(reply.text().contains("<one@contoso.com>"), "the upstream's id is passed on: {reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    let (trace, rest) = arrived[0].data.split_at(arrived[0].data.len() - text.len());
    assert_eq!(rest, text.as_bytes());
    let trace = String::from_utf8(trace.to_vec()).unwrap();
    assert!(trace.starts_with("Received: from app.example") && trace.ends_with("\r\n"), "{trace}");
    assert_eq!(arrived[0].mailbox, "noreply@contoso.com");
    assert_eq!(arrived[0].recipient_addresses(), ["ann@fabrikam.com"]);
    assert_eq!(arrived[0].token.assertion_subject, "system:serviceaccount:shop:default");
    assert_eq!(arrived[0].connection.sni.as_deref(), Some("localhost"));
    assert_eq!(arrived[0].connection.ehlo, "notifications.shop.svc.cluster.local");
    scene.assert_careful();
    scene.stop().await;
}

#[tokio::test]
async fn messages_share_one_connection_and_one_token() {
    let scene = Scene::start().await;
    let mut client = scene.client().await;
    for n in 0..5 {
        let subject = format!("shared{n}");
        assert_eq!(
            client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message(&subject)).await.code,
            250
        );
    }
    let arrived = scene.m365.wait_for_messages(5, PATIENCE).await;
    let mut connections: Vec<_> = arrived.iter().map(|message| message.connection.id).collect();
    connections.dedup();
    assert_eq!(connections.len(), 1, "{connections:?}");
    assert_eq!(scene.m365.exchanges().len(), 1, "probe and messages use the same token");
    scene.assert_careful();
}

#[tokio::test]
async fn sessions_at_once_all_get_through() {
    let scene = Scene::start().await;
    let sends = (0..12).map(|n| {
        let scene = &scene;
        async move {
            let subject = format!("parallel{n}");
            scene
                .client()
                .await
                .send("noreply@contoso.com", &["ann@fabrikam.com"], &message(&subject))
                .await
                .code
        }
    });
    assert!(futures::future::join_all(sends).await.into_iter().all(|code| code == 250));
    assert_eq!(scene.m365.messages().len(), 12);
    scene.assert_careful();
}

#[tokio::test]
async fn a_large_message_with_dots_arrives_unchanged() {
    let scene = Scene::start().await;
    let text = format!("{}{}", message("large"), ".dots at the start of lines\r\n".repeat(150_000));
    let reply = scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &text).await;
    assert_eq!(reply.code, 250, "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert!(arrived[0].data.ends_with(text.as_bytes()));
    scene.assert_careful();
}

#[tokio::test]
async fn eight_bit_and_international_addresses_are_announced() {
    let scene = Scene::start().await;
    let mut client = scene.client().await;
    let text = message("utf8").replace("Hello", "Grüße");
    assert_eq!(client.command("MAIL FROM:<noreply@contoso.com> BODY=8BITMIME SMTPUTF8").await.code, 250);
    assert_eq!(client.command("RCPT TO:<jörg@fabrikam.com>").await.code, 250);
    assert_eq!(client.command("DATA").await.code, 354);
    let reply = client.finish(&text).await;
    assert_eq!(reply.code, 250, "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert!(arrived[0].data.ends_with(text.as_bytes()));
    for parameter in ["BODY=8BITMIME", "SMTPUTF8"] {
        assert!(
            arrived[0].mail_parameters.iter().any(|met| met == parameter),
            "{:?}",
            arrived[0].mail_parameters
        );
    }
    scene.assert_careful();
}

#[tokio::test]
async fn several_recipients_are_one_message() {
    let scene = Scene::start().await;
    let to: Vec<String> = (0..150).map(|n| format!("reader{n}@fabrikam.com")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let reply = scene.client().await.send("noreply@contoso.com", &to, &message("many")).await;
    assert_eq!(reply.code, 250, "{reply}");
    assert_eq!(scene.m365.wait_for_messages(1, PATIENCE).await[0].recipient_addresses(), to);
    scene.assert_careful();
}

#[tokio::test]
async fn a_refused_recipient_stops_the_message_for_all_and_is_named() {
    let scene = Scene::start().await;
    scene.well().await;
    let refusal = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup";
    scene.fault(Stage::Rcpt, SmtpAction::Reply(refusal.to_owned().try_into().unwrap()), 1);
    let mut client = scene.client().await;
    let to = ["nobody@contoso.com", "ann@fabrikam.com"];
    let reply = client.send("noreply@contoso.com", &to, &message("mixed")).await;
    assert_eq!(reply.code, 550, "{reply}");
    assert!(
        reply.text().contains("<nobody@contoso.com>") && reply.text().contains("not sent to any recipient"),
        "{reply}"
    );
    assert_eq!(client.send("noreply@contoso.com", &to, &message("again")).await.code, 250);
    let subjects: Vec<_> =
        scene.m365.messages().iter().map(|message| message.header("Subject").unwrap().to_owned()).collect();
    assert_eq!(subjects, ["again"], "the refused one reached nobody");
    scene.assert_careful();
}

#[tokio::test]
async fn a_refused_single_recipient_leaves_the_connection_usable() {
    let scene = Scene::start().await;
    scene.well().await;
    let refusal = "550 5.4.1 [nobody@contoso.com]: Recipient address rejected: Access denied";
    scene.fault(Stage::Rcpt, SmtpAction::Reply(refusal.to_owned().try_into().unwrap()), 1);
    let mut client = scene.client().await;
    let reply = client.send("noreply@contoso.com", &["nobody@contoso.com"], &message("refused")).await;
    assert_eq!((reply.code, reply.text().contains("Recipient address rejected")), (550, true), "{reply}");
    assert_eq!(client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("fine")).await.code, 250);
    assert_eq!(scene.m365.messages().len(), 1);
    scene.assert_careful();
}

#[tokio::test]
async fn a_sender_without_permission_gets_the_upstreams_refusal() {
    let scene = Scene::start().await;
    let text = message("boss").replace("From: <noreply@contoso.com>", "From: <ceo@contoso.com>");
    let reply = scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &text).await;
    assert_eq!(reply.code, 554, "{reply}");
    assert!(reply.text().contains("SendAsDenied"), "{reply}");
    let told = scene.told(Reason::SendAsDenied).await;
    assert!(!told.holds && told.message.contains("554 5.2.252"), "{told:?}");
}

#[tokio::test]
async fn numbers_tell_of_a_delivery() {
    let scene = Scene::start().await;
    scene.well().await;
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("counted")).await;
    assert_eq!(reply.code, 250);
    let metrics = scene.metrics().await;
    assert_eq!(
        metric(&metrics, r#"mailroute_deliveries_total{outcome="delivered",reason="none"}"#),
        Some(1.0),
        "{metrics}"
    );
    assert_eq!(metric(&metrics, r#"mailroute_messages_total{result="accepted"}"#), Some(1.0));
    assert_eq!(metric(&metrics, "mailroute_config_generation_number"), Some(1.0));
    assert!(metric(&metrics, "mailroute_token_expiry_timestamp_seconds").unwrap() > 1.7e9);
    let report = scene.report(|report| report.usage.messages_last_minute == 1).await;
    assert_eq!((report.usage.recipients_last_24h, report.generation), (1, 1));
    assert!(http_get(scene.app.admin_address(), "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(scene.app.admin_address(), "/readyz").await.starts_with("HTTP/1.1 200"));
}
