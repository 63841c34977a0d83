//! `route.json`: one `MailRoute`, resolved: defaults filled in, presets looked up, references turned into mounted paths.
//!
//! Versioning. [`FORMAT_VERSION`] changes only when an old reader would misread a new file. Within a version, a reader
//! refuses fields it does not know (it must not ignore a restriction), and a writer leaves out what has its default,
//! so that an older sidecar keeps working for every route that uses nothing new.
//!
//! [`Listen`], and enums that the resource has as well, are declared here alone; the feature `schema` gives them their schema.

mod credential;
mod delivery;
mod gateway;
mod limits;
mod local;
mod mailboxes;
mod method;
mod rules;
mod upstream;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use credential::{Authority, CertificateFiles, Credential};
pub use delivery::{DeadLetters, Delivery, DeliveryMode, Durability, GatewayUnavailable};
pub use gateway::Gateway;
pub use limits::Limits;
pub use local::{BareLineEnds, Listen, ListenAuth, OnViolation, Senders};
pub use mailboxes::{MAX_MAILBOXES, SendingMailbox, SpreadFrom};
pub use method::{
    ClientSubmission, DirectSend, Graph, LogInSettings, Method, SmtpRelay, Submission, SubmissionService,
};
pub use rules::{Archive, HeaderField, Headers, Recipients};
pub use upstream::{Endpoint, HostName, SmartHost, TlsMode};

/// The version of the file's format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// One route, as its sidecars use it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteFile {
    /// Format of this file, [`FORMAT_VERSION`].
    pub version: u32,
    /// Name of the `MailRoute`.
    pub name: String,
    /// Namespace of the `MailRoute` and of its pods.
    pub namespace: String,
    /// `metadata.generation` of the `MailRoute` this was rendered from. Reported back, so that status can tell which
    /// sidecars run the current one.
    pub generation: i64,
    /// Name the sidecar gives in EHLO: a valid domain name (Exchange answers 501 to others).
    pub ehlo_name: String,
    /// How mail leaves, one of Microsoft's ways.
    pub method: Method,
    /// What 250 means.
    pub delivery: Delivery,
    /// What one message may weigh and whom it may reach, and what the mailbox may send.
    pub limits: Limits,
    /// Who may be named as the sender. Absent: the upstream alone decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub senders: Option<Senders>,
    /// Whom messages may go to. Absent: anybody whom the method reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<Recipients>,
    /// Who gets a copy of each message. Absent: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<Archive>,
    /// Header fields that are removed or set. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// Where applications connect, and what they may say there.
    #[serde(with = "local::listen_in_file")]
    pub listen: Listen,
    /// Name of the Secret that credential or certificate are mounted from, for people: a remedy names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// How much of a mail address a log line shows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log_addresses: LogAddresses,
    /// The route's gateway. Absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
    /// The control service. Absent: the sidecar reports to nobody and mail flows all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlService>,
}

/// How much of a mail address a log line shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum LogAddresses {
    /// All of it.
    #[default]
    Full,
    /// The domain.
    Domain,
    /// Nothing.
    Hidden,
}

/// How to reach the operator's control service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlService {
    /// `host:port`. Also the name the certificate must carry, whichever address is dialled.
    pub address: String,
    /// PEM bundle of the operator's own CA (old and new one during a rotation).
    pub ca_pem: String,
    /// File with the projected token of audience [`crate::paths::CONTROL_AUDIENCE`].
    pub token_file: PathBuf,
    /// Whether it leases the mailbox's limits: then nothing is sent without a lease except in the
    /// [time slots](mailroute_quota::wire::TimeSlots).
    #[serde(default, skip_serializing_if = "is_default")]
    pub leases: bool,
}

/// Why a route file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// Not JSON, or not of the expected shape.
    #[error("route file is not valid: {0}")]
    Shape(#[from] serde_json::Error),
    /// Written in a format this program does not know.
    #[error("route file has format version {found}, this program reads {FORMAT_VERSION}")]
    Version {
        /// The version in the file.
        found: u32,
    },
}

impl RouteFile {
    /// Parses the content of `route.json`.
    ///
    /// # Errors
    /// When the content is not of this format; the version is looked at first, as it explains any other difference.
    pub fn parse(json: &[u8]) -> Result<Self, ParseError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let Versioned { version } = serde_json::from_slice(json)?;
        if version != FORMAT_VERSION {
            return Err(ParseError::Version { found: version });
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// Whether there are limits to share among all pods that send as the mailbox. Without any, as in High Volume Email, the operator
    /// leases nothing.
    pub fn shares_limits(&self) -> bool {
        let Limits { messages_per_minute, messages_per_hour, recipients_per_day, .. } = self.limits;
        let is_limited = messages_per_minute.or(messages_per_hour).or(recipients_per_day).is_some();
        self.method.mailbox().is_some() && is_limited
    }

    /// Whether there is a rule for what is done to messages.
    pub const fn has_rules(&self) -> bool {
        self.recipients.is_some() || self.archive.is_some() || self.headers.is_some()
    }

    /// Prints the file, stable and readable, ending in a newline.
    pub fn to_json(&self) -> String {
        // Only maps with non-string keys and failing `Serialize` impls can fail, and there are none here.
        let mut text = serde_json::to_string_pretty(self).expect("plain data serialises");
        text.push('\n');
        text
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> RouteFile {
        RouteFile {
            version: FORMAT_VERSION,
            name: "notifications".into(),
            namespace: "shop".into(),
            generation: 3,
            ehlo_name: "notifications.shop.svc.cluster.local".into(),
            method: Method::ClientSubmission(ClientSubmission::new(
                "noreply@contoso.com",
                Credential::WorkloadIdentity {
                    client_id: "1b2c3d4e-0000-4000-8000-000000000001".into(),
                    token_file: "/var/run/secrets/mailroute/tokens/entra".into(),
                },
                Authority {
                    host: "login.microsoftonline.com".into(),
                    tenant: "72f988bf-86f1-41af-91ab-2d7cd011db47".into(),
                    scope: "https://outlook.office365.com/.default".into(),
                    ca_file: None,
                    proxy: None,
                },
                Endpoint::new("smtp.office365.com", 587),
            )),
            delivery: Delivery::new(DeliveryMode::Deliver),
            limits: Limits::new(36_700_160, 500),
            senders: None,
            recipients: None,
            archive: None,
            headers: None,
            listen: Listen::default(),
            secret: None,
            log_addresses: LogAddresses::Full,
            gateway: None,
            control: None,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let route = sample();
        assert_eq!(RouteFile::parse(route.to_json().as_bytes()).unwrap(), route);
    }

    #[test]
    fn absent_options_are_not_written() {
        let json = sample().to_json();
        for option in [
            "caFile",
            "proxy",
            "caPem",
            "control",
            "senders",
            "recipients",
            "archive",
            "headers",
            "secret\"",
            "waitSeconds",
            "deadLetters",
            "connections",
            "auth\"",
            "logAddresses",
            "service",
            "username",
            "acceptedDomains",
            "messagesPerHour",
        ] {
            assert!(!json.contains(option), "{option}: {json}");
        }
    }

    #[test]
    fn every_method_and_credential_is_read_back() {
        let smart_host = |host| SmartHost { host, port: 25, tls: TlsMode::Opportunistic, ca_file: None };
        let files = CertificateFiles { certificate_file: "/c/tls.crt".into(), key_file: "/c/tls.key".into() };
        let mut route = sample();
        let accepted_domains = vec!["contoso.com".to_owned()];
        route.method = Method::SmtpRelay(SmtpRelay {
            certificate: Some(files.clone()),
            accepted_domains: accepted_domains.clone(),
            smart_host: smart_host(HostName::MxOf("contoso.com".into())),
        });
        assert_eq!(RouteFile::parse(route.to_json().as_bytes()).unwrap(), route);
        let host = smart_host(HostName::Fixed("contoso-com.mail.protection.outlook.com".into()));
        route.method = Method::DirectSend(DirectSend { accepted_domains, smart_host: host });
        assert_eq!(RouteFile::parse(route.to_json().as_bytes()).unwrap(), route);
        if let Method::ClientSubmission(submission) = sample().method {
            let ClientSubmission { mailbox, credential, authority, endpoint, .. } = submission;
            let fallback = Submission { scope: authority.scope.clone(), endpoint };
            route.method = Method::Graph(Graph {
                mailbox,
                credential,
                authority,
                endpoint: Endpoint::new("graph.microsoft.com", 443),
                max_message_bytes: 3 << 20,
                fallback: Some(fallback),
            });
        }
        assert_eq!(RouteFile::parse(route.to_json().as_bytes()).unwrap(), route);
        let client_id = || "1b2c3d4e-0000-4000-8000-000000000001".to_owned();
        for credential in [
            Credential::ClientSecret { client_id: client_id(), secret_file: "/c/secret".into() },
            Credential::ClientCertificate { client_id: client_id(), files },
            Credential::Operator { client_id: client_id() },
            Credential::Password { password_file: "/c/password".into() },
        ] {
            let mut route = sample();
            if let Method::ClientSubmission(submission) = &mut route.method {
                submission.credential = credential;
            }
            assert_eq!(RouteFile::parse(route.to_json().as_bytes()).unwrap(), route);
        }
    }

    #[test]
    fn several_mailboxes_are_read_back_and_each_has_the_route_to_itself() {
        let mut route = sample();
        assert_eq!(route.lanes(), [route.clone()]);
        let Method::ClientSubmission(submission) = &mut route.method else { panic!("the sample's method") };
        submission.mailboxes = ["noreply@contoso.com", "alerts@contoso.com"]
            .map(|address| SendingMailbox { address: address.into(), senders: vec!["*@a.example".into()] })
            .into();
        submission.spread = Some(SpreadFrom::ReplyTo);
        assert_eq!(RouteFile::parse(route.to_json().as_bytes()).unwrap(), route);
        assert_eq!(route.method.mailboxes(), ["noreply@contoso.com", "alerts@contoso.com"]);
        let lanes = route.lanes();
        assert_eq!(lanes[0], sample());
        assert_eq!((lanes.len(), lanes[1].method.mailboxes()), (2, vec!["alerts@contoso.com"]));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let json = sample().to_json().replacen("\"limits\"", "\"surprise\": {}, \"limits\"", 1);
        assert!(matches!(RouteFile::parse(json.as_bytes()), Err(ParseError::Shape(_))));
        let json = sample().to_json().replacen("\"port\": 25", "\"port\": 25, \"surprise\": {}", 1);
        let error = RouteFile::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("unknown field `listen.surprise`"), "{error}");
    }

    #[test]
    fn of_listen_the_port_is_written_and_what_differs_from_the_default() {
        let written = |listen| {
            let route = RouteFile { listen, ..sample() };
            assert_eq!(RouteFile::parse(route.to_json().as_bytes()).unwrap(), route);
            serde_json::from_str::<serde_json::Value>(&route.to_json()).unwrap()["listen"].take()
        };
        assert_eq!(written(Listen::default()), serde_json::json!({"port": 25}));
        let listen = Listen { auth: ListenAuth::Ignore, ..Listen::default() };
        assert_eq!(written(listen), serde_json::json!({"port": 25, "auth": "Ignore"}));
    }

    #[test]
    fn the_rules_of_a_route_are_read_back() {
        for redirect_to in [None, Some("staging@contoso.com".to_owned())] {
            let recipients =
                Some(Recipients { allow: vec!["*@contoso.com".into()], redirect_to: redirect_to.clone() });
            let archive = redirect_to.is_none().then(|| Archive { bcc: "archive@contoso.com".into() });
            let set = vec![HeaderField { name: "Auto-Submitted".into(), value: "auto-generated".into() }];
            let headers = Some(Headers { remove: vec!["X-Mailer".into()], set });
            let route = RouteFile { recipients, archive, headers, ..sample() };
            assert_eq!(RouteFile::parse(route.to_json().as_bytes()).unwrap(), route);
        }
    }

    #[test]
    fn another_version_is_named_before_any_other_difference() {
        let error = RouteFile::parse(br#"{"version": 9, "surprise": true}"#).unwrap_err();
        assert_eq!(error.to_string(), "route file has format version 9, this program reads 1");
    }
}
