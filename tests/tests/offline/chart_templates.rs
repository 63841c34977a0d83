//! Each template of the operator's chart: what the real Helm makes of the values that change it. No cluster.

use anyhow::{Context, Result, ensure};
use e2e::chart::{EVERYTHING, Objects};
use serde_json::{Value, json};

/// The one object of a kind, with some values set.
fn only(kind: &str, values: &[&str]) -> Result<Value> {
    Objects::with(values)?.only(kind).cloned()
}

/// Fails with both sides when they differ.
#[track_caller]
fn same(found: &Value, expected: Value) -> Result<()> {
    ensure!(*found == expected, "found {found:#}\nexpected {expected:#}");
    Ok(())
}

const LABELS: [(&str, &str); 5] = [
    ("app.kubernetes.io/name", "mailroute"),
    ("app.kubernetes.io/instance", "mailroute"),
    ("app.kubernetes.io/version", "0.1.0"),
    ("app.kubernetes.io/managed-by", "Helm"),
    ("helm.sh/chart", "mailroute-0.1.0"),
];

#[test]
fn every_object_has_the_labels_of_the_chart_and_the_common_ones() -> Result<()> {
    let common = ["commonLabels.team=mail", "commonAnnotations.example\\.com/owner=mail"];
    let wrong = "commonLabels.app\\.kubernetes\\.io/name=other";
    let objects = Objects::with(&[&EVERYTHING[..], &common, &[wrong]].concat())?;
    ensure!(objects.all().len() > 20, "{} objects", objects.all().len());
    let deployment = &objects.only("Deployment")?["spec"]["template"];
    for object in objects.all().iter().chain([deployment]) {
        let metadata = &object["metadata"];
        for (key, value) in LABELS.into_iter().chain([("team", "mail")]) {
            ensure!(
                metadata["labels"][key] == value,
                "{key} of {} is missing or another: {metadata:#}",
                object["kind"]
            );
        }
        same(&metadata["annotations"]["example.com/owner"], json!("mail"))?;
    }
    Ok(())
}

#[test]
fn nothing_optional_is_there_unless_it_is_asked_for() -> Result<()> {
    let objects = Objects::with(&[
        "podDisruptionBudget.enabled=false",
        "admissionPolicy.enabled=false",
        "networkPolicy.enabled=false",
    ])?;
    for kind in [
        "NetworkPolicy",
        "ServiceMonitor",
        "PodMonitor",
        "PrometheusRule",
        "ConfigMap",
        "PodDisruptionBudget",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ] {
        ensure!(objects.of_kind(kind).is_empty(), "{kind}");
    }
    Ok(())
}

#[test]
fn the_pods_go_where_they_are_told() -> Result<()> {
    let deployment = only(
        "Deployment",
        &[
            "replicas=3",
            "priorityClassName=system-cluster-critical",
            "nodeSelector.pool=system",
            "tolerations[0].key=dedicated,tolerations[0].operator=Exists",
            "affinity.nodeAffinity.anything=goes",
            "podLabels.mesh=off",
            "podAnnotations.example\\.com/log=yes",
        ],
    )?;
    same(&deployment["spec"]["replicas"], json!(3))?;
    let template = &deployment["spec"]["template"];
    same(&template["spec"]["priorityClassName"], json!("system-cluster-critical"))?;
    same(&template["spec"]["nodeSelector"], json!({"pool": "system"}))?;
    same(&template["spec"]["tolerations"], json!([{"key": "dedicated", "operator": "Exists"}]))?;
    same(&template["spec"]["affinity"], json!({"nodeAffinity": {"anything": "goes"}}))?;
    same(&template["metadata"]["labels"]["mesh"], json!("off"))?;
    same(&template["metadata"]["annotations"]["example.com/log"], json!("yes"))
}

#[test]
fn the_pods_spread_over_nodes_or_as_they_are_told() -> Result<()> {
    let spread = |values: &[&str]| -> Result<Value> {
        Ok(only("Deployment", values)?["spec"]["template"]["spec"]["topologySpreadConstraints"].clone())
    };
    let own = json!({"matchLabels": {"app.kubernetes.io/name": "mailroute", "app.kubernetes.io/instance": "mailroute"}});
    same(
        &spread(&[])?,
        json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": own}]),
    )?;
    let at = "topologySpreadConstraints[0]";
    let zone = format!("{at}.maxSkew=2,{at}.topologyKey=zone,{at}.whenUnsatisfiable=DoNotSchedule");
    let expected = json!({"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": own});
    same(&spread(&[&zone])?, json!([expected]))?;
    let selected = format!("{zone},{at}.labelSelector.matchLabels.a=b");
    same(&spread(&[&selected])?[0]["labelSelector"], json!({"matchLabels": {"a": "b"}}))
}

#[test]
fn the_pods_meet_pod_security_restricted() -> Result<()> {
    let pod = only("Deployment", &[])?["spec"]["template"]["spec"].clone();
    same(
        &pod["securityContext"],
        json!({"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}}),
    )?;
    same(
        &pod["containers"][0]["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
        }),
    )
}

#[test]
fn a_platform_that_assigns_users_has_none_named() -> Result<()> {
    let objects = only("Deployment", &["user=Platform,sidecar.user=Platform"])?;
    let pod = &objects["spec"]["template"]["spec"];
    same(
        &pod["securityContext"],
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}),
    )?;
    let told = json!({"name": "MAILROUTE_SIDECAR_USER_BY_PLATFORM", "value": "true"});
    let environment = pod["containers"][0]["env"].as_array().context("the environment")?;
    ensure!(environment.contains(&told), "{environment:?}");
    Ok(())
}

#[test]
fn further_kinds_of_workloads_are_warned_of() -> Result<()> {
    let value = "webhook.workloads[0].apiGroup=argoproj.io,webhook.workloads[0].apiVersion=v1alpha1,\
                 webhook.workloads[0].resource=rollouts";
    let objects = Objects::with(&[value])?;
    let rule = json!({
        "apiGroups": ["argoproj.io"], "apiVersions": ["v1alpha1"], "resources": ["rollouts"],
        "operations": ["CREATE", "UPDATE"], "scope": "Namespaced",
    });
    let entry = &objects.only("MutatingWebhookConfiguration")?["webhooks"][2];
    same(&entry["rules"][2], rule.clone())?;
    same(&entry["failurePolicy"], json!("Ignore"))?;
    let policies = objects.all().iter().filter(|object| object["kind"] == "ValidatingAdmissionPolicy");
    let rules = policies.map(|policy| &policy["spec"]["matchConstraints"]["resourceRules"][2]);
    ensure!(rules.into_iter().any(|found| *found == rule), "no policy has the rule");
    Ok(())
}

#[test]
fn the_operator_runs_with_the_names_of_its_release() -> Result<()> {
    let objects = Objects::parse(&e2e::chart::printed(e2e::chart::template("second", &[])?)?)?;
    let container = &objects.only("Deployment")?["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().context("arguments")?;
    for (flag, kind) in [
        ("--service", "Service"),
        ("--webhook-configuration", "MutatingWebhookConfiguration"),
        ("--ca-secret", "Secret"),
        ("--lease", "Lease"),
    ] {
        let name = objects.only(kind)?["metadata"]["name"].as_str().context("a name")?;
        ensure!(arguments.contains(&json!(format!("{flag}={name}"))), "{flag} is not {name}: {arguments:?}");
    }
    Ok(())
}

#[test]
fn images_are_named_by_tag_or_digest() -> Result<()> {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let values = [format!("image.digest={digest}"), "sidecar.image.tag=9.9.9".to_owned()];
    let deployment = only("Deployment", &[&values[0], &values[1], "imagePullSecrets[0].name=pull"])?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    same(&container["image"], json!(format!("mailroute.dev/operator:0.1.0@{digest}")))?;
    let environment = container["env"].as_array().context("the environment")?;
    let sidecar = environment.iter().find(|variable| variable["name"] == "MAILROUTE_SIDECAR_IMAGE");
    same(&sidecar.context("the sidecar's image")?["value"], json!("mailroute.dev/sidecar:9.9.9"))?;
    let account =
        only("ServiceAccount", &["imagePullSecrets[0].name=pull", "serviceAccount.annotations.a=b"])?;
    same(&account["imagePullSecrets"], json!([{"name": "pull"}]))?;
    same(&account["metadata"]["annotations"], json!({"a": "b"}))
}

#[test]
fn the_disruption_budget_leaves_one_replica() -> Result<()> {
    let budget = only("PodDisruptionBudget", &[])?;
    same(&budget["spec"]["maxUnavailable"], json!(1))?;
    same(
        &only("PodDisruptionBudget", &["podDisruptionBudget.maxUnavailable=50%"])?["spec"]["maxUnavailable"],
        json!("50%"),
    )?;
    let deployment = only("Deployment", &[])?;
    same(&budget["spec"]["selector"], deployment["spec"]["selector"].clone())
}

/// The policy that refuses pods.
fn net(objects: &Objects) -> Result<&Value> {
    let mut policies = objects.of_kind("ValidatingAdmissionPolicy").into_iter();
    policies.find(|policy| policy["metadata"]["name"] == "mailroute").context("no policy about pods")
}

#[test]
fn webhook_and_policy_look_at_the_same_pods() -> Result<()> {
    for values in [&[][..], &["watch.namespaces={shop}"]] {
        let objects = Objects::with(values)?;
        let webhook = &objects.only("MutatingWebhookConfiguration")?["webhooks"][1];
        let policy = &net(&objects)?["spec"];
        let constraints = &policy["matchConstraints"];
        same(&constraints["objectSelector"], webhook["objectSelector"].clone())?;
        same(&constraints["namespaceSelector"], webhook["namespaceSelector"].clone())?;
        same(&constraints["resourceRules"], webhook["rules"].clone())?;
        same(&policy["matchConditions"][0], webhook["matchConditions"][0].clone())?;
        same(&webhook["failurePolicy"], json!("Fail"))?;
        let selected = &webhook["namespaceSelector"]["matchExpressions"];
        same(&selected[0]["values"], json!(["kube-system", "mailroute-system"]))?;
        same(&selected[1]["values"], if values.is_empty() { Value::Null } else { json!(["shop"]) })?;
    }
    Ok(())
}

#[test]
fn the_entry_about_namespaces_is_as_narrow_as_the_other_and_stands_before_it() -> Result<()> {
    for values in [&[][..], &["watch.namespaces={shop}"]] {
        let objects = Objects::with(values)?;
        let webhooks = &objects.only("MutatingWebhookConfiguration")?["webhooks"];
        let (entry, other) = (&webhooks[0], &webhooks[1]);
        ensure!(
            (&entry["name"], &other["name"])
                == (&json!("namespaces.mailroute.dev"), &json!("inject.mailroute.dev"))
        );
        for field in
            ["rules", "failurePolicy", "timeoutSeconds", "sideEffects", "reinvocationPolicy", "matchPolicy"]
        {
            same(&entry[field], other[field].clone())?;
        }
        // The same namespaces, of them those with the label; no pod that the other entry is asked about.
        let mut namespaces = other["namespaceSelector"]["matchExpressions"].clone();
        let labelled = json!({"key": "mailroute.dev/route", "operator": "Exists"});
        namespaces.as_array_mut().context("a list")?.push(labelled);
        same(&entry["namespaceSelector"]["matchExpressions"], namespaces)?;
        let pods = json!({"matchExpressions": [
            {"key": "mailroute.dev/route", "operator": "DoesNotExist"},
            {"key": "mailroute.dev/inject", "operator": "NotIn", "values": ["false"]},
        ]});
        same(&entry["objectSelector"], pods)?;
        let policies = objects.of_kind("ValidatingAdmissionPolicy");
        let policy = policies.into_iter().find(|policy| policy["metadata"]["name"] == "mailroute-namespaces");
        let policy = &policy.context("no policy about pods of such namespaces")?["spec"];
        for field in ["objectSelector", "namespaceSelector"] {
            same(&policy["matchConstraints"][field], entry[field].clone())?;
        }
        same(&policy["matchConditions"], entry["matchConditions"].clone())?;
    }
    Ok(())
}

#[test]
fn a_pods_route_is_fixed_wherever_the_policy_looks_at_pods() -> Result<()> {
    for values in [&[][..], &["watch.namespaces={shop}"]] {
        let objects = Objects::with(values)?;
        let named = |kind: &str| -> Result<Value> {
            let mut found = objects.of_kind(kind).into_iter();
            let found = found.find(|object| object["metadata"]["name"] == "mailroute-pod-updates");
            Ok(found.context("no policy about updates of pods")?["spec"].clone())
        };
        let (policy, made) = (named("ValidatingAdmissionPolicy")?, &net(&objects)?["spec"]);
        let (constraints, of_made) = (&policy["matchConstraints"], &made["matchConstraints"]);
        same(&constraints["objectSelector"], of_made["objectSelector"].clone())?;
        same(&constraints["namespaceSelector"], of_made["namespaceSelector"].clone())?;
        let mut rules = of_made["resourceRules"].clone();
        rules[0]["operations"] = json!(["UPDATE"]);
        // A write to the status changes labels too.
        rules[0]["resources"] = json!(["pods", "pods/status"]);
        same(&constraints["resourceRules"], rules)?;
        ensure!(policy.get("matchConditions").is_none(), "an excuse of the pod excuses no change");
        same(&named("ValidatingAdmissionPolicyBinding")?["validationActions"], json!(["Deny"]))?;
    }
    Ok(())
}

#[test]
fn an_excluded_namespace_is_not_excused() -> Result<()> {
    let objects = Objects::with(&["webhook.excludedNamespaces={legacy}"])?;
    let names = |selector: &Value| selector["namespaceSelector"]["matchExpressions"][0]["values"].clone();
    let webhook = &objects.only("MutatingWebhookConfiguration")?["webhooks"][1];
    same(&names(webhook), json!(["kube-system", "mailroute-system", "legacy"]))?;
    // A labelled pod there could not send, and somebody should know.
    let policy = &net(&objects)?["spec"]["matchConstraints"];
    same(&names(policy), json!(["kube-system", "mailroute-system"]))
}

#[test]
fn the_tests_are_hooks_whose_pods_are_none_of_the_operators() -> Result<()> {
    let hook =
        json!({"helm.sh/hook": "test", "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded"});
    let job = only("Job", &[])?;
    same(&job["metadata"]["annotations"], hook.clone())?;
    let (pod, deployment) = (&job["spec"]["template"], only("Deployment", &[])?);
    let own = json!({"app.kubernetes.io/name": "mailroute-test", "app.kubernetes.io/instance": "mailroute"});
    same(&pod["metadata"]["labels"], own.clone())?;
    let container = &pod["spec"]["containers"][0];
    let of_the_operator = &deployment["spec"]["template"]["spec"];
    same(&container["image"], of_the_operator["containers"][0]["image"].clone())?;
    same(&container["securityContext"], of_the_operator["containers"][0]["securityContext"].clone())?;
    same(&pod["spec"]["securityContext"], of_the_operator["securityContext"].clone())?;
    same(&pod["spec"]["automountServiceAccountToken"], json!(false))?;
    let service = "--service=mailroute.mailroute-system.svc";
    same(&container["args"], json!(["test", "operator", service, "--ca-file=/etc/mailroute/ca/ca.crt"]))?;
    let ca = |values: &[&str]| {
        Ok::<_, anyhow::Error>(
            only("Job", values)?["spec"]["template"]["spec"]["volumes"][0]["secret"].clone(),
        )
    };
    // The Secret of the CA has its keys, too, which the pod must not see.
    let certificates = json!([{"key": "ca.crt", "path": "ca.crt"}]);
    same(&ca(&[])?, json!({"secretName": "mailroute-ca", "items": certificates}))?;
    same(
        &ca(&["certificates.source=Secret"])?,
        json!({"secretName": "mailroute-tls", "items": certificates}),
    )?;

    let objects = Objects::with(&["networkPolicy.apiServer.cidrs={10.0.0.1/32}"])?;
    let ingress = &objects.only("NetworkPolicy")?["spec"]["ingress"];
    for rule in [&ingress[0], &ingress[1]] {
        let admits = rule["from"]
            .as_array()
            .into_iter()
            .flatten()
            .any(|from| from["podSelector"]["matchLabels"] == own);
        ensure!(admits, "the test cannot reach {}", rule["ports"]);
    }
    Ok(())
}

#[test]
fn a_test_of_a_route_is_a_pod_of_that_route() -> Result<()> {
    let values =
        ["test.route=notifications,test.namespace=shop,test.from=a@contoso.com,test.to=b@contoso.com"];
    let objects = Objects::with(&values)?;
    let jobs = objects.of_kind("Job");
    let job = jobs
        .iter()
        .find(|job| job["metadata"]["name"] == "mailroute-test-route")
        .context("no test of the route")?;
    same(&job["metadata"]["namespace"], json!("shop"))?;
    let pod = &job["spec"]["template"];
    same(&pod["metadata"]["labels"]["mailroute.dev/route"], json!("notifications"))?;
    same(
        &pod["spec"]["containers"][0]["args"],
        json!(["test", "route", "--from=a@contoso.com", "--to=b@contoso.com"]),
    )?;
    ensure!(pod["spec"].get("volumes").is_none(), "it needs no Secret");
    let incomplete =
        e2e::chart::template("mailroute", &["--set", "test.route=notifications,test.namespace=shop"])?;
    let told = String::from_utf8_lossy(&incomplete.stderr).into_owned();
    ensure!(!incomplete.status.success() && told.contains("test.from is not"), "{told}");
    Ok(())
}

#[test]
fn the_network_policy_opens_what_is_called_and_nothing_else() -> Result<()> {
    let policy = only(
        "NetworkPolicy",
        &[
            "networkPolicy.limitEgress=true",
            "networkPolicy.apiServer.cidrs={10.0.0.1/32}",
            "networkPolicy.apiServer.ports={6443}",
            "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring",
            "networkPolicy.egress[0].to[0].ipBlock.cidr=192.0.2.0/24",
        ],
    )?;
    let spec = &policy["spec"];
    same(&spec["policyTypes"], json!(["Ingress", "Egress"]))?;
    let ports = |rules: &Value| -> Vec<Value> {
        rules.as_array().into_iter().flatten().map(|rule| rule["ports"][0]["port"].clone()).collect()
    };
    ensure!(ports(&spec["ingress"]) == ["webhook", "control", "admin"], "{spec:#}");
    same(&spec["ingress"][0]["from"][0], json!({"ipBlock": {"cidr": "10.0.0.1/32"}}))?;
    same(
        &spec["ingress"][2]["from"],
        json!([{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]),
    )?;
    ensure!(ports(&spec["egress"]) == [json!(53), json!(6443), json!("control"), Value::Null], "{spec:#}");
    same(&spec["egress"][1]["to"], json!([{"ipBlock": {"cidr": "10.0.0.1/32"}}]))?;
    // The ports are named, and the names are those of the container.
    let deployment = only("Deployment", &[])?;
    let named =
        deployment["spec"]["template"]["spec"]["containers"][0]["ports"].as_array().context("ports")?.clone();
    for name in ["webhook", "control", "admin"] {
        ensure!(named.iter().any(|port| port["name"] == name), "{name}: {named:?}");
    }
    Ok(())
}

#[test]
fn the_network_policy_opens_the_port_of_a_name_server_of_its_own() -> Result<()> {
    let dns = |server: &str| -> Result<Value> {
        let policy =
            only("NetworkPolicy", &["networkPolicy.limitEgress=true", &format!("dns.nameserver={server}")])?;
        Ok(policy["spec"]["egress"][0]["ports"].clone())
    };
    let both =
        |port: u16| [json!({"port": port, "protocol": "UDP"}), json!({"port": port, "protocol": "TCP"})];
    same(&dns("")?, json!(both(53)))?;
    same(&dns("192.0.2.1:53")?, json!(both(53)))?;
    same(&dns("192.0.2.1:5353")?, json!([both(53), both(5353)].concat()))
}

#[test]
fn by_default_the_control_port_takes_labelled_pods_replicas_and_tests_alone() -> Result<()> {
    let policy = only("NetworkPolicy", &[])?;
    let spec = &policy["spec"];
    same(&spec["policyTypes"], json!(["Ingress"]))?;
    ensure!(spec.get("egress").is_none(), "{spec:#}");
    let of = |port: &str| {
        let rules = spec["ingress"].as_array().into_iter().flatten();
        rules.clone().find(|rule| rule["ports"][0]["port"] == port).map(|rule| rule["from"].clone())
    };
    // API servers and kubelets have addresses that the chart does not know.
    ensure!(of("webhook") == Some(Value::Null) && of("admin") == Some(Value::Null), "{spec:#}");
    let own = json!({"app.kubernetes.io/name": "mailroute", "app.kubernetes.io/instance": "mailroute"});
    let tests =
        json!({"app.kubernetes.io/name": "mailroute-test", "app.kubernetes.io/instance": "mailroute"});
    same(
        &of("control").unwrap_or_default(),
        json!([
            {
                "podSelector": {"matchExpressions": [{"key": "mailroute.dev/route", "operator": "Exists"}]},
                "namespaceSelector": {},
            },
            {"podSelector": {"matchLabels": own}},
            {"podSelector": {"matchLabels": tests}},
        ]),
    )
}

#[test]
fn the_service_has_the_address_families_of_the_cluster() -> Result<()> {
    same(&only("Service", &[])?["spec"]["ipFamilyPolicy"], json!("PreferDualStack"))
}

#[test]
fn the_address_of_a_sidecar_is_checked_unless_that_is_turned_off() -> Result<()> {
    let checks = |values: &[&str]| -> Result<bool> {
        let deployment = only("Deployment", values)?;
        let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        Ok(!arguments.as_array().into_iter().flatten().any(|it| it == "--check-source-address=false"))
    };
    ensure!(checks(&[])? && !checks(&["controlService.checkSourceAddress=false"])?);
    Ok(())
}

#[test]
fn the_monitors_find_the_service_and_the_sidecars() -> Result<()> {
    let on = ["monitoring.serviceMonitor.enabled=true", "monitoring.podMonitor.enabled=true"];
    let objects = Objects::with(
        &[&on[..], &["monitoring.podMonitor.interval=1m,monitoring.podMonitor.labels.a=b"]].concat(),
    )?;
    let (service, monitor) = (objects.only("Service")?, objects.only("ServiceMonitor")?);
    for (key, value) in monitor["spec"]["selector"]["matchLabels"].as_object().context("a selector")? {
        same(&service["metadata"]["labels"][key], value.clone())?;
    }
    let ports = service["spec"]["ports"].as_array().context("ports")?;
    ensure!(ports.iter().any(|port| port["name"] == monitor["spec"]["endpoints"][0]["port"]), "{ports:?}");

    let pods = objects.only("PodMonitor")?;
    same(&pods["metadata"]["labels"]["a"], json!("b"))?;
    same(&pods["spec"]["namespaceSelector"], json!({"any": true}))?;
    same(&pods["spec"]["podMetricsEndpoints"][0]["port"], json!("mailroute-admin"))?;
    same(&pods["spec"]["podMetricsEndpoints"][0]["interval"], json!("1m"))?;
    let scoped = Objects::with(&["monitoring.podMonitor.enabled=true", "watch.namespaces={shop}"])?;
    same(&scoped.only("PodMonitor")?["spec"]["namespaceSelector"], json!({"matchNames": ["shop"]}))
}
