//! Credentials that are given and not minted: public keys, certificates from elsewhere, `ServiceAccount`s; and clients that
//! have no credential at all.

use serde_json::json;

use super::*;
use crate::api::{
    ClientType, ConditionType, GrantType, LongestDuration, PublicKey, ServiceAccount, TokenEndpointAuthMethod,
};
use crate::credential::public_key::tests::{certificate_pem, key_pem, pem, private_key};
use crate::ledger::Verifier;
use crate::rotation::NO_END;

/// An entry with this file.
fn upload(name: &str, pem: String) -> Entry {
    let public_key = Some(PublicKey { pem: Some(pem), der: None });
    Entry { name: name.into(), public_key, ..Entry::default() }
}

/// A certificate of the key with this number, valid for these days.
fn uploaded_certificate(name: &str, number: u8, from: &str, until: &str) -> Entry {
    upload(name, certificate_pem(number, at(from), at(until)))
}

fn uploaded_key(name: &str, number: u8) -> Entry {
    upload(name, key_pem(number))
}

fn service_account(name: &str, of: &str) -> Entry {
    let service_account = Some(ServiceAccount { name: of.into() });
    Entry { name: name.into(), service_account, ..Entry::default() }
}

/// A registration with a certificate for the year 2026, taken up on its second day.
fn partner() -> Case {
    issued_with("billing", "2026-01-02", vec![uploaded_certificate("partner", 1, "2026-01-01", "2027-01-01")])
}

/// Another file in the only entry.
fn with_file(case: Case, pem: String) -> Case {
    case.edited(|spec| entries(spec)[0] = upload("partner", pem))
}

/// The ledger entry once everything is done at this time.
fn recorded(case: Case, now: &str) -> ledger::Entry {
    case.settled().later(now).world.entry().unwrap().clone()
}

#[test]
fn an_uploaded_certificate_costs_one_ledger_write_and_one_status_write_and_no_secret() {
    check(
        applied("billing").asking(vec![uploaded_certificate("partner", 1, "2026-01-01", "2027-01-01")]),
        "2026-01-02",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
              given `partner` revision 1 TakenUp, until 2027-01-01T00:00:00Z
            Ready=True Issued
            Approved=True Granted
            wake 2027-01-01T00:00:00Z
            = POST ledger, PUT status
        "#]],
    );
}

#[test]
fn a_key_without_a_certificate_has_no_end() {
    check(
        applied("billing").asking(vec![uploaded_key("partner", 1)]),
        "2026-01-02",
        expect![[r#"
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
          given `partner` revision 1 TakenUp
        Ready=True Issued
        Approved=True Granted
        wake never
        = POST ledger, PUT status
    "#]],
    );
}

#[test]
fn a_service_account_alone_is_a_ledger_entry_and_nothing_else() {
    check(
        applied("billing").asking(vec![service_account("workload", "storefront")]),
        "2026-01-02",
        expect![[r#"
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
          given `workload` TakenUp
        Ready=True Issued
        Approved=True Granted
        wake never
        = POST ledger, PUT status
    "#]],
    );
}

#[test]
fn what_is_given_stands_beside_what_is_minted() {
    check(
        applied("billing").asking(vec![
            client_secret("web"),
            uploaded_certificate("partner", 1, "2026-01-01", "2027-01-01"),
            service_account("workload", "storefront"),
        ]),
        "2026-01-02",
        expect![[r#"
            mint clientSecret `web` revision 1  2026-01-02T00:00:00Z … 2026-04-02T00:00:00Z  FirstMint
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
              given `partner` revision 1 TakenUp, until 2027-01-01T00:00:00Z
              given `workload` TakenUp
            publish billing (create)  FirstMint
              client_secret ← minted for `web`
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-26T03:22:44Z
            = POST ledger, POST Secret billing, PUT status
        "#]],
    );
}

#[test]
fn another_file_replaces_the_first_in_one_write() {
    let newer = certificate_pem(2, at("2026-05-01"), at("2027-05-01"));
    check(
        with_file(partner(), newer),
        "2026-06-01",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SpecChanged
              given `partner` revision 2 SpecChanged, until 2027-05-01T00:00:00Z
            Ready=True Issued
            Approved=True Granted
            wake 2027-05-01T00:00:00Z
            Event SpecChanged: Credential partner: revision 2 is now accepted until 2027-05-01T00:00:00Z; earlier revisions are not
            = PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn a_newer_certificate_of_the_same_key_replaces_the_older() {
    let newer = certificate_pem(1, at("2026-05-01"), at("2027-05-01"));
    check(
        with_file(partner(), newer),
        "2026-06-01",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SpecChanged
              given `partner` revision 2 SpecChanged, until 2027-05-01T00:00:00Z
            Ready=True Issued
            Approved=True Granted
            wake 2027-05-01T00:00:00Z
            Event SpecChanged: Credential partner: revision 2 is now accepted until 2027-05-01T00:00:00Z; earlier revisions are not
            = PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn a_second_entry_is_how_a_person_rotates_with_overlap() {
    let newer = uploaded_certificate("partner-2027", 2, "2026-12-01", "2028-01-01");
    check(
        partner().edited(|spec| entries(spec).push(newer)),
        "2026-12-10",
        expect![[r#"
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  TakenUp
          given `partner-2027` revision 1 TakenUp, until 2028-01-01T00:00:00Z
        Ready=True Issued
        Approved=True Granted
        wake 2027-01-01T00:00:00Z
        = PUT ledger, PUT status
    "#]],
    );
}

#[test]
fn an_ended_certificate_is_refused_from_its_end_on_and_a_person_is_told() {
    check(
        partner(),
        "2027-01-01",
        expect![[r#"
            Ready=False Expired: Field spec.credentials[partner].publicKey: the certificate ended at 2027-01-01T00:00:00Z: write a newer one
            Approved=True Granted
            Stalled=True Expired: Field spec.credentials[partner].publicKey: the certificate ended at 2027-01-01T00:00:00Z: write a newer one
            wake never
            = PUT status
        "#]],
    );
}

#[test]
fn a_certificate_that_has_ended_already_is_not_taken_up() {
    check(
        applied("billing").asking(vec![uploaded_certificate("partner", 1, "2024-01-01", "2025-01-01")]),
        "2026-01-02",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            Ready=False Expired: Field spec.credentials[partner].publicKey: the certificate ended at 2025-01-01T00:00:00Z: write a newer one
            Approved=True Granted
            Stalled=True Expired: Field spec.credentials[partner].publicKey: the certificate ended at 2025-01-01T00:00:00Z: write a newer one
            wake never
            = POST ledger, PUT status
        "#]],
    );
}

#[test]
fn a_certificate_that_is_not_valid_yet_waits_for_its_beginning() {
    check(
        applied("billing").asking(vec![uploaded_certificate("partner", 1, "2026-02-01", "2027-02-01")]),
        "2026-01-02",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            Ready=False Progressing: Field spec.credentials[partner].publicKey: the certificate is valid from 2026-02-01T00:00:00Z on: it is accepted from then on
            Approved=True Granted
            Reconciling=True Progressing: Field spec.credentials[partner].publicKey: the certificate is valid from 2026-02-01T00:00:00Z on: it is accepted from then on
            wake 2026-02-01T00:00:00Z
            = POST ledger, PUT status
        "#]],
    );
}

#[test]
fn until_a_certificate_is_valid_the_one_before_goes_on() {
    let newer = certificate_pem(2, at("2026-07-01"), at("2027-07-01"));
    let case = with_file(partner(), newer);
    check(
        case,
        "2026-06-01",
        expect![[r#"
            Ready=True Issued
            Approved=True Granted
            Reconciling=True Progressing: Field spec.credentials[partner].publicKey: the certificate is valid from 2026-07-01T00:00:00Z on: it is accepted from then on
            wake 2026-07-01T00:00:00Z
            = PUT status
        "#]],
    );
}

#[test]
fn a_certificate_is_taken_up_when_its_validity_begins() {
    let newer = certificate_pem(2, at("2026-07-01"), at("2027-07-01"));
    check(
        with_file(partner(), newer).later("2026-06-01"),
        "2026-07-01",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SpecChanged
              given `partner` revision 2 SpecChanged, until 2027-07-01T00:00:00Z
            Ready=True Issued
            Approved=True Granted
            wake 2027-07-01T00:00:00Z
            Event SpecChanged: Credential partner: revision 2 is now accepted until 2027-07-01T00:00:00Z; earlier revisions are not
            = PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn what_cannot_be_read_is_named_without_being_repeated_and_nothing_begins() {
    check(
        applied("billing").asking(vec![upload("partner", "canary".into())]),
        "2026-01-02",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            Ready=False InvalidSpec: Field spec.credentials[partner].publicKey: must be PEM: write the whole block from -----BEGIN CERTIFICATE----- or -----BEGIN PUBLIC KEY----- to its -----END line
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[partner].publicKey: must be PEM: write the whole block from -----BEGIN CERTIFICATE----- or -----BEGIN PUBLIC KEY----- to its -----END line
            wake never
            = POST ledger, PUT status
        "#]],
    );
}

#[test]
fn what_cannot_be_read_leaves_what_was_taken_up_before() {
    check(
        with_file(partner(), pem("CERTIFICATE", b"canary")),
        "2026-06-01",
        expect![[r#"
            Ready=True Issued
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[partner].publicKey: must be an undamaged X.509 certificate or public key (SubjectPublicKeyInfo): export it again
            wake 2027-01-01T00:00:00Z
            = PUT status
        "#]],
    );
}

#[test]
fn a_private_key_is_refused_and_said_to_be_leaked() {
    check(
        applied("billing").asking(vec![upload("partner", pem("CERTIFICATE", &private_key(1)))]),
        "2026-01-02",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
            Ready=False InvalidSpec: Field spec.credentials[partner].publicKey: must not be a private key: remove it, and treat it as leaked; write the certificate or the public key here
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[partner].publicKey: must not be a private key: remove it, and treat it as leaked; write the certificate or the public key here
            wake never
            = POST ledger, PUT status
        "#]],
    );
}

#[test]
fn a_revoked_key_ends_and_is_not_taken_up_again() {
    let case = partner().edited(|spec| entries(spec)[0].revoke_minted_before = Some("2026-03-01T00:00:00Z".into()));
    check(
        case,
        "2026-03-01",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  Revoked
              given `partner` revision 1 Revoked, until 2026-03-01T00:00:00Z
            Ready=False Revoked: Field spec.credentials[partner].publicKey: the key was revoked by revokeMintedBefore: write another one
            Approved=True Granted
            Stalled=True Revoked: Field spec.credentials[partner].publicKey: the key was revoked by revokeMintedBefore: write another one
            wake never
            Event Revoked: Credential partner: revision 1 was revoked; access tokens obtained with it are rejected
            = PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn a_watermark_to_come_sets_a_wake_for_a_key_as_well() {
    let case = partner().edited(|spec| spec.revoke_minted_before = Some("2026-03-01T00:00:00Z".into()));
    check(
        case,
        "2026-02-01",
        expect![[r#"
        Ready=True Issued
        Approved=True Granted
        wake 2026-03-01T00:00:00Z
        = PUT status
    "#]],
    );
}

#[test]
fn another_certificate_of_a_revoked_key_is_not_taken_up_either() {
    let case = partner().annotated(names::REVOKE_MINTED_BEFORE_ANNOTATION, "partner=2026-03-01T00:00:00Z");
    let newer = certificate_pem(1, at("2026-03-01"), at("2027-03-01"));
    check(
        with_file(case.later("2026-03-01"), newer),
        "2026-03-02",
        expect![[r#"
            Ready=False Revoked: Field spec.credentials[partner].publicKey: the key was revoked by revokeMintedBefore: write another one
            Approved=True Granted
            Stalled=True Revoked: Field spec.credentials[partner].publicKey: the key was revoked by revokeMintedBefore: write another one
            wake never
            = PUT status
        "#]],
    );
}

#[test]
fn after_a_revocation_another_key_is_taken_up_while_the_watermark_still_stands() {
    let case = partner().edited(|spec| spec.revoke_minted_before = Some("2026-03-01T00:00:00Z".into()));
    let case = case.later("2026-03-01").edited(|spec| {
        entries(spec)[0].public_key = Some(PublicKey { pem: Some(key_pem(2)), der: None });
    });
    check(
        case,
        "2026-03-02",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SpecChanged
              given `partner` revision 2 SpecChanged
            Ready=True Issued
            Approved=True Granted
            wake never
            Event SpecChanged: Credential partner: revision 2 is now accepted; earlier revisions are not
            = PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn a_revoked_key_is_remembered_behind_another_one_and_without_its_watermark() {
    let case = partner().edited(|spec| spec.revoke_minted_before = Some("2026-03-01T00:00:00Z".into()));
    let case = with_file(case.later("2026-03-01"), key_pem(2)).later("2026-03-02");
    let case = case.edited(|spec| spec.revoke_minted_before = None).later("2026-03-03");
    check(
        with_file(case, certificate_pem(1, at("2026-01-01"), at("2027-01-01"))),
        "2026-03-04",
        expect![[r#"
            Ready=True Issued
            Approved=True Granted
            Stalled=True Revoked: Field spec.credentials[partner].publicKey: the key was revoked by revokeMintedBefore: write another one
            wake never
            = PUT status
        "#]],
    );
}

#[test]
fn of_revoked_keys_as_many_are_remembered_as_there_is_room_for() {
    let mut case = partner();
    for number in 2..12 {
        let mark = format!("2026-{number:02}-01T00:00:00Z");
        case = case.edited(|spec| spec.revoke_minted_before = Some(mark.clone())).later(&mark);
        case = with_file(case, key_pem(number)).later(&format!("2026-{number:02}-02T00:00:00Z"));
    }
    let revisions: Vec<u64> =
        case.world.entry().unwrap().credentials["partner"].revisions.iter().map(|r| r.revision).collect();
    assert_eq!(revisions, (4..=11).collect::<Vec<u64>>());
}

#[test]
fn a_removed_entry_leaves_the_ledger() {
    let case = issued_with("billing", "2026-01-02", vec![client_secret("web"), uploaded_key("partner", 1)]);
    check(
        case.edited(|spec| drop(entries(spec).pop())),
        "2026-01-03",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  GrantChanged
            retire `partner` EntryRemoved
            Ready=True Issued
            Approved=True Granted
            wake 2026-02-26T03:22:44Z
            Event EntryRemoved: Credentials that were removed from the spec are no longer accepted: partner
            = PUT ledger, PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn a_given_credential_under_the_name_of_a_minted_one_takes_its_place_and_the_secret_goes() {
    let case = issued_with("billing", "2026-01-02", vec![client_secret("a")]);
    check(
        case.edited(|spec| entries(spec)[0] = service_account("a", "storefront")),
        "2026-01-03",
        expect![[r#"
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  TakenUp
          given `a` TakenUp
        remove Secret billing
        Ready=True Issued
        Approved=True Granted
        wake never
        = PUT ledger, DELETE Secret billing, PUT status
    "#]],
    );
}

#[test]
fn a_minted_credential_under_the_name_of_a_given_one_takes_its_place() {
    let case = issued_with("billing", "2026-01-02", vec![uploaded_key("a", 1)]);
    check(
        case.edited(|spec| entries(spec)[0] = client_secret("a")),
        "2026-01-03",
        expect![[r#"
        look at Secret billing
        --
        mint clientSecret `a` revision 1  2026-01-03T00:00:00Z … 2026-04-03T00:00:00Z  FirstMint
        accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  FirstMint
        publish billing (create)  FirstMint
          client_secret ← minted for `a`
        Ready=True Issued
        Approved=True Granted
        wake 2026-02-27T17:48:35Z
        = GET Secret billing, PUT ledger, POST Secret billing, PUT status
    "#]],
    );
}

#[test]
fn what_another_kind_had_under_the_name_goes_even_where_nothing_is_taken_up() {
    let case = issued_with("billing", "2026-01-02", vec![service_account("a", "storefront")]);
    check(
        case.edited(|spec| entries(spec)[0] = upload("a", "nothing".into())),
        "2026-01-03",
        expect![[r#"
            retire `a` EntryRemoved
            Ready=False InvalidSpec: Field spec.credentials[a].publicKey: must be PEM: write the whole block from -----BEGIN CERTIFICATE----- or -----BEGIN PUBLIC KEY----- to its -----END line
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[a].publicKey: must be PEM: write the whole block from -----BEGIN CERTIFICATE----- or -----BEGIN PUBLIC KEY----- to its -----END line
            wake never
            Event EntryRemoved: Credentials that were removed from the spec are no longer accepted: a
            = PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn two_entries_may_have_the_same_key() {
    check(
        applied("billing").asking(vec![uploaded_key("a", 1), uploaded_certificate("b", 1, "2026-01-01", "2027-01-01")]),
        "2026-01-02",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
              given `a` revision 1 TakenUp
              given `b` revision 1 TakenUp, until 2027-01-01T00:00:00Z
            Ready=True Issued
            Approved=True Granted
            wake 2027-01-01T00:00:00Z
            = POST ledger, PUT status
        "#]],
    );
}

#[test]
fn another_service_account_takes_the_place_of_the_first() {
    let case = issued_with("billing", "2026-01-02", vec![service_account("workload", "storefront")]);
    check(
        case.edited(|spec| entries(spec)[0] = service_account("workload", "checkout")),
        "2026-01-03",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  SpecChanged
              given `workload` SpecChanged
            Ready=True Issued
            Approved=True Granted
            wake never
            Event SpecChanged: Credential workload: its new ServiceAccount is now accepted; the former one is not
            = PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn a_revocation_refuses_the_tokens_that_a_service_account_had_until_then() {
    let case = issued_with("billing", "2026-01-02", vec![service_account("workload", "storefront")]);
    let case = case.edited(|spec| spec.revoke_minted_before = Some("2026-01-03T00:00:00Z".into()));
    check(
        case,
        "2026-01-03",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (replace)  Revoked
              given `workload` Revoked
            Ready=True Issued
            Approved=True Granted
            wake never
            Event Revoked: Credential workload was revoked: earlier tokens of its ServiceAccount, and access tokens obtained with them, are rejected
            = PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn a_kind_outside_the_policy_is_not_taken_up_but_what_exists_goes_on() {
    let case = partner().environment(|environment| environment.policy.credential_kinds = vec![]);
    let case = case.edited(|spec| {
        entries(spec).push(uploaded_key("other", 3));
        entries(spec).push(service_account("workload", "storefront"));
    });
    check(
        case,
        "2026-06-01",
        expect![[r#"
            Ready=False PolicyDenied: Field spec.credentials[other]: the kind PublicKey is not allowed by policy/default. Use another kind, or add it to credentialKinds
            Approved=False PolicyDenied: Field spec.credentials[other]: the kind PublicKey is not allowed by policy/default. Use another kind, or add it to credentialKinds. Field spec.credentials[workload]: the kind ServiceAccount is not allowed by policy/default. Use another kind, or add it to credentialKinds
            Stalled=True PolicyDenied: Field spec.credentials[other]: the kind PublicKey is not allowed by policy/default. Use another kind, or add it to credentialKinds
            wake 2027-01-01T00:00:00Z
            = PUT status
        "#]],
    );
}

#[test]
fn what_is_only_for_minted_credentials_is_named() {
    let mut entry = uploaded_key("partner", 1);
    entry.secret_name = Some("own".into());
    entry.effective_duration = Some("1d".into());
    check(
        applied("billing").asking(vec![entry]),
        "2026-01-02",
        expect![[r#"
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
              given `partner` revision 1 TakenUp
            Ready=True Issued
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.credentials[partner].secretName: must not be set for publicKey or serviceAccount credentials: remove it
            wake never
            = POST ledger, PUT status
        "#]],
    );
}

#[test]
fn a_clock_that_is_behind_takes_up_no_key() {
    let newer = certificate_pem(2, at("2025-01-01"), at("2027-05-01"));
    check(
        with_file(partner(), newer),
        "2026-01-01T23:50:00Z",
        expect![[r#"
            Ready=False ClockBehind: The controller's clock is behind: the ledger has a credential that was minted at 2026-01-02T00:00:00Z. Nothing is minted until the clock of the controller's node is corrected
            Approved=True Granted
            Reconciling=True ClockBehind: The controller's clock is behind: the ledger has a credential that was minted at 2026-01-02T00:00:00Z. Nothing is minted until the clock of the controller's node is corrected
            wake 2026-01-01T23:55:00Z
            = PUT status
        "#]],
    );
}

#[test]
fn a_key_is_taken_up_no_earlier_than_a_watermark_that_another_clock_has_seen() {
    let case = partner().edited(|spec| spec.revoke_minted_before = Some("2026-03-01T00:00:00Z".into()));
    let case = with_file(case.later("2026-03-01"), key_pem(2));
    let entry = recorded(case, "2026-02-28T23:59:30Z");
    assert_eq!(entry.credentials["partner"].revision(2).unwrap().minted_at, at("2026-03-01"));
}

#[test]
fn a_registration_that_was_recreated_takes_up_what_is_given_anew() {
    let case = applied("billing")
        .asking(vec![uploaded_key("partner", 1), service_account("workload", "storefront")])
        .spec(|spec| spec.client_id = Some("shop.billing".into()))
        .later("2026-01-02");
    check(
        case.with_uid("2222"),
        "2026-01-03",
        expect![[r#"
            look at the registration
            --
            accept shop.billing (replace)  TakenOver
              given `partner` revision 1 TakenUp
              given `workload` TakenUp
            Ready=True Issued
            Approved=True Granted
            wake never
            Event TakenOver: Client shop.billing now belongs to this registration. A new registration has the client ID of a deleted one of the same namespace and name, and none of its credentials
            = GET registration, PUT ledger, PUT status
        "#]],
    );
}

#[test]
fn an_audience_to_serve_is_granted_and_recorded() {
    let case = applied("billing").spec(|spec| spec.served_audiences = vec!["https://api.example".into()]);
    let entry = recorded(case, "2026-01-02");
    assert_eq!(
        serde_json::to_value(&entry.grant.served_audiences).unwrap(),
        json!({"https://api.example": "policy/default"})
    );
}

#[test]
fn grant_types_and_methods_are_recorded_by_what_the_credentials_can_do() {
    use TokenEndpointAuthMethod::{
        ClientSecretBasic, None as Public, PrivateKeyJwt, SelfSignedTlsClientAuth, TlsClientAuth,
    };
    let year = |name| uploaded_certificate(name, 1, "2026-01-01", "2027-01-01");
    for (entries, methods) in [
        (vec![client_secret("a")], vec![ClientSecretBasic]),
        (vec![certificate("a", &[])], vec![PrivateKeyJwt, TlsClientAuth]),
        (vec![uploaded_key("a", 1)], vec![PrivateKeyJwt]),
        (vec![year("a")], vec![PrivateKeyJwt, SelfSignedTlsClientAuth]),
        (vec![service_account("a", "b")], vec![PrivateKeyJwt]),
        (
            vec![client_secret("a"), certificate("b", &[]), year("c")],
            vec![ClientSecretBasic, PrivateKeyJwt, TlsClientAuth, SelfSignedTlsClientAuth],
        ),
        (vec![], vec![Public]),
    ] {
        let grants = if entries.is_empty() { vec![] } else { vec![GrantType::ClientCredentials] };
        let is_public = entries.is_empty();
        let case = applied("billing").asking(entries);
        let case = case.spec(|spec| spec.client_type = is_public.then_some(ClientType::Public));
        let entry = recorded(case, "2026-01-02");
        assert_eq!((entry.grant.auth_methods, entry.grant.grant_types), (methods, Some(grants)));
    }
}

#[test]
fn the_end_of_a_certificate_takes_no_method_away() {
    let before = recorded(partner(), "2026-06-01");
    assert_eq!(recorded(partner(), "2027-06-01"), before, "nothing is written when time passes");
}

#[test]
fn a_method_that_no_credential_has_is_named() {
    let case = applied("billing").asking(vec![client_secret("web"), uploaded_key("partner", 1)]);
    check(
        case.spec(|spec| spec.token_endpoint_auth_method = Some(TokenEndpointAuthMethod::SelfSignedTlsClientAuth)),
        "2026-01-02",
        expect![[r#"
            mint clientSecret `web` revision 1  2026-01-02T00:00:00Z … 2026-04-02T00:00:00Z  FirstMint
            accept 0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10 (create)  FirstMint
              given `partner` revision 1 TakenUp
            publish billing (create)  FirstMint
              client_secret ← minted for `web`
            Ready=True Issued
            Approved=True Granted
            Stalled=True InvalidSpec: Field spec.tokenEndpointAuthMethod: self_signed_tls_client_auth needs a publicKey that is a certificate and is accepted: add one, or set another method
            wake 2026-02-26T03:22:44Z
            = POST ledger, POST Secret billing, PUT status
        "#]],
    );
}

#[test]
fn every_kind_remembers_its_revocation_for_the_tokens_that_were_had_with_it() {
    let entries = vec![
        client_secret("web"),
        certificate("mtls", &[]),
        uploaded_key("partner", 1),
        service_account("workload", "storefront"),
        token("api", &[]),
    ];
    let case = issued_with("billing", "2026-01-02", entries);
    let case = case.edited(|spec| spec.revoke_minted_before = Some("2026-01-03T00:00:00Z".into()));
    let entry = recorded(case, "2026-01-03");
    for (name, credential) in &entry.credentials {
        assert_eq!(credential.revoked_before, Some(at("2026-01-03")), "{name}");
    }
    let key = &entry.credentials["partner"].revisions;
    assert_eq!(key.iter().map(|r| r.not_after).collect::<Vec<_>>(), [at("2026-01-03")], "ended, and remembered");
}

#[test]
fn a_name_that_comes_to_an_existing_client_brings_back_no_tokens_of_a_former_one() {
    let case = issued_with("billing", "2026-01-02", vec![client_secret("web")]);
    let case = case.edited(|spec| {
        spec.credentials = Some(vec![
            client_secret("web"),
            certificate("mtls", &[]),
            uploaded_key("partner", 1),
            service_account("workload", "storefront"),
            token("api", &[]),
        ]);
    });
    let entry = recorded(case, "2026-01-03");
    let marks: Vec<_> = entry.credentials.iter().map(|(name, c)| (name.as_str(), c.revoked_before)).collect();
    let now = Some(at("2026-01-03"));
    assert_eq!(marks, [("api", now), ("mtls", now), ("partner", now), ("web", None), ("workload", None)]);
}

#[test]
fn the_status_shows_what_is_given_as_it_is() {
    let entries = vec![
        uploaded_certificate("partner", 1, "2026-01-01", "2027-01-01"),
        client_secret("web"),
        uploaded_key("key", 2),
        service_account("workload", "storefront"),
    ];
    let case = applied("billing").asking(entries).later("2026-01-02");
    let entry = case.world.entry().unwrap();
    let Verifier::Certificate(certificate) = &entry.credentials["partner"].revisions[0].verifier else { panic!() };
    let key = &entry.credentials["key"].revisions[0];
    assert_eq!(key.not_after, NO_END);
    let status = serde_json::to_value(&case.world.registration.status).unwrap();
    let given: Vec<_> = status["credentials"].as_array().unwrap().iter().filter(|c| c["name"] != "web").collect();
    assert_eq!(
        json!(given),
        json!([
            {"name": "partner", "kind": "PublicKey", "current": {
                "revision": 1, "thumbprint": certificate.cert_sha256.to_base64url(),
                "mintedTime": "2026-01-02T00:00:00Z", "notAfter": "2027-01-01T00:00:00Z"}},
            {"name": "key", "kind": "PublicKey", "current": {
                "revision": 1, "thumbprint": key.verifier.jwk().unwrap()["kid"], "mintedTime": "2026-01-02T00:00:00Z"}},
            {"name": "workload", "kind": "ServiceAccount", "subject": "system:serviceaccount:shop:storefront"},
        ])
    );
    assert_eq!(status["credentials"][1]["name"], "web", "in the order of the spec");
    assert_eq!(status["secrets"].as_array().unwrap().len(), 1);
    assert_eq!(
        applied("billing")
            .asking(vec![uploaded_certificate("partner", 1, "2026-01-01", "2027-01-01")])
            .later("2026-01-02")
            .world
            .registration
            .status
            .next_rotation_time
            .unwrap()
            .timestamp(),
        at("2027-01-01"),
        "the next change is the certificate's end"
    );
}

#[test]
fn a_registration_that_is_blocked_stays_ready_while_what_is_given_is_valid() {
    let entries = vec![uploaded_key("partner", 1), service_account("workload", "storefront")];
    let mut case = issued_with("billing", "2026-01-02", entries).settled();
    case.alter = Some(|facts| facts.ledger = facts::LedgerFact::Unreadable(Unreadable::TooLarge));
    let plan = case.decided(at("2026-01-03"));
    let ready = plan.status.conditions.iter().find(|c| c.type_ == ConditionType::Ready.as_str()).unwrap();
    assert_eq!(ready.status, "True");
}

#[test]
fn a_policy_bounds_how_long_an_uploaded_key_is_accepted() {
    let bounded = |case: Case| {
        case.environment(|environment| {
            environment.policy.durations.public_key = Some(LongestDuration { max: "90d".into() });
        })
    };
    let case = bounded(applied("billing").asking(vec![uploaded_key("partner", 1)]));
    let entry = recorded(case, "2026-01-02");
    assert_eq!(entry.credentials["partner"].revisions[0].not_after, at("2026-04-02"));
    check(
        bounded(applied("billing").asking(vec![uploaded_key("partner", 1)])).later("2026-01-02"),
        "2026-04-02",
        expect![[r#"
            Ready=False Expired: Field spec.credentials[partner].publicKey: the key was accepted for as long as the policies allow (durations.publicKey): write another one
            Approved=True Granted
            Stalled=True Expired: Field spec.credentials[partner].publicKey: the key was accepted for as long as the policies allow (durations.publicKey): write another one
            wake never
            = PUT status
        "#]],
    );
    let year = || vec![uploaded_certificate("partner", 1, "2026-01-01", "2026-02-01")];
    let entry = recorded(bounded(applied("billing").asking(year())), "2026-01-02");
    assert_eq!(entry.credentials["partner"].revisions[0].not_after, at("2026-02-01"), "its own end comes first");
    let case = applied("billing").asking(vec![uploaded_key("partner", 1)]).later("2026-01-02");
    let entry = recorded(bounded(case), "2026-06-01");
    assert_eq!(entry.credentials["partner"].revisions[0].not_after, NO_END, "what was taken up before goes on");
}
