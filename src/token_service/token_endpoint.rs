//! `POST /token`: the client credentials grant (RFC 6749 §4.4) with access tokens in the form of RFC 9068.
//!
//! A revision is accepted if and only if it is in the ledger and valid now (rule R1); nothing else is consulted. What is
//! granted can be narrowed by `scope` and `resource`, never widened.

use std::borrow::Cow;
use std::io::Write as _;

use http::Response;
use jiff::Timestamp;

use super::client_authentication::{Authenticated, authenticate};
use super::directory::Client;
use super::form::Form;
use super::refusal::Refusal;
use super::request::Received;
use super::service::{Body, Service, never_cached};
use crate::config::Server;
use crate::mint::signing_key::SigningKey;
use crate::mint::token::{self, Claims};
use crate::rotation;

/// The most scopes that a request may name; a grant has fewer.
const MOST_SCOPES: usize = 128;

/// A token with what stands around it in the answer.
const TYPICAL_ANSWER_BYTES: usize = 1024;

pub(super) async fn issue(service: &Service, received: &Received<'_>) -> Result<Response<Body>, Refusal> {
    let now = service.clock.now();
    // Before the ledger has been read nobody can be said to be unknown.
    let moment = received.issuer.keys.at(now).filter(|_| service.directory.is_complete()).ok_or(Refusal::NotReady)?;
    let key = moment.signing.as_deref().ok_or(Refusal::NotReady)?;
    let form = Form::parse(&received.body)?;
    match form.grant_type.as_deref() {
        Some("client_credentials") => {}
        Some(_) => return Err(Refusal::UnsupportedGrantType),
        None => return Err(Refusal::NoGrantType),
    }
    let authenticated = authenticate(service, received, &form, now).await?;
    if !authenticated.client.has_client_credentials {
        return Err(Refusal::UnauthorizedClient);
    }
    let answer = answer(&received.issuer.server, key, &authenticated, &form, now)?;
    Ok(never_cached(Response::new(Body::from(answer))))
}

/// The successful answer (RFC 6749 §5.1). The token grows inside it.
fn answer(
    server: &Server,
    key: &SigningKey,
    authenticated: &Authenticated,
    form: &Form<'_>,
    now: Timestamp,
) -> Result<Vec<u8>, Refusal> {
    let Authenticated { client, entry, not_after, certificate } = authenticated;
    let scope = narrowed_scope(&client.scope, form.scope.as_deref())?;
    let audiences = narrowed_audiences(server, client, &form.resources)?;
    let expires_at = rotation::add(now, server.access_token_lifetime.signed()).min(*not_after);
    let claims = Claims {
        issuer: &server.issuer,
        client_id: &client.id,
        audiences: &audiences,
        scope: &scope,
        issued_at: now,
        expires_at,
        not_before: None,
        entry: Some(entry),
        customers: some(&client.granted().customers),
        customer_groups: some(&client.granted().customer_groups),
        certificate: *certificate,
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
    server: &Server,
    client: &'a Client,
    asked: &[Cow<'_, str>],
) -> Result<Cow<'a, [String]>, Refusal> {
    let granted = match client.granted().audiences.as_slice() {
        [] => Cow::Owned(vec![server.default_audience().to_owned()]),
        audiences => Cow::Borrowed(audiences),
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
}
