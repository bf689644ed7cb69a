//! `appreg lint`: the same answers as an API server and the operator, without either.

mod rules;

use std::collections::BTreeMap;

use appreg::cli::lint::Options;

/// As without any flag.
fn options() -> Options {
    Options {
        namespace: "default".to_owned(),
        namespace_labels: BTreeMap::new(),
        config: None,
        now: "2026-11-26T12:00:00Z".parse().unwrap(),
    }
}
