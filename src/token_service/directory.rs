//! What is accepted, ready for the token endpoint: client IDs to clients.
//!
//! Plain lookups; how it is filled stands in [`super::follow`]. It is sharded, because one map that is copied per change
//! costs more than the signature, and one lock is waited for by everybody.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use aws_lc_rs::digest;
use jiff::Timestamp;
use subtle::{Choice, ConstantTimeEq as _};

use super::accepted::Proofs;
use super::texts::Texts;
use crate::api::{GrantType, TokenEndpointAuthMethod};
use crate::ledger::{ApiGrant, Digest, Entry, Verifier};
use crate::rotation;

/// How many shards: the first byte of a key chooses.
const SHARDS: usize = 256;

/// All clients of all authorization servers: a key is of one server's client.
#[derive(Debug)]
pub struct Directory {
    shards: Box<[Shard]>,
    complete: AtomicBool,
}

type Shard = RwLock<HashMap<Key, Arc<Client>>>;

/// The first 20 bytes of SHA-256 over server and client ID: what names the ledger entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 20]);

/// One client, as its ledger entry has it. There may be a hundred thousand: what most do not have costs a pointer.
#[derive(Debug)]
pub struct Client {
    /// The client identifier.
    pub id: Box<str>,
    /// The scopes at the server's default audience, in the order of their names, separated by spaces.
    pub scope: Arc<str>,
    /// The ways in which it may authenticate.
    pub methods: Methods,
    /// Whether it may use the client credentials grant (RFC 6749 §4.4).
    pub has_client_credentials: bool,
    /// What it may prove itself with besides client secrets.
    pub proofs: Option<Box<Proofs>>,
    granted: Option<Box<Granted>>,
    /// Its credential entries, in the order of their names.
    entries: Box<[TokensOf]>,
    accepted: Box<[AcceptedClientSecret]>,
}

/// What is granted besides scopes at the server's default audience.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// The APIs, in the order of their audiences.
    pub apis: Box<[GrantedApi]>,
    /// The API that is meant where a request names none, granted or not; the server's default audience if `None`.
    pub default_audience: Option<Arc<str>>,
    /// The claim `customers`, `*` for all; `None` where tokens have no such claim.
    pub customers: Option<Vec<String>>,
    /// The claim `customer_groups`; `None` where tokens have no such claim.
    pub customer_groups: Option<Vec<String>>,
    /// The audiences that it serves: tokens for them it may introspect.
    pub served_audiences: Vec<String>,
}

/// An API that a client may call.
#[derive(Debug, PartialEq, Eq)]
pub struct GrantedApi {
    /// Its audience.
    pub audience: Arc<str>,
    /// The scopes that are granted at it, in the order of their names, separated by spaces.
    pub scope: Arc<str>,
}

/// Which tokens of a credential entry are good.
#[derive(Debug)]
struct TokensOf {
    entry: Arc<str>,
    /// The first `iat` that they may have.
    from: i64,
    /// Those had with this revision or an earlier one are not.
    revoked_through: u64,
}

/// A set of ways to authenticate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Methods(u8);

/// One revision of a client secret.
#[derive(Debug)]
pub struct AcceptedClientSecret {
    /// The credential entry that it belongs to: [`Client::entry`] has its name.
    entry: usize,
    /// Its number.
    pub revision: u64,
    /// From when on it is not accepted.
    pub not_after: Timestamp,
    minted_at: Timestamp,
    sha256: Digest,
}

/// What a client secret is worth.
#[derive(Clone, Copy, Debug)]
pub enum Match<'a> {
    /// It is accepted now.
    Accepted(&'a AcceptedClientSecret),
    /// It is in the ledger, and not valid now.
    NotValidNow,
    /// It is not in the ledger.
    Unknown,
}

impl Default for Directory {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), complete: AtomicBool::new(false) }
    }
}

impl Directory {
    /// The client of this server with this identifier.
    #[must_use]
    pub fn client(&self, server: &str, client_id: &str) -> Option<Arc<Client>> {
        let key = Key::of(server, client_id);
        let shard = self.shard(key).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&key).filter(|client| &*client.id == client_id).cloned()
    }

    /// Accepts the client of this key as it is.
    pub fn put(&self, key: Key, client: Arc<Client>) {
        self.shard(key).write().unwrap_or_else(PoisonError::into_inner).insert(key, client);
    }

    /// Accepts the client of this key no longer.
    pub fn remove(&self, key: Key) {
        self.shard(key).write().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Whether everything that the ledger holds has been taken in once: before, nobody can be said to be unknown.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Everything that the ledger holds has been taken in.
    pub fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// How many clients there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, key: Key) -> &Shard {
        &self.shards[usize::from(key.0[0])]
    }
}

impl Key {
    /// The key of a client.
    #[must_use]
    pub fn of(server: &str, client_id: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(server.as_bytes());
        context.update(&[0]);
        context.update(client_id.as_bytes());
        let mut key = [0; 20];
        key.copy_from_slice(&context.finish().as_ref()[..20]);
        Self(key)
    }

    /// The key in the name of a ledger entry's Secret (see [`crate::ledger::name`]); `None` for other names.
    #[must_use]
    pub fn of_secret(name: &str) -> Option<Self> {
        let hex =
            name.strip_prefix("client-").filter(|hex| hex.len() == 40 && hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let mut key = [0; 20];
        for (byte, digits) in key.iter_mut().zip(hex.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        }
        Some(Self(key))
    }

    /// The name that [`of_secret`](Self::of_secret) reads.
    #[must_use]
    pub fn secret_name(self) -> String {
        self.0.iter().fold("client-".to_owned(), |mut name, byte| {
            name.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')));
            name
        })
    }
}

impl Methods {
    /// Whether this is one of them.
    #[must_use]
    pub fn contains(self, method: TokenEndpointAuthMethod) -> bool {
        self.0 & Self::bit(method) != 0
    }

    const fn bit(method: TokenEndpointAuthMethod) -> u8 {
        1 << method as u8
    }
}

impl FromIterator<TokenEndpointAuthMethod> for Methods {
    fn from_iter<I: IntoIterator<Item = TokenEndpointAuthMethod>>(methods: I) -> Self {
        Self(methods.into_iter().fold(0, |set, method| set | Self::bit(method)))
    }
}

impl Client {
    /// What an entry means to the token endpoint. Its texts are those of other clients where they are the same.
    #[must_use]
    pub fn of(entry: Entry, texts: &Texts) -> Self {
        // A scope that RFC 6749 §3.3 does not allow could not be asked for, nor stand in a list.
        let scope = |granted: &BTreeMap<String, String>| {
            let scopes: Vec<&str> = granted.keys().map(String::as_str).filter(|scope| is_scope_token(scope)).collect();
            texts.shared(&scopes.join(" "))
        };
        let proofs = Proofs::of(&entry, texts);
        let grant = entry.grant;
        let mut accepted = Vec::new();
        let mut entries = Vec::with_capacity(entry.credentials.len());
        let of_client = Some(entry.created_at).max(entry.revoked_before);
        for (name, credential) in &entry.credentials {
            let from = of_client.max(credential.revoked_before).max(credential.tokens_revoked_before);
            entries.push(TokensOf {
                entry: texts.shared(name),
                from: from.map(rotation::whole_seconds_up).map_or(i64::MIN, Timestamp::as_second),
                revoked_through: credential.revoked_through,
            });
            for revision in &credential.revisions {
                let Verifier::ClientSecret(verifier) = &revision.verifier else { continue };
                accepted.push(AcceptedClientSecret {
                    entry: entries.len() - 1,
                    revision: revision.revision,
                    not_after: credential.end_of(revision, entry.revoked_before),
                    minted_at: revision.minted_at,
                    sha256: verifier.sha256,
                });
            }
        }
        let api = |(audience, api): (&String, &ApiGrant)| GrantedApi {
            audience: texts.shared(audience),
            scope: scope(&api.scopes),
        };
        let granted = Granted {
            apis: grant.apis.iter().map(api).collect(),
            default_audience: grant.default_audience.as_deref().map(|audience| texts.shared(audience)),
            customers: grant.customers_claim(),
            customer_groups: grant.customer_groups_claim(),
            served_audiences: grant.served_audiences.keys().cloned().collect(),
        };
        Self {
            id: entry.client_id.into(),
            scope: scope(&grant.scopes),
            granted: (granted != Granted::default()).then(|| Box::new(granted)),
            methods: grant.auth_methods.into_iter().collect(),
            has_client_credentials: grant.grant_types.is_none_or(|types| types.contains(&GrantType::ClientCredentials)),
            proofs,
            entries: entries.into(),
            accepted: accepted.into(),
        }
    }

    /// What it is granted besides scopes at the server's default audience.
    #[must_use]
    pub fn granted(&self) -> &Granted {
        static NOTHING: LazyLock<Granted> = LazyLock::new(Granted::default);
        self.granted.as_deref().unwrap_or(&NOTHING)
    }

    /// The scopes that it has at an API, separated by spaces; `None` where it may not call it. The same as
    /// [`crate::ledger::Grant::scopes_at`].
    #[must_use]
    pub fn scope_at(&self, audience: &str, server_audience: &str) -> Option<Cow<'_, str>> {
        let Granted { apis, default_audience, .. } = self.granted();
        let of_api = apis.binary_search_by(|api| (*api.audience).cmp(audience)).ok().map(|found| &*apis[found].scope);
        let is_default = audience == server_audience && (!self.scope.is_empty() || default_audience.is_none());
        match (of_api, is_default) {
            (Some(of_api), true) => {
                let both: BTreeSet<&str> = scopes_of(of_api).chain(scopes_of(&self.scope)).collect();
                Some(Cow::Owned(both.into_iter().collect::<Vec<_>>().join(" ")))
            }
            (Some(of_api), false) => Some(Cow::Borrowed(of_api)),
            (None, true) => Some(Cow::Borrowed(&self.scope)),
            (None, false) => None,
        }
    }

    /// The name of the credential entry that a client secret of this client belongs to.
    #[must_use]
    pub fn entry(&self, client_secret: &AcceptedClientSecret) -> Arc<str> {
        self.entries[client_secret.entry].entry.clone()
    }

    /// Whether a token is still good that was issued at this time and had with this revision of a credential entry: the
    /// entry is in the ledger, neither it nor the client was made or revoked later, and the revision was not revoked.
    #[must_use]
    pub fn is_good(&self, entry: &str, revision: Option<u64>, issued_at: Timestamp) -> bool {
        let Ok(found) = self.entries.binary_search_by(|of| (*of.entry).cmp(entry)) else { return false };
        let of = &self.entries[found];
        issued_at.as_second() >= of.from && revision.is_none_or(|revision| revision > of.revoked_through)
    }

    /// What this SHA-256 of a client secret is worth now (rule R1). All revisions are compared, each in constant time;
    /// of several that match, the one that lives longest counts.
    #[must_use]
    pub fn match_client_secret(&self, sha256: Digest, now: Timestamp) -> Match<'_> {
        let mut found = Match::Unknown;
        for candidate in &*self.accepted {
            if !bool::from(equal(candidate.sha256, sha256)) {
                continue;
            }
            let is_valid = rotation::is_valid(candidate.minted_at, candidate.not_after, now);
            found = match found {
                Match::Accepted(best) if !is_valid || best.not_after >= candidate.not_after => found,
                Match::Accepted(_) | Match::NotValidNow | Match::Unknown if is_valid => Match::Accepted(candidate),
                Match::Accepted(_) | Match::NotValidNow | Match::Unknown => Match::NotValidNow,
            };
        }
        found
    }
}

#[cfg(test)]
thread_local! {
    /// How often this thread has compared digests: that an unknown client costs the work of a known one is counted, not
    /// timed.
    pub(super) static COMPARISONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Compares with what nobody's client secret hashes to: an unknown client costs the work of a known one.
pub(super) fn compare_in_vain(sha256: Digest) {
    std::hint::black_box(equal(Digest([0; 32]), sha256));
}

/// The scopes of a list, one by one.
pub(super) fn scopes_of(list: &str) -> impl Iterator<Item = &str> {
    list.split(' ').filter(|scope| !scope.is_empty())
}

/// `scope-token` of RFC 6749 §3.3: printable ASCII without space, quote and backslash.
fn is_scope_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

fn equal(a: Digest, b: Digest) -> Choice {
    #[cfg(test)]
    COMPARISONS.set(COMPARISONS.get() + 1);
    a.0.ct_eq(&b.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger;

    fn entry(revisions: &[(&str, &str, &str, &str)]) -> Entry {
        let mut credentials = serde_json::Map::new();
        for (name, client_secret, minted_at, not_after) in revisions {
            let credential = credentials
                .entry(*name)
                .or_insert_with(|| serde_json::json!({"kind": "clientSecret", "revisions": []}));
            credential["revisions"].as_array_mut().unwrap().push(serde_json::json!({
                "revision": 1, "mintedAt": minted_at, "notAfter": not_after,
                "verifier": {"sha256": Digest::of(client_secret.as_bytes()).to_base64url()},
            }));
        }
        serde_json::from_value(serde_json::json!({
            "version": 1, "server": "default", "clientID": "shop.storefront",
            "owner": {"namespace": "shop", "name": "storefront", "uid": "u"}, "createdAt": "2026-01-01T00:00:00Z",
            "grant": {"scopes": {"b": "policy/default", "a": "policy/default"},
                      "authMethods": ["client_secret_basic"]},
            "credentials": credentials,
        }))
        .unwrap()
    }

    fn worth<'a>(client: &'a Client, client_secret: &str, now: &str) -> Match<'a> {
        client.match_client_secret(Digest::of(client_secret.as_bytes()), now.parse().unwrap())
    }

    #[test]
    fn every_live_revision_is_accepted_and_only_while_it_is_valid() {
        let revisions = [
            ("web", "old", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("web", "new", "2026-01-20T00:00:00Z", "2026-03-01T00:00:00Z"),
        ];
        let client = Client::of(entry(&revisions), &Texts::default());
        let during = "2026-01-25T00:00:00Z";
        assert!(matches!(worth(&client, "old", during), Match::Accepted(_)));
        assert!(matches!(worth(&client, "new", during), Match::Accepted(_)));
        assert!(matches!(worth(&client, "other", during), Match::Unknown));
        assert!(matches!(worth(&client, "old", "2026-02-01T00:00:00Z"), Match::NotValidNow));
        assert!(matches!(worth(&client, "new", "2026-01-19T23:58:59Z"), Match::NotValidNow));
        assert!(matches!(worth(&client, "new", "2026-01-19T23:59:00Z"), Match::Accepted(_)));
        assert_eq!(&*client.scope, "a b");
    }

    proptest::proptest! {
        #[test]
        fn the_scopes_at_an_api_are_those_of_the_ledger(
            scopes in proptest::collection::btree_set("[a-d]", 0..3),
            apis in proptest::collection::btree_map("[ps]", proptest::collection::btree_set("[a-d]", 0..3), 0..3),
            first in proptest::option::of("[ps]"),
        ) {
            let by = |names: &BTreeSet<String>| {
                names.iter().map(|name| (name.clone(), "policy/p".to_owned())).collect::<BTreeMap<_, _>>()
            };
            let mut entry = entry(&[]);
            entry.grant.scopes = by(&scopes);
            entry.grant.apis =
                apis.iter().map(|(name, scopes)| (name.clone(), ApiGrant { by: "policy/p".into(), scopes: by(scopes) })).collect();
            entry.grant.default_audience = first;
            let grant = entry.grant.clone();
            let client = Client::of(entry, &Texts::default());
            for audience in ["p", "s", "other"] {
                let ledger = grant.scopes_at(audience, "s").map(|scopes| scopes.into_iter().collect::<Vec<_>>().join(" "));
                proptest::prop_assert_eq!(client.scope_at(audience, "s").map(Cow::into_owned), ledger, "{}", audience);
            }
        }
    }

    #[test]
    fn of_equal_client_secrets_the_one_that_lives_longest_counts() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let revisions = [
                ("a", "same", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"),
                ("b", "same", "2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z"),
                ("c", "same", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ];
            let client = Client::of(entry(&order.map(|index: usize| revisions[index])), &Texts::default());
            let Match::Accepted(found) = worth(&client, "same", "2026-01-25T00:00:00Z") else { panic!() };
            assert_eq!(&*client.entry(found), "b");
        }
    }

    #[test]
    fn a_token_is_good_from_the_latest_of_its_clients_and_its_entrys_times_on() {
        let mut entry = entry(&[
            ("api", "x", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("web", "y", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
        ]);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        entry.credentials.get_mut("web").unwrap().revoked_before = Some(at("2026-01-03T00:00:00.5Z"));
        let client = Client::of(entry.clone(), &Texts::default());
        assert!(client.is_good("api", None, at("2026-01-01T00:00:00Z")), "createdAt");
        assert!(!client.is_good("api", None, at("2025-12-31T23:59:59Z")));
        assert!(client.is_good("web", None, at("2026-01-03T00:00:01Z")), "revokedBefore of the entry");
        assert!(!client.is_good("web", None, at("2026-01-03T00:00:00Z")), "tokens have whole seconds");
        entry.revoked_before = Some(at("2026-01-04T00:00:00Z"));
        let client = Client::of(entry, &Texts::default());
        for name in ["api", "web"] {
            assert!(client.is_good(name, None, at("2026-01-04T00:00:00Z")), "revokedBefore of the client");
            assert!(!client.is_good(name, None, at("2026-01-03T23:59:59Z")));
        }
        assert!(!client.is_good("removed", None, at("2026-01-04T00:00:00Z")));
    }

    #[test]
    fn a_revocation_counts_from_the_write_that_carries_it_for_client_secrets_and_for_tokens_that_were_had_with_them() {
        let mut entry = entry(&[
            ("web", "old", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("web", "new", "2026-01-20T00:00:00Z", "2026-03-01T00:00:00Z"),
        ]);
        let now = "2026-01-25T00:00:05Z";
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let web = entry.credentials.get_mut("web").unwrap();
        web.revisions[1].revision = 2;
        // The leaked client secret asks for tokens until the very last moment: after the watermark, before the write.
        web.revoke(at("2026-01-25T00:00:00Z"), at(now));
        web.revisions.push(ledger::Revision {
            revision: 3,
            minted_at: at(now),
            verifier: Verifier::ClientSecret(ledger::ClientSecretVerifier { sha256: Digest::of(b"newest") }),
            ..web.revisions[1].clone()
        });
        let client = Client::of(entry, &Texts::default());
        assert!(matches!(worth(&client, "old", now), Match::NotValidNow));
        assert!(matches!(worth(&client, "new", now), Match::NotValidNow));
        assert!(matches!(worth(&client, "newest", now), Match::Accepted(_)));
        for (revision, is_good) in [(Some(1), false), (Some(2), false), (Some(3), true), (None, true)] {
            assert_eq!(client.is_good("web", revision, at("2026-01-25T00:00:04Z")), is_good, "{revision:?}");
        }
        assert!(
            !client.is_good("web", None, at("2026-01-24T23:59:59Z")),
            "one that names no revision has the time alone"
        );
    }

    #[test]
    fn a_client_is_found_by_its_identifier_and_removed_by_its_secrets_name() {
        let directory = Directory::default();
        directory.put(Key::of("default", "shop.storefront"), Arc::new(Client::of(entry(&[]), &Texts::default())));
        assert_eq!(directory.client("default", "shop.storefront").unwrap().id.as_ref(), "shop.storefront");
        assert!(directory.client("default", "shop.other").is_none());
        assert!(directory.client("partners", "shop.storefront").is_none());
        assert_eq!(directory.len(), 1);
        let name = ledger::name("default", "shop.storefront");
        directory.remove(Key::of_secret(&name).unwrap());
        assert!(directory.is_empty());
    }

    #[test]
    fn only_the_names_of_ledger_entries_have_a_key() {
        for name in ["signing-keys", "client-", "client-zz", &format!("client-{}", "g".repeat(40)), "client-ä"] {
            assert_eq!(Key::of_secret(name), None, "{name}");
        }
        // Signs that a number may have and a name may not.
        assert_eq!(Key::of_secret(&format!("client-+f{}", "0".repeat(38))), None);
    }
}
