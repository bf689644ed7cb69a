//! What is found: which rule is broken, where, and what to do.

use super::field_path::FieldPath;

/// A place in a file, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// How bad it is. Each is a finding, and each makes the exit status 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The API server would refuse it, or it would not be granted.
    Error,
    /// It would wait for a person, or become something else than what is written.
    Warning,
}

/// What is broken, under a name that stays the same from release to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A kind or a version of `appreg.dev` that does not exist.
    UnknownKind,
    /// `metadata.name` or `metadata.namespace`.
    ObjectName,
    /// A field that the schema does not have.
    UnknownField,
    /// A field that is missing.
    RequiredField,
    /// A value of another type.
    FieldType,
    /// A value that is none of those allowed.
    FieldValue,
    /// A text, list or map that is too long or too short.
    FieldLength,
    /// A text that does not match its pattern.
    FieldPattern,
    /// A text that is no time or no duration.
    FieldFormat,
    /// A number out of its range, or another rule of the schema.
    FieldSchema,
    /// An item that stands twice in a list.
    DuplicateItem,
    /// A rule in CEL.
    ValidationRule,
    /// An object that stands twice in the files.
    DuplicateObject,
    /// A policy that selects nothing and allows nothing, because it cannot be understood.
    UnreadablePolicy,
    /// An authorization server that is not in force, because it cannot be served as it is declared.
    ServerNotInForce,
    /// Something that no policy allows, or that an authorization server does not take.
    NotAllowed,
    /// Everything, because no policy selects the namespace.
    NoPolicy,
    /// More than a policy allows of it.
    QuotaExceeded,
    /// Something that a policy allows once it is approved.
    ApprovalRequired,
    /// A duration beyond the bounds of a policy.
    Bounded,
    /// Something that the operator cannot act on.
    InvalidSpec,
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 21] = [
        Self::UnknownKind,
        Self::ObjectName,
        Self::UnknownField,
        Self::RequiredField,
        Self::FieldType,
        Self::FieldValue,
        Self::FieldLength,
        Self::FieldPattern,
        Self::FieldFormat,
        Self::FieldSchema,
        Self::DuplicateItem,
        Self::ValidationRule,
        Self::DuplicateObject,
        Self::UnreadablePolicy,
        Self::ServerNotInForce,
        Self::NotAllowed,
        Self::NoPolicy,
        Self::QuotaExceeded,
        Self::ApprovalRequired,
        Self::Bounded,
        Self::InvalidSpec,
    ];

    /// Its name.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::UnknownKind => "unknown-kind",
            Self::ObjectName => "object-name",
            Self::UnknownField => "unknown-field",
            Self::RequiredField => "required-field",
            Self::FieldType => "field-type",
            Self::FieldValue => "field-value",
            Self::FieldLength => "field-length",
            Self::FieldPattern => "field-pattern",
            Self::FieldFormat => "field-format",
            Self::FieldSchema => "field-schema",
            Self::DuplicateItem => "duplicate-item",
            Self::ValidationRule => "validation-rule",
            Self::DuplicateObject => "duplicate-object",
            Self::UnreadablePolicy => "unreadable-policy",
            Self::ServerNotInForce => "server-not-in-force",
            Self::NotAllowed => "not-allowed",
            Self::NoPolicy => "no-policy",
            Self::QuotaExceeded => "quota-exceeded",
            Self::ApprovalRequired => "approval-required",
            Self::Bounded => "bounded",
            Self::InvalidSpec => "invalid-spec",
        }
    }

    /// What it asks for, in a sentence.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::UnknownKind => "The kind and its version exist in appreg.dev.",
            Self::ObjectName => {
                "An object has a name, and a namespace where its kind has one, as Kubernetes writes them."
            }
            Self::UnknownField => "Every field is one of the kind's schema.",
            Self::RequiredField => "No required field is missing.",
            Self::FieldType => "Every value has the type of its field.",
            Self::FieldValue => "Every value is one of those that its field allows.",
            Self::FieldLength => "Texts, lists and maps are neither too long nor too short.",
            Self::FieldPattern => "Every text matches the pattern of its field.",
            Self::FieldFormat => "Times and durations can be read.",
            Self::FieldSchema => "Every value is as the schema of its field says.",
            Self::DuplicateItem => "No item stands twice in a list.",
            Self::ValidationRule => "The rules of the kind's definition hold (x-kubernetes-validations).",
            Self::DuplicateObject => "No object stands twice in the files.",
            Self::UnreadablePolicy => "A policy can be understood; one that cannot selects nothing and allows nothing.",
            Self::ServerNotInForce => "An authorization server can be served as it is declared.",
            Self::NotAllowed => "What is asked for is allowed by a policy, and taken by its authorization server.",
            Self::NoPolicy => "A policy selects the namespace.",
            Self::QuotaExceeded => "There are no more registrations and credentials than a policy allows.",
            Self::ApprovalRequired => "What needs an approval has one.",
            Self::Bounded => "Durations are within the bounds of a policy.",
            Self::InvalidSpec => "The operator can act on what is asked for.",
        }
    }
}

/// What is wrong with an object, without the file that it is from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The field.
    pub field: FieldPath,
    /// What is broken.
    pub rule: Rule,
    /// How bad it is.
    pub level: Level,
    /// What is wrong. It repeats no value of a field that could be a private key.
    pub message: String,
    /// What to do, where the message does not say it.
    pub fix: Option<String>,
}

impl Violation {
    /// An error, whose message says what to do.
    #[must_use]
    pub fn error(rule: Rule, field: FieldPath, message: impl Into<String>) -> Self {
        Self { field, rule, level: Level::Error, message: message.into(), fix: None }
    }

    /// The field, unless it is the object as a whole, and what is wrong with it.
    #[must_use]
    pub fn text(&self) -> String {
        match self.field.parent() {
            None => self.message.clone(),
            Some(_) => format!("{}: {}", self.field, self.message),
        }
    }

    /// The same as a warning.
    #[must_use]
    pub fn as_warning(self) -> Self {
        Self { level: Level::Warning, ..self }
    }

    /// The same, with what to do.
    #[must_use]
    pub fn to_fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}
