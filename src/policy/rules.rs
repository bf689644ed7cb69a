//! A policy as it is evaluated: checked, and its globs taken apart, once for all registrations.

use crate::api::{OWN_CLIENT_IDS, OWN_SERVICE_NAMES, OnViolation, RegistrationPolicySpec, UriScheme, selects};
use crate::config;

use super::glob::Glob;
use super::{ALL_CUSTOMERS, Item, ItemKind, Restrictions, Subject};

/// Hosts that are the machine itself (RFC 8252 section 7.3): only there is http enough.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What a policy allows, and what of it needs an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The policy's name.
    pub name: String,
    /// What becomes of what it granted and nobody allows any more.
    pub on_violation: OnViolation,
    /// Its restrictions of credentials.
    pub(super) restrictions: Restrictions,
    allowed: Globs,
    allowed_apis: Vec<ApiGlobs>,
    needs_approval: Globs,
    needs_approval_apis: Vec<ApiGlobs>,
    redirect_schemes: Vec<UriScheme>,
    client_ids: Vec<Glob>,
}

/// Globs by [`ItemKind`]; those of APIs and of their scopes stand in [`ApiGlobs`].
type Globs = [Vec<Glob>; ItemKind::ALL.len()];

/// Globs of APIs, with those of scopes there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ApiGlobs {
    audiences: Vec<Glob>,
    /// `None` where the rule is about the API itself, and with it about every scope.
    scopes: Option<Vec<Glob>>,
}

/// Why a policy cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Field {field}: {problem}")]
pub struct Invalid {
    /// The field's path, below `spec` of an object or from the top of a configuration.
    pub field: String,
    /// What is wrong with it, and how to mend it.
    pub problem: String,
}

impl Rules {
    /// The rules of a `RegistrationPolicy`.
    pub fn of_object(name: &str, spec: &RegistrationPolicySpec) -> Result<Self, Invalid> {
        selects(&spec.namespace_selector, &std::collections::BTreeMap::new())
            .map_err(|error| invalid(&format!("namespaceSelector.{}", error.field), &error.problem))?;
        let approval = spec.approval_required.clone().unwrap_or_default();
        let hosts = spec.redirect_uris.as_ref().map(|rules| rules.hosts.as_slice()).unwrap_or_default();
        let dns_names = spec.dns_names.clone().unwrap_or_else(|| OWN_SERVICE_NAMES.map(str::to_owned).into());
        let client_ids = spec.client_ids.clone().unwrap_or_else(|| vec![OWN_CLIENT_IDS.to_owned()]);
        let allowed_apis = spec.apis.iter().map(|rule| (&rule.audiences, Some(&rule.scopes)));
        let needs_approval_apis = approval.apis.iter().map(|rule| (&rule.audiences, rule.scopes.as_ref()));
        Ok(Self {
            name: name.to_owned(),
            on_violation: spec.on_violation.unwrap_or_default(),
            restrictions: Restrictions::of(spec)?,
            allowed: [
                globs("scopes", &spec.scopes)?,
                Vec::new(),
                Vec::new(),
                globs("servedAudiences", &spec.served_audiences)?,
                globs("redirectURIs.hosts", hosts)?,
                globs("customers", &spec.customers)?,
                globs("customerGroups", &spec.customer_groups)?,
                globs("dnsNames", &dns_names)?,
            ],
            allowed_apis: api_globs("apis", allowed_apis)?,
            needs_approval: [
                globs("approvalRequired.scopes", &approval.scopes)?,
                Vec::new(),
                Vec::new(),
                globs("approvalRequired.servedAudiences", &approval.served_audiences)?,
                globs("approvalRequired.redirectURIs", &approval.redirect_uris)?,
                globs("approvalRequired.customers", &approval.customers)?,
                globs("approvalRequired.customerGroups", &approval.customer_groups)?,
                Vec::new(),
            ],
            needs_approval_apis: api_globs("approvalRequired.apis", needs_approval_apis)?,
            redirect_schemes: spec
                .redirect_uris
                .as_ref()
                .and_then(|rules| rules.schemes.clone())
                .unwrap_or_else(|| vec![UriScheme::Https]),
            client_ids: globs("clientIDs", &client_ids)?,
        })
    }

    /// The rules of the configured policy: those of an object for every namespace that says the same.
    pub fn of_config(policy: &config::Policy) -> Result<Self, Invalid> {
        Self::of_object(&policy.name, &policy.to_object()).map_err(|invalid| invalid.below("policy"))
    }

    /// What grants are recorded under.
    #[must_use]
    pub fn by(&self) -> String {
        format!("{}{}", super::BY_POLICY, self.name)
    }

    /// Whether it allows an item, with or without approval.
    #[must_use]
    pub fn allows(&self, item: &Item, subject: Subject<'_>) -> bool {
        let any = |text: &str| matches(&self.allowed[item.kind as usize], text, subject);
        match item.kind {
            ItemKind::Api => self.allowed_apis.iter().any(|rule| matches(&rule.audiences, &item.name, subject)),
            ItemKind::ApiScope => self.allowed_apis.iter().any(|rule| rule.has_scope(item, subject)),
            ItemKind::RedirectUri => {
                target(&item.name).is_some_and(|(scheme, host)| self.redirect_schemes.contains(&scheme) && any(&host))
            }
            ItemKind::Scope
            | ItemKind::ServedAudience
            | ItemKind::Customer
            | ItemKind::CustomerGroup
            | ItemKind::DnsName => any(&item.name),
        }
    }

    /// Whether what it allows needs an approval.
    #[must_use]
    pub fn needs_approval(&self, item: &Item, subject: Subject<'_>) -> bool {
        let any = |text: &str| matches(&self.needs_approval[item.kind as usize], text, subject);
        match item.kind {
            ItemKind::Api => {
                let is_meant = |rule: &ApiGlobs| rule.scopes.is_none() && matches(&rule.audiences, &item.name, subject);
                self.needs_approval_apis.iter().any(is_meant)
            }
            // A rule for the API itself needs no approval for each scope once more.
            ItemKind::ApiScope => {
                self.needs_approval_apis.iter().any(|rule| rule.scopes.is_some() && rule.has_scope(item, subject))
            }
            ItemKind::RedirectUri => target(&item.name).is_none_or(|(_, host)| any(&host)),
            // All customers are also those that need an approval, whatever their names, and those of every group.
            ItemKind::Customer if item.name == ALL_CUSTOMERS => {
                let has = |kind: ItemKind| !self.needs_approval[kind as usize].is_empty();
                has(ItemKind::Customer) || has(ItemKind::CustomerGroup)
            }
            ItemKind::Scope
            | ItemKind::ServedAudience
            | ItemKind::Customer
            | ItemKind::CustomerGroup
            | ItemKind::DnsName => any(&item.name),
        }
    }

    /// Whether it states how many registrations of a namespace get a client.
    #[must_use]
    pub const fn limits_registrations(&self) -> bool {
        self.restrictions.most_registrations.is_some()
    }

    /// Whether it allows a chosen client ID.
    #[must_use]
    pub fn allows_client_id(&self, client_id: &str, subject: Subject<'_>) -> bool {
        matches(&self.client_ids, client_id, subject)
    }

    /// What it allows beside an item, as globs with the placeholders filled in: for people.
    #[must_use]
    pub fn globs(&self, item: &Item, subject: Subject<'_>) -> Vec<String> {
        let filled = |globs: &[Glob]| globs.iter().map(|glob| glob.filled(subject)).collect::<Vec<_>>();
        match item.kind {
            ItemKind::Api => self.allowed_apis.iter().flat_map(|rule| filled(&rule.audiences)).collect(),
            ItemKind::ApiScope => {
                let audience = item.audience.as_deref().unwrap_or_default();
                let of_api = self.allowed_apis.iter().filter(|rule| matches(&rule.audiences, audience, subject));
                of_api.flat_map(|rule| filled(rule.scopes.as_deref().unwrap_or_default())).collect()
            }
            kind => filled(&self.allowed[kind as usize]),
        }
    }

    /// The globs of client IDs with the placeholders filled in: for people.
    #[must_use]
    pub fn client_id_globs(&self, subject: Subject<'_>) -> Vec<String> {
        self.client_ids.iter().map(|glob| glob.filled(subject)).collect()
    }
}

/// The rules of the configured policy as it is by default.
impl Default for Rules {
    #[expect(clippy::expect_used, reason = "literals, read by a test")]
    fn default() -> Self {
        Self::of_config(&config::Policy::default()).expect("the default policy is understood")
    }
}

impl ApiGlobs {
    /// Whether it lists a scope at its API. One rule must have both.
    fn has_scope(&self, item: &Item, subject: Subject<'_>) -> bool {
        item.audience.as_deref().is_some_and(|audience| matches(&self.audiences, audience, subject))
            && self.scopes.as_ref().is_some_and(|scopes| matches(scopes, &item.name, subject))
    }
}

impl Invalid {
    fn below(self, parent: &str) -> Self {
        Self { field: format!("{parent}.{}", self.field), ..self }
    }
}

fn matches(globs: &[Glob], text: &str, subject: Subject<'_>) -> bool {
    globs.iter().any(|glob| glob.matches(text, subject))
}

/// The scheme and the host of a redirect URI, if it may be one: https, or http on the machine itself.
fn target(uri: &str) -> Option<(UriScheme, String)> {
    // A user name or a backslash could make another host of it to a browser than to us.
    let uri: http::Uri = uri.parse().ok().filter(|_| !uri.contains(['@', '\\']))?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    match uri.scheme_str()? {
        "https" => Some((UriScheme::Https, host)),
        "http" if LOOPBACK_HOSTS.contains(&host.as_str()) => Some((UriScheme::Http, host)),
        _ => None,
    }
}

fn globs(field: &str, texts: &[String]) -> Result<Vec<Glob>, Invalid> {
    let read = |(index, text): (usize, &String)| {
        Glob::parse(text).map_err(|problem| invalid(&format!("{field}[{index}]"), &problem))
    };
    texts.iter().enumerate().map(read).collect()
}

fn api_globs<'a>(
    field: &str,
    rules: impl Iterator<Item = (&'a Vec<String>, Option<&'a Vec<String>>)>,
) -> Result<Vec<ApiGlobs>, Invalid> {
    let read = |(index, (audiences, scopes)): (usize, (&Vec<String>, Option<&Vec<String>>))| {
        let field = format!("{field}[{index}]");
        let scopes = scopes.map(|scopes| globs(&format!("{field}.scopes"), scopes)).transpose()?;
        Ok(ApiGlobs { audiences: globs(&format!("{field}.audiences"), audiences)?, scopes })
    };
    rules.enumerate().map(read).collect()
}

pub(super) fn invalid(field: &str, problem: &dyn std::fmt::Display) -> Invalid {
    Invalid { field: field.to_owned(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ApiApprovalRule, ApiRule, ApprovalRequired, DurationBounds, DurationRules, RedirectUriRules};

    const SHOP: Subject<'static> = Subject { namespace: "shop", name: "storefront" };

    fn rules(spec: &RegistrationPolicySpec) -> Rules {
        Rules::of_object("p", spec).unwrap()
    }

    fn item(kind: ItemKind, name: &str) -> Item {
        match kind {
            ItemKind::ApiScope => Item::api_scope("https://a.example", name),
            kind => Item::new(kind, name),
        }
    }

    #[test]
    fn a_policy_that_says_nothing_allows_no_item_but_the_namespaces_own_names() {
        let rules = rules(&RegistrationPolicySpec::default());
        for kind in ItemKind::ALL {
            assert!(!rules.allows(&item(kind, "https://a.example"), SHOP), "{kind:?}");
        }
        assert!(rules.allows(&item(ItemKind::DnsName, "storefront.shop.svc"), SHOP));
        assert!(!rules.allows(&item(ItemKind::DnsName, "storefront.bank.svc"), SHOP));
        assert!(rules.allows_client_id("shop.storefront", SHOP) && !rules.allows_client_id("bank.a", SHOP));
    }

    #[test]
    fn the_configured_policy_is_closed_for_what_crosses_namespaces() {
        let rules = Rules::default();
        for (kind, name, is_allowed) in [
            (ItemKind::Scope, "read", false),
            (ItemKind::Api, "https://a.example", false),
            (ItemKind::Api, "https://storefront.shop.svc", false),
            (ItemKind::ApiScope, "read", false),
            (ItemKind::ServedAudience, "https://storefront.shop.svc", true),
            (ItemKind::ServedAudience, "https://storefront.shop.svc.cluster.local", true),
            (ItemKind::ServedAudience, "https://storefront.bank.svc", false),
            (ItemKind::ServedAudience, "https://a.example", false),
            (ItemKind::Customer, "acme", false),
            (ItemKind::Customer, ALL_CUSTOMERS, false),
            (ItemKind::CustomerGroup, "emea", false),
            (ItemKind::RedirectUri, "https://shop.example/cb", true),
            (ItemKind::RedirectUri, "http://localhost:8000/cb", true),
            (ItemKind::DnsName, "storefront.shop.svc", true),
            (ItemKind::DnsName, "storefront.bank.svc", false),
        ] {
            assert_eq!(rules.allows(&item(kind, name), SHOP), is_allowed, "{kind:?} {name}");
        }
        assert!(rules.allows_client_id("shop.storefront", SHOP) && !rules.allows_client_id("bank.a", SHOP));
    }

    #[test]
    fn a_scope_is_allowed_at_the_audiences_of_its_own_rule_alone() {
        let rule = |audience: &str, scopes: &[&str]| ApiRule {
            audiences: vec![audience.into()],
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        };
        let apis = vec![rule("https://orders.*", &["orders:*"]), rule("https://stock.example", &["stock:read"])];
        let rules = rules(&RegistrationPolicySpec { apis, scopes: vec!["admin".into()], ..Default::default() });
        for (audience, scope, is_allowed) in [
            ("https://orders.example", "orders:read", true),
            ("https://orders.example", "stock:read", false),
            ("https://orders.example", "admin", false),
            ("https://stock.example", "stock:read", true),
            ("https://stock.example", "orders:read", false),
            ("https://other.example", "orders:read", false),
        ] {
            let asked = Item::api_scope(audience, scope);
            assert_eq!(rules.allows(&asked, SHOP), is_allowed, "{audience} {scope}");
        }
        assert!(rules.allows(&Item::new(ItemKind::Scope, "admin"), SHOP));
        assert!(!rules.allows(&Item::new(ItemKind::Scope, "orders:read"), SHOP), "that is a scope of an API");
        assert_eq!(rules.globs(&Item::api_scope("https://stock.example", "x"), SHOP), ["stock:read"]);
    }

    #[test]
    fn an_approval_rule_without_scopes_is_about_the_api_and_one_with_scopes_about_these() {
        let needing = |scopes: Option<Vec<String>>| {
            let apis = vec![ApiApprovalRule { audiences: vec!["https://a.*".into()], scopes }];
            let approval_required = Some(ApprovalRequired { apis, ..ApprovalRequired::default() });
            rules(&RegistrationPolicySpec { approval_required, ..Default::default() })
        };
        let (api, scope) =
            (Item::new(ItemKind::Api, "https://a.example"), Item::api_scope("https://a.example", "write"));
        let whole = needing(None);
        assert!(whole.needs_approval(&api, SHOP) && !whole.needs_approval(&scope, SHOP));
        let write = needing(Some(vec!["write".into()]));
        assert!(!write.needs_approval(&api, SHOP) && write.needs_approval(&scope, SHOP));
        assert!(!write.needs_approval(&Item::api_scope("https://a.example", "read"), SHOP));
        assert!(!write.needs_approval(&Item::api_scope("https://b.example", "write"), SHOP));
    }

    #[test]
    fn all_customers_need_an_approval_wherever_any_customer_or_group_does() {
        let needing = |customers: &[&str], groups: &[&str]| {
            let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            rules(&RegistrationPolicySpec {
                customers: vec!["*".into()],
                approval_required: Some(ApprovalRequired {
                    customers: texts(customers),
                    customer_groups: texts(groups),
                    ..ApprovalRequired::default()
                }),
                ..Default::default()
            })
        };
        let all = Item::new(ItemKind::Customer, ALL_CUSTOMERS);
        assert!(!needing(&[], &[]).needs_approval(&all, SHOP));
        assert!(needing(&["vip-*"], &[]).needs_approval(&all, SHOP));
        assert!(needing(&[], &["vip"]).needs_approval(&all, SHOP));
        assert!(!needing(&["vip-*"], &[]).needs_approval(&Item::new(ItemKind::Customer, "acme"), SHOP));
    }

    #[test]
    fn a_redirect_uri_is_allowed_by_scheme_and_host() {
        let with = |schemes: Option<Vec<UriScheme>>| {
            rules(&RegistrationPolicySpec {
                redirect_uris: Some(RedirectUriRules {
                    hosts: vec!["*.shop.example".into(), "localhost".into()],
                    schemes,
                }),
                ..RegistrationPolicySpec::default()
            })
        };
        let (https, both) = (with(None), with(Some(vec![UriScheme::Https, UriScheme::Http])));
        for (uri, by_https, by_both) in [
            ("https://a.shop.example/cb", true, true),
            ("https://A.Shop.Example:8443/cb?x=y", true, true),
            ("https://shop.example/cb", false, false),
            ("https://a.shop.example.evil.example/", false, false),
            ("https://evil.example/.shop.example", false, false),
            ("https://evil.example?a.shop.example", false, false),
            ("https://a.shop.example@evil.example/", false, false),
            ("https://evil.example\\a.shop.example/", false, false),
            ("http://localhost:8000/cb", false, true),
            ("http://a.shop.example/cb", false, false),
            ("ftp://a.shop.example", false, false),
            ("a.shop.example", false, false),
            ("", false, false),
        ] {
            assert_eq!(https.allows(&item(ItemKind::RedirectUri, uri), SHOP), by_https, "{uri}");
            assert_eq!(both.allows(&item(ItemKind::RedirectUri, uri), SHOP), by_both, "{uri}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_named_with_its_field() {
        let configured = config::Policy { scopes: vec!["{team}".into()], ..config::Policy::default() };
        let invalid = Rules::of_config(&configured).unwrap_err().to_string();
        assert_eq!(invalid, "Field policy.scopes[0]: must have no braces but {namespace} and {name}: change {team}");
        let of = |spec: RegistrationPolicySpec| Rules::of_object("p", &spec).unwrap_err().to_string();
        let bounds = |min: &str, max: &str| RegistrationPolicySpec {
            durations: Some(DurationRules {
                certificate: Some(DurationBounds { min: Some(min.into()), max: Some(max.into()) }),
                ..DurationRules::default()
            }),
            ..RegistrationPolicySpec::default()
        };
        let apis = vec![ApiRule { audiences: vec!["a".into()], scopes: vec!["b".into(), "{team}".into()] }];
        let apis = RegistrationPolicySpec { apis, ..Default::default() };
        assert_eq!(of(apis), "Field apis[0].scopes[1]: must have no braces but {namespace} and {name}: change {team}");
        let scopes = RegistrationPolicySpec { scopes: vec!["a".into(), "{team}".into()], ..Default::default() };
        assert_eq!(of(scopes), "Field scopes[1]: must have no braces but {namespace} and {name}: change {team}");
        assert!(of(bounds("2d", "1d")).starts_with("Field durations.certificate: must have a min longer than 0s"));
        assert!(of(bounds("soon", "1d")).starts_with("Field durations.certificate.min: must be a duration"));
    }
}
