//! Everything seen, and what of it must not be.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::super::TokenClient;
use super::seen::{Credential, Hint, LedgerEntry, Shown, ShownEntry, Value, hash};
use super::{TRY_EVERY, TRY_SPENT_EVERY, Tally};

const PUBLISHED: &str = "appreg.dev/published";
/// How long a token service may take to hear that something left the ledger.
const HEARD_WITHIN: SignedDuration = SignedDuration::from_secs(35);

/// Everything seen.
#[derive(Default)]
pub(super) struct Record {
    /// By hash.
    pub(super) values: BTreeMap<String, Value>,
    /// By namespace and name.
    pub(super) secrets: BTreeMap<(String, String), Shown>,
    /// By name.
    pub(super) ledger: BTreeMap<String, LedgerEntry>,
    /// By uid of the registration.
    pub(super) client_ids: BTreeMap<String, String>,
    /// The hash of each revision, by uid, entry and number.
    pub(super) revisions: BTreeMap<(String, String, u64), String>,
    /// The next number, by uid and entry.
    pub(super) numbers: BTreeMap<(String, String), u64>,
    /// Current revisions by namespace, uid and entry.
    pub(super) published: BTreeMap<(String, String, String), Vec<u64>>,
    pub(super) ended: BTreeSet<(String, String)>,
    pub(super) unserved: BTreeSet<(String, String)>,
    pub(super) violations: Vec<String>,
    pub(super) lists: usize,
    pub(super) tally: Tally,
    pub(super) last_spent_try: Option<Instant>,
    pub(super) endpoint: Option<TokenClient>,
}

/// One event, or all that a list has.
pub(super) struct Change {
    pub(super) ledger: BTreeMap<String, Option<LedgerEntry>>,
    pub(super) secrets: Vec<((String, String), Option<Secret>)>,
}

impl Record {
    pub(super) fn violation(&mut self, invariant: &str, what: &str) {
        self.violations.push(format!("{} {invariant}: {what}", Timestamp::now()));
    }

    pub(super) fn summary(&self) -> String {
        let Tally { accepted, refused, unanswered } = self.tally;
        format!(
            "observer: {} values, {} lists, {accepted} accepted, {refused} refused, {unanswered} unanswered",
            self.values.len(),
            self.lists
        )
    }

    pub(super) fn excuse(&mut self, is_meant: impl Fn(&Value) -> bool) {
        for value in self.values.values_mut().filter(|value| is_meant(value)) {
            value.excused = true;
        }
    }

    /// Learns from a status for how long what was replaced is accepted.
    pub(super) fn overlap(&mut self, uid: &str, entry: &str, overlap: SignedDuration) {
        for value in self.values.values_mut().filter(|value| value.uid == uid && value.entry == entry) {
            value.overlap = Some(overlap);
        }
    }

    /// The ledger first, because what is published must be in it; what left the ledger last, because only the Secret
    /// says what was announced.
    pub(super) fn apply(&mut self, change: Change) {
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
                self.revision((uid, name, revision.number), revision.hash(), &place);
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

    fn revision(&mut self, (uid, entry, revision): (&str, &str, u64), hash: &str, place: &str) {
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
            if let Some(replaced) = before.filter(|replaced| Some(replaced) != current.as_ref())
                && let Some(value) = self.values.get_mut(&replaced)
            {
                value.replaced = Some(hint.since);
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
            revision: revision.number,
            hint: hint.unwrap_or_default().to_owned(),
            client_id: seen.client_id.to_owned(),
            client_secret: (!is_certificate).then(|| value.to_owned()),
            not_after: revision.not_after,
            replaced: None,
            overlap: None,
            is_told: false,
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
        self.revision((seen.uid, seen.entry, number), hash, &what);
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
                if left.is_none_or(|left| left.revisions.iter().all(|r| r.number != revision.number)) {
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
    pub(super) fn due(&mut self) -> Vec<(String, String, String)> {
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

    pub(super) fn tried(&mut self, hash: &str, (before, after): (Timestamp, Timestamp), is_accepted: Option<bool>) {
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
                } else if !std::mem::replace(&mut value.is_told, true) {
                    let end = value.end();
                    self.violation("S1", &format!("{what} was refused between {before} and {after}, before {end}"));
                }
            }
        }
    }
}

/// Where a value was seen.
pub(super) struct Seen<'a> {
    object: &'a (String, String),
    uid: &'a str,
    entry: &'a str,
    credential: &'a Credential,
    client_id: &'a str,
}
