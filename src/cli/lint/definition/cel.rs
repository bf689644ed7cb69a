//! The rules of `x-kubernetes-validations`, by the crate `cel`, with what Kubernetes adds to the language.
//!
//! Added are `isURL`, `url`, `getScheme`, `getHostname`, `isIP` and `sum`, and `duration`, which is whole nanoseconds here, as it
//! is in the API server. A rule that uses something else is said not to be evaluated. Rules about changes (`oldSelf`) compare
//! with what a cluster has stored, and are listed instead.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use cel::extractors::This;
use cel::objects::{Key, Map};
use cel::{Context, ExecutionError, Program, Value as CelValue};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use serde_json::Value;

use super::Unusable;
use super::formats::{self, Format};
use super::schema::Schema;
use super::url::Url;
use crate::cli::lint::field_path::FieldPath;
use crate::cli::lint::finding::{Rule as Kind, Violation};

/// A rule, compiled.
pub(super) struct Rule {
    source: ValidationRule,
    program: Program,
    message: Option<Program>,
}

impl Rule {
    pub(super) fn new(source: &ValidationRule) -> Result<Self, Unusable> {
        let compile = |expression: &str| {
            Program::compile(expression).map_err(|error| Unusable::Rule(expression.to_owned(), error.to_string()))
        };
        Ok(Self {
            program: compile(&source.rule)?,
            message: source.message_expression.as_deref().map(compile).transpose()?,
            source: source.clone(),
        })
    }

    /// The expression.
    pub(super) fn expression(&self) -> &str {
        &self.source.rule
    }

    /// What it says where it does not hold.
    pub(super) fn message(&self) -> &str {
        self.source.message.as_deref().unwrap_or(&self.source.rule)
    }

    /// The field below its own that it is about, with a leading dot.
    pub(super) fn field(&self) -> &str {
        self.source.field_path.as_deref().unwrap_or_default()
    }

    /// Whether it is about a change.
    pub(super) fn is_about_a_change(&self) -> bool {
        self.program.references().has_variable("oldSelf")
    }
}

/// A rule that could not be evaluated, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli::lint) struct Unevaluated {
    /// The expression.
    pub(in crate::cli::lint) rule: String,
    /// The field that it was evaluated for.
    pub(in crate::cli::lint) field: FieldPath,
    /// The reason.
    pub(in crate::cli::lint) reason: String,
}

/// Evaluates every rule about `value` and what is below it.
pub(super) fn check(schema: &Schema, value: &Value) -> (Vec<Violation>, Vec<Unevaluated>) {
    let library = library();
    let (mut violations, mut unevaluated) = (Vec::new(), Vec::new());
    schema.walk(value, &FieldPath::default(), &mut |schema, value, path| {
        if schema.rules.is_empty() {
            return;
        }
        let mut context = library.new_inner_scope();
        context.add_variable_from_value("self", cel_value(Some(schema), value));
        for rule in schema.rules.iter().filter(|rule| !rule.is_about_a_change()) {
            match rule.program.execute(&context) {
                Ok(CelValue::Bool(true)) => {}
                Ok(CelValue::Bool(false)) => violations.push(violation(rule, path, &context)),
                Ok(_) => unevaluated.push(because(rule, path, "it gives neither true nor false")),
                Err(error) => unevaluated.push(because(rule, path, &reason(&error))),
            }
        }
    });
    (violations, unevaluated)
}

fn violation(rule: &Rule, path: &FieldPath, context: &Context<'_, '_>) -> Violation {
    let said = rule.message.as_ref().and_then(|message| match message.execute(context) {
        Ok(CelValue::String(text)) => Some(text.to_string()),
        _ => None,
    });
    let kind = match rule.source.reason.as_deref() {
        Some("FieldValueForbidden") => "Forbidden",
        Some("FieldValueRequired") => "Required value",
        Some("FieldValueDuplicate") => "Duplicate value",
        _ => "Invalid value",
    };
    let text = said.unwrap_or_else(|| rule.message().to_owned());
    Violation::error(Kind::ValidationRule, path.below(rule.field()), format!("{kind}: {text}"))
}

fn because(rule: &Rule, path: &FieldPath, reason: &str) -> Unevaluated {
    Unevaluated { rule: rule.expression().to_owned(), field: path.below(rule.field()), reason: reason.to_owned() }
}

/// Why an evaluation failed. Errors show the values that they met, which could be private keys: only names are repeated.
fn reason(error: &ExecutionError) -> String {
    match error {
        ExecutionError::UndeclaredReference(name) => format!("{name} is not known here"),
        ExecutionError::NoSuchKey(name) => format!("there is no {name}"),
        _ => "its evaluation fails".to_owned(),
    }
}

/// The functions that Kubernetes adds.
fn library() -> Context<'static, 'static> {
    fn url(text: &str) -> Result<CelValue, ExecutionError> {
        let url = Url::parse(text).ok_or_else(|| ExecutionError::function_error("url", "not a URL"))?;
        Ok(CelValue::Opaque(Arc::new(url)))
    }
    fn of_url(value: &CelValue, part: impl Fn(&Url) -> &str) -> Result<CelValue, ExecutionError> {
        match value {
            CelValue::Opaque(opaque) => opaque.downcast_ref::<Url>().map(|url| part(url).into()),
            _ => None,
        }
        .ok_or_else(|| ExecutionError::function_error("url", "not a URL"))
    }
    // Of a duration it is the same one; of a text, as Go reads it: without days and weeks.
    fn duration(value: &CelValue) -> Result<i64, ExecutionError> {
        match value {
            CelValue::Int(nanoseconds) => Some(*nanoseconds),
            CelValue::String(text) if !text.contains(['d', 'w']) => formats::nanoseconds(text),
            _ => None,
        }
        .ok_or_else(|| ExecutionError::function_error("duration", "not a duration"))
    }
    // Of whole numbers alone.
    fn sum(list: &CelValue) -> Result<i64, ExecutionError> {
        let CelValue::List(items) = list else { return Err(ExecutionError::function_error("sum", "not a list")) };
        let add = |sum: i64, item: &CelValue| match item {
            CelValue::Int(number) => sum.checked_add(*number),
            _ => None,
        };
        items.iter().try_fold(0, add).ok_or_else(|| ExecutionError::function_error("sum", "not whole numbers"))
    }
    let mut context = Context::default();
    let declared = context
        .add_function("isURL", |text: Arc<String>| Url::parse(&text).is_some())
        .and_then(|()| context.add_function("url", |text: Arc<String>| url(&text)))
        .and_then(|()| context.add_function("getScheme", |This(this): This<CelValue>| of_url(&this, |url| &url.scheme)))
        .and_then(|()| {
            context.add_function("getHostname", |This(this): This<CelValue>| of_url(&this, |url| &url.hostname))
        })
        .and_then(|()| context.add_function("isIP", |text: Arc<String>| is_ip(&text)))
        .and_then(|()| context.add_function("sum", |This(this): This<CelValue>| sum(&this)))
        .and_then(|()| context.add_function("duration", |value: CelValue| duration(&value)));
    debug_assert!(declared.is_ok(), "{declared:?}: a function of that name is part of the language by now");
    context
}

/// An address without zone, and none of IPv4 in the clothes of IPv6.
fn is_ip(text: &str) -> bool {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => true,
        Ok(IpAddr::V6(address)) => address.to_ipv4_mapped().is_none(),
        Err(_) => false,
    }
}

/// A value as rules see it: durations as nanoseconds, fields under names that CEL can write. Without a schema, as in
/// `metadata`, everything is what JSON says.
fn cel_value(schema: Option<&Schema>, value: &Value) -> CelValue {
    match value {
        Value::Null => CelValue::Null,
        Value::Bool(is) => CelValue::Bool(*is),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => CelValue::Int(integer),
            (None, Some(unsigned)) => CelValue::UInt(unsigned),
            (None, None) => CelValue::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => match formats::nanoseconds(text) {
            Some(nanoseconds) if schema.is_some_and(|schema| schema.format == Format::Duration) => {
                CelValue::Int(nanoseconds)
            }
            _ => text.as_str().into(),
        },
        Value::Array(items) => {
            let schema = schema.and_then(|schema| schema.items.as_deref());
            CelValue::List(Arc::new(items.iter().map(|item| cel_value(schema, item)).collect()))
        }
        Value::Object(fields) => {
            // A map's keys are what users wrote; an object's are names of fields.
            let is_map = schema.is_some_and(|schema| schema.values.is_some());
            let entry = |(name, value): (&String, &Value)| {
                let key = if is_map { name.clone() } else { escaped(name) };
                (Key::from(key), cel_value(schema.and_then(|schema| schema.field(name)), value))
            };
            CelValue::Map(Map { map: Arc::new(fields.iter().map(entry).collect::<HashMap<_, _>>()) })
        }
    }
}

/// The name of a field in CEL (k8s.io/apiserver/pkg/cel, Escape).
fn escaped(name: &str) -> String {
    const RESERVED: [&str; 18] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
    ];
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    let name = name.replace("__", "__underscores__");
    name.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}
