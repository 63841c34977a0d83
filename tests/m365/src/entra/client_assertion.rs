//! The assertion that an application signs for itself, with the certificate that is registered on it.
//!
//! Pure: whose it is, for whom, when, and with which key. It refuses to know federated credentials. Source: Microsoft
//! identity platform, "Application authentication certificate credentials", and the texts of AADSTS700021, 700023, 700024
//! and 700027 as they are seen.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{
    assertion::{Assertion, check_times},
    error::Refusal,
};
use crate::{
    directory::{Application, Tenant},
    keys::{client_certificate::RegisteredKey, jws::Header},
};

/// "5 to 10 minutes after `nbf` at most".
const LONGEST_LIFE: i64 = 600;

/// Assertions that are remembered at most; older ones are forgotten, so that replays cost bounded memory.
const MAX_REMEMBERED: usize = 10_000;

const NOT_REGISTERED: &str =
    "The certificate with identifier used to sign the client assertion is not registered on application.";
const EXPIRED: &str =
    "The certificate with identifier used to sign the client assertion is expired on application.";
const INVALID: &str = "Client assertion contains an invalid signature.";

/// Assertions that were exchanged and are still in time.
#[derive(Debug, Default)]
pub struct Replays {
    seen: HashMap<String, i64>,
}

/// Checks an assertion that claims to be by the application itself.
///
/// `host` is the name by which the client reached the token endpoint.
///
/// # Errors
/// What Entra would answer.
pub fn check(
    app: &Application,
    tenant: &Tenant,
    assertion: &Assertion,
    host: &str,
    now: Timestamp,
    skew: u64,
) -> Result<(), Refusal> {
    let (claims, header) = (&assertion.claims, &assertion.header);
    if !claims.sub.eq_ignore_ascii_case(&app.client_id) {
        return Err(Refusal::with(700_021, &[]));
    }
    if claims.aud.len() != 1 || !is_token_endpoint(&claims.aud[0], host, tenant) {
        return Err(Refusal::with(700_023, &[]));
    }
    let refused = |sentence: &str, reason: &str, found: &str| {
        let blanks = [
            ("sentence", sentence),
            ("reason", reason),
            ("thumbprint", presented(header)),
            ("found", found),
            ("client", app.client_id.as_str()),
        ];
        Err(Refusal::with(700_027, &blanks))
    };
    if presented(header).is_empty() {
        return Err(Refusal::with(
            50_027,
            &[("reason", " No certificate thumbprint specified in token header.")],
        ));
    }
    let keys = app.certificates.iter().filter_map(|certificate| certificate.read().ok());
    let Some(key) = keys.into_iter().find(|key| key.is_meant_by(header)) else {
        return refused(NOT_REGISTERED, "The key was not found.", "");
    };
    if !key.is_in_force(now) {
        return refused(EXPIRED, "The key used is expired.", &found(&key));
    }
    if assertion.verify_with(&key.public_key).is_err() {
        let reason = "The provided signature value did not match the expected signature value.";
        return refused(INVALID, reason, &found(&key));
    }
    check_times(claims, now, skew)
}

impl Replays {
    /// Remembers an assertion that was exchanged. Gives what a careful client would not have done.
    pub fn note(
        &mut self,
        jti: Option<&str>,
        start: Option<i64>,
        end: i64,
        now: Timestamp,
    ) -> Option<String> {
        if end - start.unwrap_or(now.as_second()) > LONGEST_LIFE {
            return Some(format!("the assertion lives longer than {LONGEST_LIFE} seconds"));
        }
        let Some(jti) = jti.filter(|jti| !jti.is_empty()) else {
            return Some("the assertion has no jti".into());
        };
        self.seen.retain(|_, end| *end > now.as_second());
        if self.seen.len() >= MAX_REMEMBERED {
            self.seen.clear();
        }
        self.seen.insert(jti.to_owned(), end).map(|_| "the assertion was presented before".into())
    }
}

/// The audience is the address that the assertion is posted to; Entra also takes the older path and the issuer's.
fn is_token_endpoint(audience: &str, host: &str, tenant: &Tenant) -> bool {
    let Some((name, path)) = audience.strip_prefix("https://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let Some((named, rest)) = path.split_once('/') else { return false };
    without_port(name).eq_ignore_ascii_case(without_port(host))
        && tenant.is_called(named)
        && ["oauth2/v2.0/token", "oauth2/token", "v2.0"].contains(&rest)
}

fn without_port(host: &str) -> &str {
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// The thumbprint that the header names; empty when it names none.
fn presented(header: &Header) -> &str {
    header.x5t_sha256.as_deref().or(header.x5t.as_deref()).unwrap_or_default()
}

fn found(key: &RegisteredKey) -> String {
    let at = |second| {
        Timestamp::from_second(second)
            .map_or_else(|_| second.to_string(), |at| at.strftime("%m/%d/%Y %H:%M:%S").to_string())
    };
    format!("Found key 'Start={}, End={}', ", at(key.start), at(key.end))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        directory::{CertificateSource, Directory, SAMPLE_CLIENT_ID, SAMPLE_TENANT},
        keys::client_certificate::stand_in,
    };

    const AUDIENCE: &str = "https://localhost:8443/72f988bf-86f1-41af-91ab-2d7cd011db47/oauth2/v2.0/token";

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    /// The code for an assertion with these claims; 0 when it is right.
    fn code(token: &str, change: impl FnOnce(&mut Application)) -> u32 {
        let mut directory = Directory::contoso();
        change(&mut directory.tenants[0].applications[0]);
        let tenant = &directory.tenants[0];
        let assertion = Assertion::parse(token).unwrap();
        check(&tenant.applications[0], tenant, &assertion, "localhost:8443", now(), 300)
            .map_or_else(|refusal| refusal.code, |()| 0)
    }

    fn claims(subject: &str, audience: &str, from: i64) -> serde_json::Value {
        let from = now().as_second() + from;
        json!({"aud": audience, "iss": SAMPLE_CLIENT_ID, "sub": subject, "jti": "1", "nbf": from, "exp": from + 300})
    }

    #[test]
    fn an_assertion_of_the_registered_certificate_is_right() {
        assert_eq!(code(&stand_in().assertion(SAMPLE_CLIENT_ID, AUDIENCE, now()), |_| {}), 0);
    }

    #[test]
    fn each_wrong_claim_has_its_code() {
        let sign = |subject: &str, audience: &str, from| stand_in().sign(&claims(subject, audience, from));
        assert_eq!(code(&sign("other", AUDIENCE, 0), |_| {}), 700_021);
        for audience in [
            "api://AzureADTokenExchange",
            "https://login.example/72f988bf-86f1-41af-91ab-2d7cd011db47/oauth2/v2.0/token",
            "https://localhost/fabrikam.com/oauth2/v2.0/token",
            "https://localhost/72f988bf-86f1-41af-91ab-2d7cd011db47/token",
            "http://localhost/72f988bf-86f1-41af-91ab-2d7cd011db47/oauth2/v2.0/token",
        ] {
            assert_eq!(code(&sign(SAMPLE_CLIENT_ID, audience, 0), |_| {}), 700_023, "{audience}");
        }
        assert_eq!(code(&sign(SAMPLE_CLIENT_ID, AUDIENCE, -1000), |_| {}), 700_024);
        assert_eq!(code(&sign(SAMPLE_CLIENT_ID, AUDIENCE, 1000), |_| {}), 700_024);
        let by_domain = "https://LOCALHOST/contoso.com/oauth2/v2.0/token";
        assert_eq!(code(&sign(SAMPLE_CLIENT_ID, by_domain, 0), |_| {}), 0);
    }

    #[test]
    fn an_unknown_or_expired_certificate_and_a_bad_signature_are_told_apart_by_their_reason() {
        let good = stand_in().assertion(SAMPLE_CLIENT_ID, AUDIENCE, now());
        let text = |token: &str, certificates: Vec<crate::directory::RegisteredCertificate>, at| {
            let mut directory = Directory::contoso();
            directory.tenants[0].applications[0].certificates = certificates;
            let tenant = &directory.tenants[0];
            let assertion = Assertion::parse(token).unwrap();
            check(&tenant.applications[0], tenant, &assertion, "localhost", at, 300).unwrap_err().text
        };
        let registered = Directory::contoso().tenants[0].applications[0].certificates.clone();
        assert!(text(&good, Vec::new(), now()).contains("[Reason - The key was not found., Thumbprint"));
        let late = Timestamp::from_second(RegisteredKey::read(stand_in().certificate_pem()).unwrap().end + 1);
        assert!(
            text(&good, registered.clone(), late.unwrap()).contains("[Reason - The key used is expired.")
        );
        let other = stand_in().sign(&claims(SAMPLE_CLIENT_ID, AUDIENCE, 1));
        let forged = format!("{}.{}", good.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
        let text = text(&forged, registered, now());
        assert!(
            text.starts_with("Client assertion contains an invalid signature. [Reason - The provided"),
            "{text}"
        );
        assert!(text.contains(SAMPLE_CLIENT_ID), "{text}");
    }

    #[test]
    fn a_header_without_thumbprint_is_malformed() {
        let token = crate::stand_in::StandIn::default().sign(&claims(SAMPLE_CLIENT_ID, AUDIENCE, 0));
        assert_eq!(code(&token, |_| {}), 50_027);
        assert!(SAMPLE_TENANT.len() == 36, "the audience above names the tenant by its id");
        assert_eq!(
            code(&stand_in().assertion(SAMPLE_CLIENT_ID, AUDIENCE, now()), |app| {
                app.certificates[0].certificate =
                    CertificateSource::Pem(stand_in().certificate_pem().to_owned());
            }),
            0
        );
    }

    #[test]
    fn a_replayed_a_long_and_a_nameless_assertion_are_noted() {
        let mut replays = Replays::default();
        let now_second = now().as_second();
        assert_eq!(replays.note(Some("a"), Some(now_second), now_second + 600, now()), None);
        assert!(replays.note(Some("a"), Some(now_second), now_second + 600, now()).is_some());
        assert!(replays.note(Some("b"), Some(now_second), now_second + 601, now()).is_some());
        assert!(replays.note(None, Some(now_second), now_second + 60, now()).is_some());
        let later = Timestamp::from_second(now_second + 600).unwrap();
        assert_eq!(replays.note(Some("a"), Some(now_second + 600), now_second + 900, later), None);
    }
}
