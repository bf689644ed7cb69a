//! Access tokens in the form of RFC 9068, signed with a parsed key.
//!
//! Written by hand into the caller's buffer: the answer of the token endpoint grows around the token, and neither a key
//! is parsed nor a document built per request. How a token is read back and verified stands in [`crate::signer::jwt`].

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::signing_key::SigningKey;
use super::{Error, Material, random};
use crate::ledger::Digest;
use crate::rotation::whole_seconds;

/// What a token says. Times are cut to whole seconds.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// `iss`: the authorization server's issuer identifier.
    pub issuer: &'a str,
    /// `client_id`, and `sub` too: the client acts for itself (RFC 9068 §2.2).
    pub client_id: &'a str,
    /// `aud`: a string when there is one, an array when there are several (RFC 7519 §4.1.3). RFC 9068 requires one.
    pub audiences: &'a [&'a str],
    /// `scope`: separated by spaces as in RFC 6749 §3.3; omitted when empty.
    pub scope: &'a str,
    /// `iat`.
    pub issued_at: Timestamp,
    /// `exp`.
    pub expires_at: Timestamp,
    /// `nbf`, where the token is not valid at once.
    pub not_before: Option<Timestamp>,
    /// The credential entry it is minted for: `jti` is then `<entry>~<random>`.
    pub entry: Option<&'a str>,
    /// The revision of the entry that it was had with: `jti` is then `<entry>.<revision>~<random>`.
    pub revision: Option<u64>,
    /// `customers`: those the client may act for, `*` for all.
    pub customers: Option<&'a [String]>,
    /// `customer_groups`: the groups of customers the client may act for.
    pub customer_groups: Option<&'a [String]>,
    /// `cnf` with `x5t#S256` (RFC 8705 §3.1): the certificate that the token is bound to.
    pub certificate: Option<Digest>,
}

/// What a payload holds besides the caller's strings, in bytes; a guess too small costs a reallocation, nothing else.
const FIXED_BYTES: usize = 320;

/// Signs a token and appends it to `out`. After an error `out` is as it was.
pub fn push(key: &SigningKey, claims: &Claims<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    let result = append(key, claims, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Signs a token.
pub fn sign(key: &SigningKey, claims: &Claims<'_>) -> Result<Material, Error> {
    let mut token = Vec::new();
    push(key, claims, &mut token)?;
    Ok(Material::new(token))
}

fn append(key: &SigningKey, claims: &Claims<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    out.reserve(room(key, claims));
    out.extend_from_slice(key.header());
    let payload = out.len();
    push_payload(claims, out)?;
    encode_tail(out, payload)?;
    let end = out.len();
    out.push(b'.');
    key.push_signature(start..end, out)?;
    encode_tail(out, end + 1)
}

/// The room that a token needs while it is made, in bytes, so that it costs one allocation at most: header, payload,
/// signature, and of the last two their encoding beside them for a moment.
fn room(key: &SigningKey, claims: &Claims<'_>) -> usize {
    let with_encoding = |bytes: usize| bytes + (bytes * 4).div_ceil(3);
    let payload = FIXED_BYTES + text_bytes(claims);
    key.header().len() + with_encoding(payload) + 1 + with_encoding(key.signature_bytes())
}

fn push_payload(claims: &Claims<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    out.push(b'{');
    push_text_claim("\"iss\":", claims.issuer, out);
    push_text_claim(",\"sub\":", claims.client_id, out);
    push_text_claim(",\"client_id\":", claims.client_id, out);
    out.extend_from_slice(b",\"aud\":");
    match claims.audiences {
        [one] => push_text(one, out),
        several => push_list(several, out),
    }
    if !claims.scope.is_empty() {
        push_text_claim(",\"scope\":", claims.scope, out);
    }
    push_identifier(claims, out)?;
    push_time_claim(",\"iat\":", claims.issued_at, out)?;
    if let Some(not_before) = claims.not_before {
        push_time_claim(",\"nbf\":", not_before, out)?;
    }
    push_time_claim(",\"exp\":", claims.expires_at, out)?;
    if let Some(customers) = claims.customers {
        out.extend_from_slice(b",\"customers\":");
        push_list(customers, out);
    }
    if let Some(groups) = claims.customer_groups {
        out.extend_from_slice(b",\"customer_groups\":");
        push_list(groups, out);
    }
    if let Some(certificate) = claims.certificate {
        out.extend_from_slice(b",\"cnf\":{\"x5t#S256\":\"");
        let tail = out.len();
        out.extend_from_slice(&certificate.0);
        encode_tail(out, tail)?;
        out.extend_from_slice(b"\"}");
    }
    out.push(b'}');
    Ok(())
}

/// `jti`: 128 random bits, after the entry's name and the revision where there are any.
fn push_identifier(claims: &Claims<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    out.extend_from_slice(b",\"jti\":\"");
    if let Some(entry) = claims.entry {
        push_escaped(entry, out);
        if let Some(revision) = claims.revision {
            write!(out, ".{revision}").map_err(|_| Error::NotSigned)?;
        }
        out.push(b'~');
    }
    let tail = out.len();
    out.extend_from_slice(&random::<16>()?);
    encode_tail(out, tail)?;
    out.push(b'"');
    Ok(())
}

fn push_time_claim(name: &str, at: Timestamp, out: &mut Vec<u8>) -> Result<(), Error> {
    write!(out, "{name}{}", whole_seconds(at).as_second()).map_err(|_| Error::NotSigned)
}

fn push_text_claim(name: &str, text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    push_text(text, out);
}

fn push_list<T: AsRef<str>>(items: &[T], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_text(item.as_ref(), out);
    }
    out.push(b']');
}

fn push_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    push_escaped(text, out);
    out.push(b'"');
}

/// The text as it stands in a JSON string (RFC 8259 §7). Almost always that is the text itself.
fn push_escaped(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let needs_escape = |byte: u8| byte < 0x20 || byte == b'"' || byte == b'\\';
    if !text.bytes().any(needs_escape) {
        return out.extend_from_slice(text.as_bytes());
    }
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
}

/// Replaces what stands in `out` from `from` on by its base64url without padding, in place.
fn encode_tail(out: &mut Vec<u8>, from: usize) -> Result<(), Error> {
    let plain_bytes = out.len() - from;
    let encoded_bytes = (plain_bytes * 4).div_ceil(3);
    out.resize(from + plain_bytes + encoded_bytes, 0);
    let (plain, encoded) = out[from..].split_at_mut(plain_bytes);
    URL_SAFE_NO_PAD.encode_slice(plain, encoded).map_err(|_| Error::NotSigned)?;
    out.copy_within(from + plain_bytes.., from);
    out.truncate(from + encoded_bytes);
    Ok(())
}

/// The bytes of the caller's strings, without escapes.
fn text_bytes(claims: &Claims<'_>) -> usize {
    fn list<T: AsRef<str>>(items: &[T]) -> usize {
        items.iter().map(|item| item.as_ref().len() + 3).sum()
    }
    claims.issuer.len()
        + 2 * claims.client_id.len()
        + claims.scope.len()
        + claims.entry.map_or(0, str::len)
        + list(claims.audiences)
        + claims.customers.map_or(0, list)
        + claims.customer_groups.map_or(0, list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mint::signing_key;
    use crate::signer::Algorithm;
    use crate::signer::jwt::{self, LONGEST_TOKEN_BYTES, PublicKey};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::LazyLock;

    static KEY: LazyLock<SigningKey> = LazyLock::new(|| new_key(Algorithm::ES256));
    static KEYS: LazyLock<[SigningKey; 3]> = LazyLock::new(|| Algorithm::ALL.map(new_key));
    const AUDIENCE: [&str; 1] = ["https://api.shop.example"];

    fn new_key(alg: Algorithm) -> SigningKey {
        let now = at("2026-11-22T07:00:00Z");
        let minted = signing_key::mint(alg, now, now).unwrap();
        SigningKey::from_pem(&minted.record, minted.private_key_pem.expose()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn claims() -> Claims<'static> {
        Claims {
            issuer: "https://auth.example",
            client_id: "shop.storefront",
            audiences: &AUDIENCE,
            scope: "orders:read orders:write",
            issued_at: at("2026-11-22T07:00:00.9Z"),
            expires_at: at("2026-11-22T08:00:00Z"),
            not_before: None,
            entry: Some("api"),
            revision: None,
            customers: None,
            customer_groups: None,
            certificate: None,
        }
    }

    fn signed(claims: &Claims<'_>) -> String {
        signed_with(&KEY, claims)
    }

    fn signed_with(key: &SigningKey, claims: &Claims<'_>) -> String {
        String::from_utf8(sign(key, claims).unwrap().expose().to_vec()).unwrap()
    }

    fn public(key: &SigningKey) -> PublicKey {
        PublicKey::from_jwk(key.jwk()).unwrap()
    }

    fn payload(token: &str) -> Value {
        let segment = token.split('.').nth(1).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap()
    }

    #[test]
    fn a_token_is_valid_by_jsonwebtokens_own_rules_from_the_jwk() {
        // The one place that compares with the system's clock: jsonwebtoken does, and takes no other.
        let now = i64::try_from(jsonwebtoken::get_current_timestamp()).unwrap();
        for (key, alg) in KEYS.iter().zip(["ES256", "EdDSA", "RS256"]) {
            let token = signed_with(
                key,
                &Claims {
                    issued_at: Timestamp::from_second(now).unwrap(),
                    expires_at: Timestamp::from_second(now + 3600).unwrap(),
                    not_before: Some(Timestamp::from_second(now).unwrap()),
                    ..claims()
                },
            );
            let jwk = serde_json::from_value(key.jwk().clone()).unwrap();
            let decoding = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
            let mut rules = jsonwebtoken::Validation::new(alg.parse().unwrap());
            rules.set_audience(&[&AUDIENCE[0]]);
            rules.set_issuer(&["https://auth.example"]);
            rules.set_required_spec_claims(&["exp", "iss", "aud", "sub", "nbf"]);
            rules.validate_nbf = true;
            let data = jsonwebtoken::decode::<Value>(&token, &decoding, &rules).unwrap();
            assert_eq!((data.header.typ.as_deref(), data.header.kid.as_deref()), (Some("at+jwt"), Some(key.kid())));
            rules.set_audience(&["https://elsewhere.example"]);
            assert!(jsonwebtoken::decode::<Value>(&token, &decoding, &rules).is_err());
        }
    }

    #[test]
    fn a_token_says_what_rfc_9068_asks_and_nothing_more() {
        let token = signed(&claims());
        let mut payload = payload(&token);
        let jti = payload["jti"].take();
        assert_eq!(
            payload,
            json!({
                "iss": "https://auth.example", "sub": "shop.storefront", "client_id": "shop.storefront",
                "aud": "https://api.shop.example", "scope": "orders:read orders:write", "jti": null,
                "iat": 1_795_330_800, "exp": 1_795_334_400,
            })
        );
        let random = jti.as_str().unwrap().strip_prefix("api~").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(random).unwrap().len(), 16);
        assert!(token.as_bytes().starts_with(KEY.header()));
    }

    #[test]
    fn a_token_says_with_which_revision_of_an_entry_it_was_had() {
        let read = |claims: Claims<'_>| {
            let read = jwt::verify(signed(&claims).as_bytes(), &[public(&KEY)]).unwrap();
            (read.entry().map(str::to_owned), read.revision())
        };
        let web = || Some("web".to_owned());
        assert_eq!(read(Claims { entry: Some("web"), revision: Some(12), ..claims() }), (web(), Some(12)));
        assert_eq!(read(Claims { entry: Some("web"), ..claims() }), (web(), None));
        let dotted = Claims { entry: Some("a.b"), ..claims() };
        assert_eq!(read(dotted), (Some("a.b".to_owned()), None), "a name of another schema stays a name");
    }

    #[test]
    fn every_claim_is_read_back() {
        let audiences = ["https://a.example", "https://b.example"];
        let customers = ["acme".to_owned(), "globex".to_owned()];
        let groups = ["emea-retail".to_owned()];
        let certificate = Digest::of(b"certificate");
        let token = signed(&Claims {
            audiences: &audiences,
            not_before: Some(at("2026-11-22T07:00:30Z")),
            customers: Some(&customers),
            customer_groups: Some(&groups),
            certificate: Some(certificate),
            ..claims()
        });
        assert_eq!(payload(&token)["cnf"], json!({"x5t#S256": certificate.to_base64url()}));
        assert_eq!(payload(&token)["aud"], json!(audiences));
        let read = jwt::verify(token.as_bytes(), &[public(&KEY)]).unwrap();
        assert_eq!((read.kid.as_str(), read.issuer.as_str()), (KEY.kid(), "https://auth.example"));
        assert_eq!((read.client_id.as_str(), read.entry()), ("shop.storefront", Some("api")));
        assert_eq!(read.issued_at, at("2026-11-22T07:00:00Z"), "whole seconds");
        assert_eq!(read.expires_at, at("2026-11-22T08:00:00Z"));
        assert_eq!(read.not_before, Some(at("2026-11-22T07:00:30Z")));
        assert_eq!(read.scopes().collect::<Vec<_>>(), ["orders:read", "orders:write"]);
        assert_eq!(read.audiences, audiences);
        assert_eq!(
            (read.customers.as_deref(), read.customer_groups.as_deref()),
            (Some(&customers[..]), Some(&groups[..]))
        );
        assert_eq!(read.certificate, Some(certificate.to_base64url()));
    }

    #[test]
    fn a_token_without_scope_or_entry_omits_them() {
        let token = signed(&Claims { scope: "", entry: None, ..claims() });
        assert!(payload(&token).get("scope").is_none());
        let read = jwt::verify(token.as_bytes(), &[public(&KEY)]).unwrap();
        assert_eq!((read.entry(), read.scopes().count(), read.jti.len()), (None, 0, 22));
    }

    #[test]
    fn the_token_grows_inside_the_answer() {
        let mut answer = b"{\"access_token\":\"".to_vec();
        push(&KEY, &claims(), &mut answer).unwrap();
        let token = answer.strip_prefix(b"{\"access_token\":\"").unwrap();
        assert!(jwt::verify(token, &[public(&KEY)]).is_some());
    }

    #[test]
    fn a_token_costs_one_allocation_whatever_its_algorithm() {
        for key in &*KEYS {
            let mut out = Vec::with_capacity(room(key, &claims()));
            let before = out.as_ptr();
            push(key, &claims(), &mut out).unwrap();
            assert_eq!(out.as_ptr(), before, "the room reserved was enough");
            let mut fresh = Vec::new();
            push(key, &claims(), &mut fresh).unwrap();
            assert!(fresh.capacity() <= room(key, &claims()), "it did not grow again");
            assert!(room(key, &claims()) < out.len() * 3, "nor was it much too large");
        }
    }

    #[test]
    fn no_two_tokens_have_the_same_identifier() {
        let ids: std::collections::BTreeSet<String> =
            (0..1000).map(|_| payload(&signed(&claims()))["jti"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn an_altered_token_is_refused_wherever_it_was_altered() {
        for key in &*KEYS {
            let token = signed_with(key, &claims());
            let keys = [public(key)];
            assert!(jwt::verify(token.as_bytes(), &keys).is_some());
            for at in 0..token.len() {
                let mut altered = token.clone().into_bytes();
                altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
                assert!(jwt::verify(&altered, &keys).is_none(), "{} altered at {at}", key.alg());
            }
            for cut in [0, 1, token.len() / 2, token.len() - 1] {
                assert!(jwt::verify(&token.as_bytes()[..cut], &keys).is_none(), "cut at {cut}");
            }
            assert!(jwt::verify(format!("{token}A").as_bytes(), &keys).is_none());
            assert!(jwt::verify(format!("{token}.").as_bytes(), &keys).is_none());
        }
    }

    #[test]
    fn a_token_of_another_key_is_refused() {
        let other = new_key(Algorithm::ES256);
        let foreign = String::from_utf8(sign(&other, &claims()).unwrap().expose().to_vec()).unwrap();
        assert!(jwt::verify(foreign.as_bytes(), &[public(&KEY)]).is_none(), "its kid is unknown");
        assert!(jwt::verify(foreign.as_bytes(), &[public(&KEY), public(&other)]).is_some());
        // Our header with the other key's signature: the kid alone proves nothing.
        let rest = foreign.split_once('.').unwrap().1;
        let forged = format!("{}{rest}", String::from_utf8(KEY.header().to_vec()).unwrap());
        assert!(jwt::verify(forged.as_bytes(), &[public(&KEY), public(&other)]).is_none());
    }

    #[test]
    fn neither_another_algorithm_nor_another_type_is_accepted() {
        let public_keys: Vec<_> = KEYS.iter().map(public).collect();
        for key in &*KEYS {
            let token = signed_with(key, &claims());
            let (_, rest) = token.split_once('.').unwrap();
            let names = ["none", "HS256", "ES256", "ES384", "EdDSA", "RS256", "PS256"];
            let of_others = names.into_iter().filter(|name| *name != key.alg().as_str());
            let headers = of_others.map(|name| json!({"alg": name, "typ": "at+jwt", "kid": key.kid()})).chain([
                json!({"alg": key.alg(), "typ": "JWT", "kid": key.kid()}),
                json!({"alg": key.alg(), "typ": "at+jwt"}),
                json!({"alg": key.alg(), "typ": "at+jwt", "kid": key.kid(), "crit": ["exp"]}),
            ]);
            for header in headers {
                let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()));
                assert!(jwt::verify(forged.as_bytes(), &public_keys).is_none(), "{header}");
            }
            // With the right key as an HMAC secret, the classic confusion.
            let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
            (header.typ, header.kid) = (Some("at+jwt".into()), Some(key.kid().into()));
            let secret = jsonwebtoken::EncodingKey::from_secret(key.jwk().to_string().as_bytes());
            let forged = jsonwebtoken::encode(&header, &payload(&token), &secret).unwrap();
            assert!(jwt::verify(forged.as_bytes(), &public_keys).is_none());
        }
    }

    #[test]
    fn the_longest_token_that_a_registration_can_ask_for_is_read_back() {
        // The schema's bounds: 64 scopes of 128 characters, 16 audiences of 256, 64 customers and 64 groups of 128.
        let texts = |count: usize, length: usize| vec!["\u{7e}".repeat(length); count];
        let (audiences, customers) = (texts(16, 256), texts(64, 128));
        let audiences: Vec<&str> = audiences.iter().map(String::as_str).collect();
        let token = signed(&Claims {
            issuer: &"x".repeat(2048),
            client_id: &"x".repeat(100),
            scope: &texts(64, 128).join(" "),
            audiences: &audiences,
            customers: Some(&customers),
            customer_groups: Some(&customers),
            ..claims()
        });
        assert!(jwt::verify(token.as_bytes(), &[public(&KEY)]).is_some(), "{} bytes", token.len());
    }

    #[test]
    fn a_token_too_long_to_be_ours_is_not_parsed() {
        let long = vec![b'A'; LONGEST_TOKEN_BYTES + 1];
        assert!(jwt::verify(&long, &[public(&KEY)]).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_survives_the_way_through_a_token(
            client_id in any::<String>(), scope in "[ -~\\x00-\\x1f\"\\\\é]{0,40}", list in proptest::collection::vec(any::<String>(), 0..4),
        ) {
            let audiences: Vec<&str> = list.iter().map(String::as_str).collect();
            let token = signed(&Claims { client_id: &client_id, scope: &scope, audiences: &audiences, customers: Some(&list), ..claims() });
            let read = jwt::verify(token.as_bytes(), &[public(&KEY)]).unwrap();
            prop_assert_eq!(read.client_id, client_id);
            prop_assert_eq!(read.scope, scope);
            prop_assert_eq!(&read.audiences, &list);
            prop_assert_eq!(read.customers, Some(list));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(jwt::verify(&bytes, &[public(&KEY)]).is_none());
        }
    }
}
