//! Hermetic tests.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken expectation is a failed test")]

mod crd;
