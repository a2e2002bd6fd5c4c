//! One release in a made-up world, watched by the guard and by its rivals.

use std::sync::atomic::{AtomicU64, Ordering};

use guidon_server::metrics::{Arm, InstanceId, Row, Series, SeriesLimits};
use guidon_server::releases::guard::thresholds::Measure;
use guidon_server::releases::guard::{Action, Comparison, Guard, GuardPlan, Guardrail, Reason};

use crate::rivals::{On, Rival, Z};
use crate::world::{Crowd, Fault, Kind, World};

pub const ALPHA: f64 = 0.01;

/// What a trial runs.
#[derive(Clone)]
pub struct Setting {
    pub kind: Kind,
    pub plan: GuardPlan,
    /// Seconds and share of each step.
    pub steps: Vec<(u64, f64)>,
    pub requests_per_second: f64,
    pub fault: Fault,
    /// Seconds before the fault begins.
    pub healthy: u64,
    pub on: On,
    /// When the fixed-horizon test looks, in seconds of fault.
    pub horizon: u64,
    /// Whether to stop once the guard has rolled back and every rival has decided.
    pub stop: bool,
}

/// When each first called for a rollback, in seconds from the fault (or from the beginning of a healthy release).
#[derive(Clone, Copy, Default)]
pub struct Outcome {
    pub guard: Option<u64>,
    pub by: Option<usize>,
    pub held: bool,
    pub ratio: bool,
    pub fixed: Option<u64>,
    pub peeked: Option<u64>,
    pub msprt: Option<u64>,
}

pub fn errors(weight: f64) -> Guardrail {
    Guardrail {
        id: "errors".into(),
        series: "path".into(),
        measure: Measure::ErrorRate,
        action: Action::RollBack,
        comparison: Some(Comparison { weight, ..Comparison::default() }),
        limit: None,
    }
}

pub fn latency(weight: f64) -> Guardrail {
    let comparison =
        Comparison { weight, tolerance: 0.05, more_quantiles: vec![0.5, 0.9, 0.95], ..Comparison::default() };
    Guardrail {
        id: "latency".into(),
        measure: Measure::Latency { quantile: 0.99 },
        comparison: Some(comparison),
        ..errors(weight)
    }
}

pub fn plan(guardrails: Vec<Guardrail>) -> GuardPlan {
    GuardPlan { alpha: ALPHA, guardrails, ratio_series: Some("path".into()), silence_seconds: 60 }
}

pub fn run(setting: &Setting, crowd: &Crowd, seed: u64) -> Outcome {
    let mut world =
        World::new(setting.kind, matches!(setting.on, On::Latency), crowd, setting.requests_per_second, seed);
    let first = setting.steps.first().map_or(0.0, |step| step.1);
    let mut guard = Guard::new(&setting.plan, first).expect("the plan is sound");
    let mut series = Series::new(SeriesLimits { seconds: 3, lateness: 0 }, 0);
    let mut outcome = Outcome::default();
    let mut now = 0;
    for (at, &(seconds, share)) in setting.steps.iter().enumerate() {
        if at > 0 {
            guard.begin_step(share);
            world.begin_step();
        }
        // The rivals have no memory of earlier steps: shares change, and sums over them would compare different hours.
        let mut rival = Rival::default();
        for _ in 0..seconds {
            let fault = if now >= setting.healthy { setting.fault } else { Fault::None };
            let pair = world.second(share, fault);
            rival.add(&pair);
            for (arm, tally) in [(Arm::Treatment, pair.treatment), (Arm::Control, pair.control)] {
                series.add(
                    &Row {
                        second: now,
                        arm,
                        instance: InstanceId(0),
                        tally,
                        first_seen: vec![],
                        first_failing: vec![],
                        first_latency: vec![],
                    },
                    now,
                );
            }
            series.advance(now + 1);
            let decision = guard.observe(now, &[("path", &series)], 0);
            now += 1;
            let elapsed = now.saturating_sub(setting.healthy);
            let in_step = now - setting.steps.iter().take(at).map(|step| step.0).sum::<u64>();
            for verdict in &decision.verdicts {
                outcome.held |= verdict.action == Action::Hold;
                outcome.ratio |= verdict.reason == Reason::SampleRatio;
                if verdict.action == Action::RollBack && outcome.guard.is_none() {
                    outcome.guard = Some(elapsed);
                    outcome.by =
                        setting.plan.guardrails.iter().position(|rail| Some(&rail.id) == verdict.guardrail.as_ref());
                }
            }
            rivals(&mut outcome, &rival, setting, elapsed, in_step == seconds);
            let [a, b, c] = [outcome.guard, outcome.peeked, outcome.msprt].map(|at| at.is_some());
            if setting.stop && a && b && c && elapsed >= setting.horizon {
                return outcome;
            }
        }
    }
    outcome
}

fn rivals(outcome: &mut Outcome, rival: &Rival, setting: &Setting, elapsed: u64, ends: bool) {
    // A healthy release is looked at once at the end of each step; a faulty one at the planned horizon.
    let look = if setting.fault == Fault::None { ends } else { elapsed == setting.horizon };
    if look && outcome.fixed.is_none() && rival.z(setting.on) > Z {
        outcome.fixed = Some(elapsed);
    }
    if elapsed > 0 && elapsed.is_multiple_of(10) {
        if outcome.peeked.is_none() && rival.z(setting.on) > Z {
            outcome.peeked = Some(elapsed);
        }
        if outcome.msprt.is_none() && rival.msprt(setting.on) >= 1.0 / ALPHA {
            outcome.msprt = Some(elapsed);
        }
    }
}

/// Says now and then how far it is: the full size takes a while.
fn progress(calls: bool, done: &AtomicU64, called: &AtomicU64) {
    let called = called.fetch_add(u64::from(calls), Ordering::Relaxed) + u64::from(calls);
    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
    if done.is_multiple_of(100) {
        eprintln!("  {done} runs, the guard called in {called}");
    }
}

/// Runs seeds `0..runs` on `threads` threads, in the order of seeds.
pub fn many(setting: &Setting, crowd: &Crowd, runs: u64, threads: u64) -> Vec<Outcome> {
    let (done, called) = (&AtomicU64::new(0), &AtomicU64::new(0));
    let parts: Vec<Vec<(u64, Outcome)>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                scope.spawn(move || {
                    (worker..runs)
                        .step_by(threads as usize)
                        .map(|seed| {
                            let outcome = run(setting, crowd, 1_000 + seed);
                            progress(outcome.guard.is_some(), done, called);
                            (seed, outcome)
                        })
                        .collect()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker ends well")).collect()
    });
    let mut all: Vec<_> = parts.into_iter().flatten().collect();
    all.sort_by_key(|(seed, _)| *seed);
    all.into_iter().map(|(_, outcome)| outcome).collect()
}
