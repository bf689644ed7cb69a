//! The chart as files: it is consistent with the CRDs, the configuration and itself.
//!
//! What helm makes of it is shown on a real API server, in `tests/cluster/chart.rs`.

use std::{fs, path::Path};

use appreg::config::{Config, Policy};
use serde_json::{Map, Value};

const CHART: &str = "charts/appreg";

fn values_text() -> String {
    fs::read_to_string(format!("{CHART}/values.yaml")).unwrap()
}

fn values() -> Value {
    serde_yaml::from_str(&values_text()).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&fs::read_to_string(format!("{CHART}/values.schema.json")).unwrap()).unwrap()
}

/// A schema, or the definition that it refers to.
fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    schema["$ref"].as_str().map_or(schema, |reference| root.pointer(reference.trim_start_matches('#')).unwrap())
}

/// What a parent chart adds.
const OF_A_PARENT: [&str; 2] = [".enabled", ".global"];
/// Values that are Kubernetes' own types: a user may set more of their fields than the chart does.
const OF_KUBERNETES: [&str; 3] = ["podSecurityContext", "securityContext", "affinity"];

/// Whether a schema refuses what there was once, by a sentence that helm prints.
fn is_refusal(schema: &Value) -> bool {
    schema["const"].as_str().is_some_and(|text| text.starts_with("absent: "))
}

/// Where values and schema name different things; `path` is where we are in both.
fn differences(values: &Map<String, Value>, schema: &Value, root: &Value, path: &str) -> Vec<String> {
    let schema = resolved(schema, root);
    // A map of the user's own names, such as labels.
    let Some(properties) = schema["properties"].as_object().filter(|_| !schema["additionalProperties"].is_object())
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if schema["additionalProperties"] != Value::Bool(false) {
        found.push(format!("{path}: the schema lets a misspelt value pass"));
    }
    for (name, schema) in properties {
        let full = format!("{path}.{name}");
        let is_more = OF_A_PARENT.contains(&full.as_str()) || path.split('.').any(|part| OF_KUBERNETES.contains(&part));
        if !values.contains_key(name) && !is_more && !is_refusal(schema) {
            found.push(format!("{full}: not in values.yaml"));
        }
    }
    for (name, value) in values {
        let path = format!("{path}.{name}");
        match (properties.get(name), value) {
            (None, _) => found.push(format!("{path}: not in the schema")),
            (Some(schema), _) if is_refusal(schema) => found.push(format!("{path}: the schema refuses it")),
            (Some(schema), Value::Object(values)) => found.extend(differences(values, schema, root, &path)),
            (Some(_), _) => {}
        }
    }
    found
}

#[test]
fn the_chart_has_the_crds_of_the_repository() {
    let files = |directory: &Path| {
        let mut files: Vec<(String, String)> = fs::read_dir(directory)
            .unwrap()
            .map(|file| file.unwrap())
            .map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap()))
            .collect();
        files.sort();
        files
    };
    let crds = files(Path::new("crds"));
    assert!(!crds.is_empty());
    assert_eq!(files(&Path::new(CHART).join("files/crds")), crds);
}

#[test]
fn the_schema_names_every_value_and_no_other() {
    let (values, schema) = (values(), schema());
    assert_eq!(differences(values.as_object().unwrap(), &schema, &schema, ""), Vec::<String>::new());
}

#[test]
fn every_value_has_a_comment() {
    let text = values_text();
    let mut before = "";
    for line in text.lines() {
        let line = line.trim_start();
        let is_value = !line.is_empty() && !line.starts_with('#');
        assert!(!is_value || before.starts_with('#'), "no comment before `{line}`");
        before = line;
    }
}

#[test]
fn the_policy_in_the_values_is_the_one_of_the_program() {
    let document =
        serde_json::json!({"authorizationServer": {"issuer": "https://a.example"}, "policy": values()["policy"]});
    let config = Config::parse(&document.to_string()).unwrap();
    assert_eq!(config.policy, Policy::default());
    // Whoever reads the values sees all there is.
    let Value::Object(mut fields) = serde_json::to_value(Policy::default()).unwrap() else { panic!("an object") };
    fields.remove("name"); // of the built-in policy there is one
    let named: Vec<&String> = fields.keys().collect();
    let mut written: Vec<String> = values()["policy"].as_object().unwrap().keys().cloned().collect();
    written.sort();
    assert_eq!(written.iter().collect::<Vec<_>>(), named);
}

#[test]
fn a_proxy_in_the_values_is_one_of_the_program() {
    let schema = schema();
    let forwarded =
        schema.pointer("/properties/authorizationServer/properties/forwardedCertificates/properties").unwrap();
    let headers = forwarded["header"]["enum"].as_array().unwrap();
    assert_eq!(headers.len(), 3);
    for header in headers {
        let server = serde_json::json!({
            "issuer": "https://a.example",
            "forwardedCertificates": {"header": header, "proxies": ["10.0.0.0/8", "fd00::/8", "192.0.2.1"]},
        });
        let config = Config::parse(&serde_json::json!({"authorizationServer": server}).to_string()).unwrap();
        assert_eq!(config.server.forwarded_certificates.unwrap().header.name(), header);
    }
    let mut values = values()["authorizationServer"]["forwardedCertificates"].clone();
    assert_eq!(values["proxies"].take(), serde_json::json!([]), "nobody is believed unless named");
    assert!(headers.contains(&values["header"]));
}

#[test]
fn the_versions_of_chart_and_program_are_one() {
    let chart: Value = serde_yaml::from_str(&fs::read_to_string(format!("{CHART}/Chart.yaml")).unwrap()).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
}
