//! An entry of `spec.credentials`: one credential that is minted, delivered and rotated.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::schema;

/// The name of the client secret that a registration without `credentials` gets.
pub const DEFAULT_CLIENT_SECRET_ENTRY: &str = "default";

/// The name of the access token that a registration without `credentials` gets.
pub const DEFAULT_TOKEN_ENTRY: &str = "token";

/// A credential of the application, of exactly one kind.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = entry_rules()))]
pub struct Entry {
    /// Names the credential; its kind and its secretName are fixed for as long as the name is used.
    #[schemars(length(min = 1, max = 40), regex(pattern = schema::DNS_LABEL))]
    pub name: String,

    /// For people: who or what uses this credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// How long one revision is valid, such as 365d or 1h30m. At most 1096d, an access token at most 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub effective_duration: Option<String>,

    /// How long before its end a revision is replaced; by default a third of effectiveDuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub renew_before: Option<String>,

    /// The Secret that the credential is written to; by default the registration's name, for an access
    /// token with "-token" appended. A certificate with a secretName has this Secret, of type
    /// kubernetes.io/tls, to itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub secret_name: Option<String>,

    /// Replaces, with overlap, every revision minted before this time (RFC 3339 with offset).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub rotate_minted_before: Option<String>,

    /// Replaces, and then refuses, every revision minted before this time (RFC 3339 with offset).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub revoke_minted_before: Option<String>,

    /// A client secret (RFC 6749 section 2.3.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<ClientSecret>,

    /// A client certificate and its key (RFC 8705).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,

    /// An access token (RFC 9068), refreshed in its Secret before it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<AccessToken>,
}

/// The rules about more than one field of an entry.
fn entry_rules() -> Value {
    json!([
        schema::rule(
            "[has(self.clientSecret), has(self.certificate), has(self.accessToken)].filter(x, x).size() == 1",
            "write exactly one of clientSecret, certificate and accessToken",
        ),
        schema::rule_at(
            ".renewBefore",
            "!has(self.renewBefore) || has(self.effectiveDuration)",
            "renewBefore needs effectiveDuration: set it too",
        ),
        schema::rule_at(
            ".renewBefore",
            "!has(self.renewBefore) || !has(self.effectiveDuration) || self.renewBefore < self.effectiveDuration",
            "renewBefore must be shorter than effectiveDuration: shorten it",
        ),
        schema::rule_at(
            ".effectiveDuration",
            "!has(self.accessToken) || !has(self.effectiveDuration) || self.effectiveDuration <= duration('24h')",
            "an accessToken lives at most 24h: shorten effectiveDuration",
        ),
        schema::fixed(
            "has(self.clientSecret) == has(oldSelf.clientSecret) && has(self.certificate) == has(oldSelf.certificate) && has(self.accessToken) == has(oldSelf.accessToken)",
            ".name",
            "the kind of a credential is fixed for its name: give the new one another name",
        ),
        schema::fixed(
            "has(self.secretName) == has(oldSelf.secretName) && (!has(self.secretName) || self.secretName == oldSelf.secretName)",
            ".secretName",
            "secretName is fixed for the name of a credential: give the new one another name",
        ),
    ])
}

/// A client secret has no settings of its own.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSecret {}

/// What a client certificate is made of.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The algorithm and size of the key; by default ECDSAP256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_type: Option<KeyType>,

    /// DNS names in the certificate, as far as a policy allows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "set", "items" = schema::dns_name()))]
    pub dns_names: Vec<String>,
}

/// What an access token is good for.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessToken {
    /// The token's scopes; by default all that are granted to the registration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set", "items" = schema::scope()))]
    pub scopes: Vec<String>,

    /// The token's audiences; by default all that are granted to the registration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 16, "x-kubernetes-list-type" = "set", "items" = schema::audience()))]
    pub audiences: Vec<String>,
}

/// The algorithm and size of a certificate's key.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[schemars(transform = schema::without_description)]
pub enum KeyType {
    /// ECDSA on the curve P-256.
    #[default]
    #[serde(rename = "ECDSAP256")]
    EcdsaP256,
    /// ECDSA on the curve P-384.
    #[serde(rename = "ECDSAP384")]
    EcdsaP384,
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// RSA with 2048 bits.
    #[serde(rename = "RSA2048")]
    Rsa2048,
    /// RSA with 3072 bits.
    #[serde(rename = "RSA3072")]
    Rsa3072,
    /// RSA with 4096 bits.
    #[serde(rename = "RSA4096")]
    Rsa4096,
}

/// The kinds of credentials, without their settings.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::without_description)]
pub enum Kind {
    /// A client secret.
    ClientSecret,
    /// A client certificate and its key.
    Certificate,
    /// An access token.
    AccessToken,
}

/// The kind of an entry with its settings: what a `match` that treats every kind matches on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KindSpec<'a> {
    /// A client secret.
    ClientSecret(&'a ClientSecret),
    /// A client certificate and its key.
    Certificate(&'a Certificate),
    /// An access token.
    AccessToken(&'a AccessToken),
}

impl Entry {
    /// The entry's kind; `None` for a kind that a later version of appreg has stored.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        self.kind_spec().map(KindSpec::kind)
    }

    /// The entry's kind with its settings; `None` for a kind that a later version of appreg has stored.
    ///
    /// The API server refuses more than one; should there be more, they are as unknown as none.
    #[must_use]
    pub fn kind_spec(&self) -> Option<KindSpec<'_>> {
        // In full: the compiler asks here what a new field is.
        let Self {
            name: _,
            description: _,
            effective_duration: _,
            renew_before: _,
            secret_name: _,
            rotate_minted_before: _,
            revoke_minted_before: _,
            client_secret,
            certificate,
            access_token,
        } = self;
        match (client_secret, certificate, access_token) {
            (Some(client_secret), None, None) => Some(KindSpec::ClientSecret(client_secret)),
            (None, Some(certificate), None) => Some(KindSpec::Certificate(certificate)),
            (None, None, Some(access_token)) => Some(KindSpec::AccessToken(access_token)),
            (None, None, None) | (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => None,
        }
    }

    /// The entries of a registration whose `credentials` are omitted.
    pub(super) fn defaults() -> [Self; 2] {
        [
            Self {
                name: DEFAULT_CLIENT_SECRET_ENTRY.to_owned(),
                client_secret: Some(ClientSecret::default()),
                ..Self::default()
            },
            Self {
                name: DEFAULT_TOKEN_ENTRY.to_owned(),
                access_token: Some(AccessToken::default()),
                ..Self::default()
            },
        ]
    }
}

/// The name of the Secret that an entry of the named registration is written to.
#[must_use]
pub fn secret_name(entry: &Entry, registration_name: &str) -> String {
    match (&entry.secret_name, entry.kind()) {
        (Some(name), _) => name.clone(),
        (None, Some(Kind::AccessToken)) => format!("{registration_name}-token"),
        (None, Some(Kind::ClientSecret | Kind::Certificate) | None) => registration_name.to_owned(),
    }
}

impl KindSpec<'_> {
    /// The kind without its settings.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::ClientSecret(_) => Kind::ClientSecret,
            Self::Certificate(_) => Kind::Certificate,
            Self::AccessToken(_) => Kind::AccessToken,
        }
    }
}

impl Kind {
    /// Every kind, in the order of the fields.
    pub const ALL: [Self; 3] = [Self::ClientSecret, Self::Certificate, Self::AccessToken];

    /// The kind as users write it: the name of the entry's field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecret => "clientSecret",
            Self::Certificate => "certificate",
            Self::AccessToken => "accessToken",
        }
    }
}

impl KeyType {
    /// Every key type.
    pub const ALL: [Self; 6] =
        [Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    /// The key type as users write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ECDSAP256",
            Self::EcdsaP384 => "ECDSAP384",
            Self::Ed25519 => "Ed25519",
            Self::Rsa2048 => "RSA2048",
            Self::Rsa3072 => "RSA3072",
            Self::Rsa4096 => "RSA4096",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(json: Value) -> Entry {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn an_entry_has_the_kind_whose_settings_it_has() {
        for (json, kind) in [
            (json!({"name": "a", "clientSecret": {}}), Some(Kind::ClientSecret)),
            (json!({"name": "a", "certificate": {"keyType": "RSA4096"}}), Some(Kind::Certificate)),
            (json!({"name": "a", "accessToken": {"scopes": ["x"]}}), Some(Kind::AccessToken)),
            (json!({"name": "a", "hologram": {"colour": "blue"}}), None),
            (json!({"name": "a", "clientSecret": {}, "certificate": {}}), None),
        ] {
            assert_eq!(entry(json.clone()).kind(), kind, "{json}");
        }
    }

    #[test]
    fn a_secret_is_named_like_the_registration_and_that_of_a_token_has_an_ending() {
        for (json, name) in [
            (json!({"name": "a", "clientSecret": {}}), "shop"),
            (json!({"name": "a", "certificate": {}}), "shop"),
            (json!({"name": "a", "accessToken": {}}), "shop-token"),
            (json!({"name": "a", "accessToken": {}, "secretName": "own"}), "own"),
        ] {
            assert_eq!(secret_name(&entry(json.clone()), "shop"), name, "{json}");
        }
    }

    #[test]
    fn odd_durations_and_times_decode_and_are_the_problem_of_their_field() {
        let odd =
            entry(json!({"name": "a", "effectiveDuration": "P1Y", "rotateMintedBefore": "now", "clientSecret": {}}));
        assert_eq!(odd.effective_duration.as_deref(), Some("P1Y"));
        assert_eq!(odd.rotate_minted_before.as_deref(), Some("now"));
    }

    #[test]
    fn names_are_those_of_the_schema() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.to_string());
            let entry = entry(json!({"name": "a", kind.as_str(): {}}));
            assert_eq!(entry.kind(), Some(kind));
        }
        for key_type in KeyType::ALL {
            assert_eq!(serde_json::to_value(key_type).unwrap(), key_type.to_string());
        }
    }
}
