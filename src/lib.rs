//! appreg
