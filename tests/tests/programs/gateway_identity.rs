//! Certificates of sidecars and gateways: issued by the operator's control service, kept valid by the pods, and verified by rustls at
//! both ends of a connection. A server that stands in for the API server reviews tokens.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mailroute_operator::pki::authority::Authority;
use mailroute_operator::pki::bundle::Bundle;
use mailroute_operator::service::{certificate, review};
use mailroute_route::file::ControlService;
use mailroute_route::identity::Role;
use mailroute_sidecar::config::Config;
use mailroute_sidecar::gateway::identity::{Identity, IdentityError, Peer};
use mailroute_sidecar::gateway::smtp::review::review as reviewed;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

#[allow(dead_code, reason = "shared with the operator's own tests, which use all of it")]
#[path = "../../../operator/tests/gateway/stage.rs"]
pub mod stage;

use stage::{
    BILLING, BILLING_GATEWAY, GATEWAY, GRAFANA, Stage, WEB, authority, here, jwt, route_file, signed,
};

use crate::operator_served::Operator;

/// Long enough for a busy machine; nothing waits for it when all is well.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A CA whose certificates are renewed within the test: they end with it.
const SOON: Duration = Duration::from_secs(6);

/// The operator, and the CA that signs first.
pub struct Scene {
    pub stage: Stage,
    operator: Operator,
    pub ca: Authority,
}

/// A pod as far as its certificate goes.
pub struct Pod {
    pub identity: Arc<Identity>,
    config: watch::Sender<Config>,
    /// When its certificate ends, seconds since the epoch; 0 without one.
    ends: watch::Receiver<i64>,
    service: ControlService,
    _folder: TempDir,
    _running: JoinSet<()>,
    _stop: watch::Sender<bool>,
}

impl Scene {
    pub async fn start(ca_life: Duration) -> Self {
        let (stage, ca) = (Stage::start().await, authority(ca_life));
        stage.sign_by(&ca);
        let router = certificate::router(Arc::clone(&stage.certificates));
        let router = router.merge(review::router(Arc::clone(&stage.reviews)));
        Self { operator: Operator::serving(router, here()).await, stage, ca }
    }

    /// A pod of the route `mail` in its namespace, with its certificate.
    pub async fn pod(&self, id: &str, role: Role) -> Pod {
        let mut pod = self.starting(id, role);
        pod.ends(|ends| ends > 0).await;
        pod
    }

    pub fn starting(&self, id: &str, role: Role) -> Pod {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("control");
        std::fs::write(&token_file, jwt(id)).unwrap();
        let service = self.service(token_file);
        let (namespace, _) = id.split_once('/').unwrap();
        let (config, read) = watch::channel(Config::default());
        let identity = Identity::new(read, role);
        let (ended, ends) = watch::channel(0);
        identity.observe(move |at| {
            ended.send_replace(at);
        });
        let (stop, stopped) = watch::channel(false);
        let mut running = JoinSet::new();
        running.spawn(Arc::clone(&identity).run(stopped));
        let pod = Pod { identity, config, ends, service, _folder: folder, _running: running, _stop: stop };
        pod.trusts(namespace, &[&self.ca]);
        pod
    }

    /// The control service, for a pod with the token in this file.
    pub fn service(&self, token_file: PathBuf) -> ControlService {
        ControlService {
            address: format!("localhost:{}", self.operator.address.port()),
            ca_pem: self.operator.ca_pem.clone(),
            token_file,
            leases: false,
        }
    }

    /// One of the route `mail` in `shop`, with the certificate of the pod `id`.
    async fn impostor(&self, id: &str, role: Role) -> Arc<Identity> {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let answer = self.stage.certificate(id, "mail", &csr).await;
        let chain = CertificateDer::from_pem_slice(answer.body["chainPem"].as_str().unwrap().as_bytes());
        let key = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::from(key)).unwrap();
        let pod = self.starting(WEB, Role::Sidecar);
        let identity = Identity::new(pod.config.subscribe(), role);
        identity.set(Arc::new(CertifiedKey::new(vec![chain.unwrap()], key)));
        identity
    }
}

impl Pod {
    /// The route file of the pod now names these CAs.
    pub fn trusts(&self, namespace: &str, authorities: &[&Authority]) {
        let mut route = route_file(namespace, "mail");
        route.control = Some(self.service.clone());
        route.gateway.as_mut().unwrap().ca_pem = bundle(authorities);
        self.config.send_replace(Config { route: Some(Arc::new(route)), ..Config::default() });
    }

    pub async fn ends(&mut self, wanted: impl Fn(i64) -> bool) {
        let ends = timeout(PATIENCE, self.ends.wait_for(|ends| wanted(*ends))).await;
        assert!(ends.is_ok(), "no such certificate: {:?}", self.identity.problem());
    }

    /// Waits until the identity has this problem.
    async fn problem(&self, wanted: &str) {
        let met = async {
            while !self.identity.problem().is_some_and(|problem| problem.contains(wanted)) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = timeout(PATIENCE, met).await.is_ok();
        assert!(in_time, "{wanted:?} is not in {:?}", self.identity.problem());
    }
}

/// Who the server finds at the other end.
async fn connect(client: &Identity, server: &Identity) -> Result<Peer, String> {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let (config, name) = client.client().await.map_err(|error| error.to_string())?;
    let acceptor = TlsAcceptor::from(server.server().map_err(|error| error.to_string())?);
    let (connected, accepted) =
        tokio::join!(TlsConnector::from(config).connect(name, near), acceptor.accept(far));
    connected.map_err(|error| format!("client: {error}"))?;
    let accepted = accepted.map_err(|error| format!("server: {error}"))?;
    server.peer(accepted.get_ref().1.peer_certificates()).map_err(|error| error.to_string())
}

/// The CAs as a route file has them.
pub fn bundle(authorities: &[&Authority]) -> String {
    authorities.iter().map(|it| it.certificate().clone()).collect::<Bundle>().to_pem()
}

pub fn seconds_from_now(seconds: i64) -> i64 {
    jiff::Timestamp::now().as_second() + seconds
}

#[tokio::test]
async fn the_pods_of_a_route_know_each_other() {
    let scene = Scene::start(YEAR).await;
    let (web, gateway) = (scene.pod(WEB, Role::Sidecar).await, scene.pod(GATEWAY, Role::Gateway).await);
    let peer = connect(&web.identity, &gateway.identity).await.unwrap();
    assert_eq!((peer.role, peer.uri.as_str()), (Role::Sidecar, "mailroute://shop/mail/sidecar/web-0"));
    // A gateway that is scaled away hands over to the others.
    let peer = connect(&gateway.identity, &gateway.identity).await.unwrap();
    assert_eq!(
        (peer.role, peer.uri.as_str()),
        (Role::Gateway, "mailroute://shop/mail/gateway/mail-gateway-0")
    );
    assert_eq!((web.identity.problem(), gateway.identity.problem()), (None, None));
}

#[tokio::test]
async fn a_pod_of_another_route_is_neither_taken_for_a_client_nor_for_a_server() {
    let scene = Scene::start(YEAR).await;
    let (web, gateway) = (scene.pod(WEB, Role::Sidecar).await, scene.pod(GATEWAY, Role::Gateway).await);
    let stranger = scene.impostor(BILLING, Role::Sidecar).await;
    let error = connect(&stranger, &gateway.identity).await.unwrap_err();
    assert_eq!(error, "the client's certificate is not of a pod of this route");
    let stranger = scene.impostor(BILLING_GATEWAY, Role::Gateway).await;
    let error = connect(&web.identity, &stranger).await.unwrap_err();
    assert!(error.starts_with("client: invalid peer certificate: certificate not valid for name"), "{error}");
    let error = connect(&stranger, &gateway.identity).await.unwrap_err();
    assert_eq!(error, "the client's certificate is not of a pod of this route");
}

#[tokio::test]
async fn a_sidecar_is_not_taken_for_a_gateway() {
    let scene = Scene::start(YEAR).await;
    let (web, sidecar) = (scene.pod(WEB, Role::Sidecar).await, scene.impostor(WEB, Role::Gateway).await);
    let error = connect(&web.identity, &sidecar).await.unwrap_err();
    assert!(error.starts_with("client: invalid peer certificate"), "{error}");
    // And one that claims to be a gateway is told that it is none.
    let claims = scene.starting(WEB, Role::Gateway);
    claims.problem("a certificate for another route or role").await;
    assert!(matches!(claims.identity.server(), Err(IdentityError::NoCertificate)));
}

#[tokio::test]
async fn a_certificate_of_another_ca_or_none_is_refused() {
    let (scene, other) = (Scene::start(YEAR).await, Scene::start(YEAR).await);
    let (web, gateway) = (scene.pod(WEB, Role::Sidecar).await, scene.pod(GATEWAY, Role::Gateway).await);
    let (their_web, their_gateway) =
        (other.pod(WEB, Role::Sidecar).await, other.pod(GATEWAY, Role::Gateway).await);
    assert!(connect(&web.identity, &their_gateway.identity).await.is_err());
    // A client that does not verify what it connects to.
    their_web.trusts("shop", &[&scene.ca, &other.ca]);
    let error = connect(&their_web.identity, &gateway.identity).await.unwrap_err();
    assert!(error.starts_with("server: invalid peer certificate: UnknownIssuer"), "{error}");
    assert!(gateway.identity.peer(None).is_err());
}

#[tokio::test]
async fn a_rotation_of_the_ca_under_load_loses_no_connection() {
    let scene = Scene::start(SOON).await;
    let new = authority(YEAR);
    let mut web = scene.pod(WEB, Role::Sidecar).await;
    let mut gateway = scene.pod(GATEWAY, Role::Gateway).await;
    let (client, server) = (Arc::clone(&web.identity), Arc::clone(&gateway.identity));
    let (rotated, rotation) = watch::channel(false);
    let load = tokio::spawn(async move {
        let mut connections = 0;
        while !*rotation.borrow() || connections < 100 {
            connect(&client, &server).await.unwrap();
            connections += 1;
        }
        connections
    });
    // Kubelets bring the new bundle to one pod after the other, and then the new CA signs.
    web.trusts("shop", &[&scene.ca, &new]);
    connect(&web.identity, &gateway.identity).await.unwrap();
    gateway.trusts("shop", &[&scene.ca, &new]);
    scene.stage.sign_by(&new);
    for pod in [&mut web, &mut gateway] {
        pod.ends(|ends| ends > seconds_from_now(3600)).await;
    }
    // The old one has ended, and leaves the bundle of one pod after the other.
    web.trusts("shop", &[&new]);
    connect(&web.identity, &gateway.identity).await.unwrap();
    gateway.trusts("shop", &[&new]);
    rotated.send_replace(true);
    assert!(load.await.unwrap() >= 100);
}

#[tokio::test]
async fn a_ca_that_was_replaced_by_force_is_followed_at_once() {
    let scene = Scene::start(YEAR).await;
    let new = authority(2 * YEAR);
    let mut web = scene.pod(WEB, Role::Sidecar).await;
    let mut gateway = scene.pod(GATEWAY, Role::Gateway).await;
    scene.stage.sign_by(&new);
    let counted = |count| {
        scene.stage.counted(&format!("mailroute_certificate_requests_total{{outcome=\"granted\"}} {count}"));
    };
    counted(2);
    for pod in [&mut web, &mut gateway] {
        pod.ends.mark_unchanged();
        pod.trusts("shop", &[&new]);
        timeout(PATIENCE, pod.ends.changed()).await.expect("a new certificate").unwrap();
    }
    connect(&web.identity, &gateway.identity).await.unwrap();
    counted(4);
}

#[tokio::test]
async fn a_certificate_that_others_trust_is_not_given_up_for_one_that_they_do_not() {
    let scene = Scene::start(SOON).await;
    let new = authority(YEAR);
    let (mut web, gateway) = (scene.pod(WEB, Role::Sidecar).await, scene.pod(GATEWAY, Role::Gateway).await);
    let before = *web.ends.borrow();
    scene.stage.sign_by(&new);
    // It is renewed, by a CA that its route file does not name yet.
    let requests = "mailroute_certificate_requests_total{outcome=\"granted\"} 4";
    let renewed = async {
        while !scene.stage.metrics.text().unwrap().contains(requests) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, renewed).await.expect("both are renewed");
    connect(&web.identity, &gateway.identity).await.unwrap();
    assert_eq!((*web.ends.borrow(), web.identity.problem()), (before, None));
    web.trusts("shop", &[&scene.ca, &new]);
    web.ends(|ends| ends > seconds_from_now(3600)).await;
}

#[tokio::test]
async fn while_the_operator_is_away_certificates_are_good_to_their_end_and_then_renewed_when_it_is_back() {
    let mut scene = Scene::start(SOON).await;
    let (mut web, mut gateway) =
        (scene.pod(WEB, Role::Sidecar).await, scene.pod(GATEWAY, Role::Gateway).await);
    scene.operator.leave();
    connect(&web.identity, &gateway.identity).await.unwrap();
    for pod in [&web, &gateway] {
        pod.problem("expired, the operator has not renewed it since 20").await;
    }
    assert!(matches!(web.identity.client().await, Err(IdentityError::Expired(_))));
    let new = authority(YEAR);
    scene.stage.sign_by(&new);
    scene.operator.come_back().await;
    for pod in [&mut web, &mut gateway] {
        pod.trusts("shop", &[&scene.ca, &new]);
        pod.ends(|ends| ends > seconds_from_now(3600)).await;
    }
    connect(&web.identity, &gateway.identity).await.unwrap();
}

#[tokio::test]
async fn a_pod_without_a_certificate_says_why() {
    let scene = Scene::start(YEAR).await;
    let mut web = scene.starting(WEB, Role::Sidecar);
    scene.stage.signer.send_replace(None);
    web.trusts("shop", &[]);
    web.problem("the operator has no CA yet").await;
    assert!(matches!(web.identity.client().await, Err(IdentityError::NoAuthority)));
    let outdated = scene.starting("shop/web-0/uid-0", Role::Sidecar);
    outdated
        .problem("the operator has not issued a certificate for this pod yet: the operator answered HTTP 403")
        .await;
    scene.stage.sign_by(&scene.ca);
    web.trusts("shop", &[&scene.ca]);
    web.ends(|ends| ends > 0).await;
    assert_eq!(web.identity.problem(), None);
}

#[tokio::test]
async fn a_gateway_has_the_tokens_of_its_clients_reviewed() {
    let scene = Scene::start(YEAR).await;
    let (web, gateway) = (scene.starting(WEB, Role::Sidecar), scene.starting(GATEWAY, Role::Gateway));
    let known = reviewed(&gateway.service, "mail", &jwt(GRAFANA)).await.unwrap().unwrap();
    assert_eq!(
        [known.namespace.as_str(), &known.service_account, &known.pod],
        ["shop", "default", "grafana-0"]
    );
    let forged = signed(GRAFANA, "mailroute.dev", "forged");
    assert!(reviewed(&gateway.service, "mail", &forged).await.unwrap().is_none());
    let error = reviewed(&web.service, "mail", &jwt(GRAFANA)).await.unwrap_err();
    assert_eq!(error.to_string(), "the operator answered HTTP 403: only gateways have tokens reviewed");
}
