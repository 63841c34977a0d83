//! The token endpoint over TLS with the credentials that are not federated: secrets and certificates.

use jiff::Timestamp;
use mailroute_m365::{
    Credential, Kind, Options, Simulator,
    directory::{
        CertificateSource, SAMPLE_CLIENT_ID, SAMPLE_MAILBOX, SAMPLE_PASSWORD, SAMPLE_SECRET, SAMPLE_TENANT,
    },
    keys::{client_certificate::stand_in, jws::Algorithm},
};

use super::client::{Form, control, token};

async fn start() -> Simulator {
    Simulator::start(Options::default()).await.unwrap()
}

fn audience() -> String {
    format!("https://localhost/{SAMPLE_TENANT}/oauth2/v2.0/token")
}

fn own_assertion() -> Form {
    Form::assertion(stand_in().assertion(SAMPLE_CLIENT_ID, &audience(), Timestamp::now()))
}

async fn refusal(simulator: &Simulator, form: &Form) -> (u16, u64, String) {
    let answer = token(simulator, form).await.unwrap();
    let text = answer.json()["error_description"].as_str().unwrap().to_owned();
    (answer.status.as_u16(), answer.code(), text)
}

#[tokio::test]
async fn a_client_secret_becomes_a_token_that_opens_the_mailbox() {
    let simulator = start().await;
    let answer = token(&simulator, &Form::secret(SAMPLE_SECRET)).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let exchange = &simulator.exchanges()[0];
    assert_eq!((exchange.credential, exchange.algorithm), (Some(Credential::Secret), None));
    assert_eq!(exchange.assertion_subject, None);
    let access_token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let credentials =
        mailroute_m365::submission::xoauth2::Credentials { user: SAMPLE_MAILBOX.into(), token: access_token };
    let judged = simulator
        .read(|office| {
            mailroute_m365::submission::authentication::judge(office, &credentials, Timestamp::now())
        })
        .unwrap();
    assert_eq!(judged.token.credential, Some(Credential::Secret));
}

#[tokio::test]
async fn a_wrong_and_an_expired_secret_have_microsofts_text() {
    let simulator = start().await;
    let (status, code, text) = refusal(&simulator, &Form::secret("wrong")).await;
    assert_eq!((status, code), (401, 7_000_215));
    let expected = format!(
        "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent in the request is the client \
         secret value, not the client secret ID, for a secret added to app '{SAMPLE_CLIENT_ID}'.\r\n"
    );
    assert!(text.starts_with(&expected), "{text}");
    simulator.directory(|directory| {
        directory.tenants[0].applications[0].client_secrets[0].expires = Some(Timestamp::now());
    });
    let (status, code, text) = refusal(&simulator, &Form::secret(SAMPLE_SECRET)).await;
    assert_eq!((status, code), (401, 7_000_222));
    assert!(text.contains("are expired. Visit the Azure portal to create new keys"), "{text}");
    assert!(!simulator.exchanges().iter().any(|exchange| exchange.outcome.contains(SAMPLE_SECRET)));
}

#[tokio::test]
async fn an_assertion_of_the_registered_certificate_becomes_a_token() {
    let simulator = start().await;
    let answer = token(&simulator, &own_assertion()).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let exchange = &simulator.exchanges()[0];
    assert_eq!(
        (exchange.credential, exchange.algorithm),
        (Some(Credential::Certificate), Some(Algorithm::Ps256))
    );
    assert_eq!(simulator.violations(), []);
}

#[tokio::test]
async fn a_certificate_that_is_not_registered_has_microsofts_text() {
    let simulator = start().await;
    simulator.directory(|directory| directory.tenants[0].applications[0].certificates.clear());
    let (status, code, text) = refusal(&simulator, &own_assertion()).await;
    assert_eq!((status, code), (401, 700_027));
    assert!(
        text.starts_with(
            "AADSTS700027: The certificate with identifier used to sign the client assertion is not registered on \
             application. [Reason - The key was not found., Thumbprint of key used by client: '"
        ),
        "{text}"
    );
    let pem = stand_in().certificate_pem().to_owned();
    simulator.directory(|directory| {
        directory.tenants[0].applications[0].certificates =
            vec![mailroute_m365::directory::RegisteredCertificate {
                name: "again".into(),
                certificate: CertificateSource::Pem(pem),
            }];
    });
    assert_eq!(token(&simulator, &own_assertion()).await.unwrap().status, 200);
}

#[tokio::test]
async fn an_assertion_that_is_presented_twice_is_noted() {
    let simulator = start().await;
    let form = own_assertion();
    for _ in 0..2 {
        assert_eq!(token(&simulator, &form).await.unwrap().status, 200);
    }
    let kinds: Vec<Kind> = simulator.violations().into_iter().map(|violation| violation.kind).collect();
    assert_eq!(kinds, [Kind::CarelessAssertion]);
}

#[tokio::test]
async fn the_sample_credentials_are_read_over_the_control_api() {
    let simulator = start().await;
    let page = async |path: &str| control(&simulator, hyper::Method::GET, path, "").await.text().to_owned();
    assert_eq!(page("/sample/client-secret").await, SAMPLE_SECRET);
    assert_eq!(page("/sample/password").await, SAMPLE_PASSWORD);
    let (certificate, key) = simulator.client_certificate();
    assert_eq!(page("/sample/client-certificate.pem").await, certificate);
    assert_eq!(page("/sample/client-key.pem").await, key);
}
