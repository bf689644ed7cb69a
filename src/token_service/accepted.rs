//! What a client may prove itself with besides client secrets: keys, certificates, `ServiceAccounts`.
//!
//! Parsed once, when the ledger's entry is read. Most clients have none of it and pay one pointer.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use subtle::ConstantTimeEq as _;

use super::verifying_key::VerifyingKey;
use crate::api::{Kind, TokenEndpointAuthMethod};
use crate::ledger::{Credential, Digest, Verifier};
use crate::rotation;

/// Keys, certificates and `ServiceAccounts` of one client: all revisions in the ledger, valid now or not.
#[derive(Debug)]
pub struct Proofs {
    keys: Box<[AcceptedKey]>,
    certificates: Box<[AcceptedCertificate]>,
    subjects: Box<[AcceptedSubject]>,
}

/// Which revision it is, and when it counts.
#[derive(Clone, Debug)]
pub struct Term {
    /// The credential entry that it belongs to.
    pub entry: Arc<str>,
    /// From when on it is not accepted.
    pub not_after: Timestamp,
    minted_at: Timestamp,
}

/// The public key of one revision of a certificate or public key.
#[derive(Debug)]
pub struct AcceptedKey {
    /// When it counts.
    pub term: Term,
    /// The key.
    pub key: VerifyingKey,
}

/// One revision of a certificate, minted or uploaded.
#[derive(Debug)]
pub struct AcceptedCertificate {
    /// When it counts.
    pub term: Term,
    /// `tls_client_auth` of one that we minted, `self_signed_tls_client_auth` of one that was uploaded.
    pub method: TokenEndpointAuthMethod,
    sha256: Digest,
}

/// A `ServiceAccount` that stands for the client.
#[derive(Debug)]
pub struct AcceptedSubject {
    /// The credential entry.
    pub entry: Arc<str>,
    /// The `sub` of its tokens.
    pub subject: Box<str>,
    /// Its tokens from before this time are not accepted.
    pub revoked_before: Option<Timestamp>,
}

impl Term {
    /// Whether it is accepted now (rule R1).
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        rotation::is_valid(self.minted_at, self.not_after, now)
    }
}

impl Proofs {
    /// Reads them from the credential entries; `None` if there is none.
    ///
    /// A key that cannot be parsed is left out: its certificate still counts for TLS, and the other keys for assertions.
    #[must_use]
    pub fn of(credentials: &BTreeMap<String, Credential>) -> Option<Box<Self>> {
        let (mut keys, mut certificates, mut subjects) = (Vec::new(), Vec::new(), Vec::new());
        for (name, credential) in credentials {
            if credential.subject.is_none() && credential.revisions.iter().all(|r| r.verifier.jwk().is_none()) {
                continue;
            }
            let entry: Arc<str> = name.as_str().into();
            subjects.extend(credential.subject.as_ref().map(|subject| AcceptedSubject {
                entry: entry.clone(),
                subject: subject.as_str().into(),
                revoked_before: credential.revoked_before,
            }));
            for revision in &credential.revisions {
                let term = Term { entry: entry.clone(), not_after: revision.not_after, minted_at: revision.minted_at };
                let key = revision.verifier.jwk().and_then(VerifyingKey::from_jwk);
                keys.extend(key.map(|key| AcceptedKey { term: term.clone(), key }));
                if let Verifier::Certificate(verifier) = &revision.verifier {
                    let method = method_of(credential.kind);
                    certificates.push(AcceptedCertificate { term, method, sha256: verifier.cert_sha256 });
                }
            }
        }
        let is_empty = keys.is_empty() && certificates.is_empty() && subjects.is_empty();
        let proofs = Self { keys: keys.into(), certificates: certificates.into(), subjects: subjects.into() };
        (!is_empty).then(|| Box::new(proofs))
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &[AcceptedKey] {
        &self.keys
    }

    /// Every revision of this certificate, given by the SHA-256 of its DER.
    pub fn certificates(&self, sha256: Digest) -> impl Iterator<Item = &AcceptedCertificate> {
        self.certificates.iter().filter(move |certificate| bool::from(certificate.sha256.0.ct_eq(&sha256.0)))
    }

    /// The entries of this `ServiceAccount`, given by the `sub` of its tokens.
    pub fn subjects(&self, subject: &str) -> impl Iterator<Item = &AcceptedSubject> {
        self.subjects.iter().filter(move |accepted| &*accepted.subject == subject)
    }
}

/// What RFC 8705 calls the authentication with a certificate of this kind of entry: those that we mint have a CA, an
/// uploaded one is believed for itself whoever signed it.
const fn method_of(kind: Kind) -> TokenEndpointAuthMethod {
    match kind {
        Kind::Certificate => TokenEndpointAuthMethod::TlsClientAuth,
        // The last three have no certificate.
        Kind::PublicKey | Kind::ServiceAccount | Kind::ClientSecret | Kind::AccessToken => {
            TokenEndpointAuthMethod::SelfSignedTlsClientAuth
        }
    }
}
