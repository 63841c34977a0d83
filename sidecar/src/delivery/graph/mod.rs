//! Microsoft Graph: each message is one POST to the mailbox's `sendMail`, in MIME format, over HTTPS.
//!
//! * Here: the order token → connection → request, the one answer to a refused token (another one, once), and what an answer
//!   says of the route.
//! * [`recipients`]: Graph has no envelope; the header is made to name it. [`content`]: the message in base64, streamed.
//! * [`fallback`]: the fallback, for what Graph cannot carry.
//! * [`client`]: the connection and the words. What an answer means is [`crate::outcome::graph`]'s to say.
//!
//! What Graph cannot carry (a null sender, header recipients outside the envelope, too large) is refused before it is asked.
//! All recipients of a message share one fate: it is never sent in parts. Only an archive copy is left out when Graph refuses the
//! message with it.
//!
//! Invariant: a message is sent again on another connection only while its content cannot have arrived as a whole.

pub mod client;
pub mod content;
pub mod fallback;
pub mod recipients;

use std::sync::Arc;

use async_trait::async_trait;
use mailroute_entra::web_proxy::{WebProxy, WrongProxy};
use mailroute_route::condition::Reason;
use mailroute_route::file::Graph;
use tokio::sync::watch;
use tokio::time::timeout;

use self::client::{GraphConnection, NoAnswer, SendMail};
use self::content::{Content, ContentError, Progress};
use self::recipients::HeaderProblem;
use super::login::{LogIn, Proof};
use super::pool::{Pool, Slot};
use super::transport::{PROBE_WAIT, TransportObserver, crowded, noted, redacted, tended};
use super::{DryRun, Transport};
use crate::clock;
use crate::message::body::Body;
use crate::message::envelope::{Envelope, ReversePath};
use crate::outcome::graph::{GraphReply, classify};
use crate::outcome::{
    AttemptResult, DeliveryOutcome, Observation, PartialDelivery, Probe, RefusedRecipient, Verdict,
};
use crate::smtp::reply::{EnhancedCode, Reply};

/// What a message needs that Graph cannot carry.
const SET_FALLBACK: &str =
    "send it otherwise, or have it go by client submission: spec.graph.fallback of the MailRoute";

/// Sends through Microsoft Graph, as one mailbox.
pub struct GraphTransport {
    settings: Graph,
    log_in: Arc<LogIn>,
    proxy: Result<Option<WebProxy>, WrongProxy>,
    pool: Pool<GraphConnection>,
    observe: Arc<dyn TransportObserver>,
}

/// What is sent.
enum Payload<'a> {
    Message(&'a Envelope, &'a Body),
    /// What is no message, and proves that one would be taken.
    Nothing,
}

impl GraphTransport {
    /// Requests as `settings` say, over up to `connections` at a time, with tokens of `log_in`.
    pub fn new(
        settings: Graph,
        log_in: Arc<LogIn>,
        proxy: Result<Option<WebProxy>, WrongProxy>,
        connections: usize,
        observe: Arc<dyn TransportObserver>,
    ) -> Self {
        Self { settings, log_in, proxy, pool: Pool::new(connections), observe }
    }

    /// Whether a slot is one of these connections.
    fn gave(&self, slot: &Slot<'_>) -> bool {
        self.pool.gave(slot)
    }

    /// One request, with another token if the first is refused.
    async fn request(
        &self,
        slot: &Slot<'_>,
        payload: &Payload<'_>,
        observations: &mut Vec<Observation>,
    ) -> Result<GraphReply, Verdict> {
        let proof = self.log_in.proof(observations).await?;
        let reply = self.request_with(slot, &proof, payload, observations).await?;
        if classify(&reply) != DeliveryOutcome::RefreshToken {
            self.log_in.accepted();
            return Ok(reply);
        }
        let Some(other) = self.log_in.other(&proof, observations).await else { return Ok(reply) };
        let reply = self.request_with(slot, &other?, payload, observations).await?;
        match classify(&reply) {
            DeliveryOutcome::RefreshToken => self.log_in.refused_again(),
            _ => self.log_in.accepted(),
        }
        Ok(reply)
    }

    async fn request_with(
        &self,
        slot: &Slot<'_>,
        proof: &Proof,
        payload: &Payload<'_>,
        observations: &mut Vec<Observation>,
    ) -> Result<GraphReply, Verdict> {
        loop {
            let kept = self.pool.kept(slot);
            let reused = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await.map_err(|verdict| noted(verdict, observations))?,
            };
            let progress = Progress::default();
            let (id, len, content) = match payload {
                Payload::Message(envelope, body) => {
                    let content = self
                        .content(envelope, body)
                        .await
                        .map_err(|verdict| noted_of_route(verdict, observations))?;
                    (envelope.id.as_str().to_owned(), content.encoded_len(), content.into_body(&progress))
                }
                Payload::Nothing => {
                    let (content, len) = content::no_message();
                    (format!("{:x?}", clock::nonce()), len, content)
                }
            };
            let mail = SendMail { bearer: proof.secret(), id: &id, len, content, progress: &progress };
            match connection.send(&self.settings, mail).await {
                Ok(reply) => {
                    observations.push(connected(&self.settings, &connection));
                    if connection.is_reusable().await {
                        self.pool.keep(connection);
                    }
                    return Ok(reply);
                }
                Err(NoAnswer::Unsent) if reused => {
                    tracing::debug!("the upstream closed the idle connection; connecting again");
                }
                Err(NoAnswer::Unsent) => return Err(noted(client::closed(), observations)),
                Err(NoAnswer::Broken(verdict)) => return Err(noted(*verdict, observations)),
            }
        }
    }

    async fn connect(&self) -> Result<GraphConnection, Verdict> {
        let connection = client::connect(&self.settings, &self.proxy).await?;
        self.observe.connected(connection.protection);
        Ok(connection)
    }

    /// The message as it is sent, or why Graph cannot carry it.
    async fn content(&self, envelope: &Envelope, body: &Body) -> Result<Content, Verdict> {
        if envelope.reverse_path == ReversePath::Null {
            let text = "Microsoft Graph cannot send with a null sender (MAIL FROM:<>)";
            // Nobody waits for it: it is a notification, or has nobody to be reported to.
            return Err(refusal(DeliveryOutcome::RejectMessage(None), (550, 7, 1), text, text));
        }
        let content = Content::of(body, &envelope.recipients).await.map_err(|error| match &error {
            ContentError::Header(problem) => cannot_carry((550, 6, 0), &problem.to_string(), &brief(problem)),
            ContentError::EndlessHeader => cannot_carry((552, 3, 4), &error.to_string(), &error.to_string()),
            ContentError::Read(_) => {
                Verdict::without_reply(DeliveryOutcome::Transient(None), error.to_string())
            }
        })?;
        let (len, most) = (content.octets(), self.settings.max_message_bytes);
        if len > most {
            let text = format!(
                "the message has {len} octets with the header lines that are added, and Microsoft Graph takes {most}"
            );
            return Err(cannot_carry((552, 3, 4), &text, &text));
        }
        Ok(content)
    }

    /// Sends a message to everybody in the envelope, or to nobody.
    async fn attempt(&self, slot: &Slot<'_>, envelope: &Envelope, body: &Body) -> AttemptResult {
        let mut observations = Vec::new();
        let verdict = match self.request(slot, &Payload::Message(envelope, body), &mut observations).await {
            Ok(reply) => self.conclude(&reply, &mut observations),
            Err(verdict) => verdict,
        };
        AttemptResult {
            verdict,
            refused: vec![],
            observations: redacted(observations, envelope),
            host: Some(self.settings.endpoint.host.clone()),
        }
    }

    /// What is known of the route when Graph answers `reply`.
    fn conclude(&self, reply: &GraphReply, observations: &mut Vec<Observation>) -> Verdict {
        let mut verdict = reply.verdict();
        if verdict.outcome == DeliveryOutcome::RefreshToken {
            verdict.outcome = DeliveryOutcome::RouteFault(Reason::GraphRejectedToken);
        }
        let verdict = noted_of_route(verdict, observations);
        if verdict.outcome == DeliveryOutcome::Delivered {
            observations.push(self.permitted("took a message"));
            observations.push(Observation::new(Reason::MailAccepted, verdict.text.clone()));
        }
        verdict
    }

    fn permitted(&self, what: &str) -> Observation {
        Observation::new(Reason::LoggedIn, format!("Microsoft Graph {what} as {}", self.settings.mailbox))
    }

    /// As far as a request that sends nothing.
    async fn walk(&self, slot: &Slot<'_>, observations: &mut Vec<Observation>) -> Result<(), Verdict> {
        let reply = self.request(slot, &Payload::Nothing, observations).await?;
        if reply.proves_permission() {
            observations.push(self.permitted(&format!("would send ({reply})")));
            return Ok(());
        }
        match self.conclude(&reply, observations) {
            // An answer that nobody has seen yet.
            verdict if verdict.outcome == DeliveryOutcome::Delivered => Ok(()),
            verdict => Err(verdict),
        }
    }
}

#[async_trait]
impl Transport for GraphTransport {
    async fn slot(&self, _: &Envelope, _: &Body) -> Result<Slot<'_>, Verdict> {
        self.pool.slot().await.ok_or_else(crowded)
    }

    async fn deliver(
        &self,
        slot: &Slot<'_>,
        envelope: &Envelope,
        body: &Body,
        _: PartialDelivery,
    ) -> AttemptResult {
        let result = self.attempt(slot, envelope, body).await;
        let archive = envelope.archive_position().filter(|&at| at > 0);
        let (Some(at), DeliveryOutcome::RejectMessage(None)) = (archive, result.verdict.outcome) else {
            return result;
        };
        // Graph does not say whom it refused. An archive copy must not keep the message from its recipients.
        let recipients = envelope.own_recipients().to_vec();
        let without = Envelope { recipients, archive: None, ..envelope.clone() };
        let mut again = self.attempt(slot, &without, body).await;
        if again.verdict.outcome == DeliveryOutcome::Delivered {
            again.refused.push(RefusedRecipient { recipient: at, verdict: result.verdict });
        }
        again
    }

    async fn refusal(&self, envelope: &Envelope, body: &Body) -> Option<Verdict> {
        self.content(envelope, body).await.err().filter(Verdict::is_final)
    }

    async fn probe(&self) -> Probe {
        let mut observations = Vec::new();
        // While all are in use, what they meet tells more than a probe could; it then ends without a finding.
        if let Ok(Some(slot)) = timeout(PROBE_WAIT, self.pool.slot()).await {
            // The observations tell it all.
            let _ = self.walk(&slot, &mut observations).await;
        }
        Probe { observations }
    }

    async fn dry_run(&self, _: &Envelope, dry_run: &mut DryRun) {
        let Some(slot) = self.pool.slot().await else { return };
        dry_run.stopped = self.walk(&slot, &mut dry_run.observations).await.err();
    }

    fn resize(&self, connections: usize) {
        self.pool.resize(connections);
    }

    async fn tend(&self, stop: watch::Receiver<bool>) {
        tended(&self.pool, stop).await;
    }
}

/// Adds what a verdict says about the route to what was met. What Graph cannot carry says nothing of the others.
fn noted_of_route(verdict: Verdict, observations: &mut Vec<Observation>) -> Verdict {
    match verdict.outcome.reason() {
        Some(Reason::GraphCannotCarry) => verdict,
        _ => noted(verdict, observations),
    }
}

/// The condition that a connection stands for.
fn connected(settings: &Graph, connection: &GraphConnection) -> Observation {
    let protection = connection.protection.as_str();
    Observation::new(Reason::Connected, format!("{} answered over {protection}", settings.endpoint.host))
}

/// The verdict on a message that Graph is not asked about: `said` to the application, `text` to everybody else.
fn refusal(
    outcome: DeliveryOutcome,
    (code, subject, detail): (u16, u16, u16),
    said: &str,
    text: &str,
) -> Verdict {
    let reply = Reply::new(code, EnhancedCode::new(5, subject, detail), said);
    Verdict { text: text.to_owned(), ..Verdict::of_reply(outcome, reply) }
}

fn cannot_carry(code: (u16, u16, u16), said: &str, text: &str) -> Verdict {
    let outcome = DeliveryOutcome::RejectMessage(Some(Reason::GraphCannotCarry));
    refusal(outcome, code, &format!("{said}; {SET_FALLBACK}"), text)
}

/// The problem without anybody's address.
fn brief(problem: &HeaderProblem) -> String {
    match problem {
        HeaderProblem::NotInEnvelope(_) => "To or Cc names recipients that the envelope does not".to_owned(),
        HeaderProblem::Ambiguous(_) | HeaderProblem::NoField => problem.to_string(),
    }
}
