//! `POST /revoke` (RFC 7009): a client gives up one of its tokens.
//!
//! Answered with 200 once that stands in the lists that all replicas share, so it survives them all. A token that is
//! none of ours, has ended or is otherwise good for nothing is answered with 200 as well (§2.2): there is nothing to
//! do. `token_type_hint` is ignored, as §2.1 allows: there is one type of token. Whoever checks tokens offline
//! cannot know of a revocation before their end; introspection does.

use http::{Response, header};

use super::client_authentication::authenticate;
use super::form::Form;
use super::refusal::Refusal;
use super::request::Received;
use super::service::{Body, Service, never_cached};

pub(super) async fn revoke(service: &Service, received: &Received<'_>) -> Result<Response<Body>, Refusal> {
    let now = service.clock.now();
    let moment = received.issuer.keys.at(now).filter(|_| service.directory.is_complete()).ok_or(Refusal::NotReady)?;
    let form = Form::parse(&received.body)?;
    let caller = authenticate(service, received, &form, now).await?.client;
    let token = form.token.as_deref().ok_or(Refusal::NoToken)?;
    let token = service.verified.verify(token, &moment, received.issuer);
    if let Some(token) = token.filter(|token| now < token.expires_at) {
        if *token.client_id != *caller.id {
            return Err(Refusal::ForeignToken);
        }
        // What a watermark has ended needs no mark of its own.
        if token.is_current(Some(&caller), now).is_ok() {
            Box::pin(service.lists.revoke(token.mark, token.expires_at, now)).await?;
        }
    }
    let mut response = never_cached(Response::new(Body::default()));
    response.headers_mut().remove(header::CONTENT_TYPE);
    Ok(response)
}
