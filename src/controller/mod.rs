//! What turns the world into plans and plans into writes.

pub mod schedule;
