//! Tests on a real control plane.
//!
//! They need the programs that `make control-plane` builds; `make test` sees to it.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a broken expectation is a failed test; deadlines need the clock"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod canary;
mod chart;
mod control_plane;
mod needles;
mod processes;
mod examples;
mod hostile;
mod rbac;
mod registration;
mod requests;
mod rules;
mod applied;
