//! `route.json`: one `MailRoute`, resolved: defaults filled in, presets looked up, references turned into mounted paths.
//!
//! Versioning. [`FORMAT_VERSION`] changes only when an old reader would misread a new file. Within a version, a reader
//! refuses fields it does not know (it must not ignore a restriction), and a writer leaves out what has its default,
//! so that an older sidecar keeps working for every route that uses nothing new.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// How mail leaves, one of Microsoft's three methods.
    pub method: Method,
    /// What 250 means.
    pub delivery: Delivery,
    /// What one message may weigh and whom it may reach, and what the mailbox may send.
    pub limits: Limits,
    /// Who may be named as the sender. Absent: the upstream alone decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub senders: Option<Senders>,
    /// Where applications connect, and what they may say there.
    pub listen: Listen,
    /// Name of the Secret that credential or certificate are mounted from, for people: a remedy names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// How much of a mail address a log line shows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub log_addresses: LogAddresses,
    /// The control service. Absent: the sidecar reports to nobody and mail flows all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlService>,
}

/// One of the methods of Microsoft's guide "How to set up a multifunction device or application to send email".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Method {
    /// Client SMTP submission, as one mailbox.
    ClientSubmission(ClientSubmission),
    /// SMTP relay through a connector of the tenant, which knows the sidecar by its certificate or its IP address.
    SmtpRelay(SmtpRelay),
    /// Direct Send: to the tenant's own recipients, without any log-in.
    DirectSend(DirectSend),
}

/// Client SMTP submission: authenticate as a mailbox and submit for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientSubmission {
    /// Address of the mailbox that the application may send as (`user=` of XOAUTH2).
    pub mailbox: String,
    /// How the sidecar proves who it is.
    pub credential: Credential,
    /// Where access tokens come from. Of no use to [`Credential::Password`].
    pub authority: Authority,
    /// Where mail is submitted.
    pub endpoint: Endpoint,
}

/// SMTP relay: hand over to the tenant's connector on port 25.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SmtpRelay {
    /// The certificate that the connector knows. Absent: it knows the IP address from which the cluster sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateFiles>,
    /// Exchange accepted domains, at least one. The sender must be in one of them, and so must a name of the
    /// certificate.
    pub accepted_domains: Vec<String>,
    /// Where mail is handed over.
    pub smart_host: SmartHost,
}

/// Direct Send: hand over on port 25 what is for the tenant's own recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectSend {
    /// Exchange accepted domains, at least one. Recipients outside them are refused at RCPT.
    pub accepted_domains: Vec<String>,
    /// Where mail is handed over.
    pub smart_host: SmartHost,
}

/// A certificate with its key, as two PEM files that may be the same one. Watched: a new pair is used as soon as both
/// belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate_file: PathBuf,
    /// The private key of the leaf.
    pub key_file: PathBuf,
}

/// The SMTP server that takes mail on port 25 for the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SmartHost {
    /// How its name is found. Never derived from a domain: new tenants' names cannot be.
    pub host: HostName,
    /// TCP port.
    pub port: u16,
    /// Whether mail may go without TLS.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tls: TlsMode,
    /// PEM bundle to trust in place of the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// How the name of a smart host is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostName {
    /// It is this one.
    Fixed(String),
    /// The best MX record of this domain, looked up anew when its time to live is over.
    MxOf(String),
}

/// Whether mail may go without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TlsMode {
    /// TLS with a verified certificate, or nothing is sent.
    #[default]
    Required,
    /// TLS when it is offered and can be verified; else without.
    Opportunistic,
}

/// How the sidecar proves who it is. Names files, never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Credential {
    /// The pod's service-account token, exchanged under a federated credential of the application.
    WorkloadIdentity {
        /// Application (client) id.
        client_id: String,
        /// File with the projected service-account token. Re-read at every exchange, as the kubelet renews it.
        token_file: PathBuf,
    },
    /// A client secret of the application.
    ClientSecret {
        /// Application (client) id.
        client_id: String,
        /// File with the secret. Re-read at every exchange.
        secret_file: PathBuf,
    },
    /// A client certificate of the application: a signed assertion (PS256, `x5t#S256`).
    ClientCertificate {
        /// Application (client) id.
        client_id: String,
        /// Certificate and key. Re-read at every exchange.
        #[serde(flatten)]
        files: CertificateFiles,
    },
    /// The operator's own identity: access tokens come from the [`ControlService`], which exchanges the operator's
    /// service-account token under a federated credential of the application. The pod holds nothing to ask Entra with.
    Operator {
        /// Application (client) id, for people: which one is used is the operator's to say.
        client_id: String,
    },
    /// The mailbox's password, by AUTH LOGIN. Microsoft is switching this off.
    Password {
        /// File with the password. Re-read at every log-in.
        password_file: PathBuf,
    },
}

/// An Entra token authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authority {
    /// `host` or `host:port`, always spoken to over HTTPS.
    pub host: String,
    /// Tenant: a GUID or a verified domain.
    pub tenant: String,
    /// Scope to ask for, such as `https://outlook.office365.com/.default`.
    pub scope: String,
    /// PEM bundle to trust in place of the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// The SMTP server that mail is handed to. TLS by STARTTLS is always required and verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// DNS name; also the name that the certificate must carry.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// PEM bundle to trust in place of the public roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// PEM bundle to trust in place of the public roots, where the operator and not the route says so. Goes before
    /// `ca_file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
}

impl Endpoint {
    /// A server whose certificate chains to the public roots.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, ca_file: None, ca_pem: None }
    }
}

/// What the sidecar does between the end of the data and its reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delivery {
    /// The promise behind 250.
    pub mode: DeliveryMode,
    /// How long an application waits for the upstream in [`DeliveryMode::DeliverOrQueue`] before the message is kept
    /// and answered, seconds.
    #[serde(default = "Delivery::default_wait", skip_serializing_if = "Delivery::is_default_wait")]
    pub wait_seconds: u64,
    /// How long a kept message is tried, seconds since its 250.
    #[serde(default = "Delivery::default_max_age", skip_serializing_if = "Delivery::is_default_max_age")]
    pub max_age_seconds: u64,
    /// What becomes of a kept message that is given up.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dead_letters: DeadLetters,
    /// Most octets of kept messages, dead letters included; beyond it the application gets 452. Less than what the
    /// volume holds, since Kubernetes evicts a pod whose volume is overfull.
    #[serde(default = "Delivery::default_spool", skip_serializing_if = "Delivery::is_default_spool")]
    pub max_spool_bytes: u64,
}

impl Delivery {
    /// A mode with the default of everything else.
    pub const fn new(mode: DeliveryMode) -> Self {
        Self {
            mode,
            wait_seconds: Self::default_wait(),
            max_age_seconds: Self::default_max_age(),
            dead_letters: DeadLetters { keep: DeadLetters::default_keep(), notify_sender: false },
            max_spool_bytes: Self::default_spool(),
        }
    }

    const fn default_wait() -> u64 {
        10
    }

    const fn is_default_wait(seconds: &u64) -> bool {
        *seconds == Self::default_wait()
    }

    const fn default_max_age() -> u64 {
        48 * 3600
    }

    const fn is_default_max_age(seconds: &u64) -> bool {
        *seconds == Self::default_max_age()
    }

    const fn default_spool() -> u64 {
        900 * 1024 * 1024
    }

    const fn is_default_spool(bytes: &u64) -> bool {
        *bytes == Self::default_spool()
    }
}

/// What becomes of a kept message that is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLetters {
    /// How many are kept; beyond it the oldest goes.
    #[serde(default = "DeadLetters::default_keep")]
    pub keep: u32,
    /// Whether the sender is sent a delivery status notification (RFC 3464).
    #[serde(default)]
    pub notify_sender: bool,
}

impl DeadLetters {
    const fn default_keep() -> u32 {
        1000
    }
}

impl Default for DeadLetters {
    fn default() -> Self {
        Self { keep: Self::default_keep(), notify_sender: false }
    }
}

/// The promise behind 250.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryMode {
    /// Tried at once while the application waits: 250 when Microsoft 365 has accepted the message, Microsoft's own 5yz
    /// when it refuses for good, and otherwise the message is kept and 250 said.
    DeliverOrQueue,
    /// Kept first, then 250, then delivered.
    Queue,
    /// 250 only when Microsoft 365 has accepted the message; transient trouble is 451 and nothing is kept.
    Deliver,
}

/// Bounds on one message, and on what this sidecar sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Largest message, bytes; announced as SIZE.
    pub max_message_bytes: u64,
    /// Most recipients of one message.
    pub max_recipients: u32,
    /// Most messages that the mailbox may send in any 60 seconds. Absent: no limit is known, as with SMTP relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_minute: Option<u32>,
    /// Most recipients that the mailbox may send to in any 24 hours. Absent: no limit is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients_per_day: Option<u32>,
    /// Most connections of this sidecar to the upstream.
    #[serde(default = "Limits::default_connections", skip_serializing_if = "Limits::is_default_connections")]
    pub connections: u32,
}

impl Limits {
    /// Bounds on messages, without any on the mailbox, over one connection.
    pub const fn new(max_message_bytes: u64, max_recipients: u32) -> Self {
        Self {
            max_message_bytes,
            max_recipients,
            messages_per_minute: None,
            recipients_per_day: None,
            connections: Self::default_connections(),
        }
    }

    const fn default_connections() -> u32 {
        1
    }

    const fn is_default_connections(connections: &u32) -> bool {
        *connections == Self::default_connections()
    }
}

/// Who may be named as the sender, in MAIL and in `From`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Senders {
    /// Addresses, or `*@domain` for all of a domain. The mailbox of client submission is always allowed.
    pub allow: Vec<String>,
    /// What happens to a message of another sender.
    pub on_violation: OnViolation,
}

/// What happens to a message of a sender that is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnViolation {
    /// It is refused for good.
    #[default]
    Reject,
    /// `From` becomes the mailbox, and what it was becomes `Reply-To` unless there is one.
    Rewrite,
}

/// How much of a mail address a log line shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogAddresses {
    /// All of it.
    #[default]
    Full,
    /// The domain.
    Domain,
    /// Nothing.
    Hidden,
}

/// Where applications connect: loopback only, IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listen {
    /// TCP port.
    pub port: u16,
    /// Whether AUTH PLAIN and LOGIN are offered, for applications that insist on a log-in. Whatever they say is taken
    /// and forgotten.
    #[serde(default, skip_serializing_if = "is_default")]
    pub auth: ListenAuth,
    /// What happens to a bare LF or CR in a message.
    #[serde(default, skip_serializing_if = "is_default")]
    pub bare_line_ends: BareLineEnds,
}

impl Listen {
    /// A port with the default of everything else.
    pub const fn new(port: u16) -> Self {
        Self { port, auth: ListenAuth::None, bare_line_ends: BareLineEnds::Normalize }
    }
}

/// Whether applications may log in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenAuth {
    /// AUTH is not offered.
    #[default]
    None,
    /// AUTH PLAIN and LOGIN are offered, and any answer is right.
    Ignore,
}

/// What happens to a bare LF or CR in a message. Neither is ever passed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BareLineEnds {
    /// LF becomes CR LF, CR a space.
    #[default]
    Normalize,
    /// The message is refused.
    Refuse,
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
    /// Whether it leases the mailbox's limits: then nothing is sent without a lease but in a turn of
    /// [`crate::control::Turn`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub leases: bool,
}

impl Method {
    /// The mailbox that is logged in as; none by the methods that need none.
    pub fn mailbox(&self) -> Option<&str> {
        match self {
            Self::ClientSubmission(submission) => Some(&submission.mailbox),
            Self::SmtpRelay(_) | Self::DirectSend(_) => None,
        }
    }

    /// The name in metrics and logs, as `spec.method` has it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::ClientSubmission(_) => "ClientSubmission",
            Self::SmtpRelay(_) => "SmtpRelay",
            Self::DirectSend(_) => "DirectSend",
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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

    /// Prints the file, stable and readable, ending in a newline.
    pub fn to_json(&self) -> String {
        // Only maps with non-string keys and failing `Serialize` impls can fail, and there are none here.
        let mut text = serde_json::to_string_pretty(self).expect("plain data serialises");
        text.push('\n');
        text
    }
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
            method: Method::ClientSubmission(ClientSubmission {
                mailbox: "noreply@contoso.com".into(),
                credential: Credential::WorkloadIdentity {
                    client_id: "1b2c3d4e-0000-4000-8000-000000000001".into(),
                    token_file: "/var/run/secrets/mailroute/tokens/entra".into(),
                },
                authority: Authority {
                    host: "login.microsoftonline.com".into(),
                    tenant: "72f988bf-86f1-41af-91ab-2d7cd011db47".into(),
                    scope: "https://outlook.office365.com/.default".into(),
                    ca_file: None,
                },
                endpoint: Endpoint::new("smtp.office365.com", 587),
            }),
            delivery: Delivery::new(DeliveryMode::Deliver),
            limits: Limits::new(36_700_160, 500),
            senders: None,
            listen: Listen::new(25),
            secret: None,
            log_addresses: LogAddresses::Full,
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
            "caPem",
            "control",
            "senders",
            "secret\"",
            "waitSeconds",
            "deadLetters",
            "connections",
            "auth\"",
            "logAddresses",
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
    fn an_unknown_field_is_refused() {
        let json = sample().to_json().replacen("\"limits\"", "\"surprise\": {}, \"limits\"", 1);
        assert!(matches!(RouteFile::parse(json.as_bytes()), Err(ParseError::Shape(_))));
    }

    #[test]
    fn another_version_is_named_before_any_other_difference() {
        let error = RouteFile::parse(br#"{"version": 9, "surprise": true}"#).unwrap_err();
        assert_eq!(error.to_string(), "route file has format version 9, this program reads 1");
    }
}
