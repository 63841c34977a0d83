//! The token endpoint over HTTP: requests in, answers out, every exchange recorded.
//!
//! It decides nothing about tokens itself; see [`crate::entra::request`]. Beside the endpoint it serves the discovery documents
//! of the authority and the public keys of the stand-in issuer.

pub mod issuers;

use std::{sync::Arc, time::Duration};

use axum::{
    Form, Json, Router,
    extract::{Path, State, rejection::FormRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use serde_json::json;

use crate::{
    config::Config,
    directory::Issuer,
    entra::{
        TokenExchange,
        assertion::{Assertion, Claims, IssuerNames},
        error::{Refusal, Trace},
        request::{TokenRequest, examine},
        token::AccessClaims,
    },
    faults::LoginAction,
    keys::{KeySource, jws::KeySet},
    office::Shared,
    random,
    stand_in::{self, StandIn},
    violations::Kind,
};

use issuers::Issuers;

/// What the endpoint works with.
#[derive(Clone, Debug)]
pub struct Login {
    /// The service.
    pub shared: Arc<Shared>,
    /// Keys of trusted issuers.
    pub issuers: Arc<Issuers>,
}

/// What becomes of a request.
enum Answer {
    Issued(AccessClaims),
    Refused(Refusal),
    Fault(LoginAction),
}

/// Every path of the authority.
pub fn routes(login: Login) -> Router {
    Router::new()
        .route("/{tenant}/oauth2/v2.0/token", post(token))
        .route("/{tenant}/v2.0/.well-known/openid-configuration", get(authority_configuration))
        .route("/stand-in/.well-known/openid-configuration", get(stand_in_configuration))
        .route("/stand-in/keys", get(stand_in_keys))
        .with_state(login)
}

async fn token(
    State(login): State<Login>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    form: Result<Form<TokenRequest>, FormRejection>,
) -> Response {
    let request = form.map(|Form(request)| request).unwrap_or_default();
    let (delay, fault) = login.shared.with(|office| office.faults.login.take());
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let now = Timestamp::now();
    let answer = match fault {
        Some(LoginAction::Aadsts(code)) => Answer::Refused(login.injected(code, &tenant, &request)),
        Some(fault) => Answer::Fault(fault),
        None => login
            .decide(&tenant, host(&headers), &request, now)
            .await
            .map_or_else(Answer::Refused, Answer::Issued),
    };
    login.record(&tenant, &request, &answer, now);
    login.respond(answer, &headers, now)
}

impl Login {
    async fn decide(
        &self,
        tenant: &str,
        host: &str,
        request: &TokenRequest,
        now: Timestamp,
    ) -> Result<AccessClaims, Refusal> {
        let config = self.shared.read(|office| office.config.clone());
        let names = self.issuers.names(&config.directory.issuers, now).await;
        let examined = examine(&config, tenant, host, request, &names, now)?;
        let keys = match examined.awaits_keys() {
            Some(assertion) => self.keys(&config, &names, assertion, now).await?,
            None => KeySet::default(),
        };
        let claims = examined.verify(&keys, &config.tokens, random::hex::<512>(), now)?;
        if let Some(own) = examined.own_assertion() {
            self.note_own_assertion(&own.claims, now);
        }
        Ok(claims)
    }

    /// The keys of the assertion's issuer.
    async fn keys(
        &self,
        config: &Config,
        names: &IssuerNames,
        assertion: &Assertion,
        now: Timestamp,
    ) -> Result<KeySet, Refusal> {
        let (trusted, iss) = (&config.directory.issuers, &assertion.claims.iss);
        let stand_in = |issuer: &Issuer| {
            issuer.keys == KeySource::StandIn && names.get(&issuer.name).is_some_and(|name| name == iss)
        };
        if trusted.iter().any(stand_in) {
            return Ok(self.stand_in().published());
        }
        let (kid, interval) = (assertion.header.kid.as_deref(), config.tokens.keys_refetch_seconds);
        reachable(self.issuers.keys(trusted, names, iss, kid, now, interval).await, iss)
    }

    fn note_own_assertion(&self, claims: &Claims, now: Timestamp) {
        self.shared.with(|office| {
            if let Some(detail) = office.replays.note(claims.jti.as_deref(), claims.nbf, claims.exp, now) {
                office.violation(now, 0, Kind::CarelessAssertion, detail);
            }
        });
    }

    fn stand_in(&self) -> StandIn {
        self.shared.read(|office| office.stand_in.clone())
    }

    /// A code that a fault asks for, with what the request gives to fill its blanks.
    fn injected(&self, code: u32, tenant: &str, request: &TokenRequest) -> Refusal {
        let (issuer, subject) =
            request.presented().map(|own| (own.claims.iss, own.claims.sub)).unwrap_or_default();
        let client = request.client_id.as_deref().unwrap_or_default();
        let scope = request.scope.as_deref().unwrap_or_default();
        let blanks = [
            ("tenant", tenant),
            ("issuer", &*issuer),
            ("subject", &*subject),
            ("client", client),
            ("scope", scope),
        ];
        if code == 700_027 { Refusal::unknown_key(client) } else { Refusal::with(code, &blanks) }
    }

    fn record(&self, tenant: &str, request: &TokenRequest, answer: &Answer, at: Timestamp) {
        let (status, outcome) = answer.summary();
        let presented = request.presented();
        let algorithm = presented.as_ref().map(|own| own.header.alg);
        let (assertion_issuer, assertion_subject) =
            presented.map(|own| (own.claims.iss, own.claims.sub)).unzip();
        let client_id = request.client_id.clone().unwrap_or_default();
        tracing::info!(
            tenant,
            client_id,
            status,
            outcome,
            subject = assertion_subject.as_deref().unwrap_or("-"),
            "token request"
        );
        let tenant = tenant.to_owned();
        let exchange = TokenExchange {
            at,
            tenant,
            client_id,
            assertion_issuer,
            assertion_subject,
            credential: request.credential(),
            algorithm,
            status,
            outcome,
        };
        self.shared.with(|office| office.exchange(exchange));
    }

    fn respond(&self, answer: Answer, headers: &HeaderMap, at: Timestamp) -> Response {
        match answer {
            Answer::Issued(claims) => self.issue(&claims),
            Answer::Refused(refusal) => refuse(&refusal, headers, at),
            Answer::Fault(fault) => misbehave(fault),
        }
    }

    fn issue(&self, claims: &AccessClaims) -> Response {
        let lifetime = claims.exp - claims.iat;
        self.shared.read(|office| {
            let as_string = office.faults.login.expires_in_as_string;
            let expires_in = if as_string { json!(lifetime.to_string()) } else { json!(lifetime) };
            let token = office.token_key.issue(claims);
            let body = json!({
                "token_type": "Bearer",
                "expires_in": expires_in,
                "ext_expires_in": expires_in,
                "access_token": token,
            });
            (no_store(), Json(body)).into_response()
        })
    }
}

impl Answer {
    fn summary(&self) -> (u16, String) {
        match self {
            Self::Issued(_) => (200, "Issued".into()),
            Self::Refused(refusal) => (refusal.status, format!("AADSTS{}", refusal.code)),
            Self::Fault(LoginAction::TooManyRequests(_)) => (429, "TooManyRequests".into()),
            Self::Fault(LoginAction::BadGateway) => (502, "BadGateway".into()),
            Self::Fault(LoginAction::ServiceUnavailable(_)) => (503, "ServiceUnavailable".into()),
            Self::Fault(_) => (0, "Cut".into()),
        }
    }
}

fn reachable(found: Option<Result<KeySet, issuers::FetchError>>, issuer: &str) -> Result<KeySet, Refusal> {
    match found {
        Some(Ok(keys)) => Ok(keys),
        Some(Err(error)) => {
            tracing::warn!("issuer {issuer}: {error}");
            Err(Refusal::with(90_061, &[("reason", "The keys of the issuer could not be fetched.")]))
        }
        None => Err(Refusal::with(90_061, &[("reason", "The issuer could not be reached.")])),
    }
}

fn refuse(refusal: &Refusal, headers: &HeaderMap, at: Timestamp) -> Response {
    let given = headers.get("client-request-id").and_then(|value| value.to_str().ok());
    let correlation_id = given.map_or_else(random::guid, str::to_owned);
    let trace = Trace { at, trace_id: random::guid(), correlation_id };
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let kind = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (status, no_store(), kind, refusal.body(&trace, host(headers))).into_response()
}

fn misbehave(fault: LoginAction) -> Response {
    match fault {
        LoginAction::TooManyRequests(seconds) => {
            let headers = [(header::RETRY_AFTER, seconds.to_string())];
            (StatusCode::TOO_MANY_REQUESTS, headers, "Too Many Requests").into_response()
        }
        LoginAction::BadGateway => {
            let page =
                "<!DOCTYPE html><html><body><h2>Our services aren't available right now</h2></body></html>";
            (StatusCode::BAD_GATEWAY, [(header::CONTENT_TYPE, "text/html")], page).into_response()
        }
        LoginAction::ServiceUnavailable(seconds) => {
            let mut response = (StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable").into_response();
            if let Some(value) = seconds.and_then(|seconds| HeaderValue::try_from(seconds.to_string()).ok()) {
                response.headers_mut().insert(header::RETRY_AFTER, value);
            }
            response
        }
        // A body that fails ends the connection before the answer is whole.
        LoginAction::Cut | LoginAction::Aadsts(_) | LoginAction::Delay(_) => {
            let broken =
                futures::stream::once(async { Err::<bytes::Bytes, _>(std::io::Error::other("cut")) });
            Response::new(axum::body::Body::from_stream(broken))
        }
    }
}

/// The name by which the authority was called.
fn host(headers: &HeaderMap) -> &str {
    headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("login.microsoftonline.com")
}

fn no_store() -> [(header::HeaderName, &'static str); 2] {
    [(header::CACHE_CONTROL, "no-store, no-cache"), (header::PRAGMA, "no-cache")]
}

async fn authority_configuration(Path(tenant): Path<String>, headers: HeaderMap) -> Response {
    let host = host(&headers);
    Json(json!({
        "issuer": format!("https://{host}/{tenant}/v2.0"),
        "token_endpoint": format!("https://{host}/{tenant}/oauth2/v2.0/token"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "response_types_supported": ["token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }))
    .into_response()
}

async fn stand_in_configuration(headers: HeaderMap) -> Response {
    let host = host(&headers);
    Json(json!({
        "issuer": stand_in::ISSUER,
        "jwks_uri": format!("https://{host}/stand-in/keys"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }))
    .into_response()
}

async fn stand_in_keys(State(login): State<Login>) -> Json<KeySet> {
    Json(login.stand_in().published())
}
