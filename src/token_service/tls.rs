//! The serving certificate: read from its Secret, exchanged while connections live on. And what a client's certificate
//! must be for a handshake to succeed.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme, sign::CertifiedKey,
};

use crate::ledger::Digest;

/// The Secret's name; its type is `kubernetes.io/tls`.
pub const SECRET: &str = "token-service-tls";

/// The field with the certificate chain, leaf first.
pub const CHAIN: &str = "tls.crt";

/// The field with the leaf's key.
pub const KEY: &str = "tls.key";

/// The longest certificate chain that is read.
const LONGEST_CHAIN: usize = 8;

/// The longest chain that a client may present, in bytes: a session that can be resumed keeps it.
const LONGEST_CLIENT_CHAIN_BYTES: usize = 16 * 1024;

/// The protocol identifier of HTTP/2 (RFC 9113 §3.2).
pub(super) const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// What new connections are served with. Empty until a first certificate could be read; after that it is only ever
/// replaced by another one that could be read.
#[derive(Debug, Default)]
pub struct ServingCertificate {
    current: ArcSwapOption<Serving>,
}

/// A certificate with its key, ready to serve.
#[derive(Debug)]
pub struct Serving {
    config: Arc<ServerConfig>,
    /// Of chain and key, to tell a change from the same again: a new configuration forgets TLS sessions.
    digest: Digest,
}

/// Why a certificate cannot be served. The texts hold no byte of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// `tls.crt` or `tls.key` is not there.
    #[error("the field tls.crt or tls.key is missing")]
    Missing,
    /// `tls.crt` is not a chain of certificates in PEM.
    #[error("the field tls.crt holds no chain of 1 to {LONGEST_CHAIN} certificates in PEM")]
    Certificate,
    /// `tls.key` is not a private key in PEM of a kind we can serve with.
    #[error("the field tls.key holds no usable private key in PEM")]
    Key,
    /// The key is not the certificate's.
    #[error("the fields tls.crt and tls.key do not belong together")]
    Mismatch,
}

impl Serving {
    /// Reads a chain and its key from PEM, the fields of a `kubernetes.io/tls` Secret.
    pub fn parse(chain_pem: Option<&[u8]>, key_pem: Option<&[u8]>) -> Result<Self, Unusable> {
        let (Some(chain_pem), Some(key_pem)) = (chain_pem, key_pem) else { return Err(Unusable::Missing) };
        let digest = Digest::of(&[chain_pem, key_pem].concat());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain_pem)
            .take(LONGEST_CHAIN + 1)
            .collect::<Result<_, _>>()
            .map_err(|_| Unusable::Certificate)?;
        if chain.is_empty() || chain.len() > LONGEST_CHAIN {
            return Err(Unusable::Certificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| Unusable::Key)?;
        let provider = Arc::new(default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let key = provider.key_provider.load_private_key(key).map_err(|_| Unusable::Key)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Unusable::Mismatch,
            _ => Unusable::Certificate,
        })?;
        // TLS 1.3 and 1.2, the provider's cipher suites, key exchange with ML-KEM first.
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| Unusable::Key)?
            .with_client_cert_verifier(Arc::new(PossessionOnly(algorithms)))
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1_1.to_vec()];
        // A resumed handshake saves half where the client has a certificate, and nothing else; a second ticket would only
        // cost. The session keeps the client's certificate, and what that is worth is asked at every request.
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), digest })
    }
}

impl ServingCertificate {
    /// Serves new connections with this certificate. Open ones are not touched.
    pub fn replace(&self, serving: Arc<Serving>) {
        let same = self.current.load().as_ref().is_some_and(|current| current.digest == serving.digest);
        if !same {
            self.current.store(Some(serving));
        }
    }

    /// Whether a certificate is there.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.current.load().is_some()
    }

    /// The configuration for the next connection.
    pub(super) fn config(&self) -> Option<Arc<ServerConfig>> {
        self.current.load().as_ref().map(|serving| serving.config.clone())
    }
}

/// Asks for a client certificate, requires none, and has the client prove that it holds the key of one that it presents.
///
/// Who has signed the certificate and what stands in it is not judged: whether its SHA-256 is in the ledger is asked at
/// every request (rule R1), so what ends or is revoked counts for open connections and resumed sessions too.
#[derive(Debug)]
struct PossessionOnly(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for PossessionOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// No authorities: clients then send what they have, self-signed or not.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let bytes = end_entity.len() + intermediates.iter().map(|certificate| certificate.len()).sum::<usize>();
        if bytes > LONGEST_CLIENT_CHAIN_BYTES {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> (String, String) {
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    fn parse(certificate: &str, key: &str) -> Result<Serving, Unusable> {
        Serving::parse(Some(certificate.as_bytes()), Some(key.as_bytes()))
    }

    #[test]
    fn what_cannot_be_served_is_told_apart() {
        let ((certificate, key), (_, other)) = (pair("a.example"), pair("b.example"));
        assert!(parse(&certificate, &key).is_ok());
        assert_eq!(parse(&certificate, &other).unwrap_err(), Unusable::Mismatch);
        assert_eq!(parse("", &key).unwrap_err(), Unusable::Certificate);
        assert_eq!(parse(&certificate.repeat(9), &key).unwrap_err(), Unusable::Certificate);
        assert_eq!(parse(&certificate, "canary").unwrap_err(), Unusable::Key);
        assert_eq!(Serving::parse(Some(certificate.as_bytes()), None).unwrap_err(), Unusable::Missing);
    }

    #[test]
    fn the_same_certificate_again_changes_nothing() {
        let (certificate, key) = pair("a.example");
        let serving = ServingCertificate::default();
        assert!(serving.config().is_none() && !serving.is_present());
        serving.replace(Arc::new(parse(&certificate, &key).unwrap()));
        let before = serving.config().unwrap();
        serving.replace(Arc::new(parse(&certificate, &key).unwrap()));
        assert!(Arc::ptr_eq(&before, &serving.config().unwrap()));
        let (certificate, key) = pair("a.example");
        serving.replace(Arc::new(parse(&certificate, &key).unwrap()));
        assert!(!Arc::ptr_eq(&before, &serving.config().unwrap()));
    }
}
