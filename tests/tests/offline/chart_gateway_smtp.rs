//! The gateway's chart with SMTP for pods and machines without a sidecar: nobody is let in by accident.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::chart::{GATEWAY, Objects, gateway_with};
use e2e::tools::Tools;
use mailroute_route::paths;
use serde_json::{Value, json};

use super::chart_gateway::{EVERYTHING, pod, refused, same};

/// What every set of values here begins with.
const TLS: &str = "smtp.enabled=true,smtp.tls.secretName=mail-tls";

/// The arguments of the container.
fn arguments(values: &[&str]) -> Result<Vec<String>> {
    let pod = pod(values)?;
    let arguments = pod["spec"]["containers"][0]["args"].as_array().context("arguments")?.clone();
    Ok(arguments.iter().filter_map(|argument| argument.as_str().map(str::to_owned)).collect())
}

#[test]
fn without_smtp_there_is_neither_a_port_nor_a_service_for_it() -> Result<()> {
    let objects = Objects::of_gateway(&["smtp.tls.secretName=mail-tls,smtp.users.secretName=mail-users"])?;
    let text = objects.all().iter().map(Value::to_string).collect::<String>();
    for trace in ["2525", "mail-tls", "mail-users", "-smtp"] {
        ensure!(!text.contains(trace), "{trace}");
    }
    Ok(())
}

#[test]
fn the_arguments_are_those_of_the_values_and_the_program_takes_them() -> Result<()> {
    let spool = "--spool-size=1Gi".to_owned();
    let listen = format!("--smtp-listen=[::]:{}", paths::GATEWAY_SMTP_PORT);
    let tls = format!("--smtp-tls={}", paths::GATEWAY_TLS_DIR);
    let users = format!("--smtp-users={}/{}", paths::GATEWAY_USERS_DIR, paths::USERS_FILE);
    let own = "--smtp-token-namespaces=shop".to_owned();
    let some = "--smtp-token-namespaces=shop,legacy".to_owned();
    let peers = "smtp.enabled=true,smtp.withoutAuth=true,smtp.peers[0].podSelector.matchLabels.app=grafana";
    let without = "--smtp-without-auth".to_owned();
    let (sessions, messages) =
        ("--smtp-client-sessions=20".to_owned(), "--smtp-client-messages=120".to_owned());
    let (fewer, more) = ("--smtp-client-sessions=5".to_owned(), "--smtp-client-messages=1000000".to_owned());
    for (values, expected) in [
        (vec![TLS], vec![&spool, &listen, &tls, &own, &sessions, &messages]),
        (
            vec![TLS, "smtp.serviceAccounts.namespaces={shop,legacy}"],
            vec![&spool, &listen, &tls, &some, &sessions, &messages],
        ),
        (
            vec![TLS, "smtp.users.secretName=u,smtp.serviceAccounts.enabled=false"],
            vec![&spool, &listen, &tls, &users, &sessions, &messages],
        ),
        (
            vec![TLS, "smtp.clientLimits.sessions=5,smtp.clientLimits.messagesPerMinute=1000000"],
            vec![&spool, &listen, &tls, &own, &fewer, &more],
        ),
        (vec![peers], vec![&spool, &listen, &sessions, &messages, &without]),
        (vec![peers, TLS], vec![&spool, &listen, &tls, &own, &sessions, &messages, &without]),
    ] {
        let found = arguments(&values)?;
        ensure!(found.iter().eq(expected), "{values:?}: {found:?}");
        let line = ["mailroute-sidecar", "--gateway=[::]:9026"].map(str::to_owned).into_iter().chain(found);
        mailroute_sidecar::args::Cli::try_parse_from(line).with_context(|| format!("{values:?}"))?;
    }
    Ok(())
}

#[test]
fn certificate_and_users_come_from_secrets_that_may_be_late() -> Result<()> {
    let spec = pod(&[TLS, "smtp.users.secretName=mail-users"])?["spec"].clone();
    let secret = |secret: &str, items: &[&str]| {
        let items: Vec<_> = items.iter().map(|key| json!({"key": key, "path": key})).collect();
        json!({"secretName": secret, "optional": true, "defaultMode": 0o440, "items": items})
    };
    same(
        &spec["volumes"],
        json!([
            {"name": "smtp-tls", "secret": secret("mail-tls", &[paths::CERTIFICATE_FILE, paths::KEY_FILE])},
            {"name": "smtp-users", "secret": secret("mail-users", &[paths::USERS_FILE])},
        ]),
    )?;
    same(
        &spec["containers"][0]["volumeMounts"],
        json!([
            {"name": "smtp-tls", "mountPath": paths::GATEWAY_TLS_DIR, "readOnly": true},
            {"name": "smtp-users", "mountPath": paths::GATEWAY_USERS_DIR, "readOnly": true},
        ]),
    )
}

#[test]
fn the_service_for_others_has_both_ports_and_keeps_addresses_of_clients() -> Result<()> {
    let service = |values: &[&str]| -> Result<Value> {
        let objects = Objects::of_gateway(&[&[TLS], values].concat())?;
        let named = format!("{GATEWAY}-smtp");
        let mut services = objects.of_kind("Service").into_iter();
        let service = services.find(|service| service["metadata"]["name"] == *named);
        Ok(service.context("no Service for SMTP")?.clone())
    };
    let spec = service(&[])?["spec"].clone();
    same(&spec["type"], json!("ClusterIP"))?;
    ensure!(spec.get("externalTrafficPolicy").is_none(), "{spec:#}");
    let target = paths::GATEWAY_SMTP_PORT;
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": target, "protocol": "TCP", "appProtocol": "tcp"});
    same(&spec["ports"], json!([port("smtp", 25), port("submission", 587)]))?;
    let outside = service(&[
        "smtp.service.type=LoadBalancer,smtp.service.loadBalancerSourceRanges={192.0.2.0/24}",
        "smtp.service.annotations.internal=yes",
    ])?;
    same(&outside["spec"]["externalTrafficPolicy"], json!("Local"))?;
    same(&outside["spec"]["loadBalancerSourceRanges"], json!(["192.0.2.0/24"]))?;
    same(&outside["metadata"]["annotations"]["internal"], json!("yes"))
}

#[test]
fn cert_manager_is_asked_for_the_names_of_the_service_and_those_outside() -> Result<()> {
    let more = "smtp.tls.certManager.dnsNames={smtp.contoso.com}";
    let objects = Objects::of_gateway(&[&EVERYTHING[..], &[more]].concat())?;
    let spec = &objects.only("Certificate")?["spec"];
    same(&spec["issuerRef"], json!({"name": "corporate"}))?;
    same(
        &spec["dnsNames"],
        json!([
            "mail-gateway-smtp",
            "mail-gateway-smtp.shop",
            "mail-gateway-smtp.shop.svc",
            "mail-gateway-smtp.shop.svc.cluster.local",
            "smtp.contoso.com",
        ]),
    )?;
    let pod = &objects.only("StatefulSet")?["spec"]["template"]["spec"];
    same(&spec["secretName"], json!("mail-gateway-smtp-tls"))?;
    same(&pod["volumes"][0]["secret"]["secretName"], spec["secretName"].clone())
}

#[test]
fn the_port_for_others_takes_the_peers_of_the_values() -> Result<()> {
    let rule = |values: &[&str]| -> Result<Value> {
        let objects = Objects::of_gateway(&[&[TLS], values].concat())?;
        Ok(objects.only("NetworkPolicy")?["spec"]["ingress"][2].clone())
    };
    let ports = json!([{"port": paths::GATEWAY_SMTP_PORT, "protocol": "TCP"}]);
    // Everyone may try to log in.
    same(&rule(&[])?, json!({"ports": ports}))?;
    same(
        &rule(&[
            "smtp.peers[0].podSelector.matchLabels.app=grafana,smtp.peers[1].ipBlock.cidr=192.0.2.7/32",
        ])?,
        json!({"ports": ports, "from": [
            {"podSelector": {"matchLabels": {"app": "grafana"}}}, {"ipBlock": {"cidr": "192.0.2.7/32"}},
        ]}),
    )
}

#[test]
fn values_that_would_let_anybody_or_nobody_in_are_refused_with_a_sentence() -> Result<()> {
    let without = r#"smtp={"enabled": true, "withoutAuth": true}"#;
    let peers = |peer: &str| format!(r#"smtp={{"enabled": true, "withoutAuth": true, "peers": [{peer}]}}"#);
    let some = peers(r#"{"podSelector": {"matchLabels": {"app": "grafana"}}}"#);
    let users = r#"smtp={"enabled": true, "withoutAuth": true, "users": {"secretName": "u"}}"#;
    let nobody =
        r#"smtp={"enabled": true, "tls": {"secretName": "t"}, "serviceAccounts": {"enabled": false}}"#;
    let cases: [(&[&str], &str); 5] = [
        (&[r#"smtp={"enabled": true}"#], "smtp.enabled needs a certificate"),
        (&[nobody], "smtp.enabled lets nobody send"),
        (&[users], "smtp.users needs a certificate"),
        (&[without], "smtp.withoutAuth needs smtp.peers"),
        (&[&some, r#"networkPolicy={"enabled": false}"#], "smtp.withoutAuth needs networkPolicy.enabled"),
    ];
    for (values, said) in cases {
        let json: Vec<_> = values.iter().flat_map(|value| ["--set-json", value]).collect();
        let told = refused(&[&["--set", "route=notifications"], &json[..]].concat())?;
        ensure!(told.contains(said), "{values:?}: {told}");
    }
    Ok(())
}

/// What Helm says of one peer with which everybody there may send without a login; nothing when it takes it.
fn told_of_peer(peer: &str, service: &str) -> Result<Option<String>> {
    let smtp =
        format!(r#"smtp={{"enabled": true, "withoutAuth": true, "service": {service}, "peers": [{peer}]}}"#);
    let arguments = ["--set", "route=notifications", "--set-json", &smtp];
    let output = gateway_with(&Tools::find()?.helm(), GATEWAY, &arguments)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((!output.status.success()).then_some(told))
}

#[test]
fn a_peer_that_is_everybody_is_refused_however_it_is_written() -> Result<()> {
    let selectors = [
        "{}",
        r#"{"matchLabels": {}}"#,
        r#"{"matchExpressions": []}"#,
        r#"{"matchLabels": {}, "matchExpressions": []}"#,
        r#"{"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "Exists"}]}"#,
        r#"{"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["a"]}]}"#,
        r#"{"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}"#,
    ];
    for selector in selectors {
        let pods = r#""podSelector": {"matchLabels": {"app": "grafana"}}"#;
        let told = told_of_peer(&format!(r#"{{"namespaceSelector": {selector}, {pods}}}"#), "{}")?;
        let told = told.with_context(|| format!("{selector} is taken"))?;
        ensure!(told.contains("lets pods of every namespace send"), "{selector}: {told}");
    }
    for network in
        ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/7", "::/0", "0:0::/0", "2000::/3", "fd00::/15"]
    {
        let told = told_of_peer(&format!(r#"{{"ipBlock": {{"cidr": "{network}"}}}}"#), "{}")?;
        let told = told.with_context(|| format!("{network} is taken"))?;
        ensure!(told.contains("makes the gateway an open relay"), "{network}: {told}");
    }
    for network in
        ["banana", "10.0.0.0", "10.0.0.0/00", "10.0.0.0/33", "10.0.0.256/32", "fd00::/129", "/8", ""]
    {
        let told = told_of_peer(&format!(r#"{{"ipBlock": {{"cidr": "{network}"}}}}"#), "{}")?;
        let told = told.with_context(|| format!("{network} is taken"))?;
        ensure!(told.contains("/smtp/peers/0/ipBlock/cidr"), "{network}: {told}");
    }
    for peer in [
        r#"{"ipBlock": {"cidr": "10.0.0.0/8"}}"#,
        r#"{"ipBlock": {"cidr": "fd00::/16", "except": ["fd00:1::/32"]}}"#,
        r#"{"podSelector": {}}"#,
        r#"{"namespaceSelector": {"matchLabels": {"team": "mail"}}}"#,
        r#"{"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}}"#,
    ] {
        ensure!(told_of_peer(peer, "{}")?.is_none(), "{peer}: {:?}", told_of_peer(peer, "{}")?);
    }
    Ok(())
}

#[test]
fn without_a_login_the_addresses_of_clients_have_to_be_preserved() -> Result<()> {
    let peer = r#"{"ipBlock": {"cidr": "10.20.7.15/32"}}"#;
    for (kind, policy, is_taken) in [
        ("LoadBalancer", "Local", true),
        ("LoadBalancer", "Cluster", false),
        ("NodePort", "Cluster", false),
        ("ClusterIP", "Cluster", true),
    ] {
        let service = format!(r#"{{"type": "{kind}", "externalTrafficPolicy": "{policy}"}}"#);
        let told = told_of_peer(peer, &service)?;
        ensure!(told.is_none() == is_taken, "{kind} {policy}: {told:?}");
        ensure!(told.is_none_or(|told| told.contains("needs smtp.service.externalTrafficPolicy Local")));
    }
    Ok(())
}
