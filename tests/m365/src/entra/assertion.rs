//! The federated assertion: a Kubernetes service-account token, or any other OpenID Connect token that an application
//! trusts.
//!
//! Pure: matching against federated credentials and the check of its times. It refuses to know where keys come from.
//! Source: Microsoft Entra, "Workload identity federation", and the error texts of its troubleshooting pages.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::error::Refusal;
use crate::{
    directory::{Application, FederatedCredential},
    keys::jws::Compact,
};

/// The claims that are looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Issuer, compared exactly.
    pub iss: String,
    /// Subject, compared exactly.
    pub sub: String,
    /// Audiences. Entra wants exactly one.
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// End of validity, seconds since 1970.
    pub exp: i64,
    /// Start of validity, seconds since 1970.
    #[serde(default)]
    pub nbf: Option<i64>,
    /// Identifier of the token.
    #[serde(default)]
    pub jti: Option<String>,
}

/// An assertion taken apart.
pub type Assertion = Compact<Claims>;

/// Names of issuers and the `iss` they stand for.
pub type IssuerNames = HashMap<String, String>;

/// Finds the federated credential that the assertion matches.
///
/// # Errors
/// 700211, 700212, 700213 or 7002138 by the part that did not match, looked at in the order issuer, subject, audience.
pub fn match_credential<'a>(
    app: &'a Application,
    claims: &Claims,
    names: &IssuerNames,
) -> Result<&'a FederatedCredential, Refusal> {
    let issuer_of = |credential: &FederatedCredential| {
        names.get(&credential.issuer).unwrap_or(&credential.issuer).as_str() == claims.iss
    };
    let of_issuer: Vec<_> =
        app.federated_credentials.iter().filter(|credential| issuer_of(credential)).collect();
    if of_issuer.is_empty() {
        return Err(Refusal::with(700_211, &[("issuer", &claims.iss)]));
    }
    let of_subject: Vec<_> = of_issuer.iter().filter(|credential| credential.subject == claims.sub).collect();
    if of_subject.is_empty() {
        let nearly = of_issuer.iter().any(|credential| credential.subject.eq_ignore_ascii_case(&claims.sub));
        let code = if nearly { 7_002_138 } else { 700_213 };
        return Err(Refusal::with(code, &[("subject", &claims.sub)]));
    }
    let audience = claims.aud.join(" ");
    of_subject
        .into_iter()
        .find(|credential| claims.aud.len() == 1 && credential.audience == audience)
        .copied()
        .ok_or_else(|| Refusal::with(700_212, &[("audience", &audience)]))
}

/// Checks that the assertion is valid now, give or take `skew` seconds.
///
/// # Errors
/// 700024.
pub fn check_times(claims: &Claims, now: Timestamp, skew: u64) -> Result<(), Refusal> {
    let skew = i64::try_from(skew).unwrap_or(0);
    let now_second = now.as_second();
    let started = claims.nbf.is_none_or(|start| start <= now_second.saturating_add(skew));
    let over = claims.exp.saturating_add(skew) <= now_second;
    if started && !over {
        return Ok(());
    }
    Err(Refusal::with(
        700_024,
        &[
            ("now", &now.strftime("%Y-%m-%dT%H:%M:%S.%fZ").to_string()),
            ("start", &instant(claims.nbf.unwrap_or(0))),
            ("end", &instant(claims.exp)),
        ],
    ))
}

fn instant(second: i64) -> String {
    Timestamp::from_second(second)
        .map_or_else(|_| second.to_string(), |at| at.strftime("%Y-%m-%dT%H:%M:%S.0000000Z").to_string())
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(audience) => vec![audience],
        Audience::Many(audiences) => audiences,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{Directory, EXCHANGE_AUDIENCE, SAMPLE_SUBJECT};

    fn claims() -> Claims {
        Claims {
            iss: "https://issuer.example/".into(),
            sub: SAMPLE_SUBJECT.into(),
            aud: vec![EXCHANGE_AUDIENCE.into()],
            exp: 2_000,
            nbf: Some(1_000),
            jti: None,
        }
    }

    fn matches(claims: &Claims) -> Result<String, u32> {
        let directory = Directory::contoso();
        let names = IssuerNames::from([("stand-in".to_owned(), "https://issuer.example/".to_owned())]);
        match_credential(&directory.tenants[0].applications[0], claims, &names)
            .map(|credential| credential.name.clone())
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn issuer_subject_and_audience_match_exactly() {
        assert_eq!(matches(&claims()), Ok("shop-default".into()));
        let without_slash = Claims { iss: "https://issuer.example".into(), ..claims() };
        assert_eq!(matches(&without_slash), Err(700_211));
        let other = Claims { sub: "system:serviceaccount:shop:other".into(), ..claims() };
        assert_eq!(matches(&other), Err(700_213));
        let case = Claims { sub: "system:serviceaccount:Shop:default".into(), ..claims() };
        assert_eq!(matches(&case), Err(7_002_138));
        let audience = Claims { aud: vec!["api://azureadtokenexchange".into()], ..claims() };
        assert_eq!(matches(&audience), Err(700_212));
    }

    #[test]
    fn two_audiences_are_one_too_many() {
        let both = Claims { aud: vec![EXCHANGE_AUDIENCE.into(), "other".into()], ..claims() };
        assert_eq!(matches(&both), Err(700_212));
    }

    #[test]
    fn times_hold_with_skew_on_both_ends() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let check = |second| check_times(&claims(), at(second), 300).map_err(|refusal| refusal.code);
        assert_eq!(check(699), Err(700_024));
        assert_eq!(check(700), Ok(()));
        assert_eq!(check(2_299), Ok(()));
        assert_eq!(check(2_300), Err(700_024));
    }
}
