//! The guard of one release: every second a decision, with the numbers it was made on.

use serde::{Deserialize, Serialize};

use super::latency::{LatencyConfig, LatencyTest};
use super::mean::{Estimate, MeanConfig, MeanTest};
use super::plan::{Action, Comparison, GuardPlan, Guardrail, PlanError};
use super::ratio::{RatioConfig, RatioTest};
use super::sequential::split_alpha;
use super::split::{RATE_EFFECTS, Split, SplitConfig, SplitTest};
use super::thresholds::{LimitState, Measure, Reading};
use crate::metrics::{Pair, Series, Tally};

/// The part of the plan's alpha that the sample ratio gets.
const RATIO_PART: f64 = 0.1;

/// Why a guardrail, or the release, stands where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// Nothing speaks against it.
    Healthy,
    /// The treatment is worse than the control beside it.
    WorseThanControl,
    /// As above, but an arm has fewer observations than the plan wants: hold.
    TooFew,
    /// The treatment is beyond its limit and the control is not.
    BeyondLimit,
    /// Both are beyond the limit, or hardly differ: hold, it is not the release.
    BothAlike,
    /// The arms do not get the shares they were given: hold.
    SampleRatio,
    /// The treatment gets no requests: hold.
    NoTraffic,
    /// Batches are missing: hold.
    Gap,
    /// The treatment is unlike its own past, and the control is not.
    Unusual,
    /// Another monitor did not answer: hold.
    Unanswered,
}

/// What one arm counted in the step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ArmNumbers {
    /// Requests.
    pub count: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Units, counted once a second.
    pub units: u64,
    /// Units that failed, each once.
    pub failing_units: u64,
    /// Values of the tracked metric.
    pub values: u64,
}

impl ArmNumbers {
    fn add(&mut self, tally: &Tally) {
        self.count += tally.count;
        self.errors += tally.errors;
        self.units += tally.units;
        self.failing_units += tally.new_failing_units;
        self.values += tally.values.count;
    }
}

/// What a verdict rests on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// The treatment's numbers in this step.
    pub treatment: ArmNumbers,
    /// The control's.
    pub control: ArmNumbers,
    /// Wealth of the comparison's e-process now; none without a comparison.
    pub wealth: Option<f64>,
    /// The wealth that decides.
    pub decisive: Option<f64>,
    /// The always-valid p-value of "no worse".
    pub p_value: Option<f64>,
    /// For means: the difference with its interval.
    pub estimate: Option<Estimate>,
    /// What the limit saw; none without a limit.
    pub limit: Option<Reading>,
}

/// One guardrail's verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The guardrail; none for the release as a whole (sample ratio, no traffic, gaps).
    pub guardrail: Option<String>,
    /// What it asks for.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// On which numbers.
    pub evidence: Evidence,
}

/// The decision of one second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The second, since 1970-01-01T00:00:00Z.
    pub second: u64,
    /// The strictest of what the verdicts ask for; [`Action::Observe`] is to go on.
    pub action: Action,
    /// Whether people should be told: whenever a verdict is not healthy.
    pub notify: bool,
    /// Every guardrail that is not healthy, with its evidence.
    pub verdicts: Vec<Verdict>,
}

/// The comparison's test.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "test", rename_all = "camelCase")]
enum Test {
    Rate(SplitTest),
    Latency(LatencyTest),
    Mean(MeanTest),
}

/// One guardrail's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Watch {
    guardrail: Guardrail,
    alpha: f64,
    test: Option<Test>,
    limit: LimitState,
    treatment: ArmNumbers,
    control: ArmNumbers,
}

/// The guard of one release. It can be stored and goes on where it was.
///
/// Memory: some 1 kB and, for each guardrail, 0.5 kB with an error rate or mean and up to 10 kB with four latency quantiles.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Guard {
    watches: Vec<Watch>,
    ratio_series: Option<String>,
    ratio: RatioTest,
    silence_seconds: u64,
    silent: u64,
}

impl Guard {
    /// The guard of a release whose first step gives the treatment `share` of the units, 0 to 1.
    ///
    /// # Errors
    ///
    /// All that is wrong with the plan.
    pub fn new(plan: &GuardPlan, share: f64) -> Result<Self, Vec<PlanError>> {
        plan.check()?;
        let part = if plan.ratio_series.is_some() { RATIO_PART } else { 0.0 };
        let weight = |guardrail: &Guardrail| guardrail.comparison.as_ref().map_or(0.0, |comparison| comparison.weight);
        let weights: Vec<f64> = plan.guardrails.iter().map(weight).collect();
        let alphas = split_alpha(plan.alpha * (1.0 - part), &weights);
        let watches =
            plan.guardrails.iter().zip(alphas).map(|(guardrail, alpha)| Watch::new(guardrail, alpha)).collect();
        let ratio = RatioTest::new(RatioConfig { alpha: plan.alpha * RATIO_PART, cluster: 1.0 }, share);
        let ratio_series = plan.ratio_series.clone();
        Ok(Self { watches, ratio_series, ratio, silence_seconds: plan.silence_seconds, silent: 0 })
    }

    /// A new step begins, in which the treatment gets `share` of the units. Evidence of earlier steps stays, samples and
    /// breaches are counted anew.
    pub fn begin_step(&mut self, share: f64) {
        self.ratio.begin_step(share);
        self.silent = 0;
        for watch in &mut self.watches {
            watch.begin_step();
        }
    }

    /// The windows that the plan's limits read, for [`Series::keep_rolling`]: series and seconds.
    pub fn windows(&self) -> impl Iterator<Item = (&str, u64)> {
        self.watches.iter().filter_map(|watch| {
            watch.guardrail.limit.as_ref().map(|limit| (watch.guardrail.series.as_str(), limit.window_seconds))
        })
    }

    /// Decides on `second`, which every one of `series` has read last ([`Series::advance`]). `gaps` is the number of batches
    /// missing from instances that are there. A guardrail whose series is not there has nothing to say.
    pub fn observe(&mut self, second: u64, series: &[(&str, &Series)], gaps: u64) -> Decision {
        let find = |name: &str| series.iter().find(|(held, _)| *held == name).map(|(_, series)| *series);
        let mut verdicts: Vec<Verdict> = self
            .watches
            .iter_mut()
            .filter_map(|watch| find(&watch.guardrail.series).and_then(|series| watch.observe(series)))
            .collect();
        let units = self.ratio_series.as_deref().and_then(find).and_then(Series::last_read);
        verdicts.extend(units.into_iter().filter_map(|pair| self.ratio(pair)));
        let traffic = series.iter().filter_map(|(_, series)| series.last_read()).any(|pair| pair.treatment.count > 0);
        self.silent = if traffic { 0 } else { self.silent.saturating_add(1) };
        if self.silence_seconds > 0 && self.silent >= self.silence_seconds {
            verdicts.push(Verdict::hold(Reason::NoTraffic));
        }
        if gaps > 0 {
            verdicts.push(Verdict::hold(Reason::Gap));
        }
        let action = verdicts.iter().map(|verdict| verdict.action).max().unwrap_or(Action::Observe);
        Decision { second, action, notify: !verdicts.is_empty(), verdicts }
    }

    fn ratio(&mut self, pair: &Pair) -> Option<Verdict> {
        self.ratio.observe(pair.treatment.new_units, pair.control.new_units);
        let (treatment, control) = self.ratio.units();
        self.ratio.crossed().then(|| Verdict {
            evidence: Evidence {
                treatment: ArmNumbers { units: treatment, ..ArmNumbers::default() },
                control: ArmNumbers { units: control, ..ArmNumbers::default() },
                wealth: Some(self.ratio.value()),
                p_value: Some(self.ratio.p_value()),
                ..Evidence::default()
            },
            ..Verdict::hold(Reason::SampleRatio)
        })
    }

    /// Every guardrail's evidence now, the healthy ones' too: for a status page and the report.
    pub fn evidence(&self) -> impl Iterator<Item = (&str, Evidence)> {
        self.watches.iter().map(|watch| (watch.guardrail.id.as_str(), watch.evidence(None)))
    }
}

impl Verdict {
    fn hold(reason: Reason) -> Self {
        Self { guardrail: None, action: Action::Hold, reason, evidence: Evidence::default() }
    }
}

impl Test {
    fn new(measure: Measure, comparison: &Comparison, alpha: f64) -> Self {
        let Comparison { tolerance, floor, cluster, per_unit, .. } = *comparison;
        match measure {
            Measure::ErrorRate => {
                let config = SplitConfig { alpha, tolerance: 1.0 + tolerance, cluster };
                Self::Rate(SplitTest::new(config, RATE_EFFECTS))
            }
            Measure::Latency { quantile } => {
                let quantiles = std::iter::once(quantile).chain(comparison.more_quantiles.iter().copied()).collect();
                Self::Latency(LatencyTest::new(LatencyConfig { alpha, quantiles, tolerance, floor, cluster, per_unit }))
            }
            Measure::Mean { worse } => {
                Self::Mean(MeanTest::new(MeanConfig { alpha, worse, tolerance, floor, cluster }))
            }
        }
    }

    fn observe(&mut self, pair: &Pair, per_unit: bool) {
        match self {
            Self::Rate(test) => {
                let (treatment, control) = (&pair.treatment, &pair.control);
                let split = if per_unit {
                    Split {
                        treatment: treatment.units_at_risk,
                        treatment_failing: treatment.new_failing_units,
                        control: control.units_at_risk,
                        control_failing: control.new_failing_units,
                    }
                } else {
                    Split {
                        treatment: treatment.count,
                        treatment_failing: treatment.errors,
                        control: control.count,
                        control_failing: control.errors,
                    }
                };
                test.observe([split], RATE_EFFECTS);
            }
            Self::Latency(test) => test.observe(pair),
            Self::Mean(test) => test.observe(pair),
        }
    }

    fn begin_step(&mut self) {
        match self {
            Self::Rate(test) => test.begin_step(),
            Self::Latency(test) => test.begin_step(),
            Self::Mean(test) => test.begin_step(),
        }
    }

    /// Whether it crossed, its wealth, and its p-value.
    fn state(&self) -> (bool, f64, f64) {
        match self {
            Self::Rate(test) => (test.crossed(), test.value(), test.p_value()),
            Self::Latency(test) => (test.crossed(), test.value(), test.p_value()),
            Self::Mean(test) => (test.crossed(), test.value(), test.p_value()),
        }
    }
}

impl Watch {
    fn new(guardrail: &Guardrail, alpha: f64) -> Self {
        let test = guardrail.comparison.as_ref().map(|comparison| Test::new(guardrail.measure, comparison, alpha));
        let (treatment, control) = Default::default();
        Self { guardrail: guardrail.clone(), alpha, test, limit: LimitState::default(), treatment, control }
    }

    fn begin_step(&mut self) {
        (self.treatment, self.control) = Default::default();
        self.limit = LimitState::default();
        if let Some(test) = &mut self.test {
            test.begin_step();
        }
    }

    /// The verdict of the second that `series` read last; none if all is well.
    fn observe(&mut self, series: &Series) -> Option<Verdict> {
        let pair = series.last_read()?;
        self.treatment.add(&pair.treatment);
        self.control.add(&pair.control);
        let comparison = self.guardrail.comparison.as_ref();
        if let (Some(test), Some(comparison)) = (&mut self.test, comparison) {
            test.observe(pair, comparison.per_unit);
        }
        let measure = self.guardrail.measure;
        let reading = self.guardrail.limit.as_ref().map(|limit| match series.rolling(limit.window_seconds) {
            Some(window) => self.limit.judge(limit, measure, window),
            None => self.limit.judge(limit, measure, &series.window(limit.window_seconds)),
        });
        let (action, reason) = self.judge(reading);
        (reason != Reason::Healthy).then(|| Verdict {
            guardrail: Some(self.guardrail.id.clone()),
            action,
            reason,
            evidence: self.evidence(reading),
        })
    }

    /// What the numbers ask for. A comparison that was decided goes before a limit: it knows that the control does not
    /// degrade alike.
    fn judge(&self, reading: Option<Reading>) -> (Action, Reason) {
        let full = self.guardrail.action;
        let crossed = self.test.as_ref().is_some_and(|test| test.state().0);
        if crossed {
            return if self.enough() {
                (full, Reason::WorseThanControl)
            } else {
                (full.min(Action::Hold), Reason::TooFew)
            };
        }
        match reading {
            Some(reading) if reading.broken && reading.alike => (full.min(Action::Hold), Reason::BothAlike),
            Some(reading) if reading.broken => (full, Reason::BeyondLimit),
            _ => (Action::Observe, Reason::Healthy),
        }
    }

    fn enough(&self) -> bool {
        let Some(comparison) = &self.guardrail.comparison else { return true };
        let sample = |numbers: &ArmNumbers| match self.guardrail.measure {
            Measure::Mean { .. } => numbers.values,
            _ if comparison.per_unit => numbers.units,
            _ => numbers.count,
        };
        sample(&self.treatment).min(sample(&self.control)) >= comparison.minimum_sample
    }

    fn evidence(&self, limit: Option<Reading>) -> Evidence {
        let state = self.test.as_ref().map(Test::state);
        let estimate = match &self.test {
            Some(Test::Mean(test)) => test.estimate(),
            _ => None,
        };
        Evidence {
            treatment: self.treatment,
            control: self.control,
            wealth: state.map(|(_, wealth, _)| wealth),
            decisive: state.map(|_| 1.0 / self.alpha),
            p_value: state.map(|(_, _, p_value)| p_value),
            estimate,
            limit,
        }
    }
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
