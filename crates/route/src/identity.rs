//! The names in the certificates by which sidecars and gateways of a route know each other.
//!
//! The control service signs them; it takes route, role and pod from what it knows of the pod, never from the request. A
//! certificate has two names (RFC 5280 §4.2.1.6): a DNS name for the route and the role, which is what the other side verifies,
//! and a URI that also names the pod, for logs.

use std::fmt;

/// Domain below which the DNS names are. Reserved for private use (ICANN, "internal"), so that nobody can look them up.
const DOMAIN: &str = "mailroute.internal";

/// Life of a certificate, seconds: a day. It is renewed at two thirds, so that hand-overs work for at least eight hours
/// after the operator was last seen.
pub const CERTIFICATE_SECONDS: u64 = 24 * 3600;

/// What a pod does for a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes mail on localhost, from the applications of its pod.
    Sidecar,
    /// Takes messages over from sidecars, on a volume of its own.
    Gateway,
}

impl Role {
    /// The role in names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Gateway => "gateway",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The DNS name in the certificates of all pods of a role: `ROUTE.NAMESPACE.ROLE.mailroute.internal`. A namespace has no dots, so
/// the name of no route can make it that of another namespace.
pub fn dns_name(role: Role, namespace: &str, route: &str) -> String {
    format!("{route}.{namespace}.{role}.{DOMAIN}")
}

/// The URI in the certificate of one pod: `mailroute://NAMESPACE/ROUTE/ROLE/POD`.
pub fn uri(role: Role, namespace: &str, route: &str, pod: &str) -> String {
    format!("mailroute://{namespace}/{route}/{role}/{pod}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_who_it_is() {
        assert_eq!(dns_name(Role::Gateway, "shop", "mail"), "mail.shop.gateway.mailroute.internal");
        assert_eq!(uri(Role::Sidecar, "shop", "mail", "web-0"), "mailroute://shop/mail/sidecar/web-0");
    }
}
