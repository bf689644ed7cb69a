//! How a client may authenticate, and by which grants it gets tokens: as the spec says, else by what its credentials can
//! do.

use crate::api::{self, AppRegistrationSpec, GrantType, Kind, Reason, TokenEndpointAuthMethod as Method};
use crate::ledger::{Entry, Verifier};
use crate::policy::Governance;

use super::Problem;
use super::given::{self, Given};

/// The field of a chosen method.
const AUTH_METHOD: &str = "spec.tokenEndpointAuthMethod";

/// What a kind of credential can do, the usual way first. A public key that is a certificate can do one more.
#[must_use]
pub(super) const fn of_kind(kind: Kind) -> &'static [Method] {
    match kind {
        Kind::ClientSecret => &[Method::ClientSecretBasic, Method::ClientSecretPost],
        Kind::Certificate => &[Method::TlsClientAuth, Method::PrivateKeyJwt],
        Kind::PublicKey | Kind::ServiceAccount => &[Method::PrivateKeyJwt],
        Kind::AccessToken => &[],
    }
}

/// How the client may authenticate, and what is wrong with the methods that it asks for. `before` is what the ledger has:
/// it stays, whatever policies say, as long as it is asked for.
#[must_use]
pub(super) fn allowed(
    spec: &AppRegistrationSpec,
    before: Option<&Entry>,
    given: &[(Given, given::Verdict)],
    governance: &Governance,
) -> (Vec<Method>, Vec<Problem>) {
    let entries = spec.effective_credentials();
    let has_unknown = entries.iter().any(|entry| entry.kind().is_none());
    let mut possible: Vec<Method> =
        entries.iter().filter_map(api::Entry::kind).flat_map(|kind| of_kind(kind).iter().copied()).collect();
    if given.iter().any(|(_, verdict)| has_certificate(verdict)) {
        possible.push(Method::SelfSignedTlsClientAuth);
    }
    if spec.is_public() {
        possible.push(Method::None);
    }
    let mut methods = match spec.token_endpoint_auth_method {
        Some(method) => vec![method],
        // One way to send a client secret is enough, and the header is the one that every server has.
        None => possible.iter().copied().filter(|method| *method != Method::ClientSecretPost).collect(),
    };
    let problem = spec.token_endpoint_auth_method.filter(|m| !has_unknown && !possible.contains(m)).map(|method| {
        let text = format!("{method} {}", need(method));
        Problem::of_field(Reason::InvalidSpec, AUTH_METHOD, text)
    });
    if has_unknown {
        // What an entry of a kind that a later version knows can do is not known here: nothing is taken from it.
        methods.extend(before.iter().flat_map(|entry| &entry.grant.auth_methods));
    }
    methods.sort_unstable();
    methods.dedup();
    let had = before.map(|entry| entry.grant.auth_methods.as_slice()).unwrap_or_default();
    let (granted, denied): (Vec<_>, Vec<_>) =
        methods.into_iter().partition(|m| had.contains(m) || governance.allows_auth_method(*m));
    let problems = problem.into_iter().chain(denied_by_policy(spec, &granted, &denied)).collect();
    (or_else_had(granted, &denied, had), problems)
}

/// What is said of methods that no policy allows: one that is not named and not needed is not missed.
fn denied_by_policy(spec: &AppRegistrationSpec, granted: &[Method], denied: &[Method]) -> Option<Problem> {
    if denied.is_empty() || (spec.token_endpoint_auth_method.is_none() && !granted.is_empty()) {
        return None;
    }
    let names = denied.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = format!(
        "{names} is not allowed by any policy of the namespace: use a method that is, and a credential for it, or add it to \
         tokenEndpointAuthMethods of a RegistrationPolicy"
    );
    Some(Problem::of_field(Reason::PolicyDenied, AUTH_METHOD, text))
}

/// What was in force stays so while what takes its place is refused.
fn or_else_had<T: Clone>(granted: Vec<T>, denied: &[T], had: &[T]) -> Vec<T> {
    if granted.is_empty() && !denied.is_empty() { had.to_vec() } else { granted }
}

/// The grants that the client may use, and what is wrong with those that it asks for. What the ledger has of them stays.
#[must_use]
pub(super) fn grant_types(
    spec: &AppRegistrationSpec,
    before: Option<&Entry>,
    governance: &Governance,
) -> (Vec<GrantType>, Option<Problem>) {
    // An entry from before they were recorded has them all.
    let had = before.map(|entry| entry.grant.grant_types.clone().unwrap_or_else(|| GrantType::ALL.into()));
    let had = had.unwrap_or_default();
    let (granted, denied): (Vec<_>, Vec<_>) =
        asked_grant_types(spec).into_iter().partition(|t| had.contains(t) || governance.allows_grant_type(*t));
    let problem = (!denied.is_empty()).then(|| {
        let names = denied.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let text = format!(
            "{names} is not allowed by any policy of the namespace: list others, or add it to grantTypes of a \
             RegistrationPolicy"
        );
        Problem::of_field(Reason::PolicyDenied, "spec.grantTypes", text)
    });
    (or_else_had(granted, &denied, &had), problem)
}

/// The grants that are asked for. A public client has nothing to use `client_credentials` with.
fn asked_grant_types(spec: &AppRegistrationSpec) -> Vec<GrantType> {
    let is_public = spec.is_public();
    let mut types = spec.grant_types.clone();
    if types.is_empty() {
        types.push(GrantType::ClientCredentials);
        if !spec.redirect_uris.is_empty() {
            types.extend([GrantType::AuthorizationCode, GrantType::RefreshToken]);
        }
    }
    types.retain(|grant| !is_public || *grant != GrantType::ClientCredentials);
    types.sort_unstable();
    types.dedup();
    types
}

/// Whether something that was ever taken up is a certificate: an ended one takes no method away, so that time alone
/// changes no grant.
fn has_certificate(verdict: &given::Verdict) -> bool {
    let revisions = verdict.credential.iter().flat_map(|credential| &credential.revisions);
    revisions.into_iter().any(|revision| matches!(revision.verifier, Verifier::Certificate(_)))
}

/// What a method needs.
const fn need(method: Method) -> &'static str {
    match method {
        Method::ClientSecretBasic | Method::ClientSecretPost => "needs a clientSecret: add one, or set another method",
        Method::PrivateKeyJwt => "needs a certificate, a publicKey or a serviceAccount: add one, or set another method",
        Method::TlsClientAuth => "needs a certificate: add one, or set another method",
        Method::SelfSignedTlsClientAuth => {
            "needs a publicKey that is a certificate and is accepted: add one, or set another method"
        }
        Method::None => "is for public clients: set clientType: Public, or another method",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ClientSecret, ClientType, Entry as CredentialEntry, RegistrationPolicySpec};
    use crate::policy::Rules;

    fn permissive() -> Governance {
        Governance { policies: vec![Rules::default().into()], ..Governance::default() }
    }

    fn allowing(spec: &RegistrationPolicySpec) -> Governance {
        let rules = Rules::of_object("p", spec).unwrap();
        Governance { policies: vec![rules.into()], ..Governance::default() }
    }

    #[test]
    fn grant_types_are_recorded_as_they_count() {
        use GrantType::{AuthorizationCode, ClientCredentials, RefreshToken};
        let redirect_uris = vec!["https://shop.example/cb".to_owned()];
        let public = Some(ClientType::Public);
        let plain = AppRegistrationSpec::default();
        let with_uris = AppRegistrationSpec { redirect_uris, ..plain.clone() };
        for (spec, expected) in [
            (plain.clone(), vec![ClientCredentials]),
            (with_uris.clone(), vec![ClientCredentials, AuthorizationCode, RefreshToken]),
            (
                AppRegistrationSpec { grant_types: vec![AuthorizationCode, ClientCredentials], ..with_uris.clone() },
                vec![ClientCredentials, AuthorizationCode],
            ),
            (AppRegistrationSpec { client_type: public, ..with_uris.clone() }, vec![AuthorizationCode, RefreshToken]),
            (AppRegistrationSpec { client_type: public, ..plain.clone() }, vec![]),
            (AppRegistrationSpec { client_type: public, grant_types: vec![ClientCredentials], ..plain }, vec![]),
        ] {
            assert_eq!(asked_grant_types(&spec), expected, "{spec:?}");
        }
    }

    #[test]
    fn a_client_secret_is_sent_in_the_header_unless_the_spec_says_otherwise() {
        let entry =
            CredentialEntry { name: "web".into(), client_secret: Some(ClientSecret {}), ..CredentialEntry::default() };
        let mut spec = AppRegistrationSpec { credentials: Some(vec![entry]), ..AppRegistrationSpec::default() };
        assert_eq!(allowed(&spec, None, &[], &permissive()), (vec![Method::ClientSecretBasic], vec![]));
        spec.token_endpoint_auth_method = Some(Method::ClientSecretPost);
        assert_eq!(allowed(&spec, None, &[], &permissive()), (vec![Method::ClientSecretPost], vec![]));
        spec.token_endpoint_auth_method = Some(Method::TlsClientAuth);
        let (methods, problems) = allowed(&spec, None, &[], &permissive());
        assert_eq!(methods, [Method::TlsClientAuth], "the one that is registered is the only one");
        assert_eq!(
            problems[0].message.to_string(),
            "Field spec.tokenEndpointAuthMethod: tls_client_auth needs a certificate: add one, or set another method"
        );
    }

    #[test]
    fn a_policy_takes_away_no_method_and_no_grant_that_is_in_use() {
        let spec = AppRegistrationSpec::default();
        let narrow = allowing(&RegistrationPolicySpec {
            token_endpoint_auth_methods: Some(vec![Method::PrivateKeyJwt]),
            grant_types: Some(vec![]),
            ..RegistrationPolicySpec::default()
        });
        let (methods, problems) = allowed(&spec, None, &[], &narrow);
        assert_eq!((methods.as_slice(), problems.len()), (&[][..], 1), "what is new is refused");
        let (types, problem) = grant_types(&spec, None, &narrow);
        assert_eq!((types.as_slice(), problem.is_some()), (&[][..], true));

        let mut world = crate::plan::model::World::new("billing");
        world.converge(&mut crate::plan::model::Memory::default(), crate::plan::model::at("2026-01-01"));
        let mut entry = world.entry().unwrap().clone();
        entry.grant.auth_methods = vec![Method::ClientSecretBasic];
        entry.grant.grant_types = Some(vec![GrantType::ClientCredentials]);
        assert_eq!(allowed(&spec, Some(&entry), &[], &narrow), (vec![Method::ClientSecretBasic], vec![]));
        assert_eq!(grant_types(&spec, Some(&entry), &narrow), (vec![GrantType::ClientCredentials], None));
        let other = AppRegistrationSpec { token_endpoint_auth_method: Some(Method::ClientSecretPost), ..spec };
        let (methods, problems) = allowed(&other, Some(&entry), &[], &narrow);
        assert_eq!((methods.as_slice(), problems.len()), (&[Method::ClientSecretBasic][..], 1), "the old one stays");
    }
}
