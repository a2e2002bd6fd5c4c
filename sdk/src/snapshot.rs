//! An environment at one revision, compiled, and how a patch makes the next one of it.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::eval::{DefinitionProblem, Ruleset, SegmentSource};
use crate::model::{EnvironmentFlag, Segment};
use crate::protocol::{PatchBody, Revision, SnapshotBody};

/// Empty places beyond which a patch compiles the whole snapshot anew, so that flags that come and go leave nothing behind.
const MAX_EMPTY_PLACES: usize = 1_024;

/// Most definitions without a readable key that are remembered.
const MAX_KEYLESS_PROBLEMS: usize = 100;

/// Everything an environment evaluates, at one revision. Immutable; a patched copy shares what the patch did not touch.
#[derive(Clone, Debug)]
pub struct Snapshot {
    revision: Revision,
    project: String,
    environment: String,
    ruleset: Ruleset,
    /// Definitions so broken that not even their key can be read; the others are the ruleset's to list.
    keyless: Vec<DefinitionProblem>,
}

/// Why a patch was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The snapshot is at the patch's revision or past it: nothing to do.
    #[error("the snapshot is at {have}, at or past the patch's revision {patch}")]
    AlreadyApplied {
        /// Revision of the snapshot.
        have: Revision,
        /// Revision the patch leads to.
        patch: Revision,
    },
    /// Something between the snapshot and the patch is missing, or the two are not of one history: ask for a snapshot.
    #[error("the patch from {from} to {patch} does not follow the snapshot's {have}: a whole snapshot is needed")]
    Resync {
        /// Revision of the snapshot.
        have: Revision,
        /// Lowest revision number the patch applies to.
        from: u64,
        /// Revision the patch leads to.
        patch: Revision,
    },
}

impl Snapshot {
    /// A snapshot without flags.
    #[must_use]
    pub fn empty(revision: Revision, project: &str, environment: &str) -> Self {
        Self {
            revision,
            project: project.to_owned(),
            environment: environment.to_owned(),
            ruleset: Ruleset::default(),
            keyless: Vec::new(),
        }
    }

    /// Reads and compiles the JSON of a [`SnapshotBody`]. A definition that cannot be compiled is listed by
    /// [`Snapshot::problems`] and fails alone.
    ///
    /// # Errors
    /// The bytes are not the JSON of a snapshot.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<SnapshotBody>(json).map(Self::compile)
    }

    /// Compiles a snapshot.
    #[must_use]
    pub fn from_body(body: &SnapshotBody) -> Self {
        Self::compile(body.clone())
    }

    fn compile(body: SnapshotBody) -> Self {
        let mut snapshot = Self::empty(body.revision, &body.project, &body.environment);
        snapshot.set(body.flags, &body.segments);
        snapshot
    }

    /// Compiles definitions that are at hand as values.
    ///
    /// # Errors
    /// A value in them cannot be written as JSON.
    pub fn from_definitions(
        revision: Revision,
        project: &str,
        environment: &str,
        flags: &[EnvironmentFlag],
        segments: &[Segment],
    ) -> Result<Self, serde_json::Error> {
        let body = SnapshotBody {
            revision,
            project: project.to_owned(),
            environment: environment.to_owned(),
            flags: flags.iter().map(serde_json::value::to_raw_value).collect::<Result<_, _>>()?,
            segments: segments.iter().map(serde_json::value::to_raw_value).collect::<Result<_, _>>()?,
        };
        Ok(Self::compile(body))
    }

    fn set(&mut self, flags: impl IntoIterator<Item = Box<RawValue>>, segments: &[Box<RawValue>]) {
        for segment in segments {
            self.keyless.extend(self.ruleset.set_segment_source(segment));
        }
        let mut lists = Vec::new();
        for flag in flags {
            self.keyless.extend(self.ruleset.set_flag_source(flag, &mut lists));
        }
        self.keyless.truncate(MAX_KEYLESS_PROBLEMS);
    }

    /// The snapshot after `patch`; this one stays as it is.
    ///
    /// # Errors
    /// [`ApplyError::AlreadyApplied`] for a patch that is not newer, which is to be ignored; [`ApplyError::Resync`] for one
    /// that does not follow.
    pub fn apply(&self, patch: &PatchBody) -> Result<Self, ApplyError> {
        let resync =
            || ApplyError::Resync { have: self.revision.clone(), from: patch.from, patch: patch.revision.clone() };
        if patch.revision.history != self.revision.history {
            return Err(resync());
        }
        if patch.revision.number <= self.revision.number {
            return Err(ApplyError::AlreadyApplied { have: self.revision.clone(), patch: patch.revision.clone() });
        }
        if patch.from > self.revision.number {
            return Err(resync());
        }
        let mut next = self.at(patch.revision.clone());
        for key in &patch.removed_flags {
            next.ruleset.remove_flag(key);
        }
        for key in &patch.removed_segments {
            next.ruleset.remove_segment(key);
        }
        next.set(patch.flags.iter().cloned(), &patch.segments);
        for keys in &patch.segment_keys {
            if !next.ruleset.patch_segment_keys(keys) {
                return Err(resync());
            }
        }
        let removed = !patch.removed_flags.is_empty() || !patch.removed_segments.is_empty();
        Ok(if removed { next.compacted() } else { next })
    }

    /// The same state under a newer revision: what changed since does not touch this environment.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Self {
        Self { revision, ..self.clone() }
    }

    /// Compiles everything anew if most places are empty.
    fn compacted(self) -> Self {
        let (places, empty) = self.ruleset.occupancy();
        if empty <= MAX_EMPTY_PLACES || empty < places / 2 {
            return self;
        }
        let mut fresh = Self { ruleset: Ruleset::default(), ..self.clone() };
        for segment in self.ruleset.segment_sources() {
            if let Ok(source) = serde_json::value::to_raw_value(&segment) {
                fresh.keyless.extend(fresh.ruleset.set_segment_source(&source));
            }
        }
        let mut lists = Vec::new();
        for flag in self.ruleset.flag_sources() {
            fresh.keyless.extend(fresh.ruleset.set_flag_source(flag.to_owned(), &mut lists));
        }
        fresh
    }

    /// The revision this is the state of.
    #[must_use]
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// Project the environment belongs to.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.project
    }

    /// Key of the environment.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// What is evaluated.
    #[must_use]
    pub fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    /// Every definition that could not be compiled.
    #[must_use]
    pub fn problems(&self) -> Vec<DefinitionProblem> {
        let mut problems = self.keyless.clone();
        problems.extend(self.ruleset.problems());
        problems
    }
}

/// A snapshot is written as the JSON of a [`SnapshotBody`].
impl Serialize for Snapshot {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            revision: &'a Revision,
            project: &'a str,
            environment: &'a str,
            flags: Vec<&'a RawValue>,
            segments: Vec<SegmentSource<'a>>,
        }
        Body {
            revision: &self.revision,
            project: &self.project,
            environment: &self.environment,
            flags: self.ruleset.flag_sources().collect(),
            segments: self.ruleset.segment_sources().collect(),
        }
        .serialize(serializer)
    }
}
