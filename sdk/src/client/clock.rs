//! The client's only reading of the wall clock: the time stamps of exposures, and the epoch that numbers an instance's lives.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

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

#[cfg(test)]
mod tests {
    #[test]
    fn epochs_differ_within_a_millisecond() {
        let epochs: Vec<u64> = (0..100).map(|_| super::new_epoch()).collect();
        assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{epochs:?}");
    }
}
