//! What the API server itself accepts and refuses of an `AppRegistration`, and what it says: every rule of the schema.
//!
//! Each refusal names the field and the fix. Creations are dry runs, so that the cases are independent.

use appreg::api::{AppRegistration, crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::json;

use crate::harness;
use crate::schema::{self, ACCEPTED, CHANGES, CONFLICT, FIXED, REFUSED, expect_refusal};

#[tokio::test]
async fn the_api_server_accepts_what_the_rules_allow_and_nothing_else_and_names_field_and_fix() {
    let registrations = registrations().await;
    let mut wrong = Vec::new();
    for (case, spec) in ACCEPTED {
        if let Err(message) = create(&registrations, "rules", spec).await {
            wrong.push(format!("{case}: should be accepted, but: {message}"));
        }
    }
    for (case, spec, said) in REFUSED {
        expect_refusal(&mut wrong, case, create(&registrations, "rules", spec).await, said);
    }
    let long_name = create(&registrations, &"a".repeat(64), "{}").await;
    expect_refusal(
        &mut wrong,
        "a long metadata.name",
        long_name,
        &["metadata.name must have at most 63 characters: shorten it"],
    );
    if let Err(message) = create(&registrations, &"a".repeat(63), "{credentials: [{name: a, accessToken: {}}]}").await {
        wrong.push(format!("a metadata.name of 63 characters: should be accepted, but: {message}"));
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn what_governs_registrations_is_accepted_as_its_rules_allow_and_refused_by_field_and_fix() {
    let client = harness::shared().await.client("admin");
    apply_crds(&client).await;
    let create = async |kind: &str, spec: &str| {
        let object = schema::governors::object(kind, "rules", spec);
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("appreg.dev", "v1alpha1", kind));
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        Api::<DynamicObject>::all_with(client.clone(), &resource)
            .create(&dry_run, &object)
            .await
            .map(drop)
            .map_err(message)
    };
    let mut wrong = Vec::new();
    for (kind, spec) in schema::governors::ACCEPTED {
        if let Err(message) = create(kind, spec).await {
            wrong.push(format!("{kind} {spec}: should be accepted, but: {message}"));
        }
    }
    for (kind, spec, said) in schema::governors::REFUSED {
        expect_refusal(&mut wrong, &format!("{kind} {spec}"), create(kind, spec).await, said);
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn two_entries_may_share_a_secret_only_as_a_client_secret_and_a_certificate_without_a_secret_name() {
    let registrations = registrations().await;
    let mut wrong = Vec::new();
    for (spec, conflict) in schema::pairs_of_entries() {
        let answer = create(&registrations, "rules", &spec).await;
        match answer {
            answer if conflict => expect_refusal(&mut wrong, &spec, answer, CONFLICT),
            Ok(()) => {}
            Err(message) => wrong.push(format!("{spec}: should be accepted, but: {message}")),
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn kubectl_refuses_a_field_that_the_kind_does_not_have_and_names_it() {
    registrations().await;
    let control_plane = harness::shared().await;
    let mut wrong = Vec::new();
    for (object, field) in schema::UNKNOWN_FIELDS {
        let answer = control_plane.kubectl_apply(&schema::registration(object).to_string()).await;
        let answer = answer.map(drop).map_err(|error| format!("{error:#}"));
        expect_refusal(&mut wrong, field, answer, &[&format!("unknown field \"{field}\"")]);
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn kubectl_refuses_every_field_and_value_under_its_old_name() {
    use schema::{governors, renamed};
    registrations().await;
    let control_plane = harness::shared().await;
    let apply = async |kind: &str, spec: &str| {
        let object = governors::object(kind, "renamed", spec).to_string();
        control_plane.kubectl_apply(&object).await.map(drop).map_err(|error| format!("{error:#}"))
    };
    let mut wrong = Vec::new();
    for (kind, spec, field, _) in renamed::FIELDS {
        let case = format!("{kind} {field}");
        expect_refusal(&mut wrong, &case, apply(kind, spec).await, &[&format!("unknown field \"{field}\"")]);
    }
    for (kind, spec, field, new) in renamed::VALUES {
        let said = [&*format!("{field}: Unsupported value"), &format!("\"{new}\"")];
        expect_refusal(&mut wrong, spec, apply(kind, spec).await, &said);
    }
    for (status, field, _) in renamed::STATUS {
        let object = format!("{{metadata: {{name: a}}, spec: {{displayName: Shop}}, status: {status}}}");
        let answer = control_plane.kubectl_apply(&schema::registration(&object).to_string()).await;
        let answer = answer.map(drop).map_err(|error| format!("{error:#}"));
        expect_refusal(&mut wrong, field, answer, &[&format!("unknown field \"{field}\"")]);
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn what_is_fixed_stays_fixed_and_the_rest_may_be_edited() {
    let registrations = registrations().await;
    let mut wrong = Vec::new();
    for (number, (case, before, after, said)) in FIXED.iter().enumerate() {
        let answer = change(&registrations, &format!("fixed-{number}"), before, after).await;
        expect_refusal(&mut wrong, case, answer, said);
    }
    for (number, (case, before, after)) in CHANGES.iter().enumerate() {
        if let Err(message) = change(&registrations, &format!("change-{number}"), before, after).await {
            wrong.push(format!("{case}: should be accepted, but: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn a_stored_registration_has_no_defaults_and_a_status_that_says_not_observed() {
    let registrations = registrations().await;
    let stored = registrations.create(&PostParams::default(), &object("bare", "{}")).await.unwrap();
    assert_eq!(stored.data["spec"], json!({"displayName": "Shop"}));
    assert_eq!(stored.data["status"], json!({"observedGeneration": -1}));

    // What is null is dropped rather than stored.
    let nulls =
        "{scopes: null, apis: null, clientType: null, customerScope: null, credentials: null, deletionPolicy: null}";
    let stored = registrations.create(&PostParams::default(), &object("nulls", nulls)).await.unwrap();
    assert_eq!(stored.data["spec"], json!({"displayName": "Shop"}));
    let read: AppRegistration = stored.try_parse().unwrap();
    assert_eq!(read.status.unwrap().observed_generation, Some(-1));
}

#[tokio::test]
async fn kubectl_shows_readiness_client_id_and_next_rotation_and_selects_by_client_id() {
    let registrations = registrations().await;
    let mut object =
        registrations.create(&PostParams::default(), &object("shown", "{clientID: shop.a}")).await.unwrap();
    object.data["status"] = json!({
        "observedGeneration": 1, "clientID": "shop.a", "nextRotationTime": "2027-01-01T00:00:00Z",
        "authorizationServer": {"name": "default", "issuer": "https://i.example", "tokenEndpoint": "https://i.example/token"},
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Issued", "message": "ok", "lastTransitionTime": "2026-11-22T07:00:00Z"},
            {"type": "Approved", "status": "False", "reason": "ApprovalRequired", "message": "no", "lastTransitionTime": "2026-11-22T07:00:00Z"},
        ],
    });
    registrations.replace_status("shown", &PostParams::default(), &object).await.unwrap();

    let namespace = object.metadata.namespace.unwrap();
    let control_plane = harness::shared().await;
    let wide = ["get", "appreg", "-n", &namespace, "-o", "wide", "--field-selector", "spec.clientID=shop.a"];
    let table = control_plane.kubectl(&wide).await.unwrap().ok().unwrap();
    let cells = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    assert_eq!(cells[0], "NAME READY CLIENT ID APPROVED NEXT ROTATION AGE PROBLEM SERVER MESSAGE");
    let [age] = cells[1].split(' ').filter(|cell| cell.ends_with('s')).collect::<Vec<_>>()[..] else {
        panic!("{table}")
    };
    assert_eq!(cells[1], format!("shown True shop.a False 2027-01-01T00:00:00Z {age} no default ok"));

    let other = ["get", "appreg-all", "-n", &namespace, "-o", "name", "--field-selector", "spec.clientID=shop.b"];
    assert_eq!(control_plane.kubectl(&other).await.unwrap().ok().unwrap(), "");
}

async fn registrations() -> Api<DynamicObject> {
    let control_plane = harness::shared().await;
    let client = control_plane.client("admin");
    apply_crds(&client).await;
    let namespace = control_plane.namespace("rules").await.unwrap();
    Api::namespaced_with(client, &namespace, &ApiResource::erase::<AppRegistration>(&()))
}

async fn apply_crds(client: &Client) {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in crds::all() {
        let name = crd.metadata.name.clone().unwrap();
        api.patch(&name, &PatchParams::apply("tests").force(), &Patch::Apply(&crd)).await.unwrap();
        harness::eventually("the CRD is established", async || {
            let crd = api.get(&name).await.map_err(|error| error.to_string())?;
            let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
            let established = conditions.iter().any(|c| c.type_ == "Established" && c.status == "True");
            if established { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
    }
}

/// A dry run of a creation; the error is the message of the API server.
async fn create(registrations: &Api<DynamicObject>, name: &str, spec: &str) -> Result<(), String> {
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    let object = object(name, spec);
    let answer = registrations.create(&dry_run, &object).await.map_err(message)?;
    // Unknown fields vanish silently: a typo in a case would test nothing.
    assert_eq!(answer.data["spec"], object.data["spec"], "fields vanished");
    Ok(())
}

/// A creation that must succeed, and the dry run of a change.
async fn change(registrations: &Api<DynamicObject>, name: &str, before: &str, after: &str) -> Result<(), String> {
    let created = registrations.create(&PostParams::default(), &object(name, before)).await.map_err(message)?;
    let mut changed = object(name, after);
    changed.metadata.resource_version = created.metadata.resource_version;
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    registrations.replace(name, &dry_run, &changed).await.map(|_| ()).map_err(message)
}

fn object(name: &str, spec: &str) -> DynamicObject {
    let mut object = DynamicObject::new(name, &ApiResource::erase::<AppRegistration>(&()));
    object.data = json!({"spec": schema::spec(spec)});
    object
}

fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => format!("not an answer of the API server: {other}"),
    }
}
