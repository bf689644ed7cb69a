//! The ledger's side of a plan: whose the client is, what is granted, what the entry shall be, what leaves it.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::api::{Kind, Reason, names};
use crate::credential::{Held, Shown};
use crate::ledger::{self, Credential, Entry, Grant, Owner, VERSION};
use crate::policy::{self, Decision};

use super::facts::{Admission, Facts, LedgerFact, Owned, Standing};
use super::{Accept, Draft, LedgerWrite, Problem, Retire, desired, obstacle};

/// The field with the name of the authorization server.
pub(super) const SERVER: &str = "spec.authorizationServerRef.name";

/// The client of a registration, and what the plan builds on.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// Its client ID.
    pub(super) id: String,
    base: Base,
}

#[derive(Clone, Debug)]
enum Base {
    /// There is no entry.
    New,
    /// This is the entry.
    Known { resource_version: String, entry: Box<Entry> },
    /// It is an entry of a former registration, with the credentials that still stand in a Secret.
    Adopted { resource_version: String, entry: Box<Entry> },
    /// It is an entry of a former registration; its name alone is kept.
    TakenOver { resource_version: String },
}

/// Why no client can be named.
#[derive(Clone, Debug)]
pub(super) enum Blocked {
    /// The registration's own uid must be confirmed first: another one's entry is about to be written.
    Confirm,
    /// These Secrets must be read first: their watch may lag behind a restore.
    Read(BTreeSet<String>),
    /// Something stands in the way.
    Problem(Problem),
}

impl Client {
    /// The entry whose credentials count.
    pub(super) fn entry(&self) -> Option<&Entry> {
        match &self.base {
            Base::Known { entry, .. } | Base::Adopted { entry, .. } => Some(entry),
            Base::New | Base::TakenOver { .. } => None,
        }
    }

    /// What the ledger has of a credential, if it is of this kind there.
    pub(super) fn credential(&self, name: &str, kind: Kind) -> Option<&Credential> {
        self.entry()?.credentials.get(name).filter(|credential| credential.kind == kind)
    }
}

/// The client of the registration.
pub(super) fn client(facts: &Facts, now: Timestamp) -> Result<Client, Blocked> {
    let registration = &facts.registration;
    let server = &facts.environment.server;
    let asked = registration.spec.authorization_server();
    if asked != server.name {
        let text = format!(
            "there is no authorization server {asked}: create it, or create this registration anew with another server"
        );
        return Err(Blocked::Problem(Problem::of_field(Reason::InvalidSpec, SERVER, text)));
    }
    if let Some(problem) = obstacle::is_terminating(facts)
        && !matches!(facts.ledger, LedgerFact::Held { standing: Standing::Ours, .. })
    {
        // Its client has ended already, or never came to be: it gets none in its last moments.
        return Err(Blocked::Problem(problem));
    }
    if let Admission::Unavailable(reason) = &facts.admission {
        return Err(Blocked::Problem(Problem::new(Reason::ServerUnavailable, reason.clone())));
    }
    let wanted = registration.spec.client_id.clone();
    let new_id = || wanted.clone().unwrap_or_else(|| registration.uid.clone());
    match &facts.ledger {
        LedgerFact::Absent => {
            admitted(facts)?;
            Ok(Client { id: new_id(), base: Base::New })
        }
        LedgerFact::Held { resource_version, entry, standing: Standing::Ours } => Ok(Client {
            id: entry.client_id.clone(),
            base: Base::Known { resource_version: resource_version.clone(), entry: entry.clone() },
        }),
        LedgerFact::Held { resource_version, entry, standing: Standing::Former } => {
            let is_meant = wanted.as_ref().is_none_or(|wanted| *wanted == entry.client_id);
            let adopts = is_meant && holds_a_value_of(facts, entry, now);
            if !adopts {
                let absent: BTreeSet<_> =
                    facts.secrets.iter().filter(|(_, s)| !s.is_live()).map(|(n, _)| n.clone()).collect();
                if is_meant && !absent.is_empty() {
                    return Err(Blocked::Read(absent));
                }
                admitted(facts)?;
                if wanted.is_none() || !is_meant {
                    return Ok(Client { id: new_id(), base: Base::New });
                }
            }
            if !registration.confirmed {
                return Err(Blocked::Confirm);
            }
            let resource_version = resource_version.clone();
            let base = if adopts {
                Base::Adopted { resource_version, entry: entry.clone() }
            } else {
                Base::TakenOver { resource_version }
            };
            Ok(Client { id: entry.client_id.clone(), base })
        }
        LedgerFact::Taken => {
            let id = wanted.unwrap_or_default();
            let text = format!("{id} belongs to another registration: create this one anew with another clientID");
            Err(Blocked::Problem(Problem::of_field(Reason::ClientIDTaken, "spec.clientID", text)))
        }
        LedgerFact::Unreadable(problem) => {
            let message = format!(
                "The ledger entry cannot be used, because {problem}: restore it from a backup, or delete it to start anew"
            );
            Err(Blocked::Problem(Problem::new(Reason::LedgerUnreadable, message)))
        }
    }
}

/// What is granted, with what was granted before.
pub(super) fn grant(facts: &Facts, client: &Client, now: Timestamp) -> Decision {
    let registration = &facts.registration;
    let none = Grant::default();
    let before = client.entry().map_or(&none, |entry| &entry.grant);
    // How it may authenticate is known when the credentials are.
    let mut decision = policy::evaluate(&registration.spec, registration.subject(), &facts.governance, before, now);
    if registration.is_terminating {
        // Withdrawals count to the end; nothing new does.
        decision.grant = decision.grant.within(before);
    }
    decision
}

/// The ledger entry as it shall be, if it is not so already.
///
/// A credential that comes to an existing client begins with a watermark: its name may have been another's, whose removal
/// has revoked the tokens that were had with it.
pub(super) fn accept(facts: &Facts, client: &Client, draft: &Draft, now: Timestamp) -> Option<Accept> {
    let registration = &facts.registration;
    let mut entry = client.entry().cloned().unwrap_or_else(|| Entry {
        version: VERSION,
        server: facts.environment.server.name.clone(),
        client_id: client.id.clone(),
        owner: owner(facts),
        created_at: now,
        revoked_before: None,
        deletion_policy: registration.spec.deletion_policy.unwrap_or_default(),
        grant: Grant::default(),
        credentials: std::collections::BTreeMap::new(),
        remote: None,
    });
    entry.owner = owner(facts);
    entry.deletion_policy = registration.spec.deletion_policy.unwrap_or_default();
    entry.grant = draft.decision.grant.clone();
    entry.revoked_before = entry.revoked_before.max(desired::revoked_before(registration, now));
    for (desired, verdict) in &draft.verdicts {
        let kind = desired.settings.kind();
        let exists = entry.credentials.get(&desired.name).is_some_and(|credential| credential.kind == kind);
        if !exists && verdict.mint.is_none() {
            continue;
        }
        if !exists {
            let revoked_before = client.entry().map(|_| now);
            entry.credentials.insert(desired.name.clone(), Credential { revoked_before, ..Credential::new(kind) });
        }
        let Some(credential) = entry.credentials.get_mut(&desired.name) else { continue };
        // Tokens that were had with a revoked client secret or certificate are as revoked as it is.
        if let Some(mark) = desired.revoke_before {
            credential.revoke(mark, now);
        }
        if let Some(mint) = verdict.mint.as_ref().filter(|mint| mint.revision > 0) {
            credential.next_revision = mint.revision.saturating_add(1);
            credential.revisions.retain(|r| !r.is_expired(now) && Some(r.revision) != verdict.evict);
        }
    }
    let given = take_up(client, draft, &mut entry, now);
    let (write, reason) = match &client.base {
        Base::New => (LedgerWrite::Create, Reason::FirstMint),
        Base::Known { resource_version, entry: before } => {
            if **before == entry {
                return None;
            }
            let minted = draft.verdicts.iter().find_map(|(_, verdict)| verdict.mint.as_ref().map(|mint| mint.reason));
            let reason = match minted.or_else(|| given.first().map(|change| change.reason)) {
                Some(reason) => reason,
                None if before.grant == entry.grant => Reason::SpecChanged,
                None => Reason::GrantChanged,
            };
            (LedgerWrite::Replace { resource_version: resource_version.clone() }, reason)
        }
        Base::Adopted { resource_version, .. } => {
            (LedgerWrite::Replace { resource_version: resource_version.clone() }, Reason::Adopted)
        }
        Base::TakenOver { resource_version } => {
            (LedgerWrite::Replace { resource_version: resource_version.clone() }, Reason::TakenOver)
        }
    };
    Some(Accept { write, entry, given, reason })
}

/// Puts what is given into the entry, as the verdicts say, and returns what changes.
fn take_up(client: &Client, draft: &Draft, entry: &mut Entry, now: Timestamp) -> Vec<super::Change> {
    let mut given = Vec::new();
    for (wanted, verdict) in &draft.given {
        let Some(credential) = &verdict.credential else { continue };
        let mut credential = credential.clone();
        let exists = entry.credentials.get(&wanted.name).is_some_and(|before| before.kind == credential.kind);
        if !exists && client.entry().is_some() {
            // A pod's own token may be older than the entry that lets it in; access tokens of a former entry may not.
            let is_service_account = credential.kind == Kind::ServiceAccount;
            let mark =
                if is_service_account { &mut credential.tokens_revoked_before } else { &mut credential.revoked_before };
            *mark = (*mark).max(Some(now));
        }
        entry.credentials.insert(wanted.name.clone(), credential);
        given.extend(verdict.changes.iter().cloned());
    }
    given
}

/// What leaves the ledger once the Secrets are written.
pub(super) fn retire(client: &Client, draft: &Draft, accepts: bool) -> Option<Retire> {
    let entry = client.entry()?;
    let revisions: Vec<_> = draft
        .verdicts
        .iter()
        .flat_map(|(desired, verdict)| verdict.drop.iter().map(|(r, reason)| (desired.name.clone(), *r, *reason)))
        .collect();
    let is_gone = |name: &str, credential: &Credential| {
        let now_another = draft.verdicts.iter().find(|(desired, _)| desired.name == name);
        let now_given = draft.given.iter().find(|(given, _)| given.name == name);
        // What is minted or taken up under another kind has replaced it already.
        !draft.resolved.names.contains(name)
            || now_another.is_some_and(|(d, verdict)| d.settings.kind() != credential.kind && verdict.mint.is_none())
            || now_given.is_some_and(|(g, verdict)| g.kind() != credential.kind && verdict.credential.is_none())
    };
    let entries: Vec<_> = entry
        .credentials
        .iter()
        .filter(|(name, credential)| is_gone(name, credential))
        .map(|(name, _)| name.clone())
        .collect();
    if revisions.is_empty() && entries.is_empty() {
        return None;
    }
    let resource_version = match &client.base {
        Base::Known { resource_version, .. } if !accepts => Some(resource_version.clone()),
        Base::New | Base::Known { .. } | Base::Adopted { .. } | Base::TakenOver { .. } => None,
    };
    Some(Retire { resource_version, revisions, entries })
}

fn owner(facts: &Facts) -> Owner {
    let registration = &facts.registration;
    Owner { namespace: registration.namespace.clone(), name: registration.name.clone(), uid: registration.uid.clone() }
}

/// Whether the server and the policies let the client come to be.
fn admitted(facts: &Facts) -> Result<(), Blocked> {
    if let Admission::Closed(reason) = &facts.admission {
        return Err(Blocked::Problem(Problem::of_field(Reason::ServerDenied, SERVER, reason.clone())));
    }
    let registration = &facts.registration;
    let admitted = facts.governance.admits_client(registration.spec.client_id.as_deref(), registration.subject());
    admitted.map_err(|refusal| Blocked::Problem(refusal.into()))
}

/// Whether a Secret that is marked as this registration's, and that nobody owns, holds a live value of the entry: the
/// registration was restored from a backup, or let go of its Secret on purpose.
fn holds_a_value_of(facts: &Facts, entry: &Entry, now: Timestamp) -> bool {
    let mark = format!("{}/{}", facts.registration.namespace, facts.registration.name);
    facts.secrets.values().filter_map(|secret| secret.ours()).any(|secret| {
        secret.owned == Owned::ByNobody
            && secret.annotations.get(names::REGISTRATION_ANNOTATION) == Some(&mark)
            && secret.contents.iter().flat_map(|contents| &contents.shown).any(|(name, shown)| {
                let revision = match shown {
                    Shown::ClientSecret { current: Held::Revision(r), .. }
                    | Shown::Certificate { current: Held::Revision(r), .. } => *r,
                    Shown::ClientSecret { .. } | Shown::Certificate { .. } | Shown::AccessToken(_) => return false,
                };
                entry
                    .credentials
                    .get(name)
                    .and_then(|credential| credential.revision(revision))
                    .is_some_and(|revision: &ledger::Revision| !revision.is_expired(now))
            })
    })
}
