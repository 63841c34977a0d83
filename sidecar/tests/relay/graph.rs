//! Microsoft Graph: what it takes, what it answers, and what the application and the operator are told.

use mailroute_m365::faults::Request;
use mailroute_m365::{Face, Faults, GraphAction, GraphAnswer, GraphFaults, Rule, Simulator};
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::file::{DeliveryMode, Graph, Method};
use mailroute_sidecar::smtp::reply::Reply;

use crate::client::message;
use crate::route::by_graph;
use crate::scene::{PATIENCE, Scene, metric};

const SENDER: &str = "noreply@contoso.com";

pub fn graph(route: &mut RouteFile) -> &mut Graph {
    let Method::Graph(graph) = &mut route.method else { panic!("the scene's route is Graph") };
    graph
}

/// A route by Graph that works.
async fn scene(mode: DeliveryMode) -> Scene {
    let scene = Scene::with(
        |_| {},
        |m365, route| {
            by_graph(m365, route, false);
            route.delivery.mode = mode;
        },
    )
    .await;
    scene.well().await;
    scene
}

/// From now on Graph does this, so many times.
fn fault(scene: &Scene, action: GraphAction, times: u32) {
    let rules = vec![Rule::times(Request::SendMail, action, times)];
    scene.m365.set_faults(Faults { graph: GraphFaults { rules, ..<_>::default() }, ..<_>::default() });
}

async fn send(scene: &Scene, subject: &str) -> Reply {
    scene.client().await.send(SENDER, &["ann@fabrikam.com"], &message(subject)).await
}

/// How many requests were accepted.
fn accepted(m365: &Simulator) -> usize {
    m365.requests().iter().filter(|request| request.status == 202).count()
}

#[tokio::test]
async fn a_message_goes_to_its_envelope_and_the_applications_bcc_to_nobody() {
    let scene = scene(DeliveryMode::Deliver).await;
    let text = message("order")
        .replace("Subject:", "Cc: Bob <BOB@fabrikam.com>\r\nBcc: secret@fabrikam.com\r\nSubject:");
    let to = ["ann@fabrikam.com", "bob@fabrikam.com", "hidden@fabrikam.com"];
    let reply = scene.client().await.send(SENDER, &to, &text).await;
    assert_eq!(reply.code, 250, "{reply}");
    assert!(reply.text().starts_with("Microsoft Graph answered 202"), "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    let mut recipients: Vec<_> =
        arrived[0].recipient_addresses().iter().map(|to| to.to_lowercase()).collect();
    recipients.sort();
    assert_eq!(recipients, to);
    assert_eq!((arrived[0].connection.face, arrived[0].mailbox.as_str()), (Face::Graph, SENDER));
    assert_eq!(arrived[0].header("Message-ID"), Some("<order@contoso.com>"));
    let data = String::from_utf8_lossy(&arrived[0].data).into_owned();
    assert!(!data.contains("secret@") && !data.contains("hidden@"), "{data}");
    assert!(data.ends_with("Hello,\r\n.leading dot\r\n..\r\n\r\nend\r\n"), "{data}");
    scene.assert_careful();
}

#[tokio::test]
async fn one_connection_takes_one_message_after_the_other() {
    let scene = scene(DeliveryMode::Deliver).await;
    let mut client = scene.client().await;
    for subject in ["one", "two", "three", "four"] {
        let reply = client.send(SENDER, &["ann@fabrikam.com"], &message(subject)).await;
        assert_eq!(reply.code, 250, "{reply}");
    }
    let requests = scene.m365.requests();
    assert_eq!(requests.len(), 5, "a probe and four messages: {requests:#?}");
    assert!(requests.iter().all(|request| request.connection == requests[0].connection), "{requests:#?}");
    assert!(requests.iter().all(|request| !request.chunked), "the length is known: {requests:#?}");
    let line = "mailroute_upstream_connections_total{protection=\"TLSv1.3\"}";
    assert_eq!(metric(&scene.metrics().await, line), Some(1.0));
    scene.assert_careful();
}

#[tokio::test]
async fn recipients_of_the_header_outside_the_envelope_are_refused_in_every_mode() {
    for mode in [DeliveryMode::Deliver, DeliveryMode::DeliverOrQueue, DeliveryMode::Queue] {
        let scene = scene(mode).await;
        let reply = scene.client().await.send(SENDER, &["bob@fabrikam.com"], &message("list")).await;
        assert_eq!(reply.code, 550, "{mode:?}: {reply}");
        let text = reply.text();
        assert!(text.contains("ann@fabrikam.com") && text.contains("spec.graph.fallback"), "{reply}");
        assert_eq!(accepted(&scene.m365), 0);
        scene.assert_careful();
    }
}

#[tokio::test]
async fn the_size_is_announced_and_refused_at_mail_and_the_null_sender_too() {
    let scene = Scene::with(
        |_| {},
        |m365, route| {
            by_graph(m365, route, false);
            graph(route).max_message_bytes = 4096;
        },
    )
    .await;
    scene.well().await;
    let mut client = scene.client().await;
    let ehlo = client.command("EHLO app.example").await;
    assert!(ehlo.lines.iter().any(|line| line == "SIZE 4096"), "{ehlo}");
    assert!(!ehlo.lines.iter().any(|line| line.starts_with("DSN")), "{ehlo}");
    assert_eq!(client.command(&format!("MAIL FROM:<{SENDER}> SIZE=4097")).await.code, 552);
    let null = client.command("MAIL FROM:<>").await;
    assert!(null.code == 550 && null.text().contains("graph.fallback"), "{null}");
    // As much as is announced, and too much with the header lines that are added.
    let large = message("large");
    let large = format!("{large}{}", "x\r\n".repeat((4096 - large.len()) / 3));
    let reply = client.send(SENDER, &["ann@fabrikam.com"], &large).await;
    assert_eq!((reply.code, reply.text().contains("Microsoft Graph takes 4096")), (552, true), "{reply}");
    assert_eq!(accepted(&scene.m365), 0);
}

#[tokio::test]
async fn only_202_is_delivered() {
    let scene = scene(DeliveryMode::Deliver).await;
    fault(&scene, GraphAction::Answer(GraphAnswer::new(200)), 1);
    let reply = send(&scene, "silent").await;
    assert!(reply.code == 552 && reply.text().starts_with("Microsoft Graph answered 200"), "{reply}");
    assert_eq!(send(&scene, "taken").await.code, 250);
    scene.told(Reason::MailAccepted).await;
}

#[tokio::test]
async fn a_202_with_retry_after_is_delivered_once_and_a_pause() {
    let scene = scene(DeliveryMode::DeliverOrQueue).await;
    fault(&scene, GraphAction::Answer(GraphAnswer::new(202).accepted().retry_after(30)), 1);
    let first = send(&scene, "first").await;
    assert!(first.text().contains("answered 202"), "{first}");
    let second = send(&scene, "second").await;
    assert!(second.code == 250 && second.text().contains("queued as"), "{second}");
    let arrived = scene.m365.wait_for_messages(2, PATIENCE).await;
    assert_eq!((arrived.len(), accepted(&scene.m365)), (2, 2));
    scene.assert_careful();
}

#[tokio::test]
async fn what_may_have_been_sent_is_sent_again_late_under_the_same_message_id_and_counted() {
    for action in [
        GraphAction::Answer(GraphAnswer::new(504).accepted()),
        GraphAction::Answer(GraphAnswer::new(500).accepted().code("ErrorInternalServerError")),
        GraphAction::Cut { accepted: true },
    ] {
        let scene = scene(DeliveryMode::DeliverOrQueue).await;
        fault(&scene, action.clone(), 1);
        let reply = send(&scene, "unknown").await;
        assert!(reply.code == 250 && reply.text().contains("queued as"), "{action:?}: {reply}");
        let arrived = scene.m365.wait_for_messages(2, PATIENCE).await;
        let ids: Vec<_> = arrived.iter().map(|message| message.header("Message-ID")).collect();
        assert_eq!(ids, [Some("<unknown@contoso.com>"); 2], "{action:?}");
        let line = "mailroute_deliveries_total{outcome=\"transient\",reason=\"GraphResultUnknown\"}";
        assert_eq!(metric(&scene.metrics().await, line), Some(1.0), "{action:?}");
    }
}

#[tokio::test]
async fn a_page_of_html_is_no_reason_to_refuse_a_message() {
    let scene = scene(DeliveryMode::Deliver).await;
    fault(&scene, GraphAction::Answer(GraphAnswer::new(503).html()), 1);
    let reply = send(&scene, "busy").await;
    assert!(reply.code == 451 && reply.text().starts_with("UpstreamUnavailable"), "{reply}");
}

#[tokio::test]
async fn a_rejected_token_is_replaced_once() {
    let scene = scene(DeliveryMode::Deliver).await;
    fault(&scene, GraphAction::Answer(GraphAnswer::new(401).code("InvalidAuthenticationToken")), 1);
    let reply = send(&scene, "again").await;
    assert_eq!(reply.code, 250, "{reply}");
    assert_eq!(scene.m365.exchanges().len(), 2);
    fault(&scene, GraphAction::Answer(GraphAnswer::new(401).code("InvalidAuthenticationToken")), 2);
    let reply = send(&scene, "never").await;
    assert!(reply.code == 451 && reply.text().starts_with("GraphRejectedToken"), "{reply}");
    assert_eq!(scene.m365.exchanges().len(), 3);
}

#[tokio::test]
async fn what_graph_throttles_waits_as_long_as_it_says() {
    for (code, reason) in
        [("ApplicationThrottled", Reason::ConnectionsExceeded), ("TooManyRequests", Reason::GraphThrottled)]
    {
        let scene = scene(DeliveryMode::DeliverOrQueue).await;
        fault(&scene, GraphAction::Answer(GraphAnswer::new(429).code(code).retry_after(20)), 1);
        let reply = send(&scene, "throttled").await;
        assert!(reply.code == 250 && reply.text().contains("queued as"), "{reply}");
        let told = scene.told(reason).await;
        assert!(told.message.contains("429") && told.message.contains("Retry-After: 20 s"), "{told:?}");
        scene.m365.wait_for_messages(1, PATIENCE).await;
    }
}

#[tokio::test]
async fn a_sender_that_is_not_allowed_is_told_in_smtp() {
    let scene = scene(DeliveryMode::Deliver).await;
    let text = message("boss").replace("From: <noreply@", "From: <boss@");
    let reply = scene.client().await.send(SENDER, &["ann@fabrikam.com"], &text).await;
    assert_eq!((reply.code, reply.enhanced.unwrap().to_string().as_str()), (550, "5.7.60"), "{reply}");
    scene.told(Reason::SendAsDenied).await;
}

/// A set-up that is wrong in one way: the reason, before any message and with one.
async fn wrong(change: impl FnOnce(&Simulator, &mut RouteFile), reason: Reason) {
    let scene = Scene::with(
        |_| {},
        |m365, route| {
            by_graph(m365, route, false);
            change(m365, route);
        },
    )
    .await;
    let told = scene.told(reason).await;
    assert!(!told.holds, "{told:?}");
    let reply = send(&scene, "wrong").await;
    assert!(reply.code == 451 && reply.text().starts_with(&format!("{reason}: ")), "{reply}");
    assert!(scene.m365.messages().is_empty());
    scene.assert_careful();
}

#[tokio::test]
async fn no_permission_is_named() {
    let revoke = |m365: &Simulator, _: &mut RouteFile| {
        m365.directory(|directory| directory.tenants[0].applications[0].graph_scope.clear());
    };
    wrong(revoke, Reason::GraphAccessDenied).await;
}

#[tokio::test]
async fn a_mailbox_that_graph_does_not_know_is_named() {
    let rename = |m365: &Simulator, route: &mut RouteFile| {
        m365.directory(|directory| directory.tenants[0].applications[0].graph_mail_send = true);
        graph(route).mailbox = "nobody@contoso.com".into();
    };
    wrong(rename, Reason::MailboxNotFound).await;
}

#[tokio::test]
async fn a_mailbox_that_is_inactive_is_named() {
    let retire = |m365: &Simulator, _: &mut RouteFile| {
        m365.directory(|directory| directory.tenants[0].mailboxes[0].inactive = true);
    };
    wrong(retire, Reason::MailboxNotEnabled).await;
}

#[tokio::test]
async fn a_graph_that_nobody_can_reach_is_named() {
    wrong(|_, route| graph(route).endpoint.host = "graph.invalid".into(), Reason::NameNotResolved).await;
    wrong(|_, route| graph(route).endpoint.ca_file = None, Reason::TlsFailed).await;
}
