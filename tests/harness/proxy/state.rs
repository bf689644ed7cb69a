//! What the proxy knows, and what waits for it to change.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use super::request::{Predicate, Request, Rule};

pub(super) struct ActiveRule {
    pub(super) rule: Rule,
    pub(super) matched: AtomicUsize,
    pub(super) hit: Mutex<Vec<Request>>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) requests: Vec<Request>,
    pub(super) forgotten: usize,
    pub(super) rules: Vec<Arc<ActiveRule>>,
    pub(super) frozen: bool,
    /// Frozen by a fault: what there is now ends with the thaw.
    pub(super) cut: bool,
    /// How often that was. Connections of an earlier epoch carry no more requests.
    pub(super) epoch: usize,
    pub(super) gates: Vec<Predicate>,
    /// Requests with a lower number that match are reset.
    pub(super) resets: Vec<(usize, Predicate)>,
}

impl State {
    pub(super) fn next_number(&self) -> usize {
        self.forgotten + self.requests.len()
    }
}

pub(super) struct Shared {
    pub(super) target: SocketAddr,
    pub(super) tls: tokio_rustls::TlsConnector,
    pub(super) state: Mutex<State>,
    /// Says that `frozen`, `gates` or `resets` changed.
    pub(super) change: watch::Sender<()>,
}

/// Ends a connection without an answer.
#[derive(Debug)]
pub(super) struct Broken(pub(super) String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Broken {}

impl From<hyper::Error> for Broken {
    fn from(error: hyper::Error) -> Self {
        Self(error.to_string())
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}

impl Shared {
    pub(super) fn requests(&self) -> Vec<Request> {
        lock(&self.state).requests.clone()
    }

    pub(super) fn changed(&self) {
        self.change.send_replace(());
    }

    /// Takes a request in, and says which rule hits it.
    pub(super) fn arrived(&self, parts: &http::request::Parts) -> (Request, Option<Arc<ActiveRule>>) {
        let mut state = lock(&self.state);
        let request = Request {
            number: state.next_number(),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            status: None,
            committed: false,
        };
        state.requests.push(request.clone());
        let mut hit = None;
        for rule in &state.rules {
            if (rule.rule.matches)(&request) {
                let n = rule.matched.fetch_add(1, Ordering::SeqCst);
                if hit.is_none() && rule.rule.hits.contains(&n) {
                    hit = Some(rule.clone());
                }
            }
        }
        (request, hit)
    }

    pub(super) fn update(&self, request: &mut Request, change: impl FnOnce(&mut Request)) {
        change(request);
        let mut state = lock(&self.state);
        let known = request.number.checked_sub(state.forgotten).and_then(|index| state.requests.get_mut(index));
        if let Some(known) = known {
            known.clone_from(request);
        }
    }

    /// Waits as long as the proxy is frozen; an error where the connection was made before a cut.
    pub(super) async fn pass(&self, epoch: usize) -> Result<(), Broken> {
        let current = self.wait(|state| (!state.frozen).then_some(state.epoch)).await;
        if epoch < current { Err(Broken("made before the cut".to_owned())) } else { Ok(()) }
    }

    /// Waits as long as what `request` streams is held back; an error where it was reset.
    pub(super) async fn pass_frame(&self, request: &Request) -> Result<(), Broken> {
        self.wait(|state| {
            if was_reset(state, request) {
                return Some(Err(Broken("reset".to_owned())));
            }
            let held = state.frozen || state.gates.iter().any(|gate| request.is_watch() && gate(request));
            (!held).then_some(Ok(()))
        })
        .await
    }

    /// Freezes everything at a hit, and fails when that has been thawed.
    pub(super) async fn cut(&self, hit: impl FnOnce()) -> Broken {
        {
            let mut state = lock(&self.state);
            state.frozen = true;
            state.cut = true;
        }
        hit();
        self.wait(|state| (!state.frozen).then_some(())).await;
        Broken("cut".to_owned())
    }

    /// Waits until `request` is reset.
    pub(super) async fn until_reset(&self, request: &Request) {
        self.wait(|state| was_reset(state, request).then_some(())).await;
    }

    async fn wait<T>(&self, question: impl Fn(&State) -> Option<T>) -> T {
        let mut change = self.change.subscribe();
        loop {
            change.mark_unchanged();
            if let Some(answer) = question(&lock(&self.state)) {
                return answer;
            }
            // The sender is ours: it cannot be gone.
            let _ = change.changed().await;
        }
    }
}

pub(super) fn was_reset(state: &State, request: &Request) -> bool {
    state.resets.iter().any(|(before, matches)| request.number < *before && matches(request))
}
