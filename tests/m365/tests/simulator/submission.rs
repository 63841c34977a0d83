//! Submission over real sockets: a token's whole way, connections side by side, and faces that go down.

use std::{io, time::Duration};

use mailroute_m365::{
    Config, Faults, Kind, LoginFaults, Message, Options, Rule, Simulator, SmtpAction, SmtpFaults, Stage,
    SubmissionFaults,
    config::Record,
    directory::{SAMPLE_CLIENT_ID, SAMPLE_MAILBOX, SAMPLE_SUBJECT, SAMPLE_TENANT},
    submission::xoauth2,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::client::{Form, tls_over, token};

const PATIENCE: Duration = Duration::from_secs(20);

const MESSAGE: &str = "From: Shop <noreply@contoso.com>\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\
                       Message-ID: <one@contoso.com>\r\nSubject: Gr=?utf-8?q?=C3=BC?=\u{df}e\r\n\r\nHello\r\n..\r\nBye\r\n.\r\n";

pub type Smtp = BufReader<TlsStream<TcpStream>>;

async fn start() -> Simulator {
    Simulator::start(Options::default()).await.unwrap()
}

async fn say(stream: &mut Smtp, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    reply(stream).await
}

/// The last line of a reply.
async fn reply(stream: &mut Smtp) -> String {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.as_bytes().get(3) != Some(&b'-') {
            return line;
        }
    }
}

async fn secure(simulator: &Simulator, name: &str) -> Smtp {
    let mut plain = BufReader::new(TcpStream::connect(simulator.smtp_address()).await.unwrap());
    let mut line = String::new();
    plain.read_line(&mut line).await.unwrap();
    plain.write_all(b"HELO shop-1.example\r\n").await.unwrap();
    plain.read_line(&mut line).await.unwrap();
    plain.write_all(b"STARTTLS\r\n").await.unwrap();
    plain.read_line(&mut line).await.unwrap();
    BufReader::new(tls_over(simulator, plain.into_inner(), name).await)
}

pub async fn log_in(simulator: &Simulator, access_token: &str) -> Smtp {
    let mut stream = secure(simulator, "localhost").await;
    say(&mut stream, "EHLO shop-1.example\r\n").await;
    let answer =
        say(&mut stream, &format!("AUTH XOAUTH2 {}\r\n", xoauth2::render(SAMPLE_MAILBOX, access_token)))
            .await;
    assert!(answer.starts_with("235 "), "{answer}");
    stream
}

/// One message that is accepted.
pub async fn accept_one(stream: &mut Smtp) {
    open_message(stream).await;
    assert!(say(stream, MESSAGE).await.starts_with("250 "));
}

/// MAIL, RCPT and DATA up to 354.
async fn open_message(stream: &mut Smtp) {
    say(stream, "MAIL FROM:<noreply@contoso.com> BODY=8BITMIME\r\n").await;
    say(stream, "RCPT TO:<alice@example.com>\r\n").await;
    assert!(say(stream, "DATA\r\n").await.starts_with("354 "));
}

#[tokio::test]
async fn a_token_from_the_endpoint_opens_the_mailbox_and_the_message_tells_whose_it_was() {
    let simulator = start().await;
    let issued = token(&simulator, &Form::sample(&simulator)).await.unwrap().json();
    let mut stream = log_in(&simulator, issued["access_token"].as_str().unwrap()).await;
    open_message(&mut stream).await;
    assert!(say(&mut stream, MESSAGE).await.starts_with("250 2.0.0 OK <one@contoso.com> [Hostname="));

    let messages = simulator.wait_for_messages(1, PATIENCE).await;
    let Message { mailbox, mail_from, mail_parameters, data, token, connection, .. } = &messages[0];
    assert_eq!((mailbox.as_str(), mail_from.as_str()), (SAMPLE_MAILBOX, SAMPLE_MAILBOX));
    assert_eq!(mail_parameters, &["BODY=8BITMIME"]);
    assert_eq!(messages[0].recipient_addresses(), ["alice@example.com"]);
    assert_eq!(messages[0].header("from"), Some("Shop <noreply@contoso.com>"));
    assert_eq!(messages[0].body(), b"Hello\r\n.\r\nBye\r\n");
    assert_eq!(data.len(), MESSAGE.len() - ".\r\n".len() - 1);
    assert_eq!(token.assertion_subject, SAMPLE_SUBJECT);
    assert_eq!((token.tenant.as_str(), token.client_id.as_str()), (SAMPLE_TENANT, SAMPLE_CLIENT_ID));
    assert_eq!((connection.sni.as_deref(), connection.ehlo.as_str()), (Some("localhost"), "shop-1.example"));
    assert_eq!(connection.tls_version.as_deref(), Some("TLSv1_3"));
    assert_eq!(simulator.violations(), []);
}

#[tokio::test]
async fn a_large_message_arrives_byte_for_byte() {
    let simulator = start().await;
    let mut stream = log_in(&simulator, &simulator.access_token(SAMPLE_SUBJECT, 600)).await;
    open_message(&mut stream).await;
    let line = format!("{}\r\n", "x".repeat(998));
    let body = line.repeat(10 * 1024);
    let head = &MESSAGE[..MESSAGE.find("Hello").unwrap()];
    stream.write_all(format!("{head}{body}.\r\n").as_bytes()).await.unwrap();
    assert!(reply(&mut stream).await.starts_with("250 "));
    assert_eq!(simulator.messages()[0].body(), body.as_bytes());
}

#[tokio::test]
async fn the_fourth_submitting_connection_of_a_mailbox_is_one_too_many() {
    let simulator = start().await;
    let access_token = simulator.access_token(SAMPLE_SUBJECT, 600);
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = log_in(&simulator, &access_token).await;
        open_message(&mut stream).await;
        streams.push(stream);
    }
    let fourth = say(&mut streams[3], MESSAGE).await;
    assert!(fourth.starts_with("432 4.3.2 Concurrent connections limit exceeded."), "{fourth}");
    assert!(say(&mut streams[0], MESSAGE).await.starts_with("250 "));
    open_message(&mut streams[3]).await;
    assert!(say(&mut streams[3], MESSAGE).await.starts_with("250 "), "a place is free again");
    let kinds: Vec<Kind> = simulator.violations().into_iter().map(|violation| violation.kind).collect();
    assert_eq!(kinds, [Kind::SubmittingConnections]);
    let statistics = simulator.statistics();
    assert_eq!((statistics.tally.messages, statistics.tally.refusals("432")), (2, 1));
    let peak = statistics.mailboxes[SAMPLE_MAILBOX];
    assert_eq!((peak.submitting_connections, peak.messages_in_minute), (4, 5));
    assert_eq!(peak.recipients_in_day, 2);
}

#[tokio::test]
async fn a_connection_that_is_cut_gives_its_place_back() {
    let mut config = Options::default().config;
    config.limits.submitting_connections = 1;
    let simulator = Simulator::start(Options { config, ..Options::default() }).await.unwrap();
    let access_token = simulator.access_token(SAMPLE_SUBJECT, 600);
    let mut first = log_in(&simulator, &access_token).await;
    open_message(&mut first).await;
    drop(first);
    simulator.wait_for(PATIENCE, |office| (office.connections == 0).then_some(())).await.unwrap();
    let mut second = log_in(&simulator, &access_token).await;
    open_message(&mut second).await;
    assert!(say(&mut second, MESSAGE).await.starts_with("250 "));
}

#[tokio::test]
async fn a_wrong_server_name_in_the_handshake_is_noted() {
    let options = Options { names: vec!["localhost".into(), "127.0.0.1".into()], ..Options::default() };
    let simulator = Simulator::start(options).await.unwrap();
    let mut stream = secure(&simulator, "127.0.0.1").await;
    say(&mut stream, "QUIT\r\n").await;
    let kinds: Vec<Kind> = simulator.violations().into_iter().map(|violation| violation.kind).collect();
    assert_eq!(kinds, [Kind::WrongServerName]);
}

#[tokio::test]
async fn a_face_that_is_down_refuses_cuts_and_comes_back_on_its_port() {
    let simulator = start().await;
    let mut open = secure(&simulator, "localhost").await;
    let down = Faults {
        submission: SubmissionFaults { down: true, ..SubmissionFaults::default() },
        relay: SmtpFaults { down: true, ..SmtpFaults::default() },
        login: LoginFaults { down: true, ..LoginFaults::default() },
        ..Faults::default()
    };
    simulator.set_faults(down);
    simulator.wait_until_settled().await;
    for address in [simulator.smtp_address(), simulator.relay_address(), simulator.login_address()] {
        let refused = TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
    assert!(
        open.read_to_end(&mut Vec::new()).await.is_err(),
        "the open connection was cut without close_notify"
    );
    simulator.set_faults(Faults::default());
    simulator.wait_until_settled().await;
    say(&mut secure(&simulator, "localhost").await, "QUIT\r\n").await;
    assert_eq!(token(&simulator, &Form::sample(&simulator)).await.unwrap().status, 200);
}

#[tokio::test]
async fn an_idle_connection_is_told_and_closed() {
    let mut config = Options::default().config;
    config.pace.idle_seconds = 0;
    let simulator = Simulator::start(Options { config, ..Options::default() }).await.unwrap();
    let mut stream = TcpStream::connect(simulator.smtp_address()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.lines().nth(1).unwrap().starts_with("421 4.4.1 Connection timed out ["), "{said}");
}

#[tokio::test]
async fn a_slow_reply_holds_its_place_among_submitting_connections() {
    let mut config = Options::default().config;
    config.limits.submitting_connections = 1;
    let simulator = Simulator::start(Options { config, ..Options::default() }).await.unwrap();
    let rules = vec![Rule::times(Stage::EndOfData, SmtpAction::Delay(600_000), 1)];
    simulator.set_faults(Faults {
        submission: SubmissionFaults { rules, ..SubmissionFaults::default() },
        ..Faults::default()
    });
    let access_token = simulator.access_token(SAMPLE_SUBJECT, 600);
    let mut slow = log_in(&simulator, &access_token).await;
    open_message(&mut slow).await;
    slow.write_all(MESSAGE.as_bytes()).await.unwrap();
    slow.flush().await.unwrap();
    assert_eq!(simulator.wait_for_messages(1, PATIENCE).await.len(), 1);
    let mut second = log_in(&simulator, &access_token).await;
    open_message(&mut second).await;
    assert!(say(&mut second, MESSAGE).await.starts_with("432 4.3.2 Concurrent connections"));
}

#[tokio::test]
async fn a_sink_counts_messages_and_keeps_the_newest_or_none() {
    let mut config = Options::default().config;
    config.limits.messages_per_minute = 0;
    config.record = Record { messages: Some(2), inspect: true };
    let simulator = Simulator::start(Options { config, ..Options::default() }).await.unwrap();
    let mut stream = log_in(&simulator, &simulator.access_token(SAMPLE_SUBJECT, 600)).await;
    for count in 1..=6 {
        if count == 4 {
            assert_eq!(simulator.messages().iter().map(|message| message.id).collect::<Vec<_>>(), [2, 3]);
            simulator.config(|config| config.record = Record { messages: Some(0), inspect: false });
        }
        open_message(&mut stream).await;
        assert!(say(&mut stream, MESSAGE).await.starts_with("250 2.0.0 OK <"));
    }
    assert!(simulator.messages().len() < 2);
    let tally = simulator.statistics().tally;
    assert_eq!((tally.messages, tally.bytes), (6, 6 * (MESSAGE.len() as u64 - 4)));
}

#[tokio::test]
async fn a_configuration_that_contradicts_itself_does_not_start() {
    let mut config = Config::contoso();
    config.directory.tenants[0].domains.clear();
    let error = Simulator::start(Options { config, ..Options::default() }).await.unwrap_err();
    assert!(error.to_string().contains("at least one entry in `domains`"), "{error}");
}
