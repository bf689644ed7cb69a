//! Why a request is refused: each reason, and the OAuth error that it becomes.
//!
//! The client learns what RFC 6749 §5.2 tells it and nothing more: an unknown client and a wrong client secret look the
//! same. The exact reason is for the service's own metric.

use http::StatusCode;

/// Why a request was not answered with what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The body is not `application/x-www-form-urlencoded`.
    ContentType,
    /// The body is larger than [`super::request::LARGEST_BODY_BYTES`].
    BodyTooLarge,
    /// The body took too long.
    BodyTimeout,
    /// The body ended too soon, or is not a form in UTF-8.
    BodyMalformed,
    /// Credentials stand in the query.
    CredentialsInQuery,
    /// A parameter occurs twice.
    RepeatedParameter,
    /// There is no `grant_type`.
    NoGrantType,
    /// The `grant_type` is none of ours.
    UnsupportedGrantType,
    /// The client authenticates in more than one way.
    SeveralMethods,
    /// The client does not authenticate.
    NoCredentials,
    /// The `Authorization` header is not what RFC 7617 and RFC 6749 §2.3.1 describe.
    AuthorizationMalformed,
    /// The client authenticates in a way that is not supported.
    UnsupportedMethod,
    /// No such client.
    UnknownClient,
    /// The client is known, and the client secret is none of its own.
    WrongClientSecret,
    /// The client secret was right, but is not valid now (rule R1).
    NotValidNow,
    /// The client secret is right and came in a way that is not the registered one.
    UnregisteredMethod,
    /// The scope is malformed, or was not granted at the API that the token is for.
    Scope,
    /// The resource is malformed, or an API that was not granted.
    Resource,
    /// The resources are APIs without a scope in common.
    NothingInCommon,
    /// The client may not use this grant type.
    UnauthorizedClient,
    /// A person was sent to sign in, and there are no users.
    NoUsers,
    /// The client assertion is no JWT, or lacks a claim that RFC 7523 §3 or we require.
    AssertionMalformed,
    /// The client assertion is signed by an algorithm that its key does not have; `none` and HMAC are never one.
    AssertionAlgorithm,
    /// The client assertion is not for our issuer identifier alone.
    AssertionAudience,
    /// The client assertion is not valid now, or for longer than we allow.
    AssertionTime,
    /// No accepted key of the client has signed the client assertion.
    AssertionSignature,
    /// The client assertion was used before.
    AssertionReplayed,
    /// The client assertion is from nobody whom the client has registered.
    AssertionIssuer,
    /// The client certificate is missing.
    NoCertificate,
    /// The client certificate is none of the client's own.
    UnknownCertificate,
    /// There is no `token`.
    NoToken,
    /// The token is of another client (RFC 7009 §2.1).
    ForeignToken,
    /// Too many failed authentications of this client or from this address.
    TooManyFailures,
    /// The client has revoked as many tokens as are remembered for it.
    TooManyRevocations,
    /// The revocation could not be written down.
    NotRecorded,
    /// The client has used more client assertions of late than it may while so many are remembered.
    TooManyAssertions,
    /// The client's ledger entry could not be read live, so nobody knows whether its credential is accepted by now.
    NotFoundOut,
    /// There is more to do than can be done.
    Overloaded,
    /// The ledger has not been read yet, or there is no signing key.
    NotReady,
    /// The token could not be signed.
    NotSigned,
}

impl Refusal {
    /// The reason as the metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ContentType => "content_type",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::BodyMalformed => "body_malformed",
            Self::CredentialsInQuery => "credentials_in_query",
            Self::RepeatedParameter => "repeated_parameter",
            Self::NoGrantType => "no_grant_type",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::SeveralMethods => "several_methods",
            Self::NoCredentials => "no_credentials",
            Self::AuthorizationMalformed => "authorization_malformed",
            Self::UnsupportedMethod => "unsupported_method",
            Self::UnknownClient => "unknown_client",
            Self::WrongClientSecret => "wrong_client_secret",
            Self::NotValidNow => "not_valid_now",
            Self::UnregisteredMethod => "unregistered_method",
            Self::Scope => "scope",
            Self::Resource => "resource",
            Self::NothingInCommon => "nothing_in_common",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::NoUsers => "no_users",
            Self::AssertionMalformed => "assertion_malformed",
            Self::AssertionAlgorithm => "assertion_algorithm",
            Self::AssertionAudience => "assertion_audience",
            Self::AssertionTime => "assertion_time",
            Self::AssertionSignature => "assertion_signature",
            Self::AssertionReplayed => "assertion_replayed",
            Self::AssertionIssuer => "assertion_issuer",
            Self::NoCertificate => "no_certificate",
            Self::UnknownCertificate => "unknown_certificate",
            Self::NoToken => "no_token",
            Self::ForeignToken => "foreign_token",
            Self::TooManyFailures => "too_many_failures",
            Self::TooManyRevocations => "too_many_revocations",
            Self::NotRecorded => "not_recorded",
            Self::TooManyAssertions => "too_many_assertions",
            Self::NotFoundOut => "not_found_out",
            Self::Overloaded => "overloaded",
            Self::NotReady => "not_ready",
            Self::NotSigned => "not_signed",
        }
    }

    /// The `error` of RFC 6749 §5.2; `invalid_target` is RFC 8707 §2's, `unsupported_response_type` RFC 6749 §4.1.2.1's,
    /// and so are the last two: its words for what HTTP says by its status.
    #[must_use]
    pub const fn error(self) -> &'static str {
        match self {
            Self::ContentType
            | Self::BodyTooLarge
            | Self::BodyTimeout
            | Self::BodyMalformed
            | Self::CredentialsInQuery
            | Self::RepeatedParameter
            | Self::NoGrantType
            | Self::SeveralMethods
            | Self::NoToken => "invalid_request",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::NoCredentials
            | Self::AuthorizationMalformed
            | Self::UnsupportedMethod
            | Self::UnknownClient
            | Self::WrongClientSecret
            | Self::NotValidNow
            | Self::UnregisteredMethod
            | Self::AssertionMalformed
            | Self::AssertionAlgorithm
            | Self::AssertionAudience
            | Self::AssertionTime
            | Self::AssertionSignature
            | Self::AssertionReplayed
            | Self::AssertionIssuer
            | Self::NoCertificate
            | Self::UnknownCertificate => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::NoUsers => "unsupported_response_type",
            Self::ForeignToken => "invalid_grant",
            Self::Scope => "invalid_scope",
            Self::Resource | Self::NothingInCommon => "invalid_target",
            // Programs take `invalid_client` for final, and this passes by itself.
            Self::TooManyFailures
            | Self::TooManyRevocations
            | Self::TooManyAssertions
            | Self::NotRecorded
            | Self::NotFoundOut
            | Self::Overloaded
            | Self::NotReady => "temporarily_unavailable",
            Self::NotSigned => "server_error",
        }
    }

    /// The `error_description`: one text per error that the client may know of (printable ASCII without quotes and
    /// backslashes, RFC 6749 §5.2).
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::ContentType => "the body must be application/x-www-form-urlencoded",
            Self::BodyTooLarge => "the body is too large",
            Self::BodyTimeout => "the body took too long",
            Self::BodyMalformed => "the body is not a form in UTF-8",
            Self::CredentialsInQuery => "credentials must not be in the query",
            Self::RepeatedParameter => "a parameter is repeated",
            Self::NoGrantType => "grant_type is missing",
            Self::UnsupportedGrantType => "grant_type must be client_credentials",
            Self::SeveralMethods => "the client authenticates in more than one way",
            Self::NoCredentials
            | Self::AuthorizationMalformed
            | Self::UnsupportedMethod
            | Self::UnknownClient
            | Self::WrongClientSecret
            | Self::NotValidNow
            | Self::UnregisteredMethod
            | Self::AssertionMalformed
            | Self::AssertionAlgorithm
            | Self::AssertionAudience
            | Self::AssertionTime
            | Self::AssertionSignature
            | Self::AssertionReplayed
            | Self::AssertionIssuer
            | Self::NoCertificate
            | Self::UnknownCertificate => "client authentication failed",
            Self::UnauthorizedClient => "the client may not use this grant type",
            Self::NoUsers => {
                "this issuer has no users to sign in: applications get tokens from its token endpoint, with \
                 grant_type=client_credentials"
            }
            Self::NoToken => "token is missing",
            Self::ForeignToken => "the token was not issued to this client",
            Self::TooManyFailures => "too many failed attempts",
            Self::TooManyRevocations => "too many revoked tokens",
            Self::NotRecorded => "the revocation could not be recorded",
            Self::TooManyAssertions => "too many client assertions: reuse the access token until it ends",
            Self::NotFoundOut => "the client could not be looked up",
            Self::Overloaded => "overloaded",
            Self::Scope => "the scope is malformed or was not granted",
            Self::Resource => "the resource is malformed or was not granted",
            Self::NothingInCommon => "the resources have no scope in common: ask for a token for one of them",
            Self::NotReady => "not ready yet",
            Self::NotSigned => "the token could not be signed",
        }
    }

    /// The HTTP status: 400 unless something more exact is specified.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::NotRecorded | Self::NotFoundOut | Self::Overloaded | Self::NotReady => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::TooManyFailures | Self::TooManyRevocations | Self::TooManyAssertions => StatusCode::TOO_MANY_REQUESTS,
            Self::NotSigned => StatusCode::INTERNAL_SERVER_ERROR,
            _ if self.is_authentication_failure() => StatusCode::UNAUTHORIZED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether it is the client's authentication that failed.
    #[must_use]
    pub fn is_authentication_failure(self) -> bool {
        self.error() == "invalid_client"
    }

    /// When to ask again, in seconds: of what passes by itself.
    #[must_use]
    pub const fn retry_after_seconds(self) -> Option<u32> {
        match self {
            Self::Overloaded | Self::TooManyFailures | Self::NotFoundOut => Some(1),
            Self::NotReady | Self::NotRecorded | Self::TooManyAssertions => Some(5),
            Self::TooManyRevocations => Some(60),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Refusal; 40] = [
        Refusal::ContentType,
        Refusal::BodyTooLarge,
        Refusal::BodyTimeout,
        Refusal::BodyMalformed,
        Refusal::CredentialsInQuery,
        Refusal::RepeatedParameter,
        Refusal::NoGrantType,
        Refusal::UnsupportedGrantType,
        Refusal::SeveralMethods,
        Refusal::NoCredentials,
        Refusal::AuthorizationMalformed,
        Refusal::UnsupportedMethod,
        Refusal::UnknownClient,
        Refusal::WrongClientSecret,
        Refusal::NotValidNow,
        Refusal::UnregisteredMethod,
        Refusal::Scope,
        Refusal::Resource,
        Refusal::NothingInCommon,
        Refusal::UnauthorizedClient,
        Refusal::NoUsers,
        Refusal::AssertionMalformed,
        Refusal::AssertionAlgorithm,
        Refusal::AssertionAudience,
        Refusal::AssertionTime,
        Refusal::AssertionSignature,
        Refusal::AssertionReplayed,
        Refusal::AssertionIssuer,
        Refusal::NoCertificate,
        Refusal::UnknownCertificate,
        Refusal::NoToken,
        Refusal::ForeignToken,
        Refusal::TooManyFailures,
        Refusal::TooManyRevocations,
        Refusal::NotRecorded,
        Refusal::TooManyAssertions,
        Refusal::NotFoundOut,
        Refusal::Overloaded,
        Refusal::NotReady,
        Refusal::NotSigned,
    ];

    #[test]
    fn descriptions_are_what_rfc_6749_allows() {
        for refusal in ALL {
            let text = refusal.description();
            assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'), "{text}");
        }
    }

    #[test]
    fn failed_authentications_look_all_the_same() {
        let seen: std::collections::BTreeSet<_> = ALL
            .iter()
            .filter(|refusal| refusal.is_authentication_failure())
            .map(|refusal| (refusal.status(), refusal.error(), refusal.description()))
            .collect();
        assert_eq!(seen.len(), 1);
    }

    #[test]
    fn every_reason_has_a_label_of_its_own() {
        let labels: std::collections::BTreeSet<_> = ALL.iter().map(|refusal| refusal.as_str()).collect();
        assert_eq!(labels.len(), ALL.len());
    }
}
