//! AUTH: says a proof to the upstream, and what the answer to it means.
//!
//! XOAUTH2 for access tokens, with the initial response inline, since some servers refuse the other form; LOGIN for
//! passwords, the only password mechanism that Exchange Online offers. Refuses to know where proofs come from and what
//! follows from a refusal.
//!
//! Invariants: nothing is presented over a connection without verified TLS; what is presented is in no verdict and in no
//! error, even when the upstream echoes it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mailroute_route::condition::Reason;

use super::connection::{Connection, Protection};
use super::error::ConnectionError;
use super::login::Proof;
use crate::outcome::classify::{Stage, classify};
use crate::outcome::{DeliveryOutcome, Verdict};
use crate::secret::Secret;
use crate::smtp::reply::Reply;

/// The reply that asks for the next part of a proof.
const CHALLENGE: u16 = 334;

/// Logs in as `mailbox`. The inner error is the upstream's refusal.
///
/// # Errors
/// When there is no answer.
pub async fn log_in(
    connection: &mut Connection,
    mailbox: &str,
    proof: &Proof,
) -> Result<Result<(), Verdict>, ConnectionError> {
    if connection.protection == Protection::Plaintext {
        return Err(ConnectionError::LogInWithoutTls(connection.host.clone()));
    }
    let answer = match proof {
        Proof::Token(token) => xoauth2(connection, mailbox, &token.secret).await,
        Proof::Password(password) => login(connection, mailbox, password).await,
    };
    match answer {
        Ok(reply) if reply.code == 235 => Ok(Ok(())),
        Ok(reply) => Ok(Err(refused(reply, proof))),
        Err(error) => Err(redacted(error, proof.secret())),
    }
}

async fn xoauth2(
    connection: &mut Connection,
    mailbox: &str,
    token: &Secret,
) -> Result<Reply, ConnectionError> {
    offered(connection, connection.capabilities.xoauth2, "XOAUTH2")?;
    let initial = format!("user={mailbox}\x01auth=Bearer {}\x01\x01", token.expose());
    let command = format!("AUTH XOAUTH2 {}\r\n", STANDARD.encode(initial));
    let reply = connection.command(Stage::Auth, &command).await?;
    if reply.code != CHALLENGE {
        return Ok(reply);
    }
    // Some servers give their reason in a challenge and the verdict after an empty answer to it.
    connection.command(Stage::Auth, "\r\n").await
}

/// Name and password, each when it is asked for. What the challenges say is not looked at: there is no other order.
async fn login(
    connection: &mut Connection,
    mailbox: &str,
    password: &Secret,
) -> Result<Reply, ConnectionError> {
    offered(connection, connection.capabilities.login, "LOGIN")?;
    let mut reply = connection.command(Stage::Auth, "AUTH LOGIN\r\n").await?;
    for part in [mailbox, password.expose()] {
        if reply.code != CHALLENGE {
            return Ok(reply);
        }
        reply = connection.command(Stage::Auth, &format!("{}\r\n", STANDARD.encode(part))).await?;
    }
    Ok(reply)
}

fn offered(
    connection: &Connection,
    is_offered: bool,
    mechanism: &'static str,
) -> Result<(), ConnectionError> {
    let host = || connection.host.clone();
    if is_offered { Ok(()) } else { Err(ConnectionError::MechanismMissing { host: host(), mechanism }) }
}

/// What a refusal of `proof` means. Judged by what the upstream wrote, then freed of what was presented.
fn refused(mut reply: Reply, proof: &Proof) -> Verdict {
    let outcome = match (classify(Stage::Auth, &reply), proof) {
        // There is nothing to refresh, and a 535 that nobody knows is about what was presented.
        (DeliveryOutcome::RefreshToken, Proof::Password(_)) => {
            DeliveryOutcome::RouteFault(Reason::PasswordRejected)
        }
        (DeliveryOutcome::RouteFault(Reason::LoginFailed), Proof::Password(_)) if reply.code == 535 => {
            DeliveryOutcome::RouteFault(Reason::PasswordRejected)
        }
        (outcome, _) => outcome,
    };
    for line in &mut reply.lines {
        *line = proof.secret().redact(line);
    }
    Verdict::of_reply(outcome, reply)
}

fn redacted(error: ConnectionError, secret: &Secret) -> ConnectionError {
    match error {
        ConnectionError::Broken { stage, what } => {
            ConnectionError::Broken { stage, what: secret.redact(&what) }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::tests::connection;
    use super::*;
    use crate::clock;
    use crate::token::Token;

    fn reply(line: &str) -> Reply {
        Reply::parse(format!("{line}\r\n").as_bytes()).unwrap().unwrap().0
    }

    fn password() -> Proof {
        Proof::Password(Secret::new("canary-Pa55".into()))
    }

    fn token() -> Proof {
        let now = clock::now();
        Proof::Token(Token { secret: Secret::new("eyJ0".into()), obtained: now, expires: now })
    }

    #[test]
    fn a_refused_token_is_refreshed_and_a_refused_password_is_not() {
        let line = "535 5.7.3 Authentication unsuccessful [FR0P281CA0123.DEUP281.PROD.OUTLOOK.COM]";
        assert_eq!(refused(reply(line), &token()).outcome, DeliveryOutcome::RefreshToken);
        let rejected = DeliveryOutcome::RouteFault(Reason::PasswordRejected);
        assert_eq!(refused(reply(line), &password()).outcome, rejected);
        let line = "535 5.7.139 Authentication unsuccessful, the user credentials were incorrect. [HOST]";
        assert_eq!(refused(reply(line), &password()).outcome, rejected);
    }

    #[test]
    fn switched_off_passwords_are_said_to_be_that() {
        for line in [
            "535 5.7.139 Authentication unsuccessful, basic authentication is disabled. [HOST]",
            "550 5.7.30 Basic authentication is not supported for Client Submission.",
        ] {
            let outcome = refused(reply(line), &password()).outcome;
            assert_eq!(outcome, DeliveryOutcome::RouteFault(Reason::BasicAuthDisabled), "{line}");
        }
    }

    #[tokio::test]
    async fn nothing_is_presented_in_plaintext() {
        let (mut connection, mut peer) = connection("a").await;
        (connection.capabilities.xoauth2, connection.capabilities.login) = (true, true);
        for proof in [token(), password()] {
            let error = log_in(&mut connection, "noreply@contoso.com", &proof).await.unwrap_err();
            assert!(matches!(error, ConnectionError::LogInWithoutTls(_)), "{error}");
        }
        drop(connection);
        assert_eq!(peer.rest().await, "");
    }

    #[tokio::test]
    async fn a_password_is_said_when_it_is_asked_for_and_not_after_a_refusal() {
        let (mut connection, mut peer) = connection("a").await;
        (connection.capabilities.login, connection.protection) = (true, Protection::Tls13);
        let conversation = async {
            assert_eq!(peer.line().await, "AUTH LOGIN\r\n");
            peer.say("334 VXNlcm5hbWU6\r\n").await;
            assert_eq!(peer.line().await, "bm9yZXBseUBjb250b3NvLmNvbQ==\r\n");
            peer.say("334 UGFzc3dvcmQ6\r\n").await;
            assert_eq!(peer.line().await, "Y2FuYXJ5LVBhNTU=\r\n");
            peer.say("235 2.7.0 Authentication successful\r\n").await;
            peer.line().await;
            peer.say("504 5.7.4 Unrecognized authentication type\r\n").await;
        };
        let ours = async {
            let mailbox = "noreply@contoso.com";
            log_in(&mut connection, mailbox, &password()).await.unwrap().unwrap();
            let refused = log_in(&mut connection, mailbox, &password()).await.unwrap().unwrap_err();
            assert_eq!(
                refused.outcome,
                DeliveryOutcome::RouteFault(Reason::LoginFailed),
                "it was not even asked for"
            );
        };
        tokio::join!(conversation, ours);
    }

    #[tokio::test]
    async fn what_is_not_offered_is_not_tried() {
        let (mut connection, _peer) = connection("a").await;
        connection.protection = Protection::Tls12;
        let error = log_in(&mut connection, "noreply@contoso.com", &token()).await.unwrap_err();
        assert!(error.to_string().contains("does not offer AUTH XOAUTH2"), "{error}");
    }

    #[test]
    fn trouble_of_the_service_passes_with_a_password_too() {
        let outcome = refused(reply("454 4.7.0 Temporary authentication failure"), &password()).outcome;
        assert!(matches!(outcome, DeliveryOutcome::Transient(_)), "{outcome:?}");
    }

    #[test]
    fn an_echoed_password_is_taken_out() {
        let echo = STANDARD.encode("canary-Pa55");
        let verdict = refused(reply(&format!("500 5.3.3 Unrecognized command '{echo}'")), &password());
        assert_eq!(verdict.text, "500 5.3.3 Unrecognized command '[removed]'");
        let broken = ConnectionError::Broken { stage: Stage::Auth, what: format!("bad line {echo}") };
        assert!(!redacted(broken, password().secret()).to_string().contains(&echo));
    }
}
