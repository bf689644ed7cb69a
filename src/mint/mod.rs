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

use crate::credential::jwk::{self, PublicJwk};
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
    /// A name cannot stand in a certificate because it is not plain ASCII, or a serving certificate has none.
    #[error("a name of the certificate is missing or not plain ASCII")]
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
    #[expect(clippy::disallowed_methods, reason = "the one rightful call")]
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::NoEntropy)?;
    Ok(bytes)
}

/// The bytes in lower-case hex.
fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// The time in rcgen's type, cut to whole seconds.
fn offset_date_time(at: Timestamp) -> Result<time::OffsetDateTime, Error> {
    time::OffsetDateTime::from_unix_timestamp(whole_seconds(at).as_second()).map_err(|_| Error::UnusableValidity)
}

fn public_jwk(key: &DecodingKey, alg: Option<jsonwebtoken::Algorithm>) -> Result<PublicJwk, Error> {
    jwk::of(key, alg).ok_or(Error::UnreadableKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that the text shows nothing of the private half of a P-256 key in PEM, in none of the usual forms.
    pub(super) fn assert_hidden(key_pem: &Material, text: &str) {
        let pem = std::str::from_utf8(key_pem.expose()).unwrap();
        let der = material::key_from_pem(key_pem.expose()).unwrap();
        // The private scalar is 32 bytes from byte 36 on: in the first two lines. What follows is the public half.
        let scalar = &der[36..68];
        let hex = hex(&scalar[..8]);
        let decimal = format!("{:?}", &scalar[..8]);
        let shown = |part: &str| text.to_lowercase().contains(&part.to_lowercase());
        for line in pem.lines().skip(1).take(2) {
            assert!(!shown(&line[..16]) && !shown(&line[48..]), "{text}");
        }
        assert!(!shown(&hex) && !shown(decimal.trim_matches(['[', ']'])), "{text}");
    }

    #[test]
    #[should_panic(expected = "canary")]
    fn the_test_for_hidden_keys_finds_a_shown_one() {
        let pem = material::key_to_pem(&[0x5a; 138]);
        assert_hidden(&pem, &format!("canary {:?}", [0x5a_u8; 32]));
    }
}
