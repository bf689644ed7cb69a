//! An independent witness of the promises made to applications (invariants S1 to S4 and S9).
//!
//! It has one watch on every Secret of the operator's, ledger entries included: one resource, so the events come in the
//! order in which they were committed, and whether a published value was in the ledger is a matter of fact at each of
//! them. Beside that it tries every client secret it ever saw at the token endpoint, again and again, as an application
//! would. It reads the ledger's JSON with eyes of its own and shares no code with the operator.
//!
//! | Invariant | Violated when |
//! |---|---|
//! | S1 | a value that a Secret showed is dropped or refused before `min(notAfter, its announced end)`, or dropped while it is shown |
//! | S2 | a Secret shows no accepted value of an entry that it once showed one of |
//! | S3 | one revision has two values, in the ledger or in Secrets; a value has two revisions; a number goes back |
//! | S4 | a registration's client ID changes |
//! | S9 | a value is accepted after its `notAfter`, or long after it left the ledger |
//!
//! The announced end of a current value is its `notAfter`; of one that was replaced, `since` of its successor (the
//! annotation) plus `overlap` (the status). Certificates count as accepted while their hash is in the ledger: the token
//! endpoint has no mutual TLS yet. Access tokens are not looked at. Violations name registration, entry, revision and
//! hint, never a value.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use anyhow::Result;
use appreg::api::AppRegistration;
use aws_lc_rs::digest;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::{Access, oauth::TokenClient};

const LABELS: &str = "app.kubernetes.io/managed-by=appreg";
const LEDGER_TYPE: &str = "appreg.dev/ledger";
const PUBLISHED: &str = "appreg.dev/published";
/// How often a value is tried that must be accepted.
const TRY_EVERY: Duration = Duration::from_millis(200);
/// How often one of those is tried that need not be: each refusal costs the token service a live read, of which it makes
/// ten in a second for everybody.
const TRY_SPENT_EVERY: Duration = Duration::from_millis(250);
/// How long a token service may take to hear that something left the ledger.
const HEARD_WITHIN: SignedDuration = SignedDuration::from_secs(35);
/// After trouble with a watch.
const PAUSE: Duration = Duration::from_millis(100);

/// Watches and tries, from its start until it is dropped.
pub struct Observer {
    record: Arc<Mutex<Record>>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// What came of the tries at the token endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub accepted: usize,
    pub refused: usize,
    /// Neither a token nor a refusal of the credential.
    pub unanswered: usize,
}

impl Observer {
    /// Begins. `access` leads to the API server itself; the token endpoint is the one that Secrets name.
    pub async fn start(access: &Access) -> Result<Self> {
        let record = Arc::new(Mutex::new(Record::default()));
        let news = Arc::new(Notify::new());
        let client = access.client("admin");
        let mut watch = Watch { api: Api::all(client.clone()), record: record.clone(), news: news.clone() };
        let version = watch.list().await?;
        let tasks = vec![
            tokio::spawn(async move { watch.run(version).await }),
            tokio::spawn(follow_status(Api::all(client), record.clone())),
            tokio::spawn(try_all(record.clone(), news)),
        ];
        Ok(Self { record, _tasks: tasks.into_iter().map(AbortOnDropHandle::new).collect() })
    }

    /// What was violated so far, in the order in which it was seen.
    pub fn violations(&self) -> Vec<String> {
        self.record().violations.clone()
    }

    /// # Panics
    /// Where something was violated.
    #[track_caller]
    pub fn assert_no_violation(&self) {
        let violations = self.violations();
        assert!(violations.is_empty(), "{}\n{}", violations.join("\n"), self.summary());
    }

    /// From now on it is right that the values which an entry has shown so far are refused: they are revoked.
    pub fn revoking(&self, namespace: &str, entry: &str) {
        self.record().excuse(|value| value.namespace == namespace && value.entry == entry);
    }

    /// The same, and no new value is expected: the entry, or the whole registration, goes.
    pub fn ending(&self, namespace: &str, entry: Option<&str>) {
        let mut record = self.record();
        let is_meant = |value: &Value| value.namespace == namespace && entry.is_none_or(|entry| entry == value.entry);
        record.excuse(is_meant);
        let ended: Vec<_> =
            record.values.values().filter(|value| is_meant(value)).map(|v| (v.uid.clone(), v.entry.clone())).collect();
        record.ended.extend(ended);
    }

    /// The revisions of an entry that a Secret has shown as the current one, in this order.
    pub fn published(&self, namespace: &str, entry: &str) -> Vec<u64> {
        let record = self.record();
        let found = record.published.iter().filter(|((ns, _, e), _)| ns == namespace && e == entry);
        found.flat_map(|(_, revisions)| revisions.clone()).collect()
    }

    /// The client secrets that expired or left the ledger, and were not refused since.
    pub fn not_yet_refused(&self) -> Vec<String> {
        let now = Timestamp::now();
        let record = self.record();
        let is_over = |value: &&Value| value.not_after <= now || value.dropped.is_some();
        let over = record.values.values().filter(|value| value.client_secret.is_some()).filter(is_over);
        over.filter(|value| value.refusals == 0).map(ToString::to_string).collect()
    }

    /// What came of the tries so far.
    pub fn tally(&self) -> Tally {
        self.record().tally
    }

    /// How often the watch lost its place: what was between is known by its end alone.
    pub fn gaps(&self) -> usize {
        self.record().lists.saturating_sub(1)
    }

    /// One line: what was seen.
    pub fn summary(&self) -> String {
        self.record().summary()
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.record)
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().expect("no panic while held")
}

/// A ledger entry, as far as it says what is accepted.
#[derive(Clone, Debug, Deserialize)]
struct LedgerEntry {
    #[serde(rename = "clientID")]
    client_id: String,
    owner: Owner,
    #[serde(default)]
    credentials: BTreeMap<String, Credential>,
}

#[derive(Clone, Debug, Deserialize)]
struct Owner {
    namespace: String,
    name: String,
    uid: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credential {
    kind: String,
    #[serde(default)]
    next_revision: u64,
    #[serde(default)]
    revisions: Vec<Revision>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Revision {
    revision: u64,
    not_after: Timestamp,
    verifier: serde_json::Value,
}

impl Revision {
    /// The hash of the value: of a client secret, or of a certificate.
    fn hash(&self) -> &str {
        let text = |name: &str| self.verifier[name].as_str();
        text("sha256").or_else(|| text("certSHA256")).unwrap_or_default()
    }
}

/// What a Secret says of one entry.
#[derive(Clone, Debug, Deserialize)]
struct Hint {
    current: Option<u64>,
    since: Timestamp,
}

/// What a Secret shows: hashes by entry.
#[derive(Clone, Debug, Default)]
struct Shown {
    uid: String,
    entries: BTreeMap<String, ShownEntry>,
}

#[derive(Clone, Debug, Default)]
struct ShownEntry {
    current: Option<String>,
    previous: Option<String>,
}

/// A value that a Secret has shown.
struct Value {
    namespace: String,
    name: String,
    uid: String,
    entry: String,
    revision: u64,
    /// Its first characters.
    hint: String,
    client_id: String,
    /// None for a certificate.
    client_secret: Option<String>,
    not_after: Timestamp,
    announced_end: Timestamp,
    /// It may be refused at any time.
    excused: bool,
    dropped: Option<Timestamp>,
    next_try: Instant,
    /// Since it became spent.
    refusals: usize,
}

impl Value {
    /// Until when it must be accepted.
    fn end(&self) -> Timestamp {
        self.not_after.min(self.announced_end)
    }

    /// Whether it need not be accepted any more.
    fn is_spent(&self, now: Timestamp) -> bool {
        self.excused || self.end() <= now
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { namespace, name, entry, revision, hint, .. } = self;
        write!(f, "{namespace}/{name} {entry} r{revision} ({hint}…)")
    }
}

/// Everything seen.
#[derive(Default)]
struct Record {
    /// By hash.
    values: BTreeMap<String, Value>,
    /// By namespace and name.
    secrets: BTreeMap<(String, String), Shown>,
    /// By name.
    ledger: BTreeMap<String, LedgerEntry>,
    /// By uid of the registration.
    client_ids: BTreeMap<String, String>,
    /// The hash of each revision, by uid, entry and number.
    revisions: BTreeMap<(String, String, u64), String>,
    /// The next number, by uid and entry.
    numbers: BTreeMap<(String, String), u64>,
    /// Current revisions by namespace, uid and entry.
    published: BTreeMap<(String, String, String), Vec<u64>>,
    /// By uid and entry.
    overlaps: BTreeMap<(String, String), SignedDuration>,
    ended: BTreeSet<(String, String)>,
    unserved: BTreeSet<(String, String)>,
    violations: Vec<String>,
    lists: usize,
    tally: Tally,
    last_spent_try: Option<Instant>,
    endpoint: Option<TokenClient>,
}

/// One event, or all that a list has.
struct Change {
    ledger: BTreeMap<String, Option<LedgerEntry>>,
    secrets: Vec<((String, String), Option<Secret>)>,
}

impl Record {
    fn violation(&mut self, invariant: &str, what: &str) {
        self.violations.push(format!("{} {invariant}: {what}", Timestamp::now()));
    }

    fn summary(&self) -> String {
        let Tally { accepted, refused, unanswered } = self.tally;
        format!(
            "observer: {} values, {} lists, {accepted} accepted, {refused} refused, {unanswered} unanswered",
            self.values.len(),
            self.lists
        )
    }

    fn excuse(&mut self, is_meant: impl Fn(&Value) -> bool) {
        for value in self.values.values_mut().filter(|value| is_meant(value)) {
            value.excused = true;
        }
    }

    /// The ledger first, because what is published must be in it; what left the ledger last, because only the Secret
    /// says what was announced.
    fn apply(&mut self, change: Change) {
        let now = Timestamp::now();
        let before: Vec<LedgerEntry> = change.ledger.keys().filter_map(|name| self.ledger.get(name).cloned()).collect();
        for (name, entry) in change.ledger {
            match entry {
                Some(entry) => {
                    self.ledger_entry(&entry);
                    self.ledger.insert(name, entry);
                }
                None => drop(self.ledger.remove(&name)),
            }
        }
        for (object, secret) in change.secrets {
            match secret {
                Some(secret) => self.secret(object, &secret, now),
                None => self.vanished(&object),
            }
        }
        for entry in before {
            self.dropped(&entry, now);
        }
        self.check_served(now);
    }

    fn ledger_entry(&mut self, entry: &LedgerEntry) {
        let uid = &entry.owner.uid;
        self.client_id(uid, &entry.client_id, &format!("{}/{}", entry.owner.namespace, entry.owner.name));
        for (name, credential) in &entry.credentials {
            let place = format!("{}/{} {name}", entry.owner.namespace, entry.owner.name);
            for revision in &credential.revisions {
                self.revision(uid, name, revision.revision, revision.hash(), &place);
            }
            let next = self.numbers.entry((uid.clone(), name.clone())).or_default();
            let went_back = credential.next_revision < *next;
            let was = std::mem::replace(next, credential.next_revision.max(*next));
            if went_back {
                let now = credential.next_revision;
                self.violation("S3", &format!("{place}: the next revision went back from {was} to {now}"));
            }
        }
    }

    fn client_id(&mut self, uid: &str, client_id: &str, place: &str) {
        let known = self.client_ids.entry(uid.to_owned()).or_insert_with(|| client_id.to_owned()).clone();
        if known != client_id {
            self.violation("S4", &format!("{place}: the client ID changed from {known} to {client_id}"));
        }
    }

    fn revision(&mut self, uid: &str, entry: &str, revision: u64, hash: &str, place: &str) {
        let key = (uid.to_owned(), entry.to_owned(), revision);
        if *self.revisions.entry(key).or_insert_with(|| hash.to_owned()) != hash {
            self.violation("S3", &format!("{place}: revision {revision} has two values"));
        }
    }

    fn secret(&mut self, object: (String, String), secret: &Secret, now: Timestamp) {
        let text = |field: &str| {
            let bytes = &secret.data.as_ref()?.get(field)?.0;
            Some(String::from_utf8_lossy(bytes).into_owned())
        };
        let Some(uid) = secret.labels().get("appreg.dev/registration-uid").cloned() else { return };
        let place = format!("{}/{}", object.0, object.1);
        let Some(client_id) = text("client_id") else { return };
        self.client_id(&uid, &client_id, &place);
        if self.endpoint.is_none()
            && let (Some(ca), Some(endpoint)) = (text("issuer_ca.crt"), text("token_endpoint"))
        {
            self.endpoint = TokenClient::new(&ca, &endpoint).ok();
        }
        let hints: BTreeMap<String, Hint> =
            secret.annotations().get(PUBLISHED).and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let ledger = self.ledger.values().find(|entry| entry.owner.uid == uid).cloned();
        let old = self.secrets.get(&object).cloned().unwrap_or_default();
        let mut shown = Shown { uid: uid.clone(), ..Shown::default() };
        for (entry, hint) in &hints {
            let Some(credential) = ledger.as_ref().and_then(|ledger| ledger.credentials.get(entry)) else {
                if !self.ended.contains(&(uid.clone(), entry.clone())) {
                    self.violation("S2", &format!("{place} shows {entry}, which is not in the ledger"));
                }
                continue;
            };
            let values = match credential.kind.as_str() {
                "clientSecret" => [text("client_secret"), text("previous_client_secret")],
                "certificate" => [text("tls.crt"), None],
                _ => continue,
            };
            let seen = Seen { object: &object, uid: &uid, entry, credential, client_id: &client_id };
            let [current, previous] = values.map(|value| value.map(|value| self.value(&seen, &value, now)));
            if let Some(hash) = &current {
                self.is_current(&seen, hash, hint);
            }
            let before = old.entries.get(entry).and_then(|old| old.current.clone());
            if let Some(replaced) = before.filter(|replaced| Some(replaced) != current.as_ref()) {
                let overlap = self.overlaps.get(&(uid.clone(), entry.clone())).copied();
                if let (Some(value), Some(overlap)) = (self.values.get_mut(&replaced), overlap) {
                    value.announced_end = hint.since + overlap;
                }
            }
            shown.entries.insert(entry.clone(), ShownEntry { current, previous });
        }
        self.secrets.insert(object, shown);
    }

    /// Remembers a value that a Secret shows, and returns its hash.
    fn value(&mut self, seen: &Seen<'_>, value: &str, now: Timestamp) -> String {
        let is_certificate = seen.credential.kind == "certificate";
        let hash = if is_certificate {
            CertificateDer::from_pem_slice(value.as_bytes()).map_or(String::new(), |der| hash(&der))
        } else {
            hash(value.as_bytes())
        };
        let known = seen.credential.revisions.iter().find(|revision| revision.hash() == hash);
        let Some(revision) = known else {
            let lapsed = self.values.get(&hash).is_some_and(|value| value.is_spent(now));
            if !lapsed {
                let place = format!("{}/{} {}", seen.object.0, seen.object.1, seen.entry);
                self.violation("S1", &format!("{place} shows a value that is not in the ledger"));
            }
            return hash;
        };
        let hint = if is_certificate { hash.get(..8) } else { value.get(..8) };
        let new = Value {
            namespace: seen.object.0.clone(),
            name: seen.object.1.clone(),
            uid: seen.uid.to_owned(),
            entry: seen.entry.to_owned(),
            revision: revision.revision,
            hint: hint.unwrap_or_default().to_owned(),
            client_id: seen.client_id.to_owned(),
            client_secret: (!is_certificate).then(|| value.to_owned()),
            not_after: revision.not_after,
            announced_end: revision.not_after,
            excused: false,
            dropped: None,
            next_try: Instant::now(),
            refusals: 0,
        };
        let (number, uid, entry) = (new.revision, new.uid.clone(), new.entry.clone());
        let known = self.values.entry(hash.clone()).or_insert(new);
        let is_other = known.revision != number || known.uid != uid || known.entry != entry;
        if is_other {
            let what = format!("{known} is also revision {number} of {entry}");
            self.violation("S3", &what);
        }
        hash
    }

    /// Takes note of the revision that a Secret shows as the current one.
    fn is_current(&mut self, seen: &Seen<'_>, hash: &str, hint: &Hint) {
        let Some(value) = self.values.get(hash) else { return };
        let (number, what) = (value.revision, value.to_string());
        if hint.current != Some(number) {
            self.violation("S3", &format!("{what}: the annotation says {:?}", hint.current));
        }
        self.revision(seen.uid, seen.entry, number, hash, &what);
        let key = (seen.object.0.clone(), seen.uid.to_owned(), seen.entry.to_owned());
        let numbers = self.published.entry(key).or_default();
        let went_back = numbers.last().is_some_and(|last| *last > number);
        if numbers.last() != Some(&number) {
            numbers.push(number);
        }
        if went_back {
            self.violation("S3", &format!("{what} was published after a later one"));
        }
    }

    /// A Secret that is gone shows nothing.
    fn vanished(&mut self, object: &(String, String)) {
        let Some(shown) = self.secrets.remove(object) else { return };
        for entry in shown.entries.into_keys() {
            if !self.ended.contains(&(shown.uid.clone(), entry.clone())) {
                self.violation("S2", &format!("{}/{}, which showed {entry}, is gone", object.0, object.1));
            }
        }
    }

    /// What of an entry's former state is no longer in the ledger.
    fn dropped(&mut self, before: &LedgerEntry, now: Timestamp) {
        let after = self.ledger.values().find(|entry| entry.owner.uid == before.owner.uid);
        let mut gone = Vec::new();
        for (name, credential) in &before.credentials {
            let left = after.and_then(|entry| entry.credentials.get(name));
            for revision in &credential.revisions {
                if left.is_none_or(|left| left.revisions.iter().all(|r| r.revision != revision.revision)) {
                    gone.push(revision.hash().to_owned());
                }
            }
        }
        for hash in gone {
            let shows = |shown: &ShownEntry| [&shown.current, &shown.previous].contains(&&Some(hash.clone()));
            let is_shown = self.secrets.values().flat_map(|shown| shown.entries.values()).any(shows);
            let Some(value) = self.values.get_mut(&hash) else { continue };
            value.dropped = Some(now);
            let (what, end) = (value.to_string(), value.end());
            if value.excused || value.not_after <= now {
                continue;
            }
            if is_shown {
                self.violation("S1", &format!("{what} left the ledger while a Secret shows it"));
            } else if now < end {
                self.violation("S1", &format!("{what} left the ledger before {end}"));
            }
        }
    }

    /// S2, by what is in the ledger.
    fn check_served(&mut self, now: Timestamp) {
        let mut unserved = BTreeMap::new();
        for (object, shown) in &self.secrets {
            let ledger = self.ledger.values().find(|entry| entry.owner.uid == shown.uid);
            for (entry, values) in &shown.entries {
                let key = (shown.uid.clone(), entry.clone());
                let credential = ledger.and_then(|ledger| ledger.credentials.get(entry));
                let is_accepted = |hash: &Option<String>| {
                    hash.as_ref().zip(credential).is_some_and(|(hash, credential)| {
                        credential.revisions.iter().any(|r| r.hash() == hash && now < r.not_after)
                    })
                };
                if !self.ended.contains(&key) && !is_accepted(&values.current) && !is_accepted(&values.previous) {
                    unserved.insert(key, object.clone());
                }
            }
        }
        let old = std::mem::replace(&mut self.unserved, unserved.keys().cloned().collect());
        for (key, (namespace, name)) in unserved.into_iter().filter(|(key, _)| !old.contains(key)) {
            self.violation("S2", &format!("{namespace}/{name} shows no accepted value of {}", key.1));
        }
    }

    /// What is to be tried now.
    fn due(&mut self) -> Vec<(String, String, String)> {
        let (now, time) = (Instant::now(), Timestamp::now());
        self.check_served(time);
        let is_due = |value: &Value| value.client_secret.is_some() && value.next_try <= now;
        let spent = self.values.iter().filter(|(_, value)| is_due(value) && value.is_spent(time));
        let mut spent = spent.min_by_key(|(_, value)| (value.refusals, value.next_try)).map(|(hash, _)| hash.clone());
        if self.last_spent_try.is_some_and(|last| last + TRY_SPENT_EVERY > now) {
            spent = None;
        }
        let mut due = Vec::new();
        for (hash, value) in &mut self.values {
            if !is_due(value) || (value.is_spent(time) && spent.as_ref() != Some(hash)) {
                continue;
            }
            value.next_try = now + if value.refusals > 0 { TRY_EVERY * 50 } else { TRY_EVERY };
            due.push((hash.clone(), value.client_id.clone(), value.client_secret.clone().unwrap_or_default()));
        }
        if spent.is_some() {
            self.last_spent_try = Some(now);
        }
        due
    }

    fn tried(&mut self, hash: &str, (before, after): (Timestamp, Timestamp), is_accepted: Option<bool>) {
        let Some(value) = self.values.get_mut(hash) else { return };
        let what = value.to_string();
        match is_accepted {
            None => self.tally.unanswered += 1,
            Some(true) => {
                self.tally.accepted += 1;
                value.refusals = 0;
                if value.not_after <= before {
                    let end = value.not_after;
                    self.violation("S9", &format!("{what} was accepted after its notAfter {end}"));
                } else if let Some(dropped) = value.dropped.filter(|dropped| *dropped + HEARD_WITHIN < before) {
                    self.violation("S9", &format!("{what} was accepted, and left the ledger at {dropped}"));
                }
            }
            Some(false) => {
                self.tally.refused += 1;
                if value.is_spent(after) {
                    value.refusals += 1;
                } else {
                    let end = value.end();
                    self.violation("S1", &format!("{what} was refused between {before} and {after}, before {end}"));
                }
            }
        }
    }
}

/// Where a value was seen.
struct Seen<'a> {
    object: &'a (String, String),
    uid: &'a str,
    entry: &'a str,
    credential: &'a Credential,
    client_id: &'a str,
}

fn hash(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, bytes))
}

/// The one watch.
struct Watch {
    api: Api<Secret>,
    record: Arc<Mutex<Record>>,
    news: Arc<Notify>,
}

impl Watch {
    async fn run(&mut self, mut version: String) {
        loop {
            let lost = self.watch(&mut version).await;
            while lost {
                match self.list().await {
                    Ok(listed) => {
                        version = listed;
                        break;
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until it ends; true if the place is lost.
    async fn watch(&mut self, version: &mut String) -> bool {
        let params = WatchParams::default().labels(LABELS).timeout(290);
        let stream = match self.api.watch(&params, version).await {
            Ok(stream) => stream,
            Err(error) => {
                tokio::time::sleep(PAUSE).await;
                return is_gone(&error);
            }
        };
        let mut stream = pin!(stream);
        loop {
            match stream.try_next().await {
                Ok(Some(WatchEvent::Added(secret) | WatchEvent::Modified(secret))) => {
                    *version = secret.resource_version().unwrap_or_default();
                    self.apply([(secret, true)]);
                }
                Ok(Some(WatchEvent::Deleted(secret))) => {
                    *version = secret.resource_version().unwrap_or_default();
                    self.apply([(secret, false)]);
                }
                Ok(Some(WatchEvent::Bookmark(bookmark))) => *version = bookmark.metadata.resource_version,
                Ok(Some(WatchEvent::Error(status))) => return status.code == 410,
                Err(error) => return is_gone(&error),
                Ok(None) => return false,
            }
        }
    }

    async fn list(&mut self) -> Result<String> {
        let list = self.api.list(&ListParams::default().labels(LABELS)).await?;
        let mut all: Vec<(Secret, bool)> = list.items.into_iter().map(|secret| (secret, true)).collect();
        {
            let mut record = lock(&self.record);
            record.lists += 1;
            let listed: BTreeSet<_> = all.iter().map(|(secret, _)| object(secret)).collect();
            let vanished = record.secrets.keys().filter(|object| !listed.contains(*object)).cloned();
            let mut gone: Vec<Secret> = vanished.map(|(namespace, name)| stub(namespace, name, None)).collect();
            let names: BTreeSet<_> = listed.iter().map(|(_, name)| name).collect();
            let entries = record.ledger.keys().filter(|name| !names.contains(name));
            gone.extend(entries.map(|name| stub(String::new(), name.clone(), Some(LEDGER_TYPE))));
            all.extend(gone.into_iter().map(|secret| (secret, false)));
        }
        self.apply(all);
        Ok(list.metadata.resource_version.unwrap_or_default())
    }

    fn apply(&self, secrets: impl IntoIterator<Item = (Secret, bool)>) {
        let mut change = Change { ledger: BTreeMap::new(), secrets: Vec::new() };
        for (secret, exists) in secrets {
            if secret.type_.as_deref() == Some(LEDGER_TYPE) {
                let entry = exists.then(|| {
                    let json = &secret.data.as_ref().expect("a ledger entry has data")["ledger.json"].0;
                    serde_json::from_slice(json).expect("a ledger entry is JSON")
                });
                change.ledger.insert(secret.name_any(), entry);
            } else {
                change.secrets.push((object(&secret), exists.then_some(secret)));
            }
        }
        lock(&self.record).apply(change);
        self.news.notify_one();
    }
}

fn object(secret: &Secret) -> (String, String) {
    (secret.namespace().unwrap_or_default(), secret.name_any())
}

/// What stands for an object that a list no longer has.
fn stub(namespace: String, name: String, type_: Option<&str>) -> Secret {
    let mut secret = Secret { type_: type_.map(str::to_owned), ..Secret::default() };
    secret.metadata.namespace = Some(namespace);
    secret.metadata.name = Some(name);
    secret
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 410)
}

/// Learns every entry's overlap from the status.
async fn follow_status(api: Api<AppRegistration>, record: Arc<Mutex<Record>>) {
    loop {
        if let Ok(list) = api.list(&ListParams::default()).await {
            for registration in list {
                let uid = registration.uid().unwrap_or_default();
                let status = serde_json::to_value(&registration.status).unwrap_or_default();
                for credential in status["credentials"].as_array().into_iter().flatten() {
                    let overlap = credential["overlap"].as_str().and_then(seconds);
                    let name = credential["name"].as_str().unwrap_or_default().to_owned();
                    if let Some(overlap) = overlap {
                        lock(&record).overlaps.insert((uid.clone(), name), overlap);
                    }
                }
            }
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// `1h30m`, `2d`: numbers of w, d, h, m, s.
fn seconds(text: &str) -> Option<SignedDuration> {
    let (mut total, mut number) = (0, 0);
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                number = number * 10 + i64::from(c.to_digit(10)?);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        total += number * unit;
        number = 0;
    }
    Some(SignedDuration::from_secs(total))
}

/// Tries every client secret, without end.
async fn try_all(record: Arc<Mutex<Record>>, news: Arc<Notify>) {
    loop {
        let (endpoint, due) = {
            let mut record = lock(&record);
            let endpoint = record.endpoint.clone();
            let due = if endpoint.is_some() { record.due() } else { Vec::new() };
            (endpoint, due)
        };
        let tries = futures::stream::iter(due).for_each_concurrent(4, async |(hash, client_id, client_secret)| {
            let Some(endpoint) = &endpoint else { return };
            let before = Timestamp::now();
            let answer = endpoint.basic(&client_id, &client_secret).await;
            let is_accepted = match answer {
                Ok(answer) if answer.is_token() => Some(true),
                Ok(answer) if answer.is_refusal() => Some(false),
                Ok(_) | Err(_) => None,
            };
            lock(&record).tried(&hash, (before, Timestamp::now()), is_accepted);
        });
        tries.await;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
            () = news.notified() => {}
        }
    }
}
