//! Every kind of credential, right and wrong, and replaced in its file during a run.

use std::path::PathBuf;
use std::time::Duration;

use mailroute_m365::directory::{BasicAuth, ClientSecret, SAMPLE_CLIENT_ID, SAMPLE_PASSWORD, SAMPLE_SECRET};
use mailroute_m365::keys::jws::Algorithm;
use mailroute_m365::{self as m365, Options, Simulator, write_atomically};
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::file::{CertificateFiles, Credential};

use crate::client::{Client, message};
use crate::scene::{Scene, metric, submission};

/// The key of a certificate that nobody registered.
const OTHER_KEY: &str = include_str!("../../src/token/testdata/rsa.key");

/// A file beside the route's own.
fn beside(route: &mut RouteFile, name: &str) -> PathBuf {
    let ca = submission(route).authority.ca_file.clone().expect("the scene's route names a bundle");
    ca.with_file_name(name)
}

pub fn with_secret(route: &mut RouteFile, secret: &str) {
    let secret_file = beside(route, "secret");
    write_atomically(&secret_file, secret).unwrap();
    submission(route).credential =
        Credential::ClientSecret { client_id: SAMPLE_CLIENT_ID.into(), secret_file };
}

pub fn with_certificate(route: &mut RouteFile, (chain, key): (&str, &str)) {
    let files =
        CertificateFiles { certificate_file: beside(route, "tls.crt"), key_file: beside(route, "tls.key") };
    write_pair(&files, (chain, key));
    submission(route).credential =
        Credential::ClientCertificate { client_id: SAMPLE_CLIENT_ID.into(), files };
}

fn write_pair(files: &CertificateFiles, (chain, key): (&str, &str)) {
    write_atomically(&files.certificate_file, chain).unwrap();
    write_atomically(&files.key_file, key).unwrap();
}

pub fn with_password(m365: &Simulator, route: &mut RouteFile, password: &str) {
    m365.directory(|directory| directory.tenants[0].basic_auth = BasicAuth::Allowed);
    let password_file = beside(route, "password");
    write_atomically(&password_file, password).unwrap();
    submission(route).credential = Credential::Password { password_file };
}

/// A certificate in force whose key nobody registered.
fn unregistered(last_year: i32) -> (String, String) {
    let key = rcgen::KeyPair::from_pem(OTHER_KEY).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["app.contoso.com".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(last_year, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

async fn scene(change: impl FnOnce(&Simulator, &mut RouteFile)) -> Scene {
    Scene::with(|_| {}, change).await
}

async fn taken(client: &mut Client, subject: &str) {
    let reply = client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message(subject)).await;
    assert_eq!(reply.code, 250, "{reply}");
}

/// Starts with what is wrong for `reason`, checks what is told, mends it in the file, and sends in the same session.
async fn mended(
    wrong: impl FnOnce(&Simulator, &mut RouteFile),
    reason: Reason,
    part: &str,
    mend: impl FnOnce(&Scene),
) -> Scene {
    let scene = scene(wrong).await;
    let mut client = scene.client().await;
    let told = scene.told(reason).await;
    assert!(!told.holds && told.message.contains(part), "{told:?}");
    let reply = client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("wrong")).await;
    assert!(reply.code == 451 && reply.text().starts_with(&format!("{reason}: ")), "{reply}");
    mend(&scene);
    scene.well().await;
    taken(&mut client, "right").await;
    scene.assert_careful();
    scene
}

#[tokio::test]
async fn a_client_secret_sends() {
    let scene = scene(|_, route| with_secret(route, &format!("{SAMPLE_SECRET}\n"))).await;
    taken(&mut scene.client().await, "secret").await;
    assert_eq!(scene.m365.exchanges()[0].credential, Some(m365::Credential::Secret));
    scene.assert_careful();
}

#[tokio::test]
async fn a_client_certificate_sends_with_ps256_and_its_end_is_known() {
    let scene = scene(|m365, route| with_certificate(route, m365.client_certificate())).await;
    taken(&mut scene.client().await, "certificate").await;
    let exchange = &scene.m365.exchanges()[0];
    assert_eq!(
        (exchange.credential, exchange.algorithm),
        (Some(m365::Credential::Certificate), Some(Algorithm::Ps256))
    );
    assert!(scene.told(Reason::CertificateValid).await.holds);
    let metrics = scene.metrics().await;
    assert!(metric(&metrics, "mailroute_route_certificate_expiry_timestamp_seconds").unwrap() > 1.7e9);
    scene.assert_careful();
}

#[tokio::test]
async fn a_password_sends_and_is_warned_about() {
    let scene = scene(|m365, route| with_password(m365, route, SAMPLE_PASSWORD)).await;
    taken(&mut scene.client().await, "password").await;
    let told = scene.told(Reason::PasswordMounted).await;
    assert!(told.holds, "mail flows");
    assert!(scene.m365.exchanges().is_empty(), "no token is asked for");
}

#[tokio::test]
async fn a_wrong_client_secret_is_named_and_a_new_one_used_at_once() {
    let wrong = |_: &Simulator, route: &mut RouteFile| with_secret(route, "wrong");
    mended(wrong, Reason::SecretRejected, "AADSTS7000215", |scene| {
        write_atomically(&scene.files.path("secret"), SAMPLE_SECRET).unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_expired_client_secret_is_named() {
    let wrong = |m365: &Simulator, route: &mut RouteFile| {
        let expired = jiff::Timestamp::from_second(1_600_000_000).unwrap();
        m365.directory(|directory| {
            directory.tenants[0].applications[0].client_secrets.push(ClientSecret {
                name: "old".into(),
                value: "old-secret".into(),
                expires: Some(expired),
            });
        });
        with_secret(route, "old-secret");
    };
    mended(wrong, Reason::SecretExpired, "AADSTS7000222", |scene| {
        write_atomically(&scene.files.path("secret"), SAMPLE_SECRET).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_missing_secret_is_named_and_found_when_it_comes() {
    let wrong = |_: &Simulator, route: &mut RouteFile| {
        with_secret(route, "x");
        std::fs::remove_file(beside(route, "secret")).unwrap();
    };
    mended(wrong, Reason::SecretMissing, "No such file", |scene| {
        write_atomically(&scene.files.path("secret"), SAMPLE_SECRET).unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_unregistered_certificate_is_shown_with_its_thumbprint_and_replaced() {
    let (chain, key) = unregistered(2090);
    let wrong = |_: &Simulator, route: &mut RouteFile| with_certificate(route, (&chain, &key));
    mended(wrong, Reason::CertificateNotRegistered, "with thumbprint ", replace_certificate).await;
}

fn replace_certificate(scene: &Scene) {
    let files = CertificateFiles {
        certificate_file: scene.files.path("tls.crt"),
        key_file: scene.files.path("tls.key"),
    };
    write_pair(&files, scene.m365.client_certificate());
}

#[tokio::test]
async fn an_expired_certificate_is_not_even_presented() {
    let (chain, key) = unregistered(2020);
    let wrong = |_: &Simulator, route: &mut RouteFile| with_certificate(route, (&chain, &key));
    let scene = mended(wrong, Reason::CertificateExpired, "to 2020-01-01", replace_certificate).await;
    assert!(scene.m365.exchanges().iter().all(|exchange| exchange.outcome == "Issued"));
}

#[tokio::test]
async fn a_certificate_with_the_key_of_another_is_not_used() {
    let (_, key) = unregistered(2090);
    let wrong = |m365: &Simulator, route: &mut RouteFile| {
        with_certificate(route, (m365.client_certificate().0, &key));
    };
    mended(wrong, Reason::CertificateInvalid, "is not the key of", replace_certificate).await;
}

#[tokio::test]
async fn a_wrong_password_is_named_and_a_new_one_used_at_once() {
    let wrong = |m365: &Simulator, route: &mut RouteFile| with_password(m365, route, "wrong");
    mended(wrong, Reason::PasswordRejected, "535 5.7.", |scene| {
        write_atomically(&scene.files.path("password"), SAMPLE_PASSWORD).unwrap();
    })
    .await;
}

#[tokio::test]
async fn switched_off_passwords_are_named() {
    for (state, part) in [(BasicAuth::Disabled, "535 5.7.139"), (BasicAuth::Removed, "550 5.7.30")] {
        let scene = scene(|m365, route| {
            with_password(m365, route, SAMPLE_PASSWORD);
            m365.directory(|directory| directory.tenants[0].basic_auth = state);
        })
        .await;
        let told = scene.told(Reason::BasicAuthDisabled).await;
        assert!(!told.holds && told.message.contains(part), "{told:?}");
    }
}

#[tokio::test]
async fn a_rotated_secret_is_used_at_the_next_exchange_and_no_session_ends() {
    let options = |options: &mut Options| options.config.tokens.lifetime_seconds = 2;
    let scene = Scene::with(options, |_, route| with_secret(route, SAMPLE_SECRET)).await;
    let mut client = scene.client().await;
    taken(&mut client, "before").await;
    scene.m365.directory(|directory| {
        let secrets = &mut directory.tenants[0].applications[0].client_secrets;
        secrets.push(ClientSecret { name: "new".into(), value: "new-secret".into(), expires: None });
    });
    write_atomically(&scene.files.path("secret"), "new-secret").unwrap();
    scene.m365.directory(|directory| {
        let secrets = &mut directory.tenants[0].applications[0].client_secrets;
        secrets.retain(|secret| secret.value.is("new-secret"));
    });
    let exchanges = scene.m365.exchanges().len();
    // Each message on a new connection, and so with a log-in of its own.
    let mut sent = 0;
    while scene.m365.exchanges().len() == exchanges {
        scene.fault(m365::Stage::EndOfData, m365::SmtpAction::CutAfterReply, 1);
        taken(&mut client, &format!("after{sent}")).await;
        sent += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(scene.m365.exchanges().iter().all(|exchange| exchange.outcome == "Issued"));
    scene.assert_careful();
}

#[tokio::test]
async fn an_assertion_that_is_renewed_during_the_exchange_is_exchanged_once_more() {
    let rules = vec![
        m365::Rule::times(m365::Token::Token, m365::LoginAction::Delay(300), 1),
        m365::Rule::times(m365::Token::Token, m365::LoginAction::Aadsts(700_024), 1),
    ];
    let mut kubelet = None;
    let scene = scene(|m365, route| {
        let login = m365::LoginFaults { rules, ..<_>::default() };
        m365.set_faults(m365::Faults { login, ..<_>::default() });
        let (sign, path) = (m365.signer(), beside(route, "entra"));
        kubelet = Some(tokio::spawn(renew(sign, path)));
    })
    .await;
    scene.well().await;
    let outcomes: Vec<_> = scene.m365.exchanges().iter().map(|exchange| exchange.outcome.clone()).collect();
    assert_eq!(outcomes, ["AADSTS700024", "Issued"]);
    assert!(!scene.metrics().await.contains("AssertionRejected"), "no failure was counted");
    kubelet.unwrap().abort();
    scene.assert_careful();
}

/// Writes another assertion all the time, so that each reading finds a new one.
async fn renew(sign: impl Fn(&str) -> String, path: PathBuf) {
    loop {
        write_atomically(&path, &sign(m365::directory::SAMPLE_SUBJECT)).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
