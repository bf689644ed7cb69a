//! `appreg`: application registrations as Kubernetes resources.
//!
//! (The crate's documentation is the diagram of ARCHITECTURE.md.)

// What users write and read.
pub mod api;
pub mod config;

// The core: pure. No async, no clock, no client, no randomness.
pub mod rotation;

pub mod ledger;
pub mod signer;

pub mod credential;
pub mod policy;

pub mod plan;

// The only randomness.
pub mod mint;

// How we talk to the world.
pub mod clock;
pub mod kubernetes;

pub mod admin;
pub mod metrics;
pub mod telemetry;

// The two programs.
pub mod controller;
pub mod token_service;
