//! The plan that makes a project what a document says. Pure.

use std::collections::{BTreeMap, BTreeSet};

use guidon_sdk::model::{Flag, is_valid_key};
use guidon_sdk::validate::{validate_flag, validate_segment};
use serde::Serialize;

use super::Tier;
use super::difference::{self, Difference, DifferenceKind, Differences};
use super::document::{Document, EnvironmentDocument, FlagDocument, SegmentDocument};
use super::expected::Expected;
use super::overlay::{self, Faults};
use super::pointers::{Known, place_in_document, with_hint};
use super::retire::retire;
use super::steps::{Edit, Edits, Phase, pointer_part};
use crate::changes::{Instruction, Problem};
use crate::flags::diff::{diff_serving, diff_shared, path_of_environment};
use crate::flags::schema;
use crate::segments::diff::{self as segments, WantedSegment};
use crate::state::Project;

/// Most problems that a plan lists.
pub const MAX_PLAN_PROBLEMS: usize = 200;

/// Most problems that are searched for what was meant: that takes all keys of the project each time.
const MAX_HINTS: usize = 30;

/// What is wrong where the author of a document may not look.
const OUT_OF_SIGHT: &str = "outOfSight";

/// What a plan is made with.
pub struct PlanOptions<'a> {
    /// Whether unmanaged flags are archived, and unmanaged segments deleted.
    pub prune: bool,
    /// Which environments of the project may be looked at. What is in others is neither compared nor told of.
    pub seen: &'a dyn Fn(&str) -> bool,
}

/// What has to be done, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The edits, in an order in which each is possible. They are one change.
    pub steps: Vec<Step>,
    /// What differs, for people.
    pub differences: Vec<Difference>,
    /// What is in no document.
    pub unmanaged: Vec<Unmanaged>,
    /// What is wrong with the document, with pointers into it. A plan with problems is not to be carried out.
    pub problems: Vec<Problem>,
}

/// One edit of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The environment it applies to, if it applies to one.
    pub environment: Option<String>,
    /// The edit, bound to that environment.
    pub instruction: Instruction,
    /// Where in the document stands what asks for it; empty for what is pruned.
    pub pointer: String,
}

/// A flag or segment of the server that is in no document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unmanaged {
    /// Where it would stand.
    pub path: String,
    /// The flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// The segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// The segment's environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Whether the plan archives or deletes it.
    pub prune: bool,
    /// Why not, where it was asked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The instructions of the one change that it is.
    #[must_use]
    pub fn instructions(&self) -> Vec<Instruction> {
        self.steps.iter().map(|step| step.instruction.clone()).collect()
    }

    /// How many things are created, updated and deleted.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [DifferenceKind::Create, DifferenceKind::Update, DifferenceKind::Delete]
            .map(|kind| self.differences.iter().filter(|difference| difference.kind == kind).count())
    }
}

/// The plan that makes of `project` what `document` says.
#[must_use]
pub fn plan(project: &Project, document: &Document, options: &PlanOptions<'_>) -> Plan {
    let mut planning = Planning::new(project, options.seen);
    for (key, environment) in document.environments.iter().flatten() {
        planning.environment(key, environment);
    }
    for (environment, segments) in document.segments.iter().flatten() {
        planning.segments(environment, segments);
    }
    let mut changed = Vec::new();
    for (key, flag) in document.flags.iter().flatten() {
        if planning.flag(key, flag) {
            changed.push((key, flag));
        }
    }
    for (key, flag) in changed {
        planning.check_flag(key, flag);
    }
    retire(&mut planning, document, options.prune);
    planning.finish()
}

/// A plan in the making.
pub(super) struct Planning<'a> {
    pub(super) project: &'a Project,
    pub(super) seen: &'a dyn Fn(&str) -> bool,
    pub(super) expected: Expected<'a>,
    /// Tiers of the environments there will be.
    pub(super) tiers: BTreeMap<String, Tier>,
    new_environments: BTreeSet<String>,
    pub(super) edits: Vec<Edit>,
    pub(super) plan: Plan,
}

impl<'a> Planning<'a> {
    pub(super) fn new(project: &'a Project, seen: &'a dyn Fn(&str) -> bool) -> Self {
        Self {
            project,
            seen,
            expected: Expected::new(project),
            tiers: project.environments.values().map(|known| (known.key.clone(), known.tier)).collect(),
            new_environments: BTreeSet::new(),
            edits: Vec::new(),
            plan: Plan::default(),
        }
    }
}

impl Planning<'_> {
    fn problem(&mut self, at: impl Into<String>, code: &'static str, message: impl Into<String>) {
        self.plan.problems.push(Problem::new(at, code, message));
    }

    fn environment(&mut self, key: &str, document: &EnvironmentDocument) {
        let root = format!("/environments/{}", pointer_part(key));
        let name = document.name.clone().map(|name| if name.is_empty() { key.to_owned() } else { name });
        let mut edits = Edits { root: &root, environment: None, found: &mut self.edits };
        let mut differences = Differences::of(root.clone(), &mut self.plan.differences);
        differences.about.environment = Some(key.to_owned());
        let Some(known) = self.project.environments.get(key) else {
            if !is_valid_key(key) {
                let message = "a key has 1 to 128 of the characters a-z, 0-9, '.', '_' and '-', and starts with a letter or digit";
                return self.problem(root, "badKey", message);
            }
            let Some(tier) = document.tier else {
                let message = format!(
                    "the environment {key:?} is new, and a new one needs a tier: development, testing, staging or production"
                );
                let message = with_hint(message, key, self.project.environments.keys());
                return self.problem(root, "missingField", message);
            };
            let name = name.unwrap_or_else(|| key.to_owned());
            differences.about.tier = Some(tier);
            let text = format!("new environment in the tier {}", tier.as_str());
            differences.add("", None, Some(serde_json::json!({"name": name, "tier": tier})), text);
            edits.push(Phase::Environments, "", Instruction::CreateEnvironment { key: key.to_owned(), name, tier });
            self.tiers.insert(key.to_owned(), tier);
            self.new_environments.insert(key.to_owned());
            self.expected.environments.insert(key.to_owned());
            return;
        };
        let name = name.filter(|name| *name != known.name);
        let tier = document.tier.filter(|tier| *tier != known.tier);
        differences.about.tier = Some(known.tier);
        if let Some(name) = &name {
            let text = format!("name: {:?} -> {name:?}", known.name);
            differences.add("/name", Some(known.name.clone().into()), Some(name.clone().into()), text);
        }
        if let Some(tier) = tier {
            let text = format!("tier: {} -> {}", known.tier.as_str(), tier.as_str());
            differences.add("/tier", Some(known.tier.as_str().into()), Some(tier.as_str().into()), text);
            self.tiers.insert(key.to_owned(), tier);
        }
        if name.is_some() || tier.is_some() {
            edits.push(Phase::Environments, "", Instruction::UpdateEnvironment { key: key.to_owned(), name, tier });
        }
    }

    /// Whether there will be this environment; what is said of another is a problem.
    fn is_environment(&mut self, key: &str, at: &str) -> bool {
        if self.tiers.contains_key(key) {
            return true;
        }
        let message =
            format!("the project has no environment {key:?}; create it under `environments`, or leave it out");
        let seen = self.project.environments.keys().filter(|key| (self.seen)(key)).chain(&self.new_environments);
        let message = with_hint(message, key, seen);
        self.problem(at, "unknownEnvironment", message);
        false
    }

    fn segments(&mut self, environment: &str, segments: &BTreeMap<String, SegmentDocument>) {
        let root = format!("/segments/{}", pointer_part(environment));
        if !self.is_environment(environment, &root) {
            return;
        }
        for (key, document) in segments {
            let at = format!("{root}/{}", pointer_part(key));
            let standing = self.project.segment(environment, key);
            let mut faults = Faults::of_document(&mut self.plan.problems);
            let wanted = overlay::segment(key, standing.map(|state| &**state), document, &at, &mut faults);
            self.segment(environment, &at, &wanted);
            self.expected.segment(environment, &wanted);
        }
    }

    /// Makes a segment what is wanted, and looks at what it would be.
    pub(super) fn segment(&mut self, environment: &str, at: &str, wanted: &WantedSegment) {
        let standing = self.project.segment(environment, &wanted.key).map(|state| &**state);
        let before = self.edits.len();
        let mut edits = Edits { root: at, environment: Some(environment), found: &mut self.edits };
        segments::diff(standing, wanted, &mut edits);
        if self.edits.len() == before {
            return;
        }
        let path = format!("/segments/{}/{}", pointer_part(environment), pointer_part(&wanted.key));
        let mut differences = Differences::of(path, &mut self.plan.differences);
        differences.about.segment = Some(wanted.key.clone());
        differences.about.environment = Some(environment.to_owned());
        differences.about.tier = self.tiers.get(environment).copied();
        difference::segment(standing, wanted, &mut differences);
        for problem in validate_segment(&wanted.definition()) {
            let at = format!("{at}{}", if problem.pointer == "/key" { "" } else { &problem.pointer });
            self.plan.problems.push(Problem::new(at, problem.code, problem.message));
        }
    }

    /// Plans one flag; whether it changes, and so has to be looked at.
    fn flag(&mut self, key: &str, document: &FlagDocument) -> bool {
        let root = format!("/flags/{}", pointer_part(key));
        let mut known = true;
        for environment in document.environments.keys() {
            known &= self.is_environment(environment, &format!("{root}{}", path_of_environment(environment)));
        }
        let standing = self.project.flags.get(key).map(|state| self.with_new_environments(&state.published));
        let problems = self.plan.problems.len();
        let mut faults = Faults::of_document(&mut self.plan.problems);
        let wanted = overlay::flag(key, standing.as_ref(), document, &root, &mut faults);
        let Some(mut wanted) = wanted else { return false };
        if !known {
            wanted.environments.retain(|environment, _| self.tiers.contains_key(environment));
        }
        let changes = self.change_flag(&root, standing.as_ref(), &wanted);
        // What could not be read is not looked at once more.
        let is_sound = self.plan.problems.len() == problems;
        self.expected.flags.insert(key.to_owned(), wanted);
        changes && is_sound
    }

    fn with_new_environments(&self, flag: &Flag) -> Flag {
        let mut flag = flag.clone();
        for environment in &self.new_environments {
            if let Some(config) = flag.default_environment() {
                flag.environments.insert(environment.clone(), config);
            }
        }
        flag
    }

    /// Makes of a flag what is wanted; whether there is anything to do.
    pub(super) fn change_flag(&mut self, root: &str, standing: Option<&Flag>, wanted: &Flag) -> bool {
        let before = self.edits.len();
        let path = format!("/flags/{}", pointer_part(&wanted.key));
        let Some(standing) = standing else {
            let mut edits = Edits { root, environment: None, found: &mut self.edits };
            edits.push(Phase::Create, "", Instruction::CreateFlag { flag: Box::new(wanted.clone()) });
            let mut differences = Differences::of(path, &mut self.plan.differences);
            differences.about.flag = Some(wanted.key.clone());
            difference::created(wanted, &mut differences);
            return true;
        };
        let mut edits = Edits { root, environment: None, found: &mut self.edits };
        diff_shared(standing, wanted, &mut edits);
        if self.edits.len() > before {
            let mut differences = Differences::of(path.clone(), &mut self.plan.differences);
            differences.about.flag = Some(wanted.key.clone());
            difference::shared(standing, wanted, &mut differences);
        }
        for (environment, config) in &wanted.environments {
            let Some(known) = standing.environments.get(environment).filter(|known| *known != config) else { continue };
            let at = path_of_environment(environment);
            let root = format!("{root}{at}");
            let mut edits = Edits { root: &root, environment: Some(environment), found: &mut self.edits };
            let edits_before = edits.found.len();
            diff_serving(&wanted.key, known, config, &mut edits);
            if self.edits.len() > edits_before {
                let mut differences = Differences::of(format!("{path}{at}"), &mut self.plan.differences);
                differences.about.flag = Some(wanted.key.clone());
                differences.about.environment = Some(environment.clone());
                differences.about.tier = self.tiers.get(environment).copied();
                difference::serving(known, config, &mut differences);
            }
        }
        self.edits.len() > before
    }

    /// Looks at what a flag would be, and shows what is wrong where the document says it.
    fn check_flag(&mut self, key: &str, document: &FlagDocument) {
        let Some(wanted) = self.expected.flags.get(key) else { return };
        let root = format!("/flags/{}", pointer_part(key));
        let found = validate_flag(wanted, &self.expected);
        let found = found.into_iter().map(|problem| (problem.pointer, problem.code, problem.message));
        let said = document.schema.is_some() || document.variations.is_some();
        let values = if said { schema::check_values(wanted) } else { Vec::new() };
        let mut problems: Vec<Problem> = Vec::new();
        for (pointer, code, message) in found.chain(values) {
            if self.is_out_of_sight(&pointer) {
                // That something is wrong there has to be said, what there is does not.
                if problems.iter().all(|known| known.code != OUT_OF_SIGHT) {
                    let message = "an environment that you may not read still needs what this takes away, such as a \
                                   variation that it refers to: leave that as it is, or have somebody do it who may read all";
                    problems.push(Problem::new(root.clone(), OUT_OF_SIGHT, message));
                }
                continue;
            }
            let place = place_in_document(&pointer, wanted, document);
            let message = if self.plan.problems.len() + problems.len() < MAX_HINTS {
                Known { flag: wanted, expected: &self.expected }.hint(&code, &pointer, message)
            } else {
                message
            };
            problems.push(Problem::new(format!("{root}{place}"), code, message));
        }
        self.plan.problems.extend(problems);
    }

    /// Whether a place in a flag's definition is in an environment that may not be looked at.
    fn is_out_of_sight(&self, pointer: &str) -> bool {
        let of = pointer.strip_prefix("/environments/").and_then(|rest| rest.split('/').next());
        of.map(|part| part.replace("~1", "/").replace("~0", "~"))
            .is_some_and(|key| !(self.seen)(&key) && !self.new_environments.contains(&key))
    }

    /// Puts everything in order.
    pub(super) fn finish(self) -> Plan {
        let Self { mut edits, mut plan, .. } = self;
        edits.sort_by_key(|edit| edit.phase);
        plan.steps = edits
            .into_iter()
            .map(|Edit { environment, instruction, path, .. }| Step {
                instruction: match &environment {
                    Some(environment) => Instruction::within(environment.clone(), instruction),
                    None => instruction,
                },
                environment,
                pointer: path,
            })
            .collect();
        plan.problems.truncate(MAX_PLAN_PROBLEMS);
        plan
    }
}
