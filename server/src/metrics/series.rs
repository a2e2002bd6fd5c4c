//! The last seconds of one flag and metric, both arms, merged over instances: bounded, and indifferent to order.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::window::{Pair, Row};

/// What a [`Series`] holds, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SeriesLimits {
    /// Seconds kept, 1 to 3,600; default 60. No window can be longer.
    pub seconds: u64,
    /// Whole seconds to wait for rows after a second has ended, before the guard reads it; default 0: whoever looks some
    /// 300 ms into the next second has nearly all rows, and late ones join the next second.
    pub lateness: u64,
}

impl Default for SeriesLimits {
    fn default() -> Self {
        Self { seconds: 60, lateness: 0 }
    }
}

/// Where a row went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filing {
    /// Into its own second.
    OnTime,
    /// Its second was read already: into the oldest one that was not, so that nothing is lost. Both arms of an instance
    /// travel in one batch and are late together, which is why the comparison between them stays fair.
    Late,
    /// Too old for the window, or later than the present second: dropped.
    Dropped,
}

/// Merged seconds, oldest first.
///
/// Memory: per second 2 arms of 256 bytes and 6 bytes for each bucket of their sketches that is not empty. With 60 seconds
/// and 100 buckets an arm that is some 100 kB; at most, all buckets of all sketches in use, 1.7 MB.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Series {
    limits: SeriesLimits,
    /// The second of the oldest pair.
    first: u64,
    pairs: VecDeque<Pair>,
    /// Windows that are kept up to date.
    rolling: Vec<Rolling>,
    /// The next second to be read by [`Series::advance`].
    unread: u64,
    late: u64,
    dropped: u64,
}

/// The seconds `start..unread`, merged.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rolling {
    seconds: u64,
    start: u64,
    total: Pair,
}

/// The most windows that a series keeps up to date.
pub const MAX_ROLLING: usize = 4;

impl Series {
    /// An empty series that begins at second `now`.
    #[must_use]
    pub fn new(limits: SeriesLimits, now: u64) -> Self {
        let limits = SeriesLimits { seconds: limits.seconds.clamp(1, 3_600), lateness: limits.lateness };
        Self { limits, first: now, unread: now, ..Self::default() }
    }

    /// Adds a row at the server's second `now`.
    pub fn add(&mut self, row: &Row, now: u64) -> Filing {
        self.roll(now);
        let end = self.first.saturating_add(self.pairs.len() as u64);
        let late = row.second < self.unread;
        if row.second >= end || row.second < self.first {
            self.dropped += 1;
            return Filing::Dropped;
        }
        let second = row.second.max(self.unread);
        let Some(pair) = self.pairs.get_mut((second - self.first) as usize) else {
            self.dropped += 1;
            return Filing::Dropped;
        };
        pair.arm_mut(row.arm).merge(&row.tally);
        if !late {
            return Filing::OnTime;
        }
        self.late += 1;
        Filing::Late
    }

    /// Keeps the last `seconds` seconds (1 to the series' own length) merged from now on; see [`Series::rolling`]. False if
    /// there are [`MAX_ROLLING`] already.
    pub fn keep_rolling(&mut self, seconds: u64) -> bool {
        let seconds = seconds.clamp(1, self.limits.seconds);
        if self.rolling.iter().any(|rolling| rolling.seconds == seconds) {
            return true;
        }
        let room = self.rolling.len() < MAX_ROLLING;
        if room {
            let start = self.unread.saturating_sub(seconds).max(self.first);
            self.rolling.push(Rolling { seconds, start, total: self.window(self.unread - start) });
        }
        room
    }

    /// Makes room for second `now` and forgets what is older than the window.
    fn roll(&mut self, now: u64) {
        let end = self.first.saturating_add(self.pairs.len() as u64);
        if now >= end.saturating_add(self.limits.seconds) {
            // Silent for longer than the window: nothing of it is left.
            self.pairs.clear();
            self.first = (now + 1).saturating_sub(self.limits.seconds).max(self.first);
            self.unread = self.unread.max(self.first);
            for rolling in &mut self.rolling {
                (rolling.start, rolling.total) = (self.unread, Pair::default());
            }
        }
        while self.first.saturating_add(self.pairs.len() as u64) <= now {
            self.pairs.push_back(Pair::default());
        }
        while self.pairs.len() as u64 > self.limits.seconds {
            let gone = self.pairs.pop_front().unwrap_or_default();
            for rolling in &mut self.rolling {
                if self.first >= rolling.start && self.first < self.unread {
                    rolling.total.subtract(&gone);
                }
                rolling.start = rolling.start.max(self.first + 1);
            }
            self.first += 1;
        }
        self.unread = self.unread.max(self.first);
    }

    /// Reads the next second for which waiting is over at `now`: gives it once, and none if there is none. Call it until it
    /// gives none; [`Series::last_read`] and [`Series::rolling`] then end with that second.
    pub fn advance(&mut self, now: u64) -> Option<u64> {
        self.roll(now);
        let second = self.unread;
        if second.saturating_add(self.limits.lateness) >= now {
            return None;
        }
        let pair = self.pairs.get((second - self.first) as usize)?;
        self.unread += 1;
        for rolling in &mut self.rolling {
            rolling.total.merge(pair);
            while rolling.start + rolling.seconds < self.unread {
                let gone = rolling.start.checked_sub(self.first).and_then(|at| self.pairs.get(at as usize));
                gone.into_iter().for_each(|gone| rolling.total.subtract(gone));
                rolling.start += 1;
            }
        }
        Some(second)
    }

    /// The second that [`Series::advance`] gave last; none before it gave one.
    #[must_use]
    pub fn last_read(&self) -> Option<&Pair> {
        let at = self.unread.checked_sub(self.first)?.checked_sub(1)?;
        self.pairs.get(usize::try_from(at).ok()?)
    }

    /// The last `seconds` seconds that were read, merged: the length given to [`Series::keep_rolling`]. None for others.
    #[must_use]
    pub fn rolling(&self, seconds: u64) -> Option<&Pair> {
        self.rolling.iter().find(|rolling| rolling.seconds == seconds).map(|rolling| &rolling.total)
    }

    /// The last `seconds` seconds that were read, merged anew: any length. Fewer if fewer are held.
    #[must_use]
    pub fn window(&self, seconds: u64) -> Pair {
        let mut merged = Pair::default();
        let read = self.unread.saturating_sub(self.first) as usize;
        let skip = read.saturating_sub(usize::try_from(seconds).unwrap_or(usize::MAX));
        self.pairs.iter().take(read).skip(skip).for_each(|pair| merged.merge(pair));
        merged
    }

    /// Rows that came after their second was read, and rows that were dropped, since the beginning.
    #[must_use]
    pub fn late_and_dropped(&self) -> (u64, u64) {
        (self.late, self.dropped)
    }

    /// Bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let pairs = self.pairs.iter().chain(self.rolling.iter().map(|rolling| &rolling.total));
        let held: usize = pairs.map(|pair| pair.treatment.bytes() + pair.control.bytes()).sum();
        size_of::<Self>() + held
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::{Arm, InstanceId, Tally};
    use super::*;
    use proptest::prelude::*;

    fn row(second: u64, count: u64) -> Row {
        let tally = Tally { count, ..Tally::default() };
        Row {
            second,
            arm: Arm::Treatment,
            instance: InstanceId(1),
            tally,
            first_seen: vec![],
            first_failing: vec![],
            first_latency: vec![],
        }
    }

    fn read(series: &mut Series, now: u64) -> Vec<(u64, u64)> {
        let mut all = Vec::new();
        while let Some(second) = series.advance(now) {
            all.push((second, series.last_read().unwrap().treatment.count));
        }
        all
    }

    #[test]
    fn a_second_is_read_once_after_the_wait_and_late_rows_join_the_next() {
        let mut series = Series::new(SeriesLimits { seconds: 5, lateness: 1 }, 100);
        assert_eq!(series.add(&row(100, 1), 100), Filing::OnTime);
        assert_eq!(read(&mut series, 101), []);
        assert_eq!(read(&mut series, 102), [(100, 1)]);
        assert_eq!(series.add(&row(100, 2), 102), Filing::Late);
        assert_eq!(series.add(&row(101, 4), 102), Filing::OnTime);
        assert_eq!(series.add(&row(103, 8), 102), Filing::Dropped, "the future is nobody's");
        assert_eq!(read(&mut series, 104), [(101, 6), (102, 0)]);
        assert_eq!(series.window(2).treatment.count, 6);
        assert_eq!(series.window(99).treatment.count, 7);
        assert_eq!(series.add(&row(99, 1), 104), Filing::Dropped);
        assert_eq!(series.late_and_dropped(), (1, 2));
    }

    #[test]
    fn a_long_silence_costs_nothing() {
        let mut series = Series::new(SeriesLimits { seconds: 5, lateness: 0 }, 0);
        series.add(&row(0, 1), 0);
        assert_eq!(read(&mut series, 4_000_000_000).len(), 4);
        assert!(series.bytes() < 8_000);
    }

    proptest! {
        #[test]
        fn a_rolling_window_is_the_window(rows in prop::collection::vec((0_u64..3, 0_u64..8, 1_u64..9), 0..60)) {
            let mut series = Series::new(SeriesLimits { seconds: 6, lateness: 1 }, 0);
            series.keep_rolling(4);
            let mut now = 3;
            for (more, ago, count) in rows {
                now += more;
                series.add(&row(now.saturating_sub(ago), count), now);
                if ago % 2 == 0 {
                    while series.advance(now).is_some() {
                        prop_assert_eq!(series.rolling(4).unwrap(), &series.window(4));
                    }
                }
            }
        }

        #[test]
        fn the_order_of_rows_does_not_matter(mut rows in prop::collection::vec((0_u64..10, 1_u64..9), 0..40)) {
            let fill = |rows: &[(u64, u64)]| {
                let mut series = Series::new(SeriesLimits { seconds: 20, lateness: 0 }, 0);
                rows.iter().for_each(|&(second, count)| { series.add(&row(second, count), 10); });
                read(&mut series, 12)
            };
            let one = fill(&rows);
            rows.reverse();
            prop_assert_eq!(one, fill(&rows));
        }
    }
}
