//! Time: the wall clock as a value that is passed around, and the only place that reads a clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment on the wall clock, in whole milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(i64);

impl UnixTime {
    /// The moment `seconds` after the epoch; saturates at the ends of the range.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// The moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Reads RFC 3339, such as `2026-11-23T08:00:00Z` or `2026-11-23T09:00:00.5+01:00`.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_once(['T', 't', ' '])?;
        let [year, month, day] = numbers(date, '-')?;
        let length = rest.find(['Z', 'z', '+', '-'])?;
        let (time, zone) = rest.split_at_checked(length)?;
        let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
        let [hour, minute, second] = numbers(whole, ':')?;
        let offset = offset(zone)?;
        let days = days_since_epoch(year, month, day);
        let real = civil_date(days) == (year, month, day) && hour < 24 && minute < 60 && second <= 60;
        if !real || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let millis = format!("{fraction:0<3}").get(..3)?.parse::<i64>().ok()?;
        let seconds = days * 86_400 + (hour * 60 + minute - offset) * 60 + second;
        Some(Self(seconds * 1000 + millis))
    }

    /// Whole seconds since the epoch, rounded down (a JWT NumericDate).
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// How long it is from `earlier` to here; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Add<Duration> for UnixTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

impl Sub<Duration> for UnixTime {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }
}

/// Writes RFC 3339 in UTC, to the millisecond: `2026-11-23T08:00:00.000Z`.
impl fmt::Display for UnixTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_date(self.secs().div_euclid(86_400));
        let second = self.secs().rem_euclid(86_400);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            self.0.rem_euclid(1000)
        )
    }
}

/// The Gregorian date of a day counted from 1970-01-01, after Howard Hinnant's `civil_from_days`.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_date`], after the same author's `days_from_civil`.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// `N` numbers of digits alone, the first of four and the others of two.
fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let digits = |part: &str| matches!(part.len(), 2 | 4) && part.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<i64> =
        text.split(separator).filter(|part| digits(part)).filter_map(|part| part.parse().ok()).collect();
    let expected = 3 * N - 1 + if separator == '-' { 2 } else { 0 };
    if text.len() == expected { parts.try_into().ok() } else { None }
}

/// Minutes east of Greenwich.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first()? {
        b'Z' | b'z' if zone.len() == 1 => return Some(0),
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let [hours, minutes] = numbers(zone.get(1..)?, ':')?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 60 + minutes))
}

/// What the wall clock says. The only reader of it: time is a parameter everywhere else.
#[expect(clippy::disallowed_methods, reason = "the one place that may read the wall clock")]
pub fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixTime(millis(since))
}

/// What the monotonic clock says: for measuring and for deadlines, never for a token.
#[expect(clippy::disallowed_methods, reason = "the one place that may read the monotonic clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// How far the clocks may drift apart before the wall clock counts as set. Slewing moves both alike.
const TOLERANCE: Duration = Duration::from_secs(2);

/// Since when the wall clock has run like the monotonic one. While that is not long ago, the wall clock may be wrong, and
/// what it says has expired may be needed still.
#[derive(Debug)]
pub struct Steadiness(Mutex<Anchor>);

/// Both clocks at the moment since which they agree.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    wall: UnixTime,
    monotonic: Instant,
}

impl Steadiness {
    /// Begins to compare the clocks.
    pub fn new(wall: UnixTime, monotonic: Instant) -> Self {
        Self(Mutex::new(Anchor { wall, monotonic }))
    }

    /// Compares the clocks again. Whether the wall clock was set since; then the agreement begins anew.
    pub fn observe(&self, wall: UnixTime, monotonic: Instant) -> bool {
        let mut anchor = self.anchor();
        let passed = monotonic.saturating_duration_since(anchor.monotonic);
        let expected = anchor.wall + passed;
        let apart = wall.since(expected).max(expected.since(wall));
        let was_set = apart > TOLERANCE;
        if was_set {
            *anchor = Anchor { wall, monotonic };
        }
        was_set
    }

    /// For how long the clocks have agreed, as of the last observation.
    pub fn lasts(&self, monotonic: Instant) -> Duration {
        monotonic.saturating_duration_since(self.anchor().monotonic)
    }

    fn anchor(&self) -> MutexGuard<'_, Anchor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steadiness_begins_anew_when_the_wall_clock_is_set() {
        let (wall, monotonic) = (UnixTime::from_secs(1_800_000_000), super::monotonic());
        let second = Duration::from_secs(1);
        let steady = Steadiness::new(wall, monotonic);
        for minute in 1..120 {
            let passed = minute * 60 * second;
            assert!(!steady.observe(wall + passed + second, monotonic + passed), "{minute}");
        }
        let hours = monotonic + 7200 * second;
        assert_eq!(steady.lasts(hours), 7200 * second);
        for (step, was_set) in [(86_400, true), (86_401, false), (1, true), (4, true), (5, false)] {
            assert_eq!(steady.observe(wall + (7200 + step) * second, hours), was_set, "{step}");
        }
        assert_eq!(steady.lasts(hours + 5 * second), 5 * second);
    }

    #[test]
    fn prints_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_420_800, "2026-11-23T08:00:00.000Z"),
            (-1, "1969-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(UnixTime::from_secs(seconds).to_string(), text);
        }
    }

    #[test]
    fn reads_rfc_3339() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T00:00:00.000Z", 951_782_400_000),
            ("2026-11-23T08:00:00Z", 1_795_420_800_000),
            ("2026-11-23t09:30:00+01:30", 1_795_420_800_000),
            ("2026-11-22 23:00:00.25-09:00", 1_795_420_800_250),
            ("2026-11-23T08:00:00.123999Z", 1_795_420_800_123),
            ("1969-12-31T23:59:59Z", -1000),
        ] {
            assert_eq!(UnixTime::parse(text), Some(UnixTime(millis)), "{text}");
        }
        for day in (-800_000..800_000).step_by(997) {
            let time = UnixTime::from_secs(day * 86_400 + 1);
            assert_eq!(UnixTime::parse(&time.to_string()), (0..=9999).contains(&civil_date(day).0).then_some(time));
        }
        for bad in [
            "",
            "now",
            "2026-11-23",
            "2026-11-23T08:00:00",
            "2026-11-23T08:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-11-00T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T08:60:00Z",
            "2026-11-23T08:00:00.Z",
            "2026-11-23T08:00:00.xZ",
            "2026-11-23T08:00:00Zx",
            "2026-11-23T08:00:00+1:00",
            "2026-11-23T08:00:00+99:00",
            "26-11-23T08:00:00Z",
            "2026-1-23T08:00:000Z",
            "02026-11-23T08:00:00Z",
            "+026-11-23T08:00:00Z",
        ] {
            assert_eq!(UnixTime::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_ends_of_the_range_saturate() {
        let end = UnixTime::from_secs(i64::MAX) + Duration::MAX;
        assert_eq!(end.millis(), i64::MAX);
        assert_eq!(UnixTime::from_secs(1).since(end), Duration::ZERO);
    }
}
