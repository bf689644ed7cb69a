//! Files as objects: YAML of any number of documents, JSON, `List`s; each with the places of its fields.
//!
//! YAML is read as `kubectl` reads it: `yes` and `on` are true, a number that begins with 0 is octal, a key that stands
//! twice is an error.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_yaml::{Location, Options, Spanned};

use super::field_path::FieldPath;
use super::finding::Place;

/// The most bytes of one file.
pub(super) const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// The most objects of one file.
pub(super) const FILE_OBJECTS: usize = 10_000;

/// The most values of one file.
const FILE_VALUES: usize = 2_000_000;

/// How many of them aliases may repeat.
const FILE_ALIASED_VALUES: usize = 100_000;

/// How deep they may be nested; the parser calls itself for each level.
const DEPTH: usize = 64;
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// An object of a file, and where in it its fields are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object {
    /// The object.
    pub(super) json: Value,
    places: BTreeMap<FieldPath, Place>,
}

/// Why a file cannot be read as objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Where, if it is known.
    pub place: Option<Place>,
    /// Why, and what to do. It repeats nothing of the file.
    pub message: String,
}

impl Object {
    /// The place of a field, or of what is next above it where the field is missing.
    pub(super) fn place(&self, field: &FieldPath) -> Place {
        let mut field = field.clone();
        loop {
            if let Some(place) = self.places.get(&field) {
                return *place;
            }
            match field.parent() {
                Some(parent) => field = parent,
                None => return Place { line: 1, column: 1 },
            }
        }
    }

    /// A text of the object.
    pub(super) fn text(&self, pointer: &str) -> Option<&str> {
        self.json.pointer(pointer).and_then(Value::as_str)
    }
}

/// Reads the objects of a file, in their order; those of a `List` as if each stood alone.
pub(super) fn objects(text: &str) -> Result<Vec<Object>, Unreadable> {
    let failed = || Unreadable { place: None, message: "cannot be read: no thread can be started for it".to_owned() };
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || read(text));
        reader.map_err(|_| failed())?.join().map_err(|_| failed())?
    })
}

fn read(text: &str) -> Result<Vec<Object>, Unreadable> {
    let mut objects = Vec::new();
    for (lines_before, document) in documents(text) {
        let nodes = serde_yaml::from_multiple_with_options::<Node>(document, options())
            .map_err(|error| unreadable(&error, lines_before))?;
        for node in nodes {
            node.unfold(lines_before, &mut objects)?;
        }
    }
    Ok(objects)
}

/// One after the other, a stream of JSON objects is no YAML: each is read by itself, with the lines that stand before it.
fn documents(text: &str) -> Vec<(u64, &str)> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut found = Vec::new();
    let mut start = 0;
    if !text.trim_start().starts_with('{') {
        return vec![(0, text)];
    }
    while let Some(document) = stream.next() {
        if document.is_err() {
            return vec![(0, text)];
        }
        let end = stream.byte_offset();
        let skipped = text[start..end].len() - text[start..end].trim_start().len();
        let lines = text[..start + skipped].matches('\n').count();
        found.push((u64::try_from(lines).unwrap_or(u64::MAX), &text[start + skipped..end]));
        start = end;
    }
    found
}

fn options() -> Options {
    serde_yaml::options! {
        legacy_octal_numbers: true,
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: FILE_ALIASED_VALUES },
        budget: serde_yaml::budget! {
            max_depth: DEPTH,
            max_documents: FILE_OBJECTS,
            max_nodes: FILE_VALUES,
            max_events: 2 * FILE_VALUES,
        },
    }
}

/// Errors of the parser show parts of the file, which could be private keys: what is said is where, and what to do.
fn unreadable(error: &serde_yaml::Error, lines_before: u64) -> Unreadable {
    use serde_yaml::Error;
    let mut cause = error.without_snippet();
    while let Error::AliasError { error, .. } = cause {
        cause = error.without_snippet();
    }
    let message = match cause {
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } => format!(
            "is too large: at most {FILE_OBJECTS} objects, {FILE_VALUES} values, {FILE_ALIASED_VALUES} of them by aliases, and {DEPTH} levels are read of a file: split it"
        ),
        Error::DuplicateMappingKey { .. } => "has a key twice: remove one of them".to_owned(),
        _ => "is neither YAML nor JSON that can be read: mend it; a template must be rendered first".to_owned(),
    };
    let place = error.location().map(|location| place(location, lines_before));
    Unreadable { place, message }
}

fn place(location: Location, lines_before: u64) -> Place {
    Place { line: location.line() + lines_before, column: location.column() }
}

/// A value of YAML, and where it begins.
struct Node {
    at: Location,
    kind: Kind,
}

enum Kind {
    Scalar(Value),
    Sequence(Vec<Node>),
    Mapping(Vec<(Location, String, Node)>),
    /// A mapping with a key that is no text, here.
    Keyless(Location),
}

impl Node {
    /// Adds the objects of this document: itself, or the items of a `List`.
    fn unfold(self, lines_before: u64, objects: &mut Vec<Object>) -> Result<(), Unreadable> {
        let at = place(self.at, lines_before);
        let refuse = |message: &str| Err(Unreadable { place: Some(at), message: message.to_owned() });
        let fields = match self.kind {
            Kind::Mapping(fields) => fields,
            Kind::Keyless(at) => return Err(keyless(at, lines_before)),
            Kind::Scalar(_) | Kind::Sequence(_) => {
                return refuse("is no Kubernetes object: it is no map with apiVersion and kind");
            }
        };
        let kind = text_of(&fields, "kind");
        if kind.is_empty() || text_of(&fields, "apiVersion").is_empty() {
            return refuse("is no Kubernetes object: write apiVersion and kind");
        }
        let items = fields.iter().position(|(_, name, node)| name == "items" && matches!(node.kind, Kind::Sequence(_)));
        if let Some(index) = items.filter(|_| kind.ends_with("List")) {
            let (_, _, node) = fields.into_iter().nth(index).unwrap_or_else(|| unreachable!("it was found there"));
            let Kind::Sequence(items) = node.kind else { unreachable!("it was one") };
            return items.into_iter().try_for_each(|item| item.unfold(lines_before, objects));
        }
        if objects.len() >= FILE_OBJECTS {
            return refuse("is too large: split it");
        }
        let mut places = BTreeMap::from([(FieldPath::default(), at)]);
        let node = Self { at: self.at, kind: Kind::Mapping(fields) };
        let json = node.into_json(&FieldPath::default(), lines_before, &mut places)?;
        objects.push(Object { json, places });
        Ok(())
    }

    fn into_json(
        self,
        path: &FieldPath,
        lines_before: u64,
        places: &mut BTreeMap<FieldPath, Place>,
    ) -> Result<Value, Unreadable> {
        match self.kind {
            Kind::Scalar(value) => Ok(value),
            Kind::Sequence(items) => {
                let items = items.into_iter().enumerate().map(|(index, item)| {
                    let path = path.item(index);
                    places.insert(path.clone(), place(item.at, lines_before));
                    item.into_json(&path, lines_before, places)
                });
                items.collect::<Result<_, _>>().map(Value::Array)
            }
            Kind::Mapping(fields) => {
                let fields = fields.into_iter().map(|(at, name, node)| {
                    let path = path.field(&name);
                    places.insert(path.clone(), place(at, lines_before));
                    let value = node.into_json(&path, lines_before, places)?;
                    Ok((name, value))
                });
                fields.collect::<Result<Map<_, _>, _>>().map(Value::Object)
            }
            Kind::Keyless(at) => Err(keyless(at, lines_before)),
        }
    }
}

fn keyless(at: Location, lines_before: u64) -> Unreadable {
    let message = "has a key that is no text: write it in quotes; a template must be rendered first".to_owned();
    Unreadable { place: Some(place(at, lines_before)), message }
}

fn text_of<'f>(fields: &'f [(Location, String, Node)], name: &str) -> &'f str {
    let found = fields.iter().find(|(_, field, _)| field == name);
    found
        .and_then(|(_, _, node)| match &node.kind {
            Kind::Scalar(Value::String(text)) => Some(text.as_str()),
            _ => None,
        })
        .unwrap_or_default()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { at: referenced, kind: value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, is: bool) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Bool(is)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Number(number.into())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Number(number.into())))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Kind, E> {
        let number = Number::from_f64(number).ok_or_else(|| E::custom("a number that JSON cannot write"))?;
        Ok(Kind::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::String(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Kind::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut fields = Vec::new();
        let mut keyless = None;
        while let Some(key) = access.next_key::<Node>()? {
            let value = access.next_value()?;
            match key.kind {
                Kind::Scalar(Value::String(name)) => fields.push((key.at, name, value)),
                Kind::Scalar(Value::Number(number)) => fields.push((key.at, number.to_string(), value)),
                Kind::Scalar(Value::Bool(is)) => fields.push((key.at, is.to_string(), value)),
                Kind::Scalar(_) | Kind::Sequence(_) | Kind::Mapping(_) | Kind::Keyless(_) => keyless = Some(key.at),
            }
        }
        Ok(keyless.map_or(Kind::Mapping(fields), Kind::Keyless))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn json_of(text: &str) -> Vec<Value> {
        objects(text).unwrap().into_iter().map(|object| object.json).collect()
    }

    fn refused(text: &str) -> (String, Option<(u64, u64)>) {
        let error = objects(text).unwrap_err();
        (error.message, error.place.map(|place| (place.line, place.column)))
    }

    #[test]
    fn each_document_and_each_item_of_a_list_is_an_object_with_the_places_of_its_fields() {
        let text = "\
# two documents
apiVersion: v1
kind: A
spec:
  list:
  - name: x
    value: 1
---
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: B, metadata: {name: b}}
- apiVersion: v1
  kind: C
";
        let objects = objects(text).unwrap();
        let kinds: Vec<_> = objects.iter().map(|object| object.text("/kind").unwrap()).collect();
        assert_eq!(kinds, ["A", "B", "C"]);
        let place = |object: usize, path: &FieldPath| {
            let Place { line, column } = objects[object].place(path);
            (line, column)
        };
        let list = FieldPath::default().below("spec.list");
        assert_eq!(place(0, &FieldPath::default()), (2, 1));
        assert_eq!(place(0, &list), (5, 3));
        assert_eq!(place(0, &list.item(0)), (6, 5));
        assert_eq!(place(0, &list.item(0).field("value")), (7, 5));
        assert_eq!(place(0, &list.item(0).field("missing")), (6, 5));
        assert_eq!(place(1, &FieldPath::default().below("metadata.name")), (13, 40));
        assert_eq!(place(2, &FieldPath::default().field("kind")), (15, 3));
    }

    #[test]
    fn json_is_read_alone_in_a_stream_and_with_tabs() {
        let text = "{\"apiVersion\":\"v1\",\n\t\"kind\":\"A\"}\n{\"apiVersion\":\"v1\",\n \"kind\":\"B\", \"a\": \"\\u00e9\\/\"}\n";
        let objects = objects(text).unwrap();
        assert_eq!(objects[0].json, json!({"apiVersion": "v1", "kind": "A"}));
        assert_eq!(objects[1].json, json!({"apiVersion": "v1", "kind": "B", "a": "é/"}));
        assert_eq!(objects[1].place(&FieldPath::default().field("kind")), Place { line: 4, column: 2 });
    }

    #[test]
    fn yaml_is_read_as_kubectl_reads_it() {
        let text = "{apiVersion: v1, kind: A, yes: on, octal: 010, text: '010', none: ~, time: 2026-11-22, big: 1e3, under: 1_000, no: 0x10}";
        assert_eq!(
            json_of(text),
            [json!({"apiVersion": "v1", "kind": "A", "true": true, "octal": 8, "text": "010", "none": null,
                "time": "2026-11-22", "big": 1000.0, "under": 1000, "false": 16})]
        );
        let anchors = "apiVersion: v1\nkind: A\na: &a {x: 1}\nb: *a\nc:\n  <<: *a\n  z: 2\n";
        assert_eq!(
            json_of(anchors),
            [json!({"apiVersion": "v1", "kind": "A", "a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "z": 2}})]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_place_and_never_repeated() {
        for (text, place, said) in [
            ("a: [", None, "neither YAML nor JSON"),
            ("kind: A\npem: |\n-----BEGIN PRIVATE KEY-----\ncanary\n", None, "neither YAML nor JSON"),
            ("{{ if .Values.canary }}: 1\nkind: A\n", Some((1, 1)), "a template must be rendered first"),
            ("kind: A\nkind: canary\n", Some((2, 1)), "a key twice"),
            ("canary: 1\ncanary: 2\n", Some((2, 1)), "a key twice"),
            ("canary", Some((1, 1)), "no map"),
            ("kind: canary\n", Some((1, 1)), "write apiVersion and kind"),
            ("apiVersion: v1\nkind: List\nitems:\n- canary\n", Some((4, 3)), "no map"),
            ("apiVersion: v1\nkind: A\n? [canary]\n: 1\n", Some((3, 3)), "a key that is no text"),
            ("apiVersion: v1\nkind: A\nn: .nan\n", None, "neither"),
        ] {
            let (message, at) = refused(text);
            assert!(message.contains(said), "{text:?}: {message}");
            assert!(!message.contains("canary"), "{text:?}: {message}");
            assert!(at.is_some() || place.is_none(), "{text:?}: {at:?}");
            if place.is_some() {
                assert_eq!(at, place, "{text:?}");
            }
        }
    }

    #[test]
    fn a_file_has_limits() {
        let many = "{apiVersion: v1, kind: A}\n---\n".repeat(FILE_OBJECTS + 1);
        assert!(refused(&many).0.contains("too large"));
        let items = "- {apiVersion: v1, kind: A}\n".repeat(FILE_OBJECTS + 1);
        assert!(refused(&format!("apiVersion: v1\nkind: List\nitems:\n{items}")).0.contains("too large"));
        let deep = format!("apiVersion: v1\nkind: A\na: {}{}", "[".repeat(DEPTH + 1), "]".repeat(DEPTH + 1));
        assert!(refused(&deep).0.contains("too large"));
        let bomb = (0..24)
            .fold("a0: &a0 [x, x]\n".to_owned(), |text, n| format!("{text}a{}: &a{} [*a{n}, *a{n}]\n", n + 1, n + 1));
        assert!(refused(&format!("apiVersion: v1\nkind: A\n{bomb}")).0.contains("too large"));
    }
}
