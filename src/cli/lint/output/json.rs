//! The report for scripts. Fields are only ever added.

use serde_json::{Value, json};

use crate::cli::lint::finding::{Level, Place};
use crate::cli::lint::report::Report;

/// One object for the whole report.
pub(super) fn document(report: &Report) -> Value {
    let findings = report.findings.iter().map(|finding| {
        let violation = &finding.violation;
        json!({
            "file": finding.file,
            "line": finding.place.line,
            "column": finding.place.column,
            "level": match violation.level {
                Level::Error => "error",
                Level::Warning => "warning",
            },
            "rule": violation.rule.id(),
            "kind": finding.object.kind,
            "namespace": finding.object.namespace,
            "name": finding.object.name,
            "field": violation.field.to_string(),
            "message": violation.message,
            "fix": violation.fix,
        })
    });
    let obstacles = report.obstacles.iter().map(|obstacle| {
        let place = |of: fn(&Place) -> u64| obstacle.place.as_ref().map(of);
        json!({
            "file": obstacle.file,
            "line": place(|place| place.line),
            "column": place(|place| place.column),
            "message": obstacle.message,
        })
    });
    json!({
        "findings": findings.collect::<Vec<_>>(),
        "notEvaluated": obstacles.collect::<Vec<_>>(),
        "notes": report.notes,
        "checked": report.checked,
        "skipped": report.skipped,
    })
}
