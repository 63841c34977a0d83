//! From what a walk met to steps that a person can read: how far it came, what was met at each, and what to do.
//!
//! Pure. The delivering code tells conditions, answers and a verdict; here they are put in the order in which the way
//! goes. Refuses to know how the walk was made and how the steps are printed.

use jiff::Timestamp;
use mailroute_route::RouteFile;
use mailroute_route::condition::{ConditionType, Reason, Subject};
use mailroute_route::file::{Credential, HostName, Method, SmartHost};
use serde::Serialize;

use super::places::{self, Place, end, follows};
use crate::delivery::DryRun;
use crate::message::envelope::Envelope;
use crate::outcome::classify::Stage;
use crate::outcome::hint;
use crate::outcome::{DeliveryOutcome, Observation, Verdict};
use crate::queue::Obstacle;

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// As it should be.
    Ok,
    /// Good for now, with something to do.
    Warning,
    /// The way ends here.
    Failed,
    /// The way ended before.
    NotReached,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Where.
    pub step: Place,
    /// What came of it.
    pub state: State,
    /// Why, where there is a constant for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What was met, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub met: String,
    /// What it means, where it is not as it should be.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub meaning: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// What a check found for one mailbox of several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MailboxFindings {
    /// The mailbox.
    pub mailbox: String,
    /// Whether it could send a message.
    pub well: bool,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// What a check found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Findings {
    /// `namespace/name` of the route, when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// Whether a message could be sent.
    pub well: bool,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The mailbox whose steps these are, where the route has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<String>,
    /// What was found for each further mailbox; none where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mailboxes: Vec<MailboxFindings>,
    /// The steps of the fallback, for what the first cannot carry; none where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallback: Vec<Step>,
    /// Whether the MailRoute of the pod was deleted; the steps are those of its last configuration.
    pub route_deleted: bool,
}

impl Findings {
    /// Whether a message could be sent.
    pub const fn is_well(&self) -> bool {
        self.well
    }

    /// There is no route to check.
    pub fn without_route(error: String) -> Self {
        let remedy = "The operator writes this file into the ConfigMap of the route: see kubectl describe mailroute, and \
                      whether operator and sidecar are of the same version."
            .into();
        let step = Step {
            state: State::Failed,
            meaning: "There is no route to check.".into(),
            remedy,
            ..plain(Place::Route, error)
        };
        Self { steps: vec![step], ..Self::default() }
    }

    /// What `dry_run` met on the way that `route` describes.
    pub fn of(route: &RouteFile, envelope: &Envelope, dry_run: &DryRun) -> Self {
        let places = places::places(&route.method);
        let end = dry_run.stopped.as_ref().map(|stopped| end(stopped, dry_run, &places));
        let mut steps = Vec::with_capacity(places.len());
        for &place in &places {
            let step = match (&dry_run.stopped, end) {
                (Some(stopped), Some(end)) if place == end => failed(place, stopped, dry_run, route),
                _ if end.is_some_and(|end| follows(place, end, &places)) => passed_by(place),
                _ => passed(place, route, envelope, dry_run),
            };
            steps.push(step);
        }
        let name = format!("{}/{}", route.namespace, route.name);
        let mailbox = route.method.mailbox().map(str::to_owned);
        Self { route: Some(name), well: dry_run.stopped.is_none(), steps, mailbox, ..Self::default() }
    }
}

impl Findings {
    /// What was found for each of a route's mailboxes, of which there is at least one.
    pub fn of_mailboxes(each: Vec<Self>) -> Self {
        let mut each = each.into_iter();
        let mut first = each.next().unwrap_or_default();
        let further = |one: Self| MailboxFindings {
            mailbox: one.mailbox.unwrap_or_default(),
            well: one.well,
            steps: one.steps,
        };
        first.mailboxes = each.map(further).collect();
        if first.mailboxes.is_empty() {
            first.mailbox = None;
        }
        first.well &= first.mailboxes.iter().all(|one| one.well);
        first
    }

    /// The mailboxes that cannot send, where there are several.
    pub fn failing_mailboxes(&self) -> Vec<&str> {
        let fails = |steps: &[Step]| {
            steps.iter().any(|step| step.state == State::Failed && step.step != Place::Sidecar)
        };
        let first = self.mailbox.as_deref().filter(|_| fails(&self.steps));
        let further = self.mailboxes.iter().filter(|one| !one.well).map(|one| one.mailbox.as_str());
        first.into_iter().chain(further).collect()
    }

    /// The same, with what was met on the fallback. A message that needs it could not be sent where that one ends.
    pub fn with_fallback(mut self, second: Self) -> Self {
        self.fallback = second.steps;
        self.well &= second.well;
        self
    }

    /// The same, with what the running sidecar holds its mail back for. Where it is only how messages are spread, mail
    /// goes out a little later.
    pub fn beside(mut self, obstacle: &Obstacle, route: &RouteFile) -> Self {
        let until = obstacle.until.and_then(|until| Timestamp::from_second(until.as_second()).ok());
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        let (meaning, remedy) = match obstacle.reason {
            Some(reason) => explained(reason, route),
            None => (String::new(), String::new()),
        };
        let only_mail_tells =
            obstacle.reason.is_some_and(|reason| reason.condition() == ConditionType::SendersAccepted);
        let remedy = match (obstacle.limits, self.well) {
            (false, true) if only_mail_tells => format!(
                "{remedy} check sends no message, so it cannot tell whether this is over. To try one message now: \
                 mailroute-sidecar queue retry --all"
            ),
            (false, true) => {
                "Microsoft 365 can be reached again. To end the pause: mailroute-sidecar queue retry --all"
                    .into()
            }
            _ => remedy,
        };
        let is_smoothing = obstacle.limits && obstacle.reason.is_none();
        let state = if is_smoothing { State::Warning } else { State::Failed };
        let met = format!("holds mail back{until}: {}", obstacle.text);
        self.steps.push(Step { step: Place::Sidecar, state, reason: obstacle.reason, met, meaning, remedy });
        self.well &= is_smoothing;
        self
    }
}

fn failed(place: Place, stopped: &Verdict, dry_run: &DryRun, route: &RouteFile) -> Step {
    let reason = stopped.outcome.reason();
    // The condition's own words say more than the reply alone: what was presented, and from where.
    let told = dry_run.observations.iter().rfind(|met| Some(met.reason) == reason && !met.reason.holds());
    let met = told.map_or_else(|| stopped.text.clone(), |met| met.text.clone());
    let (meaning, remedy) = match reason {
        Some(reason) => explained(reason, route),
        None => without_reason(stopped),
    };
    Step { step: place, state: State::Failed, reason, met, meaning, remedy }
}

/// What it means and what to do where the trouble is not the route's.
fn without_reason(stopped: &Verdict) -> (String, String) {
    let (meaning, remedy) = match stopped.outcome {
        DeliveryOutcome::RejectRecipient => ("This concerns only the recipient.", "Name another with --to."),
        DeliveryOutcome::RejectMessage(_) => {
            ("This concerns only the sender or the message.", "Name another sender with --from.")
        }
        _ => ("This may be temporary.", "Try again."),
    };
    match stopped.reply.as_ref().and_then(hint::of) {
        Some(hint) => (format!("{meaning} The likely cause: {hint}."), remedy.into()),
        None => (meaning.into(), remedy.into()),
    }
}

fn passed_by(place: Place) -> Step {
    Step { state: State::NotReached, ..plain(place, String::new()) }
}

fn passed(place: Place, route: &RouteFile, envelope: &Envelope, dry_run: &DryRun) -> Step {
    let told = |condition: ConditionType| {
        dry_run.observations.iter().rfind(|met| met.condition() == condition && met.reason.holds())
    };
    let answer = |stage: Stage| {
        let said = dry_run.answers.iter().find(|(of, _)| *of == stage);
        said.map(|(_, said)| said.clone()).unwrap_or_default()
    };
    match place {
        Place::Certificate => met(place, told(ConditionType::CertificateValid), route),
        Place::Token | Place::Password => met(place, told(ConditionType::CredentialReady), route),
        Place::Tls => met(place, told(ConditionType::UpstreamReachable), route),
        Place::LogIn | Place::Permission => met(place, told(ConditionType::Authenticated), route),
        Place::Route => plain(place, described(route)),
        Place::Name => plain(place, host(route)),
        Place::Connection => plain(place, format!("port {}", port(route))),
        Place::Greeting => plain(place, "greeted, and EHLO answered".into()),
        // Not on the way: see `Findings::beside`.
        Place::Sidecar => plain(place, String::new()),
        Place::Sender => plain(place, format!("{}: {}", envelope.reverse_path, answer(Stage::Mail))),
        Place::Recipient => {
            let recipients: Vec<_> = envelope.recipients.iter().map(|to| format!("<{to}>")).collect();
            let said = format!("{}: {}", recipients.join(", "), answer(Stage::Rcpt));
            match told(ConditionType::Authenticated).filter(|met| met.reason == Reason::ConnectorMatched) {
                Some(matched) => plain(place, format!("{said}; {}", matched.text)),
                None => plain(place, said),
            }
        }
    }
}

fn plain(place: Place, met: String) -> Step {
    Step { step: place, state: State::Ok, reason: None, met, meaning: String::new(), remedy: String::new() }
}

/// A step that a condition speaks for.
fn met(place: Place, told: Option<&Observation>, route: &RouteFile) -> Step {
    let Some(Observation { reason, text, .. }) = told else { return plain(place, String::new()) };
    let step = Step { reason: Some(*reason), ..plain(place, text.clone()) };
    match explained(*reason, route) {
        (_, remedy) if remedy.is_empty() => step,
        (meaning, remedy) => Step { state: State::Warning, meaning, remedy, ..step },
    }
}

/// What a reason means, and what to do about it.
fn explained(reason: Reason, route: &RouteFile) -> (String, String) {
    (reason.sentence().to_owned(), reason.remedy(&subject(route, &endpoint(route))))
}

fn described(route: &RouteFile) -> String {
    let method = route.method.as_str();
    let who = route.method.mailbox().map(|mailbox| format!(" as {mailbox}")).unwrap_or_default();
    format!("{} in namespace {}, generation {}: {method}{who}", route.name, route.namespace, route.generation)
}

fn smart_host(method: &Method) -> Option<&SmartHost> {
    match method {
        Method::ClientSubmission(_) | Method::Graph(_) => None,
        Method::SmtpRelay(relay) => Some(&relay.smart_host),
        Method::DirectSend(direct) => Some(&direct.smart_host),
    }
}

fn host(route: &RouteFile) -> String {
    match smart_host(&route.method).map(|smart_host| &smart_host.host) {
        Some(HostName::Fixed(host)) => host.clone(),
        Some(HostName::MxOf(domain)) => format!("the MX record of {domain}"),
        None => route.method.log_in().map(|it| it.endpoint.host.clone()).unwrap_or_default(),
    }
}

fn port(route: &RouteFile) -> u16 {
    let smart_host = smart_host(&route.method).map(|smart_host| smart_host.port);
    smart_host.or_else(|| route.method.log_in().map(|it| it.endpoint.port)).unwrap_or_default()
}

fn endpoint(route: &RouteFile) -> String {
    format!("{}:{}", host(route), port(route))
}

/// The names for a remedy. Where the file does not name the Secret, the field of the MailRoute stands for it.
fn subject<'a>(route: &'a RouteFile, endpoint: &'a str) -> Subject<'a> {
    let log_in = route.method.log_in();
    let client_id = log_in.map(|log_in| match log_in.credential {
        Credential::WorkloadIdentity { client_id, .. }
        | Credential::ClientSecret { client_id, .. }
        | Credential::ClientCertificate { client_id, .. }
        | Credential::Operator { client_id } => client_id.as_str(),
        Credential::Password { .. } => "",
    });
    Subject {
        route: &route.name,
        mailbox: route.method.mailbox().unwrap_or_default(),
        client_id: client_id.unwrap_or_default(),
        tenant: log_in.map(|it| it.authority.tenant.as_str()).unwrap_or_default(),
        endpoint,
        authority: log_in.map(|it| it.authority.host.as_str()).unwrap_or_default(),
        secret: match (&route.secret, smart_host(&route.method)) {
            (Some(name), _) => name,
            (None, Some(_)) => "<certificateSecretRef.name>",
            (None, None) => "<secretRef.name>",
        },
        key: "<secretRef.key>",
    }
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
