//! A sample of the people whom an environment has served lately. In memory only, and never written anywhere.
//!
//! The sample is a *bottom-k sketch* (E. Cohen and H. Kaplan, "Summarizing data using bottom-k sketches", PODC 2007), which is
//! reservoir sampling (J. S. Vitter, "Random sampling with a reservoir", 1985) with a priority for each distinct unit instead of
//! one for each exposure: every unit has a random priority, a keyed hash of it, and the units of the least priorities are kept.
//! Who is served often is as likely in it as who is served once. The key is drawn when the server starts.
//!
//! Two sketches overlap in time, and the union of both is a sketch of their union, so that the sample is of the people seen in
//! the last one to two periods of [`PERIOD_MS`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use guidon_sdk::protocol::{Exposure, ExposureBatch};
use parking_lot::Mutex;

use super::{AssignmentLog, Origin, Page, Query, QueryError, RefusedBatch, Storing};
use crate::clock::Clock;

/// Most units in the sample of an environment.
pub const MAX_SAMPLED_UNITS: usize = 1_000;
/// Most environments with a sample; the one that was fed longest ago gives way.
pub const MAX_SAMPLED_ENVIRONMENTS: usize = 32;
/// Longest unit that is sampled, in bytes; longer ones are passed over.
pub const MAX_SAMPLED_UNIT_BYTES: usize = 256;
/// How long a sketch takes people in: half an hour, in milliseconds.
pub const PERIOD_MS: u64 = 30 * 60 * 1_000;

/// One of those seen lately. `Debug` does not show who.
#[derive(Clone, PartialEq, Eq)]
pub struct Sampled {
    /// The unit, raw.
    pub unit: Arc<str>,
    /// The flag that it was first seen with.
    pub flag: Arc<str>,
}

impl std::fmt::Debug for Sampled {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sampled(…, {})", self.flag)
    }
}

/// Samples of all environments.
pub struct Reservoir {
    key: [u8; 32],
    clock: Arc<dyn Clock>,
    environments: Mutex<HashMap<Origin, Sketches>>,
}

impl std::fmt::Debug for Reservoir {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Reservoir")
            .field("environments", &self.environments.lock().len())
            .finish_non_exhaustive()
    }
}

/// The present sketch of an environment and the one before.
#[derive(Debug, Default)]
struct Sketches {
    began: u64,
    fed: u64,
    present: Sketch,
    past: Sketch,
}

/// The units of the least priorities.
type Sketch = BTreeMap<u64, Sampled>;

impl Reservoir {
    /// Empty samples, with priorities drawn by `key`.
    #[must_use]
    pub fn new(key: [u8; 32], clock: Arc<dyn Clock>) -> Self {
        Self { key, clock, environments: Mutex::default() }
    }

    /// The sample of an environment.
    #[must_use]
    pub fn sample(&self, origin: &Origin) -> Vec<Sampled> {
        let now = self.clock.now_ms();
        let mut environments = self.environments.lock();
        let Some(sketches) = environments.get_mut(origin) else { return Vec::new() };
        sketches.turn(now);
        let mut union = sketches.past.clone();
        union.extend(sketches.present.iter().map(|(priority, sampled)| (*priority, sampled.clone())));
        union.into_values().take(MAX_SAMPLED_UNITS).collect()
    }

    /// Takes a unit out of every sample of a project.
    pub fn forget(&self, project: &str, unit: &str) {
        let priority = self.priority(unit);
        let mut environments = self.environments.lock();
        for (_, sketches) in environments.iter_mut().filter(|(origin, _)| *origin.project == *project) {
            sketches.present.remove(&priority);
            sketches.past.remove(&priority);
        }
    }

    /// Takes in what was served.
    pub fn feed<'e>(&self, origin: &Origin, exposures: impl IntoIterator<Item = (&'e str, &'e str)>) {
        let now = self.clock.now_ms();
        // Hashed before the lock is taken.
        let drawn: Vec<(u64, &str, &str)> = exposures
            .into_iter()
            .filter(|(_, unit)| !unit.is_empty() && unit.len() <= MAX_SAMPLED_UNIT_BYTES)
            .map(|(flag, unit)| (self.priority(unit), flag, unit))
            .collect();
        if drawn.is_empty() {
            return;
        }
        let mut environments = self.environments.lock();
        if !environments.contains_key(origin) && environments.len() >= MAX_SAMPLED_ENVIRONMENTS {
            let longest_ago = environments.iter().min_by_key(|(_, sketches)| sketches.fed).map(|(of, _)| of.clone());
            longest_ago.and_then(|of| environments.remove(&of));
        }
        let sketches = environments.entry(origin.clone()).or_default();
        sketches.turn(now);
        sketches.fed = now;
        for (priority, flag, unit) in drawn {
            sketches.take(priority, flag, unit);
        }
    }

    fn priority(&self, unit: &str) -> u64 {
        let hash = blake3::keyed_hash(&self.key, unit.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl Sketches {
    /// Begins a new sketch when the time of the present one is over.
    fn turn(&mut self, now: u64) {
        let age = now.saturating_sub(self.began);
        if age >= 2 * PERIOD_MS {
            self.present.clear();
        }
        if age >= PERIOD_MS {
            self.past = std::mem::take(&mut self.present);
            self.began = now;
        }
    }

    fn take(&mut self, priority: u64, flag: &str, unit: &str) {
        let full = self.present.len() >= MAX_SAMPLED_UNITS;
        let beyond = self.present.last_key_value().is_some_and(|(largest, _)| priority > *largest);
        if (full && beyond) || self.present.contains_key(&priority) {
            return;
        }
        self.present.insert(priority, Sampled { unit: unit.into(), flag: flag.into() });
        if full {
            self.present.pop_last();
        }
    }
}

/// An assignment log that is sampled on the way.
pub struct SampledLog {
    log: Arc<dyn AssignmentLog>,
    reservoir: Arc<Reservoir>,
}

impl SampledLog {
    /// `log`, which `reservoir` samples.
    #[must_use]
    pub fn new(log: Arc<dyn AssignmentLog>, reservoir: Arc<Reservoir>) -> Self {
        Self { log, reservoir }
    }
}

impl AssignmentLog for SampledLog {
    fn last_batch(&self, origin: &Origin, instance: &str, epoch: u64) -> u64 {
        self.log.last_batch(origin, instance, epoch)
    }

    fn append(&self, origin: &Origin, batch: ExposureBatch) -> Result<Storing, RefusedBatch> {
        let seen: Vec<(String, String)> = batch.items.iter().map(pair).collect();
        let storing = self.log.append(origin, batch)?;
        self.reservoir.feed(origin, seen.iter().map(|(flag, unit)| (flag.as_str(), unit.as_str())));
        Ok(storing)
    }

    fn read(&self, query: &Query) -> Result<Page, QueryError> {
        self.log.read(query)
    }
}

fn pair(exposure: &Exposure) -> (String, String) {
    (exposure.flag.clone(), exposure.unit.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn origin(environment: &str) -> Origin {
        Origin { project: "shop".into(), environment: environment.into() }
    }

    fn reservoir() -> (Reservoir, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::new(10 * PERIOD_MS));
        (Reservoir::new([7; 32], clock.clone()), clock)
    }

    fn units(reservoir: &Reservoir, environment: &str) -> Vec<String> {
        let mut units: Vec<String> =
            reservoir.sample(&origin(environment)).iter().map(|sampled| sampled.unit.to_string()).collect();
        units.sort();
        units
    }

    #[test]
    fn a_few_people_are_all_in_it_once() {
        let (reservoir, _) = reservoir();
        for _ in 0..50 {
            reservoir.feed(&origin("staging"), [("f", "ann"), ("g", "ann"), ("f", "bob"), ("f", "")]);
        }
        reservoir.feed(&origin("production"), [("f", "eve")]);
        assert_eq!(units(&reservoir, "staging"), ["ann", "bob"]);
        reservoir.forget("shop", "ann");
        assert_eq!(units(&reservoir, "staging"), ["bob"]);
        assert!(!format!("{:?}", reservoir.sample(&origin("staging"))).contains("bob"), "nobody is shown");
    }

    #[test]
    fn of_many_everybody_is_as_likely_however_often_seen() {
        let (reservoir, _) = reservoir();
        let all: Vec<String> = (0..10_000).map(|number| format!("user-{number}")).collect();
        // The first tenth is served a hundred times as often.
        for _ in 0..100 {
            reservoir.feed(&origin("staging"), all[..1_000].iter().map(|unit| ("f", unit.as_str())));
        }
        reservoir.feed(&origin("staging"), all.iter().map(|unit| ("f", unit.as_str())));
        let sampled = units(&reservoir, "staging");
        assert_eq!(sampled.len(), MAX_SAMPLED_UNITS);
        let frequent = all[..1_000].iter().filter(|unit| sampled.binary_search(unit).is_ok()).count();
        // A tenth, within five standard deviations of the hypergeometric distribution.
        assert!((57..=143).contains(&frequent), "{frequent}");
    }

    #[test]
    fn it_forgets_whom_it_has_not_seen_for_two_periods() {
        let (reservoir, clock) = reservoir();
        reservoir.feed(&origin("staging"), [("f", "ann")]);
        clock.advance_ms(PERIOD_MS);
        reservoir.feed(&origin("staging"), [("f", "bob")]);
        assert_eq!(units(&reservoir, "staging"), ["ann", "bob"]);
        clock.advance_ms(PERIOD_MS);
        assert_eq!(units(&reservoir, "staging"), ["bob"]);
        clock.advance_ms(2 * PERIOD_MS);
        assert!(units(&reservoir, "staging").is_empty());
    }

    #[test]
    fn it_does_not_grow_with_the_environments() {
        let (reservoir, clock) = reservoir();
        for number in 0..MAX_SAMPLED_ENVIRONMENTS + 3 {
            reservoir.feed(&origin(&format!("e{number}")), [("f", "ann")]);
            clock.advance_ms(1);
        }
        assert_eq!(reservoir.environments.lock().len(), MAX_SAMPLED_ENVIRONMENTS);
        assert!(reservoir.sample(&origin("e0")).is_empty());
        let last = origin(&format!("e{}", MAX_SAMPLED_ENVIRONMENTS + 2));
        reservoir.feed(&last, [("f", "x".repeat(MAX_SAMPLED_UNIT_BYTES + 1).as_str())]);
        assert_eq!(reservoir.sample(&last).len(), 1);
    }
}
