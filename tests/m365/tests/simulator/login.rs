//! The token endpoint over TLS: every refusal that is built, the faults, and where keys come from.

use std::path::Path;

use super::client::{self, Form, login_page, token};
use jiff::Timestamp;
use mailroute_m365::{
    Faults, Kind, LoginAction, LoginFaults, Options, Rule, Simulator, Token,
    directory::{EXCHANGE_AUDIENCE, Issuer, SAMPLE_SUBJECT},
    entra::{KeySource, keys::Remote},
    stand_in::{ISSUER, StandIn},
};
use serde_json::json;

async fn start() -> Simulator {
    Simulator::start(Options::default()).await.unwrap()
}

async fn code(simulator: &Simulator, form: &Form) -> (u16, String, u64) {
    let answer = token(simulator, form).await.unwrap();
    (answer.status.as_u16(), answer.json()["error"].as_str().unwrap().to_owned(), answer.code())
}

fn login_faults(simulator: &Simulator, login: LoginFaults) {
    simulator.set_faults(Faults { login, ..Faults::default() });
}

fn rules(simulator: &Simulator, rules: Vec<Rule<Token, LoginAction>>) {
    login_faults(simulator, LoginFaults { rules, ..LoginFaults::default() });
}

#[tokio::test]
async fn a_trusted_assertion_becomes_a_token() {
    let simulator = start().await;
    let answer = token(&simulator, &Form::sample(&simulator)).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["cache-control"], "no-store, no-cache");
    let body = answer.json();
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], json!(3600));
    assert_eq!(body["ext_expires_in"], json!(3600));
    let length = body["access_token"].as_str().unwrap().len();
    assert!((1_000..4_000).contains(&length), "{length}");
    let exchange = &simulator.exchanges()[0];
    assert_eq!((exchange.status, exchange.outcome.as_str()), (200, "Issued"));
    assert_eq!(exchange.assertion_subject.as_deref(), Some(SAMPLE_SUBJECT));
    assert_eq!(exchange.assertion_issuer.as_deref(), Some(ISSUER));
    assert!(simulator.violations().is_empty());
}

#[tokio::test]
async fn the_tenant_may_be_named_by_a_verified_domain() {
    let simulator = start().await;
    let form = Form { tenant: "contoso.com".into(), ..Form::sample(&simulator) };
    assert_eq!(token(&simulator, &form).await.unwrap().status, 200);
}

#[tokio::test]
async fn each_refusal_has_its_status_error_and_code() {
    let simulator = start().await;
    let good = Form::sample(&simulator);
    let signed = |issuer: &str, subject: &str, audience: &str, from: i64| {
        let from = Timestamp::now().as_second() + from;
        Form { assertion: StandIn::default().token(issuer, subject, audience, from, 3600), ..good.clone() }
    };
    let expected = [
        (Form { tenant: "fabrikam.com".into(), ..good.clone() }, 400, "invalid_request", 90_002),
        (Form { tenant: "nonsense".into(), ..good.clone() }, 400, "invalid_request", 900_023),
        (
            Form { client_id: "5d0c4a3e-0000-4c52-9d7a-6e2f10b9c874".into(), ..good.clone() },
            400,
            "unauthorized_client",
            700_016,
        ),
        (Form { client_id: String::new(), ..good.clone() }, 400, "invalid_request", 900_144),
        (Form { scope: "outlook".into(), ..good.clone() }, 400, "invalid_scope", 70_011),
        (
            Form { scope: "https://outlook.office365.com/SMTP.Send".into(), ..good.clone() },
            400,
            "invalid_scope",
            1_002_012,
        ),
        (
            Form { scope: "https://vault.azure.net/.default".into(), ..good.clone() },
            400,
            "invalid_resource",
            500_011,
        ),
        (Form { assertion: "a.b.c".into(), ..good.clone() }, 400, "invalid_client", 50_027),
        (
            signed("https://elsewhere.example/", SAMPLE_SUBJECT, EXCHANGE_AUDIENCE, 0),
            401,
            "invalid_client",
            700_211,
        ),
        (signed(ISSUER, SAMPLE_SUBJECT, "api://other", 0), 401, "invalid_client", 700_212),
        (
            signed(ISSUER, "system:serviceaccount:shop:other", EXCHANGE_AUDIENCE, 0),
            401,
            "invalid_client",
            700_213,
        ),
        (
            signed(ISSUER, "system:serviceaccount:Shop:default", EXCHANGE_AUDIENCE, 0),
            401,
            "invalid_client",
            7_002_138,
        ),
        (signed(ISSUER, SAMPLE_SUBJECT, EXCHANGE_AUDIENCE, -10_000), 401, "invalid_client", 700_024),
        (signed(ISSUER, SAMPLE_SUBJECT, EXCHANGE_AUDIENCE, 10_000), 401, "invalid_client", 700_024),
    ];
    for (form, status, error, number) in &expected {
        assert_eq!(code(&simulator, form).await, (*status, (*error).to_owned(), *number));
    }
    let outcomes: Vec<String> = simulator.exchanges().into_iter().map(|exchange| exchange.outcome).collect();
    assert_eq!(outcomes.len(), expected.len());
    assert_eq!(outcomes[0], "AADSTS90002");
}

#[tokio::test]
async fn a_tampered_assertion_does_not_fit_its_signature() {
    let simulator = start().await;
    let good = Form::sample(&simulator);
    let other = StandIn::default().assertion("system:serviceaccount:evil:pod", Timestamp::now(), 3600);
    let head = good.assertion.rsplit_once('.').unwrap().0;
    let form = Form { assertion: format!("{head}.{}", other.rsplit_once('.').unwrap().1), ..good.clone() };
    assert_eq!(code(&simulator, &form).await, (401, "invalid_client".into(), 50_013));
}

#[tokio::test]
async fn set_up_faults_have_their_codes() {
    let simulator = start().await;
    let form = Form::sample(&simulator);
    simulator.directory(|directory| directory.tenants[0].applications[0].disabled = true);
    assert_eq!(code(&simulator, &form).await.2, 7_000_112);
    simulator.directory(|directory| {
        directory.tenants[0].applications[0].disabled = false;
        directory.tenants[0].exchange_online = false;
    });
    assert_eq!(code(&simulator, &form).await.2, 500_011);
    simulator.directory(|directory| {
        directory.tenants[0].exchange_online = true;
        directory.tenants[0].blocked_by_conditional_access = true;
    });
    assert_eq!(code(&simulator, &form).await.2, 53_003);
}

#[tokio::test]
async fn an_error_body_is_microsofts() {
    let simulator = start().await;
    let answer =
        token(&simulator, &Form { tenant: "fabrikam.com".into(), ..Form::sample(&simulator) }).await.unwrap();
    assert_eq!(answer.headers["content-type"], "application/json; charset=utf-8");
    let body = answer.json();
    let text = body["error_description"].as_str().unwrap();
    assert!(text.starts_with("AADSTS90002: Tenant 'fabrikam.com' not found."), "{text}");
    let trace = body["trace_id"].as_str().unwrap();
    let correlation = body["correlation_id"].as_str().unwrap();
    let end = format!(
        "\r\nTrace ID: {trace}\r\nCorrelation ID: {correlation}\r\nTimestamp: {}",
        body["timestamp"].as_str().unwrap()
    );
    assert!(text.ends_with(&end), "{text}");
}

#[tokio::test]
async fn faults_answer_in_the_place_of_the_endpoint() {
    let simulator = start().await;
    let form = Form::sample(&simulator);
    rules(
        &simulator,
        vec![
            Rule::times(Token::Token, LoginAction::TooManyRequests(60), 1),
            Rule::times(Token::Token, LoginAction::BadGateway, 1),
            Rule::times(Token::Token, LoginAction::ServiceUnavailable(None), 1),
            Rule::times(Token::Token, LoginAction::ServiceUnavailable(Some(7)), 1),
            Rule::times(Token::Token, LoginAction::Cut, 1),
        ],
    );
    let answer = token(&simulator, &form).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.text()), (429, "Too Many Requests"));
    assert_eq!(answer.headers["retry-after"], "60");
    let answer = token(&simulator, &form).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.headers["content-type"].to_str().unwrap()),
        (502, "text/html")
    );
    assert!(token(&simulator, &form).await.unwrap().headers.get("retry-after").is_none());
    assert_eq!(token(&simulator, &form).await.unwrap().headers["retry-after"], "7");
    assert!(token(&simulator, &form).await.is_err());
    assert_eq!(token(&simulator, &form).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_spreading_credential_comes_and_goes() {
    let simulator = start().await;
    let form = Form::sample(&simulator);
    rules(
        &simulator,
        vec![Rule { every: Some(2), ..Rule::times(Token::Token, LoginAction::Aadsts(700_213), 2) }],
    );
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(token(&simulator, &form).await.unwrap().status.as_u16());
    }
    assert_eq!(statuses, [401, 200, 401, 200, 200]);
}

#[tokio::test]
async fn expires_in_may_be_a_string_and_short() {
    let simulator = start().await;
    simulator.config(|config| config.tokens.lifetime_seconds = 5);
    login_faults(&simulator, LoginFaults { expires_in_as_string: true, ..LoginFaults::default() });
    let answer = token(&simulator, &Form::sample(&simulator)).await.unwrap();
    assert_eq!(answer.json()["expires_in"], json!("5"));
}

#[tokio::test]
async fn a_wrong_server_name_is_noted() {
    let options = Options { names: vec!["login.example".into(), "127.0.0.1".into()], ..Options::default() };
    let simulator = Simulator::start(options).await.unwrap();
    drop(client::tls(&simulator, simulator.login_address().port(), "login.example").await);
    // An address is no server name: the handshake goes without one.
    drop(client::tls(&simulator, simulator.login_address().port(), "127.0.0.1").await);
    let noted = simulator
        .wait_for(std::time::Duration::from_secs(20), |office| (!office.violations.is_empty()).then_some(()))
        .await;
    assert!(noted.is_some());
    let kinds: Vec<Kind> = simulator.violations().into_iter().map(|violation| violation.kind).collect();
    assert_eq!(kinds, [Kind::WrongServerName]);
}

#[tokio::test]
async fn a_rotated_stand_in_key_is_followed_and_the_old_one_forgotten() {
    let simulator = start().await;
    let old = Form::sample(&simulator);
    simulator.stand_in(|issuer| issuer.rotate(true));
    assert_eq!(token(&simulator, &old).await.unwrap().status, 200);
    assert_eq!(token(&simulator, &Form::sample(&simulator)).await.unwrap().status, 200);
    simulator.stand_in(|issuer| issuer.rotate(false));
    simulator.stand_in(|issuer| issuer.rotate(false));
    assert_eq!(code(&simulator, &old).await.2, 700_027);
    assert_eq!(token(&simulator, &Form::sample(&simulator)).await.unwrap().status, 200);
}

#[tokio::test]
async fn keys_in_a_file_are_read_again_for_an_unknown_key_but_not_too_often() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let mut issuer = StandIn::default();
    write_keys(&file, &issuer);
    let simulator = trusting(KeySource::File(file.clone()), Some(ISSUER)).await;
    let signed = |issuer: &StandIn| Form {
        assertion: issuer.assertion(SAMPLE_SUBJECT, Timestamp::now(), 3600),
        ..Form::sample(&simulator)
    };
    assert_eq!(token(&simulator, &signed(&issuer)).await.unwrap().status, 200);

    issuer.rotate(true);
    write_keys(&file, &issuer);
    simulator.config(|config| config.tokens.keys_refetch_seconds = 3600);
    assert_eq!(code(&simulator, &signed(&issuer)).await.2, 700_027);
    simulator.config(|config| config.tokens.keys_refetch_seconds = 0);
    assert_eq!(token(&simulator, &signed(&issuer)).await.unwrap().status, 200);

    std::fs::remove_file(&file).unwrap();
    assert_eq!(token(&simulator, &signed(&issuer)).await.unwrap().status, 200, "known keys are kept");
}

#[tokio::test]
async fn keys_come_over_https_with_and_without_discovery() {
    let cluster = start().await;
    let folder = tempfile::tempdir().unwrap();
    let (ca, bearer) = (folder.path().join("ca.crt"), folder.path().join("token"));
    std::fs::write(&ca, cluster.ca_pem()).unwrap();
    std::fs::write(&bearer, "a-bearer-token\n").unwrap();
    let remote = |path: &str| Remote {
        url: format!("https://localhost:{}{path}", cluster.login_address().port()),
        keys_url: None,
        ca_file: Some(ca.clone()),
        bearer_token_file: Some(bearer.clone()),
    };
    let by_url = trusting(KeySource::Url(remote("/stand-in/keys")), Some(ISSUER)).await;
    assert_eq!(token(&by_url, &Form::sample(&by_url)).await.unwrap().status, 200);
    let discovery = remote("/stand-in/.well-known/openid-configuration");
    let discovered = trusting(KeySource::Discovery(discovery), None).await;
    assert_eq!(token(&discovered, &Form::sample(&discovered)).await.unwrap().status, 200);

    let untrusted = Remote { ca_file: Some(ca.clone()), ..remote("/nowhere") };
    let broken = trusting(KeySource::Url(untrusted), Some(ISSUER)).await;
    assert_eq!(code(&broken, &Form::sample(&broken)).await, (400, "invalid_request".into(), 90_061));
}

#[tokio::test]
async fn an_issuer_that_nobody_can_reach_is_90061() {
    let simulator = start().await;
    simulator.directory(|directory| {
        directory.issuers.clear();
        directory.tenants[0].applications[0].federated_credentials[0].issuer = ISSUER.into();
    });
    assert_eq!(code(&simulator, &Form::sample(&simulator)).await.2, 90_061);
}

#[tokio::test]
async fn discovery_documents_name_this_host() {
    let simulator = start().await;
    let authority = login_page(&simulator, "/contoso.com/v2.0/.well-known/openid-configuration").await.json();
    assert_eq!(authority["token_endpoint"], "https://localhost/contoso.com/oauth2/v2.0/token");
    let issuer = login_page(&simulator, "/stand-in/.well-known/openid-configuration").await.json();
    assert_eq!(
        (issuer["issuer"].as_str(), issuer["jwks_uri"].as_str()),
        (Some(ISSUER), Some("https://localhost/stand-in/keys"))
    );
}

async fn trusting(keys: KeySource, issuer: Option<&str>) -> Simulator {
    let simulator = start().await;
    simulator.directory(|directory| {
        directory.issuers = vec![Issuer { name: "stand-in".into(), issuer: issuer.map(str::to_owned), keys }];
    });
    simulator
}

fn write_keys(file: &Path, issuer: &StandIn) {
    std::fs::write(file, serde_json::to_vec(&issuer.published()).unwrap()).unwrap();
}
