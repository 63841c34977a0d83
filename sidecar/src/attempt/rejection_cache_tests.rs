//! What Exchange would count, and what it gets to see.

use super::*;
use crate::smtp::reply::Reply;

const SECOND: Duration = Duration::from_secs(1);
const BOX: &str = "noreply@contoso.com";

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

fn read(outcome: DeliveryOutcome, line: &str) -> AttemptResult {
    let reply = Reply::parse(format!("{line}\r\n").as_bytes()).unwrap().unwrap().0;
    foreseen(Verdict::of_reply(outcome, reply), vec![])
}

fn denied(sender: &str) -> AttemptResult {
    let line =
        format!("554 5.2.252 SendAsDenied; {BOX} not allowed to send as {sender}; STOREDRV.Submission");
    read(DeliveryOutcome::RejectMessage(Some(Reason::SendAsDenied)), &line)
}

fn delivered() -> AttemptResult {
    read(DeliveryOutcome::Delivered, "250 2.0.0 OK")
}

fn unknown_recipient() -> AttemptResult {
    read(DeliveryOutcome::RejectRecipient, "550 5.1.10 RESOLVER.ADR.RecipientNotFound")
}

/// A mailbox's messages one after the other, against an Exchange that knows good from bad.
struct Scene {
    offences: RejectionCache,
    now: Instant,
    /// Messages that were tried.
    tried: usize,
}

impl Scene {
    fn new() -> Self {
        let now = crate::clock::now();
        Self { offences: RejectionCache::new(SECOND, now), now, tried: 0 }
    }

    fn send(&mut self, path: &str, author: &str, to: &[&str], answer: &AttemptResult) -> AttemptResult {
        let (path, recipients) = (address(path), to.iter().map(|to| address(to)).collect::<Vec<_>>());
        let message = MessageParties {
            mailbox: Some(BOX),
            reverse_path: Some(&path),
            author: Some(author),
            recipients: &recipients,
        };
        if let Some(foreseen) = self.offences.foresees(&message, self.now) {
            return foreseen;
        }
        self.tried += 1;
        self.offences.learn(&message, answer, self.now);
        answer.clone()
    }

    fn send_as(&mut self, author: &str, answer: &AttemptResult) -> DeliveryOutcome {
        self.send(BOX, author, &["ann@fabrikam.com"], answer).verdict.outcome
    }

    fn send_to(&mut self, to: &str, answer: &AttemptResult) -> DeliveryOutcome {
        self.send(BOX, BOX, &[to], answer).verdict.outcome
    }
}

const HELD: DeliveryOutcome = DeliveryOutcome::Transient(Some(Reason::ErrorsHeldBack));
const SEND_AS: DeliveryOutcome = DeliveryOutcome::RejectMessage(Some(Reason::SendAsDenied));

#[test]
fn the_same_sender_is_refused_from_memory_and_others_go_on() {
    let mut scene = Scene::new();
    let first = scene.send(BOX, "boss@contoso.com", &["ann@fabrikam.com"], &denied("boss@contoso.com"));
    let again = scene.send(BOX, "Boss@contoso.com", &["bob@fabrikam.com"], &delivered());
    assert_eq!(again.verdict.outcome, first.verdict.outcome);
    let (first, again) = (first.verdict.reply.unwrap(), again.verdict.reply.unwrap());
    assert_eq!((again.code, again.enhanced, &again.lines[0]), (first.code, first.enhanced, &first.lines[0]));
    assert_eq!(scene.tried, 1);
    assert_eq!(scene.send_as(BOX, &delivered()), DeliveryOutcome::Delivered);
    assert_eq!(scene.send_as("other@contoso.com", &delivered()), DeliveryOutcome::Delivered);
}

#[test]
fn a_sender_that_was_granted_meanwhile_is_tried_again_and_then_free() {
    let mut scene = Scene::new();
    scene.send_as("boss@contoso.com", &denied("boss@contoso.com"));
    scene.now += 299 * SECOND;
    assert_eq!(scene.send_as("boss@contoso.com", &delivered()), SEND_AS);
    scene.now += SECOND;
    assert_eq!(scene.send_as("boss@contoso.com", &delivered()), DeliveryOutcome::Delivered);
    assert_eq!(scene.send_as("boss@contoso.com", &delivered()), DeliveryOutcome::Delivered);
}

#[test]
fn a_sender_that_stays_refused_is_asked_about_ever_more_seldom() {
    let mut scene = Scene::new();
    let start = scene.now;
    while scene.now < start + 3600 * SECOND {
        assert_eq!(scene.send_as("boss@contoso.com", &denied("boss@contoso.com")), SEND_AS);
        scene.now += SECOND;
    }
    assert_eq!(scene.tried, 4, "at 0, 5, 15 and 35 minutes");
}

#[test]
fn many_bad_senders_stop_before_the_throttle_and_good_ones_go_on() {
    let mut scene = Scene::new();
    for n in 0..MOST {
        let sender = format!("bad{n}@contoso.com");
        assert_eq!(scene.send_as(&sender, &denied(&sender)), SEND_AS);
        assert_eq!(scene.send_as("sales@contoso.com", &delivered()), DeliveryOutcome::Delivered);
    }
    assert_eq!(scene.send_as("bad99@contoso.com", &denied("bad99@contoso.com")), HELD);
    assert_eq!(scene.send_as("sales@contoso.com", &delivered()), DeliveryOutcome::Delivered);
    assert_eq!(scene.send_as(BOX, &delivered()), DeliveryOutcome::Delivered);
    scene.now += 3720 * SECOND;
    assert_eq!(scene.send_as("bad99@contoso.com", &denied("bad99@contoso.com")), SEND_AS);
}

#[test]
fn within_any_hour_the_upstream_sees_no_more_errors_than_are_allowed() {
    let mut scene = Scene::new();
    let mut errors = Vec::new();
    for n in 0..20_000_u64 {
        let (sender, before) = (format!("bad{}@contoso.com", n % 700), scene.tried);
        scene.send_as(&sender, &denied(&sender));
        errors.extend((scene.tried > before).then_some(n));
        scene.now += SECOND;
    }
    for (at, error) in errors.iter().enumerate() {
        let within = errors[at..].iter().take_while(|other| **other < error + 3600).count();
        assert!(within as u64 <= MOST, "{within} from {error}");
    }
    assert!(errors.len() > 20, "it goes on when the hour has moved");
}

#[test]
fn the_older_wording_is_put_down_to_whichever_is_not_the_mailbox() {
    let refusal = read(SEND_AS, "550 5.7.60 SMTP; Client does not have permissions to send as this sender");
    let mut scene = Scene::new();
    scene.send_as("boss@contoso.com", &refusal);
    assert_eq!(scene.send_as("boss@contoso.com", &delivered()), SEND_AS);
    assert_eq!(scene.send_as(BOX, &delivered()), DeliveryOutcome::Delivered);

    // Both are others: only the same two together are known to be refused.
    let to = &["ann@fabrikam.com"];
    scene.send("a@contoso.com", "b@contoso.com", to, &refusal);
    assert_eq!(scene.send("a@contoso.com", "b@contoso.com", to, &delivered()).verdict.outcome, SEND_AS);
    assert_eq!(
        scene.send("a@contoso.com", BOX, to, &delivered()).verdict.outcome,
        DeliveryOutcome::Delivered
    );
}

#[test]
fn a_recipient_that_does_not_exist_is_refused_from_memory() {
    let mut scene = Scene::new();
    assert_eq!(scene.send_to("gone@contoso.com", &unknown_recipient()), DeliveryOutcome::RejectRecipient);
    assert_eq!(scene.send_to("Gone@contoso.com", &delivered()), DeliveryOutcome::RejectRecipient);
    assert_eq!(scene.tried, 1);
    let both = scene.send(BOX, BOX, &["ann@contoso.com", "gone@contoso.com"], &delivered());
    assert_eq!(both.verdict.outcome, DeliveryOutcome::Delivered, "one that is good is reason enough to try");
}

#[test]
fn several_that_do_not_exist_are_each_refused() {
    let mut scene = Scene::new();
    for to in ["a@contoso.com", "b@contoso.com"] {
        scene.send_to(to, &unknown_recipient());
    }
    let both = scene.send(BOX, BOX, &["a@contoso.com", "b@contoso.com"], &delivered());
    assert_eq!(
        (both.verdict.outcome, both.refused.len(), scene.tried),
        (DeliveryOutcome::RejectRecipient, 2, 2)
    );
}

#[test]
fn many_bad_recipients_hold_back_the_unknown_and_not_the_good() {
    let mut scene = Scene::new();
    for n in 0..MOST {
        scene.send_to(&format!("gone{n}@contoso.com"), &unknown_recipient());
        scene.send_to("ann@contoso.com", &delivered());
    }
    assert_eq!(scene.send_to("new@contoso.com", &delivered()), HELD);
    assert_eq!(scene.send_to("ann@contoso.com", &delivered()), DeliveryOutcome::Delivered);
    scene.now += 3720 * SECOND;
    assert_eq!(scene.send_to("new@contoso.com", &delivered()), DeliveryOutcome::Delivered);
}

#[test]
fn a_reply_from_memory_says_so_and_when_it_is_asked_again() {
    let mut scene = Scene::new();
    scene.send_to("gone@contoso.com", &unknown_recipient());
    scene.now += 61 * SECOND;
    let again = scene.send(BOX, BOX, &["gone@contoso.com"], &delivered()).verdict;
    let note = "From memory: refused 2 min ago, asked again in 4 min";
    assert_eq!(again.reply.unwrap().lines.last().unwrap(), note);
    assert!(again.text.ends_with(&format!("({note})")), "{}", again.text);
    let mut scene = Scene::new();
    scene.send_to("gone@contoso.com", &unknown_recipient());
    let again = scene.send(BOX, BOX, &["gone@contoso.com"], &delivered()).verdict;
    assert!(again.text.contains("refused less than a minute ago, asked again in 5 min"), "{}", again.text);
}

#[test]
fn one_wrong_sender_does_not_bar_a_good_recipient() {
    for line in [
        "553 5.7.1 <alerts@contoso.com>: not owned by user",
        "550 5.7.124 Sender not in allowed-senders list",
        "550 5.1.7 bad sender address",
        "550 sender verify failed",
    ] {
        let mut scene = Scene::new();
        let refusal = read(DeliveryOutcome::RejectRecipient, line);
        let (ann, alerts) = (&["ann@fabrikam.com"], "alerts@contoso.com");
        scene.send(alerts, alerts, ann, &refusal);
        assert_eq!(
            scene.send(BOX, BOX, ann, &delivered()).verdict.outcome,
            DeliveryOutcome::Delivered,
            "{line}"
        );
        let other = scene.send(alerts, alerts, &["bob@fabrikam.com"], &delivered());
        assert_eq!(other.verdict.outcome, DeliveryOutcome::Delivered, "{line}");
        let again = scene.send(alerts, alerts, ann, &delivered());
        assert_eq!(again.verdict.outcome, DeliveryOutcome::RejectRecipient, "the pair is remembered: {line}");
        assert_eq!(scene.tried, 3, "{line}");
    }
}

#[test]
fn a_pair_that_is_accepted_later_is_free() {
    let mut scene = Scene::new();
    let refusal = read(DeliveryOutcome::RejectRecipient, "550 5.7.133 authentication required");
    scene.send_to("ann@fabrikam.com", &refusal);
    assert_eq!(scene.send_to("ann@fabrikam.com", &delivered()), DeliveryOutcome::RejectRecipient);
    scene.now += 300 * SECOND;
    assert_eq!(scene.send_to("ann@fabrikam.com", &delivered()), DeliveryOutcome::Delivered);
    assert!(!scene.offences.watches_authors());
}

#[test]
fn mistyped_addresses_among_many_good_ones_hold_nobody_back() {
    let mut scene = Scene::new();
    for n in 0..400 {
        let (to, answer) =
            (format!("user{n}@fabrikam.com"), if n % 20 == 0 { unknown_recipient() } else { delivered() });
        assert_ne!(scene.send_to(&to, &answer), HELD, "{n}");
        scene.now += 5 * SECOND;
    }
    assert_eq!(scene.tried, 400);
}

#[test]
fn too_many_recipients_at_once_are_not_tried_again_with_as_many() {
    let too_many = read(DeliveryOutcome::RejectMessage(None), "550 5.5.3 Too many recipients");
    let mut scene = Scene::new();
    scene.send(BOX, BOX, &["a@contoso.com", "b@contoso.com", "c@contoso.com"], &too_many);
    let same = scene.send(BOX, BOX, &["d@contoso.com", "e@contoso.com", "f@contoso.com"], &delivered());
    assert_eq!(same.verdict.outcome, too_many.verdict.outcome);
    assert_eq!(scene.tried, 1);
    assert_eq!(
        scene.send(BOX, BOX, &["a@contoso.com"], &delivered()).verdict.outcome,
        DeliveryOutcome::Delivered
    );
    scene.now += 300 * SECOND;
    let later = scene.send(BOX, BOX, &["d@contoso.com", "e@contoso.com", "f@contoso.com"], &delivered());
    assert_eq!(later.verdict.outcome, DeliveryOutcome::Delivered);
}

#[test]
fn a_message_refused_for_itself_is_nobodys_offence() {
    let mut scene = Scene::new();
    for _ in 0..50 {
        let refusal = read(DeliveryOutcome::RejectMessage(None), "550 5.6.0 content");
        assert_eq!(scene.send_to("ann@contoso.com", &refusal), DeliveryOutcome::RejectMessage(None));
    }
    assert_eq!(scene.tried, 50);
    assert!(!scene.offences.watches_authors());
}

#[test]
fn without_a_mailbox_nothing_is_watched() {
    let (now, to) = (crate::clock::now(), [address("gone@contoso.com")]);
    let mut offences = RejectionCache::new(SECOND, now);
    let message = MessageParties { mailbox: None, reverse_path: None, author: None, recipients: &to };
    for _ in 0..50 {
        offences.learn(&message, &unknown_recipient(), now);
        assert!(offences.foresees(&message, now).is_none());
    }
}

#[test]
fn memory_is_bounded() {
    let mut scene = Scene::new();
    for n in 0..5000 {
        let sender = format!("bad{n}@contoso.com");
        scene.send_as(&sender, &denied(&sender));
        scene.send_to(&format!("gone{n}@contoso.com"), &unknown_recipient());
        scene.send_to(&format!("good{n}@contoso.com"), &delivered());
        let pair = read(DeliveryOutcome::RejectRecipient, "550 5.7.133 authentication required");
        scene.send_to(&format!("group{n}@contoso.com"), &pair);
        scene.now += 400 * SECOND;
    }
    for watch in [&scene.offences.senders, &scene.offences.recipients] {
        assert!(watch.refused.0.len() <= REFUSED && watch.good.known.len() <= GOOD);
        assert_eq!(watch.good.known.len(), watch.good.order.len());
    }
    assert!(scene.offences.pairs.0.len() <= REFUSED);
}
