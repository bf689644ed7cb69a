//! A delivered token is for one API and has the scopes that are granted there: the controller on the fake API server,
//! through edits of policies. That of the token endpoint is in `tests/it/token_service/apis.rs`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::governance::{FAIL_CLOSED, namespace, policy, until_reason};
use crate::reconcile::{Running, Stage};

/// The audience of tokens where no API is meant: the configured server's issuer.
const SERVER: &str = "https://auth.example";
const ORDERS: &str = "https://orders.example";
const INVOICES: &str = "https://invoices.example";

/// APIs with the scopes that are allowed there.
type Apis<'a> = &'a [(&'a str, &'a [&'a str])];

/// A controller without a default policy, and a policy that allows these APIs with these scopes there.
async fn start(stage: &Stage, apis: Apis<'_>) -> Running {
    namespace(stage, "shop", &json!({"team": "shop"}));
    allow(stage, &[], apis);
    stage.controller_with(FAIL_CLOSED).await
}

/// Writes that policy anew: it takes back what it does not allow any more.
fn allow(stage: &Stage, scopes: &[&str], apis: Apis<'_>) {
    let apis: Vec<_> =
        apis.iter().map(|(audience, scopes)| json!({"audiences": [audience], "scopes": scopes})).collect();
    policy(stage, "shop", &json!({"scopes": scopes, "apis": apis, "onViolation": "Withdraw"}));
}

/// An entry of an access token with a Secret of its own, which has its name.
fn token(name: &str, settings: &Value) -> Value {
    json!({"name": name, "secretName": name, "accessToken": settings})
}

/// The claims of the token in a Secret; its field `scope` says the same.
fn claims(stage: &Stage, secret: &str) -> Value {
    let fields = stage.fields(secret);
    let payload = fields["access_token"].split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    assert_eq!(fields["scope"], claims["scope"].as_str().unwrap_or_default(), "{secret}");
    claims
}

/// `aud` and `scope` of the token in a Secret.
fn target(stage: &Stage, secret: &str) -> (Value, Value) {
    let claims = claims(stage, secret);
    (claims["aud"].clone(), claims["scope"].clone())
}

fn has_token(stage: &Stage, secret: &str) -> bool {
    let secrets: Vec<Value> = stage.server.objects("secrets");
    secrets.iter().any(|found| found["metadata"]["name"] == secret && !found["data"]["access_token"].is_null())
}

#[tokio::test(start_paused = true)]
async fn each_delivered_token_is_for_one_api_and_has_the_scopes_of_this_one() {
    let stage = Stage::new();
    let apis: [(&str, &[&str]); 2] = [(ORDERS, &["orders:*", "shared"]), (INVOICES, &["invoices:*", "shared"])];
    let _controller = start(&stage, &apis).await;
    allow(&stage, &["profile"], &apis);
    stage.apply_spec(
        "storefront",
        &json!({
            "scopes": ["profile"],
            "apis": [
                {"audience": ORDERS, "scopes": ["orders:read", "orders:write", "shared"]},
                {"audience": INVOICES, "scopes": ["invoices:read", "shared"]},
            ],
            "credentials": [
                token("first", &json!({})),
                token("orders", &json!({"audience": ORDERS, "scopes": ["shared", "orders:read"]})),
                token("invoices", &json!({"audience": INVOICES})),
                token("server", &json!({"audience": SERVER})),
            ],
        }),
    );
    stage.until_ready("storefront").await;
    for (secret, audience, mut scopes) in [
        ("first", ORDERS, vec!["orders:read", "orders:write", "shared"]),
        ("orders", ORDERS, vec!["orders:read", "shared"]),
        ("invoices", INVOICES, vec!["invoices:read", "shared"]),
        ("server", SERVER, vec!["profile"]),
    ] {
        let (aud, scope) = target(&stage, secret);
        let mut said: Vec<&str> = scope.as_str().unwrap().split(' ').collect();
        said.sort_unstable();
        scopes.sort_unstable();
        assert_eq!((aud, said), (json!(audience), scopes), "{secret}");
    }
    assert_eq!(stage.quiet().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn without_apis_a_delivered_token_is_for_the_servers_default_audience() {
    let stage = Stage::new();
    let _controller = start(&stage, &[]).await;
    allow(&stage, &["profile"], &[]);
    stage.apply_spec("storefront", &json!({"scopes": ["profile"], "credentials": [token("api", &json!({}))]}));
    stage.until_ready("storefront").await;
    assert_eq!(target(&stage, "api"), (json!(SERVER), json!("profile")));
}

#[tokio::test(start_paused = true)]
async fn a_scope_of_another_api_is_in_no_token_that_asks_for_it_and_the_registration_says_so() {
    let stage = Stage::new();
    let _controller = start(&stage, &[(ORDERS, &["*"]), (INVOICES, &["*"])]).await;
    stage.apply_spec(
        "storefront",
        &json!({
            "apis": [
                {"audience": ORDERS, "scopes": ["orders:read"]},
                {"audience": INVOICES, "scopes": ["invoices:read"]},
            ],
            "credentials": [token("mixed", &json!({"audience": ORDERS, "scopes": ["invoices:read", "orders:read"]}))],
        }),
    );
    let message = until_reason(&stage, "storefront", "Stalled", "InvalidSpec").await;
    let said = "Field spec.credentials[mixed].accessToken.scopes: invoices:read must be asked for by the registration as \
                well: add it to spec.apis[https://orders.example].scopes";
    assert!(message.contains(said), "{message}");
    assert_eq!(target(&stage, "mixed"), (json!(ORDERS), json!("orders:read")));
}

#[tokio::test(start_paused = true)]
async fn no_token_is_delivered_for_an_api_that_is_not_granted_and_no_other_api_takes_its_place() {
    let stage = Stage::new();
    let _controller = start(&stage, &[(INVOICES, &["*"])]).await;
    stage.apply_spec(
        "storefront",
        &json!({
            "apis": [
                {"audience": ORDERS, "scopes": ["orders:read"]},
                {"audience": INVOICES, "scopes": ["invoices:read"]},
            ],
            "credentials": [token("first", &json!({}))],
        }),
    );
    let message = until_reason(&stage, "storefront", "Approved", "PolicyDenied").await;
    assert!(message.contains(&format!("Field spec.apis: {ORDERS} is not allowed")), "{message}");
    assert!(message.contains("Field spec.credentials[first].accessToken"), "{message}");
    assert!(!has_token(&stage, "first"));
    allow(&stage, &[], &[(ORDERS, &["*"]), (INVOICES, &["*"])]);
    stage.until("the API is granted", |_| has_token(&stage, "first")).await;
    assert_eq!(target(&stage, "first"), (json!(ORDERS), json!("orders:read")));
    stage.until_ready("storefront").await;

    let nobodys = token("nobodys", &json!({"audience": "https://nobody.example"}));
    stage.apply_spec("other", &json!({"apis": [{"audience": ORDERS}], "credentials": [nobodys]}));
    let message = until_reason(&stage, "other", "Stalled", "InvalidSpec").await;
    let said = "Field spec.credentials[nobodys].accessToken.audience: https://nobody.example must be asked for by the registration";
    assert!(message.contains(said), "{message}");
    assert!(!has_token(&stage, "nobodys"));
}

/// What each API and the server's audience have granted, by the ledger.
fn granted(stage: &Stage) -> BTreeMap<String, Vec<String>> {
    let grant = stage.entry().grant;
    let of_apis = grant.apis.iter().map(|(audience, api)| (audience.clone(), api.scopes.keys().cloned().collect()));
    of_apis.chain([(SERVER.to_owned(), grant.scopes.keys().cloned().collect())]).collect()
}

#[tokio::test(start_paused = true)]
async fn after_every_edit_of_a_policy_a_delivered_token_has_only_what_its_own_api_still_grants() {
    let wide: [(&str, &[&str]); 2] = [(ORDERS, &["orders:read", "orders:write"]), (INVOICES, &["invoices:read"])];
    let moved: [(&str, &[&str]); 2] = [(ORDERS, &["orders:read"]), (INVOICES, &["invoices:read", "orders:write"])];
    let bare: [(&str, &[&str]); 2] = [(ORDERS, &[]), (INVOICES, &["invoices:read", "orders:read", "orders:write"])];
    let stage = Stage::new();
    let _controller = start(&stage, &wide).await;
    let everywhere = ["orders:read", "orders:write"];
    stage.apply_spec(
        "storefront",
        &json!({
            "scopes": everywhere,
            "apis": [
                {"audience": ORDERS, "scopes": everywhere},
                {"audience": INVOICES, "scopes": ["invoices:read", "orders:read", "orders:write"]},
            ],
            "credentials": [token("api", &json!({"audience": ORDERS}))],
        }),
    );
    stage.until("delivered", |_| has_token(&stage, "api")).await;
    let of_server: [&[&str]; 2] = [&[], &everywhere];
    let edits: [(&[&str], Apis, Value); 6] = [
        (of_server[0], &wide, json!("orders:read orders:write")),
        (of_server[0], &moved, json!("orders:read")),
        (of_server[1], &bare, Value::Null),
        (of_server[1], &wide, json!("orders:read orders:write")),
        (of_server[1], &bare, Value::Null),
        (of_server[0], &moved, json!("orders:read")),
    ];
    for (number, (scopes, apis, expected)) in edits.into_iter().enumerate() {
        allow(&stage, scopes, apis);
        stage.until(&format!("edit {number}: {expected}"), |_| target(&stage, "api").1 == expected).await;
        // Refreshed by time, with nothing edited meanwhile.
        for refresh in 0..3 {
            let before = stage.fields("api")["access_token"].clone();
            stage.clock.advance(SignedDuration::from_mins(50));
            stage.until("refreshed", |_| stage.fields("api")["access_token"] != before).await;
            assert_eq!(target(&stage, "api"), (json!(ORDERS), expected.clone()), "edit {number}, refresh {refresh}");
            let said: Vec<String> = claims(&stage, "api")["scope"]
                .as_str()
                .unwrap_or_default()
                .split_whitespace()
                .map(str::to_owned)
                .collect();
            assert!(said.iter().all(|scope| granted(&stage)[ORDERS].contains(scope)), "edit {number}: {said:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_for_an_api_that_was_withdrawn_is_not_signed_again_until_the_api_is_granted_again() {
    let stage = Stage::new();
    let _controller = start(&stage, &[(ORDERS, &["orders:read"]), (INVOICES, &["orders:read"])]).await;
    stage.apply_spec(
        "storefront",
        &json!({
            "apis": [
                {"audience": ORDERS, "scopes": ["orders:read"]},
                {"audience": INVOICES, "scopes": ["orders:read"]},
            ],
            "credentials": [token("api", &json!({}))],
        }),
    );
    stage.until_ready("storefront").await;
    let before = stage.fields("api")["access_token"].clone();
    allow(&stage, &["orders:read"], &[(INVOICES, &["orders:read"])]);
    let message = until_reason(&stage, "storefront", "Approved", "PolicyDenied").await;
    assert!(message.contains(&format!("Field spec.apis: {ORDERS} is not allowed")), "{message}");
    assert!(!stage.entry().grant.apis.contains_key(ORDERS));
    for _ in 0..4 {
        stage.pass(SignedDuration::from_mins(50)).await;
        let now =
            stage.server.object::<Value>("secrets", "shop", "api").map(|_| stage.fields("api")["access_token"].clone());
        assert!(now.is_none_or(|now| now == before), "it ends by its own time, and no other is signed");
    }
    allow(&stage, &[], &[(ORDERS, &["orders:read"]), (INVOICES, &["orders:read"])]);
    stage.until("signed again", |_| has_token(&stage, "api") && stage.fields("api")["access_token"] != before).await;
    assert_eq!(target(&stage, "api"), (json!(ORDERS), json!("orders:read")));
    stage.until_ready("storefront").await;
}

#[tokio::test(start_paused = true)]
async fn customers_that_are_not_granted_are_an_empty_list_in_a_delivered_token() {
    let stage = Stage::new();
    let _controller = start(&stage, &[]).await;
    let customers = |scope: &Value| json!({"customerScope": scope, "credentials": [token("api", &json!({}))]});
    let of_token = |stage: &Stage| {
        let claims = claims(stage, "api");
        (claims["customers"].clone(), claims["customer_groups"].clone())
    };
    let none = json!([]);
    for (scope, expected) in [
        (Value::Null, (Value::Null, Value::Null)),
        (json!({"type": "All"}), (none.clone(), Value::Null)),
        (json!({"type": "Customers", "customers": ["acme"]}), (none.clone(), Value::Null)),
        (json!({"type": "Groups", "groups": ["emea"]}), (none, Value::Null)),
    ] {
        stage.apply_spec("storefront", &customers(&scope));
        let is_signed = |_: &_| has_token(&stage, "api") && of_token(&stage) == expected;
        stage.until(&format!("{scope}: {expected:?}"), is_signed).await;
    }
    policy(&stage, "shop", &json!({"customerGroups": ["emea"]}));
    let granted = (Value::Null, json!(["emea"]));
    stage.until("the group is granted", |_| of_token(&stage) == granted).await;
}
