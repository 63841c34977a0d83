//! Every right that the chart grants, compared with a list, which is meant to be read by whoever reviews one more.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::chart::Objects;
use e2e::scene::release::{NAMESPACE, repository};
use serde_json::Value;

/// `<role>: <verbs> <group>/<resource> [<names>]`, one line for each rule, as granted with the default values.
const GRANTED: &str = include_str!("../rights.txt");

/// Verbs that only read.
const READING: [&str; 3] = ["get", "list", "watch"];

/// Roles for people, which the operator is not bound to.
const FOR_PEOPLE: [&str; 2] = ["ClusterRole mailroute-view", "ClusterRole mailroute-edit"];

#[test]
fn what_is_granted_is_on_the_list_and_nothing_else() -> Result<()> {
    same(&granted(&Objects::with(&[])?), GRANTED)
}

#[test]
fn in_some_namespaces_the_same_is_granted_there_alone() -> Result<()> {
    let scoped = granted(&Objects::with(&["watch.namespaces={billing,shop}"])?);
    let moved = |line: &str, namespace: &str| {
        line.replacen("ClusterRole mailroute:", &format!("Role {namespace}/mailroute-routes:"), 1)
    };
    let stays = |line: &str| {
        line.contains("tokenreviews")
            || line.contains("/namespaces")
            || line.contains("mutatingwebhookconfigurations")
            || !line.starts_with("ClusterRole mailroute:")
    };
    // Their own labels alone are read.
    let named = |line: String| match line.ends_with("/namespaces") {
        true => format!("{line} [billing,shop]"),
        false => line,
    };
    let expected: Vec<_> = lines(GRANTED)
        .into_iter()
        .map(named)
        .flat_map(|line| match stays(&line) {
            true => vec![line],
            false => vec![moved(&line, "billing"), moved(&line, "shop")],
        })
        .collect();
    // Events on the webhook configuration, which has no namespace, are kept in `default`.
    let events = "Role default/mailroute-events: create,patch events.k8s.io/events";
    same(&scoped, &format!("{}\n{events}", expected.join("\n")))
}

#[test]
fn no_wildcard_and_no_secret_outside_the_own_namespace() -> Result<()> {
    for line in granted(&Objects::with(&[])?) {
        ensure!(!line.contains('*'), "{line}");
        ensure!(!line.contains("/secrets") || line.starts_with(&format!("Role {NAMESPACE}/")), "{line}");
    }
    Ok(())
}

/// The exceptions are listed with the reason why no name can be given.
#[test]
fn what_can_be_limited_by_name_is() -> Result<()> {
    let unlimited = [
        // One for each route, in every namespace, named after the route; RBAC knows no prefixes.
        "/configmaps",
        "mailroute.dev/mailroutes/status",
        // One for each mailbox that is used, named by a digest of it; in the operator's own namespace.
        "mailroute.dev/mailboxusages",
        // Named by the API server's clients at random.
        "events.k8s.io/events",
    ];
    for line in granted(&Objects::with(&[])?) {
        let (role, rule) = line.split_once(": ").unwrap_or_default();
        let (verbs, what) = rule.split_once(' ').unwrap_or_default();
        // `create` cannot be limited by name: at that time the object has none that RBAC could see.
        let mut writing = verbs.split(',').filter(|verb| !READING.contains(verb) && *verb != "create");
        let named = what.ends_with(']') || FOR_PEOPLE.contains(&role);
        ensure!(named || unlimited.contains(&what) || writing.next().is_none(), "{line}");
    }
    Ok(())
}

#[test]
fn every_role_of_the_operator_is_bound_to_its_account_and_no_other() -> Result<()> {
    let objects = Objects::with(&["watch.namespaces={shop}"])?;
    let mut bound = BTreeSet::new();
    for binding in [objects.of_kind("ClusterRoleBinding"), objects.of_kind("RoleBinding")].concat() {
        let subjects =
            serde_json::json!([{"kind": "ServiceAccount", "name": "mailroute", "namespace": NAMESPACE}]);
        ensure!(binding["subjects"] == subjects, "{binding:#}");
        let namespace = binding["metadata"]["namespace"].as_str();
        bound.insert(name(&binding["roleRef"]["kind"], namespace, &binding["roleRef"]["name"]));
    }
    let roles = [objects.of_kind("ClusterRole"), objects.of_kind("Role")].concat();
    let roles = roles.iter().map(|role| title(role)).filter(|role| !FOR_PEOPLE.contains(&role.as_str()));
    ensure!(bound == roles.collect(), "{bound:?}");
    Ok(())
}

#[test]
fn the_security_page_lists_every_right_and_no_other() -> Result<()> {
    let page = std::fs::read_to_string(repository().join("docs/guides/security.md"))?;
    let (_, table) = page.split_once("| Object | Verbs |").context("the page has the table")?;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let listed = rows.filter_map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        Some(right(cells.next()?.trim_matches('`'), &cells.next()?.split(", ").collect::<Vec<_>>()))
    });
    let listed: BTreeSet<_> = listed.collect();
    let in_chart: BTreeSet<_> = granted(&Objects::with(&[])?)
        .iter()
        .filter(|line| !FOR_PEOPLE.iter().any(|role| line.starts_with(&format!("{role}:"))))
        .filter_map(|line| {
            let (verbs, what) = line.split_once(": ")?.1.split_once(' ')?;
            let resource = what.split(' ').next()?.split_once('/')?.1;
            Some(right(resource, &verbs.split(',').collect::<Vec<_>>()))
        })
        .collect();
    ensure!(listed == in_chart, "on the page: {listed:#?}\nin the chart: {in_chart:#?}");
    Ok(())
}

fn right(resource: &str, verbs: &[&str]) -> String {
    let verbs: BTreeSet<_> = verbs.iter().collect();
    format!("{resource}: {verbs:?}")
}

#[test]
fn rights_of_people_can_be_left_to_the_cluster() -> Result<()> {
    let left = granted(&Objects::with(&["rbac.aggregate=false"])?);
    ensure!(!left.iter().any(|line| FOR_PEOPLE.iter().any(|role| line.starts_with(role))), "{left:#?}");
    Ok(())
}

fn same(granted: &[String], expected: &str) -> Result<()> {
    let (granted, expected): (BTreeSet<_>, BTreeSet<_>) =
        (granted.iter().cloned().collect(), lines(expected).into_iter().collect());
    let more: Vec<_> = granted.difference(&expected).collect();
    let missing: Vec<_> = expected.difference(&granted).collect();
    ensure!(more.is_empty() && missing.is_empty(), "not on the list: {more:#?}\nnot granted: {missing:#?}");
    Ok(())
}

fn lines(list: &str) -> Vec<String> {
    list.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Every rule, a line for each resource of it.
fn granted(objects: &Objects) -> Vec<String> {
    let mut lines = Vec::new();
    for role in [objects.of_kind("ClusterRole"), objects.of_kind("Role")].concat() {
        for rule in role["rules"].as_array().into_iter().flatten() {
            let names = strings(&rule["resourceNames"]).join(",");
            let names = if names.is_empty() { names } else { format!(" [{names}]") };
            for group in strings(&rule["apiGroups"]) {
                for resource in strings(&rule["resources"]) {
                    let verbs = strings(&rule["verbs"]).join(",");
                    lines.push(format!("{}: {verbs} {group}/{resource}{names}", title(role)));
                }
            }
        }
    }
    lines
}

fn title(role: &Value) -> String {
    name(&role["kind"], role["metadata"]["namespace"].as_str(), &role["metadata"]["name"])
}

fn name(kind: &Value, namespace: Option<&str>, name: &Value) -> String {
    let (kind, name) = (kind.as_str().unwrap_or_default(), name.as_str().unwrap_or_default());
    match namespace {
        Some(namespace) if kind == "Role" => format!("{kind} {namespace}/{name}"),
        _ => format!("{kind} {name}"),
    }
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
