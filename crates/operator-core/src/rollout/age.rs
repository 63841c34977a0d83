//! Whether a pod's sidecar is as a new pod would get it. Pure.
//!
//! Compares two fingerprints: that of all that was added to the pod, which the webhook recorded in it, and that of what it would add
//! now with the same annotations (image, resources, probes, volumes). What a sidecar follows by itself (the rendered route, Secrets)
//! is not in them, nor what others change afterwards: a webhook that has images pulled from a mirror does that to a new pod as well.

use std::collections::BTreeMap;

use mailroute_route::identity::Role;

use crate::inject::{InjectedSidecar, Overrides, Refusal, SidecarSettings};
use crate::pods::SidecarPod;
use crate::resolve::{ResolvedRoute, RouteResolution};

/// How a pod's sidecar compares to a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SidecarAge {
    /// The same.
    Current,
    /// Another image, or other settings that only a new pod gets.
    Outdated,
    /// There would be no new one: the pod would be refused.
    Refused(Refusal),
}

/// The ages of pods of a route, in their order. While the route is invalid there is nothing to compare with, and all are current.
pub fn ages(
    resolution: &RouteResolution,
    platform: &SidecarSettings,
    pods: &[SidecarPod],
) -> Vec<SidecarAge> {
    match &resolution.route {
        Ok(route) => {
            let mut wanted = WantedSidecar::new(route, platform);
            pods.iter().map(|pod| wanted.age(pod)).collect()
        }
        Err(_) => vec![SidecarAge::Current; pods.len()],
    }
}

/// The sidecar that new pods of a route get.
#[derive(Debug)]
pub struct WantedSidecar<'a> {
    route: &'a ResolvedRoute,
    platform: &'a SidecarSettings,
    /// For each role and set of overrides in use, of which there are few, the image and the fingerprint.
    known: BTreeMap<(bool, Overrides), (String, String)>,
}

impl<'a> WantedSidecar<'a> {
    /// What is wanted now.
    pub const fn new(route: &'a ResolvedRoute, platform: &'a SidecarSettings) -> Self {
        Self { route, platform, known: BTreeMap::new() }
    }

    /// Compares a pod. One that has lost the record of what was added is judged by its image.
    pub fn age(&mut self, pod: &SidecarPod) -> SidecarAge {
        let annotations = pod.annotations.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let overrides = match Overrides::read(annotations, self.platform) {
            Ok(overrides) => overrides,
            Err(refusal) => return SidecarAge::Refused(refusal),
        };
        let key = (pod.role == Role::Gateway, overrides);
        let (image, hash) = self.known.entry(key).or_insert_with_key(|(_, overrides)| {
            let record = InjectedSidecar::of(pod.role, self.route, self.platform, overrides).record;
            (record.image, record.hash)
        });
        let is_same = match &pod.hash {
            Some(recorded) => recorded == hash,
            None => pod.image.as_ref() == Some(image),
        };
        if is_same { SidecarAge::Current } else { SidecarAge::Outdated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::MailRoute;
    use crate::samples;
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    fn age(pod: &SidecarPod, route: &MailRoute, platform: &SidecarSettings) -> SidecarAge {
        WantedSidecar::new(&samples::resolved(route), platform).age(pod)
    }

    #[test]
    fn a_pod_is_current_until_a_new_one_would_differ() {
        let (route, platform) = (samples::route(), samples::platform());
        let pod = samples::current("web-1");
        assert_eq!(age(&pod, &route, &platform), SidecarAge::Current);
        let newer = SidecarSettings { image: "mailroute.dev/sidecar:0.2.0".into(), ..platform.clone() };
        assert_eq!(age(&pod, &route, &newer), SidecarAge::Outdated);
        let mut larger = route.clone();
        larger.spec.sidecar.resources.limits.memory = Some(Quantity("256Mi".into()));
        assert_eq!(age(&pod, &larger, &platform), SidecarAge::Outdated);
        let mut elsewhere = route;
        elsewhere.spec.client_submission.as_mut().unwrap().mailbox = "other@contoso.com".into();
        elsewhere.metadata.generation = Some(9);
        assert_eq!(
            age(&pod, &elsewhere, &platform),
            SidecarAge::Current,
            "the sidecar takes that up by itself"
        );
    }

    #[test]
    fn a_gateway_is_compared_with_a_new_gateway() {
        let (mut route, platform) = (samples::route(), samples::platform());
        let pod = samples::gateway("mail-gateway-0");
        assert_eq!(age(&pod, &route, &platform), SidecarAge::Current);
        assert_ne!(pod.hash, samples::current("web-1").hash);
        route.spec.sidecar.spool.storage_class_name = Some("fast".into());
        route.spec.sidecar.resources.limits.memory = Some(Quantity("256Mi".into()));
        assert_eq!(age(&pod, &route, &platform), SidecarAge::Current, "its spool and resources are its own");
        let newer = SidecarSettings { image: "mailroute.dev/sidecar:0.2.0".into(), ..platform };
        assert_eq!(age(&pod, &route, &newer), SidecarAge::Outdated);
    }

    #[test]
    fn an_image_that_another_webhook_takes_from_a_mirror_is_current() {
        let mut pod = samples::current("web-1");
        pod.image = Some("mirror.example.com/sidecar:0.1.0".into());
        assert_eq!(age(&pod, &samples::route(), &samples::platform()), SidecarAge::Current);
    }

    #[test]
    fn a_pods_own_choice_is_not_outdated() {
        let (route, platform) = (samples::route(), samples::platform());
        let mut pod = samples::current("web-1");
        pod.annotations.insert("mailroute.dev/sidecar-memory-limit".into(), "256Mi".into());
        assert_eq!(age(&pod, &route, &platform), SidecarAge::Outdated, "it was not injected with it");
        let overrides =
            Overrides::read([("mailroute.dev/sidecar-memory-limit", "256Mi")], &platform).unwrap();
        pod.hash = Some(
            InjectedSidecar::of(Role::Sidecar, &samples::resolved(&route), &platform, &overrides).record.hash,
        );
        assert_eq!(age(&pod, &route, &platform), SidecarAge::Current);
    }

    #[test]
    fn a_pod_that_would_be_refused_now_has_no_successor() {
        let mut pod = samples::current("web-1");
        pod.annotations.insert("mailroute.dev/sidecar-image".into(), "example.com/own:1".into());
        let age = age(&pod, &samples::route(), &samples::platform());
        assert_eq!(age, SidecarAge::Refused(Refusal::ImageNotAllowed));
    }

    #[test]
    fn without_its_record_a_pod_is_judged_by_the_image() {
        let mut pod = samples::current("web-1");
        pod.hash = None;
        assert_eq!(age(&pod, &samples::route(), &samples::platform()), SidecarAge::Current);
        pod.image = None;
        assert_eq!(age(&pod, &samples::route(), &samples::platform()), SidecarAge::Outdated);
    }
}
