//! What is written, and what never is.

#![allow(clippy::needless_raw_string_hashes, reason = "`UPDATE_EXPECT` writes them so")]

use std::io::Cursor;
use std::path::Path;

use appreg::cli::lint::{Output, Status, lint, read};
use expect_test::expect;
use serde_json::Value;

use super::{file, options, report, written};

const REGISTRATION: &str = "\
apiVersion: appreg.dev/v1alpha1
kind: AppRegistration
metadata:
  name: storefront
  namespace: shop
spec:
  displayName: Storefront
  redirectUris:
  - https://shop.example/cb
  scopes:
  - orders read
  credentials:
  - name: web
    effectiveDuration: 30s
    clientSecret: {}
---
apiVersion: v1
kind: ConfigMap
";

#[test]
fn people_read_what_is_wrong_where_it_is_and_what_to_do() {
    let typo = "apiVersion: appreg.dev/v1alpha1\nkind: Registration\n";
    let long = format!(
        "apiVersion: appreg.dev/v1alpha1\nkind: AppRegistration\nmetadata: {{name: {}}}\nspec: {{displayName: A}}\n",
        "a".repeat(64)
    );
    let mut all = vec![file("app.yaml", REGISTRATION), file("long.yaml", &long), file("typo.yaml", typo)];
    all.push(file("helm.yaml", "{{ if .Values.x }}\na: b\n{{ end }}\n"));
    let report = lint(&all, &options()).unwrap();
    expect![[r#"
        error[unknown-field]: spec.redirectUris: unknown field
          --> app.yaml:8:3
           = AppRegistration shop/storefront
           = fix: remove it, or write redirectURIs

        error[field-pattern]: spec.scopes[0]: Invalid value: should match '^[!#-\[\]-~]+$'
          --> app.yaml:11:5
           = AppRegistration shop/storefront

        error[validation-rule]: Invalid value: metadata.name must have at most 63 characters: shorten it
          --> long.yaml:1:1
           = AppRegistration default/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa

        error[unknown-kind]: kind: Unsupported value: there is no such kind
          --> typo.yaml:2:1
           = Registration (without a name)
           = fix: write AppRegistration of appreg.dev/v1alpha1, or RegistrationPolicy of appreg.dev/v1alpha1, or RegistrationApproval of appreg.dev/v1alpha1, or AuthorizationServer of appreg.dev/v1alpha1

        not evaluated: helm.yaml is neither YAML nor JSON that can be read: mend it; a template must be rendered first
          --> helm.yaml:2:1

        note: AppRegistration: rules about changes were not evaluated, because they compare with what a cluster has stored: those of spec.authorizationServerRef, spec.clientID, spec.credentials, spec.credentials[].name, spec.credentials[].secretName
        note: the default policy was taken to be the chart's, which allows no scope, API or customer: --config reads yours
        2 AppRegistration, 1 Registration checked, 1 of other kinds skipped: 4 errors, 0 warnings, 1 not evaluated
    "#]]
    .assert_eq(&written(&report, Output::Human));
    assert_eq!(report.status(), Status::Unknown);
}

#[test]
fn scripts_read_the_same_as_fields() {
    let report = report(REGISTRATION);
    let document: Value = serde_json::from_str(&written(&report, Output::Json)).unwrap();
    expect![[r#"
        {
          "column": 3,
          "field": "spec.redirectUris",
          "file": "team/app.yaml",
          "fix": "remove it, or write redirectURIs",
          "kind": "AppRegistration",
          "level": "error",
          "line": 8,
          "message": "unknown field",
          "name": "storefront",
          "namespace": "shop",
          "rule": "unknown-field"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&document["findings"][0]).unwrap());
    assert_eq!(document["findings"].as_array().unwrap().len(), 2);
    assert_eq!((&document["skipped"], &document["checked"]["AppRegistration"]), (&1.into(), &1.into()));
    assert_eq!(document["notEvaluated"], Value::Array(Vec::new()));
    assert_eq!(report.status(), Status::Findings);
}

/// Keys in every field where one could be pasted, and in files that cannot be read at all.
#[test]
fn what_could_be_a_private_key_is_repeated_in_no_output() {
    let key = "-----BEGIN PRIVATE KEY-----\\ncanary\\n-----END PRIVATE KEY-----";
    let registration = |spec: &str| {
        format!("{{apiVersion: appreg.dev/v1alpha1, kind: AppRegistration, metadata: {{name: a}}, spec: {spec}}}")
    };
    let specs = [
        format!("{{displayName: x, credentials: [{{name: a, publicKey: {{pem: \"{key}\"}}}}]}}"),
        format!("{{displayName: x, credentials: [{{name: a, publicKey: {{der: \"{key}\"}}}}]}}"),
        format!(
            "{{displayName: x, credentials: [{{name: \"{key}\", clientSecret: {{}}}}, {{name: \"{key}\", clientSecret: {{}}}}]}}"
        ),
        "{displayName: x, credentials: [{name: a, publicKey: {der: \"Y2FuYXJ5\"}}]}".to_owned(),
        format!(
            "{{displayName: x, contacts: [\"{key}\", \"{key}\"], redirectURIs: [\"{key}\"], clientURI: \"{key}\"}}"
        ),
        format!(
            "{{displayName: x, grantTypes: [\"{key}\"], rotateMintedBefore: \"{key}\", deletionPolicy: \"{key}\"}}"
        ),
        format!("{{displayName: x, clientID: \"{key}\", secretTemplate: {{labels: {{a: \"{key}\"}}}}}}"),
        format!("{{displayName: [\"{key}\"], privateKey: \"{key}\"}}"),
    ];
    let mut files: Vec<_> = specs.iter().map(|spec| file("a", &registration(spec))).collect();
    files.push(file(
        "b",
        "apiVersion: appreg.dev/v1alpha1\nkind: A\nspec:\n  pem: |\n-----BEGIN PRIVATE KEY-----\ncanary\n",
    ));
    files.push(file("c", "a: \"canary"));
    files.push(file("d", "- canary\n"));
    let report = lint(&files, &options()).unwrap();
    assert_eq!(report.obstacles.len(), 3);
    assert!(report.findings.len() > 12);
    for output in [Output::Human, Output::Json, Output::Sarif] {
        let text = written(&report, output);
        for secret in ["canary", "Y2FuYXJ5", "BEGIN PRIVATE"] {
            assert!(!text.contains(secret), "{output:?}: {text}");
        }
    }
}

#[test]
fn what_cannot_be_read_is_said_with_the_fix_and_the_rest_is_checked() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(
        at("good.yaml"),
        "apiVersion: appreg.dev/v1alpha1\nkind: AppRegistration\nmetadata: {name: a}\nspec: {displayName: A}\n",
    )
    .unwrap();
    std::fs::write(at("latin.yaml"), b"a: \xe9\n").unwrap();
    std::fs::write(at("large.yaml"), vec![b' '; 17 * 1024 * 1024]).unwrap();
    let mut input = Cursor::new("{\"apiVersion\": \"v1\", \"kind\": \"Secret\"}");
    let names =
        [at("good.yaml"), at("latin.yaml"), at("large.yaml"), at("missing.yaml"), directory.path().into(), "-".into()];
    let files: Vec<_> = names.iter().map(|name| read(name, &mut input)).collect();
    let report = lint(&files, &options()).unwrap();
    let said: Vec<_> = report.obstacles.iter().map(|obstacle| obstacle.message.as_str()).collect();
    for (said, expected) in said.iter().zip([
        "latin.yaml is not UTF-8: save it as UTF-8",
        "large.yaml is larger than 16777216 bytes: split it",
        "missing.yaml cannot be read: No such file",
        "is a directory: name its files, as in",
    ]) {
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(said.len(), 4);
    assert_eq!((report.checked["AppRegistration"], report.skipped), (1, 1));
    assert_eq!(report.status(), Status::Unknown);
    assert!(files.iter().any(|file| Path::new(&file.name) == Path::new("-")));
}
