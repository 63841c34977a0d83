//! Connections to client submission: how many, how often, and what is refused before a secret is sent.

use mailroute_m365::faults::HandshakeFault;
use mailroute_m365::{Faults, Line, Rule, SmtpAction, Stage, SubmissionFaults};
use mailroute_route::condition::Reason;

use crate::client::message;
use crate::scene::Scene;

/// Sends so many messages at a time, and gives the reply codes.
async fn send_at_once(scene: &Scene, count: usize, subject: &str) -> Vec<u16> {
    let sends = (0..count).map(async |n| {
        let text = message(&format!("{subject}{n}"));
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &text).await.code
    });
    futures::future::join_all(sends).await
}

/// Every message takes the upstream a while.
fn slow(scene: &Scene) {
    let rules = vec![Rule::always(Stage::EndOfData, SmtpAction::Delay(50))];
    let submission = SubmissionFaults { rules, ..<_>::default() };
    scene.m365.set_faults(Faults { submission, ..<_>::default() });
}

fn most_at_once(scene: &Scene) -> usize {
    scene.m365.statistics().mailboxes["noreply@contoso.com"].submitting_connections
}

#[tokio::test]
async fn as_many_connections_are_used_as_the_route_allows_and_each_several_times() {
    let scene = Scene::with(|_| {}, |_, route| route.limits.connections = 3).await;
    scene.well().await;
    slow(&scene);
    assert!(send_at_once(&scene, 12, "three").await.into_iter().all(|code| code == 250));
    assert_eq!(most_at_once(&scene), 3);
    let mut connections: Vec<_> = scene.m365.messages().iter().map(|message| message.connection.id).collect();
    connections.sort_unstable();
    connections.dedup();
    assert_eq!(connections.len(), 3, "{connections:?}");
    scene.assert_careful();
}

#[tokio::test]
async fn fewer_connections_are_used_after_exchange_counted_too_many() {
    let scene = Scene::with(|_| {}, |_, route| route.limits.connections = 3).await;
    scene.well().await;
    scene.fault(Stage::EndOfData, SmtpAction::Reply(Line::ConcurrentConnections.into()), 1);
    assert_eq!(send_at_once(&scene, 1, "counted").await, [451]);
    scene.told(Reason::ConnectionsExceeded).await;
    slow(&scene);
    // The pause after it is over when one is taken again.
    while send_at_once(&scene, 1, "again").await != [250] {
        tokio::task::yield_now().await;
    }
    scene.m365.forget_statistics();
    assert!(send_at_once(&scene, 6, "fewer").await.into_iter().all(|code| code == 250));
    assert!(most_at_once(&scene) < 3, "{}", most_at_once(&scene));
}

#[tokio::test]
async fn the_routes_connections_change_without_a_new_log_in() {
    let scene = Scene::start().await;
    scene.well().await;
    slow(&scene);
    assert!(send_at_once(&scene, 3, "one").await.into_iter().all(|code| code == 250));
    assert_eq!(most_at_once(&scene), 1);
    let mut route = scene.route.clone();
    (route.generation, route.limits.connections) = (2, 2);
    scene.files.write_route(&route);
    scene.report(|report| report.generation == 2).await;
    scene.m365.forget_statistics();
    assert!(send_at_once(&scene, 6, "two").await.into_iter().all(|code| code == 250));
    assert_eq!(most_at_once(&scene), 2);
    let arrived = scene.m365.messages();
    let first = arrived[0].connection.id;
    assert!(arrived[3..].iter().any(|message| message.connection.id == first), "the first one is kept");
    scene.assert_careful();
}

#[tokio::test]
async fn no_token_is_sent_without_tls_of_today_and_the_right_name() {
    for handshake in [HandshakeFault::OtherName, HandshakeFault::OldVersion, HandshakeFault::Cut] {
        let scene = Scene::with(
            |_| {},
            |m365, _| {
                let submission = SubmissionFaults { handshake, ..<_>::default() };
                m365.set_faults(Faults { submission, ..<_>::default() });
            },
        )
        .await;
        scene.told(Reason::TlsFailed).await;
        assert_eq!(send_at_once(&scene, 1, "refused").await, [451], "{handshake:?}");
        assert!(scene.m365.messages().is_empty());
    }
}
