//! `appreg lint`: the same answers as an API server and the operator, without either.

mod output;
mod page;
mod policies;
mod rules;
mod sarif;

use std::collections::BTreeMap;

use appreg::cli::lint::{File, Options, Output, Report, lint, write};

/// As without any flag.
fn options() -> Options {
    Options {
        namespace: "default".to_owned(),
        namespace_labels: BTreeMap::new(),
        config: None,
        now: "2026-11-26T12:00:00Z".parse().unwrap(),
    }
}

fn file(name: &str, text: &str) -> File {
    File { name: name.to_owned(), text: Ok(text.to_owned()) }
}

/// What is said of one file without any flag.
fn report(text: &str) -> Report {
    lint(&[file("team/app.yaml", text)], &options()).unwrap()
}

fn written(report: &Report, output: Output) -> String {
    let mut out = Vec::new();
    write(report, output, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}
