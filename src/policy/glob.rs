//! Globs: what a policy writes to mean many names at once.
//!
//! `*` stands for any run of characters, also an empty one and one with dots or slashes. `{namespace}` and `{name}` stand
//! for those of the registration, which contain neither. Everything else stands for itself; there is no escape, and a `*`
//! in a name is matched by one in the glob.

use super::Subject;

/// A glob, checked and taken apart once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    text: String,
    /// What stands between the stars, in order: always at least one part.
    parts: Vec<Vec<Piece>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Namespace,
    Name,
}

/// A brace that is no placeholder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have no braces but {{namespace}} and {{name}}: change {glob}")]
pub struct InvalidGlob {
    glob: String,
}

impl Glob {
    /// Reads a glob.
    pub fn parse(text: &str) -> Result<Self, InvalidGlob> {
        let parts = text.split('*').map(pieces).collect::<Option<_>>();
        parts.map(|parts| Self { text: text.to_owned(), parts }).ok_or_else(|| InvalidGlob { glob: text.to_owned() })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As it was written, with the placeholders filled in: what it means for `subject`.
    #[must_use]
    pub fn filled(&self, subject: Subject<'_>) -> String {
        let parts: Vec<String> = self.parts.iter().map(|part| fill(part, subject)).collect();
        parts.join("*")
    }

    /// Whether it means this text, asked for by `subject`. Linear in both: each part is looked for from where the one
    /// before it ended, and the leftmost place is as good as any later one.
    #[must_use]
    pub fn matches(&self, text: &str, subject: Subject<'_>) -> bool {
        let filled = |part: &[Piece]| fill(part, subject);
        let [first, middle @ .., last] = self.parts.as_slice() else {
            return self.parts.first().is_some_and(|only| filled(only) == text);
        };
        let Some(mut rest) = text.strip_prefix(filled(first).as_str()) else { return false };
        for part in middle {
            let part = filled(part);
            let Some(at) = rest.find(part.as_str()) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(filled(last).as_str())
    }
}

fn fill(part: &[Piece], subject: Subject<'_>) -> String {
    let text = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Namespace => subject.namespace.to_owned(),
        Piece::Name => subject.name.to_owned(),
    };
    part.iter().map(text).collect()
}

fn pieces(part: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = part;
    while let Some(open) = rest.find(['{', '}']) {
        let (text, placeholder) = rest.split_at(open);
        let (piece, after) = if let Some(after) = placeholder.strip_prefix("{namespace}") {
            (Piece::Namespace, after)
        } else {
            (Piece::Name, placeholder.strip_prefix("{name}")?)
        };
        pieces.extend((!text.is_empty()).then(|| Piece::Text(text.to_owned())));
        pieces.push(piece);
        rest = after;
    }
    pieces.extend((!rest.is_empty()).then(|| Piece::Text(rest.to_owned())));
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHOP: Subject<'static> = Subject { namespace: "shop", name: "storefront" };

    fn matches(glob: &str, text: &str) -> bool {
        Glob::parse(glob).unwrap().matches(text, SHOP)
    }

    #[test]
    fn a_glob_matches_what_it_says() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("*", "anything", true),
            ("**", "anything", true),
            ("orders:*", "orders:read", true),
            ("orders:*", "orders", false),
            ("*.shop.svc", "storefront.shop.svc", true),
            ("*.shop.svc", "storefront.shop.svc.evil.example", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXcYb", false),
            ("ab*ba", "aba", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
            ("", "", true),
            ("", "a", false),
            ("{namespace}.*", "shop.storefront", true),
            ("{namespace}.*", "shopping.storefront", false),
            ("{namespace}.{name}", "shop.storefront", true),
            ("{name}-*-{namespace}", "storefront--shop", true),
            ("a?c", "abc", false),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} ~ {text}");
        }
    }

    #[test]
    fn a_brace_that_is_no_placeholder_is_refused() {
        for glob in ["{team}", "{namespace", "}", "a{}b", "{{namespace}}"] {
            let problem = Glob::parse(glob).unwrap_err().to_string();
            assert_eq!(problem, format!("must have no braces but {{namespace}} and {{name}}: change {glob}"));
        }
    }

    /// The definition, as slow as it is plain.
    fn by_definition(glob: &[u8], text: &[u8]) -> bool {
        match glob.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|skipped| by_definition(rest, &text[skipped..])),
            Some((first, rest)) => text.split_first().is_some_and(|(c, text)| c == first && by_definition(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(glob in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(matches(&glob, &text), by_definition(glob.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn a_glob_that_would_make_a_backtracking_matcher_slow_ends_at_once() {
        let glob = format!("{}b", "a*".repeat(100));
        assert!(!matches(&glob, &"a".repeat(2_000)));
    }
}
