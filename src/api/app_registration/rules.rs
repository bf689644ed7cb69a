//! The rules about more than one field of a registration, in CEL.

use serde_json::Value;

use super::super::{DEFAULT_CLIENT_SECRET_ENTRY, DEFAULT_TOKEN_ENTRY, schema};

/// Whether a spec is that of a public client, in CEL.
const IS_PUBLIC: &str = "(has(self.clientType) && self.clientType == 'Public')";

/// The rules about more than one field of a spec.
pub(super) fn of_spec() -> Value {
    Value::Array([of_credentials(), of_sizes(), of_methods(), of_grants()].concat())
}

/// What must stay as it was, and what goes with the type of the client.
fn of_credentials() -> Vec<Value> {
    vec![
        schema::fixed(
            "has(self.clientID) == has(oldSelf.clientID) && (!has(self.clientID) || self.clientID == oldSelf.clientID)",
            ".clientID",
            "clientID must stay as it was, also unset: put it back, or delete the registration and create it anew",
        ),
        schema::fixed(
            "has(self.authorizationServerRef) == has(oldSelf.authorizationServerRef) && (!has(self.authorizationServerRef) || self.authorizationServerRef.name == oldSelf.authorizationServerRef.name)",
            ".authorizationServerRef",
            "authorizationServerRef must stay as it was, also unset: put it back, or delete the registration and create it anew",
        ),
        // What an omitted list stands for has names too, and they fix kinds and Secrets like written ones.
        schema::fixed(
            &format!(
                "has(self.credentials) == has(oldSelf.credentials) || (has(self.credentials) ? self.credentials : oldSelf.credentials).all(e, (e.name != '{DEFAULT_CLIENT_SECRET_ENTRY}' || (has(e.clientSecret) && !has(e.secretName))) && (e.name != '{DEFAULT_TOKEN_ENTRY}' || (has(e.accessToken) && !has(e.secretName))))"
            ),
            ".credentials",
            "credentials must keep what omitted ones are, a clientSecret named default and an accessToken named token, both without secretName: use another name for another kind or Secret",
        ),
        schema::rule_at(
            ".credentials",
            "!has(self.credentials) || self.credentials.size() > 0",
            "credentials must not be empty: set clientType: Public for a client without credentials, or leave credentials out for a client secret and an access token",
        ),
        schema::rule_at(
            ".credentials",
            &format!("!({IS_PUBLIC}) || !has(self.credentials) || self.credentials.size() == 0"),
            "credentials must not be set for clientType Public: remove them, or set clientType: Confidential",
        ),
        schema::rule_at(
            ".redirectURIs",
            &format!("!({IS_PUBLIC}) || (has(self.redirectURIs) && self.redirectURIs.size() > 0)"),
            "redirectURIs must have an item for clientType Public: add one, or set clientType: Confidential",
        ),
    ]
}

/// What a list of each may have would add up to more than a ledger entry can hold.
fn of_sizes() -> Vec<Value> {
    vec![
        schema::rule_at(
            ".apis",
            "!has(self.apis) || self.apis.map(api, has(api.scopes) ? api.scopes.size() : 0).sum() <= 128",
            "apis must have at most 128 scopes in all: remove some, or make another registration for them",
        ),
        schema::rule_at(
            ".credentials",
            "!has(self.credentials) || self.credentials.map(e, has(e.certificate) && has(e.certificate.dnsNames) ? e.certificate.dnsNames.size() : 0).sum() <= 64",
            "credentials must have at most 64 dnsNames in all: remove some, or make another registration for them",
        ),
    ]
}

/// Each method needs a credential that it works with.
fn of_methods() -> Vec<Value> {
    vec![
        schema::rule_at(
            ".tokenEndpointAuthMethod",
            &format!("!has(self.tokenEndpointAuthMethod) || self.tokenEndpointAuthMethod != 'none' || {IS_PUBLIC}"),
            "tokenEndpointAuthMethod must not be none for a confidential client: set clientType: Public, or another method",
        ),
        schema::rule_at(
            ".tokenEndpointAuthMethod",
            &format!("!has(self.tokenEndpointAuthMethod) || self.tokenEndpointAuthMethod == 'none' || !({IS_PUBLIC})"),
            "tokenEndpointAuthMethod must be none for clientType Public: set it, leave it out, or set clientType: Confidential",
        ),
        needs_kind(
            &["client_secret_basic", "client_secret_post"],
            &["clientSecret"],
            "tokenEndpointAuthMethod must have a credential that it works with: client_secret_basic and client_secret_post need a clientSecret: add one, or set another method",
        ),
        needs_kind(
            &["private_key_jwt"],
            &["certificate", "publicKey", "serviceAccount"],
            "tokenEndpointAuthMethod must have a credential that it works with: private_key_jwt needs a certificate, a publicKey or a serviceAccount: add one, or set another method",
        ),
        needs_kind(
            &["tls_client_auth"],
            &["certificate"],
            "tokenEndpointAuthMethod must have a credential that it works with: tls_client_auth needs a certificate: add one, or set another method",
        ),
        needs_kind(
            &["self_signed_tls_client_auth"],
            &["publicKey"],
            "tokenEndpointAuthMethod must have a credential that it works with: self_signed_tls_client_auth needs a publicKey that is a certificate: add one, or set another method",
        ),
    ]
}

/// Grants need what they work with.
fn of_grants() -> Vec<Value> {
    vec![
        schema::rule_at(
            ".grantTypes",
            &format!("!has(self.grantTypes) || !('client_credentials' in self.grantTypes) || !({IS_PUBLIC})"),
            "grantTypes must not have client_credentials for clientType Public, which has nothing to use it with: remove it, or set clientType: Confidential",
        ),
        schema::rule_at(
            ".grantTypes",
            "!has(self.grantTypes) || !('refresh_token' in self.grantTypes) || 'authorization_code' in self.grantTypes",
            "grantTypes must have authorization_code where it has refresh_token: add it",
        ),
        schema::rule_at(
            ".grantTypes",
            "!has(self.grantTypes) || !('authorization_code' in self.grantTypes) || (has(self.redirectURIs) && self.redirectURIs.size() > 0)",
            "redirectURIs must have an item where grantTypes has authorization_code: add one",
        ),
    ]
}

/// The rule that these methods have a credential to be used with. Omitted credentials stand for a client secret and an
/// access token; the methods of a public client are another rule's to judge.
fn needs_kind(methods: &[&str], kinds: &[&str], message: &str) -> Value {
    let one_of = kinds.iter().map(|kind| format!("has(e.{kind})")).collect::<Vec<_>>().join(" || ");
    let implied = if kinds.contains(&"clientSecret") { "true" } else { "false" };
    schema::rule_at(
        ".tokenEndpointAuthMethod",
        &format!(
            "!has(self.tokenEndpointAuthMethod) || !(self.tokenEndpointAuthMethod in ['{}']) || {IS_PUBLIC} || (has(self.credentials) ? self.credentials.size() == 0 || self.credentials.exists(e, {one_of}) : {implied})",
            methods.join("', '")
        ),
        message,
    )
}
