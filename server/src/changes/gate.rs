//! The service's side of deciding: asks the policies, and takes note of what they refuse.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guidon_sdk::model::{Provenance, ProvenanceKind};

use super::authorize::{self, Judgement, Judging, Verdict};
use super::mint::Mint;
use super::prepare::{Prepared, prepare};
use super::reach::Reach;
use super::resolve::Past;
use super::service::Head;
use super::{Author, ChangeDraft, ChangeError, ChangeService, Instruction, Problem, Refused, RequestEdit, describe};
use crate::audit::{Event, EventKind};
use crate::environments::Tier;
use crate::journal::ObjectId;
use crate::policy::{self, Action, Decision, Explanation, Facts, PolicySet, PrincipalKind, Resource, Role};
use crate::state::World;

/// Most flags of a change of which is measured how many people their rules match, each environment counted.
const MAX_MEASURED_FLAGS: usize = 20;

/// A change that has to become a change request.
pub(super) struct Proposed {
    pub(super) judgement: Judgement,
    /// Revision it was judged at.
    pub(super) base_revision: u64,
    /// A sentence for each instruction.
    pub(super) summary: Vec<String>,
}

/// A question to the policies that nobody acts on.
pub struct Question<'a> {
    /// Who is asked about.
    pub author: &'a Author,
    /// Roles in place of those that the author has there.
    pub roles: Option<BTreeSet<Role>>,
    /// What.
    pub action: Action,
    /// Where.
    pub resource: &'a Resource,
    /// On which flag.
    pub flag: Option<&'a str>,
}

impl ChangeService {
    /// Whether the policies let `author` do `action` in `project` (empty: the installation) and `environment` (empty: the
    /// project as a whole), on `flag` if it is about one; the facts that only the caller knows are in `known`.
    ///
    /// # Errors
    ///
    /// What was refused; it is noted in the audit trail.
    pub fn authorize(
        &self,
        author: &Author,
        action: Action,
        resource: &Resource,
        flag: Option<&str>,
        known: &dyn Fn(Facts) -> Facts,
    ) -> Result<Decision, Box<ChangeError>> {
        let decision = self.decide(author, action, resource, flag, known)?;
        if decision.allowed {
            return Ok(decision);
        }
        let refused = Refused {
            action,
            environment: resource.environment.clone(),
            flag: flag.map(str::to_owned),
            because: authorize::because(&decision.policies, &*self.policies_of(&self.world()).map_err(Box::new)?),
            policies: decision.policies,
        };
        let stepped = |facts| Facts { factor_fresh: true, ..known(facts) };
        let error =
            if author.kind == PrincipalKind::Human && self.decide(author, action, resource, flag, &stepped)?.allowed {
                ChangeError::FactorNeeded(refused)
            } else {
                ChangeError::Refused(refused)
            };
        let about = ChangeDraft { project: resource.project.clone(), ..ChangeDraft::default() };
        self.note_refusal(author, &about, &error);
        Err(Box::new(error))
    }

    /// As [`Self::authorize`], without a note in the audit trail: for leaving out of a list what may not be seen.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Unavailable`] if the policies in force cannot be understood.
    pub fn decide(
        &self,
        author: &Author,
        action: Action,
        resource: &Resource,
        flag: Option<&str>,
        known: &dyn Fn(Facts) -> Facts,
    ) -> Result<Decision, Box<ChangeError>> {
        let world = self.world();
        let policies = self.policies_of(&world).map_err(Box::new)?;
        let facts = known(authorize::facts(&world, author, action, resource, flag, self.clock.now_ms()));
        let subject = authorize::subject(&world, author, resource);
        Ok(policies.decide(&policy::Request { subject, action, resource: resource.clone(), facts }))
    }

    /// What the policies say to a question and why, for people: nothing happens, and nothing is noted.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Unavailable`] if the policies in force cannot be understood.
    pub fn explain(
        &self,
        question: Question<'_>,
        known: &dyn Fn(Facts) -> Facts,
    ) -> Result<(policy::Request, Explanation), ChangeError> {
        let Question { author, roles, action, resource, flag } = question;
        let world = self.world();
        let facts = known(authorize::facts(&world, author, action, resource, flag, self.clock.now_ms()));
        let mut subject = authorize::subject(&world, author, resource);
        subject.roles = roles.unwrap_or(subject.roles);
        let request = policy::Request { subject, action, resource: resource.clone(), facts };
        let explanation = self.policies_of(&world)?.explain(&request);
        Ok((request, explanation))
    }

    /// The policies in force with this state.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Unavailable`] if they cannot be understood.
    pub fn policies_of(&self, world: &World) -> Result<Arc<PolicySet>, ChangeError> {
        self.policies.of(&world.directory).map_err(|reason| ChangeError::Unavailable { reason })
    }

    pub(super) fn note_refusal(&self, author: &Author, change: &ChangeDraft, error: &ChangeError) {
        let (ChangeError::Refused(refused) | ChangeError::FactorNeeded(refused)) = error else { return };
        // What names nothing may be anything, a misplaced credential too, and is not put on record.
        let world = self.world();
        let project = world.project(&change.project);
        let is_environment = |key: &String| {
            let of_tier = change.project.is_empty() && Tier::ALL.iter().any(|tier| tier.as_str() == key);
            of_tier || project.is_some_and(|project| project.environments.contains_key(key))
        };
        let is_flag = |key: &String| project.is_some_and(|project| project.flags.contains_key(key));
        let event = Event {
            actor_id: Some(author.actor_id.clone()),
            project: project.map(|project| project.key.clone()),
            environment: Some(refused.environment.clone()).filter(is_environment),
            flag: refused.flag.clone().filter(is_flag),
            action: Some(refused.action.as_str().to_owned()),
            policies: refused.policies.clone(),
            credential: author.credential.clone(),
            detail: if matches!(error, ChangeError::FactorNeeded(_)) { "a factor was needed" } else { "" }.to_owned(),
            ..Event::new(self.clock.now_ms(), EventKind::Refused, author.origin_id.clone())
        };
        self.audit.record(event);
    }

    /// What is known of how many people the rules match that the change may touch, by environment that it names; nothing where
    /// it does not matter.
    pub(super) async fn reach(&self, author: &Author, change: &ChangeDraft) -> BTreeMap<String, Reach> {
        let world = self.world();
        let mut reach = BTreeMap::new();
        let Some(project) = world.projects.get(&change.project) else { return reach };
        if author.kind == PrincipalKind::Operator {
            return reach;
        }
        let named = change.environment.as_deref();
        let flags: BTreeSet<&str> = change.instructions.iter().filter_map(Instruction::flag).collect();
        let places: BTreeSet<&str> =
            change.instructions.iter().filter_map(|instruction| instruction.environment(named)).chain(named).collect();
        let mut room = MAX_MEASURED_FLAGS;
        for key in places {
            // Nobody is asked about a change of development: there is no need to measure it.
            let known = project.environments.get(key).filter(|environment| environment.tier != Tier::Development);
            let Some(environment) = known else { continue };
            let with_rules = flags.iter().filter_map(|flag| project.flags.get(*flag)).filter(|flag| {
                flag.stored.environments.get(&environment.key).is_some_and(|config| !config.rules.is_empty())
            });
            let since: BTreeMap<String, u64> =
                with_rules.take(room).map(|flag| (flag.stored.key.clone(), flag.revision)).collect();
            room -= since.len();
            if !since.is_empty() {
                let measured = self.reaches.measure(&change.project, &environment.key, since).await;
                reach.insert(environment.key.clone(), measured);
            }
        }
        reach
    }

    /// What the change would need as a change request, in the present state.
    pub(super) async fn judge(&self, author: &Author, change: &ChangeDraft) -> Result<Proposed, ChangeError> {
        let past = self.past(change).await?;
        let reach = self.reach(author, change).await;
        let mut head = self.head().await?;
        let at = self.clock.now_ms().max(head.world.at);
        let head = &mut *head;
        let (prepared, verdict) = self.judged(head, author, change, at, &past, &reach)?;
        match verdict {
            Verdict::Propose(judgement) => Ok(propose(head.world.revision, &prepared, judgement)),
            Verdict::Apply(_) => {
                Err(ChangeError::Unavailable { reason: "a proposal was not judged as one".to_owned() })
            }
            Verdict::FactorNeeded(refused) => Err(ChangeError::FactorNeeded(refused)),
            Verdict::Refused(refused) => Err(ChangeError::Refused(refused)),
        }
    }

    /// Prepares a change against the head and asks what is to become of it.
    pub(super) fn judged(
        &self,
        head: &mut Head,
        author: &Author,
        change: &ChangeDraft,
        at: u64,
        past: &Past,
        reach: &BTreeMap<String, Reach>,
    ) -> Result<(Prepared, Verdict), ChangeError> {
        let policies = self.policies_of(&head.world)?;
        let Head { world, mint, .. } = head;
        judge_change(&Judged { world, policies: &policies, author, change, at, past, reach }, &mut **mint)
    }
}

/// A change that is to be judged, and by what.
pub(super) struct Judged<'a> {
    /// The state it is made against.
    pub(super) world: &'a World,
    /// The policies in force there.
    pub(super) policies: &'a PolicySet,
    pub(super) author: &'a Author,
    pub(super) change: &'a ChangeDraft,
    /// When it is made, in milliseconds since 1970.
    pub(super) at: u64,
    pub(super) past: &'a Past,
    pub(super) reach: &'a BTreeMap<String, Reach>,
}

/// Prepares a change and asks what is to become of it. Pure, but for what `mint` makes.
pub(super) fn judge_change(judged: &Judged<'_>, mint: &mut dyn Mint) -> Result<(Prepared, Verdict), ChangeError> {
    let Judged { world, policies, author, change, at, past, reach } = *judged;
    check_request_edits(author, change)?;
    check_provenance(author, change)?;
    let environment = change.environment.as_deref();
    authorize::may_be_looked_at(
        world,
        author,
        &change.project,
        environment,
        if change.request.is_some() { &[] } else { &change.instructions },
        policies,
        at,
    )
    .map_err(ChangeError::Refused)?;
    let prepared = prepare(world, author, change, at, mint, past)?;
    let changed: Vec<ObjectId> = prepared.entry.objects.iter().map(|changed| changed.object.clone()).collect();
    let judging = Judging {
        before: world,
        after: &prepared.world,
        author,
        project: &change.project,
        environment,
        instructions: &prepared.entry.instructions,
        changed: &changed,
        policies,
        now: at,
        reach,
        movements: Default::default(),
        rehearsed: Default::default(),
    };
    let request = change.request.as_ref().and_then(|id| world.projects.get(&change.project)?.requests.get(id));
    let verdict = match (request, &change.proposal) {
        (Some(request), _) => judging.verdict_of_request(request),
        (None, None) => judging.verdict(),
        (None, Some(_)) => match judging.verdict() {
            Verdict::Apply(_) => judging.proposal(),
            other => other,
        },
    };
    Ok((prepared, verdict))
}

/// Refuses that an AI agent vouches for a person's having written something: who wrote it decides what counts as safe.
fn check_provenance(author: &Author, change: &ChangeDraft) -> Result<(), ChangeError> {
    if author.kind != PrincipalKind::Agent {
        return Ok(());
    }
    let human = |provenance: Option<&Provenance>| provenance.is_some_and(|it| it.by == ProvenanceKind::Human);
    let mut problems = Vec::new();
    for (index, instruction) in change.instructions.iter().enumerate() {
        let vouches = match instruction.edit() {
            Instruction::CreateFlag { flag } => flag.variations.iter().any(|it| human(it.provenance.as_ref())),
            Instruction::AddVariation { variation, .. } => human(variation.provenance.as_ref()),
            Instruction::UpdateVariation { provenance, .. } => human(provenance.as_ref()),
            _ => false,
        };
        if vouches {
            let message = "an AI agent does not say that a person wrote a variation: leave its provenance out, and have a \
                           person set it";
            problems.push(Problem::new(format!("/instructions/{index}"), "notByAgents", message));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.into()) }
}

/// Refuses steps of change requests that are not their author's own, or that stand where they would be taken for more than they
/// are. No door lets them in; this holds whatever a door may come to do.
fn check_request_edits(author: &Author, change: &ChangeDraft) -> Result<(), ChangeError> {
    let mut problems = Vec::new();
    for (index, instruction) in change.instructions.iter().enumerate() {
        let Instruction::Request(edit) = instruction.edit() else { continue };
        let by = match &**edit {
            RequestEdit::OpenRequest { author, .. } => Some(&author.id),
            RequestEdit::CommentRequest { by, .. }
            | RequestEdit::ApproveRequest { by, .. }
            | RequestEdit::RejectRequest { by, .. }
            | RequestEdit::WithdrawRequest { by, .. }
            | RequestEdit::ApplyRequest { by, .. }
            | RequestEdit::ReviewEntry { by, .. } => Some(by),
            _ => None,
        };
        let applies = matches!(&**edit, RequestEdit::ApplyRequest { .. });
        let in_place = if applies {
            change.request.as_deref() == edit.request()
        } else {
            change.instructions.len() == 1 && change.request.is_none()
        };
        if by.is_some_and(|by| *by != author.actor_id) || !in_place {
            let message = "a step of a change request is its author's own, and a change by itself";
            problems.push(Problem::new(format!("/instructions/{index}"), "notHere", message));
        }
    }
    let carries = |instruction: &Instruction| matches!(instruction, Instruction::Request(edit) if matches!(&**edit, RequestEdit::ApplyRequest { .. }));
    if change.request.is_some() && !change.instructions.iter().any(carries) {
        problems.push(Problem::new("", "notHere", "a change carries a request out only by applying it"));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.into()) }
}

/// `base_revision`: that of the state it was judged against.
pub(super) fn propose(base_revision: u64, prepared: &Prepared, judgement: Judgement) -> Proposed {
    let environment = prepared.entry.environment.as_deref();
    let sentences = prepared.entry.instructions.iter().map(|instruction| describe(instruction, environment));
    Proposed { judgement, base_revision, summary: sentences.collect() }
}
