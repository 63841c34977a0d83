//! Entra's refusals: the AADSTS codes that are built, each with its HTTP status, OAuth error and text, and the JSON body
//! around them.
//!
//! Pure. Clients should branch on `error` alone (Microsoft Entra, "Authentication and authorization error codes"); the
//! codes and texts are what people search for.

use jiff::Timestamp;
use serde::Serialize;

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

struct Known(u32, u16, &'static str, &'static str);

const FEDERATION_HINT: &str = "https://learn.microsoft.com/entra/workload-id/workload-identity-federation";

/// Statuses of 700211 to 700213 are not documented; 401 was seen for their predecessor since 2023.
const CODES: &[Known] = &[
    Known(50_013, 401, "invalid_client", "Assertion failed signature validation. [Reason - {reason}]"),
    Known(50_027, 400, "invalid_client", "JWT token is invalid or malformed."),
    Known(
        53_003,
        400,
        "invalid_grant",
        "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.",
    ),
    Known(70_003, 400, "unsupported_grant_type", "The app requested an unsupported grant type '{grant}'."),
    Known(
        70_011,
        400,
        "invalid_scope",
        "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid.",
    ),
    Known(
        70_021,
        401,
        "invalid_client",
        "No matching federated identity record found for presented assertion. {hint}",
    ),
    Known(
        90_002,
        400,
        "invalid_request",
        "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.",
    ),
    Known(90_033, 503, "temporarily_unavailable", "A transient error has occurred. Please try again."),
    Known(
        90_038,
        400,
        "invalid_request",
        "Tenant '{tenant}' request is being redirected to the National Cloud 'MicrosoftOnline.us'.",
    ),
    Known(90_061, 400, "invalid_request", "Request to External OIDC endpoint failed. {reason}"),
    Known(
        500_011,
        400,
        "invalid_resource",
        "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant.",
    ),
    Known(
        700_016,
        400,
        "unauthorized_client",
        "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.",
    ),
    Known(
        700_024,
        401,
        "invalid_client",
        "Client assertion is not within its valid time range. Current time: {now}, assertion valid from {start}, expiry time of assertion {end}. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
    ),
    Known(
        700_027,
        401,
        "invalid_client",
        "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - {reason}]",
    ),
    Known(
        700_211,
        401,
        "invalid_client",
        "No matching federated identity record found for presented assertion issuer '{issuer}'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. {hint}",
    ),
    Known(
        700_212,
        401,
        "invalid_client",
        "No matching federated identity record found for presented assertion audience '{audience}'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. {hint}",
    ),
    Known(
        700_213,
        401,
        "invalid_client",
        "No matching federated identity record found for presented assertion subject '{subject}'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. {hint}",
    ),
    Known(
        900_023,
        400,
        "invalid_request",
        "Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain.",
    ),
    Known(
        900_144,
        400,
        "invalid_request",
        "The request body must contain the following parameter: '{parameter}'.",
    ),
    Known(
        1_002_012,
        400,
        "invalid_scope",
        "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).",
    ),
    Known(7_000_112, 400, "unauthorized_client", "Application '{client}'({name}) is disabled."),
    Known(
        7_000_215,
        401,
        "invalid_client",
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'.",
    ),
    Known(
        7_000_218,
        401,
        "invalid_client",
        "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
    ),
    Known(
        7_002_138,
        401,
        "invalid_client",
        "No matching federated identity record found for presented assertion subject '{subject}'. The subject matches case-insensitively, but not case-sensitively. {hint}",
    ),
];

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
    fn codes_are_listed_once_in_order() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn a_code_that_is_not_built_is_a_general_refusal() {
        assert_eq!(Refusal::with(12_345, &[]).status, 400);
    }
}
