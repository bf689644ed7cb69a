//! `AppRegistration`: an application, and what an authorization server shall know of it.

mod rules;

use std::{borrow::Cow, collections::BTreeMap, fmt};

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AppRegistrationStatus, CustomerScope, Entry, SecretField, conflict, schema};

/// The authorization server of a registration that names none: the built-in token service.
pub const DEFAULT_AUTHORIZATION_SERVER: &str = "default";

/// The application, and the credentials and rights that it asks for. Fields have the names of RFC 7591 in Kubernetes
/// spelling.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "appreg.dev",
    version = "v1alpha1",
    kind = "AppRegistration",
    namespaced,
    doc = "An application that is registered with an authorization server, and its credentials.",
    derive = "PartialEq",
    status = "AppRegistrationStatus",
    shortname = "appreg",
    category = "appreg-all",
    selectable = ".spec.clientID",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must have at most 63 characters: shorten it"),
    validation = Rule::new(conflict::rule()).message(conflict::message()).field_path(".spec.credentials"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Client ID", type_ = "string", json_path = ".status.clientID"),
    printcolumn(
        name = "Approved",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Approved")].status"#
    ),
    printcolumn(
        name = "Next Rotation",
        type_ = "string",
        json_path = ".status.nextRotationTime"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Problem",
        type_ = "string",
        json_path = r#".status.conditions[?(@.status=="False")].message"#
    ),
    printcolumn(
        name = "Server",
        type_ = "string",
        json_path = ".status.authorizationServer.name",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::of_spec()))]
pub struct AppRegistrationSpec {
    /// The application's name for people (RFC 7591 client_name).
    #[schemars(length(min = 1, max = 128))]
    pub display_name: String,

    /// A description of the application, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// Whether the application can keep a credential secret (RFC 6749 section 2.1). Confidential, the default, has
    /// credentials. Public is for an application that runs on its users' machines: it has no credentials, and needs
    /// redirectURIs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_type: Option<ClientType>,

    /// The client ID, if the registration chooses one (RFC 7591 client_id): unique per authorization server, and
    /// immutable. By default the registration's uid.
    #[serde(rename = "clientID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100), regex(pattern = schema::CLIENT_ID), extend("x-kubernetes-validations" = [schema::rule(
        "!self.matches('^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')",
        "clientID must not be shaped like a UUID, because those are the IDs of registrations without clientID: choose another one",
    )]))]
    pub client_id: Option<String>,

    /// The application's home page (RFC 7591 client_uri).
    #[serde(rename = "clientURI", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::uri", extend("x-kubernetes-validations" = schema::uri_rules("clientURI")))]
    pub client_uri: Option<String>,

    /// The application's logo (RFC 7591 logo_uri).
    #[serde(rename = "logoURI", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::uri", extend("x-kubernetes-validations" = schema::uri_rules("logoURI")))]
    pub logo_uri: Option<String>,

    /// The page where a login begins that a third party starts (OpenID Connect initiate_login_uri).
    #[serde(rename = "initiateLoginURI", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::uri", extend("x-kubernetes-validations" = schema::uri_rules("initiateLoginURI")))]
    pub initiate_login_uri: Option<String>,

    /// The application's privacy policy (RFC 7591 policy_uri).
    #[serde(rename = "policyURI", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::uri", extend("x-kubernetes-validations" = schema::uri_rules("policyURI")))]
    pub policy_uri: Option<String>,

    /// The application's terms of service (RFC 7591 tos_uri).
    #[serde(rename = "tosURI", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::uri", extend("x-kubernetes-validations" = schema::uri_rules("tosURI")))]
    pub tos_uri: Option<String>,

    /// Ways to reach the people responsible (RFC 7591 contacts).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 8, "x-kubernetes-list-type" = "set", "items" = schema::contact()))]
    pub contacts: Vec<String>,

    /// The URIs that an authorization code may be sent to (RFC 7591 redirect_uris): https, or http on loopback.
    #[serde(rename = "redirectURIs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "set", "items" = schema::redirect_uri("redirectURIs")))]
    pub redirect_uris: Vec<String>,

    /// The URIs that a browser may be sent to after logout (OpenID Connect post_logout_redirect_uris).
    #[serde(rename = "postLogoutRedirectURIs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "set", "items" = schema::redirect_uri("postLogoutRedirectURIs")))]
    pub post_logout_redirect_uris: Vec<String>,

    /// The grants of RFC 6749 that the application uses (RFC 7591 grant_types). By default client_credentials, and with
    /// redirectURIs also authorization_code and refresh_token. A public client cannot use client_credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("minItems" = 1, "maxItems" = 3, "x-kubernetes-list-type" = "set"))]
    pub grant_types: Vec<GrantType>,

    /// The only way in which the application authenticates at the token endpoint (RFC 7591 token_endpoint_auth_method).
    /// By default every way that its credentials allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_endpoint_auth_method: Option<TokenEndpointAuthMethod>,

    /// The scopes that the application asks for at the authorization server's default audience (RFC 7591 scope). A
    /// scope at another API belongs in apis.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set", "items" = schema::scope()))]
    pub scopes: Vec<String>,

    /// The APIs that the application calls, each with the scopes that it asks for there. A token is for one of them.
    /// The first one is meant where a token request names none (RFC 8707 resource).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["audience"]))]
    pub apis: Vec<ApiAccess>,

    /// The audiences of the APIs that the application serves itself. It may introspect tokens whose aud is one of them
    /// (RFC 7662).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "set", "items" = schema::audience_value()))]
    pub served_audiences: Vec<String>,

    /// The customers whose data the application may access. Its tokens carry them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_scope: Option<CustomerScope>,

    /// The authorization server that accepts the credentials. Immutable. By default the built-in server, which is named
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_server_ref: Option<AuthorizationServerRef>,

    /// What becomes of the client when the registration is deleted. Delete, the default, ends it. Orphan keeps it and
    /// its Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,

    /// Labels, annotations and further fields of the Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_template: Option<SecretTemplate>,

    /// Rotates every credential that was minted before this time; the old ones stay accepted for the overlap. An RFC
    /// 3339 time with an offset, such as 2026-11-22T07:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub rotate_minted_before: Option<String>,

    /// Revokes every credential that was minted before this time: each is replaced, and then rejected. An RFC 3339 time
    /// with an offset, such as 2026-11-22T07:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub revoke_minted_before: Option<String>,

    /// The credentials of a confidential client (RFC 7591 client_secret, jwks). By default one client secret and one
    /// access token. A public client has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub credentials: Option<Vec<Entry>>,
}

/// A grant of RFC 6749, under its registered name.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = schema::without_description)]
pub enum GrantType {
    /// Section 4.4: the application acts for itself.
    ClientCredentials,
    /// Section 4.1: the application acts for a person, who is asked.
    AuthorizationCode,
    /// Section 6: the application goes on acting for that person.
    RefreshToken,
}

/// A way to identify a client at the token endpoint, under its name in the IANA registry.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = schema::without_description)]
pub enum TokenEndpointAuthMethod {
    /// The client secret in the Authorization header (RFC 6749 section 2.3.1).
    ClientSecretBasic,
    /// The client secret in the body (RFC 6749 section 2.3.1).
    ClientSecretPost,
    /// A JWT signed with the client's key (RFC 7523).
    PrivateKeyJwt,
    /// A client certificate that a CA issued (RFC 8705 section 2.1).
    TlsClientAuth,
    /// A registered client certificate (RFC 8705 section 2.2).
    SelfSignedTlsClientAuth,
    /// Nothing: a public client.
    None,
}

/// The name of an authorization server.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationServerRef {
    /// The name of the authorization server; default is the built-in one.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,
}

/// What becomes of the client at the authorization server when the registration is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[schemars(transform = schema::without_description)]
pub enum DeletionPolicy {
    /// It is deleted there as well.
    #[default]
    Delete,
    /// It stays there.
    Orphan,
}

/// Additions to the registration's Secrets. An item that leaves the template leaves the Secrets.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretTemplate {
    /// Labels of the Secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = schema::label_value(), "x-kubernetes-validations" = schema::template_key_rules()))]
    pub labels: BTreeMap<String, String>,

    /// Annotations of the Secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = schema::annotation_value(), "x-kubernetes-validations" = schema::template_key_rules()))]
    pub annotations: BTreeMap<String, String>,

    /// Further names for fields, for consumers that expect other names. {CLIENT_ID: client_id} adds a field CLIENT_ID
    /// with the same value to each Secret that has a field client_id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "x-kubernetes-validations" = super::secret_field::rules()))]
    pub fields: BTreeMap<String, SecretField>,
}

/// An API that the application calls, with the scopes that it asks for there.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiAccess {
    /// The API: the aud of its tokens (RFC 9068 section 3), and the resource that a client asks for (RFC 8707).
    #[schemars(schema_with = "schema::audience")]
    pub audience: String,

    /// The scopes that the application asks for at this API (RFC 6749 section 3.3).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set", "items" = schema::scope()))]
    pub scopes: Vec<String>,
}

/// Whether a client can keep a credential to itself (RFC 6749 section 2.1).
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[schemars(transform = schema::without_description)]
pub enum ClientType {
    /// It can.
    #[default]
    Confidential,
    /// It cannot: it runs on its users' machines.
    Public,
}

impl AppRegistrationSpec {
    /// The credentials, written or implied. Omitted ones are a client secret and an access token; a public client has
    /// none.
    #[must_use]
    pub fn effective_credentials(&self) -> Cow<'_, [Entry]> {
        match &self.credentials {
            Some(_) | None if self.is_public() => Cow::Borrowed(&[]),
            Some(entries) => Cow::Borrowed(entries),
            None => Cow::Owned(Entry::defaults().into()),
        }
    }

    /// Whether it is a public client (RFC 6749 section 2.1).
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.client_type == Some(ClientType::Public)
    }

    /// The authorization server's name, written or implied.
    #[must_use]
    pub fn authorization_server(&self) -> &str {
        self.authorization_server_ref.as_ref().map_or(DEFAULT_AUTHORIZATION_SERVER, |server| &server.name)
    }
}

impl GrantType {
    /// Every grant type.
    pub const ALL: [Self; 3] = [Self::ClientCredentials, Self::AuthorizationCode, Self::RefreshToken];

    /// The registered name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::AuthorizationCode => "authorization_code",
            Self::RefreshToken => "refresh_token",
        }
    }
}

impl TokenEndpointAuthMethod {
    /// Every method.
    pub const ALL: [Self; 6] = [
        Self::ClientSecretBasic,
        Self::ClientSecretPost,
        Self::PrivateKeyJwt,
        Self::TlsClientAuth,
        Self::SelfSignedTlsClientAuth,
        Self::None,
    ];

    /// The registered name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::TlsClientAuth => "tls_client_auth",
            Self::SelfSignedTlsClientAuth => "self_signed_tls_client_auth",
            Self::None => "none",
        }
    }
}

impl fmt::Display for GrantType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl fmt::Display for TokenEndpointAuthMethod {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::Kind, *};

    #[test]
    fn omitted_credentials_are_a_client_secret_and_an_access_token_and_a_public_client_has_none() {
        let kinds = |spec: &AppRegistrationSpec| {
            spec.effective_credentials().iter().map(|e| (e.name.clone(), e.kind())).collect::<Vec<_>>()
        };
        let mut spec = AppRegistrationSpec::default();
        assert_eq!(
            kinds(&spec),
            [("default".to_owned(), Some(Kind::ClientSecret)), ("token".to_owned(), Some(Kind::AccessToken))]
        );
        spec.client_type = Some(ClientType::Public);
        assert_eq!(kinds(&spec), []);
    }

    #[test]
    fn a_registration_without_a_server_has_the_built_in_one() {
        let mut spec = AppRegistrationSpec::default();
        assert_eq!(spec.authorization_server(), "default");
        spec.authorization_server_ref = Some(AuthorizationServerRef { name: "keycloak".to_owned() });
        assert_eq!(spec.authorization_server(), "keycloak");
    }

    #[test]
    fn a_spec_is_written_as_it_was_read() {
        let json = json!({
            "displayName": "Shop", "clientID": "shop", "clientURI": "https://a.example", "logoURI": "https://a.example",
            "initiateLoginURI": "https://a.example", "policyURI": "https://a.example", "tosURI": "https://a.example",
            "redirectURIs": ["https://a.example"], "postLogoutRedirectURIs": ["https://a.example"],
            "grantTypes": ["client_credentials", "authorization_code", "refresh_token"],
            "tokenEndpointAuthMethod": "self_signed_tls_client_auth", "customerScope": {"type": "Groups", "groups": ["a"]},
            "clientType": "Confidential", "apis": [{"audience": "https://a.example", "scopes": ["a"]}],
            "servedAudiences": ["https://b.example"],
            "authorizationServerRef": {"name": "default"}, "deletionPolicy": "Orphan",
            "secretTemplate": {"labels": {"a": "b"}, "fields": {"CLIENT_ID": "client_id", "cert": "tls.crt"}}, "rotateMintedBefore": "x", "revokeMintedBefore": "y",
            "credentials": [{"name": "mtls", "secretName": "s", "certificate": {"dnsNames": ["a.svc"]}},
                {"name": "partner", "publicKey": {"der": "MA=="}}, {"name": "old", "publicKey": {"pem": "x"}},
                {"name": "workload", "serviceAccount": {"name": "shop"}}],
        });
        let spec: AppRegistrationSpec = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(spec).unwrap(), json);
    }

    #[test]
    fn names_are_the_registered_ones() {
        for grant_type in GrantType::ALL {
            assert_eq!(serde_json::to_value(grant_type).unwrap(), grant_type.to_string());
        }
        for method in TokenEndpointAuthMethod::ALL {
            assert_eq!(serde_json::to_value(method).unwrap(), method.to_string());
        }
    }
}
