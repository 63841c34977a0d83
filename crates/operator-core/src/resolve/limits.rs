//! Limits: what the route says, and over what it leaves out what Microsoft allows by its method and service. Pure.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mailroute_route::file::{self, SubmissionService};

use super::invalid::Invalid;
use super::validate::size;
use crate::crd::MailRouteSpec;
use crate::crd::delivery::Limits;
use crate::crd::method::{Graph, GraphFallback, Method};

/// Connections of one sidecar by a method with a mailbox. Exchange takes few of a mailbox at a time, whose sidecars do not
/// know of each other.
const CONNECTIONS_PER_MAILBOX_SIDECAR: u32 = 1;

/// What Microsoft allows where the route does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitPreset {
    /// Messages of the mailbox in a minute; none where there is no such limit.
    pub messages_per_minute: Option<u32>,
    /// Messages of the mailbox in an hour.
    pub messages_per_hour: Option<u32>,
    /// Recipients of the mailbox in 24 hours.
    pub recipients_per_day: Option<u32>,
    /// Connections at once.
    pub connections: u32,
    /// Largest message, bytes.
    pub max_message_bytes: u64,
    /// Most recipients of one message.
    pub max_recipients: u32,
}

/// A mailbox of Exchange Online that nobody set otherwise. Source: Microsoft Learn, "Exchange Online limits".
const EXCHANGE: LimitPreset = LimitPreset {
    messages_per_minute: Some(30),
    messages_per_hour: None,
    recipients_per_day: Some(10_000),
    connections: 3,
    max_message_bytes: 35 * 1024 * 1024,
    max_recipients: 500,
};

/// Requests at once of Graph. Source: Microsoft Graph, "Throttling limits": four for one application and mailbox.
const GRAPH: LimitPreset = LimitPreset { connections: 4, ..EXCHANGE };

/// An account of High Volume Email. Source: Microsoft Learn, "Manage high volume emails for Microsoft 365".
const HIGH_VOLUME: LimitPreset = LimitPreset {
    messages_per_minute: None,
    messages_per_hour: None,
    recipients_per_day: None,
    connections: 3,
    max_message_bytes: 10_000_000,
    max_recipients: 50,
};

/// A subscription that sends from a domain of its own. Source: Microsoft Learn, "Service limits for Azure Communication
/// Services".
const COMMUNICATION_SERVICES: LimitPreset =
    LimitPreset { messages_per_minute: Some(30), messages_per_hour: Some(100), ..HIGH_VOLUME };

/// No mailbox, but the sizes of Exchange Online.
const PORT_25: LimitPreset = LimitPreset { messages_per_minute: None, recipients_per_day: None, ..EXCHANGE };

impl LimitPreset {
    /// What is allowed by a method, and by client submission to one of its services.
    pub const fn of(method: Method, service: SubmissionService) -> Self {
        match (method, service) {
            (Method::ClientSubmission, SubmissionService::ExchangeOnline) => EXCHANGE,
            (Method::ClientSubmission, SubmissionService::HighVolumeEmail) => HIGH_VOLUME,
            (Method::ClientSubmission, SubmissionService::CommunicationServices) => COMMUNICATION_SERVICES,
            (Method::Graph, _) => GRAPH,
            (Method::SmtpRelay | Method::DirectSend, _) => PORT_25,
        }
    }

    fn of_route(spec: &MailRouteSpec) -> Self {
        let service = spec.client_submission.as_ref().map(|submission| submission.service);
        Self::of(spec.method, service.unwrap_or_default())
    }
}

/// The limits that sidecars of the route keep. Only a mailbox has limits of its own; connections of the other methods are
/// each sidecar's.
pub(super) fn limits(spec: &MailRouteSpec) -> Result<file::Limits, Invalid> {
    let (preset, Limits { messages_per_minute, messages_per_hour, recipients_per_day, .. }) =
        (LimitPreset::of_route(spec), &spec.limits);
    let max_recipients = spec.limits.max_recipients.unwrap_or(preset.max_recipients);
    let bare = file::Limits::new(max_message_bytes(spec, preset)?, max_recipients);
    Ok(match spec.method {
        Method::ClientSubmission | Method::Graph => file::Limits {
            messages_per_minute: messages_per_minute.or(preset.messages_per_minute),
            messages_per_hour: messages_per_hour.or(preset.messages_per_hour),
            recipients_per_day: recipients_per_day.or(preset.recipients_per_day),
            connections: CONNECTIONS_PER_MAILBOX_SIDECAR,
            ..bare
        },
        Method::SmtpRelay | Method::DirectSend => {
            file::Limits { connections: connections(spec).max(1), ..bare }
        }
    })
}

/// Connections, or requests of Graph, at once: of the mailbox, whose sidecars share them; by the other methods of each
/// sidecar.
pub(super) fn connections(spec: &MailRouteSpec) -> u32 {
    spec.limits.connections.unwrap_or(LimitPreset::of_route(spec).connections)
}

fn max_message_bytes(spec: &MailRouteSpec, preset: LimitPreset) -> Result<u64, Invalid> {
    let said = |quantity: &Quantity| size("limits.maxMessageBytes", quantity);
    let bytes = spec.limits.max_message_bytes.as_ref().map_or(Ok(preset.max_message_bytes), said)?;
    match &spec.graph {
        Some(graph) if graph.fallback == GraphFallback::None => Ok(bytes.min(largest_by_graph(graph)?)),
        _ => Ok(bytes),
    }
}

/// Bytes of the largest message that is sent by Graph.
pub(super) fn largest_by_graph(graph: &Graph) -> Result<u64, Invalid> {
    size("graph.maxMessageBytes", &graph.max_message_bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::crd::MailRoute;
    use crate::samples;

    fn resolved(route: &MailRoute) -> file::Limits {
        samples::resolved(route).file.limits
    }

    /// Minute, hour, day.
    fn windows(route: &MailRoute) -> [Option<u32>; 3] {
        let limits = resolved(route);
        [limits.messages_per_minute, limits.messages_per_hour, limits.recipients_per_day]
    }

    #[test]
    fn each_service_has_limits_of_its_own_until_the_route_says_otherwise() {
        use SubmissionService::{CommunicationServices, HighVolumeEmail};
        let table = [
            (samples::route(), [Some(30), None, Some(10_000)], 35 << 20, 500),
            (samples::graph(), [Some(30), None, Some(10_000)], 3 << 20, 500),
            (samples::submitted_to(HighVolumeEmail), [None; 3], 10_000_000, 50),
            (samples::submitted_to(CommunicationServices), [Some(30), Some(100), None], 10_000_000, 50),
            (samples::relay(true), [None; 3], 35 << 20, 500),
            (samples::direct(), [None; 3], 35 << 20, 500),
        ];
        for (mut route, expected, bytes, recipients) in table {
            let limits = resolved(&route);
            assert_eq!(windows(&route), expected, "{:?}", route.spec);
            assert_eq!((limits.max_message_bytes, limits.max_recipients), (bytes, recipients));
            route.spec.limits = serde_json::from_value(json!({
                "messagesPerMinute": 7, "messagesPerHour": 8, "recipientsPerDay": 9, "maxRecipients": 6,
                "maxMessageBytes": "1Mi",
            }))
            .unwrap();
            let said = if route.spec.mailbox().is_some() { [Some(7), Some(8), Some(9)] } else { [None; 3] };
            assert_eq!(windows(&route), said);
            let limits = resolved(&route);
            assert_eq!((limits.max_message_bytes, limits.max_recipients), (1 << 20, 6));
        }
    }

    #[test]
    fn connections_are_the_mailboxs_or_each_sidecars() {
        for (route, own, shared) in [
            (samples::route(), 1, 3),
            (samples::graph(), 1, 4),
            (samples::relay(true), 3, 3),
            (samples::direct(), 3, 3),
        ] {
            assert_eq!((resolved(&route).connections, connections(&route.spec)), (own, shared));
        }
    }

    #[test]
    fn graph_announces_what_its_fallback_takes() {
        let mut route = samples::graph();
        route.spec.graph.as_mut().unwrap().max_message_bytes = Quantity("2Mi".into());
        assert_eq!(resolved(&route).max_message_bytes, 2 << 20);
        route.spec.limits.max_message_bytes = Some(Quantity("1Mi".into()));
        assert_eq!(resolved(&route).max_message_bytes, 1 << 20);
        route.spec.limits.max_message_bytes = Some(Quantity("20Mi".into()));
        assert_eq!(resolved(&route).max_message_bytes, 2 << 20, "stored under an older schema");
        route.spec.graph.as_mut().unwrap().fallback = GraphFallback::ClientSubmission;
        assert_eq!(resolved(&route).max_message_bytes, 20 << 20);
        route.spec.limits.max_message_bytes = None;
        assert_eq!(resolved(&route).max_message_bytes, 35 << 20);
    }

    #[test]
    fn the_largest_message_is_a_size_or_a_number_of_bytes() {
        for (written, bytes) in
            [(json!(36_700_160), 36_700_160), (json!("35Mi"), 36_700_160), (json!("1k"), 1000)]
        {
            let mut route = samples::route();
            route.spec.limits = serde_json::from_value(json!({"maxMessageBytes": written})).unwrap();
            assert_eq!(resolved(&route).max_message_bytes, bytes);
        }
    }
}
