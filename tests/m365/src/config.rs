//! The one JSON document that sets the simulator up: directory, limits, tokens and pace.
//!
//! Plain data with Microsoft's figures as defaults. It refuses to know how any of it is enforced. Given by `--config`
//! and replaced as a whole by `PUT /config`.

mod services;

use serde::{Deserialize, Serialize};

use crate::{
    directory::{Directory, Network},
    dns::zone::Dns,
};

pub use services::{
    CommunicationServices, ConcurrencyPer, EndingToken, Graph, HighVolumeEmail, Oversize, RefusedAt,
};

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Tenants, applications, mailboxes and issuers.
    pub directory: Directory,
    /// What a mailbox may send.
    #[serde(default)]
    pub limits: Limits,
    /// Access tokens.
    #[serde(default)]
    pub tokens: Tokens,
    /// The MX endpoint on port 25.
    #[serde(default)]
    pub relay: Relay,
    /// Graph's `sendMail`.
    #[serde(default)]
    pub graph: Graph,
    /// High Volume Email.
    #[serde(default)]
    pub high_volume_email: HighVolumeEmail,
    /// Azure Communication Services, SMTP.
    #[serde(default)]
    pub communication_services: CommunicationServices,
    /// The name server.
    #[serde(default)]
    pub dns: Dns,
    /// Delays and timeouts.
    #[serde(default)]
    pub pace: Pace,
    /// What is looked at and kept.
    #[serde(default)]
    pub record: Record,
}

/// Limits of client submission. Source: Exchange Online limits, "Sending limits" and "SMTP AUTH".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Messages of one mailbox in any 60 seconds; 0 is no limit, and no count.
    pub messages_per_minute: usize,
    /// What happens to the message after that.
    pub over_rate: OverRate,
    /// How long the minute of `messages_per_minute` is, milliseconds. Less than 60 000 is for tests in a hurry.
    pub minute_milliseconds: u64,
    /// Recipients of one mailbox in any 24 hours; 0 is no limit, and no count.
    pub recipients_per_day: usize,
    /// How long the day of `recipients_per_day` is, milliseconds. Less than 86 400 000 is for tests in a hurry.
    pub day_milliseconds: u64,
    /// Connections of one mailbox that may be submitting at the same time; 0 is no limit.
    pub submitting_connections: usize,
    /// Recipients of one message (`RecipientLimits`).
    pub recipients_per_message: usize,
    /// Recipients of one domain in one transaction; the next one draws 4.5.3.
    pub recipients_per_domain: usize,
    /// The number behind `SIZE` in EHLO, bytes.
    pub advertised_size: usize,
    /// Largest message of a mailbox, bytes (`MaxSendSize`).
    pub message_bytes: usize,
    /// SendAsDenied answers within an hour after which the whole mailbox is barred: 550 5.2.252.
    pub continuous_errors: usize,
    /// How long it stays barred, seconds.
    pub barred_seconds: u64,
    /// External recipients of a tenant's `*.onmicrosoft.com` senders in any 24 hours, by every way but High Volume Email
    /// and Communication Services; 0 is no limit. The limit of all senders is a tenant's own: `externalRecipientsPerDay`.
    pub onmicrosoft_recipients_per_day: u64,
}

/// What Exchange Online does with messages above the rate. Both have been reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OverRate {
    /// 421 4.4.2 at MAIL and a closed connection.
    #[default]
    Refuse,
    /// The reply to MAIL waits until the minute has room.
    Delay,
}

/// The MX endpoint: SMTP relay and Direct Send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Relay {
    /// Addresses whose mail is refused: 550 5.7.606.
    pub banned_addresses: Vec<Network>,
    /// Addresses that are put off unless a connector matches: 451 4.7.500.
    pub busy_addresses: Vec<Network>,
    /// What a recipient outside the directory draws when no connector matches. Both have been reported.
    pub foreign_recipient: ForeignRecipient,
    /// Authorities (PEM) whose certificates connectors trust, beside the simulator's own.
    pub trusted_roots: Vec<String>,
}

/// The reply to a recipient that is nobody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ForeignRecipient {
    /// 550 5.7.64.
    #[default]
    RelayAccessDenied,
    /// 550 5.4.1.
    RecipientRejected,
}

/// Access tokens as Entra issues them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tokens {
    /// Lifetime in seconds. Microsoft gives 3600 to 5400 by default, 600 to 86400 by policy; less is for tests.
    pub lifetime_seconds: u64,
    /// The resource of client submission's tokens; Graph and the other services name theirs in their own parts.
    pub resource: String,
    /// How far clocks may differ when an assertion's times are checked, seconds.
    pub clock_skew_seconds: u64,
    /// Least time between two fetches of one issuer's keys, seconds.
    pub keys_refetch_seconds: u64,
}

/// Delays and timeouts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Pace {
    /// Delay before a permanent refusal (tarpit), milliseconds. Exchange's default is five seconds.
    pub tarpit_milliseconds: u64,
    /// Time that each message takes at the end of its data before the reply, milliseconds.
    pub message_milliseconds: u64,
    /// A connection without input is closed after this many seconds.
    pub idle_seconds: u64,
    /// A connection is closed after this many seconds, whatever it does.
    pub session_seconds: u64,
}

/// What is looked at in messages, and what is kept of them. A benchmark keeps nothing and looks at nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Record {
    /// Messages that are kept, the newest; absent means all. The counters count the others, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<usize>,
    /// Whether headers are read: From and its rules, and what a careful client does.
    pub inspect: bool,
}

impl Record {
    /// How many bytes of a message to keep that may have at most `largest`.
    #[must_use]
    pub fn bytes_kept(&self, largest: usize) -> usize {
        // One byte more than is allowed, so that "too long" can be told.
        if self.messages == Some(0) && !self.inspect { 0 } else { largest + 1 }
    }
}

impl Default for Record {
    fn default() -> Self {
        Self { messages: None, inspect: true }
    }
}

impl Config {
    /// The sample directory with Microsoft's figures.
    #[must_use]
    pub fn contoso() -> Self {
        Self { directory: Directory::contoso(), ..Self::default() }
    }

    /// What is wrong with the document, each finding a sentence. Empty means that it can be used.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.directory.faults();
        if self.tokens.lifetime_seconds == 0 || self.tokens.lifetime_seconds > 86_400 {
            faults.push("tokens.lifetimeSeconds must be 1 to 86400".into());
        }
        if self.limits.minute_milliseconds == 0 || self.limits.day_milliseconds == 0 {
            faults.push("limits.minuteMilliseconds and limits.dayMilliseconds must be at least 1".into());
        }
        let (graph, services) = (&self.graph, &self.communication_services);
        let windows = [
            graph.requests_milliseconds,
            graph.upload_milliseconds,
            services.minute_milliseconds,
            services.hour_milliseconds,
        ];
        if windows.contains(&0) {
            faults
                .push("the windows of graph and communicationServices must be at least 1 millisecond".into());
        }
        if self.limits.message_bytes > self.limits.advertised_size {
            faults.push("limits.messageBytes must not exceed limits.advertisedSize".into());
        }
        faults
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            messages_per_minute: 30,
            over_rate: OverRate::default(),
            minute_milliseconds: 60_000,
            recipients_per_day: 10_000,
            day_milliseconds: 86_400_000,
            submitting_connections: 3,
            recipients_per_message: 500,
            recipients_per_domain: 200,
            advertised_size: 157_286_400,
            message_bytes: 36_700_160,
            // Microsoft publishes neither number; these are small enough to be met in a test.
            continuous_errors: 20,
            barred_seconds: 3600,
            onmicrosoft_recipients_per_day: 100,
        }
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            lifetime_seconds: 3600,
            resource: "https://outlook.office365.com".into(),
            // Entra tolerates five minutes between clocks.
            clock_skew_seconds: 300,
            keys_refetch_seconds: 10,
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self { tarpit_milliseconds: 5000, message_milliseconds: 0, idle_seconds: 300, session_seconds: 1200 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_is_the_sample() {
        let example: Config = serde_json::from_str(include_str!("../examples/contoso.json")).unwrap();
        assert_eq!(example, Config::contoso());
    }

    #[test]
    fn the_configuration_of_a_sink_can_be_used() {
        let sink: Config = serde_json::from_str(include_str!("../examples/sink.json")).unwrap();
        assert_eq!(sink.faults(), Vec::<String>::new());
        assert_eq!(sink.record.bytes_kept(1000), 0);
        assert_eq!(Record::default().bytes_kept(1000), 1001);
    }

    #[test]
    fn the_configuration_in_the_deployment_can_be_used() {
        let manifest = include_str!("../deploy/m365.yaml");
        let (_, block) = manifest.split_once("config.json: |\n").unwrap();
        let json: String = block.lines().take_while(|line| line.starts_with("    ")).collect();
        let config: Config = serde_json::from_str(&json).unwrap();
        assert_eq!(config.faults(), Vec::<String>::new());
        assert_eq!(config.limits, Limits::default());
    }

    #[test]
    fn a_directory_alone_is_a_whole_document() {
        let config: Config = serde_json::from_str(r#"{"directory": {"tenants": []}}"#).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert!(config.faults().is_empty());
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error =
            serde_json::from_str::<Config>(r#"{"directory": {"tenants": []}, "limit": {}}"#).unwrap_err();
        assert!(error.to_string().contains("limit"));
    }

    #[test]
    fn a_lifetime_of_zero_is_a_fault() {
        let mut config = Config::contoso();
        config.tokens.lifetime_seconds = 0;
        assert_eq!(config.faults().len(), 1);
    }
}
