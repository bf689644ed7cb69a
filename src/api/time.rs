//! Times as users write them (RFC 3339 with offset) and as the status shows them.

use std::fmt;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Why a text is not a time. Displayed for the person who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not an RFC 3339 time with an offset, such as 2026-11-22T07:00:00Z or 2026-11-22T08:00:00+01:00")]
pub struct InvalidTime;

/// Reads an RFC 3339 time with an offset, exactly `YYYY-MM-DDThh:mm:ss[.fraction](Z|±hh:mm)`.
///
/// A time without an offset is refused: it would mean another instant on another machine.
pub fn parse_time(text: &str) -> Result<Timestamp, InvalidTime> {
    if !has_rfc_3339_shape(text) {
        return Err(InvalidTime);
    }
    text.parse().map_err(|_| InvalidTime)
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
