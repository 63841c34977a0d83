//! Scenes of routes that keep mail, and looks at what they keep.

use std::path::Path;

use mailroute_m365::{Faults, Rule, Simulator, SmtpAction, Stage, SubmissionFaults};
use mailroute_route::RouteFile;
use mailroute_route::file::DeliveryMode;
use mailroute_sidecar::app::Intervals;
use mailroute_sidecar::message::envelope::QueueId;
use mailroute_sidecar::outcome::queued::QueueFigures;
use mailroute_sidecar::queue::schedule;
use mailroute_sidecar::smtp::reply::Reply;

use crate::client::message;
use crate::scene::{PATIENCE, Scene, intervals};

/// The sample mailbox.
pub const SENDER: &str = "noreply@contoso.com";

/// A scene in this mode, with the way known to be open.
pub async fn scene(mode: DeliveryMode) -> Scene {
    with(mode, |_, _| {}).await
}

/// The same, changed before the sidecar sees it.
pub async fn with(mode: DeliveryMode, change: impl FnOnce(&Simulator, &mut RouteFile)) -> Scene {
    timed(mode, intervals(), change).await
}

/// The same with other times.
pub async fn timed(
    mode: DeliveryMode,
    intervals: Intervals,
    change: impl FnOnce(&Simulator, &mut RouteFile),
) -> Scene {
    let scene = Scene::run(
        &[],
        intervals,
        |_| {},
        |m365, route| {
            route.delivery.mode = mode;
            change(m365, route);
        },
    )
    .await;
    scene.well().await;
    scene
}

/// Times at which nothing is tried again by itself.
pub fn once() -> Intervals {
    let hour = std::time::Duration::from_secs(3600);
    let queue = schedule::RetrySchedule { first: hour, patient: hour, longest: hour, hold: hour };
    Intervals { queue, ..intervals() }
}

/// Sends one message and gives the answer.
pub async fn send(scene: &Scene, to: &[&str], subject: &str) -> Reply {
    scene.client().await.send(SENDER, to, &message(subject)).await
}

/// Sends one message that is kept, and gives its id.
pub async fn queued(scene: &Scene, to: &[&str], subject: &str) -> QueueId {
    let reply = send(scene, to, subject).await;
    id_of(&reply)
}

/// The id in the answer for a message that is kept.
pub fn id_of(reply: &Reply) -> QueueId {
    let text = reply.text();
    let id = text.strip_prefix("OK queued as ").unwrap_or_else(|| panic!("not queued: {reply}"));
    assert_eq!(reply.code, 250);
    QueueId::parse(id).expect("a queue id")
}

/// Waits until the queue's figures are as wanted.
pub async fn figures(scene: &Scene, wanted: impl Fn(&QueueFigures) -> bool) -> QueueFigures {
    let queue = scene.app.queue();
    let mut rounds = queue.rounds();
    let reached = async {
        loop {
            let figures = queue.figures();
            if wanted(&figures) {
                return figures;
            }
            rounds.changed().await.expect("the worker works");
        }
    };
    let reached = tokio::time::timeout(PATIENCE, reached).await;
    reached.unwrap_or_else(|_| panic!("still {:?}", queue.figures()))
}

/// Waits until nothing waits.
pub async fn emptied(scene: &Scene) -> QueueFigures {
    figures(scene, |figures| figures.messages == 0).await
}

/// Waits until so many were given up, and nothing waits.
pub async fn given_up(scene: &Scene, dead: u64) {
    figures(scene, |figures| figures.messages == 0 && figures.dead_letters == dead).await;
}

/// Opens or closes the upstream's port.
pub async fn down(m365: &Simulator, down: bool) {
    m365.set_faults(Faults { submission: SubmissionFaults { down, ..<_>::default() }, ..<_>::default() });
    m365.wait_until_settled().await;
}

/// Something wrong at every opportunity until it is cleared.
pub fn always(scene: &Scene, stage: Stage, action: SmtpAction) {
    rules(scene, vec![Rule::always(stage, action)]);
}

/// These faults and no others.
pub fn rules(scene: &Scene, rules: Vec<Rule<Stage, SmtpAction>>) {
    let submission = SubmissionFaults { rules, ..<_>::default() };
    scene.m365.set_faults(Faults { submission, ..<_>::default() });
}

/// A reply in the upstream's words.
pub fn reply(line: &str) -> SmtpAction {
    SmtpAction::Reply(line.to_owned().try_into().expect("a reply"))
}

/// Subjects of what arrived, in order.
pub fn subjects(m365: &Simulator) -> Vec<String> {
    m365.messages().iter().map(|message| message.header("Subject").unwrap().to_owned()).collect()
}

/// The names of the files in a directory of the spool.
pub fn files(spool: &Path, shelf: &str) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(spool.join(shelf))
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}
