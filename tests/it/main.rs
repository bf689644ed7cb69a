//! Hermetic tests.

mod certificates;
