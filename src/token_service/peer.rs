//! Who has sent a request.

use std::net::{IpAddr, Ipv6Addr};

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

/// What counts as one address: one IPv4 address, or the /64 that a single IPv6 host is usually given whole.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_64_of_ipv6_is_one_address_and_an_ipv4_address_is_itself_however_it_is_written() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
