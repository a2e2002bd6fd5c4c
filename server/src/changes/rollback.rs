//! Rolling a flag back in one environment: where to, and, for a drill, what would come of it.
//!
//! Without a revision that is named, a rollback goes to the **last stable state**: what the flag's configuration was before its
//! last change that moved anybody. Changes that moved nobody are passed over, and so is what an earlier rollback undid: rolling
//! back twice goes back two steps and not to and fro.

use std::collections::BTreeSet;
use std::sync::Arc;

use guidon_sdk::model::{Flag, FlagEnvironment, Serve};
use guidon_sdk::validate::validate_flag;

use super::authorize::Verdict;
use super::direction::direction;
use super::reach::Reach;
use super::{Author, ChangeDraft, ChangeError, ChangeOutcome, ChangeService, IdempotencyKey, Instruction, Problem};
use crate::drills::{DrillEdit, DrillReport, Proof};
use crate::flags::{references, visit_config};
use crate::journal::{ChainHash, Entry, ObjectId, StoredEntry};
use crate::policy::Direction;
use crate::state::{Project, World};

/// Most entries that are looked back over for the last stable state.
pub(crate) const MAX_LOOK_BACK_ENTRIES: u64 = 20_000;
/// Entries read at once.
const READ_ENTRIES: usize = 500;
/// Most changes of the flag that are looked at for one that moved somebody.
pub(crate) const MAX_CANDIDATES: usize = 50;

/// A rollback as it is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RollbackDraft {
    /// Project it is about.
    pub project: String,
    /// Environment to roll back in.
    pub environment: String,
    /// Key of the flag.
    pub flag: String,
    /// Number of the revision to go back to; the last stable state if left out.
    pub to_revision: Option<u64>,
    /// Why, in the author's words.
    pub comment: String,
    /// Revision the author had read.
    pub expected_revision: Option<u64>,
    /// Only say what would happen.
    pub dry_run: bool,
    /// Lets it be sent again safely.
    pub idempotency: Option<IdempotencyKey>,
}

/// What a rollback did, or would do.
#[derive(Clone, Debug)]
pub struct RollbackOutcome {
    /// Number of the revision that it goes back to.
    pub to_revision: u64,
    /// What changed.
    pub outcome: ChangeOutcome,
}

/// Where a rollback goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    /// Number of the revision to go back to.
    pub(crate) to_revision: u64,
    /// Revision at which that was found out.
    pub(crate) base_revision: u64,
}

/// What a rollback would come to, on a copy of the state.
#[derive(Clone, Debug)]
pub(crate) struct Rehearsal {
    pub(crate) before: Arc<Project>,
    pub(crate) after: Arc<Project>,
    pub(crate) base_revision: u64,
    pub(crate) proof: Proof,
    /// Upper bound of the share of people who get something else, 0 to 1.
    pub(crate) share: f64,
    /// What does not hold.
    pub(crate) reasons: Vec<String>,
}

impl ChangeService {
    /// Rolls a flag back in one environment, as a new entry.
    ///
    /// # Errors
    ///
    /// As [`Self::submit`]; and if there is nothing to go back to, or the flag is off and no revision is named: that would turn
    /// it on.
    pub async fn rollback(&self, author: &Author, rollback: RollbackDraft) -> Result<RollbackOutcome, ChangeError> {
        let RollbackDraft { project, environment, flag, to_revision, .. } = &rollback;
        let target = if self.is_repeat(author, rollback.idempotency.as_ref()) {
            // What it did the first time is answered, whatever there is to roll back now.
            Target { to_revision: to_revision.unwrap_or(0), base_revision: self.world().revision }
        } else {
            self.rollback_target(project, environment, flag, *to_revision).await?
        };
        let comment = match rollback.comment.as_str() {
            "" => format!("Roll {flag} back to revision {}", target.to_revision),
            said => said.to_owned(),
        };
        let change = ChangeDraft {
            comment,
            expected_revision: Some(rollback.expected_revision.unwrap_or(target.base_revision)),
            dry_run: rollback.dry_run,
            idempotency: rollback.idempotency.clone(),
            ..draft(project, environment, flag, target.to_revision)
        };
        let outcome = self.submit(author, change).await.map_err(without_instructions)?;
        let reverted = outcome.entry.iter().flat_map(|entry| &entry.instructions).find_map(|it| match it {
            Instruction::RevertFlag { to_revision, .. } => Some(*to_revision),
            _ => None,
        });
        Ok(RollbackOutcome { to_revision: reverted.unwrap_or(target.to_revision), outcome })
    }

    /// Where a rollback of the flag goes: to `named`, or to the last stable state.
    pub(crate) async fn rollback_target(
        &self,
        project: &str,
        environment: &str,
        flag: &str,
        named: Option<u64>,
    ) -> Result<Target, ChangeError> {
        let world = self.world();
        let base_revision = world.revision;
        let refused = |pointer: &str, code: &'static str, message: String| -> ChangeError {
            vec![Problem::new(pointer, code, message)].into()
        };
        let Some(state) = world.project(project) else {
            return Err(refused("/project", "unknownProject", format!("there is no project \"{project}\"")));
        };
        if !state.environments.contains_key(environment) {
            let message = format!("the project has no environment \"{environment}\"");
            return Err(refused("/environment", "unknownEnvironment", message));
        }
        let Some(config) = config_in(state, environment, flag) else {
            return Err(refused("/flag", "unknownFlag", format!("there is no flag \"{flag}\"")));
        };
        if let Some(to_revision) = named {
            if to_revision >= base_revision {
                let message = format!("the store is at revision {base_revision}; name an earlier one");
                return Err(refused("/toRevision", "outOfRange", message));
            }
            return Ok(Target { to_revision, base_revision });
        }
        if !config.on {
            let message = format!(
                "\"{flag}\" is off in {environment}: everybody gets \"{}\" already, and a rollback could turn it on; name the \
                 revision if that is meant",
                config.off_variation
            );
            return Err(refused("/toRevision", "flagOff", message));
        }
        let touches = self.touches(project, environment, flag, base_revision).await?;
        let (mut limit, mut is_the_beginning) = (base_revision, false);
        for _ in 0..MAX_CANDIDATES {
            let Some(touch) = touches.iter().rfind(|touch| touch.revision <= limit) else {
                is_the_beginning = base_revision <= MAX_LOOK_BACK_ENTRIES;
                break;
            };
            if let Some(undone_to) = touch.went_back_to {
                limit = undone_to.min(touch.revision - 1);
                continue;
            }
            let (then, made) = (self.past_world(touch.revision - 1).await?, self.past_world(touch.revision).await?);
            let then = then.project(project).zip(made.project(project));
            let Some((then, made)) = then.filter(|(then, _)| config_in(then, environment, flag).is_some()) else {
                is_the_beginning = true;
                break;
            };
            let earlier = config_in(then, environment, flag);
            if earlier != Some(config) && moved_somebody(then, made, environment, flag) {
                return Ok(Target { to_revision: touch.revision - 1, base_revision });
            }
            limit = touch.revision - 1;
        }
        if is_the_beginning {
            let message = format!(
                "there is no earlier state of \"{flag}\" in {environment} that served anybody something else; `guidon flag \
                 off` turns it off"
            );
            return Err(refused("/toRevision", "nothingEarlier", message));
        }
        let message = format!(
            "no earlier state of \"{flag}\" in {environment} that served anybody something else was found within the last \
             {MAX_LOOK_BACK_ENTRIES} entries and its last {MAX_CANDIDATES} changes, and older ones are not looked through: \
             name the revision to go back to, or turn it off with `guidon flag off`"
        );
        Err(refused("/toRevision", "notFoundInBounds", message))
    }

    /// The entries that changed the flag's configuration there, oldest first.
    async fn touches(
        &self,
        project: &str,
        environment: &str,
        flag: &str,
        newest: u64,
    ) -> Result<Vec<Touch>, ChangeError> {
        let object = ObjectId::FlagEnvironment(environment.to_owned(), flag.to_owned());
        let (mut touches, mut position) = (Vec::new(), newest.saturating_sub(MAX_LOOK_BACK_ENTRIES));
        while position < newest {
            let read = self.journal().read(position, READ_ENTRIES).await?;
            let Some(last) = read.last() else { break };
            position = last.entry.revision;
            let here = read.iter().map(|stored| &stored.entry).filter(|entry| {
                entry.revision <= newest
                    && entry.project == project
                    && entry.objects.iter().any(|changed| changed.object == object)
            });
            touches.extend(here.map(|entry| Touch::of(entry, environment, flag)));
        }
        Ok(touches)
    }

    /// Makes the rollback on a copy of the state, and looks at what came of it. What does not hold is in the answer.
    pub(crate) async fn rehearse(
        &self,
        author: &Author,
        project: &str,
        environment: &str,
        flag: &str,
        to_revision: u64,
    ) -> Result<Rehearsal, ChangeError> {
        let change = draft(project, environment, flag, to_revision);
        let past = self.past(&change).await?;
        let reach = self.reach(author, &change).await;
        let judged = {
            let mut head = self.head().await?;
            let at = self.now_ms().max(head.world.at);
            let before = head.world.clone();
            self.judged(&mut head, author, &change, at, &past, &reach).map(|judged| (before, judged))
        };
        let (before, (prepared, verdict)) = match judged {
            Ok(judged) => judged,
            Err(ChangeError::Invalid { problems } | ChangeError::NotFound { problems }) => {
                return self.not_valid(project, &problems);
            }
            Err(other) => return Err(other),
        };
        // Folded as every server and every later start will: what comes out must be what was prepared, object by object.
        let entry = StoredEntry {
            entry: Arc::new(prepared.entry.clone()),
            bytes: Default::default(),
            hash: ChainHash::GENESIS,
        };
        let folded = before.fold(&entry, &past.key_sets);
        let mut reasons = Vec::new();
        let after = match folded {
            Ok(after) => after,
            Err(error) => {
                reasons.push(format!("folded into a copy of the state it gives something else: {error}"));
                prepared.world
            }
        };
        if prepared.entry.objects.is_empty() {
            reasons
                .push(format!("going back to revision {to_revision} would change nothing: that rehearses no way back"));
        }
        let known = |world: &World| world.project(project).cloned().unwrap_or_default();
        let (old, new) = (known(&before), known(&after));
        let then = past.worlds.get(&to_revision).and_then(|world| world.project(project));
        let restored = reasons.is_empty() && restores(then.map(|then| &**then), &new, environment, flag, &mut reasons);
        let flags_checked = check_flags(&new, environment, flag, &mut reasons);
        let way = match &verdict {
            Verdict::Apply(_) => "direct",
            Verdict::FactorNeeded(_) => "factor",
            Verdict::Propose(_) => "request",
            Verdict::Refused(refused) => {
                reasons
                    .push(format!("the policies would not let it be made: {}", ChangeError::Refused(refused.clone())));
                ""
            }
        };
        let touched = std::iter::once(flag.to_owned()).collect();
        let reach = reach.get(environment).cloned().unwrap_or_else(Reach::unknown);
        let movement = direction(&old, &new, environment, &touched, &Default::default(), &reach);
        let proof = Proof {
            validates: reasons.is_empty(),
            restores: restored,
            flags_checked,
            way: way.to_owned(),
            direction: movement.direction.as_str().to_owned(),
        };
        let base_revision = before.revision;
        Ok(Rehearsal { before: old, after: new, base_revision, proof, share: movement.share, reasons })
    }

    /// A rollback that is refused as a change.
    fn not_valid(&self, project: &str, problems: &[Problem]) -> Result<Rehearsal, ChangeError> {
        let world = self.world();
        let state = world.project(project).cloned().unwrap_or_default();
        let reasons = problems.iter().map(|problem| format!("it does not validate: {}", problem.message));
        Ok(Rehearsal {
            before: Arc::clone(&state),
            after: state,
            base_revision: world.revision,
            proof: Proof::default(),
            share: 0.0,
            reasons: reasons.collect(),
        })
    }

    /// Journals a drill.
    ///
    /// # Errors
    ///
    /// As [`Self::submit`]. [`ChangeError::Conflict`] if the flag was changed since the drill began.
    pub(crate) async fn record_drill(
        &self,
        author: &Author,
        project: &str,
        environment: &str,
        flag: &str,
        report: DrillReport,
    ) -> Result<ChangeOutcome, ChangeError> {
        let expected_revision = Some(report.base_revision);
        let edit = DrillEdit::RecordDrill { flag: flag.to_owned(), report: Box::new(report) };
        let change = ChangeDraft {
            project: project.to_owned(),
            environment: Some(environment.to_owned()),
            expected_revision,
            instructions: vec![Instruction::Drill(Box::new(edit))],
            ..ChangeDraft::default()
        };
        self.carry_out(author, change).await
    }
}

fn draft(project: &str, environment: &str, flag: &str, to_revision: u64) -> ChangeDraft {
    ChangeDraft {
        project: project.to_owned(),
        environment: Some(environment.to_owned()),
        instructions: vec![Instruction::RevertFlag { flag: flag.to_owned(), to_revision, state: None }],
        ..ChangeDraft::default()
    }
}

/// The caller sent no instructions: what is wrong is where it was to go back to.
fn without_instructions(error: ChangeError) -> ChangeError {
    match error {
        ChangeError::Invalid { mut problems } | ChangeError::NotFound { mut problems } => {
            for problem in problems.iter_mut().filter(|problem| problem.pointer.starts_with("/instructions")) {
                problem.pointer = "/toRevision".to_owned();
            }
            problems.into()
        }
        other => other,
    }
}

/// An entry that changed a flag's configuration in an environment.
struct Touch {
    revision: u64,
    /// Where it went back to, if it was a rollback and nothing else.
    went_back_to: Option<u64>,
}

impl Touch {
    fn of(entry: &Entry, environment: &str, flag: &str) -> Self {
        let named = entry.environment.as_deref();
        let about = entry.instructions.iter().filter(|instruction| {
            instruction.flag() == Some(flag) && instruction.environment(named).is_none_or(|key| key == environment)
        });
        let edits: Vec<&Instruction> = about.map(Instruction::edit).collect();
        let went_back_to = match edits.as_slice() {
            [Instruction::RevertFlag { to_revision, .. }] => Some(*to_revision),
            _ => None,
        };
        Self { revision: entry.revision, went_back_to }
    }
}

fn config_in<'p>(project: &'p Project, environment: &str, flag: &str) -> Option<&'p FlagEnvironment> {
    project.flags.get(flag)?.stored.environments.get(environment)
}

/// Whether somebody may have got something else. Past states hold no targeting keys: another list of keys counts as a move.
fn moved_somebody(before: &Project, after: &Project, environment: &str, flag: &str) -> bool {
    let keys = |project: &Project| {
        let mut found = Vec::new();
        if let Some(config) = config_in(project, environment, flag) {
            visit_config(config, &mut |set| found.push(set.clone()));
        }
        found
    };
    let touched = std::iter::once(flag.to_owned()).collect();
    let movement = direction(before, after, environment, &touched, &Default::default(), &Reach::unknown());
    movement.direction != Direction::Still || keys(before) != keys(after)
}

/// Whether the flag is configured as it was then, and the variations that are served have the values they had.
fn restores(then: Option<&Project>, after: &Project, environment: &str, flag: &str, reasons: &mut Vec<String>) -> bool {
    let earlier = then.and_then(|then| Some((then.flags.get(flag)?, config_in(then, environment, flag)?)));
    let Some((earlier, config)) = earlier else {
        reasons.push("at that revision the flag was not there".to_owned());
        return false;
    };
    let before = reasons.len();
    if config_in(after, environment, flag) != Some(config) {
        reasons.push("the configuration that comes out is not that of the target revision".to_owned());
    }
    let now = after.flags.get(flag);
    for key in served(config) {
        let value = |flag: &Flag| flag.variation(key).map(|variation| variation.value.clone());
        if value(&earlier.stored) != now.and_then(|now| value(&now.stored)) {
            reasons.push(format!(
                "the variation \"{key}\" has another value than at the target revision: what was served then does not come back"
            ));
        }
    }
    reasons.len() == before
}

/// The variations that a configuration may serve.
fn served(config: &FlagEnvironment) -> BTreeSet<&str> {
    let serves = config.rules.iter().map(|rule| &rule.serve).chain([&config.fallthrough]);
    let mut keys = BTreeSet::from([config.off_variation.as_str()]);
    keys.extend(config.targets.iter().map(|target| target.variation.as_str()));
    for serve in serves {
        match serve {
            Serve::Variation(key) => drop(keys.insert(key.as_str())),
            Serve::Rollout(rollout) => keys.extend(rollout.weights.keys().map(String::as_str)),
        }
    }
    keys
}

/// Looks at the flag, what it requires and what requires it; answers how many those are.
fn check_flags(after: &Project, environment: &str, flag: &str, reasons: &mut Vec<String>) -> u32 {
    let mut keys = BTreeSet::from([flag.to_owned()]);
    keys.extend(references::dependents(after, flag).map(str::to_owned));
    if let Some(config) = config_in(after, environment, flag) {
        keys.extend(config.prerequisites.iter().map(|prerequisite| prerequisite.flag.clone()));
    }
    for key in &keys {
        match after.flags.get(key) {
            Some(state) => {
                let problems = validate_flag(&state.published, after);
                reasons.extend(
                    problems.into_iter().map(|problem| format!("{key}{}: {}", problem.pointer, problem.message)),
                );
            }
            None => reasons.push(format!("{key}, which it requires, is not there any more")),
        }
    }
    u32::try_from(keys.len()).unwrap_or(u32::MAX)
}
