//! Common faults by name, to switch on and off with one click. The control API's `/faults` has all others.

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::{Inbox, NotFound};
use crate::{
    dns::zone,
    faults::{
        DnsAction, Faults, GraphAction, GraphAnswer, HandshakeFault, LoginAction, Request, Rule, SmtpAction,
        Stage, Token,
    },
    replies::Line,
};

/// A fault with a name.
struct Switch {
    id: &'static str,
    /// The service that has it.
    service: &'static str,
    title: &'static str,
    /// What a client sees.
    effect: &'static str,
    fault: fn() -> Fault,
}

/// Where a fault is in [`Faults`].
enum Fault {
    /// A field that is true.
    Flag(fn(&mut Faults) -> &mut bool),
    /// The handshake of client submission.
    Handshake(HandshakeFault),
    /// A rule of client submission.
    Submission(Rule<Stage, SmtpAction>),
    /// A rule of Graph.
    Graph(Rule<Request, GraphAction>),
    /// A rule of the token endpoint.
    Login(Rule<Token, LoginAction>),
    /// A rule of the name server.
    Dns(Rule<zone::Kind, DnsAction>),
}

static SWITCHES: [Switch; 15] = [
    Switch {
        id: "submission-down",
        service: "Client submission",
        title: "Down",
        effect: "The port is closed and open connections are cut.",
        fault: || Fault::Flag(|faults| &mut faults.submission.down),
    },
    Switch {
        id: "submission-silent",
        service: "Client submission",
        title: "No answer",
        effect: "The TLS handshake never ends, so clients time out.",
        fault: || Fault::Handshake(HandshakeFault::Silence),
    },
    Switch {
        id: "submission-unavailable",
        service: "Client submission",
        title: "Service not available",
        effect: "MAIL is answered 421 4.3.2.",
        fault: || submission(Stage::Mail, SmtpAction::Reply(Line::ServiceNotAvailable.into())),
    },
    Switch {
        id: "submission-connections",
        service: "Client submission",
        title: "Too many connections",
        effect: "Messages are answered 432 4.3.2.",
        fault: || submission(Stage::EndOfData, SmtpAction::Reply(Line::ConcurrentConnections.into())),
    },
    Switch {
        id: "submission-login",
        service: "Client submission",
        title: "Logins refused",
        effect: "AUTH is answered 535 5.7.3.",
        fault: || submission(Stage::Auth, SmtpAction::Reply(Line::AuthUnsuccessful.into())),
    },
    Switch {
        id: "submission-lost-reply",
        service: "Client submission",
        title: "Lost replies",
        effect: "Every third message is accepted, but the connection is cut before the reply.",
        fault: || {
            let rule = Rule::always(Stage::EndOfData, SmtpAction::CutBeforeReply);
            Fault::Submission(Rule { every: Some(3), ..rule })
        },
    },
    Switch {
        id: "submission-slow",
        service: "Client submission",
        title: "Slow",
        effect: "Messages are answered after three seconds.",
        fault: || submission(Stage::EndOfData, SmtpAction::Delay(3000)),
    },
    Switch {
        id: "graph-down",
        service: "Graph",
        title: "Down",
        effect: "The port is closed and open connections are cut.",
        fault: || Fault::Flag(|faults| &mut faults.graph.down),
    },
    Switch {
        id: "graph-throttled",
        service: "Graph",
        title: "Throttled",
        effect: "Requests are answered 429 with Retry-After: 10.",
        fault: || graph(GraphAnswer::new(429).code("ApplicationThrottled").retry_after(10)),
    },
    Switch {
        id: "graph-error",
        service: "Graph",
        title: "Gateway timeout",
        effect: "Requests are answered 504, without the message.",
        fault: || graph(GraphAnswer::new(504).code("UnknownError")),
    },
    Switch {
        id: "login-down",
        service: "Entra",
        title: "Down",
        effect: "The port of the token endpoint is closed. Clients send until their token expires.",
        fault: || Fault::Flag(|faults| &mut faults.login.down),
    },
    Switch {
        id: "login-throttled",
        service: "Entra",
        title: "Throttled",
        effect: "Token requests are answered 429 with Retry-After: 60.",
        fault: || Fault::Login(Rule::always(Token::Token, LoginAction::TooManyRequests(60))),
    },
    Switch {
        id: "login-credential",
        service: "Entra",
        title: "Unknown federated credential",
        effect: "Token requests are answered AADSTS700213.",
        fault: || Fault::Login(Rule::always(Token::Token, LoginAction::Aadsts(700_213))),
    },
    Switch {
        id: "relay-down",
        service: "SMTP relay and Direct Send",
        title: "Down",
        effect: "The port of the MX endpoint is closed.",
        fault: || Fault::Flag(|faults| &mut faults.relay.down),
    },
    Switch {
        id: "dns-fails",
        service: "Name server",
        title: "MX queries fail",
        effect: "Queries for MX records are answered SERVFAIL.",
        fault: || Fault::Dns(Rule::always(zone::Kind::Mx, DnsAction::ServFail)),
    },
];

fn submission(stage: Stage, action: SmtpAction) -> Fault {
    Fault::Submission(Rule::always(stage, action))
}

fn graph(answer: GraphAnswer) -> Fault {
    Fault::Graph(Rule::always(Request::SendMail, GraphAction::Answer(answer)))
}

/// Every switch, and what else is on.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Switches {
    switches: Vec<Position>,
    /// Whether faults are on that have no switch.
    others: bool,
    /// All that is on, as the control API has it.
    faults: Faults,
}

/// One switch.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Position {
    id: &'static str,
    service: &'static str,
    title: &'static str,
    effect: &'static str,
    on: bool,
}

/// `{"on": true}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn {
    on: bool,
}

/// All switches.
pub(super) async fn list(State(inbox): State<Inbox>) -> Json<Switches> {
    let faults = inbox.shared.read(|office| office.faults.clone());
    let switches = SWITCHES.iter().map(|switch| switch.position(&faults)).collect();
    Json(Switches { switches, others: without_switches(&faults) != Faults::default(), faults })
}

/// One of them.
pub(super) async fn one(
    State(inbox): State<Inbox>,
    Path(id): Path<String>,
) -> Result<Json<Position>, NotFound> {
    let switch = find(&id)?;
    Ok(Json(inbox.shared.read(|office| switch.position(&office.faults))))
}

/// Switches a fault on or off; the others stay as they are.
pub(super) async fn put(
    State(inbox): State<Inbox>,
    Path(id): Path<String>,
    body: String,
) -> Result<Response, NotFound> {
    let switch = find(&id)?;
    let Ok(Turn { on }) = serde_json::from_str(&body) else {
        return Ok((StatusCode::BAD_REQUEST, "expected {\"on\": true} or {\"on\": false}\n").into_response());
    };
    tracing::info!(fault = switch.id, on, "fault switched");
    let position = inbox.shared.with(|office| {
        switch.set(&mut office.faults, on);
        switch.position(&office.faults)
    });
    Ok(Json(position).into_response())
}

/// How many faults are on; those without a switch count as one.
pub(super) fn on(faults: &Faults) -> usize {
    if *faults == Faults::default() {
        return 0;
    }
    let switched = SWITCHES.iter().filter(|switch| switch.is_on(faults)).count();
    switched + usize::from(without_switches(faults) != Faults::default())
}

fn find(id: &str) -> Result<&'static Switch, NotFound> {
    SWITCHES.iter().find(|switch| switch.id == id).ok_or(NotFound)
}

fn without_switches(faults: &Faults) -> Faults {
    let mut left = faults.clone();
    SWITCHES.iter().for_each(|switch| switch.set(&mut left, false));
    left
}

impl Switch {
    fn position(&self, faults: &Faults) -> Position {
        let Self { id, service, title, effect, .. } = *self;
        Position { id, service, title, effect, on: self.is_on(faults) }
    }

    fn is_on(&self, faults: &Faults) -> bool {
        match (self.fault)() {
            Fault::Flag(field) => *field(&mut faults.clone()),
            Fault::Handshake(fault) => faults.submission.handshake == fault,
            Fault::Submission(rule) => faults.submission.rules.iter().any(|known| known.is_like(&rule)),
            Fault::Graph(rule) => faults.graph.rules.iter().any(|known| known.is_like(&rule)),
            Fault::Login(rule) => faults.login.rules.iter().any(|known| known.is_like(&rule)),
            Fault::Dns(rule) => faults.dns.rules.iter().any(|known| known.is_like(&rule)),
        }
    }

    fn set(&self, faults: &mut Faults, on: bool) {
        match (self.fault)() {
            Fault::Flag(field) => *field(faults) = on,
            Fault::Handshake(fault) if on => faults.submission.handshake = fault,
            Fault::Handshake(fault) if faults.submission.handshake == fault => {
                faults.submission.handshake = HandshakeFault::None;
            }
            Fault::Handshake(_) => {}
            Fault::Submission(rule) => set_rule(&mut faults.submission.rules, rule, on),
            Fault::Graph(rule) => set_rule(&mut faults.graph.rules, rule, on),
            Fault::Login(rule) => set_rule(&mut faults.login.rules, rule, on),
            Fault::Dns(rule) => set_rule(&mut faults.dns.rules, rule, on),
        }
    }
}

/// Adds a rule in front of the others, so that it is the one that applies, or takes it away.
fn set_rule<At: PartialEq, Action: PartialEq>(
    rules: &mut Vec<Rule<At, Action>>,
    rule: Rule<At, Action>,
    on: bool,
) {
    rules.retain(|known| !known.is_like(&rule));
    if on {
        rules.insert(0, rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_switch_changes_the_faults_and_changes_them_back() {
        for switch in &SWITCHES {
            let mut faults = Faults::default();
            assert!(!switch.is_on(&faults), "{}", switch.id);
            switch.set(&mut faults, true);
            assert!(switch.is_on(&faults), "{}", switch.id);
            assert_eq!((on(&faults), without_switches(&faults)), (1, Faults::default()), "{}", switch.id);
            switch.set(&mut faults, true);
            switch.set(&mut faults, false);
            assert_eq!(faults, Faults::default(), "{}", switch.id);
        }
    }

    #[test]
    fn a_rule_that_was_used_is_still_known() {
        let mut faults = Faults::default();
        let switch = find("submission-lost-reply").unwrap();
        switch.set(&mut faults, true);
        faults.submission.take(Stage::EndOfData);
        assert!(switch.is_on(&faults));
        switch.set(&mut faults, false);
        assert_eq!(faults, Faults::default());
    }

    #[test]
    fn faults_of_others_stay_and_are_counted() {
        let mut faults = Faults::default();
        faults.submission.rules.push(Rule::times(Stage::Mail, SmtpAction::Cut, 1));
        let before = faults.clone();
        assert_eq!(on(&faults), 1);
        let switch = find("submission-unavailable").unwrap();
        switch.set(&mut faults, true);
        assert_eq!(on(&faults), 2);
        switch.set(&mut faults, false);
        assert_eq!(faults, before);
    }
}
