//! A policy as it is evaluated: checked, and its globs taken apart, once for all registrations.

use jiff::SignedDuration;

use crate::api::{
    DurationBounds, GrantType, KeyType, Kind, LongDuration, OWN_CLIENT_IDS, OWN_SERVICE_NAMES, OnViolation,
    RegistrationPolicySpec, TokenEndpointAuthMethod, UriScheme, selects,
};
use crate::config;

use super::glob::Glob;
use super::{Field, Subject};

/// Hosts that are the machine itself (RFC 8252 section 7.3): only there is http enough.
const LOOPBACK_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What a policy allows, and what of it needs an approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The policy's name.
    pub name: String,
    /// What becomes of what it granted and nobody allows any more.
    pub on_violation: OnViolation,
    /// How many registrations of a namespace get a client.
    pub most_registrations: Option<usize>,
    /// How many credentials a registration has.
    pub most_credentials: Option<usize>,
    allowed: Globs,
    needs_approval: Globs,
    redirect_schemes: Vec<UriScheme>,
    client_ids: Vec<Glob>,
    kinds: Option<Vec<Kind>>,
    key_types: Option<Vec<KeyType>>,
    grant_types: Option<Vec<GrantType>>,
    auth_methods: Option<Vec<TokenEndpointAuthMethod>>,
    client_secret: Bounds,
    certificate: Bounds,
    access_token: Bounds,
}

/// Globs by [`Field`].
type Globs = [Vec<Glob>; Field::ALL.len()];

/// The bounds of a duration, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The shortest.
    pub min: SignedDuration,
    /// The longest.
    pub max: SignedDuration,
}

/// Why a policy cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The field's path, below `spec` of an object or from the top of a configuration.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Rules {
    /// The rules of a `RegistrationPolicy`. Bounds that it omits are those of the configured policy.
    pub fn of_object(name: &str, spec: &RegistrationPolicySpec, outer: &config::Policy) -> Result<Self, Invalid> {
        selects(&spec.namespace_selector, &std::collections::BTreeMap::new())
            .map_err(|problem| invalid("namespaceSelector", &problem))?;
        let approval = spec.approval_required.clone().unwrap_or_default();
        let hosts = spec.redirect_uris.as_ref().map(|rules| rules.hosts.as_slice()).unwrap_or_default();
        let dns_names = spec.dns_names.clone().unwrap_or_else(|| OWN_SERVICE_NAMES.map(str::to_owned).into());
        let client_ids = spec.client_ids.clone().unwrap_or_else(|| vec![OWN_CLIENT_IDS.to_owned()]);
        let durations = spec.durations.clone().unwrap_or_default();
        let limits = spec.limits.clone().unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            on_violation: spec.on_violation.unwrap_or_default(),
            most_registrations: limits.registrations_per_namespace.map(|most| most as usize),
            most_credentials: limits.credentials.map(|most| most as usize),
            allowed: [
                globs("scopes", &spec.scopes)?,
                globs("audiences", &spec.audiences)?,
                globs("resourceAudiences", &spec.resource_audiences)?,
                globs("redirectURIs.hosts", hosts)?,
                globs("customers", &spec.customers)?,
                globs("customerGroups", &spec.customer_groups)?,
                globs("dnsNames", &dns_names)?,
            ],
            needs_approval: [
                globs("approvalRequired.scopes", &approval.scopes)?,
                globs("approvalRequired.audiences", &approval.audiences)?,
                globs("approvalRequired.resourceAudiences", &approval.resource_audiences)?,
                globs("approvalRequired.redirectURIs", &approval.redirect_uris)?,
                globs("approvalRequired.customers", &approval.customers)?,
                globs("approvalRequired.customerGroups", &approval.customer_groups)?,
                Vec::new(),
            ],
            redirect_schemes: spec
                .redirect_uris
                .as_ref()
                .and_then(|rules| rules.schemes.clone())
                .unwrap_or_else(|| vec![UriScheme::Https]),
            client_ids: globs("clientIDs", &client_ids)?,
            kinds: spec.kinds.clone(),
            key_types: spec.key_types.clone(),
            grant_types: spec.grant_types.clone(),
            auth_methods: spec.token_endpoint_auth_methods.clone(),
            client_secret: bounds("durations.clientSecret", durations.client_secret.as_ref(), &outer.client_secret)?,
            certificate: bounds("durations.certificate", durations.certificate.as_ref(), &outer.certificate)?,
            access_token: bounds("durations.accessToken", durations.access_token.as_ref(), &outer.access_token)?,
        })
    }

    /// The rules of the configured policy: those of an object for every namespace that says the same.
    pub fn of_config(policy: &config::Policy) -> Result<Self, Invalid> {
        let spec = RegistrationPolicySpec {
            scopes: policy.scopes.clone(),
            audiences: policy.audiences.clone(),
            resource_audiences: policy.resource_audiences.clone(),
            customers: policy.customers.clone(),
            customer_groups: policy.customer_groups.clone(),
            redirect_uris: Some(policy.redirect_uris.clone()),
            client_ids: Some(policy.client_ids.clone()),
            dns_names: Some(policy.dns_names.clone()),
            kinds: Some(policy.kinds.clone()),
            ..RegistrationPolicySpec::default()
        };
        Self::of_object(&policy.name, &spec, policy).map_err(|invalid| invalid.below("policy"))
    }

    /// What grants are recorded under.
    #[must_use]
    pub fn by(&self) -> String {
        format!("{}{}", super::BY_POLICY, self.name)
    }

    /// Whether it allows an item, with or without approval.
    #[must_use]
    pub fn allows(&self, field: Field, item: &str, subject: Subject<'_>) -> bool {
        let any = |text: &str| self.allowed[field as usize].iter().any(|glob| glob.matches(text, subject));
        if field != Field::RedirectUris {
            return any(item);
        }
        target(item).is_some_and(|(scheme, host)| self.redirect_schemes.contains(&scheme) && any(&host))
    }

    /// Whether what it allows needs an approval.
    #[must_use]
    pub fn needs_approval(&self, field: Field, item: &str, subject: Subject<'_>) -> bool {
        let globs = &self.needs_approval[field as usize];
        let any = |text: &str| globs.iter().any(|glob| glob.matches(text, subject));
        if field == Field::RedirectUris { target(item).is_none_or(|(_, host)| any(&host)) } else { any(item) }
    }

    /// Whether it allows a chosen client ID.
    #[must_use]
    pub fn allows_client_id(&self, client_id: &str, subject: Subject<'_>) -> bool {
        self.client_ids.iter().any(|glob| glob.matches(client_id, subject))
    }

    /// Whether it allows a kind of credential.
    #[must_use]
    pub fn allows_kind(&self, kind: Kind) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }

    /// Whether it allows certificates with such a key.
    #[must_use]
    pub fn allows_key_type(&self, key_type: KeyType) -> bool {
        self.allows_kind(Kind::Certificate) && self.key_types.as_ref().is_none_or(|types| types.contains(&key_type))
    }

    /// Whether it allows a grant of RFC 6749.
    #[must_use]
    pub fn allows_grant_type(&self, grant_type: GrantType) -> bool {
        self.grant_types.as_ref().is_none_or(|types| types.contains(&grant_type))
    }

    /// Whether it allows a way to authenticate.
    #[must_use]
    pub fn allows_auth_method(&self, method: TokenEndpointAuthMethod) -> bool {
        self.auth_methods.as_ref().is_none_or(|methods| methods.contains(&method))
    }

    /// The bounds of the duration of a kind that is minted.
    #[must_use]
    pub fn bounds(&self, kind: Kind) -> Option<Bounds> {
        match kind {
            Kind::ClientSecret => Some(self.client_secret),
            Kind::Certificate => Some(self.certificate),
            Kind::AccessToken => Some(self.access_token),
            Kind::PublicKey | Kind::ServiceAccount => None,
        }
    }

    /// The globs of a field, as they were written: for people.
    pub fn globs(&self, field: Field) -> impl Iterator<Item = &str> {
        self.allowed[field as usize].iter().map(Glob::as_str)
    }

    /// The globs of client IDs, as they were written: for people.
    pub fn client_id_globs(&self) -> impl Iterator<Item = &str> {
        self.client_ids.iter().map(Glob::as_str)
    }
}

impl Invalid {
    fn below(self, parent: &str) -> Self {
        Self { field: format!("{parent}.{}", self.field), ..self }
    }
}

impl Bounds {
    /// The configured bounds.
    #[must_use]
    pub fn of(durations: &config::Durations) -> Self {
        Self { min: durations.min.signed(), max: durations.max.signed() }
    }

    /// The nearest duration within the bounds.
    #[must_use]
    pub fn clamp(self, asked: SignedDuration) -> SignedDuration {
        asked.clamp(self.min, self.max)
    }
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

fn bounds(field: &str, bounds: Option<&DurationBounds>, outer: &config::Durations) -> Result<Bounds, Invalid> {
    let outer = Bounds::of(outer);
    let Some(bounds) = bounds else { return Ok(outer) };
    let read = |name: &str, text: Option<&String>, or: SignedDuration| match text {
        None => Ok(or),
        Some(text) => text
            .parse::<LongDuration>()
            .map(LongDuration::signed)
            .map_err(|problem| invalid(&format!("{field}.{name}"), &problem)),
    };
    let min = read("min", bounds.min.as_ref(), outer.min)?;
    let max = read("max", bounds.max.as_ref(), outer.max.max(min))?;
    // A longest duration below the product's shortest is a shorter shortest.
    let min = if bounds.min.is_none() { min.min(max) } else { min };
    if !min.is_positive() || min > max {
        return Err(Invalid { field: field.to_owned(), problem: "needs 0 < min ≤ max".to_owned() });
    }
    Ok(Bounds { min, max })
}

fn invalid(field: &str, problem: &dyn std::fmt::Display) -> Invalid {
    Invalid { field: field.to_owned(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{DurationRules, RedirectUriRules};

    const SHOP: Subject<'static> = Subject { namespace: "shop", name: "storefront" };

    fn rules(spec: &RegistrationPolicySpec) -> Rules {
        Rules::of_object("p", spec, &config::Policy::default()).unwrap()
    }

    #[test]
    fn a_policy_that_says_nothing_allows_no_names_but_the_namespaces_own_and_all_kinds() {
        let rules = rules(&RegistrationPolicySpec::default());
        for field in Field::ALL {
            assert!(!rules.allows(field, "https://a.example", SHOP), "{field:?}");
        }
        assert!(rules.allows(Field::DnsNames, "storefront.shop.svc", SHOP));
        assert!(!rules.allows(Field::DnsNames, "storefront.bank.svc", SHOP));
        assert!(rules.allows_client_id("shop.storefront", SHOP) && !rules.allows_client_id("bank.a", SHOP));
        assert!(Kind::ALL.iter().all(|kind| rules.allows_kind(*kind)));
        assert!(KeyType::ALL.iter().all(|key_type| rules.allows_key_type(*key_type)));
        assert_eq!(rules.bounds(Kind::Certificate), Some(Bounds::of(&config::Policy::default().certificate)));
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
            assert_eq!(https.allows(Field::RedirectUris, uri, SHOP), by_https, "{uri}");
            assert_eq!(both.allows(Field::RedirectUris, uri, SHOP), by_both, "{uri}");
        }
    }

    #[test]
    fn a_certificate_of_an_allowed_kind_needs_an_allowed_key_type() {
        let spec = RegistrationPolicySpec { key_types: Some(vec![KeyType::Ed25519]), ..Default::default() };
        assert!(rules(&spec).allows_key_type(KeyType::Ed25519) && !rules(&spec).allows_key_type(KeyType::Rsa2048));
        let none = RegistrationPolicySpec { kinds: Some(vec![Kind::ClientSecret]), ..spec };
        assert!(!rules(&none).allows_key_type(KeyType::Ed25519));
    }

    #[test]
    fn what_cannot_be_understood_is_named_with_its_field() {
        let configured = config::Policy { scopes: vec!["{team}".into()], ..config::Policy::default() };
        let invalid = Rules::of_config(&configured).unwrap_err().to_string();
        assert_eq!(invalid, "policy.scopes[0]: {team}: braces are for {namespace} and {name} alone");
        let of = |spec: RegistrationPolicySpec| {
            Rules::of_object("p", &spec, &config::Policy::default()).unwrap_err().to_string()
        };
        let bounds = |min: &str, max: &str| RegistrationPolicySpec {
            durations: Some(DurationRules {
                certificate: Some(DurationBounds { min: Some(min.into()), max: Some(max.into()) }),
                ..DurationRules::default()
            }),
            ..RegistrationPolicySpec::default()
        };
        let scopes = RegistrationPolicySpec { scopes: vec!["a".into(), "{team}".into()], ..Default::default() };
        assert_eq!(of(scopes), "scopes[1]: {team}: braces are for {namespace} and {name} alone");
        assert_eq!(of(bounds("2d", "1d")), "durations.certificate: needs 0 < min ≤ max");
        assert!(of(bounds("soon", "1d")).starts_with("durations.certificate.min: "));
    }
}
