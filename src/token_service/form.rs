//! Forms (`application/x-www-form-urlencoded`) as RFC 6749 uses them: the parameters of a request, and the two halves of
//! a Basic authorization.

use std::borrow::Cow;

use memchr::memchr2;

use super::refusal::Refusal;

/// The most `resource` parameters of a request.
const MOST_RESOURCES: usize = 16;

/// The parameters that some endpoint knows. An empty value counts as omitted (RFC 6749 §3.2); unknown parameters are
/// ignored.
#[derive(Default)]
pub struct Form<'a> {
    /// RFC 6749 §4.4.2.
    pub grant_type: Option<Cow<'a, str>>,
    /// RFC 6749 §3.3.
    pub scope: Option<Cow<'a, str>>,
    /// RFC 6749 §2.3.1.
    pub client_id: Option<Cow<'a, str>>,
    /// RFC 6749 §2.3.1.
    pub client_secret: Option<Cow<'a, str>>,
    /// RFC 7521 §4.2.
    pub client_assertion: Option<Cow<'a, str>>,
    /// RFC 7521 §4.2.
    pub client_assertion_type: Option<Cow<'a, str>>,
    /// The one parameter that may be repeated (RFC 8707 §2).
    pub resources: Vec<Cow<'a, str>>,
    /// Of introspection (RFC 7662 §2.1) and revocation (RFC 7009 §2.1). `token_type_hint` beside it is not needed: there
    /// is one type of token.
    pub token: Option<Cow<'a, str>>,
}

impl<'a> Form<'a> {
    /// Reads a body. A known parameter that occurs twice is refused (RFC 6749 §3.2).
    pub fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        let mut form = Self::default();
        for pair in body.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
            let name = decode(name).ok_or(Refusal::BodyMalformed)?;
            let value = decode(value).ok_or(Refusal::BodyMalformed)?;
            if value.is_empty() {
                continue;
            }
            let place = match &*name {
                "grant_type" => &mut form.grant_type,
                "scope" => &mut form.scope,
                "client_id" => &mut form.client_id,
                "client_secret" => &mut form.client_secret,
                "client_assertion" => &mut form.client_assertion,
                "client_assertion_type" => &mut form.client_assertion_type,
                "token" => &mut form.token,
                "resource" if form.resources.len() == MOST_RESOURCES => return Err(Refusal::Resource),
                "resource" => {
                    form.resources.push(value);
                    continue;
                }
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(Refusal::RepeatedParameter);
            }
        }
        Ok(form)
    }
}

/// Whether a query holds what belongs in the body or in a header (RFC 6749 §2.3.1).
pub(super) fn query_has_credentials(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        // A name that cannot be decoded is none of these.
        matches!(
            decode(name.as_bytes()).as_deref(),
            Some("client_id" | "client_secret" | "client_assertion" | "client_assertion_type" | "token")
        )
    })
}

/// Undoes the form encoding: `+` is a space, `%` and two digits are a byte. `None` if that is not so, or if the result
/// is not UTF-8.
pub(super) fn decode(encoded: &[u8]) -> Option<Cow<'_, str>> {
    if memchr2(b'+', b'%', encoded).is_none() {
        return std::str::from_utf8(encoded).ok().map(Cow::Borrowed);
    }
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut bytes = encoded.iter();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex(*bytes.next()?)? << 4 | hex(*bytes.next()?)?,
            other => *other,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refusal(body: &[u8]) -> Option<Refusal> {
        Form::parse(body).err()
    }

    #[test]
    fn known_parameters_are_decoded_and_unknown_ones_ignored() {
        let body =
            b"grant_type=client_credentials&scope=a+b%3Ac&x=1&x=2&resource=https%3A%2F%2Fa&resource=https%3A%2F%2Fb&";
        let request = Form::parse(body).unwrap();
        assert_eq!(request.grant_type.as_deref(), Some("client_credentials"));
        assert_eq!(request.scope.as_deref(), Some("a b:c"));
        assert_eq!(request.resources, ["https://a", "https://b"]);
        assert!(request.client_id.is_none());
    }

    #[test]
    fn an_empty_value_counts_as_omitted() {
        let request = Form::parse(b"scope=&client_id&scope=a&resource=").unwrap();
        assert_eq!(request.scope.as_deref(), Some("a"));
        assert!(request.client_id.is_none() && request.resources.is_empty());
    }

    #[test]
    fn a_known_parameter_may_not_be_repeated_however_it_is_spelled() {
        assert_eq!(refusal(b"scope=a&scope=a"), Some(Refusal::RepeatedParameter));
        assert_eq!(refusal(b"scope=a&%73cope=b"), Some(Refusal::RepeatedParameter));
    }

    #[test]
    fn what_is_not_a_form_in_utf_8_is_refused() {
        for body in [&b"scope=%"[..], b"scope=%2", b"scope=%zz", b"scope=%+1", b"scope=\xff", b"%ff=a", b"scope=%c3"] {
            assert_eq!(refusal(body), Some(Refusal::BodyMalformed), "{body:?}");
        }
        assert_eq!(refusal("resource=a&".repeat(17).as_bytes()), Some(Refusal::Resource));
    }

    #[test]
    fn credentials_in_a_query_are_found_however_they_are_spelled() {
        for query in ["client_secret=x", "a=b&client_id=x", "client%5Fsecret", "client_assertion=x"] {
            assert!(query_has_credentials(query), "{query}");
        }
        assert!(query_has_credentials("a=b&token=c"), "RFC 7662 §4, RFC 7009 §2.1: in the body alone");
        for query in ["", "a=client_secret", "scope=a", "token_type_hint=a", "%zz=1"] {
            assert!(!query_has_credentials(query), "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Form::parse(&body);
        }

        #[test]
        fn what_is_encoded_is_decoded(text in "\\PC*") {
            let encoded = text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
            prop_assert_eq!(decode(encoded.as_bytes()).unwrap(), text);
        }
    }
}
