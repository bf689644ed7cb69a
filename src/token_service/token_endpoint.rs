//! `POST /token`: the client credentials grant (RFC 6749 §4.4) with access tokens in the form of RFC 9068.
//!
//! A revision is accepted if and only if it is in the ledger and valid now (rule R1); nothing else is consulted. What is
//! granted can be narrowed by `scope` and `resource`, never widened.

use std::borrow::Cow;
use std::io::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, header, request};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use jiff::Timestamp;
use tokio::time::timeout;

use super::client_authentication::{Presented, presented, uses_authorization};
use super::directory::{Client, Match, compare_in_vain};
use super::form::{TokenRequest, query_has_credentials};
use super::metrics::{Endpoint, Outcome};
use super::refusal::Refusal;
use super::service::{Service, never_cached};
use crate::mint::signing_key::SigningKey;
use crate::mint::token::{self, Claims};
use crate::rotation;

/// The largest body of a request.
pub const LARGEST_BODY_BYTES: usize = 16 * 1024;

/// The most scopes that a request may name; a grant has fewer.
const MOST_SCOPES: usize = 128;

const FORM: &[u8] = b"application/x-www-form-urlencoded";
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"token\", charset=\"UTF-8\"");

/// A token with what stands around it in the answer.
const TYPICAL_ANSWER_BYTES: usize = 1024;

/// A client that has proved who it is.
struct Authenticated {
    client: Arc<Client>,
    /// The credential entry that proved it.
    entry: Arc<str>,
    /// The end of the revision that proved it: no token outlives it.
    not_after: Timestamp,
}

pub(super) async fn token(State(service): State<Arc<Service>>, request: Request) -> Response<Body> {
    let uses_authorization = uses_authorization(request.headers());
    match issue(&service, request).await {
        Ok(answer) => {
            service.answered(Endpoint::Token, Outcome::Ok);
            never_cached(Response::new(Body::from(answer)))
        }
        Err(refusal) => {
            let mut response = service.refuse(Endpoint::Token, refusal);
            if refusal.is_authentication_failure() && uses_authorization {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
            }
            response
        }
    }
}

async fn issue(service: &Service, request: Request) -> Result<Vec<u8>, Refusal> {
    let (parts, body) = request.into_parts();
    let body = body_of(service, &parts, body).await?;
    let now = service.clock.now();
    // Before the ledger has been read nobody can be said to be unknown.
    let moment = service.keys.at(now).filter(|_| service.directory.is_complete()).ok_or(Refusal::NotReady)?;
    let key = moment.signing.as_deref().ok_or(Refusal::NotReady)?;
    let request = TokenRequest::parse(&body)?;
    match request.grant_type.as_deref() {
        Some("client_credentials") => {}
        Some(_) => return Err(Refusal::UnsupportedGrantType),
        None => return Err(Refusal::NoGrantType),
    }
    let presented = presented(&parts.headers, &request)?;
    let authenticated = authenticate(service, &presented, now).await?;
    answer(service, key, &authenticated, &request, now)
}

/// The body, of the right type and within its limits.
async fn body_of(service: &Service, parts: &request::Parts, body: Body) -> Result<Bytes, Refusal> {
    if parts.uri.query().is_some_and(query_has_credentials) {
        return Err(Refusal::CredentialsInQuery);
    }
    if !is_form(&parts.headers) {
        return Err(Refusal::ContentType);
    }
    if body.size_hint().lower() > LARGEST_BODY_BYTES as u64 {
        return Err(Refusal::BodyTooLarge);
    }
    let body = timeout(service.body_within, Limited::new(body, LARGEST_BODY_BYTES).collect());
    match body.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLarge),
        Ok(Err(_)) => Err(Refusal::BodyMalformed),
        Err(_) => Err(Refusal::BodyTimeout),
    }
}

/// One `Content-Type`, with or without parameters (RFC 9110 §8.3.1).
fn is_form(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(FORM)
}

/// Checks what the client presents; before it is refused, its entry is read live.
async fn authenticate(service: &Service, presented: &Presented<'_>, now: Timestamp) -> Result<Authenticated, Refusal> {
    let attempt = || check(service, presented, now);
    if let Ok(authenticated) = attempt() {
        return Ok(authenticated);
    }
    service.live.read(&presented.client_id, || attempt().is_ok()).await;
    attempt()
}

fn check(service: &Service, presented: &Presented<'_>, now: Timestamp) -> Result<Authenticated, Refusal> {
    let Some(client) = service.directory.client(&presented.client_id) else {
        compare_in_vain(presented.sha256);
        return Err(Refusal::UnknownClient);
    };
    let (entry, not_after) = match client.match_client_secret(presented.sha256, now) {
        Match::Accepted(revision) => (revision.entry.clone(), revision.not_after),
        Match::NotValidNow => return Err(Refusal::NotValidNow),
        Match::Unknown => return Err(Refusal::WrongClientSecret),
    };
    if !client.methods.contains(&presented.method) {
        return Err(Refusal::UnregisteredMethod);
    }
    Ok(Authenticated { client, entry, not_after })
}

/// The successful answer (RFC 6749 §5.1). The token grows inside it.
fn answer(
    service: &Service,
    key: &SigningKey,
    authenticated: &Authenticated,
    request: &TokenRequest<'_>,
    now: Timestamp,
) -> Result<Vec<u8>, Refusal> {
    let Authenticated { client, entry, not_after } = authenticated;
    let scope = narrowed_scope(&client.scope, request.scope.as_deref())?;
    let audiences = narrowed_audiences(service, client, &request.resources)?;
    let expires_at = rotation::add(now, service.server.access_token_lifetime.signed()).min(*not_after);
    let claims = Claims {
        issuer: &service.server.issuer,
        client_id: &client.id,
        audiences: &audiences,
        scope: &scope,
        issued_at: now,
        expires_at,
        not_before: None,
        entry: Some(entry),
        customers: some(&client.customers),
        customer_groups: some(&client.customer_groups),
        certificate: None,
    };
    let mut out = Vec::with_capacity(TYPICAL_ANSWER_BYTES);
    out.extend_from_slice(b"{\"access_token\":\"");
    token::push(key, &claims, &mut out).map_err(|_| Refusal::NotSigned)?;
    // As the token has them: whole seconds.
    let expires_in = expires_at.as_second() - now.as_second();
    write!(out, "\",\"token_type\":\"Bearer\",\"expires_in\":{expires_in}").map_err(|_| Refusal::NotSigned)?;
    if !scope.is_empty() {
        // Scope tokens need no escaping (RFC 6749 §3.3), and the directory has no others.
        out.extend_from_slice(b",\"scope\":\"");
        out.extend_from_slice(scope.as_bytes());
        out.push(b'"');
    }
    out.push(b'}');
    Ok(out)
}

/// The scopes asked for, in the order of the grant; all of them if none is named (RFC 6749 §3.3).
fn narrowed_scope<'a>(granted: &'a str, asked: Option<&str>) -> Result<Cow<'a, str>, Refusal> {
    let Some(asked) = asked.filter(|asked| *asked != granted) else { return Ok(Cow::Borrowed(granted)) };
    let asked: Vec<&str> = asked.split(' ').filter(|scope| !scope.is_empty()).take(MOST_SCOPES + 1).collect();
    let is_granted = |scope: &&str| granted.split(' ').any(|one| one == *scope);
    if asked.is_empty() || asked.len() > MOST_SCOPES || !asked.iter().all(is_granted) {
        return Err(Refusal::Scope);
    }
    let narrowed: Vec<&str> = granted.split(' ').filter(|scope| asked.contains(scope)).collect();
    Ok(Cow::Owned(narrowed.join(" ")))
}

/// The resources asked for (RFC 8707 §2); all audiences granted if none is named, the server's default if none is
/// granted.
fn narrowed_audiences<'a>(
    service: &Service,
    client: &'a Client,
    asked: &[Cow<'_, str>],
) -> Result<Cow<'a, [String]>, Refusal> {
    let granted = if client.audiences.is_empty() {
        Cow::Owned(vec![service.server.default_audience().to_owned()])
    } else {
        Cow::Borrowed(client.audiences.as_slice())
    };
    if asked.is_empty() {
        return Ok(granted);
    }
    if !asked.iter().all(|resource| granted.iter().any(|audience| audience == resource)) {
        return Err(Refusal::Resource);
    }
    Ok(granted.iter().filter(|audience| asked.iter().any(|resource| resource == *audience)).cloned().collect())
}

fn some(items: &[String]) -> Option<&[String]> {
    Some(items).filter(|items| !items.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_narrows_and_never_widens() {
        let narrowed = |asked: Option<&str>| narrowed_scope("a b c", asked).map(Cow::into_owned);
        assert_eq!(narrowed(None), Ok("a b c".to_owned()));
        assert_eq!(narrowed(Some("a b c")), Ok("a b c".to_owned()));
        assert_eq!(narrowed(Some("c  a a")), Ok("a c".to_owned()));
        for asked in ["d", "a d", " ", "A", "a\tb"] {
            assert_eq!(narrowed(Some(asked)), Err(Refusal::Scope), "{asked:?}");
        }
        assert_eq!(narrowed_scope("", Some("a")), Err(Refusal::Scope));
        assert_eq!(narrowed_scope("", None), Ok(Cow::Borrowed("")));
        assert_eq!(narrowed_scope("a", Some(&"a ".repeat(129))), Err(Refusal::Scope));
    }

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
