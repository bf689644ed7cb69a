//! `AuthorizationServer`: who accepts credentials, besides the server that the operator's configuration has.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::status::decoded_or_default;
use super::{Algorithm, schema, selector};

/// An authorization server beside the configured one, with its own issuer, signing keys and certificate authority.
///
/// A field that this version does not know makes the server unreadable, because it might be a restriction or another
/// type.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "appreg.dev",
    version = "v1alpha1",
    kind = "AuthorizationServer",
    doc = "A server that accepts the credentials of registrations that name it, and the namespaces that may name it.",
    derive = "PartialEq",
    status = "AuthorizationServerStatus",
    shortname = "authserver",
    validation = Rule::new("self.metadata.name != 'default'").message("metadata.name must not be default, which is the server of the operator's configuration: choose another name"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("metadata.name must have at most 40 characters, because names of Secrets are made of it: shorten it"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Issuer", type_ = "string", json_path = ".spec.builtIn.issuer"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = spec_rules()))]
pub struct AuthorizationServerSpec {
    /// A description of the server, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// The namespaces whose registrations may name the server, by their labels; {} is every namespace. Existing clients
    /// of a namespace that is no longer selected continue, and nothing new begins there.
    #[schemars(schema_with = "selector::schema")]
    pub namespace_selector: LabelSelector,

    /// The server is of the type builtIn: the operator's own token service serves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_in: Option<BuiltIn>,
}

/// The settings of a server that the token service serves beside the configured one.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [schema::fixed(
    "self.issuer == oldSelf.issuer",
    ".issuer",
    "issuer must stay as it was, because every token and every client has it: put it back, or create another server",
)]))]
pub struct BuiltIn {
    /// The issuer identifier (RFC 8414 section 2): an https URL without trailing slash, query or fragment, with another
    /// host or path than every other server's. Requests for its host must lead to the token service. Immutable.
    #[schemars(schema_with = "issuer")]
    pub issuer: String,

    /// The audience of tokens of a client that was granted no API. By default the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minLength" = 1, "maxLength" = 256, "pattern" = schema::SCOPE_TOKEN))]
    pub default_audience: Option<String>,

    /// A duration such as 15m (units s, m, h, d and w; no metav1.Duration): how long a token from the token endpoint
    /// lives. At most 24h. By default 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "token_lifetime")]
    pub access_token_lifetime: Option<String>,

    /// The signature algorithm of access tokens. By default ES256. After a change, the new key is published for a day
    /// before it signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_algorithm: Option<Algorithm>,

    /// More DNS names and IP addresses for the serving certificate, which always has the issuer's host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 4, "x-kubernetes-list-type" = "set", "items" = serving_name()))]
    pub serving_names: Vec<String>,
}

/// The report on an authorization server. A field that cannot be decoded counts as absent.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct AuthorizationServerStatus {
    /// The generation of the spec that this status reports on; -1 before the first report.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The issuer that is served.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub issuer: Option<String>,

    /// The token endpoint that is served.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub token_endpoint: Option<String>,

    /// The condition Ready: whether the settings are in force and the keys in order.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What every server has, whatever its type.
fn spec_rules() -> Value {
    json!([schema::rule("has(self.builtIn)", "builtIn must be set, because there is no other type of server: add it")])
}

fn issuer(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "string", "minLength": 9, "maxLength": 256, "x-kubernetes-validations": [
        schema::rule(
            r#"isURL(self) && self.matches(r"^https://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*$")"#,
            "issuer must be an https URL of host, port and path, without trailing slash, query, fragment and user name, no part of its path beginning with a dot: write it like https://auth.example/partners",
        ),
    ]})
}

fn token_lifetime(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = schema::duration(generator);
    let rules = schema::bounded_duration_rules("accessTokenLifetime", "24h", "24h");
    schema.insert("x-kubernetes-validations".to_owned(), rules);
    schema
}

/// A DNS name or an IP address.
fn serving_name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 253, "x-kubernetes-validations": [schema::rule(
        r#"isIP(self) || self.matches(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")"#,
        "servingNames must be DNS names in lower case without wildcard, or IP addresses: change this one",
    )]})
}
