//! The MX endpoint over real sockets: what is recorded, and handshakes that go wrong.

use std::time::Duration;

use mailroute_m365::{
    Face, Faults, Kind, Options, Simulator, SmtpFaults,
    directory::SAMPLE_TENANT,
    faults::HandshakeFault,
    relay::attribution::{Attribution, By},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::client::{control, try_tls_over};

const PATIENCE: Duration = Duration::from_secs(20);

const MESSAGE: &str = "MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n";

const DATA: &str = "From: noreply@contoso.com\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\
                    Message-ID: <one@contoso.com>\r\n\r\nHello\r\n.\r\n";

async fn start(connectors: &str) -> Simulator {
    let mut options = Options::default();
    options.config.directory.tenants[0].inbound_connectors = serde_json::from_str(connectors).unwrap();
    Simulator::start(options).await.unwrap()
}

/// A connection that is about to begin the handshake.
async fn before_tls(simulator: &Simulator) -> TcpStream {
    let mut plain = BufReader::new(TcpStream::connect(simulator.relay_address()).await.unwrap());
    let mut line = String::new();
    plain.read_line(&mut line).await.unwrap();
    for command in ["HELO shop-1.example\r\n", "STARTTLS\r\n"] {
        plain.write_all(command.as_bytes()).await.unwrap();
        line.clear();
        plain.read_line(&mut line).await.unwrap();
        assert!(line.starts_with('2'), "{line}");
    }
    plain.into_inner()
}

async fn read_lines(stream: &mut (impl AsyncBufReadExt + Unpin), count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..count {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        lines.push(line.trim_end().to_owned());
    }
    lines
}

#[tokio::test]
async fn a_message_tells_by_which_face_connector_and_certificate_it_came() {
    let simulator = start(r#"[{"name": "tls", "tlsSenderCertificateName": "*.contoso.com"}]"#).await;
    let identity = simulator.relay_certificate(&["mail.contoso.com", "smtp.contoso.com"], 3600).unwrap();
    let plain = before_tls(&simulator).await;
    let host = "contoso-com.mail.protection.outlook.com";
    let stream = try_tls_over(&simulator, plain, host, Some(&identity)).await.unwrap();
    let mut stream = BufReader::new(stream);
    stream.write_all(format!("HELO shop-1.example\r\n{MESSAGE}").as_bytes()).await.unwrap();
    assert!(read_lines(&mut stream, 4).await[3].starts_with("354 "));
    stream.write_all(DATA.as_bytes()).await.unwrap();
    assert!(read_lines(&mut stream, 1).await[0].starts_with("250 2.6.0 <one@contoso.com> [InternalId="));

    let messages = simulator.wait_for_messages(1, PATIENCE).await;
    let connection = &messages[0].connection;
    assert_eq!((connection.face, connection.sni.as_deref()), (Face::Relay, Some(host)));
    let certificate = connection.certificate.as_ref().unwrap();
    assert_eq!(certificate.names, ["mail.contoso.com", "smtp.contoso.com"]);
    assert_eq!((certificate.sent, &certificate.distrusted), (2, &None));
    assert_eq!(
        messages[0].attribution,
        Some(Attribution {
            tenant: SAMPLE_TENANT.into(),
            by: By::Certificate,
            connector: Some("tls".into())
        })
    );
    assert_eq!((messages[0].mailbox.as_str(), messages[0].mail_from.as_str()), ("", "noreply@contoso.com"));
    let kinds: Vec<Kind> = simulator.violations().into_iter().map(|violation| violation.kind).collect();
    assert_eq!(kinds, [Kind::PipeliningPastGroup], "HELO is waited for; this client does not");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_trusted_once_the_configuration_adds_it() {
    let connectors = r#"[{"name": "tls", "tlsSenderCertificateName": "mail.contoso.com"}]"#;
    let (simulator, other) = (start(connectors).await, start("[]").await);
    let identity = other.relay_certificate(&["mail.contoso.com"], 3600).unwrap();
    for trusted in [false, true] {
        if trusted {
            simulator.config(|config| config.relay.trusted_roots.push(other.ca_pem().to_owned()));
        }
        let plain = before_tls(&simulator).await;
        let stream = try_tls_over(&simulator, plain, "localhost", Some(&identity)).await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(b"HELO shop-1.example\r\n").await.unwrap();
        read_lines(&mut stream, 1).await;
        stream.write_all(MESSAGE.as_bytes()).await.unwrap();
        let rcpt = read_lines(&mut stream, 2).await.remove(1);
        assert!(rcpt.starts_with(if trusted { "250 2.1.5" } else { "550 5.7.64" }), "{rcpt}");
    }
}

#[tokio::test]
async fn a_handshake_goes_wrong_as_the_faults_have_it() {
    let simulator = start("[]").await;
    let fault = |handshake| Faults { relay: SmtpFaults { handshake, ..<_>::default() }, ..<_>::default() };
    for (handshake, expected) in [
        (HandshakeFault::OtherName, "other-host.invalid"),
        (HandshakeFault::OldVersion, "ProtocolVersion"),
        (HandshakeFault::Cut, ""),
    ] {
        simulator.set_faults(fault(handshake));
        let plain = before_tls(&simulator).await;
        let error = try_tls_over(&simulator, plain, "localhost", None).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{handshake:?}: {error}");
    }
    simulator.set_faults(fault(HandshakeFault::Silence));
    let mut plain = before_tls(&simulator).await;
    plain.write_all(b"hello").await.unwrap();
    plain.shutdown().await.unwrap();
    assert_eq!(plain.read_to_end(&mut Vec::new()).await.unwrap(), 0, "nothing is said");
}

#[tokio::test]
async fn a_relay_certificate_is_given_over_the_control_api() {
    let simulator = start("[]").await;
    let path = "/sample/relay-certificate?name=mail.contoso.com,smtp.contoso.com&seconds=60";
    let given = control(&simulator, hyper::Method::GET, path, "").await.json();
    assert_eq!(given["chain"].as_str().unwrap().matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(given["leaf"].as_str().unwrap().matches("BEGIN CERTIFICATE").count(), 1);
    assert!(given["key"].as_str().unwrap().contains("PRIVATE KEY"));
    let bad = control(&simulator, hyper::Method::GET, "/sample/relay-certificate?name=caf%C3%A9", "").await;
    assert_eq!(bad.status, 400);
}
