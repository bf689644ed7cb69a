//! An entry of `spec.credentials`: one credential, minted here, delivered and rotated, or given by who applies it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{PrivateKey, schema};

/// The name of the client secret that a registration without `credentials` gets.
pub const DEFAULT_CLIENT_SECRET_ENTRY: &str = "default";

/// The name of the access token that a registration without `credentials` gets.
pub const DEFAULT_TOKEN_ENTRY: &str = "token";

/// A credential of the application, of exactly one kind: clientSecret, certificate, accessToken, publicKey or
/// serviceAccount.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = entry_rules()))]
pub struct Entry {
    /// The name of the credential. Its kind and its secretName cannot change while this name is used.
    #[schemars(length(min = 1, max = 40), regex(pattern = schema::DNS_LABEL))]
    pub name: String,

    /// A description for people, such as the part of the application that uses the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,

    /// A duration such as 365d or 1h30m (units s, m, h, d and w; no metav1.Duration): how long one revision is valid.
    /// At most 1096d, for an access token 24h. By default 90d, for an access token 1h, unless the operator's
    /// configuration has other defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration", extend("x-kubernetes-validations" = schema::duration_rules("effectiveDuration")))]
    pub effective_duration: Option<String>,

    /// A duration such as 30d (units s, m, h, d and w), shorter than effectiveDuration: how long before its end a
    /// revision is replaced. By default a third of effectiveDuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration", extend("x-kubernetes-validations" = schema::duration_rules("renewBefore")))]
    pub renew_before: Option<String>,

    /// The Secret that the credential is written to. By default the registration's name, for an access token with
    /// -token appended. A certificate with a secretName has this Secret to itself, of type kubernetes.io/tls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub secret_name: Option<String>,

    /// Rotates every revision that was minted before this time; the old one stays accepted for the overlap. An RFC 3339
    /// time with an offset, such as 2026-11-22T07:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub rotate_minted_before: Option<String>,

    /// Revokes every revision that was minted before this time: it is replaced, and then rejected. An RFC 3339 time
    /// with an offset, such as 2026-11-22T07:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::time")]
    pub revoke_minted_before: Option<String>,

    /// A client secret (RFC 6749 section 2.3.1), without settings of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<ClientSecret>,

    /// A client certificate and its key (RFC 8705).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,

    /// An access token (RFC 9068), refreshed in its Secret before it expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<AccessToken>,

    /// A certificate or a public key whose private key the application already has (RFC 7591 jwks). It is accepted
    /// until its own end, and nothing is written to a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<PublicKey>,

    /// A ServiceAccount of the registration's namespace. Its projected tokens identify the application if their
    /// audience is the issuer of the authorization server. Nothing is written to a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccount>,
}

/// The rules about more than one field of an entry.
fn entry_rules() -> Value {
    json!([
        schema::rule(
            "[has(self.clientSecret), has(self.certificate), has(self.accessToken), has(self.publicKey), has(self.serviceAccount)].filter(x, x).size() == 1",
            "credentials must have exactly one of clientSecret, certificate, accessToken, publicKey and serviceAccount: remove the others, or add one",
        ),
        goes_with_minting("secretName", "which are not written to a Secret"),
        goes_with_minting("effectiveDuration", "whose duration cannot be chosen"),
        goes_with_minting("renewBefore", "which are not renewed"),
        goes_with_minting("rotateMintedBefore", "which are not rotated"),
        schema::rule_at(
            ".renewBefore",
            "!has(self.renewBefore) || has(self.effectiveDuration)",
            "effectiveDuration must be set where renewBefore is: set it too",
        ),
        schema::rule_at(
            ".renewBefore",
            "!has(self.renewBefore) || !has(self.effectiveDuration) || self.renewBefore < self.effectiveDuration",
            "renewBefore must be shorter than effectiveDuration: shorten it",
        ),
        schema::rule_at(
            ".effectiveDuration",
            "!has(self.accessToken) || !has(self.effectiveDuration) || self.effectiveDuration <= duration('24h')",
            "effectiveDuration must be at most 24h for an accessToken: shorten it",
        ),
        schema::fixed(
            "has(self.clientSecret) == has(oldSelf.clientSecret) && has(self.certificate) == has(oldSelf.certificate) && has(self.accessToken) == has(oldSelf.accessToken) && has(self.publicKey) == has(oldSelf.publicKey) && has(self.serviceAccount) == has(oldSelf.serviceAccount)",
            ".name",
            "the kind of a credential must stay as it was: give the new credential another name",
        ),
        schema::fixed(
            "has(self.secretName) == has(oldSelf.secretName) && (!has(self.secretName) || self.secretName == oldSelf.secretName)",
            ".secretName",
            "secretName must stay as it was: give the new credential another name",
        ),
    ])
}

/// The rule that a field is for what is minted here.
fn goes_with_minting(field: &str, why: &str) -> Value {
    schema::rule_at(
        &format!(".{field}"),
        &format!("!has(self.{field}) || !(has(self.publicKey) || has(self.serviceAccount))"),
        &format!("{field} must not be set for publicKey or serviceAccount, {why}: remove it"),
    )
}

/// A client secret has no settings of its own.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSecret {}

/// What a client certificate is made of.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The algorithm and size of its private key. By default ECDSA with 256 bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PrivateKey>,

    /// DNS names in the certificate. A policy must allow each of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 32, "x-kubernetes-list-type" = "set", "items" = schema::dns_name()))]
    pub dns_names: Vec<String>,
}

/// The API that an access token is for, and its scopes there.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessToken {
    /// The audience of the API that the token is for: one of apis, or the server's default audience. By default the
    /// first of apis; without apis, the server's default audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::audience")]
    pub audience: Option<String>,

    /// The scopes of the token. By default all that are granted at its audience.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("maxItems" = 64, "x-kubernetes-list-type" = "set", "items" = schema::scope()))]
    pub scopes: Vec<String>,
}

/// A certificate or a public key, as a file that is written here. Never a private key.
#[derive(JsonSchema, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = public_key_rules()))]
pub struct PublicKey {
    /// One certificate (BEGIN CERTIFICATE) or one public key (BEGIN PUBLIC KEY) in PEM: ECDSA P-256 or P-384, Ed25519,
    /// or RSA of 2048 to 4096 bits. Never a private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12288))]
    pub pem: Option<String>,

    /// A certificate or public key in DER, as base64: the output of base64 -w0 app.cer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 12288))]
    pub der: Option<String>,
}

/// The rules of a [`PublicKey`]. What is refused is never repeated in the answer: it may be a private key.
fn public_key_rules() -> Value {
    let refused = |field: &str, expression: &str, message: &str| json!({"rule": expression, "message": message, "fieldPath": field, "reason": "FieldValueForbidden"});
    json!([
        schema::rule(
            "has(self.pem) != has(self.der)",
            "publicKey must have exactly one of pem and der: remove the other, or add one"
        ),
        refused(
            ".pem",
            "!has(self.pem) || !self.pem.contains('PRIVATE KEY')",
            "pem must not be a private key: remove it, and treat it as leaked",
        ),
        refused(
            ".pem",
            "!has(self.pem) || self.pem.contains('PRIVATE KEY') || self.pem.contains('-----BEGIN CERTIFICATE-----') || self.pem.contains('-----BEGIN PUBLIC KEY-----')",
            "pem must have a certificate (-----BEGIN CERTIFICATE-----) or a public key (-----BEGIN PUBLIC KEY-----) in PEM: write one",
        ),
        refused(
            ".der",
            "!has(self.der) || !self.der.contains('PRIVATE KEY')",
            "der must not be a private key: remove it, and treat it as leaked",
        ),
        refused(
            ".der",
            r#"!has(self.der) || self.der.contains('PRIVATE KEY') || self.der.matches(r"^[A-Za-z0-9+/\s]+={0,2}\s*$")"#,
            "der must be a file in base64: write the output of base64 -w0 app.cer, or move a text that begins with -----BEGIN into pem",
        ),
    ])
}

/// A ServiceAccount of the registration's namespace.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccount {
    /// The name of the ServiceAccount. It need not exist yet.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DNS_SUBDOMAIN))]
    pub name: String,
}

/// The kinds of credentials, without their settings.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[schemars(transform = schema::without_description)]
pub enum Kind {
    /// A client secret.
    ClientSecret,
    /// A client certificate and its key.
    Certificate,
    /// An access token.
    AccessToken,
    /// A certificate or a public key that was made elsewhere.
    PublicKey,
    /// A ServiceAccount of the registration's namespace.
    ServiceAccount,
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
    /// A certificate or a public key that was made elsewhere.
    PublicKey(&'a PublicKey),
    /// A ServiceAccount of the registration's namespace.
    ServiceAccount(&'a ServiceAccount),
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
            public_key,
            service_account,
        } = self;
        let mut written = [
            client_secret.as_ref().map(KindSpec::ClientSecret),
            certificate.as_ref().map(KindSpec::Certificate),
            access_token.as_ref().map(KindSpec::AccessToken),
            public_key.as_ref().map(KindSpec::PublicKey),
            service_account.as_ref().map(KindSpec::ServiceAccount),
        ]
        .into_iter()
        .flatten();
        written.next().filter(|_| written.next().is_none())
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

/// The name of the Secret that an entry of the named registration is written to; `None` for a kind that is given and
/// not delivered.
#[must_use]
pub fn secret_name(entry: &Entry, registration_name: &str) -> Option<String> {
    match (entry.kind(), &entry.secret_name) {
        (Some(Kind::PublicKey | Kind::ServiceAccount), _) => None,
        (Some(Kind::ClientSecret | Kind::Certificate | Kind::AccessToken) | None, Some(name)) => Some(name.clone()),
        (Some(Kind::AccessToken), None) => Some(format!("{registration_name}-token")),
        (Some(Kind::ClientSecret | Kind::Certificate) | None, None) => Some(registration_name.to_owned()),
    }
}

/// How long what was written is, and not what: it may be a private key that somebody took for a public one.
impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |text: &Option<String>| text.as_ref().map(|text| format!("{} characters", text.len()));
        out.debug_struct("PublicKey").field("pem", &length(&self.pem)).field("der", &length(&self.der)).finish()
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
            Self::PublicKey(_) => Kind::PublicKey,
            Self::ServiceAccount(_) => Kind::ServiceAccount,
        }
    }
}

impl Kind {
    /// Every kind, in the order of the fields.
    pub const ALL: [Self; 5] =
        [Self::ClientSecret, Self::Certificate, Self::AccessToken, Self::PublicKey, Self::ServiceAccount];

    /// The name of the entry's field. In lists of kinds it begins with a capital letter, as enumerations of Kubernetes do.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecret => "clientSecret",
            Self::Certificate => "certificate",
            Self::AccessToken => "accessToken",
            Self::PublicKey => "publicKey",
            Self::ServiceAccount => "serviceAccount",
        }
    }
}

impl fmt::Display for Kind {
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
            (json!({"name": "a", "certificate": {"privateKey": {"algorithm": "RSA"}}}), Some(Kind::Certificate)),
            (json!({"name": "a", "accessToken": {"scopes": ["x"]}}), Some(Kind::AccessToken)),
            (json!({"name": "a", "publicKey": {"der": "MA=="}}), Some(Kind::PublicKey)),
            (json!({"name": "a", "serviceAccount": {"name": "shop"}}), Some(Kind::ServiceAccount)),
            (json!({"name": "a", "hologram": {"colour": "blue"}}), None),
            (json!({"name": "a", "clientSecret": {}, "certificate": {}}), None),
        ] {
            assert_eq!(entry(json.clone()).kind(), kind, "{json}");
        }
    }

    #[test]
    fn a_secret_is_named_like_the_registration_that_of_a_token_has_an_ending_and_what_is_given_has_none() {
        for (json, name) in [
            (json!({"name": "a", "clientSecret": {}}), Some("shop")),
            (json!({"name": "a", "certificate": {}}), Some("shop")),
            (json!({"name": "a", "accessToken": {}}), Some("shop-token")),
            (json!({"name": "a", "accessToken": {}, "secretName": "own"}), Some("own")),
            (json!({"name": "a", "publicKey": {}}), None),
            (json!({"name": "a", "serviceAccount": {"name": "shop"}, "secretName": "own"}), None),
        ] {
            assert_eq!(secret_name(&entry(json.clone()), "shop").as_deref(), name, "{json}");
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
    fn debug_does_not_repeat_what_was_uploaded() {
        let key = PublicKey { pem: Some("-----BEGIN PRIVATE KEY-----canary".into()), der: Some("canary".into()) };
        let text = format!("{key:?}");
        assert_eq!(text, r#"PublicKey { pem: Some("33 characters"), der: Some("6 characters") }"#);
    }

    #[test]
    fn names_are_those_of_the_schema() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), format!("{kind:?}"));
            let entry = entry(json!({"name": "a", kind.as_str(): {"name": "needed by a ServiceAccount"}}));
            assert_eq!(entry.kind(), Some(kind));
        }
    }
}
