//! Client secrets: `apr_`, 40 random characters, 6 characters of checksum.
//!
//! The prefix and the checksum let a secret scanner find one in text and tell it from anything else without asking us.
//! The characters are base62, so a double click selects the whole and no shell or URL needs quoting.

use zeroize::Zeroizing;

use super::{Error, Material, random};
use crate::ledger::{ClientSecretVerifier, Digest};

/// What every client secret begins with.
pub const PREFIX: &str = "apr_";

/// How many random characters follow: 238 bits.
const RANDOM_CHARACTERS: usize = 40;

/// How many characters of checksum end it: 62⁶ exceeds 2³².
const CHECKSUM_CHARACTERS: usize = 6;

/// The length of a client secret in characters.
pub const LENGTH: usize = PREFIX.len() + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS;

/// How many characters of a client secret may be shown: 4 of them random, which leaves 214 bits to guess.
const HINT_CHARACTERS: usize = 8;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new client secret.
#[derive(Debug)]
pub struct MintedClientSecret {
    /// The client secret: [`LENGTH`] ASCII characters.
    pub material: Material,
    /// Its first eight characters, for people to tell one from another.
    pub hint: String,
    /// What proves possession of it.
    pub verifier: ClientSecretVerifier,
}

/// Mints a client secret.
pub fn mint() -> Result<MintedClientSecret, Error> {
    let mut text = Vec::with_capacity(LENGTH);
    text.extend_from_slice(PREFIX.as_bytes());
    while text.len() < LENGTH - CHECKSUM_CHARACTERS {
        let bytes = Zeroizing::new(random::<RANDOM_CHARACTERS>()?);
        let wanted = LENGTH - CHECKSUM_CHARACTERS - text.len();
        // Rejection sampling: six bits of which two of 64 values are thrown away, so that every character is equally
        // likely.
        text.extend(bytes.iter().filter_map(|byte| BASE62.get(usize::from(byte >> 2))).take(wanted));
    }
    let sum = checksum(&text);
    text.extend_from_slice(&sum);
    let material = Material::new(text);
    let hint = String::from_utf8_lossy(&material.expose()[..HINT_CHARACTERS]).into_owned();
    let verifier = ClientSecretVerifier { sha256: Digest::of(material.expose()) };
    Ok(MintedClientSecret { material, hint, verifier })
}

/// Whether the text has the form of a client secret, checksum included: for secret scanners. It says nothing about
/// whether the client secret was ever accepted anywhere.
#[must_use]
pub fn checksum_holds(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() != LENGTH || !bytes.starts_with(PREFIX.as_bytes()) {
        return false;
    }
    let (payload, sum) = bytes.split_at(LENGTH - CHECKSUM_CHARACTERS);
    payload[PREFIX.len()..].iter().all(u8::is_ascii_alphanumeric) && checksum(payload) == sum
}

/// The CRC-32 (IEEE) of what precedes it in base62, most significant digit first, filled up with `0`.
fn checksum(payload: &[u8]) -> [u8; CHECKSUM_CHARACTERS] {
    let mut rest = crc32fast::hash(payload);
    let mut digits = [b'0'; CHECKSUM_CHARACTERS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn text(minted: &MintedClientSecret) -> String {
        String::from_utf8(minted.material.expose().to_vec()).unwrap()
    }

    #[test]
    fn ten_thousand_client_secrets_are_well_formed_and_all_different() {
        let mut seen = BTreeSet::new();
        let mut counts = std::collections::BTreeMap::<char, u32>::new();
        for _ in 0..10_000 {
            let minted = mint().unwrap();
            let text = text(&minted);
            assert!(checksum_holds(&text), "the checksum of a minted client secret holds");
            assert_eq!(minted.hint, text[..8]);
            assert_eq!(minted.verifier.sha256, Digest::of(text.as_bytes()));
            for character in text[4..44].chars() {
                *counts.entry(character).or_default() += 1;
            }
            seen.insert(text);
        }
        assert_eq!(seen.len(), 10_000);
        // 400,000 characters over 62: 6,452 each, standard deviation 80. Eight of them is one failure in 10¹³ runs.
        assert_eq!(counts.len(), 62);
        assert!(counts.values().all(|count| count.abs_diff(6_452) < 640), "{counts:?}");
    }

    #[test]
    fn the_checksum_is_that_of_the_documented_algorithm() {
        // The CRC-32 of this text is 0x914c26cb by another implementation (zlib), which also gave the digits.
        let payload = "apr_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcd";
        assert_eq!(payload.len(), LENGTH - CHECKSUM_CHARACTERS);
        let sum = String::from_utf8(checksum(payload.as_bytes()).to_vec()).unwrap();
        assert_eq!(sum, "2eyHk3");
        assert!(checksum_holds(&format!("{payload}{sum}")));
    }

    #[test]
    fn debug_shows_the_hint_and_no_more() {
        let minted = mint().unwrap();
        let debug = format!("{minted:?}");
        assert!(debug.contains(&minted.hint) && !debug.contains(&text(&minted)[..9]), "{debug}");
    }

    proptest! {
        #[test]
        fn one_changed_character_breaks_the_checksum(at in 0_usize..LENGTH, to in "[0-9A-Za-z_]") {
            let text = text(&mint().unwrap());
            let mut changed = text.clone();
            changed.replace_range(at..=at, &to);
            prop_assert_eq!(checksum_holds(&changed), changed == text);
        }

        #[test]
        fn no_text_makes_the_check_panic(text in "\\PC*") {
            prop_assert!(!checksum_holds(&text));
        }
    }
}
