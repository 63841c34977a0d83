//! A page in the repository: read, compared, and written where that is asked for.

use std::path::{Path, PathBuf};
use std::{env, fs};

use mailroute_route::condition::Subject;

/// What a page shows in the place of a route's own values.
pub const PLACEHOLDERS: Subject<'_> = Subject {
    mailbox: "<mailbox>",
    client_id: "<client id>",
    tenant: "<tenant>",
    endpoint: "<endpoint>",
    authority: "<authority>",
    secret: "<secret>",
    key: "<key>",
};

/// Compares, or on request writes, a whole page.
pub fn check(path: &str, page: &str) {
    if env::var_os("MAILROUTE_WRITE").is_some() {
        // Whole at any time: another test may be reading it.
        let new = absolute(path).with_extension("new");
        fs::write(&new, page).expect("the page can be written");
        fs::rename(new, absolute(path)).expect("the page can be replaced");
    }
    assert!(
        read(path) == page,
        "{path} differs from the code; write it again: MAILROUTE_WRITE=1 cargo test -p {} --test pages",
        env!("CARGO_PKG_NAME")
    );
}

/// Compares, or on request writes, what stands between two marks of a page.
pub fn check_between(path: &str, (begin, end): (&str, &str), text: &str) {
    let page = read(path);
    let parts = page.split_once(begin).and_then(|(head, rest)| Some((head, rest.split_once(end)?)));
    let (head, (_, tail)) = parts.unwrap_or_else(|| panic!("{path} lacks the marks {begin}{end}"));
    check(path, &[head, begin, text, end, tail].concat());
}

/// A file of the repository.
pub fn read(path: &str) -> String {
    fs::read_to_string(absolute(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Where it is. Packages that share this file are at different depths.
pub fn absolute(path: &str) -> PathBuf {
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root =
        folders.find(|folder| folder.join("Cargo.lock").exists()).expect("a package is in the repository");
    root.join(path)
}
