//! A request as the proxy sees it, and the rules that break it.

use std::{fmt, ops::Range, sync::Arc, time::Duration};

/// Which requests a fault is for.
pub(super) type Predicate = Arc<dyn Fn(&Request) -> bool + Send + Sync>;

/// One request that came to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// In the order of arrival, from 0.
    pub number: usize,
    pub method: http::Method,
    /// Without the query.
    pub path: String,
    pub query: String,
    /// What the program was answered; `None` as long as it was not, and where it never was.
    pub status: Option<u16>,
    /// Whether the API server answered, whatever the program heard of it.
    pub committed: bool,
}

impl Request {
    /// Whether its method changes something.
    pub fn is_write(&self) -> bool {
        !matches!(self.method, http::Method::GET | http::Method::HEAD | http::Method::OPTIONS)
    }

    pub fn is_watch(&self) -> bool {
        self.query.split('&').any(|parameter| parameter == "watch=true" || parameter == "watch=1")
    }

    /// The plural name of the resource, with the subresource: `secrets`, `appregistrations/status`.
    pub fn resource(&self) -> String {
        let segments = self.segments();
        match segments[..] {
            [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
            [resource, ..] => resource.to_owned(),
            [] => String::new(),
        }
    }

    /// Empty for a cluster-scoped request.
    pub fn namespace(&self) -> &str {
        let mut segments = self.path.split('/').skip_while(|segment| *segment != "namespaces");
        segments.nth(1).unwrap_or_default()
    }

    /// Empty for a list, a watch and a create.
    pub fn name(&self) -> &str {
        self.segments().get(1).copied().unwrap_or_default()
    }

    /// Resource, name, subresource of `/api/v1/namespaces/<ns>/<resource>/<name>/<subresource>` and its like.
    fn segments(&self) -> Vec<&str> {
        let all: Vec<&str> = self.path.trim_matches('/').split('/').collect();
        let after_version = match all[..] {
            ["api", _, ref rest @ ..] | ["apis", _, _, ref rest @ ..] => rest,
            _ => &[],
        };
        match after_version {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => rest.to_vec(),
            rest => rest.to_vec(),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let query = if self.query.is_empty() { String::new() } else { format!("?{}", self.query) };
        let status = self.status.map_or("unanswered".to_owned(), |status| status.to_string());
        let committed = if self.committed { "" } else { " (not committed)" };
        write!(f, "{} {} {}{query} {status}{committed}", self.number, self.method, self.path)
    }
}

/// Where a request is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The API server never sees it.
    BeforeRequest,
    /// The API server has done it; the program does not hear of it.
    AfterCommitBeforeReply,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Its connection ends without an answer.
    Drop(Side),
    /// It hangs there, and so does everything else, until [`Proxy::thaw`]: time to kill the program, as if it had died
    /// exactly here. The thaw then ends every connection that there was; no request that hung is forwarded any more.
    Freeze(Side),
    /// The program gets a `Status` with this code.
    Answer(Side, u16),
    /// It is forwarded so much later.
    Delay(Duration),
}

/// A fault, and which requests it is for.
#[derive(Clone)]
pub struct Rule {
    pub(super) matches: Predicate,
    pub(super) hits: Range<usize>,
    pub(super) fault: Fault,
}

impl Rule {
    /// `fault` for every request that `matches`.
    pub fn new(fault: Fault, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Self {
        Self { matches: Arc::new(matches), hits: 0..usize::MAX, fault }
    }

    /// Only for the n-th of them (from 0), counted from now.
    #[must_use]
    pub fn nth(self, n: usize) -> Self {
        Self { hits: n..n + 1, ..self }
    }

    /// Only for the first n of them.
    #[must_use]
    pub fn first(self, n: usize) -> Self {
        Self { hits: 0..n, ..self }
    }
}
