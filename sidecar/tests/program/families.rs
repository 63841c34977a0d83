//! Pods with one family of addresses alone: the program in a network namespace of its own, as the kubelet makes one.

use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Brings loopback up, takes the addresses of the family `$1` away, gives the pod the address `$2`, starts the program with
/// its defaults, and asks it as a neighbour, an application and the kubelet would; the last on the port, as on a volume
/// without sockets. The address `$3` is loopback.
const SCRIPT: &str = r#"
set -eu
ip link set lo up
ip "-$1" address flush dev lo
ip address add "$2" dev lo nodad 2>/dev/null || ip address add "$2" dev lo
"$PROGRAM" --route /nonexistent --spool-dir "$SPOOL" --grace 1 2>"$SPOOL/log" &
until "$PROGRAM" alive --spool-dir "$SPOOL"; do kill -0 $!; done
"$PROGRAM" alive --spool-dir /nonexistent
exec 3<>"/dev/tcp/${2%/*}/9025"
printf 'GET /livez HTTP/1.1\r\nHost: pod\r\n\r\n' >&3
head --lines 1 <&3
exec 4<>"/dev/tcp/$3/25"
head --lines 1 <&4
kill $!
wait
"#;

/// What the neighbour and the application are told in a pod without the addresses of a family; nothing where no network
/// namespace can be made, which root always can.
async fn told(without: &str, pod: &str, loopback: &str) -> Option<String> {
    let namespace = ["--net", "--map-root-user"];
    let can = Command::new("unshare").args(namespace).args(["ip", "link", "set", "lo", "up"]).output().await;
    if !can.as_ref().is_ok_and(|made| made.status.success()) {
        let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        assert!(!is_root, "no network namespace can be made: {can:?}");
        eprintln!("no network namespace can be made here: skipped");
        return None;
    }
    let spool = tempfile::tempdir().unwrap();
    let run = Command::new("unshare")
        .args(namespace)
        .args(["bash", "-c", SCRIPT, "pod", without, pod, loopback])
        .env("PROGRAM", env!("CARGO_BIN_EXE_mailroute-sidecar"))
        .env("SPOOL", spool.path())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let run = tokio::time::timeout(Duration::from_secs(60), run).await.expect("it ends").unwrap();
    let log = std::fs::read_to_string(spool.path().join("log")).unwrap_or_default();
    assert!(run.status.success(), "{run:?}\n{log}");
    Some(String::from_utf8(run.stdout).unwrap())
}

fn is_served(told: &str) {
    let lines: Vec<_> = told.lines().collect();
    assert!(lines[0].starts_with("HTTP/1.1 200") && lines[1].starts_with("220 "), "{told}");
}

#[tokio::test]
async fn a_pod_without_ipv4_is_served() {
    if let Some(told) = told("4", "fd00::10/128", "::1").await {
        is_served(&told);
    }
}

#[tokio::test]
async fn a_pod_without_ipv6_is_served() {
    if let Some(told) = told("6", "10.9.9.9/32", "127.0.0.1").await {
        is_served(&told);
    }
}
