//! Entra's refusals: an AADSTS code with its blanks filled, and the JSON body around it.
//!
//! Pure; the table of codes is `super::codes`. Clients should branch on `error` alone (Microsoft Entra, "Authentication and authorization error codes"); the
//! codes and texts are what people search for.

use jiff::Timestamp;
use serde::Serialize;

use super::codes::{CODES, FEDERATION_HINT, Known};
use crate::replies::{Blanks, fill};

/// A refusal, ready to be rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// AADSTS code.
    pub code: u32,
    /// HTTP status.
    pub status: u16,
    /// OAuth 2.0 error.
    pub error: &'static str,
    /// The sentence behind the code.
    pub text: String,
}

/// What makes one answer differ from another: time and identifiers, passed in.
#[derive(Clone, Debug)]
pub struct Trace {
    /// When the refusal is given.
    pub at: Timestamp,
    /// Trace id, a GUID.
    pub trace_id: String,
    /// Correlation id, a GUID.
    pub correlation_id: String,
}

/// The JSON body.
#[derive(Debug, Serialize)]
struct Body<'a> {
    error: &'a str,
    error_description: String,
    error_codes: [u32; 1],
    timestamp: String,
    trace_id: &'a str,
    correlation_id: &'a str,
    error_uri: String,
}

impl Refusal {
    /// The refusal of this code, its blanks filled. A code that is not built gives a general 400.
    #[must_use]
    pub fn with(code: u32, blanks: &Blanks<'_>) -> Self {
        let mut blanks = blanks.to_vec();
        blanks.push(("hint", FEDERATION_HINT));
        let unknown = Known(code, 400, "invalid_request", "The request was refused.");
        let Known(_, status, error, text) = CODES.iter().find(|known| known.0 == code).unwrap_or(&unknown);
        Self { code, status: *status, error, text: fill(text, &blanks) }
    }

    /// 700027 for a key that is published nowhere.
    #[must_use]
    pub fn unknown_key(client_id: &str) -> Self {
        let sentence = "The certificate with identifier used to sign the client assertion is not registered on application.";
        Self::with(
            700_027,
            &[("sentence", sentence), ("reason", "The key was not found."), ("client", client_id)],
        )
    }

    /// The JSON body, with `\r\n` between the parts of the description as Entra writes it.
    #[must_use]
    pub fn body(&self, trace: &Trace, authority: &str) -> Vec<u8> {
        let timestamp = trace.at.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let body = Body {
            error: self.error,
            error_description: format!(
                "AADSTS{}: {}\r\nTrace ID: {}\r\nCorrelation ID: {}\r\nTimestamp: {timestamp}",
                self.code, self.text, trace.trace_id, trace.correlation_id
            ),
            error_codes: [self.code],
            timestamp,
            trace_id: &trace.trace_id,
            correlation_id: &trace.correlation_id,
            error_uri: format!("https://{authority}/error?code={}", self.code),
        };
        serde_json::to_vec(&body).expect("strings and numbers are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_microsofts_fields() {
        let trace = Trace {
            at: Timestamp::from_second(1_790_000_000).unwrap(),
            trace_id: "t".into(),
            correlation_id: "c".into(),
        };
        let body =
            Refusal::with(700_213, &[("subject", "system:serviceaccount:a:b")]).body(&trace, "login.example");
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"], "invalid_client");
        assert_eq!(body["error_codes"], serde_json::json!([700_213]));
        let description = body["error_description"].as_str().unwrap();
        assert!(description.starts_with("AADSTS700213: No matching federated identity record"));
        assert!(
            description.contains("\r\nTrace ID: t\r\nCorrelation ID: c\r\nTimestamp: 2026-09-21 "),
            "{description}"
        );
        assert_eq!(body["error_uri"], "https://login.example/error?code=700213");
    }

    #[test]
    fn a_code_that_is_not_built_is_a_general_refusal() {
        assert_eq!(Refusal::with(12_345, &[]).status, 400);
    }
}
