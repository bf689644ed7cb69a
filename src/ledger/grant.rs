//! The grant of a ledger entry: what a client may ask for, and by what each item was granted.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::api::{CustomerScopeType, GrantType, TokenEndpointAuthMethod};

/// Granted items, each with what granted it (`policy/<name>` or `approval/<name>`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, from = "StoredGrant")]
pub struct Grant {
    /// OAuth scopes (RFC 6749 §3.3) at the authorization server's default audience.
    pub scopes: BTreeMap<String, String>,
    /// The APIs that the client may call, by their audience (`aud` of RFC 9068, `resource` of RFC 8707).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub apis: BTreeMap<String, ApiGrant>,
    /// The API that is meant where a request names none: the first that the registration asks for, granted or not. None
    /// where it asks for no API, and the authorization server's default audience is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_audience: Option<String>,
    /// Redirect URIs (RFC 6749 §3.1.2).
    #[serde(rename = "redirectURIs")]
    pub redirect_uris: BTreeMap<String, String>,
    /// The customer scope that the registration asks for. Where there is one and nothing of it is granted, tokens say that
    /// the client may act for no customer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_scope: Option<CustomerScopeType>,
    /// Customers the client may act for; `*` stands for all.
    pub customers: BTreeMap<String, String>,
    /// Customer groups the client may act for.
    pub customer_groups: BTreeMap<String, String>,
    /// Audiences that the client serves: it may introspect tokens for them (RFC 7662).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub served_audiences: BTreeMap<String, String>,
    /// DNS names of the client's certificates.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dns_names: BTreeMap<String, String>,
    /// How the client may authenticate (RFC 7591 `token_endpoint_auth_method`).
    pub auth_methods: Vec<TokenEndpointAuthMethod>,
    /// The grants of RFC 6749 that the client may use; none in entries from before this was recorded, and means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant_types: Option<Vec<GrantType>>,
}

/// An API that a client may call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiGrant {
    /// What granted it.
    pub by: String,
    /// The scopes that are granted at it, and at no other, each with what granted it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scopes: BTreeMap<String, String>,
}

/// A grant as it is stored: of today's shape, or of the one before APIs had scopes of their own.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct StoredGrant {
    scopes: BTreeMap<String, String>,
    apis: BTreeMap<String, ApiGrant>,
    default_audience: Option<String>,
    #[serde(rename = "redirectURIs")]
    redirect_uris: BTreeMap<String, String>,
    customer_scope: Option<CustomerScopeType>,
    customers: BTreeMap<String, String>,
    customer_groups: BTreeMap<String, String>,
    #[serde(alias = "resourceAudiences")]
    served_audiences: BTreeMap<String, String>,
    dns_names: BTreeMap<String, String>,
    auth_methods: Vec<TokenEndpointAuthMethod>,
    grant_types: Option<Vec<GrantType>>,
    /// Until 2026-11: audiences to call, at each of which every scope counted.
    audiences: BTreeMap<String, String>,
}

impl From<StoredGrant> for Grant {
    fn from(stored: StoredGrant) -> Self {
        let StoredGrant { mut scopes, mut apis, mut default_audience, audiences, .. } = stored;
        if !audiences.is_empty() {
            // Tokens were for these audiences, and for the server's default audience never.
            let scopes = std::mem::take(&mut scopes);
            default_audience = default_audience.or_else(|| audiences.keys().next().cloned());
            apis.extend(
                audiences.into_iter().map(|(audience, by)| (audience, ApiGrant { by, scopes: scopes.clone() })),
            );
        }
        Self {
            scopes,
            apis,
            default_audience,
            redirect_uris: stored.redirect_uris,
            customer_scope: stored.customer_scope,
            customers: stored.customers,
            customer_groups: stored.customer_groups,
            served_audiences: stored.served_audiences,
            dns_names: stored.dns_names,
            auth_methods: stored.auth_methods,
            grant_types: stored.grant_types,
        }
    }
}

impl Grant {
    /// The scopes that the client has at an API, in their order; `None` where it may not call it.
    ///
    /// `server_audience` is the authorization server's default audience. The scopes of the top level are granted there; it
    /// may be called where it has scopes, or where the registration asks for no API.
    #[must_use]
    pub fn scopes_at(&self, audience: &str, server_audience: &str) -> Option<BTreeSet<&str>> {
        let of_api = self.apis.get(audience).map(|api| &api.scopes);
        let is_default = audience == server_audience && (!self.scopes.is_empty() || self.default_audience.is_none());
        let of_server = is_default.then_some(&self.scopes);
        let scopes = of_api.into_iter().chain(of_server).flat_map(BTreeMap::keys).map(String::as_str).collect();
        (of_api.is_some() || of_server.is_some()).then_some(scopes)
    }

    /// The API that is meant where none is named.
    #[must_use]
    pub fn audience_or<'a>(&'a self, server_audience: &'a str) -> &'a str {
        self.default_audience.as_deref().unwrap_or(server_audience)
    }

    /// The part of it that another grant has as well.
    #[must_use]
    pub fn within(mut self, other: &Self) -> Self {
        let keep = |items: &mut BTreeMap<String, String>, of: &BTreeMap<String, String>| {
            items.retain(|item, _| of.contains_key(item));
        };
        keep(&mut self.scopes, &other.scopes);
        self.apis.retain(|audience, api| {
            let of = other.apis.get(audience);
            of.inspect(|of| keep(&mut api.scopes, &of.scopes)).is_some()
        });
        keep(&mut self.redirect_uris, &other.redirect_uris);
        keep(&mut self.customers, &other.customers);
        keep(&mut self.customer_groups, &other.customer_groups);
        keep(&mut self.served_audiences, &other.served_audiences);
        keep(&mut self.dns_names, &other.dns_names);
        self
    }

    /// What granted each item.
    pub fn granted_by(&self) -> impl Iterator<Item = &String> {
        let Self { scopes, apis, served_audiences, redirect_uris, customers, customer_groups, dns_names, .. } = self;
        let lists = [scopes, served_audiences, redirect_uris, customers, customer_groups, dns_names];
        let of_apis = apis.values().flat_map(|api| std::iter::once(&api.by).chain(api.scopes.values()));
        lists.into_iter().flat_map(BTreeMap::values).chain(of_apis)
    }

    /// The claim `customers` of the client's tokens; `None` where tokens have no such claim.
    ///
    /// A customer scope that was asked for and of which nothing is granted is an empty list, so that an API never takes
    /// it for no restriction.
    #[must_use]
    pub fn customers_claim(&self) -> Option<Vec<String>> {
        let is_nothing = self.customers.is_empty() && self.customer_groups.is_empty();
        let has_claim = !self.customers.is_empty() || (is_nothing && self.customer_scope.is_some());
        has_claim.then(|| self.customers.keys().cloned().collect())
    }

    /// The claim `customer_groups` of the client's tokens; `None` where tokens have no such claim.
    #[must_use]
    pub fn customer_groups_claim(&self) -> Option<Vec<String>> {
        (!self.customer_groups.is_empty()).then(|| self.customer_groups.keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_those_of_one_api_and_the_top_level_is_the_servers_own() {
        let by = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "policy/p".to_owned())).collect();
        let grant = |scopes: &[&str], apis: &[(&str, &[&str])], first: Option<&str>| Grant {
            scopes: by(scopes),
            apis: apis
                .iter()
                .map(|(audience, scopes)| {
                    ((*audience).to_owned(), ApiGrant { by: "policy/p".into(), scopes: by(scopes) })
                })
                .collect(),
            default_audience: first.map(str::to_owned),
            ..Grant::default()
        };
        let at = |grant: &Grant, audience: &str| {
            grant.scopes_at(audience, "server").map(|scopes| scopes.into_iter().collect::<Vec<_>>().join(" "))
        };
        let some = |text: &str| Some(text.to_owned());
        let bare = grant(&[], &[], None);
        assert_eq!((at(&bare, "server"), at(&bare, "a")), (some(""), None));
        let top = grant(&["x"], &[], None);
        assert_eq!((at(&top, "server"), at(&top, "a")), (some("x"), None));
        let both = grant(&["x"], &[("a", &["y"]), ("server", &["z"])], Some("a"));
        assert_eq!((at(&both, "server"), at(&both, "a"), at(&both, "b")), (some("x z"), some("y"), None));
        let apis = grant(&[], &[("a", &["y"])], Some("a"));
        assert_eq!((at(&apis, "server"), at(&apis, "a")), (None, some("y")));
        let denied = grant(&[], &[], Some("a"));
        assert_eq!(
            (at(&denied, "server"), denied.audience_or("server")),
            (None, "a"),
            "nothing takes the place of an API"
        );
    }
}
