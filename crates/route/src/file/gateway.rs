//! Where the sidecars of a route find its gateway, and whom the two trust.

use serde::{Deserialize, Serialize};

/// The gateway of a route: pods that run the sidecar program with a volume of their own, and take over what sidecars cannot
/// deliver. They listen on [`crate::paths::GATEWAY_PORT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gateway {
    /// DNS name of the gateway's headless Service: it resolves to the addresses of all gateway pods that are ready.
    pub host: String,
    /// PEM bundle of the CA that signs the certificates of gateways and sidecars (old and new one during a rotation). Empty while the operator cannot sign any.
    #[serde(default)]
    pub ca_pem: String,
}
