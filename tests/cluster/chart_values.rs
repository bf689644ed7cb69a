//! The chart's values, with a real helm: each has its effect, and a bad one is refused by its name.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::chart::{CHART, helm};
use crate::harness;

#[tokio::test]
async fn a_bad_value_is_refused_by_its_name() {
    for (set, named) in [
        ("serverr.issuer=https://auth.example", "'serverr'"),
        ("authorizationServer.isuer=https://auth.example", "'isuer'"),
        ("authorizationServer.issuer=http://auth.example", "/authorizationServer/issuer"),
        ("authorizationServer.issuer=https://auth.example/", "/authorizationServer/issuer"),
        ("authorizationServer.accessTokenLifetime=60", "/authorizationServer/accessTokenLifetime"),
        ("authorizationServer.signingAlgorithm=HS256", "/authorizationServer/signingAlgorithm"),
        ("authorizationServer.servingNames={https://auth.example}", "/authorizationServer/servingNames/0"),
        ("policy.clientSecret.max=1y", "/policy/clientSecret/max"),
        ("policy.kinds={password}", "/policy/kinds/0"),
        ("policy.scopes=orders:read", "/policy/scopes"),
        ("ledger.namespace=appreg/ledger", "/ledger/namespace"),
        // The token service reads the whole of the ledger's namespace.
        ("ledger.namespace=appreg-system", "ledger.namespace"),
        ("controller.concurrency=64", "/controller/concurrency"),
        ("tokenService.replicas=0", "/tokenService/replicas"),
        ("image.repository=", "/image/repository"),
        ("image.digest=latest", "/image/digest"),
        ("pods.runAsUser=0", "/pods/runAsUser"),
        ("pods.bindAddress=localhost", "/pods/bindAddress"),
        ("log.format=xml", "/log/format"),
        ("networkPolicy.clients={everybody}", "/networkPolicy/clients/0"),
        ("fullnameOverride=Appreg", "/fullnameOverride"),
    ] {
        let refusal = helm(harness::shared().await, "template", &[set]).await.expect_err(set);
        assert!(refusal.contains(named), "{set}: {refusal}");
    }
}

/// Every value, as another one than in `values.yaml`, and what must then be seen in the objects.
const VALUES: &[(&str, &str)] = &[
    ("fullnameOverride=zebra", "name: zebra-controller"),
    ("image.repository=registry.example/zebra", "image: \"registry.example/zebra:"),
    ("image.tag=v9", ":v9@sha256:"),
    (
        "image.digest=sha256:0123456789012345678901234567890123456789012345678901234567890123",
        "@sha256:0123456789012345678901234567890123456789012345678901234567890123\"",
    ),
    ("image.pullPolicy=Always", "imagePullPolicy: Always"),
    ("image.pullSecrets[0].name=registry", "- name: registry\n"),
    ("crds.install=true", "kind: CustomResourceDefinition"),
    ("ledger.namespace=kube-public", "--ledger-namespace=kube-public"),
    ("ledger.createNamespace=true", "kind: Namespace"),
    ("authorizationServer.issuer=https://auth.example", "issuer: https://auth.example"),
    ("authorizationServer.defaultAudience=https://api.example", "defaultAudience: https://api.example"),
    ("authorizationServer.accessTokenLifetime=59m", "accessTokenLifetime: 59m"),
    ("authorizationServer.signingAlgorithm=EdDSA", "signingAlgorithm: EdDSA"),
    ("authorizationServer.servingNames={auth.internal}", "- auth.internal"),
    ("authorizationServer.forwardedCertificates.header=ssl-client-cert", "header: ssl-client-cert"),
    ("authorizationServer.forwardedCertificates.proxies={10.9.8.7/32}", "- 10.9.8.7/32"),
    ("authorizationServer.clusterDomain=cluster.example", "zebra-token-service.default.svc.cluster.example"),
    ("policy.scopes={scope-1}", "- scope-1"),
    ("policy.audiences={audience-1}", "- audience-1"),
    ("policy.resourceAudiences={resource-1}", "- resource-1"),
    ("policy.customers={customer-1}", "- customer-1"),
    ("policy.customerGroups={group-1}", "- group-1"),
    ("policy.redirectURIs.hosts={redirect.example}", "- redirect.example"),
    ("policy.redirectURIs.schemes={https}", "schemes:\n        - https\n"),
    ("policy.enabled=false", "enabled: false"),
    ("policy.clientIDs={client-1}", "- client-1"),
    ("policy.dnsNames={name-1}", "- name-1"),
    ("policy.kinds={certificate}", "kinds:\n      - certificate\n"),
    ("policy.clientSecret.min=61s", "min: 61s"),
    ("policy.clientSecret.default=62d", "default: 62d"),
    ("policy.clientSecret.max=63d", "max: 63d"),
    ("policy.certificate.min=64s", "min: 64s"),
    ("policy.certificate.default=65d", "default: 65d"),
    ("policy.certificate.max=66d", "max: 66d"),
    ("policy.accessToken.min=67s", "min: 67s"),
    ("policy.accessToken.default=68m", "default: 68m"),
    ("policy.accessToken.max=69m", "max: 69m"),
    ("controller.concurrency=17", "--concurrency=17"),
    ("controller.resources.requests.memory=49Mi", "memory: 49Mi"),
    ("controller.resources.requests.cpu=21m", "cpu: 21m"),
    ("controller.resources.limits.memory=257Mi", "memory: 257Mi"),
    ("tokenService.replicas=5", "replicas: 5"),
    ("tokenService.connections=1000000", "--connections=1000000"),
    ("tokenService.connectionsPerAddress=257", "--connections-per-address=257"),
    ("tokenService.failuresPerClient=2", "--failures-per-client=2"),
    ("tokenService.failuresPerAddress=11", "--failures-per-address=11"),
    ("tokenService.serviceAnnotations.topology=near", "topology: near"),
    ("tokenService.resources.requests.memory=33Mi", "memory: 33Mi"),
    ("tokenService.resources.requests.cpu=22m", "cpu: 22m"),
    ("tokenService.resources.limits.memory=193Mi", "memory: 193Mi"),
    ("pods.bindAddress=[::]", "--listen=[::]:8443"),
    ("pods.runAsUser=65533", "runAsUser: 65533"),
    ("pods.nodeSelector.disk=fast", "disk: fast"),
    ("pods.tolerations[0].operator=Exists", "- operator: Exists"),
    ("pods.priorityClassName=system-cluster-critical", "priorityClassName: system-cluster-critical"),
    ("pods.annotations.note=annotated", "note: annotated"),
    ("pods.labels.team=labelled", "team: labelled"),
    ("log.level=warn\\,appreg=debug", "--log-level=warn,appreg=debug"),
    ("log.format=text", "--log-format=text"),
    ("networkPolicy.enabled=true", "kind: NetworkPolicy"),
    ("networkPolicy.clients[0].ipBlock.cidr=10.1.0.0/16", "cidr: 10.1.0.0/16"),
    ("networkPolicy.scrapers[0].ipBlock.cidr=10.2.0.0/16", "cidr: 10.2.0.0/16"),
    ("networkPolicy.apiServerPorts={8444}", "- {port: 8444}"),
    ("rbac.aggregate=true", "aggregate-to-view"),
];

/// The paths of all values that are not themselves made of values.
fn leaves(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(value, &path, found);
            }
        }
        _ => assert!(found.insert(path.to_owned())),
    }
}

#[tokio::test]
async fn every_value_has_its_effect_and_all_together_are_accepted_by_the_api_server() {
    let plane = harness::shared().await;
    // Namespaces that every cluster has: a dry run makes none.
    let mut args = vec!["template", "appreg", CHART, "--namespace", "default"];
    args.extend(VALUES.iter().flat_map(|(set, _)| ["--set", set]));
    let text = plane.helm(&args).await.unwrap().ok().unwrap();
    for (set, seen) in VALUES {
        assert!(text.contains(seen), "{set}: no {seen} in\n{text}");
    }

    let mut known = BTreeSet::new();
    let values = std::fs::read_to_string(format!("{CHART}/values.yaml")).unwrap();
    leaves(&serde_yaml::from_str(&values).unwrap(), "", &mut known);
    let path = |set: &str| set.split(['=', '[']).next().unwrap_or_default().to_owned();
    // Of a map with names of the user's own, the table has one.
    let shown =
        |leaf: &String| VALUES.iter().any(|(set, _)| path(set) == *leaf || path(set).starts_with(&format!("{leaf}.")));
    let forgotten: Vec<&String> = known.iter().filter(|leaf| !shown(leaf)).collect();
    assert!(forgotten.is_empty(), "not in the table: {forgotten:?}");

    let file = plane.directory().join("every-value.yaml");
    std::fs::write(&file, text).unwrap();
    let args = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", &file.to_string_lossy()];
    plane.kubectl(&args).await.unwrap().ok().unwrap();
}
