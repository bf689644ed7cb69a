//! The schema of a kind as a tree beside which a value is walked.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

use super::Unusable;
use super::cel::Rule;
use super::formats::Format;
use crate::cli::lint::field_path::FieldPath;

/// What is known of a value: of a field, of the items of a list, of the values of a map.
pub(super) struct Schema {
    /// The fields of an object.
    pub(super) fields: BTreeMap<String, Schema>,
    /// The values of a map.
    pub(super) values: Option<Box<Schema>>,
    /// The items of a list.
    pub(super) items: Option<Box<Schema>>,
    /// Whether fields that it does not name are kept.
    pub(super) keeps_unknown: bool,
    /// Whether a `null` is a value.
    pub(super) nullable: bool,
    /// What is unique among the items of a list.
    pub(super) unique: Unique,
    /// How a text is read.
    pub(super) format: Format,
    /// The rules in CEL.
    pub(super) rules: Vec<Rule>,
}

/// What is unique in a list (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unique {
    /// Nothing.
    Nothing,
    /// Each item.
    Item,
    /// These fields of each item, together.
    Fields(Vec<String>),
}

impl Schema {
    /// The tree of a structural schema, with its rules compiled.
    pub(super) fn new(props: &JSONSchemaProps) -> Result<Self, Unusable> {
        let fields = props.properties.iter().flatten();
        let values = match &props.additional_properties {
            Some(JSONSchemaPropsOrBool::Schema(values)) => Some(Box::new(Self::new(values)?)),
            Some(JSONSchemaPropsOrBool::Bool(_)) | None => None,
        };
        let items = match &props.items {
            Some(JSONSchemaPropsOrArray::Schema(items)) => Some(Box::new(Self::new(items)?)),
            Some(JSONSchemaPropsOrArray::Schemas(_)) | None => None,
        };
        let unique = match props.x_kubernetes_list_type.as_deref() {
            Some("set") => Unique::Item,
            Some("map") => Unique::Fields(props.x_kubernetes_list_map_keys.clone().unwrap_or_default()),
            _ => Unique::Nothing,
        };
        let format = Format::of(props.type_.as_deref(), props.format.as_deref())
            .ok_or_else(|| Unusable::Format(props.format.clone().unwrap_or_default()))?;
        Ok(Self {
            fields: fields
                .map(|(name, field)| Ok((name.clone(), Self::new(field)?)))
                .collect::<Result<_, Unusable>>()?,
            keeps_unknown: props.x_kubernetes_preserve_unknown_fields == Some(true)
                || matches!(props.additional_properties, Some(JSONSchemaPropsOrBool::Bool(true))),
            nullable: props.nullable == Some(true),
            rules: props.x_kubernetes_validations.iter().flatten().map(Rule::new).collect::<Result<_, _>>()?,
            values,
            items,
            unique,
            format,
        })
    }

    /// The schema of a field, or of a value of a map.
    pub(super) fn field(&self, name: &str) -> Option<&Self> {
        self.fields.get(name).or(self.values.as_deref())
    }

    /// Calls `see` for this schema and its value, and for all below that have both, from above.
    pub(super) fn walk<'v>(
        &self,
        value: &'v Value,
        path: &FieldPath,
        see: &mut impl FnMut(&Self, &'v Value, &FieldPath),
    ) {
        see(self, value, path);
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Some(schema) = self.field(name) {
                        schema.walk(value, &path.field(name), see);
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    if let Some(schema) = &self.items {
                        schema.walk(item, &path.item(index), see);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Takes away each `null` that the API server drops instead of storing it.
    pub(super) fn without_nulls(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, value| !value.is_null() || self.field(name).is_none_or(|schema| schema.nullable));
                for (name, value) in fields {
                    if let Some(schema) = self.field(name) {
                        schema.without_nulls(value);
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    if let Some(schema) = &self.items {
                        schema.without_nulls(item);
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// Every rule below this schema, with the path of what it is about; `[]` stands for any item, `*` for any value.
    pub(super) fn all_rules<'s>(&'s self, path: &str, found: &mut Vec<(String, &'s Rule)>) {
        found.extend(self.rules.iter().map(|rule| (format!("{path}{}", rule.field()), rule)));
        for (name, field) in &self.fields {
            let dot = if path.is_empty() { "" } else { "." };
            field.all_rules(&format!("{path}{dot}{name}"), found);
        }
        if let Some(items) = &self.items {
            items.all_rules(&format!("{path}[]"), found);
        }
        if let Some(values) = &self.values {
            values.all_rules(&format!("{path}.*"), found);
        }
    }
}
