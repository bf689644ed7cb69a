//! What the service answers, rule by rule: every rule names the section that it is from.
//!
//! `token_endpoint.rs` has the requests and their refusals; here is what any answer has to look like.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, CLIENT_SECRET, Limits, TokenService, now_of};

const ID: &str = "shop.storefront";

/// Where it is written, and whether an answer is so.
type Rule<T> = (&'static str, fn(&T) -> bool);

fn hold<T>(rules: &[Rule<T>], seen: &T, shown: &dyn std::fmt::Debug) {
    for (rule, holds) in rules {
        assert!(holds(seen), "{rule}: {shown:?}");
    }
}

fn is_list(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(|item| item.as_str().is_some_and(|text| !text.is_empty())))
}

fn items(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn is_https(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with("https://") && !text.contains(['?', '#', ' ']))
}

/// The answer with the metadata, and the issuer that was configured.
struct Metadata {
    answer: Answer,
    json: Value,
    issuer: String,
}

impl Metadata {
    fn members(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.json.as_object().into_iter().flatten()
    }

    /// The endpoints at which a client authenticates, by the beginning of their members' names.
    fn endpoints(&self) -> Vec<&'static str> {
        let has = |name: &&str| self.json.get(format!("{name}_endpoint")).is_some();
        ["token", "introspection", "revocation"].into_iter().filter(has).collect()
    }

    fn of_endpoint(&self, endpoint: &str, member: &str) -> &Value {
        &self.json[format!("{endpoint}_endpoint_{member}")]
    }

    fn takes_jwts(&self, endpoint: &str) -> bool {
        let methods = items(self.of_endpoint(endpoint, "auth_methods_supported"));
        methods.iter().any(|method| ["private_key_jwt", "client_secret_jwt"].contains(method))
    }
}

/// Rules for both documents.
const METADATA: &[Rule<Metadata>] = &[
    ("RFC 8414 §3.2: 200", |m| m.answer.status == StatusCode::OK),
    ("RFC 8414 §3.2: application/json", |m| m.answer.header("content-type") == Some("application/json")),
    ("RFC 8414 §3.2: a JSON object", |m| m.json.is_object()),
    ("RFC 8259 §4: each name once", |m| m.json.to_string().len() == m.answer.body.len()),
    ("RFC 8414 §2: issuer is REQUIRED, and the one configured", |m| m.json["issuer"] == json!(m.issuer)),
    ("RFC 8414 §2: issuer is an https URL without query and fragment", |m| is_https(&m.json["issuer"])),
    ("RFC 8414 §2: token_endpoint is REQUIRED", |m| is_https(&m.json["token_endpoint"])),
    ("RFC 8414 §2: jwks_uri is an https URL", |m| is_https(&m.json["jwks_uri"])),
    ("RFC 8414 §2: without grant_types_supported there would be others", |m| {
        m.json["grant_types_supported"] == json!(["client_credentials"])
    }),
    ("RFC 8414 §2: no code_challenge_methods_supported without an authorization endpoint", |m| {
        m.json.get("code_challenge_methods_supported").is_none()
    }),
    ("RFC 8414 §2: no registration_endpoint", |m| m.json.get("registration_endpoint").is_none()),
    ("RFC 8414 §2: every endpoint is an https URL below the issuer", |m| {
        let endpoints = m.members().filter(|(name, _)| name.ends_with("_endpoint"));
        let mut all = endpoints.map(|(_, value)| value);
        all.all(|value| is_https(value) && value.as_str().is_some_and(|text| text.starts_with(&m.issuer)))
    }),
    ("RFC 8414 §2: every list is one of texts", |m| {
        m.members().filter(|(name, _)| name.ends_with("_supported")).all(|(_, value)| is_list(value))
    }),
    ("RFC 8414 §2: no element twice", |m| {
        m.members().all(|(_, value)| {
            let mut items = items(value);
            let before = items.len();
            items.sort_unstable();
            items.dedup();
            items.len() == before
        })
    }),
    ("RFC 8414 §2: the methods of every endpoint with client authentication", |m| {
        m.endpoints().iter().all(|endpoint| !items(m.of_endpoint(endpoint, "auth_methods_supported")).is_empty())
    }),
    ("RFC 8414 §2: client_secret_basic is the default, and is on", |m| {
        items(m.of_endpoint("token", "auth_methods_supported")).contains(&"client_secret_basic")
    }),
    ("RFC 8414 §2: algorithms if and only if there are methods with JWTs", |m| {
        m.endpoints().iter().all(|endpoint| {
            let algorithms = m.of_endpoint(endpoint, "auth_signing_alg_values_supported");
            m.takes_jwts(endpoint) != algorithms.is_null()
        })
    }),
    (
        "RFC 8414 §2: none MUST NOT be among the algorithms; RFC 7518 §3.2: nor is a shared secret a key of ours",
        |m| {
            let named = m.members().filter(|(name, _)| name.ends_with("_signing_alg_values_supported"));
            named.flat_map(|(_, value)| items(value)).all(|alg| alg != "none" && !alg.starts_with("HS"))
        },
    ),
    ("RFC 8705 §3.3: tls_client_certificate_bound_access_tokens if and only if there is mutual TLS", |m| {
        let methods = items(m.of_endpoint("token", "auth_methods_supported"));
        let bound = m.json.get("tls_client_certificate_bound_access_tokens");
        if methods.contains(&"tls_client_auth") { bound == Some(&json!(true)) } else { bound.is_none() }
    }),
    ("RFC 9111 §5.2.2.1: for five minutes", |m| m.answer.header("cache-control") == Some("public, max-age=300")),
];

/// Rules for the document of RFC 8414 alone.
const OAUTH_METADATA: &[Rule<Metadata>] = &[
    ("RFC 8414 §2: response_types_supported is REQUIRED", |m| m.json["response_types_supported"] == json!([])),
    ("RFC 8414 §2: no authorization_endpoint without a grant type that uses it", |m| {
        m.json.get("authorization_endpoint").is_none()
    }),
    ("RFC 8414 §3.2: a list without elements is omitted (§2 requires response_types_supported)", |m| {
        m.members().all(|(name, value)| name == "response_types_supported" || *value != json!([]))
    }),
];

/// Rules for the document of `OpenID` Connect Discovery 1.0 alone.
const OPENID_METADATA: &[Rule<Metadata>] = &[
    ("Discovery §3: authorization_endpoint is REQUIRED, and https", |m| is_https(&m.json["authorization_endpoint"])),
    ("Discovery §3: jwks_uri is REQUIRED", |m| m.json["jwks_uri"].is_string()),
    ("Discovery §3: response_types_supported is REQUIRED; nothing that yields a code or a token", |m| {
        items(&m.json["response_types_supported"]) == ["none"]
    }),
    ("Discovery §3: subject_types_supported is REQUIRED, pairwise or public", |m| {
        items(&m.json["subject_types_supported"]) == ["public"]
    }),
    ("Discovery §3: id_token_signing_alg_values_supported is REQUIRED, and has RS256", |m| {
        items(&m.json["id_token_signing_alg_values_supported"]).contains(&"RS256")
    }),
    ("Discovery §3: id_token_signing_alg_values_supported has what tokens are signed by", |m| {
        let listed = items(&m.json["id_token_signing_alg_values_supported"]);
        appreg::api::Algorithm::ALL.iter().all(|algorithm| listed.contains(&algorithm.as_str()))
    }),
    ("Discovery §3: no userinfo_endpoint without users", |m| m.json.get("userinfo_endpoint").is_none()),
    ("Discovery §4.2: claims with zero elements MUST be omitted", |m| {
        m.members().all(|(_, value)| *value != json!([]) && !value.is_null())
    }),
];

#[tokio::test]
async fn the_metadata_is_as_rfc_8414_and_openid_connect_discovery_want_it() {
    for path in ["", "/tenant", "/tenant/a"] {
        let service = TokenService::start_with(path, Limits::default()).await;
        // RFC 8414 §3.1: the well-known part stands between the host and the path, and §5: as OpenID Connect has it.
        for (url, rules) in [
            (format!("/.well-known/oauth-authorization-server{path}"), OAUTH_METADATA),
            (format!("{path}/.well-known/oauth-authorization-server"), OAUTH_METADATA),
            (format!("/.well-known/openid-configuration{path}"), OPENID_METADATA),
            (format!("{path}/.well-known/openid-configuration"), OPENID_METADATA),
        ] {
            let answer = service.send(service.http().get(service.url(&url))).await;
            let metadata = Metadata { json: answer.json(), issuer: service.issuer.clone(), answer };
            hold(METADATA, &metadata, &metadata.answer);
            hold(rules, &metadata, &metadata.answer);
        }
        for name in ["token_endpoint", "jwks_uri", "authorization_endpoint"] {
            let metadata =
                service.send(service.http().get(service.url(&format!("{path}/.well-known/openid-configuration"))));
            let url = metadata.await.json()[name].as_str().unwrap().to_owned();
            let answer = service.send(service.http().get(url)).await;
            assert_ne!(answer.status, StatusCode::NOT_FOUND, "RFC 8414 §2: {name} is there");
        }
    }
}

/// A key of the JWKS.
type Key = Value;

/// Private parameters of every type (RFC 7518 §6.2.2, §6.3.2, §6.4.1; RFC 8037 §2).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

const KEY: &[Rule<Key>] = &[
    ("RFC 7517 §4.1: kty is REQUIRED", |k| ["EC", "OKP", "RSA"].contains(&k["kty"].as_str().unwrap_or_default())),
    ("RFC 7517 §4.2: use", |k| k["use"] == "sig"),
    ("RFC 7517 §4.3: use and key_ops are not for use together", |k| k.get("key_ops").is_none()),
    ("RFC 7517 §4.4: alg fits kty (RFC 7518 §3.1, RFC 8037 §3.1)", |k| {
        [("EC", "ES256"), ("OKP", "EdDSA"), ("RSA", "RS256")]
            .iter()
            .any(|(kty, alg)| k["kty"] == *kty && k["alg"] == *alg)
    }),
    ("RFC 7517 §4.5: kid is a text", |k| k["kid"].as_str().is_some_and(|kid| !kid.is_empty())),
    ("RFC 7638 §3: kid is the thumbprint", |k| {
        let required: &[&str] = match k["kty"].as_str() {
            Some("EC") => &["crv", "kty", "x", "y"],
            Some("OKP") => &["crv", "kty", "x"],
            _ => &["e", "kty", "n"],
        };
        let members: Vec<String> = required.iter().map(|name| format!("\"{name}\":{}", k[*name])).collect();
        let digest = appreg::ledger::Digest::of(format!("{{{}}}", members.join(",")).as_bytes());
        k["kid"] == json!(digest.to_base64url())
    }),
    ("RFC 7517 §9.2, RFC 7518 §6: nothing private", |k| PRIVATE.iter().all(|name| k.get(*name).is_none())),
    ("RFC 7518 §6.2.1: the whole length of the curve's field", |k| {
        let octets = |name: &str| URL_SAFE_NO_PAD.decode(k[name].as_str().unwrap_or_default()).unwrap().len();
        k["kty"] != "EC" || (k["crv"] == "P-256" && octets("x") == 32 && octets("y") == 32)
    }),
];

#[tokio::test]
async fn the_key_set_is_as_rfc_7517_wants_it() {
    let service = TokenService::start().await;
    let answer = service.send(service.http().get(service.url("/jwks"))).await;
    assert_eq!(answer.header("content-type"), Some("application/jwk-set+json"), "RFC 7517 §8.5.1");
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"), "RFC 9111 §5.2.2.1");
    let etag = answer.header("etag").unwrap();
    assert!(etag.starts_with('"') && etag.ends_with('"'), "RFC 9110 §8.8.3: {etag}");
    let set = answer.json();
    let keys = set["keys"].as_array().expect("RFC 7517 §5.1: keys is REQUIRED, and an array");
    assert!(!keys.is_empty());
    for key in keys {
        hold(KEY, key, key);
    }
    let mut kids: Vec<_> = keys.iter().map(|key| key["kid"].as_str().unwrap()).collect();
    kids.sort_unstable();
    kids.dedup();
    assert_eq!(kids.len(), keys.len(), "RFC 7517 §4.5: different keys have different kids");
    // RFC 9110 §13.1.2, §15.4.5: 304 without a body, by the tag, by one among several, by any.
    for tags in [etag.to_owned(), format!("\"x\", {etag}"), "*".to_owned(), format!("W/{etag}")] {
        let again = service.send(service.http().get(service.url("/jwks")).header("if-none-match", &tags)).await;
        assert_eq!((again.status, again.body.as_str()), (StatusCode::NOT_MODIFIED, ""), "{tags}");
    }
    let changed = service.send(service.http().get(service.url("/jwks")).header("if-none-match", "\"x\"")).await;
    assert_eq!(changed.status, StatusCode::OK);
}

/// A successful answer of the token endpoint, its token taken apart.
struct Issued {
    answer: Answer,
    body: Value,
    head: Value,
    claims: Value,
    issuer: String,
    now: i64,
    kids: Vec<String>,
}

impl Issued {
    fn new(answer: Answer, service: &TokenService, jwks: &Value) -> Self {
        let body = answer.json();
        let parts: Vec<&str> = body["access_token"].as_str().unwrap().split('.').collect();
        let part = |index: usize| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[index]).unwrap()).unwrap();
        let kids = jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned());
        Self {
            head: part(0),
            claims: part(1),
            issuer: service.issuer.clone(),
            now: now_of(service),
            kids: kids.collect(),
            body: body.clone(),
            answer,
        }
    }

    fn seconds(&self, claim: &str) -> i64 {
        self.claims[claim].as_i64().unwrap_or_default()
    }
}

const ISSUED: &[Rule<Issued>] = &[
    ("RFC 6749 §5.1: 200", |i| i.answer.status == StatusCode::OK),
    ("RFC 6749 §5.1, RFC 8259 §11: application/json, which has no charset", |i| {
        i.answer.header("content-type") == Some("application/json")
    }),
    ("RFC 6749 §5.1: Cache-Control", |i| i.answer.header("cache-control") == Some("no-store")),
    ("RFC 6749 §5.1: Pragma", |i| i.answer.header("pragma") == Some("no-cache")),
    ("RFC 8259 §4: each name once", |i| i.body.to_string().len() == i.answer.body.len()),
    ("RFC 6749 §5.1: access_token is REQUIRED; RFC 6750 §2.1: of these characters", |i| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~+/=".contains(c);
        i.body["access_token"].as_str().is_some_and(|token| !token.is_empty() && token.chars().all(allowed))
    }),
    ("RFC 6749 §5.1: token_type is REQUIRED; RFC 6750 §6.1.1", |i| i.body["token_type"] == "Bearer"),
    ("RFC 6749 §5.1: expires_in in seconds, a number", |i| {
        i.body["expires_in"].as_i64() == Some(i.seconds("exp") - i.seconds("iat"))
    }),
    ("RFC 6749 §5.1: scope, as the token has it (RFC 9068 §2.2.3)", |i| {
        i.body["scope"].is_string() && i.body["scope"] == i.claims["scope"]
    }),
    ("RFC 6749 §4.4.3: no refresh token", |i| i.body.get("refresh_token").is_none()),
    ("RFC 9068 §2.1: typ", |i| i.head["typ"] == "at+jwt"),
    ("RFC 9068 §2.1: signed, by an algorithm that is not none", |i| {
        ["ES256", "EdDSA", "RS256"].contains(&i.head["alg"].as_str().unwrap_or_default())
    }),
    ("RFC 7515 §4.1.4: kid is a published one", |i| i.kids.iter().any(|kid| i.head["kid"] == json!(kid))),
    ("RFC 7515 §4.1.2, §4.1.3, §4.1.11: no key of its own, nothing critical", |i| {
        ["jku", "jwk", "x5u", "x5c", "crit"].iter().all(|name| i.head.get(*name).is_none())
    }),
    ("RFC 9068 §2.2: iss is REQUIRED, and the issuer identifier", |i| i.claims["iss"] == json!(i.issuer)),
    ("RFC 9068 §2.2: exp is REQUIRED; RFC 7519 §2: a NumericDate", |i| i.seconds("exp") > i.now),
    ("RFC 9068 §2.2: aud is REQUIRED; RFC 7519 §4.1.3: a text or a list of them", |i| {
        i.claims["aud"].is_string() || (is_list(&i.claims["aud"]) && i.claims["aud"] != json!([]))
    }),
    ("RFC 9068 §2.2: sub is REQUIRED, and the client where no resource owner takes part", |i| {
        i.claims["sub"] == i.claims["client_id"]
    }),
    ("RFC 9068 §2.2, RFC 8693 §4.3: client_id is REQUIRED", |i| i.claims["client_id"] == ID),
    ("RFC 9068 §2.2: iat is REQUIRED", |i| i.seconds("iat") == i.now),
    ("RFC 9068 §2.2: jti is REQUIRED", |i| i.claims["jti"].as_str().is_some_and(|jti| jti.len() > 16)),
    ("RFC 9068 §2.2.1: nobody has signed in", |i| {
        ["auth_time", "acr", "amr"].iter().all(|name| i.claims.get(*name).is_none())
    }),
];

#[tokio::test]
async fn an_issued_token_is_as_rfc_6749_and_rfc_9068_want_it() {
    let service = TokenService::start().await;
    let jwks = service.send(service.http().get(service.url("/jwks"))).await.json();
    let mut identifiers = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let issued = Issued::new(service.token(ID, CLIENT_SECRET).await, &service, &jwks);
        hold(ISSUED, &issued, &issued.claims);
        assert!(identifiers.insert(issued.claims["jti"].to_string()), "RFC 7519 §4.1.7: unique");
    }
}

/// A refusal, whatever it is for.
const REFUSED: &[Rule<Answer>] = &[
    ("RFC 6749 §5.2, RFC 8259 §11: application/json", |a| a.header("content-type") == Some("application/json")),
    ("RFC 6749 §5.2: Cache-Control", |a| a.header("cache-control") == Some("no-store")),
    ("RFC 6749 §5.2: Pragma", |a| a.header("pragma") == Some("no-cache")),
    ("RFC 6749 §5.2: error is REQUIRED, of these characters", |a| is_error_text(&a.json()["error"])),
    ("RFC 6749 §5.2: error_description is of these characters", |a| is_error_text(&a.json()["error_description"])),
    ("RFC 6749 §5.2: nothing else is said", |a| a.json().as_object().is_some_and(|members| members.len() == 2)),
    ("RFC 6749 §5.1: no token beside an error", |a| a.json().get("access_token").is_none()),
    ("RFC 9110 §10.2.3: Retry-After is a number of seconds, with what passes by itself", |a| {
        let seconds = a.header("retry-after").map(|value| value.parse::<u32>().is_ok());
        if [429, 503].contains(&a.status.as_u16()) { seconds == Some(true) } else { seconds.is_none() }
    }),
    ("RFC 6749 §5.2: 401 is invalid_client, and invalid_client is 401", |a| {
        (a.status == StatusCode::UNAUTHORIZED) == (a.json()["error"] == "invalid_client")
    }),
    ("RFC 9110 §11.6.1, RFC 7617 §2: a challenge has a scheme and a realm, and says UTF-8 (§2.1)", |a| {
        a.header("www-authenticate")
            .is_none_or(|value| value.starts_with("Basic realm=\"") && value.ends_with(", charset=\"UTF-8\""))
    }),
];

/// RFC 6749 §5.2: `%x20-21 / %x23-5B / %x5D-7E`.
fn is_error_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        !text.is_empty() && text.bytes().all(|b| (0x20..=0x7e).contains(&b) && b != b'"' && b != b'\\')
    })
}

#[tokio::test]
async fn every_refusal_is_as_rfc_6749_wants_it() {
    let service = TokenService::start().await;
    let metadata = service.send(service.http().get(service.url("/.well-known/openid-configuration"))).await.json();
    let endpoints = ["token_endpoint", "introspection_endpoint", "revocation_endpoint"];
    let endpoints: Vec<&str> = endpoints.iter().filter_map(|name| metadata[*name].as_str()).collect();
    assert!(!endpoints.is_empty());
    for endpoint in endpoints {
        let post = || service.http().post(endpoint);
        let form = |body: &'static str| post().header("content-type", "application/x-www-form-urlencoded").body(body);
        for request in [
            post(),
            post().json(&json!({"grant_type": "client_credentials", "token": "x"})),
            form("grant_type=client_credentials&token=x"),
            form("grant_type=client_credentials&token=x").basic_auth(ID, Some("wrong")),
            form("grant_type=client_credentials&token=x").basic_auth("nobody", Some("wrong")),
            form("grant_type=client_credentials&token=x&client_id=a&client_id=b"),
            form("grant_type=client_credentials&token=x&client_assertion=a&client_assertion_type=b"),
            form("grant_type=%ff"),
            form("").basic_auth(ID, Some(CLIENT_SECRET)),
            post().basic_auth(ID, Some("x".repeat(9000))),
            form("grant_type=client_credentials&token=x").body("x".repeat(17 * 1024)),
        ] {
            let answer = service.send(request).await;
            assert!(answer.status.is_client_error(), "{endpoint}: {answer:?}");
            hold(REFUSED, &answer, &answer);
        }
        for method in [http::Method::GET, http::Method::PUT, http::Method::DELETE] {
            let answer = service.send(service.http().request(method, endpoint)).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "RFC 6749 §3.2, RFC 7662 §2.1, RFC 7009 §2.1");
            assert_eq!(answer.header("allow"), Some("POST"), "RFC 9110 §15.5.6");
        }
    }
}
