//! The instructions of releases and incidents.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Value};

use super::plan::ReleasePlan;
use crate::changes::Instruction;
use crate::changes::instruction::{flatten, tag};

/// An edit of a flag's release, or of an incident of it, in the environment that its change names.
///
/// Those that move people carry the `edits` of the flag that do so, resolved: filled in by the server from the plan, so that a
/// release cannot do anything else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum ReleaseEdit {
    /// Starts a release at its first step.
    StartRelease {
        /// Key of the flag; it is on.
        flag: String,
        /// What to do.
        #[serde(default)]
        plan: Box<ReleasePlan>,
        /// Identifier. Filled in by the server.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        id: String,
        /// Filled in by the server.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        edits: Vec<Instruction>,
    },
    /// Starts the last release's plan anew, at its first step.
    RestartRelease {
        /// Key of the flag.
        flag: String,
        /// That plan. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        plan: Option<Box<ReleasePlan>>,
        /// Identifier of the new release. Filled in by the server.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        id: String,
        /// Filled in by the server.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        edits: Vec<Instruction>,
    },
    /// Goes to another step: the next one unless `to` says otherwise.
    AdvanceRelease {
        /// Key of the flag.
        flag: String,
        /// Index of the step, from 0.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<usize>,
        /// The release that is meant: another one is left alone. The present one if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<String>,
        /// Filled in by the server.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        edits: Vec<Instruction>,
    },
    /// Keeps a release where it is. The guard goes on.
    PauseRelease {
        /// Key of the flag.
        flag: String,
        /// Why.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
    },
    /// Lets a paused release go on; its step begins anew.
    ResumeRelease {
        /// Key of the flag.
        flag: String,
        /// Puts back what the step serves, if somebody edited it. Filled in by the server.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        edits: Vec<Instruction>,
    },
    /// Ends a release and restores what was served before it.
    AbortRelease {
        /// Key of the flag.
        flag: String,
        /// Why.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// Filled in by the server.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        edits: Vec<Instruction>,
    },
    /// Closes an incident with what was found.
    CloseIncident {
        /// Key of the flag.
        flag: String,
        /// Identifier of the incident.
        incident: String,
        /// What was found.
        finding: String,
    },
    /// Takes a release back. Only the server does.
    RollBackRelease {
        /// Key of the flag.
        flag: String,
        /// The release that is meant.
        release: String,
        /// Whether the flag is turned off, rather than its rollout restored.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        kill: bool,
        /// Why, in words.
        reason: String,
        /// The numbers it was decided on.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        evidence: Value,
        /// Identifier of the incident it opens. Filled in by the server.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        incident: String,
        /// Filled in by the server.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        edits: Vec<Instruction>,
    },
    /// Records that a release is through. Only the server does.
    CompleteRelease {
        /// Key of the flag.
        flag: String,
        /// The release that is meant.
        release: String,
        /// How it went, in words.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reason: String,
        /// The numbers it was decided on.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        evidence: Value,
    },
    /// Records that the guard keeps a release from advancing. Only the server does.
    HoldRelease {
        /// Key of the flag.
        flag: String,
        /// The release that is meant.
        release: String,
        /// Why, in words.
        reason: String,
        /// The numbers it was decided on.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        evidence: Value,
    },
    /// Records that it no longer does. Only the server does.
    LiftHold {
        /// Key of the flag.
        flag: String,
        /// The release that is meant.
        release: String,
    },
    /// Routes an instance away from the treatment for a time, and opens an incident. Only the server does.
    RouteInstance {
        /// Key of the flag.
        flag: String,
        /// The release that is meant.
        release: String,
        /// The instance.
        instance: String,
        /// Until when, in milliseconds since 1970.
        until: u64,
        /// Why, in words.
        reason: String,
        /// The numbers it was decided on.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        evidence: Value,
        /// Identifier of the incident. Filled in by the server.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        incident: String,
    },
    /// Adds to an incident what was done about it. Only the server does.
    NoteIncident {
        /// Key of the flag.
        flag: String,
        /// Identifier of the incident.
        incident: String,
        /// What.
        text: String,
    },
}

impl Serialize for ReleaseEdit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The derived form, {"kind": {fields}}, is the one that can be read with the path of what is wrong.
        let tagged = Self::serialize(self, serde_json::value::Serializer).map_err(ser::Error::custom)?;
        flatten(tagged).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ReleaseEdit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = Map::deserialize(deserializer)?;
        Self::deserialize(tag(flat).map_err(de::Error::custom)?).map_err(de::Error::custom)
    }
}

impl ReleaseEdit {
    /// The words in `kind` of those that people and programs ask for. The others only the server makes, as its guard decides.
    pub const ASKED: [&'static str; 7] = [
        "startRelease",
        "restartRelease",
        "advanceRelease",
        "pauseRelease",
        "resumeRelease",
        "abortRelease",
        "closeIncident",
    ];

    /// The words in `kind`.
    pub const KINDS: [&'static str; 13] = [
        "startRelease",
        "restartRelease",
        "advanceRelease",
        "pauseRelease",
        "resumeRelease",
        "abortRelease",
        "closeIncident",
        "rollBackRelease",
        "completeRelease",
        "holdRelease",
        "liftHold",
        "routeInstance",
        "noteIncident",
    ];

    /// The word in `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::StartRelease { .. } => "startRelease",
            Self::RestartRelease { .. } => "restartRelease",
            Self::AdvanceRelease { .. } => "advanceRelease",
            Self::PauseRelease { .. } => "pauseRelease",
            Self::ResumeRelease { .. } => "resumeRelease",
            Self::AbortRelease { .. } => "abortRelease",
            Self::CloseIncident { .. } => "closeIncident",
            Self::RollBackRelease { .. } => "rollBackRelease",
            Self::CompleteRelease { .. } => "completeRelease",
            Self::HoldRelease { .. } => "holdRelease",
            Self::LiftHold { .. } => "liftHold",
            Self::RouteInstance { .. } => "routeInstance",
            Self::NoteIncident { .. } => "noteIncident",
        }
    }

    /// Key of the flag it is about.
    #[must_use]
    pub fn flag(&self) -> &str {
        match self {
            Self::StartRelease { flag, .. }
            | Self::RestartRelease { flag, .. }
            | Self::AdvanceRelease { flag, .. }
            | Self::PauseRelease { flag, .. }
            | Self::ResumeRelease { flag, .. }
            | Self::AbortRelease { flag, .. }
            | Self::CloseIncident { flag, .. }
            | Self::RollBackRelease { flag, .. }
            | Self::CompleteRelease { flag, .. }
            | Self::HoldRelease { flag, .. }
            | Self::LiftHold { flag, .. }
            | Self::RouteInstance { flag, .. }
            | Self::NoteIncident { flag, .. } => flag,
        }
    }

    /// The plan that it starts.
    #[must_use]
    pub fn plan(&self) -> Option<&ReleasePlan> {
        match self {
            Self::StartRelease { plan, .. } | Self::RestartRelease { plan: Some(plan), .. } => Some(plan),
            _ => None,
        }
    }

    /// The incident it opens, notes or closes.
    #[must_use]
    pub fn incident(&self) -> Option<&str> {
        match self {
            Self::CloseIncident { incident, .. }
            | Self::RollBackRelease { incident, .. }
            | Self::RouteInstance { incident, .. }
            | Self::NoteIncident { incident, .. } => Some(incident),
            _ => None,
        }
    }

    /// The edits of the flag that it makes.
    #[must_use]
    pub fn edits(&self) -> &[Instruction] {
        match self {
            Self::StartRelease { edits, .. }
            | Self::RestartRelease { edits, .. }
            | Self::AdvanceRelease { edits, .. }
            | Self::ResumeRelease { edits, .. }
            | Self::AbortRelease { edits, .. }
            | Self::RollBackRelease { edits, .. } => edits,
            _ => &[],
        }
    }

    /// The edits, to be filled in; `None` for a kind that makes none.
    pub(super) fn edits_mut(&mut self) -> Option<&mut Vec<Instruction>> {
        match self {
            Self::StartRelease { edits, .. }
            | Self::RestartRelease { edits, .. }
            | Self::AdvanceRelease { edits, .. }
            | Self::ResumeRelease { edits, .. }
            | Self::AbortRelease { edits, .. }
            | Self::RollBackRelease { edits, .. } => Some(edits),
            _ => None,
        }
    }

    /// What it does, as a sentence without a full stop.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::StartRelease { flag, plan, .. } => {
                let shares: Vec<String> =
                    plan.steps.iter().map(|step| format!("{} %", f64::from(step.share) / 1_000.0)).collect();
                format!(
                    "started a {} release of {flag} to {} ({})",
                    plan.kind.as_str(),
                    plan.treatment,
                    shares.join(" → ")
                )
            }
            Self::RestartRelease { flag, .. } => format!("started the release of {flag} anew"),
            Self::AdvanceRelease { flag, to, .. } => match to {
                Some(to) => format!("moved the release of {flag} to step {}", to + 1),
                None => format!("moved the release of {flag} on"),
            },
            Self::PauseRelease { flag, .. } => format!("paused the release of {flag}"),
            Self::ResumeRelease { flag, .. } => format!("resumed the release of {flag}"),
            Self::AbortRelease { flag, .. } => format!("aborted the release of {flag}"),
            Self::CloseIncident { flag, incident, .. } => format!("closed the incident {incident} of {flag}"),
            Self::RollBackRelease { flag, kill: true, reason, .. } => format!("turned {flag} off ({reason})"),
            Self::RollBackRelease { flag, reason, .. } => format!("rolled the release of {flag} back ({reason})"),
            Self::CompleteRelease { flag, .. } => format!("completed the release of {flag}"),
            Self::HoldRelease { flag, reason, .. } => format!("held the release of {flag} ({reason})"),
            Self::LiftHold { flag, .. } => format!("let the release of {flag} go on"),
            Self::RouteInstance { flag, instance, reason, .. } => {
                format!("routed the instance {instance} away from {flag} ({reason})")
            }
            Self::NoteIncident { incident, text, .. } => format!("noted in the incident {incident}: {text}"),
        }
    }
}
