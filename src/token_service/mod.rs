//! The built-in authorization server's endpoints: it accepts what the ledger holds, and signs access tokens.
//!
//! ```text
//! ledger namespace ─watch─▶ follow ─▶ directory · keys · tls        (what is accepted, signed and served with)
//!                  ◀─get── live  ◀──────┐
//!                  ◀update─ lists ◀─────┤                            (what was revoked or used)
//! client ─TLS─▶ server ─▶ service ─▶ client_authentication ─▶ token_endpoint · introspection · revocation · documents
//! API server ─▶ cluster_keys ───────────┘                           (requests)
//! ```
//!
//! It needs `get`, `list` and `watch` on the Secrets of one namespace, `update` on the eight shared lists, which are all
//! that it writes, and the cluster's discovery documents, which every `ServiceAccount` may read. Every replica answers by
//! itself. When the API server cannot be reached, it goes on with what it knows; tokens cannot be revoked then.

pub mod accepted;
mod answering;
mod buckets;
pub mod client_authentication;
pub mod cluster_keys;
pub mod directory;
pub mod documents;
pub mod failures;
pub mod follow;
pub mod form;
pub mod forwarded;
mod introspection;
pub mod issuer;
pub mod keys;
pub mod lists;
pub mod live;
pub mod metrics;
pub mod peer;
pub mod queue;
pub mod refusal;
pub mod request;
mod revocation;
pub mod server;
pub mod service;
pub mod texts;
pub mod tls;
pub mod token_endpoint;
pub mod verified;

mod health;
mod impatient;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::clock::Clock;
use crate::config;
use crate::kubernetes::client::Clients;
use crate::kubernetes::watch::{Health, Selection, Watch};
use cluster_keys::ClusterKeys;
use failures::{Failures, Rates};
use follow::{Follower, Place, Served};
use lists::Writer;
use live::LiveReader;
use metrics::Metrics;
use server::{Limits, Server};
use service::{Parts, Service};

/// What the token service is told at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The configured authorization server: issuer, lifetimes, audience. The ledger namespace shows the others.
    pub server: config::Server,
    /// Where the ledger is.
    pub ledger_namespace: String,
    /// What clients may take up.
    pub limits: Limits,
    /// How many failed authentications are answered as such.
    pub failures: Rates,
}

/// Where the token service listens.
#[derive(Debug)]
pub struct Listeners {
    /// For clients, by TLS.
    pub clients: TcpListener,
    /// For the kubelet and for Prometheus, by plain HTTP.
    pub admin: TcpListener,
}

/// Why the token service ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port could not be had.
    #[error("Cannot listen on {address}: free the port, or choose another address")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One of its tasks ended, which none does by itself.
    #[error("A task of the token service ended unexpectedly: read the log before this line")]
    Ended,
}

impl Listeners {
    /// Takes both ports. Port 0 takes a free one; the logs say which. Must be called inside a tokio runtime.
    pub async fn bind(clients: SocketAddr, admin: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address: clients, source };
        let clients = server::listen(clients).map_err(failed)?;
        let admin = TcpListener::bind(admin).await.map_err(|source| Error::Listen { address: admin, source })?;
        Ok(Self { clients, admin })
    }
}

/// Runs the token service until `stop` is cancelled and open requests are finished.
pub async fn run(
    settings: Settings,
    listeners: Listeners,
    clients: Clients,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let Settings { server, ledger_namespace, limits, failures } = settings;
    let mut registry = crate::metrics::registry();
    let metrics = Metrics::register(&mut registry);
    let served = Served::nothing(&server.name);
    let follower = Arc::new(Follower::new(served.clone(), clock.clone(), &mut registry));
    let (health_sender, health) = Health::channel();
    health::register(&mut registry, &served, &health);
    let cluster_keys = Arc::new(ClusterKeys::new(clients.requests.clone(), clock.clone(), metrics.clone()));
    let mut conditions = health::conditions(&served, health, clock.clone());
    conditions.push(cluster_keys.condition());
    let watch = Watch {
        name: "ledger namespace",
        api: Api::<Secret>::namespaced(clients.watches, &ledger_namespace),
        selection: Selection::default(),
    };
    let (requests, namespace) = (clients.requests, &*ledger_namespace);
    let writer = Writer::new(requests.clone(), namespace, follower.clone(), clock.clone(), metrics.clone());
    let live = LiveReader::new(requests, namespace, follower.clone(), clock.clone(), metrics.clone());
    let certificate = served.certificate.clone();
    let failures = Failures::new(failures, metrics.clone());
    let (body_within, queue) = (limits.body, limits.queue.for_threads(Handle::current().metrics().num_workers()));
    let proxies = server.forwarded_certificates.clone().map(Arc::new);
    let service = Arc::new(Service::new(Parts {
        server,
        served,
        live,
        failures,
        cluster_keys: cluster_keys.clone(),
        clock,
        metrics: metrics.clone(),
        body_within,
        queue,
    }));
    let answer = move |request| service.clone().respond(request);
    let server = Server { certificate, answer, limits, metrics, proxies };

    let mut tasks = JoinSet::new();
    let watch_stop = stop.clone();
    tasks.spawn(async move {
        let door = |secret| (Place::of(&secret), follower.at_the_door(&secret));
        let apply = |change| follower.apply(change);
        watch.run_named(door, apply, health_sender, watch_stop).await;
    });
    let admin_stop = stop.clone();
    tasks.spawn(async move {
        // Its error is of reading an address that is bound.
        let _ = Admin { conditions, registry }.run(listeners.admin, admin_stop).await;
    });
    let keys_stop = stop.clone();
    tasks.spawn(async move { cluster_keys.run(keys_stop).await });
    // What the last requests leave behind is written after them.
    let (server_stop, answered) = (stop.clone(), CancellationToken::new());
    let writer_stop = answered.clone();
    tasks.spawn(async move {
        let _ends = answered.drop_guard();
        server.run(listeners.clients, server_stop).await;
    });
    tasks.spawn(writer.run(writer_stop));
    let mut ended = Ok(());
    while let Some(task) = tasks.join_next().await {
        if task.is_err() || !stop.is_cancelled() {
            ended = Err(Error::Ended);
            stop.cancel();
        }
    }
    ended
}
