//! A `CustomResourceDefinition`, and what it says of an object: as an API server with that definition would answer a
//! creation.

mod cel;
mod formats;
mod schema;
mod structure;
mod url;

use std::collections::BTreeSet;

use jsonschema::Validator;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSONSchemaProps};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use self::schema::Schema;
use super::finding::Violation;
use crate::api::crds;

pub(super) use self::cel::Unevaluated;

/// A kind of `appreg.dev` in one of its versions.
pub(super) struct Definition {
    /// The kind.
    pub(super) kind: String,
    /// `group/version`.
    pub(super) api_version: String,
    /// Whether its objects are in namespaces.
    pub(super) namespaced: bool,
    schema: Schema,
    validator: Validator,
}

/// What a definition says of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checked {
    /// The object as it would be stored: without `null` and without status.
    pub(super) stored: Value,
    /// What it refuses, in the order of the fields.
    pub(super) violations: Vec<Violation>,
    /// Rules that could not be evaluated.
    pub(super) unevaluated: Vec<Unevaluated>,
    /// Whether its rules were left out, because what is refused must be mended first.
    pub(super) rules_left_out: bool,
}

/// A definition that cannot be used: a fault of this program, not of the files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The schema is none.
    #[error("the schema of a kind cannot be used: {0}")]
    Schema(String),
    /// It has a format that nobody here reads.
    #[error("the format {0} of a field cannot be checked")]
    Format(String),
    /// A rule that is no CEL.
    #[error("the rule {0} cannot be compiled: {1}")]
    Rule(String, String),
}

impl Definition {
    /// Every kind that appreg has, in each served version.
    pub(super) fn all() -> Result<Vec<Self>, Unusable> {
        crds::all()
            .iter()
            .map(Self::versions)
            .collect::<Result<Vec<_>, _>>()
            .map(|all| all.into_iter().flatten().collect())
    }

    fn versions(crd: &CustomResourceDefinition) -> Result<Vec<Self>, Unusable> {
        let versions = crd.spec.versions.iter().filter(|version| version.served);
        versions
            .map(|version| {
                let props = version.schema.as_ref().and_then(|validation| validation.open_api_v3_schema.as_ref());
                let mut props = props.cloned().ok_or_else(|| Unusable::Schema("there is none".to_owned()))?;
                props.properties.get_or_insert_default().insert("metadata".to_owned(), metadata()?);
                let json = serde_json::to_value(&props).map_err(|error| unusable(&error))?;
                Ok(Self {
                    kind: crd.spec.names.kind.clone(),
                    api_version: format!("{}/{}", crd.spec.group, version.name),
                    namespaced: crd.spec.scope == "Namespaced",
                    schema: Schema::new(&props)?,
                    validator: structure::validator(&json)?,
                })
            })
            .collect()
    }

    /// What an API server would say of the creation of an object.
    pub(super) fn check(&self, object: &Value) -> Checked {
        let mut violations = structure::unknown_fields(&self.schema, object);
        let mut stored = object.clone();
        // Who creates an object does not write its status, whatever it says of it.
        if let Value::Object(fields) = &mut stored {
            fields.remove("status");
        }
        self.schema.without_nulls(&mut stored);
        let (refused, evaluable) = structure::check(&self.validator, &stored);
        violations.extend(refused);
        violations.extend(structure::duplicates(&self.schema, &stored));
        let mut unevaluated = Vec::new();
        if evaluable {
            let (broken, failed) = cel::check(&self.schema, &stored);
            violations.extend(broken);
            unevaluated = failed;
        }
        violations.sort();
        violations.dedup();
        Checked { stored, violations, unevaluated, rules_left_out: !evaluable }
    }

    /// The fields of the rules about changes, which compare with what a cluster has stored; `[]` stands for any item.
    pub(super) fn fields_of_changes(&self) -> BTreeSet<String> {
        let mut rules = Vec::new();
        self.schema.all_rules("", &mut rules);
        rules.into_iter().filter(|(_, rule)| rule.is_about_a_change()).map(|(field, _)| field).collect()
    }
}

/// What every API server knows of `metadata`, whatever a definition says.
fn metadata() -> Result<JSONSchemaProps, Unusable> {
    let settings = SchemaSettings::openapi3().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<ObjectMeta>();
    let mut props: JSONSchemaProps = serde_json::from_value(schema.to_value()).map_err(|error| unusable(&error))?;
    // Kept by API servers alone; it has the names of all other fields inside.
    let anything = JSONSchemaProps { x_kubernetes_preserve_unknown_fields: Some(true), ..JSONSchemaProps::default() };
    props.properties.get_or_insert_default().insert("managedFields".to_owned(), anything);
    Ok(props)
}

fn unusable(error: &serde_json::Error) -> Unusable {
    Unusable::Schema(error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(definition: &Definition, object: &Value) -> Vec<String> {
        let checked = definition.check(object);
        assert_eq!(checked.unevaluated, []);
        checked.violations.iter().map(|found| format!("{}: {}", found.field, found.message)).collect()
    }

    #[test]
    fn every_rule_of_every_kind_compiles_and_every_format_is_known() {
        let definitions = Definition::all().unwrap();
        assert_eq!(definitions.len(), crds::all().len());
        for definition in definitions {
            let mut rules = Vec::new();
            definition.schema.all_rules("", &mut rules);
            assert!(!rules.is_empty(), "{}", definition.kind);
        }
    }

    #[test]
    fn what_an_api_server_adds_to_metadata_is_known() {
        let definitions = Definition::all().unwrap();
        let registration = definitions.iter().find(|definition| definition.kind == "AppRegistration").unwrap();
        let object = |metadata: Value| json!({"apiVersion": "a", "kind": "b", "metadata": metadata, "spec": {"displayName": "x"}});
        let exported = json!({
            "name": "a", "uid": "u", "resourceVersion": "1", "generation": 2, "creationTimestamp": "2026-11-22T07:00:00Z",
            "labels": {"a": "b"}, "annotations": {"a.example/b": ""}, "selfLink": "x",
            "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {".": {}}}}],
        });
        assert_eq!(said(registration, &object(exported)), [""; 0]);
        assert_eq!(said(registration, &object(json!({"name": "a", "creationTimestamp": null}))), [""; 0]);
        assert_eq!(
            said(registration, &object(json!({"name": "a", "labels": {"version": 1}}))),
            ["metadata.labels.version: Invalid value: must be of type string"]
        );
    }
}
