//! What holds for every decision: it is total, the same for the same facts, leads to rest, may be cut anywhere, and keeps
//! the promises (S1 to S4, S9) through random histories of edits, crashes, stale views and a second controller.
//!
//! The promises are held by the model at every write, see [`super::model`]. A seed that fails becomes a named case below.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::facts::{
    Admission, Contents, Environment, Facts, LedgerFact, OurSecret, Owned, Registration, SecretFact, Source, Standing,
};
use super::model::{Memory, Progress, Run, World, assert_limits, at};
use super::status::{Failure, after_failure};
use super::{Look, Plan, SecretWrite, Step, decide};
use crate::api::{
    AccessToken, ApiAccess, AppRegistrationSpec, Certificate, ClientSecret, ClientType, DeletionPolicy, Entry, KeyType,
    Kind, PublicKey, SecretField, SecretTemplate, ServiceAccount, names,
};
use crate::credential::public_key::tests::{certificate_pem, key_pem};
use crate::credential::{Held, Shown, ShownToken, field};
use crate::ledger::{
    self, ClientSecretVerifier, Credential, Digest, Grant, Owner, PublicKeyVerifier, Revision, Verifier,
};
use crate::rotation;

/// The same cases at every run: a failure is a failure for everybody.
fn for_all<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value)) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4096, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let result = runner.run(strategy, |value| {
        test(value);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes, in seconds.
    Wait(i64),
    /// A controller works until nothing is left to do.
    Work,
    /// A controller makes one pass and crashes after so many writes; after a restart it remembers nothing.
    Crash(usize),
    /// A controller decides on what was there so many events ago, of the ledger and of the Secrets.
    Stale(usize, usize),
    /// One controller makes so many writes, another one a whole pass, then the first goes on.
    Two(usize),
    /// A person edits the registration.
    Edit(Edit),
    /// A person edits a Secret.
    Hand(usize, Hand),
}

#[derive(Clone, Debug)]
enum Edit {
    Add(usize),
    Remove(usize),
    Duration(usize, usize),
    RenewBefore(usize, usize),
    Rotate(i64),
    RotateByAnnotation(usize),
    Revoke(i64),
    RevokeEntry(usize, i64),
    NoWatermarks,
    Scopes(usize),
    Apis(usize),
    PolicyScopes(bool),
    DnsNames(bool),
    Template(bool),
    Orphan(bool),
    Issuer(bool),
    Upload(usize, usize),
}

#[derive(Clone, Debug)]
enum Hand {
    Delete,
    Change,
    RemoveField,
    PutPreviousBack,
    StripMarks,
    StripAnnotations,
    StripOwner,
    Immutable,
    Public,
}

const DURATIONS: [&str; 6] = ["60s", "10m", "1h", "30d", "90d", "365d"];
const RENEW: [Option<&str>; 4] = [None, Some("20s"), Some("8m"), Some("20d")];
const WAITS: [i64; 8] = [1, 30, 61, 700, 3600, 86_400, 20 * 86_400, 100 * 86_400];

/// How many entries there are to choose from.
const PALETTE: usize = 9;

/// The files that people upload: two of one key, one that is not valid yet at first, and some end on the way.
fn file(choice: usize) -> PublicKey {
    let pem = match choice % 4 {
        0 => key_pem(1),
        1 => certificate_pem(1, at("2026-01-01"), at("2026-07-01")),
        2 => certificate_pem(2, at("2026-02-01"), at("2027-02-01")),
        _ => key_pem(3),
    };
    PublicKey { pem: Some(pem), der: None }
}

/// The entries that people choose from: two that share a Secret, one whose name two kinds have, three that are given.
fn palette(choice: usize) -> Entry {
    let named = |name: &str, secret: Option<&str>| Entry {
        name: name.into(),
        secret_name: secret.map(str::to_owned),
        ..Entry::default()
    };
    let client_secret = Some(ClientSecret {});
    let certificate = Some(Certificate::default());
    match choice % PALETTE {
        0 => Entry { client_secret, ..named("web", None) },
        1 => Entry { client_secret, ..named("batch", Some("app-batch")) },
        2 => Entry { certificate, ..named("mtls", None) },
        3 => Entry { certificate, ..named("own", Some("app-tls")) },
        4 => Entry { access_token: Some(AccessToken::default()), ..named("api", None) },
        6 => Entry { public_key: Some(file(0)), ..named("key", None) },
        7 => Entry { public_key: Some(file(1)), ..named("partner", None) },
        8 => Entry { service_account: Some(ServiceAccount { name: "app".into() }), ..named("workload", None) },
        _ => Entry { certificate, ..named("batch", Some("app-batch-tls")) },
    }
}

fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let edit = prop_oneof![
        4 => (0_usize..PALETTE).prop_map(Edit::Add),
        1 => (0_usize..4).prop_map(Edit::Remove),
        1 => (0_usize..4, 0_usize..6).prop_map(|(e, d)| Edit::Duration(e, d)),
        1 => (0_usize..4, 0_usize..4).prop_map(|(e, d)| Edit::RenewBefore(e, d)),
        2 => prop_oneof![Just(0_i64), Just(30), Just(-5)].prop_map(Edit::Rotate),
        1 => (0_usize..4).prop_map(Edit::RotateByAnnotation),
        1 => prop_oneof![Just(0_i64), Just(3600), Just(-5)].prop_map(Edit::Revoke),
        1 => (0_usize..4, prop_oneof![Just(0_i64), Just(3600)]).prop_map(|(e, t)| Edit::RevokeEntry(e, t)),
        1 => Just(Edit::NoWatermarks),
        1 => (0_usize..4).prop_map(Edit::Scopes),
        1 => (0_usize..3).prop_map(Edit::Apis),
        1 => any::<bool>().prop_map(Edit::PolicyScopes),
        1 => any::<bool>().prop_map(Edit::DnsNames),
        1 => any::<bool>().prop_map(Edit::Template),
        1 => any::<bool>().prop_map(Edit::Orphan),
        1 => any::<bool>().prop_map(Edit::Issuer),
        3 => (0_usize..4, 0_usize..4).prop_map(|(e, f)| Edit::Upload(e, f)),
    ];
    let hand = prop_oneof![
        3 => Just(Hand::Delete),
        2 => Just(Hand::Change),
        1 => Just(Hand::RemoveField),
        2 => Just(Hand::PutPreviousBack),
        1 => Just(Hand::StripMarks),
        1 => Just(Hand::StripAnnotations),
        1 => Just(Hand::StripOwner),
        1 => Just(Hand::Immutable),
        1 => Just(Hand::Public),
    ];
    let event = prop_oneof![
        4 => (0_usize..WAITS.len()).prop_map(|n| Event::Wait(WAITS[n])),
        4 => Just(Event::Work),
        3 => (0_usize..5).prop_map(Event::Crash),
        2 => (0_usize..4, 0_usize..4).prop_map(|(l, s)| Event::Stale(l, s)),
        2 => (0_usize..4).prop_map(Event::Two),
        5 => edit.prop_map(Event::Edit),
        3 => (0_usize..5, hand).prop_map(|(n, hand)| Event::Hand(n, hand)),
    ];
    prop::collection::vec(event, 1..most)
}

/// A history as it is lived.
struct History {
    world: World,
    past: Vec<World>,
    memory: Memory,
    now: Timestamp,
    revoked: Vec<(Option<String>, Timestamp)>,
    /// The number of the last key that a person made anew.
    keys: u8,
}

impl History {
    fn new() -> Self {
        let mut world = World::new("app");
        world.registration.spec.credentials = Some(vec![palette(0), palette(4)]);
        Self {
            world,
            past: Vec::new(),
            memory: Memory::default(),
            now: at("2026-01-01"),
            revoked: Vec::new(),
            keys: 10,
        }
    }

    fn live(&mut self, events: &[Event]) {
        for event in events {
            self.past.push(self.world.clone());
            if self.past.len() > 4 {
                self.past.remove(0);
            }
            self.happen(event);
        }
    }

    fn happen(&mut self, event: &Event) {
        let now = self.now;
        match event {
            Event::Wait(seconds) => {
                self.now = rotation::add(now, SignedDuration::from_secs(*seconds));
                self.world.observe(self.now);
            }
            Event::Work => {
                self.world.converge(&mut self.memory, now);
            }
            Event::Crash(writes) => {
                let view = self.world.clone();
                let mut run = self.begin(&view);
                for _ in 0..*writes {
                    if self.world.step(&mut run, now) != Progress::More {
                        break;
                    }
                }
                self.memory = Memory::default();
            }
            Event::Stale(ledger, secrets) => {
                let back = |n: &usize| self.past[self.past.len().saturating_sub(n + 1)].clone();
                let mut view = self.world.clone();
                (view.ledger, view.secrets) = (back(ledger).ledger, back(secrets).secrets);
                let mut run = self.begin(&view);
                self.finish(&mut run);
            }
            Event::Two(writes) => {
                let view = self.world.clone();
                let mut first = self.begin(&view);
                let mut progress = Progress::More;
                for _ in 0..*writes {
                    progress = self.world.step(&mut first, now);
                    if progress != Progress::More {
                        break;
                    }
                }
                let view = self.world.clone();
                let mut second = self.begin(&view);
                self.finish(&mut second);
                if progress == Progress::More {
                    self.finish(&mut first);
                }
            }
            Event::Edit(edit) => self.edit(edit),
            Event::Hand(secret, hand) => self.hand(*secret, hand),
        }
    }

    fn begin(&mut self, view: &World) -> Run {
        let mut look = Look::default();
        for _ in 0..4 {
            let plan = decide(&self.world.facts(view, &self.memory, &look), self.now);
            if plan.look.is_empty() {
                return self.world.begin(plan, &look, self.now);
            }
            self.world.read(&mut look, &plan.look);
        }
        panic!("looks again and again");
    }

    fn finish(&mut self, run: &mut Run) {
        loop {
            match self.world.step(run, self.now) {
                Progress::More => {}
                Progress::Refused => return,
                Progress::Done => {
                    self.world.report(run, &mut self.memory);
                    return;
                }
            }
        }
    }

    fn edit(&mut self, edit: &Edit) {
        let now = self.now;
        let world = &mut self.world;
        match edit {
            Edit::PolicyScopes(all) => {
                world.environment.policy.scopes = vec![if *all { "*" } else { "a*" }.to_owned()];
            }
            Edit::Issuer(other) => {
                let issuer = if *other { "https://other.example" } else { "https://auth.example" };
                world.environment.server.issuer = issuer.to_owned();
            }
            Edit::RotateByAnnotation(n) => {
                let entry = palette(*n).name;
                let text = format!("{entry}={now}");
                world.registration.annotations.insert(names::ROTATE_MINTED_BEFORE_ANNOTATION.to_owned(), text);
            }
            edit => world.edit_spec(|spec| edit_spec(edit, spec, now)),
        }
        self.revoked = self.standing_revocations();
    }

    /// The watermarks that stand in the spec.
    fn standing_revocations(&self) -> Vec<(Option<String>, Timestamp)> {
        let spec = &self.world.registration.spec;
        let of_entries = spec.credentials.iter().flatten();
        spec.revoke_minted_before
            .iter()
            .map(|text| (None, at(text)))
            .chain(of_entries.filter_map(|e| Some((Some(e.name.clone()), at(e.revoke_minted_before.as_ref()?)))))
            .collect()
    }

    fn hand(&mut self, secret: usize, hand: &Hand) {
        let now = self.now;
        let Some(name) = self.world.secrets.keys().nth(secret % self.world.secrets.len().max(1)).cloned() else {
            return;
        };
        if self.world.secrets[&name].immutable && !matches!(hand, Hand::Delete | Hand::StripMarks | Hand::StripOwner) {
            return;
        }
        if matches!(hand, Hand::Delete) {
            self.world.delete_secret(&name, now);
            return;
        }
        self.world.by_hand(&name, now, |stored| {
            let values = [field::CLIENT_SECRET, field::CERTIFICATE, field::ACCESS_TOKEN];
            match hand {
                Hand::Delete => {}
                Hand::Change => {
                    for (_, value) in stored.data.iter_mut().filter(|(name, _)| values.contains(&name.as_str())) {
                        "by hand".clone_into(value);
                    }
                }
                Hand::RemoveField => {
                    stored.data.remove(field::CLIENT_SECRET);
                }
                Hand::PutPreviousBack => {
                    if let Some(previous) = stored.data.get(field::PREVIOUS_CLIENT_SECRET).cloned() {
                        stored.data.insert(field::CLIENT_SECRET.to_owned(), previous);
                    }
                }
                Hand::StripMarks => stored.labels.clear(),
                Hand::StripAnnotations => stored.annotations.clear(),
                Hand::StripOwner => stored.controller = None,
                Hand::Immutable => stored.immutable = true,
                Hand::Public => {
                    stored.data.remove(field::ISSUER);
                }
            }
        });
    }

    /// The faults end: what a person must mend is mended, and the controller works until it is at rest.
    fn heal(&mut self) {
        for name in self.world.secrets.keys().cloned().collect::<Vec<_>>() {
            let is_lost = self.world.secrets[&name].controller.is_none();
            if self.world.secrets[&name].immutable || is_lost && !self.world.is_ours(&name) {
                self.world.delete_secret(&name, self.now);
            }
        }
        self.world.converge(&mut self.memory, self.now);
        self.upload_new_keys();
        for _ in 0..10 {
            self.world.converge(&mut self.memory, self.now);
            let status = &self.world.registration.status;
            if !status.conditions.iter().any(|c| c.reason == "MintLimited") {
                return;
            }
            let wake = self.rest().wake.expect("a limit ends");
            assert!(wake > self.now);
            self.now = wake;
            self.world.observe(wake);
        }
        panic!("limited for ever");
    }

    /// A person writes another key where the one given has an end, or is revoked.
    fn upload_new_keys(&mut self) {
        let status = self.world.registration.status.clone();
        let lasts = |entry: &Entry| {
            let credential = status.credentials.iter().find(|c| c.name == entry.name);
            credential.and_then(|c| c.current.as_ref()).is_some_and(|current| current.not_after.is_none())
                && !status.conditions.iter().any(|c| c.reason == "Revoked")
        };
        let mut keys = self.keys;
        self.world.edit_spec(|spec| {
            for entry in spec.credentials.iter_mut().flatten().filter(|e| e.public_key.is_some() && !lasts(e)) {
                keys += 1;
                entry.public_key = Some(PublicKey { pem: Some(key_pem(keys)), der: None });
            }
        });
        self.keys = keys;
    }

    fn rest(&self) -> Plan {
        decide(&self.world.facts(&self.world, &self.memory, &Look::default()), self.now)
    }

    /// Everything is as it shall be.
    fn assert_match(&mut self) {
        let now = self.now;
        let rest = self.rest();
        assert!(rest.is_at_rest(), "{rest}");
        assert_eq!(rest.status, self.world.registration.status, "the status is a fixpoint");
        let status = |type_: &str| rest.status.conditions.iter().find(|c| c.type_ == type_).map(|c| c.status.as_str());
        assert_eq!(status("Ready"), Some("True"), "{rest}");
        for (entry, mark) in &self.revoked {
            self.world.assert_revoked(entry.as_deref(), *mark, now);
        }
        self.world.assert_served(now);
        self.world.requests.clear();
        self.world.converge(&mut Memory::default(), now);
        // Of a token Secret that somebody else wrote as well it is not known by a list what it holds.
        let foreign = |request: &String| {
            self.world.secrets.iter().any(|(name, s)| !s.only_ours && *request == format!("GET Secret {name}"))
        };
        assert!(self.world.requests.iter().all(foreign), "a restart costs {:?}", self.world.requests);
    }

    /// From here on nobody interferes: at every wake the Secrets still hold what is accepted.
    fn follow(&mut self, wakes: usize) {
        for _ in 0..wakes {
            let Some(wake) = self.rest().wake else { return };
            assert!(wake > self.now, "a wake in the past: {wake}");
            self.now = wake;
            self.world.observe(wake);
            if self.revoked.iter().all(|(_, mark)| *mark < wake) {
                self.world.assert_served(wake);
            }
            self.world.requests.clear();
            self.world.converge(&mut self.memory, wake);
            let most = 2 + 3 * self.world.secrets.len();
            assert!(self.world.requests.len() <= most, "{:?}", self.world.requests);
            self.upload_new_keys();
            self.world.converge(&mut self.memory, wake);
        }
    }
}

#[test]
fn every_history_keeps_the_promises_and_ends_at_rest() {
    for_all(200, &events(30), |events| {
        let mut history = History::new();
        history.live(&events);
        history.heal();
        history.assert_match();
        history.follow(6);
        history.assert_match();
    });
}

#[test]
fn a_plan_may_be_cut_after_any_step_and_the_end_is_the_same() {
    for_all(100, &events(12), |events| {
        let mut history = History::new();
        history.live(&events);
        let start = history.world.clone();
        let mut look = Look::default();
        let plan = loop {
            let plan = decide(&start.facts(&start, &history.memory, &look), history.now);
            if plan.look.is_empty() {
                break plan;
            }
            look.secrets.extend(plan.look.secrets);
            look.registration |= plan.look.registration;
        };
        let ends: Vec<_> = (0..=plan.steps.len())
            .map(|cut| {
                let mut world = start.clone();
                let mut run = world.begin(plan.clone(), &look, history.now);
                for _ in 0..cut {
                    world.step(&mut run, history.now);
                }
                let mut memory = Memory::default();
                world.converge(&mut memory, history.now);
                world.end()
            })
            .collect();
        if ends.iter().any(|end| end.contains("MintLimited")) {
            return;
        }
        for (cut, end) in ends.iter().enumerate() {
            assert_eq!(end, &ends[plan.steps.len()], "cut after {cut} of\n{plan}");
        }
    });
}

/// What is changed in the spec alone.
fn edit_spec(edit: &Edit, spec: &mut AppRegistrationSpec, now: Timestamp) {
    let time = |seconds: &i64| rotation::add(now, SignedDuration::from_secs(*seconds));
    let entries = spec.credentials.get_or_insert_default();
    let count = entries.len().max(1);
    match edit {
        Edit::Add(n) => {
            let entry = palette(*n);
            if entries.iter().all(|e| e.name != entry.name) {
                entries.push(entry);
            }
        }
        Edit::Remove(n) if !entries.is_empty() => drop(entries.remove(n % count)),
        Edit::Duration(n, d) => {
            if let Some(entry) = entries.get_mut(n % count).filter(|entry| is_minted(entry)) {
                let is_token = entry.kind() == Some(Kind::AccessToken);
                entry.effective_duration = Some(DURATIONS[if is_token { d % 3 } else { *d }].to_owned());
            }
        }
        Edit::RenewBefore(n, d) => {
            if let Some(entry) = entries.get_mut(n % count).filter(|entry| is_minted(entry)) {
                entry.renew_before = RENEW[*d].map(str::to_owned);
            }
        }
        Edit::Rotate(t) => spec.rotate_minted_before = Some(time(t).to_string()),
        Edit::Revoke(t) => {
            spec.revoke_minted_before = Some(time(t).to_string());
        }
        Edit::RevokeEntry(n, t) => {
            if let Some(entry) = entries.get_mut(n % count) {
                entry.revoke_minted_before = Some(time(t).to_string());
            }
        }
        Edit::NoWatermarks => {
            spec.rotate_minted_before = None;
            spec.revoke_minted_before = None;
            spec.credentials.iter_mut().flatten().for_each(|e| e.revoke_minted_before = None);
        }
        Edit::Scopes(n) => {
            spec.scopes = ["a1", "b1", "a2"].iter().take(*n).map(|s| (*s).to_owned()).collect();
        }
        Edit::Apis(n) => {
            let api = |audience: &&str| ApiAccess { audience: (*audience).to_owned(), scopes: vec!["a1".to_owned()] };
            spec.apis = ["https://a.example", "https://b.example"].iter().take(*n).map(api).collect();
        }
        Edit::DnsNames(some) => {
            for entry in entries.iter_mut() {
                if let Some(certificate) = &mut entry.certificate {
                    certificate.private_key = some.then_some(KeyType::EcdsaP384.into());
                    certificate.dns_names = some.then(|| "app.shop.svc".to_owned()).into_iter().collect();
                }
            }
        }
        Edit::Template(some) => {
            let labels = BTreeMap::from([("team".to_owned(), "shop".to_owned())]);
            let fields = BTreeMap::from([("CLIENT_SECRET".to_owned(), SecretField::ClientSecret)]);
            spec.secret_template = some.then(|| SecretTemplate { labels, fields, ..SecretTemplate::default() });
        }
        Edit::Upload(n, f) => {
            let mut uploads = entries.iter_mut().filter_map(|entry| entry.public_key.as_mut());
            if let Some(key) = uploads.nth(n % 2) {
                *key = file(*f);
            }
        }
        Edit::Orphan(yes) => spec.deletion_policy = yes.then_some(DeletionPolicy::Orphan),
        Edit::Remove(_) | Edit::PolicyScopes(_) | Edit::Issuer(_) | Edit::RotateByAnnotation(_) => {}
    }
    // A registration without credentials is a public client.
    let is_empty = spec.credentials.as_ref().is_some_and(Vec::is_empty);
    spec.client_type = is_empty.then_some(ClientType::Public);
}

fn is_minted(entry: &Entry) -> bool {
    entry.public_key.is_none() && entry.service_account.is_none()
}

/// Facts that nobody would make.
#[expect(clippy::too_many_lines, reason = "one strategy for each part of the facts, side by side")]
fn facts() -> impl Strategy<Value = (Facts, Timestamp)> {
    let text = || {
        prop_oneof![
            Just(String::new()),
            "[a-z0-9.=:TZ+-]{0,24}",
            Just("2026-01-01T00:00:00Z".to_owned()),
            any::<String>()
        ]
    };
    let time = || {
        prop_oneof![
            4 => 1_760_000_000_i64..1_800_000_000,
            1 => -377_705_023_201_i64..253_402_207_200,
            1 => Just(253_402_207_200_i64),
            1 => Just(-377_705_023_201_i64),
        ]
        .prop_map(|s| Timestamp::from_second(s).unwrap())
    };
    let duration = || {
        prop::option::of(prop_oneof![
            Just("90d".to_owned()),
            Just("0s".to_owned()),
            "[0-9]{1,22}[smhdw]",
            any::<String>()
        ])
    };
    let mark = || prop::option::of(prop_oneof![time().prop_map(|t| t.to_string()), text()]);
    let entry =
        (0_usize..PALETTE, duration(), duration(), prop::option::of("app(-token)?"), mark(), mark(), 0_usize..9)
            .prop_map(|(choice, effective_duration, renew_before, secret_name, rotate, revoke, mess)| {
                let mut entry = Entry {
                    effective_duration,
                    renew_before,
                    rotate_minted_before: rotate,
                    revoke_minted_before: revoke,
                    ..palette(choice)
                };
                if secret_name.is_some() {
                    entry.secret_name = secret_name;
                }
                match mess {
                    0 => entry.client_secret = Some(ClientSecret {}),
                    1 => (entry.client_secret, entry.certificate, entry.access_token) = (None, None, None),
                    2 => entry.public_key = Some(PublicKey { pem: Some("no key".into()), der: None }),
                    _ => {}
                }
                entry
            });
    let number = || prop_oneof![4 => 0_u64..10, 1 => Just(u64::MAX), 1 => any::<u64>()];
    let revision = (number(), time(), time(), any::<bool>()).prop_map(|(revision, minted_at, not_after, is_key)| {
        let digest = Digest::of(&revision.to_be_bytes());
        let verifier = if is_key {
            let given = crate::credential::public_key::read(&file(0)).expect("a key");
            let jwk = serde_json::Value::Null;
            if revision < 5 {
                given.verifier
            } else {
                Verifier::PublicKey(PublicKeyVerifier { spki_sha256: digest, jwk })
            }
        } else {
            Verifier::ClientSecret(ClientSecretVerifier { sha256: digest })
        };
        Revision { revision, minted_at, not_after, hint: None, verifier }
    });
    let credential =
        (0_usize..Kind::ALL.len(), number(), prop::option::of(time()), prop::collection::vec(revision, 0..8)).prop_map(
            |(kind, next_revision, revoked_before, revisions)| Credential {
                revoked_through: revisions.len() as u64 / 2,
                tokens_revoked_before: revoked_before,
                kind: Kind::ALL[kind],
                next_revision,
                revoked_before,
                subject: None,
                revisions,
            },
        );
    let credentials = prop::collection::btree_map("web|batch|mtls|own|api|key|partner|workload|x", credential, 0..5);
    let ledger = (0_usize..8, credentials, time(), prop::option::of(time()), text()).prop_map(
        |(what, credentials, created_at, revoked_before, client_id)| {
            let entry = ledger::Entry {
                version: 1,
                server: "default".into(),
                client_id,
                owner: Owner { namespace: "shop".into(), name: "app".into(), uid: super::model::UID.into() },
                created_at,
                revoked_before,
                deletion_policy: DeletionPolicy::Delete,
                grant: Grant::default(),
                credentials,
                remote: None,
            };
            let held =
                |standing| LedgerFact::Held { resource_version: "7".into(), entry: Box::new(entry.clone()), standing };
            match what {
                0 => LedgerFact::Absent,
                1 => LedgerFact::Taken,
                2 => LedgerFact::Unreadable(ledger::Unreadable::Missing),
                3 => held(Standing::Former),
                _ => held(Standing::Ours),
            }
        },
    );
    let held = || prop_oneof![Just(Held::Nothing), Just(Held::Unknown), number().prop_map(Held::Revision)];
    let shown =
        (0_usize..4, held(), held(), time(), time(), text()).prop_map(|(kind, current, previous, a, b, shape)| {
            match kind {
                0 => Shown::ClientSecret { current, previous },
                1 => Shown::Certificate { current, previous, shape },
                2 => Shown::AccessToken(Err(current)),
                _ => Shown::AccessToken(Ok(ShownToken { kid: "k1".into(), issued_at: a, not_after: b, shape })),
            }
        });
    let published = prop_oneof![
        text(),
        (number(), time()).prop_map(|(n, t)| format!(
            r#"{{"web":{{"current":{n},"previous":1,"since":"{t}"}},"x":{{"since":"{t}"}}}}"#
        )),
    ];
    let contents = (prop::collection::btree_map("web|batch|mtls|own|api", shown, 0..5), text(), any::<bool>())
        .prop_map(|(shown, connection, seen)| Contents {
            shown,
            connection,
            fields: if seen { vec![field::CLIENT_SECRET.to_owned()] } else { Vec::new() },
        });
    let secret = (0_usize..8, any::<bool>(), any::<bool>(), published, prop::option::of(contents), any::<bool>())
        .prop_map(|(what, is_live, immutable, published, contents, owned)| {
            let source = if is_live { Source::Live } else { Source::Watched };
            match what {
                0 => SecretFact::Absent(source),
                1 => SecretFact::Foreign,
                _ => SecretFact::Ours(Box::new(OurSecret {
                    source,
                    uid: "s".into(),
                    resource_version: "9".into(),
                    labels: BTreeMap::from([(names::REGISTRATION_UID_LABEL.to_owned(), super::model::UID.to_owned())]),
                    annotations: BTreeMap::from([
                        (names::PUBLISHED_ANNOTATION.to_owned(), published),
                        (names::REGISTRATION_ANNOTATION.to_owned(), "shop/app".to_owned()),
                    ]),
                    owned: if owned { Owned::ByRegistration } else { Owned::ByNobody },
                    type_: None,
                    immutable,
                    contents,
                })),
            }
        });
    let secrets = prop::collection::btree_map("app|app-batch|app-token|app-tls|old", secret, 0..5);
    let spec = (prop::option::of(prop::collection::vec(entry, 0..6)), mark(), mark(), text(), prop::option::of(text()));
    (spec, ledger, secrets, time(), any::<(bool, u8)>()).prop_map(
        |((credentials, rotate, revoke, annotation, client_id), ledger, secrets, now, (confirmed, mess))| {
            let world = World::new("app");
            let namespace_is_terminating = mess & 64 == 64;
            let is_terminating = mess & 128 == 128;
            let mut registration =
                Registration { namespace_is_terminating, is_terminating, confirmed, ..world.registration };
            registration.spec.credentials = credentials;
            registration.spec.rotate_minted_before = rotate;
            registration.spec.revoke_minted_before = revoke;
            registration.spec.client_id = client_id;
            registration.annotations.insert(names::REVOKE_MINTED_BEFORE_ANNOTATION.to_owned(), annotation);
            let mut environment: Environment = world.environment;
            if mess & 1 == 1 {
                environment.keys = crate::signer::Index::default();
            }
            if mess & 2 == 2 {
                environment.authorities = crate::signer::ca::CaIndex::default();
            }
            if mess & 4 == 4 {
                environment.policy.credential_kinds = Vec::new();
                environment.policy.scopes = Vec::new();
            }
            let rules = crate::policy::Rules::of_config(&environment.policy).unwrap();
            let governance = crate::policy::Governance {
                policies: if mess & 8 == 8 { Vec::new() } else { vec![Arc::new(rules)] },
                ..crate::policy::Governance::default()
            };
            let admission = match mess >> 4 & 3 {
                1 => Admission::Closed("the server is closed".to_owned()),
                2 => Admission::Unavailable("The server is unavailable".to_owned()),
                _ => Admission::Open,
            };
            let refusals = BTreeMap::new();
            let environment = Arc::new(environment);
            (Facts { registration, environment, admission, governance, ledger, secrets, refusals }, now)
        },
    )
}

#[test]
fn no_facts_make_a_decision_fail_or_waver() {
    for_all(1500, &facts(), |(facts, now)| {
        let plan = decide(&facts, now);
        assert_eq!(plan, decide(&facts, now));
        let _ = plan.to_string();
        if !plan.look.is_empty() {
            assert!(plan.steps.is_empty() && plan.mints.is_empty());
            return;
        }
        let creates = |step: &Step| matches!(step, Step::Publish(publish) if publish.write == SecretWrite::Create);
        let is_going = facts.registration.namespace_is_terminating || facts.registration.is_terminating;
        assert!(!is_going || !plan.steps.iter().any(creates));
        assert!(!facts.registration.is_terminating || plan.mints.is_empty());
        assert_limits(&plan.status);
        let failure = Failure { reason: None, message: "X".repeat(5000) };
        assert_limits(&after_failure(&facts, &plan, &failure, now));
    });
}
