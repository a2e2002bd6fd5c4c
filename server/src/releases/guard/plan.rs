//! What a release is guarded by.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::latency::MAX_QUANTILES;
use super::thresholds::{Limit, Measure};

/// The longest window of a limit, in seconds.
pub const MAX_WINDOW_SECONDS: u64 = 600;
/// The most guardrails of a release.
pub const MAX_GUARDRAILS: usize = 20;

/// What happens when a guardrail is broken. Ordered by how far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Nothing but a note.
    Observe,
    /// The release does not advance, and people are told.
    Hold,
    /// The rollout goes back to its last stable allocation.
    RollBack,
    /// The flag is turned off.
    Kill,
}

/// The comparison of the treatment with the control beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Comparison {
    /// By what share the treatment may be worse; 0 or more. Of the odds for errors, of the value for latencies and means.
    /// Default 0.
    pub tolerance: f64,
    /// A difference, in the measure's own unit (microseconds for latencies), that is none: for paths so short that measuring
    /// them is most of what is measured. The larger of it and `tolerance` holds; it says nothing of errors. Default 0.
    pub floor: f64,
    /// This guardrail's part of the false alarms, relative to the others'. Above 0; default 1.
    pub weight: f64,
    /// Units (for means: values) that each arm must have had in the step before anything is done. Default 20.
    pub minimum_sample: u64,
    /// Whether errors and latencies are those of units rather than of requests. Default true.
    pub per_unit: bool,
    /// How many observations may belong together completely; see [`super::split::SplitConfig::cluster`]. At least 1, the
    /// default; for requests choose what one unit makes in a burst.
    pub cluster: f64,
    /// For latencies: further quantiles over which the wealth is spread. Default none.
    pub more_quantiles: Vec<f64>,
}

impl Default for Comparison {
    fn default() -> Self {
        Self {
            tolerance: 0.0,
            floor: 0.0,
            weight: 1.0,
            minimum_sample: 20,
            per_unit: true,
            cluster: 1.0,
            more_quantiles: Vec::new(),
        }
    }
}

/// One metric that a release must not worsen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Guardrail {
    /// Its name in the plan and in every decision.
    pub id: String,
    /// The series it reads.
    pub series: String,
    /// What of it.
    pub measure: Measure,
    /// What happens when it is broken.
    pub action: Action,
    /// The comparison with the control, if there is one.
    #[serde(default)]
    pub comparison: Option<Comparison>,
    /// The absolute limit, if there is one.
    #[serde(default)]
    pub limit: Option<Limit>,
}

/// Everything the guard of a release needs to know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GuardPlan {
    /// Chance that a release that worsens nothing is ever acted on for a comparison, over all steps and however long it runs.
    /// Above 0, at most 0.5. A tenth is for the sample ratio, the rest is divided over the guardrails by weight.
    pub alpha: f64,
    /// The guardrails, 1 to [`MAX_GUARDRAILS`].
    pub guardrails: Vec<Guardrail>,
    /// The series whose new units tell the sample ratio; none to leave that out.
    pub ratio_series: Option<String>,
    /// Seconds without a request of the treatment after which the release holds. 0 for never.
    pub silence_seconds: u64,
}

/// Why a plan is refused: the guardrail's place in the list, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// `alpha` is out of its range.
    #[error("alpha must be above 0 and at most 0.5: choose the share of healthy releases that may be disturbed")]
    Alpha,
    /// No guardrail, or too many.
    #[error("{0} guardrails: a plan has 1 to {max}", max = MAX_GUARDRAILS)]
    Number(usize),
    /// Two of the same name.
    #[error("guardrail {0}: its id is taken by an earlier one")]
    Repeated(usize),
    /// Neither compared nor limited.
    #[error("guardrail {0}: it needs a comparison or a limit")]
    Idle(usize),
    /// A number out of its range.
    #[error("guardrail {0}: {1} is out of its range")]
    Range(usize, &'static str),
}

impl GuardPlan {
    /// Checks every range.
    ///
    /// # Errors
    ///
    /// All that is wrong, in the plan's order.
    pub fn check(&self) -> Result<(), Vec<PlanError>> {
        let mut wrong = Vec::new();
        if !(self.alpha > 0.0 && self.alpha <= 0.5) {
            wrong.push(PlanError::Alpha);
        }
        if self.guardrails.is_empty() || self.guardrails.len() > MAX_GUARDRAILS {
            wrong.push(PlanError::Number(self.guardrails.len()));
        }
        let mut ids = BTreeSet::new();
        for (at, guardrail) in self.guardrails.iter().enumerate() {
            if !ids.insert(&guardrail.id) {
                wrong.push(PlanError::Repeated(at));
            }
            if guardrail.comparison.is_none() && guardrail.limit.is_none() {
                wrong.push(PlanError::Idle(at));
            }
            wrong.extend(guardrail.out_of_range().map(|name| PlanError::Range(at, name)));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

impl Guardrail {
    fn out_of_range(&self) -> impl Iterator<Item = &'static str> {
        let inside = |q: f64| q > 0.0 && q < 1.0;
        let quantile = match self.measure {
            Measure::Latency { quantile } => inside(quantile),
            _ => true,
        };
        let mut checks = vec![("quantile", quantile)];
        if let Some(comparison) = &self.comparison {
            let more = &comparison.more_quantiles;
            checks.extend([
                ("floor", comparison.floor >= 0.0 && comparison.floor.is_finite()),
                ("tolerance", comparison.tolerance >= 0.0 && comparison.tolerance <= 10.0),
                ("weight", comparison.weight > 0.0 && comparison.weight.is_finite()),
                ("cluster", comparison.cluster >= 1.0 && comparison.cluster.is_finite()),
                ("moreQuantiles", more.len() < MAX_QUANTILES && more.iter().copied().all(inside)),
            ]);
        }
        if let Some(limit) = &self.limit {
            checks.extend([
                ("value", limit.value.is_finite()),
                ("windowSeconds", (1..=MAX_WINDOW_SECONDS).contains(&limit.window_seconds)),
                ("breaches", limit.breaches >= 1),
            ]);
        }
        checks.into_iter().filter(|(_, holds)| !holds).map(|(name, _)| name)
    }
}
