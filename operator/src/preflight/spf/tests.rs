//! Policies as domains publish them, asked about a service and addresses.

use mailroute_dns::message::Wanted::{self, A, Aaaa, Mx, Txt};

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Broken, Policy};
use crate::preflight::known::tests::answer_from;
use crate::preflight::known::{Fact, Known, Question, Reader};

const EXCHANGE: &str = "spf.protection.outlook.com";
const MICROSOFT: (&str, Wanted, &[&str]) =
    (EXCHANGE, Txt, &["v=spf1 ip4:40.92.0.0/15 ip4:40.107.0.0/16 ip6:2a01:111:f400::/48 -all"]);

/// What is known when all that is wanted was asked for.
fn asked<T>(zone: &[(&str, Wanted, &[&str])], evaluate: impl Fn(&Reader<'_>) -> T) -> T {
    let mut known = Known::default();
    loop {
        let reader = Reader::new(&known);
        let said = evaluate(&reader);
        let wanted = reader.into_wanted();
        if wanted.is_empty() {
            return said;
        }
        for question in wanted {
            let fact = answer_from(zone, &question);
            known.learn(question, fact, None);
        }
        assert!(known.len() < 100, "it has to end");
    }
}

/// Who wants to send.
#[derive(Clone, Copy)]
enum Sender {
    Service,
    Address(IpAddr),
}

/// Whether the policy of contoso.com certainly leaves a sender out, with these records.
fn leaves_out(zone: &[(&str, Wanted, &[&str])], sender: Sender) -> Result<bool, Broken> {
    let addresses: BTreeSet<_> = match sender {
        Sender::Service => [].into(),
        Sender::Address(ip) => [ip].into(),
    };
    asked(zone, |reader| {
        let Some(policy) = Policy::read(reader, "contoso.com", &addresses) else { return Ok(false) };
        let policy = policy?.expect("a record");
        Ok(match sender {
            Sender::Service => policy.leaves_out_service(reader, EXCHANGE),
            Sender::Address(ip) => policy.leaves_out(ip),
        })
    })
}

fn of_text(text: &str, sender: Sender) -> Result<bool, Broken> {
    leaves_out(&[("contoso.com", Txt, &[text]), MICROSOFT], sender)
}

fn address(ip: &str) -> Sender {
    Sender::Address(ip.parse().unwrap())
}

#[test]
fn a_service_may_send_when_it_is_included_before_all() {
    for (text, is_left_out) in [
        ("v=spf1 include:spf.protection.outlook.com -all", false),
        ("v=spf1 +include:SPF.Protection.Outlook.com ~all", false),
        ("v=spf1 redirect=spf.protection.outlook.com", false),
        ("v=spf1 +all", false),
        ("v=spf1 -all", true),
        ("v=spf1 ptr mx a:%{d} -all", true),
        ("v=spf1 ?include:spf.protection.outlook.com -all", true),
        ("v=spf1 -all include:spf.protection.outlook.com", true),
        ("v=spf1 ip4:40.92.0.0/15 -all", true),
        ("v=spf1 exists:%{i}.example.net -all", false),
        ("v=spf1 include:%{d}.example.net include:spf.protection.outlook.com -all", false),
    ] {
        assert_eq!(of_text(text, Sender::Service), Ok(is_left_out), "{text}");
    }
}

#[test]
fn a_service_whose_networks_are_spelled_out_may_send() {
    assert_eq!(of_text("v=spf1 ip4:40.0.0.0/8 -all", Sender::Service), Ok(false));
    let redirect = "v=spf1 redirect=spf.protection.outlook.com";
    assert_eq!(of_text(redirect, address("40.92.3.4")), Ok(false));
}

#[test]
fn a_service_that_does_not_publish_anything_is_not_judged() {
    let zone: &[(&str, Wanted, &[&str])] = &[("contoso.com", Txt, &["v=spf1 -all"])];
    assert_eq!(leaves_out(zone, Sender::Service), Ok(false));
}

#[test]
fn includes_are_followed_and_only_their_pass_counts() {
    let zone: &[(&str, Wanted, &[&str])] = &[
        ("contoso.com", Txt, &["MS=ms1", "v=spf1 include:a.example -all"]),
        (
            "a.example",
            Txt,
            &["v=spf1 ?ip4:198.51.100.1 ip4:203.0.113.0/24 include:spf.protection.outlook.com ~all"],
        ),
        MICROSOFT,
    ];
    assert_eq!(leaves_out(zone, Sender::Service), Ok(false));
    assert_eq!(leaves_out(zone, address("203.0.113.7")), Ok(false));
    assert_eq!(leaves_out(zone, address("198.51.100.1")), Ok(true));
    assert_eq!(leaves_out(zone, address("40.93.1.1")), Ok(false));
}

#[test]
fn hosts_and_mail_exchangers_stand_for_their_addresses() {
    let zone: &[(&str, Wanted, &[&str])] = &[
        ("contoso.com", Txt, &["v=spf1 a/24 mx:mail.contoso.com//64 -all"]),
        ("contoso.com", A, &["192.0.2.1"]),
        ("mail.contoso.com", Mx, &["one.contoso.com", ""]),
        ("one.contoso.com", A, &["198.51.100.7"]),
        ("one.contoso.com", Aaaa, &["2001:db8:1:2::1"]),
    ];
    for (ip, is_left_out) in [
        ("192.0.2.200", false),
        ("192.0.3.1", true),
        ("198.51.100.7", false),
        ("198.51.100.8", true),
        ("2001:db8:1:2::ffff", false),
        ("2001:db8:1:3::1", true),
    ] {
        assert_eq!(leaves_out(zone, address(ip)), Ok(is_left_out), "{ip}");
    }
}

#[test]
fn what_receivers_cannot_evaluate_is_said() {
    let broken = |zone: &[(&str, Wanted, &[&str])]| leaves_out(zone, Sender::Service).unwrap_err();
    let two = broken(&[("contoso.com", Txt, &["v=spf1 -all", "v=spf1 a -all"])]);
    assert_eq!(two.to_string(), "contoso.com has 2 SPF records: merge them into one");
    let term = broken(&[("contoso.com", Txt, &["v=spf1 ipv4:1.2.3.4 -all"])]);
    assert!(term.to_string().contains("\"ipv4:1.2.3.4\" is not understood"), "{term}");
    let none = broken(&[("contoso.com", Txt, &["v=spf1 include:gone.example -all"])]);
    assert!(none.to_string().contains("includes gone.example, which has none"), "{none}");
    let nested = broken(&[
        ("contoso.com", Txt, &["v=spf1 include:a.example -all"]),
        ("a.example", Txt, &["v=spf1 a b"]),
    ]);
    assert!(matches!(nested, Broken::Term { domain, .. } if domain == "a.example"));
}

#[test]
fn ten_look_ups_are_allowed_and_eleven_are_not() {
    let of = |count| {
        let text = format!("v=spf1 {} include:{EXCHANGE} -all", vec!["exists:x.example"; count].join(" "));
        of_text(&text, Sender::Service)
    };
    assert_eq!(of(9), Ok(false));
    assert_eq!(of(10), Err(Broken::TooManyLookUps { domain: "contoso.com".into() }));
}

#[test]
fn a_circle_of_includes_ends() {
    let zone: &[(&str, Wanted, &[&str])] = &[
        ("contoso.com", Txt, &["v=spf1 include:a.example -all"]),
        ("a.example", Txt, &["v=spf1 redirect=contoso.com"]),
    ];
    let sender = Sender::Service;
    assert!(matches!(leaves_out(zone, sender), Err(Broken::TooManyLookUps { .. })));
}

#[test]
fn what_cannot_be_looked_up_is_neither_yes_nor_no() {
    let mut known = Known::default();
    let learn = |known: &mut Known, name, fact| known.learn(Question::new(name, Txt), fact, None);
    learn(&mut known, "contoso.com", Fact::Texts(vec!["v=spf1 include:a.example -all".into()]));
    learn(&mut known, "a.example", Fact::Failed("SERVFAIL".into()));
    let reader = Reader::new(&known);
    let ip: IpAddr = "192.0.2.1".parse().unwrap();
    let policy = Policy::read(&reader, "contoso.com", &[ip].into()).unwrap().unwrap().unwrap();
    assert!(!policy.leaves_out(ip) && !policy.leaves_out_service(&reader, EXCHANGE));
    assert_eq!(reader.failures(), ["SERVFAIL"]);
}

proptest::proptest! {
    #[test]
    fn every_policy_ends(texts in proptest::collection::vec(proptest::collection::vec(
        proptest::sample::select(vec![
            "a", "mx", "-a:d0.example/8", "include:d0.example", "include:d1.example", "?include:d2.example", "exists:%{i}.x.example",
            "ip4:192.0.2.0/24", "redirect=d1.example", "all", "~all", "ptr", "nonsense",
        ]), 0..14), 3)) {
        let texts: Vec<String> = texts.iter().map(|terms| format!("v=spf1 {}", terms.join(" "))).collect();
        let texts: Vec<[&str; 1]> = texts.iter().map(|text| [text.as_str()]).collect();
        let zone: &[(&str, Wanted, &[&str])] = &[
            ("contoso.com", Txt, &texts[0]), ("d0.example", Txt, &texts[0]),
            ("d1.example", Txt, &texts[1]), ("d2.example", Txt, &texts[2]),
            ("d0.example", A, &["192.0.2.1"]), ("contoso.com", Mx, &["d0.example", "d1.example"]),
        ];
        // No more than the terms that need a look-up, the addresses of exchangers and the service's own record.
        let _ = leaves_out(zone, address("192.0.2.77"));
        let _ = leaves_out(zone, Sender::Service);
    }
}
