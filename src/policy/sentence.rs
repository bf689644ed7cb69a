//! "Why not?" in one sentence: the item, the policy that came closest, the way to get it allowed.

use crate::api::{Message, Reason};

use super::{Decision, Denied, Item, ItemKind, Kept, Subject, Why};

/// How many items a message tells in full.
const MOST_TOLD: usize = 3;
/// How many globs it repeats of a policy.
const MOST_GLOBS: usize = 4;

impl Denied {
    /// The reason, as a condition's.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self.why {
            Why::NoPolicy | Why::Unknown(_) => Reason::NoPolicy,
            Why::NotAllowed { .. } => Reason::PolicyDenied,
            Why::NeedsApproval { .. } | Why::ApprovalEnded { .. } => Reason::ApprovalRequired,
        }
    }

    /// Why it is not granted, and what a person can do about it.
    #[must_use]
    pub fn message(&self, subject: Subject<'_>) -> Message {
        let Subject { namespace, name } = subject;
        let (item, list) = (&self.item, place(&self.item));
        let text = match &self.why {
            Why::NoPolicy => format!("{item} is not allowed. {}", no_policy(namespace)),
            Why::Unknown(problem) => format!("{item} is not granted. {}", unknown(problem)),
            Why::NotAllowed { closest, allows } => format!(
                "{item} is not allowed: add it to {list} of a RegistrationPolicy that selects the namespace {namespace}. The \
                 closest one, policy/{closest}, allows {} there",
                globs(allows)
            ),
            Why::NeedsApproval { policy } => format!(
                "{item} waits for an approval: policy/{policy} allows it when a RegistrationApproval for {namespace}/{name} \
                 lists it in {list}"
            ),
            Why::ApprovalEnded { approval } => format!(
                "{item} is not approved any more, because approval/{approval} has ended: renew it, or create another \
                 RegistrationApproval for {namespace}/{name} that lists it in {list}"
            ),
        };
        Message::of_field(item.path(), text)
    }
}

impl Decision {
    /// The reason of the whole: what a person must do counts before what is waited for.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        let mut reasons: Vec<_> = self.denied.iter().map(Denied::reason).collect();
        reasons.sort_by_key(|reason| *reason == Reason::ApprovalRequired);
        reasons.first().copied()
    }

    /// The items that are not granted and those that are kept against every policy, for a condition's message; empty if
    /// there is neither.
    #[must_use]
    pub fn message(&self, subject: Subject<'_>) -> String {
        let mut denied: Vec<_> = self.denied.iter().collect();
        denied.sort_by_key(|denied| denied.reason() == Reason::ApprovalRequired);
        let mut told: Vec<_> =
            denied.iter().take(MOST_TOLD).map(|denied| denied.message(subject).to_string()).collect();
        if denied.len() > MOST_TOLD {
            told.push(format!("{} more items are not granted", denied.len() - MOST_TOLD));
        }
        if let Some(first) = self.kept.first() {
            told.push(kept(first, self.kept.len()).to_string());
        }
        told.join(". ")
    }
}

/// That nothing selects a namespace, and how to change that.
pub(super) fn no_policy(namespace: &str) -> String {
    format!(
        "No RegistrationPolicy selects the namespace {namespace}: create one, or give the namespace a label that one selects"
    )
}

/// That policies cannot be seen, and why.
pub(super) fn unknown(problem: &str) -> String {
    format!("Nothing new is granted for now, because {problem}. The controller retries")
}

fn kept(first: &Kept, count: usize) -> Message {
    let more = match count - 1 {
        0 => String::new(),
        1 => ", like one more item".to_owned(),
        more => format!(", like {more} more items"),
    };
    let Kept { item, by, waits_for_approval_of } = first;
    let text = match waits_for_approval_of {
        None => format!(
            "{item} was granted by {by}, and no policy allows it any more; it stays granted{more}. Allow it again, or remove \
             it from the spec"
        ),
        Some(policy) => format!(
            "{item} was granted by {by}, and policy/{policy} now allows it only with an approval; it stays granted{more}. \
             Approve it, or remove it from the spec"
        ),
    };
    Message::of_field(item.path(), text)
}

fn globs(allows: &[String]) -> String {
    let rest = allows.len().saturating_sub(MOST_GLOBS);
    match allows {
        [] => "none".to_owned(),
        _ if rest > 0 => format!("{} and {rest} more", allows[..MOST_GLOBS].join(", ")),
        _ => allows.join(", "),
    }
}

/// The list of a policy or an approval that an item belongs into.
fn place(item: &Item) -> String {
    match (item.kind, &item.audience) {
        (ItemKind::ApiScope, Some(audience)) => format!("the scopes of {audience} in apis"),
        (kind, _) => kind.list().to_owned(),
    }
}
