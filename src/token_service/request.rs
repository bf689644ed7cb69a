//! What every endpoint with client authentication begins with: the body, read within its limits.

use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, header, request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::time::timeout;

use super::form::query_has_credentials;
use super::issuer::Issuer;
use super::peer::Peer;
use super::refusal::Refusal;
use super::service::Service;

/// The largest body of a request.
pub const LARGEST_BODY_BYTES: usize = 16 * 1024;

const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// A request whose body has arrived.
pub(super) struct Received<'a> {
    /// The server that it is for.
    pub(super) issuer: &'a Issuer,
    /// Its header; the extensions hold who sent it.
    pub(super) parts: &'a request::Parts,
    /// Its body.
    pub(super) body: Bytes,
}

impl Received<'_> {
    /// Who sent it.
    pub(super) fn peer(&self) -> Option<&Peer> {
        self.parts.extensions.get()
    }

    /// Where it came from; the unspecified address for what no connection has brought.
    pub(super) fn address(&self) -> IpAddr {
        self.peer().map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.address)
    }
}

/// Reads the body, of the right type and within its limits.
pub(super) async fn receive<'a>(
    service: &Service,
    issuer: &'a Issuer,
    parts: &'a request::Parts,
    body: Incoming,
) -> Result<Received<'a>, Refusal> {
    if parts.uri.query().is_some_and(query_has_credentials) {
        return Err(Refusal::CredentialsInQuery);
    }
    if !is_form(&parts.headers) {
        return Err(Refusal::ContentType);
    }
    if body.size_hint().lower() > LARGEST_BODY_BYTES as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    let mut body = pin!(Limited::new(body, LARGEST_BODY_BYTES).collect());
    // Nearly every body has come with its header: then there is nothing to time.
    let result = if let Some(result) = body.as_mut().now_or_never() {
        result
    } else {
        let late = Box::pin(timeout(service.body_within, body)).await.map_err(|_| Refusal::BodyTimeout)?;
        // Those whose bodies were awaited can come all at once, too.
        service.queue.turn().await?;
        late
    };
    match result {
        Ok(body) => Ok(Received { issuer, parts, body: body.to_bytes() }),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge),
        Err(_) => Err(Refusal::BodyMalformed),
    }
}

/// Lets a body come for nothing. A connection on which it is left unread is reset, and an answer may be lost with it.
pub(super) async fn discard(within: Duration, mut body: Incoming) {
    let frame = if body.is_end_stream() { return } else { body.frame().now_or_never() };
    // As above: nearly every body has come, and in one piece.
    if matches!(frame, Some(Some(Ok(_)))) && body.is_end_stream() {
        return;
    }
    let rest = Limited::new(body, LARGEST_BODY_BYTES).collect();
    // What does not come in time, or is too much, is left unread after all.
    let _ = Box::pin(timeout(within, rest)).await;
}

/// One `Content-Type`, with or without parameters (RFC 9110 §8.3.1).
fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(FORM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_form_has_one_content_type_in_any_case_with_or_without_parameters() {
        let is_form = |types: &[&'static str]| {
            let pairs = types.iter().map(|value| (header::CONTENT_TYPE, HeaderValue::from_static(value)));
            is_form(&pairs.fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            }))
        };
        let form = "application/x-www-form-urlencoded";
        assert!(is_form(&[form]));
        assert!(is_form(&["Application/X-WWW-Form-Urlencoded ; charset=UTF-8"]));
        assert!(!is_form(&[form, form]));
        assert!(!is_form(&["application/json"]));
        assert!(!is_form(&[]));
    }
}
