//! Durations as users write them: `365d`, `4w`, `1h30m`.
//!
//! Exactly `^([0-9]+(s|m|h|d|w))+$`, in whole seconds. No months or years, whose length varies, and no
//! fractions.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A duration of whole seconds between 0 and [`LongDuration::MAX`].
///
/// Displayed and serialized canonically, in days, hours, minutes and seconds: `4w` becomes `28d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LongDuration {
    seconds: u64,
}

/// Why a text is not a duration. Displayed for the person who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// It does not match the pattern.
    #[error("must be a duration in the units s, m, h, d and w: write it like 90d or 1h30m")]
    Malformed,
    /// It is longer than [`LongDuration::MAX`].
    #[error("must be at most 36525d (a hundred years): shorten it")]
    TooLong,
}

const MINUTE_SECONDS: u64 = 60;
const HOUR_SECONDS: u64 = 60 * MINUTE_SECONDS;
const DAY_SECONDS: u64 = 24 * HOUR_SECONDS;
const WEEK_SECONDS: u64 = 7 * DAY_SECONDS;

impl LongDuration {
    /// A hundred years: so short that adding it to a time of this millennium cannot overflow.
    pub const MAX: Self = Self::from_days(36_525);

    /// So many whole seconds; more than [`Self::MAX`] is [`Self::MAX`].
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        if seconds > 36_525 * DAY_SECONDS { Self::MAX } else { Self { seconds } }
    }

    /// So many hours of 3600 s; more than [`Self::MAX`] is [`Self::MAX`].
    #[must_use]
    pub const fn from_hours(hours: u32) -> Self {
        Self::from_seconds(hours as u64 * HOUR_SECONDS)
    }

    /// So many days of 86400 s; more than a hundred years are [`Self::MAX`].
    #[must_use]
    pub const fn from_days(days: u32) -> Self {
        let days = if days > 36_525 { 36_525 } else { days };
        Self { seconds: days as u64 * DAY_SECONDS }
    }

    /// The length in seconds.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.seconds
    }

    /// Whether it is no time at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.seconds == 0
    }

    /// The same length for arithmetic with [`jiff::Timestamp`].
    #[must_use]
    pub fn signed(self) -> jiff::SignedDuration {
        // `MAX` fits an i64 by far.
        jiff::SignedDuration::from_secs(i64::try_from(self.seconds).unwrap_or(i64::MAX))
    }
}

impl FromStr for LongDuration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        if text.is_empty() {
            return Err(InvalidDuration::Malformed);
        }
        let mut seconds = 0_u64;
        let mut number = None::<u64>;
        for character in text.bytes() {
            let unit = match (character, number) {
                (b'0'..=b'9', _) => {
                    let digit = u64::from(character - b'0');
                    // Saturating is exact enough: what saturates is over the limit.
                    number = Some(number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
                    continue;
                }
                (b's', Some(_)) => 1,
                (b'm', Some(_)) => MINUTE_SECONDS,
                (b'h', Some(_)) => HOUR_SECONDS,
                (b'd', Some(_)) => DAY_SECONDS,
                (b'w', Some(_)) => WEEK_SECONDS,
                _ => return Err(InvalidDuration::Malformed),
            };
            let term = number.take().unwrap_or(0).saturating_mul(unit);
            seconds = seconds.saturating_add(term);
        }
        if number.is_some() {
            return Err(InvalidDuration::Malformed);
        }
        if seconds > Self::MAX.seconds {
            return Err(InvalidDuration::TooLong);
        }
        Ok(Self { seconds })
    }
}

impl fmt::Display for LongDuration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return out.write_str("0s");
        }
        let mut rest = self.seconds;
        for (unit, length) in [('d', DAY_SECONDS), ('h', HOUR_SECONDS), ('m', MINUTE_SECONDS), ('s', 1)] {
            let count = rest / length;
            rest %= length;
            if count > 0 {
                write!(out, "{count}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for LongDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LongDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Result<String, InvalidDuration> {
        text.parse::<LongDuration>().map(|duration| duration.to_string())
    }

    #[test]
    fn durations_are_read_as_the_schema_pattern_says_and_shown_canonically() {
        for (text, shown) in [
            ("90d", "90d"),
            ("1h30m", "1h30m"),
            ("4w", "28d"),
            ("365d", "365d"),
            ("26304h", "1096d"),
            ("3600s", "1h"),
            ("30m1h", "1h30m"),
            ("1d1d", "2d"),
            ("0s", "0s"),
            ("007d", "7d"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(shown), "{text}");
        }
    }

    #[test]
    fn what_the_pattern_refuses_is_malformed() {
        for text in ["", "1", "d", "1y", "1.5h", "-1d", "+1d", "1 d", " 1d", "1d ", "P1D", "1H", "1d2", "1ms", "١d"] {
            assert_eq!(parsed(text), Err(InvalidDuration::Malformed), "{text:?}");
        }
    }

    #[test]
    fn a_number_that_would_overflow_is_too_long() {
        for text in ["36526d", "99999999999999999999999999w", "18446744073709551615s1s"] {
            assert_eq!(parsed(text), Err(InvalidDuration::TooLong), "{text}");
        }
        assert_eq!(LongDuration::from_seconds(u64::MAX), LongDuration::MAX);
        assert_eq!(LongDuration::from_days(u32::MAX), LongDuration::MAX);
        assert_eq!(LongDuration::from_hours(u32::MAX), LongDuration::MAX);
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_display_reads_back(text in "[0-9smhdwy ]{0,32}", seconds in 0..LongDuration::MAX.seconds) {
            let _ = text.parse::<LongDuration>();
            let duration = LongDuration::from_seconds(seconds);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }
    }
}
