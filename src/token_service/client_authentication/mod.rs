//! Who asks: the client's credentials in a request, in exactly one way (RFC 6749 §2.3), held against the ledger.
//!
//! Reading is pure, and what can be refused without knowing the client is refused there. Whether what was read is accepted
//! is decided by the ledger's entries in the directory: a revision is accepted if and only if it is in the ledger and
//! valid now (rule R1); nothing else is consulted. An unknown client costs the work of a known one.

pub mod assertion;
mod certificate;
mod client_secret;
mod service_account;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, header};
use jiff::Timestamp;

use super::directory::{Client, Directory, compare_in_vain};
use super::form::Form;
use super::issuer::Issuer;
use super::peer::Credit;
use super::refusal::Refusal;
use super::request::{Received, counted_address};
use super::service::Service;
use crate::api::TokenEndpointAuthMethod;
use crate::ledger::Digest;
use assertion::Assertion;
pub use client_secret::basic;

/// The methods that every endpoint with client authentication has, as the metadata says.
pub const METHODS: [TokenEndpointAuthMethod; 5] = [
    TokenEndpointAuthMethod::ClientSecretBasic,
    TokenEndpointAuthMethod::ClientSecretPost,
    TokenEndpointAuthMethod::PrivateKeyJwt,
    TokenEndpointAuthMethod::TlsClientAuth,
    TokenEndpointAuthMethod::SelfSignedTlsClientAuth,
];

/// A client that has proved who it is.
pub(super) struct Authenticated {
    pub(super) client: Arc<Client>,
    /// The credential entry that proved it.
    pub(super) entry: Arc<str>,
    /// The revision of it, of what has revisions.
    pub(super) revision: Option<u64>,
    /// The end of what proved it: no token outlives it.
    pub(super) not_after: Timestamp,
    /// The client certificate that proved it: tokens are bound to it (RFC 8705 §3).
    pub(super) certificate: Option<Digest>,
}

/// A client's claim to be who it says, as it stands in the request.
struct Presented<'a> {
    client_id: Cow<'a, str>,
    proof: Proof<'a>,
}

/// What the claim rests on.
enum Proof<'a> {
    /// SHA-256 of the client secret: nothing after this needs the client secret itself.
    ClientSecret(TokenEndpointAuthMethod, Digest),
    /// A JWT: by the client itself, or by the cluster for one of its `ServiceAccounts`.
    Assertion(Box<Assertion<'a>>),
    /// The client certificate of the connection.
    Certificate(Digest),
}

/// A claim that is ready to be held against the ledger, as often as need be.
enum Claim<'a> {
    ClientSecret(TokenEndpointAuthMethod, Digest),
    Assertion(Box<Assertion<'a>>),
    ServiceAccount(service_account::Verified),
    Certificate(Digest),
}

/// What a revision has proved.
struct Proved {
    method: TokenEndpointAuthMethod,
    entry: Arc<str>,
    revision: Option<u64>,
    not_after: Timestamp,
    certificate: Option<Digest>,
}

/// Checks what the client presents; before it is refused, its entry is read live. What fails counts against the client
/// that it named and the address that it came from. Where that read could not be made, nobody knows whether it fails: then
/// the answer is to ask again, and nothing counts against the client.
pub(super) async fn authenticate(
    service: &Service,
    received: &Received<'_>,
    form: &Form<'_>,
    now: Timestamp,
) -> Result<Authenticated, Refusal> {
    let certificate = received.peer().and_then(|peer| peer.certificate);
    let Presented { client_id, proof } = presented(&received.parts.headers, form, certificate)?;
    let credit = received.credit().filter(|_| matches!(proof, Proof::Assertion(_)));
    let address = counted_address(received.parts);
    let attempt = Attempt { issuer: received.issuer, client_id: &client_id, address, credit, now };
    let result = attempt.succeed(service, form, proof).await;
    let failed = match &result {
        Ok(_) => {
            credit.inspect(|credit| credit.earn());
            return result;
        }
        Err(Refusal::NotFoundOut) => service.failures.record_unknown(address, now),
        Err(refusal) if refusal.is_authentication_failure() => {
            service.failures.record((&*received.issuer.server.name, &*client_id), address, now)
        }
        Err(refusal @ Refusal::TooManyFailures) => Err(*refusal),
        Err(_) => return result,
    };
    credit.inspect(|credit| credit.spend());
    failed.and(result)
}

/// Somebody's attempt to be a client.
struct Attempt<'a> {
    issuer: &'a Issuer,
    client_id: &'a str,
    address: IpAddr,
    /// What its connection may still try; `None` for a proof that costs nothing to verify.
    credit: Option<&'a Credit>,
    now: Timestamp,
}

impl Attempt<'_> {
    async fn succeed(&self, service: &Service, form: &Form<'_>, proof: Proof<'_>) -> Result<Authenticated, Refusal> {
        let Self { issuer, client_id, address, credit, now } = *self;
        let server = &*issuer.server.name;
        if matches!(proof, Proof::Assertion(_)) {
            // A signature is verified for nobody who fails too often.
            service.failures.permit(address, credit, now)?;
        }
        let claim = claim(service, issuer, form, proof, now).await?;
        let checked = || check((&service.directory, server), client_id, &claim, now);
        let authenticated = if let Ok(authenticated) = checked() {
            authenticated
        } else {
            service.failures.permit_live_read((server, client_id), address, now)?;
            // What few requests wait for takes no room in all others.
            let found = Box::pin(service.live.read((server, client_id), address, || checked().is_ok())).await;
            checked().map_err(|refusal| if found.is_certain() { refusal } else { Refusal::NotFoundOut })?
        };
        // Last: an assertion that was refused has not been used.
        if let Claim::Assertion(assertion) = &claim {
            let (jti, exp) = assertion.identity();
            if !service.lists.first_use(&issuer.listed(client_id), jti, exp, now)? {
                return Err(Refusal::AssertionReplayed);
            }
        }
        Ok(authenticated)
    }
}

/// Refuses what no client may present, and has a token of the cluster verified.
async fn claim<'a>(
    service: &Service,
    issuer: &Issuer,
    form: &Form<'_>,
    proof: Proof<'a>,
    now: Timestamp,
) -> Result<Claim<'a>, Refusal> {
    match proof {
        Proof::ClientSecret(method, sha256) => Ok(Claim::ClientSecret(method, sha256)),
        Proof::Certificate(sha256) => Ok(Claim::Certificate(sha256)),
        Proof::Assertion(assertion) if assertion.is_self_issued() => {
            assertion.check_form(form.client_id.as_deref(), &issuer.server.issuer, now)?;
            Ok(Claim::Assertion(assertion))
        }
        Proof::Assertion(assertion) => {
            Box::pin(service_account::verify(service, issuer, *assertion, now)).await.map(Claim::ServiceAccount)
        }
    }
}

/// Holds a claim against what the ledger has of a server.
fn check(
    (directory, server): (&Directory, &str),
    client_id: &str,
    claim: &Claim<'_>,
    now: Timestamp,
) -> Result<Authenticated, Refusal> {
    let Some(client) = directory.client(server, client_id) else {
        match claim {
            Claim::ClientSecret(_, sha256) | Claim::Certificate(sha256) => compare_in_vain(*sha256),
            Claim::Assertion(assertion) => assertion.verify_in_vain(),
            // Its signature was verified before, whoever the client is.
            Claim::ServiceAccount(_) => {}
        }
        return Err(Refusal::UnknownClient);
    };
    let proved = match claim {
        Claim::ClientSecret(method, sha256) => client_secret::check(&client, *method, *sha256, now),
        Claim::Assertion(assertion) => assertion.check(&client, now),
        Claim::ServiceAccount(verified) => verified.check(&client, now),
        Claim::Certificate(sha256) => certificate::check(&client, *sha256, now),
    };
    let Proved { method, entry, revision, not_after, certificate } = proved?;
    if !client.methods.contains(method) {
        return Err(Refusal::UnregisteredMethod);
    }
    Ok(Authenticated { client, entry, revision, not_after, certificate })
}

/// Reads what the client presents. More than one way is refused (RFC 6749 §2.3). A certificate of the connection is one
/// only where there is no other: whatever else speaks TLS for the client, such as a sidecar, may have its own.
fn presented<'a>(
    headers: &HeaderMap,
    form: &'a Form<'_>,
    certificate: Option<Digest>,
) -> Result<Presented<'a>, Refusal> {
    let mut authorizations = headers.get_all(header::AUTHORIZATION).iter();
    let authorization = authorizations.next();
    let has_assertion = form.client_assertion.is_some() || form.client_assertion_type.is_some();
    let ways = [authorization.is_some(), form.client_secret.is_some(), has_assertion];
    if authorizations.next().is_some() || ways.into_iter().filter(|used| *used).count() > 1 {
        return Err(Refusal::SeveralMethods);
    }
    if let Some(authorization) = authorization {
        let (client_id, sha256) = client_secret::basic(authorization.as_bytes())?;
        if form.client_id.as_ref().is_some_and(|other| *other != client_id) {
            return Err(Refusal::SeveralMethods);
        }
        let proof = Proof::ClientSecret(TokenEndpointAuthMethod::ClientSecretBasic, sha256);
        return Ok(Presented { client_id: Cow::Owned(client_id), proof });
    }
    if has_assertion {
        return asserted(form);
    }
    let Some(client_id) = form.client_id.as_deref().map(Cow::Borrowed) else { return Err(Refusal::NoCredentials) };
    if let Some(client_secret) = &form.client_secret {
        let sha256 = Digest::of(client_secret.as_bytes());
        let proof = Proof::ClientSecret(TokenEndpointAuthMethod::ClientSecretPost, sha256);
        return Ok(Presented { client_id, proof });
    }
    let proof = Proof::Certificate(certificate.ok_or(Refusal::NoCertificate)?);
    Ok(Presented { client_id, proof })
}

/// A client assertion (RFC 7521 §4.2). The client is who the assertion is about, unless somebody else has made it: then the
/// parameter says who.
fn asserted<'a>(form: &'a Form<'_>) -> Result<Presented<'a>, Refusal> {
    if form.client_assertion_type.as_deref() != Some(assertion::TYPE) {
        return Err(Refusal::UnsupportedMethod);
    }
    let text = form.client_assertion.as_deref().ok_or(Refusal::AssertionMalformed)?;
    let assertion = Assertion::parse(text)?;
    let client_id = match form.client_id.as_deref() {
        _ if assertion.is_self_issued() => Cow::Owned(assertion.claims.sub.clone()),
        Some(client_id) => Cow::Borrowed(client_id),
        None => return Err(Refusal::AssertionIssuer),
    };
    Ok(Presented { client_id, proof: Proof::Assertion(Box::new(assertion)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    use http::HeaderValue;
    use serde_json::{Value, json};

    use crate::jws::key::VERIFICATIONS;
    use crate::token_service::directory::{COMPARISONS, Key};
    use crate::token_service::texts::Texts;

    fn header_of(text: &str) -> Vec<u8> {
        format!("Basic {}", STANDARD.encode(text)).into_bytes()
    }

    fn read(authorization: Option<&[u8]>, body: &[u8]) -> Result<(String, TokenEndpointAuthMethod, Digest), Refusal> {
        let mut headers = HeaderMap::new();
        headers.extend(authorization.map(|value| (header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap())));
        let form = Form::parse(body)?;
        presented(&headers, &form, None).map(|p| {
            let Proof::ClientSecret(method, sha256) = p.proof else { panic!("another proof") };
            (p.client_id.into_owned(), method, sha256)
        })
    }

    #[test]
    fn basic_is_decoded_from_base64_and_then_from_the_form_encoding() {
        let (id, method, sha256) = read(Some(&header_of("a%3Ab+c:x%2By%3A")), b"").unwrap();
        assert_eq!((id.as_str(), method), ("a:b c", TokenEndpointAuthMethod::ClientSecretBasic));
        assert_eq!(sha256, Digest::of(b"x+y:"));
        let (id, _, sha256) = read(Some(&header_of("a:b:c")), b"").unwrap();
        assert_eq!((id.as_str(), sha256), ("a", Digest::of(b"b:c")), "the first colon separates");
    }

    #[test]
    fn the_scheme_is_read_in_any_case_and_padding_is_optional() {
        assert!(read(Some(b"bAsIc YTpi"), b"").is_ok());
        assert!(read(Some(b"Basic  YTpiYw"), b"").is_ok());
        assert!(read(Some(b"Basic YTpiYw=="), b"").is_ok());
    }

    #[test]
    fn the_body_may_carry_the_client_secret_instead() {
        let (id, method, sha256) = read(None, b"client_id=a&client_secret=b").unwrap();
        assert_eq!((id.as_str(), method), ("a", TokenEndpointAuthMethod::ClientSecretPost));
        assert_eq!(sha256, Digest::of(b"b"));
    }

    #[test]
    fn exactly_one_way_is_allowed() {
        let basic = header_of("a:b");
        let several = Some(Refusal::SeveralMethods);
        assert_eq!(read(Some(&basic), b"client_secret=b").err(), several);
        assert_eq!(read(Some(&basic), b"client_assertion=x").err(), several);
        assert_eq!(read(None, b"client_id=a&client_secret=b&client_assertion=x").err(), several);
        assert_eq!(read(Some(&basic), b"client_id=other").err(), several);
        assert!(read(Some(&basic), b"client_id=a").is_ok(), "the same client named twice");
    }

    #[test]
    fn what_is_no_way_of_ours_is_told_apart() {
        assert_eq!(read(None, b"").err(), Some(Refusal::NoCredentials));
        assert_eq!(read(None, b"client_id=a").err(), Some(Refusal::NoCertificate));
        assert_eq!(read(None, b"client_secret=b").err(), Some(Refusal::NoCredentials));
        assert_eq!(read(None, b"client_assertion_type=x").err(), Some(Refusal::UnsupportedMethod));
        for authorization in [&b"Bearer x"[..], b"", b"Basic", b"Basically YTpi"] {
            assert_eq!(read(Some(authorization), b"").err(), Some(Refusal::UnsupportedMethod), "{authorization:?}");
        }
        for authorization in [&b"Basic "[..], b"Basic ***", b"Basic YWI=", &header_of("a%zz:b"), &header_of("a:%ff")] {
            assert_eq!(read(Some(authorization), b"").err(), Some(Refusal::AuthorizationMalformed));
        }
    }

    /// A client with one client secret and one key, neither of which anybody here has.
    fn directory() -> Directory {
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
            "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"});
        let (sha256, spki) = (Digest::of(b"right").to_base64url(), Digest::of(b"spki").to_base64url());
        let revision = |verifier: Value| {
            json!([{"revision": 1, "mintedAt": "2026-01-01T00:00:00Z", "notAfter": "2027-01-01T00:00:00Z",
                "verifier": verifier}])
        };
        let entry = json!({
            "version": 1, "server": "default", "clientID": "known",
            "owner": {"namespace": "n", "name": "n", "uid": "u"}, "createdAt": "2026-01-01T00:00:00Z",
            "credentials": {
                "web": {"kind": "clientSecret", "revisions": revision(json!({"sha256": sha256}))},
                "key": {"kind": "publicKey", "revisions": revision(json!({"spkiSHA256": spki, "jwk": jwk}))},
            },
        });
        let directory = Directory::default();
        directory.put(
            Key::of("default", "known"),
            Arc::new(Client::of(serde_json::from_value(entry).unwrap(), &Texts::default())),
        );
        directory
    }

    #[test]
    fn an_unknown_client_costs_the_work_of_a_wrong_proof() {
        let (directory, now) = (directory(), "2026-06-01T00:00:00Z".parse().unwrap());
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let claims = part(r#"{"iss":"c","sub":"c","aud":"i","exp":1}"#);
        let jwt = format!("{}.{claims}.{}", part(r#"{"alg":"ES256"}"#), URL_SAFE_NO_PAD.encode([1; 64]));
        let wrong_secret = || Claim::ClientSecret(TokenEndpointAuthMethod::ClientSecretBasic, Digest::of(b"wrong"));
        let wrong_assertion = || Claim::Assertion(Box::new(Assertion::parse(&jwt).unwrap()));
        let work = |client_id: &str, claim: &Claim<'_>| {
            let before = (COMPARISONS.get(), VERIFICATIONS.get());
            assert!(check((&directory, "default"), client_id, claim, now).is_err());
            (COMPARISONS.get() - before.0, VERIFICATIONS.get() - before.1)
        };
        for client_id in ["known", "unknown"] {
            assert_eq!(work(client_id, &wrong_secret()), (1, 0), "{client_id}: one comparison");
            assert_eq!(work(client_id, &wrong_assertion()), (0, 1), "{client_id}: one signature");
        }
    }
}
