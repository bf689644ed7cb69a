//! `appreg lint`: what an API server and the operator would say of files, without a cluster.
//!
//! An object is held against the definition of its kind as for a creation: its schema, and its rules in CEL. Rules about
//! changes compare with what a cluster has stored; they are listed as not evaluated.

mod definition;
mod field_path;
mod files;
mod finding;
mod input;
mod names;
mod output;
mod report;

use self::definition::{Checked, Definition};
use self::input::Object;
use crate::api::names::GROUP;

pub use self::definition::Unusable;
pub use self::field_path::FieldPath;
pub use self::files::{File, read};
pub use self::finding::{Level, Place, Rule, Violation};
pub use self::input::Unreadable;
pub use self::output::{Output, write};
pub use self::report::{Finding, ObjectName, Obstacle, Report, Status};

/// What the files do not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The namespace of objects that name none: `kubectl` takes that of its context.
    pub namespace: String,
}

/// Holds the objects of files against the definitions of their kinds.
pub fn lint(files: &[File], options: &Options) -> Result<Report, Unusable> {
    let definitions = Definition::all()?;
    let mut report = Report::default();
    for file in files {
        match file.text.as_deref().map_err(Clone::clone).and_then(input::objects) {
            Ok(objects) => {
                for object in objects {
                    check(&definitions, &file.name, &object, options, &mut report);
                }
            }
            Err(Unreadable { place, message }) => {
                let message = format!("{} {message}", file.name);
                report.obstacles.push(Obstacle { file: file.name.clone(), place, message });
            }
        }
    }
    report.notes.extend(unseen(&definitions, &report));
    report.findings.sort();
    Ok(report)
}

fn check(definitions: &[Definition], file: &str, object: &Object, options: &Options, report: &mut Report) {
    let (api_version, kind) =
        (object.text("/apiVersion").unwrap_or_default(), object.text("/kind").unwrap_or_default());
    if api_version.split('/').next() != Some(GROUP) {
        report.skipped += 1;
        return;
    }
    let definition = definitions.iter().find(|known| known.kind == kind && known.api_version == api_version);
    let name = name(object, definition, options);
    *report.checked.entry(kind.to_owned()).or_default() += 1;
    let Checked { violations, unevaluated, rules_left_out } = match definition {
        Some(definition) => {
            let mut checked = definition.check(&object.json);
            checked.violations.extend(names::check(&object.json, definition.namespaced));
            checked
        }
        None => Checked { violations: vec![unknown_kind(definitions, kind)], ..Checked::default() },
    };
    if rules_left_out {
        report.notes.push(format!("{name}: its rules were not evaluated, because other errors must be mended first"));
    }
    report.obstacles.extend(unevaluated.into_iter().map(|rule| Obstacle {
        file: file.to_owned(),
        place: Some(object.place(&rule.field)),
        message: format!("{name}: {}: the rule {} could not be evaluated: {}", rule.field, rule.rule, rule.reason),
    }));
    report.findings.extend(violations.into_iter().map(|violation| Finding {
        file: file.to_owned(),
        place: object.place(&violation.field),
        object: name.clone(),
        violation,
    }));
}

fn name(object: &Object, definition: Option<&Definition>, options: &Options) -> ObjectName {
    let namespace = object.text("/metadata/namespace").filter(|namespace| !namespace.is_empty());
    let namespaced = definition.is_some_and(|definition| definition.namespaced);
    ObjectName {
        kind: object.text("/kind").unwrap_or_default().to_owned(),
        namespace: namespaced.then(|| namespace.unwrap_or(&options.namespace).to_owned()),
        name: object.text("/metadata/name").unwrap_or_default().to_owned(),
    }
}

fn unknown_kind(definitions: &[Definition], kind: &str) -> Violation {
    let known: Vec<_> = definitions.iter().map(|known| format!("{} of {}", known.kind, known.api_version)).collect();
    let field = if definitions.iter().any(|known| known.kind == kind) { "apiVersion" } else { "kind" };
    Violation::error(Rule::UnknownKind, FieldPath::default().field(field), "Unsupported value: there is no such kind")
        .to_fix(format!("write {}", known.join(", or ")))
}

/// What a run never evaluates, in a sentence for each kind that it met.
fn unseen(definitions: &[Definition], report: &Report) -> Vec<String> {
    let met = definitions.iter().filter(|definition| report.checked.contains_key(&definition.kind));
    met.filter_map(|definition| {
        let fields: Vec<_> = definition.fields_of_changes().into_iter().collect();
        (!fields.is_empty()).then(|| {
            format!(
                "{}: rules about changes were not evaluated, because they compare with what a cluster has stored: those of {}",
                definition.kind,
                fields.join(", ")
            )
        })
    })
    .collect()
}
