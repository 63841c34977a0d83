//! Our programs with one another and with other people's clients, over real sockets. No Kubernetes.

mod broker_lent;
mod dashboard_panels;
mod docs_site;
mod gateway_identity;
mod gateway_rotation;
mod inbox_page;
mod limits_shared;
mod operator_families;
mod operator_served;
mod peer_clients;
mod release;
mod waiting_tools;

#[path = "../../../operator/tests/broker/stores.rs"]
mod stores;

#[path = "../../../sidecar/tests/relay/route.rs"]
mod route;
