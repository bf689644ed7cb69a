//! The calendar: when a credential is valid, when it is renewed, how long the old one overlaps.
//!
//! Pure arithmetic over timestamps; it knows neither ledger nor Secret, and reads no clock. The words are those of
//! X.509 and cert-manager: `minted_at`, `not_after`, `renewal_time`, `renew_before`, `overlap`.

use jiff::{SignedDuration, Timestamp};

/// How far in the future a revision's `minted_at` may lie and still be accepted, and how early before `minted_at` it is
/// accepted: two machines' clocks differ.
pub const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// A `minted_at` further in the future than this counts as minted before every watermark, and a clock further behind
/// the newest `minted_at` than this mints nothing.
pub const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// The longest effective duration of any credential, 1096 days: three years with a leap day.
pub const LONGEST_DURATION: SignedDuration = SignedDuration::from_hours(1096 * 24);

/// The longest lifetime of an access token, 24 hours.
pub const LONGEST_TOKEN_LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// The end of what has none, such as a public key without a certificate: later than every time that counts. X.509 has
/// the last second of the same year for it (RFC 5280 §4.1.2.5), which a [`Timestamp`] cannot hold.
pub const NO_END: Timestamp = Timestamp::constant(253_370_764_800, 0);

/// The jitter takes at most this part of a lifetime.
const JITTER_DIVISOR: i32 = 10;

/// The rhythm of one credential entry: how long each revision lives and how long before its end the next one comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    /// How long a newly minted revision is valid. Positive.
    pub effective_duration: SignedDuration,
    /// How long before its end a revision is replaced. Positive and less than `effective_duration`.
    pub renew_before: SignedDuration,
}

/// What a revision's jitter is derived from: the same identity gives the same jitter on every replica, after every
/// restart.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// The registration's uid.
    pub uid: &'a str,
    /// The credential entry's name.
    pub entry: &'a str,
    /// The revision; for access tokens the second they were minted in.
    pub revision: u64,
}

impl Rhythm {
    /// A rhythm that always satisfies its invariants: durations are bounded to one second … [`LONGEST_DURATION`], and
    /// a `renew_before` that is missing, not positive or not less than the duration becomes a third of it.
    #[must_use]
    pub fn new(effective_duration: SignedDuration, renew_before: Option<SignedDuration>) -> Self {
        let effective_duration = effective_duration.clamp(SignedDuration::from_secs(1), LONGEST_DURATION);
        let renew_before = renew_before
            .filter(|before| before.is_positive() && *before < effective_duration)
            .unwrap_or(effective_duration / 3);
        Self { effective_duration, renew_before }
    }

    /// The end of a revision minted now.
    #[must_use]
    pub fn not_after(&self, minted_at: Timestamp) -> Timestamp {
        add(minted_at, self.effective_duration)
    }

    /// The most by which jitter makes a renewal earlier: a tenth of the lifetime, and never more than half of the time
    /// before renewal, so that a revision is not due when it is born.
    #[must_use]
    pub fn jitter_bound(&self) -> SignedDuration {
        let quiet = self.effective_duration - self.renew_before;
        (self.effective_duration / JITTER_DIVISOR).min(quiet / 2)
    }

    /// How long an old revision stays accepted after its successor became readable: `renew_before` plus the jitter
    /// bound, so that a scheduled rotation ends at the old one's `not_after` without an extra write.
    #[must_use]
    pub fn overlap(&self) -> SignedDuration {
        self.renew_before + self.jitter_bound()
    }

    /// When a revision is due for renewal: `renew_before` (and the jitter) before the earlier of its `not_after` and
    /// the end that today's effective duration would give it. A lengthened duration thus extends nothing already out,
    /// a shortened one makes the renewal earlier.
    #[must_use]
    pub fn renewal_time(&self, identity: Identity<'_>, minted_at: Timestamp, not_after: Timestamp) -> Timestamp {
        let end = not_after.min(self.not_after(minted_at));
        // The lifetime it was given counts: a lengthened duration does not make what is out due by a larger jitter.
        let bound = self.jitter_bound().min(end.duration_since(minted_at) / JITTER_DIVISOR);
        let lead = self.renew_before + fraction(bound, identity);
        add(end, -lead)
    }
}

/// `at + by`, saturating at the ends of time: a hostile duration must not panic.
#[must_use]
pub fn add(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(if by.is_negative() { Timestamp::MIN } else { Timestamp::MAX })
}

/// The timestamp cut to whole seconds: what X.509 and JWT can express, and what stands in the ledger.
#[must_use]
pub fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// The next whole second, or the timestamp if it is one: decisions are made on whole seconds, so what comes within a
/// second comes at its end.
#[must_use]
pub fn whole_seconds_up(at: Timestamp) -> Timestamp {
    let floor = whole_seconds(at);
    if floor < at { add(floor, SignedDuration::from_secs(1)) } else { floor }
}

/// Whether a revision is within its validity: `minted_at - 60 s ≤ now < not_after` (rule R1).
#[must_use]
pub fn is_valid(minted_at: Timestamp, not_after: Timestamp, now: Timestamp) -> bool {
    add(minted_at, -CLOCK_SKEW) <= now && now < not_after
}

/// Whether a watermark that has come applies to something minted at `minted_at`: it was minted before the watermark,
/// or so far in the future that its clock cannot be believed.
#[must_use]
pub fn is_before_watermark(minted_at: Timestamp, watermark: Timestamp, now: Timestamp) -> bool {
    watermark <= now && (minted_at < watermark || minted_at > add(now, CLOCK_TOLERANCE))
}

/// A share of `bound` between 0 and 1, chosen by a hash of the identity (FNV-1a, finished by a mix so that
/// neighbouring revisions differ in their high bits).
fn fraction(bound: SignedDuration, identity: Identity<'_>) -> SignedDuration {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = identity
        .uid
        .bytes()
        .chain([0])
        .chain(identity.entry.bytes())
        .chain([0])
        .chain(identity.revision.to_be_bytes())
        .fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
    // Twenty bits: a millionth of the bound is finer than any schedule needs, and the product cannot overflow.
    let millis = (bound.as_millis().max(0) * i128::from(mixed)) >> 20;
    SignedDuration::from_millis(i64::try_from(millis).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn identity(revision: u64) -> Identity<'static> {
        Identity { uid: "0c1e4b6e-6d8a-4f6e-9a55-1d3c0e6f7a10", entry: "web", revision }
    }

    #[test]
    fn renew_before_defaults_to_a_third_of_the_duration() {
        let rhythm = Rhythm::new(SignedDuration::from_hours(24 * 90), None);
        assert_eq!(rhythm.renew_before, SignedDuration::from_hours(24 * 30));
    }

    #[test]
    fn no_end_is_in_the_last_year() {
        assert_eq!(NO_END, at("9999-01-01T00:00:00Z"));
    }

    #[test]
    fn a_lengthened_duration_extends_nothing_already_out() {
        let minted = at("2026-01-01T00:00:00Z");
        let old = Rhythm::new(SignedDuration::from_hours(24 * 30), None);
        let new = Rhythm::new(SignedDuration::from_hours(24 * 365), Some(old.renew_before));
        let not_after = old.not_after(minted);
        assert!(new.renewal_time(identity(1), minted, not_after) <= add(not_after, -old.renew_before));
    }

    #[test]
    fn a_shortened_duration_makes_the_renewal_earlier() {
        let minted = at("2026-01-01T00:00:00Z");
        let old = Rhythm::new(SignedDuration::from_hours(24 * 365), None);
        let new = Rhythm::new(SignedDuration::from_hours(24 * 30), None);
        let due = new.renewal_time(identity(1), minted, old.not_after(minted));
        assert!(due <= at("2026-01-21T00:00:00Z"), "{due}");
    }

    #[test]
    fn registrations_applied_together_do_not_renew_together() {
        let rhythm = Rhythm::new(SignedDuration::from_hours(24 * 90), None);
        let minted = at("2026-01-01T00:00:00Z");
        let times: std::collections::BTreeSet<_> = (0..100)
            .map(|n| {
                let uid = format!("uid-{n}");
                let identity = Identity { uid: &uid, entry: "web", revision: 1 };
                rhythm.renewal_time(identity, minted, rhythm.not_after(minted))
            })
            .collect();
        assert!(times.len() > 95, "{} distinct times of 100", times.len());
        let spread = times.last().unwrap().duration_since(*times.first().unwrap());
        assert!(spread > rhythm.jitter_bound() / 2, "{spread:?}");
    }

    #[test]
    fn a_watermark_in_the_future_applies_to_nothing_yet() {
        let now = at("2026-01-01T00:00:00Z");
        assert!(!is_before_watermark(at("2025-01-01T00:00:00Z"), at("2026-01-01T00:00:01Z"), now));
        assert!(is_before_watermark(at("2025-01-01T00:00:00Z"), now, now));
        assert!(!is_before_watermark(now, now, now), "minted at the watermark is not before it");
    }

    #[test]
    fn a_mint_time_that_cannot_be_believed_counts_as_before_the_watermark() {
        let now = at("2026-01-01T00:00:00Z");
        assert!(is_before_watermark(at("2026-01-01T00:05:01Z"), now, now));
        assert!(!is_before_watermark(at("2026-01-01T00:05:00Z"), now, now));
    }

    proptest! {
        #[test]
        fn a_renewal_lies_strictly_inside_the_lifetime_and_within_the_overlap(
            seconds in 1_i64..94_694_400, renew in proptest::option::of(-5_i64..100_000_000), revision in 0_u64..1000,
        ) {
            let rhythm = Rhythm::new(SignedDuration::from_secs(seconds), renew.map(SignedDuration::from_secs));
            let minted = at("2026-01-01T00:00:00Z");
            let not_after = rhythm.not_after(minted);
            let due = rhythm.renewal_time(identity(revision), minted, not_after);
            prop_assert!(minted < due && due < not_after);
            prop_assert!(add(due, rhythm.overlap()) >= not_after, "a scheduled rotation ends at not_after");
        }

        #[test]
        fn no_duration_panics(seconds in any::<i64>(), renew in any::<i64>(), when in any::<i64>()) {
            let rhythm = Rhythm::new(SignedDuration::from_secs(seconds), Some(SignedDuration::from_secs(renew)));
            let minted = Timestamp::from_second(when.clamp(-377_705_023_201, 253_402_207_200)).unwrap();
            let _ = rhythm.renewal_time(identity(1), minted, rhythm.not_after(minted));
        }
    }
}
