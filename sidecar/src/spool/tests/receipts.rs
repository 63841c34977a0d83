//! What a gateway remembers of messages that are gone.

use super::*;

impl Scene {
    /// What the next program finds, which is a gateway.
    async fn restart_as_gateway(self) -> Self {
        let mut scene = self.restart().await;
        scene.spool.keep_receipts(&mut scene.recovered).await.unwrap();
        scene
    }
}

#[tokio::test]
async fn what_is_finished_is_known_after_a_restart_and_what_went_elsewhere_is_not() {
    let scene = Scene::new().await.restart_as_gateway().await;
    let (finished, elsewhere, kept) = (scene.stored(1).await, scene.stored(2).await, scene.stored(3).await);
    let id = |entry: &Entry| entry.envelope.id.clone();
    scene.spool.finish(&id(&finished)).await.unwrap();
    scene.spool.remove(&id(&elsewhere)).await.unwrap();
    let scene = scene.restart_as_gateway().await;
    let known = [&finished, &elsewhere, &kept].map(|entry| scene.spool.knows(&id(entry)));
    assert_eq!(known, [true, false, true]);
    assert_eq!(scene.recovered.waiting.len(), 1);
}

#[tokio::test]
async fn surplus_dead_letters_are_known_as_gone() {
    let scene = Scene::new().await.restart_as_gateway().await;
    let mut first = None;
    for second in 1..=4 {
        let entry = scene.stored(second).await;
        let removed = scene.spool.bury(&entry.envelope.id, &Progress::fresh(&entry)).await.unwrap();
        first = first.or_else(|| removed.into_iter().next());
    }
    assert!(scene.restart_as_gateway().await.spool.knows(&first.unwrap()));
}

#[tokio::test]
async fn a_removal_that_fails_at_the_start_does_not_keep_a_gateway_from_starting() {
    let scene = Scene::new().await.restart_as_gateway().await;
    let (gone, kept) = (scene.stored(1).await, scene.stored(2).await);
    scene.spool.inner.receipts.add([&gone.envelope.id].into_iter()).unwrap();
    let mut scene = scene.restart().await;
    // A disk that refuses, by a folder in the message's place.
    let (file, tmp) = (scene.file(Shelf::Queue, &gone), scene.spool.inner.layout.tmp());
    fs::remove_file(&file).unwrap();
    fs::create_dir_all(file.join("in the way")).unwrap();
    fs::remove_dir_all(&tmp).unwrap();
    fs::write(&tmp, "in the way").unwrap();
    scene.spool.keep_receipts(&mut scene.recovered).await.unwrap();
    let waiting: Vec<_> = scene.recovered.waiting.iter().map(|waiting| &waiting.id).collect();
    assert_eq!(waiting, [&kept.envelope.id]);
}

#[tokio::test]
async fn a_removal_that_was_cut_off_after_its_receipt_is_completed() {
    let scene = Scene::new().await.restart_as_gateway().await;
    let entry = scene.stored(1).await;
    scene.spool.inner.receipts.add([&entry.envelope.id].into_iter()).unwrap();
    let scene = scene.restart_as_gateway().await;
    assert!(scene.recovered.waiting.is_empty() && scene.names("queue").is_empty());
    assert_eq!(scene.spool.stock().queued, 0);
}
