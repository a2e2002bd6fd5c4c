//! What each instance counted in the last minute, for telling one that is ill from its peers.

use std::collections::{HashMap, VecDeque};

use guidon_sdk::measure::sketch::BUCKETS;
use guidon_sdk::measure::{HostReading, MetricRow, Sketch};

use super::window::{Arm, InstanceId};

/// The most instances of one watched flag. Others are not compared, and counted.
pub const MAX_INSTANCES: usize = 1_000;

/// Seconds that an instance's numbers are of: the present ten and the fifty before them.
pub const WINDOW_SECONDS: u64 = 60;

const SLOT_SECONDS: u64 = 10;
/// Sketch buckets taken together, so that a latency is known within 8 % and a slot has at most 143 buckets.
const COARSE: u16 = 8;

/// What one instance counted for one arm in the last [`WINDOW_SECONDS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArmTally {
    /// Calls.
    pub count: u64,
    /// Calls that failed; a fallback is a failure.
    pub errors: u64,
    /// Latencies, within 8 %.
    pub latency: Sketch,
}

/// One instance beside its peers.
#[derive(Clone, Debug, PartialEq)]
pub struct InstanceTally {
    /// Its name.
    pub instance: String,
    /// The path under release.
    pub treatment: ArmTally,
    /// The baseline.
    pub control: ArmTally,
    /// What it last said of its host; none if it says nothing.
    pub host: Option<HostReading>,
    /// The server's second at which it was last heard.
    pub heard: u64,
    /// The run of its process: grows with each start.
    pub epoch: u64,
}

#[derive(Debug)]
struct Held {
    name: String,
    heard: u64,
    epoch: u64,
    host: Option<HostReading>,
    /// The slot's number, treatment and control; oldest first.
    slots: VecDeque<(u64, [ArmTally; 2])>,
}

/// The instances of one watched flag.
///
/// Memory: an instance takes some 200 bytes and, for each arm and ten seconds, 72 bytes and 6 for each of its latency buckets
/// that is not empty: about 2 kB with ten of them, 13 kB at most. So 2 MB with [`MAX_INSTANCES`], 13 MB at most.
#[derive(Debug, Default)]
pub struct Instances {
    held: HashMap<InstanceId, Held>,
    left_out: u64,
    swept: u64,
}

impl Instances {
    /// Notes that the instance is there at second `now`, in which run of its process, and what it says of its host. False if
    /// there is no room for it.
    pub fn hear(&mut self, id: InstanceId, name: &str, epoch: u64, host: Option<&HostReading>, now: u64) -> bool {
        if !self.held.contains_key(&id) {
            if !self.has_room(now) {
                self.left_out += 1;
                return false;
            }
            let held = Held { name: name.to_owned(), heard: now, epoch, host: None, slots: VecDeque::new() };
            self.held.insert(id, held);
        }
        if let Some(held) = self.held.get_mut(&id) {
            held.heard = held.heard.max(now);
            held.epoch = held.epoch.max(epoch);
            held.host = host.copied().map(sound).or(held.host);
        }
        true
    }

    fn has_room(&mut self, now: u64) -> bool {
        if self.held.len() >= MAX_INSTANCES && self.swept != now {
            self.swept = now;
            self.held.retain(|_, held| held.heard.saturating_add(WINDOW_SECONDS) > now);
        }
        self.held.len() < MAX_INSTANCES
    }

    /// Adds what an instance that was heard counted in the server's second `second`.
    pub fn add(&mut self, id: InstanceId, arm: Arm, row: &MetricRow, second: u64) {
        let Some(held) = self.held.get_mut(&id) else { return };
        let slot = second / SLOT_SECONDS;
        let newest = held.slots.back().map_or(0, |(number, _)| *number).max(slot);
        held.slots.retain(|(number, _)| is_within(*number, newest));
        if !is_within(slot, newest) {
            return;
        }
        let at = match held.slots.binary_search_by_key(&slot, |(number, _)| *number) {
            Ok(at) => at,
            Err(at) => {
                held.slots.insert(at, (slot, Default::default()));
                at
            }
        };
        if let Some((_, [treatment, control])) = held.slots.get_mut(at) {
            let tally = if arm == Arm::Treatment { treatment } else { control };
            tally.add(row.count, row.errors, &row.latency);
        }
    }

    /// Every instance that was heard in the [`WINDOW_SECONDS`] before `now`, by name.
    #[must_use]
    pub fn list(&self, now: u64) -> Vec<InstanceTally> {
        let there = self.held.values().filter(|held| held.heard.saturating_add(WINDOW_SECONDS) > now);
        let mut all: Vec<InstanceTally> = there.map(|held| held.tally(now)).collect();
        all.sort_by(|a, b| a.instance.cmp(&b.instance));
        all
    }

    /// Forgets what was counted, and not who is there.
    pub fn clear(&mut self) {
        self.held.values_mut().for_each(|held| held.slots.clear());
    }

    /// How often an instance was left out for lack of room.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

impl Held {
    fn tally(&self, now: u64) -> InstanceTally {
        let mut arms = <[ArmTally; 2]>::default();
        for (_, slot) in self.slots.iter().filter(|(number, _)| is_within(*number, now / SLOT_SECONDS)) {
            for (sum, arm) in arms.iter_mut().zip(slot) {
                sum.add(arm.count, arm.errors, &arm.latency);
            }
        }
        let [treatment, control] = arms;
        let (host, heard, epoch) = (self.host, self.heard, self.epoch);
        InstanceTally { instance: self.name.clone(), treatment, control, host, heard, epoch }
    }
}

impl ArmTally {
    fn add(&mut self, count: u64, errors: u64, latency: &Sketch) {
        self.count = self.count.saturating_add(count);
        self.errors = self.errors.saturating_add(errors);
        for (index, count) in latency.buckets() {
            self.latency.add((index / COARSE * COARSE + COARSE / 2).min(BUCKETS - 1), count);
        }
    }
}

fn is_within(slot: u64, newest: u64) -> bool {
    slot.saturating_add(WINDOW_SECONDS / SLOT_SECONDS) > newest
}

/// What can be true of a host; the rest is left out.
fn sound(reading: HostReading) -> HostReading {
    let known = |value: Option<f64>| value.filter(|value| value.is_finite() && *value >= 0.0);
    HostReading { cpu: known(reading.cpu), memory: known(reading.memory), queue_depth: known(reading.queue_depth) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(count: u64, errors: u64, micros: f64) -> MetricRow {
        let mut row = MetricRow { count, errors, ..MetricRow::default() };
        (0..count).for_each(|_| row.latency.record(micros));
        row
    }

    #[test]
    fn numbers_are_of_the_last_minute() {
        let mut instances = Instances::default();
        for second in 1_000..1_200 {
            assert!(instances.hear(InstanceId(1), "one", 7, None, second));
            instances.add(InstanceId(1), Arm::Treatment, &row(2, 1, 5_000.0), second);
            instances.add(InstanceId(1), Arm::Control, &row(1, 0, 1_000.0), second);
        }
        let all = instances.list(1_199);
        let [one] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((one.treatment.count, one.treatment.errors, one.control.count), (120, 60, 60));
        let p95 = one.treatment.latency.quantile(0.95).unwrap();
        assert!((p95 / 5_000.0 - 1.0).abs() < 0.09, "{p95}");
        assert_eq!(instances.list(1_230)[0].treatment.count, 40);
        assert!(instances.list(1_260).is_empty(), "who is silent for a minute is gone");
    }

    #[test]
    fn late_and_absurd_seconds_do_no_harm() {
        let mut instances = Instances::default();
        instances.hear(InstanceId(1), "one", 7, None, 1_000);
        for second in [1_000, 995, 900, 0, u64::MAX, 1_001] {
            instances.add(InstanceId(1), Arm::Control, &row(1, 0, 1.0), second);
        }
        assert!(instances.held[&InstanceId(1)].slots.len() <= 7);
        instances.add(InstanceId(2), Arm::Control, &row(1, 0, 1.0), 1_000);
        assert_eq!(instances.list(1_000).len(), 1);
    }

    #[test]
    fn the_number_of_instances_is_bounded() {
        let mut instances = Instances::default();
        let kept = (0..1_200).filter(|&id| instances.hear(InstanceId(id), "name", 7, None, 10)).count();
        assert_eq!((kept, instances.left_out()), (MAX_INSTANCES, 200));
        assert!(instances.hear(InstanceId(5_000), "name", 7, None, 100), "silent ones make room");
    }

    #[test]
    fn what_cannot_be_true_of_a_host_is_left_out() {
        let mut instances = Instances::default();
        let reading = HostReading { cpu: Some(-1.0), memory: Some(f64::INFINITY), queue_depth: Some(3.0) };
        instances.hear(InstanceId(1), "one", 7, Some(&reading), 10);
        instances.hear(InstanceId(1), "one", 7, None, 11);
        let host = instances.list(11)[0].host.unwrap();
        assert_eq!((host.cpu, host.memory, host.queue_depth), (None, None, Some(3.0)));
    }
}
