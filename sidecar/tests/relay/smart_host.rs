//! The smart host by MX record: found, kept for its time, and never another's.

use mailroute_m365::dns::Transport;
use mailroute_m365::dns::zone::Kind;
use mailroute_m365::faults::{DnsAction, DnsFaults};
use mailroute_m365::{Faults, Options, Rule, SmtpAction, SmtpFaults, Stage};
use mailroute_route::condition::Reason;
use mailroute_route::file::{Chunking, DirectSend, HostName, Method, SmartHost, TlsMode};
use mailroute_sidecar::smtp::reply::Reply;

use crate::client::message;
use crate::scene::{PATIENCE, Scene, submission};

const CONTOSO: &str = "contoso-com.mail.protection.outlook.com";

/// Direct Send to the MX of contoso.com, whose name servers are in this trouble.
async fn scene(trouble: Vec<Rule<Kind, DnsAction>>, options: impl FnOnce(&mut Options)) -> Scene {
    Scene::with(options, |m365, route| {
        m365.set_faults(Faults { dns: DnsFaults { rules: trouble }, ..<_>::default() });
        let smart_host = SmartHost {
            host: HostName::MxOf("contoso.com".into()),
            port: m365.relay_address().port(),
            tls: TlsMode::Required,
            ca_file: submission(route).endpoint.ca_file.clone(),
            chunking: Chunking::Never,
        };
        let accepted_domains = vec!["contoso.com".into()];
        route.method = Method::DirectSend(DirectSend { accepted_domains, smart_host });
    })
    .await
}

async fn send(scene: &Scene, subject: &str) -> Reply {
    scene.client().await.send("noreply@contoso.com", &["alice@contoso.com"], &message(subject)).await
}

fn questions(scene: &Scene, kind: Kind) -> usize {
    scene.m365.lookups().iter().filter(|asked| asked.kind == kind).count()
}

/// The connection in use ends with its next message, and name servers are in this trouble.
fn reconnect(scene: &Scene, dns: DnsFaults) {
    let rules = vec![Rule::times(Stage::EndOfData, SmtpAction::CutAfterReply, 1)];
    let relay = SmtpFaults { rules, ..<_>::default() };
    scene.m365.set_faults(Faults { relay, dns, ..<_>::default() });
}

#[tokio::test]
async fn mail_goes_to_the_name_in_the_mx_record_verified_by_it() {
    let scene = scene(vec![], |_| {}).await;
    assert_eq!(send(&scene, "found").await.code, 250);
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].connection.sni.as_deref(), Some(CONTOSO));
    scene.assert_careful();
}

#[tokio::test]
async fn a_name_of_the_new_kind_is_found_as_well() {
    let name = "contoso-com.o-v1.mx.microsoft";
    let scene = scene(vec![], |options| {
        let tenant = &mut options.config.directory.tenants[0];
        tenant.mx_hosts.insert("contoso.com".into(), name.into());
    })
    .await;
    assert_eq!(send(&scene, "new").await.code, 250);
    let arrived = scene.m365.wait_for_messages(1, PATIENCE).await;
    assert_eq!(arrived[0].connection.sni.as_deref(), Some(name));
    scene.assert_careful();
}

#[tokio::test]
async fn records_that_lead_elsewhere_or_nowhere_are_told_and_no_mail_follows_them() {
    let cases = [
        (DnsAction::ForeignMx("mx.example.net".into()), Reason::SmartHostForeign, "mx.example.net"),
        (DnsAction::NullMx, Reason::SmartHostNotFound, "takes no mail"),
        (DnsAction::NoData, Reason::SmartHostNotFound, "has no MX record"),
        (DnsAction::NxDomain, Reason::SmartHostNotFound, "has no MX record"),
        (DnsAction::ServFail, Reason::NameNotResolved, "SERVFAIL"),
    ];
    for (action, reason, part) in cases {
        let scene = scene(vec![Rule::always(Kind::Mx, action)], |_| {}).await;
        let told = scene.told(reason).await;
        assert!(!told.holds && told.message.contains(part), "{told:?}");
        let reply = send(&scene, "nowhere").await;
        assert_eq!((reply.code, reply.text().starts_with(&format!("{reason}: "))), (451, true), "{reply}");
        assert_eq!(scene.m365.statistics().tally.connections, 0, "{reason}");
    }
}

#[tokio::test]
async fn a_record_that_is_put_right_is_used_without_a_restart() {
    let foreign = DnsAction::ForeignMx("mx.example.net".into());
    let scene = scene(vec![Rule::always(Kind::Mx, foreign)], |_| {}).await;
    scene.told(Reason::SmartHostForeign).await;
    scene.m365.set_faults(Faults::default());
    scene.told(Reason::Connected).await;
    assert_eq!(send(&scene, "right").await.code, 250);
}

#[tokio::test]
async fn a_record_is_asked_for_once_in_its_time_to_live() {
    let scene = scene(vec![], |_| {}).await;
    for n in 0..4 {
        reconnect(&scene, DnsFaults::default());
        assert_eq!(send(&scene, &format!("again{n}")).await.code, 250);
    }
    assert_eq!(questions(&scene, Kind::Mx), 1);
    assert!(questions(&scene, Kind::A) >= 4, "the address is looked up for each connection");
}

#[tokio::test]
async fn what_was_found_is_used_while_name_servers_fail() {
    let scene = scene(vec![], |options| options.config.dns.ttl_seconds = 0).await;
    reconnect(&scene, DnsFaults::default());
    assert_eq!(send(&scene, "before").await.code, 250);
    reconnect(&scene, DnsFaults { rules: vec![Rule::always(Kind::Mx, DnsAction::ServFail)] });
    assert_eq!(send(&scene, "meanwhile").await.code, 250);
    assert!(questions(&scene, Kind::Mx) >= 2, "it was asked for again");
    assert_eq!(scene.m365.messages().len(), 2);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_had_over_tcp() {
    let scene = scene(vec![Rule::always(Kind::Mx, DnsAction::Truncate)], |_| {}).await;
    assert_eq!(send(&scene, "large").await.code, 250);
    assert!(scene.m365.lookups().iter().any(|asked| asked.transport == Transport::Tcp));
}
