//! Tests on a real control plane.
//!
//! They need the programs that `make control-plane` builds; `make test` sees to it.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a broken expectation is a failed test"
)]

#[path = "../harness/mod.rs"]
mod harness;

mod chart;
mod control_plane;
mod examples;
mod rules;
