//! The report for people, as a compiler writes it.

use std::io::{Result, Write};

use crate::cli::lint::finding::{Level, Place};
use crate::cli::lint::report::{Finding, Obstacle, Report};

/// The whole report; it ends with what was looked at.
pub(super) fn write(report: &Report, out: &mut dyn Write) -> Result<()> {
    report.findings.iter().try_for_each(|finding| write_finding(finding, out))?;
    report.obstacles.iter().try_for_each(|obstacle| write_obstacle(obstacle, out))?;
    report.notes.iter().try_for_each(|note| writeln!(out, "note: {note}"))?;
    writeln!(out, "{}", summary(report))
}

fn write_finding(finding: &Finding, out: &mut dyn Write) -> Result<()> {
    let Finding { file, place: Place { line, column }, object, violation } = finding;
    let level = match violation.level {
        Level::Error => "error",
        Level::Warning => "warning",
    };
    writeln!(out, "{level}[{}]: {}", violation.rule.id(), violation.text())?;
    writeln!(out, "  --> {file}:{line}:{column}")?;
    writeln!(out, "   = {object}")?;
    if let Some(fix) = &violation.fix {
        writeln!(out, "   = fix: {fix}")?;
    }
    writeln!(out)
}

fn write_obstacle(Obstacle { file, place, message }: &Obstacle, out: &mut dyn Write) -> Result<()> {
    writeln!(out, "not evaluated: {message}")?;
    match place {
        Some(Place { line, column }) => writeln!(out, "  --> {file}:{line}:{column}\n"),
        None => writeln!(out, "  --> {file}\n"),
    }
}

fn summary(report: &Report) -> String {
    let checked: Vec<_> = report.checked.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let checked = if checked.is_empty() { "nothing of appreg.dev".to_owned() } else { checked.join(", ") };
    let (errors, warnings) = (report.count(Level::Error), report.count(Level::Warning));
    format!(
        "{checked} checked, {} of other kinds skipped: {}, {}, {} not evaluated",
        report.skipped,
        counted(errors, "error"),
        counted(warnings, "warning"),
        report.obstacles.len()
    )
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
