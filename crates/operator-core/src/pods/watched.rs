//! What is kept in memory of a pod that carries the label of a route.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::reflector::Lookup;
use mailroute_route::identity::Role;

use super::{
    BarePod, MOST_ADDRESSES, PodOwner, SidecarPod, addresses, has_identity_binding, has_run, owner, prune,
    role, sidecar, without_sidecar,
};
use crate::crd::ROUTE_LABEL;

/// A pod that carries the label of a route: what is asked about it, and no more, since tens of thousands are in memory. What pods of
/// one workload have in common is in memory once, where a [`PodTemplates`] has seen them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedPod {
    template: Arc<PodTemplate>,
    name: Box<str>,
    uid: Box<str>,
    addresses: [Option<IpAddr>; MOST_ADDRESSES],
    created: Option<Timestamp>,
    flags: Flags,
}

/// What is the same for all pods of a workload.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PodTemplate {
    namespace: Box<str>,
    route: Option<Box<str>>,
    service_account: Option<Box<str>>,
    owner: Option<PodOwner>,
    image: Option<String>,
    hash: Option<String>,
    annotations: BTreeMap<String, String>,
    role: Option<Role>,
    has_identity_binding: bool,
    runs_on: bool,
}

/// What changes in the life of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flags {
    has_run: bool,
    /// There is a [`SidecarPod`] to be had.
    has_sidecar: bool,
    /// There is a [`BarePod`] to be had.
    is_bare: bool,
    ready: bool,
    is_pod_ready: bool,
    is_ending: bool,
}

/// Templates of pods in memory, so that equal ones are one.
#[derive(Debug, Default)]
pub struct PodTemplates {
    known: HashSet<Arc<PodTemplate>>,
    /// Above so many, those that no pod has any more are dropped.
    sweep_above: usize,
}

/// Templates below this number are not worth a sweep.
const FEW: usize = 256;

impl PodTemplates {
    /// The pod, sharing its template with others.
    pub fn share(&mut self, mut pod: WatchedPod) -> WatchedPod {
        if let Some(known) = self.known.get(&pod.template) {
            pod.template = Arc::clone(known);
            return pod;
        }
        if self.known.len() >= self.sweep_above.max(FEW) {
            self.known.retain(|template| Arc::strong_count(template) > 1);
            self.sweep_above = 2 * self.known.len();
        }
        self.known.insert(Arc::clone(&pod.template));
        pod
    }
}

impl WatchedPod {
    /// What is kept of a pod.
    pub fn of(mut pod: Pod) -> Self {
        prune(&mut pod);
        let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
        let (sidecar, bare, mut known) = (sidecar(&pod), without_sidecar(&pod), addresses(&pod));
        let flags = Flags {
            has_run: has_run(&pod),
            has_sidecar: sidecar.is_some(),
            is_bare: bare.is_some(),
            ready: sidecar.as_ref().is_some_and(|it| it.ready),
            is_pod_ready: sidecar.as_ref().is_some_and(|it| it.is_pod_ready),
            is_ending: sidecar.as_ref().is_some_and(|it| it.is_ending),
        };
        let runs_on = sidecar.as_ref().is_some_and(|it| it.runs_on);
        let (image, hash, annotations) =
            sidecar.map(|it| (it.image, it.hash, it.annotations)).unwrap_or_default();
        let template = PodTemplate {
            namespace: ResourceExt::namespace(&pod).unwrap_or_default().into(),
            route: pod.labels().get(ROUTE_LABEL).map(|route| route.as_str().into()),
            service_account: account.map(Into::into),
            owner: owner(&pod),
            image,
            hash,
            annotations,
            role: role(&pod),
            has_identity_binding: has_identity_binding(&pod),
            runs_on,
        };
        Self {
            template: Arc::new(template),
            name: pod.name_any().into(),
            uid: ResourceExt::uid(&pod).unwrap_or_default().into(),
            addresses: std::array::from_fn(|_| known.next()),
            created: pod.creation_timestamp().map(|time| time.0),
            flags,
        }
    }

    /// Name of the pod.
    pub const fn name(&self) -> &str {
        &self.name
    }

    /// Namespace of the pod.
    pub fn namespace(&self) -> &str {
        &self.template.namespace
    }

    /// Uid of the pod.
    pub const fn uid(&self) -> &str {
        &self.uid
    }

    /// The route that its label names.
    pub fn route(&self) -> Option<&str> {
        self.template.route.as_deref()
    }

    /// The ServiceAccount that it runs as.
    pub fn service_account(&self) -> &str {
        self.template.service_account.as_deref().unwrap_or("default")
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
        self.flags.has_run
    }

    /// Whether the sidecar shows its ServiceAccount's token to the proxy of an AKS identity binding, and not to Entra.
    pub fn has_identity_binding(&self) -> bool {
        self.template.has_identity_binding
    }

    /// What it does for the route on its label.
    pub fn role(&self) -> Option<Role> {
        self.template.role
    }

    /// What it does for the route on its label, if it has not ended.
    pub fn live_role(&self) -> Option<Role> {
        self.role().filter(|_| self.flags.has_sidecar)
    }

    /// Whether it has not ended and its sidecar accepts mail, or the gateway that it is.
    pub const fn takes_mail(&self) -> bool {
        self.flags.ready
    }

    /// Its sidecar, or the gateway that it is; none if it has none or has ended.
    pub fn sidecar(&self) -> Option<SidecarPod> {
        let PodTemplate { owner, image, hash, annotations, runs_on, .. } = &*self.template;
        Some(SidecarPod {
            role: self.live_role()?,
            name: self.name.to_string(),
            uid: self.uid.to_string(),
            owner: owner.clone(),
            image: image.clone(),
            hash: hash.clone(),
            annotations: annotations.clone(),
            ready: self.flags.ready,
            is_pod_ready: self.flags.is_pod_ready,
            is_ending: self.flags.is_ending,
            runs_on: *runs_on,
            created: self.created,
        })
    }

    /// Itself, if it has not ended and has no sidecar in spite of its label.
    pub fn without_sidecar(&self) -> Option<BarePod> {
        let bare = || BarePod { owner: self.template.owner.clone(), name: self.name.to_string() };
        self.flags.is_bare.then(bare)
    }
}

/// To a watch it is the pod.
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
        Some(Cow::Borrowed(Self::namespace(self)))
    }

    fn resource_version(&self) -> Option<Cow<'_, str>> {
        None
    }

    fn uid(&self) -> Option<Cow<'_, str>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::samples;

    use super::*;

    fn pod(name: &str, image: &str) -> WatchedPod {
        WatchedPod::of(samples::pod(name, image))
    }

    #[test]
    fn pods_of_one_workload_share_what_they_have_in_common() {
        let mut templates = PodTemplates::default();
        let [one, two, other] = [("web-1", "a"), ("web-2", "a"), ("web-3", "b")]
            .map(|(name, image)| templates.share(pod(name, image)));
        assert!(Arc::ptr_eq(&one.template, &two.template) && !Arc::ptr_eq(&one.template, &other.template));
        assert_eq!(two, pod("web-2", "a"));
    }

    #[test]
    fn templates_without_pods_are_dropped() {
        let mut templates = PodTemplates::default();
        let kept = templates.share(pod("web-1", "kept"));
        for number in 0..10 * FEW {
            templates.share(pod("web-1", &number.to_string()));
        }
        assert!(templates.known.len() <= FEW, "{}", templates.known.len());
        assert!(templates.known.contains(&kept.template));
    }
}
