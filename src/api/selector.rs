//! Which namespaces are meant: a LabelSelector as Kubernetes evaluates it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// The most labels and expressions that one selector has.
const MOST_REQUIREMENTS: u32 = 16;

/// Why a selector cannot be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidSelector {
    /// The field, below the selector.
    pub field: String,
    /// What is wrong with it, and how to mend it.
    pub problem: String,
}

/// Whether labels are selected; an empty selector selects everything.
///
/// Absent labels are as in Kubernetes: `NotIn` and `DoesNotExist` select an object that lacks the label.
pub fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Result<bool, InvalidSelector> {
    let mut selected = selector.match_labels.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        selected &= meets(index, expression, labels)?;
    }
    Ok(selected)
}

/// A selector as `kubectl` writes it: `tier=partner,team in (a,b),!legacy`; `{}` for an empty one.
#[must_use]
pub fn selector_text(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten().map(|(name, value)| format!("{name}={value}"));
    let expressions = selector.match_expressions.iter().flatten().map(|expression| {
        let (key, values) = (&expression.key, expression.values.as_deref().unwrap_or_default().join(","));
        match expression.operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.clone(),
        }
    });
    let all: Vec<_> = labels.chain(expressions).collect();
    if all.is_empty() { "{}".to_owned() } else { all.join(",") }
}

fn meets(
    index: usize,
    LabelSelectorRequirement { key, operator, values }: &LabelSelectorRequirement,
    labels: &BTreeMap<String, String>,
) -> Result<bool, InvalidSelector> {
    let values = values.as_deref().unwrap_or_default();
    let (takes_values, meets) = match operator.as_str() {
        "In" => (true, labels.get(key).is_some_and(|value| values.contains(value))),
        "NotIn" => (true, labels.get(key).is_none_or(|value| !values.contains(value))),
        "Exists" => (false, labels.contains_key(key)),
        "DoesNotExist" => (false, !labels.contains_key(key)),
        other => {
            let problem = format!("must be In, NotIn, Exists or DoesNotExist: replace {other}");
            return Err(InvalidSelector { field: format!("matchExpressions[{index}].operator"), problem });
        }
    };
    let problem = match (takes_values, values.is_empty()) {
        (true, true) => format!("must have an item for the operator {operator}: add one"),
        (false, false) => format!("must be empty for the operator {operator}: remove them"),
        _ => return Ok(meets),
    };
    Err(InvalidSelector { field: format!("matchExpressions[{index}].values"), problem })
}

/// The schema of a namespaceSelector, with the rules that Kubernetes has for its own.
pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    let name = json!({"type": "string", "minLength": 1, "maxLength": 317});
    json_schema!({
        "type": "object", "description": "The namespaces, by their labels; {} is every namespace.",
        "properties": {
            "matchLabels": {
                "type": "object", "maxProperties": MOST_REQUIREMENTS, "additionalProperties": value(),
                "description": "Labels that a namespace must have, all of them.",
            },
            "matchExpressions": {
                "type": "array", "maxItems": MOST_REQUIREMENTS, "x-kubernetes-list-type": "atomic",
                "description": "Expressions that the labels of a namespace must meet, all of them.",
                "items": {
                    "type": "object", "required": ["key", "operator"],
                    "properties": {
                        "key": with(name, "The name of the label."),
                        "operator": {"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "In and NotIn compare the label with values. Exists and DoesNotExist ask whether it is there."},
                        "values": {"type": "array", "maxItems": 64, "x-kubernetes-list-type": "atomic",
                            "items": value(), "description": "The values that In and NotIn compare with."},
                    },
                    "x-kubernetes-validations": [super::schema::rule_at(
                        ".values",
                        "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : !has(self.values) || self.values.size() == 0",
                        "values must have an item for In and NotIn, and none for Exists and DoesNotExist: add one, or remove them",
                    )],
                },
            },
        },
    })
}

fn value() -> Value {
    super::schema::label_value()
}

fn with(mut schema: Value, description: &str) -> Value {
    schema["description"] = json!(description);
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn expression(operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "team".into(),
                operator: operator.into(),
                values: (!values.is_empty()).then(|| values.iter().map(|v| (*v).to_owned()).collect()),
            }]),
            ..LabelSelector::default()
        }
    }

    #[test]
    fn a_selector_selects_as_kubernetes_does() {
        let (shop, none) = (labels(&[("team", "shop"), ("tier", "web")]), labels(&[]));
        let exact = LabelSelector { match_labels: Some(labels(&[("team", "shop")])), ..LabelSelector::default() };
        for (selector, of_shop, of_none) in [
            (LabelSelector::default(), true, true),
            (exact, true, false),
            (expression("In", &["bank", "shop"]), true, false),
            (expression("In", &["bank"]), false, false),
            (expression("NotIn", &["shop"]), false, true),
            (expression("NotIn", &["bank"]), true, true),
            (expression("Exists", &[]), true, false),
            (expression("DoesNotExist", &[]), false, true),
        ] {
            assert_eq!(selects(&selector, &shop), Ok(of_shop), "{selector:?}");
            assert_eq!(selects(&selector, &none), Ok(of_none), "{selector:?}");
        }
    }

    #[test]
    fn a_selector_is_written_as_kubectl_does() {
        let exact = LabelSelector { match_labels: Some(labels(&[("team", "shop")])), ..expression("Exists", &[]) };
        for (selector, text) in [
            (LabelSelector::default(), "{}"),
            (exact, "team=shop,team"),
            (expression("In", &["a", "b"]), "team in (a,b)"),
            (expression("NotIn", &["a"]), "team notin (a)"),
            (expression("DoesNotExist", &[]), "!team"),
        ] {
            assert_eq!(selector_text(&selector), text);
        }
    }

    #[test]
    fn what_cannot_be_evaluated_is_named() {
        for (selector, problem) in [
            (
                expression("Near", &[]),
                "matchExpressions[0].operator: must be In, NotIn, Exists or DoesNotExist: replace Near",
            ),
            (expression("In", &[]), "matchExpressions[0].values: must have an item for the operator In: add one"),
            (
                expression("Exists", &["a"]),
                "matchExpressions[0].values: must be empty for the operator Exists: remove them",
            ),
        ] {
            assert_eq!(selects(&selector, &labels(&[])).unwrap_err().to_string(), problem);
        }
    }
}
