//! Hermetic tests.

mod crd;
