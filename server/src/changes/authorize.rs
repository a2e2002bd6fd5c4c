//! Whether a prepared change may be made: by its author at once, as a change request, or not at all. Pure.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use super::direction::{Movement, direction};
use super::places::{Place, environment, installation, places};
use super::reach::Reach;
use super::request::{Approval, ChangeRequest, Content, Party, Risk};
use super::risk::{EditKinds, RiskFacts, assess};
use super::{Author, Instruction, RequestEdit};
use crate::drills::is_rehearsed;
use crate::environments::Tier;
use crate::journal::{Grounds, ObjectId};
use crate::policy::{
    Action, Decision, Direction, Facts, Group, Mode, PolicySet, PrincipalKind, Request, Resource, RiskLevel, Subject,
};
use crate::releases::ReleaseEdit;
use crate::state::{FlagState, Project, World};
use guidon_sdk::model::ProvenanceKind;

/// How long a proof of a second factor counts: ten minutes, in milliseconds.
pub const FACTOR_LIFE_MS: u64 = 10 * 60 * 1_000;

/// What a change is judged by.
pub(crate) struct Judging<'a> {
    /// The state before it.
    pub(crate) before: &'a World,
    /// The state after it.
    pub(crate) after: &'a World,
    /// Who makes it.
    pub(crate) author: &'a Author,
    /// Project it is about; empty for the directory.
    pub(crate) project: &'a str,
    /// Environment it names; its instructions may name others.
    pub(crate) environment: Option<&'a str>,
    /// Its edits, resolved.
    pub(crate) instructions: &'a [Instruction],
    /// Objects that are different after it.
    pub(crate) changed: &'a [ObjectId],
    /// The policies in force.
    pub(crate) policies: &'a PolicySet,
    /// When it is made, in milliseconds since 1970.
    pub(crate) now: u64,
    /// What is known of how many people rules match, by environment; nothing of the others.
    pub(crate) reach: &'a BTreeMap<String, Reach>,
    /// Where it moves people, by environment, as far as that was asked for.
    pub(crate) movements: RefCell<BTreeMap<String, Movement>>,
    /// Whether its way back was rehearsed, once that was asked for.
    pub(crate) rehearsed: OnceCell<bool>,
}

/// What is to become of a change.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It may be made at once, on these grounds.
    Apply(Grounds),
    /// It has to become a change request.
    Propose(Judgement),
    /// It may be made once its author proves a second factor.
    FactorNeeded(Refused),
    /// It may not be made.
    Refused(Refused),
}

/// What a proposed change would do, and what it needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Judgement {
    pub(crate) environments: Vec<String>,
    pub(crate) flags: Vec<String>,
    pub(crate) risk: Risk,
    pub(crate) direction: Direction,
    /// Approvals it needs.
    pub(crate) needed: u32,
}

/// What was refused, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was asked for.
    pub action: Action,
    /// Where.
    pub environment: String,
    /// On which flag.
    pub flag: Option<String>,
    /// The policies that forbid it; empty if none allows it.
    pub policies: Vec<String>,
    /// What the first of them says, in a sentence.
    pub because: String,
}

/// What the first of these policies says, in a sentence.
pub(super) fn because(policies: &[String], set: &PolicySet) -> String {
    let first = policies.first().and_then(|name| set.policy(name));
    first.map(|policy| policy.description.clone()).unwrap_or_default()
}

impl Refused {
    fn of(place: &Place, policies: Vec<String>, set: &PolicySet) -> Self {
        let because = because(&policies, set);
        Self {
            action: place.action,
            environment: place.resource.environment.clone(),
            flag: place.flag.clone(),
            policies,
            because,
        }
    }
}

/// Who an author is where something would happen.
pub(crate) fn subject(world: &World, author: &Author, resource: &Resource) -> Subject {
    let roles = if author.kind == PrincipalKind::Human {
        world.directory.roles(&author.actor_id, &author.groups, &resource.project, resource.tier)
    } else {
        BTreeSet::new()
    };
    Subject { id: author.actor_id.clone(), kind: author.kind, roles, owner: author.owner.clone() }
}

/// What is known of an author and a place, whatever is asked for there.
pub(crate) fn facts(
    world: &World,
    author: &Author,
    action: Action,
    resource: &Resource,
    flag: Option<&str>,
    now: u64,
) -> Facts {
    let scope = author.scope.as_ref();
    let place =
        world.projects.get(&resource.project).and_then(|project| project.environments.get(&resource.environment));
    Facts {
        factor_fresh: has_fresh_factor(author, now),
        in_scope: scope.is_none_or(|scope| scope.covers(action, &resource.project, &resource.environment, flag)),
        frozen: place.is_some_and(|environment| environment.frozen_by(now).is_some()),
        changes_last_hour: world.quotas.count(&author.actor_id, &resource.project, &resource.environment, now),
        unclaimed: !world.directory.is_claimed(),
        ..Facts::default()
    }
}

/// Whether a change could be allowed at all, whatever it turns out to do: asked before it is looked at, so that a refusal tells
/// nothing of what is there.
pub(crate) fn may_be_looked_at(
    world: &World,
    author: &Author,
    project: &str,
    environment: Option<&str>,
    instructions: &[Instruction],
    policies: &PolicySet,
    now: u64,
) -> Result<(), Refused> {
    for place in distinct(places(world, project, environment, instructions), author) {
        let base = facts(world, author, place.action, &place.resource, place.flag.as_deref(), now);
        let attempts = [
            (Mode::Direct, Direction::Widening),
            (Mode::Direct, Direction::Lowering),
            (Mode::Proposed, Direction::Widening),
        ];
        let mut refusal = None;
        let allowed = attempts.into_iter().any(|(mode, direction)| {
            // What only the resolved change can tell is assumed in its favour.
            let facts = Facts {
                mode,
                direction,
                factor_fresh: true,
                own: !matches!(place.action, Action::ApproveRequest | Action::ReviewEntry),
                frozen: false,
                drill_fresh: true,
                approvals: 5,
                approved_plan: author.kind == PrincipalKind::System,
                ..base.clone()
            };
            let decision = decide(world, author, &place, facts, policies);
            refusal.get_or_insert(decision.policies);
            decision.allowed
        });
        if !allowed && !may_hear_that_it_is_missing(world, author, &place, policies, now) {
            return Err(Refused::of(&place, refusal.unwrap_or_default(), policies));
        }
    }
    Ok(())
}

/// Each place once. Which flag it is about matters to tokens only.
fn distinct(mut places: Vec<Place>, author: &Author) -> Vec<Place> {
    let mut seen = BTreeSet::new();
    places.retain(|place| {
        let flag = place.flag.clone().filter(|_| author.scope.is_some());
        seen.insert((place.action, place.resource.environment.clone(), place.resource.tier, flag))
    });
    places
}

/// Whether the author proved a second factor in the last ten minutes before `now` (milliseconds since 1970).
fn has_fresh_factor(author: &Author, now: u64) -> bool {
    author.factor_at.is_some_and(|at| at <= now && now - at < FACTOR_LIFE_MS)
}

/// Whether the place is an environment that does not exist, named to somebody who may read production, as which it counts: a
/// slip in a name is answered as one then. Nothing can be made there.
fn may_hear_that_it_is_missing(world: &World, author: &Author, place: &Place, policies: &PolicySet, now: u64) -> bool {
    let Some(project) = world.projects.get(&place.resource.project) else { return false };
    let is_there = project.environments.contains_key(&place.resource.environment);
    if is_there || place.action == Action::CreateEnvironment || place.resource.tier != Some(Tier::Production) {
        return false;
    }
    let action = Action::ReadConfiguration;
    let facts = Facts { anonymised: true, ..facts(world, author, action, &place.resource, None, now) };
    decide(world, author, &Place { action, resource: place.resource.clone(), flag: None }, facts, policies).allowed
}

fn decide(world: &World, author: &Author, place: &Place, facts: Facts, policies: &PolicySet) -> Decision {
    let subject = subject(world, author, &place.resource);
    policies.decide(&Request { subject, action: place.action, resource: place.resource.clone(), facts })
}

impl Judging<'_> {
    /// What is to become of the change.
    pub(crate) fn verdict(&self) -> Verdict {
        let places = self.places();
        if places.is_empty() && !self.instructions.is_empty() {
            // What is nowhere is allowed by nobody.
            let place = Place { action: Action::CreateFlag, resource: installation(), flag: None };
            return Verdict::Refused(Refused::of(&place, Vec::new(), self.policies));
        }
        let mut grounds = self.grounds(&places);
        let (mut proposed, mut stepped) = (false, None);
        for place in &places {
            let facts = self.facts(place);
            let direct = self.ask(place, facts.clone());
            if direct.allowed {
                grounds.policies.extend(direct.policies);
                grounds.emergency |= self.is_emergency(place, &facts);
                continue;
            }
            let with_factor = || self.ask(place, Facts { factor_fresh: true, ..facts.clone() }).allowed;
            if !facts.factor_fresh && self.author.kind == PrincipalKind::Human && with_factor() {
                stepped.get_or_insert_with(|| Refused::of(place, direct.policies.clone(), self.policies));
                continue;
            }
            let as_request = Facts { mode: Mode::Proposed, ..facts };
            // The server itself asks nobody: what it may not do it leaves alone.
            let may_propose = self.author.kind != PrincipalKind::System
                && matches!(place.action.group(), Group::Edit | Group::Delete | Group::Release);
            let proposal = may_propose.then(|| self.ask(place, as_request));
            match proposal {
                Some(decision) if decision.allowed => proposed = true,
                _ => return Verdict::Refused(Refused::of(place, direct.policies, self.policies)),
            }
        }
        match stepped {
            Some(refused) => Verdict::FactorNeeded(refused),
            None if proposed => self.proposal(),
            None => {
                grounds.policies.sort_unstable();
                grounds.policies.dedup();
                Verdict::Apply(grounds)
            }
        }
    }

    /// What applying a request is to come to: the policies' answer for everywhere it touches.
    pub(crate) fn verdict_of_request(&self, request: &ChangeRequest) -> Verdict {
        let judgement = self.judgement();
        let environments: BTreeSet<&String> =
            judgement.environments.iter().chain(&request.content.environments).collect();
        let environments_of: Vec<&String> = environments.iter().copied().collect();
        let approvals = counted(self.before, request, &environments_of, self.project, self.policies, self.now);
        let of_flag = self.author.scope.as_ref().and_then(|scope| scope.flag.as_ref());
        let in_scope = of_flag
            .is_none_or(|flag| request.content.flags.iter().chain(&judgement.flags).all(|touched| touched == flag));
        let mut grounds = Grounds {
            environments: environments.iter().map(|key| (*key).clone()).collect(),
            policy_set: self.policies.hash().to_string(),
            risk: Some(judgement.risk.clone()),
            request: Some(request.id.clone()),
            author: Some(request.author.id.clone()),
            approvals: approvals.iter().map(|approval| (*approval).clone()).collect(),
            credential: self.author.credential.clone(),
            ..Grounds::default()
        };
        let Some(project) = self.before.projects.get(self.project) else { return Verdict::Apply(grounds) };
        for key in environments {
            let place = Place { action: Action::ApplyRequest, resource: environment(project, key), flag: None };
            let movement = self.movement(key);
            let base = self.facts(&place);
            let facts = Facts {
                direction: movement.direction,
                in_scope: base.in_scope && in_scope,
                risk_score: judgement.risk.score,
                risk_level: judgement.risk.level,
                approvals: u32::try_from(approvals.len()).unwrap_or(u32::MAX),
                approved_plan: true,
                by_agent: request.author.kind == PrincipalKind::Agent,
                own: request.author.is(&self.author.actor_id),
                ..base
            };
            let decision = self.ask(&place, facts.clone());
            if !decision.allowed {
                let with_factor = Facts { factor_fresh: true, ..facts.clone() };
                let stepped = !facts.factor_fresh && self.ask(&place, with_factor).allowed;
                let refused = Refused::of(&place, decision.policies, self.policies);
                return if stepped { Verdict::FactorNeeded(refused) } else { Verdict::Refused(refused) };
            }
            grounds.policies.extend(decision.policies);
        }
        grounds.policies.sort_unstable();
        grounds.policies.dedup();
        Verdict::Apply(grounds)
    }

    /// Where it has to be allowed, each once.
    fn places(&self) -> Vec<Place> {
        distinct(places(self.before, self.project, self.environment, self.instructions), self.author)
    }

    fn ask(&self, place: &Place, facts: Facts) -> Decision {
        decide(self.before, self.author, place, facts, self.policies)
    }

    fn facts(&self, place: &Place) -> Facts {
        let flag = place.flag.as_deref();
        let mut facts = facts(self.before, self.author, place.action, &place.resource, flag, self.now);
        if matches!(place.action.group(), Group::Edit | Group::Delete | Group::Release) {
            facts.direction = self.movement(&place.resource.environment).direction;
        }
        if place.action == Action::TurnFlagOn {
            // Turning on is never the way out of an emergency, whoever wrote what is served then.
            facts.direction = Direction::Widening;
        }
        facts.own = self.is_own();
        facts.drill_fresh = self.is_rehearsed();
        facts.approved_plan = self.author.kind == PrincipalKind::System;
        facts
    }

    /// Whether the way back of every flag that the change edits, or that an edit of a segment moves people of, was rehearsed.
    fn is_rehearsed(&self) -> bool {
        *self.rehearsed.get_or_init(|| self.was_rehearsed())
    }

    fn was_rehearsed(&self) -> bool {
        let states = [self.before, self.after].map(|world| world.projects.get(self.project));
        let [Some(before), Some(after)] = states else { return false };
        let mut flags: BTreeSet<String> =
            self.instructions.iter().filter_map(Instruction::flag).map(str::to_owned).collect();
        if self.instructions.iter().any(|instruction| instruction.segment().is_some()) {
            let environments = self.touched();
            flags.extend(environments.iter().flat_map(|key| self.movement(key).flags));
        }
        // What the change makes of a flag must be what was rehearsed too, and not only what it was.
        let both = |flag: &String| is_rehearsed(before, flag, self.now) && is_rehearsed(after, flag, self.now);
        !flags.is_empty() && flags.iter().all(both)
    }

    /// Whether the request that the change is about is the author's own, or of an AI agent of theirs, or of who owns them.
    fn is_own(&self) -> bool {
        self.instructions.iter().any(|instruction| match instruction {
            Instruction::Request(edit) => match &**edit {
                RequestEdit::OpenRequest { .. } => true,
                RequestEdit::ReviewEntry { revision, .. } => {
                    let review = self.before.projects.get(self.project).and_then(|it| it.reviews.get(revision));
                    review.is_some_and(|review| review.by == self.author.actor_id)
                }
                other => self.request(other.request().unwrap_or_default()).is_some_and(|of| self.wrote(&of.author)),
            },
            _ => false,
        })
    }

    fn request(&self, id: &str) -> Option<&ChangeRequest> {
        self.before.projects.get(self.project)?.requests.get(id).map(|request| &**request)
    }

    fn wrote(&self, party: &Party) -> bool {
        // An AI agent's owner answers for what it wrote, and not the other way round.
        party.is(&self.author.actor_id)
    }

    /// A change that a person makes in production at once.
    fn is_emergency(&self, place: &Place, facts: &Facts) -> bool {
        place.resource.tier == Some(Tier::Production)
            && self.author.kind == PrincipalKind::Human
            && facts.direction == Direction::Lowering
            && matches!(place.action.group(), Group::Edit | Group::Delete)
    }

    fn grounds(&self, places: &[Place]) -> Grounds {
        let environments: BTreeSet<&String> = places.iter().map(|place| &place.resource.environment).collect();
        let serves =
            places.iter().any(|place| matches!(place.action.group(), Group::Edit | Group::Delete | Group::Release));
        Grounds {
            environments: environments.into_iter().filter(|key| !key.is_empty()).cloned().collect(),
            policy_set: self.policies.hash().to_string(),
            risk: serves.then(|| self.judgement().risk),
            credential: self.author.credential.clone(),
            ..Grounds::default()
        }
    }

    /// What it needs as a change request.
    pub(crate) fn proposal(&self) -> Verdict {
        let mut judgement = self.judgement();
        let Some(project) = self.before.projects.get(self.project) else {
            return Verdict::Propose(judgement);
        };
        let system = Author::system();
        for key in judgement.environments.clone() {
            let place = Place { action: Action::ApplyRequest, resource: environment(project, &key), flag: None };
            let facts = Facts {
                direction: self.movement(&key).direction,
                risk_score: judgement.risk.score,
                risk_level: judgement.risk.level,
                approved_plan: true,
                by_agent: self.author.kind == PrincipalKind::Agent,
                drill_fresh: self.is_rehearsed(),
                in_scope: true,
                ..Facts::default()
            };
            let subject = subject(self.before, &system, &place.resource);
            let asked = Request { subject, action: place.action, resource: place.resource.clone(), facts };
            match self.policies.needed_approvals(&asked) {
                Some(needed) => judgement.needed = judgement.needed.max(needed),
                None => {
                    return Verdict::Refused(Refused::of(&place, self.policies.decide(&asked).policies, self.policies));
                }
            }
        }
        let turns_on = |key: &str| {
            self.instructions.iter().any(|it| {
                matches!(it.edit(), Instruction::TurnFlagOn { .. }) && it.environment(self.environment) == Some(key)
            })
        };
        let widens_production = judgement.environments.iter().any(|key| {
            environment(project, key).tier == Some(Tier::Production)
                && (turns_on(key) || self.movement(key).direction == Direction::Widening)
        });
        let fresh = has_fresh_factor(self.author, self.now);
        if judgement.applies_by_itself() && widens_production && self.author.kind == PrincipalKind::Human && !fresh {
            // It would be made at once: with nobody else looking, it is the author's factor that counts.
            let place = Place { action: Action::OpenRequest, resource: environment(project, ""), flag: None };
            return Verdict::FactorNeeded(Refused::of(&place, Vec::new(), self.policies));
        }
        Verdict::Propose(judgement)
    }

    /// The environments that the change touches, whoever makes it.
    fn touched(&self) -> BTreeSet<String> {
        self.places().into_iter().map(|place| place.resource.environment).filter(|key| !key.is_empty()).collect()
    }

    fn movement(&self, environment: &str) -> Movement {
        let mut known = self.movements.borrow_mut();
        known.entry(environment.to_owned()).or_insert_with(|| self.compare(environment)).clone()
    }

    fn compare(&self, environment: &str) -> Movement {
        let nothing = Project::default();
        let before = self.before.projects.get(self.project).map_or(&nothing, |project| &**project);
        let after = self.after.projects.get(self.project).map_or(&nothing, |project| &**project);
        let (mut flags, mut segments) = (BTreeSet::new(), BTreeSet::new());
        for object in self.changed {
            match object {
                ObjectId::Flag(key) => drop(flags.insert(key.clone())),
                ObjectId::FlagEnvironment(of, key) if of == environment => drop(flags.insert(key.clone())),
                ObjectId::Segment(of, key) if of == environment => drop(segments.insert(key.clone())),
                _ => {}
            }
        }
        // What was measured in one environment says nothing of another.
        let unknown = Reach::unknown();
        let reach = self.reach.get(environment).unwrap_or(&unknown);
        let mut movement = direction(before, after, environment, &flags, &segments, reach);
        let content = self.instructions.iter().filter(|it| !matches!(it, Instruction::Request(_)));
        if movement.direction == Direction::Still && content.clone().count() > 0 {
            // The kill switch is one, also where the flag serves nobody anything else than while it is off, and so is the end of
            // a release that has moved nobody yet.
            let kills = content.clone().all(|it| match it.edit() {
                Instruction::TurnFlagOff { .. } => true,
                Instruction::Release(edit) => matches!(&**edit, ReleaseEdit::AbortRelease { .. }),
                _ => false,
            });
            if kills {
                movement.direction = Direction::Lowering;
            }
        }
        let relabelled = flags.iter().find(|key| is_relabelled(before, after, environment, key));
        if let Some(flag) = relabelled {
            // What counts as safe is read off these labels: who changes them may be on the way to calling a rollout a rollback.
            movement.direction = Direction::Widening;
            movement.reasons.push(format!(
                "{flag}: what counts as safe changes: its off variation, a variation's value or author, or who may see the flag"
            ));
        }
        movement
    }

    /// How much the change may hurt, wherever it touches something.
    pub(crate) fn judgement(&self) -> Judgement {
        let nothing = Project::default();
        let project = self.before.projects.get(self.project).map_or(&nothing, |project| &**project);
        let (mut worst, mut whole) = (Risk::default(), Movement::default());
        let environments = self.touched();
        let content = self.instructions.iter().filter(|instruction| !matches!(instruction, Instruction::Request(_)));
        let kinds = EditKinds::of(&content.cloned().collect::<Vec<_>>());
        for key in &environments {
            let movement = self.movement(key);
            // What the same change creates counts as what it becomes.
            let after = self.after.projects.get(self.project);
            let known = project.environments.get(key).or_else(|| after.and_then(|after| after.environments.get(key)));
            let tier = known.map_or(Tier::Production, |environment| environment.tier);
            let assessed = assess(&RiskFacts::new(tier, &movement, &kinds, self.is_rehearsed()));
            let risk = Risk {
                score: assessed.score,
                level: assessed.level,
                reasons: assessed.reasons.iter().map(|reason| reason.text.clone()).collect(),
            };
            if (risk.level, risk.score) > (worst.level, worst.score) || worst.reasons.is_empty() {
                worst = risk;
            }
            whole = whole.worst(movement);
        }
        Judgement {
            environments: environments.into_iter().collect(),
            flags: whole.flags,
            risk: worst,
            direction: whole.direction,
            needed: 0,
        }
    }
}

/// Approvals that still count at `now` (milliseconds since 1970): by people who were not shut out since, and who may still
/// approve in each of these environments. Who is in which group only the provider knows: a role that some group has counts.
pub(crate) fn counted<'r>(
    world: &World,
    request: &'r ChangeRequest,
    environments: &[&String],
    project: &str,
    policies: &PolicySet,
    now: u64,
) -> Vec<&'r Approval> {
    let Some(state) = world.projects.get(project) else { return Vec::new() };
    let may_still = |id: &str| {
        environments.iter().all(|key| {
            let resource = environment(state, key);
            let roles = world.directory.possible_roles(id, project, resource.tier);
            let subject = Subject { id: id.to_owned(), kind: PrincipalKind::Human, roles, owner: None };
            let facts = Facts { factor_fresh: true, in_scope: true, ..Facts::default() };
            policies.decide(&Request { subject, action: Action::ApproveRequest, resource, facts }).allowed
        })
    };
    let active = |id: &str| world.directory.principals.get(id).is_some_and(|it| it.is_active(now));
    let valid = request.valid_approvals().into_iter();
    valid.filter(|approval| active(&approval.by) && may_still(&approval.by)).collect()
}

/// Whether another variation is served while the flag is off, one counts as a person's that did not, one has another value, or
/// browsers, which anybody can read, come to see the flag.
fn is_relabelled(before: &Project, after: &Project, environment: &str, flag: &str) -> bool {
    let (Some(before), Some(after)) = (before.flags.get(flag), after.flags.get(flag)) else { return false };
    let off = |flag: &FlagState| flag.stored.environments.get(environment).map(|config| config.off_variation.clone());
    let freed = before.stored.variations.iter().any(|old| {
        let new = after.stored.variation(&old.key);
        let (human, ai) = (ProvenanceKind::Human, ProvenanceKind::Ai);
        new.is_some_and(|new| (new.is_by(human) && !old.is_by(human)) || (old.is_by(ai) && !new.is_by(ai)))
    });
    let shown = !before.stored.client_side && after.stored.client_side;
    let edited = before.stored.variations.iter().any(|old| {
        let new = after.stored.variation(&old.key);
        new.is_some_and(|new| new.value != old.value)
    });
    off(before) != off(after) || freed || shown || edited
}

impl Judgement {
    /// As the journal has it, of a body with this hash that was read against `base_revision`.
    pub(crate) fn content(self, hash: String, base_revision: u64, summary: Vec<String>) -> Content {
        let Self { environments, flags, risk, needed, .. } = self;
        Content { hash, base_revision, environments, flags, summary, risk, needed }
    }

    /// Whether it applies by itself.
    pub(crate) fn applies_by_itself(&self) -> bool {
        self.needed == 0 && self.risk.level == RiskLevel::Low
    }
}
