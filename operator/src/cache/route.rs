//! A watched MailRoute in memory, and what it amounts to on this platform, which everybody reads.
//!
//! Tens of thousands of routes are in memory, each of them is looked at a few times a minute, and a route and its resolution as values
//! take three times as much as its JSON text. So the text is kept, with a summary of what is asked about all routes at once, and
//! [`CachedRoute::open`] reads and resolves it, in some tens of microseconds. It is resolved by the same settings each time, so all
//! see the same.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::api::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use mailroute_operator_core::crd::status::{QueueStatus, Sidecars};
use mailroute_operator_core::crd::{MailRoute, MailRouteSpec, MailRouteStatus};
use mailroute_operator_core::resolve::{PlatformSettings, RouteResolution, resolve};
use mailroute_operator_core::tenant_quotas::tenant_of;
use mailroute_quota::server::limits::{MailboxLimits, NO_LIMIT};
use mailroute_route::file::{Credential, Method};
use serde::{Deserialize, Serialize};

/// The watched routes.
pub type RouteStore = Store<CachedRoute>;

/// Namespace and name of a route.
pub type RouteRef = ObjectRef<CachedRoute>;

/// A route as it is kept in memory.
#[derive(Clone, Debug)]
pub struct CachedRoute {
    metadata: ObjectMeta,
    content: Content,
    settings: Arc<PlatformSettings>,
    summary: RouteSummary,
}

/// Spec and status.
#[derive(Clone, Debug)]
enum Content {
    /// As JSON, which says all of it.
    Text(Box<[u8]>),
    /// As they are, where JSON would not.
    Values(Box<Values>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Values {
    spec: MailRouteSpec,
    status: Option<MailRouteStatus>,
}

/// What is asked about all routes at once.
#[derive(Clone, Debug, Default)]
pub struct RouteSummary {
    /// Whether it is Ready; none when that is not known.
    pub ready: Option<bool>,
    /// Its sidecars, as the status counts them.
    pub sidecars: Sidecars,
    /// The messages in them.
    pub queue: QueueStatus,
    /// The application whose federated credentials its own pods need, in lower case.
    pub federated_application: Option<Box<str>>,
    /// The tenant whose limit the route's mail counts against, if the route is accepted.
    pub counted_tenant: Option<Box<str>>,
    /// The mailboxes of an accepted route that names limits of them.
    pub shared: Option<Box<SharedMailboxes>>,
}

/// Mailboxes whose limits are leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMailboxes {
    /// Their tenant.
    pub tenant: Box<str>,
    /// Their addresses.
    pub addresses: Box<[Box<str>]>,
    /// The limits that the route names.
    pub limits: MailboxLimits,
    /// Client id of the application whose connections Microsoft limits over all mailboxes.
    pub application: Option<Box<str>>,
}

/// A route and its resolution, to be read.
#[derive(Clone, Debug)]
pub struct OpenRoute {
    route: MailRoute,
    resolution: RouteResolution,
}

impl CachedRoute {
    /// Keeps a route that is resolved with these settings.
    pub fn new(route: MailRoute, settings: &Arc<PlatformSettings>) -> Self {
        let summary = RouteSummary::of(&route, &resolve(&route, settings));
        let MailRoute { metadata, spec, status } = route;
        let content = Content::of(Values { spec, status });
        Self { metadata, content, settings: Arc::clone(settings), summary }
    }

    /// What is asked about all routes at once.
    pub const fn summary(&self) -> &RouteSummary {
        &self.summary
    }

    /// Reads and resolves the route.
    pub fn open(&self) -> OpenRoute {
        let Values { spec, status } = self.content.values();
        let route = MailRoute { metadata: self.metadata.clone(), spec, status };
        OpenRoute { resolution: resolve(&route, &self.settings), route }
    }
}

impl Content {
    fn of(values: Values) -> Self {
        let text = serde_json::to_vec(&values).ok();
        let says_all = |text: &Vec<u8>| serde_json::from_slice(text).is_ok_and(|read: Values| read == values);
        match text.filter(says_all) {
            Some(text) => Self::Text(text.into()),
            None => Self::Values(Box::new(values)),
        }
    }

    fn values(&self) -> Values {
        match self {
            Self::Text(text) => serde_json::from_slice(text).expect("the text was read before it was kept"),
            Self::Values(values) => Values::clone(values),
        }
    }
}

impl RouteSummary {
    fn of(route: &MailRoute, resolution: &RouteResolution) -> Self {
        let status = route.status.as_ref();
        Self {
            ready: match route.readiness() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            },
            sidecars: status.map(|status| status.sidecars).unwrap_or_default(),
            queue: status.map(|status| status.queue).unwrap_or_default(),
            federated_application: federated_application(resolution).map(Into::into),
            counted_tenant: counted_tenant(route, resolution).map(Into::into),
            shared: shared(route, resolution).map(Box::new),
        }
    }
}

fn federated_application(resolution: &RouteResolution) -> Option<String> {
    match &resolution.route.as_ref().ok()?.file.method.log_in()?.credential {
        Credential::WorkloadIdentity { client_id, .. } => Some(client_id.to_ascii_lowercase()),
        _ => None,
    }
}

fn counted_tenant(route: &MailRoute, resolution: &RouteResolution) -> Option<String> {
    tenant_of(&resolution.accepted().ok()?.file, &route.spec.tenant.id)
}

fn shared(route: &MailRoute, resolution: &RouteResolution) -> Option<SharedMailboxes> {
    let resolved = resolution.accepted().ok().filter(|resolved| resolved.file.shares_limits())?;
    let file = &resolved.file;
    let limits = MailboxLimits {
        messages: file.limits.messages_per_minute.unwrap_or(NO_LIMIT),
        messages_per_hour: file.limits.messages_per_hour.unwrap_or(NO_LIMIT),
        recipients: file.limits.recipients_per_day.unwrap_or(NO_LIMIT),
        connections: resolved.connections,
    };
    let application = match &file.method {
        Method::Graph(graph) => graph.credential.client_id().map(Into::into),
        _ => None,
    };
    let addresses = file.method.mailboxes().into_iter().map(Into::into).collect();
    Some(SharedMailboxes { tenant: route.spec.tenant.id.as_str().into(), addresses, limits, application })
}

impl OpenRoute {
    /// Namespace and name.
    pub fn reference(&self) -> RouteRef {
        RouteRef::new(&self.route.name_any()).within(&self.route.namespace().unwrap_or_default())
    }

    /// The tenant whose limit the route's mail counts against, if the route is accepted.
    pub fn counted_tenant(&self) -> Option<String> {
        counted_tenant(&self.route, &self.resolution)
    }

    /// What the route amounts to.
    pub const fn resolution(&self) -> &RouteResolution {
        &self.resolution
    }
}

impl Deref for OpenRoute {
    type Target = MailRoute;

    fn deref(&self) -> &MailRoute {
        &self.route
    }
}

/// To the API server it is the MailRoute.
impl Resource for CachedRoute {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        MailRoute::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        MailRoute::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        MailRoute::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        MailRoute::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use mailroute_operator_core::crd::method::{CredentialType, Subject};
    use mailroute_operator_core::samples;

    use super::*;

    fn cached(route: MailRoute) -> CachedRoute {
        CachedRoute::new(route, &Arc::default())
    }

    #[test]
    fn a_route_that_is_opened_is_the_one_that_was_kept() {
        let all = [
            samples::route(),
            samples::graph(),
            samples::relay(true),
            samples::relay(false),
            samples::direct(),
        ];
        for route in all {
            let kept = cached(route.clone());
            assert!(matches!(kept.content, Content::Text(_)));
            let opened = kept.open();
            assert_eq!(opened.resolution(), &resolve(&route, &PlatformSettings::default()));
            assert_eq!(*opened, route);
        }
    }

    #[test]
    fn who_does_not_ask_entra_as_itself_needs_no_federated_credential() {
        let application = |route| cached(route).summary.federated_application.map(String::from);
        let client_id = Some(samples::CLIENT_ID.to_owned());
        assert_eq!(
            [application(samples::route()), application(samples::graph())],
            [client_id.clone(), client_id]
        );
        let mut lent = samples::route();
        lent.spec.client_submission.as_mut().unwrap().credential.subject = Subject::Operator;
        let secret = samples::with_secret(CredentialType::ClientSecret, Some("key"));
        for route in [lent, secret, samples::relay(true), samples::direct()] {
            assert_eq!(application(route), None);
        }
    }
}
