//! What the replies to MAIL and RCPT come to, whether the content follows them or went with them. Pure.

use crate::message::envelope::Envelope;
use crate::outcome::classify::{Stage, classify};
use crate::outcome::{DeliveryOutcome, PartialDelivery, RefusedRecipient, Verdict};
use crate::smtp::reply::{EnhancedCode, Reply};

/// What the replies to the envelope come to.
pub struct EnvelopeVerdict {
    /// The fate of the message, when it goes no further.
    pub stop: Option<Verdict>,
    /// The recipients that were refused.
    pub refused: Vec<RefusedRecipient>,
    /// How many were accepted.
    pub accepted: usize,
}

/// The verdict on the envelope, by the replies to MAIL and RCPT as far as they came.
pub fn judge(replies: &[Reply], envelope: &Envelope, partial: PartialDelivery) -> EnvelopeVerdict {
    let verdict = |stage, reply: &Reply| Verdict::of_reply(classify(stage, reply), reply.clone());
    let stopped = |verdict| EnvelopeVerdict { stop: Some(verdict), refused: vec![], accepted: 0 };
    let Some((mail, rest)) = replies.split_first() else {
        return stopped(Verdict::of_reply(DeliveryOutcome::Transient(None), no_reply()));
    };
    if mail.code / 100 != 2 {
        return stopped(verdict(Stage::Mail, mail));
    }
    let answers = rest.iter().take(envelope.recipients.len()).enumerate();
    let refused: Vec<RefusedRecipient> = answers
        .clone()
        .filter(|(_, reply)| reply.code / 100 != 2)
        .map(|(recipient, reply)| RefusedRecipient { recipient, verdict: verdict(Stage::Rcpt, reply) })
        .collect();
    let accepted = answers.len() - refused.len();
    // The end of the conversation is about those that it left without an answer, too, and about those accepted before.
    let farewell = refused.last().filter(|last| last.verdict.reply.as_ref().is_some_and(|it| it.code == 421));
    let stop = if farewell.is_some() || answers.len() < envelope.recipients.len() {
        let silence = || Verdict::of_reply(DeliveryOutcome::Transient(None), no_reply());
        Some(farewell.map_or_else(silence, |last| last.verdict.clone()))
    } else {
        stopped_by(&refused, accepted, envelope, partial).cloned()
    };
    EnvelopeVerdict { stop, refused, accepted }
}

/// The refusal that keeps the message from everybody, if one does. That of the archive copy does not.
fn stopped_by<'r>(
    refused: &'r [RefusedRecipient],
    accepted: usize,
    envelope: &Envelope,
    partial: PartialDelivery,
) -> Option<&'r Verdict> {
    let archive = envelope.archive_position().filter(|&at| at > 0);
    let own: Vec<_> = refused.iter().filter(|one| Some(one.recipient) != archive).collect();
    (accepted == 0 || stops(&own, partial)).then(|| gravest(&own)).flatten()
}

/// Whether these refusals keep the message from those who were accepted.
fn stops(refused: &[&RefusedRecipient], partial: PartialDelivery) -> bool {
    match partial {
        PartialDelivery::Never => !refused.is_empty(),
        PartialDelivery::UnlessRejected => refused.iter().any(|one| {
            matches!(
                one.verdict.outcome,
                DeliveryOutcome::RejectRecipient | DeliveryOutcome::RejectMessage(_)
            )
        }),
        PartialDelivery::Always => false,
    }
}

/// The refusal that speaks for the message: what stops the route before what will never work before what may.
fn gravest<'r>(refused: &[&'r RefusedRecipient]) -> Option<&'r Verdict> {
    let rank = |outcome: DeliveryOutcome| match outcome {
        DeliveryOutcome::RouteFault(_) | DeliveryOutcome::Quota(_) => 0,
        DeliveryOutcome::RejectMessage(_) | DeliveryOutcome::RejectRecipient => 1,
        _ => 2,
    };
    refused.iter().map(|one| &one.verdict).min_by_key(|verdict| rank(verdict.outcome))
}

/// What stands for a reply that did not come.
pub fn no_reply() -> Reply {
    Reply::new(451, EnhancedCode::new(4, 4, 2), "the upstream closed the connection")
}
