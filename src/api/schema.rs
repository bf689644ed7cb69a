//! Fragments of schemas that several fields share: patterns and the items of lists.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// RFC 1123 label, as in Kubernetes names.
pub(super) const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// RFC 1123 subdomain, as in the names of Secrets.
pub(super) const DNS_SUBDOMAIN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// What [`super::LongDuration`] reads.
pub(super) const DURATION: &str = "^([0-9]+(s|m|h|d|w))+$";

/// What [`super::parse_time`] reads.
pub(super) const TIME: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";

/// A client ID that a user chose.
pub(super) const CLIENT_ID: &str = "^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$";

/// The characters of a scope-token (RFC 6749 section 3.3): printable ASCII without space, `"` and `\`.
const SCOPE_TOKEN: &str = r"^[!#-\[\]-~]+$";

/// A scope-token (RFC 6749 section 3.3).
pub(super) fn scope() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 128, "pattern": SCOPE_TOKEN})
}

/// An audience: the characters of a scope, and longer, because it often is a URI.
pub(super) fn audience() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 256, "pattern": SCOPE_TOKEN})
}

/// A DNS name in a certificate, with at most a leading `*.` (RFC 6125).
pub(super) fn dns_name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 253,
        "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"})
}

/// A way to reach somebody.
pub(super) fn contact() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 256})
}

/// A customer or a group of customers.
pub(super) fn customer() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 128, "pattern": SCOPE_TOKEN})
}

/// The value of a label.
pub(super) fn label_value() -> Value {
    json!({"type": "string", "maxLength": 63, "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$"})
}

/// The value of an annotation.
pub(super) fn annotation_value() -> Value {
    json!({"type": "string", "maxLength": 4096})
}

/// A text of a status.
pub(super) fn text(max_length: u32) -> Value {
    json!({"type": "string", "maxLength": max_length})
}

/// `status.conditions`: the conditions of the Kubernetes API conventions, each text with a maximum.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 8,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 64, "description": "The type of the condition."},
                "status": {"type": "string", "maxLength": 7, "enum": ["True", "False", "Unknown"], "description": "True, False or Unknown."},
                "observedGeneration": {"type": "integer", "format": "int64", "description": "The generation of the spec that the condition reports on."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "maxLength": 35, "description": "When the status last changed."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 64, "description": "Why, in one word."},
                "message": {"type": "string", "maxLength": 32768, "description": "Why, for people."},
            },
        },
    })
}
