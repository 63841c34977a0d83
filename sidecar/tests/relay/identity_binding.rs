//! A pod with an AKS identity binding: the token is asked for through a proxy, known by its own name and authority.

use std::path::PathBuf;

use mailroute_m365::directory::{SAMPLE_SECRET, SAMPLE_SUBJECT, SAMPLE_TENANT};
use mailroute_m365::stand_in::ISSUER;
use mailroute_m365::{Simulator, write_atomically};
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;
use mailroute_route::control::Observation;
use mailroute_sidecar::net::tls::{Trust, client_config};
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::client::message;
use crate::control::{identity, read};
use crate::credentials::with_secret;
use crate::scene::{Scene, intervals, submission};

/// Name of the proxy, as AKS forms them.
const NAME: &str = "0a1b2c.sni.ests.aks";
/// `aud` of the token that the webhook of Azure workload identity mounts beside a binding.
const AUDIENCE: &str = "api://AKSIdentityBinding";
const PREFIX: &str = "/binding";

/// What the proxy does with a request.
#[derive(Clone)]
enum Does {
    /// Has it answered by the simulator's token endpoint, at this port and with this CA.
    PassOn(u16, String),
    /// Refuses it, as to a ServiceAccount without the right to the identity.
    Forbid,
}

/// The proxy in the cluster, and what the webhook mounts for it.
struct Proxy {
    directory: TempDir,
    port: u16,
    ca_pem: String,
    does: watch::Sender<Option<Does>>,
    /// The name that was asked for, and the request, of everything that it was shown.
    shown: watch::Receiver<Vec<(Option<String>, String)>>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    async fn start() -> Self {
        let (ca_pem, acceptor) = identity(NAME);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (does, todo) = watch::channel(None);
        let (note, shown) = watch::channel(vec![]);
        let task = tokio::spawn(serve(listener, acceptor, todo, note));
        let proxy = Self { directory: tempfile::tempdir().unwrap(), port, ca_pem, does, shown, task };
        proxy.mount(&proxy.ca_pem);
        proxy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn mount(&self, ca_pem: &str) {
        write_atomically(&self.path("ca.crt"), ca_pem).unwrap();
    }

    /// The sidecar's command line, with what the webhook sets as variables.
    fn arguments(&self, name: &str) -> Vec<String> {
        let path = |name: &str| self.path(name).display().to_string();
        [
            ["--token-proxy".into(), format!("https://127.0.0.1:{}{PREFIX}/", self.port)],
            ["--token-proxy-name".into(), name.into()],
            ["--token-proxy-ca-file".into(), path("ca.crt")],
            ["--federated-token-file".into(), path("token")],
        ]
        .concat()
    }

    /// The binding at Entra's side: the application trusts what the proxy is shown, and not what goes to Entra directly.
    fn bind(&self, m365: &Simulator, route: &mut RouteFile) {
        m365.directory(|directory| {
            directory.tenants[0].applications[0].federated_credentials[0].audience = AUDIENCE.into();
        });
        let now = jiff::Timestamp::now().as_second();
        let token = m365.stand_in(|issuer| issuer.token(ISSUER, SAMPLE_SUBJECT, AUDIENCE, now, 3600));
        write_atomically(&self.path("token"), &token).unwrap();
        self.does.send_replace(Some(Does::PassOn(m365.login_address().port(), m365.ca_pem().to_owned())));
        // Whoever writes the route does not say where the pod's token goes.
        submission(route).authority.host = "login.invalid".into();
    }

    async fn scene(&self, name: &str, change: impl FnOnce(&Simulator, &mut RouteFile)) -> Scene {
        let arguments = self.arguments(name);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        Scene::run(&arguments, intervals(), |_| {}, change).await
    }
}

async fn serve(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    does: watch::Receiver<Option<Does>>,
    note: watch::Sender<Vec<(Option<String>, String)>>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else { continue };
        let name = stream.get_ref().1.server_name().map(str::to_owned);
        let Some(request) = read(&mut stream).await else { continue };
        note.send_modify(|all| all.push((name, request.clone())));
        let todo = does.borrow().clone().expect("nobody asks before the scene is set");
        match todo {
            Does::PassOn(port, ca_pem) => pass_on(stream, &request, port, ca_pem).await,
            Does::Forbid => {
                let answer = "HTTP/1.1 403 X\r\nContent-Length: 9\r\nConnection: close\r\n\r\nForbidden";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        }
    }
}

async fn pass_on(mut stream: TlsStream<TcpStream>, request: &str, port: u16, ca_pem: String) {
    let connector = TlsConnector::from(client_config(&Trust::Pem(ca_pem)).await.unwrap());
    let upstream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut upstream = connector.connect("localhost".try_into().unwrap(), upstream).await.unwrap();
    upstream.write_all(request.replacen(PREFIX, "", 1).as_bytes()).await.unwrap();
    // Until the sidecar has its answer and closes.
    let _ = copy_bidirectional(&mut stream, &mut upstream).await;
}

/// Nothing is had, and the reason is told with the proxy's name.
async fn in_vain(scene: &Scene, reason: Reason) -> Observation {
    let told = scene.told(reason).await;
    assert!(!told.holds && told.message.contains("through the token proxy 127.0.0.1:"), "{told:?}");
    assert!(scene.m365.exchanges().is_empty(), "nobody else was asked");
    told
}

async fn sends(scene: &Scene) {
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("bound")).await;
    assert_eq!(reply.code, 250, "{reply}");
    scene.assert_careful();
}

#[tokio::test]
async fn the_proxy_is_shown_the_token_that_is_meant_for_it_at_the_path_of_the_tenant() {
    let proxy = Proxy::start().await;
    let scene = proxy.scene(NAME, |m365, route| proxy.bind(m365, route)).await;
    sends(&scene).await;
    let shown = proxy.shown.borrow().clone();
    let [(name, request)] = shown.as_slice() else { panic!("one exchange: {shown:#?}") };
    assert_eq!(name.as_deref(), Some(NAME));
    let line = format!("POST {PREFIX}/{SAMPLE_TENANT}/oauth2/v2.0/token HTTP/1.1\r\n");
    assert!(request.starts_with(&line), "{request}");
    assert!(request.to_ascii_lowercase().contains(&format!("host: {NAME}:")), "{request}");
    let token = std::fs::read_to_string(proxy.path("token")).unwrap();
    assert!(request.contains(&token), "the token with the proxy's audience");
}

#[tokio::test]
async fn the_bindings_own_bundle_alone_vouches_for_the_proxy_and_is_read_at_each_exchange() {
    let proxy = Proxy::start().await;
    let change = |m365: &Simulator, route: &mut RouteFile| {
        proxy.bind(m365, route);
        // The bundle of the route vouches for the simulator.
        proxy.mount(m365.ca_pem());
    };
    let scene = proxy.scene(NAME, change).await;
    let told = in_vain(&scene, Reason::TokenServiceUnavailable).await;
    assert!(told.message.contains("invalid peer certificate"), "{told:?}");
    assert!(proxy.shown.borrow().is_empty(), "nothing was shown to a proxy that nobody vouches for");
    proxy.mount(&proxy.ca_pem);
    scene.well().await;
    sends(&scene).await;
}

#[tokio::test]
async fn a_proxy_of_another_name_is_shown_nothing() {
    let proxy = Proxy::start().await;
    let scene = proxy.scene("other.sni.ests.aks", |m365, route| proxy.bind(m365, route)).await;
    let told = in_vain(&scene, Reason::TokenServiceUnavailable).await;
    assert!(told.message.contains("other.sni.ests.aks"), "{told:?}");
    assert!(proxy.shown.borrow().is_empty());
}

#[tokio::test]
async fn a_refusal_of_the_proxy_is_told_as_its_own_and_passes() {
    let proxy = Proxy::start().await;
    let change = |m365: &Simulator, route: &mut RouteFile| {
        proxy.bind(m365, route);
        proxy.does.send_modify(|does| *does = Some(Does::Forbid));
    };
    let scene = proxy.scene(NAME, change).await;
    let told = in_vain(&scene, Reason::TokenServiceUnavailable).await;
    assert!(told.message.contains("HTTP 403"), "{told:?}");
    let pass_on = Does::PassOn(scene.m365.login_address().port(), scene.m365.ca_pem().to_owned());
    proxy.does.send_replace(Some(pass_on));
    scene.well().await;
    sends(&scene).await;
}

#[tokio::test]
async fn half_a_binding_is_told_with_the_variable_that_is_missing() {
    let half = ["--token-proxy-name", NAME];
    let scene = Scene::run(&half, intervals(), |_| {}, |_, _| {}).await;
    let told = scene.told(Reason::TokenProxyInvalid).await;
    assert!(!told.holds && told.message.contains("AZURE_KUBERNETES_TOKEN_PROXY is not"), "{told:?}");
    let reply =
        scene.client().await.send("noreply@contoso.com", &["ann@fabrikam.com"], &message("half")).await;
    assert!(reply.code == 451 && reply.text().starts_with("TokenProxyInvalid: "), "{reply}");
    assert!(scene.m365.exchanges().is_empty(), "Entra is not asked in the proxy's place");
}

#[tokio::test]
async fn a_client_secret_is_not_taken_to_the_proxy() {
    let proxy = Proxy::start().await;
    let scene = proxy.scene(NAME, |_, route| with_secret(route, SAMPLE_SECRET)).await;
    sends(&scene).await;
    assert!(proxy.shown.borrow().is_empty());
}
