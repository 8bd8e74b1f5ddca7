//! TLS and client certificates.

use crate::common::{Served, parsed};
use quorate_server::Options;
use quorate_server::listen::Security;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        (params.signed_by(&key, &self.0).expect("a certificate"), key)
    }
}

async fn served(authority: &Authority, folder: &TempDir) -> Served {
    let (certificate, key) = authority.issue("localhost");
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("it is written");
        path
    };
    let security = Security::Tls {
        cert_file: write("cert.pem", certificate.pem()),
        key_file: write("key.pem", key.serialize_pem()),
        client_ca_file: Some(write("ca.pem", authority.0.pem())),
    };
    Served::start_with(Options { security, ..Options::default() }).await
}

/// Asks for the version over TLS.
async fn ask(address: SocketAddr, authority: &Authority, client: Option<&Authority>) -> std::io::Result<u16> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let (certificate, key) = client.issue("a client");
            let chain = vec![CertificateDer::from(certificate.der().to_vec())];
            let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a certificate")
        }
    };
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(parsed(&answer).0)
}

#[tokio::test]
async fn only_a_client_with_a_certificate_of_the_authority_is_served() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    let served = served(&authority, &folder).await;
    assert_eq!(ask(served.address(), &authority, Some(&authority)).await.expect("an answer"), 200);
    assert!(ask(served.address(), &authority, None).await.is_err(), "no certificate");
    assert!(ask(served.address(), &authority, Some(&Authority::new())).await.is_err(), "somebody else's");
}
