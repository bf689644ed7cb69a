//! Who is at the other end of a connection.

use std::net::IpAddr;

use crate::ledger::Digest;

/// The other end of a connection, as every request on it is told in its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The certificate whose key it has proved to hold: its SHA-256, as `x5t#S256` (RFC 8705 §3.1).
    pub certificate: Option<Digest>,
}
