//! Entra's literal errors, one row each, with what they mean.
//!
//! The table of the crate `mailroute-entra` is tested with them, and the documentation lists them.

use mailroute_route::condition::Reason;

/// An answer of the token endpoint: HTTP status, `error`, AADSTS code, sentence, and what it means.
pub type KnownError = (u16, &'static str, u32, &'static str, Reason);

/// To a service-account token under a federated credential. What [`UNMATCHED`] holds is not among them.
#[rustfmt::skip]
pub const FEDERATED: &[KnownError] = &[
    (401, "invalid_client", 7_002_138, "No matching federated identity record found for presented assertion subject. The subject matches with case-insensitive comparison, but not with case-sensitive comparison.", Reason::FederationNotTrusted),
    (401, "invalid_client", 700_024, "Client assertion is not within its valid time range. Current time: 2026-11-21T09:00:00Z", Reason::AssertionRejected),
    (400, "unauthorized_client", 700_016, "Application with identifier '1b2c3d4e' was not found in the directory 'Contoso'.", Reason::ApplicationNotFound),
    (400, "unauthorized_client", 700_011, "Application with identifier '1b2c3d4e' was not found in the directory.", Reason::ApplicationNotFound),
    (400, "unauthorized_client", 70001, "The application is not supported for this account.", Reason::ApplicationNotFound),
    (401, "unauthorized_client", 7_000_112, "Application '1b2c3d4e'(notifications) is disabled.", Reason::ApplicationNotFound),
    (401, "invalid_client", 7_000_215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '1b2c3d4e'.", Reason::SecretRejected),
    (401, "invalid_client", 7_000_222, "The provided client secret keys for app '1b2c3d4e' are expired. Visit the Azure portal to create new keys for your app, or consider using certificate credentials for added security.", Reason::SecretExpired),
    (401, "invalid_client", 700_025, "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.", Reason::CredentialRejected),
    (401, "invalid_client", 700_027, "The certificate with identifier used to sign the client assertion is not registered on application.", Reason::AssertionRejected),
    (401, "invalid_client", 700_222, "The assertion signature is not valid.", Reason::AssertionRejected),
    (401, "invalid_client", 900_384, "JWT token failed signature validation.", Reason::AssertionRejected),
    (400, "invalid_grant", 50013, "Assertion failed signature validation.", Reason::AssertionRejected),
    (400, "invalid_grant", 500_133, "Assertion is not within its valid time range.", Reason::AssertionRejected),
    (400, "invalid_request", 50027, "JWT token is invalid or malformed.", Reason::AssertionRejected),
    (400, "invalid_request", 90002, "Tenant '72f988bf-86f1-41af-91ab-2d7cd011db48' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud.", Reason::TenantNotFound),
    (400, "invalid_request", 900_023, "Specified tenant identifier 'contoso' is neither a valid DNS name, nor a valid external domain.", Reason::TenantNotFound),
    (400, "invalid_request", 90038, "Tenant '72f988bf' request is being redirected to the National Cloud.", Reason::TenantNotFound),
    (400, "invalid_resource", 500_011, "The resource principal named https://outlook.office365.com was not found in the tenant named Contoso.", Reason::ScopeRejected),
    (400, "invalid_resource", 50001, "The resource is disabled or the resource named was not found.", Reason::ScopeRejected),
    (400, "invalid_resource", 650_052, "The app is trying to access a service that your organization lacks a service principal for.", Reason::ScopeRejected),
    (400, "invalid_resource", 650_057, "Invalid resource.", Reason::ScopeRejected),
    (400, "invalid_scope", 70011, "The provided request must include a 'scope' input parameter.", Reason::ScopeRejected),
    (400, "invalid_scope", 1_002_012, "The provided value for scope is not valid. Client credential flows must have a scope value with /.default suffixed.", Reason::ScopeRejected),
    (400, "invalid_grant", 53003, "Access has been blocked by Conditional Access policies.", Reason::AccessBlocked),
    (400, "interaction_required", 530_035, "Access has been blocked by security defaults.", Reason::AccessBlocked),
    (400, "interaction_required", 530_032, "Blocked by Conditional Access policy.", Reason::AccessBlocked),
    (400, "invalid_request", 90061, "Request to External OIDC endpoint failed.", Reason::IssuerUnreachable),
    (503, "temporarily_unavailable", 90033, "A transient error has occurred. Please try again.", Reason::TokenServiceUnavailable),
    (500, "server_error", 90006, "External server retryable error.", Reason::TokenServiceUnavailable),
    (503, "server_error", 90012, "Request timed out.", Reason::TokenServiceUnavailable),
    (503, "server_error", 90024, "Request budget exceeded.", Reason::TokenServiceUnavailable),
    (429, "temporarily_unavailable", 90055, "Tenant request is being throttled.", Reason::TokenServiceThrottled),
    (503, "server_error", 90090, "Non-retryable error.", Reason::TokenServiceUnavailable),
    (429, "invalid_grant", 50196, "The server terminated an operation because it encountered a loop.", Reason::TokenServiceThrottled),
];

/// To an assertion that was signed with a certificate.
#[rustfmt::skip]
pub const OF_CERTIFICATES: &[KnownError] = &[
    (401, "invalid_client", 700_027, "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - The key was not found., Thumbprint of key used by client: '0123456789ABCDEF0123456789ABCDEF01234567', Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see configured keys for app Id '1b2c3d4e'.]", Reason::CertificateNotRegistered),
    (401, "invalid_client", 700_027, "Client assertion failed signature validation. [Reason - The key used is expired.]", Reason::CertificateNotRegistered),
    (401, "invalid_client", 700_024, "Client assertion is not within its valid time range. Current time: 2026-11-21T09:00:00Z", Reason::AssertionRejected),
    (400, "invalid_client", 50027, "JWT token is invalid or malformed.", Reason::AssertionRejected),
    (401, "invalid_client", 50013, "Assertion failed signature validation.", Reason::AssertionRejected),
    (400, "unauthorized_client", 700_016, "Application with identifier '1b2c3d4e' was not found in the directory 'Contoso'.", Reason::ApplicationNotFound),
];

/// No federated credential matches. What this means depends on how long it has been so.
pub const UNMATCHED: [(u16, &str, u32, &str); 4] = [
    (400, "invalid_request", 70021, "No matching federated identity record found for presented assertion."),
    (
        401,
        "invalid_client",
        700_211,
        "No matching federated identity record found for presented assertion issuer.",
    ),
    (
        401,
        "invalid_client",
        700_212,
        "No matching federated identity record found for presented assertion audience.",
    ),
    (
        401,
        "invalid_client",
        700_213,
        "No matching federated identity record found for presented assertion subject.",
    ),
];
