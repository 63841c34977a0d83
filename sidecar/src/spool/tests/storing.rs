//! What is kept is found again, with what became of it, and what goes leaves nothing.

use super::*;

#[tokio::test]
async fn what_is_stored_is_found_by_the_next_program() {
    let scene = Scene::new().await;
    let (one, two, three) =
        (sample(1, &["a@b.example"]), sample(2, &["a@b.example"]), sample(3, &["a@b.example"]));
    let big = large(&scene.spool.scratch(), 5 * MEMORY_BYTES).await;
    let expected = contents(&big).await;
    let some = tried(&two, vec![RecipientStatus::Failed(trouble("550 5.1.1 unknown"))]);
    scene.spool.store(&three, &Progress::fresh(&three), &small()).await.unwrap();
    scene.spool.store(&two, &some, &small()).await.unwrap();
    scene.spool.store(&one, &Progress::fresh(&one), &big).await.unwrap();
    let before = scene.spool.stock();
    assert!(scene.names("tmp").is_empty());

    let scene = scene.restart().await;
    let found: Vec<_> =
        scene.recovered.waiting.iter().map(|found| (found.id.clone(), found.attempts, found.next)).collect();
    let id = |entry: &Entry| entry.envelope.id.clone();
    assert_eq!(
        found,
        [(id(&one), 0, one.accepted), (id(&two), 1, some.next), (id(&three), 0, three.accepted)]
    );
    assert_eq!(scene.spool.stock(), before);
    let kept = scene.spool.load(&id(&one)).await.unwrap();
    assert!(kept.entry == one && contents(&kept.body).await == expected && !kept.body.is_in_memory());
    let kept = scene.spool.load(&id(&two)).await.unwrap();
    assert_eq!((kept.entry, kept.progress), (two, some));
    assert_eq!(contents(&kept.body).await, contents(&small()).await);
    assert!(kept.body.is_in_memory());
}

#[tokio::test]
async fn a_person_can_read_what_is_kept() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    let text = fs::read_to_string(scene.file(Shelf::Queue, &entry)).unwrap();
    let (head, message) = text.split_once("\n\n").unwrap();
    assert!(
        head.contains("\"from\":\"noreply@contoso.com\",\"to\":[\"a@b.example\",\"c@d.example\"]"),
        "{head}"
    );
    assert_eq!(message, "Received: here\r\nSubject: pay slip\r\n\r\nHello\r\n");
}

#[tokio::test]
async fn a_message_over_the_limit_leaves_nothing() {
    let scene =
        Scene::start(tempfile::tempdir().unwrap(), SpoolLimits { max_bytes: 8192, keep_dead: 1 }).await;
    let entry = sample(1, &["a@b.example"]);
    let body = Body::new("", vec![b'x'; MEMORY_BYTES]);
    let error = scene.spool.store(&entry, &Progress::fresh(&entry), &body).await.unwrap_err();
    assert!(matches!(error, SpoolError::Full(Full::Limit { used: 0, .. })) && scene.is_empty(), "{error:?}");

    scene.spool.store(&entry, &Progress::fresh(&entry), &small()).await.unwrap();
    let other = sample(2, &["a@b.example"]);
    let full = scene.spool.store(&other, &Progress::fresh(&other), &small()).await;
    assert!(matches!(full, Err(SpoolError::Full(Full::Limit { used: 8192, more: 8192, max: 8192 }))));
    scene.spool.remove(&entry.envelope.id).await.unwrap();
    scene.spool.store(&other, &Progress::fresh(&other), &small()).await.unwrap();
}

#[tokio::test]
async fn many_at_once_are_all_kept() {
    let scene = Scene::new().await;
    let scratch = scene.spool.scratch();
    let store = |n: i64| {
        let (spool, scratch) = (scene.spool.clone(), scratch.clone());
        async move {
            let entry = sample(n, &["a@b.example"]);
            let body = if n % 10 == 0 { large(&scratch, 100_000).await } else { small() };
            spool.store(&entry, &Progress::fresh(&entry), &body).await.unwrap();
            if n % 3 == 0 {
                spool.remove(&entry.envelope.id).await.unwrap();
            }
        }
    };
    futures::future::join_all((1..=200).map(store)).await;
    let scene = scene.restart().await;
    let found: Vec<_> = scene.recovered.waiting.iter().map(|found| found.accepted.as_second()).collect();
    assert_eq!(found, (1..=200).filter(|n| n % 3 != 0).collect::<Vec<_>>());
    for found in &scene.recovered.waiting {
        scene.spool.load(&found.id).await.unwrap();
    }
}

/// Runs on a runtime that does one thing on the disk at a time.
fn with_one_thread_for_the_disk(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    runtime.block_on(test);
}

#[test]
fn a_message_nobody_waits_for_is_taken_back() {
    with_one_thread_for_the_disk(async {
        let scene = Scene::new().await;
        for len in [0, 8 * MEMORY_BYTES] {
            let body = if len == 0 { small() } else { large(&scene.spool.scratch(), len).await };
            let (release, wait) = std::sync::mpsc::channel::<()>();
            let busy = spawn_blocking(move || wait.recv());
            let entry = sample(1, &["a@b.example"]);
            let progress = tried(&entry, vec![RecipientStatus::Delivered]);
            let mut store = Box::pin(scene.spool.store(&entry, &progress, &body));
            assert!(futures::poll!(&mut store).is_pending());
            drop(store);
            release.send(()).unwrap();
            busy.await.unwrap().unwrap();
            // The thread comes to this one after that one.
            let kept = scene.stored(2).await;
            assert_eq!(scene.names("queue"), BTreeSet::from([kept.envelope.id.to_string()]));
            scene.spool.remove(&kept.envelope.id).await.unwrap();
            drop(body);
            assert!(scene.is_empty());
        }
    });
}

#[tokio::test]
async fn progress_survives_a_restart() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    let id = &entry.envelope.id;
    assert_eq!(scene.spool.load(id).await.unwrap().progress, Progress::fresh(&entry));
    for statuses in [
        vec![RecipientStatus::Waiting, RecipientStatus::Waiting],
        vec![RecipientStatus::Delivered, RecipientStatus::Waiting],
    ] {
        scene.spool.record(id, &tried(&entry, statuses.clone())).await.unwrap();
        assert_eq!(scene.spool.load(id).await.unwrap().progress.statuses, statuses);
    }
    let scene = scene.restart().await;
    let kept = scene.spool.load(id).await.unwrap();
    assert_eq!(kept.progress, tried(&entry, vec![RecipientStatus::Delivered, RecipientStatus::Waiting]));
    assert_eq!(scene.recovered.waiting[0].next, kept.progress.next);
}

#[tokio::test]
async fn what_is_removed_leaves_nothing() {
    let scene = Scene::new().await;
    let (one, two) = (scene.stored(1).await, scene.stored(2).await);
    scene.spool.record(&two.envelope.id, &tried(&two, vec![RecipientStatus::Waiting; 2])).await.unwrap();
    for entry in [&one, &two, &two] {
        scene.spool.remove(&entry.envelope.id).await.unwrap();
    }
    assert!(scene.is_empty());
    let unknown = scene.spool.record(&one.envelope.id, &Progress::fresh(&one)).await;
    assert!(matches!(unknown, Err(SpoolError::Unknown(_))) && scene.is_empty());
}

#[tokio::test]
async fn messages_that_come_in_take_no_more_than_the_limit_either() {
    let limits = SpoolLimits { max_bytes: 5 * MEMORY_BYTES as u64, keep_dead: 1 };
    let scene = Scene::start(tempfile::tempdir().unwrap(), limits).await;
    let scratch = scene.spool.scratch();
    let one = large(&scratch, 3 * MEMORY_BYTES).await;
    assert!(scene.spool.stock().bytes > 2 * MEMORY_BYTES as u64, "what comes in is counted");
    let mut two = Writer::new(Arc::clone(&scratch));
    let mut full = Ok(());
    for _ in 0..10 {
        two.buffer().extend_from_slice(&[b'x'; MEMORY_BYTES / 2]);
        full = full.and(two.spill().await);
    }
    let full = full.unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
    // What it took is there again for others, and a message needs no second room to be kept.
    drop(two);
    let entry = sample(1, &["a@b.example"]);
    scene.spool.store(&entry, &Progress::fresh(&entry), &one).await.unwrap();
    drop(one);
    assert_eq!(
        scene.spool.stock().bytes,
        cost(fs::metadata(scene.file(Shelf::Queue, &entry)).unwrap().len())
    );
    let refused = large(&scratch, MEMORY_BYTES + 2000).await;
    let other = sample(2, &["a@b.example"]);
    scene.spool.set_limits(SpoolLimits { max_bytes: scene.spool.stock().bytes, keep_dead: 1 });
    let before = scene.spool.stock();
    assert!(scene.spool.store(&other, &Progress::fresh(&other), &refused).await.is_err());
    assert_eq!(
        scene.spool.stock(),
        before,
        "a message that is not kept still takes its room while it is here"
    );
    drop(refused);
    scene.spool.remove(&entry.envelope.id).await.unwrap();
    assert!(scene.is_empty());
}
