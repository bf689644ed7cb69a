//! The ground under the other tests: that the control plane is real, counts exactly, breaks on demand, and is gone.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use expect_test::expect;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ListParams, PostParams, WatchParams},
};

use crate::harness::{
    Audit, ControlPlane, Controllers, Fault, Options, Program, Proxy, Rule, Side, audit::counted, eventually,
    eventually::holds, eventually_within, shared,
};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_control_plane_starts_and_stops_and_leaves_nothing() {
    let started = Instant::now();
    let plane = ControlPlane::start().await.unwrap();
    let ready = started.elapsed();
    let directory = plane.directory().to_owned();
    let pids: Vec<u32> = plane.processes().iter().map(|process| process.pid()).collect();
    assert_eq!(pids.len(), 3, "etcd, kube-apiserver, kube-controller-manager");
    let version = plane.kubectl(&["version", "-o", "json"]).await.unwrap().ok().unwrap();
    assert_eq!(version.matches(r#""gitVersion": "v1.36"#).count(), 2, "client and server: {version}");
    for process in plane.processes() {
        let usage = process.usage().unwrap();
        assert!(usage.peak_memory >= usage.memory && usage.memory > 1_000_000, "{usage:?}");
    }

    let stopping = Instant::now();
    drop(plane);
    let gone = stopping.elapsed();

    assert_eq!(processes_that_mention(&directory), Vec::<String>::new());
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "{pids:?}");
    assert!(!directory.exists());
    assert!(ready < Duration::from_secs(30) && gone < Duration::from_secs(5), "started {ready:?}, stopped {gone:?}");
}

#[tokio::test]
async fn nothing_is_left_of_a_parent_that_was_killed() {
    let scratch = tempfile::tempdir().unwrap();
    let own_binary = std::env::current_exe().unwrap();
    let parent = Program::new("parent", own_binary, scratch.path())
        .args(["--exact", "control_plane::the_parent_of_the_test_above_and_nothing_by_itself", "--nocapture"])
        .env("KUBEBUILDER_ASSETS", shared().await.program(""))
        .env(IS_PARENT, "1")
        .start()
        .unwrap();
    let line = parent.wait_for_line("directory=", Duration::from_mins(1)).await.unwrap();
    let directory = Path::new(line.split_once('=').unwrap().1);
    let alive = processes_that_mention(directory);
    assert!(alive.len() >= 3, "{alive:?}");

    parent.kill(); // this process alone, not its group

    eventually_within(Duration::from_secs(10), "no process and no directory is left", async || {
        let alive = processes_that_mention(directory);
        holds(alive.is_empty() && !directory.exists(), || format!("{alive:?}"))
    })
    .await;
}

/// Makes a run of this test binary the parent that the test above kills.
const IS_PARENT: &str = "APPREG_TEST_IS_PARENT";

#[tokio::test]
async fn the_parent_of_the_test_above_and_nothing_by_itself() {
    if std::env::var_os(IS_PARENT).is_none() {
        return;
    }
    let plane = ControlPlane::start().await.unwrap();
    println!("\ndirectory={}", plane.directory().display());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn rbac_is_on_and_each_user_is_itself() {
    let plane = shared().await;
    let namespace = plane.namespace("rbac").await.unwrap();
    let list = async |client: Client| {
        let secrets: Api<Secret> = Api::namespaced(client, &namespace);
        secrets.list(&ListParams::default()).await.map_err(status_code)
    };

    assert_eq!(list(plane.client("nobody")).await.err(), Some(403));
    assert_eq!(list(plane.client_for_token("not-a-token")).await.err(), Some(401));
    assert!(list(plane.client("admin")).await.is_ok());

    let binding = format!(
        r#"{{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {{"name": "viewers", "namespace": "{namespace}"}},
            "roleRef": {{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"}},
            "subjects": [{{"kind": "User", "name": "observer"}}, {{"kind": "User", "name": "jane"}},
                         {{"kind": "ServiceAccount", "name": "default", "namespace": "{namespace}"}}]}}"#
    );
    plane.kubectl_apply(&binding).await.unwrap();
    let token = eventually("the namespace has a ServiceAccount", async || {
        plane.token_for_service_account(&namespace, "default").await
    })
    .await;

    for (who, client) in [
        ("a token user", plane.client("observer")),
        ("somebody impersonated", plane.impersonating("jane", &[])),
        ("a ServiceAccount", plane.client_for_token(&token)),
    ] {
        eventually(who, async || list(client.clone()).await.map_err(|code| format!("{who}: {code}"))).await;
    }
    let refused = plane.kubectl_as("nobody", &["get", "secrets", "-n", &namespace]).await.unwrap();
    assert!(!refused.success() && refused.stderr.contains("Forbidden"), "{refused:?}");
    assert_eq!(mode(&plane.kubeconfig("observer")), 0o600);
}

#[tokio::test]
async fn helm_installs_into_it() {
    let plane = shared().await;
    let namespace = plane.namespace("helm").await.unwrap();
    let chart = tempfile::tempdir().unwrap();
    fs::write(chart.path().join("Chart.yaml"), "apiVersion: v2\nname: tiny\nversion: 0.1.0\nkubeVersion: '>=1.32.0'\n")
        .unwrap();
    fs::create_dir(chart.path().join("templates")).unwrap();
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tiny}\n";
    fs::write(chart.path().join("templates/it.yaml"), template).unwrap();

    let path = chart.path().to_string_lossy();
    plane.helm(&["install", "tiny", &path, "-n", &namespace, "--wait"]).await.unwrap().ok().unwrap();

    let maps: Api<ConfigMap> = Api::namespaced(plane.client("admin"), &namespace);
    assert!(maps.get_opt("tiny").await.unwrap().is_some());
    plane.helm(&["uninstall", "tiny", "-n", &namespace]).await.unwrap().ok().unwrap();
    assert!(maps.get_opt("tiny").await.unwrap().is_none());
}

#[tokio::test]
async fn the_audit_log_counts_every_request_once() {
    let options = Options { audit: Audit::Everyone, controllers: Controllers::Off, ..Options::default() };
    let plane = ControlPlane::start_with(options).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(plane.client("admin"));
    maps.create(&PostParams::default(), &map("before")).await.unwrap();
    let watch = maps.watch(&WatchParams::default(), "0").await.unwrap();
    let mark = plane.audit().mark().await.unwrap();

    for number in 0..50 {
        maps.create(&PostParams::default(), &map(&format!("map-{number}"))).await.unwrap();
    }
    let _conflict = maps.create(&PostParams::default(), &map("map-0")).await.unwrap_err();
    maps.get("map-7").await.unwrap();
    maps.list(&ListParams::default()).await.unwrap();
    maps.delete("map-7", &DeleteParams::default()).await.unwrap();
    let other = maps.watch(&WatchParams::default(), "0").await.unwrap();
    drop((watch, other)); // both complete now; one began after the mark
    let denied: Api<ConfigMap> = Api::default_namespaced(plane.client("nobody"));
    denied.get("map-7").await.unwrap_err();

    let counted_events = counted(&plane.audit().of_since("admin", mark).await.unwrap());
    expect![[r"
        50 create configmaps
        1 create configmaps 409
        1 delete configmaps
        1 get configmaps
        1 list configmaps
        1 watch configmaps
    "]]
    .assert_eq(&counted_events);
    let events = plane.audit().of_since("nobody", mark).await.unwrap();
    expect!["1 get configmaps 403\n"].assert_eq(&counted(&events));
    assert_eq!((events[0].namespace.as_str(), events[0].name.as_str()), ("default", "map-7"));
    let quiet = plane.audit().mark().await.unwrap();
    assert_eq!(plane.audit().of_since("admin", quiet).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_deleted_owner_owned_is_collected() {
    let plane = shared().await;
    let namespace = plane.namespace("collected").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(plane.client("admin"), &namespace);
    let owner = maps.create(&PostParams::default(), &map("owner")).await.unwrap();
    let mut owned = map("owned");
    owned.metadata.owner_references = Some(vec![kube::Resource::controller_owner_ref(&owner, &()).unwrap()]);
    maps.create(&PostParams::default(), &owned).await.unwrap();

    maps.delete("owner", &DeleteParams::default()).await.unwrap();

    eventually("the owned object is gone", async || {
        let left = maps.get_opt("owned").await.map_err(|error| error.to_string())?;
        holds(left.is_none(), || "it is still there".to_owned())
    })
    .await;
}

#[tokio::test]
async fn it_survives_restarts_and_a_freeze_with_its_data() {
    let plane =
        ControlPlane::start_with(Options { controllers: Controllers::Off, ..Options::default() }).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(plane.client("admin"));
    maps.create(&PostParams::default(), &map("kept")).await.unwrap();

    plane.freeze_api_server().unwrap();
    tokio::time::timeout(Duration::from_millis(300), maps.get("kept")).await.expect_err("a frozen server is silent");
    plane.thaw_api_server().unwrap();
    maps.get("kept").await.unwrap();

    plane.stop_api_server();
    assert!(maps.get("kept").await.is_err());
    plane.start_api_server().await.unwrap();
    maps.get("kept").await.unwrap();

    plane.restart_etcd().await.unwrap();
    eventually("the object survives etcd's restart", async || maps.get("kept").await).await;
}

#[tokio::test]
async fn a_cut_before_the_request_loses_it_and_one_after_the_commit_loses_the_reply() {
    let plane = shared().await;
    let namespace = plane.namespace("cut").await.unwrap();
    let proxy = Proxy::start(plane).await.unwrap();
    let direct: Api<ConfigMap> = Api::namespaced(plane.client("admin"), &namespace);

    for (side, committed) in [(Side::BeforeRequest, false), (Side::AfterCommitBeforeReply, true)] {
        let cut = proxy.cut(1, side, |request| request.resource() == "configmaps");
        let name = move |n: usize| format!("{side:?}-{n}").to_lowercase();
        // The victim writes one after the other and, like a process, keeps no connection when it is killed.
        let maps: Api<ConfigMap> = Api::namespaced(proxy.client("admin"), &namespace);
        let victim = tokio::spawn(async move {
            for number in 0..3 {
                let _ = maps.create(&PostParams::default(), &map(&name(number))).await;
            }
        });
        let request = cut.fired(SOON).await.unwrap();
        assert_eq!((request.committed, request.status), (committed, None), "{request}");
        assert_eq!(request.namespace(), namespace);
        victim.abort();
        proxy.thaw();

        assert!(direct.get_opt(&name(0)).await.unwrap().is_some());
        assert_eq!(direct.get_opt(&name(1)).await.unwrap().is_some(), committed, "{side:?}");
        assert!(direct.get_opt(&name(2)).await.unwrap().is_none());
        assert_eq!(cut.matched(), 2);
    }
    assert_eq!(proxy.writes().len(), 4);
    let again: Api<ConfigMap> = Api::namespaced(proxy.client("admin"), &namespace);
    assert_eq!(
        again.list(&ListParams::default()).await.unwrap().items.iter().filter(|map| map.data.is_some()).count(),
        3
    );
}

#[tokio::test]
async fn the_proxy_drops_delays_and_answers_in_the_servers_place() {
    let plane = shared().await;
    let namespace = plane.namespace("faults").await.unwrap();
    let proxy = Proxy::start(plane).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(proxy.client("admin"), &namespace);
    let create =
        async |name: &str| maps.create(&PostParams::default(), &map(name)).await.map(drop).map_err(status_code);
    let only =
        |name: &'static str| move |request: &crate::harness::Request| request.name() == name || request.is_write();

    let unavailable = proxy.inject(Rule::new(Fault::Answer(Side::BeforeRequest, 503), only("-")).first(2));
    assert_eq!((create("a").await, create("a").await, create("a").await), (Err(503), Err(503), Ok(())));
    drop(unavailable);

    let lost = proxy.inject(Rule::new(Fault::Drop(Side::AfterCommitBeforeReply), only("-")).nth(0));
    assert_eq!((create("b").await, create("b").await), (Err(0), Err(409)));
    assert!(lost.hit()[0].committed);
    drop(lost);

    let timed_out = proxy.inject(Rule::new(Fault::Answer(Side::AfterCommitBeforeReply, 504), only("-")).nth(0));
    assert_eq!((create("c").await, create("c").await), (Err(504), Err(409)));
    drop(timed_out);

    let late = proxy.inject(Rule::new(Fault::Delay(Duration::from_millis(300)), only("-")));
    let started = Instant::now();
    assert_eq!(create("d").await, Ok(()));
    assert!(started.elapsed() >= Duration::from_millis(300));
    drop(late);

    let codes: Vec<_> = proxy.writes().iter().map(|request| request.status.unwrap_or(0)).collect();
    assert_eq!(codes, [503, 503, 201, 0, 409, 504, 409, 201]);
}

#[tokio::test]
async fn a_watch_through_the_proxy_is_streamed_held_frozen_and_reset() {
    use futures::TryStreamExt;
    let plane = shared().await;
    let namespace = plane.namespace("watched").await.unwrap();
    let proxy = Proxy::start(plane).await.unwrap();
    let direct: Api<ConfigMap> = Api::namespaced(plane.client("admin"), &namespace);
    let proxied: Api<ConfigMap> = Api::namespaced(proxy.client("admin"), &namespace);
    let from = proxied.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let watch = proxied.watch(&WatchParams::default(), &from).await.unwrap();
    let mut watch = std::pin::pin!(watch);
    let a_moment = Duration::from_millis(200);

    let mut next = async |what: &str, within: Duration| {
        tokio::time::timeout(within, watch.try_next()).await.map_err(|_| what.to_owned())
    };
    direct.create(&PostParams::default(), &map("streamed")).await.unwrap();
    assert!(next("streamed", SOON).await.unwrap().unwrap().is_some());

    let gate = proxy.hold_watches(|request| request.resource() == "configmaps");
    direct.create(&PostParams::default(), &map("held")).await.unwrap();
    proxied.get("held").await.unwrap();
    next("held back", a_moment).await.unwrap_err();
    drop(gate);
    assert!(next("released", SOON).await.unwrap().unwrap().is_some());

    proxy.freeze();
    direct.create(&PostParams::default(), &map("frozen")).await.unwrap();
    next("frozen", a_moment).await.unwrap_err();
    tokio::time::timeout(a_moment, proxied.get("held")).await.unwrap_err();
    proxy.thaw();
    assert!(next("thawed", SOON).await.unwrap().unwrap().is_some());

    proxy.reset(crate::harness::Request::is_watch);
    let ended = next("reset", SOON).await.unwrap();
    assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    proxied.get("held").await.unwrap();
}

fn map(name: &str) -> ConfigMap {
    let data = [("a".to_owned(), "b".to_owned())].into();
    let mut map = ConfigMap { data: Some(data), ..ConfigMap::default() };
    map.metadata.name = Some(name.to_owned());
    map
}

/// 0 where there was no answer.
fn status_code(error: Error) -> u16 {
    match error {
        Error::Api(status) => status.code,
        _ => 0,
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}/cmdline")).exists()
}

/// Command lines of living processes that name `directory`; a zombie has none.
fn processes_that_mention(directory: &Path) -> Vec<String> {
    let directory = directory.to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
        .filter(|line| line.contains(directory))
        .collect()
}
