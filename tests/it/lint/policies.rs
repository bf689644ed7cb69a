//! What is said of registrations that an API server would take: what no policy allows, what waits, and what was assumed.

use std::collections::BTreeMap;

use appreg::cli::lint::{Options, Report, Status, lint};
use appreg::config::Config;

use super::{file, options};

const POLICY: &str = "\
apiVersion: appreg.dev/v1alpha1
kind: RegistrationPolicy
metadata: {name: shops}
spec:
  namespaceSelector: {matchLabels: {team: shop}}
  scopes: ['orders:*']
  durations: {clientSecret: {max: 30d}}
  approvalRequired: {scopes: ['orders:write']}
";

const REGISTRATION: &str = "\
apiVersion: appreg.dev/v1alpha1
kind: AppRegistration
metadata: {name: storefront, namespace: shop}
spec:
  displayName: Storefront
  scopes:
  - orders:read
  - orders:write
  - admin
  credentials:
  - {name: web, effectiveDuration: 90d, clientSecret: {}}
";

const NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}";

const APPROVAL: &str = "\
apiVersion: appreg.dev/v1alpha1
kind: RegistrationApproval
metadata: {name: shop-storefront}
spec:
  registrationRef: {namespace: shop, name: storefront}
  scopes: [orders:write]
  expirationTime: 2026-11-26T13:00:00Z
";

/// As where the chart's default policy is switched off.
fn closed() -> Options {
    let config = "{authorizationServer: {issuer: https://issuer.example}, policy: {enabled: false}}";
    Options { config: Some(Config::parse(config).unwrap()), ..options() }
}

fn run(texts: &[&str], options: &Options) -> Report {
    let files: Vec<_> = texts.iter().enumerate().map(|(n, text)| file(&n.to_string(), text)).collect();
    lint(&files, options).unwrap()
}

/// Rule, field and line of each finding.
fn found(report: &Report) -> Vec<(&'static str, String, u64)> {
    let of = |finding: &appreg::cli::lint::Finding| {
        (finding.violation.rule.id(), finding.violation.field.to_string(), finding.place.line)
    };
    report.findings.iter().map(of).collect()
}

fn at(rule: &'static str, field: &str, line: u64) -> (&'static str, String, u64) {
    (rule, field.to_owned(), line)
}

#[test]
fn what_no_policy_allows_waits_or_is_bounded_is_found_at_its_item() {
    let report = run(&[REGISTRATION, POLICY, NAMESPACE], &closed());
    assert_eq!(
        found(&report),
        [
            at("approval-required", "spec.scopes[1]", 8),
            at("not-allowed", "spec.scopes[2]", 9),
            at("bounded", "spec.credentials[0].effectiveDuration", 11),
        ]
    );
    let message = &report.findings[1].violation.message;
    assert!(message.starts_with("admin is not allowed: add it to scopes of a RegistrationPolicy"), "{message}");
    assert!(message.contains("The closest one, policy/shops, allows orders:* there"), "{message}");
    assert_eq!(report.status(), Status::Findings);
}

#[test]
fn an_approval_counts_until_it_ends() {
    let files = [REGISTRATION, POLICY, NAMESPACE, APPROVAL];
    assert_eq!(found(&run(&files, &closed()))[0], at("not-allowed", "spec.scopes[2]", 9));
    let later = Options { now: "2026-11-26T13:00:00Z".parse().unwrap(), ..closed() };
    assert_eq!(found(&run(&files, &later))[0], at("approval-required", "spec.scopes[1]", 8));
}

#[test]
fn labels_come_from_the_namespace_or_a_flag_and_else_it_is_said_that_they_are_not_known() {
    let assumed = |report: &Report| report.notes.iter().any(|note| note.contains("--namespace-labels shop:"));
    let unknown = run(&[REGISTRATION, POLICY], &closed());
    assert_eq!(found(&unknown), [at("no-policy", "spec", 4)]);
    assert!(assumed(&unknown));

    let shop = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
    let flag = Options { namespace_labels: BTreeMap::from([("shop".to_owned(), shop)]), ..closed() };
    let known = run(&[REGISTRATION, POLICY], &flag);
    assert_eq!(found(&known).len(), 3);
    assert!(!assumed(&known));

    let by_name = POLICY.replace("team: shop", "kubernetes.io/metadata.name: shop");
    assert_eq!(found(&run(&[REGISTRATION, &by_name], &closed())).len(), 3);
}

#[test]
fn without_a_configuration_the_charts_policy_is_one_more_and_it_is_said() {
    let report = run(&[REGISTRATION, POLICY, NAMESPACE], &options());
    let denied = [at("approval-required", "spec.scopes[1]", 8), at("not-allowed", "spec.scopes[2]", 9)];
    assert_eq!(found(&report), denied, "it allows no scope, and a duration that the policy of the files does not");
    assert!(report.notes.iter().any(|note| note.contains("--config")));
    let modest = REGISTRATION.replace("  - orders:write\n  - admin\n", "");
    assert_eq!(run(&[&modest, POLICY, NAMESPACE], &options()).status(), Status::Clean);
}

#[test]
fn an_object_without_a_namespace_is_in_the_one_that_is_named() {
    let nameless = REGISTRATION.replace(", namespace: shop", "");
    let shop = Options { namespace: "shop".to_owned(), ..closed() };
    assert_eq!(found(&run(&[&nameless, POLICY, NAMESPACE], &shop)).len(), 3);
    assert_eq!(found(&run(&[&nameless, POLICY, NAMESPACE], &closed())), [at("no-policy", "spec", 4)]);
}

#[test]
fn a_registration_that_an_api_server_would_refuse_is_held_against_no_policy() {
    let refused = REGISTRATION.replace("orders:read", "a b");
    assert_eq!(found(&run(&[&refused, POLICY, NAMESPACE], &closed())), [at("field-pattern", "spec.scopes[0]", 7)]);
    let policy = POLICY.replace("'orders:*'", "'{team}'");
    let report = run(&[REGISTRATION, &policy, NAMESPACE], &closed());
    assert_eq!(found(&report), [at("no-policy", "spec", 4), at("field-pattern", "spec.scopes[0]", 6)]);
}

#[test]
fn an_object_that_stands_twice_is_found() {
    let nameless = REGISTRATION.replace("  scopes:\n  - orders:read\n  - orders:write\n  - admin\n", "");
    let report = run(&[&nameless, &nameless], &options());
    assert_eq!(found(&report), [at("duplicate-object", "metadata.name", 3)]);
    assert!(report.findings[0].violation.message.contains("0:1:1"));
}

#[test]
fn a_registration_is_held_against_the_authorization_server_that_it_names() {
    let server = |name: &str, issuer: &str| {
        format!(
            "{{apiVersion: appreg.dev/v1alpha1, kind: AuthorizationServer, metadata: {{name: {name}}}, \
             spec: {{namespaceSelector: {{matchLabels: {{team: shop}}}}, builtIn: {{issuer: '{issuer}'}}}}}}"
        )
    };
    let partners = server("partners", "https://partners.example");
    let asking = |namespace: &str| {
        format!(
            "apiVersion: appreg.dev/v1alpha1\nkind: AppRegistration\nmetadata: {{name: a, namespace: {namespace}}}\n\
             spec:\n  displayName: A\n  authorizationServerRef: {{name: partners}}\n"
        )
    };
    let (shop, bank) = (asking("shop"), asking("bank"));
    let where_it_stands = at("not-allowed", "spec.authorizationServerRef.name", 6);
    assert_eq!(found(&run(&[&shop, &partners, NAMESPACE], &options())), []);
    assert_eq!(found(&run(&[&bank, &partners, NAMESPACE], &options())), [where_it_stands]);
    let missing = at("invalid-spec", "spec.authorizationServerRef.name", 6);
    assert_eq!(found(&run(&[&shop, NAMESPACE], &options())), [missing]);

    let twin = server("twin", "https://PARTNERS.example:8443");
    let report = run(&[&partners, &twin], &options());
    assert_eq!(found(&report), [at("server-not-in-force", "spec.builtIn.issuer", 1)]);
    assert_eq!(report.findings[0].object.name, "twin");
}
