//! Applies resolved instructions to the state: the one place where anything changes.
//!
//! Used alike by the write path, to see what a change would do, and by the fold, to do it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Instruction, RequestEdit, request};
use crate::drills::{DrillEdit, StandingDrill};
use crate::environments::{Environment, Tier};
use crate::identity::{self, Directory};
use crate::journal::{ObjectHash, ObjectId};
use crate::releases::{self, ReleaseEdit};
use crate::state::{
    Finding, FlagState, KeySetSource, Project, Review, SegmentState, World, hash_in_directory, hash_object,
};
use crate::{environments, flags, notifications, segments};

/// Why a resolved instruction does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// There is nothing of that name.
    #[error("there is no {what} \"{key}\"")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// Its key or id.
        key: String,
    },
    /// There is one of that name already.
    #[error("there is a {what} \"{key}\" already")]
    Exists {
        /// What was to be made.
        what: &'static str,
        /// Its key or id.
        key: String,
    },
    /// A change request does not stand where the instruction could be made.
    #[error("change request \"{id}\": {refusal}")]
    Request {
        /// Identifier of the request.
        id: String,
        /// Why not.
        refusal: String,
    },
    /// The instruction needs an environment, and neither it nor its change names one.
    #[error("neither the instruction nor its change names an environment")]
    NoEnvironment,
    /// A field that the server fills in is missing.
    #[error("`{field}` is not filled in")]
    Unresolved {
        /// Name of the field.
        field: &'static str,
    },
}

/// A world being edited, in one project, by one change.
pub(crate) struct Draft<'a> {
    before: &'a World,
    key: String,
    environment: Option<String>,
    project: Option<Project>,
    directory: Directory,
    revision: u64,
    at: u64,
    named: BTreeSet<ObjectId>,
}

impl<'a> Draft<'a> {
    /// Starts from `before`; the edits will be those of the entry after it, made at `at` (milliseconds since 1970).
    pub(crate) fn new(before: &'a World, project: &str, environment: Option<&str>, at: u64) -> Self {
        Self {
            before,
            key: project.to_owned(),
            environment: environment.map(str::to_owned),
            project: before.projects.get(project).map(|project| Project::clone(project)),
            directory: before.directory.clone(),
            revision: before.revision + 1,
            at,
            named: BTreeSet::new(),
        }
    }

    /// All there was before the first edit.
    pub(crate) fn before(&self) -> &'a World {
        self.before
    }

    /// When the edits are made, in milliseconds since 1970.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// The directory as edited so far.
    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What an object hashes to, as edited so far.
    pub(crate) fn hash(&self, object: &ObjectId) -> Option<String> {
        if object.is_of_directory() {
            return hash_in_directory(&self.directory, object);
        }
        self.project.as_ref().and_then(|project| hash_object(project, object))
    }

    /// The project as edited so far.
    pub(crate) fn project(&self) -> Option<&Project> {
        self.project.as_ref()
    }

    /// The environment that environment-bound instructions apply to, unless they name one themselves.
    pub(crate) fn environment(&self) -> Option<&str> {
        self.environment.as_deref()
    }

    /// Objects that the instructions applied so far are about, changed or not.
    pub(crate) fn named(&self) -> &BTreeSet<ObjectId> {
        &self.named
    }

    /// The objects that differ from what they were, with their hashes now.
    pub(crate) fn changed(&self) -> Vec<ObjectHash> {
        let before = self.before.projects.get(&self.key);
        let hashed = self.named.iter().map(|object| {
            let old = if object.is_of_directory() {
                hash_in_directory(&self.before.directory, object)
            } else {
                before.and_then(|project| hash_object(project, object))
            };
            let hash = self.hash(object);
            (old != hash).then(|| ObjectHash { object: object.clone(), hash })
        });
        hashed.flatten().collect()
    }

    /// The world with the edits, still at the revision before them.
    pub(crate) fn into_world(self) -> World {
        let mut world = self.before.clone();
        world.directory = self.directory;
        let Some(mut project) = self.project else { return world };
        flags::note_served(self.before.projects.get(&self.key).map(|before| &**before), &mut project, &self.named);
        for id in self.named.iter().filter_map(|object| if let ObjectId::SdkKey(id) = object { Some(id) } else { None })
        {
            let old = self.before.projects.get(&self.key).and_then(|project| project.sdk_keys.get(id));
            if let Some(old) = old {
                world.credentials.remove(&old.hash);
            }
            if let Some(live) = project.sdk_keys.get(id).filter(|key| key.revoked_at.is_none()) {
                world.credentials.insert(live.hash.clone(), (self.key.clone(), id.clone()));
            }
        }
        world.projects.insert(self.key, Arc::new(project));
        world
    }

    /// Applies one resolved instruction. On an error the draft is as it was.
    pub(crate) fn apply(&mut self, instruction: &Instruction, keys: &dyn KeySetSource) -> Result<(), ApplyError> {
        if let Instruction::CreateProject { name } = instruction.edit() {
            self.create_project(name)?;
        }
        if let Instruction::Directory(edit) = instruction.edit() {
            identity::directory::apply(&mut self.directory, edit, self.at)?;
            self.named.extend(edit.objects());
            return Ok(());
        }
        let mut project = self.project.take().ok_or_else(|| unknown("project", &self.key))?;
        let named = self.environment.as_deref();
        let objects = instruction.objects(&project, named);
        let applied = self.edit(&mut project, instruction.environment(named), instruction.edit(), keys);
        self.project = Some(project);
        applied?;
        self.named.extend(objects);
        Ok(())
    }

    fn create_project(&mut self, name: &str) -> Result<(), ApplyError> {
        if self.project.is_some() {
            return Err(exists("project", &self.key));
        }
        let name = if name.is_empty() { &self.key } else { name };
        self.project = Some(Project {
            key: self.key.clone(),
            name: name.to_owned(),
            created_at: self.at,
            environments: Tier::ALL
                .map(|tier| (tier.as_str().to_owned(), Arc::new(Environment::of_tier(tier))))
                .into_iter()
                .collect(),
            flags: Default::default(),
            segments: Default::default(),
            sdk_keys: Default::default(),
            served_variations: Default::default(),
            requests: Default::default(),
            reviews: Default::default(),
            webhooks: Default::default(),
            drills: Default::default(),
            releases: Default::default(),
            incidents: Default::default(),
        });
        Ok(())
    }

    fn edit(
        &self,
        project: &mut Project,
        environment: Option<&str>,
        instruction: &Instruction,
        keys: &dyn KeySetSource,
    ) -> Result<(), ApplyError> {
        if instruction.needs_environment() {
            let key = environment.ok_or(ApplyError::NoEnvironment)?;
            project.environments.get(key).ok_or_else(|| unknown("environment", key))?;
        }
        if let Instruction::Request(edit) = instruction {
            self.edit_request(project, edit)
        } else if let Instruction::Webhook(edit) = instruction {
            notifications::apply(project, edit, self.at, self.revision)
        } else if let (Instruction::Drill(edit), Some(environment)) = (instruction, environment) {
            self.edit_drill(project, environment, edit)
        } else if let (Instruction::Release(edit), Some(environment)) = (instruction, environment) {
            self.edit_release(project, environment, edit, keys)
        } else if let Some(key) = instruction.flag() {
            let known = project.flags.get(key).map(Arc::clone);
            self.edit_flag(project, key, environment, instruction, keys)?;
            let before = known.as_ref().zip(environment).and_then(|(flag, key)| flag.stored.environments.get(key));
            if let (Some(before), Some(environment)) = (before, environment) {
                releases::apply::note_edit(project, environment, key, before, self.revision);
            }
            Ok(())
        } else if let (Some(key), Some(environment)) = (instruction.segment(), environment) {
            self.edit_segment(project, key, environment, instruction, keys)
        } else {
            environments::apply(project, environment, instruction, self.at, self.revision)
        }
    }

    fn edit_flag(
        &self,
        project: &mut Project,
        key: &str,
        environment: Option<&str>,
        instruction: &Instruction,
        keys: &dyn KeySetSource,
    ) -> Result<(), ApplyError> {
        let old = project.flags.get(key).cloned();
        let stored = flags::apply(old.as_ref().map(|old| &*old.stored), environment, instruction)?;
        let Some(stored) = stored else {
            project.flags.remove(key);
            project.drills = project.drills.clone().into_iter().filter(|((_, flag), _)| flag != key).collect();
            project.releases = project.releases.clone().into_iter().filter(|((_, flag), _)| flag != key).collect();
            project.incidents = project.incidents.clone().into_iter().filter(|(_, it)| it.flag != key).collect();
            return Ok(());
        };
        let created_at = old.as_ref().map_or(self.at, |old| old.created_at);
        let known = flags::KnownKeys::new(old.as_deref(), keys);
        let mut state = FlagState::load(stored, &known, created_at);
        (state.updated_at, state.revision) = (self.at, self.revision);
        state.served.extend(old.iter().flat_map(|old| old.served.iter().cloned()));
        project.flags.insert(key.to_owned(), Arc::new(state));
        Ok(())
    }

    /// The release first, which remembers what was served before; then what it serves.
    fn edit_release(
        &self,
        project: &mut Project,
        environment: &str,
        edit: &ReleaseEdit,
        keys: &dyn KeySetSource,
    ) -> Result<(), ApplyError> {
        releases::apply::apply(project, environment, edit, self.at, self.revision)?;
        for inner in edit.edits() {
            self.edit_flag(project, edit.flag(), Some(environment), inner, keys)?;
        }
        Ok(())
    }

    fn edit_drill(&self, project: &mut Project, environment: &str, edit: &DrillEdit) -> Result<(), ApplyError> {
        let DrillEdit::RecordDrill { flag, report } = edit;
        if !project.flags.contains_key(flag) {
            return Err(unknown("flag", flag));
        }
        let (place, report) = ((environment.to_owned(), flag.clone()), (**report).clone());
        let (environment, flag) = place.clone();
        let standing = StandingDrill { environment, flag, at: self.at, revision: self.revision, report };
        project.drills.insert(place, Arc::new(standing));
        Ok(())
    }

    fn edit_request(&self, project: &mut Project, edit: &RequestEdit) -> Result<(), ApplyError> {
        if let RequestEdit::ReviewEntry { revision, by, finding } = edit {
            let known = project.reviews.get(revision).ok_or_else(|| unknown("review", &revision.to_string()))?;
            let finding = Finding { by: by.clone(), at: self.at, text: finding.clone() };
            let closed = Review { finding: Some(finding), ..Review::clone(known) };
            project.reviews.insert(*revision, Arc::new(closed));
            return Ok(());
        }
        let id = edit.request().unwrap_or_default();
        let known = project.requests.get(id).map(|request| &**request);
        let next = request::apply(known, edit, self.at, self.revision)
            .map_err(|refusal| ApplyError::Request { id: id.to_owned(), refusal: refusal.to_string() })?;
        project.requests.insert(id.to_owned(), Arc::new(next));
        while project.requests.len() > request::MAX_KEPT {
            let ended = project.requests.values().filter(|request| !request.state.is_open());
            let Some(oldest) = ended.min_by_key(|request| request.updated_at).map(|request| request.id.clone()) else {
                break;
            };
            project.requests.remove(&oldest);
        }
        Ok(())
    }

    fn edit_segment(
        &self,
        project: &mut Project,
        key: &str,
        environment: &str,
        instruction: &Instruction,
        keys: &dyn KeySetSource,
    ) -> Result<(), ApplyError> {
        let place = (environment.to_owned(), key.to_owned());
        let old = project.segments.get(&place).cloned();
        let Some(stored) = segments::apply(old.as_ref().map(|old| &*old.stored), instruction)? else {
            project.segments.remove(&place);
            return Ok(());
        };
        let created_at = old.as_ref().map_or(self.at, |old| old.created_at);
        let mut state = SegmentState::after(old.as_deref(), stored, keys, created_at);
        (state.updated_at, state.revision) = (self.at, self.revision);
        project.segments.insert(place, Arc::new(state));
        Ok(())
    }
}

/// There is no `what` of this key.
pub(crate) fn unknown(what: &'static str, key: &str) -> ApplyError {
    ApplyError::Unknown { what, key: key.to_owned() }
}

/// There is a `what` of this key already.
pub(crate) fn exists(what: &'static str, key: &str) -> ApplyError {
    ApplyError::Exists { what, key: key.to_owned() }
}
