//! `POST /introspect` (RFC 7662): whether a token is good now, for those whose API it is meant for.
//!
//! The caller authenticates as at the token endpoint and sees tokens for its own `servedAudiences` alone. Of all
//! others it learns `{"active":false}` and never why (§2.2); the reason is in a metric. A deleted client, a watermark
//! and a removed entry count as soon as the watch has shown them, which is usually within milliseconds. Only a client
//! that is not known at all is looked up live first: its token may have been had from another replica a moment ago.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use jiff::Timestamp;

use super::client_authentication::authenticate;
use super::directory::Client;
use super::form::Form;
use super::keys::Moment;
use super::refusal::Refusal;
use super::request::{Received, counted_address};
use super::service::{Body, Service, never_cached};
use super::verified::Inactive;

const INACTIVE: Bytes = Bytes::from_static(b"{\"active\":false}");

pub(super) async fn introspect(service: &Service, received: &Received<'_>) -> Result<Response<Body>, Refusal> {
    let now = service.clock.now();
    // Before the ledger and the lists have been read nothing can be said to be good.
    let moment = received.issuer.keys.at(now).filter(|_| service.directory.is_complete()).ok_or(Refusal::NotReady)?;
    let form = Form::parse(&received.body)?;
    let caller = authenticate(service, received, &form, now).await?.client;
    let token = form.token.as_deref().ok_or(Refusal::NoToken)?;
    let result = active(service, received, &caller, token, (&moment, now)).await;
    service.metrics.introspected(result.as_ref().err().copied());
    Ok(never_cached(Response::new(Body::from(result.unwrap_or(INACTIVE)))))
}

/// The answer about a token that is good now and for the caller.
async fn active(
    service: &Service,
    received: &Received<'_>,
    caller: &Client,
    token: &str,
    (moment, now): (&Moment, Timestamp),
) -> Result<Bytes, Inactive> {
    if caller.granted().served_audiences.is_empty() {
        return Err(Inactive::Audience);
    }
    let token = service.verified.verify(token, moment, received.issuer).ok_or(Inactive::NotOurs)?;
    if !token.audiences.iter().any(|audience| caller.granted().served_audiences.contains(audience)) {
        return Err(Inactive::Audience);
    }
    let server = &received.issuer.server;
    let client = || service.directory.client(&server.name, &token.client_id);
    let answer = |client: Option<Arc<Client>>| {
        token.is_active(client.as_deref(), &service.lists, now)?;
        let client = client.ok_or(Inactive::Client)?;
        token.answer_for(&client, server.default_audience())
    };
    let result = answer(client());
    if result != Err(Inactive::Client) {
        return result;
    }
    // Where it cannot be looked up, the answer is the same: most tokens of unknown clients are those of deleted ones.
    let (whose, address) = ((&*server.name, &*token.client_id), counted_address(received.parts));
    Box::pin(service.live.read(whose, address, || client().is_some())).await;
    answer(client())
}
