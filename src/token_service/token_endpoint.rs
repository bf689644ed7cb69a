//! `POST /token`: the client credentials grant (RFC 6749 §4.4) with access tokens in the form of RFC 9068.
//!
//! A revision is accepted if and only if it is in the ledger and valid now (rule R1); nothing else is consulted.
//!
//! A token is for one API and has the scopes that are granted at this one. `resource` (RFC 8707) names it; without it the
//! client's first API is meant, or the server's default audience. A token for several APIs has only scopes that are
//! granted at every one of them. `scope` narrows and never widens.

use std::borrow::Cow;
use std::io::Write as _;

use http::Response;
use jiff::Timestamp;

use super::client_authentication::{Authenticated, authenticate};
use super::directory::{Client, scopes_of};
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
    let Authenticated { client, entry, revision, not_after, certificate } = authenticated;
    let target = Target::of(server, client, &form.resources)?;
    let scope = narrowed_scope(&target.scope, form.scope.as_deref())?;
    let expires_at = rotation::add(now, server.access_token_lifetime.signed()).min(*not_after);
    let claims = Claims {
        issuer: &server.issuer,
        client_id: &client.id,
        audiences: &target.audiences,
        scope: &scope,
        issued_at: now,
        expires_at,
        not_before: None,
        entry: Some(entry),
        revision: *revision,
        customers: client.granted().customers.as_deref(),
        customer_groups: client.granted().customer_groups.as_deref(),
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

/// The APIs that a token is for, and the scopes that it can have.
struct Target<'a> {
    audiences: Vec<&'a str>,
    scope: Cow<'a, str>,
}

impl<'a> Target<'a> {
    /// The target of a request with these resources (RFC 8707 §2).
    fn of(server: &'a Server, client: &'a Client, resources: &'a [Cow<'_, str>]) -> Result<Self, Refusal> {
        let server_audience = server.default_audience();
        let granted_at = |audience: &'a str| client.scope_at(audience, server_audience).ok_or(Refusal::Resource);
        let mut audiences: Vec<&str> = resources.iter().map(|resource| &**resource).collect();
        if audiences.is_empty() {
            audiences.push(client.granted().default_audience.as_deref().unwrap_or(server_audience));
        }
        audiences.sort_unstable();
        audiences.dedup();
        let mut scope = granted_at(audiences[0])?;
        for audience in audiences.iter().skip(1) {
            let here = granted_at(audience)?;
            let common: Vec<&str> =
                scopes_of(&scope).filter(|scope| scopes_of(&here).any(|one| one == *scope)).collect();
            scope = Cow::Owned(common.join(" "));
        }
        // APIs without a scope in common cannot share a token: each would take it for one of its own.
        if audiences.len() > 1 && scope.is_empty() {
            return Err(Refusal::NothingInCommon);
        }
        Ok(Self { audiences, scope })
    }
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
