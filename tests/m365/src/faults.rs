//! What can be switched on: replies, cuts and delays in the SMTP dialog, and errors of the token endpoint, the name server and
//! Graph.
//!
//! Pure data and the rule that picks what is due next. It refuses to know how a reply is sent.

mod graph;

use serde::{Deserialize, Serialize};

pub use graph::{GraphAction, GraphAnswer, GraphFaults, Request};

use crate::{dns::zone::Kind, mailbox::Face, replies::ReplyText};

/// Everything that is switched on. The default is a service in good health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Faults {
    /// SMTP submission.
    pub submission: SmtpFaults,
    /// The MX endpoint on port 25.
    pub relay: SmtpFaults,
    /// High Volume Email.
    pub high_volume_email: SmtpFaults,
    /// Communication Services.
    pub communication_services: SmtpFaults,
    /// Graph.
    pub graph: GraphFaults,
    /// Token endpoint.
    pub login: LoginFaults,
    /// Name server.
    pub dns: DnsFaults,
}

/// Faults of an SMTP face.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SmtpFaults {
    /// The port is closed: connections are refused and open ones cut.
    pub down: bool,
    /// STARTTLS is neither announced nor obeyed.
    pub without_start_tls: bool,
    /// How the TLS handshake goes.
    pub handshake: HandshakeFault,
    /// A failed XOAUTH2 is first answered `334 <base64 JSON>`, as Google does; the final 535 follows an empty line.
    pub challenge_before_refusal: bool,
    /// What happens at which stage.
    pub rules: Vec<Rule<Stage, SmtpAction>>,
}

/// Faults of the submission face.
pub type SubmissionFaults = SmtpFaults;

/// Faults of the token endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoginFaults {
    /// The port is closed: connections are refused and open ones cut.
    pub down: bool,
    /// `expires_in` is a string instead of a number.
    pub expires_in_as_string: bool,
    /// Which answers replace the proper one.
    pub rules: Vec<Rule<Token, LoginAction>>,
}

/// Faults of the name server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DnsFaults {
    /// Which answers replace the proper ones; the stage is the kind of record that is asked for.
    pub rules: Vec<Rule<Kind, DnsAction>>,
}

/// One fault: where, what, how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule<At, Action> {
    /// Where it applies.
    #[serde(default = "Default::default", bound(deserialize = "At: Default + Deserialize<'de>"))]
    pub stage: At,
    /// What happens.
    pub action: Action,
    /// How often it happens before it is used up; absent means until cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// It happens at every n-th opportunity only, beginning with the first; for trouble that comes and goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u32>,
    /// Opportunities seen so far.
    #[serde(skip)]
    pub seen: u32,
}

/// A point in the SMTP dialog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// The banner.
    Connect,
    /// EHLO and HELO.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA or BDAT, before the message.
    Data,
    /// After the last chunk of a message that comes with BDAT, before `EndOfData`.
    Bdat,
    /// After the message.
    #[default]
    EndOfData,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
}

/// What happens at a stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SmtpAction {
    /// This reply, and nothing else is done. A 421 also closes the connection.
    Reply(ReplyText),
    /// The proper reply, but after so many milliseconds.
    Delay(u64),
    /// The proper reply, so many milliseconds for each of its bytes.
    Drip(u64),
    /// The proper reply with this text behind it in the same packet, as an attacker in the middle would add it at STARTTLS.
    Append(String),
    /// No reply, ever, and nothing is done.
    Silence,
    /// The connection is cut and nothing is done: at the end of data the message is lost.
    Cut,
    /// The command is carried out and the connection cut before its reply: at the end of data the message is kept.
    CutBeforeReply,
    /// The command is carried out and the connection cut right after its reply.
    CutAfterReply,
}

/// What goes wrong in the handshake after STARTTLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HandshakeFault {
    /// Nothing.
    #[default]
    None,
    /// A trusted certificate of another name.
    OtherName,
    /// The alert `protocol_version`, as a server gives it that knows nothing newer than TLS 1.1.
    OldVersion,
    /// The connection is cut instead of a handshake.
    Cut,
    /// Nothing is said until the client gives up.
    Silence,
}

/// The token endpoint has a single stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Token {
    /// A token is asked for.
    #[default]
    Token,
}

/// What the token endpoint does instead of its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LoginAction {
    /// 429 with the plain text `Too Many Requests` and `Retry-After` in seconds.
    TooManyRequests(u64),
    /// 502 with a page of HTML.
    BadGateway,
    /// 503 with `Retry-After` in seconds when given.
    ServiceUnavailable(Option<u64>),
    /// The JSON error of this AADSTS code, for example 700213 while a federated credential spreads.
    Aadsts(u32),
    /// The proper answer, but after so many milliseconds.
    Delay(u64),
    /// The connection is cut without an answer.
    Cut,
}

/// An action of a rule.
trait Act: Clone {
    /// How long the proper answer waits, milliseconds, when that is all that happens.
    fn delay(&self) -> Option<u64>;
}

/// What is due at `stage`: all delays together, and the first other action.
fn take<At: PartialEq + Copy, Action: Act>(
    rules: &mut [Rule<At, Action>],
    stage: At,
) -> (u64, Option<Action>) {
    let mut delay = 0;
    for action in rules.iter_mut().filter_map(|rule| rule.take(stage)) {
        match action.delay() {
            Some(milliseconds) => delay += milliseconds,
            None => return (delay, Some(action)),
        }
    }
    (delay, None)
}

impl<At: PartialEq, Action: PartialEq> Rule<At, Action> {
    /// Whether it is the same rule, however often it was looked at or applied.
    pub fn is_like(&self, other: &Self) -> bool {
        self.stage == other.stage
            && self.action == other.action
            && self.every == other.every
            && self.times.is_some() == other.times.is_some()
    }
}

impl<At: PartialEq + Copy, Action: Clone> Rule<At, Action> {
    /// A rule that holds until it is cleared.
    pub fn always(stage: At, action: Action) -> Self {
        Self { stage, action, times: None, every: None, seen: 0 }
    }

    /// A rule that holds for the next `times` opportunities.
    pub fn times(stage: At, action: Action, times: u32) -> Self {
        Self { times: Some(times), ..Self::always(stage, action) }
    }

    /// Counts an opportunity at `stage`, and says what is to happen, if anything.
    fn take(&mut self, stage: At) -> Option<Action> {
        if self.stage != stage || self.times == Some(0) {
            return None;
        }
        let turn = self.seen;
        self.seen = self.seen.wrapping_add(1);
        if !turn.is_multiple_of(self.every.unwrap_or(1).max(1)) {
            return None;
        }
        if let Some(left) = &mut self.times {
            *left -= 1;
        }
        Some(self.action.clone())
    }
}

impl Faults {
    /// Those of an SMTP face; none of Graph.
    #[must_use]
    pub fn of(&self, face: Face) -> Option<&SmtpFaults> {
        match face {
            Face::Submission => Some(&self.submission),
            Face::Relay => Some(&self.relay),
            Face::HighVolumeEmail => Some(&self.high_volume_email),
            Face::CommunicationServices => Some(&self.communication_services),
            Face::Graph => None,
        }
    }

    /// Those of an SMTP face, to take from.
    pub fn of_mut(&mut self, face: Face) -> Option<&mut SmtpFaults> {
        match face {
            Face::Submission => Some(&mut self.submission),
            Face::Relay => Some(&mut self.relay),
            Face::HighVolumeEmail => Some(&mut self.high_volume_email),
            Face::CommunicationServices => Some(&mut self.communication_services),
            Face::Graph => None,
        }
    }
}

impl Act for SmtpAction {
    fn delay(&self) -> Option<u64> {
        if let Self::Delay(milliseconds) = self { Some(*milliseconds) } else { None }
    }
}

impl SmtpFaults {
    /// What is due at `stage`: all delays together, and the first other action.
    pub fn take(&mut self, stage: Stage) -> (u64, Option<SmtpAction>) {
        take(&mut self.rules, stage)
    }
}

/// What the name server does instead of its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DnsAction {
    /// `SERVFAIL`.
    ServFail,
    /// `REFUSED`.
    Refused,
    /// There is no such name.
    NxDomain,
    /// The name has no records of that kind.
    NoData,
    /// No answer; over TCP the connection is cut.
    Silence,
    /// Over UDP nothing but the word that it does not fit; over TCP the proper answer.
    Truncate,
    /// The domain takes no mail (RFC 7505).
    NullMx,
    /// The domain's mail goes to this host, which is not Microsoft's.
    ForeignMx(String),
    /// The proper answer, but after so many milliseconds.
    Delay(u64),
}

impl Act for DnsAction {
    fn delay(&self) -> Option<u64> {
        if let Self::Delay(milliseconds) = self { Some(*milliseconds) } else { None }
    }
}

impl DnsFaults {
    /// What is due for the next question of this kind: all delays together, and the first other action.
    pub fn take(&mut self, kind: Kind) -> (u64, Option<DnsAction>) {
        take(&mut self.rules, kind)
    }
}

impl Act for LoginAction {
    fn delay(&self) -> Option<u64> {
        if let Self::Delay(milliseconds) = self { Some(*milliseconds) } else { None }
    }
}

impl LoginFaults {
    /// What is due for the next token request: all delays together, and the first other action.
    pub fn take(&mut self) -> (u64, Option<LoginAction>) {
        take(&mut self.rules, Token::Token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replies::Line;

    fn refusal() -> SmtpAction {
        SmtpAction::Reply(Line::ConcurrentConnections.into())
    }

    #[test]
    fn a_rule_is_used_up_after_its_times() {
        let mut faults =
            SubmissionFaults { rules: vec![Rule::times(Stage::Mail, refusal(), 2)], ..Default::default() };
        let hits: Vec<bool> = (0..4).map(|_| faults.take(Stage::Mail).1.is_some()).collect();
        assert_eq!(hits, [true, true, false, false]);
    }

    #[test]
    fn a_rule_leaves_other_stages_alone() {
        let mut faults =
            SubmissionFaults { rules: vec![Rule::always(Stage::Mail, refusal())], ..Default::default() };
        assert_eq!(faults.take(Stage::Rcpt), (0, None));
    }

    #[test]
    fn every_second_opportunity_comes_and_goes() {
        let rule = Rule { every: Some(2), ..Rule::always(Token::Token, LoginAction::Aadsts(700_213)) };
        let mut faults = LoginFaults { rules: vec![rule], ..Default::default() };
        let hits: Vec<bool> = (0..4).map(|_| faults.take().1.is_some()).collect();
        assert_eq!(hits, [true, false, true, false]);
    }

    #[test]
    fn delays_add_up_beside_an_action() {
        let rules = vec![
            Rule::always(Stage::Mail, SmtpAction::Delay(20)),
            Rule::always(Stage::Mail, SmtpAction::Delay(30)),
            Rule::always(Stage::Mail, refusal()),
        ];
        let mut faults = SubmissionFaults { rules, ..Default::default() };
        assert_eq!(faults.take(Stage::Mail), (50, Some(refusal())));
    }

    #[test]
    fn the_documented_json_is_read() {
        let text = r#"{"submission": {"rules": [
            {"stage": "endOfData", "action": {"reply": "ConcurrentConnections"}, "times": 3},
            {"stage": "mail", "action": {"reply": "451 4.7.0 Try again"}},
            {"stage": "rcpt", "action": "cutBeforeReply"}]},
            "login": {"rules": [{"action": {"tooManyRequests": 60}}, {"action": {"serviceUnavailable": null}}]}}"#;
        let faults: Faults = serde_json::from_str(text).unwrap();
        assert_eq!(faults.submission.rules.len(), 3);
        assert_eq!(faults.login.rules[0].action, LoginAction::TooManyRequests(60));
        let again: Faults = serde_json::from_str(&serde_json::to_string(&faults).unwrap()).unwrap();
        assert_eq!(again, faults);
    }

    #[test]
    fn an_unknown_reply_name_is_refused_and_the_names_are_listed() {
        let text = r#"{"submission": {"rules": [{"stage": "mail", "action": {"reply": "NoSuchLine"}}]}}"#;
        let error = serde_json::from_str::<Faults>(text).unwrap_err().to_string();
        assert!(error.contains("ConcurrentConnections"), "{error}");
    }
}
