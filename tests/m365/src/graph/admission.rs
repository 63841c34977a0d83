//! Who asks, for which mailbox, and whether it is too much: everything that the head of a request decides.
//!
//! Pure. The order: path, token, permission, mailbox, limits of requests.

use jiff::Timestamp;

use crate::{
    config::ConcurrencyPer, entra::token::TokenError, faults::GraphAnswer, limits::Counter,
    mailbox::TokenClaims, office::Office, violations::Kind,
};

/// The head of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    /// Number of the connection.
    pub connection: u64,
    /// Method and path, without query.
    pub method: String,
    pub path: String,
    /// The header `Authorization`; holds a token.
    pub authorization: Authorization,
    /// The header `Content-Type`.
    pub content_type: String,
    /// The header `client-request-id`.
    pub client_request_id: Option<String>,
    /// Whether the body has no length.
    pub chunked: bool,
}

/// A header that is not shown.
#[derive(Clone, Default)]
pub(super) struct Authorization(pub String);

impl std::fmt::Debug for Authorization {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Authorization")
    }
}

/// A request that may go on.
#[derive(Clone, Debug)]
pub(super) struct Admitted {
    /// Primary address of the mailbox.
    pub mailbox: String,
    /// What the token said.
    pub token: TokenClaims,
    /// By whom requests under way are counted; it has a place among them.
    pub place: String,
}

impl Admitted {
    /// By whom requests and bytes are counted.
    pub fn counted_by(&self) -> String {
        format!("{} {}", self.token.client_id, self.mailbox)
    }
}

impl Head {
    /// The mailbox as the path names it, decoded; `None` when it is another path.
    pub fn mailbox(&self) -> Option<String> {
        let segment = self.path.strip_prefix("/v1.0/users/")?.strip_suffix("/sendMail")?;
        let mailbox = percent_decoded(segment)?;
        (!segment.contains('/') && !mailbox.is_empty()).then_some(mailbox)
    }
}

/// Whether the request may go on. With `Ok`, it has a place among those under way: give it up with
/// [`Usage::end_request`](crate::limits::Usage::end_request).
///
/// # Errors
/// The refusal.
pub(super) fn admit(office: &mut Office, head: &Head, now: Timestamp) -> Result<Admitted, GraphAnswer> {
    let Some(named) = head.mailbox().filter(|_| head.method == "POST") else {
        let detail = format!("{} {} is not what mail is sent with", head.method, head.path);
        office.violation(now, head.connection, Kind::Protocol, detail);
        let status = if head.mailbox().is_some() { 405 } else { 404 };
        return Err(GraphAnswer::new(status).code("ResourceNotFound"));
    };
    let token = authenticate(office, head, &named, now)?;
    let tenant = office.config.directory.tenant(&token.tenant);
    let Some(mailbox) = tenant.and_then(|tenant| tenant.mailbox(&named)) else {
        let text = format!("The requested user '{named}' is invalid.");
        return Err(GraphAnswer::new(404).code("ErrorInvalidUser").message(&text));
    };
    if mailbox.inactive {
        return Err(GraphAnswer::new(404).code("MailboxNotEnabledForRESTAPI"));
    }
    let mailbox = mailbox.address.clone();
    let graph = &office.config.graph;
    let place = match graph.concurrency_per {
        ConcurrencyPer::Application => token.client_id.clone(),
        ConcurrencyPer::ApplicationAndMailbox => format!("{} {mailbox}", token.client_id),
    };
    let (most, seconds) = (graph.concurrency, graph.retry_after_seconds);
    let requests = (graph.requests, graph.requests_milliseconds);
    let admitted = Admitted { mailbox, token, place };
    // A request that is refused for its number counts as well.
    let counted = (Counter::GraphRequests, admitted.counted_by());
    if office.usage.spend((counted.0, &counted.1), 1, requests, now).is_err() {
        let detail = format!("more than {} requests in {} ms", requests.0, requests.1);
        office.violation(now, head.connection, Kind::RequestRate, detail);
        return Err(throttled("Application is over its request limit.", seconds));
    }
    if !office.usage.begin_request(&admitted.place, most) {
        let detail = format!("more than {most} requests at once");
        office.violation(now, head.connection, Kind::ConcurrentRequests, detail);
        return Err(throttled("Application is over its MailboxConcurrency limit.", seconds));
    }
    Ok(admitted)
}

/// 429.
pub(super) fn throttled(text: &str, seconds: u64) -> GraphAnswer {
    GraphAnswer::new(429).code("ApplicationThrottled").message(text).retry_after(seconds)
}

/// Whose token it is, and whether it may send as the mailbox: by the permission `Mail.Send` as every one, or by the scope of
/// the role `Application Mail.Send`.
fn authenticate(
    office: &mut Office,
    head: &Head,
    mailbox: &str,
    now: Timestamp,
) -> Result<TokenClaims, GraphAnswer> {
    let invalid = |text: &str| GraphAnswer::new(401).code("InvalidAuthenticationToken").message(text);
    let token = head.authorization.0.strip_prefix("Bearer ").map(str::trim).unwrap_or_default();
    if token.is_empty() {
        return Err(invalid("Access token is empty."));
    }
    let claims = match office.token_key.verify(token, &office.config.graph.resource, now) {
        Ok(claims) => claims,
        Err(error @ TokenError::Expired { .. }) => {
            office.violation(now, head.connection, Kind::ExpiredToken, error.to_string());
            return Err(invalid("Lifetime validation failed, the token is expired."));
        }
        Err(TokenError::Foreign | TokenError::Audience) => {
            return Err(invalid("The access token is invalid."));
        }
    };
    let app =
        office.config.directory.tenant(&claims.tid).and_then(|tenant| tenant.application(&claims.appid));
    let Some(app) = app.filter(|app| !app.disabled) else {
        return Err(invalid("The access token is invalid."));
    };
    if !claims.roles.iter().any(|role| role == "Mail.Send") && !app.may_send_by_graph(mailbox) {
        return Err(GraphAnswer::new(403).code("ErrorAccessDenied"));
    }
    Ok(claims.into())
}

/// The text behind `%XX`; `None` when that is malformed.
fn percent_decoded(segment: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), segment.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        directory::SAMPLE_SUBJECT,
        entra::{AccessTokenKey, Resource},
    };

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn office() -> Office {
        Office::new(Config::contoso(), AccessTokenKey::generate(), vec!["localhost".into()])
    }

    fn head(office: &Office, path: &str, resource: Resource, seconds: i64) -> Head {
        let token = office.sample_token(resource, SAMPLE_SUBJECT, now(), seconds);
        Head {
            method: "POST".into(),
            path: path.into(),
            authorization: Authorization(format!("Bearer {token}")),
            ..Head::default()
        }
    }

    const PATH: &str = "/v1.0/users/noreply%40contoso.com/sendMail";

    fn refusal(office: &mut Office, head: &Head) -> (u16, String, String) {
        let answer = admit(office, head, now()).unwrap_err();
        (answer.status, answer.code.unwrap(), answer.message.unwrap_or_default())
    }

    #[test]
    fn a_mailbox_is_named_by_its_primary_address_with_or_without_escapes() {
        let mut office = office();
        for path in [PATH, "/v1.0/users/NoReply@contoso.com/sendMail"] {
            let head = head(&office, path, Resource::Graph, 60);
            assert_eq!(admit(&mut office, &head, now()).unwrap().mailbox, "noreply@contoso.com");
        }
        for path in [
            "/v1.0/users/noreply@contoso.com/sendmail",
            "/v1.0/users/a/b/sendMail",
            "/v1.0/users//sendMail",
            "/v1.0/users/%4/sendMail",
            "/beta/users/noreply@contoso.com/sendMail",
        ] {
            let head = head(&office, path, Resource::Graph, 60);
            assert_eq!(refusal(&mut office, &head).0, 404, "{path}");
        }
        assert_eq!(office.violations.len(), 5);
    }

    #[test]
    fn a_token_must_be_there_in_time_and_for_graph() {
        let mut office = office();
        let mut none = head(&office, PATH, Resource::Graph, 60);
        none.authorization = Authorization::default();
        let expired = head(&office, PATH, Resource::Graph, 0);
        let other = head(&office, PATH, Resource::Submission, 60);
        let mut text = |head: &Head| {
            let (status, code, text) = refusal(&mut office, head);
            assert_eq!((status, code.as_str()), (401, "InvalidAuthenticationToken"));
            text
        };
        assert_eq!(text(&none), "Access token is empty.");
        assert_eq!(text(&expired), "Lifetime validation failed, the token is expired.");
        assert_eq!(text(&other), "The access token is invalid.");
    }

    #[test]
    fn the_role_is_for_its_scope_and_the_permission_for_every_mailbox() {
        let mut office = office();
        office.config.directory.tenants[0].applications[0].graph_scope.clear();
        let without = head(&office, PATH, Resource::Graph, 60);
        assert_eq!(refusal(&mut office, &without).1, "ErrorAccessDenied");
        office.config.directory.tenants[0].applications[0].graph_mail_send = true;
        assert_eq!(refusal(&mut office, &without).1, "ErrorAccessDenied", "the token is an old one");
        let with = head(&office, PATH, Resource::Graph, 60);
        assert!(admit(&mut office, &with, now()).is_ok());
        let alias = head(&office, "/v1.0/users/no-reply@contoso.com/sendMail", Resource::Graph, 60);
        let (status, code, text) = refusal(&mut office, &alias);
        assert_eq!((status, code.as_str()), (404, "ErrorInvalidUser"));
        assert_eq!(text, "The requested user 'no-reply@contoso.com' is invalid.");
        office.config.directory.tenants[0].mailboxes[0].inactive = true;
        assert_eq!(refusal(&mut office, &with).1, "MailboxNotEnabledForRESTAPI");
    }

    #[test]
    fn four_requests_are_under_way_at_once() {
        let mut office = office();
        let head = head(&office, PATH, Resource::Graph, 60);
        let places: Vec<_> = (0..4).map(|_| admit(&mut office, &head, now()).unwrap().place).collect();
        let refused = admit(&mut office, &head, now()).unwrap_err();
        assert_eq!((refused.status, refused.retry_after), (429, Some(10)));
        office.usage.end_request(&places[0]);
        assert!(admit(&mut office, &head, now()).is_ok());
        let kinds: Vec<_> = office.violations.iter().map(|violation| violation.kind).collect();
        assert_eq!(kinds, [Kind::ConcurrentRequests]);
        assert_eq!(office.statistics().requests_at_once[&places[0]], 5);
    }

    #[test]
    fn requests_in_ten_minutes_are_counted_for_each_mailbox() {
        let mut office = office();
        office.config.graph.requests = 1;
        let head = head(&office, PATH, Resource::Graph, 60);
        assert!(admit(&mut office, &head, now()).is_ok());
        assert_eq!(refusal(&mut office, &head).0, 429);
    }
}
