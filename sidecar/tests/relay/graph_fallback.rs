//! The fallback of a Graph route: client submission of the same mailbox, for what Graph cannot carry.

use clap::Parser;
use mailroute_m365::faults::Request;
use mailroute_m365::{Face, Faults, GraphAction, GraphAnswer, GraphFaults, Options, Rule};
use mailroute_route::condition::{ConditionType, Reason};
use mailroute_sidecar::args::{Cli, Command};
use mailroute_sidecar::cli::check;
use mailroute_sidecar::cli::check::places::Place;
use mailroute_sidecar::cli::check::steps::State;

use crate::client::message;
use crate::graph::graph;
use crate::route::by_graph;
use crate::scene::{PATIENCE, Scene, surroundings};

const SENDER: &str = "noreply@contoso.com";

async fn scene() -> Scene {
    let scene = Scene::with(
        |_| {},
        |m365, route| {
            by_graph(m365, route, true);
            graph(route).max_message_bytes = 4096;
        },
    )
    .await;
    scene.well().await;
    scene
}

fn large() -> String {
    format!("{}{}\r\n", message("large"), "x\r\n".repeat(2000))
}

#[tokio::test]
async fn what_graph_cannot_carry_goes_by_client_submission() {
    let scene = scene().await;
    assert_eq!(scene.m365.exchanges().len(), 1, "no token for the fallback before it is needed");
    let mut client = scene.client().await;
    let list = message("list").replace("ann@", "list@");
    for (from, text) in [(SENDER, message("small")), (SENDER, large()), (SENDER, list), ("", message("null"))]
    {
        let reply = client.send(from, &["ann@fabrikam.com"], &text).await;
        assert_eq!(reply.code, 250, "{reply}");
    }
    let arrived = scene.m365.wait_for_messages(4, PATIENCE).await;
    let ways: Vec<_> = arrived.iter().map(|message| message.connection.face).collect();
    assert_eq!(ways, [Face::Graph, Face::Submission, Face::Submission, Face::Submission]);
    assert!(arrived.iter().all(|message| message.recipient_addresses() == ["ann@fabrikam.com"]));
    scene.assert_careful();
}

#[tokio::test]
async fn what_graph_itself_finds_too_large_goes_by_client_submission() {
    let scene = scene().await;
    let rules = vec![Rule::times(Request::SendMail, GraphAction::Answer(GraphAnswer::new(413).html()), 1)];
    scene.m365.set_faults(Faults { graph: GraphFaults { rules, ..<_>::default() }, ..<_>::default() });
    let reply = scene.client().await.send(SENDER, &["ann@fabrikam.com"], &message("edge")).await;
    assert_eq!(reply.code, 250, "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].connection.face, Face::Submission);
}

#[tokio::test]
async fn a_fallback_that_is_closed_stops_only_what_needs_it() {
    let scene = scene().await;
    scene.m365.directory(|directory| directory.tenants[0].smtp_auth_disabled = true);
    let mut client = scene.client().await;
    let reply = client.send(SENDER, &["ann@fabrikam.com"], &large()).await;
    assert!(reply.code == 451 && reply.text().starts_with("FallbackFailed"), "{reply}");
    let told = scene.told(Reason::FallbackFailed).await;
    assert!(told.message.contains("SmtpAuthDisabledTenant"), "{told:?}");
    let reply = client.send(SENDER, &["ann@fabrikam.com"], &message("small")).await;
    assert_eq!(reply.code, 250, "{reply}");
    scene
        .report(|report| {
            let holds =
                |condition| report.observations.iter().any(|met| met.condition == condition && met.holds);
            holds(ConditionType::Authenticated) && holds(ConditionType::SendersAccepted)
        })
        .await;
}

#[tokio::test]
async fn check_walks_both_ways_and_sends_nothing() {
    let (m365, _control, mut route, files) = surroundings(Options::default()).await;
    by_graph(&m365, &mut route, true);
    files.write_route(&route);
    let path = files.path("route.json");
    let walk = async || {
        let program = ["mailroute-sidecar", "check", "--route", path.to_str().unwrap()];
        let Command::Check(check) = Cli::parse_from(program).into_command() else { panic!("check") };
        check::walk(&check).await.unwrap()
    };
    let findings = walk().await;
    assert!(findings.is_well(), "{findings:#?}");
    use Place::{Connection, Greeting, LogIn, Name, Permission, Recipient, Route, Sender, Tls, Token};
    let places: Vec<_> = findings.steps.iter().map(|step| step.step).collect();
    assert_eq!(places, [Route, Token, Name, Connection, Tls, Permission]);
    let permission = findings.steps.last().unwrap();
    assert!(permission.met.contains("ErrorMimeContentInvalidBase64String"), "{permission:?}");
    let places: Vec<_> = findings.fallback.iter().map(|step| step.step).collect();
    assert_eq!(places, [Route, Token, Name, Connection, Greeting, Tls, LogIn, Sender, Recipient]);
    m365.directory(|directory| {
        directory.tenants[0].applications[0].graph_scope.clear();
        directory.tenants[0].smtp_auth_disabled = true;
    });
    let findings = walk().await;
    let failed = findings.steps.iter().chain(&findings.fallback).filter(|step| step.state == State::Failed);
    let failed: Vec<_> = failed.map(|step| (step.step, step.reason)).collect();
    let expected =
        [(Permission, Some(Reason::GraphAccessDenied)), (LogIn, Some(Reason::SmtpAuthDisabledTenant))];
    assert_eq!(failed, expected, "{findings:#?}");
    assert!(m365.messages().is_empty());
}
