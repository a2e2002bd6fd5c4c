//! How far an instance's clock is from the server's, learned from the messages that carry their time.
//!
//! Received minus sent is the offset plus the message's delay, and a delay is never negative: the least of the last minute is
//! the offset and the least delay (the filter of NTP, RFC 5905, section 10, without the way back). Rows are filed by it, so
//! that an instance whose clock is wrong counts in the right second.

/// Length of a bucket in milliseconds. The least difference of this bucket and the one before it counts, so that a clock that
/// was set back is followed after two of them at the latest; one that was set forward is followed at once.
pub const BUCKET_MS: u64 = 30_000;

/// The offset of one instance's clock. Memory: 40 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockOffset {
    /// When the present bucket began, by the server's clock.
    since_ms: u64,
    /// The least difference of the present bucket, and of the one before it.
    present: Option<i64>,
    before: Option<i64>,
}

impl ClockOffset {
    /// Takes note of a message sent at `sent_ms` by the instance's clock and received at `received_ms` by the server's, both
    /// in milliseconds since 1970.
    pub fn observe(&mut self, sent_ms: u64, received_ms: u64) {
        let age = received_ms.abs_diff(self.since_ms);
        if self.present.is_none() || age >= BUCKET_MS {
            // What is older than two buckets, or was measured before the server's clock stepped, says nothing any more.
            self.before = self.present.filter(|_| age < 2 * BUCKET_MS);
            (self.since_ms, self.present) = (received_ms, None);
        }
        let difference = i128::from(received_ms) - i128::from(sent_ms);
        let difference = difference.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        self.present = Some(self.present.map_or(difference, |least| least.min(difference)));
    }

    /// Milliseconds to add to the instance's time to have the server's; 0 before anything was observed.
    #[must_use]
    pub fn offset_ms(&self) -> i64 {
        self.present.into_iter().chain(self.before).min().unwrap_or(0)
    }

    /// The server's second in which most of the instance's second lies, since 1970.
    #[must_use]
    pub fn second(&self, instance_second: u64) -> u64 {
        let middle = i128::from(instance_second) * 1_000 + 500 + i128::from(self.offset_ms());
        u64::try_from(middle / 1_000).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;

    proptest! {
        #[test]
        fn the_offset_is_the_true_one_and_the_least_delay(
            offset in -100_000_000_i64..100_000_000,
            delays in prop::collection::vec(0_u64..5_000, 1..60),
        ) {
            let mut clock = ClockOffset::default();
            for (second, delay) in delays.iter().enumerate() {
                let sent = NOW + second as u64 * 500;
                clock.observe(sent.checked_add_signed(-offset).unwrap(), sent + delay);
            }
            let least = *delays.iter().min().unwrap() as i64;
            prop_assert_eq!(clock.offset_ms(), offset + least);
        }

        #[test]
        fn a_step_is_followed_within_two_buckets(
            before in -1_000_000_i64..1_000_000,
            after in -1_000_000_i64..1_000_000,
            delays in prop::collection::vec(0_u64..100, 200..201),
        ) {
            let mut clock = ClockOffset::default();
            for (second, delay) in delays.iter().enumerate() {
                let sent = NOW + second as u64 * 1_000;
                let offset = if second < 100 { before } else { after };
                clock.observe(sent.checked_add_signed(-offset).unwrap(), sent + delay);
                let settled = if after <= before { 100 } else { 162 };
                let truth = if second < 100 { before } else { after };
                if second < 100 || second >= settled {
                    prop_assert!((truth..=truth + 100).contains(&clock.offset_ms()), "{} at {}", clock.offset_ms(), second);
                }
            }
        }

        #[test]
        fn any_times_are_taken(times in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20), second: u64) {
            let mut clock = ClockOffset::default();
            times.iter().for_each(|&(sent, received)| clock.observe(sent, received));
            prop_assert_eq!(clock.second(second), clock.second(second));
        }
    }

    #[test]
    fn a_second_is_filed_where_most_of_it_lies() {
        let mut clock = ClockOffset::default();
        assert_eq!(clock.second(100), 100);
        clock.observe(100_000, 100_400);
        assert_eq!(clock.second(100), 100);
        let mut clock = ClockOffset::default();
        clock.observe(100_000, 107_600);
        assert_eq!(clock.second(100), 108);
        let mut clock = ClockOffset::default();
        clock.observe(100_000, 10);
        assert_eq!(clock.second(3), 0, "before 1970 is 1970");
    }
}
