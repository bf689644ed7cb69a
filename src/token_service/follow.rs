//! What the ledger namespace shows, and what becomes of it here: clients, signing keys, the serving certificate, the
//! lists that replicas share.
//!
//! One watch over its Secrets; each is reduced at the door to what is served, so no Secret's bytes stay. What cannot be
//! read is told once and counted, and what was understood before it goes on being served. Only a deletion removes.

use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Secret;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::directory::{Client, Directory, Key};
use super::issuer::{Others, Published};
use super::keys::{self, LoadedKeys, SigningKeys};
use super::lists::{Lists, Shown};
use super::texts::Texts;
use super::tls::{self, Serving, ServingCertificate};
use crate::api::names::LEDGER_SECRET_TYPE;
use crate::clock::Clock;
use crate::config::published;
use crate::kubernetes::store::{Changed, Store};
use crate::kubernetes::version_of;
use crate::kubernetes::watch::{Change, Item};
use crate::ledger::{self, Entry};
use crate::shared_lists;

/// Which Secret of the ledger namespace. There may be a hundred thousand of clients: a name costs more than all the rest
/// that must be remembered of what was seen.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The entry of a client.
    Client(Key),
    /// Any other, by its name.
    Other(Box<str>),
}

/// What a Secret of the ledger namespace is to us.
#[derive(Clone, Debug)]
pub enum Seen {
    /// The entry of a client of a built-in server.
    Client(Arc<Client>),
    /// An entry that cannot be read.
    UnreadableEntry(Box<ledger::Unreadable>),
    /// The configured server's signing keys.
    SigningKeys(Result<Arc<LoadedKeys>, Box<keys::Unusable>>),
    /// Another server's settings and signing keys.
    Server(Result<Arc<Published>, Box<keys::Unusable>>),
    /// The serving certificate.
    Certificate(Result<Arc<Serving>, tls::Unusable>),
    /// One of the shared lists, by its index.
    List(usize, Arc<Shown>),
    /// Something of others.
    Other,
}

/// What the ledger namespace fills.
#[derive(Clone, Debug)]
pub struct Served {
    /// The clients.
    pub directory: Arc<Directory>,
    /// The configured server's signing keys.
    pub keys: Arc<SigningKeys>,
    /// The serving certificate.
    pub certificate: Arc<ServingCertificate>,
    /// Revoked tokens and used client assertions.
    pub lists: Arc<Lists>,
    /// The servers besides the configured one.
    pub others: Arc<Others>,
}

/// Takes what the watch and live reads show.
pub struct Follower {
    served: Served,
    clock: Arc<dyn Clock>,
    seen: Mutex<Store<Seen, Place>>,
    texts: Texts,
    unreadable: Family<UnreadableLabels, Gauge>,
}

/// How a live read compares with what was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It changed something.
    Newer,
    /// It changed nothing.
    Same,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UnreadableLabels {
    object: Unreadable,
}

/// What cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Unreadable {
    LedgerEntry,
    SigningKeys,
    ServingCertificate,
    SharedList,
}

impl Served {
    /// Nothing yet. `server` is the configured server's name.
    #[must_use]
    pub fn nothing(server: &str) -> Self {
        Self {
            directory: Arc::default(),
            keys: Arc::default(),
            certificate: Arc::default(),
            lists: Arc::default(),
            others: Arc::new(Others::beside(server)),
        }
    }
}

impl Seen {
    fn of(secret: &Secret, texts: &Texts) -> Self {
        let field = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| bytes.0.as_slice());
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        match name {
            keys::SECRET => Self::SigningKeys(LoadedKeys::parse(field).map(Arc::new).map_err(Box::new)),
            _ if let Some(server) = name.strip_prefix(published::SECRET_PREFIX) => {
                Self::Server(Published::parse(server, field).map(Arc::new).map_err(Box::new))
            }
            tls::SECRET => Self::Certificate(Serving::parse(field(tls::CHAIN), field(tls::KEY)).map(Arc::new)),
            _ if let Some(index) = shared_lists::index_of_secret(name) => {
                Self::List(index, Arc::new(Shown::of(secret)))
            }
            // The type cannot be changed, a label can: a stripped one must not shut anyone out.
            _ if secret.type_.as_deref() == Some(LEDGER_SECRET_TYPE) => {
                match Entry::parse(name, field(ledger::FIELD)) {
                    Ok(entry) => Self::Client(Arc::new(Client::of(entry, texts))),
                    Err(problem) => Self::UnreadableEntry(Box::new(problem)),
                }
            }
            _ => Self::Other,
        }
    }

    fn unreadable(&self) -> Option<Unreadable> {
        match self {
            Self::UnreadableEntry(_) => Some(Unreadable::LedgerEntry),
            Self::SigningKeys(Err(_)) | Self::Server(Err(_)) => Some(Unreadable::SigningKeys),
            Self::Certificate(Err(_)) => Some(Unreadable::ServingCertificate),
            Self::List(_, shown) => shown.damage.map(|_| Unreadable::SharedList),
            Self::Client(_)
            | Self::SigningKeys(Ok(_))
            | Self::Server(Ok(_))
            | Self::Certificate(Ok(_))
            | Self::Other => None,
        }
    }
}

impl Follower {
    /// A follower that has seen nothing. Its gauge of unreadable objects is shown by `registry`.
    #[must_use]
    pub fn new(served: Served, clock: Arc<dyn Clock>, registry: &mut Registry) -> Self {
        let unreadable = Family::<UnreadableLabels, Gauge>::default();
        for object in Unreadable::ALL {
            unreadable.get_or_create(&UnreadableLabels { object }).set(0);
        }
        registry.sub_registry_with_prefix("token_service").register(
            "unreadable",
            "Objects in the ledger namespace that cannot be read, so that what was understood before is served",
            unreadable.clone(),
        );
        Self { served, clock, seen: Mutex::default(), texts: Texts::default(), unreadable }
    }

    /// What is filled.
    #[must_use]
    pub fn served(&self) -> &Served {
        &self.served
    }

    /// Reads a Secret, to what is kept of it.
    #[must_use]
    pub fn at_the_door(&self, secret: &Secret) -> Seen {
        Seen::of(secret, &self.texts)
    }

    /// Takes what the watch says.
    pub fn apply(&self, change: Change<Seen, Place>) {
        let is_list = matches!(change, Change::Listed { .. });
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.apply_each(change, |seen, changed| self.take(seen, &changed));
        drop(seen);
        if is_list {
            self.served.directory.set_complete();
        }
    }

    /// Takes a Secret that was just read live.
    pub fn found(&self, secret: &Secret) -> Found {
        let value = self.at_the_door(secret);
        let place = Place::of(secret);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(changed) = seen.found(&place, Some((version_of(secret), value))) else { return Found::Same };
        self.take(&seen, &changed);
        Found::Newer
    }

    /// Takes a list that was just written.
    pub(super) fn wrote_list(&self, shown: Shown) {
        let name = shown.secret().metadata.name.as_deref().unwrap_or_default();
        let Some(index) = shared_lists::index_of_secret(name) else { return };
        let (object, version) = (Place::named(name), version_of(shown.secret()));
        let item = Item { object, version, value: Seen::List(index, Arc::new(shown)) };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(changed) = seen.wrote(item) {
            self.take(&seen, &changed);
        }
    }

    /// Takes a genuine 404 of a live read. It ends what only a live read has shown; all else waits for the watch.
    pub fn absent(&self, name: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(changed) = seen.found(&Place::named(name), None) {
            self.take(&seen, &changed);
        }
    }

    fn take(&self, seen: &Store<Seen, Place>, changed: &Changed<Seen, Place>) {
        let now = seen.value(&changed.object);
        if let Some(object) = changed.before.as_ref().and_then(Seen::unreadable) {
            self.unreadable.get_or_create(&UnreadableLabels { object }).dec();
        }
        if let Some(object) = now.and_then(Seen::unreadable) {
            self.unreadable.get_or_create(&UnreadableLabels { object }).inc();
        }
        let place = &changed.object;
        match now {
            Some(Seen::Client(client)) => {
                // The name of an entry that could be read is the key.
                if let Place::Client(key) = place {
                    self.served.directory.put(*key, client.clone());
                }
            }
            Some(Seen::Server(Ok(published))) => self.served.others.put(published, self.clock.now()),
            Some(Seen::SigningKeys(Ok(loaded))) => self.served.keys.replace(loaded.clone(), self.clock.now()),
            Some(Seen::Certificate(Ok(serving))) => self.served.certificate.replace(serving.clone()),
            Some(Seen::List(index, shown)) => {
                if let Some(damage) = &shown.damage {
                    keep(place, damage);
                }
                self.served.lists.shown(*index, shown.clone(), self.clock.now());
            }
            Some(Seen::UnreadableEntry(problem)) => keep(place, problem),
            Some(Seen::SigningKeys(Err(problem)) | Seen::Server(Err(problem))) => keep(place, problem),
            Some(Seen::Certificate(Err(problem))) => keep(place, problem),
            Some(Seen::Other) => {}
            None => self.gone(place),
        }
    }

    fn gone(&self, place: &Place) {
        match place {
            Place::Client(key) => self.served.directory.remove(*key),
            Place::Other(name)
                if matches!(&**name, keys::SECRET | tls::SECRET) || name.starts_with(published::SECRET_PREFIX) =>
            {
                keep(place, &"the Secret was deleted");
            }
            Place::Other(name) => {
                if let Some(index) = shared_lists::index_of_secret(name) {
                    self.served.lists.gone(index, self.clock.now());
                }
            }
        }
    }
}

impl Place {
    /// This Secret.
    #[must_use]
    pub fn of(secret: &Secret) -> Self {
        Self::named(secret.metadata.name.as_deref().unwrap_or_default())
    }

    /// The Secret of this name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Key::of_secret(name).map_or_else(|| Self::Other(name.into()), Self::Client)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(key) => f.write_str(&key.secret_name()),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// Tells that something is kept as it was. Once per version of the object: nothing comes here twice.
fn keep(secret: &Place, problem: &dyn std::fmt::Display) {
    tracing::error!(%secret, %problem, "cannot be read; what was understood before is served on");
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").field("served", &self.served).finish_non_exhaustive()
    }
}

impl Unreadable {
    const ALL: [Self; 4] = [Self::LedgerEntry, Self::SigningKeys, Self::ServingCertificate, Self::SharedList];
}

impl EncodeLabelValue for Unreadable {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self {
            Self::LedgerEntry => "ledger_entry",
            Self::SigningKeys => "signing_keys",
            Self::ServingCertificate => "serving_certificate",
            Self::SharedList => "shared_list",
        }
        .encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use k8s_openapi::ByteString;

    const NAMESPACE: &str = "appreg-ledger";

    struct Fixture {
        follower: Follower,
        registry: Registry,
    }

    impl Fixture {
        fn new() -> Self {
            let mut registry = crate::metrics::registry();
            let clock = Arc::new(ManualClock::at("2026-01-01T00:00:00Z".parse().unwrap()));
            let follower = Follower::new(Served::nothing("default"), clock, &mut registry);
            Self { follower, registry }
        }

        fn applied(&self, secret: &Secret) {
            let value = self.follower.at_the_door(secret);
            self.follower.apply(Change::Applied(Item {
                object: Place::of(secret),
                version: version_of(secret),
                value,
            }));
        }

        fn listed(&self, secrets: &[Secret], version: u64) {
            let item = |secret: &Secret| Item {
                object: Place::of(secret),
                version: version_of(secret),
                value: self.follower.at_the_door(secret),
            };
            self.follower.apply(Change::Listed { items: secrets.iter().map(item).collect(), version });
        }

        fn scope(&self) -> Option<String> {
            self.follower.served.directory.client("default", "shop.a").map(|client| client.scope.to_string())
        }

        fn unreadable(&self) -> String {
            let text = crate::metrics::text(&self.registry);
            let lines = text.lines().filter(|line| line.contains("unreadable{") && !line.ends_with(" 0"));
            // The lines of a family come in no order.
            let lines: std::collections::BTreeSet<_> =
                lines.map(|line| line.trim_start_matches("appreg_token_service_unreadable")).collect();
            lines.into_iter().collect()
        }
    }

    fn secret(name: &str, version: u64, json: &str) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.namespace = Some(NAMESPACE.into());
        secret.metadata.name = Some(name.into());
        secret.metadata.resource_version = Some(version.to_string());
        secret.type_ = Some(LEDGER_SECRET_TYPE.into());
        secret.data = Some([(ledger::FIELD.to_owned(), ByteString(json.as_bytes().to_vec()))].into());
        secret
    }

    fn entry(version: u64, server: &str, scope: &str) -> Secret {
        let json = format!(
            r#"{{"version":1,"server":"{server}","clientID":"shop.a","owner":{{"namespace":"shop","name":"a","uid":"u"}},
               "createdAt":"2026-01-01T00:00:00Z","grant":{{"scopes":{{"{scope}":"policy/default"}}}}}}"#
        );
        secret(&ledger::name(server, "shop.a"), version, &json)
    }

    #[test]
    fn an_entry_that_turns_unreadable_is_counted_and_the_last_good_one_is_served() {
        let fixture = Fixture::new();
        let name = ledger::name("default", "shop.a");
        fixture.applied(&entry(1, "default", "one"));
        for (version, json) in [(2, "{"), (3, r#"{"version":2}"#), (4, r#"{"version":1}"#)] {
            fixture.applied(&secret(&name, version, json));
            assert_eq!(fixture.scope().as_deref(), Some("one"));
            assert_eq!(fixture.unreadable(), r#"{object="ledger_entry"} 1"#);
        }
        fixture.applied(&entry(5, "default", "two"));
        assert_eq!(fixture.scope().as_deref(), Some("two"));
        assert_eq!(fixture.unreadable(), "");
    }

    #[test]
    fn a_deletion_removes_even_what_had_turned_unreadable() {
        let fixture = Fixture::new();
        let name = ledger::name("default", "shop.a");
        fixture.applied(&entry(1, "default", "one"));
        fixture.applied(&secret(&name, 2, "{"));
        let object = Place::named(&name);
        fixture.follower.apply(Change::Deleted { object, version: 3 });
        assert_eq!((fixture.scope(), fixture.unreadable().as_str()), (None, ""));
        fixture.applied(&entry(4, "default", "one"));
        fixture.listed(&[], 5);
        assert_eq!(fixture.scope(), None, "what a list does not have is gone");
    }

    #[test]
    fn one_bad_entry_of_a_list_does_not_stop_the_others() {
        let fixture = Fixture::new();
        assert!(!fixture.follower.served.directory.is_complete());
        let bad = secret(&ledger::name("default", "shop.b"), 1, "{");
        fixture.listed(&[bad, entry(1, "default", "one")], 2);
        assert!(fixture.follower.served.directory.is_complete());
        assert_eq!(fixture.scope().as_deref(), Some("one"));
    }

    #[test]
    fn entries_of_other_servers_are_theirs_and_secrets_of_others_are_none_of_ours() {
        let fixture = Fixture::new();
        let mut opaque = entry(2, "default", "one");
        opaque.type_ = Some("Opaque".into());
        fixture.listed(&[entry(1, "keycloak", "one"), opaque], 3);
        assert_eq!((fixture.scope(), fixture.unreadable().as_str()), (None, ""));
        assert!(fixture.follower.served.directory.client("keycloak", "shop.a").is_some());
    }

    #[test]
    fn a_live_read_is_taken_at_once_and_an_older_event_that_comes_later_is_not() {
        let fixture = Fixture::new();
        fixture.listed(&[entry(1, "default", "one")], 1);
        assert_eq!(fixture.follower.found(&entry(3, "default", "three")), Found::Newer);
        fixture.applied(&entry(2, "default", "two"));
        assert_eq!(fixture.scope().as_deref(), Some("three"));
        fixture.listed(&[entry(2, "default", "two")], 2);
        assert_eq!(fixture.scope().as_deref(), Some("three"), "a list that was asked for before");
        fixture.applied(&entry(3, "default", "three"));
        assert_eq!(fixture.follower.found(&entry(3, "default", "three")), Found::Same);
    }

    #[test]
    fn what_serves_is_kept_when_its_secret_breaks_or_goes() {
        let fixture = Fixture::new();
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
        let certificate = |version: u64, key: String| {
            let mut secret = secret(tls::SECRET, version, "");
            let field = |name: &str, text: String| (name.to_owned(), ByteString(text.into_bytes()));
            secret.data = Some([field(tls::CHAIN, cert.pem()), field(tls::KEY, key)].into());
            secret
        };
        fixture.applied(&certificate(1, signing_key.serialize_pem()));
        assert!(fixture.follower.served.certificate.is_present());
        fixture.applied(&certificate(2, "canary".into()));
        assert_eq!(fixture.unreadable(), r#"{object="serving_certificate"} 1"#);
        fixture.applied(&secret(keys::SECRET, 3, "{}"));
        assert_eq!(fixture.unreadable(), r#"{object="serving_certificate"} 1{object="signing_keys"} 1"#);
        fixture.listed(&[], 4);
        assert!(fixture.follower.served.certificate.is_present());
        assert_eq!(fixture.unreadable(), "");
    }
}
