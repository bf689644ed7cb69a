//! The SARIF report against the published schema (OASIS SARIF 2.1.0), as far as the report uses it: the properties that
//! the schema requires, their types, and no property that it does not have. Section numbers are those of the standard.

use appreg::cli::lint::{Output, lint};
use serde_json::{Value, json};

use super::{file, options, written};

/// An object of the schema: these properties and no others.
fn object(required: &[&str], properties: &Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

fn list(items: &Value) -> Value {
    json!({"type": "array", "items": items})
}

fn schema() -> Value {
    let text = json!({"type": "string"});
    let message = object(&["text"], &json!({"text": text})); // 3.11: text or id
    let artifact = object(&[], &json!({"uri": {"type": "string", "format": "uri-reference"}})); // 3.4
    let line = json!({"type": "integer", "minimum": 1});
    let region = object(&[], &json!({"startLine": line, "startColumn": line})); // 3.30
    let physical = object(&["artifactLocation"], &json!({"artifactLocation": artifact, "region": region})); // 3.29
    let logical = object(&[], &json!({"fullyQualifiedName": text})); // 3.33
    let location = object(&[], &json!({"physicalLocation": physical, "logicalLocations": list(&logical)})); // 3.28
    let level = json!({"enum": ["none", "note", "warning", "error"]});
    let result = object(
        &["message"],
        &json!({
            "ruleId": text, "ruleIndex": {"type": "integer", "minimum": -1}, "level": level, "message": message,
            "locations": list(&location),
        }),
    ); // 3.27
    let notification = object(&["message"], &json!({"level": level, "message": message, "locations": list(&location)})); // 3.58
    let invocation = object(
        &["executionSuccessful"],
        &json!({
            "executionSuccessful": {"type": "boolean"}, "exitCode": {"type": "integer"},
            "toolExecutionNotifications": list(&notification),
        }),
    ); // 3.20
    let rule = object(&["id"], &json!({"id": text, "shortDescription": message})); // 3.49
    let driver = object(&["name"], &json!({"name": text, "semanticVersion": text, "rules": list(&rule)})); // 3.19
    let run = object(
        &["tool"],
        &json!({
            "tool": object(&["driver"], &json!({"driver": driver})),
            "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            "invocations": list(&invocation), "results": list(&result),
        }),
    ); // 3.14
    object(&["version", "runs"], &json!({"$schema": text, "version": {"enum": ["2.1.0"]}, "runs": list(&run)})) // 3.13
}

#[test]
fn the_sarif_report_has_what_the_standard_requires_and_nothing_that_it_does_not_know() {
    let bad = "{apiVersion: appreg.dev/v1alpha1, kind: AppRegistration, metadata: {name: a}, spec: {scopes: ['a b']}}";
    let files = [file("./a team/50%.yaml", bad), file("broken.yaml", "a: ["), file("-", "kind: 1")];
    let report = lint(&files, &options()).unwrap();
    let document: Value = serde_json::from_str(&written(&report, Output::Sarif)).unwrap();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema()).unwrap();
    let errors: Vec<_> =
        validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert_eq!(errors, Vec::<String>::new());

    let run = &document["runs"][0];
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), report.findings.len());
    for result in results {
        let rule = &run["tool"]["driver"]["rules"][usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
        let location = &result["locations"][0]["physicalLocation"];
        assert_eq!(location["artifactLocation"]["uri"], "a%20team/50%25.yaml");
        assert_eq!(location["region"]["startLine"], 1);
    }
    let invocation = &run["invocations"][0];
    assert_eq!((&invocation["executionSuccessful"], &invocation["exitCode"]), (&json!(false), &json!(2)));
    let told = invocation["toolExecutionNotifications"].as_array().unwrap();
    assert_eq!(told.iter().filter(|notification| notification["level"] == "error").count(), report.obstacles.len());
}

#[test]
fn a_clean_run_is_a_successful_one_without_results() {
    let document: Value = serde_json::from_str(&written(&super::report(""), Output::Sarif)).unwrap();
    assert_eq!(document["runs"][0]["results"], json!([]));
    assert_eq!(document["runs"][0]["invocations"][0]["exitCode"], 0);
}
