//! How long to wait before trying again.

use std::time::{Duration, SystemTime};

use super::settings::Patience;

/// The wait before the attempt after number `attempt` (from 1): doubles, with jitter so that a hundred jobs of one batch don't come
/// back at the same moment; a server's `Retry-After` is obeyed up to the longest delay.
pub(super) fn delay(patience: &Patience, attempt: u32, retry_after: Option<Duration>) -> Duration {
    let backoff = patience.first_delay.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(patience.longest_delay);
    let jittered = backoff.mul_f64(0.5 + 0.5 * random());
    match retry_after {
        Some(asked) => asked.min(patience.longest_delay) + jittered.min(Duration::from_secs(1)),
        None => jittered,
    }
}

/// Between 0 and 1; good enough to spread load.
fn random() -> f64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let hash = std::collections::hash_map::RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(hash >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds or a date.
pub(super) fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = header.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(header.trim()).ok()?.timestamp();
    let now = jiff::Timestamp::try_from(now).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_stay_bounded() {
        let patience = Patience { first_delay: Duration::from_secs(1), longest_delay: Duration::from_secs(8), ..Patience::default() };
        for (attempt, longest) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (90, 8)] {
            let delay = delay(&patience, attempt, None);
            assert!(delay <= Duration::from_secs(longest) && delay * 2 >= Duration::from_secs(longest), "{attempt}: {delay:?}");
        }
        assert!(delay(&patience, 1, Some(Duration::from_secs(3600))) <= Duration::from_secs(9));
        assert!(delay(&patience, 1, Some(Duration::from_secs(4))) >= Duration::from_secs(4));
    }

    #[test]
    fn reads_retry_after() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT
        for (header, expected) in [
            ("5", Some(5)),
            (" 120 ", Some(120)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(header, now), expected.map(Duration::from_secs), "{header}");
        }
    }
}
