//! What each resolved instruction does to the environments of a project and to their SDK keys.

use std::sync::Arc;

use guidon_sdk::model::Flag;

use super::{Environment, Freeze, SdkKey};
use crate::changes::Instruction;
use crate::changes::apply::{ApplyError, exists, unknown};
use crate::state::{FlagState, Project};

/// Applies an instruction that is about neither a flag nor a segment, made at `at` (milliseconds since 1970).
pub(crate) fn apply(
    project: &mut Project,
    environment: Option<&str>,
    instruction: &Instruction,
    at: u64,
    revision: u64,
) -> Result<(), ApplyError> {
    match instruction {
        Instruction::CreateEnvironment { key, name, tier } => {
            if project.environments.contains_key(key) {
                return Err(exists("environment", key));
            }
            let name = if name.is_empty() { key.clone() } else { name.clone() };
            let created = Environment { key: key.clone(), name, tier: *tier, freezes: Vec::new() };
            project.environments.insert(key.clone(), Arc::new(created));
            edit_all_flags(project, at, revision, |flag| {
                if let Some(config) = flag.default_environment() {
                    flag.environments.insert(key.clone(), config);
                }
            });
        }
        Instruction::UpdateEnvironment { key, name, tier } => {
            let known = project.environments.get(key).ok_or_else(|| unknown("environment", key))?;
            let mut edited = Environment::clone(known);
            edited.name = name.clone().unwrap_or(edited.name);
            edited.tier = tier.unwrap_or(edited.tier);
            project.environments.insert(key.clone(), Arc::new(edited));
        }
        Instruction::DeclareFreeze { id, from, until, reason } => {
            let key = environment.ok_or(ApplyError::NoEnvironment)?;
            let known = project.environments.get(key).ok_or_else(|| unknown("environment", key))?;
            let mut frozen = Environment::clone(known);
            // Freezes that are over have had their time; the journal keeps them.
            frozen.freezes.retain(|freeze| freeze.until.is_none_or(|end| at < end));
            let (id, from, reason) = (id.clone(), from.unwrap_or(at), reason.clone());
            frozen.freezes.push(Freeze { id, from, until: *until, reason });
            project.environments.insert(key.to_owned(), Arc::new(frozen));
        }
        Instruction::LiftFreeze { id } => {
            let key = environment.ok_or(ApplyError::NoEnvironment)?;
            let known = project.environments.get(key).ok_or_else(|| unknown("environment", key))?;
            let mut thawed = Environment::clone(known);
            thawed.freezes.retain(|freeze| freeze.id != *id);
            project.environments.insert(key.to_owned(), Arc::new(thawed));
        }
        Instruction::DeleteEnvironment { key } => {
            project.environments.remove(key).ok_or_else(|| unknown("environment", key))?;
            project.segments = project.segments.clone().into_iter().filter(|((of, _), _)| of != key).collect();
            project.sdk_keys =
                project.sdk_keys.clone().into_iter().filter(|(_, sdk_key)| sdk_key.environment != *key).collect();
            project.drills = project.drills.clone().into_iter().filter(|((of, _), _)| of != key).collect();
            project.releases = project.releases.clone().into_iter().filter(|((of, _), _)| of != key).collect();
            project.incidents =
                project.incidents.clone().into_iter().filter(|(_, it)| it.environment != *key).collect();
            edit_all_flags(project, at, revision, |flag| {
                flag.environments.remove(key);
            });
        }
        Instruction::CreateSdkKey { id, name, audience, hash } => {
            if project.sdk_keys.contains_key(id) {
                return Err(exists("SDK key", id));
            }
            let environment = environment.ok_or(ApplyError::NoEnvironment)?.to_owned();
            let (id, name, hash, audience) = (id.clone(), name.clone(), hash.clone(), *audience);
            let made = SdkKey {
                id: id.clone(),
                name,
                environment,
                audience,
                hash,
                created_at: at,
                expires_at: None,
                revoked_at: None,
                replaced_by: None,
            };
            project.sdk_keys.insert(id, Arc::new(made));
        }
        Instruction::RotateSdkKey { id, successor, hash, deadline } => {
            let old = project.sdk_keys.get(id).cloned().ok_or_else(|| unknown("SDK key", id))?;
            if project.sdk_keys.contains_key(successor) {
                return Err(exists("SDK key", successor));
            }
            let made = SdkKey {
                id: successor.clone(),
                hash: hash.clone(),
                created_at: at,
                expires_at: None,
                ..SdkKey::clone(&old)
            };
            let replaced =
                SdkKey { expires_at: Some(*deadline), replaced_by: Some(successor.clone()), ..SdkKey::clone(&old) };
            project.sdk_keys.insert(id.clone(), Arc::new(replaced));
            project.sdk_keys.insert(successor.clone(), Arc::new(made));
        }
        Instruction::RevokeSdkKey { id } => {
            let known = project.sdk_keys.get(id).ok_or_else(|| unknown("SDK key", id))?;
            let revoked = SdkKey { revoked_at: known.revoked_at.or(Some(at)), ..SdkKey::clone(known) };
            project.sdk_keys.insert(id.clone(), Arc::new(revoked));
        }
        _ => {}
    }
    Ok(())
}

/// Edits the stored and the published form of every flag alike: environments that come or go hold no keys.
fn edit_all_flags(project: &mut Project, at: u64, revision: u64, edit: impl Fn(&mut Flag)) {
    let edited = project.flags.iter().map(|(key, flag)| {
        let changed = |flag: &Arc<Flag>| {
            let mut flag = Flag::clone(flag);
            edit(&mut flag);
            Arc::new(flag)
        };
        let stored = changed(&flag.stored);
        let same = Arc::ptr_eq(&flag.stored, &flag.published);
        let published = if same { Arc::clone(&stored) } else { changed(&flag.published) };
        let mut served = flag.served.clone();
        served.retain(|environment| stored.environments.contains_key(environment));
        let created_at = flag.created_at;
        let state = FlagState { stored, published, created_at, updated_at: at, revision, served };
        (key.clone(), Arc::new(state))
    });
    project.flags = edited.collect();
}
