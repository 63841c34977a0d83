//! The AADSTS codes that are built, each with its HTTP status, OAuth error and text as they are seen.
//!
//! Codes that a request cannot draw are here for faults (`{"aadsts": code}`): trouble inside Entra, Conditional Access,
//! throttling.

/// Code, HTTP status, OAuth error and the sentence with its blanks.
pub(super) struct Known(pub u32, pub u16, pub &'static str, pub &'static str);

pub(super) const FEDERATION_HINT: &str =
    "https://learn.microsoft.com/entra/workload-id/workload-identity-federation";

/// Statuses of 700211 to 700213 are not documented; 401 was seen for their predecessor since 2023.
pub(super) const CODES: &[Known] = &[
    Known(
        50_001,
        400,
        "invalid_resource",
        "The resource principal named {resource} was not found in the tenant named {tenant}.",
    ),
    Known(50_013, 401, "invalid_client", "Assertion failed signature validation. [Reason - {reason}]"),
    Known(50_027, 400, "invalid_client", "JWT token is invalid or malformed.{reason}"),
    Known(
        50_196,
        429,
        "temporarily_unavailable",
        "The server terminated an operation because it encountered a client request loop. Please contact your app vendor.",
    ),
    Known(
        53_003,
        400,
        "invalid_grant",
        "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance.",
    ),
    Known(
        70_001,
        400,
        "unauthorized_client",
        "Application with identifier '{client}' was not found in the directory {tenant}.",
    ),
    Known(70_003, 400, "unsupported_grant_type", "The app requested an unsupported grant type '{grant}'."),
    Known(
        70_011,
        400,
        "invalid_scope",
        "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope {scope} is not valid.",
    ),
    Known(
        70_021,
        401,
        "invalid_client",
        "No matching federated identity record found for presented assertion. {hint}",
    ),
    Known(
        90_002,
        400,
        "invalid_request",
        "Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant.",
    ),
    Known(90_006, 503, "temporarily_unavailable", "External server retryable error. Please try again."),
    Known(90_012, 503, "temporarily_unavailable", "Timeout when connecting to the service."),
    Known(90_024, 503, "temporarily_unavailable", "A transient error has occurred. Please try again."),
    Known(90_033, 503, "temporarily_unavailable", "A transient error has occurred. Please try again."),
    Known(
        90_038,
        400,
        "invalid_request",
        "Tenant '{tenant}' request is being redirected to the National Cloud 'MicrosoftOnline.us'.",
    ),
    Known(
        90_055,
        429,
        "temporarily_unavailable",
        "The server is terminating the request because it has received too many requests.",
    ),
    Known(90_061, 400, "invalid_request", "Request to External OIDC endpoint failed. {reason}"),
    Known(90_090, 503, "temporarily_unavailable", "Failed to obtain the dependent token."),
    Known(
        500_011,
        400,
        "invalid_resource",
        "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant.",
    ),
    Known(
        500_133,
        400,
        "invalid_grant",
        "Assertion is not within its valid time range. Ensure that the access token is not expired before using it for user assertion, or request a new token.",
    ),
    Known(530_032, 400, "invalid_grant", "User blocked due to risk on home tenant."),
    Known(
        530_035,
        400,
        "invalid_grant",
        "Access has been blocked by security defaults. This is done as a preventive measure by Microsoft.",
    ),
    Known(
        650_052,
        400,
        "unauthorized_client",
        "The app is trying to access a service '{resource}' that your organization '{tenant}' lacks a service principal for. Contact your IT Admin to review the configuration of your service subscriptions or consent to the application in order to create the required service principal.",
    ),
    Known(
        650_057,
        400,
        "invalid_resource",
        "Invalid resource. The client has requested access to a resource which is not listed in the requested permissions in the client's application registration. Client app ID: {client}.",
    ),
    Known(
        700_011,
        400,
        "unauthorized_client",
        "Application with identifier '{client}' was not found in the directory '{tenant}'.",
    ),
    Known(
        700_016,
        400,
        "unauthorized_client",
        "Application with identifier '{client}' was not found in the directory '{tenant}'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant.",
    ),
    Known(
        700_021,
        401,
        "invalid_client",
        "Client assertion application identifier doesn't match 'client_id' parameter. Review the documentation at https://docs.microsoft.com/azure/active-directory/develop/active-directory-certificate-credentials .",
    ),
    Known(
        700_023,
        401,
        "invalid_client",
        "Client assertion audience claim does not match Realm issuer. Review the documentation at https://docs.microsoft.com/azure/active-directory/develop/active-directory-certificate-credentials .",
    ),
    Known(
        700_024,
        401,
        "invalid_client",
        "Client assertion is not within its valid time range. Current time: {now}, assertion valid from {start}, expiry time of assertion {end}. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials .",
    ),
    Known(
        700_025,
        401,
        "invalid_client",
        "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.",
    ),
    Known(
        700_027,
        401,
        "invalid_client",
        "{sentence} [Reason - {reason}, Thumbprint of key used by client: '{thumbprint}', {found}Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see configured keys for app Id '{client}'. Review the documentation at https://docs.microsoft.com/en-us/graph/deployments to determine the corresponding service endpoint and https://docs.microsoft.com/en-us/graph/api/application-get?view=graph-rest-1.0&tabs=http to build a query request URL, such as 'https://graph.microsoft.com/beta/applications/{client}']",
    ),
    Known(
        700_211,
        401,
        "invalid_client",
        "No matching federated identity record found for presented assertion issuer '{issuer}'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. {hint}",
    ),
    Known(
        700_212,
        401,
        "invalid_client",
        "No matching federated identity record found for presented assertion audience '{audience}'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. {hint}",
    ),
    Known(
        700_213,
        401,
        "invalid_client",
        "No matching federated identity record found for presented assertion subject '{subject}'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. {hint}",
    ),
    Known(
        900_023,
        400,
        "invalid_request",
        "Specified tenant identifier '{tenant}' is neither a valid DNS name, nor a valid external domain.",
    ),
    Known(
        900_144,
        400,
        "invalid_request",
        "The request body must contain the following parameter: '{parameter}'.",
    ),
    Known(
        1_000_502,
        401,
        "invalid_client",
        "The provided certificate is not within its specified validity period.",
    ),
    Known(
        1_002_012,
        400,
        "invalid_scope",
        "The provided value for scope {scope} is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI).",
    ),
    Known(7_000_112, 400, "unauthorized_client", "Application '{client}'({name}) is disabled."),
    Known(
        7_000_215,
        401,
        "invalid_client",
        "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{client}'.",
    ),
    Known(
        7_000_218,
        401,
        "invalid_client",
        "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
    ),
    Known(
        7_000_222,
        401,
        "invalid_client",
        "The provided client secret keys for app '{client}' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds.",
    ),
    Known(
        7_002_138,
        401,
        "invalid_client",
        "No matching federated identity record found for presented assertion subject '{subject}'. The subject matches case-insensitively, but not case-sensitively. {hint}",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_stand_once() {
        for pair in CODES.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} before {}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn trouble_of_the_service_is_told_by_its_status() {
        for Known(code, status, error, _) in CODES {
            assert_eq!(matches!(status, 429 | 503), *error == "temporarily_unavailable", "{code}");
        }
    }
}
