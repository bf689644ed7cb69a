//! A report as text for people, as JSON, and as SARIF.

mod human;
mod json;
mod sarif;

use std::io;

use super::Report;

/// Who reads the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// People.
    Human,
    /// Scripts.
    Json,
    /// What shows findings beside a change (SARIF 2.1.0).
    Sarif,
}

/// Writes a report.
pub fn write(report: &Report, output: Output, out: &mut dyn io::Write) -> io::Result<()> {
    match output {
        Output::Human => human::write(report, out),
        Output::Json => document(&json::document(report), out),
        Output::Sarif => document(&sarif::document(report), out),
    }
}

fn document(document: &serde_json::Value, out: &mut dyn io::Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, document)?;
    out.write_all(b"\n")
}
