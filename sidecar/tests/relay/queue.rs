//! What becomes of a kept message: each outcome of an attempt, its end, a restart, and what a person can do.

use std::time::Duration;

use mailroute_m365::{Rule, SmtpAction, Stage};
use mailroute_route::condition::Reason;
use mailroute_route::file::DeliveryMode::{DeliverOrQueue, Queue};
use mailroute_sidecar::app::Intervals;
use mailroute_sidecar::message::envelope::QueueId;
use mailroute_sidecar::queue::{QueueCommandError, QueuePlace};
use mailroute_sidecar::spool::{DeliveryProblem, RecipientStatus};

use crate::client::message;
use crate::kept::{
    SENDER, always, down, emptied, figures, files, given_up, once, queued, reply, rules, scene, subjects,
    timed, with,
};
use crate::scene::{PATIENCE, Scene, intervals, metric, submission};

const ANN: &[&str] = &["ann@fabrikam.com"];
/// Unknown to the table, so about this message and for now.
const NOT_NOW: &str = "451 4.6.99 Not this message, not now";

const TWO: &[&str] = &["ann@fabrikam.com", "bob@fabrikam.com"];

/// What a dead letter says of each recipient.
async fn epitaphs(scene: &Scene, id: &QueueId) -> Vec<Option<DeliveryProblem>> {
    let shown = scene.app.queue().show(id).await.expect("it is kept");
    assert_eq!(shown.place, QueuePlace::Dead);
    let of = |fate: &RecipientStatus| match fate {
        RecipientStatus::Failed(trouble) => Some(trouble.clone()),
        _ => None,
    };
    shown.kept.progress.statuses.iter().map(of).collect()
}

/// Waits until a message was tried so often for its own sake.
async fn tried(scene: &Scene, id: &QueueId, attempts: u32) {
    let mut rounds = scene.app.queue().rounds();
    let reached = async {
        loop {
            let shown = scene.app.queue().show(id).await.expect("it is kept");
            if shown.kept.progress.attempts >= attempts && shown.place == QueuePlace::Waiting {
                return;
            }
            rounds.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.expect("it is tried");
}

/// A value of the sidecar's metrics, or none.
async fn value(scene: &Scene, name: &str) -> f64 {
    metric(&scene.metrics().await, name).unwrap_or_else(|| panic!("no {name}"))
}

#[tokio::test]
async fn a_transient_refusal_is_tried_again_with_growing_pauses_until_it_works() {
    let scene = scene(Queue).await;
    always(&scene, Stage::EndOfData, reply(NOT_NOW));
    let id = queued(&scene, ANN, "again").await;
    tried(&scene, &id, 3).await;
    let shown = scene.app.queue().show(&id).await.unwrap();
    let last = shown.kept.progress.last.expect("trouble was met");
    assert!(last.replied && last.text.starts_with(NOT_NOW), "{last:?}");
    rules(&scene, vec![]);
    emptied(&scene).await;
    assert_eq!(subjects(&scene.m365), ["again"]);
}

#[tokio::test]
async fn a_fault_of_the_route_holds_the_queue_and_uses_up_no_tries() {
    let scene = Scene::with(
        |options| options.config.directory.tenants[0].smtp_auth_disabled = true,
        |_, route| route.delivery.mode = Queue,
    )
    .await;
    let ids = [queued(&scene, ANN, "first").await, queued(&scene, ANN, "second").await];
    scene.told(Reason::SmtpAuthDisabledTenant).await;
    let shown = scene.app.queue().show(&ids[0]).await.unwrap();
    assert_eq!((shown.kept.progress.attempts, shown.kept.progress.waiting()), (0, 1));
    let report = scene.report(|report| report.queue.messages == 2).await;
    assert_eq!(report.queue.dead_letters, 0);
    scene.m365.directory(|directory| directory.tenants[0].smtp_auth_disabled = false);
    emptied(&scene).await;
    let mut arrived = subjects(&scene.m365);
    arrived.sort();
    assert_eq!(arrived, ["first", "second"]);
    scene.report(|report| report.queue.messages == 0).await;
    assert_eq!(scene.app.queue().figures().dead_letters, 0);
}

#[tokio::test]
async fn a_quota_holds_the_queue_until_the_window_moves() {
    let scene = scene(Queue).await;
    scene.m365.config(|config| {
        (config.limits.recipients_per_day, config.limits.day_milliseconds) = (1, 600);
    });
    let ids = [queued(&scene, ANN, "first").await, queued(&scene, ANN, "second").await];
    scene.told(Reason::DailyQuotaExceeded).await;
    // Either may have gone first; the other one is held.
    let queue = scene.app.queue();
    let held = match queue.show(&ids[1]).await {
        Ok(held) => held,
        Err(_) => queue.show(&ids[0]).await.unwrap(),
    };
    assert_eq!(held.kept.progress.attempts, 0);
    emptied(&scene).await;
    assert_eq!((subjects(&scene.m365).len(), scene.app.queue().figures().dead_letters), (2, 0));
}

#[tokio::test]
async fn a_recipient_refused_for_good_is_a_dead_letter_and_the_others_have_the_message() {
    let scene = scene(Queue).await;
    scene.fault(Stage::Rcpt, reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"), 1);
    let id = queued(&scene, TWO, "one").await;
    given_up(&scene, 1).await;
    assert_eq!(scene.m365.messages()[0].recipient_addresses(), ["bob@fabrikam.com"]);
    let epitaphs = epitaphs(&scene, &id).await;
    assert!(epitaphs[1].is_none(), "delivered: {epitaphs:?}");
    let ann = epitaphs[0].as_ref().expect("refused");
    assert!(ann.outcome == "reject_recipient" && ann.text.starts_with("550 5.1.10") && ann.host.is_some());
    scene.report(|report| (report.queue.messages, report.queue.dead_letters) == (0, 1)).await;
}

#[tokio::test]
async fn a_message_refused_for_good_is_a_dead_letter() {
    let scene = scene(Queue).await;
    scene.fault(Stage::EndOfData, reply("554 5.6.0 Corrupt message content"), 1);
    let id = queued(&scene, TWO, "corrupt").await;
    given_up(&scene, 1).await;
    let epitaphs = epitaphs(&scene, &id).await;
    assert!(epitaphs.iter().all(|met| met.as_ref().is_some_and(|met| met.text.starts_with("554 5.6.0"))));
    assert_eq!(value(&scene, "mailroute_dead_letter_messages").await, 1.0);
    let count = r#"mailroute_queue_duration_seconds_count{result="dead_letter"}"#;
    assert_eq!(value(&scene, count).await, 1.0);
}

#[tokio::test]
async fn a_change_of_mailbox_holds_the_mail_of_the_old_one_until_it_may_be_sent() {
    let scene = timed(Queue, once(), |_, _| {}).await;
    down(&scene.m365, true).await;
    let id = queued(&scene, ANN, "from the old mailbox").await;
    let other = "orders@contoso.com";
    scene.m365.directory(|directory| {
        let tenant = &mut directory.tenants[0];
        let mut mailbox = tenant.mailboxes[0].clone();
        mailbox.address = other.into();
        mailbox.send_as = vec![];
        tenant.mailboxes.push(mailbox);
        tenant.applications.iter_mut().for_each(|app| app.mailboxes.push(other.into()));
    });
    let mut route = scene.route.clone();
    route.generation = 2;
    submission(&mut route).mailbox = other.into();
    scene.files.write_route(&route);
    scene.report(|report| report.generation == 2).await;
    down(&scene.m365, false).await;
    scene.app.queue().retry_all();
    tried(&scene, &id, 1).await;
    let shown = scene.app.queue().show(&id).await.unwrap();
    assert_eq!(shown.kept.progress.last.unwrap().reason, Some(Reason::SendAsDenied));
    assert_eq!(scene.app.queue().figures().dead_letters, 0);
    // The mailbox is put back: what it held goes out without anybody's help.
    (route.generation, submission(&mut route).mailbox) = (3, SENDER.into());
    scene.files.write_route(&route);
    emptied(&scene).await;
    assert_eq!(subjects(&scene.m365), ["from the old mailbox"]);
}

#[tokio::test]
async fn what_is_not_delivered_within_its_time_is_a_dead_letter_with_the_last_trouble() {
    let scene = with(Queue, |_, route| route.delivery.max_age_seconds = 1).await;
    always(&scene, Stage::EndOfData, reply(NOT_NOW));
    let id = queued(&scene, ANN, "late").await;
    given_up(&scene, 1).await;
    let met = epitaphs(&scene, &id).await.remove(0).expect("given up");
    assert_eq!((met.outcome.as_str(), met.text.starts_with(NOT_NOW)), ("expired", true), "{met:?}");
}

#[tokio::test]
async fn what_a_fault_of_the_route_holds_beyond_its_time_is_kept_with_the_reason() {
    let scene = with(Queue, |_, route| route.delivery.max_age_seconds = 1).await;
    down(&scene.m365, true).await;
    let ids: Vec<_> = [queued(&scene, ANN, "one").await, queued(&scene, ANN, "two").await].into();
    given_up(&scene, 2).await;
    for id in &ids {
        let met = epitaphs(&scene, id).await.remove(0).expect("given up");
        assert_eq!(met.outcome, "expired", "{met:?}");
    }
    let met = epitaphs(&scene, &ids[0]).await.remove(0).unwrap();
    assert_eq!(met.reason, Some(Reason::ConnectFailed), "{met:?}");
}

#[tokio::test]
async fn after_an_outage_everything_arrives_once() {
    let scene = scene(DeliverOrQueue).await;
    down(&scene.m365, true).await;
    let expected: Vec<_> = (0..40).map(|n| format!("m{n:02}")).collect();
    for subject in &expected {
        queued(&scene, ANN, subject).await;
    }
    let waiting = figures(&scene, |figures| figures.messages == 40).await;
    assert!(waiting.bytes > 0);
    assert_eq!(value(&scene, "mailroute_queue_messages").await, 40.0);
    down(&scene.m365, false).await;
    emptied(&scene).await;
    let mut arrived = subjects(&scene.m365);
    arrived.sort();
    assert_eq!(arrived, expected);
    scene.assert_careful();
}

#[tokio::test]
async fn a_restart_finds_what_was_kept_and_delivers_it_under_the_same_id() {
    let scene = scene(Queue).await;
    down(&scene.m365, true).await;
    let without_id = message("kept").replace("Message-ID: <kept@contoso.com>\r\n", "");
    let mut client = scene.client().await;
    crate::kept::id_of(&client.send(SENDER, TWO, &without_id).await);
    drop(client);
    let stored =
        std::fs::read_to_string(scene.files.path("queue").join(&files(&scene.files.path(""), "queue")[0]));
    let stored = stored.unwrap();
    let id = stored.lines().find_map(|line| line.strip_prefix("Message-ID: ")).expect("added").to_owned();
    let scene = scene.restarted().await;
    down(&scene.m365, false).await;
    emptied(&scene).await;
    let arrived = scene.m365.messages();
    assert_eq!((arrived.len(), arrived[0].message_id.as_str()), (1, id.as_str()));
    assert_eq!(arrived[0].recipient_addresses(), TWO);
    scene.assert_careful();
}

#[tokio::test]
async fn a_lost_answer_repeats_the_message_with_the_same_id() {
    let scene = scene(Queue).await;
    scene.fault(Stage::EndOfData, SmtpAction::CutBeforeReply, 1);
    queued(&scene, ANN, "twice").await;
    emptied(&scene).await;
    let ids: Vec<_> = scene.m365.messages().iter().map(|message| message.message_id.clone()).collect();
    assert_eq!((ids.len(), &ids[0]), (2, &ids[1]), "a duplicate can be recognised");
}

#[tokio::test]
async fn a_damaged_message_is_set_aside_and_stops_nobody() {
    // Once the upstream was found to be down, it is not tried again by itself.
    let times = Intervals { pause: Duration::from_secs(3600), ..once() };
    let scene = timed(Queue, times, |_, _| {}).await;
    down(&scene.m365, true).await;
    let ids = [
        queued(&scene, ANN, "first").await,
        queued(&scene, ANN, "damaged").await,
        queued(&scene, ANN, "third").await,
    ];
    // Nothing is under way that was read before it is damaged.
    scene.app.queue().drained(tokio::time::Instant::now() + PATIENCE).await;
    let path = scene.files.path("queue").join(ids[1].as_str());
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
    down(&scene.m365, false).await;
    scene.app.queue().retry_all();
    let left = emptied(&scene).await;
    // The message, and its progress if it was tried before it was damaged.
    let aside = files(&scene.files.path(""), "corrupt");
    assert_eq!((left.corrupt, left.dead_letters), (aside.len() as u64, 0), "{aside:?}");
    let mut arrived = subjects(&scene.m365);
    arrived.sort();
    assert_eq!(arrived, ["first", "third"]);
    assert_eq!(aside[0], ids[1].as_str());
}

#[tokio::test]
async fn what_was_set_aside_is_sent_when_its_file_is_whole_again() {
    let scene = timed(Queue, once(), |_, _| {}).await;
    down(&scene.m365, true).await;
    let ids = [queued(&scene, ANN, "first").await, queued(&scene, ANN, "second").await];
    let aside = |id: &QueueId| scene.files.path("corrupt").join(id.as_str());
    let mut whole = Vec::new();
    for id in &ids {
        let path = scene.files.path("queue").join(id.as_str());
        whole.push(std::fs::read(&path).unwrap());
        std::fs::write(&path, "rot").unwrap();
        scene.app.queue().show(id).await.unwrap_err();
        assert!(aside(id).exists());
    }
    down(&scene.m365, false).await;
    std::fs::write(aside(&ids[0]), &whole[0]).unwrap();
    let (told, all) = crate::queue_cli::queue(&scene.files.path(""), "retry --corrupt").await.unwrap();
    assert!(told.starts_with("1 message will be tried now\n") && !all, "{told}");
    assert!(told.lines().nth(1).unwrap().starts_with(&format!("{}: ", ids[1])), "{told}");
    scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(subjects(&scene.m365), ["first"]);
    std::fs::write(aside(&ids[1]), &whole[1]).unwrap();
    let (told, all) = crate::queue_cli::queue(&scene.files.path(""), "retry --corrupt").await.unwrap();
    assert_eq!((told.as_str(), all), ("1 message will be tried now\n", true));
    let left = emptied(&scene).await;
    assert_eq!((left.corrupt, left.bytes), (0, 0));
    assert_eq!(subjects(&scene.m365), ["first", "second"]);
}

#[tokio::test]
async fn a_message_that_always_breaks_the_connection_does_not_stop_the_others() {
    let scene = scene(Queue).await;
    rules(&scene, vec![Rule { every: Some(2), ..Rule::always(Stage::EndOfData, SmtpAction::Cut) }]);
    for n in 0..6 {
        queued(&scene, ANN, &format!("m{n}")).await;
    }
    emptied(&scene).await;
    let mut arrived = subjects(&scene.m365);
    arrived.sort();
    assert_eq!(arrived, ["m0", "m1", "m2", "m3", "m4", "m5"]);
}

#[tokio::test]
async fn a_mended_route_applies_to_what_waits() {
    let scene = Scene::with(
        |_| {},
        |_, route| {
            route.delivery.mode = Queue;
            submission(route).mailbox = "nobody@contoso.com".into();
        },
    )
    .await;
    queued(&scene, ANN, "kept").await;
    scene.told(Reason::ExchangeRejectedToken).await;
    let mut route = scene.route.clone();
    route.generation = 2;
    submission(&mut route).mailbox = SENDER.into();
    scene.files.write_route(&route);
    emptied(&scene).await;
    assert_eq!(subjects(&scene.m365), ["kept"]);
}

#[tokio::test]
async fn a_person_can_look_hurry_revive_and_drop() {
    let scene = timed(Queue, once(), |_, _| {}).await;
    scene.fault(Stage::EndOfData, reply(NOT_NOW), 2);
    let ids = [queued(&scene, ANN, "hurried").await, queued(&scene, ANN, "dropped").await];
    tried(&scene, &ids[0], 1).await;
    tried(&scene, &ids[1], 1).await;
    let queue = scene.app.queue();
    let listed = queue.list();
    assert_eq!(listed.iter().map(|one| &one.id).collect::<Vec<_>>(), [&ids[0], &ids[1]]);
    assert!(listed.iter().all(|one| one.place == QueuePlace::Waiting && one.recipients == 1), "{listed:?}");
    queue.discard(&ids[1]).await.unwrap();
    queue.retry(&ids[0]).unwrap();
    emptied(&scene).await;
    assert_eq!(subjects(&scene.m365), ["hurried"]);
    assert!(matches!(queue.retry(&ids[0]), Err(QueueCommandError::Unknown(_))));
    assert!(matches!(queue.discard(&ids[0]).await, Err(QueueCommandError::Unknown(_))));

    scene.fault(Stage::Rcpt, reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"), 1);
    let dead = queued(&scene, TWO, "revived").await;
    given_up(&scene, 1).await;
    queue.retry_dead(&dead).await.unwrap();
    emptied(&scene).await;
    let to: Vec<_> = scene
        .m365
        .messages()
        .iter()
        .flat_map(|message| message.recipient_addresses())
        .map(str::to_owned)
        .collect();
    assert_eq!(to, ["ann@fabrikam.com", "bob@fabrikam.com", "ann@fabrikam.com"], "only who did not get it");
    assert_eq!(queue.figures().dead_letters, 0);

    scene.fault(Stage::Rcpt, reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"), 1);
    let dead = queued(&scene, ANN, "forgotten").await;
    given_up(&scene, 1).await;
    queue.discard(&dead).await.unwrap();
    assert_eq!(queue.figures().dead_letters, 0);
}

#[tokio::test]
async fn more_dead_letters_than_are_kept_push_out_the_oldest_and_are_counted() {
    let scene = with(Queue, |_, route| route.delivery.dead_letters.keep = 2).await;
    always(&scene, Stage::Rcpt, reply("550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found"));
    let mut ids = Vec::new();
    for n in 0..3 {
        // Each to somebody else: the same would be refused from memory.
        ids.push(queued(&scene, &[&format!("r{n}@fabrikam.com")], &format!("dead{n}")).await);
        given_up(&scene, (n + 1).min(2)).await;
    }
    assert_eq!(scene.app.queue().list_dead(), ids[1..]);
    assert_eq!(value(&scene, "mailroute_dead_letters_removed_total").await, 1.0);
}

#[tokio::test]
async fn new_mail_does_not_overtake_what_waits_for_the_limits() {
    let minute = Duration::from_millis(400);
    let quota = mailroute_quota::Timing { minute, ..<_>::default() };
    let scene = timed(DeliverOrQueue, Intervals { quota, ..intervals() }, |m365, route| {
        route.limits.messages_per_minute = Some(4);
        m365.config(|config| {
            (config.limits.messages_per_minute, config.limits.minute_milliseconds) = (4, 400);
        });
    })
    .await;
    let mut client = scene.client().await;
    for n in 0..12 {
        let reply = client.send(SENDER, ANN, &message(&format!("m{n:02}"))).await;
        assert_eq!(reply.code, 250, "{reply}");
    }
    emptied(&scene).await;
    let arrived = subjects(&scene.m365);
    assert_eq!(arrived.len(), 12, "{arrived:?}");
    for (at, subject) in arrived.iter().enumerate() {
        let came: usize = subject[1..].parse().unwrap();
        assert!(came.abs_diff(at) <= 2, "first come, first served: {arrived:?}");
    }
    assert_eq!(scene.m365.statistics().tally.refusals("421"), 0);
    scene.assert_careful();
}
