//! The controller dies before and after every single write, or never hears that a write succeeded.
//!
//! Each case is a registration in a namespace of its own; a proxy between the controller and the API server cuts at the
//! k-th write of the workload. Whatever happened, the end is that of a run without a fault, and the applications'
//! promises hold throughout.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use jiff::Timestamp;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, Fault, Observer, Operator, Proxy, Request, Rule, Running, Side, eventually,
    eventually::holds,
    eventually_within,
    operator::LEDGER,
    permissive,
    registrations::{self, change, create, settle, settled},
};

const BINARY: &str = env!("CARGO_BIN_EXE_appreg");
const NAME: &str = "storefront";
const SOON: Duration = Duration::from_mins(1);
/// How long nothing must be written once everything has been done.
const QUIET: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_killed_before_or_after_any_write_ends_where_an_undisturbed_one_does_s1_to_s4() {
    let plane = ControlPlane::start().await.unwrap();
    let mut bench = Bench::start(&plane).await;
    let mut failures = Vec::new();
    let mut cases = 0;
    for workload in Workload::ALL {
        let undisturbed = bench.run(workload, None).await.unwrap();
        println!("{workload}: {} writes, {:?}", undisturbed.writes.len(), undisturbed.writes);
        for k in 0..undisturbed.writes.len() {
            for side in [Side::BeforeRequest, Side::AfterCommitBeforeReply] {
                cases += 1;
                let blow = Blow { k, side, then: Then::Kill };
                let case = format!("{workload}: killed {side:?} of {}", undisturbed.writes[k]);
                failures
                    .extend(bench.compare(workload, blow, &undisturbed).await.err().map(|e| format!("{case}: {e:#}")));
            }
        }
    }
    println!("{cases} cases in {:?}; {}", bench.started.elapsed(), bench.observer.summary());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    bench.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_that_never_hears_of_a_write_ends_where_an_undisturbed_one_does_s1_to_s4() {
    let plane = ControlPlane::start().await.unwrap();
    let mut bench = Bench::start(&plane).await;
    let mut failures = Vec::new();
    for workload in Workload::ALL {
        let undisturbed = bench.run(workload, None).await.unwrap();
        for k in 0..undisturbed.writes.len() {
            let blow = Blow { k, side: Side::AfterCommitBeforeReply, then: Then::GoOn };
            let case = format!("{workload}: no reply to {}", undisturbed.writes[k]);
            failures.extend(bench.compare(workload, blow, &undisturbed).await.err().map(|e| format!("{case}: {e:#}")));
        }
    }
    println!("in {:?}; {}", bench.started.elapsed(), bench.observer.summary());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    bench.finish().await;
}

/// What is going on when the controller is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Workload {
    FirstMint,
    Rotation,
    Revocation,
    Removal,
    /// The end of an overlap, of which the last write of a rotation is the beginning.
    Retirement,
}

impl Workload {
    /// The last one leaves registrations that rotate by themselves, so that it must be the last.
    const ALL: [Self; 5] = [Self::FirstMint, Self::Rotation, Self::Revocation, Self::Removal, Self::Retirement];

    fn spec(self) -> Value {
        let mut web = json!({"name": "web", "effectiveDuration": "24h", "clientSecret": {}});
        if self == Self::Retirement {
            // An overlap of 3 s: a tenth of the lifetime is added. It rotates by itself after 17 s at the earliest.
            web["effectiveDuration"] = json!("20s");
            web["renewBefore"] = json!("1s");
            return json!({"displayName": "Storefront", "credentials": [web]});
        }
        json!({"displayName": "Storefront", "scopes": ["orders:read"], "credentials": [
            web,
            {"name": "mtls", "effectiveDuration": "24h", "secretName": "storefront-mtls",
             "certificate": {"privateKey": {"algorithm": "ECDSA", "size": 256}}},
            {"name": "api", "effectiveDuration": "1h", "accessToken": {"scopes": ["orders:read"]}},
        ]})
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A fault at the k-th write of a workload.
#[derive(Clone, Copy, Debug)]
struct Blow {
    k: usize,
    side: Side,
    then: Then,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Kill,
    GoOn,
}

/// What came of a run.
#[derive(Debug)]
struct End {
    writes: Vec<String>,
    objects: Value,
    /// How many values of each entry a Secret has shown.
    published: BTreeMap<&'static str, usize>,
}

/// One control plane, one operator whose controller is behind a proxy, one observer.
struct Bench<'a> {
    plane: &'a ControlPlane,
    client: kube::Client,
    operator: Operator<'a>,
    proxy: Proxy,
    controller: Option<Running>,
    _token_service: Running,
    observer: Observer,
    started: Instant,
}

impl<'a> Bench<'a> {
    async fn start(plane: &'a ControlPlane) -> Self {
        let started = Instant::now();
        let sets = permissive(&["policy.durations.clientSecret.min=5s", "policy.durations.certificate.min=5s"]);
        let mut operator = Operator::install(plane, BINARY, &sets).await.unwrap();
        let proxy = Proxy::start(plane).await.unwrap();
        let controller = Some(operator.controller(&proxy).await.unwrap());
        let token_service = operator.token_service(plane).await.unwrap();
        let observer = Observer::start(plane).await.unwrap();
        let client = plane.client("admin");
        Self { plane, client, operator, proxy, controller, _token_service: token_service, observer, started }
    }

    /// Runs a workload with a fault, and compares its end.
    async fn compare(&mut self, workload: Workload, blow: Blow, undisturbed: &End) -> Result<()> {
        let end = self.run(workload, Some(blow)).await?;
        ensure!(
            end.objects == undisturbed.objects,
            "the objects differ\nundisturbed {:#}\ndisturbed {:#}",
            undisturbed.objects,
            end.objects
        );
        ensure!(
            end.published == undisturbed.published,
            "published {:?} values instead of {:?}",
            end.published,
            undisturbed.published
        );
        // What was committed before the blow may have to be done again, and a lost revision costs one ledger write.
        let most = undisturbed.writes.len() + blow.k + 2;
        ensure!(end.writes.len() <= most, "{} writes: {:?}", end.writes.len(), end.writes);
        Ok(())
    }

    async fn run(&mut self, workload: Workload, blow: Option<Blow>) -> Result<End> {
        let namespace = self.plane.namespace("case").await?;
        if workload != Workload::FirstMint {
            create(&self.client, &namespace, NAME, &workload.spec()).await?;
            settle(&self.client, &namespace, NAME, SOON).await;
        }
        let since = if workload == Workload::Retirement { Some(self.rotate(&namespace).await?) } else { None };
        self.proxy.forget();
        let injected = blow.map(|blow| {
            let fault = match blow.then {
                Then::Kill => Fault::Freeze(blow.side),
                Then::GoOn => Fault::Drop(blow.side),
            };
            let namespace = namespace.clone();
            self.proxy.inject(Rule::new(fault, move |request| is_of(request, &namespace)).nth(blow.k))
        });
        let since = match since {
            Some(since) => since,
            None => self.trigger(workload, &namespace).await?,
        };
        if let Some(injected) = injected {
            injected.fired(SOON).await?;
            if blow.is_some_and(|blow| blow.then == Then::Kill) {
                self.controller.take().context("it runs")?.process.kill();
                self.proxy.thaw();
                drop(injected);
                self.controller = Some(self.operator.controller(&self.proxy).await?);
            }
        }
        let objects = self.end(workload, &namespace, since).await?;
        let writes = self.proxy.writes().iter().filter(|r| is_of(r, &namespace)).map(shown).collect();
        let violations = self.observer.violations();
        let mine: Vec<_> = violations.into_iter().filter(|violation| violation.contains(&namespace)).collect();
        ensure!(mine.is_empty(), "{}", mine.join("\n"));
        let published = ["web", "mtls"].map(|entry| (entry, self.observer.published(&namespace, entry).len())).into();
        if workload == Workload::Retirement {
            self.observer.ending(&namespace, None);
            registrations::api(&self.client, &namespace).delete(NAME, &DeleteParams::default()).await?;
        }
        Ok(End { writes, objects, published })
    }

    /// Begins a workload, and says from when on what it mints is new.
    async fn trigger(&mut self, workload: Workload, namespace: &str) -> Result<Timestamp> {
        let since = Timestamp::now();
        match workload {
            Workload::FirstMint => create(&self.client, namespace, NAME, &workload.spec()).await?,
            Workload::Rotation => return self.rotate(namespace).await,
            Workload::Revocation => {
                let mark = next_second().await;
                self.observer.revoking(namespace, "web");
                self.observer.revoking(namespace, "mtls");
                change(&self.client, namespace, NAME, &json!({"revokeMintedBefore": mark.to_string()})).await?;
                return Ok(mark);
            }
            Workload::Removal => {
                self.observer.ending(namespace, Some("mtls"));
                let mut spec = workload.spec();
                spec["credentials"].as_array_mut().context("entries")?.retain(|entry| entry["name"] != "mtls");
                change(&self.client, namespace, NAME, &spec).await?;
            }
            Workload::Retirement => bail!("it begins by itself"),
        }
        Ok(since)
    }

    /// Has everything rotated; for a retirement, until it is all done.
    async fn rotate(&self, namespace: &str) -> Result<Timestamp> {
        let mark = next_second().await;
        change(&self.client, namespace, NAME, &json!({"rotateMintedBefore": mark.to_string()})).await?;
        let is_short = registrations::read(&self.client, namespace, NAME).await?["spec"]["credentials"][0]["effectiveDuration"]
            == "20s";
        if is_short {
            eventually_within(SOON, "the status shows the rotation", async || {
                let registration = settled(&self.client, namespace, NAME).await?;
                ensure!(!registration["status"]["credentials"][0]["previous"].is_null(), "no previous yet");
                Ok(())
            })
            .await;
        }
        Ok(mark)
    }

    /// Waits until a workload is done, and returns what there is, without what differs from run to run.
    async fn end(&self, workload: Workload, namespace: &str, since: Timestamp) -> Result<Value> {
        let deadline = Instant::now() + SOON;
        loop {
            let problem = match self.is_done(workload, namespace, since).await {
                Ok(()) => return objects(&self.client, namespace).await,
                Err(problem) => problem,
            };
            if Instant::now() > deadline {
                let log = self.controller.as_ref().map(|running| running.process.log_tail(15)).unwrap_or_default();
                let writes: Vec<_> = self.proxy.writes().iter().map(ToString::to_string).collect();
                bail!("not done after {SOON:?}: {problem:#}\n{}\n{log}", writes.join("\n"));
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    async fn is_done(&self, workload: Workload, namespace: &str, since: Timestamp) -> Result<()> {
        let registration = settled(&self.client, namespace, NAME).await?;
        let credentials = registration["status"]["credentials"].as_array().context("no credentials")?;
        let ledger = registrations::ledger(&self.client, namespace).await?;
        ensure!(ledger.len() == 1, "{} ledger entries", ledger.len());
        let revisions = |entry: &str| ledger[0]["credentials"][entry]["revisions"].as_array().cloned();
        let time = |text: &Value| text.as_str().and_then(|at| at.parse::<Timestamp>().ok());
        // A revision in the ledger, and in the status.
        let minted = |revision: &Value| time(&revision["mintedAt"]);
        let reported = |revision: &Value| time(&revision["mintedTime"]);
        match workload {
            Workload::FirstMint => {}
            Workload::Rotation => {
                let is_new = |c: &&Value| c["kind"] == "AccessToken" || reported(&c["current"]) >= Some(since);
                ensure!(credentials.iter().filter(is_new).count() == 3, "not all are rotated");
            }
            Workload::Revocation => {
                for entry in ["web", "mtls"] {
                    let old = revisions(entry).into_iter().flatten().filter(|r| minted(r) < Some(since)).count();
                    ensure!(old == 0, "{old} old revisions of {entry} are accepted");
                }
            }
            Workload::Removal => {
                ensure!(ledger[0]["credentials"]["mtls"].is_null(), "the ledger has the entry");
                ensure!(registrations::secrets(&self.client, namespace).await?.len() == 2, "the Secret is there");
            }
            Workload::Retirement => {
                let old = revisions("web").into_iter().flatten().filter(|r| minted(r) < Some(since)).count();
                ensure!(old == 0, "{old} old revisions are accepted");
                ensure!(credentials[0]["previous"].is_null(), "the status shows a previous one");
            }
        }
        Ok(())
    }

    /// Nothing is written any more, what was revoked is refused, and nothing was violated; then the observer itself is
    /// tried.
    async fn finish(self) {
        eventually("what was revoked or retired is refused", async || {
            let left = self.observer.not_yet_refused();
            holds(left.is_empty(), || left.join(", "))
        })
        .await;
        self.proxy.forget();
        tokio::time::sleep(QUIET).await;
        // Retirement's registrations are deleted, and swept half a minute later.
        let writes: Vec<_> =
            self.proxy.writes().iter().filter(|r| r.method != http::Method::DELETE).map(ToString::to_string).collect();
        assert!(writes.is_empty(), "not quiet:\n{}", writes.join("\n"));
        self.observer.assert_no_violation();
        assert_eq!(self.observer.gaps(), 0);
    }
}

/// A write that counts: of one of the case's objects or of its ledger entry. Sweeps come from cases before.
fn is_of(request: &Request, namespace: &str) -> bool {
    let in_ledger = request.path.starts_with(&format!("/api/v1/namespaces/{LEDGER}/secrets"));
    let in_case = request.path.contains(&format!("/namespaces/{namespace}/")) && !request.path.contains("/events");
    request.is_write() && (in_case || in_ledger && request.method != http::Method::DELETE)
}

fn shown(request: &Request) -> String {
    let place =
        if request.path.contains(LEDGER) { "ledger" } else { request.path.rsplit('/').next().unwrap_or_default() };
    format!("{} {place}", request.method)
}

/// The beginning of the next second, which has come: everything was minted before it, and nothing new is.
async fn next_second() -> Timestamp {
    let now = Timestamp::now();
    let mark = Timestamp::from_second(now.as_second() + 1).expect("no overflow");
    tokio::time::sleep(Duration::try_from(mark.duration_since(now)).unwrap_or_default()).await;
    mark
}

/// What stands in the cluster, without times, numbers and random bytes.
async fn objects(client: &kube::Client, namespace: &str) -> Result<Value> {
    let registration = registrations::read(client, namespace, NAME).await?;
    let uid = registration["metadata"]["uid"].as_str().context("a uid")?.to_owned();
    let mut status = registration["status"].clone();
    let is_there = |value: &Value| json!(!value.is_null());
    for credential in status["credentials"].as_array_mut().into_iter().flatten() {
        for field in ["current", "previous"] {
            credential[field] = is_there(&credential[field]);
        }
    }
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastTransitionTime"].take();
    }
    for secret in status["secrets"].as_array_mut().into_iter().flatten() {
        secret["resourceVersion"].take();
    }
    status["nextRotationTime"] = is_there(&status["nextRotationTime"]);
    let mut secrets = BTreeMap::new();
    for secret in registrations::secrets(client, namespace).await? {
        secrets.insert(secret.metadata.name.clone().unwrap_or_default(), secret_without_values(&secret)?);
    }
    let mut ledger = registrations::ledger(client, namespace).await?;
    for entry in &mut ledger {
        entry["createdAt"].take();
        // Lost revisions stay until they age out, with numbers of their own.
        for credential in entry["credentials"].as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
            credential["nextRevision"].take();
            credential["revisions"].take();
            credential["revokedBefore"] = is_there(&credential["revokedBefore"]);
        }
        entry["revokedBefore"] = is_there(&entry["revokedBefore"]);
    }
    let all = json!({"status": status, "secrets": secrets, "ledger": ledger}).to_string();
    Ok(serde_json::from_str(&all.replace(&uid, "<uid>").replace(namespace, "<namespace>"))?)
}

fn secret_without_values(secret: &k8s_openapi::api::core::v1::Secret) -> Result<Value> {
    let mut annotations = secret.metadata.annotations.clone().unwrap_or_default();
    annotations.remove("appreg.dev/connection"); // a digest with the client ID in it
    let published = annotations.remove("appreg.dev/published").context("the annotation")?;
    let mut published: BTreeMap<String, Value> = serde_json::from_str(&published)?;
    for entry in published.values_mut() {
        *entry = json!({"current": entry["current"].is_u64(), "previous": entry["previous"].is_u64()});
    }
    let public = |name: &str| {
        let random = ["client_secret", "previous_client_secret", "tls.crt", "tls.key", "access_token", "expires_at"];
        !random.contains(&name)
    };
    let fields: BTreeMap<_, _> = secret
        .data
        .iter()
        .flatten()
        .map(|(name, bytes)| {
            let text = String::from_utf8_lossy(&bytes.0).into_owned();
            (name.clone(), if public(name) { text } else { "…".to_owned() })
        })
        .collect();
    let owners = secret.metadata.owner_references.as_ref().map_or(0, Vec::len);
    Ok(json!({
        "type": secret.type_, "labels": secret.metadata.labels, "annotations": annotations, "owners": owners,
        "published": published, "fields": fields,
    }))
}
