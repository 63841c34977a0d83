//! What is kept of MailRoutes in memory: how much of each, and how many. Pure.
//!
//! Whoever may write routes in one namespace decides how large and how many they are, and every replica keeps all of them.
//! What nobody here looks at is left out; a route that is too large, or one too many in its namespace, counts as one that
//! cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use kube::api::ObjectMeta;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use mailroute_operator_core::crd::MailRoute;

/// Most MailRoutes of one namespace.
pub const MOST_ROUTES: usize = 256;

/// Largest spec of a MailRoute, and largest status, as JSON, bytes. The largest that the schema is meant for have a third.
pub const MOST_BYTES: usize = 64 * 1024;

/// Longest text about why a route cannot be read, bytes: it quotes the route.
const MOST_ERROR: usize = 1024;

/// Takes out of a route all that nobody here looks at. One whose spec is still too large becomes one that cannot be read; a status
/// that is too large is left out, as others than the author write it too.
pub fn prune(mut route: DeserializeGuard<MailRoute>) -> DeserializeGuard<MailRoute> {
    match &mut route.0 {
        Ok(read) => {
            prune_metadata(&mut read.metadata);
            read.status.take_if(|status| size(status) > MOST_BYTES);
            let bytes = size(&read.spec);
            if bytes > MOST_BYTES {
                let error = format!("it has {bytes} bytes, and at most {MOST_BYTES} are read");
                route.0 = Err(InvalidObject { error, metadata: std::mem::take(&mut read.metadata) });
            }
        }
        Err(object) => {
            prune_metadata(&mut object.metadata);
            object.error.truncate(object.error.floor_char_boundary(MOST_ERROR));
        }
    }
    route
}

fn prune_metadata(metadata: &mut ObjectMeta) {
    *metadata = ObjectMeta {
        name: metadata.name.take(),
        namespace: metadata.namespace.take(),
        uid: metadata.uid.take(),
        resource_version: metadata.resource_version.take(),
        generation: metadata.generation,
        creation_timestamp: metadata.creation_timestamp.take(),
        deletion_timestamp: metadata.deletion_timestamp.take(),
        ..ObjectMeta::default()
    };
}

/// Bytes of a value as JSON.
fn size(value: &impl serde::Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0 += octets.len();
            Ok(octets.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be written cannot have been read, so it is too large.
    serde_json::to_writer(&mut count, value).map_or(usize::MAX, |()| count.0)
}

/// The names of the routes that are kept, by namespace.
#[derive(Debug, Default)]
pub struct RoutesByNamespace(BTreeMap<String, BTreeSet<String>>);

impl RoutesByNamespace {
    /// The event, in which a route that is one too many in its namespace cannot be read.
    pub fn bounded(
        &mut self,
        event: Event<DeserializeGuard<MailRoute>>,
    ) -> Event<DeserializeGuard<MailRoute>> {
        match event {
            Event::Init => self.0.clear(),
            Event::InitApply(route) => return Event::InitApply(self.admit(route)),
            Event::Apply(route) => return Event::Apply(self.admit(route)),
            Event::Delete(ref route) => self.leave(route.meta()),
            Event::InitDone => {}
        }
        event
    }

    fn admit(&mut self, route: DeserializeGuard<MailRoute>) -> DeserializeGuard<MailRoute> {
        let Ok(read) = &route.0 else {
            self.leave(route.meta());
            return route;
        };
        let names = self.0.entry(read.namespace().unwrap_or_default()).or_default();
        if names.len() < MOST_ROUTES || names.contains(&read.name_any()) {
            names.insert(read.name_any());
            return route;
        }
        let error = format!("its namespace has more than {MOST_ROUTES} MailRoutes");
        DeserializeGuard(Err(InvalidObject { error, metadata: read.metadata.clone() }))
    }

    fn leave(&mut self, metadata: &ObjectMeta) {
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let Some(names) = self.0.get_mut(namespace) else { return };
        names.remove(metadata.name.as_deref().unwrap_or_default());
        if names.is_empty() {
            self.0.remove(namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use mailroute_operator_core::crd::MailRouteStatus;
    use mailroute_operator_core::crd::status::RefusedPod;
    use mailroute_operator_core::samples;
    use serde_json::json;

    use super::*;

    fn guarded(route: &MailRoute) -> DeserializeGuard<MailRoute> {
        serde_json::from_value(serde_json::to_value(route).unwrap()).unwrap()
    }

    fn named(name: &str) -> DeserializeGuard<MailRoute> {
        let mut route = samples::route();
        route.metadata.name = Some(name.into());
        guarded(&route)
    }

    /// A route with as many annotations as an API server takes, and the rest of what authors can fill.
    fn laden() -> MailRoute {
        let mut stored = serde_json::to_value(samples::route()).unwrap();
        let metadata = stored["metadata"].as_object_mut().unwrap();
        let filled = "x".repeat(250 * 1024);
        metadata.insert("resourceVersion".into(), json!("7"));
        metadata.insert("creationTimestamp".into(), json!("2026-11-01T00:00:00Z"));
        metadata.insert(
            "annotations".into(),
            json!({"kubectl.kubernetes.io/last-applied-configuration": filled, "mailroute.dev/note": filled}),
        );
        metadata.insert("labels".into(), json!({"team": "shop"}));
        metadata.insert("finalizers".into(), json!(["example.com/hold"]));
        metadata.insert(
            "managedFields".into(),
            json!([{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {}}}]),
        );
        serde_json::from_value(stored).unwrap()
    }

    #[test]
    fn of_a_route_with_annotations_of_250_kib_nothing_is_stored_but_what_is_read() {
        let mut guard = guarded(&laden());
        guard = prune(guard);
        let stored = guard.0.unwrap();
        assert_eq!(stored.spec, laden().spec);
        let expected = json!({
            "name": "notifications", "namespace": "shop", "uid": "route-uid", "generation": 3,
            "resourceVersion": "7", "creationTimestamp": "2026-11-01T00:00:00Z",
        });
        assert_eq!(serde_json::to_value(&stored.metadata).unwrap(), expected);
        assert!(size(&stored) < 4096, "{}", size(&stored));
    }

    #[test]
    fn a_route_that_is_too_large_counts_as_unreadable_and_says_so() {
        let mut route = laden();
        route.spec.tenant.accepted_domains = vec!["contoso.com".repeat(1000); 10];
        let mut guard = guarded(&route);
        guard = prune(guard);
        let object = guard.0.unwrap_err();
        assert!(object.error.contains("at most 65536 are read"), "{}", object.error);
        assert_eq!(
            (object.metadata.annotations, object.metadata.name.as_deref()),
            (None, Some("notifications"))
        );
    }

    #[test]
    fn a_status_that_is_too_large_makes_no_route_unreadable() {
        let mut route = laden();
        let refused = RefusedPod {
            pod: "x".repeat(MOST_BYTES),
            reason: "Windows".into(),
            message: String::new(),
            at: Time(Timestamp::UNIX_EPOCH),
            observed_generation: None,
        };
        route.status = Some(MailRouteStatus { refused: Some(refused), ..Default::default() });
        let mut guard = guarded(&route);
        guard = prune(guard);
        let stored = guard.0.unwrap();
        assert_eq!((stored.spec, stored.status), (route.spec, None));
    }

    #[test]
    fn what_is_said_of_an_unreadable_route_is_bounded() {
        let mut stored = serde_json::to_value(laden()).unwrap();
        stored["spec"]["method"] = json!("ä".repeat(100_000));
        let mut guard: DeserializeGuard<MailRoute> = serde_json::from_value(stored).unwrap();
        guard = prune(guard);
        let object = guard.0.unwrap_err();
        assert!(object.error.len() <= MOST_ERROR && object.metadata.annotations.is_none());
    }

    #[test]
    fn one_route_too_many_in_a_namespace_is_not_read_and_others_are() {
        let mut kept = RoutesByNamespace::default();
        let is_read = |event| match event {
            Event::Apply(DeserializeGuard(route)) | Event::InitApply(DeserializeGuard(route)) => {
                route.is_ok()
            }
            _ => panic!("{event:?}"),
        };
        for number in 0..MOST_ROUTES {
            assert!(is_read(kept.bounded(Event::InitApply(named(&format!("route-{number}"))))));
        }
        assert!(!is_read(kept.bounded(Event::Apply(named("one-more")))));
        assert!(is_read(kept.bounded(Event::Apply(named("route-7")))), "it is there already");
        let mut elsewhere = samples::route();
        elsewhere.metadata.namespace = Some("billing".into());
        assert!(is_read(kept.bounded(Event::Apply(guarded(&elsewhere)))));
        kept.bounded(Event::Delete(named("route-7")));
        assert!(is_read(kept.bounded(Event::Apply(named("one-more")))));
        kept.bounded(Event::Init);
        assert!(kept.0.is_empty());
    }
}
