//! Durations, sizes and rates: `1h30m`, `64KiB`, `100/s`.

use std::time::Duration;

/// The longest duration that any key takes: ten years.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// From the largest down; a duration names each at most once, in this order.
const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

const SIZES: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

/// Parses `500ms`, `15m`, `1h30m`, `30d`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let mut units = TIMES.iter();
    let (mut total, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let (number, behind) = split_number(rest)?;
        let end = behind.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(behind.len());
        let (name, next) = behind.split_at(end);
        let (_, millis) = units.find(|(unit, _)| *unit == name)?;
        total = total.checked_add(number.checked_mul(*millis)?)?;
        rest = next;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// Parses `64KiB`, `1MiB`, `100B`, `4096`.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (number, name) = split_number(text)?;
    let (_, bytes) = SIZES.iter().find(|(unit, _)| *unit == name || (name.is_empty() && *unit == "B"))?;
    number.checked_mul(*bytes)
}

/// Parses `100/s`, `5/15m`: a count, and the time that it is for. A unit alone is one of it.
pub(super) fn parse_rate(text: &str) -> Option<(u64, Duration)> {
    let (count, time) = text.split_once('/')?;
    let count = match split_number(count)? {
        (count, "") => count,
        _ => return None,
    };
    let unit = TIMES.iter().find(|(unit, _)| *unit == time);
    let per = unit.map(|(_, millis)| Duration::from_millis(*millis)).or_else(|| parse_duration(time))?;
    Some((count, per))
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// As one would write it: `1h30m`.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if left == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    for (unit, millis) in TIMES {
        if left >= millis {
            out.push_str(&(left / millis).to_string());
            out.push_str(unit);
            left %= millis;
        }
    }
    out
}

/// As one would write it: `64KiB`.
pub(super) fn show_size(bytes: u64) -> String {
    let fitting = SIZES.iter().rev().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    let (name, unit) = fitting.unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}
