//! DNS messages (RFC 1035) as values: a question out, records in.
//!
//! Pure. Refuses to know how messages travel ([`super::resolver`]) and what records mean.

use std::net::IpAddr;
use std::time::Duration;

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, ParseRecordData, Rtype};
use domain::rdata::{A, Aaaa, Cname, Mx, Txt};

/// Largest answer asked for over UDP, octets: what crosses networks unfragmented (DNS Flag Day 2020).
pub const UDP_OCTETS: u16 = 1232;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wanted {
    /// Mail exchangers.
    Mx,
    /// Texts, such as a policy.
    Txt,
    /// The name that this one is an alias of.
    Cname,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
}

impl Wanted {
    const fn rtype(self) -> Rtype {
        match self {
            Self::Mx => Rtype::MX,
            Self::Txt => Rtype::TXT,
            Self::Cname => Rtype::CNAME,
            Self::A => Rtype::A,
            Self::Aaaa => Rtype::AAAA,
        }
    }
}

/// A question, ready to be sent.
#[derive(Clone, Debug)]
pub struct Query(Message<Vec<u8>>);

/// What an MX record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanger {
    /// Lower is preferred.
    pub preference: u16,
    /// Its name, without the final dot; empty in a null MX (RFC 7505).
    pub name: String,
}

/// Records of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records<T> {
    /// In the order of the answer; none when the name has none, or does not exist.
    pub found: Vec<T>,
    /// How long they are good, none without records.
    pub ttl: Option<Duration>,
}

/// What a server said.
#[derive(Clone, Debug)]
pub enum Reply {
    /// An answer.
    Answer(Answer),
    /// More than fits: ask again over TCP.
    Truncated,
    /// It cannot tell, with its code: another server may.
    Failed(String),
}

/// An answer, possibly without records.
#[derive(Clone, Debug)]
pub struct Answer(Message<Vec<u8>>);

impl Query {
    /// Asks for what `wanted` says of `name`, which is taken as absolute. `id` should not be guessable. Nothing when
    /// `name` cannot be a domain name.
    pub fn new(name: &str, wanted: Wanted, id: u16) -> Option<Self> {
        let name = Name::vec_from_str(name).ok()?;
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(id);
        builder.header_mut().set_rd(true);
        let mut question = builder.question();
        question.push((&name, wanted.rtype())).ok()?;
        let mut additional = question.additional();
        additional
            .opt(|opt| {
                opt.set_udp_payload_size(UDP_OCTETS);
                Ok(())
            })
            .ok()?;
        Some(Self(additional.into_message()))
    }

    /// The octets to send.
    pub fn octets(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// What `octets` say to this question; nothing when they belong to another one, or to none.
    pub fn read(&self, octets: Vec<u8>) -> Option<Reply> {
        let message = Message::from_octets(octets).ok()?;
        let header = message.header();
        if !message.is_answer(&self.0) {
            return None;
        }
        Some(match header.rcode() {
            _ if header.tc() => Reply::Truncated,
            Rcode::NOERROR | Rcode::NXDOMAIN => Reply::Answer(Answer(message)),
            other => Reply::Failed(other.to_string()),
        })
    }
}

impl Answer {
    /// The mail exchangers.
    pub fn exchangers(&self) -> Records<Exchanger> {
        self.records(|mx: Mx<_>| Exchanger { preference: mx.preference(), name: relative(mx.exchange()) })
    }

    /// The texts, each with its strings joined (RFC 7208 section 3.3). Octets that are no UTF-8 are replaced.
    pub fn texts(&self) -> Records<String> {
        self.records(|txt: Txt<_>| String::from_utf8_lossy(&txt.text::<Vec<u8>>()).into_owned())
    }

    /// The names that this one is an alias of, without the final dot.
    pub fn aliases(&self) -> Records<String> {
        self.records(|cname: Cname<_>| relative(cname.cname()))
    }

    /// Whether the name does not exist at all, with any kind of record.
    pub fn has_no_name(&self) -> bool {
        self.0.header().rcode() == Rcode::NXDOMAIN
    }

    /// The addresses of both kinds. The server follows aliases, so they may be those of another name.
    pub fn addresses(&self) -> Records<IpAddr> {
        let mut all = self.records(|a: A| IpAddr::from(a.addr()));
        let six = self.records(|aaaa: Aaaa| IpAddr::from(aaaa.addr()));
        all.found.extend(six.found);
        all.ttl = all.ttl.into_iter().chain(six.ttl).min();
        all
    }

    /// Records of one kind; malformed ones are no records.
    fn records<'a, D: ParseRecordData<'a, Vec<u8>>, T>(&'a self, of: impl Fn(D) -> T) -> Records<T> {
        let mut records = Records { found: Vec::new(), ttl: None };
        let Ok(section) = self.0.answer() else { return records };
        for record in section.limit_to::<D>().flatten() {
            let ttl = Duration::from_secs(record.ttl().as_secs().into());
            records.ttl = Some(records.ttl.map_or(ttl, |known: Duration| known.min(ttl)));
            records.found.push(of(record.into_data()));
        }
        records
    }
}

/// A name without the final dot; the root is empty.
fn relative(name: &impl std::fmt::Display) -> String {
    let dots: &[char] = &['.'];
    name.to_string().trim_end_matches(dots).to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use domain::base::Ttl;

    use super::*;

    /// A server's answer to the query in `octets`, with these MX records.
    pub(crate) fn mx_answer(octets: &[u8], ttl: u32, records: &[(u16, &str)]) -> Vec<u8> {
        let query = Message::from_octets(octets).unwrap();
        let mut answer = MessageBuilder::new_vec().start_answer(&query, Rcode::NOERROR).unwrap();
        let owner = query.sole_question().unwrap().into_qname();
        for (preference, name) in records {
            let name = Name::vec_from_str(name).unwrap();
            answer.push((&owner, Ttl::from_secs(ttl), Mx::new(*preference, name))).unwrap();
        }
        answer.finish()
    }

    fn text_answer(query: &Query, texts: &[&[u8]]) -> Vec<u8> {
        let query = Message::from_octets(query.octets()).unwrap();
        let mut answer = MessageBuilder::new_vec().start_answer(&query, Rcode::NOERROR).unwrap();
        let owner = query.sole_question().unwrap().into_qname();
        for text in texts {
            let text = Txt::<Vec<u8>>::build_from_slice(text).unwrap();
            answer.push((&owner, Ttl::from_secs(60), text)).unwrap();
        }
        answer.finish()
    }

    #[test]
    fn the_strings_of_a_long_text_are_one_text() {
        let query = Query::new("contoso.com", Wanted::Txt, 7).unwrap();
        let long = "x".repeat(600);
        let octets = text_answer(&query, &[long.as_bytes(), b"v=spf1 -all", b"\xff"]);
        let texts = answer(&query, octets).texts();
        assert_eq!(texts.found, [long.as_str(), "v=spf1 -all", "\u{fffd}"]);
        assert_eq!(texts.ttl, Some(Duration::from_secs(60)));
    }

    #[test]
    fn an_alias_names_its_target_and_a_name_that_is_not_there_is_told_from_one_without_records() {
        let query = Query::new("selector1._domainkey.contoso.com", Wanted::Cname, 7).unwrap();
        let message = Message::from_octets(query.octets()).unwrap();
        let of = |code, target: Option<&str>| {
            let mut answer = MessageBuilder::new_vec().start_answer(&message, code).unwrap();
            let owner = message.sole_question().unwrap().into_qname();
            if let Some(target) = target {
                let target = Name::vec_from_str(target).unwrap();
                answer.push((&owner, Ttl::from_secs(60), Cname::new(target))).unwrap();
            }
            answer.finish()
        };
        let alias = answer(&query, of(Rcode::NOERROR, Some("Key.contoso.onmicrosoft.com.")));
        assert_eq!(alias.aliases().found, ["Key.contoso.onmicrosoft.com"]);
        assert!(!answer(&query, of(Rcode::NOERROR, None)).has_no_name());
        assert!(answer(&query, of(Rcode::NXDOMAIN, None)).has_no_name());
    }

    fn query() -> Query {
        Query::new("contoso.com", Wanted::Mx, 0x1234).unwrap()
    }

    fn answer(query: &Query, octets: Vec<u8>) -> Answer {
        match query.read(octets) {
            Some(Reply::Answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_question_is_asked_recursively_about_the_absolute_name() {
        let query = query();
        let message = Message::from_octets(query.octets()).unwrap();
        assert!(message.header().rd() && message.header().id() == 0x1234);
        let question = message.sole_question().unwrap();
        assert_eq!((question.qname().to_string(), question.qtype()), ("contoso.com".into(), Rtype::MX));
        assert!(Query::new(&"x".repeat(64), Wanted::Mx, 1).is_none());
    }

    #[test]
    fn exchangers_come_with_the_shortest_time_to_live() {
        let query = query();
        let name = "contoso-com.mail.protection.outlook.com";
        let records =
            answer(&query, mx_answer(query.octets(), 300, &[(10, name), (20, "mx.example")])).exchangers();
        assert_eq!(records.ttl, Some(Duration::from_secs(300)));
        assert_eq!(records.found[0], Exchanger { preference: 10, name: name.into() });
        assert_eq!(records.found.len(), 2);
    }

    #[test]
    fn a_null_mx_has_no_name_and_no_records_no_time() {
        let query = query();
        let null = answer(&query, mx_answer(query.octets(), 300, &[(0, ".")])).exchangers();
        assert_eq!(null.found, [Exchanger { preference: 0, name: String::new() }]);
        let none = answer(&query, mx_answer(query.octets(), 300, &[])).exchangers();
        assert_eq!(none, Records { found: vec![], ttl: None });
    }

    #[test]
    fn an_answer_to_another_question_is_none() {
        let (ours, theirs) = (query(), Query::new("contoso.com", Wanted::Mx, 0x4321).unwrap());
        assert!(ours.read(mx_answer(theirs.octets(), 300, &[])).is_none());
        let other = Query::new("fabrikam.com", Wanted::Mx, 0x1234).unwrap();
        assert!(ours.read(mx_answer(other.octets(), 300, &[])).is_none());
        assert!(ours.read(ours.octets().to_vec()).is_none(), "a question is no answer");
        assert!(ours.read(vec![0; 3]).is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_octets_do_harm(octets: Vec<u8>, spoilt: Vec<(u8, u8)>) {
            let query = query();
            assert!(query.read(octets).is_none());
            let mut answer = mx_answer(query.octets(), 300, &[(10, "a.example"), (20, "b.example")]);
            for (at, value) in spoilt {
                let len = answer.len();
                answer[usize::from(at) % len] = value;
            }
            if let Some(Reply::Answer(answer)) = query.read(answer) {
                assert!(answer.exchangers().found.len() <= 2);
                assert!(answer.addresses().found.len() <= 2);
                assert!(answer.texts().found.len() <= 2 && answer.aliases().found.len() <= 2);
            }
        }
    }

    #[test]
    fn trouble_of_a_server_and_a_truncated_answer_are_told_apart() {
        let query = query();
        let mut failed = mx_answer(query.octets(), 300, &[]);
        failed[3] |= 2;
        assert!(matches!(query.read(failed), Some(Reply::Failed(code)) if code == "SERVFAIL"));
        let mut truncated = mx_answer(query.octets(), 300, &[]);
        truncated[2] |= 2;
        assert!(matches!(query.read(truncated), Some(Reply::Truncated)));
        let mut unknown = mx_answer(query.octets(), 300, &[]);
        unknown[3] |= 3;
        assert!(answer(&query, unknown).exchangers().found.is_empty());
    }
}
