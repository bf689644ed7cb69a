//! The reasons that conditions, Events, plans and metrics give: the one list of them, and the source of their page in
//! `docs/reference/`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place where a reason is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sighting {
    /// The condition `Ready` of an `AppRegistration`.
    Ready,
    /// The condition `Approved` of an `AppRegistration`.
    Approved,
    /// The condition `Reconciling` of an `AppRegistration`.
    Reconciling,
    /// The condition `Stalled` of an `AppRegistration`.
    Stalled,
    /// The condition `Ready` of a `RegistrationPolicy`.
    PolicyReady,
    /// The condition `Ready` of an `AuthorizationServer`.
    ServerReady,
    /// An Event about an `AppRegistration`.
    Event,
    /// An Event about the Secret `signing-keys`.
    SigningKeysEvent,
    /// A plan's steps, in the controller's log.
    Plan,
}

impl Sighting {
    /// The place, for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "condition `Ready`",
            Self::Approved => "condition `Approved`",
            Self::Reconciling => "condition `Reconciling`",
            Self::Stalled => "condition `Stalled`",
            Self::PolicyReady => "condition `Ready` of a RegistrationPolicy",
            Self::ServerReady => "condition `Ready` of an AuthorizationServer",
            Self::Event => "Event",
            Self::SigningKeysEvent => "Event of the Secret `signing-keys`",
            Self::Plan => "plan in the controller's log",
        }
    }
}

/// Declares [`Reason`] so that everything about a reason is written down once.
macro_rules! reasons {
    ($($name:ident { meaning: $meaning:literal, seen: [$($seen:ident),+], remedy: $remedy:literal, })+) => {
        /// Why: the one list of reasons, for conditions, plan steps, Events and metric labels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Reason {
            $(#[doc = $meaning] $name,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The reason in CamelCase, as it stands in conditions, Events and metric labels.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// The meaning, in sentences for people.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)+
                }
            }

            /// Every place where the reason is seen.
            #[must_use]
            pub const fn seen(self) -> &'static [Sighting] {
                match self {
                    $(Self::$name => &[$(Sighting::$seen),+],)+
                }
            }

            /// The thing that a person does about it, in sentences.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self {
                    $(Self::$name => $remedy,)+
                }
            }
        }
    };
}

reasons! {
    // Of conditions.
    Issued {
        meaning: "Every credential of the registration is in its Secret, or known to the server, and is accepted now.",
        seen: [Ready],
        remedy: "Nothing.",
    }
    Granted {
        meaning: "Everything that the registration asks for is granted. The message names durations that a policy shortened or lengthened.",
        seen: [Approved],
        remedy: "Nothing. Write the duration that the message names into the spec if you want the two to agree.",
    }
    InForce {
        meaning: "The policy applies, or the authorization server is served.",
        seen: [PolicyReady, ServerReady],
        remedy: "Nothing.",
    }
    Progressing {
        meaning: "The controller is issuing credentials, or an uploaded certificate is not valid yet.",
        seen: [Ready, Reconciling],
        remedy: "Wait. If it lasts for minutes, read the message and the controller's log; for a certificate, wait until the time in the message.",
    }
    RotationFailing {
        meaning: "The controller could not write a ledger entry or a Secret. The credentials that exist are still accepted, and the controller retries.",
        seen: [Ready, Reconciling, Event],
        remedy: "Remove the obstacle that the message names, such as an admission webhook that rejects the Secret. The controller needs no restart.",
    }
    ApprovalRequired {
        meaning: "A policy allows an item only with an approval, and no RegistrationApproval lists it. Everything else is granted.",
        seen: [Ready, Approved, Reconciling, Event],
        remedy: "Ask an approver for a RegistrationApproval that lists the item, or remove the item from the spec.",
    }
    ServerUnavailable {
        meaning: "The authorization server has no keys yet, or its keys could not be read or written. The controller retries.",
        seen: [Ready, Reconciling, ServerReady, Event],
        remedy: "Wait for a minute. If it lasts, read `/readyz?verbose` and the log of the controller, and restore the Secret that they name.",
    }
    ServerDenied {
        meaning: "The authorization server takes nothing new from this namespace: its namespaceSelector does not select it, or its AuthorizationServer was deleted or cannot be used. Existing credentials continue.",
        seen: [Ready, Approved, Stalled, Event],
        remedy: "Name another server in a new registration, or ask the platform team to select the namespace or to restore the AuthorizationServer.",
    }
    IssuerConflict {
        meaning: "Another authorization server already has the host and path of the issuer, or the clients of this server know another issuer.",
        seen: [ServerReady],
        remedy: "Write the issuer that the message names, or create the AuthorizationServer with an issuer or a name of its own.",
    }
    MintLimited {
        meaning: "The credential already has the most live revisions that it may have. The next revision waits until one of them ends.",
        seen: [Ready, Reconciling, Event],
        remedy: "Find out who keeps changing or deleting the Secret, and stop it. The controller continues by itself once a revision has ended.",
    }
    NamespaceTerminating {
        meaning: "The namespace is being deleted or is gone, so no Secret can be created in it.",
        seen: [Ready, Reconciling, Event],
        remedy: "Nothing, if the deletion is intended. Otherwise create the registration in another namespace.",
    }
    Terminating {
        meaning: "The registration is being deleted, and something still holds it. Nothing is minted for it; its client ends about 30 seconds after the deletion was asked for, whoever holds the object.",
        seen: [Ready, Reconciling],
        remedy: "Nothing is to be done for the client. To let the object go, see its metadata.finalizers and the controllers that they name.",
    }
    QuotaExceeded {
        meaning: "A ResourceQuota of the namespace, a limit of its policies, or the limit of 32 authorization servers leaves no room.",
        seen: [Ready, Approved, Reconciling, ServerReady, Event],
        remedy: "Delete what is no longer needed, or raise the quota or the limit that the message names.",
    }
    PolicyDenied {
        meaning: "No policy allows an item, a client ID, a credential or a method that the registration asks for. Everything else is granted.",
        seen: [Ready, Approved, Stalled, Event],
        remedy: "Remove what the message names from the spec, or ask the platform team to add it to a RegistrationPolicy that selects the namespace.",
    }
    NoPolicy {
        meaning: "No RegistrationPolicy selects the namespace, or policies cannot be read yet. Nothing new is granted or issued; existing credentials continue.",
        seen: [Ready, Approved, Stalled, Event],
        remedy: "Create a RegistrationPolicy, or give the namespace a label that the namespaceSelector of one selects.",
    }
    SecretConflict {
        meaning: "An object that does not belong to this registration has the name of the Secret, or the Secret has another type.",
        seen: [Ready, Stalled, Event],
        remedy: "Delete that Secret if nobody needs it, or give the credential another name with another secretName.",
    }
    SecretRefused {
        meaning: "The API server refused to create or to change the Secret: an admission webhook, a ValidatingAdmissionPolicy or missing rights. The message names it. Nothing that is in use ends by that.",
        seen: [Ready, Reconciling, Event],
        remedy: "Make the named webhook or policy accept the Secret, for example with a label in secretTemplate, or restore the controller's rights. The controller asks again by a dry run, and goes on as soon as it is accepted.",
    }
    SecretImmutable {
        meaning: "The Secret is marked immutable, so the controller cannot write the next revision into it.",
        seen: [Ready, Stalled, Event],
        remedy: "Delete the Secret. The controller creates it again with a new credential.",
    }
    ClientIDTaken {
        meaning: "The client ID belongs to another registration.",
        seen: [Ready, Stalled, Event],
        remedy: "Delete this registration, and create it with another clientID. If the other registration was deleted just now, wait: the controller retries.",
    }
    InvalidSpec {
        meaning: "The spec or an annotation says something that cannot be done as it is written. Existing credentials continue.",
        seen: [Ready, Stalled, PolicyReady, ServerReady, Event],
        remedy: "Change the field that the message names, as it says.",
    }
    LedgerUnreadable {
        meaning: "The registration's ledger entry cannot be read, so nothing is issued, rotated or removed.",
        seen: [Ready, Stalled, Event],
        remedy: "Restore the Secret in the ledger namespace from a backup. Without a backup, delete it: the registration then gets new credentials.",
    }
    ClockBehind {
        meaning: "The controller's clock is more than five minutes behind the newest credential in the ledger. Nothing is issued.",
        seen: [Ready, Reconciling, Event],
        remedy: "Correct the clock of the controller's node. The controller continues by itself.",
    }

    // Of plan steps and Events.
    FirstMint {
        meaning: "The credential was issued for the first time.",
        seen: [Plan],
        remedy: "Nothing.",
    }
    TakenUp {
        meaning: "A public key or a ServiceAccount from the spec is now accepted.",
        seen: [Plan],
        remedy: "Nothing.",
    }
    RenewalDue {
        meaning: "The renewal time of the credential has come.",
        seen: [Event, Plan],
        remedy: "Nothing. An application that reads the Secret only at its start must be restarted before the old revision ends.",
    }
    RotationRequested {
        meaning: "Someone requested a rotation by rotateMintedBefore.",
        seen: [Event, Plan],
        remedy: "Have the application read the Secret again before the old revision ends; status.credentials[].previous says when.",
    }
    RevocationRequested {
        meaning: "Someone requested a revocation by revokeMintedBefore.",
        seen: [Event, Plan],
        remedy: "Have the application read the Secret again at once: the old revision is rejected.",
    }
    SecretDeleted {
        meaning: "Someone deleted the Secret, so it was created again with a new credential.",
        seen: [Event, Plan],
        remedy: "Have the application read the new Secret. Find out who deleted it if that was not intended.",
    }
    SecretChanged {
        meaning: "Someone changed the Secret: it held a value that the ledger does not know, or that is not accepted any more.",
        seen: [Event, Plan],
        remedy: "Find out who writes to the Secret, and stop it. Put further data into a Secret of its own.",
    }
    FieldMissing {
        meaning: "A field, label or annotation of the Secret was missing or different, and was written again.",
        seen: [Event, Plan],
        remedy: "Find out who edits the Secret if it happens again. After a restore from a backup, nothing is to be done.",
    }
    DurationShortened {
        meaning: "The effective duration was shortened, so the credential was replaced earlier.",
        seen: [Event, Plan],
        remedy: "Nothing. The old revision is accepted for the overlap.",
    }
    SpecChanged {
        meaning: "The spec was changed in a way that the credential or the Secret must follow.",
        seen: [Event, Plan],
        remedy: "Nothing for an issued credential. An uploaded key that was replaced is rejected at once.",
    }
    GrantChanged {
        meaning: "The scopes, APIs or customers that are granted have changed, and an access token or the ledger entry follows.",
        seen: [Plan],
        remedy: "Nothing.",
    }
    EntryRemoved {
        meaning: "A credential was removed from the spec, so it is no longer accepted.",
        seen: [Event, Plan],
        remedy: "Nothing. To get the credential back, add it again: a new revision is issued.",
    }
    OverlapEnded {
        meaning: "The time in which the old revision was accepted beside the new one is over.",
        seen: [Plan],
        remedy: "Nothing.",
    }
    Expired {
        meaning: "The credential has expired: an issued one was replaced too late, or an uploaded key or certificate has ended.",
        seen: [Ready, Stalled, Event, Plan],
        remedy: "Upload a newer key or certificate. For an issued credential, find out why the controller was down or blocked until its end.",
    }
    Revoked {
        meaning: "The revision was revoked by revokeMintedBefore. Tokens that were obtained with it are rejected by introspection.",
        seen: [Ready, Stalled, Event, Plan],
        remedy: "Upload another key: a revoked key is never accepted again. An issued credential was replaced already.",
    }
    Adopted {
        meaning: "A restored registration continues with its former ledger entry: same client ID, same credentials.",
        seen: [Event, Plan],
        remedy: "Nothing.",
    }
    TakenOver {
        meaning: "A new registration has the client ID of a deleted one of the same namespace and name, and none of its credentials.",
        seen: [Event, Plan],
        remedy: "Have the application read its Secrets: the credentials of the deleted registration are rejected.",
    }
    SweepSuspended {
        meaning: "The CustomResourceDefinition was replaced since the ledger was created, so the ledger entries of deleted registrations stay.",
        seen: [SigningKeysEvent],
        remedy: "Check that every registration was restored. Then remove the annotation `appreg.dev/crd-uid` from the Secret `signing-keys` in the ledger namespace.",
    }
    TokenDue {
        meaning: "The access token in the Secret was due for a refresh.",
        seen: [Plan],
        remedy: "Nothing.",
    }
    KeyUnpublished {
        meaning: "The access token was signed with a key that is no longer published, so it was signed again.",
        seen: [Event, Plan],
        remedy: "Have the application read the token again if it caches it: resource servers reject the old one.",
    }
}

impl Reason {
    /// The reason of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }

    /// Whether it is seen there.
    #[must_use]
    pub fn is_seen_in(self, place: Sighting) -> bool {
        self.seen().contains(&place)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn reasons_are_distinct_camel_case_and_are_found_by_name() {
        let mut seen = BTreeSet::new();
        for reason in Reason::ALL {
            let text = reason.to_string();
            assert!(text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{text}");
            assert!(text.starts_with(|first: char| first.is_ascii_uppercase()), "{text}");
            assert_eq!(serde_json::to_value(reason).unwrap(), text);
            assert_eq!(Reason::named(&text), Some(*reason));
            assert!(seen.insert(text));
        }
        assert_eq!(Reason::named("granted"), None);
    }

    #[test]
    fn each_reason_says_in_sentences_what_it_means_and_what_a_person_does() {
        for reason in Reason::ALL {
            for text in [reason.meaning(), reason.remedy()] {
                assert!(text.starts_with(|first: char| first.is_ascii_uppercase()) && text.ends_with('.'), "{text}");
                for word in ["What ", "Who ", "Whoever ", " shall "] {
                    assert!(!text.contains(word), "{reason}: {text}");
                }
                let longest = text.split(['.', ':', ';']).map(|part| part.split_whitespace().count()).max();
                assert!(longest <= Some(25), "{reason}: {text}");
            }
            let seen = reason.seen();
            assert!(seen.is_sorted_by(|a, b| a < b), "{reason}: each place once, in the order of the list");
        }
    }

    #[test]
    fn a_reason_either_needs_a_person_or_is_retried() {
        for reason in Reason::ALL {
            let both = [Sighting::Stalled, Sighting::Reconciling].map(|place| reason.is_seen_in(place));
            assert_ne!(both, [true, true], "{reason}");
            assert_eq!(
                reason.is_seen_in(Sighting::Ready),
                both != [false, false] || *reason == Reason::Issued,
                "{reason}"
            );
        }
    }
}
