//! Which proxies are believed when they say who their client is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The most address ranges.
pub const MOST_PROXIES: usize = 64;

/// Proxies in front of the token service that end TLS and hand on the client's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ForwardedCertificates {
    /// The header that they set, and never let a client set.
    pub header: CertificateHeader,
    /// Their addresses. From everybody else the header means nothing.
    pub proxies: Vec<AddressRange>,
}

/// A header with a client certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateHeader {
    /// `Client-Cert` of RFC 9440: the DER in base64 between colons.
    ClientCert,
    /// `ssl-client-cert` of ingress-nginx: the PEM, percent-encoded.
    SslClientCert,
    /// `X-Forwarded-Client-Cert` of Envoy: the last element's `Cert` (the PEM, percent-encoded) or `Hash`.
    XForwardedClientCert,
}

/// A range of IP addresses in CIDR notation (RFC 4632, RFC 4291 §2.3), or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    prefix_bits: u8,
}

impl ForwardedCertificates {
    /// Whether this address is one of the proxies'.
    #[must_use]
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|range| range.contains(address))
    }
}

impl CertificateHeader {
    /// The header's name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientCert => "client-cert",
            Self::SslClientCert => "ssl-client-cert",
            Self::XForwardedClientCert => "x-forwarded-client-cert",
        }
    }
}

impl AddressRange {
    /// Whether the address lies in it. An IPv4 address is the same when it is written as an IPv6 one.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let is_masked = |first: u128, address: u128| first == masked(address, self.prefix_bits);
        let of_v4 = |address: Ipv4Addr| u128::from(address.to_bits()) << 96;
        match (self.first, address.to_canonical()) {
            (IpAddr::V4(first), IpAddr::V4(address)) => is_masked(of_v4(first), of_v4(address)),
            (IpAddr::V6(first), IpAddr::V6(address)) => is_masked(first.to_bits(), address.to_bits()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// The first bits of an address, zeros behind them.
fn masked(bits: u128, prefix_bits: u8) -> u128 {
    bits & u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0)
}

impl FromStr for AddressRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let first: IpAddr = address.parse().map_err(|_| "has no IP address")?;
        let most = if first.is_ipv4() { 32 } else { 128 };
        let is_number = |bits: &&str| !bits.is_empty() && bits.bytes().all(|digit| digit.is_ascii_digit());
        let prefix_bits = match prefix {
            None => most,
            Some(bits) => Some(bits)
                .filter(is_number)
                .and_then(|bits| bits.parse().ok())
                .ok_or("has a prefix length that is no number")?,
        };
        if prefix_bits > most {
            return Err("has a prefix longer than its address");
        }
        if first != first.to_canonical() {
            return Err("is an IPv4 address written as an IPv6 one");
        }
        let range = Self { first, prefix_bits };
        if range.contains(first) { Ok(range) } else { Err("has bits set behind its prefix") }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix_bits)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let problem = |problem| format!("Address range {text:?} {problem}: write one such as 10.0.0.0/8 or fd00::/8");
        text.parse().map_err(problem)
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_the_addresses_of_its_prefix() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.8/31", "::ffff:192.0.2.9", "192.0.2.10"),
            ("fd00::/8", "fdff::1", "fe80::1"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
            ("::/0", "2001:db8::1", "203.0.113.1"),
        ] {
            let range: AddressRange = range.parse().unwrap();
            assert!(range.contains(inside.parse().unwrap()), "{inside} is in {range}");
            assert!(!range.contains(outside.parse().unwrap()), "{outside} is not in {range}");
        }
    }

    #[test]
    fn what_is_no_range_is_told_with_the_fix() {
        for text in [
            "",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.1/8",
            "10.0.0",
            "fd00::/129",
            "proxy.example",
            "::ffff:10.0.0.0/104",
            "10.0.0.0/8/8",
        ] {
            let error = AddressRange::try_from(text.to_owned()).unwrap_err();
            assert!(error.starts_with(&format!("Address range {text:?} ")), "{error}");
            assert!(error.ends_with(": write one such as 10.0.0.0/8 or fd00::/8"), "{error}");
        }
    }
}
