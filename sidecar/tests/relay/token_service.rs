//! What the token endpoint does on its bad days: it is waited for as it asks, and no more is asked than need be.

use jiff::Timestamp;
use mailroute_m365::directory::{EXCHANGE_AUDIENCE, SAMPLE_SUBJECT};
use mailroute_m365::stand_in::ISSUER;
use mailroute_m365::{Faults, LoginAction, LoginFaults, Rule, SmtpAction, Stage, Token, write_atomically};
use mailroute_route::condition::Reason;

use crate::client::message;
use crate::scene::Scene;

fn login(rules: Vec<Rule<Token, LoginAction>>) -> Faults {
    Faults { login: LoginFaults { rules, ..<_>::default() }, ..<_>::default() }
}

/// A scene whose token endpoint does this so often before it does its work.
async fn scene(action: LoginAction, times: u32) -> Scene {
    Scene::with(|_| {}, |m365, _| m365.set_faults(login(vec![Rule::times(Token::Token, action, times)])))
        .await
}

async fn sends(scene: &Scene, subject: &str) {
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message(subject)).await;
    assert_eq!(reply.code, 250, "{reply}");
}

#[tokio::test]
async fn throttling_in_plain_text_is_obeyed_to_the_second() {
    let scene = scene(LoginAction::TooManyRequests(2), 1).await;
    let told = scene.told(Reason::TokenServiceThrottled).await;
    assert!(told.message.contains("HTTP 429"), "{told:?}");
    scene.well().await;
    let exchanges = scene.m365.exchanges();
    assert_eq!(exchanges.len(), 2, "nobody asked in between: {exchanges:#?}");
    // The simulator notes when it was asked, the wait begins with its answer.
    assert!(exchanges[1].at.duration_since(exchanges[0].at).as_millis() >= 2_000, "{exchanges:#?}");
    scene.assert_careful();
}

#[tokio::test]
async fn a_page_of_html_is_an_outage_that_ends() {
    let scene = scene(LoginAction::BadGateway, 2).await;
    let told = scene.told(Reason::TokenServiceUnavailable).await;
    assert!(told.message.contains("HTTP 502 with something that is not JSON"), "{told:?}");
    scene.well().await;
    sends(&scene, "html").await;
    scene.assert_careful();
}

#[tokio::test]
async fn a_cut_and_an_unavailable_service_are_waited_for() {
    for action in [LoginAction::Cut, LoginAction::ServiceUnavailable(None), LoginAction::Aadsts(90_033)] {
        let scene = scene(action, 1).await;
        scene.told(Reason::TokenServiceUnavailable).await;
        scene.well().await;
    }
}

#[tokio::test]
async fn a_federated_credential_that_is_still_spreading_comes_and_goes() {
    let comes_and_goes = Rule { every: Some(2), ..Rule::always(Token::Token, LoginAction::Aadsts(700_213)) };
    let scene = Scene::with(|_| {}, |m365, _| m365.set_faults(login(vec![comes_and_goes]))).await;
    let told = scene.told(Reason::WaitingForPropagation).await;
    assert!(told.message.contains(SAMPLE_SUBJECT), "{told:?}");
    scene.well().await;
    // The next exchange fails again, which is made up for by the one after it.
    scene.fault_anew(Stage::Auth, SmtpAction::Reply(mailroute_m365::Line::AuthUnsuccessful.into()), 1);
    sends(&scene, "spreading").await;
    scene.assert_careful();
}

#[tokio::test]
async fn clocks_that_differ_are_told_with_both_times() {
    let mut start = 0;
    let scene = Scene::with(
        |_| {},
        |m365, route| {
            start = Timestamp::now().as_second() + 7200;
            let early =
                m365.stand_in(|issuer| issuer.token(ISSUER, SAMPLE_SUBJECT, EXCHANGE_AUDIENCE, start, 3600));
            let ca = crate::scene::submission(route).authority.ca_file.clone().unwrap();
            write_atomically(&ca.with_file_name("entra"), &early).unwrap();
        },
    )
    .await;
    let told = scene.told(Reason::AssertionRejected).await;
    let end = Timestamp::from_second(start + 3600).unwrap().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    assert!(told.message.contains("AADSTS700024"), "{told:?}");
    assert!(told.message.contains(&format!("end {end}")), "ours: {told:?}");
    assert!(told.message.contains("Current time: 20"), "theirs: {told:?}");
    scene.m365.write_assertion(SAMPLE_SUBJECT, &scene.files.path("entra")).unwrap();
    scene.well().await;
}

#[tokio::test]
async fn a_token_in_use_outlives_an_outage_of_the_token_service() {
    let scene = Scene::start().await;
    scene.well().await;
    let exchanges = scene.m365.exchanges().len();
    let cut = Rule::times(Stage::EndOfData, SmtpAction::CutAfterReply, 3);
    scene.m365.set_faults(Faults {
        submission: mailroute_m365::SubmissionFaults { rules: vec![cut], ..<_>::default() },
        ..login(vec![Rule::always(Token::Token, LoginAction::BadGateway)])
    });
    // Each message on a new connection, and so with a log-in of its own. What comes of a renewal that fails is the store's to say.
    for n in 0..3 {
        sends(&scene, &format!("outlived{n}")).await;
    }
    assert_eq!(scene.m365.exchanges().len(), exchanges, "the token is good, so nobody asks for another");
    assert!(scene.told(Reason::TokenAcquired).await.holds, "mail flows");
}
