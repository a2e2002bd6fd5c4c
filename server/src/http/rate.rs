//! Rate limits: a token bucket for each caller, in bounded memory.

use std::collections::HashMap;
use std::hash::Hash;

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// Most callers remembered at once. Beyond it, callers whose buckets are full again are forgotten, which changes nothing for
/// them; if there are none, a new caller is let through unmetered.
const MAX_CALLERS: usize = 10_000;

/// Allows each caller a number of events per second, with bursts of twice as many.
#[derive(Debug)]
pub struct RateLimit<K> {
    per_second: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl<K: Eq + Hash> RateLimit<K> {
    /// A limit of `per_second` events.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second.max(1)), buckets: Mutex::default() }
    }

    fn burst(&self) -> f64 {
        self.per_second * 2.0
    }

    fn refilled(&self, bucket: Bucket, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * self.per_second;
        (bucket.tokens + gained).min(self.burst())
    }

    /// Counts one event.
    ///
    /// # Errors
    ///
    /// The seconds, at least 1, after which the caller may try again.
    pub fn take(&self, caller: K, now: Instant) -> Result<(), u64> {
        let mut buckets = self.buckets.lock();
        let tokens = buckets.get(&caller).map_or(self.burst(), |bucket| self.refilled(*bucket, now));
        if tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - tokens) / self.per_second).as_secs().max(1));
        }
        if buckets.len() >= MAX_CALLERS && !buckets.contains_key(&caller) {
            buckets.retain(|_, bucket| self.refilled(*bucket, now) < self.burst());
            if buckets.len() >= MAX_CALLERS {
                return Ok(());
            }
        }
        buckets.insert(caller, Bucket { tokens: tokens - 1.0, at: now });
        Ok(())
    }

    /// Whether the caller has used up its events, without counting one.
    ///
    /// # Errors
    ///
    /// As [`RateLimit::take`].
    pub fn check(&self, caller: &K, now: Instant) -> Result<(), u64> {
        let tokens = self.buckets.lock().get(caller).map_or(self.burst(), |bucket| self.refilled(*bucket, now));
        if tokens < 1.0 {
            Err(Duration::from_secs_f64((1.0 - tokens) / self.per_second).as_secs().max(1))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_each_caller_alone() {
        let (limit, start) = (RateLimit::new(10), Instant::now());
        assert!((0..20).all(|_| limit.take("a", start).is_ok()));
        assert_eq!(limit.take("a", start), Err(1));
        assert_eq!(limit.check(&"a", start), Err(1));
        assert!(limit.take("b", start).is_ok());
        let later = start + Duration::from_millis(150);
        assert!(limit.take("a", later).is_ok());
        assert!(limit.take("a", later).is_err());
    }

    #[test]
    fn memory_is_bounded() {
        let (limit, start) = (RateLimit::new(1), Instant::now());
        for caller in 0..MAX_CALLERS + 10 {
            assert!(limit.take(caller, start).is_ok());
        }
        assert_eq!(limit.buckets.lock().len(), MAX_CALLERS);
        assert!(limit.take(MAX_CALLERS + 11, start + Duration::from_secs(60)).is_ok());
        assert_eq!(limit.buckets.lock().len(), 1);
    }
}
