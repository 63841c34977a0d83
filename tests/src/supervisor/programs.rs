//! The programs of a cluster and their arguments, as plain functions of the cluster's record.

use std::path::PathBuf;

use super::member::Member;
use super::record::Record;
use super::settings::{API_PORT, DOMAIN};
use crate::tools::Tools;

/// A program to be run.
#[derive(Debug, Clone)]
pub struct Program {
    /// Name of its log.
    pub name: &'static str,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Whether its end is no failure of the cluster.
    pub may_end: bool,
}

impl Program {
    fn new(name: &'static str, path: impl Into<PathBuf>, arguments: Vec<String>) -> Self {
        Self { name, path: path.into(), arguments, may_end: false }
    }
}

/// etcd, without the syncs that make it survive a power cut: the cluster does not.
pub fn etcd(record: &Record) -> Program {
    let arguments = vec![
        "--name=e2e".to_owned(),
        option("--data-dir", &record.memory().join("etcd").display()),
        "--listen-client-urls=http://127.0.0.1:2379".to_owned(),
        "--advertise-client-urls=http://127.0.0.1:2379".to_owned(),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".to_owned(),
        "--initial-cluster=e2e=http://127.0.0.1:2380".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    Program::new("etcd", "etcd", arguments)
}

/// kube-apiserver.
pub fn apiserver(tools: &Tools, record: &Record) -> Program {
    let pki = |name: &str| record.file("pki").join(name).display().to_string();
    let mut arguments: Vec<String> = [
        ("--tls-cert-file", "server.crt"),
        ("--tls-private-key-file", "server.key"),
        ("--client-ca-file", "ca.crt"),
        ("--kubelet-certificate-authority", "ca.crt"),
        ("--kubelet-client-certificate", "server-to-kubelet.crt"),
        ("--kubelet-client-key", "server-to-kubelet.key"),
        ("--requestheader-client-ca-file", "front-proxy-ca.crt"),
        ("--proxy-client-cert-file", "front-proxy.crt"),
        ("--proxy-client-key-file", "front-proxy.key"),
        ("--service-account-key-file", "service-account.key"),
        ("--service-account-signing-key-file", "service-account.key"),
    ]
    .into_iter()
    .map(|(name, file)| option(name, &pki(file)))
    .collect();
    arguments.extend([
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        option("--advertise-address", &record.node()),
        option("--bind-address", &record.network.any()),
        option("--secure-port", &API_PORT),
        option("--service-account-issuer", &format!("https://kubernetes.default.svc.{DOMAIN}")),
        option("--service-cluster-ip-range", &record.network.services()),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        // Webhooks behind a Service are dialled at the endpoint's address.
        "--enable-aggregator-routing=true".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--profiling=false".to_owned(),
    ]);
    Program::new("kube-apiserver", tools.kubernetes("kube-apiserver"), arguments)
}

/// kube-controller-manager.
pub fn controller_manager(tools: &Tools, record: &Record) -> Program {
    let pki = |name: &str| record.file("pki").join(name).display().to_string();
    let arguments = vec![
        option("--kubeconfig", &record.file("kube-controller-manager.kubeconfig").display()),
        option("--service-account-private-key-file", &pki("service-account.key")),
        option("--root-ca-file", &pki("ca.crt")),
        option("--cluster-signing-cert-file", &pki("ca.crt")),
        option("--cluster-signing-key-file", &pki("ca.key")),
        "--use-service-account-credentials=true".to_owned(),
        // Its controllers start one after the other, each with requests of its own; the usual 20 a second make that seconds.
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=500".to_owned(),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--profiling=false".to_owned(),
    ];
    Program::new("kube-controller-manager", tools.kubernetes("kube-controller-manager"), arguments)
}

/// kube-scheduler.
pub fn scheduler(tools: &Tools, record: &Record) -> Program {
    let arguments = vec![
        option("--kubeconfig", &record.file("kube-scheduler.kubeconfig").display()),
        "--leader-elect=false".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--profiling=false".to_owned(),
    ];
    Program::new("kube-scheduler", tools.kubernetes("kube-scheduler"), arguments)
}

/// The containerd of a node.
pub fn containerd(record: &Record, member: Member) -> Program {
    let config = member.file(record, "containerd.toml");
    let arguments = vec!["--config".to_owned(), config.display().to_string()];
    of(member, Program::new(member.programs().1, "containerd", arguments))
}

fn of(member: Member, program: Program) -> Program {
    Program { may_end: member == Member::Second, ..program }
}

/// The kubelet of a node.
pub fn kubelet(tools: &Tools, record: &Record, member: Member) -> Program {
    let file = |name: &str| member.file(record, name);
    let arguments = vec![
        option("--config", &file("kubelet.json").display()),
        option("--kubeconfig", &file("kubelet.kubeconfig").display()),
        option("--root-dir", &file("kubelet").display()),
        option("--cert-dir", &file("kubelet/pki").display()),
        option("--hostname-override", &member.name()),
        option("--node-ip", &record.node()),
    ];
    of(member, Program::new(member.programs().0, tools.kubernetes("kubelet"), arguments))
}

/// kube-proxy.
pub fn proxy(tools: &Tools, record: &Record) -> Program {
    let arguments = vec![option("--config", &record.file("kube-proxy.json").display())];
    Program::new("kube-proxy", tools.kubernetes("kube-proxy"), arguments)
}

/// CoreDNS, as a program of the node rather than in a pod: pods ask the node's own address.
pub fn coredns(tools: &Tools, record: &Record) -> Program {
    let arguments = vec!["-conf".to_owned(), record.file("Corefile").display().to_string()];
    Program::new("coredns", tools.coredns(), arguments)
}

fn option(name: &str, value: &dyn std::fmt::Display) -> String {
    format!("{name}={value}")
}
