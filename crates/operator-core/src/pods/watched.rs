//! What is kept in memory of a pod that carries the label of a route.

use std::borrow::Cow;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::{Lookup, ObjectRef};
use mailroute_route::identity::Role;

use super::{
    BarePod, MOST_ADDRESSES, SidecarPod, addresses, has_identity_binding, has_run, prune, role, sidecar,
    without_sidecar,
};
use crate::crd::ROUTE_LABEL;

/// A pod that carries the label of a route: what is asked about it, and no more, since tens of thousands are in memory. A pruned
/// [`Pod`] takes five times as much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedPod {
    name: Box<str>,
    namespace: Box<str>,
    uid: Box<str>,
    route: Option<Box<str>>,
    service_account: Option<Box<str>>,
    addresses: [Option<IpAddr>; MOST_ADDRESSES],
    created: Option<Timestamp>,
    has_run: bool,
    has_identity_binding: bool,
    role: Option<Role>,
    sidecar: Option<Box<SidecarPod>>,
    bare: Option<Box<BarePod>>,
}

impl WatchedPod {
    /// What is kept of a pod.
    pub fn of(mut pod: Pod) -> Self {
        prune(&mut pod);
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
        let mut known = addresses(&pod);
        Self {
            name: pod.name_any().into(),
            namespace: ResourceExt::namespace(&pod).unwrap_or_default().into(),
            uid: ResourceExt::uid(&pod).unwrap_or_default().into(),
            route: pod.labels().get(ROUTE_LABEL).map(|route| route.as_str().into()),
            service_account: account.map(Into::into),
            addresses: std::array::from_fn(|_| known.next()),
            created: pod.creation_timestamp().map(|time| time.0),
            has_run: has_run(&pod),
            has_identity_binding: has_identity_binding(&pod),
            role: role(&pod),
            sidecar: sidecar(&pod).map(Box::new),
            bare: without_sidecar(&pod).map(Box::new),
        }
    }

    /// Namespace of the pod.
    pub const fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Uid of the pod.
    pub const fn uid(&self) -> &str {
        &self.uid
    }

    /// The route that its label names.
    pub fn route(&self) -> Option<&str> {
        self.route.as_deref()
    }

    /// The ServiceAccount that it runs as.
    pub fn service_account(&self) -> &str {
        self.service_account.as_deref().unwrap_or("default")
    }

    /// Its addresses, one of each family.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().flatten().copied()
    }

    /// When it was created.
    pub const fn created(&self) -> Option<Timestamp> {
        self.created
    }

    /// Whether all of its containers have ended for good.
    pub const fn has_run(&self) -> bool {
        self.has_run
    }

    /// Whether the sidecar shows its ServiceAccount's token to the proxy of an AKS identity binding, and not to Entra.
    pub const fn has_identity_binding(&self) -> bool {
        self.has_identity_binding
    }

    /// What it does for the route on its label.
    pub const fn role(&self) -> Option<Role> {
        self.role
    }

    /// Its sidecar, or the gateway that it is; none if it has none or has ended.
    pub fn sidecar(&self) -> Option<&SidecarPod> {
        self.sidecar.as_deref()
    }

    /// Itself, if it has not ended and has no sidecar in spite of its label.
    pub fn without_sidecar(&self) -> Option<&BarePod> {
        self.bare.as_deref()
    }
}

/// To a store it is the pod.
impl Lookup for WatchedPod {
    type DynamicType = ();

    fn kind((): &()) -> Cow<'_, str> {
        <Pod as Lookup>::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        <Pod as Lookup>::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        <Pod as Lookup>::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        <Pod as Lookup>::plural(&())
    }

    fn name(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.name))
    }

    fn namespace(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.namespace))
    }

    fn resource_version(&self) -> Option<Cow<'_, str>> {
        None
    }

    fn uid(&self) -> Option<Cow<'_, str>> {
        None
    }
}

/// Where a store has a pod.
pub fn pod_ref(namespace: &str, name: &str) -> ObjectRef<WatchedPod> {
    ObjectRef::new(name).within(namespace)
}
