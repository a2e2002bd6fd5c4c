//! Random numbers for the tests of this folder: seeded, so that a failure repeats.

/// A linear congruential generator (Knuth's MMIX), good enough for shares and means.
pub(super) struct MadeUp(u64);

impl MadeUp {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03);
        // The first values of neighbouring seeds are alike.
        for _ in 0..8 {
            random.unit();
        }
        random
    }

    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(super) fn hits(&mut self, of: u64, p: f64) -> u64 {
        (0..of).filter(|_| self.unit() < p).count() as u64
    }

    /// Standard normal (Box, Muller).
    pub(super) fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}
