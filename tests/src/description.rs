//! What a cluster is: which tier of Kubernetes, with which addresses, and where its parts are.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How much of Kubernetes is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// etcd, kube-apiserver and kube-controller-manager: objects live, pods do not.
    ControlPlane,
    /// All of a single-node Kubernetes: also scheduler, kubelet, kube-proxy, containerd and CoreDNS.
    Node,
    /// The same with a second node, which may be killed.
    TwoNodes,
}

/// Which addresses the nodes, pods and Services of a cluster have: of one family alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4.
    #[default]
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// What a supervisor tells about its cluster; also kept beside the kubeconfig, as `cluster.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Name among the clusters of this machine.
    pub name: String,
    /// How much of Kubernetes it is.
    pub tier: Tier,
    /// A kubeconfig with every right.
    pub kubeconfig: PathBuf,
    /// URL of the API server, reachable from this machine.
    pub server: String,
    /// The folder with all of the cluster's files, logs among them.
    pub state: PathBuf,
    /// This machine as the cluster sees it: where a webhook or a server of the test's own can be reached.
    pub host: IpAddr,
    /// The node as this machine sees it. Pods and Services can be reached from this machine too.
    pub node: IpAddr,
    /// The sockets that take images, one for each node.
    pub containerd: Vec<PathBuf>,
}

impl Tier {
    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Node => "node",
            Self::TwoNodes => "two-nodes",
        }
    }
}

impl Family {
    /// The name on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

impl Description {
    /// The file that keeps it, in the folder of the cluster's state.
    pub const FILE: &'static str = "cluster.json";
}
