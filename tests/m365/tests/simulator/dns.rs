//! The name server over UDP and TCP, asked as a stub resolver does it.

use std::time::Duration;

use domain::{
    base::{Message, MessageBuilder, Name, Rtype, iana::Rcode},
    rdata::{A, Mx},
};
use mailroute_m365::{
    DnsAction, DnsFaults, Faults, Options, Rule, Simulator,
    dns::{Transport, zone::Kind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

const HOST: &str = "contoso-com.mail.protection.outlook.com";

async fn start() -> Simulator {
    Simulator::start(Options::default()).await.unwrap()
}

fn question(name: &str, kind: Rtype) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(7);
    let mut question = builder.question();
    question.push((Name::vec_from_str(name).unwrap(), kind)).unwrap();
    question.finish()
}

async fn udp(simulator: &Simulator, name: &str, kind: Rtype) -> Message<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question(name, kind), simulator.dns_address()).await.unwrap();
    let mut octets = vec![0; 4096];
    let length = timeout(Duration::from_secs(20), socket.recv(&mut octets)).await.unwrap().unwrap();
    octets.truncate(length);
    Message::from_octets(octets).unwrap()
}

async fn tcp(simulator: &Simulator, name: &str, kind: Rtype) -> Option<Message<Vec<u8>>> {
    let mut stream = TcpStream::connect(simulator.dns_address()).await.unwrap();
    let question = question(name, kind);
    stream.write_u16(u16::try_from(question.len()).unwrap()).await.unwrap();
    stream.write_all(&question).await.unwrap();
    let mut octets = vec![0; usize::from(stream.read_u16().await.ok()?)];
    stream.read_exact(&mut octets).await.unwrap();
    Some(Message::from_octets(octets).unwrap())
}

fn exchangers(message: &Message<Vec<u8>>) -> Vec<(u16, String, u32)> {
    let records = message.answer().unwrap().limit_to::<Mx<_>>().map(Result::unwrap);
    records
        .map(|record| {
            let mx = record.data();
            (mx.preference(), mx.exchange().to_string(), record.ttl().as_secs())
        })
        .collect()
}

fn faults(simulator: &Simulator, action: DnsAction) {
    let rules = vec![Rule::always(Kind::Mx, action)];
    simulator.set_faults(Faults { dns: DnsFaults { rules }, ..Faults::default() });
}

#[tokio::test]
async fn an_accepted_domain_leads_to_the_mx_endpoint() {
    let simulator = start().await;
    simulator.config(|config| config.dns.ttl_seconds = 5);
    let found = exchangers(&udp(&simulator, "contoso.com", Rtype::MX).await);
    assert_eq!(found, [(0, HOST.to_owned(), 5)]);
    let addresses = tcp(&simulator, HOST, Rtype::A).await.unwrap();
    let address = addresses.answer().unwrap().limit_to::<A>().next().unwrap().unwrap();
    assert_eq!(address.data().addr().to_string(), "127.0.0.1");
    assert_eq!(udp(&simulator, "fabrikam.com", Rtype::MX).await.header().rcode(), Rcode::NXDOMAIN);
    let asked: Vec<_> =
        simulator.lookups().into_iter().map(|lookup| (lookup.name, lookup.transport)).collect();
    assert_eq!(
        asked,
        [
            ("contoso.com".to_owned(), Transport::Udp),
            (HOST.to_owned(), Transport::Tcp),
            ("fabrikam.com".to_owned(), Transport::Udp),
        ]
    );
}

#[tokio::test]
async fn faults_answer_in_the_place_of_the_zone() {
    let simulator = start().await;
    for (action, code) in [
        (DnsAction::ServFail, Rcode::SERVFAIL),
        (DnsAction::Refused, Rcode::REFUSED),
        (DnsAction::NxDomain, Rcode::NXDOMAIN),
        (DnsAction::NoData, Rcode::NOERROR),
    ] {
        faults(&simulator, action);
        let message = udp(&simulator, "contoso.com", Rtype::MX).await;
        assert_eq!((message.header().rcode(), exchangers(&message).len()), (code, 0));
    }
    faults(&simulator, DnsAction::NullMx);
    assert_eq!(exchangers(&udp(&simulator, "contoso.com", Rtype::MX).await)[0].1, "", "the root");
    faults(&simulator, DnsAction::ForeignMx("mx.example".into()));
    assert_eq!(exchangers(&udp(&simulator, "contoso.com", Rtype::MX).await)[0].1, "mx.example");
}

#[tokio::test]
async fn a_truncated_answer_is_whole_over_tcp_and_silence_cuts_there() {
    let simulator = start().await;
    faults(&simulator, DnsAction::Truncate);
    assert!(udp(&simulator, "contoso.com", Rtype::MX).await.header().tc());
    assert_eq!(exchangers(&tcp(&simulator, "contoso.com", Rtype::MX).await.unwrap()).len(), 1);
    faults(&simulator, DnsAction::Silence);
    assert!(tcp(&simulator, "contoso.com", Rtype::MX).await.is_none());
}
