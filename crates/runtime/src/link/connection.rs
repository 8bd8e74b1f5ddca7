//! One connection from its greeting to its end: a single task that reads, writes and listens for silence.

use super::Incoming;
use super::frame::{Frame, FrameBuffer, Kind, Malformed};
use super::hub::{Hub, Lane};
use super::outbox::Staged;
use super::status::CloseReason;
use bytes::BytesMut;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// How much is read before the rest of the event loop has its turn; each read counts for at least 4 KiB.
const READ_BURST_BYTES: usize = 256 * 1024;
const READ_COST_BYTES_MIN: usize = 4 * 1024;

/// An authenticated connection on which the other side's greeting has been read.
pub(super) struct Greeted {
    pub(super) stream: TlsStream<TcpStream>,
    /// What was read after the greeting.
    pub(super) buffer: FrameBuffer,
    /// Our own greeting, if it is still to be written.
    pub(super) greeting: BytesMut,
}

/// Signs of life since the watch last looked.
#[derive(Default)]
struct Vitals {
    heard: AtomicBool,
    spoke: AtomicBool,
    /// We are not reading, because the host has enough: the other side's silence says nothing.
    paused: AtomicBool,
}

/// Carries frames until the connection ends.
pub(super) async fn run(hub: &Hub, lane: &Lane, greeted: Greeted) -> CloseReason {
    let Greeted { stream, mut buffer, greeting } = greeted;
    buffer.set_limit(hub.frame_bytes_max(lane.peer));
    let (reader, writer) = tokio::io::split(stream);
    let vitals = Vitals::default();
    let Err(reason) = tokio::select! {
        biased;
        reason = lane.outbox.ended() => Err(reason),
        end = read(hub, lane, &vitals, reader, buffer) => end,
        end = write(hub, lane, &vitals, writer, greeting) => end,
        end = watch(hub, lane, &vitals) => end,
    };
    reason
}

/// Reads the first frame of a connection.
pub(super) async fn read_greeting(
    stream: &mut TlsStream<TcpStream>,
    buffer: &mut FrameBuffer,
) -> Result<Frame, CloseReason> {
    loop {
        if let Some(frame) = buffer.next_frame()? {
            return Ok(frame);
        }
        let result = stream.read_buf(buffer.room()).await;
        arrived(result, buffer)?;
    }
}

async fn read(
    hub: &Hub,
    lane: &Lane,
    vitals: &Vitals,
    mut reader: ReadHalf<TlsStream<TcpStream>>,
    mut buffer: FrameBuffer,
) -> Result<Infallible, CloseReason> {
    let mut messages = Vec::new();
    let mut burst_bytes = 0;
    loop {
        while let Some(frame) = buffer.next_frame()? {
            messages.extend(message(hub, lane, frame)?);
        }
        if hub.is_cut(lane.peer) {
            lane.traffic.dropped_unconnected.add(messages.len() as u64);
            messages.clear();
        }
        if !messages.is_empty() {
            if let Some(reason) = lane.outbox.closed() {
                return Err(reason); // the host has been told that this connection is over
            }
            lane.traffic.frames_in.add(messages.len() as u64);
            hub.inbox.push(lane.peer, messages.drain(..));
        }
        if !hub.inbox.has_room(lane.peer) {
            vitals.paused.store(true, Ordering::Relaxed);
            hub.inbox.room(lane.peer).await;
            vitals.paused.store(false, Ordering::Relaxed);
        }
        if burst_bytes >= READ_BURST_BYTES {
            burst_bytes = 0;
            tokio::task::yield_now().await;
        }
        let result = reader.read_buf(buffer.room()).await;
        let count = arrived(result, &buffer)?;
        vitals.heard.store(true, Ordering::Relaxed);
        lane.traffic.bytes_in.add(count as u64);
        burst_bytes += count.max(READ_COST_BYTES_MIN);
    }
}

/// What a read brought; the end of the stream is an error with a name.
fn arrived(result: io::Result<usize>, buffer: &FrameBuffer) -> Result<usize, CloseReason> {
    let ended = match &result {
        Ok(count) => *count == 0,
        Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
    };
    match buffer.pending() {
        arrived if ended && arrived > 0 => Err(Malformed::Truncated { arrived }.into()),
        _ if ended => Err(CloseReason::PeerClosed),
        _ => Ok(result?),
    }
}

/// The message in a frame that came after the greeting; a ping holds none.
fn message(hub: &Hub, lane: &Lane, frame: Frame) -> Result<Option<Incoming>, Malformed> {
    let agreed = hub.hello.epoch;
    if frame.epoch != u64::from(agreed.get()) {
        return Err(Malformed::WrongEpoch { found: frame.epoch, agreed });
    }
    match frame.kind {
        Kind::Message => Ok(Some(Incoming::Message { from: lane.peer, body: frame.body })),
        Kind::Ping if frame.body.is_empty() => Ok(None),
        found @ (Kind::Hello | Kind::Refused | Kind::Ping) => Err(Malformed::OutOfPlace { found }),
    }
}

async fn write(
    hub: &Hub,
    lane: &Lane,
    vitals: &Vitals,
    mut writer: WriteHalf<TlsStream<TcpStream>>,
    mut greeting: BytesMut,
) -> Result<Infallible, CloseReason> {
    writer.write_all_buf(&mut greeting).await?;
    let mut staged = Staged::default();
    loop {
        writer.flush().await?;
        lane.outbox.stage(&mut staged, hub.hello.epoch).await;
        writer.write_all(&staged.small).await?;
        if let Some(large) = &staged.large {
            writer.write_all(large).await?;
        }
        vitals.spoke.store(true, Ordering::Relaxed);
        lane.traffic.frames_out.add(staged.frames);
        lane.traffic.bytes_out.add(staged.bytes() as u64);
        staged.clear();
    }
}

/// Pings after a silence of ours, gives up after a long one of theirs. It looks every `ping_after` and no frame pays for
/// it, so a dead connection is found between `silence_max` and `silence_max + ping_after`.
async fn watch(hub: &Hub, lane: &Lane, vitals: &Vitals) -> Result<Infallible, CloseReason> {
    let mut silence = Duration::ZERO;
    loop {
        tokio::time::sleep(hub.pace.ping_after).await;
        if !vitals.spoke.swap(false, Ordering::Relaxed) {
            lane.outbox.ping();
        }
        if vitals.heard.swap(false, Ordering::Relaxed) || vitals.paused.load(Ordering::Relaxed) {
            silence = Duration::ZERO;
            continue;
        }
        silence += hub.pace.ping_after;
        if silence >= hub.pace.silence_max {
            return Err(CloseReason::Silent);
        }
    }
}
