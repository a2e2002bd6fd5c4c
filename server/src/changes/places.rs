//! Where an instruction has to be allowed: an action in one or more environments. Pure.

use std::collections::BTreeSet;

use crate::changes::{Instruction, RequestEdit};
use crate::environments::{Audience, Tier};
use crate::identity::directory::Scope;
use crate::identity::{Directory, DirectoryEdit};
use crate::policy::{Action, Resource};
use crate::state::{FlagState, Project, World};

/// One thing that has to be allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// What.
    pub(crate) action: Action,
    /// Where.
    pub(crate) resource: Resource,
    /// On which flag.
    pub(crate) flag: Option<String>,
}

/// The installation as a whole.
pub(crate) fn installation() -> Resource {
    Resource { project: String::new(), environment: String::new(), tier: None }
}

/// An environment of a project; one that does not exist counts as production.
pub(crate) fn environment(project: &Project, key: &str) -> Resource {
    let tier = project.environments.get(key).map_or(Tier::Production, |environment| environment.tier);
    Resource { project: project.key.clone(), environment: key.to_owned(), tier: Some(tier) }
}

/// Where a change with these instructions has to be allowed, in the state before it: each in the environment that it names
/// itself or, if it names none, that the change names (`named`).
///
/// A flag-wide instruction has to be allowed in every environment where the flag is on, has served or is required by a flag
/// that is on; where there is none, in the project's environment that is farthest from real users.
pub(crate) fn places(world: &World, project: &str, named: Option<&str>, instructions: &[Instruction]) -> Vec<Place> {
    let mut places = Vec::new();
    let state = world.projects.get(project).map(|project| &**project);
    for instruction in instructions {
        let Some(action) = Action::of(instruction) else { continue };
        let resources = match instruction.edit() {
            Instruction::Directory(edit) => of_directory(world, edit),
            Instruction::CreateProject { .. } => vec![installation()],
            _ => state.map_or_else(Vec::new, |state| in_project(state, named, instruction)),
        };
        let drilled = if let Instruction::Drill(edit) = instruction.edit() { Some(edit.flag()) } else { None };
        let flag = instruction.flag().or(drilled).map(str::to_owned);
        places.extend(resources.into_iter().map(|resource| Place { action, resource, flag: flag.clone() }));
    }
    places.dedup();
    // What the same change creates is judged as what it becomes.
    for place in &mut places {
        let is_there = state.is_some_and(|state| state.environments.contains_key(&place.resource.environment));
        let made = instructions.iter().filter_map(|instruction| match instruction {
            Instruction::CreateEnvironment { key, tier, .. }
            | Instruction::UpdateEnvironment { key, tier: Some(tier), .. }
                if *key == place.resource.environment =>
            {
                Some(*tier)
            }
            _ => None,
        });
        // Of several tiers that it gets on the way, the one closest to real users.
        if let Some(tier) = made.max().filter(|_| !is_there) {
            place.resource.tier = Some(tier);
        }
    }
    places
}

fn in_project(project: &Project, named: Option<&str>, instruction: &Instruction) -> Vec<Resource> {
    if instruction.needs_environment() {
        return vec![environment(project, instruction.environment(named).unwrap_or_default())];
    }
    match instruction.edit() {
        Instruction::CreateEnvironment { key, tier, .. } => {
            vec![Resource { project: project.key.clone(), environment: key.clone(), tier: Some(*tier) }]
        }
        Instruction::UpdateEnvironment { key, tier, .. } => {
            let now = environment(project, key);
            let then = tier.map(|tier| Resource { tier: Some(tier), ..now.clone() });
            [now].into_iter().chain(then).collect()
        }
        Instruction::DeleteEnvironment { key } => vec![environment(project, key)],
        Instruction::RevokeSdkKey { id } => {
            let key = project.sdk_keys.get(id).map(|key| key.environment.clone());
            vec![environment(project, &key.unwrap_or_default())]
        }
        Instruction::Request(edit) => of_request(project, edit),
        // What a webhook tells of is the whole project, whatever its filters say.
        Instruction::Webhook(_) => {
            vec![Resource { project: project.key.clone(), environment: String::new(), tier: None }]
        }
        Instruction::CreateFlag { flag } => {
            // What the definition says of an environment by itself is an edit there.
            let silent = flag.default_environment();
            let said = flag.environments.iter().filter(|(_, config)| silent.as_ref() != Some(*config));
            let mut there: Vec<Resource> = said.map(|(key, _)| environment(project, key)).collect();
            there.extend(farthest(project));
            there
        }
        other => match other.flag().and_then(|key| project.flags.get(key)) {
            Some(flag) => {
                let live = concerned(project, flag, other);
                if live.is_empty() {
                    farthest(project).into_iter().collect()
                } else {
                    live.iter().map(|key| environment(project, key)).collect()
                }
            }
            None => farthest(project).into_iter().collect(),
        },
    }
}

/// The environments that a flag-wide edit of the flag concerns: where it is live, where somebody has set how it is served, and
/// where the edit changes what an application is served though the flag was never on.
fn concerned(project: &Project, flag: &FlagState, instruction: &Instruction) -> BTreeSet<String> {
    let mut concerned = live_in(project, flag);
    let silent = flag.stored.default_environment();
    let has_keys = |environment: &str, audience: Option<Audience>| {
        project.sdk_keys.values().any(|key| {
            let of = audience.is_none_or(|audience| key.audience == audience);
            key.environment == environment && key.revoked_at.is_none() && of
        })
    };
    for (key, config) in &flag.stored.environments {
        let served = match instruction {
            Instruction::UpdateVariation { variation, value, provenance, .. } => {
                (value.is_some() || provenance.is_some()) && config.off_variation == *variation && has_keys(key, None)
            }
            Instruction::SetClientSide { client_side: true, .. } => has_keys(key, Some(Audience::Client)),
            _ => false,
        };
        if served || silent.as_ref() != Some(config) {
            concerned.insert(key.clone());
        }
    }
    concerned
}

/// The environments where the flag is on, was ever on, or is required by a flag that is on.
pub(crate) fn live_in(project: &Project, flag: &FlagState) -> BTreeSet<String> {
    let key = &flag.stored.key;
    let environments = project.environments.keys();
    let live = environments.filter(|environment| {
        let on = flag.stored.environments.get(*environment).is_some_and(|config| config.on);
        let required = || {
            project.flags.values().any(|other| {
                let config = other.stored.environments.get(*environment);
                config.is_some_and(|config| config.on && config.prerequisites.iter().any(|of| of.flag == *key))
            })
        };
        on || flag.served.contains(*environment) || required()
    });
    live.cloned().collect()
}

/// The environment that is farthest from real users.
fn farthest(project: &Project) -> Option<Resource> {
    let environment = project.environments.values().min_by_key(|environment| (environment.tier, &environment.key))?;
    let (key, tier) = (environment.key.clone(), environment.tier);
    Some(Resource { project: project.key.clone(), environment: key, tier: Some(tier) })
}

fn of_request(project: &Project, edit: &RequestEdit) -> Vec<Resource> {
    let environments = match edit {
        RequestEdit::OpenRequest { content, .. } => content.environments.clone(),
        RequestEdit::ReviewEntry { revision, .. } => {
            project.reviews.get(revision).map(|review| review.environment.clone()).into_iter().collect()
        }
        other => {
            let id = other.request().unwrap_or_default();
            let mut environments =
                project.requests.get(id).map(|it| it.content.environments.clone()).unwrap_or_default();
            if let RequestEdit::EditRequest { content, .. } = other {
                environments.extend(content.environments.iter().cloned());
            }
            environments
        }
    };
    if environments.is_empty() {
        // What cannot be placed is judged as the closest to real users.
        return vec![environment(project, "")];
    }
    let distinct: BTreeSet<String> = environments.into_iter().collect();
    distinct.iter().map(|key| environment(project, key)).collect()
}

fn of_directory(world: &World, edit: &DirectoryEdit) -> Vec<Resource> {
    let directory: &Directory = &world.directory;
    match edit {
        DirectoryEdit::GrantRole { project, tiers, .. } => of_binding(project.as_deref(), tiers),
        DirectoryEdit::RevokeRole { id } => match directory.bindings.get(id) {
            Some(binding) => of_binding(binding.project.as_deref(), &binding.tiers),
            None => vec![installation()],
        },
        DirectoryEdit::CreateToken { scope, .. } => of_scope(world, scope),
        DirectoryEdit::RotateToken { id, .. } | DirectoryEdit::RevokeToken { id } => match directory.tokens.get(id) {
            Some(token) => of_scope(world, &token.scope),
            None => vec![installation()],
        },
        _ => vec![installation()],
    }
}

fn of_binding(project: Option<&str>, tiers: &[Tier]) -> Vec<Resource> {
    let project = project.unwrap_or_default().to_owned();
    if tiers.is_empty() {
        return vec![Resource { project, environment: String::new(), tier: None }];
    }
    let in_tier =
        |tier: &Tier| Resource { project: project.clone(), environment: tier.as_str().to_owned(), tier: Some(*tier) };
    tiers.iter().map(in_tier).collect()
}

fn of_scope(world: &World, scope: &Scope) -> Vec<Resource> {
    let Some(key) = &scope.project else { return vec![installation()] };
    let Some(project) = world.projects.get(key) else { return vec![installation()] };
    if scope.environments.is_empty() {
        return vec![Resource { project: key.clone(), environment: String::new(), tier: None }];
    }
    scope.environments.iter().map(|of| environment(project, of)).collect()
}
