//! What the server keeps in memory of a release under way: its guard, its learned baselines, and its samples. Pure.

use super::guard::plan::{Action, GuardPlan, MAX_WINDOW_SECONDS};
use super::guard::thresholds::Measure;
use super::guard::{Decision, Evidence, Guard, Reason, Verdict};
use super::live::{Arms, GuardrailLive, LearnedLive};
use super::plan::{External, PlanKind, ReleasePlan};
use super::release::Release;
use crate::anomaly::{Detector, Sensitivity};
use crate::metrics::{Pair, Series, Tally, WatchSpec};

/// Seconds that are kept of each series; no window of a limit can be longer.
pub const WATCH_SECONDS: u64 = MAX_WINDOW_SECONDS;
/// Seconds of the window that makes one point of a learned baseline: rates of fewer calls are mostly noise.
pub const POINT_SECONDS: u64 = 10;
/// Seconds from one point to the next: a detector, which says nothing for its first hundred points, has learned in 200.
pub const POINT_EVERY: u64 = 2;
/// Calls that a point needs.
pub const POINT_CALLS: u64 = 50;
/// Seconds over which a status shows values.
const SHOWN_SECONDS: u64 = 60;

/// The part of a plan's alpha that the guard's first run gets. What is left is halved with every run after it, so that all
/// runs of a release together stay within alpha.
const FIRST_RUN: f64 = 0.8;

/// Which series tells of the release's calls.
pub(super) fn calls_series(plan: &ReleasePlan) -> &'static str {
    if plan.kind == PlanKind::Shadow { "shadow" } else { "path" }
}

/// The learned baselines of one measure: of both arms, because only the treatment's is the release's.
#[derive(Debug)]
struct LearnedPair {
    measure: Measure,
    name: &'static str,
    arms: [Detector; 2],
    score: f64,
}

/// An external guardrail's answers.
#[derive(Clone, Debug, Default, PartialEq)]
struct Answers {
    breaches: u32,
    last: Option<f64>,
    failed: Option<String>,
}

/// A release under way, as its server sees it.
///
/// Memory: the guard (some 1 kB and 10 kB for each latency guardrail) and four detectors of some 16 kB.
#[derive(Debug)]
pub struct Watching {
    id: String,
    step_revision: u64,
    step_at: u64,
    runs: i32,
    guard: Guard,
    learned: Vec<LearnedPair>,
    answers: Vec<Answers>,
    units: Arms<u64>,
    calls: Arms<u64>,
    last: Option<Decision>,
    shown: Vec<(String, Arms<Option<f64>>)>,
    healthy_seconds: u64,
}

impl Watching {
    /// Begins to watch `release` at its present step. None if its plan is not sound, which no check lets through.
    #[must_use]
    pub fn new(release: &Release) -> Option<Self> {
        let measures = [(Measure::ErrorRate, "errors"), (Measure::Latency { quantile: 0.95 }, "p95 latency")];
        let learned = release.plan.learned.map(|_| {
            let pair =
                |(measure, name)| LearnedPair { measure, name, arms: [Detector::new(), Detector::new()], score: 0.0 };
            measures.map(pair)
        });
        Some(Self {
            id: release.id.clone(),
            step_revision: release.step_revision,
            step_at: release.step_at,
            runs: 0,
            guard: Guard::new(&plan_of_run(&release.plan.guard, 0), share(release)).ok()?,
            learned: learned.into_iter().flatten().collect(),
            answers: vec![Answers::default(); release.plan.external.len()],
            units: Arms::default(),
            calls: Arms::default(),
            last: None,
            shown: Vec::new(),
            healthy_seconds: 0,
        })
    }

    /// The release it watches.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the instances' rows are to be filed by.
    #[must_use]
    pub fn spec(&self, release: &Release) -> WatchSpec {
        WatchSpec {
            release: release.id.clone(),
            treatment: release.plan.treatment.clone(),
            control: release.plan.control.clone(),
            metrics: release.plan.series(),
            windows: self.windows(release),
            min_revision: release.step_revision,
            seconds: WATCH_SECONDS,
        }
    }

    /// The windows that are kept up to date: those of limits, and those that a status shows.
    fn windows(&self, release: &Release) -> Vec<(String, u64)> {
        let limits = self.guard.windows().map(|(series, seconds)| (series.to_owned(), seconds));
        limits.chain(release.plan.series().into_iter().map(|series| (series, SHOWN_SECONDS))).collect()
    }

    /// Follows the release to its present step; true if that is a new one. Evidence of earlier steps stays.
    pub fn follow(&mut self, release: &Release) -> bool {
        if (self.step_revision, self.step_at) == (release.step_revision, release.step_at) {
            return false;
        }
        (self.step_revision, self.step_at) = (release.step_revision, release.step_at);
        self.guard.begin_step(share(release));
        (self.units, self.calls) = Default::default();
        (self.last, self.healthy_seconds) = (None, 0);
        true
    }

    /// Begins the tests anew, with what is left of alpha: after an instance was routed away, whose failures were not the
    /// release's. Evidence that rested on it would take the release back all the same.
    pub fn begin_run(&mut self, release: &Release) {
        self.runs += 1;
        if let Ok(guard) = Guard::new(&plan_of_run(&release.plan.guard, self.runs), share(release)) {
            self.guard = guard;
        }
        (self.last, self.healthy_seconds) = (None, 0);
    }

    /// Decides on `second`, which each of `series` has read last.
    pub fn observe(&mut self, release: &Release, second: u64, series: &[(&str, &Series)], gaps: u64) {
        let mut decision = self.guard.observe(second, series, gaps);
        let name = calls_series(&release.plan);
        if let Some(calls) = series.iter().find(|(held, _)| *held == name).map(|(_, series)| *series) {
            self.count(calls.last_read());
            if second.is_multiple_of(POINT_EVERY) {
                decision.verdicts.extend(self.learn(release, second, &calls.window(POINT_SECONDS)));
            } else if let Some(last) = &self.last {
                // A point stands until the next one.
                decision.verdicts.extend(last.verdicts.iter().filter(|verdict| is_learned(verdict)).cloned());
            }
        }
        decision.verdicts.extend(self.external(&release.plan.external));
        decision.action = decision.verdicts.iter().map(|verdict| verdict.action).max().unwrap_or(Action::Observe);
        decision.notify = !decision.verdicts.is_empty();
        self.healthy_seconds = if decision.action < Action::Hold { self.healthy_seconds + 1 } else { 0 };
        self.show(release, series);
        self.last = Some(decision);
    }

    fn count(&mut self, pair: Option<&Pair>) {
        let Some(pair) = pair else { return };
        self.units.treatment += pair.treatment.new_units;
        self.units.control += pair.control.new_units;
        self.calls.treatment += pair.treatment.count;
        self.calls.control += pair.control.count;
    }

    fn learn(&mut self, release: &Release, second: u64, window: &Pair) -> Vec<Verdict> {
        let Some(learned) = release.plan.learned else { return Vec::new() };
        let threshold = Sensitivity::new(learned.sensitivity).threshold();
        let at_ms = i64::try_from(second.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let mut verdicts = Vec::new();
        for pair in &mut self.learned {
            let [treatment, control] = &mut pair.arms;
            let score = |detector: &mut Detector, tally: &Tally| {
                let (value, _) = pair.measure.read(tally).filter(|_| tally.count >= POINT_CALLS)?;
                detector.observe(at_ms, value).ok().map(|reading| reading.score)
            };
            let (ours, theirs) = (score(treatment, &window.treatment), score(control, &window.control));
            pair.score = ours.unwrap_or(0.0);
            if pair.score < threshold {
                continue;
            }
            let alike = theirs.is_some_and(|theirs| theirs >= threshold);
            let (action, reason) = match alike {
                true => (learned.action.min(Action::Hold), Reason::BothAlike),
                false => (learned.action, Reason::Unusual),
            };
            verdicts.push(Verdict {
                guardrail: Some(format!("learned {}", pair.name)),
                action,
                reason,
                evidence: Evidence::default(),
            });
        }
        verdicts
    }

    /// Takes the answer to the query of the external guardrail at `index`.
    pub fn answered(&mut self, external: &External, index: usize, answer: Result<f64, String>) {
        let Some(held) = self.answers.get_mut(index) else { return };
        match answer {
            Ok(value) => {
                let beyond = Measure::Mean { worse: external.worse }.is_worse(value, external.value);
                held.breaches = if beyond { held.breaches.saturating_add(1) } else { 0 };
                (held.last, held.failed) = (Some(value), None);
            }
            // What is not known holds: it neither breaks a guardrail nor lets the release advance.
            Err(reason) => held.failed = Some(reason),
        }
    }

    fn external(&self, externals: &[External]) -> Vec<Verdict> {
        let judged = externals.iter().zip(&self.answers).filter_map(|(external, held)| {
            let (action, reason) = if held.breaches >= external.breaches {
                (external.action, Reason::BeyondLimit)
            } else if held.failed.is_some() || held.last.is_none() {
                (external.action.min(Action::Hold), Reason::Unanswered)
            } else {
                return None;
            };
            Some(Verdict { guardrail: Some(external.id.clone()), action, reason, evidence: Evidence::default() })
        });
        judged.collect()
    }

    fn show(&mut self, release: &Release, series: &[(&str, &Series)]) {
        let shown = release.plan.guard.guardrails.iter().map(|guardrail| {
            let of = series.iter().find(|(name, _)| *name == guardrail.series);
            let window = of.and_then(|(_, series)| series.rolling(SHOWN_SECONDS));
            let read = |tally: &Tally| guardrail.measure.read(tally).map(|(value, _)| value);
            let value = window.map_or_else(Arms::default, |window| Arms {
                treatment: read(&window.treatment),
                control: read(&window.control),
            });
            (guardrail.id.clone(), value)
        });
        self.shown = shown.collect();
    }

    /// The last decision.
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        self.last.as_ref()
    }

    /// Seconds in a row in which nothing asked to hold.
    #[must_use]
    pub fn healthy_seconds(&self) -> u64 {
        self.healthy_seconds
    }

    /// What each arm has had in the step: distinct units, or calls where the calls name none.
    #[must_use]
    pub fn sample(&self) -> Arms<u64> {
        let of = |units: u64, calls: u64| if units == 0 { calls } else { units };
        Arms {
            treatment: of(self.units.treatment, self.calls.treatment),
            control: of(self.units.control, self.calls.control),
        }
    }

    /// Every guardrail with its numbers.
    #[must_use]
    pub fn guardrails(&self, release: &Release) -> Vec<GuardrailLive> {
        let evidence: Vec<(&str, Evidence)> = self.guard.evidence().collect();
        let mut all: Vec<GuardrailLive> = Vec::new();
        for guardrail in &release.plan.guard.guardrails {
            let found = evidence.iter().find(|(id, _)| *id == guardrail.id).map(|(_, evidence)| *evidence);
            let value = self.shown.iter().find(|(id, _)| *id == guardrail.id).map(|(_, value)| *value);
            all.push(GuardrailLive {
                id: guardrail.id.clone(),
                action: guardrail.action,
                value: value.unwrap_or_default(),
                evidence: found.unwrap_or_default(),
            });
        }
        let externals = release.plan.external.iter().zip(&self.answers).map(|(external, held)| GuardrailLive {
            id: external.id.clone(),
            action: external.action,
            value: Arms { treatment: held.last, control: None },
            evidence: Evidence::default(),
        });
        all.extend(externals);
        all
    }

    /// The scores against learned baselines.
    #[must_use]
    pub fn learned(&self) -> Vec<LearnedLive> {
        self.learned.iter().map(|pair| LearnedLive { series: pair.name.to_owned(), score: pair.score }).collect()
    }
}

fn is_learned(verdict: &Verdict) -> bool {
    verdict.guardrail.as_deref().is_some_and(|id| id.starts_with("learned "))
}

/// The treatment's share, 0 to 1, of the units that the two arms have; in a shadow both run on the same calls.
fn share(release: &Release) -> f64 {
    if release.is_shadow() {
        return 0.5;
    }
    // Rolled out beside more than one other arm, the control has only its part of the rest.
    let step = release.step();
    let weights = super::resolve::weights(&release.stable, &release.plan.treatment, &release.plan.control, step.share);
    let of = |key: &str| f64::from(weights.get(key).copied().unwrap_or(0));
    let (treatment, control) = (of(&release.plan.treatment), of(&release.plan.control));
    if treatment + control > 0.0 { treatment / (treatment + control) } else { 0.0 }
}

fn plan_of_run(plan: &GuardPlan, run: i32) -> GuardPlan {
    let part = if run == 0 { FIRST_RUN } else { (1.0 - FIRST_RUN) / 2_f64.powi(run.min(60)) };
    GuardPlan { alpha: plan.alpha * part, ..plan.clone() }
}

#[cfg(test)]
#[path = "watching_tests.rs"]
mod tests;
