//! Injection: which pods get the sidecar of which route, and what exactly is added. Pure throughout.
//!
//! ```text
//! pod ─► selection ─► skip (unlabelled, opted out, mirror pod)
//!            │ route
//!            ▼
//!          plan(pod, route, platform) ─► Refusal (a sentence and a remedy)
//!            │ Plan
//!            ▼
//!          patch ─► JSON patch: sidecar or completed gateway, volumes, sysctl, longer grace period, annotation; nothing is taken away
//! ```
//!
//! * [`selection`]: whether and by which route. [`sidecar`], [`volumes`]: what is added. [`mod@plan`], [`grace`]: what of it is missing in this pod.
//! * [`mod@patch`]: the plan as operations. [`refusal`]: every reason against. [`annotations`], [`overrides`]: the keys of ours. [`names`]: every name
//!   that is put into a pod.
//! * [`gateway`]: the container of a gateway, which comes with the pod and is completed.
//! * [`view`]: the pod as JSON. [`workload`]: where the pod is in what makes pods.
//!
//! Refuses to know the API server and the clock.

pub mod annotations;
pub mod gateway;
pub mod grace;
pub mod names;
pub mod overrides;
pub mod patch;
pub mod plan;
mod platform;
mod present;
mod quality;
pub mod refusal;
pub mod selection;
pub mod sidecar;
pub mod view;
pub mod volumes;
pub mod workload;

pub use overrides::Overrides;
pub use patch::{labelling, patch};
pub use plan::{InjectionPlan, plan, refusal_of};
pub use platform::{PullPolicy, SidecarSettings};
pub use refusal::{Refusal, check_kubernetes, injectable};
pub use sidecar::InjectedSidecar;
