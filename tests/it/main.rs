//! Hermetic tests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod certificates;
mod chart;
mod crd;
mod examples;
mod fake_api;
mod fuzz_corpus;
mod reconcile;
mod tidy;
mod token_service;
mod watch;
