//! Two authorization servers side by side, with the same client identifiers: nothing of one counts at the other, even if a
//! person has given both the same signing key.

use appreg::api::KeyType;
use appreg::config::{Config, Server, published};
use http::StatusCode;
use jiff::SignedDuration;
use jsonwebtoken::jwk::JwkSet;
use serde_json::{Value, json};

use super::proofs::{CERTIFICATE, Key, PUBLIC_KEY, cluster, jti};
use super::{
    Answer, CLIENT_SECRET, Entry, FakeApi, Limits, NAMESPACE, TokenService, claims, now_of, secret,
    signing_key_since_yesterday, trusting,
};
use appreg::mint::signing_key::MintedSigningKey;
use appreg::signer::{INDEX_FIELD, Index};

const ID: &str = "shop.storefront";
const OTHER_SECRET: &str = "apr_canary9876543210";
const API: &str = "shop.api";
const AUDIENCE: &str = "https://api.example";
const FROM: &str = "2026-10-01T00:00:00Z";
const UNTIL: &str = "2026-12-30T00:00:00Z";

impl Entry {
    /// The same client at another server.
    pub(super) fn at(mut self, server: &str) -> Self {
        self.0["server"] = json!(server);
        self
    }

    /// Without the client secret that every entry begins with.
    fn without_secrets(mut self) -> Self {
        self.0["credentials"] = json!({});
        self
    }
}

impl FakeApi {
    /// Writes a server's settings and this key, as the controller does.
    fn controller_publishes(&self, server: &Server, key: &MintedSigningKey) {
        let index = Index::default().with(key.record.clone()).to_json();
        let settings = published::to_json(server);
        let pem = format!("{}.pem", key.record.kid);
        let fields: [(&str, &[u8]); 3] =
            [(&pem, key.private_key_pem.expose()), (INDEX_FIELD, &index), (published::FIELD, &settings)];
        self.person_applies(&secret(&secret_of(&server.name), "Opaque", &fields));
    }
}

fn secret_of(server: &str) -> String {
    format!("{}{server}", published::SECRET_PREFIX)
}

fn server(name: &str, issuer: &str, more: &str) -> Server {
    let config =
        format!("authorizationServer: {{name: {name}, issuer: \"{issuer}\", defaultAudience: \"{AUDIENCE}\"{more}}}");
    Config::parse(&config).unwrap().server
}

/// The token service with the servers `default` and `partners`, which have the same signing key.
struct Stage {
    service: TokenService,
    /// The issuer of `partners`.
    issuer: String,
    key: MintedSigningKey,
}

/// A server's endpoints: their path.
const SERVERS: [&str; 2] = ["", "/partners"];

impl Stage {
    async fn start() -> Self {
        let service = TokenService::start().await;
        let key = signing_key_since_yesterday();
        service.api.controller_writes_signing_keys(&[&key]);
        let issuer = format!("{}/partners", service.issuer);
        service.api.controller_publishes(&server("partners", &issuer, ""), &key);
        let of_partners = Entry::new(ID).without_secrets().client_secret("web", OTHER_SECRET, FROM, UNTIL);
        service.api.person_applies(&of_partners.granted("scopes", &["partners:read"]).at("partners").secret());
        let scopes = ["orders:read", "orders:write"];
        service.api.person_applies(&Entry::new(ID).granted("scopes", &[]).api(AUDIENCE, &scopes).secret());
        for name in ["default", "partners"] {
            let api = Entry::new(API).granted("servedAudiences", &[AUDIENCE]).at(name);
            service.api.person_applies(&api.secret());
        }
        let stage = Self { service, issuer, key };
        let is_known = async || {
            let mut known = stage.service.metrics().await.contains("token_service_clients 4");
            for path in SERVERS {
                known &= stage.read(&format!("{path}/jwks")).await.body.contains(&stage.key.record.kid);
            }
            known
        };
        stage.service.until("both servers are known", is_known).await;
        stage
    }

    async fn read(&self, path: &str) -> Answer {
        self.service.send(self.service.client.get(self.service.url(path))).await
    }

    async fn post(&self, path: &str, (id, secret): (&str, &str), form: &[(&str, &str)]) -> Answer {
        let request = self.service.client.post(self.service.url(path)).basic_auth(id, Some(secret));
        self.service.send(request.form(form)).await
    }

    async fn token(&self, server: &str, client_secret: &str) -> Answer {
        let form = [("grant_type", "client_credentials")];
        self.post(&format!("{server}/token"), (ID, client_secret), &form).await
    }

    /// A token of the client at each server.
    async fn tokens(&self) -> [String; 2] {
        let [own, other] = [self.token("", CLIENT_SECRET).await, self.token("/partners", OTHER_SECRET).await];
        [own, other].map(|answer| answer.json()["access_token"].as_str().unwrap().to_owned())
    }

    async fn is_active(&self, server: &str, token: &str) -> bool {
        let answer = self.post(&format!("{server}/introspect"), (API, CLIENT_SECRET), &[("token", token)]).await;
        answer.json()["active"].as_bool().unwrap()
    }

    async fn asserted(&self, server: &str, assertion: &str) -> Answer {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion),
        ];
        self.service.send(self.service.client.post(self.service.url(&format!("{server}/token"))).form(&form)).await
    }
}

fn key_set(answer: &Answer) -> JwkSet {
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn a_client_secret_counts_at_its_own_server_alone_and_its_tokens_say_which() {
    let stage = Stage::start().await;
    let refused = (401, "invalid_client".to_owned());
    assert_eq!(stage.token("", OTHER_SECRET).await.error(), refused);
    assert_eq!(stage.token("/partners", CLIENT_SECRET).await.error(), refused);
    let own = claims(&stage.token("", CLIENT_SECRET).await);
    let other = claims(&stage.token("/partners", OTHER_SECRET).await);
    assert_eq!((&own["iss"], &own["scope"]), (&json!(stage.service.issuer), &json!("orders:read orders:write")));
    assert_eq!((&other["iss"], &other["scope"]), (&json!(stage.issuer), &json!("partners:read")));
    assert_eq!(own["client_id"], other["client_id"]);
    // A client that is known at one server alone.
    let answer = stage.post("/partners/token", ("shop.nobody", CLIENT_SECRET), &[("grant_type", "client_credentials")]);
    assert_eq!(answer.await.error(), refused);
}

#[tokio::test]
async fn an_assertion_is_for_one_server_and_its_jti_is_used_at_that_server_alone() {
    let stage = Stage::start().await;
    let key = Key::new(KeyType::EcdsaP256);
    for name in ["default", "partners"] {
        let entry = Entry::new("shop.robot").methods(&["private_key_jwt"]);
        let entry = entry.revision(("key", PUBLIC_KEY), &key.of_key(), FROM, UNTIL).at(name);
        stage.service.api.person_applies(&entry.secret());
    }
    let known = async || stage.service.metrics().await.contains("token_service_clients 6");
    stage.service.until("the robot is known", known).await;
    let (now, one) = (now_of(&stage.service), jti());
    let assertion = |audience: &str| {
        let claims = json!({"iss": "shop.robot", "sub": "shop.robot", "aud": audience, "exp": now + 60, "jti": one});
        key.sign(key.alg(), &json!({"alg": "ES256", "kid": key.kid()}), &claims)
    };
    let [own, other] = [assertion(&stage.service.issuer), assertion(&stage.issuer)];
    assert_eq!(stage.asserted("/partners", &own).await.error(), (401, "invalid_client".to_owned()));
    assert_eq!(stage.asserted("", &other).await.error(), (401, "invalid_client".to_owned()));
    assert_eq!(stage.asserted("", &own).await.status, StatusCode::OK, "what was refused elsewhere was not used");
    assert_eq!(stage.asserted("/partners", &other).await.status, StatusCode::OK, "the same jti of another client");
    assert_eq!(stage.asserted("", &own).await.error(), (401, "invalid_client".to_owned()), "a replay");
    assert_eq!(stage.asserted("/partners", &other).await.error(), (401, "invalid_client".to_owned()), "a replay");
}

#[tokio::test]
async fn a_client_certificate_counts_at_its_own_server_alone() {
    let stage = Stage::start().await;
    let keys = [Key::new(KeyType::EcdsaP256), Key::new(KeyType::EcdsaP256)];
    for (name, key) in ["default", "partners"].into_iter().zip(&keys) {
        let entry = Entry::new("shop.robot").methods(&["tls_client_auth"]);
        let entry = entry.revision(("mtls", CERTIFICATE), &key.of_certificate(), FROM, UNTIL).at(name);
        stage.service.api.person_applies(&entry.secret());
    }
    let known = async || stage.service.metrics().await.contains("token_service_clients 6");
    stage.service.until("the robot is known", known).await;
    let form = [("grant_type", "client_credentials"), ("client_id", "shop.robot")];
    for (own, key) in keys.iter().enumerate() {
        let pem = [key.minted.certificate_pem.as_bytes(), key.minted.private_key_pem.expose()].concat();
        let identity = reqwest::Identity::from_pem(&pem).unwrap();
        let client = trusting(&stage.service.certificate).identity(identity).build().unwrap();
        for (index, server) in SERVERS.iter().enumerate() {
            let request = client.post(stage.service.url(&format!("{server}/token"))).form(&form);
            let answer = stage.service.send(request).await;
            if index == own {
                assert_eq!(claims(&answer)["cnf"]["x5t#S256"], json!(key.thumbprint()), "{server}");
            } else {
                assert_eq!(answer.error(), (401, "invalid_client".to_owned()), "{server}");
            }
        }
    }
}

#[tokio::test]
async fn a_service_account_token_is_for_one_server() {
    let stage = Stage::start().await;
    for name in ["default", "partners"] {
        let entry = Entry::new("shop.pod").methods(&["private_key_jwt"]).at(name);
        let entry = entry.service_account("pod", "system:serviceaccount:shop:robot", None);
        stage.service.api.person_applies(&entry.secret());
    }
    let known = async || stage.service.metrics().await.contains("token_service_clients 6");
    stage.service.until("the pod is known", known).await;
    let token = cluster().token(&stage.issuer, now_of(&stage.service), |_| {});
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "shop.pod"),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", token.as_str()),
    ];
    for (server, status) in [("", 401), ("/partners", 200)] {
        let request = stage.service.client.post(stage.service.url(&format!("{server}/token"))).form(&form);
        assert_eq!(stage.service.send(request).await.status.as_u16(), status, "{server}");
    }
}

#[tokio::test]
async fn a_token_is_introspected_and_revoked_at_its_own_server_alone() {
    let stage = Stage::start().await;
    let [own, other] = stage.tokens().await;
    // Twice: what was verified once is remembered.
    for _ in 0..2 {
        assert!(stage.is_active("", &own).await && stage.is_active("/partners", &other).await);
        assert!(!stage.is_active("/partners", &own).await && !stage.is_active("", &other).await);
    }
    for (server, secret, foreign) in [("", CLIENT_SECRET, &other), ("/partners", OTHER_SECRET, &own)] {
        let answer = stage.post(&format!("{server}/revoke"), (ID, secret), &[("token", foreign)]).await;
        assert_eq!(
            answer.status,
            StatusCode::OK,
            "RFC 7009 §2.2: it is none of this server's, and there is nothing to do"
        );
    }
    assert!(stage.is_active("", &own).await && stage.is_active("/partners", &other).await);
    let answer = stage.post("/partners/revoke", (ID, OTHER_SECRET), &[("token", &other)]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(stage.is_active("", &own).await && !stage.is_active("/partners", &other).await);
}

#[tokio::test]
async fn every_server_has_its_own_documents_and_a_token_verifies_against_its_own_keys() {
    let stage = Stage::start().await;
    let key = signing_key_since_yesterday();
    stage.service.api.controller_publishes(&server("partners", &stage.issuer, ""), &key);
    let replaced = async || stage.read("/partners/jwks").await.body.contains(&key.record.kid);
    stage.service.until("partners has a key of its own", replaced).await;
    for (server, issuer) in [("", &stage.service.issuer), ("/partners", &stage.issuer)] {
        for path in [
            format!("/.well-known/oauth-authorization-server{server}"),
            format!("/.well-known/openid-configuration{server}"),
            format!("{server}/.well-known/openid-configuration"),
        ] {
            let metadata = stage.read(&path).await.json();
            assert_eq!(metadata["issuer"], json!(issuer), "{path}");
            assert_eq!(metadata["token_endpoint"], json!(format!("{issuer}/token")), "{path}");
            assert_eq!(metadata["jwks_uri"], json!(format!("{issuer}/jwks")), "{path}");
            let authorize = path.contains("openid").then(|| format!("{issuer}/authorize"));
            assert_eq!(metadata.get("authorization_endpoint"), authorize.map(|url| json!(url)).as_ref(), "{path}");
        }
        let answer = stage.read(&format!("{server}/authorize?response_type=code")).await;
        assert_eq!(answer.error(), (400, "unsupported_response_type".to_owned()));
    }
    let sets = [key_set(&stage.read("/jwks").await), key_set(&stage.read("/partners/jwks").await)];
    for (index, token) in stage.tokens().await.iter().enumerate() {
        let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
        for (of, set) in sets.iter().enumerate() {
            assert_eq!(set.find(&kid).is_some(), of == index, "the token of {index} and the keys of {of}");
        }
        let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
        (rules.validate_exp, rules.validate_aud) = (false, false);
        let key = jsonwebtoken::DecodingKey::from_jwk(sets[index].find(&kid).unwrap()).unwrap();
        assert!(jsonwebtoken::decode::<Value>(token, &key, &rules).is_ok());
    }
}

#[tokio::test]
async fn a_server_of_another_host_is_found_by_the_name_that_was_asked_for() {
    let stage = Stage::start().await;
    let issuer = format!("https://partners.test:{}", stage.service.address.port());
    let other = server("hosted", &issuer, "");
    stage.service.api.controller_publishes(&other, &stage.key);
    for protocol in ["h2", "http/1.1"] {
        let certificate = reqwest::Certificate::from_der(&stage.service.certificate).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([certificate]).no_proxy();
        let client = client.resolve("partners.test", stage.service.address).tls_danger_accept_invalid_hostnames(true);
        let client = if protocol == "h2" { client } else { client.http1_only() };
        let client = client.build().unwrap();
        let url = format!("{issuer}/.well-known/oauth-authorization-server");
        let found = async || stage.service.send(client.get(&url)).await.json()["issuer"] == json!(issuer);
        stage.service.until(protocol, found).await;
        let metadata = stage.read("/.well-known/oauth-authorization-server").await.json();
        assert_eq!(metadata["issuer"], json!(stage.service.issuer), "the configured one answers to its own name");
    }
}

#[tokio::test]
async fn settings_are_taken_up_as_they_change_and_kept_where_they_break_or_go() {
    let stage = Stage::start().await;
    let lifetime = async || {
        let answer = stage.token("/partners", OTHER_SECRET).await.json();
        answer["expires_in"].as_i64().unwrap()
    };
    assert_eq!(lifetime().await, 3600);
    let changed = server("partners", &stage.issuer, ", accessTokenLifetime: 5m");
    stage.service.api.controller_publishes(&changed, &stage.key);
    stage.service.until("the lifetime is another", async || lifetime().await == 300).await;
    let unreadable = r#"token_service_unreadable{object="signing_keys"} "#;
    for (what, edit) in [
        ("of a later version", json!({published::FIELD: "eyJ2ZXJzaW9uIjoyfQ=="})),
        ("malformed keys", json!({INDEX_FIELD: "e30="})),
    ] {
        assert!(stage.service.api.person_edits("secrets", NAMESPACE, &secret_of("partners"), |secret| {
            for (field, value) in edit.as_object().unwrap() {
                secret["data"][field] = value.clone();
            }
        }));
        let is_told = async || stage.service.metrics().await.contains(&format!("{unreadable}1"));
        stage.service.until(what, is_told).await;
        assert_eq!(lifetime().await, 300, "{what}");
        stage.service.api.controller_publishes(&changed, &stage.key);
        let is_mended = async || stage.service.metrics().await.contains(&format!("{unreadable}0"));
        stage.service.until("mended", is_mended).await;
    }
    assert!(stage.service.api.person_deletes("secrets", NAMESPACE, &secret_of("partners")));
    stage.service.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(lifetime().await, 300, "what is in memory goes on");
    assert_eq!(stage.service.readyz().await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_server_that_cannot_be_read_holds_up_no_other() {
    let api = FakeApi::new();
    let certificate = api.person_makes_a_certificate();
    api.person_makes_signing_keys();
    api.person_makes_lists();
    cluster().publish(&api);
    api.person_applies(&Entry::new(ID).secret());
    api.person_applies(&secret(&secret_of("broken"), "Opaque", &[(published::FIELD, b"{"), (INDEX_FIELD, b"[]")]));
    let issuer = "https://keyless.example";
    let settings = published::to_json(&server("keyless", issuer, ""));
    let fields = [(published::FIELD, &*settings), (INDEX_FIELD, b"[]")];
    api.person_applies(&secret(&secret_of("keyless"), "Opaque", &fields));
    let service = TokenService::start_on(api, certificate, "", Limits::default()).await;
    service.until("ready", async || service.readyz().await.status == StatusCode::OK).await;
    assert_eq!(service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
    let readyz = service.readyz().await.body;
    assert!(readyz.contains("no key that signs now was read of keyless"), "{readyz}");
    let broken = service.post_as("/broken/token", ID, &[("grant_type", "client_credentials")]).await;
    assert_eq!(broken.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_client_secret_of_a_moment_ago_is_read_live_at_its_own_server() {
    let stage = Stage::start().await;
    stage.service.api.hold_watches();
    let newer = Entry::new(ID).without_secrets().client_secret("web", "apr_newer", FROM, UNTIL).at("partners");
    stage.service.api.person_applies(&newer.secret());
    assert_eq!(stage.token("", "apr_newer").await.error(), (401, "invalid_client".to_owned()));
    assert_eq!(stage.token("/partners", "apr_newer").await.status, StatusCode::OK);
    assert_eq!(stage.token("", CLIENT_SECRET).await.status, StatusCode::OK);
}
