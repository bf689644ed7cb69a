//! Hermetic tests.

mod fake_api;
mod watch;
