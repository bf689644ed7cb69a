//! `appreg`: application registrations as Kubernetes resources.
//!
//! (The crate's documentation is the diagram of ARCHITECTURE.md.)

pub mod admin;
pub mod api;
pub mod clock;
pub mod config;
pub mod controller;
pub mod kubernetes;
pub mod ledger;
pub mod metrics;
pub mod mint;
pub mod rotation;
pub mod signer;
pub mod telemetry;
pub mod token_service;
