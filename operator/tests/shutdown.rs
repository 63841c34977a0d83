//! The end of the program itself: a signal, an exit status, and no API server to say goodbye to.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::{Router, serve};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Longest time to start; the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Five seconds until nobody sends anything here any more, five for what was begun, and some to spare. A pod of the chart
/// is given thirty.
const IN_TIME: Duration = Duration::from_secs(15);

#[test]
fn it_exits_with_0_when_the_api_server_is_gone() {
    let api = Api::start();
    let mut operator = Operator::start(api.port);
    api.led.recv_timeout(PATIENCE).unwrap();
    drop(api);
    operator.ends_well();
}

#[test]
fn it_exits_with_0_when_the_api_server_hangs() {
    let api = Api::start();
    let mut operator = Operator::start(api.port);
    api.led.recv_timeout(PATIENCE).unwrap();
    api.hangs.store(true, Ordering::Relaxed);
    operator.ends_well();
}

#[test]
fn it_exits_with_0_when_it_never_met_an_api_server() {
    let api = Api::start();
    api.hangs.store(true, Ordering::Relaxed);
    let mut operator = Operator::start(api.port);
    api.asked.recv_timeout(PATIENCE).unwrap();
    operator.ends_well();
}

#[test]
fn a_second_sigterm_does_not_cut_its_stop_short() {
    let api = Api::start();
    let mut operator = Operator::start(api.port);
    api.led.recv_timeout(PATIENCE).unwrap();
    // Its goodbyes wait for the API server, so that it is still there for the second one.
    api.hangs.store(true, Ordering::Relaxed);
    operator.terminate();
    std::thread::sleep(Duration::from_millis(200));
    assert!(operator.child.try_wait().unwrap().is_none(), "it has ended before the second one");
    operator.ends_well();
}

/// The program, with a folder for its kubeconfig.
struct Operator {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Operator {
    fn start(port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubeconfig");
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "it", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "me"}}],
            "users": [{"name": "me", "user": {}}],
            "current-context": "it",
        });
        std::fs::write(&file, kubeconfig.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailroute-operator"));
        command.arg("run").args(["--namespace", "mail", "--pod-name", "operator-0", "--pod-ip", "127.0.0.1"]);
        command.args(["--sidecar-image", "mailroute.dev/sidecar:0.1.0"]);
        for listener in ["--webhook-listen", "--control-listen", "--admin-listen"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        let child = command.env("KUBECONFIG", file).stdout(Stdio::null()).spawn().unwrap();
        Self { child, _folder: folder }
    }

    fn ends_well(&mut self) {
        let began = Instant::now();
        self.terminate();
        let status = self.exit_status();
        assert!(status.success(), "{status}");
        assert!(began.elapsed() < IN_TIME, "it took {:?}", began.elapsed());
    }

    fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    fn exit_status(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // Has ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An API server that has nothing, takes everything, and can hang. Dropped, its connections break.
struct Api {
    port: u16,
    hangs: Arc<AtomicBool>,
    /// A request has come.
    asked: Receiver<()>,
    /// The Lease was taken.
    led: Receiver<()>,
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Face {
    hangs: Arc<AtomicBool>,
    asked: Sender<()>,
    led: Sender<()>,
}

impl Api {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let ((ask, asked), (lead, led)) = (channel(), channel());
        let hangs = Arc::new(AtomicBool::new(false));
        let face = Face { hangs: Arc::clone(&hangs), asked: ask, led: lead };
        let router = Router::new().fallback(answer).with_state(face);
        runtime.spawn(async move { serve(listener, router).await });
        Self { port, hangs, asked, led, runtime: Some(runtime) }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

async fn answer(State(face): State<Face>, method: Method, uri: Uri, body: Bytes) -> Response {
    // Whether anybody still listens is the test's affair.
    let _ = face.asked.send(());
    let watches = uri.query().is_some_and(|query| query.contains("watch=true"));
    if face.hangs.load(Ordering::Relaxed) || watches {
        std::future::pending::<()>().await;
    }
    let is_lease = uri.path().contains("/leases");
    if method != Method::GET {
        let mut stored: Value = serde_json::from_slice(&body).unwrap_or_default();
        stored["metadata"]["resourceVersion"] = json!("2");
        let _ = is_lease.then(|| face.led.send(()));
        return Json(stored).into_response();
    }
    if is_lease {
        let status =
            json!({"kind": "Status", "code": 404, "status": "Failure", "reason": "NotFound", "message": ""});
        return (StatusCode::NOT_FOUND, Json(status)).into_response();
    }
    Json(json!({"metadata": {"resourceVersion": "1"}, "items": []})).into_response()
}
