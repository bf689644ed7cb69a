//! `appreg`: application registrations as Kubernetes resources.
//!
//! (The crate's documentation is the diagram of ARCHITECTURE.md.)

pub mod api;
pub mod config;
pub mod ledger;
pub mod rotation;
pub mod signer;
pub mod clock;
pub mod controller;
pub mod kubernetes;
