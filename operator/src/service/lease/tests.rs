//! Leases against a store that is slow, fails, or is written by others, in paused time.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use mailroute_operator_core::crd::MailboxUsageSpec;
use mailroute_route::control::LeaseUse;
use tokio::time::{Instant, sleep, timeout};

use super::super::ids::sidecar_id;
use super::super::ledger_store::{Error, MemoryStore, Stored};
use super::*;

const LIMITS: MailboxLimits = MailboxLimits::PUBLISHED;

/// A store in memory that takes some time for each call, never answers about `hanging` and fails about `broken`.
#[derive(Default)]
struct FaultyStore {
    memory: MemoryStore,
    takes: Duration,
    hanging: Option<MailboxKey>,
    broken: Mutex<Option<MailboxKey>>,
    written: AtomicUsize,
}

impl FaultyStore {
    async fn answers(&self, key: &MailboxKey) -> Result<(), Error> {
        if self.hanging.as_ref() == Some(key) {
            std::future::pending::<()>().await;
        }
        sleep(self.takes).await;
        match &*lock(&self.broken) {
            Some(broken) if broken == key => Err(Error::NotInstalled),
            _ => Ok(()),
        }
    }

    async fn len(&self) -> usize {
        self.memory.list().await.unwrap().len()
    }
}

#[async_trait]
impl LedgerStore for FaultyStore {
    async fn read(&self, key: &MailboxKey) -> Result<Option<Stored>, Error> {
        self.answers(key).await?;
        self.memory.read(key).await
    }

    async fn write(
        &self,
        key: &MailboxKey,
        version: Option<&str>,
        opened_by: &Namespace,
        usage: &MailboxUsageSpec,
    ) -> Result<String, Error> {
        self.answers(key).await?;
        self.written.fetch_add(1, Ordering::Relaxed);
        self.memory.write(key, version, opened_by, usage).await
    }

    async fn remove(&self, key: &MailboxKey, version: &str) -> Result<(), Error> {
        self.answers(key).await?;
        self.memory.remove(key, version).await
    }

    async fn list(&self) -> Result<Vec<(MailboxKey, Namespace)>, Error> {
        self.memory.list().await
    }
}

fn key(address: &str) -> MailboxKey {
    MailboxKey::of("contoso.com", address)
}

fn claimant(namespace: &str, pod: &str, address: &str) -> Claimant {
    Claimant {
        holder: sidecar_id(pod),
        namespace: namespace.into(),
        route: "notifications".into(),
        mailbox: key(address),
        address: address.into(),
        of_route: vec![key(address)],
        limits: LIMITS,
        application: None,
    }
}

fn claim(sequence: u64, messages: u32, leases: Vec<LeaseUse>) -> Claim {
    Claim { instance: 1, sequence, messages, recipients: 1, leases, ..Claim::default() }
}

fn leases(store: &Arc<FaultyStore>) -> Arc<Leases> {
    Arc::new(Leases::new(Timing::default(), Arc::clone(store) as _))
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
    let store = Arc::new(FaultyStore { takes: Duration::from_millis(20), ..FaultyStore::default() });
    let leases = leases(&store);
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
    assert!(store.len().await <= MOST_MAILBOXES + 3, "mailboxes of a namespace are bounded");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_off_in_a_loop_leaves_others_of_its_own_mailbox_their_part() {
    let store = Arc::new(FaultyStore { takes: Duration::from_millis(20), ..FaultyStore::default() });
    let leases = leases(&store);
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
    let store =
        Arc::new(FaultyStore { hanging: Some(key("slow@contoso.com")), broken, ..FaultyStore::default() });
    let leases = leases(&store);
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
async fn leases_that_are_returned_unused_again_and_again_have_a_few_records_a_second_written() {
    let store = Arc::new(FaultyStore::default());
    let leases = leases(&store);
    let claims = |pod: u64| {
        let leases = Arc::clone(&leases);
        async move {
            let (who, mut told) =
                (claimant("other", &pod.to_string(), &format!("{pod}@contoso.com")), vec![]);
            for sequence in 1..=200 {
                let claim = claim(sequence, 1, std::mem::take(&mut told));
                if let Ok(Some(Allotment { lease: Some(lease), .. })) = leases.exchange(&who, &claim).await {
                    let (messages, recipients) = (lease.messages, lease.recipients);
                    told.push(LeaseUse {
                        id: lease.id,
                        messages,
                        recipients,
                        ended: true,
                        ..LeaseUse::default()
                    });
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
    };
    let others = sends(Arc::clone(&leases), claimant("shop", "a", "a@contoso.com"), Duration::from_secs(100));
    let ((), sent) =
        futures::join!(async { drop(futures::future::join_all((0..90).map(claims)).await) }, others);
    let written = store.written.load(Ordering::Relaxed);
    assert!(written < 100 + 10 * 100 + 200, "{written} records in 100 seconds");
    assert!(sent >= 45, "{sent}: another namespace has its own");
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_leader_goes_on_with_its_own_record_at_once() {
    let store = Arc::new(FaultyStore::default());
    let leases = leases(&store);
    let who = claimant("shop", "a", "a@contoso.com");
    let has_lease = |answer: Result<Option<Allotment>, Unwritten>| {
        answer.is_ok_and(|it| it.is_some_and(|it| it.lease.is_some()))
    };
    assert!(has_lease(leases.exchange(&who, &claim(1, 3, vec![])).await));
    *lock(&store.broken) = Some(who.mailbox.clone());
    // Beyond what the record allows for.
    assert_eq!(leases.exchange(&who, &claim(2, 3, vec![])).await, Err(Unwritten));
    assert_eq!(
        leases.exchange(&who, &claim(3, 3, vec![])).await,
        Err(Unwritten),
        "it is not tried in a flood"
    );
    *lock(&store.broken) = None;
    sleep(Duration::from_millis(1001)).await;
    assert!(
        has_lease(leases.exchange(&who, &claim(4, 3, vec![])).await),
        "it need not listen for five seconds"
    );
}

#[tokio::test(start_paused = true)]
async fn what_another_leader_wrote_is_taken_and_listened_for() {
    let store = Arc::new(FaultyStore::default());
    let (old, new) = (leases(&store), leases(&store));
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
    let store = Arc::new(FaultyStore::default());
    store.memory.overwrite(&key("a@contoso.com"), "{\"version\":");
    let leases = leases(&store);
    let sent = sent_meanwhile(&leases, async {}).await;
    assert!((10..60).contains(&sent[0]) && sent[1..].iter().all(|sent| *sent > 108), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_record_that_somebody_removes_is_made_again_from_memory() {
    let store = Arc::new(FaultyStore::default());
    let leases = leases(&store);
    let who = claimant("shop", "a", "a@contoso.com");
    leases.exchange(&who, &claim(1, 3, vec![])).await.unwrap();
    store.memory.remove(&who.mailbox, "").await.unwrap();
    assert_eq!(leases.exchange(&who, &claim(2, 3, vec![])).await, Err(Unwritten));
    let again = leases.exchange(&who, &claim(3, 3, vec![])).await.unwrap().unwrap();
    assert!(again.lease.is_some() && store.len().await == 1, "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mailbox_that_nobody_used_for_a_day_is_removed() {
    let store = Arc::new(FaultyStore::default());
    let old = leases(&store);
    sends(Arc::clone(&old), claimant("shop", "a", "a@contoso.com"), Duration::from_secs(5)).await;
    // Another leader finds it, although nobody asks for it.
    let new = leases(&store);
    for _ in 0..30 {
        sleep(Duration::from_secs(3600)).await;
        new.sweep(RunningPods::default);
    }
    assert_eq!((store.len().await, lock(&new.mailboxes).len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_pod_claimed_by_an_accepted_route_is_remembered_for_an_hour() {
    let store = Arc::new(FaultyStore::default());
    let leases = leases(&store);
    let who = claimant("shop", "a", "a@contoso.com");
    let remembered = || leases.remembered(who.holder, "shop", "notifications", "A@contoso.com");
    assert_eq!(remembered(), None);
    leases.exchange(&who, &claim(1, 1, vec![])).await.unwrap();
    sleep(Duration::from_secs(600)).await;
    leases.remember(&who);
    sleep(Duration::from_secs(3500)).await;
    // Claims after the route is gone make it no younger.
    leases.exchange(&remembered().unwrap(), &claim(2, 1, vec![])).await.unwrap();
    assert!(leases.remembered(who.holder, "other", "notifications", "a@contoso.com").is_none());
    assert!(leases.remembered(sidecar_id("b"), "shop", "notifications", "a@contoso.com").is_none());
    sleep(Duration::from_secs(101)).await;
    assert_eq!(remembered(), None);
}

#[tokio::test(start_paused = true)]
async fn an_application_has_four_connections_over_all_mailboxes_also_by_a_new_leader() {
    let store = Arc::new(FaultyStore::default());
    let old = leases(&store);
    let pod = |number: u32| Claimant {
        application: Some(ApplicationKey::of("contoso.com", "1b2c3d4e")),
        ..claimant("shop", &number.to_string(), &format!("{}@contoso.com", number % 3))
    };
    let running = || {
        let (mut running, mailboxes) = (RunningPods::default(), (0..9).map(|number| pod(number).mailbox));
        running.pods = (0..9).map(|number| pod(number).holder).collect();
        running.applications.insert(pod(0).application.unwrap(), mailboxes.collect());
        for who in (0..9).map(pod) {
            let sidecar = RunningSidecar {
                id: who.holder,
                namespace: who.namespace,
                unregistered_index: 0,
                since: Duration::MAX / 2,
            };
            running.by_mailbox.entry(who.mailbox).or_default().push(sidecar);
        }
        running
    };
    let granted = async |leases: &Leases, sequence, pods: std::ops::Range<u32>| {
        let mut granted = 0;
        for number in pods {
            let answer = leases.exchange(&pod(number), &claim(sequence, 1, vec![])).await.unwrap().unwrap();
            granted += u32::from(answer.lease.is_some());
        }
        granted
    };
    old.sweep(running);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(granted(&old, 1, 0..9).await, 4);

    let new = leases(&store);
    new.sweep(running);
    sleep(Duration::from_secs(6)).await;
    // Pods of a mailbox of which the new leader has heard nobody else.
    assert_eq!(granted(&new, 2, 5..6).await, 0, "the records name four");
    sleep(Duration::from_secs(65)).await;
    assert_eq!(granted(&new, 3, 5..9).await, 4, "nobody can be using them any more");
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_has_leases_of_all_mailboxes_of_its_route_and_gives_back_those_of_others() {
    let store = Arc::new(FaultyStore::default());
    let leases = leases(&store);
    let of_route = |addresses: &[&str]| addresses.iter().map(|address| key(address)).collect::<Vec<_>>();
    let who = |address: &str, all: &[&str]| Claimant {
        of_route: of_route(all),
        ..claimant("shop", "pod", address)
    };
    let holds = |address: &str| leases.view(&key(address)).map(|view| view.sidecars);
    let both = ["a@contoso.com", "b@contoso.com"];
    for (sequence, address) in (1..).zip(["a@contoso.com", "b@contoso.com", "a@contoso.com"]) {
        leases.exchange(&who(address, &both), &claim(sequence, 5, vec![])).await.unwrap();
    }
    assert_eq!(
        (holds("a@contoso.com"), holds("b@contoso.com")),
        (Some(1), Some(1)),
        "neither has replaced the other"
    );
    let holder = sidecar_id("pod");
    for address in both {
        assert!(leases.remembered(holder, "shop", "notifications", address).is_some());
    }
    leases.exchange(&who("a@contoso.com", &both[..1]), &claim(4, 5, vec![])).await.unwrap();
    assert_eq!((holds("a@contoso.com"), holds("b@contoso.com")), (Some(1), Some(0)));
    assert!(leases.remembered(holder, "shop", "notifications", "b@contoso.com").is_none());
}
