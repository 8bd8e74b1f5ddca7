//! Keeping a connection to one replica: dial, greet, carry frames, and start over when it ends.

use super::connection::{self, Greeted};
use super::frame::{FrameBuffer, Kind};
use super::hello::{self, GREETING_BYTES_MAX, Hello};
use super::hub::{Hub, Remote};
use super::status::{CloseReason, DialError};
use super::{Pace, tls};
use crate::config::Member;
use crate::keys;
use bytes::BytesMut;
use quorate_core::ids::{Peer, ReplicaId};
use rustls::{AlertDescription, CertificateError};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::{TlsConnector, TlsStream};

/// A connection that lived as long as this was a good one: the next attempt follows at once.
const GOOD_CONNECTION: Duration = Duration::from_secs(1);

/// Dials `id` for ever. Ends only when the task is aborted.
pub(super) async fn keep_connected(hub: Arc<Hub>, id: ReplicaId, connector: TlsConnector) {
    let Some(remote) = hub.replica(id) else { return };
    let mut backoff = Backoff::new(hub.pace);
    loop {
        hub.inbox.room(Peer::Replica(id)).await; // events take room as well
        let attempt = tokio::time::timeout(hub.pace.handshake_max, dial(&hub, remote, &connector));
        let Member { replica, address, .. } = remote.member.clone();
        match attempt.await.unwrap_or(Err(DialError::TimedOut { replica, address })) {
            Ok(greeted) => {
                let connected = Instant::now();
                carry(&hub, remote, greeted).await;
                if connected.elapsed() >= GOOD_CONNECTION {
                    backoff = Backoff::new(hub.pace);
                }
                tokio::time::sleep(backoff.next()).await;
            }
            Err(error) => {
                let wait = if error.is_transient() { backoff.next() } else { jittered(hub.pace.refused_retry) };
                hub.dial_failed(id, error);
                tokio::time::sleep(wait).await;
            }
        }
    }
}

async fn carry(hub: &Hub, remote: &Remote, greeted: Greeted) {
    let Member { replica, public_key, .. } = remote.member;
    // The key is the one that the TLS layer was told to expect, so nothing is refused here.
    let Ok(lane) = hub.admit(Peer::Replica(replica), public_key) else {
        return;
    };
    let reason = connection::run(hub, &lane, greeted).await;
    hub.leave(&lane, reason);
}

async fn dial(hub: &Hub, remote: &Remote, connector: &TlsConnector) -> Result<Greeted, DialError> {
    let Member { replica, ref address, .. } = remote.member;
    let unreachable = |error: io::Error| {
        let cause =
            if error.kind() == io::ErrorKind::ConnectionRefused { "connection refused" } else { &error.to_string() };
        DialError::Unreachable { replica, address: address.clone(), cause: cause.to_owned() }
    };
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    let broken = |error: io::Error| tls_failure(&remote.member, error);
    let mut stream = TlsStream::from(connector.connect(tls::nobody(), stream).await.map_err(broken)?);
    stream.write_all(&hub.hello.frame()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut buffer = FrameBuffer::new(GREETING_BYTES_MAX);
    read_answer(hub, remote, &mut stream, &mut buffer).await?;
    Ok(Greeted { stream, buffer, greeting: BytesMut::new() })
}

/// The acceptor's Hello, or its reason to refuse. It learns of our key only in our last handshake message, so that an
/// unknown key, too, is answered here: by an alert.
async fn read_answer(
    hub: &Hub,
    remote: &Remote,
    stream: &mut TlsStream<TcpStream>,
    buffer: &mut FrameBuffer,
) -> Result<(), DialError> {
    let Member { replica, ref address, .. } = remote.member;
    let failed = |cause: String| DialError::Failed { replica, address: address.clone(), cause };
    let frame = connection::read_greeting(stream, buffer).await.map_err(|reason| match reason {
        CloseReason::UnknownKey => DialError::UnknownKey { replica, address: address.clone() },
        reason => failed(reason.to_string()),
    })?;
    match frame.kind {
        Kind::Hello => {
            let theirs = Hello::decode(&frame.body).map_err(|error| failed(error.to_string()))?;
            if theirs.role != Peer::Replica(replica) {
                return Err(failed("it claims to be somebody else".into()));
            }
            match theirs.refuses(&hub.hello) {
                Some(sentence) => Err(DialError::Refused { replica, sentence }),
                None => Ok(()),
            }
        }
        Kind::Refused => {
            let sentence = hello::decode_refused(&frame.body).map_err(|error| failed(error.to_string()))?;
            Err(DialError::Refused { replica, sentence })
        }
        Kind::Message | Kind::Ping => Err(failed("it did not greet".into())),
    }
}

fn tls_failure(member: &Member, error: io::Error) -> DialError {
    let Member { replica, ref address, .. } = *member;
    let address = address.clone();
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            DialError::WrongKey { replica, address }
        }
        Some(rustls::Error::AlertReceived(AlertDescription::AccessDenied)) => {
            DialError::UnknownKey { replica, address }
        }
        _ => DialError::Failed { replica, address, cause: error.to_string() },
    }
}

/// How long to wait before the next attempt: doubling from `retry_min` to `retry_max`.
struct Backoff {
    pace: Pace,
    delay: Duration,
}

impl Backoff {
    fn new(pace: Pace) -> Self {
        Self { pace, delay: pace.retry_min }
    }

    fn next(&mut self) -> Duration {
        let delay = self.delay;
        self.delay = (delay * 2).min(self.pace.retry_max);
        jittered(delay)
    }
}

/// Give or take a half, so that replicas that lost each other together do not come back in step.
fn jittered(delay: Duration) -> Duration {
    let dice = keys::random().map_or(u16::MAX / 2, u16::from_le_bytes);
    delay / 2 + delay * u32::from(dice) / (1 << 16)
}
