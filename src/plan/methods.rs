//! How a client may authenticate, and by which grants it gets tokens: as the spec says, else by what its credentials can
//! do.

use crate::api::{self, AppRegistrationSpec, GrantType, Kind, Reason, TokenEndpointAuthMethod as Method};
use crate::ledger::{Entry, Verifier};

use super::Problem;
use super::given::{self, Given};

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

/// How the client may authenticate, and what is wrong with the method that it names. `before` is what the ledger has.
#[must_use]
pub(super) fn allowed(
    spec: &AppRegistrationSpec,
    before: Option<&Entry>,
    given: &[(Given, given::Verdict)],
) -> (Vec<Method>, Option<Problem>) {
    let entries = spec.effective_credentials();
    let has_unknown = entries.iter().any(|entry| entry.kind().is_none());
    let mut possible: Vec<Method> =
        entries.iter().filter_map(api::Entry::kind).flat_map(|kind| of_kind(kind).iter().copied()).collect();
    if given.iter().any(|(_, verdict)| has_certificate(verdict)) {
        possible.push(Method::SelfSignedTlsClientAuth);
    }
    if entries.is_empty() {
        possible.push(Method::None);
    }
    let mut methods = match spec.token_endpoint_auth_method {
        Some(method) => vec![method],
        // One way to send a client secret is enough, and the header is the one that every server has.
        None => possible.iter().copied().filter(|method| *method != Method::ClientSecretPost).collect(),
    };
    let problem = spec.token_endpoint_auth_method.filter(|m| !has_unknown && !possible.contains(m)).map(|method| {
        let message = format!("spec.tokenEndpointAuthMethod: {method} {}", need(method));
        Problem::new(Reason::InvalidSpec, message)
    });
    if has_unknown {
        // What an entry of a kind that a later version knows can do is not known here: nothing is taken from it.
        methods.extend(before.iter().flat_map(|entry| &entry.grant.auth_methods));
    }
    methods.sort_unstable();
    methods.dedup();
    (methods, problem)
}

/// The grants that the client may use; never empty, which would mean all. A public client has nothing to use
/// `client_credentials` with.
#[must_use]
pub(super) fn grant_types(spec: &AppRegistrationSpec) -> Vec<GrantType> {
    let is_public = spec.effective_credentials().is_empty();
    let mut types = spec.grant_types.clone();
    if types.is_empty() {
        types.push(GrantType::ClientCredentials);
        if !spec.redirect_uris.is_empty() {
            types.extend([GrantType::AuthorizationCode, GrantType::RefreshToken]);
        }
    }
    types.retain(|grant| !is_public || *grant != GrantType::ClientCredentials);
    if types.is_empty() {
        types.push(GrantType::AuthorizationCode);
    }
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
        Method::None => "is for public clients: set credentials: [], or another method",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ClientSecret, Entry as CredentialEntry};

    #[test]
    fn grant_types_are_recorded_as_they_count() {
        use GrantType::{AuthorizationCode, ClientCredentials, RefreshToken};
        let redirect_uris = vec!["https://shop.example/cb".to_owned()];
        let public = Some(Vec::new());
        let plain = AppRegistrationSpec::default();
        let with_uris = AppRegistrationSpec { redirect_uris, ..plain.clone() };
        for (spec, expected) in [
            (plain.clone(), vec![ClientCredentials]),
            (with_uris.clone(), vec![ClientCredentials, AuthorizationCode, RefreshToken]),
            (
                AppRegistrationSpec { grant_types: vec![AuthorizationCode, ClientCredentials], ..with_uris.clone() },
                vec![ClientCredentials, AuthorizationCode],
            ),
            (
                AppRegistrationSpec { credentials: public.clone(), ..with_uris.clone() },
                vec![AuthorizationCode, RefreshToken],
            ),
            (AppRegistrationSpec { credentials: public.clone(), ..plain.clone() }, vec![AuthorizationCode]),
            (
                AppRegistrationSpec { credentials: public, grant_types: vec![ClientCredentials], ..plain },
                vec![AuthorizationCode],
            ),
        ] {
            assert_eq!(grant_types(&spec), expected, "{spec:?}");
        }
    }

    #[test]
    fn a_client_secret_is_sent_in_the_header_unless_the_spec_says_otherwise() {
        let entry =
            CredentialEntry { name: "web".into(), client_secret: Some(ClientSecret {}), ..CredentialEntry::default() };
        let mut spec = AppRegistrationSpec { credentials: Some(vec![entry]), ..AppRegistrationSpec::default() };
        assert_eq!(allowed(&spec, None, &[]), (vec![Method::ClientSecretBasic], None));
        spec.token_endpoint_auth_method = Some(Method::ClientSecretPost);
        assert_eq!(allowed(&spec, None, &[]), (vec![Method::ClientSecretPost], None));
        spec.token_endpoint_auth_method = Some(Method::TlsClientAuth);
        let (methods, problem) = allowed(&spec, None, &[]);
        assert_eq!(methods, [Method::TlsClientAuth], "the one that is registered is the only one");
        assert_eq!(
            problem.unwrap().message,
            "spec.tokenEndpointAuthMethod: tls_client_auth needs a certificate: add one, or set another method"
        );
    }
}
