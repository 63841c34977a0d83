//! What a gateway answers to a peer that does not keep to the rules, or to the bounds.

use std::sync::Arc;

use mailroute_route::file::DeliveryMode::Queue;
use mailroute_route::identity::Role;
use mailroute_sidecar::config::Config;
use mailroute_sidecar::gateway::identity::Identity;
use mailroute_sidecar::smtp::reply::Reply;
use mailroute_sidecar::spool::{Progress, RecipientStatus, format};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::certified;
use crate::kept::down;
use crate::once::sample;
use crate::pods::{Pod, Pods};

struct Talk {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

impl Talk {
    async fn with(pods: &Pods, gateway: &Pod) -> Self {
        let config = Config { route: Some(Arc::new(pods.route.clone())), ..Config::default() };
        let (_sender, config) = watch::channel(config);
        let identity = Identity::new(config, Role::Sidecar);
        identity.set(certified(&pods.authority.signed(Role::Sidecar, &pods.route.name, "web-0")));
        let (config, name) = identity.client().await.unwrap();
        let stream = TcpStream::connect(gateway.gateway_address()).await.unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        let mut this = Self { stream, buffer: vec![] };
        assert_eq!(this.reply().await.unwrap().code, 220);
        this
    }

    async fn say(&mut self, octets: &[u8]) -> Reply {
        self.stream.write_all(octets).await.unwrap();
        self.stream.flush().await.unwrap();
        self.reply().await.expect("an answer")
    }

    /// Nothing when the connection has ended.
    async fn reply(&mut self) -> Option<Reply> {
        loop {
            if let Some((reply, taken)) = Reply::parse(&self.buffer).unwrap() {
                self.buffer.drain(..taken);
                return Some(reply);
            }
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                return None;
            }
        }
    }
}

/// The octets of `XSPOOL` for message number `n`, changed on the way.
fn transfer(n: u64, change: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>, &mut Vec<u8>)) -> Vec<u8> {
    let (entry, body) = sample(n);
    let mut head = format::encode_entry(&entry, body.len(), body.crc32()).unwrap();
    let mut state = format::encode_progress(&Progress::fresh(&entry)).unwrap();
    let mut message = crate::client::message(&format!("m{n}")).into_bytes();
    change(&mut head, &mut state, &mut message);
    let id = &entry.envelope.id;
    let command = format!("XSPOOL {id} Queue {} {} {}\r\n", head.len(), state.len(), message.len());
    [command.as_bytes(), &head, &state, &message].concat()
}

#[tokio::test]
async fn only_what_belongs_together_is_taken_over() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    down(&pods.m365, true).await;
    let mut talk = Talk::with(&pods, &gateway).await;
    let hello = talk.say(b"EHLO web-0\r\n").await;
    assert!(hello.code == 250 && hello.lines.contains(&"XSPOOL".to_owned()), "{hello}");
    let other = transfer(2, |_, _, _| {});
    let octets_of_other = |head: &mut Vec<u8>, _: &mut Vec<u8>, _: &mut Vec<u8>| {
        let (entry, body) = sample(3);
        *head = format::encode_entry(&entry, body.len(), body.crc32()).unwrap();
    };
    let cases: [(&str, Vec<u8>); 6] = [
        ("a head that is cut off", transfer(1, |head, _, _| head.truncate(head.len() - 1))),
        ("a head with more behind it", transfer(1, |head, _, _| head.push(b'x'))),
        ("the head of another message", transfer(1, octets_of_other)),
        (
            "a progress of other recipients",
            transfer(1, |_, state, _| {
                let mut entry = sample(1).0;
                entry.envelope.recipients.pop();
                *state = format::encode_progress(&Progress::fresh(&entry)).unwrap();
            }),
        ),
        ("a message of another length", transfer(1, |_, _, message| message.push(b'x'))),
        ("other octets", transfer(1, |_, _, message| message[0] ^= 1)),
    ];
    for (what, octets) in cases {
        let answer = talk.say(&octets).await;
        assert_eq!(answer.code, 554, "{what}: {answer}");
        assert_eq!(gateway.app.queue().figures().messages, 0, "{what}");
    }
    let answer = talk.say(&other).await;
    assert_eq!(answer.code, 250, "the session goes on: {answer}");
    assert_eq!(talk.say(b"NOOP\r\n").await.code, 250);
    assert_eq!(talk.say(b"QUIT\r\n").await.code, 221);
    assert!(talk.reply().await.is_none());
    assert_eq!(gateway.app.queue().figures().messages, 1);
}

/// What a sidecar of the first version sends for message number 1: the message, and that one recipient has it. Never changed: a later
/// version that sends something else adds a sample of its own, and gateways go on taking this one.
const FIRST_XSPOOL: &[u8] = include_bytes!("samples/xspool-1");
const FIRST_XSTATE: &[u8] = include_bytes!("samples/xstate-1");

#[tokio::test]
async fn what_the_first_version_hands_over_is_taken_over() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    down(&pods.m365, true).await;
    let (entry, body) = sample(1);
    let id = &entry.envelope.id;
    let mut talk = Talk::with(&pods, &gateway).await;
    assert_eq!(talk.say(b"EHLO web-0\r\n").await.code, 250);
    let answer = talk.say(FIRST_XSPOOL).await;
    assert_eq!(answer.code, 250, "{answer}");
    let kept = gateway.app.queue().show(id).await.unwrap().kept;
    assert_eq!((&kept.entry, kept.body.crc32()), (&entry, body.crc32()));
    // Refused while the gateway itself tries the message.
    let mut answer = talk.say(FIRST_XSTATE).await;
    while answer.code == 451 {
        answer = talk.say(FIRST_XSTATE).await;
    }
    assert_eq!(answer.code, 250, "{answer}");
    let kept = gateway.app.queue().show(id).await.unwrap().kept;
    assert_eq!(kept.progress.statuses, [RecipientStatus::Delivered, RecipientStatus::Waiting]);
}

#[test]
fn what_is_sent_today_is_what_the_first_version_sent() {
    let transfer = transfer(1, |_, _, _| {});
    assert_eq!(String::from_utf8_lossy(&transfer), String::from_utf8_lossy(FIRST_XSPOOL));
    let (entry, _) = sample(1);
    let mut progress = Progress::fresh(&entry);
    progress.statuses[0] = RecipientStatus::Delivered;
    let state = format::encode_progress(&progress).unwrap();
    let command = format!("XSTATE {} {}\r\n", entry.envelope.id, state.len());
    let update = [command.as_bytes(), &state].concat();
    assert_eq!(String::from_utf8_lossy(&update), String::from_utf8_lossy(FIRST_XSTATE));
}

#[tokio::test]
async fn what_announces_too_much_or_is_no_command_ends_the_session() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    let id = &sample(1).0.envelope.id;
    let cases = [
        (format!("XSPOOL {id} Queue 1 1 {}\r\n", 161 * 1024 * 1024), 552),
        (format!("XSPOOL {id} Queue {} 1 1\r\n", 5 * 1024 * 1024), 552),
        (format!("XSTATE {id} 0\r\n"), 501),
        ("MAIL FROM:<a@b.example>\r\n".into(), 500),
    ];
    for (line, code) in cases {
        let mut talk = Talk::with(&pods, &gateway).await;
        assert_eq!(talk.say(line.as_bytes()).await.code, code, "{line}");
        assert!(talk.reply().await.is_none());
    }
    let mut talk = Talk::with(&pods, &gateway).await;
    talk.stream.write_all(&[b'x'; 2000]).await.unwrap();
    assert!(talk.reply().await.is_none(), "a line without end");
}

#[tokio::test]
async fn a_message_that_is_cut_off_leaves_nothing_behind() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    down(&pods.m365, true).await;
    let whole = transfer(1, |_, _, _| {});
    let mut talk = Talk::with(&pods, &gateway).await;
    talk.stream.write_all(&whole[..whole.len() - 1]).await.unwrap();
    talk.stream.flush().await.unwrap();
    drop(talk);
    let mut talk = Talk::with(&pods, &gateway).await;
    // While the gateway still waits for the rest of the first one, the second is not taken.
    while talk.say(&whole).await.code != 250 {}
    assert_eq!(gateway.app.queue().figures().messages, 1);
}

#[tokio::test]
async fn an_address_has_a_few_connections_and_no_more() {
    let (pods, gateway) = Pods::with_gateway(Queue).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(Talk::with(&pods, &gateway).await);
    }
    let mut one_more = TcpStream::connect(gateway.gateway_address()).await.unwrap();
    let mut octet = [0];
    assert!(!matches!(one_more.read(&mut octet).await, Ok(1..)), "closed without a word");
    assert_eq!(open[7].say(b"NOOP\r\n").await.code, 250);
}
