//! Whether a login is right: of a user in the file, or by a ServiceAccount's token.
//!
//! Owns the steps: what was right lately is right; logins of one address are verified one after another; who has failed before waits;
//! then the password is hashed, or the token is reviewed. One log line for each failure, never with a password, and with a user name only
//! if the file has it: what people type there by mistake is often the password.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use ring::error::Unspecified;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::failed_logins::FailedLogins;
use super::known_logins::{KnownLogins, Proof};
use super::login_order::LoginOrder;
use super::tokens::{TokenError, Tokens};
use super::users::Users;
use crate::clock;
use crate::listener::clients::network;
use crate::listener::{LoginClient, Verified, Verify};
use crate::lock;
use crate::smtp::auth::Credentials;

/// Verifies logins.
pub struct Logins {
    users: watch::Receiver<Arc<Users>>,
    tokens: Tokens,
    /// Of this process, for digests.
    key: hmac::Key,
    known: Mutex<KnownLogins>,
    failed: Mutex<FailedLogins>,
    order: LoginOrder,
}

/// Why a login is not right.
enum Failure {
    Refused(&'static str),
    Unavailable(String),
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Refused(why) => Self::Refused(why),
            TokenError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl Logins {
    /// Of these users and tokens.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(super) fn new(users: watch::Receiver<Arc<Users>>, tokens: Tokens) -> Result<Self, Unspecified> {
        Ok(Self {
            users,
            tokens,
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            known: Mutex::default(),
            failed: Mutex::default(),
            order: LoginOrder::new(),
        })
    }

    fn digest(&self, parts: &[&str]) -> Proof {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// All that a login rests on. A user whose hash is replaced is not known any more.
    fn proof(&self, credentials: &Credentials, is_token: bool, users: &Users) -> Proof {
        let password = credentials.password.expose();
        if is_token {
            return self.digest(&["token", password]);
        }
        let hash = users.get(&credentials.user).map_or("", |(_, hash)| hash);
        self.digest(&["user", &credentials.user, password, hash])
    }

    async fn password(
        &self,
        credentials: &Credentials,
        users: Arc<Users>,
        seed: u64,
        has_logged_in: bool,
    ) -> Result<Arc<str>, Failure> {
        let unavailable = |what: &str| Failure::Unavailable(what.to_owned());
        let turn = self.order.to_hash(has_logged_in).await;
        let turn = turn.ok_or_else(|| unavailable("too many logins at once"))?;
        let (user, password) = (credentials.user.clone(), credentials.password.clone());
        let hashed = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            users.verify(&user, password.expose(), seed)
        });
        match hashed.await {
            Ok(true) => Ok(credentials.user.as_str().into()),
            Ok(false) => Err(Failure::Refused("wrong user name or password")),
            Err(_) => Err(unavailable("the password could not be hashed")),
        }
    }
}

#[async_trait]
impl Verify for Logins {
    async fn verify(&self, credentials: Credentials, client: LoginClient) -> Verified {
        let users = Arc::clone(&self.users.borrow());
        let is_token = self.tokens.may_be(&credentials.password);
        let proof = self.proof(&credentials, is_token, &users);
        let known = || lock(&self.known).get(&proof, clock::now());
        if let Some(name) = known() {
            return Verified::Accepted(name);
        }
        let LoginClient { address: client, has_logged_in } = client;
        let mechanism = credentials.mechanism.as_str();
        let user = users.get(&credentials.user).map(|(name, _)| name).filter(|_| !is_token);
        let digest = self.digest(&["name", &credentials.user]);
        let mut short = [0; 8];
        short.copy_from_slice(&digest[..8]);
        let address = network(client);
        let Some(_one_of_address) = self.order.of_address(address).await else {
            tracing::warn!(%client, user, mechanism, "login not verified: too many of this address at once");
            return Verified::Unavailable;
        };
        // The one before it may have been the same.
        if let Some(name) = known() {
            return Verified::Accepted(name);
        }
        let turn = lock(&self.failed).turn(address, short, clock::now());
        sleep_until(turn).await;
        let verified = if is_token {
            self.tokens.verify(&credentials.password).await.map_err(Failure::from)
        } else {
            let seed = u64::from_be_bytes(short);
            self.password(&credentials, Arc::clone(&users), seed, has_logged_in).await
        };
        match verified {
            Ok(name) => {
                lock(&self.known).add(proof, Arc::clone(&name), clock::now());
                Verified::Accepted(name)
            }
            Err(Failure::Refused(why)) => {
                lock(&self.failed).failed(address, short, clock::now());
                tracing::warn!(%client, user, mechanism, why, "login refused");
                Verified::Refused
            }
            Err(Failure::Unavailable(why)) => {
                tracing::warn!(%client, user, mechanism, why, "login cannot be verified");
                Verified::Unavailable
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::super::tokens::tests::{Reviewer, gateway, token};
    use super::super::users::tests::BCRYPT;
    use super::*;
    use crate::secret::Secret;
    use crate::smtp::auth::Mechanism;

    const CLIENT: LoginClient = LoginClient {
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)),
        has_logged_in: false,
    };

    fn credentials(user: &str, password: &str) -> Credentials {
        let password = Secret::new(password.into());
        Credentials { mechanism: Mechanism::Plain, user: user.into(), password }
    }

    fn logins(reviewer: &Arc<Reviewer>) -> (Logins, watch::Sender<Arc<Users>>) {
        let (users, _) = Users::parse(&format!("ann:{BCRYPT}"));
        let (publish, users) = watch::channel(Arc::new(users));
        let tokens = Tokens::new(vec!["shop".into()], gateway(), Some(Arc::clone(reviewer) as _));
        (Logins::new(users, tokens).unwrap(), publish)
    }

    #[tokio::test(start_paused = true)]
    async fn users_and_pods_log_in_and_others_do_not() {
        let reviewer = Reviewer::new(Ok(Some(("shop", "web"))));
        let (logins, _users) = logins(&reviewer);
        let right = logins.verify(credentials("ann", "secret"), CLIENT).await;
        assert_eq!(right, Verified::Accepted("ann".into()));
        let token = token("mailroute.dev", "shop");
        for user in ["token", "", "ann"] {
            let right = logins.verify(credentials(user, token.expose()), CLIENT).await;
            assert_eq!(right, Verified::Accepted("shop/web".into()));
        }
        for (user, password) in [("ann", "Secret"), ("eve", "secret"), ("", "x")] {
            assert_eq!(logins.verify(credentials(user, password), CLIENT).await, Verified::Refused);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_right_lately_costs_nothing_and_a_failure_makes_the_next_one_wait() {
        let reviewer = Reviewer::new(Ok(Some(("shop", "web"))));
        let (logins, users) = logins(&reviewer);
        let token = token("mailroute.dev", "shop");
        let begin = clock::now();
        for _ in 0..3 {
            logins.verify(credentials("token", token.expose()), CLIENT).await;
        }
        assert_eq!(*reviewer.asked.lock().unwrap(), 1);
        assert_eq!(logins.verify(credentials("ann", "no"), CLIENT).await, Verified::Refused);
        assert_eq!(begin, clock::now());
        logins.verify(credentials("token", token.expose()), CLIENT).await;
        assert_eq!(begin, clock::now(), "it is known");
        let right = logins.verify(credentials("ann", "secret"), CLIENT).await;
        assert_eq!(right, Verified::Accepted("ann".into()));
        assert_eq!(begin.elapsed().as_secs(), 1, "after a pause");
        users.send_replace(Arc::default());
        let gone = logins.verify(credentials("ann", "secret"), CLIENT).await;
        assert_eq!(gone, Verified::Refused, "who is taken out of the file is not known any more");
        tokio::time::advance(Duration::from_secs(60)).await;
        logins.verify(credentials("token", token.expose()), CLIENT).await;
        assert_eq!(*reviewer.asked.lock().unwrap(), 2, "a minute later");
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_operator_a_token_is_neither_right_nor_wrong() {
        let (logins, _users) = logins(&Reviewer::new(Err("away")));
        let token = token("mailroute.dev", "shop");
        for _ in 0..5 {
            let result = logins.verify(credentials("token", token.expose()), CLIENT).await;
            assert_eq!(result, Verified::Unavailable);
        }
        assert_eq!(lock(&logins.failed).turn(CLIENT.address, [0; 8], clock::now()), clock::now());
    }

    /// The answers to so many logins of one address at once, as many as come in time.
    async fn at_once(logins: &Arc<Logins>, password: &'static str) -> Vec<Verified> {
        let mut attempts = JoinSet::new();
        for _ in 0..20 {
            let logins = Arc::clone(logins);
            attempts.spawn(async move { logins.verify(credentials("ann", password), CLIENT).await });
        }
        attempts.join_all().await
    }

    #[tokio::test(start_paused = true)]
    async fn wrong_logins_of_an_address_at_once_wait_for_each_other_and_most_are_turned_away() {
        let (logins, _users) = logins(&Reviewer::new(Ok(None)));
        let begin = clock::now();
        let answers = at_once(&Arc::new(logins), "wrong").await;
        let refused = answers.iter().filter(|answer| **answer == Verified::Refused).count();
        // After 0, 1, 3, 7 and 15 seconds, and 10 later the one whose turn came then; nobody waits for its turn for more than 20.
        assert_eq!((answers.len(), refused), (20, 6), "{answers:?}");
        assert_eq!(begin.elapsed().as_secs(), 25);
    }

    #[tokio::test(start_paused = true)]
    async fn right_logins_of_an_address_at_once_cost_one_hash() {
        let (logins, users) = logins(&Reviewer::new(Ok(None)));
        let logins = Arc::new(logins);
        let answers = at_once(&logins, "secret").await;
        assert!(answers.iter().all(|answer| *answer == Verified::Accepted("ann".into())), "{answers:?}");
        drop(users);
    }
}
