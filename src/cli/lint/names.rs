//! What the API server says of the names in `metadata`.

use serde_json::Value;

use super::field_path::FieldPath;
use super::finding::{Rule, Violation};

/// The most characters of a name, and of a namespace.
const NAME_CHARACTERS: usize = 253;
const NAMESPACE_CHARACTERS: usize = 63;

/// What is wrong with the name and the namespace of an object.
pub(super) fn check(object: &Value, namespaced: bool) -> Vec<Violation> {
    let metadata = FieldPath::default().field("metadata");
    let text = |field: &str| object.pointer(&format!("/metadata/{field}")).and_then(Value::as_str).unwrap_or_default();
    let (name, generated, namespace) = (text("name"), text("generateName"), text("namespace"));
    let mut found = Vec::new();
    let mut refuse = |field: &str, message: &str| {
        found.push(Violation::error(Rule::ObjectName, metadata.field(field), message));
    };
    if name.is_empty() && generated.is_empty() {
        refuse("name", "Required value: write a name");
    }
    if !name.is_empty() && !is_subdomain(name) {
        refuse(
            "name",
            "Invalid value: write at most 253 of a-z, 0-9, - and ., each part between dots beginning and ending with a letter or a digit",
        );
    }
    if !namespaced && !namespace.is_empty() {
        refuse("namespace", "Forbidden: this kind is in no namespace: remove it");
    }
    if namespaced && !namespace.is_empty() && !is_label(namespace) {
        refuse("namespace", "Invalid value: write at most 63 of a-z, 0-9 and -, not first or last -");
    }
    found
}

/// RFC 1123, as Kubernetes takes it for names of objects.
fn is_subdomain(text: &str) -> bool {
    text.len() <= NAME_CHARACTERS && text.split('.').all(is_part)
}

/// RFC 1123, as Kubernetes takes it for names of namespaces.
fn is_label(text: &str) -> bool {
    text.len() <= NAMESPACE_CHARACTERS && is_part(text)
}

fn is_part(text: &str) -> bool {
    let is_inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty() && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_taken_as_the_api_server_takes_them() {
        for (metadata, namespaced, expected) in [
            (json!({"name": "a"}), true, vec![]),
            (json!({"name": "a.b-c", "namespace": "shop"}), true, vec![]),
            (json!({"generateName": "a-"}), true, vec![]),
            (json!({"name": "a"}), false, vec![]),
            (json!({}), true, vec!["metadata.name"]),
            (json!({"name": "A"}), true, vec!["metadata.name"]),
            (json!({"name": "a..b"}), true, vec!["metadata.name"]),
            (json!({"name": "a".repeat(254)}), true, vec!["metadata.name"]),
            (json!({"name": "a", "namespace": "a.b"}), true, vec!["metadata.namespace"]),
            (json!({"name": "a", "namespace": "-"}), true, vec!["metadata.namespace"]),
            (json!({"name": "a", "namespace": "shop"}), false, vec!["metadata.namespace"]),
        ] {
            let fields: Vec<_> =
                check(&json!({"metadata": metadata}), namespaced).iter().map(|found| found.field.to_string()).collect();
            assert_eq!(fields, expected, "{metadata}");
        }
    }
}
