//! A token is for one API: it has scopes that are granted at its API, and of no other. At the token endpoint and at
//! introspection; that of delivered tokens is in `tests/it/apis.rs`.

use std::collections::BTreeSet;

use http::StatusCode;
use serde_json::{Value, json};

use super::introspection::Stage;
use super::{Answer, CLIENT_SECRET, Entry, TokenService, claims};

const ID: &str = "shop.storefront";
/// The audience of tokens where no API is meant: the server's default one.
const SERVER: &str = "https://default.example";
const ORDERS: &str = "https://orders.example";
const INVOICES: &str = "https://invoices.example";
/// An API at which nothing is granted but the API itself.
const BARE: &str = "urn:bare";
/// An API that the client may not call.
const OTHER: &str = "https://other.example";

/// Every audience that the client may call, with the scopes that are granted there.
const GRANTED: [(&str, &[&str]); 4] = [
    (SERVER, &["profile"]),
    (ORDERS, &["orders:read", "orders:write", "shared"]),
    (INVOICES, &["invoices:read", "shared"]),
    (BARE, &[]),
];

/// A client with scopes at the server's default audience and at two of three APIs.
fn storefront() -> Entry {
    let [(_, of_server), (_, of_orders), (_, of_invoices), (_, of_bare)] = GRANTED;
    Entry::new(ID).granted("scopes", of_server).api(ORDERS, of_orders).api(INVOICES, of_invoices).api(BARE, of_bare)
}

/// A token service with that client, as it is changed.
async fn start(entry: &Entry) -> TokenService {
    let service = TokenService::start().await;
    service.api.person_applies(&entry.secret());
    let is_known = async || !is_of_the_start(&ask(&service, &[], None).await);
    service.until("the client is known as it is now", is_known).await;
    service
}

/// Whether a token is of the client as [`TokenService::start`] has it.
fn is_of_the_start(answer: &Answer) -> bool {
    answer.status == StatusCode::OK && claims(answer)["scope"] == "orders:read orders:write"
}

/// Asks for a token for these resources, and for a scope or for all there is.
async fn ask(service: &TokenService, resources: &[&str], scope: Option<&str>) -> Answer {
    let mut form = vec![("grant_type", "client_credentials")];
    form.extend(resources.iter().map(|resource| ("resource", *resource)));
    form.extend(scope.map(|scope| ("scope", scope)));
    let request = service.client.post(service.url("/token")).basic_auth(ID, Some(CLIENT_SECRET));
    service.send(request.form(&form)).await
}

/// `aud` and `scope` of a token, which the answer repeats.
fn target(answer: &Answer) -> (Value, Value) {
    let claims = claims(answer);
    assert_eq!(answer.json()["scope"], claims["scope"], "RFC 6749 §5.1: {answer:?}");
    (claims["aud"].clone(), claims["scope"].clone())
}

fn refused(error: &str) -> (u16, String) {
    (400, error.to_owned())
}

#[tokio::test]
async fn a_token_without_a_resource_is_for_the_first_api_alone_and_has_its_scopes() {
    let service = start(&storefront()).await;
    assert_eq!(target(&ask(&service, &[], None).await), (json!(ORDERS), json!("orders:read orders:write shared")));
    assert_eq!(
        target(&ask(&service, &[], Some("shared orders:read")).await),
        (json!(ORDERS), json!("orders:read shared"))
    );
    for elsewhere in ["profile", "invoices:read", "orders:read invoices:read"] {
        assert_eq!(ask(&service, &[], Some(elsewhere)).await.error(), refused("invalid_scope"), "{elsewhere}");
    }
}

#[tokio::test]
async fn a_resource_names_the_api_and_its_scopes_are_those_granted_there() {
    let service = start(&storefront()).await;
    for (audience, scopes) in GRANTED {
        // RFC 6749 §5.1: without any there is no scope at all.
        let all = if scopes.is_empty() { Value::Null } else { json!(scopes.join(" ")) };
        assert_eq!(target(&ask(&service, &[audience], None).await), (json!(audience), all), "{audience}");
        assert_eq!(ask(&service, &[audience, audience], None).await.status, StatusCode::OK, "{audience} twice is one");
    }
    assert_eq!(ask(&service, &[OTHER], None).await.error(), refused("invalid_target"), "not granted");
    assert_eq!(ask(&service, &[OTHER], Some("orders:read")).await.error(), refused("invalid_target"));
    assert_eq!(ask(&service, &[ORDERS, OTHER], None).await.error(), refused("invalid_target"), "nor beside another");
    assert_eq!(
        ask(&service, &["https://orders.example/"], None).await.error(),
        refused("invalid_target"),
        "as written"
    );
}

#[tokio::test]
async fn a_token_for_several_apis_has_the_scopes_that_all_of_them_have_and_none_is_issued_without_one() {
    let service = start(&storefront()).await;
    let both = json!([INVOICES, ORDERS]);
    assert_eq!(target(&ask(&service, &[ORDERS, INVOICES], None).await), (both.clone(), json!("shared")));
    assert_eq!(target(&ask(&service, &[INVOICES, ORDERS, INVOICES], Some("shared")).await), (both, json!("shared")));
    for at_one in ["orders:read", "invoices:read", "shared orders:read"] {
        assert_eq!(
            ask(&service, &[ORDERS, INVOICES], Some(at_one)).await.error(),
            refused("invalid_scope"),
            "{at_one}"
        );
    }
    for apart in [&[ORDERS, SERVER][..], &[ORDERS, BARE], &[ORDERS, INVOICES, BARE], &[ORDERS, INVOICES, SERVER]] {
        assert_eq!(ask(&service, apart, None).await.error(), refused("invalid_target"), "{apart:?}");
    }
    assert_eq!(service.ended("nothing_in_common").await, 4);
}

/// Every set of audiences with every scope, and with none.
#[tokio::test]
async fn no_request_gets_a_scope_that_one_of_its_apis_has_not_granted() {
    let service = start(&storefront()).await;
    let scopes: BTreeSet<&str> = GRANTED.iter().flat_map(|(_, scopes)| scopes.iter().copied()).collect();
    let mut issued = 0;
    for set in 1..1 << GRANTED.len() {
        let chosen: Vec<_> =
            GRANTED.iter().enumerate().filter(|(n, _)| set >> n & 1 == 1).map(|(_, api)| api).collect();
        let resources: Vec<&str> = chosen.iter().map(|(audience, _)| *audience).collect();
        let at_all = |scope: &&str| chosen.iter().all(|(_, scopes)| scopes.contains(scope));
        let common: Vec<&str> = scopes.iter().copied().filter(at_all).collect();
        let has_target = !common.is_empty() || chosen.len() == 1;
        for asked in scopes.iter().map(|scope| Some(*scope)).chain([None]) {
            let answer = ask(&service, &resources, asked).await;
            let case = format!("{resources:?} {asked:?}: {answer:?}");
            let expected: Vec<&str> =
                common.iter().copied().filter(|scope| asked.is_none_or(|asked| asked == *scope)).collect();
            if !has_target {
                assert_eq!(answer.error(), refused("invalid_target"), "{case}");
            } else if asked.is_some() && expected.is_empty() {
                assert_eq!(answer.error(), refused("invalid_scope"), "{case}");
            } else {
                let scope = claims(&answer)["scope"].as_str().unwrap_or_default().to_owned();
                assert_eq!(scope, expected.join(" "), "{case}");
                issued += 1;
            }
        }
    }
    // One for each audience alone and both of those with a scope in common; then each scope where it is granted.
    assert_eq!(issued, 5 + 6 + 1);
}

#[tokio::test]
async fn without_apis_a_token_is_for_the_servers_default_audience() {
    let service = start(&Entry::new(ID).granted("scopes", &["profile"])).await;
    for resources in [&[][..], &[SERVER]] {
        assert_eq!(target(&ask(&service, resources, None).await), (json!(SERVER), json!("profile")));
    }
    assert_eq!(ask(&service, &[ORDERS], None).await.error(), refused("invalid_target"));

    let service = start(&Entry::new(ID).granted("scopes", &[])).await;
    assert_eq!(target(&ask(&service, &[], None).await), (json!(SERVER), Value::Null), "also without a scope");
}

#[tokio::test]
async fn an_api_that_comes_first_and_is_not_granted_is_no_target_and_no_other_stands_in_for_it() {
    let mut entry = storefront();
    entry.0["grant"]["defaultAudience"] = json!(OTHER);
    let service = start(&entry).await;
    assert_eq!(ask(&service, &[], None).await.error(), refused("invalid_target"));
    assert_eq!(target(&ask(&service, &[SERVER], None).await), (json!(SERVER), json!("profile")));
    assert_eq!(target(&ask(&service, &[INVOICES], None).await), (json!(INVOICES), json!("invoices:read shared")));

    let service = start(&Entry::new(ID).granted("scopes", &[]).api(ORDERS, &["orders:read"])).await;
    assert_eq!(ask(&service, &[SERVER], None).await.error(), refused("invalid_target"), "nothing is granted there");
}

#[tokio::test]
async fn the_servers_default_audience_among_the_apis_has_the_scopes_of_both_places() {
    let entry =
        Entry::new(ID).granted("scopes", &["profile"]).api(SERVER, &["admin", "profile"]).api(ORDERS, &["read"]);
    let service = start(&entry).await;
    for resources in [&[][..], &[SERVER]] {
        assert_eq!(target(&ask(&service, resources, None).await), (json!(SERVER), json!("admin profile")));
    }
    assert_eq!(target(&ask(&service, &[ORDERS], None).await), (json!(ORDERS), json!("read")));
}

/// The claims about customers of a client's token.
async fn customers(entry: &Entry) -> (Value, Value) {
    let service = start(&entry.clone().granted("scopes", &["profile"])).await;
    let claims = claims(&ask(&service, &[], None).await);
    (claims["customers"].clone(), claims["customer_groups"].clone())
}

#[tokio::test]
async fn customers_that_were_asked_for_and_not_granted_are_an_empty_list_and_never_no_restriction() {
    let asking = |type_: &str| {
        let mut entry = Entry::new(ID);
        entry.0["grant"]["customerScope"] = json!(type_);
        entry
    };
    for type_ in ["All", "Customers", "Groups"] {
        assert_eq!(customers(&asking(type_)).await, (json!([]), Value::Null), "{type_}");
    }
    let some = asking("Customers").granted("customers", &["acme"]);
    assert_eq!(customers(&some).await, (json!(["acme"]), Value::Null));
    let groups = asking("Groups").granted("customerGroups", &["emea"]);
    assert_eq!(customers(&groups).await, (Value::Null, json!(["emea"])));
    assert_eq!(customers(&Entry::new(ID)).await, (Value::Null, Value::Null), "nothing was asked for");
}

/// A resource server of [`ORDERS`] and [`INVOICES`], and tokens of the client.
async fn introspecting() -> Stage {
    let stage = Stage::start().await;
    stage.service.api.person_applies(&storefront().secret());
    let serves = Entry::new("shop.api").granted("servedAudiences", &[ORDERS, INVOICES]);
    stage.service.api.person_applies(&serves.secret());
    let is_known = async || {
        let answer = ask(&stage.service, &[INVOICES], None).await;
        answer.status == StatusCode::OK && stage.is_active(answer.json()["access_token"].as_str().unwrap()).await
    };
    stage.service.until("client and resource server are known as they are now", is_known).await;
    stage
}

async fn token(stage: &Stage, resources: &[&str]) -> String {
    ask(&stage.service, resources, None).await.json()["access_token"].as_str().unwrap().to_owned()
}

/// Introspects until the scope is this one.
async fn until_scope(stage: &Stage, what: &str, token: &str, scope: &Value) {
    let said = async || stage.introspect(token).await.json();
    stage.service.until(what, async || said().await["scope"] == *scope).await;
    assert_eq!(said().await["active"], true, "{what}");
}

#[tokio::test]
async fn introspection_leaves_out_a_scope_that_was_withdrawn_at_the_tokens_api_wherever_else_it_is_granted() {
    let stage = introspecting().await;
    let (orders, both) = (token(&stage, &[ORDERS]).await, token(&stage, &[ORDERS, INVOICES]).await);
    until_scope(&stage, "all", &orders, &json!("orders:read orders:write shared")).await;
    until_scope(&stage, "all of both", &both, &json!("shared")).await;

    let applies = |entry: Entry| drop(stage.service.api.person_applies(&entry.secret()));
    let of_invoices = ["invoices:read", "orders:write", "shared"];
    applies(
        Entry::new(ID).granted("scopes", &["orders:write"]).api(ORDERS, &["orders:read"]).api(INVOICES, &of_invoices),
    );
    until_scope(&stage, "what is granted at another API is none here", &orders, &json!("orders:read")).await;
    until_scope(&stage, "nor at one of two", &both, &Value::Null).await;

    applies(storefront());
    until_scope(&stage, "granted again", &orders, &json!("orders:read orders:write shared")).await;
    until_scope(&stage, "granted again at both", &both, &json!("shared")).await;
}

#[tokio::test]
async fn a_token_whose_api_was_withdrawn_is_inactive_and_one_for_another_api_is_not() {
    let stage = introspecting().await;
    let [orders, invoices] = [token(&stage, &[ORDERS]).await, token(&stage, &[INVOICES]).await];
    let both = token(&stage, &[ORDERS, INVOICES]).await;
    for token in [&orders, &invoices, &both] {
        assert!(stage.is_active(token).await);
    }
    let scopes = ["orders:read", "orders:write", "shared"];
    let entry = Entry::new(ID).granted("scopes", &scopes).api(INVOICES, &[&scopes[..], &["invoices:read"]].concat());
    stage.service.api.person_applies(&entry.secret());
    stage.until_inactive("its API was withdrawn", &orders).await;
    assert!(!stage.is_active(&both).await, "one of its APIs was withdrawn");
    assert!(stage.is_active(&invoices).await);
    let metrics = stage.service.metrics().await;
    assert!(metrics.contains("introspected_tokens_total{result=\"api\"}"), "{metrics}");
}

#[tokio::test]
async fn an_introspected_token_says_that_no_customer_is_granted() {
    let stage = introspecting().await;
    let mut entry = storefront();
    entry.0["grant"]["customerScope"] = json!("Customers");
    stage.service.api.person_applies(&entry.secret());
    let is_known = async || claims(&ask(&stage.service, &[], None).await)["customers"] == json!([]);
    stage.service.until("the customer scope is known", is_known).await;
    assert_eq!(stage.introspect(&token(&stage, &[ORDERS]).await).await.json()["customers"], json!([]));
}

#[tokio::test]
async fn an_entry_of_the_shape_before_apis_is_served_with_every_scope_at_every_audience_that_it_had() {
    let mut entry = Entry::new(ID);
    entry.0["grant"] = json!({
        "scopes": {"orders:read": "policy/default", "orders:write": "policy/default"},
        "audiences": {ORDERS: "policy/default", INVOICES: "policy/default"}, "resourceAudiences": {SERVER: "policy/default"},
        "redirectURIs": {}, "customers": {}, "customerGroups": {}, "authMethods": ["client_secret_basic"],
    });
    let service = TokenService::start().await;
    service.api.person_applies(&entry.secret());
    let is_known = async || claims(&ask(&service, &[], None).await)["aud"] == INVOICES;
    service.until("the entry is known, and means the first of its audiences", is_known).await;
    for audience in [ORDERS, INVOICES] {
        let scope = json!("orders:read orders:write");
        assert_eq!(target(&ask(&service, &[audience], None).await), (json!(audience), scope), "{audience}");
    }
    assert_eq!(ask(&service, &[SERVER], None).await.error(), refused("invalid_target"));
    let own = ask(&service, &[ORDERS], None).await.json()["access_token"].as_str().unwrap().to_owned();
    let answer = service.post_as("/introspect", ID, &[("token", &own)]).await;
    assert_eq!(answer.body, r#"{"active":false}"#, "it serves the server's audience, and this token is for another");
}
