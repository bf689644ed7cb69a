//! Hermetic tests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../schema/mod.rs"]
mod schema;

mod apis;
mod authorization_servers;
mod before_apis;
mod certificates;
mod chart;
mod crd;
mod docs;
mod endings;
mod examples;
mod fake_api;
mod fuzz_corpus;
mod governance;
mod lint;
mod public_client;
mod reconcile;
mod secret_template;
mod signing_keys;
mod tidy;
mod token_service;
mod watch;
