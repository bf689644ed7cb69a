//! One item that a registration asks for by name: what it is, where it is asked for, allowed, approved and recorded.

use std::collections::BTreeMap;
use std::fmt;

use crate::api::{AppRegistrationSpec, CustomerScopeType, KindSpec, RegistrationApprovalSpec};
use crate::ledger::{ApiGrant, Grant};

/// The item that stands for all customers.
pub const ALL_CUSTOMERS: &str = "*";

/// The kinds of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ItemKind {
    /// Scopes at the authorization server's default audience.
    Scope,
    /// APIs to call, by their audience.
    Api,
    /// Scopes at an API.
    ApiScope,
    /// Audiences to serve.
    ServedAudience,
    /// Redirect URIs.
    RedirectUri,
    /// Customers; [`ALL_CUSTOMERS`] is all of them.
    Customer,
    /// Customer groups.
    CustomerGroup,
    /// DNS names of certificates.
    DnsName,
}

/// One item that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// The API that a scope belongs to; of [`ItemKind::ApiScope`] alone.
    pub audience: Option<String>,
    /// Its name: never a credential.
    pub name: String,
}

impl ItemKind {
    /// Every kind, in the order of a request.
    pub const ALL: [Self; 8] = [
        Self::Scope,
        Self::Api,
        Self::ApiScope,
        Self::ServedAudience,
        Self::RedirectUri,
        Self::Customer,
        Self::CustomerGroup,
        Self::DnsName,
    ];

    /// The field of a policy, and of an approval if it has one, that lists it, below `spec`.
    #[must_use]
    pub const fn list(self) -> &'static str {
        match self {
            Self::Scope => "scopes",
            Self::Api | Self::ApiScope => "apis",
            Self::ServedAudience => "servedAudiences",
            Self::RedirectUri => "redirectURIs",
            Self::Customer => "customers",
            Self::CustomerGroup => "customerGroups",
            Self::DnsName => "dnsNames",
        }
    }
}

impl Item {
    /// An item that belongs to no API.
    #[must_use]
    pub fn new(kind: ItemKind, name: &str) -> Self {
        Self { kind, audience: None, name: name.to_owned() }
    }

    /// A scope at an API.
    #[must_use]
    pub fn api_scope(audience: &str, scope: &str) -> Self {
        Self { kind: ItemKind::ApiScope, audience: Some(audience.to_owned()), name: scope.to_owned() }
    }

    /// Everything that a registration asks for, each item once. An API comes before its scopes.
    #[must_use]
    pub fn asked(spec: &AppRegistrationSpec) -> Vec<Self> {
        let items = |kind, names: &[String]| names.iter().map(|name| Self::new(kind, name)).collect::<Vec<_>>();
        let mut asked = items(ItemKind::Scope, &spec.scopes);
        for api in &spec.apis {
            asked.push(Self::new(ItemKind::Api, &api.audience));
            asked.extend(api.scopes.iter().map(|scope| Self::api_scope(&api.audience, scope)));
        }
        asked.extend(items(ItemKind::ServedAudience, &spec.served_audiences));
        asked.extend(items(ItemKind::RedirectUri, &spec.redirect_uris));
        if let Some(scope) = &spec.customer_scope {
            asked.extend(match scope.type_ {
                CustomerScopeType::All => vec![Self::new(ItemKind::Customer, ALL_CUSTOMERS)],
                CustomerScopeType::Customers => items(ItemKind::Customer, &scope.customers),
                CustomerScopeType::Groups => items(ItemKind::CustomerGroup, &scope.groups),
            });
        }
        let entries = spec.effective_credentials();
        let dns_names = entries.iter().filter_map(|entry| match entry.kind_spec() {
            Some(KindSpec::Certificate(certificate)) => Some(items(ItemKind::DnsName, &certificate.dns_names)),
            _ => None,
        });
        let mut dns_names: Vec<_> = dns_names.flatten().collect();
        dns_names.sort_unstable();
        dns_names.dedup();
        asked.extend(dns_names);
        asked
    }

    /// What it was granted by, if it is granted.
    #[must_use]
    pub fn granted_by<'a>(&self, grant: &'a Grant) -> Option<&'a str> {
        let by = match self.kind {
            ItemKind::Scope => grant.scopes.get(&self.name),
            ItemKind::Api => grant.apis.get(&self.name).map(|api| &api.by),
            ItemKind::ApiScope => self.api(&grant.apis).and_then(|api| api.scopes.get(&self.name)),
            ItemKind::ServedAudience => grant.served_audiences.get(&self.name),
            ItemKind::RedirectUri => grant.redirect_uris.get(&self.name),
            ItemKind::Customer => grant.customers.get(&self.name),
            ItemKind::CustomerGroup => grant.customer_groups.get(&self.name),
            ItemKind::DnsName => grant.dns_names.get(&self.name),
        };
        by.map(String::as_str)
    }

    /// Records it as granted. A scope at an API that is not granted is recorded nowhere.
    pub(super) fn record(&self, by: String, grant: &mut Grant) {
        let list = match self.kind {
            ItemKind::Api => {
                grant.apis.insert(self.name.clone(), ApiGrant { by, scopes: BTreeMap::new() });
                return;
            }
            ItemKind::ApiScope => {
                let audience = self.audience.as_deref().unwrap_or_default();
                let Some(api) = grant.apis.get_mut(audience) else { return };
                &mut api.scopes
            }
            ItemKind::Scope => &mut grant.scopes,
            ItemKind::ServedAudience => &mut grant.served_audiences,
            ItemKind::RedirectUri => &mut grant.redirect_uris,
            ItemKind::Customer => &mut grant.customers,
            ItemKind::CustomerGroup => &mut grant.customer_groups,
            ItemKind::DnsName => &mut grant.dns_names,
        };
        list.insert(self.name.clone(), by);
    }

    /// Whether an approval lists it.
    #[must_use]
    pub fn is_listed(&self, approval: &RegistrationApprovalSpec) -> bool {
        let api = |audience: &str| approval.apis.iter().find(|api| api.audience == audience);
        match self.kind {
            ItemKind::Scope => approval.scopes.contains(&self.name),
            ItemKind::Api => api(&self.name).is_some(),
            ItemKind::ApiScope => {
                self.audience.as_deref().and_then(api).is_some_and(|api| api.scopes.contains(&self.name))
            }
            ItemKind::ServedAudience => approval.served_audiences.contains(&self.name),
            ItemKind::RedirectUri => approval.redirect_uris.contains(&self.name),
            ItemKind::Customer => approval.customers.contains(&self.name),
            ItemKind::CustomerGroup => approval.customer_groups.contains(&self.name),
            ItemKind::DnsName => false,
        }
    }

    /// The field of the registration that asks for it.
    #[must_use]
    pub fn path(&self) -> String {
        match self.kind {
            ItemKind::Scope => "spec.scopes".to_owned(),
            ItemKind::Api => "spec.apis".to_owned(),
            ItemKind::ApiScope => format!("spec.apis[{}].scopes", self.audience.as_deref().unwrap_or_default()),
            ItemKind::ServedAudience => "spec.servedAudiences".to_owned(),
            ItemKind::RedirectUri => "spec.redirectURIs".to_owned(),
            ItemKind::Customer if self.name == ALL_CUSTOMERS => "spec.customerScope.type".to_owned(),
            ItemKind::Customer => "spec.customerScope.customers".to_owned(),
            ItemKind::CustomerGroup => "spec.customerScope.groups".to_owned(),
            ItemKind::DnsName => "spec.credentials.certificate.dnsNames".to_owned(),
        }
    }

    fn api<'a>(&self, apis: &'a BTreeMap<String, ApiGrant>) -> Option<&'a ApiGrant> {
        apis.get(self.audience.as_deref()?)
    }
}

/// The name, as its field has it.
impl fmt::Display for Item {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(if self.kind == ItemKind::Customer && self.name == ALL_CUSTOMERS { "All" } else { &self.name })
    }
}
