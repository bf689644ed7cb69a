//! What is granted, as cases that read like sentences.

use super::*;
use crate::api::{
    ApprovalRequired, Certificate, CustomerScope, DurationBounds, DurationRules, Entry, Kind, PolicyLimits, Reason,
    RedirectUriRules, RegistrationPolicySpec, UriScheme,
};
use crate::config::Policy;
use jiff::SignedDuration;

const SHOP: Subject<'static> = Subject { namespace: "shop", name: "storefront" };

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn policy(name: &str, says: impl FnOnce(&mut RegistrationPolicySpec)) -> Arc<Rules> {
    let mut spec = RegistrationPolicySpec::default();
    says(&mut spec);
    Arc::new(Rules::of_object(name, &spec, &Policy::default()).unwrap())
}

fn allowing(name: &str, scopes: &[&str]) -> Arc<Rules> {
    policy(name, |spec| spec.scopes = texts(scopes))
}

fn approval(scopes: &[&str], expires: Option<&str>) -> Arc<RegistrationApprovalSpec> {
    let mut spec = RegistrationApprovalSpec { scopes: texts(scopes), ..RegistrationApprovalSpec::default() };
    spec.expires = expires.map(str::to_owned);
    Arc::new(spec)
}

/// A registration that asks for scopes, and what governs it.
struct Case {
    spec: AppRegistrationSpec,
    governance: Governance,
    before: Grant,
    now: Timestamp,
}

fn asking(scopes: &[&str]) -> Case {
    Case {
        spec: AppRegistrationSpec { scopes: texts(scopes), ..AppRegistrationSpec::default() },
        governance: Governance::default(),
        before: Grant::default(),
        now: at("2026-01-01T00:00:00Z"),
    }
}

impl Case {
    fn under(mut self, policies: impl IntoIterator<Item = Arc<Rules>>) -> Self {
        self.governance.policies = policies.into_iter().collect();
        self
    }

    fn approved(mut self, name: &str, approval: Arc<RegistrationApprovalSpec>) -> Self {
        self.governance.approvals.insert(name.into(), approval);
        self
    }

    fn having(mut self, scope: &str, by: &str) -> Self {
        self.before.scopes.insert(scope.into(), by.into());
        self
    }

    fn decision(&self) -> Decision {
        evaluate(&self.spec, SHOP, &self.governance, &self.before, self.now)
    }

    /// The granted scopes, each with what granted it, and the whole message.
    fn told(&self) -> (Vec<String>, String) {
        let decision = self.decision();
        let granted = decision.grant.scopes.iter().map(|(scope, by)| format!("{scope} by {by}")).collect();
        (granted, decision.message(SHOP))
    }

    #[track_caller]
    fn grants(&self, granted: &[&str], message: &str) {
        assert_eq!(self.told(), (texts(granted), message.to_owned()));
    }
}

#[test]
fn what_a_policy_allows_is_granted_by_it() {
    asking(&["orders:read"]).under([allowing("p", &["orders:*"])]).grants(&["orders:read by policy/p"], "");
}

#[test]
fn what_different_policies_allow_adds_up_item_by_item() {
    let policies = [allowing("a", &["orders:read"]), allowing("b", &["stock:*"])];
    asking(&["orders:read", "stock:write"])
        .under(policies)
        .grants(&["orders:read by policy/a", "stock:write by policy/b"], "");
}

#[test]
fn without_a_policy_nothing_new_is_granted() {
    let case = asking(&["orders:read"]);
    case.grants(
        &[],
        "spec.scopes orders:read: no RegistrationPolicy selects the namespace shop: create one, or give the namespace a \
         label that one selects",
    );
    assert_eq!(case.decision().reason(), Some(Reason::NoPolicy));
}

#[test]
fn what_no_policy_allows_names_the_one_that_allows_most_of_the_request() {
    let policies = [allowing("a", &[]), allowing("b", &["orders:read", "stock:*"]), allowing("c", &["orders:read"])];
    let case = asking(&["admin", "orders:read", "stock:read"]).under(policies);
    case.grants(
        &["orders:read by policy/b", "stock:read by policy/b"],
        "spec.scopes admin is not allowed: policy/b comes closest and allows orders:read, stock:*; what it needs is a \
         policy that selects the namespace shop and has it in scopes",
    );
    assert_eq!(case.decision().reason(), Some(Reason::PolicyDenied));
}

#[test]
fn a_long_list_of_what_is_denied_is_told_in_part_and_counted() {
    let (_, message) =
        asking(&["a", "b", "c", "d", "e"]).under([allowing("p", &["1", "2", "3", "4", "5", "6"])]).told();
    assert!(message.contains("comes closest and allows 1, 2, 3, 4 and 2 more; what"), "{message}");
    assert!(message.ends_with("; and 2 more are not granted"), "{message}");
}

fn with_approval(name: &str, scopes: &[&str], needing: &[&str]) -> Arc<Rules> {
    policy(name, |spec| {
        spec.scopes = texts(scopes);
        spec.approval_required = Some(ApprovalRequired { scopes: texts(needing), ..ApprovalRequired::default() });
    })
}

#[test]
fn what_needs_an_approval_waits_for_it_while_the_rest_is_granted() {
    let case = asking(&["orders:read", "orders:write"]).under([with_approval("p", &["orders:*"], &["*:write"])]);
    case.grants(
        &["orders:read by policy/p"],
        "spec.scopes orders:write waits for approval: policy/p allows it once a RegistrationApproval of shop/storefront \
         lists it in scopes",
    );
    assert_eq!(case.decision().reason(), Some(Reason::ApprovalRequired));
    case.approved("yes", approval(&["orders:write"], None))
        .grants(&["orders:read by policy/p", "orders:write by approval/yes"], "");
}

#[test]
fn an_approval_grants_nothing_that_no_policy_allows() {
    let case = asking(&["admin"]).under([allowing("p", &["orders:*"])]).approved("yes", approval(&["admin"], None));
    assert_eq!(case.decision().grant, Grant::default());
}

#[test]
fn a_policy_that_wants_no_approval_is_enough() {
    let policies = [with_approval("strict", &["*"], &["*"]), allowing("z", &["orders:read"])];
    asking(&["orders:read"]).under(policies).grants(&["orders:read by policy/z"], "");
}

#[test]
fn an_approval_ends_at_its_instant_and_is_looked_at_then() {
    let mut case = asking(&["admin"])
        .under([with_approval("p", &["*"], &["admin"])])
        .approved("week", approval(&["admin"], Some("2026-01-08T01:00:00+01:00")))
        .having("admin", "approval/week");
    assert_eq!(case.decision().next_expiry, Some(at("2026-01-08T00:00:00Z")));
    case.now = at("2026-01-07T23:59:59Z");
    case.grants(&["admin by approval/week"], "");
    case.now = at("2026-01-08T00:00:00Z");
    case.grants(
        &[],
        "spec.scopes admin is not approved any more: approval/week has ended; renew it, or create another \
         RegistrationApproval of shop/storefront that lists it in scopes",
    );
    assert_eq!(case.decision().next_expiry, None);
}

#[test]
fn an_approval_whose_end_cannot_be_read_approves_nothing() {
    let case = asking(&["admin"]).under([with_approval("p", &["*"], &["*"])]);
    let case = case.approved("odd", approval(&["admin"], Some("soon")));
    assert_eq!(case.decision().grant, Grant::default());
}

#[test]
fn an_item_that_an_approval_no_longer_lists_is_withdrawn() {
    let case = asking(&["admin"]).under([with_approval("p", &["*"], &["*"])]);
    let case = case.approved("yes", approval(&["other"], None)).having("admin", "approval/yes");
    assert_eq!(case.decision().grant, Grant::default());
}

#[test]
fn an_approval_that_is_not_shown_must_be_seen_to_be_gone_before_anything_ends() {
    let mut case = asking(&["admin"]).under([with_approval("p", &["*"], &["*"])]).having("admin", "approval/yes");
    let decision = case.decision();
    assert_eq!((decision.grant.scopes.len(), decision.unseen), (1, BTreeSet::from(["yes".into()])));

    case.governance.absent.insert("yes".into(), Absence::Doubtful);
    let decision = case.decision();
    assert_eq!((decision.grant.scopes.len(), decision.unseen.len()), (1, 0), "doubt withdraws nothing");
    assert_eq!(decision.kept.len(), 1);

    case.governance.absent.insert("yes".into(), Absence::Confirmed);
    assert_eq!(case.decision().grant, Grant::default());
}

#[test]
fn what_an_ended_approval_granted_stays_where_a_policy_allows_it_freely() {
    let mut case = asking(&["admin"]).under([allowing("p", &["admin"])]).having("admin", "approval/yes");
    case.governance.absent.insert("yes".into(), Absence::Confirmed);
    case.grants(&["admin by policy/p"], "");
}

#[test]
fn what_was_granted_outlives_a_narrower_policy_and_it_is_said() {
    asking(&["admin"]).under([allowing("p", &["orders:*"])]).having("admin", "policy/p").grants(
        &["admin by policy/p"],
        "spec.scopes admin is kept though nothing allows it any more, by policy/p: allow it again, or remove it from the spec",
    );
}

#[test]
fn a_policy_that_says_withdraw_takes_back_what_it_granted() {
    let withdrawing = policy("p", |spec| spec.on_violation = Some(OnViolation::Withdraw));
    let case = asking(&["admin", "other"]).under([withdrawing]).having("admin", "policy/p").having("other", "policy/q");
    assert_eq!(case.decision().grant.scopes, BTreeMap::from([("other".into(), "policy/q".into())]));
}

#[test]
fn a_deleted_policy_withdraws_nothing() {
    let case = asking(&["admin"]).having("admin", "policy/p");
    assert_eq!(case.decision().kept.len(), 1);
    assert_eq!(case.decision().reason(), None, "nothing that must be done");
}

#[test]
fn a_policy_that_says_withdraw_and_selects_the_namespace_no_more_takes_back_what_it_granted() {
    let mut case = asking(&["admin"]).having("admin", "policy/p");
    case.governance.departed = BTreeSet::from(["p".into()]);
    assert_eq!(case.decision().grant, Grant::default());
    case.governance.unknown = Some("Namespaces could not be listed yet".into());
    assert_eq!(case.decision().kept.len(), 1, "unless it is not known what else selects it");
}

#[test]
fn another_policy_that_allows_it_takes_over_what_a_narrower_one_granted() {
    let withdrawing = policy("p", |spec| spec.on_violation = Some(OnViolation::Withdraw));
    asking(&["admin"])
        .under([withdrawing, allowing("q", &["admin"])])
        .having("admin", "policy/p")
        .grants(&["admin by policy/q"], "");
}

#[test]
fn what_is_granted_stays_though_its_policy_now_wants_an_approval() {
    let case = asking(&["admin"]).under([with_approval("p", &["*"], &["*"])]).having("admin", "policy/p");
    assert_eq!(case.decision().kept.len(), 1);
}

#[test]
fn what_is_no_longer_asked_for_goes_at_once() {
    let case = asking(&[]).under([allowing("p", &["*"])]).having("admin", "policy/p");
    assert_eq!(case.decision(), Decision::default());
}

#[test]
fn all_customers_are_one_item_that_only_a_star_allows() {
    let with = |type_, customers: &[&str], allowed: &str| {
        let mut case = asking(&[]);
        let customers = texts(customers);
        case.spec.customer_scope = Some(CustomerScope { type_, customers, ..CustomerScope::default() });
        let case = case.under([policy("p", |spec| spec.customers = texts(&[allowed]))]);
        case.decision().grant.customers.into_keys().collect::<Vec<_>>()
    };
    assert_eq!(with(CustomerScopeType::All, &[], "*"), ["*"]);
    assert_eq!(with(CustomerScopeType::All, &[], "a*").len(), 0);
    assert_eq!(with(CustomerScopeType::Customers, &["acme", "bolt"], "a*"), ["acme"]);
}

#[test]
fn one_policy_must_allow_both_the_scheme_and_the_host_of_a_redirect_uri() {
    let rules = |name: &str, host: &str, scheme| {
        policy(name, |spec| {
            spec.redirect_uris = Some(RedirectUriRules { hosts: texts(&[host]), schemes: Some(vec![scheme]) });
        })
    };
    let mut case =
        asking(&[]).under([rules("a", "localhost", UriScheme::Https), rules("b", "*.example", UriScheme::Http)]);
    case.spec.redirect_uris = texts(&["http://localhost/cb", "https://shop.example/cb"]);
    assert_eq!(case.decision().grant, Grant::default());
}

#[test]
fn dns_names_of_certificates_are_granted_like_anything_else_and_outlive_a_narrower_policy() {
    let mut case = asking(&[]).under([policy("p", |_| {})]);
    let certificate = Certificate { dns_names: texts(&["a.shop.svc", "a.bank.svc"]), ..Certificate::default() };
    case.spec.credentials =
        Some(vec![Entry { name: "mtls".into(), certificate: Some(certificate), ..Entry::default() }]);
    let decision = case.decision();
    assert_eq!(decision.grant.dns_names, BTreeMap::from([("a.shop.svc".into(), "policy/p".into())]));
    case.before = decision.grant.clone();
    let case = case.under([policy("p", |spec| spec.dns_names = Some(Vec::new()))]);
    assert_eq!(case.decision().grant, decision.grant);
}

#[test]
fn a_client_is_admitted_by_one_policy_that_allows_its_id_and_has_room() {
    let limited = |name: &str, ids: &[&str], most| {
        policy(name, |spec| {
            spec.client_ids = Some(texts(ids));
            spec.limits = Some(PolicyLimits { registrations_per_namespace: Some(most), ..PolicyLimits::default() });
        })
    };
    let governed = |policies: Vec<Arc<Rules>>, older| Governance { policies, older, ..Governance::default() };
    let small = || limited("small", &["{namespace}.*"], 2);
    assert!(governed(vec![small()], 1).admits_client(Some("shop.a"), SHOP).is_ok());
    let full = governed(vec![small()], 2).admits_client(None, SHOP).unwrap_err();
    assert_eq!(
        full,
        (
            Reason::QuotaExceeded,
            "policy/small allows 2 registrations in the namespace shop, and 2 came before this one: delete one, or raise \
             limits.registrationsPerNamespace"
                .into()
        )
    );
    let other = limited("other", &["x.*"], 9);
    let governance = governed(vec![small(), other], 2);
    assert!(governance.admits_client(Some("x.a"), SHOP).is_ok());
    assert_eq!(governance.admits_client(Some("shop.a"), SHOP).unwrap_err().0, Reason::QuotaExceeded);
    assert_eq!(governance.admits_client(Some("bank.a"), SHOP).unwrap_err().0, Reason::PolicyDenied);
    assert_eq!(Governance::default().admits_client(None, SHOP).unwrap_err().0, Reason::NoPolicy);
}

#[test]
fn a_credential_is_admitted_by_one_policy_that_allows_its_kind_and_key_and_has_room() {
    use crate::api::KeyType::{Ed25519, Rsa2048};
    let rules = policy("p", |spec| {
        spec.kinds = Some(vec![Kind::Certificate]);
        spec.key_types = Some(vec![Ed25519]);
        spec.limits = Some(PolicyLimits { credentials: Some(2), ..PolicyLimits::default() });
    });
    let governance = Governance { policies: vec![rules], ..Governance::default() };
    let of = |kind, key_type, others| {
        let credential = Beginning { entry: "mtls", kind, key_type, others };
        governance.admits_credential(credential, SHOP).map_err(|(reason, _)| reason)
    };
    assert_eq!(of(Kind::Certificate, Some(Ed25519), 1), Ok(()));
    assert_eq!(of(Kind::Certificate, Some(Ed25519), 2), Err(Reason::QuotaExceeded));
    assert_eq!(of(Kind::Certificate, Some(Rsa2048), 0), Err(Reason::PolicyDenied));
    assert_eq!(of(Kind::ClientSecret, None, 0), Err(Reason::PolicyDenied));
}

#[test]
fn a_duration_is_moved_as_little_as_any_policy_of_its_kind_wants() {
    let bounded = |name: &str, min: &str, max: &str| {
        policy(name, |spec| {
            let bounds = Some(DurationBounds { min: Some(min.into()), max: Some(max.into()) });
            spec.durations = Some(DurationRules { client_secret: bounds, ..DurationRules::default() });
        })
    };
    let configured = Policy::default().client_secret;
    let of = |policies: &[Arc<Rules>], days: Option<i64>| {
        let governance = Governance { policies: policies.to_vec(), ..Governance::default() };
        let asked = days.map(|days| SignedDuration::from_hours(24 * days));
        let bounded = effective_duration(&governance, Kind::ClientSecret, &configured, asked);
        (bounded.duration.as_hours() / 24, bounded.clamped_by)
    };
    let (short, long) = (bounded("short", "1d", "30d"), bounded("long", "180d", "365d"));
    let by = |name: &str| Some(name.to_owned());
    assert_eq!(of(std::slice::from_ref(&short), Some(10)), (10, None));
    assert_eq!(of(std::slice::from_ref(&short), Some(90)), (30, by("short")));
    assert_eq!(of(std::slice::from_ref(&short), None), (30, by("short")), "so is the default");
    assert_eq!(of(&[short.clone(), long.clone()], Some(90)), (30, by("short")));
    assert_eq!(of(&[short.clone(), long.clone()], Some(170)), (180, by("long")));
    assert_eq!(of(&[short, long], Some(200)), (200, None), "adding a policy only adds");
    assert_eq!(of(&[], Some(2000)), (1096, by("default")), "the product's own bounds stay");
}
