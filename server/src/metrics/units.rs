//! What a release remembers of the units it met, so that each counts once.

use serde::{Deserialize, Serialize};

use guidon_sdk::measure::{Firsts, UNIT_PERIOD_SECONDS, WhenFull};

/// What a release remembers of units. Memory: 32 kB, 16 kB and 16 kB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitMemory {
    seen: Firsts,
    failing: Firsts,
    timed: Firsts,
    period: u64,
}

impl Default for UnitMemory {
    fn default() -> Self {
        Self {
            seen: Firsts::new(SEEN_BITS, WhenFull::Freeze),
            failing: Firsts::new(FAILING_BITS, WhenFull::Rotate),
            timed: Firsts::new(FAILING_BITS, WhenFull::Rotate),
            period: 0,
        }
    }
}

/// Logarithms of the bits of each filter: some 45,000 units a step for the sample ratio, 11,000 to 22,000 for the others.
const SEEN_BITS: u32 = 18;
const FAILING_BITS: u32 = 16;

impl UnitMemory {
    /// A new step begins: everybody is new again to the sample ratio. Who failed is remembered for the whole release.
    pub fn begin_step(&mut self) {
        self.seen = Firsts::new(SEEN_BITS, WhenFull::Freeze);
    }

    /// Whether the unit is served for the first time in this step.
    pub fn first_seen(&mut self, hash: u64) -> bool {
        self.seen.insert(hash)
    }

    /// Whether the unit fails for the first time in this release.
    pub fn first_failing(&mut self, hash: u64) -> bool {
        self.failing.insert(hash)
    }

    /// Whether the unit gives its first latency in the period of `second`.
    pub fn first_latency(&mut self, hash: u64, second: u64) -> bool {
        let period = second / UNIT_PERIOD_SECONDS;
        if period > self.period {
            self.period = period;
            self.timed = Firsts::new(FAILING_BITS, WhenFull::Rotate);
        }
        self.timed.insert(hash)
    }

    /// Bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.seen.bytes() + self.failing.bytes() + self.timed.bytes() + size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_first_has_its_own_time() {
        let mut memory = UnitMemory::default();
        let hash = 7 << 40;
        assert!(memory.first_seen(hash) && memory.first_failing(hash) && memory.first_latency(hash, 1_200));
        assert!(!memory.first_seen(hash) && !memory.first_failing(hash) && !memory.first_latency(hash, 1_799));
        memory.begin_step();
        assert!(memory.first_seen(hash), "the sample ratio begins anew with each step");
        assert!(!memory.first_failing(hash), "a failure counts once in a release");
        assert!(memory.first_latency(hash, 1_800), "a latency once in a period");
        assert!(memory.bytes() < 70_000);
    }
}
