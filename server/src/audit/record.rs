//! One form for what both logs hold: what people who ask about the past are shown.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use super::{Deployment, People, Person, Place, StoredEvent};
use crate::changes::describe;
use crate::environments::Tier;
use crate::journal::{Entry, ObjectId, StoredEntry};
use crate::state::World;

/// The kind of a record that is a journal entry.
pub const CHANGE: &str = "change";

/// Most flags, segments or sentences that a record lists; the last sentence says how many more there are.
pub const MAX_LISTED: usize = 100;

/// One thing that happened: a change, or an event of the second log.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// `j:` and the revision, or `s:` and the number of the event.
    pub id: String,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// [`CHANGE`], or the event's kind.
    pub kind: &'static str,
    /// Who, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<Person>,
    /// From where.
    pub origin: Place,
    /// Project it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Environments it was about. It concerns every environment of the project where `everywhere` says so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<String>,
    /// Whether it changed what all environments share, such as a variation's value.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub everywhere: bool,
    /// Tiers of the environments, as far as they are known: a deleted environment has none any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
    /// Flags it was about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Segments it was about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<String>,
    /// What was asked for: the action, or the kinds of instructions, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// What was done, as sentences without a full stop.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub summary: Vec<String>,
    /// Why, in the author's words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Source commit the change ships.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The credential that was used, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The build that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
    /// Why it was allowed, or refused.
    #[serde(flatten)]
    pub grounds: Grounds,
    /// Whether it is an emergency change that nobody has reviewed yet.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub needs_review: bool,
    /// How many it stands for.
    pub count: u32,
    /// The chain up to and with it, in hexadecimal.
    pub hash: String,
}

/// Why something was allowed, or refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Grounds {
    /// Policies that decided, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// BLAKE3 of all the policies that were in force, in hexadecimal.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy_set: String,
    /// The risk that was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub risk: Option<RiskFound>,
    /// The change request that was applied, by id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Who wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<Person>,
    /// Who approved it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Person>,
    /// Whether it took the emergency path.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub emergency: bool,
}

/// A risk as it was found when the change was made.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RiskFound {
    /// The score.
    pub score: u32,
    /// `low`, `medium`, `high`.
    pub level: String,
    /// What it is made of, as sentences.
    pub reasons: Vec<String>,
}

/// The grounds of a journal entry. The one place to extend when entries hold more of them.
fn grounds_of(entry: &Entry, people: &dyn People) -> Grounds {
    let Some(grounds) = &entry.grounds else { return Grounds::default() };
    Grounds {
        policies: grounds.policies.clone(),
        policy_set: grounds.policy_set.clone(),
        risk: grounds.risk.as_ref().map(|risk| RiskFound {
            score: risk.score,
            level: risk.level.as_str().to_owned(),
            reasons: risk.reasons.clone(),
        }),
        request: grounds.request.clone(),
        author: grounds.author.as_deref().map(|id| people.person(id)),
        approvals: grounds.approvals.iter().map(|approval| people.person(&approval.by)).collect(),
        emergency: grounds.emergency,
    }
}

/// Ids of those who wrote or approved the request that an entry carries out: they are found by the filter for a person too. To be extended with [`grounds_of`].
fn approvers_of(entry: &Entry) -> impl Iterator<Item = &str> {
    let grounds = entry.grounds.iter();
    grounds.flat_map(|grounds| grounds.approvals.iter().map(|approval| &*approval.by).chain(grounds.author.as_deref()))
}

/// What is said of a build.
fn seen(build: &Deployment) -> String {
    let named = if build.application.is_empty() { "an application without a name" } else { &build.application };
    let facts = [("version", &build.version), ("commit", &build.commit), ("image", &build.image), ("SDK", &build.sdk)];
    let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
    let facts: Vec<String> = facts.map(|(name, value)| format!("{name} {value}")).collect();
    format!("first sight of {named}: {}", facts.join(", "))
}

/// Says which tier an environment belongs to.
pub trait Tiers: Send + Sync + 'static {
    /// The tier of an environment; `None` where there is no such environment any more.
    fn tier(&self, project: &str, environment: &str) -> Option<Tier>;

    /// The environment of an SDK key, revoked or not.
    fn environment_of_key(&self, project: &str, id: &str) -> Option<String>;

    /// Whether the emergency change that made this revision waits to be reviewed.
    fn needs_review(&self, project: &str, revision: u64) -> bool;
}

impl<F: Fn() -> Arc<World> + Send + Sync + 'static> Tiers for F {
    fn tier(&self, project: &str, environment: &str) -> Option<Tier> {
        self().environment(project, environment).map(|environment| environment.tier)
    }

    fn environment_of_key(&self, project: &str, id: &str) -> Option<String> {
        let world = self();
        world.project(project)?.sdk_keys.get(id).map(|key| key.environment.clone())
    }

    fn needs_review(&self, project: &str, revision: u64) -> bool {
        let world = self();
        let review = world.project(project).and_then(|project| project.reviews.get(&revision));
        review.is_some_and(|review| review.finding.is_none())
    }
}

/// What something was about: what filters look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Who did it, and who approved it.
    pub people: BTreeSet<String>,
    /// Project it was about.
    pub project: Option<String>,
    /// Environments it was about.
    pub environments: BTreeSet<String>,
    /// Whether it concerns all of them.
    pub everywhere: bool,
    /// Tiers of those environments.
    pub tiers: BTreeSet<Tier>,
    /// Whether one of the environments is in no tier that is known.
    pub has_unknown_tier: bool,
    /// Flags it was about.
    pub flags: BTreeSet<String>,
    /// Segments it was about.
    pub segments: BTreeSet<String>,
    /// Whether it is an emergency change that nobody has reviewed yet.
    pub needs_review: bool,
}

impl About {
    /// What a change was about.
    #[must_use]
    pub fn entry(entry: &Entry, tiers: &dyn Tiers) -> Self {
        let mut about = Self {
            at: entry.at,
            project: Some(entry.project.clone()).filter(|key| !key.is_empty()),
            ..Self::default()
        };
        about.needs_review = tiers.needs_review(&entry.project, entry.revision);
        about.people.insert(entry.actor_id.clone());
        about.people.extend(approvers_of(entry).map(str::to_owned));
        about.environments.extend(entry.named_environments().map(str::to_owned));
        for changed in &entry.objects {
            match &changed.object {
                ObjectId::Project => about.everywhere = true,
                ObjectId::Environment(key) => {
                    about.environments.insert(key.clone());
                }
                ObjectId::Flag(key) => {
                    about.everywhere = true;
                    about.flags.insert(key.clone());
                }
                ObjectId::FlagEnvironment(environment, key) => {
                    about.environments.insert(environment.clone());
                    about.flags.insert(key.clone());
                }
                ObjectId::Drill(environment, key) | ObjectId::Release(environment, key) => {
                    about.environments.insert(environment.clone());
                    about.flags.insert(key.clone());
                }
                ObjectId::Segment(environment, key) => {
                    about.environments.insert(environment.clone());
                    about.segments.insert(key.clone());
                }
                ObjectId::SdkKey(id) => about.environments.extend(tiers.environment_of_key(&entry.project, id)),
                // Where it was judged, which the grounds say.
                ObjectId::Request(_)
                | ObjectId::Review(_)
                | ObjectId::Webhook(_)
                | ObjectId::Incident(_)
                | ObjectId::Principal(_)
                | ObjectId::RoleBinding(_)
                | ObjectId::Token(_)
                | ObjectId::Issuer(_)
                | ObjectId::Policy(_) => {}
            }
        }
        about.environments.extend(entry.grounds.iter().flat_map(|grounds| grounds.environments.iter().cloned()));
        about.find_tiers(tiers);
        about
    }

    /// What an event was about.
    #[must_use]
    pub fn event(stored: &StoredEvent, tiers: &dyn Tiers) -> Self {
        let event = &stored.event;
        let mut about = Self {
            at: event.at,
            people: event.actor_id.iter().cloned().collect(),
            project: event.project.clone(),
            environments: event.environment.iter().cloned().collect(),
            flags: event.flag.iter().cloned().collect(),
            ..Self::default()
        };
        about.find_tiers(tiers);
        about
    }

    fn find_tiers(&mut self, tiers: &dyn Tiers) {
        let Some(project) = &self.project else { return };
        for environment in &self.environments {
            match tiers.tier(project, environment) {
                Some(tier) => {
                    self.tiers.insert(tier);
                }
                None => self.has_unknown_tier = true,
            }
        }
    }
}

impl AuditRecord {
    /// A journal entry as a record.
    #[must_use]
    pub fn of_entry(stored: &StoredEntry, people: &dyn People, tiers: &dyn Tiers) -> Self {
        let entry = &*stored.entry;
        let About { environments, everywhere, tiers, flags, segments, needs_review, .. } = About::entry(entry, tiers);
        let kinds: BTreeSet<&str> = entry.instructions.iter().map(|instruction| instruction.kind()).collect();
        let sentences =
            entry.instructions.iter().map(|instruction| describe(instruction, entry.environment.as_deref()));
        let mut summary: Vec<String> = sentences.take(MAX_LISTED).collect();
        let more = entry.instructions.len() - summary.len();
        if more > 0 {
            summary.push(format!("and {more} more edits"));
        }
        Self {
            id: format!("j:{}", entry.revision),
            at: entry.at,
            kind: CHANGE,
            actor: Some(people.person(&entry.actor_id)),
            origin: people.place(&entry.origin_id),
            project: Some(entry.project.clone()).filter(|key| !key.is_empty()),
            environments: environments.into_iter().collect(),
            everywhere,
            tiers: tiers.into_iter().collect(),
            flags: flags.into_iter().take(MAX_LISTED).collect(),
            segments: segments.into_iter().take(MAX_LISTED).collect(),
            actions: kinds.into_iter().map(str::to_owned).collect(),
            summary,
            comment: entry.comment.clone(),
            commit: entry.commit.clone(),
            credential: entry.grounds.as_ref().and_then(|grounds| grounds.credential.clone()),
            deployment: None,
            grounds: grounds_of(entry, people),
            needs_review,
            count: 1,
            hash: stored.hash.to_string(),
        }
    }

    /// An event as a record.
    #[must_use]
    pub fn of_event(stored: &StoredEvent, people: &dyn People, tiers: &dyn Tiers) -> Self {
        let event = stored.event.clone();
        let About { environments, tiers, .. } = About::event(stored, tiers);
        let said = Some(event.detail).filter(|detail| !detail.is_empty());
        Self {
            id: format!("s:{}", stored.seq),
            at: event.at,
            kind: event.kind.as_str(),
            actor: event.actor_id.as_deref().map(|id| people.person(id)),
            origin: people.place(&event.origin_id),
            project: event.project,
            environments: environments.into_iter().collect(),
            everywhere: false,
            tiers: tiers.into_iter().collect(),
            flags: event.flag.into_iter().collect(),
            segments: Vec::new(),
            actions: event.action.into_iter().collect(),
            summary: event.deployment.as_ref().map(seen).into_iter().chain(said).collect(),
            comment: String::new(),
            commit: event.deployment.as_ref().map(|it| it.commit.clone()).filter(|commit| !commit.is_empty()),
            credential: event.credential,
            deployment: event.deployment,
            grounds: Grounds { policies: event.policies, ..Grounds::default() },
            needs_review: false,
            count: event.count,
            hash: stored.hash.to_string(),
        }
    }
}
