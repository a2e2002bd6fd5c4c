//! Makes rows of what was counted, and remembers which units were met. Pure: the seconds are handed in.

use std::collections::HashMap;

use super::{Counts, Key};
use crate::eval::Measures;
use crate::measure::{Firsts, MAX_FIRSTS, MetricRow, SHADOW_METRIC, UNIT_PERIOD_SECONDS, WhenFull};

/// Most rows that are open at a time, as a rule those of one second. What is counted for further ones is dropped.
pub const MAX_ROWS: usize = 4_096;
/// Most flags under release whose units are remembered, at 40 kB each; rows of further ones say nothing of units. A shadow
/// step takes two places more.
pub const MAX_REMEMBERED: usize = 100;
/// Logarithm of the bits of each filter: enough for some 11,000 units of one flag in one instance.
const MEMORY_BITS: u32 = 16;

/// Rows that are not closed yet, and the units met so far.
#[derive(Default)]
pub(in crate::client) struct Ledger {
    open: HashMap<Key, Counts>,
    memory: HashMap<(String, Scope), Memory>,
    dropped: u64,
}

/// Whose units are told apart. Both arms of a flag share a memory, as a unit is of one arm; in a shadow step it is of both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scope {
    Flag,
    Shadow(String),
}

/// The units of one flag under release.
struct Memory {
    treatment: String,
    control: String,
    edition: u64,
    seen: Firsts,
    failing: Firsts,
    timed: Firsts,
    period: u64,
}

impl Memory {
    fn new(release: &Measures) -> Self {
        Self {
            treatment: release.asked().treatment.clone(),
            control: release.asked().control.clone(),
            edition: release.edition(),
            seen: Firsts::new(MEMORY_BITS, WhenFull::Freeze),
            failing: Firsts::new(MEMORY_BITS, WhenFull::Rotate),
            timed: Firsts::new(MEMORY_BITS, WhenFull::Rotate),
            period: 0,
        }
    }

    /// Forgets what is of an earlier release, configuration or period.
    fn turn_to(&mut self, release: &Measures, second: u64) {
        if self.treatment != release.asked().treatment || self.control != release.asked().control {
            *self = Self::new(release);
        } else if self.edition != release.edition() {
            self.edition = release.edition();
            self.seen = Firsts::new(MEMORY_BITS, WhenFull::Freeze);
        }
        let period = second / UNIT_PERIOD_SECONDS;
        if self.period != period {
            self.period = period;
            self.timed = Firsts::new(MEMORY_BITS, WhenFull::Rotate);
        }
    }

    /// Fills in what `row` says of units. A unit that finds no room among the firsts is left for a later second.
    fn count(&mut self, row: &mut MetricRow, counts: &Counts) {
        let failing = counts.units.iter().filter(|(_, met)| met.failed).map(|(&unit, _)| unit);
        row.units = counts.units.len() as u64;
        row.failing_units = failing.clone().count() as u64;
        row.units_at_risk = counts.units.keys().filter(|&&unit| !self.failing.contains(unit)).count() as u64;
        row.first_failing = firsts(&mut self.failing, failing);
        row.first_seen = firsts(&mut self.seen, counts.units.keys().copied());
        row.first_latency = firsts(&mut self.timed, counts.units.keys().copied())
            .into_iter()
            .filter_map(|unit| counts.units.get(&unit).map(|met| (unit, met.bucket)))
            .collect();
    }
}

fn firsts(known: &mut Firsts, units: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut new = Vec::new();
    for unit in units {
        if new.len() == MAX_FIRSTS {
            break;
        }
        if known.insert(unit) {
            new.push(unit);
        }
    }
    new
}

impl Ledger {
    /// Adds what was taken out of the windows, and how much those dropped.
    pub(in crate::client) fn add(&mut self, (taken, dropped): (Vec<(Key, Counts)>, u64)) {
        self.dropped += dropped;
        for (key, counts) in taken {
            if let Some(open) = self.open.get_mut(&key) {
                open.merge(counts);
            } else if self.open.len() < MAX_ROWS {
                self.open.insert(key, counts);
            } else {
                self.dropped += 1;
            }
        }
    }

    /// Rows of the seconds before `second`, oldest first.
    pub(in crate::client) fn close(&mut self, second: u64) -> Vec<MetricRow> {
        let mut closed: Vec<(Key, Counts)> = self.open.extract_if(|key, _| key.second < second).collect();
        closed.sort_unstable_by(|(one, _), (other, _)| order(one).cmp(&order(other)));
        closed.into_iter().map(|(key, counts)| self.row(key, counts)).collect()
    }

    /// How much was dropped since the last time.
    pub(in crate::client) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Forgets the units of flags that are under release no more.
    pub(in crate::client) fn keep(&mut self, under_release: impl Fn(&str) -> bool) {
        self.memory.retain(|(flag, _), _| under_release(flag));
    }

    fn row(&mut self, key: Key, mut counts: Counts) -> MetricRow {
        let mut row = MetricRow {
            second: key.second,
            flag: key.flag.to_string(),
            variation: key.variation.to_string(),
            metric: key.metric.to_string(),
            revision: key.revision,
            count: counts.count,
            errors: counts.errors,
            latency: std::mem::take(&mut counts.latency),
            values: counts.values,
            ..MetricRow::default()
        };
        if !counts.units.is_empty()
            && let Some(release) = counts.release.clone()
            && let Some(memory) = self.memory(&row, &release)
        {
            memory.count(&mut row, &counts);
        }
        row
    }

    fn memory(&mut self, row: &MetricRow, release: &Measures) -> Option<&mut Memory> {
        let scope = if row.metric == SHADOW_METRIC { Scope::Shadow(row.variation.clone()) } else { Scope::Flag };
        let place = (row.flag.clone(), scope);
        if self.memory.len() >= MAX_REMEMBERED && !self.memory.contains_key(&place) {
            return None;
        }
        let memory = self.memory.entry(place).or_insert_with(|| Memory::new(release));
        memory.turn_to(release, row.second);
        Some(memory)
    }
}

/// Within a second by revision, so that a memory turns to a new configuration once.
fn order(key: &Key) -> (u64, u64, &str, &str, &str) {
    (key.second, key.revision, &key.flag, &key.metric, &key.variation)
}
