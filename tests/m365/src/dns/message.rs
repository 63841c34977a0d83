//! DNS messages (RFC 1035) as values: a question in, records out.
//!
//! Pure. It refuses to know sockets and the directory.

use domain::{
    base::{Message, MessageBuilder, Name, Rtype, Ttl, iana::Rcode, message_builder::AnswerBuilder},
    rdata::{A, Aaaa, Cname, Mx, Txt},
};

use super::zone::{Data, Kind, Record};

/// Most octets of an answer over UDP to who does not say how much it takes (RFC 1035 section 2.3.4).
const PLAIN_UDP: usize = 512;

/// A question.
#[derive(Clone, Debug)]
pub struct Query {
    message: Message<Vec<u8>>,
    /// The name, lower case, without final dot.
    pub name: String,
    /// What of it.
    pub kind: Kind,
}

impl Query {
    /// Reads a message; `None` when it is no single question.
    pub fn read(octets: &[u8]) -> Option<Self> {
        let message = Message::from_octets(octets.to_vec()).ok()?;
        if message.header().qr() {
            return None;
        }
        let question = message.sole_question().ok()?;
        let name = question.qname().to_string().trim_end_matches('.').to_ascii_lowercase();
        let kind = match question.qtype() {
            Rtype::MX => Kind::Mx,
            Rtype::A => Kind::A,
            Rtype::AAAA => Kind::Aaaa,
            Rtype::TXT => Kind::Txt,
            Rtype::CNAME => Kind::Cname,
            _ => Kind::Other,
        };
        Some(Self { message, name, kind })
    }

    /// The answer with these records; without them there is no such name. Over UDP what does not fit is left out and
    /// the answer says so. A record that cannot be written is left out.
    pub fn answer(&self, records: Option<&[Record]>, ttl: u32, udp: bool) -> Option<Vec<u8>> {
        let code = if records.is_some() { Rcode::NOERROR } else { Rcode::NXDOMAIN };
        let mut answer = self.start(code)?;
        for record in records.unwrap_or_default() {
            // `None` is a configured name or text that DNS cannot carry.
            let _ = push(&mut answer, record, Ttl::from_secs(ttl));
        }
        let octets = answer.finish();
        if udp && octets.len() > self.room() { self.truncated() } else { Some(octets) }
    }

    /// An answer that says nothing but this code.
    pub fn failed(&self, code: Rcode) -> Option<Vec<u8>> {
        Some(self.start(code)?.finish())
    }

    /// An answer that says nothing but that it does not fit.
    pub fn truncated(&self) -> Option<Vec<u8>> {
        let mut answer = self.start(Rcode::NOERROR)?;
        answer.header_mut().set_tc(true);
        Some(answer.finish())
    }

    fn room(&self) -> usize {
        self.message.opt().map_or(PLAIN_UDP, |opt| usize::from(opt.udp_payload_size()).max(PLAIN_UDP))
    }

    fn start(&self, code: Rcode) -> Option<AnswerBuilder<Vec<u8>>> {
        let mut answer = MessageBuilder::new_vec().start_answer(&self.message, code).ok()?;
        answer.header_mut().set_aa(true);
        answer.header_mut().set_ra(true);
        Some(answer)
    }
}

fn push(answer: &mut AnswerBuilder<Vec<u8>>, record: &Record, ttl: Ttl) -> Option<()> {
    let owner = absolute(&record.name)?;
    match &record.data {
        Data::Mx { preference, host } => answer.push((owner, ttl, Mx::new(*preference, absolute(host)?))),
        Data::A(address) => answer.push((owner, ttl, A::new(*address))),
        Data::Aaaa(address) => answer.push((owner, ttl, Aaaa::new(*address))),
        Data::Cname(target) => answer.push((owner, ttl, Cname::new(absolute(target)?))),
        Data::Txt(text) => answer.push((owner, ttl, Txt::<Vec<u8>>::build_from_slice(text.as_bytes()).ok()?)),
    }
    .ok()
}

/// The empty name is the root.
fn absolute(name: &str) -> Option<Name<Vec<u8>>> {
    Name::vec_from_str(if name.is_empty() { "." } else { name }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(name: &str, kind: Rtype) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(7);
        builder.header_mut().set_rd(true);
        let mut question = builder.question();
        question.push((Name::vec_from_str(name).unwrap(), kind)).unwrap();
        question.finish()
    }

    fn record(data: Data) -> Record {
        Record { name: "contoso.com".into(), data }
    }

    #[test]
    fn a_question_is_read_and_an_answer_belongs_to_it() {
        let query = Query::read(&question("Contoso.COM", Rtype::MX)).unwrap();
        assert_eq!((query.name.as_str(), query.kind), ("contoso.com", Kind::Mx));
        let records = [
            record(Data::Mx { preference: 10, host: "mx.example".into() }),
            record(Data::Mx { preference: 0, host: String::new() }),
        ];
        let answer = Message::from_octets(query.answer(Some(&records), 60, true).unwrap()).unwrap();
        assert!(answer.is_answer(&query.message));
        let found: Vec<_> =
            answer.answer().unwrap().limit_to::<Mx<_>>().map(|record| record.unwrap()).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].ttl().as_secs(), found[0].data().preference()), (60, 10));
        assert_eq!(found[0].data().exchange().to_string(), "mx.example");
    }

    #[test]
    fn no_name_no_record_and_trouble_are_told_apart() {
        let query = Query::read(&question("contoso.com", Rtype::A)).unwrap();
        let code = |octets: Option<Vec<u8>>| Message::from_octets(octets.unwrap()).unwrap().header().rcode();
        assert_eq!(code(query.answer(None, 60, true)), Rcode::NXDOMAIN);
        assert_eq!(code(query.answer(Some(&[]), 60, true)), Rcode::NOERROR);
        assert_eq!(code(query.failed(Rcode::SERVFAIL)), Rcode::SERVFAIL);
    }

    #[test]
    fn what_does_not_fit_a_datagram_is_asked_for_again() {
        let query = Query::read(&question("contoso.com", Rtype::TXT)).unwrap();
        let long = [record(Data::Txt("x".repeat(600)))];
        let is_truncated = |udp| {
            let octets = query.answer(Some(&long), 60, udp).unwrap();
            Message::from_octets(octets).unwrap().header().tc()
        };
        assert!(is_truncated(true));
        assert!(!is_truncated(false));
    }

    #[test]
    fn garbage_is_no_question() {
        assert!(Query::read(&[]).is_none());
        assert!(Query::read(&[0; 12]).is_none());
        let mut answer = question("contoso.com", Rtype::A);
        answer[2] |= 0x80;
        assert!(Query::read(&answer).is_none());
        for length in 0..answer.len() {
            drop(Query::read(&answer[..length]));
        }
    }
}
