//! Our programs with one another and with other people's clients, over real sockets. No Kubernetes.

mod broker_lent;
mod limits_shared;
mod operator_families;
mod peer_clients;

#[path = "../../../sidecar/tests/relay/route.rs"]
mod route;
