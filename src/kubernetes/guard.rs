//! An object of a kind that users write, or what is wrong with it: one object that cannot be parsed is one fact and not
//! the end of the list.
//!
//! kube has such a type, too. This one says which field it is, and never repeats what stands there.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The object, or its metadata and the reason why the rest could not be parsed.
#[derive(Clone, Debug)]
pub struct DeserializeGuard<K>(pub Result<K, InvalidObject>);

/// An object that could not be parsed.
#[derive(Clone, Debug)]
pub struct InvalidObject {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The path of the field that could not be parsed, such as `spec.grantTypes[0]`.
    pub field: String,
    /// What is expected there, and how to mend it: `must be one of …: change it`.
    pub problem: String,
    /// Its status, whatever that is.
    status: Value,
}

impl InvalidObject {
    /// Its status: what is wrong with the rest is no reason to say again what was said. One that is none is the default.
    #[must_use]
    pub fn status<S: DeserializeOwned + Default>(&self) -> S {
        S::deserialize(&self.status).unwrap_or_default()
    }
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for DeserializeGuard<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        if let Ok(parsed) = K::deserialize(&object) {
            return Ok(Self(Ok(parsed)));
        }
        let metadata = ObjectMeta::deserialize(&object["metadata"]).map_err(D::Error::custom)?;
        let (field, problem) = match serde_path_to_error::deserialize::<_, K>(&object) {
            Ok(_) => (String::new(), String::new()),
            Err(error) => expectation(&error.path().to_string(), &error.inner().to_string()),
        };
        Ok(Self(Err(InvalidObject { metadata, field, problem, status: object["status"].clone() })))
    }
}

/// The field, and what serde expects there: without the value that it found.
fn expectation(path: &str, error: &str) -> (String, String) {
    if let Some(missing) = error.strip_prefix("missing field `") {
        let name = missing.trim_end_matches('`');
        return (format!("{path}.{name}"), "must be set: add it".to_owned());
    }
    if error.starts_with("unknown field") {
        let problem = "must be a field that this version of appreg knows: remove it, or upgrade appreg";
        return (path.to_owned(), problem.to_owned());
    }
    let expected = match error.rsplit_once(", expected ").map(|(_, expected)| expected) {
        Some("a sequence") => "a list",
        Some("a map") => "an object",
        Some(type_) if type_.starts_with("struct ") => "an object",
        Some("u32" | "u64" | "i64") => "a whole number in the allowed range",
        Some(other) => other,
        None => return (path.to_owned(), "must have another value: change it".to_owned()),
    };
    (path.to_owned(), format!("must be {expected}: change it"))
}

impl<K: Resource> Resource for DeserializeGuard<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|invalid| &invalid.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|invalid| &mut invalid.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::AppRegistration;

    fn problem(spec: &Value) -> String {
        let object = json!({"metadata": {"name": "storefront"}, "spec": spec});
        let guard: DeserializeGuard<AppRegistration> = serde_json::from_value(object).unwrap();
        assert_eq!(guard.meta().name.as_deref(), Some("storefront"));
        guard.0.map_or_else(|invalid| format!("{}: {}", invalid.field, invalid.problem), |_| String::new())
    }

    #[test]
    fn what_is_wrong_names_the_field_and_the_expectation_and_not_the_value() {
        assert_eq!(problem(&json!({"displayName": "Shop"})), "");
        assert_eq!(problem(&json!({"displayName": 123_456})), "spec.displayName: must be a string: change it");
        assert_eq!(problem(&json!({})), "spec.displayName: must be set: add it");
        let text =
            problem(&json!({"displayName": "Shop", "grantTypes": ["client_credentials", "telepathy, expected x"]}));
        assert_eq!(
            text,
            "spec.grantTypes[1]: must be one of `client_credentials`, `authorization_code`, `refresh_token`: change it"
        );
        let text = problem(
            &json!({"displayName": "Shop", "credentials": [{"name": "web", "certificate": {"privateKey": {"algorithm": "telepathy"}}}]}),
        );
        assert!(text.starts_with("spec.credentials[0].certificate.privateKey.algorithm: must be one of"), "{text}");
    }

    #[test]
    fn an_object_without_readable_metadata_is_no_object() {
        let object = json!({"metadata": {"name": 7}, "spec": {}});
        assert!(serde_json::from_value::<DeserializeGuard<AppRegistration>>(object).is_err());
    }
}
