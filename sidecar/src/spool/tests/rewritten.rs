//! Files that serve one message after another: neither is taken for the other.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::spool::batch::Store;
use crate::spool::read::HEAD_BYTES;
use crate::spool::reusable::ReusableFiles;

#[test]
fn a_message_in_the_file_of_another_is_all_there_is_in_it() {
    let root = tempfile::tempdir().unwrap();
    let layout = Arc::new(Layout::new(root.path()));
    layout.make().unwrap();
    let (reusable, ledger) = (ReusableFiles::new(Arc::clone(&layout)), Arc::new(Ledger::new(LIMITS)));
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let mut last = None;
    for (second, len) in [(1, 3000), (2, 3000), (3, 100), (4, 20_000), (5, 20_001)] {
        let entry = sample(second, &["a@b.example"]);
        let body = Body::new("", vec![b'a' + second as u8; len]);
        let head = format::encode_entry(&entry, body.len(), body.crc32()).unwrap();
        let room = ledger.reserve(cost(body.len()), 0).unwrap();
        let id = entry.envelope.id.clone();
        let (done, mut draft) = tokio::sync::oneshot::channel();
        let order = Order { id: id.clone(), head, state: None, body: body.clone(), room };
        batch::run(&layout, &reusable, [Store::Message(order, done)]);
        draft.try_recv().unwrap().unwrap().keep();

        let path = layout.entry(Shelf::Queue, &id);
        assert!(last.is_none_or(|last| last == inode(&path)), "message {second} has a file of its own");
        read::open(&path, &id, HEAD_BYTES).unwrap().check().unwrap();
        last = Some(inode(&path));
        reusable.retire(&path).unwrap();
        batch::run(&layout, &reusable, [Store::Sync]);
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
    assert_eq!(read::is_at(&path, &metadata).unwrap_err().kind(), io::ErrorKind::NotFound);
    fs::write(&path, &head).unwrap();
    assert!(!read::is_at(&path, &metadata).unwrap(), "another has its name");
}
