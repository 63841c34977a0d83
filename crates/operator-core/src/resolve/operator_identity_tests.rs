//! Who gets the operator's identity, as a table.

use super::*;
use crate::samples;

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";

fn settings(allow: &str) -> OperatorIdentity {
    let text =
        format!("applications:\n- tenantId: {TENANT}\n  clientId: {}\n  allow:\n{allow}", samples::CLIENT_ID);
    OperatorIdentity::parse(&text).unwrap()
}

fn shop() -> OperatorIdentity {
    settings("  - {namespaces: [shop], mailboxes: [noreply@contoso.com, '*@alerts.contoso.com']}\n")
}

fn refused(settings: &OperatorIdentity, change: impl FnOnce(&mut MailRoute)) -> Option<IdentityNotAllowed> {
    let mut route = samples::with_operator_identity();
    change(&mut route);
    settings.application_for(&route).err()
}

fn mailbox(route: &mut MailRoute, address: &str) {
    route.spec.client_submission.as_mut().unwrap().mailbox = address.into();
}

#[test]
fn without_settings_nobody_gets_anything() {
    assert_eq!(refused(&OperatorIdentity::default(), |_| {}), Some(IdentityNotAllowed::Closed));
    assert_eq!(
        refused(&OperatorIdentity::parse("applications: []").unwrap(), |_| {}),
        Some(IdentityNotAllowed::Closed)
    );
}

#[test]
fn a_route_with_the_identity_of_its_pods_needs_nothing() {
    for route in [samples::route(), samples::relay(true), samples::direct()] {
        assert_eq!(OperatorIdentity::default().application_for(&route), Ok(None));
    }
}

#[test]
fn what_is_listed_is_allowed_in_any_case_of_letters() {
    let settings = shop();
    assert_eq!(refused(&settings, |_| {}), None);
    assert_eq!(refused(&settings, |route| mailbox(route, "NoReply@Contoso.com")), None);
    assert_eq!(refused(&settings, |route| mailbox(route, "disk@alerts.contoso.com")), None);
    assert_eq!(refused(&settings, |route| route.spec.tenant.id.make_ascii_uppercase()), None);
}

#[test]
fn what_is_not_listed_is_refused_with_what_is_missing() {
    let settings = shop();
    let text = |change: fn(&mut MailRoute)| refused(&settings, change).unwrap().to_string();
    assert!(
        text(|r| r.metadata.namespace = Some("billing".into()))
            .starts_with("the namespace billing may not use")
    );
    assert!(text(|r| mailbox(r, "ceo@contoso.com")).contains("may not send as ceo@contoso.com"));
    assert!(text(|r| mailbox(r, "x@sub.alerts.contoso.com")).contains("may not send as"));
    assert!(text(|r| r.spec.tenant.id = "contoso.com".into()).contains("no identity for the application"));
    assert!(text(|r| r.spec.tenant.cloud = Cloud::China).contains("China"));
    let other = |r: &mut MailRoute| {
        let other = Some("00000000-0000-4000-8000-000000000000".into());
        r.spec.client_submission.as_mut().unwrap().credential.client_id = other;
    };
    assert!(text(other).contains("no identity for the application 00000000"));
}

#[test]
fn a_mailbox_of_one_rule_is_not_one_of_another() {
    let settings = settings(
        "  - {namespaces: [billing], mailboxes: [noreply@contoso.com]}\n  - {namespaces: ['*'], mailboxes: [all@contoso.com]}\n",
    );
    assert!(matches!(refused(&settings, |_| {}), Some(IdentityNotAllowed::Mailbox { .. })));
    assert_eq!(refused(&settings, |route| mailbox(route, "all@contoso.com")), None);
}

#[test]
fn settings_that_cannot_be_are_named_with_their_field() {
    let of = |tenant: &str, client: &str, rest: &str| {
        let text = format!("applications:\n- tenantId: '{tenant}'\n  clientId: '{client}'\n{rest}");
        OperatorIdentity::parse(&text).unwrap_err().to_string()
    };
    let allow = "  allow:\n  - {namespaces: [shop], mailboxes: [a@contoso.com]}\n";
    let client = samples::CLIENT_ID;
    for (error, field) in [
        (of("a/../b", client, allow), "applications[0].tenantId"),
        (of(TENANT, "shop-mail", allow), "applications[0].clientId"),
        (of(TENANT, client, "  allow: []\n"), "applications[0].allow"),
        (of(TENANT, client, "  allow: [{namespaces: [], mailboxes: [a@b.c]}]\n"), "allow[].namespaces"),
        (of(TENANT, client, "  allow: [{namespaces: ['sh*p'], mailboxes: [a@b.c]}]\n"), "allow[].namespaces"),
        (of(TENANT, client, "  allow: [{namespaces: [shop], mailboxes: ['*']}]\n"), "allow[].mailboxes"),
        (of(TENANT, client, "  allow: [{namespaces: [shop], mailboxes: ['a*@b.c']}]\n"), "allow[].mailboxes"),
        (of(TENANT, client, &format!("{allow}  authority: {{host: 'https://x'}}\n")), "authority.host"),
        (of(TENANT, client, &format!("{allow}  endpoint: {{host: 'a b'}}\n")), "endpoint.host"),
        (of(TENANT, client, &format!("{allow}  cloud: USGovernmentDoD\n")), "endpoint.host"),
        (
            of(TENANT, client, &format!("{allow}- tenantId: {TENANT}\n  clientId: {client}\n{allow}")),
            "applications[1].clientId",
        ),
        (of(TENANT, client, &format!("{allow}  secret: x\n")), "secret"),
    ] {
        assert!(error.contains(field), "{field}: {error}");
    }
}

#[test]
fn the_cloud_fills_in_what_the_settings_leave_out() {
    let mut application = shop().applications.remove(0);
    assert_eq!(application.token_authority().host, "login.microsoftonline.com");
    assert_eq!(application.submission_endpoint(), Some(file::Endpoint::new("smtp.office365.com", 587)));
    application.authority.host = Some("login.m365.svc:8443".into());
    application.endpoint.port = Some(25);
    assert_eq!(application.token_authority().host, "login.m365.svc:8443");
    assert_eq!(application.submission_endpoint(), Some(file::Endpoint::new("smtp.office365.com", 25)));
}
