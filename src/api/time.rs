//! Times as users write them (RFC 3339 with offset) and as the status shows them.

use std::fmt;

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Why a text is not a time. Displayed for the person who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be an RFC 3339 time with an offset: write it like 2026-11-22T07:00:00Z or 2026-11-22T08:00:00+01:00")]
pub struct InvalidTime;

/// The last second that a [`Timestamp`] has, 9999-12-30T22:00:00Z.
const LAST: Timestamp = Timestamp::constant(253_402_207_200, 0);

/// Reads an RFC 3339 time with an offset, exactly `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`.
///
/// A time without an offset is refused: it would mean another instant on another machine. Every other time that the API
/// server takes is understood: it checks no offset, and people write 9999-12-31T23:59:59Z for "never". A time beyond the
/// first or the last that can be represented is that one.
pub fn parse_time(text: &str) -> Result<Timestamp, InvalidTime> {
    if !has_rfc_3339_shape(text) {
        return Err(InvalidTime);
    }
    let offset_at = text.len() - if text.ends_with('Z') { 1 } else { 6 };
    let (local, offset) = text.split_at(offset_at);
    let local: DateTime = local.parse().map_err(|_| InvalidTime)?;
    let number = |range: std::ops::Range<usize>| offset.get(range).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let seconds: i64 = number(1..3) * 3600 + number(4..6) * 60;
    let ahead = SignedDuration::from_secs(if offset.starts_with('-') { -seconds } else { seconds });
    let since_epoch = local.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0)) - ahead;
    let nearest = if since_epoch.is_negative() { Timestamp::MIN } else { LAST };
    Ok(Timestamp::from_duration(since_epoch).unwrap_or(nearest).min(LAST))
}

/// A time in a status, in whole seconds: what is compared with the stored status is what is stored.
///
/// Serialized as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusTime(Timestamp);

impl From<Timestamp> for StatusTime {
    /// Cuts off what is below a second.
    fn from(time: Timestamp) -> Self {
        Self(Timestamp::from_second(time.as_second()).unwrap_or(time))
    }
}

impl StatusTime {
    /// The instant.
    #[must_use]
    pub const fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl fmt::Display for StatusTime {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl Serialize for StatusTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StatusTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_time(&text).map(Self::from).map_err(D::Error::custom)
    }
}

impl JsonSchema for StatusTime {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StatusTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time", "maxLength": 35})
    }
}

fn has_rfc_3339_shape(text: &str) -> bool {
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    let Some((moment, rest)) = text.as_bytes().split_at_checked(19) else {
        return false;
    };
    let moment_fits = moment.iter().zip(b"dddd-dd-ddTdd:dd:dd").all(|(actual, expected)| match expected {
        b'd' => actual.is_ascii_digit(),
        _ => actual == expected,
    });
    let offset = match rest {
        [b'.', fraction @ ..] => {
            let length = fraction.iter().take_while(|c| c.is_ascii_digit()).count();
            if !(1..=9).contains(&length) {
                return false;
            }
            &fraction[length..]
        }
        _ => rest,
    };
    let offset_fits = match offset {
        b"Z" => true,
        [b'+' | b'-', hours @ .., b':', _, _] if hours.len() == 2 => digits(hours) && digits(&offset[4..]),
        _ => false,
    };
    moment_fits && offset_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_an_offset_are_read() {
        for (text, utc) in [
            ("2026-11-22T07:00:00Z", "2026-11-22T07:00:00Z"),
            ("2026-11-22T08:00:00+01:00", "2026-11-22T07:00:00Z"),
            ("2026-11-22T06:59:59.25-00:30", "2026-11-22T07:29:59.25Z"),
        ] {
            assert_eq!(parse_time(text), Ok(utc.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_time_that_means_never_is_the_last_one_and_every_offset_is_understood() {
        for (text, utc) in [
            ("9999-12-30T22:00:00Z", "9999-12-30T22:00:00Z"),
            ("9999-12-30T22:00:00.5Z", "9999-12-30T22:00:00Z"),
            ("9999-12-30T22:00:01Z", "9999-12-30T22:00:00Z"),
            ("9999-12-31T23:59:59Z", "9999-12-30T22:00:00Z"),
            ("9999-12-31T23:59:59-99:99", "9999-12-30T22:00:00Z"),
            ("9999-12-31T23:59:59+23:59", "9999-12-30T22:00:00Z"),
            ("2099-12-31T00:00:00+26:00", "2099-12-29T22:00:00Z"),
            ("2099-12-31T00:00:00-99:99", "2100-01-04T04:39:00Z"),
            ("0000-01-01T00:00:00+99:99", "-000001-12-27T19:21:00Z"),
        ] {
            assert_eq!(parse_time(text), Ok(utc.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_has_no_offset_or_another_shape_is_refused() {
        for text in [
            "",
            "now",
            "2026-11-22",
            "2026-11-22T07:00:00",
            "2026-11-22 07:00:00Z",
            "2026-11-22T07:00:00z",
            "2026-11-22T07:00Z",
            "2026-11-22T07:00:00+01",
            "2026-11-22T07:00:00+0100",
            "2026-11-22T07:00:00.Z",
            "2026-11-22T07:00:00Z[Europe/Berlin]",
            "2026-13-22T07:00:00Z",
            "2026-11-22T25:00:00Z",
            "2026-11-22T07:00:00+é1:00",
        ] {
            assert_eq!(parse_time(text), Err(InvalidTime), "{text:?}");
        }
    }

    #[test]
    fn a_status_time_has_whole_seconds() {
        let time = StatusTime::from("2026-11-22T07:00:00.999Z".parse::<Timestamp>().unwrap());
        assert_eq!(time.to_string(), "2026-11-22T07:00:00Z");
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(serde_json::from_str::<StatusTime>(&json).unwrap(), time);
    }
}
