//! One watch on all of the operator's Secrets, and the overlaps from the registrations' statuses.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Result;
use appreg::api::AppRegistration;
use futures::TryStreamExt as _;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, WatchEvent, WatchParams},
};
use tokio::sync::Notify;

use super::{
    TRY_EVERY, lock,
    record::{Change, Record},
};

const LABELS: &str = "app.kubernetes.io/managed-by=appreg";
const LEDGER_TYPE: &str = "appreg.dev/ledger";
/// After trouble with the watch.
const PAUSE: Duration = Duration::from_millis(100);

/// The one watch.
pub(super) struct Watch {
    pub(super) api: Api<Secret>,
    pub(super) record: Arc<Mutex<Record>>,
    pub(super) news: Arc<Notify>,
}

impl Watch {
    pub(super) async fn run(&mut self, mut version: String) {
        loop {
            if self.watch(&mut version).await {
                version = self.list_again().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn list_again(&mut self) -> String {
        loop {
            match self.list().await {
                Ok(version) => return version,
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
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

    pub(super) async fn list(&mut self) -> Result<String> {
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
pub(super) async fn follow_status(api: Api<AppRegistration>, record: Arc<Mutex<Record>>) {
    loop {
        if let Ok(list) = api.list(&ListParams::default()).await {
            for registration in list {
                let uid = registration.uid().unwrap_or_default();
                let status = serde_json::to_value(&registration.status).unwrap_or_default();
                for credential in status["credentials"].as_array().into_iter().flatten() {
                    let overlap = credential["overlap"].as_str().and_then(seconds);
                    let name = credential["name"].as_str().unwrap_or_default();
                    if let Some(overlap) = overlap {
                        lock(&record).overlap(&uid, name, overlap);
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
