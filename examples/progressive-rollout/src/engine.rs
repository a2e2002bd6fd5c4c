//! Two engines that price a basket, alike while all is well.

use std::hint::black_box;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How the AI engine goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not.
    None,
    /// 30 % of its calls fail.
    Errors,
    /// Its slowest calls take three times as long.
    Latency,
    /// It takes twice the CPU time.
    Cpu,
}

/// The pricing service.
#[derive(Debug, Default)]
pub struct Engine {
    fault: AtomicU8,
}

/// The AI engine could not price a basket.
#[derive(Debug, thiserror::Error)]
#[error("the basket could not be priced")]
pub struct Unpriced;

/// Rounds of arithmetic that a basket takes: some 50 microseconds in a release build.
const ROUNDS: u64 = 20_000;

impl Engine {
    /// Makes the AI engine go wrong from now on.
    pub fn go_wrong(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// Whether it does.
    pub fn is_bad(&self) -> bool {
        self.fault.load(Ordering::Relaxed) != Fault::None as u8
    }

    /// The AI-written engine. `seed` stands for the basket.
    pub async fn ai(&self, seed: u64) -> Result<u64, Unpriced> {
        let fault = self.fault.load(Ordering::Relaxed);
        let wait = waiting(seed);
        let slow = fault == Fault::Latency as u8 && wait >= Duration::from_millis(10);
        tokio::time::sleep(if slow { 3 * wait } else { wait }).await;
        let price = reckon(seed, if fault == Fault::Cpu as u8 { 2 * ROUNDS } else { ROUNDS });
        if fault == Fault::Errors as u8 && mix(seed ^ 7) % 100 < 30 {
            return Err(Unpriced);
        }
        Ok(price)
    }

    /// The baseline.
    pub async fn baseline(&self, seed: u64) -> u64 {
        tokio::time::sleep(waiting(seed)).await;
        reckon(seed, ROUNDS)
    }
}

/// How long the stock service takes for this basket: 2 to 12 milliseconds, and one in 40 up to 40.
fn waiting(seed: u64) -> Duration {
    let dice = mix(seed);
    let usual = 2_000 + dice % 10_000;
    Duration::from_micros(if dice.is_multiple_of(40) { usual + 28_000 } else { usual })
}

fn reckon(seed: u64, rounds: u64) -> u64 {
    black_box((0..rounds).fold(seed, |price, round| mix(price ^ round)))
}

/// splitmix64's output function (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}
