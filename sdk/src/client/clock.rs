//! The client's only reading of the wall clock: the time stamps of exposures, the epoch that numbers an instance's lives, and
//! where the client's seconds begin.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Milliseconds since 1970; 0 while the clock stands before that.
#[expect(clippy::disallowed_methods, reason = "this is the one place where the client reads the clock")]
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The present in milliseconds since 1970, or the next number that no client of this process has had.
pub(super) fn new_epoch() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = unix_ms();
    let before = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
    now.max(before.unwrap_or_default() + 1)
}

/// The wall clock as it stood when the client began, carried on by the monotonic clock: seconds are never short, long or
/// counted twice when somebody sets the clock. How far it is from the server's is the server's to find out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    base_ms: u64,
    began: Instant,
}

impl Timeline {
    pub(super) fn new() -> Self {
        Self { base_ms: unix_ms(), began: Instant::now() }
    }

    /// Milliseconds since 1970.
    pub(super) fn ms(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.began).as_millis();
        self.base_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// Seconds since 1970.
    pub(super) fn second(&self, at: Instant) -> u64 {
        self.ms(at) / 1000
    }

    /// When the second after `second` begins.
    pub(super) fn end_of(&self, second: u64) -> Instant {
        let ms = second.saturating_add(1).saturating_mul(1000).saturating_sub(self.base_ms);
        self.began + Duration::from_millis(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_ends_where_the_next_begins() {
        let timeline = Timeline { base_ms: 10_250, began: Instant::now() };
        assert_eq!(timeline.second(timeline.began), 10);
        let end = timeline.end_of(10);
        assert_eq!(end - timeline.began, Duration::from_millis(750));
        assert_eq!((timeline.second(end), timeline.second(end - Duration::from_millis(1))), (11, 10));
    }

    #[test]
    fn epochs_differ_within_a_millisecond() {
        let epochs: Vec<u64> = (0..100).map(|_| super::new_epoch()).collect();
        assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{epochs:?}");
    }
}
