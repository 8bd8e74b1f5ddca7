//! Distance, on one machine: a relay in each direction between two replicas, through which every byte takes so long. Nothing is lost,
//! changed or reordered, and nothing limits how much is on the way but memory's bound: it is a long cable, and not a bad one.

use bytes::{Bytes, BytesMut};
use quorate_core::ids::ReplicaId;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// What is read at once, at most.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks on the way in one direction of a connection, at most; beyond it, the sender waits.
const CHUNKS_MAX: usize = 256;

/// Relays between replicas, and the thread that runs them. Dropping them cuts every connection.
pub(crate) struct Relays {
    /// Where a replica (the first) finds another one.
    addresses: BTreeMap<(ReplicaId, ReplicaId), SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Relays {
    /// A relay for each ordered pair of these replicas. What one of them sends another takes `one_way` longer, to a millisecond.
    ///
    /// # Errors
    /// A port or a thread was refused.
    pub(crate) fn start(members: &[(ReplicaId, SocketAddr)], one_way: Duration) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut addresses, mut listeners) = (BTreeMap::new(), Vec::new());
        for (from, _) in members {
            for (to, target) in members.iter().filter(|(to, _)| to != from) {
                let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
                listener.set_nonblocking(true)?;
                addresses.insert((*from, *to), listener.local_addr()?);
                listeners.push((listener, *target));
            }
        }
        {
            let _inside = runtime.enter();
            for (listener, target) in listeners {
                runtime.spawn(relay(TcpListener::from_std(listener)?, target, one_way));
            }
        }
        let (stop, stopped) = oneshot::channel::<()>();
        let body = move || drop(runtime.block_on(stopped));
        let thread = std::thread::Builder::new().name("quorate-relays".to_owned()).spawn(body)?;
        Ok(Self { addresses, stop: Some(stop), thread: Some(thread) })
    }

    /// Where `from` finds `to`; `None` for itself, and for strangers.
    pub(crate) fn address(&self, from: ReplicaId, to: ReplicaId) -> Option<SocketAddr> {
        self.addresses.get(&(from, to)).copied()
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join(); // it cannot panic, and if it did there is nothing left to do
        }
    }
}

/// Accepts for ever. A replica that cannot be reached looks as it would without the relay: the connection ends.
async fn relay(listener: TcpListener, target: SocketAddr, one_way: Duration) {
    while let Ok((near, _)) = listener.accept().await {
        let carry = async move {
            let far = TcpStream::connect(target).await?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
            tokio::select! {
                ended = late(from_near, to_far, one_way) => ended,
                ended = late(from_far, to_near, one_way) => ended,
            }
        };
        // Whatever ends one direction ends the connection: replicas dial again.
        drop(tokio::spawn(carry));
    }
}

/// Carries bytes until one side ends.
async fn late(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, one_way: Duration) -> io::Result<()> {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_MAX);
    let read = async move {
        let mut buffer = BytesMut::with_capacity(CHUNK_BYTES);
        while from.read_buf(&mut buffer).await? > 0 {
            if sender.send((Instant::now() + one_way, buffer.split().freeze())).await.is_err() {
                break;
            }
            buffer.reserve(CHUNK_BYTES);
        }
        Ok(())
    };
    let write = async move {
        while let Some((due, chunk)) = chunks.recv().await {
            sleep_until(due).await;
            to.write_all(&chunk).await?;
        }
        Ok(())
    };
    tokio::try_join!(read, write).map(|_| ())
}
