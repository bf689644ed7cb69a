//! The work without a cluster: `appreg lint`, and the reference pages for `make generate`.

pub mod lint;
pub mod reference;
