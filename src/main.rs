//! appreg
fn main() {}
