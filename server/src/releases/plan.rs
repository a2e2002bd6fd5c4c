//! What a release is to do: which rollout it drives, in which steps, and what guards it.

use guidon_sdk::model::SLOTS;
use serde::{Deserialize, Serialize};

use super::guard::mean::Worse;
use super::guard::plan::{Action, Comparison, GuardPlan, Guardrail, PlanError};
use super::guard::thresholds::{Limit, Measure};

/// Most steps of a plan.
pub const MAX_STEPS: usize = 20;
/// Most external guardrails of a plan.
pub const MAX_EXTERNAL: usize = 10;
/// Longest query of an external guardrail, in bytes.
pub const MAX_QUERY_BYTES: usize = 2_048;
/// Longest that a step can be told to last, in seconds: 30 days.
pub const MAX_STEP_SECONDS: u64 = 30 * 86_400;

/// Share of calls that may fail in any ten seconds, in the default guardrails.
const ERROR_LIMIT: f64 = 0.1;
/// Microseconds by which calls may be slower and be no worse, in the default guardrails: nobody notices, and the measuring itself
/// takes some.
const LATENCY_FLOOR: f64 = 200.0;
/// The same of the CPU time of a call.
const CPU_FLOOR: f64 = 20.0;

/// How a release goes about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PlanKind {
    /// More and more people, step by step.
    #[default]
    Progressive,
    /// Everybody at once, from one variation to the other, and back as quickly.
    BlueGreen,
    /// Nobody: the treatment runs beside the control, and its answers are compared and thrown away.
    Shadow,
}

impl PlanKind {
    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Progressive => "progressive",
            Self::BlueGreen => "blueGreen",
            Self::Shadow => "shadow",
        }
    }
}

/// One step: how many get the treatment, and what has to be so before the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// Share of the people that the rollout reaches, out of 100,000, who get the treatment.
    pub share: u32,
    /// Shortest time that the step lasts, in seconds; at most [`MAX_STEP_SECONDS`].
    #[serde(default)]
    pub minimum_seconds: u64,
    /// Units that each arm that gets any must have had in the step.
    #[serde(default)]
    pub minimum_sample: u64,
    /// Whether a person has to start this step.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
    /// Share of the control's calls, out of 100,000, on which the treatment runs in the shadow.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shadow: u32,
}

/// A baseline that is learned for each series, and what happens when the treatment leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Learned {
    /// How readily it tells, 0 to 1; default 0.5.
    pub sensitivity: f64,
    /// What happens; default [`Action::Hold`].
    pub action: Action,
}

impl Default for Learned {
    fn default() -> Self {
        Self { sensitivity: 0.5, action: Action::Hold }
    }
}

/// A number that a Prometheus-compatible endpoint answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct External {
    /// Its name in decisions, unique among all guardrails.
    pub id: String,
    /// The query, in the endpoint's language; it must answer one number.
    pub query: String,
    /// The last value that is still allowed.
    pub value: f64,
    /// Which way is worse.
    #[serde(default = "higher")]
    pub worse: Worse,
    /// Answers in a row beyond the limit, one every ten seconds, that break it; 1 or more.
    #[serde(default = "two")]
    pub breaches: u32,
    /// What happens then.
    pub action: Action,
}

fn higher() -> Worse {
    Worse::Higher
}

fn two() -> u32 {
    2
}

/// When an instance that does worse than its peers is routed away, and what heals it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Healing {
    /// Whether instances are routed away at all; default true.
    pub route_away: bool,
    /// Seconds that an instance is routed away; then it is tried again. Default 300.
    pub seconds: u64,
    /// Name of a healing action that the operator has configured; none to route away only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

impl Default for Healing {
    fn default() -> Self {
        Self { route_away: true, seconds: 300, action: None }
    }
}

/// A release's plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ReleasePlan {
    /// How it goes about it.
    pub kind: PlanKind,
    /// Id of the rule whose rollout it drives; the fallthrough if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Key of the variation under release. Filled in by the server if it is left empty: the flag's one AI variation, or the
    /// one that is not served yet.
    pub treatment: String,
    /// Key of the variation it is compared with. Filled in by the server if it is left empty: what is served now.
    pub control: String,
    /// The steps, 1 to [`MAX_STEPS`]; those of the kind if left empty.
    pub steps: Vec<Step>,
    /// Detectors (a) and (b): limits, and comparison with the control.
    pub guard: GuardPlan,
    /// Detector (c): baselines that are learned; none to do without.
    pub learned: Option<Learned>,
    /// Guardrails that other monitoring answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub external: Vec<External>,
    /// What is done about single instances.
    pub healing: Healing,
    /// Whether the CPU time of each call is measured; needed by guardrails on the series `cpu`.
    pub cpu: bool,
}

impl Default for ReleasePlan {
    fn default() -> Self {
        Self {
            kind: PlanKind::default(),
            rule: None,
            treatment: String::new(),
            control: String::new(),
            steps: Vec::new(),
            guard: GuardPlan::default(),
            learned: Some(Learned::default()),
            external: Vec::new(),
            healing: Healing::default(),
            cpu: true,
        }
    }
}

impl Default for GuardPlan {
    /// Errors, latency (95th and 99th percentile) and CPU time of the treatment against the control: worse rolls back.
    fn default() -> Self {
        Self::of_series("path")
    }
}

impl GuardPlan {
    /// The default guardrails on calls counted in `series`.
    #[must_use]
    pub fn of_series(series: &str) -> Self {
        let compared = |tolerance: f64| Comparison { tolerance, ..Comparison::default() };
        let guardrail = |id: &str, series: &str, measure: Measure, comparison: Comparison| Guardrail {
            id: id.to_owned(),
            series: series.to_owned(),
            measure,
            action: Action::RollBack,
            comparison: Some(comparison),
            limit: None,
        };
        // At 100 % there is nothing to compare with: then this limit alone takes a failing release back.
        let limit = Limit { value: ERROR_LIMIT, window_seconds: 10, minimum_sample: 50, breaches: 3 };
        let latency = Comparison { more_quantiles: vec![0.99], floor: LATENCY_FLOOR, ..compared(0.1) };
        let cpu = Comparison { per_unit: false, floor: CPU_FLOOR, ..compared(0.2) };
        Self {
            alpha: 0.01,
            guardrails: vec![
                Guardrail { limit: Some(limit), ..guardrail("errors", series, Measure::ErrorRate, compared(0.0)) },
                guardrail("latency", series, Measure::Latency { quantile: 0.95 }, latency),
                guardrail("cpu", "cpu", Measure::Mean { worse: Worse::Higher }, cpu),
            ],
            ratio_series: Some(series.to_owned()),
            silence_seconds: 60,
        }
    }
}

/// One thing that is wrong with a plan: where, as a JSON pointer into it, and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanProblem {
    /// Where.
    pub pointer: String,
    /// What, with a remedy.
    pub message: String,
}

impl ReleasePlan {
    /// The steps of a kind where a plan names none.
    #[must_use]
    pub fn default_steps(kind: PlanKind) -> Vec<Step> {
        let step =
            |share, minimum_seconds, minimum_sample| Step { share, minimum_seconds, minimum_sample, ..Step::default() };
        match kind {
            PlanKind::Progressive => {
                vec![step(1_000, 300, 20), step(5_000, 300, 50), step(25_000, 300, 100), step(SLOTS, 300, 100)]
            }
            PlanKind::BlueGreen => vec![step(0, 0, 0), Step { approval: true, ..step(SLOTS, 0, 0) }],
            PlanKind::Shadow => vec![Step { shadow: 10_000, ..step(0, 600, 100) }],
        }
    }

    /// Fills in what the kind says where the plan is silent.
    pub fn complete(&mut self) {
        if self.steps.is_empty() {
            self.steps = Self::default_steps(self.kind);
        }
        if self.kind == PlanKind::Shadow && self.guard == GuardPlan::default() {
            self.guard = GuardPlan::of_series("shadow");
        }
    }

    /// The largest share of people that the plan leads to the treatment, out of 100,000.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.steps.iter().map(|step| step.share).max().unwrap_or(0)
    }

    /// The metrics that instances have to attribute to the flag: those tracked by the application.
    #[must_use]
    pub fn tracked_metrics(&self) -> Vec<String> {
        let built_in = ["path", "shadow", "shadow-match", "cpu"];
        let mut metrics: Vec<String> = self.guard.guardrails.iter().map(|guardrail| guardrail.series.clone()).collect();
        metrics.retain(|metric| !built_in.contains(&metric.as_str()));
        metrics.sort_unstable();
        metrics.dedup();
        metrics
    }

    /// All series that the guard reads.
    #[must_use]
    pub fn series(&self) -> Vec<String> {
        let mut series: Vec<String> = self.guard.guardrails.iter().map(|guardrail| guardrail.series.clone()).collect();
        series.extend(self.guard.ratio_series.clone());
        series.push(if self.kind == PlanKind::Shadow { "shadow" } else { "path" }.to_owned());
        series.sort_unstable();
        series.dedup();
        series
    }

    /// Everything that is wrong with a completed plan, apart from what only its flag can tell.
    #[must_use]
    pub fn problems(&self) -> Vec<PlanProblem> {
        let mut problems = Vec::new();
        let mut wrong = |pointer: String, message: String| problems.push(PlanProblem { pointer, message });
        if self.steps.is_empty() || self.steps.len() > MAX_STEPS {
            wrong("/steps".to_owned(), format!("{} steps: a plan has 1 to {MAX_STEPS}", self.steps.len()));
        }
        for (at, step) in self.steps.iter().enumerate() {
            if step.share > SLOTS || step.shadow > SLOTS {
                let message = format!("shares are out of {SLOTS}: 1000 is 1 %, {SLOTS} is everybody");
                wrong(format!("/steps/{at}/share"), message);
            }
            if step.minimum_seconds > MAX_STEP_SECONDS {
                let message = format!("a step lasts at most {MAX_STEP_SECONDS} seconds (30 days)");
                wrong(format!("/steps/{at}/minimumSeconds"), message);
            }
        }
        let falls = self.steps.windows(2).position(|pair| matches!(pair, [one, two] if two.share < one.share));
        if let Some(at) = falls {
            let message = "a step reaches no fewer people than the one before it: order the steps by share".to_owned();
            wrong(format!("/steps/{}/share", at + 1), message);
        }
        match self.kind {
            PlanKind::Progressive | PlanKind::BlueGreen if self.steps.iter().any(|step| step.shadow > 0) => {
                let message = "only a shadow release runs in the shadow: make it one of its own, before this one";
                wrong("/steps".to_owned(), message.to_owned());
            }
            PlanKind::Shadow if self.most() > 0 => {
                wrong(
                    "/steps".to_owned(),
                    "nobody gets the treatment of a shadow release: leave `share` at 0".to_owned(),
                );
            }
            PlanKind::Shadow if self.steps.iter().all(|step| step.shadow == 0) => {
                wrong("/steps".to_owned(), "a shadow release needs a step with `shadow` above 0".to_owned());
            }
            PlanKind::BlueGreen if self.steps.iter().any(|step| step.share != 0 && step.share != SLOTS) => {
                wrong(
                    "/steps".to_owned(),
                    format!("a blue-green release switches everybody at once: shares are 0 or {SLOTS}"),
                );
            }
            _ => {}
        }
        if let Err(found) = self.guard.check() {
            problems.extend(
                found.into_iter().map(|error| PlanProblem { pointer: place(&error), message: error.to_string() }),
            );
        }
        problems.extend(self.other_problems());
        problems
    }

    fn other_problems(&self) -> Vec<PlanProblem> {
        let mut problems = Vec::new();
        let mut wrong =
            |pointer: String, message: &str| problems.push(PlanProblem { pointer, message: message.to_owned() });
        if self.learned.is_some_and(|learned| !(0.0..=1.0).contains(&learned.sensitivity)) {
            wrong("/learned/sensitivity".to_owned(), "sensitivity is 0 (tell little) to 1 (tell much)");
        }
        if self.external.len() > MAX_EXTERNAL {
            wrong("/external".to_owned(), "a plan has at most 10 external guardrails");
        }
        for (at, external) in self.external.iter().enumerate() {
            let taken = self.guard.guardrails.iter().any(|guardrail| guardrail.id == external.id)
                || self.external.iter().take(at).any(|earlier| earlier.id == external.id);
            if taken || external.id.is_empty() {
                wrong(format!("/external/{at}/id"), "every guardrail has a name of its own");
            }
            if external.query.is_empty() || external.query.len() > MAX_QUERY_BYTES {
                wrong(format!("/external/{at}/query"), "a query has 1 to 2,048 bytes");
            }
            if !external.value.is_finite() || external.breaches == 0 {
                wrong(format!("/external/{at}"), "`value` is a number, and `breaches` at least 1");
            }
        }
        if !(10..=86_400).contains(&self.healing.seconds) {
            wrong("/healing/seconds".to_owned(), "an instance is routed away for 10 to 86,400 seconds");
        }
        if !self.cpu && self.guard.guardrails.iter().any(|guardrail| guardrail.series == "cpu") {
            wrong("/cpu".to_owned(), "a guardrail reads the series cpu: leave `cpu` on, or take the guardrail out");
        }
        problems
    }
}

/// Where in the plan a problem of its guardrails stands.
fn place(error: &PlanError) -> String {
    match error {
        PlanError::Alpha => "/guard/alpha".to_owned(),
        PlanError::Number(_) => "/guard/guardrails".to_owned(),
        PlanError::Repeated(at) | PlanError::Idle(at) | PlanError::Range(at, _) => format!("/guard/guardrails/{at}"),
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_plan_is_a_whole_one() {
        for kind in [PlanKind::Progressive, PlanKind::BlueGreen, PlanKind::Shadow] {
            let mut plan: ReleasePlan = serde_json::from_value(serde_json::json!({ "kind": kind })).unwrap();
            plan.complete();
            assert_eq!(plan.problems(), [], "{kind:?}");
            let again: ReleasePlan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
            assert_eq!(again, plan);
        }
        assert_eq!(
            ReleasePlan::default_steps(PlanKind::Progressive).iter().map(|step| step.share).collect::<Vec<_>>(),
            [1_000, 5_000, 25_000, 100_000]
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let plan = |json: serde_json::Value| {
            let mut plan: ReleasePlan = serde_json::from_value(json).unwrap();
            plan.complete();
            plan.problems().into_iter().map(|problem| problem.pointer).collect::<Vec<_>>()
        };
        assert_eq!(plan(serde_json::json!({"steps": [{"share": 5_000}, {"share": 1_000}]})), ["/steps/1/share"]);
        assert_eq!(plan(serde_json::json!({"steps": [{"share": 200_000}]})), ["/steps/0/share"]);
        assert_eq!(plan(serde_json::json!({"kind": "shadow", "steps": [{"share": 1, "shadow": 10}]})), ["/steps"]);
        assert_eq!(plan(serde_json::json!({"kind": "blueGreen", "steps": [{"share": 1}]})), ["/steps"]);
        assert_eq!(plan(serde_json::json!({"guard": {"alpha": 2.0}})), ["/guard/alpha"]);
        assert_eq!(plan(serde_json::json!({"cpu": false})), ["/cpu"]);
        assert_eq!(plan(serde_json::json!({"learned": {"sensitivity": 7.0}})), ["/learned/sensitivity"]);
    }
}
