//! appreg
pub mod api;
