//! The report for what shows findings beside a change: SARIF 2.1.0 (OASIS, section numbers below).

use serde_json::{Value, json};

use crate::cli::lint::finding::{Level, Place, Rule};
use crate::cli::lint::report::{Finding, Obstacle, Report, Status};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// One log with one run.
pub(super) fn document(report: &Report) -> Value {
    let rules = Rule::ALL.map(|rule| {
        json!({"id": rule.id(), "shortDescription": {"text": rule.summary()}}) // section 3.49
    });
    let notes = report.notes.iter().map(|note| json!({"level": "note", "message": {"text": note}}));
    let obstacles = report.obstacles.iter().map(obstacle);
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0", // section 3.13
        "runs": [{ // section 3.14
            "tool": {"driver": { // section 3.18
                "name": "appreg lint",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "columnKind": "unicodeCodePoints",
            "invocations": [{ // section 3.20
                "executionSuccessful": report.status() != Status::Unknown,
                "exitCode": report.status() as u8,
                "toolExecutionNotifications": obstacles.chain(notes).collect::<Vec<_>>(),
            }],
            "results": report.findings.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

/// Section 3.27.
fn result(finding: &Finding) -> Value {
    let Finding { file, place, object, violation } = finding;
    let index = Rule::ALL.iter().position(|rule| *rule == violation.rule);
    let fix = violation.fix.as_ref().map(|fix| format!("\nFix: {fix}")).unwrap_or_default();
    json!({
        "ruleId": violation.rule.id(),
        "ruleIndex": index,
        "level": match violation.level {
            Level::Error => "error",
            Level::Warning => "warning",
        },
        "message": {"text": format!("{object}: {}{fix}", violation.text())},
        "locations": [location(file, Some(*place), Some((object.to_string(), violation.field.to_string())))],
    })
}

/// Section 3.58.
fn obstacle(Obstacle { file, place, message }: &Obstacle) -> Value {
    json!({"level": "error", "message": {"text": message}, "locations": [location(file, *place, None)]})
}

/// Section 3.28. A file is named by a URI reference, in which a blank, a `%` or a `#` would mean something else.
fn location(file: &str, place: Option<Place>, inside: Option<(String, String)>) -> Value {
    let uri = if file == "-" { "stdin".to_owned() } else { uri(file) };
    let mut physical = json!({"artifactLocation": {"uri": uri}});
    if let Some(Place { line, column }) = place {
        physical["region"] = json!({"startLine": line, "startColumn": column});
    }
    let mut location = json!({"physicalLocation": physical});
    if let Some((object, field)) = inside {
        location["logicalLocations"] = json!([{"fullyQualifiedName": format!("{object} {field}")}]);
    }
    location
}

fn uri(file: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let file = file.strip_prefix("./").unwrap_or(file);
    file.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
