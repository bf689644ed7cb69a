//! `appreg`: application registrations as Kubernetes resources.
//!
//! (The crate's documentation is the diagram of ARCHITECTURE.md.)

pub mod api;
pub mod config;
pub mod credential;
pub mod ledger;
pub mod mint;
pub mod policy;
pub mod rotation;
pub mod signer;
