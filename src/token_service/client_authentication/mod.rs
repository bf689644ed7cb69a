//! Who asks: the client's credentials in a request, in exactly one way (RFC 6749 §2.3), held against the ledger.
//!
//! Reading is pure; whether what was read is accepted is decided by the ledger's entries in the directory. A revision is
//! accepted if and only if it is in the ledger and valid now (rule R1); nothing else is consulted.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, header};
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::directory::{Client, Match, compare_in_vain};
use super::form::{Form, decode};
use super::refusal::Refusal;
use super::request::Received;
use super::service::Service;
use crate::api::TokenEndpointAuthMethod;
use crate::ledger::Digest;

/// Base64 of RFC 4648 §4, with or without padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The methods that the token endpoint has, as its metadata says.
pub const METHODS: [TokenEndpointAuthMethod; 2] =
    [TokenEndpointAuthMethod::ClientSecretBasic, TokenEndpointAuthMethod::ClientSecretPost];

/// A client that has proved who it is.
pub(super) struct Authenticated {
    pub(super) client: Arc<Client>,
    /// The credential entry that proved it.
    pub(super) entry: Arc<str>,
    /// The end of what proved it: no token outlives it.
    pub(super) not_after: Timestamp,
    /// The client certificate that proved it: tokens are bound to it (RFC 8705 §3).
    pub(super) certificate: Option<Digest>,
}

/// A client's claim to be who it says.
struct Presented<'a> {
    client_id: Cow<'a, str>,
    method: TokenEndpointAuthMethod,
    proof: Proof,
}

/// What the claim rests on.
enum Proof {
    /// SHA-256 of the client secret: nothing after this needs the client secret itself.
    ClientSecret(Digest),
}

/// Checks what the client presents; before it is refused, its entry is read live.
pub(super) async fn authenticate(
    service: &Service,
    received: &Received,
    form: &Form<'_>,
    now: Timestamp,
) -> Result<Authenticated, Refusal> {
    let presented = presented(&received.parts.headers, form)?;
    let attempt = || check(service, &presented, now);
    if let Ok(authenticated) = attempt() {
        return Ok(authenticated);
    }
    let (client_id, address) = (&*presented.client_id, received.address());
    service.failures.permit_live_read(client_id, address, now)?;
    service.live.read(client_id, || attempt().is_ok()).await;
    attempt().or_else(|refusal| service.failures.record(client_id, address, now).and(Err(refusal)))
}

fn check(service: &Service, presented: &Presented<'_>, now: Timestamp) -> Result<Authenticated, Refusal> {
    let Some(client) = service.directory.client(&presented.client_id) else {
        let Proof::ClientSecret(sha256) = presented.proof;
        compare_in_vain(sha256);
        return Err(Refusal::UnknownClient);
    };
    let (entry, not_after) = match presented.proof {
        Proof::ClientSecret(sha256) => match client.match_client_secret(sha256, now) {
            Match::Accepted(revision) => (revision.entry.clone(), revision.not_after),
            Match::NotValidNow => return Err(Refusal::NotValidNow),
            Match::Unknown => return Err(Refusal::WrongClientSecret),
        },
    };
    if !client.methods.contains(&presented.method) {
        return Err(Refusal::UnregisteredMethod);
    }
    Ok(Authenticated { client, entry, not_after, certificate: None })
}

/// Reads what the client presents. More than one way is refused (RFC 6749 §2.3).
fn presented<'a>(headers: &HeaderMap, form: &'a Form<'_>) -> Result<Presented<'a>, Refusal> {
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let authorization = authorizations.next();
    let has_assertion = form.client_assertion.is_some() || form.client_assertion_type.is_some();
    let ways = [authorization.is_some(), form.client_secret.is_some(), has_assertion];
    if authorizations.next().is_some() || ways.into_iter().filter(|used| *used).count() > 1 {
        return Err(Refusal::SeveralMethods);
    }
    if let Some(authorization) = authorization {
        let (client_id, sha256) = basic(authorization.as_bytes())?;
        if form.client_id.as_ref().is_some_and(|other| *other != client_id) {
            return Err(Refusal::SeveralMethods);
        }
        let method = TokenEndpointAuthMethod::ClientSecretBasic;
        return Ok(Presented { client_id: Cow::Owned(client_id), method, proof: Proof::ClientSecret(sha256) });
    }
    if has_assertion {
        return Err(Refusal::UnsupportedMethod);
    }
    match (&form.client_id, &form.client_secret) {
        (Some(client_id), Some(client_secret)) => Ok(Presented {
            client_id: Cow::Borrowed(client_id),
            method: TokenEndpointAuthMethod::ClientSecretPost,
            proof: Proof::ClientSecret(Digest::of(client_secret.as_bytes())),
        }),
        (None, _) | (_, None) => Err(Refusal::NoCredentials),
    }
}

/// `Basic base64(encoded client ID ":" encoded client secret)`: RFC 7617, with both halves form-encoded before
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

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn header_of(text: &str) -> Vec<u8> {
        format!("Basic {}", BASE64.encode(text)).into_bytes()
    }

    fn read(authorization: Option<&[u8]>, body: &[u8]) -> Result<(String, TokenEndpointAuthMethod, Digest), Refusal> {
        let mut headers = HeaderMap::new();
        headers.extend(authorization.map(|value| (header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap())));
        let form = Form::parse(body)?;
        presented(&headers, &form).map(|p| {
            let Proof::ClientSecret(sha256) = p.proof;
            (p.client_id.into_owned(), p.method, sha256)
        })
    }

    #[test]
    fn basic_is_decoded_from_base64_and_then_from_the_form_encoding() {
        let (id, method, sha256) = read(Some(&header_of("a%3Ab+c:x%2By%3A")), b"").unwrap();
        assert_eq!((id.as_str(), method), ("a:b c", TokenEndpointAuthMethod::ClientSecretBasic));
        assert_eq!(sha256, Digest::of(b"x+y:"));
        let (id, _, sha256) = read(Some(&header_of("a:b:c")), b"").unwrap();
        assert_eq!((id.as_str(), sha256), ("a", Digest::of(b"b:c")), "the first colon separates");
    }

    #[test]
    fn the_scheme_is_read_in_any_case_and_padding_is_optional() {
        assert!(read(Some(b"bAsIc YTpi"), b"").is_ok());
        assert!(read(Some(b"Basic  YTpiYw"), b"").is_ok());
        assert!(read(Some(b"Basic YTpiYw=="), b"").is_ok());
    }

    #[test]
    fn the_body_may_carry_the_client_secret_instead() {
        let (id, method, sha256) = read(None, b"client_id=a&client_secret=b").unwrap();
        assert_eq!((id.as_str(), method), ("a", TokenEndpointAuthMethod::ClientSecretPost));
        assert_eq!(sha256, Digest::of(b"b"));
    }

    #[test]
    fn exactly_one_way_is_allowed() {
        let basic = header_of("a:b");
        let several = Some(Refusal::SeveralMethods);
        assert_eq!(read(Some(&basic), b"client_secret=b").err(), several);
        assert_eq!(read(Some(&basic), b"client_assertion=x").err(), several);
        assert_eq!(read(None, b"client_id=a&client_secret=b&client_assertion=x").err(), several);
        assert_eq!(read(Some(&basic), b"client_id=other").err(), several);
        assert!(read(Some(&basic), b"client_id=a").is_ok(), "the same client named twice");
    }

    #[test]
    fn what_is_no_way_of_ours_is_told_apart() {
        assert_eq!(read(None, b"").err(), Some(Refusal::NoCredentials));
        assert_eq!(read(None, b"client_id=a").err(), Some(Refusal::NoCredentials));
        assert_eq!(read(None, b"client_secret=b").err(), Some(Refusal::NoCredentials));
        assert_eq!(read(None, b"client_assertion_type=x").err(), Some(Refusal::UnsupportedMethod));
        for authorization in [&b"Bearer x"[..], b"", b"Basic", b"Basically YTpi"] {
            assert_eq!(read(Some(authorization), b"").err(), Some(Refusal::UnsupportedMethod), "{authorization:?}");
        }
        for authorization in [&b"Basic "[..], b"Basic ***", b"Basic YWI=", &header_of("a%zz:b"), &header_of("a:%ff")] {
            assert_eq!(read(Some(authorization), b"").err(), Some(Refusal::AuthorizationMalformed));
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = basic(&bytes);
            let _ = basic(&[b"Basic ", &bytes[..]].concat());
        }
    }
}
