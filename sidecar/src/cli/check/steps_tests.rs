use mailroute_route::file::{
    Authority, CertificateFiles, Chunking, ClientSubmission, Delivery, DeliveryMode, DirectSend, Endpoint,
    FORMAT_VERSION, Graph, Limits, Listen, LogAddresses, SmtpRelay, TlsMode,
};

use super::*;
use crate::message::envelope::{Address, BodyType, QueueId, ReversePath};
use crate::smtp::reply::Reply;

fn route(method: Method) -> RouteFile {
    RouteFile {
        version: FORMAT_VERSION,
        name: "notifications".into(),
        namespace: "shop".into(),
        generation: 3,
        ehlo_name: "notifications.shop.svc.cluster.local".into(),
        method,
        delivery: Delivery::new(DeliveryMode::Deliver),
        limits: Limits::new(1000, 10),
        senders: None,
        recipients: None,
        archive: None,
        headers: None,
        listen: Listen::default(),
        secret: None,
        log_addresses: LogAddresses::Full,
        gateway: None,
        control: None,
    }
}

fn submission_with(credential: Credential) -> RouteFile {
    route(Method::ClientSubmission(ClientSubmission::new(
        "noreply@contoso.com",
        credential,
        Authority {
            host: "login.microsoftonline.com".into(),
            tenant: "contoso.com".into(),
            scope: "https://outlook.office365.com/.default".into(),
            ca_file: None,
            proxy: None,
        },
        Endpoint::new("smtp.office365.com", 587),
    )))
}

fn files() -> CertificateFiles {
    CertificateFiles { certificate_file: "/c/tls.crt".into(), key_file: "/c/tls.key".into() }
}

fn by_secret() -> RouteFile {
    submission_with(Credential::ClientSecret { client_id: "1b2c".into(), secret_file: "/c/secret".into() })
}

fn by_relay() -> RouteFile {
    route(Method::SmtpRelay(SmtpRelay {
        certificate: Some(files()),
        accepted_domains: vec!["contoso.com".into()],
        smart_host: smart_host_of("contoso.com"),
    }))
}

fn smart_host_of(domain: &str) -> SmartHost {
    SmartHost {
        host: HostName::MxOf(domain.into()),
        port: 25,
        tls: TlsMode::Required,
        ca_file: None,
        chunking: Chunking::default(),
    }
}

fn envelope() -> Envelope {
    let address = || Address::parse("noreply@contoso.com").unwrap();
    Envelope {
        id: QueueId::new(Timestamp::UNIX_EPOCH, 0),
        message_id: String::new(),
        client_name: String::new(),
        reverse_path: ReversePath::Address(address()),
        recipients: vec![address()],
        body: BodyType::SevenBit,
        smtp_utf8: false,
        size: None,
        archive: None,
        mailbox: None,
    }
}

fn met(reasons: &[Reason]) -> Vec<Observation> {
    reasons.iter().map(|&reason| Observation::new(reason, format!("met {reason}"))).collect()
}

fn fault(reason: Reason) -> Verdict {
    Verdict::without_reply(DeliveryOutcome::RouteFault(reason), "the upstream's words")
}

/// The states, one letter each.
fn states(route: &RouteFile, dry_run: &DryRun) -> String {
    let findings = Findings::of(route, &envelope(), dry_run);
    assert_eq!(findings.is_well(), dry_run.stopped.is_none());
    let letter = |step: &Step| match step.state {
        State::Ok => 'o',
        State::Warning => 'w',
        State::Failed => 'F',
        State::NotReached => '-',
    };
    findings.steps.iter().map(letter).collect()
}

fn stopped(reasons: &[Reason], answers: &[Stage], verdict: Verdict) -> DryRun {
    let answers = answers.iter().map(|&stage| (stage, "250 ok".to_owned())).collect();
    DryRun { observations: met(reasons), answers, stopped: Some(verdict) }
}

fn by_graph() -> RouteFile {
    let Method::ClientSubmission(submission) = by_secret().method else { panic!("client submission") };
    let ClientSubmission { mailbox, credential, authority, .. } = submission;
    let (endpoint, max_message_bytes) = (Endpoint::new("graph.microsoft.com", 443), 3 << 20);
    route(Method::Graph(Graph {
        mailbox,
        credential,
        authority,
        endpoint,
        max_message_bytes,
        fallback: None,
    }))
}

use Reason::{Connected, LoggedIn, TokenAcquired};

#[test]
fn the_way_to_graph_ends_with_what_the_application_may_do() {
    let open = DryRun { observations: met(&[TokenAcquired, Connected, LoggedIn]), ..DryRun::default() };
    assert_eq!(states(&by_graph(), &open), "oooooo");
    let denied = stopped(&[TokenAcquired, Connected], &[], fault(Reason::GraphAccessDenied));
    assert_eq!(states(&by_graph(), &denied), "oooooF");
    let unresolved = stopped(&[TokenAcquired], &[], fault(Reason::NameNotResolved));
    assert_eq!(states(&by_graph(), &unresolved), "ooF---");
    let findings = Findings::of(&by_graph(), &envelope(), &denied);
    let last = findings.steps.last().unwrap();
    assert_eq!((last.step, findings.steps[2].met.as_str()), (Place::Permission, "graph.microsoft.com"));
    assert!(
        last.remedy.contains("application 1b2c") && last.remedy.contains("noreply@contoso.com"),
        "{}",
        last.remedy
    );
}

#[test]
fn a_walk_to_the_end_is_well_at_every_step() {
    let dry_run = DryRun {
        observations: met(&[TokenAcquired, Connected, LoggedIn]),
        answers: vec![
            (Stage::Mail, "250 2.1.0 Sender OK".into()),
            (Stage::Rcpt, "250 2.1.5 Recipient OK".into()),
        ],
        stopped: None,
    };
    assert_eq!(states(&by_secret(), &dry_run), "ooooooooo");
    let findings = Findings::of(&by_secret(), &envelope(), &dry_run);
    let last = findings.steps.last().unwrap();
    assert_eq!(last.met, "<noreply@contoso.com>: 250 2.1.5 Recipient OK");
}

#[test]
fn each_trouble_of_client_submission_stands_where_it_belongs() {
    // route, token, name, connection, greeting, TLS, log-in, sender, recipient
    let early = |reason| states(&by_secret(), &stopped(&[TokenAcquired, reason], &[], fault(reason)));
    assert_eq!(states(&by_secret(), &stopped(&[], &[], fault(Reason::SecretRejected))), "oF-------");
    assert_eq!(early(Reason::NameNotResolved), "ooF------");
    assert_eq!(early(Reason::ConnectFailed), "oooF-----");
    assert_eq!(early(Reason::UpstreamUnavailable), "ooooF----");
    assert_eq!(early(Reason::UpstreamProtocolError), "ooooF----");
    assert_eq!(early(Reason::StartTlsMissing), "oooooF---");
    assert_eq!(early(Reason::TlsFailed), "oooooF---");
    let later = |reasons: &[Reason], answers: &[Stage], verdict| {
        states(&by_secret(), &stopped(&[&[TokenAcquired, Connected], reasons].concat(), answers, verdict))
    };
    assert_eq!(later(&[], &[], fault(Reason::SmtpAuthDisabledTenant)), "ooooooF--");
    assert_eq!(later(&[], &[], fault(Reason::UpstreamUnavailable)), "ooooooF--");
    assert_eq!(later(&[LoggedIn], &[], fault(Reason::RateExceeded)), "oooooooF-");
    let recipient = Verdict::without_reply(DeliveryOutcome::RejectRecipient, "550 5.1.1");
    assert_eq!(later(&[LoggedIn], &[Stage::Mail], recipient), "ooooooooF");
}

#[test]
fn a_token_that_cannot_be_renewed_after_a_refusal_is_the_tokens_trouble() {
    let dry_run = stopped(&[TokenAcquired, Connected], &[], fault(Reason::TokenServiceThrottled));
    assert_eq!(states(&by_secret(), &dry_run), "oF-------");
}

#[test]
fn silence_is_where_nothing_is_known_yet() {
    let silence = || {
        let outcome = DeliveryOutcome::Transient(Some(Reason::UpstreamUnavailable));
        Verdict::without_reply(outcome, "no result within 60 seconds")
    };
    assert_eq!(states(&by_secret(), &stopped(&[], &[], silence())), "oF-------");
    assert_eq!(states(&by_secret(), &stopped(&[TokenAcquired], &[], silence())), "ooooF----");
}

#[test]
fn a_relay_is_judged_by_its_certificate_and_at_the_recipient() {
    // route, certificate, name, connection, greeting, TLS, sender, recipient
    let relay = by_relay();
    assert_eq!(states(&relay, &stopped(&[], &[], fault(Reason::CertificateMissing))), "oF------");
    let found = stopped(&[Reason::CertificateValid], &[], fault(Reason::SmartHostForeign));
    assert_eq!(states(&relay, &found), "ooF-----");
    let reasons = [Reason::CertificateExpiring, Connected, Reason::ConnectorMismatch];
    let refused = stopped(&reasons, &[Stage::Mail], fault(Reason::ConnectorMismatch));
    assert_eq!(states(&relay, &refused), "owoooooF");
    let findings = Findings::of(&relay, &envelope(), &refused);
    assert_eq!(findings.steps[7].met, "met ConnectorMismatch", "with what was presented");
    assert!(findings.steps[1].remedy.contains("<certificateSecretRef.name>"), "{:?}", findings.steps[1]);
}

#[test]
fn direct_send_has_neither_certificate_nor_log_in() {
    let direct = route(Method::DirectSend(DirectSend {
        accepted_domains: vec!["contoso.com".into()],
        smart_host: smart_host_of("contoso.com"),
    }));
    let dry_run =
        DryRun { observations: met(&[Connected, Reason::ConnectorMatched]), answers: vec![], stopped: None };
    assert_eq!(states(&direct, &dry_run), "ooooooo");
    let findings = Findings::of(&direct, &envelope(), &dry_run);
    assert!(findings.steps[6].met.ends_with("; met ConnectorMatched"), "{:?}", findings.steps[6]);
}

#[test]
fn what_holds_and_asks_for_something_is_a_warning() {
    let password = submission_with(Credential::Password { password_file: "/c/secret".into() });
    let dry_run = DryRun {
        observations: met(&[Reason::PasswordMounted, Connected, LoggedIn]),
        answers: vec![],
        stopped: None,
    };
    assert_eq!(states(&password, &dry_run), "owooooooo");
}

#[test]
fn every_reason_that_can_stop_the_way_is_explained() {
    for &reason in Reason::ALL.iter().filter(|reason| !reason.holds()) {
        for route in [by_secret(), by_relay()] {
            let findings = Findings::of(&route, &envelope(), &stopped(&[], &[], fault(reason)));
            let failed: Vec<_> = findings.steps.iter().filter(|step| step.state == State::Failed).collect();
            assert_eq!(failed.len(), 1, "{reason}");
            assert_eq!(failed[0].meaning, reason.sentence());
            assert!(!failed[0].remedy.is_empty(), "{reason}");
            assert!(!failed[0].remedy.contains(['{', '}']), "{reason}");
        }
    }
}

#[test]
fn a_refusal_of_one_recipient_has_microsofts_hint() {
    let reply =
        Reply::parse(b"550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup\r\n").unwrap().unwrap().0;
    let verdict = Verdict::of_reply(DeliveryOutcome::RejectRecipient, reply);
    let dry_run = stopped(&[TokenAcquired, Connected, LoggedIn], &[Stage::Mail], verdict);
    let findings = Findings::of(&by_secret(), &envelope(), &dry_run);
    assert!(findings.steps[8].meaning.contains("only authenticated senders"), "{:?}", findings.steps[8]);
}

#[test]
fn a_remedy_names_the_secret_or_else_the_field_that_does() {
    let remedies = |route: RouteFile| {
        let rejected = stopped(&[], &[], fault(Reason::SecretRejected));
        let findings = Findings::of(&route, &envelope(), &rejected);
        findings.steps.iter().map(|step| step.remedy.clone()).collect::<String>()
    };
    assert!(remedies(by_secret()).contains("the Secret <secretRef.name>"));
    let named = RouteFile { secret: Some("m365".into()), ..by_secret() };
    assert!(remedies(named).contains("the Secret m365"));
}

fn obstacle(reason: Option<Reason>, limits: bool) -> Obstacle {
    let until = Timestamp::from_second(1_800_000_000).ok();
    Obstacle { reason, text: "554 5.2.0 quota".into(), until, limits }
}

#[test]
fn a_sidecar_that_holds_mail_back_is_told_although_the_way_is_open() {
    let open = Findings { well: true, ..Findings::default() };
    let held = open.clone().beside(&obstacle(Some(Reason::DailyQuotaExceeded), false), &by_secret());
    let step = held.steps.last().unwrap();
    assert_eq!((held.well, step.step, step.state), (false, Place::Sidecar, State::Failed));
    assert_eq!(step.met, "holds mail back until 2027-01-15T08:00:00Z: 554 5.2.0 quota");
    assert!(step.remedy.contains("cannot tell") && step.remedy.contains("queue retry --all"), "{step:?}");
    let failed = open.clone().beside(&obstacle(Some(Reason::ConnectFailed), false), &by_secret());
    let remedy = &failed.steps.last().unwrap().remedy;
    assert!(remedy.starts_with("Microsoft 365 can be reached again. "), "{remedy}");
    let limited = open.clone().beside(&obstacle(Some(Reason::DailyQuotaExceeded), true), &by_secret());
    assert!(!limited.well && !limited.steps[0].remedy.contains("retry"), "{limited:?}");
    assert!(open.beside(&obstacle(None, true), &by_secret()).well, "it goes out a little later");
}
