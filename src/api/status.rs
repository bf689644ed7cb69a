//! The report on a registration: derived, never trusted, never a reason not to read the registration.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use super::{Kind, StatusTime, schema};

/// The report on a registration. A field that cannot be decoded counts as absent: the next report replaces it.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("default" = {"observedGeneration": -1}))]
pub struct AppRegistrationStatus {
    /// The generation of the spec that this status reports on; -1 before the first report.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The client ID at the authorization server (RFC 7591 client_id).
    #[serde(
        rename = "clientID",
        default,
        deserialize_with = "decoded_or_default",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 256))]
    pub client_id: Option<String>,

    /// The authorization server that accepts the credentials.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub authorization_server: Option<ServerInUse>,

    /// The items that are granted of those that the spec asks for.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub granted: Option<Granted>,

    /// The credentials, with their effective settings and revisions.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub credentials: Vec<CredentialStatus>,

    /// The Secrets as the controller last saw them in order, so that a restart needs no requests.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub secrets: Vec<SecretStatus>,

    /// When the next rotation, or another change by itself, is due. Access tokens do not count.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub next_rotation_time: Option<StatusTime>,

    /// The conditions Ready and Approved, and Reconciling or Stalled where it is True.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// Where the credentials are accepted.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerInUse {
    /// The name of the authorization server.
    #[schemars(length(max = 63))]
    pub name: String,

    /// The issuer identifier (RFC 8414).
    #[schemars(length(max = 2048))]
    pub issuer: String,

    /// The token endpoint (RFC 6749 section 3.2).
    #[schemars(length(max = 2048))]
    pub token_endpoint: String,
}

/// What is granted.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Granted {
    /// The scopes at the server's default audience.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "items" = schema::text(128)))]
    pub scopes: Vec<String>,

    /// The APIs, each with the scopes that are granted there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16))]
    pub apis: Vec<GrantedApi>,

    /// The audiences that the application serves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "items" = schema::text(256)))]
    pub served_audiences: Vec<String>,

    /// The redirect URIs.
    #[serde(rename = "redirectURIs", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "items" = schema::text(2048)))]
    pub redirect_uris: Vec<String>,

    /// The customers; * is all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "items" = schema::text(128)))]
    pub customers: Vec<String>,

    /// The groups of customers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "items" = schema::text(128)))]
    pub customer_groups: Vec<String>,
}

/// An API that may be called, with the scopes that are granted there.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantedApi {
    /// The audience of the API.
    #[schemars(length(max = 256))]
    pub audience: String,

    /// The scopes that are granted at it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "items" = schema::text(128)))]
    pub scopes: Vec<String>,
}

/// A credential: its effective settings, and the revisions that are accepted.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// The name of the credential.
    #[schemars(length(max = 40))]
    pub name: String,

    /// The kind of the credential.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,

    /// The Secret that holds the credential. A publicKey and a serviceAccount have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub secret_name: Option<String>,

    /// How long a revision is valid, after defaults and policies; for an access token, its lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub effective_duration: Option<String>,

    /// How long before its end a revision is replaced, after defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub renew_before: Option<String>,

    /// How long the previous revision stays accepted beside the current one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub overlap: Option<String>,

    /// The scopes of an access token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "items" = schema::text(128)))]
    pub scopes: Vec<String>,

    /// The audience of an access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub audience: Option<String>,

    /// The sub of the tokens of a serviceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 384))]
    pub subject: Option<String>,

    /// The revision that the Secret holds. For a publicKey, the revision of the key in the spec if it was ever
    /// accepted, else the one that is accepted.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub current: Option<RevisionStatus>,

    /// The previous revision, while it is still accepted.
    #[serde(default, deserialize_with = "decoded_or_default", skip_serializing_if = "Option::is_none")]
    pub previous: Option<RevisionStatus>,
}

/// One revision of a credential.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionStatus {
    /// The number of the revision, counted from 1 for each credential.
    #[schemars(range(min = 1), extend("format" = "int64"))]
    pub revision: u64,

    /// The first characters of a client secret: enough to recognize it, not to use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub hint: Option<String>,

    /// The SHA-256 thumbprint of a certificate (RFC 8705 section 3.1), or of a public key without a certificate (RFC
    /// 7638).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub thumbprint: Option<String>,

    /// When the revision was minted; for a publicKey, when it was first accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minted_time: Option<StatusTime>,

    /// When the validity of the revision ends. Absent if it has no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<StatusTime>,

    /// When the revision is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal_time: Option<StatusTime>,

    /// Until when a previous revision is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_until_time: Option<StatusTime>,
}

/// A Secret as the controller last saw it in order.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretStatus {
    /// The name of the Secret.
    #[schemars(length(max = 253))]
    pub name: String,

    /// Its metadata.resourceVersion.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub resource_version: String,
}

/// Decodes a value; one that does not decode counts as absent.
pub(super) fn decoded_or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// The types of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConditionType {
    /// Every published credential is accepted now.
    Ready,
    /// All that is asked for is granted.
    Approved,
    /// Present only when True: not fulfilled yet, and worked on or waited for.
    Reconciling,
    /// Present only when True: a person must act.
    Stalled,
}

impl ConditionType {
    /// Every type, in the order in which a status lists them.
    pub const ALL: [Self; 4] = [Self::Ready, Self::Approved, Self::Reconciling, Self::Stalled];

    /// The type as it stands in a condition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Approved => "Approved",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_does_not_decode_is_absent_and_the_others_are_read() {
        let status: AppRegistrationStatus = serde_json::from_value(json!({
            "observedGeneration": 3,
            "clientID": 7,
            "credentials": [{"name": "a", "kind": "hologram", "current": {"revision": "first"}}],
            "nextRotationTime": "soon",
            "conditions": [{"type": "Ready"}],
            "added": {"in": "a later version"},
        }))
        .unwrap();
        let credential = CredentialStatus { name: "a".to_owned(), ..CredentialStatus::default() };
        let expected = AppRegistrationStatus {
            observed_generation: Some(3),
            credentials: vec![credential],
            ..AppRegistrationStatus::default()
        };
        assert_eq!(status, expected);
    }

    #[test]
    fn condition_types_are_what_serde_says() {
        for condition in ConditionType::ALL {
            assert_eq!(serde_json::to_value(condition).unwrap(), condition.to_string());
        }
    }
}
