//! What people run where no cluster is: `appreg lint`.

pub mod lint;
