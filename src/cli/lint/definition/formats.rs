//! The formats of text fields, as the API server reads them.

use crate::api::{InvalidDuration, LongDuration, parse_time};

/// How a text of the schema is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// As it stands.
    Text,
    /// A duration: in CEL, nanoseconds.
    Duration,
    /// A time. In CEL it is its text: a rule that compares times would be said not to be evaluated.
    Time,
}

impl Format {
    /// How values of this type and format are read; none where a format is not known, so that it can be said that it is
    /// not checked.
    pub(super) fn of(type_: Option<&str>, format: Option<&str>) -> Option<Self> {
        match format {
            // Those of numbers say how wide they are, which `minimum` and `maximum` say better.
            _ if type_ != Some("string") => Some(Self::Text),
            None => Some(Self::Text),
            Some("duration") => Some(Self::Duration),
            Some("date-time") => Some(Self::Time),
            Some(_) => None,
        }
    }
}

/// Whether the API server can read a duration. That it is too long is for a rule to say.
pub(super) fn is_duration(text: &str) -> bool {
    nanoseconds(text).is_some()
}

/// A duration as CEL compares it: one beyond what nanoseconds can count is the longest there is.
pub(super) fn nanoseconds(text: &str) -> Option<i64> {
    let seconds = match text.parse::<LongDuration>() {
        Ok(duration) => duration.seconds(),
        Err(InvalidDuration::TooLong) => u64::MAX,
        Err(InvalidDuration::Malformed) => return None,
    };
    Some(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000_000))
}

/// Whether the API server and the operator can both read a time. The API server knows no leap seconds.
pub(super) fn is_time(text: &str) -> bool {
    parse_time(text).is_ok() && text.get(17..19) != Some("60")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_nanoseconds_and_never_overflow() {
        for (text, expected) in [
            ("1s", Some(1_000_000_000)),
            ("26304h", Some(94_694_400_000_000_000)),
            ("1096d", Some(94_694_400_000_000_000)),
            ("30500568904944w", Some(i64::MAX)),
            ("1y", None),
            ("1.5h", None),
        ] {
            assert_eq!(nanoseconds(text), expected, "{text}");
            assert_eq!(is_duration(text), expected.is_some(), "{text}");
        }
    }

    #[test]
    fn a_leap_second_is_no_time_of_the_api_server() {
        for (text, expected) in [
            ("2026-11-22T07:00:00Z", true),
            ("2026-11-22T07:00:00.5+01:00", true),
            ("2026-12-31T23:59:60Z", false),
            ("2026-13-01T00:00:00Z", false),
            ("é", false),
        ] {
            assert_eq!(is_time(text), expected, "{text}");
        }
    }
}
