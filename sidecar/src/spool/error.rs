//! What can go wrong with the spool.

use std::io;
use std::path::{Path, PathBuf};

use super::frame::FormatError;
use crate::message::envelope::QueueId;

/// Why the spool could not do what it was asked to. Paths are for the log: none of this is told to an application.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// No room for another message. Nothing of it is left behind. What is kept already is not touched.
    #[error("the spool is full")]
    Full(#[source] Full),
    /// Another program has the spool open.
    #[error("the spool in {0} is in use by another program; give each its own --spool-dir")]
    InUse(PathBuf),
    /// The message's file is damaged. It has been put into `corrupt/`.
    #[error("message {id} is damaged and was set aside in corrupt/")]
    Damaged {
        /// Which message.
        id: QueueId,
        /// What is wrong with it.
        source: FormatError,
    },
    /// No such message is kept, or not any more.
    #[error("no message {0} is stored")]
    Unknown(QueueId),
    /// A file that was set aside is no message, by its name.
    #[error("{0} is not the file of a message")]
    NoMessage(String),
    /// A file that was set aside is about a message that is kept.
    #[error("message {0} is already stored; the file in corrupt/ is another copy of it")]
    IsKept(QueueId),
    /// The envelope is too large to be kept.
    #[error("the message's envelope cannot be stored")]
    Envelope(#[source] FormatError),
    /// The disk did not do what it was asked to.
    #[error("cannot {doing} {path}")]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// The program is stopping.
    #[error("the spool is closing")]
    Closing,
}

/// What there is no room in.
#[derive(Debug, thiserror::Error)]
pub enum Full {
    /// The share that the route allows.
    #[error("{used} bytes are in use, and {more} more would exceed the limit of {max}")]
    Limit {
        /// Octets kept, in whole blocks.
        used: u64,
        /// Octets asked for.
        more: u64,
        /// Octets that may be kept.
        max: u64,
    },
    /// The volume: its octets, its inodes or a quota.
    #[error("the volume has no room left")]
    Volume(#[source] io::Error),
}

impl SpoolError {
    /// An error of the disk, told apart from a full one.
    pub(super) fn disk(doing: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full(Full::Volume(source))
            }
            _ => Self::Disk { doing, path: path.into(), source },
        }
    }

    /// The same error once more, for another message in the same batch.
    pub(super) fn repeat(&self) -> Self {
        let again = |source: &io::Error| {
            source.raw_os_error().map_or_else(|| source.kind().into(), io::Error::from_raw_os_error)
        };
        match self {
            Self::Full(Full::Volume(source)) => Self::Full(Full::Volume(again(source))),
            Self::Disk { doing, path, source } => {
                Self::Disk { doing, path: path.clone(), source: again(source) }
            }
            _ => Self::Closing,
        }
    }
}
