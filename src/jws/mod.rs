//! Signed JWTs in the compact form of a JWS (RFC 7515 §7.1), taken apart. Nothing here has been verified.
//!
//! Pure, and for every JWT that reaches us: access tokens of our own ([`crate::signer::jwt`]), client assertions and
//! `ServiceAccount` tokens. What a claim means, and in which order they are looked at, is their readers' business; which
//! key may verify by which algorithm is [`key`]'s.

pub mod key;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny};

/// A JWS in its three parts, each as it came.
pub struct Compact<'a> {
    /// What the signature is over: header and payload with the dot between them.
    pub message: &'a [u8],
    header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// The header (RFC 7515 §4.1). Members that bring keys along (`jwk`, `jku`, `x5c`, `x5u`) are not looked at.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Header {
    /// The name of the algorithm.
    pub alg: String,
    /// The media type of the whole.
    pub typ: Option<String>,
    /// Which key it says has signed it.
    pub kid: Option<String>,
    /// Whether it has extensions that must be understood (RFC 7515 §4.1.11). Whatever it lists, we have none.
    #[serde(default, rename = "crit", deserialize_with = "is_there")]
    pub is_critical: bool,
}

/// `aud` (RFC 7519 §4.1.3): one string, or an array of them.
#[derive(Debug, Deserialize)]
#[serde(from = "OneOrSeveral")]
pub struct Audiences(pub Vec<String>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrSeveral {
    One(String),
    Several(Vec<String>),
}

impl<'a> Compact<'a> {
    /// Takes it apart at its two dots; `None` if there are fewer. A third one makes its payload unreadable.
    #[must_use]
    pub fn split(text: &'a str) -> Option<Self> {
        let (message, signature) = text.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        Some(Self { message: message.as_bytes(), header, payload, signature })
    }

    /// Reads the header; `None` if it is malformed, or has a member twice.
    #[must_use]
    pub fn header(&self) -> Option<Header> {
        object(self.header)
    }

    /// Reads the payload as claims (RFC 7519 §4); `None` if it is none, lacks one that `T` requires or has one twice.
    #[must_use]
    pub fn claims<T: DeserializeOwned>(&self) -> Option<T> {
        object(self.payload)
    }

    /// The bytes of the signature.
    #[must_use]
    pub fn signature(&self) -> Option<Vec<u8>> {
        URL_SAFE_NO_PAD.decode(self.signature).ok()
    }
}

impl fmt::Debug for Compact<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Until it ends, whoever has it has the credential.
        f.debug_struct("Compact").finish_non_exhaustive()
    }
}

/// RFC 8259 §2: fewer than ASCII has.
const JSON_WHITESPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// A JSON object (RFC 7515 §4, RFC 7519 §4), in UTF-8 also where nobody looks (§7.2): serde would pass over that, and
/// would take an array for a struct, its members by their order.
fn object<T: DeserializeOwned>(segment: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(segment).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    if text.trim_start_matches(JSON_WHITESPACE).starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl From<OneOrSeveral> for Audiences {
    fn from(audiences: OneOrSeveral) -> Self {
        match audiences {
            OneOrSeveral::One(one) => Self(vec![one]),
            OneOrSeveral::Several(several) => Self(several),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn compact(header: &str, payload: &[u8]) -> String {
        format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload),
            URL_SAFE_NO_PAD.encode([1; 4])
        )
    }

    fn header(text: &str) -> Option<Header> {
        Compact::split(&compact(text, b"{}")).unwrap().header()
    }

    fn claims(payload: &[u8]) -> Option<Value> {
        Compact::split(&compact("{}", payload)).unwrap().claims()
    }

    #[test]
    fn it_is_taken_apart_at_its_dots() {
        let text = compact(r#"{"alg":"ES256"}"#, br#"{"a":1}"#);
        let jws = Compact::split(&text).unwrap();
        assert_eq!((jws.signature(), jws.claims()), (Some(vec![1; 4]), Some(json!({"a": 1}))));
        assert_eq!([jws.message, b".AQEBAQ"].concat(), text.as_bytes());
        assert_eq!(format!("{jws:?}"), "Compact { .. }");
        for text in ["", "a", "a.b"] {
            assert!(Compact::split(text).is_none(), "{text}");
        }
        let five = compact("{}", b"{}").replace('.', ".e30.");
        assert!(Compact::split(&five).unwrap().claims::<Value>().is_none(), "a JWE has five parts (RFC 7516 §7.1)");
        for signature in ["AQ==", "A", "AR", "A+/A", "AQEB AQ"] {
            assert!(Compact::split(&format!("e30.e30.{signature}")).unwrap().signature().is_none(), "{signature}");
        }
    }

    #[test]
    fn a_header_is_an_object_with_an_algorithm_and_no_member_twice() {
        let read = header(r#" {"alg":"ES256","kid":"a","jku":"https://elsewhere.example","typ":"JWT"}"#).unwrap();
        let (typ, kid) = (Some("JWT".to_owned()), Some("a".to_owned()));
        assert_eq!(read, Header { alg: "ES256".to_owned(), typ, kid, is_critical: false });
        for critical in [r#"["exp"]"#, "[]", "null", "3"] {
            assert!(header(&format!(r#"{{"alg":"ES256","crit":{critical}}}"#)).unwrap().is_critical, "{critical}");
        }
        for text in [
            "",
            "null",
            "3",
            r#""ES256""#,
            "{}",
            r#"{"alg":null}"#,
            r#"{"alg":3}"#,
            r#"{"alg":"a","alg":"a"}"#,
            r#"{"alg":"a","kid":3}"#,
            r#"{"alg":"a","kid":"a","kid":"a"}"#,
            r#"{"alg":"a"} {}"#,
            r#"["a","JWT"]"#,
        ] {
            assert!(header(text).is_none(), "{text}");
        }
    }

    #[test]
    fn claims_are_an_object_in_utf_8() {
        assert_eq!(claims(b"\n\r\t {\"a\":\"\xc3\xa9\"}"), Some(json!({"a": "é"})));
        for payload in
            [&b""[..], b"[1]", b"\"a\"", b"{\"a\":\"\xff\"}", b"{\"a\":1", b"{}x", b"\xef\xbb\xbf{}", b"\x0c{}"]
        {
            assert!(claims(payload).is_none(), "{payload:?}");
        }
        assert!(Compact::split("e30.e30=.AA").unwrap().claims::<Value>().is_none(), "no padding (RFC 7515 §2)");
    }

    #[test]
    fn audiences_are_one_string_or_an_array_of_them() {
        let read = |value: Value| serde_json::from_value(value).ok().map(|Audiences(audiences)| audiences);
        assert_eq!(read(json!("a")), Some(vec!["a".to_owned()]));
        assert_eq!(read(json!(["a", "b"])), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(read(json!([])), Some(Vec::new()));
        for other in [json!(null), json!(3), json!({"a": "b"}), json!(["a", 3]), json!([["a"]])] {
            assert_eq!(read(other.clone()), None, "{other}");
        }
    }
}
