//! `RegistrationApproval`: a second pair of eyes, as an object.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::schema;

/// The items of one registration that are approved: exactly these, without globs. To revoke an approval, delete it, or
/// remove items from it.
///
/// A field that this version does not know makes the approval unreadable, because it might be a condition.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "appreg.dev",
    version = "v1alpha1",
    kind = "RegistrationApproval",
    doc = "The approval of items that one registration asks for, where a policy requires it.",
    derive = "PartialEq",
    shortname = "regapp",
    validation = Rule::new("self.metadata.name.size() <= 127").message("metadata.name must have at most 127 characters: shorten it"),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.registrationRef.namespace"),
    printcolumn(name = "Registration", type_ = "string", json_path = ".spec.registrationRef.name"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".spec.expirationTime"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct RegistrationApprovalSpec {
    /// The registration that the approval is for. Immutable.
    pub registration_ref: RegistrationRef,

    /// Why it is approved, and by whom, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// The approved scopes at the authorization server's default audience.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set", "items" = schema::scope()))]
    pub scopes: Vec<String>,

    /// The approved APIs to call, each with the scopes that are approved there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["audience"]))]
    pub apis: Vec<ApprovedApi>,

    /// The approved audiences to serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "set", "items" = schema::audience_value()))]
    pub served_audiences: Vec<String>,

    /// The approved customers; * is all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set", "items" = schema::approved_customer()))]
    pub customers: Vec<String>,

    /// The approved customer groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set", "items" = schema::approved_customer()))]
    pub customer_groups: Vec<String>,

    /// The approved redirect URIs, in full.
    #[serde(rename = "redirectURIs", default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set", "items" = schema::redirect_uri("redirectURIs")))]
    pub redirect_uris: Vec<String>,

    /// When the approval ends, and with it the items that it grants. By default never. An RFC 3339 time with an offset,
    /// such as 2027-01-01T00:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub expiration_time: Option<String>,
}

/// An API that may be called, with the scopes that are approved there.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApprovedApi {
    /// The audience of the API.
    #[schemars(schema_with = "schema::audience")]
    pub audience: String,

    /// The scopes that are approved at it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set", "items" = schema::scope()))]
    pub scopes: Vec<String>,
}

/// A reference to a registration.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistrationRef {
    /// The namespace of the registration.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_LABEL))]
    pub namespace: String,

    /// The name of the registration.
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,

    /// The metadata.uid of the registration. With it, the approval is for this one object, and not for another one that
    /// is created under the same name later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub uid: Option<String>,
}

fn rules() -> Value {
    const ITEMS: [&str; 6] = ["scopes", "apis", "servedAudiences", "customers", "customerGroups", "redirectURIs"];
    let has_one = ITEMS.map(|list| format!("has(self.{list}) && self.{list}.size() > 0")).join(" || ");
    json!([
        schema::rule(&has_one, &format!("spec must approve something: list items in one of {}", ITEMS.join(", "))),
        schema::fixed(
            "self.registrationRef == oldSelf.registrationRef",
            ".registrationRef",
            "registrationRef must stay as it was, because an approval for one registration is none for another: put it back, and create a second approval",
        ),
    ])
}
