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
    /// The body is larger than [`super::token_endpoint::LARGEST_BODY_BYTES`].
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
    /// The scope is malformed or was not granted.
    Scope,
    /// The resource is malformed or was not granted.
    Resource,
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
            Self::NotReady => "not_ready",
            Self::NotSigned => "not_signed",
        }
    }

    /// The `error` of RFC 6749 §5.2; `invalid_target` is RFC 8707 §2's, the last two are RFC 6749 §4.1.2.1's words for
    /// what HTTP says by its status.
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
            | Self::SeveralMethods => "invalid_request",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::NoCredentials
            | Self::AuthorizationMalformed
            | Self::UnsupportedMethod
            | Self::UnknownClient
            | Self::WrongClientSecret
            | Self::NotValidNow
            | Self::UnregisteredMethod => "invalid_client",
            Self::Scope => "invalid_scope",
            Self::Resource => "invalid_target",
            Self::NotReady => "temporarily_unavailable",
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
            | Self::UnregisteredMethod => "client authentication failed",
            Self::Scope => "the scope is malformed or was not granted",
            Self::Resource => "the resource is malformed or was not granted",
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
            Self::NotReady => StatusCode::SERVICE_UNAVAILABLE,
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Refusal; 20] = [
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
