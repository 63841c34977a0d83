//! Deleted routes whose pods still run, in memory.

use std::collections::HashSet;
use std::sync::Mutex;

use crate::cache::route::RouteRef;
use crate::lock;

/// Deleted routes that are remembered at most; beyond it some may be logged again.
const REMEMBERED: usize = 4096;

/// Deleted routes whose pods still run, so that each is logged once.
#[derive(Debug, Default)]
pub struct OrphanedRoutes(Mutex<HashSet<RouteRef>>);

impl OrphanedRoutes {
    /// Whether pods run without the route and that was not logged yet. A route that comes back counts as new.
    pub(super) fn is_news(&self, route: &RouteRef, has_pods: bool) -> bool {
        let mut known = lock(&self.0);
        if !has_pods {
            known.remove(route);
            return false;
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(route.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_route_with_pods_is_news_once_until_its_pods_are_gone() {
        let (orphans, route) = (OrphanedRoutes::default(), RouteRef::new("notifications").within("shop"));
        let news = [true, true, false, true].map(|has_pods| orphans.is_news(&route, has_pods));
        assert_eq!(news, [true, false, false, true]);
    }
}
