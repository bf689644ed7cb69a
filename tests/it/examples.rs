//! The examples as files: each is a registration of today's API and has its line in the table.
//!
//! That a real API server accepts them, and what comes out, is shown in `tests/cluster/examples.rs`.

use std::fs;

use appreg::api::{AppRegistration, RegistrationPolicy};
use serde_json::Value;

/// Name and text of every example.
fn examples() -> Vec<(String, String)> {
    let mut examples: Vec<(String, String)> = fs::read_dir("examples")
        .unwrap()
        .map(|file| file.unwrap())
        .filter(|file| file.file_type().unwrap().is_file())
        .map(|file| (file.file_name().into_string().unwrap(), fs::read_to_string(file.path()).unwrap()))
        .filter(|(name, _)| name != "README.md")
        .collect();
    examples.sort();
    assert!(!examples.is_empty());
    examples
}

#[test]
fn each_example_is_a_registration_without_unknown_fields() {
    for (name, text) in examples() {
        let written: Value = serde_yaml::from_str(&text).unwrap();
        let registration: AppRegistration = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        // What the types do not know, they drop.
        let read = serde_json::to_value(&registration).unwrap();
        assert_eq!(read["spec"], written["spec"], "{name}");
        assert!(registration.status.is_none(), "{name}");
    }
}

#[test]
fn each_example_explains_itself_and_has_its_line_in_the_table() {
    let table = fs::read_to_string("examples/README.md").unwrap();
    for (name, text) in examples() {
        assert!(text.starts_with("# "), "{name} begins with what it shows");
        assert!(table.contains(&format!("| [{name}]({name}) |")), "{name} is not in the table");
    }
    let rows = table.lines().filter(|line| line.starts_with("| [")).count();
    assert_eq!(rows, examples().len(), "the table names a file that is not there");
}

#[test]
fn each_policy_is_for_an_example_that_says_so_and_allows_what_that_asks_for() {
    for file in fs::read_dir("examples/policies").unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let example = fs::read_to_string(format!("examples/{name}")).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(example.contains(&format!("policies/{name}")), "{name} does not name its policy");
        let written: Value =
            serde_yaml::from_str(&fs::read_to_string(format!("examples/policies/{name}")).unwrap()).unwrap();
        let policy: RegistrationPolicy = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&policy).unwrap()["spec"], written["spec"], "{name}");
    }
}

#[test]
fn no_two_examples_want_the_same_name_or_client_id() {
    let mut taken = std::collections::BTreeMap::new();
    for (file, text) in examples() {
        let registration: AppRegistration = serde_yaml::from_str(&text).unwrap();
        let client_id = registration.spec.client_id.clone();
        for name in registration.metadata.name.iter().chain(&client_id) {
            assert_eq!(taken.insert(name.clone(), file.clone()), None, "{name} in {file}");
        }
    }
}
