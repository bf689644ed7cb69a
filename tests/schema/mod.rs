//! What the schema and the rules of each kind accept and refuse, and what is said of it.
//!
//! Two tests use it: `tests/cluster/rules.rs` shows that the API server answers so, `tests/it/lint/rules.rs` that
//! `appreg lint` does. Each refusal names the field and the fix.

pub(crate) mod governors;
mod registrations;
pub(crate) mod renamed;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub(crate) use registrations::*;

/// An object of these tables as an `AppRegistration`.
pub(crate) fn registration(object: &str) -> Value {
    let mut object: Value = serde_yaml::from_str(object).unwrap();
    object["apiVersion"] = json!("appreg.dev/v1alpha1");
    object["kind"] = json!("AppRegistration");
    object
}

/// A spec of these tables, with a display name where it has none.
pub(crate) fn spec(yaml: &str) -> Value {
    let texts = (0..70).map(|n| format!("https://shop.example/{n}")).collect::<Vec<_>>();
    let entries = (0..17).map(|n| json!({"name": n.to_string(), "clientSecret": {}})).collect::<Vec<_>>();
    let apis = (0..17).map(|n| json!({"audience": n.to_string()})).collect::<Vec<_>>();
    let fields = (0..17).map(|n| (n.to_string(), "client_id")).collect::<BTreeMap<_, _>>();
    let numbers = |count: usize| json!((0..count).map(|n| n.to_string()).collect::<Vec<_>>()).to_string();
    let yaml = yaml
        .replace("MANY_ENTRIES", &json!(entries).to_string())
        .replace("MANY_APIS", &json!(apis).to_string())
        .replace("ITEMS_22", &numbers(22))
        .replace("ITEMS_32", &numbers(32))
        .replace("ITEMS_43", &numbers(43))
        .replace("ITEMS_64", &numbers(64))
        .replace("MANY_FIELDS", &json!(fields).to_string())
        .replace("MANY", &json!(texts).to_string())
        .replace("CHARACTERS_253", &"x".repeat(253))
        .replace("CHARACTERS_252", &"x".repeat(252))
        .replace("CHARACTERS_64", &"x".repeat(64))
        .replace("LONGEST", &"x".repeat(13_000))
        .replace("LONG", &"x".repeat(5000));
    let mut all = json!({"displayName": "Shop"});
    let Value::Object(fields) = serde_yaml::from_str(&yaml).unwrap() else { panic!("not a map: {yaml}") };
    all.as_object_mut().unwrap().extend(fields);
    all
}

/// Adds to `wrong` where an answer is no refusal, lacks a part of what shall be said, or repeats what may be a key.
pub(crate) fn expect_refusal(wrong: &mut Vec<String>, case: &str, answer: Result<(), String>, said: &[&str]) {
    match answer {
        Ok(()) => wrong.push(format!("{case}: should be refused")),
        Err(message) => {
            if message.contains("canary") {
                wrong.push(format!("{case}: should not repeat what may be a private key, but: {message}"));
            }
            for part in said.iter().filter(|part| !message.contains(**part)) {
                wrong.push(format!("{case}: should say `{part}`, but: {message}"));
            }
        }
    }
}
