//! Two clients, a deadline on every call, and errors a caller can decide on.
//!
//! Nothing is retried here: whether a call may be made again is a decision, and the client's own retry would hide for
//! seconds what a reconcile could report at once.

use std::{fmt, time::Duration};

use kube::{Client, Config, core::Status};

/// How long an ordinary request may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a write may take. An admission webhook may take 30 s, and one that is dead and ignored takes its whole time:
/// with less, nothing would be written as long as it exists.
pub const WRITTEN_WITHIN: Duration = Duration::from_secs(35);

const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Idle pooled connections that went silent close themselves after this, so that they do not cost a request each.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Messages of the API server are cut to this many characters.
const MESSAGE_MAX_CHARS: usize = 300;
/// The words after which admission says in its own words why.
const DENIALS: [&str; 2] = ["denied the request", "denied request"];
/// The reason that kube invents when an error's body is not a `Status`; its message is the body.
const NOT_A_STATUS: &str = "Failed to parse error data";

/// The two ways to talk to the API server.
#[derive(Clone)]
pub struct Clients {
    /// For watches, which may be silent for long: no read timeout.
    pub watches: Client,
    /// For everything else, under [`call`].
    pub requests: Client,
    /// For writes that pass admission, which may take [`WRITTEN_WITHIN`].
    pub writes: Client,
}

impl Clients {
    /// Makes both clients of one configuration. No connection is opened yet. Must be called inside a tokio runtime.
    pub fn new(mut config: Config) -> Result<Self, Error> {
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_WITHIN);
        config.read_timeout = None;
        let watches = Client::try_from(config.clone())?;
        config.read_timeout = Some(READ_WITHIN);
        config.reset_reader_on_write = true;
        let requests = Client::try_from(config.clone())?;
        config.read_timeout = Some(WRITTEN_WITHIN + READ_WITHIN);
        Ok(Self { watches, requests, writes: Client::try_from(config)? })
    }
}

/// Makes one request, and gives up after `deadline` (usually [`ANSWER_WITHIN`]).
///
/// A write that ran into its deadline may have been committed: see [`Error::unknown_outcome`].
pub async fn call<T>(deadline: Duration, request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(deadline, request).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Error::Timeout(deadline)),
    }
}

/// Why a call did not succeed.
///
/// Neither `Display` nor `Debug` ever repeats what was sent or received: an object may be a Secret.
#[derive(thiserror::Error)]
pub enum Error {
    /// No answer within the deadline.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Timeout(Duration),
    /// The API server answered with an error status.
    #[error("{}", Told(.0))]
    Api(Box<Status>),
    /// The connection could not be made, or broke.
    #[error("connection failed")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server answered with success, and the answer could not be parsed. What it held is not told.
    #[error("the answer could not be read")]
    Unreadable,
    /// The request was never sent: configuration, authentication or TLS.
    #[error("request could not be made")]
    Client(#[source] Box<kube::Error>),
}

impl Error {
    /// True if the server says that the object `name` itself does not exist.
    ///
    /// False for a missing CRD, a missing namespace on create, and everything that merely looks like a 404.
    #[must_use]
    pub fn is_absent(&self, name: &str) -> bool {
        self.status().is_some_and(|s| {
            s.code == 404
                && s.reason == "NotFound"
                && s.details.as_ref().is_some_and(|d| d.name == name && d.kind != "namespaces")
        })
    }

    /// True if a create found the name taken.
    #[must_use]
    pub fn already_exists(&self) -> bool {
        self.is(409, "AlreadyExists")
    }

    /// True if the object changed since it was read: a stale resourceVersion, another uid, a failed precondition.
    #[must_use]
    pub fn conflict(&self) -> bool {
        self.is(409, "Conflict")
    }

    /// True if the identity or its rights were refused. Right after the API server's start this proves nothing.
    #[must_use]
    pub fn forbidden(&self) -> bool {
        self.status().is_some_and(|s| s.code == 403 || s.code == 401)
            && !self.quota_exceeded()
            && !self.namespace_terminating()
    }

    /// True if a `ResourceQuota` refused a create.
    #[must_use]
    pub fn quota_exceeded(&self) -> bool {
        self.status().is_some_and(|s| s.code == 403 && s.message.contains("exceeded quota: "))
    }

    /// True if a create was refused because its namespace is being deleted.
    #[must_use]
    pub fn namespace_terminating(&self) -> bool {
        self.status().is_some_and(|s| {
            s.code == 403 && s.details.iter().flat_map(|d| &d.causes).any(|c| c.reason == "NamespaceTerminating")
        })
    }

    /// True if a create was refused because its namespace does not exist.
    #[must_use]
    pub fn namespace_missing(&self) -> bool {
        self.status().is_some_and(|s| {
            s.code == 404 && s.reason == "NotFound" && s.details.as_ref().is_some_and(|d| d.kind == "namespaces")
        })
    }

    /// True if the object broke a rule of its schema or of its kind: the same request will fail again.
    #[must_use]
    pub fn invalid(&self) -> bool {
        self.is(422, "Invalid")
    }

    /// True if the request was refused, and so was not carried out: by a quota, by admission, by a rule, for want of
    /// rights. A conflict is none, nor an answer that says to come again.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.status().is_some_and(|s| (400..500).contains(&s.code) && !matches!(s.code, 408 | 409 | 429))
    }

    /// True if an admission webhook or a `ValidatingAdmissionPolicy` refused the request. Its name is in the text.
    #[must_use]
    pub fn denied_by_admission(&self) -> bool {
        self.status().is_some_and(|s| DENIALS.iter().any(|denial| s.message.contains(denial)))
    }

    /// The fields an [`invalid`](Self::invalid) answer complains about, in its order; empty for other errors.
    #[must_use]
    pub fn invalid_fields(&self) -> Vec<&str> {
        self.status()
            .filter(|s| s.code == 422)
            .and_then(|s| s.details.as_ref())
            .map(|d| d.causes.iter().map(|c| c.field.as_str()).collect())
            .unwrap_or_default()
    }

    /// True if the version asked for is no longer remembered: list again.
    #[must_use]
    pub fn expired(&self) -> bool {
        self.status().is_some_and(|s| s.code == 410)
    }

    /// True if a write that failed like this may nevertheless have been committed, now or a little later.
    #[must_use]
    pub fn unknown_outcome(&self) -> bool {
        match self {
            Self::Timeout(_) | Self::Connection(_) | Self::Unreadable => true,
            Self::Api(s) => s.code == 0 || s.code >= 500,
            Self::Client(_) => false,
        }
    }

    /// The error with all its causes, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let said = error.to_string();
            // kube and hyper repeat their source in their own text
            if !text.ends_with(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        text
    }

    fn status(&self) -> Option<&Status> {
        match self {
            Self::Api(status) => Some(status),
            Self::Timeout(_) | Self::Connection(_) | Self::Unreadable | Self::Client(_) => None,
        }
    }

    fn is(&self, code: u16, reason: &str) -> bool {
        self.status().is_some_and(|s| s.code == code && s.reason == reason)
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Api(status),
            kube::Error::Service(source) => Self::Connection(source),
            kube::Error::HyperError(source) => Self::Connection(Box::new(source)),
            kube::Error::ReadEvents(source) => Self::Connection(Box::new(source)),
            // serde's messages quote the value that did not fit
            kube::Error::SerdeError(_)
            | kube::Error::FromUtf8(_)
            | kube::Error::LinesCodecMaxLineLengthExceeded
            | kube::Error::HttpError(_) => Self::Unreadable,
            other => Self::Client(Box::new(other)),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.chain())
    }
}

/// What of a status may be told.
struct Told<'a>(&'a Status);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.0;
        if status.reason == NOT_A_STATUS {
            return write!(f, "{} without a status, from a proxy or for a kind that is not served", status.code);
        }
        write!(f, "{} {}", status.code, status.reason)?;
        // The messages of these quote what was sent, but for one of admission, of which the beginning is told.
        let is_denial = DENIALS.iter().any(|denial| status.message.contains(denial));
        if !is_denial && (status.code == 422 || status.code == 400) {
            for cause in status.details.iter().flat_map(|d| &d.causes) {
                write!(f, ", {}: {}", cause.field, cause.reason)?;
            }
            return Ok(());
        }
        let message = quoteless(&status.message);
        if message.is_empty() {
            return Ok(());
        }
        f.write_str(": ")?;
        message.chars().take(MESSAGE_MAX_CHARS).try_for_each(|c| fmt::Write::write_char(f, c))
    }
}

/// The part of a message that the API server wrote. What follows comes from an admission webhook or policy, which has
/// seen the object and may quote it.
fn quoteless(message: &str) -> &str {
    DENIALS
        .iter()
        .filter_map(|end| message.find(end).map(|at| &message[..at + end.len()]))
        .min_by_key(|part| part.len())
        .unwrap_or(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn api(code: u16, reason: &str, message: &str, details: &Value) -> Error {
        let status =
            json!({"status": "Failure", "code": code, "reason": reason, "message": message, "details": details});
        Error::Api(serde_json::from_value(status).unwrap())
    }

    #[test]
    fn only_a_not_found_that_names_the_object_says_that_it_is_absent() {
        let genuine = api(404, "NotFound", "not found", &json!({"name": "a", "kind": "secrets"}));
        assert!(genuine.is_absent("a"));
        assert!(!genuine.is_absent("b"));
        let no_crd = api(404, NOT_A_STATUS, "404 page not found", &Value::Null);
        assert!(!no_crd.is_absent("a") && !no_crd.is_absent(""));
        let no_namespace = api(404, "NotFound", "not found", &json!({"name": "a", "kind": "namespaces"}));
        assert!(!no_namespace.is_absent("a") && no_namespace.namespace_missing());
        assert!(!Error::Timeout(ANSWER_WITHIN).is_absent("a"));
    }

    #[test]
    fn a_taken_name_is_not_a_conflict_and_a_conflict_is_not_a_taken_name() {
        let taken = api(409, "AlreadyExists", "", &Value::Null);
        assert!(taken.already_exists() && !taken.conflict());
        let stale = api(409, "Conflict", "", &Value::Null);
        assert!(stale.conflict() && !stale.already_exists());
    }

    #[test]
    fn quota_and_a_namespace_that_goes_are_told_apart_from_missing_rights() {
        let quota = api(403, "Forbidden", "secrets \"a\" is forbidden: exceeded quota: q, requested: …", &Value::Null);
        assert!(quota.quota_exceeded() && !quota.forbidden());
        let causes =
            json!({"causes": [{"reason": "NamespaceTerminating", "message": "", "field": "metadata.namespace"}]});
        let going = api(403, "Forbidden", "unable to create new content", &causes);
        assert!(going.namespace_terminating() && !going.forbidden());
        assert!(api(403, "Forbidden", "no", &Value::Null).forbidden());
        assert!(api(401, "Unauthorized", "no", &Value::Null).forbidden());
    }

    #[test]
    fn a_write_without_a_clear_answer_may_have_been_committed() {
        assert!(Error::Timeout(ANSWER_WITHIN).unknown_outcome());
        assert!(Error::Connection("reset".into()).unknown_outcome());
        assert!(Error::Unreadable.unknown_outcome());
        assert!(api(504, "Timeout", "", &Value::Null).unknown_outcome());
        for code in [400, 401, 403, 404, 409, 422, 429] {
            assert!(!api(code, "", "", &Value::Null).unknown_outcome(), "{code}");
        }
    }

    #[test]
    fn no_error_repeats_what_was_sent_or_received() {
        let not_a_number = serde_json::from_value::<u64>(json!("hunter2")).unwrap_err();
        assert!(not_a_number.to_string().contains("hunter2"), "serde quotes values");
        let causes =
            json!({"causes": [{"field": "data[tls.key]", "reason": "FieldValueInvalid", "message": "hunter2"}]});
        let errors = [
            kube::Error::SerdeError(not_a_number).into(),
            api(422, "Invalid", "Secret \"a\" is invalid: data: \"hunter2\"", &causes),
            api(400, "BadRequest", "illegal base64 data: hunter2", &Value::Null),
            api(403, "Forbidden", "admission webhook \"w\" denied the request: hunter2", &Value::Null),
            api(502, NOT_A_STATUS, "<html>hunter2", &Value::Null),
        ];
        for error in errors {
            assert!(!format!("{error} {error:?} {}", error.chain()).contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_error_says_what_a_person_needs() {
        let told = |error: Error| error.to_string();
        assert_eq!(told(Error::Timeout(ANSWER_WITHIN)), "no answer within 5 s");
        assert_eq!(
            told(api(403, "Forbidden", "secrets is forbidden", &Value::Null)),
            "403 Forbidden: secrets is forbidden"
        );
        let causes = json!({"causes": [{"field": "type", "reason": "FieldValueInvalid", "message": "…"}]});
        let invalid = api(422, "Invalid", "…", &causes);
        assert_eq!(invalid.invalid_fields(), ["type"]);
        assert_eq!(told(invalid), "422 Invalid, type: FieldValueInvalid");
        let io = std::io::Error::other("connection refused");
        assert_eq!(Error::Connection(Box::new(io)).chain(), "connection failed: connection refused");
    }

    #[test]
    fn long_messages_are_cut() {
        assert!(api(500, "InternalError", &"é".repeat(5000), &Value::Null).to_string().chars().count() < 400);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_not_answered_ends_at_its_deadline() {
        let never = std::future::pending::<kube::Result<()>>();
        assert!(matches!(call(ANSWER_WITHIN, never).await, Err(Error::Timeout(ANSWER_WITHIN))));
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_connection_error_with_its_cause() {
        let mut config = Config::new("http://127.0.0.1:1".parse().unwrap());
        config.root_cert = Some(Vec::new());
        let clients = Clients::new(config).unwrap();
        for client in [clients.watches, clients.requests, clients.writes] {
            let error = call(ANSWER_WITHIN, client.apiserver_version()).await.unwrap_err();
            assert!(error.unknown_outcome() && matches!(error, Error::Connection(_)));
            assert!(error.chain().contains("refused"), "{error:?}");
        }
    }
}
