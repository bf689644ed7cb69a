//! What replicas share: two token services on one API server, restarts, other writers, people who edit.

use std::sync::Arc;
use std::time::Duration;

use appreg::clock::ManualClock;
use appreg::kubernetes::version_of;
use appreg::kubernetes::watch::{Change, Item};
use appreg::shared_lists::{List, MOST_MARKS, Mark, NAMES, REVOKED_FIELD, USED_FIELD, end_seconds, index_of_client};
use appreg::token_service::follow::{Follower, Place, Served};
use appreg::token_service::lists::{Lists, MOST_USED, Writer};
use appreg::token_service::metrics::Metrics;
use appreg::token_service::refusal::Refusal;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::introspection::Stage;
use super::{CLIENT_SECRET, NAMESPACE, NOW, TokenService, secret};
use crate::fake_api::{FakeApi, Fault, Nth};

const ID: &str = "shop.storefront";

fn name() -> &'static str {
    NAMES[index_of_client(ID)]
}

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A field of the list of these tests' client.
fn field(api: &FakeApi, field: &str) -> List {
    let secret: Secret = api.object("secrets", NAMESPACE, name()).expect("the list");
    List::parse(secret.data.unwrap_or_default().get(field).map(|bytes| &*bytes.0)).list
}

async fn is_active(service: &TokenService, token: &str) -> bool {
    let answer = service.post_as("/introspect", "shop.api", &[("token", token)]).await;
    answer.json()["active"].as_bool().unwrap_or_else(|| panic!("{answer:?}"))
}

async fn revoked(service: &TokenService, token: &str) {
    let answer = service.post_as("/revoke", ID, &[("token", token)]).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
}

#[tokio::test]
async fn a_revocation_at_one_replica_holds_at_the_other_and_at_both_after_a_restart() {
    let stage = Stage::start().await;
    let mut other = stage.service.twin().await;
    let (token, kept) = (stage.token().await, stage.token().await);
    assert!(is_active(&other, &token).await, "verified, and remembered");
    revoked(&stage.service, &token).await;
    other.until("refused by the other", async || !is_active(&other, &token).await).await;
    let again = stage.token().await;
    revoked(&other, &again).await;
    stage.service.until("and the other way round", async || !stage.is_active(&again).await).await;
    other.end().await;
    for _ in 0..2 {
        let restarted = stage.service.twin().await;
        assert!(!is_active(&restarted, &token).await && !is_active(&restarted, &again).await);
        assert!(is_active(&restarted, &kept).await);
    }
}

#[tokio::test]
async fn two_replicas_that_write_at_once_lose_nothing() {
    let stage = Stage::start().await;
    let other = stage.service.twin().await;
    stage.service.api.hold_watches();
    let mut tokens = Vec::new();
    for n in 0..10 {
        let token = stage.token().await;
        revoked(if n % 2 == 0 { &stage.service } else { &other }, &token).await;
        tokens.push(token);
    }
    let list = field(&stage.service.api, REVOKED_FIELD);
    assert_eq!(list.len(), 10, "each writes over exactly what is there");
    let metrics = [stage.service.metrics().await, other.metrics().await].concat();
    assert!(metrics.contains(r#"list_writes_total{outcome="conflict"}"#), "{metrics}");
    stage.service.api.release_watches();
    for service in [&stage.service, &other] {
        for token in &tokens {
            service.until("refused", async || !is_active(service, token).await).await;
        }
    }
}

#[tokio::test]
async fn a_list_that_a_person_empties_edits_breaks_or_deletes_takes_nothing_back_and_is_restored() {
    let stage = Stage::start().await;
    let api = &stage.service.api;
    let (token, second) = (stage.token().await, stage.token().await);
    revoked(&stage.service, &token).await;
    revoked(&stage.service, &second).await;
    let written = field(api, REVOKED_FIELD);
    assert_eq!(written.len(), 2);
    let restored = async |what: &str| {
        stage.service.until(what, async || field(api, REVOKED_FIELD) == written).await;
        assert!(!stage.is_active(&token).await && !stage.is_active(&second).await, "{what}");
    };
    let one = written.iter().next().map(|(mark, until)| [(*mark, until)].into_iter().collect::<List>()).unwrap();
    let earlier: List = written.iter().map(|(mark, _)| (*mark, 1)).collect();
    let text = |bytes: &[u8]| json!(base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes));
    for (what, value) in [
        ("emptied", text(b"{}")),
        ("without its field", Value::Null),
        ("one taken out", text(&one.to_json())),
        ("ended early", text(&earlier.to_json())),
        ("broken", text(b"{\"canary\":")),
        ("of another shape", text(b"[]")),
    ] {
        api.person_edits("secrets", NAMESPACE, name(), |secret| match value {
            Value::Null => drop(secret["data"].as_object_mut().unwrap().remove(REVOKED_FIELD)),
            value => secret["data"][REVOKED_FIELD] = value,
        });
        restored(what).await;
    }
    api.person_deletes("secrets", NAMESPACE, name());
    stage.service.until("gone", async || stage.service.readyz().await.body.contains("there is no Secret")).await;
    assert!(!stage.is_active(&token).await);
    api.person_makes_lists();
    restored("deleted and made again").await;
    assert!(stage.service.readyz().await.body.contains("[+] shared-lists"));
    assert!(stage.service.metrics().await.contains(r#"unreadable{object="shared_list"} 0"#));
    let labels: Secret = api.object("secrets", NAMESPACE, name()).unwrap();
    assert_eq!(labels.type_.as_deref(), Some("Opaque"));
}

#[tokio::test]
async fn a_broken_list_is_told_and_stands_in_nobodys_way() {
    let api = FakeApi::new();
    let certificate = api.person_makes_a_certificate();
    api.person_makes_signing_keys();
    api.person_makes_lists();
    api.person_applies(&super::Entry::new(ID).secret());
    api.person_applies(&secret(name(), "Opaque", &[(REVOKED_FIELD, b"canary")]));
    api.on(Nth::every("update", "secrets"), Fault::forbidden());
    let service = TokenService::start_on(api, certificate, "", super::Limits::default()).await;
    service.until("ready", async || service.readyz().await.status == StatusCode::OK).await;
    assert!(service.metrics().await.contains(r#"unreadable{object="shared_list"} 1"#));
    assert_eq!(service.token(ID, CLIENT_SECRET).await.status, StatusCode::OK);
    service.api.heal();
    let readable = r#"unreadable{object="shared_list"} 0"#;
    service.until("written anew", async || service.metrics().await.contains(readable)).await;
}

/// The lists of one replica with its writer, and a watch that shows what the test says, when it says so.
struct Replica {
    api: FakeApi,
    clock: Arc<ManualClock>,
    follower: Arc<Follower>,
    stop: CancellationToken,
    writer: Option<JoinHandle<()>>,
}

impl Replica {
    #[expect(clippy::disallowed_methods, reason = "the handle is held and awaited or aborted")]
    fn start(api: &FakeApi) -> Self {
        let clock = Arc::new(ManualClock::at(now()));
        let served = Served::nothing("default");
        let follower = Arc::new(Follower::new(served, clock.clone(), &mut appreg::metrics::registry()));
        let stop = CancellationToken::new();
        let writer = Writer::new(api.client(), NAMESPACE, follower.clone(), clock.clone(), Metrics::default());
        let writer = Some(tokio::spawn(writer.run(stop.clone())));
        let replica = Self { api: api.clone(), clock, follower, stop, writer };
        replica.watch();
        replica
    }

    fn lists(&self) -> &Lists {
        &self.follower.served().lists
    }

    /// The watch shows all there is now.
    fn watch(&self) {
        let secrets: Vec<Secret> = self.api.objects("secrets");
        let item = |secret: &Secret| Item {
            object: Place::of(secret),
            version: version_of(secret),
            value: self.follower.at_the_door(secret),
        };
        let items = secrets.iter().map(item).collect();
        self.follower.apply(Change::Listed { items, version: self.api.version() });
    }

    fn first_use(&self, jti: &str) -> Result<bool, Refusal> {
        self.lists().first_use(ID, jti, now() + SignedDuration::from_mins(5), now())
    }

    /// Ends as a program that is told to.
    async fn end(mut self) {
        self.stop.cancel();
        self.writer.take().unwrap().await.unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.writer.take().inspect(JoinHandle::abort);
    }
}

fn api() -> FakeApi {
    let api = FakeApi::new();
    api.person_makes_lists();
    api
}

async fn passes(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn an_assertion_used_at_one_replica_is_refused_at_the_other_once_it_is_shared_and_not_before() {
    let api = api();
    let (one, other) = (Replica::start(&api), Replica::start(&api));
    assert_eq!(one.first_use("a"), Ok(true));
    assert_eq!(one.first_use("a"), Ok(false), "at the same replica at once");
    passes(Duration::from_secs(1)).await;
    assert_eq!(
        other.lists().first_use(ID, "a", now(), now()),
        Ok(true),
        "the honest limit: the watch has not shown it"
    );
    assert_eq!(one.first_use("b"), Ok(true));
    assert_eq!(other.first_use("c"), Ok(true));
    passes(Duration::from_secs(1)).await;
    one.watch();
    other.watch();
    assert_eq!((one.first_use("c"), other.first_use("b")), (Ok(false), Ok(false)));
    let another = Replica::start(&api);
    for jti in ["a", "b", "c"] {
        assert_eq!(another.first_use(jti), Ok(false), "{jti}, by one that was started later");
    }
    assert_eq!(another.first_use("d"), Ok(true));
    another.end().await;
    for replica in [Replica::start(&api), Replica::start(&api)] {
        assert_eq!(replica.first_use("d"), Ok(false), "what was used last is written when the program is told to end");
    }
    assert_eq!(one.lists().first_use("shop.other", "a", now(), now()), Ok(true), "another client's");
}

#[tokio::test(start_paused = true)]
async fn a_used_assertion_is_remembered_until_a_minute_after_its_end() {
    let (api, minute) = (api(), SignedDuration::from_mins(1));
    let replica = Replica::start(&api);
    let lists = replica.lists();
    assert_eq!(lists.first_use(ID, "a", now() + minute, now()), Ok(true));
    let half_a_second = SignedDuration::from_millis(500);
    assert_eq!(
        lists.first_use(ID, "a", now() + minute, now() + 2 * minute - half_a_second),
        Ok(false),
        "to the last moment"
    );
    assert_eq!(lists.first_use(ID, "a", now() + 5 * minute, now() + 2 * minute), Ok(true));
}

#[tokio::test(start_paused = true)]
async fn used_assertions_are_written_together_four_times_a_second_at_most() {
    let api = api();
    let replica = Replica::start(&api);
    passes(Duration::from_secs(1)).await;
    api.take_requests();
    for n in 0..200 {
        assert_eq!(replica.first_use(&n.to_string()), Ok(true));
        passes(Duration::from_millis(10)).await;
    }
    let writes = api.take_requests();
    assert!((7..=10).contains(&writes.len()), "{} requests in two seconds", writes.len());
    passes(Duration::from_secs(1)).await;
    assert_eq!(field(&api, USED_FIELD).len(), 200);
    assert_eq!(replica.lists().counts().used_unwritten, 0);
    api.take_requests();
    passes(Duration::from_mins(10)).await;
    assert_eq!(api.take_requests(), [""; 0], "nothing at rest");
}

/// Client IDs whose marks are in the list of these tests' client.
fn neighbours() -> impl Iterator<Item = String> {
    (0..).map(|n| format!("tenant.{n}")).filter(|id| index_of_client(id) == index_of_client(ID))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_uses_more_assertions_than_its_share_waits_alone() {
    let api = api();
    let replica = Replica::start(&api);
    let most = (0..MOST_USED).take_while(|n| replica.first_use(&n.to_string()) == Ok(true)).count();
    assert!((MOST_USED / 4..MOST_USED / 2).contains(&most), "{most}");
    assert_eq!(replica.first_use("one more"), Err(Refusal::TooManyAssertions));
    for n in [0, most / 2, most - 1] {
        assert_eq!(replica.first_use(&n.to_string()), Ok(false), "{n}");
    }
    let neighbour = neighbours().next().unwrap();
    let other = (0..100).map(|n| n.to_string()).find(|id| index_of_client(id) != index_of_client(ID)).unwrap();
    for id in [&neighbour, &other] {
        assert_eq!(replica.lists().first_use(id, "a", now(), now()), Ok(true), "{id}");
    }
    passes(Duration::from_mins(1)).await;
    let counts = replica.lists().counts();
    assert_eq!((counts.used, counts.used_unwritten), (most + 2, 0));
    let shared = field(&api, USED_FIELD).len();
    assert_eq!(counts.used_surplus, most + 1 - shared, "what is not shared is its own");
    assert!((MOST_MARKS / 4..MOST_MARKS / 2).contains(&shared), "{shared}");
    assert!(field(&api, USED_FIELD).until(&Mark::of(&neighbour, "a")).is_some());
    let later = now() + SignedDuration::from_mins(8);
    replica.clock.set(later);
    assert_eq!(replica.lists().first_use(ID, "one more", later, later), Ok(true), "what has ended makes room");
    passes(Duration::from_mins(1)).await;
    assert_eq!(field(&api, USED_FIELD).len(), 1);
    assert_eq!(replica.lists().counts().used, 2);
}

#[tokio::test(start_paused = true)]
async fn greedy_clients_of_every_list_keep_no_other_client_out() {
    let replica = Replica::start(&api());
    let exp = now() + SignedDuration::from_mins(5);
    // As many as a namespace may have by default, spread over all lists.
    let greedy: Vec<_> = (0..100).map(|n| format!("tenant.{n}")).collect();
    for id in &greedy {
        let used =
            (0..MOST_USED).take_while(|n| replica.lists().first_use(id, &n.to_string(), exp, now()).is_ok()).count();
        assert!(used > 0, "{id}");
    }
    for id in neighbours().skip(1000).take(100).chain([ID.to_owned()]) {
        for n in 0..10 {
            assert_eq!(replica.lists().first_use(&id, &n.to_string(), exp, now()), Ok(true), "{id}");
            assert_eq!(replica.lists().first_use(&id, &n.to_string(), exp, now()), Ok(false), "{id}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn greedy_clients_of_a_list_keep_no_other_client_from_revoking_its_tokens() {
    let api = api();
    let until = end_seconds(now() + SignedDuration::from_mins(10));
    let (mut full, hour) = (List::default(), SignedDuration::from_hours(1));
    for id in neighbours().take(100) {
        // All that such a client can have, and one more.
        let mut own = 0;
        while own <= (MOST_MARKS - full.len()).pow(3).div_ceil(MOST_MARKS.pow(2)).min(1024) {
            full.add(Mark::of(&id, &own.to_string()), until);
            own += 1;
        }
    }
    api.person_applies(&secret(name(), "Opaque", &[(REVOKED_FIELD, &full.to_json())]));
    let replica = Replica::start(&api);
    let greedy = neighbours().next().unwrap();
    let one_more = Mark::of(&greedy, "one more");
    let answer = replica.lists().revoke(one_more, now() + hour, now()).await;
    assert_eq!(answer, Err(Refusal::TooManyRevocations));
    assert!(!replica.lists().is_revoked(&one_more, now()));
    let (known, _) = full.iter().next().unwrap();
    assert_eq!(replica.lists().revoke(*known, now() + hour, now()).await, Ok(()), "what is revoked stays so");
    let mark = Mark::of(ID, "a");
    assert_eq!(replica.lists().revoke(mark, now() + hour, now()).await, Ok(()), "whoever has none has a share");
    let end = now() + hour;
    assert!(replica.lists().is_revoked(&mark, end - SignedDuration::from_millis(500)), "to its last moment");
    let later = now() + SignedDuration::from_mins(10);
    replica.clock.set(later);
    assert_eq!(replica.lists().revoke(one_more, later + hour, later).await, Ok(()), "what has ended makes room");
    assert_eq!(field(&api, REVOKED_FIELD).len(), 2, "what has ended is not written again");
}

#[tokio::test(start_paused = true)]
async fn writes_are_paced_by_their_size() {
    let api = api();
    let until = end_seconds(now() + SignedDuration::from_hours(1));
    let many: List = (0..6000).map(|n| (Mark::of(&format!("other-{n}"), "a"), until)).collect();
    api.person_applies(&secret(name(), "Opaque", &[(REVOKED_FIELD, &many.to_json())]));
    let replica = Replica::start(&api);
    let start = tokio::time::Instant::now();
    for n in 0..10 {
        let mark = Mark::of(ID, &n.to_string());
        assert_eq!(replica.lists().revoke(mark, now() + SignedDuration::from_hours(1), now()).await, Ok(()));
    }
    let bytes = 9 * field(&api, REVOKED_FIELD).to_json().len() as u64;
    let most_per_second = bytes * 1000 / u64::try_from(start.elapsed().as_millis()).unwrap();
    assert!(most_per_second < 520 * 1024, "{most_per_second} bytes a second");
}

#[tokio::test(start_paused = true)]
async fn another_writer_at_every_turn_is_merged_with_and_one_that_never_rests_is_told() {
    let api = api();
    let replica = Replica::start(&api);
    let edits = std::sync::atomic::AtomicU64::new(0);
    let until = end_seconds(now() + SignedDuration::from_hours(1));
    let edit = move |api: &FakeApi| {
        let n = edits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let list = field(api, REVOKED_FIELD).merge(&[(Mark::of("other", &n.to_string()), until)].into_iter().collect());
        api.person_applies(&secret(name(), "Opaque", &[(REVOKED_FIELD, &list.to_json())]));
    };
    api.before(Nth::every("update", "secrets").times(3), edit);
    let hour = now() + SignedDuration::from_hours(1);
    assert_eq!(replica.lists().revoke(Mark::of(ID, "a"), hour, now()).await, Ok(()));
    assert_eq!(field(&api, REVOKED_FIELD).len(), 4);
    api.heal();
    let always = std::sync::atomic::AtomicU64::new(100);
    api.before(Nth::every("update", "secrets"), move |api| {
        let n = always.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let list = field(api, REVOKED_FIELD).merge(&[(Mark::of("other", &n.to_string()), until)].into_iter().collect());
        api.person_applies(&secret(name(), "Opaque", &[(REVOKED_FIELD, &list.to_json())]));
    });
    assert_eq!(replica.lists().revoke(Mark::of(ID, "b"), hour, now()).await, Err(Refusal::NotRecorded));
    assert!(replica.lists().problem().unwrap().contains("other writers were faster 5 times"));
    api.heal();
    passes(Duration::from_secs(2)).await;
    assert!(field(&api, REVOKED_FIELD).until(&Mark::of(ID, "b")).is_some(), "written as soon as it can be");
}

/// A sequence of numbers that look random and are the same every time (the constants are Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_becomes_of_requests_watches_and_replicas_a_revocation_that_was_answered_with_200_stays() {
    for seed in 0..24 {
        let (api, mut numbers) = (api(), Numbers(seed));
        let mut replicas = [Replica::start(&api), Replica::start(&api), Replica::start(&api)];
        let (mut answered, mut tried) = (Vec::new(), 0_u32);
        for step in 0..120 {
            let which = usize::try_from(numbers.below(3)).unwrap();
            match numbers.below(10) {
                0..5 => {
                    tried += 1;
                    let mark = Mark::of(ID, &tried.to_string());
                    let hour = now() + SignedDuration::from_hours(1);
                    if replicas[which].lists().revoke(mark, hour, now()).await == Ok(()) {
                        answered.push(mark);
                    }
                }
                5 => {
                    let faults =
                        [Fault::LoseReply, Fault::LoseRequest, Fault::internal(), Fault::Hang, Fault::HangAfter];
                    let fault = faults[usize::try_from(numbers.below(5)).unwrap()].clone();
                    let verb = ["update", "get"][usize::try_from(numbers.below(2)).unwrap()];
                    api.on(Nth::every(verb, "secrets").times(1 + numbers.below(2)), fault);
                }
                6 | 7 => replicas[which].watch(),
                8 => passes(Duration::from_millis(100 * numbers.below(30))).await,
                _ => replicas[which] = Replica::start(&api),
            }
            let list = field(&api, REVOKED_FIELD);
            let lost = answered.iter().filter(|mark| list.until(mark).is_none()).count();
            assert_eq!(lost, 0, "seed {seed}, step {step}");
        }
        api.heal();
        assert!(answered.len() > 10, "seed {seed}: {} of {tried}", answered.len());
        for replica in &replicas {
            replica.watch();
            assert!(answered.iter().all(|mark| replica.lists().is_revoked(mark, now())), "seed {seed}");
        }
        passes(Duration::from_mins(2)).await;
        for replica in &replicas {
            assert_eq!(replica.lists().counts().revoked_unwritten, 0, "seed {seed}: at rest");
        }
    }
}
