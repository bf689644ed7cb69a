//! appreg
pub mod clock;
pub mod controller;
pub mod kubernetes;
