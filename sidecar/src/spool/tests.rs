//! The spool on a real directory: what is kept is found again, and nothing else is.

mod directory_sync;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;

use super::batch::Store;
use super::entry::tests::{sample, trouble};
use super::read::HEAD_BYTES;
use super::spare::Spares;
use super::*;
use crate::body::{MEMORY_BYTES, Writer};

const LIMITS: Limits = Limits { max_bytes: 100 * 1024 * 1024, keep_dead: 3 };

struct Scene {
    directory: TempDir,
    spool: Spool,
    recovered: Recovered,
}

impl Scene {
    async fn new() -> Self {
        Self::start(tempfile::tempdir().unwrap(), LIMITS).await
    }

    async fn start(directory: TempDir, limits: Limits) -> Self {
        let (spool, recovered) = Spool::open(directory.path(), limits).await.unwrap();
        Self { directory, spool, recovered }
    }

    /// What the next program finds.
    async fn restart(self) -> Self {
        let Self { directory, spool, .. } = self;
        drop(spool);
        Self::start(directory, LIMITS).await
    }

    fn names(&self, directory: &str) -> BTreeSet<String> {
        let files = fs::read_dir(self.directory.path().join(directory)).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn file(&self, shelf: Shelf, entry: &Entry) -> PathBuf {
        self.spool.inner.layout.entry(shelf, &entry.envelope.id)
    }

    async fn stored(&self, second: i64) -> Entry {
        let entry = sample(second, &["a@b.example", "c@d.example"]);
        self.spool.store(&entry, &Progress::fresh(&entry), &small()).await.unwrap();
        entry
    }

    /// Whether nothing is left of anything but files to be written again.
    fn is_empty(&self) -> bool {
        let stock = Stock { max_bytes: LIMITS.max_bytes, ..Stock::default() };
        ["queue", "dead", "corrupt"].iter().all(|names| self.names(names).is_empty())
            && self.names("tmp").iter().all(|name| name.starts_with("spare-"))
            && Stock { max_bytes: LIMITS.max_bytes, ..self.spool.stock() } == stock
    }
}

fn small() -> Body {
    Body::new("Received: here\r\n", "Subject: pay slip\r\n\r\nHello\r\n")
}

async fn large(directory: &Path, len: usize) -> Body {
    let mut writer = Writer::new(directory.into());
    for at in 0..len / 1000 {
        writer.buffer().extend(std::iter::repeat_n((at % 251) as u8, 1000));
        writer.spill().await.unwrap();
    }
    writer.finish("Received: here\r\n").await.unwrap()
}

async fn contents(body: &Body) -> Vec<u8> {
    let (mut reader, mut all) = (body.reader(), Vec::new());
    while let Some(piece) = reader.next().await.unwrap() {
        all.extend_from_slice(&piece);
    }
    all
}

fn tried(entry: &Entry, fates: Vec<Fate>) -> Progress {
    let next = entry.accepted + Duration::from_secs(30);
    Progress { attempts: 1, next, fates, last: Some(trouble("451 4.3.2 try later")) }
}

fn later() -> Timestamp {
    Timestamp::from_second(1_900_000_000).unwrap()
}

#[tokio::test]
async fn what_is_stored_is_found_by_the_next_program() {
    let scene = Scene::new().await;
    let (one, two, three) =
        (sample(1, &["a@b.example"]), sample(2, &["a@b.example"]), sample(3, &["a@b.example"]));
    let big = large(&scene.spool.scratch(), 5 * MEMORY_BYTES).await;
    let expected = contents(&big).await;
    let some = tried(&two, vec![Fate::Failed(trouble("550 5.1.1 unknown"))]);
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
    let scene = Scene::start(tempfile::tempdir().unwrap(), Limits { max_bytes: 8192, keep_dead: 1 }).await;
    let entry = sample(1, &["a@b.example"]);
    let body = large(&scene.spool.scratch(), 2 * MEMORY_BYTES).await;
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
        let huge = large(&scene.spool.scratch(), 8 * MEMORY_BYTES).await;
        for body in [small(), huge] {
            let (release, wait) = std::sync::mpsc::channel::<()>();
            let busy = spawn_blocking(move || wait.recv());
            let entry = sample(1, &["a@b.example"]);
            let progress = tried(&entry, vec![Fate::Delivered]);
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
    for fates in [vec![Fate::Waiting, Fate::Waiting], vec![Fate::Delivered, Fate::Waiting]] {
        scene.spool.record(id, &tried(&entry, fates.clone())).await.unwrap();
        assert_eq!(scene.spool.load(id).await.unwrap().progress.fates, fates);
    }
    let scene = scene.restart().await;
    let kept = scene.spool.load(id).await.unwrap();
    assert_eq!(kept.progress, tried(&entry, vec![Fate::Delivered, Fate::Waiting]));
    assert_eq!(scene.recovered.waiting[0].next, kept.progress.next);
}

#[tokio::test]
async fn what_is_removed_leaves_nothing() {
    let scene = Scene::new().await;
    let (one, two) = (scene.stored(1).await, scene.stored(2).await);
    scene.spool.record(&two.envelope.id, &tried(&two, vec![Fate::Waiting; 2])).await.unwrap();
    for entry in [&one, &two, &two] {
        scene.spool.remove(&entry.envelope.id).await.unwrap();
    }
    assert!(scene.is_empty());
    let unknown = scene.spool.record(&one.envelope.id, &Progress::fresh(&one)).await;
    assert!(matches!(unknown, Err(SpoolError::Unknown(_))) && scene.is_empty());
}

#[test]
fn a_message_in_the_file_of_another_is_all_there_is_in_it() {
    let root = tempfile::tempdir().unwrap();
    let layout = Arc::new(Layout::new(root.path()));
    layout.make().unwrap();
    let (spares, ledger) = (Spares::new(Arc::clone(&layout)), Arc::new(Ledger::new(LIMITS)));
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let mut last = None;
    for (second, len) in [(1, 3000), (2, 3000), (3, 100), (4, 20_000), (5, 20_001)] {
        let entry = sample(second, &["a@b.example"]);
        let body = Body::new("", vec![b'a' + second as u8; len]);
        let head = format::encode_entry(&entry, body.len(), body.crc32()).unwrap();
        let room = ledger.reserve(cost(body.len())).unwrap();
        let id = entry.envelope.id.clone();
        let (done, mut draft) = tokio::sync::oneshot::channel();
        let order = Order { id: id.clone(), head, state: None, body: body.clone(), room };
        batch::run(&layout, &spares, [Store::Message(order, done)]);
        draft.try_recv().unwrap().unwrap().keep();

        let path = layout.entry(Shelf::Queue, &id);
        assert!(last.is_none_or(|last| last == inode(&path)), "message {second} has a file of its own");
        read::open(&path, &id, HEAD_BYTES).unwrap().check().unwrap();
        last = Some(inode(&path));
        spares.retire(&path).unwrap();
        batch::run(&layout, &spares, [Store::Sync]);
    }
}

#[test]
fn a_message_that_goes_while_it_is_read_is_not_found() {
    let root = tempfile::tempdir().unwrap();
    let entry = sample(1, &["a@b.example"]);
    let path = root.path().join("a message");
    let head = format::encode_entry(&entry, 0, 0).unwrap();
    fs::write(&path, &head).unwrap();
    let (file, id) = (File::open(&path).unwrap(), &entry.envelope.id);
    let metadata = file.metadata().unwrap();
    assert!(read::open(&path, id, HEAD_BYTES).is_ok() && read::is_at(&path, &metadata).unwrap());
    fs::rename(&path, root.path().join("spare")).unwrap();
    assert_eq!(read::is_at(&path, &metadata).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    fs::write(&path, &head).unwrap();
    assert!(!read::is_at(&path, &metadata).unwrap(), "another has its name");
}

#[tokio::test]
async fn a_dead_letter_is_kept_and_comes_back() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    let id = &entry.envelope.id;
    let given_up = tried(&entry, vec![Fate::Delivered, Fate::Failed(trouble("550 5.1.1 unknown"))]);
    assert!(scene.spool.bury(id, &given_up).await.unwrap().is_empty());
    assert!(matches!(scene.spool.bury(id, &given_up).await, Err(SpoolError::Unknown(_))));

    let scene = scene.restart().await;
    assert_eq!((scene.recovered.waiting.len(), scene.recovered.dead), (0, 1));
    assert_eq!((scene.spool.dead(), scene.names("queue").len()), (vec![id.clone()], 0));
    let kept = scene.spool.load(id).await.unwrap();
    assert_eq!((kept.shelf, &kept.progress), (Shelf::Dead, &given_up));
    scene.spool.revive(id, &kept.progress.again(later())).await.unwrap();
    assert!(matches!(scene.spool.revive(id, &given_up).await, Err(SpoolError::Unknown(_))));

    let scene = scene.restart().await;
    assert_eq!((scene.recovered.waiting.len(), scene.names("dead").len()), (1, 0));
    let kept = scene.spool.load(id).await.unwrap();
    assert_eq!((kept.progress.fates, kept.progress.next), (vec![Fate::Delivered, Fate::Waiting], later()));
    assert_eq!(contents(&kept.body).await, contents(&small()).await);
    scene.spool.remove(id).await.unwrap();
    assert!(scene.is_empty());
}

#[tokio::test]
async fn giving_up_may_be_interrupted_at_any_step() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    let id = &entry.envelope.id;
    let (before, after) =
        (tried(&entry, vec![Fate::Delivered, Fate::Waiting]), tried(&entry, vec![Fate::Delivered; 2]));
    scene.spool.record(id, &before).await.unwrap();
    let layout = Arc::clone(&scene.spool.inner.layout);
    fs::write(layout.state(Shelf::Dead, id), encode(&after).unwrap()).unwrap();
    let scene = scene.restart().await;
    let kept = scene.spool.load(id).await.unwrap();
    assert_eq!(
        (kept.shelf, kept.progress, scene.names("dead").len()),
        (Shelf::Queue, before, 0),
        "nothing is moved yet"
    );

    fs::write(layout.state(Shelf::Dead, id), encode(&after).unwrap()).unwrap();
    fs::rename(layout.entry(Shelf::Queue, id), layout.entry(Shelf::Dead, id)).unwrap();
    let scene = scene.restart().await;
    let kept = scene.spool.load(id).await.unwrap();
    assert_eq!(
        (kept.shelf, kept.progress, scene.names("queue").len()),
        (Shelf::Dead, after, 0),
        "the old progress is left"
    );
}

#[tokio::test]
async fn of_too_many_dead_letters_the_first_accepted_go() {
    let scene = Scene::new().await;
    let mut gone = Vec::new();
    for second in [5, 1, 4, 2, 3] {
        let entry = scene.stored(second).await;
        let fates = vec![Fate::Failed(trouble("550")), Fate::Waiting];
        gone.extend(scene.spool.bury(&entry.envelope.id, &tried(&entry, fates)).await.unwrap());
    }
    assert_eq!(gone, [1, 2].map(|second| sample(second, &[]).envelope.id));
    assert_eq!(scene.spool.dead(), [3, 4, 5].map(|second| sample(second, &[]).envelope.id));
    assert_eq!((scene.names("dead").len(), scene.spool.stock().bytes), (6, 3 * 8192));
}

#[tokio::test]
async fn two_programs_do_not_share_a_spool() {
    let scene = Scene::new().await;
    let error = Spool::open(scene.directory.path(), LIMITS).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, SpoolError::InUse(_)));
    assert!(error.to_string().contains("--spool-dir"), "{error}");
    scene.restart().await;
}

#[tokio::test]
async fn another_program_can_look() {
    let scene = Scene::new().await;
    let (one, two) = (scene.stored(1).await, scene.stored(2).await);
    let given_up = tried(&two, vec![Fate::Delivered, Fate::Failed(trouble("550 5.1.1 unknown"))]);
    scene.spool.bury(&two.envelope.id, &given_up).await.unwrap();

    let view = View::new(scene.directory.path());
    assert_eq!(view.ids(Shelf::Queue).unwrap(), std::slice::from_ref(&one.envelope.id));
    assert_eq!(view.ids(Shelf::Dead).unwrap(), std::slice::from_ref(&two.envelope.id));
    let kept = view.read(&two.envelope.id).unwrap().unwrap();
    assert_eq!((kept.shelf, kept.progress, kept.entry), (Shelf::Dead, given_up, two.clone()));
    assert_eq!(contents(&kept.body).await, contents(&small()).await);
    assert!(view.check(&one.envelope.id).unwrap().is_some());
    scene.spool.remove(&two.envelope.id).await.unwrap();
    assert!(
        view.read(&two.envelope.id).unwrap().is_none() && view.check(&two.envelope.id).unwrap().is_none()
    );
    assert!(View::new(Path::new("/nonexistent")).ids(Shelf::Queue).unwrap().is_empty());
}

#[tokio::test]
async fn a_file_cut_anywhere_is_set_aside() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    let path = scene.file(Shelf::Queue, &entry);
    let whole = fs::read(&path).unwrap();
    let Scene { directory, spool, .. } = scene;
    drop(spool);
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let (spool, recovered) = Spool::open(directory.path(), LIMITS).await.unwrap();
        assert_eq!(
            (recovered.waiting.len(), recovered.set_aside, spool.stock().corrupt),
            (0, 1, len + 1),
            "{len}"
        );
    }
    fs::write(&path, [whole, vec![b'x']].concat()).unwrap();
    let (spool, recovered) = Spool::open(directory.path(), LIMITS).await.unwrap();
    assert_eq!((recovered.waiting.len(), recovered.set_aside), (0, 1), "one octet more");
    assert!(spool.stock().bytes > 0, "what is set aside takes room, too");
    assert!(View::new(directory.path()).corrupt().unwrap().contains(&format!("{}.3", entry.envelope.id)));
}

#[tokio::test]
async fn a_content_that_rotted_is_never_sent() {
    let scene = Scene::new().await;
    let (small, big) = (scene.stored(1).await, sample(2, &["a@b.example"]));
    let body = large(&scene.spool.scratch(), 5 * MEMORY_BYTES).await;
    scene.spool.store(&big, &tried(&big, vec![Fate::Waiting]), &body).await.unwrap();
    let scene = scene.restart().await;
    for (n, entry) in [&small, &big].into_iter().enumerate() {
        let path = scene.file(Shelf::Queue, entry);
        let mut octets = fs::read(&path).unwrap();
        *octets.last_mut().unwrap() ^= 1;
        fs::write(&path, octets).unwrap();
        let damaged = scene.spool.load(&entry.envelope.id).await.unwrap_err();
        assert!(
            matches!(damaged, SpoolError::Damaged { source: frame::FormatError::Checksum, .. }),
            "{damaged:?}"
        );
        assert_eq!((scene.spool.stock().corrupt, scene.spool.stock().queued), (n + 1, 1 - n));
        assert!(matches!(scene.spool.load(&entry.envelope.id).await, Err(SpoolError::Unknown(_))));
    }
    let names =
        [small.envelope.id.to_string(), big.envelope.id.to_string(), format!("{}.state", big.envelope.id)];
    assert_eq!(scene.names("corrupt"), names.into());
    assert!(scene.names("queue").is_empty());
}

#[tokio::test]
async fn leftovers_go_and_strange_files_are_set_aside() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    let other = sample(2, &[]).envelope.id;
    let root = scene.directory.path();
    fs::write(root.join("tmp/half"), "written").unwrap();
    fs::create_dir(root.join("tmp/directory")).unwrap();
    fs::write(root.join("queue/notes.txt"), "by hand").unwrap();
    fs::create_dir(root.join("queue").join(sample(3, &[]).envelope.id.as_str())).unwrap();
    fs::write(root.join(format!("queue/{other}.state")), "of nobody").unwrap();
    fs::copy(scene.file(Shelf::Queue, &entry), root.join("queue").join(other.as_str())).unwrap();

    let scene = scene.restart().await;
    assert_eq!((scene.recovered.waiting.len(), scene.recovered.set_aside), (1, 3));
    assert!(scene.names("tmp").is_empty());
    assert_eq!(scene.names("queue"), [entry.envelope.id.to_string()].into());
    assert_eq!(scene.names("corrupt").len(), 4, "the state of what was set aside goes along");
}

#[tokio::test]
async fn progress_alone_is_no_message() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    scene
        .spool
        .record(&entry.envelope.id, &tried(&entry, vec![Fate::Delivered, Fate::Waiting]))
        .await
        .unwrap();
    fs::remove_file(scene.file(Shelf::Queue, &entry)).unwrap();
    assert!(matches!(scene.spool.load(&entry.envelope.id).await, Err(SpoolError::Unknown(_))));
    let scene = scene.restart().await;
    assert!(scene.recovered.waiting.is_empty() && scene.is_empty());
}

#[tokio::test]
async fn a_message_with_damaged_progress_begins_anew() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    let state = scene.spool.inner.layout.state(Shelf::Queue, &entry.envelope.id);
    fs::write(&state, "").unwrap();
    let scene = scene.restart().await;
    assert_eq!((scene.recovered.waiting[0].attempts, scene.recovered.set_aside), (0, 1));
    assert_eq!(scene.spool.load(&entry.envelope.id).await.unwrap().progress, Progress::fresh(&entry));
}

#[tokio::test]
async fn a_spool_that_cannot_be_made_says_where() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Spool::open(&file.path().join("spool"), LIMITS).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with("cannot make the directory /"), "{error}");
}
