//! The tier table a second time, as code, and what an entry has to show for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guidon_sdk::model::{Flag, Provenance, ProvenanceKind, Serve};

use super::*;
use crate::environments::Tier;
use crate::identity::DirectoryEdit;
use crate::journal::Grounds;
use crate::policy::{PolicySet, RiskLevel, Role};
use crate::state::Project;

const FACTOR_MS: u64 = 10 * 60 * 1_000;
const HOUR_MS: u64 = 60 * 60 * 1_000;
const DEFAULT: &str = "default";

/// Judges entries.
pub(super) struct Oracle {
    /// The state after what was judged so far, folded from the entries alone.
    pub(super) world: World,
    policies: Arc<PolicySet>,
    /// Who approved what, as their own entries say: request and hash.
    approvals: BTreeSet<(String, String, String)>,
    /// When AI agents changed something in testing.
    agents: Vec<(String, String, u64)>,
    /// What has been served in production, by flag and variation: value and provenance.
    served: BTreeMap<(String, String), (serde_json::Value, Option<Provenance>)>,
}

/// Who did something, and when.
struct Actor<'a> {
    author: &'a Author,
    before: &'a World,
    now: u64,
}

/// What kind of thing an instruction is, as far as the table speaks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Edit,
    Delete,
    Administer,
    Freeze,
}

type Judged = Result<(), String>;

fn must(holds: bool, why: impl Into<String>) -> Judged {
    if holds { Ok(()) } else { Err(why.into()) }
}

impl Oracle {
    pub(super) fn new(world: World, policies: Arc<PolicySet>) -> Self {
        let mut oracle =
            Self { world, policies, approvals: BTreeSet::new(), agents: Vec::new(), served: BTreeMap::new() };
        oracle.remember_served();
        oracle
    }

    /// Judges an entry that came of what `author` tried.
    pub(super) async fn check(&mut self, author: &Author, stored: &StoredEntry, server: &Server) -> Judged {
        let entry = &stored.entry;
        let before = self.world.clone();
        let after = before.fold(stored, &server.key_sets).map_err(|error| error.to_string())?;
        let grounds = entry.grounds.as_ref().ok_or("no grounds")?;
        must(!grounds.policies.is_empty(), "no policy allowed it")?;
        must(grounds.policy_set == self.policies.hash().to_string(), "of another set of policies")?;
        must(grounds.policies.iter().all(|name| self.policies.policy(name).is_some()), "by a policy there is not")?;
        // What needs nobody is carried out by the server itself, right after it was asked for.
        let system = Author::system();
        let author = if entry.actor_id == "system" { &system } else { author };
        must(entry.actor_id == author.actor_id, "it is said to be by somebody else")?;
        let actor = Actor { author, before: &before, now: entry.at };
        let steps: Vec<&RequestEdit> = entry.instructions.iter().filter_map(step).collect();
        match steps.as_slice() {
            [] if entry.project.is_empty() => actor.directory(entry)?,
            [] => self.direct(&actor, entry, &after)?,
            [RequestEdit::ApplyRequest { id, by, hash }] => {
                must(*by == author.actor_id, "applied in somebody else's name")?;
                self.applied(&actor, entry, grounds, (id, hash), &after, server).await?;
            }
            [other] => {
                must(entry.instructions.len() == 1, "a step of a request among other edits")?;
                actor.step(other, grounds)?;
            }
            _ => return Err("several steps at once".to_owned()),
        }
        if let [RequestEdit::ApproveRequest { id, by, hash }] = steps.as_slice() {
            self.approvals.insert((id.clone(), hash.clone(), by.clone()));
        }
        if author.kind == PrincipalKind::Agent {
            for environment in &grounds.environments {
                must(tier(&before, environment) != Some(Tier::Production), "an AI agent in production")?;
                self.agents.push((author.actor_id.clone(), environment.clone(), entry.at));
            }
            let production = before.projects[DEFAULT].environments.values().filter(|it| it.tier == Tier::Production);
            for environment in production {
                // Flags that it makes are off there, and those it takes away were never on.
                let is = |world: &World| {
                    let flags = world.projects[DEFAULT].flags.values();
                    let on = |flag: &&Arc<crate::state::FlagState>| flag.stored.environments[&environment.key].on;
                    flags.filter(on).map(|flag| flag.stored.in_environment(&environment.key)).collect::<Vec<_>>()
                };
                must(is(&before) == is(&after), "an AI agent changed what production serves")?;
            }
        }
        self.world = after;
        self.stays_what_it_was()
    }

    /// Whether what has been served in production is what it was, where it still is.
    fn stays_what_it_was(&mut self) -> Judged {
        for (key, flag) in &self.world.projects[DEFAULT].flags {
            for variation in &flag.stored.variations {
                let place = (key.clone(), variation.key.clone());
                let now = (variation.value.clone(), variation.provenance.clone());
                let is_same = self.served.get(&place).is_none_or(|was| *was == now);
                must(is_same, format!("{place:?} was served in production and is another now"))?;
            }
        }
        self.remember_served();
        Ok(())
    }

    fn remember_served(&mut self) {
        let project = &self.world.projects[DEFAULT];
        for environment in project.environments.values().filter(|it| it.tier == Tier::Production) {
            for (key, flag) in &project.flags {
                let is_on = flag.stored.environments.get(&environment.key).is_some_and(|config| config.on);
                let shares = if is_on { served(&flag.stored, &environment.key) } else { BTreeMap::new() };
                let given = shares.iter().filter(|(_, share)| **share > 0.0);
                for variation in given.filter_map(|(variation, _)| flag.stored.variation(variation)) {
                    let was = (variation.value.clone(), variation.provenance.clone());
                    self.served.insert((key.clone(), variation.key.clone()), was);
                }
            }
        }
    }

    /// An edit that was made at once.
    fn direct(&self, actor: &Actor<'_>, entry: &Entry, after: &World) -> Judged {
        for instruction in &entry.instructions {
            let kind = kind(instruction).ok_or_else(|| format!("{} is not in the table", instruction.kind()))?;
            for environment in touched(actor.before, entry.environment.as_deref(), instruction) {
                let tier = match instruction {
                    Instruction::CreateEnvironment { tier, .. } => *tier,
                    _ => tier(actor.before, &environment).unwrap_or(Tier::Production),
                };
                let lowers = kills(entry) || lowers(actor.before, after, &environment);
                let frozen = is_frozen(actor.before, &environment, actor.now);
                if frozen && matches!(kind, Kind::Edit | Kind::Delete) {
                    must(lowers, format!("{environment} is frozen"))?;
                }
                let place = format!("{} in {environment}", instruction.kind());
                must(actor.may(kind, tier, lowers), format!("the table does not allow {place}"))?;
                must(
                    actor.is_in_scope(instruction.kind(), kind, &environment, instruction.flag()),
                    format!("{place} is out of scope"),
                )?;
                if actor.author.kind == PrincipalKind::Agent && tier == Tier::Testing {
                    let recent = self.agents.iter().filter(|(id, of, at)| {
                        *id == actor.author.actor_id && *of == environment && actor.now - at < HOUR_MS
                    });
                    must(recent.count() < 60, "over the quota")?;
                }
            }
        }
        Ok(())
    }

    /// What an approved request asks for, made.
    async fn applied(
        &self,
        actor: &Actor<'_>,
        entry: &Entry,
        grounds: &Grounds,
        (id, hash): (&String, &String),
        after: &World,
        server: &Server,
    ) -> Judged {
        let request = actor.before.projects[DEFAULT].requests.get(id).ok_or("of no request")?;
        must(grounds.request.as_ref() == Some(id), "the grounds name another request")?;
        must(grounds.author.as_ref() == Some(&request.author.id), "the grounds name another author")?;
        must(request.state == crate::changes::request::RequestState::Approved, "it was not approved")?;
        must(*hash == request.content.hash, "of another hash")?;
        // Just what was agreed with.
        let body = server.service.request_body(request).await.map_err(|error| error.to_string())?;
        let made: Vec<&Instruction> = entry.instructions.iter().filter(|it| step(it).is_none()).collect();
        must(same(&body.instructions, &made), "it does something else than was agreed with")?;
        must(body.environment == entry.environment, "it does so somewhere else")?;
        // By whom, and with whose agreement.
        let by = self.approvals.iter().filter(|(of, with, who)| {
            of == id && with == hash && *who != request.author.id && request.author.owner.as_ref() != Some(who)
        });
        let active = |who: &str| actor.before.directory.principals.get(who).is_some_and(|it| it.disabled_at.is_none());
        let given = by.filter(|(_, _, who)| active(who)).count();
        let level = grounds.risk.as_ref().ok_or("no risk")?.level;
        let environments: BTreeSet<String> = made
            .iter()
            .flat_map(|instruction| touched(actor.before, entry.environment.as_deref(), instruction))
            .chain(request.content.environments.iter().cloned())
            .collect();
        must(
            environments.iter().all(|of| grounds.environments.contains(of)),
            "judged in fewer places than it touches",
        )?;
        for environment in &environments {
            let tier = tier(actor.before, environment).unwrap_or(Tier::Production);
            let by_agent = request.author.kind == PrincipalKind::Agent && tier >= Tier::Staging;
            let needed = match (tier, level) {
                (Tier::Production, RiskLevel::High) => 2,
                (Tier::Production | Tier::Staging, RiskLevel::Medium) | (Tier::Staging, RiskLevel::High) => 1,
                _ => usize::from(by_agent),
            };
            must(given >= needed, format!("{given} of {needed} approvals in {environment} ({level:?})"))?;
            if tier == Tier::Production && ai_share(after, environment) >= ai_share(actor.before, environment) + 0.5 {
                must(level == RiskLevel::High, "half of all people get AI, and that is no high risk")?;
            }
            let lowers = kills(entry) || lowers(actor.before, after, environment);
            must(lowers || !is_frozen(actor.before, environment, actor.now), format!("{environment} is frozen"))?;
            must(actor.may_apply(tier), format!("the table does not let them apply in {environment}"))?;
            must(actor.is_in_scope("applyRequest", Kind::Freeze, environment, None), "applied out of scope")?;
        }
        Ok(())
    }
}

impl Actor<'_> {
    fn roles(&self, tier: Option<Tier>) -> BTreeSet<Role> {
        if self.author.kind != PrincipalKind::Human {
            return BTreeSet::new();
        }
        let bindings = self.before.directory.bindings.values();
        let here = bindings.filter(|binding| {
            binding.principal.as_deref() == Some(&*self.author.actor_id)
                && (binding.tiers.is_empty() || tier.is_some_and(|tier| binding.tiers.contains(&tier)))
        });
        here.map(|binding| binding.role).collect()
    }

    fn has(&self, tier: Option<Tier>, any: &[Role]) -> bool {
        let roles = self.roles(tier);
        any.iter().any(|role| roles.contains(role))
    }

    fn is_fresh(&self) -> bool {
        self.author.factor_at.is_some_and(|at| at <= self.now && self.now < at + FACTOR_MS)
    }

    /// The table of DESIGN.md 6, for what is done at once.
    fn may(&self, kind: Kind, tier: Tier, lowers: bool) -> bool {
        use Role::{Administrator, Developer, ReleaseManager};
        let low = tier <= Tier::Testing;
        match (self.author.kind, kind) {
            (PrincipalKind::Operator, Kind::Edit | Kind::Delete | Kind::Administer | Kind::Freeze) => low,
            (PrincipalKind::Human, Kind::Edit | Kind::Delete) => match tier {
                Tier::Development | Tier::Testing => self.has(Some(tier), &[Developer, ReleaseManager, Administrator]),
                Tier::Staging => self.has(Some(tier), &[ReleaseManager, Administrator]),
                Tier::Production => {
                    kind == Kind::Edit && lowers && self.is_fresh() && self.has(Some(tier), &[ReleaseManager])
                }
            },
            (PrincipalKind::Human, Kind::Administer) => self.is_fresh() && self.has(Some(tier), &[Administrator]),
            (PrincipalKind::Human, Kind::Freeze) => {
                self.is_fresh() && self.has(Some(tier), &[Administrator, ReleaseManager])
            }
            (PrincipalKind::Service, Kind::Edit | Kind::Delete) => tier < Tier::Production,
            (PrincipalKind::Agent, Kind::Edit) => low,
            (PrincipalKind::Agent, Kind::Delete) => tier == Tier::Development,
            (PrincipalKind::System, Kind::Edit) => true,
            _ => false,
        }
    }

    fn may_apply(&self, tier: Tier) -> bool {
        use Role::{Administrator, Developer, ReleaseManager};
        match self.author.kind {
            PrincipalKind::System | PrincipalKind::Service => true,
            PrincipalKind::Human => match tier {
                Tier::Development | Tier::Testing => self.has(Some(tier), &[Developer, ReleaseManager, Administrator]),
                Tier::Staging => self.has(Some(tier), &[ReleaseManager, Administrator]),
                Tier::Production => self.is_fresh() && self.has(Some(tier), &[ReleaseManager]),
            },
            _ => false,
        }
    }

    /// Whether a token, if it is one, was made for this.
    fn is_in_scope(&self, word: &str, kind: Kind, environment: &str, flag: Option<&str>) -> bool {
        let group = match kind {
            Kind::Edit => "edit",
            Kind::Delete => "delete",
            Kind::Administer => "administer",
            Kind::Freeze => "request",
        };
        let is_token = matches!(self.author.kind, PrincipalKind::Agent | PrincipalKind::Service);
        let Some(scope) = &self.author.scope else { return !is_token };
        scope.project.as_deref().is_none_or(|project| project == DEFAULT)
            && (scope.environments.is_empty() || scope.environments.iter().any(|of| of == environment))
            && scope.actions.iter().any(|of| of == word || of == group)
            && (scope.flag.is_none() || scope.flag.as_deref() == flag || (flag.is_none() && group == "request"))
    }

    fn directory(&self, entry: &Entry) -> Judged {
        let records = |instruction: &Instruction| {
            let Instruction::Directory(edit) = instruction else { return false };
            matches!(&**edit, DirectoryEdit::CreateAccount { .. } | DirectoryEdit::ClaimAccount { .. })
        };
        if self.author.kind == PrincipalKind::System && entry.instructions.iter().all(records) {
            // Accounts that a sign-in by a provider brings.
            return Ok(());
        }
        must(self.author.kind == PrincipalKind::Human, "only people change who may do what")?;
        must(self.is_fresh(), "without a factor")?;
        for instruction in &entry.instructions {
            let Instruction::Directory(edit) = instruction else { return Err("not of the directory".to_owned()) };
            // A role of some tiers is given by whoever administers these.
            let tiers = match &**edit {
                DirectoryEdit::GrantRole { tiers, .. } => tiers.clone(),
                DirectoryEdit::RevokeRole { id } => self.before.directory.bindings[id].tiers.clone(),
                _ => Vec::new(),
            };
            let places: Vec<Option<Tier>> =
                if tiers.is_empty() { vec![None] } else { tiers.into_iter().map(Some).collect() };
            must(places.iter().all(|tier| self.has(*tier, &[Role::Administrator])), "not an administrator there")?;
        }
        Ok(())
    }

    /// A step of a request, other than applying it.
    fn step(&self, edit: &RequestEdit, grounds: &Grounds) -> Judged {
        use Role::{Administrator, Approver, Developer, ReleaseManager};
        let project = &self.before.projects[DEFAULT];
        let request = edit.request().and_then(|id| project.requests.get(id));
        let own = |party: &crate::changes::request::Party| {
            party.id == self.author.actor_id
                || party.owner.as_ref() == Some(&self.author.actor_id)
                || self.author.owner.as_ref() == Some(&party.id)
        };
        let is_own = request.is_some_and(|request| own(&request.author));
        let kind = self.author.kind;
        let (people, mine, agents): (&[Role], bool, bool) = match edit {
            RequestEdit::OpenRequest { author, content, .. } => {
                must(
                    author.id == self.author.actor_id && author.owner == self.author.owner,
                    "in somebody else's name",
                )?;
                self.asks_for_enough(content, &grounds.environments)?;
                (&[Developer, ReleaseManager, Administrator], true, true)
            }
            RequestEdit::EditRequest { content, .. } => {
                self.asks_for_enough(content, &grounds.environments)?;
                (&[Developer, ReleaseManager, Administrator], is_own, true)
            }
            RequestEdit::SubmitRequest { .. } | RequestEdit::WithdrawRequest { .. } => {
                (&[Developer, ReleaseManager, Administrator], is_own, true)
            }
            RequestEdit::CommentRequest { .. } => (&[Developer, ReleaseManager, Administrator, Approver], true, true),
            RequestEdit::ApproveRequest { by, .. } => {
                must(*by == self.author.actor_id, "approved in somebody else's name")?;
                must(self.is_fresh(), "approved without a factor")?;
                (&[Approver], !is_own, false)
            }
            RequestEdit::RejectRequest { .. } => {
                must(self.is_fresh(), "rejected without a factor")?;
                (&[Approver], true, false)
            }
            RequestEdit::ReviewEntry { revision, .. } => {
                must(self.is_fresh(), "reviewed without a factor")?;
                (&[Approver, Administrator], project.reviews[revision].by != self.author.actor_id, false)
            }
            RequestEdit::ExpireRequest { .. } => return must(kind == PrincipalKind::System, "expired by somebody"),
            _ => return Err("no step of the table".to_owned()),
        };
        must(mine, "not on what is somebody else's, or their own")?;
        for environment in &grounds.environments {
            let tier = tier(self.before, environment).unwrap_or(Tier::Production);
            let may = match kind {
                PrincipalKind::Human => self.has(Some(tier), people),
                PrincipalKind::Agent => agents && tier < Tier::Production,
                _ => false,
            };
            must(may, format!("the table does not allow {} in {environment}", edit.kind()))?;
            must(self.is_in_scope(edit.kind(), Kind::Freeze, environment, None), "out of scope")?;
        }
        Ok(())
    }

    /// Whether a request says of itself that it needs as many approvals as the table has for its risk.
    fn asks_for_enough(&self, content: &crate::changes::request::Content, judged_in: &[String]) -> Judged {
        must(content.environments.iter().all(|of| judged_in.contains(of)), "judged in fewer places than it touches")?;
        for environment in &content.environments {
            let tier = tier(self.before, environment).unwrap_or(Tier::Production);
            let agents = u32::from(self.author.kind == PrincipalKind::Agent && tier >= Tier::Staging);
            let needed = match (tier, content.risk.level) {
                (Tier::Production, RiskLevel::High) => 2,
                (Tier::Production, RiskLevel::Medium) | (Tier::Staging, RiskLevel::Medium | RiskLevel::High) => 1,
                _ => agents,
            };
            must(
                content.needed >= needed,
                format!("it says that it needs {} approvals, not {needed}", content.needed),
            )?;
        }
        Ok(())
    }
}

fn step(instruction: &Instruction) -> Option<&RequestEdit> {
    match instruction {
        Instruction::Request(edit) => Some(edit),
        _ => None,
    }
}

/// What is done, wherever.
fn bare(instruction: &Instruction) -> &Instruction {
    match instruction {
        Instruction::Within { edit, .. } => edit,
        other => other,
    }
}

fn kind(instruction: &Instruction) -> Option<Kind> {
    Some(match bare(instruction) {
        Instruction::ArchiveFlag { .. } | Instruction::DeleteFlag { .. } | Instruction::DeleteSegment { .. } => {
            Kind::Delete
        }
        Instruction::CreateEnvironment { .. } | Instruction::DeleteEnvironment { .. } => Kind::Administer,
        Instruction::DeclareFreeze { .. } | Instruction::LiftFreeze { .. } => Kind::Freeze,
        other if other.flag().is_some() || other.segment().is_some() => Kind::Edit,
        _ => return None,
    })
}

fn tier(world: &World, environment: &str) -> Option<Tier> {
    world.projects[DEFAULT].environments.get(environment).map(|environment| environment.tier)
}

fn is_frozen(world: &World, environment: &str, now: u64) -> bool {
    let environment = world.projects[DEFAULT].environments.get(environment);
    environment.is_some_and(|it| {
        it.freezes.iter().any(|freeze| freeze.from <= now && freeze.until.is_none_or(|end| now < end))
    })
}

/// Where an instruction does something: in its own environment, or in the one that its change names; flag-wide, wherever the flag is on or has been; and
/// where that is nowhere, in development.
fn touched(world: &World, named: Option<&str>, instruction: &Instruction) -> Vec<String> {
    if let Instruction::CreateEnvironment { key, .. } = instruction {
        return vec![key.clone()];
    }
    if let Instruction::Within { environment, .. } = instruction {
        return vec![environment.clone()];
    }
    if instruction.needs_environment() {
        return named.map(str::to_owned).into_iter().collect();
    }
    let project: &Project = &world.projects[DEFAULT];
    let flag = instruction.flag().and_then(|key| project.flags.get(key));
    let live: Vec<String> = flag.map_or_else(Vec::new, |flag| {
        let keys = project.environments.keys();
        // Where somebody has set how it is served, too: an edit changes what was prepared there.
        let silent = flag.stored.default_environment();
        let prepared = |key: &String| silent.as_ref() != Some(&flag.stored.environments[key]);
        keys.filter(|key| flag.stored.environments[*key].on || flag.served.contains(*key) || prepared(key))
            .cloned()
            .collect()
    });
    if live.is_empty() { vec!["development".to_owned()] } else { live }
}

/// What everybody gets of a flag that is not there, under the key of no variation.
fn callers_default() -> BTreeMap<String, f64> {
    BTreeMap::from([(String::new(), 1.0)])
}

/// What share of people each variation of a flag gets there.
fn served(flag: &Flag, environment: &str) -> BTreeMap<String, f64> {
    let Some(config) = flag.environments.get(environment) else { return BTreeMap::new() };
    if flag.archived {
        return callers_default();
    }
    if !config.on {
        return BTreeMap::from([(config.off_variation.clone(), 1.0)]);
    }
    match &config.fallthrough {
        Serve::Variation(key) => BTreeMap::from([(key.clone(), 1.0)]),
        Serve::Rollout(rollout) => {
            rollout.weights.iter().map(|(key, weight)| (key.clone(), f64::from(*weight) / 100_000.0)).collect()
        }
    }
}

fn is_ai(flag: &Flag, variation: &str) -> bool {
    let by = |provenance: &Provenance| provenance.by == ProvenanceKind::Ai;
    flag.variations.iter().any(|it| it.key == variation && it.provenance.as_ref().is_some_and(by))
}

fn ai_share(world: &World, environment: &str) -> f64 {
    let shares = world.projects[DEFAULT].flags.values().map(|flag| {
        served(&flag.stored, environment)
            .iter()
            .filter(|(key, _)| is_ai(&flag.stored, key))
            .map(|(_, share)| share)
            .sum()
    });
    shares.fold(0.0, f64::max)
}

/// Whether all it does is to turn flags off: the kill switch may be thrown, whoever is moved by it.
fn kills(entry: &Entry) -> bool {
    let mut content = entry.instructions.iter().filter(|it| !matches!(it, Instruction::Request(_))).peekable();
    content.peek().is_some() && content.all(|it| matches!(bare(it), Instruction::TurnFlagOff { .. }))
}

/// Whether all who are moved in the environment get the off variation or one that a person wrote, and somebody is moved.
fn lowers(before: &World, after: &World, environment: &str) -> bool {
    let (before, after) = (&before.projects[DEFAULT], &after.projects[DEFAULT]);
    let mut moved = false;
    for (key, new) in &after.flags {
        let (old, new) = (before.flags.get(key).map(|old| &*old.stored), &*new.stored);
        let mut was = old.map_or_else(callers_default, |old| served(old, environment));
        match old.map(|old| (old.client_side, new.client_side)) {
            // Browsers are given what they were not.
            Some((false, true)) => was = callers_default(),
            Some((true, false)) => return false,
            _ => {}
        }
        let is = served(new, environment);
        for (variation, share) in &is {
            if *share > was.get(variation).copied().unwrap_or_default() {
                moved = true;
                let off = new.environments.get(environment).is_some_and(|config| config.off_variation == *variation);
                let human = new.variations.iter().any(|it| {
                    it.key == *variation && it.provenance.as_ref().is_some_and(|by| by.by == ProvenanceKind::Human)
                });
                if !off && !human {
                    return false;
                }
            }
        }
        // A value that nobody is served may be edited beside what lowers; who wrote it may not.
        let labels = |flag: &Flag| {
            let served = |key: &String| is.get(key).is_some_and(|share| *share > 0.0);
            let label = |it: &guidon_sdk::model::Variation| {
                (it.key.clone(), served(&it.key).then(|| it.value.clone()), it.provenance.clone())
            };
            flag.variations.iter().map(label).collect::<Vec<_>>()
        };
        let off = |flag: &Flag| flag.environments.get(environment).map(|config| config.off_variation.clone());
        if old.is_some_and(|old| labels(old) != labels(new) || off(old) != off(new)) {
            return false;
        }
    }
    moved && before.flags.keys().all(|key| after.flags.contains_key(key))
}

/// Whether the instructions made are those asked for, apart from what the server fills in and what is so already.
fn same(asked: &[Instruction], made: &[&Instruction]) -> bool {
    let about = |instruction: &Instruction| {
        let value = serde_json::to_value(instruction).unwrap_or_default();
        (
            instruction.kind(),
            instruction.flag().or(instruction.segment()).map(str::to_owned),
            [value["weights"].clone(), value["variation"].clone(), value["environment"].clone()],
        )
    };
    let mut rest = asked.iter().map(about);
    made.iter().all(|instruction| rest.any(|asked| asked == about(instruction)))
}
