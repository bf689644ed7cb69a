//! Finding credentials in text, in whatever form they may have got there: as they are, in base64 at any alignment, in
//! hexadecimal, as the list of numbers that `{:?}` makes of bytes; whole or any part of twelve bytes.
//!
//! It knows which bytes of a value are secret: of a client secret those behind its hint, of a token its signature, of
//! a private key the key itself and not the public half beside it.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};

/// The length of a part in characters. Random ones of this length do not meet by chance.
const PART: usize = 12;
/// The same of a list of numbers, of which about half is punctuation.
const LISTED_PART: usize = 28;
/// How many characters of a client secret may be shown.
const HINT: usize = 8;
/// A PKCS#8 private key on P-256 begins with this (RFC 5958, RFC 5915); the key's 32 bytes follow.
const P256: [u8; 36] = [
    0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
    0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20,
];

/// The parts of all values that must not be found, each with what it is a part of.
#[derive(Default)]
pub(crate) struct Needles {
    parts: HashMap<Vec<u8>, usize>,
    listed: HashMap<Vec<u8>, usize>,
    /// What each value is, by number, and by value: a value counts once.
    names: Vec<String>,
    values: BTreeMap<Vec<u8>, usize>,
}

impl Needles {
    /// A text of which everything behind the first eight characters is secret.
    pub(crate) fn client_secret(&mut self, name: &str, value: &str) {
        assert!(value.len() >= HINT + PART, "{name} is too short to be looked for");
        self.secret(name, &value.as_bytes()[HINT..]);
    }

    /// A JWT, whose signature is what makes it worth something.
    pub(crate) fn token(&mut self, name: &str, value: &str) {
        let (_, signature) = value.rsplit_once('.').expect("a JWT has dots");
        self.secret(name, signature.as_bytes());
        self.secret(name, &BASE64_URL_SAFE_NO_PAD.decode(signature).expect("a JWT's signature is base64url"));
    }

    /// A PEM private key on P-256.
    pub(crate) fn private_key(&mut self, name: &str, pem: &str) {
        let body: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = BASE64_STANDARD.decode(body).expect("PEM is base64");
        assert!(der.starts_with(&P256), "{name} is not a key on P-256: the test would not know where it is secret");
        self.secret(name, &der[P256.len()..P256.len() + 32]);
    }

    /// Bytes that are secret throughout.
    pub(crate) fn secret(&mut self, name: &str, bytes: &[u8]) {
        if self.values.contains_key(bytes) {
            return;
        }
        let number = self.names.len();
        self.names.push(name.to_owned());
        self.values.insert(bytes.to_vec(), number);
        let mut forms = vec![bytes.to_vec(), hexadecimal(bytes).into_bytes()];
        for skipped in 0..3 {
            for engine in [&BASE64_STANDARD_NO_PAD, &BASE64_URL_SAFE_NO_PAD] {
                // The last characters depend on what follows.
                let whole = (bytes.len() - skipped) / 3 * 3;
                forms.push(engine.encode(&bytes[skipped..skipped + whole]).into_bytes());
            }
        }
        for form in forms {
            self.parts.extend(form.windows(PART).map(|part| (part.to_vec(), number)));
        }
        let list = format!("{bytes:?}");
        let list = list.trim_matches(['[', ']']).as_bytes();
        self.listed.extend(list.windows(LISTED_PART).map(|part| (part.to_vec(), number)));
    }

    /// How many values are looked for.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Which of them are in a text, each with the place. Never with the text.
    pub(crate) fn found_in(&self, text: &[u8]) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        for (length, parts) in [(PART, &self.parts), (LISTED_PART, &self.listed)] {
            for (place, window) in text.windows(length).enumerate() {
                if let Some(number) = parts.get(window) {
                    found.entry(self.names[*number].clone()).or_insert(place);
                }
            }
        }
        found
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn a_planted_value_is_found_in_every_form_and_its_hint_is_not() {
    let value = "apr_x7QkWm3Rt9ZbVn2LcYp5Hs8DfGj4KqXw6TzAe1Uo0Bi7Mv";
    let mut needles = Needles::default();
    needles.client_secret("web", value);
    let bytes = value.as_bytes();
    let wrapped = |prefix: &str| BASE64_STANDARD.encode([prefix.as_bytes(), bytes].concat());
    let planted: [(&str, Vec<u8>); 9] = [
        ("as it is", format!("the client secret is {value}.").into_bytes()),
        ("a part", format!("…{}…", &value[20..32]).into_bytes()),
        ("in base64", wrapped("").into_bytes()),
        ("in base64 behind one character", wrapped(":").into_bytes()),
        ("in base64 behind two, as in HTTP Basic", wrapped("a:").into_bytes()),
        ("in base64url", BASE64_URL_SAFE_NO_PAD.encode(format!("?>{value}")).into_bytes()),
        ("in hexadecimal", hexadecimal(bytes).into_bytes()),
        ("as Debug shows bytes", format!("Secret({bytes:?})").into_bytes()),
        ("as Debug shows a part of them", format!("{:?}", &bytes[20..30]).into_bytes()),
    ];
    for (form, text) in planted {
        assert_eq!(needles.found_in(&text).into_keys().collect::<Vec<_>>(), ["web"], "{form}");
    }
    let hint = format!("hint: {} and {:?}", &value[..8], &bytes[..8]);
    assert!(needles.found_in(hint.as_bytes()).is_empty());
}

#[test]
fn of_a_private_key_the_private_half_is_found_and_the_public_one_is_not() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut needles = Needles::default();
    needles.private_key("tls.key", &key.serialize_pem());
    assert!(!needles.found_in(key.serialize_pem().replace('\n', "").as_bytes()).is_empty());
    assert!(!needles.found_in(key.serialize_pem().as_bytes()).is_empty(), "with its line breaks");
    assert!(!needles.found_in(format!("{:?}", key.serialized_der()).as_bytes()).is_empty());
    let public =
        [BASE64_STANDARD.encode(key.public_key_raw()), hexadecimal(key.public_key_raw()), key.public_key_pem()];
    for public in public {
        assert!(needles.found_in(public.as_bytes()).is_empty());
    }
}

#[test]
fn of_a_token_the_signature_is_found_and_its_claims_are_not() {
    let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"client_id":"storefront","jti":"api~x"}"#);
    let signature =
        BASE64_URL_SAFE_NO_PAD.encode(std::array::from_fn::<u8, 64, _>(|n| u8::try_from(n * 3 % 251).unwrap()));
    let mut needles = Needles::default();
    needles.token("api", &format!("eyJhbGciOiJFUzI1NiJ9.{claims}.{signature}"));
    assert!(needles.found_in(claims.as_bytes()).is_empty());
    assert!(!needles.found_in(signature.as_bytes()).is_empty());
}
