//! How many messages each route has lost with its pods. The sum is in the route's status. A watched route may lag behind what was
//! written last, and the sum must not fall because of that.

use std::collections::HashMap;
use std::sync::Mutex;

use kube::ResourceExt;
use mailroute_operator_core::crd::MailRoute;

use crate::lock;

/// Routes remembered at most. Of others, the sum in the watched status counts alone.
const REMEMBERED: usize = 4096;

/// The sums written last, by the uid of the route.
#[derive(Debug, Default)]
pub struct LostMessageSums(Mutex<HashMap<String, u64>>);

impl LostMessageSums {
    /// What the route had lost when its status was written last.
    pub fn before(&self, route: &MailRoute) -> u64 {
        let shown = route.status.as_ref().map_or(0, |status| status.queue.lost);
        let written = route.uid().and_then(|uid| lock(&self.0).get(&uid).copied());
        written.unwrap_or(0).max(shown)
    }

    /// The status was written with this sum.
    pub fn written(&self, route: &MailRoute, sum: u64) {
        let Some(uid) = route.uid().filter(|_| sum > 0) else { return };
        let mut known = lock(&self.0);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(uid, sum);
    }
}

#[cfg(test)]
mod tests {
    use mailroute_operator_core::crd::MailRouteStatus;
    use mailroute_operator_core::samples;

    use super::*;

    #[test]
    fn a_sum_does_not_go_back_while_the_watched_route_lags_behind() {
        let (lost, mut route) = (LostMessageSums::default(), samples::route());
        assert_eq!(lost.before(&route), 0);
        lost.written(&route, 3);
        assert_eq!(lost.before(&route), 3);
        let mut status = MailRouteStatus::default();
        status.queue.lost = 7;
        route.status = Some(status);
        assert_eq!(lost.before(&route), 7, "another leader has written it");
    }
}
