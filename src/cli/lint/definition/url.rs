//! URLs as the API server reads them in CEL, where `isURL` and `url` are Go's `url.ParseRequestURI`.
//!
//! It is neither RFC 3986 nor WHATWG's standard, so no crate reads the same: Go keeps the host's case, takes any number
//! for a port, and wants percent-encoding to be right in the path and absent from ASCII hosts.

use std::net::Ipv6Addr;

use cel::objects::Opaque;

/// What rules ask a URL for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// In lower case; empty for a path.
    pub(super) scheme: String,
    /// Without its port and without brackets. Percent-encoding stays: it can stand for what is beyond ASCII alone, with
    /// which no rule compares.
    pub(super) hostname: String,
}

impl Opaque for Url {
    fn runtime_type_name(&self) -> &'static str {
        "kubernetes.URL"
    }
}

impl Url {
    /// An absolute URL or an absolute path.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return None;
        }
        if text == "*" {
            return Some(Self { scheme: String::new(), hostname: String::new() });
        }
        let (scheme, rest) = split_scheme(text)?;
        let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
        if !rest.starts_with('/') {
            // What has a scheme and no path is opaque, as in `mailto:`.
            return (!scheme.is_empty()).then_some(Self { scheme, hostname: String::new() });
        }
        let (authority, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
            Some(after) => after.split_at(after.find('/').unwrap_or(after.len())),
            None => ("", rest),
        };
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let is_web = matches!(scheme.as_str(), "http" | "https");
        let is_sound = is_user(user) && is_escaped(path, |_| true);
        is_sound.then(|| hostname(host, is_web)).flatten().map(|hostname| Self { scheme, hostname })
    }
}

/// What stands before the first `:`, if it can be a scheme, and the rest.
fn split_scheme(text: &str) -> Option<(String, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
    let starts_with_letter = text.starts_with(|c: char| c.is_ascii_alphabetic());
    match end.map(|at| text.split_at(at)) {
        Some(("", rest)) if rest.starts_with(':') => None,
        Some((scheme, rest)) if starts_with_letter && rest.starts_with(':') => {
            Some((scheme.to_ascii_lowercase(), &rest[1..]))
        }
        _ => Some((String::new(), text)),
    }
}

fn hostname(host: &str, is_web: bool) -> Option<String> {
    if let Some(literal) = host.strip_prefix('[') {
        let (inside, port) = literal.rsplit_once(']')?;
        let (address, zone) = inside.split_once("%25").unwrap_or((inside, ""));
        let is_sound = is_port(port) && address.parse::<Ipv6Addr>().is_ok() && is_escaped(zone, |_| true);
        return is_sound.then(|| inside.to_owned());
    }
    let port_at = if is_web { host.find(':') } else { host.rfind(':') };
    let (name, port) = host.split_at(port_at.unwrap_or(host.len()));
    let is_sound = !host.contains('[') && is_port(port) && is_escaped(host, |byte| byte >= 0x80) && is_host(host);
    is_sound.then(|| name.to_owned())
}

/// Nothing, or `:` and any number of digits.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_user(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte))
        && is_escaped(text, |_| true)
}

/// Go refuses some characters in a host, and lets all beyond ASCII pass.
fn is_host(text: &str) -> bool {
    text.bytes().all(|byte| byte >= 0x80 || byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]<>\"%".contains(&byte))
}

/// Whether every `%` is followed by two hexadecimal digits that name a byte which may be written so.
fn is_escaped(text: &str, may_be: impl Fn(u8) -> bool) -> bool {
    text.split('%').skip(1).all(|after| {
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).is_some_and(&may_be)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Go 1.26 says of each: `url.ParseRequestURI`, `Scheme`, `Hostname()`.
    #[test]
    fn urls_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("https://shop.example/path?query#fragment", Some(("https", "shop.example"))),
            ("HTTP://LOCALHOST:8000", Some(("http", "LOCALHOST"))),
            ("http://localhost", Some(("http", "localhost"))),
            ("http://[::1]:8000/bye", Some(("http", "::1"))),
            ("http://127.1/", Some(("http", "127.1"))),
            ("https://a.example:99999/", Some(("https", "a.example"))),
            ("https://a.example:/", Some(("https", "a.example"))),
            ("https:///logo.png", Some(("https", ""))),
            ("https://user:pass@a.example/", Some(("https", "a.example"))),
            ("https://sch%C3%B6n.example/", Some(("https", "sch%C3%B6n.example"))),
            ("mailto:a@b.example", Some(("mailto", ""))),
            ("/path", Some(("", ""))),
            ("*", Some(("", ""))),
            ("https://a.example/?%zz", Some(("https", "a.example"))),
            ("", None),
            ("shop.example", None),
            (":a", None),
            ("1http://a.example/", None),
            ("https://a.example/%zz", None),
            ("https://a.example/#%zz", None),
            ("https://%41.example/", None),
            ("https://a b.example/", None),
            ("https://a.example:port/", None),
            ("https://a:1:2/", None),
            ("https://[::1/", None),
            ("https://a[::1]/", None),
            ("https://[127.0.0.1]/", None),
            ("https://a.example/\n", None),
        ] {
            let read = Url::parse(text);
            let read = read.as_ref().map(|url| (url.scheme.as_str(), url.hostname.as_str()));
            assert_eq!(read, expected, "{text:?}");
        }
    }
}
