//! Manifests: routes, and pods that play the application with a real SMTP client in it. All of them meet Pod Security
//! `restricted`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use serde_json::{Value, json};

/// Image with real SMTP clients from Debian packages.
pub const CLIENTS: &str = "mailroute.dev/clients:0.1.0";

/// Tenant of the simulator's sample directory.
pub const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

/// Tenant of the scene in a namespace. Scenes that shared one would share the limits of its mailboxes, too.
pub fn tenant(namespace: &str) -> String {
    let mut hasher = DefaultHasher::new();
    namespace.hash(&mut hasher);
    let own = hasher.finish();
    format!("{:08x}-86f1-41af-91ab-{:012x}", own >> 32, own & 0xffff_ffff)
}

/// Application of the simulator's sample directory.
pub const CLIENT_ID: &str = "1b2c3d4e-5f60-4718-8293-a4b5c6d7e8f9";

/// Mailbox of the simulator's sample directory.
pub const MAILBOX: &str = "noreply@contoso.com";

/// A route for client submission through the simulator of a namespace.
pub fn route(name: &str, namespace: &str) -> Value {
    let ca = json!({"name": "m365-ca", "key": "ca.crt"});
    json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": name},
        "spec": {
            "method": "ClientSubmission",
            "tenant": {
                "id": tenant(namespace),
                "acceptedDomains": ["contoso.com"],
                "authority": {"host": format!("login.{namespace}.svc.cluster.local"), "caBundleRef": ca},
            },
            "clientSubmission": {
                "mailbox": MAILBOX,
                "credential": {"type": "WorkloadIdentity", "clientId": CLIENT_ID},
            },
            "endpoint": {"host": format!("smtp.{namespace}.svc.cluster.local"), "caBundleRef": ca},
        },
    })
}

/// The same in mode Deliver: what the client is answered is what came of the delivery.
pub fn delivering(name: &str, namespace: &str) -> Value {
    let mut route = route(name, namespace);
    route["spec"]["delivery"] = json!({"mode": "Deliver"});
    route
}

/// The same in mode Queue: the client is answered before anything is sent.
pub fn queueing(name: &str, namespace: &str) -> Value {
    let mut route = route(name, namespace);
    route["spec"]["delivery"] = json!({"mode": "Queue"});
    route
}

/// The same with a client secret, from the key `client-secret` of a Secret.
pub fn with_client_secret(name: &str, namespace: &str, secret: &str) -> Value {
    let mut route = route(name, namespace);
    route["spec"]["clientSubmission"]["credential"] = json!({
        "type": "ClientSecret",
        "clientId": CLIENT_ID,
        "secretRef": {"name": secret, "key": "client-secret"},
    });
    route
}

/// A route by Microsoft Graph through the simulator of a namespace, in mode Deliver.
pub fn by_graph(name: &str, namespace: &str) -> Value {
    let mut route = delivering(name, namespace);
    let spec = &mut route["spec"];
    spec["method"] = json!("Graph");
    spec["graph"] = spec["clientSubmission"].take();
    spec["endpoint"]["host"] = json!(format!("graph.{namespace}.svc.cluster.local"));
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("clientSubmission");
    }
    route
}

/// A route that relays by the certificate of a Secret through the simulator's MX endpoint.
pub fn relaying(name: &str, namespace: &str, secret: &str) -> Value {
    let mut route = by_mx(name, namespace, "SmtpRelay");
    route["spec"]["smtpRelay"] = json!({"certificateSecretRef": {"name": secret}});
    route
}

/// A route for Direct Send to the simulator's MX endpoint.
pub fn direct(name: &str, namespace: &str) -> Value {
    let mut route = by_mx(name, namespace, "DirectSend");
    route["spec"]["directSend"] = json!({});
    route
}

fn by_mx(name: &str, namespace: &str, method: &str) -> Value {
    let ca = json!({"name": "m365-ca", "key": "ca.crt"});
    json!({
        "apiVersion": "mailroute.dev/v1alpha1",
        "kind": "MailRoute",
        "metadata": {"name": name},
        "spec": {
            "method": method,
            "tenant": {"id": tenant(namespace), "acceptedDomains": ["contoso.com"]},
            "endpoint": {"host": format!("mx.{namespace}.svc.cluster.local"), "caBundleRef": ca},
        },
    })
}

/// The same with a gateway that is installed as [`super::gateway::GATEWAY`], and so much durability.
pub fn with_gateway(route: Value, durability: &str) -> Value {
    with_gateway_of(route, super::gateway::GATEWAY, durability)
}

/// The same with a gateway that is installed as this release.
pub fn with_gateway_of(mut route: Value, release: &str, durability: &str) -> Value {
    route["spec"]["gateway"] = json!({"serviceName": release});
    route["spec"]["delivery"]["durability"] = json!(durability);
    route
}

/// A container of the client image that runs a shell script.
pub fn container(name: &str, script: &str) -> Value {
    json!({
        "name": name,
        "image": CLIENTS,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-ec", script],
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": 10001,
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "mail", "mountPath": "/mail"}],
    })
}

/// A pod spec of one container `app`; the ConfigMap `mail` is mounted at `/mail` when it exists.
pub fn pod_spec(script: &str) -> Value {
    json!({
        "restartPolicy": "Never",
        "containers": [container("app", script)],
        "volumes": [{"name": "mail", "configMap": {"name": "mail", "optional": true}}],
    })
}

/// A pod template labelled with a route.
pub fn template(route: &str, spec: &Value) -> Value {
    json!({"metadata": {"labels": {"mailroute.dev/route": route, "app": "shop"}}, "spec": spec})
}

/// A bare pod labelled with a route.
pub fn pod(name: &str, route: &str, spec: &Value) -> Value {
    let mut pod = template(route, spec);
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    pod
}

/// A Job that is tried once.
pub fn job(name: &str, route: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": template(route, spec)},
    })
}

/// A Deployment of one replica.
pub fn deployment(name: &str, route: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["restartPolicy"] = json!("Always");
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": template(route, &spec),
        },
    })
}

/// A shell script that sends a one-line message with Python's smtplib and fails with the server's reply.
pub fn send_with_smtplib(subject: &str) -> String {
    format!(
        r#"python3 - <<'END'
import smtplib, sys
from email.message import EmailMessage
m = EmailMessage()
m["From"], m["To"], m["Subject"] = "{MAILBOX}", "ada@contoso.com", "{subject}"
m.set_content("Sent to localhost:25.")
try:
    with smtplib.SMTP("localhost", 25, timeout=120) as s:
        s.send_message(m)
except smtplib.SMTPException as e:
    print("refused:", e)
    sys.exit(1)
print("accepted")
END"#
    )
}

/// The script of a container that waits to be told what to do, and ends when the kubelet asks for it.
pub const WAIT: &str = "trap 'exit 0' TERM; sleep infinity & wait";

/// A shell script that sends messages whose subjects are the numbers of a range, one session each, and prints what each
/// was answered. It ends at the first that is refused.
pub fn send_numbers(numbers: Range<u32>, recipient: &str) -> String {
    let Range { start, end } = numbers;
    format!(
        r#"python3 - <<'END'
import smtplib, sys
for n in range({start}, {end}):
    m = f"From: {MAILBOX}\r\nTo: {recipient}\r\nSubject: {{n}}\r\nMessage-ID: <{{n}}@run.contoso.com>\r\n\r\nmail\r\n"
    with smtplib.SMTP("localhost", 25, timeout=120) as s:
        s.ehlo()
        for code, text in (s.mail("{MAILBOX}"), s.rcpt("{recipient}"), s.data(m)):
            if code != 250:
                print("refused", n, code, text.decode(), flush=True)
                sys.exit(1)
        print("accepted", n, text.decode(), flush=True)
END"#
    )
}
