//! TLS 1.3 with raw public keys (RFC 7250): an Ed25519 key is the identity, there are no certificates. The only question
//! of the verifier is "is this key one of those I know?"; the signature over the handshake proves that the other side
//! holds it. No tickets, no resumption, no early data: each connection is proved anew and nothing can be replayed.

use crate::keys::{KeyPair, PublicKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, ClientConfig, Resumption};
use rustls::crypto::ring::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The DER of an Ed25519 public key (RFC 8410) up to its 32 bytes.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// For dialling the one holder of `expected`.
pub fn dialer(key: &KeyPair, expected: PublicKey) -> Result<Arc<ClientConfig>, Error> {
    let provider = provider();
    let identity = identity(key, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // as rustls calls every verifier but its own; ours knows keys instead of certificates
        .with_custom_certificate_verifier(Known::new([expected]))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(identity)));
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For accepting the holders of `known` keys.
pub fn acceptor(key: &KeyPair, known: impl IntoIterator<Item = PublicKey>) -> Result<Arc<ServerConfig>, Error> {
    let provider = provider();
    let identity = identity(key, &provider)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Known::new(known))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(identity)));
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The name that a TLS client must give; with raw keys nobody looks at it and it is not sent.
pub fn nobody() -> ServerName<'static> {
    ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into())
}

/// The key that the other side has proved to hold.
pub fn proved_key(certificates: Option<&[CertificateDer<'_>]>) -> Option<PublicKey> {
    certificates?.first().and_then(public_key)
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(provider)
}

fn identity(key: &KeyPair, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, Error> {
    let private = PrivatePkcs8KeyDer::from(key.pkcs8().to_vec());
    let signer = provider.key_provider.load_private_key(private.into())?;
    let mut spki = SPKI_PREFIX.to_vec();
    spki.extend_from_slice(key.public().as_bytes());
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], signer)))
}

fn public_key(spki: &CertificateDer<'_>) -> Option<PublicKey> {
    let bytes = spki.strip_prefix(&SPKI_PREFIX)?;
    bytes.try_into().ok().map(PublicKey::new)
}

/// The keys that this side takes.
#[derive(Debug)]
struct Known {
    keys: BTreeSet<PublicKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Known {
    fn new(keys: impl IntoIterator<Item = PublicKey>) -> Arc<Self> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        Arc::new(Self { keys: keys.into_iter().collect(), algorithms })
    }

    /// `ApplicationVerificationFailure` reaches the other side as the alert `access_denied`: it learns why.
    fn verify_key(&self, spki: &CertificateDer<'_>) -> Result<(), Error> {
        match public_key(spki) {
            Some(key) if self.keys.contains(&key) => Ok(()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

const TLS12_IS_NOT_SPOKEN: Error = Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered);

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify_key(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(TLS12_IS_NOT_SPOKEN)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Known {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify_key(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(TLS12_IS_NOT_SPOKEN)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
