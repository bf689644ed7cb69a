//! The fields of the Secrets that appreg writes: an interface that applications read.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::schema;

/// Declares [`SecretField`] so that a name is written down once.
macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A field of a Secret, by its name there.
        #[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[schemars(transform = schema::without_description)]
        pub enum SecretField {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl SecretField {
            /// Every field.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The field's name in a Secret.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

fields! {
    /// The client identifier.
    ClientId = "client_id",
    /// The current client secret.
    ClientSecret = "client_secret",
    /// The client secret before, while it is still accepted.
    PreviousClientSecret = "previous_client_secret",
    /// The certificate in PEM.
    Certificate = "tls.crt",
    /// Its private key in PEM (PKCS#8).
    PrivateKey = "tls.key",
    /// The certificate authorities of `tls.crt` in PEM.
    Ca = "ca.crt",
    /// The access token.
    AccessToken = "access_token",
    /// Always `Bearer`.
    TokenType = "token_type",
    /// The access token's end as Unix seconds, decimal.
    ExpiresAt = "expires_at",
    /// The access token's scopes, separated by spaces.
    Scope = "scope",
    /// The issuer identifier of the authorization server.
    Issuer = "issuer",
    /// Its token endpoint.
    TokenEndpoint = "token_endpoint",
    /// Its JWKS.
    JwksUri = "jwks_uri",
    /// How the application identifies itself there.
    TokenEndpointAuthMethod = "token_endpoint_auth_method",
    /// The certificate authorities of the token endpoint in PEM.
    IssuerCa = "issuer_ca.crt",
}

impl SecretField {
    /// The field of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.as_str() == name)
    }
}

impl fmt::Display for SecretField {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// The rules of the names in `secretTemplate.fields`.
pub(super) fn rules() -> Value {
    let ours = SecretField::ALL.iter().map(|field| format!("'{field}'")).collect::<Vec<_>>().join(", ");
    json!([
        schema::rule(
            r#"self.all(name, name.matches(r"^\.?[-_a-zA-Z0-9][-._a-zA-Z0-9]{0,251}$"))"#,
            "names of fields must be at most 252 letters, digits, dots, dashes and underscores, as in every Secret: rename the field",
        ),
        {
            "rule": format!("self.all(name, !(name in [{ours}]))"),
            "message": format!("names of fields must be other ones than those that appreg writes ({}): rename the field", ours.replace('\'', "")),
            "messageExpression": format!(
                "self.filter(name, name in [{ours}]).map(name, 'the field ' + name + ' must have another name, because it would stand beside the ' + name + ' that appreg writes: rename it')[0]"
            ),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_schema_and_are_found_again() {
        for field in SecretField::ALL {
            assert_eq!(serde_json::to_value(field).unwrap(), field.as_str());
            assert_eq!(SecretField::named(field.as_str()), Some(*field));
        }
        assert_eq!(SecretField::named("CLIENT_ID"), None);
    }
}
