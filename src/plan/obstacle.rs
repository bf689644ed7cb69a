//! What stands in the way of minting or taking up anything, whatever the reason to do so.

use jiff::Timestamp;

use crate::api::{self, KeyType, Kind, Reason};
use crate::policy::Beginning;
use crate::rotation::{self, CLOCK_TOLERANCE};

use super::Problem;
use super::checks::View;
use super::desired::Settings;
use super::facts::{Admission, Facts};
use super::ledger::Client;

/// The clock is over five minutes behind the newest mint: it cannot be believed.
pub(super) fn clock_is_behind(client: &Client, now: Timestamp) -> Option<Problem> {
    let newest = client.entry()?.newest_mint()?;
    (now < rotation::add(newest, -CLOCK_TOLERANCE)).then(|| {
        // Without the time of this pass: a report that says it would be another one at every pass.
        let text = format!(
            "The controller's clock is behind: the ledger has a credential that was minted at {newest}. Nothing is minted \
             until the clock of the controller's node is corrected"
        );
        Problem::new(Reason::ClockBehind, text)
    })
}

/// The registration is on its way out: nothing new is made for it, whoever holds the object.
pub(super) fn is_terminating(facts: &Facts) -> Option<Problem> {
    facts.registration.is_terminating.then(|| {
        Problem::new(
            Reason::Terminating,
            "The registration is being deleted: nothing is minted for it, and its client ends. See metadata.finalizers for who \
             holds the object",
        )
    })
}

/// Neither server nor policy stops what exists, but nothing new begins that they do not allow.
pub(super) fn credential_is_denied(
    name: &str,
    key_type: Option<KeyType>,
    kind: Kind,
    client: &Client,
    facts: &Facts,
) -> Option<Problem> {
    if client.credential(name, kind).is_some() {
        return None;
    }
    if let Admission::Closed(reason) = &facts.admission {
        let field = format!("spec.credentials[{name}]");
        return Some(Problem::of_field(Reason::ServerDenied, field, reason.clone()));
    }
    let registration = &facts.registration;
    let entries = registration.spec.effective_credentials();
    let exists = |entry: &api::Entry| entry.kind().is_some_and(|kind| client.credential(&entry.name, kind).is_some());
    let position = entries.iter().position(|entry| entry.name == name).unwrap_or(entries.len());
    let others = entries.iter().enumerate().filter(|(at, entry)| *at < position || exists(entry)).count();
    let credential = Beginning { entry: name, kind, key_type, others };
    let refusal = facts.governance.admits_credential(credential, registration.subject()).err()?;
    Some(refusal.into())
}

/// Whatever the policy says, a certificate needs somebody to sign it.
#[must_use]
pub(super) fn authority_is_missing(view: &View<'_>, facts: &Facts) -> Option<Problem> {
    let needs = matches!(view.desired.settings, Settings::Certificate { .. });
    (needs && facts.environment.authorities.all().is_empty()).then(|| {
        Problem::new(
            Reason::ServerUnavailable,
            "The authorization server has no certificate authority yet: the controller creates one, and retries",
        )
    })
}

/// Problems whose end no watch tells of.
pub(super) const fn needs_another_look(reason: Reason) -> bool {
    matches!(reason, Reason::SecretConflict | Reason::SecretImmutable | Reason::ServerUnavailable | Reason::ClockBehind)
}
