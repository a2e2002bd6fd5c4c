//! What an instruction is about.

use std::collections::BTreeSet;

use super::Instruction;
use crate::journal::ObjectId;
use crate::state::Project;

impl Instruction {
    /// `edit` in `environment`, whatever its change names. One that has an environment of its own gets this one; one that
    /// applies to no single environment stays as it is.
    #[must_use]
    pub fn within(environment: impl Into<String>, edit: Self) -> Self {
        match edit {
            Self::Within { edit, .. } => Self::within(environment, *edit),
            edit if edit.needs_environment() => Self::Within { environment: environment.into(), edit: Box::new(edit) },
            edit => edit,
        }
    }

    /// What is done, wherever: what to match on.
    #[must_use]
    pub fn edit(&self) -> &Self {
        match self {
            Self::Within { edit, .. } => edit.edit(),
            edit => edit,
        }
    }

    /// The environment it applies to, in a change that names `named`; `None` if it applies to no single one, or to one that
    /// nobody named.
    #[must_use]
    pub fn environment<'a>(&'a self, named: Option<&'a str>) -> Option<&'a str> {
        match self {
            _ if !self.needs_environment() => None,
            Self::Within { environment, .. } => Some(environment),
            _ => named,
        }
    }

    /// Another edit in the place of this one: in its own environment, if it has one.
    #[must_use]
    pub(crate) fn replaced_by(&self, edit: Self) -> Self {
        match self {
            Self::Within { environment, .. } => Self::within(environment.clone(), edit),
            _ => edit,
        }
    }

    /// Why it may name no environment, in words.
    pub(crate) fn in_no_environment(&self) -> String {
        format!("`{}` applies to no single environment: leave `environment` out", self.kind())
    }

    /// The word in `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateProject { .. } => "createProject",
            Self::CreateEnvironment { .. } => "createEnvironment",
            Self::UpdateEnvironment { .. } => "updateEnvironment",
            Self::DeleteEnvironment { .. } => "deleteEnvironment",
            Self::CreateSdkKey { .. } => "createSdkKey",
            Self::RotateSdkKey { .. } => "rotateSdkKey",
            Self::RevokeSdkKey { .. } => "revokeSdkKey",
            Self::DeclareFreeze { .. } => "declareFreeze",
            Self::LiftFreeze { .. } => "liftFreeze",
            Self::Directory(edit) => edit.kind(),
            Self::Request(edit) => edit.kind(),
            Self::Webhook(edit) => edit.kind(),
            Self::Drill(edit) => edit.kind(),
            Self::Release(edit) => edit.kind(),
            Self::Within { edit, .. } => edit.kind(),
            Self::CreateFlag { .. } => "createFlag",
            Self::UpdateFlag { .. } => "updateFlag",
            Self::SetClientSide { .. } => "setClientSide",
            Self::SetSchema { .. } => "setSchema",
            Self::ArchiveFlag { .. } => "archiveFlag",
            Self::UnarchiveFlag { .. } => "unarchiveFlag",
            Self::DeleteFlag { .. } => "deleteFlag",
            Self::AddVariation { .. } => "addVariation",
            Self::UpdateVariation { .. } => "updateVariation",
            Self::RemoveVariation { .. } => "removeVariation",
            Self::TurnFlagOn { .. } => "turnFlagOn",
            Self::TurnFlagOff { .. } => "turnFlagOff",
            Self::SetOffVariation { .. } => "setOffVariation",
            Self::AddPrerequisite { .. } => "addPrerequisite",
            Self::RemovePrerequisite { .. } => "removePrerequisite",
            Self::AddTargets { .. } => "addTargets",
            Self::RemoveTargets { .. } => "removeTargets",
            Self::AddRule { .. } => "addRule",
            Self::ReplaceRule { .. } => "replaceRule",
            Self::MoveRule { .. } => "moveRule",
            Self::RemoveRule { .. } => "removeRule",
            Self::SetFallthrough { .. } => "setFallthrough",
            Self::SetRollout { .. } => "setRollout",
            Self::RevertFlag { .. } => "revertFlag",
            Self::CreateSegment { .. } => "createSegment",
            Self::UpdateSegment { .. } => "updateSegment",
            Self::DeleteSegment { .. } => "deleteSegment",
            Self::AddSegmentRule { .. } => "addSegmentRule",
            Self::ReplaceSegmentRule { .. } => "replaceSegmentRule",
            Self::RemoveSegmentRule { .. } => "removeSegmentRule",
            Self::AddSegmentKeys { .. } => "addSegmentKeys",
            Self::RemoveSegmentKeys { .. } => "removeSegmentKeys",
            Self::RevertSegment { .. } => "revertSegment",
        }
    }

    /// Key of the flag it edits.
    #[must_use]
    pub fn flag(&self) -> Option<&str> {
        match self {
            Self::CreateFlag { flag } => Some(&flag.key),
            Self::UpdateFlag { flag, .. }
            | Self::SetClientSide { flag, .. }
            | Self::SetSchema { flag, .. }
            | Self::ArchiveFlag { flag }
            | Self::UnarchiveFlag { flag }
            | Self::DeleteFlag { flag }
            | Self::AddVariation { flag, .. }
            | Self::UpdateVariation { flag, .. }
            | Self::RemoveVariation { flag, .. } => Some(flag),
            _ => self.flag_in_environment(),
        }
    }

    /// Key of the flag whose configuration in one environment it edits.
    #[must_use]
    pub fn flag_in_environment(&self) -> Option<&str> {
        match self {
            Self::TurnFlagOn { flag }
            | Self::TurnFlagOff { flag }
            | Self::SetOffVariation { flag, .. }
            | Self::AddPrerequisite { flag, .. }
            | Self::RemovePrerequisite { flag, .. }
            | Self::AddTargets { flag, .. }
            | Self::RemoveTargets { flag, .. }
            | Self::AddRule { flag, .. }
            | Self::ReplaceRule { flag, .. }
            | Self::MoveRule { flag, .. }
            | Self::RemoveRule { flag, .. }
            | Self::SetFallthrough { flag, .. }
            | Self::SetRollout { flag, .. }
            | Self::RevertFlag { flag, .. } => Some(flag),
            Self::Release(edit) => Some(edit.flag()),
            Self::Within { edit, .. } => edit.flag_in_environment(),
            _ => None,
        }
    }

    /// Key of the segment it edits.
    #[must_use]
    pub fn segment(&self) -> Option<&str> {
        match self {
            Self::CreateSegment { segment, .. } => Some(&segment.key),
            Self::UpdateSegment { segment, .. }
            | Self::DeleteSegment { segment }
            | Self::AddSegmentRule { segment, .. }
            | Self::ReplaceSegmentRule { segment, .. }
            | Self::RemoveSegmentRule { segment, .. }
            | Self::AddSegmentKeys { segment, .. }
            | Self::RemoveSegmentKeys { segment, .. }
            | Self::RevertSegment { segment, .. } => Some(segment),
            Self::Within { edit, .. } => edit.segment(),
            _ => None,
        }
    }

    /// Whether it applies to one environment: its own, or the one that its change names.
    #[must_use]
    pub fn needs_environment(&self) -> bool {
        let of_environment = matches!(
            self.edit(),
            Self::CreateSdkKey { .. }
                | Self::RotateSdkKey { .. }
                | Self::DeclareFreeze { .. }
                | Self::LiftFreeze { .. }
                | Self::Drill(_)
        );
        of_environment || self.flag_in_environment().is_some() || self.segment().is_some()
    }

    /// The objects it may change, in a project as it is before the instruction and in a change that names `named`.
    #[must_use]
    pub fn objects(&self, project: &Project, named: Option<&str>) -> BTreeSet<ObjectId> {
        let environment = self.environment(named).unwrap_or_default().to_owned();
        let mut objects = BTreeSet::new();
        if let Some(flag) = self.flag_in_environment() {
            objects.insert(ObjectId::FlagEnvironment(environment.clone(), flag.to_owned()));
            // An edit of what a release drives pauses it.
            if project.releases.contains_key(&(environment.clone(), flag.to_owned())) {
                objects.insert(ObjectId::Release(environment.clone(), flag.to_owned()));
            }
        } else if let Some(flag) = self.flag() {
            objects.insert(ObjectId::Flag(flag.to_owned()));
            if matches!(self.edit(), Self::CreateFlag { .. } | Self::DeleteFlag { .. }) {
                let everywhere = project.environments.keys();
                objects.extend(everywhere.map(|key| ObjectId::FlagEnvironment(key.clone(), flag.to_owned())));
                let drilled = project.drills.keys().filter(|(_, of)| of == flag);
                objects.extend(drilled.map(|(key, of)| ObjectId::Drill(key.clone(), of.clone())));
                let released = project.releases.keys().filter(|(_, of)| of == flag);
                objects.extend(released.map(|(key, of)| ObjectId::Release(key.clone(), of.clone())));
                let incidents = project.incidents.values().filter(|incident| incident.flag == flag);
                objects.extend(incidents.map(|incident| ObjectId::Incident(incident.id.clone())));
            }
        } else if let Some(segment) = self.segment() {
            objects.insert(ObjectId::Segment(environment.clone(), segment.to_owned()));
        }
        match self.edit() {
            Self::CreateProject { .. } => {
                objects.insert(ObjectId::Project);
                objects
                    .extend(crate::environments::Tier::ALL.map(|tier| ObjectId::Environment(tier.as_str().to_owned())));
            }
            Self::UpdateEnvironment { key, .. } => {
                objects.insert(ObjectId::Environment(key.clone()));
            }
            Self::CreateEnvironment { key, .. } | Self::DeleteEnvironment { key } => {
                objects.insert(ObjectId::Environment(key.clone()));
                objects.extend(project.flags.keys().map(|flag| ObjectId::FlagEnvironment(key.clone(), flag.clone())));
                let segments = project.segments_in(key);
                objects.extend(segments.map(|segment| ObjectId::Segment(key.clone(), segment.stored.key.clone())));
                let keys = project.sdk_keys.values().filter(|sdk_key| sdk_key.environment == *key);
                objects.extend(keys.map(|sdk_key| ObjectId::SdkKey(sdk_key.id.clone())));
                let drilled = project.drills.keys().filter(|(of, _)| of == key);
                objects.extend(drilled.map(|(of, flag)| ObjectId::Drill(of.clone(), flag.clone())));
                let released = project.releases.keys().filter(|(of, _)| of == key);
                objects.extend(released.map(|(of, flag)| ObjectId::Release(of.clone(), flag.clone())));
                let incidents = project.incidents.values().filter(|incident| incident.environment == *key);
                objects.extend(incidents.map(|incident| ObjectId::Incident(incident.id.clone())));
            }
            Self::CreateSdkKey { id, .. } | Self::RevokeSdkKey { id } => {
                objects.insert(ObjectId::SdkKey(id.clone()));
            }
            Self::RotateSdkKey { id, successor, .. } => {
                objects.extend([ObjectId::SdkKey(id.clone()), ObjectId::SdkKey(successor.clone())]);
            }
            Self::DeclareFreeze { .. } | Self::LiftFreeze { .. } => {
                objects.insert(ObjectId::Environment(environment));
            }
            Self::Request(edit) => {
                objects.insert(edit.object());
            }
            Self::Webhook(edit) => {
                objects.insert(ObjectId::Webhook(edit.id().to_owned()));
            }
            Self::Release(edit) => {
                objects.insert(ObjectId::Release(environment, edit.flag().to_owned()));
                objects.extend(edit.incident().map(|incident| ObjectId::Incident(incident.to_owned())));
            }
            Self::Drill(edit) => {
                let flag = edit.flag().to_owned();
                // It changes neither of the first two, but says something of them: it conflicts with what does.
                objects.extend([
                    ObjectId::Flag(flag.clone()),
                    ObjectId::FlagEnvironment(environment.clone(), flag.clone()),
                    ObjectId::Drill(environment, flag),
                ]);
            }
            _ => {}
        }
        objects
    }
}
