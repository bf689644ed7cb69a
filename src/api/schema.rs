//! Fragments of schemas that several fields share: patterns and the items of lists.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// RFC 1123 label, as in Kubernetes names.
pub(super) const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// RFC 1123 subdomain, as in the names of Secrets.
pub(super) const DNS_SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";

/// What [`super::LongDuration`] reads, with no more digits than a thousand days need. With more, the API server's own
/// nanoseconds would overflow, and a rule such as "at most 1096d" would judge another duration than the one written.
const DURATION: &str = "^([0-9]{1,8}s|[0-9]{1,7}m|[0-9]{1,5}h|[0-9]{1,4}d|[0-9]{1,3}w)+$";

/// What [`super::parse_time`] reads.
const TIME: &str = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$";

/// A client ID that a user chose.
pub(super) const CLIENT_ID: &str = "^[a-z0-9]([a-z0-9._-]{0,98}[a-z0-9])?$";

/// The characters of a scope-token (RFC 6749 section 3.3): printable ASCII without space, `"` and `\`.
pub(super) const SCOPE_TOKEN: &str = r"^[!#-\[\]-~]+$";

/// The first characters of label and annotation names that are not the users': the domain or one below it.
const RESERVED_PREFIXES: &str = r"^([^/]*\.)?(appreg\.dev|argoproj\.io|fluxcd\.io|helm\.sh|kubernetes\.io|k8s\.io)/";

/// A rule of `x-kubernetes-validations`: a CEL expression, and for a person what must be true and how to make it so.
pub(super) fn rule(expression: &str, message: &str) -> Value {
    json!({"rule": expression, "message": message})
}

/// A rule that a value stays what it is, with the field that the API server shall name.
pub(super) fn fixed(expression: &str, field: &str, message: &str) -> Value {
    json!({"rule": expression, "message": message, "fieldPath": field, "reason": "FieldValueForbidden"})
}

/// A rule about several fields, with the one that the API server shall name.
pub(super) fn rule_at(field: &str, expression: &str, message: &str) -> Value {
    json!({"rule": expression, "message": message, "fieldPath": field})
}

/// A scope-token (RFC 6749 section 3.3) that a registration asks for. An API could take `*` for a pattern.
pub(super) fn scope() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 128, "pattern": SCOPE_TOKEN,
        "x-kubernetes-validations": [rule("!self.contains('*')", "scopes must not contain *, which an API could take for a pattern: write each scope")]})
}

/// A customer or a group that is approved; `*` is all customers.
pub(super) fn approved_customer() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 128, "pattern": SCOPE_TOKEN})
}

/// An audience: the characters of a scope, and longer, because it often is a URI.
pub(super) fn audience(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 256, "pattern": SCOPE_TOKEN})
}

/// An item of a list of audiences, as [`audience`] has it.
pub(super) fn audience_value() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 256, "pattern": SCOPE_TOKEN})
}

/// Globs: `*` stands for any text, `{namespace}` and `{name}` for those of the registration; no other braces.
pub(super) fn globs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 64, "x-kubernetes-list-type": "set", "items": glob()})
}

/// Globs, at least one.
pub(super) fn some_globs(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = globs(generator);
    schema.insert("minItems".to_owned(), json!(1));
    schema
}

fn glob() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"^([^{}]|\{namespace\}|\{name\})+$"})
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

/// A customer or a group of customers. `*` is how the ledger says all of them.
pub(super) fn customer() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 128, "pattern": SCOPE_TOKEN,
        "x-kubernetes-validations": [rule("!self.contains('*')", "customers and groups must not contain *: write their names, or customerScope.type: All for all customers")]})
}

/// A duration as [`super::LongDuration`] reads it; its bounds are [`duration_rules`].
pub(super) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "duration", "maxLength": 32, "pattern": DURATION})
}

/// The rules of a duration of at least a second and at most three years.
pub(super) fn duration_rules(field: &str) -> Value {
    bounded_duration_rules(field, "26304h", "1096d (three years)")
}

/// The rules of a duration of at least a second and at most `longest`, which is in CEL's spelling and in ours.
pub(super) fn bounded_duration_rules(field: &str, longest: &str, written: &str) -> Value {
    json!([
        rule("self > duration('0s')", &format!("{field} must be longer than 0s: lengthen it")),
        rule(&format!("self <= duration('{longest}')"), &format!("{field} must be at most {written}: shorten it"),),
    ])
}

/// A time as [`super::parse_time`] reads it.
pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time", "maxLength": 35, "pattern": TIME})
}

/// A URI for people or browsers; its rules are [`uri_rules`].
pub(super) fn uri(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "minLength": 1, "maxLength": 2048})
}

/// A URI that a browser may be sent to, as an item of this field.
pub(super) fn redirect_uri(field: &str) -> Value {
    let [absolute, encrypted] = uri_rules(field);
    let no_fragment = rule(
        "!self.contains('#')",
        &format!(
            "{field} must have no fragment, because the part after # never reaches a server (RFC 6749 section 3.1.2): remove it"
        ),
    );
    json!({"type": "string", "minLength": 1, "maxLength": 2048,
        "x-kubernetes-validations": [absolute, encrypted, no_fragment]})
}

/// The rules of every URI: absolute, in the characters of RFC 3986, without a user name that could pass for the
/// host, and encrypted unless it stays on the machine.
pub(super) fn uri_rules(field: &str) -> [Value; 2] {
    [
        rule(
            r#"isURL(self) && self.matches(r"^[a-z]+://([A-Za-z0-9._~%!$&'()*+,;=:-]|\[|\])+([/?#][A-Za-z0-9._~%!$&'()*+,;=:/?#@-]*)?$")"#,
            &format!(
                "{field} must be an absolute URI (RFC 3986) with a host and without a user name: write it like https://shop.example/path"
            ),
        ),
        rule(
            "!isURL(self) || url(self).getScheme() == 'https' || (url(self).getScheme() == 'http' && url(self).getHostname() in ['localhost', '127.0.0.1', '::1'])",
            &format!(
                "{field} must be an https URI, or an http URI on localhost, 127.0.0.1 or [::1]: change its scheme or its host"
            ),
        ),
    ]
}

/// The rules of the names of labels and annotations that go onto Secrets.
pub(super) fn template_key_rules() -> Value {
    json!([
        rule(
            r#"self.all(name, name.matches(r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"))"#,
            "names of labels and annotations must have at most 63 characters after an optional DNS prefix and /, as everywhere in Kubernetes: rename them",
        ),
        rule(
            &format!(
                r#"self.all(name, !name.matches(r"{RESERVED_PREFIXES}") || name in ['app.kubernetes.io/name', 'app.kubernetes.io/part-of', 'app.kubernetes.io/component', 'app.kubernetes.io/version'])"#
            ),
            "names must not be of appreg.dev, argoproj.io, fluxcd.io, helm.sh, kubernetes.io or k8s.io, because controllers act on them (app.kubernetes.io/name, part-of, component and version are allowed): remove them",
        ),
    ])
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

/// Takes away the description of a type where that of the field says more.
pub(super) fn without_description(schema: &mut Schema) {
    schema.remove("description");
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
                "reason": {"type": "string", "minLength": 1, "maxLength": 64, "description": "The reason, as docs/reference/reasons.md lists it."},
                "message": {"type": "string", "maxLength": 32768, "description": "A message for people: the cause, and what to do."},
            },
        },
    })
}
