//! What a Secret has from `secretTemplate`: remembered in an annotation, so that it leaves the Secret with the template.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::api::{SecretTemplate, names};

/// The names that a template brought: the annotation [`names::APPLIED_TEMPLATE_ANNOTATION`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppliedTemplate {
    /// Of labels.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub labels: BTreeSet<String>,
    /// Of annotations.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub annotations: BTreeSet<String>,
    /// Of fields, each with the name of the field whose value it has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, String>,
}

impl AppliedTemplate {
    /// The names of a template.
    #[must_use]
    pub fn of(template: &SecretTemplate) -> Self {
        Self {
            labels: template.labels.keys().cloned().collect(),
            annotations: template.annotations.keys().cloned().collect(),
            fields: template.fields.iter().map(|(name, source)| (name.clone(), source.to_string())).collect(),
        }
    }

    /// Reads the annotation. One that was edited into something else says nothing: then a name stays that nobody can tell
    /// from somebody else's. It is anybody's to write, and names none of ours: those are written again at once.
    #[must_use]
    pub fn parse(annotation: Option<&str>) -> Self {
        let mut applied: Self = annotation.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let is_ours = |name: &String| name.split('/').next() == Some(names::GROUP) || name == names::MANAGED_BY_LABEL;
        applied.labels.retain(|name| !is_ours(name));
        applied.annotations.retain(|name| !is_ours(name));
        applied
    }

    /// The annotation; none where the template has nothing.
    #[must_use]
    pub fn to_annotation(&self) -> Option<String> {
        let is_empty = *self == Self::default();
        (!is_empty).then(|| serde_json::to_string(self).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_is_read_as_it_was_written_and_what_is_none_says_nothing() {
        let mut template = SecretTemplate::default();
        assert_eq!(AppliedTemplate::of(&template).to_annotation(), None);
        template.labels.insert("team".into(), "shop".into());
        template.annotations.insert("a.example/b".into(), "c".into());
        let applied = AppliedTemplate::of(&template);
        assert_eq!(AppliedTemplate::parse(applied.to_annotation().as_deref()), applied);
        for text in [None, Some(""), Some("[]"), Some("{\"labels\": 1}")] {
            assert_eq!(AppliedTemplate::parse(text), AppliedTemplate::default(), "{text:?}");
        }
    }

    #[test]
    fn an_edited_annotation_takes_no_mark_of_ours_away() {
        let applied = AppliedTemplate::parse(Some(
            r#"{"labels":["app.kubernetes.io/managed-by","appreg.dev/registration-uid","team"],"annotations":["appreg.dev/client-id"]}"#,
        ));
        assert_eq!(applied.labels, BTreeSet::from(["team".to_owned()]));
        assert_eq!(applied.annotations, BTreeSet::new());
    }
}
