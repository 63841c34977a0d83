//! The harness of the tests that need real parts: a control plane or a whole node of Kubernetes, thrown away at the end.
//!
//! ```text
//!  test ── Cluster ──pipe──► supervisor (program `cluster`, a session of its own)
//!            │                 ├─ network namespace, veth, cgroups, temporary folder
//!            │ kube::Client    ├─ etcd, kube-apiserver, kube-controller-manager          tier ControlPlane
//!            └────────────────►└─ kube-scheduler, containerd, kubelet, kube-proxy, CoreDNS   tier Node
//! ```
//!
//! * [`Cluster`]: start or share one, talk to it, load images; the last clone to be dropped ends it.
//! * [`Namespace`]: a place for one test, removed and, when the test fails, described.
//! * [`wait_for`] and its like: wait by watching.
//! * [`supervisor`]: what starts the programs and leaves nothing behind, also when the test is killed.
//! * [`chart`] and [`monitoring`]: the operator's chart, rendered and looked at.
//! * [`scene`]: what the scenarios of this project put on a cluster.
//! * [`alone`] and [`peers`]: the sidecar without a cluster, and other people's programs to send through it.
//! * [`prometheus`]: one of them, which scrapes; [`discovery`]: whom, on a cluster with the chart's monitors.
//! * [`browser`] and [`inbox`]: a headless Chromium, and the simulator's page in it; [`dashboard`]: the dashboard's panels in it.
//! * [`kstatus`]: what tools that wait for an object make of it.
//! * [`replica`]: the whole operator in this process, behind the chart on a control plane.

pub mod alone;
pub mod browser;
pub mod chart;
pub mod cluster;
mod ctr;
pub mod dashboard;
pub mod demo;
mod description;
pub mod discovery;
mod handle;
mod images;
pub mod inbox;
pub mod kstatus;
pub mod monitoring;
mod namespace;
pub mod peers;
pub mod plugin;
pub mod prometheus;
pub mod replica;
pub mod scene;
pub mod secrets;
pub mod stop;
pub mod supervisor;
pub mod tools;
pub mod wait;

pub use cluster::Cluster;
pub use description::{Description, Family, Tier};
pub use namespace::Namespace;
pub use wait::{wait_for, wait_for_all, wait_gone};
