//! `appreg`: application registrations as Kubernetes resources.
//!
//! ```text
//!               controller/                      plan/ (pure)                     controller/
//!             ┌─────────────┐   Facts    ┌───────────────────────┐   Plan    ┌─────────────┐
//!  reads ───▶ │   observe   │ ─────────▶ │  decide(&Facts, now)  │ ────────▶ │     act     │ ──▶ 1 ledger  2 Secret
//!             └──────┬──────┘            │  policy    rotation   │           └──┬───────▲──┘     (compare-and-swap)
//!                    │                   │  credential   ledger  │      Outcome │       │ mint/ (entropy, signing)
//!                    │                   └───────────────────────┘              │       │
//!                    └─ held: objects with key bytes, never seen by plan ───────┼───────┘
//!                                                                               ▼
//!                                                                        ┌─────────────┐
//!                                                                        │   report    │ ──▶ 3 status, Events, metrics
//!                                                                        └─────────────┘
//!
//!  ledger namespace ──watch──▶ token_service/  (accepts what the ledger holds; writes revocations)
//! ```
//!
//! Four words carry the program: **observe** reads, **plan** decides, **act** writes, **report** tells. Pure means: no
//! async, no clock, no client, no randomness. ARCHITECTURE.md says where a change belongs, and what must stay true.

// What users write and read.
pub mod api;
pub mod config;

// The core: pure. No async, no clock, no client, no randomness.
pub mod jws;
pub mod rotation;

pub mod ledger;
pub mod shared_lists;
pub mod signer;

pub mod authority;
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
pub mod seats;
pub mod telemetry;

// The two programs.
pub mod controller;
pub mod token_service;

// What people run where no cluster is.
pub mod cli;
