//! `appreg`: application registrations as Kubernetes resources.
//!
//! (The crate's documentation is the diagram of ARCHITECTURE.md.)

pub mod api;
pub mod rotation;

pub mod ledger;
pub mod signer;

pub mod credential;

pub mod config;
pub mod policy;

pub mod plan;

pub mod mint;

pub mod clock;
pub mod kubernetes;

pub mod controller;
