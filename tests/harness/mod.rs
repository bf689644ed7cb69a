//! A real control plane, and processes around it, for tests, the demo and the benchmarks alike.
//!
//! Each of them takes this module in by `#[path = "../harness/mod.rs"] mod harness;`: there is one package, so it
//! needs no crate of its own.
//!
//! | Module | Has |
//! |---|---|
//! | [`control_plane`] | [`ControlPlane`]: etcd, kube-apiserver, kube-controller-manager; users, clients, kubectl, helm; restart, freeze |
//! | [`access`] | [`Access`]: how a user reaches the API server, directly or through a proxy |
//! | [`audit`] | [`AuditLog`]: which requests were made, exactly |
//! | [`proxy`] | [`Proxy`]: between a program and the API server; cuts, delays, freezes, answers in its place |
//! | [`process`] | [`Program`] and [`Process`]: a child that dies with us, its log, its CPU time and memory |
//! | [`eventually`] | waiting for a condition, with a deadline and a state dump |
//! | [`operator`] | [`Operator`]: the chart installed, controller and token service as processes |
//! | [`oauth`] | [`TokenClient`]: asks the token endpoint, shows no secret |
//! | [`observer`] | [`Observer`]: watches everything and tries every value it ever saw, and tells what was violated |
//! | [`registrations`] | registrations made, changed and waited for |
//! | [`credentials`] | the control plane's certificate authority, keys and tokens |
//!
//! What it does not do: it downloads and builds nothing (`make control-plane` does), and runs no pods.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::unwrap_used,
    reason = "test code: each target uses its own part of it; a broken expectation is a failed test; clocks and \
              processes are what it is for"
)]

pub mod access;
pub mod audit;
mod components;
pub mod control_plane;
pub mod credentials;
mod directory;
pub mod eventually;
pub mod oauth;
pub mod observer;
pub mod operator;
pub mod process;
pub mod proxy;
pub mod registrations;

use tokio::sync::OnceCell;

pub use access::Access;
pub use audit::{AuditEvent, AuditLog, Mark};
pub use control_plane::{Audit, ControlPlane, Controllers, Options, Output};
pub use eventually::{eventually, eventually_within};
pub use oauth::{Answer, TokenClient};
pub use observer::Observer;
pub use operator::{Operator, Running, permissive};
pub use process::{Process, Program, Usage};
pub use proxy::{Fault, Injected, Proxy, Request, Rule, Side};

/// The control plane that tests share which neither stop it nor count everybody's requests.
///
/// It starts with the first call and ends with the test process. Take a namespace of your own
/// ([`ControlPlane::namespace`]); cluster-scoped objects are everybody's.
pub async fn shared() -> &'static ControlPlane {
    static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
    SHARED.get_or_init(|| async { ControlPlane::start().await.expect("the shared control plane starts") }).await
}
