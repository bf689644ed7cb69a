//! `client_secret_basic` and `client_secret_post` (RFC 6749 §2.3.1): of the client secret only its SHA-256 is kept.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::Proved;
use crate::api::TokenEndpointAuthMethod;
use crate::ledger::Digest;
use crate::token_service::directory::{Client, Match};
use crate::token_service::form::decode;
use crate::token_service::refusal::Refusal;

/// Base64 of RFC 4648 §4, with or without padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads `Basic base64(encoded client ID ":" encoded client secret)`: RFC 7617, with both halves form-encoded before
/// (RFC 6749 §2.3.1 and Appendix B).
pub fn basic(authorization: &[u8]) -> Result<(String, Digest), Refusal> {
    let Some((scheme, credentials)) = authorization.split_at_checked("Basic ".len()) else {
        return Err(Refusal::UnsupportedMethod);
    };
    if !scheme.eq_ignore_ascii_case(b"Basic ") {
        return Err(Refusal::UnsupportedMethod);
    }
    let malformed = Refusal::AuthorizationMalformed;
    let plain = Zeroizing::new(BASE64.decode(credentials.trim_ascii()).map_err(|_| malformed)?);
    let colon = plain.iter().position(|byte| *byte == b':').ok_or(malformed)?;
    let client_id = decode(&plain[..colon]).ok_or(malformed)?.into_owned();
    let sha256 = match decode(&plain[colon + 1..]).ok_or(malformed)? {
        Cow::Borrowed(client_secret) => Digest::of(client_secret.as_bytes()),
        Cow::Owned(client_secret) => Digest::of(Zeroizing::new(client_secret).as_bytes()),
    };
    Ok((client_id, sha256))
}

/// Holds it against the client's revisions.
pub(super) fn check(
    client: &Client,
    method: TokenEndpointAuthMethod,
    sha256: Digest,
    now: Timestamp,
) -> Result<Proved, Refusal> {
    match client.match_client_secret(sha256, now) {
        Match::Accepted(revision) => Ok(Proved {
            method,
            entry: client.entry(revision),
            revision: Some(revision.revision),
            not_after: revision.not_after,
            certificate: None,
        }),
        Match::NotValidNow => Err(Refusal::NotValidNow),
        Match::Unknown => Err(Refusal::WrongClientSecret),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_header_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = basic(&bytes);
            let _ = basic(&[b"Basic ", &bytes[..]].concat());
        }
    }
}
