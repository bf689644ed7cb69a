//! Hermetic tests.

mod fake_api;
mod token_service;
mod watch;
