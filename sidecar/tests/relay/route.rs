//! The route to the simulator's sample mailbox, as the operator would render it. `make try` uses it too.

use std::path::PathBuf;

use mailroute_m365::Simulator;
use mailroute_m365::directory::{SAMPLE_CLIENT_ID, SAMPLE_MAILBOX, SAMPLE_TENANT};
use mailroute_route::RouteFile;
use mailroute_route::file::{
    Authority, ClientSubmission, ControlService, Credential, Delivery, DeliveryMode, Endpoint,
    FORMAT_VERSION, Limits, Listen, LogAddresses, Method,
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
            },
        )),
        delivery: Delivery::new(DeliveryMode::Deliver),
        limits: Limits::new(36_700_160, 500),
        senders: None,
        listen: Listen::default(),
        secret: None,
        log_addresses: LogAddresses::Full,
        control,
    }
}
