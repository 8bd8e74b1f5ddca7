//! The frame: what a link carries, and how it is cut out of the bytes that arrive.
//!
//! ```text
//! 0         4      5         6          8                16
//! | length  | kind | version | reserved | epoch          | body, `length` bytes
//! | u32     | u8   | u8 = 1  | u16 = 0  | u64            |      (little-endian)
//! ```
//!
//! A header is judged as soon as its 16 bytes are there: no frame is waited for, or has memory set aside for it, whose
//! header is wrong or whose length is beyond the limit.

use bytes::{Buf, Bytes, BytesMut};
use quorate_core::ids::Epoch;

/// Bytes before a frame's body.
pub const HEADER_BYTES: usize = 16;
/// The frame layout's version. Another one is another protocol: the connection ends.
pub const VERSION: u8 = 1;
/// Free space that is made before a read: the least and the most that it grows to on a connection that keeps it full.
const READ_STEP_MIN: usize = 4 * 1024;
const READ_STEP_MAX: usize = 64 * 1024;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The first frame in either direction: who speaks, to which cluster.
    Hello = 1,
    /// The acceptor's answer to a Hello that it does not take: a sentence; then it closes.
    Refused = 2,
    /// A message for the host.
    Message = 3,
    /// "I am still here": sent after a silence, without a body.
    Ping = 4,
}

/// How an authenticated peer broke the frame format. The connection is closed and the break counted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The length field is beyond what this side takes.
    #[error("a frame of {length} bytes, more than the {max} that are allowed here")]
    TooLong {
        /// What the header says.
        length: u32,
        /// What is allowed.
        max: usize,
    },
    /// Another frame layout, or no frame at all.
    #[error("frame version {found}, this side speaks version {VERSION}")]
    WrongVersion {
        /// What the header says.
        found: u8,
    },
    /// A kind that does not exist.
    #[error("frame kind {found} does not exist")]
    UnknownKind {
        /// What the header says.
        found: u8,
    },
    /// Bits that must be zero are not.
    #[error("the reserved bits of a frame are not zero")]
    Reserved,
    /// Not the epoch that both sides agreed on.
    #[error("a frame of epoch {found} on a link of epoch {agreed}")]
    WrongEpoch {
        /// What the header says.
        found: u64,
        /// What the Hello said.
        agreed: Epoch,
    },
    /// A kind that has no place here: a second Hello, a message before the first, a ping with a body.
    #[error("a {found:?} frame where none belongs")]
    OutOfPlace {
        /// What came.
        found: Kind,
    },
    /// The connection ended inside a frame.
    #[error("the connection ended inside a frame, after {arrived} of its bytes")]
    Truncated {
        /// Bytes of the frame, header included, that did arrive.
        arrived: usize,
    },
    /// A Hello or Refused that cannot be read.
    #[error("a greeting that is not one of Quorate's")]
    Greeting,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is for.
    pub kind: Kind,
    /// The epoch it belongs to, as it came.
    pub epoch: u64,
    /// Its content, a view of the connection's read buffer.
    pub body: Bytes,
}

/// A frame's header.
///
/// # Panics
/// If the body is longer than the format can say; every caller has checked it against a limit below 4 GiB.
pub fn header(kind: Kind, epoch: Epoch, body_bytes: usize) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(body_bytes).expect("bodies are limited to less than 4 GiB before they are queued");
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4] = kind as u8;
    header[5] = VERSION;
    header[8..].copy_from_slice(&u64::from(epoch.get()).to_le_bytes());
    header
}

/// A connection's read buffer, and the frames in it.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: BytesMut,
    body_bytes_max: usize,
    step: usize,
}

impl FrameBuffer {
    /// An empty buffer that takes bodies of up to `body_bytes_max`.
    pub fn new(body_bytes_max: usize) -> Self {
        Self { bytes: BytesMut::new(), body_bytes_max, step: READ_STEP_MIN }
    }

    /// Changes what length of body is taken from now on.
    pub fn set_limit(&mut self, body_bytes_max: usize) {
        self.body_bytes_max = body_bytes_max;
    }

    /// The buffer with room to read into. Memory grows with what has arrived, never with what a header announces: the
    /// room is 4 to 64 KiB, or as much again as is waiting for its frame to be complete.
    pub fn room(&mut self) -> &mut BytesMut {
        let arrived = self.bytes.len();
        if self.bytes.capacity() - arrived < READ_STEP_MIN / 8 {
            self.bytes.reserve(self.step.max(arrived));
            self.step = (self.step * 2).min(READ_STEP_MAX);
        }
        &mut self.bytes
    }

    /// Bytes of a frame that is not complete yet.
    pub fn pending(&self) -> usize {
        self.bytes.len()
    }

    /// The next complete frame, if there is one. After an error the buffer is of no use any more.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, Malformed> {
        let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, kind, version, r0, r1, epoch @ ..] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let kind = self.judge(length, kind, version, [r0, r1])?;
        let epoch = u64::from_le_bytes(epoch);
        let body_bytes = length as usize;
        if self.bytes.len() < HEADER_BYTES + body_bytes {
            return Ok(None);
        }
        self.bytes.advance(HEADER_BYTES);
        let body = self.bytes.split_to(body_bytes).freeze();
        Ok(Some(Frame { kind, epoch, body }))
    }

    /// The version first: what is no frame at all should be called that, not "too long".
    fn judge(&self, length: u32, kind: u8, version: u8, reserved: [u8; 2]) -> Result<Kind, Malformed> {
        if version != VERSION {
            return Err(Malformed::WrongVersion { found: version });
        }
        if reserved != [0, 0] {
            return Err(Malformed::Reserved);
        }
        if length as usize > self.body_bytes_max {
            return Err(Malformed::TooLong { length, max: self.body_bytes_max });
        }
        match kind {
            1 => Ok(Kind::Hello),
            2 => Ok(Kind::Refused),
            3 => Ok(Kind::Message),
            4 => Ok(Kind::Ping),
            found => Err(Malformed::UnknownKind { found }),
        }
    }
}
