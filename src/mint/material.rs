//! Secret bytes: redacted in Debug, wiped when dropped, never displayed, never serialized, never copied by accident.
//!
//! Also the PEM armour of private keys (RFC 7468), because the usual PEM crates leave copies behind that nobody wipes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Error;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// Characters per line (RFC 7468 §2).
const PEM_LINE: usize = 64;

/// The largest private key in PEM that is read, in bytes: an RSA key of 4096 bits has 3272.
const LARGEST_KEY_BYTES: usize = 16 * 1024;

/// Secret bytes.
pub struct Material(Zeroizing<Vec<u8>>);

impl Material {
    /// Takes the bytes over. A caller that let the vector grow has left copies behind: reserve first.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes. Whoever calls this answers for where they go.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Material(… {} bytes)", self.0.len())
    }
}

/// A private key's PKCS#8 DER as PEM.
pub(super) fn key_to_pem(der: &[u8]) -> Material {
    let mut encoded = Zeroizing::new(vec![0; der.len().div_ceil(3) * 4]);
    // The buffer has exactly the encoded length, so encoding cannot fail; if it did, the PEM would hold zeros.
    let length = STANDARD.encode_slice(der, &mut encoded).unwrap_or(0);
    let mut pem = Vec::with_capacity(encoded.len() + encoded.len() / PEM_LINE + BEGIN.len() + END.len() + 4);
    pem.extend_from_slice(BEGIN.as_bytes());
    pem.push(b'\n');
    for line in encoded[..length].chunks(PEM_LINE) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(END.as_bytes());
    pem.push(b'\n');
    Material::new(pem)
}

/// The PKCS#8 DER of a PEM that holds one private key and nothing else.
pub(super) fn key_from_pem(pem: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let text = std::str::from_utf8(pem).map_err(|_| Error::UnreadableKey)?;
    let body = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    let body = body.filter(|_| pem.len() <= LARGEST_KEY_BYTES).ok_or(Error::UnreadableKey)?;
    let mut encoded = Zeroizing::new(Vec::with_capacity(body.len()));
    encoded.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    let mut der = Zeroizing::new(vec![0; encoded.len() / 4 * 3 + 3]);
    let length = STANDARD.decode_slice(&*encoded, &mut der).map_err(|_| Error::UnreadableKey)?;
    der.truncate(length);
    Ok(der)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn debug_shows_the_length_alone() {
        let material = Material::new(b"canary-canary".to_vec());
        assert_eq!(format!("{material:?}"), "Material(… 13 bytes)");
        assert_eq!(format!("{material:#?}"), "Material(… 13 bytes)");
    }

    #[test]
    fn what_is_not_one_private_key_is_refused() {
        let good = String::from_utf8(key_to_pem(b"not a key, but base64").expose().to_vec()).unwrap();
        assert!(key_from_pem(good.as_bytes()).is_ok());
        for bad in [
            String::new(),
            good.replace("PRIVATE", "RSA PRIVATE"),
            good.repeat(2),
            good.replace("-----END PRIVATE KEY-----", ""),
            good.replace("bm90", "bm9*"),
            format!("{BEGIN}\n{}\n{END}", "AAAA".repeat(LARGEST_KEY_BYTES)),
            format!("\u{feff}{good}"),
        ] {
            assert_eq!(key_from_pem(bad.as_bytes()).unwrap_err(), Error::UnreadableKey);
        }
        assert_eq!(key_from_pem(&[0xff; 40]).unwrap_err(), Error::UnreadableKey);
    }

    proptest! {
        #[test]
        fn a_key_is_read_back_from_its_pem_whatever_its_line_ends(der in proptest::collection::vec(any::<u8>(), 1..300)) {
            let pem = key_to_pem(&der);
            prop_assert!(pem.expose().split(|b| *b == b'\n').all(|line| line.len() <= PEM_LINE));
            prop_assert_eq!(&*key_from_pem(pem.expose()).unwrap(), &der);
            let dos = String::from_utf8(pem.expose().to_vec()).unwrap().replace('\n', "\r\n");
            prop_assert_eq!(&*key_from_pem(dos.as_bytes()).unwrap(), &der);
        }
    }
}
