//! Requests as a test names them, and what goes wrong with them.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::{Value, json};

use super::{FakeApi, world::status};

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`: RBAC's words.
    pub(crate) verb: &'static str,
    /// `secrets`, `appregistrations/status`.
    pub(crate) resource: String,
    /// Empty for all namespaces and for objects of the cluster.
    pub(crate) namespace: String,
    /// Empty for lists and watches.
    pub(crate) name: String,
}

impl Call {
    /// True for everything that changes something.
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.verb, "create" | "update" | "patch" | "delete")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        match (self.namespace.as_str(), self.name.as_str()) {
            ("", "") => Ok(()),
            ("", name) => write!(f, " {name}"),
            (namespace, "") => write!(f, " {namespace}"),
            (namespace, name) => write!(f, " {namespace}/{name}"),
        }
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The connection breaks before the server has seen the request.
    LoseRequest,
    /// The request is carried out and the connection breaks before the answer.
    LoseReply,
    /// The request is never answered, and not carried out.
    Hang,
    /// The request is carried out and never answered.
    HangAfter,
    /// The request is carried out and answered after this time: a webhook that takes its time.
    Slow(Duration),
    /// The server answers this status, and carries nothing out.
    Answer(Value),
    /// The server answers this text with this code: a proxy, or a kind that is not served.
    Text(u16, String),
}

impl Fault {
    /// RBAC, or a server that has just started.
    pub(crate) fn forbidden() -> Self {
        Self::Answer(status(403, "Forbidden", "forbidden: not allowed", json!({})))
    }

    /// A `ResourceQuota` is used up.
    pub(crate) fn quota_exceeded() -> Self {
        let message = "secrets \"x\" is forbidden: exceeded quota: small, requested: count/secrets=1";
        Self::Answer(status(403, "Forbidden", message, json!({"kind": "secrets"})))
    }

    /// A create in a namespace that is being deleted.
    pub(crate) fn namespace_terminating() -> Self {
        let causes = json!({"causes": [{"reason": "NamespaceTerminating", "message": "is being terminated",
            "field": "metadata.namespace"}]});
        Self::Answer(status(403, "Forbidden", "unable to create new content: namespace is being terminated", causes))
    }

    /// A create in a namespace that does not exist.
    pub(crate) fn namespace_missing(namespace: &str) -> Self {
        let message = format!("namespaces {namespace:?} not found");
        Self::Answer(status(404, "NotFound", &message, json!({"kind": "namespaces", "name": namespace})))
    }

    /// Too many requests.
    pub(crate) fn throttled() -> Self {
        Self::Answer(status(429, "TooManyRequests", "storage is (re)initializing", json!({})))
    }

    /// The server failed; what became of a write is unknown to its client (here: nothing).
    pub(crate) fn internal() -> Self {
        Self::Answer(status(500, "InternalError", "Internal error occurred", json!({})))
    }

    /// The CRD is gone.
    pub(crate) fn not_served() -> Self {
        Self::Text(404, "404 page not found\n".to_owned())
    }
}

/// Which requests, counted from the moment the rule is made.
pub(crate) struct Nth {
    pub(super) which: Box<dyn Fn(&Call) -> bool + Send>,
    /// The first that it applies to, from 1.
    pub(super) first: u64,
    /// How many from there.
    pub(super) times: u64,
}

impl Nth {
    /// The `n`-th write, from 1.
    pub(crate) fn write(n: u64) -> Self {
        Self { which: Box::new(Call::is_write), first: n, times: 1 }
    }

    /// The `n`-th request of any kind, from 1.
    pub(crate) fn request(n: u64) -> Self {
        Self { which: Box::new(|_| true), first: n, times: 1 }
    }

    /// Every request with this verb and resource (`secrets`, `appregistrations/status`), until [`FakeApi::heal`].
    pub(crate) fn every(verb: &'static str, resource: &'static str) -> Self {
        Self::every_that(move |call| call.verb == verb && call.resource == resource)
    }

    /// Every request that `which` is true of, until [`FakeApi::heal`].
    pub(crate) fn every_that(which: impl Fn(&Call) -> bool + Send + 'static) -> Self {
        Self { which: Box::new(which), first: 1, times: u64::MAX }
    }

    /// Only the first `times` of them.
    pub(crate) fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Not the first `skipped` of them.
    pub(crate) fn after(mut self, skipped: u64) -> Self {
        self.first += skipped;
        self
    }
}

pub(super) type Action = Arc<dyn Fn(&FakeApi) + Send + Sync>;

pub(super) enum Effect {
    Fault(Fault),
    Before(Action),
}

pub(super) struct Rule {
    pub(super) nth: Nth,
    pub(super) met: u64,
    pub(super) effect: Effect,
}
