//! Trouble during a run: nothing is lost, nothing is sent twice that need not be, and no restart is needed.

use std::time::Duration;

use mailroute_m365::{Faults, Line, Rule, SmtpAction, Stage, SubmissionFaults};
use mailroute_route::condition::Reason;
use mailroute_sidecar::app::Intervals;
use mailroute_sidecar::upstream::probe::ProbeSchedule;

use crate::client::message;
use crate::scene::{PATIENCE, Scene, intervals, metric};

/// Sends until it is taken, as an application with an outbox does; every refusal has to be a temporary one.
async fn insist(scene: &Scene, subject: &str) -> u32 {
    let mut client = scene.client().await;
    let started = tokio::time::Instant::now();
    for deferred in 0.. {
        let reply = client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message(subject)).await;
        if reply.code == 250 {
            return deferred;
        }
        assert_eq!(reply.code, 451, "{reply}");
        assert!(started.elapsed() < PATIENCE, "still {reply}");
        tokio::task::yield_now().await;
    }
    unreachable!("the loop ends with a return")
}

fn subjects(scene: &Scene) -> Vec<String> {
    scene.m365.messages().iter().map(|message| message.header("Subject").unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_upstream_that_is_down_is_451_and_then_recovers() {
    let scene = Scene::start().await;
    scene.well().await;
    let down = |down| {
        let submission = SubmissionFaults { down, ..<_>::default() };
        scene.m365.set_faults(Faults { submission, ..<_>::default() });
    };
    down(true);
    scene.m365.wait_until_settled().await;
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("down")).await;
    assert_eq!(reply.code, 451, "{reply}");
    assert!(reply.text().starts_with("ConnectFailed: "), "{reply}");
    scene.told(Reason::ConnectFailed).await;
    down(false);
    scene.m365.wait_until_settled().await;
    scene.well().await;
    insist(&scene, "up").await;
    assert_eq!(subjects(&scene), ["up"]);
    scene.assert_careful();
}

#[tokio::test]
async fn what_breaks_while_nobody_sends_is_told_without_mail() {
    let quick = ProbeSchedule { idle: Duration::from_millis(50), ..intervals().probe };
    let scene = Scene::run(&[], Intervals { probe: quick, ..intervals() }, |_| {}, |_, _| {}).await;
    scene.well().await;
    scene.m365.directory(|directory| directory.tenants[0].smtp_auth_disabled = true);
    assert!(!scene.told(Reason::SmtpAuthDisabledTenant).await.holds);
    assert!(scene.m365.messages().is_empty());
    scene.assert_careful();
}

#[tokio::test]
async fn tokens_that_end_during_a_run_are_renewed_and_nothing_is_lost() {
    let scene = Scene::with(|options| options.config.tokens.lifetime_seconds = 4, |_, _| {}).await;
    let mut sent = 0;
    // Until the third token, each message on a new connection and so with a log-in of its own.
    while scene.m365.exchanges().len() < 3 {
        scene.fault(Stage::EndOfData, SmtpAction::CutAfterReply, 1);
        let subject = format!("life{sent}");
        let reply =
            scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message(&subject)).await;
        assert_eq!(reply.code, 250, "{reply}");
        sent += 1;
    }
    assert_eq!(scene.m365.messages().len(), sent);
    scene.assert_careful();
}

#[tokio::test]
async fn a_token_that_exchange_refuses_is_replaced_within_the_same_message() {
    let scene = Scene::start().await;
    scene.well().await;
    scene.fault_anew(Stage::Auth, SmtpAction::Reply(Line::AuthUnsuccessful.into()), 1);
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("renewed")).await;
    assert_eq!(reply.code, 250, "{reply}");
    assert_eq!(scene.m365.exchanges().len(), 2);
    scene.assert_careful();
}

#[tokio::test]
async fn a_challenge_before_the_refusal_is_answered_as_xoauth2_wants_it() {
    let scene = Scene::with(
        |_| {},
        |m365, _| {
            let submission = SubmissionFaults { challenge_before_refusal: true, ..<_>::default() };
            m365.set_faults(Faults { submission, ..<_>::default() });
            m365.directory(|directory| directory.tenants[0].applications[0].mailboxes.clear());
        },
    )
    .await;
    scene.told(Reason::ExchangeRejectedToken).await;
    scene.assert_careful();
}

#[tokio::test]
async fn a_kept_connection_that_was_cut_goes_unnoticed() {
    let scene = Scene::start().await;
    scene.fault(Stage::EndOfData, SmtpAction::CutAfterReply, 1);
    assert_eq!(insist(&scene, "first").await, 0);
    assert_eq!(insist(&scene, "second").await, 0);
    assert_eq!(subjects(&scene), ["first", "second"]);
    scene.assert_careful();
}

#[tokio::test]
async fn a_goodbye_on_a_kept_connection_goes_unnoticed() {
    let scene = Scene::start().await;
    assert_eq!(insist(&scene, "first").await, 0);
    scene.fault(Stage::Mail, SmtpAction::Reply(Line::TimedOut.into()), 1);
    assert_eq!(insist(&scene, "second").await, 0);
    assert_eq!(subjects(&scene), ["first", "second"]);
}

#[tokio::test]
async fn a_cut_before_the_message_was_taken_is_451_and_no_loss() {
    let scene = Scene::start().await;
    scene.well().await;
    scene.fault(Stage::EndOfData, SmtpAction::Cut, 1);
    assert_eq!(insist(&scene, "cut").await, 1);
    assert_eq!(subjects(&scene), ["cut"]);
}

#[tokio::test]
async fn a_cut_after_the_message_was_taken_repeats_it_with_the_same_id() {
    let scene = Scene::start().await;
    scene.well().await;
    scene.fault(Stage::EndOfData, SmtpAction::CutBeforeReply, 1);
    assert_eq!(insist(&scene, "twice").await, 1);
    let ids: Vec<_> = scene.m365.messages().iter().map(|message| message.message_id.clone()).collect();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1], "a duplicate can be recognised");
}

#[tokio::test]
async fn temporary_replies_are_451_at_every_stage() {
    let scene = Scene::start().await;
    scene.well().await;
    let stages = [
        Stage::Connect,
        Stage::Ehlo,
        Stage::StartTls,
        Stage::Auth,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
        Stage::EndOfData,
    ];
    for stage in stages {
        // The stage may need a fresh log-in to be met.
        scene.fault(Stage::EndOfData, SmtpAction::CutAfterReply, 1);
        insist(&scene, "between").await;
        scene.fault(stage, SmtpAction::Reply(Line::TemporaryServerError.into()), 1);
        let subject = format!("{stage:?}");
        insist(&scene, &subject).await;
        let arrived = subjects(&scene);
        assert_eq!(arrived.iter().filter(|met| **met == subject).count(), 1, "{stage:?}: {arrived:?}");
    }
}

#[tokio::test]
async fn a_known_fault_is_answered_without_asking_microsoft_again() {
    let scene =
        Scene::with(|options| options.config.directory.tenants[0].smtp_auth_disabled = true, |_, _| {}).await;
    scene.told(Reason::SmtpAuthDisabledTenant).await;
    let mut client = scene.client().await;
    for n in 0..20 {
        let reply =
            client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message(&format!("no{n}"))).await;
        assert_eq!(reply.code, 451);
    }
    let fast = metric(&scene.metrics().await, "mailroute_fast_failures_total").unwrap();
    assert!(fast >= 10.0, "only {fast} of 20 were answered from memory");
}

#[tokio::test]
async fn a_limit_of_connections_is_451_with_its_reason() {
    let scene = Scene::start().await;
    scene.well().await;
    let rules = vec![Rule::always(Stage::EndOfData, SmtpAction::Reply(Line::ConcurrentConnections.into()))];
    scene
        .m365
        .set_faults(Faults { submission: SubmissionFaults { rules, ..<_>::default() }, ..<_>::default() });
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("busy")).await;
    assert_eq!((reply.code, reply.text().starts_with("ConnectionsExceeded: ")), (451, true), "{reply}");
    assert!(!scene.told(Reason::ConnectionsExceeded).await.holds);
}

#[tokio::test]
async fn a_stop_lets_an_open_session_finish_its_message() {
    let scene = Scene::start().await;
    scene.well().await;
    let mut client = scene.client().await;
    client.offer("noreply@contoso.com", &["ann@fabrikam.com"]).await;
    let Scene { m365, app, .. } = scene;
    let stop = tokio::spawn(app.stop());
    let reply = client.finish(&message("last")).await;
    assert_eq!(reply.code, 250, "{reply}");
    assert_eq!(m365.messages().len(), 1);
    drop(client);
    tokio::time::timeout(PATIENCE, stop).await.expect("the stop ends").unwrap();
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_in_time_is_451_and_its_connection_is_not_used_again() {
    let scene = Scene::run(&["--reply-timeout", "0.5"], intervals(), |_| {}, |_, _| {}).await;
    scene.well().await;
    scene.fault(Stage::EndOfData, SmtpAction::Delay(60_000), 1);
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("slow")).await;
    assert_eq!((reply.code, reply.text().starts_with("UpstreamUnavailable: ")), (451, true), "{reply}");
    insist(&scene, "next").await;
    let connections: Vec<_> = scene.m365.messages().iter().map(|message| message.connection.id).collect();
    assert_eq!(subjects(&scene).last().map(String::as_str), Some("next"), "{connections:?}");
}
