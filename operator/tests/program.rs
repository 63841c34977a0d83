//! The commands of the program that need no cluster, as a person or a pipeline runs them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What a pipeline has: a Deployment whose pods ask for the route of the example.
const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web, mailroute.dev/route: notifications}}
    spec: {containers: [{name: app, image: registry.example.com/web:1}]}
";

/// A route called `notifications` in the namespace `shop`.
const ROUTE: &str = "crates/operator-core/tests/inject/route.yaml";

fn program(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailroute-operator"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn inject(input: &str) -> Output {
    program(&["inject", "-f", "-", "--route", &path(ROUTE).display().to_string()], input)
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).unwrap()
}

#[test]
fn what_comes_in_goes_out_with_the_sidecar_and_a_second_time_unchanged() {
    let once = inject(DEPLOYMENT);
    assert!(once.status.success(), "{}", text(&once.stderr));
    let deployment: Value = serde_saphyr::from_str(text(&once.stdout)).unwrap();
    let sidecar = &deployment["spec"]["template"]["spec"]["initContainers"][0];
    assert_eq!((&sidecar["name"], &sidecar["restartPolicy"]), (&"mailroute".into(), &"Always".into()));
    let twice = inject(text(&once.stdout));
    assert_eq!(text(&twice.stdout), text(&once.stdout));
}

#[test]
fn a_refusal_is_told_with_what_to_do_and_ends_a_pipeline() {
    let refused = inject(&DEPLOYMENT.replace("route: notifications", "route: notificatoins"));
    assert_eq!((refused.status.code(), text(&refused.stdout)), (Some(1), ""));
    let told = text(&refused.stderr);
    for part in
        ["Deployment web: There is no MailRoute \"notificatoins\"", "notifications", "Correct the label"]
    {
        assert!(told.contains(part), "{part} is not in {told}");
    }
}

#[test]
fn what_is_not_yaml_is_told_with_the_place() {
    let odd = inject("kind: Pod\nmetadata: {name: a\n");
    assert_eq!((odd.status.code(), text(&odd.stdout)), (Some(1), ""));
    let told = text(&odd.stderr);
    assert!(told.contains("standard input is not YAML or JSON") && told.contains("line"), "{told}");
}

#[test]
fn the_definition_that_is_printed_is_the_one_of_the_repository() {
    let printed = program(&["crd"], "");
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    let committed = ["mailroutes", "mailboxusages"]
        .map(|kind| std::fs::read_to_string(path(&format!("crds/{kind}.mailroute.dev.yaml"))).unwrap());
    assert_eq!(text(&printed.stdout), committed.join("---\n"));
}
