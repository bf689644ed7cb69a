//! A server's settings as the controller publishes them to the token service, which reads no objects: a field of the
//! Secret with the server's signing keys. They outlive the object that they come from, and with them what it made.

use serde::{Deserialize, Serialize};

use super::Server;
use crate::api::{Algorithm, LongDuration};

/// The start of the name of the Secret with the settings and the signing keys of a server that is not the configured one;
/// the server's name follows.
pub const SECRET_PREFIX: &str = "signing-keys-";

/// The field of that Secret that holds the settings.
pub const FIELD: &str = "server.json";

/// The largest field that is read, in bytes.
const LARGEST_BYTES: usize = 32 * 1024;

/// What this version writes, and all that it reads.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u32,
    name: String,
    issuer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    default_audience: Option<String>,
    access_token_lifetime: LongDuration,
    signing_algorithm: Algorithm,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    serving_names: Vec<String>,
}

/// Why published settings cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The Secret has none.
    #[error("the field {FIELD} is missing")]
    Missing,
    /// They are not the JSON we write.
    #[error("the field {FIELD} is malformed")]
    Malformed,
    /// A later version wrote them.
    #[error("the field {FIELD} is of a version that this one does not know")]
    Version,
    /// They are another server's.
    #[error("the field {FIELD} is another server's")]
    Name,
    /// They could not be configured either.
    #[error("the field {FIELD} has a {field} that {problem}")]
    Invalid {
        /// Which of the server's fields.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The bytes of [`FIELD`].
#[must_use]
#[expect(clippy::expect_used, reason = "a struct of derived types always serializes")]
pub fn to_json(server: &Server) -> Vec<u8> {
    let document = Document {
        version: VERSION,
        name: server.name.clone(),
        issuer: server.issuer.clone(),
        default_audience: server.default_audience.clone(),
        access_token_lifetime: server.access_token_lifetime,
        signing_algorithm: server.signing_algorithm,
        serving_names: server.serving_names.clone(),
    };
    serde_json::to_vec(&document).expect("settings serialize")
}

/// Reads the settings of the server of this name from the bytes of [`FIELD`].
pub fn parse(name: &str, bytes: Option<&[u8]>) -> Result<Server, Unreadable> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let bytes = bytes.ok_or(Unreadable::Missing)?;
    if bytes.len() > LARGEST_BYTES {
        return Err(Unreadable::Malformed);
    }
    let Versioned { version } = serde_json::from_slice(bytes).map_err(|_| Unreadable::Malformed)?;
    if version != VERSION {
        return Err(Unreadable::Version);
    }
    let document: Document = serde_json::from_slice(bytes).map_err(|_| Unreadable::Malformed)?;
    if document.name != name {
        return Err(Unreadable::Name);
    }
    let server = Server {
        name: document.name,
        issuer: document.issuer,
        default_audience: document.default_audience,
        access_token_lifetime: document.access_token_lifetime,
        signing_algorithm: document.signing_algorithm,
        serving_names: document.serving_names,
        forwarded_certificates: None,
    };
    server.check().map_err(|super::Fault { field, problem }| Unreadable::Invalid { field, problem })?;
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_published_is_read_again() {
        let yaml = "authorizationServer: {name: partners, issuer: \"https://auth.example/partners\", defaultAudience: a, \
                    accessTokenLifetime: 5m, signingAlgorithm: EdDSA, servingNames: [b.example]}";
        let server = Config::parse(yaml).unwrap().server;
        assert_eq!(parse("partners", Some(&to_json(&server))), Ok(server));
    }

    #[test]
    fn what_cannot_be_used_is_told_apart_and_never_repeated() {
        let good = r#"{"version":1,"name":"a","issuer":"https://a.example","accessTokenLifetime":"1h","signingAlgorithm":"ES256"}"#;
        assert!(parse("a", Some(good.as_bytes())).is_ok());
        let with = |from: &str, to: &str| parse("a", Some(good.replace(from, to).as_bytes())).unwrap_err();
        assert_eq!(parse("a", None), Err(Unreadable::Missing));
        assert_eq!(parse("b", Some(good.as_bytes())), Err(Unreadable::Name));
        assert_eq!(with(r#""version":1"#, r#""version":2,"more":{}"#), Unreadable::Version);
        assert_eq!(with("ES256", "canary"), Unreadable::Malformed);
        let large = " ".repeat(LARGEST_BYTES) + good;
        assert_eq!(parse("a", Some(large.as_bytes())), Err(Unreadable::Malformed));
        for (from, to, field) in [("https://a", "http://canary", "issuer"), ("1h", "25h", "accessTokenLifetime")] {
            let error = with(from, to);
            assert!(matches!(error, Unreadable::Invalid { field: named, .. } if named == field), "{error}");
            assert!(!error.to_string().contains("canary"));
        }
    }
}
