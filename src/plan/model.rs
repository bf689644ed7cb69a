//! A world without a cluster: a ledger and Secrets with resourceVersions, written as `act` writes and read as `observe`
//! reads. Values are opaque texts; certificates and tokens are told by tables, because what is tried here is the plan.
//!
//! Every write is held against the safety invariants (S1 to S4, S9) and the limits (invariant 11).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use serde_json::json;

use crate::api::{
    self, AppRegistrationSpec, AppRegistrationStatus, KeyType, Kind, Reason, RegistrationApprovalSpec,
    RegistrationPolicySpec, Sighting, names,
};
use crate::config::{Policy, Server};
use crate::credential::access_token::Claims;
use crate::credential::published::Published;
use crate::credential::{Held, Shown, field};
use crate::ledger::{self, CertificateVerifier, ClientSecretVerifier, Digest, Entry, Revision, Verifier};
use crate::policy::{Absence, Governance, Rules};
use crate::rotation;
use crate::signer::ca::{CaIndex, CaRecord};
use crate::signer::{Algorithm, Index, KeyRecord};

use super::facts::{
    Admission, Contents, Environment, Facts, Law, LedgerFact, OurSecret, Owned, Registration, SecretFact, Source,
    Standing,
};
use super::{LedgerWrite, Look, Notice, Order, Plan, Publish, Reading, SecretWrite, Step, Value};

pub(super) const UID: &str = "0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10";
pub(super) const NAMESPACE: &str = "shop";

/// More passes than any situation needs: who takes longer goes in circles.
const MOST_PASSES: usize = 12;

pub(super) fn at(text: &str) -> Timestamp {
    let full = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    full.parse().unwrap_or_else(|_| panic!("not a time: {text}"))
}

/// As much of a key as its type can be told by.
fn jwk(key_type: KeyType) -> serde_json::Value {
    // A modulus of so many bits, in base64url.
    let rsa = |bits: usize| json!({"kty": "RSA", "n": "A".repeat((bits / 8 * 4).div_ceil(3))});
    match key_type {
        KeyType::EcdsaP256 => json!({"kty": "EC", "crv": "P-256"}),
        KeyType::EcdsaP384 => json!({"kty": "EC", "crv": "P-384"}),
        KeyType::Ed25519 => json!({"kty": "OKP", "crv": "Ed25519"}),
        KeyType::Rsa2048 => rsa(2048),
        KeyType::Rsa3072 => rsa(3072),
        KeyType::Rsa4096 => rsa(4096),
    }
}

/// The cluster.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) registration: Registration,
    pub(super) environment: Environment,
    pub(super) admission: Admission,
    /// The policies that select its namespace, beside the configured one.
    pub(super) policies: BTreeMap<String, RegistrationPolicySpec>,
    /// Policies that granted something and select its namespace no more.
    pub(super) departed: BTreeSet<String>,
    /// Its approvals.
    pub(super) approvals: BTreeMap<String, RegistrationApprovalSpec>,
    /// How many registrations come before it.
    pub(super) older: usize,
    /// By the name of their Secrets, with the resourceVersion.
    pub(super) ledger: BTreeMap<String, (u64, Entry)>,
    pub(super) secrets: BTreeMap<String, Stored>,
    pub(super) requests: Vec<String>,
    version: u64,
    minted: u64,
    tokens: BTreeMap<String, Claims>,
    pub(super) record: Record,
}

/// A Secret of an application's namespace.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) uid: String,
    pub(super) version: u64,
    pub(super) type_: String,
    pub(super) immutable: bool,
    pub(super) only_ours: bool,
    /// The uid of the controller ownerReference.
    pub(super) controller: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) data: BTreeMap<String, String>,
}

/// What one controller remembers: at which resourceVersion a Secret was seen to be in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    known: BTreeMap<String, u64>,
}

/// What the invariants are held against.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// Value by (incarnation, entry, revision): S3.
    values: BTreeMap<(u64, String, u64), String>,
    incarnation: u64,
    /// Values that were readable in a Secret: since when something else is, and for how long they must stay accepted.
    seen: BTreeMap<String, Seen>,
    /// The client ID by the uid of the registration: S4.
    client_ids: BTreeMap<String, String>,
    /// Digests that left by revocation, by the removal of their entry or at the limit: S1 says nothing of them.
    excused: BTreeSet<Digest>,
    /// Keys by the entry under which they were revoked.
    revoked_keys: BTreeSet<(String, Digest)>,
}

#[derive(Clone, Debug)]
struct Seen {
    entry: String,
    digest: Digest,
    not_after: Timestamp,
    replaced_at: Option<Timestamp>,
    overlap: SignedDuration,
}

/// A plan on its way.
pub(super) struct Run {
    pub(super) plan: Plan,
    minted: BTreeMap<String, Material>,
    next: usize,
    ledger_version: Option<u64>,
    versions: BTreeMap<String, u64>,
    failed: bool,
    /// The resourceVersions of the Secrets that were read live for it.
    seen: BTreeMap<String, u64>,
    /// The entries whose Secret held something accepted when the pass began.
    served: BTreeSet<String>,
}

#[derive(Clone, Debug)]
struct Material {
    revision: Option<Revision>,
    fields: BTreeMap<&'static str, String>,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    More,
    Refused,
}

impl World {
    pub(super) fn new(name: &str) -> Self {
        let registration = Registration {
            namespace: NAMESPACE.into(),
            name: name.into(),
            uid: UID.into(),
            generation: 1,
            spec: AppRegistrationSpec { display_name: name.into(), ..AppRegistrationSpec::default() },
            ..Registration::default()
        };
        let server = Server {
            name: "default".into(),
            issuer: "https://auth.example".into(),
            default_audience: None,
            access_token_lifetime: "1h".parse().unwrap(),
            signing_algorithm: Algorithm::ES256,
            serving_names: Vec::new(),
            forwarded_certificates: None,
        };
        let key = |kid: &str, from: &str| KeyRecord {
            kid: kid.into(),
            alg: Algorithm::ES256,
            created_at: at(from),
            sign_from: at(from),
            publish_until: None,
        };
        let authority = CaRecord {
            id: "ca1".into(),
            created_at: at("2025-01-01"),
            not_after: at("2060-01-01"),
            certificate: "-- ca1 --\n".into(),
        };
        let environment = Environment {
            server,
            policy: Policy::open(),
            keys: Index::default().with(key("k1", "2025-01-01")),
            authorities: CaIndex::default().with(authority.clone()),
            endpoint_authorities: CaIndex::default().with(authority),
        };
        Self {
            registration,
            environment,
            admission: Admission::Open,
            policies: BTreeMap::new(),
            departed: BTreeSet::new(),
            approvals: BTreeMap::new(),
            older: 0,
            ledger: BTreeMap::new(),
            secrets: BTreeMap::new(),
            requests: Vec::new(),
            version: 100,
            minted: 0,
            tokens: BTreeMap::new(),
            record: Record::default(),
        }
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// Somebody else writes a Secret.
    pub(super) fn by_hand(&mut self, name: &str, now: Timestamp, edit: impl FnOnce(&mut Stored)) {
        let version = self.next_version();
        if let Some(secret) = self.secrets.get_mut(name) {
            edit(secret);
            secret.version = version;
            secret.only_ours = false;
        }
        self.observe(now);
    }

    pub(super) fn delete_secret(&mut self, name: &str, now: Timestamp) {
        self.next_version();
        self.secrets.remove(name);
        self.observe(now);
    }

    pub(super) fn edit_spec(&mut self, edit: impl FnOnce(&mut AppRegistrationSpec)) {
        let before = self.registration.spec.clone();
        edit(&mut self.registration.spec);
        if self.registration.spec != before {
            self.registration.generation += 1;
        }
    }

    /// The entry of this registration.
    pub(super) fn entry(&self) -> Option<&Entry> {
        self.ledger.values().map(|(_, entry)| entry).find(|entry| entry.owner.uid == self.registration.uid)
    }

    /// The facts that a controller has whose watches have shown `view`, with live reads of what is there now.
    pub(super) fn facts(&self, view: &Self, memory: &Memory, look: &Look) -> Facts {
        let mut registration = view.registration.clone();
        registration.confirmed = look.registration;
        let environment = Arc::new(self.environment.clone());
        let governance = view.governance(self, look);
        let ledger = view.ledger_fact();
        let trusted = match &ledger {
            LedgerFact::Held { entry, .. } => Some((**entry).clone()),
            LedgerFact::Absent | LedgerFact::Taken | LedgerFact::Unreadable(_) => None,
        };
        let entries = registration.spec.effective_credentials().into_owned();
        let mut wanted: BTreeSet<_> = entries.iter().filter_map(|e| api::secret_name(e, &registration.name)).collect();
        wanted.extend(view.secrets.iter().filter(|(_, s)| s.is_marked_for(&registration.uid)).map(|(n, _)| n.clone()));
        let mut secrets = BTreeMap::new();
        for name in wanted {
            let of_secret: Vec<_> = entries
                .iter()
                .filter(|e| api::secret_name(e, &registration.name).as_ref() == Some(&name))
                .cloned()
                .collect();
            let source = if look.secrets.contains(&name) { Source::Live } else { Source::Watched };
            let stored = if source == Source::Live { self.secrets.get(&name) } else { view.secrets.get(&name) };
            let fact = match stored {
                None => SecretFact::Absent(source),
                Some(stored) => match stored.owned(&registration) {
                    None => SecretFact::Foreign,
                    Some(owned) => {
                        let published =
                            Published::parse(stored.annotations.get(names::PUBLISHED_ANNOTATION).map(String::as_str));
                        let reading = Reading {
                            entries: &of_secret,
                            ledger: trusted.as_ref(),
                            published: &published,
                            template: registration.spec.secret_template.as_ref(),
                            environment: &environment,
                        };
                        let is_known = memory.known.get(&name) == Some(&stored.version)
                            || of_secret.is_empty()
                            || registration
                                .status
                                .secrets
                                .iter()
                                .any(|s| s.name == name && s.resource_version == stored.version.to_string())
                            || (stored.only_ours && of_secret.iter().all(|e| e.kind() == Some(Kind::AccessToken)));
                        let contents = match source {
                            Source::Live => Some(self.contents(reading, stored)),
                            Source::Watched => is_known.then(|| super::hinted_contents(reading, &stored.annotations)),
                        };
                        SecretFact::Ours(Box::new(OurSecret {
                            source,
                            uid: stored.uid.clone(),
                            resource_version: stored.version.to_string(),
                            labels: stored.labels.clone(),
                            annotations: stored.annotations.clone(),
                            owned,
                            type_: (source == Source::Live).then(|| stored.type_.clone()),
                            immutable: source == Source::Live && stored.immutable,
                            contents,
                        }))
                    }
                },
            };
            secrets.insert(name, fact);
        }
        let (admission, refusals) = (self.admission.clone(), BTreeMap::new());
        Facts { registration, environment, admission, governance, ledger, secrets, refusals }
    }

    /// What governs the registration as the watches have shown it, with live reads of what is there now.
    pub(super) fn governance(&self, live: &Self, look: &Look) -> Governance {
        let configured = &self.environment.policy;
        let mut policies: Vec<Arc<Rules>> =
            self.policies.iter().map(|(name, spec)| Arc::new(Rules::of_object(name, spec).unwrap())).collect();
        policies.extend(configured.enabled.then(|| Arc::new(Rules::of_config(configured).unwrap())));
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        let mut approvals: BTreeMap<_, _> =
            self.approvals.iter().map(|(name, spec)| (name.clone(), Arc::new(spec.clone()))).collect();
        let mut absent = BTreeMap::new();
        for name in &look.approvals {
            match live.approvals.get(name) {
                Some(spec) => drop(approvals.insert(name.clone(), Arc::new(spec.clone()))),
                None => drop(absent.insert(name.clone(), Absence::Confirmed)),
            }
        }
        let configured = Arc::new(Rules::of_config(configured).unwrap());
        Governance {
            policies,
            configured,
            departed: self.departed.clone(),
            approvals,
            absent,
            older: self.older,
            unknown: None,
        }
    }

    /// What a Secret holds, by its values. Certificates here are texts: `certificate <n> <shape>` and `key <n>`.
    fn contents(&self, reading: Reading<'_>, stored: &Stored) -> Contents {
        let fields = stored.data.iter().map(|(n, v)| (n.clone(), ByteString(v.as_bytes().to_vec()))).collect();
        let mut contents = super::contents(reading, &fields, |token| self.tokens.get(token).cloned());
        for (name, shown) in &mut contents.shown {
            let Shown::Certificate { current, shape, .. } = shown else { continue };
            let certificate = stored.data.get(field::CERTIFICATE).map(String::as_str).unwrap_or_default();
            let key = stored.data.get(field::PRIVATE_KEY).map(String::as_str).unwrap_or_default();
            let mut words = certificate.split(' ').skip(1);
            let fits = words.next() == key.split(' ').nth(1);
            let revision =
                reading.ledger.and_then(|l| l.credentials.get(name)).and_then(|c| revision_of(c, certificate));
            (*current, *shape) = match revision {
                _ if certificate.is_empty() && key.is_empty() => (Held::Nothing, String::new()),
                Some(revision) if fits => (Held::Revision(revision), words.next().unwrap_or_default().to_owned()),
                Some(_) | None => (Held::Unknown, String::new()),
            };
        }
        contents
    }

    fn ledger_fact(&self) -> LedgerFact {
        let registration = &self.registration;
        let held = |version: u64, entry: &Entry, standing| LedgerFact::Held {
            resource_version: version.to_string(),
            entry: Box::new(entry.clone()),
            standing,
        };
        if let Some((version, entry)) = self.ledger.values().find(|(_, e)| e.owner.uid == registration.uid) {
            return held(*version, entry, Standing::Ours);
        }
        let is_former = |e: &Entry| e.owner.namespace == registration.namespace && e.owner.name == registration.name;
        let wanted = registration.spec.client_id.as_deref().unwrap_or(&registration.uid);
        match self.ledger.get(&ledger::name(&self.environment.server.name, wanted)) {
            Some((version, entry)) if is_former(entry) => return held(*version, entry, Standing::Former),
            Some(_) => return LedgerFact::Taken,
            None => {}
        }
        if registration.spec.client_id.is_some() {
            return LedgerFact::Absent;
        }
        let former = self.ledger.values().find(|(_, entry)| is_former(entry));
        former.map_or(LedgerFact::Absent, |(version, entry)| held(*version, entry, Standing::Former))
    }

    /// Begins to carry out a plan.
    pub(super) fn begin(&mut self, plan: Plan, look: &Look, now: Timestamp) -> Run {
        let seen =
            look.secrets.iter().filter_map(|name| Some((name.clone(), self.secrets.get(name)?.version))).collect();
        let minted = plan.mints.iter().map(|mint| (mint.entry.clone(), self.mint(&plan, mint))).collect();
        Run {
            plan,
            minted,
            next: 0,
            ledger_version: None,
            versions: BTreeMap::new(),
            failed: false,
            seen,
            served: self.served(now),
        }
    }

    fn mint(&mut self, plan: &Plan, mint: &super::Mint) -> Material {
        self.minted += 1;
        let number = self.minted;
        let revision = |hint: Option<String>, verifier| {
            Some(Revision {
                revision: mint.revision,
                minted_at: mint.minted_at,
                not_after: mint.not_after,
                hint,
                verifier,
            })
        };
        match &mint.order {
            Order::ClientSecret => {
                let value = format!("client secret {number}");
                let sha256 = Digest::of(value.as_bytes());
                Material {
                    revision: revision(
                        Some(format!("hint{number}")),
                        Verifier::ClientSecret(ClientSecretVerifier { sha256 }),
                    ),
                    fields: BTreeMap::from([(field::CLIENT_SECRET, value)]),
                }
            }
            Order::Certificate { key_type, dns_names } => {
                let shape = crate::credential::certificate::shape(*key_type, dns_names);
                let value = format!("certificate {number} {shape}");
                let cert_sha256 = Digest::of(value.as_bytes());
                let jwk = jwk(*key_type);
                let verifier = CertificateVerifier { spki_sha256: cert_sha256, cert_sha256, jwk };
                Material {
                    revision: revision(None, Verifier::Certificate(verifier)),
                    fields: BTreeMap::from([
                        (field::CERTIFICATE, value),
                        (field::PRIVATE_KEY, format!("key {number}")),
                    ]),
                }
            }
            Order::AccessToken(order) => {
                let value = format!("token {number}");
                let claims = Claims {
                    kid: order.kid.clone(),
                    client_id: plan.status.client_id.clone().unwrap_or_default(),
                    jti: format!("{}~{number}", mint.entry),
                    issued_at: mint.minted_at,
                    not_after: mint.not_after,
                    scopes: order.scopes.clone(),
                    audiences: vec![order.audience.clone()],
                    customers: order.customers.clone(),
                    customer_groups: order.customer_groups.clone(),
                    issuer: self.environment.server.issuer.clone(),
                };
                self.tokens.insert(value.clone(), claims);
                Material { revision: None, fields: BTreeMap::from([(field::ACCESS_TOKEN, value)]) }
            }
        }
    }

    /// Carries out the next step.
    pub(super) fn step(&mut self, run: &mut Run, now: Timestamp) -> Progress {
        let Some(step) = run.plan.steps.get(run.next).cloned() else { return Progress::Done };
        run.next += 1;
        let accepted_before = self.accepted();
        let result = match &step {
            Step::Accept(accept) => self.accept(run, accept),
            Step::Publish(publish) => self.publish(run, publish, now),
            Step::Remove(remove) => {
                self.requests.push(format!("DELETE Secret {}", remove.name));
                if self.secrets.get(&remove.name).is_some_and(|s| s.uid == remove.uid) {
                    self.secrets.remove(&remove.name);
                }
                Ok(())
            }
            Step::Retire(retire) => {
                if run.failed && !retire.is_unconditional() {
                    Ok(())
                } else {
                    self.retire(run, retire)
                }
            }
        };
        self.observe(now);
        self.assert_safe(run, &step, &accepted_before, now);
        match result {
            Ok(()) if run.next < run.plan.steps.len() => Progress::More,
            Ok(()) if !run.failed => Progress::Done,
            Err(()) if run.next < run.plan.steps.len() && !matches!(step, Step::Accept(_)) => {
                run.failed = true;
                Progress::More
            }
            Ok(()) | Err(()) => Progress::Refused,
        }
    }

    fn accept(&mut self, run: &mut Run, accept: &super::Accept) -> Result<(), ()> {
        let mut entry = accept.entry.clone();
        for mint in run.plan.mints.iter().filter(|mint| mint.revision > 0) {
            let credential = entry.credentials.get_mut(&mint.entry).expect("the plan makes room for what it mints");
            assert!(credential.next_revision > mint.revision, "the next number is after the one minted");
            assert!(credential.revision(mint.revision).is_none(), "S3: revision {} twice", mint.revision);
            let revision = run.minted[&mint.entry].revision.clone().expect("a revision");
            credential.revisions.push(revision);
            assert!(credential.revisions.len() <= ledger::MOST_LIVE_REVISIONS, "invariant 11: live revisions");
        }
        for credential in entry.credentials.values() {
            assert!(credential.revisions.len() <= ledger::MOST_LIVE_REVISIONS, "invariant 11: revisions");
        }
        let name = entry.name();
        let held = self.ledger.get(&name).map(|(version, _)| *version);
        self.requests.push(match &accept.write {
            LedgerWrite::Create => "POST ledger".to_owned(),
            LedgerWrite::Replace { .. } => "PUT ledger".to_owned(),
        });
        let wanted = match &accept.write {
            LedgerWrite::Create => None,
            LedgerWrite::Replace { resource_version } => resource_version.parse().ok(),
        };
        if held != wanted {
            return Err(());
        }
        if matches!(accept.write, LedgerWrite::Create) {
            self.record.incarnation += 1;
        }
        assert!(entry.to_json().len() < ledger::LARGEST_ENTRY_BYTES, "invariant 11: an entry's size");
        self.commit(&name, entry, &run.plan);
        run.ledger_version = Some(self.version);
        // What was refused before this write was committed was never published: S3 counts from here.
        for mint in run.plan.mints.iter().filter(|mint| mint.revision > 0) {
            let value = run.minted[&mint.entry].fields.values().next().expect("a value").clone();
            let key = (self.record.incarnation, mint.entry.clone(), mint.revision);
            let before = self.record.values.insert(key, value);
            assert!(before.is_none(), "S3: `{}` revision {} has two values", mint.entry, mint.revision);
        }
        Ok(())
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is taken as the API server takes it")]
    fn commit(&mut self, name: &str, entry: Entry, plan: &Plan) {
        let version = self.next_version();
        let known = self.record.client_ids.entry(entry.owner.uid.clone()).or_insert_with(|| entry.client_id.clone());
        assert_eq!(*known, entry.client_id, "S4: the client ID changed");
        if let Some((_, before)) = self.ledger.get(name) {
            let is_new_client = before.created_at != entry.created_at;
            self.record.note_keys(before, &entry, is_new_client);
            for (name, credential) in &before.credentials {
                let after = entry.credentials.get(name).filter(|after| after.kind == credential.kind && !is_new_client);
                if after.is_none() {
                    self.record.incarnation += 1;
                }
                for revision in &credential.revisions {
                    if after.is_none_or(|after| after.revision(revision.revision).is_none()) {
                        let is_full = credential.revisions.len() >= ledger::MOST_LIVE_REVISIONS
                            && plan.mints.iter().any(|mint| mint.entry == *name);
                        let is_revoked = plan.steps.iter().any(|step| match step {
                            Step::Retire(retire) => retire.revisions.iter().any(|(entry, r, reason)| {
                                entry == name && *r == revision.revision && *reason == Reason::Revoked
                            }),
                            Step::Accept(_) | Step::Publish(_) | Step::Remove(_) => false,
                        });
                        if after.is_none() || is_full || is_revoked {
                            self.record.excused.insert(digest_of(revision));
                        }
                    }
                }
            }
        }
        let read_back = Entry::parse(name, Some(&entry.to_json())).expect("what is written can be read");
        self.ledger.insert(name.to_owned(), (version, read_back));
    }

    fn publish(&mut self, run: &mut Run, publish: &Publish, now: Timestamp) -> Result<(), ()> {
        let before = self.secrets.get(&publish.name);
        let (verb, fits) = match &publish.write {
            SecretWrite::Create => ("POST", before.is_none()),
            SecretWrite::Replace { uid, resource_version } => {
                ("PUT", before.is_some_and(|s| s.uid == *uid && s.version.to_string() == *resource_version))
            }
        };
        self.requests.push(format!("{verb} Secret {}", publish.name));
        if !fits {
            return Err(());
        }
        let before = before.cloned();
        if let Some(before) = &before {
            assert!(before.owned(&self.registration).is_some(), "S5: a Secret that is not ours");
            assert!(!before.immutable && before.type_ == publish.type_, "the API server would refuse this");
        }
        let mut data = BTreeMap::new();
        for (name, value) in &publish.fields {
            let text = match value {
                Value::Text(text) => text.clone(),
                Value::Minted(entry) => run.minted[entry].fields[name].clone(),
                Value::Held(held) => {
                    let held = before.as_ref().and_then(|before| before.data.get(*held));
                    held.unwrap_or_else(|| panic!("{name} is to be kept, but is not there")).clone()
                }
            };
            data.insert((*name).to_owned(), text);
        }
        for (name, source) in &publish.copies {
            data.insert(name.clone(), data[source.as_str()].clone());
        }
        let size: usize = publish.annotations.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(size < 256 * 1024, "invariant 11: {size} bytes of annotations");
        let version = self.next_version();
        let uid = before.as_ref().map_or_else(|| format!("secret-{version}"), |before| before.uid.clone());
        let stored = Stored {
            uid,
            version,
            type_: publish.type_.to_owned(),
            immutable: false,
            only_ours: before.is_none_or(|before| before.only_ours),
            controller: (publish.owned == Owned::ByRegistration).then(|| self.registration.uid.clone()),
            labels: publish.labels.clone(),
            annotations: publish.annotations.clone(),
            data,
        };
        self.secrets.insert(publish.name.clone(), stored);
        run.versions.insert(publish.name.clone(), version);
        for verdict in self.holdings() {
            let accepted = self.find(&verdict.1).is_some_and(|(_, revision)| revision.is_accepted(now));
            let was_minted_now = run.minted.values().any(|m| m.fields.values().any(|v| *v == verdict.1));
            assert!(accepted || !was_minted_now, "B before A: {} is published and not accepted", verdict.0);
        }
        Ok(())
    }

    fn retire(&mut self, run: &Run, retire: &super::Retire) -> Result<(), ()> {
        self.requests.push("PUT ledger".to_owned());
        let uid = self.registration.uid.clone();
        let (name, (version, entry)) =
            self.ledger.iter().find(|(_, (_, e))| e.owner.uid == uid).map(|(n, v)| (n.clone(), v.clone())).ok_or(())?;
        let wanted = retire.resource_version.as_ref().and_then(|v| v.parse().ok()).or(run.ledger_version);
        if Some(version) != wanted {
            return Err(());
        }
        let mut after = entry;
        for (entry, revision, _) in &retire.revisions {
            if let Some(credential) = after.credentials.get_mut(entry) {
                credential.revisions.retain(|r| r.revision != *revision);
            }
        }
        for entry in &retire.entries {
            after.credentials.remove(entry);
        }
        self.commit(&name, after, &run.plan);
        Ok(())
    }

    /// Ends a pass that went through: the report.
    pub(super) fn report(&mut self, run: &Run, memory: &mut Memory) -> bool {
        let status = reported(run);
        for (name, version) in run.seen.iter().filter(|(name, _)| !run.plan.doubtful.contains(*name)) {
            memory.known.insert(name.clone(), *version);
        }
        for (name, version) in &run.versions {
            memory.known.insert(name.clone(), *version);
        }
        assert_limits(&status);
        let all: Vec<_> = (0..run.plan.steps.len()).collect();
        assert_told(&super::notices(&run.plan, &all));
        assert_told(&super::new_problems(&self.registration.status.conditions, &status.conditions));
        assert_planned(&run.plan);
        if status == self.registration.status {
            return false;
        }
        self.requests.push("PUT status".to_owned());
        self.registration.status = status;
        true
    }

    /// One controller with fresh watches, until nothing is left to do. The plans as they were decided.
    pub(super) fn converge(&mut self, memory: &mut Memory, now: Timestamp) -> Vec<Plan> {
        let mut plans = Vec::new();
        let mut look = Look::default();
        for _ in 0..MOST_PASSES {
            let facts = self.facts(self, memory, &look);
            let plan = super::decide(&facts, now);
            assert_eq!(plan, super::decide(&facts, now), "the same facts and time, another plan");
            plans.push(plan.clone());
            if !plan.look.is_empty() {
                self.read(&mut look, &plan.look);
                continue;
            }
            let was_at_rest = plan.is_at_rest();
            let mut run = self.begin(plan, &look, now);
            while self.step(&mut run, now) == Progress::More {}
            assert!(!run.failed, "nobody else writes");
            let reported = self.report(&run, memory);
            if was_at_rest && !reported {
                plans.pop();
                return plans;
            }
            look = Look::default();
        }
        panic!(
            "no rest after {MOST_PASSES} passes: {}",
            plans.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        );
    }

    /// Takes note of reads.
    pub(super) fn read(&mut self, look: &mut Look, more: &Look) {
        let sees_more = !more.secrets.is_subset(&look.secrets) || !more.approvals.is_subset(&look.approvals);
        assert!(sees_more || (more.registration && !look.registration), "looks twice");
        if more.registration {
            self.requests.push("GET registration".to_owned());
        }
        self.requests.extend(more.secrets.iter().map(|name| format!("GET Secret {name}")));
        look.registration |= more.registration;
        look.secrets.extend(more.secrets.iter().cloned());
        self.requests.extend(more.approvals.iter().map(|name| format!("GET approval {name}")));
        look.approvals.extend(more.approvals.iter().cloned());
    }

    /// The values that the Secrets hold now, by entry, access tokens aside.
    fn holdings(&self) -> Vec<(String, String)> {
        let entries = self.registration.spec.effective_credentials();
        entries
            .iter()
            .filter_map(|entry| {
                let field = match entry.kind()? {
                    Kind::ClientSecret => field::CLIENT_SECRET,
                    Kind::Certificate => field::CERTIFICATE,
                    Kind::AccessToken | Kind::PublicKey | Kind::ServiceAccount => return None,
                };
                let secret = self.secrets.get(&api::secret_name(entry, &self.registration.name)?)?;
                secret.owned(&self.registration)?;
                Some((entry.name.clone(), secret.data.get(field)?.clone()))
            })
            .collect()
    }

    /// The entry and revision of a value in the ledger.
    fn find(&self, value: &str) -> Option<(&str, &Revision)> {
        let digest = Digest::of(value.as_bytes());
        self.entry()?.credentials.iter().find_map(|(name, credential)| {
            Some((name.as_str(), credential.revisions.iter().find(|r| digest_of(r) == digest)?))
        })
    }

    /// The entries whose Secret holds something that is accepted: S2.
    pub(super) fn served(&self, now: Timestamp) -> BTreeSet<String> {
        self.holdings()
            .into_iter()
            .filter(|(entry, value)| self.find(value).is_some_and(|(of, r)| of == entry && r.is_accepted(now)))
            .map(|(entry, _)| entry)
            .collect()
    }

    fn accepted(&self) -> BTreeSet<Digest> {
        self.ledger
            .values()
            .flat_map(|(_, e)| e.credentials.values())
            .flat_map(|c| &c.revisions)
            .map(digest_of)
            .collect()
    }

    /// Notes what applications can read now.
    pub(super) fn observe(&mut self, now: Timestamp) {
        let holdings = self.holdings();
        let overlaps = self.overlaps();
        for (entry, value) in &holdings {
            let Some((of, revision)) = self.find(value) else { continue };
            if of != entry {
                continue;
            }
            let seen = Seen {
                entry: entry.clone(),
                digest: digest_of(revision),
                not_after: revision.not_after,
                replaced_at: None,
                overlap: overlaps.get(entry).copied().unwrap_or_default(),
            };
            self.record.seen.insert(value.clone(), seen);
        }
        for (value, seen) in &mut self.record.seen {
            let overlap = overlaps.get(&seen.entry).copied().unwrap_or_default();
            seen.overlap = seen.overlap.min(overlap);
            if seen.replaced_at.is_none() && !holdings.iter().any(|(_, held)| held == value) {
                seen.replaced_at = Some(now);
            }
        }
    }

    /// How long an old value is promised to go on, by entry; nothing is promised for entries that are gone.
    fn overlaps(&self) -> BTreeMap<String, SignedDuration> {
        let decision = crate::policy::Decision::default();
        let governance = self.governance(self, &Look::default());
        let law = Law { environment: &self.environment, governance: &governance };
        let resolved = super::desired::resolve(&self.registration, law, self.entry(), &decision, Timestamp::MIN);
        resolved.entries.iter().map(|d| (d.name.clone(), d.rhythm.overlap())).collect()
    }

    fn assert_safe(&self, run: &Run, step: &Step, before: &BTreeSet<Digest>, now: Timestamp) {
        let accepted = self.accepted();
        for (value, seen) in &self.record.seen {
            let left = before.contains(&seen.digest) && !accepted.contains(&seen.digest);
            let end = seen.replaced_at.map_or(seen.not_after, |at| seen.not_after.min(rotation::add(at, seen.overlap)));
            let is_promised =
                now < end && self.registration.spec.effective_credentials().iter().any(|e| e.name == seen.entry);
            assert!(
                !left || !is_promised || self.record.excused.contains(&seen.digest),
                "S1: {value} was promised until {end} and left at {now} by {step}"
            );
        }
        let served = self.served(now);
        for entry in run.served.iter().filter(|entry| !served.contains(*entry)) {
            let was_revoked = run.plan.steps.iter().any(|step| {
                matches!(step, Step::Retire(r) if r.revisions.iter().any(|(e, _, why)| e == entry && *why == Reason::Revoked))
            });
            let is_wanted = self.registration.spec.effective_credentials().iter().any(|e| {
                e.name == *entry
                    && self.entry().is_some_and(|l| l.credentials.get(entry).is_some_and(|c| Some(c.kind) == e.kind()))
            });
            assert!(was_revoked || !is_wanted, "S2: `{entry}` holds nothing accepted after {step} at {now}");
        }
    }

    /// S9: what a revocation applies to is not accepted once the controller is at rest.
    pub(super) fn assert_revoked(&self, of: Option<&str>, mark: Timestamp, now: Timestamp) {
        if mark > now {
            return;
        }
        let Some(entry) = self.entry() else { return };
        for (name, credential) in entry.credentials.iter().filter(|(name, _)| of.is_none_or(|of| of == *name)) {
            for revision in credential.revisions.iter().filter(|r| !r.is_expired(now)) {
                assert!(revision.minted_at >= mark, "S9: `{name}` revision {} was revoked", revision.revision);
            }
        }
    }

    /// S2: every entry of the spec has something accepted in its Secret, tokens included.
    pub(super) fn assert_served(&self, now: Timestamp) {
        let served = self.served(now);
        for entry in self.registration.spec.effective_credentials().iter() {
            let is_served = match entry.kind() {
                Some(Kind::AccessToken) => {
                    let secret = api::secret_name(entry, &self.registration.name).and_then(|n| self.secrets.get(&n));
                    let claims = secret.and_then(|s| self.tokens.get(s.data.get(field::ACCESS_TOKEN)?));
                    let from = self.entry().and_then(|l| {
                        let of_entry = l.credentials.get(&entry.name).and_then(|c| c.revoked_before);
                        Some(l.created_at).max(l.revoked_before).max(of_entry)
                    });
                    claims.is_some_and(|c| {
                        rotation::is_valid(c.issued_at, c.not_after, now) && from.is_none_or(|from| from <= c.issued_at)
                    })
                }
                Some(Kind::ClientSecret | Kind::Certificate) => served.contains(&entry.name),
                Some(Kind::PublicKey) => {
                    let revisions = self.entry().and_then(|l| Some(&l.credentials.get(&entry.name)?.revisions));
                    revisions.is_some_and(|revisions| revisions.iter().any(|r| r.is_accepted(now)))
                }
                Some(Kind::ServiceAccount) => self.entry().is_some_and(|l| {
                    l.credentials.get(&entry.name).is_some_and(|credential| credential.subject.is_some())
                }),
                None => true,
            };
            assert!(is_served, "S2: `{}` holds nothing accepted at {now}", entry.name);
        }
    }

    /// Whether the registration's controller would write this Secret.
    pub(super) fn is_ours(&self, name: &str) -> bool {
        self.secrets.get(name).is_some_and(|secret| secret.owned(&self.registration).is_some())
    }

    /// How it ended, without what differs from one minting to the next: values, numbers, times.
    pub(super) fn end(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for (name, secret) in &self.secrets {
            let published = Published::parse(secret.annotations.get(names::PUBLISHED_ANNOTATION).map(String::as_str));
            let _ = writeln!(text, "{name} {} {:?} {:?}", secret.type_, secret.controller, secret.labels);
            let _ = writeln!(text, "  {:?} {:?}", secret.annotations.keys(), published.0.keys());
            for (field, value) in &secret.data {
                let minted = ["client secret ", "certificate ", "key ", "token "].iter().any(|m| value.starts_with(m));
                let _ =
                    writeln!(text, "  {field} {}", if minted || field == field::EXPIRES_AT { "minted" } else { value });
            }
        }
        if let Some(entry) = self.entry() {
            let _ = writeln!(text, "{:?} {:?} {:?}", entry.client_id, entry.grant, entry.revoked_before);
            for (name, credential) in &entry.credentials {
                let _ = writeln!(text, "  {name} {} {:?}", credential.kind, credential.revoked_before);
                let keys = credential.revisions.iter().filter(|_| credential.kind == Kind::PublicKey);
                let keys: Vec<_> = keys.map(|r| (digest_of(r), r.not_after)).collect();
                let _ = writeln!(text, "    {:?} {keys:?}", credential.subject);
            }
        }
        for condition in &self.registration.status.conditions {
            let _ =
                writeln!(text, "{} {} {} {}", condition.type_, condition.status, condition.reason, condition.message);
        }
        text
    }
}

/// The plan's status with what only minting and writing made known.
fn reported(run: &Run) -> AppRegistrationStatus {
    let mut status = run.plan.status.clone();
    for credential in &mut status.credentials {
        let Some(revision) = run.minted.get(&credential.name).and_then(|m| m.revision.as_ref()) else { continue };
        if let Some(current) = credential.current.as_mut().filter(|c| c.revision == revision.revision) {
            current.hint.clone_from(&revision.hint);
            if let Verifier::Certificate(verifier) = &revision.verifier {
                current.thumbprint = Some(verifier.cert_sha256.to_base64url());
            }
        }
    }
    for secret in &mut status.secrets {
        if let Some(version) = run.versions.get(&secret.name) {
            secret.resource_version = version.to_string();
        }
    }
    status
}

impl Record {
    /// S9 of what no Secret holds: a revoked key never becomes a revision again, while its entry stands.
    fn note_keys(&mut self, before: &Entry, after: &Entry, is_new_client: bool) {
        let key = |revision: &Revision| match &revision.verifier {
            Verifier::Certificate(verifier) => verifier.spki_sha256,
            Verifier::PublicKey(verifier) => verifier.spki_sha256,
            Verifier::ClientSecret(verifier) => verifier.sha256,
        };
        let keys = |entry: &Entry, name: &str| {
            let credential = entry.credentials.get(name).filter(|c| c.kind == Kind::PublicKey);
            credential.map(|c| c.revisions.clone())
        };
        for name in before.credentials.keys().chain(after.credentials.keys()) {
            let Some(now) = keys(after, name).filter(|_| !is_new_client) else {
                self.revoked_keys.retain(|(of, _)| of != name);
                continue;
            };
            let then = keys(before, name).unwrap_or_default();
            for revision in now {
                match then.iter().find(|r| r.revision == revision.revision) {
                    None => assert!(
                        !self.revoked_keys.contains(&(name.clone(), key(&revision))),
                        "S9: `{name}` takes up a key that was revoked"
                    ),
                    Some(old) if revision.not_after < old.not_after => {
                        self.revoked_keys.insert((name.clone(), key(&revision)));
                    }
                    Some(old) => assert_eq!(*old, revision, "a revision changed"),
                }
            }
        }
    }
}

impl Stored {
    fn is_marked_for(&self, uid: &str) -> bool {
        self.controller.as_deref() == Some(uid)
            || self.labels.get(names::REGISTRATION_UID_LABEL).is_some_and(|label| label == uid)
    }

    fn owned(&self, registration: &Registration) -> Option<Owned> {
        match &self.controller {
            Some(controller) if *controller == registration.uid => Some(Owned::ByRegistration),
            Some(_) => None,
            None => {
                let managed = self.labels.get(names::MANAGED_BY_LABEL).is_some_and(|v| v == names::MANAGED_BY);
                let mark = format!("{}/{}", registration.namespace, registration.name);
                (managed && self.annotations.get(names::REGISTRATION_ANNOTATION) == Some(&mark))
                    .then_some(Owned::ByNobody)
            }
        }
    }
}

fn digest_of(revision: &Revision) -> Digest {
    match &revision.verifier {
        Verifier::ClientSecret(verifier) => verifier.sha256,
        Verifier::Certificate(verifier) => verifier.cert_sha256,
        Verifier::PublicKey(verifier) => verifier.spki_sha256,
    }
}

fn revision_of(credential: &ledger::Credential, value: &str) -> Option<u64> {
    let digest = Digest::of(value.as_bytes());
    credential.revisions.iter().find(|r| digest_of(r) == digest).map(|r| r.revision)
}

/// Invariant 11: what the schema allows of a status.
pub(super) fn assert_limits(status: &AppRegistrationStatus) {
    let mut types: Vec<_> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
    assert!(types.contains(&"Ready") && types.contains(&"Approved"), "{types:?}");
    assert!(!(types.contains(&"Stalled") && types.contains(&"Reconciling")), "{types:?}");
    types.dedup();
    assert_eq!(types.len(), status.conditions.len());
    for condition in &status.conditions {
        assert!(condition.message.chars().count() <= 1024, "a message of {} characters", condition.message.len());
        assert!(is_sentence(&condition.message), "a message in the middle of a sentence: {}", condition.message);
        let place = match condition.type_.as_str() {
            "Ready" => Sighting::Ready,
            "Approved" => Sighting::Approved,
            "Reconciling" => Sighting::Reconciling,
            _ => Sighting::Stalled,
        };
        assert!(is_documented(&condition.reason, place), "{} in {}", condition.reason, condition.type_);
    }
    assert!(status.credentials.len() <= 16 && status.secrets.len() <= 16);
}

/// Messages to people begin with a capital letter.
fn is_sentence(message: &str) -> bool {
    message.starts_with(|first: char| first.is_ascii_uppercase())
}

/// The reference says where a reason is seen.
fn is_documented(reason: &str, place: Sighting) -> bool {
    Reason::named(reason).is_some_and(|reason| reason.is_seen_in(place))
}

fn assert_told(notices: &[Notice]) {
    for Notice { reason, note, .. } in notices {
        assert!(is_sentence(note), "an Event in the middle of a sentence: {note}");
        assert!(is_documented(reason.as_str(), Sighting::Event), "an Event with {reason}");
    }
}

fn assert_planned(plan: &Plan) {
    let mints = plan.mints.iter().map(|mint| mint.reason);
    let steps = plan.steps.iter().flat_map(|step| match step {
        Step::Accept(accept) => {
            accept.given.iter().map(|change| change.reason).chain([accept.reason]).collect::<Vec<_>>()
        }
        Step::Publish(publish) => vec![publish.reason],
        Step::Retire(retire) => retire.revisions.iter().map(|(_, _, reason)| *reason).collect(),
        Step::Remove(_) => Vec::new(),
    });
    for reason in mints.chain(steps) {
        assert!(is_documented(reason.as_str(), Sighting::Plan), "a plan with {reason}");
    }
}
