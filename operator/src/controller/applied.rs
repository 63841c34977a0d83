//! The ConfigMaps that were written lately, so that not every look at a route asks the API server for its ConfigMap. What somebody
//! else changes is found and corrected within two minutes.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ConfigMap;
use ring::digest::SHA256;

use crate::cache::route::RouteRef;
use crate::lock;

/// How long a ConfigMap is taken to be unchanged.
const CHECK_AFTER: Duration = Duration::from_secs(120);

/// The ConfigMaps that are known to be right, each by its digest.
#[derive(Debug, Default)]
pub struct AppliedConfigMaps(Mutex<HashMap<RouteRef, (Digest, Instant)>>);

type Digest = [u8; 32];

impl AppliedConfigMaps {
    /// Whether exactly this was found or written recently.
    pub fn is_recent(&self, route: &RouteRef, wanted: &ConfigMap, now: Instant) -> bool {
        let applied = lock(&self.0);
        let wanted = digest(wanted);
        applied
            .get(route)
            .is_some_and(|(known, at)| *known == wanted && now.duration_since(*at) < CHECK_AFTER)
    }

    /// This was found or written.
    pub fn put(&self, route: RouteRef, written: &ConfigMap, now: Instant) {
        lock(&self.0).insert(route, (digest(written), now));
    }

    /// Forgets a route.
    pub fn forget(&self, route: &RouteRef) {
        lock(&self.0).remove(route);
    }
}

fn digest(config_map: &ConfigMap) -> Digest {
    // What cannot be written has the digest of nothing, and is not applied either.
    let text = serde_json::to_vec(config_map).unwrap_or_default();
    let mut digest = Digest::default();
    digest.copy_from_slice(ring::digest::digest(&SHA256, &text).as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_map(name: &str) -> ConfigMap {
        let mut config_map = ConfigMap::default();
        config_map.metadata.name = Some(name.into());
        config_map
    }

    #[test]
    fn only_the_same_content_of_a_short_while_ago_need_not_be_looked_at() {
        let (applied, start) = (AppliedConfigMaps::default(), Instant::now());
        let route = RouteRef::new("a").within("shop");
        assert!(!applied.is_recent(&route, &config_map("one"), start));
        applied.put(route.clone(), &config_map("one"), start);
        assert!(applied.is_recent(&route, &config_map("one"), start + Duration::from_secs(119)));
        assert!(!applied.is_recent(&route, &config_map("two"), start));
        assert!(!applied.is_recent(&route, &config_map("one"), start + CHECK_AFTER));
        applied.forget(&route);
        assert!(!applied.is_recent(&route, &config_map("one"), start));
    }
}
