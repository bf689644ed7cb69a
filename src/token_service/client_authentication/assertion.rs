//! `private_key_jwt`: client assertions by RFC 7523 §2.2 and its revision (draft-ietf-oauth-rfc7523bis).
//!
//! Reading is pure. What can be refused without knowing the client is refused first, so it costs no signature and says
//! nothing about clients; then the signature is verified, by a key of the client or by nobody's.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::Proved;
use crate::api::TokenEndpointAuthMethod;
use crate::jws::key::{JwsAlgorithm, VerifyingKey, verify_in_vain};
use crate::jws::{Audiences, Compact};
use crate::rotation::{CLOCK_SKEW, add};
use crate::token_service::accepted::AcceptedKey;
use crate::token_service::directory::Client;
use crate::token_service::refusal::Refusal;

/// The `client_assertion_type` of a JWT (RFC 7523 §2.2).
pub const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The longest assertion that is read, in bytes.
pub const LONGEST_BYTES: usize = 8 * 1024;

/// How far ahead `exp` may lie, the skew of clocks aside.
pub const LONGEST_LIFETIME: SignedDuration = SignedDuration::from_mins(5);

/// The longest `jti`, in bytes.
pub const LONGEST_JTI_BYTES: usize = 256;

/// The most keys that are tried. A client has at most eight live revisions an entry, and rarely more than two.
const MOST_KEYS: usize = 16;

/// A JWT (RFC 7519) in the compact form of a JWS (RFC 7515 §7.1), taken apart and not yet verified.
pub struct Assertion<'a> {
    alg: JwsAlgorithm,
    kid: Option<String>,
    message: &'a [u8],
    signature: Vec<u8>,
    pub(super) claims: Claims,
}

/// The claims that matter (RFC 7519 §4.1). One that occurs twice makes the assertion malformed.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    aud: Audiences,
    pub(super) exp: NumericDate,
    #[serde(default)]
    pub(super) iat: Option<NumericDate>,
    #[serde(default)]
    pub(super) nbf: Option<NumericDate>,
    #[serde(default)]
    jti: Option<String>,
}

/// Seconds since 1970, with or without a fraction (RFC 7519 §2).
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "f64")]
pub(super) struct NumericDate(pub(super) Timestamp);

impl<'a> Assertion<'a> {
    /// Takes a JWT apart.
    pub fn parse(text: &'a str) -> Result<Self, Refusal> {
        let malformed = Refusal::AssertionMalformed;
        if text.len() > LONGEST_BYTES {
            return Err(malformed);
        }
        let jws = Compact::split(text).ok_or(malformed)?;
        let header = jws.header().ok_or(malformed)?;
        let alg = JwsAlgorithm::named(&header.alg).ok_or(Refusal::AssertionAlgorithm)?;
        if header.is_critical || !header.typ.as_deref().is_none_or(is_type) {
            return Err(malformed);
        }
        let signature = jws.signature().ok_or(malformed)?;
        let claims = jws.claims().ok_or(malformed)?;
        Ok(Self { alg, kid: header.kid, message: jws.message, signature, claims })
    }

    /// Whether it claims to be made by the client itself. Anything else is somebody's who speaks for the client.
    pub(super) fn is_self_issued(&self) -> bool {
        self.claims.iss == self.claims.sub
    }

    /// Whether it is for this audience and nobody else: a string, or an array of one.
    pub(super) fn is_for(&self, audience: &str) -> bool {
        matches!(&*self.claims.aud.0, [one] if one == audience)
    }

    /// Whether `iat` and `nbf` have come, but for the skew of clocks.
    pub(super) fn has_begun(&self, now: Timestamp) -> bool {
        let latest = add(now, CLOCK_SKEW);
        [self.claims.iat, self.claims.nbf].into_iter().flatten().all(|NumericDate(at)| at <= latest)
    }

    /// `jti` and `exp` of an assertion that passed [`Self::check_form`].
    pub(super) fn identity(&self) -> (&str, Timestamp) {
        (self.claims.jti.as_deref().unwrap_or_default(), self.claims.exp.0)
    }

    /// What RFC 7523 §3 asks of every client's assertion, whoever the client is. `client_id` is the parameter.
    pub(super) fn check_form(&self, client_id: Option<&str>, issuer: &str, now: Timestamp) -> Result<(), Refusal> {
        let Claims { sub, exp, jti, .. } = &self.claims;
        if sub.is_empty() || client_id.is_some_and(|client_id| client_id != sub) {
            return Err(Refusal::AssertionMalformed);
        }
        if !jti.as_ref().is_some_and(|jti| (1..=LONGEST_JTI_BYTES).contains(&jti.len())) {
            return Err(Refusal::AssertionMalformed);
        }
        if !self.is_for(issuer) {
            return Err(Refusal::AssertionAudience);
        }
        let is_timely = now < add(exp.0, CLOCK_SKEW) && exp.0 <= add(now, LONGEST_LIFETIME + CLOCK_SKEW);
        if is_timely && self.has_begun(now) { Ok(()) } else { Err(Refusal::AssertionTime) }
    }

    /// Whether this key has signed it.
    fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        key.verifies(self.alg, self.message, &self.signature)
    }

    /// The first of these that has signed it: those with its `kid` if there is one, else all that its algorithm can be
    /// of, sixteen at most. Where there is none to try, nobody's key is.
    pub(super) fn signer<'k, T>(&self, candidates: &'k [T], key_of: impl Fn(&T) -> &VerifyingKey) -> Option<&'k T> {
        let usable = |candidate: &&'k T| key_of(candidate).allows(self.alg);
        let is_named = |candidate: &&'k T| self.kid.is_some() && key_of(candidate).kid() == self.kid.as_deref();
        let names_one = candidates.iter().filter(usable).any(|candidate| is_named(&candidate));
        let mut tried = 0;
        for candidate in candidates.iter().filter(usable).filter(|c| !names_one || is_named(c)).take(MOST_KEYS) {
            tried += 1;
            if self.is_signed_by(key_of(candidate)) {
                return Some(candidate);
            }
        }
        if tried == 0 {
            self.verify_in_vain();
        }
        None
    }

    /// The identifier of the key that has signed it, as it says.
    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The work of a signature, for a client that is not known.
    pub(super) fn verify_in_vain(&self) {
        verify_in_vain(self.alg, self.message, &self.signature);
    }

    /// Holds it against the client's keys: those of revisions that are valid now are tried, the old and the new alike.
    pub(super) fn check(&self, client: &Client, now: Timestamp) -> Result<Proved, Refusal> {
        let keys = client.proofs.as_deref().map_or(&[][..], |proofs| proofs.keys());
        let live: Vec<&AcceptedKey> = keys.iter().filter(|accepted| accepted.term.is_valid(now)).collect();
        let Some(accepted) = self.signer(&live, |accepted| &accepted.key) else {
            let fits = live.iter().any(|accepted| accepted.key.allows(self.alg));
            return Err(if fits { Refusal::AssertionSignature } else { Refusal::AssertionAlgorithm });
        };
        let term = &accepted.term;
        let (method, entry) = (TokenEndpointAuthMethod::PrivateKeyJwt, term.entry.clone());
        Ok(Proved { method, entry, revision: Some(term.revision), not_after: term.not_after, certificate: None })
    }
}

impl std::fmt::Debug for Assertion<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Neither the message nor the signature: until it ends, whoever has both has the credential.
        f.debug_struct("Assertion").field("alg", &self.alg).finish_non_exhaustive()
    }
}

impl TryFrom<f64> for NumericDate {
    type Error = &'static str;

    fn try_from(seconds: f64) -> Result<Self, Self::Error> {
        let since = SignedDuration::try_from_secs_f64(seconds).map_err(|_| "no date")?;
        Timestamp::from_duration(since).map(Self).map_err(|_| "no date")
    }
}

/// `typ` of a client assertion: a plain JWT, or the explicit type of the revision of RFC 7523. What is typed as something
/// else was made for something else (RFC 8725 §3.11).
fn is_type(typ: &str) -> bool {
    let plain = typ.get(.."application/".len()).filter(|start| start.eq_ignore_ascii_case("application/"));
    let subtype = plain.map_or(typ, |start| &typ[start.len()..]);
    subtype.eq_ignore_ascii_case("JWT") || subtype.eq_ignore_ascii_case("client-authentication+jwt")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jws::key::VERIFICATIONS;
    use crate::ledger::Entry;
    use crate::token_service::texts::Texts;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn jwt(header: &Value, claims: &Value) -> String {
        let segment = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        format!("{}.{}.{}", segment(header), segment(claims), URL_SAFE_NO_PAD.encode([1; 64]))
    }

    fn assertion_of(header: &Value) -> String {
        jwt(header, &json!({"iss": "a", "sub": "a", "aud": "https://auth.example", "exp": 1, "jti": "canary"}))
    }

    /// A client with these keys.
    fn client(jwks: &[Value]) -> Client {
        let revision = |(number, jwk)| {
            json!({"revision": number, "mintedAt": "2026-01-01T00:00:00Z", "notAfter": "2027-01-01T00:00:00Z",
                "verifier": {"spkiSHA256": "A".repeat(43), "jwk": jwk}})
        };
        let revisions: Vec<_> = jwks.iter().enumerate().map(revision).collect();
        let entry: Entry = serde_json::from_value(json!({
            "version": 1, "server": "default", "clientID": "a", "createdAt": "2026-01-01T00:00:00Z",
            "owner": {"namespace": "shop", "name": "a", "uid": "u"},
            "credentials": {"key": {"kind": "publicKey", "revisions": revisions}},
        }))
        .unwrap();
        Client::of(entry, &Texts::default())
    }

    #[test]
    fn every_attempt_costs_a_signature_whoever_the_client_is() {
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        let p256 = |kid: &str| {
            json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
                "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"})
        };
        let text = assertion_of(&json!({"alg": "ES256", "kid": "one"}));
        let assertion = Assertion::parse(&text).unwrap();
        let cost = |attempt: &dyn Fn()| {
            let before = VERIFICATIONS.get();
            attempt();
            VERIFICATIONS.get() - before
        };
        assert_eq!(cost(&|| assertion.verify_in_vain()), 1, "an unknown client");
        for (what, jwks, signatures) in [
            ("no key", vec![], 1),
            ("the key that is named", vec![p256("one")], 1),
            ("a key of another name", vec![p256("two")], 1),
            ("one of two that is named", vec![p256("two"), p256("one")], 1),
            ("two of other names", vec![p256("two"), p256("three")], 2),
            ("more than are tried", vec![p256("two"); 20], 16),
        ] {
            let client = client(&jwks);
            assert_eq!(cost(&|| assert!(assertion.check(&client, now).is_err())), signatures, "{what}");
        }
        let text = assertion_of(&json!({"alg": "RS256", "kid": "one"}));
        let other = Assertion::parse(&text).unwrap();
        let client = client(&[p256("one")]);
        assert_eq!(cost(&|| assert!(other.check(&client, now).is_err())), 1, "a key of another type");
    }

    #[test]
    fn debug_shows_nothing_that_could_be_used() {
        let text = assertion_of(&json!({"alg": "ES256"}));
        let shown = format!("{:?}", Assertion::parse(&text).unwrap());
        assert_eq!(shown, "Assertion { alg: Es256, .. }");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
            let _ = Assertion::parse(&text);
        }

        #[test]
        fn no_header_and_no_claims_make_the_parser_panic(header in "\\PC{0,60}", claims in "\\PC{0,60}", exp in any::<f64>()) {
            let segment = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let good = segment(r#"{"alg":"ES256"}"#);
            let _ = Assertion::parse(&format!("{}.{}.AA", segment(&header), segment(&claims)));
            let _ = Assertion::parse(&format!("{good}.{}.AA", segment(&claims)));
            let claims = json!({"iss": "a", "sub": "a", "aud": "b", "exp": exp});
            if let Ok(assertion) = Assertion::parse(&format!("{good}.{}.AA", segment(&claims.to_string()))) {
                let _ = assertion.check_form(None, "b", Timestamp::MAX);
                let _ = assertion.check_form(None, "b", Timestamp::MIN);
            }
        }
    }
}
