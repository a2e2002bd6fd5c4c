//! Which batches of rows were seen already: each is numbered by its instance within an epoch (one run of the process).
//!
//! A batch may come twice (sent again before its acknowledgement arrived) and late or out of order (sent over a new
//! connection). It is merged once. A number that never comes is a gap, and the guard holds on gaps.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::window::InstanceId;

/// How many numbers behind the highest are remembered one by one. A batch further behind counts as a duplicate: nobody can
/// say any more that it is not.
pub const REMEMBERED: u64 = 64;

/// What an [`Intake`] holds at most, and when it takes an instance for cold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IntakeLimits {
    /// Instances remembered; default 10,000. Past it, the one heard least recently is forgotten.
    pub instances: usize,
    /// Seconds from the first batch of an epoch in which the instance is cold: its rows are not for the guard. Default 10.
    pub warm_up_seconds: u64,
}

impl Default for IntakeLimits {
    fn default() -> Self {
        Self { instances: 10_000, warm_up_seconds: 10 }
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Merge it.
    New {
        /// Whether the instance is past its warm-up, so that the guard may count its rows.
        warm: bool,
    },
    /// Acknowledge and drop it: it was merged, or is too old to tell.
    Duplicate,
    /// Drop it: it is of an earlier run of the process.
    OldEpoch,
}

/// What is known of one instance: 48 bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seen {
    epoch: u64,
    /// When this epoch's first batch came.
    since: u64,
    heard: u64,
    /// The lowest number of this epoch that was waited for.
    first: u64,
    highest: u64,
    /// Bit i: number `highest - i` came.
    recent: u64,
}

/// The batches seen, per instance. Memory: about 64 bytes an instance, 640 kB at the default limit.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Intake {
    limits: IntakeLimits,
    instances: HashMap<InstanceId, Seen>,
}

impl Intake {
    /// An intake that has seen nothing.
    #[must_use]
    pub fn new(limits: IntakeLimits) -> Self {
        Self { limits, instances: HashMap::new() }
    }

    /// Takes note of batch `sequence` of `instance` in its run `epoch`, at the server's second `now`, and says what to do
    /// with it. Epochs grow with each start of the process; numbers grow by one with each batch.
    pub fn receive(&mut self, instance: InstanceId, epoch: u64, sequence: u64, now: u64) -> Receipt {
        let warm_up = self.limits.warm_up_seconds;
        if let Some(seen) = self.instances.get_mut(&instance) {
            if epoch < seen.epoch {
                return Receipt::OldEpoch;
            }
            if epoch == seen.epoch {
                seen.heard = seen.heard.max(now);
                let warm = now.saturating_sub(seen.since) >= warm_up;
                return if seen.take(sequence) { Receipt::New { warm } } else { Receipt::Duplicate };
            }
        } else {
            self.make_room();
        }
        let seen = Seen { epoch, since: now, heard: now, first: sequence, highest: sequence, recent: 1 };
        self.instances.insert(instance, seen);
        Receipt::New { warm: warm_up == 0 }
    }

    /// Forgets the instance heard least recently if there is no room for another.
    fn make_room(&mut self) {
        if self.instances.len() < self.limits.instances.max(1) {
            return;
        }
        if let Some(oldest) = self.instances.iter().min_by_key(|(id, seen)| (seen.heard, **id)).map(|(id, _)| *id) {
            self.instances.remove(&oldest);
        }
    }

    /// How many numbers are missing among the last [`REMEMBERED`] of instances heard since second `since`.
    #[must_use]
    pub fn gaps(&self, since: u64) -> u64 {
        self.instances.values().filter(|seen| seen.heard >= since).map(Seen::missing).sum()
    }

    /// How many instances are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether no instance is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }
}

impl Seen {
    /// Marks `sequence`; false if it came before or is too far behind to tell.
    fn take(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let ahead = sequence - self.highest;
            self.recent = if ahead < REMEMBERED { (self.recent << ahead) | 1 } else { 1 };
            self.highest = sequence;
            return true;
        }
        let behind = self.highest - sequence;
        if behind >= REMEMBERED || self.recent >> behind & 1 == 1 {
            return false;
        }
        self.recent |= 1 << behind;
        self.first = self.first.min(sequence);
        true
    }

    fn missing(&self) -> u64 {
        let waited = (self.highest - self.first).saturating_add(1).min(REMEMBERED);
        waited - u64::from(self.recent.count_ones()).min(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const A: InstanceId = InstanceId(1);
    const NEW: Receipt = Receipt::New { warm: true };

    fn warm() -> Intake {
        Intake::new(IntakeLimits { warm_up_seconds: 0, ..IntakeLimits::default() })
    }

    #[test]
    fn duplicates_and_old_epochs_are_dropped_and_gaps_counted() {
        let mut intake = warm();
        assert_eq!(intake.receive(A, 7, 1, 100), NEW);
        assert_eq!(intake.receive(A, 7, 1, 100), Receipt::Duplicate);
        assert_eq!(intake.receive(A, 7, 4, 103), NEW);
        assert_eq!(intake.gaps(0), 2);
        assert_eq!(intake.receive(A, 7, 3, 104), NEW);
        assert_eq!(intake.gaps(0), 1);
        assert_eq!(intake.gaps(105), 0, "an instance that is away is not waited for");
        assert_eq!(intake.receive(A, 6, 9, 105), Receipt::OldEpoch);
        assert_eq!(intake.receive(A, 8, 1, 106), NEW);
        assert_eq!((intake.receive(A, 7, 2, 107), intake.gaps(0)), (Receipt::OldEpoch, 0));
    }

    #[test]
    fn a_cold_instance_is_not_for_the_guard() {
        let mut intake = Intake::new(IntakeLimits::default());
        assert_eq!(intake.receive(A, 1, 1, 50), Receipt::New { warm: false });
        assert_eq!(intake.receive(A, 1, 2, 59), Receipt::New { warm: false });
        assert_eq!(intake.receive(A, 1, 3, 60), NEW);
        assert_eq!(intake.receive(A, 2, 1, 61), Receipt::New { warm: false }, "a new run is cold again");
    }

    #[test]
    fn memory_is_bounded() {
        let mut intake = Intake::new(IntakeLimits { instances: 3, warm_up_seconds: 0 });
        for id in 0..10 {
            intake.receive(InstanceId(id), 1, 1, id);
        }
        assert_eq!(intake.len(), 3);
        assert_eq!(intake.receive(InstanceId(9), 1, 1, 11), Receipt::Duplicate, "the latest are kept");
    }

    proptest! {
        #[test]
        fn every_batch_is_merged_at_most_once(sequences in prop::collection::vec(0_u64..200, 1..300)) {
            let mut intake = warm();
            let mut merged = HashSet::new();
            for sequence in sequences {
                if intake.receive(A, 1, sequence, 0) == NEW {
                    prop_assert!(merged.insert(sequence), "{} merged twice", sequence);
                } else {
                    let highest = merged.iter().max().copied().unwrap_or(0);
                    prop_assert!(merged.contains(&sequence) || highest - sequence >= REMEMBERED);
                }
            }
        }
    }
}
