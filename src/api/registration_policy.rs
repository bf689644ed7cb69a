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

/// The items that registrations may ask for. An omitted list allows none of its items, unless the field says otherwise.
///
/// The fields grantTypes, tokenEndpointAuthMethods, credentialKinds, privateKeys, deletionPolicies, durations and
/// limits restrict registrations. An omitted one says nothing. Policies of a namespace that state the same one add up,
/// and of bounds and limits the widest counts. Where none states it, the value of the configured default policy counts.
///
/// A field that this version does not know makes the policy unreadable, because it might be a restriction.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "appreg.dev",
    version = "v1alpha1",
    kind = "RegistrationPolicy",
    doc = "The items that registrations of the selected namespaces may ask for, and those that need an approval.",
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
    /// A description of the policy, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// The namespaces whose registrations the policy governs, by their labels; {} is every namespace.
    #[schemars(schema_with = "selector::schema")]
    pub namespace_selector: LabelSelector,

    /// The scopes that are allowed at the authorization server's default audience, as globs: * stands for any text,
    /// {namespace} and {name} for those of the registration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub scopes: Vec<String>,

    /// The APIs that may be called: audiences, and the scopes that are allowed at these audiences and at no other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "atomic"))]
    pub apis: Vec<ApiRule>,

    /// The audiences that a registration may serve, as globs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub served_audiences: Vec<String>,

    /// The customers that are allowed, as globs. A customerScope of type All is the item *, which only the glob *
    /// allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub customers: Vec<String>,

    /// The customer groups that are allowed, as globs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub customer_groups: Vec<String>,

    /// The redirect URIs that are allowed, by scheme and host.
    #[serde(rename = "redirectURIs", default, skip_serializing_if = "Option::is_none")]
    pub redirect_uris: Option<RedirectUriRules>,

    /// The client IDs that a registration may choose, as globs. By default {namespace}.*.
    #[serde(rename = "clientIDs", default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::globs")]
    pub client_ids: Option<Vec<String>>,

    /// The DNS names that certificates may have, as globs. By default the names of the namespace's own Services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::globs")]
    pub dns_names: Option<Vec<String>>,

    /// The grants of RFC 6749 that are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 3, "x-kubernetes-list-type" = "set"))]
    pub grant_types: Option<Vec<GrantType>>,

    /// The ways to authenticate at the token endpoint that are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 6, "x-kubernetes-list-type" = "set"))]
    pub token_endpoint_auth_methods: Option<Vec<TokenEndpointAuthMethod>>,

    /// The kinds of credentials that are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 5, "x-kubernetes-list-type" = "set"))]
    pub credential_kinds: Option<Vec<Kind>>,

    /// The private keys that certificates may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 3, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["algorithm"]))]
    pub private_keys: Option<Vec<PrivateKeyRule>>,

    /// The deletion policies that a registration may choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxItems" = 2, "x-kubernetes-list-type" = "set"))]
    pub deletion_policies: Option<Vec<DeletionPolicy>>,

    /// How long credentials live. A duration that is asked for outside the bounds is moved to the nearest bound, and
    /// the registration says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub durations: Option<DurationRules>,

    /// How much a registration or a namespace may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<PolicyLimits>,

    /// The items of all these that are granted only where a RegistrationApproval lists them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_required: Option<ApprovalRequired>,

    /// What becomes of an item that this policy granted and that no policy allows any more. Keep, the default, leaves
    /// it granted while it is asked for. Withdraw takes it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_violation: Option<OnViolation>,
}

/// APIs that may be called, and the scopes that are allowed there.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiRule {
    /// The audiences, as globs.
    #[schemars(schema_with = "schema::some_globs")]
    pub audiences: Vec<String>,

    /// The scopes that are allowed at these audiences, as globs. By default none: the API alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub scopes: Vec<String>,
}

/// APIs that need an approval, or scopes of them that do.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApiApprovalRule {
    /// The audiences, as globs.
    #[schemars(schema_with = "schema::some_globs")]
    pub audiences: Vec<String>,

    /// The scopes at these audiences that need an approval, as globs. By default the API itself needs it, with all its
    /// scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::some_globs")]
    pub scopes: Option<Vec<String>>,
}

/// Private keys that are allowed, by algorithm and size.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PrivateKeyRule {
    /// The algorithm of the key.
    pub algorithm: PrivateKeyAlgorithm,

    /// The smallest size that is allowed, in bits. By default every size.
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
    /// The hosts that are allowed, without port, as globs; * also stands for text with dots.
    #[schemars(schema_with = "schema::some_globs")]
    pub hosts: Vec<String>,

    /// The schemes that are allowed. By default https alone. http is only ever allowed on loopback.
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
    /// Bounds for client secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<DurationBounds>,

    /// Bounds for certificates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<DurationBounds>,

    /// Bounds for access tokens in Secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<DurationBounds>,

    /// The bound for uploaded keys and certificates: how long one is accepted at most, from when it was first accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<LongestDuration>,
}

/// The longest duration.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LongestDuration {
    /// The longest duration, such as 365d (units s, m, h, d and w; no metav1.Duration).
    #[schemars(schema_with = "schema::duration", extend("x-kubernetes-validations" = schema::duration_rules("max")))]
    pub max: String,
}

/// Bounds of an effective duration.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [schema::rule_at(
    ".max",
    "!has(self.min) || !has(self.max) || duration(self.min) <= duration(self.max)",
    "max must be at least as long as min: lengthen max, or shorten min",
)]))]
pub struct DurationBounds {
    /// The shortest duration, such as 1h (units s, m, h, d and w; no metav1.Duration). By default the bound of the
    /// configured default policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration", extend("x-kubernetes-validations" = schema::duration_rules("min")))]
    pub min: Option<String>,

    /// The longest duration, such as 365d (units s, m, h, d and w; no metav1.Duration). By default the bound of the
    /// configured default policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration", extend("x-kubernetes-validations" = schema::duration_rules("max")))]
    pub max: Option<String>,
}

/// Limits. A limit takes away nothing that exists when it is set.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyLimits {
    /// How many registrations of a namespace get a client. The older ones come first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100_000))]
    pub registrations_per_namespace: Option<u32>,

    /// How many credentials a registration may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 16))]
    pub credentials: Option<u32>,
}

/// Items that need a RegistrationApproval. A policy must allow them as well.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovalRequired {
    /// Scopes at the authorization server's default audience, as globs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub scopes: Vec<String>,

    /// APIs to call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "atomic"))]
    pub apis: Vec<ApiApprovalRule>,

    /// Audiences to serve, as globs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub served_audiences: Vec<String>,

    /// Customers, as globs. Where any customer or group needs an approval, a customerScope of type All needs it too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub customers: Vec<String>,

    /// Customer groups, as globs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::globs")]
    pub customer_groups: Vec<String>,

    /// Redirect URIs, by their hosts without port, as globs.
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

/// The report on a policy. A field that cannot be decoded counts as absent.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct RegistrationPolicyStatus {
    /// The generation of the spec that this status reports on; -1 before the first report.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The number of registrations that the policy selects.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub registrations: Option<i64>,

    /// The number of registrations that keep an item that this policy granted and that no policy allows any more.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub violations: Option<i64>,

    /// The first ten of these registrations, as namespace/name.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = MOST_NAMED_VIOLATIONS, "items" = schema::text(128)))]
    pub violating: Vec<String>,

    /// The condition Ready: whether the policy is understood and in force.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
