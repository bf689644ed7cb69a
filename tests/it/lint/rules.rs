//! The tables of `tests/schema/`, which hold on a real API server: `appreg lint` says the same.

use std::collections::{BTreeMap, BTreeSet};

use appreg::api::crds;
use appreg::cli::lint::{File, Report, Rule, lint};
use serde_json::{Value, json};

use crate::schema::{self, ACCEPTED, CHANGES, CONFLICT, FIXED, REFUSED, UNKNOWN_FIELDS, expect_refusal};

/// An `AppRegistration` with this spec.
fn object(name: &str, spec: &str) -> Value {
    json!({
        "apiVersion": "appreg.dev/v1alpha1", "kind": "AppRegistration",
        "metadata": {"name": name}, "spec": schema::spec(spec),
    })
}

/// What the definitions say of each object, in one run; it is never that something could not be evaluated.
fn run(objects: impl IntoIterator<Item = Value>) -> (Report, Vec<Result<(), String>>) {
    let file = |(number, mut object): (usize, Value)| {
        // Each in a namespace of its own: the same name is another object there.
        if object["kind"] == "AppRegistration" {
            object["metadata"]["namespace"] = json!(format!("shop-{number}"));
        }
        File { name: number.to_string(), text: Ok(object.to_string()) }
    };
    let files: Vec<_> = objects.into_iter().enumerate().map(file).collect();
    let report = lint(&files, &super::options()).unwrap();
    assert_eq!(report.obstacles, []);
    let mut said = BTreeMap::<&str, Vec<String>>::new();
    let of_a_definition = |rule: Rule| rule <= Rule::ValidationRule;
    for finding in report.findings.iter().filter(|finding| of_a_definition(finding.violation.rule)) {
        let text = format!("{}: {}", finding.violation.field, finding.violation.message);
        said.entry(&finding.file).or_default().push(text);
    }
    let answer = |file: &File| said.get(file.name.as_str()).map_or(Ok(()), |said| Err(said.join(", ")));
    let answers = files.iter().map(answer).collect();
    (report, answers)
}

fn expect_acceptance(wrong: &mut Vec<String>, case: &str, answer: Result<(), String>) {
    if let Err(message) = answer {
        wrong.push(format!("{case}: should be accepted, but: {message}"));
    }
}

fn assert_right(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_the_api_server_accepts_is_accepted_and_what_it_refuses_is_refused_in_its_words() {
    let mut wrong = Vec::new();
    let (_, answers) = run(ACCEPTED.iter().map(|(_, spec)| object("rules", spec)));
    for ((case, _), answer) in ACCEPTED.iter().zip(answers) {
        expect_acceptance(&mut wrong, case, answer);
    }
    let (_, answers) = run(REFUSED.iter().map(|(_, spec, _)| object("rules", spec)));
    for ((case, _, said), answer) in REFUSED.iter().zip(answers) {
        expect_refusal(&mut wrong, case, answer, said);
    }
    let (_, mut answers) = run([object(&"a".repeat(64), "{}"), object(&"a".repeat(63), "{}")]);
    expect_acceptance(&mut wrong, "a metadata.name of 63 characters", answers.remove(1));
    expect_refusal(
        &mut wrong,
        "64 characters",
        answers.remove(0),
        &["metadata.name must have at most 63 characters: shorten it"],
    );
    assert_right(&wrong);
}

#[test]
fn what_governs_registrations_is_held_against_their_rules_as_well() {
    use schema::governors::{ACCEPTED, REFUSED, object};
    let mut wrong = Vec::new();
    let (_, answers) = run(ACCEPTED.iter().enumerate().map(|(n, (kind, spec))| object(kind, &format!("a{n}"), spec)));
    for ((kind, spec), answer) in ACCEPTED.iter().zip(answers) {
        expect_acceptance(&mut wrong, &format!("{kind} {spec}"), answer);
    }
    let (_, answers) = run(REFUSED.iter().enumerate().map(|(n, (kind, spec, _))| object(kind, &format!("r{n}"), spec)));
    for ((kind, spec, said), answer) in REFUSED.iter().zip(answers) {
        expect_refusal(&mut wrong, &format!("{kind} {spec}"), answer, said);
    }
    assert_right(&wrong);
}

/// The messages of the rules below a schema; those about changes are apart, and those that are made of the value are never
/// seen as they stand.
fn messages(schema: &Value, of_changes: bool, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                let about_a_change = rule["rule"].as_str().unwrap().contains("oldSelf");
                let is_seen = about_a_change == of_changes && rule["messageExpression"].is_null();
                if let Some(message) = rule["message"].as_str().filter(|_| is_seen) {
                    found.insert(message.to_owned());
                }
            }
            fields.values().for_each(|below| messages(below, of_changes, found));
        }
        Value::Array(items) => items.iter().for_each(|below| messages(below, of_changes, found)),
        _ => {}
    }
}

/// A rule that always holds, because it is evaluated wrongly, would be found by no case that accepts.
#[test]
fn each_rule_is_seen_to_refuse_something() {
    let specs = REFUSED.iter().map(|(_, spec, _)| object("rules", spec));
    let others = schema::governors::REFUSED.iter().enumerate();
    let others = others.map(|(n, (kind, spec, _))| schema::governors::object(kind, &format!("r{n}"), spec));
    let long = "a".repeat(128);
    let named = [("RegistrationPolicy", &*long), ("RegistrationApproval", &long), ("AuthorizationServer", &long)];
    let named = named.into_iter().chain([("AuthorizationServer", "default")]);
    let spec = |kind: &str| schema::governors::ACCEPTED.iter().find(|(of, _)| *of == kind).unwrap().1;
    let named = named.map(|(kind, name)| schema::governors::object(kind, name, spec(kind)));
    let all = specs.chain(others).chain(named).chain([object(&long[..64], "{}")]);
    let said: String = run(all).1.into_iter().filter_map(Result::err).collect();
    let mut rules = BTreeSet::new();
    for crd in crds::all() {
        messages(&serde_json::to_value(crd).unwrap(), false, &mut rules);
    }
    assert!(rules.len() > 30);
    let unseen: Vec<_> = rules.iter().filter(|message| !said.contains(message.as_str())).collect();
    assert_eq!(unseen, Vec::<&String>::new());
}

#[test]
fn two_entries_are_refused_exactly_where_they_would_write_the_same_field_of_one_secret() {
    let pairs = schema::pairs_of_entries();
    let (_, answers) = run(pairs.iter().map(|(spec, _)| object("rules", spec)));
    let mut wrong = Vec::new();
    for ((spec, conflict), answer) in pairs.iter().zip(answers) {
        if *conflict {
            expect_refusal(&mut wrong, spec, answer, CONFLICT);
        } else {
            expect_acceptance(&mut wrong, spec, answer);
        }
    }
    assert_right(&wrong);
}

#[test]
fn a_field_that_the_kind_does_not_have_is_named() {
    let (_, answers) = run(UNKNOWN_FIELDS.iter().map(|(object, _)| schema::registration(object)));
    for ((object, field), answer) in UNKNOWN_FIELDS.iter().zip(answers) {
        assert_eq!(answer, Err(format!("{field}: unknown field")), "{object}");
    }
}

#[test]
fn a_field_or_value_under_its_old_name_is_refused_with_the_new_one() {
    use schema::{governors, renamed};
    let numbered = renamed::FIELDS.iter().enumerate();
    let objects = numbered.map(|(n, (kind, spec, ..))| governors::object(kind, &format!("a{n}"), spec));
    let (report, _) = run(objects);
    assert_eq!(report.findings.len(), renamed::FIELDS.len(), "{:?}", report.findings);
    for (_, _, field, new) in renamed::FIELDS {
        let said = format!("{field}: unknown field: it is called {new} now");
        let found = report.findings.iter().find(|found| found.violation.text() == said);
        assert!(found.unwrap_or_else(|| panic!("{said}")).violation.fix.is_some(), "{said}");
    }
    for (kind, spec, field, new) in renamed::VALUES {
        let (report, answers) = run([governors::object(kind, "a", spec)]);
        assert!(answers[0].as_ref().is_err_and(|said| said.contains("Unsupported value")), "{answers:?}");
        let found = &report.findings[0].violation;
        assert_eq!((found.field.to_string(), found.fix.clone()), ((*field).to_owned(), Some(format!("write {new}"))));
    }
    for (status, field, new) in renamed::STATUS {
        let object = format!("{{metadata: {{name: a}}, spec: {{displayName: Shop}}, status: {status}}}");
        let (report, _) = run([schema::registration(&object)]);
        let said = format!("{field}: unknown field: it is called {new} now");
        assert!(report.findings.iter().any(|found| found.violation.text() == said), "{said}: {:?}", report.findings);
    }
}

#[test]
fn a_change_that_the_api_server_would_refuse_is_said_not_to_be_evaluated() {
    let cases = FIXED.iter().map(|(case, before, after, _)| (*case, before, after));
    let cases: Vec<_> = cases.chain(CHANGES.iter().map(|(case, before, after)| (*case, before, after))).collect();
    let both = cases.iter().flat_map(|(_, before, after)| [object("rules", before), object("rules", after)]);
    let (report, answers) = run(both);
    let mut wrong = Vec::new();
    for (number, answer) in answers.into_iter().enumerate() {
        expect_acceptance(&mut wrong, cases[number / 2].0, answer);
    }
    assert_right(&wrong);
    let note = report.notes.iter().find(|note| note.contains("rules about changes")).unwrap();
    for field in [
        "spec.clientID",
        "spec.authorizationServerRef",
        "spec.credentials",
        "spec.credentials[].name",
        "spec.credentials[].secretName",
    ] {
        assert!(note.contains(field), "{field}: {note}");
    }
}
