//! "Why not?" in one sentence: which item, which policy came closest, what would allow it.

use crate::api::Reason;

use super::{Decision, Denied, Field, Kept, Subject, Why};

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

    /// Why it is not granted, and what would grant it.
    #[must_use]
    pub fn sentence(&self, subject: Subject<'_>) -> String {
        let Subject { namespace, name } = subject;
        let asked = format!("spec.{} {}", self.field.path(), self.item);
        let list = approval_list(self.field);
        match &self.why {
            Why::NoPolicy => format!("{asked}: {}", no_policy(namespace)),
            Why::Unknown(problem) => format!("{asked}: nothing new is granted: {problem}"),
            Why::NotAllowed { closest, allows } => format!(
                "{asked} is not allowed: policy/{closest} comes closest and allows {}; what it needs is a policy that \
                 selects the namespace {namespace} and has it in {}",
                globs(allows),
                self.field.policy_path()
            ),
            Why::NeedsApproval { policy } => format!(
                "{asked} waits for approval: policy/{policy} allows it once a RegistrationApproval of {namespace}/{name} \
                 lists it in {list}"
            ),
            Why::ApprovalEnded { approval } => format!(
                "{asked} is not approved any more: approval/{approval} has ended; renew it, or create another \
                 RegistrationApproval of {namespace}/{name} that lists it in {list}"
            ),
        }
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

    /// What is not granted and what is kept against every policy, for a condition's message; empty if there is neither.
    #[must_use]
    pub fn message(&self, subject: Subject<'_>) -> String {
        let mut denied: Vec<_> = self.denied.iter().collect();
        denied.sort_by_key(|denied| denied.reason() == Reason::ApprovalRequired);
        let mut told: Vec<_> = denied.iter().take(MOST_TOLD).map(|denied| denied.sentence(subject)).collect();
        if denied.len() > MOST_TOLD {
            told.push(format!("and {} more are not granted", denied.len() - MOST_TOLD));
        }
        if let Some(first) = self.kept.first() {
            told.push(kept(first, self.kept.len()));
        }
        told.join("; ")
    }
}

/// That nothing selects a namespace, and what to do.
pub(super) fn no_policy(namespace: &str) -> String {
    format!(
        "no RegistrationPolicy selects the namespace {namespace}: create one, or give the namespace a label that one selects"
    )
}

fn kept(first: &Kept, count: usize) -> String {
    let more = if count > 1 { format!(" and {} more are", count - 1) } else { " is".to_owned() };
    format!(
        "spec.{} {}{more} kept though nothing allows it any more, by {}: allow it again, or remove it from the spec",
        first.field.path(),
        first.item,
        first.by
    )
}

fn globs(allows: &[String]) -> String {
    let rest = allows.len().saturating_sub(MOST_GLOBS);
    match allows {
        [] => "none".to_owned(),
        _ if rest > 0 => format!("{} and {rest} more", allows[..MOST_GLOBS].join(", ")),
        _ => allows.join(", "),
    }
}

/// The list of an approval that a field belongs to.
const fn approval_list(field: Field) -> &'static str {
    match field {
        Field::Customers => "customers",
        Field::CustomerGroups => "customerGroups",
        Field::Scopes | Field::Audiences | Field::ResourceAudiences | Field::RedirectUris | Field::DnsNames => {
            field.path()
        }
    }
}
