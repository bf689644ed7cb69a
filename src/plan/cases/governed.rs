//! Under policies and approvals: what a change of them does to credentials, and what it does not.

use super::*;
use crate::api::{
    ApprovalRequired, KeyType, PolicyLimits, PrivateKeyAlgorithm, PrivateKeyRule, RegistrationApprovalSpec,
    RegistrationPolicySpec,
};

impl Case {
    /// Nothing but these policies allows anything.
    fn under(self, policies: &[(&str, RegistrationPolicySpec)]) -> Self {
        let mut case = self.environment(|environment| environment.policy.enabled = false);
        case.world.policies = policies.iter().map(|(name, spec)| ((*name).to_owned(), spec.clone())).collect();
        case
    }
}

fn permissive() -> RegistrationPolicySpec {
    RegistrationPolicySpec { scopes: vec!["*".into()], ..RegistrationPolicySpec::default() }
}

fn approval(scopes: &[&str]) -> RegistrationApprovalSpec {
    RegistrationApprovalSpec {
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        ..RegistrationApprovalSpec::default()
    }
}

fn private_keys(algorithm: PrivateKeyAlgorithm) -> PrivateKeyRule {
    PrivateKeyRule { algorithm, min_size: None }
}

fn mtls(key_type: KeyType) -> Entry {
    let mut entry = certificate("mtls", &["app.shop.svc"]);
    entry.certificate.as_mut().unwrap().private_key = Some(key_type.into());
    entry
}

#[test]
fn without_a_policy_a_rotation_goes_on_and_nothing_new_begins() {
    let case = issued("billing", "2026-01-01").under(&[]).edited(|spec| {
        entries(spec).push(token("api", &[]));
        spec.scopes = vec!["read".into()];
    });
    check(
        case,
        "2026-03-25",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-03-25T00:00:00Z … 2026-06-23T00:00:00Z  RenewalDue
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RenewalDue
            publish billing (replace)  RenewalDue
              client_secret ← minted for `web`
              previous_client_secret ← held client_secret
            Ready=False NoPolicy: Field spec.credentials[api]: No RegistrationPolicy selects the namespace shop: create one, or give the namespace a label that one selects
            Approved=False NoPolicy: Field spec.scopes: read is not allowed. No RegistrationPolicy selects the namespace shop: create one, or give the namespace a label that one selects. Field spec.credentials[api]: No RegistrationPolicy selects the namespace shop: create one, or give the namespace a label that one selects
            Stalled=True NoPolicy: Field spec.credentials[api]: No RegistrationPolicy selects the namespace shop: create one, or give the namespace a label that one selects
            wake 2026-05-20T10:58:55Z
            Event RenewalDue: Credential web was replaced by revision 2, which is valid until 2026-06-23T00:00:00Z. The renewal time of the credential has come
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_narrower_policy_changes_no_certificate_that_is_out() {
    let case =
        applied("billing").under(&[("p", permissive())]).asking(vec![mtls(KeyType::EcdsaP256)]).later("2026-01-01");
    let narrow = RegistrationPolicySpec {
        dns_names: Some(vec![]),
        private_keys: Some(vec![private_keys(PrivateKeyAlgorithm::Ed25519)]),
        grant_types: Some(vec![]),
        token_endpoint_auth_methods: Some(vec![]),
        ..permissive()
    };
    check(
        case.under(&[("p", narrow)]),
        "2026-01-10",
        expect![[r#"
            Ready=True Issued
            Approved=False PolicyDenied: Field spec.credentials.certificate.dnsNames: app.shop.svc was granted by policy/p, and no policy allows it any more; it stays granted. Allow it again, or remove it from the spec
            wake 2026-02-21T06:27:32Z
            = PUT status
        "#]],
    );
}

#[test]
fn a_key_type_that_no_policy_allows_leaves_the_old_one_in_place_and_is_said() {
    let case =
        applied("billing").under(&[("p", permissive())]).asking(vec![mtls(KeyType::EcdsaP256)]).later("2026-01-01");
    let narrow =
        RegistrationPolicySpec { private_keys: Some(vec![private_keys(PrivateKeyAlgorithm::ECDSA)]), ..permissive() };
    let case = case.under(&[("p", narrow)]).edited(|spec| entries(spec)[0] = mtls(KeyType::Rsa4096));
    check(
        case,
        "2026-01-10",
        expect![[r#"
            Ready=True Issued
            Approved=False PolicyDenied: Field spec.credentials[mtls].certificate.privateKey: RSA 4096 is not allowed by any policy, so ECDSA 256 stays: put it back, or add RSA 4096 to privateKeys of a RegistrationPolicy
            Stalled=True PolicyDenied: Field spec.credentials[mtls].certificate.privateKey: RSA 4096 is not allowed by any policy, so ECDSA 256 stays: put it back, or add RSA 4096 to privateKeys of a RegistrationPolicy
            wake 2026-02-21T06:27:32Z
            = PUT status
        "#]],
    );
}

#[test]
fn an_approval_that_vanished_is_looked_for_before_a_token_loses_its_scope() {
    let wanting = RegistrationPolicySpec {
        approval_required: Some(ApprovalRequired { scopes: vec!["admin".into()], ..ApprovalRequired::default() }),
        ..permissive()
    };
    let mut case = applied("billing").under(&[("p", wanting)]).asking(vec![token("api", &[])]);
    case = case.spec(|spec| spec.scopes = vec!["admin".into(), "read".into()]);
    case.world.approvals.insert("yes".into(), approval(&["admin"]));
    let mut case = case.later("2026-01-01");
    case.world.approvals.clear();
    check(
        case,
        "2026-01-01T00:10:00Z",
        expect![[r#"
            look at approval yes
            --
            mint accessToken `api`  2026-01-01T00:10:00Z … 2026-01-01T01:10:00Z  GrantChanged
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  GrantChanged
            publish billing-token (replace)  GrantChanged
              access_token ← minted for `api`
            Ready=True Issued
            Approved=False ApprovalRequired: Field spec.scopes: admin waits for an approval: policy/p allows it when a RegistrationApproval for shop/billing lists it in scopes
            Reconciling=True ApprovalRequired: Field spec.scopes: admin waits for an approval: policy/p allows it when a RegistrationApproval for shop/billing lists it in scopes
            wake 2026-01-01T00:46:12Z
            = GET approval yes, PUT ledger, PUT Secret billing-token, PUT status
        "#]],
    );
}

#[test]
fn a_limit_of_credentials_counts_those_that_exist_and_refuses_the_next_by_name() {
    let limited = RegistrationPolicySpec {
        limits: Some(PolicyLimits { credentials: Some(1), ..PolicyLimits::default() }),
        ..permissive()
    };
    let mut other = client_secret("batch");
    other.secret_name = Some("batch".into());
    let case = issued("billing", "2026-01-01").under(&[("p", limited)]).edited(|spec| entries(spec).insert(0, other));
    check(
        case,
        "2026-01-10",
        expect![[r#"
            Ready=False QuotaExceeded: Field spec.credentials[batch]: policy/p allows 1 credentials. Remove one, or raise limits.credentials
            Approved=False QuotaExceeded: Field spec.credentials[batch]: policy/p allows 1 credentials. Remove one, or raise limits.credentials
            Reconciling=True QuotaExceeded: Field spec.credentials[batch]: policy/p allows 1 credentials. Remove one, or raise limits.credentials
            wake 2026-02-25T03:22:44Z
            = PUT status
        "#]],
    );
}

#[test]
fn a_full_namespace_lets_no_client_in_and_leaves_nothing_behind() {
    let limited = RegistrationPolicySpec {
        limits: Some(PolicyLimits { registrations_per_namespace: Some(3), ..PolicyLimits::default() }),
        ..permissive()
    };
    let mut case = applied("billing").under(&[("p", limited)]);
    case.world.older = 3;
    check(
        case,
        "2026-01-10",
        expect![[r#"
            Ready=False QuotaExceeded: The namespace shop has no room: policy/p allows 3 registrations, and as many came before this one. Delete one, or raise limits.registrationsPerNamespace
            Approved=False QuotaExceeded: The namespace shop has no room: policy/p allows 3 registrations, and as many came before this one. Delete one, or raise limits.registrationsPerNamespace
            Reconciling=True QuotaExceeded: The namespace shop has no room: policy/p allows 3 registrations, and as many came before this one. Delete one, or raise limits.registrationsPerNamespace
            wake 2026-01-10T00:05:00Z
            = PUT status
        "#]],
    );
}
