//! The Rust client: the crate `oauth2`, which knows nothing of us.

use anyhow::Result;
use oauth2::basic::BasicClient;
use oauth2::{
    AccessToken, AuthType, ClientId, ClientSecret, HttpRequest, HttpResponse, IntrospectionUrl, RevocationUrl, Scope,
    StandardRevocableToken, TokenIntrospectionResponse as _, TokenResponse as _, TokenUrl,
};

use super::harness::oauth::https;
use super::stage::Registered;

/// Its name and version.
pub(crate) const CLIENT: &str = "Rust oauth2 5.0.0";

/// How it makes a request.
struct Http(reqwest::Client);

impl Http {
    fn new(of: &Registered) -> Result<Self> {
        Ok(Self(https(&of.field("issuer_ca.crt")?)?))
    }

    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
        let (parts, body) = request.into_parts();
        let sent = self.0.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
        let received = sent.send().await?;
        let mut answer = HttpResponse::new(Vec::new());
        *answer.status_mut() = received.status();
        *answer.headers_mut() = received.headers().clone();
        *answer.body_mut() = received.bytes().await?.to_vec();
        Ok(answer)
    }
}

fn client(of: &Registered) -> Result<BasicClient> {
    let client_secret = ClientSecret::new(of.field("client_secret")?);
    Ok(BasicClient::new(ClientId::new(of.client_id.clone())).set_client_secret(client_secret))
}

/// A token by `client_secret_basic` or `client_secret_post`.
pub(crate) async fn token(of: &Registered, method: AuthType) -> Result<String> {
    let client = client(of)?.set_auth_type(method).set_token_uri(TokenUrl::new(of.field("token_endpoint")?)?);
    let http = Http::new(of)?;
    let token = client.exchange_client_credentials().request_async(&|request| http.call(request)).await?;
    Ok(token.access_token().secret().clone())
}

/// A token for these APIs (`resource` of RFC 8707); where none is named, for the first of the registration's `apis`.
pub(crate) async fn token_for(of: &Registered, resources: &[&str], scope: Option<&str>) -> Result<String> {
    let client = client(of)?.set_token_uri(TokenUrl::new(of.field("token_endpoint")?)?);
    let mut request = client.exchange_client_credentials();
    for resource in resources {
        request = request.add_extra_param("resource", *resource);
    }
    request = request.add_scopes(scope.map(|scope| Scope::new(scope.to_owned())));
    let http = Http::new(of)?;
    let token = request.request_async(&|request| http.call(request)).await?;
    Ok(token.access_token().secret().clone())
}

/// Whether a token is active, and whose it is.
pub(crate) async fn introspect(of: &Registered, token: &str) -> Result<Option<String>> {
    let client = client(of)?.set_introspection_url(IntrospectionUrl::new(of.field("issuer")? + "/introspect")?);
    let http = Http::new(of)?;
    let token = AccessToken::new(token.to_owned());
    let answer = client.introspect(&token).request_async(&|request| http.call(request)).await?;
    Ok(answer.client_id().filter(|_| answer.active()).map(|id| id.as_str().to_owned()))
}

/// Revokes a token.
pub(crate) async fn revoke(of: &Registered, token: &str) -> Result<()> {
    let client = client(of)?.set_revocation_url(RevocationUrl::new(of.field("issuer")? + "/revoke")?);
    let http = Http::new(of)?;
    let token = StandardRevocableToken::AccessToken(AccessToken::new(token.to_owned()));
    Ok(client.revoke_token(token)?.request_async(&|request| http.call(request)).await?)
}
