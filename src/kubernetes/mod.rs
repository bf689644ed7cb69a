//! How we talk to the API server, and nothing of appreg's rules.
//!
//! - [`client`]: two clients from one configuration, a deadline on every call, and errors that say what a caller needs
//!   to know without repeating what was sent.
//! - [`watch`]: a list and an endless watch whose health is known.
//! - [`store`]: what a watch has shown, together with our own writes; reads never go back in time.
//! - [`guard`]: an object that cannot be parsed is a fact.
//!
//! Everything here works for any kind. A kind that users write is watched as [`DeserializeGuard`].

pub mod client;
pub mod guard;
pub mod store;
pub mod watch;

use std::{fmt, sync::Arc};

use kube::{Resource, ResourceExt};

pub use guard::{DeserializeGuard, InvalidObject};

/// Where an object of a known kind is. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The namespace; empty for objects of the cluster.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectName {
    /// The object `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The name of `object`. Both parts are empty if the object has never been on a server.
    #[must_use]
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An object's resourceVersion as a number, 0 if it has none.
///
/// Versions of one kind are comparable as integers: by promise since Kubernetes 1.35 (KEP-5504), in fact before.
#[must_use]
pub fn version_of<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;

    #[test]
    fn an_object_is_named_by_namespace_and_name_and_versions_are_numbers() {
        let mut secret = Secret::default();
        assert_eq!(version_of(&secret), 0);
        secret.metadata.name = Some("storefront".into());
        assert_eq!(ObjectName::of(&secret).to_string(), "storefront");
        secret.metadata.namespace = Some("shop".into());
        secret.metadata.resource_version = Some("17".into());
        assert_eq!(format!("{:?}", ObjectName::of(&secret)), "shop/storefront");
        assert_eq!(version_of(&secret), 17);
    }
}
