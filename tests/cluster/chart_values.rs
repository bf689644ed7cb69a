//! The chart's values, with a real helm: each has its effect, a bad one is refused by its name, one with an old name is
//! refused with the new one, and a parent chart can have this chart as a part.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::chart::{CHART, NAMESPACE, configuration, helm, object, objects, rendered};
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
        ("policy.durations.clientSecret.max=1y", "/policy/durations/clientSecret/max"),
        ("policy.durations.publicKey.min=1h", "'min'"),
        ("policy.credentialKinds={password}", "/policy/credentialKinds/0"),
        ("policy.credentialKinds={clientSecret}", "/policy/credentialKinds/0"),
        ("policy.privateKeys[0].algorithm=ECDSAP256", "/policy/privateKeys/0/algorithm"),
        ("policy.deletionPolicies={Keep}", "/policy/deletionPolicies/0"),
        ("policy.limits.registrationsPerNamespace=-1", "/policy/limits/registrationsPerNamespace"),
        ("policy.scopes=orders:read", "/policy/scopes"),
        ("policy.apis={https://api.example}", "/policy/apis/0"),
        ("policy.apis[0].scopes={a}", "'audiences'"),
        ("ledger.namespace=appreg/ledger", "/ledger/namespace"),
        // The token service reads the whole of the ledger's namespace.
        ("ledger.namespace=appreg-system", "ledger.namespace"),
        ("controller.concurrency=64", "/controller/concurrency"),
        ("tokenService.replicaCount=0", "/tokenService/replicaCount"),
        ("tokenService.service.type=ExternalName", "/tokenService/service/type"),
        ("image.repository=", "/image/repository"),
        ("image.digest=latest", "/image/digest"),
        ("bindAddress=localhost", "/bindAddress"),
        ("controller.extraArgs={controller}", "/controller/extraArgs/0"),
        ("affinity.zone=a", "'zone'"),
        ("tolerations[0].tolerate=all", "'tolerate'"),
        ("topologySpreadConstraints[0].maxSkew=1", "/topologySpreadConstraints/0"),
        // What the chart sets itself.
        ("commonLabels.app\\.kubernetes\\.io/name=other", "/commonLabels/app.kubernetes.io~1name"),
        ("podLabels.app\\.kubernetes\\.io/component=other", "/podLabels/app.kubernetes.io~1component"),
        ("controller.podLabels.helm\\.sh/chart=other", "/controller/podLabels/helm.sh~1chart"),
        ("podAnnotations.appreg\\.dev/configuration=other", "/podAnnotations/appreg.dev~1configuration"),
        // Hardening.
        ("podSecurityContext=null", "'podSecurityContext'"),
        ("podSecurityContext.runAsNonRoot=false", "/podSecurityContext/runAsNonRoot"),
        ("podSecurityContext.runAsNonRoot=null", "'runAsNonRoot'"),
        ("podSecurityContext.runAsUser=0", "/podSecurityContext/runAsUser"),
        ("podSecurityContext.seccompProfile.type=Unconfined", "/podSecurityContext/seccompProfile/type"),
        ("podSecurityContext.seccompProfile=null", "'seccompProfile'"),
        ("securityContext=null", "'securityContext'"),
        ("securityContext.allowPrivilegeEscalation=true", "/securityContext/allowPrivilegeEscalation"),
        ("securityContext.allowPrivilegeEscalation=null", "'allowPrivilegeEscalation'"),
        ("securityContext.readOnlyRootFilesystem=false", "/securityContext/readOnlyRootFilesystem"),
        ("securityContext.capabilities=null", "'capabilities'"),
        ("securityContext.capabilities.drop={NET_RAW}", "/securityContext/capabilities/drop"),
        ("securityContext.capabilities.add={NET_ADMIN}", "'add'"),
        ("securityContext.privileged=true", "/securityContext/privileged"),
        // A credential in the environment.
        (
            "controller.extraEnv[0].name=A,controller.extraEnv[0].valueFrom.secretKeyRef.name=a",
            "/controller/extraEnv/0/valueFrom/secretKeyRef",
        ),
        ("log.format=xml", "/log/format"),
        ("networkPolicy.clients={everybody}", "/networkPolicy/clients/0"),
        ("fullnameOverride=Appreg", "/fullnameOverride"),
        ("nameOverride=Appreg", "/nameOverride"),
    ] {
        let refusal = helm(harness::shared().await, "template", &[set]).await.expect_err(set);
        assert!(refusal.contains(named), "{set}: {refusal}");
    }
}

/// Values as they were called once: one that has it, what helm names, and the new names.
const OLD_NAMES: &[(&str, &str, &[&str])] = &[
    ("crds.install=false", "/crds/install", &["crds.enabled"]),
    ("image.pullSecrets[0].name=registry", "/image/pullSecrets", &["imagePullSecrets"]),
    ("server.issuer=https://auth.example", "/server", &["authorizationServer"]),
    ("tokenService.replicas=3", "/tokenService/replicas", &["tokenService.replicaCount"]),
    ("tokenService.serviceAnnotations.a=b", "/tokenService/serviceAnnotations", &["tokenService.service.annotations"]),
    ("pods.bindAddress=[::]", "/pods", &["bindAddress"]),
    ("pods.runAsUser=65533", "/pods", &["runAsUser", "podSecurityContext"]),
    ("pods.nodeSelector.disk=fast", "/pods", &["nodeSelector"]),
    ("pods.tolerations[0].operator=Exists", "/pods", &["tolerations"]),
    ("pods.priorityClassName=high", "/pods", &["priorityClassName"]),
    ("pods.annotations.a=b", "/pods", &["podAnnotations"]),
    ("pods.labels.a=b", "/pods", &["podLabels"]),
    ("log.filter=debug", "/log/filter", &["log.level"]),
    ("policy.audiences={*}", "/policy/audiences", &["policy.apis"]),
    ("policy.resourceAudiences={*}", "/policy/resourceAudiences", &["policy.servedAudiences"]),
    ("policy.kinds={clientSecret}", "/policy/kinds", &["policy.credentialKinds", "ClientSecret"]),
    ("policy.clientSecret.min=1h", "/policy/clientSecret", &["policy.durations.clientSecret"]),
    ("policy.certificate.min=1h", "/policy/certificate", &["policy.durations.certificate"]),
    ("policy.accessToken.min=1h", "/policy/accessToken", &["policy.durations.accessToken"]),
];

#[tokio::test]
async fn a_value_with_an_old_name_is_refused_with_the_new_one() {
    for (set, old, new) in OLD_NAMES {
        let refusal = helm(harness::shared().await, "template", &[set]).await.expect_err(set);
        let line = refusal.lines().find(|line| line.contains(&format!("at '{old}': value must be 'absent: ")));
        let line = line.unwrap_or_else(|| panic!("{set}: {refusal}"));
        assert!(new.iter().all(|new| line.contains(new)), "{set}: {line}");
    }
}

/// Every value, as another one than in `values.yaml` where there is one, and what must then be seen in the objects.
const VALUES: &[(&str, &str)] = &[
    ("nameOverride=horse", "app.kubernetes.io/name: horse"),
    ("fullnameOverride=zebra", "name: zebra-controller"),
    ("commonLabels.department=common", "department: common"),
    ("image.repository=registry.example/zebra", "image: \"registry.example/zebra:"),
    ("image.tag=v9", ":v9@sha256:"),
    (
        "image.digest=sha256:0123456789012345678901234567890123456789012345678901234567890123",
        "@sha256:0123456789012345678901234567890123456789012345678901234567890123\"",
    ),
    ("image.pullPolicy=Always", "imagePullPolicy: Always"),
    ("imagePullSecrets[0].name=registry", "- name: registry\n"),
    ("crds.enabled=true", "kind: CustomResourceDefinition"),
    ("crds.keep=true", "helm.sh/resource-policy: keep\n  labels:"),
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
    ("policy.apis[0].audiences={api-1},policy.apis[0].scopes={scope-at-api-1}", "- scope-at-api-1"),
    ("policy.servedAudiences={served-1}", "- served-1"),
    ("policy.customers={customer-1}", "- customer-1"),
    ("policy.customerGroups={group-1}", "- group-1"),
    ("policy.redirectURIs.hosts={redirect.example}", "- redirect.example"),
    ("policy.redirectURIs.schemes={https}", "schemes:\n        - https\n"),
    ("policy.enabled=false", "enabled: false"),
    ("policy.clientIDs={client-1}", "- client-1"),
    ("policy.dnsNames={name-1}", "- name-1"),
    ("policy.grantTypes={authorization_code}", "grantTypes:\n      - authorization_code\n"),
    ("policy.tokenEndpointAuthMethods={none}", "tokenEndpointAuthMethods:\n      - none\n"),
    ("policy.credentialKinds={Certificate}", "credentialKinds:\n      - Certificate\n"),
    ("policy.privateKeys[0].algorithm=RSA,policy.privateKeys[0].minSize=3072", "minSize: 3072"),
    ("policy.deletionPolicies={Orphan}", "deletionPolicies:\n      - Orphan\n"),
    ("policy.durations.clientSecret.min=61s", "min: 61s"),
    ("policy.durations.clientSecret.default=62d", "default: 62d"),
    ("policy.durations.clientSecret.max=63d", "max: 63d"),
    ("policy.durations.certificate.min=64s", "min: 64s"),
    ("policy.durations.certificate.default=65d", "default: 65d"),
    ("policy.durations.certificate.max=66d", "max: 66d"),
    ("policy.durations.accessToken.min=67s", "min: 67s"),
    ("policy.durations.accessToken.default=68m", "default: 68m"),
    ("policy.durations.accessToken.max=69m", "max: 69m"),
    ("policy.durations.publicKey.max=70d", "max: 70d"),
    ("policy.limits.registrationsPerNamespace=71", "registrationsPerNamespace: 71"),
    ("policy.limits.credentials=7", "credentials: 7"),
    ("controller.concurrency=17", "--concurrency=17"),
    ("controller.resources.requests.memory=49Mi", "memory: 49Mi"),
    ("controller.resources.requests.cpu=21m", "cpu: 21m"),
    ("controller.resources.limits.memory=257Mi", "memory: 257Mi"),
    ("tokenService.replicaCount=5", "replicas: 5"),
    ("tokenService.connections=1000000", "--connections=1000000"),
    ("tokenService.connectionsPerAddress=257", "--connections-per-address=257"),
    ("tokenService.handshakesPerAddress=101", "--handshakes-per-address=101"),
    ("tokenService.ipv6AddressPrefix=56", "--ipv6-address-prefix=56"),
    ("tokenService.failuresPerClient=2", "--failures-per-client=2"),
    ("tokenService.failuresPerAddress=11", "--failures-per-address=11"),
    ("tokenService.service.type=NodePort", "type: NodePort"),
    ("tokenService.service.annotations.topology=near", "topology: near"),
    ("tokenService.resources.requests.memory=33Mi", "memory: 33Mi"),
    ("tokenService.resources.requests.cpu=22m", "cpu: 22m"),
    ("tokenService.resources.limits.memory=193Mi", "memory: 193Mi"),
    ("bindAddress=[::]", "--listen=[::]:8443"),
    ("podSecurityContext.runAsNonRoot=true", "runAsNonRoot: true"),
    ("podSecurityContext.runAsUser=65533", "runAsUser: 65533"),
    ("podSecurityContext.runAsGroup=65534", "runAsGroup: 65534"),
    ("podSecurityContext.seccompProfile.type=Localhost", "type: Localhost"),
    ("podSecurityContext.seccompProfile.localhostProfile=a.json", "localhostProfile: a.json"),
    ("podSecurityContext.fsGroup=1000650000", "fsGroup: 1000650000"),
    ("securityContext.allowPrivilegeEscalation=false", "allowPrivilegeEscalation: false"),
    ("securityContext.readOnlyRootFilesystem=true", "readOnlyRootFilesystem: true"),
    ("securityContext.capabilities.drop={ALL}", "drop:\n              - ALL"),
    ("securityContext.runAsUser=65535", "runAsUser: 65535"),
    ("log.level=warn\\,appreg=debug", "--log-level=warn,appreg=debug"),
    ("log.format=text", "--log-format=text"),
    ("networkPolicy.enabled=true", "kind: NetworkPolicy"),
    ("networkPolicy.clients[0].ipBlock.cidr=10.1.0.0/16", "cidr: 10.1.0.0/16"),
    ("networkPolicy.scrapers[0].ipBlock.cidr=10.2.0.0/16", "cidr: 10.2.0.0/16"),
    ("networkPolicy.apiServerPorts={8444}", "- {port: 8444}"),
    ("rbac.aggregate=true", "aggregate-to-view"),
];

/// Values of pods: common to both Deployments at the top level, or a component's own. `@` is where, WORD is whose.
const OF_PODS: &[(&str, &str)] = &[
    ("@podAnnotations.note=WORD-note", "note: WORD-note"),
    ("@podLabels.team=WORD-team", "team: WORD-team"),
    ("@nodeSelector.disk=WORD-disk", "disk: WORD-disk"),
    ("@tolerations[0].key=WORD-taint,@tolerations[0].operator=Exists", "- key: WORD-taint"),
    (
        "@affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=WORD-zone",
        "topologyKey: WORD-zone",
    ),
    (
        "@topologySpreadConstraints[0].topologyKey=WORD-rack,@topologySpreadConstraints[0].maxSkew=2,\
         @topologySpreadConstraints[0].whenUnsatisfiable=ScheduleAnyway",
        "topologyKey: WORD-rack",
    ),
    ("@priorityClassName=WORD-class", "priorityClassName: WORD-class"),
];

/// Values that each component has for itself alone.
const OF_A_COMPONENT: &[(&str, &str)] = &[
    ("@serviceAccount.annotations.role=WORD-role", "role: WORD-role"),
    ("@extraArgs={--more=WORD}", "- --more=WORD\n"),
    ("@extraEnv[0].name=ZONE,@extraEnv[0].value=WORD-value", "value: WORD-value"),
];

/// The rows of tables for one place.
fn rows(tables: &[&[(&str, &str)]], place: &str, word: &str) -> Vec<(String, String)> {
    let rows = tables.iter().copied().flatten();
    rows.map(|(set, seen)| (set.replace('@', place).replace("WORD", word), seen.replace("WORD", word))).collect()
}

/// What helm renders, in a namespace that every cluster has: a dry run makes none.
async fn rendered_in_default(values: &[(String, String)]) -> String {
    let mut args = vec!["template", "appreg", CHART, "--namespace", "default"];
    args.extend(values.iter().flat_map(|(set, _)| ["--set", set]));
    harness::shared().await.helm(&args).await.unwrap().ok().unwrap()
}

fn all_are_seen(text: &str, rows: &[(String, String)]) {
    for (set, seen) in rows {
        assert!(text.contains(seen), "{set}: no {seen} in\n{text}");
    }
}

fn all_are_hidden(text: &str, rows: &[(String, String)]) {
    for (set, seen) in rows {
        assert!(!text.contains(seen), "{set}: {seen} in\n{text}");
    }
}

/// The documents of one component, with its `ServiceAccount`.
fn of_component(text: &str, component: &str) -> String {
    let label = format!("app.kubernetes.io/component: {component}\n");
    text.split("\n---\n").filter(|document| document.contains(&label)).collect()
}

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
    let common = [rows(&[VALUES], "", ""), rows(&[OF_PODS], "", "common")].concat();
    let controller = rows(&[OF_PODS, OF_A_COMPONENT], "controller.", "minter");
    let token_service = rows(&[OF_PODS, OF_A_COMPONENT], "tokenService.", "asked");

    // What is common is seen where a component has nothing of its own.
    let text = rendered_in_default(&[common.clone(), controller.clone()].concat()).await;
    all_are_seen(&text, &common);
    all_are_seen(&of_component(&text, "controller"), &controller);
    all_are_hidden(&of_component(&text, "token-service"), &controller);

    let all = [common, controller, token_service.clone()].concat();
    let text = rendered_in_default(&all).await;
    all_are_seen(&of_component(&text, "token-service"), &token_service);
    all_are_hidden(&of_component(&text, "controller"), &token_service);
    all_are_hidden(&text, &rows(&[OF_PODS], "", "common"));

    let mut known = BTreeSet::new();
    let values = std::fs::read_to_string(format!("{CHART}/values.yaml")).unwrap();
    leaves(&serde_yaml::from_str(&values).unwrap(), "", &mut known);
    let path = |set: &str| set.split(['=', '[']).next().unwrap_or_default().to_owned();
    // Of a map with names of the user's own, the table has one.
    let shown =
        |leaf: &String| all.iter().any(|(set, _)| path(set) == *leaf || path(set).starts_with(&format!("{leaf}.")));
    let forgotten: Vec<&String> = known.iter().filter(|leaf| !shown(leaf)).collect();
    assert!(forgotten.is_empty(), "not in the table: {forgotten:?}");

    let plane = harness::shared().await;
    let file = plane.directory().join("every-value.yaml");
    std::fs::write(&file, text).unwrap();
    let args = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", &file.to_string_lossy()];
    plane.kubectl(&args).await.unwrap().ok().unwrap();
}

#[tokio::test]
async fn pods_spread_among_those_of_their_own_deployment_unless_a_constraint_says_otherwise() {
    let constraints = |objects: &[Value], name: &str| {
        object(objects, "Deployment", name)["spec"]["template"]["spec"]["topologySpreadConstraints"].clone()
    };
    let objects = rendered(&[]).await;
    for name in ["appreg-controller", "appreg-token-service"] {
        let own = &object(&objects, "Deployment", name)["spec"]["selector"];
        let constraints = constraints(&objects, name);
        let keys: Vec<_> = constraints.as_array().unwrap().iter().map(|each| &each["topologyKey"]).collect();
        assert_eq!(keys, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
        assert!(constraints.as_array().unwrap().iter().all(|each| each["labelSelector"] == *own), "{constraints}");
    }

    let rack = "topologySpreadConstraints[0].topologyKey=rack,topologySpreadConstraints[0].maxSkew=1,\
                topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule,\
                topologySpreadConstraints[0].labelSelector.matchLabels.team=shop";
    let chosen = json!([{
        "topologyKey": "rack",
        "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"team": "shop"}},
    }]);
    assert_eq!(constraints(&rendered(&[rack]).await, "appreg-token-service"), chosen);
    let none = rendered(&["topologySpreadConstraints=null"]).await;
    assert_eq!(constraints(&none, "appreg-token-service"), Value::Null);
}

#[tokio::test]
async fn common_labels_are_on_every_object_and_pod_and_select_nothing() {
    let objects = rendered(&["commonLabels.team=common", "tokenService.podLabels.team=own"]).await;
    for object in &objects {
        assert_eq!(object["metadata"]["labels"]["team"], "common", "{}", object["metadata"]["name"]);
    }
    for (name, team) in [("appreg-controller", "common"), ("appreg-token-service", "own")] {
        let spec = &object(&objects, "Deployment", name)["spec"];
        assert_eq!(spec["template"]["metadata"]["labels"]["team"], team);
        assert_eq!(spec["selector"]["matchLabels"].as_object().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn a_parent_chart_switches_it_on_and_off_and_hands_down_what_is_global() {
    let plane = harness::shared().await;
    let parent = plane.directory().join("parent");
    std::fs::create_dir_all(&parent).unwrap();
    let (repository, version) = (format!("file://{CHART}"), env!("CARGO_PKG_VERSION"));
    let dependency =
        json!({"name": "appreg", "version": version, "repository": repository, "condition": "appreg.enabled"});
    let chart = json!({"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]});
    let values = json!({
        "global": {"domain": "example.com", "imagePullSecrets": ["registry"]},
        "appreg": {"enabled": true, "authorizationServer": {"issuer": "https://auth.example"}},
    });
    for (file, content) in [("Chart.yaml", chart), ("values.yaml", values)] {
        std::fs::write(parent.join(file), content.to_string()).unwrap();
    }
    let parent = parent.to_string_lossy();
    plane.helm(&["dependency", "build", &parent]).await.unwrap().ok().unwrap();
    let template = async |set: &str| {
        plane.helm(&["template", "appreg", &parent, "--namespace", NAMESPACE, "--set", set]).await.unwrap()
    };

    let on = objects(&template("appreg.enabled=true").await.ok().unwrap());
    assert_eq!(configuration(&on).server.issuer, "https://auth.example");
    let alone = rendered(&["enabled=true", "global.domain=example.com"]).await;
    assert_eq!(on.len(), alone.len(), "the same objects as on its own");
    assert_eq!(template("appreg.enabled=false").await.ok().unwrap().trim(), "");

    let refusal = template("appreg.server.issuer=https://auth.example").await;
    assert!(!refusal.success());
    assert!(refusal.stderr.contains("its new name is authorizationServer"), "{}", refusal.stderr);
}
