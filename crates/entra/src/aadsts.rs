//! What an error of the Entra token endpoint means: one table from (HTTP status, `error`, AADSTS code) to a reason.
//!
//! Pure. Microsoft asks to branch on `error` and to use codes for hints only ("Microsoft Entra authentication and
//! authorization error codes"), so an unknown code falls back to `error`, and an unknown `error` to the HTTP status.

use std::time::Duration;

use mailroute_route::condition::Reason;
use mailroute_route::text::shortened;
use serde::Deserialize;

use crate::Kind;
use crate::secret::scrub;

/// How long a missing federated credential may be one that has not spread yet. Microsoft speaks of minutes, and of
/// intermittent failures even after a first success ("Workload identity federation: important considerations").
pub const PROPAGATION: Duration = Duration::from_secs(15 * 60);

/// Longest part of `error_description` that is passed on, characters.
const MAX_DESCRIPTION: usize = 240;

/// The body of an error answer. Every field may be missing: proxies and throttles answer in other shapes.
#[derive(Debug, Default, Deserialize)]
pub struct ErrorBody {
    /// OAuth error code, such as `invalid_client`.
    #[serde(default)]
    pub error: String,
    /// AADSTS code and sentence, several lines.
    #[serde(default)]
    pub error_description: String,
    /// AADSTS codes.
    #[serde(default)]
    pub error_codes: Vec<u32>,
    /// For Microsoft support.
    #[serde(default)]
    pub trace_id: String,
    /// For Microsoft support.
    #[serde(default)]
    pub correlation_id: String,
}

/// An answer that holds no token.
#[derive(Debug)]
pub struct ErrorAnswer {
    /// HTTP status.
    pub status: u16,
    /// The body, when it was JSON.
    pub body: Option<ErrorBody>,
}

impl ErrorAnswer {
    /// Reads an answer; anything but a JSON object counts as no body.
    pub fn parse(status: u16, body: &[u8]) -> Self {
        Self { status, body: serde_json::from_slice(body).ok() }
    }

    /// The AADSTS code, from the list or else from the text.
    pub fn code(&self) -> Option<u32> {
        let body = self.body.as_ref()?;
        body.error_codes.first().copied().or_else(|| code_in_text(&body.error_description))
    }

    /// Whether no federated credential matched, which new credentials show for some minutes.
    pub fn is_unmatched(&self) -> bool {
        matches!(self.code(), Some(70021 | 700_211..=700_213))
    }

    /// Whether the proof itself was found out of date, unknown or malformed: a newer one may do better.
    pub fn is_stale_proof(&self) -> bool {
        matches!(self.code(), Some(700_024 | 700_027 | 50013 | 500_133 | 7_000_215 | 7_000_222))
    }

    /// What stands in the way of a proof of this kind. `unmatched_for` is how long every exchange has failed for want of
    /// a federated credential.
    pub fn reason(&self, kind: Kind, unmatched_for: Duration) -> Reason {
        if self.is_unmatched() {
            return if unmatched_for < PROPAGATION {
                Reason::WaitingForPropagation
            } else {
                Reason::FederationNotTrusted
            };
        }
        self.code()
            .and_then(|code| by_code(code, kind))
            .or_else(|| self.by_error())
            .unwrap_or_else(|| by_status(self.status))
    }

    fn by_error(&self) -> Option<Reason> {
        // A broken service also answers with `invalid_request` bodies; its status says more.
        if self.status == 429 || self.status >= 500 {
            return None;
        }
        match self.body.as_ref()?.error.as_str() {
            "unauthorized_client" => Some(Reason::ApplicationNotFound),
            "invalid_scope" | "invalid_resource" => Some(Reason::ScopeRejected),
            "temporarily_unavailable" | "server_error" => Some(Reason::TokenServiceUnavailable),
            "interaction_required" => Some(Reason::AccessBlocked),
            "" => None,
            _ => Some(Reason::CredentialRejected),
        }
    }

    /// What was met, in one line: status, error, first line of the description, ids for support. `redact` sees what the
    /// authority wrote before it is cut, so that half a secret is not left over.
    pub fn summary(&self, redact: impl Fn(&str) -> String) -> String {
        let Some(body) = &self.body else {
            return format!(
                "the token endpoint answered HTTP {} with something that is not JSON",
                self.status
            );
        };
        let description = body.error_description.lines().next().unwrap_or_default();
        let description = description.split(" Trace ID:").next().unwrap_or_default();
        if body.error.is_empty() {
            return format!(
                "the token endpoint answered HTTP {} without a token and without an error",
                self.status
            );
        }
        let mut text = format!("HTTP {} {}", self.status, clip(&scrub(&redact(&body.error)), 60));
        for (label, value) in [
            (": ", clip(&scrub(&redact(description)), MAX_DESCRIPTION)),
            (" trace_id ", clip(&redact(&body.trace_id), 40)),
            (" correlation_id ", clip(&redact(&body.correlation_id), 40)),
        ] {
            if !value.is_empty() {
                text.push_str(label);
                text.push_str(&value);
            }
        }
        text
    }
}

fn by_code(code: u32, kind: Kind) -> Option<Reason> {
    Some(match code {
        // Signed by a key that the authority does not connect with the application: of the cluster's issuer, or of a
        // certificate.
        700_027 if kind == Kind::Certificate => Reason::CertificateNotRegistered,
        700_016 | 700_011 | 70001 | 7_000_112 => Reason::ApplicationNotFound,
        7_002_138 => Reason::FederationNotTrusted,
        700_024 | 50013 | 500_133 | 50027 | 700_027 | 900_384 | 700_200..=700_299 => {
            Reason::AssertionRejected
        }
        7_000_215 => Reason::SecretRejected,
        7_000_222 => Reason::SecretExpired,
        700_025 => Reason::CredentialRejected,
        90002 | 900_023 | 90038 => Reason::TenantNotFound,
        500_011 | 50001 | 650_052 | 650_057 | 70011 | 1_002_012 => Reason::ScopeRejected,
        53003 | 530_035 | 530_032 => Reason::AccessBlocked,
        90061 => Reason::IssuerUnreachable,
        50196 | 90055 => Reason::TokenServiceThrottled,
        90006 | 90012 | 90024 | 90033 | 90090 => Reason::TokenServiceUnavailable,
        _ => return None,
    })
}

const fn by_status(status: u16) -> Reason {
    match status {
        429 => Reason::TokenServiceThrottled,
        400 | 401 => Reason::CredentialRejected,
        _ => Reason::TokenServiceUnavailable,
    }
}

fn code_in_text(text: &str) -> Option<u32> {
    let digits = text.split("AADSTS").nth(1)?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// At most `max` bytes, and no control character.
fn clip(text: &str, max: usize) -> String {
    let plain: String = text.chars().filter(|c| !c.is_control()).collect();
    shortened(&plain, max).into_owned()
}

#[cfg(test)]
mod tests {
    use mailroute_replies::known_errors::{FEDERATED, KnownError, OF_CERTIFICATES, UNMATCHED};

    use super::*;

    fn answer(status: u16, error: &str, code: u32, sentence: &str) -> ErrorAnswer {
        let body = format!(
            r#"{{"error":"{error}","error_description":"AADSTS{code}: {sentence} Trace ID: 0a1b\r\nCorrelation ID: 2c3d\r\nTimestamp: 2026-11-21 09:00:00Z","error_codes":[{code}],"timestamp":"2026-11-21 09:00:00Z","trace_id":"0a1b","correlation_id":"2c3d","error_uri":"https://login.microsoftonline.com/error?code={code}"}}"#
        );
        ErrorAnswer::parse(status, body.as_bytes())
    }

    /// Codes that stand for those that nobody has seen yet.
    #[rustfmt::skip]
    const INVENTED: &[KnownError] = &[
        (401, "invalid_client", 7_999_999, "A code of tomorrow.", Reason::CredentialRejected),
        (400, "unauthorized_client", 7_999_999, "A code of tomorrow.", Reason::ApplicationNotFound),
        (503, "invalid_request", 7_999_999, "A code of tomorrow.", Reason::TokenServiceUnavailable),
    ];

    #[test]
    fn every_row_of_the_table_has_its_reason() {
        for &(status, error, code, sentence, reason) in FEDERATED.iter().chain(INVENTED) {
            let answer = answer(status, error, code, sentence);
            assert_eq!(answer.reason(Kind::Federated, PROPAGATION), reason, "AADSTS{code}: {sentence}");
        }
    }

    #[test]
    fn every_row_about_certificates_has_its_reason() {
        for &(status, error, code, sentence, reason) in OF_CERTIFICATES {
            let answer = answer(status, error, code, sentence);
            assert_eq!(answer.reason(Kind::Certificate, PROPAGATION), reason, "AADSTS{code}: {sentence}");
        }
    }

    #[test]
    fn what_a_newer_file_may_mend_is_tried_again_and_nothing_else() {
        for code in [700_024, 50013, 500_133, 700_027, 7_000_215, 7_000_222] {
            assert!(answer(401, "invalid_client", code, "").is_stale_proof(), "{code}");
        }
        for code in [700_213, 700_016, 53003, 90033] {
            assert!(!answer(401, "invalid_client", code, "").is_stale_proof(), "{code}");
        }
    }

    #[test]
    fn a_missing_federated_credential_is_waited_for_and_then_named() {
        for (status, error, code, sentence) in UNMATCHED {
            let answer = answer(status, error, code, sentence);
            let early = PROPAGATION - Duration::from_secs(1);
            assert_eq!(answer.reason(Kind::Federated, early), Reason::WaitingForPropagation, "{code}");
            assert_eq!(answer.reason(Kind::Federated, PROPAGATION), Reason::FederationNotTrusted, "{code}");
        }
    }

    #[test]
    fn plain_text_throttling_is_throttling() {
        let answer = ErrorAnswer::parse(429, b"Too Many Requests");
        assert_eq!(answer.reason(Kind::Federated, Duration::ZERO), Reason::TokenServiceThrottled);
    }

    #[test]
    fn an_html_page_is_an_unavailable_service() {
        let answer = ErrorAnswer::parse(502, b"<html><body>Bad Gateway</body></html>");
        assert_eq!(answer.reason(Kind::Federated, Duration::ZERO), Reason::TokenServiceUnavailable);
        assert_eq!(
            answer.summary(str::to_owned),
            "the token endpoint answered HTTP 502 with something that is not JSON"
        );
    }

    #[test]
    fn the_code_is_read_from_the_text_when_the_list_is_missing() {
        let answer = ErrorAnswer::parse(
            400,
            br#"{"error":"invalid_request","error_description":"AADSTS90002: Tenant 'x' not found."}"#,
        );
        assert_eq!(answer.reason(Kind::Federated, Duration::ZERO), Reason::TenantNotFound);
    }

    #[test]
    fn the_summary_is_one_line_with_ids_for_support() {
        let summary = answer(401, "invalid_client", 700_016, "Application not found.").summary(str::to_owned);
        assert_eq!(
            summary,
            "HTTP 401 invalid_client: AADSTS700016: Application not found. trace_id 0a1b correlation_id 2c3d"
        );
    }
}
