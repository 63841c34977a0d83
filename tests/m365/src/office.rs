//! What all faces share: configuration, counters, faults, and the record of what happened.
//!
//! [`Office`] is a plain value that the pure parts change; [`Shared`] lets several tasks take turns at it and tells
//! waiters that it changed. It refuses to know sockets. The lock is never held across an await.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    config::Config,
    dialogue::{Dialogues, Speaker},
    directory::{SAMPLE_CLIENT_ID, SAMPLE_TENANT, covers},
    dns::Lookup,
    entra::{
        AccessTokenKey, Credential, Resource, TokenExchange, client_assertion::Replays, token::AccessClaims,
    },
    faults::Faults,
    limits::Usage,
    mailbox::{Face, Message},
    records::{GraphRequest, NonDeliveryReport},
    stand_in::{self, StandIn},
    tally::{Statistics, Tally},
    tls::MX_NAMES,
    violations::{Kind, Violation},
};

/// Violations, and token requests, that are kept at most. The first ones explain the rest.
const MAX_RECORDS: usize = 100_000;

/// The state of the simulated service.
#[derive(Debug)]
pub struct Office {
    /// Set-up.
    pub config: Config,
    /// What is switched on.
    pub faults: Faults,
    /// What mailboxes have used.
    pub usage: Usage,
    /// Counters.
    pub tally: Tally,
    /// Accepted messages, as many as are kept.
    pub messages: VecDeque<Message>,
    /// Breaches.
    pub violations: Vec<Violation>,
    /// Token requests.
    pub exchanges: Vec<TokenExchange>,
    /// Questions to the name server.
    pub lookups: Vec<Lookup>,
    /// Requests at Graph.
    pub requests: Vec<GraphRequest>,
    /// What Exchange did not deliver after Graph had accepted it.
    pub non_delivery_reports: Vec<NonDeliveryReport>,
    /// What was said on the newest connections.
    pub dialogues: Dialogues,
    /// Assertions of applications that were exchanged.
    pub replays: Replays,
    /// Signs and verifies access tokens.
    pub token_key: AccessTokenKey,
    /// The built-in issuer.
    pub stand_in: StandIn,
    /// Names in the certificate, lower case; a client must ask for one of them.
    pub names: Vec<String>,
    /// SMTP connections that are open.
    pub connections: usize,
    /// Messages accepted since the start; the last id given.
    pub accepted: u64,
}

impl Office {
    /// A service in good health that nobody has used.
    #[must_use]
    pub fn new(config: Config, token_key: AccessTokenKey, names: Vec<String>) -> Self {
        Self {
            config,
            faults: Faults::default(),
            usage: Usage::default(),
            tally: Tally::default(),
            messages: VecDeque::new(),
            violations: Vec::new(),
            exchanges: Vec::new(),
            lookups: Vec::new(),
            requests: Vec::new(),
            non_delivery_reports: Vec::new(),
            dialogues: Dialogues::default(),
            replays: Replays::default(),
            token_key,
            stand_in: StandIn::default(),
            names: names.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
            connections: 0,
            accepted: 0,
        }
    }

    /// An access token of the sample application for `resource` that expires `seconds` after `now`.
    #[must_use]
    pub fn sample_token(&self, resource: Resource, subject: &str, now: Timestamp, seconds: i64) -> String {
        let app = self.config.directory.tenant(SAMPLE_TENANT).and_then(|t| t.application(SAMPLE_CLIENT_ID));
        self.token_key.issue(&AccessClaims {
            aud: resource.name(&self.config).to_owned(),
            tid: SAMPLE_TENANT.into(),
            appid: SAMPLE_CLIENT_ID.into(),
            oid: app.map(|app| app.object_id.clone()).unwrap_or_default(),
            iat: now.as_second(),
            exp: now.as_second() + seconds,
            assertion_iss: stand_in::ISSUER.into(),
            assertion_sub: subject.into(),
            credential: Credential::Federated,
            roles: app.map(|app| resource.roles(app)).unwrap_or_default(),
            uti: String::new(),
        })
    }

    /// Notes a breach.
    pub fn violation(&mut self, at: Timestamp, connection: u64, kind: Kind, detail: impl Into<String>) {
        let detail = detail.into();
        tracing::warn!(connection, ?kind, "violation: {detail}");
        if self.violations.len() < MAX_RECORDS {
            self.violations.push(Violation { at, connection, kind, detail });
        }
    }

    /// Notes a request for a token.
    pub fn exchange(&mut self, exchange: TokenExchange) {
        if self.exchanges.len() < MAX_RECORDS {
            self.exchanges.push(exchange);
        }
    }

    /// Notes an accepted message of so many bytes.
    pub fn keep(&mut self, message: Message, bytes: usize) {
        self.tally.accepted(message.recipients.len(), bytes);
        let most = self.config.record.messages.unwrap_or(usize::MAX);
        while self.messages.len() >= most.max(1) {
            self.messages.pop_front();
        }
        if most > 0 {
            self.messages.push_back(message);
        }
    }

    /// Notes a request at Graph.
    pub fn request(&mut self, request: GraphRequest) {
        if self.requests.len() < MAX_RECORDS {
            self.requests.push(request);
        }
    }

    /// Notes that Exchange did not deliver a message.
    pub fn report_non_delivery(&mut self, report: NonDeliveryReport) {
        tracing::warn!(
            mailbox = report.mailbox,
            message_id = report.message_id,
            "not delivered: {}",
            report.reason
        );
        if self.non_delivery_reports.len() < MAX_RECORDS {
            self.non_delivery_reports.push(report);
        }
    }

    /// Records a line of a dialogue, unless nothing is looked at. It holds no credential and no message.
    pub fn transcribe(&mut self, at: Timestamp, connection: u64, by: Speaker, text: &str) {
        if self.config.record.inspect {
            self.dialogues.add(connection, at, by, text);
        }
    }

    /// Notes a question to the name server.
    pub fn lookup(&mut self, lookup: Lookup) {
        if self.lookups.len() < MAX_RECORDS {
            self.lookups.push(lookup);
        }
    }

    /// The counters, with the peaks of each mailbox.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let requests = self.usage.request_peaks();
        Statistics {
            tally: self.tally.clone(),
            open_connections: self.connections,
            mailboxes: self.usage.peaks().map(|(mailbox, peak)| (mailbox.to_owned(), peak)).collect(),
            requests_at_once: requests.map(|(key, peak)| (key.to_owned(), peak)).collect(),
        }
    }

    /// Begins the counters and peaks anew.
    pub fn forget_statistics(&mut self) {
        self.tally = Tally::default();
        self.usage.forget_peaks();
    }

    /// Notes a breach when the server name of a handshake is missing or not ours.
    pub fn check_server_name(&mut self, at: Timestamp, connection: u64, face: Face, sni: Option<&str>) {
        let ours = |name: &str| {
            let mx = face == Face::Relay && MX_NAMES.iter().any(|pattern| covers(pattern, name));
            mx || self.names.iter().any(|ours| ours.eq_ignore_ascii_case(name))
        };
        match sni {
            None => {
                self.violation(at, connection, Kind::WrongServerName, "no server name in the TLS handshake")
            }
            Some(name) if !ours(name) => {
                self.violation(
                    at,
                    connection,
                    Kind::WrongServerName,
                    format!("server name {name:?} is not ours"),
                );
            }
            Some(_) => {}
        }
    }
}

/// An [`Office`] that several tasks use in turn.
#[derive(Debug)]
pub struct Shared {
    office: Mutex<Office>,
    changes: watch::Sender<u64>,
}

impl Shared {
    /// Shares `office`.
    #[must_use]
    pub fn new(office: Office) -> Self {
        Self { office: Mutex::new(office), changes: watch::Sender::new(0) }
    }

    /// Runs `work` on the office, then wakes the waiters.
    pub fn with<R>(&self, work: impl FnOnce(&mut Office) -> R) -> R {
        let result = work(&mut self.lock());
        self.changes.send_modify(|count| *count += 1);
        result
    }

    /// Runs `look` on the office without waking anybody.
    pub fn read<R>(&self, look: impl FnOnce(&Office) -> R) -> R {
        look(&self.lock())
    }

    /// Waits until `look` gives a value.
    pub async fn wait_for<R>(&self, mut look: impl FnMut(&Office) -> Option<R>) -> R {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(found) = self.read(&mut look) {
                return found;
            }
            if changes.changed().await.is_err() {
                // The sender lives in `self`, so this cannot come; waiting for ever is what "not yet" means.
                std::future::pending::<()>().await;
            }
        }
    }

    /// A panic in one conversation leaves the record readable for the others.
    fn lock(&self) -> MutexGuard<'_, Office> {
        self.office.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
