//! Hermetic tests.

mod chart;
mod crd;
