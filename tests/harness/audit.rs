//! Which requests the API server was asked, exactly, from its audit log.
//!
//! Every request counts once: when it is complete, or, for a watch, when it begins. The log has a line 1 to 2 ms after
//! the client has its answer; reading therefore first makes requests of its own and waits for their lines.

use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;

use super::process::POLL;

/// The user whose requests mark a place in the log; they are never counted.
pub const SENTINEL: &str = "audit-sentinel";

/// The audit log of one control plane.
pub struct AuditLog {
    path: PathBuf,
    sentinel: kube::Client,
    next: AtomicU64,
}

/// A place in the log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// Plural, as in a URL; empty for a request that is not about a resource.
    pub resource: String,
    pub subresource: String,
    /// The API group; empty for the core group.
    pub group: String,
    pub namespace: String,
    /// Empty in a list, a watch and often in a create.
    pub name: String,
    pub code: u16,
    pub user_agent: String,
    /// With the query.
    pub uri: String,
}

impl AuditEvent {
    /// `update secrets`, `patch appregistrations/status`: what RBAC speaks of.
    pub fn action(&self) -> String {
        let slash = if self.subresource.is_empty() { "" } else { "/" };
        format!("{} {}{slash}{}", self.verb, self.resource, self.subresource)
    }

    /// Whether it changes something.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }
}

impl AuditLog {
    /// The log in the file `path`; `sentinel` is a client of the user [`SENTINEL`].
    pub fn new(path: PathBuf, sentinel: kube::Client) -> Self {
        Self { path, sentinel, next: AtomicU64::new(0) }
    }

    /// A place after every request that has been answered by now.
    pub async fn mark(&self) -> anyhow::Result<Mark> {
        self.settle().await?;
        Ok(Mark(std::fs::metadata(&self.path)?.len()))
    }

    /// Every request after `mark` that has been answered by now, in the order of their completion.
    pub async fn since(&self, mark: Mark) -> anyhow::Result<Vec<AuditEvent>> {
        self.settle().await?;
        let mut seen = HashSet::new();
        let mut events = Vec::new();
        for line in self.lines(mark)? {
            let event: Value = serde_json::from_str(&line).context("a line of the audit log")?;
            events.extend(request(&event, &mut seen));
        }
        Ok(events)
    }

    /// The same, of one user.
    pub async fn of_since(&self, user: &str, mark: Mark) -> anyhow::Result<Vec<AuditEvent>> {
        let mut events = self.since(mark).await?;
        events.retain(|event| event.user == user);
        Ok(events)
    }

    fn lines(&self, mark: Mark) -> anyhow::Result<Vec<String>> {
        let mut file = File::open(&self.path).with_context(|| self.path.display().to_string())?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        Ok(complete.lines().map(str::to_owned).collect())
    }

    /// Two requests after each other, and their lines: whatever was answered before has its line then.
    async fn settle(&self) -> anyhow::Result<()> {
        for _ in 0..2 {
            let begin = Mark(std::fs::metadata(&self.path).map_or(0, |file| file.len()));
            let path = format!("/version?mark={}", self.next.fetch_add(1, Ordering::Relaxed));
            self.sentinel.request_text(http::Request::get(&path).body(Vec::new())?).await?;
            let wanted = format!("\"requestURI\":\"{path}\"");
            let deadline = Instant::now() + Duration::from_secs(10);
            while !self.lines(begin)?.iter().any(|line| line.contains(&wanted)) {
                if Instant::now() > deadline {
                    bail!("the audit log does not show {path}");
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }
}

/// The request that a line is about, unless it was counted before or is one of our marks.
fn request(event: &Value, seen: &mut HashSet<String>) -> Option<AuditEvent> {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (verb, stage, user) = (text("/verb"), text("/stage"), text("/user/username"));
    // A watch that began before the mark completes after it: only its beginning counts.
    let counts = stage == "ResponseStarted" || verb != "watch";
    if user == SENTINEL || !counts || !seen.insert(text("/auditID")) {
        return None;
    }
    Some(AuditEvent {
        user,
        verb,
        resource: text("/objectRef/resource"),
        subresource: text("/objectRef/subresource"),
        group: text("/objectRef/apiGroup"),
        namespace: text("/objectRef/namespace"),
        name: text("/objectRef/name"),
        code: event
            .pointer("/responseStatus/code")
            .and_then(Value::as_u64)
            .and_then(|code| u16::try_from(code).ok())?,
        user_agent: text("/userAgent"),
        uri: text("/requestURI"),
    })
}

/// How often each action was taken, one a line in alphabetical order: for `expect![…]`.
///
/// ```text
/// 1 create secrets
/// 3 update appregistrations/status
/// ```
///
/// Another code than 2xx is shown behind the action.
pub fn counted(events: &[AuditEvent]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for event in events {
        let code = if (200..300).contains(&event.code) { String::new() } else { format!(" {}", event.code) };
        *counts.entry(event.action() + &code).or_default() += 1;
    }
    counts.iter().fold(String::new(), |mut text, (action, count)| {
        let _ = writeln!(text, "{count} {action}");
        text
    })
}
