//! Files that are not as they were written: set aside and counted, never sent; and those that the disk does not give for a
//! while, which stay where they are.

use std::os::unix::fs::PermissionsExt;

use super::directory_sync::bound_by_permissions;
use super::*;

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
    scene.spool.store(&big, &tried(&big, vec![RecipientStatus::Waiting]), &body).await.unwrap();
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
        // The large one's progress goes along.
        assert_eq!((scene.spool.stock().corrupt, scene.spool.stock().queued), (1 + 2 * n, 1 - n));
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
        .record(
            &entry.envelope.id,
            &tried(&entry, vec![RecipientStatus::Delivered, RecipientStatus::Waiting]),
        )
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

#[test]
fn a_message_that_the_disk_does_not_give_now_waits() {
    bound_by_permissions(async || {
        let scene = Scene::new().await;
        let (entry, other) = (scene.stored(1).await, scene.stored(2).await);
        let id = &entry.envelope.id;
        let some = tried(&entry, vec![RecipientStatus::Delivered, RecipientStatus::Waiting]);
        scene.spool.record(id, &some).await.unwrap();
        let stock = scene.spool.stock();
        let state = scene.spool.inner.layout.state(Shelf::Queue, id);
        for file in [&scene.file(Shelf::Queue, &entry), &state] {
            set_mode(file, 0o000);
            let scene = Scene::start(clone_of(&scene), LIMITS).await;
            assert_eq!((scene.recovered.waiting.len(), scene.recovered.set_aside), (2, 0), "{file:?}");
            assert_eq!((scene.spool.stock(), scene.names("corrupt").len()), (stock, 0), "{file:?}");
            let error = scene.spool.load(id).await.unwrap_err();
            assert!(matches!(error, SpoolError::Disk { doing: "read", .. }), "{error:?}");
            assert!(scene.spool.load(&other.envelope.id).await.is_ok());
            set_mode(&scene.directory.path().join("queue").join(file.file_name().unwrap()), 0o600);
            assert_eq!(scene.spool.load(id).await.unwrap().progress, some, "{file:?}");
            set_mode(file, 0o600);
        }
    });
}

#[tokio::test]
async fn what_was_set_aside_comes_back_when_it_is_whole() {
    let scene = Scene::new().await;
    let (entry, other) = (scene.stored(1).await, scene.stored(2).await);
    let (id, before) = (entry.envelope.id.clone(), scene.spool.stock());
    let failed = RecipientStatus::Failed(trouble("550 5.1.1 unknown"));
    scene.spool.record(&id, &tried(&entry, vec![RecipientStatus::Delivered, failed])).await.unwrap();
    let path = scene.file(Shelf::Queue, &entry);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[1..]).unwrap();
    let scene = scene.restart().await;
    assert_eq!(scene.names("corrupt"), [id.to_string(), format!("{id}.state")].into());
    let corrupt = scene.spool.stock();

    let damaged = scene.spool.restore(id.as_str(), later()).await.unwrap_err();
    assert!(matches!(damaged, SpoolError::Damaged { .. }), "{damaged:?}");
    for name in ["notes.txt", &format!("{id}.state"), "../queue/x"] {
        assert!(matches!(scene.spool.restore(name, later()).await, Err(SpoolError::NoMessage(_))), "{name}");
    }
    let kept = scene.directory.path().join("corrupt").join(other.envelope.id.as_str());
    fs::copy(scene.file(Shelf::Queue, &other), &kept).unwrap();
    let twice = scene.spool.restore(other.envelope.id.as_str(), later()).await;
    assert!(matches!(twice, Err(SpoolError::IsKept(_))));
    fs::remove_file(kept).unwrap();
    assert_eq!(scene.spool.stock(), corrupt, "nothing has moved");

    fs::write(scene.directory.path().join("corrupt").join(id.as_str()), &whole).unwrap();
    let (restored, progress) = scene.spool.restore(id.as_str(), later()).await.unwrap();
    assert_eq!(
        (&restored, &progress.statuses),
        (&id, &vec![RecipientStatus::Delivered, RecipientStatus::Waiting])
    );
    assert_eq!((scene.spool.stock(), scene.names("corrupt").len()), (before, 0));
    let scene = scene.restart().await;
    assert_eq!((scene.recovered.waiting.len(), scene.spool.stock()), (2, before));
    assert_eq!(scene.recovered.waiting[0].since, later(), "its time begins anew");
    let kept = scene.spool.load(&id).await.unwrap();
    assert_eq!((kept.progress, contents(&kept.body).await), (progress, contents(&small()).await));
}

#[tokio::test]
async fn what_was_set_aside_twice_comes_back_with_the_progress_that_it_had() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    let id = entry.envelope.id.clone();
    // Its progress alone was damaged once.
    fs::write(scene.spool.inner.layout.state(Shelf::Queue, &id), "").unwrap();
    let scene = scene.restart().await;
    assert_eq!(scene.names("corrupt"), [format!("{id}.state")].into());
    scene
        .spool
        .record(&id, &tried(&entry, vec![RecipientStatus::Delivered, RecipientStatus::Waiting]))
        .await
        .unwrap();
    let (path, corrupt) = (scene.file(Shelf::Queue, &entry), scene.directory.path().join("corrupt"));
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[1..]).unwrap();
    let scene = scene.restart().await;
    let names = [format!("{id}.state"), format!("{id}.1"), format!("{id}.state.1")];
    assert_eq!(scene.names("corrupt"), names.into());
    // As an earlier version numbered them, and as it is now.
    fs::write(corrupt.join(format!("{id}.1")), &whole).unwrap();
    for name in [id.to_string(), format!("{id}.1")] {
        fs::rename(corrupt.join(format!("{id}.1")), corrupt.join(&name)).unwrap();
        let copy = clone_of(&scene);
        let (spool, _) = Spool::open(copy.path(), LIMITS).await.unwrap();
        let (_, progress) = spool.restore(&name, later()).await.unwrap();
        assert_eq!(progress.statuses, [RecipientStatus::Delivered, RecipientStatus::Waiting], "{name}");
        let left = fs::read_dir(copy.path().join("corrupt")).unwrap().count();
        assert_eq!(left, spool.stock().corrupt, "{name}");
        fs::rename(corrupt.join(&name), corrupt.join(format!("{id}.1"))).unwrap();
    }
}

#[tokio::test]
async fn a_damaged_message_whose_progress_went_is_set_aside_all_the_same() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    let id = &entry.envelope.id;
    scene
        .spool
        .record(id, &tried(&entry, vec![RecipientStatus::Delivered, RecipientStatus::Waiting]))
        .await
        .unwrap();
    let scene = scene.restart().await;
    fs::remove_file(scene.spool.inner.layout.state(Shelf::Queue, id)).unwrap();
    fs::write(scene.file(Shelf::Queue, &entry), "cut").unwrap();
    let error = scene.spool.load(id).await.unwrap_err();
    assert!(matches!(error, SpoolError::Damaged { .. }), "{error:?}");
    assert_eq!((scene.spool.stock().corrupt, scene.names("corrupt")), (1, [id.to_string()].into()));
}

/// A spool with the same files.
fn clone_of(scene: &Scene) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for directory in ["queue", "dead", "corrupt"] {
        let copied = to.path().join(directory);
        fs::create_dir(&copied).unwrap();
        for name in scene.names(directory) {
            let from = scene.directory.path().join(directory).join(&name);
            let mode = fs::metadata(&from).unwrap().permissions();
            set_mode(&from, 0o600);
            fs::copy(&from, copied.join(&name)).unwrap();
            for file in [&from, &copied.join(&name)] {
                fs::set_permissions(file, mode.clone()).unwrap();
            }
        }
    }
    to
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
