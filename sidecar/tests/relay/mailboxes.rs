//! Several mailboxes of one route, seen from both ends.

use std::collections::BTreeMap;

use mailroute_m365::{Message, Options};
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::file::{DeliveryMode, SendingMailbox, SpreadFrom};
use mailroute_sidecar::app::Intervals;

use crate::client::message;
use crate::kept::{SENDER, emptied, figures};
use crate::scene::{PATIENCE, Scene, intervals, submission};

pub const ORDERS: &str = "orders@contoso.com";
const ALERTS: &str = "alerts@contoso.com";
/// Every mailbox may send as her.
pub const ANN: &str = "ann@contoso.com";

/// The simulator with three mailboxes.
pub fn three(options: &mut Options) {
    let tenant = &mut options.config.directory.tenants[0];
    tenant.mailboxes[0].send_as.push(ANN.into());
    for address in [ORDERS, ALERTS] {
        let mut mailbox = tenant.mailboxes[0].clone();
        (mailbox.address, mailbox.aliases) = (address.into(), vec![]);
        tenant.mailboxes.push(mailbox);
        tenant.applications[0].mailboxes.push(address.into());
    }
}

/// The route's mailboxes, of which each lists these senders.
pub fn mailboxes(route: &mut RouteFile, senders: [&[&str]; 3], spread: Option<SpreadFrom>) {
    let submission = submission(route);
    let all = [SENDER, ORDERS, ALERTS].into_iter().zip(senders);
    let mailbox = |(address, senders): (&str, &[&str])| SendingMailbox {
        address: address.into(),
        senders: senders.iter().map(|sender| (*sender).to_owned()).collect(),
    };
    (submission.mailboxes, submission.spread) = (all.map(mailbox).collect(), spread);
}

async fn scene(change: impl FnOnce(&mut RouteFile)) -> Scene {
    Scene::run(&[], intervals(), three, |_, route| change(route)).await
}

async fn send(scene: &Scene, from: &str, subject: &str) {
    let text = message(subject).replace(SENDER, from);
    let reply = scene.client().await.send(from, &["bob@fabrikam.com"], &text).await;
    assert_eq!(reply.code, 250, "{reply}");
}

/// How many messages each mailbox has sent.
fn sent(arrived: &[Message]) -> BTreeMap<&str, usize> {
    let mut sent = BTreeMap::new();
    arrived.iter().for_each(|message| *sent.entry(message.mailbox.as_str()).or_default() += 1);
    sent
}

#[tokio::test]
async fn the_sender_chooses_the_mailbox_in_every_mode() {
    for mode in [DeliveryMode::Deliver, DeliveryMode::DeliverOrQueue, DeliveryMode::Queue] {
        let scene = scene(|route| {
            route.delivery.mode = mode;
            mailboxes(route, [&[], &[], &["ann@contoso.com"]], None);
        })
        .await;
        scene.well().await;
        for from in [ORDERS, ANN, SENDER] {
            send(&scene, from, "chosen").await;
        }
        let arrived = scene.m365.wait_for_messages(3, PATIENCE).await;
        for (from, mailbox) in [(ORDERS, ORDERS), (ANN, ALERTS), (SENDER, SENDER)] {
            let of = arrived.iter().find(|message| message.mail_from == from);
            assert_eq!(of.map(|message| message.mailbox.as_str()), Some(mailbox), "{mode:?}");
        }
        emptied(&scene).await;
        scene.assert_careful();
    }
}

#[tokio::test]
async fn a_mailbox_that_fails_holds_its_own_mail_alone_and_has_it_after_a_restart() {
    let scene = Scene::run(
        &[],
        intervals(),
        |options| {
            three(options);
            options.config.directory.tenants[0].mailboxes[1].smtp_auth_disabled = Some(true);
        },
        |_, route| {
            route.delivery.mode = DeliveryMode::DeliverOrQueue;
            mailboxes(route, [&[], &[], &[]], None);
        },
    )
    .await;
    send(&scene, ORDERS, "held").await;
    send(&scene, ALERTS, "on").await;
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(sent(&arrived), [(ALERTS, 1)].into());
    let report = scene
        .report(|report| {
            report.queue.messages == 1
                && report.mailboxes.iter().filter(|it| it.trouble.is_some()).count() == 1
        })
        .await;
    let failing = report.mailboxes.iter().find(|it| it.trouble.is_some()).unwrap();
    assert_eq!((report.mailboxes.len(), failing.mailbox.as_str()), (3, ORDERS));
    let told = report.observations.iter().find(|met| !met.holds).unwrap();
    assert!(told.message.starts_with("orders@contoso.com: "), "{told:?}");
    let scene = scene.restarted().await;
    scene.m365.directory(|directory| directory.tenants[0].mailboxes[1].smtp_auth_disabled = None);
    let arrived = scene.m365.wait_for_messages(2, PATIENCE).await;
    assert_eq!(sent(&arrived), [(ALERTS, 1), (ORDERS, 1)].into());
    emptied(&scene).await;
}

#[tokio::test]
async fn a_pool_shares_a_sender_and_names_it_in_reply_to_where_the_route_says_so() {
    let all: [&[&str]; 3] = [&[ANN], &[ANN], &[ANN]];
    for spread in [SpreadFrom::Keep, SpreadFrom::ReplyTo] {
        let scene = scene(|route| mailboxes(route, all, Some(spread))).await;
        scene.well().await;
        for _ in 0..6 {
            send(&scene, ANN, "shared").await;
        }
        let arrived = scene.m365.wait_for_messages(6, PATIENCE).await;
        assert_eq!(sent(&arrived), [(ALERTS, 2), (SENDER, 2), (ORDERS, 2)].into());
        for message in &arrived {
            let (from, reply_to) = (message.header("From").unwrap(), message.header("Reply-To"));
            match spread {
                SpreadFrom::Keep => assert!(from.contains(ANN) && reply_to.is_none(), "{from}"),
                SpreadFrom::ReplyTo => {
                    assert!(from.contains(&message.mailbox), "{from}");
                    assert!(reply_to.is_some_and(|to| to.contains(ANN)), "{reply_to:?}");
                }
            }
        }
        scene.assert_careful();
    }
}

#[tokio::test]
async fn three_mailboxes_carry_three_times_what_one_may_send() {
    let all: [&[&str]; 3] = [&[ANN], &[ANN], &[ANN]];
    let scene = Scene::run(
        &[],
        intervals(),
        |options| {
            three(options);
            options.config.limits.messages_per_minute = 5;
        },
        |_, route| {
            route.delivery.mode = DeliveryMode::DeliverOrQueue;
            route.limits.messages_per_minute = Some(5);
            mailboxes(route, all, Some(SpreadFrom::Keep));
        },
    )
    .await;
    scene.well().await;
    for _ in 0..18 {
        send(&scene, ANN, "shared").await;
    }
    let arrived = scene.m365.wait_for_messages(15, PATIENCE).await;
    assert_eq!(sent(&arrived), [(ALERTS, 5), (SENDER, 5), (ORDERS, 5)].into());
    // What is more waits for the next minute.
    figures(&scene, |figures| figures.messages == 3).await;
    scene.assert_careful();
}

#[tokio::test]
async fn a_pool_passes_over_a_mailbox_that_fails() {
    let all: [&[&str]; 3] = [&[ANN], &[ANN], &[ANN]];
    let scene = Scene::run(
        &[],
        // Its pause lasts for the whole test.
        Intervals { pause: PATIENCE, ..intervals() },
        |options| {
            three(options);
            options.config.directory.tenants[0].mailboxes[1].smtp_auth_disabled = Some(true);
        },
        |_, route| {
            route.delivery.mode = DeliveryMode::Deliver;
            mailboxes(route, all, Some(SpreadFrom::Keep));
        },
    )
    .await;
    scene.told(Reason::SmtpAuthDisabledMailbox).await;
    // Only the first that has its turn by the failing one finds out that mail cannot go.
    let mut refused = 0;
    for _ in 0..9 {
        let text = message("shared").replace(SENDER, ANN);
        let reply = scene.client().await.send(ANN, &["bob@fabrikam.com"], &text).await;
        refused += usize::from(reply.code != 250);
    }
    assert!(refused <= 1, "{refused}");
    let arrived = scene.m365.wait_for_messages(9 - refused, PATIENCE).await;
    assert!(!sent(&arrived).contains_key(ORDERS), "{:?}", sent(&arrived));
}

#[tokio::test]
async fn a_message_whose_mailbox_the_route_no_longer_names_goes_by_the_one_that_serves_its_sender() {
    let scene = Scene::run(
        &[],
        intervals(),
        |options| {
            three(options);
            for failing in [0, 1] {
                options.config.directory.tenants[0].mailboxes[failing].smtp_auth_disabled = Some(true);
            }
        },
        |_, route| {
            route.delivery.mode = DeliveryMode::DeliverOrQueue;
            mailboxes(route, [&[], &[ANN], &[]], None);
        },
    )
    .await;
    send(&scene, ANN, "held").await;
    figures(&scene, |figures| figures.messages == 1).await;
    let mut route = scene.route.clone();
    route.generation += 1;
    mailboxes(&mut route, [&[], &[], &[ANN]], None);
    submission(&mut route).mailboxes.remove(1);
    // The first mailbox fails too, and keeps no message waiting that is another one's.
    scene.files.write_route(&route);
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(sent(&arrived), [(ALERTS, 1)].into());
    emptied(&scene).await;
}
