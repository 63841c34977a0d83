use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;

use super::*;
use crate::secret::Secret;

fn token(name: &str, life: u64) -> Token {
    let now = clock::now();
    Token { secret: Secret::new(name.into()), obtained: now, expires: now + Duration::from_secs(life) }
}

fn failure() -> Failure {
    Failure::new(Reason::TokenServiceUnavailable, "down")
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_at_two_thirds_and_used_meanwhile() {
    let mut life = Life::default();
    let start = clock::now();
    assert!(matches!(life.step(start), Step::Ask));
    life.succeed(token("a", 3600), 0.5);
    assert!(matches!(life.step(start + seconds(2339)), Step::Use(_)));
    assert!(matches!(life.step(start + seconds(2341)), Step::UseAndRenew(_)));
    life.asking = true;
    assert!(matches!(life.step(start + seconds(2341)), Step::Use(_)));
}

#[tokio::test(start_paused = true)]
async fn a_good_token_is_used_although_its_renewal_fails() {
    let mut life = Life::default();
    let start = clock::now();
    life.succeed(token("a", 3600), 0.5);
    life.fail(failure(), start + seconds(2400), 0.5);
    assert!(matches!(life.step(start + seconds(2400)), Step::Use(_)));
    assert!(matches!(life.step(start + seconds(2402)), Step::UseAndRenew(_)));
    assert!(matches!(life.step(start + seconds(2879)), Step::UseAndRenew(_)));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_wants_more_life_left_has_another_token_sooner() {
    let mut life = Life { margin: seconds(1200), ..Life::default() };
    let start = clock::now();
    life.succeed(token("a", 3600), 0.5);
    assert!(matches!(life.step(start + seconds(2399)), Step::UseAndRenew(_)));
    assert!(matches!(life.step(start + seconds(2401)), Step::Ask), "fewer than twenty minutes are left");
    life.succeed(token("b", 3600), 0.5);
    assert_eq!(life.margin, seconds(1200), "it is the service's, not the token's");
}

#[tokio::test(start_paused = true)]
async fn with_less_left_than_twelve_minutes_another_token_is_waited_for() {
    let mut life = Life::default();
    let start = clock::now();
    life.succeed(token("a", 3600), 0.5);
    assert!(matches!(life.step(start + seconds(2881)), Step::Ask));
    life.asking = true;
    assert!(matches!(life.step(start + seconds(2881)), Step::Wait));
    life.fail(failure(), start + seconds(2882), 0.5);
    assert!(matches!(life.step(start + seconds(2882)), Step::Use(_)), "there is no other");
    assert!(matches!(life.step(start + seconds(2884)), Step::Ask));
    life.fail(failure(), start + seconds(3598), 0.5);
    assert!(matches!(life.step(start + seconds(3598)), Step::Fail(_)), "it ends at once");
}

#[tokio::test(start_paused = true)]
async fn a_short_lived_token_is_renewed_before_it_is_scarce() {
    for (life_seconds, renewed, scarce) in [(600, 255, 300), (60, 26, 30)] {
        let mut life = Life::default();
        let start = clock::now();
        life.succeed(token("a", life_seconds), 0.5);
        assert!(matches!(life.step(start + seconds(renewed - 1)), Step::Use(_)), "{life_seconds}");
        assert!(matches!(life.step(start + seconds(renewed)), Step::UseAndRenew(_)), "{life_seconds}");
        assert!(matches!(life.step(start + seconds(scarce)), Step::Ask), "{life_seconds}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_of_our_own_ends_when_the_credential_is_replaced() {
    let (store, _) = store(vec![]);
    store.life().fail(failure(), clock::now(), 0.5);
    assert!(matches!(store.decide(false), Step::Fail(_)));
    store.ask_again();
    assert!(matches!(store.life().step(clock::now()), Step::Ask));
    store.life().fail(Failure { retry_after: Some(seconds(60)), ..failure() }, clock::now(), 0.5);
    store.ask_again();
    assert!(matches!(store.decide(false), Step::Fail(_)), "the authority asked for this one");
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_retry_after_wins() {
    let mut life = Life::default();
    let start = clock::now();
    life.fail(failure(), start, 0.5);
    assert!(matches!(life.step(start + Duration::from_millis(999)), Step::Fail(_)));
    assert!(matches!(life.step(start + seconds(1)), Step::Ask));
    life.fail(Failure { retry_after: Some(seconds(60)), ..failure() }, start, 0.5);
    assert!(matches!(life.step(start + seconds(59)), Step::Fail(_)));
    assert!(matches!(life.step(start + seconds(60)), Step::Ask));
}

#[test]
fn the_back_off_doubles_up_to_a_minute() {
    let waits: Vec<_> = (1..9).map(|times| backoff(times).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
}

/// A source that answers from a list, one minute after being asked.
struct Script {
    answers: Mutex<VecDeque<Result<&'static str, Failure>>>,
    asked: AtomicU32,
}

#[async_trait]
impl TokenSource for Script {
    async fn fetch(&self) -> Result<Token, Failure> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(seconds(60)).await;
        let next = self.answers.lock().unwrap().pop_front().expect("an answer for each question");
        next.map(|name| token(name, 3600))
    }
}

struct Nobody;

impl Observe for Nobody {
    fn issued(&self, _: Duration) {}
    fn refused(&self, _: &Failure) {}
}

fn store(answers: Vec<Result<&'static str, Failure>>) -> (Arc<Store>, Arc<Script>) {
    let script = Arc::new(Script { answers: Mutex::new(answers.into()), asked: AtomicU32::new(0) });
    (Store::new(Arc::clone(&script) as _, Arc::new(Nobody)), script)
}

#[tokio::test(start_paused = true)]
async fn many_sessions_make_one_exchange() {
    let (store, script) = store(vec![Ok("a")]);
    let tokens = futures::future::join_all((0..50).map(|_| store.token())).await;
    assert!(tokens.iter().all(|token| token.as_ref().unwrap().secret.expose() == "a"));
    assert_eq!(script.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn many_sessions_share_one_failure() {
    let at_once = Failure { retry_after: Some(Duration::ZERO), ..failure() };
    let (store, script) = store(vec![Err(at_once)]);
    let tokens = futures::future::join_all((0..50).map(|_| store.token())).await;
    assert!(tokens.iter().all(Result::is_err));
    assert_eq!(script.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_scarce_token_is_used_when_the_wait_for_another_was_in_vain() {
    let at_once = Failure { retry_after: Some(Duration::ZERO), ..failure() };
    let (store, script) = store(vec![Ok("a"), Err(at_once), Ok("b")]);
    store.token().await.unwrap();
    tokio::time::advance(seconds(3600 - 200)).await;
    assert_eq!(store.token().await.unwrap().secret.expose(), "a");
    assert!(store.trouble().is_some());
    assert_eq!(store.token().await.unwrap().secret.expose(), "b");
    assert!(store.trouble().is_none());
    assert_eq!(script.asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_token_is_replaced_once_for_all() {
    let (store, script) = store(vec![Ok("a"), Ok("b")]);
    let first = store.token().await.unwrap();
    let renewed = futures::future::join_all((0..5).map(|_| store.renewed(&first))).await;
    assert!(renewed.iter().all(|token| token.as_ref().unwrap().secret.expose() == "b"));
    let late = store.renewed(&first).await.unwrap();
    assert_eq!(late.secret.expose(), "b", "who comes late with the old token gets the new one");
    assert_eq!(script.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn the_exchange_goes_on_when_the_asking_session_is_gone() {
    let (store, script) = store(vec![Ok("a")]);
    tokio::time::timeout(seconds(1), store.token()).await.unwrap_err();
    assert_eq!(store.token().await.unwrap().secret.expose(), "a");
    assert_eq!(script.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_newer_token_takes_the_place_of_a_good_one_which_stays_in_use_until_then() {
    let mut life = Life::default();
    let start = clock::now();
    life.succeed(token("a", 3600), 0.5);
    life.hasten(&token("another", 3600));
    assert!(matches!(life.step(start + seconds(1)), Step::Use(_)), "it was not about this one");
    life.hasten(&token("a", 3600));
    assert!(matches!(life.step(start + seconds(1)), Step::Ask));
    life.fail(failure(), start + seconds(1), 0.5);
    assert!(matches!(life.step(start + seconds(1)), Step::Use(held) if held.secret.expose() == "a"));
    assert!(life.usable(start + seconds(1)).is_some());
    life.succeed(token("b", 3600), 0.5);
    assert!(matches!(life.step(start + seconds(2)), Step::Use(held) if held.secret.expose() == "b"));
}
