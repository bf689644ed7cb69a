//! Tests on a real control plane.
//!
//! They need the programs that `make control-plane` builds; `make test` sees to it.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a broken expectation is a failed test; deadlines need the clock; what was \
              seen is printed"
)]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../schema/mod.rs"]
mod schema;

mod applied;
mod audited;
mod authorization_servers;
mod canary;
mod chart;
mod chart_values;
mod client_authentication;
mod conflicts;
mod control_plane;
mod crashes;
mod deletion;
mod examples;
mod foreign;
mod given;
mod hand_edits;
mod hostile;
mod lint;
mod needles;
mod observer;
mod outages;
mod policies;
mod processes;
mod rbac;
mod rbac_matrix;
mod registration;
mod replicas;
mod rotation;
mod rules;
mod signing_keys;
mod stage;
mod two_controllers;
