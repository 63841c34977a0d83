//! The container of a gateway: the owner's pod template brings it along with `image: auto`, and the webhook completes it. Pure.
//!
//! What runs, as whom, with which files and which control service is the platform's alone, as in a sidecar. The owner says what a
//! gateway's options say of its SMTP service, mounts the files for that, and may set resources, ports and environment.
//!
//! Invariants: a completed container needs nothing, also after other webhooks have added to it; nothing that the owner wrote is taken
//! away, apart from what stands in for the webhook's own (the image `auto`, its pull policy).

use mailroute_route::paths;
use serde_json::{Value, json};

use super::names::{CONTAINER, GATEWAY_OPTIONS, SPOOL_VOLUME, WITHOUT_AUTH};
use super::overrides::Overrides;
use super::present::{self, mounts_route};
use super::refusal::Refusal;
use super::sidecar::{END_SECONDS, InjectedSidecar};
use super::view::{PodView, items, name_of};

/// What says how long a gateway has to end.
const GRACE: &str = "--grace=";

/// The container as the pod has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct GatewayContainer<'a> {
    container: &'a Value,
    /// Its place among the containers.
    at: usize,
    /// Whether it was completed before.
    pub(super) is_complete: bool,
}

impl<'a> GatewayContainer<'a> {
    /// Finds it: a regular container of our name whose image is `auto`, or which mounts the route.
    ///
    /// # Errors
    /// [`Refusal::TwoRoles`] when another container has the name as well.
    pub(super) fn find(pod: &PodView<'a>) -> Result<Option<Self>, Refusal> {
        let is_auto =
            |container: &Value| container.get("image").and_then(Value::as_str) == Some(paths::AUTO_IMAGE);
        let mut gateways = pod.containers().iter().enumerate().filter(|(_, container)| {
            name_of(container) == Some(CONTAINER) && (is_auto(container) || mounts_route(container))
        });
        let Some((at, container)) = gateways.next() else { return Ok(None) };
        let named = pod.all_containers().filter(|container| name_of(container) == Some(CONTAINER)).count();
        if named > 1 {
            return Err(Refusal::TwoRoles);
        }
        Ok(Some(Self { container, at, is_complete: !is_auto(container) }))
    }

    /// The container as it has to be, and its place; none when it is that already. `seconds` is what the pod has to end.
    ///
    /// # Errors
    /// When the container has something that the webhook does not let it have.
    pub(super) fn completed(
        &self,
        gateway: &InjectedSidecar,
        overrides: &Overrides,
        seconds: i64,
    ) -> Result<Option<(usize, Value)>, Refusal> {
        let arguments = self.arguments(&gateway.container, seconds)?;
        let mut wanted = gateway.container.clone();
        wanted["args"] = arguments.into();
        let container =
            if self.is_complete { self.container.clone() } else { self.filled(&wanted, overrides) };
        match present::difference(&container, &wanted) {
            Some(field) => Err(Refusal::GatewayChanged { field }),
            None => Ok((!self.is_complete).then_some((self.at, container))),
        }
    }

    /// The owner's container with what the webhook adds.
    fn filled(&self, wanted: &Value, overrides: &Overrides) -> Value {
        let mut container = self.container.clone();
        for field in ["image", "args", "terminationMessagePolicy"] {
            container[field] = wanted[field].clone();
        }
        set(&mut container, "imagePullPolicy", wanted.get("imagePullPolicy").cloned());
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            if container[probe].is_null() {
                container[probe] = wanted[probe].clone();
            }
        }
        let own = container["resources"].as_object().filter(|own| !own.is_empty()).cloned();
        let resources =
            own.map_or_else(|| wanted["resources"].clone(), |own| overrides.resources(own.into()));
        container["resources"] = resources;
        let mut context = container["securityContext"].as_object().cloned().unwrap_or_default();
        context.extend(wanted["securityContext"].as_object().cloned().unwrap_or_default());
        container["securityContext"] = context.into();
        container["ports"] = joined(&container, wanted, "ports", is_same_port);
        container["volumeMounts"] = joined(&container, wanted, "volumeMounts", is_same_mount);
        container
    }

    /// Ours, and the owner's behind them.
    fn arguments(&self, wanted: &Value, seconds: i64) -> Result<Vec<Value>, Refusal> {
        let within = seconds.saturating_sub(END_SECONDS);
        let given = items(self.container.get("args"));
        let ours = items(wanted.get("args")).iter().map(|argument| match argument.as_str() {
            Some(text) if text.starts_with(GRACE) => json!(format!("{GRACE}{within}")),
            _ => argument.clone(),
        });
        let mut ours: Vec<_> = ours.collect();
        let mut own = given;
        if self.is_complete {
            let (before, behind) =
                given.split_at_checked(ours.len()).ok_or(Refusal::GatewayChanged { field: "args" })?;
            // Somebody may have given the pod more time since.
            for (present, wanted) in before.iter().zip(&mut ours) {
                if grace(wanted).zip(grace(present)).is_some_and(|(most, given)| (1..=most).contains(&given))
                {
                    *wanted = present.clone();
                }
            }
            own = behind;
        }
        let refused = |argument: &&Value| !argument.as_str().is_some_and(|text| is_allowed(text, &ours));
        if let Some(argument) = own.iter().find(refused) {
            let argument = argument.as_str().map_or_else(|| argument.to_string(), str::to_owned);
            return Err(Refusal::GatewayArgument { argument });
        }
        Ok(ours.iter().chain(own).cloned().collect())
    }
}

fn grace(argument: &Value) -> Option<i64> {
    argument.as_str()?.strip_prefix(GRACE)?.parse().ok()
}

/// Whether the owner may set it. Twice the same would keep the program from starting.
fn is_allowed(argument: &str, ours: &[Value]) -> bool {
    let Some((name, _)) = argument.split_once('=') else { return argument == WITHOUT_AUTH };
    let is_set =
        ours.iter().filter_map(Value::as_str).any(|set| set.split_once('=').is_some_and(|it| it.0 == name));
    GATEWAY_OPTIONS.contains(&name) && !is_set
}

fn set(container: &mut Value, field: &str, value: Option<Value>) {
    let Some(fields) = container.as_object_mut() else { return };
    match value {
        Some(value) => drop(fields.insert(field.to_owned(), value)),
        None => drop(fields.remove(field)),
    }
}

/// The list of the container, and of ours what it lacks.
fn joined(container: &Value, wanted: &Value, list: &str, is_same: fn(&Value, &Value) -> bool) -> Value {
    let present = items(container.get(list));
    let is_missing = |wanted: &&Value| !present.iter().any(|present| is_same(present, wanted));
    present.iter().chain(items(wanted.get(list)).iter().filter(is_missing)).cloned().collect()
}

fn is_same_port(one: &Value, other: &Value) -> bool {
    let key = |port: &Value| {
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_owned();
        (port.get("containerPort").and_then(Value::as_u64), protocol)
    };
    key(one) == key(other)
}

fn is_same_mount(one: &Value, other: &Value) -> bool {
    ["name", "mountPath"].iter().all(|field| one.get(field) == other.get(field))
}

/// A gateway's messages outlive its pod, so they are on a volume claim, which a StatefulSet makes for each pod by its template.
///
/// # Errors
/// [`Refusal::GatewaySpool`].
pub(super) fn check_claim(pod: &PodView<'_>) -> Result<(), Refusal> {
    let spool = pod.volumes().iter().find(|volume| name_of(volume) == Some(SPOOL_VOLUME));
    let is_claim =
        spool.is_some_and(|volume| volume.get("persistentVolumeClaim").is_some_and(Value::is_object));
    if is_claim { Ok(()) } else { Err(Refusal::GatewaySpool) }
}
