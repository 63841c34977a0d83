//! What the platform says about all routes.

use super::mailbox_rules::MailboxRules;
use super::operator_identity::OperatorIdentity;

/// All that resolving a route depends on beside the route: what the installation lends, allows and is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlatformSettings {
    /// The applications that the operator can prove itself as, and which routes may use them.
    pub operator_identity: OperatorIdentity,
    /// Which namespaces may send as which mailbox.
    pub mailbox_rules: MailboxRules,
    /// Audiences that routes may name for the token that Entra is shown, besides those that Entra publishes.
    pub entra_audiences: Vec<String>,
    /// `host:port` of the control service, as pods reach it.
    pub control_address: String,
    /// Domain of the cluster's Services.
    pub cluster_domain: String,
}
