//! What is granted, as cases that read like sentences.

use super::*;
use crate::api::{
    ApiAccess, ApiRule, ApprovalRequired, ApprovedApi, Certificate, CustomerScope, CustomerScopeType, DurationBounds,
    DurationRules, Entry, Kind, Message, PolicyLimits, PrivateKeyAlgorithm, PrivateKeyRule, Reason, RedirectUriRules,
    RegistrationPolicySpec, UriScheme,
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
    Arc::new(Rules::of_object(name, &spec).unwrap())
}

fn allowing(name: &str, scopes: &[&str]) -> Arc<Rules> {
    policy(name, |spec| spec.scopes = texts(scopes))
}

fn approval(scopes: &[&str], expires: Option<&str>) -> Arc<RegistrationApprovalSpec> {
    let mut spec = RegistrationApprovalSpec { scopes: texts(scopes), ..RegistrationApprovalSpec::default() };
    spec.expiration_time = expires.map(str::to_owned);
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
        "Field spec.scopes: orders:read is not allowed. No RegistrationPolicy selects the namespace shop: create one, or give \
         the namespace a label that one selects",
    );
    assert_eq!(case.decision().reason(), Some(Reason::NoPolicy));
}

#[test]
fn what_no_policy_allows_names_the_one_that_allows_most_of_the_request() {
    let policies = [allowing("a", &[]), allowing("b", &["orders:read", "stock:*"]), allowing("c", &["orders:read"])];
    let case = asking(&["admin", "orders:read", "stock:read"]).under(policies);
    case.grants(
        &["orders:read by policy/b", "stock:read by policy/b"],
        "Field spec.scopes: admin is not allowed: add it to scopes of a RegistrationPolicy that selects the namespace shop. \
         The closest one, policy/b, allows orders:read, stock:* there",
    );
    assert_eq!(case.decision().reason(), Some(Reason::PolicyDenied));
}

#[test]
fn a_long_list_of_what_is_denied_is_told_in_part_and_counted() {
    let (_, message) =
        asking(&["a", "b", "c", "d", "e"]).under([allowing("p", &["1", "2", "3", "4", "5", "6"])]).told();
    assert!(message.contains("The closest one, policy/p, allows 1, 2, 3, 4 and 2 more there"), "{message}");
    assert!(message.ends_with(". 2 more items are not granted"), "{message}");
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
        "Field spec.scopes: orders:write waits for an approval: policy/p allows it when a RegistrationApproval for \
         shop/storefront lists it in scopes",
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
        "Field spec.scopes: admin is not approved any more, because approval/week has ended: renew it, or create another \
         RegistrationApproval for shop/storefront that lists it in scopes",
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
        "Field spec.scopes: admin was granted by policy/p, and no policy allows it any more; it stays granted. Allow it \
         again, or remove it from the spec",
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
    asking(&["admin"]).under([with_approval("p", &["*"], &["*"])]).having("admin", "policy/p").grants(
        &["admin by policy/p"],
        "Field spec.scopes: admin was granted by policy/p, and policy/p now allows it only with an approval; it stays \
         granted. Approve it, or remove it from the spec",
    );
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

fn api(audience: &str, scopes: &[&str]) -> ApiAccess {
    ApiAccess { audience: audience.into(), scopes: texts(scopes) }
}

fn allowing_api(name: &str, audience: &str, scopes: &[&str]) -> Arc<Rules> {
    policy(name, |spec| spec.apis = vec![ApiRule { audiences: texts(&[audience]), scopes: texts(scopes) }])
}

/// The granted APIs as text, with what granted each part.
fn granted_apis(grant: &Grant) -> Vec<String> {
    let scopes = |scopes: &BTreeMap<String, String>| {
        scopes.iter().map(|(scope, by)| format!(" {scope} by {by}")).collect::<Vec<_>>().concat()
    };
    grant.apis.iter().map(|(audience, api)| format!("{audience} by {}:{}", api.by, scopes(&api.scopes))).collect()
}

#[test]
fn a_scope_is_granted_at_its_api_by_one_policy_that_has_the_pair() {
    let mut case =
        asking(&[]).under([allowing_api("a", "https://a", &["read"]), allowing_api("b", "https://b", &["*"])]);
    case.spec.apis =
        vec![api("https://b", &["write"]), api("https://a", &["read", "write"]), api("https://c", &["read"])];
    let decision = case.decision();
    assert_eq!(
        granted_apis(&decision.grant),
        ["https://a by policy/a: read by policy/a", "https://b by policy/b: write by policy/b"]
    );
    assert_eq!(decision.grant.default_audience.as_deref(), Some("https://b"), "the first that is asked for");
    assert_eq!(
        decision.message(SHOP),
        "Field spec.apis[https://a].scopes: write is not allowed: add it to the scopes of https://a in apis of a \
         RegistrationPolicy that selects the namespace shop. The closest one, policy/a, allows read there. Field spec.apis: \
         https://c is not allowed: add it to apis of a RegistrationPolicy that selects the namespace shop. The closest one, \
         policy/a, allows https://a there"
    );
}

#[test]
fn an_api_that_is_not_granted_takes_its_scopes_along_and_one_of_another_api_is_no_substitute() {
    let mut case = asking(&["read"]).under([allowing_api("p", "https://a", &["read"])]);
    case.spec.apis = vec![api("https://b", &["read"])];
    let decision = case.decision();
    assert_eq!((granted_apis(&decision.grant).len(), decision.grant.scopes.len()), (0, 0));
    let path = |denied: &Denied| format!("{}: {}", denied.item.path(), denied.item);
    let denied: Vec<_> = decision.denied.iter().map(path).collect();
    assert_eq!(denied, ["spec.scopes: read", "spec.apis: https://b"]);
}

#[test]
fn an_approval_lists_the_scopes_of_an_api_in_a_pair_as_well() {
    let wanting = policy("p", |spec| {
        spec.apis = vec![ApiRule { audiences: texts(&["*"]), scopes: texts(&["*"]) }];
        let apis = vec![crate::api::ApiApprovalRule { audiences: texts(&["*"]), scopes: Some(texts(&["write"])) }];
        spec.approval_required = Some(ApprovalRequired { apis, ..ApprovalRequired::default() });
    });
    let mut case = asking(&[]).under([wanting]);
    case.spec.apis = vec![api("https://a", &["read", "write"]), api("https://b", &["write"])];
    let apis = vec![ApprovedApi { audience: "https://a".into(), scopes: texts(&["write"]) }];
    let approved = RegistrationApprovalSpec { apis, ..RegistrationApprovalSpec::default() };
    let case = case.approved("yes", Arc::new(approved));
    assert_eq!(
        granted_apis(&case.decision().grant),
        ["https://a by policy/p: read by policy/p write by approval/yes", "https://b by policy/p:"]
    );
    assert_eq!(case.decision().reason(), Some(Reason::ApprovalRequired));
}

#[test]
fn a_customer_scope_of_which_nothing_is_granted_is_recorded_as_asked_for() {
    let mut case = asking(&[]).under([policy("p", |spec| spec.customers = texts(&["acme"]))]);
    assert_eq!(case.decision().grant.customers_claim(), None);
    let groups = CustomerScope { type_: CustomerScopeType::Groups, groups: texts(&["emea"]), ..Default::default() };
    case.spec.customer_scope = Some(groups);
    let grant = case.decision().grant;
    assert_eq!((grant.customers_claim(), grant.customer_groups_claim()), (Some(vec![]), None));
    let customers = CustomerScope {
        type_: CustomerScopeType::Customers,
        customers: texts(&["acme", "bolt"]),
        ..Default::default()
    };
    case.spec.customer_scope = Some(customers);
    assert_eq!(case.decision().grant.customers_claim(), Some(texts(&["acme"])));
}

#[test]
fn a_client_is_admitted_where_a_policy_allows_its_id_and_the_namespace_has_room() {
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
            Message::new(
                "The namespace shop has no room: policy/small allows 2 registrations, and as many came before this one. \
                 Delete one, or raise limits.registrationsPerNamespace"
            )
        )
    );
    let other = limited("other", &["x.*"], 9);
    let governance = governed(vec![small(), other], 2);
    assert!(governance.admits_client(Some("x.a"), SHOP).is_ok());
    assert!(governance.admits_client(Some("shop.a"), SHOP).is_ok(), "the widest limit counts");
    let (reason, message) = governance.admits_client(Some("bank.a"), SHOP).unwrap_err();
    assert_eq!(reason, Reason::PolicyDenied);
    assert!(message.text.contains("policy/small allows shop.*"), "the placeholder is filled in: {message}");
    assert_eq!(Governance::default().admits_client(None, SHOP).unwrap_err().0, Reason::NoPolicy);
}

#[test]
fn a_credential_is_admitted_where_its_kind_and_key_are_allowed_and_the_registration_has_room() {
    use crate::api::KeyType::{EcdsaP256, EcdsaP384, Ed25519, Rsa2048};
    let key = |algorithm, min_size| PrivateKeyRule { algorithm, min_size };
    let rules = policy("p", |spec| {
        spec.credential_kinds = Some(vec![Kind::Certificate]);
        spec.private_keys =
            Some(vec![key(PrivateKeyAlgorithm::Ed25519, None), key(PrivateKeyAlgorithm::ECDSA, Some(384))]);
        spec.limits = Some(PolicyLimits { credentials: Some(2), ..PolicyLimits::default() });
    });
    let governance = Governance { policies: vec![rules], ..Governance::default() };
    let of = |kind, key_type, others| {
        let credential = Beginning { entry: "mtls", kind, key_type, others };
        governance.admits_credential(credential, SHOP).map_err(|(reason, _)| reason)
    };
    assert_eq!(of(Kind::Certificate, Some(Ed25519), 1), Ok(()));
    assert_eq!(of(Kind::Certificate, Some(EcdsaP384), 1), Ok(()));
    assert_eq!(of(Kind::Certificate, Some(EcdsaP256), 1), Err(Reason::PolicyDenied));
    assert_eq!(of(Kind::Certificate, Some(Ed25519), 2), Err(Reason::QuotaExceeded));
    assert_eq!(of(Kind::Certificate, Some(Rsa2048), 0), Err(Reason::PolicyDenied));
    assert_eq!(of(Kind::ClientSecret, None, 0), Err(Reason::PolicyDenied));
}

#[test]
fn a_policy_that_only_adds_a_scope_lifts_no_restriction_of_the_baseline() {
    let baseline = policy("baseline", |spec| {
        spec.credential_kinds = Some(vec![Kind::ClientSecret]);
        spec.limits = Some(PolicyLimits { registrations_per_namespace: Some(20), credentials: Some(4) });
        let max = DurationBounds { min: None, max: Some("90d".into()) };
        spec.durations = Some(DurationRules { client_secret: Some(max), ..DurationRules::default() });
    });
    let governance = Governance { policies: vec![baseline, allowing("shop", &["orders:*"])], ..Governance::default() };
    assert!(governance.allows_kind(Kind::ClientSecret) && !governance.allows_kind(Kind::PublicKey));
    assert_eq!(governance.most_registrations().map(|most| most.value), Some(20));
    assert_eq!(governance.most_credentials().map(|most| most.value), Some(4));
    let max = governance.bounds(Kind::ClientSecret).max.unwrap();
    assert_eq!((max.value, max.policy), (SignedDuration::from_hours(90 * 24), "baseline"));
}

#[test]
fn a_restriction_that_no_policy_states_is_the_configured_ones_also_while_that_is_off() {
    let configured = Policy { credential_kinds: vec![Kind::AccessToken], ..Policy::default() };
    let governance = Governance {
        policies: vec![allowing("shop", &["orders:*"])],
        configured: Arc::new(Rules::of_config(&configured).unwrap()),
        ..Governance::default()
    };
    assert!(governance.allows_kind(Kind::AccessToken) && !governance.allows_kind(Kind::ClientSecret));
    assert_eq!(governance.most_registrations().map(|most| (most.value, most.policy)), Some((100, "default")));
    assert_eq!(governance.bounds(Kind::AccessToken).max.unwrap().value, SignedDuration::from_hours(24));
    assert_eq!(governance.bounds(Kind::PublicKey), Bounds { min: None, max: None });
}

#[test]
fn a_duration_is_moved_into_the_widest_of_the_bounds_that_policies_state() {
    let bounded = |name: &str, min: &str, max: &str| {
        policy(name, |spec| {
            let bounds = Some(DurationBounds { min: Some(min.into()), max: Some(max.into()) });
            spec.durations = Some(DurationRules { client_secret: bounds, ..DurationRules::default() });
        })
    };
    let configured = Policy::default().durations.client_secret;
    let of = |policies: &[Arc<Rules>], days: Option<i64>| {
        let governance = Governance { policies: policies.to_vec(), ..Governance::default() };
        let asked = days.map(|days| SignedDuration::from_hours(24 * days));
        let bounded = effective_duration(&governance, Kind::ClientSecret, &configured, asked);
        (bounded.duration.as_hours() / 24, bounded.clamped_by)
    };
    let (short, long) = (bounded("short", "2d", "30d"), bounded("long", "180d", "365d"));
    let by = |name: &str| Some(name.to_owned());
    assert_eq!(of(std::slice::from_ref(&short), Some(10)), (10, None));
    assert_eq!(of(std::slice::from_ref(&short), Some(90)), (30, by("short")));
    assert_eq!(of(std::slice::from_ref(&short), None), (30, by("short")), "so is the default");
    assert_eq!(of(&[short.clone(), long.clone()], Some(90)), (90, None), "adding a policy only adds");
    assert_eq!(of(&[short.clone(), long.clone()], Some(1)), (2, by("short")));
    assert_eq!(of(&[short, long], Some(400)), (365, by("long")));
    assert_eq!(of(&[], Some(2000)), (1096, by("default")), "the product's own bounds stay");
}

#[test]
fn a_longest_duration_below_the_configured_shortest_is_the_shortest_too() {
    let tiny = policy("tiny", |spec| {
        let max = DurationBounds { min: None, max: Some("10s".into()) };
        spec.durations = Some(DurationRules { access_token: Some(max), ..DurationRules::default() });
    });
    let governance = Governance { policies: vec![tiny], ..Governance::default() };
    let asked = Some(SignedDuration::from_hours(1));
    let bounded = effective_duration(&governance, Kind::AccessToken, &Policy::default().durations.access_token, asked);
    assert_eq!((bounded.duration, bounded.clamped_by.as_deref()), (SignedDuration::from_secs(10), Some("tiny")));
}
