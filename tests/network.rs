//! Server and SDKs in a simulated network: partitions, half-open and held links, delays, restarts of either side.
//!
//! The server is the real one, from its listener to its change service, on stores in memory that outlive its crashes; the
//! SDKs are the real client on the simulated network's streams. Time, network and faults follow a seed; the SDK's reconnect jitter and
//! the interleaving within a tick do not, so that a seed names a plan of faults, and not one run to the bit.
//!
//! The simulated TCP does not send lost segments again: a connection over a link that dropped anything is dead for good, and
//! only heartbeats find that out. Timeouts and heartbeats are therefore set short enough for the 5 s that the SDKs have.

mod application;
mod faults;
mod ledger;
mod server;

use std::sync::Arc;
use std::time::Duration;

use guidon_sdk::client::State;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::counts::{count, report};
use ledger::{Ledger, Phase};
use server::Store;

/// Applications of one simulation.
const APPLICATIONS: usize = 4;
/// Simulated time that one step of the simulation takes.
const TICK: Duration = Duration::from_millis(5);
/// How long faults happen, in simulated time.
const FAULTS_FOR: Duration = Duration::from_secs(8);
/// How long every SDK may take to be current once all is repaired, in simulated time.
const CONVERGE_WITHIN: Duration = Duration::from_secs(5);
/// How long the exposures that are still queued may take to be stored, in simulated time: a batch that found no room is sent
/// again after 10 s, and four batches may be under way.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn every_sdk_converges_and_no_exposure_is_lost_or_doubled() {
    let seeds = count(40, 1_000);
    let mut totals = Totals::default();
    for seed in 0..seeds as u64 {
        simulate(seed, &mut totals);
    }
    let Totals { faults, changes, stored, lives } = &totals;
    report(&format!(
        "network simulation: {seeds} seeds, {faults} faults, {changes} changes, {stored} exposures stored, {lives} lives of \
         applications"
    ));
    assert!(totals.faults > seeds && totals.changes > seeds && totals.stored > seeds, "the simulation did nothing");
}

#[derive(Default)]
struct Totals {
    faults: usize,
    changes: usize,
    stored: usize,
    lives: usize,
}

struct Simulation {
    seed: u64,
    sim: turmoil::Sim<'static>,
    store: Arc<Store>,
    ledger: Arc<Ledger>,
    random: StdRng,
}

fn simulate(seed: u64, totals: &mut Totals) {
    let mut simulation = Simulation::new(seed);
    let faults = simulation.run_faults();
    simulation.converge();
    simulation.drain();
    let Simulation { store, ledger, .. } = &simulation;
    let stored = ledger.check_exposures(&store.assignments());
    ledger.check_changes(&store.journal);
    let violations = ledger.violations();
    assert!(violations.is_empty(), "seed {seed}: {} violations: {violations:#?}", violations.len());
    totals.faults += faults;
    totals.changes += ledger.acknowledged();
    totals.stored += stored;
    totals.lives += ledger.lives();
}

pub(crate) fn application_name(index: usize) -> String {
    format!("application-{index}")
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .enable_random_order()
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3600))
            .min_message_latency(Duration::from_millis(1))
            .max_message_latency(Duration::from_millis(20))
            .tcp_capacity(4_096)
            .build();
        let (store, ledger) = (Arc::new(Store::new()), Arc::new(Ledger::new(APPLICATIONS)));
        let shared = (Arc::clone(&store), Arc::clone(&ledger));
        sim.host(server::NAME, move || server::run(Arc::clone(&shared.0), Arc::clone(&shared.1), seed));
        for index in 0..APPLICATIONS {
            let shared = (Arc::clone(&store), Arc::clone(&ledger));
            let run = move || application::run(index, Arc::clone(&shared.0), Arc::clone(&shared.1), seed);
            sim.host(application_name(index), run);
        }
        Self { seed, sim, store, ledger, random: StdRng::seed_from_u64(seed) }
    }

    fn step(&mut self) {
        self.sim.step().unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.sim.elapsed() + time;
        while self.sim.elapsed() < until {
            self.step();
        }
    }

    /// Steps until `done`, at most for `limit`; answers whether it was.
    fn run_until(&mut self, limit: Duration, done: impl Fn(&Ledger) -> bool) -> bool {
        let until = self.sim.elapsed() + limit;
        while !done(&self.ledger) {
            if self.sim.elapsed() >= until {
                return false;
            }
            self.step();
        }
        true
    }

    /// Breaks and mends things at random, and ends with everything mended. Answers how often something was broken.
    fn run_faults(&mut self) -> usize {
        let mut faults = faults::Faults::new(APPLICATIONS);
        let until = self.sim.elapsed() + FAULTS_FOR;
        while self.sim.elapsed() < until {
            let pause = Duration::from_millis(self.random.random_range(20..600));
            self.run_for(pause);
            faults.next(&mut self.sim, &self.store.journal, &mut self.random);
        }
        faults.mend_all(&mut self.sim, &self.store.journal);
        faults.count()
    }

    /// After the repair one more change is made; from then on every SDK has [`CONVERGE_WITHIN`].
    fn converge(&mut self) {
        self.ledger.enter(Phase::Repaired);
        let changed = self.run_until(Duration::from_secs(5), |ledger| ledger.target().is_some());
        assert!(changed, "seed {}: no change was acknowledged after the repair", self.seed);
        let is_current = |ledger: &Ledger| {
            let target = ledger.target();
            ledger.statuses().iter().all(|status| status.state == State::Ready && status.revision == target)
        };
        let converged = self.run_until(CONVERGE_WITHIN, is_current);
        let (target, statuses) = (self.ledger.target(), self.ledger.statuses());
        assert!(converged, "seed {}: the server is at {target:?}, after 5 s the SDKs are {statuses:#?}", self.seed);
    }

    fn drain(&mut self) {
        self.ledger.enter(Phase::Draining);
        let drained = self.run_until(DRAIN_WITHIN, |ledger| ledger.statuses().iter().all(|status| status.drained));
        let statuses = self.ledger.statuses();
        assert!(drained, "seed {}: exposures are still queued after 30 s: {statuses:#?}", self.seed);
    }
}
