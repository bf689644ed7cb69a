//! Why a credential is minted: one ordered list of small checks. The first that fires gives the reason that stands in the
//! plan, the Event and the metric.

use jiff::Timestamp;

use crate::api::Reason;
use crate::credential::{Held, Shown, ShownToken, access_token, certificate};
use crate::ledger::{Credential, Revision};
use crate::rotation::{self, Identity};
use crate::signer::Index;

use super::desired::{Desired, Settings};
use super::facts::SecretFact;

/// What the checks look at: one credential entry, the ledger's word and the Secret's.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// The time of this plan, in whole seconds.
    pub now: Timestamp,
    /// The registration's uid.
    pub uid: &'a str,
    /// The client ID.
    pub client_id: &'a str,
    /// The entry as it shall be.
    pub desired: &'a Desired,
    /// What the ledger has of it.
    pub ledger: Option<&'a Credential>,
    /// Its Secret.
    pub secret: &'a SecretFact,
    /// What the Secret shows of it.
    pub shown: &'a Shown,
    /// The token signing keys.
    pub keys: &'a Index,
    /// The issuer of tokens.
    pub issuer: &'a str,
    /// From when on tokens of this entry are accepted, by the ledger.
    pub tokens_from: Option<Timestamp>,
    /// The claim `customers` of tokens.
    pub customers: Option<&'a [String]>,
    /// The claim `customer_groups` of tokens.
    pub customer_groups: Option<&'a [String]>,
}

/// A check: true when it fires.
type Check = (Reason, fn(&View<'_>) -> bool);

/// Why a client secret or a certificate is minted, in order.
pub(super) const REVISIONED: &[Check] = &[
    (Reason::FirstMint, nothing_was_minted_yet),
    (Reason::SecretDeleted, secret_is_absent),
    (Reason::FieldMissing, nothing_is_shown),
    (Reason::SecretChanged, something_unknown_is_shown),
    (Reason::Expired, current_is_expired),
    (Reason::RevocationRequested, revocation_is_requested),
    (Reason::RotationRequested, rotation_is_requested),
    (Reason::SpecChanged, shape_differs),
    (Reason::DurationShortened, duration_was_shortened),
    (Reason::RenewalDue, renewal_is_due),
];

/// Why an access token is signed, in order.
pub(super) const TOKEN: &[Check] = &[
    (Reason::FirstMint, nothing_was_minted_yet),
    (Reason::SecretDeleted, secret_is_absent),
    (Reason::FieldMissing, nothing_is_shown),
    (Reason::SecretChanged, something_unknown_is_shown),
    (Reason::KeyUnpublished, key_is_unpublished),
    (Reason::RevocationRequested, token_revocation_is_requested),
    (Reason::RotationRequested, token_rotation_is_requested),
    (Reason::GrantChanged, token_shape_differs),
    (Reason::TokenDue, token_is_due),
];

/// The reason of the first check that fires.
#[must_use]
pub(super) fn first(view: &View<'_>) -> Option<Reason> {
    let checks = match view.desired.settings {
        Settings::ClientSecret | Settings::Certificate { .. } => REVISIONED,
        Settings::AccessToken { .. } => TOKEN,
    };
    checks.iter().find(|(_, check)| check(view)).map(|(reason, _)| *reason)
}

impl<'a> View<'a> {
    /// The revision that the Secret holds, if the ledger has it.
    #[must_use]
    pub(super) fn current(&self) -> Option<&'a Revision> {
        match self.shown {
            Shown::ClientSecret { current: Held::Revision(r), .. }
            | Shown::Certificate { current: Held::Revision(r), .. } => self.ledger?.revision(*r),
            Shown::ClientSecret { .. } | Shown::Certificate { .. } | Shown::AccessToken(_) => None,
        }
    }

    /// The revision that the Secret shows as the one before, if the ledger has it.
    #[must_use]
    pub(super) fn previous(&self) -> Option<&'a Revision> {
        match self.shown {
            Shown::ClientSecret { previous: Held::Revision(r), .. }
            | Shown::Certificate { previous: Held::Revision(r), .. } => self.ledger?.revision(*r),
            Shown::ClientSecret { .. } | Shown::Certificate { .. } | Shown::AccessToken(_) => None,
        }
    }

    /// The access token that the Secret holds.
    #[must_use]
    pub(super) fn token(&self) -> Option<&'a ShownToken> {
        match self.shown {
            Shown::AccessToken(token) => token.as_ref().ok(),
            Shown::ClientSecret { .. } | Shown::Certificate { .. } => None,
        }
    }

    /// When a revision is renewed.
    #[must_use]
    pub(super) fn renewal_time(&self, revision: u64, minted_at: Timestamp, not_after: Timestamp) -> Timestamp {
        let identity = Identity { uid: self.uid, entry: &self.desired.name, revision };
        self.desired.rhythm.renewal_time(identity, minted_at, not_after)
    }

    /// Whether a revocation that has come applies to something minted then.
    #[must_use]
    pub(super) fn is_revoked(&self, minted_at: Timestamp) -> bool {
        self.desired.revoke_before.is_some_and(|mark| rotation::is_before_watermark(minted_at, mark, self.now))
    }

    /// The shape that the credential shall have.
    #[must_use]
    pub(super) fn shape(&self) -> String {
        match &self.desired.settings {
            Settings::ClientSecret => String::new(),
            Settings::Certificate { key_type, dns_names } => certificate::shape(*key_type, dns_names),
            Settings::AccessToken { audience, scopes } => access_token::shape(&access_token::Asked {
                issuer: self.issuer,
                client_id: self.client_id,
                scopes: scopes.as_deref().unwrap_or_default(),
                audiences: std::slice::from_ref(audience),
                customers: self.customers,
                customer_groups: self.customer_groups,
            }),
        }
    }
}

fn nothing_was_minted_yet(view: &View<'_>) -> bool {
    view.ledger.is_none_or(|ledger| match view.desired.settings {
        Settings::ClientSecret | Settings::Certificate { .. } => {
            ledger.next_revision == 1 && ledger.revisions.is_empty()
        }
        Settings::AccessToken { .. } => false,
    })
}

fn secret_is_absent(view: &View<'_>) -> bool {
    matches!(view.secret, SecretFact::Absent(_))
}

fn nothing_is_shown(view: &View<'_>) -> bool {
    match view.shown {
        Shown::ClientSecret { current, .. } | Shown::Certificate { current, .. } => *current == Held::Nothing,
        Shown::AccessToken(token) => *token == Err(Held::Nothing),
    }
}

fn something_unknown_is_shown(view: &View<'_>) -> bool {
    match view.shown {
        Shown::ClientSecret { .. } | Shown::Certificate { .. } => view.current().is_none(),
        Shown::AccessToken(token) => token.is_err(),
    }
}

fn current_is_expired(view: &View<'_>) -> bool {
    view.current().is_some_and(|revision| revision.is_expired(view.now))
}

fn revocation_is_requested(view: &View<'_>) -> bool {
    view.current().is_some_and(|revision| view.is_revoked(revision.minted_at))
}

fn rotation_is_requested(view: &View<'_>) -> bool {
    view.current().is_some_and(|revision| rotation_applies(view, revision.minted_at))
}

fn shape_differs(view: &View<'_>) -> bool {
    match view.shown {
        Shown::Certificate { shape, .. } => *shape != view.shape(),
        Shown::ClientSecret { .. } | Shown::AccessToken(_) => false,
    }
}

fn duration_was_shortened(view: &View<'_>) -> bool {
    view.current().is_some_and(|r| view.desired.rhythm.not_after(r.minted_at) < r.not_after) && renewal_is_due(view)
}

fn renewal_is_due(view: &View<'_>) -> bool {
    view.current().is_some_and(|r| view.renewal_time(r.revision, r.minted_at, r.not_after) <= view.now)
}

fn key_is_unpublished(view: &View<'_>) -> bool {
    view.token().is_some_and(|token| !view.keys.is_published(&token.kid, view.now))
}

fn token_revocation_is_requested(view: &View<'_>) -> bool {
    // The ledger may say more than the spec: a watermark that was taken out again, a client that was made anew.
    let from = view.tokens_from.filter(|from| *from <= view.now);
    view.token()
        .is_some_and(|token| view.is_revoked(token.issued_at) || from.is_some_and(|from| token.issued_at < from))
}

fn token_rotation_is_requested(view: &View<'_>) -> bool {
    view.token().is_some_and(|token| rotation_applies(view, token.issued_at))
}

fn token_shape_differs(view: &View<'_>) -> bool {
    view.token().is_some_and(|token| token.shape != view.shape())
}

fn token_is_due(view: &View<'_>) -> bool {
    // One from a clock that was ahead is not accepted yet.
    let is_from_the_future = |token: &ShownToken| view.now < rotation::add(token.issued_at, -rotation::CLOCK_SKEW);
    view.token().is_some_and(|token| token_renewal_time(view, token) <= view.now || is_from_the_future(token))
}

/// When a token is refreshed.
#[must_use]
pub(super) fn token_renewal_time(view: &View<'_>, token: &ShownToken) -> Timestamp {
    view.renewal_time(token.issued_at.as_second().unsigned_abs(), token.issued_at, token.not_after)
}

fn rotation_applies(view: &View<'_>, minted_at: Timestamp) -> bool {
    view.desired.rotate_before.is_some_and(|mark| rotation::is_before_watermark(minted_at, mark, view.now))
}
