//! Sockets in the spool directory: where the running program takes commands, and where it answers the kubelet's probe.
//!
//! Owns their paths, their mode, and what becomes of one that a killed program left. Refuses to know what is said.
//!
//! A socket appears under its name only when nobody but the own user can connect to it: it is made in `tmp/`, which is
//! the own user's, and moved. That replaces what a killed program left; the spool's lock says that nobody serves there.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::spool::Layout;

/// Longest path of a socket, octets: `sun_path` of unix(7) has 108 with a zero at the end.
const MAX_PATH_BYTES: usize = 107;

/// A socket that is served. Its name goes with it.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    path: PathBuf,
}

impl Listening {
    /// Listens at `path` in the spool of `layout`, which this program has open.
    ///
    /// # Errors
    /// When the volume has no sockets or modes, or the path cannot be made short.
    pub fn bind(layout: &Layout, path: PathBuf) -> io::Result<Self> {
        let made = layout.tmp().join(path.file_name().unwrap_or_default());
        let short = Short::of(&made)?;
        // One that was left by a start that failed between here and the move.
        match fs::remove_file(&made) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&short.path)?;
        fs::set_permissions(&made, Permissions::from_mode(0o600))?;
        fs::rename(&made, &path)?;
        Ok(Self { listener, path })
    }

    /// The next connection.
    ///
    /// # Errors
    /// As accept(2).
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // One that stays is replaced at the next start, and nobody answers there meanwhile.
        let _ = fs::remove_file(&self.path);
    }
}

/// Connects to the program that has the spool open; `None` when there is none.
///
/// # Errors
/// When there may be one and it cannot be reached.
pub async fn connect(layout: &Layout) -> io::Result<Option<UnixStream>> {
    let short = match Short::of(&layout.socket()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        short => short?,
    };
    match UnixStream::connect(&short.path).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Connects to the socket at `path`. Blocks for as long as the volume does.
///
/// # Errors
/// When nobody listens there.
pub fn connect_blocking(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let short = Short::of(path)?;
    std::os::unix::net::UnixStream::connect(&short.path)
}

/// A path that fits into an address. A longer one goes by way of its open directory.
struct Short {
    path: PathBuf,
    /// Open for as long as the path is used.
    _directory: Option<File>,
}

impl Short {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= MAX_PATH_BYTES {
            return Ok(Self { path: path.into(), _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let directory = File::open(parent)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn layout(root: &Path) -> Layout {
        fs::create_dir_all(root.join("tmp")).unwrap();
        Layout::new(root)
    }

    async fn answers(layout: &Layout) -> bool {
        connect(layout).await.unwrap().is_some()
    }

    #[tokio::test]
    async fn a_socket_is_for_the_own_user_and_goes_with_its_program() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        assert!(!answers(&layout).await, "nobody listens yet");
        let listening = Listening::bind(&layout, layout.socket()).unwrap();
        assert_eq!(fs::metadata(layout.socket()).unwrap().mode() & 0o777, 0o600);
        assert!(answers(&layout).await);
        drop(listening);
        assert!(!layout.socket().exists() && !answers(&layout).await);
    }

    #[tokio::test]
    async fn what_a_killed_program_left_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(root.path());
        for stale in [layout.socket(), layout.tmp().join("socket")] {
            drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
            assert!(stale.exists());
        }
        assert!(!answers(&layout).await, "a name alone is no program");
        let _listening = Listening::bind(&layout, layout.socket()).unwrap();
        assert!(answers(&layout).await);
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_for_an_address_works_as_well() {
        let root = tempfile::tempdir().unwrap();
        let layout = layout(&root.path().join("d".repeat(120)).join("e".repeat(120)));
        let listening = Listening::bind(&layout, layout.socket()).unwrap();
        assert!(layout.socket().exists() && answers(&layout).await);
        drop(listening);
        assert!(!layout.socket().exists());
    }
}
