//! Files that are not as they were written: set aside and counted, never sent.

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
