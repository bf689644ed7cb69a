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
    pub audiences: &'a [String],
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
    /// `customers`: those the client may act for, `*` for all.
    pub customers: Option<&'a [String]>,
    /// `customer_groups`: the groups of customers the client may act for.
    pub customer_groups: Option<&'a [String]>,
    /// `cnf` with `x5t#S256` (RFC 8705 §3.1): the certificate that the token is bound to.
    pub certificate: Option<Digest>,
}

/// What a payload holds besides the caller's strings, in bytes; a guess too small costs a reallocation, nothing else.
const FIXED_BYTES: usize = 320;

/// The length of the longest signature in base64url: 64 bytes of ES256.
const SIGNATURE_CHARACTERS: usize = 86;

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
    let payload_bytes = FIXED_BYTES + text_bytes(claims);
    // Header, payload, its encoding beside it for a moment, signature: one allocation at most.
    out.reserve(key.header().len() + payload_bytes + payload_bytes * 4 / 3 + 2 * SIGNATURE_CHARACTERS);
    out.extend_from_slice(key.header());
    let payload = out.len();
    push_payload(claims, out)?;
    encode_tail(out, payload)?;
    let signature = key.sign(&out[start..])?;
    out.push(b'.');
    let tail = out.len();
    out.extend_from_slice(signature.as_ref());
    encode_tail(out, tail)
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
    push_identifier(claims.entry, out)?;
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

/// `jti`: 128 random bits, after the entry's name where there is one.
fn push_identifier(entry: Option<&str>, out: &mut Vec<u8>) -> Result<(), Error> {
    out.extend_from_slice(b",\"jti\":\"");
    if let Some(entry) = entry {
        push_escaped(entry, out);
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

fn push_list(items: &[String], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_text(item, out);
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
    let list = |items: &[String]| items.iter().map(|item| item.len() + 3).sum::<usize>();
    claims.issuer.len()
        + 2 * claims.client_id.len()
        + claims.scope.len()
        + claims.entry.map_or(0, str::len)
        + list(claims.audiences)
        + claims.customers.map_or(0, list)
        + claims.customer_groups.map_or(0, list)
}
