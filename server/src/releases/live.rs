//! What the guard sees of a release now: for a status page and the report.

use serde::Serialize;

use super::guard::{Action, Evidence, Verdict};

/// What is known of a release that is under way, this second. Nothing of it is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Live {
    /// Identifier of the release.
    pub release: String,
    /// The second that was decided on last, since 1970; 0 before the first.
    pub second: u64,
    /// What it still waits for before the next step, in words; empty once nothing keeps it.
    pub waiting: Vec<String>,
    /// Each guardrail with its numbers, the healthy ones too.
    pub guardrails: Vec<GuardrailLive>,
    /// What is not healthy, as of that second.
    pub verdicts: Vec<Verdict>,
    /// Units that each arm has had in the step.
    pub units: Arms<u64>,
    /// Score of each series against its learned baseline, 0 to 1.
    pub learned: Vec<LearnedLive>,
    /// SDKs connected to the environment, and how many of them serve the step's revision.
    pub receipts: Receipts,
    /// Instances that are routed away.
    pub routed: Vec<String>,
}

/// A guardrail now.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GuardrailLive {
    /// Its name.
    pub id: String,
    /// What it does when it is broken.
    pub action: Action,
    /// The value of each arm over the last minute: a share for errors, microseconds for latencies, else the metric's unit.
    pub value: Arms<Option<f64>>,
    /// The numbers of its tests.
    pub evidence: Evidence,
}

/// A number of each arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arms<T> {
    /// Of the variation under release.
    pub treatment: T,
    /// Of the one it is compared with.
    pub control: T,
}

/// A series and its learned baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LearnedLive {
    /// Name of the series and what of it.
    pub series: String,
    /// How unusual it is, 0 to 1.
    pub score: f64,
}

/// Who has taken a revision in.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipts {
    /// Connected SDKs.
    pub connected: usize,
    /// Those that serve the revision, or a later one.
    pub acknowledged: usize,
    /// How long the last of them took, in milliseconds since the revision was made.
    pub slowest_ms: Option<u64>,
}

/// Answers what is known of a release now.
pub trait ReleaseWatch: Send + Sync + 'static {
    /// Of the flag's release in an environment; `None` where none is under way, or nothing is known yet.
    fn live(&self, project: &str, environment: &str, flag: &str) -> Option<Live>;
}
