//! Who else may come to the directory: a second spool may not, a reader may.

use super::*;

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
    let given_up =
        tried(&two, vec![RecipientStatus::Delivered, RecipientStatus::Failed(trouble("550 5.1.1 unknown"))]);
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
async fn a_spool_that_cannot_be_made_says_where() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Spool::open(&file.path().join("spool"), LIMITS).await.map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with("cannot make the directory /"), "{error}");
}
