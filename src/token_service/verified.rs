//! Access tokens that clients hand back: verified once, then remembered; whether one is good *now* is asked every time.
//!
//! What is remembered is what never changes: that one of our keys signed this, and what it says. Key, times, client,
//! entry and revocations are compared at each use, so nothing has to be taken out when they change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use super::directory::{Client, scopes_of};
use super::issuer::Issuer;
use super::keys::Moment;
use super::lists::Lists;
use crate::ledger::Digest;
use crate::shared_lists::Mark;
use crate::signer::jwt::{self, VerifiedToken};

/// How much of verified tokens is remembered, in bytes, in each of two generations.
const GENERATION_BYTES: usize = 8 * 1024 * 1024;
/// What a token takes besides its texts; a guess too small costs memory, nothing else.
const TOKEN_BYTES: usize = 512;
/// What introspection says of most tokens fits in here.
const TYPICAL_ANSWER_BYTES: usize = 512;

/// An access token of ours.
#[derive(Debug)]
pub(super) struct Token {
    issuer: String,
    kid: String,
    /// Whose it is.
    pub(super) client_id: String,
    /// What stands for it in the list of revoked ones.
    pub(super) mark: Mark,
    entry: String,
    revision: Option<u64>,
    issued_at: Timestamp,
    not_before: Option<Timestamp>,
    /// Its end.
    pub(super) expires_at: Timestamp,
    /// Whom it is for.
    pub(super) audiences: Vec<String>,
    scope: String,
    /// What introspection says of it while it is good (RFC 7662 §2.2).
    answer: Bytes,
}

/// Why a token is not good now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inactive {
    /// It is none that a published key of ours has signed for us.
    NotOurs,
    /// It is not for an audience that the caller serves.
    Audience,
    /// Its end has come.
    Expired,
    /// Its beginning has not.
    NotYet,
    /// Its client is not in the ledger.
    Client,
    /// Its client or its credential entry was made or revoked later, or the entry was removed.
    Entry,
    /// Its client may not call the API any more.
    Api,
    /// It was revoked.
    Revoked,
}

/// Tokens that were verified lately.
#[derive(Debug, Default)]
pub(super) struct Verified(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<[u8; 32], Arc<Token>>,
    young_bytes: usize,
    old: HashMap<[u8; 32], Arc<Token>>,
}

impl Verified {
    /// The token, if a key that this server publishes now has signed it for this server.
    pub(super) fn verify(&self, token: &str, moment: &Moment, issuer: &Issuer) -> Option<Arc<Token>> {
        let digest = Digest::of(token.as_bytes()).0;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).find(&digest);
        if let Some(known) = known {
            return Some(known).filter(|known| known.issuer == issuer.server.issuer && moment.is_published(&known.kid));
        }
        // The header is one of those that we write, byte for byte, or there is nothing to verify.
        let published = moment.published.iter().find(|published| token.as_bytes().starts_with(&published.header))?;
        let verified = jwt::verify(token.as_bytes(), [&published.key])?;
        let verified = Arc::new(Token::of(verified, issuer)?);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(digest, verified.clone());
        Some(verified)
    }
}

impl Generations {
    fn find(&mut self, digest: &[u8; 32]) -> Option<Arc<Token>> {
        if let Some(token) = self.young.get(digest) {
            return Some(token.clone());
        }
        let token = self.old.get(digest)?.clone();
        self.add(*digest, token.clone());
        Some(token)
    }

    fn add(&mut self, digest: [u8; 32], token: Arc<Token>) {
        if self.young_bytes >= GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += token.bytes();
        self.young.insert(digest, token);
    }
}

impl Token {
    fn of(verified: VerifiedToken, issuer: &Issuer) -> Option<Self> {
        if verified.issuer != issuer.server.issuer {
            return None;
        }
        let mut answer = Vec::with_capacity(TYPICAL_ANSWER_BYTES);
        serde_json::to_writer(&mut answer, &Answer::of(&verified)).ok()?;
        Some(Self {
            // Every token of ours is minted for an entry.
            entry: verified.entry()?.to_owned(),
            revision: verified.revision(),
            mark: Mark::of(&issuer.listed(&verified.client_id), &verified.jti),
            issuer: verified.issuer,
            kid: verified.kid,
            client_id: verified.client_id,
            issued_at: verified.issued_at,
            not_before: verified.not_before,
            expires_at: verified.expires_at,
            audiences: verified.audiences,
            scope: verified.scope,
            answer: answer.into(),
        })
    }

    /// Whether it is within its time, and whether this client still has what it was minted for.
    pub(super) fn is_current(&self, client: Option<&Client>, now: Timestamp) -> Result<(), Inactive> {
        if now >= self.expires_at {
            return Err(Inactive::Expired);
        }
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return Err(Inactive::NotYet);
        }
        let client = client.ok_or(Inactive::Client)?;
        if client.is_good(&self.entry, self.revision, self.issued_at) { Ok(()) } else { Err(Inactive::Entry) }
    }

    /// Whether it is current, and was not revoked.
    pub(super) fn is_active(&self, client: Option<&Client>, lists: &Lists, now: Timestamp) -> Result<(), Inactive> {
        self.is_current(client, now)?;
        if lists.is_revoked(&self.mark, now) { Err(Inactive::Revoked) } else { Ok(()) }
    }

    /// The answer about it, as far as its client still has what it says: a scope that was withdrawn is left out, and
    /// where its API was, it is good no more.
    pub(super) fn answer_for(&self, client: &Client, server_audience: &str) -> Result<Bytes, Inactive> {
        let granted_at: Vec<_> =
            self.audiences.iter().filter_map(|audience| client.scope_at(audience, server_audience)).collect();
        if granted_at.len() < self.audiences.len() {
            return Err(Inactive::Api);
        }
        let is_granted = |scope: &&str| granted_at.iter().all(|granted| scopes_of(granted).any(|one| one == *scope));
        if scopes_of(&self.scope).all(|scope| is_granted(&scope)) {
            return Ok(self.answer.clone());
        }
        let scope = scopes_of(&self.scope).filter(is_granted).collect::<Vec<_>>().join(" ");
        let mut answer: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&self.answer).map_err(|_| Inactive::NotOurs)?;
        if scope.is_empty() {
            answer.remove("scope")
        } else {
            answer.insert("scope".to_owned(), scope.into())
        };
        serde_json::to_vec(&answer).map(Bytes::from).map_err(|_| Inactive::NotOurs)
    }

    fn bytes(&self) -> usize {
        self.answer.len()
            + self.scope.len()
            + self.audiences.iter().map(|audience| audience.len() + 32).sum::<usize>()
            + TOKEN_BYTES
    }
}

/// The members of RFC 7662 §2.2, with those of RFC 8705 §3.2 and our own.
#[derive(Serialize)]
struct Answer<'a> {
    active: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    scope: &'a str,
    client_id: &'a str,
    token_type: &'static str,
    exp: i64,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    sub: &'a str,
    aud: Audiences<'a>,
    iss: &'a str,
    jti: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    customers: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer_groups: Option<&'a [String]>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Audiences<'a> {
    One(&'a str),
    Several(&'a [String]),
}

#[derive(Serialize)]
struct Confirmation<'a> {
    #[serde(rename = "x5t#S256")]
    certificate: &'a str,
}

impl<'a> Answer<'a> {
    fn of(token: &'a VerifiedToken) -> Self {
        Self {
            active: true,
            scope: &token.scope,
            client_id: &token.client_id,
            token_type: "Bearer",
            exp: token.expires_at.as_second(),
            iat: token.issued_at.as_second(),
            nbf: token.not_before.map(Timestamp::as_second),
            // The client acts for itself.
            sub: &token.client_id,
            aud: match &*token.audiences {
                [one] => Audiences::One(one),
                several => Audiences::Several(several),
            },
            iss: &token.issuer,
            jti: &token.jti,
            cnf: token.certificate.as_deref().map(|certificate| Confirmation { certificate }),
            customers: token.customers.as_deref(),
            customer_groups: token.customer_groups.as_deref(),
        }
    }
}

impl Inactive {
    /// The reason as the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotOurs => "not_ours",
            Self::Audience => "audience",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Client => "client",
            Self::Entry => "entry",
            Self::Api => "api",
            Self::Revoked => "revoked",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u16) -> ([u8; 32], Arc<Token>) {
        let at = Timestamp::UNIX_EPOCH;
        let token = Token {
            issuer: String::new(),
            kid: String::new(),
            client_id: String::new(),
            mark: Mark::of("a", "b"),
            entry: String::new(),
            revision: None,
            issued_at: at,
            not_before: None,
            expires_at: at,
            audiences: Vec::new(),
            scope: String::new(),
            answer: Bytes::from(vec![b' '; 16 * 1024]),
        };
        (Digest::of(&n.to_be_bytes()).0, Arc::new(token))
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_used_stays() {
        let mut generations = Generations::default();
        let (first, value) = token(0);
        generations.add(first, value);
        let most = GENERATION_BYTES / (16 * 1024) + 1;
        for n in 1..5000 {
            let (digest, value) = token(n);
            assert!(generations.find(&digest).is_none());
            generations.add(digest, value);
            assert!(generations.young.len() <= most && generations.old.len() <= most);
            if n % 400 == 0 {
                assert!(generations.find(&first).is_some(), "used again and again, to {n}");
            }
        }
        assert!(generations.find(&token(1).0).is_none(), "not used for long");
        assert!(generations.find(&token(4999).0).is_some());
    }
}
