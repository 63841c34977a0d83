//! The time that a pod has to end, when messages may wait in its sidecar. Pure.
//!
//! The kubelet stops a native sidecar after the application's containers have ended, with what they left of the pod's
//! `terminationGracePeriodSeconds`. An application that uses up its period leaves nothing, so the pod is given the
//! sidecar's share on top of whatever period it has, long or short or 0. In a gateway's pod the whole period is the gateway's own, so
//! that it only has to be as long as the share.
//!
//! Invariants: a period never gets shorter; a second pass does not raise it again, for which the record of the first has
//! what it was raised to.

use mailroute_route::identity::Role;

use super::annotations::InjectionRecord;
use super::sidecar::InjectedSidecar;
use super::view::PodView;

/// What Kubernetes gives a pod that does not say.
const DEFAULT_SECONDS: i64 = 30;

/// What becomes of the grace period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Grace {
    /// The period that the pod will have.
    pub(super) seconds: i64,
    /// The period to set, when it differs from the pod's.
    pub(super) raised: Option<i64>,
    /// The period to record, when it is one that was raised.
    pub(super) recorded: Option<i64>,
}

pub(super) fn grace_period(
    pod: &PodView<'_>,
    sidecar: &InjectedSidecar,
    recorded: Option<&InjectionRecord>,
    is_injected: bool,
) -> Grace {
    let current = pod.grace_period().unwrap_or(DEFAULT_SECONDS);
    let before = recorded.and_then(|record| record.termination_grace_period_seconds);
    let wanted = match before {
        _ if sidecar.drain_seconds == 0 => return Grace { seconds: current, ..Grace::default() },
        Some(raised) => raised,
        // Somebody took the record away and left the sidecar: it was raised before.
        None if is_injected => current,
        None if sidecar.role == Role::Gateway => current.max(sidecar.drain_seconds),
        // The API server takes a negative period for 1.
        None => current.max(0).saturating_add(sidecar.drain_seconds),
    };
    let seconds = wanted.max(current);
    Grace { seconds, raised: (wanted > current).then_some(wanted), recorded: Some(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::MailRoute;
    use crate::inject::{InjectedSidecar, Overrides, SidecarSettings};
    use serde_json::json;

    fn sidecar(mode: &str) -> InjectedSidecar {
        let mut route: MailRoute =
            serde_saphyr::from_str(include_str!("../../tests/inject/route.yaml")).unwrap();
        route.spec.delivery.mode = serde_json::from_value(json!(mode)).unwrap();
        let platform =
            SidecarSettings { image: "mailroute.dev/sidecar:0.1.0".into(), ..SidecarSettings::default() };
        InjectedSidecar::of(
            Role::Sidecar,
            &crate::samples::resolved(&route),
            &platform,
            &Overrides::default(),
        )
    }

    fn raised(mode: &str, period: Option<i64>, recorded: Option<i64>, is_injected: bool) -> Option<i64> {
        let mut pod = json!({"metadata": {}, "spec": {}});
        if let Some(period) = period {
            pod["spec"]["terminationGracePeriodSeconds"] = json!(period);
        }
        let sidecar = sidecar(mode);
        let record = recorded.map(|seconds| InjectionRecord {
            termination_grace_period_seconds: Some(seconds),
            ..sidecar.record.clone()
        });
        grace_period(&PodView::new(&pod).unwrap(), &sidecar, record.as_ref(), is_injected).raised
    }

    #[test]
    fn the_share_of_the_sidecar_comes_on_top_of_any_period() {
        for (period, expected) in [
            (None, 90),
            (Some(30), 90),
            (Some(0), 60),
            (Some(-1), 60),
            (Some(600), 660),
            (Some(i64::MAX - 1), i64::MAX),
        ] {
            assert_eq!(raised("DeliverOrQueue", period, None, false), Some(expected), "{period:?}");
            assert_eq!(raised("Queue", period, None, false), Some(expected), "{period:?}");
        }
    }

    #[test]
    fn a_mode_that_keeps_nothing_leaves_the_period_alone() {
        assert_eq!(raised("Deliver", Some(30), None, false), None);
        assert_eq!(raised("Deliver", None, Some(90), true), None);
    }

    #[test]
    fn a_period_is_raised_once_and_never_lowered() {
        assert_eq!(raised("Queue", Some(90), Some(90), true), None, "a second pass");
        assert_eq!(raised("Queue", Some(120), Some(90), true), None, "somebody raised it further");
        assert_eq!(raised("Queue", Some(30), Some(90), true), Some(90), "somebody lowered it");
        assert_eq!(raised("Queue", Some(90), Some(90), false), None, "the sidecar was taken away");
        assert_eq!(raised("Queue", Some(90), None, true), None, "the record was taken away");
    }
}
