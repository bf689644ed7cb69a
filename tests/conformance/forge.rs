//! Tokens as the issuer makes them, and as it never would, and who shows them.

use std::path::Path;

use anyhow::{Context as _, Result};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::harness::operator::LEDGER;
use super::resource::{Validator, http};
use super::stage::{AUDIENCE, Registered, Stage};

/// A token that is tried, and what the API must say.
pub(crate) struct Tried {
    pub(crate) what: &'static str,
    pub(crate) token: String,
    pub(crate) status: u16,
}

/// Makes tokens as the issuer would, with its own key, and as it never would.
pub(crate) struct Forge {
    header: Header,
    claims: Value,
    key: EncodingKey,
    public_key_pem: String,
    other_key: EncodingKey,
    issued: String,
}

impl Forge {
    /// After the pattern of a token that was issued.
    pub(crate) async fn new(stage: &Stage<'_>, issued: &str) -> Result<Self> {
        let header = jsonwebtoken::decode_header(issued)?;
        let payload = issued.split('.').nth(1).context("a payload")?;
        let claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
        let keys = Api::<Secret>::namespaced(stage.client.clone(), LEDGER).get("signing-keys").await?;
        let kid = header.kid.as_deref().context("a kid")?;
        let pem = keys.data.as_ref().and_then(|data| data.get(&format!("{kid}.pem"))).context("the signing key")?;
        let pem = std::str::from_utf8(&pem.0)?;
        let other = match header.alg {
            Algorithm::ES256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            Algorithm::EdDSA => KeyPair::generate_for(&PKCS_ED25519)?,
            _ => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        };
        Ok(Self {
            key: encoding_key(header.alg, pem)?,
            public_key_pem: KeyPair::from_pem(pem)?.public_key_pem(),
            other_key: encoding_key(header.alg, &other.serialize_pem())?,
            header,
            claims,
            issued: issued.to_owned(),
        })
    }

    /// What every API must take and refuse, without a certificate.
    pub(crate) fn tried(&self) -> Result<Vec<Tried>> {
        let now = self.claims["iat"].as_i64().context("iat")?;
        let signed = |claims: &Value| self.signed(claims);
        let with = |name: &str, value: Value| {
            let mut claims = self.claims.clone();
            claims[name] = value;
            claims
        };
        let header = |change: fn(&mut Header)| {
            let mut header = self.header.clone();
            change(&mut header);
            header
        };
        let [head, payload, signature] = parts(&self.issued)?;
        let widened = URL_SAFE_NO_PAD.encode(with("scope", json!("orders:read admin")).to_string());
        let mut flipped = URL_SAFE_NO_PAD.decode(signature)?;
        flipped[7] ^= 1;
        let flipped = URL_SAFE_NO_PAD.encode(flipped);
        let unsigned = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "typ": "at+jwt"}).to_string());
        let unknown = jsonwebtoken::encode(
            &header(|header| header.kid = Some("unpublished".to_owned())),
            &self.claims,
            &self.other_key,
        )?;
        let mut hmac = header(|header| header.alg = Algorithm::HS256);
        let public = EncodingKey::from_secret(self.public_key_pem.as_bytes());
        let confused = jsonwebtoken::encode(&hmac, &self.claims, &public)?;
        hmac.kid = None;
        let confused_without_kid = jsonwebtoken::encode(&hmac, &self.claims, &public)?;
        let id_token = header(|header| header.typ = Some("JWT".to_owned()));
        let case = |what, token, status| Tried { what, token, status };
        Ok(vec![
            case("the token as issued", self.issued.clone(), 200),
            case("the same claims signed again", signed(&self.claims)?, 200),
            case("among several audiences", signed(&with("aud", json!(["https://a.example", AUDIENCE])))?, 200),
            case("no token", String::new(), 401),
            case("no JWT", "newsletter".to_owned(), 401),
            case("tampered claims", format!("{head}.{widened}.{signature}"), 401),
            case("tampered signature", format!("{head}.{payload}.{flipped}"), 401),
            case("no signature", format!("{head}.{payload}."), 401),
            case("alg: none", format!("{unsigned}.{payload}."), 401),
            case("HS256 with the public key", confused, 401),
            case("HS256 with the public key, no kid", confused_without_kid, 401),
            case("an unpublished key", unknown, 401),
            case(
                "an unpublished key under a published kid",
                jsonwebtoken::encode(&self.header, &self.claims, &self.other_key)?,
                401,
            ),
            case("another audience", signed(&with("aud", json!("https://other.example")))?, 401),
            case("no audience", signed(&without(&self.claims, "aud"))?, 401),
            case("another issuer", signed(&with("iss", json!("https://other.example")))?, 401),
            case("ended an hour ago", signed(&with("exp", json!(now - 3600)))?, 401),
            case("without an end", signed(&without(&self.claims, "exp"))?, 401),
            case("another type of JWT", jsonwebtoken::encode(&id_token, &self.claims, &self.key)?, 401),
            case("without the scope", signed(&with("scope", json!("orders:write")))?, 403),
        ])
    }
}

impl Forge {
    /// These claims under the header that our tokens have, byte for byte.
    fn signed(&self, claims: &Value) -> Result<String> {
        let [head, ..] = parts(&self.issued)?;
        let message = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.header.alg)?;
        Ok(format!("{message}.{signature}"))
    }

    /// The algorithm.
    pub(crate) const fn algorithm(&self) -> Algorithm {
        self.header.alg
    }

    /// The same token, bound to this certificate (PEM; RFC 8705 section 3.1).
    pub(crate) fn bound(&self, certificate_pem: &str) -> Result<String> {
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())?;
        let thumbprint = digest(&SHA256, &certificate);
        self.confirmed(&json!({"x5t#S256": URL_SAFE_NO_PAD.encode(thumbprint)}))
    }

    /// The same token, but that it ended an hour ago.
    pub(crate) fn ended(&self) -> Result<String> {
        let mut claims = self.claims.clone();
        claims["exp"] = json!(claims["iat"].as_i64().context("iat")? - 3600);
        self.signed(&claims)
    }

    /// The same token with this `cnf` (RFC 7800).
    pub(crate) fn confirmed(&self, cnf: &Value) -> Result<String> {
        let mut claims = self.claims.clone();
        claims["cnf"] = cnf.clone();
        self.signed(&claims)
    }
}

fn without(claims: &Value, name: &str) -> Value {
    let mut claims = claims.clone();
    if let Some(claims) = claims.as_object_mut() {
        claims.remove(name);
    }
    claims
}

fn parts(token: &str) -> Result<[&str; 3]> {
    let parts: Vec<&str> = token.split('.').collect();
    parts.try_into().ok().context("a JWS has three parts")
}

fn encoding_key(algorithm: Algorithm, pem: &str) -> Result<EncodingKey> {
    Ok(match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes())?,
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes())?,
        _ => EncodingKey::from_rsa_pem(pem.as_bytes())?,
    })
}

/// Callers of an API, with a certificate and without.
pub(crate) struct Callers {
    pub(crate) plain: reqwest::Client,
    holder: reqwest::Client,
    other: reqwest::Client,
    certificate: String,
}

impl Callers {
    pub(crate) fn new(ca: &Path, holder: &Registered, other: &Registered) -> Result<Self> {
        let identity = |of: &Registered| anyhow::Ok(format!("{}{}", of.field("tls.crt")?, of.field("tls.key")?));
        Ok(Self {
            plain: http(ca, None)?,
            holder: http(ca, Some(&identity(holder)?))?,
            other: http(ca, Some(&identity(other)?))?,
            certificate: holder.field("tls.crt")?,
        })
    }

    /// Tokens bound to a certificate, by whom they are shown, and what the API must say.
    pub(crate) fn bound(
        &self,
        forge: &Forge,
        validator: Validator,
    ) -> Result<Vec<(&'static str, &reqwest::Client, String, u16)>> {
        let bound = forge.bound(&self.certificate)?;
        let known = if validator.knows_certificates() { 200 } else { 401 };
        Ok(vec![
            ("bound, with its certificate", &self.holder, bound.clone(), known),
            ("bound, with another certificate", &self.other, bound.clone(), 401),
            ("bound, without a certificate", &self.plain, bound, 401),
            ("bound in another way", &self.plain, forge.confirmed(&json!({"jkt": "x"}))?, 401),
            ("not bound, with a certificate", &self.holder, forge.issued.clone(), 200),
        ])
    }
}
