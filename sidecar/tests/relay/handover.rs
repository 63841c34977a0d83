//! SMTP relay and Direct Send: whom Exchange takes mail from, over what, and what is told when it does not.

use std::path::Path;

use mailroute_m365::faults::HandshakeFault;
use mailroute_m365::relay::attribution::By;
use mailroute_m365::{ClientIdentity, Faults, Message, Rule, Simulator, SmtpAction, SmtpFaults, Stage};
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::file::{
    CertificateFiles, Chunking, DeliveryMode, DirectSend, HostName, Method, SmartHost, SmtpRelay, TlsMode,
};
use mailroute_sidecar::queue::QueuePlace;
use mailroute_sidecar::smtp::reply::Reply;
use tempfile::TempDir;

use crate::client::message;
use crate::scene::{PATIENCE, Scene, http_get, metric, submission};

const YEAR: i64 = 365 * 24 * 3600;

/// Connectors of the sample tenant.
pub const BY_CERTIFICATE: &str = r#"[{"name": "tls", "tlsSenderCertificateName": "*.contoso.com"}]"#;
pub const BY_ADDRESS: &str = r#"[{"name": "ip", "senderIPAddresses": ["127.0.0.1"]}]"#;

/// The simulator's port 25, and whom to trust there as client submission does.
pub fn smart_host(m365: &Simulator, route: &mut RouteFile, tls: TlsMode) -> SmartHost {
    let ca_file = submission(route).endpoint.ca_file.clone();
    let host = HostName::Fixed("localhost".into());
    SmartHost { host, port: m365.relay_address().port(), tls, ca_file, chunking: Chunking::default() }
}

pub fn relay(route: &mut RouteFile, smart_host: SmartHost, certificate: Option<CertificateFiles>) {
    let accepted_domains = vec!["contoso.com".into()];
    route.method = Method::SmtpRelay(SmtpRelay { certificate, accepted_domains, smart_host });
}

pub fn direct_send(route: &mut RouteFile, smart_host: SmartHost) {
    route.method =
        Method::DirectSend(DirectSend { accepted_domains: vec!["contoso.com".into()], smart_host });
}

/// A mounted Secret.
pub struct Secret(TempDir);

impl Secret {
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn files(&self) -> CertificateFiles {
        CertificateFiles { certificate_file: self.path("tls.crt"), key_file: self.path("tls.key") }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    pub fn put(&self, own: &ClientIdentity) {
        self.put_chain(&own.chain_pem);
        replace(&self.path("tls.key"), &own.key_pem);
    }

    fn put_chain(&self, pem: &str) {
        replace(&self.path("tls.crt"), pem);
    }
}

/// As the kubelet does it: whole, or not at all.
fn replace(path: &Path, text: &str) {
    mailroute_m365::write_atomically(path, text).unwrap();
}

/// A relay by certificate, which is put where the sidecar looks by `prepare`.
async fn with_certificate(prepare: impl FnOnce(&Simulator, &Secret)) -> (Scene, Secret) {
    let secret = Secret::empty();
    let scene = Scene::with(connectors(BY_CERTIFICATE), |m365, route| {
        prepare(m365, &secret);
        let smart_host = smart_host(m365, route, TlsMode::Required);
        relay(route, smart_host, Some(secret.files()));
    })
    .await;
    (scene, secret)
}

pub fn connectors(json: &'static str) -> impl FnOnce(&mut mailroute_m365::Options) {
    move |options| {
        options.config.directory.tenants[0].inbound_connectors = serde_json::from_str(json).unwrap();
    }
}

pub fn own(m365: &Simulator, name: &str) -> ClientIdentity {
    m365.relay_certificate(&[name], YEAR).unwrap()
}

async fn send(scene: &Scene, to: &str, subject: &str) -> Reply {
    scene.client().await.send("noreply@contoso.com", &[to], &message(subject)).await
}

/// What came of sending abroad, which only a connector allows.
async fn send_abroad(scene: &Scene, subject: &str) -> Reply {
    send(scene, "ann@fabrikam.com", subject).await
}

fn names(message: &Message) -> &[String] {
    message.connection.certificate.as_ref().map_or(&[], |shown| &shown.names)
}

fn faults(scene: &Scene, relay: SmtpFaults) {
    scene.m365.set_faults(Faults { relay, ..<_>::default() });
}

#[tokio::test]
async fn a_certificate_is_presented_with_its_chain_and_matches_the_connector() {
    let (scene, _secret) = with_certificate(|m365, secret| secret.put(&own(m365, "mail.contoso.com"))).await;
    scene.told(Reason::CertificateValid).await;
    scene.told(Reason::Connected).await;
    let reply = send_abroad(&scene, "relayed").await;
    assert_eq!(reply.code, 250, "{reply}");
    assert!(reply.text().contains("InternalId="), "the upstream's words are passed on: {reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    let shown = arrived[0].connection.certificate.as_ref().unwrap();
    assert_eq!((shown.sent, &shown.distrusted), (2, &None), "the whole chain");
    let attribution = arrived[0].attribution.as_ref().unwrap();
    assert_eq!((attribution.by, attribution.connector.as_deref()), (By::Certificate, Some("tls")));
    assert_eq!(arrived[0].connection.ehlo, "notifications.shop.svc.cluster.local");
    let matched = scene.told(Reason::ConnectorMatched).await;
    assert!(
        matched.message.contains("127.0.0.1") && matched.message.contains("mail.contoso.com"),
        "{matched:?}"
    );
    let metrics = scene.metrics().await;
    assert!(metric(&metrics, "mailroute_route_certificate_expiry_timestamp_seconds").unwrap() > 1.7e9);
    assert!(
        metric(&metrics, r#"mailroute_upstream_connections_total{protection="TLSv1.3"}"#).unwrap() >= 1.0
    );
    assert!(http_get(scene.app.admin_address(), "/readyz").await.starts_with("HTTP/1.1 200"));
    scene.assert_careful();
}

#[tokio::test]
async fn a_relay_that_was_never_used_is_ready_as_far_as_one_can_know() {
    let (scene, _secret) = with_certificate(|m365, secret| secret.put(&own(m365, "mail.contoso.com"))).await;
    scene.told(Reason::Connected).await;
    assert!(http_get(scene.app.admin_address(), "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(scene.m365.messages().is_empty());
    scene.assert_careful();
}

#[tokio::test]
async fn a_missing_chain_is_told_with_what_was_presented_and_from_where() {
    let (scene, secret) = with_certificate(|m365, secret| {
        let own = own(m365, "mail.contoso.com");
        secret.put(&own);
        secret.put_chain(&own.leaf_pem);
    })
    .await;
    let reply = send_abroad(&scene, "unmatched").await;
    assert_eq!(reply.code, 451, "{reply}");
    assert!(reply.text().starts_with("ConnectorMismatch: "), "{reply}");
    let told = scene.told(Reason::ConnectorMismatch).await;
    for part in ["550 5.7.64", "127.0.0.1", "mail.contoso.com"] {
        assert!(told.message.contains(part), "{}", told.message);
    }
    // A message is what shows that it was put right; no restart, no change of the route.
    secret.put(&own(&scene.m365, "mail.contoso.com"));
    insist(&scene, "mended").await;
    assert!(scene.told(Reason::ConnectorMatched).await.holds);
}

/// Sends until it is taken.
async fn insist(scene: &Scene, subject: &str) {
    let started = tokio::time::Instant::now();
    loop {
        let reply = send_abroad(scene, subject).await;
        if reply.code == 250 {
            return;
        }
        assert_eq!(reply.code, 451, "{reply}");
        assert!(started.elapsed() < PATIENCE, "still {reply}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_used_for_new_connections_and_no_mail_is_dropped() {
    let (scene, secret) = with_certificate(|m365, secret| secret.put(&own(m365, "old.contoso.com"))).await;
    let mut client = scene.client().await;
    let send = async |client: &mut crate::client::Client, subject: &str| {
        let reply = client.send("noreply@contoso.com", &["ann@fabrikam.com"], &message(subject)).await;
        assert_eq!(reply.code, 250, "{reply}");
    };
    send(&mut client, "first").await;
    let new = own(&scene.m365, "new.contoso.com");
    secret.put_chain(&new.chain_pem);
    // Half of it: the old pair stays in use, on a new connection too.
    reconnect(&scene);
    send(&mut client, "last of the old").await;
    send(&mut client, "second").await;
    let told = scene.told(Reason::CertificateInvalid).await;
    assert!(told.message.contains("old.contoso.com"), "{}", told.message);
    secret.put(&new);
    reconnect(&scene);
    send(&mut client, "third").await;
    send(&mut client, "fourth").await;
    let arrived = scene.m365.wait_for_messages(5, PATIENCE).await;
    let presented: Vec<&str> = arrived.iter().map(|message| names(message)[0].as_str()).collect();
    let (old, new) = ("old.contoso.com", "new.contoso.com");
    assert_eq!(presented, [old, old, old, old, new]);
    scene.told(Reason::CertificateValid).await;
    scene.assert_careful();
}

/// Something wrong with the next connection: the one that was kept after looking is cut at its next message.
async fn fresh(scene: &Scene, mut relay: SmtpFaults) {
    scene.told(Reason::Connected).await;
    relay.rules.insert(0, Rule::times(Stage::Mail, SmtpAction::Cut, 1));
    faults(scene, relay);
}

/// The connection in use ends with its next message.
fn reconnect(scene: &Scene) {
    let rules = vec![Rule::times(Stage::EndOfData, SmtpAction::CutAfterReply, 1)];
    faults(scene, SmtpFaults { rules, ..<_>::default() });
}

#[tokio::test]
async fn a_certificate_that_comes_late_is_used_without_a_restart() {
    let (scene, secret) = with_certificate(|_, _| {}).await;
    let told = scene.told(Reason::CertificateMissing).await;
    assert!(!told.holds && told.message.contains("tls.crt"), "{told:?}");
    let reply = send_abroad(&scene, "early").await;
    assert_eq!((reply.code, reply.text().starts_with("CertificateMissing: ")), (451, true), "{reply}");
    secret.put(&own(&scene.m365, "mail.contoso.com"));
    scene.told(Reason::CertificateValid).await;
    insist(&scene, "late").await;
    scene.assert_careful();
}

#[tokio::test]
async fn a_certificate_is_judged_before_it_is_presented() {
    let cases = [
        ("mail.contoso.com", -3600, Reason::CertificateExpired, 451),
        ("mail.contoso.com", 24 * 3600, Reason::CertificateExpiring, 250),
        ("mail.fabrikam.com", YEAR, Reason::CertificateNameMismatch, 451),
    ];
    for (name, seconds, reason, code) in cases {
        let (scene, _secret) = with_certificate(|m365, secret| {
            secret.put(&m365.relay_certificate(&[name], seconds).unwrap());
        })
        .await;
        let told = scene.told(reason).await;
        assert!(told.message.contains(name), "{}", told.message);
        assert_eq!(send_abroad(&scene, "judged").await.code, code, "{reason}");
        if reason == Reason::CertificateExpired {
            assert_eq!(scene.m365.statistics().tally.connections, 0, "nobody is bothered with it");
        }
    }
}

#[tokio::test]
async fn a_relay_by_address_presents_nothing() {
    let scene = Scene::with(connectors(BY_ADDRESS), |m365, route| {
        let smart_host = smart_host(m365, route, TlsMode::Required);
        relay(route, smart_host, None);
    })
    .await;
    let reply = send_abroad(&scene, "by address").await;
    assert_eq!(reply.code, 250, "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].attribution.as_ref().unwrap().by, By::Address);
    assert!(arrived[0].connection.certificate.is_none() && arrived[0].connection.tls_version.is_some());
    let matched = scene.told(Reason::ConnectorMatched).await;
    assert!(matched.message.contains("127.0.0.1"), "{}", matched.message);
    scene.assert_careful();
}

async fn direct(tls: TlsMode, change: impl FnOnce(&mut mailroute_m365::Options)) -> Scene {
    Scene::with(change, |m365, route| {
        let smart_host = smart_host(m365, route, tls);
        direct_send(route, smart_host);
    })
    .await
}

#[tokio::test]
async fn direct_send_reaches_the_tenants_own_recipients() {
    let scene = direct(TlsMode::Opportunistic, |_| {}).await;
    let reply = send(&scene, "alice@contoso.com", "direct").await;
    assert_eq!(reply.code, 250, "{reply}");
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].attribution.as_ref().unwrap().by, By::Recipient);
    assert!(arrived[0].connection.tls_version.is_some(), "TLS where it is offered");
    let reply = send(&scene, "ghost@contoso.com", "nobody").await;
    assert_eq!((reply.code, reply.text().contains("Recipient address rejected")), (550, true), "{reply}");
    scene.assert_careful();
}

#[tokio::test]
async fn direct_send_that_the_tenant_or_exchange_refuses_is_explained() {
    let rejected = direct(TlsMode::Opportunistic, |options| {
        options.config.directory.tenants[0].reject_direct_send = true;
    })
    .await;
    let reply = send(&rejected, "alice@contoso.com", "rejected").await;
    assert_eq!((reply.code, reply.text().starts_with("DirectSendRejected: ")), (451, true), "{reply}");
    rejected.told(Reason::DirectSendRejected).await;

    let banned = direct(TlsMode::Opportunistic, |options| {
        options.config.relay.banned_addresses = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    let reply = send(&banned, "alice@contoso.com", "banned").await;
    assert_eq!((reply.code, reply.text().starts_with("EgressAddressBlocked: ")), (451, true), "{reply}");
    let told = banned.told(Reason::EgressAddressBlocked).await;
    assert!(told.message.contains("5.7.606") && told.message.contains("127.0.0.1"), "{}", told.message);
}

#[tokio::test]
async fn without_tls_mail_goes_in_plaintext_only_where_the_route_says_so() {
    let without = [
        SmtpFaults { without_start_tls: true, ..<_>::default() },
        SmtpFaults { handshake: HandshakeFault::OtherName, ..<_>::default() },
        SmtpFaults { handshake: HandshakeFault::OldVersion, ..<_>::default() },
        SmtpFaults { handshake: HandshakeFault::Cut, ..<_>::default() },
    ];
    for fault in without {
        let scene = direct(TlsMode::Opportunistic, |_| {}).await;
        fresh(&scene, fault.clone()).await;
        let reply = send(&scene, "alice@contoso.com", "plain").await;
        assert_eq!(reply.code, 250, "{fault:?}: {reply}");
        let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
        assert_eq!(arrived[0].connection.tls_version, None, "{fault:?}");
        let told = scene.told(Reason::ConnectedWithoutTls).await;
        assert!(told.holds && told.message.contains("since"), "{}", told.message);
        let metrics = scene.metrics().await;
        assert_eq!(
            metric(&metrics, r#"mailroute_upstream_connections_total{protection="plaintext"}"#),
            Some(1.0),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn where_tls_is_required_nothing_is_sent_without_it() {
    let refusals = [
        (SmtpFaults { without_start_tls: true, ..<_>::default() }, Reason::StartTlsMissing),
        (SmtpFaults { handshake: HandshakeFault::OtherName, ..<_>::default() }, Reason::TlsFailed),
        (SmtpFaults { handshake: HandshakeFault::OldVersion, ..<_>::default() }, Reason::TlsFailed),
        (SmtpFaults { handshake: HandshakeFault::Cut, ..<_>::default() }, Reason::TlsFailed),
    ];
    for (fault, reason) in refusals {
        let (scene, _secret) =
            with_certificate(|m365, secret| secret.put(&own(m365, "mail.contoso.com"))).await;
        fresh(&scene, fault.clone()).await;
        let reply = send_abroad(&scene, "refused").await;
        assert_eq!(reply.code, 451, "{fault:?}: {reply}");
        scene.told(reason).await;
        faults(&scene, SmtpFaults::default());
        insist(&scene, "mended").await;
        let arrived = scene.m365.messages();
        assert!(arrived.iter().all(|message| message.connection.tls_version.is_some()), "{arrived:?}");
    }
}

#[tokio::test]
async fn words_put_behind_the_answer_to_starttls_end_an_opportunistic_connection_too() {
    let scene = direct(TlsMode::Opportunistic, |_| {}).await;
    let injected = SmtpAction::Append("250-mx\r\n250 SIZE 1\r\n".into());
    fresh(&scene, SmtpFaults { rules: vec![Rule::always(Stage::StartTls, injected)], ..<_>::default() })
        .await;
    let reply = send(&scene, "alice@contoso.com", "injected").await;
    assert_eq!(reply.code, 451, "{reply}");
    assert!(scene.told(Reason::StartTlsMissing).await.message.contains("plaintext"));
    assert!(scene.m365.messages().is_empty());
}

#[tokio::test]
async fn a_route_may_change_its_method_under_an_open_session() {
    let scene = Scene::with(connectors(BY_ADDRESS), |_, _| {}).await;
    scene.well().await;
    let mut client = scene.client().await;
    let to = ["ann@fabrikam.com"];
    assert_eq!(client.send("noreply@contoso.com", &to, &message("submitted")).await.code, 250);
    let mut route = scene.route.clone();
    route.generation += 1;
    let smart_host = smart_host(&scene.m365, &mut route, TlsMode::Required);
    relay(&mut route, smart_host, None);
    scene.files.write_route(&route);
    scene.report(|report| report.generation == 2).await;
    assert_eq!(client.send("noreply@contoso.com", &to, &message("relayed")).await.code, 250);
    let arrived = scene.m365.wait_for_messages(2, PATIENCE).await;
    let by: Vec<By> = arrived.iter().map(|message| message.attribution.as_ref().unwrap().by).collect();
    assert_eq!(by, [By::Login, By::Address]);
    scene.assert_careful();
}

#[tokio::test]
async fn what_direct_send_cannot_reach_waits_without_stopping_the_route() {
    let scene = Scene::with(connectors(BY_ADDRESS), |m365, route| {
        let smart_host = smart_host(m365, route, TlsMode::Required);
        relay(route, smart_host, None);
        route.delivery.mode = DeliveryMode::Queue;
    })
    .await;
    faults(&scene, SmtpFaults { down: true, ..<_>::default() });
    let to = ["ann@fabrikam.com", "alice@contoso.com"];
    let mut client = scene.client().await;
    assert_eq!(client.send("noreply@contoso.com", &to, &message("left over")).await.code, 250);
    let mut route = scene.route.clone();
    let Method::SmtpRelay(SmtpRelay { smart_host, .. }) = route.method.clone() else { panic!("a relay") };
    direct_send(&mut route, smart_host);
    route.generation = 2;
    scene.m365.directory(|directory| directory.tenants[0].inbound_connectors.clear());
    scene.files.write_route(&route);
    scene.report(|report| report.generation == 2).await;
    faults(&scene, SmtpFaults::default());
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].recipient_addresses(), ["alice@contoso.com"]);
    let queue = scene.app.queue();
    let mut rounds = queue.rounds();
    let shown = loop {
        let id = queue.list()[0].id.clone();
        let shown = queue.show(&id).await.unwrap();
        if shown.place == QueuePlace::Waiting && shown.kept.progress.attempts > 0 {
            break shown;
        }
        rounds.changed().await.unwrap();
    };
    let last = shown.kept.progress.last.unwrap();
    assert_eq!(last.text, "the method DirectSend reaches recipients in contoso.com only");
    let reply = client.send("noreply@contoso.com", &["alice@contoso.com"], &message("another")).await;
    assert_eq!(reply.code, 250, "{reply}");
    scene.m365.wait_for_messages(2, PATIENCE).await;
    let told = scene.control.reports.borrow().clone();
    let mut told = told.iter().flat_map(|report| &report.observations);
    assert!(told.all(|met| met.reason != Reason::ConnectorMismatch), "the route is not to blame");
    assert_eq!(queue.figures().dead_letters, 0);
    scene.assert_careful();
}
