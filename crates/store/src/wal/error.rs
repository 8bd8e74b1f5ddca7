//! Why a log refuses.

use crate::disk::DiskError;

/// Why a log cannot be opened or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// No segment at all.
    #[error(
        "the log is gone: its folder has no segment; recover the replica from its peers, it may have forgotten promises"
    )]
    Missing,
    /// Creating a log where one is.
    #[error("the folder has a log already: open it, or create the new one in an empty data folder")]
    Exists,
    /// A segment of another log.
    #[error(
        "{file} belongs to another log ({found:032x}, this one is {expected:032x}): move the file out of the folder"
    )]
    Foreign {
        /// The file.
        file: String,
        /// The log that it belongs to.
        found: u128,
        /// The log that was opened.
        expected: u128,
    },
    /// A segment under the name of another.
    #[error("{file} was renamed: it is segment {number:016x}; give it that name again")]
    Misnamed {
        /// The file.
        file: String,
        /// Its number by its header.
        number: u64,
    },
    /// Another format.
    #[error("{file} has format version {version}, which this program does not know: use the release that wrote it")]
    Version {
        /// The file.
        file: String,
        /// The version found.
        version: u32,
    },
    /// Nothing says which log this is.
    #[error(
        "no segment has a readable header, so that the log's id is unknown: open the log with the id in the superblock"
    )]
    NoHeader,
    /// A body longer than the configuration allows.
    #[error("a record of {len} bytes is longer than the limit of {max}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A configuration that makes no sense.
    #[error("bad configuration of the log: {0}")]
    Config(&'static str),
    /// No room for another segment. Nothing appended so far is affected; appending works again when there is room.
    #[error("the disk is full: the log cannot make its next segment; free space, the replica goes on by itself ({0})")]
    Full(DiskError),
    /// A write or sync failed.
    #[error(
        "writing the log failed and the process must stop: after a failed sync the system may drop the data and still report \
         later syncs as good, so trying again would lose it silently; start again when the disk works ({cause})"
    )]
    Stopped {
        /// The first failure.
        cause: DiskError,
    },
    /// The disk refused an operation while opening.
    #[error(transparent)]
    Disk(#[from] DiskError),
}
