//! Every decision as readable text: a situation, a time, and the whole story until nothing is left to do.
//!
//! [`check`] prints each pass, then the requests that it all cost. It also holds every end to be a fixpoint: the same
//! decision later, up to the next wake, does nothing and reports the same.

#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]
#![expect(clippy::needless_pass_by_value, reason = "a case reads as one sentence")]

mod given;
mod governed;
mod servers;

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use jiff::{SignedDuration, Timestamp};

use super::facts::{self, Facts};
use super::model::{Memory, Stored, UID, World, at};
use super::{Failure, Look, Order, Plan, after_failure, decide, notices};
use crate::api::{
    AccessToken, ApiAccess, ApiRule, AppRegistrationSpec, AuthorizationServerRef, Certificate, ClientSecret,
    ClientType, CustomerScope, CustomerScopeType, DeletionPolicy, Entry, KeyType, OnViolation, Reason,
    RegistrationPolicySpec, SecretField, SecretTemplate, names,
};
use crate::credential::field;
use crate::ledger::{self, Unreadable};
use crate::rotation;

/// A situation: written down as a sentence, brought about by the model.
struct Case {
    world: World,
    memory: Memory,
    /// When it is issued, until it is.
    issue_at: Option<Timestamp>,
    now: Timestamp,
    alter: Option<fn(&mut Facts)>,
}

/// A registration that was just applied, with the default credentials.
fn applied(name: &str) -> Case {
    let now = at("2026-01-01");
    Case { world: World::new(name), memory: Memory::default(), issue_at: None, now, alter: None }
}

/// A registration with one client secret `web`, issued on that day.
fn issued(name: &str, day: &str) -> Case {
    let mut case = applied(name).asking(vec![client_secret("web")]);
    case.issue_at = Some(at(day));
    case
}

/// A registration with these credentials, issued on that day.
fn issued_with(name: &str, day: &str, entries: Vec<Entry>) -> Case {
    let mut case = applied(name).asking(entries);
    case.issue_at = Some(at(day));
    case
}

fn client_secret(name: &str) -> Entry {
    Entry { name: name.into(), client_secret: Some(ClientSecret {}), ..Entry::default() }
}

fn certificate(name: &str, dns_names: &[&str]) -> Entry {
    let dns_names = dns_names.iter().map(|n| (*n).to_owned()).collect();
    Entry { name: name.into(), certificate: Some(Certificate { private_key: None, dns_names }), ..Entry::default() }
}

fn token(name: &str, scopes: &[&str]) -> Entry {
    let scopes = scopes.iter().map(|s| (*s).to_owned()).collect();
    Entry { name: name.into(), access_token: Some(AccessToken { scopes, audience: None }), ..Entry::default() }
}

impl Case {
    fn asking(mut self, entries: Vec<Entry>) -> Self {
        self.world.registration.spec.credentials = Some(entries);
        self
    }

    fn spec(mut self, edit: impl FnOnce(&mut AppRegistrationSpec)) -> Self {
        edit(&mut self.world.registration.spec);
        self
    }

    fn lives(self, duration: &str) -> Self {
        self.spec(|spec| entries(spec)[0].effective_duration = Some(duration.into()))
    }

    fn renew_before(self, duration: &str) -> Self {
        self.spec(|spec| entries(spec)[0].renew_before = Some(duration.into()))
    }

    /// Brings it about.
    fn settled(mut self) -> Self {
        if let Some(issued) = self.issue_at.take() {
            self.now = issued;
            self.world.converge(&mut self.memory, issued);
            self.world.requests.clear();
        }
        self
    }

    /// Time passes, and the controller does what is due then.
    fn later(self, time: &str) -> Self {
        let mut case = self.settled();
        case.now = at(time);
        case.world.converge(&mut case.memory, case.now);
        case.world.requests.clear();
        case
    }

    fn edited(self, edit: impl FnOnce(&mut AppRegistrationSpec)) -> Self {
        let mut case = self.settled();
        case.world.edit_spec(edit);
        case
    }

    fn annotated(self, name: &str, value: &str) -> Self {
        let mut case = self.settled();
        case.world.registration.annotations.insert(name.into(), value.into());
        case
    }

    fn with_secret_deleted(self, name: &str) -> Self {
        let mut case = self.settled();
        case.world.delete_secret(name, case.now);
        case
    }

    fn with_secret(self, name: &str, edit: impl FnOnce(&mut Stored)) -> Self {
        let mut case = self.settled();
        let now = case.now;
        case.world.by_hand(name, now, edit);
        case
    }

    fn with_foreign_secret(mut self, name: &str) -> Self {
        let stored = Stored {
            uid: "foreign".into(),
            version: 7,
            type_: "Opaque".into(),
            immutable: false,
            only_ours: false,
            controller: None,
            labels: [].into(),
            annotations: [].into(),
            data: [("password".to_owned(), "theirs".to_owned())].into(),
        };
        self.world.secrets.insert(name.into(), stored);
        self
    }

    fn with_ledger(self, edit: impl FnOnce(&mut ledger::Entry)) -> Self {
        let mut case = self.settled();
        for (_, entry) in case.world.ledger.values_mut() {
            if entry.owner.uid == case.world.registration.uid {
                edit(entry);
                break;
            }
        }
        case
    }

    fn with_ledger_lost(self) -> Self {
        let mut case = self.settled();
        case.world.ledger.clear();
        case.world.record = super::model::Record::default();
        case
    }

    fn environment(self, edit: impl FnOnce(&mut super::facts::Environment)) -> Self {
        let mut case = self.settled();
        edit(&mut case.world.environment);
        case
    }

    /// Deleted and created again, or restored: another uid, no status.
    fn with_uid(self, uid: &str) -> Self {
        let mut case = self.settled();
        case.world.registration.uid = uid.into();
        case.world.registration.status = crate::api::AppRegistrationStatus::default();
        case.memory = Memory::default();
        case
    }

    fn restarted(self) -> Self {
        let mut case = self.settled();
        case.memory = Memory::default();
        case
    }

    /// The plan, after the reads that it asks for.
    fn decided(&self, now: Timestamp) -> Plan {
        let mut look = Look::default();
        loop {
            let plan = decide(&self.facts(&look), now);
            if plan.look.secrets.is_subset(&look.secrets) && (look.registration || !plan.look.registration) {
                return plan;
            }
            look.registration |= plan.look.registration;
            look.secrets.extend(plan.look.secrets);
        }
    }

    fn facts(&self, look: &Look) -> Facts {
        let mut facts = self.world.facts(&self.world, &self.memory, look);
        if let Some(alter) = self.alter {
            alter(&mut facts);
        }
        facts
    }
}

fn entries(spec: &mut AppRegistrationSpec) -> &mut Vec<Entry> {
    spec.credentials.as_mut().expect("written credentials")
}

/// The whole story from this time on, as text.
fn check(case: Case, now: &str, expected: Expect) {
    let mut case = case.settled();
    let now = at(now);
    let plans = case.world.converge(&mut case.memory, now);
    let told = |plan: &Plan| -> String {
        let all: Vec<_> = (0..plan.steps.len()).collect();
        notices(plan, &all).iter().map(|n| format!("Event {}: {}\n", n.reason, n.note)).collect::<Vec<_>>().concat()
    };
    let mut text = plans.iter().map(|plan| format!("{plan}{}", told(plan))).collect::<Vec<_>>().join("--\n");
    let rest = case.decided(now);
    if plans.is_empty() {
        text = rest.to_string();
    }
    let requests = std::mem::take(&mut case.world.requests);
    let requests = if requests.is_empty() { "nothing".to_owned() } else { requests.join(", ") };
    let _ = writeln!(text, "= {requests}");
    expected.assert_eq(&text);
    assert_is_fixpoint(&case, &rest, now);
}

/// What is decided without anything being done: for facts that the model cannot bring about.
fn check_decision(mut case: Case, now: &str, alter: fn(&mut Facts), expected: Expect) {
    case = case.settled();
    case.alter = Some(alter);
    let plan = decide(&case.facts(&Look::default()), at(now));
    expected.assert_eq(&plan.to_string());
}

fn assert_is_fixpoint(case: &Case, rest: &Plan, now: Timestamp) {
    assert!(rest.is_at_rest(), "not at rest:\n{rest}");
    assert_eq!(rest.status, case.world.registration.status, "the status is not a fixpoint");
    let until = rest.wake.unwrap_or(rotation::add(now, SignedDuration::from_hours(24 * 365)));
    assert!(until > now, "wakes in the past: {until}");
    let second = SignedDuration::from_secs(1);
    for later in [rotation::add(now, second), rotation::add(until, -second)] {
        if now < later && later < until {
            let plan = case.decided(later);
            assert!(plan.is_at_rest(), "at {later}, before the wake:\n{plan}");
            assert_eq!(plan.status, rest.status, "the status moves with time alone, at {later}");
            assert_eq!(
                plan.wake.filter(|_| rest_is_unobstructed(rest)),
                rest.wake.filter(|_| rest_is_unobstructed(rest))
            );
        }
    }
    let mut memory = Memory::default();
    let mut world = case.world.clone();
    if rest_is_unobstructed(rest) {
        world.requests.clear();
        assert!(
            world.converge(&mut memory, now).is_empty() && world.requests.is_empty(),
            "a restart costs {:?}",
            world.requests
        );
    }
}

fn rest_is_unobstructed(rest: &Plan) -> bool {
    rest.status.conditions.iter().all(|c| c.type_ != "Stalled" && c.type_ != "Reconciling")
}

#[test]
fn a_registration_with_a_name_alone_gets_a_client_secret_and_a_token_without_a_read() {
    check(
        applied("billing"),
        "2026-01-01",
        expect![[r#"
        mint clientSecret `default` revision 1  2026-01-01T00:00:00Z … 2026-04-01T00:00:00Z  FirstMint
        mint accessToken `token`  2026-01-01T00:00:00Z … 2026-01-01T01:00:00Z  FirstMint
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
        publish billing (create)  FirstMint
          client_secret ← minted for `default`
        publish billing-token (create)  FirstMint
          access_token ← minted for `token`
        Ready=True Issued
        Approved=True Granted
        wake 2026-01-01T00:35:02Z
        = POST ledger, POST Secret billing, POST Secret billing-token, PUT status
    "#]],
    );
}

#[test]
fn a_foreign_secret_of_the_same_name_is_left_alone_and_the_rest_is_made() {
    check(
        applied("billing").with_foreign_secret("billing"),
        "2026-01-01",
        expect![[r#"
            mint accessToken `token`  2026-01-01T00:00:00Z … 2026-01-01T01:00:00Z  FirstMint
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            publish billing-token (create)  FirstMint
              access_token ← minted for `token`
            Ready=False SecretConflict: Field spec.credentials[default].secretName: the Secret billing exists and is not this registration's: delete it, or choose another name
            Approved=True Granted
            Stalled=True SecretConflict: Field spec.credentials[default].secretName: the Secret billing exists and is not this registration's: delete it, or choose another name
            wake 2026-01-01T00:05:00Z
            = POST ledger, POST Secret billing-token, PUT status
        "#]],
    );
}

#[test]
fn a_public_client_is_a_ledger_entry_and_nothing_else() {
    check(
        applied("billing").asking(vec![]),
        "2026-01-01",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            Ready=False InvalidSpec: Field spec.credentials: must not be empty: set clientType: Public for a client without credentials, or leave credentials out for a client secret and an access token
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials: must not be empty: set clientType: Public for a client without credentials, or leave credentials out for a client secret and an access token
            wake never
            = POST ledger, PUT status
        "#]],
    );
}

#[test]
fn at_rest_nothing_is_asked_for() {
    check(
        issued("billing", "2026-01-01").lives("90d").renew_before("30d"),
        "2026-01-20",
        expect![[r#"
        Ready=True Issued
        Approved=True Granted
        wake 2026-02-25T03:22:44Z
        = nothing
    "#]],
    );
}

#[test]
fn rotates_a_client_secret_inside_its_renewal_window() {
    check(
        issued("billing", "2026-01-01").lives("90d").renew_before("30d"),
        "2026-03-05",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-03-05T00:00:00Z … 2026-06-03T00:00:00Z  RenewalDue
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RenewalDue
            publish billing (replace)  RenewalDue
              client_secret ← minted for `web`
              previous_client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-04-30T10:58:55Z
            Event RenewalDue: Credential web was replaced by revision 2, which is valid until 2026-06-03T00:00:00Z. The renewal time of the credential has come
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_scheduled_rotation_ends_at_the_old_ones_end_without_a_write() {
    let case = issued("billing", "2026-01-01").lives("90d").renew_before("30d").later("2026-03-01");
    check(
        case,
        "2026-04-02",
        expect![[r#"
        Ready=True Issued
        Approved=True Granted
        wake 2026-04-26T10:58:55Z
        = nothing
    "#]],
    );
}

#[test]
fn a_forced_rotation_keeps_the_old_one_for_the_overlap() {
    let case = issued("billing", "2026-01-01").lives("90d").renew_before("10d").later("2026-01-05");
    let case = case.edited(|spec| spec.rotate_minted_before = Some("2026-01-05T12:00:00Z".into()));
    check(
        case,
        "2026-01-05T12:00:00Z",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-01-05T12:00:00Z … 2026-04-05T12:00:00Z  RotationRequested
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RotationRequested
            publish billing (replace)  RotationRequested
              client_secret ← minted for `web`
              previous_client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-01-24T12:00:00Z
            Event RotationRequested: Credential web was replaced by revision 2, which is valid until 2026-04-05T12:00:00Z. Someone requested a rotation by rotateMintedBefore
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn after_the_overlap_the_secret_is_written_without_the_old_one_and_then_it_leaves_the_ledger() {
    let case = issued("billing", "2026-01-01").lives("90d").renew_before("10d").later("2026-01-05");
    let case = case.edited(|spec| spec.rotate_minted_before = Some("2026-01-05T12:00:00Z".into()));
    check(
        case.later("2026-01-05T12:00:00Z"),
        "2026-01-25T00:00:00Z",
        expect![[r#"
        look at Secret billing
        --
        publish billing (replace)  OverlapEnded
          client_secret ← held client_secret
        retire `web` revision 1 OverlapEnded
        Ready=True Issued
        Approved=True Granted
        wake 2026-03-22T22:58:55Z
        = GET Secret billing, PUT Secret billing, PUT ledger, PUT status
    "#]],
    );
}

#[test]
fn a_rotation_that_was_honoured_is_not_repeated() {
    let case =
        issued("billing", "2026-01-01").edited(|spec| spec.rotate_minted_before = Some("2026-01-01T00:00:00Z".into()));
    check(
        case,
        "2026-01-05",
        expect![[r#"
        Ready=True Issued
        Approved=True Granted
        wake 2026-02-25T03:22:44Z
        = PUT status
    "#]],
    );
}

#[test]
fn a_shortened_duration_makes_the_renewal_due() {
    let case = issued("billing", "2026-01-01").lives("365d").edited(|spec| {
        entries(spec)[0].effective_duration = Some("30d".into());
    });
    check(
        case,
        "2026-01-25",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-01-25T00:00:00Z … 2026-02-24T00:00:00Z  DurationShortened
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  DurationShortened
            publish billing (replace)  DurationShortened
              client_secret ← minted for `web`
              previous_client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-07T00:00:00Z
            Event DurationShortened: Credential web was replaced by revision 2, which is valid until 2026-02-24T00:00:00Z. The effective duration was shortened, so the credential was replaced earlier
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_lengthened_duration_extends_nothing_already_out() {
    let case = issued("billing", "2026-01-01").lives("30d").renew_before("10d").edited(|spec| {
        entries(spec)[0].effective_duration = Some("365d".into());
    });
    check(
        case,
        "2026-01-05",
        expect![[r#"
        Ready=True Issued
        Approved=True Granted
        wake 2026-01-19T09:07:35Z
        = PUT status
    "#]],
    );
}

#[test]
fn a_watermark_in_the_future_sets_a_wake_and_nothing_else() {
    let case =
        issued("billing", "2026-01-01").edited(|spec| spec.revoke_minted_before = Some("2026-01-20T00:00:00Z".into()));
    check(
        case,
        "2026-01-10",
        expect![[r#"
        Ready=True Issued
        Approved=True Granted
        wake 2026-01-20T00:00:00Z
        = PUT status
    "#]],
    );
}

#[test]
fn a_revocation_adds_the_new_one_publishes_it_alone_and_drops_the_old() {
    let case =
        issued("billing", "2026-01-01").edited(|spec| spec.revoke_minted_before = Some("2026-01-10T00:00:00Z".into()));
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  RevocationRequested
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RevocationRequested
            publish billing (replace)  RevocationRequested
              client_secret ← minted for `web`
            retire `web` revision 1 Revoked
            Ready=True Issued
            Approved=True Granted
            wake 2026-03-07T10:58:55Z
            Event RevocationRequested: Credential web was revoked and replaced by revision 2, which is valid until 2026-04-10T00:00:00Z. Someone requested a revocation by revokeMintedBefore
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn a_revocation_of_one_entry_leaves_the_others_alone() {
    let mut other = client_secret("batch");
    other.secret_name = Some("billing-batch".into());
    let case = issued_with("billing", "2026-01-01", vec![client_secret("web"), other])
        .edited(|spec| entries(spec)[1].revoke_minted_before = Some("2026-01-10T00:00:00Z".into()));
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing-batch
            --
            mint clientSecret `batch` revision 2  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  RevocationRequested
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RevocationRequested
            publish billing-batch (replace)  RevocationRequested
              client_secret ← minted for `batch`
            retire `batch` revision 1 Revoked
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-25T03:22:44Z
            Event RevocationRequested: Credential batch was revoked and replaced by revision 2, which is valid until 2026-04-10T00:00:00Z. Someone requested a revocation by revokeMintedBefore
            = GET Secret billing-batch, PUT ledger, PUT Secret billing-batch, PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn an_annotation_rotates_all_entries() {
    let case =
        issued("billing", "2026-01-01").annotated(names::ROTATE_MINTED_BEFORE_ANNOTATION, "2026-01-10T01:00:00+01:00");
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  RotationRequested
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RotationRequested
            publish billing (replace)  RotationRequested
              client_secret ← minted for `web`
              previous_client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-18T00:00:00Z
            Event RotationRequested: Credential web was replaced by revision 2, which is valid until 2026-04-10T00:00:00Z. Someone requested a rotation by rotateMintedBefore
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn an_annotation_revokes_one_entry_by_name() {
    let mut other = client_secret("batch");
    other.secret_name = Some("billing-batch".into());
    let case = issued_with("billing", "2026-01-01", vec![client_secret("web"), other])
        .annotated(names::REVOKE_MINTED_BEFORE_ANNOTATION, "batch=2026-01-10T00:00:00Z, web=2026-02-01T00:00:00Z");
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing-batch
            --
            mint clientSecret `batch` revision 2  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  RevocationRequested
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RevocationRequested
            publish billing-batch (replace)  RevocationRequested
              client_secret ← minted for `batch`
            retire `batch` revision 1 Revoked
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-01T00:00:00Z
            Event RevocationRequested: Credential batch was revoked and replaced by revision 2, which is valid until 2026-04-10T00:00:00Z. Someone requested a revocation by revokeMintedBefore
            = GET Secret billing-batch, PUT ledger, PUT Secret billing-batch, PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn a_revocation_that_has_come_is_not_held_up_by_a_later_one() {
    let case = issued("billing", "2026-01-01").edited(|spec| {
        spec.revoke_minted_before = Some("2026-01-10T00:00:00Z".into());
        entries(spec)[0].revoke_minted_before = Some("2026-06-01T00:00:00Z".into());
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  RevocationRequested
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RevocationRequested
            publish billing (replace)  RevocationRequested
              client_secret ← minted for `web`
            retire `web` revision 1 Revoked
            Ready=True Issued
            Approved=True Granted
            wake 2026-03-07T10:58:55Z
            Event RevocationRequested: Credential web was revoked and replaced by revision 2, which is valid until 2026-04-10T00:00:00Z. Someone requested a revocation by revokeMintedBefore
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn a_watermark_within_a_second_comes_with_the_next_whole_second() {
    let case = issued("billing", "2026-01-01")
        .edited(|spec| spec.rotate_minted_before = Some("2026-01-10T00:00:00.5Z".into()));
    check(
        case,
        "2026-01-10T00:00:00Z",
        expect![[r#"
        Ready=True Issued
        Approved=True Granted
        wake 2026-01-10T00:00:01Z
        = PUT status
    "#]],
    );
}

#[test]
fn a_revocation_drops_even_where_nothing_can_be_minted() {
    let case = issued("billing", "2026-01-01")
        .with_secret("billing", |secret| secret.immutable = true)
        .edited(|spec| spec.revoke_minted_before = Some("2026-01-10T00:00:00Z".into()));
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SpecChanged
            retire `web` revision 1 Revoked
            Ready=False SecretImmutable: Field spec.credentials[web].secretName: the Secret billing is immutable: delete it, and it is made anew
            Approved=True Granted
            Stalled=True SecretImmutable: Field spec.credentials[web].secretName: the Secret billing is immutable: delete it, and it is made anew
            wake 2026-01-10T00:05:00Z
            --
            look at Secret billing
            = GET Secret billing, PUT ledger, PUT ledger, PUT status, GET Secret billing
        "#]],
    );
}

#[test]
fn a_malformed_watermark_is_named_and_does_nothing() {
    let case = issued("billing", "2026-01-01").annotated(names::REVOKE_MINTED_BEFORE_ANNOTATION, "web=yesterday");
    check(
        case,
        "2026-01-10",
        expect![[r#"
            Ready=True Issued
            Approved=True Granted
            Stalled=True InvalidSpec: Field metadata.annotations[appreg.dev/revoke-minted-before]: must be an RFC 3339 time with an offset: write it like 2026-11-22T07:00:00Z or 2026-11-22T08:00:00+01:00
            wake 2026-02-25T03:22:44Z
            = PUT status
        "#]],
    );
}

#[test]
fn an_unknown_value_is_replaced_and_nothing_is_shown_as_previous() {
    let case = issued("billing", "2026-01-01").with_secret("billing", |secret| {
        secret.data.insert(field::CLIENT_SECRET.into(), "by hand".into());
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  SecretChanged
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SecretChanged
            publish billing (replace)  SecretChanged
              client_secret ← minted for `web`
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-18T00:00:00Z
            Event SecretChanged: Credential web was replaced by revision 2, which is valid until 2026-04-10T00:00:00Z. Someone changed the Secret: it held a value that the ledger does not know, or that is not accepted any more
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn an_older_value_put_back_by_hand_is_current_and_the_newer_one_gets_its_overlap() {
    let case = issued("billing", "2026-01-01").lives("365d").renew_before("20d");
    let case = case.settled();
    let old = case.world.secrets["billing"].data[field::CLIENT_SECRET].clone();
    let case = case
        .edited(|spec| spec.rotate_minted_before = Some("2026-01-05T00:00:00Z".into()))
        .later("2026-01-05")
        .edited(|spec| spec.rotate_minted_before = None)
        .later("2026-02-20")
        .with_secret("billing", |secret| {
            secret.data.insert(field::CLIENT_SECRET.into(), old);
        });
    check(
        case,
        "2026-02-20",
        expect![[r#"
            look at Secret billing
            --
            publish billing (replace)  SecretChanged
              client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-04-17T12:00:00Z
            Event SecretChanged: The Secret billing was repaired: a field, label or annotation was missing or changed
            = GET Secret billing, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_removed_field_is_minted_anew() {
    let case = issued("billing", "2026-01-01").with_secret("billing", |secret| {
        secret.data.remove(field::CLIENT_SECRET);
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  FieldMissing
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  FieldMissing
            publish billing (replace)  FieldMissing
              client_secret ← minted for `web`
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-18T00:00:00Z
            Event FieldMissing: Credential web was replaced by revision 2, which is valid until 2026-04-10T00:00:00Z. A field, label or annotation of the Secret was missing or different, and was written again
            Event FieldMissing: The Secret billing was repaired: a field, label or annotation was missing or changed
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_removed_public_field_is_written_again_with_the_value_that_is_held() {
    let case = issued("billing", "2026-01-01").with_secret("billing", |secret| {
        secret.data.remove(field::TOKEN_ENDPOINT);
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            publish billing (replace)  FieldMissing
              client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-25T03:22:44Z
            Event FieldMissing: The Secret billing was repaired: a field, label or annotation was missing or changed
            = GET Secret billing, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn an_edited_authority_is_written_again_beside_its_certificate() {
    let case = issued_with("billing", "2026-01-01", vec![certificate("mtls", &[])]).with_secret("billing", |secret| {
        secret.data.insert(field::CA.into(), "edited".into());
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            publish billing (replace)  FieldMissing
              tls.crt ← held tls.crt
              tls.key ← held tls.key
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-21T06:27:32Z
            Event FieldMissing: The Secret billing was repaired: a field, label or annotation was missing or changed
            = GET Secret billing, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn what_is_said_of_a_token_is_written_again_as_the_token_says_it() {
    let case = issued_with("billing", "2026-01-01", vec![token("api", &[])]).with_secret("billing-token", |secret| {
        secret.data.insert(field::EXPIRES_AT.into(), "9999999999".into());
    });
    expect![[r#"
        publish billing-token (replace)  FieldMissing
          access_token ← held access_token
        Ready=True Issued
        Approved=True Granted
        wake 2026-01-01T00:37:10Z
    "#]]
    .assert_eq(&case.decided(at("2026-01-01T00:01:00Z")).to_string());
}

#[test]
fn stripped_marks_are_written_again_with_the_value_that_is_held() {
    let case = issued("billing", "2026-01-01").with_secret("billing", |secret| {
        secret.labels.clear();
        secret.annotations.clear();
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            publish billing (replace)  FieldMissing
              client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-25T03:22:44Z
            Event FieldMissing: The Secret billing was repaired: a field, label or annotation was missing or changed
            = GET Secret billing, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_stripped_owner_is_written_again() {
    let case = issued("billing", "2026-01-01").with_secret("billing", |secret| secret.controller = None);
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            publish billing (replace)  FieldMissing
              client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-25T03:22:44Z
            Event FieldMissing: The Secret billing was repaired: a field, label or annotation was missing or changed
            = GET Secret billing, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn while_a_namespace_is_being_deleted_what_is_there_is_rotated_and_what_is_gone_is_not_made_again() {
    let case = issued_with("billing", "2026-01-01", vec![client_secret("web"), token("api", &[])]);
    let case = case.with_secret_deleted("billing-token");
    let ending = |mut case: Case| {
        case.world.registration.namespace_is_terminating = true;
        case
    };
    check(
        ending(case),
        "2026-01-02",
        expect![[r#"
            Ready=False NamespaceTerminating: Field spec.credentials[api].secretName: the Secret billing-token cannot be created, because the namespace is being deleted: create the registration in another namespace
            Approved=True Granted
            Reconciling=True NamespaceTerminating: Field spec.credentials[api].secretName: the Secret billing-token cannot be created, because the namespace is being deleted: create the registration in another namespace
            wake 2026-02-25T03:22:44Z
            = PUT status
        "#]],
    );
    let due = ending(issued("billing", "2026-01-01").settled());
    check(
        due,
        "2026-03-05",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-03-05T00:00:00Z … 2026-06-03T00:00:00Z  RenewalDue
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RenewalDue
            publish billing (replace)  RenewalDue
              client_secret ← minted for `web`
              previous_client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-04-30T10:58:55Z
            Event RenewalDue: Credential web was replaced by revision 2, which is valid until 2026-06-03T00:00:00Z. The renewal time of the credential has come
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn an_immutable_secret_needs_a_person() {
    let case = issued("billing", "2026-01-01").with_secret("billing", |secret| secret.immutable = true);
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            Ready=True Issued
            Approved=True Granted
            Stalled=True SecretImmutable: Field spec.credentials[web].secretName: the Secret billing is immutable: delete it, and it is made anew
            wake 2026-01-10T00:05:00Z
            --
            look at Secret billing
            = GET Secret billing, PUT status, GET Secret billing
        "#]],
    );
}

#[test]
fn a_secret_of_another_type_needs_a_person() {
    let case =
        issued("billing", "2026-01-01").with_secret("billing", |secret| secret.type_ = "kubernetes.io/tls".into());
    check(
        case,
        "2026-03-25",
        expect![[r#"
            look at Secret billing
            --
            Ready=True Issued
            Approved=True Granted
            Stalled=True SecretConflict: Field spec.credentials[web].secretName: the Secret billing has the type kubernetes.io/tls and not Opaque: delete it, and it is made anew
            wake 2026-03-25T00:05:00Z
            --
            look at Secret billing
            = GET Secret billing, PUT status, GET Secret billing
        "#]],
    );
}

#[test]
fn a_deleted_secret_is_made_with_the_next_revision() {
    check(
        issued("billing", "2026-01-01").with_secret_deleted("billing"),
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  SecretDeleted
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SecretDeleted
            publish billing (create)  SecretDeleted
              client_secret ← minted for `web`
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-18T00:00:00Z
            Event SecretDeleted: Credential web was replaced by revision 2, which is valid until 2026-04-10T00:00:00Z. Someone deleted the Secret, so it was created again with a new credential
            = GET Secret billing, PUT ledger, POST Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_lost_ledger_makes_everything_anew_and_trusts_nothing() {
    let case = issued_with("billing", "2026-01-01", vec![client_secret("web"), token("api", &[])]).with_ledger_lost();
    check(
        case,
        "2026-01-01T00:10:00Z",
        expect![[r#"
        look at Secret billing
        --
        mint clientSecret `web` revision 1  2026-01-01T00:10:00Z … 2026-04-01T00:10:00Z  FirstMint
        mint accessToken `api`  2026-01-01T00:10:00Z … 2026-01-01T01:10:00Z  FirstMint
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
        publish billing (replace)  FirstMint
          client_secret ← minted for `web`
        publish billing-token (replace)  FirstMint
          access_token ← minted for `api`
        Ready=True Issued
        Approved=True Granted
        wake 2026-01-01T00:46:12Z
        = GET Secret billing, POST ledger, PUT Secret billing, PUT Secret billing-token, PUT status
    "#]],
    );
}

#[test]
fn a_restored_registration_takes_up_its_entry_after_its_uid_was_confirmed() {
    let case =
        issued("billing", "2026-01-01").with_uid("restored").with_secret("billing", |secret| secret.controller = None);
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            look at the registration
            --
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  Adopted
            publish billing (replace)  FieldMissing
              client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-24T13:45:47Z
            Event Adopted: Client 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 now belongs to this registration. A restored registration continues with its former ledger entry: same client ID, same credentials
            Event FieldMissing: The Secret billing was repaired: a field, label or annotation was missing or changed
            = GET Secret billing, GET registration, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_restored_secret_that_the_watch_has_not_shown_yet_is_found_before_a_new_client_is_made() {
    let mut case = issued("billing", "2026-01-01").with_uid("restored");
    case.world.secrets.get_mut("billing").unwrap().controller = None;
    case.alter = Some(|facts| {
        if let Some(secret) = facts.secrets.get_mut("billing")
            && !secret.is_live()
        {
            *secret = super::facts::SecretFact::Absent(super::facts::Source::Watched);
        }
    });
    let plan = case.decided(at("2026-01-10"));
    expect![[r#"
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  Adopted
        publish billing (replace)  FieldMissing
          client_secret ← held client_secret
        Ready=True Issued
        Approved=True Granted
        wake 2026-02-24T13:45:47Z
    "#]]
    .assert_eq(&plan.to_string());
}

#[test]
fn a_recreated_registration_takes_over_the_name_of_a_chosen_client_id_and_nothing_else() {
    let case =
        issued("billing", "2026-01-01").spec(|spec| spec.client_id = Some("shop.billing".into())).with_uid("recreated");
    let mut case = case;
    case.world.secrets.clear();
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            look at the registration
            --
            mint clientSecret `web` revision 1  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  FirstMint
            accept shop.billing (replace)  TakenOver
            publish billing (create)  FirstMint
              client_secret ← minted for `web`
            Ready=True Issued
            Approved=True Granted
            wake 2026-03-03T04:09:21Z
            Event TakenOver: Client shop.billing now belongs to this registration. A new registration has the client ID of a deleted one of the same namespace and name, and none of its credentials
            = GET Secret billing, GET registration, PUT ledger, POST Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_recreated_registration_without_a_chosen_id_is_a_new_client() {
    let mut case = issued("billing", "2026-01-01").with_uid("recreated");
    case.world.secrets.clear();
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 1  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  FirstMint
            accept recreated (create)  FirstMint
            publish billing (create)  FirstMint
              client_secret ← minted for `web`
            Ready=True Issued
            Approved=True Granted
            wake 2026-03-03T04:09:21Z
            = GET Secret billing, POST ledger, POST Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_recreated_registration_with_another_chosen_id_does_not_take_over_the_old_one() {
    let mut case =
        issued("billing", "2026-01-01").spec(|spec| spec.client_id = Some("shop.billing".into())).with_uid("recreated");
    case.world.secrets.clear();
    check_decision(
        case.edited(|spec| spec.client_id = Some("shop.other".into())),
        "2026-01-10",
        |facts| {
            if facts.ledger != super::facts::LedgerFact::Absent {
                return;
            }
            let entry = ledger::Entry {
                version: ledger::VERSION,
                server: "default".into(),
                client_id: "shop.billing".into(),
                owner: ledger::Owner { namespace: "shop".into(), name: "billing".into(), uid: UID.into() },
                created_at: at("2026-01-01"),
                revoked_before: None,
                deletion_policy: DeletionPolicy::Delete,
                grant: ledger::Grant::default(),
                credentials: [].into(),
                remote: None,
            };
            facts.ledger = super::facts::LedgerFact::Held {
                resource_version: "1".into(),
                entry: Box::new(entry),
                standing: super::facts::Standing::Former,
            };
        },
        expect![[r#"
            mint clientSecret `web` revision 1  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  FirstMint
            accept shop.other (create)  FirstMint
            publish billing (create)  FirstMint
              client_secret ← minted for `web`
            Ready=True Issued
            Approved=True Granted
            wake 2026-03-03T04:09:21Z
        "#]],
    );
}

#[test]
fn a_client_id_of_somebody_else_is_taken() {
    let alter = |facts: &mut Facts| facts.ledger = super::facts::LedgerFact::Taken;
    let case = applied("billing").spec(|spec| spec.client_id = Some("shop.billing".into()));
    check_decision(
        case,
        "2026-01-01",
        alter,
        expect![[r#"
            Ready=False ClientIDTaken: Field spec.clientID: shop.billing belongs to another registration: create this one anew with another clientID
            Approved=True Granted
            Stalled=True ClientIDTaken: Field spec.clientID: shop.billing belongs to another registration: create this one anew with another clientID
            wake 2026-01-01T01:00:00Z
        "#]],
    );
}

#[test]
fn an_unreadable_ledger_entry_is_never_written() {
    let alter = |facts: &mut Facts| facts.ledger = super::facts::LedgerFact::Unreadable(Unreadable::UnknownVersion(2));
    check_decision(
        issued("billing", "2026-01-01"),
        "2026-03-25",
        alter,
        expect![[r#"
            Ready=True Issued
            Approved=True Granted
            Stalled=True LedgerUnreadable: The ledger entry cannot be used, because the field ledger.json has version 2, this program knows version 1: restore it from a backup, or delete it to start anew
            wake 2026-03-25T00:05:00Z
        "#]],
    );
}

#[test]
fn a_removed_entry_leaves_its_secret_first_and_then_the_ledger() {
    let mut batch = client_secret("batch");
    batch.secret_name = Some("billing-batch".into());
    let case = issued_with("billing", "2026-01-01", vec![client_secret("web"), batch]).edited(|spec| {
        entries(spec).pop();
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            remove Secret billing-batch
            retire `batch` EntryRemoved
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-25T03:22:44Z
            Event EntryRemoved: Credentials that were removed from the spec are no longer accepted: batch
            = DELETE Secret billing-batch, PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn a_removed_entry_leaves_the_secret_that_it_shared() {
    let case = issued_with("billing", "2026-01-01", vec![client_secret("web"), certificate("mtls", &[])])
        .spec(|spec| spec.token_endpoint_auth_method = Some(crate::api::TokenEndpointAuthMethod::TlsClientAuth))
        .edited(|spec| {
            entries(spec).remove(0);
        });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            publish billing (replace)  EntryRemoved
              tls.crt ← held tls.crt
              tls.key ← held tls.key
            retire `web` EntryRemoved
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-21T06:27:32Z
            Event EntryRemoved: Credentials that were removed from the spec are no longer accepted: web
            = GET Secret billing, PUT Secret billing, PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn an_entry_that_is_removed_and_added_under_another_kind_is_a_new_one() {
    let case = issued("billing", "2026-01-01").edited(|spec| entries(spec)[0] = certificate("web", &[]));
    check(
        case,
        "2026-01-10",
        expect![[r#"
        look at Secret billing
        --
        mint certificate `web` revision 1  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  FirstMint
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  FirstMint
        publish billing (replace)  FirstMint
          tls.crt ← minted for `web`
          tls.key ← minted for `web`
        Ready=True Issued
        Approved=True Granted
        wake 2026-03-06T03:22:44Z
        = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
    "#]],
    );
}

#[test]
fn what_another_kind_had_under_the_name_goes_even_where_the_new_kind_cannot_be_minted() {
    let case = issued("billing", "2026-01-01")
        .edited(|spec| entries(spec)[0] = certificate("web", &[]))
        .environment(|environment| environment.authorities = crate::signer::ca::CaIndex::default());
    check(
        case,
        "2026-01-10",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  GrantChanged
            publish billing (replace)  EntryRemoved
            retire `web` EntryRemoved
            Ready=False ServerUnavailable: The authorization server has no certificate authority yet: the controller creates one, and retries
            Approved=True Granted
            Reconciling=True ServerUnavailable: The authorization server has no certificate authority yet: the controller creates one, and retries
            wake 2026-01-10T00:05:00Z
            Event EntryRemoved: Credentials that were removed from the spec are no longer accepted: web
            = PUT ledger, PUT Secret billing, PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn what_a_policy_allows_is_granted_and_the_rest_waits() {
    let case = applied("billing")
        .spec(|spec| spec.scopes = vec!["orders:read".into(), "admin".into()])
        .environment(|environment| environment.policy.scopes = vec!["orders:*".into()]);
    check(
        case,
        "2026-01-01",
        expect![[r#"
            mint clientSecret `default` revision 1  2026-01-01T00:00:00Z … 2026-04-01T00:00:00Z  FirstMint
            mint accessToken `token`  2026-01-01T00:00:00Z … 2026-01-01T01:00:00Z  FirstMint
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            publish billing (create)  FirstMint
              client_secret ← minted for `default`
            publish billing-token (create)  FirstMint
              access_token ← minted for `token`
            Ready=True Issued
            Approved=False PolicyDenied: Field spec.scopes: admin is not allowed: add it to scopes of a RegistrationPolicy that selects the namespace shop. The closest one, policy/default, allows orders:* there
            Stalled=True PolicyDenied: Field spec.scopes: admin is not allowed: add it to scopes of a RegistrationPolicy that selects the namespace shop. The closest one, policy/default, allows orders:* there
            wake 2026-01-01T00:35:02Z
            = POST ledger, POST Secret billing, POST Secret billing-token, PUT status
        "#]],
    );
}

#[test]
fn a_token_asks_for_a_scope_that_is_not_granted() {
    let case = applied("billing").asking(vec![token("api", &["admin"])]);
    check(
        case,
        "2026-01-01",
        expect![[r#"
            mint accessToken `api`  2026-01-01T00:00:00Z … 2026-01-01T01:00:00Z  FirstMint
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            publish billing-token (create)  FirstMint
              access_token ← minted for `api`
            Ready=True Issued
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[api].accessToken.scopes: admin must be asked for by the registration as well: add it to spec.scopes
            wake 2026-01-01T00:37:10Z
            = POST ledger, POST Secret billing-token, PUT status
        "#]],
    );
}

#[test]
fn a_client_id_outside_the_policy_is_refused_before_anything_is_written() {
    let case = applied("billing").spec(|spec| spec.client_id = Some("bank.billing".into()));
    check(
        case,
        "2026-01-01",
        expect![[r#"
            Ready=False PolicyDenied: Field spec.clientID: bank.billing is not allowed; policy/default allows shop.*. Choose one of these, or add it to clientIDs of a RegistrationPolicy that selects the namespace shop
            Approved=False PolicyDenied: Field spec.clientID: bank.billing is not allowed; policy/default allows shop.*. Choose one of these, or add it to clientIDs of a RegistrationPolicy that selects the namespace shop
            Stalled=True PolicyDenied: Field spec.clientID: bank.billing is not allowed; policy/default allows shop.*. Choose one of these, or add it to clientIDs of a RegistrationPolicy that selects the namespace shop
            wake 2026-01-01T00:05:00Z
            = PUT status
        "#]],
    );
}

#[test]
fn a_takeover_of_a_client_id_outside_the_policy_is_refused() {
    let mut case = issued("billing", "2026-01-01")
        .spec(|spec| spec.client_id = Some("shop.billing".into()))
        .with_uid("recreated")
        .environment(|environment| environment.policy.client_ids = vec!["other.*".into()]);
    case.world.secrets.clear();
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            Ready=False PolicyDenied: Field spec.clientID: shop.billing is not allowed; policy/default allows other.*. Choose one of these, or add it to clientIDs of a RegistrationPolicy that selects the namespace shop
            Approved=False PolicyDenied: Field spec.clientID: shop.billing is not allowed; policy/default allows other.*. Choose one of these, or add it to clientIDs of a RegistrationPolicy that selects the namespace shop
            Stalled=True PolicyDenied: Field spec.clientID: shop.billing is not allowed; policy/default allows other.*. Choose one of these, or add it to clientIDs of a RegistrationPolicy that selects the namespace shop
            wake 2026-01-10T00:05:00Z
            --
            look at Secret billing
            = GET Secret billing, PUT status, GET Secret billing
        "#]],
    );
}

#[test]
fn a_kind_outside_the_policy_is_not_begun_but_what_exists_goes_on() {
    let case = issued("billing", "2026-01-01")
        .environment(|environment| environment.policy.credential_kinds = vec![])
        .edited(|spec| entries(spec).push(token("api", &[])));
    check(
        case,
        "2026-03-25",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 2  2026-03-25T00:00:00Z … 2026-06-23T00:00:00Z  RenewalDue
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RenewalDue
            publish billing (replace)  RenewalDue
              client_secret ← minted for `web`
              previous_client_secret ← held client_secret
            Ready=False PolicyDenied: Field spec.credentials[api]: the kind AccessToken is not allowed by policy/default. Use another kind, or add it to credentialKinds
            Approved=False PolicyDenied: Field spec.credentials[api]: the kind AccessToken is not allowed by policy/default. Use another kind, or add it to credentialKinds
            Stalled=True PolicyDenied: Field spec.credentials[api]: the kind AccessToken is not allowed by policy/default. Use another kind, or add it to credentialKinds
            wake 2026-05-20T10:58:55Z
            Event RenewalDue: Credential web was replaced by revision 2, which is valid until 2026-06-23T00:00:00Z. The renewal time of the credential has come
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_duration_outside_the_policy_is_bounded_and_it_is_said() {
    let mut case = applied("billing").asking(vec![client_secret("web")]).lives("1000d");
    case.world.environment.policy.durations.client_secret.max = "90d".parse().unwrap();
    let plans = case.world.converge(&mut case.memory, at("2026-01-01"));
    let approved = plans[0].status.conditions.iter().find(|c| c.type_ == "Approved").unwrap();
    expect!["True Granted"].assert_eq(&format!("{} {}", approved.status, approved.reason));
    expect!["Field spec.credentials[web].effectiveDuration: bounded to 90d by policy/default: set a duration within its bounds, or change the bounds"]
        .assert_eq(&approved.message);
    expect!["2026-04-01T00:00:00Z"].assert_eq(&plans[0].mints[0].not_after.to_string());
}

#[test]
fn at_the_limit_the_oldest_that_nobody_shows_makes_room() {
    let mut case = issued("billing", "2026-01-01").lives("365d");
    for day in 2..=8 {
        case = case.with_secret_deleted("billing").later(&format!("2026-01-{day:02}"));
    }
    check(
        case.with_secret_deleted("billing"),
        "2026-01-09",
        expect![[r#"
            look at Secret billing
            --
            mint clientSecret `web` revision 9  2026-01-09T00:00:00Z … 2027-01-09T00:00:00Z  SecretDeleted
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SecretDeleted
            publish billing (create)  SecretDeleted
              client_secret ← minted for `web`
            Ready=True Issued
            Approved=True Granted
            wake 2026-06-16T04:00:00Z
            Event SecretDeleted: Credential web was replaced by revision 9, which is valid until 2027-01-09T00:00:00Z. Someone deleted the Secret, so it was created again with a new credential
            = GET Secret billing, PUT ledger, POST Secret billing, PUT status
        "#]],
    );
}

#[test]
fn at_the_limit_with_nothing_old_enough_the_operator_waits() {
    let mut case = issued("billing", "2026-01-01").lives("365d");
    for minute in 1..=7 {
        case = case.with_secret_deleted("billing").later(&format!("2026-01-01T00:0{minute}:00Z"));
    }
    check(
        case.with_secret_deleted("billing"),
        "2026-01-01T00:09:00Z",
        expect![[r#"
            Ready=False MintLimited: Field spec.credentials[web]: 8 revisions are live, which is the most, so the next one waits until one of them ends: stop whatever keeps changing the Secret billing
            Approved=True Granted
            Reconciling=True MintLimited: Field spec.credentials[web]: 8 revisions are live, which is the most, so the next one waits until one of them ends: stop whatever keeps changing the Secret billing
            wake 2026-01-01T00:10:01Z
            = PUT status
        "#]],
    );
}

#[test]
fn a_clock_that_is_behind_mints_nothing() {
    let case = issued("billing", "2026-01-10").with_secret_deleted("billing");
    check(
        case,
        "2026-01-09",
        expect![[r#"
            Ready=False ClockBehind: The controller's clock is behind: the ledger has a credential that was minted at 2026-01-10T00:00:00Z. Nothing is minted until the clock of the controller's node is corrected
            Approved=True Granted
            Reconciling=True ClockBehind: The controller's clock is behind: the ledger has a credential that was minted at 2026-01-10T00:00:00Z. Nothing is minted until the clock of the controller's node is corrected
            wake 2026-01-09T00:05:00Z
            = PUT status
        "#]],
    );
}

#[test]
fn a_certificate_has_its_own_secret() {
    let mut mtls = certificate("mtls", &["billing.shop.svc", "bank.example"]);
    mtls.secret_name = Some("billing-mtls".into());
    check(
        applied("billing").asking(vec![mtls]),
        "2026-01-01",
        expect![[r#"
            mint certificate `mtls` revision 1  2026-01-01T00:00:00Z … 2026-04-01T00:00:00Z  FirstMint
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            publish billing-mtls (create)  FirstMint
              tls.crt ← minted for `mtls`
              tls.key ← minted for `mtls`
            Ready=True Issued
            Approved=False PolicyDenied: Field spec.credentials.certificate.dnsNames: bank.example is not allowed: add it to dnsNames of a RegistrationPolicy that selects the namespace shop. The closest one, policy/default, allows *.shop.svc, *.shop.svc.cluster.local there
            Stalled=True PolicyDenied: Field spec.credentials.certificate.dnsNames: bank.example is not allowed: add it to dnsNames of a RegistrationPolicy that selects the namespace shop. The closest one, policy/default, allows *.shop.svc, *.shop.svc.cluster.local there
            wake 2026-02-21T06:27:32Z
            = POST ledger, POST Secret billing-mtls, PUT status
        "#]],
    );
}

#[test]
fn a_certificate_is_rotated_and_the_old_one_leaves_after_the_overlap() {
    let case = issued_with("billing", "2026-01-01", vec![certificate("mtls", &[])])
        .lives("90d")
        .renew_before("10d")
        .edited(|spec| spec.rotate_minted_before = Some("2026-01-05T00:00:00Z".into()))
        .later("2026-01-05");
    check(
        case,
        "2026-01-25",
        expect![[r#"
        look at Secret billing
        --
        retire `mtls` revision 1 OverlapEnded
        Ready=True Issued
        Approved=True Granted
        wake 2026-03-18T00:37:01Z
        = GET Secret billing, PUT ledger, PUT status
    "#]],
    );
}

#[test]
fn other_dns_names_or_another_key_make_another_certificate() {
    let case = issued_with("billing", "2026-01-01", vec![certificate("mtls", &[])]).edited(|spec| {
        entries(spec)[0].certificate = Some(Certificate {
            private_key: Some(KeyType::Rsa2048.into()),
            dns_names: vec!["billing.shop.svc".into()],
        });
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            mint certificate `mtls` revision 2  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  SpecChanged
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SpecChanged
            publish billing (replace)  SpecChanged
              tls.crt ← minted for `mtls`
              tls.key ← minted for `mtls`
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-18T00:00:00Z
            Event SpecChanged: Credential mtls was replaced by revision 2, which is valid until 2026-04-10T00:00:00Z. The spec was changed in a way that the credential or the Secret must follow
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_certificate_with_the_key_of_another_is_replaced() {
    let case = issued_with("billing", "2026-01-01", vec![certificate("mtls", &[])]).with_secret("billing", |secret| {
        secret.data.insert(field::PRIVATE_KEY.into(), "key 99".into());
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            mint certificate `mtls` revision 2  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  SecretChanged
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SecretChanged
            publish billing (replace)  SecretChanged
              tls.crt ← minted for `mtls`
              tls.key ← minted for `mtls`
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-18T00:00:00Z
            Event SecretChanged: Credential mtls was replaced by revision 2, which is valid until 2026-04-10T00:00:00Z. Someone changed the Secret: it held a value that the ledger does not know, or that is not accepted any more
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_token_refresh_is_one_put() {
    let case = issued_with("billing", "2026-01-01", vec![token("api", &[])]);
    check(
        case,
        "2026-01-01T00:45:00Z",
        expect![[r#"
        mint accessToken `api`  2026-01-01T00:45:00Z … 2026-01-01T01:45:00Z  TokenDue
        publish billing-token (replace)  TokenDue
          access_token ← minted for `api`
        Ready=True Issued
        Approved=True Granted
        wake 2026-01-01T01:22:45Z
        = PUT Secret billing-token
    "#]],
    );
}

#[test]
fn a_token_is_signed_again_when_its_key_is_no_longer_published() {
    let case = issued_with("billing", "2026-01-01", vec![token("api", &[])]).environment(|environment| {
        let key = crate::signer::KeyRecord {
            kid: "k2".into(),
            alg: crate::signer::Algorithm::ES256,
            created_at: at("2026-01-01"),
            sign_from: at("2026-01-01"),
            publish_until: None,
        };
        environment.keys = crate::signer::Index::default().with(key);
    });
    check(
        case,
        "2026-01-01T00:05:00Z",
        expect![[r#"
            mint accessToken `api`  2026-01-01T00:05:00Z … 2026-01-01T01:05:00Z  KeyUnpublished
            publish billing-token (replace)  KeyUnpublished
              access_token ← minted for `api`
            Ready=True Issued
            Approved=True Granted
            wake 2026-01-01T00:44:12Z
            Event KeyUnpublished: Credential api was replaced by a token, which is valid until 2026-01-01T01:05:00Z. The access token was signed with a key that is no longer published, so it was signed again
            = PUT Secret billing-token
        "#]],
    );
}

#[test]
fn another_grant_is_recorded_and_the_token_says_it() {
    let case = issued_with("billing", "2026-01-01", vec![token("api", &[])])
        .edited(|spec| spec.scopes = vec!["orders:read".into()]);
    check(
        case,
        "2026-01-01T00:05:00Z",
        expect![[r#"
        mint accessToken `api`  2026-01-01T00:05:00Z … 2026-01-01T01:05:00Z  GrantChanged
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  GrantChanged
        publish billing-token (replace)  GrantChanged
          access_token ← minted for `api`
        Ready=True Issued
        Approved=True Granted
        wake 2026-01-01T00:44:12Z
        = PUT ledger, PUT Secret billing-token, PUT status
    "#]],
    );
}

#[test]
fn a_revoked_token_is_signed_again_and_the_watermark_is_in_the_ledger() {
    let case = issued_with("billing", "2026-01-01", vec![token("api", &[])])
        .edited(|spec| entries(spec)[0].revoke_minted_before = Some("2026-01-01T00:05:00Z".into()));
    check(
        case,
        "2026-01-01T00:05:00Z",
        expect![[r#"
            mint accessToken `api`  2026-01-01T00:05:00Z … 2026-01-01T01:05:00Z  RevocationRequested
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RevocationRequested
            publish billing-token (replace)  RevocationRequested
              access_token ← minted for `api`
            Ready=True Issued
            Approved=True Granted
            wake 2026-01-01T00:44:12Z
            Event RevocationRequested: Credential api was revoked and replaced by a token, which is valid until 2026-01-01T01:05:00Z. Someone requested a revocation by revokeMintedBefore
            = PUT ledger, PUT Secret billing-token, PUT status
        "#]],
    );
}

#[test]
fn a_token_older_than_its_client_is_signed_again() {
    // The ledger entry was lost and made anew, and the pass was cut before the token was published.
    let case = issued_with("billing", "2026-01-01", vec![token("api", &[])])
        .with_ledger(|entry| entry.created_at = at("2026-01-01T00:05:00Z"));
    check(
        case,
        "2026-01-01T00:05:00Z",
        expect![[r#"
            mint accessToken `api`  2026-01-01T00:05:00Z … 2026-01-01T01:05:00Z  RevocationRequested
            publish billing-token (replace)  RevocationRequested
              access_token ← minted for `api`
            Ready=True Issued
            Approved=True Granted
            wake 2026-01-01T00:44:12Z
            Event RevocationRequested: Credential api was revoked and replaced by a token, which is valid until 2026-01-01T01:05:00Z. Someone requested a revocation by revokeMintedBefore
            = PUT Secret billing-token
        "#]],
    );
}

#[test]
fn a_token_older_than_a_recorded_revocation_is_signed_again() {
    // The watermark was taken out of the spec after it was recorded and before the token was published.
    let case = issued_with("billing", "2026-01-01", vec![token("api", &[])])
        .with_ledger(|entry| entry.revoked_before = Some(at("2026-01-01T00:05:00Z")));
    check(
        case,
        "2026-01-01T00:05:00Z",
        expect![[r#"
            mint accessToken `api`  2026-01-01T00:05:00Z … 2026-01-01T01:05:00Z  RevocationRequested
            publish billing-token (replace)  RevocationRequested
              access_token ← minted for `api`
            Ready=True Issued
            Approved=True Granted
            wake 2026-01-01T00:44:12Z
            Event RevocationRequested: Credential api was revoked and replaced by a token, which is valid until 2026-01-01T01:05:00Z. Someone requested a revocation by revokeMintedBefore
            = PUT Secret billing-token
        "#]],
    );
}

#[test]
fn a_token_from_a_clock_that_was_ahead_is_signed_again() {
    let case = issued_with("billing", "2026-01-01", vec![token("api", &[])])
        .with_ledger(|entry| entry.created_at = at("2025-12-01"));
    check(
        case,
        "2025-12-31T23:30:00Z",
        expect![[r#"
        mint accessToken `api`  2025-12-31T23:30:00Z … 2026-01-01T00:30:00Z  TokenDue
        publish billing-token (replace)  TokenDue
          access_token ← minted for `api`
        Ready=True Issued
        Approved=True Granted
        wake 2026-01-01T00:08:33Z
        = PUT Secret billing-token
    "#]],
    );
}

#[test]
fn without_a_signing_key_a_token_waits() {
    let case = applied("billing")
        .asking(vec![token("api", &[])])
        .environment(|environment| environment.keys = crate::signer::Index::default());
    check(
        case,
        "2026-01-01",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            Ready=False ServerUnavailable: The authorization server has no token signing key yet: the controller creates one, and retries
            Approved=True Granted
            Reconciling=True ServerUnavailable: The authorization server has no token signing key yet: the controller creates one, and retries
            wake 2026-01-01T00:05:00Z
            = POST ledger, PUT status
        "#]],
    );
}

#[test]
fn an_entry_of_an_unknown_kind_is_named_and_not_removed() {
    let case = issued("billing", "2026-01-01").edited(|spec| {
        entries(spec).push(Entry { name: "later".into(), ..Entry::default() });
        entries(spec)[0].client_secret = None;
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            Ready=False InvalidSpec: Field spec.credentials[web]: must have exactly one kind of credential that this version of appreg knows: remove the others, or upgrade appreg
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[web]: must have exactly one kind of credential that this version of appreg knows: remove the others, or upgrade appreg
            wake never
            = PUT status
        "#]],
    );
}

#[test]
fn an_entry_of_an_unknown_kind_keeps_every_secret_that_may_be_its_own() {
    let mut batch = token("batch", &[]);
    batch.secret_name = None;
    let case = issued_with("billing", "2026-01-01", vec![batch]).edited(|spec| entries(spec)[0].access_token = None);
    check(
        case,
        "2026-01-10",
        expect![[r#"
            Ready=False InvalidSpec: Field spec.credentials[batch]: must have exactly one kind of credential that this version of appreg knows: remove the others, or upgrade appreg
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[batch]: must have exactly one kind of credential that this version of appreg knows: remove the others, or upgrade appreg
            wake never
            = PUT status
        "#]],
    );
}

#[test]
fn an_undecodable_duration_is_named_and_the_entry_stays() {
    let case = issued("billing", "2026-01-01").edited(|spec| {
        entries(spec)[0].effective_duration = Some("P1D".into());
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            Ready=False InvalidSpec: Field spec.credentials[web].effectiveDuration: must be a duration in the units s, m, h, d and w: write it like 90d or 1h30m
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[web].effectiveDuration: must be a duration in the units s, m, h, d and w: write it like 90d or 1h30m
            wake never
            = PUT status
        "#]],
    );
}

#[test]
fn an_entry_that_cannot_be_understood_keeps_its_fields_when_its_secret_is_written() {
    let case =
        issued_with("billing", "2026-01-01", vec![client_secret("web"), certificate("mtls", &[])]).edited(|spec| {
            entries(spec)[0].effective_duration = Some("P1D".into());
            spec.rotate_minted_before = Some("2026-01-10T00:00:00Z".into());
        });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            mint certificate `mtls` revision 2  2026-01-10T00:00:00Z … 2026-04-10T00:00:00Z  RotationRequested
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  RotationRequested
            publish billing (replace)  RotationRequested
              client_secret ← held client_secret
              tls.crt ← minted for `mtls`
              tls.key ← minted for `mtls`
            Ready=True Issued
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[web].effectiveDuration: must be a duration in the units s, m, h, d and w: write it like 90d or 1h30m
            wake 2026-02-18T00:00:00Z
            Event RotationRequested: Credential mtls was replaced by revision 2, which is valid until 2026-04-10T00:00:00Z. Someone requested a rotation by rotateMintedBefore
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn another_issuer_is_written_to_every_secret() {
    let case = issued_with("billing", "2026-01-01", vec![client_secret("web"), token("api", &[])])
        .environment(|environment| environment.server.issuer = "https://new.example".into());
    check(
        case,
        "2026-01-01T00:05:00Z",
        expect![[r#"
            look at Secret billing
            --
            mint accessToken `api`  2026-01-01T00:05:00Z … 2026-01-01T01:05:00Z  GrantChanged
            publish billing (replace)  FieldMissing
              client_secret ← held client_secret
            publish billing-token (replace)  GrantChanged
              access_token ← minted for `api`
            Ready=True Issued
            Approved=True Granted
            wake 2026-01-01T00:44:12Z
            Event FieldMissing: The Secret billing was repaired: a field, label or annotation was missing or changed
            = GET Secret billing, PUT Secret billing, PUT Secret billing-token, PUT status
        "#]],
    );
}

#[test]
fn an_orphan_lets_go_of_its_secret() {
    let case = issued("billing", "2026-01-01").edited(|spec| spec.deletion_policy = Some(DeletionPolicy::Orphan));
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SpecChanged
            publish billing (replace)  FieldMissing
              client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-25T03:22:44Z
            Event FieldMissing: The Secret billing was repaired: a field, label or annotation was missing or changed
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_secret_template_is_written_and_cannot_take_our_marks() {
    let case = issued("billing", "2026-01-01").edited(|spec| {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        spec.secret_template = Some(SecretTemplate {
            labels: pairs(&[("team", "shop"), (names::MANAGED_BY_LABEL, "somebody")]),
            annotations: pairs(&[
                ("note", "x"),
                (names::PUBLISHED_ANNOTATION, "{}"),
                (names::CONNECTION_ANNOTATION, "y"),
            ]),
            ..SecretTemplate::default()
        });
    });
    check(
        case,
        "2026-01-10",
        expect![[r#"
            look at Secret billing
            --
            publish billing (replace)  FieldMissing
              client_secret ← held client_secret
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-25T03:22:44Z
            Event FieldMissing: The Secret billing was repaired: a field, label or annotation was missing or changed
            = GET Secret billing, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn an_unknown_authorization_server_is_named() {
    let case = applied("billing").spec(|spec| {
        spec.authorization_server_ref = Some(AuthorizationServerRef { name: "keycloak".into() });
    });
    check(
        case,
        "2026-01-01",
        expect![[r#"
            Ready=False InvalidSpec: Field spec.authorizationServerRef.name: there is no authorization server keycloak: create it, or create this registration anew with another server
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.authorizationServerRef.name: there is no authorization server keycloak: create it, or create this registration anew with another server
            wake 2026-01-01T00:05:00Z
            = PUT status
        "#]],
    );
}

#[test]
fn a_restart_reads_and_writes_nothing() {
    let case =
        issued_with("billing", "2026-01-01", vec![client_secret("web"), certificate("mtls", &[]), token("api", &[])]);
    check(
        case.restarted(),
        "2026-01-01T00:05:00Z",
        expect![[r#"
        Ready=True Issued
        Approved=True Granted
        wake 2026-01-01T00:37:10Z
        = nothing
    "#]],
    );
}

#[test]
fn customers_stand_in_tokens() {
    let case = issued_with("billing", "2026-01-01", vec![token("api", &[])]).edited(|spec| {
        let customers = vec!["acme".to_owned()];
        spec.customer_scope =
            Some(CustomerScope { type_: CustomerScopeType::Customers, customers, groups: Vec::new() });
    });
    check(
        case,
        "2026-01-01T00:05:00Z",
        expect![[r#"
        mint accessToken `api`  2026-01-01T00:05:00Z … 2026-01-01T01:05:00Z  GrantChanged
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  GrantChanged
        publish billing-token (replace)  GrantChanged
          access_token ← minted for `api`
        Ready=True Issued
        Approved=True Granted
        wake 2026-01-01T00:44:12Z
        = PUT ledger, PUT Secret billing-token, PUT status
    "#]],
    );
}

#[test]
fn two_entries_that_would_write_one_field_do_not_fight_over_it() {
    // The API server refuses them; an object that was stored before it did may still say so.
    let case = applied("billing").asking(vec![client_secret("web"), client_secret("batch")]);
    check(
        case,
        "2026-01-01",
        expect![[r#"
            mint clientSecret `web` revision 1  2026-01-01T00:00:00Z … 2026-04-01T00:00:00Z  FirstMint
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            publish billing (create)  FirstMint
              client_secret ← minted for `web`
            Ready=True Issued
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[batch]: web writes the same field of the Secret billing: give one of them a secretName of its own
            wake 2026-02-25T03:22:44Z
            = POST ledger, POST Secret billing, PUT status
        "#]],
    );
}

/// What is reported when the first step failed.
fn check_failure(case: Case, now: &str, reason: Option<Reason>, expected: Expect) {
    let case = case.settled();
    let (facts, plan) = (case.facts(&Look::default()), case.decided(at(now)));
    let failure = Failure { reason, message: "The ledger entry could not be written: 500".into() };
    let status = after_failure(&facts, &plan, &failure, at(now));
    let text = status
        .conditions
        .iter()
        .fold(String::new(), |text, c| format!("{text}{}={} {}: {}\n", c.type_, c.status, c.reason, c.message));
    expected.assert_eq(&text);
    let mut again = facts;
    again.registration.status = status.clone();
    assert_eq!(after_failure(&again, &plan, &failure, at("2026-12-31")), status, "said once");
}

#[test]
fn a_first_mint_that_fails_is_not_ready() {
    check_failure(
        applied("billing"),
        "2026-01-01",
        None,
        expect![[r#"
            Ready=False Progressing: The ledger entry could not be written: 500
            Approved=True Granted: Everything that is asked for is granted
            Reconciling=True Progressing: The ledger entry could not be written: 500
        "#]],
    );
}

#[test]
fn a_rotation_that_fails_stays_ready_and_says_so() {
    check_failure(
        issued("billing", "2026-01-01"),
        "2026-03-05",
        None,
        expect![[r#"
            Ready=True Issued: Every credential is accepted
            Approved=True Granted: Everything that is asked for is granted
            Reconciling=True RotationFailing: The ledger entry could not be written: 500
        "#]],
    );
}

#[test]
fn a_quota_is_named() {
    check_failure(
        applied("billing"),
        "2026-01-01",
        Some(Reason::QuotaExceeded),
        expect![[r#"
            Ready=False QuotaExceeded: The ledger entry could not be written: 500
            Approved=True Granted: Everything that is asked for is granted
            Reconciling=True QuotaExceeded: The ledger entry could not be written: 500
        "#]],
    );
}

fn calling(case: Case, apis: &[(&str, &[&str])]) -> Case {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let apis = apis.iter().map(|(audience, scopes)| ApiAccess { audience: (*audience).into(), scopes: texts(scopes) });
    case.spec(|spec| spec.apis = apis.collect())
}

/// What the tokens of the first plan say: audience and scopes.
fn tokens_of(mut case: Case, day: &str) -> Vec<String> {
    let plans = case.world.converge(&mut case.memory, at(day));
    let orders = plans.iter().flat_map(|plan| &plan.mints).filter_map(|mint| match &mint.order {
        Order::AccessToken(order) => Some(format!("{} {}", order.audience, order.scopes.join("+"))),
        Order::ClientSecret | Order::Certificate { .. } => None,
    });
    orders.collect()
}

#[test]
fn a_delivered_token_is_for_the_first_api_and_has_the_scopes_that_are_granted_there() {
    let apis: &[(&str, &[&str])] = &[("https://b.example", &["read", "write"]), ("https://a.example", &["admin"])];
    let case = |entry: Entry| {
        calling(applied("billing").asking(vec![entry]), apis).spec(|spec| {
            spec.scopes = vec!["profile".into()];
        })
    };
    let with = |audience: &str, scopes: &[&str]| {
        let mut entry = token("api", scopes);
        entry.access_token.as_mut().unwrap().audience = Some(audience.into());
        entry
    };
    assert_eq!(tokens_of(case(token("api", &[])), "2026-01-01"), ["https://b.example read+write"]);
    assert_eq!(tokens_of(case(token("api", &["read"])), "2026-01-01"), ["https://b.example read"]);
    assert_eq!(tokens_of(case(with("https://a.example", &[])), "2026-01-01"), ["https://a.example admin"]);
    assert_eq!(tokens_of(case(with("https://auth.example", &[])), "2026-01-01"), ["https://auth.example profile"]);
    let without = applied("billing").asking(vec![token("api", &[])]).spec(|spec| spec.scopes = vec!["profile".into()]);
    assert_eq!(tokens_of(without, "2026-01-01"), ["https://auth.example profile"]);
}

#[test]
fn a_token_asks_for_nothing_that_belongs_to_another_api() {
    let mut entry = token("api", &["admin", "read"]);
    entry.access_token.as_mut().unwrap().audience = Some("https://b.example".into());
    let case = applied("billing").asking(vec![entry]);
    check(
        calling(case, &[("https://a.example", &["admin"]), ("https://b.example", &["read"])]),
        "2026-01-01",
        expect![[r#"
            mint accessToken `api`  2026-01-01T00:00:00Z … 2026-01-01T01:00:00Z  FirstMint
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            publish billing-token (create)  FirstMint
              access_token ← minted for `api`
            Ready=True Issued
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[api].accessToken.scopes: admin must be asked for by the registration as well: add it to spec.apis[https://b.example].scopes
            wake 2026-01-01T00:37:10Z
            = POST ledger, POST Secret billing-token, PUT status
        "#]],
    );
}

#[test]
fn a_token_for_an_api_that_is_not_granted_is_not_made_and_none_takes_its_place() {
    let case = applied("billing")
        .environment(|environment| {
            environment.policy.apis = vec![ApiRule { audiences: vec!["https://b.*".into()], scopes: Vec::new() }];
        })
        .asking(vec![token("api", &[])]);
    check(
        calling(case, &[("https://a.example", &["read"]), ("https://b.example", &[])]),
        "2026-01-01",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            Ready=False PolicyDenied: Field spec.credentials[api].accessToken: https://a.example is not granted to the registration, see spec.apis
            Approved=False PolicyDenied: Field spec.apis: https://a.example is not allowed: add it to apis of a RegistrationPolicy that selects the namespace shop. The closest one, policy/default, allows https://b.* there. Field spec.credentials[api].accessToken: https://a.example is not granted to the registration, see spec.apis
            Stalled=True PolicyDenied: Field spec.credentials[api].accessToken: https://a.example is not granted to the registration, see spec.apis
            wake never
            = POST ledger, PUT status
        "#]],
    );
}

#[test]
fn a_token_follows_its_api_when_a_policy_takes_a_scope_back() {
    let open = |scopes: &[&str]| RegistrationPolicySpec {
        apis: vec![ApiRule {
            audiences: vec!["*".into()],
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        }],
        on_violation: Some(OnViolation::Withdraw),
        ..RegistrationPolicySpec::default()
    };
    let case = applied("billing").environment(|environment| environment.policy.enabled = false);
    let mut case = calling(case.asking(vec![token("api", &[])]), &[("https://a.example", &["read", "write"])]);
    case.world.policies.insert("p".into(), open(&["*"]));
    let mut case = case.later("2026-01-01");
    case.world.policies.insert("p".into(), open(&["read"]));
    assert_eq!(tokens_of(case, "2026-01-01T00:01:00Z"), ["https://a.example read"]);
}

#[test]
fn a_customer_scope_that_is_not_granted_makes_a_token_for_no_customer() {
    let asking = |case: Case| {
        case.spec(|spec| {
            spec.customer_scope = Some(CustomerScope {
                type_: CustomerScopeType::Customers,
                customers: vec!["acme".into()],
                ..CustomerScope::default()
            });
        })
    };
    let customers = |mut case: Case| {
        let plans = case.world.converge(&mut case.memory, at("2026-01-01"));
        let Order::AccessToken(order) = plans[0].mints[0].order.clone() else { panic!("a token") };
        order.customers
    };
    let case = || applied("billing").asking(vec![token("api", &[])]);
    let closed = |case: Case| case.environment(|environment| environment.policy.customers = Vec::new());
    assert_eq!(customers(case()), None, "none is asked for");
    assert_eq!(customers(asking(case())), Some(vec!["acme".to_owned()]));
    assert_eq!(customers(closed(asking(case()))), Some(Vec::new()));
}

#[test]
fn what_leaves_the_template_leaves_the_secret_and_what_others_wrote_stays() {
    let template = |labels: &[(&str, &str)], fields: &[(&str, SecretField)]| {
        let pairs = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Some(SecretTemplate {
            labels: pairs(labels),
            annotations: pairs(labels),
            fields: fields.iter().map(|(name, source)| ((*name).to_owned(), *source)).collect(),
        })
    };
    let full = template(
        &[("team", "shop"), ("cost-center", "4711")],
        &[
            ("client-secret", SecretField::ClientSecret),
            ("CLIENT_ID", SecretField::ClientId),
            ("access-token", SecretField::AccessToken),
        ],
    );
    let mut case = issued("billing", "2026-01-01").spec(|spec| spec.secret_template = full).settled();
    let secret = case.world.secrets["billing"].clone();
    assert_eq!(secret.data["client-secret"], secret.data["client_secret"]);
    assert_eq!(secret.data["CLIENT_ID"], secret.data["client_id"]);
    assert!(!secret.data.contains_key("access-token"), "there is no access token in this Secret");
    case = case
        .with_secret("billing", |secret| drop(secret.labels.insert("theirs".into(), "x".into())))
        .later("2026-01-02");
    let narrow = template(&[("team", "shop")], &[("CLIENT_ID", SecretField::Issuer)]);
    let case = case.edited(|spec| spec.secret_template = narrow).later("2026-01-03");
    let secret = &case.world.secrets["billing"];
    let has = |name: &str| (secret.labels.contains_key(name), secret.annotations.contains_key(name));
    assert_eq!((has("team"), has("cost-center"), has("theirs").0), ((true, true), (false, false), true));
    assert_eq!(secret.data["CLIENT_ID"], "https://auth.example");
    assert!(!secret.data.contains_key("client-secret"));
    let case = case.edited(|spec| spec.secret_template = None).later("2026-01-04");
    let secret = &case.world.secrets["billing"];
    assert!(!secret.labels.contains_key("team") && !secret.data.contains_key("CLIENT_ID"));
    assert!(!secret.annotations.contains_key(names::APPLIED_TEMPLATE_ANNOTATION));
}

#[test]
fn a_further_field_that_somebody_edits_is_written_again() {
    let case = issued("billing", "2026-01-01").spec(|spec| {
        let fields = std::collections::BTreeMap::from([("client-secret".to_owned(), SecretField::ClientSecret)]);
        spec.secret_template = Some(SecretTemplate { fields, ..SecretTemplate::default() });
    });
    let case = case.with_secret("billing", |secret| drop(secret.data.insert("client-secret".into(), "theirs".into())));
    let case = case.later("2026-01-02");
    let secret = &case.world.secrets["billing"];
    assert_eq!(secret.data["client-secret"], secret.data["client_secret"]);
}

#[test]
fn an_empty_list_of_credentials_is_no_public_client() {
    check(
        applied("billing").asking(vec![]),
        "2026-01-01",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            Ready=False InvalidSpec: Field spec.credentials: must not be empty: set clientType: Public for a client without credentials, or leave credentials out for a client secret and an access token
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials: must not be empty: set clientType: Public for a client without credentials, or leave credentials out for a client secret and an access token
            wake never
            = POST ledger, PUT status
        "#]],
    );
}

#[test]
fn a_public_client_has_no_credentials_and_one_that_becomes_confidential_gets_them() {
    let case = applied("billing").spec(|spec| spec.client_type = Some(ClientType::Public)).later("2026-01-01");
    assert_eq!(case.world.entry().unwrap().grant.auth_methods, [crate::api::TokenEndpointAuthMethod::None]);
    assert!(case.world.secrets.is_empty());
    let id = case.world.entry().unwrap().client_id.clone();
    let case = case.edited(|spec| spec.client_type = None).later("2026-01-02");
    assert_eq!(case.world.entry().unwrap().client_id, id);
    assert_eq!(case.world.secrets.keys().collect::<Vec<_>>(), ["billing", "billing-token"]);
}

#[test]
fn a_revocation_names_in_its_first_write_the_revisions_whose_tokens_are_refused() {
    let case = issued("billing", "2026-01-01").later("2026-03-25");
    let case = case.edited(|spec| spec.revoke_minted_before = Some("2026-03-26T00:00:00Z".into()));
    let plan = case.decided(at("2026-03-26T00:00:01Z"));
    let Some(super::Step::Accept(accept)) = plan.steps.first() else { panic!("{plan}") };
    let web = &accept.entry.credentials["web"];
    assert_eq!((web.revoked_through, web.revoked_before), (2, Some(at("2026-03-26"))));
    let ends: Vec<_> = web.revisions.iter().map(|r| web.end_of(r, accept.entry.revoked_before)).collect();
    assert!(ends.iter().all(|end| *end == Timestamp::MIN), "refused before they leave the ledger: {ends:?}");
}

#[test]
fn a_revocation_of_a_service_account_covers_every_token_that_is_out_at_the_write() {
    let workload = || Entry {
        name: "workload".into(),
        service_account: Some(crate::api::ServiceAccount { name: "storefront".into() }),
        ..Entry::default()
    };
    let case = issued_with("billing", "2026-01-01", vec![client_secret("web"), workload()]).settled();
    let case = case.edited(|spec| spec.revoke_minted_before = Some("2026-01-02T00:00:00Z".into()));
    let case = case.later("2026-01-02T00:00:07Z");
    let credential = &case.world.entry().unwrap().credentials["workload"];
    assert_eq!(credential.revoked_before, Some(at("2026-01-02")), "its own tokens, from before the leak");
    assert_eq!(credential.tokens_revoked_before, Some(at("2026-01-02T00:01:07Z")));
    let case = case.edited(|spec| {
        spec.revoke_minted_before = None;
        entries(spec).remove(1);
    });
    let case = case.later("2026-01-03");
    let case = case.edited(|spec| entries(spec).push(workload())).later("2026-01-04");
    let credential = &case.world.entry().unwrap().credentials["workload"];
    assert_eq!(credential.tokens_revoked_before, Some(at("2026-01-04")), "a new entry of the name revives nothing");
    assert_eq!(credential.revoked_before, None);
}

/// A registration that somebody's finalizer holds.
fn going(case: Case) -> Case {
    let mut case = case.settled();
    case.world.registration.is_terminating = true;
    case
}

#[test]
fn a_registration_that_is_being_deleted_gets_nothing_new() {
    let case = going(issued("billing", "2026-01-01")).with_secret_deleted("billing");
    check(
        case,
        "2026-03-25",
        expect![[r#"
        Ready=False Terminating: The registration is being deleted: nothing is minted for it, and its client ends. See metadata.finalizers for who holds the object
        Approved=True Granted
        Reconciling=True Terminating: The registration is being deleted: nothing is minted for it, and its client ends. See metadata.finalizers for who holds the object
        wake never
        = PUT status
    "#]],
    );
}

#[test]
fn a_revocation_counts_for_a_registration_that_is_being_deleted() {
    let case = going(issued("billing", "2026-01-01"));
    let case = case.edited(|spec| spec.revoke_minted_before = Some("2026-01-02T00:00:00Z".into()));
    check(
        case,
        "2026-01-02",
        expect![[r#"
        look at Secret billing
        --
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SpecChanged
        retire `web` revision 1 Revoked
        Ready=False Terminating: The registration is being deleted: nothing is minted for it, and its client ends. See metadata.finalizers for who holds the object
        Approved=True Granted
        Reconciling=True Terminating: The registration is being deleted: nothing is minted for it, and its client ends. See metadata.finalizers for who holds the object
        wake never
        = GET Secret billing, PUT ledger, PUT ledger, PUT status
    "#]],
    );
}

#[test]
fn a_withdrawal_counts_for_a_registration_that_is_being_deleted_and_a_new_item_does_not() {
    let asking = |spec: &mut AppRegistrationSpec, scopes: &[&str]| {
        spec.scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
    };
    let case = issued("billing", "2026-01-01").spec(|spec| asking(spec, &["read", "write"]));
    let case = going(case).edited(|spec| asking(spec, &["read", "admin"])).later("2026-01-02");
    assert_eq!(case.world.entry().unwrap().grant.scopes.keys().collect::<Vec<_>>(), ["read"]);
}

#[test]
fn a_registration_that_is_being_deleted_gets_no_client_once_its_own_has_ended() {
    let mut case = going(issued("billing", "2026-01-01"));
    case.world.ledger.clear();
    check(
        case,
        "2026-01-02",
        expect![[r#"
        Ready=False Terminating: The registration is being deleted: nothing is minted for it, and its client ends. See metadata.finalizers for who holds the object
        Approved=True Granted
        Reconciling=True Terminating: The registration is being deleted: nothing is minted for it, and its client ends. See metadata.finalizers for who holds the object
        wake never
        = PUT status
    "#]],
    );
}

#[test]
fn a_secret_that_is_refused_in_a_dry_run_costs_no_revision_and_whose_refusal_it_was_is_said() {
    let mut case = issued("billing", "2026-01-01").with_secret_deleted("billing");
    case.alter = Some(|facts| {
        let text =
            "The Secret billing could not be written: 403 Forbidden: admission webhook \"guard\" denied the request";
        facts.refusals = std::collections::BTreeMap::from([(
            "billing".to_owned(),
            super::Problem::new(Reason::SecretRefused, text),
        )]);
    });
    let plan = case.decided(at("2026-01-02"));
    assert!(plan.mints.is_empty() && plan.steps.is_empty(), "{plan}");
    let reconciling = plan.status.conditions.iter().find(|c| c.type_ == "Reconciling").unwrap();
    assert_eq!(reconciling.reason, "SecretRefused");
    assert!(reconciling.message.contains("webhook \"guard\" denied"), "{}", reconciling.message);
}
