//! What becomes of messages while the disk does not make a directory durable. It is made so by taking the right to open the
//! directory, as one does to sync it; files can still be put there.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::*;

/// Runs as a user to whom permissions apply, in a thread of its own: those who run everything as root have rights
/// beyond them.
pub(super) fn bound_by_permissions(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        let mut sets = capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH);
        set_capabilities(None, sets).unwrap();
        // Its threads for the disk are started from this one and have no more rights.
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn set_mode(scene: &Scene, directory: &str, mode: u32) {
    fs::set_permissions(scene.directory.path().join(directory), Permissions::from_mode(mode)).unwrap();
}

/// The directory can no longer be synced.
fn break_sync(scene: &Scene, directory: &str) {
    set_mode(scene, directory, 0o300);
}

fn mend_sync(scene: &Scene, directory: &str) {
    set_mode(scene, directory, 0o700);
}

fn is_sync_failure(error: &SpoolError) -> bool {
    matches!(error, SpoolError::Disk { doing: "sync the directory", .. })
}

#[test]
fn a_message_whose_place_is_not_durable_is_not_kept() {
    bound_by_permissions(async || {
        let scene = Scene::new().await;
        let kept = scene.stored(1).await;
        let before = scene.spool.stock();
        break_sync(&scene, "queue");
        let refused = sample(2, &["a@b.example"]);
        let fresh = Progress::fresh(&refused);
        let error = scene.spool.store(&refused, &fresh, &small()).await.unwrap_err();
        assert!(is_sync_failure(&error), "{error}");
        // One with progress has two names to make durable.
        let error =
            scene.spool.store(&refused, &tried(&refused, vec![RecipientStatus::Waiting]), &small()).await;
        assert!(is_sync_failure(&error.unwrap_err()));
        mend_sync(&scene, "queue");
        assert_eq!(scene.spool.stock(), before);
        assert_eq!(scene.names("queue"), BTreeSet::from([kept.envelope.id.to_string()]));

        let after = scene.stored(3).await;
        let scene = scene.restart().await;
        let found: Vec<_> = scene.recovered.waiting.iter().map(|found| found.id.clone()).collect();
        assert_eq!(found, [kept.envelope.id, after.envelope.id], "as the next program sees it");
    });
}

#[test]
fn all_messages_of_a_batch_are_refused_when_their_directory_is_not_durable() {
    bound_by_permissions(async || {
        let scene = Scene::new().await;
        break_sync(&scene, "queue");
        let store = |second| {
            let scene = &scene;
            async move {
                let entry = sample(second, &["a@b.example"]);
                scene.spool.store(&entry, &Progress::fresh(&entry), &small()).await
            }
        };
        for stored in futures::future::join_all((1..=20).map(store)).await {
            assert!(is_sync_failure(&stored.unwrap_err()));
        }
        mend_sync(&scene, "queue");
        assert!(scene.is_empty(), "{:?}", scene.names("queue"));
    });
}

#[test]
fn a_message_that_cannot_be_given_up_durably_stays_in_the_queue() {
    bound_by_permissions(async || {
        let scene = Scene::new().await;
        let entry = scene.stored(1).await;
        let id = entry.envelope.id.clone();
        let given_up = tried(&entry, vec![RecipientStatus::Failed(trouble("550 5.1.1 unknown")); 2]);
        break_sync(&scene, "dead");
        let error = scene.spool.bury(&id, &given_up).await.unwrap_err();
        assert!(is_sync_failure(&error), "{error}");
        mend_sync(&scene, "dead");
        assert_eq!((scene.spool.stock().queued, scene.spool.stock().dead), (1, 0));
        assert_eq!(scene.spool.load(&id).await.unwrap().progress, Progress::fresh(&entry));

        scene.spool.bury(&id, &given_up).await.unwrap();
        assert_eq!((scene.names("queue").len(), scene.spool.stock().dead), (0, 1));
    });
}
