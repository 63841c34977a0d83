//! Messages that are given up: kept, revived, and the oldest gone when there are too many.

use super::*;

#[tokio::test]
async fn a_dead_letter_is_kept_and_comes_back() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    let id = &entry.envelope.id;
    let given_up = tried(
        &entry,
        vec![RecipientStatus::Delivered, RecipientStatus::Failed(trouble("550 5.1.1 unknown"))],
    );
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
    assert_eq!(scene.recovered.waiting[0].since, later(), "its time begins anew, after a restart too");
    let kept = scene.spool.load(id).await.unwrap();
    assert_eq!(
        (kept.progress.statuses, kept.progress.next),
        (vec![RecipientStatus::Delivered, RecipientStatus::Waiting], later())
    );
    assert_eq!(contents(&kept.body).await, contents(&small()).await);
    scene.spool.remove(id).await.unwrap();
    assert!(scene.is_empty());
}

#[tokio::test]
async fn giving_up_may_be_interrupted_at_any_step() {
    let scene = Scene::new().await;
    let entry = scene.stored(1).await;
    let id = &entry.envelope.id;
    let (before, after) = (
        tried(&entry, vec![RecipientStatus::Delivered, RecipientStatus::Waiting]),
        tried(&entry, vec![RecipientStatus::Delivered; 2]),
    );
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
        let statuses = vec![RecipientStatus::Failed(trouble("550")), RecipientStatus::Waiting];
        gone.extend(scene.spool.bury(&entry.envelope.id, &tried(&entry, statuses)).await.unwrap());
    }
    assert_eq!(gone, [1, 2].map(|second| sample(second, &[]).envelope.id));
    assert_eq!(scene.spool.dead(), [3, 4, 5].map(|second| sample(second, &[]).envelope.id));
    assert_eq!((scene.names("dead").len(), scene.spool.stock().bytes), (6, 3 * 8192));
}
