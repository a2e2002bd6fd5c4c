//! When a delivery is tried again. Pure.

/// The first wait is up to this long, in milliseconds.
pub const FIRST_WAIT_MS: u64 = 5_000;
/// The longest wait, in milliseconds: an hour.
pub const LONGEST_WAIT_MS: u64 = 60 * 60 * 1_000;
/// How long a notification is tried before it is dead-lettered, in milliseconds: a day.
pub const GIVE_UP_AFTER_MS: u64 = 24 * 60 * 60 * 1_000;
/// The shortest wait after a failure, in milliseconds.
pub const SHORTEST_WAIT_MS: u64 = 1_000;

/// How long to wait after `failures` in a row, in milliseconds: up to twice as long each time, dealt evenly by `random` (0 to 1)
/// so that receivers that came back are not called by all at once. What the receiver asked for counts if it is longer, up to
/// [`LONGEST_WAIT_MS`].
#[must_use]
pub fn wait_ms(failures: u32, random: f64, retry_after_s: Option<u64>) -> u64 {
    let doublings = failures.saturating_sub(1).min(32);
    let most = FIRST_WAIT_MS.saturating_mul(1 << doublings).min(LONGEST_WAIT_MS);
    let share = if random.is_finite() { random.clamp(0.0, 1.0) } else { 1.0 };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let dealt = (most as f64 * share) as u64;
    let asked = retry_after_s.unwrap_or(0).saturating_mul(1_000).min(LONGEST_WAIT_MS);
    dealt.max(asked).max(SHORTEST_WAIT_MS)
}

/// When a notification of `at` is given up, of a webhook that fails since `failing_since`: nothing is tried for longer than
/// [`GIVE_UP_AFTER_MS`], and nothing that waited for a server that was stopped is given up at the first failure.
#[must_use]
pub fn gives_up_at(at: u64, failing_since: u64) -> u64 {
    at.max(failing_since).saturating_add(GIVE_UP_AFTER_MS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_grow_to_an_hour_and_take_a_day() {
        let longest: Vec<u64> = (1..=12).map(|failures| wait_ms(failures, 1.0, None) / 1_000).collect();
        assert_eq!(longest, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600, 3_600]);
        // With every wait half as long as it may be, a day has some fifty attempts.
        let (mut at, mut attempts) = (0, 0);
        while at < GIVE_UP_AFTER_MS {
            attempts += 1;
            at += wait_ms(attempts, 0.5, None);
        }
        assert!((40..80).contains(&attempts), "{attempts}");
    }

    #[test]
    fn a_receiver_may_ask_for_longer_within_bounds() {
        assert_eq!(wait_ms(1, 0.0, None), SHORTEST_WAIT_MS);
        assert_eq!(wait_ms(1, 0.0, Some(120)), 120_000);
        assert_eq!(wait_ms(1, 1.0, Some(1)), FIRST_WAIT_MS);
        assert_eq!(wait_ms(1, 0.5, Some(u64::MAX)), LONGEST_WAIT_MS);
    }

    proptest! {
        #[test]
        fn every_wait_is_within_bounds(failures: u32, random: f64, asked: Option<u64>) {
            let wait = wait_ms(failures, random, asked);
            prop_assert!((SHORTEST_WAIT_MS..=LONGEST_WAIT_MS).contains(&wait));
        }
    }
}
