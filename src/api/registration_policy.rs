//! `RegistrationPolicy`: what registrations of the selected namespaces may ask for, and what needs an approval.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::decoded_or_default;
use super::{DeletionPolicy, GrantType, KeyType, Kind, PrivateKeyAlgorithm, TokenEndpointAuthMethod, schema, selector};

/// The most registrations that the status of a policy names.
pub const MOST_NAMED_VIOLATIONS: usize = 10;

/// The DNS names that a policy allows which says nothing of them: those of the namespace's own Services.
pub const OWN_SERVICE_NAMES: [&str; 2] = ["*.{namespace}.svc", "*.{namespace}.svc.cluster.local"];

/// The audiences of a namespace's own Services, as globs.
pub const OWN_SERVICE_URLS: [&str; 2] = ["https://*.{namespace}.svc", "https://*.{namespace}.svc.cluster.local"];

/// The client IDs that a policy allows which says nothing of them.
pub const OWN_CLIENT_IDS: &str = "{namespace}.*";

/// What registrations may ask for. An omitted field says nothing: it allows no item, and restricts no credential.
///
/// A field that this version does not know makes the policy unreadable: it might be a restriction.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "appreg.dev",
    version = "v1alpha1",
    kind = "RegistrationPolicy",
    doc = "What registrations of the selected namespaces may ask for, and what of it needs an approval.",
    derive = "PartialEq",
    status = "RegistrationPolicyStatus",
    shortname = "regpol",
    validation = Rule::new("self.metadata.name.size() <= 63").message("metadata.name must have at most 63 characters: shorten it"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Registrations", type_ = "integer", json_path = ".status.registrations"),
    printcolumn(name = "Violations", type_ = "integer", json_path = ".status.violations"),
    printcolumn(name = "On Violation", type_ = "string", json_path = ".spec.onViolation"),
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
pub struct RegistrationPolicySpec {
    /// What the policy is for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// The namespaces whose registrations it is about, by their labels; {} is every namespace.
    #[schemars(schema_with = "selector::schema")]
    pub namespace_selector: LabelSelector,

    /// Scopes at the authorization server's default audience, as globs: * stands for any text, {namespace} and
    /// {name} for those of the registration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub scopes: Vec<String>,

    /// APIs to call: audiences, and the scopes that are allowed at these audiences and at no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "atomic"))]
    pub apis: Vec<ApiRule>,

    /// Audiences that a registration may serve, as globs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub served_audiences: Vec<String>,

    /// Customers, as globs; a scope of all customers is the item *, which the glob * alone allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub customers: Vec<String>,

    /// Customer groups, as globs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub customer_groups: Vec<String>,

    /// Redirect URIs, by scheme and host.
    #[serde(rename = "redirectURIs", default, skip_serializing_if = "Option::is_none")]
    pub redirect_uris: Option<RedirectUriRules>,

    /// Client IDs that a registration chooses, as globs; omitted, those that begin with {namespace} and a dot.
    #[serde(rename = "clientIDs", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::globs")]
    pub client_ids: Option<Vec<String>>,

    /// DNS names of certificates, as globs; omitted, the names of the namespace's own Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::globs")]
    pub dns_names: Option<Vec<String>>,

    /// Grants of RFC 6749.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 3, "x-kubernetes-list-type" = "set"))]
    pub grant_types: Option<Vec<GrantType>>,

    /// Ways to authenticate at the token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 6, "x-kubernetes-list-type" = "set"))]
    pub token_endpoint_auth_methods: Option<Vec<TokenEndpointAuthMethod>>,

    /// Kinds of credentials. Of this field and the next six, those policies count that state one: lists are added
    /// up, and of bounds and limits the widest counts. Where no policy of the namespace states one, the
    /// configured default policy's value counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 5, "x-kubernetes-list-type" = "set"))]
    pub credential_kinds: Option<Vec<Kind>>,

    /// Private keys of certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 3, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["algorithm"]))]
    pub private_keys: Option<Vec<PrivateKeyRule>>,

    /// What may become of a client when its registration is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 2, "x-kubernetes-list-type" = "set"))]
    pub deletion_policies: Option<Vec<DeletionPolicy>>,

    /// How long credentials live. What is asked for outside the bounds is moved to the nearest one, and said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durations: Option<DurationRules>,

    /// How much a registration or a namespace may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PolicyLimits>,

    /// What of all this is granted only where a RegistrationApproval names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_required: Option<ApprovalRequired>,

    /// What becomes of an item that this policy granted and that no policy allows any more: Keep it (the default) while
    /// it is asked for, or Withdraw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_violation: Option<OnViolation>,
}

/// APIs that may be called.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiRule {
    /// Audiences, as globs.
    #[schemars(schema_with = "schema::some_globs")]
    pub audiences: Vec<String>,

    /// Scopes at these audiences, as globs. Omitted: none, the API alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub scopes: Vec<String>,
}

/// APIs that need an approval.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiApprovalRule {
    /// Audiences, as globs.
    #[schemars(schema_with = "schema::some_globs")]
    pub audiences: Vec<String>,

    /// Scopes at these audiences that need an approval, as globs. Omitted: the API itself does, with all its scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::some_globs")]
    pub scopes: Option<Vec<String>>,
}

/// Private keys that are allowed.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrivateKeyRule {
    /// The algorithm.
    pub algorithm: PrivateKeyAlgorithm,

    /// The smallest size, in bits; omitted, every size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 256, max = 4096), extend("format" = "int32"))]
    pub min_size: Option<u32>,
}

impl PrivateKeyRule {
    /// Whether it allows keys of this type.
    #[must_use]
    pub fn allows(self, key_type: KeyType) -> bool {
        self.algorithm == key_type.algorithm() && self.min_size.is_none_or(|least| least <= key_type.size())
    }
}

/// Redirect URIs by their parts: one of the schemes, and one of the hosts.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedirectUriRules {
    /// Hosts, without port, as globs; * also stands for text with dots.
    #[schemars(schema_with = "schema::some_globs")]
    pub hosts: Vec<String>,

    /// Schemes; omitted, https alone. http is for the machine itself, whatever this says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 2, "x-kubernetes-list-type" = "set"))]
    pub schemes: Option<Vec<UriScheme>>,
}

/// The scheme of a redirect URI.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[schemars(transform = schema::without_description)]
pub enum UriScheme {
    /// Encrypted.
    Https,
    /// On the machine itself.
    Http,
}

/// How long credentials live, by kind.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DurationRules {
    /// Of client secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<DurationBounds>,

    /// Of certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<DurationBounds>,

    /// Of access tokens in Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<DurationBounds>,

    /// Of uploaded keys and certificates: how long one is accepted at most, counted from when it was taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<LongestDuration>,
}

/// The longest duration.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LongestDuration {
    /// The longest.
    #[schemars(schema_with = "schema::duration")]
    pub max: String,
}

/// Bounds of an effective duration; one that is omitted is the product's own.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [schema::rule_at(
    ".max",
    "!has(self.min) || !has(self.max) || duration(self.min) <= duration(self.max)",
    "max must be at least as long as min: lengthen max, or shorten min",
)]))]
pub struct DurationBounds {
    /// The shortest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub min: Option<String>,

    /// The longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub max: Option<String>,
}

/// How much may be had. What exists when a limit is set goes on.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyLimits {
    /// How many registrations of a namespace get a client; the older ones are first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub registrations_per_namespace: Option<u32>,

    /// How many credentials a registration has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub credentials: Option<u32>,
}

/// What needs a RegistrationApproval, as globs. It must be allowed as well.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalRequired {
    /// Scopes at the authorization server's default audience.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub scopes: Vec<String>,

    /// APIs to call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "atomic"))]
    pub apis: Vec<ApiApprovalRule>,

    /// Audiences to serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub served_audiences: Vec<String>,

    /// Customers. Where any customer or group needs an approval, all of them (type All) do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub customers: Vec<String>,

    /// Customer groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub customer_groups: Vec<String>,

    /// Redirect URIs, by their hosts without port.
    #[serde(rename = "redirectURIs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub redirect_uris: Vec<String>,
}

/// What becomes of what is no longer allowed.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[schemars(transform = schema::without_description)]
pub enum OnViolation {
    /// It stays while it is asked for, and the registration says so.
    #[default]
    Keep,
    /// It is taken back.
    Withdraw,
}

/// What is known of a policy. A field that does not decode is as if it were absent.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct RegistrationPolicyStatus {
    /// The generation of the spec that this status reports on; -1 before the first report.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// How many registrations it selects.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub registrations: Option<i64>,

    /// How many registrations keep something that this policy granted and that no policy allows any more.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub violations: Option<i64>,

    /// The first ten of them, as namespace/name.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = MOST_NAMED_VIOLATIONS, "items" = schema::text(128)))]
    pub violating: Vec<String>,

    /// Ready: whether it is understood and in force.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
