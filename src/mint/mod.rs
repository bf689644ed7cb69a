//! The only randomness: client secrets, keys, certificates, the certificate authority, and the signing of tokens.
//!
//! What is made here is decided elsewhere: these functions get names, times and algorithms as arguments, read no clock
//! and no cluster, and know neither ledger nor Secret. What they return is public except where it is [`Material`].

pub mod ca;
pub mod certificate;
pub mod client_secret;
pub mod material;
pub mod signing_key;
pub mod slow;
pub mod token;

pub use material::Material;

use jiff::Timestamp;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};

use crate::rotation::whole_seconds;

/// Why something could not be minted or read back. The texts hold no byte of any input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The system's random number generator failed.
    #[error("the system gave no randomness")]
    NoEntropy,
    /// A key pair could not be generated.
    #[error("a key could not be generated")]
    KeyNotGenerated,
    /// A private key is not one PEM block `PRIVATE KEY` (PKCS#8, unencrypted) of the algorithm its record names.
    #[error("the private key is not unencrypted PKCS#8 in PEM of the recorded algorithm")]
    UnreadableKey,
    /// A private key is another than its record says.
    #[error("the private key is not the one that its record names")]
    WrongKey,
    /// A CA certificate in the index cannot be parsed.
    #[error("the certificate of the certificate authority is malformed")]
    UnreadableCertificate,
    /// A name cannot stand in a certificate: it is not plain ASCII, or not a DNS name or IP address where one is needed.
    #[error("a name of the certificate's subject is not plain ASCII")]
    UnusableName,
    /// A validity cannot stand in a certificate: it ends before it begins, or outside the years 0 to 9999.
    #[error("the certificate's validity cannot be expressed")]
    UnusableValidity,
    /// A signature could not be made.
    #[error("a signature could not be made")]
    NotSigned,
    /// The work was given up: it panicked, or the program is shutting down.
    #[error("the work was interrupted")]
    Interrupted,
}

/// Fills the array with random bytes: the program's one source of them.
fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::NoEntropy)?;
    Ok(bytes)
}

/// The time in rcgen's type, cut to whole seconds.
fn offset_date_time(at: Timestamp) -> Result<time::OffsetDateTime, Error> {
    time::OffsetDateTime::from_unix_timestamp(whole_seconds(at).as_second()).map_err(|_| Error::UnusableValidity)
}

/// A public key as a JWK.
struct PublicJwk {
    /// The RFC 7638 thumbprint.
    kid: String,
    /// The JWK with `kid`, `use`, and `alg` where one is given.
    value: serde_json::Value,
}

fn public_jwk(key: &DecodingKey, alg: Option<jsonwebtoken::Algorithm>) -> Result<PublicJwk, Error> {
    let mut jwk = Jwk::from_decoding_key(key, alg).map_err(|_| Error::UnreadableKey)?;
    let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| Error::UnreadableKey)?;
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    jwk.common.key_id = Some(kid.clone());
    let value = serde_json::to_value(&jwk).map_err(|_| Error::UnreadableKey)?;
    Ok(PublicJwk { kid, value })
}
