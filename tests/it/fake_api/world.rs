//! What the server stores, and how requests read and change it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::{
    Place,
    request::{Asked, Selects},
};

pub(super) struct World {
    pub(super) version: u64,
    pub(super) uids: u64,
    pub(super) objects: BTreeMap<String, BTreeMap<Place, Value>>,
    pub(super) history: Vec<Happened>,
    /// Watches from before this version get 410.
    pub(super) compacted: u64,
    /// Rest of a paged list, by its token.
    pub(super) tokens: u64,
    pub(super) pages: HashMap<String, (Vec<Value>, String)>,
    pub(super) log: Vec<String>,
    pub(super) dry_runs: Vec<Value>,
    /// Watches made under an older reign end.
    pub(super) reign: u64,
    pub(super) broken: bool,
    pub(super) held: bool,
    pub(super) bookmarks: u64,
    pub(super) open: usize,
}

#[derive(Clone)]
pub(super) struct Happened {
    pub(super) version: u64,
    pub(super) resource: String,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
    /// The object as a `DELETED` event shows it.
    pub(super) last: Option<Value>,
}

/// The group whose kinds have a status that only `/status` writes.
pub(super) const OURS: &str = "appreg.dev/";
/// What no client can change.
const KEPT: [&str; 7] =
    ["uid", "creationTimestamp", "managedFields", "resourceVersion", "generation", "name", "namespace"];

/// Success: code and object. Failure: a `Status`.
pub(super) type Outcome = Result<(u16, Value), Value>;

impl World {
    pub(super) fn new() -> Self {
        Self {
            version: 100,
            uids: 0,
            objects: BTreeMap::new(),
            history: Vec::new(),
            compacted: 0,
            tokens: 0,
            pages: HashMap::new(),
            log: Vec::new(),
            dry_runs: Vec::new(),
            reign: 0,
            broken: false,
            held: false,
            bookmarks: 0,
            open: 0,
        }
    }

    pub(super) fn object(&self, resource: &str, place: &Place) -> Option<&Value> {
        self.objects.get(resource)?.get(place)
    }

    pub(super) fn get(&self, asked: &Asked) -> Outcome {
        let object = self.object(asked.base(), &asked.place()).ok_or_else(|| asked.not_found())?;
        Ok((200, shown(object, asked.metadata_only)))
    }

    pub(super) fn list(&mut self, asked: &Asked) -> Outcome {
        let (mut items, version) = if let Some(token) = asked.query.get("continue") {
            let expired = || status(410, "Expired", "the provided continue parameter is too old", json!({}));
            self.pages.get(token).cloned().ok_or_else(expired)?
        } else {
            let selects = Selects::of(asked);
            let objects = self.objects.get(&selects.resource).into_iter().flat_map(BTreeMap::values);
            let items = objects.filter(|o| selects.matches(o)).map(|o| shown(o, asked.metadata_only)).collect();
            (items, self.version.to_string())
        };
        let mut meta = json!({"resourceVersion": version});
        let limit = asked.query.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        if items.len() > limit {
            self.tokens += 1;
            let token = format!("page-{}", self.tokens);
            self.pages.insert(token.clone(), (items.split_off(limit), version));
            meta["continue"] = json!(token);
        }
        Ok((200, json!({"apiVersion": asked.api_version, "kind": "List", "metadata": meta, "items": items})))
    }

    pub(super) fn create(&mut self, asked: &Asked) -> Outcome {
        let mut object = asked.body.clone();
        let meta = &mut object["metadata"];
        if meta["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
            let message = "resourceVersion should not be set on objects to be created";
            return Err(status(400, "BadRequest", message, json!({})));
        }
        if !asked.call.namespace.is_empty() {
            meta["namespace"] = json!(asked.call.namespace);
        }
        if meta["name"].as_str().is_none_or(str::is_empty) {
            let Some(prefix) = meta["generateName"].as_str() else {
                return Err(asked.invalid("metadata.name", "FieldValueRequired"));
            };
            meta["name"] = json!(format!("{prefix}{}", self.version));
        }
        if let Some(meta) = meta.as_object_mut() {
            meta.remove("uid");
        }
        let place = place_of(&object);
        if self.object(asked.base(), &place).is_some() {
            let message = format!("{} {:?} already exists", asked.base(), place.1);
            return Err(status(409, "AlreadyExists", &message, json!({"name": place.1, "kind": asked.base()})));
        }
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
        }
        self.fill_in(&mut object, None, asked.writer());
        if asked.is_dry_run() {
            return Ok((201, shown(&object, asked.metadata_only)));
        }
        let object = self.commit(asked.base(), place, Some(object)).expect("committed");
        Ok((201, shown(&object, asked.metadata_only)))
    }

    pub(super) fn update(&mut self, asked: &Asked) -> Outcome {
        let before = self.object(asked.base(), &asked.place()).cloned().ok_or_else(|| asked.not_found())?;
        let mut object = asked.body.clone();
        let given = object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        if asked.call.verb == "patch" {
            object = before.clone();
            merge(&mut object, &asked.body);
        }
        match given {
            Some(version) if Some(version.as_str()) != before["metadata"]["resourceVersion"].as_str() => {
                return Err(asked.conflict("the object has been modified"));
            }
            None if asked.has_status() && asked.call.verb == "update" => {
                return Err(asked.invalid("metadata.resourceVersion", "FieldValueInvalid"));
            }
            Some(_) | None => {}
        }
        if object["metadata"]["uid"].as_str().is_some_and(|uid| Some(uid) != before["metadata"]["uid"].as_str()) {
            return Err(asked.conflict("Precondition failed: UID in precondition"));
        }
        if asked.base() == "secrets" {
            let same = |field: &str| before[field] == object[field];
            if !same("type") && !object["type"].is_null() {
                return Err(asked.invalid("type", "FieldValueInvalid"));
            }
            if before["immutable"] == json!(true) && !(same("data") && same("immutable")) {
                return Err(asked.invalid("data", "FieldValueForbidden"));
            }
        }
        if asked.is_status() {
            let status = object["status"].take();
            object = before.clone();
            object["status"] = status;
        } else if asked.has_status() {
            object["status"] = before["status"].clone();
        }
        self.fill_in(&mut object, Some(&before), asked.writer());
        if object == before || asked.is_dry_run() {
            return Ok((200, shown(&before, asked.metadata_only)));
        }
        let object = self.commit(asked.base(), asked.place(), Some(object)).expect("committed");
        Ok((200, shown(&object, asked.metadata_only)))
    }

    pub(super) fn delete(&mut self, asked: &Asked) -> Outcome {
        let before = self.object(asked.base(), &asked.place()).cloned().ok_or_else(|| asked.not_found())?;
        for field in ["uid", "resourceVersion"] {
            let wanted = &asked.body["preconditions"][field];
            if !wanted.is_null() && *wanted != before["metadata"][field] {
                return Err(asked.conflict("Precondition failed"));
            }
        }
        self.commit(asked.base(), asked.place(), None);
        let details = json!({"name": asked.call.name, "kind": asked.base(), "uid": before["metadata"]["uid"]});
        Ok((200, json!({"apiVersion": "v1", "kind": "Status", "status": "Success", "details": details})))
    }

    /// What the server itself writes into metadata.
    pub(super) fn fill_in(&mut self, object: &mut Value, before: Option<&Value>, writer: &str) {
        let spec_differs = before.is_some_and(|before| before["spec"] != object["spec"]);
        if object["status"].is_null() && object["apiVersion"].as_str().is_some_and(|v| v.starts_with(OURS)) {
            object["status"] =
                before.map_or_else(|| json!({"observedGeneration": -1}), |before| before["status"].clone());
        }
        let has_spec = object.get("spec").is_some();
        let meta = object["metadata"].as_object_mut().expect("metadata");
        let Some(before) = before else {
            self.uids += 1;
            if meta.get("uid").is_none_or(Value::is_null) {
                meta.insert("uid".to_owned(), json!(format!("00000000-0000-4000-8000-{:012x}", self.uids)));
            }
            if meta.get("creationTimestamp").is_none_or(Value::is_null) {
                meta.insert("creationTimestamp".to_owned(), json!("2026-01-01T00:00:00Z"));
            }
            if has_spec {
                meta.insert("generation".to_owned(), json!(1));
            }
            object["metadata"]["managedFields"] = signed(&Value::Null, object, writer);
            return;
        };
        for field in KEPT {
            match before["metadata"].get(field) {
                Some(value) => meta.insert(field.to_owned(), value.clone()),
                None => meta.remove(field),
            };
        }
        if spec_differs && let Some(generation) = meta["generation"].as_i64() {
            meta.insert("generation".to_owned(), json!(generation + 1));
        }
        if *object != *before {
            object["metadata"]["managedFields"] = signed(before, object, writer);
        }
    }

    pub(super) fn commit(&mut self, resource: &str, place: Place, after: Option<Value>) -> Option<Value> {
        self.version += 1;
        let version = json!(self.version.to_string());
        let after = after.map(|mut object| {
            object["metadata"]["resourceVersion"] = version.clone();
            object
        });
        let objects = self.objects.entry(resource.to_owned()).or_default();
        let before = match &after {
            Some(object) => objects.insert(place, object.clone()),
            None => objects.remove(&place),
        };
        let last = before.clone().map(|mut object| {
            object["metadata"]["resourceVersion"] = version;
            object
        });
        let happened =
            Happened { version: self.version, resource: resource.to_owned(), before, after: after.clone(), last };
        self.history.push(happened);
        after
    }
}

/// RFC 7386.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else { return *target = patch.clone() };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let target = target.as_object_mut().expect("an object");
    for (field, value) in patch {
        if value.is_null() {
            target.remove(field);
        } else {
            merge(target.entry(field.clone()).or_insert(Value::Null), value);
        }
    }
}

pub(super) fn shown(object: &Value, metadata_only: bool) -> Value {
    if !metadata_only {
        return object.clone();
    }
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

pub(super) fn place_of(object: &Value) -> Place {
    let part = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (part("namespace"), part("name"))
}

/// `Secret` → `secrets`, `RegistrationPolicy` → `registrationpolicies`.
pub(super) fn plural(kind: &str) -> String {
    let kind = kind.to_lowercase();
    kind.strip_suffix('y').map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"))
}

pub(super) fn status(code: u16, reason: &str, message: &str, details: impl Into<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": message, "details": details.into()})
}

/// Who has written which field of `data`: what somebody changes or adds is theirs from then on, what is gone is nobody's.
fn signed(before: &Value, after: &Value, writer: &str) -> Value {
    let no_data = serde_json::Map::new();
    let data = after["data"].as_object().unwrap_or(&no_data);
    let is_kept = |name: &str| before["data"].get(name).is_some() && before["data"].get(name) == data.get(name);
    let mut entries = before["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    if entries.iter().all(|entry| entry["manager"] != writer) {
        entries.push(json!({"manager": writer, "operation": "Update", "fieldsV1": {"f:data": {}}}));
    }
    for entry in &mut entries {
        let is_writer = entry["manager"] == writer;
        let Some(fields) = entry["fieldsV1"]["f:data"].as_object_mut() else { continue };
        fields.retain(|field, _| field.strip_prefix("f:").is_some_and(is_kept));
        if is_writer {
            let own = data.keys().filter(|name| !is_kept(name));
            fields.extend(own.map(|name| (format!("f:{name}"), json!({}))));
        }
    }
    Value::Array(entries)
}
