//! The rule that no two entries of a registration write the same field of one Secret, in CEL.
//!
//! It stands at the root of the schema, because the default name of a Secret is made of `metadata.name`.

use kube::core::Message;

/// Whether the entries `a` and `b` write the same field of one Secret, in CEL, where `token` is the default name of
/// an access token's Secret.
///
/// The same Secret is that of [`super::secret_name`], in comparisons that the API server knows to be cheap: one side
/// is always a `secretName`, whose length has a maximum. A client secret and a certificate without `secretName` have
/// fields of their own and may share a Secret; an access token, and a certificate with a `secretName`, have theirs to
/// themselves. What is given has none.
const CONFLICT: &str = "a.name != b.name \
    && !(has(a.publicKey) || has(a.serviceAccount) || has(b.publicKey) || has(b.serviceAccount)) \
    && (has(a.secretName) \
        ? (has(b.secretName) ? a.secretName == b.secretName : has(b.accessToken) ? a.secretName == token : a.secretName == self.metadata.name) \
        : has(b.secretName) \
            ? (has(a.accessToken) ? b.secretName == token : b.secretName == self.metadata.name) \
            : has(a.accessToken) == has(b.accessToken)) \
    && !(has(a.clientSecret) && has(b.certificate) && !has(b.secretName)) \
    && !(has(b.clientSecret) && has(a.certificate) && !has(a.secretName))";

/// True where no two entries are in conflict.
pub(super) fn rule() -> String {
    format!(
        "!has(self.spec.credentials) || [self.metadata.name + '-token'].all(token, \
         !self.spec.credentials.exists(a, self.spec.credentials.exists(b, {CONFLICT})))"
    )
}

/// Names two entries that are in conflict. The texts are joined inside the loops, where the API server knows how long the names can be.
pub(super) fn message() -> Message {
    Message::Expression(format!(
        "[self.metadata.name + '-token'].map(token, self.spec.credentials.map(a, \
         self.spec.credentials.exists(b, {CONFLICT}), self.spec.credentials.map(b, {CONFLICT}, \
         'credentials ' + a.name + ' and ' + b.name + ' must not write the same field of one Secret: \
         give one of them a secretName of its own')[0])[0])[0]"
    ))
}
