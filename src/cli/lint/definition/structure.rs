//! What a schema says without CEL: fields, types, lengths, patterns, formats, duplicates. In the API server's words, but
//! without the value that it would repeat.

use std::collections::BTreeSet;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::LocationSegment;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::Unusable;
use super::formats;
use super::schema::{Schema, Unique};
use crate::cli::lint::field_path::FieldPath;
use crate::cli::lint::finding::{Rule, Violation};
use crate::cli::lint::renamed::renamed;

/// The longest key of a list's item that is repeated: a private key is longer.
const SHOWN_KEY_CHARACTERS: usize = 63;

/// A validator of a structural schema, which is JSON Schema of draft 4 in all that it can say.
pub(super) fn validator(schema: &Value) -> Result<Validator, Unusable> {
    jsonschema::options()
        .with_draft(Draft::Draft4)
        .with_pattern_options(PatternOptions::regex()) // like Go's: linear in time, without look-around
        .should_validate_formats(true)
        .with_format("duration", formats::is_duration)
        .with_format("date-time", formats::is_time)
        .build(schema)
        .map_err(|error| Unusable::Schema(error.to_string()))
}

/// What the schema refuses, and whether the rules in CEL can be evaluated all the same.
pub(super) fn check(validator: &Validator, value: &Value) -> (Vec<Violation>, bool) {
    let errors: Vec<_> = validator.iter_errors(value).collect();
    let evaluable = !errors.iter().any(|error| is_in_the_way(error.kind()));
    (errors.iter().map(violation).collect(), evaluable)
}

/// After these the API server evaluates no rule; nor can a rule be evaluated here whose time or duration is none.
fn is_in_the_way(kind: &ValidationErrorKind) -> bool {
    use ValidationErrorKind as Kind;
    matches!(
        kind,
        Kind::Required { .. }
            | Kind::Type { .. }
            | Kind::Enum { .. }
            | Kind::MaxLength { .. }
            | Kind::MaxItems { .. }
            | Kind::MaxProperties { .. }
            | Kind::Format { .. }
    )
}

/// Fields that the schema does not have. The API server would drop them, and `kubectl --validate=strict` refuses them.
pub(super) fn unknown_fields(schema: &Schema, value: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    schema.walk(value, &FieldPath::default(), &mut |schema, value, path| {
        let Value::Object(fields) = value else { return };
        let is_open = schema.keeps_unknown || schema.values.is_some();
        let of_the_object = |name: &str| path.parent().is_none() && ["apiVersion", "kind", "metadata"].contains(&name);
        for name in fields.keys().filter(|name| !is_open && schema.field(name).is_none() && !of_the_object(name)) {
            let field = path.field(name);
            if let Some(renamed) = renamed(kind, &field) {
                let message = format!("unknown field: it is called {} now", renamed.new);
                found.push(Violation::error(Rule::UnknownField, field, message).to_fix(renamed.fix));
                continue;
            }
            let meant = closest(name, schema.fields.keys().map(String::as_str));
            let fix = meant.map_or("remove it".to_owned(), |meant| format!("remove it, or write {meant}"));
            found.push(Violation::error(Rule::UnknownField, field, "unknown field").to_fix(fix));
        }
    });
    found
}

/// Items that stand twice in a list where each is to be unique.
pub(super) fn duplicates(schema: &Schema, value: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    schema.walk(value, &FieldPath::default(), &mut |schema, value, path| {
        let Value::Array(items) = value else { return };
        let key = |item: &Value| match &schema.unique {
            Unique::Nothing => None,
            Unique::Item => Some(item.clone()),
            Unique::Fields(names) => {
                Some(names.iter().filter_map(|name| Some((name.clone(), item.get(name)?.clone()))).collect())
            }
        };
        let mut seen = BTreeSet::new();
        for (index, key) in items.iter().enumerate().filter_map(|(index, item)| Some((index, key(item)?))) {
            if seen.insert(key.to_string()) {
                continue;
            }
            let shown = if key.is_object() && short(&key) { format!(": {key}") } else { String::new() };
            found.push(
                Violation::error(Rule::DuplicateItem, path.item(index), format!("Duplicate value{shown}"))
                    .to_fix("remove one of them"),
            );
        }
    });
    found
}

/// The name closest to one that does not exist.
pub(in crate::cli::lint) fn closest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let score = |other: &str| strsim::jaro_winkler(&name.to_lowercase(), &other.to_lowercase());
    names
        .map(|other| (score(other), other))
        .filter(|(score, _)| *score > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, other)| other)
}

fn short(key: &Value) -> bool {
    key.as_object().into_iter().flatten().all(|(_, value)| value.to_string().chars().count() <= SHOWN_KEY_CHARACTERS)
}

fn violation(error: &ValidationError<'_>) -> Violation {
    use ValidationErrorKind as Kind;
    let path = error.instance_path().segments().fold(FieldPath::default(), |path, segment| match segment {
        LocationSegment::Property(name) => path.field(&name),
        LocationSegment::Index(index) => path.item(index),
    });
    let at = |rule, message: String| Violation::error(rule, path.clone(), message);
    match error.kind() {
        Kind::Required { property } => {
            let field = path.field(property.as_str().unwrap_or_default());
            Violation::error(Rule::RequiredField, field, "Required value").to_fix("write it")
        }
        Kind::Type { kind } => at(Rule::FieldType, format!("Invalid value: must be of type {}", types(kind))),
        Kind::Enum { options } => {
            let refused = at(Rule::FieldValue, format!("Unsupported value: supported values: {}", listed(options)));
            match differing_in_case(options, error.instance()) {
                Some(meant) => refused.to_fix(format!("write {meant}")),
                None => refused,
            }
        }
        Kind::MaxLength { limit } => {
            at(Rule::FieldLength, format!("Too long: may not be more than {limit} characters"))
        }
        Kind::MaxItems { limit } | Kind::MaxProperties { limit } => {
            at(Rule::FieldLength, format!("Too many: must have at most {limit} items"))
        }
        Kind::MinLength { limit } => {
            at(Rule::FieldLength, format!("Invalid value: should be at least {limit} chars long"))
        }
        Kind::MinItems { limit } => at(Rule::FieldLength, format!("Invalid value: should have at least {limit} items")),
        Kind::MinProperties { limit } => {
            at(Rule::FieldLength, format!("Invalid value: should have at least {limit} properties"))
        }
        Kind::Pattern { pattern } => at(Rule::FieldPattern, format!("Invalid value: should match '{pattern}'")),
        Kind::Format { format } => at(Rule::FieldFormat, format!("Invalid value: must be of type {format}")),
        Kind::Maximum { limit } => {
            at(Rule::FieldSchema, format!("Invalid value: should be less than or equal to {limit}"))
        }
        Kind::Minimum { limit } => {
            at(Rule::FieldSchema, format!("Invalid value: should be greater than or equal to {limit}"))
        }
        other => at(Rule::FieldSchema, format!("Invalid value: should be as the schema's {} says", other.keyword())),
    }
}

fn types(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => one.to_string(),
        TypeKind::Multiple(several) => several.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" or "),
    }
}

/// The option that a value is, but for upper and lower case: `clientSecret` was once what `ClientSecret` is now.
fn differing_in_case<'o>(options: &'o Value, value: &Value) -> Option<&'o str> {
    let value = value.as_str()?;
    let mut options = options.as_array()?.iter().filter_map(Value::as_str);
    options.find(|option| option.eq_ignore_ascii_case(value))
}

fn listed(options: &Value) -> String {
    options.as_array().into_iter().flatten().map(Value::to_string).collect::<Vec<_>>().join(", ")
}
