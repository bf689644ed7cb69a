//! Who a proxy in front of us says that its client is: the certificate and the address.
//!
//! A header is believed from the configured proxies alone. Of a proxy nothing else counts: the certificate of its own
//! connection to us is not its client's. What it hands on and what cannot be read is no certificate.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::peer::Peer;
use crate::config::forwarded::{CertificateHeader, ForwardedCertificates};
use crate::ledger::Digest;

/// Not an RFC's, and everybody's: the addresses that a request came through, the client's first.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The most addresses that are looked at.
const MOST_HOPS: usize = 16;

/// Who has sent a request that came on this connection. The same as at its other end, unless that is a proxy.
#[must_use]
pub fn sender(proxies: Option<&ForwardedCertificates>, peer: Peer, headers: &HeaderMap) -> Peer {
    let Some(proxies) = proxies.filter(|proxies| proxies.is_proxy(peer.address)) else { return peer };
    Peer { address: address(proxies, peer.address, headers), certificate: certificate(proxies.header, headers) }
}

/// The rightmost address that is not one of the proxies': each of them adds whom it was asked by, and what stands left of
/// that is what somebody claims.
fn address(proxies: &ForwardedCertificates, proxy: IpAddr, headers: &HeaderMap) -> IpAddr {
    // What is no text is no address, and says nothing of those beside it.
    let lines: Vec<_> =
        headers.get_all(FORWARDED_FOR).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let hops = lines.iter().rev().flat_map(|line| line.rsplit(',')).take(MOST_HOPS).map(hop);
    let mut nearest = proxy;
    for hop in hops {
        let Some(address) = hop else { return nearest };
        nearest = address;
        if !proxies.is_proxy(address) {
            return nearest;
        }
    }
    nearest
}

/// An address, with or without a port.
fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(with_port).or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

/// The SHA-256 of the certificate in the header; `None` if it is not there exactly once or cannot be read.
#[must_use]
pub fn certificate(header: CertificateHeader, headers: &HeaderMap) -> Option<Digest> {
    let mut values = headers.get_all(header.name()).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let value = value.to_str().ok()?.trim();
    match header {
        CertificateHeader::ClientCert => byte_sequence(value),
        CertificateHeader::SslClientCert => escaped_pem(value),
        CertificateHeader::XForwardedClientCert => envoy(value),
    }
}

/// RFC 9440 §2.1: a byte sequence of RFC 8941 §3.3.5, the certificate's DER.
fn byte_sequence(value: &str) -> Option<Digest> {
    let encoded = value.strip_prefix(':')?.strip_suffix(':')?;
    STANDARD.decode(encoded).ok().filter(|der| !der.is_empty()).map(|der| Digest::of(&der))
}

/// One certificate in PEM, percent-encoded. A `+` is itself: it stands in base64.
fn escaped_pem(value: &str) -> Option<Digest> {
    let pem = percent_decoded(value)?;
    let mut certificates = CertificateDer::pem_slice_iter(&pem);
    let certificate = certificates.next()?.ok()?;
    certificates.next().is_none().then(|| Digest::of(&certificate))
}

/// The last element is that of the nearest proxy. Its pairs are divided by semicolons, a value may be quoted.
fn envoy(value: &str) -> Option<Digest> {
    let element = split_outside_quotes(value, ',').pop()?;
    let (mut certificate, mut hash) = (None, None);
    for pair in split_outside_quotes(element, ';') {
        let (key, value) = pair.trim().split_once('=')?;
        let place = match key.to_ascii_lowercase().as_str() {
            "cert" => &mut certificate,
            "hash" => &mut hash,
            _ => continue,
        };
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        if place.replace(value).is_some() {
            return None;
        }
    }
    let hash = match hash {
        Some(hash) => Some(Digest(hex(hash)?)),
        None => None,
    };
    let Some(certificate) = certificate else { return hash };
    escaped_pem(certificate).filter(|digest| hash.is_none_or(|hash| hash == *digest))
}

/// The parts between separators that do not stand in quotes.
fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == separator && !quoted => {
                parts.push(&text[from..at]);
                from = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn percent_decoded(text: &str) -> Option<Cow<'_, [u8]>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text.as_bytes()));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' { nibble(bytes.next()?)? << 4 | nibble(bytes.next()?)? } else { byte });
    }
    Some(Cow::Owned(decoded))
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = nibble(digits[0])? << 4 | nibble(digits[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
            headers
        })
    }

    fn proxies(header: CertificateHeader) -> ForwardedCertificates {
        let proxies = ["10.0.0.0/8", "fd00::/8"].map(|range| range.parse().unwrap());
        ForwardedCertificates { header, proxies: proxies.into() }
    }

    fn escaped(pem: &str) -> String {
        pem.bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).into() } else { format!("%{b:02X}") })
            .collect()
    }

    fn pair() -> (String, Vec<u8>) {
        let certified = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        (certified.cert.pem(), certified.cert.der().to_vec())
    }

    #[test]
    fn each_header_gives_the_hash_of_the_certificate_in_it() {
        let (pem, der) = pair();
        let digest = Digest::of(&der);
        let hash = digest.0.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let encoded = STANDARD.encode(&der);
        for (header, value) in [
            (CertificateHeader::ClientCert, format!(":{encoded}:")),
            (CertificateHeader::SslClientCert, escaped(&pem)),
            // A `+` of the PEM that was left as it is, and line ends of another system.
            (CertificateHeader::SslClientCert, escaped(&pem).replace("%2B", "+").replace("%0A", "%0D%0A")),
            (CertificateHeader::XForwardedClientCert, format!("By=spiffe://a;Hash={hash};Cert=\"{}\"", escaped(&pem))),
            (CertificateHeader::XForwardedClientCert, format!("Hash={hash};Subject=\"CN=a,O=\\\"b;c\\\"\"")),
            (CertificateHeader::XForwardedClientCert, format!("Hash={},cert={}", "00".repeat(32), escaped(&pem))),
        ] {
            assert_eq!(certificate(header, &headers(&[(header.name(), &value)])), Some(digest), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_certificate() {
        let (pem, der) = pair();
        let (other, _) = pair();
        let encoded = STANDARD.encode(&der);
        let zeros = "00".repeat(32);
        let (client_cert, nginx, xfcc) =
            (CertificateHeader::ClientCert, CertificateHeader::SslClientCert, CertificateHeader::XForwardedClientCert);
        for (header, value) in [
            (client_cert, String::new()),
            (client_cert, "::".to_owned()),
            (client_cert, ":".to_owned()),
            (client_cert, encoded.clone()),
            (client_cert, format!(":{encoded}")),
            (client_cert, format!(":{encoded}:, :{encoded}:")),
            (client_cert, ":***:".to_owned()),
            (nginx, String::new()),
            (nginx, "%".to_owned()),
            (nginx, "%2".to_owned()),
            (nginx, "%zz".to_owned()),
            (nginx, encoded),
            (nginx, escaped(&format!("{pem}{other}"))),
            (nginx, escaped(&pem).replace("CERTIFICATE", "PUBLIC%20KEY")),
            (xfcc, String::new()),
            (xfcc, "Hash".to_owned()),
            (xfcc, "By=a;URI=b".to_owned()),
            (xfcc, format!("Hash={}", &zeros[1..])),
            (xfcc, format!("Hash=+{}", &zeros[1..])),
            (xfcc, format!("Hash={zeros};Hash={zeros}")),
            (xfcc, format!("Hash={zeros};Cert=\"{}\"", escaped(&pem))),
            (xfcc, format!("Cert=\"{}\",By=a", escaped(&pem))),
        ] {
            assert_eq!(certificate(header, &headers(&[(header.name(), &value)])), None, "{value}");
        }
        let good = escaped(&pem);
        let twice = [(nginx.name(), &*good), (nginx.name(), &good)];
        assert_eq!(certificate(nginx, &headers(&twice)), None, "two headers");
        assert_eq!(certificate(nginx, &HeaderMap::new()), None);
    }

    #[test]
    fn a_header_is_believed_from_a_proxy_alone_and_of_a_proxy_nothing_else() {
        let (pem, der) = pair();
        let header = CertificateHeader::SslClientCert;
        let sent = headers(&[(header.name(), &escaped(&pem)), ("x-forwarded-for", "192.0.2.1")]);
        let own = Some(Digest::of(b"of the connection"));
        let peer = |address: &str| Peer { address: address.parse().unwrap(), certificate: own };
        let proxies = proxies(header);
        let said = sender(Some(&proxies), peer("10.1.2.3"), &sent);
        assert_eq!(said, Peer { address: "192.0.2.1".parse().unwrap(), certificate: Some(Digest::of(&der)) });
        for nobody in ["192.0.2.9", "11.0.0.1", "fe80::1"] {
            assert_eq!(sender(Some(&proxies), peer(nobody), &sent), peer(nobody));
        }
        assert_eq!(sender(None, peer("10.1.2.3"), &sent), peer("10.1.2.3"));
        let silent = sender(Some(&proxies), peer("10.1.2.3"), &HeaderMap::new());
        assert_eq!(silent, Peer { certificate: None, ..peer("10.1.2.3") }, "the proxy's own is not its client's");
    }

    #[test]
    fn the_clients_address_is_the_rightmost_that_is_no_proxys() {
        let proxies = proxies(CertificateHeader::ClientCert);
        let of = |lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            address(&proxies, "10.0.0.1".parse().unwrap(), &headers(&lines)).to_string()
        };
        assert_eq!(of(&[]), "10.0.0.1");
        assert_eq!(of(&["192.0.2.1"]), "192.0.2.1");
        assert_eq!(of(&["203.0.113.9, 192.0.2.1"]), "192.0.2.1", "what stands left of it is a claim");
        assert_eq!(of(&["203.0.113.9", "192.0.2.1, 10.9.9.9"]), "192.0.2.1");
        assert_eq!(of(&["192.0.2.1:4711,[fd00::1]:80"]), "192.0.2.1");
        assert_eq!(of(&["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(of(&["::ffff:192.0.2.1"]), "192.0.2.1");
        assert_eq!(of(&["192.0.2.1, unknown, 10.0.0.2"]), "10.0.0.2", "nothing left of it can be believed");
        assert_eq!(of(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "nobody but proxies");
        assert_eq!(of(&["caf\u{e9}, 192.0.2.1"]), "192.0.2.1", "what a client writes left of it is no text");
        assert_eq!(of(&["\u{e9}", "192.0.2.1"]), "192.0.2.1");
        assert_eq!(of(&[""]), "10.0.0.1");
        assert_eq!(of(&[&["10.0.0.2"; 40].join(",")]), "10.0.0.2");
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_panic(value in "[ -~]{0,200}") {
            for header in
                [CertificateHeader::ClientCert, CertificateHeader::SslClientCert, CertificateHeader::XForwardedClientCert]
            {
                let _ = certificate(header, &headers(&[(header.name(), &value)]));
            }
            let _ = address(&proxies(CertificateHeader::ClientCert), IpAddr::from([10, 0, 0, 1]),
                &headers(&[("x-forwarded-for", &value)]));
        }
    }
}
