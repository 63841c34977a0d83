//! The token request: what must be in it, and whom it speaks for.
//!
//! Pure, in two steps, because an issuer's keys must be fetched in between: [`examine`] checks everything that the
//! request says, [`Examined::verify`] checks the signature and gives the claims of an access token. A client secret and
//! an application's own assertion are decided in the first step: what they are compared with is in the directory.

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Credential,
    assertion::{Assertion, IssuerNames, check_times, match_credential},
    client_assertion, client_secret,
    error::Refusal,
    jws::{Algorithm, JwsError, KeySet},
    token::AccessClaims,
};
use crate::{
    config::{Config, Tokens},
    directory::{Application, Tenant},
    entra::resource::Resource,
};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The form that is posted. Unknown fields are ignored.
#[derive(Clone, Default, Deserialize)]
pub struct TokenRequest {
    /// Application.
    pub client_id: Option<String>,
    /// `<resource>/.default`.
    pub scope: Option<String>,
    /// `client_credentials`.
    pub grant_type: Option<String>,
    /// The JWT bearer type of RFC 7523.
    pub client_assertion_type: Option<String>,
    /// The assertion.
    pub client_assertion: Option<String>,
    /// A client secret.
    pub client_secret: Option<String>,
}

/// A request that is right so far; the signature of a federated assertion is yet to be checked.
#[derive(Debug)]
pub struct Examined {
    proof: Proof,
    tenant_id: String,
    client_id: String,
    object_id: String,
    audience: String,
    roles: Vec<String>,
}

/// What the client proved itself with.
#[derive(Debug)]
enum Proof {
    /// A client secret, found right.
    Secret,
    /// An assertion of its own, found right.
    Certificate(Assertion),
    /// An external issuer's token; its signature is yet to be checked.
    Federated(Assertion),
}

/// Checks everything but the signature of a federated assertion. `host` is the name that the client called.
///
/// # Errors
/// What Entra would answer.
pub fn examine(
    config: &Config,
    tenant: &str,
    host: &str,
    request: &TokenRequest,
    names: &IssuerNames,
    now: Timestamp,
) -> Result<Examined, Refusal> {
    let client_id = required(request.client_id.as_deref(), "client_id")?;
    let grant = required(request.grant_type.as_deref(), "grant_type")?;
    if grant != "client_credentials" {
        return Err(Refusal::with(70_003, &[("grant", grant)]));
    }
    let tenant = find_tenant(config, tenant)?;
    let app = find_application(tenant, client_id)?;
    let resource = check_scope(config, tenant, required(request.scope.as_deref(), "scope")?)?;
    let proof = match read_assertion(request, app)? {
        None => {
            client_secret::check(app, request.client_secret.as_deref().unwrap_or_default(), now)?;
            Proof::Secret
        }
        Some(own) if own.claims.iss.eq_ignore_ascii_case(&app.client_id) => {
            client_assertion::check(app, tenant, &own, host, now, config.tokens.clock_skew_seconds)?;
            Proof::Certificate(own)
        }
        Some(foreign) => {
            if foreign.header.alg != Algorithm::Rs256 {
                return Err(Refusal::with(50_027, &[]));
            }
            match_credential(app, &foreign.claims, names)?;
            check_times(&foreign.claims, now, config.tokens.clock_skew_seconds)?;
            Proof::Federated(foreign)
        }
    };
    if tenant.blocked_by_conditional_access {
        return Err(Refusal::with(53_003, &[]));
    }
    Ok(Examined {
        proof,
        tenant_id: tenant.id.clone(),
        client_id: app.client_id.clone(),
        object_id: app.object_id.clone(),
        audience: resource.name(config).to_owned(),
        roles: resource.roles(app),
    })
}

impl TokenRequest {
    /// The assertion, as far as it can be read. For the record; nothing is checked.
    #[must_use]
    pub fn presented(&self) -> Option<Assertion> {
        Assertion::parse(self.client_assertion.as_deref()?).ok()
    }

    /// What is presented, by the fields that are there and by who signed the assertion.
    #[must_use]
    pub fn credential(&self) -> Option<Credential> {
        if self.client_assertion.is_none() {
            return self.client_secret.as_ref().map(|_| Credential::Secret);
        }
        let client_id = self.client_id.as_deref().unwrap_or_default();
        let own = self.presented().is_some_and(|own| own.claims.iss.eq_ignore_ascii_case(client_id));
        Some(if own { Credential::Certificate } else { Credential::Federated })
    }
}

impl Examined {
    /// The assertion whose issuer's keys must be fetched before it can be checked.
    #[must_use]
    pub fn awaits_keys(&self) -> Option<&Assertion> {
        match &self.proof {
            Proof::Federated(assertion) => Some(assertion),
            Proof::Secret | Proof::Certificate(_) => None,
        }
    }

    /// The application's own assertion.
    #[must_use]
    pub fn own_assertion(&self) -> Option<&Assertion> {
        match &self.proof {
            Proof::Certificate(assertion) => Some(assertion),
            Proof::Secret | Proof::Federated(_) => None,
        }
    }

    /// Checks the signature of a federated assertion, and says what the access token is to claim. `uti` is a random identifier.
    ///
    /// # Errors
    /// 700027 for a key that the issuer does not publish, 50013 for a signature that does not fit.
    pub fn verify(
        &self,
        keys: &KeySet,
        tokens: &Tokens,
        uti: String,
        now: Timestamp,
    ) -> Result<AccessClaims, Refusal> {
        let (credential, assertion_iss, assertion_sub) = match &self.proof {
            Proof::Secret => (Credential::Secret, String::new(), String::new()),
            Proof::Certificate(own) => {
                (Credential::Certificate, own.claims.iss.clone(), own.claims.sub.clone())
            }
            Proof::Federated(foreign) => {
                verify_signature(foreign, keys, &self.client_id)?;
                (Credential::Federated, foreign.claims.iss.clone(), foreign.claims.sub.clone())
            }
        };
        let lifetime = i64::try_from(tokens.lifetime_seconds).unwrap_or(86_400);
        Ok(AccessClaims {
            aud: self.audience.clone(),
            tid: self.tenant_id.clone(),
            appid: self.client_id.clone(),
            oid: self.object_id.clone(),
            iat: now.as_second(),
            exp: now.as_second() + lifetime,
            assertion_iss,
            assertion_sub,
            credential,
            roles: self.roles.clone(),
            uti,
        })
    }
}

fn verify_signature(assertion: &Assertion, keys: &KeySet, client_id: &str) -> Result<(), Refusal> {
    assertion.verify(keys).map_err(|error| match error {
        JwsError::UnknownKey => Refusal::unknown_key(client_id),
        _ => Refusal::with(
            50_013,
            &[("reason", "The provided signature value did not match the expected signature value.")],
        ),
    })
}

fn required<'a>(value: Option<&'a str>, parameter: &str) -> Result<&'a str, Refusal> {
    value.filter(|value| !value.is_empty()).ok_or_else(|| Refusal::with(900_144, &[("parameter", parameter)]))
}

fn find_tenant<'a>(config: &'a Config, tenant: &str) -> Result<&'a Tenant, Refusal> {
    config.directory.tenant(tenant).ok_or_else(|| {
        let looks_valid = is_guid(tenant) || tenant.contains('.');
        Refusal::with(if looks_valid { 90_002 } else { 900_023 }, &[("tenant", tenant)])
    })
}

fn find_application<'a>(tenant: &'a Tenant, client_id: &str) -> Result<&'a Application, Refusal> {
    let blanks = [("client", client_id), ("tenant", tenant.name.as_str())];
    let app = tenant.application(client_id).ok_or_else(|| Refusal::with(700_016, &blanks))?;
    if app.disabled {
        return Err(Refusal::with(7_000_112, &[("client", client_id), ("name", &app.name)]));
    }
    Ok(app)
}

fn check_scope(config: &Config, tenant: &Tenant, scope: &str) -> Result<Resource, Refusal> {
    if scope.contains(' ') || !scope.contains("://") {
        return Err(Refusal::with(70_011, &[("scope", scope)]));
    }
    let Some(resource) = scope.strip_suffix("/.default") else {
        return Err(Refusal::with(1_002_012, &[("scope", scope)]));
    };
    Resource::named(config, resource)
        .filter(|resource| tenant.exchange_online || !resource.is_exchange())
        .ok_or_else(|| Refusal::with(500_011, &[("resource", resource), ("tenant", &tenant.name)]))
}

/// The assertion; `None` when a secret is presented.
fn read_assertion(request: &TokenRequest, app: &Application) -> Result<Option<Assertion>, Refusal> {
    let secret = request.client_secret.as_deref().filter(|secret| !secret.is_empty());
    if app.public_client && (secret.is_some() || request.client_assertion.is_some()) {
        return Err(Refusal::with(700_025, &[]));
    }
    let Some(assertion) = request.client_assertion.as_deref() else {
        return if secret.is_some() { Ok(None) } else { Err(Refusal::with(7_000_218, &[])) };
    };
    if required(request.client_assertion_type.as_deref(), "client_assertion_type")? != ASSERTION_TYPE {
        return Err(Refusal::with(900_144, &[("parameter", "client_assertion_type")]));
    }
    Assertion::parse(assertion).map(Some).map_err(|_| Refusal::with(50_027, &[]))
}

fn is_guid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        directory::{SAMPLE_CLIENT_ID, SAMPLE_SUBJECT, SAMPLE_TENANT},
        entra::client_certificate::stand_in,
        stand_in::{ISSUER, StandIn},
    };

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn request() -> TokenRequest {
        TokenRequest {
            client_id: Some(SAMPLE_CLIENT_ID.into()),
            scope: Some("https://outlook.office365.com/.default".into()),
            grant_type: Some("client_credentials".into()),
            client_assertion_type: Some(ASSERTION_TYPE.into()),
            client_assertion: Some(StandIn::default().assertion(SAMPLE_SUBJECT, now(), 3600)),
            client_secret: None,
        }
    }

    fn names() -> IssuerNames {
        IssuerNames::from([("stand-in".to_owned(), ISSUER.to_owned())])
    }

    fn code(config: &Config, tenant: &str, request: &TokenRequest) -> u32 {
        examine(config, tenant, "localhost", request, &names(), now())
            .map_or_else(|refusal| refusal.code, |_| 0)
    }

    /// The code that the sample gives after `change`.
    fn after(change: impl FnOnce(&mut Config, &mut TokenRequest)) -> u32 {
        let (mut config, mut request) = (Config::contoso(), request());
        change(&mut config, &mut request);
        code(&config, SAMPLE_TENANT, &request)
    }

    #[test]
    fn the_sample_request_is_right() {
        let examined =
            examine(&Config::contoso(), "contoso.com", "localhost", &request(), &names(), now()).unwrap();
        let keys = StandIn::default().published();
        let claims = examined.verify(&keys, &Tokens::default(), "u".into(), now()).unwrap();
        assert_eq!(claims.assertion_sub, SAMPLE_SUBJECT);
        assert_eq!(claims.exp - claims.iat, 3600);
    }

    #[test]
    fn each_wrong_request_has_its_code() {
        assert_eq!(after(|_, request| request.client_id = None), 900_144);
        assert_eq!(after(|_, request| request.scope = Some(String::new())), 900_144);
        assert_eq!(after(|_, request| request.grant_type = Some("password".into())), 70_003);
        assert_eq!(after(|_, request| request.client_id = Some("no-such-app".into())), 700_016);
        assert_eq!(after(|_, request| request.scope = Some("outlook".into())), 70_011);
        assert_eq!(
            after(|_, request| request.scope = Some("https://outlook.office365.com/SMTP.Send".into())),
            1_002_012
        );
        assert_eq!(
            after(|_, request| request.scope = Some("https://vault.azure.net/.default".into())),
            500_011
        );
        assert_eq!(after(|_, request| request.client_assertion = None), 7_000_218);
        assert_eq!(after(|_, request| request.client_assertion = Some("not.a.jwt".into())), 50_027);
        assert_eq!(after(|_, request| request.client_assertion_type = Some("other".into())), 900_144);
        let secret = |_: &mut Config, request: &mut TokenRequest| {
            (request.client_assertion, request.client_secret) = (None, Some("s".into()));
        };
        assert_eq!(after(secret), 7_000_215);
        assert_eq!(
            after(|config, _| config.directory.tenants[0].applications[0].public_client = true),
            700_025
        );
    }

    #[test]
    fn an_assertion_of_the_application_itself_needs_no_fetched_keys() {
        let audience = format!("https://localhost/{SAMPLE_TENANT}/oauth2/v2.0/token");
        let own = stand_in().assertion(SAMPLE_CLIENT_ID, &audience, now());
        let request = TokenRequest { client_assertion: Some(own), ..request() };
        assert_eq!(request.credential(), Some(Credential::Certificate));
        let examined =
            examine(&Config::contoso(), SAMPLE_TENANT, "localhost", &request, &names(), now()).unwrap();
        assert!(examined.awaits_keys().is_none() && examined.own_assertion().is_some());
        let claims = examined.verify(&KeySet::default(), &Tokens::default(), String::new(), now()).unwrap();
        assert_eq!(
            (claims.credential, claims.assertion_sub.as_str()),
            (Credential::Certificate, SAMPLE_CLIENT_ID)
        );
    }

    #[test]
    fn each_wrong_set_up_has_its_code() {
        assert_eq!(after(|config, _| config.directory.tenants[0].applications[0].disabled = true), 7_000_112);
        assert_eq!(after(|config, _| config.directory.tenants[0].exchange_online = false), 500_011);
        assert_eq!(
            after(|config, _| config.directory.tenants[0].blocked_by_conditional_access = true),
            53_003
        );
        assert_eq!(code(&Config::contoso(), "3e2c1f7a-0000-4000-8000-000000000000", &request()), 90_002);
        assert_eq!(code(&Config::contoso(), "fabrikam.com", &request()), 90_002);
        assert_eq!(code(&Config::contoso(), "contoso", &request()), 900_023);
    }

    #[test]
    fn each_wrong_assertion_has_its_code() {
        let present = |issuer: &str, subject: &str, audience: &str, from: i64| {
            let from = now().as_second() + from;
            let assertion = StandIn::default().token(issuer, subject, audience, from, 3600);
            after(|_, request| request.client_assertion = Some(assertion))
        };
        let audience = "api://AzureADTokenExchange";
        assert_eq!(present(ISSUER, SAMPLE_SUBJECT, audience, 0), 0);
        assert_eq!(present("https://other.example/", SAMPLE_SUBJECT, audience, 0), 700_211);
        assert_eq!(present(ISSUER, SAMPLE_SUBJECT, "mailroute.dev", 0), 700_212);
        assert_eq!(present(ISSUER, "system:serviceaccount:shop:other", audience, 0), 700_213);
        assert_eq!(present(ISSUER, "system:serviceaccount:SHOP:default", audience, 0), 7_002_138);
        assert_eq!(present(ISSUER, SAMPLE_SUBJECT, audience, -7200), 700_024);
        assert_eq!(present(ISSUER, SAMPLE_SUBJECT, audience, 7200), 700_024);
    }

    #[test]
    fn a_rotated_key_is_not_found_and_a_forged_signature_does_not_fit() {
        let examined =
            examine(&Config::contoso(), SAMPLE_TENANT, "localhost", &request(), &names(), now()).unwrap();
        let mut rotated = StandIn::default();
        rotated.rotate(false);
        let mut keys = rotated.published();
        let refusal = examined.verify(&keys, &Tokens::default(), String::new(), now()).unwrap_err();
        assert_eq!(refusal.code, 700_027);
        keys.keys[0].kid = examined.awaits_keys().unwrap().header.kid.clone();
        let refusal = examined.verify(&keys, &Tokens::default(), String::new(), now()).unwrap_err();
        assert_eq!(refusal.code, 50_013);
    }
}
