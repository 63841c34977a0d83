//! The attacks. Each is prepared first, with what a namespace's owner may do, and then goes on until it is dropped.
//!
//! The number of connections and requests a second is bounded: on a machine that attacker and victim share, an attack that
//! takes the processor would show nothing of the operator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::{BoxFuture, FutureExt, pending, try_join_all};
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use mailroute_operator_core::crd::MailRoute;
use mailroute_route::control::REPORT_PATH;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use crate::ground::{Attackers, MAILBOX, fresh_mailbox};

/// Goes on until it is dropped.
type Running = BoxFuture<'static, Result<()>>;

/// Prepares an attack.
pub type Attack = fn(Arc<Attackers>) -> BoxFuture<'static, Result<Running>>;

/// Every attack by its name; the first is none, to compare with.
pub const ALL: [(&str, Attack); 12] = [
    ("none", |_| async { Ok(pending().boxed()) }.boxed()),
    ("aborted-claims", |us| aborted_claims(us).boxed()),
    ("inflated-numbers", |us| claims(us, json!({}), json!({"aloneRecipients": u32::MAX})).boxed()),
    ("least-limits", |us| claims(us, least(), json!({"messages": 1, "recipients": 1})).boxed()),
    ("reported-throttling", |us| claims(us, json!({}), json!({"throttled": "Rate"})).boxed()),
    ("pods-without-a-token", |us| pods_without_a_token(us).boxed()),
    ("flood-of-the-webhook", |us| flood(us, |us| us.webhook, true).boxed()),
    ("flood-of-the-control-service", |us| flood(us, |us| us.control, true).boxed()),
    ("flood-of-the-admin-port", |us| flood(us, |us| us.admin, false).boxed()),
    ("unknown-tokens", |us| unknown_tokens(us, |_, number| garbage(number)).boxed()),
    ("forged-tokens", |us| unknown_tokens(us, forged).boxed()),
    ("oversized-routes", |us| oversized_routes(us).boxed()),
];

/// Pods that claim.
const CLAIMANTS: usize = 8;

/// Each claimant's pause between two claims.
const ABORT: Duration = Duration::from_millis(500);

/// Connections that are kept open without a word.
const IDLE: usize = 1100;

/// Connections with a header that does not end.
const UNFINISHED: usize = 200;

/// New connections a second of a flood.
const CONNECTIONS: u32 = 200;

/// Tokens a second.
const TOKENS: u32 = 50;

/// Routes that are as large as an API server takes them, and how many.
const OVERSIZED: (usize, usize) = (400, 250 * 1024);

/// Such routes a second: a quarter of the window is left when all are there.
const LARGE: u32 = 13;

/// A route cannot ask for less.
fn least() -> Value {
    json!({"messagesPerMinute": 1, "recipientsPerDay": 1, "connections": 1, "maxRecipients": 1})
}

/// A pod names a fresh mailbox, claims, and hangs up while the operator writes that down.
async fn aborted_claims(us: Arc<Attackers>) -> Result<Running> {
    let claimants = (0..CLAIMANTS).map(|number| {
        let us = Arc::clone(&us);
        async move {
            let route = format!("fresh-{number}");
            us.route(&route, (MAILBOX.0, &fresh_mailbox(number)), json!({})).await?;
            let pod = us.pod(&route, &route).await?;
            anyhow::Ok((us.token(&pod).await?, route))
        }
    });
    let claimants = try_join_all(claimants).await?;
    let aborting = claimants.into_iter().enumerate().map(move |(number, (token, route))| {
        let us = Arc::clone(&us);
        async move {
            let routes: Api<MailRoute> = Api::namespaced(us.client(), &us.namespace);
            let mut moments = interval(ABORT);
            for round in 1_usize.. {
                moments.tick().await;
                let mailbox = fresh_mailbox(number + CLAIMANTS * round);
                let change = json!({"spec": {"clientSubmission": {"mailbox": mailbox}}});
                routes.patch(&route, &PatchParams::default(), &Patch::Merge(change)).await?;
                // It is on its way into the operator's cache.
                sleep(Duration::from_millis(50)).await;
                let claim = claim(&mailbox, round, &json!({"messages": 5, "recipients": 1}));
                let request = us.wire.post(REPORT_PATH, &token, &report(&route, &claim));
                if let Ok(mut stream) = us.wire.tls(us.control).await {
                    let _ = stream.write_all(request.as_bytes()).await;
                    sleep(Duration::from_millis(2 + (round as u64 * 3) % 20)).await;
                }
            }
            Ok(())
        }
    });
    Ok(try_join_all(aborting).map(|ended| ended.map(drop)).boxed())
}

/// Pods of a route that names the victims' mailbox, and what they claim each second.
async fn claims(us: Arc<Attackers>, limits: Value, what: Value) -> Result<Running> {
    us.route("theirs", MAILBOX, limits).await?;
    let mut tokens = Vec::new();
    for number in 0..CLAIMANTS {
        tokens.push(us.token(&us.pod(&format!("theirs-{number}"), "theirs").await?).await?);
    }
    let running = async move {
        let mut moments = interval(Duration::from_secs(1));
        for round in 1_usize.. {
            moments.tick().await;
            for token in &tokens {
                let claim = claim(MAILBOX.1, round, &what);
                let request = us.wire.post(REPORT_PATH, token, &report("theirs", &claim));
                let _ = timeout(Duration::from_secs(1), us.wire.say(us.control, &request)).await;
            }
        }
        Ok(())
    };
    Ok(running.boxed())
}

/// Eighty labelled pods that never run and never say a word.
async fn pods_without_a_token(us: Arc<Attackers>) -> Result<Running> {
    us.route("theirs", MAILBOX, json!({})).await?;
    for number in 0..80 {
        us.pod(&format!("wordless-{number}"), "theirs").await?;
    }
    // Somebody has to be heard for the mailbox to be looked at.
    claims(us, json!({}), json!({})).await
}

/// Connections without a word, and connections with a header that does not end.
async fn flood(us: Arc<Attackers>, port: fn(&Attackers) -> SocketAddr, is_tls: bool) -> Result<Running> {
    let mut pace = interval(Duration::from_secs(1) / CONNECTIONS);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (pace, to) = (Arc::new(Mutex::new(pace)), port(&us));
    let flooding = (0..IDLE + UNFINISHED)
        .map(move |number| connect(Arc::clone(&us), Arc::clone(&pace), to, is_tls, number < UNFINISHED));
    Ok(try_join_all(flooding).map(|ended| ended.map(drop)).boxed())
}

/// One connection after the other. That it is refused, or cut, is what the operator should do.
async fn connect(
    us: Arc<Attackers>,
    pace: Arc<Mutex<Interval>>,
    to: SocketAddr,
    is_tls: bool,
    is_talking: bool,
) -> Result<()> {
    loop {
        pace.lock().await.tick().await;
        if is_tls {
            if let Ok(Ok(stream)) = timeout(Duration::from_secs(10), us.wire.tls(to)).await {
                let _ = hold(stream, is_talking).await;
            }
        } else if let Ok(stream) = us.wire.plain(to).await {
            let _ = hold(stream, is_talking).await;
        }
    }
}

/// Keeps a connection for as long as the other side lets it.
async fn hold(mut stream: impl AsyncRead + AsyncWrite + Unpin, is_talking: bool) -> Result<()> {
    if is_talking {
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: operator\r\n").await?;
        // As much as fits before somebody says no.
        for field in 0..400 {
            let line = format!("x-{field}: {}\r\n", "a".repeat(1000));
            let written = timeout(Duration::from_secs(1), stream.write_all(line.as_bytes())).await;
            if written.is_err() {
                break;
            }
            written??;
        }
        stream.flush().await?;
    }
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}

/// Reports with tokens that nobody issued.
async fn unknown_tokens(us: Arc<Attackers>, token: fn(&str, u64) -> String) -> Result<Running> {
    us.route("theirs", MAILBOX, json!({})).await?;
    let pod = us.pod("theirs", "theirs").await?;
    let uid = pod.metadata.uid.unwrap_or_default();
    let (namespace, body) = (us.namespace.clone(), report("theirs", &claim(MAILBOX.1, 1, &json!({}))));
    let running = async move {
        let mut moments = interval(Duration::from_secs(1) / TOKENS);
        moments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let claims = json!({
            "aud": ["mailroute.dev"], "exp": Timestamp::now().as_second() + 3600,
            "iss": "https://kubernetes.default.svc.cluster.local",
            "kubernetes.io": {"namespace": namespace, "pod": {"name": "theirs", "uid": uid}},
            "sub": format!("system:serviceaccount:{namespace}:default"),
        })
        .to_string();
        let mut asking = tokio::task::JoinSet::new();
        for number in 0.. {
            moments.tick().await;
            let request = us.wire.post(REPORT_PATH, &token(&claims, number), &body);
            let us = Arc::clone(&us);
            asking.spawn(async move {
                timeout(Duration::from_secs(5), us.wire.say(us.control, &request)).await.is_ok()
            });
            while asking.try_join_next().is_some() {}
        }
        Ok(())
    };
    Ok(running.boxed())
}

/// No token at all.
fn garbage(number: u64) -> String {
    format!("not-a-token-{number}")
}

/// Claims to be of the attacker's own pod, and is signed by nobody.
fn forged(claims: &str, number: u64) -> String {
    let [header, claims] =
        [r#"{"alg":"RS256","kid":"none"}"#, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(format!("{number:0256}")))
}

/// Routes that are mostly annotations.
async fn oversized_routes(us: Arc<Attackers>) -> Result<Running> {
    let running = async move {
        let (count, size) = OVERSIZED;
        let routes: Api<MailRoute> = Api::namespaced(us.client(), &us.namespace);
        us.route("route", (MAILBOX.0, &fresh_mailbox(0)), json!({})).await?;
        let mut large = routes.get("route").await?;
        large.metadata = kube::api::ObjectMeta {
            annotations: Some([("example.com/large".to_owned(), "a".repeat(size))].into()),
            ..Default::default()
        };
        let mut moments = interval(Duration::from_secs(1) / LARGE);
        for number in 0..count {
            moments.tick().await;
            large.metadata.name = Some(format!("large-{number}"));
            routes.create(&PostParams::default(), &large).await?;
        }
        pending().await
    };
    Ok(running.boxed())
}

fn report(route: &str, claim: &Value) -> Value {
    json!({"route": route, "generation": 1, "sidecarVersion": "0.1.0", "claim": claim})
}

/// A claim on a mailbox, with whatever else is to be said in it.
fn claim(mailbox: &str, sequence: usize, what: &Value) -> Value {
    let mut claim = json!({"instance": 1, "sequence": sequence, "mailbox": mailbox});
    for (field, value) in what.as_object().into_iter().flatten() {
        claim[field] = value.clone();
    }
    claim
}
