//! Which units were met before: a Bloom filter in bounded memory, so that a unit counts once whatever instances it meets.
//!
//! Simulated with the memory of eight instances alone, one heavy user whose requests tend to fail was counted eight times, in
//! one arm, and healthy releases were rolled back. So instances send keyed hashes of the units they meet, or see fail, for
//! the first time, and the server asks here whether they are new to it too. A filter mistakes few new units for known
//! ones and never the reverse; it does so in both arms alike, which costs a little power and no truth.

use serde::{Deserialize, Serialize};

/// Bits of a filter that are set by one key.
const PROBES: u32 = 4;

/// What happens when a filter has met as many units as it can tell apart (half of its bits are set; by then it mistakes one
/// new unit in 16).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WhenFull {
    /// Forget the older half and go on: right for failures, where the test must stay awake.
    Rotate,
    /// Call nothing new any more: right for the sample ratio, which has seen enough by then.
    Freeze,
}

/// Units met before. Memory: 2 halves of `2^bits / 8` bytes, so 16 kB for 2^16 bits, enough for some 11,000 units a half.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Firsts {
    when_full: WhenFull,
    /// The half that is written, and the one before it (empty unless rotating).
    halves: [Vec<u64>; 2],
    set: u64,
}

impl Firsts {
    /// A filter of `2^bits` bits a half; `bits` is moved into 10 to 24.
    #[must_use]
    pub fn new(bits: u32, when_full: WhenFull) -> Self {
        let words = 1_usize << (bits.clamp(10, 24) - 6);
        let older = if when_full == WhenFull::Rotate { words } else { 0 };
        Self { when_full, halves: [vec![0; words], vec![0; older]], set: 0 }
    }

    /// Whether the unit with hash `key` is known.
    #[must_use]
    pub fn contains(&self, key: u64) -> bool {
        let [newer, older] = &self.halves;
        let bits = newer.len() as u64 * 64;
        let (base, step) = (key & 0xffff_ffff, (key >> 32) | 1);
        let holds = |half: &[u64]| {
            (0..u64::from(PROBES)).all(|probe| {
                let bit = (base + probe * step) % bits;
                half.get((bit / 64) as usize).is_some_and(|word| word & (1 << (bit % 64)) != 0)
            })
        };
        holds(newer) || holds(older)
    }

    /// Whether the unit with hash `key` is met for the first time; from now on it is known. Hashes should be spread evenly:
    /// 64 bits of a keyed hash.
    pub fn insert(&mut self, key: u64) -> bool {
        let [newer, older] = &mut self.halves;
        let bits = newer.len() as u64 * 64;
        if self.set * 2 >= bits {
            match self.when_full {
                WhenFull::Freeze => return false,
                WhenFull::Rotate => {
                    std::mem::swap(newer, older);
                    newer.fill(0);
                    self.set = 0;
                }
            }
        }
        let (mut in_newer, mut in_older) = (true, true);
        // Double hashing (Kirsch, Mitzenmacher 2006): two halves of the key make all probes.
        let (base, step) = (key & 0xffff_ffff, (key >> 32) | 1);
        for probe in 0..u64::from(PROBES) {
            let bit = (base + probe * step) % bits;
            let (word, mask) = ((bit / 64) as usize, 1_u64 << (bit % 64));
            if let Some(held) = newer.get_mut(word) {
                in_newer &= *held & mask != 0;
                self.set += u64::from(*held & mask == 0);
                *held |= mask;
            }
            in_older &= older.get(word).is_some_and(|held| held & mask != 0);
        }
        !in_newer && !in_older
    }

    /// Bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.halves.iter().map(|half| half.capacity() * 8).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// splitmix64: stands for a keyed hash.
    fn key(n: u64) -> u64 {
        let mut mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[test]
    fn a_unit_is_new_once() {
        let mut firsts = Firsts::new(16, WhenFull::Freeze);
        let new = (0..5_000).filter(|&n| firsts.insert(key(n))).count();
        assert!(new > 4_950, "{new} of 5,000 were taken for new");
        assert!((0..5_000).all(|n| firsts.contains(key(n))), "asking changes nothing");
        assert!(!firsts.contains(key(1 << 40)));
        assert!((0..5_000).all(|n| !firsts.insert(key(n))), "a known unit is never new");
    }

    #[test]
    fn a_full_filter_freezes_or_forgets_the_oldest() {
        let mut frozen = Firsts::new(10, WhenFull::Freeze);
        let new = (0..10_000).filter(|&n| frozen.insert(key(n))).count();
        assert!((120..260).contains(&new), "{new}");
        let mut rotating = Firsts::new(10, WhenFull::Rotate);
        let new = (0..10_000).filter(|&n| rotating.insert(key(n))).count();
        assert!(new > 8_500, "{new} of 10,000 were taken for new");
        assert!(!rotating.insert(key(9_999)) && rotating.insert(key(0)));
        assert!(rotating.bytes() < 400);
    }
}
