//! The public fields that every Secret carries: the client ID and how to reach the authorization server.

use std::collections::BTreeMap;

use crate::api::TokenEndpointAuthMethod;
use crate::credential::{certificate, field, shape_of};

use crate::signer::ca::CaIndex;

use super::facts::Environment;

/// The public fields of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The fields and their text.
    pub fields: BTreeMap<&'static str, String>,
}

/// The connection of a client. `bundle` is the text of the token endpoint's authorities that are valid now.
#[must_use]
pub(super) fn of(
    environment: &Environment,
    client_id: &str,
    method: Option<TokenEndpointAuthMethod>,
    bundle: &str,
) -> Connection {
    let server = &environment.server;
    let mut fields = BTreeMap::from([
        (field::CLIENT_ID, client_id.to_owned()),
        (field::ISSUER, server.issuer.clone()),
        (field::TOKEN_ENDPOINT, server.token_endpoint()),
        (field::JWKS_URI, server.jwks_uri()),
        (field::ISSUER_CA, bundle.to_owned()),
    ]);
    if let Some(method) = method {
        fields.insert(field::TOKEN_ENDPOINT_AUTH_METHOD, method.as_str().to_owned());
    }
    Connection { fields }
}

impl Connection {
    /// A comparison of the fields as they should be.
    #[must_use]
    pub fn digest(&self, environment: &Environment) -> String {
        digest(environment, &self.fields.iter().map(|(name, text)| (*name, text.as_str())).collect())
    }
}

/// A comparison of the fields as they are. Of the authorities only the one that signs now counts: a new one in the
/// bundle is carried out by ordinary renewals, not by writing every Secret at once.
#[must_use]
pub(super) fn digest(environment: &Environment, fields: &BTreeMap<&str, &str>) -> String {
    let text = |name| fields.get(name).copied().unwrap_or_default();
    let authorities = &environment.endpoint_authorities;
    let authority = match authorities.all().first() {
        Some(ca) if trusts(authorities, text(field::ISSUER_CA)) => ca.id.as_str(),
        Some(_) => "missing",
        None => "none",
    };
    shape_of([
        text(field::CLIENT_ID),
        text(field::ISSUER),
        text(field::TOKEN_ENDPOINT),
        text(field::JWKS_URI),
        text(field::TOKEN_ENDPOINT_AUTH_METHOD),
        authority,
    ])
}

/// Whether a bundle has the authority that signs now; true while there is none.
pub(super) fn trusts(authorities: &CaIndex, bundle: &str) -> bool {
    authorities.all().first().is_none_or(|ca| certificate::contains_ca(bundle, &ca.certificate))
}
