//! The service goes on with other signing keys while it serves.

use appreg::mint::signing_key::{self, MintedSigningKey};
use appreg::signer::jwt::{self, PublicKey};
use appreg::signer::{Algorithm, PUBLISH_BEFORE};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::JwkSet;
use serde_json::{Value, json};

use super::{CLIENT_SECRET, NOW, TokenService, now_of};

const ID: &str = "shop.storefront";

fn at(seconds: i64) -> Timestamp {
    NOW.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn minted(algorithm: Algorithm, created_at: Timestamp, sign_from: Timestamp) -> MintedSigningKey {
    signing_key::mint(algorithm, created_at, sign_from).unwrap()
}

impl TokenService {
    /// A token of the client, and the kid in its header.
    async fn signed(&self) -> (String, String) {
        let answer = self.token(ID, CLIENT_SECRET).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let token = answer.json()["access_token"].as_str().unwrap().to_owned();
        let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
        (token, kid)
    }

    /// The JWKS, found as a resource server finds it: by the metadata alone.
    async fn discovered(&self) -> Value {
        let metadata = self.url("/.well-known/oauth-authorization-server");
        let metadata = self.send(self.http().get(metadata)).await.json();
        assert_eq!(metadata["issuer"], self.issuer.as_str());
        self.send(self.http().get(metadata["jwks_uri"].as_str().unwrap())).await.json()
    }

    async fn kids(&self) -> Vec<String> {
        let keys = self.discovered().await;
        let mut kids: Vec<_> =
            keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect();
        kids.sort();
        kids
    }

    /// What the service itself would make of a token, by the keys that it publishes now.
    async fn accepts(&self, token: &str) -> bool {
        let jwks = self.discovered().await;
        let keys: Vec<_> =
            jwks["keys"].as_array().unwrap().iter().map(|key| PublicKey::from_jwk(key).unwrap()).collect();
        jwt::verify(token.as_bytes(), &keys).is_some()
    }
}

fn sorted(keys: &[&MintedSigningKey]) -> Vec<String> {
    let mut kids: Vec<_> = keys.iter().map(|key| key.record.kid.clone()).collect();
    kids.sort();
    kids
}

#[tokio::test]
async fn a_token_of_each_algorithm_is_verified_by_discovery_with_a_foreign_library() {
    let service = TokenService::start().await;
    for algorithm in Algorithm::ALL {
        let key = minted(algorithm, at(0), at(0));
        service.api.controller_writes_signing_keys(&[&key]);
        service.until("published", async || service.kids().await == sorted(&[&key])).await;
        let (token, kid) = service.signed().await;
        let keys: JwkSet = serde_json::from_value(service.discovered().await).unwrap();
        let jwk = keys.find(&kid).unwrap();
        let mut rules = jsonwebtoken::Validation::new(algorithm.as_str().parse().unwrap());
        rules.set_issuer(&[&service.issuer]);
        rules.set_audience(&["https://default.example"]);
        // The foreign library reads the system's clock, and the test's stands still.
        rules.validate_exp = false;
        let decoding = jsonwebtoken::DecodingKey::from_jwk(jwk).unwrap();
        let claims = jsonwebtoken::decode::<Value>(&token, &decoding, &rules).unwrap().claims;
        assert_eq!((&claims["client_id"], &claims["iat"]), (&json!(ID), &json!(now_of(&service))));
        assert!(service.accepts(&token).await);
    }
}

#[tokio::test]
async fn a_key_of_another_algorithm_is_published_for_a_day_and_then_signs_on_its_own() {
    let service = TokenService::start().await;
    let old = minted(Algorithm::ES256, at(-1000), at(-1000));
    let next = at(0) + PUBLISH_BEFORE;
    let new = minted(Algorithm::RS256, at(0), next);
    service.api.controller_writes_signing_keys(&[&old, &new]);
    service.until("published", async || service.kids().await == sorted(&[&old, &new])).await;
    let (_, kid) = service.signed().await;
    assert_eq!(kid, old.record.kid);
    service.clock.set(next - SignedDuration::from_nanos(1));
    let (last, kid) = service.signed().await;
    assert_eq!(kid, old.record.kid);
    service.clock.set(next);
    let (first, kid) = service.signed().await;
    assert_eq!(kid, new.record.kid, "without a request, at its second");
    for token in [&last, &first] {
        assert!(service.accepts(token).await);
    }
    service.clock.set(next + SignedDuration::from_hours(24) + SignedDuration::from_secs(299));
    assert_eq!(service.kids().await, sorted(&[&old, &new]), "its last token has just ended");
    service.clock.set(next + SignedDuration::from_hours(24) + SignedDuration::from_mins(5));
    assert_eq!(service.kids().await, sorted(&[&new]));
    assert!(!service.accepts(&last).await);
}

#[tokio::test]
async fn a_leaked_key_is_gone_the_moment_its_replacement_is_written() {
    let service = TokenService::start().await;
    for algorithm in Algorithm::ALL {
        let leaked = minted(algorithm, at(-1000), at(-1000));
        service.api.controller_writes_signing_keys(&[&leaked]);
        service.until("published", async || service.kids().await == sorted(&[&leaked])).await;
        let (old, kid) = service.signed().await;
        assert_eq!(kid, leaked.record.kid);
        let etag = async || {
            let jwks = service.send(service.http().get(service.url("/jwks"))).await;
            jwks.header("etag").unwrap().to_owned()
        };
        let before = etag().await;

        let new = minted(algorithm, at(0), at(0));
        service.api.controller_writes_signing_keys(&[&new]);
        service.until("replaced", async || service.kids().await == sorted(&[&new])).await;
        assert_ne!(etag().await, before, "who asks whether its copy is good is told that it is not");
        let (fresh, kid) = service.signed().await;
        assert_eq!(kid, new.record.kid, "{algorithm}: signs at once");
        assert!(service.accepts(&fresh).await && !service.accepts(&old).await, "{algorithm}");
    }
}

#[tokio::test]
async fn a_clock_that_is_behind_the_controllers_signs_with_the_new_key_all_the_same() {
    let service = TokenService::start().await;
    let ahead = at(120);
    let new = minted(Algorithm::EdDSA, ahead, ahead);
    service.api.controller_writes_signing_keys(&[&new]);
    service.until("replaced", async || service.kids().await == sorted(&[&new])).await;
    let (token, kid) = service.signed().await;
    assert_eq!(kid, new.record.kid);
    assert!(service.accepts(&token).await);
}
