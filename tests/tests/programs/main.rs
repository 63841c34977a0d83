//! Our programs with one another and with other people's clients, over real sockets. No Kubernetes.

mod broker_lent;
mod gateway_identity;
mod limits_shared;
mod operator_families;
mod operator_served;
mod peer_clients;
mod waiting_tools;

#[path = "../../../sidecar/tests/relay/route.rs"]
mod route;
