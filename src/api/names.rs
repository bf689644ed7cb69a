//! Names of labels, annotations and types that appreg writes or reads on Kubernetes objects.

/// The API group of every kind of appreg.
pub const GROUP: &str = "appreg.dev";

/// Label on every Secret that the operator made; its value is [`MANAGED_BY`].
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The value of [`MANAGED_BY_LABEL`].
pub const MANAGED_BY: &str = "appreg";

/// Label: the `metadata.uid` of the registration that a Secret or a ledger entry belongs to.
pub const REGISTRATION_UID_LABEL: &str = "appreg.dev/registration-uid";

/// Annotation on a Secret: `<namespace>/<name>` of its registration.
pub const REGISTRATION_ANNOTATION: &str = "appreg.dev/registration";

/// Annotation on a Secret: the client ID whose credentials it holds.
pub const CLIENT_ID_ANNOTATION: &str = "appreg.dev/client-id";

/// Annotation on a Secret: JSON by entry of what it holds; a hint, of which only `since` is used.
pub const PUBLISHED_ANNOTATION: &str = "appreg.dev/published";

/// Annotation on a registration: `<time>` or `<entry>=<time>`, comma-separated; as the spec's field.
pub const ROTATE_MINTED_BEFORE_ANNOTATION: &str = "appreg.dev/rotate-minted-before";

/// Annotation on a registration: `<time>` or `<entry>=<time>`, comma-separated; as the spec's field. On the Secret
/// `signing-keys` it is one `<time>`: token signing keys made before it are unpublished when it has come.
pub const REVOKE_MINTED_BEFORE_ANNOTATION: &str = "appreg.dev/revoke-minted-before";

/// The `type` of a Secret that is a ledger entry.
pub const LEDGER_SECRET_TYPE: &str = "appreg.dev/ledger";

/// Annotation on a Secret: JSON with the names that came from `secretTemplate`, so that they leave with it.
pub const APPLIED_TEMPLATE_ANNOTATION: &str = "appreg.dev/applied-template";

/// Annotation on a Secret: a comparison of its public fields, so that a changed server is noticed without a GET.
pub const CONNECTION_ANNOTATION: &str = "appreg.dev/connection";
