//! Who has sent a request.

use std::net::IpAddr;

use crate::ledger::Digest;

/// Who has sent a request, as it is told in its extensions: the other end of the connection or, where that is one of the
/// configured proxies, whom the proxy names (see [`super::forwarded`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The certificate whose key it has proved to hold: its SHA-256, as `x5t#S256` (RFC 8705 §3.1).
    pub certificate: Option<Digest>,
}
