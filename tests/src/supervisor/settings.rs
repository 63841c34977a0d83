//! The configuration files of the programs, as plain functions of the cluster's record.
//!
//! JSON is YAML, so what Kubernetes reads as YAML is written as JSON. The reasons beside settings are properties of
//! machines this runs on: no systemd, either cgroup version, root without CAP_SYS_RESOURCE.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::certificates::Pair;
use super::member::Member;
use super::record::Record;

/// Port of the API server, on the node's address. Each cluster has its own network, so it is always the usual one.
pub const API_PORT: u16 = 6443;

/// Domain of the cluster's names.
pub const DOMAIN: &str = "cluster.local";

/// Image that holds a pod's namespaces open.
pub const PAUSE: &str = "mailroute.dev/pause:1";

/// URL of the API server.
pub fn server(record: &Record) -> String {
    format!("https://{}", SocketAddr::new(record.node(), API_PORT))
}

/// A kubeconfig with the certificates inside.
pub fn kubeconfig(server: &str, authority: &str, user: &Pair) -> Value {
    let (certificate, key) = (STANDARD.encode(&user.certificate), STANDARD.encode(&user.key));
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "e2e", "cluster": {
            "server": server, "certificate-authority-data": STANDARD.encode(authority)}}],
        "users": [{"name": "e2e", "user": {"client-certificate-data": certificate, "client-key-data": key}}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}],
        "current-context": "e2e",
    })
}

/// The configuration of a node's kubelet.
pub fn kubelet(record: &Record, member: Member) -> Value {
    let certificate = member.programs().0;
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": record.file("pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": record.file(&format!("pki/{certificate}.crt")),
        "tlsPrivateKeyFile": record.file(&format!("pki/{certificate}.key")),
        "containerRuntimeEndpoint": format!("unix://{}", member.containerd(record).display()),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", member.cgroup(record)),
        "failCgroupV1": false,
        "failSwapOn": false,
        // Lowering the score needs CAP_SYS_RESOURCE.
        "oomScoreAdj": 0,
        "address": record.network.any(),
        "port": member.port(10_250),
        "healthzPort": member.port(10_248),
        "maxPods": 250,
        "clusterDNS": [record.node()],
        "clusterDomain": DOMAIN,
        "resolvConf": record.file("resolv.conf"),
        "podLogsDir": member.file(record, "pod-logs"),
        "volumePluginDir": member.file(record, "volume-plugins"),
        // Changed ConfigMaps reach running pods within seconds, not within a minute.
        "syncFrequency": "5s",
        // The machine's disk is not the cluster's: nothing is collected or evicted because others have filled it.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "50Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%",
            "imagefs.available": "0%", "imagefs.inodesFree": "0%",
        },
    })
}

/// kube-proxy's configuration. Its kernel settings are left alone (zero): they are the whole machine's.
pub fn proxy(record: &Record) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": record.file("kube-proxy.kubeconfig")},
        "hostnameOverride": Member::First.name(),
        "bindAddress": record.network.any(),
        "mode": "nftables",
        "clusterCIDR": record.network.pods(),
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "100ms"},
    })
}

/// The configuration of a node's containerd.
pub fn containerd(record: &Record, member: Member) -> String {
    let (folder, memory) = (member.file(record, "containerd"), member.memory(record));
    let (folder, memory) = (folder.display(), memory.display());
    let (socket, cni) = (member.containerd(record), record.file("cni"));
    let (socket, cni) = (socket.display(), cni.display());
    format!(
        r#"version = 2
root = "{memory}/containerd"
state = "{folder}/run"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Lowering the score needs CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  # Not in the folder that all containerds of the machine share.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = "{folder}/runc"
      SystemdCgroup = false
"#
    )
}

/// The pods' network: a veth pair each, routed by the node, so that Services work between any two pods.
pub fn pod_network(record: &Record) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": record.cgroup(),
        "plugins": [
            {
                "type": "ptp",
                "ipam": {
                    "type": "host-local",
                    "dataDir": record.file("cni-addresses"),
                    "ranges": [[{"subnet": record.network.pods()}]],
                    "routes": [{"dst": record.network.everywhere()}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// CoreDNS's configuration: the cluster's names; any other name does not exist.
pub fn coredns(record: &Record) -> String {
    let kubeconfig = record.kubeconfig();
    let kubeconfig = kubeconfig.display();
    format!(
        ".:53 {{\n    errors\n    kubernetes {DOMAIN} in-addr.arpa ip6.arpa {{\n        kubeconfig {kubeconfig}\n        \
         ttl 1\n    }}\n    template ANY ANY . {{\n        rcode NXDOMAIN\n    }}\n}}\n"
    )
}
