//! Keys and certificates that clients and clusters of these tests prove themselves with.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use appreg::api::KeyType;
use appreg::ledger::Digest;
use appreg::mint::ca::{self, SigningCa};
use appreg::mint::certificate::{self, CertificateOrder, MintedCertificate};
use appreg::token_service::cluster_keys::{DISCOVERY_PATH, JWKS_PATH};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use super::NOW;
use crate::fake_api::FakeApi;

pub(super) const CERTIFICATE: &str = "certificate";
pub(super) const PUBLIC_KEY: &str = "publicKey";
pub(super) const SERVICE_ACCOUNT: &str = "serviceAccount";

/// A key with a certificate over it.
pub(super) struct Key {
    pub(super) key_type: KeyType,
    pub(super) minted: MintedCertificate,
}

/// A cluster that signs `ServiceAccount` tokens.
pub(super) struct Cluster {
    pub(super) issuer: &'static str,
    pub(super) key: Key,
}

/// The cluster that token services of these tests run in.
pub(super) fn cluster() -> &'static Cluster {
    static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| Cluster {
        issuer: "https://kubernetes.default.svc.cluster.local",
        key: Key::new(KeyType::Rsa2048),
    });
    &CLUSTER
}

/// Another certificate authority each time.
pub(super) fn authority() -> SigningCa {
    let minted = ca::mint("2026-01-01T00:00:00Z".parse().unwrap()).unwrap();
    SigningCa::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap()
}

impl Key {
    /// A new one.
    pub(super) fn new(key_type: KeyType) -> Self {
        Self::signed_by(&authority(), key_type)
    }

    pub(super) fn signed_by(ca: &SigningCa, key_type: KeyType) -> Self {
        let order = CertificateOrder {
            key_type,
            server: "default".into(),
            client_id: "shop.robot".into(),
            dns_names: Vec::new(),
            minted_at: NOW.parse().unwrap(),
            not_after: "2027-02-20T10:00:00Z".parse().unwrap(),
        };
        Self { key_type, minted: certificate::mint(&order, ca).unwrap() }
    }

    /// What the ledger has of its certificate.
    pub(super) fn of_certificate(&self) -> Value {
        json!(self.minted.verifier)
    }

    /// What the ledger has of the key alone.
    pub(super) fn of_key(&self) -> Value {
        let verifier = &self.minted.verifier;
        json!({"spkiSHA256": verifier.spki_sha256, "jwk": verifier.jwk})
    }

    pub(super) fn jwk(&self) -> &Value {
        &self.minted.verifier.jwk
    }

    pub(super) fn kid(&self) -> &str {
        self.jwk()["kid"].as_str().unwrap()
    }

    pub(super) fn thumbprint(&self) -> String {
        self.minted.verifier.cert_sha256.to_base64url()
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.minted.certificate_pem.as_bytes()).unwrap()
    }

    pub(super) fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.minted.private_key_pem.expose()).unwrap()
    }

    /// The algorithm that it signs by, the first where it has two.
    pub(super) fn alg(&self) -> Algorithm {
        match self.key_type {
            KeyType::EcdsaP256 => Algorithm::ES256,
            KeyType::EcdsaP384 => Algorithm::ES384,
            KeyType::Ed25519 => Algorithm::EdDSA,
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => Algorithm::RS256,
        }
    }

    /// A JWT of exactly this header and these claims.
    pub(super) fn sign(&self, alg: Algorithm, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let pem = self.minted.private_key_pem.expose();
        let key = match self.key_type {
            KeyType::EcdsaP256 | KeyType::EcdsaP384 => EncodingKey::from_ec_pem(pem),
            KeyType::Ed25519 => EncodingKey::from_ed_pem(pem),
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => EncodingKey::from_rsa_pem(pem),
        };
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key.unwrap(), alg).unwrap();
        format!("{message}.{signature}")
    }
}

/// Header and payload of a JWT.
pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    let segment = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}", segment(header), segment(claims))
}

/// An identifier that no assertion has had.
pub(super) fn jti() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Cluster {
    /// Has the API server say what a real one says.
    pub(super) fn publish(&self, api: &FakeApi) {
        let discovery = json!({
            "issuer": self.issuer, "jwks_uri": "https://192.0.2.1:6443/openid/v1/jwks",
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        });
        api.person_publishes(DISCOVERY_PATH, &discovery);
        let mut jwk = self.key.jwk().clone();
        jwk["alg"] = json!(format!("{:?}", self.key.alg()));
        api.person_publishes(JWKS_PATH, &json!({"keys": [jwk]}));
    }

    /// A token of a `ServiceAccount` as `TokenRequest` gives one; `change` makes it another.
    pub(super) fn token(&self, audience: &str, now: i64, change: impl Fn(&mut Value)) -> String {
        let mut claims = json!({
            "aud": [audience], "exp": now + 3600, "iat": now, "nbf": now, "iss": self.issuer, "jti": jti(),
            "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "robot", "uid": "u"}},
            "sub": "system:serviceaccount:shop:robot",
        });
        change(&mut claims);
        let alg = self.key.alg();
        self.key.sign(alg, &json!({"alg": format!("{alg:?}"), "kid": self.key.kid()}), &claims)
    }
}

/// A certificate that signed itself, as people make one.
pub(super) fn self_signed() -> (CertificateDer<'static>, PrivateKeyDer<'static>, Value) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["robot.example".to_owned()]).unwrap();
    let jwk = Key::new(KeyType::EcdsaP256).jwk().clone();
    let digest = Digest::of(cert.der()).to_base64url();
    let verifier = json!({"spkiSHA256": digest, "certSHA256": digest, "jwk": jwk});
    let key = PrivateKeyDer::from_pem_slice(signing_key.serialize_pem().as_bytes()).unwrap();
    (cert.der().clone(), key, verifier)
}
