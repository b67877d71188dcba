//! Times as Go writes them: `1h30m`, `1.5s`, `300ms`.

use std::time::Duration;

/// Units and their nanoseconds. The micro sign has two code points.
const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a time that is not negative; `None` if it is none, or too large for 63 bits of nanoseconds.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total: u64 = 0;
    loop {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(scaled(number, *nanos)?)?;
        if next.is_empty() {
            return (total <= i64::MAX as u64).then(|| Duration::from_nanos(total));
        }
        rest = next;
    }
}

/// `number`, digits with at most one point, times `unit`; what is smaller than a nanosecond is cut off.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut result = whole.checked_mul(unit)?;
    let mut scale = unit;
    for digit in fraction.bytes() {
        scale /= 10;
        result = result.checked_add(scale * u64::from(digit - b'0'))?;
    }
    Some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("30s", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1_500)),
            (".5s", Some(500)),
            ("1.s", Some(1_000)),
            ("+5m", Some(300_000)),
            ("250ms", Some(250)),
            ("1000\u{b5}s", Some(1)),
            ("", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("-5s", None),
            ("5 s", None),
            ("5x", None),
            ("1.2.3s", None),
            ("99999999999999999999h", None),
            ("9999999h", None),
        ] {
            assert_eq!(parse(text).map(|time| time.as_millis()), expected, "{text:?}");
        }
    }
}
