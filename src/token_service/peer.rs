//! Who has sent a request.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::ledger::Digest;

/// Who has sent a request: the other end of the connection or, where that is one of the configured proxies, whom the proxy
/// names (see [`super::forwarded`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The certificate whose key it has proved to hold: its SHA-256, as `x5t#S256` (RFC 8705 §3.1).
    pub certificate: Option<Digest>,
}

/// What counts as one address: one IPv4 address, and so many leading bits of an IPv6 address. Within a cluster that is a
/// whole address, because the pods of a node share a /64; from outside it is a /64, which a single host is usually given
/// whole. An address that a proxy names is always counted like one from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Networks {
    ipv6_prefix_bits: u8,
}

/// What a connection may still try although its address has failed too often: one signature, and one more for each that
/// was right. Failures of others take nothing from it.
#[derive(Debug)]
pub struct Credit(AtomicU32);

/// What has sent a request, and on which connection: in the extensions of the request.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Who.
    pub peer: Peer,
    /// The address that it counts as (see [`Networks`]).
    pub counted_as: IpAddr,
    /// What its connection may still try.
    pub credit: Arc<Credit>,
}

impl Networks {
    /// An IPv6 address counts by so many leading bits: 128 at most.
    #[must_use]
    pub fn new(ipv6_prefix_bits: u8) -> Self {
        Self { ipv6_prefix_bits: ipv6_prefix_bits.min(128) }
    }

    /// What counts as one address outside of a cluster.
    pub(super) fn outside() -> Self {
        Self::new(64)
    }

    /// The address that stands for all that count as one with this.
    #[must_use]
    pub fn of(self, address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => {
                let host_bits = u32::from(128 - self.ipv6_prefix_bits);
                let mask = u128::MAX.checked_shl(host_bits).unwrap_or_default();
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        }
    }
}

impl Default for Networks {
    /// Every address counts by itself.
    fn default() -> Self {
        Self::new(128)
    }
}

impl Credit {
    /// More is not saved up: of a connection that many share, each failure takes one.
    const MOST: u32 = 16;

    pub(super) fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }

    /// A signature was right. Written only while it changes something: a busy connection is full.
    pub(super) fn earn(&self) {
        let now = self.0.load(Ordering::Relaxed);
        if now < Self::MOST {
            self.0.store(now + 1, Ordering::Relaxed);
        }
    }

    /// An attempt has failed.
    pub(super) fn spend(&self) {
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    }
}

impl Default for Credit {
    /// That of a connection that has tried nothing yet.
    fn default() -> Self {
        Self(AtomicU32::new(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(networks: Networks, one: &str, other: &str) -> bool {
        networks.of(one.parse().unwrap()) == networks.of(other.parse().unwrap())
    }

    #[test]
    fn pods_of_one_node_are_different_addresses_unless_a_64_is_to_be_one() {
        let (pod, neighbour) = ("fd00:10:244:1::5", "fd00:10:244:1::6");
        assert!(!same(Networks::default(), pod, neighbour));
        assert!(same(Networks::new(64), pod, neighbour));
        assert!(!same(Networks::new(64), pod, "fd00:10:244:2::5"));
        assert!(same(Networks::new(0), pod, "2001:db8::1"));
        assert!(same(Networks::new(200), pod, pod));
    }

    #[test]
    fn an_ipv4_address_is_itself_however_it_is_written() {
        for networks in [Networks::default(), Networks::new(64), Networks::new(0)] {
            assert!(same(networks, "::ffff:192.0.2.1", "192.0.2.1"));
            assert!(!same(networks, "192.0.2.1", "192.0.2.2"));
        }
    }
}
