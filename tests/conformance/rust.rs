//! The Rust client: the crate `oauth2`, which knows nothing of us.

use anyhow::Result;
use oauth2::basic::BasicClient;
use oauth2::{AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, TokenResponse as _, TokenUrl};

use super::harness::oauth::https;
use super::stage::Registered;

/// Its name and version.
pub(crate) const CLIENT: &str = "Rust oauth2 5.0.0";

/// A token by `client_secret_basic` or `client_secret_post`, or what it says of the refusal.
pub(crate) async fn token(of: &Registered, method: AuthType) -> Result<String> {
    let client = BasicClient::new(ClientId::new(of.client_id.clone()))
        .set_client_secret(ClientSecret::new(of.field("client_secret")?))
        .set_auth_type(method)
        .set_token_uri(TokenUrl::new(of.field("token_endpoint")?)?);
    let http = https(&of.field("issuer_ca.crt")?)?;
    let call = |request: HttpRequest| {
        let http = http.clone();
        async move {
            let (parts, body) = request.into_parts();
            let sent = http.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
            let received = sent.send().await?;
            let mut answer = HttpResponse::new(Vec::new());
            *answer.status_mut() = received.status();
            *answer.headers_mut() = received.headers().clone();
            *answer.body_mut() = received.bytes().await?.to_vec();
            Ok::<_, reqwest::Error>(answer)
        }
    };
    let token = client.exchange_client_credentials().request_async(&call).await?;
    Ok(token.access_token().secret().clone())
}
