//! Kubernetes `ServiceAccount` tokens as client assertions (RFC 7521 §4.2: the assertion of a third party, which here is
//! the cluster).
//!
//! A projected token is read by its pod as often as it likes, so it is used more than once by design: there is no check for
//! replays. What bounds it is its life of an hour at most and its audience, our issuer alone. It is verified offline: that
//! its pod or `ServiceAccount` was deleted is not seen before it ends.

use jiff::{SignedDuration, Timestamp};

use super::Proved;
use super::assertion::{Assertion, NumericDate};
use crate::api::TokenEndpointAuthMethod;
use crate::rotation::{CLOCK_SKEW, is_before_watermark};
use crate::token_service::directory::Client;
use crate::token_service::issuer::Issuer;
use crate::token_service::refusal::Refusal;
use crate::token_service::service::Service;

/// The longest life of a token. The kubelet asks for an hour unless told otherwise, with a few seconds more where the API
/// server counts who should have moved to a shorter one (3607 s).
const LONGEST_LIFE: SignedDuration = SignedDuration::from_secs(3600 + CLOCK_SKEW.as_secs());

/// A token that the cluster has signed, for us, and that is valid now.
pub(super) struct Verified {
    subject: String,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

/// Verifies an assertion as a token of the cluster. Nothing here depends on the client.
pub(super) async fn verify(
    service: &Service,
    issuer: &Issuer,
    assertion: Assertion<'_>,
    now: Timestamp,
) -> Result<Verified, Refusal> {
    if !assertion.is_for(&issuer.server.issuer) {
        return Err(Refusal::AssertionAudience);
    }
    let NumericDate(expires_at) = assertion.claims.exp;
    let Some(NumericDate(issued_at)) = assertion.claims.iat else { return Err(Refusal::AssertionMalformed) };
    let is_timely = now < expires_at && expires_at.duration_since(issued_at) <= LONGEST_LIFE;
    if !is_timely || !assertion.has_begun(now) {
        return Err(Refusal::AssertionTime);
    }
    let known = service.cluster_keys.for_kid(&assertion.claims.iss, assertion.kid()).await.ok_or(Refusal::NotReady)?;
    if assertion.claims.iss != known.issuer || known.issuer == issuer.server.issuer {
        return Err(Refusal::AssertionIssuer);
    }
    assertion.signer(&known.keys, |key| key).ok_or(Refusal::AssertionSignature)?;
    Ok(Verified { subject: assertion.claims.sub, issued_at, expires_at })
}

impl Verified {
    /// Holds it against the client's `ServiceAccounts`.
    pub(super) fn check(&self, client: &Client, now: Timestamp) -> Result<Proved, Refusal> {
        let known = || client.proofs.iter().flat_map(|proofs| proofs.subjects(&self.subject));
        let is_accepted = |revoked: Option<Timestamp>| {
            revoked.is_none_or(|watermark| !is_before_watermark(self.issued_at, watermark, now))
        };
        let accepted = known().find(|accepted| is_accepted(accepted.revoked_before));
        let Some(accepted) = accepted else {
            return Err(if known().next().is_some() { Refusal::NotValidNow } else { Refusal::AssertionIssuer });
        };
        let (method, entry) = (TokenEndpointAuthMethod::PrivateKeyJwt, accepted.entry.clone());
        Ok(Proved { method, entry, revision: None, not_after: self.expires_at, certificate: None })
    }
}
