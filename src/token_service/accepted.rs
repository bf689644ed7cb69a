//! What a client may prove itself with besides client secrets: keys, certificates, `ServiceAccounts`.
//!
//! Parsed once, when the ledger's entry is read. Most clients have none of it and pay one pointer.

use std::sync::Arc;

use jiff::Timestamp;
use subtle::ConstantTimeEq as _;

use super::texts::Texts;
use crate::api::{Kind, TokenEndpointAuthMethod};
use crate::jws::key::VerifyingKey;
use crate::ledger::{Digest, Entry, Verifier};
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
    /// Its number.
    pub revision: u64,
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
    /// Reads them from a ledger entry; `None` if there is none.
    ///
    /// A key that cannot be parsed is left out: its certificate still counts for TLS, and the other keys for assertions.
    #[must_use]
    pub fn of(entry: &Entry, texts: &Texts) -> Option<Box<Self>> {
        let (mut keys, mut certificates, mut subjects) = (Vec::new(), Vec::new(), Vec::new());
        for (name, credential) in &entry.credentials {
            if credential.subject.is_none() && credential.revisions.iter().all(|r| r.verifier.jwk().is_none()) {
                continue;
            }
            let of_client = entry.revoked_before;
            let entry = texts.shared(name);
            subjects.extend(credential.subject.as_ref().map(|subject| AcceptedSubject {
                entry: entry.clone(),
                subject: subject.as_str().into(),
                revoked_before: credential.revoked_before,
            }));
            for revision in &credential.revisions {
                let term = Term {
                    entry: entry.clone(),
                    revision: revision.revision,
                    not_after: credential.end_of(revision, of_client),
                    minted_at: revision.minted_at,
                };
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn proofs(credentials: &Value) -> Option<Box<Proofs>> {
        let entry = json!({
            "version": 1, "server": "default", "clientID": "shop.a", "createdAt": "2026-01-01T00:00:00Z",
            "owner": {"namespace": "shop", "name": "a", "uid": "u"}, "credentials": credentials,
        });
        Proofs::of(&serde_json::from_value(entry).unwrap(), &Texts::default())
    }

    fn revision(verifier: &Value) -> Value {
        json!({"revision": 1, "mintedAt": "2026-01-01T00:00:00Z", "notAfter": "2026-02-01T00:00:00Z", "verifier": verifier})
    }

    fn of_certificate(jwk: &Value) -> Value {
        let digest = Digest::of(b"certificate").to_base64url();
        json!({"spkiSHA256": digest, "certSHA256": digest, "jwk": jwk})
    }

    #[test]
    fn a_client_with_client_secrets_alone_pays_a_pointer() {
        let secret = json!({"sha256": Digest::of(b"x").to_base64url()});
        let credentials = json!({
            "web": {"kind": "clientSecret", "revisions": [revision(&secret)]}, "api": {"kind": "accessToken"},
        });
        assert!(proofs(&credentials).is_none());
        assert_eq!(size_of::<Option<Box<Proofs>>>(), size_of::<usize>());
    }

    #[test]
    fn a_certificate_counts_even_if_its_key_cannot_be_read_and_by_the_method_of_its_entry() {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY"});
        let proofs = proofs(&json!({
            "minted": {"kind": "certificate", "revisions": [revision(&of_certificate(&jwk))]},
            "partner": {"kind": "publicKey", "revisions": [revision(&of_certificate(&json!({"kty": "new"})))]},
            "pod": {"kind": "serviceAccount", "subject": "system:serviceaccount:shop:a", "revokedBefore": null},
        }))
        .unwrap();
        assert_eq!(proofs.keys().iter().map(|key| &*key.term.entry).collect::<Vec<_>>(), ["minted"]);
        let methods: Vec<_> = proofs.certificates(Digest::of(b"certificate")).map(|found| found.method).collect();
        assert_eq!(methods, [TokenEndpointAuthMethod::TlsClientAuth, TokenEndpointAuthMethod::SelfSignedTlsClientAuth]);
        assert_eq!(proofs.certificates(Digest::of(b"another")).count(), 0);
        assert_eq!(
            proofs.subjects("system:serviceaccount:shop:a").map(|found| &*found.entry).collect::<Vec<_>>(),
            ["pod"]
        );
        assert_eq!(proofs.subjects("system:serviceaccount:shop:b").count(), 0);
    }
}
