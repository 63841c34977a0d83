//! Where the injected pod mounts things. The operator's patch creates these paths, the sidecar's defaults read them.

/// The sidecar's program in its image.
pub const PROGRAM: &str = "/mailroute-sidecar";

/// User and group of the sidecar, as its image has them. Not 65532, which is every distroless image's: two containers of one
/// user may reach each other's files through `/proc` where they share their processes. Below 65536, which is as far as user
/// namespaces map ids.
pub const SIDECAR_USER: i64 = 61025;

/// Directory of the mounted route ConfigMap. A directory mount, so that the kubelet updates it in place.
pub const ROUTE_DIR: &str = "/etc/mailroute/route";

/// Key of the rendered route in its ConfigMap, and so the file's name in [`ROUTE_DIR`].
pub const ROUTE_KEY: &str = "route.json";

/// Directory of the projected service-account tokens.
pub const TOKENS_DIR: &str = "/var/run/secrets/mailroute/tokens";

/// File in [`TOKENS_DIR`]: the assertion exchanged at Entra for an access token.
pub const ENTRA_TOKEN_FILE: &str = "entra";

/// File in [`TOKENS_DIR`]: proves to the control service which pod is calling.
pub const CONTROL_TOKEN_FILE: &str = "control";

/// Directory of the Secret with the route's credential or certificate, when it has one.
pub const CREDENTIAL_DIR: &str = "/var/run/secrets/mailroute/credential";

/// File in [`CREDENTIAL_DIR`]: a client secret or a password, whatever its key in the Secret is called.
pub const SECRET_FILE: &str = "secret";

/// File in [`CREDENTIAL_DIR`]: the certificate chain, leaf first, whatever its key in the Secret is called.
pub const CERTIFICATE_FILE: &str = "tls.crt";

/// File in [`CREDENTIAL_DIR`]: the key of the leaf, whatever its key in the Secret is called.
pub const KEY_FILE: &str = "tls.key";

/// Directory of the CA bundle for the token authority, when the route names one.
pub const AUTHORITY_CA_DIR: &str = "/etc/mailroute/authority-ca";

/// Directory of the CA bundle for the upstream, when the route names one.
pub const ENDPOINT_CA_DIR: &str = "/etc/mailroute/endpoint-ca";

/// Directory of the CA bundle for the SMTP endpoint of Graph's fallback, when the route names one.
pub const FALLBACK_CA_DIR: &str = "/etc/mailroute/fallback-ca";

/// File name of a mounted CA bundle (PEM), whatever its key in the ConfigMap is called.
pub const CA_FILE: &str = "ca.crt";

/// Directory of the queue, and of message bodies too large for memory. The only writable path.
pub const SPOOL_DIR: &str = "/var/spool/mailroute";

/// TCP port, on the pod's address, of `/livez`, `/readyz` and `/metrics`.
pub const ADMIN_PORT: u16 = 9025;

/// TCP port, on the addresses of a gateway pod, where sidecars of the route hand messages over.
pub const GATEWAY_PORT: u16 = 9026;

/// TCP port, on the addresses of a gateway pod, where pods and machines without a sidecar send mail. Above 1023, so that no
/// sysctl is needed; the gateway's Service offers it as 25 and 587.
pub const GATEWAY_SMTP_PORT: u16 = 2525;

/// Directory of the Secret with the certificate that a gateway shows to SMTP clients: [`CERTIFICATE_FILE`] and [`KEY_FILE`].
pub const GATEWAY_TLS_DIR: &str = "/etc/mailroute/tls";

/// Directory of the Secret with the users of a gateway: [`USERS_FILE`].
pub const GATEWAY_USERS_DIR: &str = "/etc/mailroute/users";

/// File in [`GATEWAY_USERS_DIR`]: one `name:hash` a line, as htpasswd writes them; hashes are bcrypt or Argon2.
pub const USERS_FILE: &str = "users";

/// Image of the container `mailroute` in the pod template of a gateway; the webhook replaces it.
pub const AUTO_IMAGE: &str = "auto";

/// Audience of the token that Entra exchanges.
/// Source: Microsoft Entra, "Configure an app to trust an external identity provider".
pub const ENTRA_AUDIENCE: &str = "api://AzureADTokenExchange";

/// Audiences that Entra itself publishes for federated credentials: of the worldwide cloud, of the US Government's and of
/// China's. Source: Microsoft Entra, "Create a trust relationship between an app and an external identity provider".
pub const ENTRA_AUDIENCES: [&str; 3] =
    [ENTRA_AUDIENCE, "api://AzureADTokenExchangeUSGov", "api://AzureADTokenExchangeChina"];

/// Whether a token of this audience may be shown to a token authority. It has to be the URI of an application, as all of
/// [`ENTRA_AUDIENCES`] are; [`CONTROL_AUDIENCE`] is none, and neither are those of API servers, which are `https` URLs.
pub fn is_for_entra(audience: &str) -> bool {
    audience.strip_prefix("api://").is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
    })
}

/// Audience of the token for the control service; and of the tokens by which pods log in at a gateway of their own namespace.
pub const CONTROL_AUDIENCE: &str = "mailroute.dev";

/// Audience of a token that is good for logins at the gateway of one route, and for nothing else. Pods of other namespaces need one of
/// it: with a token that is good anywhere else, the owner of the gateway could do what they may.
pub fn gateway_audience(namespace: &str, route: &str) -> String {
    format!("{CONTROL_AUDIENCE}/gateway/{namespace}/{route}")
}

/// The audiences of which a token has to have one to log in at the gateway of a route, when it is of a ServiceAccount in `client`.
pub fn login_audiences(namespace: &str, route: &str, client: &str) -> Vec<String> {
    let own = (client == namespace).then(|| CONTROL_AUDIENCE.to_owned());
    std::iter::once(gateway_audience(namespace, route)).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_good_elsewhere_is_good_at_gateways_of_its_own_namespace_alone() {
        let named = "mailroute.dev/gateway/shop/mail";
        assert_eq!(login_audiences("shop", "mail", "shop"), [named, CONTROL_AUDIENCE]);
        assert_eq!(login_audiences("shop", "mail", "legacy"), [named]);
    }

    #[test]
    fn only_entras_audiences_are_shown_to_an_authority() {
        assert!(ENTRA_AUDIENCES.into_iter().all(is_for_entra));
        for audience in [
            CONTROL_AUDIENCE,
            "https://kubernetes.default.svc.cluster.local",
            "kubernetes.default.svc",
            "api",
            "api://",
            "API://AzureADTokenExchange",
            " api://AzureADTokenExchange",
            "api://AzureADTokenExchange mailroute.dev",
            "api://AzureADTokenExchange,mailroute.dev",
            "",
        ] {
            assert!(!is_for_entra(audience), "{audience:?}");
        }
    }
}
