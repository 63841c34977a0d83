//! Policies as domains publish them, asked about services and addresses.

use mailroute_dns::message::Wanted::{self, A, Aaaa, Mx, Txt};

use super::permit::{Permit, Sender, permits};
use super::policy::{Broken, check, published};
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

/// The policy of contoso.com for a sender, with these records.
fn judged(zone: &[(&str, Wanted, &[&str])], sender: Sender<'_>) -> Result<Permit, Broken> {
    asked(zone, |reader| match published(reader, "contoso.com") {
        None => Ok(Permit::Unsure),
        Some(found) => {
            let record = found?.expect("a record").record;
            check(reader, "contoso.com", &record)?;
            Ok(permits(reader, "contoso.com", &record, sender))
        }
    })
}

fn of_text(text: &str, sender: Sender<'_>) -> Result<Permit, Broken> {
    judged(&[("contoso.com", Txt, &[text]), MICROSOFT], sender)
}

fn address(ip: &str) -> Sender<'static> {
    Sender::Address(ip.parse().unwrap())
}

#[test]
fn a_service_may_send_when_it_is_included_before_all() {
    for (text, permit) in [
        ("v=spf1 include:spf.protection.outlook.com -all", Permit::Yes),
        ("v=spf1 +include:SPF.Protection.Outlook.com ~all", Permit::Yes),
        ("v=spf1 redirect=spf.protection.outlook.com", Permit::Yes),
        ("v=spf1 +all", Permit::Yes),
        ("v=spf1 -all", Permit::No),
        ("v=spf1 ?include:spf.protection.outlook.com -all", Permit::No),
        ("v=spf1 -all include:spf.protection.outlook.com", Permit::No),
        ("v=spf1 ip4:40.92.0.0/15 -all", Permit::No),
        ("v=spf1 exists:%{i}.example.net -all", Permit::Unsure),
        ("v=spf1 include:%{d}.example.net include:spf.protection.outlook.com -all", Permit::Yes),
    ] {
        let expected = Ok(permit);
        let redirected = text.contains("redirect");
        // A redirect evaluates the other record in place of one's own: the addresses decide.
        let sender = if redirected { address("40.92.3.4") } else { Sender::Service(EXCHANGE) };
        assert_eq!(of_text(text, sender), expected, "{text}");
    }
}

#[test]
fn a_service_whose_networks_are_spelled_out_may_send() {
    assert_eq!(of_text("v=spf1 ip4:40.0.0.0/8 -all", Sender::Service(EXCHANGE)), Ok(Permit::Yes));
    let redirect = "v=spf1 redirect=spf.protection.outlook.com";
    assert_eq!(of_text(redirect, Sender::Service(EXCHANGE)), Ok(Permit::Yes));
}

#[test]
fn a_service_that_does_not_publish_anything_is_not_judged() {
    let zone: &[(&str, Wanted, &[&str])] = &[("contoso.com", Txt, &["v=spf1 -all"])];
    assert_eq!(judged(zone, Sender::Service(EXCHANGE)), Ok(Permit::Unsure));
}

#[test]
fn includes_are_followed_and_only_their_pass_counts() {
    let zone: &[(&str, Wanted, &[&str])] = &[
        ("contoso.com", Txt, &["MS=ms1", "v=spf1 include:a.example -all"]),
        (
            "a.example",
            Txt,
            &["v=spf1 -ip4:203.0.113.9 ip4:203.0.113.0/24 include:spf.protection.outlook.com ~all"],
        ),
        MICROSOFT,
    ];
    assert_eq!(judged(zone, Sender::Service(EXCHANGE)), Ok(Permit::Yes));
    assert_eq!(judged(zone, address("203.0.113.7")), Ok(Permit::Yes));
    assert_eq!(judged(zone, address("203.0.113.9")), Ok(Permit::No));
    assert_eq!(judged(zone, address("198.51.100.1")), Ok(Permit::No));
    assert_eq!(judged(zone, address("40.93.1.1")), Ok(Permit::Yes));
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
    for (ip, permit) in [
        ("192.0.2.200", Permit::Yes),
        ("192.0.3.1", Permit::No),
        ("198.51.100.7", Permit::Yes),
        ("198.51.100.8", Permit::No),
        ("2001:db8:1:2::ffff", Permit::Yes),
        ("2001:db8:1:3::1", Permit::No),
    ] {
        assert_eq!(judged(zone, address(ip)), Ok(permit), "{ip}");
    }
}

#[test]
fn what_receivers_cannot_evaluate_is_said() {
    let broken = |zone: &[(&str, Wanted, &[&str])]| judged(zone, Sender::Service(EXCHANGE)).unwrap_err();
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
        of_text(&text, Sender::Service(EXCHANGE))
    };
    assert_eq!(of(9), Ok(Permit::Yes));
    assert_eq!(of(10), Err(Broken::TooManyLookUps { domain: "contoso.com".into() }));
}

#[test]
fn a_circle_of_includes_ends() {
    let zone: &[(&str, Wanted, &[&str])] = &[
        ("contoso.com", Txt, &["v=spf1 include:a.example -all"]),
        ("a.example", Txt, &["v=spf1 redirect=contoso.com"]),
    ];
    let sender = Sender::Service(EXCHANGE);
    assert!(matches!(judged(zone, sender), Err(Broken::TooManyLookUps { .. })));
}

#[test]
fn what_cannot_be_looked_up_is_neither_yes_nor_no() {
    let mut known = Known::default();
    let learn = |known: &mut Known, name, fact| known.learn(Question::new(name, Txt), fact, None);
    learn(&mut known, "contoso.com", Fact::Texts(vec!["v=spf1 include:a.example -all".into()]));
    learn(&mut known, "a.example", Fact::Failed("SERVFAIL".into()));
    let reader = Reader::new(&known);
    let record = published(&reader, "contoso.com").unwrap().unwrap().unwrap().record;
    assert_eq!(check(&reader, "contoso.com", &record), Ok(()));
    assert_eq!(permits(&reader, "contoso.com", &record, address("192.0.2.1")), Permit::Unsure);
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
        let _ = judged(zone, address("192.0.2.77"));
        let _ = judged(zone, Sender::Service(EXCHANGE));
    }
}
