//! The controller: the only part besides the token service's revocation lists that writes to Kubernetes.
//!
//! [`observe`] reads, `plan` decides, [`act`] writes, [`report`] tells; [`run`] turns the wheel. [`world`] is what the
//! watches have shown, [`schedule`] what runs next, [`keys`], [`signing_keys`] and [`lists`] the upkeep of what signs and of
//! what replicas share, [`sweep`] the removal of ledger entries whose registration is gone.

pub mod run;
pub mod schedule;

mod act;
mod events;
pub(crate) mod governance;
mod keys;
mod lists;
mod metrics;
mod objects;
mod observe;
mod policy_status;
mod report;
mod requests;
mod servers;
mod serving;
mod signing_keys;
mod sweep;
mod watches;
mod world;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::Config;
use crate::kubernetes::ObjectName;
use crate::kubernetes::client::Clients;
use crate::mint::slow::Pool;

use events::Events;
use metrics::Metrics;
use schedule::Schedule;
use servers::Servers;
use world::World;

/// How many RSA keys are generated at once: one core is left to everything else.
const SLOW_MINTS_AT_ONCE: usize = 1;

/// What every part of the controller shares.
pub(crate) struct Context {
    pub(crate) clients: Clients,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    /// The namespace of ledger entries, signing keys and the serving certificate.
    pub(crate) ledger_namespace: Arc<str>,
    /// The namespace of the CA's private keys.
    pub(crate) controller_namespace: Arc<str>,
    /// The authorization servers in force, with their keys.
    pub(crate) servers: ArcSwap<Servers>,
    pub(crate) pool: Pool,
    /// The pool for slow token signing keys.
    pub(crate) signing_key_pool: Pool,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    /// How many writes are slow at the moment.
    pub(crate) slow_writes: AtomicUsize,
    /// Something is in the schedule.
    pub(crate) work: Notify,
    /// The keys' Secrets have changed.
    pub(crate) keys_changed: Notify,
    /// A registration is gone, or a ledger entry came whose registration is not there.
    pub(crate) sweep_due: Notify,
    state: Mutex<State>,
}

/// What the watches have shown and what is to be done about it: one lock, because one follows from the other.
pub(crate) struct State {
    pub(crate) world: World,
    pub(crate) schedule: Schedule<ObjectName>,
}

impl Context {
    /// The state. Held for lookups and bookkeeping only, never across an await.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
