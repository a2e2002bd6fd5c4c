//! A made-up service under release: people, instances, and what goes wrong with them on a healthy day.
//!
//! *Plain* is the setting of textbooks: every request another person, one base rate, latencies without a tail. *Real* has
//! heavy users (Zipf), people whose requests always tend to fail or be slow, unequal instances, bursts in which one instance
//! fails and is slow for everybody on it, load and base rates that drift over the day, and Pareto tails.

use guidon_sdk::measure::UNIT_PERIOD_SECONDS;
use guidon_sdk::measure::sketch::{BUCKETS, LN_GAMMA};
use guidon_server::metrics::{Pair, Tally, UnitMemory};

use crate::random::Random;

pub const USERS: usize = 20_000;
const INSTANCES: usize = 8;
/// Shares of the traffic, in 1/64ths.
const WEIGHTS: [u32; INSTANCES] = [4, 5, 6, 7, 8, 9, 11, 14];
/// Bursts an hour on each instance, and their mean length in seconds.
const BURSTS_PER_HOUR: f64 = 1.0;
const BURST_SECONDS: f64 = 20.0;
const BASE_RATE: f64 = 0.01;

/// What the treatment does worse.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// Share of requests that fail in addition.
    Errors(f64),
    /// Factor on every latency.
    Slower(f64),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Plain,
    Real,
}

/// A table for drawing users by their activity in constant time (Walker's alias method).
pub struct Crowd {
    keep: Vec<f32>,
    alias: Vec<u32>,
    /// Standard normal values to draw from: 65,536 of them, which is ten times faster than making each anew.
    normal: Vec<f32>,
}

impl Crowd {
    pub fn zipf(exponent: f64) -> Self {
        let weights: Vec<f64> = (1..=USERS).map(|rank| (rank as f64).powf(-exponent)).collect();
        let mean = weights.iter().sum::<f64>() / USERS as f64;
        let mut scaled: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
        let (mut keep, mut alias) = (vec![1.0; USERS], vec![0; USERS]);
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..USERS).partition(|&user| scaled[user] < 1.0);
        while let (Some(few), Some(&many)) = (small.pop(), large.last()) {
            keep[few] = scaled[few] as f32;
            alias[few] = many as u32;
            scaled[many] -= 1.0 - scaled[few];
            if scaled[many] < 1.0 {
                large.pop();
                small.push(many);
            }
        }
        let mut random = Random::new(1);
        let normal = (0..1 << 16).map(|_| random.normal() as f32).collect();
        Self { keep, alias, normal }
    }

    fn normal(&self, random: &mut Random) -> f64 {
        f64::from(self.normal[(random.bits() >> 48) as usize])
    }

    fn draw(&self, random: &mut Random) -> usize {
        let user = random.below(USERS);
        if random.unit() < f64::from(self.keep[user]) { user } else { self.alias[user] as usize }
    }
}

/// What an instance remembers of a user, for all instances in one place so that a request touches one line of cache.
#[derive(Clone, Copy, Default)]
struct Memory {
    seen: u8,
    failed: u8,
    second: [u16; INSTANCES],
    /// The period in which a latency of the user was last taken, over all instances, as the server sees to it.
    period: u16,
}

struct Person {
    slot: f32,
    fails: f32,
    log_slow: f32,
}

pub struct World<'a> {
    kind: Kind,
    /// Whether to give latencies as values too, for tests of means.
    values: bool,
    crowd: &'a Crowd,
    random: Random,
    people: Vec<Person>,
    memory: Vec<Memory>,
    /// What the server remembers over all instances.
    units: UnitMemory,
    requests_per_second: f64,
    phase: f64,
    load: f64,
    log_base: f64,
    burst_until: [u64; INSTANCES],
    next_burst: [u64; INSTANCES],
    second: u64,
}

impl<'a> World<'a> {
    pub fn new(kind: Kind, values: bool, crowd: &'a Crowd, requests_per_second: f64, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let people = (0..USERS)
            .map(|_| {
                let (slot, chronic) = (random.unit() as f32, random.chance(0.01));
                let log_slow = (0.25 * random.normal()) as f32;
                Person { slot, fails: if chronic { 0.2 } else { 0.0 }, log_slow }
            })
            .collect();
        let next_burst = std::array::from_fn(|_| random.exponential(3_600.0 / BURSTS_PER_HOUR) as u64);
        Self {
            kind,
            values,
            crowd,
            people,
            memory: vec![Memory::default(); USERS],
            units: UnitMemory::default(),
            requests_per_second,
            phase: random.unit(),
            load: 0.0,
            log_base: 0.0,
            burst_until: [0; INSTANCES],
            next_burst,
            second: 0,
            random,
        }
    }

    /// A new step: everybody is new again to the sample ratio; who failed is remembered for the whole release.
    pub fn begin_step(&mut self) {
        self.memory.iter_mut().for_each(|memory| memory.seen = 0);
        self.units.begin_step();
    }

    /// The next second, in which the treatment serves `share` of the people and does `fault` worse.
    pub fn second(&mut self, share: f64, fault: Fault) -> Pair {
        self.second += 1;
        match self.kind {
            Kind::Plain => self.plain(share, fault),
            Kind::Real => self.real(share, fault),
        }
    }

    fn plain(&mut self, share: f64, fault: Fault) -> Pair {
        let mut pair = Pair::default();
        for _ in 0..self.random.poisson(self.requests_per_second) {
            let treated = self.random.chance(share);
            let tally = if treated { &mut pair.treatment } else { &mut pair.control };
            let (more, log_factor) = if treated { worse(fault) } else { (0.0, 0.0) };
            let failed = self.random.chance(BASE_RATE + more);
            let log = 10.8 + 0.5 * self.crowd.normal(&mut self.random) + log_factor;
            count(tally, failed, log, self.values);
            new_unit(tally, failed, log);
        }
        pair
    }

    fn real(&mut self, share: f64, fault: Fault) -> Pair {
        let mut pair = Pair::default();
        let bursting = self.drift();
        let day = 1.0 + 0.4 * (std::f64::consts::TAU * (self.second as f64 / 86_400.0 + self.phase)).sin();
        let requests = self.random.poisson(self.requests_per_second * day * self.load.exp());
        let base = 0.006 * self.log_base.exp();
        for _ in 0..requests {
            let user = self.crowd.draw(&mut self.random);
            let instance = self.instance();
            let person = &self.people[user];
            let treated = f64::from(person.slot) < share;
            let tally = if treated { &mut pair.treatment } else { &mut pair.control };
            let (more, log_factor) = if treated { worse(fault) } else { (0.0, 0.0) };
            let burst = bursting[instance];
            let rate = base + f64::from(person.fails) + more + if burst { 0.2 } else { 0.0 };
            let failed = self.random.chance(rate);
            let mut log = 10.8 + 0.45 * self.crowd.normal(&mut self.random) + f64::from(person.log_slow) + log_factor;
            log += 0.03 * instance as f64 + if burst { 0.9 } else { 0.0 };
            if self.random.chance(0.03) {
                log -= self.random.unit().ln() / 1.5;
            }
            count(tally, failed, log, self.values);
            let (first_seen, first_failing) =
                remember(&mut self.memory[user], instance, self.second, tally, failed, log);
            // What the server does with the hashes in a row.
            if first_seen || first_failing {
                let hash = Random::new(user as u64).bits();
                tally.new_units += u64::from(first_seen && self.units.first_seen(hash));
                tally.new_failing_units += u64::from(first_failing && self.units.first_failing(hash));
            }
        }
        pair
    }

    /// Moves load, base rate and bursts on, and says which instances have one.
    fn drift(&mut self) -> [bool; INSTANCES] {
        self.load = 0.98 * self.load + 0.03 * self.random.normal();
        self.log_base = 0.9999 * self.log_base + 0.006 * self.random.normal();
        let now = self.second;
        std::array::from_fn(|instance| {
            if now >= self.next_burst[instance] {
                self.burst_until[instance] = now + 5 + self.random.exponential(BURST_SECONDS) as u64;
                self.next_burst[instance] = now + self.random.exponential(3_600.0 / BURSTS_PER_HOUR) as u64;
            }
            now < self.burst_until[instance]
        })
    }

    fn instance(&mut self) -> usize {
        let at = (self.random.bits() >> 58) as u32;
        let mut end = 0;
        WEIGHTS
            .iter()
            .take_while(|&weight| {
                end += weight;
                end <= at
            })
            .count()
    }
}

fn worse(fault: Fault) -> (f64, f64) {
    match fault {
        Fault::None => (0.0, 0.0),
        Fault::Errors(more) => (more, 0.0),
        Fault::Slower(factor) => (0.0, factor.ln()),
    }
}

fn bucket(log: f64) -> u16 {
    ((log.max(0.0) / LN_GAMMA) as u16).min(BUCKETS - 1)
}

fn count(tally: &mut Tally, failed: bool, log: f64, values: bool) {
    tally.count += 1;
    tally.errors += u64::from(failed);
    tally.latency.add(bucket(log), 1);
    if values {
        tally.values.record(log.exp() / 1_000.0);
    }
}

/// A unit that comes once and never again.
fn new_unit(tally: &mut Tally, failed: bool, log: f64) {
    tally.units += 1;
    tally.units_at_risk += 1;
    tally.new_units += 1;
    tally.failing_units += u64::from(failed);
    tally.new_failing_units += u64::from(failed);
    tally.unit_latency.add(bucket(log), 1);
}

/// What the SDK of `instance` does, and the server after it: units once a second, one latency a unit and period. Says whether it met the unit for the
/// first time, and whether it saw it fail for the first time.
fn remember(
    memory: &mut Memory,
    instance: usize,
    second: u64,
    tally: &mut Tally,
    failed: bool,
    log: f64,
) -> (bool, bool) {
    let bit = 1_u8 << instance;
    if memory.second[instance] != second as u16 {
        memory.second[instance] = second as u16;
        tally.units += 1;
        tally.units_at_risk += u64::from(memory.failed & bit == 0);
    }
    let period = (second / UNIT_PERIOD_SECONDS + 1) as u16;
    if memory.period != period {
        memory.period = period;
        tally.unit_latency.add(bucket(log), 1);
    }
    let first_seen = memory.seen & bit == 0;
    let first_failing = failed && memory.failed & bit == 0;
    memory.seen |= bit;
    memory.failed |= u8::from(failed) << instance;
    (first_seen, first_failing)
}
