//! A request, taken apart.

use std::collections::HashMap;

use http::{Method, Request};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::{
    BoxError, Call, Place,
    world::{Happened, OURS, shown, status},
};

/// One request.
pub(super) struct Asked {
    pub(super) call: Call,
    pub(super) query: HashMap<String, String>,
    pub(super) body: Value,
    pub(super) api_version: String,
    pub(super) metadata_only: bool,
}

impl Asked {
    /// Whether nothing is to be stored.
    pub(super) fn is_dry_run(&self) -> bool {
        self.query.contains_key("dryRun")
    }

    /// Who writes, for managedFields.
    pub(super) fn writer(&self) -> &str {
        self.query.get("fieldManager").map_or("unknown", String::as_str)
    }

    pub(super) async fn read(request: Request<Body>) -> Result<Self, BoxError> {
        let (parts, body) = request.into_parts();
        let url = reqwest::Url::parse(&format!("http://fake{}", parts.uri))?;
        let query: HashMap<String, String> = url.query_pairs().into_owned().collect();
        let path: Vec<&str> = parts.uri.path().trim_start_matches('/').split('/').collect();
        let (api_version, rest) = match path.as_slice() {
            ["api", version, rest @ ..] => ((*version).to_owned(), rest),
            ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
            // A URL that is no resource's, as RBAC calls it.
            _ if parts.method == Method::GET => {
                let resource = parts.uri.path().to_owned();
                let call = Call { verb: "get", resource, namespace: String::new(), name: String::new() };
                let (body, api_version) = (Value::Null, String::new());
                return Ok(Self { call, query, body, api_version, metadata_only: false });
            }
            _ => return Err(format!("the fake does not serve {}", parts.uri.path()).into()),
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let name = rest.get(1).copied().unwrap_or_default();
        let resource = match rest {
            [resource, _, subresource] => format!("{resource}/{subresource}"),
            [resource, ..] => (*resource).to_owned(),
            [] => return Err("no resource".into()),
        };
        let verb = match parts.method {
            Method::GET if !name.is_empty() => "get",
            Method::GET if query.get("watch").is_some_and(|watch| watch == "true") => "watch",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if !name.is_empty() => "delete",
            method => return Err(format!("the fake does not know {method} on {resource}").into()),
        };
        let accept =
            parts.headers.get(http::header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
        let metadata_only = accept.contains("as=PartialObjectMetadata");
        let bytes = body.collect().await?.to_bytes();
        let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? };
        let call = Call { verb, resource, namespace: namespace.to_owned(), name: name.to_owned() };
        Ok(Self { call, query, body, api_version, metadata_only })
    }

    /// The resource without its subresource.
    pub(super) fn base(&self) -> &str {
        self.call.resource.split('/').next().unwrap_or_default()
    }

    pub(super) fn is_status(&self) -> bool {
        self.call.resource.ends_with("/status")
    }

    /// Kinds of ours have a status that only `/status` writes.
    pub(super) fn has_status(&self) -> bool {
        self.api_version.starts_with(OURS)
    }

    pub(super) fn place(&self) -> Place {
        (self.call.namespace.clone(), self.call.name.clone())
    }

    pub(super) fn not_found(&self) -> Value {
        let message = format!("{} {:?} not found", self.base(), self.call.name);
        status(404, "NotFound", &message, json!({"name": self.call.name, "kind": self.base()}))
    }

    pub(super) fn conflict(&self, message: &str) -> Value {
        status(409, "Conflict", message, json!({"name": self.call.name, "kind": self.base()}))
    }

    pub(super) fn invalid(&self, field: &str, reason: &str) -> Value {
        let causes = json!([{"field": field, "reason": reason, "message": "invalid"}]);
        let details = json!({"name": self.call.name, "kind": self.base(), "causes": causes});
        status(422, "Invalid", &format!("{:?} is invalid: {field}", self.call.name), details)
    }
}

/// Which objects a list or watch is about.
pub(super) struct Selects {
    pub(super) resource: String,
    pub(super) namespace: String,
    pub(super) labels: Vec<(String, Option<String>)>,
    /// The field, its value, and whether it must have that value or must not.
    pub(super) fields: Vec<(String, String, bool)>,
    pub(super) metadata_only: bool,
    pub(super) api_version: String,
}

impl Selects {
    pub(super) fn of(asked: &Asked) -> Self {
        let terms = |parameter: &str| -> Vec<String> {
            let selector = asked.query.get(parameter).cloned().unwrap_or_default();
            selector.split(',').filter(|term| !term.is_empty()).map(str::to_owned).collect()
        };
        let pair = |term: &str| term.split_once('=').map(|(a, b)| (a.to_owned(), b.trim_start_matches('=').to_owned()));
        Self {
            resource: asked.call.resource.clone(),
            namespace: asked.call.namespace.clone(),
            labels: terms("labelSelector")
                .iter()
                .map(|term| pair(term).map_or((term.clone(), None), |(label, value)| (label, Some(value))))
                .collect(),
            fields: terms("fieldSelector")
                .iter()
                .map(|term| match term.split_once("!=") {
                    Some((field, value)) => (field.to_owned(), value.to_owned(), false),
                    None => pair(term).map(|(field, value)| (field, value, true)).expect("field=value"),
                })
                .collect(),
            metadata_only: asked.metadata_only,
            api_version: asked.api_version.clone(),
        }
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let meta = &object["metadata"];
        (self.namespace.is_empty() || meta["namespace"].as_str() == Some(&self.namespace))
            && self.labels.iter().all(|(label, wanted)| match (meta["labels"][label].as_str(), wanted) {
                (Some(value), Some(wanted)) => value == wanted,
                (found, None) => found.is_some(),
                (None, Some(_)) => false,
            })
            && self.fields.iter().all(|(field, value, must)| {
                let found = object.pointer(&format!("/{}", field.replace('.', "/"))).and_then(Value::as_str);
                (found == Some(value)) == *must
            })
    }

    pub(super) fn event(&self, happened: &Happened) -> Option<Value> {
        if happened.resource != self.resource {
            return None;
        }
        let matched = happened.before.as_ref().is_some_and(|object| self.matches(object));
        let after = happened.after.as_ref().filter(|object| self.matches(object));
        let (kind, object) = match (matched, after) {
            (false, Some(object)) => ("ADDED", object),
            (true, Some(object)) => ("MODIFIED", object),
            (true, None) => ("DELETED", happened.last.as_ref()?),
            (false, None) => return None,
        };
        Some(json!({"type": kind, "object": shown(object, self.metadata_only)}))
    }
}
