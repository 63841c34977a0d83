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
    /// What one message may weigh and whom it may reach.
    pub limits: Limits,
    /// Where applications connect.
    pub listen: Listen,
    /// The control service. Absent: the sidecar reports to nobody and mail flows all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlService>,
}

/// One of the methods of Microsoft's guide "How to set up a multifunction device or application to send email".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Method {
    /// Client SMTP submission with OAuth, as one mailbox.
    ClientSubmission(ClientSubmission),
}

/// Client SMTP submission: authenticate as a mailbox and submit for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientSubmission {
    /// Address of the mailbox that the application may send as (`user=` of XOAUTH2).
    pub mailbox: String,
    /// How the sidecar proves who it is to Entra.
    pub credential: Credential,
    /// Where access tokens come from.
    pub authority: Authority,
    /// Where mail is submitted.
    pub endpoint: Endpoint,
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
}

/// What the sidecar does between the end of the data and its reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Delivery {
    /// The promise behind 250.
    pub mode: DeliveryMode,
}

/// The promise behind 250.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeliveryMode {
    /// 250 only when Microsoft 365 has accepted the message; transient trouble is 451 and nothing is kept.
    Deliver,
}

/// Bounds on one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Largest message, bytes; announced as SIZE.
    pub max_message_bytes: u64,
    /// Most recipients of one message.
    pub max_recipients: u32,
}

/// Where applications connect: loopback only, IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listen {
    /// TCP port.
    pub port: u16,
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
                endpoint: Endpoint { host: "smtp.office365.com".into(), port: 587, ca_file: None },
            }),
            delivery: Delivery { mode: DeliveryMode::Deliver },
            limits: Limits { max_message_bytes: 36_700_160, max_recipients: 500 },
            listen: Listen { port: 25 },
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
        assert!(!json.contains("caFile") && !json.contains("control"), "{json}");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let json = sample().to_json().replacen("\"limits\"", "\"senders\": {}, \"limits\"", 1);
        assert!(matches!(RouteFile::parse(json.as_bytes()), Err(ParseError::Shape(_))));
    }

    #[test]
    fn another_version_is_named_before_any_other_difference() {
        let error = RouteFile::parse(br#"{"version": 9, "surprise": true}"#).unwrap_err();
        assert_eq!(error.to_string(), "route file has format version 9, this program reads 1");
    }
}
