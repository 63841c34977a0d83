//! The route to the simulator's sample mailbox, as the operator would render it. `make try` uses it too.

use std::path::PathBuf;

use mailroute_m365::Simulator;
use mailroute_m365::directory::{SAMPLE_CLIENT_ID, SAMPLE_MAILBOX, SAMPLE_TENANT};
use mailroute_route::RouteFile;
use mailroute_route::file::{
    Authority, Chunking, ClientSubmission, ControlService, Credential, Delivery, DeliveryMode, Endpoint,
    FORMAT_VERSION, Graph, Limits, Listen, LogAddresses, Method, Submission,
};

/// A route that trusts `ca_file` and logs in with the assertion in `token_file`.
pub fn to_simulator(
    m365: &Simulator,
    ca_file: PathBuf,
    token_file: PathBuf,
    control: Option<ControlService>,
) -> RouteFile {
    RouteFile {
        version: FORMAT_VERSION,
        name: "notifications".into(),
        namespace: "shop".into(),
        generation: 1,
        ehlo_name: "notifications.shop.svc.cluster.local".into(),
        method: Method::ClientSubmission(ClientSubmission::new(
            SAMPLE_MAILBOX,
            Credential::WorkloadIdentity { client_id: SAMPLE_CLIENT_ID.into(), token_file },
            Authority {
                host: format!("localhost:{}", m365.login_address().port()),
                tenant: SAMPLE_TENANT.into(),
                scope: "https://outlook.office365.com/.default".into(),
                ca_file: Some(ca_file.clone()),
                proxy: None,
            },
            Endpoint {
                host: "localhost".into(),
                port: m365.smtp_address().port(),
                ca_file: Some(ca_file),
                ca_pem: None,
                chunking: Chunking::Never,
            },
        )),
        delivery: Delivery::new(DeliveryMode::Deliver),
        limits: Limits::new(36_700_160, 500),
        senders: None,
        recipients: None,
        archive: None,
        headers: None,
        listen: Listen::default(),
        secret: None,
        log_addresses: LogAddresses::Full,
        gateway: None,
        control,
    }
}

/// The same mailbox by Microsoft Graph, with client submission as the fallback or without.
#[allow(dead_code, reason = "not every program with this file has a route by Graph")]
pub fn by_graph(m365: &Simulator, route: &mut RouteFile, with_fallback: bool) {
    let Method::ClientSubmission(submission) = &route.method else { return };
    let ClientSubmission { mailbox, credential, authority, endpoint, .. } = submission.clone();
    let fallback = Submission { scope: authority.scope.clone(), endpoint: endpoint.clone() };
    route.method = Method::Graph(Graph {
        mailbox,
        credential,
        authority: Authority { scope: "https://graph.microsoft.com/.default".into(), ..authority },
        endpoint: Endpoint { port: m365.graph_address().port(), ..endpoint },
        max_message_bytes: 3 * 1024 * 1024,
        fallback: with_fallback.then_some(fallback),
    });
}
