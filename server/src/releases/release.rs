//! What stands of a release, and of the incidents that releases open.

use std::collections::{BTreeMap, BTreeSet};

use guidon_sdk::model::{ReleaseMeasures, Serve};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::plan::{PlanKind, ReleasePlan, Step};

/// Most instances of a release that are routed away at once.
pub const MAX_ROUTED: usize = 100;
/// Most notes of an incident; later ones take the place of the last.
pub const MAX_NOTES: usize = 50;
/// Most incidents kept of a project; the oldest closed ones go first.
pub const MAX_INCIDENTS: usize = 500;
/// Largest evidence of one decision, as JSON, in bytes.
pub const MAX_EVIDENCE_BYTES: usize = 32_768;

/// Where a release stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReleaseState {
    /// Under way.
    Running,
    /// Under way, and does not advance by itself until somebody resumes it. The guard goes on.
    Paused,
    /// Through: the treatment is what is served.
    Completed,
    /// A person ended it; what was served before is served again.
    Aborted,
    /// The guard took it back.
    RolledBack,
}

impl ReleaseState {
    /// Whether it is under way.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Aborted => "aborted",
            Self::RolledBack => "rolledBack",
        }
    }
}

/// A release: the last one of its flag in its environment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// Identifier, `rel-…`.
    pub id: String,
    /// Key of the flag.
    pub flag: String,
    /// Key of the environment.
    pub environment: String,
    /// What it is to do.
    pub plan: ReleasePlan,
    /// BLAKE3 of the plan's JSON, in hexadecimal: what was approved.
    pub plan_hash: String,
    /// What the driven rollout served before, to be restored.
    pub stable: Serve,
    /// Where it stands.
    pub state: ReleaseState,
    /// Index of the present step, or of the last one.
    pub step: usize,
    /// When that step began, in milliseconds since 1970.
    pub step_at: u64,
    /// The revision that began it: windows of earlier ones are not counted.
    pub step_revision: u64,
    /// When it was started, in milliseconds since 1970.
    pub started_at: u64,
    /// The revision that started it.
    pub started_revision: u64,
    /// When it ended, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
    /// Number of the entry that last changed it.
    pub revision: u64,
    /// Why it is paused, or how it ended, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What keeps it from advancing, as the guard says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Instances that are routed away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routed: BTreeMap<String, Routed>,
    /// The incident that locks it, once it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<String>,
}

/// What keeps a release from advancing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Since when, in milliseconds since 1970.
    pub since: u64,
    /// Why, in words.
    pub reason: String,
}

/// An instance that is routed away from the treatment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Routed {
    /// Until when, in milliseconds since 1970.
    pub until: u64,
    /// The incident it is told in.
    pub incident: String,
}

/// What an incident is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IncidentKind {
    /// A release was taken back: it locks the flag's releases until it is closed.
    RolledBack,
    /// A flag was turned off: likewise.
    Killed,
    /// An instance was routed away.
    Instance,
}

impl IncidentKind {
    /// Whether it keeps the flag from being released again.
    #[must_use]
    pub fn locks(self) -> bool {
        matches!(self, Self::RolledBack | Self::Killed)
    }

    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RolledBack => "rolledBack",
            Self::Killed => "killed",
            Self::Instance => "instance",
        }
    }
}

/// Something that the server did by itself, and that a person has to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Incident {
    /// Identifier, `inc-…`.
    pub id: String,
    /// Key of the flag.
    pub flag: String,
    /// Key of the environment.
    pub environment: String,
    /// The release it happened in.
    pub release: String,
    /// What it is about.
    pub kind: IncidentKind,
    /// The instance, for one about an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// When it was opened, in milliseconds since 1970.
    pub opened_at: u64,
    /// The revision that opened it.
    pub opened_revision: u64,
    /// What happened, in words.
    pub summary: String,
    /// The numbers it was decided on.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub evidence: Value,
    /// What was done about it, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// What a person found; open until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<ClosedBy>,
}

/// Something that was done about an incident.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What.
    pub text: String,
}

/// How an incident was closed. Who did it is in the entry of that revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClosedBy {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// The revision that closed it.
    pub revision: u64,
    /// What was found.
    pub finding: String,
}

impl Release {
    /// The present step. A release without steps, which no check lets through, has an empty one.
    #[must_use]
    pub fn step(&self) -> Step {
        self.plan.steps.get(self.step).cloned().unwrap_or_default()
    }

    /// The step after the present one.
    #[must_use]
    pub fn next_step(&self) -> Option<&Step> {
        self.plan.steps.get(self.step + 1)
    }

    /// What instances measure for it, while it is under way.
    #[must_use]
    pub fn measures(&self) -> Option<ReleaseMeasures> {
        self.state.is_active().then(|| ReleaseMeasures {
            treatment: self.plan.treatment.clone(),
            control: self.plan.control.clone(),
            metrics: self.plan.tracked_metrics(),
            cpu: self.plan.cpu,
            shadow: self.step().shadow,
        })
    }

    /// Whether instances run the treatment in the shadow in the present step.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.step().shadow > 0
    }

    /// The instances routed away at `now` (milliseconds since 1970).
    #[must_use]
    pub fn routed_at(&self, now: u64) -> BTreeSet<&str> {
        let routed = self.routed.iter().filter(|(_, routed)| self.state.is_active() && routed.until > now);
        routed.map(|(instance, _)| instance.as_str()).collect()
    }

    /// What it does, as people say it: `progressive release`.
    #[must_use]
    pub fn noun(&self) -> &'static str {
        match self.plan.kind {
            PlanKind::Progressive => "progressive release",
            PlanKind::BlueGreen => "blue-green release",
            PlanKind::Shadow => "shadow release",
        }
    }
}
