//! The listening side: who connects is asked for a key, a greeting, and a reason to stay.

use super::connection::{self, Greeted};
use super::frame::{FrameBuffer, Kind};
use super::hello::{GREETING_BYTES_MAX, Hello, refused_frame};
use super::hub::{Hub, Lane};
use super::{LinkError, tls};
use crate::keys::PublicKey;
use bytes::BytesMut;
use quorate_core::crypto::ClientKey;
use quorate_core::ids::Peer;
use rustls::CertificateError;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::{TlsAcceptor, TlsStream};

/// Handshakes under way at a time. One more pushes out the oldest: a flood of callers who never finish delays others,
/// but cannot lock them out, since an honest handshake is done in milliseconds.
const HANDSHAKES_MAX: usize = 256;
/// The pause after the system could not accept, typically for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Opens the listening socket. Port 0 lets the system choose.
pub async fn listen(address: &str) -> Result<TcpListener, LinkError> {
    TcpListener::bind(address).await.map_err(|source| {
        let address = address.to_owned();
        match source.kind() {
            io::ErrorKind::AddrInUse => LinkError::AddressInUse { address },
            _ => LinkError::Listen { address, source },
        }
    })
}

struct Handshake {
    done: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Accepts for ever; aborting this task ends all accepted connections.
pub(super) async fn accept_all(hub: Arc<Hub>, listener: TcpListener, acceptor: TlsAcceptor) {
    let mut sessions = JoinSet::new();
    let mut handshakes: VecDeque<Handshake> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = sessions.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            hub.handshakes.accept_errors.add(1);
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        handshakes.retain(|handshake| !handshake.done.load(Ordering::Relaxed));
        if handshakes.len() >= HANDSHAKES_MAX
            && let Some(oldest) = handshakes.pop_front()
        {
            oldest.task.abort();
            hub.handshakes.crowded_out.add(1);
        }
        let done = Arc::new(AtomicBool::new(false));
        let task = sessions.spawn(serve(hub.clone(), stream, acceptor.clone(), done.clone()));
        handshakes.push_back(Handshake { done, task });
    }
}

/// One accepted connection from its first byte to its last.
async fn serve(hub: Arc<Hub>, stream: TcpStream, acceptor: TlsAcceptor, done: Arc<AtomicBool>) {
    let greeted = tokio::time::timeout(hub.pace.handshake_max, greet(&hub, stream, acceptor)).await;
    done.store(true, Ordering::Relaxed);
    match greeted {
        Ok(Ok((lane, greeted))) => {
            let reason = connection::run(&hub, &lane, greeted).await;
            hub.leave(&lane, reason);
        }
        Ok(Err(Failure::UnknownKey)) => hub.handshakes.unknown_key.add(1),
        Ok(Err(Failure::Refused)) => hub.handshakes.refused.add(1),
        Ok(Err(Failure::Broken)) => hub.handshakes.failed.add(1),
        Err(_) => hub.handshakes.timed_out.add(1),
    }
}

/// Why a caller does not become a peer.
enum Failure {
    UnknownKey,
    Refused,
    Broken,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
                Failure::UnknownKey
            }
            _ => Failure::Broken,
        }
    }
}

async fn greet(hub: &Hub, stream: TcpStream, acceptor: TlsAcceptor) -> Result<(Arc<Lane>, Greeted), Failure> {
    stream.set_nodelay(true)?;
    let mut stream = TlsStream::from(acceptor.accept(stream).await?);
    let key = tls::proved_key(stream.get_ref().1.peer_certificates()).ok_or(Failure::UnknownKey)?;
    let mut buffer = FrameBuffer::new(GREETING_BYTES_MAX);
    let frame = connection::read_greeting(&mut stream, &mut buffer).await.map_err(|_| Failure::Broken)?;
    let hello = match frame.kind {
        Kind::Hello => Hello::decode(&frame.body).map_err(|_| Failure::Broken)?,
        Kind::Refused | Kind::Message | Kind::Ping => return Err(Failure::Broken),
    };
    hub.inbox.room(hello.role).await; // events take room as well
    match admit(hub, &hello, key) {
        Ok(lane) => Ok((lane, Greeted { stream, buffer, greeting: hub.hello.frame() })),
        Err(sentence) => {
            refuse(hub, &mut stream, &sentence).await?;
            Err(Failure::Refused)
        }
    }
}

fn admit(hub: &Hub, hello: &Hello, key: PublicKey) -> Result<Arc<Lane>, String> {
    if let Some(sentence) = hub.hello.refuses(hello) {
        return Err(sentence);
    }
    match hello.role {
        Peer::Replica(_) if hello.role >= hub.hello.role => {
            Err(format!("{} does not dial {}: the lower number dials", hello.role, hub.hello.role))
        }
        Peer::Client(id) if ClientKey { key: key.for_statements(), nonce: hello.nonce }.client() != id => {
            Err(format!("{id} is not the id of your key and nonce"))
        }
        role => hub.admit(role, key),
    }
}

async fn refuse(hub: &Hub, stream: &mut TlsStream<TcpStream>, sentence: &str) -> io::Result<()> {
    let mut frame: BytesMut = refused_frame(hub.hello.epoch, sentence);
    stream.write_all_buf(&mut frame).await?;
    stream.shutdown().await
}
