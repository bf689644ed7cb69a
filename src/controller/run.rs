//! The wheel: the watches fill the world, the schedule says whose turn it is, a bounded number of passes run.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::admin::{Condition, Readiness};
use crate::api::Reason;
use crate::clock::Clock;
use crate::config::Config;
use crate::kubernetes::ObjectName;
use crate::kubernetes::client::Clients;
use crate::kubernetes::watch::Health;
use crate::mint::slow::{Pool, Slot};
use crate::plan::facts::{LedgerFact, SecretFact};
use crate::plan::{self, Plan, Step};
use crate::{ledger, mint, policy, rotation};

use super::act::{self, Outcome, Stale};
use super::events::Events;
use super::governance::Governors;
use super::metrics::Metrics;
use super::observe::{self, Seen, Sight, Snapshot};
use super::schedule::Schedule;
use super::servers::{self, Servers};
use super::watches::{self, WATCHES, is_essential};
use super::world::{Due, World};
use super::{Context, SLOW_MINTS_AT_ONCE, State, policy_status, report, sweep};

/// The wheel is turned at least this often: a monotonic timer sleeps through a suspend, the wall clock does not.
const TICK: Duration = Duration::from_secs(30);
/// How often one pass looks and decides again before it gives way to others.
const MOST_ROUNDS: usize = 8;
/// How many passes whose write is slow may go on beside the others.
const MOST_SLOW_WRITES: usize = 256;
/// How long passes that are under way may take once the program stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);
/// How long a registration is left alone whose namespace turned out to be under deletion before its watch said so.
const NAMESPACE_ENDS_AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// How long to wait after the keys could not be brought in order.
const KEYS_AGAIN: Duration = Duration::from_secs(2);

/// What the controller is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file's content.
    pub config: Config,
    /// The namespace of ledger entries, signing keys and the serving certificate.
    pub ledger_namespace: String,
    /// The namespace of the CA's private keys.
    pub controller_namespace: String,
    /// How many registrations are worked on at once.
    pub concurrency: usize,
}

/// The controller, ready to run.
pub struct Controller {
    ctx: Arc<Context>,
    events: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
    concurrency: usize,
    health: Vec<(&'static str, watch::Sender<Health>, watch::Receiver<Health>)>,
}

impl Controller {
    /// The controller; nothing is requested yet. Must be called inside a tokio runtime.
    ///
    /// Fails where a glob of the configured policy is none.
    pub fn new(
        options: Options,
        clients: Clients,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Self, policy::Invalid> {
        let mut world = World::default();
        world.governors = Governors::new(&options.config.policy)?;
        let (events, sending) = Events::new(clients.clone(), clock.clone());
        let pool = Pool::new(SLOW_MINTS_AT_ONCE);
        let ctx = Context {
            servers: ArcSwap::from_pointee(Servers::none(&options.config, pool.clone())),
            clients,
            clock,
            config: options.config,
            ledger_namespace: options.ledger_namespace.into(),
            controller_namespace: options.controller_namespace.into(),
            pool,
            signing_key_pool: Pool::new(1),
            events,
            metrics: Metrics::register(registry),
            slow_writes: AtomicUsize::new(0),
            work: Notify::new(),
            keys_changed: Notify::new(),
            sweep_due: Notify::new(),
            state: Mutex::new(State { world, schedule: Schedule::new() }),
        };
        let health = WATCHES
            .map(|name| {
                let (sender, receiver) = Health::channel();
                (name, sender, receiver)
            })
            .into();
        Ok(Self { ctx: Arc::new(ctx), events: Box::pin(sending), concurrency: options.concurrency.max(1), health })
    }

    /// What must hold before the controller is ready.
    #[must_use]
    pub fn conditions(&self) -> Vec<Condition> {
        let mut conditions: Vec<_> = self
            .health
            .iter()
            .map(|(name, _, receiver)| {
                let (name, receiver) = (*name, receiver.clone());
                Condition::new(name, move || {
                    let health = receiver.borrow();
                    let problem = || health.problem.clone().unwrap_or_else(|| "no list has succeeded yet".to_owned());
                    match (health.synced, health.healthy) {
                        (false, _) if is_essential(name) => Readiness::Missing(problem()),
                        (false, _) | (true, false) => Readiness::Degraded(problem()),
                        (true, true) => Readiness::Ready,
                    }
                })
            })
            .collect();
        let ctx = self.ctx.clone();
        conditions.push(Condition::new("keys", move || {
            let servers = ctx.servers.load();
            if !servers.configured().is_complete() {
                let text = "the configured authorization server has no keys yet; the controller creates them";
                return Readiness::Missing(text.to_owned());
            }
            servers.all().find_map(|keys| keys.problem(&ctx)).map_or(Readiness::Ready, Readiness::Degraded)
        }));
        conditions
    }

    /// Runs until `stop` is cancelled; then passes that are under way have ten seconds.
    pub async fn run(self, stop: CancellationToken) {
        let Self { ctx, events, concurrency, health } = self;
        let mut receivers = Vec::new();
        let mut tasks = JoinSet::new();
        for (name, sender, receiver) in health {
            receivers.push(receiver);
            watches::spawn(&mut tasks, &ctx, name, sender, stop.clone());
        }
        tasks.spawn(events);
        let all = receivers.clone();
        let driver = {
            let (ctx, stop) = (ctx.clone(), stop.clone());
            async move {
                for (name, mut receiver) in WATCHES.into_iter().zip(all) {
                    let is_known = |health: &Health| health.synced || (!is_essential(name) && health.problem.is_some());
                    if receiver.wait_for(is_known).await.is_err() {
                        return;
                    }
                }
                let (registrations, ledger) = (receivers[0].clone(), receivers[1].clone());
                let recovery = join_all(receivers.into_iter().map(|receiver| recovery(&ctx, receiver)));
                let upkeep = upkeep(&ctx);
                let sweep = sweep::run(&ctx, registrations, ledger);
                let policies = policy_status::run(&ctx);
                let drive = drive(&ctx, concurrency, &stop);
                tokio::select! {
                    () = upkeep => {}
                    () = sweep => {}
                    () = policies => {}
                    _ = recovery => {}
                    () = drive => {}
                }
            }
        };
        tokio::select! {
            () = driver => {}
            () = async { stop.cancelled().await; sleep(DRAIN_WITHIN + Duration::from_secs(1)).await } => {}
        }
        tasks.abort_all();
    }
}

impl Context {
    /// Puts what a change asks for in the schedule.
    pub(super) fn take(&self, due: Due) {
        let (keys, sweep) = (due.keys, due.sweep);
        self.state().take(due);
        self.work.notify_one();
        if keys {
            self.keys_changed.notify_one();
        }
        if sweep {
            self.sweep_due.notify_one();
        }
    }
}

impl State {
    fn take(&mut self, due: Due) {
        for object in due.gone {
            self.schedule.forget(&object);
        }
        for object in due.new {
            self.schedule.push_new(object);
        }
        for object in due.again {
            if self.world.registrations.value(&object).is_some() {
                self.schedule.push(object);
            }
        }
    }

    /// Has every registration at an authorization server looked at.
    pub(super) fn push_registrations_at(&mut self, server: &str) {
        let all: Vec<_> = self.world.registrations_at(server).cloned().collect();
        for object in all {
            self.schedule.push(object);
        }
    }
}

/// Has what failed tried again whenever a watch is healthy again: after an outage nothing waits for its time, which may
/// be minutes away.
async fn recovery(ctx: &Context, mut health: watch::Receiver<Health>) {
    loop {
        let is_over = async {
            health.wait_for(|health| !health.healthy).await?;
            health.wait_for(|health| health.healthy).await?;
            Ok::<_, watch::error::RecvError>(())
        };
        if is_over.await.is_err() {
            // The watch has ended because the program stops, which is not ours to hasten.
            pending::<()>().await;
        }
        ctx.state().schedule.retry_failed();
        ctx.work.notify_one();
    }
}

/// Keeps the keys in order.
async fn upkeep(ctx: &Context) {
    loop {
        let pause = match servers::upkeep(ctx, ctx.clock.now()).await {
            Ok(next) => Duration::try_from(next.duration_since(ctx.clock.now())).unwrap_or_default().min(TICK),
            // Somebody else was first; the watch tells what they wrote.
            Err(problem) if problem.is_conflict() => KEYS_AGAIN,
            Err(problem) => {
                tracing::warn!(%problem, "the keys are not in order");
                KEYS_AGAIN
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = ctx.keys_changed.notified() => {}
        }
    }
}

/// Starts passes as they become due, at most `concurrency` at once; those that wait for a slow key do not count.
async fn drive(ctx: &Arc<Context>, concurrency: usize, stop: &CancellationToken) {
    let mut passes: JoinSet<()> = JoinSet::new();
    let waiting = Arc::new(AtomicUsize::new(0));
    while !stop.is_cancelled() {
        let now = ctx.clock.now();
        let next_wake = {
            let mut state = ctx.state();
            state.schedule.tick(now);
            let is_ready = ctx.servers.load().is_ready();
            let slow = ctx.slow_writes.load(Ordering::Relaxed).min(MOST_SLOW_WRITES);
            let most = concurrency + waiting.load(Ordering::Relaxed) + slow;
            while is_ready && state.schedule.running() < most {
                let Some(object) = state.schedule.next_run() else { break };
                let (ctx, waiting) = (ctx.clone(), waiting.clone());
                passes.spawn(async move { pass(&ctx, &object, &waiting).await });
            }
            let count = i64::try_from(state.world.registrations.len()).unwrap_or(i64::MAX);
            ctx.metrics.registrations.set(count);
            ctx.metrics.unreadable.set(state.world.unreadable);
            ctx.metrics.policy_violations.set(i64::try_from(state.world.tally.keeping()).unwrap_or(i64::MAX));
            state.schedule.next_wake()
        };
        let until_wake = next_wake.map_or(TICK, |wake| {
            Duration::try_from(wake.duration_since(ctx.clock.now())).unwrap_or_default().min(TICK)
        });
        let ended = async {
            match passes.join_next().await {
                Some(ended) => ended,
                None => pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = ctx.work.notified() => {}
            () = sleep(until_wake) => {}
            ended = ended => {
                if let Err(error) = ended {
                    tracing::error!(panicked = error.is_panic(), "a pass did not end");
                }
            }
        }
    }
    let _ = timeout(DRAIN_WITHIN, async { while passes.join_next().await.is_some() {} }).await;
}

/// What follows from a pass.
enum Next {
    /// Look again at this time, or when something happens.
    Wake(Option<Timestamp>),
    /// It failed: try again, ever more slowly.
    Again,
    /// There is nothing to look at any more.
    Forget,
}

/// Takes a registration off the running ones even if its pass panics, so that it is tried again.
struct Running<'a> {
    ctx: &'a Context,
    object: &'a ObjectName,
    next: Next,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let now = self.ctx.clock.now();
        let mut state = self.ctx.state();
        state.world.decided(self.object, None);
        match self.next {
            Next::Wake(wake) => {
                if let Some(wake) = wake {
                    state.schedule.wake_at(self.object.clone(), wake);
                }
                state.schedule.done(self.object);
            }
            Next::Again => {
                state.schedule.failed(self.object, now);
            }
            Next::Forget => {
                state.schedule.forget(self.object);
                state.schedule.done(self.object);
            }
        }
    }
}

async fn pass(ctx: &Context, object: &ObjectName, waiting: &AtomicUsize) {
    ctx.metrics.reconciled();
    let mut running = Running { ctx, object, next: Next::Again };
    running.next = reconcile(ctx, object, waiting).await;
}

/// One pass: observe, decide, act, report.
async fn reconcile(ctx: &Context, object: &ObjectName, waiting: &AtomicUsize) -> Next {
    let mut sight = Sight::default();
    let mut slot: Option<Slot> = None;
    let mut now = ctx.clock.now();
    for _ in 0..MOST_ROUNDS {
        let snapshot = match observe::snapshot(ctx, object, &sight).await {
            Ok(Seen::Snapshot(snapshot)) => snapshot,
            Ok(Seen::Gone) => return Next::Forget,
            Ok(Seen::Told) => return Next::Wake(None),
            Ok(Seen::Unreadable { generation, version, problem }) => {
                return match report::unreadable(ctx, object, (generation, version), &problem, now).await {
                    Ok(()) => Next::Wake(None),
                    Err(error) => failed(object, &error.chain()),
                };
            }
            Err(error) => return failed(object, &error.chain()),
        };
        let plan = plan::decide(&snapshot.facts, now);
        if !plan.look.is_empty() {
            sight.look.registration |= plan.look.registration;
            sight.look.secrets.extend(plan.look.secrets);
            sight.look.approvals.extend(plan.look.approvals);
            continue;
        }
        if act::is_slow(&plan) && slot.is_none() {
            slot = wait_for_slot(ctx, waiting).await.ok();
            // Time has passed: what was true may not be any more.
            now = ctx.clock.now();
            continue;
        }
        if sight.refusals.is_empty() {
            sight.refusals = act::rehearse(ctx, &snapshot, &plan).await;
            if !sight.refusals.is_empty() {
                // Everything else is still done.
                continue;
            }
        }
        tracing::debug!(registration = %object, %plan, "decided");
        let outcome = act::apply(ctx, &snapshot, &plan, slot.take()).await;
        if !outcome.stale.is_empty() && outcome.failure.is_none() {
            see_again(&mut sight, &snapshot, outcome.stale);
            continue;
        }
        remember(ctx, object, &snapshot, &plan, &outcome);
        if let Err(error) = report::publish(ctx, &snapshot, &plan, &outcome, now).await {
            return failed(object, &error.chain());
        }
        return match outcome.failure {
            // No watch tells when the API server would accept the Secret.
            None if !sight.refusals.is_empty() => Next::Again,
            None => Next::Wake(plan.wake),
            // Trying again would only mint again: the registration is about to go, or the namespace waits for its pods.
            Some(failure) if failure.reason == Some(Reason::NamespaceTerminating) => {
                Next::Wake(plan.wake.into_iter().chain([rotation::add(now, NAMESPACE_ENDS_AGAIN)]).min())
            }
            Some(_) => Next::Again,
        };
    }
    failed(object, "others keep writing the same objects")
}

fn failed(object: &ObjectName, problem: &str) -> Next {
    tracing::warn!(registration = %object, problem, "a pass failed");
    Next::Again
}

/// Waits for a slot without counting as running.
async fn wait_for_slot(ctx: &Context, waiting: &AtomicUsize) -> Result<Slot, mint::Error> {
    struct Waiting<'a>(&'a AtomicUsize);
    impl Drop for Waiting<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    waiting.fetch_add(1, Ordering::Relaxed);
    let _waiting = Waiting(waiting);
    ctx.work.notify_one();
    ctx.pool.enter().await
}

/// What somebody else has written is read live in the next round.
fn see_again(sight: &mut Sight, snapshot: &Snapshot, stale: Vec<Stale>) {
    for stale in stale {
        match stale {
            Stale::Entry(object) => {
                sight.entries.insert(object);
                // Whoever wrote the entry may have written the Secrets as well.
                sight.look.secrets.extend(snapshot.facts.secrets.keys().cloned());
            }
            Stale::Secret(name) => {
                sight.look.secrets.insert(name);
            }
        }
    }
}

/// Keeps what the pass has shown for the next ones.
fn remember(ctx: &Context, object: &ObjectName, snapshot: &Snapshot, plan: &Plan, outcome: &Outcome) {
    let facts = &snapshot.facts;
    let mut state = ctx.state();
    state.world.decided(object, Some(plan.kept_by.clone()));
    if facts.ledger == LedgerFact::Taken {
        let wanted = facts.registration.spec.client_id.as_deref().unwrap_or(&facts.registration.uid);
        let entry = ledger::name(&facts.environment.server.name, wanted);
        state.world.wait_for(ObjectName::new(&ctx.ledger_namespace, &entry), object.clone());
    }
    if outcome.failure.is_some() {
        return;
    }
    // What was read live and needs no writing holds what its annotations say, unless the plan doubts it.
    for (name, secret) in &facts.secrets {
        let is_written = plan.steps.iter().any(|step| matches!(step, Step::Publish(publish) if publish.name == *name));
        if let SecretFact::Ours(ours) = secret
            && secret.is_live()
            && !is_written
            && !plan.doubtful.contains(name)
            && let Ok(version) = ours.resource_version.parse()
        {
            state.world.verify(&ObjectName::new(&facts.registration.namespace, name), version);
        }
    }
}
