//! Never an open relay: a table of attempts to send mail without a right to, all refused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::client::{Client, plain};
use crate::server::{Server, Setup, token};

const MAILBOX: &str = "noreply@contoso.com";
const VICTIM: &str = "victim@example.org";

/// Lines of a client that then sends a message; `<TLS>` is a handshake.
fn attempts() -> Vec<(&'static str, Vec<String>)> {
    let lines = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
    let under_tls = |more: &[&str]| lines(&[&["EHLO a", "STARTTLS", "<TLS>", "EHLO a"], more].concat());
    let expired = token("mailroute.dev", "shop", "b2xk");
    let valid = token("mailroute.dev", "shop", "c2lnbmVk");
    let foreign = token("https://kubernetes.default.svc", "shop", "c2lnbmVk");
    let elsewhere = token("mailroute.dev", "kube-system", "c2lnbmVk");
    let unnamed = token("mailroute.dev", "web", "c2lnbmVk");
    let misnamed = token("mailroute.dev/gateway/web/mail", "web", "c2lnbmVk");
    let unsigned = valid.rsplit_once('.').unwrap().0;
    let other = STANDARD.encode("bob\0ann\0secret");
    vec![
        ("without a greeting", vec![]),
        ("with HELO", lines(&["HELO a"])),
        ("before TLS", lines(&["EHLO a"])),
        ("login before TLS", lines(&["EHLO a", &plain("ann", "secret")])),
        ("login before TLS, step by step", lines(&["EHLO a", "AUTH LOGIN", "YW5u", "c2VjcmV0"])),
        ("before TLS, said to be logged in", lines(&["EHLO a", "XCLIENT LOGIN=ann", "AUTH ann"])),
        ("without a login", under_tls(&[])),
        ("without a greeting under TLS", lines(&["EHLO a", "STARTTLS", "<TLS>", &plain("ann", "secret")])),
        ("login, then TLS", lines(&["EHLO a", &plain("ann", "secret"), "STARTTLS", "<TLS>", "EHLO a"])),
        ("wrong password", under_tls(&[&plain("ann", "wrong")])),
        (
            "wrong password, then one that is given up",
            under_tls(&[&plain("ann", "wrong"), "AUTH PLAIN", "*"]),
        ),
        ("another's password", under_tls(&[&plain("ann", "geheim")])),
        ("unknown user", under_tls(&[&plain("eve", "secret")])),
        ("user name in another case", under_tls(&[&plain("ANN", "secret")])),
        ("no user name", under_tls(&[&plain("", "secret")])),
        ("no password", under_tls(&[&plain("ann", "")])),
        (
            "the hash as the password",
            under_tls(&[&plain("ann", "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW")]),
        ),
        ("in the name of another", under_tls(&[&format!("AUTH PLAIN {other}")])),
        (
            "another mechanism",
            under_tls(&["AUTH XOAUTH2 dXNlcj1hbm4=", "AUTH EXTERNAL =", "AUTH ANONYMOUS YW5u"]),
        ),
        ("no response", under_tls(&["AUTH PLAIN =", "AUTH PLAIN", ""])),
        ("expired token", under_tls(&[&plain("token", &expired)])),
        ("token of another audience", under_tls(&[&plain("token", &foreign)])),
        ("token of another namespace", under_tls(&[&plain("token", &elsewhere)])),
        ("token of a listed namespace for anybody", under_tls(&[&plain("token", &unnamed)])),
        ("token of a listed namespace for another gateway", under_tls(&[&plain("token", &misnamed)])),
        ("token without a signature", under_tls(&[&plain("token", &format!("{unsigned}."))])),
        ("token as the user name", under_tls(&[&plain(&valid, "x")])),
        (
            "other protocols",
            lines(&["EHLO a", "EXPN list", "VRFY victim", "HELP", "ETRN example.org", "TURN"]),
        ),
    ]
}

/// Whoever has not logged in gets no recipient accepted, whatever came before.
#[tokio::test]
async fn nobody_sends_who_has_not_logged_in() {
    // Failed logins make later ones wait: each attempt has a server of its own.
    for (name, lines) in attempts() {
        let server = Server::start().await;
        let mut client = Client::connect(server.address).await;
        for line in lines {
            if line == "<TLS>" {
                client = client.under_tls(&server.certificate).await.unwrap();
            } else {
                let reply = client.command(&line).await;
                assert_ne!(reply.code, 235, "{name}: {line}");
            }
        }
        for line in [
            format!("MAIL FROM:<{MAILBOX}>"),
            "MAIL FROM:<>".into(),
            format!("MAIL FROM:<{MAILBOX}> AUTH=ann@contoso.com"),
            format!("RCPT TO:<{VICTIM}>"),
            "DATA".into(),
        ] {
            let reply = client.command(&line).await;
            assert!(matches!(reply.code, 503 | 530), "{name}: {line}: {reply:?}");
        }
        drop(client);
        let taken = server.stop().await;
        assert!(taken.is_empty(), "{name}: {taken:#?}");
    }
}

/// Who has logged in sends as the route allows, and not as somebody else.
#[tokio::test]
async fn the_routes_rules_count_for_those_who_have_logged_in() {
    let server = Server::start().await;
    let mut client = Client::logged_in(&server).await;
    for from in ["ceo@contoso.com", VICTIM, "x@sub.alerts.contoso.com", "noreply%contoso.com@example.org"] {
        let reply = client.send(from, VICTIM).await;
        assert_eq!((reply.code, reply.enhanced.unwrap().detail), (550, 60), "{from}: {reply:?}");
        client.command("RSET").await;
    }
    // The header counts as well as the envelope.
    for line in ["MAIL FROM:<noreply@contoso.com>", "RCPT TO:<a@b.example>", "DATA"] {
        assert!(client.command(line).await.is_positive());
    }
    let reply = client.command("From: ceo@contoso.com\r\n\r\nx\r\n.").await;
    assert_eq!(reply.code, 550, "{reply:?}");
    // A source route and a percent sign are not followed: they are (part of) an address, and Microsoft decides on it.
    for (to, is) in
        [("@evil.example:a@b.example", "a@b.example"), ("a%b.example@contoso.com", "a%b.example@contoso.com")]
    {
        assert_eq!(client.send("x@alerts.contoso.com", to).await.code, 250, "{to}");
        assert_eq!(server.taken().last().unwrap().to, [is]);
    }
    assert_eq!(server.stop().await.len(), 2);
}

/// What is put behind a command in plain text, for it to be taken as if it came under TLS.
#[tokio::test]
async fn nothing_that_came_in_plain_counts_under_tls() {
    let server = Server::start().await;
    let message = "MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nx\r\n.\r\n";
    for injected in
        [message.to_owned(), format!("{}\r\n{message}", plain("ann", "secret")), "N".into(), "\r\n".into()]
    {
        let mut client = Client::connect(server.address).await;
        assert_eq!(client.command("EHLO a").await.code, 250);
        client.write(format!("STARTTLS\r\n{injected}").as_bytes()).await;
        let reply = client.reply().await;
        assert_eq!(reply.code, 503, "{injected:?}: {reply:?}");
        assert_eq!(client.next_reply().await, None, "{injected:?}");
    }
    // And what comes late is no handshake.
    let mut client = Client::connect(server.address).await;
    client.command("EHLO a").await;
    assert_eq!(client.command("STARTTLS").await.code, 220);
    client.write(message.as_bytes()).await;
    let rest = client.rest().await;
    assert!(!rest.windows(3).any(|part| part == b"250"), "{}", rest.escape_ascii());
    assert!(server.stop().await.is_empty());
}

#[tokio::test]
async fn other_protocols_are_shown_the_door() {
    let server = Server::start().await;
    for (said, code) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 554),
        ("POST / HTTP/1.1\r\n\r\nEHLO a\r\nMAIL FROM:<noreply@contoso.com>\r\n", 554),
        ("BDAT 5 LAST\r\nhello", 502),
        ("EHLO a\nMAIL FROM:<noreply@contoso.com>\n", 500),
        ("\x16\x03\x01\x02", 500),
    ] {
        let mut client = Client::connect(server.address).await;
        client.write(said.as_bytes()).await;
        assert_eq!(client.reply().await.code, code, "{said:?}");
        assert_eq!(client.next_reply().await, None, "{said:?}");
    }
    assert!(server.stop().await.is_empty());
}

#[tokio::test]
async fn while_the_operator_is_away_tokens_are_not_verified_and_users_are() {
    let server = Server::with(Setup { operator_away: true, ..Setup::default() }).await;
    let mut client = Client::secured(&server).await;
    let token = token("mailroute.dev", "shop", "c2lnbmVk");
    let reply = client.command(&plain("token", &token)).await;
    assert_eq!((reply.code, reply.enhanced.unwrap().to_string()), (454, "4.7.0".into()));
    assert_eq!(client.send(MAILBOX, VICTIM).await.code, 530);
    assert_eq!(client.command(&plain("ann", "secret")).await.code, 235);
    assert_eq!(client.send(MAILBOX, VICTIM).await.code, 250);
    assert_eq!(server.metric("mailroute_logins_total{result=\"unavailable\"}"), 1.0);
    assert_eq!(server.stop().await.len(), 1);
}

#[tokio::test]
async fn only_an_option_lets_strangers_in_and_the_rules_count_for_them() {
    let server = Server::with(Setup { arguments: vec!["--smtp-without-auth"], ..Setup::default() }).await;
    let mut client = Client::connect(server.address).await;
    client.command("EHLO a").await;
    assert_eq!(client.send("ceo@contoso.com", VICTIM).await.code, 550);
    assert_eq!(client.send(MAILBOX, VICTIM).await.code, 250);
    assert_eq!(client.command(&plain("ann", "secret")).await.code, 538, "no password without TLS");
    let mut client = Client::secured(&server).await;
    assert_eq!(client.send(MAILBOX, VICTIM).await.code, 250);
    assert_eq!(client.command(&plain("ann", "wrong")).await.code, 535);
    let taken = server.stop().await;
    let with =
        |with: &str| taken.iter().filter(|taken| taken.text.contains(&format!(" with {with} id "))).count();
    assert_eq!((taken.len(), with("ESMTP"), with("ESMTPS")), (2, 1, 1));
}
