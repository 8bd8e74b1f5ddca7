//! Connections: where they are accepted, how they are protected, and how many there may be.
//!
//! Loopback may be plain. Beyond it, nothing is served without TLS and client certificates: whoever reaches the port could
//! otherwise read and write everything.

use crate::limits::{
    CONNECTIONS_MAX, HANDSHAKE_PATIENCE, HEADERS_BYTES_MAX, HEADERS_PATIENCE, KEEPALIVE_INTERVAL, KEEPALIVE_PATIENCE,
    STREAMS_PER_CONNECTION_MAX,
};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tonic::body::Body;

/// After an accept that failed for want of something, for example of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Flow-control window of a stream, in bytes.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
/// Flow-control window of a connection, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

/// How connections are protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all: loopback only.
    Plain,
    /// By TLS, and by client certificates if there is an authority for them; beyond loopback there must be.
    Tls {
        /// The certificates to show, in PEM.
        cert_file: PathBuf,
        /// The private key of the first, in PEM.
        key_file: PathBuf,
        /// The authorities of clients' certificates, in PEM.
        client_ca_file: Option<PathBuf>,
    },
}

/// Why nothing is served at an address.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error("{address} is in use by another program, perhaps an etcd or another gateway")]
    InUse {
        /// Where.
        address: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The system does not say where it listens.
    #[error("cannot tell the address that is listened on: {0}")]
    Address(io::Error),
    /// Everybody who reaches the address could read and write everything.
    #[error(
        "{address} can be reached from other machines, and needs TLS and client certificates: name `cert_file`, `key_file` \
         and `client_ca_file` in the gateway's file, or listen on 127.0.0.1"
    )]
    Unprotected {
        /// Where.
        address: SocketAddr,
    },
    /// A certificate or key cannot be read.
    #[error("cannot read {} in {}: {why}", what, path.display())]
    Pem {
        /// What was looked for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key cannot be used.
    #[error("the certificate and key cannot be used: {0}")]
    Tls(String),
}

/// Listens on `address`, `host:port`.
///
/// # Errors
/// [`ListenError::InUse`], [`ListenError::Bind`]
pub async fn bind(address: &str) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address: address.to_owned() },
        _ => ListenError::Bind { address: address.to_owned(), source },
    })
}

/// What protects connections to `address`; `None`: nothing, and that is allowed.
pub(crate) fn acceptor(address: SocketAddr, security: &Security) -> Result<Option<TlsAcceptor>, ListenError> {
    let local = address.ip().is_loopback();
    match security {
        Security::Plain if local => Ok(None),
        Security::Plain | Security::Tls { client_ca_file: None, .. } if !local => {
            Err(ListenError::Unprotected { address })
        }
        Security::Plain => Ok(None),
        Security::Tls { cert_file, key_file, client_ca_file } => {
            let config = tls_config(cert_file, key_file, client_ca_file.as_deref())?;
            Ok(Some(TlsAcceptor::from(Arc::new(config))))
        }
    }
}

fn tls_config(cert_file: &Path, key_file: &Path, client_ca: Option<&Path>) -> Result<ServerConfig, ListenError> {
    let certificates = certificates(cert_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| pem("a private key", key_file, error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let unusable = |error: rustls::Error| ListenError::Tls(error.to_string());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(unusable)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in self::certificates(file)? {
                roots.add(certificate).map_err(unusable)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| ListenError::Tls(error.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(certificates, key).map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// At least one certificate.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, ListenError> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    let found: Vec<_> = found.map_err(|error| pem("certificates", file, error))?;
    if found.is_empty() { Err(pem("certificates", file, "there are none")) } else { Ok(found) }
}

fn pem(what: &'static str, path: &Path, why: impl ToString) -> ListenError {
    ListenError::Pem { what, path: path.to_owned(), why: why.to_string() }
}

/// What answers the requests of a port. Cheap to clone.
pub(crate) trait Answers: Clone + Send + Sync + 'static {
    /// Answers one.
    fn answer(self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;

    /// A connection is open as long as the value lives.
    fn opened(&self) -> Box<dyn Send>;

    /// A connection beyond the limit was closed.
    fn turned_away(&self);
}

/// Accepts connections. Never ends; its end ends them all.
pub(crate) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, front: impl Answers) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            front.turned_away();
            continue; // dropped: whoever dials backs off
        };
        let (tls, front) = (tls.clone(), front.clone());
        connections.spawn(async move {
            let _place = place;
            let _open = front.opened();
            connect(stream, tls, front).await;
        });
    }
}

async fn connect(stream: TcpStream, tls: Option<TlsAcceptor>, front: impl Answers) {
    let _slower_without = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return converse(stream, front).await;
    };
    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_PATIENCE, tls.accept(stream)).await {
        converse(stream, front).await;
    }
}

/// HTTP/1 or HTTP/2, as the client begins. A connection that breaks is not worth a word.
async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, front: impl Answers) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_PATIENCE);
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = front.clone().answer(request.map(Body::new));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let _broken = builder.serve_connection(TokioIo::new(stream), service).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str, security: &Security) -> bool {
        let address = address.parse().expect("an address");
        matches!(acceptor(address, security), Err(ListenError::Unprotected { .. }))
    }

    #[test]
    fn nothing_is_served_beyond_loopback_without_tls_and_client_certificates() {
        let tls_only = Security::Tls { cert_file: "cert".into(), key_file: "key".into(), client_ca_file: None };
        for address in ["0.0.0.0:2379", "192.168.1.2:2379", "[::]:2379"] {
            assert!(refused(address, &Security::Plain), "{address}");
            assert!(refused(address, &tls_only), "{address}");
        }
        for address in ["127.0.0.1:2379", "[::1]:2379"] {
            assert!(!refused(address, &Security::Plain), "{address}");
            assert!(!refused(address, &tls_only), "{address}");
        }
    }
}
