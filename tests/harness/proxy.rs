//! An HTTP/1.1 proxy between a program and the API server, which counts requests and breaks them.
//!
//! The program's side is plain HTTP on loopback; each of its connections has one TLS connection of its own to the API
//! server, so losing one loses the other. Whoever the program is, it stays: its bearer token passes through. Bodies
//! are streamed, so a watch delivers at once.
//!
//! Faults are [`Rule`]s: the n-th request that matches is dropped, held, delayed or answered in the API server's
//! place, before it is forwarded or after the API server has committed it. Beyond that the proxy can freeze as a whole,
//! hold back watches, and reset connections.

mod forward;
mod request;
mod state;

use std::{
    ops::Deref,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use rustls::pki_types::CertificateDer;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::task::AbortOnDropHandle;

use super::{access::Access, process::POLL};
use request::Predicate;
pub use request::{Fault, Request, Rule, Side};
use state::{ActiveRule, Shared, lock};

/// A rule at work; dropping it ends it.
#[must_use = "dropping it ends the rule"]
pub struct Injected {
    shared: Arc<Shared>,
    rule: Arc<ActiveRule>,
}

impl Injected {
    /// How many requests matched, hit or not.
    pub fn matched(&self) -> usize {
        self.rule.matched.load(Ordering::SeqCst)
    }

    /// The requests that were hit: for [`Side::AfterCommitBeforeReply`], once the API server has done them.
    pub fn hit(&self) -> Vec<Request> {
        lock(&self.rule.hit).clone()
    }

    /// Waits for the first hit.
    pub async fn fired(&self, within: Duration) -> anyhow::Result<Request> {
        let wait = async {
            loop {
                if let Some(request) = self.hit().into_iter().next() {
                    return request;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        tokio::time::timeout(within, wait).await.with_context(|| {
            let seen = self.shared.requests();
            let tail: Vec<String> = seen.iter().rev().take(20).rev().map(ToString::to_string).collect();
            format!("the fault {:?} hit no request; the last were\n{}", self.rule.rule.fault, tail.join("\n"))
        })
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        lock(&self.shared.state).rules.retain(|rule| !Arc::ptr_eq(rule, &self.rule));
    }
}

/// Watches that are held back; dropping it lets them go on.
#[must_use = "dropping it opens the gate"]
pub struct Gate {
    shared: Arc<Shared>,
    holds: Predicate,
}

impl Drop for Gate {
    fn drop(&mut self) {
        lock(&self.shared.state).gates.retain(|gate| !Arc::ptr_eq(gate, &self.holds));
        self.shared.changed();
    }
}

/// The proxy. Dropping it closes every connection.
pub struct Proxy {
    access: Access,
    shared: Arc<Shared>,
    _accepting: AbortOnDropHandle<()>,
}

impl Deref for Proxy {
    type Target = Access;
    /// How users reach the API server through the proxy.
    fn deref(&self) -> &Access {
        &self.access
    }
}

impl Proxy {
    /// Listens on a port of its own and forwards to `target`: a [`super::ControlPlane`], or another proxy of it.
    pub async fn start(target: &Access) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(target.ca_der().to_vec()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let authority = target.server().strip_prefix("https://").context("a proxy needs an https target")?;
        let shared = Arc::new(Shared {
            target: authority.parse().context("an address and a port")?,
            tls: tokio_rustls::TlsConnector::from(Arc::new(tls)),
            state: Mutex::default(),
            change: watch::Sender::new(()),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let access = target.via(format!("http://{}", listener.local_addr()?));
        let accepting = AbortOnDropHandle::new(tokio::spawn(forward::accept(listener, shared.clone())));
        Ok(Self { access, shared, _accepting: accepting })
    }

    /// Every request since the start or the last [`Self::forget`], in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests()
    }

    /// Those that change something.
    pub fn writes(&self) -> Vec<Request> {
        self.requests().into_iter().filter(Request::is_write).collect()
    }

    /// Forgets the requests so far; the numbers go on.
    pub fn forget(&self) {
        let mut state = lock(&self.shared.state);
        state.forgotten += state.requests.len();
        state.requests.clear();
    }

    /// Puts a rule to work, behind those that already are: the first that hits a request decides.
    pub fn inject(&self, rule: Rule) -> Injected {
        let rule = Arc::new(ActiveRule { rule, matched: AtomicUsize::new(0), hit: Mutex::default() });
        lock(&self.shared.state).rules.push(rule.clone());
        Injected { shared: self.shared.clone(), rule }
    }

    /// Freezes everything at the k-th write (from 0) that `matches`: [`Injected::fired`], kill the program,
    /// [`Self::thaw`].
    pub fn cut(&self, k: usize, side: Side, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Injected {
        self.inject(Rule::new(Fault::Freeze(side), move |request| request.is_write() && matches(request)).nth(k))
    }

    /// Nothing passes any more in either direction; connections stay open, new ones are accepted.
    pub fn freeze(&self) {
        lock(&self.shared.state).frozen = true;
        self.shared.changed();
    }

    /// Goes on: after [`Self::freeze`] where it stopped, after [`Fault::Freeze`] with new connections alone.
    pub fn thaw(&self) {
        {
            let mut state = lock(&self.shared.state);
            state.frozen = false;
            if std::mem::take(&mut state.cut) {
                let next = state.next_number();
                state.resets.push((next, Arc::new(|_| true)));
                state.epoch += 1;
            }
        }
        self.shared.changed();
    }

    /// Holds back what watches that match deliver, in front of the program; other requests pass.
    pub fn hold_watches(&self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Gate {
        let holds: Predicate = Arc::new(matches);
        lock(&self.shared.state).gates.push(holds.clone());
        Gate { shared: self.shared.clone(), holds }
    }

    /// Ends the connections of requests that are being answered now, watches above all, and that match.
    pub fn reset(&self, matches: impl Fn(&Request) -> bool + Send + Sync + 'static) {
        {
            let mut state = lock(&self.shared.state);
            let next = state.next_number();
            state.resets.push((next, Arc::new(matches)));
        }
        self.shared.changed();
    }
}
