//! Leases against a store that is slow, fails, or is written by others, in paused time.

use async_trait::async_trait;
use mailroute_operator_core::crd::MailboxUsageSpec;
use mailroute_route::control::LeaseUse;
use tokio::time::{Instant, sleep, timeout};

use super::super::ledger_store::{Error, Stored};
use super::*;

const LIMITS: Limits = Limits::PUBLISHED;

/// A store in memory. Each call takes some time; what is asked about `slow` never ends, and about `broken` fails.
#[derive(Default)]
struct Shelf {
    pages: Mutex<HashMap<Key, (u64, String)>>,
    takes: Duration,
    slow: Option<Key>,
    broken: Mutex<Option<Key>>,
    writes: Mutex<usize>,
}

impl Shelf {
    async fn answers(&self, key: &Key) -> Result<(), Error> {
        if self.slow.as_ref() == Some(key) {
            std::future::pending::<()>().await;
        }
        sleep(self.takes).await;
        match &*lock(&self.broken) {
            Some(broken) if broken == key => Err(Error::NotInstalled),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl LedgerStore for Shelf {
    async fn read(&self, key: &Key) -> Result<Option<Stored>, Error> {
        self.answers(key).await?;
        let found = lock(&self.pages).get(key).cloned();
        Ok(found.map(|(version, record)| Stored { record: Some(record), version: version.to_string() }))
    }

    async fn write(
        &self,
        key: &Key,
        version: Option<&str>,
        _: &Namespace,
        usage: &MailboxUsageSpec,
    ) -> Result<String, Error> {
        self.answers(key).await?;
        *lock(&self.writes) += 1;
        let mut pages = lock(&self.pages);
        let stored = pages.get(key).map(|(version, _)| version.to_string());
        if stored.as_deref() != version {
            return Err(Error::Overtaken(key.as_str().to_owned()));
        }
        let next = pages.get(key).map_or(0, |(version, _)| version + 1);
        pages.insert(key.clone(), (next, usage.record.clone()));
        Ok(next.to_string())
    }

    async fn remove(&self, key: &Key, _: &str) -> Result<(), Error> {
        self.answers(key).await?;
        lock(&self.pages).remove(key);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<(Key, Namespace)>, Error> {
        Ok(lock(&self.pages).keys().map(|key| (key.clone(), "shop".into())).collect())
    }
}

fn key(address: &str) -> Key {
    Key::of("contoso.com", address)
}

fn claimant(namespace: &str, pod: &str, address: &str) -> Claimant {
    Claimant {
        holder: Holder::of(pod),
        namespace: namespace.into(),
        route: "notifications".into(),
        mailbox: key(address),
        address: address.into(),
        limits: LIMITS,
    }
}

fn claim(sequence: u64, messages: u32, leases: Vec<LeaseUse>) -> Claim {
    Claim { instance: 1, sequence, messages, recipients: 1, leases, ..Claim::default() }
}

fn leases(shelf: &Arc<Shelf>) -> Arc<Leases> {
    Arc::new(Leases::new(Terms::default(), Arc::clone(shelf) as _))
}

/// Sends as much as is leased, for so long, and says how many messages that were.
async fn sends(leases: Arc<Leases>, who: Claimant, length: Duration) -> u32 {
    let (end, mut sequence, mut sent, mut told) = (Instant::now() + length, 0, 0, vec![]);
    while Instant::now() < end {
        sequence += 1;
        let answer = leases.exchange(&who, &claim(sequence, 30, std::mem::take(&mut told))).await;
        if let Ok(Some(Allotment { lease: Some(lease), .. })) = answer {
            sent += lease.messages;
            told.push(LeaseUse {
                id: lease.id,
                messages: lease.messages,
                recipients: lease.recipients,
                ended: true,
                used_messages: lease.messages,
                used_recipients: lease.recipients,
                age_millis: 0,
            });
        }
        sleep(Duration::from_millis(500)).await;
    }
    sent
}

/// Three sidecars with a mailbox each, while somebody else does something. How much of the limit they had.
async fn sent_meanwhile(leases: &Arc<Leases>, attack: impl Future<Output = ()> + Send + 'static) -> Vec<u32> {
    let attack = tokio::spawn(attack);
    let length = Duration::from_secs(240);
    let send =
        |pod: &str| sends(Arc::clone(leases), claimant("shop", pod, &format!("{pod}@contoso.com")), length);
    let sent = futures::future::join_all(["a", "b", "c"].map(send)).await;
    attack.abort();
    sent
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_off_in_a_loop_takes_nothing_from_other_mailboxes() {
    let shelf = Arc::new(Shelf { takes: Duration::from_millis(20), ..Shelf::default() });
    let leases = leases(&shelf);
    let attacker = Arc::clone(&leases);
    let sent = sent_meanwhile(&leases, async move {
        for sequence in 0.. {
            let address = format!("{}@fresh.example", sequence / 3);
            let who = claimant("other", "attacker", &address);
            // In the middle of a read, or of a write.
            let _ =
                timeout(Duration::from_millis(30), attacker.exchange(&who, &claim(sequence + 1, 30, vec![])))
                    .await;
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert!(sent.iter().all(|sent| *sent > 108), "{sent:?} of 120 each");
    assert!(lock(&shelf.pages).len() <= MOST_MAILBOXES + 3, "mailboxes of a namespace are bounded");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_off_in_a_loop_leaves_others_of_its_own_mailbox_their_part() {
    let shelf = Arc::new(Shelf { takes: Duration::from_millis(20), ..Shelf::default() });
    let leases = leases(&shelf);
    let attacker = Arc::clone(&leases);
    let sent = sent_meanwhile(&leases, async move {
        for sequence in 1.. {
            let who = claimant("other", "attacker", "a@contoso.com");
            let _ = timeout(Duration::from_millis(10), attacker.exchange(&who, &claim(sequence, 30, vec![])))
                .await;
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(sent[0] >= 54 && sent[1..].iter().all(|sent| *sent > 108), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_or_refuses_for_one_mailbox_blocks_no_other() {
    let broken = Mutex::new(Some(key("broken@contoso.com")));
    let shelf = Arc::new(Shelf { slow: Some(key("slow@contoso.com")), broken, ..Shelf::default() });
    let leases = leases(&shelf);
    let other = Arc::clone(&leases);
    let sent = sent_meanwhile(&leases, async move {
        for sequence in 1.. {
            for address in ["slow@contoso.com", "broken@contoso.com"] {
                let who = claimant("other", "attacker", address);
                let answer =
                    timeout(Duration::from_secs(1), other.exchange(&who, &claim(sequence, 1, vec![]))).await;
                assert!(!matches!(answer, Ok(Ok(_))), "nothing is given that is not written down");
            }
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(sent.iter().all(|sent| *sent > 108), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_leader_goes_on_with_its_own_record_at_once() {
    let shelf = Arc::new(Shelf::default());
    let leases = leases(&shelf);
    let who = claimant("shop", "a", "a@contoso.com");
    let has_lease = |answer: Result<Option<Allotment>, Unwritten>| {
        answer.is_ok_and(|it| it.is_some_and(|it| it.lease.is_some()))
    };
    assert!(has_lease(leases.exchange(&who, &claim(1, 3, vec![])).await));
    *lock(&shelf.broken) = Some(who.mailbox.clone());
    // Beyond what the record allows for.
    assert_eq!(leases.exchange(&who, &claim(2, 3, vec![])).await, Err(Unwritten));
    assert_eq!(
        leases.exchange(&who, &claim(3, 3, vec![])).await,
        Err(Unwritten),
        "it is not tried in a flood"
    );
    *lock(&shelf.broken) = None;
    sleep(Duration::from_millis(1001)).await;
    assert!(
        has_lease(leases.exchange(&who, &claim(4, 3, vec![])).await),
        "it need not listen for five seconds"
    );
}

#[tokio::test(start_paused = true)]
async fn what_another_leader_wrote_is_taken_and_listened_for() {
    let shelf = Arc::new(Shelf::default());
    let (old, new) = (leases(&shelf), leases(&shelf));
    let (who, key) = (claimant("shop", "a", "a@contoso.com"), key("a@contoso.com"));
    old.exchange(&who, &claim(1, 3, vec![])).await.unwrap();
    new.exchange(&who, &claim(2, 1, vec![])).await.unwrap();
    sleep(Duration::from_secs(6)).await;
    assert!(new.exchange(&who, &claim(3, 3, vec![])).await.unwrap().unwrap().lease.is_some());
    // The old one cannot write over it, and gives out nothing before it has listened.
    sleep(Duration::from_secs(20)).await;
    assert_eq!(old.exchange(&who, &claim(4, 3, vec![])).await, Err(Unwritten));
    let answer = old.exchange(&who, &claim(5, 3, vec![])).await.unwrap().unwrap();
    assert_eq!((answer.lease, old.view(&key).unwrap().sidecars), (None, 1));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_shuts_its_own_mailbox_and_no_other() {
    let shelf = Arc::new(Shelf::default());
    lock(&shelf.pages).insert(key("a@contoso.com"), (0, "{\"version\":".into()));
    let leases = leases(&shelf);
    let sent = sent_meanwhile(&leases, async {}).await;
    assert!((10..60).contains(&sent[0]) && sent[1..].iter().all(|sent| *sent > 108), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_somebody_removes_is_made_again_from_memory() {
    let shelf = Arc::new(Shelf::default());
    let leases = leases(&shelf);
    let who = claimant("shop", "a", "a@contoso.com");
    leases.exchange(&who, &claim(1, 3, vec![])).await.unwrap();
    lock(&shelf.pages).clear();
    assert_eq!(leases.exchange(&who, &claim(2, 3, vec![])).await, Err(Unwritten));
    let again = leases.exchange(&who, &claim(3, 3, vec![])).await.unwrap().unwrap();
    assert!(again.lease.is_some() && lock(&shelf.pages).len() == 1, "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_nobody_used_for_a_day_is_removed() {
    let shelf = Arc::new(Shelf::default());
    let old = leases(&shelf);
    sends(Arc::clone(&old), claimant("shop", "a", "a@contoso.com"), Duration::from_secs(5)).await;
    // Another leader finds it, although nobody asks for it.
    let new = leases(&shelf);
    for _ in 0..30 {
        sleep(Duration::from_secs(3600)).await;
        new.sweep(|| (HashSet::new(), HashMap::new()));
    }
    assert_eq!((lock(&shelf.pages).len(), lock(&new.mailboxes).len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_pod_claimed_by_an_accepted_route_is_remembered_for_an_hour() {
    let shelf = Arc::new(Shelf::default());
    let leases = leases(&shelf);
    let who = claimant("shop", "a", "a@contoso.com");
    let remembered = || leases.remembered(who.holder, "shop", "notifications");
    assert_eq!(remembered(), None);
    leases.exchange(&who, &claim(1, 1, vec![])).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    leases.remember(&who);
    sleep(Duration::from_secs(3500)).await;
    // Claims after the route is gone make it no younger.
    leases.exchange(&remembered().unwrap(), &claim(2, 1, vec![])).await.unwrap();
    assert!(leases.remembered(who.holder, "other", "notifications").is_none());
    assert!(leases.remembered(Holder::of("b"), "shop", "notifications").is_none());
    sleep(Duration::from_secs(101)).await;
    assert_eq!(remembered(), None);
}
