//! What is granted of what a registration asks for, and by what.
//!
//! Pure: the configured default policy and the grant so far go in, a grant and what is denied come out. A policy never
//! takes away what was granted and is still asked for.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use crate::api::{AppRegistrationSpec, CustomerScopeType, Kind};
use crate::config::{Durations, Policy};
use crate::ledger::Grant;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The registration's namespace.
    pub namespace: &'a str,
    /// The registration's name.
    pub name: &'a str,
}

/// Something asked for that no policy allows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Denied {
    /// The field that asks, as a path in the spec.
    pub field: String,
    /// The item asked for: never a credential.
    pub item: String,
}

/// The answer to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What is granted; `auth_methods` and `grant_types` are left to the caller, who knows the credentials.
    pub grant: Grant,
    /// What is not.
    pub denied: Vec<Denied>,
}

/// A duration after the policy's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounded {
    /// The duration that applies.
    pub duration: SignedDuration,
    /// Whether it is not the one asked for.
    pub clamped: bool,
}

/// What is granted of the request. What was granted before and is still asked for stays, by what granted it then.
#[must_use]
pub fn evaluate(spec: &AppRegistrationSpec, subject: Subject<'_>, policy: &Policy, before: &Grant) -> Decision {
    let mut decision = Decision::default();
    let by = format!("policy/{}", policy.name);
    let mut decide = |field: &str, asked: &[String], allowed: &[String], before: &BTreeMap<String, String>| {
        let mut granted = BTreeMap::new();
        for item in asked {
            if let Some(by) = before.get(item) {
                granted.insert(item.clone(), by.clone());
            } else if matches_any(allowed, item, subject) {
                granted.insert(item.clone(), by.clone());
            } else {
                decision.denied.push(Denied { field: field.to_owned(), item: item.clone() });
            }
        }
        granted
    };
    let (customers, customer_groups) = customers(spec);
    let grant = Grant {
        scopes: decide("scopes", &spec.scopes, &policy.scopes, &before.scopes),
        audiences: decide("audiences", &spec.audiences, &policy.audiences, &before.audiences),
        redirect_uris: decide("redirectURIs", &spec.redirect_uris, &policy.redirect_uris, &before.redirect_uris),
        customers: decide("customerScope.customers", &customers, &policy.customers, &before.customers),
        customer_groups: decide(
            "customerScope.groups",
            &customer_groups,
            &policy.customer_groups,
            &before.customer_groups,
        ),
        resource_audiences: decide(
            "resourceAudiences",
            &spec.resource_audiences,
            &policy.resource_audiences,
            &before.resource_audiences,
        ),
        auth_methods: Vec::new(),
        grant_types: Vec::new(),
    };
    decision.grant = grant;
    decision
}

/// Whether a chosen client ID may be used.
#[must_use]
pub fn allows_client_id(policy: &Policy, client_id: &str, subject: Subject<'_>) -> bool {
    matches_any(&policy.client_ids, client_id, subject)
}

/// Whether a credential of this kind may be minted or taken up.
#[must_use]
pub fn allows_kind(policy: &Policy, kind: Kind) -> bool {
    policy.kinds.contains(&kind)
}

/// The DNS names that a certificate may carry, and those it may not.
#[must_use]
pub fn dns_names(policy: &Policy, asked: &[String], subject: Subject<'_>) -> (Vec<String>, Vec<String>) {
    asked.iter().cloned().partition(|name| matches_any(&policy.dns_names, name, subject))
}

/// The effective duration of a credential: what is asked for, within the policy's bounds, or the policy's default.
#[must_use]
pub fn effective_duration(Durations { default, min, max }: &Durations, asked: Option<SignedDuration>) -> Bounded {
    let asked = asked.unwrap_or_else(|| default.signed());
    let duration = asked.clamp(min.signed(), max.signed().max(min.signed()));
    Bounded { duration, clamped: duration != asked }
}

/// What a `customerScope` asks for, as customers and groups; `*` stands for all customers.
fn customers(spec: &AppRegistrationSpec) -> (Vec<String>, Vec<String>) {
    match &spec.customer_scope {
        None => (Vec::new(), Vec::new()),
        Some(scope) => match scope.type_ {
            CustomerScopeType::All => (vec!["*".to_owned()], Vec::new()),
            CustomerScopeType::Customers => (scope.customers.clone(), Vec::new()),
            CustomerScopeType::Groups => (Vec::new(), scope.groups.clone()),
        },
    }
}

fn matches_any(globs: &[String], item: &str, subject: Subject<'_>) -> bool {
    globs.iter().any(|glob| {
        let glob = glob.replace("{namespace}", subject.namespace).replace("{name}", subject.name);
        matches(&glob, item)
    })
}

/// Whether a glob matches a text: `*` stands for any run of characters, everything else for itself. Linear in time: on a
/// mismatch only the latest star is tried again, and a position of the text is never left behind for an earlier one.
fn matches(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            match rest.find(middle) {
                Some(at) => rest = &rest[at + middle.len()..],
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CustomerScope;

    const SHOP: Subject<'static> = Subject { namespace: "shop", name: "storefront" };

    fn asking(scopes: &[&str]) -> AppRegistrationSpec {
        AppRegistrationSpec { scopes: scopes.iter().map(|s| (*s).to_owned()).collect(), ..Default::default() }
    }

    #[test]
    fn a_glob_matches_what_it_says() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("orders:*", "orders:read", true),
            ("orders:*", "orders", false),
            ("*.shop.svc", "storefront.shop.svc", true),
            ("*.shop.svc", "storefront.shop.svc.evil.example", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("ab*ba", "aba", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} ~ {text}");
        }
    }

    #[test]
    fn a_chosen_client_id_belongs_to_its_namespace() {
        let policy = Policy::default();
        assert!(allows_client_id(&policy, "shop.storefront", SHOP));
        assert!(!allows_client_id(&policy, "bank.storefront", SHOP));
        assert!(!allows_client_id(&policy, "shopping.storefront", SHOP));
    }

    #[test]
    fn what_is_allowed_is_granted_and_the_rest_waits() {
        let policy = Policy { scopes: vec!["orders:*".into()], ..Policy::default() };
        let decision = evaluate(&asking(&["orders:read", "admin"]), SHOP, &policy, &Grant::default());
        assert_eq!(decision.grant.scopes.keys().collect::<Vec<_>>(), ["orders:read"]);
        assert_eq!(decision.denied, [Denied { field: "scopes".into(), item: "admin".into() }]);
    }

    #[test]
    fn what_was_granted_survives_a_narrower_policy_while_it_is_asked_for() {
        let before = evaluate(&asking(&["orders:read", "orders:write"]), SHOP, &Policy::default(), &Grant::default());
        let narrow = Policy { name: "narrow".into(), scopes: vec![], ..Policy::default() };
        let after = evaluate(&asking(&["orders:read"]), SHOP, &narrow, &before.grant);
        assert_eq!(after.grant.scopes, BTreeMap::from([("orders:read".into(), "policy/default".into())]));
        assert_eq!(after.denied, []);
    }

    #[test]
    fn an_audience_to_serve_is_granted_apart_from_those_to_call() {
        let asking = AppRegistrationSpec {
            audiences: vec!["https://a.example".into()],
            resource_audiences: vec!["https://a.example".into(), "https://b.example".into()],
            ..Default::default()
        };
        let policy = Policy { resource_audiences: vec!["https://b.*".into()], ..Policy::default() };
        let decision = evaluate(&asking, SHOP, &policy, &Grant::default());
        assert_eq!(decision.grant.resource_audiences.keys().collect::<Vec<_>>(), ["https://b.example"]);
        assert_eq!(decision.denied, [Denied { field: "resourceAudiences".into(), item: "https://a.example".into() }]);
    }

    #[test]
    fn a_scope_of_all_customers_is_one_item_that_a_policy_must_allow() {
        let all = AppRegistrationSpec {
            customer_scope: Some(CustomerScope { type_: CustomerScopeType::All, ..Default::default() }),
            ..Default::default()
        };
        let policy = Policy { customers: vec!["acme".into()], ..Policy::default() };
        assert_eq!(evaluate(&all, SHOP, &policy, &Grant::default()).denied[0].item, "*");
    }

    #[test]
    fn durations_are_clamped_and_it_is_said() {
        let bounded = effective_duration(&Policy::default().client_secret, Some(SignedDuration::from_secs(5)));
        assert_eq!(bounded, Bounded { duration: SignedDuration::from_secs(60), clamped: true });
        let default = effective_duration(&Policy::default().client_secret, None);
        assert_eq!(default, Bounded { duration: SignedDuration::from_hours(90 * 24), clamped: false });
    }
}
