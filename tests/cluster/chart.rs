//! The chart, with a real helm on a real API server: what it renders, installs, upgrades and leaves behind. Its values are
//! in `chart_values.rs`.
//!
//! No pod runs here. That each right is used, and each that is used is given, is shown where the programs run with the
//! chart's service accounts.

use std::collections::BTreeSet;

use appreg::{
    api::{AppRegistration, crds},
    config::{Config, Policy},
    signer::Algorithm,
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
        core::v1::{ConfigMap, Namespace, Pod, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectMeta, PostParams},
};
use serde_json::{Value, json};

use crate::harness::eventually::{PATIENCE, holds};
use crate::harness::{self, ControlPlane, Controllers, Options, eventually, eventually_within};

pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/appreg");
pub(crate) const NAMESPACE: &str = "appreg-system";
const LEDGER: &str = "appreg-ledger";

/// What `helm <verb> appreg <chart>` printed.
pub(crate) async fn helm(plane: &ControlPlane, verb: &str, sets: &[&str]) -> Result<String, String> {
    let mut args = vec![verb, "appreg", CHART, "--namespace", NAMESPACE];
    if verb == "install" {
        args.push("--create-namespace");
    }
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    let output = plane.helm(&args).await.unwrap();
    if output.success() { Ok(output.stdout) } else { Err(output.stderr) }
}

/// The objects that the chart renders.
pub(crate) async fn rendered(sets: &[&str]) -> Vec<Value> {
    objects(&helm(harness::shared().await, "template", sets).await.unwrap())
}

/// The objects in what `helm template` printed.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    text.split("\n---\n").map(|document| serde_yaml::from_str(document).unwrap()).collect()
}

pub(crate) fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let object = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "two of {kind} {name}");
    object
}

pub(crate) fn configuration(objects: &[Value]) -> Config {
    Config::parse(object(objects, "ConfigMap", "appreg")["data"]["appreg.yaml"].as_str().unwrap()).unwrap()
}

/// `--flag` of `--flag=value`, for those that are flags.
fn flag(text: &str) -> Option<String> {
    let text = text.trim_start().split([' ', '=']).next()?;
    text.starts_with("--").then(|| text.to_owned())
}

#[tokio::test]
async fn helm_lint_finds_nothing_even_when_it_is_strict() {
    let output = harness::shared().await.helm(&["lint", "--strict", CHART]).await.unwrap();
    assert!(output.success(), "{}{}", output.stdout, output.stderr);
}

#[tokio::test]
async fn the_configuration_that_the_chart_writes_is_one_that_the_program_reads() {
    let config = configuration(&rendered(&[]).await);
    assert_eq!(config.server.issuer, "https://appreg-token-service.appreg-system.svc");
    assert_eq!(
        config.server.serving_names,
        ["appreg-token-service.appreg-system.svc", "appreg-token-service.appreg-system.svc.cluster.local"]
    );
    assert_eq!(config.server.signing_algorithm, Algorithm::default());
    for algorithm in Algorithm::ALL {
        let config = configuration(&rendered(&[&format!("authorizationServer.signingAlgorithm={algorithm}")]).await);
        assert_eq!(config.server.signing_algorithm, algorithm);
    }
    assert_eq!(config.policy, Policy::default());
    assert_eq!(config.server.forwarded_certificates, None, "nobody is believed unless named");

    let config = configuration(
        &rendered(&[
            "authorizationServer.issuer=https://auth.example",
            "authorizationServer.defaultAudience=https://api.example",
            "authorizationServer.accessTokenLifetime=10m",
            "authorizationServer.servingNames={auth.internal,10.1.2.3}",
            "policy.scopes={orders:*}",
            "policy.apis[0].audiences={https://api.example}",
            "policy.durations.certificate.max=30d",
            "policy.durations.certificate.default=30d",
            "authorizationServer.forwardedCertificates.header=ssl-client-cert",
            "authorizationServer.forwardedCertificates.proxies={10.1.2.0/24,fd00::1}",
        ])
        .await,
    );
    assert_eq!(config.server.issuer, "https://auth.example");
    assert_eq!(config.server.default_audience(), "https://api.example");
    assert_eq!(config.server.access_token_lifetime.to_string(), "10m");
    assert_eq!(config.server.serving_names[2..], ["auth.internal", "10.1.2.3"]);
    assert!(config.server.forwarded_certificates.unwrap().is_proxy("10.1.2.3".parse().unwrap()));
    assert_eq!(config.policy.scopes, ["orders:*"]);
    assert_eq!(config.policy.apis.len(), 1);
    assert_eq!(config.policy.apis[0].audiences, ["https://api.example"]);
    assert_eq!(config.policy.durations.certificate.max.to_string(), "30d");
}

#[tokio::test]
async fn the_definitions_that_the_chart_writes_are_those_of_the_program_and_are_kept() {
    let objects = rendered(&[]).await;
    for crd in crds::all() {
        let written = object(&objects, "CustomResourceDefinition", &crd.name_any());
        assert_eq!(written["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
        let written: CustomResourceDefinition = serde_json::from_value(written.clone()).unwrap();
        assert!(written.spec == crd.spec, "{} is another one after the template", crd.name_any());
    }
    let objects = rendered(&["crds.enabled=false", "ledger.createNamespace=false"]).await;
    assert!(objects.iter().all(|o| o["kind"] != "CustomResourceDefinition" && o["kind"] != "Namespace"));

    let objects = rendered(&["crds.keep=false"]).await;
    for crd in crds::all() {
        let annotations = &object(&objects, "CustomResourceDefinition", &crd.name_any())["metadata"]["annotations"];
        assert_eq!(annotations["helm.sh/resource-policy"], Value::Null);
    }
    let namespace = object(&objects, "Namespace", LEDGER);
    assert_eq!(namespace["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", "the ledger stays in any case");
}

#[tokio::test]
async fn the_chart_passes_every_flag_that_the_program_has_and_no_other() {
    let objects = rendered(&[]).await;
    for component in ["controller", "token-service"] {
        let deployment = object(&objects, "Deployment", &format!("appreg-{component}"));
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        let args: Vec<&str> = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        assert_eq!(args[0], component);
        let passed: BTreeSet<String> = args[1..].iter().filter_map(|arg| flag(arg)).collect();
        assert_eq!(passed.len(), args.len() - 1, "{args:?}");

        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_appreg")).args([component, "--help"]).output();
        let help = String::from_utf8(output.await.unwrap().stdout).unwrap();
        let known: BTreeSet<String> = help.lines().filter_map(flag).collect();
        assert_eq!(passed, known);
    }
}

#[tokio::test]
async fn nobody_reaches_the_pods_but_whom_the_network_policies_name() {
    let objects = rendered(&["networkPolicy.scrapers[0].namespaceSelector.matchLabels.team=metrics"]).await;
    let ingress = |objects: &[Value], name| object(objects, "NetworkPolicy", name)["spec"]["ingress"].clone();
    let scrapers =
        json!({"ports": [{"port": "admin"}], "from": [{"namespaceSelector": {"matchLabels": {"team": "metrics"}}}]});
    let clients = json!({"ports": [{"port": "https"}], "from": [{"namespaceSelector": {}}]});
    assert_eq!(ingress(&objects, "appreg-controller"), json!([scrapers]));
    assert_eq!(ingress(&objects, "appreg-token-service"), json!([clients, scrapers]));

    // An empty list is nobody, never everybody.
    let objects = rendered(&["networkPolicy.clients=null"]).await;
    assert_eq!(ingress(&objects, "appreg-controller"), Value::Null);
    assert_eq!(ingress(&objects, "appreg-token-service"), Value::Null);
    let objects = rendered(&["networkPolicy.enabled=false"]).await;
    assert!(objects.iter().all(|object| object["kind"] != "NetworkPolicy"));
}

/// Every object of the release, as `kind/name`, that is still there.
async fn objects_of_the_release(plane: &ControlPlane) -> Vec<String> {
    let kinds = "ns,crd,deploy,svc,sa,cm,role,rolebinding,clusterrole,clusterrolebinding,netpol,pdb";
    let selector = "app.kubernetes.io/instance=appreg,app.kubernetes.io/name=appreg";
    let output = plane.kubectl(&["get", kinds, "-A", "-l", selector, "-o", "name"]).await.unwrap().ok().unwrap();
    output.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn an_upgrade_and_a_new_installation_go_on_with_the_registrations_and_the_ledger_that_are_there() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client("admin");
    helm(&plane, "install", &[]).await.unwrap();
    let installed = objects_of_the_release(&plane).await;
    assert!(installed.len() > 15, "{installed:?}");

    let other = ["install", "other", CHART, "--namespace", "other", "--create-namespace"];
    let refusal = plane.helm(&other).await.unwrap();
    assert!(!refusal.success() && refusal.stderr.contains("invalid ownership"), "{}", refusal.stderr);

    // Something to lose.
    let registrations: Api<AppRegistration> = Api::namespaced(client.clone(), "default");
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let entries: Api<Secret> = Api::namespaced(client.clone(), LEDGER);
    let example = include_str!("../../examples/name-only.yaml");
    eventually("the definition is served", async || plane.kubectl_apply(example).await).await;
    let entry = Secret {
        metadata: ObjectMeta { name: Some("client-a".to_owned()), ..Default::default() },
        ..Default::default()
    };
    entries.create(&PostParams::default(), &entry).await.unwrap();
    let uids = async || {
        [
            registrations.get("newsletter").await.unwrap().uid().unwrap(),
            definitions.get("appregistrations.appreg.dev").await.unwrap().uid().unwrap(),
            entries.get("client-a").await.unwrap().uid().unwrap(),
        ]
    };
    let before = uids().await;

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let generations = async || {
        let list = deployments.list(&ListParams::default()).await.unwrap();
        list.iter().map(|d| (d.name_any(), d.metadata.generation.unwrap())).collect::<Vec<_>>()
    };
    let first = generations().await;
    assert_eq!(first.len(), 2);
    helm(&plane, "upgrade", &[]).await.unwrap();
    assert_eq!(generations().await, first, "the same values restart nothing");

    helm(&plane, "upgrade", &["tokenService.replicaCount=3", "policy.scopes={orders:*}"]).await.unwrap();
    let configuration: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let text = configuration.get("appreg").await.unwrap().data.unwrap().remove("appreg.yaml").unwrap();
    assert_eq!(Config::parse(&text).unwrap().policy.scopes, ["orders:*"]);
    assert_eq!(deployments.get("appreg-token-service").await.unwrap().spec.unwrap().replicas, Some(3));
    let second = generations().await;
    assert!(second.iter().zip(&first).all(|(now, then)| now.1 > then.1), "another configuration is other pods");

    let refusal = helm(&plane, "upgrade", &["log.format=xml"]).await.unwrap_err();
    assert!(refusal.contains("/log/format"), "{refusal}");
    assert_eq!(generations().await, second, "a refused upgrade changes nothing");
    assert_eq!(uids().await, before);

    plane.helm(&["uninstall", "appreg", "--namespace", NAMESPACE]).await.unwrap().ok().unwrap();
    let crds = crds::all();
    let names = crds.iter().map(|crd| format!("customresourcedefinition.apiextensions.k8s.io/{}", crd.name_any()));
    let mut kept: Vec<_> = std::iter::once("namespace/appreg-ledger".to_owned()).chain(names).collect();
    kept[1..].sort();
    eventually("only what is kept is left", async || {
        let left = objects_of_the_release(&plane).await;
        holds(left == kept, || format!("{left:?}"))
    })
    .await;
    assert_eq!(uids().await, before);

    helm(&plane, "install", &[]).await.unwrap();
    assert_eq!(objects_of_the_release(&plane).await, installed);
    assert_eq!(uids().await, before);

    // Without crds.keep, an uninstall takes the definitions and the registrations, but never the ledger.
    helm(&plane, "upgrade", &["crds.keep=false"]).await.unwrap();
    assert_eq!(uids().await, before);
    plane.helm(&["uninstall", "appreg", "--namespace", NAMESPACE]).await.unwrap().ok().unwrap();
    // The API server removes the objects of each definition first, one definition after another.
    eventually_within(2 * PATIENCE, "only the ledger is left", async || {
        let left = objects_of_the_release(&plane).await;
        holds(left == kept[..1], || format!("{left:?}"))
    })
    .await;
    entries.get("client-a").await.unwrap();
    assert!(definitions.get_opt("appregistrations.appreg.dev").await.unwrap().is_none());
}

/// Whether somebody may do something; the resource as its group and its name with subresource, as in a role.
async fn may(client: &Client, user: &str, verb: &str, (group, resource): (&str, &str), namespace: &str) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(user.to_owned()),
            resource_attributes: Some(ResourceAttributes {
                verb: Some(verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource: Some(subresource.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        },
        ..Default::default()
    };
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
}

#[tokio::test]
async fn each_account_and_each_person_may_do_what_is_meant_for_them_and_no_more() {
    let controllers = Controllers::BasicAnd(vec!["clusterrole-aggregation-controller"]);
    let plane = ControlPlane::start_with(Options { controllers, ..Options::default() }).await.unwrap();
    let client = plane.client("admin");
    helm(&plane, "install", &[]).await.unwrap();
    for role in ["view", "edit"] {
        let (role, user) = (format!("--clusterrole={role}"), format!("--user={role}er"));
        plane
            .kubectl(&["create", "rolebinding", &role[14..], &role, &user, "-n", "default"])
            .await
            .unwrap()
            .ok()
            .unwrap();
    }
    // The cluster's role "edit" is put together after "view".
    eventually("the aggregated roles are there", async || {
        let both = may(&client, "editer", "get", ("appreg.dev", "appregistrations"), "default").await
            && may(&client, "editer", "create", ("appreg.dev", "appregistrations"), "default").await;
        holds(both, || "not yet".to_owned())
    })
    .await;

    let controller = "system:serviceaccount:appreg-system:appreg-controller";
    let token_service = "system:serviceaccount:appreg-system:appreg-token-service";
    for (user, group, resource, namespace, allowed) in [
        (controller, "appreg.dev", "appregistrations", "default", "get list watch"),
        (controller, "appreg.dev", "appregistrations/status", "default", "update"),
        (controller, "", "secrets", "default", "get list watch create update delete"),
        (controller, "", "secrets", LEDGER, "get list watch create update delete"),
        (controller, "events.k8s.io", "events", "default", "create"),
        (controller, "", "configmaps", NAMESPACE, ""),
        (controller, "", "namespaces", "", "list watch"),
        (controller, "appreg.dev", "registrationpolicies", "", "list watch"),
        (controller, "appreg.dev", "registrationpolicies/status", "", "update"),
        (controller, "appreg.dev", "registrationapprovals", "", "get list watch"),
        (controller, "appreg.dev", "authorizationservers", "", "list watch"),
        (controller, "appreg.dev", "authorizationservers/status", "", "update"),
        (controller, "", "pods", "default", ""),
        (controller, "rbac.authorization.k8s.io", "clusterroles", "", ""),
        // By name alone, which this question does not give.
        (controller, "apiextensions.k8s.io", "customresourcedefinitions", "", ""),
        (token_service, "", "secrets", LEDGER, "get list watch"),
        (token_service, "", "secrets", NAMESPACE, ""),
        (token_service, "", "secrets", "default", ""),
        (token_service, "", "configmaps", LEDGER, ""),
        (token_service, "appreg.dev", "appregistrations", "default", ""),
        ("viewer", "appreg.dev", "appregistrations", "default", "get list watch"),
        ("viewer", "appreg.dev", "appregistrations/status", "default", ""),
        ("viewer", "", "secrets", LEDGER, ""),
        (
            "editer",
            "appreg.dev",
            "appregistrations",
            "default",
            "get list watch create update patch delete deletecollection",
        ),
        ("editer", "appreg.dev", "appregistrations/status", "default", ""),
        ("editer", "appreg.dev", "appregistrations", NAMESPACE, ""),
        ("editer", "", "secrets", LEDGER, ""),
    ] {
        let mut found = Vec::new();
        for verb in ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "escalate"] {
            if may(&client, user, verb, (group, resource), namespace).await {
                found.push(verb);
            }
        }
        assert_eq!(found.join(" "), allowed, "{user}: {resource} in {namespace:?}");
    }
}

#[tokio::test]
async fn the_pods_meet_the_restricted_pod_security_standard() {
    let plane = ControlPlane::start().await.unwrap();
    let client = plane.client("admin");
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.to_owned());
    namespace.labels_mut().insert("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned());
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let anonymous = ["podSecurityContext.runAsUser=null", "podSecurityContext.runAsGroup=null"];
    for (verb, sets) in [("install", &[][..]), ("upgrade", &anonymous)] {
        helm(&plane, verb, sets).await.unwrap();
        admits_the_pods_as_restricted(&client).await;
    }
}

/// Every pod of the release is admitted, and none without its hardening.
async fn admits_the_pods_as_restricted(client: &Client) {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let dry_run = PostParams { dry_run: true, ..Default::default() };
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    for deployment in deployments.list(&ListParams::default()).await.unwrap() {
        let template = deployment.spec.as_ref().unwrap().template.clone();
        let mut metadata = template.metadata.unwrap();
        metadata.name = Some(deployment.name_any());
        let mut pod = Pod { metadata, spec: template.spec, ..Default::default() };
        pods.create(&dry_run, &pod).await.unwrap();
        // And the standard is in force.
        pod.spec.as_mut().unwrap().containers[0].security_context = None;
        let refusal = pods.create(&dry_run, &pod).await.unwrap_err().to_string();
        assert!(refusal.contains("allowPrivilegeEscalation"), "{refusal}");
    }
}
