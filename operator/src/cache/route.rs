//! A watched MailRoute, and beside it what it amounts to on this platform: resolved once, when it came or changed, and read by all.

use std::borrow::Cow;
use std::ops::Deref;

use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::ObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::resolve::{PlatformSettings, RouteResolution, resolve};
use mailroute_operator_core::tenant_quotas::tenant_of;

/// The watched routes.
pub type RouteStore = Store<CachedRoute>;

/// Namespace and name of a route.
pub type RouteRef = ObjectRef<CachedRoute>;

/// A route as it is stored in the cluster, with its resolution.
#[derive(Clone, Debug)]
pub struct CachedRoute {
    route: MailRoute,
    resolution: RouteResolution,
}

impl CachedRoute {
    /// Resolves the route.
    pub fn new(route: MailRoute, settings: &PlatformSettings) -> Self {
        Self::of(resolve(&route, settings), route)
    }

    /// A route that was resolved like this.
    pub const fn of(resolution: RouteResolution, route: MailRoute) -> Self {
        Self { route, resolution }
    }

    /// The tenant whose limit the route's mail counts against, if the route is accepted.
    pub fn counted_tenant(&self) -> Option<String> {
        let resolved = self.resolution.accepted().ok()?;
        tenant_of(&resolved.file, &self.route.spec.tenant.id)
    }

    /// What the route amounts to.
    pub const fn resolution(&self) -> &RouteResolution {
        &self.resolution
    }
}

impl Deref for CachedRoute {
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
        self.route.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.route.meta_mut()
    }
}
