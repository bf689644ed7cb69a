//! Authorization servers that do not take the namespace, or whose keys are not there.

use super::*;
use crate::plan::facts::Admission;

fn closed() -> Admission {
    Admission::Closed("the authorization server partners takes no registrations of the namespace shop".into())
}

#[test]
fn nothing_new_begins_at_a_server_that_does_not_take_the_namespace() {
    let mut case = applied("billing");
    case.world.admission = closed();
    check(
        case,
        "2026-01-01",
        expect![[r#"
            Ready=False ServerDenied: Field spec.authorizationServerRef.name: the authorization server partners takes no registrations of the namespace shop
            Approved=False ServerDenied: Field spec.authorizationServerRef.name: the authorization server partners takes no registrations of the namespace shop
            Stalled=True ServerDenied: Field spec.authorizationServerRef.name: the authorization server partners takes no registrations of the namespace shop
            wake 2026-01-01T00:05:00Z
            = PUT status
        "#]],
    );
}

#[test]
fn what_exists_at_a_server_goes_on_when_it_takes_the_namespace_no_longer() {
    let mut case = issued("billing", "2026-01-01").lives("90d").renew_before("30d").settled();
    case.world.admission = closed();
    check(
        case,
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
            Approved=False ServerDenied: Field spec.authorizationServerRef.name: the authorization server partners takes no registrations of the namespace shop
            wake 2026-04-30T10:58:55Z
            Event RenewalDue: Credential web was replaced by revision 2, which is valid until 2026-06-03T00:00:00Z. The renewal time of the credential has come
            = GET Secret billing, PUT ledger, PUT Secret billing, PUT status
        "#]],
    );
}

#[test]
fn a_credential_that_is_new_waits_for_a_server_that_takes_the_namespace_and_the_others_go_on() {
    let mut case = issued("billing", "2026-01-01").edited(|spec| entries(spec).push(token("new", &[])));
    case.world.admission = closed();
    check(
        case,
        "2026-01-02",
        expect![[r#"
            Ready=False ServerDenied: Field spec.credentials[new]: the authorization server partners takes no registrations of the namespace shop
            Approved=False ServerDenied: Field spec.credentials[new]: the authorization server partners takes no registrations of the namespace shop
            Stalled=True ServerDenied: Field spec.credentials[new]: the authorization server partners takes no registrations of the namespace shop
            wake 2026-02-25T03:22:44Z
            = PUT status
        "#]],
    );
}

#[test]
fn a_server_whose_keys_are_not_there_is_waited_for() {
    let mut case = issued("billing", "2026-01-01").settled();
    case.world.admission =
        Admission::Unavailable("The authorization server partners has no keys yet: the controller retries".into());
    check(
        case,
        "2026-03-05",
        expect![[r#"
            Ready=True Issued
            Approved=True Granted
            Reconciling=True ServerUnavailable: The authorization server partners has no keys yet: the controller retries
            wake 2026-03-05T00:05:00Z
            = PUT status
        "#]],
    );
}
