//! `tls_client_auth` and `self_signed_tls_client_auth` (RFC 8705 §2): the certificate of the connection, or the one that a
//! proxy in front of us has forwarded.
//!
//! Possession of its key was proved in the handshake. Whether it is accepted is decided by its SHA-256 in the ledger
//! alone (rule R1): no chain and no validity of X.509 is asked, so certificates of an old CA and of a new one are equal,
//! and a resumed session is worth what the certificate is worth now.

use jiff::Timestamp;

use super::Proved;
use crate::ledger::Digest;
use crate::token_service::accepted::AcceptedCertificate;
use crate::token_service::directory::Client;
use crate::token_service::refusal::Refusal;

/// Holds it against the client's revisions. Of several that match, one with a registered method counts, and of those the
/// one that lives longest.
pub(super) fn check(client: &Client, sha256: Digest, now: Timestamp) -> Result<Proved, Refusal> {
    let known = || client.proofs.iter().flat_map(|proofs| proofs.certificates(sha256));
    let rank = |accepted: &&AcceptedCertificate| (client.methods.contains(accepted.method), accepted.term.not_after);
    match known().filter(|accepted| accepted.term.is_valid(now)).max_by_key(rank) {
        Some(AcceptedCertificate { term, method, .. }) => Ok(Proved {
            method: *method,
            entry: term.entry.clone(),
            revision: Some(term.revision),
            not_after: term.not_after,
            certificate: Some(sha256),
        }),
        None if known().next().is_some() => Err(Refusal::NotValidNow),
        None => Err(Refusal::UnknownCertificate),
    }
}
