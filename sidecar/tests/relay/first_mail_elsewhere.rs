//! The way in by Graph, High Volume Email and Communication Services: what their pages under `docs/methods/` say is shown while
//! something is missing, row by row.

use std::collections::BTreeSet;

use mailroute_m365::Simulator;
use mailroute_route::RouteFile;
use mailroute_route::condition::Reason;

use crate::graph::graph;
use crate::route::by_graph;
use crate::scene::Scene;
use crate::services::{bulk, services};

const PAGES: [&str; 3] = [
    include_str!("../../../docs/methods/graph.md"),
    include_str!("../../../docs/methods/high-volume-email.md"),
    include_str!("../../../docs/methods/communication-services.md"),
];

/// One test for each row: its name, the first and the last cell of the row, the way, and what is missing.
macro_rules! missing {
    ($($name:ident: $row:literal, $reason:ident, $way:expr, $change:expr;)*) => {
        const COVERED: &[(&str, Reason)] = &[$(($row, Reason::$reason),)*];

        $(#[tokio::test]
        async fn $name() {
            shows(Reason::$reason, $way, $change).await;
        })*
    };
}

missing! {
    the_permission_of_graph: "the permission `Mail.Send`, or the consent to it", GraphAccessDenied, only_graph, |m365, _| {
        m365.directory(|directory| directory.tenants[0].applications[0].graph_scope.clear());
    };
    the_role: "by RBAC, the role, or the mailbox in its scope", GraphAccessDenied, only_graph, |m365, _| {
        m365.directory(|directory| {
            directory.tenants[0].applications[0].graph_scope = vec!["another@contoso.com".into()];
        });
    };
    a_mailbox: "a mailbox with that address", MailboxNotFound, only_graph, |m365, route| {
        m365.directory(|directory| directory.tenants[0].applications[0].graph_mail_send = true);
        graph(route).mailbox = "nobody@contoso.com".into();
    };
    a_mailbox_in_exchange_online: "a mailbox in Exchange Online (it is on-premises, deleted, or some hours old)",
        MailboxNotEnabled, only_graph, |m365, _| {
            m365.directory(|directory| directory.tenants[0].mailboxes[0].inactive = true);
        };
    the_scope: "the scope of Graph, where `tenant.authority.scope` is set", GraphRejectedToken, only_graph, |_, route| {
        graph(route).authority.scope = "https://outlook.office365.com/.default".into();
    };
    dns: "DNS for Graph's host", NameNotResolved, only_graph, |_, route| {
        graph(route).endpoint.host = "graph.invalid".into();
    };
    a_connection: "a connection to port 443", ConnectFailed, only_graph, |_, route| {
        graph(route).endpoint.port = CLOSED_PORT;
    };
    graphs_own_certificate: "Graph's own certificate (a proxy inspects TLS)", TlsFailed, only_graph, |_, route| {
        graph(route).endpoint.ca_file = None;
    };
    the_permission_of_high_volume_email:
        "the permission `Mail.Send` of Office 365 Exchange Online, or the consent to it", ApiPermissionMissing, bulk, |m365, _| {
            m365.directory(|directory| directory.tenants[0].applications[0].exchange_mail_send = false);
        };
    the_list_of_the_account: "the application on the account's list", ApplicationNotAllowed, bulk, |m365, _| {
        m365.directory(|directory| {
            directory.tenants[0].high_volume_email_accounts[0].applications.clear();
        });
    };
    the_smtp_username: "the SMTP username for this application, or the Azure role on the resource",
        SmtpUsernameRejected, services, |_, route| {
            crate::scene::submission(route).username = Some("somebody-else".into());
        };
}

fn only_graph(m365: &Simulator, route: &mut RouteFile) {
    by_graph(m365, route, false);
}

#[test]
fn every_row_of_the_pages_is_covered_by_a_test() {
    let covered: BTreeSet<_> = COVERED
        .iter()
        .map(|(row, reason)| format!("| {row} | `{}` False | `{reason}` |", reason.condition()))
        .collect();
    let is_row =
        |line: &&str| line.starts_with("| ") && line.ends_with("` |") && line.contains("` False | `");
    let rows = PAGES.iter().flat_map(|page| page.lines().filter(is_row)).map(str::to_owned);
    assert_eq!(
        rows.collect::<BTreeSet<_>>(),
        covered,
        "pages of docs/methods and the tests of this file differ"
    );
}

/// Starts a sidecar by this way in front of what is wrong, and waits until the operator is told.
async fn shows(
    reason: Reason,
    way: impl FnOnce(&Simulator, &mut RouteFile),
    change: impl FnOnce(&Simulator, &mut RouteFile),
) {
    let wrong = |m365: &Simulator, route: &mut RouteFile| {
        way(m365, route);
        change(m365, route);
    };
    let scene = Scene::with(|_| {}, wrong).await;
    let told = scene.told(reason).await;
    assert_eq!((told.condition, told.holds), (reason.condition(), false), "{told:?}");
    assert!(scene.m365.messages().is_empty());
}

/// A port that nobody listens on: discard (RFC 863). Whatever was free a moment ago may be another test's by now.
const CLOSED_PORT: u16 = 9;
